"""Ops that move, select or make elements: one row each.

Axes are counted from the right (negative), and `shape` attributes hold `Dim`s that arrive in NumPy as ints, so one more
leading axis changes no attribute but a full shape.  The adjoints stay within this table: reshape and transpose undo
themselves, `expand` and `sum_to`, `slice` and `unslice`, `gather` and `scatter_add` are pairs.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dsl.ir.node import Node, Op, make
from dsl.ir.types import (
    ONE,
    ZERO,
    ArrayType,
    Dim,
    DimLike,
    DType,
    Shape,
    Shapes,
    TypeFault,
    derived,
    product,
    shape_text,
)
from dsl.ops.scalar import cast_op, eq, select
from dsl.ops.table import Fault, array, batch_same, broadcast_all, constant, lift_to_rank, shape_attr

SliceItem = tuple[Dim, Dim, int]                  # start, length, step


# ---------------------------------------------------------------- sizes as values
dim = array("dim", "", "A size as an int64 scalar.", infer=lambda shapes, dim: ArrayType("int64"), numpy=lambda dim: np.int64(dim))
iota = array("iota", "", "`0, 1, … length - 1`.", infer=lambda shapes, length: ArrayType("int64", (length,)), numpy=lambda length: np.arange(length))


# ---------------------------------------------------------------- reshape, transpose
def _reshape_infer(shapes: Shapes, x: ArrayType, shape: Shape) -> ArrayType:
    if shapes.equal(x.size, product(shape)) is None:
        raise TypeFault(f"cannot reshape {shape_text(x.shape)} to {shape_text(shape)}",
                        detail=f"{x.size} elements against {product(shape)}", dims=(*x.shape, *shape))
    return x.with_shape(shape)


def _batch_reshape(op: Op, args: Sequence[Node], mapped: Sequence[bool], length: Dim, shape: Shape) -> Node:
    return reshape(args[0], shape=(length, *shape))                                 # type: ignore[no-any-return]


reshape: Op = array("reshape", "x", "The same elements in another shape.", infer=_reshape_infer, numpy=lambda x, shape: np.reshape(x, shape),
                vjp=lambda g, y, x, shape: (reshape(g, shape=x.shape),), batch=_batch_reshape, structural=True)


def _permutation(rank: int, axes: tuple[int, ...]) -> tuple[int, ...]:
    return (*range(rank - len(axes)), *(rank + a for a in axes))


def _transpose_infer(shapes: Shapes, x: ArrayType, axes: tuple[int, ...]) -> ArrayType:
    return x.with_shape([x.shape[a] for a in _permutation(x.rank, axes)])


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    order = [a + len(axes) for a in axes]
    return tuple(order.index(i) - len(axes) for i in range(len(axes)))


transpose: Op = array("transpose", "x", "The last axes in another order.", infer=_transpose_infer,
                  numpy=lambda x, axes: np.transpose(x, _permutation(np.ndim(x), axes)),
                  vjp=lambda g, y, x, axes: (transpose(g, axes=_inverse(axes)),), batch=batch_same, structural=True)


def swap(x: Node) -> Node:
    """The last two axes exchanged."""
    result: Node = transpose(x, axes=(-1, -2))
    return result


def move_axis(x: Node, source: int, target: int) -> Node:
    """One axis moved; both counted from the right."""
    if source == target:
        return x
    order = [a for a in range(-x.rank, 0) if a != source]
    order.insert(target + x.rank, source)
    result: Node = transpose(x, axes=tuple(order))
    return result


def expand_dims(x: Node, axis: int) -> Node:
    """A new axis of length 1; `axis` is its place from the right in the result."""
    place = x.rank + 1 + axis
    result: Node = reshape(x, shape=(*x.shape[:place], ONE, *x.shape[place:]))
    return result


# ---------------------------------------------------------------- broadcasting and its adjoint
def _expand_infer(shapes: Shapes, x: ArrayType, shape: Shape) -> ArrayType:
    wide = shapes.broadcast(x.shape, shape)
    if len(wide) != len(shape) or any(shapes.equal(a, b) is None for a, b in zip(wide, shape, strict=True)):
        raise TypeFault(f"cannot broadcast {shape_text(x.shape)} to {shape_text(shape)}", dims=(*x.shape, *shape))
    return x.with_shape(shape)


def _batch_expand(op: Op, args: Sequence[Node], mapped: Sequence[bool], length: Dim, shape: Shape) -> Node:
    return make(op, [lift_to_rank(args[0], len(shape))], {"shape": (length, *shape)})


def _sum_to(x: Any, shape: tuple[int, ...]) -> Any:
    extra = np.ndim(x) - len(shape)
    axes = (*range(extra), *(i + extra for i, n in enumerate(shape) if n == 1 and x.shape[i + extra] != 1))
    total = np.sum(x, axis=axes, dtype="float64" if x.dtype == np.float32 else None) if axes else x
    return np.reshape(total, shape).astype(x.dtype, copy=False)[()]


def _batch_sum_to(op: Op, args: Sequence[Node], mapped: Sequence[bool], length: Dim, shape: Shape) -> Node:
    (x,) = args
    padded = (length, *(ONE,) * (x.rank - 1 - len(shape)), *shape)
    return reshape(make(op, [x], {"shape": padded}), shape=(length, *shape))      # type: ignore[no-any-return]


expand_op = array("expand", "x", "`x` broadcast to a shape.", infer=_expand_infer, numpy=lambda x, shape: np.broadcast_to(x, shape)[()],
                  vjp=lambda g, y, x, shape: (sum_to(g, x.shape),), batch=_batch_expand, structural=True)
sum_to_op = array("sum_to", "x", "Summed over the axes along which `shape` was broadcast.", infer=lambda shapes, x, shape: x.with_shape(shape), numpy=_sum_to,
                  vjp=lambda g, y, x, shape: (expand(g, x.shape),), batch=_batch_sum_to, structural=True)


def expand(x: Node, shape: Sequence[DimLike]) -> Node:
    target = shape_attr(shape)
    return x if x.shape == target else make(expand_op, [x], {"shape": target})


def sum_to(x: Node, shape: Sequence[DimLike]) -> Node:
    target = shape_attr(shape)
    return x if x.shape == target else make(sum_to_op, [x], {"shape": target})


def full(value: bool | int | float, shape: Sequence[DimLike], dtype: DType) -> Node:
    return expand(constant(value, dtype), shape)


def zeros_like(x: Node) -> Node:
    return full(0, x.shape, x.dtype)


# ---------------------------------------------------------------- joining
def _concat_infer(shapes: Shapes, *types: ArrayType, axis: int) -> ArrayType:
    first = types[0]
    out = list(first.shape)
    for other in types[1:]:
        if other.rank != first.rank or other.dtype != first.dtype:
            raise TypeFault(f"cannot join {first} and {other}", dims=(*first.shape, *other.shape),
                            help="every part needs the same number of axes and the same dtype")
        for a in range(-first.rank, 0):
            if a == axis:
                continue
            agreed = shapes.equal(out[a], other.shape[a])
            if agreed is None:
                raise TypeFault(f"cannot join {shape_text(first.shape)} and {shape_text(other.shape)}",
                                detail=f"{out[a]} against {other.shape[a]}", dims=(out[a], other.shape[a]))
            out[a] = agreed
    out[axis] = sum((t.shape[axis] for t in types), ZERO)
    return first.with_shape(out)


def _concat_vjp(g: Node, y: Node, *xs: Node, axis: int) -> list[Node]:
    parts, start = [], ZERO
    for x in xs:
        parts.append(slice_axis(g, axis, start, x.shape[axis]))
        start = start + x.shape[axis]
    return parts


def _batch_concat(op: Op, args: Sequence[Node], mapped: Sequence[bool], length: Dim, axis: int) -> Node:
    return make(op, broadcast_all(args, mapped, length), {"axis": axis})


concat = array("concat", "*xs", "Joined along an axis.", infer=_concat_infer, numpy=lambda *xs, axis: np.concatenate(xs, axis=axis),
               vjp=_concat_vjp, batch=_batch_concat, structural=True)


# ---------------------------------------------------------------- slices
def _window(items: tuple[Any, ...]) -> tuple[Any, ...]:
    """NumPy's index for `(start, length, step)` of the last axes."""
    index: list[Any] = [...]
    for start, length, step in items:
        stop: int | None = start + length * step
        index.append(slice(start, stop if stop is not None and stop >= 0 else None, step) if length else slice(0, 0))
    return tuple(index)


