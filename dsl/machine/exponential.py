"""Exponentials, logarithms, and what is made of one exponential: sigmoid, tanh, softplus, and friends.

In: float expressions.  Out: straight-line expressions, right for every operand: denormal numbers, overflow, infinity, nan,
and the sign of zero where it shows.

**exp.**  n is the integer nearest to x / log 2 and r = x - n log 2, with log 2 in two parts, so |r| < 0.3473.  Adding a
number of the size of 2^mantissa rounds x / log 2 and leaves n in the last bits, from where a shift makes it an exponent
(Cody and Waite, "Software Manual for the Elementary Functions", 1980).  The first part's multiple is exact: n log2_high
is a multiple of the last bit of log2_high, and so is what is left of x, which needs no more digits than a float has.
e^r - 1 = r + r^2 Q(r).

**log.**  x = 2^k (1 + f) with 1 + f in [sqrt 1/2, sqrt 2).  In float32 log(1 + f) = f - f^2/2 + f^3 P(f); in float64
2 atanh(s) with s = f / (2 + f), arranged as in fdlibm's e_log.c (Sun Microsystems, 1993).

**log1p** takes k from 1 + x, but f from x: 2^-k (1 + x) - 1 = 2^-k x + (2^-k - 1) is one fused operation, exact in its
second term or else too small there to matter.

The tables are minimax polynomials found by `tests/minimax.py`; each is off by less than a tenth of a unit in the last place.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from dsl.machine.expr import Expr, const, fma, select
from dsl.machine.formats import (
    INF,
    NAN,
    absolute,
    at_least,
    at_most,
    copysign,
    format_of,
    integer_float,
    isnan,
    polynomial,
    power_of_two,
    ratio,
)


class Constants(NamedTuple):
    """log 2 = high + low; the polynomials; where exp reaches 0 and infinity for good, and expm1 reaches -1."""

    log2_high: float
    log2_low: float
    log2_short: float            # the first bits of log 2, whose product with an exponent is exact, and the rest
    log2_rest: float
    exponential: tuple[float, ...]
    logarithm: tuple[float, ...]
    vanishes: float
    overflows: float
    low: float                   # below, exp is computed 2^scaled times too large
    scaled: int
    minus_one: float
    tiny: float                  # expm1(x) and log1p(x) are x below


CONSTANTS = {
    "float32": Constants(
        0.693147182464599609375, -1.90465429995776804525e-09, 0.693359375, -2.12194440054690583e-4,
        (0.5, 0.16666518, 0.0416662, 0.008369025, 0.0013951025),
        (0.33333313, -0.2500001, 0.20002119, -0.16667996, 0.1421954, -0.1240556, 0.11888207, -0.11675858, 0.06746814),
        -104.0, 89.0, -86.0, 64, -18.0, 2.0 ** -26),
    "float64": Constants(
        math.log(2), 2.3190468138462996e-17, float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33"),
        (0.5000000000000013, 0.166666666666667, 0.04166666666651313, 0.008333333333306707, 0.0013888888947677016,
         0.0001984126991844288, 2.48014892034162e-05, 2.755721535644445e-06, 2.7631561033537776e-07, 2.5118161080558e-08),
        (0.6666666666666735, 0.3999999999941114, 0.28571428743259575, 0.22222198475691302, 0.18183569780281886,
         0.1531390170173742, 0.14797527202229668),
        -746.0, 710.0, -707.0, 512, -40.0, 2.0 ** -54),
}
LOG2E = 1 / math.log(2)


# ---------------------------------------------------------------- e^x
def reduce_exponential(x: Expr, offset: Expr, series: Sequence[float] = ()) -> tuple[Expr, Expr, Expr]:
    """x = n log 2 + r; the power of two 2^(n + offset), r, and e^r - 1.  `offset` is an integer as a float."""
    form, c = format_of(x), CONSTANTS[x.dtype]
    magic = offset + (form.magic + form.bias)
    t = fma(x, LOG2E, magic)
    n = t - magic
    r = fma(-n, c.log2_low, fma(-n, c.log2_high, x))
    return power_of_two(t), r, fma(r * r, polynomial(r, series or c.exponential), r)


def exp(x: Expr) -> Expr:
    """The exponent of the result may be 2^128 before the last bit of r is known, and far below what a float has, so that
    the power of two is multiplied in two steps, of which the second is exact unless the result is denormal."""
    form, c = format_of(x), CONSTANTS[x.dtype]
    x = at_most(at_least(x, c.vanishes), c.overflows)
    is_low = x < c.low
    power, _, p = reduce_exponential(x, select(is_low, form.number(c.scaled), -1.0))
    return ((p + 1) * power) * select(is_low, form.number(2.0 ** -c.scaled), 2.0)


def exp_of_negative(x: Expr) -> Expr:
    """e^x for x <= 0, in fewer steps."""
    form, c = format_of(x), CONSTANTS[x.dtype]
    power, _, p = reduce_exponential(at_least(x, c.vanishes), form.number(c.scaled))
    return ((p + 1) * power) * 2.0 ** -c.scaled


def expm1(x: Expr) -> Expr:
    form, c = format_of(x), CONSTANTS[x.dtype]
    half, _, p = reduce_exponential(at_most(at_least(x, c.minus_one), c.overflows), form.number(-1))
    y = fma(half, p, half - 0.5)
    return select(absolute(x) < c.tiny, x, y + y)


def tanh(x: Expr) -> Expr:
    """(e^2a - 1) / (e^2a + 1) for a = |x|, both from one e^r - 1 = p: 2^n p + (2^n - 1) and 2^n p + (2^n + 1)."""
    form, c = format_of(x), CONSTANTS[x.dtype]
    a = absolute(x)
    power, _, p = reduce_exponential(at_least(a * -2.0, c.minus_one), form.number(0))
    return copysign(ratio(fma(power, p, power - 1), fma(power, p, power + 1)), x)


def sigmoid(x: Expr) -> Expr:
    e = exp_of_negative(-absolute(x))
    return ratio(select(x >= 0, const(1, x.dtype), e), e + 1)


# ---------------------------------------------------------------- log x
def log_of(f: Expr, k: Expr) -> Expr:
    """k log 2 + log(1 + f) for 1 + f in [sqrt 1/2, sqrt 2]."""
    c = CONSTANTS[f.dtype]
    f2 = f * f
    if f.dtype == "float32":
        y = fma(f2, -0.5, fma(k, c.log2_rest, polynomial(f, c.logarithm) * (f2 * f)))
        return fma(k, c.log2_short, f + y)
    s = f / (f + 2)
    z = s * s
    h = f2 * 0.5
    r = fma(k, c.log2_rest, s * fma(z, polynomial(z, c.logarithm), h))
    return fma(k, c.log2_short, f - (h - r))


def split_exponent(x: Expr) -> tuple[Expr, Expr]:
    """The integer k for which 2^-k x is in [sqrt 1/2, sqrt 2), shifted to where the exponent stands, and k itself."""
    form = format_of(x)
    distance = x.bits_as(form.integer) - form.number(math.sqrt(0.5)).bits_as(form.integer)
    k = distance >> form.mantissa
    return k << form.mantissa, k


def parts_of_log(x: Expr) -> tuple[Expr, Expr]:
    """f and k (a float) with x = 2^k (1 + f), for a normal x > 0."""
    form = format_of(x)
    shifted, k = split_exponent(x)
    return (x.bits_as(form.integer) - shifted).bits_as(form.dtype) - 1, integer_float(k, form)


def parts_of_any_log(x: Expr) -> tuple[Expr, Expr]:
    """The same where x may be denormal."""
    form = format_of(x)
    is_small = x < form.smallest
    f, k = parts_of_log(select(is_small, x * 2.0 ** form.mantissa, x))
    return f, k - select(is_small, form.number(form.mantissa), 0.0)


def log(x: Expr) -> Expr:
    return _log_edges(x, log_of(*parts_of_any_log(x)))


def _log_edges(x: Expr, y: Expr) -> Expr:
    y = select(x < INF, y, x)
    y = select(x < 0, NAN, y)
    return select(x.eq(0), -INF, y)


def log1p(x: Expr) -> Expr:
    form, c = format_of(x), CONSTANTS[x.dtype]
    u = x + 1
    shifted, k = split_exponent(u)
    quadruple = (form.number(4.0).bits_as(form.integer) - shifted).bits_as(form.dtype)     # 4 * 2^-k, as 2^-k may be denormal
    f = fma(x * 0.25, quadruple, fma(quadruple, 0.25, -1.0))
    y = _log_edges(u, log_of(f, integer_float(k, form)))
    return select(absolute(x) < c.tiny, x, y)


def log1p_of_fraction(e: Expr) -> Expr:
    """log(1 + e) for 0 <= e <= 1."""
    form = format_of(e)
    is_big = e > math.sqrt(2) - 1
    return log_of(select(is_big, fma(e, 0.5, -0.5), e), select(is_big, form.number(1), 0.0))


def softplus(x: Expr) -> Expr:
    return select(x > 0, x, 0.0) + log1p_of_fraction(exp_of_negative(-absolute(x)))




def logaddexp(a: Expr, b: Expr) -> Expr:
    """Equal operands, infinite ones among them, have no difference to speak of."""
    y = select(a > b, a, b) + log1p_of_fraction(exp_of_negative(-absolute(a - b)))
    return select(a.eq(b), a + math.log(2), y)


# ---------------------------------------------------------------- products that 0 wins
def zero_wins(x: Expr, y: Expr, product: Expr) -> Expr:
    """`product`, and 0 where x is 0, unless y is nan."""
    return select(x.eq(0) & ~isnan(y), 0.0, product)


def xlogy(x: Expr, y: Expr) -> Expr:
    return zero_wins(x, y, x * log(y))


def xlog1py(x: Expr, y: Expr) -> Expr:
    return zero_wins(x, y, x * log1p(y))


def xmul(x: Expr, y: Expr) -> Expr:
    return zero_wins(x, y, x * y)


# ---------------------------------------------------------------- hyperbolic sine and cosine
def _quarter_of_exponential(x: Expr) -> tuple[Expr, Expr]:
    """2^(n-2) and e^r - 1 for |x| = n log 2 + r: a quarter, as e^|x| overflows before its half does."""
    form, c = format_of(x), CONSTANTS[x.dtype]
    quarter, _, p = reduce_exponential(at_most(absolute(x), c.overflows + 0.6), form.number(-2))
    return quarter, p


def sinh(x: Expr) -> Expr:
    """(E + E / (E+1)) / 2 with E = e^|x| - 1."""
    quarter, p = _quarter_of_exponential(x)
    w = fma(quarter, p, quarter - 0.25)
    y = w + w / fma(w, 4.0, 1.0)
    return select(absolute(x) < CONSTANTS[x.dtype].tiny, x, copysign(y + y, x))


def cosh(x: Expr) -> Expr:
    """(e^|x| + e^-|x|) / 2."""
    quarter, p = _quarter_of_exponential(x)
    w = fma(quarter, p, quarter)
    y = w + 0.0625 / w
    return y + y


# ---------------------------------------------------------------- logarithms of what is left of 1
def log1mexp(x: Expr) -> Expr:
    """log(1 - e^x) for x <= 0; Maechler (2012), "Accurately computing log(1 - exp(-|a|))": by expm1 above -log 2, by log1p below.

    Both come from one e^r - 1, and go into one logarithm."""
    form, c = format_of(x), CONSTANTS[x.dtype]
    power, _, p = reduce_exponential(at_least(x, c.vanishes), form.number(c.scaled))
    back = 2.0 ** -c.scaled
    scale = power * back
    near_f, near_k = parts_of_any_log(-fma(scale, p, scale - 1))
    e = ((p + 1) * power) * back
    is_large = e > 1 - math.sqrt(0.5)
    far_f = select(is_large, fma(e, -2.0, 1.0), -e)
    is_near = x > -math.log(2)
    f = select(is_near, near_f, far_f)
    k = select(is_near, near_k, select(is_large, form.number(-1), 0.0))
    y = -absolute(log_of(f, k))
    return select(x.eq(0), -INF, select(x > 0, NAN, y))


def logit(p: Expr) -> Expr:
    """log(p / (1 - p)); around 1/2 as log(1 + f) with f = (2p - 1) / (1 - p), whose numerator is exact."""
    form = format_of(p)
    is_middle = absolute(p - 0.5) < 0.085                # there p / (1 - p) is in [sqrt 1/2, sqrt 2]
    quotient = select(is_middle, fma(p, 2.0, -1.0), p) / (1 - p)
    f, k = parts_of_any_log(quotient)
    y = log_of(select(is_middle, quotient, f), select(is_middle, form.number(0), k))
    return select(is_middle, y, _log_edges(quotient, y))
