"""Progress of a training run on standard error.

In: how far it is (`update`, after each epoch or burst of steps), and how it ended (`close`).  Out: on a terminal one
line that is redrawn at most ten times a second; elsewhere a plain line after 2 s, then after 4, 8, … at most 60 s more;
in both at the end a summary line.  Nothing is imported that is not loaded anyway, and an `update` that does not redraw
costs about a microsecond.

    ████████████░░░░░░░░  epoch 62/100  C = 0.1031  84,000 steps/s  0:07 left
    trained 100 epochs, 10100 steps in 0.12 s (84,000 steps/s), C = 0.1029
"""
from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from time import monotonic
from types import TracebackType
from typing import IO

from dsl.colors import wants_color
from dsl.runtime.terminal import can_write, is_terminal, size_of

REDRAW_SECONDS = 0.1
FIRST_LINE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 60.0
Cost = float | Mapping[str, float] | None

_BAR, _DIM, _OFF, _CLEAR = "\x1b[36m", "\x1b[2m", "\x1b[0m", "\r\x1b[2K"


class Progress:
    """Reports a run of `total` units ("epoch" or "step"; None if open-ended) on `stream` (default: standard error).

    `interactive` says whether to redraw one line; None asks the stream and TERM (`dumb` is not one to redraw).
    NO_COLOR leaves colours out; `quiet` writes nothing at all.  `cost_name` names a cost given as a number.  A stream
    that can no longer be written to is left alone: progress never stops a run.
    """

    def __init__(self, total: int | None, unit: str = "epoch", stream: IO[str] | None = None,
                 interactive: bool | None = None, cost_name: str = "C", quiet: bool = False) -> None:
        self.total, self.unit, self.cost_name = total, unit, cost_name
        self.stream = stream if stream is not None else sys.stderr
        if interactive is None:
            interactive = is_terminal(self.stream) and os.environ.get("TERM", "") != "dumb"
        self.interactive = interactive
        self.color = interactive and wants_color(self.stream)
        self.blocks = can_write(self.stream, "█░")
        self.started = monotonic()
        self.pause = REDRAW_SECONDS if interactive else FIRST_LINE_SECONDS
        self.next = self.started + self.pause
        self.done: float = 0
        self.steps = 0
        self.cost: Cost = None
        self.valid: Mapping[str, float] = {}
        self.drawn = False
        self.closed = quiet
        self.first_done, self.first_steps = 0.0, 0

    def start_from(self, done: float, steps: int) -> None:
        """So much of it was finished before; the speed is that of what comes now."""
        self.first_done, self.first_steps = done, steps

    def update(self, done: float, steps: int, cost: Cost = None, valid: Mapping[str, float] | None = None) -> None:
        """`done` units (with the part of one that has begun) and `steps` steps are finished; `cost` is the latest, one
        number or several by name; `valid` are values on held-out data by name, metrics among them."""
        self.done, self.steps, self.cost = done, steps, cost
        self.valid = valid or {}
        now = monotonic()
        if now < self.next or self.closed:
            return
        if self.interactive:
            self._redraw(now)
        else:
            self._write("  ".join(self._parts(now)) + "\n")
            self.pause = min(2 * self.pause, LONGEST_PAUSE_SECONDS)
        self.next = now + self.pause

    def close(self, done: float | None = None, steps: int | None = None, cost: Cost = None, note: str | None = None, *,
              verb: str = "trained", failed: bool = False) -> None:
        """Takes the redrawn line away and writes the summary of these figures (default: those of the last update).

        `note` says why it ended early, `verb` what was done; after a failure there is no summary, as the message that
        follows has the place.  A second call does nothing.
        """
        if self.closed:
            return
        self.done = self.done if done is None else done
        self.steps = self.steps if steps is None else steps
        self.cost = cost or self.cost if isinstance(cost, Mapping) or cost is None else cost
        self.clear()
        if not failed:
            self._write(self.summary(verb, note) + "\n")
        self.closed = True

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return monotonic() - self.started

    def summary(self, verb: str = "trained", note: str | None = None) -> str:
        """The final line, without its end."""
        cost = {self.cost_name: self.cost} if isinstance(self.cost, float | int) else self.cost
        units = int(self.done) if self.unit != "step" else None
        return summary(units, self.steps, self.seconds, cost, note, verb, self.unit, self.first_steps)

    def clear(self) -> None:
        """Takes the redrawn line away, so that something else can be printed; the next update draws it again."""
        if self.drawn:
            self._write(_CLEAR)
            self.drawn = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close(failed=kind is not None)

    # ------------------------------------------------------------ the line
    def _parts(self, now: float) -> list[str]:
        seconds = now - self.started
        of_total = f"/{self.total:,}" if self.total else ""
        left = ""
        if self.total and 0 < self.done < self.total:
            left = f"{clock(seconds * (self.total - self.done) / max(self.done - self.first_done, 1e-9))} left"
        parts = [f"{self.unit} {int(self.done):,}{of_total}", _costs(self.cost, self.cost_name),
                 _rate(self.steps - self.first_steps, seconds), left]
        return [part for part in parts if part]

    def _redraw(self, now: float) -> None:
        self._write(_CLEAR + self._line(size_of(self.stream)[0] - 1, now))         # the last column would wrap on some terminals
        self.drawn = True

    def _line(self, columns: int, now: float) -> str:
        """The bar and the parts that there is room for."""
        parts = self._parts(now)
        room = columns - len("  ".join(parts)) - 2
        while room < 0 and len(parts) > 1:
            parts.pop()
            room = columns - len("  ".join(parts)) - 2
        text = "  ".join(parts)[:max(columns, 0)]
        if self.total and room >= 8:
            text = f"{self._bar(min(room, 30))}  {text}"
        return text

    def _bar(self, width: int) -> str:
        assert self.total
        filled = min(width, int(width * self.done / self.total))
        full, empty = ("█", "░") if self.blocks else ("#", "-")
        if self.color:
            return f"{_BAR}{full * filled}{_OFF}{_DIM}{empty * (width - filled)}{_OFF}"
        return full * filled + empty * (width - filled)

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.stream.flush()
        except (OSError, ValueError):                   # a closed pipe, a closed file
            self.closed = True


