"""The training driver.

In: a training plan and the session's state.  Out: the state after it, and a report.  State changes only when a whole step
has been computed and found finite, so an interruption or a divergence leaves that of the last whole step.
"""
from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any, Protocol

import numpy as np

from dsl.errors import Interrupted, LrError, error
from dsl.ops import philox
from dsl.ops.leaves import STEP, TRAINING, leaf_name
from dsl.record import record
from dsl.runtime.compute import Compute, LeafKey, solve_sizes
from dsl.runtime.divergence import all_finite, divergence, went_bad
from dsl.runtime.progress import Progress
from dsl.runtime.steps import StepFunction, average, rows_key, rows_of, schedule_value, step_function
from dsl.syntax import program
from dsl.syntax.binding import leaf_key
from dsl.syntax.expressions import epoch_leaf

STEPS_BETWEEN_REPORTS = 64
STEP_KEY = leaf_key(STEP)


class State(Protocol):
    """What the driver needs of the session."""

    compute: Compute
    values: dict[LeafKey, Any]
    steps_before: int

    def sizes(self) -> dict[str, int]: ...
    def allocate(self) -> None: ...
    def array(self, node: Any) -> Any: ...
    def execute(self, items: Sequence[program.Item]) -> None: ...
    def output_path(self, path: str) -> Path: ...
    def progress(self, total: int, unit: str) -> Progress: ...


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


# ---------------------------------------------------------------- data in order
@record
class Batch:
    """What one step reads: rows `low` to `high` in the epoch's order; `last` closes the epoch."""

    epoch: int
    low: int
    high: int
    last: bool


def batches(total: int, size: int, drop_last: bool) -> Iterator[Batch]:
    """Epoch after epoch, without end."""
    stops = list(range(size, total + 1, size))
    if not drop_last and (not stops or stops[-1] < total):
        stops.append(total)
    epoch = 0
    while True:
        low = 0
        for high in stops:
            yield Batch(epoch, low, high, high == stops[-1])
            low = high
        epoch += 1


class InterruptFlag:
    """Turns Ctrl-C into a flag that is looked at between whole steps."""

    raised = False

    def __enter__(self) -> InterruptFlag:
        self.active = threading.current_thread() is threading.main_thread()
        if self.active:
            def handler(number: int, frame: FrameType | None) -> None:
                self.raised = True
            self.before = signal.signal(signal.SIGINT, handler)
        return self

    def __exit__(self, *_: object) -> None:
        if self.active:
            signal.signal(signal.SIGINT, self.before)


