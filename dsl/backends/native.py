"""The native backend: graphs as loop programs, compiled for this CPU or for a CUDA device.

In: graphs.  Out: an executable with the interface of the reference's.  A graph that holds an op without loops is run by the
reference.  Where a program meets a fault, the reference runs the same values again and says what and where it was.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dsl.backends.cuda.memory import Memory, on_host
from dsl.backends.numpy import NumpyExecutable
from dsl.backends.pool import POOL
from dsl.ir.node import Node
from dsl.ir.types import DType
from dsl.loops import ir
from dsl.loops.evaluate import program
from dsl.loops.legalise import NotNative

if TYPE_CHECKING:
    from dsl.backends.cuda.launch import Launcher

Array = np.ndarray[Any, Any]


class Runnable(Protocol):
    """A compiled loop program."""

    def __call__(self, arrays: Sequence[Array], scalars: Sequence[Any], sizes: Mapping[str, int]) -> bool:
        """Runs it; true if it met a fault."""
        ...


Compiler = Callable[[ir.Program], Runnable]
Lengths = tuple[dict[str, int], list[tuple[int, ...]]]
"""The sizes, and the shapes that results have then."""


def llvm(made: ir.Program, threads: int | None = None) -> Runnable:
    from dsl.backends.llvm.native import NativeProgram
    return NativeProgram(made, threads=threads)


def cuda(made: ir.Program, launcher: Launcher | None = None) -> Runnable:
    from dsl.backends.cuda.program import GpuProgram
    return GpuProgram(made, launcher)


class NativeExecutable:
    """A graph as a loop program."""

    def __init__(self, roots: Sequence[Node], compiler: Compiler = llvm, tiles: bool = True) -> None:
        self.roots = tuple(roots)
        self.program, self.leaves = program(roots, tiles=tiles)
        self.native = compiler(self.program)
        self.arrays = sum(1 for n in self.leaves if n.rank)
        self.room: Callable[[tuple[int, ...], DType], Any] = getattr(self.native, "empty", POOL.empty)
        self.away = hasattr(self.native, "empty")
        self.lengths: Lengths | None = None
        self.lock = Lock()

    @cached_property
    def reference(self) -> NumpyExecutable:
        return NumpyExecutable(self.roots)

    def set_sizes(self, sizes: Mapping[str, int]) -> Lengths:
        """The lengths from now on; nothing is compiled."""
        lengths = self.lengths
        if lengths is None or lengths[0] != sizes:
            lengths = self.lengths = dict(sizes), [tuple(max(0, d.evaluate(sizes) or 0) for d in root.shape) for root in self.roots]
        return lengths

    def __call__(self, values: Mapping[Node, Any], sizes: Mapping[str, int]) -> list[Any]:
        """The roots' values; `values` gives every leaf's."""
        return list(self.run([values[leaf] for leaf in self.leaves], sizes))

    def run(self, leaves: Sequence[Any], sizes: Mapping[str, int]) -> tuple[Any, ...]:
        """As a call, for leaf values in the order of `leaves`.  Several threads may do so at once.  Raises `FaultAt`.

        What runs on a device takes arrays that lie there, and its results stay there (`Memory`)."""
        known, shapes = self.set_sizes(sizes)
        if self.away:
            inputs: list[Any] = [v if isinstance(v, Memory) else np.ascontiguousarray(v) for v in leaves[:self.arrays]]
            scalars: Sequence[Any] = list(map(on_host, leaves[self.arrays:]))
        else:
            inputs, scalars = [np.ascontiguousarray(v) for v in leaves[:self.arrays]], leaves[self.arrays:]
        outputs = [self.room(shape, root.dtype) for root, shape in zip(self.roots, shapes, strict=True)]
        if self.native([*inputs, *outputs], scalars, known):
            by_leaf = dict(zip(self.leaves, map(on_host, leaves), strict=True))
            with self.lock, np.errstate(all="ignore"):
                self.reference.set_sizes(known)
                return self.reference.run([by_leaf[leaf] for leaf in self.reference.leaves])
        return tuple(outputs) if self.away else tuple(y[()] for y in outputs)


class NativeBackend:
    """`compiler` makes a loop program run; `tiles` says whether it is for vector lanes."""

    name = "cpu"

    def __init__(self, compiler: Compiler = llvm, tiles: Callable[[], bool] = lambda: True) -> None:
        self.compiler, self.tiles = compiler, tiles

    def compile(self, roots: Sequence[Node]) -> NativeExecutable | NumpyExecutable:
        try:
            return NativeExecutable(roots, self.compiler, self.tiles())
        except NotNative:
            return NumpyExecutable(roots)
