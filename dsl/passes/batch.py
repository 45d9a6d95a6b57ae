"""Lifting a graph over one more leading axis.

In: graphs, and for some of their leaves the same values with a leading axis.  Out: the graphs with that axis, as if they
had been evaluated once a row.  This is the rank rule, and what Jacobians are made of.  Attributes count axes from the
right, so most ops are lifted unchanged; a row's `batch` says how.  Random draws are made once a row.  A loop is lifted as a
whole: what it carries gets the axis, after the axis of the steps in its sequences and stacks.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from dsl.ir.node import Node, Origins, everything, inner_graphs, make, reaches, remade, topological
from dsl.ir.types import Dim, product
from dsl.ops.calculus import DERIVATIVES, jac, vjp
from dsl.ops.control import LOOPS, Loop, closed, iterate, opened, same_loop
from dsl.ops.leaves import leaf
from dsl.ops.random import draw
from dsl.ops.reduction import any_
from dsl.ops.scalar import alias, and_, select
from dsl.ops.shape import expand, eye, move_axis, reshape
from dsl.ops.table import constant, lift_to_rank


def lift(roots: Sequence[Node], mapped: Mapping[Node, Node], length: Dim, origins: Origins | None = None,
         draws: bool = True) -> tuple[list[Node], list[bool]]:
    """The graphs over a leading axis of `length`, and which of them have it.

    `mapped` gives, for leaves or aliases, the value with the axis; what depends on none of them stays as it is."""
    done: dict[Node, tuple[Node, bool]] = {node: (value, True) for node, value in mapped.items()}
    loops: dict[tuple[object, ...], LiftedLoop] = {}
    order = topological(roots)
    for node in order:
        if node in done:
            continue
        args = [done[a][0] for a in node.args]
        flags = [done[a][1] for a in node.args]
        if node.op in DERIVATIVES and any(flags):
            done[node] = _lift_derivative(node, mapped, length, origins, draws), True
        elif node.op in LOOPS and (any(flags) or (draws and any(n.op is draw for n in everything(inner_graphs(node))))):
            key = same_loop(node)
            if key not in loops:
                asked = {n.attr("output")[1] for n in order if n.op is node.op and same_loop(n) == key}
                loops[key] = LiftedLoop(opened(node), args, flags, length, origins, draws, asked)
            done[node] = loops[key].output(*node.attr("output"))
        elif node.op is draw and draws and node.attr("kind") != "permutation":
            done[node] = draw.batch(draw, args, flags, length, **dict(node.attrs)), True      # type: ignore[misc]
        elif any(flags):
            assert node.op.batch is not None, f"no batching rule for {node.op}"
            done[node] = node.op.batch(node.op, args, flags, length, **dict(node.attrs)), True
        else:
            done[node] = remade(node, tuple(args)), False        # an output of a lifted loop may be without the axis
        if origins is not None:
            origins.inherit(done[node][0], node)
    return [done[r][0] for r in roots], [done[r][1] for r in roots]


class LiftedLoop:
    """A loop over a leading axis.

    A carried value has the axis if its start or anything its next value depends on does.  Under a condition that has it, every
    row goes its own number of turns: a row that is done keeps its values while others go on.  But the number of the turn, by which
    draws go, is the loop's: a value that no result is `asked` of goes on for all rows, and a row that is done stays so."""

    def __init__(self, loop: Loop, args: Sequence[Node], flags: Sequence[bool], length: Dim, origins: Origins | None, draws: bool,
                 asked: Set[int]) -> None:
        count, given, flags = loop.carried, flags, list(flags)
        drawn = loop.op is iterate and any(n.op is draw for n in everything(loop.body))
        while True:
            rows = [leaf(p.attr("kind"), f"rows {i}", p.type.with_shape((length, *p.shape))) if flag else p
                    for i, (p, flag) in enumerate(zip(loop.parameters, flags, strict=True))]
            mapped = {p: r for p, r, flag in zip(loop.parameters, rows, flags, strict=True) if flag}
            body, lifted = lift(loop.body, mapped, length, origins, draws)
            if loop.op is iterate and lifted[-1]:
                lifted[:count] = [own or not drawn or k in asked for k, own in enumerate(lifted[:count])]
            if all(flags[k] or not lifted[k] for k in range(count)):
                break
            flags[:count] = [a or b for a, b in zip(flags, lifted[:count], strict=False)]
        body[:count] = [with_axis(b, has_axis, length) if flag else b
                        for b, has_axis, flag in zip(body[:count], lifted, flags, strict=False)]
        again = False                                            # the condition could hold again for a row that is done
        if loop.op is iterate and lifted[-1]:
            going, shared = body[-1], [row for row, flag in zip(rows[:count], flags, strict=False) if not flag]
            again = going in reaches([going], shared)
            if again:
                before = leaf("carry", "rows going", going.type)
                going = and_(before, going)
            body[:count] = [select(lift_to_rank(going, new.rank - 1), new, old) if flag else new
                            for new, old, flag in zip(body[:count], rows, flags, strict=False)]
            body[-1] = any_(going, axes=(-1,), keepdims=False)
        operands = []
        for i, (value, had, flag) in enumerate(zip(args, given, flags, strict=True)):
            if count <= i < count + loop.sequences:
                operands.append(move_axis(value, -value.rank, 1 - value.rank) if flag else value)
            else:
                operands.append(with_axis(value, had, length) if flag else value)
        if again:
            rows.insert(count, before)
            body.insert(count, going)
            operands.insert(count, expand(constant(True, "bool"), (length,)))
            count += 1
        self.flags, self.kept = flags, lifted
        self.loop = closed(Loop(loop.op, tuple(operands), tuple(rows), tuple(body), count, loop.sequences, loop.limits), origins)

    def output(self, kind: str, place: int) -> tuple[Node, bool]:
        node = self.loop.output(kind, place)
        has_axis = self.kept[self.loop.carried + place] if kind == "each" else self.flags[place]
        return move_axis(node, -node.rank, 1 - node.rank) if has_axis and kind != "last" else node, has_axis


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
