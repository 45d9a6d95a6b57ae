"""Serial statements around kernels, moved onto the device.

In: a `Program`.  Out: one that does the same, in which stretches of statements between kernels that read or write arrays are
kernels of one iteration.  The host would have to wait for every element it reads; so it waits only where its own control flow
depends on the device: a scalar that a kernel made and a `While` tests, the start of a window, an extent.

A stretch declares nothing that is used after it, changes no variable from before it, and leaves no loop around it.
"""
from __future__ import annotations

from collections.abc import Sequence

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
from dsl.record import record

ON_THE_HOST = (Kernel, Product, Swap, Window, Bind)


def on_the_device(program: Program) -> tuple[Program, frozenset[Buffer]]:
    """The program, and the scratch buffers of rank 0 that are variables of the host.

    One of these is moved too if it gets its value from an array; that may make others worth moving, and stretches longer, so
    all is moved anew until no variable goes.  A program without a `Flag` meets no fault, so that its loops may be moved
    although they ask for one."""
    program = without_faults(program)
    variables, known = host_variables(program), _Known()
    while True:
        moved = Program(program.name, program.buffers, program.scalars, _Mover(program, variables, known).block(program.body))
        left = variables & host_variables(moved)
        if left == variables:
            return moved, variables
        variables = left


@record
class Facts:
    """What a statement and those inside it are about: the names it declares for those after it, all that are declared in it, used
    and changed; the buffers it loads, adds to or stores into; whether it is bound to the host, and whether it leaves a loop around it."""

    declares: frozenset[str]
    declared: frozenset[str]
    used: frozenset[str]
    changed: frozenset[str]
    written: frozenset[Buffer]
    touched: frozenset[Buffer]
    stays: bool
    leaves: bool


class _Known:
    """The facts of statements, found once."""

    def __init__(self) -> None:
        self.facts: dict[Stmt, Facts] = {}

    def __call__(self, s: Stmt) -> Facts:
        found = self.facts.get(s)
        if found is None:
            found = self.facts[s] = self.found(s)
        return found

    def found(self, s: Stmt) -> Facts:
        inside = [self(i) for block in blocks(s) for i in block]
        met = walk(expressions(s))
        declares = frozenset((s.name,) if isinstance(s, Let | Local) else ())
        changed = frozenset((s.name,) if isinstance(s, Assign) else (s.target.name,) if isinstance(s, Combine) and isinstance(s.target, Ref)
                            else ())
        written = frozenset((s.buffer,) if isinstance(s, Store) else (s.target.buffer,) if isinstance(s, Combine)
                            and isinstance(s.target, Load) else ())
        return Facts(
            declares,
            declares.union(*(f.declared for f in inside)),
            changed.union((e.name for e in met if isinstance(e, Ref)), *(f.used for f in inside)),
            changed.union(*(f.changed for f in inside)),
            written.union(*(f.written for f in inside)),
            written.union((e.buffer for e in met if isinstance(e, Load)), *(f.touched for f in inside)),
            isinstance(s, ON_THE_HOST) or any(e is FAULT for e in met) or any(f.stays for f in inside),
            isinstance(s, Leave) or (not isinstance(s, While) and any(f.leaves for f in inside)))


class _Mover:
    def __init__(self, program: Program, variables: frozenset[Buffer], known: _Known) -> None:
        self.variables, self.known, self.count = variables, known, 0
        self.taken = {s.name for s in statements(program.body) if isinstance(s, Let | Local)} | {r.name for r in program.scalars}
        self.taken |= {s.index for s in statements(program.body) if isinstance(s, Loop | Kernel)}

    def block(self, body: Block) -> Block:
        """Takes the longest stretch from each statement on; what stays is looked into."""
        made: list[Stmt] = []
        facts = [self.known(s) for s in body]
        used: list[frozenset[str]] = [frozenset()]               # from each statement on
        for f in reversed(facts):
            used.append(used[-1] | f.used)
        used.reverse()
        at = 0
        while at < len(body):
            end = self.stretch(facts, used, at)
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

    def stretch(self, facts: Sequence[Facts], used: Sequence[frozenset[str]], start: int) -> int:
        """The end of the longest stretch from `start` on, or `start`."""
        end = start
        declared: list[frozenset[str]] = [frozenset()]           # before each statement
        while end < len(facts) and self.movable(facts[end], declared[-1]):
            declared.append(declared[-1] | facts[end].declares)
            end += 1
        while end > start and (declared[end - start] & used[end] or not self.touches(facts[end - 1])):
            end -= 1
        return end

    def movable(self, f: Facts, declared: frozenset[str]) -> bool:
        if f.written & self.variables and not self.touches(f):
            return False
        return not f.stays and not f.leaves and f.changed <= declared | f.declared

    def touches(self, f: Facts) -> bool:
        """Whether a statement reads or writes the device's memory."""
        return not f.touched <= self.variables

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
