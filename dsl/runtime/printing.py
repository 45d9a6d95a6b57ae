"""Values as text: what `print` shows, and whether what was printed is what `#>` expected.

In: a number, a bool, text, a tuple or an array.  Out: text; scalars with the fewest digits that read back the same.
"""
from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, cast

import numpy as np

from dsl.errors import visible

LONGEST_SIDE = 20      # an array with a longer side shows its corners only
WIDTH = 75             # characters of a line of an array
CORNER = 3             # elements at each end of an axis in that case


# ---------------------------------------------------------------- printing
def format_value(value: Any, digits: int | None = 8) -> str:
    """`value` as `print` shows it; `digits` in an array's numbers, None for all that it takes to read them back.

    Scalars (Python's, NumPy's, arrays without axes): see `format_scalar`.  Text as it is.  A tuple: its items with one
    space between.  Arrays: NumPy's `str` (8 digits, lines of 75 characters) with `true` and `false`; if a side is
    longer than 20, every axis longer than 6 is cut to its first and last 3 with `...` between, as NumPy cuts arrays of
    more than 1000 elements.  The process's `np.set_printoptions` has no say.
    """
    if isinstance(value, tuple):
        return " ".join(format_value(item, digits) for item in value)
    array = np.asarray(value)
    return format_scalar(array[()]) if array.ndim == 0 else format_array(array, digits)


def format_scalar(value: Any) -> str:
    """One number, bool or text: the shortest digits that read back the same in the number's own dtype.

    Floats keep `.0`, and are written as `1e+16`, `1e-05` where Python or NumPy (float32) does so; `nan`, `inf`, `-0.0`.
    """
    match value:
        case bool() | np.bool_():
            return "true" if value else "false"
        case float():                                   # NumPy's float64 is one too
            return repr(float(value))
        case _:
            return str(value)


def _text_in_array(text: object) -> str:
    """On one line and seen, also where there is nothing of it: NumPy cannot place an element without width."""
    return visible(str(text)).translate(_BLANKS) or '""'


_BLANKS = str.maketrans("\t\n", "␉␊")


def format_array(array: np.ndarray[Any, Any], digits: int | None = 8, width: int = WIDTH, edge: int = CORNER,
                 long: bool | None = None) -> str:
    """An array with axes in lines of `width` characters; `long`: whether every axis longer than twice `edge` is cut (None: if a side is
    longer than 20)."""
    formatter: dict[str, Any] = {}
    if array.dtype == np.bool_:
        mixed = array.any() and not array.all()
        formatter["bool"] = lambda truth: (" true" if mixed else "true") if truth else "false"
    elif array.dtype == object or array.dtype.kind == "U":
        formatter["all"] = _text_in_array
    long = any(side > LONGEST_SIDE for side in array.shape) if long is None else long
    with np.printoptions(precision=digits, threshold=0 if long else array.size + 1, edgeitems=edge, linewidth=width,
                         suppress=False, nanstr="nan", infstr="inf", sign="-", floatmode="maxprec" if digits else "unique",
                         formatter=cast(Any, formatter or None), legacy=False):
        return str(array)


# ---------------------------------------------------------------- comparing with `#>`
_NUMBER = r"(?<![\w.])[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|nan|inf)(?![\w])"
_TOKEN = re.compile(rf"(?P<number>{_NUMBER})|\w+|\.\.\.|\S")


def compare_expected(printed: str, expected: str) -> str | None:
    """None if `printed` is what the text after `#>` expects, else the reason in words.

    White space and line breaks do not count.  Numbers agree if they differ by at most half a unit of the last digit
    that the expected text shows (`2.0` stands for 1.95 to 2.05, `1e3` for 500 to 1500), nan agrees with nan, infinities
    with their like; words and signs such as brackets agree if they are the same.
    """
    ours, theirs = list(_TOKEN.finditer(printed)), list(_TOKEN.finditer(expected))
    for got, wanted in zip(ours, theirs, strict=False):
        reason = _differ(got, wanted)
        if reason:
            return reason
    if len(ours) > len(theirs):
        return f"`{ours[len(theirs)].group()}` is printed after what was expected"
    if len(ours) < len(theirs):
        return f"`{theirs[len(ours)].group()}` was expected, and nothing more is printed"
    return None


def _differ(got: re.Match[str], wanted: re.Match[str]) -> str | None:
    text, goal = got.group(), wanted.group()
    if text == goal:
        return None
    if not (got["number"] and wanted["number"]):
        return f"`{goal}` was expected, and `{text}` is printed"
    try:
        return _apart(text, goal)
    except ArithmeticError:                             # exponents beyond what even decimals hold
        return f"{goal} was expected, and {text} is printed"


def _apart(text: str, goal: str) -> str | None:
    ours, theirs = Decimal(text), Decimal(goal)
    if ours.is_nan() or theirs.is_nan() or ours.is_infinite() or theirs.is_infinite():
        same = (ours.is_nan() and theirs.is_nan()) or (not ours.is_nan() and not theirs.is_nan() and ours == theirs)
        return None if same else f"{goal} was expected, and {text} is printed"
    exponent = theirs.as_tuple().exponent
    assert isinstance(exponent, int)
    half_unit = Decimal(5).scaleb(exponent - 1)
    distance = abs(ours - theirs)
    if distance <= half_unit:
        return None
    return f"{goal} was expected, and {text} is printed: {distance:.3g} apart, where {half_unit:g} is allowed"
