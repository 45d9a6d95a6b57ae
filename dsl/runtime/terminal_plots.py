"""Plots as text.

In: marks whose arrays are checked, a title, what the terminal can show.  Out: lines.  Points and lines are Braille dots, bars are blocks,
a heatmap is half blocks in colours or shades; all in ASCII where the encoding has no more.
"""
from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from dsl.runtime.canvas import DASHES, LETTERS, Canvas, axis_over, axis_width, framed
from dsl.runtime.marks import Array, Heatmap, Hist, Line, Mark, Scatter, axis_name, bins, legend_name
from dsl.runtime.terminal import MANY, OFF, TRUE, Terminal, cells, clipped, padded

WIDEST, HIGHEST = 100, 20
"""Columns and rows of a drawing at most: what is larger is not easier to read."""
NARROWEST, LOWEST = 12, 4
FEW_POINTS = 200
"""So many are large points; more are dots."""
SHADES, ASCII_SHADES = " ░▒▓█", " .:-=+*%#@"
VIRIDIS = ("440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30", "fde725")
"""Nine of the colours of matplotlib's colour map of that name (https://bids.github.io/colormap/, CC0)."""
NEAR_VIRIDIS = (53, 54, 55, 61, 67, 31, 37, 36, 42, 41, 77, 113, 149, 185, 226)
"""Of 256 colours, such as go the same way."""


def plotted(marks: Sequence[Mark], title: str, terminal: Terminal) -> list[str]:
    """The marks over each other, each heatmap by itself."""
    width = min(terminal.columns - 1, WIDEST)
    lines = [terminal.styled(clipped(title, width, terminal_mark(terminal)), "bold")] if title else []
    flat = [mark for mark in marks if not isinstance(mark, Heatmap)]
    if flat:
        lines += _curves(flat, width, terminal)
    for mark in marks:
        if isinstance(mark, Heatmap):
            lines += _heatmap(mark, width, terminal)
    return [line if terminal.unicode else line.encode("ascii", "replace").decode() for line in lines]


def terminal_mark(terminal: Terminal) -> str:
    return "…" if terminal.unicode else "..."


def rows_of(terminal: Terminal) -> int:
    return max(LOWEST, min(terminal.lines - 8, HIGHEST))


# ---------------------------------------------------------------- points, lines, bars
def _curves(marks: Sequence[Scatter | Line | Hist], width: int, terminal: Terminal) -> list[str]:
    counted = {place: bins(mark) for place, mark in enumerate(marks) if isinstance(mark, Hist)}
    counted = {place: found for place, found in counted.items() if found[0].sum()}
    pairs = {place: _finite(mark) for place, mark in enumerate(marks) if not isinstance(mark, Hist)}
    if not counted and not any(x.size for x, _ in pairs.values()):
        return ["(no points)" if pairs else "(no values)"]
    counts = [counts.astype(float) for counts, _ in counted.values()]
    x = axis_over(*(x for x, _ in pairs.values()), *(edges for _, edges in counted.values()), margin=0.0 if counted else 0.02)
    only = len(counted) == len(marks)
    y = axis_over(*(y for _, y in pairs.values()), *counts, margin=0.0 if counted else 0.04, zero=bool(counted), whole=only)
    rows = rows_of(terminal)
    canvas = Canvas(max(NARROWEST, width - axis_width(y, rows)), rows, terminal)
    entries: list[tuple[int, str, str]] = []
    alone = len(counted) == 1
    for place, mark in enumerate(marks):
        number, sample = len(entries), ""
        before = sum(isinstance(m, Line) for m in marks[:place])
        match mark:
            case Hist() if place not in counted:
                continue
            case Hist():
                heights, edges = counted[place]
                if alone or place == next(iter(counted)):
                    canvas.bars(x(edges[:-1]), x(edges[1:]), y(heights), number)
                    sample = "█" if terminal.unicode else "#"
                else:
                    _outline(canvas, x(edges), y(heights), number)
            case Scatter():
                few = np.size(mark.x) <= FEW_POINTS and terminal.unicode
                canvas.points(x(np.asarray(mark.x)), y(np.asarray(mark.y)), number, "•" if few else "")
                sample = "•" if terminal.unicode else LETTERS[number % len(LETTERS)]
            case Line():
                canvas.line(x(np.asarray(mark.x)), y(np.asarray(mark.y)), number, _dash(before, terminal))
        entries.append((number, sample or line_sample(number, before, terminal), legend_name(mark)))
    x_names = [mark.x_name or (mark.label if isinstance(mark, Hist) else "") for mark in marks]
    y_names = [mark.y_name for mark in marks if not isinstance(mark, Hist)] + ["count"] * bool(counted)
    lines = legend(entries, width, terminal) if len(entries) > 1 else []
    return [*lines, *framed(canvas, x, y, axis_name(x_names), axis_name(y_names))]


