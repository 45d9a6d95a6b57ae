"""The rules: one line each, read as mathematics.

EXACT rules keep every bit of every result, nan and signed zeros included.  STABLE rules may replace a nan or an infinity
that overflow or cancellation on the way made by the true real value; never where the inputs were nan or infinite, never
outside the real domain.  What is not here is not done: `x * 0` is not 0, `x - x` is not 0, `x + 0` is not `x` at -0.
"""
from __future__ import annotations

import math
from typing import Any

from dsl.ir.node import Node
from dsl.ir.types import is_float
from dsl.ops.composite import log1mexp, log_erfc, logit, softplus
from dsl.ops.reduction import log_softmax, logsumexp, max_, mean, min_, norm, prod, softmax, std, sum_, var
from dsl.ops.scalar import abs as absolute
from dsl.ops.scalar import (
    alias,
    const,
    cosh,
    erf,
    erfc,
    exp,
    expm1,
    hypot,
    isfinite,
    isnan,
    log,
    log1p,
    logaddexp,
    neg,
    not_,
    pow,
    select,
    sigmoid,
    sinh,
    sqr,
    sqrt,
    tanh,
    xlog1py,
    xlogy,
    xmul,
)
from dsl.ops.shape import expand_op, gather, reshape, size_float, slice_op, sum_to_op, transpose
from dsl.passes.rewrite import RuleSet, rule_set

INF, NAN = math.inf, math.nan


def floating(x: Node, **_: Any) -> bool:
    return is_float(x.dtype)


def no_change(x: Node, shape: Any, **_: Any) -> bool:
    return bool(x.shape == shape)


def nothing(axes: Any, **_: Any) -> bool:
    return not axes


def whole(x: Node, axes: Any, **_: Any) -> bool:
    return len(axes) == x.rank > 0


def positive_literal(c: Node, **_: Any) -> bool:
    return c.op is const and 0 < c.attr("literal").value < INF


def count(x: Node, axes: Any) -> Node:
    """How many elements a reduction is over, as a float."""
    return size_float([x.shape[a] for a in axes], x.dtype)


def identity(axes: Any, **_: Any) -> bool:
    return bool(axes == tuple(range(-len(axes), 0)))


EXACT = rule_set(
    "EXACT",
    neg_neg        = lambda x: (neg(neg(x)),               x),
    times_one      = lambda x: (x * 1,                     x),
    over_one       = lambda x: (x / 1,                     x),
    minus_zero     = lambda x: (x - 0,                     x),
    plus_negative  = lambda x, y: (x + (-y),               x - y),
    minus_negative = lambda x, y: (x - (-y),               x + y),
    times_minus_one = lambda x: (x * -1,                   -x),
    square         = lambda x: (x * x,                     sqr(x)),
    power_one      = lambda x: (pow(x, 1),                 x),
    power_two      = lambda x: (pow(x, 2),                 sqr(x)),
    power_minus_one = lambda x: (pow(x, -1),               1 / x, floating),
    square_neg     = lambda x: (sqr(-x),                   sqr(x)),
    square_abs     = lambda x: (sqr(absolute(x)),          sqr(x)),
    abs_neg        = lambda x: (absolute(-x),              absolute(x)),
    abs_abs        = lambda x: (absolute(absolute(x)),     absolute(x)),
    not_not        = lambda x: (not_(not_(x)),             x),
    where_not      = lambda c, x, y: (select(not_(c), x, y), select(c, y, x)),
    where_same     = lambda c, x: (select(c, x, x),        x, lambda c, x: c.shape == x.shape or not c.shape),
    reshape_same   = lambda x, shape: (reshape(x, shape=shape), x, no_change),
    reshape_twice  = lambda x, inner, shape: (reshape(reshape(x, shape=inner), shape=shape), reshape(x, shape=shape)),
    transpose_same = lambda x, axes: (transpose(x, axes=axes), x, identity),
    expand_same    = lambda x, shape: (expand_op(x, shape=shape), x, no_change),
    sum_to_same    = lambda x, shape: (sum_to_op(x, shape=shape), x, no_change),
    sum_nothing    = lambda x, axes, keep: (sum_(x, axes=axes, keepdims=keep),  x, nothing),
    mean_nothing   = lambda x, axes, keep: (mean(x, axes=axes, keepdims=keep),  x, nothing),
    max_nothing    = lambda x, axes, keep: (max_(x, axes=axes, keepdims=keep),  x, nothing),
    min_nothing    = lambda x, axes, keep: (min_(x, axes=axes, keepdims=keep),  x, nothing),
    prod_nothing   = lambda x, axes, keep: (prod(x, axes=axes, keepdims=keep),  x, nothing),
    log_reshape    = lambda x, shape: (log(reshape(x, shape=shape)),    reshape(log(x), shape=shape)),
    log1p_reshape  = lambda x, shape: (log1p(reshape(x, shape=shape)),  reshape(log1p(x), shape=shape)),
    neg_reshape    = lambda x, shape: (neg(reshape(x, shape=shape)),    reshape(neg(x), shape=shape)),
    sqrt_reshape   = lambda x, shape: (sqrt(reshape(x, shape=shape)),   reshape(sqrt(x), shape=shape)),
    sum_kept       = lambda x, axes, shape: (reshape(sum_(x, axes=axes, keepdims=False), shape=shape), sum_(x, axes=axes, keepdims=True)),
    max_kept       = lambda x, axes, shape: (reshape(max_(x, axes=axes, keepdims=False), shape=shape), max_(x, axes=axes, keepdims=True)),
    sigmoid_slice  = lambda x, items: (slice_op(sigmoid(x), items=items),   sigmoid(slice_op(x, items=items))),
    sigmoid_pick   = lambda x, i: (gather(sigmoid(x), i),                   sigmoid(gather(x, i))),
    sigmoid_pick2  = lambda x, i, j: (gather(sigmoid(x), i, j),             sigmoid(gather(x, i, j))),
    log_transpose  = lambda x, axes: (log(transpose(x, axes=axes)),     transpose(log(x), axes=axes)),
    log1p_transpose = lambda x, axes: (log1p(transpose(x, axes=axes)),  transpose(log1p(x), axes=axes)),
)

