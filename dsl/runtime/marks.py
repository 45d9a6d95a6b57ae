"""What a plot shows: marks over evaluated arrays, and the checks before they are drawn.

In: arrays and the names they have in the script.  Out: marks whose arrays are float64 and of the right shapes, for pictures
(`plots.py`) and terminals (`terminal_plots.py`).  Raises E0611 for arrays that cannot be drawn, such as x and y of two lengths.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dsl.errors import Span, error
from dsl.record import entity
from dsl.runtime.canvas import FINEST

Array = npt.NDArray[Any]
MOST_BINS = 100


@entity
class Scatter:
    """A point for each x[i], y[i]; both [n].  The names become axis labels, `label` (else `y_name`) the legend."""

    x: npt.ArrayLike
    y: npt.ArrayLike
    label: str = ""
    x_name: str = ""
    y_name: str = ""


@entity
class Line:
    """A line through x[i], y[i] in the order they have; both [n]; a nan breaks it."""

    x: npt.ArrayLike
    y: npt.ArrayLike
    label: str = ""
    x_name: str = ""
    y_name: str = ""


@entity
class Hist:
    """How many of the values fall into each bin; any shape; values that are not finite are left out.

    `bins` of equal width, or by NumPy's "auto" rule, at most 100.
    """

    x: npt.ArrayLike
    bins: int | None = None
    label: str = ""
    x_name: str = ""


@entity
class Heatmap:
    """Colours for z[row, column], row 0 on top."""

    z: npt.ArrayLike
    label: str = ""
    z_name: str = ""


Mark = Scatter | Line | Hist | Heatmap


# ---------------------------------------------------------------- arrays
def checked(mark: Mark, span: Span | None) -> Mark:
    """The mark with float64 arrays of the right shapes as `_numbers` gives them; E0611 otherwise."""
    match mark:
        case Scatter() | Line():
            kind = type(mark).__name__.lower()
            x, y = _vector(mark.x, f"{kind}'s x", mark.x_name, span), _vector(mark.y, f"{kind}'s y", mark.y_name, span)
            if len(x) != len(y):
                raise error("E0611", f"`{kind}` needs x and y of one length: {mark.x_name or 'x'} has {len(x)}, "
                            f"{mark.y_name or 'y'} has {len(y)}", span,
                            help="evaluate y on the same rows, for example `line(A, Y_bar with X = A)`")
            return type(mark)(x, y, mark.label, mark.x_name, mark.y_name)
        case Hist():
            if mark.bins is not None and mark.bins < 1:
                raise error("E0611", f"`hist` needs at least 1 bin, not {mark.bins}", span)
            values = _numbers(mark.x, "hist's values", mark.x_name, span).ravel()
            return Hist(values[np.isfinite(values)], mark.bins, mark.label, mark.x_name)
        case Heatmap():
            z = _numbers(mark.z, "heatmap's values", mark.z_name, span)
            if z.ndim != 2:
                raise error("E0611", f"`heatmap` needs a matrix: {mark.z_name or 'this'} has {_axes(z)}", span)
            return Heatmap(z, mark.label, mark.z_name)


def _vector(value: npt.ArrayLike, what: str, name: str, span: Span | None) -> Array:
    array = _numbers(value, what, name, span)
    if array.ndim == 0:
        return array.reshape(1)
    if array.ndim > 1 and array.size == max(array.shape):
        return array.ravel()                            # [n, 1] and [1, n] are vectors too
    if array.ndim > 1:
        raise error("E0611", f"{name or what} has {_axes(array)}, and {what} needs one", span,
                    help="pick a column, for example `X[:, 0]`")
    return array


def _numbers(value: npt.ArrayLike, what: str, name: str, span: Span | None) -> Array:
    """As float64, infinities as nan, and within ±1e150: the packages square the length of an axis."""
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise error("E0611", f"{name or what} is text, and only numbers can be drawn", span,
                    help="turn a text column into numbers with `codes(…)`")
    array = array.astype(np.float64)
    array[np.isinf(array)] = np.nan
    limited: Array = np.clip(array, -1e150, 1e150)
    return limited


def _axes(array: Array) -> str:
    return f"{array.ndim} ax{'is' if array.ndim == 1 else 'es'} {list(array.shape)}"


def bins(mark: Hist) -> tuple[Array, Array]:
    """Counts [k] and edges [k + 1]."""
    values = np.asarray(mark.x)
    count = mark.bins
    if count is None:
        try:
            count = len(np.histogram_bin_edges(values, "auto")) - 1
        except (ValueError, MemoryError, OverflowError):    # a few values very far from the rest
            count = MOST_BINS
        count = min(max(count, 1), MOST_BINS)
    try:
        return np.histogram(values, count)
    except ValueError:                                      # there are not so many numbers between the least and the greatest
        low, high = float(values.min()), float(values.max())
        room = 0.1 * max(abs(low), abs(high)) or 1.0
        return np.histogram(values, count, (low - max(room, FINEST), high + max(room, FINEST)))


def axis_name(names: Sequence[str]) -> str:
    different = list(dict.fromkeys(name for name in names if name))
    return different[0] if len(different) == 1 else ""


def legend_name(mark: Mark) -> str:
    match mark:
        case Scatter() | Line():
            return mark.label or mark.y_name
        case Hist():
            return mark.label or mark.x_name
        case Heatmap():
            return mark.label or mark.z_name
