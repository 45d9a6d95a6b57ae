"""A loop program that is called with NumPy arrays and runs natively.

In: a `Program`, then arrays, scalars and sizes.  Out: the arrays, written in place, and whether a fault was met.

A call packs its arguments into a frame and makes one foreign call, during which the interpreter lock is free.  Frames and
their workspaces are kept for the next call; calls at the same time have one each.
"""
from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dsl.backends.llvm import blas, engine
from dsl.backends.llvm.cache import compiled
from dsl.backends.llvm.engine import Loaded, wide_vectors
from dsl.backends.llvm.frame import FIRST, NOWHERE, Frame
from dsl.backends.llvm.meter import Meter
from dsl.backends.llvm.module import ENTRY, module_text
from dsl.backends.llvm.threads import MOST, POOL
from dsl.ir.types import DType, is_float
from dsl.loops.ir import Kernel, Product, Program, size_names, statements
from dsl.loops.text import listing

FORMATS: dict[DType, str] = {"bool": "?7x", "int32": "i4x", "int64": "q", "float32": "f4x", "float64": "d"}
compilations = 0                        # programs compiled since the start, so that a test can tell that a new size compiles nothing
loads = 0                               # programs whose code came from the cache


def _pointer_by_interface(a: np.ndarray[Any, Any]) -> int:
    return int(a.ctypes.data)


def _pointer_by_layout(a: np.ndarray[Any, Any]) -> int:
    """In CPython `id` is an object's address, and NumPy's binary interface puts the pointer to the elements right after the
    object's head.  Five times faster than to ask."""
    return ctypes.c_int64.from_address(id(a) + _HEAD).value


_HEAD = object.__basicsize__
_SAMPLE = np.zeros(3)
_laid_out = sys.implementation.name == "cpython" and _pointer_by_layout(_SAMPLE[1:]) == _pointer_by_interface(_SAMPLE[1:])
pointer = _pointer_by_layout if _laid_out else _pointer_by_interface


def available_threads() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _count(anew: bool) -> None:
    global compilations, loads
    compilations, loads = compilations + anew, loads + (not anew)


class NativeProgram:
    """`threads` is how many a call may use, its own included; the result does not depend on it.  `meter` counts what it does."""

    def __init__(self, program: Program, *, threads: int | None = None, cache: bool = True, meter: Meter | None = None) -> None:
        self.program, self.meter = program, meter
        self.threads = max(1, min(threads or available_threads(), MOST))
        code, anew = compiled(listing(program), lambda: self.llvm_ir, cache and meter is None)
        _count(anew)
        self._loaded = Loaded(code)
        self._run = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(self._loaded.address(ENTRY))
        self._sizes = size_names(program)
        formats = "q" * len(program.passed) + "".join(FORMATS[s.dtype] for s in program.scalars) + "q" * len(self._sizes)
        self._pack = struct.Struct("=" + formats).pack_into
        self._words = FIRST + len(program.passed) + len(program.scalars) + len(self._sizes)
        self._dtypes = [np.dtype(b.dtype) for b in program.passed]
        met = tuple(statements(program.body))
        if any(isinstance(s, Kernel | Product) for s in met):
            POOL.load()
        self._routines = blas.routines() if any(isinstance(s, Product) and is_float(s.out.dtype) for s in met) else ()
        self._frames: list[Frame] = []

    @property
    def llvm_ir(self) -> str:
        return module_text(self.program, wide_vectors(), self.meter)

    @property
    def optimised_ir(self) -> str:
        return engine.optimised_ir(self.llvm_ir)

    @property
    def assembly(self) -> str:
        return engine.assembly(self.llvm_ir)

    def __call__(self, arrays: Sequence[np.ndarray[Any, Any]], scalars: Sequence[Any], sizes: Mapping[str, int]) -> bool:
        """Runs the program on the arrays that are passed to it, which are C-contiguous and of the right dtype and shape; True if
        it met a fault."""
        for a, dtype in zip(arrays, self._dtypes, strict=True):
            assert a.dtype == dtype and a.flags.c_contiguous, (a.dtype, dtype)
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = Frame(self._words, self.threads, POOL.address, self._routines)
        pointers = [pointer(a) if a.size else NOWHERE for a in arrays]
        lengths = [sizes[name] for name in self._sizes]
        try:
            self._pack(frame.words, 8 * FIRST, *pointers, *scalars, *lengths)
        except OverflowError:                                   # a float beyond float32 becomes an infinity, as NumPy has it
            with np.errstate(over="ignore"):
                rounded = [np.dtype(s.dtype).type(v) for s, v in zip(self.program.scalars, scalars, strict=True)]
            self._pack(frame.words, 8 * FIRST, *pointers, *rounded, *lengths)
        if self._routines:
            with blas.ONE_THREAD:
                answer = self._call(frame)
        else:
            answer = self._call(frame)
        self._frames.append(frame)
        return answer == 1

    def _call(self, frame: Frame) -> int:
        answer: int = self._run(frame.address)
        if answer == 2:
            frame.grow()
            answer = self._run(frame.address)
        return answer
