"""The memory plan: which scratch arrays share storage.

In: a program.  Out: its storages, each a list of scratch arrays that are never in use at the same time.

Statements are numbered in the order they stand in.  An array is in use from the first statement that meets it (or a window
of it) to the last, in the program's body; or, if all of these stand in a block further inside and the first of them
overwrites every element, in that block: what a turn of a loop leaves in the array, no other turn reads.

Arrays share only if they have equally many bytes for all sizes.  An array that is swapped keeps its storage to itself: its
contents move.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dsl.backends.llvm.function import BYTES
from dsl.ir.types import Dim, product
from dsl.loops.ir import (
    Bind,
    Block,
    Combine,
    Kernel,
    Loop,
    Product,
    Program,
    Stmt,
    Store,
    Swap,
    Window,
    blocks,
    expressions,
    own_buffers,
    statements,
)
from dsl.machine.expr import Buffer, Const, Expr, Extent, Load, Ref, walk


def storages(program: Program) -> list[list[Buffer]]:
    swapped = {b for s in statements(program.body) if isinstance(s, Swap) for b in (s.a, s.b)}
    planner = _Planner({s.buffer: s.base for s in statements(program.body) if isinstance(s, Window)})
    used = {b: use for b, use in planner.uses(program.body)[0].items() if b.rank and b.role == "scratch"}
    planned: list[list[Buffer]] = []
    free: dict[tuple[int, Dim], list[tuple[int, list[Buffer]]]] = {}          # last use, storage
    for b, (first, last) in sorted(used.items(), key=lambda item: item[1]):
        shelf = free.setdefault((BYTES[b.dtype], product(b.shape)), [])
        position = next((i for i, (end, _) in enumerate(shelf) if end < first), None)
        if b in swapped or position is None:
            storage = [b]
            planned.append(storage)
        else:
            _, storage = shelf.pop(position)
            storage.append(b)
        if b not in swapped:
            shelf.append((last, storage))
    return planned


Use = tuple[int, int]
"""The numbers of the first and the last statement that an array is in use at."""
Places = dict[Buffer, list[int]]
"""Which statements of a block meet a buffer."""


@dataclass(frozen=True)
class _Nest:
    """What the statements of a nest of loops do to arrays: read elements, write all of them, or (opaque) something else."""

    read: frozenset[Buffer]
    covered: frozenset[Buffer]
    opaque: bool


class _Planner:
    """What is asked of a statement again and again is found once."""

    def __init__(self, bases: Mapping[Buffer, Buffer]) -> None:
        self.bases = bases
        self.nests: dict[Stmt, _Nest] = {}

    def uses(self, body: Block, number: int = 0) -> tuple[dict[Buffer, Use], Places, int]:
        """When each buffer of a block is in use, its statements being numbered from `number` on; where it is met; the number after."""
        found: dict[Buffer, Use] = {}
        places: Places = {}
        insides: list[list[tuple[Block, dict[Buffer, Use], Places]]] = []
        for place, s in enumerate(body):
            first = number
            number += 1
            insides.append([])
            met = dict.fromkeys(self.own(s))
            for block in blocks(s):
                inside, where, number = self.uses(block, number)
                insides[-1].append((block, inside, where))
                met.update(dict.fromkeys(inside))
            for b in met:
                found[b] = found.get(b, (first, 0))[0], number - 1
                places.setdefault(b, []).append(place)
        for b, at in places.items():
            s = body[at[0]]
            within = [(block, inside[b], where[b]) for block, inside, where in insides[at[0]] if b in inside]
            if len(at) == len(within) == 1 and not isinstance(s, Kernel) and b not in _loads(s):
                block, use, there = within[0]
                if self.fresh(block, b, there):
                    found[b] = use
        return found, places, number

    def own(self, s: Stmt) -> list[Buffer]:
        """The buffers that a statement itself meets, those too of which a window is."""
        found: list[Buffer] = []
        for b in own_buffers(s):
            found.append(b)
            while b in self.bases:
                b = self.bases[b]
                found.append(b)
        return found

    def fresh(self, body: Block, b: Buffer, at: Sequence[int]) -> bool:
        """Whether the first statement of the block that meets the buffer overwrites all of it, and its lengths stay as they are."""
        if not self.overwrites(body[at[0]], b):
            return False
        lengths = {size.name for dim in b.shape for size in dim.sizes()}
        return not lengths or lengths.isdisjoint(s.size for s in statements(body[at[0]:at[-1] + 1]) if isinstance(s, Bind))

    def overwrites(self, s: Stmt, b: Buffer) -> bool:
        """Whether a statement writes every element of a buffer, and reads none."""
        match s:
            case Product(out=out, a=left, b=right):
                return out is b and b not in (left, right)
            case Kernel(totals=totals) if any(t.buffer is b for t in totals):
                return True
            case Kernel() | Loop():
                nest = self.nests.get(s)
                if nest is None:
                    nest = self.nests[s] = _nest(s)
                return not nest.opaque and b in nest.covered and b not in nest.read
            case _:
                return False


def _loads(s: Stmt) -> set[Buffer]:
    return {e.buffer for e in walk(expressions(s)) if isinstance(e, Load)}


def _nest(s: Stmt) -> _Nest:
    read: set[Buffer] = set()
    opaque = False
    for inner in statements((s,)):
        read |= _loads(inner)
        match inner:
            case Combine(target=Load(buffer=target)):
                read.add(target)
            case Window(base=base):
                read.add(base)
            case Swap() | Product() | Bind():
                opaque = True                                   # not in such a loop nest
            case _:
                pass
    return _Nest(frozenset(read), frozenset(_covered(s, {})), opaque)


def _covered(s: Stmt, around: dict[str, Expr]) -> Iterator[Buffer]:
    """The buffers of which a store in a nest of loops, one an axis, runs over all indices, under no condition."""
    match s:
        case Kernel(index=index, extent=extent, body=body) | Loop(index=index, extent=extent, body=body):
            for inner in body:
                yield from _covered(inner, {**around, index: extent})
        case Store(buffer=b, index=places):
            names = [place.name for place in places if isinstance(place, Ref) and place.name in around]
            if len(set(names)) == len(names) == len(around) == b.rank and all(map(_is, [around[name] for name in names], b.shape)):
                yield b
        case _:
            pass


def _is(extent: Expr, dim: Dim) -> bool:
    match extent:
        case Extent(dim=length):
            return length == dim
        case Const(value=value):
            return value == dim.constant
        case _:
            return False
