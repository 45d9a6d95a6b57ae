"""The limit: the work in C, compiled by gcc into a temporary folder and called through ctypes.

In: the arrays of a work.  Out: the work made ready.  Element-wise results go into one array that is written again and
again, which no system that returns a new array can match on large sizes.
"""
from __future__ import annotations

import ctypes
import functools
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dsl.bench.data import Given, array_numbers, step_numbers
from dsl.bench.work import Absent, Prepared

SOURCE = Path(__file__).with_name("loops.c")
WIDE = ["-mprefer-vector-width=512"] if platform.machine() == "x86_64" else []
FLAGS = {
    "exact": ["-O3", "-march=native", "-ffp-contract=off"],
    "exact-fast": ["-O3", "-march=native", "-ffast-math"],
    "fast": ["-O3", "-march=native", *WIDE, "-ffast-math", "-fopenmp"],
}
DOUBLE, FLOAT, LONG, POINTER = ctypes.c_double, ctypes.c_float, ctypes.c_long, ctypes.c_void_p
SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "tutorial":              (DOUBLE, [POINTER, POINTER, LONG, LONG, DOUBLE, POINTER]),
    "logistic_map":          (DOUBLE, [DOUBLE, DOUBLE, LONG]),
    "logistic_map_gradient": (DOUBLE, [DOUBLE, DOUBLE, LONG, POINTER, POINTER]),
    "linreg":                (None,   [POINTER, POINTER, LONG, FLOAT, FLOAT, POINTER]),
    "logistic":              (None,   [POINTER, POINTER, LONG, FLOAT, FLOAT, POINTER]),
    "chain":                 (None,   [POINTER, POINTER, LONG]),
    "axpb":                  (None,   [FLOAT, POINTER, POINTER, LONG]),
}  # fmt: skip


def compiler() -> str:
    found = shutil.which("gcc")
    if found is None:
        raise Absent("gcc is not installed")
    return found


def versions() -> dict[str, str]:
    done = subprocess.run([compiler(), "-dumpfullversion"], capture_output=True, text=True, check=True)
    return {"gcc": done.stdout.strip()}


def configure(device: str, threads: int) -> None:
    """OMP_NUM_THREADS is set before the process starts."""


@functools.cache
def library(build: str) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{build}.so"
        subprocess.run([compiler(), *FLAGS[build], "-shared", "-fPIC", "-o", str(path), str(SOURCE), "-lm"], check=True)
        loaded = ctypes.CDLL(str(path))
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


def at(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def tutorial(build: str) -> Callable[[Given], Prepared]:
    def make(given: Given) -> Prepared:
        train, X, Y = library(build).tutorial, given["X"], given["Y"]
        state = np.zeros(2)
        arguments = (at(X), at(Y), len(X), given["epochs"], given["rate"], at(state))

        def reset() -> None:
            state[:] = 0
        return Prepared(lambda: train(*arguments), lambda cost: {"w": state[0], "b": state[1], "cost": cost}, reset, keeps=(X, Y))
    return make


def step(name: str) -> Callable[[Given], Prepared]:
    def make(given: Given) -> Prepared:
        out = np.zeros(3, np.float32)
        function, x, y = getattr(library("fast"), name), given["x"], given["y"]
        arguments: tuple[Any, ...] = (at(x), at(y), len(x), given["w"], given["b"], at(out))

        def run() -> np.ndarray:
            function(*arguments)
            return out
        return Prepared(run, step_numbers, keeps=(x, y))
    return make


def elements(name: str) -> Callable[[Given], Prepared]:
    def make(given: Given) -> Prepared:
        function, x = getattr(library("fast"), name), given["x"]
        out: np.ndarray = np.zeros_like(x)
        arguments = (at(x), at(out), len(x)) if name == "chain" else (given["a"], at(x), at(out), len(x))

        def run() -> np.ndarray:
            function(*arguments)
            return out
        return Prepared(run, array_numbers, keeps=(x, out))
    return make


def scan(given: Given) -> Prepared:
    function = library("exact").logistic_map
    return Prepared(lambda: function(given["r"], given["start"], given["size"]), lambda last: {"last": last})


def scan_gradient(given: Given) -> Prepared:
    function, states, derivative = library("exact").logistic_map_gradient, np.zeros(given["size"]), np.zeros(1)
    return Prepared(lambda: function(given["r"], given["start"], given["size"], at(states), at(derivative)),
                    lambda last: {"last": last, "derivative": derivative[0]})


TABLE: dict[str, dict[str, Callable[[Given], Prepared]]] = {
    "c": {"tutorial": tutorial("exact"), "linreg": step("linreg"), "memory": step("linreg"), "logistic": step("logistic"),
          "chain": elements("chain"), "axpb": elements("axpb"), "scan": scan, "scan-grad": scan_gradient},
    "c-fast": {"tutorial": tutorial("exact-fast")},
}
