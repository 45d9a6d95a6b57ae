"""Loops over rows and columns made one loop over elements.

In: a `Program`.  Out: one that does the same, in which a kernel whose body is one loop has an iteration for every turn of that
loop, if the turns are independent.  Neighbouring threads then work on neighbouring elements, where they were a row apart.

    kernel i < n:  lets, for j < m: body      becomes      kernel ij < n * m:  i = ij / m, j = ij % m, lets, body

and so on, if `body` is one loop again.

The turns are independent if every element that is written is at an index which has both `i` and `j` in it by themselves, if no
other element of that array is read, and if totals are scalars.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence

from dsl.backends.cuda.parameters import roots, written
from dsl.ir.types import Dim
from dsl.loops.ir import (
    Assign,
    Block,
    Combine,
    If,
    Kernel,
    Let,
    Local,
    Loop,
    Program,
    Stmt,
    Store,
    While,
    Window,
    buffers_of,
    expressions,
    statements,
)
from dsl.machine.expr import Buffer, Const, Expr, Extent, Load, Ref, apply, extent, parts, ref, walk

DEAREST = 24                     # operations that are worth doing once an element instead of once a row


def flattened(program: Program) -> Program:
    of = roots(program)
    taken = {s.name for s in statements(program.body) if isinstance(s, Let | Local)} | {r.name for r in program.scalars}
    taken |= {s.index for s in statements(program.body) if isinstance(s, Loop | Kernel)}

    def block(body: Block) -> Block:
        return tuple(map(one, body))

    def one(s: Stmt) -> Stmt:
        match s:
            case Kernel():
                return _flat(s, of, taken)
            case Loop(index, count, body):
                return Loop(index, count, block(body))
            case While(condition, body):
                return While(condition, block(body))
            case If(condition, body, orelse, seldom):
                return If(condition, block(body), block(orelse), seldom)
            case _:
                return s

    return Program(program.name, program.buffers, program.scalars, block(program.body))


def _flat(kernel: Kernel, of: dict[Buffer, Buffer], taken: set[str]) -> Kernel:
    indices = [kernel.index]
    while (inner := _only_loop(kernel, indices, of)) is not None:
        lets, loop = kernel.body[:-1], inner
        indices.append(loop.index)
        name = next(n for n in _names(f"{kernel.index}{loop.index}") if n not in taken)
        taken.add(name)
        rows, columns = _length(kernel.extent), _length(loop.extent)
        assert rows is not None and columns is not None
        places = (Let(kernel.index, apply("idiv", ref(name), loop.extent)), Let(loop.index, apply("irem", ref(name), loop.extent)))
        kernel = Kernel(kernel.name, name, extent(rows * columns), (*places, *lets, *loop.body), kernel.totals, kernel.work)
    return kernel


def _names(base: str) -> Iterable[str]:
    yield base
    yield from (f"{base}_{k}" for k in range(1 << 30))


def _length(e: Expr) -> Dim | None:
    match e:
        case Extent(dim=dim):
            return dim
        case Const(value=value):
            return Dim.of(int(value))
        case _:
            return None


def _only_loop(kernel: Kernel, indices: Sequence[str], of: dict[Buffer, Buffer]) -> Loop | None:
    """The loop that can be taken into the kernel's own, which is over `indices`."""
    if not kernel.body:
        return None
    *before, loop = kernel.body
    if not isinstance(loop, Loop) or _length(kernel.extent) is None or _length(loop.extent) is None:
        return None
    lets = [s for s in before if isinstance(s, Let)]
    body = list(statements(loop.body))
    good = len(lets) == len(before) and not any(isinstance(s, Window) for s in body) \
        and sum(len([e for e in walk([s.value]) if parts(e)]) for s in lets) <= DEAREST \
        and all(t.buffer.rank == 0 for t in kernel.totals) and _changes_own(body) \
        and not any(b.role == "private" for b in buffers_of(kernel.body)) \
        and _independent(kernel, [*lets, *body], [ref(i) for i in (*indices, loop.index)], of)
    return loop if good else None


def _changes_own(body: Sequence[Stmt]) -> bool:
    """Whether only variables are changed that are declared inside."""
    changed = {s.name for s in body if isinstance(s, Assign)} | {
        s.target.name for s in body if isinstance(s, Combine) and isinstance(s.target, Ref)}
    return changed <= {s.name for s in body if isinstance(s, Local)}


def _independent(kernel: Kernel, body: Sequence[Stmt], indices: Sequence[Expr], of: dict[Buffer, Buffer]) -> bool:
    totals = {t.buffer for t in kernel.totals}
    places: dict[Buffer, set[tuple[Buffer, tuple[Expr, ...]]]] = {of.get(b, b): set() for b in written(kernel.body) if b not in totals}
    for s in body:
        accesses = [(e.buffer, e.index) for e in walk(expressions(s)) if isinstance(e, Load)]
        match s:
            case Store(buffer=b, index=index) | Combine(target=Load(buffer=b, index=index)):
                accesses.append((b, index))
            case _:
                pass
        for b, index in accesses:
            root = of.get(b, b)
            if root in places:
                places[root].add((b, index))
    return all(len(met) == 1 and all(i in index for i in indices) for met in places.values() for _, index in met)
