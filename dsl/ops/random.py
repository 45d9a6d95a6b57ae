"""Random draws: one row.

A draw is a node of its own: its `key` (made from the seed, the name its statement binds, its place there and the path of
`def` calls) is an attribute, so no two draws are ever merged, and its operands are the step that it belongs to and, in a
loop, the number of the iteration.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dsl.ir.node import Node, Op, make
from dsl.ir.types import ArrayType, Dim, Shape, Shapes
from dsl.ops import philox
from dsl.ops.table import array


def _infer(shapes: Shapes, step: ArrayType, *iteration: ArrayType, kind: str, key: int, shape: Shape, dtype: Any) -> ArrayType:
    return ArrayType(dtype, shape)


def _draw(step: Any, iteration: Any = 0, *, kind: str, key: int, shape: tuple[int, ...], dtype: Any) -> Any:
    match kind:
        case "uniform":
            return philox.uniform(key, int(step), int(iteration), shape, np.dtype(dtype))[()]
        case "normal":
            return philox.normal(key, int(step), int(iteration), shape, np.dtype(dtype))[()]
        case "permutation":
            return philox.permutation(key, int(step), shape[0], int(iteration))
        case _:
            raise AssertionError(kind)


def _batch(op: Op, args: Sequence[Node], mapped: Sequence[bool], length: Dim, kind: str, key: int, shape: Shape, dtype: Any) -> Node:
    return make(op, args, {"kind": kind, "key": key, "shape": (length, *shape), "dtype": dtype})


draw = array("draw", "step *iteration", "Independent draws: `uniform` on [0, 1), standard `normal`, or a `permutation` of the first integers.",
             infer=_infer, numpy=_draw, vjp=lambda g, y, *args, **_: (None,) * len(args), batch=_batch)
