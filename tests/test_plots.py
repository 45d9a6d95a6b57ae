"""Plots: files with the same bytes each time, marks of every kind, and what is said when something cannot be drawn."""
from __future__ import annotations

import io
import re
import sys

import numpy as np
import pytest

import dsl
from dsl.errors import FileTrouble, LrError
from dsl.runtime.canvas import Axis, Canvas, number_texts
from dsl.runtime.plots import Heatmap, Hist, Line, Scatter, draw
from dsl.runtime.terminal import BASIC, Terminal, cells

pytest.importorskip("matplotlib")
X = np.linspace(-1, 1, 21)
FIT = [Scatter(X, 2 * X + 1, x_name="train_X", y_name="train_Y"), Line(X, 2 * X, x_name="train_X", y_name="Y_bar")]
BAD = np.array([1.0, np.nan, np.inf, -np.inf])
TERMINALS = [Terminal(), Terminal(40, 12, 256), Terminal(200, 60, 1 << 24), Terminal(9, 3), Terminal(60, 20, 8, False)]


def picture(tmp_path, marks, title="", name="p.svg"):
    path = draw(marks, title, name, tmp_path)
    assert path == tmp_path / name
    return path.read_bytes()


def wrong(marks, **options):
    with pytest.raises(LrError) as caught:
        draw(marks, **({"path": "p.png", "out_dir": "/nowhere"} | options))
    return caught.value


@pytest.mark.parametrize("name", ["p.png", "p.svg", "P.PNG"])
def test_the_same_bytes_each_time(tmp_path, name):
    import matplotlib
    first = picture(tmp_path, FIT, "Fit", name)
    with matplotlib.rc_context({"axes.facecolor": "black", "svg.hashsalt": "other", "font.size": 30}):
        assert picture(tmp_path, FIT, "Fit", name) == first
    assert first.startswith(b"\x89PNG" if name.lower().endswith("png") else b"<?xml")
    assert b"<dc:date>" not in first and b"Matplotlib v" not in first


def test_names_become_axis_labels_and_legend(tmp_path):
    svg = picture(tmp_path, FIT, "A title_with $signs$").decode()
    for text in ("A title_with $signs$", "train_X", "train_Y", "Y_bar"):
        assert f"<!-- {text} -->" in svg
    svg = picture(tmp_path, FIT[:1]).decode()
    assert "<!-- train_Y -->" in svg and "legend" not in svg


def test_pyplot_and_settings_are_left_alone(tmp_path):
    import matplotlib
    before, loaded = matplotlib.rcParams.copy(), set(sys.modules)      # reading the backend's name imports pyplot
    picture(tmp_path, FIT)
    assert "matplotlib.pyplot" not in set(sys.modules) - loaded and matplotlib.rcParams.copy() == before


@pytest.mark.parametrize("marks", [
    [Scatter([], [])], [Line([], [])], [Hist([])], [Heatmap(np.zeros((0, 3)))], [Scatter(BAD, BAD)], [Line(BAD, BAD)],
    [Hist(BAD)], [Hist([np.nan])], [Heatmap(BAD.reshape(2, 2))], [Heatmap(np.full((2, 2), np.nan))], [Scatter(1, 2)],
    [Line([1], [2])], [Scatter(X[:, None], X[None])], [Hist([1e300, -1e300, 0])], [Hist([1, 1, 1], bins=3)],
    [Hist([True, False, True], label="b", x_name="b"), Hist(X, label="x")], [Heatmap(np.eye(3), z_name="W")],
    [Heatmap(np.zeros((2, 50)))], [Scatter(np.arange(3), np.array([1, 2, 3], np.float32), label="_x"), Line(X, X)],
    [Line([1e308, -1e308], [1e308, -1e308])], [Scatter(X, X, y_name="漢字")],
])
@pytest.mark.parametrize("where", ["p.png", "p.svg", None])
def test_every_mark_draws(tmp_path, marks, where):
    if where is None:
        for terminal in TERMINALS:
            stream = io.StringIO()
            assert draw(marks, "Title", stream=stream, terminal=terminal) is None
            lines = stream.getvalue().splitlines()
            assert len(lines) > 1 and max(map(cells, lines)) <= max(terminal.columns - 1, 24)
            assert terminal.unicode or stream.getvalue().isascii()
    else:
        assert len(picture(tmp_path, marks, "Title", where)) > 500


def test_large_plots_stay_small(tmp_path):
    many = np.linspace(0, 1, 50_000)
    assert len(picture(tmp_path, [Scatter(many, many)])) < 400_000


