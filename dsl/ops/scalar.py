"""Element-wise primitives: one row each.

A row gives signature, meaning in NumPy, and the partial derivatives `(y, *xs) -> dy/dx_i`, which are numbers, nodes,
`Gate` (1 where a condition holds) or None (zero everywhere).  At hard points the derivative is the one LANGUAGE defines:
the smallest subgradient at a kink, equal shares at a tie, nan outside the domain.
"""
from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from dsl.ir.node import TABLE, Node, Op
from dsl.ir.types import ArrayType, Shapes, TypeFault, is_float, is_int
from dsl.machine import arithmetic, errorfunction, exponential, formats, gammafunction, powers, trigonometric
from dsl.machine import expr as machine
from dsl.ops.table import Fault, Gate, array, batch_same, constant, elementwise, is_literal, special

TWO_OVER_ROOT_PI = 2 / math.sqrt(math.pi)
NAN = math.nan

# ---------------------------------------------------------------- leaves
const = array("const", "", "A literal number.", infer=lambda shapes, literal: ArrayType(literal.dtype),
              numpy=lambda literal: np.dtype(literal.dtype).type(literal.value))


# ---------------------------------------------------------------- NumPy meanings that need more than one call
def _any(condition: Any) -> bool:
    return bool(condition.any()) if isinstance(condition, np.ndarray) else bool(condition)


def _floordiv(a: Any, b: Any) -> Any:
    if a.dtype.kind == "i" and _any(b == 0):
        raise Fault("E0701", "integer division by zero", "guard it: `if b != 0 then a // b else 0`")
    return np.floor_divide(a, b)


def _mod(a: Any, b: Any) -> Any:
    if a.dtype.kind == "i" and _any(b == 0):
        raise Fault("E0701", "integer remainder of a division by zero", "guard it: `if b != 0 then a % b else 0`")
    return np.mod(a, b)


def _pow(a: Any, b: Any) -> Any:
    if a.dtype.kind == "i" and _any(b < 0):
        raise Fault("E0703", "an integer to a negative power is not an integer", "convert first: `float(a) ** b`")
    return np.power(a, b)


def numpy_maximum(a: Any, b: Any) -> Any:
    return np.where((a == 0) & (b == 0), a + b, np.maximum(a, b))[()]            # +0 beats -0 on every backend


def _minimum(a: Any, b: Any) -> Any:
    return np.where((a == 0) & (b == 0), -(-a + -b), np.minimum(a, b))[()] if a.dtype.kind == "f" else np.minimum(a, b)


def _where(condition: Any, a: Any, b: Any) -> Any:
    y: Any = np.where(condition, a, b)
    return y[()]


def _clip(x: Any, low: Any, high: Any) -> Any:
    return _minimum(numpy_maximum(x, low), high)


def _cast(x: Any, dtype: str) -> Any:
    if np.dtype(dtype).kind == "i" and x.dtype.kind == "f":
        limit = 2.0 ** 31 if dtype == "int32" else 2.0 ** 63                          # exact in both float dtypes
        whole = np.trunc(x)
        fits = (whole >= -limit) & (whole < limit)
        if not np.all(fits):
            worst = x[~fits].flat[0] if isinstance(x, np.ndarray) else x
            raise Fault("E0704", f"`int` of {worst} has no value in {dtype}",
                        "replace it first, for example `int(where(isfinite(x), x, 0))`")
    return x.astype(dtype)


def _whole(function: Any) -> Any:
    """A rounding, which leaves integers as they are."""
    return lambda x: x if x.dtype.kind == "i" else function(x)


def _sigmoid(x: Any) -> Any:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(x.dtype)[()]


# ---------------------------------------------------------------- derivative helpers
def where(condition: Any, a: Any, b: Any) -> Any:
    return TABLE["where"](condition, a, b)


def _is_zero(x: Any) -> Any:
    return TABLE["eq"](x, 0)


def _one_sided(y: Node, a: Node, b: Node, beats: Any) -> tuple[Any, Any]:
    """Shares of `maximum`/`minimum`: a tie is split in halves, but a tie with a literal gives the other operand 0."""
    if is_literal(b):
        return Gate(beats(a, b)), None if b.op is const else Gate(beats(b, a))
    if is_literal(a):
        return None if a.op is const else Gate(beats(a, b)), Gate(beats(b, a))
    share = where(TABLE["eq"](a, b), constant(0.5, y.dtype), constant(1.0, y.dtype)) if is_float(y.dtype) else 1
    return Gate(~beats(b, a), share), Gate(~beats(a, b), share)


