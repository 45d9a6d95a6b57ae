"""Kernels on a CUDA device, through CuPy.

In: sources, memory, launches (`launch.py`).  Out: what the current device makes of them.  CuPy's NVRTC compiles, and the machine
code is kept beside that of LLVM; memory comes from CuPy's pool; everything runs on its current stream, so in order, and only a
download waits.  Products are cuBLAS's (`cupy.matmul`), in float32 without TF32 unless CUPY_TF32 asks for it.

`cupy.RawModule` and `cupy.RawKernel` are not used: they compile with `-ftz=true` whatever their options say, which flushes
denormal numbers of float32 to zero.
"""
from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np

from dsl.backends.cuda.choice import H200, Figures
from dsl.backends.cuda.failures import told
from dsl.backends.cuda.launch import Argument, Array, Place
from dsl.backends.cuda.presence import problem
from dsl.backends.cuda.source import Function
from dsl.backends.llvm.cache import private, read, write
from dsl.ir.types import DType
from dsl.syntax.table import cache_directory

OPTIONS = ("-std=c++17", "--fmad=false")
BLOCKS_OF_A_PROCESSOR = 16


def absent() -> tuple[str, str] | None:
    """What keeps a CUDA device from being used, and what to do about it; None if one is there.  Imports CuPy if it is installed."""
    return problem()


class Kernel:
    """A `cupy.cuda.Function`, and how much dynamic shared memory it may have."""

    def __init__(self, function: Any) -> None:
        self.function, self.shared = function, 0


def passed(argument: Argument) -> Any:
    """As a kernel is given it; to slice an array takes the host longer than all else about it."""
    if not isinstance(argument, Place):
        return argument
    return argument.of[argument.offset:] if argument.offset else argument.of


class CupyLauncher:
    """The current CUDA device.  Raises what CuPy raises if there is none, and what `failures` makes of its errors."""

    @told
    def __init__(self) -> None:
        import cupy
        self.cupy: Any = cupy
        self.driver: Any = cupy.cuda.driver
        attributes = cupy.cuda.Device().attributes
        self.processors: int = attributes["MultiProcessorCount"]
        self.most_blocks: int = BLOCKS_OF_A_PROCESSOR * self.processors
        self.shared_bytes: int = attributes["MaxSharedMemoryPerBlockOptin"]
        self.figures = self.measured(attributes)

    def measured(self, attributes: Mapping[str, int]) -> Figures:
        """What the device says of itself; newer drivers no longer tell clocks, then as the H200's."""
        properties = self.cupy.cuda.runtime.getDeviceProperties(self.cupy.cuda.Device().id)
        name = properties["name"].decode()
        clock = attributes.get("ClockRate", 0) * 1e3 or H200.clock
        bandwidth = 2 * attributes.get("MemoryClockRate", 0) * 1e3 * attributes.get("GlobalMemoryBusWidth", 0) / 8 or H200.bandwidth
        return Figures(name, self.processors, clock, bandwidth, bool(attributes.get("CooperativeLaunch", 0)))

    @told
    def load(self, source: str, functions: Sequence[Function]) -> dict[str, Any]:
        if not functions:
            return {}
        module = self.cupy.cuda.Module()
        module.load(self.machine_code(source))
        return {f.name: Kernel(module.get_function(f.name)) for f in functions}

    def machine_code(self, source: str) -> bytes:
        """Made anew or read from the user's cache directory."""
        decisive = (source, *OPTIONS, self.cupy.cuda.nvrtc.getVersion(), self.cupy.cuda.Device().compute_capability)
        folder = os.path.join(cache_directory(), "kernels")
        path = os.path.join(folder, sha256(repr(decisive).encode()).hexdigest())
        keep = private(folder)
        if keep and (found := read(path)) is not None:
            return found
        made, _ = self.cupy.cuda.compiler.compile_using_nvrtc(source, options=OPTIONS)
        code: bytes = made
        if keep:
            write(path, code)
        return code

    @told
    def allocate(self, dtype: DType, count: int) -> Any:
        """One element more: an array without elements may be read at index 0."""
        return self.cupy.empty(count + 1, dtype=dtype)

    def part(self, of: Any, first: int, end: int, dtype: DType, count: int) -> Any:
        return of[first:end].view(dtype)

    def address(self, of: Any) -> int:
        return int(of.data.ptr)

    def queue(self) -> int:
        return int(self.cupy.cuda.get_current_stream().ptr)

    @told
    def upload(self, place: Place, values: Array) -> None:
        self.array(place).set(np.ascontiguousarray(values, dtype=place.dtype).reshape(place.shape))

    @told
    def download(self, place: Place) -> Array:
        values: Array = self.cupy.asnumpy(self.array(place))
        return values

    @told
    def copy(self, to: Place, source: Place) -> None:
        self.array(to)[...] = self.array(source)

    @told
    def launch(self, function: Any, grid: int, block: int, arguments: Sequence[Argument], shared: int = 0,
               together: bool = False) -> None:
        self.ask_for(function, shared)
        function.function((grid,), (block,), tuple(map(passed, arguments)), shared_mem=shared,
                          enable_cooperative_groups=together)

    @told
    def most_together(self, function: Any, block: int, shared: int) -> int:
        self.ask_for(function, shared)
        return int(self.driver.occupancyMaxActiveBlocksPerMultiprocessor(function.function.ptr, block, shared)) * self.processors

    def ask_for(self, kernel: Kernel, shared: int) -> None:
        """A kernel has 48 KiB of shared memory, with what its source declares, until it asks for more."""
        if shared > kernel.shared:
            self.driver.funcSetAttribute(kernel.function.ptr, self.driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared)
            kernel.shared = shared

    @told
    def product(self, out: Place, a: Place, b: Place, a_transposed: bool, b_transposed: bool) -> None:
        left, right = self.array(a), self.array(b)
        self.cupy.matmul(left.T if a_transposed else left, right.T if b_transposed else right, out=self.array(out))

    @staticmethod
    def array(place: Place) -> Any:
        """The elements as a CuPy array, which shares the memory."""
        return place.of[place.offset:place.offset + place.count].reshape(place.shape)
