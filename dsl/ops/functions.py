"""The built-in functions of the language: one row each.

A row gives the call's parameters, a line of documentation, and how the call becomes nodes.  Element-wise ops, reductions
and row-wise ops that are marked `surface` in the op table need no row here: theirs is made from the op's.

Parameters are written `name`, `name=default` or `*name`; what an argument may be follows from the parameter's name:

    axis axes keepdims ddof k   literals              shape reps n m   sizes (ints or dims; a shape is a tuple or one int)
    parts                       several arrays        everything else  an array
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from dsl.ir.node import TABLE, Node, Op
from dsl.ir.types import ONE, ZERO, Dim, DType, Shape, TypeFault, derived, is_float, product, shape_text
from dsl.ops import calculus
from dsl.ops.composite import softplus
from dsl.ops.leaves import STEP
from dsl.ops.linalg import matmul
from dsl.ops.random import draw
from dsl.ops.reduction import cumsum, log_softmax, max_, mean, min_, std, sum_
from dsl.ops.scalar import abs as absolute
from dsl.ops.scalar import cast_op, eq, ge, le, lt, mul, select, sqr, stop_grad, xlogy
from dsl.ops.shape import (
    argsort,
    concat,
    dim,
    expand,
    expand_dims,
    eye,
    full,
    gather,
    iota,
    move_axis,
    one_hot,
    reshape,
    size_float,
    sort,
    take_along_last,
    transpose,
    triangle,
)
from dsl.ops.table import cast, constant
from dsl.record import record


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


@record
class Parameter:
    name: str
    default: Any = None
    required: bool = True
    variadic: bool = False

    def __str__(self) -> str:
        shown = "none" if self.default is None else str(self.default).lower()
        return f"*{self.name}" if self.variadic else self.name if self.required else f"{self.name} = {shown}"


@record
class Function:
    """`build(context, *arguments)` makes the nodes; None for what the runtime does (reading files, splitting data)."""

    name: str
    parameters: tuple[Parameter, ...]
    doc: str
    group: str
    build: Callable[..., Any] | None

    @property
    def signature(self) -> str:
        return f"{self.name}({', '.join(map(str, self.parameters))})"


FUNCTIONS: dict[str, Function] = {}
"""Every built-in function by name."""


def parameters(text: str) -> tuple[Parameter, ...]:
    result = []
    values = {"none": None, "true": True, "false": False, "()": ()}
    for word in text.split():
        name, given, default = word.partition("=")
        if name.startswith("*"):
            result.append(Parameter(name[1:], required=False, variadic=True))
        elif given:
            value = values[default] if default in values else float(default) if "." in default or "e" in default else int(default)
            result.append(Parameter(name, value, required=False))
        else:
            result.append(Parameter(name))
    return tuple(result)


def function(name: str, signature: str, group: str, doc: str, build: Callable[..., Any] | None) -> None:
    assert name not in FUNCTIONS, name
    FUNCTIONS[name] = Function(name, parameters(signature), doc, group, build)


# ---------------------------------------------------------------- axes
def one_axis(axis: int, rank: int) -> int:
    """An axis as the language writes it, counted from the right."""
    if not -rank <= axis < rank:
        raise TypeFault(f"axis {axis} of an array with {rank} axes", kind="axis",
                        help=f"axes are 0 to {rank - 1}, or -{rank} to -1" if rank else "a scalar has no axes")
    return axis - rank if axis >= 0 else axis


def axes_of(axis: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """The axes of a reduction: none given means all."""
    if axis is None:
        return tuple(range(-rank, 0))
    chosen = sorted(one_axis(a, rank) for a in ([axis] if isinstance(axis, int) else axis))
    if len(set(chosen)) != len(chosen):
        raise TypeFault("an axis is named twice", kind="axis")
    return tuple(chosen)


def _reduction(op: Op, with_ddof: bool) -> Callable[..., Node]:
    def build(context: Context, x: Node, axis: Any = None, keepdims: bool = False, ddof: int = 0) -> Node:
        extra = {"ddof": ddof} if with_ddof and ddof else {}
        result: Node = op(x, precision=context.precision, axes=axes_of(axis, x.rank), keepdims=keepdims, **extra)
        return result
    return build


def _rowwise(op: Op) -> Callable[..., Node]:
    def build(context: Context, x: Node, axis: int = -1) -> Node:
        if not x.rank:
            raise TypeFault(f"`{op.name}` needs an array, not a scalar", kind="rank")
        result: Node = op(x, precision=context.precision, axes=axes_of(axis, x.rank))
        return result
    return build


def _running(op: Op) -> Callable[..., Node]:
    def build(context: Context, x: Node, axis: int | None = None) -> Node:
        x = reshape(x, shape=(product(x.shape),)) if axis is None and x.rank != 1 else x
        result: Node = op(x, precision=context.precision, axes=(one_axis(-1 if axis is None else axis, x.rank),))
        return result
    return build


def _elementwise(op: Op) -> Callable[..., Node]:
    def build(context: Context, *args: Node) -> Node:
        result: Node = op(*args, precision=context.precision)
        return result
    return build


def _from_table() -> None:
    for op in list(TABLE.values()):
        if not op.surface:
            continue
        operands = " ".join(op.operands)
        if op.elementwise:
            function(op.name, operands, "element-wise", op.doc, _elementwise(op))
        elif op.name in ("softmax", "log_softmax"):
            function(op.name, "x axis=-1", "row-wise", op.doc, _rowwise(op))
        elif op.name in ("cumsum", "cumprod"):
            function(op.name, "x axis=none", "row-wise", op.doc, _running(op))
        else:
            ddof = op.name in ("var", "std")
            function(op.name, "x axis=none keepdims=false" + " ddof=0" * ddof, "reduction", op.doc, _reduction(op, ddof))


# ---------------------------------------------------------------- conversion
def _convert(dtype: str) -> Callable[..., Node]:
    def build(context: Context, x: Node) -> Node:
        wanted: Any = context.precision if dtype == "float" else dtype
        if dtype == "bool":
            return x if x.dtype == "bool" else TABLE["ne"](x, 0)
        if dtype == "int64" and x.dtype == "int32":
            return x
        return cast_op(x, dtype=wanted) if x.dtype != wanted else x
    return build


# ---------------------------------------------------------------- shapes
def _reshape(context: Context, x: Node, shape: Shape) -> Node:
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


def _transpose(context: Context, x: Node, axes: Any = None) -> Node:
    given = range(x.rank - 1, -1, -1) if axes is None else (axes,) if isinstance(axes, int) else axes
    order = tuple(one_axis(a, x.rank) for a in given)
    if sorted(order) != list(range(-x.rank, 0)):
        raise TypeFault(f"`transpose` needs every axis once, not {tuple(given)}", kind="axis")
    return transpose(x, axes=order) if x.rank > 1 else x


def _expand_dims(context: Context, x: Node, axis: int) -> Node:
    return expand_dims(x, one_axis(axis, x.rank + 1))


def _squeeze(context: Context, x: Node, axis: Any = None) -> Node:
    chosen = axes_of(axis, x.rank) if axis is not None else tuple(a for a in range(-x.rank, 0) if x.shape[a] == ONE)
    for a in chosen:
        if x.shape[a] != ONE:
            raise TypeFault(f"cannot squeeze axis {a} of {shape_text(x.shape)}: its length is {x.shape[a]}, not 1", dims=x.shape)
    result: Node = reshape(x, shape=tuple(x.shape[a] for a in range(-x.rank, 0) if a not in chosen))
    return result


def same_dtype(parts: Iterable[Node], precision: DType) -> list[Node]:
    parts = list(parts)
    if len({p.dtype for p in parts}) == 1:
        return parts
    from dsl.ops.table import coerce_operands
    return coerce_operands("pair", parts, precision)


def _concat(context: Context, parts: Sequence[Node], axis: int = 0) -> Node:
    items = same_dtype(parts, context.precision)
    if not items or not items[0].rank:
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


def _stack(context: Context, parts: Sequence[Node], axis: int = 0) -> Node:
    return stack(parts, axis, context.precision)


def _tile(context: Context, x: Node, reps: Shape) -> Node:
    rank = max(x.rank, len(reps))
    counts = (*(ONE,) * (rank - len(reps)), *reps)
    shape = (*(ONE,) * (rank - x.rank), *x.shape)
    pairs = [d for n, count in zip(shape, counts, strict=True) for d in (ONE, n)]
    wide = [d for n, count in zip(shape, counts, strict=True) for d in (count, n)]
    flat = tuple(n * count for n, count in zip(shape, counts, strict=True))
    return reshape(expand(reshape(x, shape=tuple(pairs)), wide), shape=flat)        # type: ignore[no-any-return]


def _repeat(context: Context, x: Node, n: Dim, axis: int | None = None) -> Node:
    x = reshape(x, shape=(product(x.shape),)) if axis is None else x
    place = one_axis(-1 if axis is None else axis, x.rank) + x.rank
    wide = expand(reshape(x, shape=(*x.shape[:place + 1], ONE, *x.shape[place + 1:])), (*x.shape[:place + 1], n, *x.shape[place + 1:]))
    return reshape(wide, shape=(*x.shape[:place], x.shape[place] * n, *x.shape[place + 1:]))   # type: ignore[no-any-return]


def _full(context: Context, shape: Shape, value: Node) -> Node:
    return expand(value, shape)


def _arange(context: Context, start: Node, stop: Node | None = None, step: Node | None = None) -> Node:
    low, high = (constant(0, "int64"), start) if stop is None else (start, stop)
    by = step if step is not None else constant(1, "int64")
    if any(is_float(x.dtype) for x in (low, high, by)):
        ends = [x.attr("dim").constant if x.op is dim else literal_value(x) for x in (low, high, by)]
        if None in ends or ends[2] == 0:
            raise TypeFault("`arange` of floats needs literal bounds", kind="dtype", help="use `linspace(first, last, count)`")
        import math
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


def _linspace(context: Context, start: Node, stop: Node, n: Dim) -> Node:
    p = context.precision
    first, last = cast(cast(start, p), "float64"), cast(cast(stop, p), "float64")   # as NumPy: in float64, rounded once
    index, gaps = cast(iota(length=n), "float64"), size_float([derived("max", n - 1, ONE)], "float64")
    inner = index * ((last - first) / gaps) + first
    return cast(select(eq(index, gaps), last, inner), p)


def _like(value: int) -> Callable[..., Node]:
    return lambda context, x: full(value, x.shape, x.dtype)


def _triangle(keep: Op) -> Callable[..., Node]:
    def build(context: Context, x: Node, k: int = 0) -> Node:
        if x.rank < 2:
            raise TypeFault(f"a triangle of {shape_text(x.shape)}, which is no matrix", kind="rank")
        return triangle(x, k, keep)
    return build


def _diag(context: Context, x: Node, k: int = 0) -> Node:
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


def _one_hot(context: Context, i: Node, n: Dim) -> Node:
    if is_float(i.dtype):
        raise TypeFault("`one_hot` takes integer classes", kind="dtype", help="convert with `int(…)`")
    return one_hot(cast(i, "int64"), n, context.precision)


def _along_last(op: Op) -> Callable[..., Node]:
    def build(context: Context, x: Node, axis: int = -1) -> Node:
        place = one_axis(axis, x.rank)
        return move_axis(op(move_axis(x, place, -1)), -1, place)
    return build


def _size(context: Context, x: Node, axis: int | None = None) -> Node:
    length = x.type.size if axis is None else x.shape[one_axis(axis, x.rank)]
    return dim_node(length)


def _shape(context: Context, x: Node) -> tuple[Node, ...]:
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
def _dot(context: Context, a: Node, b: Node) -> Node:
    if b.rank > 2:
        raise TypeFault(f"`dot` takes vectors and matrices, not {shape_text(b.shape)}", kind="rank", help="use `@` for stacks of matrices")
    result: Node = mul(a, b, precision=context.precision) if not a.rank or not b.rank else matmul(a, b)
    return result


def _outer(context: Context, a: Node, b: Node) -> Node:
    flat_a, flat_b = (reshape(x, shape=(product(x.shape),)) if x.rank != 1 else x for x in (a, b))
    return expand_dims(flat_a, -1) * flat_b                                         # type: ignore[no-any-return]


def _mean_all(x: Node) -> Node:
    result: Node = mean(x, axes=tuple(range(-x.rank, 0)), keepdims=False)
    return result


def _floats(context: Context, *xs: Node) -> list[Node]:
    return [cast(x, context.precision) for x in xs]


def _huber(context: Context, r: Node, delta: Node) -> Node:
    r, delta = _floats(context, r, delta)
    size = absolute(r)
    return select(size <= delta, 0.5 * sqr(r), delta * (size - 0.5 * delta))        # type: ignore[no-any-return]


def _bce(context: Context, p: Node, y: Node) -> Node:
    p, y = _floats(context, p, y)
    return -(xlogy(y, p) + xlogy(1 - y, 1 - p))                                     # type: ignore[no-any-return]


def _bce_logits(context: Context, z: Node, y: Node) -> Node:
    z, y = _floats(context, z, y)
    return y * softplus(-z) + (1 - y) * softplus(z)                                 # type: ignore[no-any-return]


def _xent(context: Context, z: Node, classes: Node) -> Node:
    if is_float(classes.dtype) or classes.dtype == "bool":
        raise TypeFault(f"`xent` takes integer classes, not {classes.dtype}", kind="dtype",
                        help="declare the input `int vector y[n]`, or convert with `int(y)`", operands=(1,))
    if z.rank != classes.rank + 1:
        raise TypeFault(f"`xent` takes logits with one more axis than the classes, not {shape_text(z.shape)} and {shape_text(classes.shape)}",
                        kind="rank", dims=(*z.shape, *classes.shape))
    (z,) = _floats(context, z)
    rows = log_softmax(z, axes=(-1,))
    if not classes.rank:
        return -gather(rows, classes)                                               # type: ignore[no-any-return]
    picked = take_along_last(rows, expand_dims(classes, -1))
    return -reshape(picked, shape=picked.shape[:-1])                                # type: ignore[no-any-return]


# ---------------------------------------------------------------- random
def _draw(kind: str) -> Callable[..., Node]:
    def build(context: Context, shape: Shape | None = None) -> Node:
        lengths = context.draw_shape() if shape is None else shape
        result: Node = draw(STEP, kind=kind, key=context.draw_key(), shape=lengths, dtype=context.precision)
        return result
    return build


def _bernoulli(context: Context, p: Node, shape: Shape | None = None) -> Node:
    (p,) = _floats(context, p)
    u = _draw("uniform")(context, p.shape if shape is None and p.rank else shape)
    result: Node = lt(u, p)
    return result


def _categorical(context: Context, p: Node, shape: Shape | None = None) -> Node:
    if not p.rank:
        raise TypeFault("`categorical` takes probabilities along the last axis", kind="rank")
    (p,) = _floats(context, p)
    lengths = p.shape[:-1] if shape is None else shape
    u = expand_dims(_draw("uniform")(context, lengths), -1)
    running = cumsum(p, axes=(-1,))
    total = sum_(p, axes=(-1,), keepdims=True)
    below = cast(le(running, u * total), "int64")
    count: Node = sum_(below, axes=(-1,), keepdims=False)
    return TABLE["minimum"](count, dim_node(p.shape[-1] - 1))                       # type: ignore[no-any-return]


def _permutation(context: Context, n: Dim) -> Node:
    result: Node = draw(STEP, kind="permutation", key=context.draw_key(), shape=(n,), dtype="int64")
    return result


def _dropout(context: Context, x: Node, p: Node, training: Node | None = None) -> Node:
    x, p = _floats(context, x, p)
    u = _draw("uniform")(context, x.shape)
    kept = select(ge(u, p), x / (1 - p), 0)
    return select(context.training() if training is None else training, kept, x)    # type: ignore[no-any-return]


def _standardize(context: Context, A: Node, like: Node | None = None) -> Node:
    (A,) = _floats(context, A)
    (model,) = _floats(context, like if like is not None else A)
    if not model.rank:
        raise TypeFault("`standardize` takes an array of rows", kind="rank")
    axes = (-model.rank,)
    spread = std(model, axes=axes, keepdims=False)
    constant_column = eq(max_(model, axes=axes, keepdims=False), min_(model, axes=axes, keepdims=False))    # whatever rounding makes of its deviation
    return (A - mean(model, axes=axes, keepdims=False)) / select(constant_column, 1.0, spread)   # type: ignore[no-any-return]


def _stop(context: Context, x: Node) -> Node:
    result: Node = stop_grad(x)
    return result


# ---------------------------------------------------------------- rows
_from_table()
F = function
F("float", "x", "conversion", "`x` in the script's float.", _convert("float"))
F("int",   "x", "conversion", "`x` as an integer, rounded towards 0; nan and infinity are an error.", _convert("int64"))
F("bool",  "x", "conversion", "Whether `x` is not 0.", _convert("bool"))
F("reshape",     "x shape",        "shape", "The same elements in another shape; one length may be -1.", _reshape)
F("transpose",   "x axes=none",    "shape", "Axes in another order (reversed unless told).", _transpose)
F("expand_dims", "x axis",         "shape", "A new axis of length 1.", _expand_dims)
F("squeeze",     "x axis=none",    "shape", "Without axes of length 1.", _squeeze)
F("concat",      "parts axis=0",   "shape", "Arrays joined along an axis: `concat((a, b))`.", _concat)
F("stack",       "parts axis=0",   "shape", "Arrays joined along a new axis: `stack((a, b))`.", _stack)
F("tile",        "x reps",         "shape", "The whole array repeated.", _tile)
F("repeat",      "x n axis=none",  "shape", "Each element repeated `n` times.", _repeat)
F("zeros",       "shape",          "shape", "Zeros.", lambda context, shape: full(0, shape, context.precision))
F("ones",        "shape",          "shape", "Ones.",  lambda context, shape: full(1, shape, context.precision))
F("full",        "shape value",    "shape", "One value everywhere.", _full)
F("eye",         "n m=none",       "shape", "The identity matrix.", lambda context, n, m=None: eye(n, n if m is None else m, context.precision))
F("arange",      "start stop=none step=none", "shape", "`start, start + step, …` below `stop`; of one argument, from 0.", _arange)
F("linspace",    "start stop n",   "shape", "`n` evenly spaced values, both ends included.", _linspace)
F("zeros_like",  "x",              "shape", "Zeros of the shape of `x`.", _like(0))
F("ones_like",   "x",              "shape", "Ones of the shape of `x`.", _like(1))
F("tril",        "x k=0",          "shape", "The lower triangle, up to the `k`-th diagonal.", _triangle(le))
F("triu",        "x k=0",          "shape", "The upper triangle, from the `k`-th diagonal.", _triangle(ge))
F("diag",        "x k=0",          "shape", "A vector on the `k`-th diagonal of a matrix, or that diagonal of a matrix.", _diag)
F("one_hot",     "i n",            "shape", "Rows with a 1 at the class, of `n` classes.", _one_hot)
F("sort",        "x axis=-1",      "shape", "Sorted along an axis, nan last.", _along_last(sort))
F("argsort",     "x axis=-1",      "shape", "The indices that sort an axis; ties keep their order.", _along_last(argsort))
F("size",        "x axis=none",    "shape", "The number of elements, or the length of an axis.", _size)
F("shape",       "x",              "shape", "The lengths of the axes, as a tuple.", _shape)
F("dot",         "a b",            "linear algebra", "Product of vectors, matrices or scalars.", _dot)
F("outer",       "a b",            "linear algebra", "`a[:, None] * b`.", _outer)
F("mse",         "p y",            "loss", "Mean square difference.", lambda context, p, y: _mean_all(sqr(_floats(context, p)[0] - y)))
F("mae",         "p y",            "loss", "Mean absolute difference.", lambda context, p, y: _mean_all(absolute(_floats(context, p)[0] - y)))
F("huber",       "r delta=1",      "loss", "`r*r/2` near 0, linear beyond `delta`; element-wise.", _huber)
F("bce",         "p y",            "loss", "Cross-entropy of a probability `p` against 0 or 1; element-wise.", _bce)
F("bce_logits",  "z y",            "loss", "Cross-entropy of `sigmoid(z)` against 0 or 1; element-wise.", _bce_logits)
F("xent",        "z classes",      "loss", "Cross-entropy of `softmax(z)` against integer classes; one value a row.", _xent)
F("normal",      "shape=none",     "random", "Standard normal draws.", _draw("normal"))
F("uniform",     "shape=none",     "random", "Uniform draws on [0, 1).", _draw("uniform"))
F("bernoulli",   "p shape=none",   "random", "True with probability `p`.", _bernoulli)
F("categorical", "p shape=none",   "random", "A class drawn with the probabilities along the last axis.", _categorical)
F("permutation", "n",              "random", "The first `n` integers in random order.", _permutation)
F("dropout",     "x p training=none", "random", "In training steps, `x / (1 - p)` or 0 with probability `p`; elsewhere `x`.", _dropout)
F("stop_grad",   "x",              "derivative", "`x`, taken as a constant by derivatives.", _stop)
F("grad",        "C x",            "derivative", "Gradient of a scalar with respect to a name.", lambda context, C, x: calculus.gradient(C, x))
F("hess",        "C x",            "derivative", "Hessian of a scalar with respect to a name.", lambda context, C, x: calculus.hessian(C, x))
F("jac",         "f x",            "derivative", "Jacobian with respect to a name.", lambda context, f, x: calculus.jac(f, x))
F("jvp",         "f x v",          "derivative", "Jacobian with respect to a name, times `v`.", lambda context, f, x, v: calculus.jvp(f, x, cast(v, f.dtype)))
F("vjp",         "f x v",          "derivative", "`v` times the Jacobian with respect to a name.", lambda context, f, x, v: calculus.vjp(f, x, cast(v, f.dtype)))
F("hvp",         "C x v",          "derivative", "Hessian of a scalar with respect to a name, times `v`.", lambda context, C, x, v: calculus.hvp(C, x, cast(v, C.dtype)))
F("standardize", "A like=none",    "data", "Columns less their mean, over their deviation (of `like` if given).", _standardize)
F("csv",         "path missing=none separator=none", "data", "A table read from a CSV file with a header.", None)
F("npy",         "path",           "data", "An array read from a .npy file.", None)
F("npz",         "path",           "data", "The arrays of a .npz file, as columns of a table.", None)
F("parquet",     "path missing=none", "data", "A table read from a Parquet file.", None)
F("split",       "*parts test",    "data", "Training and test rows, shuffled by the seed: `split(A, y, test = 0.2)` gives A_train, A_test, y_train, y_test.", None)
F("codes",       "column",         "data", "A text column as integers, in sorted order.", None)
F("labels",      "column",         "data", "The sorted distinct texts of a column.", None)

LATER = frozenset("""einsum cholesky solve solve_triangular cho_solve logdet det inv eigh svd qr trace normal_lpdf student_t_lpdf
bernoulli_logit_lpmf poisson_log_lpmf multi_normal_cholesky_lpdf gamma_lpdf beta_lpdf rk4 scan fold iterate""".split())
"""Functions of the language that this version does not have yet."""

