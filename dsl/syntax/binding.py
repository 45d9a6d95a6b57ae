"""Binding data to inputs: `with`, `over`, `valid`, and the rank rule.

In: inputs and the arrays bound to them.  Out: for `with`, the expression with its inputs replaced (and lifted over the
leading axis where an array's rank is one higher); for `over`, feeds that the training driver takes rows from.  Sizes are
solved here, so that lengths which disagree are found before anything runs.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dsl.errors import Label, LrError, Span, error
from dsl.ir.node import Node, make, substitute, topological
from dsl.ir.text import GIVEN
from dsl.ir.types import (
    Dim,
    Shape,
    decide,
    is_float,
    is_int,
    shape_text,
)
from dsl.ops.build import literal_value
from dsl.ops.calculus import DERIVATIVES
from dsl.ops.leaves import is_leaf, leaf, leaf_name
from dsl.ops.scalar import alias, ne, stop_grad
from dsl.ops.table import cast
from dsl.passes.batch import lift, with_axis
from dsl.passes.shield import shielded
from dsl.syntax import ast
from dsl.syntax.calls import Calls
from dsl.syntax.faults import kind_words, type_words
from dsl.syntax.messages import TRAIN_OPTIONS
from dsl.syntax.program import Feed
from dsl.syntax.values import (
    Group,
    Host,
    SizeFact,
    Skipped,
    Table,
    Value,
)

LeafKey = tuple[str, str, int]


def leaf_key(node: Node) -> LeafKey:
    """What a leaf is known by, whatever sizes its type has been given."""
    attrs = dict(node.attrs)
    return attrs["kind"], attrs["name"], attrs["generation"]


@dataclass
class Sizes:
    """Sizes solved while the arrays of one binding are matched with their inputs."""

    found: dict[str, Dim] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    spans: dict[str, Span] = field(default_factory=dict)


class Binder(Calls):
    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.model_dims: set[str] = set()
        self.seen_sizes: dict[str, SizeFact] = {}
        self.data_origin: dict[str, str] = {}

    # ------------------------------------------------------------ with
    def with_bindings(self, value: ast.Expr, bindings: Sequence[ast.Binding]) -> Value:
        held, self.in_epoch = self.in_epoch, False
        try:
            target = self.value(value)
        finally:
            self.in_epoch = held
        return self.bind_value(target, bindings, value.span)

    def bind_value(self, target: Value, bindings: Sequence[ast.Binding], span: Span) -> Value:
        if isinstance(target, str) or not bindings:
            return target
        if isinstance(target, Group):
            return Group(tuple(self.bind_value(item, bindings, span) for item in target.items))
        if not isinstance(target, Node):
            raise error("E0204", "`with` applies to arrays", span)
        feeds, sizes = self.feeds(bindings, alike=False)
        return self.replace_inputs(target, feeds, sizes, span)

    def replace_inputs(self, target: Node, feeds: Sequence[Feed], sizes: Sizes, span: Span) -> Node:
        """The expression with its inputs replaced, each by its own rank."""
        by_key = {leaf_key(f.leaf): f for f in feeds}
        known = {**{n: Dim.of(f.value) for n, f in self.sizes.items()}, **sizes.found}
        rows = next((f.value.shape[0] for f in feeds if f.mapped), None)
        replacement: dict[Node, Node] = {}
        mapped: dict[Node, Node] = {}
        parts = topological([target])
        derived = any(node.op in DERIVATIVES for node in parts)
        for node in parts:
            if not is_leaf(node) or leaf_key(node) not in by_key:
                continue
            feed = by_key[leaf_key(node)]
            value = feed.value
            if derived and literal_value(value) is not None:      # the derivative was taken of an input, not of this literal
                value = make(stop_grad, [value])
            named = make(alias, [value], {"name": f"{GIVEN}{leaf_name(node)}"})
            self.origins.record(named, feed.span)
            if feed.mapped:
                kind, name, generation = leaf_key(node)
                placeholder = leaf(kind, name, node.type.substitute(known), generation + 1_000_000)
                replacement[node], mapped[placeholder] = placeholder, named
            else:
                replacement[node] = named
        with self.placing(span):
            (result,) = substitute([target], replacement, known, self.origins)
            if rows is not None:
                (lifted,), (has_axis,) = lift(shielded([result], (), self.origins), mapped, rows, self.origins)
                result = with_axis(lifted, has_axis, rows)
        return self.placed(result, span)

    # ------------------------------------------------------------ feeds
    def feeds(self, bindings: Sequence[ast.Binding], alike: bool, sizes: Sizes | None = None) -> tuple[list[Feed],
                                                                                                       Sizes]:
        """Each binding matched with its input; `alike`: all by the same rule (`over`)."""
        sizes = sizes or Sizes()
        feeds: list[Feed] = []
        rows: tuple[Dim, str, Span] | None = None
        for binding in bindings:
            feed = self.feed(binding)
            name = leaf_name(feed.leaf)
            if any(leaf_key(feed.leaf) == leaf_key(f.leaf) for f in feeds):
                raise error("E0411", f"`{name}` is bound twice", binding.span)
            if alike and feeds and feed.mapped != feeds[0].mapped:
                raise self._unlike(feeds[0], feed)
            origin = self.origin_of(binding.value)
            if feed.mapped:
                length = feed.value.shape[0]
                if rows is not None and decide(rows[0], length) is False:
                    raise self._lengths(feed, length, rows, origin, binding)
                rows = rows or (length, f"{binding.value.span.text}", binding.span)
            self.match_sizes(feed.leaf.shape, feed.value.shape[1:] if feed.mapped else feed.value.shape, name, origin,
                             binding.span, sizes)
            feeds.append(feed)
        self._check_compound(feeds, sizes)
        return feeds, sizes

    def feed(self, binding: ast.Binding) -> Feed:
        symbol = self.scope.get(binding.name.id)
        if symbol is None:
            problem = self.unknown(binding.name.id, binding.name.span)
            if binding.name.id in TRAIN_OPTIONS:
                raise error("E0301", f"no input `{binding.name.id}`", binding.name.span, "taken for one, after the comma",
                            help=f"the options of `train` follow without a comma: `… {TRAIN_OPTIONS[binding.name.id]}`")
            raise problem
        if symbol.value is None:
            raise Skipped
        target = symbol.value
        if not isinstance(target, Node) or not is_leaf(target, "input", "shared"):
            raise error("E0412", f"`{binding.name.id}` is not an input", binding.name.span, kind_words(symbol.kind),
                        labels=[Label(symbol.span, "bound here")] if symbol.span else [],
                        help="only inputs (`scalar`, `vector`, `matrix`, `tensor`) and shared variables are bound to values")
        value = self.node(binding.value)
        if value.rank not in (target.rank, target.rank + 1):
            rows = f"{_rank_words(target.rank + 1)} to take it row by row"
            raise error("E0210", f"`{binding.name.id}` is {_rank_words(target.rank)}; {binding.value.span.text} is "
                        f"{_rank_words(value.rank)}", binding.value.span, shape_text(value.shape) if value.rank else "",
                        labels=[Label(symbol.span, f"{binding.name.id} is {type_words(target.type)}")]
                        if symbol.span else [], help=f"give {_rank_words(target.rank)}, or {rows}")
        return Feed(target, self.as_input(value, target, binding), value.rank == target.rank + 1, binding.span)

    def as_input(self, value: Node, target: Node, binding: ast.Binding) -> Node:
        """The value in the input's dtype."""
        if value.dtype == target.dtype:
            return value
        if target.dtype == "bool":
            result: Node = ne(value, 0)
            return result
        if is_int(target.dtype) and is_float(value.dtype):
            found = self.host.evaluate(value)
            array = None if found is None else np.asarray(found)
            if array is not None and not np.all(np.equal(np.trunc(array), array)):
                bad = array[np.not_equal(np.trunc(array), array)].flat[0]
                raise error("E0203", f"`{binding.name.id}` is an integer input; {binding.value.span.text} holds {bad}",
                            binding.value.span,
                            "not whole numbers",
                            help=f"round it (`int(round({binding.value.span.text}))`), or declare a float input")
        return cast(value, target.dtype)

    def origin_of(self, expr: ast.Expr) -> str:
        """Where a size comes from, in words: the file of a table, or data and its line."""
        if isinstance(expr, ast.Name):
            return self.data_origin.get(expr.id, f"{expr.id}, line {expr.span.line}")
        return self.table_origin(expr) or f"line {expr.span.line}"

    def table_origin(self, expr: ast.Expr) -> str | None:
        """The file whose table the columns of an expression are taken from."""
        while isinstance(expr, ast.Index | ast.Attribute):
            expr = expr.value
        if isinstance(expr, ast.Name) and (symbol := self.scope.get(expr.id)) and isinstance(symbol.value, Table):
            return self.data_origin.get(expr.id)
        return None

    # ------------------------------------------------------------ sizes
    def match_sizes(self, declared: Shape, given: Shape, name: str, origin: str, span: Span, sizes: Sizes) -> None:
        """Every size the declaration names is solved or compared."""
        for axis, (want, have) in enumerate(zip(declared, given, strict=True)):
            size = want.bare
            if size is None:
                continue                        # solved or compared when the bare sizes are known
            fact = self.sizes.get(size.name)
            if fact is not None:
                if decide(Dim.of(fact.value), have) is False:
                    raise self._mismatch(name, axis, want, have, origin, span, fact.origin, fact.value)
                continue
            known = sizes.found.get(size.name)
            if known is None:
                sizes.found[size.name] = have
                sizes.origins[size.name], sizes.spans[size.name] = origin, span
                if have.constant is not None:
                    seen = SizeFact(have.constant, origin)
                    self.seen_sizes.setdefault(size.name, seen)
                    if size.name in self.model_dims:
                        self.sizes[size.name] = seen
            elif decide(known, have) is False:
                raise self._mismatch(name, axis, want, have, origin, span, sizes.origins[size.name], known.constant)

    def _check_compound(self, feeds: Sequence[Feed], sizes: Sizes) -> None:
        known = {**{n: Dim.of(f.value) for n, f in self.sizes.items()}, **sizes.found}
        for feed in feeds:
            given = feed.value.shape[1:] if feed.mapped else feed.value.shape
            for axis, (want, have) in enumerate(zip(feed.leaf.shape, given, strict=True)):
                if want.bare:
                    continue
                solved = want.substitute(known)
                unknown = {s.name for s in solved.sizes()}
                if len(unknown) == 1 and have.constant is not None:
                    root = solve_linear(solved, next(iter(unknown)), have.constant)
                    if root is not None:
                        sizes.found[next(iter(unknown))] = Dim.of(root)
                        continue
                if decide(solved, have) is False:
                    raise self._mismatch(leaf_name(feed.leaf), axis, want, have, "", feed.span,
                                         None if want.constant is not None else "the other inputs", solved.constant)

    def _mismatch(self, name: str, axis: int, want: Dim, have: Dim, origin: str, span: Span, other: str | None,
                  expected: int | None = None) -> LrError:
        expected = want.known if expected is None else expected
        given = span.text.partition("=")[2].strip() or "the data"
        size = f"{want} = {expected}" if str(want) != str(expected) else str(want)
        why = f"{have} from {origin}; {want} = {expected} from {other}" if other and origin else \
            f"{want} = {expected} from {other}" if other else f"{have}"
        symbol = self.scope.get(name)
        labels = [Label(symbol.span, f"{name} is {shape_text(symbol.value.shape)}")] \
            if symbol and symbol.span and isinstance(symbol.value, Node) else []
        return error("E0211", f"`{name}` needs {size} on axis {axis}, but {given} has {have}", span, why, labels=labels,
                     help="give data of that length" + ("" if want.constant is not None
                                                        else ", or declare another dim for it"))

    def _lengths(self, feed: Feed, length: Dim, rows: tuple[Dim, str, Span], origin: str,
                 binding: ast.Binding) -> LrError:
        return error("E0211", f"{rows[1]} has {rows[0]} rows, but {binding.value.span.text} has {length}", binding.span,
                     f"{length} rows",
                     labels=[Label(rows[2], f"{rows[0]} rows")],
                     help="arrays that are taken row by row have the same leading length")

    def _unlike(self, first: Feed, other: Feed) -> LrError:
        def word(f: Feed) -> str:
            return "row by row" if f.mapped else "whole"
        return error("E0213", "all names of one `over` bind alike", other.span, f"bound {word(other)}",
                     labels=[Label(first.span, f"bound {word(first)}")],
                     help="give every input one axis more than it declares (row by row), or every input its own (whole); "
                     "fixed values are used as `data`, without binding")


def solve_linear(dim: Dim, name: str, total: int) -> int | None:
    """The value of the only size `name` of a linear `dim` that makes it `total`, if there is a whole one."""
    at = [dim.evaluate({name: k}) for k in (0, 1, 2)]
    if None in at or at[2] - at[1] != at[1] - at[0] or at[1] == at[0]:                    # type: ignore[operator]
        return None
    slope = at[1] - at[0]                                                                 # type: ignore[operator]
    root, rest = divmod(total - at[0], slope)                                             # type: ignore[operator]
    return int(root) if rest == 0 and root >= 0 else None


def _rank_words(rank: int) -> str:
    return ("a scalar", "a vector", "a matrix")[rank] if rank < 3 else f"an array with {rank} axes"
