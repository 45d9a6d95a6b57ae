"""What a program costs, in its sizes.

In: a program.  Out: `ProgramCost`: for each kernel, each product and the statements between them what one run of it takes
and how often a call runs it, as polynomials in the sizes.

A `While` counts as one turn, so a training loop's cost is that of a step.  What stands under an `If` outside kernels is done
now and then, and not counted in the total; inside a kernel the longer branch counts.  The turns of a loop that are computed
count as their bound, under the name of a scalar if they are one, or as 1; what a sum in blocks does once a block is left out.

**Bytes** are those that have to move: of every array that a part touches each element once, however often it is met (where
views of one length overlap, as many as one of them has); scalars and an iteration's private arrays are left out.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dsl.ir.types import ONE, ZERO, Dim, DType, Size, derived, is_float, product
from dsl.loops import ir
from dsl.machine.expr import Apply, Buffer, Const, Expr, Extent, Load, Ref, load, walk
from dsl.record import entity

MOVES = frozenset(("select", "to", "bits", "copysign", "neg", "abs"))
"""Instructions on floats that reckon nothing."""
SMALLEST_BLOCK = 64
WIDTH: dict[DType, int] = {"bool": 1, "int32": 4, "int64": 8, "float32": 4, "float64": 8}


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
        return self if count == ONE else Cost(self.flops * count, self.operations * count, self.read * count, self.written * count)


@entity
class Part:
    """A kernel, a product, or all other statements (`statement` is None): `each` is the cost of one run, `times` how many runs a
    call makes, `turning` whether it is in a `While`, `seldom` whether only now and then."""

    name: str
    kind: str
    statement: ir.Kernel | ir.Product | None
    times: Dim
    turning: bool
    seldom: bool
    each: Cost


@entity
class ProgramCost:
    parts: tuple[Part, ...]

    @property
    def total(self) -> Cost:
        """Of one call."""
        total = Cost(ZERO, ZERO, ZERO, ZERO)
        for part in self.parts:
            if not part.seldom:
                total = total + part.each.times(part.times)
        return total

    @property
    def step(self) -> ProgramCost:
        """Of a turn of its `While`."""
        return ProgramCost(tuple(p for p in self.parts if p.turning))

    def count(self, kind: str) -> int:
        return sum(p.kind == kind for p in self.parts)


def cost(program: ir.Program) -> ProgramCost:
    walker, around = _Walker(), _Tally()
    walker.block(program.body, _Around({}, {}, {}), around)
    rest = [Part("the rest", "statements", None, ONE, turning, False, tally.cost())
            for tally, turning in ((walker.turn, True), (around, False)) if tally.operations != ZERO]
    return ProgramCost((*walker.parts, *rest))


def operations(program: ir.Program, sizes: Mapping[str, int]) -> int:
    """Scalar operations of one call, a `While` counted as one turn, and all that is done now and then as done."""
    return sum(value(p.times, sizes) * value(p.each.operations, sizes) for p in cost(program).parts)


def value(dim: Dim, sizes: Mapping[str, int]) -> int:
    """A polynomial's value; a size that is not known counts as 1."""
    found = dim.evaluate(sizes)
    if found is None:
        found = dim.evaluate({**{s.name: 1 for s in dim.sizes() if s.value is None}, **sizes})
    return max(0, found or 0)


# ---------------------------------------------------------------- one part
Places = tuple[Dim, ...]
"""How many places an index takes along each axis."""


@entity
class _Around:
    """What stands around a statement: the loops of its part with their turns, innermost last; what names are short for; which
    loops go over blocks, and of how many rows; whether there is a `While`; and whether it is done only now and then."""

    loops: dict[str, Dim]
    lets: dict[str, Expr]
    blocks: dict[str, int]
    turning: bool = False
    seldom: bool = False

    @property
    def times(self) -> Dim:
        return product(self.loops.values())

    def named(self, name: str, value: Expr | None) -> _Around:
        lets = {n: e for n, e in self.lets.items() if n != name}
        return replace(self, lets=lets if value is None else {**lets, name: value})