def _pow_partials(y: Node, a: Node, b: Node) -> tuple[Any, Any]:
    by_base = b * TABLE["pow"](a, b - 1) if is_literal(b) else where(_is_zero(b), 0, b * TABLE["pow"](a, b - 1))
    if is_literal(b) and b.op is const and b.attr("literal").value == 0:
        by_base = constant(0, a.dtype)
    by_exponent = None if b.op is const else where(_is_zero(a) & (b >= 0), 0, y * log(a))
    return by_base, by_exponent


def _log_partial(x: Node, shifted: Any, edge: float) -> Any:
    return where(x < edge, NAN, 1 / shifted)


def _logaddexp_partials(y: Node, a: Node, b: Node) -> tuple[Any, Any]:
    eq, sigmoid = TABLE["eq"], TABLE["sigmoid"]
    def share(p: Node, q: Node) -> Any:
        return where(eq(y, -math.inf), 0, where(eq(p, q), 0.5, sigmoid(p - q)))
    return share(a, b), share(b, a)


def _hypot_share(x: Node, y: Node) -> Any:
    return where(_is_zero(y), 0, x / y)


def _atan2_partials(angle: Node, y: Node, x: Node) -> tuple[Any, Any]:
    h = TABLE["hypot"](y, x)
    return where(_is_zero(h), 0, x / h / h), where(_is_zero(h), 0, -(y / h) / h)


def _polygamma_infer(shapes: Shapes, x: ArrayType, order: int) -> ArrayType:
    if not is_float(x.dtype):
        raise TypeFault(f"`polygamma` takes floats, not {x.dtype}", kind="dtype")
    return x


def _power_code(a: machine.Expr, b: machine.Expr) -> machine.Expr:
    return powers.power(a, b) if is_float(a.dtype) else arithmetic.integer_power(a, b)


E = elementwise
NONE = lambda y, *xs: (None,) * len(xs)      # piecewise constant: the derivative is zero everywhere

# ---------------------------------------------------------------- arithmetic
add      = E("add",      "a b", "num", "`a + b`",  numpy=operator.add,     commutative=True, symbol=("+", 50), partials=lambda y, a, b: (1, 1),
           code=operator.add, ulp=(0.5, 0.5))
sub      = E("sub",      "a b", "num", "`a - b`",  numpy=operator.sub,     symbol=("-", 50), partials=lambda y, a, b: (1, -1),
           code=operator.sub, ulp=(0.5, 0.5))
mul      = E("mul",      "a b", "num", "`a * b`",  numpy=operator.mul,     commutative=True, symbol=("*", 60), partials=lambda y, a, b: (b, a),
           code=operator.mul, ulp=(0.5, 0.5))
div      = E("div",      "a b", "float", "`a / b`, true division", numpy=operator.truediv, symbol=("/", 60), partials=lambda y, a, b: (1 / b, -y / b),
           code=operator.truediv, ulp=(0.5, 0.5))
neg      = E("neg",      "x",   "same", "`-x`",    numpy=operator.neg,     symbol=("-", 70), partials=lambda y, x: (-1,),
           code=operator.neg, ulp=(0, 0))
floordiv = E("floordiv", "a b", "num", "`a // b`, rounded down; integer division by zero is an error", numpy=_floordiv, symbol=("//", 60), partials=NONE,
           code=arithmetic.floor_division, fault=arithmetic.division_fault, ulp=(0, 0))
mod      = E("mod",      "a b", "num", "`a % b`, with the sign of `b`", numpy=_mod, symbol=("%", 60), partials=lambda y, a, b: (1, -TABLE["floor"](a / b)),
           code=arithmetic.floor_remainder, fault=arithmetic.division_fault, ulp=(0, 0))
pow      = E("pow",      "a b", "num", "`a ** b`; `x ** 0` is 1 with gradient 0", numpy=_pow, symbol=("**", 80), partials=_pow_partials, domain=(0.2, 3.0),
           code=_power_code, fault=arithmetic.power_fault, ulp=(2, 2))

# ---------------------------------------------------------------- comparison and logic
eq   = E("eq",  "a b", "compare", "`a == b`", numpy=operator.eq, commutative=True, symbol=("==", 40), partials=NONE,
           code=lambda a, b: a.eq(b), ulp=(0, 0))
ne   = E("ne",  "a b", "compare", "`a != b`", numpy=operator.ne, commutative=True, symbol=("!=", 40), partials=NONE,
           code=lambda a, b: a.ne(b), ulp=(0, 0))
