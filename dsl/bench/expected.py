"""What the work on a GPU comes to, by NumPy: every side is compared with it before anything is timed.

In: the entry of a work and a size.  Out: numbers, made of the block that long arrays repeat.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsl.bench.data import Given, inputs, places
from dsl.bench.peers.numpy import network


def expected(entry: str, size: int) -> dict[str, Any] | None:
    """What a GPU's work comes to, by NumPy; None where a peer tells."""
    if entry not in EXPECTED:
        return None
    return EXPECTED[entry](inputs(entry, size))


def elements_expected(form: Callable[[Any, Any], Any]) -> Callable[[Given], dict[str, Any]]:
    def numbers(given: Given) -> dict[str, Any]:
        size, y = given["size"], form(np.float64(given["a"]), given["x"].astype(np.float64))
        whole_blocks, rest = divmod(size, len(y))
        return {"sum": float(whole_blocks * y.sum() + y[:rest].sum()), "elements": y[places(size) % len(y)].tolist()}
    return numbers


def step_expected(given: Given) -> dict[str, Any]:
    x, y, size = given["x"].astype(np.float64), given["y"].astype(np.float64), given["size"]
    residual = np.float64(given["w"]) * x + np.float64(given["b"]) - y
    whole_blocks, rest = divmod(size, len(x))

    def mean(terms: NDArray[np.float64]) -> float:
        return float((whole_blocks * terms.sum() + terms[:rest].sum()) / size)
    return {"cost": mean(residual * residual), "gw": 2 * mean(residual * x), "gb": 2 * mean(residual)}


def tutorial_expected(given: Given) -> dict[str, Any]:
    w = b = mean = 0.0
    for _ in range(given["epochs"]):
        total = 0.0
        for x, y in zip(given["X"].tolist(), given["Y"].tolist(), strict=True):
            residual = x * w + b - y
            total += residual * residual
            w, b = w - given["rate"] * (2 * residual * x), b - given["rate"] * (2 * residual)
        mean = total / len(given["X"])
    return {"w": w, "b": b, "cost": mean}


def network_expected(given: Given) -> dict[str, Any]:
    prepared = network(given)
    prepared.run()
    return dict(prepared.numbers(None))


EXPECTED: dict[str, Callable[[Given], dict[str, Any]]] = {
    "axpb-gpu": elements_expected(lambda a, x: a * x + x * x),
    "chain-gpu": elements_expected(lambda a, x: np.tanh(x) * np.exp(-x * x) + np.log1p(x * x)),
    "linreg-gpu": step_expected, "tutorial": tutorial_expected, "mlp": network_expected, "wide-gpu": network_expected,
}  # fmt: skip
