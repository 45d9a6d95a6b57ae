"""Memory for results, used again once nobody holds it.

In: shapes and dtypes.  Out: arrays not yet written.  A large fresh array costs more in page faults than it takes to fill, so the
memory of results that were let go is kept and given out again: at most `KEPT` bytes of it.
"""
from __future__ import annotations

import math
import threading
from collections import deque
from typing import Any

import numpy as np

from dsl.ir.types import DType

LARGE = 1 << 20
"""Bytes from which on memory is kept; below, the allocator does as well."""
KEPT = 1 << 29

Array = np.ndarray[Any, Any]


class Pool:
    """Pieces of memory that no array uses."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.free: list[Array] = []
        self.returned: deque[Array] = deque()

    def empty(self, shape: tuple[int, ...], dtype: DType) -> Array:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size < LARGE:
            return np.empty(shape, dtype)
        with self.lock:
            self.sort_in()
            fits = [i for i, piece in enumerate(self.free) if size <= piece.nbytes <= 2 * size]
            piece = self.free.pop(min(fits, key=lambda i: self.free[i].nbytes)) if fits else None
        lease = _Lease(self, np.empty(size, np.uint8) if piece is None else piece, shape, np.dtype(dtype))
        return np.asarray(lease)

    def take_back(self, piece: Array) -> None:
        """May be called at any time, in the middle of `empty` too: whenever Python finds that nobody holds an array."""
        if piece.nbytes <= KEPT:
            self.returned.append(piece)
            if self.lock.acquire(blocking=False):
                try:
                    self.sort_in()
                finally:
                    self.lock.release()

    def sort_in(self) -> None:
        """What came back is free; the oldest is let go if it is too much."""
        while self.returned:
            self.free.append(self.returned.popleft())
        while sum([p.nbytes for p in self.free]) > KEPT:
            self.free.pop(0)


class _Lease:
    """Who holds a piece of memory: the array made of this and every view of that refer to it, and with the last it goes back."""

    def __init__(self, pool: Pool, piece: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.pool, self.piece = pool, piece
        self.__array_interface__ = {"shape": shape, "typestr": dtype.str, "data": (piece.ctypes.data, False), "version": 3}

    def __del__(self) -> None:
        self.pool.take_back(self.piece)


POOL = Pool()