def _slice_infer(shapes: Shapes, x: ArrayType, items: tuple[SliceItem, ...]) -> ArrayType:
    lead = x.rank - len(items)
    return x.with_shape([*x.shape[:lead], *(length for _, length, _ in items)])


def _unslice_infer(shapes: Shapes, x: ArrayType, items: tuple[SliceItem, ...], shape: Shape) -> ArrayType:
    return x.with_shape([*x.shape[:x.rank - len(items)], *shape])


def _unslice(x: Any, items: tuple[Any, ...], shape: tuple[int, ...]) -> Any:
    out = np.zeros((*x.shape[:x.ndim - len(items)], *shape), x.dtype)
    out[_window(items)] = x
    return out


slice_op = array("slice", "x", "Every `step`-th element of the last axes from `start`, `length` of them.", infer=_slice_infer,
                 numpy=lambda x, items: x[_window(items)],
                 vjp=lambda g, y, x, items: (unslice(g, items=items, shape=x.shape[x.rank - len(items):]),), batch=batch_same, structural=True)
unslice: Op = array("unslice", "x", "Zeros of the last axes' `shape` with `x` in the places `slice` takes.", infer=_unslice_infer, numpy=_unslice,
                vjp=lambda g, y, x, items, shape: (slice_op(g, items=items),), batch=batch_same, structural=True)


