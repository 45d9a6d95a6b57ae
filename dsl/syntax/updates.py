"""The statements that say how state changes: `update`, `minimize`, `step`.

In: their AST, and the names in scope.  Out: update rules over typed graphs.  An optimiser is a rule written in the
language; `minimize` instantiates it for every variable, with a leaf for each slot.
"""
from __future__ import annotations

from abc import abstractmethod

from dsl.errors import Label, Source, did_you_mean, error, warning
from dsl.ir.node import Node, make, reaches, topological
from dsl.ir.types import (
    ArrayType,
    TypeFault,
    is_float,
    is_int,
    shape_text,
)
from dsl.ops.build import literal_value
from dsl.ops.calculus import gradient
from dsl.ops.functions import Function
from dsl.ops.leaves import is_leaf, leaf, leaf_name
from dsl.ops.scalar import alias
from dsl.ops.shape import expand
from dsl.ops.table import cast, constant
from dsl.syntax import ast, program
from dsl.syntax.binding import leaf_key
from dsl.syntax.calls import parameter_of
from dsl.syntax.declarations import Declarations
from dsl.syntax.faults import kind_words
from dsl.syntax.values import (
    Host,
    OptimizerRule,
    Scope,
    Skipped,
    Symbol,
    Value,
)

UPDATES = (ast.Update, ast.Minimize, ast.Step)


