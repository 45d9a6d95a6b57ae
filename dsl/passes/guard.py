"""Lanes that `where` does not take must not fault.

In: graphs as they will run.  Out: the same graphs in which an op that can fault (integer division, an index, `int` of a
float) and whose result is used only under a condition gets a harmless operand where the condition does not hold.
"""
from __future__ import annotations

from collections.abc import Sequence

from dsl.ir.node import Node, Origins, make, substitute, topological
from dsl.ir.types import is_float, is_int
from dsl.ops.reduction import EXTREMES
from dsl.ops.scalar import and_, cast_op, floordiv, mod, not_, or_, pow, select
from dsl.ops.shape import expand, full, gather, scatter_add
from dsl.passes.masks import live_masks, looked_up, mask_to, skipping


def can_fault(node: Node) -> bool:
    op = node.op
    return (op in (floordiv, mod, pow) and is_int(node.dtype)) or op is gather or op in EXTREMES or \
        (op is cast_op and is_int(node.dtype) and is_float(node.args[0].dtype))


def guard(roots: Sequence[Node], origins: Origins | None = None) -> list[Node]:
    """The graphs with every op that can fault kept from doing so in lanes not taken."""
    order = topological(roots)
    if not any(n.op is select for n in order) or not any(can_fault(n) for n in order):
        return list(roots)
    masks = _masks(order, roots)
    new: dict[Node, Node] = {}
    begun: set[Node] = set()
    stack = [(root, False) for root in reversed(roots)]
    while stack:                                        # a node comes after its operands and after its mask
        node, ready = stack.pop()
        if node in new or (node in begun and not ready):
            continue
        mask = masks.get(node)
        if not ready:
            begun.add(node)
            stack.append((node, True))
            stack.extend((n, False) for n in reversed(node.args))
            if mask is not None:
                stack.append((mask, False))
            continue
        args = tuple(new.get(a, a) for a in node.args)
        if mask is not None:
            new[node] = _guarded(node, args, new.get(mask, mask))
        else:
            new[node] = node if args == node.args else make(node.op, args, node.attrs)
        if origins is not None:
            origins.inherit(new[node], node)
    return [new[r] for r in roots]


def _masks(order: Sequence[Node], roots: Sequence[Node]) -> dict[Node, Node]:
    """For each node that can fault the mask of its elements that some root uses, if not all of them are."""
    used, conditions = _demand(order, roots)
    masks = {}
    for node in order:
        mask = used[node]
        if mask is None or not can_fault(node):
            continue
        made_of, algebra = _parts(mask, conditions)
        # A condition that itself needs this node cannot guard it; wherever it is asked, the node is in use anyway.
        circular = [c for c in made_of if node in topological([c])]
        if circular and any(n.op in (gather, scatter_add) for n in algebra):
            continue
        masks[node] = substitute([mask], {c: full(True, c.shape, "bool") for c in circular})[0] if circular else mask
    return masks


def _parts(mask: Node, conditions: set[Node]) -> tuple[list[Node], list[Node]]:
    """The conditions that a mask is made of, and the ops that make it."""
    made_of, algebra, seen, stack = [], [], {mask}, [mask]
    while stack:
        node = stack.pop()
        if node in conditions:
            made_of.append(node)
        else:
            algebra.append(node)
            stack.extend(a for a in node.args if a not in seen)
            seen.update(node.args)
    return made_of, algebra


def _demand(order: Sequence[Node], roots: Sequence[Node]) -> tuple[dict[Node, Node | None], set[Node]]:
    """For each node the mask of its elements that some root uses (None: all of them); the conditions masks are made of."""
    used: dict[Node, Node | None] = dict.fromkeys(roots)
    conditions: set[Node] = set()

    def use(node: Node, mask: Node | None) -> None:
        if node in used:
            before = used[node]
            used[node] = None if before is None or mask is None else before if before is mask else or_(before, mask)
        else:
            used[node] = mask
    for node in reversed(order):
        mask = used[node]
        if node.op is select:
            condition, a, b = node.args
            taken = expand(condition, node.shape)
            missed = not_(taken)
            conditions |= {taken, missed}
            use(condition, None if mask is None else mask_to(mask, condition.shape))
            use(a, mask_to(taken if mask is None else and_(mask, taken), a.shape))
            use(b, mask_to(missed if mask is None else and_(mask, missed), b.shape))
        elif node.op is gather and mask is not None:
            use(node.args[0], live_masks(mask, node)[0])
            for index in node.args[1:]:
                use(index, mask_to(looked_up(node, mask), index.shape))
        else:
            for arg, live in zip(node.args, live_masks(mask, node), strict=True):
                use(arg, live)
    return used, conditions


def _guarded(node: Node, args: tuple[Node, ...], live: Node) -> Node:
    if node.op is gather:
        return make(gather, skipping(node, args, live), {"fill": True})
    if node.op in EXTREMES:
        return make(node.op, [args[0], live], node.attrs)
    if node.op is cast_op:
        return make(cast_op, [select(live, args[0], 0)], node.attrs)
    return make(node.op, [expand(args[0], node.shape), select(live, args[1], 1)])
