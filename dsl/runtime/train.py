"""The training driver.

In: a training plan and the session's state.  Out: the state after it, and a report.  A step is one call of a compiled
graph a group of updates: the new values of all its variables from the old ones, and the costs.  State changes only when
a whole step has been computed and found finite, so an interruption or a divergence leaves that of the last whole step.
"""
from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dsl.errors import Diverged, Interrupted, LrError, Span, error
from dsl.ir.node import Node, make, substitute, topological
from dsl.ir.types import Dim, Size
from dsl.ops import philox
from dsl.ops.calculus import DERIVATIVES
from dsl.ops.leaves import STEP, TRAINING, is_leaf, leaf, leaf_name
from dsl.ops.reduction import mean, sum_
from dsl.ops.scalar import alias, maximum, select, sqr, sqrt
from dsl.passes.batch import lift
from dsl.runtime.compute import Compiled, Compute, LeafKey, solve_sizes
from dsl.runtime.progress import Progress
from dsl.syntax import program
from dsl.syntax.binding import leaf_key
from dsl.syntax.training import epoch_leaf

ROWS = Dim.of(Size("rows of a batch"))
"""The length of the leading axis of a mapped batch; a run-time size, so a short last batch compiles nothing."""


class State(Protocol):
    """What the driver needs of the session."""

    compute: Compute
    values: dict[LeafKey, Any]

    def sizes(self) -> dict[str, int]: ...
    def allocate(self) -> None: ...
    def array(self, node: Node) -> Any: ...
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


# ---------------------------------------------------------------- graphs of a step
def average(roots: Sequence[Node], mapped: Mapping[LeafKey, Node], averaged: frozenset[Node], span: Span) -> list[Node]:
    """The graphs over a batch of rows: costs, metrics and their derivatives become means over the rows."""
    lifted_leaves = {n: mapped[leaf_key(n)] for n in topological(roots) if is_leaf(n) and leaf_key(n) in mapped}
    depends = _dependents(roots, set(lifted_leaves))

    def over_rows(f: Node) -> Node:
        (lifted,), (has_axis,) = lift([f], lifted_leaves, ROWS)
        return make(mean, [lifted], {"axes": (-lifted.rank,), "keepdims": False}) if has_axis else f
    new: dict[Node, Node | None] = {}
    for node in topological(roots):
        if node not in depends:
            new[node] = node
        elif node in averaged:
            new[node] = over_rows(node)
        elif node.op in DERIVATIVES and node.args[1] not in depends:
            f, x, *rest = node.args
            others = [new[r] for r in rest]
            new[node] = None if None in others else make(node.op, [over_rows(f), x, *others], node.attrs)   # type: ignore[list-item]
        else:
            args = [new[a] for a in node.args]
            new[node] = None if None in args or is_leaf(node) else make(node.op, args, node.attrs)          # type: ignore[arg-type]
    results: list[Node] = []
    for root in roots:
        result = new[root]
        if result is None:
            names = sorted(leaf_name(n) for n in lifted_leaves)
            raise error("E0419", "with mapped batches only costs, metrics and their derivatives are averaged", span,
                        f"an update reads a value of every row (through {', '.join(names)})",
                        help="make it a `metric` (a mean over the rows), or bind the data whole: one axis more in the inputs")
        results.append(result)
    return results


def _dependents(roots: Sequence[Node], sources: set[Node]) -> set[Node]:
    found: set[Node] = set()
    for node in topological(roots):
        if node in sources or any(a in found for a in node.args):
            found.add(node)
    return found


