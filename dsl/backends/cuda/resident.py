"""A whole program launched as one kernel.

In: a `Whole` program, arrays, scalars and sizes, and a `Shape`: how many blocks, of how many threads.  Out: the arrays, and whether a
fault was met.

The host makes memory for every array, writes down where each is, launches once and fetches the results.  What is small goes there
and comes back in one piece (`staging.py`), which is kept for the next call like this one.  With one block, the smallest arrays that
fit lie in its shared memory.  Scratch of a call is let go when it ends: the launcher's pool keeps it.
"""
from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from dsl.backends.cuda.driver import PRIVATE_BYTES
from dsl.backends.cuda.launch import Argument, Launcher, Place
from dsl.backends.cuda.launch import Array as HostArray
from dsl.backends.cuda.memory import Memory, kept
from dsl.backends.cuda.parameters import Parameter
from dsl.backends.cuda.runs import WARP, run_count
from dsl.backends.cuda.staging import SMALL, Part, Staging
from dsl.backends.cuda.whole import Array, Whole
from dsl.ir.types import Dim
from dsl.ir.types import product as elements
from dsl.loops.interpret import lengths
from dsl.loops.ir import size_names
from dsl.loops.python_code import NUMPY
from dsl.machine.expr import BITS, Buffer, Const, Extent, Ref
from dsl.record import record

NEAR = 1 << 20
"""Places below are in shared memory."""
ALIGNED = 16
ANY = 1 << 62
"""An extent of which nothing is known."""
KEPT = 8
"""Stagings of a program that are kept."""
STAGED = ("places", "arrived", "fault")
"""What every staging begins with, as parameters call it: where arrays are, the barrier's word, the fault mark."""
PLACES, ARRIVED, FAULT = range(len(STAGED))


@record
class Shape:
    """Of a launch: `blocks` of `threads` each; one block alone has its arrays near, as far as they fit."""

    blocks: int
    threads: int


