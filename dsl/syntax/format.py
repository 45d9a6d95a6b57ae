"""The canonical form of a script: in comes a source, out goes its text as `lr fmt` writes it.

Spaces and indentation are the formatter's: two columns a block, one space around operators and after commas, none inside brackets.
Line ends are the writer's: a line is broken further if it passes 100 columns, and joined only where a break says nothing.  Three
alignments are kept if they are there, as narrow as they can be: of the names and of the `=` in neighbouring lines, and of the comments
behind lines.  Comments, numbers, texts, parentheses and the order of everything stay as they are.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields

from dsl.errors import Source
from dsl.syntax import ast
from dsl.syntax.outline import Block, Comment, Outline, Piece, Statement, outline
from dsl.syntax.spacing import CLOSERS, OPENERS, Spacing, end_column, is_keyword

WIDTH = 100
INDENT, CONTINUATION = 2, 4
ROOM = 50                       # columns that the inside of a bracket should have left to be aligned with it
HEAD = 60                       # columns: further right no `=` is aligned


def format_source(source: Source) -> str:
    """The canonical form of a script; "" for an empty one.

    Raises `LrError` with its syntax errors if it has any.  What comes out has the words and comments of what went in."""
    before = outline(source)
    writer = _Writer()
    writer.block(before.block, 0)
    text = writer.text()
    _verify(before, outline(Source(source.name, text)))
    return text


def _verify(before: Outline, after: Outline) -> None:
    """Whoever lets a program rewrite a script relies on this: the trees are equal, and no comment is lost or has changed places."""
    if not _equal(before.script, after.script) or before.comments != after.comments:
        raise AssertionError("the formatter would have changed what the script says")


def _equal(before: object, after: object) -> bool:
    """Whether two trees are, of any depth."""
    pairs = [(before, after)]
    while pairs:
        a, b = pairs.pop()
        if isinstance(a, ast.Syntax) and type(a) is type(b):
            pairs.extend((getattr(a, f.name), getattr(b, f.name)) for f in fields(a) if f.compare)
        elif isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
            pairs.extend(zip(a, b))
        elif a != b or type(a) is not type(b):
            return False
    return True


# ---------------------------------------------------------------- lines
@dataclass(eq=False)
class Line:
    """`code` is empty on a blank line, or a comment of its own."""

    code: str
    behind: Comment | None = None


class _Writer:
    """Blocks become lines."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.fresh = True                       # right after a header, or at the start: no blank line here

    def text(self) -> str:
        _align_comments(self.lines)
        return "".join(line.code + (line.behind.text if line.behind else "") + "\n" for line in self.lines)

    def line(self, code: str, behind: Comment | None = None) -> None:
        self.lines.append(Line(code, behind))
        self.fresh = False

    def blank(self, wanted: bool) -> None:
        if wanted and not self.fresh:
            self.line("")

    def comments(self, comments: list[Comment], indent: int) -> None:
        for comment in comments:
            self.blank(comment.apart)
            self.line(" " * indent + comment.text)

    def block(self, block: Block, level: int) -> None:
        groups = list(_groups(block.statements))
        for group in groups:
            for statement in group:
                _drop_commas(statement.pieces)
        padding = _padding(groups)
        for group in groups:
            self.comments(group[0].above, INDENT * level)
            self.blank(group[0].apart)
            self.group(group, level, padding)
        self.comments(block.end, INDENT * level)

    def group(self, group: Sequence[Statement], level: int, padding: dict[int, dict[int, int]]) -> None:
        """Statements that were written on one line stay on one if they fit there."""
        flat = _flat(group)
        if flat is not None and len(flat) + INDENT * level <= WIDTH and (len(group) > 1 or group[0].body is not None):
            self.line(" " * (INDENT * level) + flat, _last(group[-1]).behind)
            return
        for statement in group:
            for line in _broken(statement.pieces, INDENT * level, padding.get(id(statement), {})):
                self.line(line.code, line.behind)
            if statement.body is not None:
                self.fresh = True
                self.block(statement.body, level + 1)


def _groups(statements: list[Statement]) -> Iterator[list[Statement]]:
    """The statements that stand on one line."""
    group: list[Statement] = []
    for statement in statements:
        if group and not statement.joined:
            yield group
            group = []
        group.append(statement)
    if group:
        yield group


