"""Graphs in the few ops that have loops.

In: graphs as the reference backend would run them.  Out: graphs of the same values in

    element-wise ops with `code`, leaves, `const`, `dim`, `iota`, `draw`
    ops that move elements: reshape, transpose, expand, slice, unslice, concat, gather
    `reduce`, `running`, `mark_if`                              made here, below
    matmul, scatter_add, scan, iterate

Composite ops are replaced by their `means`; reductions by `reduce`, which never faults.  A formula here is that of the op's
NumPy column, which is written to avoid overflow; float32 is added up in float64 there and here.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from dsl.ir.node import TABLE, Node, Op, Origins, make, topological
from dsl.ir.types import ONE, ArrayType, Dim, DType, Shape, Shapes, is_float
from dsl.ops.scalar import add, and_, cast_op, div, eq, exp, isfinite, isnan, log, mul, ne, not_, or_, select, sqr, sqrt, sub
from dsl.ops.shape import concat, dim, flip, full, iota, reshape, slice_axis, take_along_last, transpose
from dsl.ops.table import cast, constant

Axes = tuple[int, ...]
WHOLE = 2 ** 63 - 1


class NotNative(Exception):
    """A graph holds an op that has no loops yet; the reference runs it."""


# ---------------------------------------------------------------- the ops made here
def _reduce_infer(shapes: Shapes, x: ArrayType, kind: str, axes: Axes, keepdims: bool, dtype: DType, mean: bool = False) -> ArrayType:
    shape = [ONE if a in axes else x.shape[a] for a in range(-x.rank, 0) if keepdims or a not in axes]
    return ArrayType(dtype, tuple(shape))


def _running_infer(shapes: Shapes, x: ArrayType, *factor: ArrayType, kind: str, axis: int, reverse: bool, dtype: DType) -> ArrayType:
    return ArrayType(dtype, x.shape)


reduce = Op("reduce", ("x",), "sum, prod, max, min, any, all over axes; the unit over nothing; `mean` divides.", _reduce_infer)
running = Op("running", ("x", "*factor"), "sum or prod so far along an axis; or y_i = x_i + factor_i * y_{i-1}.", _running_infer)
mark_if = Op("mark_if", ("x", "condition"), "`x`; the program has met a fault if the scalar condition holds.", lambda _, x, condition: x)
spread = Op("spread", ("x", "column"), "Rows of zeros with x[i] in the column of row i.",
            lambda shapes, x, column, length, fill: x.with_shape([*x.shape, length]))

KINDS = {"sum": "add", "prod": "mul", "max": "maximum", "min": "minimum", "any": "or", "all": "and"}
"""What a kind of reduction combines with."""


def unit(kind: str, dtype: DType) -> bool | int | float:
    """The value of a reduction over nothing."""
    if kind in ("any", "all"):
        return kind == "all"
    if kind in ("max", "min"):
        largest: float = math.inf if is_float(dtype) else 2 ** (31 if dtype == "int32" else 63) - 1
        return largest if kind == "min" else -largest if is_float(dtype) else -largest - 1
    return 0 if kind == "sum" else 1


def reduced(kind: str, x: Node, axes: Axes, keepdims: bool, dtype: DType | None = None, mean: bool = False) -> Node:
    return make(reduce, [x], {"kind": kind, "axes": axes, "keepdims": keepdims, "dtype": dtype or x.dtype, "mean": mean})


# ---------------------------------------------------------------- reductions
def _number(x: Node) -> DType:
    return x.dtype if is_float(x.dtype) else "int64"


def _sum(x: Node, axes: Axes, keepdims: bool) -> Node:
    return reduced("sum", x, axes, keepdims, _number(x))


def _mean(x: Node, axes: Axes, keepdims: bool) -> Node:
    return reduced("sum", x, axes, keepdims, mean=True)


def _prod(x: Node, axes: Axes, keepdims: bool) -> Node:
    y = reduced("prod", x, axes, keepdims, _number(x))
    if not is_float(x.dtype):
        return y
    zero = and_(reduced("any", eq(x, 0), axes, keepdims), reduced("all", isfinite(x), axes, keepdims))
    return select(and_(isnan(y), zero), 0, y)                                        # type: ignore[no-any-return]


def _count(x: Node, axes: Axes) -> Dim:
    total = ONE
    for a in axes:
        total = total * x.shape[a]
    return total


def _nonempty(y: Node, x: Node, live: Node | None, axes: Axes) -> Node:
    """`y`, with a fault where it is over nothing and used."""
    count = _count(x, axes)
    if count.constant is not None and count.constant > 0:
        return y
    nothing = eq(make(dim, (), {"dim": count}), constant(0, "int64"))
    if live is not None:
        nothing = and_(nothing, reduced("any", live, tuple(range(-live.rank, 0)), False))
    else:
        # Where the result itself has no elements nobody uses it.
        nothing = and_(nothing, ne(make(dim, (), {"dim": _count(y, tuple(range(-y.rank, 0)))}), constant(0, "int64")))
    return make(mark_if, [y, nothing])


def _extreme(kind: str) -> Callable[..., Node]:
    def lowered(x: Node, live: Node | None = None, *, axes: Axes, keepdims: bool) -> Node:
        return _nonempty(reduced(kind, x, axes, keepdims), x, live, axes)
    return lowered


def _position(kind: str) -> Callable[..., Node]:
    def lowered(x: Node, live: Node | None = None, *, axes: Axes, keepdims: bool) -> Node:
        """The first place that holds the extreme, or a nan."""
        top = reduced(kind, x, axes, True)
        found = eq(x, top)
        if is_float(x.dtype):
            found = or_(found, isnan(x))
        place: Node | None = None
        for a in axes:
            shape = tuple(x.shape[a] if b == a else ONE for b in range(a, 0))
            index = reshape(iota(length=x.shape[a]), shape=shape)
            place = index if place is None else add(mul(place, make(dim, (), {"dim": x.shape[a]})), index)
        place = constant(0, "int64") if place is None else place
        first = reduced("min", select(found, place, constant(WHOLE, "int64")), axes, keepdims)
        return _nonempty(first, x, live, axes)
    return lowered


def _logic(kind: str) -> Callable[..., Node]:
    return lambda x, axes, keepdims: reduced(kind, x, axes, keepdims)


def _wide(x: Node) -> Node:
    return cast(x, "float64")


def _var(x: Node, axes: Axes, keepdims: bool, ddof: int = 0) -> Node:
    wide = _wide(x)
    deviation = sub(wide, reduced("sum", wide, axes, True, mean=True))
    count = sub(cast_op(make(dim, (), {"dim": _count(x, axes)}), dtype="float64"), constant(ddof, "float64"))
    return cast(div(reduced("sum", sqr(deviation), axes, keepdims), count), x.dtype)


def _std(x: Node, axes: Axes, keepdims: bool, ddof: int = 0) -> Node:
    return sqrt(_var(x, axes, keepdims, ddof))                                       # type: ignore[no-any-return]


def _norm(x: Node, axes: Axes, keepdims: bool) -> Node:
    if x.dtype == "float32":
        return cast(sqrt(reduced("sum", sqr(_wide(x)), axes, keepdims)), "float32")
    scale = reduced("max", TABLE["abs"](x), axes, True)
    safe = select(or_(eq(scale, 0), not_(isfinite(scale))), 1.0, scale)
    return _squeezed(mul(sqrt(reduced("sum", sqr(div(x, safe)), axes, True)), safe), axes, keepdims)


def _squeezed(y: Node, axes: Axes, keepdims: bool) -> Node:
    shape = tuple(n for a, n in zip(range(-y.rank, 0), y.shape) if a not in axes)
    return y if keepdims or not axes else make(reshape, [y], {"shape": shape})


def _top(x: Node, axes: Axes) -> Node:
    top = reduced("max", x, axes, True)
    return select(isfinite(top), top, 0)                                             # type: ignore[no-any-return]


def _logsumexp(x: Node, axes: Axes, keepdims: bool) -> Node:
    anchor = _top(x, axes)
    return _squeezed(add(log(reduced("sum", exp(sub(x, anchor)), axes, True)), anchor), axes, keepdims)


def _softmax(x: Node, axes: Axes) -> Node:
    e = exp(sub(x, _top(x, axes)))
    at_infinity = select(eq(x, math.inf), constant(math.nan, x.dtype), constant(0.0, x.dtype))
    return select(eq(reduced("max", x, axes, True), math.inf), at_infinity, div(e, reduced("sum", e, axes, True)))   # type: ignore[no-any-return]


def _log_softmax(x: Node, axes: Axes) -> Node:
    anchor = _top(x, axes)
    shifted = sub(x, anchor)
    return sub(shifted, log(reduced("sum", exp(shifted), axes, True)))               # type: ignore[no-any-return]


def _sum_to(x: Node, shape: Shape) -> Node:
    """Axes in front are summed away; of the others those that the target has length 1 on, or may have.

    Where lengths m of the target and n of `x` may differ, m is 1 or n: then axis n is m groups of n // m to sum."""
    extra = x.rank - len(shape)
    axes = list(range(-x.rank, -len(shape)))
    grouped: list[Dim] = []
    for a, target in zip(range(-len(shape), 0), shape):
        if target == ONE and x.shape[a] != ONE:
            axes.append(a)
        elif target != x.shape[a] and (target.anonymous or x.shape[a].anonymous):
            grouped.append(target)
    y = reduced("sum", x, tuple(axes), False) if axes else x
    if grouped:
        split: list[Dim] = []
        summed: list[int] = []
        kept = [(n, t) for a, n, t in zip(range(-len(shape), 0), x.shape[extra:], shape) if a not in axes]
        for n, target in kept:
            split.append(target)
            if target != n and (target.anonymous or n.anonymous):
                summed.append(len(split))
                split.append(n // target)
        y = make(reshape, [y], {"shape": tuple(split)})
        y = reduced("sum", y, tuple(s - len(split) for s in summed), False)
    return make(reshape, [y], {"shape": shape}) if y.shape != shape else y


# ---------------------------------------------------------------- one element of a row
def counts_rows(index: Node, length: Dim) -> bool:
    """Whether an index is 0, 1, 2, … along an axis of that length."""
    while index.op.name in ("reshape", "expand"):
        index = index.args[0]
    return index.op.name == "iota" and index.attr("length") == length


def _scatter_add(g: Node, *indices: Node, shape: Shape, fill: bool = False) -> Node:
    """Where row i takes one number, in the column `indices[1][i]`, that is a comparison for every column."""
    if len(indices) == 2 and len(shape) == 2 and g.shape == indices[0].shape == indices[1].shape and counts_rows(indices[0], shape[0]) \
            and g.shape[:1] == shape[:1] and all(n == ONE for n in g.shape[1:]):
        flat = [make(reshape, [x], {"shape": shape[:1]}) if x.rank > 1 else x for x in (g, indices[1])]
        return make(spread, flat, {"length": shape[1], "fill": fill})
    return make(TABLE["scatter_add"], [g, *indices], {"shape": shape, "fill": fill} if fill else {"shape": shape})


# ---------------------------------------------------------------- running totals
def _running(kind: str) -> Callable[..., Node]:
    def lowered(x: Node, axes: Axes, reverse: bool = False) -> Node:
        return make(running, [x], {"kind": kind, "axis": axes[0], "reverse": reverse, "dtype": _number(x)})
    return lowered


def _recurrence(a: Node, b: Node, reverse: bool) -> Node:
    return make(running, [b, a], {"kind": "recurrence", "axis": -1, "reverse": reverse, "dtype": b.dtype})


def _other_product(x: Node, axes: Axes) -> Node:
    """The product before each element times that after it, along the reduced axes as one."""
    kept = [a for a in range(-x.rank, 0) if a not in axes]
    order = (*kept, *axes)
    count = _count(x, axes)
    lead = tuple(x.shape[a] for a in kept)
    flat = _wide(reshape(transpose(x, axes=order), shape=(*lead, count)))
    one = full(1.0, (*lead, ONE), "float64")

    def before(z: Node) -> Node:
        so_far = make(running, [z], {"kind": "prod", "axis": -1, "reverse": False, "dtype": "float64"})
        return slice_axis(concat(one, so_far, axis=-1), -1, 0, count)
    y = mul(before(flat), flip(before(flip(flat))))
    zero = cast(eq(flat, 0), "int64")
    others = TABLE["gt"](sub(reduced("sum", zero, (-1,), True), zero), 0)
    y = select(and_(isnan(y), and_(others, reduced("all", isfinite(flat), (-1,), True))), 0, y)
    inverse = tuple(order.index(a) - x.rank for a in range(-x.rank, 0))
    back = transpose(reshape(y, shape=tuple(x.shape[a] for a in order)), axes=inverse)
    return cast(back, x.dtype)


FORMULAS: dict[str, Callable[..., Node]] = {
    "sum": _sum, "mean": _mean, "prod": _prod, "max": _extreme("max"), "min": _extreme("min"), "any": _logic("any"), "all": _logic("all"),
    "argmax": _position("max"), "argmin": _position("min"), "var": _var, "std": _std, "norm": _norm, "logsumexp": _logsumexp,
    "softmax": _softmax, "log_softmax": _log_softmax, "sum_to": _sum_to, "scatter_add": _scatter_add,
    "cumsum": _running("sum"), "cumprod": _running("prod"), "recurrence": _recurrence, "other_product": _other_product,
    "sort": lambda x: take_along_last(x, TABLE["argsort"](x)), "alias": lambda x, name: x, "stop_grad": lambda x: x,
}
"""How an op is written in those that have loops."""

CORE = frozenset(("leaf", "const", "dim", "iota", "draw", "reshape", "transpose", "expand", "slice", "unslice", "concat", "gather",
                  "matmul", "scatter_add", "reduce", "running", "mark_if", "spread", "argsort", "scan", "iterate"))


def legalise(roots: Sequence[Node], origins: Origins | None = None) -> list[Node]:
    """The graphs in core ops.  Raises `NotNative`."""
    done: dict[Node, Node] = {}

    def settle(start: Node) -> Node:
        for node in topological([start], done):
            if node in done:
                continue
            args = tuple(done[a] for a in node.args)
            op = node.op
            if op.name in FORMULAS:
                result = FORMULAS[op.name](*args, **dict(node.attrs))
                result = result if result.op is op else settle(result)
            elif op.name in CORE or op.code is not None:
                result = node if args == node.args else make(op, args, node.attrs)
            elif op.means is not None:
                result = settle(op.means(*args, **dict(node.attrs)))
            else:
                raise NotNative(op.name)
            done[node] = done[result] = result
            if origins is not None:
                origins.inherit(result, node)
        return done[start]
    return [settle(r) for r in roots]
