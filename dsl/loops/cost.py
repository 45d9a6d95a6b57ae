"""What a program costs, in its sizes.

In: a program.  Out: `ProgramCost`: for each kernel, each product and the statements between them what one run of it takes
and how often a call runs it, as polynomials in the sizes.

A `While` counts as one turn, so a training loop's cost is that of a step.  What stands under an `If` outside kernels is
done now and then, and not counted in the total; inside a kernel the longer branch counts.  What only the data decides (the
turns of a loop that ends early, the elements of a gather that are met twice) counts as the most that it can be, or as 1.

**Bytes** are those that have to move: of every array that a part touches each element once, however often it is read; scalars
and an iteration's private arrays are left out.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dsl.ir.types import ONE, ZERO, Dim, derived, is_float, product
from dsl.loops import ir
from dsl.machine.expr import BITS, Apply, Buffer, Const, Expr, Extent, Load, Ref, const, walk
from dsl.record import entity

MOVES = frozenset(("select", "to", "bits", "copysign", "neg", "abs"))
"""Instructions on floats that reckon nothing."""


@entity
class Cost:
    """`flops`: floating-point operations, a fused multiply-add being two; `operations`: all scalar operations; `read` and
    `written`: bytes of arrays."""

    flops: Dim
    operations: Dim
    read: Dim
    written: Dim

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.operations + other.operations, self.read + other.read, self.written + other.written)

    def times(self, count: Dim) -> Cost:
        return self if count == ONE else \
            Cost(self.flops * count, self.operations * count, self.read * count, self.written * count)


NOTHING = Cost(ZERO, ZERO, ZERO, ZERO)


@entity
class Part:
    """A kernel, a product, or all other statements (`statement` is None): `each` is the cost of one run, `times` how many runs a
    call makes, `seldom` whether only now and then."""

    name: str
    kind: str
    statement: ir.Kernel | ir.Product | None
    times: Dim
    seldom: bool
    each: Cost


@entity
class ProgramCost:
    parts: tuple[Part, ...]

    @property
    def total(self) -> Cost:
        """Of one call; a step, of a training loop."""
        total = NOTHING
        for part in self.parts:
            if not part.seldom:
                total = total + part.each.times(part.times)
        return total

    def count(self, kind: str) -> int:
        return sum(p.kind == kind for p in self.parts)


def cost(program: ir.Program) -> ProgramCost:
    walker = _Walker()
    own = walker.block(program.body, _Around())
    rest = Part("the rest", "serial", None, ONE, False, own.cost())
    return ProgramCost((*walker.parts, rest))


def operations(program: ir.Program, sizes: Mapping[str, int]) -> int:
    """Scalar operations of one call, a `While` counted as one turn, with all that is done now and then."""
    total = 0
    for part in cost(program).parts:
        times = _value(part.times, sizes)
        total += times * _value(part.each.operations, sizes)
    return total


def _value(dim: Dim, sizes: Mapping[str, int]) -> int:
    """What is not known counts as 1."""
    value = dim.evaluate(sizes)
    if value is None:
        value = dim.evaluate({**{s.name: 1 for s in dim.sizes()}, **sizes})
    return max(0, value or 0)


# ---------------------------------------------------------------- one block
Touched = dict[Buffer, set[tuple[Dim, ...]]]
"""Of an array the index sets that are met: how many places along each axis."""


@dataclass
class _Tally:
    """What statements take, as often as their loops turn."""

    flops: Dim = ZERO
    operations: Dim = ZERO
    read: Touched = field(default_factory=dict)
    written: Touched = field(default_factory=dict)

    def add(self, other: _Tally, times: Dim = ONE) -> None:
        self.flops += other.flops * times
        self.operations += other.operations * times
        self.touch(other)

    def touch(self, other: _Tally) -> None:
        for mine, theirs in ((self.read, other.read), (self.written, other.written)):
            for buffer, places in theirs.items():
                mine.setdefault(buffer, set()).update(places)

    def cost(self) -> Cost:
        return Cost(self.flops, self.operations, _bytes(self.read), _bytes(self.written))


@entity
class _Around:
    """What stands around a statement: loops with their turns, innermost last, and what its names are short for."""

    loops: tuple[tuple[str, Dim], ...] = ()
    lets: Mapping[str, Expr] = {}
    extents: Mapping[str, Expr] = {}
    times: Dim = ONE
    seldom: bool = False

    def inside(self, index: str, extent: Expr, turns: Dim) -> _Around:
        loops = (*((i, t) for i, t in self.loops if i != index), (index, turns))
        lets = {n: e for n, e in self.lets.items() if n != index}
        return _Around(loops, lets, {**self.extents, index: extent}, self.times, self.seldom)

    def merged(self, outer: str) -> _Around:
        """The loop `outer` counts once: the one inside it makes all turns of both."""
        return _Around(tuple((i, ONE if i == outer else t) for i, t in self.loops), self.lets, self.extents, self.times, self.seldom)


class _Walker:
    def __init__(self) -> None:
        self.parts: list[Part] = []

    def block(self, body: ir.Block, around: _Around) -> _Tally:
        tally = _Tally()
        flops = operations = 0                                  # of the statements that are here themselves
        lets = dict(around.lets)
        around = _Around(around.loops, lets, around.extents, around.times, around.seldom)
        for s in body:
            own = walk(ir.expressions(s))
            flops += sum(map(_flops, own))
            for e in own:
                if isinstance(e, Load):
                    self.touch(tally.read, e.buffer, e.index, around)
            match s:
                case ir.Kernel():
                    self.kernel(s, around)
                case ir.Product():
                    self.parts.append(Part(s.name, "product", s, around.times, around.seldom, _product(s)))
                case ir.Loop(index=index, extent=extent, body=inner):
                    turns, outer = _turns(extent, around)
                    around_loop = around.merged(outer) if outer else around
                    times = around.times * turns
                    if outer:                                   # the turns of both, over those of the outer one
                        whole = dict(around.loops)[outer]
                        turns = derived("floordiv", turns, whole) if False else turns
                    at = around_loop.inside(index, extent, turns)
                    inside = self.block(inner, _Around(at.loops, at.lets, at.extents, times, at.seldom))
                    tally.add(inside, turns)
                    tally.operations += turns
                case _:
                    pass
        return tally
