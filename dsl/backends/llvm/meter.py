"""The instrumented build: how often each kernel and each product of a program runs, how long, and what that takes.

In: a program.  Out: a `Meter`, whose counters the code that is printed with it (`clock.py`) writes.  Their address is part of
that code, so it is never kept on disk; a build without a meter has nothing of all this.

    counters  ::=  (runs, nanoseconds, flops, bytes read, bytes written) a part, int64, in the order of `Meter.parts`

The flops and bytes of a run are the polynomials of `dsl/loops/cost.py`, evaluated where the run is, with the sizes that hold there.
"""
from __future__ import annotations

import ctypes

from dsl.loops.cost import Part, cost
from dsl.loops.ir import Program
from dsl.record import entity

FIELDS = 5


@entity
class Measured:
    """What was counted of one part."""

    part: Part
    runs: int
    seconds: float
    flops: int
    read: int
    written: int


class Meter:
    def __init__(self, program: Program) -> None:
        self.parts = [p for p in cost(program).parts if p.statement is not None]
        self.counters = (ctypes.c_int64 * (FIELDS * len(self.parts)))()
        self.address = ctypes.addressof(self.counters)
        self.places = {p.statement: number for number, p in enumerate(self.parts)}

    def read(self) -> list[Measured]:
        rows = [self.counters[FIELDS * n:FIELDS * (n + 1)] for n in range(len(self.parts))]
        return [Measured(p, runs, time / 1e9, *rest) for p, (runs, time, *rest) in zip(self.parts, rows, strict=True)]
