"""The Python interface: models, values, callables, training, and errors that are always an `LrError`."""

from __future__ import annotations

import ast
import io
import math
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import dsl
from dsl.errors import FileTrouble

LINE = """seed 3
data x = linspace(-1, 1, 11)
data y = 2 * x + 1 + 0.33 * normal(11)
scalar X, Y
shared w = 0.0, b = 0.0
model Y_bar = X * w + b
cost C = mean(sqr(Y_bar - Y))
grad gw, gb = C wrt w, b
update w <- w - 0.1 * gw
update b <- b - 0.1 * gb
"""
LOGISTIC = """
dim k = 2
matrix A[n, d]
int vector u[n]
shared W[d, k] = 0.0
let z = A @ W
cost C = mean(xent(z, u))
minimize C wrt all using sgd(rate = 0.5)
"""


@pytest.fixture
def model():
    return dsl.compile(LINE)


def fault(action, code=None) -> dsl.LrError:
    with pytest.raises(dsl.LrError) as caught:
        action()
    found = caught.value
    assert found.message and found.code.startswith("E") and found.code != "E0999"
    assert code is None or found.code == code, found
    return found


# ---------------------------------------------------------------- load, compile, run
def test_compile_evaluates_data_but_runs_nothing(capsys):
    m = dsl.compile(LINE + "train 5 epochs over X = x, Y = y\nprint w")
    assert m["w"] == 0.0 and m["x"].shape == (11,)
    assert capsys.readouterr().out == ""
    m.run()
    assert m["w"] != 0.0 and capsys.readouterr().out == f"{m['w']}\n"


def test_load_and_run(tmp_path, capsys):
    path = tmp_path / "a.lr"
    (tmp_path / "numbers.csv").write_text("v\n1\n2\n")
    path.write_text('data t = csv("numbers.csv")\nprint sum(t.v)\nsave t.v to "v.csv"\n')
    for given in (path, str(path)):
        m = dsl.load(given, out=tmp_path / "out")
        assert m["t"] if False else "t" in m
        m.run()
    assert dsl.run(path, out=tmp_path / "out2").session is not None
    assert capsys.readouterr().out == "3\n" * 3
    assert (tmp_path / "out" / "v.csv").exists() and (tmp_path / "out2" / "v.csv").exists()


def test_missing_files(tmp_path):
    assert isinstance(fault(lambda: dsl.load(tmp_path / "none.lr"), "E0601"), FileTrouble)
    assert isinstance(fault(lambda: dsl.load(tmp_path)), FileTrouble)
    assert isinstance(fault(lambda: dsl.compile('data t = csv("none.csv")'), "E0601"), FileTrouble)
    (tmp_path / "latin.lr").write_bytes("# é\n".encode("latin-1"))
    assert isinstance(fault(lambda: dsl.load(tmp_path / "latin.lr")), FileTrouble)


def test_error_attributes():
    found = fault(lambda: dsl.compile("let alpha = 1\nlet b = alpa + 1", path="some.lr"), "E0301")
    assert (found.file, found.line, found.column) == ("some.lr", 2, 9)
    assert "did you mean" in (found.hint or "") or found.diagnostic.labels
    assert "some.lr:2:9" in str(found) and found.diagnostics == (found.diagnostic,)


def test_every_error_at_once():
    found = fault(lambda: dsl.compile("let b = aa\nlet c = dd"))
    assert [d.span.line for d in found.diagnostics] == [1, 2]


def test_set(model):
    m = dsl.compile("let rate = 0.1\ndim k = 3\nlet r2 = rate * 2\nshared v[k] = 0.0", set={"rate": 0.25, "k": 5})
    assert m["r2"] == 0.5 and m["v"].shape == (5,)
    assert dsl.compile("let rate = 0.1", set={"rate": np.float64(0.5)})["rate"] == 0.5
    assert "rate" in fault(lambda: dsl.compile("let rate = 0.1", set={"rat": 1})).message + str(
        fault(lambda: dsl.compile("let rate = 0.1", set={"rat": 1})).hint
    )


