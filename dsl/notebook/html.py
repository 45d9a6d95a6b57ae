"""Values, and how a training goes, as HTML.

In: summaries of values; what a training has told.  Out: HTML that takes its colours from the page, so that it can be read on a light and
on a dark one; everything that comes from the user is escaped.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import product
from math import isfinite, log10
from typing import Any

import numpy as np

from dsl.errors import HTML_COLORS
from dsl.record import record
from dsl.repl.display import header
from dsl.runtime.printing import format_scalar
from dsl.runtime.summary import ENDS, AnySummary, Summary, TableSummary
from dsl.runtime.terminal import Terminal

RED, BLUE, AMBER = HTML_COLORS["31"], HTML_COLORS["34"], HTML_COLORS["33"]
SERIES = (BLUE, AMBER, HTML_COLORS["32"], HTML_COLORS["36"], RED)
WIDE = Terminal(columns=10_000)
DIGITS = 5
LONGEST_TEXT = 80
WIDTH, HEIGHT = 150.0, 26.0
"""Of a curve beside a line of text, in pixels."""
FACES = 4
"""Matrices that are shown of an array of more axes."""


@record
class Shown:
    """Positions of an axis that are shown; `gap` is the place among them where others are left out."""

    places: tuple[int, ...]
    gap: int | None


# ---------------------------------------------------------------- values
def value_html(name: str, value: AnySummary) -> str:
    """A value under the text that it was asked for by."""
    match value:
        case Summary(shape=()):
            return f"<div><code>{escape(name)}</code> = <b>{_cell(value.scalar, format_scalar(value.scalar))}</b></div>"
        case Summary():
            return f"<div>{_head(name, value)}{_body(value)}</div>"
        case TableSummary():
            return _table(name, value)
        case _:
            return "<div>" + "".join(value_html(f"{name}[{place}]", item) for place, item in enumerate(value)) + "</div>"


def text_html(text: str) -> str:
    """A formula, a definition, a remark."""
    return f'<pre style="opacity:.8;white-space:pre-wrap">{escape(text)}</pre>'


def _head(name: str, value: Summary) -> str:
    parts = header(value, WIDE)[0].split(" · ")
    alarms = [part for part in parts if part.endswith((" nan", " inf")) and part[0].isdigit()]
    figures = " · ".join(part for part in parts if part not in alarms)
    red = "".join(f' · <span style="color:{RED};font-size:90%">{alarm}</span>' for alarm in alarms)
    return f'<div><code>{escape(name)}</code> <span style="opacity:.7;font-size:90%">{escape(figures)}</span>{red}</div>'


def _body(value: Summary) -> str:
    if not value.size:
        return ""
    axes = [_axis(value, axis) for axis in range(len(value.shape))]
    if len(axes) == 1:
        return _grid(value.corner[None, :], Shown((0,), None), axes[0], [""])
    *outer, rows, columns = axes
    labels = [str(i) for i in _real(value, len(axes) - 2, rows)]
    faces = list(product(*(range(len(axis.places)) for axis in outer)))
    parts = []
    for face in faces[:FACES]:
        place = ", ".join(str(_real(value, axis, outer[axis])[i]) for axis, i in enumerate(face))
        title = f'<div style="opacity:.7">[{place}, :, :]</div>' if outer else ""
        corner = value.corner[tuple(outer[axis].places[i] for axis, i in enumerate(face))] if outer else value.corner
        parts.append(title + _grid(corner, rows, columns, labels, _real(value, len(axes) - 1, columns)))
    more = f'<div style="opacity:.7">… {len(faces) - FACES} more of these corners</div>' if len(faces) > FACES else ""
    return "".join(parts) + more


def _axis(value: Summary, axis: int) -> Shown:
    """Places in the corner: of an axis that is cut, without the one element more that printing needs."""
    length = value.corner.shape[axis]
    if axis not in value.cut:
        return Shown(tuple(range(length)), None)
    return Shown((*range(value.edge), *range(length - value.edge, length)), value.edge)


def _real(value: Summary, axis: int, shown: Shown) -> list[int]:
    """The indices in the array itself."""
    moved = value.shape[axis] - value.corner.shape[axis]
    return [place + (moved if shown.gap is not None and number >= shown.gap else 0) for number, place in enumerate(shown.places)]


def _grid(array: Any, rows: Shown, columns: Shown, labels: Sequence[str], titles: Sequence[int] | None = None) -> str:
    lines = []
    for number, place in enumerate(rows.places):
        if number == rows.gap:
            lines.append(_line([""] + ["⋮"] * (len(columns.places) + (columns.gap is not None))))
        cells = [_cell(array[place, column]) for column in columns.places]
        if columns.gap is not None:
            cells.insert(columns.gap, "…")
        lines.append(_line([labels[number], *cells]))
    head = ""
    if titles is not None:
        words = [str(t) for t in titles]
        if columns.gap is not None:
            words.insert(columns.gap, "…")
        head = _line(["", *words], "th")
    return _boxed(head, lines)


def _table(name: str, value: TableSummary) -> str:
    cut = bool(value.columns) and bool(value.columns[0][1].cut)
    shown = [*range(ENDS), *range(value.rows - ENDS, value.rows)] if cut else list(range(value.rows))
    cells = [[_cell(item) for item in ([*c.corner[:ENDS], *c.corner[-ENDS:]] if cut else c.corner)] for _, c in value.columns]
    left = [c.statistics is None for _, c in value.columns]
    lines = [_line([str(row), *(column[number] for column in cells)], left=left) for number, row in enumerate(shown)]
    if cut:
        lines.insert(ENDS, _line(["⋮"] * (len(cells) + 1)))
    kinds = ["", *(f'<span style="font-weight:normal;opacity:.7">{c.dtype}</span>' for _, c in value.columns)]
    head = _line(["", *(escape(title) for title, _ in value.columns)], "th", left) + _line(kinds, "th", left)
    facts = f"table of {value.rows:,} rows, {len(value.columns)} columns"
    return (f'<div><div><code>{escape(name)}</code> <span style="opacity:.7;font-size:90%">{facts}</span></div>{_boxed(head, lines)}</div>')


def _boxed(head: str, lines: Iterable[str]) -> str:
    return f'<div style="overflow-x:auto"><table>{f"<thead>{head}</thead>" if head else ""}<tbody>{"".join(lines)}</tbody></table></div>'


def _line(cells: Sequence[str], tag: str = "td", left: Sequence[bool] = ()) -> str:
    """A row of a table, of which the first cell is what the row is called; `left`: columns that begin on the left."""
    first, *rest = cells
    sides = ["left" if place < len(left) and left[place] else "right" for place in range(len(rest))]
    shown = (f'<{tag} style="text-align:{side};padding:.15em .5em">{cell}</{tag}>' for cell, side in zip(rest, sides, strict=True))
    return f'<tr><th style="opacity:.6;font-weight:normal">{first}</th>{"".join(shown)}</tr>'


def _cell(item: Any, text: str = "") -> str:
    """A number with five digits unless another `text` is told, red where it is none; a text as it is."""
    if isinstance(item, float | np.floating):
        if not isfinite(item):
            return f'<span style="color:{RED}">{float(item)}</span>'
        if text:
            return text
        text = f"{float(item):.{DIGITS}g}"
        return text if not text.lstrip("-").isdigit() else f"{text}.0"
    text = format_scalar(item)
    return escape(text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT - 1] + "…")


# ---------------------------------------------------------------- training
def progress_html(text: str, share: float | None, curves: Sequence[Sequence[float]]) -> str:
    """A line about a training: how much of it is done (None: it is over), and its costs so far, drawn small."""
    bar = ""
    if share is not None:
        bar = ('<span style="display:inline-block;width:12em;height:.7em;border-radius:.35em;overflow:hidden;'
               f'background:rgba(128,128,128,.25)"><span style="display:block;width:{100 * min(share, 1.0):.1f}%;height:100%;'
               f'background:{BLUE}"></span></span>')
    return ('<div style="display:flex;align-items:center;gap:.8em;font-family:monospace;font-size:13px;flex-wrap:wrap">'
            f"{bar}<span>{escape(text)}</span>{curve_svg(curves)}</div>")


def curve_svg(curves: Sequence[Sequence[float]]) -> str:
    """Curves over each other, from left to right; empty if there is nothing to see.  Logarithmic where they span decades."""
    known = [[v for v in curve if isfinite(v)] for curve in curves]
    known = [curve for curve in known if len(curve) > 2]
    if not known:
        return ""
    low, high = min(map(min, known)), max(map(max, known))
    high = max(high, low + 1e-3 * abs(low))                  # what a converged cost does is not worth the whole height
    if low > 0 and high > 30 * low:
        known = [[log10(v) for v in curve] for curve in known]
        low, high = log10(low), log10(high)
    lines = []
    for number, curve in enumerate(known):
        across, up = (WIDTH - 6) / (len(curve) - 1), (HEIGHT - 6) / (high - low or 1.0)
        points = [(3 + i * across, HEIGHT - 3 - (v - low) * up) for i, v in enumerate(curve)]
        color = SERIES[number % len(SERIES)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5" stroke-linejoin="round"/>'
                     f'<circle cx="{points[-1][0]:.1f}" cy="{points[-1][1]:.1f}" r="2.2" fill="{color}"/>')
    return (f'<svg width="{WIDTH:g}" height="{HEIGHT:g}" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" '
            f'aria-label="cost">{"".join(lines)}</svg>')
