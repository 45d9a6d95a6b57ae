"""Derivatives as ops: one row each.

They stand for themselves until the pass `differentiate` writes them out, after the expression they differentiate has
been simplified and stabilised.  `x` is a name (an input, a shared variable, a `let`) inside `f`, taken as independent.
"""
from __future__ import annotations

from typing import Any

from dsl.ir.node import Node, Op, everything, make
from dsl.ir.types import ArrayType, Shapes, TypeFault, is_float
from dsl.ops.scalar import alias
from dsl.ops.shape import full
from dsl.ops.table import array, constant


def _check(f: ArrayType, x: ArrayType) -> None:
    if not is_float(f.dtype):
        raise TypeFault(f"a derivative needs a float value, not {f.dtype}", kind="dtype")
    if not is_float(x.dtype):
        raise TypeFault(f"a derivative is taken with respect to floats, not {x.dtype}", kind="dtype",
                        help="write its numbers with a point (`[1.0, 2.0]`), or convert it with `float(x)`")


def _vjp_infer(shapes: Shapes, f: ArrayType, x: ArrayType, v: ArrayType) -> ArrayType:
    _check(f, x)
    shapes.broadcast(f.shape, v.shape)
    return x


def _jac_infer(shapes: Shapes, f: ArrayType, x: ArrayType) -> ArrayType:
    _check(f, x)
    return f.with_shape([*f.shape, *x.shape])


def _jvp_infer(shapes: Shapes, f: ArrayType, x: ArrayType, v: ArrayType) -> ArrayType:
    _check(f, x)
    shapes.broadcast(x.shape, v.shape)
    return f


vjp = array("vjp", "f x v", "`v` times the Jacobian of `f` with respect to the name `x`; has the shape of `x`.", infer=_vjp_infer)
jac = array("jac", "f x", "The Jacobian of `f` with respect to the name `x`: the shape of `f`, then that of `x`.", infer=_jac_infer)
jvp = array("jvp", "f x v", "The Jacobian of `f` with respect to the name `x`, times `v`; has the shape of `f`.", infer=_jvp_infer)
DERIVATIVES: tuple[Op, ...] = (vjp, jac, jvp)


def gradient(f: Node, x: Node) -> Node:
    """The gradient of a scalar, as a node."""
    if f.rank:
        raise TypeFault(f"a gradient is of a scalar, not of {f.type}", kind="rank", dims=f.shape,
                        help="reduce it (`mean(…)`, `sum(…)`), or take `jac`")
    return make(vjp, [f, x, constant(1, f.dtype)])


def hessian(f: Node, x: Node) -> Node:
    """The Hessian of a scalar, as a node."""
    return make(jac, [gradient(f, x), x])


def hvp(f: Node, x: Node, v: Node) -> Node:
    """The Hessian of a scalar times `v`; it is symmetric, so a vjp of the gradient."""
    return make(vjp, [gradient(f, x), x, v])


def double_vjp(f: Node, x: Node, v: Node) -> Node:
    """`jvp` by two reverse passes: vjp is linear in its vector u, and its adjoint in u is the Jacobian times `v`."""
    u = make(alias, [full(0, f.shape, f.dtype)], {"name": f"jvp {id(f)}"})
    return make(vjp, [make(vjp, [f, x, u]), u, v])


def contains_derivatives(roots: Any) -> bool:
    return any(node.op in DERIVATIVES for node in everything(roots))