@pytest.mark.parametrize("value", ["x y", "", None, [1], "1;2", object()])
def test_set_of_nonsense(value):
    fault(lambda: dsl.compile("let rate = 0.1", set={"rate": value}))


def test_precision_and_seed_override_the_header():
    text = "precision float64\nseed 1\ndata z = normal(3)\n"
    assert dsl.compile(text, precision="float32")["z"].dtype == np.float32
    assert not np.array_equal(dsl.compile(text, seed=2)["z"], dsl.compile(text)["z"])
    assert np.array_equal(dsl.compile(text, seed=2)["z"], dsl.compile(text.replace("seed 1", "seed 2"))["z"])
    for device in ("auto", "cpu", "numpy"):
        assert dsl.compile(text, device=device)["z"].shape == (3,)


@pytest.mark.parametrize(
    "options",
    [{"precision": "float16"}, {"device": "tpu"}, {"seed": -1}, {"seed": "a"}, {"seed": 1.5},
     pytest.param({"device": "cuda"}, marks=pytest.mark.on_the_cpu), {"precision": 64}],
)
def test_wrong_options(options):
    fault(lambda: dsl.compile("let a = 1", **options))


def test_data_replaces_the_scripts_data():
    text = 'data a = csv("none.csv")\n' if False else "data a = linspace(0, 1, 3)\ndata b = 2 * a\n"
    m = dsl.compile(text, data={"a": [5, 6, 7, 8]})
    assert m["a"].tolist() == [5.0, 6.0, 7.0, 8.0] and m["b"].tolist() == [10.0, 12.0, 14.0, 16.0]


@pytest.mark.parametrize("value", [["a", "b"], [object()], [1j], "text", {"a": 1}, [[1, 2], [3]]])
def test_data_of_nonsense(value):
    fault(lambda: dsl.compile("data a = zeros(3)", data={"a": value}))


def test_data_for_no_name():
    fault(lambda: dsl.compile("data a = zeros(3)", data={"aa": [1]}))


# ---------------------------------------------------------------- reading and setting
def test_reading_gives_copies(model):
    w = model["w"]
    assert isinstance(w, np.ndarray) and w.shape == () and w.dtype == np.float64
    x = model["x"]
    x[0] = 99
    assert model["x"][0] == -1
    w[...] = 7
    assert model["w"] == 0.0


def test_reading_what_needs_an_input(model):
    found = fault(lambda: model["Y_bar"])
    assert "X" in found.message
    fault(lambda: model["gw"])
    fault(lambda: model["nothing"], "E0301")
    assert "did you mean" in (fault(lambda: model["Y_bra"]).hint or "")


@pytest.mark.parametrize("key", [3, None, ("w",), 1.5, b"w", [1]])
def test_strange_names(model, key):
    fault(lambda: model[key])
    fault(lambda: model.__setitem__(key, 1))
    assert key not in model


def test_reading_other_things():
    m = dsl.compile("def f(x) = x + 1\nlet p, q = (1.0, 2.0)\nlet b = 1 < 2\nlet i = [1, 2]\ndim k = 4\ndata c = [true, false]\n")
    assert m["p"] == 1.0 and m["b"].dtype == bool and m["i"].dtype == np.int64 and m["k"] == 4 and m["c"].tolist() == [True, False]
    fault(lambda: m["f"], "E0903")


def test_setting(model):
    model["w"] = 2
    assert model["w"] == 2.0 and model["w"].dtype == np.float64
    given = np.array([1.0, 2.0])
    m = dsl.compile("shared v[n] = [0.0, 0.0]")
    m["v"] = given
    given[0] = 9
    assert m["v"].tolist() == [1.0, 2.0]
    m["v"] = (3, 4)
    assert m["v"].tolist() == [3.0, 4.0]
    model["w"] = math.nan
    assert np.isnan(model["w"])


