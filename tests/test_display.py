"""How values are shown in a terminal: figures as NumPy has them, corners as the whole array would print, widths that are kept."""

import io
import random
import re
import shutil
import tracemalloc
import warnings

import numpy as np
import pytest

import dsl
from dsl.backends.cuda.memory import Memory, kept
from dsl.errors import Source
from dsl.repl.display import show_formula, show_formulas, show_value, vars_table
from dsl.runtime.printing import format_array, format_value
from dsl.runtime.statistics import Statistics, statistics
from dsl.runtime.summary import Summary, TableSummary, resolved, summarize
from dsl.runtime.terminal import cells, clipped
from dsl.syntax.values import LoadedTable
from tests import stand_in_cupy
from tests.needs import needs

SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e308, -1e308, 5e-324]
DTYPES = ["float64", "float32", "float16", "int64", "int32", "uint8", "bool", ">f8"]


def expected(array):
    """The same figures from NumPy's own functions."""
    if array.dtype == bool:
        return Statistics(bool(array.all()), array.mean(), bool(array.any()), true=int(array.sum())) if array.size else Statistics(true=0)
    finite = array[np.isfinite(array)].astype(array.dtype.newbyteorder("="))
    nan, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
    if not finite.size:
        return Statistics(nan=nan, infinite=infinite)
    mean = float((finite.astype(np.longdouble) / finite.size).sum())
    return Statistics(finite.min().item(), mean, finite.max().item(), nan, infinite)


def assert_same(found, wanted, what):
    assert (found.least, found.largest, found.nan, found.infinite, found.true) == \
        (wanted.least, wanted.largest, wanted.nan, wanted.infinite, wanted.true), what
    if wanted.mean is None:
        assert found.mean is None
    else:
        assert abs(found.mean - wanted.mean) <= 1e-12 * max(abs(wanted.least), abs(wanted.largest)), what


def arrays(seed, dtypes=DTYPES, most=40_000):
    """Random arrays in every layout, some with special values in them."""
    rng = np.random.default_rng(seed)
    for dtype in dtypes:
        for shape in [(), (0,), (1,), (7,), (int(rng.integers(2, most)),), (23, 61), (0, 3), (2, 3, 4), (40, 1, 9)]:
            with np.errstate(all="ignore"):
                array = np.asarray(rng.standard_normal(shape) * 100).astype(dtype)
            if array.dtype.kind == "f" and array.size > 5:
                with np.errstate(over="ignore"):
                    array.flat[rng.integers(0, array.size, 4)] = rng.choice(SPECIAL, 4)
            yield array
            if array.ndim > 1:
                yield from (array.T, array[::-1], array[..., ::2], np.asfortranarray(array), np.broadcast_to(array[:1], array.shape))


# ---------------------------------------------------------------- figures
@pytest.mark.parametrize("seed", range(3))
def test_figures_are_those_of_numpy(seed):
    for array in arrays(seed):
        assert_same(statistics(array), expected(array), (array.dtype, array.shape, array.strides))


@pytest.mark.parametrize("values", [[1.7e308] * 9, [-1.7e308, 1.7e308] * 4, [1.7e308, np.inf, np.nan, 1.7e308], [5e-324] * 3, [np.nan],
                                    [np.inf, -np.inf]])
def test_a_mean_does_not_overflow(values):
    assert_same(statistics(np.array(values * 9000)), expected(np.array(values * 9000)), values)


def test_large_integers_are_exact():
    found = statistics(np.array([2 ** 63 - 1, -2 ** 63, 2 ** 53 + 1]))
    assert (found.least, found.largest) == (-2 ** 63, 2 ** 63 - 1)


def test_a_large_array_is_not_copied():
    array = np.full(3_000_000, 2.5)
    array[5] = np.nan
    for view in (array, array[::-1], array.reshape(1500, 2000).T):
        tracemalloc.start()
        summarize(view)
        assert tracemalloc.get_traced_memory()[1] < array.nbytes / 10
        tracemalloc.stop()


