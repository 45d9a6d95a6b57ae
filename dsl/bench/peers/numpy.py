"""NumPy, the matrix products alone, and Python floats.

In: the arrays of a work.  Out: the work made ready, as one writes it by hand, in place where that is usual.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dsl.bench.data import Given, array_numbers, network_numbers, step_numbers
from dsl.bench.work import Prepared


def versions() -> dict[str, str]:
    return {"numpy": np.__version__}


def configure(device: str, threads: int) -> None:
    """The threads of the BLAS are set before the process starts."""


def linreg(given: Given) -> Prepared:
    x, y, w, b = (given[n] for n in ("x", "y", "w", "b"))

    def run() -> Any:
        residual = x * w + b - y
        return np.mean(residual * residual), 2 * np.mean(residual * x), 2 * np.mean(residual)
    return Prepared(run, step_numbers)


def logistic(given: Given) -> Prepared:
    x, y, w, b = (given[n] for n in ("x", "y", "w", "b"))

    def run() -> Any:
        z = x * w + b
        residual = 1 / (1 + np.exp(-z)) - y
        return np.mean(np.logaddexp(np.float32(0), z) - y * z), np.mean(residual * x), np.mean(residual)
    return Prepared(run, step_numbers)


def chain(given: Given) -> Prepared:
    x = given["x"]
    return Prepared(lambda: np.tanh(x) * np.exp(-x * x) + np.log1p(x * x), array_numbers)


def axpb(given: Given) -> Prepared:
    x, a = given["x"], given["a"]
    return Prepared(lambda: a * x + x * x, array_numbers)


def logreg100(given: Given) -> Prepared:
    X, y, rate = given["X"], given["y"], given["rate"]
    w, b = np.zeros(X.shape[1], np.float32), np.zeros((), np.float32)

    def reset() -> None:
        w[:], b[()] = 0, 0

    def run() -> Any:
        z = X @ w + b
        residual = 1 / (1 + np.exp(-z)) - y
        residual /= np.float32(len(y))
        cost = np.mean(np.logaddexp(np.float32(0), z) - y * z)
        w[:] -= rate * (residual @ X)
        b[()] -= rate * residual.sum()
        return cost
    return Prepared(run, lambda cost: {"cost": cost, "w": w.copy(), "b": b.copy()}, reset)


def network(given: Given) -> Prepared:
    X, y, batch, rate = given["X"], given["y"], given["batch"], given["rate"]
    W1, b1, W2, b2 = parameters = [given[n].copy() for n in ("W1", "b1", "W2", "b2")]
    rows = np.arange(batch)

    def reset() -> None:
        for parameter, name in zip(parameters, ("W1", "b1", "W2", "b2"), strict=True):
            parameter[...] = given[name]

    def run() -> float:
        cost = 0.0
        for _ in range(given["epochs"]):
            for start in range(0, len(X), batch):
                x, classes = X[start:start + batch], y[start:start + batch]
                hidden = np.tanh(x @ W1 + b1)
                z = hidden @ W2 + b2
                z -= z.max(axis=1, keepdims=True)
                e = np.exp(z)
                total = e.sum(axis=1, keepdims=True)
                cost += float(np.mean(np.log(total[:, 0]) - z[rows, classes]))
                dz = e / total
                dz[rows, classes] -= 1
                dz /= np.float32(batch)
                dhidden = (dz @ W2.T) * (1 - hidden * hidden)
                W2[...] -= rate * (hidden.T @ dz)
                b2[...] -= rate * dz.sum(axis=0)
                W1[...] -= rate * (x.T @ dhidden)
                b1[...] -= rate * dhidden.sum(axis=0)
        return cost
    return Prepared(run, lambda _: network_numbers(given, *parameters), reset)


def products(given: Given) -> Prepared:
    """The five products of a step of the network, of the same shapes, into arrays made before: two on the way there, and
    both weights' gradients and the hidden layer's on the way back."""
    X, W1, W2, batch = given["X"], given["W1"], given["W2"], given["batch"]
    hidden, z = np.empty((batch, W1.shape[1]), np.float32), np.empty((batch, W2.shape[1]), np.float32)
    dW1, dW2, dhidden = np.empty_like(W1), np.empty_like(W2), np.empty_like(hidden)

    def run() -> None:
        for _ in range(given["epochs"]):
            for start in range(0, len(X), batch):
                x = X[start:start + batch]
                np.matmul(x, W1, out=hidden)
                np.matmul(hidden, W2, out=z)
                np.matmul(hidden.T, z, out=dW2)
                np.matmul(z, W2.T, out=dhidden)
                np.matmul(x.T, dhidden, out=dW1)
    return Prepared(run, lambda _: {})


# ---------------------------------------------------------------- Python floats
def tutorial(given: Given) -> Prepared:
    X, Y, rate, epochs = given["X"].tolist(), given["Y"].tolist(), given["rate"], given["epochs"]

    def run() -> tuple[float, float, float]:
        w = b = mean = 0.0
        for _ in range(epochs):
            total = 0.0
            for x, y in zip(X, Y, strict=True):
                residual = x * w + b - y
                total += residual * residual
                w, b = w - rate * (2 * residual * x), b - rate * (2 * residual)
            mean = total / len(X)
        return w, b, mean
    return Prepared(run, lambda result: dict(zip(("w", "b", "cost"), result, strict=True)))


def scan(given: Given) -> Prepared:
    r, start, steps = given["r"], given["start"], given["size"]

    def run() -> float:
        x: float = start
        for _ in range(steps):
            x = r * x * (1 - x)
        return x
    return Prepared(run, lambda last: {"last": last})


TABLE: dict[str, dict[str, Callable[[Given], Prepared]]] = {
    "numpy": {"linreg": linreg, "memory": linreg, "logistic": logistic, "chain": chain, "axpb": axpb, "logreg100": logreg100,
              "mlp": network, "wide": network},
    "blas": {"wide": products},
    "python": {"tutorial": tutorial, "scan": scan},
}
