"""Literals, names, sizes and operators of CUDA C.

In: constants, names, `Dim`s, and spellings of `dsl/machine/instructions.py`.  Out: text, with the level at which it binds,
so that parentheses stand only where C needs them or a reader would.
"""
from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable

import numpy as np

from dsl.ir.types import Derived, Dim, DType, Size
from dsl.record import record

C_TYPES: dict[DType, str] = {"bool": "bool", "int32": "int", "int64": "long long", "float32": "float", "float64": "double"}

# How tightly an operator binds.  Bit operations are at the level of comparisons on purpose: C's own order of the two is a
# well-known trap, so operands of either are bracketed unless they bind as tightly as arithmetic.
PRIMARY, UNARY, PRODUCT, SUM, COMPARISON, AND, OR, CHOICE = 8, 7, 6, 5, 4, 3, 2, 1
LEVELS = {"*": PRODUCT, "/": PRODUCT, "%": PRODUCT, "+": SUM, "-": SUM, "&&": AND, "||": OR} | dict.fromkeys(
    ("<", "<=", ">", ">=", "==", "!=", "&", "|", "^", "<<", ">>"), COMPARISON)
INFIX = re.compile(r"\{0\} (\S+) \{1\}")
PREFIX = re.compile(r"([-!~])\{0\}")


@record
class Text:
    """A piece of C and how tightly its outermost operator binds."""

    text: str
    level: int = PRIMARY

    def at(self, level: int) -> str:
        """As an operand of something that needs operands of this level or tighter."""
        return self.text if self.level >= level else f"({self.text})"


def spell(spelling: str, operands: list[Text], **more: str) -> Text:
    """An instruction's spelling with its operands put in."""
    if match := INFIX.fullmatch(spelling):
        return infix(match[1], *operands)
    if match := PREFIX.fullmatch(spelling):
        inner = operands[0].at(UNARY)
        return Text(match[1] + (f"({inner})" if inner.startswith(match[1]) else inner), UNARY)
    if spelling == "{0} ? {1} : {2}":
        condition, yes, no = operands
        return Text(f"{condition.at(AND)} ? {yes.at(AND)} : {no.at(CHOICE)}", CHOICE)
    return Text(spelling.format(*(o.text for o in operands), **more))


def infix(symbol: str, left: Text, right: Text) -> Text:
    level = LEVELS[symbol]
    if level in (AND, OR):                       # `a && b && c` chains, other mixtures are bracketed
        first = left.text if left.level == level else left.at(COMPARISON)
        return Text(f"{first} {symbol} {right.at(COMPARISON)}", level)
    if level == COMPARISON:
        return Text(f"{left.at(SUM)} {symbol} {right.at(SUM)}", level)
    return Text(f"{left.at(level)} {symbol} {right.at(level + 1)}", level)


def cast(dtype: DType, value: Text) -> Text:
    return Text(f"({C_TYPES[dtype]}){value.at(UNARY)}", UNARY)


# ---------------------------------------------------------------- literals
def literal(value: bool | int | float, dtype: DType, suffixed: bool = False) -> Text:
    """The exact value.  An int64 has its suffix only if `suffixed`: beside an operator it widens by itself."""
    match dtype:
        case "bool":
            return Text("true" if value else "false")
        case "int32" | "int64":
            suffix = "LL" if dtype == "int64" and (suffixed or abs(value) >= 1 << 31) else ""
            if value == -(1 << (31 if dtype == "int32" else 63)):                    # its magnitude is no literal of this type
                return Text(f"-{-(value + 1)}{suffix} - 1", SUM)
            return Text(f"{value}{suffix}", PRIMARY if value >= 0 else UNARY)
        case _:
            text = float_literal(abs(float(value)), dtype)
            return Text(f"-{text}", UNARY) if math.copysign(1.0, value) < 0 and value == value else Text(text)


def float_literal(value: float, dtype: DType) -> str:
    """Decimal if that is short and rounds to the value also by way of a double, else hexadecimal."""
    if math.isnan(value):
        return "NAN" if dtype == "float32" else "(double)NAN"
    if math.isinf(value):
        return "INFINITY" if dtype == "float32" else "(double)INFINITY"
    narrow = dtype == "float32"
    text = str(np.float32(value)) if narrow else repr(value)
    if len(text) > 9 or (narrow and float(np.float32(float(text))) != value):
        digits, exponent = value.hex().split("p")
        whole, _, fraction = digits.partition(".")
        text = f"{whole}.{fraction.rstrip('0') or '0'}p{exponent}"
    return text + ("f" if narrow else "")


