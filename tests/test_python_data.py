"""Data that other libraries hand in: dataframes, series, Arrow data, DLPack, arrays of every make; and results handed out."""

from __future__ import annotations

import builtins
import datetime
from decimal import Decimal
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import dsl

COLUMNS = {"age": [36, 41, 85], "height": [1.7, 1.8, 1.6], "name": ["Ada", "Alan", "Grace"], "wed": [True, False, True]}
PEOPLE = """data t = csv("people.csv")
data who = codes(t.name)
let total = sum(t.age)
let M = t[:, :2]
let wed = t.wed
"""
FORMS = """matrix X[n, d]
vector v[n]
int vector i[n]
bool vector f[n]
let s = X.T @ X
let total = sum(v)
let count = sum(i)
let all_of_them = all(f)
"""


class Stream:
    """An Arrow stream of nobody's in particular, which can be read once."""

    def __init__(self, arrow):
        self.arrow, self.reads = arrow, 0

    def __arrow_c_stream__(self, requested_schema=None):
        self.reads += 1
        assert self.reads == 1
        return self.arrow.__arrow_c_stream__(requested_schema)


class OneArray:
    def __init__(self, arrow):
        self.arrow = arrow

    def __arrow_c_array__(self, requested_schema=None):
        return self.arrow.__arrow_c_array__(requested_schema)


TABLES = {
    "pandas": lambda: pd.DataFrame(COLUMNS, index=[7, 3, 3]),
    "pandas nullable": lambda: pd.DataFrame(COLUMNS).convert_dtypes(),
    "pandas on arrow": lambda: pd.DataFrame(COLUMNS).convert_dtypes(dtype_backend="pyarrow"),
    "pandas objects": lambda: pd.DataFrame(COLUMNS, dtype=object),
    "pandas category": lambda: pd.DataFrame(COLUMNS).astype({"name": "category", "age": "category"}),
    "polars": lambda: pl.DataFrame(COLUMNS),
    "polars category": lambda: pl.DataFrame(COLUMNS).with_columns(pl.col("name").cast(pl.Categorical)),
    "arrow": lambda: pa.table(COLUMNS),
    "arrow chunks": lambda: pa.concat_tables([pa.table(COLUMNS).slice(0, 1), pa.table(COLUMNS).slice(1)]),
    "arrow chunks of other lengths in each column": lambda: pa.table(
        {name: pa.chunked_array([column[:i], [], column[i:]], pa.array(column).type) for i, (name, column) in enumerate(COLUMNS.items())}),
    "arrow batch": lambda: pa.record_batch(COLUMNS),
    "arrow dictionary": lambda: pa.table({**COLUMNS, "name": pa.array(COLUMNS["name"]).dictionary_encode()}),
    "a stream": lambda: Stream(pa.table(COLUMNS)),
    "an array of structs": lambda: OneArray(pa.record_batch(COLUMNS).to_struct_array()),
    "a dict": lambda: {**COLUMNS, "age": np.array(COLUMNS["age"]), "height": pd.Series(COLUMNS["height"])},
    "structured": lambda: np.array(list(zip(*COLUMNS.values())), [("age", "i4"), ("height", ">f8"), ("name", "U9"), ("wed", "?")]),
}


def fault(action, code, *words) -> dsl.LrError:
    with pytest.raises(dsl.LrError) as caught:
        action()
    assert caught.value.code == code, caught.value
    for word in words:
        assert word in str(caught.value), caught.value
    return caught.value


@pytest.fixture(scope="module")
def forms():
    return dsl.compile(FORMS)


