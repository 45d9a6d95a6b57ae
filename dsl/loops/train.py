"""A training loop as a program.

In: the graphs of a step, and where its leaves come from.  Out: a `Program` that makes many steps: it picks the rows, computes
the costs and the new values of every variable, checks that they are finite, and only then puts them in the place of the old
ones; it adds up the epoch's costs.  It ends after `count` steps, or before the first one that met a fault or something that is
not finite, with the state of the last whole step.

    while done < count
        at the first step of an epoch: sums = 0; the order of the rows is drawn
        the rows of this step
        costs, new values                              for each group of updates, each seeing those before it
        leave if a fault, or anything is not finite
        state <- new values; sums += cost * rows; on to the next rows

The new values have buffers of their own, which change places with the old ones: every right-hand side reads the values from
before the step, whatever the order, and a step that is given up leaves no trace.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dsl.ir.node import Node, Origins
from dsl.ir.types import Dim, Size, is_float
from dsl.loops import ir
from dsl.loops.element import Index
from dsl.loops.evaluate import BLOCK, Names
from dsl.loops.legalise import legalise, reduced
from dsl.loops.lower import Lowering
from dsl.loops.shuffle import shuffled_order
from dsl.loops.task import Shop
from dsl.loops.tidy import tidy
from dsl.machine.expr import Buffer, Expr, Ref, const, load, minimum, ref, select
from dsl.ops.leaves import is_leaf, leaf_name
from dsl.ops.scalar import isfinite, not_
from dsl.record import entity

Mode = Literal["one by one", "slices", "whole"]
ALL_ROWS = Dim.of(Size("rows in all"))
STEPS = Dim.of(Size("steps of a burst"))


@entity
class GroupGraphs:
    """One group of updates: `watched` values (of which the first `costs` must be finite), and the new value of each target."""

    watched: tuple[Node, ...]
    costs: int
    values: tuple[Node, ...]
    targets: tuple[Node, ...]


@entity
class Feeds:
    """What a step reads: `rows` are leaves that take rows of data, `schedules` leaves that have one value a step; `step` is the
    leaf that counts steps, `training` the one that is true.  `ragged`: sizes that a short last batch changes."""

    mode: Mode
    rows: tuple[Node, ...]
    schedules: tuple[Node, ...]
    step: Node | None
    training: Node
    shuffle: bool
    ragged: tuple[str, ...]


@dataclass(frozen=True)
class TrainProgram:
    """The program and what it is called with.

    Arrays:  the data of `feeds.rows`, the `fixed` leaves that are arrays, the schedules, `state`, then the order of the rows
             (int64 [rows in all], only with `shuffle`), `sums` (float64: what is watched, times rows, then the rows), `last`
             (float64: what was watched in the last step), `done` (int64 [2]: whole steps, and whether the next is bad)
    Scalars: first row, rows a step, row to stop at, rows in all, epoch, count of steps, steps before, the key of the shuffle,
             then for each ragged size its value in a whole batch and in the last, then the `fixed` leaves that are scalars"""

    program: ir.Program
    fixed_arrays: tuple[Node, ...]
    fixed_scalars: tuple[Node, ...]
    state: tuple[Node, ...]


class _Builder:
    def __init__(self, groups: Sequence[GroupGraphs], feeds: Feeds, block: int | None, origins: Origins | None, tiles: bool) -> None:
        self.feeds, self.names, self.shop = feeds, Names(), Shop(block, tiles)
        for word in ("low", "high", "epoch", "row", "step", "done", "bad", "fault", "turn", "stopped", "order", "sums", "last", "first_row",
                     "size", "stop", "total", "first_epoch", "count", "before", "shuffle_key"):
            self.names(word)
        flat = [n for g in groups for n in (*g.watched, *g.values)]
        core = iter(legalise(flat, origins))
        self.groups = [GroupGraphs(tuple(next(core) for _ in g.watched), g.costs, tuple(next(core) for _ in g.values), g.targets)
                       for g in groups]
        self.state = tuple(dict.fromkeys(t for g in groups for t in g.targets))
        self.fixed: dict[Node, Buffer | Ref] = {}
        self.data = {n: self.data_buffer(n) for n in feeds.rows}
        self.schedules = {n: Buffer(self.names(leaf_name(n)), n.dtype, (STEPS,), "input") for n in feeds.schedules}
        self.buffers = {n: Buffer(self.names(leaf_name(n)), n.dtype, n.shape, "state") for n in self.state}
        self.current: dict[Node, Buffer] = dict(self.buffers)
        self.order = Buffer("order", "int64", (ALL_ROWS,), "state")
        self.windows: dict[Node, Buffer] = {}

    def data_buffer(self, leaf: Node) -> Buffer:
        name = self.names(leaf_name(leaf).removeprefix("rows of "))
        match self.feeds.mode:
            case "whole":
                shape = leaf.shape
            case "slices":
                shape = (ALL_ROWS, *leaf.shape[1:])
            case _:
                shape = (ALL_ROWS, *leaf.shape)
        return Buffer(name, leaf.dtype, shape, "input")

    # ------------------------------------------------------------ leaves
    def element(self, leaf: Node, index: Index) -> Expr:
        feeds = self.feeds
        if leaf in self.data:
            if leaf in self.windows:
                return load(self.windows[leaf], index)
            if feeds.mode == "whole":
                return load(self.data[leaf], index)
            if feeds.mode == "one by one":
                return load(self.data[leaf], (ref("row"), *index))
            first = ref("low") + index[0]
            place = load(self.order, (first,)) if feeds.shuffle else first
            return load(self.data[leaf], (place, *index[1:]))
        if leaf in self.current:
            return load(self.current[leaf], index)
        if leaf in self.schedules:
            return load(self.schedules[leaf], (ref("turn"),))
        if leaf is feeds.step:
            return ref("before") + ref("turn") + 1
        if leaf is feeds.training:
            return const(True, "bool")
        return load(self.fixed_buffer(leaf), index) if leaf.rank else self.fixed_scalar(leaf)

    def fixed_buffer(self, leaf: Node) -> Buffer:
        found = self.fixed.get(leaf)
        if found is None:
            found = self.fixed[leaf] = Buffer(self.names(leaf_name(leaf)), leaf.dtype, leaf.shape, "input")
        assert isinstance(found, Buffer)
        return found

    def fixed_scalar(self, leaf: Node) -> Ref:
        found = self.fixed.get(leaf)
        if found is None:
            found = self.fixed[leaf] = ref(self.names(leaf_name(leaf)), leaf.dtype)
        assert isinstance(found, Ref)
        return found

    def whole(self, leaf: Node) -> Buffer | None:
        if leaf in self.data:
            return self.windows.get(leaf) or (self.data[leaf] if self.feeds.mode == "whole" else None)
        if leaf in self.current:
            return self.current[leaf]
        return self.fixed_buffer(leaf) if is_leaf(leaf) and leaf.rank and leaf not in self.schedules else None

    # ------------------------------------------------------------ statements
    def rows(self) -> list[ir.Stmt]:
        """Which rows the step reads."""
        mode, shuffled = self.feeds.mode, self.feeds.shuffle
        out: list[ir.Stmt] = []
        if mode == "whole":
            return out
        if mode == "one by one":
            out.append(ir.Let("row", load(self.order, (ref("low"),)) if shuffled else ref("low")))
            for leaf, data in self.data.items():
                if leaf.rank:
                    self.windows[leaf] = window = Buffer(self.names(f"{data.name}_row"), leaf.dtype, leaf.shape, "window")
                    out.append(ir.Window(window, data, ref("row")))
            return out
        ragged = ref("high").eq(ref("low") + ref("size"))
        out.extend(ir.Bind(size, select(ragged, ref(f"whole_{i}"), ref(f"short_{i}"))) for i, size in enumerate(self.feeds.ragged))
        if not shuffled:
            for leaf, data in self.data.items():
                self.windows[leaf] = window = Buffer(self.names(f"{data.name}_rows"), leaf.dtype, leaf.shape, "window")
                out.append(ir.Window(window, data, ref("low")))
        return out

    def group(self, group: GroupGraphs, number: int, watched: list[Buffer], checks: list[Buffer]) -> list[ir.Stmt]:
        """Costs and new values of one group, and whether all of them are finite."""
        roots: list[tuple[Node, Buffer]] = []
        for node in group.watched:
            watched.append(Buffer(f"cost{len(watched)}", node.dtype, (), "scratch"))
            roots.append((node, watched[-1]))
        new: dict[Node, Buffer] = {}
        for target, value in zip(group.targets, group.values, strict=True):
            new[target] = Buffer(self.names(f"new_{self.buffers[target].name}"), target.dtype, target.shape, "scratch")
            roots.append((value, new[target]))
        for node in (*group.watched[:group.costs], *group.values):
            if is_float(node.dtype):
                bad = not_(isfinite(node))
                if node.rank:
                    bad = reduced("any", bad, tuple(range(-node.rank, 0)), False)
                checks.append(Buffer(f"bad{len(checks)}", "bool", (), "scratch"))
                roots.append((bad, checks[-1]))
        self.shop.scratch.extend(b for _, b in roots)
        body = Lowering(self.shop, self.element, self.whole).block(roots)
        self.current.update(new)
        return list(body)

    def build(self, name: str) -> TrainProgram:
        feeds = self.feeds
        low, size, stop, epoch, done = (ref(n) for n in ("low", "size", "stop", "epoch", "turn"))
        count = ref("count")
        rows = self.rows()
        watched: list[Buffer] = []
        checks: list[Buffer] = []
        step: list[ir.Stmt] = []
        for number, group in enumerate(self.groups):
            step.extend(self.group(group, number, watched, checks))
        sums = Buffer("sums", "float64", (Dim.of(len(watched) + 1),), "state")
        last = Buffer("last", "float64", (Dim.of(len(watched)),), "state")
        outcome = Buffer("done", "int64", (Dim.of(2),), "output")
        places = [const(i, "int64") for i in range(len(watched) + 1)]
        totals = [ref(f"sum{i}", "float64") for i in range(len(watched) + 1)]
        length = (ref("high") - low).to("float64") if feeds.mode != "whole" else const(1, "float64")
        bad: Expr = ir.FAULT
        for check in checks:
            bad = bad | load(check)
        commit: list[ir.Stmt] = []
        for target in self.state:
            commit.append(ir.Swap(self.buffers[target], self.current[target]) if target.rank else
                          ir.Store(self.buffers[target], (), load(self.current[target])))
        values = [load(b).to("float64") for b in watched]
        start_epoch: list[ir.Stmt] = [ir.Assign(t.name, const(0, "float64")) for t in totals]
        if feeds.shuffle:
            start_epoch.extend(shuffled_order(self.order, ref("shuffle_key"), epoch, ref("total"), self.shop))
        loop: ir.Block = (
            ir.Let("high", minimum(low + size, stop)),
            ir.If(low.eq(0), tuple(start_epoch)),
            *rows, *step,
            ir.Let("bad", bad),
            ir.Assign("stopped", ref("bad", "bool")),
            ir.Leave(ref("bad", "bool")),
            *commit,
            *(ir.Assign(t.name, t + v * length) for t, v in zip(totals, values)),
            ir.Assign(totals[-1].name, totals[-1] + length),
            *(ir.Assign(f"seen{i}", v) for i, v in enumerate(values)),
            ir.Assign("turn", done + 1),
            ir.Assign("low", select(ref("high") >= stop, 0, ref("high"))),
            ir.Assign("epoch", select(ref("high") >= stop, epoch + 1, epoch)),
        )
        body: ir.Block = (
            ir.Local("low", "int64", ref("first_row")), ir.Local("epoch", "int64", ref("first_epoch")),
            ir.Local("turn", "int64", const(0, "int64")), ir.Local("stopped", "bool", const(False, "bool")),
            *(ir.Local(t.name, "float64", load(sums, (p,))) for t, p in zip(totals, places)),
            *(ir.Local(f"seen{i}", "float64", load(last, (p,))) for i, p in enumerate(places[:-1])),
            ir.While(done < count, loop),
            *(ir.Store(sums, (p,), t) for t, p in zip(totals, places)),
            *(ir.Store(last, (p,), ref(f"seen{i}", "float64")) for i, p in enumerate(places[:-1])),
            ir.Store(outcome, (const(0, "int64"),), done),
            ir.Store(outcome, (const(1, "int64"),), ref("stopped", "bool").to("int64")),
        )
        body, scratch = tidy(body, self.shop.scratch)
        arrays = [b for b in self.fixed.values() if isinstance(b, Buffer)]
        scalars = [ref(n) for n in ("first_row", "size", "stop", "total", "first_epoch", "count", "before", "shuffle_key")]
        scalars += [ref(f"{word}_{i}") for i in range(len(feeds.ragged)) for word in ("whole", "short")]
        scalars += [s for s in self.fixed.values() if isinstance(s, Ref)]
        buffers = (*self.data.values(), *arrays, *self.schedules.values(), *self.buffers.values(),
                   *((self.order,) if feeds.shuffle else ()), sums, last, outcome, *scratch)
        return TrainProgram(ir.Program(name, buffers, tuple(scalars), body), tuple(n for n in self.fixed if n.rank),
                            tuple(n for n in self.fixed if not n.rank), self.state)


def train_program(groups: Sequence[GroupGraphs], feeds: Feeds, name: str = "train", block: int | None = BLOCK,
                  origins: Origins | None = None, tiles: bool = True) -> TrainProgram:
    """The program of a training loop.  Raises `NotNative`."""
    return _Builder(groups, feeds, block, origins, tiles).build(name)
