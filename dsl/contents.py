"""What a session holds, name by name: for `repr(model)`, and as a table for a notebook.

In: a session.  Out: `contents`, a row for each name that a script has bound; `in_line` and `as_html` of them.
"""
from __future__ import annotations

from html import escape

from dsl.errors import LrError
from dsl.ir.node import Node
from dsl.ops.leaves import is_leaf
from dsl.record import record
from dsl.runtime.printing import format_scalar
from dsl.session import Session
from dsl.syntax.binding import leaf_key
from dsl.syntax.values import Symbol, Table, TextColumn

KINDS = ("input", "data", "shared", "let", "model", "cost", "metric", "grad", "hess", "jac", "dim")
SHOWN = 12
"""Names of a kind that are listed in a line."""


@record
class Row:
    """`type`: `float64 [n, d]`; `value`: a number that is known, else empty."""

    kind: str
    name: str
    type: str
    value: str = ""


def contents(session: Session) -> list[Row]:
    """Names in the order of their kinds, and within a kind in that of the script."""
    rows = [_row(session, symbol) for name, symbol in session.elaborator.scope.items() if symbol.span is not None]
    return sorted((r for r in rows if r.kind in KINDS), key=lambda r: KINDS.index(r.kind))


def _row(session: Session, symbol: Symbol) -> Row:
    value = symbol.value
    match value:
        case Table(columns=columns, rows=rows):
            listed = ", ".join(list(columns)[:SHOWN]) + (f" … ({len(columns)} columns)" if len(columns) > SHOWN else "")
            return Row(symbol.kind, symbol.name, f"table of {rows} rows: {listed}")
        case TextColumn(values=texts):
            return Row(symbol.kind, symbol.name, f"texts [{len(texts)}]")
        case Node():
            known = {name: fact.value for name, fact in session.elaborator.sizes.items()}
            sizes = [d.evaluate(known) if symbol.kind in ("shared", "data") else None for d in value.shape]
            shape = ", ".join(str(d if size is None else size) for d, size in zip(value.shape, sizes, strict=True))
            return Row(symbol.kind, symbol.name, f"{value.dtype} [{shape}]" if shape else value.dtype, _number(session, symbol.kind, value))
        case _:
            return Row("", symbol.name, "")


def _number(session: Session, kind: str, node: Node) -> str:
    """The value of a scalar that needs no work to know."""
    if node.rank or kind not in ("shared", "data", "dim") or (is_leaf(node) and leaf_key(node) not in session.values):
        return ""
    try:
        return format_scalar(session.host(node)[()])
    except LrError:
        return ""


def in_line(rows: list[Row]) -> str:
    """inputs X, Y; shared w, b; cost C"""
    parts = []
    for kind in dict.fromkeys(r.kind for r in rows):
        names = [r.name for r in rows if r.kind == kind]
        more = f" … ({len(names)} in all)" if len(names) > SHOWN else ""
        word = "inputs" if kind == "input" and len(names) > 1 else kind
        parts.append(f"{word} {', '.join(names[:SHOWN])}{more}")
    return "; ".join(parts)


def as_html(title: str, rows: list[Row]) -> str:
    """A table; it takes its colours from the page."""
    head = "".join(f'<th style="text-align:left">{word}</th>' for word in ("", "name", "type", "value"))
    lines = []
    for number, row in enumerate(rows):
        kind = row.kind if number == 0 or rows[number - 1].kind != row.kind else ""
        cells = [f'<span style="opacity:.65">{kind}</span>', f"<code>{escape(row.name)}</code>", escape(row.type), escape(row.value)]
        lines.append("<tr>" + "".join(f'<td style="text-align:left">{cell}</td>' for cell in cells) + "</tr>")
    return f"<div><b>{escape(title)}</b><table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
