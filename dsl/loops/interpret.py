"""The loop interpreter: programs run slowly, in Python, and watched.

In: a `Program`, arrays, scalars, sizes.  Out: the arrays, written in place, and whether a `Flag` was raised.  What a program
means is what this module does; code generators are compared with it.

Checked, it stops at what compiled code would do silently: an index outside its axis, a window that sticks out, two
iterations of a kernel that touch one element where one of them writes it, operands an instruction does not take.  Scratch
and private buffers begin poisoned (nan, a large negative number, true); so is what is read of an array without elements.

Another executor can run the kernels and products by itself: a subclass of `Interpreter` overrides `run_kernel` and
`run_product`, which get a `Scope`: the values, sizes and arrays at that point of the program.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from dsl.ir.types import Dim, DType
from dsl.loops.ir import Kernel, Product, Program, size_names
from dsl.loops.python_code import NUMPY, Code, python_code
from dsl.loops.text import dim_text
from dsl.loops.verify import verify
from dsl.machine.expr import Buffer
from dsl.machine.instructions import TABLE
from dsl.record import entity

Array = np.ndarray[Any, np.dtype[Any]]
POISON: dict[DType, Any] = {"bool": True, "int32": -(1 << 30) - 77, "int64": -(1 << 62) - 77, "float32": np.nan, "float64": np.nan}


class Race(AssertionError):
    """Two iterations of a kernel meet in one element."""


@entity
class View:
    """Where a buffer is: `shape` elements of `memory` from `offset` on.  `root` is the buffer whose memory it is."""

    buffer: Buffer
    memory: Array
    root: Buffer
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    array: Array


def view(buffer: Buffer, memory: Array, root: Buffer, offset: int, shape: Sequence[int], note: str = "") -> View:
    count = prod(shape)
    if offset < 0 or min(shape, default=0) < 0 or offset + count > memory.size:
        raise IndexError(f"{buffer.name}{list(shape)} does not fit the {memory.size} elements of {root.name} from {offset} on{_at(note)}")
    strides = tuple(prod(shape[axis + 1:]) for axis in range(len(shape)))
    return View(buffer, memory, root, offset, tuple(shape), strides, memory[offset:offset + count].reshape(shape))


def lengths(shape: Iterable[Dim], sizes: Mapping[str, int]) -> tuple[int, ...]:
    known = tuple(d.evaluate(sizes) for d in shape)
    assert None not in known, f"of {list(map(dim_text, shape))} only {dict(sizes)} is known"
    return tuple(k for k in known if k is not None)


def _at(note: str) -> str:
    return f" in `{note}`" if note else ""


@entity
class Scope:
    """What a kernel or product finds around it.  `count` is the kernel's extent, `units` are the values of its totals' units."""

    values: dict[str, Any]
    sizes: dict[str, int]
    views: dict[Buffer, View]
    count: int
    units: dict[Buffer, Any]

    def array(self, buffer: Buffer) -> Array:
        """The elements of a buffer in scope, a window's being part of its base's; row-major, to be written in place."""
        return self.views[buffer].array

    def length(self, dim: Dim) -> int:
        return lengths((dim,), self.sizes)[0]


class Interpreter:
    """A program over arrays: `run()` runs it.  `runs` is into how many parts a kernel's iterations are cut."""

    def __init__(self, program: Program, arrays: Mapping[str, Array], scalars: Mapping[str, Any], sizes: Mapping[str, int], *,
                 runs: int = 1, check: bool = True) -> None:
        self.program, self.code, self.runs, self.check = program, _code(program, check), runs, check
        self.sizes = {name: int(sizes[name]) for name in size_names(program)}
        self.scalars = {r.name: NUMPY[r.dtype](scalars[r.name]) for r in program.scalars}
        self.views = {b: self._passed(b, arrays[b.name]) for b in program.passed}
        self.views |= {b: self.made(b, lengths(b.shape, self.sizes)) for b in program.scratch}
        self.flagged = False
        self.writers: dict[tuple[Buffer, int], int] = {}
        self.readers: dict[tuple[Buffer, int], int] = {}

    def run(self) -> bool:
        """Whether a fault was flagged."""
        with np.errstate(all="ignore"):
            self.code.main(self)
        return self.flagged

    # ------------------------------------------------------------ what a subclass may do in its own way
    def run_kernel(self, kernel: Kernel, scope: Scope) -> None:
        """All iterations of a kernel, in `runs` runs, each added up from the units; then the runs, in order."""
        self.writers.clear()
        self.readers.clear()
        function = self.code.kernels[kernel]
        totals = [(t.op, scope.array(t.buffer), scope.units[t.buffer]) for t in kernel.totals]
        added: list[Array] = []
        for first, last in pairwise(scope.count * r // self.runs for r in range(self.runs + 1)):
            for _, array, unit in totals:
                array[...] = unit
            function(self, scope, first, last)
            partial = [array.copy() for _, array, _ in totals]
            added = [TABLE[op].numpy(*parts) for (op, _, _), *parts in zip(totals, added, partial, strict=True)] if added else partial
        for (_, array, _), value in zip(totals, added, strict=True):
            array[...] = value

    def run_product(self, product: Product, scope: Scope) -> None:
        """A product in float64, rounded to the dtype."""
        out, a, b = (scope.array(x) for x in (product.out, product.a, product.b))
        a, b = a.T if product.a_transposed else a, b.T if product.b_transposed else b
        if (*a.shape, *b.shape) != (out.shape[0], a.shape[1], a.shape[1], out.shape[1]):
            raise IndexError(f"{product.name}: {list(a.shape)} @ {list(b.shape)} is not {list(out.shape)}")
        out[...] = np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(out.dtype)

    # ------------------------------------------------------------ memory
    def _passed(self, buffer: Buffer, array: Array) -> View:
        wanted, shape = np.dtype(NUMPY[buffer.dtype]), lengths(buffer.shape, self.sizes)
        if array.dtype != wanted or array.shape != shape or not array.flags.c_contiguous:
            raise TypeError(f"{buffer.name} is {wanted}{list(shape)}, row-major; given {array.dtype}{list(array.shape)}")
        return view(buffer, array.reshape(-1), buffer, 0, shape)

    def made(self, buffer: Buffer, shape: Sequence[int]) -> View:
        """Memory of its own for a buffer."""
        made = view(buffer, np.zeros(prod(shape), NUMPY[buffer.dtype]), buffer, 0, shape)
        if self.check:
            self.poison(made)
        return made

    private = made

    def poison(self, at: View) -> None:
        at.array.fill(POISON[at.buffer.dtype])

    def window(self, base: View, buffer: Buffer, start: Any, shape: Sequence[int], note: str) -> View:
        if self.check:
            rows = shape[0] if len(shape) == len(base.shape) else 1
            if not 0 <= start <= base.shape[0] - rows or tuple(shape[len(shape) - len(base.shape) + 1:]) != base.shape[1:]:
                own, whole = f"{buffer.name}{list(shape)}", f"{base.buffer.name}{list(base.shape)}"
                raise IndexError(f"{own} from {start} on sticks out of {whole}{_at(note)}")
        return view(buffer, base.memory, base.root, base.offset + int(start) * base.strides[0], shape, note)

    def reshaped(self, at: View, shape: Sequence[int], note: str) -> View:
        return view(at.buffer, at.memory, at.root, at.offset, shape, note)

    def swap(self, a: View, b: View) -> None:
        a.memory[...], b.memory[...] = b.memory.copy(), a.memory.copy()

    # ------------------------------------------------------------ checked access
    def position(self, at: View, index: Iterable[Any], note: str) -> int:
        place = at.offset
        for i, length, stride in zip(index, at.shape, at.strides, strict=True):
            if not 0 <= i < length:
                raise IndexError(f"{_element(at, index)} is outside {list(at.shape)}{_at(note)}")
            place += int(i) * stride
        return place

    def read(self, at: View, index: Iterable[Any], note: str, iteration: int | None) -> Any:
        if not at.array.size and sum(int(i) * stride for i, stride in zip(index, at.strides, strict=True)) == 0:
            return POISON[at.buffer.dtype]                                          # the very beginning of an array without elements
        place = self.position(at, index, note)
        if iteration is not None:
            key = at.root, place
            if self.writers.get(key, iteration) != iteration:
                raise Race(f"iteration {iteration} reads what {self.writers[key]} writes: {_element(at, index)}{_at(note)}")
            if self.readers.setdefault(key, iteration) != iteration:
                self.readers[key] = -1                                              # several: no iteration may write it
        return at.memory[place]

    def write(self, at: View, index: Iterable[Any], value: Any, note: str, iteration: int | None) -> None:
        place = self.position(at, index, note)
        if iteration is not None:
            key = at.root, place
            if self.writers.setdefault(key, iteration) != iteration:
                raise Race(f"iterations {self.writers[key]} and {iteration} write {_element(at, index)}{_at(note)}")
            if self.readers.get(key, iteration) != iteration:
                raise Race(f"iteration {iteration} writes what another one reads: {_element(at, index)}{_at(note)}")
        at.memory[place] = value


def _element(at: View, index: Iterable[Any]) -> str:
    return f"{at.buffer.name}{[int(i) for i in index]}"


_compiled: WeakKeyDictionary[Program, dict[bool, Code]] = WeakKeyDictionary()


def _code(program: Program, check: bool) -> Code:
    """The program as Python, verified; made once."""
    made = _compiled.setdefault(program, {})
    if check not in made:
        verify(program)
        made[check] = python_code(program, check, Scope)
    return made[check]


def interpret(program: Program, arrays: Mapping[str, Array], scalars: Mapping[str, Any] | None = None,
              sizes: Mapping[str, int] | None = None, *, runs: int = 1, check: bool = True) -> bool:
    """Run a program; `arrays` holds the passed buffers by name and is written in place, rank 0 as 0-d arrays.

    Returns whether a fault was flagged.  Raises IndexError, `Race` and `Unsafe` (ArithmeticError) if `check`."""
    return Interpreter(program, arrays, scalars or {}, sizes or {}, runs=runs, check=check).run()