def clipped(plan: program.Train, group: program.GroupPlan) -> dict[Node, Node]:
    """Each gradient of a `minimize`, scaled so that their joint norm is at most the bound."""
    if plan.clip is None:
        return {}
    used = set(topological([u.value for u in group.updates]))
    scaled: dict[Node, Node] = {}
    for gradients in plan.gradients:
        nodes = [n for n in gradients.nodes if n in used]
        if not nodes:
            continue
        squares = [sum_(sqr(n), axes=tuple(range(-n.rank, 0)), keepdims=False) for n in nodes]
        total = squares[0]
        for square in squares[1:]:
            total = total + square
        length = sqrt(total)
        scale = select(length > plan.clip, plan.clip / maximum(length, plan.clip), 1.0)
        scaled.update({n: n * scale for n in nodes})
    return scaled


@dataclass
class StepFunction:
    """A group of updates compiled: which values it reads and where its results go."""

    compiled: Compiled
    group: program.GroupPlan
    costs: list[str]
    targets: list[LeafKey]


def step_function(state: State, plan: program.Train, group: program.GroupPlan, watched: Mapping[str, Node], by_row: bool) -> StepFunction:
    """The graph of one step of a group: its costs and what is watched, then the new values."""
    replacement: dict[Node, Node] = {s.target: s.leaf for s in plan.schedules}
    scaled = clipped(plan, group)
    updates = substitute([u.value for u in group.updates], scaled) if scaled else [u.value for u in group.updates]
    roots = [*watched.values(), *updates]
    averaged = plan.averaged | set(group.costs.values())
    if by_row:
        mapped = {}
        for feed in plan.over:
            kind, name, generation = leaf_key(feed.leaf)
            type = feed.leaf.type.with_shape((ROWS, *feed.leaf.shape))
            mapped[kind, name, generation] = make(alias, [leaf("value", f"rows of {name}", type)], {"name": name})
        roots = average(roots, mapped, averaged | set(watched.values()), plan.span)
    if replacement:
        roots = substitute(roots, replacement)
    compiled = state.compute.compile(roots)
    return StepFunction(compiled, group, list(watched), [leaf_key(u.target) for u in group.updates])


