"""What a loop's body takes from outside.

In: a body over placeholders and whatever else is in scope.  Out: the outer values that it captures, so that it can be
closed; and, once the rules have run, everything in a body that no step changes computed once, before the loop.
"""
from __future__ import annotations

from collections.abc import Sequence

from dsl.ir.node import Node, Origins, reaches, substitute, topological
from dsl.ir.types import is_float
from dsl.ops.calculus import DERIVATIVES
from dsl.ops.control import LOOPS, Loop, closed, iterate, opened, scan
from dsl.ops.leaves import is_leaf, leaf
from dsl.ops.random import draw
from dsl.ops.scalar import alias, stop_grad


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
            inner = [p for i, (p, a) in enumerate(zip(loop.parameters, loop.args, strict=True)) if i < loop.carried or a in path]
            found = through_iterate(loop.body, inner)
            if found is not None:
                return found
        stack.extend(a for a in node.args if a in path)
    return None
