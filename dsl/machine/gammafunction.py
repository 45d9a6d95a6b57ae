"""The logarithm of the gamma function and its derivatives.

In: float expressions.  Out: straight-line expressions, computed in float64 for both formats.

**lgamma.**  Between 1 and 2, lgamma(1+w) = w (w-1) P(w), which keeps the digits near the zeros at 1 and 2.  Down to -1/2 and
up to 8 the argument is moved there by gamma(x+1) = x gamma(x): one product, one logarithm.  From 8 on Stirling's series; below
-1/2 the reflection lgamma(-a) = -log(a |sin(pi a)| / pi) - lgamma(a).

**digamma.**  Below 10 the argument is moved up by 10; the ten reciprocals 1 / (x+j) are one fraction, as j and 9-j pair up:
1/(x+j) + 1/(x+9-j) = (2x+9) / (x(x+9) + j(9-j)).  Then log x - 1/(2x) - sum of B_2k / (2k x^2k).  Below 0 the reflection
digamma(x) = digamma(1-x) - pi cot(pi x).

**polygamma** of order n >= 1 is (-1)^(n+1) n! zeta(n+1, x), with Hurwitz' zeta function by Euler and Maclaurin's sum formula;
below 0 by the n-th derivative of the reflection.

Where a value passes through 0 between large terms (digamma near 1.46, all of them between negative integers) the error is
absolute: about that of a value of 1 (polygamma: of 8).  (Abramowitz and Stegun 6.1.41, 6.3.18, 6.4; DLMF 25.11.)
"""
from __future__ import annotations

import math
from fractions import Fraction

from dsl.machine.exponential import log
from dsl.machine.expr import Expr, apply, const, fma, select
from dsl.machine.formats import INF, NAN, absolute, copysign, polynomial

LOG_GAMMA = (
    0.5772156649015329, -0.24525136852257695, 0.15543426586343143, -0.11514654253236319, 0.0922390074536645, -0.07731814858975045,
    0.06673146474958233, -0.05877547069041413, 0.05253920565351364, -0.04745284834946524, 0.04304027970212989, -0.03873802513653166,
    0.033841568023901085, -0.027748058914614272, 0.020476117591769653, -0.012986022608246868, 0.006740333667330925,
    -0.002708153753027335, 0.0007819820398709462, -0.00014340145957347797, 1.248600830344313e-05)
SINE_PI = (3.141592653589793, -5.167712780049969, 2.5501640398773007, -0.5992645293189474, 0.08214588657314421, -0.007370430506269508,
           0.0004662998178563369, -2.1903501176412406e-05, 7.697867782956378e-07)
COSINE_PI = (1.0, -4.934802200544679, 4.058712126416768, -1.335262768854555, 0.235330630357996, -0.025806891376604475,
             0.001929574187359344, -0.00010463741712645052, 4.300724831675665e-06, -1.3435271519780886e-07)
STIRLING_FROM, STEPS_DOWN, SHIFT = 8, 6, 10


def bernoulli_numbers(count: int) -> list[Fraction]:
    """B_2, B_4, … by their recurrence."""
    numbers = [Fraction(1)]
    for m in range(1, 2 * count + 1):
        numbers.append(-sum((math.comb(m + 1, k) * numbers[k] for k in range(m)), Fraction(0)) / (m + 1))
    return numbers[2::2]


BERNOULLI = bernoulli_numbers(10)
STIRLING = [float(b / ((2 * k) * (2 * k - 1))) for k, b in enumerate(BERNOULLI[:8], 1)]
DIGAMMA = [float(b / (2 * k)) for k, b in enumerate(BERNOULLI[:8], 1)]


def _turn(x: Expr) -> tuple[Expr, Expr]:
    """sin(pi r) and cos(pi r) for r = x less the nearest integer, which is exact."""
    r = x - apply("rint", x)
    z = r * r
    return r * polynomial(z, SINE_PI), polynomial(z, COSINE_PI)


# ---------------------------------------------------------------- log gamma
def lgamma(x: Expr) -> Expr:
    wide = x.to("float64")
    is_reflected = wide <= -0.5
    p = select(is_reflected, -wide, wide)
    value = _log_gamma(p)
    t = p * absolute(_turn(p)[0]) * (1 / math.pi)
    below = select(t.eq(0), INF, -log(t) - value)
    return select(is_reflected, select(wide.eq(-INF), -INF, below), value).to(x.dtype)


