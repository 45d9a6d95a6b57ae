"""The memory plan: which scratch arrays share storage.

In: a program.  Out: its storages, each a list of scratch arrays that are never in use at the same time.

Statements are numbered in the order they stand in.  An array is in use from the first statement that meets it (or a window
of it) to the last, in the program's body; or, if all of these stand in a block further inside and the first of them
overwrites every element, in that block: what a turn of a loop leaves in the array, no other turn reads.

Arrays share only if they have equally many bytes for all sizes.  An array that is swapped keeps its storage to itself: its
contents move.
"""
from __future__ import annotations

from collections.abc import Mapping

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
    buffers_of,
    expressions,
    statements,
)
from dsl.machine.expr import Buffer, Const, Expr, Extent, Load, Ref, walk


def storages(program: Program) -> list[list[Buffer]]:
    swapped = {b for s in statements(program.body) if isinstance(s, Swap) for b in (s.a, s.b)}
    bases = {s.buffer: s.base for s in statements(program.body) if isinstance(s, Window)}
    used = {b: use for b, use in uses(program.body, bases)[0].items() if b.rank and b.role == "scratch"}
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


def uses(body: Block, bases: Mapping[Buffer, Buffer], number: int = 0) -> tuple[dict[Buffer, Use], int]:
    """When each buffer of a block is in use, its statements being numbered from `number` on; and the number after them."""
    found: dict[Buffer, Use] = {}
    places: dict[Buffer, list[int]] = {}
    insides: list[list[tuple[Block, dict[Buffer, Use]]]] = []
    for place, s in enumerate(body):
        first = number
        number += 1
        insides.append([])
        for block in blocks(s):
            inside, number = uses(block, bases, number)
            insides[-1].append((block, inside))
        for b in met((s,), bases):
            found[b] = found.get(b, (first, 0))[0], number - 1
            places.setdefault(b, []).append(place)
    for b, at in places.items():
        s = body[at[0]]
        within = [(block, inside[b]) for block, inside in insides[at[0]] if b in inside]
        if len(at) == len(within) == 1 and not isinstance(s, Kernel) and not reads(s, b) and fresh(within[0][0], b, bases):
            found[b] = within[0][1]
    return found, number


def met(body: Block, bases: Mapping[Buffer, Buffer]) -> dict[Buffer, None]:
    """The buffers that are met, those too of which a window is."""
    found: dict[Buffer, None] = {}
    for b in buffers_of(body):
        found[b] = None
        while b in bases:
            b = bases[b]
            found[b] = None
    return found


def fresh(body: Block, b: Buffer, bases: Mapping[Buffer, Buffer]) -> bool:
    """Whether the first statement of the block that meets the buffer overwrites all of it, and its lengths stay as they are."""
    at = [place for place, s in enumerate(body) if b in met((s,), bases)]
    lengths = {size.name for dim in b.shape for size in dim.sizes()}
    binds = (s.size for s in statements(body[at[0]:at[-1] + 1]) if isinstance(s, Bind))
    return overwrites(body[at[0]], b) and lengths.isdisjoint(binds)


def reads(s: Stmt, b: Buffer) -> bool:
    """Whether a statement itself, not those inside it, reads an element."""
    return any(isinstance(e, Load) and e.buffer is b for e in walk(expressions(s)))


def overwrites(s: Stmt, b: Buffer) -> bool:
    """Whether a statement writes every element of a buffer, and reads none."""
    match s:
        case Product(out=out, a=left, b=right):
            return out is b and b not in (left, right)
        case Kernel(totals=totals) if any(t.buffer is b for t in totals):
            return True
        case Kernel() | Loop():
            return not any(reads(t, b) or _changes(t, b) for t in statements((s,))) and _covers(s, b, {})
        case _:
            return False


def _changes(s: Stmt, b: Buffer) -> bool:
    match s:
        case Combine(target=Load(buffer=target)):
            return target is b
        case Window(base=base):
            return base is b
        case Swap() | Product() | Bind():
            return True                                         # not in such a loop nest
        case _:
            return False


def _covers(s: Stmt, b: Buffer, around: dict[str, Expr]) -> bool:
    """Whether a store in a nest of loops, one an axis, runs over all indices of the buffer, under no condition."""
    match s:
        case Kernel(index=index, extent=extent, body=body) | Loop(index=index, extent=extent, body=body):
            return any(_covers(inner, b, {**around, index: extent}) for inner in body)
        case Store(buffer=stored, index=places) if stored is b:
            names = [place.name for place in places if isinstance(place, Ref) and place.name in around]
            return len(set(names)) == len(names) == len(around) == b.rank and all(map(_is, [around[name] for name in names], b.shape))
        case _:
            return False


def _is(extent: Expr, dim: Dim) -> bool:
    match extent:
        case Extent(dim=length):
            return length == dim
        case Const(value=value):
            return value == dim.constant
        case _:
            return False