def slice_axis(x: Node, axis: int, start: DimLike, length: DimLike, step: int = 1) -> Node:
    """A slice of one axis, counted from the right."""
    start, length = Dim.of(start), Dim.of(length)
    if step == 1 and start == ZERO and length == x.shape[axis]:
        return x
    items = tuple((start, length, step) if a == axis else (ZERO, x.shape[a], 1) for a in range(axis, 0))
    return make(slice_op, [x], {"items": items})


def resolve_slice(n: Dim, start: Dim | None, stop: Dim | None, step: int) -> SliceItem:
    """NumPy's slice of an axis of length `n`: start, length and step, with bounds held within the axis.

    A negative literal counts from the end; a bound made of dims (`n - 3`) counts from the start, whatever its value."""
    low, high = (ZERO, n) if step > 0 else (Dim.of(-1), n - 1)

    def bound(value: Dim | None, default: Dim) -> Dim:
        if value is None:
            return default
        if value.constant is None:
            return derived("max", derived("min", value, high), low)
        return derived("max", n + value, low) if value.constant < 0 else derived("min", value, high)
    first = bound(start, low if step > 0 else high)
    last = bound(stop, high if step > 0 else low)
    literal = start.constant if step > 0 and start is not None else None
    if literal is not None and literal < 0 and stop is None:
        span = derived("min", n, -literal)
    elif literal is not None and literal > 0:        # beyond the last there is nothing, however far
        span = last - literal
    else:
        span = last - first if step > 0 else first - last
    if abs(step) != 1:
        span = derived("floordiv", span + (abs(step) - 1), abs(step))
    return first, derived("max", span, ZERO), step


def flip(x: Node, axis: int = -1) -> Node:
    return slice_axis(x, axis, x.shape[axis] - 1, x.shape[axis], -1)


# ---------------------------------------------------------------- gather and scatter
FILL = -(2 ** 63)
"""The index of a lane that is not taken: `gather` gives 0 there and reads nothing."""


