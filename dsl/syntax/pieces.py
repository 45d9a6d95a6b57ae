"""A text while it is being typed: in comes any text, broken or half finished, out go its statements and its keywords.

`pieces` cuts it into top-level statements, `enclosing` leaves of it what matters at a place: the headers of the blocks around and
the statement up to there.  `keywords` says which words the parser has read as keywords.  Lines are looked at through a cache, so
that one more letter in a long text costs the line it is on.
"""
from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from dsl.errors import TAB_WIDTH, Source
from dsl.record import record
from dsl.syntax.lalr import Parser
from dsl.syntax.layout import Token, arrange, begins_statement, scan
from dsl.syntax.table import load_table

_PLAIN = re.compile(r"[\w \t.,+\-*/%@=<>:()\[\]]*", re.ASCII)
_BRACKET = re.compile(r"[()\[\]]")
_QUIET = frozenset(("COMMENT", "BREAK", "END"))


@record
class Line:
    """What a line by itself tells: its first column (None: nothing but a comment), the brackets it opens and closes, and whether it
    ends in a `:` outside of them."""

    column: int | None
    closes: int
    opens: int
    header: bool


@lru_cache(maxsize=16384)
def line_tokens(text: str) -> tuple[Token, ...]:
    """The raw tokens of one line, comments and END among them; no token is longer than a line."""
    return tuple(scan(Source("<line>", text)))


@lru_cache(maxsize=16384)
def line_facts(text: str) -> Line:
    if _PLAIN.fullmatch(text):                  # most lines: no need to cut them into tokens
        signs, begin, last = text, len(text) - len(text.lstrip()), text.rstrip()[-1:]
    else:
        tokens = [t for t in line_tokens(text) if t.type not in _QUIET]
        signs = "".join([t.text for t in tokens if t.type in ("LPAR", "LSQB", "RPAR", "RSQB")])
        begin = tokens[0].start if tokens else 0
        last = ("" if not tokens else ":" if tokens[-1].type == "COLON" else "x")
    if not last:
        return Line(None, 0, 0, False)
    opens = closes = 0
    for sign in _BRACKET.findall(signs):
        if sign in "([":
            opens += 1
        else:
            opens, closes = (opens - 1, closes) if opens else (0, closes + 1)
    return Line(len(text[:begin].expandtabs(TAB_WIDTH)), closes, opens, last == ":" and not opens)


@lru_cache(maxsize=1024)
def _begins_anew(text: str) -> bool:
    """Whether a line begins a statement even inside brackets."""
    tokens = [t for t in line_tokens(text) if t.type not in _QUIET]
    return len(tokens) > 1 and begins_statement(tokens[0], tokens[1])


def _begins(text: str) -> Iterator[tuple[int, int]]:
    """Offset and level of every line that begins a statement, as `layout.Layout` would see it."""
    columns: list[int] = []             # of the statements around, the current one last
    opened = 0                          # brackets of the current statement
    header = False                      # does the current statement wait for its block?
    start = 0
    for line in text.split("\n"):
        facts = line_facts(line)
        if facts.column is not None:
            column = facts.column
            begins = not columns or (not opened and (column <= columns[-1] or header))
            if opened and column <= columns[-1] and _begins_anew(line):
                begins, opened = True, 0
            if begins:
                while columns and column <= columns[-1]:
                    columns.pop()
                yield start, len(columns)
                columns.append(column)
            opened = max(opened - facts.closes, 0) + facts.opens
            header = facts.header and not opened
        start += len(line) + 1


def pieces(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of every top-level statement with its block, comments and empty lines included; together the whole text."""
    start = 0
    for begin, level in _begins(text):
        if level == 0 and begin:
            yield start, begin
            start = begin
    if start < len(text):
        yield start, len(text)


def enclosing(text: str, cursor: int) -> str:
    """The text up to the cursor without the statements that are over: the headers around, and the statement at the cursor."""
    before = text[:cursor]
    # Where the last line has no word yet, its indentation says what it belongs to: a letter stands for the word to come.
    typed = before[before.rfind("\n") + 1:]
    stand_in = "x" if line_facts(typed).column is None else ""
    before += stand_in
    kept: list[str] = []
    level, end = None, len(before)
    for begin, depth in reversed(list(_begins(before))):
        if level is None or depth < level:
            kept.append(before[begin:end])
            level = depth
        end = begin
    return "".join(reversed(kept)).removesuffix(stand_in)


# ---------------------------------------------------------------- keywords
@lru_cache(maxsize=1)
def _entered_by() -> tuple[str | None, ...]:
    """The symbol that each state of the parse table is entered by; an LR automaton has one for each."""
    states = load_table().states
    entered: list[str | None] = [None] * len(states)
    for row in states:
        for symbol, action in row.items():
            if action >= 0:
                entered[action] = symbol
    return tuple(entered)


def _nothing(*_: Any) -> None:
    """In place of the tree builder's methods."""


@lru_cache(maxsize=1)
def _plan_without_tree() -> list[Any]:
    plan = Parser(Source("<text>", ""), []).plan
    return [(length, origin, build and _nothing, picks, passed, weight) for length, origin, build, picks, passed, weight in plan]


class _Marking(Parser):
    """A parser that builds no tree, and remembers what it has taken each word for."""

    def __init__(self, source: Source, tokens: list[Token]) -> None:
        super().__init__(source, tokens)
        self.taken: dict[int, str] = {}

    def _plan(self) -> list[Any]:
        return _plan_without_tree()

    def _push(self, state: int, value: Any, begin: int, end: int, depth: int) -> None:
        if isinstance(value, Token) and value.type == "WORD":
            self.taken[value.start] = _entered_by()[state] or "NAME"
        super()._push(state, value, begin, end, depth)


def keywords(text: str) -> dict[int, bool]:
    """For each word that the parser has read, by offset: whether it was a keyword there.  Words behind a mistake are not among them."""
    source = Source("<text>", text)
    tokens, _ = arrange(source)
    parser = _Marking(source, tokens)
    parser.run()
    return {start: symbol != "NAME" for start, symbol in parser.taken.items()}
