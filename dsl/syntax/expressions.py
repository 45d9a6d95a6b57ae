"""Expressions to nodes.

In: an expression of the AST and the names in scope.  Out: a value, typed and placed: every node made is recorded with
the span it was written at, and a type that does not fit is a diagnostic that shows both sides.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dsl.errors import Diagnostic, Label, LrError, Span, did_you_mean, error
from dsl.ir.node import TABLE, Node, Op, Origins, make
from dsl.ir.types import ArrayType, Dim, DType, Shape, TypeFault, is_float, is_int, shape_text
from dsl.ops import philox
from dsl.ops.functions import FUNCTIONS, LATER, Function, Parameter, as_dim, literal_value, stack
from dsl.ops.leaves import TRAINING, is_leaf, leaf_name
from dsl.ops.linalg import matmul
from dsl.ops.scalar import alias
from dsl.ops.shape import compress, gather, reshape, resolve_slice, slice_op, transpose
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

CONSTANTS = {"pi": math.pi, "inf": math.inf, "nan": math.nan}
BINARY: dict[str, Op] = {op.symbol[0]: op for op in TABLE.values() if op.symbol and len(op.operands) == 2}
FAULT_CODES = {"matmul": "E0201", "shape": "E0202", "dtype": "E0203", "rank": "E0204", "axis": "E0205", "empty": "E0206",
               "size": "E0208"}


def not_built(span: Span, what: str) -> LrError:
    return error("E0801", f"{what}: not in this version", span, "not in this version",
                 help="the language has it; this version of lr does not run it yet")


class Expressions:
    """The state an expression needs: the names in scope, the precision, the place of the next random draw."""

    precision: DType = "float64"
    seed: int = 0

    def __init__(self, host: Host) -> None:
        self.host = host
        self.scope: Scope = Scope({})
        self.origins = Origins()
        self.sizes: dict[str, SizeFact] = {}
        self.concerning: dict[Diagnostic, tuple[Dim, ...]] = {}
        self.epoch_values: dict[str, Node] | None = None
        self.in_data = False
        self.statement_name = ""
        self.call_path: tuple[str | int, ...] = ()
        self.draws = 0
        self.declared_shape: Shape | None = None
        self.active: list[str] = []

    # ------------------------------------------------------------ the Context of built-in functions
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

    def type_error(self, fault: TypeFault, span: Span, operands: Sequence[ast.Expr] = (), values: Sequence[Value] = ()) -> LrError:
        labels = []
        for expr, value in zip(operands, values, strict=False):
            if isinstance(expr, ast.Name) and isinstance(value, Node):
                symbol = self.scope.get(expr.id)
                if symbol and symbol.span and symbol.kind != "dim":
                    labels.append(Label(symbol.span, f"{expr.id} is {_type_words(value.type)}"))
        help = fault.help
        if fault.kind == "matmul" and len(values) == 2:
            help = help or self._matmul_help(operands, values)
        diagnostic = Diagnostic(FAULT_CODES.get(fault.kind, "E0202"), fault.message, Label(span, fault.detail), tuple(labels), (), help)
        self.concerning[diagnostic] = fault.dims
        return LrError(diagnostic)

    def _matmul_help(self, operands: Sequence[ast.Expr], values: Sequence[Value]) -> str | None:
        a, b = values
        if not isinstance(a, Node) or not isinstance(b, Node):
            return None
        left, right = (o.span.text if o.span.end - o.span.start < 30 else s for o, s in zip(operands, ("the left side", "the right side"), strict=False))
        place = "first" if b.rank == 1 else "last-but-one" if b.rank > 2 else "first"
        text = f"the last axis of {left} must equal the {place} axis of {right}"
        if is_leaf(b, "shared") and isinstance(operands[1], ast.Name):
            shape = ", ".join(map(str, (a.shape[-1], *b.shape[1:])))
            return f"{text}; write `shared {leaf_name(b)}[{shape}] = …`"
        if a.rank == 2 and b.rank == 2 and a.shape[-1] == b.shape[-1]:
            return f"{text}; write `{left} @ {right}.T`"
        if a.rank == 2 and a.shape[0] == b.shape[0 if b.rank == 1 else -2]:
            return f"{text}; write `{left}.T @ {right}`"
        return text

    def build(self, op: Op | Callable[..., Any], expr: ast.Expr, operands: Sequence[ast.Expr], values: Sequence[Any]) -> Node:
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
            case Group(items):
                with self.placing(expr.span):
                    return self.placed(stack([self.as_node(i, expr) for i in items], 0, self.precision), expr.span)
            case TextColumn(name):
                raise error("E0204", f"`{name}` is a column of texts, not of numbers", expr.span, "texts",
                            help=f"use `codes({expr.span.text})` for integers in sorted order")
            case Table(name):
                raise error("E0204", f"`{name}` is a table, not an array", expr.span, "a table",
                            help=f"take a column (`{expr.span.text}.{next(iter(value.columns), 'name')}`) or several (`{expr.span.text}[:, :2]`)")
            case str():
                raise error("E0204", "a text stands where a number is needed", expr.span, "a text")
            case UserFunction() | OptimizerRule() | Module():
                raise error("E0204", f"`{expr.span.text}` is not a value", expr.span, "a function" if isinstance(value, UserFunction) else "not a value",
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

    def with_bindings(self, value: ast.Expr, bindings: Sequence[ast.Binding]) -> Value:
        raise AssertionError("given by `Binder`")

    # ------------------------------------------------------------ names
    def name(self, expr: ast.Name) -> Value:
        symbol = self.scope.get(expr.id)
        if symbol is None:
            if expr.id in CONSTANTS:
                return constant(CONSTANTS[expr.id], self.precision)
            raise self.unknown(expr.id, expr.span)
        if symbol.value is None:
            raise Skipped
        if self.epoch_values is not None and symbol.kind in ("cost", "metric"):
            return self.epoch_value(symbol)
        if isinstance(symbol.value, Node):
            self.origins.record(symbol.value, symbol.span)
        return symbol.value

    def epoch_value(self, symbol: Symbol) -> Value:
        raise AssertionError("given by the elaboration of `train`")

    def unknown(self, name: str, span: Span) -> LrError:
        if name in FUNCTIONS:
            return error("E0302", f"`{name}` is a function", span, help=f"call it: `{FUNCTIONS[name].signature}`")
        near = did_you_mean(name, [*self.scope, *CONSTANTS, *FUNCTIONS])
        labels = [Label(s.span, "this one?")] if near and (s := self.scope.get(near)) and s.span else []
        return error("E0301", f"no name `{name}`", span, "not bound before this line", labels=labels,
                     help=f"did you mean `{near}`?" if near else "bind it first: an input (`scalar`, `vector`, `matrix`), `data`, `shared` or `let`")

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
        if expr.op not in ("and", "or"):
            a, b = self._weak(expr.left, a, b), self._weak(expr.right, b, a)
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
        (small, text), (large, _) = sorted([(a, expr.left.span.text), (b, expr.right.span.text)], key=lambda p: p[0].rank)
        if small.rank == 1 and large.rank == 2 and small.shape[0] == large.shape[0]:
            return f"axes are matched from the right; write `{text}[:, None]` to go down the rows"
        if small.rank == large.rank == 2 and small.shape == large.shape[::-1]:
            return f"did you mean `{text}.T`?"
        if small.rank == large.rank == 1 and all(d.bare and d.bare.named for d in (small.shape[0], large.shape[0])):
            return "two different dims never match; declare both arrays with one dim if they always have the same length"
        return None

    def _weak(self, expr: ast.Expr, node: Node, other: Node) -> Node:
        """A bare integer literal takes the other side's dtype."""
        bare = expr.operand if isinstance(expr, ast.Unary) and expr.op == "-" else expr
        if isinstance(bare, ast.Number) and isinstance(bare.value, int) and other.dtype == "int32":
            return cast(node, "int32")
        return node

    def conditional(self, expr: ast.Expr, condition: ast.Expr, yes: ast.Expr, no: ast.Expr) -> Node:
        values = [self.node(condition), self.node(yes), self.node(no)]
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
                            help=f"did you mean `{near}`?" if near else f"its columns are {_listing(columns)}")
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
                    return self.placed(transpose(x, axes=tuple(range(-1, -x.rank - 1, -1))), expr.span) if x.rank > 1 else x
            case _:
                raise error("E0303", f"an array has no `.{name}`", expr.name.span, "no such attribute",
                            help="arrays have `.T`; everything else is a function: `shape(x)`, `mean(x)`")

    # ------------------------------------------------------------ indexing
    def index(self, expr: ast.Index) -> Value:
        base = self.value(expr.value)
        match base:
            case Group(items):
                place = self._literal_int(expr.items[0]) if len(expr.items) == 1 else None
                if place is None:
                    raise error("E0205", "a tuple is indexed by one literal integer", expr.span)
                if not -len(items) <= place < len(items):
                    raise error("E0207", f"index {place} of a tuple of {len(items)}", expr.span)
                return items[place]
            case Table():
                return self.table_index(expr, base)
            case _:
                x = self.as_node(base, expr.value)
                with self.placing(expr.span, [expr.value], [x]):
                    return self.placed(self.pick(x, expr.items, expr), expr.span)

    def _literal_int(self, item: ast.Syntax) -> int | None:
        match item:
            case ast.Number(int() as value):
                return value
            case ast.Unary("-", ast.Number(int() as value)):
                return -value
            case _:
                return None

    def table_index(self, expr: ast.Index, table: Table) -> Value:
        """`t[:, :8]` the first columns as a matrix, `t[:, 0]` one column."""
        names = list(table.columns)
        if len(expr.items) == 1 and isinstance(expr.items[0], ast.Text):
            return self.attribute(ast.Attribute(expr.value, ast.Ident(expr.items[0].value, span=expr.items[0].span), span=expr.span))
        if len(expr.items) != 2:
            raise error("E0205", f"table `{table.name}` is indexed by rows and columns", expr.span, help="write `t[:, :8]`")
        rows, columns = expr.items
        if isinstance(columns, ast.Slice):
            bounds = [None if b is None else self._literal_int(b) for b in (columns.start, columns.stop, columns.step)]
            chosen = names[slice(*bounds)]
        else:
            place = self._literal_int(columns)
            if place is None or not -len(names) <= place < len(names):
                raise error("E0207", f"table `{table.name}` has {len(names)} columns", columns.span, f"columns are 0 to {len(names) - 1}")
            return self._rows(table.columns[names[place]], rows, expr)
        texts = [n for n in chosen if isinstance(table.columns[n], TextColumn)]
        if texts:
            raise error("E0204", f"column `{texts[0]}` holds texts, not numbers", expr.span, f"columns {_listing(chosen)}",
                        help=f"leave it out, or use `codes({table.name}.{texts[0]})`")
        if not chosen:
            raise error("E0207", f"no columns of `{table.name}` are chosen", expr.span, f"its columns are {_listing(names)}")
        parts = [c for n in chosen if isinstance(c := table.columns[n], Node)]
        matrix = self.placed(stack(parts, -1, self.precision), expr.span)
        return self._rows(matrix, rows, expr)

    def _rows(self, value: Node | TextColumn, rows: ast.Syntax, expr: ast.Index) -> Value:
        if isinstance(rows, ast.Slice) and rows.start is rows.stop is rows.step is None:
            return value
        if isinstance(value, TextColumn):
            raise error("E0204", "rows of a text column cannot be picked", expr.span, help="take `codes(…)` first")
        return self.placed(self.pick(value, (rows,), expr), expr.span)           # type: ignore[arg-type]

    def pick(self, x: Node, items: Sequence[ast.Expr | ast.Slice | ast.NewAxis | ast.Dots], expr: ast.Index) -> Node:
        """NumPy's indexing: slices, new axes, integers and integer arrays; a mask in `data` only."""
        used = sum(not isinstance(i, ast.NewAxis | ast.Dots) for i in items)
        if used > x.rank:
            raise error("E0205", f"{used} indices into an array with {x.rank} axes", expr.span, shape_text(x.shape))
        full_slice = ast.Slice(None, None, None, span=expr.span)
        flat: list[ast.Expr | ast.Slice | ast.NewAxis | ast.Dots] = []
        for item in items:
            flat.extend([full_slice] * (x.rank - used) if isinstance(item, ast.Dots) else [item])
        flat.extend([full_slice] * (x.rank - sum(not isinstance(i, ast.NewAxis) for i in flat)))
        windows, picks, slots, axis = [], [], [], 0
        for item in flat:
            match item:
                case ast.NewAxis():
                    slots.append("new")
                    continue
                case ast.Slice():
                    windows.append(self.window(item, x.shape[axis]))
                    slots.append("slice")
                case _:
                    index = self.node(item)                                        # type: ignore[arg-type]
                    if index.dtype == "bool":
                        return self.masked(x, index, flat, expr)
                    self.check_index(index, x.shape[axis], item.span)
                    windows.append(resolve_slice(x.shape[axis], None, None, 1))
                    picks.append((axis, index))
                    slots.append("pick")
            axis += 1
        if any(s != Dim.of(0) or n != d or k != 1 for (s, n, k), d in zip(windows, x.shape, strict=True)):
            x = make(slice_op, [x], {"items": tuple(windows)})
        return _arrange(x, picks, slots)

    def window(self, item: ast.Slice, length: Dim) -> tuple[Dim, Dim, int]:
        def bound(expr: ast.Expr | None) -> Dim | None:
            if expr is None:
                return None
            try:
                return as_dim(self.node(expr))
            except TypeFault:
                raise error("E0208", "the bounds of a slice are whole numbers and dims", expr.span, "known only at run time",
                            help="pick by an index array instead: `x[i + arange(3)]`") from None
        step = bound(item.step)
        stride = 1 if step is None else step.constant
        if not stride:
            raise error("E0208", "the step of a slice is a literal integer, not 0", item.span)
        return resolve_slice(length, bound(item.start), bound(item.stop), stride)

    def check_index(self, index: Node, length: Dim, span: Span) -> None:
        place, known = literal_value(index), length.known
        if isinstance(place, int) and known is not None and not -known <= place < known:
            raise error("E0207", f"index {place} is out of range for an axis of length {known}", span,
                        f"valid indices are {-known} to {known - 1}" if known else "the axis is empty")

    def masked(self, x: Node, mask: Node, items: Sequence[Any], expr: ast.Index) -> Node:
        if not self.in_data:
            raise error("E0209", "a mask picks rows in `data` only", expr.span, "the number of rows would be known only at run time",
                        help="use `where(mask, x, 0)`, or pick the rows in a `data` statement")
        if mask.rank != 1 or any(not isinstance(i, ast.Slice) for i in items[1:]):
            raise error("E0209", "a mask has one axis and stands first", expr.span, help="write `A[mask]`")
        value = self.host.evaluate(mask)
        count = Dim.of(int(value.sum())) if value is not None else self.anonymous("count")
        return make(compress, [x, mask], {"count": count})

    def anonymous(self, name: str) -> Dim:
        raise AssertionError("given by the elaboration of inputs")

    # ------------------------------------------------------------ calls
    def call(self, expr: ast.Call) -> Value:
        function = expr.function
        if isinstance(function, ast.Name):
            symbol = self.scope.get(function.id)
            if symbol is not None and symbol.value is None and symbol.kind == "def":
                raise Skipped
            if symbol is not None and isinstance(symbol.value, UserFunction):
                return self.user_call(expr, function.id, symbol.value)
            if function.id in FUNCTIONS:
                return self.built_in(expr, FUNCTIONS[function.id])
            if function.id in LATER:
                raise not_built(expr.span, f"`{function.id}`")
            if symbol is not None:
                raise error("E0501", f"`{function.id}` is not a function", function.span, f"a {symbol.kind}",
                            labels=[Label(symbol.span, "bound here")] if symbol.span else [],
                            help=f"write `{function.id} * (…)` to multiply")
            callables = [n for n, s in self.scope.items() if isinstance(s.value, UserFunction)]
            near = did_you_mean(function.id, [*FUNCTIONS, *callables])
            raise error("E0302", f"no function `{function.id}`", function.span, "not a function",
                        help=f"did you mean `{near}`?" if near else "define it: `def f(x) = …`")
        target = self.value(function)
        if isinstance(target, UserFunction):
            return self.user_call(expr, function.span.text, target)
        raise error("E0501", f"`{function.span.text}` is not a function", function.span, "cannot be called")

    def built_in(self, expr: ast.Call, row: Function) -> Value:
        given = self.match_arguments(expr, row)
        if row.build is None:
            return self.data_call(expr, row, given)
        values: list[Any] = []
        operands: list[ast.Expr] = []
        shown: list[Value] = []
        for parameter in row.parameters:
            argument = given.get(parameter.name)
            if argument is None:
                default = parameter.default
                if isinstance(default, int | float) and parameter.name in ("delta",):
                    default = constant(default, self.precision)
                values.append(default)
                continue
            values.append(self.argument(row, parameter.name, argument))
            if isinstance(values[-1], Node) and isinstance(argument, ast.Expr):
                operands.append(argument)
                shown.append(values[-1])
        with self.placing(expr.span, operands, shown):
            try:
                result = row.build(self, *values)
            except TypeFault as fault:
                if fault.message.startswith("takes "):
                    fault.message = f"`{row.name}` {fault.message}"
                if fault.kind == "shape" and len(shown) > 1 and "do not agree" in fault.message:
                    types = " and ".join(shape_text(v.shape) for v in shown if isinstance(v, Node))
                    fault.message = f"`{row.name}` cannot combine {types}"
                raise
        if isinstance(result, tuple):
            return Group(tuple(self.placed(r, expr.span) for r in result))
        return self.placed(result, expr.span)

    def match_arguments(self, expr: ast.Call, row: Function) -> dict[str, Any]:
        """Arguments by parameter name; surplus sizes after `shape` belong to it."""
        given: dict[str, Any] = {}
        names = [p.name for p in row.parameters]
        positional = [a.value for a in expr.arguments if a.name is None]
        variadic = next((p for p in row.parameters if p.variadic), None)
        if variadic:
            given[variadic.name] = positional
        else:
            if len(positional) > len(names):
                if names and names[-1] == "shape":
                    first = len(names) - 1
                    span = positional[first].span.to(positional[-1].span)
                    positional = [*positional[:first], ast.Tuple(tuple(positional[first:]), span=span)]
                else:
                    raise error("E0502", f"`{row.name}` takes {_count(len(names), 'argument')}, not {len(positional)}", expr.span,
                                help=f"`{row.signature}`")
            given.update(zip(names, positional, strict=False))
        for argument in expr.arguments:
            if argument.name is None:
                continue
            name = argument.name.id
            if name not in names or (variadic and name == variadic.name):
                near = did_you_mean(name, names)
                raise error("E0503", f"`{row.name}` has no parameter `{name}`", argument.name.span, "no such parameter",
                            help=f"did you mean `{near}`?" if near else f"`{row.signature}`")
            if name in given:
                raise error("E0502", f"`{row.name}` is given `{name}` twice", argument.span, help=f"`{row.signature}`")
            given[name] = argument.value
        missing = [p.name for p in row.parameters if p.required and p.name not in given]
        if missing:
            raise error("E0502", f"`{row.name}` needs {_listing(missing)}", expr.span, help=f"`{row.signature}`")
        return given

    def argument(self, row: Function, name: str, expr: ast.Expr) -> Any:
        """An argument as its parameter wants it."""
        if isinstance(expr, ast.Name) and expr.id == "none" and "none" not in self.scope:
            return None
        match name:
            case "axis" | "axes" | "k" | "ddof":
                return self.literal_ints(row, name, expr)
            case "keepdims":
                if not isinstance(expr, ast.Boolean):
                    raise error("E0504", f"`{name}` of `{row.name}` is `true` or `false`", expr.span)
                return expr.value
            case "shape" | "reps":
                return self.shape_argument(expr)
            case "n" | "m":
                with self.placing(expr.span):
                    return as_dim(self.node(expr))
            case "parts":
                items = expr.items if isinstance(expr, ast.Tuple | ast.Array) else None
                value = None if items else self.value(expr)
                if isinstance(value, Group):
                    return [self.as_node(v, expr) for v in value.items]
                if items is None:
                    raise error("E0504", f"`{row.name}` takes several arrays in brackets", expr.span, help=f"write `{row.name}((a, b))`")
                return [self.node(i) for i in items]
            case "x" if row.group == "derivative" and row.name != "stop_grad":
                return self.wrt(expr)
            case _:
                return self.node(expr)

    def wrt(self, expr: ast.Expr) -> Node:
        value = self.node(expr)
        if not isinstance(expr, ast.Name) or not (is_leaf(value) or value.op is alias):
            raise error("E0401", "a derivative is taken with respect to a name", expr.span, "an expression",
                        help=f"name it first: `let z = {expr.span.text}`")
        return value

    def literal_ints(self, row: Function, name: str, expr: ast.Expr) -> Any:
        if name in ("axis", "axes") and isinstance(expr, ast.Tuple | ast.Array):
            items = [self._literal_int(i) for i in expr.items]
            if None not in items:
                return tuple(items)
        elif (value := self._literal_int(expr)) is not None:
            return value
        raise error("E0504", f"`{name}` of `{row.name}` is a literal integer", expr.span, "not a literal")

    def shape_argument(self, expr: ast.Expr) -> Shape:
        with self.placing(expr.span):
            value = self.value(expr)
            if isinstance(value, Group):
                lengths = tuple(as_dim(self.as_node(i, expr)) for i in value.items)
            elif isinstance(expr, ast.Array):
                lengths = tuple(as_dim(self.node(i)) for i in expr.items)
            else:
                lengths = (as_dim(self.as_node(value, expr)),)
        for length in lengths:
            if length.constant is not None and length.constant < -1:
                raise error("E0208", f"a length is not negative: {length}", expr.span)
        return lengths

    def data_call(self, expr: ast.Call, row: Function, given: dict[str, Any]) -> Value:
        raise AssertionError("given by the elaboration of `data`")

    # ------------------------------------------------------------ functions of the script
    def user_call(self, expr: ast.Call, name: str, function: UserFunction) -> Value:
        definition = function.definition
        row = Function(name, tuple(_parameter(p) for p in definition.parameters), "", "", None)
        given = self.match_arguments(expr, row)
        if name in self.active:
            raise error("E0505", f"`{name}` calls itself", expr.span, "a recursive call", help="use `fold` or `scan` for loops")
        if len(self.active) > 40:
            raise error("E0505", "functions call each other too deep", expr.span)
        arguments: dict[str, Symbol] = {}
        for parameter in definition.parameters:
            supplied = given.get(parameter.name.id)
            if supplied is not None:
                value = self.value(supplied)
            else:
                assert parameter.default is not None
                with self.inside(function.scope):
                    value = self.value(parameter.default)
                    value = self.float_literal(parameter.default, value)
            arguments[parameter.name.id] = Symbol(parameter.name.id, "parameter", value, parameter.name.span)
        for key, symbol in arguments.items():
            if isinstance(symbol.value, Node):
                arguments[key] = Symbol(key, "parameter", make(alias, [symbol.value], {"name": f"{name}.{key}"}), symbol.span)
        place, outer = self.draws, self.call_path
        self.active.append(name)
        self.call_path, self.draws = (*outer, name, place), 0
        try:
            with self.inside(function.scope.new_child(arguments)):
                return self.body(definition.body)
        except LrError as problem:
            raise _called_from(problem, name, expr.span) from None
        finally:
            self.call_path, self.draws = outer, place + 1
            self.active.pop()

    def body(self, statements: Sequence[ast.Statement]) -> Value:
        for statement in statements:
            match statement:
                case ast.Define("let", idents, value):
                    self.bind_local(idents, self.float_literal(value, self.value(value)), value)
                case ast.Return(value):
                    return self.value(value)
                case _:
                    raise error("E0506", "a function holds `let` and `return`", statement.span, "not here")
        raise error("E0506", "this function returns nothing", statements[-1].span, help="end it with `return …`")

    def bind_local(self, idents: Sequence[ast.Ident], value: Value, expr: ast.Expr) -> None:
        for ident, part in zip(idents, self.unpack(idents, value, expr), strict=True):
            self.scope.maps[0][ident.id] = Symbol(ident.id, "let", part, ident.span)

    def unpack(self, idents: Sequence[ast.Ident], value: Value, expr: ast.Expr) -> Sequence[Value]:
        if len(idents) == 1:
            return [value]
        if not isinstance(value, Group) or len(value.items) != len(idents):
            size = len(value.items) if isinstance(value, Group) else 1
            raise error("E0507", f"{len(idents)} names for {_count(size, 'value')}", expr.span)
        return value.items

    @contextmanager
    def inside(self, scope: Scope) -> Iterator[None]:
        before, self.scope = self.scope, scope
        try:
            yield
        finally:
            self.scope = before

    def float_literal(self, expr: ast.Expr, value: Value) -> Value:
        """A bare (possibly negated) integer literal bound to a name is a float."""
        if isinstance(value, Node) and self._literal_int(expr) is not None:
            return cast(value, self.precision)
        return value