lt   = E("lt",  "a b", "compare", "`a < b`",  numpy=operator.lt, symbol=("<", 40), partials=NONE,
           code=operator.lt, ulp=(0, 0))
le   = E("le",  "a b", "compare", "`a <= b`", numpy=operator.le, symbol=("<=", 40), partials=NONE,
           code=operator.le, ulp=(0, 0))
gt   = E("gt",  "a b", "compare", "`a > b`",  numpy=operator.gt, symbol=(">", 40), partials=NONE,
           code=operator.gt, ulp=(0, 0))
ge   = E("ge",  "a b", "compare", "`a >= b`", numpy=operator.ge, symbol=(">=", 40), partials=NONE,
           code=operator.ge, ulp=(0, 0))
and_ = E("and", "a b", "logic", "`a and b`, element-wise", numpy=np.logical_and, commutative=True, symbol=("and", 20), partials=NONE,
           code=operator.and_, ulp=(0, 0))
or_  = E("or",  "a b", "logic", "`a or b`, element-wise",  numpy=np.logical_or, commutative=True, symbol=("or", 10), partials=NONE,
           code=operator.or_, ulp=(0, 0))
not_ = E("not", "x",   "logic", "`not x`, element-wise",   numpy=np.logical_not, symbol=("not", 30), partials=NONE,
           code=operator.invert, ulp=(0, 0))
select = E("where", "condition a b", "select", "`a` where the condition holds, else `b`; the branch not taken can make no nan, inf or fault, in the value or in a derivative",
           numpy=_where, surface=True, partials=lambda y, c, a, b: (None, Gate(c), Gate(~c)),
           code=machine.select, ulp=(0, 0))
isnan    = E("isnan",    "x", "test", "Whether `x` is nan.", numpy=np.isnan, surface=True, partials=NONE,
           code=formats.isnan, ulp=(0, 0))
isfinite = E("isfinite", "x", "test", "Whether `x` is neither nan nor infinite.", numpy=np.isfinite, surface=True, partials=NONE,
           code=arithmetic.isfinite, ulp=(0, 0))

# ---------------------------------------------------------------- exponentials and logarithms
exp   = E("exp",   "x", "float", "e to the `x`.",  numpy=np.exp,   surface=True, partials=lambda y, x: (y,),
           code=exponential.exp, ulp=(1.1, 1.1))
expm1 = E("expm1", "x", "float", "`exp(x) - 1`, exact near 0.", numpy=np.expm1, surface=True, partials=lambda y, x: (exp(x),),
           code=exponential.expm1, ulp=(1.6, 2.1))
log   = E("log",   "x", "float", "Natural logarithm.", numpy=np.log, surface=True, domain=(0.1, 5.0), partials=lambda y, x: (_log_partial(x, x, 0),),
           code=exponential.log, ulp=(0.9, 0.9))
log1p = E("log1p", "x", "float", "`log(1 + x)`, exact near 0.", numpy=np.log1p, surface=True, domain=(-0.9, 5.0), partials=lambda y, x: (_log_partial(x, 1 + x, -1),),
           code=exponential.log1p, ulp=(1.5, 1.5))
logaddexp = E("logaddexp", "a b", "float", "`log(exp(a) + exp(b))` without overflow.", numpy=np.logaddexp, surface=True, commutative=True, partials=_logaddexp_partials,
           code=exponential.logaddexp, ulp=(1.8, 1.8))
xlogy = E("xlogy", "x y", "float", "`x * log(y)`, and 0 where `x` is 0 (unless `y` is nan).", numpy=special("xlogy"), surface=True, domain=(0.1, 4.0),
          partials=lambda r, x, y: (log(y), Gate(ne(x, 0), x / y)),
           code=exponential.xlogy, ulp=(2.5, 2.5))
xlog1py = E("xlog1py", "x y", "float", "`x * log(1 + y)`, and 0 where `x` is 0 (unless `y` is nan).", numpy=special("xlog1py"), domain=(0.1, 4.0),
            partials=lambda r, x, y: (log1p(y), Gate(ne(x, 0), x / (1 + y))),
           code=exponential.xlog1py, ulp=(3.5, 3.5))
xmul = E("xmul", "x y", "float", "`x * y`, and 0 where `x` is 0 (unless `y` is nan).", numpy=lambda x, y: np.where((x == 0) & ~np.isnan(y), x.dtype.type(0), x * y)[()],
         partials=lambda r, x, y: (y, Gate(ne(x, 0), x)),
           code=exponential.xmul, ulp=(0.5, 0.5))

