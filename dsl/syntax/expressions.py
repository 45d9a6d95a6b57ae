"""Expressions to nodes.

In: an expression of the AST and the names in scope.  Out: a value, typed and placed: every node made is recorded with
the span it was written at, and a type that does not fit is a diagnostic that shows both sides.  Indexing, calls and
`with` are in files of their own, as classes that stand on this one.
"""
from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher
from typing import Any

from dsl.errors import Diagnostic, Label, LrError, Span, did_you_mean, error
from dsl.ir.node import TABLE, Node, Op, Origins
from dsl.ir.types import (
    ArrayType,
    Dim,
    DType,
    Shape,
    Size,
    TypeFault,
    decide,
    is_float,
    is_int,
    shape_text,
)
from dsl.ops import philox
from dsl.ops.functions import FUNCTIONS, literal_value, stack
from dsl.ops.leaves import TRAINING, is_leaf, leaf, leaf_name
from dsl.ops.linalg import matmul
from dsl.ops.scalar import alias
from dsl.ops.shape import transpose
from dsl.ops.table import cast, constant
from dsl.syntax import ast
from dsl.syntax.values import (
    Group,
    Host,
    Module,
    OptimizerRule,
    Scope,
    SizeFact,
    Skipped,
    Symbol,
    Table,
    TextColumn,
    UserFunction,
    Value,
)

PREFIXES = ("np", "numpy", "T", "tt", "theano", "torch", "jnp", "tf", "math", "pt", "pm", "nn", "F")
ELSEWHERE = {"None": "there is no `None` but in an index, `x[:, None]`; leave the argument out",
             "True": "write `true`", "False": "write `false`", "self": "there are no objects",
             **{p: f"functions stand without a prefix: `exp(x)`, not `{p}.exp(x)`" for p in PREFIXES}}
"""What to write for names of other languages."""
CONSTANTS = {"pi": math.pi, "inf": math.inf, "nan": math.nan}
BINARY: dict[str, Op] = {op.symbol[0]: op for op in TABLE.values() if op.symbol and len(op.operands) == 2}
FAULT_CODES = {"matmul": "E0201", "shape": "E0202", "dtype": "E0203", "rank": "E0204", "axis": "E0205",
               "empty": "E0206",
               "size": "E0208"}


def not_built(span: Span, what: str) -> LrError:
    return error("E0801", f"{what}: not in this version", span, "not in this version",
                 help="the language has it; this version of lr does not run it yet")