def _gather_infer(shapes: Shapes, x: ArrayType, *indices: ArrayType, fill: bool = False) -> ArrayType:
    if len(indices) > x.rank:
        raise TypeFault(f"{len(indices)} indices into {shape_text(x.shape)}, which has {x.rank} axes", kind="rank")
    for index in indices:
        if index.dtype not in ("int32", "int64"):
            raise TypeFault(f"an index is an integer, not {index.dtype}", kind="dtype",
                            help="a mask picks rows in `data` only; elsewhere use `where`" if index.dtype == "bool" else
                            "convert with `int(…)`")
    return x.with_shape([*shapes.broadcast(*[i.shape for i in indices]), *x.shape[len(indices):]])


def checked_indices(indices: Sequence[Any], shape: Sequence[int], fill: bool) -> tuple[list[Any], Any]:
    """Indices with negative ones counted from the end, and the mask of lanes not taken (None without `fill`)."""
    dead: Any = None
    result = []
    for axis, index in enumerate(indices):
        n = shape[axis]
        if fill:
            skipped = index == FILL
            dead = skipped if dead is None else dead | skipped
            index = np.where(skipped, 0, index)
        bad = (index < -n) | (index >= n)
        if fill:
            bad = bad & ~dead
        if np.any(bad):
            worst = index[bad].flat[0] if np.ndim(index) else index
            raise Fault("E0702", f"index {worst} is out of range for an axis of length {n}",
                        f"valid indices are {-n} to {n - 1}" if n else "the axis is empty")
        result.append(np.where(index < 0, index + n, index))
    return result, dead


def _gather(x: Any, *indices: Any, fill: bool = False) -> Any:
    places, dead = checked_indices(indices, x.shape, fill)
    if dead is None or not np.any(dead):
        return x[tuple(places)]
    shape = (*np.broadcast_shapes(*[np.shape(i) for i in indices]), *x.shape[len(indices):])
    if any(n == 0 for n in x.shape[:len(indices)]):
        return np.zeros(shape, x.dtype)[()]
    keep = np.reshape(~dead, (*np.shape(dead), *(1,) * (len(shape) - np.ndim(dead))))
    return np.where(keep, x[tuple(places)], 0).astype(x.dtype)[()]


def _scatter_infer(shapes: Shapes, g: ArrayType, *indices: ArrayType, shape: Shape, fill: bool = False) -> ArrayType:
    return g.with_shape(shape)


def _scatter_add(g: Any, *indices: Any, shape: tuple[int, ...], fill: bool = False) -> Any:
    places, dead = checked_indices(indices, shape, fill)
    out = np.zeros(shape, "float64" if g.dtype == np.float32 else g.dtype)
    if dead is not None:
        g = np.where(np.reshape(dead, (*np.shape(dead), *(1,) * (np.ndim(g) - np.ndim(dead)))), 0, g)
    if out.size:
        np.add.at(out, tuple(places), g)
    return out.astype(g.dtype, copy=False)


def _leading_iota(length: Dim, rank: int) -> Node:
    index: Node = iota(length=length)
    return reshape(index, shape=(length, *(ONE,) * rank)) if rank else index


def _batch_gather(op: Op, args: Sequence[Node], mapped: Sequence[bool], length: Dim, **attrs: Any) -> Node:
    x, *indices = args
    rank = max((i.rank - m for i, m in zip(indices, mapped[1:], strict=True)), default=0)
    lifted = [lift_to_rank(i, rank) if m else i for i, m in zip(indices, mapped[1:], strict=True)]
    return make(op, [x, *([_leading_iota(length, rank)] if mapped[0] else []), *lifted], attrs)


def _batch_scatter(op: Op, args: Sequence[Node], mapped: Sequence[bool], length: Dim, shape: Shape, **attrs: Any) -> Node:
    g, *indices = args
    rank = max((i.rank - m for i, m in zip(indices, mapped[1:], strict=True)), default=0)
    lifted = [lift_to_rank(i, rank) if m else i for i, m in zip(indices, mapped[1:], strict=True)]
    values = g if mapped[0] else expand(g, (length, *g.shape))
    return make(op, [values, _leading_iota(length, rank), *lifted], {"shape": (length, *shape), **attrs})


