"""Signs, conversions, roundings, divisions that round down, and powers of integers.

In: expressions.  Out: straight-line expressions with NumPy's results, defined for every operand: where a division or a
conversion would trap, it is done on harmless operands.  `…_fault` says where the language has an error instead of a result.
"""
from __future__ import annotations

from dsl.ir.types import DType, is_float, is_int
from dsl.machine.expr import BITS, Const, Expr, apply, const, fma, maximum, minimum, select
from dsl.machine.formats import INF, NAN, absolute, copysign

NEVER = const(False, "bool")


# ---------------------------------------------------------------- one operand
def sign(x: Expr) -> Expr:
    minus_one, zero = const(-1, x.dtype), const(0, x.dtype)
    rest = select(x.eq(0), 0, x) if is_float(x.dtype) else zero          # nan is neither
    return select(x > 0, 1, select(x < 0, minus_one, rest))


def isfinite(x: Expr) -> Expr:
    return absolute(x) < INF


def rounding(op: str, x: Expr) -> Expr:
    """`floor`, `ceil` or `rint`; integers are whole already."""
    return apply(op, x) if is_float(x.dtype) else x


def clip(x: Expr, low: Expr, high: Expr) -> Expr:
    return minimum(maximum(x, low), high)


# ---------------------------------------------------------------- conversion
def _fits(x: Expr, dtype: DType) -> Expr:
    limit = 2.0 ** (BITS[dtype] - 1)
    whole = apply("trunc", x)
    return (whole >= -limit) & (whole < limit)


def convert(x: Expr, dtype: DType) -> Expr:
    """`x` in another dtype; a float that has no value in an integer dtype gives 0 (and faults)."""
    if is_float(x.dtype) and is_int(dtype):
        return select(_fits(x, dtype), x, 0).to(dtype)
    return x.to(dtype)


def convert_fault(x: Expr, dtype: DType) -> Expr:
    return ~_fits(x, dtype) if is_float(x.dtype) and is_int(dtype) else NEVER


# ---------------------------------------------------------------- division, rounded down
def _whole_division(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """Quotient and remainder, the remainder with the sign of `b`.  By -1 without dividing, as the quotient may not exist."""
    is_safe = isinstance(b, Const) and b.value not in (0, -1)
    is_minus_one = NEVER if is_safe else b.eq(-1)
    divisor = b if is_safe else select(is_minus_one | b.eq(0), 1, b)
    quotient = apply("idiv", a, divisor)
    remainder = a - quotient * divisor
    is_over = remainder.ne(0) & ((remainder ^ divisor) < 0)
    return select(is_minus_one, -a, select(is_over, quotient - 1, quotient)), select(is_over, remainder + divisor, remainder)


def _fmod(a: Expr, b: Expr) -> Expr:
    """C's fmod, exact as long as |a / b| < 2^150; beyond that, which only float64 knows, some number below |b|.

    q = trunc(a / (2^k b)) may be one too many, as the quotient is rounded.  a - 2^k b q is a float even so, so that fma gives
    it without an error: each step takes 50 bits off the quotient, and what is left may be below 0 until the end.
    """
    steps = (250, 200, 150, 100, 50) if a.dtype == "float32" else (100, 50)          # float32 is computed in float64
    size, divisor = absolute(a.to("float64")), absolute(b.to("float64"))
    is_regular = (size < INF) & (divisor < INF) & (divisor > 0)
    rest, divisor = select(is_regular, size, 0), select(is_regular, divisor, 1)
    for k in steps:
        scaled = divisor * 2.0 ** k
        rest = fma(-apply("trunc", rest / scaled), select(scaled < INF, scaled, 0), rest)
    rest = fma(-apply("trunc", rest / divisor), divisor, rest)
    rest = select(absolute(rest) < divisor, rest, 0)
    found = copysign(select(rest < 0, rest + divisor, rest).to(a.dtype), a)
    is_small = (absolute(a) < INF) & absolute(b).eq(INF)
    return select(is_regular, found, select(is_small, a, NAN))


def _float_division(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """NumPy's `divmod` of floats (`npy_divmod` in npy_math_internal.h.src): its roundings are part of its meaning."""
    rest = _fmod(a, b)
    quotient = (a - rest) / b
    crosses = rest.ne(0) & ((b < 0) ^ (rest < 0))
    remainder = select(rest.eq(0), copysign(const(0, a.dtype), b), select(crosses, rest + b, rest))
    quotient = select(crosses, quotient - 1, quotient)
    down = apply("floor", quotient)
    down = select(quotient - down > 0.5, down + 1, down)
    plain = a / b
    down = select(quotient.eq(0), copysign(const(0, a.dtype), plain), down)
    return select(b.eq(0), plain, down), select(b.eq(0), NAN, remainder)


def floor_division(a: Expr, b: Expr) -> Expr:
    return (_float_division if is_float(a.dtype) else _whole_division)(a, b)[0]


def floor_remainder(a: Expr, b: Expr) -> Expr:
    return (_float_division if is_float(a.dtype) else _whole_division)(a, b)[1]


def division_fault(a: Expr, b: Expr) -> Expr:
    if is_float(b.dtype):
        return NEVER
    return const(not b.value, "bool") if isinstance(b, Const) else b.eq(0)


# ---------------------------------------------------------------- powers of integers
def integer_power(a: Expr, b: Expr) -> Expr:
    """By repeated squaring, wrapping; a literal exponent takes only the products it needs."""
    bits = BITS[a.dtype]
    power: Expr | None = None
    square = a
    if isinstance(b, Const):
        n = max(int(b.value), 0)
        while n:
            if n & 1:
                power = square if power is None else power * square
            n >>= 1
            square = square * square if n else square
        return const(1, a.dtype) if power is None else power
    total: Expr = const(1, a.dtype)
    for i in range(bits - 1):
        total = select(((b >> i) & 1).ne(0), total * square, total)
        square = square * square
    return total


def power_fault(a: Expr, b: Expr) -> Expr:
    if is_float(b.dtype):
        return NEVER
    return const(b.value < 0, "bool") if isinstance(b, Const) else b < 0

