"""`train` and its clauses.

In: its AST, the names in scope and the updates above it.  Out: a training plan over typed graphs.
"""
from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dsl.errors import Label, did_you_mean, error
from dsl.ir.node import Node, topological
from dsl.ir.types import decide
from dsl.ops import philox
from dsl.ops.build import literal_value
from dsl.ops.calculus import DERIVATIVES
from dsl.ops.leaves import is_leaf, leaf, leaf_name
from dsl.ops.scalar import alias
from dsl.ops.table import cast
from dsl.syntax import ast, program
from dsl.syntax.binding import leaf_key
from dsl.syntax.faults import kind_words
from dsl.syntax.updates import Updates
from dsl.syntax.values import (
    Skipped,
)

SCHEDULES = {"cosine": "cosine(first, last)", "linear": "linear(first, last)",
             "exponential": "exponential(first, factor)", "steps": "steps(first, factor, every)",
             "warmup": "warmup(steps, schedule)"}


class Training(Updates):
    def train_statement(self, statement: ast.Train) -> program.Train:
        feeds, sizes = self.feeds(statement.over, alike=True)
        groups = self.group_plans(statement, feeds)
        self.check_fed([u.value for g in groups for u in g.updates], feeds, statement)
        self.trained += 1
        if statement.batch is not None and not any(f.mapped for f in feeds):
            self.check_batched(feeds)
        if (statement.batch is not None or statement.shuffle) and not feeds:
            raise error("E0414", "`batch` and `shuffle` need data", statement.span, help="say which: `over X = A`")
        batch = self.count(statement.batch, "a batch size") if statement.batch is not None else None
        if statement.shuffle and batch is None and feeds and not feeds[0].mapped:
            raise error("E0414", "`shuffle` needs rows: the data is bound whole", statement.span, help="add `batch k`")
        self.watched = {}
        key = philox.draw_key(self.seed, ("train", self.trained, "shuffle")) if statement.shuffle else None
        plan: dict[str, Any] = {}
        self.clauses(statement, groups, plan, sizes)
        if statement.until is not None:
            plan["until"] = self.epoch_condition(statement.until)
        costs = {name: node for group in groups for name, node in group.costs.items()}
        watched = {**costs, **self.watched}
        self.check_fed(list(watched.values()), feeds, statement)
        averaged = frozenset(s.value for s in self.scope.values() if s.kind in ("cost", "metric")
                             and isinstance(s.value, Node))
        return program.Train(statement.span, self.count(statement.count, "how long to train"), statement.unit,
                             tuple(feeds), batch,
                             statement.drop_last, key, groups, watched, gradients=tuple(self.gradients),
                             averaged=averaged, **plan)

    def check_batched(self, feeds: Sequence[program.Feed]) -> None:
        """Batches are slices of the leading axis, so all have one."""
        for feed in feeds:
            name, first = leaf_name(feed.leaf), feeds[0]
            if not feed.value.rank:
                raise error("E0414", f"`{name}` is bound to a scalar, which has no rows to take batches of", feed.span,
                            help="fixed values are used as `data`, without binding")
            if decide(feed.value.shape[0], first.value.shape[0]) is False:
                raise error("E0211", f"`{leaf_name(first.leaf)}` has {first.value.shape[0]} rows, but `{name}` has "
                            f"{feed.value.shape[0]}", feed.span, f"{feed.value.shape[0]} rows",
                            labels=[Label(first.span, f"{first.value.shape[0]} rows")],
                            help="with `batch`, every input has one row a sample; fixed values are used as `data`")

    def count(self, expr: ast.Expr, what: str) -> Node:
        node = self.node(expr)
        value = literal_value(node)
        if node.rank or any(is_leaf(n, "input", "shared") for n in topological([node])):
            raise error("E0415", f"{what} is a whole number known before training", expr.span,
                        help="write a number, a `let` of one, or a dim")
        if value is not None and (value < (0 if what == "how long to train" else 1) or value != int(value)):
            raise error("E0415",
                        f"{what} is a whole number{'' if what == 'how long to train' else ', at least 1'}: not {value}",
                        expr.span)
        return node

    def group_plans(self, statement: ast.Train, feeds: Sequence[program.Feed]) -> tuple[program.GroupPlan, ...]:
        names: list[str | None] = [g.id for g in statement.groups] or [None]
        known = [u.group for u in self.updates]
        for ident in statement.groups:
            if ident.id not in known:
                near = did_you_mean(ident.id, [k for k in known if k])
                if self.updates_failed:
                    raise Skipped
                raise error("E0413", f"no `step {ident.id}:` above", ident.span,
                            help=f"did you mean `{near}`?" if near else None)
        if names == [None] and None not in known:
            if self.updates_failed:
                raise Skipped
            groups = sorted({k for k in known if k})
            if groups:
                raise error("E0406", "nothing to train: all updates above are in groups", statement.span,
                            help=f"name the groups: `of {', '.join(groups)}`")
            raise error("E0406", "nothing to train: no `update` or `minimize` above", statement.span,
                        help="write `update w <- w - 0.01 * gw`, or `minimize C wrt all using adam()`")
        plans = []
        for name in names:
            updates = tuple(u for u in self.updates if u.group == name)
            plans.append(program.GroupPlan(name, updates, self.costs_of(updates)))
        if not any(plan.costs for plan in plans):
            plans[0] = replace(plans[0], costs=self.declared_costs(feeds))
        return tuple(plans)

    def declared_costs(self, feeds: Sequence[program.Feed]) -> dict[str, Node]:
        """The costs of the script that this data determines: what is reported where updates are written without them."""
        fed = {leaf_key(f.leaf) for f in feeds}
        costs = {n: s.value for n, s in self.scope.items() if s.kind == "cost" and isinstance(s.value, Node)}
        return {name: node for name, node in costs.items()
                if all(leaf_key(n) in fed for n in topological([node]) if is_leaf(n, "input"))}

    def costs_of(self, updates: Sequence[program.UpdateRule]) -> dict[str, Node]:
        """The costs that updates minimise or differentiate, by name."""
        costs: dict[str, Node] = {}
        for node in topological([u.value for u in updates]):
            if node.op in DERIVATIVES:
                f = node.args[0]
                if f.rank == 0 and not any(n.op in DERIVATIVES for n in topological([f])):
                    span = self.origins.span(f)
                    name = f.attr("name") if f.op is alias else " ".join(span.text.split()) if span else "cost"
                    costs.setdefault(name, f)
        return costs

    def check_fed(self, nodes: Sequence[Node], feeds: Sequence[program.Feed], statement: ast.Train) -> None:
        fed = {leaf_key(f.leaf) for f in feeds}
        for node in topological(nodes):
            if is_leaf(node, "input") and leaf_key(node) not in fed:
                name = leaf_name(node)
                symbol = self.scope.get(name)
                end = statement.over[-1].span if statement.over else statement.span
                raise error("E0407", f"`{name}` has no data in this `train`", end, "not among these",
                            labels=[Label(symbol.span, f"`{name}` is declared here")] if symbol and symbol.span else [],
                            help=f"add `{name} = …` after `over`")

    def epoch_condition(self, expr: ast.Expr) -> Node:
        node = self.in_epoch_values(expr)
        if node.dtype != "bool" or node.rank:
            raise error("E0203", "`until` takes a condition", expr.span, help="compare: `until C < 0.01`")
        return node

    def in_epoch_values(self, expr: ast.Expr) -> Node:
        self.in_epoch = True
        try:
            return self.node(expr)
        finally:
            self.in_epoch = False

    # ------------------------------------------------------------ clauses
    def clauses(self, statement: ast.Train, groups: Sequence[program.GroupPlan], plan: dict[str, Any],
                sizes: Any) -> None:
        every: list[program.Every] = []
        schedules: list[program.Schedule] = []
        for clause in statement.clauses:
            match clause:
                case ast.Every(count, unit, body):
                    items: list[program.Item] = []
                    self.in_epoch = True
                    try:
                        for line in body:
                            items.extend(self._dispatch(line))
                    finally:
                        self.in_epoch = False
                    every.append(program.Every(self.count(count, "how often"), unit, tuple(items)))
                case ast.Valid(bindings):
                    plan["valid"] = self.valid(bindings, statement)
                case ast.StopAfter(count, unit, direction, name):
                    symbol = self.scope.get(name.id)
                    if symbol is None:
                        raise self.unknown(name.id, name.span)
                    if symbol.value is None:
                        raise Skipped
                    if symbol.kind not in ("cost", "metric") or not isinstance(symbol.value, Node):
                        raise error("E0416", f"`{name.id}` is not a cost or metric", name.span, kind_words(symbol.kind),
                                    help=f"declare it: `metric {name.id} = …`")
                    self.watched[name.id] = symbol.value
                    plan["stop"] = program.StopRule(self.count(count, "patience"), unit, direction == "lower", name.id)
                case ast.Schedule(target, value):
                    schedules.append(self.schedule(target, value, groups))
                case ast.ClipNorm(value):
                    if not any(u.minimize is not None for g in groups for u in g.updates):
                        raise error("E0417", "`clip norm` holds the gradients of a `minimize`", clause.span,
                                    "only hand-written updates here",
                                    help="scale the gradient in the update: `gw * minimum(1, c / norm(gw))`")
                    plan["clip"] = cast(self.node(value), self.precision)
                case ast.Log(path):
                    if not isinstance(path, ast.Text):
                        raise error("E0504", "a path is a text in quotes", path.span)
                    plan["log"] = path.value
                case ast.Checkpoint():
                    pass                             # what it watches may stand below it
                case _:
                    raise error("E0512", "not a clause of `train`", clause.span)
        plan["every"], plan["schedules"] = tuple(every), tuple(schedules)
        plan["checkpoint"] = next((self.checkpoint(clause, groups, plan) for clause in statement.clauses
                                   if isinstance(clause, ast.Checkpoint)), None)

    def checkpoint(self, clause: ast.Checkpoint, groups: Sequence[program.GroupPlan], plan: Mapping[str, Any]) -> program.Checkpoint:
        path, count = self.state_path(clause.path), self.count(clause.count, "how often")
        if not clause.best:
            return program.Checkpoint(path, count, clause.unit, None)
        rule: program.StopRule | None = plan.get("stop")
        costs = sorted({name for group in groups for name in group.costs})
        if rule is None and len(costs) != 1:
            raise error("E0423", "`best` of what: " + (f"there are {len(costs)} costs here" if costs else "there is no cost here"),
                        clause.span, ", ".join(f"`{c}`" for c in costs), help="say what is watched: `stop after 10 epochs without lower C`")
        return program.Checkpoint(path, count, clause.unit, (rule.name, rule.lower) if rule is not None else (costs[0], True))

    def state_path(self, expr: ast.Expr, reading: bool = False) -> str:
        """The name of a file that holds the whole state."""
        if not isinstance(expr, ast.Text):
            raise error("E0504", "a path is a text in quotes", expr.span)
        if not expr.value.lower().endswith(".safetensors"):
            name = f"{expr.value.rpartition('/')[2].partition('.')[0] or 'm'}.safetensors"
            where = "is in" if reading else "goes into"
            raise error("E0608", f"the whole state {where} a .safetensors file, not `{expr.value}`", expr.span,
                        help='numbers come from other files as data: `data t = csv("t.csv")`' if reading else
                        f'write `"{name}"`; one value goes into a .csv or .npy file: `save w to "w.csv"`')
        return expr.value

    @abstractmethod
    def _dispatch(self, statement: ast.Statement) -> list[program.Item]:
        """One statement, wherever it stands."""

    def valid(self, bindings: Sequence[ast.Binding], statement: ast.Train) -> tuple[program.Feed, ...]:
        feeds, _ = self.feeds(bindings, alike=True)
        given = {leaf_key(f.leaf) for f in feeds}
        for binding in statement.over:
            symbol = self.scope[binding.name.id]
            if isinstance(symbol.value, Node) and leaf_key(symbol.value) not in given:
                raise error("E0407", f"`{binding.name.id}` has no data in `valid`",
                            bindings[-1].span if bindings else statement.span,
                            help=f"add `{binding.name.id} = …`")
        return tuple(feeds)

    # ------------------------------------------------------------ schedules
    def schedule(self, target: ast.Ident, value: ast.Expr, groups: Sequence[program.GroupPlan]) -> program.Schedule:
        candidates = self.schedule_targets(target.id, groups)
        if not candidates:
            raise error("E0418", f"no `{target.id}` to schedule", target.span,
                        "neither a literal `let` nor a parameter of the optimiser",
                        help="name the rate: `let rate = 0.01`, or schedule a parameter of the optimiser")
        if len(candidates) > 1:
            names = " or ".join(schedule_words(str(c.attr("name"))) for c in candidates)
            raise error("E0418", f"`{target.id}` could be {names}", target.span, "",
                        help="give the optimisers' rates names of their own: `let slow = 0.001`")
        node = candidates[0]
        changing = leaf("schedule", str(node.attr("name")), node.type)
        return self.schedule_of(value, node, changing)

    def schedule_targets(self, name: str, groups: Sequence[program.GroupPlan]) -> list[Node]:
        found = []
        symbol = self.scope.get(name)
        if symbol and symbol.kind == "let" and isinstance(symbol.value,
                                                          Node) and literal_value(symbol.value) is not None:
            found.append(symbol.value)
        for node in topological([u.value for g in groups for u in g.updates]):
            if node.op is alias and str(node.attr("name")).endswith(f".{name}") and node not in found and literal_value(node) is not None:
                found.append(node)
        return found

    def schedule_of(self, value: ast.Expr, node: Node, changing: Node) -> program.Schedule:
        if not isinstance(value, ast.Call) or not isinstance(value.function, ast.Name) or \
                value.function.id not in SCHEDULES:
            raise error("E0418", f"`{value.span.text}` is not a schedule", value.span,
                        help="write " + ", ".join(f"`{form}`" for form in SCHEDULES.values()))
        kind = value.function.id
        wanted = SCHEDULES[kind].count(",") + 1
        if len(value.arguments) != wanted:
            raise error("E0418", f"`{kind}` takes {wanted} values, not {len(value.arguments)}", value.span,
                        help=f"write `{SCHEDULES[kind]}`")
        if kind == "warmup":
            inner = self.schedule_of(value.arguments[1].value, node, changing)
            return program.Schedule(node, changing, kind, (self.number(value.arguments[0].value),), inner)
        return program.Schedule(node, changing, kind, tuple(self.number(a.value) for a in value.arguments))

    def number(self, expr: ast.Expr) -> float:
        value = literal_value(self.node(expr))
        if value is None:
            raise error("E0418", "the numbers of a schedule are literals", expr.span, help="write `cosine(0.1, 0.001)`")
        return float(value)


def schedule_words(name: str) -> str:
    """What a value that a schedule may change is called: a `let`, or `sgd1.rate`, a parameter of an optimiser."""
    optimizer, dot, parameter = name.partition(".")
    return f"the `{parameter}` of `{optimizer.rstrip('0123456789')}`" if dot else f"`let {name}`"