# ---------------------------------------------------------------- tables
@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_a_table_in_place_of_a_file(make, tmp_path):
    pd.DataFrame(COLUMNS).to_csv(tmp_path / "people.csv", index=False)
    m = dsl.compile(PEOPLE, data={"t": make()})
    from_file = dsl.compile(PEOPLE.replace("people.csv", f"{tmp_path}/people.csv"))
    for name in ("total", "who", "M", "wed"):
        assert np.array_equal(m[name], from_file[name].astype(m[name].dtype)), name
    assert m["total"] == 162 and m["who"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_a_table_for_a_matrix(make, forms):
    if isinstance(make(), dict):
        fault(lambda: forms.eval("s", X=make()), "E0903", "dict")
        return
    fault(lambda: forms.eval("s", X=make()), "E0613", "`name`", "`X`", "texts")
    numbers = pd.DataFrame(COLUMNS)[["age", "height"]].to_numpy(float)
    value = make()
    part = {
        "pandas": lambda: value[["age", "height"]],
        "polars": lambda: value.select("age", "height"),
        "pyarrow": lambda: value.select(["age", "height"]),
        "numpy": lambda: value[["age", "height"]],
    }.get(type(value).__module__.partition(".")[0], lambda: Stream(pa.table(COLUMNS).select(["age", "height"])))
    np.testing.assert_allclose(forms.eval("s", X=part()), numbers.T @ numbers, rtol=1e-14)


def test_a_table_for_data_that_is_no_file():
    m = dsl.compile("data A = zeros(2, 2)\nlet s = sum(A, axis = 0)", data={"A": pl.DataFrame({"a": [1, 2], "b": [0.5, 1.5]})})
    assert m["s"].tolist() == [3.0, 2.0]
    fault(lambda: dsl.compile("data A = zeros(2, 2)", data={"A": pd.DataFrame(COLUMNS)}), "E0613", "`name`")
    text = 'data t = csv("a.csv")\ndata c = codes(t.a)\ndata l = labels(t.a)\nlet x = c + 1'
    m = dsl.compile(text, data={"t": pd.DataFrame({"a": ["z", "b", "z"]})})
    assert m["x"].tolist() == [2, 1, 2]
    m = dsl.compile('data t = csv("a.csv")\ndata c = codes(t)', data={"t": pd.Series(["q", "p"])})
    assert m["c"].tolist() == [1, 0]


def test_columns_of_different_lengths():
    fault(lambda: dsl.compile(PEOPLE, data={"t": {**COLUMNS, "age": [1, 2]}}), "E0903", "`age` 2", "`name` 3")
    fault(lambda: dsl.compile(PEOPLE, data={"t": {**COLUMNS, "age": {"a": 1}}}), "E0903", "`age`")


def test_training_on_a_dataframe():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=40), "b": rng.normal(size=40)})
    frame["y"] = 2 * frame.a - frame.b
    text = """data t = csv("t.csv")
data A = t[:, :2]
data y = t.y
vector x[d]
scalar Y
shared w[d] = 0.0
cost C = sqr(x @ w - Y)
minimize C wrt w using sgd(rate = 0.1)
train 40 epochs over x = A, Y = y
"""
    m = dsl.compile(text, data={"t": frame})
    m.run()
    np.testing.assert_allclose(m["w"], [2, -1], atol=1e-3)
    twin = dsl.compile(text, data={"t": pa.table(frame)})
    report = twin.train(epochs=40, x=frame[["a", "b"]], Y=pl.Series(frame.y.to_list()))
    assert twin["w"].tolist() == m["w"].tolist() and report.epochs == 40
    assert twin.step(x=frame[["a", "b"]], Y=frame["y"]) == pytest.approx(0, abs=1e-6)


def test_dates_are_texts_as_in_a_file():
    days = [datetime.date(2024, 1, 2), datetime.date(2023, 5, 6)]
    text = 'data t = csv("t.csv")\ndata c = codes(t.day)'
    for table in (pd.DataFrame({"day": pd.to_datetime(days)}), pl.DataFrame({"day": days}), pa.table({"day": days})):
        m = dsl.compile(text, data={"t": table})
        assert m["c"].tolist() == [1, 0]
        (column,) = m.session.elaborator.scope["t"].value.columns.values()
        assert column.values.tolist() == ["2024-01-02", "2023-05-06"]
    moments = pd.DataFrame({"day": pd.to_datetime(["2024-01-02 03:04:05", "2024-01-02 00:00:00"]).tz_localize("UTC")})
    found = dsl.compile(text, data={"t": moments}).session.elaborator.scope["t"].value.columns["day"].values
    assert found.tolist() == ["2024-01-02 03:04:05", "2024-01-02 00:00:00"]


