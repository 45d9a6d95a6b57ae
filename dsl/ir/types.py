"""Element types, sizes and array types.

In: nothing.  Out: `Dim` (an integer polynomial in size variables with one canonical form, so equality is `==`),
`ArrayType`, and `Shapes`, which decides whether shapes agree: now where it can, else as a requirement for run time.

    Dim   ::=  sum of  coefficient * Atom * Atom …
    Atom  ::=  Size(name, named, value)  |  Derived("floordiv" | "max" | "min" | "wide", Dim, Dim)

A named size never broadcasts; an anonymous one may turn out to be 1 and broadcasts as NumPy does at run time
(`wide(a, b)` is the length two such axes have together).
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Literal

import numpy as np

from dsl.errors import Span
from dsl.record import record

DType = Literal["bool", "int32", "int64", "float32", "float64"]
DTYPES: tuple[DType, ...] = ("bool", "int32", "int64", "float32", "float64")


def is_float(dtype: DType) -> bool:
    return dtype in ("float32", "float64")


def is_int(dtype: DType) -> bool:
    return dtype in ("int32", "int64")


def promote(*dtypes: DType) -> DType:
    """The arithmetic type of operands: bool counts as int64, an int beside a float becomes that float."""
    return max((("int64" if d == "bool" else d) for d in dtypes), key=DTYPES.index)


# ---------------------------------------------------------------- sizes
@dataclass(frozen=True)
class Size:
    """A size variable: `n` of `matrix X[n, d]` (named) or the length of `vector v` (anonymous); `value` if fixed."""

    name: str
    named: bool = True
    value: int | None = None

    def __str__(self) -> str:
        return self.name if self.named else "?"


@dataclass(frozen=True)
class Derived:
    """A size that is not a polynomial: `floordiv`, `max`, `min` of two sizes, or their NumPy broadcast (`wide`)."""

    kind: Literal["floordiv", "max", "min", "wide"]
    left: Dim
    right: Dim

    def __str__(self) -> str:
        match self.kind:
            case "floordiv":
                return f"{self.left.grouped()}//{self.right.grouped()}"
            case "max" if self.right == ZERO:
                return str(self.left)
            case "wide":
                return "?"
            case _:
                return f"{self.kind}({self.left}, {self.right})"


Atom = Size | Derived
Monomial = tuple[Atom, ...]


def _atom_order(atom: Atom) -> str:
    return repr(atom)


@dataclass(frozen=True)
class Dim:
    """A length: the sum of `coefficient * monomial`; the empty monomial holds the constant."""

    terms: tuple[tuple[Monomial, int], ...]

    @staticmethod
    def of(value: DimLike) -> Dim:
        match value:
            case Dim():
                return value
            case Size() | Derived():
                return Dim((((value,), 1),))
            case _:
                return Dim((((), int(value)),)) if value else ZERO

    @staticmethod
    def _collect(pairs: Iterable[tuple[Monomial, int]]) -> Dim:
        total: dict[Monomial, int] = {}
        for monomial, coefficient in pairs:
            total[monomial] = total.get(monomial, 0) + coefficient
        kept = [(m, c) for m, c in total.items() if c]
        kept.sort(key=lambda item: (-len(item[0]), tuple(map(_atom_order, item[0]))))
        return Dim(tuple(kept))

    @property
    def constant(self) -> int | None:
        """The value if this is a plain number, else None."""
        if not self.terms:
            return 0
        if len(self.terms) == 1 and not self.terms[0][0]:
            return self.terms[0][1]
        return None

    @property
    def known(self) -> int | None:
        """The value if every size in it is fixed, else None."""
        return self.constant if self.constant is not None else self.evaluate({})

    @property
    def bare(self) -> Size | None:
        """The size variable if this is nothing else."""
        if len(self.terms) == 1 and self.terms[0][1] == 1 and len(self.terms[0][0]) == 1:
            atom = self.terms[0][0][0]
            return atom if isinstance(atom, Size) else None
        return None

    def sizes(self) -> Iterator[Size]:
        """Every size variable in it, opaque atoms included."""
        for monomial, _ in self.terms:
            for atom in monomial:
                if isinstance(atom, Size):
                    yield atom
                else:
                    yield from atom.left.sizes()
                    yield from atom.right.sizes()

    @property
    def anonymous(self) -> bool:
        """Whether it may turn out to be 1 and broadcast: an unnamed size is in it, or it is the `min(n, 1)` of `x[:1]`."""
        return any(not s.named for s in self.sizes()) or self._at_most_one

    @property
    def _at_most_one(self) -> bool:
        match self.terms:
            case (((Derived("min", _, right),), 1),):
                return right == ONE
            case _:
                return False

    def evaluate(self, sizes: Mapping[str, int]) -> int | None:
        """The length under `sizes` (name to value), or None if one is missing."""
        total = 0
        for monomial, coefficient in self.terms:
            product = coefficient
            for atom in monomial:
                value = _atom_value(atom, sizes)
                if value is None:
                    return None
                product *= value
            total += product
        return total

    def substitute(self, sizes: Mapping[str, Dim]) -> Dim:
        """This length with sizes replaced by name."""
        if not sizes or not any(s.name in sizes for s in self.sizes()):
            return self
        result = ZERO
        for monomial, coefficient in self.terms:
            product = Dim.of(coefficient)
            for atom in monomial:
                if isinstance(atom, Size):
                    product = product * sizes.get(atom.name, Dim.of(atom))
                else:
                    product = product * derived(atom.kind, atom.left.substitute(sizes), atom.right.substitute(sizes))
            result = result + product
        return result

    def __add__(self, other: DimLike) -> Dim:
        return Dim._collect((*self.terms, *Dim.of(other).terms))

    def __neg__(self) -> Dim:
        return Dim(tuple((m, -c) for m, c in self.terms))

    def __sub__(self, other: DimLike) -> Dim:
        return self + -Dim.of(other)

    def __rsub__(self, other: DimLike) -> Dim:
        return Dim.of(other) - self

    def __mul__(self, other: DimLike) -> Dim:
        return Dim._collect((tuple(sorted(a + b, key=_atom_order)), c * d)
                            for a, c in self.terms for b, d in Dim.of(other).terms)

    __radd__, __rmul__ = __add__, __mul__

    def __floordiv__(self, other: DimLike) -> Dim:
        return derived("floordiv", self, Dim.of(other))

    def grouped(self) -> str:
        sum_shown = len(self.terms) > 1 or any(_looks_like_a_sum(a) for m, c in self.terms if c == len(m) == 1 for a in m)
        return f"({self})" if sum_shown else str(self)

    def __str__(self) -> str:
        if not self.terms:
            return "0"
        parts: list[str] = []
        for monomial, coefficient in self.terms:
            magnitude = abs(coefficient)
            alone = coefficient > 0 and not parts and len(self.terms) == 1
            names = "*".join(_factor(a, alone and len(monomial) == 1 == magnitude, magnitude * len(monomial) > 1) for a in monomial)
            text = names if names and magnitude == 1 else f"{magnitude}*{names}" if names else str(magnitude)
            sign = "-" if coefficient < 0 else "+" if parts else ""
            parts.append(f"{sign}{text}" if not parts else f" {sign} {text}")
        return "".join(parts)


def _factor(atom: Atom, alone: bool, multiplied: bool) -> str:
    """An atom in a sum or a product.  That a length `n - 1` is not below 0 is not shown, so it may look like a sum."""
    text = str(atom)
    ambiguous = (multiplied and "//" in text) or (not alone and _looks_like_a_sum(atom))
    return f"({text})" if ambiguous else text


def _looks_like_a_sum(atom: Atom) -> bool:
    return isinstance(atom, Derived) and atom.kind == "max" and atom.right == ZERO and atom.left.grouped() != str(atom.left)


DimLike = Dim | Size | Derived | int
ZERO = Dim(())
ONE = Dim((((), 1),))
Shape = tuple[Dim, ...]


def _atom_value(atom: Atom, sizes: Mapping[str, int]) -> int | None:
    if isinstance(atom, Size):
        return sizes.get(atom.name, atom.value)
    left, right = atom.left.evaluate(sizes), atom.right.evaluate(sizes)
    if left is None or right is None:
        return None
    match atom.kind:
        case "floordiv":
            return left // right if right else 0
        case "max":
            return max(left, right)
        case "min":
            return min(left, right)
        case "wide":
            return right if left == 1 else left


def derived(kind: Literal["floordiv", "max", "min", "wide"], left: DimLike, right: DimLike) -> Dim:
    """`kind` of two lengths, simplified where that can be decided."""
    left, right = Dim.of(left), Dim.of(right)
    if left.constant is not None and right.constant is not None and not (kind == "floordiv" and right == ZERO):
        value = _atom_value(Derived(kind, left, right), {})
        assert value is not None
        return Dim.of(value)
    match kind:
        case "floordiv" if len(right.terms) == 1 and (quotient := _quotient(left, *right.terms[0])) is not None:
            return quotient
        case "max" | "min":
            gap = (left - right).constant
            if gap is not None:
                return left if (gap >= 0) == (kind == "max") else right
            if kind == "max" and right == ZERO and _never_negative(left):
                return left
            if kind == "min" and left == ZERO and _never_negative(right):
                return ZERO
        case "wide":
            if left == right or right == ONE:
                return left
            if left == ONE:
                return right
        case _:
            pass
    if kind in ("max", "min") and right.constant is None and (left.constant is not None or repr(right) < repr(left)):
        left, right = right, left
    return Dim.of(Derived(kind, left, right))


def _quotient(left: Dim, divisor: Monomial, coefficient: int) -> Dim | None:
    """`left` over one monomial if every term divides (`n*d // n` is `d`, also where `n` turns out to be 0)."""
    terms = []
    for monomial, c in left.terms:
        rest = list(monomial)
        for atom in divisor:
            if atom not in rest:
                return None
            rest.remove(atom)
        if c % coefficient:
            return None
        terms.append((tuple(rest), c // coefficient))
    return Dim._collect(terms)


def _never_negative(dim: Dim) -> bool:
    return all(c >= 0 and all(map(_atom_never_negative, m)) for m, c in dim.terms)


def _atom_never_negative(atom: Atom) -> bool:
    """Lengths count something, so a size variable is at least 0; what is derived from them need not be."""
    if isinstance(atom, Size):
        return True
    left, right = _never_negative(atom.left), _never_negative(atom.right)
    return left or right if atom.kind == "max" else left and right


def product(shape: Iterable[DimLike]) -> Dim:
    return reduce(lambda total, d: total * Dim.of(d), shape, ONE)


# ---------------------------------------------------------------- array types
@dataclass(frozen=True)
class ArrayType:
    """A dtype and a shape; `str` gives `float64[n, 3]`, a scalar is `float64[]`."""

    dtype: DType
    shape: Shape = ()

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Dim:
        return product(self.shape)

    def with_dtype(self, dtype: DType) -> ArrayType:
        return self if dtype == self.dtype else ArrayType(dtype, self.shape)

    def with_shape(self, shape: Iterable[DimLike]) -> ArrayType:
        return ArrayType(self.dtype, tuple(Dim.of(d) for d in shape))

    def substitute(self, sizes: Mapping[str, Dim]) -> ArrayType:
        return ArrayType(self.dtype, tuple(d.substitute(sizes) for d in self.shape)) if sizes else self

    def __str__(self) -> str:
        return f"{self.dtype}{shape_text(self.shape)}"


def type_of_array(array: Any, precision: DType) -> ArrayType:
    """The type data gets when bound: floats take the script's precision, other integers int64."""
    kind = array.dtype.kind
    dtype: DType = ("bool" if kind == "b" else precision if kind == "f" else
                    "int32" if array.dtype == np.int32 else "int64")
    return ArrayType(dtype, tuple(Dim.of(int(d)) for d in array.shape))


