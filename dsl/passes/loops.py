"""What a loop's body takes from outside.

In: a body over placeholders and whatever else is in scope.  Out: the outer values that it captures, so that it can be
closed; and, once the rules have run, everything in a body that no step changes computed once, before the loop.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dsl.ir.node import Node, Origins, once, reaches, remade, substitute, topological
from dsl.ir.types import is_float
from dsl.ops.calculus import DERIVATIVES
from dsl.ops.control import LOOPS, Loop, closed, iterate, opened, same_loop, scan
from dsl.ops.leaves import is_leaf, leaf, leaf_op
from dsl.ops.random import draw
from dsl.ops.reduction import log_softmax, logsumexp, max_, mean, min_, norm, prod, softmax, std, sum_, var
from dsl.ops.scalar import alias, const, stop_grad
from dsl.ops.shape import dim, expand_op, iota, reshape, transpose
from dsl.passes.masks import can_fault


def captures(body: Sequence[Node], placeholders: Sequence[Node]) -> list[Node]:
    """The outer values a body reads: leaves, named values, draws, loops and derivatives.

    What has no name is computed in the body, where the rules see it.  What a derivative in the body is taken with respect to
    is a value of its own, and everything that depends on it stays in the body."""
    order = topological(body)
    changing = reaches(body, placeholders)
    independent = {n.args[1] for n in order if n.op in DERIVATIVES and n in changing and n.args[1] not in changing}
    dependent = reaches(body, independent)
    found: dict[Node, None] = {}
    seen = set(placeholders)
    stack = list(reversed(body))
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        whole = is_leaf(node) or node.op in (alias, draw, *LOOPS, *DERIVATIVES)
        if node not in changing and (node in independent or (whole and node not in dependent)):
            found[node] = None
        else:
            stack.extend(reversed(node.args))
    return list(found)


def enclose(loop: Loop, origins: Origins | None = None) -> Loop:
    """A loop whose body reads outer values, as a closed one that captures them."""
    outside = captures(loop.body, loop.parameters)
    placeholders = [leaf("captured", f"outside {i}", n.type) for i, n in enumerate(outside)]
    body = substitute(loop.body, dict(zip(outside, placeholders, strict=True)), origins=origins)
    return closed(Loop(loop.op, (*loop.args, *outside), (*loop.parameters, *placeholders), tuple(body), loop.carried, loop.sequences,
                       loop.limits), origins)


def depending(loop: Loop, given: Sequence[bool]) -> list[Node]:
    """The float parameters that depend, in some step, on the given operands."""
    found = {p for p, g in zip(loop.parameters, given, strict=True) if g and is_float(p.dtype)}
    while True:
        path = reaches(loop.body, found)
        more = {p for p, new in zip(loop.parameters[:loop.carried], loop.body, strict=False) if new in path and is_float(p.dtype)} - found
        if not more:
            return [p for p in loop.parameters if p in found]
        found |= more


def through_iterate(roots: Sequence[Node], names: Sequence[Node]) -> Node | None:
    """The `iterate` that a derivative of the roots with respect to the names would have to go through, if there is one."""
    path = reaches(roots, names)
    seen: set[Node] = set()
    stack = [r for r in roots if r in path]
    while stack:
        node = stack.pop()
        if node in seen or node in names or not is_float(node.dtype) or node.op is stop_grad:
            continue
        seen.add(node)
        if node.op is iterate:
            return node
        if node.op is scan:
            loop = opened(node)
            found = through_iterate(loop.body, depending(loop, [a in path for a in loop.args]))
            if found is not None:
                return found
        stack.extend(a for a in differentiated_operands(node) if a in path)
    return None


def differentiated_operands(node: Node) -> Sequence[Node]:
    """The operands that derivatives go on to: of a loop those that its body uses other than behind a `stop_grad`."""
    if node.op is not scan:
        return node.args
    loop = opened(node)
    used = differentiated(loop.body)
    return [a for a, p in zip(loop.args, loop.parameters, strict=True) if p in used]


def differentiated(roots: Sequence[Node]) -> set[Node]:
    """The nodes that derivatives of the roots come to: what is behind a `stop_grad` is not among them."""
    found: set[Node] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node not in found and is_float(node.dtype) and node.op is not stop_grad:
            found.add(node)
            stack.extend(differentiated_operands(node))
    return found


# ---------------------------------------------------------------- in and out of bodies
ROWWISE = frozenset((sum_, prod, mean, var, std, min_, max_, norm, logsumexp, softmax, log_softmax))
CHEAP = frozenset((const, dim, iota, expand_op, reshape, transpose, leaf_op))
"""What is not worth a value of its own: numbers, and what only lays elements out."""


def contains_loops(roots: Sequence[Node]) -> bool:
    return any(node.op in LOOPS for node in topological(roots))


def sink(roots: Sequence[Node], origins: Origins | None = None) -> list[Node]:
    """Captured values that are formulas put back into the bodies, so that the rules see a body as it would be written out."""
    return _each_loop(roots, lambda loop: _inlined(loop, {p: v for p, v in zip(loop.parameters, loop.args, strict=True) if _formula(v)},
                                                   _formula, origins), origins)


def hoist(roots: Sequence[Node], origins: Origins | None = None) -> list[Node]:
    """What no step of a loop changes computed once, before it; what could fault stays where it is asked for."""
    return _each_loop(roots, lambda loop: _hoisted(loop, origins), origins)


def _each_loop(roots: Sequence[Node], change: Callable[[Loop], Loop], origins: Origins | None) -> list[Node]:
    """The graphs with every loop changed, inner loops first."""
    if not contains_loops(roots):
        return list(roots)
    new: dict[Node, Node] = {}
    loops: dict[tuple[object, ...], Loop] = {}
    inside = once(lambda body: _each_loop(body, change, origins))
    for node in topological(roots):
        current = remade(node, tuple(new[a] for a in node.args), inside)
        if node.op in LOOPS:
            key = same_loop(current)
            if key not in loops:
                loops[key] = change(opened(current))
            current = loops[key].output(*node.attr("output"))
        new[node] = current
        if origins is not None:
            origins.inherit(current, node)
    return [new[r] for r in roots]


def _formula(node: Node) -> bool:
    """Whether a value is computed element by element, or row by row, and cannot fault."""
    return (node.op.elementwise or node.op.structural or node.op in ROWWISE) and not can_fault(node) and bool(node.args)


def _inlined(loop: Loop, values: Mapping[Node, Node], inside: Callable[[Node], bool], origins: Origins | None) -> Loop:
    """The loop with these captured values computed in its body, as far down as `inside` says."""
    first = loop.carried + loop.sequences
    values = {p: v for p, v in values.items() if p in loop.parameters[first:]}
    if not values:
        return loop
    moved: dict[Node, Node] = {}
    outside: list[Node] = []
    for node in topological(values.values()):
        if inside(node):
            moved[node] = node
        else:
            outside.append(node)
    needed = {a for node in topological(values.values()) if node in moved for a in node.args if a not in moved}
    outside = [n for n in outside if n in needed]
    placeholders = [leaf("captured", f"sunk {i}", n.type) for i, n in enumerate(outside)]
    inner = substitute(list(values.values()), dict(zip(outside, placeholders, strict=True)), origins=origins)
    body = substitute(loop.body, dict(zip(values, inner, strict=True)), origins=origins)
    return closed(Loop(loop.op, (*loop.args, *outside), (*loop.parameters, *placeholders), tuple(body), loop.carried, loop.sequences,
                       loop.limits), origins)


def _hoisted(loop: Loop, origins: Origins | None) -> Loop:
    first = loop.carried + loop.sequences
    order = topological(loop.body)
    changing = reaches(loop.body, loop.parameters[:first])
    faulty: set[Node] = set()
    cheap: set[Node] = set()
    for node in order:
        if any(a in faulty for a in node.args) or can_fault(node):
            faulty.add(node)
        if node.op in CHEAP and all(a in cheap for a in node.args):
            cheap.add(node)
    chosen: dict[Node, None] = {}
    seen: set[Node] = set()
    stack = list(reversed(loop.body))
    while stack:
        node = stack.pop()
        if node in seen or node in cheap:
            continue
        seen.add(node)
        if node in changing or node in faulty or node.op is expand_op:
            stack.extend(reversed(node.args))
        else:
            chosen[node] = None
    if not chosen:
        return closed(loop, origins)
    outer = substitute(list(chosen), dict(zip(loop.parameters[first:], loop.captured, strict=True)), origins=origins)
    placeholders = [leaf("captured", f"hoisted {i}", n.type) for i, n in enumerate(outer)]
    body = substitute(loop.body, dict(zip(chosen, placeholders, strict=True)), origins=origins)
    return closed(Loop(loop.op, (*loop.args, *outer), (*loop.parameters, *placeholders), tuple(body), loop.carried, loop.sequences,
                       loop.limits), origins)


def sink_faults(roots: Sequence[Node], demanded: Callable[[Loop], Mapping[Node, Node | None]], origins: Origins | None) -> list[Node]:
    """Captured values that can fault and that a body asks for only under a condition, computed in the body under it."""
    def change(loop: Loop) -> Loop:
        first = loop.carried + loop.sequences
        values = {p: v for p, v in zip(loop.parameters[first:], loop.captured, strict=True) if any(map(can_fault, topological([v])))}
        if not values:
            return loop
        used = demanded(loop)
        values = {p: v for p, v in values.items() if used.get(p) is not None}
        above = reaches(list(values.values()), [n for v in values.values() for n in topological([v]) if can_fault(n)])
        return _inlined(loop, values, lambda node: node in above, origins)
    return _each_loop(roots, change, origins)
