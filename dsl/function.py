"""Functions from arrays to values of a script.

In: names of inputs, names or expressions of outputs.  Out: `Function`, which is compiled once a combination of ranks, whatever the lengths.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from dsl.backends.cuda.arrays import given, on_device
from dsl.backends.cuda.memory import Memory
from dsl.errors import Source, Span, error
from dsl.ir.node import Node, topological
from dsl.ir.types import ArrayType, Dim, Size
from dsl.ops.leaves import is_leaf, leaf, leaf_name
from dsl.runtime.arguments import Data, as_dtype
from dsl.runtime.compute import LeafKey, solve_sizes
from dsl.session import Session
from dsl.syntax import program
from dsl.syntax.binding import Sizes, leaf_key
from dsl.syntax.faults import counted
from dsl.syntax.parse import parse_expression
from dsl.syntax.values import SizeFact, Skipped, Symbol, Value

ROWS = Dim.of(Size("rows"))
Results = TypeVar("Results")
"""One array, or a tuple of them."""


class Script(Protocol):
    """What a function needs of its model."""

    @property
    def session(self) -> Session: ...
    def _symbol(self, name: str) -> Symbol: ...
    def _finished(self, action: Callable[[], Any]) -> Any: ...
    def _span(self, text: str) -> Span: ...


class Function(Generic[Results]):
    """A callable from arrays to values of names and expressions, made by `Model.function`.

    Its arrays come in the order of the inputs, each of the rank of its input, or of one more to be taken row by row.  Results are
    NumPy's arrays (CuPy's, if an array given is on a GPU), new ones at each call and the caller's own.  The state (`m["w"]`) is
    read at each call.  Raises `LrError` for arrays that do not fit; nan and infinities come as they are."""

    def __init__(self, script: Script, inputs: list[str], outputs: list[str], single: bool) -> None:
        self.script, self.texts, self.single = script, outputs, single
        elaborator = script.session.elaborator
        self.inputs: list[Node] = []
        for name in inputs:
            symbol = script._symbol(name)
            if not isinstance(symbol.value, Node) or not is_leaf(symbol.value, "input", "shared"):
                raise error("E0412", f"`{name}` is not an input", help="only inputs and shared variables are bound to values")
            if symbol.value in self.inputs:
                raise error("E0902", f"`{name}` is among the inputs twice")
            self.inputs.append(symbol.value)
        self.outputs: list[Node] = []
        for text in outputs:
            expr = parse_expression(Source("<python>", text))
            elaborator.draws, elaborator.statement_name = 0, text
            try:
                value: Value = script._finished(partial(elaborator.value, expr))
            except Skipped:
                raise error("E0301", f"`{text}` uses a name whose statement is in error") from None
            self.outputs.append(elaborator.as_node(value, expr))
        self.plans: dict[tuple[bool, ...], list[Node]] = {}
        self.forms = [(leaf_name(n), leaf_key(n), ("value", f"rows of {leaf_name(n)}", 0), n.rank, n.dtype) for n in self.inputs]
        self.bound: tuple[Any, Mapping[str, int], dict[str, int]] | None = None
        """The shapes last given, the sizes known before, and those then known."""

    def __repr__(self) -> str:
        results = self.texts[0] if self.single else f"({', '.join(self.texts)})"
        return f"<Function ({', '.join(map(leaf_name, self.inputs))}) -> {results}>"

    def __call__(self, *arrays: Data) -> Results:
        if len(arrays) != len(self.inputs):
            raise error("E0902", f"{counted(len(self.inputs), 'array')} needed, not {len(arrays)}",
                        help=", ".join(leaf_name(n) for n in self.inputs))
        session = self.script.session
        receiver = session.compute.gpu.receiver
        extra: dict[LeafKey, Any] = {}
        shapes: list[tuple[int, ...]] = []
        rows: int | None = None
        for (name, key, rows_key, rank, dtype), value in zip(self.forms, arrays, strict=True):
            array = as_dtype(name, value, dtype, receiver)
            shapes.append(array.shape)
            if array.ndim == rank:
                extra[key] = array if isinstance(array, Memory) else array[()]
            elif array.ndim != rank + 1:
                raise error("E0210", f"`{name}` has {rank} axes; the array given has {array.ndim}",
                            help="give as many axes, or one more to take it row by row")
            elif rows is not None and rows != array.shape[0]:
                raise error("E0211", f"`{name}` has {array.shape[0]} rows; the arrays before have {rows}",
                            help="arrays taken row by row have one length")
            else:
                rows = array.shape[0]
                extra[rows_key] = array
        flags = tuple([len(shape) > form[3] for shape, form in zip(shapes, self.forms, strict=True)])
        if flags not in self.plans:
            self.plans[flags] = self._plan(flags)
        known, bound = session.sizes(), self.bound
        if bound is None or bound[0] != shapes or bound[1] != known:
            pairs = [(n, shape[1:] if mapped else shape) for n, shape, mapped in zip(self.inputs, shapes, flags, strict=True)]
            sizes = {**solve_sizes(pairs, known), **({"rows": rows} if rows is not None else {})}
            self._fix_model_dims(sizes)
            session.allocate()
            bound = self.bound = shapes, session.sizes(), sizes
        values = session.compute.values(self.plans[flags], bound[2], extra, again=True)
        if any(map(on_device, arrays)):
            with session.compute.memory():
                results: Any = tuple(map(given, values))
        else:
            results = tuple(map(np.asarray, values))
        found: Results = results[0] if self.single else results
        return found

    def _fix_model_dims(self, sizes: Mapping[str, int]) -> None:
        elaborator = self.script.session.elaborator
        for name in elaborator.model_dims:
            if name in sizes and name not in elaborator.sizes:
                elaborator.sizes[name] = SizeFact(sizes[name], "the first binding")

    def _plan(self, flags: tuple[bool, ...]) -> list[Node]:
        elaborator = self.script.session.elaborator
        feeds = []
        for node, mapped in zip(self.inputs, flags, strict=True):
            if mapped:
                value = leaf("value", f"rows of {leaf_name(node)}", ArrayType(node.dtype, (ROWS, *node.shape)))
                feeds.append(program.Feed(node, value, True, self.script._span(leaf_name(node))))
        span = self.script._span("function")
        fed = {leaf_key(n) for n in self.inputs}
        for output in self.outputs:
            for part in topological([output]):
                if is_leaf(part, "input") and leaf_key(part) not in fed:
                    raise error("E0407", f"`{leaf_name(part)}` has no value here", help=f"add {leaf_name(part)!r} to the inputs")
        if not feeds:
            return self.outputs
        return [elaborator.replace_inputs(o, feeds, Sizes(), span) for o in self.outputs]