def shape_text(shape: Iterable[DimLike]) -> str:
    return f"[{', '.join(str(d) for d in shape)}]"


# ---------------------------------------------------------------- agreement
class TypeFault(Exception):
    """An op does not accept these types; the caller adds the place.

    `kind` picks the error code, `dims` are the sizes whose origin helps the reader, `operands` positions of the
    operands at fault."""

    def __init__(self, message: str, *, kind: str = "shape", detail: str = "", help: str | None = None,
                 dims: Iterable[Dim] = (), operands: Iterable[int] = ()) -> None:
        super().__init__(message)
        self.message, self.kind, self.detail, self.help = message, kind, detail, help
        self.dims, self.operands = tuple(dims), tuple(operands)
        self.span: Span | None = None


@record
class Requirement:
    """What must hold of two lengths once they are known: `equal`, or `broadcast` (an anonymous one may be 1)."""

    kind: Literal["equal", "broadcast", "index"]
    left: Dim
    right: Dim

    def holds(self, sizes: Mapping[str, int]) -> bool | None:
        """Whether it holds under `sizes`, None if a size is missing."""
        left, right = self.left.evaluate(sizes), self.right.evaluate(sizes)
        if left is None or right is None:
            return None
        match self.kind:
            case "equal":
                return left == right
            case "broadcast":
                return left == right or (left == 1 and self.left.anonymous) or (right == 1 and self.right.anonymous)
            case "index":
                return -right <= left < right


