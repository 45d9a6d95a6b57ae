"""The cost of a training, drawn while it falls.

In: what a training reports.  Out: on a terminal a small curve that is redrawn in place, of costs and of their values on held-out data,
above a line that says how far it is; at the end the curve once more and the summary.  Where there is no terminal, or too small a one, or
the training is over at once, what `Progress` shows.

    ── C 0.1031   ╌╌ valid C 0.1187
    1.0 ┤⡇
        │⠱⡀
    0.1 ┤ ⠈⠢⢄⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀
        └┬──────────┬─────────
         0      epoch 50
    ████████░░░░  epoch 62/100  84,000 steps/s  0:03 elapsed  0:02 left
"""
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from time import perf_counter
from typing import IO

import numpy as np

from dsl.runtime import progress
from dsl.runtime.canvas import Axis, Canvas, axis_over, axis_width, framed
from dsl.runtime.progress import Cost, Progress
from dsl.runtime.terminal import Terminal, cells, terminal_of
from dsl.runtime.terminal_plots import legend, line_sample

FIRST_SECONDS = 0.3
"""A training that is over before has no curve."""
SHARE = 0.01
"""Of the time, that drawing may take."""
ROWS, LEAST_COLUMNS, LEAST_LINES, WIDEST = 8, 36, 12, 100
DECADES = 100.0
"""From this factor between the largest and the least cost on, the axis is logarithmic."""
MOST_POINTS = 2048
MOST_SERIES = 6
LARGEST = 1e150
"""Larger costs are drawn as this: the length of an axis is to be a number."""


class Curve(Progress):
    """As `Progress`, of which it is one; it keeps some thousand points at most, whatever it is told."""

    def __init__(self, total: int | None, unit: str = "epoch", stream: IO[str] | None = None, interactive: bool | None = None,
                 cost_name: str = "C", quiet: bool = False) -> None:
        super().__init__(total, unit, stream, interactive, cost_name, quiet)
        self.points: dict[str, tuple[list[float], list[float]]] = {}
        self.lines: list[str] = []
        """What stands on the screen."""
        self.drawn_last: list[str] = []
        if self.interactive:
            self.next = self.started + FIRST_SECONDS

    # ------------------------------------------------------------ what is told
    def update(self, done: float, steps: int, cost: Cost = None, valid: Mapping[str, float] | None = None) -> None:
        if not self.closed and self.interactive:
            self._keep(done, cost, valid or {})
        super().update(done, steps, cost, valid)

    def _keep(self, done: float, cost: Cost, valid: Mapping[str, float]) -> None:
        """A point for each cost; of those with one value, one after the other, the first and the last."""
        costs = cost if isinstance(cost, Mapping) else {} if cost is None else {self.cost_name: float(cost)}
        place = float(int(done)) if self.unit == "epoch" and done >= 1 else done
        for name, value in (*costs.items(), *((f"valid {n}", valid[n]) for n in costs if n in valid)):
            places, values = self.points.setdefault(name, ([], []))
            value = min(max(value, -LARGEST), LARGEST)           # a nan stays one
            if places and places[-1] >= place:
                continue
            if len(values) > 1 and values[-1] == values[-2] == value:
                places[-1] = place
                continue
            places.append(place)
            values.append(value)
            if len(places) > MOST_POINTS:
                del places[1::2], values[1::2]

    def close(self, done: float | None = None, steps: int | None = None, cost: Cost = None, note: str | None = None, *,
              verb: str = "trained", failed: bool = False) -> None:
        if self.closed:
            return
        long = self.seconds >= FIRST_SECONDS
        if self.interactive:
            self._keep(self.done if done is None else done, self.cost if cost is None else cost, self.valid)
            self.clear()
        self.drawn_last = drawn = self._curve(self._terminal()) if long and self.interactive else []
        if drawn:
            self._write("\r\n".join(drawn) + "\r\n")
        super().close(done, steps, cost, note, verb=verb, failed=failed)

    def summary(self, verb: str = "trained", note: str | None = None) -> str:
        """In a line too narrow for all of it, without the costs if they stand above the curve."""
        text, cost = super().summary(verb, note), self.cost
        if self.drawn_last and cells(text) > self._terminal().columns:
            self.cost = None
            text, self.cost = super().summary(verb, note), cost
        return text

    # ------------------------------------------------------------ the screen
    def _terminal(self) -> Terminal:
        found = terminal_of(self.stream)
        return found if self.color else replace(found, colors=0)

    def _redraw(self, now: float) -> None:
        began = perf_counter()
        terminal = self._terminal()
        lines = [*self._curve(terminal), self._line(terminal.columns - 1, now)]
        self._write(self._back(terminal) + "\x1b[K\r\n".join(lines) + "\x1b[J")
        self.lines, self.drawn = lines, True
        self.pause = max(progress.REDRAW_SECONDS, (perf_counter() - began) / SHARE)

    def _back(self, terminal: Terminal) -> str:
        """To the beginning of what stands on the screen.  In a window that has become too narrow for it, nobody knows where that is:
        then it stays, and the next is drawn below."""
        if max(map(cells, self.lines), default=0) >= terminal.columns:
            return "\r\n"
        up = min(len(self.lines), terminal.lines) - 1
        return f"\r\x1b[{up}A" if up > 0 else "\r"

    def clear(self) -> None:
        if self.drawn:
            self._write(self._back(self._terminal()) + "\x1b[J")
            self.lines, self.drawn = [], False

    def _parts(self, now: float) -> list[str]:
        if not self._fits(self._terminal()) or not self.interactive:
            return super()._parts(now)
        cost, self.cost = self.cost, None                        # it stands above the curve
        parts = super()._parts(now)
        self.cost = cost
        elapsed = f"{progress.clock(now - self.started)} elapsed"
        return [*parts[:-1], elapsed, parts[-1]] if parts[-1].endswith("left") else [*parts, elapsed]

    def _fits(self, terminal: Terminal) -> bool:
        return terminal.columns >= LEAST_COLUMNS and terminal.lines >= LEAST_LINES and any(len(p) > 1 for p, _ in self.points.values())

    def _curve(self, terminal: Terminal) -> list[str]:
        """Legend, curve and axes; nothing as long as there are not two points, or no room."""
        if not self._fits(terminal):
            return []
        series = {name: (np.array(places), np.array(values)) for name, (places, values) in islice(self.points.items(), MOST_SERIES)}
        width, rows = min(terminal.columns - 1, WIDEST), min(ROWS, terminal.lines - 7)
        every = [values for _, values in series.values()]
        places_of = [places for places, _ in series.values()]
        x = Axis(min(float(p[0]) for p in places_of), max(float(p[-1]) for p in places_of), whole=True)
        y = axis_over(*every, log=_spans_decades(every))
        canvas = Canvas(max(8, width - axis_width(y, rows)), rows, terminal)
        entries = []
        for number, (name, (places, values)) in enumerate(series.items()):
            canvas.line(x(places), y(values), number, 0 if terminal.colors else number)
            entries.append((number, line_sample(number, number, terminal), f"{name} {values[-1]:.4g}"))
        drawn = framed(canvas, x, y, x_unit=self.unit)
        return [*legend(entries, width, terminal), *drawn]


def _spans_decades(values: list[np.ndarray[tuple[int], np.dtype[np.float64]]]) -> bool:
    known = [part[np.isfinite(part)] for part in values]
    low, high = min((float(p.min()) for p in known if p.size), default=0.0), max((float(p.max()) for p in known if p.size), default=0.0)
    return low > 0 and math.isfinite(high) and high / low >= DECADES
