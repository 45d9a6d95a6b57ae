"""The outline of a script: in comes a source, out go its blocks and statements as words and signs, every comment among them.

It is what the formatter works on: nothing is left out, and nothing is understood but what the parser took each word for.  A
comment belongs to the word it stands behind on a line, or else to what comes below it: the next word of the statement, the next
statement, or the end of the block that its column puts it in.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from dsl.errors import TAB_WIDTH, LrError, Source
from dsl.syntax import ast
from dsl.syntax.lalr import Parser
from dsl.syntax.layout import Layout, Token
from dsl.syntax.table import load_table

TABS = "E0104"                  # a tab in the indentation: the one mistake that leaves no doubt about what is meant
DEEPEST = 1_000_000             # a column deeper than every block's


@dataclass(eq=False)
class Comment:
    """`column` is where it was written, from 0; `apart`: a blank line stands above it."""

    text: str
    column: int
    apart: bool = False


@dataclass(eq=False)
class Piece:
    """A word or sign: `kind` is the terminal that the parser read it as, `depth` the number of brackets around it."""

    kind: str
    text: str
    column: int
    depth: int
    first: bool                                             # on its line
    above: list[Comment] = field(default_factory=list)      # on lines of their own, inside the statement
    behind: Comment | None = None


@dataclass(eq=False)
class Statement:
    """`joined`: a `;` and the statement before it stand on the same line."""

    pieces: list[Piece] = field(default_factory=list)
    body: Block | None = None
    joined: bool = False
    apart: bool = False
    above: list[Comment] = field(default_factory=list)


@dataclass(eq=False)
class Block:
    """`inline`: its first statement stands on the header's line; `end`: the comments below its last statement."""

    column: int = 0
    inline: bool = False
    statements: list[Statement] = field(default_factory=list)
    end: list[Comment] = field(default_factory=list)


@dataclass(eq=False)
class Outline:
    """A script's outline, its tree, and the texts of its comments in order."""

    block: Block
    script: ast.Script
    comments: list[str]


def outline(source: Source) -> Outline:
    """Raises `LrError` with the syntax errors of a script that has some; tabs in the indentation are not held against it."""
    layout = Layout(source)
    tokens = layout.run()
    reader = _Reader(source, tokens)
    reader.run()
    wrong = [d for d in [*layout.diagnostics, *reader.diagnostics] if d.code != TABS]
    if wrong:
        raise LrError(*sorted(wrong, key=lambda d: d.span.start if d.span else 0))
    assert isinstance(reader.result, ast.Script)
    comments = [token.text.rstrip() for token in layout.raw if token.type == "COMMENT"]
    return Outline(_Outliner(source, layout.raw, reader.kinds).block(tokens), reader.result, comments)


class _Reader(Parser):
    """Remembers what each word was read as: all ways into a state of the table read the same terminal."""

    def __init__(self, source: Source, tokens: list[Token]) -> None:
        super().__init__(source, tokens)
        self.kinds: dict[int, str] = {}

    def _push(self, state: int, value: Any, begin: int, end: int, depth: int) -> None:
        if isinstance(value, Token) and end > begin and state in _read_terminals():
            self.kinds.setdefault(value.start, _read_terminals()[state])
        super()._push(state, value, begin, end, depth)


@cache
def _read_terminals() -> dict[int, str]:
    return {target: symbol for row in load_table().states for symbol, target in row.items() if target >= 0 and symbol.isupper()}


class _Outliner:
    """One walk over the tokens, with the comments and line ends that lie between them."""

    def __init__(self, source: Source, raw: list[Token], kinds: dict[int, str]) -> None:
        self.source, self.kinds = source, kinds
        self.tabs = "\t" in source.text or source.text.startswith("\ufeff")
        self.gaps: dict[int, list[Token]] = {}          # before the token that begins there
        gap: list[Token] = []
        for token in raw:
            if token.type in ("COMMENT", "BREAK", "SEMICOLON"):
                gap.append(token)
            else:
                self.gaps[token.start if token.type != "END" else -1] = gap
                gap = []

    def block(self, tokens: list[Token]) -> Block:
        top = Block()
        blocks, closed = [top], list[Block]()           # those open, and those closed since the last word
        statement: Statement | None = None
        last: Piece | None = None
        for token in tokens:
            match token.type:
                case "NEWLINE":
                    statement = None
                case "INDENT":
                    assert statement is not None
                    statement.body = Block(-1)
                    blocks.append(statement.body)
                    statement = None
                case "DEDENT":
                    closed.append(blocks.pop())
                    statement = None
                case "$END":
                    self._between(self.gaps.get(-1, []), last, closed, top, top.end)
                case _:
                    gap = self.gaps.get(token.start, [])
                    start, end = token.start, token.end
                    piece = Piece(self.kinds[start], self.source.text[start:end], self._column(start), token.depth, token.first)
                    if statement is not None:
                        self._inside(gap, last, piece)
                    else:
                        block, statement = blocks[-1], Statement()
                        if block.column < 0:
                            block.column, block.inline = piece.column, not token.first
                        statement.apart = self._between(gap, last, closed, block, statement.above)
                        statement.joined = bool(block.statements) and not token.first and not statement.above
                        block.statements.append(statement)
                    statement.pieces.append(piece)
                    closed, last = [], piece
        return top

    def _column(self, offset: int) -> int:
        _, column = self.source.position(offset)
        if self.tabs:
            return len(self.source.text[offset - column + 1:offset].lstrip("\ufeff").expandtabs(TAB_WIDTH))
        return column - 1

    def _comments(self, gap: list[Token], at_start: bool) -> tuple[Comment | None, list[Comment], bool]:
        """The comment behind the word before the gap, those on lines of their own, and whether a blank line ends it."""
        behind, others, breaks = None, list[Comment](), 1 if at_start else 0
        ended = False
        for token in gap:
            if token.type == "BREAK":
                breaks += 1
            elif token.type == "SEMICOLON":
                ended = True
            else:
                comment = Comment(token.text.rstrip(), self._column(token.start), breaks > 1)
                # `print a; #> 1` expects nothing, and `print a #> 1` would.
                if breaks == 0 and ended and comment.text.startswith("#>"):
                    comment.column = DEEPEST
                    others.append(comment)
                elif breaks == 0:
                    behind = comment
                else:
                    others.append(comment)
                breaks = 0
        return behind, others, breaks > 1

    def _inside(self, gap: list[Token], last: Piece | None, piece: Piece) -> None:
        assert last is not None
        last.behind, piece.above, _ = self._comments(gap, False)

    def _between(self, gap: list[Token], last: Piece | None, closed: list[Block], block: Block, above: list[Comment]) -> bool:
        """Puts the comments between two statements where they belong; `above` takes those of the block that goes on."""
        behind, comments, apart = self._comments(gap, last is None)
        if last is not None:
            last.behind = behind
        inner = [b for b in closed if not b.inline]
        for comment in comments:
            while inner and comment.column < inner[0].column:
                inner.pop(0)
            (inner[0].end if inner else above).append(comment)
        return apart
