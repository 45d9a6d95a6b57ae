"""One training step as compiled functions.

In: a training plan.  Out: for each group of updates a `StepFunction` that computes its costs and the new values of all
its variables from the old ones.  Over a mapped batch, costs, metrics and their derivatives become means over the rows
before they are differentiated, so that a whole batch is one graph.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsl.errors import Span, error
from dsl.ir.node import Node, Origins, make, substitute, topological
from dsl.ir.types import Dim, Size, is_float
from dsl.ops.calculus import DERIVATIVES
from dsl.ops.leaves import TRAINING, is_leaf, leaf, leaf_name
from dsl.ops.reduction import mean, sum_
from dsl.ops.scalar import alias, maximum, select, sqr, sqrt
from dsl.passes.batch import lift
from dsl.passes.shield import shielded
from dsl.runtime.compute import Compiled, Compute, LeafKey
from dsl.syntax import program
from dsl.syntax.binding import leaf_key

ROWS = Dim.of(Size("rows of a batch"))
"""The length of the leading axis of a mapped batch; a run-time size, so a short last batch compiles nothing."""


# ---------------------------------------------------------------- graphs
def rows_key(feed: program.Feed) -> LeafKey:
    """The leaf that stands for the rows of a mapped input."""
    return "value", f"rows of {leaf_name(feed.leaf)}", 0


def rows_of(feeds: Sequence[program.Feed]) -> dict[LeafKey, Node]:
    """For each mapped input, the value that takes its place in a batch."""
    mapped = {}
    for feed in feeds:
        name = leaf_name(feed.leaf)
        type = feed.leaf.type.with_shape((ROWS, *feed.leaf.shape))
        mapped[leaf_key(feed.leaf)] = make(alias, [leaf("value", f"rows of {name}", type)], {"name": name})
    return mapped


def average(roots: Sequence[Node], mapped: Mapping[LeafKey, Node], averaged: frozenset[Node], span: Span,
            origins: Origins) -> list[Node]:
    """The graphs over a batch of rows: costs, metrics and their derivatives become means over the rows.

    Raises `LrError` where an update reads another value of every row."""
    lifted_leaves = {n: mapped[leaf_key(n)] for n in topological(roots) if is_leaf(n) and leaf_key(n) in mapped}
    depends: set[Node] = set()
    new: dict[Node, Node | None] = {}

    def over_rows(f: Node, *fixed: Node) -> Node:
        (lifted,), (has_axis,) = lift(shielded([f], fixed, origins), lifted_leaves, ROWS, origins)
        return make(mean, [lifted], {"axes": (-lifted.rank,), "keepdims": False}) if has_axis else f
    for node in topological(roots):
        if node not in lifted_leaves and not any(a in depends for a in node.args):
            new[node] = node
            continue
        depends.add(node)
        if node in averaged:
            new[node] = over_rows(node)
        elif node.op in DERIVATIVES and node.args[1] not in depends:
            f, x, *rest = node.args
            new[node] = _remade(node, [over_rows(f, x), x, *(new[r] for r in rest)])
        else:
            new[node] = None if is_leaf(node) else _remade(node, [new[a] for a in node.args])
        result = new[node]
        if result is not None:
            origins.inherit(result, node)
    results: list[Node] = []
    for root in roots:
        result = new[root]
        if result is None:
            names = ", ".join(sorted({leaf_name(n) for n in lifted_leaves}))
            raise error("E0419", "with mapped batches only costs, metrics and their derivatives are averaged", span,
                        f"an update reads a value of every row (through {names})",
                        help="make it a `metric` (a mean over the rows), or bind the data whole: one axis more in the inputs")
        results.append(result)
    return results


def _remade(node: Node, args: Sequence[Node | None]) -> Node | None:
    """The node over new operands, None if one of them has no meaning for a whole batch."""
    known = [a for a in args if a is not None]
    return make(node.op, known, node.attrs) if len(known) == len(args) else None


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
        length = sqrt(sum(squares[1:], squares[0]))
        scale = select(length > plan.clip, plan.clip / maximum(length, plan.clip), 1.0)
        scaled.update({n: n * scale for n in nodes})
    return scaled


@dataclass
class StepFunction:
    """A group of updates compiled, its leaves' values in order, and where its results go.

    A result is what is watched (`costs` costs, then other names), then from place `first` the new values of `targets`;
    `sums` adds up what is watched, times rows, over an epoch."""

    compiled: Compiled
    watched: list[str]
    costs: int
    targets: list[LeafKey]
    scalars: list[int]
    arrays: list[int]
    target_nodes: list[Node]

    def __post_init__(self) -> None:
        self.first = len(self.watched)
        self.sums = [0.0] * self.first
        self.results: Sequence[Any] = ()

    def connect(self, given: Sequence[LeafKey], state: Sequence[LeafKey]) -> None:
        """From now on `run` takes what is given to a step, the variables that change, then `rest`."""
        leaves = dict(zip(self.compiled.keys, self.compiled.executable.leaves, strict=True))
        self.taken = [leaves.pop(key, None) for key in (*given, *state)]
        self.others = leaves
        self.run = self.compiled.reference.taking([*self.taken, *leaves.values()])
        self.places = [state.index(key) for key in self.targets]
        self.changes_all = self.places == list(range(len(state)))

    def fill(self, values: Mapping[LeafKey, Any], compute: Compute) -> None:
        """What does not change in a step takes its value."""
        fixed = {**values, leaf_key(TRAINING): np.bool_(True)}
        self.rest = [fixed[k] if k in fixed else compute.lookup(n) for k, n in self.others.items()]

    def after(self, state: Sequence[Any], results: Sequence[Any]) -> Sequence[Any]:
        """The variables after these results."""
        if self.changes_all:
            return results[self.first:]
        changed = list(state)
        for place, value in zip(self.places, results[self.first:]):
            changed[place] = value
        return changed

    def leaves(self, taken: Sequence[Any]) -> list[Any]:
        """The values of the executable's leaves, in its order."""
        by_leaf = dict(zip([*self.taken, *self.others.values()], [*taken, *self.rest], strict=True))
        return [by_leaf[leaf] for leaf in self.compiled.executable.leaves]

    def finite(self, results: Sequence[Any]) -> bool:
        """Whether every cost and new value is surely finite; False calls for a closer look."""
        for i in self.scalars:
            if not math.isfinite(results[i]):
                return False
        return not self.arrays or all(math.isfinite(np.add.reduce(results[i], axis=None)) for i in self.arrays)


