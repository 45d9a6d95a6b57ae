"""Lanes that `where` does not take must not fault.

In: graphs as they will run.  Out: the same graphs in which an op that can fault (integer division, an index, `int` of a
float) and whose result is used only under a condition gets a harmless operand where the condition does not hold.  A loop is
used as a whole: if nothing of it is, no op of its body faults in any step, and `iterate` makes no turn.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

from dsl.ir.node import Node, Origins, everything, make, once, remade, substitute, topological
from dsl.ir.types import ArrayType
from dsl.ops.control import LOOPS, Loop, any_live, closed, iterate, opened, same_loop
from dsl.ops.leaves import leaf
from dsl.ops.reduction import EXTREMES
from dsl.ops.scalar import and_, cast_op, not_, or_, select
from dsl.ops.shape import expand, full, gather, scatter_add
from dsl.passes.loops import sink_faults
from dsl.passes.masks import can_fault, live_masks, looked_up, mask_to, skipping

Demand = dict[Node, "Node | None"]
"""The elements of nodes that are used, as masks; None: all of them."""


def guard(roots: Sequence[Node], origins: Origins | None = None) -> list[Node]:
    """The graphs with every op that can fault kept from doing so in lanes not taken."""
    nodes = everything(roots)
    if not any(n.op is select for n in nodes) or not any(can_fault(n) for n in nodes):
        return list(roots)
    roots = sink_faults(roots, lambda loop: _demand(topological(loop.body), dict.fromkeys(loop.body))[0], origins)
    return _guard(roots, dict.fromkeys(roots), origins)


def _guard(roots: Sequence[Node], used: Mapping[Node, Node | None], origins: Origins | None) -> list[Node]:
    """The same, of graphs that are themselves used as the masks say."""
    order = topological(roots)
    masks = masks_of_faults(order, used)
    inside = once(lambda body: _guard(body, dict.fromkeys(body), origins))
    loops: dict[tuple[object, ...], Loop] = {}
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
        if mask is not None and node.op in LOOPS:
            key = same_loop(node)
            if key not in loops:
                loops[key] = _guarded_loop(opened(node), args, new.get(mask, mask), origins)
            new[node] = loops[key].output(*node.attr("output"))
        elif mask is not None:
            new[node] = _guarded(node, args, new.get(mask, mask))
        else:
            new[node] = remade(node, args, inside)
        if origins is not None:
            origins.inherit(new[node], node)
    return [new[r] for r in roots]


def masks_of_faults(order: Sequence[Node], given: Mapping[Node, Node | None]) -> dict[Node, Node]:
    """For each node that can fault the mask of its elements that some root uses, if not all of them are."""
    used, conditions = _demand(order, given)
    groups: dict[tuple[object, ...], list[Node]] = {}
    for node in order:
        if node.op in LOOPS:
            groups.setdefault(same_loop(node), []).append(node)
    for group in groups.values():                       # the outputs of a loop are used together
        parts = [used[n] for n in group]
        known = [any_live(p) for p in parts if p is not None]
        used.update(dict.fromkeys(group, None if len(known) < len(parts) else reduce(or_, known)))
    masks: dict[Node, Node] = {}
    for node in order:
        mask = used[node]
        if mask is None or not can_fault(node):
            continue
        made_of, algebra = _parts(mask, conditions)
        # A condition that itself needs this node cannot guard it; wherever it is asked, the node is in use anyway.
        needs = groups[same_loop(node)] if node.op in LOOPS else [node]
        circular = [c for c in made_of if not set(needs).isdisjoint(topological([c]))]
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


def _demand(order: Sequence[Node], given: Mapping[Node, Node | None]) -> tuple[Demand, set[Node]]:
    """For each node the mask of its elements that some root uses (None: all of them); the conditions masks are made of."""
    used: Demand = dict(given)
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


def _guarded_loop(loop: Loop, args: tuple[Node, ...], live: Node, origins: Origins | None) -> Loop:
    """The loop with a body that cannot fault unless `live` holds."""
    flag = leaf("captured", "live", ArrayType("bool"))
    body = _guard(loop.body, {root: expand(flag, root.shape) for root in loop.body}, origins)
    if loop.op is iterate:
        body[-1] = and_(flag, body[-1])
    return closed(Loop(loop.op, (*args, live), (*loop.parameters, flag), tuple(body), loop.carried, loop.sequences, loop.limits), origins)


def _guarded(node: Node, args: tuple[Node, ...], live: Node) -> Node:
    if node.op is gather:
        return make(gather, skipping(node, args, live), {"fill": True})
    if node.op in EXTREMES:
        return make(node.op, [args[0], live], node.attrs)
    if node.op is cast_op:
        return make(cast_op, [select(live, args[0], 0)], node.attrs)
    return make(node.op, [expand(args[0], node.shape), select(live, args[1], 1)])
