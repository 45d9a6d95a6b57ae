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
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any, Protocol

import numpy as np

from dsl.backends.base import FaultAt
from dsl.backends.cuda.failures import Refused
from dsl.backends.cuda.memory import Memory, on_host
from dsl.errors import Interrupted, LrError, error
from dsl.ir.node import Node
from dsl.loops.legalise import NotNative
from dsl.ops.leaves import STEP, is_leaf
from dsl.ops.table import Fault
from dsl.runtime.bursts import Bursts
from dsl.runtime.compute import Compute, LeafKey
from dsl.runtime.divergence import divergence, find_bad
from dsl.runtime.files import open_text
from dsl.runtime.progress import Progress, summary
from dsl.runtime.rows import HeldOut, Rows
from dsl.runtime.steps import StepFunction, average, check_schedule, rows_of, schedule_value, step_functions
from dsl.syntax import program
from dsl.syntax.binding import leaf_key
from dsl.syntax.expressions import epoch_leaf

SECONDS_BETWEEN_LOOKS = 0.02
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

    def __str__(self) -> str:
        return summary(self.epochs, self.steps, self.seconds, self.costs, self.stopped)


class InterruptFlag:
    """Turns Ctrl-C into a flag that is looked at between whole steps; a second one ends the step it meets, but for those of a
    burst (`in_burst`), which are counted only after it."""

    raised = in_burst = False

    def __enter__(self) -> InterruptFlag:
        self.active = threading.current_thread() is threading.main_thread()
        if self.active:
            def handler(number: int, frame: FrameType | None) -> None:
                if self.raised and not self.in_burst:
                    raise KeyboardInterrupt
                self.raised = True
            self.before = signal.signal(signal.SIGINT, handler)
        return self

    def __exit__(self, *_: object) -> None:
        if self.active:
            signal.signal(signal.SIGINT, self.before)