def step_function(compute: Compute, plan: program.Train, group: program.GroupPlan, watched: Mapping[str, Node],
                  by_row: bool) -> StepFunction:
    """The graph of one step of a group: what is watched (its costs first), then the new values."""
    origins = compute.origins
    scaled = clipped(plan, group)
    updates = [u.value for u in group.updates]
    roots = [*watched.values(), *(substitute(updates, scaled, None, origins) if scaled else updates)]
    if by_row:
        averaged = plan.averaged | set(group.costs.values()) | set(watched.values())
        roots = average(roots, rows_of(plan.over), averaged, plan.span, origins)
    if plan.schedules:
        roots = substitute(roots, {s.target: s.leaf for s in plan.schedules}, None, origins)
    costs = sum(name in group.costs for name in watched)
    checked = [(i, r.rank) for i, r in enumerate(roots) if is_float(r.dtype) and (i < costs or i >= len(watched))]
    return StepFunction(compute.compile(roots), list(watched), costs, [leaf_key(u.target) for u in group.updates],
                        scalars=[i for i, rank in checked if not rank], arrays=[i for i, rank in checked if rank],
                        target_nodes=[u.target for u in group.updates])


def step_functions(compute: Compute, plan: program.Train, by_row: bool) -> list[StepFunction]:
    """One a group; what clauses watch besides the costs is computed with the first, a cost of two groups once."""
    functions = []
    grouped = {name for g in plan.groups for name in g.costs}
    waiting = dict(plan.watched)
    for number, group in enumerate(plan.groups):
        others = [] if number else [name for name in waiting if name not in grouped]
        watched = {name: waiting.pop(name) for name in [*group.costs, *others] if name in waiting}
        functions.append(step_function(compute, plan, group, watched, by_row))
    return functions


