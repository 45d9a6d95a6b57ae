"""a * b + c rounded once, on whole NumPy arrays, from operations that round each time.

In: three arrays of one float dtype.  Out: what an IEEE fused multiply-add gives, to the last bit.

float32: the product is exact in float64; the sum is rounded there to odd, so that rounding it again to float32 is as good as
rounding once.  float64: Boldo and Melquiond's algorithm ("Emulation of FMA and correctly rounded sums: proved algorithms using
rounding to odd", IEEE Trans. Computers 57, 2008) on operands that are neither huge nor tiny; others are scaled by powers of
two first.  What is left, results that are denormal, is done in rational numbers.
"""
from __future__ import annotations

from fractions import Fraction
from math import copysign, inf, isfinite
from typing import Any

import numpy as np

SPLIT = 2.0 ** 27 + 1


def fma(a: Any, b: Any, c: Any) -> Any:
    if isinstance(a, float) and isinstance(b, float) and isinstance(c, float):      # a np.float64 is one
        return np.float64(_one(a, b, c))
    a, b, c = np.broadcast_arrays(np.asarray(a), np.asarray(b), np.asarray(c))
    with np.errstate(all="ignore"):
        return (_fma32 if a.dtype == np.float32 else _fma64)(a, b, c)[()]


def _two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    """a + b = s + e exactly (Knuth)."""
    s = a + b
    virtual = s - a
    return s, (a - (s - virtual)) + (b - virtual)


def _two_product(a: Any, b: Any) -> tuple[Any, Any]:
    """a * b = p + e exactly (Dekker)."""
    p = a * b
    a_high, b_high = a * SPLIT, b * SPLIT
    a_high, b_high = a_high - (a_high - a), b_high - (b_high - b)
    a_low, b_low = a - a_high, b - b_high
    return p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low


def _odd(s: Any, error: Any) -> Any:
    """s + error, of which s is the nearest float: the neighbour whose last bit is 1 unless the sum is exact."""
    pattern = np.asarray(s).view(np.int64)
    change = np.where((error > 0) == (s > 0), 1, -1)
    inexact = np.isfinite(s) & (error != 0) & (pattern & 1 == 0)
    return np.where(inexact, pattern + change, pattern).view(np.float64)


def _fma32(a: Any, b: Any, c: Any) -> Any:
    return _odd(*_two_sum(a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64))).astype(np.float32)


def _moderate(a: Any, b: Any, c: Any) -> Any:
    high, low = _two_product(a, b)
    t, t_rest = _two_sum(c, low)
    v, v_rest = _two_sum(high, t)
    return v + _odd(*_two_sum(t_rest, v_rest))


def _fma64(a: Any, b: Any, c: Any) -> Any:
    plain = a * b
    result = np.where((c == 0) & (a != 0) & (b != 0), plain, plain + c)
    finite_product = np.isfinite(a) & np.isfinite(b)
    result = np.where(finite_product & np.isinf(c), c, result)  # although a * b may be too large
    size, other = np.abs(plain), np.abs(c)
    exact = ~(finite_product & np.isfinite(c)) | (a == 0) | (b == 0) | (c == 0)
    easy = ~exact & (np.abs(a) < 2.0 ** 900) & (np.abs(b) < 2.0 ** 900) & (size > 2.0 ** -900) & (size < 2.0 ** 1000) \
        & (other > 2.0 ** -900) & (other < 2.0 ** 1000)
    if easy.all():
        return _moderate(a, b, c)
    result = np.where(easy, _moderate(a, b, c), result)
    hard = ~exact & ~easy
    if hard.any():
        result[hard] = _scaled(a[hard], b[hard], c[hard])
    return result


def _scaled(a: Any, b: Any, c: Any) -> Any:
    """Both factors brought to [1/2, 1), the summand with them; one that is 2^300 times smaller or larger is brought nearer,
    where it has the same effect."""
    (a_part, a_power), (b_part, b_power), (c_part, c_power) = np.frexp(a), np.frexp(b), np.frexp(c)
    power = a_power + b_power
    distance = c_power - power
    near = np.clip(distance, -300, 300)
    back = np.where(distance > 300, c_power - 300, power)
    scaled = _moderate(a_part, b_part, np.ldexp(c_part, near))
    result = np.ldexp(scaled, back)
    for i in np.flatnonzero((np.abs(result) <= 2.0 ** -1022) & (scaled != 0)):
        result[i] = _one(float(a[i]), float(b[i]), float(c[i]))
    return result


def _one(a: float, b: float, c: float) -> float:
    with np.errstate(all="ignore"):
        plain = float(a) * float(b) + float(c)
    if isfinite(a) and isfinite(b) and not isfinite(c):
        return c
    if not (isfinite(a) and isfinite(b)):
        return plain
    total = Fraction(a) * Fraction(b) + Fraction(c)
    if not total:
        return plain
    sign = -1 if total < 0 else 1
    try:
        return copysign(float(total), sign)
    except OverflowError:
        return sign * inf