def test_text_has_no_figures():
    found = summarize(np.array(["b", "a", "b"], object))
    assert found.statistics is None and found.distinct == 2 and found.dtype == "text"


# ---------------------------------------------------------------- corners
@pytest.mark.parametrize("shape", [(5,), (20,), (21,), (7, 20), (7, 21), (100, 3), (6, 6, 30), (2, 8, 1, 25), (0, 40), (21, 0)])
@pytest.mark.parametrize("dtype", ["float64", "int64", "bool", "float32"])
def test_a_corner_prints_as_the_whole(shape, dtype):
    array = (np.random.default_rng(1).standard_normal(shape) * 3).astype(dtype)
    found = summarize(array)
    assert found.corner.size <= 20 ** len(shape) and found.shape == shape
    if array.size:
        assert format_array(found.corner, 8, 75, found.edge, bool(found.cut)) == format_value(array)


def test_a_summary_is_not_the_array():
    array = np.arange(4.0)
    found = summarize(array)
    array[0] = 9
    assert found.corner[0] == 0 and summarize(found) is found


# ---------------------------------------------------------------- on a GPU
@pytest.fixture
def gpu():
    needs(shutil.which("g++"), "g++")
    with stand_in_cupy.installed() as found:
        yield found


def test_figures_of_a_gpu_are_computed_there(gpu):
    from dsl.backends.cuda.device import CupyLauncher
    launcher = CupyLauncher()
    for array in arrays(5, ["float32", "int64", "bool"], 3000):
        if array.ndim and array.flags.c_contiguous:
            memory, before = kept(launcher, array), gpu.copied("down")
            found, here = summarize(memory), summarize(array)
            fetched = gpu.copied("down") - before
            assert_same(found.statistics, here.statistics, (array.dtype, array.shape))
            assert np.array_equal(found.corner, here.corner, equal_nan=array.dtype.kind == "f") and found.device == "cuda:0"
            assert fetched <= here.corner.nbytes + 168, "six figures, in one copy with where arrays are and the marks of a launch"
    big = kept(launcher, np.tile(np.array([1.7e308, np.nan]), 50))
    assert statistics(big) == Statistics(1.7e308, 1.7e308, 1.7e308, 50, 0)


def test_a_value_of_a_session_on_a_gpu(gpu):
    session = dsl.Session(device="cuda", stdout=io.StringIO(), stderr=io.StringIO())
    session.load(Source("a.lr", "data A = linspace(-1, 1, 300)[:, None] + [0.0, 0.5]\nlet B = 2 * A\ndata t = 1.0"))
    value = resolved(session.elaborator.scope["B"].value, session.array)
    assert isinstance(value, Memory)
    text = show_value("B", value)
    assert text.startswith("float64 [300, 2] · cuda:0 · 4.7 KiB · min -2.0 mean 0.5 max 3.0\n[[-2. ")
    assert "B        let   float64[300, 2]" not in vars_table(session) and "float64[300, 2]" in vars_table(session)


# ---------------------------------------------------------------- values
@pytest.mark.parametrize(("value", "text"), [
    (np.float64(6), "6.0"), (np.float32(0.1), "0.1"), (np.bool_(True), "true"), (3, "3"), (np.array(2.5), "2.5"), ((1.0, 2), "(1.0, 2)"),
    ((1.0,), "(1.0,)"), ("text", "text"), (np.nan, "nan"),
    (np.zeros((0, 3)), "float64 [0, 3] · cpu · 0 bytes · empty"),
    (np.ones(2), "float64 [2] · cpu · 16 bytes · all 1.0\n[1. 1.]"),
    (np.arange(3), "int64 [3] · cpu · 24 bytes · min 0 mean 1.0 max 2\n[0 1 2]"),
    (np.array([True, False]), "bool [2] · cpu · 2 bytes · 1 of 2 true\n[ true false]"),
    (np.array([np.nan, np.inf]), "float64 [2] · cpu · 16 bytes · 1 nan · 1 inf\n[nan inf]"),
    (np.array(["a", "b"], object), "text [2] · cpu · 2 bytes · 2 different\n[a b]"),
    (np.linspace(-1, 1, 101), "float64 [101] · cpu · 808 bytes · min -1.0 mean 0.0 max 1.0\n[-1.   -0.98 -0.96 ...  0.96  0.98  1.  ]")])
