"""Plots: files with the same bytes each time, marks of every kind, and what is said when something cannot be drawn."""
from __future__ import annotations

import io
import sys

import numpy as np
import pytest

import dsl
from dsl.errors import FileTrouble, LrError
from dsl.runtime.plots import Heatmap, Hist, Line, Scatter, draw

pytest.importorskip("matplotlib")
X = np.linspace(-1, 1, 21)
FIT = [Scatter(X, 2 * X + 1, x_name="train_X", y_name="train_Y"), Line(X, 2 * X, x_name="train_X", y_name="Y_bar")]
BAD = np.array([1.0, np.nan, np.inf, -np.inf])


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
        pytest.importorskip("uniplot")
        stream = io.StringIO()
        assert draw(marks, "Title", stream=stream) is None
        assert stream.getvalue().strip()
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
    for name in ("matplotlib", "matplotlib.figure", "uniplot"):
        monkeypatch.setitem(sys.modules, name, None)
    for path, package in (("p.png", "matplotlib"), (None, "uniplot")):
        error = wrong(FIT, path=path, out_dir=tmp_path)
        assert error.code == "E0607" and package in error.message and error.hint == 'pip install "lr-lang[plot]"'


def test_on_a_terminal_that_knows_no_blocks():
    pytest.importorskip("uniplot")
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "ascii")
    draw(FIT, "Fit", stream=stream)
    stream.flush()
    assert b"Fit" in raw.getvalue()
    draw([Hist(X, x_name="x")], stream=(text := io.StringIO()))
    assert text.getvalue().startswith("x\n") and "█" in text.getvalue()


def test_no_title_on_the_terminal():
    out = io.StringIO()
    dsl.compile("plot line([1.0, 2.0], [1.0, 2.0])", stdout=out).run()
    assert "┌" in out.getvalue() and "None" not in out.getvalue()