# ---------------------------------------------------------------- the driver
class Driver:
    """One run of a `train` statement."""

    def __init__(self, state: State, plan: program.Train) -> None:
        self.state, self.plan = state, plan
        self.report = Report()
        mapped = bool(plan.over) and plan.over[0].mapped
        self.by_row = mapped and plan.batch is not None
        self.one_by_one = mapped and plan.batch is None
        self.whole = not plan.over or (not mapped and plan.batch is None)
        self.sizes_by_length: dict[int, dict[str, int]] = {}
        self.order: tuple[int, Any] | None = None
        self.last: dict[str, float] = {}
        self.epoch_values: dict[str, float] = {}
        self.best: float | None = None
        self.waited = 0
        self.log: IO[str] | None = None

    # ------------------------------------------------------------ set up
    def prepare(self) -> None:
        """Data, sizes, state and compiled functions; nothing is trained yet."""
        state, plan = self.state, self.plan
        self.arrays = [np.asarray(state.array(f.value)) for f in plan.over]
        self.rows = self.arrays[0].shape[0] if self.arrays and self.arrays[0].ndim else 1
        self.count = int(state.array(plan.count))
        batch = 1 if self.one_by_one or self.whole else int(state.array(plan.batch))
        self.total, self.batch = (1, 1) if self.whole else (self.rows, batch)
        self.check_rows()
        self.sizes_of(min(self.batch, self.total))
        state.allocate()
        for update in (u for g in plan.groups for u in g.updates):
            if update.start is not None and leaf_key(update.target) not in state.values:
                state.values[leaf_key(update.target)] = state.array(update.start)
        group_costs = {name for g in plan.groups for name in g.costs}
        others = {n: v for n, v in plan.watched.items() if n not in group_costs}
        self.functions = [step_function(state.compute, plan, g, {**g.costs, **(others if i == 0 else {})}, self.by_row)
                          for i, g in enumerate(plan.groups)]
        for function in self.functions:
            function.fill(state.values, state.compute)
            self.set_constant(function, leaf_key(TRAINING), np.bool_(True))
        self.draws = any(STEP_KEY in f.places for f in self.functions)
        self.feed_keys = [rows_key(f) if self.by_row else leaf_key(f.leaf) for f in plan.over]
        self.reported = [n for g in plan.groups for n in g.costs]
        self.sums = dict.fromkeys(plan.watched, 0.0)
        self.weight = 0.0

    def set_constant(self, function: StepFunction, key: LeafKey, value: Any) -> None:
        if key in function.places:
            function.leaves[function.places[key]] = value

    def check_rows(self) -> None:
        plan = self.plan
        if self.batch < 1:
            raise error("E0415", f"a batch size is at least 1, not {self.batch}", plan.span)
        if self.whole:
            return
        if self.rows == 0:
            raise error("E0420", "there are no rows to train on", plan.span)
        if plan.drop_last and self.batch > self.total:
            raise error("E0420", f"no whole batch: {self.total} rows, batches of {self.batch}", plan.span,
                        help="leave out `drop_last`, or take smaller batches")
        for feed, array in zip(plan.over, self.arrays, strict=True):
            if not array.ndim or array.shape[0] != self.rows:
                raise error("E0211", f"`{leaf_name(feed.leaf)}` has no {self.rows} rows to take batches of", feed.span,
                            help="with `batch`, every input has one row a sample; use fixed values as `data` directly")

    def sizes_of(self, length: int) -> dict[str, int]:
        """The sizes of a batch of this many rows."""
        if length not in self.sizes_by_length:
            shapes = [a.shape if self.whole else a.shape[1:] if f.mapped else (length, *a.shape[1:])
                      for f, a in zip(self.plan.over, self.arrays, strict=True)]
            pairs = [(f.leaf, s) for f, s in zip(self.plan.over, shapes, strict=True)]
            sizes = solve_sizes(pairs, self.state.sizes(), self.plan.span)
            self.sizes_by_length[length] = {**sizes, "rows of a batch": length}
        return self.sizes_by_length[length]

    # ------------------------------------------------------------ run
    def run(self) -> Report:
        self.prepare()
        plan, report = self.plan, self.report
        by_epoch = plan.unit == "epochs"
        a_epoch = self.total // self.batch if plan.drop_last else -(-self.total // self.batch)
        steps = self.count * a_epoch if by_epoch else self.count
        self.progress = progress = self.state.progress(self.count, plan.unit)
        began = time.perf_counter()
        failed = True
        try:
            if plan.log:
                self.log = open(self.state.output_path(plan.log), "w", encoding="utf-8")     # noqa: SIM115
            with InterruptFlag() as flag, np.errstate(all="ignore"):
                self.loop(steps, by_epoch, flag)
            failed = False
        finally:
            report.seconds = time.perf_counter() - began
            if self.log:
                self.log.close()
            progress.close(report.epochs if by_epoch else report.steps, report.steps, report.costs or None,
                           report.stopped, failed=failed)
        return report

    def loop(self, steps: int, by_epoch: bool, flag: InterruptFlag) -> None:
        report, plan = self.report, self.plan
        each_step = bool(plan.every or plan.stop or (plan.until is not None and not by_epoch))
        for batch in batches(self.total, self.batch, plan.drop_last):
            if report.steps >= steps:
                break
            self.step(batch, report.steps, steps)
            report.steps += 1
            stop = self.after_step(batch, by_epoch) if each_step or batch.last else False
            if flag.raised:
                raise error("E0721", f"interrupted after step {report.steps}; the state is that of this whole step", plan.span,
                            f"epoch {report.epochs + (not batch.last)}", kind=Interrupted)
            if batch.last and by_epoch:
                self.progress.update(report.epochs, report.steps, report.costs)
            elif not by_epoch and report.steps % STEPS_BETWEEN_REPORTS == 0:
                self.progress.update(report.steps, report.steps, report.costs or {n: float(self.last[n]) for n in self.reported})
            if stop:
                break
        if self.weight:
            self.close_epoch(count=False)

    # ------------------------------------------------------------ one step
    def inputs(self, batch: Batch) -> list[tuple[LeafKey, Any]]:
        """The leaves a step reads from data."""
        if self.whole:
            return [(key, array[()]) for key, array in zip(self.feed_keys, self.arrays, strict=True)]
        order: Any = batch.low if self.one_by_one else slice(batch.low, batch.high)
        if self.plan.shuffle_key is not None:
            order = self.shuffled(batch.epoch)[order]
        return [(key, array[order]) for key, array in zip(self.feed_keys, self.arrays, strict=True)]

    def shuffled(self, epoch: int) -> Any:
        """The order of rows in an epoch."""
        if self.order is None or self.order[0] != epoch:
            assert self.plan.shuffle_key is not None
            self.order = epoch, philox.shuffle_index(self.plan.shuffle_key, epoch, np.arange(self.total), self.total)
        return self.order[1]

    def step(self, batch: Batch, number: int, steps: int) -> None:
        """One whole step, or an error and the state before it."""
        state = self.state
        given = self.inputs(batch)
        if self.draws:
            given.append((STEP_KEY, np.int64(state.steps_before + number + 1)))
        for s in self.plan.schedules:
            given.append((leaf_key(s.leaf), np.dtype(s.leaf.dtype).type(schedule_value(s, number, steps, batch.epoch))))
        sizes = self.sizes_of(1 if self.whole else batch.high - batch.low)
        rows = 1.0 if self.whole else float(batch.high - batch.low)
        undo: list[tuple[LeafKey, Any]] = []
        for function in self.functions:
            executable = function.compiled.executable
            if executable.sizes is not sizes:
                state.compute.check_sizes(function.compiled, sizes)
                executable.set_sizes(sizes)
                executable.sizes = sizes
            leaves, places = function.leaves, function.places
            for key, value in given:
                if key in places:
                    leaves[places[key]] = value
            try:
                results = state.compute.run(function.compiled, leaves)
            except LrError:
                self.take_back(undo)
                raise
            count = len(function.costs)
            costs = list(zip(function.costs, results[:count], strict=True))
            changes = list(zip(function.targets, results[count:], strict=True))
            if not all_finite(results) and went_bad(costs, self.last, changes, state.values):
                self.take_back(undo)
                raise divergence(function, costs, changes, number + 1, state.compute.origins, self.plan.span)
            if len(self.functions) > 1:
                undo.extend((key, state.values[key]) for key, _ in changes)
            self.take(changes)
            for name, cost in costs:
                self.last[name] = cost
                self.sums[name] += float(cost) * rows
        self.weight += rows

    def take(self, changes: Sequence[tuple[LeafKey, Any]]) -> None:
        """New values of variables, seen by every group from now on."""
        self.state.values.update(changes)
        for function in self.functions:
            places = function.places
            for key, value in changes:
                if key in places:
                    function.leaves[places[key]] = value

    def take_back(self, undo: Sequence[tuple[LeafKey, Any]]) -> None:
        self.take(list(reversed(undo)))

    # ------------------------------------------------------------ after a step
    def after_step(self, batch: Batch, by_epoch: bool) -> bool:
        """What follows a step: the epoch's end, `every`, `stop`, `until`; whether to stop."""
        stop = False
        if batch.last:
            self.close_epoch()
            stop = self.at("epochs", self.report.epochs)
        stop = self.at("steps", self.report.steps) or stop
        if self.plan.until is not None and (batch.last or not by_epoch):
            if not by_epoch:
                self.publish({n: float(v) for n, v in self.last.items()})
            if bool(self.state.array(self.plan.until)):
                self.report.stopped = "until"
                stop = True
        return stop

    def at(self, unit: str, number: int) -> bool:
        """`every` and `stop` at this epoch or step."""
        for every in self.plan.every:
            if every.unit == unit and number % int(self.state.array(every.count)) == 0:
                if unit == "steps" and self.weight:
                    self.publish({n: s / self.weight for n, s in self.sums.items()})
                self.progress.clear()
                self.state.execute(every.body)
        rule = self.plan.stop
        if rule is None or rule.unit != unit:
            return False
        now = float(self.last[rule.name]) if unit == "steps" else self.epoch_values[rule.name]
        value = self.report.valid.get(rule.name, now)
        if self.best is None or (value < self.best if rule.lower else value > self.best):
            self.best, self.waited = value, 0
            return False
        self.waited += 1
        if self.waited < int(self.state.array(rule.count)):
            return False
        self.report.stopped = f"no {'lower' if rule.lower else 'higher'} {rule.name}"
        return True

    def close_epoch(self, count: bool = True) -> None:
        """The epoch's means, what they are on held-out data, and a line of the log."""
        self.epoch_values = {n: s / self.weight for n, s in self.sums.items()}
        self.report.epochs += count
        self.report.costs = {n: self.epoch_values[n] for n in self.reported}
        self.report.valid = self.validate()
        self.publish({**self.epoch_values, **self.report.valid})
        self.sums = dict.fromkeys(self.sums, 0.0)
        self.weight = 0.0
        if self.log:
            line: dict[str, Any] = {"epoch": self.report.epochs, "step": self.report.steps, **self.epoch_values}
            if self.report.valid:
                line["valid"] = self.report.valid
            self.log.write(json.dumps({k: _plain(v) for k, v in line.items()}) + "\n")
            self.log.flush()

    def publish(self, means: Mapping[str, float]) -> None:
        """The values that clauses see under the names of costs and metrics."""
        for name, node in self.plan.watched.items():
            self.state.values[leaf_key(epoch_leaf(name, node))] = np.dtype(node.dtype).type(means[name])

    def validate(self) -> dict[str, float]:
        """Costs and metrics on the `valid` data: the mean over its rows where it is mapped."""
        plan = self.plan
        if not plan.valid:
            return {}
        nodes = list(plan.watched.values())
        given: dict[LeafKey, Any] = {}
        shapes, length = [], 1
        for feed in plan.valid:
            array = np.asarray(self.state.array(feed.value))
            given[rows_key(feed) if feed.mapped else leaf_key(feed.leaf)] = array[()]
            shapes.append((feed.leaf, array.shape[1:] if feed.mapped else array.shape))
            length = array.shape[0] if feed.mapped else length
        if plan.valid[0].mapped:
            nodes = average(nodes, rows_of(plan.valid), plan.averaged | set(nodes), plan.span)
        sizes = {**solve_sizes(shapes, self.state.sizes(), plan.span), "rows of a batch": length}
        values = self.state.compute.values(nodes, sizes, given)
        return {n: float(v) for n, v in zip(plan.watched, values, strict=True)}


def _plain(value: Any) -> Any:
    """Numbers that JSON has no form for, as texts."""
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else \
        value if not isinstance(value, float) or math.isfinite(value) else str(value)
