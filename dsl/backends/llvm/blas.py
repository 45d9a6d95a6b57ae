"""BLAS, as SciPy brings it: the addresses of its routines, and its own threads kept still.

In: nothing.  Out: addresses to call from native code.  SciPy's wheels bring an OpenBLAS, which is opened without importing
SciPy: that takes a millisecond, and `scipy.linalg` 400.  Where there is none, SciPy is imported and asked.
"""
from __future__ import annotations

import ctypes
import glob
import os
import threading
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from types import TracebackType
from typing import Any

NAMES = ("sgemm", "dgemm")


@cache
def library() -> ctypes.CDLL | None:
    """SciPy's OpenBLAS with 32-bit lengths, if it can be found."""
    found = find_spec("scipy")
    if found is None or found.origin is None:
        return None
    folder = os.path.dirname(os.path.abspath(found.origin))
    for place in (folder + ".libs", os.path.join(folder, ".dylibs")):
        for path in sorted(glob.glob(os.path.join(place, "*openblas*"))):
            try:
                opened = ctypes.CDLL(path)
            except OSError:
                continue
            if all(_function(opened, f"{name}_") for name in NAMES):
                return opened
    return None


def _function(opened: ctypes.CDLL, name: str) -> Any:
    """A function of OpenBLAS; SciPy's build puts its name before all others."""
    return getattr(opened, f"scipy_{name}", None) or getattr(opened, name, None)


@cache
def routines() -> tuple[int, ...]:
    """The addresses of `NAMES`; their lengths are 32-bit integers."""
    if (opened := library()) is not None:
        return tuple(ctypes.cast(_function(opened, f"{name}_"), ctypes.c_void_p).value or 0 for name in NAMES)
    from scipy.linalg import cython_blas
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    title = ctypes.pythonapi.PyCapsule_GetName
    title.restype, title.argtypes = ctypes.c_char_p, [ctypes.py_object]
    capsules = (cython_blas.__pyx_capi__[name] for name in NAMES)
    return tuple(pointer(c, title(c)) for c in capsules)


@cache
def thread_functions() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """How that OpenBLAS is asked and told its number of threads."""
    opened = library()
    get, put = (opened and _function(opened, f"openblas_{what}_num_threads") for what in ("get", "set"))
    if not (get and put):
        return None
    put.restype = None
    return get, put


class OneThread:
    """While any program is in here, OpenBLAS uses no threads of its own; the last one out restores its number."""

    def __init__(self) -> None:
        self.lock, self.inside, self.before = threading.Lock(), 0, 1
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.lock, self.inside = threading.Lock(), 0

    def __enter__(self) -> None:
        functions = thread_functions()
        with self.lock:
            self.inside += 1
            if functions and self.inside == 1:
                self.before = functions[0]()
                if self.before != 1:
                    functions[1](1)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        functions = thread_functions()
        with self.lock:
            self.inside -= 1
            if functions and self.inside == 0 and self.before != 1:
                functions[1](self.before)


ONE_THREAD = OneThread()
