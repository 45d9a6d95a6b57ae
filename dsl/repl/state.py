"""What an entry may change, so that it can be put back.

In: a session.  Out: `State`, a picture of its names, values, updates, sizes and counts.  Taking one copies references only: no array
is changed in place, a training puts new ones in the place of old ones.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from dsl.record import entity

if TYPE_CHECKING:
    from dsl.session import Session

CONTAINERS = (dict, list, set)
FIXED = frozenset("compute elaborator profile reporter _stdout _stderr host origins concerning scope generation warnings".split())
"""What is not part of the state: services, places, and the count that makes every leaf a new one."""
MOST_ENTRIES = 200
MOST_BYTES = 2 << 30


@entity
class State:
    parts: tuple[tuple[Any, dict[str, Any]], ...]
    names: dict[str, Any]

    @classmethod
    def of(cls, session: Session) -> State:
        parts = tuple((one, {key: _copied(value) for key, value in vars(one).items() if key not in FIXED})
                      for one in (session, session.elaborator))
        return cls(parts, dict(session.elaborator.scope.maps[0]))

    def restore(self, session: Session) -> None:
        """The session is what it was; other states of it stay as they are."""
        for one, kept in self.parts:
            for key, value in kept.items():
                now = getattr(one, key)
                if isinstance(value, CONTAINERS) and type(now) is type(value):
                    _refill(now, value)
                else:
                    setattr(one, key, _copied(value))
        _refill(session.elaborator.scope.maps[0], self.names)

    def differs(self, other: State) -> bool:
        """Whether something has been bound, set or made between the two; a value that was looked at is nothing of these."""
        pairs: list[tuple[Any, Any]] = [(_bound(self.names), _bound(other.names))]
        for (_, mine), (_, theirs) in zip(self.parts, other.parts, strict=True):
            pairs += [(_lasting(mine.get(key)), _lasting(theirs.get(key))) for key in LASTING]
        return any(not _same(a, b) for a, b in pairs)

    def arrays(self) -> Iterable[Any]:
        values: dict[Any, Any] = self.parts[0][1]["values"]
        return values.values()


LASTING = ("values", "updates", "steps_before", "seed", "precision", "device", "interrupted")
"""What shows, with the names, that an entry has changed something."""


def _bound(names: dict[str, Any]) -> dict[str, Any]:
    """Without the prompt's `ans`, which no statement has bound."""
    return {name: symbol for name, symbol in names.items() if name != "ans" or symbol.span is not None}


def _lasting(value: Any) -> Any:
    """Values by key, without those of `ans`."""
    return {key: item for key, item in value.items() if key[:2] != ("data", "ans")} if isinstance(value, dict) else value


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, CONTAINERS) else value


def _refill(now: Any, kept: Any) -> None:
    if isinstance(now, list):
        now[:] = kept
    else:
        now.clear()
        now.update(kept)


def _same(a: Any, b: Any) -> bool:
    """Whether two containers hold the same things."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(a[key] is b[key] for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(x is y for x, y in zip(a, b))
    return a is b or (isinstance(a, int | str) and a == b)


def kept(states: list[tuple[State, int, str]]) -> list[tuple[State, int, str]]:
    """The latest states that hold no more than `MOST_BYTES` between them."""
    seen: dict[int, int] = {}
    for count, (state, *_) in enumerate(reversed(states)):
        seen.update({id(a): getattr(a, "nbytes", 0) for a in state.arrays()})
        if count and (count >= MOST_ENTRIES or sum(seen.values()) > MOST_BYTES):
            return states[len(states) - count:]
    return states