@pytest.mark.parametrize("value", ["a", None, [1, 2], [[1]], object(), 1j, {}, "1", [1, [2]], b"1", np.datetime64("2020-01-01")])
def test_setting_nonsense(model, value):
    fault(lambda: model.__setitem__("w", value))
    assert model["w"] == 0.0


@pytest.mark.parametrize("name", ["x", "Y_bar", "X", "nothing", "C"])
def test_setting_what_is_not_shared(model, name):
    fault(lambda: model.__setitem__(name, 1.0))


def test_setting_int_and_bool_state():
    m = dsl.compile("shared int n = 3\nshared bool f = false")
    m["n"] = 4.0
    m["f"] = True
    assert m["n"] == 4 and m["n"].dtype == np.int64 and bool(m["f"])
    fault(lambda: m.__setitem__("n", 4.5), "E0203")
    fault(lambda: m.__setitem__("n", math.nan), "E0203")
    fault(lambda: m.__setitem__("n", 2**70))


def test_model_dims():
    m = dsl.compile(LOGISTIC)
    assert "d" in fault(lambda: m["W"], "E0214").message
    m["W"] = np.ones((3, 2))
    assert m["W"].shape == (3, 2)
    fault(lambda: m.__setitem__("W", np.ones((4, 2))))
    fault(lambda: m.eval("z", A=np.ones((5, 4))))
    assert m.eval("z", A=np.ones((5, 3))).shape == (5, 2)


def test_a_failed_binding_fixes_nothing():
    m = dsl.compile(LOGISTIC)
    fault(lambda: m.train(epochs=1, A=np.ones((5, 3)), u=[0, 1]))
    fault(lambda: m.step(A=np.ones((5, 7)), u=[0, 1]))
    fault(lambda: m.eval("C", A=np.ones((5, 8)), u=[0, 1]))
    m.train(epochs=1, A=np.ones((5, 4)), u=[0, 1, 0, 1, 0])
    assert m["W"].shape == (4, 2)


# ---------------------------------------------------------------- train
def test_train_equals_the_statement():
    for words, options in [
        ("20 epochs", {"epochs": 20}),
        ("7 epochs", {"epochs": 7, "batch": 4}),
        ("7 epochs", {"epochs": 7, "batch": 4, "drop_last": True}),
        ("30 steps", {"steps": 30}),
        ("30 steps", {"steps": 30, "batch": 3}),
        ("5 epochs", {"epochs": 5, "shuffle": True}),
        ("5 epochs", {"epochs": 5, "shuffle": True, "batch": 4}),
    ]:
        extra = (
            (f" batch {options['batch']}" if "batch" in options else "")
            + (" drop_last" if "drop_last" in options else "")
            + (" shuffle" if "shuffle" in options else "")
        )
        statement = dsl.compile(LINE + f"train {words} over X = x, Y = y{extra}")
        statement.run()
        m = dsl.compile(LINE)
        found = m.train(X=m["x"], Y=m["y"], **options)
        assert (m["w"], m["b"]) == (statement["w"], statement["b"])
        there = statement.session.reports[0]
        assert (found.cost, found.steps, found.epochs) == (there.cost, there.steps, there.epochs)


