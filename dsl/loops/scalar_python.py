"""Instructions on NumPy scalars, for the interpreter: what has no operator and would be slow by way of arrays.

Each gives the bits of the `numpy` column of its row in the instruction table, several times faster.  `safe` and `convert` also
refuse operands outside the instruction's domain, which compiled code may do anything with.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from math import copysign, frexp, inf, isfinite, nextafter
from typing import Any

import numpy as np

from dsl.machine.instructions import TABLE

SPLITTER = 134217729.0
"""2^27 + 1: Veltkamp's factor, which cuts a float64 into two halves of 26 bits."""
LEAST, MOST = 1e-200, 1e150
"""Between these magnitudes no error term of a product or sum over- or underflows."""


class Unsafe(ArithmeticError):
    """An instruction was given operands it does not take: a divisor 0, a float that does not fit an integer, …"""


# ---------------------------------------------------------------- sizes
def indices(first: int, last: int) -> Iterator[np.int64]:
    return map(np.int64, range(first, last))


def floordiv(a: int, b: int) -> int:
    return a // b if b else 0


def wide(a: int, b: int) -> int:
    return b if a == 1 else a


# ---------------------------------------------------------------- choice
def choose(condition: Any, a: Any, b: Any) -> Any:
    return a if condition else b


def low(a: Any, b: Any) -> Any:
    """The smaller; nan if one is, and -0 below +0."""
    if a < b or a != a:
        return a
    return b if b < a or b != b or copysign(1.0, a) > 0 else a


def high(a: Any, b: Any) -> Any:
    """The larger; nan if one is, and +0 above -0."""
    if a > b or a != a:
        return a
    return b if b > a or b != b or copysign(1.0, a) < 0 else a


# ---------------------------------------------------------------- a product and a sum rounded once
def _two_sum(a: float, b: float) -> tuple[float, float]:
    """Knuth: the rounded sum and what it lacks, exactly."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _two_product(a: float, b: float) -> tuple[float, float]:
    """Dekker: the rounded product and what it lacks, exactly."""
    p = a * b
    c = SPLITTER * a
    a_high = c - (c - a)
    c = SPLITTER * b
    b_high = c - (c - b)
    a_low, b_low = a - a_high, b - b_high
    return p, a_low * b_low - (((p - a_high * b_high) - a_low * b_high) - a_high * b_low)


def _odd_sum(a: float, b: float) -> float:
    """The sum rounded to odd: if inexact, to the neighbour whose last bit is 1; then a later rounding is the only one."""
    s, error = _two_sum(a, b)
    if error and not int(frexp(s)[0] * 9007199254740992.0) & 1:
        return nextafter(s, inf if error > 0 else -inf)
    return s


def fma64(x: Any, y: Any, z: Any) -> Any:
    """S. Boldo and G. Melquiond, Emulation of a FMA and correctly rounded sums, IEEE Trans. Computers 57(4), 2008."""
    a, b, c = float(x), float(y), float(z)
    if LEAST < abs(a * b) < MOST and abs(a) < MOST and abs(b) < MOST and (LEAST < abs(c) < MOST or c == 0):
        p, e = _two_product(a, b)
        u, u_rest = _two_sum(c, e)
        t, t_rest = _two_sum(p, u)
        return np.float64(t + _odd_sum(t_rest, u_rest))
    return TABLE["fma"].numpy(x, y, z)


def fma32(x: Any, y: Any, z: Any) -> Any:
    """In float64 the product is exact."""
    p, c = float(x) * float(y), float(z)
    return np.float32(_odd_sum(p, c) if isfinite(p) and isfinite(c) else p + c)


# ---------------------------------------------------------------- watched
def safe(meaning: Callable[..., Any], op: str, width: int, a: Any, b: Any, note: str) -> Any:
    """Integer division by anything but 0 and -1; shifts by less than the width."""
    if (b in (0, -1)) if op in ("idiv", "irem") else not 0 <= b < width:
        raise Unsafe(f"{op}({a}, {b}) in `{note}`")
    return meaning(a, b)


def convert(x: Any, dtype: Any, note: str) -> Any:
    """A float to an integer, cut off, that fits."""
    bounds = np.iinfo(dtype)
    if not bounds.min <= float(np.trunc(x)) <= bounds.max:
        raise Unsafe(f"{x} does not fit {dtype.__name__} in `{note}`")
    return x.astype(dtype)
