"""Each way in which a GPU may run a training loop, timed beside its estimate: what the constants of `backends/cuda/choice.py` are set by.

In: a GPU.  Out: a table on standard output: seconds of a step as one block, as a grid, as launches; measured, and as estimated.
"""
from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import dsl
from dsl.backends.cuda import choice, program
from dsl.loops.ir import Program

LAYERS = """
precision float32
dim d = {d}, h = {h}, k = {k}
data A = normal({n}, {d})
data y = int(floor({k} * uniform({n})))
vector x[d]
int scalar t
shared W1[d, h] = 0.05 * normal(), b1[h] = 0.0, W2[h, k] = 0.05 * normal(), b2[k] = 0.0
model z = relu(x @ W1 + b1) @ W2 + b2
cost C = xent(z, t)
minimize C wrt all using sgd(rate = 0.01)
"""
LINE = """
precision {precision}
data A = normal({n})
data B = 2 * A + 1
scalar x, y
shared w = 0.0, b = 0.0
cost C = sqr(x * w + b - y)
minimize C wrt all using sgd(rate = 0.01)
"""
ROWS = """
precision float32
data A = normal({n}, {d})
data B = float(normal({n}) > 0)
vector x[{d}]
scalar y
shared w[{d}] = 0.0, b = 0.0
cost C = bce_logits(x @ w + b, y)
minimize C wrt all using sgd(rate = 0.01)
"""


def layers(d: int, h: int, k: int, n: int) -> tuple[str, dict[str, str]]:
    return LAYERS.format(d=d, h=h, k=k, n=n), {"x": "A", "t": "y"}


CASES: dict[str, tuple[str, dict[str, str], int, int]] = {
    "line, 1 sample, float64": (LINE.format(n=1000, precision="float64"), {"x": "A", "y": "B"}, 1, 20_000),
    "line, 1 sample, float32": (LINE.format(n=1000, precision="float32"), {"x": "A", "y": "B"}, 1, 20_000),
    "line, batch 10^4": (LINE.format(n=10_000, precision="float32"), {"x": "A", "y": "B"}, 10_000, 1000),
    "line, batch 10^6": (LINE.format(n=1_000_000, precision="float32"), {"x": "A", "y": "B"}, 1_000_000, 200),
    "logistic 1,000 x 20": (ROWS.format(n=1000, d=20), {"x": "A", "y": "B"}, 1000, 1000),
    "logistic 10^5 x 100": (ROWS.format(n=100_000, d=100), {"x": "A", "y": "B"}, 100_000, 200),
    "MLP 64-64-10, batch 32": (*layers(64, 64, 10, 1024), 32, 2000),
    "MLP 64-64-10, batch 256": (*layers(64, 64, 10, 1024), 256, 1000),
    "MLP 256-256-10, batch 128": (*layers(256, 256, 10, 1024), 128, 500),
    "MLP 784-1024-10, batch 256": (*layers(784, 1024, 10, 1024), 256, 200),
}
"""Script, what stands for its inputs, rows of a step, steps."""


def seconds(source: str, data: Mapping[str, str], batch: int, steps: int, way: str) -> tuple[float, float]:
    """Of a step: measured (median of three), estimated."""
    estimates: list[choice.Choice] = []

    def forced(p: Program, sizes: Mapping[str, int], figures: choice.Figures, whole: bool = True) -> choice.Choice:
        found = choice.choose(p, sizes, figures, whole)
        if way not in found.seconds:
            raise LookupError(f"cannot run as {way}")
        estimates.append(found)
        return replace(found, way=way)  # type: ignore[arg-type]
    program.choose = forced
    try:
        model = dsl.compile(source, device="cuda")
        arrays: dict[str, Any] = {name: model[of] for name, of in data.items()}
        arrays = {n: a.astype(np.int64) if n == "t" else a for n, a in arrays.items()}
        estimates.clear()
        model.train(steps=min(steps, 64), batch=batch, data=arrays)
        taken = []
        for _ in range(3):
            start = time.perf_counter()
            model.train(steps=steps, batch=batch, data=arrays)
            taken.append(time.perf_counter() - start)
    finally:
        program.choose = choice.choose
    return statistics.median(taken) / steps, estimates[-1].seconds[way]  # type: ignore[index]


def main() -> int:
    print(f"{'us a step, measured (estimated)':34}" + "".join(f"{way:>22}" for way in choice.WAYS))
    for name, (source, data, batch, steps) in CASES.items():
        cells = []
        for way in choice.WAYS:
            try:
                got, told = seconds(source, data, batch, max(20, steps // 20) if way == "launches" else steps, way)
                cells.append(f"{got * 1e6:,.2f} ({told * 1e6:,.2f})")
            except (dsl.LrError, LookupError, RuntimeError) as problem:
                cells.append(type(problem).__name__)
                print(f"{name}, {way}: {problem}", file=sys.stderr)
        print(f"{name:34}" + "".join(f"{cell:>22}" for cell in cells), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