def test_values(value, text):
    assert show_value("x", value) == text


def plain(text):
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def test_colours():
    array = np.array([1.0, np.nan])
    text = show_value("x", array, colored=True)
    assert plain(text) == show_value("x", array)
    assert "\x1b[31m1 nan\x1b[0m" in text and "[ 1. \x1b[31mnan\x1b[0m]" in text and text.startswith("\x1b[2mfloat64")
    assert "\x1b" not in show_value("x", array)


def samples():
    rng = np.random.default_rng(0)
    texts = np.array(["ja", "nein", "e\u0301te\u0301", "日本語のテキスト", "a much longer text than a cell has room for"] * 6, object)
    table = LoadedTable({"age": np.arange(30), "answer": texts, "weight": np.where(np.arange(30) == 2, np.nan, rng.standard_normal(30)),
                         "a_name_that_is_really_long_for_a_column": np.arange(30) % 2 == 0, "large": 10.0 ** np.arange(30)}, 30)
    few = LoadedTable({"x": np.array([1.5, 20.25]), "名前": np.array(["ä", "b"], object)}, 2)
    many = LoadedTable({f"column_{k}": np.arange(3) * k for k in range(30)}, 3)
    holes = rng.standard_normal((40, 30)).astype("f4")
    holes[1, 1], holes[2, 2:4] = np.nan, np.inf
    return {"t": table, "few": few, "many": many, "none": LoadedTable({}, 0), "empty": LoadedTable({"a": np.zeros(0)}, 0), "holes": holes,
            "pair": (np.arange(30), 2.0, np.array([True]))}


@pytest.mark.parametrize("width", [80, 40])
def test_captures(golden, width):
    """Looked at when they were made."""
    golden(f"values_{width}.txt", "\n\n".join(show_value(name, value, width=width, digits=4) for name, value in samples().items()) + "\n")


@pytest.mark.parametrize("width", [20, 33, 60, 120])
@pytest.mark.parametrize("unicode", [True, False])
def test_tables_and_headers_fit(width, unicode):
    for name, value in samples().items():
        text = show_value(name, value, width=width, colored=True, unicode=unicode)
        rows = plain(text).splitlines()
        assert max(map(cells, rows)) <= width, name
        assert unicode or all(row.isascii() for row in rows if not set(row) & set("\u0301ä日名"))


def test_points_stand_under_each_other():
    lines = show_value("few", samples()["few"]).splitlines()
    assert [line.index(".") for line in lines[3:]] == [lines[3].index(".")] * 2


def test_a_table_of_a_session(tmp_path):
    (tmp_path / "t.csv").write_text("age,sex\n" + "\n".join(f"{k},{'mf'[k % 2]}" for k in range(12)) + "\n")
    session = dsl.Session(base=tmp_path)
    session.load(Source("a.lr", 'data t = csv("t.csv")\ndata s = t.sex\ndata A = t[:, :1]'))
    value = resolved(session.elaborator.scope["t"].value, session.array)
    found = summarize(value)
    assert isinstance(found, TableSummary) and found.rows == 12
    lines = show_value("t", value).splitlines()
    assert lines[0].startswith("table t · 12 rows · 2 columns") and lines[1].split() == ["age", "sex"]
    assert [line.split()[0] for line in lines[3:]] == ["0", "1", "2", "3", "4", "…", "7", "8", "9", "10", "11"]
    assert lines[-1].split() == ["11", "11", "f"]


