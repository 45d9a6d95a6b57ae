"""Random numbers as expressions: bit for bit what `dsl/ops/philox.py` defines, which has the formulas and their reasons.

In: the key of a draw, the step, the iteration and the index of an element.  Out: its random words, and what is made of them.
A word is a non-negative int64 below 2^32.  Nothing here fuses a product with a sum.

**A shuffle** walks a cycle, which takes a loop.  Its round keys are made once an epoch, `round_key(key, epoch, iteration, r)`
for r = 0 … rounds, and stored; an element then is, with g = shuffle_geometry(n) and k the loaded keys, 13 of them or 25,

    Local x = i;  Assign x = shuffle_turn(x, g, k);  While (x >= n): Assign x = shuffle_turn(x, g, k)

There are 24 rounds if n <= 16 (`shuffle_is_small`), else 12: an `If` around two such loops.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dsl.ir.types import DType
from dsl.machine.expr import Expr, as_expr, const, lshr, select
from dsl.machine.formats import FORMATS, integer_float, square_root

MULTIPLIER_0, MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
WEYL_0, WEYL_1 = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
MASK32 = 0xFFFFFFFF
SHUFFLE_MULTIPLIER_0, SHUFFLE_MULTIPLIER_1 = 0x7FEB352D, 0x846CA68B
SMALL_SHUFFLE, FEW_ROUNDS, MANY_ROUNDS = 16, 12, 24

Words = tuple[Expr, Expr, Expr, Expr]


class NormalTables(NamedTuple):
    """Polynomials from the lowest coefficient up, and log 2 in two parts, of `normal`."""

    log: tuple[float, ...]
    log2_high: float
    log2_low: float
    sine: tuple[float, ...]


NORMAL: dict[DType, NormalTables] = {
    "float64": NormalTables(
        (6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01, 2.222219843214978396e-01,
         1.818357216161805012e-01, 1.531383769920937332e-01, 1.479819860511658591e-01),
        float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33"),
        (1.5707963267948966, -0.6459640975062462, 0.07969262624616565, -0.004681754135304255, 0.0001604411847130916,
         -3.5988430204672576e-06, 5.6921364280986254e-08, -6.684416831856085e-10, 5.87297574479995e-12)),
    "float32": NormalTables(
        (0.66666662693, 0.40000972152, 0.28498786688, 0.24279078841),
        float.fromhex("0x1.62e3p-1"), float.fromhex("0x1.2fefa2p-17"),
        (1.5707964, -0.6459638, 0.07968992, -0.0046741436, 0.0001516717)),
}


# ---------------------------------------------------------------- words
def words(key: int | Expr, step: Expr, iteration: Expr | int, index: Expr) -> Words:
    """Philox4x32-10 of the counter (index, step, iteration); all int64, taken modulo 2^64 and 2^32 as the definition says."""
    iteration = as_expr(iteration, "int64")
    low, high = (key & MASK32, (key >> 32) & MASK32) if isinstance(key, int) else (key & MASK32, lshr(key, 32))
    c0, c1, c2, c3 = index & MASK32, lshr(index, 32), step & MASK32, iteration & MASK32
    for number in range(ROUNDS):
        a, b = c0 * MULTIPLIER_0, c2 * MULTIPLIER_1
        k0, k1 = _bumped(low, number * WEYL_0), _bumped(high, number * WEYL_1)
        c0, c1, c2, c3 = lshr(b, 32) ^ c1 ^ k0, b & MASK32, lshr(a, 32) ^ c3 ^ k1, a & MASK32
    return c0, c1, c2, c3


def _bumped(half: Expr | int, by: int) -> Expr:
    return const((half + by) & MASK32, "int64") if isinstance(half, int) else (half + (by & MASK32)) & MASK32


# ---------------------------------------------------------------- numbers
def uniform(block: Words, dtype: DType) -> Expr:
    """In [0, 1): a multiple of 2^-53 (float32: 2^-24)."""
    c0, c1, _, _ = block
    if dtype == "float32":
        return lshr(c0, 8).to("int32").to("float32") * 2.0 ** -24
    return ((c0 << 21) | lshr(c1, 11)).to("float64") * 2.0 ** -53


def normal(block: Words, dtype: DType) -> Expr:
    """Standard normal, by Box and Muller's formula as `normal_from_words` in `dsl/ops/philox.py` writes it out."""
    c0, c1, c2, c3 = block
    form, tables = FORMATS[dtype], NORMAL[dtype]
    if dtype == "float32":
        u, v = ((c | 1).to("float32") * 2.0 ** -32 for c in (c0, c2))
    else:
        u, v = (((high << 21) | lshr(low, 11) | 1).to("float64") * 2.0 ** -53 for high, low in ((c0, c1), (c2, c3)))
    pattern = u.bits_as(form.integer)
    exponent = (pattern - form.number(0.5 ** 0.5).bits_as(form.integer)) >> form.mantissa
    f = (pattern - (exponent << form.mantissa)).bits_as(dtype) - 1
    e = integer_float(exponent, form)
    s = f / (f + 2)
    q = s * s
    h = (f * f) * 0.5
    r = s * (h + q * _unfused(q, tables.log)) + e * tables.log2_low
    minus_log = ((h - r) - f) - e * tables.log2_high
    z = square_root(minus_log + minus_log) * (v * _unfused(v * v, tables.sine))
    return select((c3 & 1).ne(0), -z, z)


