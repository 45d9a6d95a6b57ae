"""What statements become: declarations of state, updates, training plans and commands, all over typed nodes.

In: nothing.  Out: frozen records that the session and the training driver run; no syntax is left in them.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dsl.errors import Span
from dsl.ir.node import Node
from dsl.syntax.values import Value


@dataclass(frozen=True, eq=False)
class Item:
    """Anything a statement becomes."""

    span: Span


# ---------------------------------------------------------------- state
@dataclass(frozen=True, eq=False)
class SharedState(Item):
    """A shared variable and its starting value; allocated once its sizes are known."""

    name: str
    leaf: Node
    start: Node


@dataclass(frozen=True, eq=False)
class UpdateRule(Item):
    """`target <- value` in a group (None: ungrouped); `start` is the first value of an optimiser's slot or counter."""

    target: Node
    value: Node
    group: str | None
    start: Node | None = None
    minimize: int | None = None


@dataclass(frozen=True, eq=False)
class Gradients:
    """The gradients of one `minimize`, as the named nodes its updates use."""

    cost: Node
    nodes: tuple[Node, ...]


# ---------------------------------------------------------------- binding
@dataclass(frozen=True, eq=False)
class Feed:
    """Data bound to an input; `mapped` where its rank is one higher and rows are taken from its leading axis."""

    leaf: Node
    value: Node
    mapped: bool
    span: Span


# ---------------------------------------------------------------- commands
@dataclass(frozen=True, eq=False)
class Print(Item):
    items: tuple[Value, ...]
    expected: str | None
    expected_span: Span | None


@dataclass(frozen=True, eq=False)
class Show(Item):
    items: tuple[tuple[str, Value], ...]


@dataclass(frozen=True, eq=False)
class Mark:
    """One layer of a plot: its kind, its arrays with their labels, and its options."""

    kind: str
    arrays: tuple[tuple[str, Node], ...]
    bins: int | None
    span: Span


@dataclass(frozen=True, eq=False)
class Plot(Item):
    marks: tuple[Mark, ...]
    title: str | None
    path: str | None


@dataclass(frozen=True, eq=False)
class SaveValue(Item):
    name: str
    value: Node
    path: str


@dataclass(frozen=True, eq=False)
class Assert(Item):
    condition: Node
    reason: str | None


@dataclass(frozen=True, eq=False)
class Test(Item):
    name: str
    body: tuple[Item, ...]


# ---------------------------------------------------------------- training
@dataclass(frozen=True, eq=False)
class Schedule:
    """A value that changes over a `train`: `kind` with its numbers, `inner` for a warm-up's schedule."""

    target: Node
    leaf: Node
    kind: str
    numbers: tuple[float, ...]
    inner: Schedule | None = None


@dataclass(frozen=True, eq=False)
class Every:
    count: Node
    unit: str
    body: tuple[Item, ...]


@dataclass(frozen=True, eq=False)
class StopRule:
    count: Node
    unit: str
    lower: bool
    name: str


@dataclass(frozen=True, eq=False)
class GroupPlan:
    """Updates made together, and the costs they minimise or differentiate."""

    name: str | None
    updates: tuple[UpdateRule, ...]
    costs: Mapping[str, Node]


@dataclass(frozen=True, eq=False)
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
