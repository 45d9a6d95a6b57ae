"""What a block need not do.

In: a block, and the buffers that others read.  Out: the block without stores that nobody loads, and with arrays of which
an iteration of a kernel uses only its own row made `private`, one axis shorter.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

from dsl.ir.types import Dim
from dsl.loops import ir
from dsl.machine.expr import Apply, Buffer, Const, Expr, Load, Ref, load, ref, walk
from dsl.machine.expr import replace as substituted


def tidy(body: ir.Block, scratch: Sequence[Buffer]) -> tuple[ir.Block, list[Buffer]]:
    """The block, and the scratch that is left."""
    body = without_unread(body, set(scratch))
    body, _ = narrowed(body, set(scratch))
    met = set(ir.buffers_of(body))
    return body, [b for b in scratch if b in met]


# ---------------------------------------------------------------- stores that nobody loads
def without_unread(body: ir.Block, scratch: set[Buffer]) -> ir.Block:
    """Without what makes values that nothing reads, and what made those, and so on."""
    while True:
        used = _used(body)

        def kept(s: ir.Stmt, used: set[object] = used) -> ir.Stmt | None:
            return _kept(s, scratch, used)
        after = mapped(body, kept)
        if _size(after) == _size(body):
            return after
        body = after


def _used(body: ir.Block) -> set[object]:
    """The buffers that are read, and the names of the scalars."""
    used: set[object] = set()
    for s in ir.statements(body):
        for e in walk(ir.expressions(s)):
            if type(e) is Load:
                used.add(e.buffer)
            elif type(e) is Ref:
                used.add(e.name)
        match s:
            case ir.Window(base=base):
                used.add(base)
            case ir.Swap(a=a, b=b) | ir.Product(a=a, b=b):
                used |= {a, b}
            case _:
                pass
    return used


def _kept(s: ir.Stmt, scratch: set[Buffer], used: set[object]) -> ir.Stmt | None:
    """The statement, without totals that nothing reads; None if it does nothing."""
    def needed(buffer: Buffer) -> bool:
        return buffer in used or buffer not in scratch
    match s:
        case ir.Store(buffer=b) | ir.Combine(target=Load(buffer=b)) | ir.Product(out=b):
            return s if needed(b) else None
        case ir.Let(name=name) | ir.Combine(target=Ref(name=name)) | ir.Local(name=name) | ir.Assign(name=name):
            return s if name in used else None
        case ir.Loop(body=inner):
            return s if inner else None
        case ir.Kernel(body=inner, totals=totals):
            left = tuple(t for t in totals if needed(t.buffer))
            return None if not inner and not left else s if left == totals else ir.Kernel(s.name, s.index, s.extent, inner, left, s.work)
        case _:
            return s


def _size(body: ir.Block) -> int:
    return sum(1 + len(s.totals) if isinstance(s, ir.Kernel) else 1 for s in ir.statements(body))


def mapped(body: ir.Block, change: Callable[[ir.Stmt], ir.Stmt | None]) -> ir.Block:
    """Every statement, those inside first, replaced or (None) left out."""
    out: list[ir.Stmt] = []
    for s in body:
        match s:
            case ir.Loop(index, extent, inner):
                s = ir.Loop(index, extent, mapped(inner, change))
            case ir.While(condition, inner):
                s = ir.While(condition, mapped(inner, change))
            case ir.If(condition, inner, orelse, seldom):
                s = ir.If(condition, mapped(inner, change), mapped(orelse, change), seldom)
            case ir.Kernel(name, index, extent, inner, totals, work):
                s = ir.Kernel(name, index, extent, mapped(inner, change), totals, work)
            case _:
                pass
        made = change(s)
        if made is not None:
            out.append(made)
    return tuple(out)


# ---------------------------------------------------------------- rows that only their iteration uses
def narrowed(body: ir.Block, scratch: set[Buffer]) -> tuple[ir.Block, list[Buffer]]:
    kernels = [s for s in ir.statements(body) if isinstance(s, ir.Kernel)]
    owners: dict[Buffer, list[ir.Kernel]] = {}
    met_at: dict[Buffer, list[tuple[Expr, ...]]] = {}
    for kernel in kernels:
        for b in ir.buffers_of(kernel.body):
            owners.setdefault(b, []).append(kernel)
        for s in ir.statements(kernel.body):
            for e in walk(ir.expressions(s)):
                if isinstance(e, Load):
                    met_at.setdefault(e.buffer, []).append(e.index)
            match s:
                case ir.Store(buffer=b, index=index) | ir.Combine(target=Load(buffer=b, index=index)):
                    met_at.setdefault(b, []).append(index)
                case _:
                    pass
    outside: dict[Buffer, None] = {}
    _outside(body, outside)
    private: dict[Buffer, Buffer] = {}
    place: dict[Buffer, tuple[Expr, ...]] = {}
    for b, found in owners.items():
        k = found[0]
        if b not in scratch or len(found) > 1 or b in outside or not b.rank or any(t.buffer is b for t in k.totals):
            continue
        row, rows = own_row(k)
        if all(place[0] is row[0] for place in met_at[b]):
            private[b] = Buffer(b.name, b.dtype, (*rows, *b.shape[1:]), "private")
            place[b] = row[1:]
    if not private:
        return body, []

    def moved(roots: Sequence[Expr]) -> list[Expr]:
        change: dict[Expr, Expr] = {}
        for e in walk(roots):
            if isinstance(e, Load) and e.buffer in private:
                change[e] = load(private[e.buffer], [*place[e.buffer], *(substituted([i], change)[0] for i in e.index[1:])])
        return substituted(roots, change)

    def change(s: ir.Stmt) -> ir.Stmt:
        match s:
            case ir.Store(buffer, index, value) if buffer in private:
                *index_new, value = moved([*index[1:], value])
                return ir.Store(private[buffer], (*place[buffer], *index_new), value)
            case ir.Store(buffer, index, value):
                *index_new, value = moved([*index, value])
                return ir.Store(buffer, tuple(index_new), value)
            case ir.Combine(Load(buffer=buffer, index=index), op, value) if buffer in private:
                *index_new, value = moved([*index[1:], value])
                return ir.Combine(load(private[buffer], [*place[buffer], *index_new]), op, value)
            case ir.Combine(target, op, value):
                if isinstance(target, Load):
                    *index_new, value = moved([*target.index, value])
                    return ir.Combine(load(target.buffer, index_new), op, value)
                return ir.Combine(target, op, moved([value])[0])
            case ir.Let(name, value):
                return ir.Let(name, moved([value])[0])
            case ir.Assign(name, value):
                return ir.Assign(name, moved([value])[0])
            case ir.Local(name, dtype, start):
                return ir.Local(name, dtype, moved([start])[0])
            case ir.Loop(index_name, extent, inner):
                return ir.Loop(index_name, moved([extent])[0], inner)
            case ir.If(condition, inner, orelse, seldom):
                return ir.If(moved([condition])[0], inner, orelse, seldom)
            case ir.Flag(condition):
                return ir.Flag(moved([condition])[0])
            case _:
                return s
    return mapped(body, change), list(private.values())


def own_row(k: ir.Kernel) -> tuple[tuple[Expr, ...], tuple[Dim, ...]]:
    """The index of an iteration's row, and nothing more; in a kernel over tiles the index of a row, then its place in the tile,
    and how many rows a tile has."""
    match k.body:
        case (ir.Let(name=start), ir.Loop(row, Apply("minimum", (_, Const(size))), (ir.Let(name=index, value=at), *_)), *_) \
                if at is ref(start) + ref(row):
            return (ref(index), ref(row)), (Dim.of(int(size)),)
        case _:
            return (ref(k.index),), ()


def _outside(body: ir.Block, found: dict[Buffer, None]) -> None:
    """The buffers met outside of kernels."""
    for s in body:
        if isinstance(s, ir.Kernel):
            found.update(dict.fromkeys(t.buffer for t in s.totals))
            found.update(dict.fromkeys(e.buffer for e in walk(ir.expressions(s)) if isinstance(e, Load)))
            continue
        for inner in ir.blocks(s):
            _outside(inner, found)
        shell: ir.Stmt = s
        if ir.blocks(s):
            found.update(dict.fromkeys(e.buffer for e in walk(ir.expressions(s)) if isinstance(e, Load)))
        else:
            found.update(dict.fromkeys(ir.buffers_of((shell,))))