# ---------------------------------------------------------------- names
SCRIPT = """
dim k = 2
data A = linspace(0, 1, 200)
data few = [1.0, 2.0]
matrix X[n, d]
shared w[d] = 0.0, b = 1.5
let h = tanh(X @ w + b)
cost C = mean(sqr(h))
def f(x) = x * k
let pair = (C, b)
"""


def test_names(golden):
    session = dsl.Session(interactive=True)
    assert vars_table(session) == "nothing is bound yet"
    session.load(Source("a.lr", SCRIPT))
    golden("names.txt", vars_table(session) + "\n\n" + vars_table(session, width=40, unicode=False) + "\n")
    assert plain(vars_table(session, colored=True)) == vars_table(session)
    for width in (20, 40, 59, 60, 100):
        assert max(map(cells, vars_table(session, width=width).splitlines())) <= width


# ---------------------------------------------------------------- formulas
def formula(rng, depth):
    if depth == 0:
        return rng.choice(["x", "w", "train_X", "0.25", "1e-05", "Y_bar", "λ", "X[:, 0]"])
    a, b, c = (formula(rng, rng.randrange(depth)) for _ in range(3))
    return rng.choice([f"({a} + {b})", f"({a} * {b})", f"(-{a})", f"exp({a})", f"where(({a} > {b}), {b}, {c})", f"sum({a}, axis = 0)",
                       f"{a}.T", f"({a} @ {b})", f"scan(v = {a} for t in {b}: (v + {c}))"])


@pytest.mark.parametrize("width", [30, 60, 100])
def test_broken_formulas_keep_every_letter(width):
    rng = random.Random(7)
    for _ in range(150):
        text = formula(rng, rng.randrange(9))
        shown = show_formula(text, start="C = ", width=width)
        assert re.sub(r"\s", "", shown) == re.sub(r"\s", "", "C = " + text)
        assert "\n" not in shown or cells("C = " + text) > width
        for line in shown.splitlines():
            assert cells(line) <= width or len(line.split()) <= 3, line            # what has no blank is not broken


def test_a_broken_formula():
    text = "(mean(((y * log(p)) + ((1 - y) * log((1 - p))))) + (0.01 * sum(sqr(w))))"
    assert show_formula(text, start="C = ", width=50) == (
        "C = (mean(((y * log(p))\n"
        "           + ((1 - y) * log((1 - p)))))\n"
        "     + (0.01 * sum(sqr(w))))")
    assert show_formula(text, start="C = ") == "C = " + text


def test_only_lines_that_are_too_long_are_broken():
    text = "let h = x\nd C / d w : float64 = (alpha * (beta + gamma))\n"
    assert show_formulas(text) == text
    assert show_formulas(text, width=40) == "let h = x\nd C / d w : float64 =\n    (alpha * (beta + gamma))\n"


def test_a_formula_that_was_cut_off_is_broken_too():
    text = "(" * 40 + "a_long_name + another_name) * " * 3 + "…"
    assert re.sub(r"\s", "", show_formula(text, width=40)) == re.sub(r"\s", "", text)


# ---------------------------------------------------------------- widths
def test_widths_are_those_of_wcwidth():
    wcwidth = pytest.importorskip("wcwidth")
    for text in ["abc", "漢字", "e\u0301", "한국어", "ｆｕｌｌ", "Ωλ", "│┤⣿█▁", "🙂", "a\u200bb", "ไทย", "שלום"]:
        assert cells(text) == sum(max(wcwidth.wcwidth(c), 0) for c in text), text
    assert cells("\x1b[31mred\x1b[0m") == 3


def test_clipped_text_is_never_wider():
    for text in ("漢字漢字漢字", "abcdefgh", "e\u0301" * 9):
        for width in range(12):
            assert cells(clipped(text, width)) <= width
            assert clipped(text, width) == text or "…" in clipped(text, width) or not width


def test_nothing_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value in (np.array(SPECIAL), np.array([np.nan, -np.inf], "f4"), np.array([1 << 62] * 3)):
            assert isinstance(summarize(value), Summary) and show_value("x", value)
