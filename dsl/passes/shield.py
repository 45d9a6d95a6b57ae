"""Loops in branches not taken, before their rows are mapped and before they are differentiated.

In: graphs.  Out: the same graphs, in which a loop that can fault and is used only under a condition reads that condition:
`iterate` makes no turn, and `scan` keeps what it carries.  Lifted, the condition is one a row, so that a row whose branch is
not taken does not fault while others go on (`guard` alone asks for a loop as a whole); differentiated, the adjoint runs over
the states of this loop, and what it computes again stands under the condition.
"""
from __future__ import annotations

from collections.abc import Sequence

from dsl.ir.node import Node, Origins, everything, once, reaches, remade, topological
from dsl.ir.types import ArrayType
from dsl.ops.calculus import DERIVATIVES
from dsl.ops.control import LOOPS, Loop, closed, iterate, opened, same_loop
from dsl.ops.leaves import leaf
from dsl.ops.scalar import and_, select
from dsl.passes.guard import masks_of_faults
from dsl.passes.masks import can_fault


def shielded(roots: Sequence[Node], fixed: Sequence[Node] = (), origins: Origins | None = None) -> list[Node]:
    """The graphs with loops that know whether they are used; `fixed` nodes stay as they are."""
    nodes = everything(roots)
    if not any(n.op in LOOPS and can_fault(n) for n in nodes) or not any(n.op is select for n in nodes):
        return list(roots)
    order = topological(roots)
    masks = {n: m for n, m in masks_of_faults(order, dict.fromkeys(roots)).items()
             if n.op in LOOPS and not _is_shielded(opened(n))}
    independent = [*fixed, *(n.args[1] for n in order if n.op in DERIVATIVES)]
    if reaches(independent, masks):                     # what a derivative is taken with respect to keeps its identity
        return list(roots)
    inside = once(lambda body: shielded(body, (), origins))
    new: dict[Node, Node] = {}
    loops: dict[tuple[object, ...], Loop] = {}
    for node in order:
        current = remade(node, tuple(new[a] for a in node.args), inside)
        if node in masks:
            key = same_loop(node)
            if key not in loops:
                loops[key] = _shielded_loop(opened(current), _over(new, masks[node]), origins)
            current = loops[key].output(*node.attr("output"))
        new[node] = current
        if origins is not None:
            origins.inherit(current, node)
    return [new[r] for r in roots]


def _is_shielded(loop: Loop) -> bool:
    """Whether every carried value stays what it is under some condition."""
    return loop.op is not iterate and all(b.op is select and b.args[2] is p for b, p in zip(loop.body, loop.parameters, strict=False))


def _over(new: dict[Node, Node], mask: Node) -> Node:
    """A mask over the new nodes, as far as they are made."""
    made: dict[Node, Node] = {}
    for node in topological([mask]):
        made[node] = new[node] if node in new else remade(node, tuple(made[a] for a in node.args))
    return made[mask]


def _shielded_loop(loop: Loop, live: Node, origins: Origins | None) -> Loop:
    flag = leaf("captured", "live", ArrayType("bool"))
    count = loop.carried
    if loop.op is iterate:
        body = (*loop.body[:-1], and_(flag, loop.body[-1]))
    else:
        body = (*(select(flag, new, old) for new, old in zip(loop.body[:count], loop.parameters, strict=False)), *loop.body[count:])
    return closed(Loop(loop.op, (*loop.args, live), (*loop.parameters, flag), body, count, loop.sequences, loop.limits), origins)
