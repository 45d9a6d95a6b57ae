"""Ops and nodes.

In: types.  Out: `Op`, one row of the op table; `Node`, an application of one, hash-consed so that equal nodes are the
same object (common subexpressions are free, `is` is equality); graph walks and substitution that every pass uses.

Operands are positional arrays; everything else is an attribute.  Where a node was written and what it is called are not
part of it: `Origins` holds them beside the graph.
"""
from __future__ import annotations

import struct
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from dsl.errors import Span
from dsl.ir.types import ArrayType, Dim, DType, Requirement, Shapes, TypeFault, is_float
from dsl.record import entity, record

Attrs = tuple[tuple[str, Any], ...]


class Algebra:
    """Python's operators over nodes and patterns, so that a derivative or a rule reads as mathematics."""

    __slots__ = ()

    def __add__(self, other: Any) -> Any:
        return TABLE["add"](self, other)

    def __radd__(self, other: Any) -> Any:
        return TABLE["add"](other, self)

    def __sub__(self, other: Any) -> Any:
        return TABLE["sub"](self, other)

    def __rsub__(self, other: Any) -> Any:
        return TABLE["sub"](other, self)

    def __mul__(self, other: Any) -> Any:
        return TABLE["mul"](self, other)

    def __rmul__(self, other: Any) -> Any:
        return TABLE["mul"](other, self)

    def __truediv__(self, other: Any) -> Any:
        return TABLE["div"](self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return TABLE["div"](other, self)

    def __pow__(self, other: Any) -> Any:
        return TABLE["pow"](self, other)

    def __neg__(self) -> Any:
        return TABLE["neg"](self)

    def __lt__(self, other: Any) -> Any:
        return TABLE["lt"](self, other)

    def __le__(self, other: Any) -> Any:
        return TABLE["le"](self, other)

    def __gt__(self, other: Any) -> Any:
        return TABLE["gt"](self, other)

    def __ge__(self, other: Any) -> Any:
        return TABLE["ge"](self, other)

    def __and__(self, other: Any) -> Any:
        return TABLE["and"](self, other)

    def __or__(self, other: Any) -> Any:
        return TABLE["or"](self, other)

    def __invert__(self) -> Any:
        return TABLE["not"](self)


TABLE: dict[str, Op] = {}
"""Every op by name; filled while `dsl.ops` is imported, closed after."""


@entity
class Op:
    """One op, one row: all that any stage needs to know of it.

    infer(shapes, *types, **attrs)   the result's type; also the verifier.  Raises `TypeFault`.
    numpy(*arrays, **attrs)          the reference meaning.  Lengths in attrs arrive as ints.
    partials(y, *xs)                 element-wise ops: dy/dx for each operand, None where it is zero everywhere.
    vjp(g, y, *xs, **attrs)          other ops: the cotangent of each operand, None where there is none.
    coerce(args, precision)          numbers and mixed dtypes to operands of the dtypes it takes.
    batch(args, mapped, length, **attrs)   the op over one more leading axis (see `dsl/passes/batch.py`).
    means(*xs, **attrs)              the definition in simpler ops; None for a primitive.
    live(mask, y, *xs, **attrs)      which elements of each operand an output mask leaves in use; None: all of them.
    code(*xs, **attrs)               element-wise primitives: the value as a scalar expression (`dsl/machine`) over operands
                                     of the row's dtypes, defined and harmless for every operand.
    fault(*xs, **attrs)              where the op faults, as a bool expression over the same operands; None: nowhere.
    ulp                              the largest error of `code` in units in the last place, for float32 and float64.
    structural                       only moves elements: a live mask takes the way of a cotangent.
    unit                             the value of an empty reduction.
    domain                           where random samples for tests are drawn from.
    symbol                           the operator it is printed as, with its binding power.
    """

    name: str
    operands: tuple[str, ...]
    doc: str
    infer: Callable[..., ArrayType]
    numpy: Callable[..., Any] | None = None
    partials: Callable[..., Sequence[Any]] | None = None
    vjp: Callable[..., Sequence[Any]] | None = None
    coerce: Callable[..., list[Any]] | None = None
    batch: Callable[..., Any] | None = None
    means: Callable[..., Any] | None = None
    live: Callable[..., Sequence[Any]] | None = None
    code: Callable[..., Any] | None = None
    fault: Callable[..., Any] | None = None
    ulp: tuple[float, float] | None = None
    elementwise: bool = False
    structural: bool = False
    commutative: bool = False
    unit: float | int | bool | None = None
    domain: tuple[float, float] = (-3.0, 3.0)
    symbol: tuple[str, int] | None = None
    surface: bool = False

    def __call__(self, *args: Any, precision: DType = "float64", **attrs: Any) -> Any:
        """The node (or, over patterns, the pattern) of this op; operands may be Python numbers."""
        if any(isinstance(a, Pattern) for a in args):
            return Pattern(self, args, tuple(sorted(attrs.items())))
        operands = self.coerce(args, precision) if self.coerce else args
        return make(self, operands, attrs)

    def __repr__(self) -> str:
        return self.name


@record
class Pattern(Algebra):
    """One side of a rewrite rule: an op over patterns and numbers, or (op None) a variable that matches any node."""

    op: Op | None
    args: tuple[Any, ...] = ()
    attrs: Attrs = ()
    name: str = ""


@entity
class Node(Algebra):
    """`op(args; attrs) : type`; made by `make` only."""

    op: Op
    args: tuple[Node, ...]
    attrs: Attrs
    type: ArrayType
    __slots__ = ("__weakref__", "args", "attrs", "op", "type")

    @property
    def shape(self) -> tuple[Dim, ...]:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def rank(self) -> int:
        return len(self.type.shape)

    def attr(self, name: str) -> Any:
        return dict(self.attrs)[name]

    def __repr__(self) -> str:
        attrs = "".join(f", {k}={v}" for k, v in self.attrs)
        return f"{self.op.name}({', '.join(a.op.name for a in self.args)}{attrs}) : {self.type}"


@entity
class Literal:
    """A scalar constant; floats are the same only if all their bits are, so -0.0 and every NaN keep their identity."""

    value: bool | int | float
    dtype: DType

    @property
    def key(self) -> tuple[str, object]:
        return self.dtype, struct.pack("<d", self.value) if is_float(self.dtype) else self.value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Literal) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __str__(self) -> str:
        return repr(self.value)


