"""What the two float formats are made of, and the few moves on their bits that every function uses.

In: a dtype.  Out: its widths and limits as plain numbers; expressions that set, read and scale exponents.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

from dsl.ir.types import DType
from dsl.machine.expr import Expr, apply, const, fma, select
from dsl.record import record


@record
class Format:
    dtype: DType
    integer: DType                # of the same width
    mantissa: int                 # stored bits
    bias: int
    smallest: float               # the smallest normal number
    largest: float
    magic: float                  # 1.5 * 2^mantissa: adding it rounds to an integer, which then stands in the last bits

    def number(self, value: float) -> Expr:
        return const(value, self.dtype)


FORMATS: dict[DType, Format] = {
    "float32": Format("float32", "int32", 23, 127, 2.0 ** -126, (2 - 2.0 ** -23) * 2.0 ** 127, 1.5 * 2.0 ** 23),
    "float64": Format("float64", "int64", 52, 1023, 2.0 ** -1022, (2 - 2.0 ** -52) * 2.0 ** 1023, 1.5 * 2.0 ** 52),
}
INF, NAN = math.inf, math.nan


def format_of(x: Expr) -> Format:
    return FORMATS[x.dtype]


def absolute(x: Expr) -> Expr:
    return apply("abs", x)


def ratio(a: Expr, b: Expr) -> Expr:
    """a / b where b is in [2^-20, 2^20], and so is the result if it is not 0 or nan; by 1 anything may be divided."""
    return apply("ratio", a, b)


def copysign(x: Expr, sign: Expr) -> Expr:
    return apply("copysign", x, sign)


def square_root(x: Expr) -> Expr:
    return apply("sqrt", x)


def isnan(x: Expr) -> Expr:
    return apply("isnan", x)


def polynomial(x: Expr, coefficients: Sequence[float]) -> Expr:
    """By Horner's rule; coefficients from the lowest up."""
    total = const(coefficients[-1], x.dtype)
    for c in reversed(coefficients[:-1]):
        total = fma(total, x, c)                                                     # type: ignore[assignment]
    return total


def at_most(x: Expr, bound: float) -> Expr:
    """No larger than the bound; nan stays."""
    return select(x > bound, bound, x)


def at_least(x: Expr, bound: float) -> Expr:
    """No smaller than the bound; nan stays."""
    return select(x < bound, bound, x)


def power_of_two(rounded: Expr) -> Expr:
    """2^n from `n + magic + bias`, a float whose last bits hold n + bias: they are moved to where the exponent stands."""
    form = format_of(rounded)
    return (rounded.bits_as(form.integer) << form.mantissa).bits_as(form.dtype)


def integer_float(n: Expr, form: Format) -> Expr:
    """An integer below 2^mantissa as a float of its width, without a conversion of 64-bit integers, which is slow or missing."""
    if form.dtype == "float32":
        return n.to("float32")
    magic = form.number(form.magic)
    return (n + magic.bits_as(form.integer)).bits_as(form.dtype) - magic
