"""What a backend is.

In: graphs of primitive and composite ops, without derivatives or aliases.  Out: an `Executable`, called with the values
of the leaves and of the sizes, that returns the values of the graphs.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from dsl.ir.node import Node
from dsl.ops.table import Fault


class Executable(Protocol):
    leaves: tuple[Node, ...]

    def __call__(self, values: Mapping[Node, Any], sizes: Mapping[str, int]) -> list[Any]:
        """The value of every root.  Raises `FaultAt`."""
        ...


class Backend(Protocol):
    name: str

    def compile(self, roots: Sequence[Node]) -> Executable: ...


class FaultAt(Exception):
    """A fault and the node that met it; the caller adds the place in the script."""

    def __init__(self, fault: Fault, node: Node) -> None:
        super().__init__(fault.message)
        self.fault, self.node = fault, node
