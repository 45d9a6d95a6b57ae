"""Reductions, scans along an axis and row-wise normalisations: one row each.

`axes` are negative ints (counted from the right) and `keepdims` tells whether they stay with length 1.  float32 sums are
accumulated in float64, so that 2^24 ones add up to 2^24; integer sums in int64.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dsl.ir.node import Node, Op
from dsl.ir.types import ONE, ArrayType, Dim, DType, Shapes, TypeFault, is_float, is_int
from dsl.ops.scalar import eq, exp, ne, select, sqr, sqrt
from dsl.ops.shape import concat, expand, flip, iota, move_axis, reshape, size_float, slice_axis, transpose
from dsl.ops.table import Fault, array, batch_same, broadcast_all, cast, constant

Axes = tuple[int, ...]


def _wide(dtype: Any) -> Any:
    return np.float64 if dtype == np.float32 else np.int64 if dtype.kind in "ib" else None


# ---------------------------------------------------------------- typing
def reduced(x: ArrayType, axes: Axes, keepdims: bool, dtype: DType | None = None) -> ArrayType:
    shape = [ONE if a in axes else x.shape[a] for a in range(-x.rank, 0) if keepdims or a not in axes]
    return ArrayType(dtype or x.dtype, tuple(shape))


def _keep(shapes: Shapes, x: ArrayType, axes: Axes, keepdims: bool) -> ArrayType:
    return reduced(x, axes, keepdims, "int64" if not is_float(x.dtype) else None)


def _nonempty(shapes: Shapes, x: ArrayType, live: ArrayType | None = None, *, axes: Axes, keepdims: bool) -> ArrayType:
    """`live` is there once `guard` has run: which elements of the result are used at all."""
    return reduced(x, axes, keepdims)


def _float(shapes: Shapes, x: ArrayType, axes: Axes, keepdims: bool = False, ddof: int = 0) -> ArrayType:
    if not is_float(x.dtype):
        raise TypeFault(f"takes floats, not {x.dtype}", kind="dtype")
    return reduced(x, axes, keepdims)


def coerce_float(args: Sequence[Any], precision: DType) -> list[Node]:
    return [a if is_float(a.dtype) else cast(a, precision) for a in args]


def coerce_numbers(args: Sequence[Any], precision: DType) -> list[Node]:
    return [cast(a, "int64") if a.dtype == "bool" else a for a in args]


# ---------------------------------------------------------------- adjoint helpers
def restore(g: Node, x: Node, axes: Axes, keepdims: bool) -> Node:
    """A reduced array repeated along the axes it was reduced over."""
    if not keepdims and axes and g.rank:
        g = reshape(g, shape=tuple(ONE if a in axes else x.shape[a] for a in range(-x.rank, 0)))
    return expand(g, x.shape)


def live_reduced(mask: Node, y: Node, x: Node, axes: Axes, keepdims: bool = False, **_: Any) -> list[Node]:
    return [restore(mask, x, axes, keepdims)]


def live_running(mask: Node, y: Node, x: Node, axes: Axes, reverse: bool = False) -> list[Node]:
    """An element of a running total is in use if that total or a later one is."""
    return [ne(cumsum(cast(mask, "int64"), axes=axes, reverse=not reverse), 0)]


def live_rowwise(mask: Node, y: Node, x: Node, axes: Axes, **_: Any) -> list[Node]:
    return [restore(any_(mask, axes=axes, keepdims=True), x, axes, True)]


def _kept(y: Node, x: Node, axes: Axes, keepdims: bool) -> Node:
    return restore(y, x, axes, keepdims)


# ---------------------------------------------------------------- NumPy meanings
def _sum(x: Any, axes: Axes, keepdims: bool) -> Any:
    if not axes:
        return x if x.dtype.kind == "f" else x.astype(np.int64)
    return np.sum(x, axis=axes, keepdims=keepdims, dtype=_wide(x.dtype)).astype(x.dtype if x.dtype.kind == "f" else np.int64)


def _prod(x: Any, axes: Axes, keepdims: bool) -> Any:
    dtype = x.dtype if x.dtype.kind == "f" else np.int64
    y = np.prod(x, axis=axes, keepdims=keepdims, dtype=_wide(x.dtype))
    if x.dtype.kind == "f" and np.any(np.isnan(y)):          # a finite overflow times zero is zero
        zero = np.any(x == 0, axis=axes, keepdims=keepdims) & np.all(np.isfinite(x), axis=axes, keepdims=keepdims)
        y = np.where(zero & np.isnan(y), 0.0, y)
    return y.astype(dtype)


def _of_nothing(name: str, x: Any, live: Any, axes: Axes, keepdims: bool) -> Any:
    """The result over no elements: a fault, unless nobody uses it."""
    shape = np.shape(np.any(x, axis=axes, keepdims=keepdims))
    if live is None or np.any(live):
        raise Fault("E0705", f"`{name}` of no elements", "check the size first, or join a starting value")
    return np.zeros(shape)[()]


def _extreme(function: Any, name: str) -> Any:
    def run(x: Any, live: Any = None, *, axes: Axes, keepdims: bool) -> Any:
        if any(x.shape[a] == 0 for a in axes):
            return _of_nothing(name, x, live, axes, keepdims).astype(x.dtype)
        y = function(x, axis=axes, keepdims=keepdims)
        if x.dtype.kind == "f" and np.any(y == 0):           # the sign of a zero does not depend on the order
            wanted = np.signbit(x) == (name == "min")
            found = np.any((x == 0) & wanted, axis=axes, keepdims=keepdims)
            zero = np.where(found == (name == "max"), 0.0, -0.0)
            y = np.where(y == 0, zero, y).astype(x.dtype)[()]
        return y
    return run


def _flat(x: Any, axes: Axes) -> Any:
    """The reduced axes as one last axis."""
    kept = [a for a in range(-x.ndim, 0) if a not in axes]
    moved = np.transpose(x, [a + x.ndim for a in (*kept, *axes)])
    return moved.reshape(*moved.shape[:len(kept)], math.prod(moved.shape[len(kept):]))


def _arg(function: Any, name: str) -> Any:
    def run(x: Any, live: Any = None, *, axes: Axes, keepdims: bool) -> Any:
        flat = _flat(x, axes)
        if flat.shape[-1] == 0:
            return _of_nothing(name, x, live, axes, keepdims).astype(np.int64)
        index = function(flat, axis=-1).astype(np.int64)
        return np.expand_dims(index, axes) if keepdims else index
    return run


def _count(x: Any, axes: Axes) -> Any:
    return np.float64(math.prod(x.shape[a] for a in axes))


def _mean(x: Any, axes: Axes, keepdims: bool) -> Any:
    return (np.sum(x, axis=axes, keepdims=keepdims, dtype=_wide(x.dtype)) / _count(x, axes)).astype(x.dtype) if axes else x


def _var(x: Any, axes: Axes, keepdims: bool, ddof: int = 0) -> Any:
    wide = x.astype(np.float64) if x.dtype == np.float32 else x
    centred = wide - np.sum(wide, axis=axes, keepdims=True) / _count(x, axes)
    return (np.sum(centred * centred, axis=axes, keepdims=keepdims) / (_count(x, axes) - ddof)).astype(x.dtype)


def _std(x: Any, axes: Axes, keepdims: bool, ddof: int = 0) -> Any:
    return np.sqrt(_var(x, axes, keepdims, ddof))


def _norm(x: Any, axes: Axes, keepdims: bool) -> Any:
    if x.dtype == np.float32:
        return np.sqrt(np.sum(np.square(x, dtype=np.float64), axis=axes, keepdims=keepdims)).astype(x.dtype)
    if x.size == 0:
        return np.sqrt(np.sum(x * x, axis=axes, keepdims=keepdims))
    scale = np.max(np.abs(x), axis=axes, keepdims=True)
    safe = np.where((scale == 0) | ~np.isfinite(scale), 1.0, scale)
    y = np.sqrt(np.sum(np.square(x / safe), axis=axes, keepdims=True)) * safe
    y = np.where(np.any(np.isinf(x), axis=axes, keepdims=True) & ~np.isnan(scale), np.inf, y)
    return (y if keepdims else np.squeeze(y, axis=axes))[()]


def _shifted(x: Any, axes: Axes) -> tuple[Any, Any, Any]:
    top = np.max(x, axis=axes, keepdims=True, initial=-np.inf)
    anchor = np.where(np.isfinite(top), top, 0)
    e = np.exp(x - anchor)
    return anchor, e, np.sum(e, axis=axes, keepdims=True, dtype=_wide(x.dtype))


def _logsumexp(x: Any, axes: Axes, keepdims: bool) -> Any:
    anchor, _, total = _shifted(x, axes)
    y = (np.log(total) + anchor).astype(x.dtype)
    return (y if keepdims else np.squeeze(y, axis=axes))[()]


def _softmax(x: Any, axes: Axes) -> Any:
    top = np.max(x, axis=axes, keepdims=True, initial=-np.inf)
    e = np.exp(x - np.where(top == -np.inf, 0, top).astype(x.dtype))
    total = np.where(top == np.inf, np.inf, np.sum(e, axis=axes, keepdims=True, dtype=_wide(x.dtype)))
    return (e / total).astype(x.dtype)


def _log_softmax(x: Any, axes: Axes) -> Any:
    anchor, _, total = _shifted(x, axes)
    return (x - anchor - np.log(total)).astype(x.dtype)


# ---------------------------------------------------------------- vjps
def _extreme_vjp(g: Node, y: Node, x: Node, axes: Axes, keepdims: bool) -> list[Node]:
    chosen = cast(eq(x, _kept(y, x, axes, keepdims)), x.dtype)
    share = chosen / sum_(chosen, axes=axes, keepdims=True)
    return [restore(g, x, axes, keepdims) * share]


def _std_vjp(g: Node, y: Node, x: Node, axes: Axes, keepdims: bool, ddof: int = 0) -> list[Node]:
    count = size_float([x.shape[a] for a in axes], x.dtype) - ddof
    deviation = x - mean(x, axes=axes, keepdims=True)
    wide = _kept(y, x, axes, keepdims)
    return [restore(g, x, axes, keepdims) * select(eq(wide, 0), 0, deviation / (wide * count))]


def _norm_vjp(g: Node, y: Node, x: Node, axes: Axes, keepdims: bool) -> list[Node]:
    wide = _kept(y, x, axes, keepdims)
    return [restore(g, x, axes, keepdims) * select(eq(wide, 0), 0, x / wide)]


def _logsumexp_vjp(g: Node, y: Node, x: Node, axes: Axes, keepdims: bool) -> list[Node]:
    wide = _kept(y, x, axes, keepdims)
    top = cast(eq(x, wide), x.dtype)
    at_infinity = top / sum_(top, axes=axes, keepdims=True)
    share = select(eq(wide, -math.inf), 0, select(eq(wide, math.inf), at_infinity, softmax(x, axes=axes)))
    return [restore(g, x, axes, keepdims) * share]


def _softmax_vjp(g: Node, y: Node, x: Node, axes: Axes) -> list[Node]:
    return [y * (g - sum_(g * y, axes=axes, keepdims=True))]


def _log_softmax_vjp(g: Node, y: Node, x: Node, axes: Axes) -> list[Node]:
    return [g - exp(y) * sum_(g, axes=axes, keepdims=True)]


# ---------------------------------------------------------------- rows
R: dict[str, Any] = {"batch": batch_same, "live": live_reduced}
sum_ = array("sum", "x", "Sum.", infer=_keep, numpy=_sum, coerce=coerce_numbers, unit=0, surface=True, **R,
             vjp=lambda g, y, x, axes, keepdims: (restore(g, x, axes, keepdims),))
mean = array("mean", "x", "Arithmetic mean.", infer=_float, numpy=_mean, coerce=coerce_float, unit=math.nan, surface=True, **R,
             vjp=lambda g, y, x, axes, keepdims: (restore(g / size_float([x.shape[a] for a in axes], x.dtype), x, axes, keepdims),))
max_ = array("max", "x", "Largest element, nan if there is one; ties share the gradient.", infer=_nonempty, numpy=_extreme(np.max, "max"), unit=-math.inf, surface=True, coerce=coerce_numbers, vjp=_extreme_vjp, **R)
min_ = array("min", "x", "Smallest element, nan if there is one; ties share the gradient.", infer=_nonempty, numpy=_extreme(np.min, "min"), unit=math.inf, surface=True, coerce=coerce_numbers, vjp=_extreme_vjp, **R)
var  = array("var",  "x", "Mean square deviation; `ddof` is taken off the count.", infer=_float, numpy=_var, coerce=coerce_float, surface=True, **R,
             means=lambda x, axes, keepdims, ddof=0: sum_(sqr(x - mean(x, axes=axes, keepdims=True)), axes=axes, keepdims=keepdims) / (size_float([x.shape[a] for a in axes], x.dtype) - ddof))
std  = array("std",  "x", "Root of `var`; gradient 0 where it is 0.", infer=_float, numpy=_std, coerce=coerce_float, surface=True, vjp=_std_vjp, **R,
             means=lambda x, axes, keepdims, ddof=0: sqrt(var(x, axes=axes, keepdims=keepdims, ddof=ddof)))
norm = array("norm", "x", "Euclidean norm, without overflow; gradient 0 where it is 0.", infer=_float, numpy=_norm, coerce=coerce_float, unit=0.0, surface=True, vjp=_norm_vjp, **R,
             means=lambda x, axes, keepdims: sqrt(sum_(sqr(x), axes=axes, keepdims=keepdims)))
logsumexp = array("logsumexp", "x", "`log(sum(exp(x)))` without overflow; -inf of nothing but -inf.", infer=_float, numpy=_logsumexp, coerce=coerce_float, unit=-math.inf, surface=True, vjp=_logsumexp_vjp, **R)


def _logic(shapes: Shapes, x: ArrayType, axes: Axes, keepdims: bool) -> ArrayType:
    if x.dtype != "bool":
        raise TypeFault(f"takes bool, not {x.dtype}", kind="dtype", help="compare first: `any(x > 0)`")
    return reduced(x, axes, keepdims)


def _index(shapes: Shapes, x: ArrayType, live: ArrayType | None = None, *, axes: Axes, keepdims: bool) -> ArrayType:
    return _nonempty(shapes, x, axes=axes, keepdims=keepdims).with_dtype("int64")


any_ = array("any", "x", "Whether any element is true.", infer=_logic, numpy=lambda x, axes, keepdims: np.any(x, axis=axes, keepdims=keepdims), unit=False, surface=True, **R)
all_ = array("all", "x", "Whether every element is true.", infer=_logic, numpy=lambda x, axes, keepdims: np.all(x, axis=axes, keepdims=keepdims), unit=True, surface=True, **R)
argmax = array("argmax", "x", "Index of the first largest element (of the flattened array without `axis`); a nan is largest.", infer=_index, numpy=_arg(np.argmax, "argmax"), coerce=coerce_numbers, surface=True, **R)
argmin = array("argmin", "x", "Index of the first smallest element (of the flattened array without `axis`); a nan is smallest.", infer=_index, numpy=_arg(np.argmin, "argmin"), coerce=coerce_numbers, surface=True, **R)
EXTREMES = (max_, min_, argmax, argmin)
"""Reductions that have no result over no elements."""


# ---------------------------------------------------------------- row-wise
def _rowwise(shapes: Shapes, x: ArrayType, axes: Axes) -> ArrayType:
    return _float(shapes, x, (), False)


def _softmax_means(x: Node, axes: Axes) -> Node:
    top = max_(x, axes=axes, keepdims=True)
    e = exp(x - select(eq(top, -math.inf), 0, top))
    return e / select(eq(top, math.inf), math.inf, sum_(e, axes=axes, keepdims=True))    # type: ignore[no-any-return]


W: dict[str, Any] = {"infer": _rowwise, "coerce": coerce_float, "batch": batch_same, "live": live_rowwise, "surface": True}
softmax = array("softmax", "x", "`exp(x) / sum(exp(x))` along an axis (the last unless told) without overflow.", numpy=_softmax, vjp=_softmax_vjp, **W,
                means=_softmax_means)
log_softmax = array("log_softmax", "x", "`log(softmax(x))` without underflow.", numpy=_log_softmax, vjp=_log_softmax_vjp, **W,
                    means=lambda x, axes: x - logsumexp(x, axes=axes, keepdims=True))


# ---------------------------------------------------------------- products without one element, running totals
def _prod_vjp(g: Node, y: Node, x: Node, axes: Axes, keepdims: bool) -> list[Node]:
    return [restore(g, x, axes, keepdims) * other_product(x, axes=axes)]


def _other_product(x: Any, axes: Axes) -> Any:
    flat = _flat(x, axes).astype(np.float64)
    ones = np.ones((*flat.shape[:-1], 1))
    before = np.cumprod(np.concatenate([ones, flat[..., :-1]], -1), -1) if flat.shape[-1] else flat
    after = np.cumprod(np.concatenate([ones, flat[..., :0:-1]], -1), -1)[..., ::-1] if flat.shape[-1] else flat
    y = before * after
    if np.any(np.isnan(y)):
        zeros = np.sum(flat == 0, -1, keepdims=True) - (flat == 0)
        y = np.where((zeros > 0) & np.all(np.isfinite(flat), -1, keepdims=True), 0.0, y)
    kept = [a for a in range(-x.ndim, 0) if a not in axes]
    moved = y.reshape([x.shape[a] for a in (*kept, *axes)])
    return np.transpose(moved, np.argsort([a + x.ndim for a in (*kept, *axes)])).astype(x.dtype)


def _other_product_vjp(g: Node, y: Node, x: Node, axes: Axes) -> list[Node]:
    """d(prod of the others of i)/dx_j is the product without both: one row an i, with x_i replaced by 1."""
    kept = [a for a in range(-x.rank, 0) if a not in axes]
    order = (*kept, *axes)
    lead = tuple(x.shape[a] for a in kept)
    count = Dim.of(1)
    for a in axes:
        count = count * x.shape[a]
    def flat(z: Node) -> Node:
        return reshape(transpose(z, axes=order), shape=(*lead, count))              # type: ignore[no-any-return]
    same = eq(reshape(iota(length=count), shape=(count, ONE)), iota(length=count))
    row = reshape(flat(x), shape=(*lead, ONE, count))
    without_both = select(same, 0, other_product(select(same, 1, row), axes=(-1,)))
    back = sum_(reshape(flat(g), shape=(*lead, count, ONE)) * without_both, axes=(-2,), keepdims=False)
    unordered = reshape(back, shape=tuple(x.shape[a] for a in order))
    inverse = tuple(order.index(a) - x.rank for a in range(-x.rank, 0))
    return [transpose(unordered, axes=inverse)]


prod = array("prod", "x", "Product; the gradient is right with zeros.", infer=_keep, numpy=_prod, coerce=coerce_numbers, unit=1, surface=True, vjp=_prod_vjp, **R)
other_product = array("other_product", "x", "For each element the product of the others.", infer=lambda shapes, x, axes: x, numpy=_other_product, vjp=_other_product_vjp, batch=batch_same, live=live_rowwise)


def shift(x: Node, fill: float, reverse: bool = False) -> Node:
    """The last axis moved on by one (back if `reverse`), `fill` coming in."""
    edge = expand(constant(fill, x.dtype), (*x.shape[:-1], ONE))
    longer = concat(x, edge, axis=-1) if reverse else concat(edge, x, axis=-1)
    return slice_axis(longer, -1, 1 if reverse else 0, x.shape[-1])


def _running(function: Any) -> Any:
    def run(x: Any, axes: Axes, reverse: bool = False) -> Any:
        axis = axes[0]
        source = np.flip(x, axis) if reverse else x
        y = function(source, axis=axis, dtype=_wide(x.dtype)).astype(x.dtype if x.dtype.kind == "f" else np.int64)
        return np.flip(y, axis) if reverse else y
    return run


def _running_infer(shapes: Shapes, x: ArrayType, axes: Axes, reverse: bool = False) -> ArrayType:
    return x.with_dtype("int64") if is_int(x.dtype) else x


def _cumprod_vjp(g: Node, y: Node, x: Node, axes: Axes, reverse: bool = False) -> list[Node]:
    """gx_i = (product before i) * S_i,  S_i = g_i + x_{i+1} S_{i+1}: no division, so zeros are no exception."""
    axis = axes[0]
    xs, ys, gs = (move_axis(v, axis, -1) for v in (x, y, g))
    if reverse:
        xs, ys, gs = flip(xs), flip(ys), flip(gs)
    back = shift(ys, 1.0) * recurrence(shift(xs, 0.0, reverse=True), gs, reverse=True)
    return [move_axis(flip(back) if reverse else back, -1, axis)]


def _recurrence(a: Any, b: Any, reverse: bool) -> Any:
    y = np.empty(b.shape, b.dtype)
    order = range(y.shape[-1] - 1, -1, -1) if reverse else range(y.shape[-1])
    for position, i in enumerate(order):
        y[..., i] = b[..., i] + a[..., i] * y[..., order[position - 1]] if position else b[..., i]
    return y


def _recurrence_vjp(g: Node, y: Node, a: Node, b: Node, reverse: bool) -> list[Node]:
    adjoint = recurrence(shift(a, 0.0, reverse=not reverse), g, reverse=not reverse)
    return [adjoint * shift(y, 0.0, reverse=reverse), adjoint]


cumsum: Op = array("cumsum", "x", "Running sum along an axis.", infer=_running_infer, numpy=_running(np.cumsum), coerce=coerce_numbers, surface=True, batch=batch_same, live=live_running,
                vjp=lambda g, y, x, axes, reverse=False: (cumsum(g, axes=axes, reverse=not reverse),))
cumprod = array("cumprod", "x", "Running product along an axis; the gradient is right with zeros.", infer=_running_infer, numpy=_running(np.cumprod), coerce=coerce_numbers, surface=True, batch=batch_same, live=live_running, vjp=_cumprod_vjp)


def _recurrence_infer(shapes: Shapes, a: ArrayType, b: ArrayType, reverse: bool) -> ArrayType:
    if a.rank != b.rank or any(shapes.equal(p, q) is None for p, q in zip(a.shape, b.shape, strict=True)):
        raise TypeFault(f"a recurrence needs operands of one shape, not {a} and {b}", dims=(*a.shape, *b.shape))
    return b


def _batch_recurrence(op: Op, args: Sequence[Node], mapped: Sequence[bool], length: Dim, **attrs: Any) -> Node:
    return recurrence(*broadcast_all(args, mapped, length), **attrs)               # type: ignore[no-any-return]


recurrence = array("recurrence", "a b", "`y_i = b_i + a_i * y_{i-1}` along the last axis, from 0.", infer=_recurrence_infer,
                   numpy=_recurrence, vjp=_recurrence_vjp, batch=_batch_recurrence,
                   live=lambda mask, y, a, b, reverse: live_running(mask, y, y, (-1,), reverse) * 2)