@pytest.mark.parametrize(("marks", "message"), [
    ([Scatter(X, X[:-1], x_name="A", y_name="B")], "`scatter` needs x and y of one length: A has 21, B has 20"),
    ([Line(X, X[:5])], "`line` needs x and y of one length: x has 21, y has 5"),
    ([Scatter(np.eye(3), X, x_name="A")], "A has 2 axes [3, 3], and scatter's x needs one"),
    ([Heatmap(X, z_name="v")], "`heatmap` needs a matrix: v has 1 axis [21]"),
    ([Hist(np.array(["a"], object), x_name="t")], "t is text, and only numbers can be drawn"),
    ([Hist(X, bins=0)], "`hist` needs at least 1 bin, not 0"), ([], "there is nothing to plot")])
def test_what_cannot_be_drawn(marks, message):
    error = wrong(marks)
    assert error.code == "E0611" and error.message == message


def test_files_that_cannot_be_written(tmp_path):
    error = wrong(FIT, path="p.gif")
    assert error.code == "E0608" and ".png and .svg can be written" in error.hint
    error = wrong(FIT)
    assert error.code == "E0609" and isinstance(error, FileTrouble)


def test_missing_packages(tmp_path, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    error = wrong(FIT, path="p.png", out_dir=tmp_path)
    assert error.code == "E0607" and "matplotlib" in error.message and error.hint == 'pip install "lr-lang[plot]"'
    draw(FIT, stream=(out := io.StringIO()))
    assert "Y_bar" in out.getvalue()


def test_on_a_terminal_that_knows_no_blocks():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "ascii")
    draw(FIT, "Fit", stream=stream)
    stream.flush()
    assert raw.getvalue().startswith(b"Fit\n* train_Y   ++ Y_bar\n")


TINY = np.array([0, 5e-324, 1e-323])
STRANGE = {
    "numbers too close": [Line(TINY, TINY)], "the same in bins": [Hist(TINY)], "three bins of them": [Hist(TINY, 3)],
    "one very small number": [Scatter(TINY[1:2], TINY[1:2])], "bins between neighbours": [Hist(1 + np.arange(3) * 2.3e-16, 50)],
    "a name that is too long": [Heatmap(np.arange(6.0).reshape(2, 3), z_name="z" * 99)],
    "no values": [Heatmap(np.full((2, 2), np.nan), z_name="z" * 99)], "a small matrix": [Heatmap(np.full((2, 2), 5e-324))],
}  # fmt: skip


@pytest.mark.parametrize("columns", [1, 40, 80, 1000])
@pytest.mark.parametrize("marks", STRANGE.values(), ids=STRANGE)
def test_strange_numbers_and_narrow_terminals(marks, columns):
    out = io.StringIO()
    draw(marks, "a\x1b[31m", stream=out, terminal=Terminal(columns, 20, BASIC))
    lines = re.sub(r"\x1b\[[\d;]*m", "", out.getvalue()).splitlines()
    assert lines[0].startswith("a␛[31m"[:columns - 1]) and "\x1b" not in "".join(lines)
    assert columns < 40 or max(map(cells, lines)) <= columns


def test_no_title_on_the_terminal():
    out = io.StringIO()
    dsl.compile("plot line([1.0, 2.0], [1.0, 2.0])", stdout=out).run()
    assert "┤" in out.getvalue() and "None" not in out.getvalue()


# ---------------------------------------------------------------- what is drawn on a terminal
def terminal_text(marks, title="", **options):
    stream = io.StringIO()
    draw(marks, title, stream=stream, terminal=Terminal(**options))
    return stream.getvalue()


def screen(text, columns, lines=40):
    """What a terminal shows of it, and the colours of its letters."""
    pyte = pytest.importorskip("pyte")
    shown = pyte.Screen(columns, lines)
    pyte.Stream(shown).feed(text.replace("\n", "\r\n"))
    return shown


def dots(letter):
    """The places of the dots of a Braille letter: (column, row), from the left and from above."""
    order = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3)]         # dots 1 to 8 of Unicode's chart
    return {place for bit, place in enumerate(order) if (ord(letter) - 0x2800) >> bit & 1}


@pytest.mark.parametrize("columns", [80, 40])
@pytest.mark.parametrize("unicode", [True, False])
def test_captures(golden, columns, unicode):
    """Looked at when they were made."""
    noise = np.sin(1000 * X)
    waves = [Line(X, np.sin(3 * X + k), x_name="t", y_name=f"wave {k}") for k in range(3)]
    text = ""
    for title, marks in (("A line through points", [Scatter(X, 2 * X + 1 + 0.4 * noise, x_name="x", y_name="y"), *FIT[1:]]),
                         ("Three waves", waves), ("Two histograms", [Hist(noise, 8, x_name="noise"), Hist(X, 4, x_name="X")]),
                         ("A matrix", [Heatmap(np.outer(X, X), z_name="W")])):
        text += terminal_text(marks, title, columns=columns, lines=20, unicode=unicode) + "\n"
    golden(f"plots_{columns}{'' if unicode else '_ascii'}.txt", text)