STABLE = rule_set(
    "STABLE",
    log1p          = lambda x: (log(1 + x),                log1p(x)),
    log1p_neg      = lambda x: (log(1 - x),                log1p(-x)),
    expm1          = lambda x: (exp(x) - 1,                expm1(x)),
    expm1_neg      = lambda x: (1 - exp(x),                -expm1(x)),
    log_exp        = lambda x: (log(exp(x)),               x),
    log_expm1      = lambda x: (log(expm1(x)),             x + log1mexp(-x)),
    softplus       = lambda x: (log1p(exp(x)),             softplus(x)),
    log1mexp       = lambda x: (log1p(-exp(x)),            log1mexp(x)),
    log1mexp_expm1 = lambda x: (log(-expm1(x)),            log1mexp(x)),
    logaddexp      = lambda x, y: (log(exp(x) + exp(y)),   logaddexp(x, y)),
    logaddexp3     = lambda x, y, z: (log(exp(x) + exp(y) + exp(z)), logaddexp(logaddexp(x, y), z)),
    sigmoid        = lambda x: (1 / (1 + exp(-x)),         sigmoid(x)),
    sigmoid_neg    = lambda x: (1 / (1 + exp(x)),          sigmoid(-x)),
    sigmoid_exp    = lambda x: (exp(x) / (1 + exp(x)),     select(x < INF, sigmoid(x), NAN * x)),
    one_minus_sigmoid = lambda x: (1 - sigmoid(x),         sigmoid(-x)),
    log_sigmoid    = lambda x: (log(sigmoid(x)),           -softplus(-x)),
    log1m_sigmoid  = lambda x: (log1p(-sigmoid(x)),        -softplus(x)),
    logit_sigmoid  = lambda x: (logit(sigmoid(x)),         x),
    exp_neg_softplus = lambda x: (exp(-softplus(x)),       sigmoid(-x)),
    tanh           = lambda x: ((exp(x) - exp(-x)) / (exp(x) + exp(-x)), select(isfinite(x), tanh(x), NAN * x)),
    tanh_ratio     = lambda x: (sinh(x) / cosh(x),         select(isfinite(x), tanh(x), NAN * x)),
    erfc           = lambda x: (1 - erf(x),                erfc(x)),
    erfc_neg       = lambda x: (1 + erf(x),                erfc(-x)),
    erf            = lambda x: (1 - erfc(x),               erf(x)),
    log_erfc       = lambda x: (log(erfc(x)),              log_erfc(x)),
    log_erfc_times = lambda x, c: (log(c * erfc(x)),       log(c) + log_erfc(x), positive_literal),
    log_erfc_over  = lambda x, c: (log(erfc(x) / c),       log_erfc(x) - log(c), positive_literal),
    xlogy_exp      = lambda x, y: (xlogy(x, exp(y)),       xmul(x, y)),
    xlog1py        = lambda x, y: (xlogy(x, 1 + y),        xlog1py(x, y)),
    xlog1py_neg    = lambda x, y: (xlogy(x, 1 - y),        xlog1py(x, -y)),
    xlogy_sigmoid  = lambda x, y: (xlogy(x, sigmoid(y)),   xmul(x, -softplus(-y))),
    xlogy_softmax  = lambda x, y, axes: (xlogy(x, softmax(y, axes=axes)), xmul(x, log_softmax(y, axes=axes))),
    abs            = lambda x: (sqrt(sqr(x)),              absolute(x)),
    abs_power      = lambda x: (pow(sqr(x), 0.5),          absolute(x)),
    hypot          = lambda x, y: (sqrt(sqr(x) + sqr(y)),  select(isnan(x), x, select(isnan(y), y, hypot(x, y)))),
    norm           = lambda x, axes, keep: (sqrt(sum_(sqr(x), axes=axes, keepdims=keep)),     norm(x, axes=axes, keepdims=keep)),
    norm_power     = lambda x, axes, keep: (pow(sum_(sqr(x), axes=axes, keepdims=keep), 0.5), norm(x, axes=axes, keepdims=keep)),
    root_mean_square = lambda x, axes, keep: (sqrt(mean(sqr(x), axes=axes, keepdims=keep)),   lambda x, axes, keep: norm(x, axes=axes, keepdims=keep) / sqrt(count(x, axes))),
    std            = lambda x, axes, keep: (sqrt(var(x, axes=axes, keepdims=keep)),           std(x, axes=axes, keepdims=keep)),
    std_ddof       = lambda x, axes, keep, ddof: (sqrt(var(x, axes=axes, keepdims=keep, ddof=ddof)), std(x, axes=axes, keepdims=keep, ddof=ddof)),
    logsumexp      = lambda x, axes, keep: (log(sum_(exp(x), axes=axes, keepdims=keep)),      logsumexp(x, axes=axes, keepdims=keep)),
    log_mean_exp   = lambda x, axes, keep: (log(mean(exp(x), axes=axes, keepdims=keep)),      lambda x, axes, keep: logsumexp(x, axes=axes, keepdims=keep) - log(count(x, axes))),
    softmax        = lambda x, axes: (exp(x) / sum_(exp(x), axes=axes, keepdims=True),        softmax(x, axes=axes)),
    softmax_whole  = lambda x, axes: (exp(x) / sum_(exp(x), axes=axes, keepdims=False),       softmax(x, axes=axes), whole),
    log_softmax    = lambda x, axes: (log(softmax(x, axes=axes)),                             log_softmax(x, axes=axes)),
    log_softmax_difference = lambda x, axes: (x - logsumexp(x, axes=axes, keepdims=True),     log_softmax(x, axes=axes)),
    log_softmax_whole = lambda x, axes: (x - logsumexp(x, axes=axes, keepdims=False),         log_softmax(x, axes=axes), whole),
    exp_log_softmax = lambda x, axes: (exp(log_softmax(x, axes=axes)),                        softmax(x, axes=axes)),
    log_softmax_slice = lambda x, axes, items: (log(slice_op(softmax(x, axes=axes), items=items)), slice_op(log_softmax(x, axes=axes), items=items)),
    log_softmax_pick  = lambda x, axes, i: (log(gather(softmax(x, axes=axes), i)),            gather(log_softmax(x, axes=axes), i)),
    log_softmax_pick2 = lambda x, axes, i, j: (log(gather(softmax(x, axes=axes), i, j)),      gather(log_softmax(x, axes=axes), i, j)),
)

STRIP = rule_set("EXACT", alias=lambda x, name: (alias(x, name=name), x))
RULE_SETS: tuple[RuleSet, ...] = (EXACT, STABLE)
