"""Serial statements around kernels, moved onto the device.

In: a `Program`.  Out: one that does the same, in which stretches of statements between kernels that read or write arrays are
kernels of one iteration.  The host would have to wait for every element it reads; so it waits only where its own control flow
depends on the device: a scalar that a kernel made and a `While` tests, the start of a window, an extent.

A stretch declares nothing that is used after it, changes no variable from before it, and leaves no loop around it.
"""
from __future__ import annotations

from collections.abc import Iterable

from dsl.backends.cuda.parameters import host_variables
from dsl.ir.types import ONE
from dsl.loops.fuse import rewritten
from dsl.loops.ir import (
    FAULT,
    Assign,
    Bind,
    Block,
    Combine,
    Flag,
    If,
    Kernel,
    Leave,
    Let,
    Local,
    Loop,
    Product,
    Program,
    Stmt,
    Store,
    Swap,
    While,
    Window,
    blocks,
    expressions,
    statements,
)
from dsl.machine.expr import Apply, Buffer, Load, Ref, const, walk

ON_THE_HOST = (Kernel, Product, Swap, Window, Bind)


def on_the_device(program: Program) -> tuple[Program, frozenset[Buffer]]:
    """The program, and the scratch buffers of rank 0 that are variables of the host.

    One of these is moved too if it gets its value from an array; that may make others worth moving, and stretches longer, so
    all is moved anew until no variable goes.  A program without a `Flag` meets no fault, so that its loops may be moved
    although they ask for one."""
    program = without_faults(program)
    variables = host_variables(program)
    while True:
        moved = Program(program.name, program.buffers, program.scalars, _Mover(program, variables).block(program.body))
        left = variables & host_variables(moved)
        if left == variables:
            return moved, variables
        variables = left


class _Mover:
    def __init__(self, program: Program, variables: frozenset[Buffer]) -> None:
        self.variables, self.count = variables, 0
        self.taken = {s.name for s in statements(program.body) if isinstance(s, Let | Local)} | {r.name for r in program.scalars}
        self.taken |= {s.index for s in statements(program.body) if isinstance(s, Loop | Kernel)}

    def block(self, body: Block) -> Block:
        """Takes the longest stretch from each statement on; what stays is looked into."""
        made: list[Stmt] = []
        at = 0
        while at < len(body):
            end = self.stretch(body, at)
            if end > at:
                made.append(self.kernel(body[at:end]))
                at = end
            else:
                made.append(self.inside(body[at]))
                at += 1
        return tuple(made)

    def inside(self, s: Stmt) -> Stmt:
        match s:
            case Loop(index, extent, body):
                return Loop(index, extent, self.block(body))
            case While(condition, body):
                return While(condition, self.block(body))
            case If(condition, body, orelse):
                return If(condition, self.block(body), self.block(orelse))
            case _:
                return s

    def stretch(self, body: Block, start: int) -> int:
        """The end of the longest stretch from `start` on, or `start`."""
        end = start
        declared: set[str] = set()
        while end < len(body) and self.movable(body[end], declared):
            declared |= _declared(body[end:end + 1])
            end += 1
        while end > start and (_declared(body[start:end]) & _used(body[end:]) or not self.touches(body[end - 1:end])):
            end -= 1
        return end if self.touches(body[start:end]) else start

    def movable(self, s: Stmt, declared: set[str]) -> bool:
        inner = list(statements((s,)))
        own = declared | _declared(inner)
        if any(_written(i) in self.variables for i in inner) and not self.touches((s,)):
            return False
        return not any(isinstance(i, ON_THE_HOST) for i in inner) and _changed(inner) <= own and not _leaves((s,)) \
            and not any(e is FAULT for i in inner for e in walk(expressions(i)))

    def touches(self, body: Iterable[Stmt]) -> bool:
        """Whether statements read or write the device's memory."""
        for s in statements(tuple(body)):
            if isinstance(s, Store) and s.buffer not in self.variables:
                return True
            loads = [e for e in walk(expressions(s)) if isinstance(e, Load)]
            if isinstance(s, Combine) and isinstance(s.target, Load):
                loads.append(s.target)
            if any(e.buffer not in self.variables for e in loads):
                return True
        return False

    def kernel(self, body: Block) -> Kernel:
        while f"once{self.count}" in self.taken:
            self.count += 1
        index = f"once{self.count}"
        self.taken.add(index)
        return Kernel(f"serial{self.count}", index, const(1, "int64"), body, (), ONE)


def without_faults(program: Program) -> Program:
    """A program that has no `Flag` does not ask for one."""
    if any(isinstance(s, Flag) for s in statements(program.body)):
        return program
    return Program(program.name, program.buffers, program.scalars, _without_faults(program.body))


def _without_faults(body: Block) -> Block:
    """FAULT is false."""
    made: list[Stmt] = []
    for s in body:
        either = [e for e in walk(expressions(s)) if isinstance(e, Apply) and e.op == "or" and e.args[0] is FAULT]
        s = rewritten(s, {FAULT: const(False, "bool"), **{e: e.args[1] for e in either}})
        match s:
            case Loop(index, extent, inner):
                s = Loop(index, extent, _without_faults(inner))
            case While(condition, inner):
                s = While(condition, _without_faults(inner))
            case If(condition, inner, orelse):
                s = If(condition, _without_faults(inner), _without_faults(orelse))
            case _:
                pass
        made.append(s)
    return tuple(made)


def _declared(body: Iterable[Stmt]) -> set[str]:
    return {s.name for s in body if isinstance(s, Let | Local)}


def _changed(body: Iterable[Stmt]) -> set[str]:
    return {s.name for s in body if isinstance(s, Assign)} | {
        s.target.name for s in body if isinstance(s, Combine) and isinstance(s.target, Ref)}


def _used(body: Block) -> set[str]:
    return _changed(statements(body)) | {e.name for s in statements(body) for e in walk(expressions(s)) if isinstance(e, Ref)}


def _written(s: Stmt) -> Buffer | None:
    match s:
        case Store(buffer=b) | Combine(target=Load(buffer=b)):
            return b
        case _:
            return None


def _leaves(body: Block) -> bool:
    """Whether a `Leave` ends a loop around `body`."""
    return any(isinstance(s, Leave) or (not isinstance(s, While) and any(map(_leaves, blocks(s)))) for s in body)
