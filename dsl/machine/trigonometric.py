"""Sine, cosine, tangent and their inverses.

In: float expressions.  Out: straight-line expressions.

**Reduction.**  n is the integer nearest to 2x / pi, and r = x - n pi/2 with pi/2 = c1 + c2 + c3 in float64.  x - n c1 is
exact in one fused operation: x and n c1 are multiples of 2^-52 (2^-53 if |x| < 1), and so is their difference, which is
below 2 and fits.  n c2 is taken exactly, as a sum of two floats, so r = high + low has about 100 bits.  This holds for
|x| <= 2^45.  Beyond, where a float64 is so coarse that neighbours lie 2^-7 and more apart, the result is still a number in
[-1, 1], the same on every backend, but no longer the sine of x.

float32 arguments are reduced in float64, where they keep all digits.  The polynomials are minimax, from
`tests/minimax.py`; sums are arranged as in fdlibm's k_sin.c, k_cos.c and e_asin.c (Sun Microsystems, 1993).
"""
from __future__ import annotations

import math
from typing import NamedTuple

from dsl.machine.expr import Expr, fma, maximum, minimum, select
from dsl.machine.formats import FORMATS, INF, absolute, at_least, at_most, copysign, format_of, polynomial, square_root

HALF_PI = (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591833e-33)      # their sum is pi/2 to 160 bits
REDUCED_TO = 2.0 ** 45


class Tables(NamedTuple):
    """Series in the square of the argument, from the cubic term of sine, asin and atan, from the fourth of cosine."""

    sine: tuple[float, ...]
    cosine: tuple[float, ...]
    arcsine: tuple[float, ...]
    arctangent: tuple[float, ...]
    half_pi: tuple[float, float]
    tiny: float


TABLES = {
    "float32": Tables(
        (-0.16666654, 0.008332131, -0.00019510866),
        (0.041666646, -0.0013887306, 2.4431205e-05),
        (0.16666754, 0.07495233, 0.045478337, 0.024141002, 0.042230558),
        (-0.33333316, 0.19998488, -0.14243802, 0.10595646, -0.0608251),
        (1.57079637050628662109375, -4.37113882867379e-08), 2.0 ** -13),
    "float64": Tables(
        (-0.16666666666666627, 0.008333333333321286, -0.0001984126982887035, 2.75573133559931e-06, -2.5050704025443128e-08,
         1.5893582632556713e-10),
        (0.04166666666666659, -0.00138888888888726, 2.480158728849313e-05, -2.7557314056873464e-07, 2.0875681919756734e-09,
         -1.1357450728880685e-11),
        (0.16666666666666763, 0.07499999999970108, 0.04464285717527735, 0.03038194267565849, 0.022372215896116477,
         0.01735159566265727, 0.013981016722002379, 0.01139730692294753, 0.010789248198068485, 0.003672444215662866,
         0.021790053113142815, -0.021115926020541742, 0.03270169329673542),
        (-0.333333333333332, 0.19999999999953905, -0.14285714280229853, 0.11111110785166653, -0.09090897807545457,
         0.07692061107221622, -0.06663114195148825, 0.05847962759925096, -0.05039632753517183, 0.03807279996575271,
         -0.017916112564761576),
        HALF_PI[:2], 2.0 ** -27),
}


# ---------------------------------------------------------------- reduction
def _reduce(x: Expr) -> tuple[Expr, Expr | None, Expr]:
    """x = n pi/2 + high + low: high, low (None in float32, where it does not count) and n as an integer."""
    form = FORMATS["float64"]
    wide = x.to("float64")
    t = fma(wide, 2 / math.pi, form.magic)
    n = t - form.magic
    quarter = t.bits_as("int64")
    first = fma(-n, HALF_PI[0], wide)
    if x.dtype == "float32":
        high = at_most(at_least(fma(-n, HALF_PI[1], first), -1.0), 1.0)
        return high.to("float32"), None, quarter.to("int32")
    second = n * HALF_PI[1]
    second_rest = fma(n, HALF_PI[1], -second)
    high = first - second
    back = high + second                                 # the exact error of the difference: Knuth's two-sum
    lost = (first - back) - (second - (back - high))
    low = fma(-n, HALF_PI[2], lost - second_rest)
    high = at_most(at_least(high, -1.0), 1.0)
    return high, at_most(at_least(low, -2.0 ** -53), 2.0 ** -53), quarter


def _sine_of(r: Expr, low: Expr | None) -> Expr:
    z, table = r * r, TABLES[r.dtype].sine
    if low is None:
        return fma(polynomial(z, table) * z, r, r)
    cube = z * r
    inner = fma(polynomial(z, table[1:]), cube, low * -0.5)
    return r - (fma(-z, inner, -low) - cube * table[0])


def _cosine_of(r: Expr, low: Expr | None) -> Expr:
    z, table = r * r, TABLES[r.dtype].cosine
    half = z * 0.5
    w = 1 - half
    rest = polynomial(z, table) * z * z
    if low is not None:
        rest = fma(-r, low, rest)
    return w + (((1 - w) - half) + rest)