def decide(left: Dim, right: Dim) -> bool | None:
    """True: always equal.  False: never.  None: known only at run time."""
    if left == right:
        return True
    a, b = left.bare, right.bare
    if a and b and a.named and b.named:
        return False
    gap = (left - right).known
    if gap is not None:
        return gap == 0
    return None


@dataclass
class Shapes:
    """Collects, while an op's type is inferred, what has to be checked when sizes are known."""

    requirements: list[Requirement] = field(default_factory=list)

    def equal(self, left: Dim, right: Dim) -> Dim | None:
        """The common length, or None if the two can never be equal."""
        match decide(left, right):
            case True:
                return right if left.constant is not None else left
            case False:
                return None
            case None:
                self.requirements.append(Requirement("equal", left, right))
                return left if left.anonymous <= right.anonymous else right

    def broadcast_dims(self, left: Dim, right: Dim) -> Dim | None:
        """The length of two axes that meet element-wise, or None if they never agree."""
        if left == right or right == ONE:
            return left
        if left == ONE:
            return right
        if not (left.anonymous or right.anonymous):
            return self.equal(left, right)
        self.requirements.append(Requirement("broadcast", left, right))
        if left.anonymous and right.anonymous:
            return derived("wide", left, right)
        return right if left.anonymous else left

    def broadcast(self, *shapes: Shape) -> Shape:
        """NumPy's broadcast of shapes, except that a named size meets only itself or a literal 1."""
        distinct = {s for s in shapes if s}
        if len(distinct) <= 1:
            return distinct.pop() if distinct else ()
        rank = max((len(s) for s in shapes), default=0)
        result: list[Dim] = [ONE] * rank
        for shape in shapes:
            for axis in range(-len(shape), 0):
                wide = self.broadcast_dims(result[axis], shape[axis])
                if wide is None:
                    raise TypeFault(f"shapes {' and '.join(shape_text(s) for s in shapes)} do not agree",
                                    detail=f"{result[axis]} against {shape[axis]}", dims=(result[axis], shape[axis]))
                result[axis] = wide
        return tuple(result)
