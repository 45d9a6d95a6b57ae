"""Expressions read as NumPy.

In: expressions, and what their names stand for.  Out: their values, each instruction applied once, to whole arrays.

    values     Ref -> a scalar or an array of its dtype; all broadcast together
    memory     what a `Load` or an `Extent` is worth: called with the expression and, for a load, its indices' values
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dsl.machine.expr import Apply, Const, Expr, Extent, Load, Ref, walk
from dsl.machine.instructions import TABLE

Memory = Callable[..., Any]


def evaluate(roots: Sequence[Expr], values: Mapping[Ref, Any], memory: Memory | None = None) -> list[Any]:
    """The value of each root.  Arithmetic is quiet: overflow and invalid operations give infinity and nan."""
    known: dict[Expr, Any] = dict(values.items())
    with np.errstate(all="ignore"):
        for e in walk(roots):
            if e not in known:
                known[e] = value_of(e, known, memory)
    return [known[r] for r in roots]


def value_of(e: Expr, known: Mapping[Expr, Any], memory: Memory | None) -> Any:
    match e:
        case Const(value, dtype):
            return np.dtype(dtype).type(value)
        case Apply(op="to" | "bits" as op, args=(x,), dtype=dtype):
            return TABLE[op].numpy(known[x], np.dtype(dtype))
        case Apply(op, args, _):
            return TABLE[op].numpy(*[known[a] for a in args])
        case Load(_, index) if memory is not None:
            return memory(e, *[known[i] for i in index])
        case Extent() if memory is not None:
            return memory(e)
        case _:
            raise KeyError(f"nothing says what {e!r} is worth")
