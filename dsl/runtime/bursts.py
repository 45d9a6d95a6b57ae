"""Many training steps in one call of native code.

In: a driver that is ready to train.  Out: `Bursts`, which makes steps on arrays of its own, up to a number or to the first step
that met a fault or something not finite; that one the driver makes itself, on the reference, to say what it was.
"""
from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from dsl.backends.cuda.arrays import cast
from dsl.backends.cuda.memory import Memory, on_host
from dsl.ir.types import DType
from dsl.loops.cost import operations
from dsl.loops.ir import Program
from dsl.loops.train import Feeds, GroupGraphs, Mode
from dsl.ops.leaves import STEP, TRAINING
from dsl.runtime.compute import Compute, LeafKey
from dsl.runtime.rows import Reading, Rows
from dsl.runtime.steps import StepFunction, schedule_values
from dsl.syntax import program
from dsl.syntax.binding import leaf_key


class Steps(Protocol):
    """What bursts need of the driver whose steps they make."""

    plan: program.Train
    rows: Rows
    compute: Compute
    functions: list[StepFunction]
    schedules: list[tuple[program.Schedule, Any]]
    targets: list[LeafKey]
    current: Sequence[Any]
    values: dict[LeafKey, Any]
    weight: float

    @property
    def wanted(self) -> int:
        """Steps that may be made in all."""
        ...

    @property
    def made(self) -> int:
        """Steps made in this `train`."""
        ...

    @property
    def made_before(self) -> int:
        """Steps made before it."""
        ...

SECONDS = 0.05
"""How long a burst is to take: so often progress is shown and Ctrl-C is heard."""
FIRST = 20_000_000
"""Scalar operations of the first burst, whose speed is not known yet."""
PYTHON = "<python>"
"""The source of statements that are made in Python."""
FIRST_PART = 0.25
"""Of `SECONDS`, for the first burst on a GPU, by what a step is expected to take there."""


def graphs_of(functions: Sequence[StepFunction]) -> tuple[GroupGraphs, ...]:
    """The graphs of a step, group by group."""
    roots = [(f, f.compiled.ready) for f in functions]
    return tuple(GroupGraphs(tuple(r[:f.first]), f.costs, tuple(r[f.first:]), tuple(f.target_nodes)) for f, r in roots)


def feeds_of(rows: Reading, functions: Sequence[StepFunction], known: Mapping[str, int]) -> tuple[Feeds, list[int]]:
    """Where the leaves of a step come from, and which of the rows' arrays they take.  Needs no data."""
    plan, leaves = rows.plan, {leaf_key(n): n for f in functions for n in f.compiled.executable.leaves}
    mode: Mode = "whole" if rows.whole else "one by one" if rows.one_by_one else "slices"
    used = [i for i, key in enumerate(rows.keys) if key in leaves]
    schedules = tuple(s.leaf for s in plan.schedules)
    taken = tuple(leaves[rows.keys[i]] for i in used)
    return Feeds(mode, taken, schedules, STEP, TRAINING, plan.shuffle_key is not None, rows.changing_sizes(known)), used