# ---------------------------------------------------------------- no value
GAPS = {
    "pandas nullable": pd.DataFrame({"a": pd.array([1, None, 3], "Int64"), "n": ["x", "y", "z"]}),
    "pandas boolean": pd.DataFrame({"a": pd.array([True, None, False], "boolean"), "n": ["x", "y", "z"]}),
    "pandas objects": pd.DataFrame({"a": pd.Series([Decimal("1.5"), None, 2], dtype=object), "n": ["x", "y", "z"]}),
    "polars": pl.DataFrame({"a": [1, None, 3], "n": ["x", "y", "z"]}),
    "arrow": pa.table({"a": [1.5, None, 3], "n": ["x", "y", "z"]}),
    "arrow decimals": pa.table({"a": pa.array([Decimal("1.5"), None, Decimal("3")]), "n": ["x", "y", "z"]}),
}


@pytest.mark.parametrize("table", GAPS.values(), ids=GAPS)
def test_a_cell_without_a_value(table, forms):
    text = 'data t = csv("t.csv")\ndata c = codes(t.n)\nlet a = t.a'
    fault(lambda: dsl.compile(text, data={"t": table}), "E0605", "`a`", "row 1", "missing = nan")
    as_nan = dsl.compile(text.replace(")", ", missing = nan)", 1), data={"t": table})
    assert np.isnan(as_nan["a"]).tolist() == [False, True, False] and as_nan["c"].tolist() == [0, 1, 2]
    dropped = dsl.compile(text.replace(")", ", missing = drop)", 1), data={"t": table})
    assert dropped["a"].shape == (2,) and dropped["c"].tolist() == [0, 1]
    fault(lambda: forms.eval("total", v=table["a"]), "E0605", "`v`", "row 1")


def test_texts_without_a_value():
    text = 'data t = csv("t.csv")\ndata c = codes(t.n)'
    for table in (pd.DataFrame({"n": ["b", None, "a"]}), pl.DataFrame({"n": ["b", None, "a"]}),
                  pd.DataFrame({"n": pd.Categorical(["b", None, "a"])}), pa.table({"n": ["b", None, "a"]})):  # fmt: skip
        fault(lambda table=table: dsl.compile(text, data={"t": table}), "E0605", "`n`", "row 1")
        m = dsl.compile(text.replace(")", ", missing = nan)", 1), data={"t": table})
        assert m["c"].tolist() == [2, 0, 1]


def test_nan_is_a_number(forms):
    assert np.isnan(forms.eval("total", v=pd.Series([1.0, np.nan])))


# ---------------------------------------------------------------- columns
VECTORS = {
    "a series with an index": lambda: pd.Series([1.5, 2.5], index=[9, 4]),
    "pandas index": lambda: pd.Index([1.5, 2.5]),
    "pandas array": lambda: pd.array([1.5, 2.5]),
    "pandas Float32": lambda: pd.Series([1.5, 2.5], dtype="Float32"),
    "polars series": lambda: pl.Series([1.5, 2.5]),
    "polars decimals": lambda: pl.Series([Decimal("1.5"), Decimal("2.5")]),
    "arrow array": lambda: pa.array([1.5, 2.5]),
    "arrow chunks": lambda: pa.chunked_array([[1.5], [2.5]]),
    "arrow float32": lambda: pa.array([1.5, 2.5], pa.float32()),
    "arrow slice": lambda: pa.array([9.0, 1.5, 2.5]).slice(1),
    "a stream": lambda: Stream(pa.chunked_array([[1.5, 2.5]])),
    "jax": lambda: jnp.array([1.5, 2.5]),
    "jax bfloat16": lambda: jnp.array([1.5, 2.5], jnp.bfloat16),
    "decimals": lambda: [Decimal("1.5"), Decimal("2.5")],
    "fractions": lambda: [Fraction(3, 2), 2.5],
    "objects": lambda: np.array([1.5, 2.5], object),
    "big-endian": lambda: np.array([1.5, 2.5], ">f8"),
    "backwards": lambda: np.array([2.5, 1.5])[::-1],
    "every second": lambda: np.array([1.5, 0, 2.5, 0])[::2],
    "a field": lambda: np.array([(1.5, 0), (2.5, 0)], [("a", "f8"), ("b", "i1")])["a"],
    "longdouble": lambda: np.array([1.5, 2.5], np.longdouble),
    "float16": lambda: np.array([1.5, 2.5], np.float16),
    "memoryview": lambda: memoryview(np.array([1.5, 2.5])),
    "not masked": lambda: np.ma.masked_array([1.5, 2.5], [False, False]),
    "unaligned": lambda: np.frombuffer(b"\0" + np.array([1.5, 2.5]).tobytes(), np.uint8)[1:].view(np.float64),
}


