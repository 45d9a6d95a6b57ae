"""What a training looks at between its steps.

In: a training that has just made a step.  Out: the epoch's means, what they are on held-out data, `every`, `stop`, `until`, the log
and checkpoints, in that order; and whether to stop.  Nothing here changes the state.
"""
from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from dsl.backends.cuda.memory import on_host
from dsl.record import entity
from dsl.runtime.bursts import Bursts
from dsl.runtime.compute import Compute, LeafKey
from dsl.runtime.files import Lines
from dsl.runtime.place import Place, Report, Watch, plain
from dsl.runtime.progress import Progress
from dsl.runtime.rows import HeldOut, Rows
from dsl.runtime.steps import StepFunction, average, rows_of
from dsl.syntax import program
from dsl.syntax.binding import leaf_key
from dsl.syntax.expressions import epoch_leaf


class State(Protocol):
    """What a training needs of the session."""

    compute: Compute
    values: dict[LeafKey, Any]
    steps_before: int

    def sizes(self) -> dict[str, int]: ...
    def allocate(self) -> None: ...
    def array(self, node: Any) -> Any: ...
    def execute(self, items: Sequence[program.Item]) -> None: ...
    def output_path(self, path: str) -> Path: ...
    def progress(self, total: int, unit: str) -> Progress: ...
    def remark(self, line: str) -> None: ...
    def write_checkpoint(self, plan: program.Train, place: Place, best: Mapping[LeafKey, Any] | None) -> bool: ...


@entity
class Observer:
    """Who is called after every `count` steps or epochs of this `train`, with how many there are and what was watched in the last of them
    (an epoch's means, and as `valid C` those on held-out data).  It may set variables; by `StopIteration` it ends the training."""

    unit: Literal["steps", "epochs"]
    count: int
    call: Callable[[int, dict[str, float]], object]
    name: str


class Run(Protocol):
    """What is looked at: a training between two steps."""

    plan: program.Train
    state: State
    rows: Rows
    report: Report
    functions: list[StepFunction]
    targets: list[LeafKey]
    current: Sequence[Any]
    bursts: Bursts | None
    progress: Progress
    observers: Sequence[Observer]
    weight: float
    length: int

    def refill(self) -> None: ...
    def laid(self, node: Any) -> Any: ...
    def keep(self) -> None: ...
    def clear_sums(self) -> None: ...
    def place(self) -> Place: ...


