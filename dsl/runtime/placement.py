"""`device auto`: whether a program runs on the CPU or on a GPU.

In: what a program does (`Work`, counted by `dsl/loops/cost.py`), what the CPU does a second (`Processor`), and what a step takes on
the GPU by the estimate of its backend (`dsl/backends/cuda/choice.py`).  Out: a `Choice`: the seconds that each of them would take,
which of them it is to be, and that in words.

A step takes the CPU as long as the longer of its arithmetic and its memory traffic, and on top for each kernel the time in which
threads begin and wait for each other.  Before the first step arrays cross to where they are used, and on a GPU the program is
compiled.  Estimates are within a factor of two or so: a GPU has to be faster by `MARGIN` to be taken.
"""
from __future__ import annotations

from collections.abc import Mapping

from dsl.loops import ir
from dsl.loops.cost import cost, value
from dsl.record import entity

MARGIN = 1.5
"""A GPU is taken where the CPU would take that many times as long."""
SHORT = 0.2
"""Seconds: what the CPU does in less stays there."""
START = 2.0
"""Seconds until a GPU that was not used so far makes its first step: CuPy, the device, NVRTC."""
COMPILE = 0.7
"""Seconds until a GPU that was used before makes the first step of a new program."""
LINK = 10e9
"""Bytes a second between the CPU's memory and the GPU's."""
CALLS = 20
"""How often a function is called, for all that is known."""
LANES, DOUBLE = 128, 1 / 32
"""Operations of a GPU's processor in a cycle, and that in float64 where it is not made for it."""


@entity
class Work:
    """`calls` times `steps` times: scalar `operations`, `bytes` of arrays read and written, `kernels` one after the other, `serial`
    operations of one thread.  `host` and `device` are bytes of arrays that lie on the CPU's and the GPU's side before each call."""

    steps: int
    operations: int
    bytes: int
    kernels: int
    serial: int = 0
    host: int = 0
    device: int = 0
    calls: int = 1


@entity
class Processor:
    """What a CPU does a second: `operations` in all threads and `alone` in one after the other, `bytes` of its memory; `kernel`: seconds
    for which all threads wait at each kernel."""

    operations: float
    alone: float
    bytes: float
    kernel: float

    def step(self, work: Work) -> float:
        return max(work.operations / self.operations, work.bytes / self.bytes) + work.serial / self.alone + work.kernels * self.kernel


def processor(threads: int) -> Processor:
    """A thread does about 4e9 operations a second in vector lanes and 1e9 one after the other, and copies 8 GB/s; all of them together
    not more than 60."""
    return Processor(4e9 * threads, 1e9, min(8e9 * threads, 60e9), 0.2e-6 if threads == 1 else 2e-6)


@entity
class Choice:
    gpu: bool
    cpu_seconds: float
    gpu_seconds: float
    name: str = "GPU"

    @property
    def words(self) -> str:
        """on the GPU (NVIDIA H100): 2 s there, 60 s on the CPU, by estimate"""
        here, there = in_words(self.cpu_seconds), in_words(self.gpu_seconds)
        if self.gpu:
            return f"on the GPU ({self.name}): {there} there, {here} on the CPU, by estimate"
        return f"on the CPU: {here} there, {there} on the GPU, by estimate"


def in_words(seconds: float) -> str:
    for unit, length in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}" if seconds < 1000 else f"{seconds:,.0f} s"
    return f"{seconds / 1e-6:.3g} us"


def choose(work: Work, cpu: Processor, gpu_step: float, start: float, name: str = "GPU") -> Choice:
    """The faster of the two, the CPU if there is not much to gain; `gpu_step`: seconds of a step there; `start`: before the first."""
    here = work.calls * (work.device / LINK + work.steps * cpu.step(work))
    there = start + work.calls * (work.host / LINK + work.steps * gpu_step)
    return Choice(here > SHORT and here > MARGIN * there, here, there, name)


def work_of(program: ir.Program, sizes: Mapping[str, int], steps: int | None = None, host: int = 0, device: int = 0,
            calls: int = 1) -> Work:
    """What `calls` calls of a program do, or `steps` steps of one that is a training loop."""
    found = cost(program)
    found = found.step if steps is not None else found
    parts = [(p, value(p.times, sizes)) for p in found.parts if not p.seldom]
    many = [(p, times) for p, times in parts if p.statement is not None]
    return Work(1 if steps is None else steps, sum(times * value(p.each.operations, sizes) for p, times in many),
                sum(times * (value(p.each.read, sizes) + value(p.each.written, sizes)) for p, times in many),
                sum(times for _, times in many), sum(times * value(p.each.operations, sizes) for p, times in parts if p.statement is None),
                host, device, calls)


def in_float64(program: ir.Program, work: Work, processors: int, clock: float) -> float:
    """Seconds more that a step takes on a GPU that is slow at float64; 0 if the program has none."""
    if all(b.dtype != "float64" for b in (*program.passed, *program.scratch)):
        return 0.0
    return work.operations / (processors * LANES * DOUBLE * clock)