def test_train_words(model):
    found = model.train(epochs=50, data={"X": model["x"], "Y": model["y"]}, until="C < 0.3", valid={"X": [0.0], "Y": [1.0]})
    assert found.stopped == "until" and found.valid["C"] < 0.3
    groups = dsl.compile("shared a = 0.0, b = 0.0\nstep one:\n  update a <- a + 1\nstep two:\n  update b <- a\n")
    groups.train(steps=2, of=["one", "two"])
    groups.train(steps=1, of="one")
    assert (groups["a"], groups["b"]) == (3, 2)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"epochs": 1, "steps": 1},
        {"epochs": -1},
        {"epochs": 1.5},
        {"epochs": "many"},
        {"epochs": None},
        {"epochs": [1]},
        {"epochs": math.nan},
        {"epochs": math.inf},
        {"epochs": 1, "batch": 0},
        {"epochs": 1, "batch": -2},
        {"epochs": 1, "batch": 2.5},
        {"epochs": 1, "batch": "all"},
        {"epochs": 1, "of": "none"},
        {"epochs": 1, "of": 3},
        {"epochs": 1, "of": [None]},
        {"epochs": 1, "until": "C <"},
        {"epochs": 1, "until": "C"},
        {"epochs": 1, "until": "nothing < 1"},
        {"epochs": 1, "until": 3},
        {"epochs": 1, "until": ""},
        {"epochs": 1, "valid": {"X": [1]}},
        {"epochs": 1, "valid": 3},
        {"epochs": 1, "valid": {"Z": [1]}},
        {"epochs": 1, "valid": {"X": "a", "Y": 1}},
        {"epochs": 1, "data": 3},
        {"epochs": 1, "data": {"X": [[1, 2]]}},
        {"epochs": 1, "Z": [1]},
        {"epochs": 1, "w": [[[1]]]},
        {"epochs": 1, "drop_last": True, "batch": 100},
        {"epochs": 10**30},
        {"steps": 10**30, "until": "C < 1e9"} if False else {"steps": -1},
    ],
)
def test_train_with_nonsense(model, options):
    x, y = model["x"], model["y"]
    fault(lambda: model.train(**{"X": x, "Y": y, **options}) if options.get("epochs") != 10**30 else model.train(epochs=10**30, X=x))
    assert model["w"] == 0.0
    model.train(epochs=1, X=x, Y=y)
    assert model["w"] != 0.0


@pytest.mark.parametrize(
    "value",
    [
        "abc",
        None,
        object(),
        [object()],
        ["a"],
        1j,
        [[1, 2], [3]],
        {"a": 1},
        b"x",
        [None, 1.0],
        math.nan and "nan",
        np.array(["1"]),
        np.zeros((2, 2, 2)),
        lambda: 1,
        {1, 2},
        iter([1]),
        np.array([1], dtype="datetime64[s]"),
    ],
)
def test_inputs_of_nonsense(model, value):
    y = model["y"]
    for action in (
        lambda: model.train(epochs=1, X=value, Y=y),
        lambda: model.step(X=value, Y=y),
        lambda: model.eval("C", X=value, Y=1.0),
        lambda: model.function(["X", "Y"], "C")(value, 1.0),
        lambda: model.train(epochs=1, X=y, Y=y, valid={"X": value, "Y": y}),
    ):
        found = fault(action)
        assert "Traceback" not in str(found)
    assert model["w"] == 0.0


def test_array_likes(model):
    class Column:
        def __array__(self, dtype=None, copy=None):
            return np.linspace(-1, 1, 11)

    twin = dsl.compile(LINE)
    model.train(epochs=2, X=Column(), Y=list(model["y"]))
    twin.train(epochs=2, X=twin["x"], Y=tuple(twin["y"]))
    assert model["w"] == twin["w"]
    assert np.array_equal(model.eval("Y_bar", X=Column()), model.eval("Y_bar", X=np.linspace(-1, 1, 11)))


@pytest.mark.parametrize("dtype", ["float16", "float32", "longdouble", ">f8", "int8", "uint8", "bool", "uint64", "int32"])
def test_dtypes_are_converted(dtype):
    m = dsl.compile("vector v[n]\nlet s = sum(v)\nint vector i[n]\nlet t = sum(i)\nbool vector f[n]\nlet c = any(f)\n")
    array = np.array([0, 1, 1], dtype=dtype)
    assert m.eval("s", v=array) == 2.0 and m.eval("s", v=array).dtype == np.float64
    assert m.eval("t", i=array) == 2 and m.eval("t", i=array).dtype == np.int64
    assert bool(m.eval("c", f=array))


