"""The arrays that every side is given, the same bits in every process.

In: the entry of a work and a size.  Out: arrays by name, float32 where the work is; `size` is among them.
"""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsl.bench.work import Absent

Given = dict[str, Any]
CHUNK = 1 << 20
DIGITS = Path(__file__).resolve().parents[2] / "examples" / "data" / "digits.csv"
BATCH, FEATURES, HIDDEN, CLASSES = 32, 64, 64, 10
WIDE_BATCH, WIDE_FEATURES, WIDE_HIDDEN = 256, 784, 512
GPU_BATCH, GPU_HIDDEN = 8192, 4096


def generator() -> np.random.Generator:
    return np.random.default_rng(20240229)


def normal(random: np.random.Generator, *shape: int, scale: float = 1.0) -> NDArray[np.float32]:
    array = random.standard_normal(shape, dtype=np.float32)
    array *= np.float32(scale)
    return array


def line(size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """x normal, y = 2x + 1 + noise, made a chunk at a time so that 10^8 rows take no more room than they fill."""
    random = generator()
    x, y = normal(random, size), normal(random, size, scale=0.3)
    for start in range(0, size, CHUNK):
        part = slice(start, start + CHUNK)
        y[part] += 2 * x[part] + 1
    return x, y


def tutorial(size: int) -> Given:
    X = np.linspace(-1, 1, 101)
    return {"X": X, "Y": 2 * X + 1 + 0.33 * generator().standard_normal(101), "epochs": size // 101, "rate": 0.01}


def linreg(size: int) -> Given:
    x, y = line(size)
    return {"x": x, "y": y, "w": np.float32(0.1), "b": np.float32(0.2)}


def logistic(size: int) -> Given:
    given = linreg(size)
    y = given["y"]
    for start in range(0, size, CHUNK):
        part = slice(start, start + CHUNK)
        y[part] = y[part] > 1
    return given


def elements(size: int) -> Given:
    return {"x": normal(generator(), size), "a": np.float32(1.5)}


def logreg100(size: int) -> Given:
    random = generator()
    X, truth = normal(random, size, 100), normal(random, 100)
    y = (X @ truth + normal(random, size) > 0).astype(np.float32)
    return {"X": X, "y": y, "rate": np.float32(0.1)}


def weights(random: np.random.Generator, inputs: int, hidden: int, scale: float) -> Given:
    return {"W1": normal(random, inputs, hidden, scale=scale), "b1": np.zeros(hidden, np.float32),
            "W2": normal(random, hidden, CLASSES, scale=scale), "b2": np.zeros(CLASSES, np.float32)}


def mlp(size: int) -> Given:
    """The digits in whole batches: 56 steps an epoch."""
    if not DIGITS.exists():
        raise Absent("examples/data/digits.csv is not beside this installation")
    table = np.loadtxt(DIGITS, delimiter=",", skiprows=1, dtype=np.float32)
    table = table[:len(table) // BATCH * BATCH]
    return {"X": np.ascontiguousarray(table[:, :FEATURES]) / np.float32(16), "y": table[:, FEATURES].astype(np.int32),
            **weights(generator(), FEATURES, HIDDEN, 0.1), "batch": BATCH, "epochs": max(1, size * BATCH // len(table)),
            "rate": np.float32(0.1)}


def wide(size: int) -> Given:
    return batches(size, WIDE_BATCH, WIDE_HIDDEN)


def batches(size: int, batch: int, hidden: int) -> Given:
    random = generator()
    rows = size * batch
    return {"X": normal(random, rows, WIDE_FEATURES), "y": random.integers(0, CLASSES, rows, dtype=np.int32),
            **weights(random, WIDE_FEATURES, hidden, 0.03), "batch": batch, "epochs": 1, "rate": np.float32(0.01)}


def logistic_map(size: int) -> Given:
    return {"r": 3.2, "start": 0.5}


# ---------------------------------------------------------------- on a GPU
def repeated(make: Callable[[int], Given]) -> Callable[[int], Given]:
    """Long arrays are not sent to a device but made there: the block that is given, over and over up to the size."""
    def given(size: int) -> Given:
        return make(min(size, CHUNK))
    return given


def whole(block: NDArray[Any], size: int, fill: Callable[[slice, int], None]) -> None:
    """Asks for every part of an array of `size` elements to be filled with as many of the block's."""
    for start in range(0, size, len(block)):
        part = slice(start, min(start + len(block), size))
        fill(part, part.stop - part.start)


def places(size: int) -> NDArray[np.int64]:
    """Of the elements that are compared: evenly spaced, and the last ones."""
    return np.unique(np.concatenate([np.arange(0, size, max(1, size // 64)), np.arange(max(0, size - 64), size)]))


INPUTS: dict[str, Callable[[int], Given]] = {
    "tutorial": tutorial, "linreg": linreg, "memory": linreg, "logistic": logistic, "chain": elements, "axpb": elements,
    "logreg100": logreg100, "mlp": mlp, "wide": wide, "scan": logistic_map, "scan-grad": logistic_map,
    "axpb-gpu": repeated(elements), "chain-gpu": repeated(elements), "linreg-gpu": repeated(linreg),
    "wide-gpu": lambda size: batches(size, GPU_BATCH, GPU_HIDDEN),
}  # fmt: skip


def inputs(entry: str, size: int) -> Given:
    return {**INPUTS[entry](size), "size": size}


# ---------------------------------------------------------------- results
def step_numbers(result: Any) -> dict[str, float]:
    """Of a step with one slope: cost and both gradients."""
    cost, slope, intercept = (float(v) for v in result)
    return {"cost": cost, "gw": slope, "gb": intercept}


def array_numbers(result: Any) -> dict[str, Any]:
    """Of many elements: their sum and 64 of them, evenly spaced."""
    array = np.asarray(result)
    return {"sum": float(array.sum(dtype=np.float64)), "elements": array[::max(1, array.size // 64)][:64].tolist()}


def network_numbers(given: Given, W1: Any, b1: Any, W2: Any, b2: Any) -> dict[str, Any]:
    """Of a trained network: the cost over all rows and the last biases.  Plain NumPy in float64, the same for every peer."""
    W1, b1, W2, b2 = (np.asarray(p, dtype=np.float64) for p in (W1, b1, W2, b2))
    z = np.tanh(given["X"] @ W1 + b1) @ W2 + b2
    z -= z.max(axis=1, keepdims=True)
    chosen = z[np.arange(len(z)), given["y"]]
    return {"cost": float(np.mean(np.log(np.exp(z).sum(axis=1)) - chosen)), "b2": b2.tolist()}
