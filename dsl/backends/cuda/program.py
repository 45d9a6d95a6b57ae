"""A program on a CUDA device, in the way that is the fastest for its sizes.

In: a `Program`, a `Launcher`.  Out: `GpuProgram`, called like the other executors: as one block that stays, as a grid whose blocks run
together (`resident.py`), or as launches that the host makes (`driver.py`).  Each is compiled when it is first taken.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from math import prod
from typing import Any

from dsl.backends.cuda.ahead import AheadProgram, ahead_of
from dsl.backends.cuda.choice import Choice, Figures, choose
from dsl.backends.cuda.driver import CudaProgram, cuda_source
from dsl.backends.cuda.launch import Launcher
from dsl.backends.cuda.memory import Memory, kept
from dsl.backends.cuda.resident import Shape, WholeProgram
from dsl.backends.cuda.whole import stays_on_device, whole_program
from dsl.ir.types import DType
from dsl.loops.ir import Program

BURST = "steps of a burst"
"""A size that changes from call to call and decides nothing."""
KEPT = 64
"""Combinations of sizes whose choices are kept."""


class GpuProgram:
    """`prefix` begins the names of its functions."""

    def __init__(self, program: Program, launcher: Launcher | None = None, prefix: str = "") -> None:
        if launcher is None:
            from dsl.backends.cuda.device import CupyLauncher
            launcher = CupyLauncher()
        self.program, self.launcher, self.prefix = program, launcher, prefix
        self.stays = stays_on_device(program)
        self.choices: dict[tuple[tuple[str, int], ...], Choice] = {}

    @cached_property
    def launched(self) -> CudaProgram | AheadProgram:
        if all(b.role != "state" for b in self.program.passed):
            return CudaProgram(self.program, self.launcher, self.prefix)
        return AheadProgram(self.program, ahead_of(self.program), self.launcher, self.prefix)

    @cached_property
    def whole(self) -> WholeProgram:
        return WholeProgram(whole_program(self.program, self.prefix), self.launcher)

    @cached_property
    def spread(self) -> WholeProgram:
        """The same for a grid."""
        return WholeProgram(whole_program(self.program, self.prefix, grid=True), self.launcher)

    def keep(self, array: Any) -> Memory:
        """A copy on the device, to be passed in the array's place."""
        return kept(self.launcher, array)

    def empty(self, shape: Sequence[int], dtype: DType) -> Memory:
        """Room for an output, to be passed in an array's place: it stays on the device."""
        return Memory(self.launcher, dtype, prod(shape), shape)

    def choice(self, sizes: Mapping[str, int]) -> Choice:
        key = tuple(sorted((name, n) for name, n in sizes.items() if name != BURST))
        found = self.choices.get(key)
        if found is None:
            if len(self.choices) >= KEPT:
                self.choices.clear()
            found = self.choices[key] = choose(self.program, sizes, self.launcher.figures, self.stays)
        return found

    def expected(self, sizes: Mapping[str, int]) -> float:
        """Seconds of a step, by estimate."""
        choice = self.choice(sizes)
        return choice.seconds[choice.way]

    def __call__(self, arrays: Sequence[Any], scalars: Sequence[Any], sizes: Mapping[str, int]) -> bool:
        """Runs the program: `arrays` are the passed buffers in order, written in place.  Whether a fault was flagged."""
        choice = self.choice(sizes)
        if choice.way == "launches":
            return self.launched(arrays, scalars, sizes)
        if choice.way == "one block":
            return self.whole.run(arrays, scalars, sizes, Shape(1, choice.threads))
        together = self.launcher.most_together(self.spread.function, choice.threads, 0)
        return self.spread.run(arrays, scalars, sizes, Shape(max(1, min(self.launcher.most_blocks, together)), choice.threads))


def likely_source(program: Program, sizes: Mapping[str, int], figures: Figures) -> str:
    """What would be compiled on a device with these figures: sizes that are not known count as 1.  Needs no device."""
    stays = stays_on_device(program)
    way = choose(program, sizes, figures, stays).way
    return cuda_source(program) if way == "launches" else whole_program(program, grid=way == "a grid").source


def sources(program: Program, prefix: str = "") -> dict[str, str]:
    """The sources a program may be compiled from: its kernels, and (if it can be one) the whole of it.  Needs no device."""
    found = {"kernels": cuda_source(program, prefix)}
    if stays_on_device(program):
        found["whole"] = whole_program(program, prefix).source
    return found

