"""Expressions to nodes.

In: an expression of the AST and the names in scope.  Out: a value, typed and placed: every node made is recorded with
the span it was written at, and a type that does not fit is a diagnostic that shows both sides.  Indexing, calls and
`with` are in files of their own, as classes that stand on this one.
"""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dsl.errors import Span, did_you_mean, error
from dsl.ir.node import TABLE, Node, Op
from dsl.ir.types import (
    ArrayType,
    Dim,
    Shape,
    Size,
    TypeFault,
    is_int,
    shape_text,
)
from dsl.ops import philox
from dsl.ops.build import literal_value, stack
from dsl.ops.functions import FUNCTIONS
from dsl.ops.leaves import TRAINING, is_leaf, leaf
from dsl.ops.linalg import matmul
from dsl.ops.scalar import alias
from dsl.ops.shape import transpose
from dsl.ops.table import cast, constant
from dsl.syntax import ast
from dsl.syntax.faults import CONSTANTS, Faults, counted, different, kind_words, listing
from dsl.syntax.values import (
    Group,
    Module,
    OptimizerRule,
    Scope,
    Skipped,
    Symbol,
    Table,
    TextColumn,
    UserFunction,
    Value,
)

BINARY: dict[str, Op] = {op.symbol[0]: op for op in TABLE.values() if op.symbol and len(op.operands) == 2}
HEAVIEST = 100
"""The longest formula of a length: lengths multiplied over and over would double it each time."""


class Expressions(Faults, ABC):
    """Values of expressions, and the nodes they are made of."""

    # ------------------------------------------------------------ the context of built-in functions
    def draw_key(self) -> int:
        self.draws += 1
        return philox.draw_key(self.seed, (self.statement_name, *self.call_path, self.draws - 1))

    def draw_shape(self) -> Shape:
        return self.declared_shape or ()

    def training(self) -> Node:
        return TRAINING

    def iteration(self) -> tuple[Node, ...]:
        return () if self.turn is None else (self.turn,)

    # ------------------------------------------------------------ making nodes

    def build(self, op: Op | Callable[..., Any], expr: ast.Expr, operands: Sequence[ast.Expr],
              values: Sequence[Any]) -> Node:
        with self.placing(expr.span, operands, values):
            node: Node = op(*values, precision=self.precision)
        return self.placed(node, expr.span)

    def placed(self, node: Node, span: Span) -> Node:
        """Records where a node was written, and everything new below it."""
        if any(weight(d) > HEAVIEST for d in node.shape):
            raise error("E0208", "a length of this is too long a formula", span,
                        help="name the length: `dim m = …`, and declare an input or a shared variable with it")
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
            case ast.Held(value=Node() | Group() | TextColumn() | Table() | str() as held):
                return held
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
                return self.loop(expr)
            case ast.Iterate():
                return self.iterate(expr)
            case _:
                raise AssertionError(expr)

    @abstractmethod
    def with_bindings(self, value: ast.Expr, bindings: Sequence[ast.Binding]) -> Value:
        """`value with bindings`."""

    @abstractmethod
    def loop(self, expr: ast.Loop) -> Value:
        """`scan(v = v0 for t in ts: body)`, `fold(…)`."""

    @abstractmethod
    def iterate(self, expr: ast.Iterate) -> Value:
        """`iterate(v = v0 while condition max count: body)`."""

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


def weight(length: Dim) -> int:
    """How long the formula of a length is."""
    return sum(1 + sum(1 if isinstance(atom, Size) else 1 + weight(atom.left) + weight(atom.right) for atom in monomial)
               for monomial, _ in length.terms)
