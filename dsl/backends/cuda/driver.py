"""Whole programs on a CUDA device.

In: a `Program` and a `Launcher`.  Out: `CudaProgram`, called like the other executors.

The host interprets the statements around the kernels (`dsl/loops/interpret.py`); kernels and products are launched.  Every
array is in the launcher's memory; serial statements that read or write arrays become kernels of one iteration (`serial.py`), and
where the host's own control flow asks for an element, it waits for it.  Scratch of rank 0 that no kernel writes is a variable
of the host and goes to kernels by value.
"""
from __future__ import annotations

from collections.abc import Container, Hashable, Mapping, Sequence
from math import prod
from typing import Any, TypeVar, cast

import numpy as np

from dsl.backends.cuda.flat import flattened
from dsl.backends.cuda.launch import Argument, Array, Launcher, Place
from dsl.backends.cuda.memory import Memory, kept
from dsl.backends.cuda.parameters import Parameter
from dsl.backends.cuda.runs import DEAR, EACH, EACH_OF_DEAR, LANES, WARP, run_count
from dsl.backends.cuda.serial import on_the_device
from dsl.backends.cuda.source import Function, Printed, kernel_source, print_kernels, source_text
from dsl.ir.types import DType
from dsl.loops.interpret import Interpreter, Scope, View, lengths, view
from dsl.loops.ir import If, Kernel, Leave, Loop, Product, Program, Swap, While, expressions, outside_kernels
from dsl.loops.python_code import NUMPY
from dsl.machine.expr import BITS, Buffer, Load, Ref, walk

PRIVATE_BYTES = 1 << 28
"""Memory that the private buffers of a launch may take together; beyond it the grid is smaller."""
KEPT, KEPT_BYTES = 8, 1 << 24
"""Recordings of a program that are kept, and how much scratch one may hold."""


R = TypeVar("R", bound="_Run")


class CudaProgram:
    """A program compiled for a launcher's device; without one, for the current CUDA device through CuPy.

    The functions are named `prefix` and the kernels' names."""

    def __init__(self, program: Program, launcher: Launcher | None = None, prefix: str = "") -> None:
        if launcher is None:
            from dsl.backends.cuda.device import CupyLauncher
            launcher = CupyLauncher()
        self.program, self.variables = on_the_device(flattened(program))
        self.launcher = launcher
        printed = print_kernels(self.program, self.variables, prefix)
        self.source = source_text(printed)
        self.functions = launcher.load(self.source, [f for p in printed for f in p.functions])
        self.kernels = {p.kernel: p for p in printed}
        self.repeats = is_straight(self.program, self.variables)
        self.recordings: dict[Hashable, Recording] = {}

    def keep(self, array: Array) -> Memory:
        """A copy on the device, to be passed in the array's place: what stays there is not copied at every call."""
        return kept(self.launcher, array)

    def empty(self, shape: Sequence[int], dtype: DType) -> Memory:
        """Room for an output, to be passed in an array's place: it stays on the device."""
        return Memory(self.launcher, dtype, prod(shape), shape)

    def __call__(self, arrays: Sequence[Array | Memory], scalars: Sequence[Any], sizes: Mapping[str, int]) -> bool:
        """Runs the program: `arrays` are the passed buffers in order, written in place.  Whether a fault was flagged."""
        there = [a for a in arrays if isinstance(a, Memory)]
        if self.repeats and len({id(a.held) for a in there}) == len(arrays):
            return self.repeated(there, scalars, sizes)
        run = self.run_over(_Run, arrays, scalars, sizes)
        for b, array in zip(self.program.passed, arrays):
            if b.role != "input" and not isinstance(array, Memory):
                array[...] = self.launcher.download(run.place(run.views[b]))
        return run.flagged

    def run_over(self, kind: type[R], arrays: Sequence[Array | Memory], scalars: Sequence[Any], sizes: Mapping[str, int]) -> R:
        named = {b.name: a for b, a in zip(self.program.passed, arrays, strict=True)}
        values = {r.name: s for r, s in zip(self.program.scalars, scalars, strict=True)}
        run = kind(self, named, values, sizes)
        run.run()
        return run

    def repeated(self, arrays: Sequence[Memory], scalars: Sequence[Any], sizes: Mapping[str, int]) -> bool:
        """A run whose launches are those of the last one of its kind, over other arrays."""
        key = (*sizes.items(), *map(repr, scalars), *(a.shape for a in arrays), self.launcher.queue())
        recording = self.recordings.pop(key, None)                # its scratch is that of one run at a time
        if recording is None:
            run = self.run_over(_Recorded, arrays, scalars, sizes)
            flagged, recording = run.flagged, run.recording(arrays)
        else:
            flagged = recording.again(self.launcher, arrays)
        if recording.bytes <= KEPT_BYTES:
            while len(self.recordings) >= KEPT:
                self.recordings.pop(next(iter(self.recordings)))
            self.recordings[key] = recording
        return flagged