# ---------------------------------------------------------------- schedules
def check_schedule(schedule: program.Schedule, span: Span) -> None:
    """Raises `LrError` for numbers that are no schedule."""
    if schedule.inner is not None:
        check_schedule(schedule.inner, span)
    whole = {"steps": ("epochs between two steps", 2, 1), "warmup": ("steps of a warm-up", 0, 0)}
    if schedule.kind in whole:
        what, place, least = whole[schedule.kind]
        number = schedule.numbers[place]
        if not number >= least or number != int(number):
            raise error("E0418", f"the {what} are a whole number from {least}, not {number:g}", span)


def schedule_value(schedule: program.Schedule, step: int, steps: int, epoch: int) -> float:
    """The value at `step` of `steps` (both from 0), in `epoch`; the last step reaches the last value."""
    progress = step / (steps - 1) if steps > 1 else 0.0
    first, *rest = schedule.numbers
    match schedule.kind:
        case "cosine":
            return rest[0] + (first - rest[0]) * 0.5 * (1 + math.cos(math.pi * progress))
        case "linear":
            return first + (rest[0] - first) * progress
        case "exponential":
            return float(first * np.float64(rest[0]) ** epoch)
        case "steps":
            return float(first * np.float64(rest[0]) ** (epoch // int(rest[1])))
        case "warmup":
            assert schedule.inner is not None
            warm = int(first)
            if step < warm:
                return (step + 1) / warm * schedule_value(schedule.inner, 0, max(1, steps - warm), 0)
            return schedule_value(schedule.inner, step - warm, max(1, steps - warm), epoch)
        case _:
            raise AssertionError(schedule.kind)


def schedule_values(schedule: program.Schedule, first: int, count: int, steps: int, steps_an_epoch: int) -> np.ndarray:
    """The values of `count` steps from `first` on."""
    at = np.arange(first, first + count)
    return _values(schedule, at, steps, at // steps_an_epoch)


def _values(schedule: program.Schedule, at: np.ndarray, steps: int, epochs: np.ndarray) -> np.ndarray:
    """`schedule_value` of many steps, bit for bit: cosines and powers are those of the C library, which NumPy's need not be."""
    start, *rest = schedule.numbers
    match schedule.kind:
        case "cosine":
            progress = at / (steps - 1) if steps > 1 else np.zeros(len(at))
            cosines = np.fromiter(map(math.cos, (math.pi * progress).tolist()), float, len(at))
            return rest[0] + (start - rest[0]) * 0.5 * (1 + cosines)
        case "linear":
            progress = at / (steps - 1) if steps > 1 else np.zeros(len(at))
            return start + (rest[0] - start) * progress
        case "exponential" | "steps":
            stairs, places = np.unique(epochs // int(rest[1]) if schedule.kind == "steps" else epochs, return_inverse=True)
            factor = np.float64(rest[0])
            return np.array([float(start * factor ** stair) for stair in stairs.tolist()])[places]
        case _:
            assert schedule.inner is not None
            warm = int(start)
            warming, left = int(np.searchsorted(at, warm)), max(1, steps - warm)
            rising = (at[:warming] + 1) / warm * schedule_value(schedule.inner, 0, left, 0) if warming else np.zeros(0)
            return np.concatenate([rising, _values(schedule.inner, at[warming:] - warm, left, epochs[warming:])])
