"""How calls of built-in functions become nodes.

In: the arguments of a call, as arrays, sizes and literals, and the `Context` it stands in.  Out: nodes of the op table.
Each builder takes the context first; the rows of `functions.py` say which call uses which.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from dsl.ir.node import TABLE, Node, Op
from dsl.ir.types import ONE, ZERO, Dim, DType, Shape, TypeFault, derived, is_float, product, shape_text
from dsl.ops.composite import softplus
from dsl.ops.leaves import STEP
from dsl.ops.linalg import matmul
from dsl.ops.random import draw
from dsl.ops.reduction import EXTREMES, cumsum, log_softmax, max_, mean, min_, std, sum_
from dsl.ops.scalar import abs as absolute
from dsl.ops.scalar import cast_op, eq, ge, le, lt, mul, select, sqr, stop_grad, xlogy
from dsl.ops.shape import (
    concat,
    dim,
    expand,
    expand_dims,
    full,
    gather,
    iota,
    move_axis,
    one_hot,
    reshape,
    size_float,
    take_along_last,
    transpose,
    triangle,
)
from dsl.ops.table import cast, constant


class Context(Protocol):
    """What a call may ask of the place it stands in."""

    precision: DType

    def draw_key(self) -> int:
        """The key of the next draw of this statement."""
        ...

    def draw_shape(self) -> Shape:
        """The shape of a draw that is given none."""
        ...

    def training(self) -> Node: ...

    def iteration(self) -> tuple[Node, ...]:
        """In a loop, the number of the iteration, as an operand of draws."""
        ...


# ---------------------------------------------------------------- axes
def one_axis(axis: Any, rank: int) -> int:
    """An axis as the language writes it, counted from the right."""
    if not isinstance(axis, int):
        raise TypeFault("one axis is needed here", kind="axis")
    if not -rank <= axis < rank:
        help = "a scalar has no axes" if rank == 0 else "its axis is 0" if rank == 1 else f"axes are 0 to {rank - 1}, or -{rank} to -1"
        raise TypeFault(f"axis {axis} of an array with {rank} {'axis' if rank == 1 else 'axes'}", kind="axis", help=help)
    return axis - rank if axis >= 0 else axis


def axes_of(axis: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """The axes of a reduction: none given means all."""
    if axis is None:
        return tuple(range(-rank, 0))
    chosen = sorted(one_axis(a, rank) for a in ([axis] if isinstance(axis, int) else axis))
    if len(set(chosen)) != len(chosen):
        raise TypeFault("an axis is named twice", kind="axis")
    return tuple(chosen)


def reduction_call(op: Op, with_ddof: bool) -> Callable[..., Node]:
    def build(context: Context, x: Node, axis: Any = None, keepdims: bool = False, ddof: int = 0) -> Node:
        axes = axes_of(axis, x.rank)
        if op in EXTREMES and any(x.shape[a] == ZERO for a in axes):
            raise TypeFault("the largest or smallest of no elements", kind="empty", dims=x.shape)
        extra = {"ddof": ddof} if with_ddof and ddof else {}
        result: Node = op(x, precision=context.precision, axes=axes, keepdims=keepdims, **extra)
        return result
    return build


def rowwise(op: Op) -> Callable[..., Node]:
    def build(context: Context, x: Node, axis: int = -1) -> Node:
        if not x.rank:
            raise TypeFault(f"`{op.name}` needs an array, not a scalar", kind="rank")
        result: Node = op(x, precision=context.precision, axes=axes_of(axis, x.rank))
        return result
    return build


def running(op: Op) -> Callable[..., Node]:
    def build(context: Context, x: Node, axis: int | None = None) -> Node:
        x = reshape(x, shape=(product(x.shape),)) if axis is None and x.rank != 1 else x
        result: Node = op(x, precision=context.precision, axes=(one_axis(-1 if axis is None else axis, x.rank),))
        return result
    return build


def elementwise_call(op: Op) -> Callable[..., Node]:
    def build(context: Context, *args: Node) -> Node:
        result: Node = op(*args, precision=context.precision)
        return result
    return build


# ---------------------------------------------------------------- conversion
def convert(dtype: str) -> Callable[..., Node]:
    def build(context: Context, x: Node) -> Node:
        wanted: Any = context.precision if dtype == "float" else dtype
        if dtype == "bool":
            return x if x.dtype == "bool" else TABLE["ne"](x, 0)
        if dtype == "int64" and x.dtype == "int32":
            return x
        return cast_op(x, dtype=wanted) if x.dtype != wanted else x
    return build


# ---------------------------------------------------------------- shapes
def reshape_call(context: Context, x: Node, shape: Shape) -> Node:
    if Dim.of(-1) in shape:
        if shape.count(Dim.of(-1)) > 1:
            raise TypeFault("only one length of `reshape` may be -1", kind="shape")
        rest = product(d for d in shape if d != Dim.of(-1))
        missing = x.type.size // rest if rest != ZERO else ZERO
        if missing.constant is not None and (missing * rest - x.type.size).constant != 0:
            raise TypeFault(f"cannot reshape {shape_text(x.shape)} to {shape_text(shape)}",
                            detail=f"{x.type.size} elements do not divide by {rest}", dims=(*x.shape, *shape))
        shape = tuple(missing if d == Dim.of(-1) else d for d in shape)
    result: Node = reshape(x, shape=shape)
    return result


def transpose_call(context: Context, x: Node, axes: Any = None) -> Node:
    given = range(x.rank - 1, -1, -1) if axes is None else (axes,) if isinstance(axes, int) else axes
    order = tuple(one_axis(a, x.rank) for a in given)
    if sorted(order) != list(range(-x.rank, 0)):
        raise TypeFault(f"`transpose` needs every axis once, not {tuple(given)}", kind="axis")
    return transpose(x, axes=order) if x.rank > 1 else x


def expand_dims_call(context: Context, x: Node, axis: int) -> Node:
    return expand_dims(x, one_axis(axis, x.rank + 1))


def squeeze(context: Context, x: Node, axis: Any = None) -> Node:
    chosen = axes_of(axis, x.rank) if axis is not None else tuple(a for a in range(-x.rank, 0) if x.shape[a] == ONE)
    for a in chosen:
        if x.shape[a] != ONE:
            raise TypeFault(f"cannot squeeze axis {a} of {shape_text(x.shape)}: its length is {x.shape[a]}, not 1", dims=x.shape)
    result: Node = reshape(x, shape=tuple(x.shape[a] for a in range(-x.rank, 0) if a not in chosen))
    return result


def same_dtype(parts: Iterable[Node], precision: DType) -> list[Node]:
    parts = list(parts)
    if not parts:
        raise TypeFault("there is nothing to join", kind="rank")
    if len({p.dtype for p in parts}) == 1:
        return parts
    from dsl.ops.table import coerce_operands
    return coerce_operands("pair", parts, precision)


def concat_call(context: Context, parts: Sequence[Node], axis: int = 0) -> Node:
    items = same_dtype(parts, context.precision)
    if not items[0].rank:
        raise TypeFault("`concat` joins arrays, not scalars", kind="rank", help="use `stack` to join scalars")
    result: Node = concat(*items, axis=one_axis(axis, items[0].rank))
    return result


def stack(parts: Sequence[Node], axis: int, precision: DType) -> Node:
    items = same_dtype(parts, precision)
    if len({i.rank for i in items}) > 1:
        raise TypeFault("parts of one rank are needed", kind="rank", detail=", ".join(shape_text(i.shape) for i in items))
    place = one_axis(axis, items[0].rank + 1)
    result: Node = concat(*[expand_dims(i, place) for i in items], axis=place)
    return result


def stack_call(context: Context, parts: Sequence[Node], axis: int = 0) -> Node:
    return stack(parts, axis, context.precision)


def tile(context: Context, x: Node, reps: Shape) -> Node:
    rank = max(x.rank, len(reps))
    counts = (*(ONE,) * (rank - len(reps)), *reps)
    shape = (*(ONE,) * (rank - x.rank), *x.shape)
    pairs = [d for n, count in zip(shape, counts, strict=True) for d in (ONE, n)]
    wide = [d for n, count in zip(shape, counts, strict=True) for d in (count, n)]
    flat = tuple(n * count for n, count in zip(shape, counts, strict=True))
    return reshape(expand(reshape(x, shape=tuple(pairs)), wide), shape=flat)        # type: ignore[no-any-return]


def repeat(context: Context, x: Node, n: Dim, axis: int | None = None) -> Node:
    x = reshape(x, shape=(product(x.shape),)) if axis is None else x
    place = one_axis(-1 if axis is None else axis, x.rank) + x.rank
    wide = expand(reshape(x, shape=(*x.shape[:place + 1], ONE, *x.shape[place + 1:])), (*x.shape[:place + 1], n, *x.shape[place + 1:]))
    return reshape(wide, shape=(*x.shape[:place], x.shape[place] * n, *x.shape[place + 1:]))   # type: ignore[no-any-return]


def full_call(context: Context, shape: Shape, value: Node) -> Node:
    return expand(value, shape)


def arange(context: Context, start: Node, stop: Node | None = None, step: Node | None = None) -> Node:
    low, high = (constant(0, "int64"), start) if stop is None else (start, stop)
    by = step if step is not None else constant(1, "int64")
    if any(is_float(x.dtype) for x in (low, high, by)):
        ends = [x.attr("dim").constant if x.op is dim else literal_value(x) for x in (low, high, by)]
        if None in ends or ends[2] == 0:
            raise TypeFault("`arange` of floats needs literal bounds", kind="dtype", help="use `linspace(first, last, count)`")
        import math
        if not all(math.isfinite(e) for e in ends):                                 # type: ignore[arg-type]
            raise TypeFault("`arange` needs finite bounds", kind="dtype")
        count = Dim.of(max(0, math.ceil((ends[1] - ends[0]) / ends[2])))            # type: ignore[operator]
        index: Node = cast(iota(length=count), context.precision)
        return cast(low, context.precision) + index * cast(by, context.precision)   # type: ignore[no-any-return]
    first, last, stride = (as_dim(x) for x in (low, high, by))
    if stride == ZERO:
        raise TypeFault("`arange` with step 0", kind="shape")
    back = stride.constant is not None and stride.constant < 0
    gap, width = (first - last, -stride) if back else (last - first, stride)
    length = derived("max", gap if width == ONE else (gap + width - 1) // width, ZERO)
    values: Node = iota(length=length)
    values = values if stride == ONE else values * cast(by, "int64")
    return values if first == ZERO else values + cast(low, "int64")


def linspace(context: Context, start: Node, stop: Node, n: Dim) -> Node:
    p = context.precision
    first, last = cast(cast(start, p), "float64"), cast(cast(stop, p), "float64")   # as NumPy: in float64, rounded once
    index, gaps = cast(iota(length=n), "float64"), size_float([derived("max", n - 1, ONE)], "float64")
    inner = index * ((last - first) / gaps) + first
    return cast(select(eq(index, gaps), last, inner), p)


def like(value: int) -> Callable[..., Node]:
    return lambda context, x: full(value, x.shape, x.dtype)


def triangle_call(keep: Op) -> Callable[..., Node]:
    def build(context: Context, x: Node, k: int = 0) -> Node:
        if x.rank < 2:
            raise TypeFault(f"a triangle of {shape_text(x.shape)}, which is no matrix", kind="rank")
        return triangle(x, k, keep)
    return build


def diag(context: Context, x: Node, k: int = 0) -> Node:
    if x.rank == 1:
        n = x.shape[0]
        side = n + abs(k)
        column: Node = iota(length=side)
        row = reshape(column, shape=(side, ONE))
        padded = concat(full(0, (k,), x.dtype), x, axis=-1) if k > 0 else \
            concat(x, full(0, (-k,), x.dtype), axis=-1) if k < 0 else x
        return select(eq(column - row, k), padded, constant(0, x.dtype))            # type: ignore[no-any-return]
    if x.rank == 2:
        rows, columns = x.shape
        low, high = (rows + min(k, 0)), (columns - max(k, 0))
        index = iota(length=derived("max", derived("min", low, high), ZERO))
        return gather(x, index - min(k, 0), index + max(k, 0))                      # type: ignore[no-any-return]
    raise TypeFault(f"`diag` takes a vector or a matrix, not {shape_text(x.shape)}", kind="rank")


def one_hot_call(context: Context, i: Node, n: Dim) -> Node:
    if is_float(i.dtype):
        raise TypeFault("`one_hot` takes integer classes", kind="dtype", help="convert with `int(…)`")
    return one_hot(cast(i, "int64"), n, context.precision)


def along_last(op: Op) -> Callable[..., Node]:
    def build(context: Context, x: Node, axis: int = -1) -> Node:
        place = one_axis(axis, x.rank)
        return move_axis(op(move_axis(x, place, -1)), -1, place)
    return build


def size_call(context: Context, x: Node, axis: int | None = None) -> Node:
    length = x.type.size if axis is None else x.shape[one_axis(axis, x.rank)]
    return dim_node(length)


def shape_call(context: Context, x: Node) -> tuple[Node, ...]:
    return tuple(dim_node(d) for d in x.shape)


def dim_node(length: Dim) -> Node:
    """A length as an int64 scalar; never a literal, so that nothing depends on whether it is known."""
    result: Node = dim(dim=length)
    return result


def literal_value(x: Node) -> int | float | None:
    """The number a literal stands for, through signs and conversions."""
    if x.op.name == "const":
        value: int | float = x.attr("literal").value
        return value
    if x.op.name in ("neg", "alias", "cast"):
        inner = literal_value(x.args[0])
        return None if inner is None else -inner if x.op.name == "neg" else inner
    return None


def as_dim(x: Node) -> Dim:
    """An int64 scalar that is made of literals and sizes, as a length."""
    if x.rank == 0 and x.dtype in ("int64", "int32"):
        match x.op.name:
            case "const":
                return Dim.of(x.attr("literal").value)
            case "dim":
                length: Dim = x.attr("dim")
                return length
            case "alias":
                return as_dim(x.args[0])
            case "neg":
                return -as_dim(x.args[0])
            case "add" | "sub" | "mul" | "floordiv" | "maximum" | "minimum":
                a, b = map(as_dim, x.args)
                match x.op.name:
                    case "add":
                        return a + b
                    case "sub":
                        return a - b
                    case "mul":
                        return a * b
                    case "floordiv":
                        return a // b
                    case "maximum":
                        return derived("max", a, b)
                    case _:
                        return derived("min", a, b)
            case _:
                pass
    raise TypeFault("a size is made of whole numbers and dims", kind="size",
                    help="declare it with `dim n = …`, or take it from an array with `size(A, 0)`")


# ---------------------------------------------------------------- products and losses
def dot_call(context: Context, a: Node, b: Node) -> Node:
    if b.rank > 2:
        raise TypeFault(f"`dot` takes vectors and matrices, not {shape_text(b.shape)}", kind="rank", help="use `@` for stacks of matrices")
    result: Node = mul(a, b, precision=context.precision) if not a.rank or not b.rank else matmul(a, b)
    return result


def outer(context: Context, a: Node, b: Node) -> Node:
    flat_a, flat_b = (reshape(x, shape=(product(x.shape),)) if x.rank != 1 else x for x in (a, b))
    return expand_dims(flat_a, -1) * flat_b                                         # type: ignore[no-any-return]


def mean_all(x: Node) -> Node:
    result: Node = mean(x, axes=tuple(range(-x.rank, 0)), keepdims=False)
    return result


def floats(context: Context, *xs: Node) -> list[Node]:
    return [cast(x, context.precision) for x in xs]


def huber(context: Context, r: Node, delta: Node) -> Node:
    r, delta = floats(context, r, delta)
    size = absolute(r)
    return select(size <= delta, 0.5 * sqr(r), delta * (size - 0.5 * delta))        # type: ignore[no-any-return]


def bce(context: Context, p: Node, y: Node) -> Node:
    p, y = floats(context, p, y)
    return -(xlogy(y, p) + xlogy(1 - y, 1 - p))                                     # type: ignore[no-any-return]


def bce_logits(context: Context, z: Node, y: Node) -> Node:
    z, y = floats(context, z, y)
    return y * softplus(-z) + (1 - y) * softplus(z)                                 # type: ignore[no-any-return]


def xent(context: Context, z: Node, classes: Node) -> Node:
    if is_float(classes.dtype) or classes.dtype == "bool":
        raise TypeFault(f"`xent` takes integer classes, not {classes.dtype}", kind="dtype",
                        help="declare the input `int vector y[n]`, or convert with `int(y)`", operands=(1,))
    if z.rank != classes.rank + 1:
        raise TypeFault(f"`xent` takes logits with one more axis than the classes, not {shape_text(z.shape)} and {shape_text(classes.shape)}",
                        kind="rank", dims=(*z.shape, *classes.shape))
    (z,) = floats(context, z)
    rows = log_softmax(z, axes=(-1,))
    if not classes.rank:
        return -gather(rows, classes)                                               # type: ignore[no-any-return]
    picked = take_along_last(rows, expand_dims(classes, -1))
    return -reshape(picked, shape=picked.shape[:-1])                                # type: ignore[no-any-return]


# ---------------------------------------------------------------- random
def draw_call(kind: str) -> Callable[..., Node]:
    def build(context: Context, shape: Shape | None = None) -> Node:
        lengths = context.draw_shape() if shape is None else shape
        result: Node = draw(STEP, *context.iteration(), kind=kind, key=context.draw_key(), shape=lengths, dtype=context.precision)
        return result
    return build


def bernoulli(context: Context, p: Node, shape: Shape | None = None) -> Node:
    (p,) = floats(context, p)
    u = draw_call("uniform")(context, p.shape if shape is None and p.rank else shape)
    result: Node = lt(u, p)
    return result


def categorical(context: Context, p: Node, shape: Shape | None = None) -> Node:
    if not p.rank:
        raise TypeFault("`categorical` takes probabilities along the last axis", kind="rank")
    (p,) = floats(context, p)
    lengths = p.shape[:-1] if shape is None else shape
    u = expand_dims(draw_call("uniform")(context, lengths), -1)
    running = cumsum(p, axes=(-1,))
    total = sum_(p, axes=(-1,), keepdims=True)
    below = cast(le(running, u * total), "int64")
    count: Node = sum_(below, axes=(-1,), keepdims=False)
    return TABLE["minimum"](count, dim_node(p.shape[-1] - 1))                       # type: ignore[no-any-return]


def permutation(context: Context, n: Dim) -> Node:
    result: Node = draw(STEP, *context.iteration(), kind="permutation", key=context.draw_key(), shape=(n,), dtype="int64")
    return result


def dropout(context: Context, x: Node, p: Node, training: Node | None = None) -> Node:
    x, p = floats(context, x, p)
    u = draw_call("uniform")(context, x.shape)
    kept = select(ge(u, p), x / (1 - p), 0)
    return select(context.training() if training is None else training, kept, x)    # type: ignore[no-any-return]


def standardize_call(context: Context, A: Node, like: Node | None = None) -> Node:
    (A,) = floats(context, A)
    (model,) = floats(context, like if like is not None else A)
    if not model.rank:
        raise TypeFault("`standardize` takes an array of rows", kind="rank")
    axes = (-model.rank,)
    spread = std(model, axes=axes, keepdims=False)
    constant_column = eq(max_(model, axes=axes, keepdims=False), min_(model, axes=axes, keepdims=False))    # whatever rounding makes of its deviation
    return (A - mean(model, axes=axes, keepdims=False)) / select(constant_column, 1.0, spread)   # type: ignore[no-any-return]


def stop(context: Context, x: Node) -> Node:
    result: Node = stop_grad(x)
    return result


