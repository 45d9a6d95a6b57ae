"""Roots and powers of floats.

In: float expressions.  Out: straight-line expressions.

**pow** in float64 takes the logarithm of |a| as a sum of two floats with about 68 bits, so that b log a, which may be as large
as 745, has an error far below the last place of e^(b log a):

    a = 2^k m,  f = m - 1,  s = f / (2 + f) = s1 + s2,  log m = 2s + s^3 (2/3 + s^2 R(s^2))

where 2s, s^2 and 2/3 + … are sums of two floats too.  float32 is computed in float64 with shorter series.  The special cases
are those of C (annex F.10.4.4), which NumPy has.

**cbrt** improves an estimate r of m^(-1/3) once by r + r h (1/3 + 2h/9), h = 1 - m r^3, which cubes its error, and then
the root y = m r^2 by the residual m - y^3, taken with fused operations.
"""
from __future__ import annotations

import math

from dsl.machine.exponential import CONSTANTS, parts_of_any_log, parts_of_log, reduce_exponential
from dsl.machine.expr import Const, Expr, apply, const, fma, select
from dsl.machine.formats import (
    FORMATS,
    INF,
    NAN,
    absolute,
    at_least,
    at_most,
    copysign,
    format_of,
    isnan,
    polynomial,
    power_of_two,
    square_root,
)

Pair = tuple[Expr, Expr]

INVERSE_CUBE_ROOT = {
    "float32": (1.7336078, -1.2944281, 0.72177625, -0.16119157),
    "float64": (2.0013963771818437, -2.497052607922791, 2.8141474353891383, -1.9194229205877305, 0.7109210107701683, -0.1099849527209688),
}
SHORT_EXPONENTIAL = (0.5000000078800004, 0.16666666864499638, 0.04166626690486512, 0.008333263523986906, 0.0013946292082336997,
                     0.00019918823296523325)
SHORT_LOGARITHM = (0.6666666667584402, 0.3999999560518027, 0.28572111110064596, 0.22176100068379787, 0.19585521262329117)
LOGARITHM_REST = (0.4, 0.28571428571428376, 0.22222222222291063, 0.18181818169176475, 0.15384616760173775, 0.13333240056210235,
                  0.11768686046665006, 0.10422688527004306, 0.11014906219345856)
TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)


# ---------------------------------------------------------------- roots
def cbrt(x: Expr) -> Expr:
    form = format_of(x)
    size = absolute(x)
    lift = 24 if form.dtype == "float32" else 54         # a multiple of 3, so that it divides out
    is_small = size < form.smallest
    lifted = select(is_small, size * 2.0 ** lift, size)
    m_less_1, k = parts_of_log(lifted)
    m = m_less_1 + 1
    third = fma(k, 1 / 3, form.magic) - form.magic
    rest = fma(third, -3.0, k)                           # -1, 0 or 1
    turn = select(rest > 0, form.number(0.5 ** (1 / 3)), select(rest < 0, form.number(2 ** (1 / 3)), 1.0))
    r = polynomial(m, INVERSE_CUBE_ROOT[form.dtype]) * turn
    m = m * power_of_two(rest + (form.magic + form.bias))
    h = fma(-m * r, r * r, 1.0)
    r = fma(r * h, fma(h, 2 / 9, 1 / 3), r)
    y = m * (r * r)
    square = y * y
    residual = fma(-fma(y, y, -square), y, fma(-square, y, m))
    y = fma(residual * (r * r), 1 / 3, y)
    scale = power_of_two(third - select(is_small, form.number(lift / 3), 0.0) + (form.magic + form.bias))
    return select((size > 0) & (size < INF), copysign(y * scale, x), x)


def hypot(a: Expr, b: Expr) -> Expr:
    """float32 in float64; float64 with both sides scaled by a power of two where a square would leave the range."""
    p, q = absolute(a), absolute(b)
    is_infinite = p.eq(INF) | q.eq(INF)
    if a.dtype == "float32":
        wide_p, wide_q = p.to("float64"), q.to("float64")
        return select(is_infinite, INF, square_root(fma(wide_p, wide_p, wide_q * wide_q)).to("float32"))
    form = format_of(a)
    large, small = select(p > q, p, q), select(p > q, q, p)
    is_big, is_tiny = large > 2.0 ** 500, large < 2.0 ** -450
    scale = select(is_big, form.number(2.0 ** -600), select(is_tiny, form.number(2.0 ** 600), 1.0))
    back = select(is_big, form.number(2.0 ** 600), select(is_tiny, form.number(2.0 ** -600), 1.0))
    large, small = large * scale, small * scale
    return select(is_infinite, INF, square_root(fma(large, large, small * small)) * back)


