"""A small drawing surface of characters, and axes around it.

In: points and lines in coordinates from 0 to 1.  Out: lines of text.  Braille letters hold two by four dots, so a drawing of 70 by 16
characters has 140 by 64; where they cannot be written a character is one dot, and each curve has a letter of its own.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from dsl.record import record
from dsl.runtime.terminal import Terminal, cells, clipped, padded

Array = np.ndarray[Any, Any]
BRAILLE = 0x2800
BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""What each of the dots of a Braille letter, four rows of two, adds to its number."""
LETTERS = "*+ox#@%&"
"""Of curves where there are no dots."""
DASHES = ((1, 1), (5, 9), (1, 4), (9, 12))
"""Dots drawn of how many, by which curves differ where there are no colours."""
EIGHTHS = "▁▂▃▄▅▆▇█"
MOST_SEGMENTS = 200_000


class Canvas:
    """`columns` by `rows` characters; x goes from 0 (left) to 1 (right), y from 0 (below) to 1 (above)."""

    def __init__(self, columns: int, rows: int, terminal: Terminal) -> None:
        self.columns, self.rows, self.terminal = columns, rows, terminal
        self.across, self.down = (2, 4) if terminal.unicode else (1, 1)
        self.dots: Array = np.zeros((rows * self.down, columns * self.across), bool)
        self.ground: Array = np.full((rows, columns), -1)        # the series of the bar behind the dots
        self.letters: Array = np.full((rows, columns), " ")      # below the dots
        self.above: Array = np.full((rows, columns), "", "U1")
        self.series: Array = np.full((rows, columns), -1)

    def points(self, x: Array, y: Array, series: int, letter: str = "") -> None:
        """A dot for each pair, or a `letter` over all dots; those outside or not finite are left out."""
        column, row = self._places(x, y)
        self._mark(column[np.isfinite(column)].astype(int), row[np.isfinite(column)].astype(int), series, letter)

    def _places(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Columns and rows of dots, from the left and from above; nan for what is outside or not finite."""
        height, width = self.dots.shape
        with np.errstate(invalid="ignore"):
            inside = (x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)
            column, row = np.minimum(np.floor(x * width), width - 1), np.minimum(np.floor((1 - y) * height), height - 1)
        return np.where(inside, column, np.nan), np.where(inside, row, np.nan)

    def _mark(self, column: Array, row: Array, series: int, letter: str = "") -> None:
        cell = row // self.down, column // self.across
        self.series[cell] = series
        if letter or not self.terminal.unicode:
            self.above[cell] = letter or LETTERS[series % len(LETTERS)]
        else:
            self.dots[row, column] = True
            self.above[cell] = ""                                # what is drawn last is seen

    def line(self, x: Array, y: Array, series: int, dash: int = 0) -> None:
        """Straight lines from each point to the next; what is not finite breaks it.  `dash`: which of `DASHES`."""
        if len(x) > MOST_SEGMENTS:
            every = -(-len(x) // MOST_SEGMENTS)
            x, y = x[::every], y[::every]
        column, row = self._places(x, y)
        self.points(x[:1], y[:1], series)
        whole = np.isfinite(column[:-1]) & np.isfinite(column[1:])
        alone = np.isfinite(column) & ~np.append(whole, False) & ~np.append(False, whole)
        self._mark(column[alone].astype(int), row[alone].astype(int), series)
        start, across, down = column[:-1][whole], np.diff(column)[whole], np.diff(row)[whole]
        count = np.maximum(np.maximum(np.abs(across), np.abs(down)), 1).astype(int)
        which = np.repeat(np.arange(len(count)), count)
        along = (np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count) + 1) / count[which]
        on, period = DASHES[dash % len(DASHES)]
        drawn = np.arange(len(which)) % period < on
        which, along = which[drawn], along[drawn]
        self._mark(np.rint(start[which] + along * across[which]).astype(int),
                   np.rint(row[:-1][whole][which] + along * down[which]).astype(int), series)

    def bars(self, left: Array, right: Array, height: Array, series: int) -> None:
        """Filled bars from below, to an eighth of a row."""
        for low, high, top in zip(left, right, height, strict=True):
            first = round(low * self.columns)
            last = max(round(high * self.columns), first + 1)
            eighths = round(top * self.rows * 8)
            if top > 0:
                eighths = max(eighths, 1)
            full, part = divmod(eighths, 8)
            self.letters[self.rows - full:, first:last] = "█" if self.terminal.unicode else "#"
            self.series[self.rows - full:, first:last] = self.ground[self.rows - full:, first:last] = series
            if part and full < self.rows and (self.terminal.unicode or part >= 4):
                self.letters[self.rows - full - 1, first:last] = EIGHTHS[part - 1] if self.terminal.unicode else "#"
                self.series[self.rows - full - 1, first:last] = series

    def text(self) -> list[str]:
        """A line for each row, as wide as the canvas."""
        letters, ground = np.where(self.above == "", self.letters, self.above), np.full(self.series.shape, -1)
        if self.terminal.unicode:
            tiles = self.dots.reshape(self.rows, self.down, self.columns, self.across)
            numbers = np.einsum("rdca,da->rc", tiles, BITS)
            dotted = (numbers > 0) & (self.above == "")
            letters = np.where(dotted, (BRAILLE + numbers).astype(np.uint32).view("U1"), letters)
            ground = np.where(dotted & (self.ground != self.series), self.ground, -1)
        if not self.terminal.colors:
            return ["".join(row) for row in letters.tolist()]
        rows = zip(letters.tolist(), self.series.tolist(), ground.tolist(), strict=True)
        return [self._colored(row, list(zip(series, behind, strict=True))) for row, series, behind in rows]

    def _colored(self, row: Sequence[str], styles: Sequence[tuple[int, int]]) -> str:
        out, start = "", 0
        for place in range(1, len(row) + 1):
            if place == len(row) or styles[place] != styles[start]:
                out += self.terminal.series("".join(row[start:place]), *styles[start])
                start = place
        return out


# ---------------------------------------------------------------- axes
FINEST = 1e-290
"""Numbers closer to each other than this are drawn in one place."""


@record
class Axis:
    """From `low` to `high`; `log` if equal factors have equal lengths; `whole` if only whole numbers are of interest."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __call__(self, values: Array) -> Array:
        """Places from 0 to 1."""
        with np.errstate(all="ignore"):
            low, high, values = (np.log(v) if self.log else np.asarray(v, float) for v in (self.low, self.high, values))
            placed: Array = (values - low) / (high - low)
            return placed

    def ticks(self, most: int) -> list[float]:
        """Round numbers in the range, at most so many, at least two if there is room for them."""
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            stride = max(1, -(-(last - first + 1) // max(most, 1)))
            powers = [10.0 ** k for k in range(first, last + 1, stride)]
            return powers if len(powers) > 1 else [self.low, self.high]
        finer: list[float] = []
        for step in _steps((self.high - self.low) / (2 * max(most, 1))):
            if self.whole and step < 1:
                continue
            begin = math.ceil(self.low / step - 1e-9)
            count = math.floor(self.high / step + 1e-9) - begin + 1
            found = [float((begin + k) * step) for k in range(min(count, 2 * most))]
            if count <= most:
                return finer if count < 2 <= len(finer) <= most + 2 else found
            finer = found
        return finer[:most]


    def labels(self, ticks: Sequence[float]) -> list[str]:
        return [_short(f"{value:.3g}") for value in ticks] if self.log else number_texts(ticks)


def _steps(least: float) -> Sequence[float]:
    """1, 2, 5 times a power of ten, from `least` on."""
    power = 10.0 ** math.floor(math.log10(least))
    found = [factor * power * ten for ten in (1, 10, 100) for factor in (1, 2, 5)]
    return [step for step in found if step >= least * 0.999] or [least]


def axis_over(*parts: Array, log: bool = False, margin: float = 0.0, zero: bool = False, whole: bool = False) -> Axis:
    """The axis that shows all finite numbers of the parts; never of no length."""
    known = [part[np.isfinite(part)] for part in parts]
    known = [part for part in known if part.size]
    low, high = (min(float(p.min()) for p in known), max(float(p.max()) for p in known)) if known else (0.0, 1.0)
    low = min(low, 0.0) if zero else low
    if log:
        return Axis(low / 1.5, high * 1.5, True) if high < low * 1.001 else Axis(low, high, True)
    least = max(1e-12 * max(abs(low), abs(high)), FINEST)        # less would be only what rounding leaves
    if high - low <= least:
        room = max(abs(high) * 0.1, FINEST) if high else 1.0
        return Axis(low if zero and low == 0 else low - room, high + room, False, whole)
    room = (high - low) * margin
    return Axis(low if zero and low == 0 else low - room, high + room, False, whole)


def number_texts(values: Sequence[float]) -> list[str]:
    """Tick labels, all in one form and with as many digits as tell them apart."""
    if not values:
        return []
    largest = max(map(abs, values))
    gaps = [b - a for a, b in pairwise(values) if b > a]
    exact = min(gaps, default=largest) * 0.02
    letter = "e" if (largest >= 1e6 and exact >= 1e3) or largest >= 1e15 or 0 < largest < 1e-3 else "f"
    for digits in range(17):
        texts = [f"{value + 0.0:.{digits}{letter}}" for value in values]
        if all(abs(float(text) - value) <= exact for text, value in zip(texts, values, strict=True)):
            break
    return [_short(text) for text in texts]


def _short(text: str) -> str:
    """`1e6` for `1e+06`, and no sign before zero."""
    digits, power, exponent = text.partition("e")
    if not float(digits):
        return "0" if power else digits.removeprefix("-")
    return f"{digits}e{int(exponent)}" if power else text


def framed(canvas: Canvas, x: Axis, y: Axis, x_name: str = "", y_name: str = "", x_unit: str = "") -> list[str]:
    """The canvas with its axes, their round numbers and their names; `x_unit` stands before the last number of x."""
    terminal = canvas.terminal
    bar, corner, tick, flat, under = "│└┤─┬" if terminal.unicode else "|++-+"
    y_ticks = y.ticks(max(3, canvas.rows // 3))
    labels: dict[int, str] = {}
    for place, text in zip(y(np.array(y_ticks)), y.labels(y_ticks), strict=True):
        labels.setdefault(min(int((1 - float(place)) * canvas.rows), canvas.rows - 1), text)
    width = max([cells(text) for text in labels.values()], default=1)
    lines = [clipped(y_name, width + 2 + canvas.columns)] if y_name else []
    lines = [terminal.styled(line, "dim") for line in lines]
    for row, drawn in enumerate(canvas.text()):
        left = f"{padded(labels.get(row, ''), width, right=True)} {tick if row in labels else bar}"
        lines.append((terminal.styled(left, "dim") + drawn).rstrip())
    x_ticks = x.ticks(max(3, canvas.columns // (13 if x_unit else 12)))
    below, edge = "", [flat] * canvas.columns
    texts = x.labels(x_ticks)
    for number, (place, text) in enumerate(zip(x(np.array(x_ticks)), texts, strict=True), 1):
        column = min(int(float(place) * canvas.columns), canvas.columns - 1)
        edge[column] = under
        start = column - (cells(text) - 1) // 2
        if x_unit and number == len(texts):
            text, start = f"{x_unit} {text}", start - cells(x_unit) - 1
        start = max(0, min(start, canvas.columns - cells(text)))
        if start >= len(below) + (2 if below else 0):
            below = below.ljust(start) + text
    margin = " " * (width + 1)
    lines.append(terminal.styled(margin + corner + "".join(edge), "dim"))
    room = canvas.columns - len(below) - 2
    if x_name and cells(x_name) <= room:                         # beside the numbers if there is room, else below
        below = below + padded(x_name, room + 2, right=True)
        lines.append(terminal.styled(f"{margin} {below}".rstrip(), "dim"))
    else:
        lines.append(terminal.styled(f"{margin} {below}".rstrip(), "dim"))
        if x_name:
            lines.append(terminal.styled(f"{margin} {padded(clipped(x_name, canvas.columns), canvas.columns, right=True)}".rstrip(), "dim"))
    return lines


def axis_width(y: Axis, rows: int) -> int:
    """Columns that `framed` needs left of the canvas."""
    return max([cells(text) for text in y.labels(y.ticks(max(3, rows // 3)))], default=1) + 2
