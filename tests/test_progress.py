"""Progress lines: redrawn on a terminal, now and then elsewhere, and a summary at the end."""
from __future__ import annotations

import io
import os
import re
import time
from contextlib import suppress

import pytest

from dsl.runtime import progress as module
from dsl.runtime.progress import Progress

SUMMARY = r"trained 100 epochs, 10100 steps in [\d.]+ m?s \([\d,]+ steps/s\), C = 0.1029\n"


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


def test_a_short_run_writes_its_summary_only():
    stream = io.StringIO()
    with Progress(100, "epoch", stream) as progress:
        for epoch in range(1, 101):
            progress.update(epoch, 101 * epoch, 0.1029)
    assert re.fullmatch(SUMMARY, stream.getvalue())


def test_summary_figures(clock):
    stream = io.StringIO()
    progress = Progress(100, "epoch", stream)
    clock[0] += 0.12
    progress.close(100, 10100, {"C": 0.10294})
    assert stream.getvalue() == "trained 100 epochs, 10100 steps in 0.12 s (84,000 steps/s), C = 0.1029\n"
    progress.close()
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize(("unit", "cost", "note", "text"), [
    ("step", None, None, "trained 50 steps in 5.0 s (10 steps/s)"),
    ("epoch", {"C": 1.0, "D": 2.5}, None, "trained 1 epoch, 50 steps in 5.0 s (10 steps/s), C = 1, D = 2.5"),
    ("epoch", float("nan"), "no lower C",
     "trained 1 epoch, 50 steps in 5.0 s (10 steps/s), C = nan; stopped: no lower C")])
def test_summaries(clock, unit, cost, note, text):
    stream = io.StringIO()
    progress = Progress(None, unit, stream)
    clock[0] += 5
    progress.close(50 if unit == "step" else 1, 50, cost, note)
    assert stream.getvalue() == text + "\n"


@pytest.mark.parametrize(("seconds", "text"), [(4.2e-5, "0.04 ms"), (0.0034, "3.4 ms"), (0.023, "23 ms"), (0.0997, "0.10 s"),
                                               (0.5, "0.50 s"), (7, "7.0 s"), (83, "83 s"), (185, "3 min 5 s"),
                                               (7620, "2 h 7 min")])
def test_durations(clock, seconds, text):
    progress = Progress(1, "epoch", io.StringIO())
    clock[0] += seconds
    assert f" in {text}" in progress.summary()


def test_plain_lines_come_ever_more_rarely(clock):
    stream = io.StringIO()
    progress = Progress(1000, "epoch", stream)
    times = []
    for epoch in range(1, 601):
        clock[0] += 1
        before = stream.tell()
        progress.update(epoch, 10 * epoch, 0.5)
        if stream.tell() > before:
            times.append(epoch)
    assert times == [2, 6, 14, 30, 62, 122, 182, 242, 302, 362, 422, 482, 542]
    assert stream.getvalue().splitlines()[0] == "epoch 2/1,000  C = 0.5  10 steps/s  16:38 left"


def test_quiet_and_failed():
    stream = io.StringIO()
    Progress(1, "epoch", stream, quiet=True).close(1, 1, 1.0)
    Progress(1, "epoch", stream).close(failed=True)
    with pytest.raises(KeyError), Progress(1, "epoch", stream):
        raise KeyError
    assert stream.getvalue() == ""


def test_a_closed_stream_stops_nothing(clock):
    stream = io.StringIO()
    progress = Progress(10, "epoch", stream)
    stream.close()
    clock[0] += 10
    progress.update(1, 1, 1.0)
    progress.close()


def test_updates_are_cheap():
    progress = Progress(10**6, "epoch", io.StringIO(), interactive=True)
    start = time.perf_counter()
    for epoch in range(20_000):
        progress.update(epoch, epoch, 1.0)
    assert (time.perf_counter() - start) / 20_000 < 20e-6


# ---------------------------------------------------------------- a real terminal
def on_terminal(action, monkeypatch, columns=80, encoding="utf-8", **environment):
    pty = pytest.importorskip("pty")
    for name, value in ({"TERM": "xterm", "COLUMNS": str(columns)} | environment).items():
        monkeypatch.setenv(name, value)
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w", encoding=encoding) as stream:
        action(stream)
    text = b""
    with suppress(OSError):                     # EIO when the closed end has been read out; before that a read may give only a part
        while part := os.read(ours, 4096):
            text += part
    os.close(ours)
    return text.decode(encoding)


def training(stream, clock, epochs=5, seconds=1.0):
    progress = Progress(epochs, "epoch", stream)
    for epoch in range(1, epochs + 1):
        clock[0] += seconds
        progress.update(epoch, 100 * epoch, 1 / epoch)
    progress.close()
    return progress


def test_one_line_is_redrawn(monkeypatch, clock):
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = on_terminal(lambda stream: training(stream, clock), monkeypatch)
    frames = text.split("\r\x1b[2K")
    assert len(frames) == 7 and text.count("\n") == 1
    plain = [re.sub(r"\x1b\[\d+m", "", frame) for frame in frames]
    assert plain[2] == "████████████░░░░░░░░░░░░░░░░░░  epoch 2/5  C = 0.5  100 steps/s  0:03 left"
    assert plain[-1].startswith("trained 5 epochs, 500 steps in 5.0 s (100 steps/s), C = 0.2")
    assert "\x1b[36m" in frames[1] and all(len(frame) < 80 for frame in plain)


def test_no_color(monkeypatch, clock):
    text = on_terminal(lambda stream: training(stream, clock), monkeypatch, NO_COLOR="1")
    assert "\x1b[36m" not in text and "\r\x1b[2K" in text


def test_a_dumb_terminal_gets_plain_lines(monkeypatch, clock):
    text = on_terminal(lambda stream: training(stream, clock), monkeypatch, TERM="dumb")
    assert "\x1b" not in text and text.count("\n") == 2


def test_a_terminal_without_blocks(monkeypatch, clock):
    text = on_terminal(lambda stream: training(stream, clock), monkeypatch, encoding="ascii", NO_COLOR="1")
    assert "####" in text and "----" in text


@pytest.mark.parametrize("columns", [1, 5, 20, 40, 60, 200])
def test_narrow_terminals_do_not_wrap(monkeypatch, clock, columns):
    text = on_terminal(lambda stream: training(stream, clock), monkeypatch, columns, NO_COLOR="1")
    assert all(len(frame) < max(columns, 2) for frame in text.split("\r\x1b[2K")[1:-1])


def test_ten_frames_a_second_at_most(monkeypatch, clock):
    text = on_terminal(lambda stream: training(stream, clock, 1000, 0.001), monkeypatch)
    assert text.count("\x1b[2K") <= 11


def test_clear_makes_room_for_other_lines(monkeypatch, clock):
    def action(stream):
        progress = Progress(5, "epoch", stream)
        clock[0] += 1
        progress.update(1, 1, 1.0)
        progress.clear()
        stream.write("C = 1.0\n")
        clock[0] += 1
        progress.update(2, 2, 1.0)
        progress.close()
    text = on_terminal(action, monkeypatch)
    assert "\r\x1b[2KC = 1.0" in text
