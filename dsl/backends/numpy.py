"""The reference backend: NumPy, one op at a time.

In: graphs.  Out: a Python function of their leaves, one line a node, each a call of the op's `numpy` column.  Sizes are
run-time values: attributes that hold lengths are evaluated when new sizes are met, and nothing else changes.  The body of a
loop is a function of its own, and all outputs of a loop are one line.
"""
from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np

from dsl.backends.base import FaultAt
from dsl.ir.node import Node, topological
from dsl.ir.types import ArrayType, Dim
from dsl.ops.control import LOOPS, Loop, iterate, opened, same_loop
from dsl.ops.leaves import is_leaf
from dsl.ops.table import Fault

SPELLINGS: dict[Any, str] = {
    operator.add: "{} + {}", operator.sub: "{} - {}", operator.mul: "{} * {}", operator.truediv: "{} / {}", operator.neg: "-{}",
    operator.eq: "{} == {}", operator.ne: "{} != {}", operator.lt: "{} < {}", operator.le: "{} <= {}", operator.gt: "{} > {}",
    operator.ge: "{} >= {}", np.square: "{0} * {0}",
}
"""Functions that Python has an operator for, with the same bits: several times cheaper than a call on scalars."""


def holds_dims(value: Any) -> bool:
    return isinstance(value, Dim) or (isinstance(value, tuple) and any(map(holds_dims, value)))


def resolve(value: Any, sizes: Mapping[str, int]) -> Any:
    """Every `Dim` in an attribute as an int."""
    match value:
        case Dim():
            length = value.evaluate(sizes)
            assert length is not None, f"size of {value} is not known"
            return length
        case tuple():
            return tuple(resolve(v, sizes) for v in value)
        case ArrayType():
            return value
        case _:
            return value


class Body:
    """The graphs of a loop's body as a function of its parameters."""

    def __init__(self, roots: Sequence[Node], parameters: Sequence[Node]) -> None:
        self.executable = NumpyExecutable(roots)
        read = set(self.executable.leaves)
        self.function = self.executable.taking([p if p in read else None for p in parameters])

    def __call__(self, *values: Any) -> tuple[Any, ...]:
        try:
            return self.function(*values)
        except Fault as fault:
            raise self.executable.located(fault) from None