@pytest.mark.parametrize("make", VECTORS.values(), ids=VECTORS)
def test_vectors(make, forms):
    assert forms.eval("total", v=make()) == 4.0
    f = forms.function(["v"], "v * 2")
    assert f(make()).tolist() == [3.0, 5.0] and f(make()).dtype == np.float64
    m = dsl.compile("shared w[n] = [0.0, 0.0]\nlet s = sum(w)")
    m["w"] = make()
    assert m["s"] == 4.0
    assert dsl.compile("data a = zeros(2)\nlet s = sum(a)", data={"a": make()})["s"] == 4.0


def test_read_only_arrays_work():
    given = np.array([1.5, 2.5])
    given.flags.writeable = False
    text = "scalar x\nshared w = 0.0\ncost C = sqr(w - x)\nminimize C wrt w using sgd(rate = 0.1)\ndata a = zeros(2)"
    m = dsl.compile(text, data={"a": given})
    m.train(epochs=2, x=given)
    assert m.step(x=given) > 0 and m.function(["x"], "x + w")(given).shape == (2,)
    assert given.tolist() == [1.5, 2.5]


def test_integers_and_truth(forms):
    small = pl.Series([1, 2], dtype=pl.UInt8), pa.array([1, 2], pa.int8())
    for value in (pd.Series([1, 2]), *small, pd.array([1, 2]), [Decimal(1), 2.0], [1, True]):
        assert forms.eval("count", i=value) in (2, 3) and forms.eval("count", i=value).dtype == np.int64
    fault(lambda: forms.eval("count", i=pd.Series([1.0, 2.5])), "E0203", "2.5")
    fault(lambda: forms.eval("count", i=pa.array([2**63 + 1], pa.uint64())), "E0203")
    fault(lambda: dsl.compile("data a = [1]", data={"a": np.array([2**63 + 5], np.uint64)}), "E0203", str(2**63 + 5))
    for value in (pd.Series([True, True]), pl.Series([True, True]), pa.array([True, True]), np.array([True, np.True_], object)):
        assert forms.eval("all_of_them", f=value)


def test_numbers_by_themselves():
    m = dsl.compile("scalar x\nlet y = 2 * x")
    for value in (Decimal("1.5"), Fraction(3, 2), np.array(1.5, object), np.float16(1.5), True + Fraction(1, 2)):
        assert m.eval("y", x=value) == 3.0


class Broken:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("not today\nand more")


WRONG = {
    "dates": (np.array(["2024-01-01"], "datetime64[D]"), "E0903", "dates"),
    "times": (np.array([3], "timedelta64[s]"), "E0903", "lengths of time"),
    "a series of dates": (pd.Series(pd.to_datetime(["2024-01-01"])), "E0903", "dates"),
    "polars dates": (pl.Series([datetime.date(2024, 1, 1)]), "E0903", "dates"),
    "complex": (np.array([1j]), "E0903", ".real"),
    "texts": (np.array(["a"]), "E0903", "texts"),
    "a series of texts": (pd.Series(["a", "b"]), "E0903", "np.unique"),
    "categories": (pd.Series(["a", "b"], dtype="category"), "E0903", "texts"),
    "polars texts": (pl.Series(["a"]), "E0903", "texts"),
    "arrow texts": (pa.array(["a"]), "E0903", "texts"),
    "arrow lists": (pa.array([[1, 2], [3]]), "E0903", "list"),
    "polars lists": (pl.Series([[1, 2], [3]]), "E0903", "List"),
    "a mixture": (pd.Series([1, "a"], dtype=object), "E0903", "row 1"),
    "masked": (np.ma.masked_array([1.0, 2.0], [False, True]), "E0605", "[1]"),
    "none among them": ([1.0, None], "E0903", "None in [1]"),
    "a lazy frame": (pl.LazyFrame({"a": [1]}), "E0903", ".collect()"),
    "broken": (Broken(), "E0903", "not today"),
    "a big integer": ([2**70], "E0903", "range"),
    "a big integer by itself": (10**400, "E0903", "beyond the range of int64"),
    "no columns": (pd.DataFrame(index=[1, 2]), "E0903", "no columns"),
    "two of a name": (pd.DataFrame([[1, 2]], columns=["a", "a"]), None, ""),
    "ragged": ([[1], [1, 2]], "E0903", "rows of one length"),
}


