"""The training driver.

In: a training plan and the session's state.  Out: the state after it, and a report.  State changes only when a whole step
has been computed and found finite, so an interruption or a divergence leaves that of the last whole step.  What is done between
steps is `dsl/runtime/looks.py`; from any place between two steps a training goes on as if it had never stopped.
"""
from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from dsl.backends.base import FaultAt
from dsl.backends.cuda.failures import Refused
from dsl.backends.cuda.memory import Memory, on_host
from dsl.errors import Diagnostic, Diverged, Interrupted, LrError, error
from dsl.ir.node import Node
from dsl.loops.legalise import NotNative
from dsl.ops.leaves import STEP, is_leaf
from dsl.ops.table import Fault
from dsl.runtime.bursts import Bursts
from dsl.runtime.compute import LeafKey
from dsl.runtime.divergence import divergence, find_bad
from dsl.runtime.interruption import InterruptFlag
from dsl.runtime.looks import Looks, Observer, State
from dsl.runtime.place import Place, Report
from dsl.runtime.rows import Rows
from dsl.runtime.steps import StepFunction, check_schedule, schedule_value, step_functions
from dsl.syntax import program
from dsl.syntax.binding import leaf_key

__all__ = ["Driver", "Report"]
SECONDS_BETWEEN_LOOKS = 0.02
STEP_KEY = leaf_key(STEP)


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
        self.flag = InterruptFlag()
        self.observers: Sequence[Observer] = ()
        self.left: Place | None = None
        """Where it can go on, if it was cut off."""
        self.mark: Place | None = None
        self.settled = False

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
        self.weight = 0.0
        self.bursts: Bursts | None = None
        self.pace = Pace()
        self.fill()
        if state.compute.device() != "numpy":
            with suppress(NotNative):                # an op without loops: the reference makes the steps
                self.bursts = Bursts(self)
        self.looks = Looks(self)

    def fill(self) -> None:
        """The state and the functions' other leaves as they are now."""
        self.length = 0
        self.current: Sequence[Any] = [self.state.values[key] for key in self.targets]
        for function in self.functions:
            function.fill(self.state.values, self.state.compute)
        self.away = True

    def refill(self) -> None:
        """Variables may have been set between two steps."""
        self.fill()
        if self.bursts is not None:
            self.bursts.fill()

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
        counts = [e.count for e in plan.every] + [c.count for c in (plan.stop, plan.checkpoint) if c is not None]
        for count in counts:
            if int(self.state.array(count)) < 1:
                raise error("E0415", "`every`, `stop` and `checkpoint` count from 1", plan.span)
        for schedule in plan.schedules:
            check_schedule(schedule, plan.span)

    # ------------------------------------------------------------ run
    def again(self, arrays: Sequence[Any], count: int) -> Report:
        """Another `train` of the same plan, over other arrays and for another count; all that was compiled serves again."""
        self.count, self.report = count, Report()
        self.rows.hold(arrays)
        self.check_numbers()
        self.state.allocate()
        for function in self.functions:
            function.results = ()
        return self.go()

    def run(self, place: Place | None = None, best: dict[LeafKey, Any] | None = None) -> Report:
        """Train from the beginning, or on from a place whose state the session has; `best` is what was best before it."""
        with self.compute.training_lock:
            self.prepare()
            self.looks.best = best
            return self.go(place)

    def go(self, place: Place | None = None) -> Report:
        """Train from the beginning, or on from a place whose state the session has."""
        report, by_epoch = self.report, self.plan.unit == "epochs"
        self.begin(place or Place(before=self.state.steps_before))
        self.looks.open_log(place or Place())
        if self.bursts is not None:
            self.bursts.fill()
        self.progress = progress = self.state.progress(self.count, self.plan.unit)
        progress.start_from(report.epochs if by_epoch else report.steps, report.steps)
        failed, self.began = True, time.perf_counter() - report.seconds
        try:
            with InterruptFlag() as self.flag, np.errstate(all="ignore"):
                self.loop(by_epoch)
            failed = False
        except Diverged:                             # going on would meet the same step
            raise
        except BaseException as problem:
            self.left = self.mark or self.place()
            if isinstance(problem, KeyboardInterrupt):
                raise self.interrupted(self.left) from None
            raise
        finally:
            report.seconds = self.seconds
            if not self.settled:
                self.keep()
            if self.left is None:
                self.release()
            report.epochs = report.steps // self.rows.steps_an_epoch
            self.looks.close_log()
            progress.close(report.epochs if by_epoch else report.steps, report.steps, report.costs or None,
                           report.stopped, failed=failed)
        return report

    def begin(self, place: Place) -> None:
        """At this place, with the state as the session has it."""
        report = self.report
        report.steps, report.costs, report.valid = place.steps, dict(place.costs), dict(place.valid)
        report.epochs = place.steps // self.rows.steps_an_epoch
        report.stopped, report.seconds = place.stopped, place.seconds
        self.weight = place.weight
        for function in self.functions:
            function.sums = [place.sums.get(name, 0.0) for name in function.watched]
        self.looked, self.finished, self.settled = place.looked, place.finished, False
        self.left = self.mark = None
        self.looks.begin(place)
        self.fill()

    def place(self, looked: bool = True, finished: bool = False) -> Place:
        """Where the training stands."""
        report, looks = self.report, self.looks
        sums = {n: s for f in self.functions for n, s in zip(f.watched, f.sums, strict=True)}
        return Place(self.made_before, report.steps, looked, sums, self.weight, dict(report.costs), dict(report.valid),
                     dict(looks.seen) if looks.published == report.steps else {}, report.stopped, looks.watch,
                     looks.log.length if looks.log else 0, self.seconds, finished, report.steps // self.rows.steps_an_epoch)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began

    def loop(self, by_epoch: bool) -> None:
        """To the end.  While something follows a step, `mark` is the place before that, where to go on if it is cut off."""
        report, epoch, looks = self.report, self.rows.steps_an_epoch, self.looks
        steps = self.count * epoch if by_epoch else self.count
        clock = time.monotonic()
        while not self.finished and ((report.steps < steps and not report.stopped) or not self.looked):
            if self.looked:
                self.advance(min(steps - report.steps, looks.to_next()), steps)
            if looks.follows():
                self.mark = self.place(looked=False)
                looks.after_step()
            self.looked, self.mark = True, None
            if self.flag.raised:
                raise KeyboardInterrupt
            now = time.monotonic()
            if now - clock >= SECONDS_BETWEEN_LOOKS:
                clock = now
                done = report.steps / epoch if by_epoch else report.steps
                costs = report.costs or (looks.costs(looks.means()) if self.weight else None)
                self.progress.update(done, report.steps, costs, report.valid)
        if not self.finished:
            self.mark = self.place()
            self.finish()
            self.mark = self.place(finished=True)
        if self.flag.raised:
            raise KeyboardInterrupt

    def finish(self) -> None:
        """The end: the last epoch is closed, the best state takes its place if that was asked for, and the checkpoint is written."""
        if self.weight:
            self.keep()
            self.looks.close_epoch()
        if self.plan.checkpoint is None:
            return
        self.keep()
        self.looks.at_the_end()
        if self.looks.best is not None:
            self.state.values.update(self.looks.best)
            self.settled = True
        self.looks.save(self.place(finished=True))

    def advance(self, count: int, steps: int) -> None:
        """At least one and at most `count` whole steps."""
        report, rows, flag = self.report, self.rows, self.flag
        if self.bursts is not None:
            flag.held = True
            made, bad = self.burst(self.bursts, report.steps, self.to_an_end(min(count, self.bursts.burst)), steps)
            report.steps += made
            flag.held = False
            if not bad:
                return
            self.keep()
        to_end = rows.steps_an_epoch - report.steps % rows.steps_an_epoch
        for _ in range(1 if self.bursts is not None else min(count, to_end, self.pace.burst)):
            epoch, place = divmod(report.steps, rows.steps_an_epoch)
            low = place * rows.size
            if not place:
                self.clear_sums()
            high = min(low + rows.size, rows.stop)
            state = self.step(epoch, low, high, steps)
            flag.held = True                         # all of it, or nothing
            self.take(state, high - low)
            report.steps += 1
            flag.held = False
            if flag.raised:
                break
        if self.bursts is not None:
            self.bursts.fill()
        else:
            self.pace.look()

    def to_an_end(self, count: int) -> int:
        """So many steps or fewer: to the end of an epoch if there is one among them, where costs are means over all of its rows."""
        over = (self.report.steps + count) % self.rows.steps_an_epoch
        return count - over if over < count else count

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

    def interrupted(self, place: Place) -> LrError:
        """What is said of it; the checkpoint holds the place."""
        steps = self.report.steps
        place_in_data = f", in epoch {-(-steps // self.rows.steps_an_epoch)}" if self.plan.over else ""
        notes = ["the state is that of this whole step" if steps else "the state is that from before"]
        found: list[Diagnostic] = []
        checkpoint = self.plan.checkpoint
        if checkpoint is not None and not place.finished:
            self.keep()
            try:
                if self.looks.save(place):
                    notes.append(f"`--resume` goes on from {checkpoint.path}")
            except LrError as trouble:
                found.extend(trouble.diagnostics)
        problem = error("E0721", f"interrupted after step {steps}{place_in_data}" if steps else "interrupted before the first step",
                        self.plan.span, notes=notes)
        return Interrupted(problem.diagnostic, *found)

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
            self.take(self.step(0, 0, self.rows.total, 1), self.rows.total)
        self.state.values.update(zip(self.targets, self.current, strict=True))

    def step(self, epoch: int, low: int, high: int, steps: int) -> Sequence[Any]:
        """The variables after one step on these rows, or an error."""
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
        return current

    def take(self, state: Sequence[Any], length: int) -> None:
        """A whole step of this many rows has been made."""
        self.current = state
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

    def clear_sums(self) -> None:
        self.weight = 0.0
        for function in self.functions:
            function.sums = [0.0] * function.first

    def resize(self, length: int) -> None:
        """Steps of this many rows from now on."""
        sizes = self.rows.sizes(length)
        for function in self.functions:
            self.state.compute.check_sizes(function.compiled, sizes)
            function.compiled.executable.set_sizes(sizes)
        self.length = length
