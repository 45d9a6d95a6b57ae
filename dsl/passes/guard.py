"""Lanes that `where` does not take must not fault.

In: graphs as they will run.  Out: the same graphs in which an op that can fault (integer division, an index, `int` of a
float) and whose result is used only under a condition gets a harmless operand where the condition does not hold.
"""
from __future__ import annotations

from collections.abc import Sequence

from dsl.ir.node import TABLE, Node, Origins, make, substitute, topological
from dsl.ir.types import is_float, is_int
from dsl.ops.scalar import and_, cast_op, floordiv, mod, not_, or_, pow, select
from dsl.ops.shape import FILL, expand, gather, scatter_add
from dsl.passes.grad import live_masks, mask_to


def can_fault(node: Node) -> bool:
    op = node.op
    return (op in (floordiv, mod, pow) and is_int(node.dtype)) or op in (gather, scatter_add) or \
        (op is cast_op and is_int(node.dtype) and is_float(node.args[0].dtype))


def guard(roots: Sequence[Node], origins: Origins | None = None) -> list[Node]:
    """The graphs with every op that can fault kept from doing so in lanes not taken."""
    order = topological(roots)
    if not any(n.op is TABLE["where"] for n in order) or not any(can_fault(n) for n in order):
        return list(roots)
    masks = _demand(order, roots)
    new: dict[Node, Node] = {}
    for node in order:
        args = tuple(new[a] for a in node.args)
        mask = masks[node]
        if mask is not None and can_fault(node):
            (live,) = substitute([mask], new)
            new[node] = _guarded(node, args, live)
        else:
            new[node] = node if args == node.args else make(node.op, args, node.attrs)
        if origins is not None:
            origins.inherit(new[node], node)
    return [new[r] for r in roots]


def _demand(order: Sequence[Node], roots: Sequence[Node]) -> dict[Node, Node | None]:
    """For each node the mask of its elements that some root uses; None: all of them."""
    masks: dict[Node, Node | None] = dict.fromkeys(roots)

    def use(node: Node, mask: Node | None) -> None:
        if node in masks:
            before = masks[node]
            masks[node] = None if before is None or mask is None else or_(before, mask)
        else:
            masks[node] = mask
    for node in reversed(order):
        mask = masks[node]
        if node.op is TABLE["where"]:
            condition, a, b = node.args
            taken = expand(condition, node.shape)
            use(condition, None if mask is None else mask_to(mask, condition.shape))
            use(a, mask_to(taken if mask is None else and_(mask, taken), a.shape))
            use(b, mask_to(not_(taken) if mask is None else and_(mask, not_(taken)), b.shape))
        else:
            for arg, live in zip(node.args, live_masks(mask, node), strict=True):
                use(arg, live)
    return masks


def _guarded(node: Node, args: tuple[Node, ...], live: Node) -> Node:
    if node.op is gather:
        picks = live
        for _ in range(node.rank - max(a.rank for a in args[1:])):
            picks = TABLE["any"](picks, axes=(-1,), keepdims=False)
        return make(gather, [args[0], *(select(picks, i, FILL) for i in args[1:])], {"fill": True})
    if node.op is scatter_add:
        return make(node.op, args, node.attrs)
    if node.op is cast_op:
        return make(node.op, [select(live, args[0], 0)], node.attrs)
    safe = select(live, args[1], 1)
    return make(node.op, [expand(args[0], node.shape), safe])