_interned: WeakValueDictionary[tuple[Op, tuple[Node, ...], Attrs], Node] = WeakValueDictionary()
_making = RLock()
"""Two threads that make equal nodes at once get one object."""


def make(op: Op, args: Iterable[Node] = (), attrs: Mapping[str, Any] | Attrs = ()) -> Node:
    """The node of `op` over `args`; its type is inferred.  Raises `TypeFault`."""
    pairs = tuple(sorted(attrs.items() if isinstance(attrs, Mapping) else attrs))
    operands = tuple(args)
    key = (op, operands, pairs)
    found = _interned.get(key)
    if found is None:
        node_type = op.infer(Shapes(), *[a.type for a in operands], **dict(pairs))
        with _making:
            found = _interned.get(key)
            if found is None:
                found = _interned[key] = Node(op, operands, pairs, node_type)
    return found


def requirements(node: Node) -> list[Requirement]:
    """What must hold of this node's sizes once they are known."""
    shapes = Shapes()
    node.op.infer(shapes, *[a.type for a in node.args], **dict(node.attrs))
    return shapes.requirements


def verify(roots: Iterable[Node]) -> None:
    """Infer every node's type again; raises AssertionError where a pass has left a node of another type."""
    for node in everything(roots):
        inferred = node.op.infer(Shapes(), *[a.type for a in node.args], **dict(node.attrs))
        assert inferred == node.type, f"{node} should be {inferred}"


