"""What is worth knowing of a value before one looks at all of it.

In: a value of a session, which may lie on a GPU.  Out: `Summary` of an array (or scalar, or column of texts), `TableSummary`, or a
tuple of summaries.  Of a large array only the corners are fetched, and figures are computed where it lies.  Terminals, notebooks and
Python show the same records.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np

from dsl.backends.cuda.arrays import on_device
from dsl.backends.cuda.memory import Memory, in_words
from dsl.ir.node import Node
from dsl.record import entity
from dsl.runtime.printing import CORNER, LONGEST_SIDE
from dsl.runtime.statistics import Array, Statistics, statistics
from dsl.syntax.values import Group, LoadedTable, Table, TextColumn, Value

ENDS = 5
"""Rows of a table that are shown from each end."""


@entity
class Summary:
    """Of an array: `corner` holds all of it, or of every axis that `cut` names its first `edge + 1` and last `edge` elements, so that
    printing it with `edge` elements at each end prints what printing the whole would.  `statistics` is None of text, of which
    `distinct` counts the different ones."""

    dtype: str
    shape: tuple[int, ...]
    bytes: int
    device: str
    statistics: Statistics | None
    corner: Array
    cut: tuple[int, ...]
    edge: int
    distinct: int | None = None

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def memory(self) -> str:
        """The bytes with a unit."""
        return in_words(self.bytes)

    @property
    def scalar(self) -> Any:
        """The value of what has no axes."""
        return self.corner[()]


@entity
class TableSummary:
    """Of a table: each column by name, its first `ENDS + 1` and last `ENDS` rows, or all."""

    name: str
    rows: int
    columns: tuple[tuple[str, Summary], ...]

    @property
    def bytes(self) -> int:
        return sum(column.bytes for _, column in self.columns)


AnySummary = Summary | TableSummary | tuple[Any, ...]
"""The tuple's items are such again."""


def summarize(value: Any, corner: int = CORNER) -> AnySummary:
    """The summary of an array (NumPy's, one on a GPU, or what NumPy makes one of), a table, or a tuple of these.

    `corner`: how many elements are kept at each end of an axis, of an array of which a side is longer than 20; of columns of a table
    always `ENDS`.
    """
    match value:
        case Summary() | TableSummary():
            return value
        case tuple():
            return tuple(summarize(item, corner) for item in value)
        case LoadedTable(columns=columns, rows=rows):
            found = [(name, _of_array(_array(column), ENDS, 2 * ENDS)) for name, column in columns.items()]
            return TableSummary("", rows, tuple(found))
        case _:
            return _of_array(_array(value), corner, LONGEST_SIDE)


def resolved(value: Value, array: Callable[[Node], Any]) -> Any:
    """What `summarize` takes, of what a name or an expression stands for: `array` gives the value of a graph, wherever it lies.
    Text and definitions stay as they are."""
    match value:
        case Node():
            return array(value)
        case Group(items):
            return tuple(resolved(item, array) for item in items)
        case TextColumn(values=texts):
            return texts
        case Table(columns=columns):
            found = {name: resolved(column, array) for name, column in columns.items()}
            return LoadedTable(found, next((int(column.shape[0]) for column in found.values()), 0))
        case _:
            return value


def _array(value: Any) -> Array | Memory:
    if isinstance(value, Memory):
        return value
    if on_device(value):
        from dsl.backends.cuda.arrays import received
        from dsl.backends.cuda.device import CupyLauncher
        return received(value, CupyLauncher())
    return np.asarray(value)


def _of_array(value: Array | Memory, edge: int, longest: int) -> Summary:
    long = any(side > longest for side in value.shape)
    cut = tuple(axis for axis, side in enumerate(value.shape) if long and side > 2 * edge)
    corner = _corner(value, cut, edge)
    if isinstance(value, Memory) or value.dtype.kind in "biuf":
        return Summary(value.dtype.name, tuple(value.shape), value.nbytes, _device(value), statistics(value), corner, cut, edge)
    texts = list(map(str, value.ravel().tolist()))
    return Summary("text", value.shape, sum(map(len, map(str.encode, texts))), "cpu", None, corner, cut, edge, len(set(texts)))


def _device(value: Array | Memory) -> str:
    cupy = getattr(value.launcher, "cupy", None) if isinstance(value, Memory) else None
    return f"cuda:{int(cupy.cuda.Device().id)}" if cupy is not None else "cuda" if isinstance(value, Memory) else "cpu"


def _corner(value: Array | Memory, cut: tuple[int, ...], edge: int) -> Array:
    """The elements that a summary keeps, copied."""
    if not cut:
        return value.fetched() if isinstance(value, Memory) else np.array(value)
    kept = [np.r_[:edge + 1, side - edge:side] if axis in cut else np.arange(side) for axis, side in enumerate(value.shape)]
    if not isinstance(value, Memory):
        return cast(Array, value[np.ix_(*kept)])
    places = np.ravel_multi_index(tuple(np.ix_(*kept)), value.shape).ravel()
    if not places.size:
        return np.empty([len(k) for k in kept], value.dtype)
    runs = np.split(places, np.flatnonzero(np.diff(places) != 1) + 1)
    parts = [value.launcher.download(value.place(int(run[0]), (len(run),))) for run in runs]
    return np.concatenate(parts).reshape([len(k) for k in kept])
