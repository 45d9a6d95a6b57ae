"""A text while it is being typed: in comes any text, broken or half finished, out go its statements and its keywords.

`pieces` cuts it into top-level statements, `enclosing` leaves of it what matters at a place: the headers of the blocks around and
the statement up to there.  `keywords` says which words the parser has read as keywords.  Lines are looked at through a cache, so
that one more letter in a long text costs the line it is on.
"""
from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from dsl.errors import TAB_WIDTH, Source
from dsl.record import record
from dsl.syntax.lalr import Parser
from dsl.syntax.layout import Token, arrange, begins_statement, scan
from dsl.syntax.table import load_table

_QUIET = frozenset(("COMMENT", "BREAK", "END"))


@record
class Line:
    """What a line by itself tells: its first column (None: nothing but a comment), the brackets it opens and closes, whether it
    ends in a `:` outside of them, and whether it begins a statement even inside brackets."""

    column: int | None
    closes: int
    opens: int
    header: bool
    begins: bool


@lru_cache(maxsize=16384)
def line_tokens(text: str) -> tuple[Token, ...]:
    """The raw tokens of one line, comments and END among them; no token is longer than a line."""
    return tuple(scan(Source("<line>", text)))


@lru_cache(maxsize=16384)
def line_facts(text: str) -> Line:
    tokens = [t for t in line_tokens(text) if t.type not in _QUIET]
    if not tokens:
        return Line(None, 0, 0, False, False)
    opens = closes = 0
    for token in tokens:
        if token.type in ("LPAR", "LSQB"):
            opens += 1
        elif token.type in ("RPAR", "RSQB"):
            opens, closes = (opens - 1, closes) if opens else (0, closes + 1)
    column = len(text[:tokens[0].start].expandtabs(TAB_WIDTH))
    begins = len(tokens) > 1 and begins_statement(tokens[0], tokens[1])
    return Line(column, closes, opens, tokens[-1].type == "COLON" and not opens, begins)


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
            if opened and column <= columns[-1] and facts.begins:
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


class _Marking(Parser):
    """A parser that remembers what it has taken each word for."""

    def __init__(self, source: Source, tokens: list[Token]) -> None:
        super().__init__(source, tokens)
        self.taken: dict[int, str] = {}

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