gather = array("gather", "x *indices", "`x[i, j, …]`: the leading axes picked by integer arrays.", infer=_gather_infer, numpy=_gather,
               vjp=lambda g, y, x, *indices, **attrs: (scatter_add(g, *indices, shape=x.shape, **attrs), *(None for _ in indices)),
               batch=_batch_gather, structural=True)
scatter_add: Op = array("scatter_add", "g *indices", "Zeros of `shape` with `g` added at the indices, duplicates accumulating.", infer=_scatter_infer, numpy=_scatter_add,
                    vjp=lambda g, y, x, *indices, shape, **attrs: (expand(gather(g, *indices, **attrs), x.shape), *(None for _ in indices)),
                    batch=_batch_scatter, structural=True)


def take_along_last(x: Node, index: Node) -> Node:
    """`x[…, index[…, j]]`: one index array a row, along the last axis."""
    leading = []
    for axis, n in enumerate(x.shape[:-1]):
        shape = [ONE] * x.rank
        shape[axis] = n
        leading.append(reshape(iota(length=n), shape=tuple(shape)))
    result: Node = gather(x, *leading, index)
    return result


# ---------------------------------------------------------------- rows picked by a mask, in data only
def _compress_infer(shapes: Shapes, x: ArrayType, mask: ArrayType, count: Dim) -> ArrayType:
    if shapes.equal(x.shape[0], mask.shape[0]) is None:
        raise TypeFault(f"a mask of {mask.shape[0]} rows for {x.shape[0]} rows", dims=(mask.shape[0], x.shape[0]))
    return x.with_shape([count, *x.shape[1:]])


compress = array("compress", "x mask", "The rows where a mask holds (in `data` only).", infer=_compress_infer, numpy=lambda x, mask, count: x[mask])


# ---------------------------------------------------------------- order
def _sort_vjp(g: Node, y: Node, x: Node) -> list[Node]:
    order = argsort(x)
    return [take_along_last(g, argsort(order))]


sort = array("sort", "x", "Sorted along the last axis, nan last.", infer=lambda shapes, x: x, numpy=lambda x: np.sort(x, axis=-1), vjp=_sort_vjp, batch=batch_same, structural=True)
argsort = array("argsort", "x", "The indices that sort the last axis; ties keep their order.", infer=lambda shapes, x: x.with_dtype("int64"),
                numpy=lambda x: np.argsort(x, axis=-1, kind="stable"), batch=batch_same)


# ---------------------------------------------------------------- triangles and diagonals (built from the rows above)
def triangle(x: Node, k: int, keep: Op) -> Node:
    """`x` where `column - row <= k` (or `>=`), 0 elsewhere."""
    rows, columns = x.shape[-2:]
    row = reshape(iota(length=rows), shape=(rows, ONE))
    return select(keep(iota(length=columns) - row, k), x, constant(0, x.dtype))    # type: ignore[no-any-return]


def eye(n: DimLike, m: DimLike, dtype: DType) -> Node:
    row = reshape(iota(length=Dim.of(n)), shape=(Dim.of(n), ONE))
    return cast_op(eq(iota(length=Dim.of(m)), row), dtype=dtype)                   # type: ignore[no-any-return]


def one_hot(index: Node, n: DimLike, dtype: DType) -> Node:
    return cast_op(eq(expand_dims(index, -1), iota(length=Dim.of(n))), dtype=dtype)    # type: ignore[no-any-return]


def size_float(shape: Sequence[Dim], dtype: DType) -> Node:
    """The number of elements of a shape, as a float scalar."""
    total = product(shape)
    return constant(total.constant, dtype) if total.constant is not None else cast_op(dim(dim=total), dtype=dtype)
