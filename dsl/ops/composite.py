"""Element-wise ops defined by simpler ones: one row each.

They stay whole until after the last rewrite, so that rules, gradients and `show` see them as such.  `means` is the
definition; `numpy` computes the same without overflow or cancellation; a derivative that `means` gives well is not
written again.
"""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from dsl.ir.node import TABLE
from dsl.machine import errorfunction, exponential
from dsl.ops.scalar import abs as absolute
from dsl.ops.scalar import erfc, erfcx, exp, expm1, log, log1p, numpy_maximum, select, sigmoid
from dsl.ops.scalar import maximum as greater
from dsl.ops.table import Gate, elementwise, special

E = elementwise
ROOT_HALF = math.sqrt(0.5)
TWO_OVER_ROOT_PI = 2 / math.sqrt(math.pi)


def _log1mexp(x: Any) -> Any:
    """Maechler (2012), "Accurately computing log(1 - exp(-|a|))": switch at -log 2."""
    return np.where(x > -math.log(2), np.log(-np.expm1(x)), np.log1p(-np.exp(x))).astype(x.dtype)[()]


def _log_erfc(x: Any) -> Any:
    """By `erfcx` where `erfc` may underflow, else by `erf`, which is exact near 0."""
    large = np.maximum(x, 0)
    return np.where(x > 0.5, np.log(special("erfcx")(large)) - large * large, np.log1p(-special("erf")(x))).astype(x.dtype)[()]


def _softplus(x: Any) -> Any:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


# ---------------------------------------------------------------- activations
relu       = E("relu",       "x", "same",  "`maximum(x, 0)`; gradient 0 at 0.", numpy=lambda x: numpy_maximum(x, x.dtype.type(0)), surface=True, means=lambda x: greater(x, 0), partials=lambda y, x: (Gate(x > 0),))
leaky_relu = E("leaky_relu", "x", "float", "`x` where positive, else `0.01 * x`.", numpy=lambda x: np.where(x > 0, x, x.dtype.type(0.01) * x)[()], surface=True, means=lambda x: select(x > 0, x, 0.01 * x))
softplus   = E("softplus",   "x", "float", "`log(1 + exp(x))` without overflow.", numpy=_softplus, surface=True, means=lambda x: greater(x, 0) + log1p(exp(-absolute(x))), partials=lambda y, x: (sigmoid(x),),
           code=exponential.softplus, ulp=(1.8, 1.8))
gelu       = E("gelu",       "x", "float", "`x` times the normal distribution function (the erf form).", numpy=lambda x: 0.5 * x * special("erfc")(-ROOT_HALF * x), surface=True, means=lambda x: 0.5 * x * erfc(-ROOT_HALF * x),
           code=errorfunction.gelu, ulp=(5, 6))
softsign   = E("softsign",   "x", "float", "`x / (1 + abs(x))`.", numpy=lambda x: x / (1 + np.abs(x)), surface=True, means=lambda x: x / (1 + absolute(x)))
silu       = E("silu",       "x", "float", "`x * sigmoid(x)`.", numpy=lambda x: x * TABLE["sigmoid"].numpy(x), surface=True, means=lambda x: x * sigmoid(x))  # type: ignore[misc]
logit      = E("logit",      "p", "float", "`log(p / (1 - p))`, the inverse of `sigmoid`.", numpy=special("logit"), surface=True, domain=(0.05, 0.95), means=lambda p: log(p) - log1p(-p),
           code=exponential.logit, ulp=(4.2, 4.2))

# ---------------------------------------------------------------- what the stabilising rules write
log1mexp = E("log1mexp", "x", "float", "`log(1 - exp(x))` for negative `x`.", numpy=_log1mexp, domain=(-4.0, -0.1), means=lambda x: log(-expm1(x)), partials=lambda y, x: (select(x > 0, math.nan, -1 / absolute(expm1(-x))),),
           code=exponential.log1mexp, ulp=(2.3, 2.5))
log_erfc = E("log_erfc", "x", "float", "`log(erfc(x))` without underflow.", numpy=_log_erfc, means=lambda x: log(erfc(x)), partials=lambda y, x: (-TWO_OVER_ROOT_PI / erfcx(x),),
           code=errorfunction.log_erfc, ulp=(4, 4))
