"""Loops: `scan`, `fold`, `iterate`.

In: their AST and the names in scope.  Out: nodes of the loop ops.  The body is elaborated in a scope of its own over
placeholders for what it carries and the elements of its sequences; what else it reads becomes an operand of the loop.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dsl.errors import Label, Span, error
from dsl.ir.node import Node, topological
from dsl.ir.types import ArrayType, Dim, Shapes, decide, is_float, shape_text
from dsl.ops.build import as_dim, dim_node, literal_value
from dsl.ops.control import Loop, iterate, scan
from dsl.ops.leaves import leaf
from dsl.ops.shape import expand, iota
from dsl.ops.table import cast, constant
from dsl.passes.loops import enclose, through_iterate
from dsl.syntax import ast
from dsl.syntax.faults import counted, type_words
from dsl.syntax.indexing import Indexing
from dsl.syntax.values import Group, Symbol, Value


class Loops(Indexing):
    # ------------------------------------------------------------ scan and fold
    def loop(self, expr: ast.Loop) -> Value:
        sequences = [self.node(s) for s in expr.sequences]
        length = self.common_length(expr, sequences)
        elements = [self.placeholder("element", e, s.type.with_shape(s.shape[1:])) for e, s in zip(expr.elements, sequences, strict=True)]
        number = leaf("element", f"iteration.{self.serial()}", ArrayType("int64"))
        turn = number if self.turn is None else self.turn * dim_node(length) + number
        starts = [self.node(s) for s in expr.starts]
        first_draw = self.draws
        while True:
            carries = [self.placeholder("carry", s, v.type) for s, v in zip(expr.states, starts, strict=True)]
            self.draws = first_draw
            with self.in_body((*expr.states, *expr.elements), (*carries, *elements), turn):
                new = self.next_values(expr)
            widened = self.widened(expr, starts, new)
            if widened == starts:
                break
            starts = widened
        body = [self.kept(expr, k, start, value) for k, (start, value) in enumerate(zip(starts, new, strict=True))]
        with self.placing(expr.span):
            counted_rows: Node = iota(length=length)
            loop = enclose(Loop(scan, (*starts, *sequences, counted_rows), (*carries, *elements, number), tuple(body), len(starts),
                                len(sequences) + 1, (("length", length), ("reverse", False))), self.origins)
            results = [loop.output("last" if expr.kind == "fold" else "all", k) for k in range(len(starts))]
        placed = [self.placed(r, expr.span) for r in results]
        return Group(tuple(placed)) if expr.tupled else placed[0]

    def common_length(self, expr: ast.Loop, sequences: Sequence[Node]) -> Dim:
        """The one length of all sequences; what cannot be compared yet is checked when the loop runs."""
        for written, sequence in zip(expr.sequences, sequences, strict=True):
            if not sequence.rank:
                raise error("E0204", f"`{expr.kind}` goes over the rows of an array, not over a scalar", written.span, "a scalar",
                            labels=self.bound_labels(written), help="`arange(n)` gives 0, 1, … n - 1")
        for written, sequence in zip(expr.sequences[1:], sequences[1:], strict=True):
            if decide(sequences[0].shape[0], sequence.shape[0]) is False:
                problem = error("E0211", f"the sequences of a loop have one length, not {sequences[0].shape[0]} and {sequence.shape[0]}",
                                written.span, f"{sequence.shape[0]} rows",
                                labels=[Label(expr.sequences[0].span, f"{sequences[0].shape[0]} rows")],
                                help="give sequences with the same number of rows")
                self.concerning[problem.diagnostic] = (sequences[0].shape[0], sequence.shape[0])
                raise problem
        length = sequences[0].shape[0]
        for sequence in sequences[1:]:
            length = Shapes().equal(length, sequence.shape[0]) or length
        return length

    # ------------------------------------------------------------ iterate
    def iterate(self, expr: ast.Iterate) -> Value:
        with self.placing(expr.limit.span):
            limit = as_dim(self.node(expr.limit))
        if limit.constant is not None and limit.constant < 0:
            raise error("E0208", f"a number of turns is not negative: {limit}", expr.limit.span)
        number = leaf("carry", f"iteration.{self.serial()}", ArrayType("int64"))
        turn = number if self.turn is None else self.turn * dim_node(limit + 1) + number
        starts = [self.node(s) for s in expr.starts]
        first_draw = self.draws
        while True:
            carries = [self.placeholder("carry", s, v.type) for s, v in zip(expr.states, starts, strict=True)]
            self.draws = first_draw
            with self.in_body(expr.states, carries, turn):
                condition = self.node(expr.condition)
                new = self.next_values(expr)
            widened = self.widened(expr, starts, new)
            if widened == starts:
                break
            starts = widened
        if condition.dtype != "bool" or condition.rank:
            found = type_words(condition.type) if condition.rank else condition.dtype
            raise error("E0203", f"the condition of `iterate` is one bool, not {found}", expr.condition.span,
                        help="compare with something (`abs(v) > 1e-9`); reduce an array with `any(…)` or `all(…)`")
        body = [self.kept(expr, k, start, value) for k, (start, value) in enumerate(zip(starts, new, strict=True))]
        operands, parameters = list(starts), list(carries)
        if number in topological([*body, condition]):
            operands.append(constant(0, "int64"))
            parameters.append(number)
            body.append(number + 1)
        with self.placing(expr.span):
            loop = enclose(Loop(iterate, tuple(operands), tuple(parameters), (*body, condition), len(operands), 0, (("limit", limit),)),
                           self.origins)
            results = [loop.output("last", k) for k in range(len(starts))]
        placed = [self.placed(r, expr.span) for r in results]
        return Group(tuple(placed)) if expr.tupled else placed[0]

    def check_derivative(self, f: Node, x: Node, span: Span) -> None:
        """Raises `LrError` if the derivative would go through `iterate`."""
        culprit = through_iterate([f], [x])
        if culprit is not None:
            place = self.origins.span(culprit)
            raise error("E0421", "there is no derivative through `iterate`", span,
                        labels=[Label(place, "the number of turns depends on the values")] if place else [],
                        help="use `fold` over a fixed number of steps, or cut the derivative with `stop_grad(…)`")

    # ------------------------------------------------------------ the body
    def serial(self) -> int:
        self.generation += 1
        return self.generation

    def placeholder(self, kind: str, ident: ast.Ident, type: ArrayType) -> Node:
        return leaf(kind, f"{ident.id}.{self.serial()}", type)

    @contextmanager
    def in_body(self, names: Sequence[ast.Ident], values: Sequence[Node], turn: Node) -> Iterator[None]:
        """The names of a loop in scope, and its draws counted by iteration."""
        symbols = {n.id: Symbol(n.id, "let", v, n.span) for n, v in zip(names, values, strict=True)}
        outer, self.turn = self.turn, turn
        declared, self.declared_shape = self.declared_shape, None
        try:
            with self.inside(self.scope.new_child(symbols)):
                yield
        finally:
            self.turn, self.declared_shape = outer, declared

    def next_values(self, expr: ast.Loop | ast.Iterate) -> list[Node]:
        """What the body gives each carried name."""
        value = self.value(expr.body)
        if not expr.tupled:
            return [self.as_node(value, expr.body)]
        items = value.items if isinstance(value, Group) else (value,)
        if len(items) != len(expr.states):
            raise error("E0507", f"the body gives {counted(len(items), 'value')} for {counted(len(expr.states), 'name')}", expr.body.span,
                        labels=[Label(expr.states[0].span.to(expr.states[-1].span), counted(len(expr.states), "name"))],
                        help="write one value for each name, in brackets: `(p + 1, q * 2)`")
        return [self.as_node(item, self.written(expr, k)) for k, item in enumerate(items)]

    def written(self, expr: ast.Loop | ast.Iterate, place: int) -> ast.Expr:
        """Where the next value of a name is written."""
        return expr.body.items[place] if expr.tupled and isinstance(expr.body, ast.Tuple) else expr.body

    def widened(self, expr: ast.Loop | ast.Iterate, starts: Sequence[Node], new: Sequence[Node]) -> list[Node]:
        """The starts, in which an integer literal whose next value is a float is a float."""
        return [cast(start, self.precision) if not is_float(start.dtype) and is_float(value.dtype) and literal_value(start) is not None
                and start.dtype != "bool" else start for start, value in zip(starts, new, strict=True)]

    def kept(self, expr: ast.Loop | ast.Iterate, place: int, start: Node, value: Node) -> Node:
        """The next value in the dtype and shape of the start."""
        name, written = expr.states[place].id, self.written(expr, place)
        label = Label(expr.starts[place].span, f"{name} starts as {type_words(start.type)}")
        if value.dtype != start.dtype and not (is_float(start.dtype) or (start.dtype != "bool" and value.dtype == "bool")):
            help = "start from a float (`0.0`, `float(…)`)" if is_float(value.dtype) else "a loop keeps the dtype of what it carries"
            raise error("E0203", f"`{name}` starts as {start.dtype}, but its next value is {value.dtype}", written.span, value.dtype,
                        labels=[label], help=help)
        value = cast(value, start.dtype)
        fits = value.rank == start.rank and all(
            decide(a, b) is not False and not (a.constant == 1 and a != b) for a, b in zip(value.shape, start.shape, strict=True))
        if not fits:
            before, after = ("a scalar" if not t.rank else shape_text(t.shape) for t in (start, value))
            problem = error("E0202", f"`{name}` starts as {before}, but its next value is {after}", written.span, after, labels=[label],
                            help=f"start from that shape: `zeros({', '.join(map(str, value.shape))})`"
                            if value.rank > start.rank and not any(d.anonymous for d in value.shape) else
                            "a loop keeps the shape of what it carries")
            self.concerning[problem.diagnostic] = (*start.shape, *value.shape)
            raise problem
        with self.placing(written.span):
            return self.placed(expand(value, start.shape), written.span)
