"""What worked so far, as a script.

In: the statements of a session in their order (`Said`), with what they printed.  Out: a script that runs by itself: a statement that was
bound again stands once, in its last form, where the first stood or as soon as what it uses is there; an expression by itself
becomes a `print`, and results stand behind `#>`, so that `lr test` checks them.  A result that the script will not give again,
because something it depends on was bound again later, becomes an ordinary comment.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsl.errors import Span
from dsl.syntax import ast
from dsl.syntax.names import used_names
from dsl.syntax.rebinding import words

LONGEST_RESULT = 400
LARGEST_LITERAL = 20
HEADER = (ast.Precision, ast.Seed, ast.Device)
UPDATES = (ast.Update, ast.Minimize, ast.Step)


@dataclass(eq=False)
class Said:
    """A statement that worked; `valued` says that it is an expression with a value, which `literal` writes if it is small; `broken` is a
    training that did not end as planned."""

    statement: ast.Statement
    ans: Said | None
    """Whose value `ans` stands for in it."""
    printed: str | None = None
    valued: bool = False
    literal: str | None = None
    broken: bool = False
    drawn: bool = False
    """Whether its draws are keyed by its text, which is another one as a `print`."""

    def holds(self, span: Span) -> bool:
        mine = self.statement.span
        return mine.source is span.source and mine.start <= span.start and span.end <= mine.end

    @property
    def keys(self) -> list[str]:
        """What it is known by: the names it binds, or the updates it makes."""
        if isinstance(self.statement, HEADER):
            return [type(self.statement).__name__.lower() + " "]
        return words(self.statement)

    @property
    def reads(self) -> set[str]:
        """Names whose values it reads, as far as the text tells."""
        return set(used_names(self.statement)) - (set(self.keys) - set(used_names(self.statement, keys=False)))


def script(said: Sequence[Said], header: Sequence[str] = ()) -> str:
    """The text of the script, ending in a line end; empty if nothing was said.  `header`: lines for what was set without a statement."""
    return "".join(line + "\n" for line in (*header, *Writer(said).lines()))


class Writer:
    def __init__(self, said: Sequence[Said]) -> None:
        self.said = said
        self.final: dict[str, int] = {}
        """Where each name or update is bound for the last time."""
        for number, one in enumerate(said):
            self.final.update(dict.fromkeys(one.keys, number))
        self.names: dict[tuple[int, str], str] = {}
        """Names of what had to be kept beside what replaced it, by statement."""
        self.latest: list[dict[str, int]] = []
        """Before each statement, which one each name stands for."""
        known: dict[str, int] = {}
        for number, one in enumerate(said):
            self.latest.append(dict(known))
            known.update(dict.fromkeys(one.keys, number))
        taken = {name for one in said for name in (*one.keys, *one.reads)}
        for number, one in enumerate(said):
            if not isinstance(one.statement, UPDATES) and self.replaced(number) and self.kept(number):
                for key in one.keys:
                    if self.final[key] != number:
                        fresh = next(f"{key}_{i}" for i in range(1, len(said) + 2) if f"{key}_{i}" not in taken)
                        taken.add(fresh)
                        self.names[number, key] = fresh
        self.answers: dict[int, str] = {}
        for one in said:
            if one.ans is not None and id(one.ans) not in self.answers:
                fresh = next(f"ans_{i}" for i in range(1, len(said) + 2) if f"ans_{i}" not in taken)
                taken.add(fresh)
                self.answers[id(one.ans)] = fresh
        self.written: set[int] = set()

    def replaced(self, number: int) -> bool:
        keys = self.said[number].keys
        return bool(keys) and any(self.final[key] != number for key in keys)

    def kept(self, number: int) -> bool:
        """Whether what was replaced still has a part: another of its names, or what replaced it reads it."""
        one = self.said[number]
        if any(self.final[key] == number for key in one.keys):
            return True
        return any(later.keys and self.latest[n].get(key) == number and key in used_names(later.statement, keys=False) and key in later.keys
                   for key in one.keys for n, later in enumerate(self.said))

    # ------------------------------------------------------------ lines
    def lines(self) -> Iterator[str]:
        tainted = False
        """Whether a training in the script gives another state than the session's."""
        on_the_way = False
        """Whether the session's last training had not come to its end at that point."""
        for number in sorted({n for key, n in self.final.items() if key.endswith(" ")}):
            yield from self.definition(number, set())
        for number, one in enumerate(self.said):
            if one.keys:
                for key in one.keys:
                    yield from self.definition(self.final[key], set())
                if self.kept(number):
                    yield from self.definition(number, set())
                continue
            stale = self.stale(number, tainted or on_the_way)
            match one.statement:
                case ast.GoOn():                             # in a script, the training above comes to its end at once
                    on_the_way = on_the_way and one.broken
                    continue
                case ast.Train():
                    tainted, on_the_way = tainted or on_the_way or stale, one.broken
            yield from self.command(number, one, stale)

    def definition(self, number: int, busy: set[int]) -> Iterator[str]:
        """A binding, after all that it reads."""
        if number in self.written or number in busy:
            return
        one = self.said[number]
        for name in sorted(one.reads):
            source = self.latest[number].get(name)
            if source is not None:
                source = source if (source, name) in self.names else self.final[name]
                yield from self.definition(source, busy | {number})
        if number not in self.written:
            self.written.add(number)
            yield self.text(number)

    def command(self, number: int, one: Said, stale: bool) -> Iterator[str]:
        text = self.text(number)
        if one.broken and not self.ended(number):
            text += "  # did not come to its end"
        answer = self.answers.get(id(one))
        if isinstance(one.statement, ast.Bare):
            if answer is not None:
                yield f"data {answer} = {one.literal}" if one.literal is not None else f"let {answer} = {text}"
            text = f"print {text}" if one.valued else f"show {text}"
        if one.printed is not None:
            result = " ".join(one.printed.split())
            if 0 < len(result) <= LONGEST_RESULT:
                text += f"  # was {result}, a draw of its own" if one.drawn else f"  #> {result}" if not stale else \
                    f"  # was {result} at that time"
        yield text

    def ended(self, number: int) -> bool:
        """Whether a training that was interrupted was gone on with to its end."""
        for one in self.said[number + 1:]:
            if isinstance(one.statement, ast.Train):
                return False
            if isinstance(one.statement, ast.GoOn) and not one.broken:
                return True
        return False

    def text(self, number: int) -> str:
        """A statement's text with the names that its values have in the script."""
        one = self.said[number]
        span = one.statement.span
        edits: list[tuple[int, int, str]] = []
        stack: list[object] = [one.statement]
        while stack:
            match stack.pop():
                case ast.Name(word) | ast.Ident(word) as name:
                    own = isinstance(name, ast.Ident) and (number, word) in self.names
                    source = number if own else self.latest[number].get(word, -1)
                    fresh = self.names.get((source, word))
                    if word == "ans" and one.ans is not None:
                        fresh = self.answers[id(one.ans)]
                    if fresh is not None and (own or isinstance(name, ast.Name)):
                        edits.append((name.span.start - span.start, name.span.end - span.start, fresh))
                case tuple() as items:
                    stack.extend(items)
                case ast.Syntax() as syntax:
                    stack.extend(vars(syntax).values())
                case _:
                    pass
        text = span.text
        for start, end, fresh in sorted(edits, reverse=True):
            text = text[:start] + fresh + text[end:]
        return text.strip()

    # ------------------------------------------------------------ what a result depends on
    def stale(self, number: int, tainted: bool) -> bool:
        """Whether the script gives another result than the session gave."""
        if any(self.latest[number].get(key) != last for key, last in self.final.items() if key in ("seed ", "precision ")):
            return True
        seen: set[str] = set()
        names = list(self.said[number].reads)
        if isinstance(self.said[number].statement, ast.Train):
            names += [key for key in self.latest[number] if key.startswith(("update ", "minimize ", "step "))]
        while names:
            name = names.pop()
            source = self.latest[number].get(name)
            if name in seen or source is None:
                continue
            seen.add(name)
            shared = isinstance(self.said[source].statement, ast.Shared)
            if self.final[name] != source or (shared and tainted):
                return True
            names.extend(self.said[source].reads)
        return False


def as_literal(value: Any) -> str | None:
    """A small array as the language writes it."""
    if isinstance(value, tuple | str) or np.asarray(value).dtype.kind not in "bif" or np.size(value) > LARGEST_LITERAL:
        return None
    return _literal(np.asarray(value).tolist())


def _literal(value: Any) -> str:
    match value:
        case list():
            return f"[{', '.join(map(_literal, value))}]"
        case bool():
            return "true" if value else "false"
        case _:
            return repr(value)
