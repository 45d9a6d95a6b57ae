"""The error function and its relatives.

In: float expressions.  Out: straight-line expressions.

For a = |x| the scaled complement erfcx(a) = exp(a^2) erfc(a) falls slowly, like 1 / (a sqrt pi): (a + 1/2) erfcx(a) is a
polynomial in t = (a - K) / (a + K) on the whole half-line (the substitution is Shepherd and Laframboise's, Math. Comp. 36,
1981).  exp(-a^2) needs a^2 to more digits than a float has: a^2 = high + low exactly, exp(-a^2) = exp(-high) (1 - low).
Below 1, erf(x) = x + x P(x^2).  All tables are from `tests/minimax.py`.
"""
from __future__ import annotations

import math
from typing import NamedTuple

from dsl.machine.exponential import exp, exp_of_negative, log1p
from dsl.machine.expr import Expr, fma, select
from dsl.machine.formats import INF, absolute, at_least, at_most, copysign, format_of, polynomial


class Tables(NamedTuple):
    series: tuple[float, ...]            # erf(x) / x - 1 in x^2
    complement: tuple[float, ...]        # (a + 1/2) erfcx(a) in t
    centre: float                        # K
    square_root_of_range: float          # exp(-a^2) is 0 and exp(a^2) infinite from here on


TABLES = {
    "float32": Tables(
        (0.12837917, -0.37612626, 0.112836, -0.026854444, 0.005189535, -0.0008020839, 7.8891106e-05),
        (0.6384892, -0.04638186, -0.08301551, 0.08202432, -0.027106304, -0.004007171, 0.0043455013, 0.0006033402, -0.00069891586,
         -0.00017352897, 8.082969e-05, 2.9690224e-05),
        2.0, 11.0),
    "float64": Tables(
        (0.1283791670955126, -0.3761263890318375, 0.11283791670954885, -0.02686617064507787, 0.005223977624828389,
         -0.0008548326981423463, 0.00012055331132892126, -1.4925595770909825e-05, 1.6461008460771013e-06, -1.635039606926364e-07,
         1.466032781931662e-08, -1.137495257919263e-09, 5.960680339728099e-11),
        (0.6164975593127763, -0.06981055842028107, 0.007689826051305584, 0.034048527127327845, -0.050519533017946684,
         0.046866417499723666, -0.03316518290993541, 0.018583757761137444, -0.008098866992500765, 0.0025159850482315833,
         -0.0003788868452155997, -9.962863244505192e-05, 7.531152430138732e-05, -1.2198717419369995e-05, -5.61250536987781e-06,
         2.8530334175935567e-06, 1.489519005852872e-07, -4.1024481043453233e-07, 3.561769627314032e-08, 5.295615011912534e-08,
         -8.203203549423293e-09, -6.087782129219967e-09, 7.900699504024076e-10, 4.506279518858942e-10),
        4.0, 28.0),
}


def _scaled_complement(a: Expr) -> Expr:
    """erfcx(a) for a >= 0."""
    tables, form = TABLES[a.dtype], format_of(a)
    bounded = at_most(a, form.largest / 4)
    t = (bounded - tables.centre) / (bounded + tables.centre)
    return polynomial(t, tables.complement) / (a + 0.5)


def _square(a: Expr) -> tuple[Expr, Expr]:
    high = a * a
    return high, fma(a, a, -high)


def _complement(a: Expr) -> Expr:
    """erfc(a) for a >= 0."""
    high, low = _square(at_most(a, TABLES[a.dtype].square_root_of_range))
    e = exp_of_negative(-high)
    return fma(e, -low, e) * _scaled_complement(a)


def _near_zero(x: Expr) -> Expr:
    """erf(x) for |x| <= 1."""
    return fma(polynomial(x * x, TABLES[x.dtype].series), x, x)


def erf(x: Expr) -> Expr:
    a = absolute(x)
    return select(a < 1, _near_zero(x), copysign(1 - _complement(a), x))


def erfc(x: Expr) -> Expr:
    a = absolute(x)
    tail = select(a < 0.5, 1 - _near_zero(a), _complement(a))
    return select(x < 0, 2 - tail, tail)


def erfcx(x: Expr) -> Expr:
    a = absolute(x)
    high, low = _square(at_most(a, TABLES[x.dtype].square_root_of_range))
    e = exp(high)
    grown = select(e < INF, fma(e, low, e), e)
    scaled = _scaled_complement(a)
    return select(x < 0, (grown + grown) - scaled, scaled)


def gelu(x: Expr) -> Expr:
    """x erfc(-x / sqrt 2) / 2, with exp(-x^2 / 2) from x itself, so that its rounding is not multiplied by x^2."""
    a = absolute(x)
    high, low = _square(at_most(a, TABLES[x.dtype].square_root_of_range * 1.42))
    e = exp_of_negative(high * -0.5)
    tail = fma(e, low * -0.5, e) * (x * (_scaled_complement(a * math.sqrt(0.5)) * 0.5))
    return select(x > 0, x - select(x < INF, tail, 0.0), tail)


def log_erfc(x: Expr) -> Expr:
    """log erfcx(x) - x^2 from 1/2 on, log(1 - erf(x)) below; one log1p serves both."""
    a = absolute(x)
    form = format_of(x)
    is_tail = x > 0.5
    far = at_least(_scaled_complement(a) - 1, -1 + 2.0 ** -(form.mantissa + 1))
    near = select(a < 1, -_near_zero(x), 1 - _complement(a))
    y = log1p(select(is_tail, far, near))
    return select(is_tail, fma(-x, x, y), y)
