"""Indexing and slicing: NumPy's, over nodes; a mask in `data` only; tables by column.

In: an `Index` of the AST.  Out: a value.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dsl.errors import Span, error
from dsl.ir.node import Node, make, topological
from dsl.ir.types import (
    Dim,
    TypeFault,
    shape_text,
)
from dsl.ops.build import as_dim, literal_value, stack
from dsl.ops.leaves import is_leaf
from dsl.ops.shape import compress, gather, reshape, resolve_slice, slice_op, transpose
from dsl.syntax import ast
from dsl.syntax.expressions import Expressions, literal_int
from dsl.syntax.faults import counted, listing
from dsl.syntax.values import (
    Group,
    Table,
    TextColumn,
    Value,
)


class Indexing(Expressions):
    def index(self, expr: ast.Index) -> Value:
        base = self.value(expr.value)
        match base:
            case Group(items):
                place = literal_int(expr.items[0]) if len(expr.items) == 1 else None
                if place is None:
                    raise error("E0205", "a tuple is indexed by one literal integer", expr.span,
                                help="write `s[0]`")
                if not -len(items) <= place < len(items):
                    raise error("E0207", f"index {place} of a tuple of {len(items)}", expr.span)
                return items[place]
            case Table():
                return self.table_index(expr, base)
            case _:
                x = self.as_node(base, expr.value)
                with self.placing(expr.span, [expr.value], [x]):
                    return self.placed(self.pick(x, expr.items, expr), expr.span)

    def table_index(self, expr: ast.Index, table: Table) -> Value:
        """`t[:, :8]` the first columns as a matrix, `t[:, 0]` one column."""
        names = list(table.columns)
        if len(expr.items) == 1 and isinstance(expr.items[0], ast.Text):
            return self.attribute(ast.Attribute(expr.value, ast.Ident(expr.items[0].value, span=expr.items[0].span),
                                                span=expr.span))
        if len(expr.items) != 2:
            raise error("E0205", f"table `{table.name}` is indexed by rows and columns", expr.span,
                        help="write `t[:, :8]`")
        rows, columns = expr.items
        if isinstance(columns, ast.Slice):
            bounds = [None if b is None else literal_int(b) for b in (columns.start, columns.stop, columns.step)]
            chosen = names[slice(*bounds)]
        else:
            place = literal_int(columns)
            if place is None or not -len(names) <= place < len(names):
                raise error("E0207", f"table `{table.name}` has {len(names)} columns", columns.span,
                            f"columns are 0 to {len(names) - 1}")
            return self._rows(table.columns[names[place]], rows, expr)
        texts = [n for n in chosen if isinstance(table.columns[n], TextColumn)]
        if texts:
            raise error("E0204", f"column `{texts[0]}` holds texts, not numbers", expr.span,
                        f"columns {listing(chosen)}",
                        help=f"leave it out, or use `codes({expr.value.span.text}.{texts[0]})`")
        if not chosen:
            raise error("E0207", f"no columns of `{table.name}` are chosen", expr.span,
                        f"its columns are {listing(names)}")
        parts = [c for n in chosen if isinstance(c := table.columns[n], Node)]
        matrix = self.placed(stack(parts, -1, self.precision), expr.span)
        return self._rows(matrix, rows, expr)

    def _rows(self, value: Node | TextColumn, rows: ast.Syntax, expr: ast.Index) -> Value:
        if isinstance(rows, ast.Slice) and rows.start is rows.stop is rows.step is None:
            return value
        if isinstance(value, TextColumn):
            raise error("E0204", "rows of a text column cannot be picked", expr.span, help="take `codes(…)` first")
        return self.placed(self.pick(value, (rows,), expr), expr.span)           # type: ignore[arg-type]

    def pick(self, x: Node, items: Sequence[ast.Expr | ast.Slice | ast.NewAxis | ast.Dots], expr: ast.Index) -> Node:
        """NumPy's indexing: slices, new axes, integers and integer arrays; a mask in `data` only."""
        used = sum(not isinstance(i, ast.NewAxis | ast.Dots) for i in items)
        if used > x.rank:
            raise error("E0205", f"{counted(used, 'index')} into an array with {counted(x.rank, 'axis')}", expr.span,
                        shape_text(x.shape))
        full_slice = ast.Slice(None, None, None, span=expr.span)
        flat: list[ast.Expr | ast.Slice | ast.NewAxis | ast.Dots] = []
        for item in items:
            flat.extend([full_slice] * (x.rank - used) if isinstance(item, ast.Dots) else [item])
        flat.extend([full_slice] * (x.rank - sum(not isinstance(i, ast.NewAxis) for i in flat)))
        windows, picks, slots, axis = [], [], [], 0
        for item in flat:
            match item:
                case ast.NewAxis():
                    slots.append("new")
                    continue
                case ast.Slice():
                    windows.append(self.window(item, x.shape[axis]))
                    slots.append("slice")
                case _:
                    index = self.node(item)                                        # type: ignore[arg-type]
                    if index.dtype == "bool":
                        return self.masked(x, index, flat, expr)
                    self.check_index(index, x.shape[axis], item.span)
                    windows.append(resolve_slice(x.shape[axis], None, None, 1))
                    picks.append((axis, index))
                    slots.append("pick")
            axis += 1
        if any(s != Dim.of(0) or n != d or k != 1 for (s, n, k), d in zip(windows, x.shape, strict=True)):
            x = make(slice_op, [x], {"items": tuple(windows)})
        return _arrange(x, picks, slots)

    def window(self, item: ast.Slice, length: Dim) -> tuple[Dim, Dim, int]:
        def bound(expr: ast.Expr | None) -> Dim | None:
            if expr is None:
                return None
            try:
                return as_dim(self.node(expr))
            except TypeFault:
                raise error("E0208", "the bounds of a slice are whole numbers and dims", expr.span,
                            "known only at run time",
                            help="pick by an index array instead: `x[i + arange(3)]`") from None
        step = bound(item.step)
        stride = 1 if step is None else step.constant
        if not stride:
            raise error("E0208", "the step of a slice is a literal integer, not 0", item.span)
        return resolve_slice(length, bound(item.start), bound(item.stop), stride)

    def check_index(self, index: Node, length: Dim, span: Span) -> None:
        place, known = literal_value(index), length.known
        if isinstance(place, int) and known is not None and not -known <= place < known:
            raise error("E0207", f"index {place} is out of range for an axis of length {known}", span,
                        f"valid indices are {-known} to {known - 1}" if known else "the axis is empty")

    def masked(self, x: Node, mask: Node, items: Sequence[Any], expr: ast.Index) -> Node:
        if not self.in_data:
            raise error("E0209", "a mask picks rows in `data` only", expr.span,
                        "the number of rows would be known only at run time",
                        help="use `where(mask, x, 0)`, or pick the rows in a `data` statement")
        if mask.rank != 1 or any(not isinstance(i, ast.Slice) for i in items[1:]):
            raise error("E0209", "a mask has one axis and stands first", expr.span, help="write `A[mask]`")
        if any(is_leaf(n, "carry", "element") for n in topological([mask])):
            raise error("E0209", "in a loop a mask may not change from step to step", expr.span,
                        "every step would have another number of rows", help="use `where(mask, x, 0)`")
        value = self.host.evaluate(mask)
        count = Dim.of(int(np.asarray(value).sum())) if value is not None else self.anonymous("count")
        return make(compress, [x, mask], {"count": count})