# ---------------------------------------------------------------- helpers
def _arrange(x: Node, picks: Sequence[tuple[int, Node]], slots: Sequence[str]) -> Node:
    """Gather the picked axes, then put the result's axes where NumPy puts them."""
    kept = [s for s in slots if s != "pick"]
    count = 0
    if picks:
        axes = [a for a, _ in picks]
        order = [*axes, *(a for a in range(x.rank) if a not in axes)]
        if order != list(range(x.rank)):
            x = transpose(x, axes=tuple(a - len(order) for a in order))
        x = make(gather, [x, *(i if i.dtype in ("int32", "int64") else i for _, i in picks)])
        count = x.rank - sum(s == "slice" for s in slots)
        first = slots.index("pick")
        together = all(s == "pick" for s in slots[first:first + len(picks)])
        lead = first if together else 0
        kept = [*slots[:lead], *["picked"] * count, *(s for s in slots[lead:] if s != "pick")] if together else \
            [*["picked"] * count, *(s for s in slots if s != "pick")]
    source = {"picked": iter(range(count)), "slice": iter(range(count, x.rank))}
    order = [next(source[s]) for s in kept if s != "new"]
    if order != list(range(x.rank)):
        x = transpose(x, axes=tuple(a - len(order) for a in order))
    if "new" in kept:
        lengths = iter(x.shape)
        x = reshape(x, shape=tuple(Dim.of(1) if s == "new" else next(lengths) for s in kept))
    return x


def _parameter(parameter: ast.Parameter) -> Parameter:
    return Parameter(parameter.name.id, None, required=parameter.default is None)


def _called_from(problem: LrError, name: str, span: Span) -> LrError:
    from dataclasses import replace
    first, *rest = problem.diagnostics
    if any(label.text.startswith("in this call") for label in first.labels):
        return problem
    return type(problem)(replace(first, labels=(*first.labels, Label(span, f"in this call of `{name}`"))), *rest)


def _listing(names: Any) -> str:
    items = [f"`{n}`" for n in names]
    if len(items) > 8:
        items = [*items[:6], "…", items[-1]]
    return ", ".join(items)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _type_words(type: ArrayType) -> str:
    words = shape_text(type.shape) if type.rank else "a scalar"
    return words if is_float(type.dtype) else f"{words} of {type.dtype}"