def test_a_line_is_where_it_should_be():
    """Every dot of a rising line of slope 1 lies on it, in a square of dots."""
    canvas = Canvas(8, 4, Terminal())
    canvas.line(np.array([0.0, 1.0]), np.array([0.0, 1.0]), 0)
    found = {(2 * column + dx, 4 * row + dy) for row, line in enumerate(canvas.text()) for column, letter in enumerate(line)
             if letter != " " for dx, dy in dots(letter)}
    assert found == {(k, 15 - k) for k in range(16)}


def test_a_nan_breaks_a_line():
    whole, broken = X ** 2, np.where(abs(X) < 0.3, np.nan, X ** 2)
    rows = [sum(dots_in(line) for line in terminal_text([Line(X, y)], columns=60).splitlines()) for y in (whole, broken)]
    assert 0 < rows[1] < rows[0]


def dots_in(line):
    return sum("\u2800" < letter <= "\u28ff" for letter in line)


def test_bars_are_as_high_as_numpy_counts():
    values = np.random.default_rng(0).standard_normal(500)
    counts, _ = np.histogram(values, 6)
    shown = screen(terminal_text([Hist(values, 6)], columns=63, lines=28), 63)
    rows = [line for line in shown.display if "┤" in line or "│" in line]
    bars = [line.replace("┤", "│").split("│")[1] for line in rows]
    heights = [sum(bar[i] != " " for bar in bars) for i in range(len(bars[0]))]
    middle = [heights[int((k + 0.5) / 6 * len(heights) - 0.5)] for k in range(6)]
    assert all(abs(m - len(rows) * c / counts.max()) <= 1 for m, c in zip(middle, counts, strict=True))


def test_shades_follow_the_values():
    lines = terminal_text([Heatmap([[0.0, 1.0], [0.5, np.nan]])], columns=30, lines=16).splitlines()
    body = [line[2:] for line in lines[:-2]]
    assert body[0].startswith(" ") and body[0].endswith("█") and body[-1].startswith("▒") and body[-1].endswith("?")
    assert lines[-1].endswith("0 [ ░▒▓█] 1  1 nan")


def test_heatmap_colours():
    text = terminal_text([Heatmap([[0.0], [1.0]])], columns=30, colors=1 << 24)
    drawn = [screen(text, 30).buffer[y][2] for y in range(8)]
    assert drawn[0].fg == drawn[0].bg == "440154" and drawn[7].fg == drawn[7].bg == "fde725"


def test_colours_of_the_legend_are_those_of_the_curves():
    shown = screen(terminal_text([Line(X, X, y_name="up"), Line(X, -X, y_name="down")], columns=60, colors=256), 60)
    legend = {shown.buffer[0][x].fg for x in range(20)} - {"default"}
    drawn = {shown.buffer[y][x].fg for y in range(1, 17) for x in range(60) if shown.buffer[y][x].data > "\u2800"} - {"default"}
    assert len(legend) == 2 and drawn == legend


@pytest.mark.parametrize(("values", "texts"), [
    ([0.0, 0.5, 1.0], "0.0 0.5 1.0"), ([-1.0, 0.0, 1.0], "-1 0 1"), ([0.25, 0.5], "0.25 0.50"), ([0.0, 1e6, 2e6], "0 1e6 2e6"),
    ([1e-9, 1.5e-9], "1.0e-9 1.5e-9"), ([1e6, 1e6 + 0.5], "1000000.0 1000000.5"), ([], "")])
def test_numbers_at_axes(values, texts):
    assert " ".join(number_texts(values)) == texts


def test_numbers_at_a_logarithmic_axis():
    axis = Axis(1e-3, 20.0, log=True)
    assert axis.labels(axis.ticks(3)) == ["0.001", "0.1", "10"] and axis.labels(axis.ticks(9)) == ["0.001", "0.01", "0.1", "1", "10"]
    assert Axis(1e-9, 1e9, log=True).labels([1e-9, 1.0, 1e9]) == ["1e-9", "1", "1e9"]


@pytest.mark.parametrize("log", [True, False])
def test_ticks_are_round_and_inside(log):
    random = np.random.default_rng(3)
    for _ in range(300):
        low = 10 ** random.uniform(-12, 12)
        high = low * 10 ** random.uniform(0.01, 8)
        axis, most = Axis(low, high, log), int(random.integers(2, 9))
        ticks = axis.ticks(most)
        assert 1 <= len(ticks) <= most + 2 and ticks == sorted(ticks)
        assert all(low * (1 - 1e-6) <= tick <= high * (1 + 1e-6) for tick in ticks)
        assert len(set(axis.labels(ticks))) == len(ticks)


def test_the_stream_says_how_wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    out = io.StringIO()
    draw(FIT, stream=out)
    assert 45 <= max(map(len, out.getvalue().splitlines())) <= 49
