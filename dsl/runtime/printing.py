"""Values as text: what `print` shows, and whether what was printed is what `#>` expected.

In: a number, a bool, text, a tuple or an array.  Out: text with the fewest digits that read back the same.
"""
from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np

EDGE = 10              # rows and columns shown at each corner of a long array
LONGEST = 20           # a side up to here is shown whole
_LINE_WIDTH = 88


def format_value(value: Any) -> str:
    """`value` as `print` shows it.

    Scalars (Python's, NumPy's, arrays without axes): the shortest digits that read back the same in their own dtype,
    floats with `.0`, a large or small exponent as `1e+20`, `nan`, `inf`, `-0.0`; `true`, `false`.  Text as it is.  A
    tuple: its items separated by spaces.  Arrays: NumPy's `str` with `true` and `false`, where an array with a side
    longer than 20 shows its corners, 10 on each side, and `...` between.
    """
    if isinstance(value, tuple):
        return " ".join(map(format_value, value))
    array = np.asarray(value)
    return format_scalar(array[()]) if array.ndim == 0 else _format_array(array)


def format_scalar(value: Any) -> str:
    """One number, bool or text."""
    match value:
        case bool() | np.bool_():
            return "true" if value else "false"
        case np.float64():
            return repr(float(value))
        case np.floating():
            # NumPy's shortest digits for the dtype, in the layout that Python's repr has
            digits = np.format_float_scientific(value, trim="-")
            return repr(float(digits)) if "e" in digits else digits
        case _:
            return str(value)


def _format_array(array: np.ndarray[Any, Any]) -> str:
    long = any(extent > LONGEST for extent in array.shape)
    formatter: dict[str, Any] = {}
    if array.dtype == np.bool_:
        formatter["bool"] = lambda truth: "true" if truth else "false"
    elif array.dtype == object:
        formatter["object"] = str
    # NumPy summarises by the number of all elements; the rule here is by side, so the threshold only says yes or no.
    # Its corners cut every axis longer than two edges, hence only those longer than 20.
    text = np.array2string(array, max_line_width=_LINE_WIDTH, separator=" ", edgeitems=EDGE,
                           threshold=0 if long else array.size + 1, floatmode="maxprec", formatter=formatter or None,
                           precision=17 if array.dtype == np.float64 else None)
    return _align_words(text, array) if array.dtype == np.bool_ else text


def _align_words(text: str, array: np.ndarray[Any, Any]) -> str:
    """`true` padded to the width of `false` when both occur, as NumPy pads its own words."""
    if array.all() or not array.any():
        return text
    return re.sub(r"\btrue\b", " true", text)