def test_views_and_orders():
    m = dsl.compile("matrix A[n, d]\nlet s = A @ A.T\n")
    A = np.arange(12.0).reshape(3, 4)
    for given in (A, np.asfortranarray(A), A[::-1], A[:, ::2], A.astype(">f8")):
        np.testing.assert_array_equal(m.eval("s", A=given), np.asarray(given, dtype=float) @ np.asarray(given, dtype=float).T)


# ---------------------------------------------------------------- step
def test_step_is_one_batch_of_all_rows():
    m, twin = dsl.compile(LINE), dsl.compile(LINE)
    x, y = m["x"], m["y"]
    for _ in range(4):
        cost = m.step(X=x, Y=y)
        found = twin.train(epochs=1, batch=11, X=x, Y=y)
        assert isinstance(cost, float) and cost == found.cost and m["w"] == twin["w"]
    for rows in (1, 3, 7):
        assert m.step(X=x[:rows], Y=y[:rows]) == twin.train(epochs=1, batch=rows, X=x[:rows], Y=y[:rows]).cost
        assert (m["w"], m["b"]) == (twin["w"], twin["b"])


def test_step_of_scalars(model):
    cost = model.step(X=0.5, Y=2.0)
    assert cost == 4.0 and model["b"] == pytest.approx(0.4)


def test_step_results():
    assert dsl.compile("shared k = 0.0\nupdate k <- k + 1").step() is None
    m = dsl.compile(
        "shared a = 1.0, b = 2.0\ncost A = sqr(a)\ncost B = sqr(b)\nupdate a <- a - 0.1 * grad(A, a)\nupdate b <- b - 0.1 * grad(B, b)"
    )
    assert m.step() == {"A": 1.0, "B": 4.0}


def test_step_after_setting_and_training(model):
    x, y = model["x"], model["y"]
    first = model.step(X=x, Y=y)
    model["w"] = model["b"] = 0.0
    assert model.step(X=x, Y=y) == first
    model.train(epochs=3, X=x, Y=y)
    twin = dsl.compile(LINE)
    twin["w"], twin["b"] = model["w"], model["b"]
    assert model.step(X=x, Y=y) == twin.step(X=x, Y=y)


def test_step_compiles_once(model):
    model.step(X=[1.0, 2.0], Y=[1.0, 2.0])
    before = model.session.compute.compilations
    for rows in (1, 2, 5, 9):
        model.step(X=np.arange(rows), Y=np.arange(rows) + 0.5)
    assert model.session.compute.compilations == before


def test_step_diverges(model):
    with pytest.raises(dsl.Diverged):
        model.step(X=[1.0, math.nan], Y=[1.0, 2.0])
    assert model["w"] == 0.0
    assert model.step(X=[1.0], Y=[1.0]) == 1.0


def test_step_in_other_rank_equals(model):
    whole = dsl.compile(LINE.replace("scalar X, Y", "vector X[n], Y[n]"))
    assert whole.step(X=model["x"], Y=model["y"]) == pytest.approx(model.step(X=model["x"], Y=model["y"]), rel=1e-14)
    assert whole["w"] == pytest.approx(model["w"], rel=1e-13)


def test_rows_that_disagree(model):
    fault(lambda: model.step(X=[1.0, 2.0], Y=[1.0]), "E0211")
    model.step(X=[1.0, 2.0], Y=[1.0, 2.0])
    fault(lambda: model.step(X=[1.0, 2.0], Y=[1.0]), "E0211")
    fault(lambda: model.step(X=[], Y=[]), "E0420")