class Updates(Declarations):
    def __init__(self, host: Host, rebind: bool) -> None:
        super().__init__(host, rebind)
        self.updates: list[program.UpdateRule] = []
        self.gradients: list[program.Gradients] = []
        self.minimized = 0
        self.trained = 0
        self.updates_failed = False
        """Whether some update was in error, so that what is missing is not reported again."""

    # ------------------------------------------------------------ update
    def update_statement(self, statement: ast.Update, group: str | None,
                         origin: ast.Statement | None = None) -> None:
        target = self.shared(statement.target)
        value = self.node(statement.value)
        self.add_update(program.UpdateRule(statement.span, target, self.fitted(value, target, statement.value), group,
                                            origin=origin or statement),
                        statement.target)

    def shared(self, ident: ast.Ident) -> Node:
        symbol = self.scope.get(ident.id)
        if symbol is None:
            raise self.unknown(ident.id, ident.span)
        if symbol.value is None:
            raise Skipped
        if not isinstance(symbol.value, Node) or not is_leaf(symbol.value, "shared"):
            raise error("E0408", f"`{ident.id}` is not a shared variable", ident.span, kind_words(symbol.kind),
                        labels=[Label(symbol.span, "bound here")] if symbol.span else [],
                        help=f"state is declared with `shared {ident.id} = …`")
        return symbol.value

    def fitted(self, value: Node, target: Node, expr: ast.Expr) -> Node:
        """The new value in the variable's dtype and shape."""
        name = leaf_name(target).rpartition(".")[2]
        if (is_int(target.dtype) or target.dtype == "bool") and is_float(value.dtype):
            raise error("E0203", f"`{name}` is {target.dtype}; its update is {value.dtype}", expr.span,
                        help="convert it: `int(…)`")
        value = cast(value, target.dtype) if value.dtype != target.dtype else value
        try:
            if value.rank > target.rank:
                raise TypeFault("", detail=shape_text(value.shape), dims=(*value.shape, *target.shape))
            return expand(value, target.shape)
        except TypeFault as fault:
            symbol = self.scope.get(name)
            declared = shape_text(target.shape) if target.rank else "a scalar"
            labels = [Label(symbol.span, f"{name} is {declared}")] if symbol and symbol.span else []
            slot = is_leaf(target, "slot")
            problem = error("E0202", f"`{name}` is {declared}; its update is {shape_text(value.shape)}", expr.span,
                            "" if value.shape == () else shape_text(value.shape), labels=labels,
                            help=f"start it in the variable's shape: `slot {name} = zeros_like(p)`" if slot else
                            "an update keeps the variable's shape")
            self.concerning[problem.diagnostic] = fault.dims
            raise problem from None

    def add_update(self, rule: program.UpdateRule, ident: ast.Ident | None) -> None:
        for other in self.updates:
            if leaf_key(other.target) == leaf_key(rule.target) and other.group == rule.group:
                if self.rebind and other.origin is not rule.origin and other.origin is not None:
                    self.forget_updates(other.origin)
                    break
                raise error("E0405", f"two updates of `{leaf_name(rule.target)}` in one step",
                            ident.span if ident else rule.span, "again here",
                            labels=[Label(other.span, "already changed here")],
                            help="all updates of a step are simultaneous; write one, or put them in two `step` groups")
        self.updates.append(rule)

    def forget_updates(self, origin: ast.Statement) -> None:
        """What a statement that is replaced had made."""
        self.updates = [u for u in self.updates if u.origin is not origin]
        self.gradients = [g for g in self.gradients if g.origin is not origin]

    # ------------------------------------------------------------ minimize
    def minimize_statement(self, statement: ast.Minimize, group: str | None,
                           origin: ast.Statement | None = None) -> None:
        cost = self.node(statement.cost)
        if cost.rank:
            raise error("E0403", f"`minimize` takes a scalar, not {shape_text(cost.shape)}", statement.cost.span,
                        shape_text(cost.shape),
                        help=f"reduce it: `mean({statement.cost.span.text})`")
        targets = self.minimized_variables(cost, statement)
        rule, given = self.optimizer(statement.optimizer)
        self.minimized += 1
        number = self.minimized
        parameters = self.optimizer_parameters(rule, given)
        gradients = []
        for target in targets:
            self.check_derivative(cost, target, statement.cost.span)
            with self.placing(statement.span):
                node = make(alias, [gradient(cost, target)], {"name": f"gradient of {leaf_name(target)}"})
            self.placed(node.args[0], statement.span)
            self.origins.record(node, statement.span)
            gradients.append(node)
            self.instantiate(rule, parameters, target, node, number, group, statement, origin or statement)
        self.gradients.append(program.Gradients(cost, tuple(gradients), origin or statement))

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
        for whole in [v for v in declared if is_int(v.dtype) and v in topological([cost]) and v not in excluded]:
            name = leaf_name(whole)
            self.warnings.append(warning("E0203", f"`{name}` holds whole numbers and is not trained", statement.cost.span,
                                         f"depends on {name}, which is {whole.dtype}",
                                         help=f"to train it give it floats (`[1.0, 2, 3]`); to keep it write `except {name}`"))
        if not chosen and excluded:
            raise error("E0402", f"nothing is left of what `{statement.cost.span.text}` depends on", statement.cost.span,
                        "all of it is excluded", help="name less after `except`")
        if not chosen:
            raise error("E0402", f"`{statement.cost.span.text}` depends on no shared variable", statement.cost.span,
                        "nothing to train",
                        help="declare what is trained with `shared`")
        return sorted(chosen, key=lambda v: list(self.scope).index(leaf_name(v)))

    def check_reaches(self, target: Node, x: Node, variable: ast.Ident, value: ast.Expr) -> None:
        if x not in reaches([target], [x]):
            raise error("E0402", f"`{value.span.text}` does not depend on `{variable.id}`", variable.span,
                        "not reached",
                        labels=[Label(value.span, f"this never uses `{variable.id}`")],
                        help="use it in the cost, or leave it out of `wrt`")

    # ------------------------------------------------------------ optimisers
    def optimizer(self, expr: ast.Expr) -> tuple[OptimizerRule, ast.Call]:
        call = expr if isinstance(expr, ast.Call) else ast.Call(expr, (), span=expr.span)
        name = call.function.span.text
        symbol = self.scope.get(name) if isinstance(call.function, ast.Name) else None
        value: Value | None = symbol.value if symbol else None
        if symbol is not None and value is None:
            raise Skipped
        if symbol is None and isinstance(call.function, ast.Name):
            library = self.library_optimizers()
            if name not in library:
                near = did_you_mean(name, [*library,
                                           *(n for n, s in self.scope.items() if isinstance(s.value, OptimizerRule))])
                raise error("E0409", f"no optimiser `{name}`", call.function.span, help=f"did you mean `{near}`?"
                            if near else f"the library has {', '.join(f'`{n}`' for n in library)}")
            value = library[name].value
        elif not isinstance(call.function, ast.Name):
            value = self.value(call.function)
        if not isinstance(value, OptimizerRule):
            raise error("E0409", f"`{name}` is not an optimiser", call.function.span,
                        help="`using sgd(rate = 0.1)`, or define one with `optimizer`")
        return value, call

    def library_optimizers(self) -> dict[str, Symbol]:
        source = self.host.read_library("optim")
        if source is None:
            return {}
        return {n: s for n, s in self.module(source).items() if isinstance(s.value, OptimizerRule)}

    @abstractmethod
    def module(self, source: Source) -> Scope:
        """The definitions of another script, in a scope of their own."""

    def optimizer_parameters(self, rule: OptimizerRule, call: ast.Call) -> dict[str, Symbol]:
        """Each parameter as a named node, so that a schedule can take its place."""
        name = rule.definition.name.id
        row = Function(name, tuple(parameter_of(p) for p in rule.definition.parameters), "", "", None)
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
                raise error("E0204", f"`{parameter.name.id}` of `{name}` is a scalar, not {shape_text(node.shape)}",
                            supplied.span if supplied else parameter.span)
            if literal_value(node) is not None:
                node = make(alias, [node], {"name": f"{name}{self.minimized}.{parameter.name.id}"})
            symbols[parameter.name.id] = Symbol(parameter.name.id, "parameter", node, parameter.name.span)
        return symbols

    def instantiate(self, rule: OptimizerRule, parameters: dict[str, Symbol], target: Node, slope: Node, number: int,
                    group: str | None, statement: ast.Minimize, origin: ast.Statement) -> None:
        """The optimiser's updates for one variable."""
        definition = rule.definition
        p, g, t = (i.id for i in definition.names)
        label = f"{definition.name.id}{number}"
        counter = leaf("counter", f"{label}.t", ArrayType("int64"))
        step: Node = counter + 1
        scope = rule.scope.new_child({**parameters, p: Symbol(p, "shared", target, None),
                                      g: Symbol(g, "let", slope, None), t: Symbol(t, "let", step, None)})
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
                        if ident.id != p and ident.id not in slots:
                            raise error("E0410", f"an optimiser updates `{p}` and its slots, not `{ident.id}`",
                                        ident.span, help=f"declare a slot: `slot {ident.id} = zeros_like({p})`")
                        known: tuple[Node, Node | None] = (target, None) if ident.id == p else slots[ident.id]
                        node, first = known
                        new = self.fitted(self.node(value), node, value)
                        place = statement.span if ident.id == p else line.span
                        self.add_update(program.UpdateRule(place, node, new, group, first, number, origin), None)
                    case _:
                        raise error("E0410", "an optimiser holds `slot`, `let` and `update`", line.span)
        if not any(leaf_key(u.target) == leaf_key(counter) for u in self.updates):
            self.updates.append(program.UpdateRule(statement.span, counter, step, group, constant(0, "int64"), number,
                                                   origin))

    # ------------------------------------------------------------ step
    def step_statement(self, statement: ast.Step) -> None:
        for line in statement.body:
            match line:
                case ast.Update():
                    self.update_statement(line, statement.name.id, statement)
                case ast.Minimize():
                    self.minimize_statement(line, statement.name.id, statement)
                case _:
                    raise error("E0512", "a `step` group holds `update` and `minimize`", line.span)
        self.scope.maps[0][statement.name.id] = Symbol(statement.name.id, "step", statement.name.id,
                                                       statement.name.span)
