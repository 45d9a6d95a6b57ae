"""Lifting a graph over one more leading axis.

In: graphs, and for some of their leaves the same values with a leading axis.  Out: the graphs with that axis, as if they
had been evaluated once a row.  This is the rank rule, and what Jacobians are made of.  Attributes count axes from the
right, so most ops are lifted unchanged; a row's `batch` says how.  Random draws are made once a row.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence

from dsl.ir.node import Node, Origins, make, topological
from dsl.ir.types import Dim, product
from dsl.ops.calculus import DERIVATIVES, jac, vjp
from dsl.ops.leaves import leaf
from dsl.ops.random import draw
from dsl.ops.scalar import alias
from dsl.ops.shape import expand, eye, reshape


def lift(roots: Sequence[Node], mapped: Mapping[Node, Node], length: Dim, origins: Origins | None = None,
         draws: bool = True) -> tuple[list[Node], list[bool]]:
    """The graphs over a leading axis of `length`, and which of them have it.

    `mapped` gives, for leaves or aliases, the value with the axis; what depends on none of them stays as it is."""
    done: dict[Node, tuple[Node, bool]] = {node: (value, True) for node, value in mapped.items()}
    for node in topological(roots):
        if node in done:
            continue
        args = [done[a][0] for a in node.args]
        flags = [done[a][1] for a in node.args]
        if node.op in DERIVATIVES and any(flags):
            done[node] = _lift_derivative(node, mapped, length, origins, draws), True
        elif node.op is draw and draws and node.attr("kind") != "permutation":
            done[node] = draw.batch(draw, args, flags, length, **dict(node.attrs)), True      # type: ignore[misc]
        elif any(flags):
            assert node.op.batch is not None, f"no batching rule for {node.op}"
            done[node] = node.op.batch(node.op, args, flags, length, **dict(node.attrs)), True
        else:
            done[node] = node, False
        if origins is not None:
            origins.inherit(done[node][0], node)
    return [done[r][0] for r in roots], [done[r][1] for r in roots]


def with_axis(node: Node, has_axis: bool, length: Dim) -> Node:
    """A lifted value, repeated along the axis if it does not have it."""
    return node if has_axis else expand(node, (length, *node.shape))


def _lift_derivative(node: Node, mapped: Mapping[Node, Node], length: Dim, origins: Origins | None, draws: bool) -> Node:
    """Row i of the lifted function depends on row i of a repeated `x` only, so one derivative serves all rows."""
    if node.op is jac:
        (lifted,), (has_axis,) = lift([jacobian_by_rows(node)], mapped, length, origins, draws)
        return with_axis(lifted, has_axis, length)
    f, x, v = node.args
    (value, vector), flags = lift([x, v], mapped, length, origins, draws)
    rows = make(alias, [with_axis(value, flags[0], length)], {"name": dict(x.attrs).get("name", "x")})
    (function,), (has_axis,) = lift([f], {**mapped, x: rows}, length, origins, draws)
    function = with_axis(function, has_axis, length)
    if node.op is vjp:
        shape = (length, *f.shape)
        full = expand(vector, shape) if not flags[1] else \
            expand(reshape(vector, shape=(length, *(Dim.of(1),) * (f.rank - v.rank), *v.shape)), shape)
        return make(vjp, [function, rows, full])
    return make(node.op, [function, rows, with_axis(vector, flags[1], length)])


def jacobian_by_rows(node: Node) -> Node:
    """`jac(f, x)` as one vjp a unit vector of `f`'s space."""
    f, x = node.args
    return rows_over_basis(make(vjp, [f, x, unit_vector(f)]), f, x)


def unit_vector(f: Node) -> Node:
    """The leaf that stands for a unit vector of the space of `f`."""
    return leaf("value", "unit", f.type)


def rows_over_basis(row: Node, f: Node, x: Node) -> Node:
    """A vjp against `unit_vector(f)`, for every unit vector: the Jacobian."""
    count = product(f.shape)
    basis = reshape(eye(count, count, f.dtype), shape=(count, *f.shape))
    (rows,), (has_axis,) = lift([row], {unit_vector(f): basis}, count, draws=False)
    result: Node = reshape(with_axis(rows, has_axis, count), shape=(*f.shape, *x.shape))
    return result