class WholeProgram:
    def __init__(self, whole: Whole, launcher: Launcher) -> None:
        self.whole, self.launcher = whole, launcher
        self.program = whole.program
        self.function = launcher.load(whole.source, [whole.function])[whole.function.name]
        self.sizes = size_names(whole.program)
        self.flags = any(p.role == "fault" for p in whole.function.parameters)
        self.stagings: dict[Hashable, Staging] = {}

    def run(self, arrays: Sequence[Any], scalars: Sequence[Any], sizes: Mapping[str, int], shape: Shape) -> bool:
        program, launcher = self.program, self.launcher
        values = {r.name: NUMPY[r.dtype](v) for r, v in zip(program.scalars, scalars, strict=True)}
        known = {name: int(sizes[name]) for name in self.sizes}
        shape = self.bounded(known, shape)
        call = _Call(self, dict(zip(program.passed, arrays, strict=True)), known)
        near, shared = self.near(known, shape)
        made: list[Memory] = []
        places = call.staging.here[PLACES]
        for number, array in enumerate(self.whole.arrays):
            if number in near:
                places[number] = near[number]
            elif array.buffer in call.held and array.kind not in ("partials", "private"):
                places[number] = launcher.address(call.held[array.buffer])
            else:
                made.append(Memory(launcher, array.buffer.dtype, self.length(array, known, shape)))
                places[number] = launcher.address(made[-1].held)
        for number, b in enumerate(self.whole.passed, len(self.whole.arrays)):
            places[number] = launcher.address(call.held[b])
        call.staging.send()

        def argument(p: Parameter) -> Argument:
            match p.role, p.what:
                case "buffer", Buffer() as b:
                    return Place(call.held[b], 0, lengths(b.shape, known), b.dtype)
                case "value", Ref() as value:
                    return values[value.name]
                case "size", str() as name:
                    return np.int64(known[name])
                case "places" | "arrived" | "fault" as role, _:
                    return call.staging.place(STAGED.index(role))
                case _:
                    raise AssertionError(f"{p!r}")

        launcher.launch(self.function, shape.blocks, shape.threads, [argument(p) for p in self.whole.function.parameters], shared,
                        shape.blocks > 1)
        call.bring_back()
        return call.ended()

    # ------------------------------------------------------------ what is kept between calls
    def taken(self, parts: tuple[Part, ...]) -> Staging:
        """A staging that nobody else has until it is kept again.  In another queue it might still be in use."""
        return self.stagings.pop((self.launcher.queue(), parts), None) or Staging(self.launcher, parts)

    def keep(self, staging: Staging) -> None:
        for key in list(self.stagings)[:-KEPT + 1]:
            self.stagings.pop(key, None)
        self.stagings[self.launcher.queue(), staging.parts] = staging

    # ------------------------------------------------------------ where arrays are
    def bounded(self, sizes: Mapping[str, int], shape: Shape) -> Shape:
        """A grid of fewer blocks if the private arrays of so many threads would take too much memory; it stays a grid."""
        one = Shape(1, shape.threads)
        size = sum(self.length(a, sizes, one) * (-(-BITS[a.buffer.dtype] // 8)) for a in self.whole.arrays if a.kind == "private")
        return Shape(min(shape.blocks, max(2, PRIVATE_BYTES // max(size, 1))), shape.threads)

    def length(self, array: Array, sizes: Mapping[str, int], shape: Shape) -> int:
        """How many elements an array has."""
        b = array.buffer
        count = prod(lengths(b.shape, sizes))
        threads = shape.blocks * shape.threads
        if array.kind == "partials":
            return count * (self.most_runs(array, sizes) + 1) + 1
        if array.kind == "private":
            assert array.of is not None
            return count * (threads // WARP if array.of.form == "warps" else threads)
        return count

    @staticmethod
    def most_runs(array: Array, sizes: Mapping[str, int]) -> int:
        """The most runs that a kernel can have: a size that is bound in the program is at most what it is here."""
        assert array.of is not None
        kernel, form = array.of.kernel, array.of.form
        total = sum((elements(t.buffer.shape) for t in kernel.totals), start=Dim.of(0)).evaluate(sizes) or 0
        match kernel.extent:
            case Const(value=extent):
                return run_count(form, max(0, int(extent)), total)
            case Extent(dim=dim):
                return run_count(form, max(0, dim.evaluate(sizes) or 0), total)
            case _:
                return run_count(form, ANY, total)

    def near(self, sizes: Mapping[str, int], shape: Shape) -> tuple[dict[int, int], int]:
        """The arrays that lie in shared memory, smallest first, and where; and how many bytes they take."""
        if shape.blocks > 1:
            return {}, 0
        found: dict[int, int] = {}
        end = 0
        by_size = sorted((self.length(a, sizes, shape) * (-(-BITS[a.buffer.dtype] // 8)), number)
                         for number, a in enumerate(self.whole.arrays))
        for size, number in by_size:
            room = -(-max(size, 1) // ALIGNED) * ALIGNED
            if end + room > min(self.launcher.shared_bytes, NEAR):
                break
            found[number] = end
            end += room
        return found, end


class _Call:
    """The arrays that a call was given, and the launcher's memory for each: those of the host that are small lie in a staging."""

    def __init__(self, owner: WholeProgram, given: Mapping[Buffer, Any], sizes: Mapping[str, int]) -> None:
        self.owner, self.given, self.sizes = owner, given, sizes
        self.held: dict[Buffer, Any] = {}
        self.large: dict[Buffer, Memory] = {}
        """What is large and was copied."""
        small: dict[Buffer, HostArray] = {}
        for b, array in given.items():
            if isinstance(array, Memory):
                shape = lengths(b.shape, sizes)
                if (array.element, array.size) != (b.dtype, prod(shape)):
                    raise TypeError(f"{b.name} is {b.dtype}{list(shape)}; given {array.size} elements of {array.element}")
                self.held[b] = array.held
                continue
            host: HostArray = np.asarray(array, b.dtype)
            if host.nbytes <= SMALL:
                small[b] = host
            else:
                self.large[b] = kept(owner.launcher, host)
                self.held[b] = self.large[b].held
        places = len(owner.whole.arrays) + len(owner.whole.passed)
        self.staging = owner.taken((("uint64", places), ("uint32", 1), ("bool", 1), *((b.dtype, host.size) for b, host in small.items())))
        self.staging.here[ARRIVED][...] = self.staging.here[FAULT][...] = 0
        self.small = dict(zip(small, range(len(STAGED), len(STAGED) + len(small)), strict=True))
        """Which array of the staging it is."""
        for b, number in self.small.items():
            self.held[b] = self.staging.there[number]
            self.staging.here[number][...] = small[b].reshape(-1)

    def bring_back(self) -> None:
        """What the launch has written.  A launch that failed says so here, before any array has changed."""
        if self.owner.flags or any(b.role != "input" for b in self.small):
            self.staging.fetch()
        for b, array in self.given.items():
            if b.role != "input" and not isinstance(array, Memory):
                shape = lengths(b.shape, self.sizes)
                array[...] = self.large[b].fetched(shape) if b in self.large else self.staging.here[self.small[b]].reshape(shape)

    def ended(self) -> bool:
        """Whether a fault was met."""
        fault = self.owner.flags and bool(self.staging.here[FAULT][0])
        self.owner.keep(self.staging)
        return fault