# ---------------------------------------------------------------- eval and function
def test_eval(model):
    model["w"], model["b"] = 2.0, 1.0
    assert model.eval("Y_bar", X=3.0) == 7.0
    assert model.eval("Y_bar", X=[1, 2]).tolist() == [3.0, 5.0]
    assert model.eval("C", X=[1, 2], Y=[3, 7]).tolist() == [0.0, 4.0]
    assert model.eval("C", X=[1, 2], Y=3).tolist() == [0.0, 4.0]
    assert model.eval("w * 10 + 1") == 21.0
    assert model.eval("gw", X=1.0, Y=0.0) == 6.0
    assert model.eval("sum(x)") == pytest.approx(0.0, abs=1e-15)
    assert isinstance(model.eval("w"), np.ndarray)
    assert model.eval("X + 1", data={"X": 2.0}) == 3.0
    assert model.eval("Y_bar", X=1.0, w=5.0) == 6.0 and model["w"] == 2.0
    assert np.isnan(model.eval("log(X)", X=-1.0))


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "Y_bar +",
        "nothing",
        "Y_bar",
        "let a = 1",
        "1; 2",
        "f(",
        '"text"',
        'csv("a.csv")',
        "#",
        "\n",
        "(1, 2)",
        "X.T.T @ X",
        "x[99]",
        "7 // 0",
        "print w",
        "\x00",
        "é",
        "1e999999",
        "[" * 200 + "]" * 200,
        "-" * 500 + "1",
        3,
        None,
        ["w", 3],
    ],
)
def test_eval_of_nonsense(model, expression):
    try:
        value = model.eval(expression)
    except dsl.LrError as problem:
        assert problem.code != "E0999" and str(problem)
    else:
        assert isinstance(value, np.ndarray | tuple)


def test_function(model):
    f = model.function(["X", "Y"], ["C", "gw", "Y_bar * 2"])
    out = f(1.0, 2.0)
    assert isinstance(out, tuple) and [a.shape for a in out] == [(), (), ()] and out[0] == 4.0
    assert [a.shape for a in f(np.ones(5), 2.0)] == [(5,), (5,), (5,)]
    single = model.function(["X"], "Y_bar")
    assert isinstance(single(1.0), np.ndarray)
    model["w"] = 3.0
    assert single(2.0) == 6.0  # state is read when called
    assert isinstance(model.function([], ["w"])(), tuple)
    assert model.function(("X",), ("Y_bar",))(1.0)[0] == 3.0


def test_function_sizes_compile_nothing():
    m = dsl.compile("matrix A[n, d]\nvector v[d]\nlet z = tanh(A @ v)\nlet s = sum(z)\n")
    f = m.function(["A", "v"], ["z", "s"])
    f(np.ones((2, 3)), np.ones(3))
    before = m.session.compute.compilations
    for n, d in ((1, 1), (5, 2), (0, 3), (100, 7)):
        z, s = f(np.ones((n, d)), np.ones(d))
        assert z.shape == (n,) and s == pytest.approx(n * math.tanh(d))
    assert m.session.compute.compilations == before


def test_function_faults(model):
    f = model.function(["X", "Y"], "C")
    fault(lambda: f(1.0), "E0902")
    fault(lambda: f(1.0, 2.0, 3.0), "E0902")
    fault(lambda: f(np.ones((2, 2)), 1.0), "E0210")
    fault(lambda: f(np.ones(2), np.ones(3)), "E0211")
    fault(lambda: model.function(["Z"], "C"))
    fault(lambda: model.function(["Y_bar"], "C"))
    fault(lambda: model.function(["X"], "C"), "E0407") if False else fault(lambda: model.function(["X"], "C")(1.0), "E0407")
    fault(lambda: model.function(["X", "X"], "C"))
    fault(lambda: model.function("X", 3))
    fault(lambda: model.function(3, "C"))
    fault(lambda: model.function([3], "C"))
    fault(lambda: model.function(["X"], None))


def test_results_are_the_callers_own():
    m = dsl.compile("shared v[n] = [1.0, 2.0]\nvector a[k]\n")
    got = m.eval("v")
    got[0] = 9
    assert m["v"][0] == 1.0
    given = np.ones(2)
    out = m.eval("a", a=given)
    out[0] = 9
    assert given[0] == 1.0


