"""Completion in `%%lr` cells and `%lr` lines, and their colours in a terminal.

In: what IPython knows of the text and the cursor.  Out: the completions of the prompt.
"""
from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from dsl.session import Session

CELL = re.compile(r"\s*%%lr\b[^\n]*\n")
LINE = re.compile(r"(?:.*[=(]\s*|\s*)%lr\s+(?:--name[ =]\w+\s+)?")


def complete_in(shell: Any, session: Callable[[], Session | None]) -> None:
    """The shell asks here first; `session`: the one of the last cell."""
    from IPython.core.completer import SimpleCompletion, context_matcher

    def matcher(context: Any) -> Any:
        asked = part_asked(context.full_text, context.cursor_position, context.cursor_line, context.line_with_cursor)
        now = session()
        if asked is None or now is None:
            return {"completions": [], "suppress": False}
        from dsl.repl.complete import complete
        text, cursor = asked
        found = complete(now, text, cursor)
        start = min((c.start for c in found), default=cursor)
        return {"completions": [SimpleCompletion(text=c.text, type=c.kind) for c in found], "suppress": True,
                "matched_fragment": text[start:cursor], "ordered": True}

    shell.Completer.custom_matchers.insert(0, context_matcher(identifier="lr")(matcher))


def part_asked(full: str, column: int, line: int, line_text: str) -> tuple[str, int] | None:
    """The text in the language that the cursor is in, and the cursor's place in it; None elsewhere."""
    head = CELL.match(full)
    if head is not None and line > 0:
        lines = full.split("\n")
        before = sum(len(text) + 1 for text in lines[:line]) + column
        start = head.end()
        return (full[start:], before - start) if before >= start else None
    inside = LINE.match(line_text[:column])
    return (line_text[inside.end():], column - inside.end()) if inside is not None else None


def highlight_in(shell: Any) -> None:
    """Colours while a `%%lr` cell is typed in a terminal."""
    lexer = getattr(getattr(getattr(shell, "pt_app", None), "lexer", None), "magic_lexers", None)
    if lexer is not None:
        from prompt_toolkit.lexers import PygmentsLexer

        from dsl.highlight import LrLexer
        lexer["lr"] = PygmentsLexer(LrLexer)