class Pace:
    """How many steps to make before looking at the clock."""

    def __init__(self) -> None:
        self.burst, self.looked = 1, time.monotonic()

    def look(self) -> None:
        now = time.monotonic()
        self.burst = self.burst * 2 if now - self.looked < SECONDS_BETWEEN_LOOKS else max(1, self.burst // 2)
        self.looked = now


# ---------------------------------------------------------------- the driver
class Driver:
    """One run of a `train` statement; `often`: how often it may be run again."""

    def __init__(self, state: State, plan: program.Train, often: int = 1) -> None:
        self.state, self.plan = state, plan
        self.compute, self.values = state.compute, state.values
        self.often = often
        self.steps_elsewhere = 0
        """Steps made before this run that its reports count on from (`m.step` makes one at a time)."""
        self.report = Report()
        self.length = 0
        self.published = -1
        self.best: float | None = None
        self.waited = 0
        self.log: IO[str] | None = None

    @property
    def made(self) -> int:
        return self.report.steps

    @property
    def made_before(self) -> int:
        return self.state.steps_before

    @property
    def wanted(self) -> int:
        return self.often * self.count * (self.rows.steps_an_epoch if self.plan.unit == "epochs" else 1)

    # ------------------------------------------------------------ set up
    def prepare(self) -> None:
        """Data, sizes, state and compiled functions; nothing is trained yet."""
        state, plan = self.state, self.plan
        arrays = [self.laid(f.value) for f in plan.over]
        batch = int(state.array(plan.batch)) if plan.batch is not None else 1
        self.rows = rows = Rows(plan, arrays, batch, state.sizes)
        rows.sources = [leaf_key(f.value) if is_leaf(f.value) else None for f in plan.over]
        self.count = int(state.array(plan.count))
        self.check_numbers()
        rows.sizes(min(rows.size, rows.total))
        state.allocate()
        for update in (u for g in plan.groups for u in g.updates):
            if update.start is not None and leaf_key(update.target) not in state.values:
                state.values[leaf_key(update.target)] = state.array(update.start)
        self.functions = step_functions(state.compute, plan, rows.by_row)
        self.targets = list(dict.fromkeys(key for f in self.functions for key in f.targets))
        self.schedules = [(s, np.dtype(s.leaf.dtype).type) for s in plan.schedules]
        self.draws = any(STEP_KEY in f.compiled.keys for f in self.functions)
        self.given = [*rows.keys, *([STEP_KEY] if self.draws else []), *(leaf_key(s.leaf) for s in plan.schedules)]
        for function in self.functions:
            function.connect(self.given, self.targets)
        self.bursts: Bursts | None = None
        self.pace = Pace()
        self.fill()
        if state.compute.device() != "numpy":
            with suppress(NotNative):                # an op without loops: the reference makes the steps
                self.bursts = Bursts(self)
        self.epoch_values = [(name, leaf_key(epoch_leaf(name, node)), np.dtype(node.dtype).type) for name, node in plan.watched.items()]
        self.reported = [n for f in self.functions for n in f.watched[:f.costs]]
        self.weight = 0.0
        self.every = [(e, int(state.array(e.count))) for e in plan.every]
        self.patience = int(state.array(plan.stop.count)) if plan.stop else 0
        self.prepare_valid()

    def fill(self) -> None:
        """The state and the functions' other leaves as they are now."""
        self.length = 0
        self.current: Sequence[Any] = [self.state.values[key] for key in self.targets]
        for function in self.functions:
            function.fill(self.state.values, self.state.compute)
        self.away = True

    def laid(self, node: Node) -> Any:
        """The array of a term, which may lie on a GPU."""
        value = self.state.array(node)
        return value if isinstance(value, Memory) else np.asarray(value)

    def fetch(self) -> None:
        """The reference is to make a step: what it takes lies on the host."""
        self.current = list(map(on_host, self.current))
        for function in self.functions:
            function.rest = list(map(on_host, function.rest))
        self.away = False

    def check_numbers(self) -> None:
        plan = self.plan
        if self.count < 0:
            raise error("E0415", f"how long to train is a whole number, not {self.count}", plan.span)
        counts = [e.count for e in plan.every] + ([plan.stop.count] if plan.stop else [])
        for count in counts:
            if int(self.state.array(count)) < 1:
                raise error("E0415", "`every` and `stop` count from 1", plan.span)
        for schedule in plan.schedules:
            check_schedule(schedule, plan.span)

    def prepare_valid(self) -> None:
        plan, compute = self.plan, self.state.compute
        self.held_out: HeldOut | None = None
        if plan.valid:
            arrays = [self.laid(f.value) for f in plan.valid]
            if self.bursts is not None and self.bursts.keep:
                arrays = [self.bursts.there(a, f.value.dtype) if a.ndim else a for a, f in zip(arrays, plan.valid, strict=True)]
            self.held_out = held_out = HeldOut(plan.valid, arrays, self.state.sizes())
            self.valid_nodes = list(plan.watched.values())
            if held_out.mapped:
                averaged = plan.averaged | set(self.valid_nodes)
                self.valid_nodes = average(self.valid_nodes, rows_of(plan.valid), averaged, plan.span, compute.origins)

    # ------------------------------------------------------------ run
    def again(self, arrays: Sequence[Any], count: int) -> Report:
        """Another `train` of the same plan, over other arrays and for another count; all that was compiled serves again."""
        self.count, self.report = count, Report()
        self.rows.hold(arrays)
        self.published, self.best, self.waited = -1, None, 0
        self.check_numbers()
        self.state.allocate()
        self.clear_sums()
        for function in self.functions:
            function.results = ()
        self.fill()
        return self.go()

    def run(self) -> Report:
        with self.compute.training_lock:
            self.prepare()
            return self.go()

    def go(self) -> Report:
        plan, report = self.plan, self.report
        by_epoch = plan.unit == "epochs"
        steps = self.count * self.rows.steps_an_epoch if by_epoch else self.count
        if plan.log:
            self.log = open_text(self.state.output_path(plan.log), plan.span)
        if self.bursts is not None:
            self.bursts.fill()
        self.progress = progress = self.state.progress(self.count, plan.unit)
        failed = True
        try:
            with InterruptFlag() as flag, np.errstate(all="ignore"):
                began = time.perf_counter()
                try:
                    self.loop(steps, by_epoch, flag)
                finally:
                    report.seconds = time.perf_counter() - began
            failed = False
        except KeyboardInterrupt:
            raise self.interrupted() from None
        finally:
            self.keep()
            self.release()
            report.epochs = report.steps // self.rows.steps_an_epoch
            if self.log:
                self.log.close()
            progress.close(report.epochs if by_epoch else report.steps, report.steps, report.costs or None,
                           report.stopped, failed=failed)
        return report

    def loop(self, steps: int, by_epoch: bool, flag: InterruptFlag) -> None:
        report, epoch = self.report, self.rows.steps_an_epoch
        looked = time.monotonic()
        while report.steps < steps:
            self.advance(min(steps - report.steps, self.to_next_look(by_epoch)), steps, flag)
            last = report.steps % epoch == 0
            stop = self.after_step(last, by_epoch) if last or self.each_step(by_epoch) else False
            if flag.raised:
                raise self.interrupted()
            now = time.monotonic()
            if now - looked >= SECONDS_BETWEEN_LOOKS:
                looked = now
                done = report.steps / epoch if by_epoch else report.steps
                costs = report.costs or (self.costs(self.means()) if self.weight else None)
                self.progress.update(done, report.steps, costs)
            if stop:
                break
        if self.weight:
            self.keep()
            self.close_epoch()

    def each_step(self, by_epoch: bool) -> bool:
        """Whether something is looked at between the steps of an epoch."""
        plan = self.plan
        return bool(plan.every or plan.stop or (plan.until is not None and not by_epoch))

    def to_next_look(self, by_epoch: bool) -> int:
        """Steps up to the next one after which the plan has something to do."""
        plan, steps, epoch = self.plan, self.report.steps, self.rows.steps_an_epoch
        if plan.until is not None and not by_epoch:
            return 1
        waits = [count - steps % count for every, count in self.every if every.unit == "steps"]
        if plan.stop is not None and plan.stop.unit == "steps":
            return 1
        epochs = [count for every, count in self.every if every.unit == "epochs"]
        if self.log or self.held_out or plan.stop is not None or plan.until is not None:
            epochs.append(1)
        waits += [count * epoch - steps % (count * epoch) for count in epochs]
        return min(waits, default=1 << 62)

    def advance(self, count: int, steps: int, flag: InterruptFlag) -> None:
        """At least one and at most `count` whole steps."""
        report, rows = self.report, self.rows
        if self.bursts is not None:
            flag.in_burst = True
            made, bad = self.burst(self.bursts, report.steps, min(count, self.bursts.burst), steps)
            report.steps += made
            flag.in_burst = False
            if not bad:
                return
            self.keep()
        to_end = rows.steps_an_epoch - report.steps % rows.steps_an_epoch
        for _ in range(1 if self.bursts is not None else min(count, to_end, self.pace.burst)):
            epoch, place = divmod(report.steps, rows.steps_an_epoch)
            low = place * rows.size
            if not place:
                self.clear_sums()
            self.step(epoch, low, min(low + rows.size, rows.stop), steps)
            report.steps += 1
            if flag.raised:
                break
        if self.bursts is not None:
            self.bursts.fill()
        else:
            self.pace.look()

    def burst(self, bursts: Bursts, first: int, count: int, steps: int) -> tuple[int, bool]:
        """Steps in native code: on the CPU from now on if `auto` has chosen a GPU whose compiler refuses the program."""
        try:
            return bursts.run(first, count, steps)
        except Refused as problem:
            if not self.compute.gpu.does_without(problem):
                raise
        self.current = bursts.results()
        self.compute.without_gpu(bursts.made)
        self.bursts = bursts = Bursts(self)
        bursts.fill()
        return bursts.run(first, count, steps)

    def interrupted(self) -> LrError:
        steps = self.report.steps
        epoch = -(-steps // self.rows.steps_an_epoch)
        state = f"the state is that of this whole step, in epoch {epoch}" if steps else "the state is that from before"
        return error("E0721", f"interrupted after step {steps}", self.plan.span, notes=(state,), kind=Interrupted)

    # ------------------------------------------------------------ one step
    def single(self) -> None:
        """One step on all the rows that are held."""
        self.fill()
        if self.bursts is not None:
            self.bursts.fill()
            made, _ = self.burst(self.bursts, 0, 1, 1)
            if made:
                self.keep()
                return
        with np.errstate(all="ignore"):
            self.step(0, 0, self.rows.total, 1)
        self.state.values.update(zip(self.targets, self.current, strict=True))

    def step(self, epoch: int, low: int, high: int, steps: int) -> None:
        """One whole step on these rows, or an error and the state before it."""
        state, number, length = self.state, self.report.steps, high - low
        given = self.rows.read(epoch, low, high)
        if self.draws:
            given.append(np.int64(state.steps_before + number + 1))
        for schedule, dtype in self.schedules:
            given.append(dtype(schedule_value(schedule, number, steps, epoch)))
        if length != self.length:
            self.resize(length)
        if self.away:
            self.fetch()
        current = self.current
        try:
            for function in self.functions:
                results = function.run(*given, *current, *function.rest)
                if not function.finite(results):
                    self.check(function, [*given, *current], results, self.steps_elsewhere + number + 1)
                current = function.after(current, results)
                function.results = results
        except Fault as fault:
            raise state.compute.explained(function.compiled.reference.located(fault)) from None
        except (FaultAt, MemoryError) as problem:
            raise state.compute.explained(problem) from None
        self.current = current
        for function in self.functions:
            sums = function.sums
            for i, value in enumerate(function.results[:function.first]):
                sums[i] += float(value) * length
        self.weight += length

    def check(self, function: StepFunction, taken: Sequence[Any], results: Sequence[Any], step: int) -> None:
        """Raises `Diverged` if something became nan, or infinite from finite."""
        before = dict(zip(self.targets, taken[-len(self.targets):]))
        bad = find_bad(function, results, before)
        if bad is not None:
            raise divergence(function, taken, bad, step, self.state.compute.origins, self.plan.span)

    def keep(self) -> None:
        """The session sees the state after the last whole step."""
        if self.bursts is not None:
            self.current, self.away = self.bursts.results(), True
        self.state.values.update(zip(self.targets, self.current, strict=True))

    def release(self) -> None:
        """A training that may be run again, over other arrays, holds none of these."""
        self.rows.release()
        if self.bursts is not None:
            self.bursts.release()

    def resize(self, length: int) -> None:
        """Steps of this many rows from now on."""
        sizes = self.rows.sizes(length)
        for function in self.functions:
            self.state.compute.check_sizes(function.compiled, sizes)
            function.compiled.executable.set_sizes(sizes)
        self.length = length

    # ------------------------------------------------------------ after a step
    def after_step(self, last: bool, by_epoch: bool) -> bool:
        """What follows a step: the epoch's end, `every`, `stop`, `until`; whether to stop."""
        report, until = self.report, self.plan.until
        stop = False
        if self.every or until is not None or self.held_out is not None:
            self.keep()                              # somebody will look at it
        if last:
            self.close_epoch()
            stop = self.at("epochs", report.epochs)
        stop = self.at("steps", report.steps) or stop
        if until is not None and (last or not by_epoch):
            self.publish()
            if bool(self.state.array(until)):
                report.stopped = "until"
                stop = True
        return stop

    def at(self, unit: str, number: int) -> bool:
        """`every` and `stop` at this epoch or step."""
        for every, count in self.every:
            if every.unit == unit and number % count == 0:
                self.publish()
                self.progress.clear()
                self.state.execute(every.body)
        rule = self.plan.stop
        if rule is None or rule.unit != unit:
            return False
        value = self.publish()[rule.name]
        if self.best is None or math.isnan(self.best) or (value < self.best if rule.lower else value > self.best):
            self.best, self.waited = value, 0
            return False
        self.waited += 1
        if self.waited < self.patience:
            return False
        self.report.stopped = f"no {'lower' if rule.lower else 'higher'} {rule.name}"
        return True

    def close_epoch(self) -> None:
        """The epoch's means, what they are on held-out data, and a line of the log."""
        report = self.report
        report.epochs = report.steps // self.rows.steps_an_epoch
        means = self.means()
        report.costs = self.costs(means)
        self.published = -1
        self.publish()
        self.clear_sums()
        if self.log:
            line: dict[str, Any] = {"epoch": report.epochs, "step": report.steps, **means}
            if report.valid:
                line["valid"] = report.valid
            self.log.write(json.dumps({k: _plain(v) for k, v in line.items()}) + "\n")
            self.log.flush()

    def clear_sums(self) -> None:
        self.weight = 0.0
        for function in self.functions:
            function.sums = [0.0] * function.first

    def means(self) -> dict[str, float]:
        """What is watched, as means over the rows of the epoch so far."""
        return {n: s / self.weight for f in self.functions for n, s in zip(f.watched, f.sums, strict=True)}

    def costs(self, means: dict[str, float]) -> dict[str, float]:
        """Those that the updates minimise or differentiate."""
        return {n: means[n] for n in self.reported}

    def publish(self) -> dict[str, float]:
        """The values that clauses see under the names of costs and metrics: the epoch's means (so far, in the middle of
        one), or those on held-out data."""
        if self.published != self.report.steps:
            self.published = self.report.steps
            self.seen = self.means()
            if self.held_out is not None:
                values = self.state.compute.values(self.valid_nodes, self.held_out.sizes, self.held_out.given, again=True)
                self.report.valid = {n: float(on_host(v)) for n, v in zip(self.plan.watched, values, strict=True)}
                self.length = 0
                self.seen = self.report.valid
            for name, key, dtype in self.epoch_values:
                self.state.values[key] = dtype(self.seen[name])
        return self.seen


def _plain(value: Any) -> Any:
    """Numbers that JSON has no form for, as texts."""
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else \
        value if not isinstance(value, float) or math.isfinite(value) else str(value)
