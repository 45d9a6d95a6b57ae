"""Products of arrays: one row each.  (Factorisations and solvers join this room later.)"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dsl.ir.node import Node, Op, make
from dsl.ir.types import ONE, ArrayType, Dim, DType, Shape, Shapes, TypeFault, promote, shape_text
from dsl.ops.reduction import any_
from dsl.ops.scalar import ne
from dsl.ops.shape import expand, expand_dims, reshape, sum_to, swap
from dsl.ops.table import array, cast, lift_to_rank


def _coerce(args: Sequence[Any], precision: DType) -> list[Node]:
    dtype = promote(*(a.dtype for a in args))
    return [cast(a, dtype) for a in args]


def _infer(shapes: Shapes, a: ArrayType, b: ArrayType) -> ArrayType:
    if not a.rank or not b.rank:
        raise TypeFault(f"`@` needs arrays, not {shape_text(a.shape)} and {shape_text(b.shape)}", kind="rank",
                        help="use `*` to multiply by a scalar")
    inner = shapes.equal(a.shape[-1], b.shape[-2] if b.rank > 1 else b.shape[0])
    if inner is None:
        raise TypeFault(f"`@` cannot multiply {shape_text(a.shape)} by {shape_text(b.shape)}", kind="matmul",
                        detail=f"{shape_text(a.shape)} @ {shape_text(b.shape)}", dims=(*a.shape, *b.shape))
    lead = shapes.broadcast(a.shape[:-2], b.shape[:-2])
    return a.with_shape([*lead, *(a.shape[-2:-1] if a.rank > 1 else ()), *(b.shape[-1:] if b.rank > 1 else ())])


def _matmul(a: Any, b: Any) -> Any:
    return np.matmul(a, b)[()]


def _vjp(g: Node, y: Node, a: Node, b: Node) -> list[Node]:
    match a.rank, b.rank:
        case 1, 1:
            return [g * b, g * a]
        case 2, 1:
            return [expand_dims(g, -1) * b, matmul(swap(a), g)]
        case 1, 2:
            return [matmul(b, g), expand_dims(a, -1) * g]
        case _:
            return _stacked_vjp(g, y, a, b)


def _stacked_vjp(g: Node, y: Node, a: Node, b: Node) -> list[Node]:
    """Vectors as matrices of one row or column; what was broadcast over the stack is summed."""
    left = a if a.rank > 1 else reshape(a, shape=(ONE, *a.shape))
    right = b if b.rank > 1 else reshape(b, shape=(*b.shape, ONE))
    lead = y.shape[:y.rank - (a.rank > 1) - (b.rank > 1)]
    middle = reshape(g, shape=(*lead, left.shape[-2], right.shape[-1]))
    to_left = sum_to(matmul(middle, swap(right)), left.shape)
    to_right = sum_to(matmul(swap(left), middle), right.shape)
    return [reshape(to_left, shape=a.shape), reshape(to_right, shape=b.shape)]


def _live(mask: Node, y: Node, a: Node, b: Node) -> list[Node]:
    """A row of `a` is in use if any element of that row of the product is; a column of `b` likewise."""
    rows, columns = a.shape[-2:-1] or (ONE,), b.shape[-1:] if b.rank > 1 else (ONE,)
    middle = reshape(mask, shape=(*y.shape[:y.rank - (a.rank > 1) - (b.rank > 1)], *rows, *columns))

    def used(x: Node, full: Shape, axis: int) -> Node:
        line = any_(middle, axes=(axis,), keepdims=True)
        target = (*full[:-2], *line.shape[-2:])
        line = line if line.shape == target else ne(sum_to(cast(line, "int64"), target), 0)
        return reshape(expand(line, full), shape=x.shape)                            # type: ignore[no-any-return]
    return [used(a, (*a.shape[:-2], *rows, a.shape[-1]), -1), used(b, (*b.shape[:-2], b.shape[-2 if b.rank > 1 else -1], *columns), -2)]


def _batch(op: Op, args: Sequence[Node], mapped: Sequence[bool], length: Dim) -> Node:
    """Rows of a mapped vector are rows of a matrix; otherwise the leading axis is a stack."""
    (a, b), (am, bm) = args, mapped
    rank_a, rank_b = a.rank - am, b.rank - bm
    if am and not bm and rank_a == 1 and rank_b <= 2:
        return make(op, [a, b])
    if am and not bm and rank_a >= max(2, rank_b):
        return make(op, [a, b])
    if bm and not am and rank_b == 1 and rank_a == 2:
        return make(op, [b, swap(a)])
    left = a if rank_a > 1 else reshape(a, shape=(*(a.shape[:1] if am else ()), ONE, a.shape[-1]))
    right = b if rank_b > 1 else reshape(b, shape=(*b.shape, ONE))
    rank = max(rank_a, rank_b, 2)
    stacked = make(op, [lift_to_rank(left, rank) if am else left, lift_to_rank(right, rank) if bm else right])
    shape = [*stacked.shape[:-2], *(stacked.shape[-2:-1] if rank_a > 1 else ()), *(stacked.shape[-1:] if rank_b > 1 else ())]
    result: Node = reshape(stacked, shape=tuple(shape))
    return result


matmul = array("matmul", "a b", "`a @ b`: product of matrices, of stacks of them, or of vectors.", infer=_infer, numpy=_matmul,
               coerce=_coerce, vjp=_vjp, batch=_batch, live=_live, symbol=("@", 60))
