"""How a program is launched on a GPU.

In: a program, its sizes, the device's figures.  Out: `Choice`: what a step takes, by estimate, as one block that stays, as a grid whose
blocks run together, and as a launch a kernel with products by cuBLAS; and which is the least.

    a part takes    max(operations / rate, bytes / bandwidth) + what begins and ends it

One block has the rate and the bandwidth of one processor, and waits little; a grid has all processors, and each time that its
blocks wait for each other takes a microsecond or more; a launch takes longer still, and a step ends with the host asking
whether it was good.  A lane makes an operation every `LATENCY` cycles, so that little work on few lanes is slow anywhere.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from dsl.backends.cuda.split import form_of
from dsl.ir.types import product as elements
from dsl.loops.cost import Part, cost, turns, value
from dsl.loops.ir import Kernel, Product, Program
from dsl.record import record

Way = Literal["one block", "a grid", "launches"]
WAYS: tuple[Way, ...] = ("one block", "a grid", "launches")

LATENCY = 6                      # cycles from an operation to the next that needs it, loads from near memory among them
BUSY = 0.5                       # of a processor's lanes, at best, in code that is not only arithmetic
LANES = 128                      # operations of a processor in a cycle
BLOCK_BYTES = 64                 # that a processor moves in a cycle, from L1 and L2
REACHED = 0.75                   # of the bandwidth, by the blocks that run together: too few threads wait for memory
BLOCK_WAIT, GRID_WAIT = 0.4e-6, 2.5e-6
LAUNCH, ANSWER = 30e-6, 15e-6    # seconds of the host for a launch, and until it has an answer
BEGIN = 50e-6                    # and to tell one kernel where all its arrays are
OURS, CUBLAS = 0.1, 0.75         # of the peak in products, by our own code and by cuBLAS
ROW, WARPS = 1000, 16            # cycles of a warp for an iteration that is a warp's, and how many of them a processor has at work
TERM, FAR_TERM = 12, 40          # cycles for each term that a product adds up, of arrays in near memory and in far
MOST_THREADS = 512


@record
class Figures:
    """Of a device: multiprocessors, cycles a second, bytes a second, and whether all blocks of a grid can run together."""

    name: str
    processors: int
    clock: float
    bandwidth: float
    together: bool = True


H200 = Figures("NVIDIA H200", 132, 1.98e9, 4.8e12)
"""What is shown where there is no GPU: its data sheet (NVIDIA, 2024)."""


@record
class Choice:
    """Seconds of a step, by way (without those that cannot be); the least; threads of a block."""

    seconds: Mapping[Way, float]
    way: Way
    threads: int


def choose(program: Program, sizes: Mapping[str, int], figures: Figures, whole: bool = True) -> Choice:
    """`whole`: the program can be one kernel."""
    found = cost(program)
    step = found.step if found.step.parts else found
    parts = [p for p in step.parts if not p.seldom]
    begin = 0.0 if found.step.parts else BEGIN                   # what a loop does once in a burst
    seconds: dict[Way, float] = {}
    if whole:
        seconds["one block"] = begin + sum(_times(p, sizes) * _part(p, sizes, figures, 1) for p in parts)
        if figures.together:
            seconds["a grid"] = begin + sum(_times(p, sizes) * _part(p, sizes, figures, figures.processors) for p in parts)
    seconds["launches"] = sum(_times(p, sizes) * _launched(p, sizes, figures) for p in parts) + ANSWER
    widest = max((_width(p, sizes) for p in parts), default=1)
    threads = min(MOST_THREADS, max(32, -(-widest // 32) * 32))
    return Choice(seconds, min(seconds, key=lambda way: seconds[way]), threads)


def _times(part: Part, sizes: Mapping[str, int]) -> int:
    return value(part.times, sizes)


def _width(part: Part, sizes: Mapping[str, int]) -> int:
    """How many lanes a part has work for."""
    match part.statement:
        case Kernel() as kernel:
            form, _ = form_of(kernel, {})
            count = value(turns(kernel.extent), sizes)
            return max(1, count * 32 if form in ("warps", "columns") else count)
        case Product(out=out):
            return max(32, value(elements(out.shape), sizes) // 4)
        case _:
            return 1


def _rows(part: Part, sizes: Mapping[str, int]) -> int:
    """How many iterations are a warp's each."""
    kernel = part.statement
    return value(turns(kernel.extent), sizes) if isinstance(kernel, Kernel) and form_of(kernel, {})[0] == "warps" else 0


def _arithmetic(part: Part, sizes: Mapping[str, int], lanes: float, figures: Figures) -> float:
    rate = min(_width(part, sizes) / LATENCY, lanes * BUSY) * figures.clock
    return value(part.each.operations, sizes) / rate


def _multiplied(part: Part, sizes: Mapping[str, int], processors: int, figures: Figures, share: float) -> float:
    lanes = min(processors * LANES * share, _width(part, sizes) / LATENCY * 4)
    return value(part.each.flops, sizes) / (2 * lanes * figures.clock)


def _bytes(part: Part, sizes: Mapping[str, int]) -> int:
    return value(part.each.read, sizes) + value(part.each.written, sizes)


def _part(part: Part, sizes: Mapping[str, int], figures: Figures, processors: int) -> float:
    """In a whole program, on so many processors."""
    bandwidth = BLOCK_BYTES * figures.clock if processors == 1 else figures.bandwidth * REACHED
    if part.statement is None:
        return _arithmetic(part, sizes, LANES, figures)
    if isinstance(part.statement, Product):
        terms = value(part.statement.a.shape[0 if part.statement.a_transposed else 1], sizes)
        work = max(_multiplied(part, sizes, processors, figures, OURS), terms * (TERM if processors == 1 else FAR_TERM) / figures.clock)
    else:
        work = max(_arithmetic(part, sizes, processors * LANES, figures), _rows(part, sizes) / (processors * WARPS) * ROW / figures.clock)
    waits = 1 + (isinstance(part.statement, Kernel) and bool(part.statement.totals))
    return max(work, _bytes(part, sizes) / bandwidth) + waits * (BLOCK_WAIT if processors == 1 else GRID_WAIT)


def _launched(part: Part, sizes: Mapping[str, int], figures: Figures) -> float:
    match part.statement:
        case Product():
            work = _multiplied(part, sizes, figures.processors, figures, CUBLAS)
            return max(work, _bytes(part, sizes) / figures.bandwidth, LAUNCH)
        case Kernel(totals=totals):
            work = _arithmetic(part, sizes, figures.processors * LANES, figures)
            return max(work, _bytes(part, sizes) / figures.bandwidth, LAUNCH) + (LAUNCH if totals else 0)
        case _:
            return _arithmetic(part, sizes, LANES, figures) + LAUNCH


def choice_text(choice: Choice, figures: Figures, step: bool) -> str:
    """One line: what each way takes, and which is taken."""
    each = ", ".join(f"{way} {in_words(seconds)}" for way, seconds in choice.seconds.items())
    what = f"one block of {choice.threads} threads" if choice.way == "one block" else choice.way
    return f"on a GPU ({figures.name}, {figures.processors} processors), by estimate{' a step' if step else ''}: {each}; so {what}"


def in_words(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} us"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
