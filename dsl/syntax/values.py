"""What names and expressions stand for while a script is elaborated.

In: nothing.  Out: `Value` (a node, or one of the few things that are not arrays), `Symbol`, `Host` (what elaboration
asks of the runtime), and the sizes known so far with where they came from.
"""
from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np

from dsl.errors import Source, Span
from dsl.ir.node import Node
from dsl.ir.types import Dim
from dsl.record import entity, record
from dsl.syntax import ast


@entity
class TextColumn:
    """A column of texts; `codes` and `labels` make numbers of it."""

    name: str
    values: np.ndarray


@entity
class Table:
    """Named columns of one length."""

    name: str
    columns: Mapping[str, Node | TextColumn]
    rows: Dim


@record
class Group:
    """A tuple."""

    items: tuple[Value, ...]


@entity
class UserFunction:
    definition: ast.Def
    scope: Scope


@entity
class OptimizerRule:
    definition: ast.Optimizer
    scope: Scope


@entity
class Module:
    name: str
    scope: Scope


Value = Node | TextColumn | Table | Group | UserFunction | OptimizerRule | Module | str


@entity
class Symbol:
    """A bound name; `value` is None when its statement was in error, which has been reported."""

    name: str
    kind: str
    value: Value | None
    span: Span | None


Scope = ChainMap[str, Symbol]


class Skipped(Exception):
    """A statement uses a name whose own statement was in error; nothing more is reported."""


@record
class SizeFact:
    """A size that is known: its value, and where that came from in words (`train_X, line 3`)."""

    value: int
    origin: str


@entity
class LoadedTable:
    """What a loader gives: columns as arrays, texts as object arrays."""

    columns: dict[str, Any]
    rows: int


class Host(Protocol):
    """What elaboration asks of the runtime."""

    def evaluate(self, node: Node) -> Any | None:
        """The value of a graph over data leaves, or None where nothing is evaluated (`lr check`).

        An array may lie on a device: then it has a shape and a dtype, and NumPy converts it."""
        ...

    def keep(self, leaf: Node, value: Any) -> None:
        """The value of a data leaf from now on: as NumPy has it, or what `evaluate` or `given` gave."""
        ...

    def given(self, name: str, table: bool = False, missing: Literal["nan", "drop"] | None = None) -> Any | None:
        """What is handed in for a data name, if there is something: an array, texts as an object array, or a `LoadedTable` for a
        `table`, with the cells that have no value taken as its loader would."""
        ...

    def load_file(self, kind: str, path: str, options: Mapping[str, Any], span: Span) -> LoadedTable | Any | None:
        """The table or array in a file, None (after a warning) if it is absent and nothing is run."""
        ...

    def split(self, rows: int, test: float, key: int) -> tuple[Any, Any]:
        """Training and test row numbers."""
        ...

    def read_script(self, path: str, span: Span) -> Source:
        """The text of an imported script."""
        ...

    def read_library(self, name: str) -> Source | None:
        """The text of a module of the library, None if there is no such module."""
        ...
