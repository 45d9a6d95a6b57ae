"""The reference backend: NumPy, one op at a time.

In: graphs.  Out: a plan (a list of calls in order, lengths resolved per call) that runs them.  Sizes are run-time values:
attributes that hold lengths are evaluated when the plan meets new sizes, and nothing else changes.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dsl.backends.base import FaultAt
from dsl.ir.node import Node, topological
from dsl.ir.types import ArrayType, Dim
from dsl.ops.leaves import is_leaf
from dsl.ops.table import Fault

Call = tuple[Callable[..., Any], tuple[int, ...], dict[str, Any], int]


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


class NumpyExecutable:
    """A plan over numbered slots: leaves first, then one slot a node."""

    def __init__(self, roots: Sequence[Node]) -> None:
        order = topological(roots)
        self.leaves = tuple(n for n in order if is_leaf(n))
        self.nodes = [n for n in order if not is_leaf(n)]
        slot = {node: i for i, node in enumerate([*self.leaves, *self.nodes])}
        self.results = [slot[r] for r in roots]
        self.constants: list[Any] = [None] * len(slot)
        self.calls: list[Call] = []
        self.sized: list[tuple[int, dict[str, Any]]] = []
        self.call_nodes: list[Node] = []
        self.sizes: dict[str, int] = {}
        with np.errstate(all="ignore"):
            for node in self.nodes:
                attrs = dict(node.attrs)
                assert node.op.numpy is not None, f"{node.op} has no NumPy meaning"
                if not node.args and not any(map(holds_dims, attrs.values())):
                    self.constants[slot[node]] = node.op.numpy(**attrs)
                    continue
                if any(map(holds_dims, attrs.values())):
                    self.sized.append((len(self.calls), attrs))
                    attrs = {}
                self.calls.append((node.op.numpy, tuple(slot[a] for a in node.args), attrs, slot[node]))
                self.call_nodes.append(node)
        self.resolved = not self.sized

    def set_sizes(self, sizes: Mapping[str, int]) -> None:
        if self.resolved and sizes == self.sizes:
            return
        for position, attrs in self.sized:
            function, args, _, target = self.calls[position]
            self.calls[position] = function, args, {k: resolve(v, sizes) for k, v in attrs.items()}, target
        self.sizes, self.resolved = dict(sizes), True

    def __call__(self, values: Mapping[Node, Any], sizes: Mapping[str, int]) -> list[Any]:
        """The roots' values; `values` gives every leaf's."""
        self.set_sizes(sizes)
        with np.errstate(all="ignore"):
            return self.run([values[leaf] for leaf in self.leaves])

    def run(self, leaves: Sequence[Any]) -> list[Any]:
        """As a call, for leaf values in the order of `leaves`, sizes set before and warnings already silenced."""
        slots = self.constants.copy()
        slots[:len(leaves)] = leaves
        try:
            for function, args, attrs, target in self.calls:
                slots[target] = function(*[slots[a] for a in args], **attrs)
        except Fault as fault:
            at = next(i for i, call in enumerate(self.calls) if call[3] == target)
            raise FaultAt(fault, self.call_nodes[at]) from None
        return [slots[r] for r in self.results]

    def trace(self, leaves: Sequence[Any]) -> dict[Node, Any]:
        """Every node's value, in order, for finding where a nan began."""
        slots = self.constants.copy()
        slots[:len(leaves)] = leaves
        seen = dict(zip(self.leaves, leaves, strict=True))
        for (function, args, attrs, target), node in zip(self.calls, self.call_nodes, strict=True):
            slots[target] = seen[node] = function(*[slots[a] for a in args], **attrs)
        return seen


class NumpyBackend:
    name = "numpy"

    def compile(self, roots: Sequence[Node]) -> NumpyExecutable:
        return NumpyExecutable(roots)