class _Tally:
    """What the statements of one part take."""

    def __init__(self) -> None:
        self.flops = self.operations = ZERO
        self.read: dict[Buffer, set[Places]] = {}
        self.written: dict[Buffer, set[Places]] = {}

    def cost(self) -> Cost:
        return Cost(self.flops, self.operations, _bytes(self.read), _bytes(self.written))


class _Walker:
    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.turn = _Tally()
        self.in_kernel = False

    def block(self, body: ir.Block, around: _Around, tally: _Tally, totals: frozenset[Buffer] = frozenset()) -> None:
        flops = operations = 0
        for s in body:
            own = walk(ir.expressions(s))
            flops += sum(map(_flops, own))
            operations += sum(isinstance(e, Apply) for e in own) + 1
            for e in own:
                if isinstance(e, Load):
                    _touch(tally.read, e, around)
            match s:
                case ir.Let(name, value):
                    around = around.named(name, value)
                case ir.Local(name=name):
                    around = around.named(name, None)
                case ir.Store(buffer, index, _):
                    _touch(tally.written, load(buffer, index), around)
                case ir.Combine(target, _, value):
                    flops += is_float(value.dtype)
                    if isinstance(target, Load):
                        _touch(tally.written, target, around)
                        if target.buffer not in totals:
                            _touch(tally.read, target, around)
                case ir.Loop(index, extent, inner):
                    self.block(inner, _entered(index, extent, around), tally, totals)
                case ir.While(body=inner):
                    self.block(inner, replace(around, turning=True), tally if self.in_kernel else self.turn, totals)
                case ir.If(body=inner, orelse=orelse, seldom=seldom):
                    self.branches(() if seldom else inner, orelse, around, tally, totals)
                case ir.Kernel():
                    self.kernel(s, around)
                case ir.Product():
                    self.parts.append(Part(s.name, "product", s, around.times, around.turning, around.seldom, _product(s)))
                case _:
                    pass
        if not (around.loops and next(reversed(around.loops)) in around.blocks):
            tally.flops += around.times * flops
            tally.operations += around.times * operations

    def branches(self, body: ir.Block, orelse: ir.Block, around: _Around, tally: _Tally, totals: frozenset[Buffer]) -> None:
        """Inside a kernel the longer branch counts; outside, both are done now and then."""
        inner = around if self.in_kernel else replace(around, seldom=True)
        taken = [_Tally(), _Tally()]
        for branch, part in zip((body, orelse), taken):
            self.block(branch, inner, part, totals)
            if self.in_kernel:
                _merge(tally.read, part.read)
                _merge(tally.written, part.written)
        if self.in_kernel:
            tally.flops += _larger(taken[0].flops, taken[1].flops)
            tally.operations += _larger(taken[0].operations, taken[1].operations)

    def kernel(self, s: ir.Kernel, around: _Around) -> None:
        tally, totals = _Tally(), frozenset(t.buffer for t in s.totals)
        alone = _Around({}, around.lets, {})
        self.in_kernel = True
        self.block(s.body, _entered(s.index, s.extent, alone), tally, totals)
        self.in_kernel = False
        self.parts.append(Part(s.name, "kernel", s, around.times, around.turning, around.seldom, tally.cost()))


def _flops(e: Expr) -> int:
    match e:
        case Apply(op, args, dtype):
            return 0 if op in MOVES or not is_float(dtype if dtype != "bool" else args[0].dtype) else 2 if op == "fma" else 1
        case _:
            return 0


def _product(p: ir.Product) -> Cost:
    work = product(p.out.shape) * p.a.shape[0 if p.a_transposed else 1] * 2
    return Cost(work, work, _size(p.a) if p.a is p.b else _size(p.a) + _size(p.b), _size(p.out))


def _size(b: Buffer) -> Dim:
    return product(b.shape) * WIDTH[b.dtype]


def _larger(a: Dim, b: Dim) -> Dim:
    return a if _at_least(a, b) else b if _at_least(b, a) else derived("max", a, b)


def _at_least(a: Dim, b: Dim) -> bool:
    """Whether a >= b, whatever the sizes are."""
    return derived("max", a - b, ZERO) == a - b


