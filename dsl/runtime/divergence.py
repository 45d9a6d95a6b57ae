"""When training meets a nan: what, at which step, and which term made it.

In: a step's function, its leaves and its results.  Out: whether something became nan or infinite, and the diagnostic that
names the first term of the script whose operands were finite and whose value is not.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dsl.errors import Diverged, LrError, Span, error
from dsl.ir.node import Node, Origins
from dsl.runtime.compute import LeafKey
from dsl.runtime.steps import StepFunction


def all_finite(results: Sequence[Any]) -> bool:
    """Whether every result is surely finite; False calls for a closer look."""
    for value in results:
        if value.ndim == 0:
            if value.dtype.kind == "f" and not value - value == 0:
                return False
        elif value.dtype.kind == "f":
            total = np.add.reduce(value, axis=None)
            if not total - total == 0:
                return False
    return True


def went_bad(costs: Sequence[tuple[str, Any]], before: Mapping[str, float], changes: Sequence[tuple[LeafKey, Any]],
             state: Mapping[LeafKey, Any]) -> bool:
    """Whether a cost or a state became nan, or went from finite to infinite."""
    for name, cost in costs:
        if math.isnan(cost) or (math.isinf(cost) and math.isfinite(before.get(name, math.inf))):
            return True
    for key, new in changes:
        if new.dtype.kind == "f" and not np.isfinite(new).all():
            old = state[key]
            if np.any((np.isnan(new) & ~np.isnan(old)) | (np.isinf(new) & np.isfinite(old))):
                return True
    return False


def divergence(function: StepFunction, costs: Sequence[tuple[str, Any]], changes: Sequence[tuple[LeafKey, Any]], step: int,
               origins: Origins, span: Span) -> LrError:
    """The error of a step that diverged."""
    candidates = [(f"the cost `{n}`", c) for n, c in costs] + [(f"`{k[1]}`", v) for k, v in changes if k[0] == "shared"] + \
        [(f"`{k[1]}`", v) for k, v in changes if k[0] != "shared"]
    what, value = next(((w, v) for w, v in candidates if np.isnan(v).any()), None) or \
        next((w, v) for w, v in candidates if not np.isfinite(v).all())
    became = "nan" if np.isnan(value).any() else "infinite"
    culprit, place, note = first_bad(function, origins)
    domain = culprit is not None and culprit.op.name in ("log", "log1p", "sqrt", "div", "pow", "asin", "acos", "logit")
    return error("E0720", f"training diverged at step {step}: {what} became {became}", place or span, note, kind=Diverged,
                 notes=(f"the state is that of step {step - 1}",),
                 help="keep its operand inside the domain, for example with `maximum(x, 1e-12)`, or try a smaller rate" if domain else
                 "try a smaller rate, `clip norm 1`, or scaled data (`standardize`)")


def first_bad(function: StepFunction, origins: Origins) -> tuple[Node | None, Span | None, str]:
    """The first term whose operands are finite and whose value is not, where it stands, and what it gave."""
    executable = function.compiled.executable
    values = executable.trace(function.leaves)
    for node, value in values.items():
        if node.args and _not_finite(value) and not any(_not_finite(values[a]) for a in node.args):
            name = node.op.symbol[0] if node.op.symbol else node.op.name
            operands = ", ".join(telling(values[a], value) for a in node.args[:3])
            return node, origins.span(node), f"`{name}` first gave {telling(value)} here, from {operands}"
    return None, None, ""


def _not_finite(value: Any) -> bool:
    return bool(value.dtype.kind == "f" and not np.isfinite(value).all())


def telling(value: Any, result: Any = None) -> str:
    """One number of an array: the first that is not finite, or the one where `result` is not."""
    array = np.asarray(value)
    if array.ndim == 0:
        return f"{array.item():.6g}" if array.dtype.kind == "f" else str(array.item())
    if result is not None and np.shape(result) == array.shape and _not_finite(np.asarray(result)):
        return f"{array[~np.isfinite(result)].flat[0]:.6g}"
    if _not_finite(array):
        return f"{array[~np.isfinite(array)].flat[0]:.6g}"
    return f"an array of shape {array.shape}"
