"""Scalar expressions.

In: dtypes and sizes.  Out: expressions that the loop IR stores, and that both code generators print.

    Expr ::= Const(value, dtype)          a literal
           | Ref(name, dtype)             a loop index (int64), a `Let`, a `Local`
           | Extent(dim)                  a size, or a polynomial of sizes, as an int64
           | Load(buffer, index …)        an element of an array; one int64 index an axis, each within its axis
           | Apply(op, args, dtype)       an instruction; all but conversions, comparisons and `select` keep their operands' dtype

Expressions are hash-consed like nodes: equal ones are one object, so that what is computed twice is seen by `is`.
Python's operators and comparisons make instructions; a bare number takes the dtype of the other side.
"""
from __future__ import annotations

import operator
import struct
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from math import inf, isnan
from threading import RLock
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from dsl.ir.types import ArrayType, Dim, DType, Shape, is_float
from dsl.record import entity

BITS: dict[DType, int] = {"bool": 1, "int32": 32, "int64": 64, "float32": 32, "float64": 64}


class Expr:
    """A scalar value.  `dtype` tells its type."""

    __slots__ = ()
    dtype: DType

    def _with(self, op: str, other: Any, swapped: bool = False) -> Expr:
        right = as_expr(other, self.dtype)
        return apply(op, right, self) if swapped else apply(op, self, right)

    def __add__(self, other: Any) -> Expr:
        return self._with("add", other)

    def __radd__(self, other: Any) -> Expr:
        return self._with("add", other, True)

    def __sub__(self, other: Any) -> Expr:
        return self._with("sub", other)

    def __rsub__(self, other: Any) -> Expr:
        return self._with("sub", other, True)

    def __mul__(self, other: Any) -> Expr:
        return self._with("mul", other)

    def __rmul__(self, other: Any) -> Expr:
        return self._with("mul", other, True)

    def __truediv__(self, other: Any) -> Expr:
        return self._with("div", other)

    def __rtruediv__(self, other: Any) -> Expr:
        return self._with("div", other, True)

    def __neg__(self) -> Expr:
        return apply("neg", self)

    def __and__(self, other: Any) -> Expr:
        return self._with("and", other)

    def __or__(self, other: Any) -> Expr:
        return self._with("or", other)

    def __xor__(self, other: Any) -> Expr:
        return self._with("xor", other)

    def __invert__(self) -> Expr:
        return apply("not", self)

    def __lshift__(self, other: Any) -> Expr:
        return self._with("shl", other)

    def __rshift__(self, other: Any) -> Expr:
        """Arithmetic; `lshr` is the logical one."""
        return self._with("ashr", other)

    def __lt__(self, other: Any) -> Expr:
        return self._with("lt", other)

    def __le__(self, other: Any) -> Expr:
        return self._with("le", other)

    def __gt__(self, other: Any) -> Expr:
        return self._with("gt", other)

    def __ge__(self, other: Any) -> Expr:
        return self._with("ge", other)

    def eq(self, other: Any) -> Expr:
        return self._with("eq", other)

    def ne(self, other: Any) -> Expr:
        return self._with("ne", other)

    def to(self, dtype: DType) -> Expr:
        """This value in another dtype.  A float to an integer is cut off, and must fit."""
        if dtype == self.dtype:
            return self
        if isinstance(self, Const) and (self.dtype == "bool" or is_float(dtype) or not is_float(self.dtype)):
            return const(self.value, dtype)
        return self.ne(0) if dtype == "bool" else apply("to", self, dtype=dtype)

    def bits_as(self, dtype: DType) -> Expr:
        """The same bits read as another dtype of the same width."""
        assert BITS[dtype] == BITS[self.dtype], (dtype, self.dtype)
        return self if dtype == self.dtype else apply("bits", self, dtype=dtype)


@entity
class Const(Expr):
    value: bool | int | float
    dtype: DType
    __slots__ = ("__weakref__", "dtype", "value")


@entity
class Ref(Expr):
    name: str
    dtype: DType
    __slots__ = ("__weakref__", "dtype", "name")


@entity
class Extent(Expr):
    dim: Dim
    __slots__ = ("__weakref__", "dim")
    dtype = "int64"


@entity
class Buffer:
    """An array of a program: row-major, contiguous.  Two buffers are the same only if they are one object.

    `role` says where it lives:
        input     given from outside, only read          output    given from outside, written
        state     given from outside, read and written   scratch   made by the program, planned in its workspace
        private   scratch of one iteration of the kernel around it
        window    another name for part of a buffer, made by `Window`
    Scratch of rank 0 is a variable."""

    name: str
    dtype: DType
    shape: Shape
    role: str

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def type(self) -> ArrayType:
        return ArrayType(self.dtype, self.shape)

    def __repr__(self) -> str:
        return f"{self.name}: {self.type} {self.role}"


