"""A loop program that is called with NumPy arrays and runs natively.

In: a `Program`, then arrays, scalars and sizes.  Out: the arrays, written in place, and whether a fault was met.
"""
from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dsl.backends.llvm.engine import Loaded, Optimised, wide_vectors
from dsl.backends.llvm.module import CAPACITY, ENTRY, FIRST, NEEDED, THREADS, WORKSPACE, module_text
from dsl.ir.types import DType
from dsl.loops.ir import Program, size_names

FORMATS: dict[DType, str] = {"bool": "?7x", "int32": "i4x", "int64": "q", "float32": "f4x", "float64": "d"}


class Frame:
    """What one running call needs: the words it is given, and its workspace."""

    def __init__(self, words: int, threads: int) -> None:
        self.words = (ctypes.c_int64 * words)()
        self.address = ctypes.addressof(self.words)
        self.words[THREADS] = threads
        self.workspace: Any = None

    def grow(self) -> None:
        size = int(self.words[NEEDED])
        self.workspace = None                                   # frees the old one first
        self.workspace = np.empty(size + 64, np.uint8)
        start = self.workspace.ctypes.data
        self.words[WORKSPACE], self.words[CAPACITY] = start + -start % 64, size


class NativeProgram:
    def __init__(self, program: Program, *, threads: int | None = None, cache: bool = True) -> None:
        self.program = program
        self.threads = threads or len(os.sched_getaffinity(0))
        self._loaded = Loaded(Optimised(self.llvm_ir).object_code())
        self._run = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(self._loaded.address(ENTRY))
        self._sizes = size_names(program)
        formats = "q" * len(program.passed) + "".join(FORMATS[s.dtype] for s in program.scalars) + "q" * len(self._sizes)
        self._pack = struct.Struct("=" + formats).pack_into
        self._words = FIRST + len(program.passed) + len(program.scalars) + len(self._sizes)
        self._frames: list[Frame] = []

    @property
    def llvm_ir(self) -> str:
        return module_text(self.program, wide_vectors())

    @property
    def optimised_ir(self) -> str:
        return str(Optimised(self.llvm_ir))

    @property
    def assembly(self) -> str:
        return Optimised(self.llvm_ir).assembly()

    def __call__(self, arrays: Sequence[np.ndarray], scalars: Sequence[Any], sizes: Mapping[str, int]) -> bool:
        frame = self._frames.pop() if self._frames else Frame(self._words, self.threads)
        self._pack(frame.words, 8 * FIRST, *[a.ctypes.data for a in arrays], *scalars, *[sizes[name] for name in self._sizes])
        answer = self._run(frame.address)
        if answer == 2:
            frame.grow()
            answer = self._run(frame.address)
        self._frames.append(frame)
        return bool(answer)