# ---------------------------------------------------------------- loops
def _entered(index: str, extent: Expr, around: _Around) -> _Around:
    """Inside a loop.  The rows of a block and the blocks are one loop over all rows: the blocks themselves count for nothing."""
    loops = {i: t for i, t in around.loops.items() if i != index}
    blocks = {i: b for i, b in around.blocks.items() if i != index}
    lets = {n: e for n, e in around.lets.items() if n != index}
    match extent:
        case Apply("idiv", (_, Const(int() as size))) if size >= SMALLEST_BLOCK:
            loops[index], blocks[index] = ONE, size
        case Apply("minimum", (Apply("sub", (whole, Ref() as start)), Const(int() as size))) if _begins_a_block(start, size, around):
            loops[index] = _turns(whole, around)
        case _:
            loops[index] = _turns(extent, around)
    return _Around(loops, lets, blocks, around.turning, around.seldom)


def _begins_a_block(start: Ref, size: int, around: _Around) -> bool:
    match around.lets.get(start.name):
        case Apply("mul", (Ref(name), Const(value))):
            return value == size == around.blocks.get(name)
        case _:
            return False


def _turns(e: Expr, around: _Around) -> Dim:
    """The value of an extent."""
    match e:
        case Const(value):
            return Dim.of(int(value))
        case Extent(dim):
            return dim
        case Ref(name) if name in around.lets:
            return _turns(around.lets[name], around)
        case Ref(name):
            return around.loops[name] if name in around.loops else Dim.of(Size(name))
        case Apply("add", (a, b)):
            return _turns(a, around) + _turns(b, around)
        case Apply("sub", (a, b)):
            return _turns(a, around) - _turns(b, around)
        case Apply("mul", (a, b)):
            return _turns(a, around) * _turns(b, around)
        case Apply("idiv", (a, b)):
            return _turns(a, around) // _turns(b, around)
        case Apply("minimum", (a, b)):
            return derived("min", _turns(a, around), _turns(b, around))
        case Apply("maximum", (a, b)):
            return _larger(_turns(a, around), _turns(b, around))
        case _:
            return ONE


def turns(extent: Expr) -> Dim:
    """How often a loop of this extent turns; a scalar counts under its name."""
    return _turns(extent, _Around({}, {}, {}))


# ---------------------------------------------------------------- places in arrays
def _touch(touched: dict[Buffer, set[Places]], at: Load, around: _Around) -> None:
    b = at.buffer
    if b.rank and b.role != "private":
        touched.setdefault(b, set()).add(_places(at, around))


def _places(at: Load, around: _Around) -> Places:
    """Along each axis: the turns of the loop that its index counts, the whole axis where it counts several, and for an index
    that is read from an array as many as are read."""
    met: set[str] = set()
    places = []
    for index, length in zip(at.index, at.buffer.shape, strict=True):
        loops, gathers = _loops(index, around)
        turning = {name for name in loops if around.loops[name] != ONE and name not in met}
        met |= loops
        counts = [around.loops[name] for name in turning]
        count = ONE if not turning else counts[0] if len(turning) == 1 else product(counts) if gathers else length
        places.append(length if not gathers and _at_least(count, length) else count)
    return tuple(places)


def _loops(index: Expr, around: _Around) -> tuple[set[str], bool]:
    """The loops that an index depends on, and whether it is read from an array."""
    found: set[str] = set()
    gathers = False
    waiting, seen = [index], set[str]()
    while waiting:
        for e in walk([waiting.pop()]):
            match e:
                case Load():
                    gathers = True
                case Ref(name) if name in around.loops:
                    found.add(name)
                case Ref(name) if name in around.lets and name not in seen:
                    seen.add(name)
                    waiting.append(around.lets[name])
                case _:
                    pass
    return found, gathers


def _merge(into: dict[Buffer, set[Places]], other: dict[Buffer, set[Places]]) -> None:
    for buffer, places in other.items():
        into.setdefault(buffer, set()).update(places)


def _bytes(touched: dict[Buffer, set[Places]]) -> Dim:
    """Each element once: an index that keeps still along an axis meets what one that moves along it meets."""
    total = ZERO
    for buffer, several in touched.items():
        kept = {p for p in several if not any(q != p and all(a in (b, ONE) for a, b in zip(p, q, strict=True)) for q in several)}
        for places in kept:
            total += product(places) * WIDTH[buffer.dtype]
    return total
