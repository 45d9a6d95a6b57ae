"""What was typed, as text: in comes a text, out go its pieces, whether it is complete, what of a transcript was input.

The prompt, pasted text, piped text and `:time` all read with this.  A line that begins with `:` or `?` is a command; everything else
is statements, whose extent the parser knows.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from dsl.record import record

PROMPT, CONTINUATION = "lr> ", "... "
INDENT = "  "


@record
class Piece:
    """A command, or the statements up to the next one; `line` is where it begins, from 0."""

    command: bool
    text: str
    line: int


def is_command(line: str) -> bool:
    return line.startswith((":", "?"))


def pieces(text: str) -> list[Piece]:
    """Commands and what stands between them.  A command takes the deeper lines below it, which only `:time` has."""
    lines = text.split("\n")
    if lines[0].strip() and is_command(lines[0].strip()):
        lines[0] = lines[0].strip()
    found: list[tuple[bool, int, list[str]]] = []
    for number, line in enumerate(lines):
        if is_command(line):
            found.append((True, number, [line]))
        elif found and (not found[-1][0] or not line.strip() or line[0].isspace()):
            found[-1][2].append(line)
        else:
            found.append((False, number, [line]))
    return [Piece(command, "\n".join(held), number) for command, number, held in found]


# ---------------------------------------------------------------- complete or not
Verdict = Literal["run", "more", "text"]
"""Run it; ask for another line; a text that is not closed must be before anything is done."""


def verdict(text: str, takes_entry: Callable[[str], bool] = lambda word: False) -> Verdict:
    """What Enter does with a text; `takes_entry` tells whether a command is followed by an entry."""
    if not text.strip():
        return "run"
    last = pieces(text)[-1]
    entry = last.text
    if last.command:
        word, _, entry = last.text.partition(" ")
        if last.text.startswith("?") or not takes_entry(word) or not entry.strip():
            return "run"
    from dsl.syntax.parse import is_complete
    if text_open(entry):
        return "text"
    return "run" if is_complete(entry) else "more"


def text_open(text: str) -> bool:
    """Whether the last line holds a text in quotes that is not closed."""
    if '"' not in text.rpartition("\n")[2]:
        return False
    from dsl.errors import Source
    from dsl.syntax.layout import scan
    tokens = [t for t in scan(Source("<entry>", text)) if t.type not in ("END", "BREAK")]
    return bool(tokens) and tokens[-1].type == "ERROR" and tokens[-1].text == '"' and "\n" not in text[tokens[-1].start:]


def indentation(text: str) -> str:
    """What the line after a text begins with: as the last one, deeper in a new bracket, in a new block, in a statement that goes on."""
    from dsl.errors import Source
    from dsl.syntax.lalr import Parser
    from dsl.syntax.layout import Layout
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return ""
    last = lines[-1]
    before = last[:len(last) - len(last.lstrip())]
    source = Source("<entry>", text.partition(" ")[2] if is_command(text) else text)
    layout = Layout(source)
    tokens = layout.run()
    if layout.brackets or _brackets(last) > 0:
        return before + INDENT if _brackets(last) > 0 else before
    return before if Parser(source, tokens).advance() else " " * layout.column + INDENT


def _brackets(line: str) -> int:
    """How many brackets a line opens and does not close."""
    from dsl.errors import Source
    from dsl.syntax.layout import scan
    kinds = [t.type for t in scan(Source("<entry>", line))]
    return sum(kinds.count(kind) for kind in ("LPAR", "LSQB")) - sum(kinds.count(kind) for kind in ("RPAR", "RSQB"))


# ---------------------------------------------------------------- transcripts
def transcript(text: str) -> list[str] | None:
    """The entries of a text copied from a terminal, without prompts and results; None if it is not one."""
    lines = [line.rstrip("\r") for line in text.split("\n")]
    first = next((line for line in lines if line.strip()), "")
    prompted = sum(_after(line, PROMPT) is not None for line in lines)
    if not prompted or (_after(first, PROMPT) is None and prompted < 2):
        return None
    entries: list[list[str]] = []
    typed = False
    for line in lines:
        begun, more = _after(line, PROMPT), _after(line, CONTINUATION)
        if begun is not None:
            entries.append([begun])
        elif typed and more is not None:
            entries[-1].append(more)
        typed = begun is not None or (typed and more is not None)
    return [text for held in entries if (text := "\n".join(held).rstrip()).strip()]


def _after(line: str, prompt: str) -> str | None:
    """The rest of a line after a prompt, of which the space at its end may be gone."""
    if line.startswith(prompt):
        return line[len(prompt):]
    return "" if line.rstrip() == prompt.rstrip() else None


# ---------------------------------------------------------------- piped text
def entries(lines: Iterable[str]) -> Iterator[str]:
    """The entries of a text that arrives line by line: each ends where a line begins at the margin, outside brackets.

    So a script means here what it means in a file, blank lines in its blocks included; if it begins with a prompt, it is read as
    a transcript."""
    held: list[str] = []
    prompted = typed = False
    for raw in lines:
        line = raw.rstrip("\r\n")
        begun = _after(line, PROMPT)
        if begun is not None and (prompted or not any(text.strip() for text in held)):
            prompted = True
            yield from _entry(held)
            held, typed = [begun], True
        elif prompted:
            more = _after(line, CONTINUATION) if typed else None
            typed = more is not None
            held.extend([more] if more is not None else [])
        else:
            if line.strip() and not line[0].isspace() and not line.startswith("#") and not _open(held):
                yield from _entry(held)
                held = []
            held.append(line)
    yield from _entry(held)


def _entry(held: list[str]) -> Iterator[str]:
    """The lines as an entry, if there is anything in them."""
    while held and not held[-1].strip():
        held.pop()
    if any(line.strip() and not line.lstrip().startswith("#") for line in held):
        yield "\n".join(held)


def _open(held: list[str]) -> bool:
    """Whether a bracket is open at the end of these lines."""
    text = "\n".join(held)
    if not any(bracket in text for bracket in "([") or is_command(text):
        return False
    from dsl.syntax.parse import is_complete
    return not is_complete(text + "\n")
