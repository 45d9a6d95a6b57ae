"""What is said when names, shapes or kinds of values are wrong.

In: what elaboration knows of names and sizes, and a fault.  Out: a diagnostic that shows both sides and what to write
instead.  `Faults` holds the state that every later class of the elaborator stands on.
"""
from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher
from typing import Any

from dsl.errors import Diagnostic, Label, LrError, Span, did_you_mean, error
from dsl.ir.node import Node, Origins
from dsl.ir.types import (
    ArrayType,
    Dim,
    DType,
    Shape,
    TypeFault,
    decide,
    is_float,
    shape_text,
)
from dsl.ops.functions import FORMS, FUNCTIONS
from dsl.ops.leaves import is_leaf, leaf_name
from dsl.syntax import ast, elsewhere
from dsl.syntax.values import (
    Host,
    Scope,
    SizeFact,
    Skipped,
    Value,
)

CONSTANTS = {"pi": math.pi, "inf": math.inf, "nan": math.nan}
FAULT_CODES = {"matmul": "E0201", "shape": "E0202", "dtype": "E0203", "rank": "E0204", "axis": "E0205",
               "empty": "E0206",
               "size": "E0208"}


class Faults:
    """The state an expression needs: the names in scope, the precision, the place of the next random draw."""

    precision: DType = "float64"
    seed: int = 0

    def __init__(self, host: Host) -> None:
        self.warnings: list[Diagnostic] = []
        self.host = host
        self.scope: Scope = Scope({})
        self.origins = Origins()
        self.sizes: dict[str, SizeFact] = {}
        self.concerning: dict[Diagnostic, tuple[Dim, ...]] = {}
        self.in_epoch = False
        self.watched: dict[str, Node] = {}
        self.in_data = False
        self.statement_name = ""
        self.call_path: tuple[str | int, ...] = ()
        self.draws = 0
        self.turn: Node | None = None
        """In a loop, the number of the iteration."""
        self.declared_shape: Shape | None = None
        self.active: list[ast.Def] = []
        self.calls = 0
        self.unparsed: set[str] = set()
        """Names of statements that could not be parsed: what is not known of them is not reported."""
        self.later: dict[str, Span] = {}
        """Names that the script binds, with the place."""
        self.starts: dict[str, str] = {}
        """What shared variables start from, as written."""
        self.generation = 0

    @contextmanager
    def placing(self, span: Span, operands: Sequence[ast.Expr] = (), values: Sequence[Value] = ()) -> Iterator[None]:
        """A `TypeFault` inside becomes a diagnostic at `span`, with what each operand is."""
        try:
            yield
        except TypeFault as fault:
            raise self.type_error(fault, fault.span or span, operands, values) from None

    def type_error(self, fault: TypeFault, span: Span, operands: Sequence[ast.Expr] = (),
                   values: Sequence[Value] = ()) -> LrError:
        labels = []
        for expr, value in zip(operands, values, strict=False):
            if isinstance(expr, ast.Name) and isinstance(value, Node):
                symbol = self.scope.get(expr.id)
                if symbol and symbol.span and symbol.kind != "dim":
                    label = Label(symbol.span, f"{expr.id} is {type_words(value.type)}")
                    labels += [label] if label not in labels else []
        help, dims = fault.help, fault.dims
        if fault.kind == "matmul" and len(values) == 2:
            a, b = values
            if isinstance(a, Node) and isinstance(b, Node):
                help, dims = self._matmul_help(operands, a, b), (a.shape[-1], b.shape[0 if b.rank == 1 else -2])
                if help.endswith("`") and "write `shared" in help:
                    labels = labels[-1:]
        message = re.sub(r"^shapes (.*) do not agree$", r"cannot combine \1", fault.message)
        message = re.sub(r"(?<!\w)\[\]", "a scalar", message)
        diagnostic = Diagnostic(FAULT_CODES.get(fault.kind, "E0202"), message, Label(span, fault.detail),
                                tuple(labels), (), help)
        self.concerning[diagnostic] = dims
        return LrError(diagnostic)

    def _matmul_help(self, operands: Sequence[ast.Expr], a: Node, b: Node) -> str:
        left, right = (o.span.text if o.span.end - o.span.start < 30 else side
                       for o, side in zip(operands, ("the left side", "the right side"), strict=True))
        inner = b.shape[0 if b.rank == 1 else -2]
        text = f"the last axis of {left} must equal the {'last but one' if b.rank > 2 else 'first'} axis of {right}"
        if a.rank == 2 and b.rank == 2 and a.shape[-1] == b.shape[-1]:
            return f"{text}; write `{left} @ {grouped(operands[1])}.T`"
        if a.rank == 2 and a.shape[0] == inner:
            return f"{text}; write `{grouped(operands[0])}.T @ {right}`"
        if is_leaf(b, "shared") and isinstance(operands[1], ast.Name):
            return f"{text}; write `{self.redeclared(b, (a.shape[-1], *b.shape[1:]))}`"
        return text

    def bound_labels(self, expr: ast.Expr) -> list[Label]:
        """Where the array that a name stands for is bound, and what it is."""
        symbol = self.scope.get(expr.id) if isinstance(expr, ast.Name) else None
        if symbol is None or symbol.span is None or not isinstance(symbol.value, Node):
            return []
        return [Label(symbol.span, f"{symbol.name} is {type_words(symbol.value.type)}")]

    def redeclared(self, variable: Node, shape: Shape) -> str:
        """A declaration of a shared variable with another shape."""
        name = leaf_name(variable)
        start = self.starts.get(name, "…")
        return f"shared {name}{shape_text(shape)} = {start if len(start) <= 20 else '…'}"

    def _operator_fault(self, fault: TypeFault, expr: ast.Binary, a: Node, b: Node) -> TypeFault:
        if fault.kind != "shape":
            return fault
        fault.message = f"`{expr.op}` cannot combine {shape_text(a.shape)} and {shape_text(b.shape)}"
        fault.detail = f"{shape_text(a.shape)} {expr.op} {shape_text(b.shape)}"
        if fault.help is None:
            fault.help = self._broadcast_help(expr, a, b)
        return fault

    def _broadcast_help(self, expr: ast.Binary, a: Node, b: Node) -> str | None:
        (small, text), (large, _) = sorted([(a, expr.left.span.text), (b, expr.right.span.text)],
                                           key=lambda p: p[0].rank)
        if is_leaf(small, "shared") and small.rank == 1 and large.rank > 1:
            return f"axes are matched from the right; write `{self.redeclared(small, large.shape[-1:])}`"
        if small.rank == 1 and large.rank == 2 and small.shape[0] == large.shape[0]:
            return f"axes are matched from the right; write `{text}[:, None]` to go down the rows"
        if small.rank == large.rank == 2 and small.shape == large.shape[::-1]:
            return f"did you mean `{text}.T`?"
        if small.rank == large.rank == 1 and all(d.bare and d.bare.named for d in (small.shape[0], large.shape[0])):
            return "two different dims never match; declare both arrays with one dim if they always have the same length"
        return None

    def check_unparsed(self, name: str) -> None:
        if name in self.unparsed:
            raise Skipped

    def unknown(self, name: str, span: Span) -> LrError:
        self.check_unparsed(name)
        if name in FUNCTIONS:
            return error("E0302", f"`{name}` is a function", span, help=f"call it: `{FUNCTIONS[name].signature}`")
        if name in FORMS:
            return error("E0302", f"`{name}` is a loop", span, help=f"write `{FORMS[name][0]}`")
        if name in self.later:
            return self.bound_later(name, span)
        near = nearest(name, [*self.scope, *CONSTANTS]) or nearest(name, [*FUNCTIONS, *FORMS], 0.8)
        labels = [Label(s.span, "this one?")] if near and (s := self.scope.get(near)) and s.span else []
        if name in elsewhere.NAMES:
            help = elsewhere.NAMES[name]
        elif near:
            help = f"did you mean `{near}`?"
        else:
            help = "bind it first: an input (`scalar`, `vector`, `matrix`), `data`, `shared` or `let`"
        return error("E0301", f"no name `{name}`", span, "not bound before this line", labels=labels, help=help)

    def bound_later(self, name: str, span: Span) -> LrError:
        return error("E0301", f"`{name}` is used before it is bound", span, "not bound before this line",
                     labels=[Label(self.later[name], "bound here")],
                     help="a name is bound above its use: move that line up")


