"""Loops whose launches do not wait.

In: a program with a `While` that leaves when a step was bad.  Out: `ahead_of`: one that does the same as long as all is good, and in
which the host asks the device nothing: scalars that depend on arrays live on the device, and where the loop would be left a mark
is raised.  `AheadProgram` runs it and, if the mark is up in the end, brings the state back and runs the program itself, which stops
where it should.

    let bad = …; leave if bad       becomes       bad[] = …; left[] = left[] or bad[]

A program whose own course depends on arrays (the rows that it takes, how often a loop in it turns) has no such form.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from dsl.backends.cuda.driver import CudaProgram
from dsl.backends.cuda.launch import Launcher
from dsl.backends.cuda.memory import Memory, kept
from dsl.loops.fuse import rewritten
from dsl.loops.ir import (
    FAULT,
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
    Product,
    Program,
    Stmt,
    Store,
    Total,
    While,
    Window,
    expressions,
    outside_kernels,
    statements,
)
from dsl.machine.expr import Buffer, Expr, Load, Ref, const, load, walk
from dsl.machine.expr import replace as substituted

LEFT = Buffer("left", "bool", (), "output")


class Waits(Exception):
    """The program has to ask the device."""


def ahead_of(program: Program) -> Program | None:
    """The program that does not wait, with one output more; None if there is none, or if it would gain nothing."""
    if not any(isinstance(s, Kernel | Product) for loop in program.body if isinstance(loop, While) for s in statements(loop.body)):
        return None
    if any(b.name == LEFT.name for b in program.buffers):
        return None
    try:
        return _Ahead(program).program()
    except Waits:
        return None


class _Ahead:
    def __init__(self, source: Program) -> None:
        self.source = source
        self.whiles = 0
        self.names: dict[str, Buffer] = {}
        outside = list(outside_kernels(source.body))
        on_device = {b for b in source.buffers if b.rank or b.role != "scratch"}
        on_device |= {t.buffer for s in outside if isinstance(s, Kernel) for t in s.totals}
        self.on_device = on_device
        before = -1
        while before != len(self.names) + len(on_device):
            before = len(self.names) + len(on_device)
            for s in outside:
                match s:
                    case Let(name, value) | Assign(name, value) | Combine(Ref(name=name), _, value) if self.depends((value,)):
                        self.names.setdefault(name, Buffer(name, value.dtype, (), "scratch"))
                    case Local(name, dtype, start) if self.depends((start,)):
                        self.names.setdefault(name, Buffer(name, dtype, (), "scratch"))
                    case Store(buffer=b, value=value) | Combine(target=Load(buffer=b), value=value) if self.depends((value,)):
                        on_device.add(b)
                    case _:
                        pass
        taken = {b.name for b in source.buffers}
        if not taken.isdisjoint(self.names):
            raise Waits
        self.change: dict[Expr, Expr] = {FAULT: const(False, "bool")}
        for e in walk([e for s in statements(source.body) for e in expressions(s)]):
            if isinstance(e, Ref) and e.name in self.names:
                self.change[e] = load(self.names[e.name])

    def depends(self, found: Sequence[Expr]) -> bool:
        return any((isinstance(e, Load) and e.buffer in self.on_device) or (isinstance(e, Ref) and e.name in self.names)
                   for e in walk(found))

    def program(self) -> Program:
        start: Block = (Store(LEFT, (), const(False, "bool")),)
        passed, scratch = self.source.passed, self.source.scratch
        return Program(f"{self.source.name}_ahead", (*passed, LEFT, *scratch, *self.names.values()), self.source.scalars,
                       (*start, *self.block(self.source.body)))

    def block(self, body: Block) -> Block:
        return tuple(self.statement(s) for s in body)

    def statement(self, s: Stmt) -> Stmt:
        match s:
            case Loop(extent=e) | While(condition=e) | If(condition=e) | Window(start=e) | Bind(value=e) | Kernel(extent=e) \
                    if self.depends((e,)):
                raise Waits
            case Kernel(name, index, extent, body, totals, work):
                if any(self.depends((t.unit,)) for t in totals):
                    raise Waits
                return Kernel(name, index, extent, self.inside(body), tuple(Total(t.buffer, t.op, t.unit) for t in totals), work)
            case Loop(index, extent, body):
                return Loop(index, extent, self.block(body))
            case While(condition, body):
                self.whiles += 1
                made = While(condition, self.block(body))
                self.whiles -= 1
                return made
            case If(condition, body, orelse, seldom):
                return If(condition, self.block(body), self.block(orelse), seldom)
            case Leave(condition) if self.depends((condition,)) or FAULT in walk([condition]):
                if self.whiles > 1:                               # a loop in a step, which would not end
                    raise Waits
                return Combine(load(LEFT), "or", substituted([condition], self.change)[0])
            case Let(name, value) | Local(name, _, value) | Assign(name, value) if name in self.names:
                return Store(self.names[name], (), substituted([value], self.change)[0])
            case Combine(Ref(name=name), op, value) if name in self.names:
                return Combine(load(self.names[name]), op, substituted([value], self.change)[0])
            case _:
                return rewritten(s, self.change)

    def inside(self, body: Block) -> Block:
        """A kernel's statements; names that live on the device are read there."""
        made: list[Stmt] = []
        for s in body:
            match rewritten(s, self.change):
                case Loop(index, extent, inner):
                    made.append(Loop(index, substituted([extent], self.change)[0], self.inside(inner)))
                case While(condition, inner):
                    made.append(While(substituted([condition], self.change)[0], self.inside(inner)))
                case If(condition, inner, orelse, seldom):
                    made.append(If(condition, self.inside(inner), self.inside(orelse), seldom))
                case other:
                    made.append(other)
        return tuple(made)


class AheadProgram:
    """`program` itself runs where it has no form that does not wait, or where that has met something bad.

    If memory runs out on the way the state is brought back, too."""

    def __init__(self, program: Program, ahead: Program | None, launcher: Launcher, prefix: str = "") -> None:
        self.program, self.launcher, self.prefix = program, launcher, prefix
        self.ahead = CudaProgram(ahead, launcher, prefix) if ahead is not None else None

    @cached_property
    def careful(self) -> CudaProgram:
        return CudaProgram(self.program, self.launcher, self.prefix)

    def __call__(self, arrays: Sequence[Any], scalars: Sequence[Any], sizes: Mapping[str, int]) -> bool:
        passed = self.program.passed
        held = [a if isinstance(a, Memory) else kept(self.launcher, a, b.dtype) for a, b in zip(arrays, passed, strict=True)]
        before = {k: held[k].copy() for k, b in enumerate(passed) if b.role == "state"}

        def bring_back() -> None:
            for k, copy in before.items():
                self.launcher.copy(held[k].place(), copy.place())

        try:
            if self.ahead is None:
                flagged = self.careful(held, scalars, sizes)
            else:
                left = Memory(self.launcher, "bool", 1, ())
                flagged = self.ahead([*held, left], scalars, sizes)
                if flagged or bool(np.asarray(left)):
                    bring_back()
                    flagged = self.careful(held, scalars, sizes)
        except MemoryError:                                       # in the middle of a step
            bring_back()
            raise
        for a, b, memory in zip(arrays, passed, held, strict=True):
            if b.role != "input" and a is not memory:
                a[...] = memory.fetched(np.shape(a))
        return flagged
