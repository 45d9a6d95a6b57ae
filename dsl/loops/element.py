"""One element of a graph as an expression.

In: a node of core ops and an index, one int64 expression an axis.  Out: the expression of that element.  Element-wise ops and
ops that move elements are followed to where a value is at hand: a leaf, a literal, or a node that `stored` has a buffer for.
Where the op can fault, the condition is collected in `flags`, and the element is computed with harmless operands.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dsl.ir.node import Node
from dsl.ir.types import ONE, ZERO, Dim, Shape
from dsl.loops.legalise import NotNative, counts_rows
from dsl.machine import philox
from dsl.machine.expr import Const, Expr, apply, const, extent, minimum, select
from dsl.ops.leaves import is_leaf
from dsl.ops.shape import FILL

Index = tuple[Expr, ...]
At = Callable[[Index], Expr]
NOUGHT = const(0, "int64")


class Elements:
    """`leaf` gives an element of a leaf; `stored` has the nodes whose elements are read from where they were put.

    An array may have no elements, and is read in places where that is known only while running (a part of `concat`).  It is
    then read at the very beginning, which does no harm, and `doubtful` says that what it is made of must be too."""

    def __init__(self, leaf: Callable[[Node, Index], Expr], stored: dict[Node, At]) -> None:
        self.leaf, self.stored = leaf, stored
        self.memo: dict[tuple[Node, Index, bool], Expr] = {}
        self.doubtful = False
        self.flags: dict[Expr, None] = {}

    def __call__(self, node: Node, index: Index) -> Expr:
        if node.op.name == "const":
            return const(node.attr("literal").value, node.dtype)
        key = node, index, self.doubtful
        found = self.memo.get(key)
        if found is None:
            found = self.memo[key] = self.element(node, index)
        return found

    def element(self, node: Node, index: Index) -> Expr:
        if node in self.stored:
            return self.stored[node](index)
        if is_leaf(node):
            return self.leaf(node, index)
        attrs = dict(node.attrs)
        match node.op.name:
            case "dim":
                return extent(attrs["dim"])
            case "iota":
                return index[0]
            case "draw":
                return self.draw(node, index, **attrs)
            case "reshape":
                return self(node.args[0], reshaped(index, node.shape, node.args[0].shape))
            case "transpose":
                return self(node.args[0], transposed(index, attrs["axes"]))
            case "expand":
                return self(node.args[0], narrowed(index, node.shape, node.args[0].shape))
            case "slice":
                return self(node.args[0], sliced(index, attrs["items"], self.held(node.shape)))
            case "unslice":
                return self.unslice(node, index, attrs["items"])
            case "concat":
                return self.concat(node, index, attrs["axis"])
            case "gather":
                return self.gather(node, index, attrs.get("fill", False))
            case "spread":
                return self.spread(node, index, attrs["length"], attrs["fill"])
            case "mark_if":
                return self(node.args[0], index)
        if node.op.code is None:
            raise NotNative(node.op.name)
        operands = [self(a, narrowed(index, node.shape, a.shape)) for a in node.args]
        if node.op.fault is not None:
            self.flag(node.op.fault(*operands, **attrs), node.shape)
        result: Expr = node.op.code(*operands, **attrs)
        return result

    def flag(self, condition: Expr | None, shape: Shape) -> None:
        """A fault in an element of an array of this shape."""
        if condition is not None and condition is not const(False, "bool"):
            held = self.held(shape)
            self.flags[condition if held is const(True, "bool") else held & condition] = None

    def held(self, shape: Shape) -> Expr:
        """Whether an array of this shape has elements, as far as that is in doubt here."""
        return whole(shape) if self.doubtful else const(True, "bool")

    def perhaps(self, x: Node, index: Index, axes: Sequence[int]) -> Expr:
        """An element of what may have none, by an index that is right or 0 on these axes."""
        before = self.doubtful
        self.doubtful = before or whole(x.shape) is not const(True, "bool")
        value = self(x, harmless(index, x.shape, axes))
        self.doubtful = before
        return value

    def draw(self, node: Node, index: Index, kind: str, key: int, shape: Shape, dtype: Any) -> Expr:
        step = self(node.args[0], ())
        iteration = self(node.args[1], ()) if len(node.args) > 1 else NOUGHT
        place = linear(index, shape)
        match kind:
            case "uniform":
                return philox.uniform(philox.words(key, step, iteration, place), dtype)
            case "normal":
                return philox.normal(philox.words(key, step, iteration, place), dtype)
            case _:
                raise NotNative(kind)

    def unslice(self, node: Node, index: Index, items: Sequence[tuple[Dim, Dim, int]]) -> Expr:
        """0 but in the places that the slice takes."""
        (x,) = node.args
        lead = len(index) - len(items)
        places = list(index[:lead])
        inside: Expr = const(True, "bool")
        for i, (start, length, step) in zip(index[lead:], items):
            if step == 1 and start == ZERO and length == node.shape[lead + len(places) - lead]:
                places.append(i)
                continue
            offset = i - extent(start)
            if step < 0:
                offset = -offset
            count = offset if abs(step) == 1 else apply("idiv", offset, const(abs(step), "int64"))
            held = (offset >= 0) & (count < extent(length))
            if abs(step) != 1:
                held = held & (count * abs(step)).eq(offset)
            inside = held if inside is const(True, "bool") else inside & held
            places.append(select(held, count, NOUGHT))
        value = self.perhaps(x, tuple(places), range(lead, len(places)))
        return select(inside & whole(x.shape), value, const(0, value.dtype))

    def concat(self, node: Node, index: Index, axis: int) -> Expr:
        """The part whose range the index is in."""
        place = index[axis]
        result: Expr | None = None
        start: Dim = ZERO
        for x in node.args:
            length = x.shape[axis]
            here = list(index)
            if isinstance(place, Const) and start.known is not None and length.known is not None:     # it is known which part it is in
                if start.known <= place.value < start.known + length.known:
                    here[axis] = const(place.value - start.known, "int64")
                    return self(x, tuple(here))
                if x is not node.args[-1]:
                    start = start + length
                    continue
            low = extent(start)
            inside = (place >= low) & (place < extent(start + length))
            here[axis] = select(inside, place - low, NOUGHT)
            value = self.perhaps(x, tuple(here), [axis + node.rank])
            result = value if result is None else select(inside & whole(x.shape), value, result)
            start = start + length
        assert result is not None
        return result

    def gather(self, node: Node, index: Index, fill: bool) -> Expr:
        x, *indices = node.args
        rank = max((i.rank for i in indices), default=0)
        lead = node.shape[:rank]
        places: list[Expr] = []
        doubtful: list[int] = []
        dead: Expr = const(False, "bool")
        for axis, picked in enumerate(indices):
            i = self(picked, narrowed(index[:rank], lead, picked.shape)).to("int64")
            n = extent(x.shape[axis])
            if counts_rows(picked, x.shape[axis]):
                places.append(i)
                continue
            doubtful.append(axis)
            place, _, bad = counted(i, n, fill)
            if fill:
                skipped = i.eq(FILL)
                dead = skipped if dead is const(False, "bool") else dead | skipped
            self.flag(bad, node.shape)
            places.append(place)
        value = self.perhaps(x, (*places, *index[rank:]), doubtful)
        return select(dead, const(0, value.dtype), value) if fill else value

    def spread(self, node: Node, index: Index, length: Dim, fill: bool) -> Expr:
        """x[i] in its column, 0 in the others."""
        i, n = self(node.args[1], index[:-1]).to("int64"), extent(length)
        place, outside, bad = counted(i, n, fill)
        self.flag(bad, node.shape)
        value = self(node.args[0], index[:-1])
        return select(place.eq(index[-1]) & ~outside, value, const(0, value.dtype))


# ---------------------------------------------------------------- where an element comes from
def counted(i: Expr, n: Expr, fill: bool) -> tuple[Expr, Expr, Expr]:
    """The place of index `i` in an axis of `n` elements, a negative one counted from the end; whether there is none (then it is
    0); whether that is a fault, which with `fill` it is not for a lane that is not taken."""
    outside = (i < -n) | (i >= n)
    return select(outside, NOUGHT, select(i < 0, i + n, i)), outside, outside & i.ne(FILL) if fill else outside


def whole(shape: Shape) -> Expr:
    """Whether an array of this shape has an element to read."""
    result: Expr = const(True, "bool")
    for n in shape:
        if n.known is None or n.known == 0:
            some = extent(n) > 0
            result = some if result is const(True, "bool") else result & some
    return result


def harmless(index: Index, shape: Shape, doubtful: Sequence[int]) -> Index:
    """An index that is 0 on `doubtful` axes if they have no elements; then it is 0 on the axes after them too, so that it
    means the very beginning of the array, where a load does no harm."""
    result = list(index)
    for axis in range(len(index)):
        held = whole(tuple(shape[a] for a in doubtful if a < axis))
        if held is not const(True, "bool"):
            result[axis] = select(held, index[axis], NOUGHT)
    return tuple(result)


def narrowed(index: Index, shape: Shape, inner: Shape) -> Index:
    """The index into an operand of shape `inner` that is broadcast to `shape`."""
    result: list[Expr] = []
    for i, n, m in zip(index[len(shape) - len(inner):], shape[len(shape) - len(inner):], inner):
        if m == ONE:
            result.append(NOUGHT)
        elif m == n or not m.anonymous:
            result.append(i)
        else:
            result.append(i * minimum(extent(m) - 1, 1))            # an anonymous length may be 1: then element 0 serves all
    return tuple(result)


def transposed(index: Index, axes: tuple[int, ...]) -> Index:
    lead = len(index) - len(axes)
    result = list(index)
    for place, a in enumerate(axes):
        result[len(index) + a] = index[lead + place]
    return tuple(result)


def sliced(index: Index, items: Sequence[tuple[Dim, Dim, int]], held: Expr) -> Index:
    """The index into what is sliced; 0 if the slice has no elements (not `held`), as `index` is then."""
    lead = len(index) - len(items)
    result: list[Expr] = list(index[:lead])
    for i, (start, _, step) in zip(index[lead:], items):
        place = i * step + extent(start)
        result.append(place if held is const(True, "bool") or start == ZERO else select(held, place, NOUGHT))
    return tuple(result)


def linear(index: Index, shape: Shape) -> Expr:
    """The place of an element in row-major order."""
    place: Expr = NOUGHT
    for i, n in zip(index, shape):
        place = i if place is NOUGHT else place * extent(n) + i
    return place


def unravelled(place: Expr, shape: Shape) -> Index:
    result: list[Expr] = []
    for n in reversed(shape[1:]):
        length = apply("maximum", extent(n), const(1, "int64"))
        result.append(apply("irem", place, length))
        place = apply("idiv", place, length)
    return (place, *reversed(result)) if shape else ()


def reshaped(index: Index, shape: Shape, inner: Shape) -> Index:
    """The index into shape `inner` of the element at `index` of `shape`: axes that stay are kept as they are."""
    result: list[Expr] = []
    outer = [(i, n) for i, n in zip(index, shape) if n != ONE]
    places = [n for n in inner if n != ONE]
    found: list[Expr] = []
    while outer or places:
        if outer and places and outer[0][1] == places[0]:
            found.append(outer.pop(0)[0])
            places.pop(0)
            continue
        taken, left, right = [outer.pop(0)] if outer else [], [places.pop(0)] if places else [], True
        while right:
            size, goal = _product(n for _, n in taken), _product(left)
            if size == goal or not (outer or places):
                right = False
            elif outer and (not places or _divides(size, goal) or not _divides(goal, size)):
                taken.append(outer.pop(0))
            else:
                left.append(places.pop(0))
        found.extend(unravelled(linear(tuple(i for i, _ in taken), tuple(n for _, n in taken)), tuple(left)))
    for n in inner:
        result.append(NOUGHT if n == ONE else found.pop(0))
    return tuple(result)


def _product(dims: Any) -> Dim:
    total = ONE
    for n in dims:
        total = total * n
    return total


def _divides(a: Dim, b: Dim) -> bool:
    """Whether the length `b` is `a` times something, as far as can be seen."""
    if a.constant is not None and b.constant is not None:
        return a.constant != 0 and b.constant % a.constant == 0
    if len(a.terms) != 1 or len(b.terms) != 1:
        return False
    (ma, ca), (mb, cb) = a.terms[0], b.terms[0]
    rest = list(mb)
    for atom in ma:
        if atom not in rest:
            return False
        rest.remove(atom)
    return ca != 0 and cb % ca == 0