def _finite(mark: Scatter | Line) -> tuple[Array, Array]:
    x, y = np.asarray(mark.x), np.asarray(mark.y)
    known = np.isfinite(x) & np.isfinite(y)
    return x[known], y[known]


def _dash(number: int, terminal: Terminal) -> int:
    """Lines differ by their dashes where they cannot by colours or letters."""
    return number % len(DASHES) if terminal.unicode and not terminal.colors else 0


def line_sample(number: int, dash: int, terminal: Terminal) -> str:
    """What stands for a line in a legend."""
    if not terminal.unicode:
        return LETTERS[number % len(LETTERS)] * 2
    return ("──", "╌╌", "┈┈", "─ ")[_dash(dash, terminal)]


def _outline(canvas: Canvas, edges: Array, heights: Array, series: int) -> None:
    """The upper edge of bars, of those that are not the first."""
    canvas.line(np.repeat(edges, 2), np.concatenate([[0.0], np.repeat(heights, 2), [0.0]]), series)


def legend(entries: Sequence[tuple[int, str, str]], width: int, terminal: Terminal) -> list[str]:
    """`• train_Y   ── Y_bar`, on as many lines as it takes."""
    lines: list[tuple[str, int]] = []
    for number, sample, name in entries:
        if not name:
            continue
        name = clipped(name, max(width - cells(sample) - 1, 1), terminal_mark(terminal))
        text, length = f"{terminal.series(sample, number)} {name}", cells(sample) + 1 + cells(name)
        if lines and lines[-1][1] + 3 + length <= width:
            lines[-1] = f"{lines[-1][0]}   {text}", lines[-1][1] + 3 + length
        else:
            lines.append((text, length))
    return [line for line, _ in lines]