class Expressions(ABC):
    """The state an expression needs: the names in scope, the precision, the place of the next random draw."""

    precision: DType = "float64"
    seed: int = 0

    def __init__(self, host: Host) -> None:
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

    # ------------------------------------------------------------ the context of built-in functions
    def draw_key(self) -> int:
        self.draws += 1
        return philox.draw_key(self.seed, (self.statement_name, *self.call_path, self.draws - 1))

    def draw_shape(self) -> Shape:
        return self.declared_shape or ()

    def training(self) -> Node:
        return TRAINING

    # ------------------------------------------------------------ making nodes
    @contextmanager
    def placing(self, span: Span, operands: Sequence[ast.Expr] = (), values: Sequence[Value] = ()) -> Iterator[None]:
        """A `TypeFault` inside becomes a diagnostic at `span`, with what each operand is."""
        try:
            yield
        except TypeFault as fault:
            raise self.type_error(fault, getattr(fault, "span", None) or span, operands, values) from None

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

    def redeclared(self, variable: Node, shape: Shape) -> str:
        """A declaration of a shared variable with another shape."""
        name = leaf_name(variable)
        start = self.starts.get(name, "…")
        return f"shared {name}{shape_text(shape)} = {start if len(start) <= 20 else '…'}"

    def build(self, op: Op | Callable[..., Any], expr: ast.Expr, operands: Sequence[ast.Expr],
              values: Sequence[Any]) -> Node:
        with self.placing(expr.span, operands, values):
            node: Node = op(*values, precision=self.precision)
        return self.placed(node, expr.span)

    def placed(self, node: Node, span: Span) -> Node:
        """Records where a node was written, and everything new below it."""
        stack_ = [node]
        while stack_:
            current = stack_.pop()
            if self.origins.span(current) is None and current.op is not alias and not is_leaf(current):
                self.origins.record(current, span)
                stack_.extend(current.args)
        return node

    # ------------------------------------------------------------ expressions
    def node(self, expr: ast.Expr) -> Node:
        """The expression as an array."""
        return self.as_node(self.value(expr), expr)

    def as_node(self, value: Value, expr: ast.Expr) -> Node:
        match value:
            case Node():
                return value
            case Group(()):
                raise error("E0204", "an empty tuple is not a value", expr.span)
            case Group(items):
                with self.placing(expr.span):
                    return self.placed(stack([self.as_node(i, expr) for i in items], 0, self.precision), expr.span)
            case TextColumn(name):
                raise error("E0204", f"`{name}` is a column of texts, not of numbers", expr.span, "texts",
                            help=f"use `codes({expr.span.text})` for integers in sorted order")
            case Table(name):
                raise error("E0204", f"`{name}` is a table, not an array", expr.span, "a table",
                            help=f"take a column (`{expr.span.text}.{next(iter(value.columns), 'name')}`) or several "
                            f"(`{expr.span.text}[:, :2]`)")
            case str():
                raise error("E0204", "a text stands where a number is needed", expr.span, "a text")
            case UserFunction() | OptimizerRule() | Module():
                raise error("E0204", f"`{expr.span.text}` is not a value", expr.span,
                            "a function" if isinstance(value, UserFunction) else "not a value",
                            help=f"call it: `{expr.span.text}(…)`" if isinstance(value, UserFunction) else None)

    def value(self, expr: ast.Expr) -> Value:
        match expr:
            case ast.Number(value):
                return self.placed(constant(value, "int64" if isinstance(value, int) else self.precision), expr.span)
            case ast.Text(text):
                return text
            case ast.Boolean(flag):
                return constant(flag, "bool")
            case ast.Name():
                return self.name(expr)
            case ast.Unary():
                return self.unary(expr)
            case ast.Binary():
                return self.binary(expr)
            case ast.Conditional(condition, yes, no):
                return self.conditional(expr, condition, yes, no)
            case ast.Attribute():
                return self.attribute(expr)
            case ast.Index():
                return self.index(expr)
            case ast.Call():
                return self.call(expr)
            case ast.Array(items):
                if not items:
                    raise error("E0204", "an empty array literal has no type", expr.span, help="use `zeros(0)`")
                nodes = [self.node(i) for i in items]
                shapes = list(dict.fromkeys(shape_text(n.shape) if n.rank else "a scalar" for n in nodes))
                if any(n.rank != nodes[0].rank or any(map(different, n.shape, nodes[0].shape)) for n in nodes):
                    raise error("E0202", f"the parts of this array have different shapes: {' and '.join(shapes[:2])}",
                                expr.span, help="give every part the same shape")
                with self.placing(expr.span, items, nodes):
                    return self.placed(stack(nodes, 0, self.precision), expr.span)
            case ast.Tuple(items):
                return Group(tuple(self.value(i) for i in items))
            case ast.With():
                return self.with_bindings(expr.value, expr.bindings)
            case ast.Loop():
                raise not_built(expr.span, f"`{expr.kind}`")
            case ast.Iterate():
                raise not_built(expr.span, "`iterate`")
            case _:
                raise AssertionError(expr)

    @abstractmethod
    def with_bindings(self, value: ast.Expr, bindings: Sequence[ast.Binding]) -> Value:
        """`value with bindings`."""

    @abstractmethod
    def index(self, expr: ast.Index) -> Value:
        """`x[…]`."""

    @abstractmethod
    def call(self, expr: ast.Call) -> Value:
        """`f(…)`."""

    # ------------------------------------------------------------ names
    def name(self, expr: ast.Name) -> Value:
        symbol = self.scope.get(expr.id)
        if symbol is None:
            if expr.id in CONSTANTS:
                return constant(CONSTANTS[expr.id], self.precision)
            raise self.unknown(expr.id, expr.span)
        if symbol.value is None:
            raise Skipped
        if self.in_epoch and symbol.kind in ("cost", "metric"):
            return self.epoch_value(symbol)
        if isinstance(symbol.value, Node):
            self.origins.record(symbol.value, symbol.span)
        return symbol.value

    def epoch_value(self, symbol: Symbol) -> Value:
        """In `every`, `until` and `stop`: the epoch's value of a cost or metric."""
        assert isinstance(symbol.value, Node)
        self.watched[symbol.name] = symbol.value
        return epoch_leaf(symbol.name, symbol.value)

    def check_unparsed(self, name: str) -> None:
        if name in self.unparsed:
            raise Skipped

    def unknown(self, name: str, span: Span) -> LrError:
        self.check_unparsed(name)
        if name in FUNCTIONS:
            return error("E0302", f"`{name}` is a function", span, help=f"call it: `{FUNCTIONS[name].signature}`")
        if name in self.later:
            return self.bound_later(name, span)
        near = nearest(name, [*self.scope, *CONSTANTS]) or nearest(name, FUNCTIONS, 0.8)
        labels = [Label(s.span, "this one?")] if near and (s := self.scope.get(near)) and s.span else []
        if name in ELSEWHERE:
            help = ELSEWHERE[name]
        elif near:
            help = f"did you mean `{near}`?"
        else:
            help = "bind it first: an input (`scalar`, `vector`, `matrix`), `data`, `shared` or `let`"
        return error("E0301", f"no name `{name}`", span, "not bound before this line", labels=labels, help=help)

    def bound_later(self, name: str, span: Span) -> LrError:
        return error("E0301", f"`{name}` is used before it is bound", span, "not bound before this line",
                     labels=[Label(self.later[name], "bound here")],
                     help="a name is bound above its use: move that line up")

    @contextmanager
    def inside(self, scope: Scope) -> Iterator[None]:
        before, self.scope = self.scope, scope
        try:
            yield
        finally:
            self.scope = before

    def float_literal(self, expr: ast.Expr, value: Value) -> Value:
        """A bare (possibly negated) integer literal bound to a name is a float."""
        if isinstance(value, Node) and literal_int(expr) is not None:
            return cast(value, self.precision)
        return value

    def unpack(self, idents: Sequence[ast.Ident], value: Value, expr: ast.Expr) -> Sequence[Value]:
        if len(idents) == 1:
            return [value]
        if not isinstance(value, Group) or len(value.items) != len(idents):
            size = len(value.items) if isinstance(value, Group) else 1
            raise error("E0507", f"{len(idents)} names for {counted(size, 'value')}", expr.span)
        return value.items

    def bind_local(self, idents: Sequence[ast.Ident], value: Value, expr: ast.Expr) -> None:
        for ident, part in zip(idents, self.unpack(idents, value, expr), strict=True):
            self.scope.maps[0][ident.id] = Symbol(ident.id, "let", part, ident.span)

    def anonymous(self, name: str) -> Dim:
        self.generation += 1
        return Dim.of(Size(f"{name}.{self.generation}", named=False))

    # ------------------------------------------------------------ operators
    def unary(self, expr: ast.Unary) -> Value:
        operand = self.node(expr.operand)
        match expr.op:
            case "+":
                return operand
            case "not":
                return self.build(TABLE["not"], expr, [expr.operand], [operand])
            case "-" if operand.op.name == "const" and operand.dtype != "bool":
                return self.placed(constant(-operand.attr("literal").value, operand.dtype), expr.span)
            case _:
                operand = cast(operand, "int64") if operand.dtype == "bool" else operand
                return self.build(TABLE["neg"], expr, [expr.operand], [operand])

    def binary(self, expr: ast.Binary) -> Value:
        left, right = self.value(expr.left), self.value(expr.right)
        if isinstance(left, Group) and isinstance(right, Group) and expr.op in ("==", "!="):
            left, right = self.as_node(left, expr.left), self.as_node(right, expr.right)
        operands = [expr.left, expr.right]
        a, b = self.as_node(left, expr.left), self.as_node(right, expr.right)
        if expr.op == "@":
            with self.placing(expr.span, operands, [a, b]):
                return self.placed(matmul(a, b), expr.span)
        if expr.op == "**":
            if is_int(a.dtype) and literal_value(b) is not None and literal_value(b) < 0:         # type: ignore[operator]
                a = cast(a, self.precision)
            a = cast(a, "int64") if a.dtype == b.dtype == "bool" else a
        elif a.dtype == b.dtype == "bool" and expr.op in "+-*//%":
            a, b = cast(a, "int64"), cast(b, "int64")
        with self.placing(expr.span, operands, [a, b]):
            try:
                return self.placed(BINARY[expr.op](a, b, precision=self.precision), expr.span)
            except TypeFault as fault:
                raise self._operator_fault(fault, expr, a, b) from None

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

    def conditional(self, expr: ast.Expr, condition: ast.Expr, yes: ast.Expr, no: ast.Expr) -> Node:
        values = [self.node(condition), self.node(yes), self.node(no)]
        if values[0].dtype != "bool":
            raise error("E0203", f"a condition is bool, not {values[0].dtype}", condition.span,
                        help=f"compare with something: `{condition.span.text} != 0`")
        return self.build(TABLE["where"], expr, [condition, yes, no], values)

    # ------------------------------------------------------------ attributes
    def attribute(self, expr: ast.Attribute) -> Value:
        base = self.value(expr.value)
        name = expr.name.id
        match base:
            case Table(table, columns):
                if name in columns:
                    return columns[name]
                near = did_you_mean(name, columns)
                raise error("E0303", f"table `{table}` has no column `{name}`", expr.name.span, "no such column",
                            help=f"did you mean `{near}`?" if near else f"its columns are {listing(columns)}")
            case Module(module, scope):
                if name in scope:
                    found = scope[name].value
                    if found is None:
                        raise Skipped
                    return found
                near = did_you_mean(name, scope)
                raise error("E0303", f"`{module}` has no name `{name}`", expr.name.span, "not bound there",
                            help=f"did you mean `{module}.{near}`?" if near else None)
            case _ if name == "T":
                x = self.as_node(base, expr.value)
                with self.placing(expr.span):
                    return self.placed(transpose(x, axes=tuple(range(-1, -x.rank - 1, -1))),
                                       expr.span) if x.rank > 1 else x
            case _:
                text = expr.value.span.text
                raise error("E0303", f"an array has no `.{name}`", expr.name.span, "no such attribute",
                            help=f"it is a function here: `{name}({text})`" if name in FUNCTIONS else
                            f"arrays have `.T`; everything else is a function: `shape({text})`, `mean({text})`")

    def wrt(self, expr: ast.Expr) -> Node:
        found = self.value(expr)
        if isinstance(expr, ast.Name) and not isinstance(found, Node):
            raise error("E0401", "a derivative is taken with respect to an array", expr.span,
                        kind_words(self.scope[expr.id].kind), help="name a shared variable, an input or a `let`")
        value = self.as_node(found, expr)
        if not isinstance(expr, ast.Name) or not (is_leaf(value) or value.op is alias):
            raise error("E0401", "a derivative is taken with respect to a name", expr.span, "an expression",
                        help=f"name it first: `let z = {expr.span.text}`")
        return value


# ---------------------------------------------------------------- helpers
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


def epoch_leaf(name: str, node: Node) -> Node:
    """The epoch's value of a cost or metric, as a leaf."""
    return leaf("value", f"epoch {name}", ArrayType(node.dtype))
def literal_int(item: ast.Syntax) -> int | None:
    """The value of a bare, possibly negated, integer literal."""
    match item:
        case ast.Number(int() as value):
            return value
        case ast.Unary("-", ast.Number(int() as value)):
            return -value
        case _:
            return None