# ---------------------------------------------------------------- walks
def topological(roots: Iterable[Node], known: Container[Node] = ()) -> list[Node]:
    """Every node the roots reach, operands before users, without recursion.  What is `known` is left out, and what only it
    reaches: so that a pass that comes back to a graph again and again takes no more than linear time."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(r, False) for r in reversed(list(roots))]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen and node not in known:
            seen.add(node)
            stack.append((node, True))
            stack.extend((a, False) for a in reversed(node.args) if a not in seen)
    return order


def inner_graphs(node: Node) -> tuple[Node, ...]:
    """The graphs an op holds as attributes (the body of a loop).  They are closed: what they read from outside is an operand
    of the node, and stands in them as a placeholder leaf, so that no walk of the outer graph needs to enter them."""
    for name, value in node.attrs:
        if name == "body":
            return tuple(value)
    return ()


def everything(roots: Iterable[Node]) -> list[Node]:
    """Every node the roots reach, those inside the graphs that ops hold included."""
    order: dict[Node, None] = {}
    waiting = [tuple(roots)]
    while waiting:
        for node in topological(waiting.pop()):
            if node not in order:
                order[node] = None
                if inner := inner_graphs(node):
                    waiting.append(inner)
    return list(order)


Graphs = Callable[[Sequence["Node"]], Sequence["Node"]]


def remade(node: Node, args: tuple[Node, ...], inside: Graphs | None = None) -> Node:
    """The node over other operands, the graphs that it holds changed by `inside`."""
    attrs = node.attrs
    if inside is not None and (body := inner_graphs(node)):
        changed = tuple(inside(body))
        if changed != body:
            attrs = tuple((k, changed if k == "body" else v) for k, v in attrs)
    return node if args == node.args and attrs == node.attrs else make(node.op, args, attrs)


def once(inside: Graphs) -> Graphs:
    """The same change of graphs, made once for each: every output of a loop holds the same body."""
    known: dict[tuple[Node, ...], Sequence[Node]] = {}

    def change(body: Sequence[Node]) -> Sequence[Node]:
        key = tuple(body)
        if key not in known:
            known[key] = inside(body)
        return known[key]
    return change


def reaches(roots: Iterable[Node], targets: Iterable[Node]) -> set[Node]:
    """The nodes on the way from the roots to any of the targets, both ends included."""
    wanted = set(targets)
    found: set[Node] = set()
    for node in topological(roots):
        if node in wanted or any(a in found for a in node.args):
            found.add(node)
    return found


def substitute_attr(value: Any, sizes: Mapping[str, Dim], origins: Origins | None = None) -> Any:
    match value:
        case Dim():
            return value.substitute(sizes)
        case ArrayType():
            return value.substitute(sizes)
        case tuple():
            if value and isinstance(value[0], Node):
                return tuple(substitute(value, {}, sizes, origins))
            return tuple(substitute_attr(v, sizes, origins) for v in value)
        case _:
            return value


def substitute(roots: Sequence[Node], replacement: Mapping[Node, Node], sizes: Mapping[str, Dim] | None = None,
               origins: Origins | None = None) -> list[Node]:
    """The graphs with nodes and sizes replaced; every type on the way is inferred again.  Raises `TypeFault`."""
    new: dict[Node, Node] = dict(replacement)
    for node in topological(roots):
        if node in new:
            continue
        args = tuple(new[a] for a in node.args)
        attrs = tuple((k, substitute_attr(v, sizes, origins)) for k, v in node.attrs) if sizes and node.attrs else node.attrs
        if args == node.args and attrs == node.attrs:
            new[node] = node
        else:
            try:
                new[node] = make(node.op, args, attrs)
            except TypeFault as fault:
                if origins is not None and fault.span is None:
                    fault.span = origins.span(node)
                raise
            if origins is not None:
                origins.inherit(new[node], node)
    return [new[r] for r in roots]


# ---------------------------------------------------------------- where nodes come from
class Origins:
    """Beside the graph: where each node was written.  The first place recorded wins; passes hand it on."""

    def __init__(self) -> None:
        self._spans: WeakKeyDictionary[Node, Span] = WeakKeyDictionary()

    def __contains__(self, node: object) -> bool:
        return node in self._spans

    def record(self, node: Node, span: Span | None) -> None:
        if span is not None and node not in self._spans:
            self._spans[node] = span

    def inherit(self, new: Node, old: Node) -> None:
        if new is not old and new not in self._spans and old in self._spans:
            self._spans[new] = self._spans[old]

    def span(self, node: Node) -> Span | None:
        return self._spans.get(node)