def test_eval_after_a_rows_change():
    m = dsl.compile("vector a[n]\nvector b[n]\nlet s = sum(a * b)\n")
    assert m.eval("s", a=[1, 2], b=[3, 4]) == 11 and m.eval("s", a=[1, 2, 3], b=[1, 1, 1]) == 6
    fault(lambda: m.eval("s", a=[1, 2], b=[1, 2, 3]), "E0211")


# ---------------------------------------------------------------- state after trouble
def test_diverged_keeps_the_state(model):
    y = model["y"].copy()
    y[5] = np.nan
    with pytest.raises(dsl.Diverged) as caught:
        model.train(epochs=3, X=model["x"], Y=y)
    assert isinstance(caught.value, dsl.LrError)
    twin = dsl.compile(LINE)
    twin.train(epochs=1, X=model["x"][:5], Y=y[:5])
    assert (model["w"], model["b"]) == (twin["w"], twin["b"])
    assert model.session.reports[-1].steps == 5
    model.train(epochs=1, X=model["x"], Y=model["y"])


def test_run_stops_at_the_first_trouble(capsys):
    m = dsl.compile('print 1\nassert false, "no"\nprint 2')
    fault(m.run)
    assert capsys.readouterr().out == "1\n"


# ---------------------------------------------------------------- isolation
def test_sessions_share_nothing():
    one, two = dsl.compile(LINE), dsl.compile(LINE)
    one.train(epochs=2, X=one["x"], Y=one["y"])
    one["b"] = 5.0
    assert two["w"] == 0.0 and two["b"] == 0.0
    s, t = dsl.Session(quiet=True), dsl.Session(quiet=True)
    s.load(dsl.errors.Source("a", "let a = 1"))
    with pytest.raises(dsl.LrError):
        t.load(dsl.errors.Source("b", "let b = a"))


def test_threads():
    results, problems = {}, []

    def work(number):
        try:
            m = dsl.compile(LINE, seed=number % 3)
            for _ in range(5):
                m.train(epochs=4, batch=1 + number % 4, X=m["x"], Y=m["y"])
                m.eval("Y_bar", X=m["x"])
            results[number] = float(m["w"])
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert all(results[n] == results[n % 12] for n in range(12)) and len(set(results.values())) > 3
    for n in range(12):
        m = dsl.compile(LINE, seed=n % 3)
        for _ in range(5):
            m.train(epochs=4, batch=1 + n % 4, X=m["x"], Y=m["y"])
        assert m["w"] == results[n]


def test_numpy_settings_are_left_alone(model):
    before = np.geterr()
    model.train(epochs=1, X=model["x"], Y=model["y"])
    model.eval("log(X)", X=-1.0)
    with pytest.raises(dsl.Diverged):
        model.step(X=[math.nan], Y=[1.0])
    assert np.geterr() == before


# ---------------------------------------------------------------- types for users
def test_public_names_are_typed():
    import inspect

    package = Path(dsl.__file__).parent
    assert (package / "py.typed").exists()
    for name in ("model.py", "session.py"):
        for node in ast.walk(ast.parse((package / name).read_text())):
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                untyped = [a.arg for a in node.args.args + node.args.kwonlyargs if a.annotation is None and a.arg != "self"]
                assert not untyped and node.returns is not None, f"{name}: {node.name} {untyped}"
    for name in dsl.__all__:
        assert name == "__version__" or inspect.getdoc(getattr(dsl, name)), name


@pytest.mark.child_process
def test_the_module_map_is_true():
    done = subprocess.run([sys.executable, "-m", "doctest", "-v", dsl.__file__], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_output_streams():
    out, err = io.StringIO(), io.StringIO()
    m = dsl.compile(LINE + "train 1 epochs over X = x, Y = y\nprint 1", stdout=out, stderr=err, quiet=False)
    m.run()
    assert out.getvalue() == "1\n" and err.getvalue().startswith("trained 1 epoch, 11 steps")