# ---------------------------------------------------------------- schedules
def schedule_value(s: program.Schedule, step: int, steps: int, epoch: int) -> float:
    """The value at `step` of `steps` (both from 0), in `epoch`; both ends of a train are reached."""
    x = step / (steps - 1) if steps > 1 else 0.0
    first = s.numbers[0]
    match s.kind:
        case "cosine":
            return s.numbers[1] + (first - s.numbers[1]) * 0.5 * (1 + math.cos(math.pi * x))
        case "linear":
            return first + (s.numbers[1] - first) * x
        case "exponential":
            return float(first * s.numbers[1] ** epoch)
        case "steps":
            return float(first * s.numbers[1] ** (epoch // int(s.numbers[2])))
        case "warmup":
            assert s.inner is not None
            warm = int(first)
            if step < warm:
                return (step + 1) / warm * schedule_value(s.inner, 0, max(1, steps - warm), 0)
            return schedule_value(s.inner, step - warm, max(1, steps - warm), epoch)
        case _:
            raise AssertionError(s.kind)


# ---------------------------------------------------------------- data in order
@dataclass
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

    def __enter__(self) -> InterruptFlag:
        self.raised = False
        self.active = threading.current_thread() is threading.main_thread()
        if self.active:
            def handler(number: int, frame: Any) -> None:
                self.raised = True
            self.before = signal.signal(signal.SIGINT, handler)
        return self

    def __exit__(self, *_: object) -> None:
        if self.active:
            signal.signal(signal.SIGINT, self.before)


# ---------------------------------------------------------------- the driver
class Driver:
    """One run of a `train` statement."""

    def __init__(self, state: State, plan: program.Train, stop_early: Callable[[Report], bool] | None = None) -> None:
        self.state, self.plan = state, plan
        self.report = Report()
        self.stop_early = stop_early
        self.by_row = bool(plan.over) and plan.over[0].mapped and plan.batch is not None
        self.one_by_one = bool(plan.over) and plan.over[0].mapped and plan.batch is None

    # ------------------------------------------------------------ set up
    def prepare(self) -> None:
        state, plan = self.state, self.plan
        self.arrays = [np.asarray(state.array(f.value)) for f in plan.over]
        self.rows = self.arrays[0].shape[0] if self.arrays and self.arrays[0].ndim else 1
        whole = not plan.over or (not plan.over[0].mapped and plan.batch is None)
        batch = int(state.array(plan.batch)) if plan.batch is not None else 1 if self.one_by_one else self.rows
        if batch < 1:
            raise error("E0415", f"a batch size is at least 1, not {batch}", plan.span)
        self.total, self.batch = (1, 1) if whole else (self.rows, batch)
        if not whole and self.rows == 0:
            raise error("E0420", "there are no rows to train on", plan.span)
        if plan.drop_last and self.batch > self.total:
            raise error("E0420", f"no whole batch: {self.total} rows, batches of {self.batch}", plan.span, help="leave out `drop_last`, or take smaller batches")
        self.whole = whole
        if not whole and not plan.over[0].mapped:
            for feed, array in zip(plan.over, self.arrays, strict=True):
                if not array.ndim or array.shape[0] != self.rows:
                    raise error("E0211", f"`{leaf_name(feed.leaf)}` has no {self.rows} rows to take batches of", feed.span,
                                help="with `batch`, every input has one row a sample; use fixed values as `data` directly")
        self.count = int(state.array(plan.count))
        self.sizes_of_data()
        state.allocate()
        self.start_slots()
        group_costs = {name for g in plan.groups for name in g.costs}
        self.functions = []
        for i, group in enumerate(plan.groups):
            watched = {n: group.costs[n] for n in group.costs if n in plan.watched}
            if i == 0:
                watched.update({n: v for n, v in plan.watched.items() if n not in group_costs})
            self.functions.append(step_function(state, plan, group, watched, self.by_row))
        self.reported = [n for g in plan.groups for n in g.costs]
        self.sums = dict.fromkeys(plan.watched, 0.0)
        self.weight = 0.0

    def sizes_of_data(self) -> None:
        """Sizes from the first batch: model dims are fixed here if nothing has fixed them before."""
        shapes = [a.shape[1:] if f.mapped else (min(self.batch, self.rows), *a.shape[1:]) if not self.whole else a.shape
                  for f, a in zip(self.plan.over, self.arrays, strict=True)]
        solve_sizes([(f.leaf, s) for f, s in zip(self.plan.over, shapes, strict=True)], self.state.sizes(), self.plan.span)

    def start_slots(self) -> None:
        for group in self.plan.groups:
            for update in group.updates:
                if update.start is not None and leaf_key(update.target) not in self.state.values:
                    self.state.values[leaf_key(update.target)] = self.state.array(update.start)

    # ------------------------------------------------------------ run
    def run(self) -> Report:
        self.prepare()
        plan, report = self.plan, self.report
        by_epoch = plan.unit == "epochs"
        stops = len(range(0, self.total, self.batch)) if not plan.drop_last else self.total // self.batch
        steps = self.count * stops if by_epoch else self.count
        progress = self.state.progress(self.count, plan.unit)
        began = time.perf_counter()
        self.log = open(self.state.output_path(plan.log), "w", encoding="utf-8") if plan.log else None     # noqa: SIM115
        self.best, self.waited = None, 0
        try:
            with InterruptFlag() as flag, np.errstate(all="ignore"):
                for batch in batches(self.total, self.batch, plan.drop_last):
                    if report.steps >= steps:
                        break
                    self.step(batch, report.steps, steps)
                    report.steps += 1
                    stop = self.after_step(batch, by_epoch)
                    if flag.raised:
                        raise error("E0721", f"interrupted after step {report.steps}; the state is that of this whole step", plan.span,
                                    f"epoch {report.epochs + (not batch.last)}", kind=Interrupted)
                    if by_epoch:
                        if batch.last:
                            progress.update(report.epochs, report.steps, self.shown_cost())
                    elif report.steps % 64 == 0:
                        progress.update(report.steps, report.steps, self.shown_cost())
                    if stop:
                        break
                if self.weight:
                    self.close_epoch(count=False)
        except LrError:
            report.seconds = time.perf_counter() - began
            progress.close(failed=True)
            raise
        finally:
            if self.log:
                self.log.close()
        report.seconds = time.perf_counter() - began
        progress.close(report.epochs, report.steps, report.costs, report.stopped)
        return report

    def shown_cost(self) -> float | None:
        costs = self.report.costs
        return next(iter(costs.values())) if costs else None

    # ------------------------------------------------------------ one step
    def inputs(self, batch: Batch) -> dict[LeafKey, Any]:
        """The leaves a step reads from data."""
        given: dict[LeafKey, Any] = {}
        order: Any = slice(batch.low, batch.high)
        if self.plan.shuffle_key is not None and not self.whole:
            order = self.shuffled(batch)
        for feed, array in zip(self.plan.over, self.arrays, strict=True):
            if self.whole:
                given[leaf_key(feed.leaf)] = array[()]
            elif self.one_by_one:
                given[leaf_key(feed.leaf)] = array[batch.low if isinstance(order, slice) else order[0]]
            elif self.by_row:
                given["value", f"rows of {leaf_name(feed.leaf)}", 0] = array[order]
            else:
                given[leaf_key(feed.leaf)] = array[order]
        return given

    def shuffled(self, batch: Batch) -> Any:
        if getattr(self, "order_epoch", None) != batch.epoch:
            assert self.plan.shuffle_key is not None
            self.order = philox.shuffle_index(self.plan.shuffle_key, batch.epoch, np.arange(self.total), self.total)
            self.order_epoch = batch.epoch
        return self.order[batch.low:batch.high]

    def step_sizes(self, batch: Batch) -> dict[str, int]:
        """Sizes of a batch; they change only with its length."""
        length = batch.high - batch.low
        cached: dict[int, dict[str, int]] = self.__dict__.setdefault("sizes_by_length", {})
        if length not in cached:
            shapes = [a.shape if self.whole else a.shape[1:] if f.mapped else (length, *a.shape[1:])
                      for f, a in zip(self.plan.over, self.arrays, strict=True)]
            sizes = solve_sizes([(f.leaf, s) for f, s in zip(self.plan.over, shapes, strict=True)], self.state.sizes(), self.plan.span)
            cached[length] = {**sizes, "rows of a batch": length}
        return cached[length]

    def step(self, batch: Batch, number: int, steps: int) -> None:
        given = self.inputs(batch)
        sizes = self.step_sizes(batch)
        values = self.state.values
        given["training", "training", 0] = np.bool_(True)
        given["step", "step", 0] = np.int64(number + 1 + getattr(self.state, "steps_before", 0))
        for s in self.plan.schedules:
            given[leaf_key(s.leaf)] = np.dtype(s.leaf.dtype).type(schedule_value(s, number, steps, batch.epoch))
        rows = 1.0 if self.whole else float(batch.high - batch.low)
        seen: list[tuple[str, Any]] = []
        changes: list[tuple[LeafKey, Any]] = []
        undo: list[tuple[LeafKey, Any]] = []
        for function in self.functions:
            compiled = function.compiled
            if compiled.checked != sizes:
                self.state.compute.check_sizes(compiled, sizes)
                compiled.executable.set_sizes(sizes)
            leaves = [given[k] if k in given else values[k] if k in values else self.state.compute.lookup(n)
                      for k, n in zip(compiled.keys, compiled.executable.leaves, strict=True)]
            results = self.state.compute.run(compiled, leaves)
            count = len(function.costs)
            costs = list(zip(function.costs, results[:count], strict=True))
            changes = list(zip(function.targets, results[count:], strict=True))
            if self.not_finite(costs, changes):
                values.update(undo)
                raise self.diverged(function, leaves, costs, changes, number + 1)
            undo.extend((k, values[k]) for k, _ in changes)
            seen.extend(costs)
            values.update(changes)
        for name, cost in seen:
            self.sums[name] += float(cost) * rows
        self.weight += rows
        self.last = dict(seen)

    # ------------------------------------------------------------ finite
    def not_finite(self, costs: Sequence[tuple[str, Any]], changes: Sequence[tuple[LeafKey, Any]]) -> bool:
        """Whether something became nan, or went from finite to infinite."""
        for name, cost in costs:
            if cost != cost or (math.isinf(cost) and name in self.__dict__.get("last", {}) and math.isfinite(self.last[name])):
                return True
        for key, new in changes:
            if new.ndim == 0:
                if new - new == 0 or new.dtype.kind != "f":
                    continue
            elif new.dtype.kind != "f" or np.isfinite(np.sum(new)) or np.isfinite(new).all():
                continue
            old = self.state.values[key]
            if np.any((np.isnan(new) & ~np.isnan(old)) | (np.isinf(new) & np.isfinite(old))):
                return True
        return False

    def diverged(self, function: StepFunction, leaves: Sequence[Any], costs: Sequence[tuple[str, Any]],
                 changes: Sequence[tuple[LeafKey, Any]], number: int) -> LrError:
        """Names the step, the variable and the term that first was not finite."""
        what, value = next(((f"`{key[1]}`", new) for key, new in changes if not np.isfinite(new).all()),
                           next(((f"the cost `{n}`", c) for n, c in costs if not np.isfinite(c)), ("a value", math.nan)))
        bad_cost = next(((f"the cost `{n}`", c) for n, c in costs if math.isnan(c)), None)
        what, value = bad_cost or (what, value)
        became = "nan" if np.isnan(value).any() else "infinite"
        trace = function.compiled.executable.trace(leaves)
        culprit = next((n for n, v in trace.items() if n.args and _not_finite(v) and not any(_not_finite(trace[a]) for a in n.args)), None)
        span = self.state.compute.origins.span(culprit) if culprit is not None else None
        note = ""
        if culprit is not None:
            note = f"`{culprit.op.symbol[0] if culprit.op.symbol else culprit.op.name}` first gave {_words(trace[culprit])} here"
            operands = ", ".join(_words(trace[a], trace[culprit]) for a in culprit.args[:3])
            note += f", from {operands}"
        return error("E0720", f"training diverged at step {number}: {what} became {became}", span or self.plan.span, note, kind=Diverged,
                     notes=(f"the state is that of step {number - 1}",),
                     help="try a smaller rate, `clip norm 1`, or scaled data (`standardize`)" if became == "infinite" or culprit is None or culprit.op.name not in ("log", "sqrt", "div", "pow")
                     else "keep its operand inside the domain, for example with `maximum(x, 1e-12)`, or try a smaller rate")

    # ------------------------------------------------------------ after a step
    def after_step(self, batch: Batch, by_epoch: bool) -> bool:
        stop = False
        if batch.last:
            self.close_epoch()
            stop = self.at(("epochs", self.report.epochs))
        stop = self.at(("steps", self.report.steps)) or stop
        if self.plan.until is not None and (batch.last or not by_epoch):
            if not by_epoch:
                self.publish({n: float(v) for n, v in self.last.items()})
            if bool(self.state.array(self.plan.until)):
                self.report.stopped = "until"
                stop = True
        if self.stop_early is not None and self.stop_early(self.report):
            stop = True
        return stop

    def at(self, place: tuple[str, int]) -> bool:
        """What `every` and `stop` do at this epoch or step."""
        unit, number = place
        for every in self.plan.every:
            if every.unit == unit and number % int(self.state.array(every.count)) == 0:
                if unit == "steps" and self.weight:
                    self.publish({n: s / self.weight for n, s in self.sums.items()})
                self.state.execute(every.body)
        rule = self.plan.stop
        if rule is None or rule.unit != unit:
            return False
        value = self.report.valid.get(rule.name, self.watched_value(rule.name))
        if self.best is None or (value < self.best if rule.lower else value > self.best):
            self.best, self.waited = value, 0
            return False
        self.waited += 1
        if self.waited >= int(self.state.array(rule.count)):
            self.report.stopped = f"no {'lower' if rule.lower else 'higher'} {rule.name}"
            return True
        return False

    best: float | None
    waited: int

    def watched_value(self, name: str) -> float:
        return self.epoch_values.get(name, float(self.last.get(name, math.nan)))

    def close_epoch(self, count: bool = True) -> None:
        """The epoch's means, what is valid on held-out data, and a line of the log."""
        means = {n: s / self.weight for n, s in self.sums.items()}
        self.epoch_values = means
        self.report.epochs += count
        self.report.costs = {n: means[n] for n in self.reported}
        self.report.valid = self.validate()
        self.publish({**means, **self.report.valid})
        self.sums = dict.fromkeys(self.sums, 0.0)
        self.weight = 0.0
        if self.log:
            line = {"epoch": self.report.epochs, "step": self.report.steps, **means}
            if self.report.valid:
                line["valid"] = self.report.valid
            self.log.write(json.dumps(line) + "\n")
            self.log.flush()

    def publish(self, means: Mapping[str, float]) -> None:
        for name, node in self.plan.watched.items():
            if name in means:
                self.state.values[leaf_key(epoch_leaf(name, node))] = np.dtype(node.dtype).type(means[name])

    def validate(self) -> dict[str, float]:
        """Costs and metrics on the `valid` data: the mean over its rows where it is mapped."""
        plan = self.plan
        if not plan.valid:
            return {}
        watched = {n: v for n, v in plan.watched.items()}
        nodes = list(watched.values())
        given: dict[LeafKey, Any] = {}
        shapes = []
        mapped: dict[LeafKey, Node] = {}
        length = 1
        for feed in plan.valid:
            array = np.asarray(self.state.array(feed.value))
            kind, name, generation = leaf_key(feed.leaf)
            if feed.mapped:
                type = feed.leaf.type.with_shape((ROWS, *feed.leaf.shape))
                mapped[kind, name, generation] = make(alias, [leaf("value", f"rows of {name}", type)], {"name": name})
                given["value", f"rows of {name}", 0] = array
                length = array.shape[0]
                shapes.append((feed.leaf, array.shape[1:]))
            else:
                given[leaf_key(feed.leaf)] = array[()]
                shapes.append((feed.leaf, array.shape))
        sizes = {**solve_sizes(shapes, self.state.sizes(), plan.span), "rows of a batch": length}
        if mapped:
            nodes = average(nodes, mapped, plan.averaged | set(nodes), plan.span)
        values = self.state.compute.values(nodes, sizes, {**given, leaf_key(TRAINING): np.bool_(False), leaf_key(STEP): np.int64(0)})
        return {n: float(v) for n, v in zip(watched, values, strict=True)}


def _not_finite(value: Any) -> bool:
    return bool(value.dtype.kind == "f" and not np.isfinite(value).all())


def _words(value: Any, result: Any = None) -> str:
    """One telling number of an array: the first that is not finite, or the one where `result` is not."""
    array = np.asarray(value)
    if array.ndim == 0:
        return f"{array.item():.6g}" if array.dtype.kind == "f" else str(array.item())
    if result is not None and np.shape(result) == array.shape and not np.isfinite(result).all():
        return f"{array[~np.isfinite(result)].flat[0]:.6g}"
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return f"{array[~np.isfinite(array)].flat[0]:.6g}"
    return f"an array of shape {array.shape}"