# ---------------------------------------------------------------- heatmaps
def _heatmap(mark: Heatmap, width: int, terminal: Terminal) -> list[str]:
    z = np.asarray(mark.z, float)
    known = z[np.isfinite(z)]
    name = clipped(legend_name(mark), width // 2, terminal_mark(terminal))
    if not known.size:
        return [clipped(f"{name}: (no values)" if name else "(no values)", width, terminal_mark(terminal))]
    low, high = float(known.min()), float(known.max())
    colored = terminal.unicode and terminal.colors >= MANY
    label = max(len(str(len(z) - 1)), 1)
    room, rows = max(width - label - 1, 2), rows_of(terminal)
    wide, tall = (1, 2) if colored else (2, 1)                   # columns of a square, and how many of them a line holds
    across, along = room // wide, rows * tall
    grow = max(1, min(across // z.shape[1], along // z.shape[0], 4 * tall))
    small = _shrunk(_shrunk(z, along, 0), across, 1)
    grown = np.repeat(np.repeat(small, grow, 0), grow, 1)
    span = high - low or 1.0
    level = (grown - low) / span if np.isfinite(span) else grown / 2 / (high / 2 - low / 2) - low / 2 / (high / 2 - low / 2)
    body = _half_blocks(level, terminal) if colored else _shaded(level, terminal)
    numbers = {0: "0", len(body) - 1: str(len(z) - 1)} if len(z) > 1 else {0: "0"}
    lines = [terminal.styled(padded(numbers.get(i, ""), label, right=True), "dim") + " " + line for i, line in enumerate(body)]
    drawn, last = grown.shape[1] * wide, str(z.shape[1] - 1)
    below = "0" if z.shape[1] == 1 or drawn < len(last) + 2 else "0" + last.rjust(drawn - 1)
    lines.append(terminal.styled(" " * (label + 1) + below, "dim"))
    missing = z.size - known.size
    texts = [f"{name}  " if name else "", f"{low:.4g} ", f" {high:.4g}", f"  {missing} nan" if missing else ""]
    ramp = np.linspace(0, 1, min(max(room - sum(map(cells, texts)) - 2, 4), 16))[None]
    scale = _half_blocks(np.repeat(ramp, 2, 0), terminal)[0] if colored else f"[{SHADES if terminal.unicode else ASCII_SHADES}]"
    ends = texts[1] + scale + texts[2] if high > low else f"{low:.4g} everywhere"
    below = texts[0] + ends + texts[3]
    apart = cells(below) + label + 1 > width                     # a narrow terminal: each on a line
    return [*lines, *(" " * (label + 1) + text.strip() for text in ([*texts[:1], ends, *texts[3:]] if apart else [below]) if text)]


def _shrunk(z: Array, most: int, axis: int) -> Array:
    """Means of neighbours along an axis until there are at most so many; what is not finite does not count."""
    length = z.shape[axis]
    if length <= most:
        return z
    starts = np.arange(most) * length // most
    finite = np.isfinite(z)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        count = np.add.reduceat(finite.astype(float), starts, axis)
        found: Array = np.add.reduceat(np.where(finite, z, 0.0), starts, axis) / count
    return found


def _shaded(level: Array, terminal: Terminal) -> list[str]:
    shades = SHADES if terminal.unicode else ASCII_SHADES
    number = np.rint(np.nan_to_num(level) * (len(shades) - 1)).astype(int)
    letters = np.where(np.isfinite(level), np.array(list(shades))[number], "?")
    return ["".join(letter * 2 for letter in row) for row in letters.tolist()]


def _half_blocks(level: Array, terminal: Terminal) -> list[str]:
    """Two rows a line: the upper is the colour of the letter, the lower that of its ground."""
    if len(level) % 2:
        level = np.concatenate([level, np.full((1, level.shape[1]), np.inf)])        # infinite: beyond the edge
    lines = []
    for upper, lower in zip(level[::2].tolist(), level[1::2].tolist(), strict=True):
        line, before = "", ""
        for top, bottom in zip(upper, lower, strict=True):
            style = f"{_color(top, 38, terminal)};{_color(bottom, 48, terminal)}" if bottom != np.inf else _color(top, 38, terminal)
            line += f"{OFF if before else ''}\x1b[{style}m▀" if style != before else "▀"
            before = style
        lines.append(line + OFF)
    return lines


def _color(level: float, ground: int, terminal: Terminal) -> str:
    """The escape's numbers of a level from 0 to 1; a nan is grey."""
    if level != level:
        return f"{ground};5;240"
    return _map(round(level * 63), ground, terminal.colors >= TRUE)


@cache
def _map(number: int, ground: int, true: bool) -> str:
    if not true:
        return f"{ground};5;{NEAR_VIRIDIS[round(number / 63 * (len(NEAR_VIRIDIS) - 1))]}"
    place = number / 63 * (len(VIRIDIS) - 1)
    left, part = min(int(place), len(VIRIDIS) - 2), place - min(int(place), len(VIRIDIS) - 2)
    ends: Any = [[int(text[i:i + 2], 16) for i in (0, 2, 4)] for text in VIRIDIS[left:left + 2]]
    red, green, blue = (round(a + part * (b - a)) for a, b in zip(*ends, strict=True))
    return f"{ground};2;{red};{green};{blue}"
