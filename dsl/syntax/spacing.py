"""What stands between two words of a statement: in come its pieces, out go the spaces between them and the places to break a line.

A place to break has a rank: how many brackets are around it, then how loosely what it parts is bound.  The loosest is taken.
"""
from __future__ import annotations

from dsl.syntax.outline import Piece
from dsl.syntax.table import load_table

OPENERS, CLOSERS = frozenset(("LPAR", "LSQB")), frozenset(("RPAR", "RSQB"))
SIGNS = frozenset(("PLUS", "MINUS"))
OPERANDS = frozenset(("NAME", "NUMBER", "STRING", "TRUE", "FALSE", "NONE", "DOTS", "RPAR", "RSQB"))
BINDERS = frozenset(("EQUAL", "ARROW"))

# How loosely what a break parts is bound; a line is broken after operators and commas, and before the words of clauses.
BEFORE = {**dict.fromkeys("OVER BATCH DROP_LAST SHUFFLE OF UNTIL WRT EXCEPT USING WITH REPORT TITLE TO".split(), 0.0),
          **dict.fromkeys("FOR WHILE MAX".split(), 2.0), "ELSE": 3.0, "THEN": 3.5}
AFTER = {"COMMA": 1.0, "COLON": 2.0, "OR": 4.0, "AND": 5.0,
         **dict.fromkeys("LESS LESS_EQUAL MORE MORE_EQUAL EQUAL_EQUAL UNEQUAL".split(), 6.0), **dict.fromkeys(SIGNS, 7.0),
         **dict.fromkeys("STAR SLASH FLOOR PERCENT AT".split(), 8.0)}
OPENED, NARROW = 9.0, 0.5       # after an opening bracket: if nothing inside it will do, or at once where it leaves little room
NAMING = frozenset("DATA LET MODEL COST METRIC GRAD HESS JAC".split())
LAST_RESORT = 1000              # added to the brackets around a `=`
AFTER_DEF = 3.5


class Spacing:
    """The spaces in a statement, and where it may be broken."""

    def __init__(self, pieces: list[Piece]) -> None:
        self.pieces = pieces
        self.unary: set[int] = set()
        self.tight: set[int] = set()            # signs of constraints: `s<lower=0>`
        self.inside: set[int] = set()           # what stands between them
        self.brackets: list[str] = []           # the innermost one around each piece (around an opener: outside it)
        self.opens: list[bool] = []             # for an opener: does it begin an operand, rather than follow one?
        self.hugged: set[int] = set()           # a `**` written without spaces: `x**2`, `2 ** n` are both usual
        self.binder = 0                         # the first `=` or `<-` of the statement
        self._read()

    def _read(self) -> None:
        pieces, stack = self.pieces, [""]
        for i, piece in enumerate(pieces):
            before = pieces[i - 1].kind if i else ""
            self.brackets.append(stack[-1])
            constrained = before == "MORE" and i - 1 in self.tight
            self.opens.append(piece.kind in OPENERS and before not in OPERANDS and before != "VJP" and not constrained)
            if piece.kind in OPENERS:
                stack.append(piece.kind)
            elif piece.kind in CLOSERS:
                stack.pop()
            elif piece.kind in SIGNS and before not in OPERANDS:
                self.unary.add(i)
            elif piece.kind == "POWER" and end_column(pieces[i - 1]) == piece.column and end_column(piece) == pieces[i + 1].column:
                self.hugged.add(i)
            elif piece.kind == "LESS" and pieces[0].kind == "SHARED" and piece.depth == 0 and i > 1 and \
                    (pieces[i - 2].kind == "COMMA" or (pieces[i - 2].kind not in OPERANDS and i <= 3)):
                self._constraints(i)
            if piece.kind in BINDERS and piece.depth == 0 and i not in self.tight and not self.binder:
                self.binder = i

    def _constraints(self, start: int) -> None:
        for i in range(start, len(self.pieces)):
            if self.pieces[i].depth == 0 and self.pieces[i].kind in ("LESS", "EQUAL", "MORE"):
                self.tight.add(i)
                if self.pieces[i].kind == "MORE":
                    self.inside.update(range(start, i))
                    return

    def before(self, i: int) -> int:
        """Spaces before piece i, on the line of the one before it."""
        last, kind = self.pieces[i - 1].kind, self.pieces[i].kind
        if kind == "COMMA" or kind in CLOSERS or last in OPENERS or i - 1 in self.unary:
            return 0
        if kind == "DOT" or last == "DOT":
            return int(last == "NUMBER")                        # `2 .T`, as `2.T` is a number with a tail
        if i in self.tight or i - 1 in self.tight:
            return int(last == "MORE" and kind != "LSQB")
        if kind in OPENERS:
            return int(self.opens[i])
        if (kind == "COLON" and last != "COMMA") or (last == "COLON" and self.brackets[i] == "LSQB"):
            return 0
        if i in self.hugged or i - 1 in self.hugged:
            return 0
        return 1

    def rank(self, i: int, room: bool = True) -> tuple[int, float] | None:
        """How good it is to break before piece i (less is better); None if a line is not broken there.

        `room`: are there enough columns right of the bracket that was just opened?"""
        if i < 2:
            return None
        last, kind = self.pieces[i - 1].kind, self.pieces[i].kind
        depth = self.pieces[i].depth
        if last in OPENERS:
            if kind in CLOSERS or not (self.opens[i - 1] or last == "LPAR"):
                return None
            return depth, OPENED if room else NARROW
        if kind in CLOSERS or self.before(i) == 0 or i - 1 in self.tight or i in self.inside:
            return None
        if kind in BEFORE and not (last in AFTER and i - 1 not in self.unary):
            return depth, BEFORE[kind]
        if last in BINDERS:
            return (depth, AFTER_DEF) if i - 1 == self.binder and self.pieces[0].kind == "DEF" else (depth + LAST_RESORT, 0.0)
        if last == "COMMA" and i < self.binder and depth == 0 and self.pieces[0].kind in NAMING:
            return depth + LAST_RESORT, 1.0                     # between the names that are bound
        return (depth, AFTER[last]) if last in AFTER else None

    def may_break(self, i: int) -> bool:
        """Whether a line end before piece i stays, where somebody has put one."""
        if self.pieces[i - 1].kind in OPENERS or self.rank(i) is not None:
            return self.rank(i) is not None
        return i > 1 and self.pieces[i].kind in AFTER and self.pieces[i].kind not in ("COMMA", "COLON") \
            and i not in self.unary and i not in self.tight and i not in self.inside


def end_column(piece: Piece) -> int:
    return piece.column + len(piece.text)


def is_keyword(piece: Piece) -> bool:
    return piece.kind in _keywords()


def _keywords() -> frozenset[str]:
    return frozenset(load_table().words.values())