def _by_quarter(quarter: Expr, even: Expr, odd: Expr) -> Expr:
    """`even` in an even quarter, `odd` in an odd one; negative in the second half of the circle."""
    form = format_of(even)
    value = select((quarter & 1).eq(0), even, odd)
    sign = (quarter & 2) << (form.mantissa + {"float32": 7, "float64": 10}[form.dtype])
    return (value.bits_as(form.integer) ^ sign).bits_as(form.dtype)


def _finite_only(x: Expr, y: Expr) -> Expr:
    return select(absolute(x) < INF, y, math.nan)


def sin(x: Expr) -> Expr:
    r, low, quarter = _reduce(x)
    y = _by_quarter(quarter, _sine_of(r, low), _cosine_of(r, low))
    return select(absolute(x) < TABLES[x.dtype].tiny, x, _finite_only(x, y))


def cos(x: Expr) -> Expr:
    r, low, quarter = _reduce(x)
    return _finite_only(x, _by_quarter(quarter + 1, _sine_of(r, low), _cosine_of(r, low)))


def tan(x: Expr) -> Expr:
    r, low, quarter = _reduce(x)
    s, c = _sine_of(r, low), _cosine_of(r, low)
    is_even = (quarter & 1).eq(0)
    y = select(is_even, s, -c) / select(is_even, c, s)
    return select(absolute(x) < TABLES[x.dtype].tiny, x, _finite_only(x, y))


# ---------------------------------------------------------------- inverses
def _arcsine_parts(x: Expr) -> tuple[Expr, Expr, Expr]:
    """Whether |x| is below 1/2; s = |x| there, else sqrt((1 - |x|) / 2); asin s - s."""
    size = absolute(x)
    is_small = size < 0.5
    z = select(is_small, size * size, fma(size, -0.5, 0.5))
    s = select(is_small, size, square_root(z))
    return is_small, s, polynomial(z, TABLES[x.dtype].arcsine) * z * s


def asin(x: Expr) -> Expr:
    """pi/2 - 2 asin sqrt((1 - x) / 2) from 1/2 on."""
    high, low = TABLES[x.dtype].half_pi
    is_small, s, rest = _arcsine_parts(x)
    return copysign(select(is_small, s + rest, high - (fma(rest, 2.0, -low) + (s + s))), x)


def acos(x: Expr) -> Expr:
    high, low = TABLES[x.dtype].half_pi
    is_small, s, rest = _arcsine_parts(x)
    signed = copysign(s, x)
    signed_rest = copysign(rest, x)
    middle = high - (signed - (low - signed_rest))
    double = (s + rest) * 2
    return select(is_small, middle, select(x < 0, (2 * high) - (double - 2 * low), double))


def _arctangent_of(t: Expr) -> Expr:
    z = t * t
    return fma(polynomial(z, TABLES[t.dtype].arctangent) * z, t, t)


def _angle(small: Expr, large: Expr, turns: Expr, is_back: Expr) -> Expr:
    """The angle turns * pi/4 + atan(small / large), or minus it, for 0 <= small <= large; an eighth of a turn is taken off
    where the quotient is above tan(pi/8), so that one series serves."""
    form = format_of(small)
    high, low = TABLES[small.dtype].half_pi
    is_upper = small > large * (math.sqrt(2) - 1)
    u = _arctangent_of(select(is_upper, small - large, small) / select(is_upper, small + large, large))
    eighth = select(is_upper, form.number(1), 0.0)
    count = turns + select(is_back, -eighth, eighth)
    return fma(count, high / 2, fma(count, low / 2, select(is_back, -u, u)))


def atan(x: Expr) -> Expr:
    form = format_of(x)
    size = absolute(x)
    is_steep = size > 1
    is_infinite = size.eq(INF)
    small = select(is_steep, select(is_infinite, form.number(0), 1.0), size)
    large = select(is_steep, select(is_infinite, form.number(1), size), 1.0)
    return copysign(_angle(small, large, select(is_steep, form.number(2), 0.0), is_steep), x)


def atan2(y: Expr, x: Expr) -> Expr:
    """Eighths of a turn are counted from the positive x axis, forwards or backwards; the sign is that of `y`."""
    form = format_of(x)
    a, b = absolute(y), absolute(x)
    large, small = maximum(a, b), minimum(a, b)
    is_infinite = large.eq(INF)
    is_plain = ~is_infinite & large.ne(0)
    shrink = select(large > form.largest / 4, form.number(0.25), 1.0)
    one_or_zero = select(small.eq(INF), form.number(1), 0.0)
    small = select(is_plain, small * shrink, select(is_infinite, one_or_zero, small))
    large = select(is_plain, large * shrink, select(is_infinite, form.number(1), large + 1))
    is_steep = a > b
    is_left = x.bits_as(form.integer) < 0
    quarter = select(is_steep, form.number(2), select(is_left, form.number(4), 0.0))
    return copysign(_angle(small, large, quarter, is_steep ^ is_left), y)


