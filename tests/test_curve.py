"""The cost curve of a training, on the screen of a terminal."""
from __future__ import annotations

import io
import os
import re
import signal
import sys
import time
from contextlib import contextmanager

import pytest

from dsl.repl.curve import MOST_POINTS, Curve
from dsl.runtime import progress as module

pyte = pytest.importorskip("pyte")
pty = pytest.importorskip("pty")
pexpect = pytest.importorskip("pexpect")


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves; drawing takes no time on it."""
    now = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    monkeypatch.setattr("dsl.repl.curve.perf_counter", lambda: now[0])
    for name in ("COLUMNS", "LINES", "NO_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    return now


class Stream:
    """A terminal's file whose other end is read after every write, as a terminal does: its buffer is small."""

    def __init__(self, file, read):
        self.file, self.read, self.encoding = file, read, file.encoding

    def write(self, text):
        for start in range(0, len(text), 500):
            self.file.write(text[start:start + 500])
            self.file.flush()
            self.read()

    def flush(self): ...

    def isatty(self):
        return self.file.isatty()

    def fileno(self):
        return self.file.fileno()

    def close(self):
        self.file.close()


class Window:
    """A terminal of a size: what is written to `stream` is on its screen."""

    def __init__(self, columns, lines, encoding="utf-8"):
        self.ours, theirs = pty.openpty()
        self.stream = Stream(os.fdopen(theirs, "w", encoding=encoding), self.take)
        self.screen, self.bytes = pyte.HistoryScreen(columns, lines, history=1000), b""
        self.feed = pyte.ByteStream(self.screen)
        self.resize(columns, lines)

    def resize(self, columns, lines):
        import fcntl
        import struct
        import termios
        fcntl.ioctl(self.stream.fileno(), termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(lines, columns)

    def take(self):
        import select
        while select.select([self.ours], [], [], 0)[0]:
            part = os.read(self.ours, 65536)
            self.bytes += part
            self.feed.feed(part)

    def shown(self):
        self.take()
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def above(self):
        """What has left the screen at its upper edge."""
        return ["".join(line[x].data for x in range(self.screen.columns)).rstrip() for line in self.screen.history.top]


@contextmanager
def window(columns=80, lines=24, encoding="utf-8"):
    made = Window(columns, lines, encoding)
    try:
        yield made
    finally:
        made.stream.close()
        os.close(made.ours)


def trained(curve, clock, epochs=range(1, 101), seconds=0.05, after=lambda epoch: None, valid=True):
    for epoch in epochs:
        clock[0] += seconds
        cost = 100.0 / epoch ** 2 + 0.5
        curve.update(epoch, 10 * epoch, {"C": cost}, {"C": cost + 5 / epoch, "accuracy": 0.5} if valid else None)
        after(epoch)


# ---------------------------------------------------------------- what is seen
def test_captures(golden, clock):
    """While it runs, at its end, without colours, in a small window; looked at when they were made."""
    text = ""
    for columns, lines, environment in ((80, 24, {}), (40, 16, {"NO_COLOR": "1"}), (60, 12, {})):
        with window(columns, lines) as w, pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            curve = Curve(100, "epoch", w.stream)
            trained(curve, clock, range(1, 61))
            text += w.shown() + "\n\n"
            trained(curve, clock, range(61, 101))
            curve.close(100, 1000, {"C": 0.51})
            text += w.shown() + "\n\n" + "=" * columns + "\n"
    golden("curve.txt", text)


def test_it_is_redrawn_in_place(clock):
    with window() as w:
        w.stream.write("before\n")
        curve = Curve(100, "epoch", w.stream)
        heights = set()
        trained(curve, clock, after=lambda epoch: heights.add(len(w.shown().splitlines())))
        assert heights == {1, 13} and w.shown().startswith("before\n── C 0.51")
        assert len(re.findall(r"epoch \d+/100 ", w.shown())) == 1 and not w.above()
        curve.close()
        lines = w.shown().splitlines()
        assert lines[0] == "before" and lines[-1].startswith("trained 100 epochs, 1000 steps in 5.0 s (200 steps/s), C = 0.51")
        assert "elapsed" not in w.shown() and len(lines) == 13 and not w.above()


def test_what_is_printed_between_stays(clock):
    with window(lines=40) as w:
        curve = Curve(100, "epoch", w.stream)

        def every(epoch):
            if epoch % 25 == 0:
                curve.clear()
                w.stream.write(f"printed {epoch}\n")
        trained(curve, clock, after=every)
        curve.close()
        lines = w.shown().splitlines()
        assert lines[:4] == ["printed 25", "printed 50", "printed 75", "printed 100"] and lines[4].startswith("── C 0.51")
        assert sum("└" in line for line in lines) == 1


def test_two_colours_where_there_are_any(clock):
    with window() as w:
        curve = Curve(100, "epoch", w.stream)
        trained(curve, clock)
        w.shown()
        colours = {w.screen.buffer[y][x].fg for y in range(1, 9) for x in range(8, 80) if w.screen.buffer[y][x].data > "\u2800"}
        assert len(colours - {"default"}) == 2


def test_costs_that_span_decades_are_logarithmic(clock):
    def axis(costs):
        with window() as w:
            curve = Curve(100, "step", w.stream)
            for step, cost in enumerate(costs, 1):
                clock[0] += 0.2
                curve.update(step, step, cost)
            return [float(found[1]) for line in w.shown().splitlines() if (found := re.match(r" *(\S+) ┤", line))]
    assert axis([1000.0, 10.0, 0.1]) == [1000, 10, 0.1] or axis([1000.0, 10.0, 0.1]) == [100, 1]
    assert axis([3.0, 2.0, 1.0]) == [3, 2, 1]
    assert len(axis([-3.0, 2.0, 1000.0])) >= 3                                        # no logarithm of what is negative


@pytest.mark.parametrize("costs", [[float("nan"), 1.0, 2.0], [float("inf")] * 3, [float("nan")] * 3, [1e308, -1e308, 0.0], [0.0, 0.0, 0.0],
                                   [5e-324, 1, 2]])
def test_any_costs_are_drawn(clock, costs):
    with window() as w:
        curve = Curve(None, "step", w.stream)
        for step, cost in enumerate(costs, 1):
            clock[0] += 0.4
            curve.update(step, step, cost)
        curve.close(3, 3, {"C": 1.0})
        assert w.shown().splitlines()[-1].startswith("trained 3 steps")


# ---------------------------------------------------------------- where there is none
def test_a_short_training_has_no_curve(clock):
    with window() as w:
        curve = Curve(100, "epoch", w.stream)
        trained(curve, clock, range(1, 6))
        curve.close()
        assert w.shown().startswith("trained 5 epochs") and "\n" not in w.shown() and b"\x1b" not in w.bytes


@pytest.mark.parametrize(("columns", "lines"), [(80, 11), (30, 24), (10, 5), (1, 1), (36, 12)])
def test_small_windows(clock, columns, lines):
    with window(columns, lines) as w:
        curve = Curve(100, "epoch", w.stream)
        trained(curve, clock)
        assert (w.shown() or columns == 1) and not w.above()
        assert ("└" in w.shown()) == (columns >= 36 and lines >= 12)
        curve.close()
        w.shown()
        if columns > 1:
            assert "trained 100 epochs" in "".join([*w.above(), *w.screen.display]).replace("\n", "")


def test_no_terminal(clock, monkeypatch):
    stream = io.StringIO()
    curve = Curve(100, "epoch", stream)
    trained(curve, clock)
    curve.close()
    assert len(stream.getvalue().splitlines()) == 2 and "\x1b" not in stream.getvalue()
    monkeypatch.setenv("TERM", "dumb")
    with window() as w:
        curve = Curve(100, "epoch", w.stream)
        trained(curve, clock)
        curve.close()
        assert w.shown().splitlines()[-1].startswith("trained") and b"\x1b" not in w.bytes


def test_no_colours(clock, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    with window() as w:
        curve = Curve(100, "epoch", w.stream)
        trained(curve, clock)
        assert "╌╌ valid C" in w.shown() and not re.search(rb"\x1b\[[\d;]*m", w.bytes)


def test_ascii(clock):
    with window(encoding="ascii") as w:
        curve = Curve(100, "epoch", w.stream)
        trained(curve, clock)
        assert re.match(r"\*\* C 0.51\d*   \+\+ valid C 0.56", w.shown()) and "#####" in w.shown()
        curve.close()
        assert w.shown().isascii()


def test_quiet_and_closed_streams(clock):
    stream = io.StringIO()
    curve = Curve(10, "epoch", stream, quiet=True)
    trained(curve, clock)
    curve.close()
    assert not stream.getvalue()
    curve = Curve(10, "epoch", stream, interactive=True)
    stream.close()
    trained(curve, clock)
    curve.close()


# ---------------------------------------------------------------- ends, resized windows
def test_a_failure_leaves_the_curve(clock):
    with window() as w:
        curve = Curve(100, "epoch", w.stream)
        trained(curve, clock, range(1, 41))
        curve.close(40, 400, {"C": 0.5625}, failed=True)
        w.stream.write("error\n")
        lines = w.shown().splitlines()
        assert lines[0].startswith("── C 0.5625") and lines[-1] == "error" and "elapsed" not in w.shown()
        assert "└" in lines[-3] and "40" in lines[-2] and "trained" not in w.shown() and "stopped" not in w.shown()
        assert w.screen.cursor.x == 0


@pytest.mark.parametrize("sizes", [[(120, 30)], [(60, 24)], [(80, 13)], [(20, 5), (80, 24)], [(200, 50), (40, 14)]])
def test_resized_windows(clock, sizes):
    with window() as w:
        w.stream.write("before\n")
        curve = Curve(100, "epoch", w.stream)

        def after(epoch):
            w.shown()
            if epoch % 20 == 0 and epoch // 20 <= len(sizes):
                w.resize(*sizes[epoch // 20 - 1])
        trained(curve, clock, after=after)
        curve.close()
        w.stream.write("after\n")
        everything = "\n".join([*w.above(), w.shown()]) if w.shown() else ""
        assert everything.rstrip().endswith("after") and "trained 100 epochs" in everything.replace("\n", "")
        if all(columns >= 80 and lines >= 24 for columns, lines in sizes):
            assert everything.startswith("before\n── C 0.51") and everything.count("└") == 1


# ---------------------------------------------------------------- cost
def test_drawing_takes_a_hundredth_of_the_time(clock, monkeypatch):
    """If a drawing takes 10 ms, the next is a second later."""
    monkeypatch.setattr("dsl.repl.curve.perf_counter", iter([k * 0.01 for k in range(10_000)]).__next__)
    with window() as w:
        curve = Curve(1000, "epoch", w.stream)
        drawn = []
        redraw = curve._redraw
        monkeypatch.setattr(curve, "_redraw", lambda now: (drawn.append(now), redraw(now)))
        trained(curve, clock, range(1, 401), after=lambda epoch: w.shown())
        assert 18 <= len(drawn) <= 22


def test_points_are_few_however_many_are_told(clock):
    curve = Curve(10 ** 6, "step", io.StringIO(), interactive=True)
    curve.next = 1e18
    for step in range(30_000):
        curve.update(step, step, 1.0 / (step + 1))
    places, values = curve.points["C"]
    assert len(places) == len(values) <= MOST_POINTS and places[0] == 0 and places == sorted(places)
    assert all(value == 1.0 / (place + 1) for place, value in zip(places, values, strict=True))


def test_an_epochs_cost_is_one_point(clock):
    curve = Curve(3, "epoch", io.StringIO(), interactive=True)
    curve.next = 1e18
    for done, cost in ((0.4, 5.0), (0.8, 4.0), (1.2, 3.0), (1.7, 3.0), (2.1, 2.0), (2.9, 2.0)):
        curve.update(done, 1, cost)
    assert curve.points["C"] == ([0.4, 0.8, 1.0, 2.0], [5.0, 4.0, 3.0, 2.0])


# ---------------------------------------------------------------- a real training
SCRIPT = """
data A = normal(400, 8)
matrix X[n, d]
shared w[d] = 1.0
cost C = mean(sqr(X @ w - 1.0))
update w <- w - 1e-9 * grad(C, w)
train 2000000000 steps over X = A batch 10
"""


@pytest.mark.child_process
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_interrupted_in_a_real_terminal(tmp_path):
    (tmp_path / "a.lr").write_text(SCRIPT)
    environment = {**os.environ, "TERM": "xterm-256color"}
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        environment.pop(name, None)
    child = pexpect.spawn(sys.executable, ["-m", "dsl", "run", "--live", "--device", "cpu", str(tmp_path / "a.lr")], dimensions=(24, 80),
                          env=environment, encoding="utf-8", timeout=60)
    child.expect("elapsed")
    time.sleep(0.3)
    child.kill(signal.SIGINT)
    child.expect(pexpect.EOF)
    child.close()
    text = child.before
    screen = pyte.Screen(80, 24)
    pyte.Stream(screen).feed(text)
    assert child.exitstatus == 130
    shown = "\n".join(line.rstrip() for line in screen.display).rstrip()
    assert "└" in shown and "elapsed" not in shown
    assert len(re.findall(r"interrupted after step \d+", shown)) == 1 and "stopped" not in shown