def not_built(span: Span, what: str) -> LrError:
    return error("E0801", f"{what}: not in this version", span, "not in this version",
                 help="the language has it; this version of lr does not run it yet")


def nearest(word: str, candidates: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The candidate a typing error away; a short word is taken for another one of its length only."""
    near = did_you_mean(word, candidates)
    if near is None or near.lower() == word.lower():
        return near
    if len(word) > 3:
        return near if SequenceMatcher(None, word, near).ratio() >= cutoff else None
    return near if len(word) > 1 and len(near) == len(word) and near[0] == word[0] and cutoff < 0.8 else None


def kind_words(kind: str) -> str:
    """What a bound name is, with its article."""
    return {"input": "an input", "data": "data", "shared": "a shared variable", "def": "a function",
            "module": "an imported script", "metric": "a metric", "cost": "a cost"}.get(kind, f"a `{kind}`")


def different(a: Dim, b: Dim) -> bool:
    return decide(a, b) is False


def grouped(expr: ast.Expr) -> str:
    """The text of an expression, in parentheses where an attribute would not take all of it."""
    text = expr.span.text
    return text if isinstance(expr, ast.Name | ast.Call | ast.Attribute | ast.Index) else f"({text})"


def listing(names: Any) -> str:
    items = [f"`{n}`" for n in names]
    if len(items) > 8:
        items = [*items[:6], "…", items[-1]]
    return ", ".join(items)


def counted(n: int, noun: str) -> str:
    plural = {"index": "indices", "axis": "axes"}.get(noun, f"{noun}s")
    return f"{n} {noun if n == 1 else plural}"


def type_words(type: ArrayType) -> str:
    words = shape_text(type.shape) if type.rank else "a scalar"
    return words if is_float(type.dtype) else f"{words} of {type.dtype}"
