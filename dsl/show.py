"""What a script means, for `lr show`.

In: a loaded session, a name, a view.  Out: text: formulas in the user's names, gradients written out, the rules that fired,
the typed graph.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

from dsl.errors import did_you_mean, error
from dsl.ir.node import Node, topological
from dsl.ir.text import expression, listing
from dsl.ir.types import is_float
from dsl.ops.calculus import gradient
from dsl.ops.leaves import is_leaf, leaf_name
from dsl.passes.rewrite import Fired
from dsl.pipeline import prepare
from dsl.syntax.values import Symbol, Value

if TYPE_CHECKING:
    from dsl.session import Session

FORMULAS = ("let", "model", "cost", "metric", "grad", "hess", "jac")


def describe(session: Session, name: str | None, view: str | None) -> str:
    """The text of one name, or of the whole program.  Raises `LrError`."""
    if name is None:
        return whole(session, view)
    symbol = session.elaborator.scope.get(name)
    if symbol is None or symbol.value is None:
        near = did_you_mean(name, session.elaborator.scope)
        raise error("E0301", f"no name `{name}`", help=f"did you mean `{near}`?" if near else None)
    return one(session, symbol, view)


def whole(session: Session, view: str | None) -> str:
    """Every named thing of the script, in order."""
    lines = []
    for name, symbol in session.elaborator.scope.items():
        match symbol.value:
            case Node() as node if symbol.kind in FORMULAS:
                if view in (None, "grad") or symbol.kind == "cost":
                    lines.append(one(session, symbol, view) if view else f"{symbol.kind:<7} {name} : {node.type} = {session.shown(name, node)}\n")
            case Node() as node if view is None:
                lines.append(f"{symbol.kind:<7} {name} : {node.type}\n")
            case _:
                pass
    if view is None:
        for update in session.elaborator.updates:
            if is_leaf(update.target, "shared"):
                lines.append(f"update  {leaf_name(update.target)} <- {formula(session, update.value)}\n")
    return "".join(lines)


def one(session: Session, symbol: Symbol, view: str | None) -> str:
    value: Value | None = symbol.value
    name = symbol.name
    if not isinstance(value, Node):
        assert value is not None
        return session.shown(name, value) + "\n"
    match view:
        case "grad":
            return gradients(session, name, value)
        case "rules":
            return rules(session, value)
        case "graph":
            return listing(prepare([value], session.options())) + "\n"
        case _:
            return f"{session.shown(name, value)}\n"


def formula(session: Session, node: Node) -> str:
    """A node as a formula, derivatives by their names where they have one."""
    return expression(node)


def gradients(session: Session, name: str, value: Node) -> str:
    """The gradient of a scalar with respect to every shared variable it reaches."""
    if value.rank or not is_float(value.dtype):
        return f"{name} is {value.type}: a gradient is of a scalar\n"
    targets = [n for n in topological([value]) if is_leaf(n, "shared") and is_float(n.dtype)]
    names = {n: k for n, k in session.names().items() if k != name}
    lines = []
    for target in targets:
        (written,) = prepare([gradient(value, target)], session.options())
        lines.append(f"d {name} / d {leaf_name(target)} : {target.type} = {expression(written, names)}\n")
    return "".join(lines) or f"{name} depends on no shared variable\n"


def rules(session: Session, value: Node) -> str:
    """Each rule that fired while the value (with its derivatives) was prepared."""
    trace: list[Fired] = []
    prepare([value], session.options(trace))
    fired_rules = [fired for fired in trace if fired.rule.name != "alias"]
    return "".join(f"{fired.rule}: {expression(fired.before)}  →  {expression(fired.after)}\n" for fired in fired_rules) or "no rule fired\n"
