"""Where a training stands, apart from its state.

In: nothing.  Out: `Report`, what a `train` has done; `Place`, with which it goes on at a step as if it had never stopped; the same
as plain values that JSON has (`as_json`, `from_json`).  A place is small: epoch and place in the data follow from the number of steps.
"""
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

from dsl.runtime.progress import summary


@dataclass
class Report:
    """What a `train` did: whole epochs and steps, the last epoch's costs (and `valid` ones), wall-clock seconds."""

    epochs: int = 0
    steps: int = 0
    costs: dict[str, float] = field(default_factory=dict)
    valid: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    stopped: str | None = None

    @property
    def cost(self) -> float | dict[str, float] | None:
        """The last epoch's cost; a dict if there are several, None if there is none."""
        return None if not self.costs else next(iter(self.costs.values())) if len(self.costs) == 1 else dict(self.costs)

    def __str__(self) -> str:
        return summary(self.epochs, self.steps, self.seconds, self.costs, self.stopped)

    def _repr_html_(self) -> str:
        return f"<code>{escape(str(self))}</code>"


@dataclass(frozen=True)
class Watch:
    """The best value that was seen of what `stop` or `checkpoint … best` watches, at which step, and how often it was not beaten
    since.  No value was seen yet where `step` is 0."""

    step: int = 0
    best: float = math.nan
    waited: int = 0


@dataclass(frozen=True)
class Place:
    """Between two steps of a `train`.

    before    steps made before this `train`, which draws count on from
    steps     whole steps made in it
    looked    whether what follows the last of them (`every`, `stop`, the log …) has been done
    sums      of what is watched, times rows, over the epoch so far; `weight` is those rows
    seen      the values that clauses saw at this step, where they have looked
    log       bytes of the log so far
    finished  there are no steps left"""

    before: int = 0
    steps: int = 0
    looked: bool = True
    sums: Mapping[str, float] = field(default_factory=dict)
    weight: float = 0.0
    costs: Mapping[str, float] = field(default_factory=dict)
    valid: Mapping[str, float] = field(default_factory=dict)
    seen: Mapping[str, float] = field(default_factory=dict)
    stopped: str | None = None
    watch: Watch = Watch()
    log: int = 0
    seconds: float = 0.0
    finished: bool = False
    epochs: int = 0

    def report(self) -> Report:
        """What had been done up to here."""
        return Report(self.epochs, self.steps, dict(self.costs), dict(self.valid), self.seconds, self.stopped)


def as_json(place: Place) -> dict[str, Any]:
    """The place in JSON's values; numbers that JSON has no form for as texts."""
    return {key: plain(value) for key, value in asdict(place).items()}


def from_json(values: Mapping[str, Any]) -> Place:
    """What `as_json` gave.  Raises KeyError, TypeError or ValueError for other values."""
    def numbers(named: Mapping[str, Any]) -> dict[str, float]:
        return {str(k): float(v) for k, v in named.items()}
    watch = values["watch"]
    return Place(int(values["before"]), int(values["steps"]), bool(values["looked"]), numbers(values["sums"]), float(values["weight"]),
                 numbers(values["costs"]), numbers(values["valid"]), numbers(values["seen"]), values["stopped"],
                 Watch(int(watch["step"]), float(watch["best"]), int(watch["waited"])), int(values["log"]), float(values["seconds"]),
                 bool(values["finished"]), int(values["epochs"]))


def plain(value: Any) -> Any:
    """Numbers that JSON has no form for, as texts."""
    return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else \
        value if not isinstance(value, float) or math.isfinite(value) else str(value)