# ---------------------------------------------------------------- names
RESERVED = frozenset("""
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t char32_t class compl const constexpr const_cast
    continue decltype default delete do double dynamic_cast else enum explicit export extern false float for friend goto if inline int long
    mutable namespace new noexcept not not_eq nullptr operator or or_eq private protected public register reinterpret_cast return short
    signed sizeof static static_assert static_cast struct switch template this thread_local throw true try typedef typeid typename union
    unsigned using virtual void volatile wchar_t while xor xor_eq
    acos acosh asin asinh atan atan2 atanh cbrt cosh cospi erf erfc erfcinv erfcx erfinv exp10 exp2 expm1 fdim fdivide fmax fmin fmod frexp
    hypot ilogb isfinite isinf ldexp lgamma llrint llround log10 log1p log2 logb lrint lround modf nearbyint nextafter norm normcdf
    normcdfinv remainder remquo rcbrt rhypot rnorm round rsqrt scalbln scalbn sincos sincospi sinh sinpi tanh tgamma
    threadIdx blockIdx blockDim gridDim warpSize min max abs fabs sqrt floor ceil rint trunc copysign fma exp log sin cos tan pow isnan
    signbit NAN INFINITY NULL y0 y1 yn j0 j1 jn gamma clock time main assert printf
""".split())


def identifier(name: str) -> str:
    """The nearest C identifier: Greek letters by their names, other strange characters as underscores."""
    text = ""
    for character in name:
        if character.isascii() and (character.isalnum() or character == "_"):
            text += character
        elif (words := unicodedata.name(character, "").split()) and words[0] == "GREEK":
            text += words[-1].lower() if "SMALL" in words else words[-1].capitalize()
        elif (digit := unicodedata.digit(character, None)) is not None:
            text += str(digit)
        else:
            text += "_"
    text = re.sub("__+", "_", text).strip("_") or "value"
    return f"v{text}" if text[0].isdigit() else text


def fresh(name: str, taken: Callable[[str], bool]) -> str:
    """An identifier like `name` that is not taken."""
    base = identifier(name)
    if base in RESERVED or base.removesuffix("f") in RESERVED or base.startswith("lr_"):
        base += "_"
    text, number = base, 1
    while taken(text):
        number += 1
        text = f"{base}{'' if base[-1] == '_' else '_'}{number}"
    return text


# ---------------------------------------------------------------- sizes
def dim_text(dim: Dim, sizes: Callable[[str], str]) -> Text:
    """A length; `sizes` names the size variables."""
    if dim.known is not None:
        return literal(dim.known, "int64")
    total: Text | None = None
    for monomial, coefficient in dim.terms:
        factors = [_atom_text(a, sizes) for a in monomial if _fixed(a) is None]
        coefficient *= math.prod(v for a in monomial if (v := _fixed(a)) is not None)
        if abs(coefficient) != 1 or not factors:
            factors.insert(0, literal(abs(coefficient), "int64"))
        term = product(factors)
        if total is None:
            total = term if coefficient > 0 else Text(f"-{term.at(UNARY)}", UNARY)
        else:
            total = infix("+" if coefficient > 0 else "-", total, term)
    assert total is not None
    return total


def product(factors: Iterable[Text]) -> Text:
    first, *rest = factors
    for factor in rest:
        first = infix("*", first, factor)
    return first


def _fixed(atom: Size | Derived) -> int | None:
    return atom.value if isinstance(atom, Size) else None


def _atom_text(atom: Size | Derived, sizes: Callable[[str], str]) -> Text:
    if isinstance(atom, Size):
        return Text(sizes(atom.name))
    left, right = (dim_text(d, sizes) for d in (atom.left, atom.right))
    match atom.kind:
        case "floordiv":
            return Text(f"lr_floordiv({left.text}, {right.text})")
        case "max" | "min":
            return Text(f"{atom.kind}((long long){left.at(UNARY)}, (long long){right.at(UNARY)})")
        case "wide":
            return Text(f"({left.at(SUM)} == 1 ? {right.at(SUM)} : {left.at(SUM)})")


def linear(shape: Iterable[Text], index: Iterable[Text]) -> Text:
    """The place of an element of a row-major array; `shape` is without its first length."""
    places = list(index)
    if not places:
        return Text("0")
    place, *rest = places
    for length, following in zip(shape, rest, strict=True):
        if place.text.isdigit() and length.text.isdigit() and following.text.isdigit():
            place = Text(str(int(place.text) * int(length.text) + int(following.text)))
            continue
        scaled = place if place.text == "0" or length.text == "1" else infix("*", place, length)
        place = following if scaled.text == "0" else scaled if following.text == "0" else infix("+", scaled, following)
    return place