def _last(statement: Statement) -> Piece:
    """The last word of a statement and its block."""
    return _last(statement.body.statements[-1]) if statement.body is not None else statement.pieces[-1]


def _flat(group: Sequence[Statement]) -> str | None:
    """Statements and their blocks on one line, without the comment behind it; None if they were not, or cannot."""
    parts = []
    for statement in group:
        pieces, body = statement.pieces, statement.body
        spacing = Spacing(pieces)
        inner = pieces if body is not None or statement is not group[-1] else pieces[:-1]
        if any(p.behind for p in inner) or any(p.above or (p.first and spacing.may_break(i)) for i, p in enumerate(pieces) if i):
            return None
        text = _text(pieces, spacing)
        if body is not None:
            inside = _flat(body.statements) if body.inline and not body.end and statement is group[-1] else None
            if inside is None:
                return None
            text += " " + inside
        parts.append(text)
    return " ; ".join(parts)


def _text(pieces: list[Piece], spacing: Spacing) -> str:
    return "".join((" " * spacing.before(i) if i else "") + piece.text for i, piece in enumerate(pieces))


def _drop_commas(pieces: list[Piece]) -> None:
    """A comma before a closing bracket goes, but for `(a,)`, and where the brackets stand on lines of their own."""
    opened: list[tuple[int, bool, int]] = []                # an opener's place, whether its inside is broken off, commas seen
    dropped: set[int] = set()
    spacing = Spacing(pieces)
    for i, piece in enumerate(pieces):
        if piece.kind in OPENERS:
            apart = i + 1 < len(pieces) and bool(piece.behind or pieces[i + 1].above or (pieces[i + 1].first and spacing.may_break(i + 1)))
            opened.append((i, apart, 0))
        elif piece.kind == "COMMA" and opened:
            start, apart, commas = opened[-1]
            opened[-1] = start, apart, commas + 1
            single = pieces[start].kind == "LPAR" and spacing.opens[start] and commas == 0
            commented = piece.behind or piece.above or pieces[i + 1].above
            if pieces[i + 1].kind in CLOSERS and not (apart or single or commented):
                dropped.add(i)
        elif piece.kind in CLOSERS:
            opened.pop()
    pieces[:] = [piece for i, piece in enumerate(pieces) if i not in dropped]


# ---------------------------------------------------------------- alignment
@dataclass(eq=False)
class _Stop:
    """A place in a statement that may stand below the one of the line above: before piece `index`."""

    index: int
    column: int                 # where it was
    spread: bool                # with more than one space before it
    least: Callable[[], int]    # where it is without more than one


def _padding(groups: list[list[Statement]]) -> dict[int, dict[int, int]]:
    """For each statement (by id) the spaces to add before some of its pieces."""
    added: dict[int, dict[int, int]] = {}
    for find in (_name_stop, _equal_stop):
        run: list[tuple[Statement, _Stop]] = []
        for group in [*groups, []]:
            statement = group[0] if len(group) == 1 and group[0].body is None else None
            stop = find(statement, added) if statement is not None else None
            follows = statement is not None and not statement.apart and not statement.above
            if run and not (stop and follows and stop.column == run[-1][1].column):
                _line_up(run, added)
                run = []
            if statement is not None and stop is not None:
                run.append((statement, stop))
    return added


def _line_up(run: list[tuple[Statement, _Stop]], added: dict[int, dict[int, int]]) -> None:
    if len(run) > 1 and any(stop.spread for _, stop in run):
        least = [stop.least() for _, stop in run]
        for (statement, stop), column in zip(run, least):
            if max(least) > column:
                added.setdefault(id(statement), {})[stop.index] = max(least) - column


def _name_stop(statement: Statement, added: dict[int, dict[int, int]]) -> _Stop | None:
    pieces = statement.pieces
    if len(pieces) < 2 or not is_keyword(pieces[0]) or not _on_one_line(pieces, 1) or pieces[1].kind in OPENERS:
        return None
    return _Stop(1, pieces[1].column, pieces[1].column - end_column(pieces[0]) > 1, lambda: len(pieces[0].text) + 1)


def _equal_stop(statement: Statement, added: dict[int, dict[int, int]]) -> _Stop | None:
    pieces, spacing = statement.pieces, Spacing(statement.pieces)
    at = spacing.binder
    if not at or not is_keyword(pieces[0]) or not _on_one_line(pieces, at):
        return None
    width = len(_text(pieces[:at], spacing)) + sum(added.get(id(statement), {}).values()) + 1
    return _Stop(at, pieces[at].column, pieces[at].column - end_column(pieces[at - 1]) > 1, lambda: width) if width <= HEAD else None