# ---------------------------------------------------------------- powers
def power(a: Expr, b: Expr) -> Expr:
    """a ** b; a literal exponent that is a small integer or a half takes a few products or a root instead."""
    if isinstance(b, Const):
        found = _literal_power(a, float(b.value))
        if found is not None:
            return found
    size = absolute(a)
    magnitude = _magnitude_32(size, b) if a.dtype == "float32" else _magnitude_64(size, b)
    magnitude = select(size.eq(1) | b.eq(0), 1.0, magnitude)
    whole = b.eq(_rounded(b))
    half = b * 0.5
    is_odd = whole & half.ne(_rounded(half))
    signed = select(is_odd, copysign(magnitude, a), magnitude)
    is_undefined = (a < 0) & (size < INF) & ~whole
    y = select(is_undefined, NAN, signed)
    return select(a.eq(1) | b.eq(0), 1.0, select(isnan(a) | isnan(b), NAN, y))


def _rounded(x: Expr) -> Expr:
    return apply("rint", x)


def _literal_power(a: Expr, exponent: float) -> Expr | None:
    match exponent:
        case 0.0:
            return const(1, a.dtype)
        case 1.0:
            return a
        case 2.0:
            return a * a
        case 3.0:
            return a * a * a
        case 4.0:
            return (a * a) * (a * a)
        case -1.0:
            return 1 / a
        case -2.0:
            return (1 / a) * (1 / a)
        case 0.5:                                        # the root of -0 is -0, its power 0; -inf has a power but no root
            return select(a.eq(-INF), INF, square_root(a + 0.0))
        case -0.5:
            return select(a.eq(-INF), 0.0, 1 / square_root(a + 0.0))
        case 1.5:
            return select(a.eq(-INF), INF, (a + 0.0) * square_root(a + 0.0))
        case _:
            return None


def _magnitude_32(size: Expr, b: Expr) -> Expr:
    """size ** b for size >= 0."""
    form = FORMATS["float64"]
    wide = size.to("float64")
    f, k = parts_of_log(wide)
    s = f / (f + 2)
    z = s * s
    log_m = fma(polynomial(z, SHORT_LOGARITHM), z * s, s + s)
    log = fma(k, math.log(2), log_m)
    log = select(wide.eq(0), -INF, select(wide < INF, log, wide))
    x = at_most(at_least(b.to("float64") * log, -110.0), 100.0)
    scale, _, p = reduce_exponential(x, form.number(0), SHORT_EXPONENTIAL)
    return ((p + 1) * scale).to("float32")


def _two_sum(a: Expr, b: Expr) -> Pair:
    """a + b exactly, for |a| >= |b| (Dekker)."""
    high = a + b
    return high, b - (high - a)


def _product(a: Pair, b: Pair) -> Pair:
    high = a[0] * b[0]
    return high, fma(a[0], b[0], -high) + (a[0] * b[1] + a[1] * b[0])


def _log_pair(x: Expr) -> Pair:
    """log x as a sum of two floats, for 0 < x < infinity."""
    c = CONSTANTS[x.dtype]
    f, k = parts_of_any_log(x)
    d = f + 2
    d_rest = f - (d - 2)
    inverse = 1 / d
    s = f * inverse
    s_rest = (fma(-s, d, f) - s * d_rest) * inverse
    z = s * s
    z_pair = z, fma(s, s, -z) + (s + s) * s_rest
    series = _two_sum(const(TWO_THIRDS[0], x.dtype), polynomial(z, LOGARITHM_REST) * z)
    series = series[0], series[1] + fma(z_pair[1], LOGARITHM_REST[0], TWO_THIRDS[1])
    cube = _product((s, s_rest), _product(z_pair, series))
    high, low = _two_sum(s + s, cube[0])
    low = low + (cube[1] + (s_rest + s_rest))
    first, first_rest = _two_sum(k * c.log2_short, high)  # exact products: |k| < 2^11 and a short first part of log 2
    is_zero = k.eq(0)
    first, first_rest = select(is_zero, high, first), select(is_zero, 0.0, first_rest)
    return _two_sum(first, first_rest + fma(k, c.log2_rest, low))


def _magnitude_64(size: Expr, b: Expr) -> Expr:
    c = CONSTANTS["float64"]
    form = FORMATS["float64"]
    high, low = _log_pair(size)
    high = select(size.eq(0), -INF, select(size < INF, high, size))
    x = b * high
    is_within = (x < c.overflows) & (x > c.vanishes)
    rest = select(is_within, fma(b, high, -x) + b * low, 0.0)
    x = at_most(at_least(x, c.vanishes), c.overflows)
    is_low = x < c.low
    scale, _, p = reduce_exponential(x, select(is_low, form.number(c.scaled), -1.0))
    p = p + rest * (p + 1)
    return ((p + 1) * scale) * select(is_low, form.number(2.0 ** -c.scaled), 2.0)

