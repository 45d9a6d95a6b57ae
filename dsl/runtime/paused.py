"""A training that was cut off between two steps, ready to go on.

In: its driver.  Out: `Paused`, all that going on takes but the state itself, which the session has: whoever sets a shared variable in
between goes on from there.  It stays what it is, however far the training goes on from it.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dsl.errors import error
from dsl.ir.node import Node, topological
from dsl.ops.leaves import is_leaf, leaf_name
from dsl.record import entity
from dsl.runtime.compute import LeafKey
from dsl.runtime.place import Place, Report
from dsl.runtime.train import Driver
from dsl.syntax import program
from dsl.syntax.binding import leaf_key
from dsl.syntax.elaborate import Elaborator


@entity
class Paused:
    """`place` is where it stands; `arrays` are its data, `best` the variables at the best value so far."""

    driver: Driver
    place: Place
    report: Report
    arrays: Sequence[Any]
    sources: Sequence[LeafKey | None]
    best: dict[LeafKey, Any] | None
    count: int

    @classmethod
    def of(cls, driver: Driver) -> Paused | None:
        """Where the driver was cut off, if it was."""
        if driver.left is None:
            return None
        rows, best = driver.rows, driver.looks.best
        return cls(driver, driver.left, driver.report, list(rows.arrays), list(rows.sources), None if best is None else dict(best),
                   driver.count)

    @property
    def plan(self) -> program.Train:
        return self.driver.plan

    @property
    def steps(self) -> int:
        """Whole steps made."""
        return self.place.steps

    @property
    def wanted(self) -> int:
        """Steps that were asked for."""
        return self.count * (self.driver.rows.steps_an_epoch if self.plan.unit == "epochs" else 1)

    def __str__(self) -> str:
        return f"interrupted after step {self.steps} of {self.wanted}"

    @property
    def anew(self) -> str:
        first, *block = self.plan.span.text.split("\n")
        return f"begin a new one: `{first.strip()}{' …' if block else ''}`"

    def check(self, elaborator: Elaborator) -> None:
        """Raises E0422 if what it trains, or its data, has been bound again since."""
        for group in self.plan.groups:
            if tuple(u for u in elaborator.updates if u.group == group.name) != group.updates:
                raise error("E0422", "the updates are not what they were when the training was interrupted", help=self.anew)
        for node in topological([feed.value for feed in (*self.plan.over, *self.plan.valid)]):
            symbol = elaborator.scope.get(leaf_name(node)) if is_leaf(node, "data") else None
            if symbol is not None and symbol.kind == "data" and isinstance(symbol.value, Node) and is_leaf(symbol.value, "data") and \
                    leaf_key(symbol.value) != leaf_key(node):
                raise error("E0422", f"`{symbol.name}` is not what it was when the training was interrupted", help=self.anew)

    def go_on(self) -> Report:
        """To the end that was planned.  Returns the report of all of it."""
        driver = self.driver
        driver.report, driver.count = Report(), self.count
        driver.rows.hold(self.arrays)
        driver.rows.sources = list(self.sources)
        driver.looks.best = None if self.best is None else dict(self.best)
        return driver.go(self.place)