# ---------------------------------------------------------------- powers and signs
sqrt  = E("sqrt",  "x", "float", "Square root.", numpy=np.sqrt, surface=True, domain=(0.1, 5.0), partials=lambda y, x: (0.5 / y,),
           code=formats.square_root, ulp=(0.5, 0.5))
cbrt  = E("cbrt",  "x", "float", "Cube root, of negative numbers too.", numpy=np.cbrt, surface=True, partials=lambda y, x: (1 / (3 * (y * y)),),
           code=powers.cbrt, ulp=(0.6, 0.6))
sqr   = E("sqr",   "x", "same",  "`x * x`.", numpy=np.square, surface=True, partials=lambda y, x: (2 * x,),
           code=lambda x: x * x, ulp=(0.5, 0.5))
abs   = E("abs",   "x", "same",  "Absolute value; gradient 0 at 0.", numpy=np.abs, surface=True, partials=lambda y, x: (sign(x),),
           code=formats.absolute, ulp=(0, 0))
sign: Op = E("sign",  "x", "same",  "-1, 0 or 1.", numpy=np.sign, surface=True, partials=NONE,
           code=arithmetic.sign, ulp=(0, 0))
hypot = E("hypot", "a b", "float", "`sqrt(a*a + b*b)` without overflow; gradient 0 at the origin.", numpy=np.hypot, surface=True, commutative=True, partials=lambda y, a, b: (_hypot_share(a, y), _hypot_share(b, y)),
           code=powers.hypot, ulp=(0.6, 1))
floor = E("floor", "x", "same",  "Rounded down.", numpy=_whole(np.floor), surface=True, partials=NONE,
           code=lambda x: arithmetic.rounding("floor", x), ulp=(0, 0))
ceil  = E("ceil",  "x", "same",  "Rounded up.",   numpy=_whole(np.ceil),  surface=True, partials=NONE,
           code=lambda x: arithmetic.rounding("ceil", x), ulp=(0, 0))
round = E("round", "x", "same",  "Rounded to the nearest integer, halves to even.", numpy=_whole(np.rint), surface=True, partials=NONE,
           code=lambda x: arithmetic.rounding("rint", x), ulp=(0, 0))

# ---------------------------------------------------------------- trigonometric and hyperbolic
sin   = E("sin",   "x", "float", "Sine of `x` radians.",   numpy=np.sin, surface=True, partials=lambda y, x: (cos(x),),
           code=trigonometric.sin, ulp=(1.6, 1))
cos: Op = E("cos",   "x", "float", "Cosine of `x` radians.", numpy=np.cos, surface=True, partials=lambda y, x: (-sin(x),),
           code=trigonometric.cos, ulp=(1.6, 1))
tan   = E("tan",   "x", "float", "Tangent of `x` radians.", numpy=np.tan, surface=True, domain=(-1.2, 1.2), partials=lambda y, x: (1 + y * y,),
           code=trigonometric.tan, ulp=(3, 2.2))
asin  = E("asin",  "x", "float", "Inverse sine, in radians.",   numpy=np.arcsin, surface=True, domain=(-0.9, 0.9), partials=lambda y, x: (1 / sqrt((1 - x) * (1 + x)),),
           code=trigonometric.asin, ulp=(1.8, 1.8))
acos  = E("acos",  "x", "float", "Inverse cosine, in radians.", numpy=np.arccos, surface=True, domain=(-0.9, 0.9), partials=lambda y, x: (-1 / sqrt((1 - x) * (1 + x)),),
           code=trigonometric.acos, ulp=(1.5, 1.5))
atan  = E("atan",  "x", "float", "Inverse tangent, in radians.", numpy=np.arctan, surface=True, partials=lambda y, x: (1 / (1 + x * x),),
           code=trigonometric.atan, ulp=(2.3, 2.3))
atan2 = E("atan2", "y x", "float", "Angle of the point (x, y), in radians; gradient 0 at the origin.", numpy=np.arctan2, surface=True, partials=_atan2_partials,
           code=trigonometric.atan2, ulp=(2.3, 2.3))
sinh  = E("sinh",  "x", "float", "Hyperbolic sine.",    numpy=np.sinh, surface=True, partials=lambda y, x: (cosh(x),),
           code=exponential.sinh, ulp=(2.5, 2.5))
cosh: Op = E("cosh",  "x", "float", "Hyperbolic cosine.",  numpy=np.cosh, surface=True, partials=lambda y, x: (sinh(x),),
           code=exponential.cosh, ulp=(2, 2))
