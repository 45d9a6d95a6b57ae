"""The rewrite engine.

In: graphs and rule sets.  Out: graphs with every rule applied until none fits, and a trace of what fired.  A rule is a
lambda from its variables to (left, right) or (left, right, condition): `softplus = lambda x: (log1p(exp(x)),
softplus(x))`.  A variable may also stand for an attribute.  A number on the left matches a literal with the same bits.
The right side may be a function of the nodes, where sizes come in.  A rule fires only if the type stays the same.
"""
from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from typing import Any

from dsl.ir.node import Literal, Node, Op, Origins, Pattern, once, remade, topological
from dsl.ir.types import is_float
from dsl.ops.scalar import const
from dsl.ops.table import cast, coerce_operands
from dsl.record import record

Binding = dict[str, Any]


@record
class Rule:
    """`name` of `kind` (EXACT keeps every bit; STABLE may mend what overflow or cancellation spoilt)."""

    name: str
    kind: str
    left: Pattern
    right: Any
    condition: Callable[..., bool] | None = None

    def __str__(self) -> str:
        return f"{self.kind}.{self.name}"


@record
class RuleSet:
    kind: str
    rules: tuple[Rule, ...]
    by_op: dict[Op, list[Rule]] = field(default_factory=dict)


def rule_set(kind: str, **definitions: Callable[..., tuple[Any, ...]]) -> RuleSet:
    """A named set of rules, one lambda each."""
    rules = []
    for name, definition in definitions.items():
        left, right, *condition = definition(*[Pattern(None, name=p) for p in inspect.signature(definition).parameters])
        rules.append(Rule(name, kind, left, right, condition[0] if condition else None))
    by_op: dict[Op, list[Rule]] = {}
    for rule in rules:
        assert rule.left.op is not None
        by_op.setdefault(rule.left.op, []).append(rule)
    return RuleSet(kind, tuple(rules), by_op)


@record
class Fired:
    """One application of a rule."""

    rule: Rule
    before: Node
    after: Node


# ---------------------------------------------------------------- matching
def match(pattern: Any, node: Node, bound: Binding) -> Iterator[Binding]:
    """Every way the pattern fits the node, as bindings of its variables."""
    if not isinstance(pattern, Pattern):
        if node.op is const and _same_number(node.attr("literal"), pattern):
            yield bound
        return
    if pattern.op is None:
        if pattern.name not in bound:
            yield {**bound, pattern.name: node}
        elif bound[pattern.name] is node:
            yield bound
        return
    if pattern.op is not node.op or len(pattern.args) != len(node.args):
        return
    with_attrs = _match_attrs(pattern, node, bound)
    if with_attrs is None:
        return
    orders = [node.args, node.args[::-1]] if node.op.commutative and node.args[0] is not node.args[1] else [node.args]
    for args in orders:
        yield from _match_all(pattern.args, args, with_attrs)


def _match_all(patterns: Sequence[Any], nodes: Sequence[Node], bound: Binding) -> Iterator[Binding]:
    if not patterns:
        yield bound
        return
    for first in match(patterns[0], nodes[0], bound):
        yield from _match_all(patterns[1:], nodes[1:], first)


def _match_attrs(pattern: Pattern, node: Node, bound: Binding) -> Binding | None:
    attrs = dict(node.attrs)
    result = dict(bound)
    for name, wanted in pattern.attrs:
        value = attrs.pop(name, None)
        if isinstance(wanted, Pattern):
            if result.setdefault(wanted.name, value) != value:
                return None
        elif wanted != value:
            return None
    return None if attrs else result


def _same_number(literal: Literal, number: Any) -> bool:
    if literal.dtype == "bool" or isinstance(number, bool):
        return literal.value is number
    return literal == Literal(float(number) if is_float(literal.dtype) else number, literal.dtype)


# ---------------------------------------------------------------- building
def fill(pattern: Any, bound: Binding, like: Node) -> Any:
    """The right side with its variables replaced; a bare number takes the dtype of `like`."""
    if not isinstance(pattern, Pattern):
        return pattern
    if pattern.op is None:
        return bound[pattern.name]
    attrs = {k: fill(v, bound, like) for k, v in pattern.attrs}
    return pattern.op(*[fill(a, bound, like) for a in pattern.args], precision=like.dtype, **attrs)


def _replacement(rule: Rule, node: Node) -> Node | None:
    for bound in match(rule.left, node, {}):
        if rule.condition and not rule.condition(**bound):
            continue
        made = rule.right(**bound) if inspect.isfunction(rule.right) else fill(rule.right, bound, node)
        if not isinstance(made, Node):
            made = cast(coerce_operands("num", [made], node.dtype)[0], node.dtype)
        if made.type == node.type:
            return made
    return None


def rewrite(roots: Sequence[Node], rule_sets: Sequence[RuleSet], trace: list[Fired] | None = None,
            origins: Origins | None = None) -> list[Node]:
    """The graphs after the rules, applied from the leaves up until none fits."""
    done: dict[Node, Node] = {}
    inside = once(lambda body: rewrite(body, rule_sets, trace, origins))

    def settle(start: Node) -> Node:
        for node in topological([start], done):
            if node in done:
                continue
            args = tuple(done[a] for a in node.args)
            current = remade(node, args, inside)
            if origins is not None:
                origins.inherit(current, node)
            after = _apply(current, rule_sets, trace, origins)
            if after is not current:
                done[node] = after                       # in case the replacement reaches this very node
                after = settle(after)
            done[node] = after
            done.setdefault(current, after)
        return done[start]
    return [settle(r) for r in roots]


def _apply(node: Node, rule_sets: Sequence[RuleSet], trace: list[Fired] | None, origins: Origins | None) -> Node:
    """The node after the first rule that fits, or itself."""
    for rules in rule_sets:
        for rule in rules.by_op.get(node.op, ()):
            after = _replacement(rule, node)
            if after is None or after is node:
                continue
            if trace is not None:
                trace.append(Fired(rule, node, after))
            if origins is not None and node in origins:
                for inner in topological([after], origins):           # what has a place has operands that have one
                    origins.inherit(inner, node)
            return after
    return node
