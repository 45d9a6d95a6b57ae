"""Which loops of a kernel the lanes of a warp share.

In: a kernel.  Out: the loops in an iteration whose turns can be taken by different lanes, and so the kernel's form: one thread
an iteration, one warp, or a lane a column.

The turns of a loop are independent if it changes no variable from outside but by `Combine` (which may be regrouped), leaves no
`While` around it, and every element that it writes is at an index which moves with the turn, no other element of that array being
met in the loop.  An index moves with the turn if it is the loop's own, or that and something that stays.

Sharing pays for loops that are long, or not known to be short: neighbouring lanes then read neighbouring elements.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence

from dsl.backends.cuda.runs import WARP, Form
from dsl.loops.ir import (
    Assign,
    Bind,
    Block,
    Combine,
    If,
    Kernel,
    Leave,
    Let,
    Local,
    Loop,
    Stmt,
    Store,
    While,
    blocks,
    buffers_of,
    expressions,
    statements,
)
from dsl.machine.expr import Apply, Buffer, Const, Expr, Extent, Load, Ref, extent, ref, walk

SHORT = 8                        # turns that are fewer do not make a kernel one of warps
CHEAP = 48                       # parts of expressions that may be computed again for every 32 columns
SHORTEST = 3                     # nor are they shared in one that is


def form_of(kernel: Kernel, of: dict[Buffer, Buffer]) -> tuple[Form, frozenset[Loop]]:
    """The form of a kernel, and the loops that are shared (none but in `warps`)."""
    arrays = any(t.buffer.rank for t in kernel.totals)
    if is_single(kernel):
        return "threads", frozenset()
    if (columns := _columns(kernel, of)) is not None:
        return "columns", frozenset((columns,))
    if any(_outermost(kernel.body, kernel, of, SHORT if arrays else WARP)):
        return "warps", frozenset(_outermost(kernel.body, kernel, of, SHORTEST))
    return ("slices" if arrays else "threads"), frozenset()


def _columns(kernel: Kernel, of: dict[Buffer, Buffer]) -> Loop | None:
    """The only loop of an iteration, if what it adds up are all columns: totals[j] in turn j."""
    if not kernel.totals or not kernel.body or not all(t.buffer.rank == 1 for t in kernel.totals):
        return None
    *before, loop = kernel.body
    totals = {t.buffer for t in kernel.totals}
    if not isinstance(loop, Loop) or not isinstance(loop.extent, Const | Extent) or not all(isinstance(s, Let) for s in before) \
            or not all(extent(t.buffer.shape[0]) is loop.extent for t in kernel.totals) \
            or (isinstance(loop.extent, Const) and loop.extent.value < WARP) or not _independent(loop, kernel, of) \
            or any(b.role == "private" for b in buffers_of(kernel.body)) or len(walk([e for s in before for e in expressions(s)])) > CHEAP:
        return None
    sums = [s.target for s in statements(loop.body) if isinstance(s, Combine) and isinstance(s.target, Load) and s.target.buffer in totals]
    return loop if all(target.index == (ref(loop.index),) for target in sums) else None


def is_single(kernel: Kernel) -> bool:
    return isinstance(kernel.extent, Const) and kernel.extent.value == 1 and not kernel.totals


def _outermost(body: Block, kernel: Kernel, of: dict[Buffer, Buffer], least: int) -> Iterator[Loop]:
    for s in body:
        match s:
            case Loop(extent=extent) if not (isinstance(extent, Const) and extent.value < least) and _independent(s, kernel, of):
                yield s
            case Loop(body=inner) | While(body=inner):
                yield from _outermost(inner, kernel, of, least)
            case If(body=inner, orelse=orelse):
                yield from _outermost((*inner, *orelse), kernel, of, least)
            case _:
                pass


def moving(loop_index: str, body: Block) -> dict[str, Expr | None]:
    """The names in a loop's body that move with its turns, and what is added to the turn (None: nothing)."""
    found: dict[str, Expr | None] = {loop_index: None}
    declared = {s.name for s in statements(body) if isinstance(s, Let | Local)}
    for s in body:
        match s:
            case Let(name, Apply("add", (stays, Ref(turn)))) | Let(name, Apply("add", (Ref(turn), stays))) \
                    if turn == loop_index and not {e.name for e in walk([stays]) if isinstance(e, Ref)} & {loop_index, *declared}:
                found[name] = stays
            case _:
                pass
    return found


def _independent(loop: Loop, kernel: Kernel, of: dict[Buffer, Buffer]) -> bool:
    body = list(statements(loop.body))
    inside = {s.name for s in body if isinstance(s, Let | Local)}
    changed = {s.name for s in body if isinstance(s, Assign)}
    summed = {s.target.name for s in body if isinstance(s, Combine) and isinstance(s.target, Ref)} - inside
    used = {e.name for s in body for e in walk(expressions(s)) if isinstance(e, Ref)}
    if not changed <= inside or summed & used or _leaves(loop.body) or any(isinstance(s, Bind) for s in body):
        return False
    names, totals = moving(loop.index, loop.body), {t.buffer for t in kernel.totals}
    met: dict[Buffer, set[tuple[Buffer, tuple[Expr, ...]]]] = {}
    for buffer, index in _accesses(body):
        if buffer in totals:
            if buffer.rank and not _moves(index, names):
                return False
        else:
            met.setdefault(of.get(buffer, buffer), set()).add((buffer, index))
    written = {of.get(b, b) for b in _written(body)} - totals
    return all(len(met[root]) == 1 and _moves(next(iter(met[root]))[1], names) for root in written)


def _moves(index: Sequence[Expr], names: dict[str, Expr | None]) -> bool:
    return any(isinstance(i, Ref) and i.name in names for i in index)


def _accesses(body: Sequence[Stmt]) -> Iterator[tuple[Buffer, tuple[Expr, ...]]]:
    for s in body:
        for e in walk(expressions(s)):
            if isinstance(e, Load):
                yield e.buffer, e.index
        match s:
            case Store(buffer=b, index=index) | Combine(target=Load(buffer=b, index=index)):
                yield b, index
            case _:
                pass


def _written(body: Sequence[Stmt]) -> set[Buffer]:
    found: set[Buffer] = set()
    for s in body:
        match s:
            case Store(buffer=b) | Combine(target=Load(buffer=b)):
                found.add(b)
            case _:
                pass
    return found


def _leaves(body: Block) -> bool:
    """Whether a `Leave` ends a loop around `body`."""
    return any(isinstance(s, Leave) or (not isinstance(s, While) and any(map(_leaves, blocks(s)))) for s in body)