def _arrange(x: Node, picks: Sequence[tuple[int, Node]], slots: Sequence[str]) -> Node:
    """Gather the picked axes, then put the result's axes where NumPy puts them."""
    kept = [s for s in slots if s != "pick"]
    count = 0
    if picks:
        axes = [a for a, _ in picks]
        order = [*axes, *(a for a in range(x.rank) if a not in axes)]
        if order != list(range(x.rank)):
            x = transpose(x, axes=tuple(a - len(order) for a in order))
        x = make(gather, [x, *(i for _, i in picks)])
        count = x.rank - sum(s == "slice" for s in slots)
        first = slots.index("pick")
        together = all(s == "pick" for s in slots[first:first + len(picks)])
        lead = first if together else 0
        kept = [*slots[:lead], *["picked"] * count, *(s for s in slots[lead:] if s != "pick")] if together else \
            [*["picked"] * count, *(s for s in slots if s != "pick")]
    source = {"picked": iter(range(count)), "slice": iter(range(count, x.rank))}
    order = [next(source[s]) for s in kept if s != "new"]
    if order != list(range(x.rank)):
        x = transpose(x, axes=tuple(a - len(order) for a in order))
    if "new" in kept:
        lengths = iter(x.shape)
        x = reshape(x, shape=tuple(Dim.of(1) if s == "new" else next(lengths) for s in kept))
    return x