class Bursts:
    """The steps of one `train`, made by native code."""

    def __init__(self, driver: Steps) -> None:
        self.driver = driver
        compute, functions = driver.compute, driver.functions
        feeds, self.used = feeds_of(driver.rows, functions, driver.rows.known())
        self.made, self.native = compute.training(graphs_of(functions), feeds, driver.plan.span, self.pays)
        self.keep: Callable[[Any], Any] | None = getattr(self.native, "keep", None)
        """Copies an array to where the program runs, if that is not here."""
        self.watched = [(f, i) for f in functions for i in range(f.first)]
        self.sums = np.zeros(len(self.watched) + 1)
        self.last = np.zeros(len(self.watched))
        self.outcome = np.zeros(2, np.int64)
        self.order: Any = None
        sizes = self.sizes(driver.rows)
        expected: Callable[[Any], float] | None = getattr(self.native, "expected", None)
        self.burst = max(1, min(int(FIRST_PART * SECONDS / expected(sizes)), 1 << 20)) if expected else \
            max(1, min(FIRST // max(1, operations(self.made.program, sizes)), 1 << 20))
        self.feeds = feeds
        names = {key: i for i, key in enumerate(driver.targets)}
        self.places = [names[leaf_key(n)] for n in self.made.state]
        self.fixed_arrays = [leaf_key(n) for n in self.made.fixed_arrays]
        self.fixed_scalars = [leaf_key(n) for n in self.made.fixed_scalars]
        self.fixed: list[Any] = []
        self.scalars: list[Any] = []

    def sizes(self, rows: Rows) -> dict[str, int]:
        length = min(rows.size, rows.total)
        return {**rows.sizes(length), "rows in all": rows.total, "steps of a burst": 0}

    def fill(self) -> None:
        """The state, the data and whatever else does not change, as the driver has them now."""
        driver, rows = self.driver, self.driver.rows
        if self.keep:
            driver.compute.gpu.follow()
        self.release()                                            # before there is memory for the next
        before = zip([driver.current[p] for p in self.places], self.made.state, strict=True)
        if self.keep:
            self.state: list[Any] = [self.there(v, n.dtype) for v, n in before]
            self.shared = [isinstance(driver.current[p], Memory) for p in self.places]
        else:
            self.state = [np.array(v, dtype=n.dtype, order="C") for v, n in before]
        self.data = [self.there(rows.arrays[i], n.dtype, rows.sources[i]) for i, n in zip(self.used, self.feeds.rows, strict=True)]
        if self.fixed_arrays or self.fixed_scalars:
            known = {**driver.values, **{k: v for f in driver.functions for k, v in zip(f.others, f.rest, strict=True)}}
            self.fixed = [self.there(known[key], n.dtype, key) for key, n in zip(self.fixed_arrays, self.made.fixed_arrays, strict=True)]
            self.scalars = [on_host(known[key]) for key in self.fixed_scalars]
        self.known = self.sizes(rows)
        short = rows.stop % rows.size or rows.size
        sizes = (rows.sizes(min(rows.size, rows.total)), rows.sizes(short)) if self.feeds.ragged else ({}, {})
        self.ragged = [s[name] for name in self.feeds.ragged for s in sizes]
        for length in {min(rows.size, rows.total), short} if not (rows.whole or rows.one_by_one) else {1}:
            for f in driver.functions:
                driver.compute.check_sizes(f.compiled, rows.sizes(length))
        key = driver.plan.shuffle_key or 0
        self.key = key - (1 << 64) if key >= 1 << 63 else key
        if self.feeds.shuffle:
            room: Callable[..., Any] = getattr(self.native, "empty", np.zeros)           # the program writes it as an epoch begins
            self.order = self.there(rows.order(driver.made // rows.steps_an_epoch), "int64") if driver.made % rows.steps_an_epoch else \
                room((rows.total,), "int64")

    def release(self) -> None:
        """What was filled in for steps, but the state, is not needed any more."""
        self.data, self.fixed = [], []

    def pays(self, made: Program) -> bool:
        """Whether `auto` makes the steps on the GPU."""
        driver = self.driver
        span = driver.plan.span
        what = f"`{span.text}`" if span.source.name == PYTHON else f"`train` in line {span.line}"
        arrays = [*driver.rows.arrays, *driver.current]
        return driver.compute.gpu.pays(made, self.sizes(driver.rows), arrays, what, driver.wanted)

    def there(self, value: Any, dtype: DType, key: LeafKey | None = None) -> Any:
        """An array where the program runs; it may be the one given.  On a GPU that of a `key` is there for the next `train` too."""
        if isinstance(value, Memory) and self.keep:
            return cast(value, dtype)
        if self.keep and key is not None and np.ndim(value):
            return self.driver.compute.gpu.kept(key, value, dtype)
        array = np.ascontiguousarray(value, dtype=dtype)
        return self.keep(array.reshape(np.shape(value))) if self.keep else array

    def run(self, first: int, count: int, steps: int) -> tuple[int, bool]:
        """Up to `count` steps from step `first` of `steps` on: how many were made, and whether the next is bad."""
        driver, rows = self.driver, self.driver.rows
        began = time.perf_counter()
        self.take_sums()
        if self.keep:
            driver.compute.gpu.follow()
            self.state = [v.copy() if shared else v for v, shared in zip(self.state, self.shared, strict=True)]
            self.shared = [False] * len(self.state)
        epoch, place = divmod(first, rows.steps_an_epoch)
        schedules = [schedule_values(s, first, count, steps, rows.steps_an_epoch).astype(s.leaf.dtype) for s, _ in driver.schedules]
        arrays = [*self.data, *self.fixed, *schedules, *self.state, *([self.order] if self.feeds.shuffle else []),
                  self.sums, self.last, self.outcome]
        scalars = [place * rows.size, rows.size, rows.stop, rows.total, epoch, count, driver.made_before + first, self.key,
                   *self.ragged, *self.scalars]
        self.known["steps of a burst"] = count
        try:
            self.native(arrays, scalars, self.known)
        except MemoryError as problem:
            raise driver.compute.explained(problem) from None
        seconds = time.perf_counter() - began
        made, bad = int(self.outcome[0]), bool(self.outcome[1])
        if made and not bad:
            self.pace(made, seconds)
        self.give_sums()
        return made, bad

    def pace(self, made: int, seconds: float) -> None:
        """Bursts of about `SECONDS`; they grow by a factor of eight at the most."""
        ideal = int(made * SECONDS / max(seconds, 1e-9)) + 1
        self.burst = max(1, min(ideal, 8 * max(made, self.burst // 8), 1 << 22))

    def results(self) -> Sequence[Any]:
        """The variables, in the order of the driver's targets: copies, or what lies on a device and is copied before the next step."""
        copies: list[Any] = [None] * len(self.places)
        for place, array in zip(self.places, self.state, strict=True):
            copies[place] = array if self.keep else array.copy()[()]
        if self.keep:
            self.shared = [True] * len(self.state)
        return copies

    def take_sums(self) -> None:
        self.sums[:-1] = [f.sums[i] for f, i in self.watched]
        self.sums[-1] = self.driver.weight
        self.last[:] = [f.results[i] if f.results else 0.0 for f, i in self.watched]

    def give_sums(self) -> None:
        values: Mapping[int, float] = dict(enumerate(self.sums.tolist()))
        for number, (f, i) in enumerate(self.watched):
            f.sums[i] = values[number]
        self.driver.weight = values[len(self.watched)]
        if self.outcome[0]:
            last = self.last.tolist()
            for f in self.driver.functions:
                f.results = [last[n] for n, (g, _) in enumerate(self.watched) if g is f]