@pytest.mark.parametrize(("value", "code", "word"), WRONG.values(), ids=WRONG)
def test_what_is_no_data(value, code, word, forms):
    if code is None:
        assert forms.eval("s", X=value).tolist() == [[1, 2], [2, 4]]
        fault(lambda: dsl.compile('data t = csv("a")', data={"t": value}), "E0903", "two columns called `a`")
        return
    fault(lambda: forms.eval("total", v=value), code, word, "`v`")
    with pytest.raises(dsl.LrError):
        dsl.compile("data a = zeros(2)\nlet b = a + 1", data={"a": value})


def test_without_pyarrow(monkeypatch):
    real = builtins.__import__

    def absent(name, *rest):
        if name.partition(".")[0] == "pyarrow":
            raise ImportError(name)
        return real(name, *rest)

    stream = Stream(pa.table(COLUMNS))
    monkeypatch.setattr(builtins, "__import__", absent)
    m = dsl.compile(FORMS)
    found = fault(lambda: m.eval("s", X=stream), "E0607", "pyarrow")
    assert "pip install" in (found.hint or "")
    assert m.eval("s", X=pl.DataFrame({"a": [1.0, 2.0]})).tolist() == [[5.0]]
    assert m.eval("s", X=pd.DataFrame({"a": [1.0, 2.0]})).tolist() == [[5.0]]


# ---------------------------------------------------------------- no copies
def test_arrays_are_taken_as_they_are():
    given = np.arange(6.0).reshape(3, 2)
    m = dsl.compile("data A = zeros(3, 2)\nlet s = sum(A)", data={"A": given})
    assert any(np.shares_memory(value, given) for value in m.session.values.values())
    single = np.arange(6, dtype=np.float32)
    m = dsl.compile("precision float32\ndata a = zeros(3)", data={"a": single})
    assert any(np.shares_memory(value, single) for value in m.session.values.values())
    for column in (pd.Series([1.0, 2.0]), pl.Series([1.0, 2.0]), pa.array([1.0, 2.0])):
        m = dsl.compile("data a = zeros(3)", data={"a": column})
        mine = column.to_numpy()
        assert any(np.shares_memory(value, mine) for value in m.session.values.values()), type(column)
    frame = jnp.arange(6.0, dtype=jnp.float32)
    m = dsl.compile("precision float32\ndata a = zeros(3)", data={"a": frame})
    assert any(np.shares_memory(value, np.asarray(frame)) for value in m.session.values.values())


# ---------------------------------------------------------------- results
@pytest.mark.parametrize("device", ["cpu", "numpy"])
def test_results_are_nobody_elses(device):
    m = dsl.compile("vector x[n]\nshared w[k] = [1.0, 2.0]\ndata a = linspace(0, 1, 5)\nlet y = x * 2\n", device=device)
    f = m.function(["x"], ["y", "y", "w", "a", "x", "y + 1", "y[:2]"])
    x = np.arange(4.0)
    first = f(x)
    copies = [array.copy() for array in first]
    second = f(x + 1)
    every = [*first, *second]
    held = [*m.session.values.values(), x]
    for place, array in enumerate(every):
        assert array.flags.writeable and not any(np.shares_memory(array, other) for other in [*every[place + 1:], *held])
        array[...] = -7.0
    for array, before in zip(f(x), copies, strict=True):
        assert np.array_equal(array, before)
    assert x.tolist() == [0, 1, 2, 3] and m["w"].tolist() == [1, 2]


def test_results_go_to_other_libraries():
    m = dsl.compile("vector x[n]\nlet y = x * 2\nlet s = sum(x)")
    y, s = m.function(["x"], ["y", "s"])(jnp.arange(3.0))
    assert isinstance(y, np.ndarray) and isinstance(s, np.ndarray)
    with jax.enable_x64(True):
        there = jnp.from_dlpack(y)
        assert there.dtype == jnp.float64 and there.tolist() == [0.0, 2.0, 4.0]
        assert float(jnp.from_dlpack(s)) == 3.0
    assert np.shares_memory(np.from_dlpack(y), y)
    assert pa.array(y).to_pylist() == [0.0, 2.0, 4.0] and pl.Series(y).sum() == 6.0 and pd.Series(y).iloc[2] == 4.0
