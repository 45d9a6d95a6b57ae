"""Programs that know how long they took, and how fast this machine's memory is.

In: programs.  Out: `ProfiledProgram`, called as a `NativeProgram`, with what its kernels and products did; `copy_speed`.
"""
from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dsl.backends.llvm.meter import Meter
from dsl.backends.llvm.native import NativeProgram
from dsl.ir.types import ONE, Dim, Size
from dsl.loops.ir import Kernel, Program, Store
from dsl.machine.expr import Buffer, extent, load, ref

COPIED = 8 << 20
"""Float64 numbers of the copy that tells how fast memory is: beyond the caches."""


class ProfiledProgram(NativeProgram):
    """`calls` of it took `seconds` in all."""

    def __init__(self, program: Program, threads: int | None = None) -> None:
        self.calls, self.seconds, self.title = 0, 0.0, "an expression"
        self.counted = Meter(program)
        super().__init__(program, threads=threads, meter=self.counted)

    def __call__(self, arrays: Sequence[np.ndarray[Any, Any]], scalars: Sequence[Any], sizes: Mapping[str, int]) -> bool:
        began = time.perf_counter()
        try:
            return super().__call__(arrays, scalars, sizes)
        finally:
            self.seconds += time.perf_counter() - began
            self.calls += 1


def copy_speed(threads: int | None = None) -> float:
    """Bytes a second, read and written, of a copy of 64 MiB by these threads; the best of five."""
    n = Dim.of(Size("n"))
    x, y = Buffer("x", "float64", (n,), "input"), Buffer("y", "float64", (n,), "output")
    body = (Store(y, (ref("i"),), load(x, (ref("i"),))),)
    run = NativeProgram(Program("copy", (x, y), (), (Kernel("copy", "i", extent(n), body, (), ONE),)), threads=threads)
    given, taken = np.ones(COPIED), np.ones(COPIED)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        run([given, taken], [], {"n": COPIED})
        best = min(best, time.perf_counter() - began)
    return 16 * COPIED / best
