"""What statements become: declarations of state, updates, training plans and commands, all over typed nodes.

In: nothing.  Out: frozen records that the session and the training driver run; the
only syntax left in them is the statement an update was made by, which tells updates apart.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from dsl.errors import Span
from dsl.ir.node import Node
from dsl.record import entity
from dsl.syntax import ast
from dsl.syntax.values import Value


@entity
class Item:
    """Anything a statement becomes."""

    span: Span


# ---------------------------------------------------------------- state
@entity
class SharedState(Item):
    """A shared variable and its starting value; allocated once its sizes are known."""

    name: str
    leaf: Node
    start: Node


@entity
class UpdateRule(Item):
    """`target <- value` in a group (None: ungrouped), made by the statement `origin`.

    `start` is the first value of an optimiser's slot or counter, `minimize` the number of the `minimize` it is of."""

    target: Node
    value: Node
    group: str | None
    start: Node | None = None
    minimize: int | None = None
    origin: ast.Statement | None = None


@entity
class Gradients:
    """The gradients of one `minimize`, as the named nodes its updates use."""

    cost: Node
    nodes: tuple[Node, ...]
    origin: ast.Statement


# ---------------------------------------------------------------- binding
@entity
class Feed:
    """Data bound to an input; `mapped` where its rank is one higher and rows are taken from its leading axis."""

    leaf: Node
    value: Node
    mapped: bool
    span: Span


# ---------------------------------------------------------------- commands
@entity
class Print(Item):
    items: tuple[Value, ...]
    expected: str | None
    expected_span: Span | None


@entity
class Show(Item):
    items: tuple[tuple[str, Value], ...]


@entity
class Mark:
    """One layer of a plot: its kind, its arrays with their labels, and its options."""

    kind: str
    arrays: tuple[tuple[str, Node], ...]
    bins: int | None
    span: Span


@entity
class Plot(Item):
    marks: tuple[Mark, ...]
    title: str | None
    path: str | None


@entity
class SaveValue(Item):
    name: str
    value: Node
    path: str


@entity
class SaveState(Item):
    path: str


@entity
class LoadState(Item):
    path: str


@entity
class Assert(Item):
    condition: Node
    reason: str | None


@entity
class Test(Item):
    name: str
    body: tuple[Item, ...]


# ---------------------------------------------------------------- training
@entity
class Schedule:
    """A value that changes over a `train`: `kind` with its numbers, `inner` for a warm-up's schedule."""

    target: Node
    leaf: Node
    kind: str
    numbers: tuple[float, ...]
    inner: Schedule | None = None


@entity
class Every:
    count: Node
    unit: str
    body: tuple[Item, ...]


@entity
class StopRule:
    count: Node
    unit: str
    lower: bool
    name: str


@entity
class Checkpoint:
    """Where the state is written how often; `best`: the state of the best value of this cost or metric, and whether lower is better."""

    path: str
    count: Node
    unit: str
    best: tuple[str, bool] | None


@entity
class GroupPlan:
    """Updates made together, and the costs they minimise or differentiate."""

    name: str | None
    updates: tuple[UpdateRule, ...]
    costs: Mapping[str, Node]


@entity
class GoOn(Item):
    """`train` by itself: on with the training that was interrupted."""


@entity
class Train(Item):
    """One `train` statement."""

    count: Node
    unit: str
    over: tuple[Feed, ...]
    batch: Node | None
    drop_last: bool
    shuffle_key: int | None
    groups: tuple[GroupPlan, ...]
    watched: Mapping[str, Node]
    until: Node | None = None
    valid: tuple[Feed, ...] = ()
    every: tuple[Every, ...] = ()
    stop: StopRule | None = None
    schedules: tuple[Schedule, ...] = ()
    clip: Node | None = None
    gradients: tuple[Gradients, ...] = ()
    averaged: frozenset[Node] = field(default_factory=frozenset)
    log: str | None = None
    checkpoint: Checkpoint | None = None
