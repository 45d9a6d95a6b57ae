"""The statements that change state: `update`, `minimize`, `step`, `train`.

In: their AST, and the names in scope.  Out: update rules and training plans over typed graphs.  An optimiser is a rule
written in the language; `minimize` instantiates it for every variable, with a leaf for each slot.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dsl.errors import Label, did_you_mean, error
from dsl.ir.node import Node, make, topological
from dsl.ir.types import ArrayType, TypeFault, is_float, is_int, shape_text
from dsl.ops import philox
from dsl.ops.calculus import DERIVATIVES, gradient
from dsl.ops.functions import Function, literal_value
from dsl.ops.leaves import is_leaf, leaf, leaf_name
from dsl.ops.scalar import alias
from dsl.ops.shape import expand
from dsl.ops.table import cast, constant
from dsl.syntax import ast, program
from dsl.syntax.binding import Binder, leaf_key
from dsl.syntax.expressions import _parameter, not_built
from dsl.syntax.values import OptimizerRule, Skipped, Symbol, Value

SCHEDULES = {"cosine": 2, "linear": 2, "exponential": 2, "steps": 3, "warmup": 2}


class Training(Binder):
    def init_training(self) -> None:
        self.updates: list[program.UpdateRule] = []
        self.gradients: list[program.Gradients] = []
        self.minimized = 0
        self.trained = 0
        self.watched: dict[str, Node] = {}

    # ------------------------------------------------------------ update
    def update_statement(self, statement: ast.Update, group: str | None) -> None:
        target = self.shared(statement.target)
        value = self.node(statement.value)
        self.add_update(program.UpdateRule(statement.span, target, self.fitted(value, target, statement.value), group), statement.target)

    def shared(self, ident: ast.Ident) -> Node:
        symbol = self.scope.get(ident.id)
        if symbol is None:
            raise self.unknown(ident.id, ident.span)
        if symbol.value is None:
            raise Skipped
        if not isinstance(symbol.value, Node) or not is_leaf(symbol.value, "shared"):
            raise error("E0408", f"`{ident.id}` is not a shared variable", ident.span, f"a {symbol.kind}",
                        labels=[Label(symbol.span, "bound here")] if symbol.span else [], help=f"state is declared with `shared {ident.id} = …`")
        return symbol.value

    def fitted(self, value: Node, target: Node, expr: ast.Expr) -> Node:
        """The new value in the variable's dtype and shape."""
        name = leaf_name(target)
        if (is_int(target.dtype) or target.dtype == "bool") and is_float(value.dtype):
            raise error("E0203", f"`{name}` is {target.dtype}; its update is {value.dtype}", expr.span, help="convert it: `int(…)`")
        value = cast(value, target.dtype) if value.dtype != target.dtype else value
        try:
            if value.rank > target.rank:
                raise TypeFault("", detail=shape_text(value.shape), dims=(*value.shape, *target.shape))
            return expand(value, target.shape)
        except TypeFault as fault:
            symbol = self.scope.get(name)
            problem = error("E0202", f"`{name}` is {shape_text(target.shape) if target.rank else 'a scalar'}; its update is {shape_text(value.shape)}",
                            expr.span, shape_text(value.shape), labels=[Label(symbol.span, f"{name} is {shape_text(target.shape)}")] if symbol and symbol.span else [],
                            help="an update keeps the variable's shape")
            self.concerning[problem.diagnostic] = fault.dims
            raise problem from None

    def add_update(self, rule: program.UpdateRule, ident: ast.Ident | None) -> None:
        for other in self.updates:
            if leaf_key(other.target) == leaf_key(rule.target) and other.group == rule.group:
                if self.rebind and other.minimize is None and rule.minimize is None:
                    self.updates.remove(other)
                    break
                raise error("E0405", f"two updates of `{leaf_name(rule.target)}` in one step", ident.span if ident else rule.span, "again here",
                            labels=[Label(other.span, "already changed here")], help="all updates of a step are simultaneous; write one, or put them in two `step` groups")
        self.updates.append(rule)

    rebind: bool

    # ------------------------------------------------------------ minimize
    def minimize_statement(self, statement: ast.Minimize, group: str | None) -> None:
        cost = self.node(statement.cost)
        if cost.rank:
            raise error("E0403", f"`minimize` takes a scalar, not {shape_text(cost.shape)}", statement.cost.span, help="reduce it: `mean(…)`")
        targets = self.minimized_variables(cost, statement)
        rule, given = self.optimizer(statement.optimizer)
        self.minimized += 1
        number = self.minimized
        parameters = self.optimizer_parameters(rule, given)
        gradients = []
        for target in targets:
            node = make(alias, [gradient(cost, target)], {"name": f"gradient of {leaf_name(target)}"})
            self.placed(node.args[0], statement.span)
            self.origins.record(node, statement.span)
            gradients.append(node)
            self.instantiate(rule, parameters, target, node, number, group, statement)
        self.gradients.append(program.Gradients(cost, tuple(gradients)))

    def minimized_variables(self, cost: Node, statement: ast.Minimize) -> list[Node]:
        reached = [n for n in topological([cost]) if is_leaf(n, "shared") and is_float(n.dtype)]
        if statement.wrt is not None:
            chosen = []
            for ident in statement.wrt:
                target = self.shared(ident)
                self.check_reaches(cost, target, ident, statement.cost)
                chosen.append(target)
            return chosen
        excluded = [self.shared(ident) for ident in statement.exclude]
        for ident, target in zip(statement.exclude, excluded, strict=True):
            self.check_reaches(cost, target, ident, statement.cost)
        declared = [s.value for s in self.scope.values() if isinstance(s.value, Node) and is_leaf(s.value, "shared")]
        chosen = [v for v in reversed(declared) if v in reached and v not in excluded]
        if not chosen:
            raise error("E0402", f"`{statement.cost.span.text}` depends on no shared variable", statement.cost.span, "nothing to train",
                        help="declare what is trained with `shared`")
        return sorted(chosen, key=lambda v: list(self.scope).index(leaf_name(v)))

    def check_reaches(self, target: Node, x: Node, variable: ast.Ident, value: ast.Expr) -> None:
        raise AssertionError("given by `Elaborator`")

    def optimizer(self, expr: ast.Expr) -> tuple[OptimizerRule, ast.Call]:
        call = expr if isinstance(expr, ast.Call) else ast.Call(expr, (), span=expr.span)
        name = call.function.span.text
        symbol = self.scope.get(name) if isinstance(call.function, ast.Name) else None
        value: Value | None = symbol.value if symbol else None
        if symbol is None and isinstance(call.function, ast.Name):
            library = self.library_optimizers()
            if name not in library:
                near = did_you_mean(name, [*library, *(n for n, s in self.scope.items() if isinstance(s.value, OptimizerRule))])
                raise error("E0409", f"no optimiser `{name}`", call.function.span, help=f"did you mean `{near}`?" if near else f"the library has {', '.join(f'`{n}`' for n in library)}")
            value = library[name].value
        elif not isinstance(call.function, ast.Name):
            value = self.value(call.function)
        if not isinstance(value, OptimizerRule):
            raise error("E0409", f"`{name}` is not an optimiser", call.function.span, help="`using sgd(rate = 0.1)`, or define one with `optimizer`")
        return value, call

    def library_optimizers(self) -> dict[str, Symbol]:
        source = self.host.read_library("optim")
        if source is None:
            return {}
        return {n: s for n, s in self.module(source).items() if isinstance(s.value, OptimizerRule)}

    def module(self, source: Any) -> Any:
        raise AssertionError("given by `Elaborator`")

    def optimizer_parameters(self, rule: OptimizerRule, call: ast.Call) -> dict[str, Symbol]:
        """Each parameter as a named node, so that a schedule can take its place."""
        name = rule.definition.name.id
        row = Function(name, tuple(_parameter(p) for p in rule.definition.parameters), "", "", None)
        given = self.match_arguments(call, row)
        symbols: dict[str, Symbol] = {}
        for parameter in rule.definition.parameters:
            supplied = given.get(parameter.name.id)
            if supplied is None:
                assert parameter.default is not None
                with self.inside(rule.scope):
                    node = cast(self.node(parameter.default), self.precision)
            else:
                node = cast(self.node(supplied), self.precision)
            if node.rank:
                raise error("E0204", f"`{parameter.name.id}` of `{name}` is a scalar", supplied.span if supplied else parameter.span)
            if literal_value(node) is not None:
                node = make(alias, [node], {"name": f"{name}{self.minimized}.{parameter.name.id}"})
            symbols[parameter.name.id] = Symbol(parameter.name.id, "parameter", node, parameter.name.span)
        return symbols

    def instantiate(self, rule: OptimizerRule, parameters: dict[str, Symbol], target: Node, slope: Node, number: int,
                    group: str | None, statement: ast.Minimize) -> None:
        """The optimiser's updates for one variable."""
        definition = rule.definition
        if len(definition.names) != 3:
            raise error("E0410", "an optimiser is `for p, g, t`: variable, gradient, step", definition.name.span)
        p, g, t = (i.id for i in definition.names)
        label = f"{definition.name.id}{number}"
        counter = leaf("counter", f"{label}.t", ArrayType("int64"))
        step: Node = counter + 1
        scope = rule.scope.new_child({**parameters, p: Symbol(p, "shared", target, None), g: Symbol(g, "let", slope, None), t: Symbol(t, "let", step, None)})
        slots: dict[str, tuple[Node, Node]] = {}
        with self.inside(scope):
            for line in definition.body:
                match line:
                    case ast.Slot(items):
                        for item in items:
                            start = self.node(item.value)
                            slot = leaf("slot", f"{label}.{leaf_name(target)}.{item.name.id}", start.type)
                            slots[item.name.id] = slot, start
                            self.scope.maps[0][item.name.id] = Symbol(item.name.id, "slot", slot, item.name.span)
                    case ast.Define("let", idents, value):
                        self.bind_local(idents, self.float_literal(value, self.value(value)), value)
                    case ast.Update(ident, value):
                        node, start = (target, None) if ident.id == p else slots.get(ident.id, (None, None))
                        if node is None:
                            raise error("E0410", f"an optimiser updates `{p}` and its slots, not `{ident.id}`", ident.span)
                        new = self.fitted(self.node(value), node, value)
                        place = statement.span if ident.id == p else line.span
                        self.add_update(program.UpdateRule(place, node, new, group, start, number), None)
                    case _:
                        raise error("E0410", "an optimiser holds `slot`, `let` and `update`", line.span)
        if not any(leaf_key(u.target) == leaf_key(counter) for u in self.updates):
            self.updates.append(program.UpdateRule(statement.span, counter, step, group, constant(0, "int64"), number))

    # ------------------------------------------------------------ step
    def step_statement(self, statement: ast.Step) -> None:
        for line in statement.body:
            match line:
                case ast.Update():
                    self.update_statement(line, statement.name.id)
                case ast.Minimize():
                    self.minimize_statement(line, statement.name.id)
                case _:
                    raise error("E0512", "a `step` group holds `update` and `minimize`", line.span)
        self.scope.maps[0][statement.name.id] = Symbol(statement.name.id, "step", statement.name.id, statement.name.span)

    # ------------------------------------------------------------ train
    def train_statement(self, statement: ast.Train) -> program.Train:
        feeds, sizes = self.feeds(statement.over, alike=True)
        groups = self.group_plans(statement)
        self.check_fed([u.value for g in groups for u in g.updates], feeds, statement)
        self.trained += 1
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
        averaged = frozenset(s.value for s in self.scope.values() if s.kind in ("cost", "metric") and isinstance(s.value, Node))
        return program.Train(statement.span, self.count(statement.count, "how long to train"), statement.unit, tuple(feeds), batch,
                             statement.drop_last, key, groups, watched, gradients=tuple(self.gradients), averaged=averaged, **plan)

    def count(self, expr: ast.Expr, what: str) -> Node:
        node = self.node(expr)
        value = literal_value(node)
        if node.rank or any(is_leaf(n, "input", "shared") for n in topological([node])):
            raise error("E0415", f"{what} is a whole number", expr.span)
        if value is not None and (value < (0 if what == "how long to train" else 1) or value != int(value)):
            raise error("E0415", f"{what} is a whole number{'' if what == 'how long to train' else ', at least 1'}: not {value}", expr.span)
        return node

    def group_plans(self, statement: ast.Train) -> tuple[program.GroupPlan, ...]:
        names: list[str | None] = [g.id for g in statement.groups] or [None]
        known = [u.group for u in self.updates]
        for ident in statement.groups:
            if ident.id not in known:
                near = did_you_mean(ident.id, [k for k in known if k])
                raise error("E0413", f"no `step {ident.id}:` above", ident.span, help=f"did you mean `{near}`?" if near else None)
        if names == [None] and None not in known:
            groups = sorted({k for k in known if k})
            raise error("E0406", "nothing to train: no `update` or `minimize` above", statement.span,
                        help=f"name the groups: `of {', '.join(groups)}`" if groups else "write `update w <- w - 0.01 * gw`, or `minimize C wrt all using adam()`")
        plans = []
        for name in names:
            updates = tuple(u for u in self.updates if u.group == name)
            plans.append(program.GroupPlan(name, updates, self.costs_of(updates)))
        return tuple(plans)

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
        self.epoch_values = {}
        try:
            return self.node(expr)
        finally:
            self.epoch_values = None

    def epoch_value(self, symbol: Symbol) -> Value:
        assert isinstance(symbol.value, Node)
        self.watched[symbol.name] = symbol.value
        return epoch_leaf(symbol.name, symbol.value)

    # ------------------------------------------------------------ clauses
    def clauses(self, statement: ast.Train, groups: Sequence[program.GroupPlan], plan: dict[str, Any], sizes: Any) -> None:
        every: list[program.Every] = []
        schedules: list[program.Schedule] = []
        for clause in statement.clauses:
            match clause:
                case ast.Every(count, unit, body):
                    items: list[program.Item] = []
                    self.epoch_values = {}
                    try:
                        for line in body:
                            items.extend(self._dispatch(line))
                    finally:
                        self.epoch_values = None
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
                        raise error("E0416", f"`{name.id}` is not a cost or metric", name.span, f"a {symbol.kind}", help=f"declare it: `metric {name.id} = …`")
                    self.watched[name.id] = symbol.value
                    plan["stop"] = program.StopRule(self.count(count, "patience"), unit, direction == "lower", name.id)
                case ast.Schedule(target, value):
                    schedules.append(self.schedule(target, value, groups))
                case ast.ClipNorm(value):
                    if not any(u.minimize is not None for g in groups for u in g.updates):
                        raise error("E0417", "`clip norm` holds the gradients of a `minimize`", clause.span, "only hand-written updates here",
                                    help="scale the gradient in the update: `gw * minimum(1, c / norm(gw))`")
                    plan["clip"] = cast(self.node(value), self.precision)
                case ast.Log(path):
                    if not isinstance(path, ast.Text):
                        raise error("E0504", "a path is a text in quotes", path.span)
                    plan["log"] = path.value
                case ast.Checkpoint():
                    raise not_built(clause.span, "`checkpoint`")
                case _:
                    raise error("E0512", "not a clause of `train`", clause.span)
        plan["every"], plan["schedules"] = tuple(every), tuple(schedules)

    def _dispatch(self, statement: ast.Statement) -> list[program.Item]:
        raise AssertionError("given by `Elaborator`")

    def valid(self, bindings: Sequence[ast.Binding], statement: ast.Train) -> tuple[program.Feed, ...]:
        feeds, _ = self.feeds(bindings, alike=True)
        given = {leaf_key(f.leaf) for f in feeds}
        for binding in statement.over:
            symbol = self.scope[binding.name.id]
            if isinstance(symbol.value, Node) and leaf_key(symbol.value) not in given:
                raise error("E0407", f"`{binding.name.id}` has no data in `valid`", bindings[-1].span if bindings else statement.span,
                            help=f"add `{binding.name.id} = …`")
        return tuple(feeds)

    def schedule(self, target: ast.Ident, value: ast.Expr, groups: Sequence[program.GroupPlan]) -> program.Schedule:
        candidates = self.schedule_targets(target.id, groups)
        if not candidates:
            raise error("E0418", f"no `{target.id}` to schedule", target.span, "neither a literal `let` nor a parameter of the optimiser",
                        help="name the rate: `let rate = 0.01`, or schedule a parameter of the optimiser")
        if len(candidates) > 1:
            names = " or ".join(f"`{c.attr('name')}`" for c in candidates)
            raise error("E0418", f"`{target.id}` could be {names}", target.span, "ambiguous",
                        help="give the optimisers' rates names of their own: `let slow = 0.001`")
        node = candidates[0]
        changing = leaf("schedule", str(node.attr("name")), node.type)
        return self.schedule_of(value, node, changing)

    def schedule_targets(self, name: str, groups: Sequence[program.GroupPlan]) -> list[Node]:
        found = []
        symbol = self.scope.get(name)
        if symbol and symbol.kind == "let" and isinstance(symbol.value, Node) and literal_value(symbol.value) is not None:
            found.append(symbol.value)
        for node in topological([u.value for g in groups for u in g.updates]):
            if node.op is alias and str(node.attr("name")).endswith(f".{name}") and node not in found and literal_value(node) is not None:
                found.append(node)
        return found

    def schedule_of(self, value: ast.Expr, node: Node, changing: Node) -> program.Schedule:
        forms = "`cosine(first, last)`, `linear(first, last)`, `exponential(first, factor)`, `steps(first, factor, every)` or `warmup(steps, schedule)`"
        if not isinstance(value, ast.Call) or not isinstance(value.function, ast.Name) or value.function.id not in SCHEDULES:
            raise error("E0418", "not a schedule", value.span, help=forms)
        kind = value.function.id
        if len(value.arguments) != SCHEDULES[kind]:
            raise error("E0418", f"`{kind}` takes {SCHEDULES[kind]} values, not {len(value.arguments)}", value.span, help=forms)
        if kind == "warmup":
            inner = self.schedule_of(value.arguments[1].value, node, changing)
            return program.Schedule(node, changing, kind, (self.number(value.arguments[0].value),), inner)
        return program.Schedule(node, changing, kind, tuple(self.number(a.value) for a in value.arguments))

    def number(self, expr: ast.Expr) -> float:
        value = literal_value(self.node(expr))
        if value is None:
            raise error("E0418", "the numbers of a schedule are literals", expr.span)
        return float(value)


def epoch_leaf(name: str, node: Node) -> Node:
    """The epoch's value of a cost or metric, as a leaf."""
    return leaf("value", f"epoch {name}", ArrayType(node.dtype))