def _log_gamma(p: Expr) -> Expr:
    """For p > -1/2."""
    w = p - 1
    steps: Expr = const(1, "float64")
    for _ in range(STEPS_DOWN):
        is_over = w > 1
        steps = select(is_over, steps * w, steps)
        w = select(is_over, w - 1, w)
    is_negative, is_low, is_near = p < 0, p < 1, p < STIRLING_FROM
    w = select(is_negative, p + 1, select(is_low, p, w))
    logarithm = log(select(is_negative, -p * (p + 1), select(is_low, p, select(is_near, steps, p))))
    near = fma(polynomial(w, LOG_GAMMA), w * (w - 1), select(is_low, -logarithm, logarithm))
    inverse = 1 / p
    tail = polynomial(inverse * inverse, STIRLING) * inverse + (0.5 * math.log(2 * math.pi) - 0.5)
    return select(is_near, near, fma(p - 0.5, logarithm - 1, tail))


# ---------------------------------------------------------------- its derivatives
def digamma(x: Expr) -> Expr:
    wide = x.to("float64")
    is_reflected = wide < 0
    p = select(is_reflected, 1 - wide, wide)
    sine, cosine = _turn(wide)
    cotangent = select(sine.eq(0), NAN, math.pi * (cosine / sine))
    value = _digamma(p)
    y = select(is_reflected, value - cotangent, value)
    return select(wide.eq(0), copysign(const(INF, "float64"), -wide), y).to(x.dtype)


def _digamma(p: Expr) -> Expr:
    """For p > 0."""
    is_near = p < SHIFT
    y = select(is_near, p + SHIFT, p)
    q = p * (p + (SHIFT - 1))
    over: Expr = const(1, "float64")
    under = q
    for j in range(1, SHIFT // 2):
        factor = q + j * (SHIFT - 1 - j)
        over, under = fma(over, factor, under), under * factor
    moved = select(is_near, (p + p + (SHIFT - 1)) * over / under, 0.0)
    inverse = 1 / y
    z = inverse * inverse
    return (log(y) - fma(polynomial(z, DIGAMMA), z, inverse * 0.5)) - moved


def polygamma(x: Expr, order: int) -> Expr:
    if order == 0:
        return digamma(x)
    wide = x.to("float64")
    is_reflected = wide < 0
    p = select(is_reflected, 1 - wide, wide)
    sign = 1 if order % 2 else -1
    value = _zeta(p, order + 1) * float(sign * math.factorial(order))
    sine, cosine = _turn(wide)
    derivative = _cotangent_derivative(cosine / sine, order)
    y = select(is_reflected, -value * sign - derivative, value)
    is_pole = (wide <= 0) & (sine.eq(0) | wide.eq(-INF))
    return select(is_pole, sign * INF, y).to(x.dtype)


def _power(x: Expr, n: int) -> Expr:
    result: Expr | None = None
    while n:
        if n & 1:
            result = x if result is None else result * x
        n >>= 1
        x = x * x if n else x
    assert result is not None
    return result


def _zeta(p: Expr, s: int) -> Expr:
    """The sum of (p + k)^-s over all k >= 0, for p >= 0."""
    shift = SHIFT + s
    total: Expr = const(0, "float64")
    for j in reversed(range(shift)):
        total = total + _power(1 / (p + j), s)
    inverse = 1 / (p + shift)
    tail, rising = [], Fraction(s)
    for k, b in enumerate(BERNOULLI, 1):
        tail.append(float(b * rising / math.factorial(2 * k)))
        rising *= (s + 2 * k - 1) * (s + 2 * k)
    series = fma(polynomial(inverse * inverse, tail) * inverse, inverse, fma(inverse, 0.5, 1 / (s - 1)))
    return fma(series, _power(inverse, s - 1), total)


def _cotangent_derivative(c: Expr, order: int) -> Expr:
    """The order-th derivative of pi cot(pi x), c = cot(pi x): P_0 = c, P_(k+1) = -(1 + c^2) P_k'(c), times pi^(order+1)."""
    coefficients = [0, 1]
    for _ in range(order):
        slope = [k * a for k, a in enumerate(coefficients)][1:]
        coefficients = [-(a + b) for a, b in zip([*slope, 0, 0], [0, 0, *slope], strict=True)]
    scaled = [a * math.pi ** (order + 1) for a in coefficients]
    return polynomial(c * c, scaled[0::2]) if order % 2 else polynomial(c * c, scaled[1::2]) * c
