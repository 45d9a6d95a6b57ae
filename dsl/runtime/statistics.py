"""Least, mean and largest of an array, and how much of it is not finite, in one pass and without a copy of it.

In: an array of the host in any layout, or one that lies on a GPU.  Out: `Statistics`.  The host reads the array in pieces that stay in
the processor's cache.  A GPU runs a program of ours, made from a graph like any other, and only its scalars come back.
"""
from __future__ import annotations

import math
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from dsl.backends.cuda.memory import Memory, on_host
from dsl.backends.native import NativeExecutable, cuda
from dsl.ir.node import Node, make
from dsl.ir.types import ArrayType, Dim, DType, Size, is_float
from dsl.ops.leaves import leaf
from dsl.ops.reduction import max_, min_, sum_
from dsl.ops.scalar import isfinite, isnan, select
from dsl.ops.table import cast, constant
from dsl.pipeline import Options, prepare
from dsl.record import record

Array = np.ndarray[Any, Any]
Number = bool | int | float
PIECE = 1 << 15
"""Elements looked at together: with their copies they stay in a core's own cache."""


@record
class Statistics:
    """Of the elements that are finite: the least, the mean (in float64, whatever the sum would be) and the largest, None if there is
    none; how many are nan and how many infinite; of bools also how many are true."""

    least: Number | None = None
    mean: float | None = None
    largest: Number | None = None
    nan: int = 0
    infinite: int = 0
    true: int | None = None


def statistics(value: Array | Memory) -> Statistics | None:
    """None of what holds no numbers, such as text."""
    if isinstance(value, Memory):
        return _of_device(value)
    return None if value.dtype.kind not in "biuf" else _of_bools(value) if value.dtype.kind == "b" else _of_numbers(value)


def _counted(true: int, size: int) -> Statistics:
    return Statistics(true == size, true / size, true > 0, true=true) if size else Statistics(true=0)


# ---------------------------------------------------------------- the host
def _of_bools(array: Array) -> Statistics:
    return _counted(int(np.count_nonzero(array)), array.size)


def _of_numbers(array: Array) -> Statistics:
    least: list[Any] = []
    largest: list[Any] = []
    means: list[tuple[float, int]] = []
    nan = infinite = 0
    pieces = np.nditer(array, ["external_loop", "buffered", "zerosize_ok"], order="K", buffersize=PIECE)
    with np.errstate(all="ignore"):
        for given in pieces if array.size else ():
            piece: Array = np.asarray(given)
            low, high = piece.min(), piece.max()                 # a nan is both, an infinity one of them
            if not (np.isfinite(low) and np.isfinite(high)):
                finite = piece[np.isfinite(piece)]
                unknown = int(np.count_nonzero(np.isnan(piece)))
                nan, infinite = nan + unknown, infinite + piece.size - finite.size - unknown
                if not finite.size:
                    continue
                piece, low, high = finite, finite.min(), finite.max()
            least.append(low)
            largest.append(high)
            total = float(piece.sum(dtype=np.float64))
            mean = total / piece.size if math.isfinite(total) else float((piece.astype(np.float64) / piece.size).sum())
            means.append((mean, piece.size))
    if not means:
        return Statistics(nan=nan, infinite=infinite)
    count = sum(size for _, size in means)
    mean = sum(part * (size / count) for part, size in means)
    low, high = min(least).item(), max(largest).item()
    return Statistics(low, min(max(mean, float(low)), float(high)), high, nan, infinite)


# ---------------------------------------------------------------- a GPU
LENGTH = Size("length")
SCALE = leaf("value", "scale", ArrayType("float64"))
"""A power of two that is at most 1 / length: with it, no sum overflows."""
_compiled: WeakKeyDictionary[Any, dict[DType, NativeExecutable]] = WeakKeyDictionary()
"""By launcher: it goes when the device does."""


def _graphs(values: Node) -> list[Node]:
    """What is asked of a vector: of bools how many are true; of numbers the least, the largest, the sum, the sum of the scaled
    numbers, and of floats how many are finite and how many nan."""
    reduced = partial(make, attrs={"axes": (-1,), "keepdims": False})
    if values.dtype == "bool":
        return [reduced(sum_, (cast(values, "int64"),))]
    scale = SCALE
    if not is_float(values.dtype):
        return [reduced(min_, (values,)), reduced(max_, (values,)), reduced(sum_, (cast(values, "float64"),)),
                reduced(sum_, (cast(values, "float64") * scale,))]
    finite = make(isfinite, (values,))

    def where_finite(node: Node, other: float) -> Node:
        return make(select, (finite, node, constant(other, node.dtype)))
    wide = cast(values, "float64")
    return [reduced(min_, (where_finite(values, math.inf),)), reduced(max_, (where_finite(values, -math.inf),)),
            reduced(sum_, (where_finite(wide, 0.0),)), reduced(sum_, (where_finite(wide * scale, 0.0),)),
            reduced(sum_, (cast(finite, "int64"),)), reduced(sum_, (cast(make(isnan, (values,)), "int64"),))]


def _program(memory: Memory) -> NativeExecutable:
    known = _compiled.setdefault(memory.launcher, {})
    if memory.element not in known:
        values = leaf("value", "values", ArrayType(memory.element, (Dim.of(LENGTH),)))
        known[memory.element] = NativeExecutable(prepare(_graphs(values), Options()), lambda made: cuda(made, memory.launcher), False)
    return known[memory.element]


def _of_device(memory: Memory) -> Statistics:
    size = memory.size
    if not size:
        return Statistics(true=0) if memory.element == "bool" else Statistics()
    executable = _program(memory)
    flat = Memory(memory.launcher, memory.element, size, (size,), memory.held)
    scale = 2.0 ** -math.ceil(math.log2(size))
    given = [flat if node.rank else scale for node in executable.leaves]
    found = [on_host(result).item() for result in executable.run(given, {LENGTH.name: size})]
    if memory.element == "bool":
        return _counted(int(found[0]), size)
    least, largest, total, scaled, finite, nan = (*found, size, 0)[:6]
    if not finite:
        return Statistics(nan=nan, infinite=size - nan)
    mean = total / finite if math.isfinite(total) else scaled / (scale * finite)
    return Statistics(least, min(max(mean, float(least)), float(largest)), largest, nan, size - finite - nan)
