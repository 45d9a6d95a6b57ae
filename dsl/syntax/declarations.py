"""Declarations: `dim`, inputs, `shared`.

In: their AST.  Out: names bound to sizes and leaves, and the starting values of shared variables.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dsl.errors import did_you_mean, error
from dsl.ir.node import Node, topological
from dsl.ir.types import (
    ArrayType,
    Dim,
    DType,
    Shape,
    Size,
    TypeFault,
    is_float,
    is_int,
    shape_text,
)
from dsl.ops.build import as_dim, dim_node
from dsl.ops.leaves import is_leaf, leaf, leaf_name
from dsl.ops.shape import dim, expand, reshape
from dsl.ops.table import cast
from dsl.syntax import ast, program
from dsl.syntax.data import Data
from dsl.syntax.expressions import literal_int
from dsl.syntax.faults import CONSTANTS, not_built
from dsl.syntax.names import names_in
from dsl.syntax.values import (
    Host,
    SizeFact,
    Symbol,
)

DTYPE_WORDS: dict[str, DType | None] = {"bool": "bool", "int": "int64", "int64": "int64", "int32": "int32",
                                        "float": None,
                                        "float32": "float32", "float64": "float64"}
RANKS = {"scalar": 0, "vector": 1, "matrix": 2}


class Declarations(Data):
    def __init__(self, host: Host, rebind: bool) -> None:
        super().__init__(host, rebind)
        self.overrides: dict[str, str] = {}
        """What `--set` gives, by name."""
        self.used_overrides: set[str] = set()

    def dim_item(self, item: ast.DimItem) -> None:
        name, value = item.name.id, None
        if name in self.overrides:
            value = self.override(item.name, item.value, integer=True)
        elif item.value is not None:
            self.in_data = True
            try:
                with self.placing(item.value.span):
                    length = as_dim(self.node(item.value))
            finally:
                self.in_data = False
            value = length.known
            if value is None and not any(not s.named for s in length.sizes()):
                fact = length.evaluate({n: f.value for n, f in self.sizes.items()})
                value = fact
            if value is None and not length.anonymous:
                raise error("E0208", "the value of this dim is not known yet", item.value.span, str(length),
                            help="a `dim` is fixed by literals, by `data`, or left open: `dim n`")
        if value is not None and value < 0:
            raise error("E0208", f"a size is not negative: {value}", item.value.span if item.value else item.name.span)
        size = Size(name, True, value)
        if value is not None:
            self.sizes[name] = SizeFact(value, f"`dim {name}`, line {item.name.span.line}")
        self.scope.maps[0][name] = Symbol(name, "dim", dim_node(Dim.of(size)) if value is None
                                          else self._fixed_dim(size), item.name.span)

    def _fixed_dim(self, size: Size) -> Node:
        result: Node = dim(dim=Dim.of(size))
        return result

    def shape_of(self, items: Sequence[ast.Expr]) -> Shape:
        """A declared shape; a name that is not bound yet becomes a dim."""
        for item in items:
            for name in names_in(item):
                if name.id not in self.scope and name.id not in CONSTANTS:
                    self.scope.maps[0][name.id] = Symbol(name.id, "dim", dim_node(Dim.of(Size(name.id))), name.span)
        lengths = []
        for item in items:
            with self.placing(item.span):
                length = as_dim(self.node(item))
            if length.constant is not None and length.constant < 0:
                raise error("E0208", f"a length is not negative: {length}", item.span)
            lengths.append(length)
        return tuple(lengths)

    def dtype_of(self, word: ast.Ident | None) -> DType:
        if word is None:
            return self.precision
        if word.id not in DTYPE_WORDS:
            near = did_you_mean(word.id, DTYPE_WORDS)
            raise error("E0509", f"no dtype `{word.id}`", word.span, help=f"did you mean `{near}`?" if near else None)
        dtype = DTYPE_WORDS[word.id] or self.precision
        if is_float(dtype) and dtype != self.precision:
            raise error("E0509", f"a script has one float: {self.precision}", word.span, dtype,
                        help=f"write `precision {dtype}` at the top of the script")
        return dtype

    def input_item(self, statement: ast.Input, item: ast.InputItem) -> None:
        dtype = self.dtype_of(statement.dtype)
        rank = RANKS.get(statement.kind)
        if item.shape is not None:
            if rank is not None and len(item.shape) != rank:
                kind = next((k for k, r in RANKS.items() if r == len(item.shape)), "tensor")
                raise error("E0212",
                            f"a {statement.kind} has {rank} size{'' if rank == 1 else 's'}, not {len(item.shape)}",
                            item.span,
                            help=f"write `{kind} {item.name.id}[{', '.join(e.span.text for e in item.shape)}]`")
            shape = self.shape_of(item.shape)
        elif rank is None:
            raise error("E0212", "a tensor needs its sizes", item.span, help=f"write `tensor {item.name.id}[n, h, w]`")
        else:
            shape = tuple(self.anonymous(item.name.id) for _ in range(rank))
        node = leaf("input", item.name.id, ArrayType(dtype, shape), self.next_generation(item.name.id))
        self.bind(item.name, "input", node)

    def shared_item(self, statement: ast.Shared, item: ast.SharedItem) -> program.Item:
        if item.constraints:
            raise not_built(item.constraints[0].span, "constraints of shared variables")
        dtype = self.dtype_of(statement.dtype) if statement.dtype else None
        self.statement_name, self.draws = item.name.id, 0
        shape = self.shape_of(item.shape) if item.shape is not None else None
        self.declared_shape = shape
        self.starts[item.name.id] = item.value.span.text
        start = self.as_node(self.value(item.value), item.value)
        if statement.dtype is None:
            start = self.float_literal(item.value, start)                              # type: ignore[assignment]
            dtype = start.dtype
        assert dtype is not None and isinstance(start, Node)
        if is_int(dtype) and is_float(start.dtype):
            raise error("E0203", f"`{item.name.id}` is {dtype}, but starts from a {start.dtype}", item.value.span,
                        help="write a whole number, or convert with `int(…)`")
        start = cast(start, dtype)
        for part in topological([start]):
            if is_leaf(part, "input"):
                raise error("E0512", f"the start of `{item.name.id}` may not read the input `{leaf_name(part)}`",
                            item.value.span)
        if shape is not None:
            start = self.start_in_shape(item, start, shape)
        for length in start.shape:
            for size in length.sizes():
                if size.named:
                    self.model_dims.add(size.name)
                    if size.name in self.seen_sizes and size.name not in self.sizes and size.value is None:
                        self.sizes[size.name] = self.seen_sizes[size.name]
        node = leaf("shared", item.name.id, start.type, self.next_generation(item.name.id))
        self.bind(item.name, "shared", node)
        return program.SharedState(item.span, item.name.id, node, start)

    def start_in_shape(self, item: ast.SharedItem, start: Node, shape: Shape) -> Node:
        for want, have in zip(reversed(shape), reversed(start.shape), strict=False):
            size = want.bare
            if size and size.named and size.value is None and have.constant not in (None, 1):
                fact = self.sizes.setdefault(size.name,
                                             SizeFact(have.constant or 0, f"{item.name.id}, line {item.span.line}"))
                if fact.value != have.constant:
                    raise error("E0211", f"`{item.name.id}` needs {size.name} = {fact.value}, but its start has {have}",
                                item.value.span,
                                f"{size.name} = {fact.value} from {fact.origin}")
                start = expand_known(start, have, want)
        try:
            return expand(start, shape)
        except TypeFault as fault:
            problem = error("E0202", f"`{item.name.id}` is declared {shape_text(shape)}, but starts from "
                            f"{shape_text(start.shape)}", item.value.span, fault.detail,
                            help="give a start of that shape, or a scalar for every element")
            self.concerning[problem.diagnostic] = shape
            raise problem from None

    def override(self, name: ast.Ident, value: ast.Expr | None, integer: bool = False) -> Any:
        """The value `--set name=value` gives, for a name bound to a literal."""
        text = self.overrides[name.id]
        literal = value is not None and (literal_int(value) is not None or isinstance(value, ast.Number | ast.Boolean)
                                         or
                                         (isinstance(value, ast.Unary) and isinstance(value.operand, ast.Number)))
        if not literal and not (integer and value is None):
            raise error("E0901", f"`--set {name.id}=…` needs a `let` or `dim` with a literal value", name.span,
                        "not a literal here")
        self.used_overrides.add(name.id)
        try:
            return int(text) if integer else text == "true" if isinstance(value, ast.Boolean) else float(text)
        except ValueError:
            raise error("E0901", f"`--set {name.id}={text}` is not a {'whole number' if integer else 'number'}",
                        name.span) from None


def expand_known(start: Node, have: Dim, want: Dim) -> Node:
    """A start of literal length, given the name of the dim that it fixes."""
    shape = tuple(want if d == have else d for d in start.shape)
    result: Node = reshape(start, shape=shape)
    return result