def _unfused(x: Expr, coefficients: Sequence[float]) -> Expr:
    """By Horner's rule, each product and each sum rounded; coefficients from the lowest up."""
    total: Expr = const(coefficients[-1], x.dtype)
    for c in reversed(coefficients[:-1]):
        total = total * x + c
    return total


# ---------------------------------------------------------------- shuffles
class Geometry(NamedTuple):
    """How a place below 2^b is cut into halves: the bits of the low one (int64), and the masks of both (int32)."""

    low: Expr
    low_mask: Expr
    high_mask: Expr


def shuffle_is_small(n: Expr) -> Expr:
    return n <= SMALL_SHUFFLE


def shuffle_rounds(n: Expr) -> Expr:
    """24 or 12, int64."""
    return select(shuffle_is_small(n), const(MANY_ROUNDS, "int64"), FEW_ROUNDS)


def bit_length(x: Expr) -> Expr:
    """The number of bits of x >= 0, by halving."""
    count: Expr = const(0, x.dtype)
    for shift in (32, 16, 8, 4, 2, 1):
        is_long = (x >> shift).ne(0)
        count = select(is_long, count + shift, count)
        x = select(is_long, x >> shift, x)
    return count + x


def shuffle_geometry(n: Expr) -> Geometry:
    """For n rows, 0 < n <= 2^62; int64."""
    bits = bit_length(n - 1)
    low = (bits + 1) >> 1
    one = const(1, "int64")
    return Geometry(low, ((one << low) - 1).to("int32"), ((one << (bits >> 1)) - 1).to("int32"))


def round_key(key: int | Expr, epoch: Expr, iteration: Expr | int, number: Expr) -> tuple[Expr, Expr]:
    """The two words of round `number` (int64), as int32."""
    c0, c1, c2, c3 = words(key, epoch, iteration, number >> 1)
    is_odd = (number & 1).ne(0)
    return select(is_odd, c2, c0).to("int32"), select(is_odd, c3, c1).to("int32")


def _mix(half: Expr, key: tuple[Expr, Expr]) -> Expr:
    half = (half ^ key[0]) * SHUFFLE_MULTIPLIER_0
    half = ((half ^ lshr(half, 15)) + key[1]) * SHUFFLE_MULTIPLIER_1
    return half ^ lshr(half, 16)


def shuffle_turn(x: Expr, geometry: Geometry, keys: Sequence[tuple[Expr, Expr]]) -> Expr:
    """One turn of the network (x and the result int64, below 2^b); a round a key, and the last key for the last bit."""
    low, low_mask, high_mask = geometry
    left, right = (x >> low).to("int32"), x.to("int32") & low_mask
    for number, key in enumerate(keys[:-1]):
        if number % 2 == 0:
            left = left ^ (_mix(right, key) & high_mask)
        else:
            right = right ^ (_mix(left, key) & low_mask)
    joined = (left.to("int64") << low) | right.to("int64")
    return joined ^ (_mix(lshr(joined, 1).to("int32"), keys[-1]) & 1).to("int64")