# ---------------------------------------------------------------- words
def summary(units: int | None, steps: int, seconds: float, cost: Cost, note: str | None = None, verb: str = "trained",
            unit: str = "epoch", before: int = 0) -> str:
    """What a run did, in one line; `before` of the steps were made at another time."""
    amount = _count(steps, "step") if units is None else f"{_count(units, unit)}, {_count(steps, 'step')}"
    rate = _rate(steps - before, seconds)
    text = f"{verb} {amount} in {duration(seconds)}" + (f" ({rate})" if rate else "")
    costs = _costs(cost, "C")
    return text + (f", {costs}" if costs else "") + (f"; stopped: {note}" if note else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _costs(cost: Cost, name: str) -> str:
    named = cost if isinstance(cost, Mapping) else {} if cost is None else {name: cost}
    return ", ".join(f"{key} = {value:.4g}" for key, value in named.items())


def _rate(steps: int, seconds: float) -> str:
    """Steps a second with two or three digits that mean something."""
    if steps <= 0 or seconds <= 0:
        return ""
    rate = steps / seconds
    if rate < 10:
        return f"{rate:.2g} steps/s"
    scale = 10 ** max(0, len(str(int(rate))) - 2)
    return f"{round(rate / scale) * scale:,} steps/s"


def duration(seconds: float) -> str:
    """`0.31 ms`, `23 ms`, `0.12 s`, `4.6 s`, `83 s`, `3 min 5 s`, `2 h 7 min`."""
    if seconds < 0.0995:
        milli = seconds * 1e3
        return f"{milli:.2f} ms" if milli < 0.995 else f"{milli:.1f} ms" if milli < 9.95 else f"{milli:.0f} ms"
    if seconds < 100:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def clock(seconds: float) -> str:
    """`0:07`, `12:30`, `1:02:03`; days are not counted apart."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