class Looks:
    """The clauses of a plan, ready to be looked at.

    best      the variables at the best value so far, where the plan asks for that"""

    def __init__(self, run: Run) -> None:
        plan, state = run.plan, run.state
        self.run, self.plan = run, plan
        self.epoch_values = [(name, leaf_key(epoch_leaf(name, node)), np.dtype(node.dtype).type) for name, node in plan.watched.items()]
        self.reported = [n for f in run.functions for n in f.watched[:f.costs]]
        self.every = [(e, int(state.array(e.count))) for e in plan.every]
        self.patience = int(state.array(plan.stop.count)) if plan.stop else 0
        self.saving = int(state.array(plan.checkpoint.count)) if plan.checkpoint else 0
        self.epoch_means: dict[str, float] = {}
        self.log: Lines | None = None
        self.held_out: HeldOut | None = None
        self.best: dict[LeafKey, Any] | None = None
        self.begin(Place())
        if plan.valid:
            self.prepare_valid()

    def begin(self, place: Place) -> None:
        """From this place on."""
        self.published, self.seen, self.watch = place.steps if place.seen else -1, dict(place.seen), place.watch
        if not place.watch.step:
            self.best = None

    def prepare_valid(self) -> None:
        run, plan = self.run, self.plan
        arrays = [run.laid(f.value) for f in plan.valid]
        if run.bursts is not None and run.bursts.keep:
            arrays = [run.bursts.there(a, f.value.dtype) if a.ndim else a for a, f in zip(arrays, plan.valid, strict=True)]
        self.held_out = HeldOut(plan.valid, arrays, run.state.sizes())
        self.valid_nodes = list(plan.watched.values())
        if self.held_out.mapped:
            averaged = plan.averaged | set(self.valid_nodes)
            self.valid_nodes = average(self.valid_nodes, rows_of(plan.valid), averaged, plan.span, run.state.compute.origins)

    # ------------------------------------------------------------ when
    @property
    def stepwise(self) -> bool:
        """Whether `until` is tested after each step."""
        return self.plan.until is not None and self.plan.unit == "steps"

    @property
    def between_epochs(self) -> bool:
        """Whether something is looked at between the steps of an epoch."""
        return bool(self.every or self.plan.stop or self.stepwise or self.saving or self.run.observers)

    def to_next(self) -> int:
        """Steps up to the next one after which there is something to do."""
        plan, steps, epoch = self.plan, self.run.report.steps, self.run.rows.steps_an_epoch
        if self.stepwise or (plan.stop is not None and plan.stop.unit == "steps"):
            return 1
        counts = [(every.unit, count) for every, count in self.every] + [(o.unit, o.count) for o in self.run.observers]
        if plan.checkpoint is not None:
            counts.append((plan.checkpoint.unit, self.saving))
        if self.log or self.held_out or plan.stop is not None or plan.until is not None:
            counts.append(("epochs", 1))
        lengths = [count * epoch if unit == "epochs" else count for unit, count in counts]
        return min([length - steps % length for length in lengths], default=1 << 62)

    @property
    def last(self) -> bool:
        """Whether the step was the last one of its epoch."""
        return self.run.report.steps % self.run.rows.steps_an_epoch == 0

    def follows(self) -> bool:
        """Whether something may follow this step."""
        return self.last or self.between_epochs

    # ------------------------------------------------------------ after a step
    def after_step(self) -> None:
        """What follows a step; the report says if it is to be the last one."""
        run, report, plan, until, last = self.run, self.run.report, self.plan, self.plan.until, self.last
        if self.every or until is not None or self.held_out is not None or (plan.checkpoint and plan.checkpoint.best):
            run.keep()                               # somebody will look at it
        if last:
            self.close_epoch()
            self.at("epochs", report.epochs)
        self.at("steps", report.steps)
        if until is not None and (last or self.stepwise):
            self.publish()
            if bool(run.state.array(until)):
                report.stopped = "until"
        self.tell_observers()
        if self.saves():
            self.look_for_best()
            if not report.stopped:                   # or else it is written at the end, which is now
                run.keep()
                self.save(run.place())

    def tell_observers(self) -> None:
        run, report = self.run, self.run.report
        for observer in run.observers:
            number = report.steps if observer.unit == "steps" else report.epochs if self.last else 0
            if not number or number % observer.count:
                continue
            if observer.unit == "steps":
                seen = {n: float(v) for f in run.functions for n, v in zip(f.watched, f.results)}
            else:
                seen = {**self.epoch_means, **{f"valid {n}": v for n, v in report.valid.items()}}
            run.keep()
            before = dict(run.state.values)
            try:
                observer.call(number, seen)
            except StopIteration:
                report.stopped = observer.name
            finally:
                if any(run.state.values.get(key) is not value for key, value in before.items()):
                    run.refill()

    def at(self, unit: str, number: int) -> None:
        """`every` and `stop` at this epoch or step."""
        for every, count in self.every:
            if every.unit == unit and number % count == 0:
                self.publish()
                self.run.progress.clear()
                self.run.state.execute(every.body)
        rule = self.plan.stop
        if rule is not None and rule.unit == unit and not self.judge(rule.name, rule.lower) and self.watch.waited >= self.patience:
            self.run.report.stopped = f"no {'lower' if rule.lower else 'higher'} {rule.name}"

    # ------------------------------------------------------------ the best
    def judge(self, name: str, lower: bool) -> bool:
        """Whether what is watched is better than ever before; the state is held then, if the plan asks for the best one."""
        value, watch, run = self.publish()[name], self.watch, self.run
        if watch.step and not math.isnan(watch.best) and not (value < watch.best if lower else value > watch.best):
            self.watch = Watch(watch.step, watch.best, watch.waited + 1)
            return False
        self.watch = Watch(run.report.steps, value)
        if self.plan.checkpoint is not None and self.plan.checkpoint.best is not None:
            self.best = dict(zip(run.targets, run.current, strict=True))
        return True

    def look_for_best(self) -> None:
        """Where no `stop` looks for the best value, checkpoints do."""
        checkpoint = self.plan.checkpoint
        if checkpoint is not None and checkpoint.best is not None and self.plan.stop is None:
            self.judge(*checkpoint.best)

    def at_the_end(self) -> None:
        """The end is a moment of the checkpoint too."""
        if self.run.report.steps and not self.saves():
            self.look_for_best()

    # ------------------------------------------------------------ checkpoints
    def saves(self) -> bool:
        """Whether the checkpoint is written at this step."""
        checkpoint, report = self.plan.checkpoint, self.run.report
        if checkpoint is None:
            return False
        number = report.steps if checkpoint.unit == "steps" else report.epochs if self.last else None
        return number is not None and number % self.saving == 0

    def save(self, place: Place) -> bool:
        """The state as the session has it, and this place, into the checkpoint's file; whether a script can go on from it."""
        if self.log is not None:
            self.log.flush_to_disk()                 # or else the place would know of lines that a crash has lost
        return self.run.state.write_checkpoint(self.plan, place, self.best)

    # ------------------------------------------------------------ the log
    def open_log(self, place: Place) -> None:
        """The log as it was at this place."""
        if self.plan.log is None:
            return
        path = self.run.state.output_path(self.plan.log)
        self.log = Lines(path, place.log, self.plan.span)
        if self.log.length < place.log:
            self.run.state.remark(f"{path} is shorter than it was: lines of it are missing")

    def close_log(self) -> None:
        if self.log is not None:
            self.log.close()
            self.log = None

    # ------------------------------------------------------------ epochs
    def close_epoch(self) -> None:
        """The epoch's means, what they are on held-out data, and a line of the log."""
        run, report = self.run, self.run.report
        report.epochs = report.steps // run.rows.steps_an_epoch
        self.epoch_means = means = self.means()
        report.costs = self.costs(means)
        self.published = -1
        self.publish()
        run.clear_sums()
        if self.log:
            line: dict[str, Any] = {"epoch": report.epochs, "step": report.steps, **means}
            if report.valid:
                line["valid"] = report.valid
            self.log.write(json.dumps({k: plain(v) for k, v in line.items()}))

    def means(self) -> dict[str, float]:
        """What is watched, as means over the rows of the epoch so far."""
        return {n: s / self.run.weight for f in self.run.functions for n, s in zip(f.watched, f.sums, strict=True)}

    def costs(self, means: dict[str, float]) -> dict[str, float]:
        """Those that the updates minimise or differentiate."""
        return {n: means[n] for n in self.reported}

    def publish(self) -> dict[str, float]:
        """The values that clauses see under the names of costs and metrics: the epoch's means (so far, in the middle of
        one), or those on held-out data."""
        run = self.run
        if self.published != run.report.steps:
            self.published = run.report.steps
            self.seen = self.means()
            if self.held_out is not None:
                values = run.state.compute.values(self.valid_nodes, self.held_out.sizes, self.held_out.given, again=True)
                run.report.valid = {n: float(on_host(v)) for n, v in zip(self.plan.watched, values, strict=True)}
                run.length = 0
                self.seen = run.report.valid
            for name, key, dtype in self.epoch_values:
                run.state.values[key] = dtype(self.seen[name])
        return self.seen
