"""When training meets a nan: what, at which step, and which term made it.

In: a step's function, its leaves and its results.  Out: what became nan or infinite, and the diagnostic that names the
term of the script that it came from.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsl.errors import Diverged, LrError, Span, error
from dsl.ir.node import Node, Origins
from dsl.ops.leaves import is_leaf, leaf_name
from dsl.runtime.compute import LeafKey
from dsl.runtime.steps import StepFunction

DOMAINS = ("log", "log1p", "sqrt", "div", "pow", "asin", "acos", "logit")
"""Ops that are not finite outside, or at the edge of, their domain."""


@dataclass
class Bad:
    """A result that went bad: its place among the results, what it is and what it became."""

    place: int
    what: str
    became: str


def find_bad(function: StepFunction, results: Sequence[Any], state: Mapping[LeafKey, Any]) -> Bad | None:
    """The first cost, else variable, else slot that became nan, or went from finite to infinite.

    A cost that is infinite from the start, and state that was infinite before, are so on purpose."""
    for i, name in enumerate(function.watched[:function.costs]):
        cost = float(results[i])
        if math.isnan(cost) or (math.isinf(cost) and function.results and math.isfinite(function.results[i])):
            return Bad(i, f"the cost `{name}`", "nan" if math.isnan(cost) else "infinite")
    changes = list(enumerate(function.targets, function.first))
    for i, key in sorted(changes, key=lambda change: change[1][0] != "shared"):
        new, old = results[i], state[key]
        if new.dtype.kind == "f" and not np.isfinite(new).all():
            what = f"`{key[1]}`" if key[0] == "shared" else f"{key[1]} (of an optimiser)"
            if np.any(np.isnan(new) & ~np.isnan(old)):
                return Bad(i, what, "nan")
            if np.any(np.isinf(new) & np.isfinite(old)):
                return Bad(i, what, "infinite")
    return None


def divergence(function: StepFunction, taken: Sequence[Any], bad: Bad, step: int, origins: Origins, span: Span) -> LrError:
    """The error of a step that diverged."""
    culprit, values, turn = source(function, taken, bad.place)
    place = origins.span(culprit)
    if culprit.args:
        name = culprit.op.symbol[0] if culprit.op.symbol else culprit.op.name
        operands = ", ".join(telling(values[a], values[culprit]) for a in culprit.args[:3])
        note = f"`{name}` gave {telling(values[culprit])} here, from {operands}{turn}"
    else:
        note = f"`{leaf_name(culprit)}` holds {telling(values[culprit])}" if is_leaf(culprit) else ""
    state = f"that of step {step - 1}" if step > 1 else "that from before the first step"
    advice = "keep its operand inside the domain, for example with `maximum(x, 1e-12)`, or try a smaller rate" \
        if culprit.op.name in DOMAINS else "leave out or fill what is missing in the data (`where(isnan(x), 0, x)`)" \
        if is_leaf(culprit, "input", "value", "data") else "try a smaller rate, `clip norm 1`, or scaled data (`standardize`)"
    return error("E0720", f"training diverged at step {step}: {bad.what} became {bad.became}", place or span, note if place else "",
                 kind=Diverged, notes=(*([note] if note and not place else []), f"the state is {state}"), help=advice)


def source(function: StepFunction, taken: Sequence[Any], place: int) -> tuple[Node, dict[Node, Any], str]:
    """The term that a bad result came from, the values of the terms beside it, and in which step of a loop, in words.

    The way is from the result back through operands that are nan or, where none is, infinite, to the last term that has finite
    operands only or reads what is infinite already; if that is a loop, on through its body in its first bad step."""
    executable = function.compiled.reference
    values = executable.trace(function.leaves(taken))
    node, turn = _back(executable.roots[place], values), ""
    while node in executable.loops:
        runner = executable.loops[node]
        found = runner.first_bad([values[a] for a in node.args])
        if found is None:
            break
        number, operands = found
        executable, values = runner.executable, runner.trace(operands)
        result = next(r for r in executable.roots if _not_finite(np.asarray(values[r])))
        node, turn = _back(result, values), f", in iteration {number} of the loop" + turn.replace("the loop", "the loop around it")
    return node, values, turn


def _back(node: Node, values: Mapping[Node, Any]) -> Node:
    """From a value that is not finite back to the term that made it."""
    while True:
        wrong = [a for a in node.args if _is(np.isnan, values[a])]
        if not wrong:
            wrong = [a for a in node.args if a.args and _is(np.isinf, values[a])]
        if not wrong:
            return node
        node = next((a for a in wrong if a.args), wrong[0])


def _is(test: Any, value: Any) -> bool:
    return bool(value.dtype.kind == "f" and test(value).any())


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