def cuda_source(program: Program, prefix: str = "") -> str:
    """The source of a program's kernels, as it is compiled.  Needs no device."""
    return kernel_source(*on_the_device(flattened(program)), prefix)


class _Run(Interpreter):
    """One call of a program."""

    def __init__(self, owner: CudaProgram, arrays: Mapping[str, Any], scalars: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
        self.owner, self.launcher = owner, owner.launcher
        self.partials: dict[tuple[Any, ...], Memory] = {}
        self.fault: Memory | None = None
        self.met = False
        super().__init__(owner.program, arrays, scalars, sizes)

    # ------------------------------------------------------------ memory
    def _passed(self, buffer: Buffer, array: Any) -> View:
        if isinstance(array, Memory):
            shape = lengths(buffer.shape, self.sizes)
            if (array.element, array.size) != (buffer.dtype, prod(shape)):
                raise TypeError(f"{buffer.name} is {buffer.dtype}{list(shape)}; given {array.size} elements of {array.element}")
            return _view(buffer, array, shape)
        given = super()._passed(buffer, array)
        memory = Memory(self.launcher, buffer.dtype, array.size)
        at = _view(buffer, memory, given.shape)
        self.launcher.upload(self.place(at), array)
        return at

    def made(self, buffer: Buffer, shape: Sequence[int]) -> View:
        if buffer in self.owner.variables:
            return view(buffer, np.zeros(1, NUMPY[buffer.dtype]), buffer, 0, ())
        return _view(buffer, Memory(self.launcher, buffer.dtype, prod(shape)), shape)

    def swap(self, a: View, b: View) -> None:
        if a.buffer in self.owner.variables:
            super().swap(a, b)
            return
        left, right = _memory(a), _memory(b)
        left.held, right.held = right.held, left.held

    @staticmethod
    def place(at: View) -> Place:
        """Where a view's elements are now."""
        return _memory(at).place(at.offset, at.shape)

    def kept(self, key: tuple[Any, ...], dtype: DType, count: int) -> Place:
        """Memory for the duration of a launch, kept for the next one of its kind."""
        found = self.partials.get(key)
        if found is None or found.size < count:
            found = self.partials[key] = Memory(self.launcher, dtype, count)
        return Place(found.held, 0, (count,), dtype)

    def fault_mark(self) -> Place:
        if self.fault is None:
            self.fault = Memory(self.launcher, "bool", 1)
            self.fault[0] = False
        return Place(self.fault.held, 0, (1,), "bool")

    @property
    def flagged(self) -> bool:
        """Whether the host or a kernel has met a fault so far."""
        return self.met or (self.fault is not None and bool(self.fault[0]))

    @flagged.setter
    def flagged(self, met: bool) -> None:
        self.met = met

    # ------------------------------------------------------------ launches
    def run_kernel(self, kernel: Kernel, scope: Scope) -> None:
        printed = self.owner.kernels[kernel]
        totals = {t.buffer: prod(lengths(t.buffer.shape, scope.sizes)) for t in kernel.totals}
        runs = run_count(printed.form, scope.count, sum(totals.values()))
        across = max((-(-count // WARP) for count in totals.values()), default=1)
        threads = {
            "threads": runs * WARP if totals else scope.count, "warps": (runs if totals else scope.count) * WARP,
            "columns": runs * across * WARP, "slices": runs,
        }[printed.form]
        most = self._most_blocks(printed, scope)
        if printed.form == "threads" and not totals and most == self.launcher.most_blocks:
            each = EACH_OF_DEAR if (kernel.work.evaluate(scope.sizes) or 0) >= DEAR else EACH
            most = max(most, threads // (LANES * each))
        blocks = min(-(-threads // LANES), most)
        given = _Given(kernel, scope, runs, blocks * LANES, totals)
        if blocks > 0:
            self.launch(printed.main, blocks, given)
        if printed.finish is not None and totals:
            warps = max(len(totals), *totals.values())
            self.launch(printed.finish, max(1, min(-(-warps * WARP // LANES), self.launcher.most_blocks)), given)

    def _most_blocks(self, printed: Printed, scope: Scope) -> int:
        private = [p.what for p in printed.main.parameters if p.role == "private" and isinstance(p.what, Buffer)]
        size = sum(prod(lengths(b.shape, scope.sizes)) * (-(-BITS[b.dtype] // 8)) for b in private)
        owners = LANES // WARP if printed.form == "warps" else LANES
        return max(1, min(self.launcher.most_blocks, PRIVATE_BYTES // (owners * max(size, 1))))

    def launch(self, function: Function, blocks: int, given: _Given) -> None:
        arguments = [self.argument(function, p, given) for p in function.parameters]
        self.launcher.launch(self.owner.functions[function.name], blocks, LANES, arguments)

    def argument(self, function: Function, p: Parameter, given: _Given) -> Argument:
        scope = given.scope
        match p.role, p.what:
            case "buffer", Buffer() as b:
                return self.place(scope.views[b])
            case "variable", Buffer() as b:
                return NUMPY[b.dtype](scope.array(b)[()])
            case "partials", Buffer() as b:
                return self.kept(("partials", b), b.dtype, given.runs * given.totals[b])
            case "private", Buffer() as b:
                owners = given.threads // WARP if self.owner.kernels[given.kernel].form == "warps" else given.threads
                return self.kept(("private", b), b.dtype, owners * prod(lengths(b.shape, scope.sizes)))
            case "unit", Buffer() as b:
                return NUMPY[b.dtype](scope.units[b])
            case "value", Ref() as value:
                return NUMPY[value.dtype](scope.values[value.name])
            case "size", str() as name:
                return np.int64(scope.sizes[name])
            case "fault", _:
                return self.fault_mark()
            case "count", _:
                return np.int64(scope.count)
            case "runs", _:
                return np.int64(given.runs)
            case _:
                raise AssertionError(f"{function.name}: {p!r}")

    def run_product(self, product: Product, scope: Scope) -> None:
        out, a, b = (self.place(scope.views[x]) for x in (product.out, product.a, product.b))
        inner = (a.shape[0 if product.a_transposed else 1], b.shape[1 if product.b_transposed else 0])
        assert inner[0] == inner[1], f"{product.name}: {a.shape} and {b.shape}"
        self.launcher.product(out, a, b, product.a_transposed, product.b_transposed)


class _Recorded(_Run):
    """A run that remembers its launches."""

    def __init__(self, *given: Any) -> None:
        self.launches: list[Launch] = []
        super().__init__(*given)

    def launch(self, function: Function, blocks: int, given: _Given) -> None:
        arguments = [self.argument(function, p, given) for p in function.parameters]
        self.launches.append(Launch(self.owner.functions[function.name], blocks, arguments))
        self.launcher.launch(self.owner.functions[function.name], blocks, LANES, arguments)

    def run_product(self, product: Product, scope: Scope) -> None:
        places = [self.place(scope.views[x]) for x in (product.out, product.a, product.b)]
        self.launches.append(Launch((product.a_transposed, product.b_transposed), 0, places))
        super().run_product(product, scope)

    def recording(self, arrays: Sequence[Memory]) -> Recording:
        own = [*(_memory(v) for b, v in self.views.items() if b.role == "scratch" and b not in self.owner.variables),
               *self.partials.values()]
        return Recording(self.launches, [a.held for a in arrays], self.fault, self.met, sum(m.nbytes for m in own))


class Launch:
    """A function, its blocks and arguments; of a product whether its operands are transposed, and its places."""

    def __init__(self, function: Any, blocks: int, arguments: Sequence[Argument]) -> None:
        self.function, self.blocks, self.arguments = function, blocks, list(arguments)


class Recording:
    """The launches of a run, to be made again over other arrays: `passed` is what the arrays held then."""

    def __init__(self, launches: Sequence[Launch], passed: Sequence[Any], fault: Memory | None, met: bool, size: int) -> None:
        self.launches, self.fault, self.met, self.bytes = launches, fault, met, size
        number = {id(held): i for i, held in enumerate(passed)}
        self.given = [(launch, at, number[id(a.of)]) for launch in launches for at, a in enumerate(launch.arguments)
                      if isinstance(a, Place) and id(a.of) in number]
        self.hold([None] * len(passed))                          # nothing of the caller's is kept

    def hold(self, arrays: Sequence[Any]) -> None:
        for launch, at, number in self.given:
            before: Any = launch.arguments[at]
            launch.arguments[at] = Place(arrays[number], before.offset, before.shape, before.dtype)

    def again(self, launcher: Launcher, arrays: Sequence[Memory]) -> bool:
        self.hold([a.held for a in arrays])
        if self.fault is not None:
            self.fault[0] = False
        for launch in self.launches:
            if isinstance(launch.function, tuple):
                out, a, b = cast("list[Place]", launch.arguments)
                launcher.product(out, a, b, *launch.function)
            else:
                launcher.launch(launch.function, launch.blocks, LANES, launch.arguments)
        self.hold([None] * len(arrays))
        return self.met or (self.fault is not None and bool(self.fault[0]))


def is_straight(program: Program, variables: Container[Buffer]) -> bool:
    """Whether the launches depend on nothing but sizes and scalars."""
    return all(not isinstance(s, If | While | Loop | Leave | Swap) and
               all(not isinstance(e, Load) or e.buffer in variables for e in walk(expressions(s)) if not isinstance(s, Kernel))
               for s in outside_kernels(program.body))


class _Given:
    """What the arguments of a launch are made of."""

    def __init__(self, kernel: Kernel, scope: Scope, runs: int, threads: int, totals: dict[Buffer, int]) -> None:
        self.kernel, self.scope, self.runs, self.threads, self.totals = kernel, scope, runs, threads, totals


def _memory(at: View) -> Memory:
    memory: Any = at.memory
    assert isinstance(memory, Memory)
    return memory


def _view(buffer: Buffer, memory: Memory, shape: Sequence[int]) -> View:
    device: Any = memory
    return view(buffer, device, buffer, 0, shape)