class LoopRunner:
    """A loop as a function of its operands that gives the outputs asked for."""

    def __init__(self, outputs: Sequence[Node]) -> None:
        self.loop: Loop = opened(outputs[0])
        self.outputs = tuple(outputs)
        roots = self.loop.body
        self.counts: dict[str, Any] = {"carried": self.loop.carried}
        self.bodies: list[Body] = []
        if self.loop.op is iterate:
            condition = self.counts["condition"] = Body(roots[-1:], self.loop.parameters)
            self.bodies.append(condition)
            roots = roots[:-1]
        else:
            self.counts["sequences"] = self.loop.sequences
        self.body = Body(roots, self.loop.parameters)
        self.bodies.append(self.body)
        self.executable = self.body.executable
        self.sizes: Mapping[str, int] = {}

    def set_sizes(self, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes
        for body in self.bodies:
            body.executable.set_sizes(sizes)

    def __call__(self, *values: Any, body: Callable[..., Sequence[Any]] | None = None) -> list[Any]:
        loop = self.loop
        results = [(*n.attr("output"), resolve(n.shape, self.sizes), n.dtype) for n in self.outputs]
        limits = {k: resolve(v, self.sizes) for k, v in loop.limits}
        assert loop.op.numpy is not None
        outputs: list[Any] = loop.op.numpy(body or self.body, results, *values, **self.counts, **limits)
        return outputs

    def first_bad(self, values: Sequence[Any]) -> tuple[int, list[Any]] | None:
        """The first step that makes something not finite from finite values, if there is one: its number (in the order they
        are taken, from 0) and the body's operands."""
        found: list[tuple[int, list[Any]]] = []
        steps = count()

        def watched(*operands: Any) -> tuple[Any, ...]:
            results, number = self.body(*operands), next(steps)
            if not found and not all(map(_finite, results)) and all(map(_finite, operands[:self.loop.carried])):
                found.append((number, list(operands)))
            return results
        with np.errstate(all="ignore"):
            self(*values, body=watched)
        return found[0] if found else None

    def trace(self, operands: Sequence[Any]) -> dict[Node, Any]:
        """The values of the body's nodes in a step with these operands."""
        given = dict(zip(self.loop.parameters, operands, strict=True))
        return given | self.executable.trace([given[leaf] for leaf in self.executable.leaves])


def _finite(value: Any) -> bool:
    return np.asarray(value).dtype.kind != "f" or bool(np.isfinite(value).all())


class NumpyExecutable:
    """A graph as a Python function: one argument a leaf, one line an op."""

    def __init__(self, roots: Sequence[Node]) -> None:
        order = topological(roots)
        self.roots = tuple(roots)
        self.leaves = tuple(n for n in order if is_leaf(n))
        self.nodes: list[Node] = []
        self.attributes: list[tuple[dict[str, Any], dict[str, Any]]] = []
        names = {node: f"v{i}" for i, node in enumerate(order)}
        scope: dict[str, Any] = {}
        lines: list[str] = []
        loops: dict[tuple[Any, ...], list[Node]] = {}
        for node in order:
            if node.op in LOOPS:
                loops.setdefault(same_loop(node), []).append(node)
        self.loops: dict[Node, LoopRunner] = {}
        with np.errstate(all="ignore"):
            for node in order:
                if is_leaf(node):
                    continue
                if node.op in LOOPS:
                    if node not in self.loops:
                        group = loops[same_loop(node)]
                        runner = LoopRunner(group)
                        self.loops.update(dict.fromkeys(group, runner))
                        scope[f"f_{names[node]}"] = runner
                        lines.append(f"  {', '.join(names[n] for n in group)}, = f_{names[node]}({', '.join(names[a] for a in node.args)})")
                        self.nodes.append(node)
                    continue
                attrs, name = dict(node.attrs), names[node]
                assert node.op.numpy is not None, f"{node.op} has no NumPy meaning"
                sized = any(map(holds_dims, attrs.values()))
                if not node.args and not sized:
                    scope[name] = node.op.numpy(**attrs)
                    continue
                spelling = SPELLINGS.get(node.op.numpy) if not attrs else None
                if spelling is not None:
                    lines.append(f"  {name} = {spelling.format(*[names[a] for a in node.args])}")
                    self.nodes.append(node)
                    continue
                scope[f"f_{name}"] = node.op.numpy
                operands = [names[a] for a in node.args]
                if attrs:
                    resolved = scope[f"a_{name}"] = {} if sized else attrs
                    operands.append(f"**a_{name}")
                    if sized:
                        self.attributes.append((resolved, attrs))
                lines.append(f"  {name} = f_{name}({', '.join(operands)})")
                self.nodes.append(node)
        lines.append(f"  return ({', '.join(names[r] for r in roots)},)")
        self.constants = {n: scope[names[n]] for n in order if names[n] in scope}
        self.body, self.names, self.scope = "\n".join(lines), names, scope
        self.function = self.taking(self.leaves)
        self.sizes: dict[str, int] | None = None

    def taking(self, parameters: Sequence[Node | None]) -> Callable[..., tuple[Any, ...]]:
        """The function of these leaves in this order, all of them and perhaps others (None) that it does not read."""
        words = [self.names[p] if p is not None else f"_{i}" for i, p in enumerate(parameters)]
        exec(compile(f"def run({', '.join(words)}):\n{self.body}", "<graph>", "exec"), self.scope)
        function: Callable[..., tuple[Any, ...]] = self.scope.pop("run")
        return function

    def set_sizes(self, sizes: Mapping[str, int]) -> None:
        """The lengths from now on: attributes that hold sizes are evaluated, nothing else changes."""
        if sizes != self.sizes:
            for resolved, attrs in self.attributes:
                resolved.update((k, resolve(v, sizes)) for k, v in attrs.items())
            for runner in self.loops.values():
                runner.set_sizes(sizes)
            self.sizes = dict(sizes)

    def __call__(self, values: Mapping[Node, Any], sizes: Mapping[str, int]) -> list[Any]:
        """The roots' values; `values` gives every leaf's."""
        self.set_sizes(sizes)
        with np.errstate(all="ignore"):
            return list(self.run([values[leaf] for leaf in self.leaves]))

    def run(self, leaves: Sequence[Any]) -> tuple[Any, ...]:
        """As a call, for leaf values in the order of `leaves`, sizes set before and warnings already silenced."""
        try:
            return self.function(*leaves)
        except Fault as fault:
            raise self.located(fault) from None

    def located(self, fault: Fault) -> FaultAt:
        """A fault of the function, with the node that met it."""
        return FaultAt(fault, self.nodes[_line(fault) - 2])

    def trace(self, leaves: Sequence[Any]) -> dict[Node, Any]:
        """Every node's value, in order, for finding where a nan began."""
        seen = dict(zip(self.leaves, leaves, strict=True)) | self.constants
        for node in self.nodes:
            if node.op in LOOPS:
                runner = self.loops[node]
                seen.update(zip(runner.outputs, runner(*[seen[a] for a in node.args]), strict=True))
                continue
            attrs = {k: resolve(v, self.sizes or {}) for k, v in node.attrs}
            assert node.op.numpy is not None
            seen[node] = node.op.numpy(*[seen[a] for a in node.args], **attrs)
        return seen


def _line(fault: Fault) -> int:
    """The line of the graph's function that a fault came from."""
    trace = fault.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != "<graph>":
        trace = trace.tb_next
    assert trace is not None
    return trace.tb_lineno


class NumpyBackend:
    name = "numpy"

    def compile(self, roots: Sequence[Node]) -> NumpyExecutable:
        return NumpyExecutable(roots)