def _on_one_line(pieces: list[Piece], count: int) -> bool:
    return not any(p.first or p.above for p in pieces[1:count + 1]) and not any(p.behind for p in pieces[:count])


def _align_comments(lines: list[Line]) -> None:
    """Comments behind neighbouring lines that began in one column do so again; others stay in theirs if the code leaves it free."""
    run: list[Line] = []
    for line in [*lines, Line("")]:
        same = bool(run) and line.behind is not None and line.behind.column == _column(run[-1])
        if run and not same:
            column = max(_column(run[0]), *(len(member.code) + 2 for member in run))
            for member in run:
                member.code = member.code.ljust(column)
            run = []
        if line.behind is not None:
            if line.behind.column > WIDTH:
                line.behind.column = 0
            run.append(line)


def _column(line: Line) -> int:
    return line.behind.column if line.behind is not None else 0


# ---------------------------------------------------------------- long statements
@dataclass
class _Bracket:
    inside: int                 # the column of what stands in it
    closer: int                 # the column of its closer, if that begins a line
    hanging: bool               # it ended its line, so its closer begins one


@dataclass
class _Broken:
    """The lines of one statement, made from the first to the last."""

    pieces: list[Piece]
    indent: int
    padding: dict[int, int]
    spacing: Spacing
    stack: list[_Bracket] = field(default_factory=list)

    def lines(self) -> Iterator[Line]:
        start = 0
        while start < len(self.pieces):
            for comment in self.pieces[start].above:
                yield Line(" " * (self.stack[-1].inside if self.stack else self.indent + CONTINUATION) + comment.text)
            column = self._column(start)
            end = self._end(start, column)
            yield Line(self._code(start, end, column), self.pieces[end - 1].behind)
            start = end

    def _column(self, start: int) -> int:
        if start == 0:
            return self.indent
        if not self.stack:
            return self.indent + CONTINUATION
        return self.stack[-1].closer if self.pieces[start].kind in CLOSERS else self.stack[-1].inside

    def _gap(self, i: int) -> int:
        return self.spacing.before(i) + self.padding.get(i, 0)

    def _must_break(self, i: int, hanging: list[bool]) -> bool:
        piece, before = self.pieces[i], self.pieces[i - 1]
        if before.behind or piece.above or (piece.kind in CLOSERS and hanging and hanging[-1]):
            return True
        return piece.first and self.spacing.may_break(i)

    def _end(self, start: int, column: int) -> int:
        """Where the line that begins with piece `start` ends."""
        hanging = [bracket.hanging for bracket in self.stack]
        best: tuple[tuple[int, float], int] | None = None
        for i in range(start, len(self.pieces)):
            piece = self.pieces[i]
            if i > start:
                if self._must_break(i, hanging):
                    return i
                rank = self.spacing.rank(i, WIDTH - column >= ROOM)
                if rank is not None:
                    if column > WIDTH:
                        return best[1] if best else i
                    if best is None or rank <= best[0]:
                        best = rank, i
                column += self._gap(i)
            column += len(piece.text)
            if column > WIDTH and best is not None:
                return best[1]
            if piece.kind in OPENERS:
                hanging.append(False)
            elif piece.kind in CLOSERS:
                hanging.pop()
        return len(self.pieces)

    def _code(self, start: int, end: int, column: int) -> str:
        """A line's text; the brackets it opens and closes are accounted for."""
        parts, first = [" " * column], column
        for i in range(start, end):
            piece = self.pieces[i]
            text = " " * (self._gap(i) if i > start else 0) + piece.text
            parts.append(text)
            column += len(text)
            if piece.kind in OPENERS:
                hanging = i + 1 == end < len(self.pieces)
                self.stack.append(_Bracket(first + INDENT, first, True) if hanging else _Bracket(column, column - 1, False))
            elif piece.kind in CLOSERS:
                self.stack.pop()
        return "".join(parts)


def _broken(pieces: list[Piece], indent: int, padding: dict[int, int]) -> Iterator[Line]:
    return _Broken(pieces, indent, padding, Spacing(pieces)).lines()
