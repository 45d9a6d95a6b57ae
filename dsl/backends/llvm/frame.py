"""The frame: what a call hands to native code.

    frame    ::=  bytes needed, workspace, its bytes, threads, pool, sgemm, dgemm, arrays …, scalars …, sizes …

Every field has eight bytes.  The workspace holds the scratch arrays and, for each thread, the private arrays of a kernel.
"""
from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

NEEDED, WORKSPACE, CAPACITY, THREADS, POOL, SGEMM, DGEMM, FIRST = range(8)
_EMPTY = (ctypes.c_int64 * 2)()         # what an array without elements may be read at
NOWHERE = ctypes.addressof(_EMPTY)


class Frame:
    """The frame of one running call, and its workspace."""

    def __init__(self, words: int, threads: int, pool: int, routines: Sequence[int]) -> None:
        self.words = (ctypes.c_int64 * words)()
        self.address = ctypes.addressof(self.words)
        self.words[THREADS], self.words[POOL], self.words[WORKSPACE] = threads, pool, NOWHERE
        self.words[SGEMM:SGEMM + len(routines)] = list(routines)
        self.workspace: Any = None

    def grow(self) -> None:
        """Makes the workspace as large as native code said it needs."""
        size = int(self.words[NEEDED])
        self.workspace, self.words[CAPACITY] = None, 0          # the old one is freed first
        self.workspace = np.empty(size + 128, np.uint8)         # 64 to align it; 64 so that arrays without elements can be read
        start = self.workspace.ctypes.data
        self.words[WORKSPACE], self.words[CAPACITY] = start + -start % 64, size
