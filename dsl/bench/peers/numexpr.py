"""NumExpr: element-wise expressions in one pass over blocks, sums a pass each.

In: the arrays of a work.  Out: the work made ready.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dsl.bench.data import Given, array_numbers, step_numbers
from dsl.bench.work import Prepared


def versions() -> dict[str, str]:
    import numexpr
    return {"numexpr": numexpr.__version__}


def configure(device: str, threads: int) -> None:
    import numexpr
    numexpr.set_num_threads(threads)


def linreg(given: Given) -> Prepared:
    import numexpr
    x, names = given["x"], {n: given[n] for n in ("x", "y", "w", "b")}
    count = np.float32(x.size)

    def run() -> Any:
        residual = numexpr.evaluate("x * w + b - y", names)
        both = {"x": x, "r": residual}
        cost, slope, intercept = (numexpr.evaluate(f"sum({term})", both) for term in ("r * r", "r * x", "r"))
        return cost / count, 2 * slope / count, 2 * intercept / count
    return Prepared(run, step_numbers)


def elements(expression: str) -> Callable[[Given], Prepared]:
    def make(given: Given) -> Prepared:
        import numexpr
        names = {"x": given["x"], "a": given["a"]}
        return Prepared(lambda: numexpr.evaluate(expression, names), array_numbers)
    return make


TABLE = {"numexpr": {"linreg": linreg, "chain": elements("tanh(x) * exp(-x * x) + log1p(x * x)"), "axpb": elements("a * x + x * x")}}
