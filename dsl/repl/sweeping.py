"""Large arrays that nothing can ask for any more.

In: a session.  Out: it without the values of data that was bound again, and of what `ans` has been, as far as no name, update, training or
remembered statement reaches them.  States that `:undo` puts back hold their own.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dsl.ir.node import Node, everything
from dsl.ops.leaves import is_leaf
from dsl.syntax.binding import leaf_key

if TYPE_CHECKING:
    from dsl.runtime.compute import LeafKey
    from dsl.session import Session

LARGE = 1 << 20


def large_values(session: Session) -> set[LeafKey]:
    return {key for key, value in session.values.items() if key[0] == "data" and getattr(value, "nbytes", 0) >= LARGE}


def sweep(session: Session) -> None:
    """Lets go of what cannot be reached."""
    found = large_values(session)
    if found:
        for key in found - reached(session):
            del session.values[key]
            session.compute.gpu.forget(key)


def reached(session: Session) -> set[LeafKey]:
    """The leaves of all that the session holds."""
    elaborator = session.elaborator
    plan = session.paused.plan if session.paused is not None else ()
    held = [elaborator.scope.maps, elaborator.updates, elaborator.gradients, elaborator.remembered, session.items, session.pending, plan]
    return {leaf_key(node) for node in everything(nodes_in(held)) if is_leaf(node)}


def nodes_in(held: Any) -> Iterator[Node]:
    """The graphs in records of the syntax, and in what these hold."""
    seen: set[int] = set()
    waiting: list[Any] = [held]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        match one:
            case Node():
                yield one
            case Mapping():
                waiting.extend(one.values())
            case list() | tuple():
                waiting.extend(one)
            case _ if type(one).__module__.startswith("dsl.syntax"):
                waiting.extend(vars(one).values())
            case _:
                pass
