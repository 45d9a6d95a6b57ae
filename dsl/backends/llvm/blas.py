"""BLAS, as SciPy brings it: the addresses of its routines, and its own threads kept still.

In: nothing.  Out: addresses to call from native code.  SciPy is imported when the first program has a product.
"""
from __future__ import annotations

import ctypes
import glob
import os
import threading
from collections.abc import Callable
from functools import cache
from types import TracebackType

NAMES = ("sgemm", "dgemm")


@cache
def routines() -> tuple[int, ...]:
    """The addresses of `NAMES`; their lengths are 32-bit integers."""
    from scipy.linalg import cython_blas
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    name = ctypes.pythonapi.PyCapsule_GetName
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    capsules = (cython_blas.__pyx_capi__[n] for n in NAMES)
    return tuple(pointer(c, name(c)) for c in capsules)


@cache
def _thread_functions() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """How SciPy's OpenBLAS is asked and told its number of threads, if it is an OpenBLAS that can be found."""
    import scipy
    folder = os.path.dirname(os.path.abspath(scipy.__file__))
    for path in sorted(glob.glob(os.path.join(folder + ".libs", "*openblas*")) + glob.glob(os.path.join(folder, ".dylibs", "*openblas*"))):
        library = ctypes.CDLL(path)                             # loaded already: SciPy's BLAS module is linked to it
        for prefix in ("scipy_", ""):
            for suffix in ("", "64_"):
                get = getattr(library, f"{prefix}openblas_get_num_threads{suffix}", None)
                put = getattr(library, f"{prefix}openblas_set_num_threads{suffix}", None)
                if get and put:
                    put.restype = None
                    return get, put
    return None


class OneThread:
    """While any program is in here, OpenBLAS uses no threads of its own; the last one out restores its number."""

    def __init__(self) -> None:
        self.lock, self.inside, self.before = threading.Lock(), 0, 1
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.lock, self.inside = threading.Lock(), 0

    def __enter__(self) -> None:
        functions = _thread_functions()
        with self.lock:
            self.inside += 1
            if functions and self.inside == 1:
                self.before = functions[0]()
                if self.before != 1:
                    functions[1](1)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        functions = _thread_functions()
        with self.lock:
            self.inside -= 1
            if functions and self.inside == 0 and self.before != 1:
                functions[1](self.before)


ONE_THREAD = OneThread()