tanh  = E("tanh",  "x", "float", "Hyperbolic tangent.", numpy=np.tanh, surface=True, partials=lambda y, x: (1 - y * y,),
           code=exponential.tanh, ulp=(2, 2.2))

# ---------------------------------------------------------------- special functions
sigmoid: Op = E("sigmoid", "x", "float", "`1 / (1 + exp(-x))` without overflow.", numpy=_sigmoid, surface=True, partials=lambda y, x: (y * sigmoid(-x),),
           code=exponential.sigmoid, ulp=(2.3, 2.3))
erf     = E("erf",     "x", "float", "Error function.", numpy=special("erf"), surface=True, partials=lambda y, x: (TWO_OVER_ROOT_PI * exp(-(x * x)),),
           code=errorfunction.erf, ulp=(1.2, 1))
erfc    = E("erfc",    "x", "float", "`1 - erf(x)`, exact in the tail.", numpy=special("erfc"), surface=True, partials=lambda y, x: (-TWO_OVER_ROOT_PI * exp(-(x * x)),),
           code=errorfunction.erfc, ulp=(4.5, 4.5))
erfcx   = E("erfcx",   "x", "float", "`exp(x*x) * erfc(x)`.", numpy=special("erfcx"), partials=lambda y, x: (2 * x * y - TWO_OVER_ROOT_PI,),
           code=errorfunction.erfcx, ulp=(4, 6))
lgamma  = E("lgamma",  "x", "float", "Logarithm of the absolute value of the gamma function.", numpy=special("gammaln"), surface=True, domain=(0.2, 5.0), partials=lambda y, x: (digamma(x),),
           code=gammafunction.lgamma, ulp=(0.6, 5))
digamma: Op = E("digamma", "x", "float", "Derivative of `lgamma`.", numpy=special("digamma"), surface=True, domain=(0.2, 5.0), partials=lambda y, x: (polygamma(x, order=1),),
           code=gammafunction.digamma, ulp=(0.6, 10))
polygamma: Op = array("polygamma", "x", "The `order`-th derivative of `digamma`.", infer=_polygamma_infer, elementwise=True, batch=batch_same, domain=(0.2, 5.0),
                  numpy=lambda x, order: special("polygamma")(order, x).astype(x.dtype)[()], partials=lambda y, x, order: (polygamma(x, order=order + 1),),
           code=gammafunction.polygamma, ulp=(0.6, 10))

# ---------------------------------------------------------------- extremes
maximum = E("maximum", "a b", "num", "The larger, nan if either is; a tie shares the gradient, a tie with a literal gives 0.", numpy=numpy_maximum, surface=True, commutative=True, partials=lambda y, a, b: _one_sided(y, a, b, gt),
           code=machine.maximum, ulp=(0, 0))
minimum = E("minimum", "a b", "num", "The smaller, nan if either is; a tie shares the gradient, a tie with a literal gives 0.", numpy=_minimum, surface=True, commutative=True, partials=lambda y, a, b: _one_sided(y, a, b, lt),
           code=machine.minimum, ulp=(0, 0))
clip    = E("clip", "x low high", "num", "`x` held between `low` and `high`; gradient 1 at the bounds.", numpy=_clip, surface=True,
            partials=lambda y, x, low, high: (Gate(~((x < low) | (x > high))), Gate((x < low) & (low <= high)), Gate((x > high) | (low > high))),
           code=arithmetic.clip, ulp=(0, 0))

# ---------------------------------------------------------------- conversion and marks
def _cast_infer(shapes: Shapes, x: ArrayType, dtype: Any) -> ArrayType:
    return x.with_dtype(dtype)


cast_op   = array("cast", "x", "`x` in another dtype; `int` of nan or infinity is an error.", infer=_cast_infer, numpy=_cast, batch=batch_same, elementwise=True,
                  partials=lambda y, x, dtype: (None if is_int(x.dtype) or x.dtype == "bool" else 1,),
           code=arithmetic.convert, fault=arithmetic.convert_fault, ulp=(0.5, 0.5))
stop_grad = array("stop_grad", "x", "`x` itself, taken as a constant by derivatives.", infer=lambda shapes, x: x, numpy=lambda x: x, batch=batch_same, elementwise=True, partials=NONE,
           code=lambda x: x, ulp=(0, 0))
alias     = array("alias", "x", "A name for `x`; a derivative with respect to the name takes it as independent.", infer=lambda shapes, x, name: x, numpy=lambda x, name: x, batch=batch_same,
                  elementwise=True, partials=lambda y, x, name: (1,),
           code=lambda x, name: x, ulp=(0, 0))
