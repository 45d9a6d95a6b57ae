"""Numba: the loops written by hand; `parallel` and `fastmath` on full batches, neither in loops that carry state.

In: the arrays of a work.  Out: the work made ready.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dsl.bench.data import Given, array_numbers, step_numbers
from dsl.bench.work import Prepared


def versions() -> dict[str, str]:
    import numba
    return {"numba": numba.__version__}


def configure(device: str, threads: int) -> None:
    import numba
    numba.set_num_threads(threads)


def tutorial(given: Given) -> Prepared:
    import numba
    X, Y, epochs, rate = given["X"], given["Y"], given["epochs"], given["rate"]

    def train(X: Any, Y: Any, epochs: Any, rate: Any) -> Any:
        w = b = mean = 0.0
        for _ in range(epochs):
            total = 0.0
            for i in range(X.size):
                residual = X[i] * w + b - Y[i]
                total += residual * residual
                w, b = w - rate * (2 * residual * X[i]), b - rate * (2 * residual)
            mean = total / X.size
        return w, b, mean
    compiled = numba.njit(train)
    return Prepared(lambda: compiled(X, Y, epochs, rate), lambda result: dict(zip(("w", "b", "cost"), result, strict=True)))


def linreg(given: Given) -> Prepared:
    import numba
    prange = numba.prange

    def step(x: Any, y: Any, w: Any, b: Any) -> Any:
        cost = slope = intercept = 0.0                   # float64: in float32 the cost of 10^8 rows is 0.3 percent off
        for i in prange(x.size):
            residual = x[i] * w + b - y[i]
            cost += residual * residual
            slope += residual * x[i]
            intercept += residual
        return cost / x.size, 2 * slope / x.size, 2 * intercept / x.size
    compiled = numba.njit(step, parallel=True, fastmath=True)
    x, y, w, b = (given[n] for n in ("x", "y", "w", "b"))
    return Prepared(lambda: compiled(x, y, w, b), step_numbers)


def logistic(given: Given) -> Prepared:
    import numba
    prange, one, zero = numba.prange, np.float32(1), np.float32(0)

    def step(x: Any, y: Any, w: Any, b: Any) -> Any:
        cost = slope = intercept = 0.0
        for i in prange(x.size):
            z = x[i] * w + b
            small = math.exp(-abs(z))
            residual = (one if z > zero else small) / (one + small) - y[i]
            cost += max(z, zero) + math.log1p(small) - y[i] * z
            slope += residual * x[i]
            intercept += residual
        return cost / x.size, slope / x.size, intercept / x.size
    compiled = numba.njit(step, parallel=True, fastmath=True)
    x, y, w, b = (given[n] for n in ("x", "y", "w", "b"))
    return Prepared(lambda: compiled(x, y, w, b), step_numbers)


def chain(given: Given) -> Prepared:
    import numba
    prange = numba.prange

    def run(x: Any) -> Any:
        out = np.empty_like(x)
        for i in prange(x.size):
            out[i] = math.tanh(x[i]) * math.exp(-x[i] * x[i]) + math.log1p(x[i] * x[i])
        return out
    compiled, x = numba.njit(run, parallel=True, fastmath=True), given["x"]
    return Prepared(lambda: compiled(x), array_numbers)


def axpb(given: Given) -> Prepared:
    import numba
    prange = numba.prange

    def run(a: Any, x: Any) -> Any:
        out = np.empty_like(x)
        for i in prange(x.size):
            out[i] = a * x[i] + x[i] * x[i]
        return out
    compiled, a, x = numba.njit(run, parallel=True, fastmath=True), given["a"], given["x"]
    return Prepared(lambda: compiled(a, x), array_numbers)


def scan(given: Given) -> Prepared:
    import numba

    def run(r: Any, x: Any, steps: Any) -> Any:
        for _ in range(steps):
            x = r * x * (1 - x)
        return x
    compiled = numba.njit(run)
    return Prepared(lambda: compiled(given["r"], given["start"], given["size"]), lambda last: {"last": last})


TABLE: dict[str, dict[str, Callable[[Given], Prepared]]] = {
    "numba": {"tutorial": tutorial, "linreg": linreg, "memory": linreg, "logistic": logistic, "chain": chain, "axpb": axpb, "scan": scan},
}