@entity
class Load(Expr):
    buffer: Buffer
    index: tuple[Expr, ...]
    __slots__ = ("__weakref__", "buffer", "index")

    @property
    def dtype(self) -> DType:                                                        # type: ignore[override]
        return self.buffer.dtype


@entity
class Apply(Expr):
    op: str
    args: tuple[Expr, ...]
    dtype: DType
    __slots__ = ("__weakref__", "args", "dtype", "op")

    def __repr__(self) -> str:
        return f"{self.op}({', '.join(map(repr, self.args))})"


COMPARISONS = frozenset(("eq", "ne", "lt", "le", "gt", "ge", "below", "isnan"))
FOLDED = {"add": operator.add, "sub": operator.sub, "mul": operator.mul, "and": operator.and_, "or": operator.or_, "xor": operator.xor,
          "ashr": operator.rshift,
          "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge}
FLOATS_FOLDED = frozenset(("add", "sub", "mul"))
"""In float64, then rounded: the same as in float32 at once, for a double has more than twice its digits."""
UNITS = {"add": 0, "sub": 0, "mul": 1, "or": 0, "xor": 0, "shl": 0, "ashr": 0, "lshr": 0}
"""What an integer stays itself with."""
_interned: WeakValueDictionary[Any, Any] = WeakValueDictionary()
_making = RLock()
E = TypeVar("E", bound=Expr)


def _one(key: tuple[Any, ...], made: E) -> E:
    """The expression of this key: what was made, unless another thread has made it meanwhile."""
    with _making:
        found: E | None = _interned.get(key)
        if found is None:
            _interned[key] = found = made
    return found


def const(value: bool | int | float, dtype: DType) -> Const:
    """A literal; integers wrap to the width of their dtype."""
    key: object
    if is_float(dtype):
        value = float(value)
        if dtype == "float32":
            value = _round32(value)
        key = struct.pack("<d", value)
    elif dtype == "bool":
        value = key = bool(value)
    else:
        half = 1 << (BITS[dtype] - 1)
        value = key = (int(value) + half) % (2 * half) - half
    found: Const | None = _interned.get((Const, key, dtype))
    return _one((Const, key, dtype), Const(value, dtype)) if found is None else found


def _round32(value: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def ref(name: str, dtype: DType = "int64") -> Ref:
    found: Ref | None = _interned.get((Ref, name, dtype))
    return _one((Ref, name, dtype), Ref(name, dtype)) if found is None else found


def extent(dim: Dim | int) -> Expr:
    """A size as an int64."""
    dim = Dim.of(dim)
    if dim.known is not None:
        return const(dim.known, "int64")
    found: Expr | None = _interned.get((Extent, dim))
    return _one((Extent, dim), Extent(dim)) if found is None else found


def load(buffer: Buffer, index: Iterable[Expr] = ()) -> Load:
    places = tuple(index)
    assert len(places) == buffer.rank, (buffer, places)
    found: Load | None = _interned.get((Load, buffer, places))
    return _one((Load, buffer, places), Load(buffer, places)) if found is None else found


def apply(op: str, *args: Expr, dtype: DType | None = None) -> Expr:
    """An instruction over expressions; its dtype follows from them but for `to` and `bits`.  Literals are reckoned at once."""
    if op in FOLDED and len(args) == 2:
        a, b = args
        if type(a) is Const and type(b) is Const:
            if type(a.value) is not float and type(b.value) is not float:
                value = FOLDED[op](a.value, b.value)
                if -2 ** 31 <= value < 2 ** 31:
                    return const(value, "bool" if op in COMPARISONS else a.dtype)
            elif op in FLOATS_FOLDED and is_float(a.dtype) and a.dtype == b.dtype:
                return const(FOLDED[op](a.value, b.value), a.dtype)
    if op in NEVER and type(args[1]) is Const and type(args[1].value) is float and NEVER[op](*span(args[0]), args[1].value):
        return const(False, "bool")
    if op in UNITS and type(args[-1]) is Const and type(args[-1].value) is int and args[-1].value == UNITS[op]:
        return args[0]
    if op in ("abs", "neg") and isinstance(args[0], Apply) and args[0].op == "neg":    # |-x| = |x|, -(-x) = x, to the bit
        return args[0].args[0] if op == "neg" else apply("abs", args[0].args[0])
    if dtype is None:
        dtype = "bool" if op in COMPARISONS else args[1].dtype if op == "select" else args[0].dtype
    key = (Apply, op, args, dtype)
    found: Expr | None = _interned.get(key)
    return _one(key, Apply(op, args, dtype)) if found is None else found


NEVER: dict[str, Callable[[float, float, float], bool]] = {
    "lt": lambda low, high, c: low >= c, "le": lambda low, high, c: low > c, "gt": lambda low, high, c: high <= c,
    "ge": lambda low, high, c: high < c, "eq": lambda low, high, c: not low <= c <= high,
}
"""Comparisons of what lies in a span with a literal that cannot hold; with a nan none does."""
DEEP = 6
ANYWHERE = (-inf, inf)


def span(e: Expr, depth: int = DEEP) -> tuple[float, float]:
    """Between which numbers a float is, as far as its form tells; if it is not a nan.  Rounding keeps the order, so it keeps spans."""
    if type(e) is Const:
        return ANYWHERE if type(e.value) is not float or isnan(e.value) else (e.value, e.value)
    if not isinstance(e, Apply) or not depth or not is_float(e.dtype):
        return ANYWHERE
    first = e.args[0]
    match e.op:
        case "abs" | "sqrt":
            return 0.0, inf
        case "neg":
            low, high = span(first, depth - 1)
            return -high, -low
        case "mul" if first is e.args[1]:
            return 0.0, inf
        case "mul" if apply("neg", first) is e.args[1]:
            return -inf, 0.0
        case "add":
            (a, b), (c, d) = span(first, depth - 1), span(e.args[1], depth - 1)
            ends = (a + c, b + d)
            if isnan(ends[0]) or isnan(ends[1]):
                return ANYWHERE
            return (_round32(ends[0]), _round32(ends[1])) if e.dtype == "float32" else ends
        case "select":
            (a, b), (c, d) = span(e.args[1], depth - 1), span(e.args[2], depth - 1)
            return min(a, c), max(b, d)
        case _:
            return ANYWHERE


def as_expr(value: Any, dtype: DType) -> Expr:
    return value if isinstance(value, Expr) else const(value, dtype)


# ---------------------------------------------------------------- instructions that have no operator
def select(condition: Expr, a: Any, b: Any) -> Expr:
    """`a` where the condition holds, else `b`; both are computed."""
    dtype = a.dtype if isinstance(a, Expr) else b.dtype
    a, b = as_expr(a, dtype), as_expr(b, dtype)
    if isinstance(condition, Const):
        return a if condition.value else b                                           # type: ignore[no-any-return]
    return a if a is b else apply("select", condition, a, b)


def fma(a: Expr, b: Any, c: Any) -> Expr:
    """`a * b + c`, rounded once."""
    return apply("fma", a, as_expr(b, a.dtype), as_expr(c, a.dtype))


def minimum(a: Expr, b: Any) -> Expr:
    """The smaller; nan if one is, and -0 below +0."""
    return apply("minimum", a, as_expr(b, a.dtype))


def maximum(a: Expr, b: Any) -> Expr:
    """The larger; nan if one is, and +0 above -0."""
    return apply("maximum", a, as_expr(b, a.dtype))


def lshr(a: Expr, b: Any) -> Expr:
    """Shifted right, zeros coming in."""
    return apply("lshr", a, as_expr(b, a.dtype))


# ---------------------------------------------------------------- walks
def parts(e: Expr) -> tuple[Expr, ...]:
    match e:
        case Apply(args=args):
            return args
        case Load(index=index):
            return index
        case _:
            return ()


def walk(roots: Iterable[Expr], known: Container[Expr] = ()) -> list[Expr]:
    """Every expression the roots are made of, once, parts before wholes, without recursion; but not what is `known`, nor what only
    that is made of."""
    order: list[Expr] = []
    seen: set[Expr] = set()
    stack: list[Expr | None] = [*roots]
    stack.reverse()
    open_: list[Expr] = []                                    # wholes whose parts are on the stack, each above a None
    while stack:
        e = stack.pop()
        if e is None:
            order.append(open_.pop())
        elif e not in seen and e not in known:
            seen.add(e)
            inner = e.args if type(e) is Apply else e.index if type(e) is Load else ()
            if inner:
                open_.append(e)
                stack.append(None)
                stack.extend(inner[::-1])
            else:
                order.append(e)
    return order


def replace(roots: Sequence[Expr], change: Mapping[Expr, Expr]) -> list[Expr]:
    """The expressions with parts replaced."""
    done: dict[Expr, Expr] = {}

    def new(e: Expr) -> Expr:
        return change[e] if e in change else done[e]
    for e in walk(roots, change):
        match e:
            case Apply(op, args, dtype):
                done[e] = apply(op, *[new(a) for a in args], dtype=dtype)
            case Load(buffer, index):
                done[e] = load(buffer, [new(i) for i in index])
            case _:
                done[e] = e
    return [new(r) for r in roots]
