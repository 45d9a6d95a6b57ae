"""Indexing is NumPy's: slices, new axes, integers, gathers, all mixed; on lengths that are numbers, names or unnamed."""
# ruff: noqa: E501  (tables: one case a line)
from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dsl

SHAPE = (5, 4, 3)
T = np.arange(60.0).reshape(SHAPE)
SCRIPTS = {
    "numbers": "data T = 0\ndata u = 0\ndata U = 0\ndata s = 0",
    "names": "tensor T[n, m, k]\nint vector u[l]\nint matrix U[p, q]\nint scalar s",
    "unnamed": "tensor T[a, b, c]\nint vector u\nint matrix U\nint scalar s",
    "fixed": "dim n = 5, m = 4, k = 3\ntensor T[n, m, k]\nint vector u[6]\nint matrix U[2, 3]\nint scalar s",
}
INDICES = {"u": np.array([2, -1, 0, 1, -3, 2]), "U": np.array([[0, 1, 2], [-1, -2, 0]]), "s": np.array(1)}


def python(text: str) -> str:
    return text.replace("none", "None")


def numpy_value(text: str, x=T):
    return eval(python(text), {"T": x, **INDICES, "None": None})


def evaluate(text: str, x=T):
    """The value on every kind of length, the same on all."""
    values = []
    for kind, script in SCRIPTS.items():
        given_arrays = {k: v for k, v in {"T": x, **INDICES}.items() if k in text}
        if kind == "numbers":
            values.append(dsl.compile(script, data={"T": x, **INDICES}).eval(text))
        elif kind != "fixed" or x.shape == SHAPE:
            values.append(dsl.compile(script).eval(text, data=given_arrays))
    for other in values[1:]:
        np.testing.assert_array_equal(other, values[0])
        assert other.shape == values[0].shape
    return values[0]


BOUNDS = ["", "0", "1", "2", "4", "5", "9", "-1", "-2", "-5", "-9"]
SLICES = [f"{a}:{b}{c}" for a in BOUNDS for b in BOUNDS for c in ("", ":2", ":-1", ":-2", ":3", ":-7") if (len(a) + len(b) + len(c)) % 3 != 1] + [":", "::", "::-1", "1::2"]


@pytest.mark.parametrize("part", SLICES[::3])
def test_slices(part):
    text = f"T[{part}]"
    np.testing.assert_array_equal(evaluate(text), numpy_value(text))


@pytest.mark.parametrize("script", [SCRIPTS["names"], SCRIPTS["numbers"]], ids=["names", "numbers"])
def test_every_slice_of_every_length(script):
    """One graph with symbols for lengths serves all of them, the empty one too."""
    models = {}
    for length in (0, 1, 2, 5):
        x = np.arange(2.0 * length).reshape(length, 2, 1)
        for part in SLICES[length % 2::3]:
            if "data" in script:
                if length not in models:
                    models[length] = dsl.compile("data T = 0", data={"T": x})
                got = models[length].eval(f"T[{part}]")
            else:
                if part not in models:
                    models[part] = dsl.compile("tensor T[n, m, k]").function(["T"], f"T[{part}]")
                got = models[part](x)
            wanted = numpy_value(f"T[{part}]", x)
            assert got.shape == wanted.shape, f"T[{part}] of length {length}"
            np.testing.assert_array_equal(got, wanted)


CASES = [
    "T[0]", "T[-1]", "T[2, 1]", "T[2, -1, 0]", "T[s]", "T[s, s]", "T[-s]", "T[s - 3]", "T[0, ..., 1]", "T[...]", "T[..., 0]", "T[..., None]", "T[None]", "T[None, ..., None]",
    "T[:, None]", "T[:, None, 1]", "T[1, None, :, None]", "T[1:, ::-1, 2]", "T[::2, 1:3]", "T[..., ::-1]", "T[::-1, ::-1, ::-1]", "T[4:0:-1, 0]", "T[:, 1:-1, ..., 1:]", "T[None, 1:2, None]",
    "T[u]", "T[:, U]", "T[U]", "T[u, 0]", "T[0, u % 4]", "T[:, :, U]", "T[..., U]", "T[U, U % 4]", "T[:, U, U]", "T[U, :, U]", "T[U, 1:, U]", "T[U, None, U % 4]", "T[:, None, U, U]", "T[None, U, None, U % 4]",
    "T[U, U % 4, U]", "T[U, U[0] % 4]", "T[U[:, :1], U[0] % 4]", "T[s, :, U]", "T[s, U % 4]", "T[s, :, s]", "T[:, s, U]", "T[U, ..., s]", "T[s, ..., U]", "T[s, None, U]", "T[0, :, 1]", "T[0, None, 1]",
    "T[1:, U % 4, 0]", "T[::-1, U % 4, ::2]", "T[1:3, 0, U]", "T[U, ::-1]", "T[1][2]", "T[1:][0]", "T[u][:, 1]", "T[1:, 1:][:, ::-1][0, 0]", "T[u][u]", "T[U][0, 1]", "T[2:2]", "T[2:2, 0]", "T[7:]",
    "T[[2, 0]]", "T[[2, 0], 1:]", "T[[[0, 1], [2, 3]], :, [0, 1]]", "T[:, [3, -4], [0]]", "T[1:2, None, [0, 2]]", "T[[-1]]",
]


@pytest.mark.parametrize("text", CASES)
def test_mixed_indices(text):
    """NumPy's placement: picked axes stay where they stood together, else they come first."""
    got, wanted = evaluate(text), np.asarray(numpy_value(text))
    assert got.shape == wanted.shape
    np.testing.assert_array_equal(got, wanted)


def test_other_dtypes_and_int32_indices():
    m = dsl.compile("data x = 0; data i = 0; data b = 0", data={"x": np.arange(5), "i": np.array([1, -1], np.int32), "b": np.array([True, False, True])})
    assert m.eval("x[i]").tolist() == [1, 4] and m.eval("x[1:][i]").dtype == np.int64 and m.eval("b[::-1]").dtype == np.bool_
    assert dsl.compile("precision float32\nvector v[n]").eval("v[1:]", v=np.ones(3)).dtype == np.float32


# ---------------------------------------------------------------- any index expression
bound = st.none() | st.integers(-8, 8)
slices = st.builds(lambda a, b, c: ("slice", a, b, c), bound, bound, st.sampled_from([None, 1, 2, 3, -1, -2, -5]))


@st.composite
def indices(draw):
    """An index of `T` as the language writes it."""
    items, used, dots = [], 0, False
    arrays = draw(st.booleans())
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["slice", "slice", "integer", "new", "dots", *["array"] * 2 * arrays]))
        if kind == "new":
            items.append("None")
        elif kind == "dots" and not dots:
            items.append("...")
            dots = True
        elif kind in ("slice", "integer", "array") and used < 3:
            if kind == "slice":
                _, a, b, c = draw(slices)
                text = f"{'' if a is None else a}:{'' if b is None else b}"
                items.append(text if c is None else f"{text}:{c}")
            elif kind == "integer":
                items.append(str(draw(st.integers(-3, 2))))
            else:
                items.append(draw(st.sampled_from(["U", "U[0]", "U[:, :1]", "[0, -1, 2]", "[[1], [0]]", "s"])))
            used += 1
    return f"T[{', '.join(items) or '...'}]"


@given(indices())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_index(text):
    try:
        wanted = np.asarray(numpy_value(text.replace("U[:, :1]", "(U[:, :1])")))
    except IndexError as problem:                       # shapes that do not broadcast; integers are all in range
        assert "broadcast" in str(problem)
        for script in (SCRIPTS["numbers"], SCRIPTS["names"]):
            with pytest.raises(dsl.LrError):
                dsl.compile(script, data={"T": T, **INDICES} if "data" in script else None).eval(text, data={} if "data" in script else {k: v for k, v in {"T": T, **INDICES}.items() if k in text})
        return
    got = evaluate(text)
    assert got.shape == wanted.shape
    np.testing.assert_array_equal(got, wanted)


# ---------------------------------------------------------------- bounds made of dims
@pytest.mark.parametrize(("text", "wanted"), [
    ("T[:n]", T), ("T[:n - 1]", T[:-1]), ("T[n - 2:]", T[3:]), ("T[k:]", T[3:]), ("T[:, m - 1:0:-1]", T[:, 3:0:-1]), ("T[n // 2:]", T[2:]), ("T[:k - 1, 1:k]", T[:2, 1:3]),
    ("T[size(T, 2):]", T[3:]), ("T[n - 9:]", T), ("T[:n + 4]", T), ("T[n:]", T[5:]), ("T[n - 1]", T[4]), ("T[0, m - 1, k - 1]", T[0, 3, 2]), ("T[-n]", T[0]), ("T[arange(n - 1)]", T[:4]), ("T[k - 1::-1]", T[2::-1]),
])
def test_bounds_made_of_dims(text, wanted):
    np.testing.assert_array_equal(dsl.compile("tensor T[n, m, k]").eval(text, T=T), wanted)


@pytest.mark.parametrize(("text", "shape"), [
    ("v[1:]", "[n - 1]"), ("v[:-1]", "[n - 1]"), ("v[::2]", "[(n + 1)//2]"), ("v[:n - 1]", "[n - 1]"), ("v[::-1]", "[n]"), ("v[None]", "[1, n]"), ("v[:3]", "[min(n, 3)]"), ("v[u]", "[k]"), ("v[1:] - v[:-1]", "[n - 1]"), ("v[n:]", "[0]"), ("v[2:]", "[n - 2]"), ("v[-1:]", "[min(n, 1)]"), ("v[:1]", "[min(n, 1)]"),
])
def test_shapes_are_expressions_in_dims(text, shape):
    from dsl.ir.types import shape_text
    assert shape_text(dsl.compile("vector v[n]\nint vector u[k]").function(["v", "u"], text).outputs[0].shape) == shape


# ---------------------------------------------------------------- errors
@pytest.mark.parametrize(("text", "code", "words"), [
    ("T[5]", "E0207", "index 5 is out of range for an axis of length 5"), ("T[-6]", "E0207", "index -6"), ("T[0, 4]", "E0207", "index 4 is out of range for an axis of length 4"), ("T[..., 3]", "E0207", "index 3"), ("T[:0][0]", "E0207", "index 0"),
    ("T[0, 0, 0, 0]", "E0205", "4 indices into an array with 3 axes"), ("T[0.5]", "E0203", "an index is an integer"), ("T[T[0, 0]]", "E0203", "an index is an integer, not float64"), ("T[::0]", "E0208", "step"), ("T[s:]", "E0208", "bounds of a slice"),
    ("T[U, [0, 1]]", "E0202", ""), ("T[T[:, 0, 0] > 0]", "E0209", "a mask picks rows in `data` only"),
])
def test_errors_before_anything_runs(text, code, words):
    for kind in ("numbers", "fixed") if code == "E0207" else ("numbers", "names"):
        m = dsl.compile(SCRIPTS[kind], data={"T": T, **INDICES} if kind == "numbers" else None)
        if (text, kind) in (("T[s:]", "numbers"), ("T[U, [0, 1]]", "names")):
            continue
        with pytest.raises(dsl.LrError) as caught:
            m.function([] if kind == "numbers" else ["T", "U", "s"], text)
        assert caught.value.code == code and words in caught.value.message and caught.value.column


@pytest.mark.parametrize(("text", "index", "words"), [
    ("T[u]", [0, 5], "index 5 is out of range for an axis of length 5"), ("T[u]", [-6], "index -6"), ("T[:, u]", [4], "index 4 is out of range for an axis of length 4"), ("T[1:][u]", [4], "an axis of length 4"),
    ("T[u, u]", [4], "length 4"), ("T[0:0][u]", [0], "an axis of length 0"), ("T[u[0], :, u[1]]", [0, 3], "length 3"), ("T[u]", [2**62], "is out of range"), ("T[u]", [-2**63], "is out of range"),
])
def test_an_index_out_of_range_while_running(text, index, words):
    m = dsl.compile("tensor T[n, m, k]\nint vector u[l]\nlet y = " + text)
    with pytest.raises(dsl.LrError) as caught:
        m.eval("y", T=T, u=index)
    assert caught.value.code == "E0702" and words in caught.value.message and caught.value.line == 3 and caught.value.column >= 9


def test_a_literal_index_of_a_length_not_yet_known():
    m = dsl.compile("vector v[n]; let y = v[3]")
    assert m.eval("y", v=np.arange(5.0)) == 3
    with pytest.raises(dsl.LrError) as caught:
        m.eval("y", v=np.arange(3.0))
    assert caught.value.code == "E0702" and "index 3 is out of range for an axis of length 3" in caught.value.message


def test_a_lane_not_taken_does_not_fault():
    m = dsl.compile("vector v[n]\nint vector u[k]\nlet y = where(u < size(v), v[u], -1)\ngrad g = sum(y) wrt v")
    v, u = np.arange(3.0), np.array([0, 7, 2, 9])
    assert m.eval("y", v=v, u=u).tolist() == [0, -1, 2, -1] and m.eval("g", v=v, u=u).tolist() == [1, 0, 1]
    with pytest.raises(dsl.LrError, match="out of range"):
        m.eval("y", v=v, u=np.array([-4]))


def test_masks_pick_rows_in_data():
    m = dsl.compile("data A = 0\ndata B = A[A[:, 0] > 4]\ndata c = A[A[:, 1] < 0]", data={"A": np.arange(12.0).reshape(4, 3)})
    assert m["B"].tolist() == [[6, 7, 8], [9, 10, 11]] and m["c"].shape == (0, 3)


# ---------------------------------------------------------------- gradients
GRADIENTS = ["T[1:]", "T[::-2, 1]", "T[u]", "T[:, U]", "T[U, :, U]", "T[U, U % 4, U]", "T[s, :, U]", "T[None, U, None, U % 4]", "T[2, 1, 0]", "T[..., None, ::-1]", "T[[0, 0, 0]]", "T[2:2]", "T[1:, U % 4, 0]", "T[4:0:-2, s]"]


@pytest.mark.parametrize("text", GRADIENTS)
def test_gradients_scatter_back(text):
    """The gradient of `sum(w * T[index])` puts the weights where the index took elements from, adding up duplicates."""
    m = dsl.compile(f"{SCRIPTS['names']}\nlet y = {text}\nlet z = sum(cos(T)[{text[2:]} * sin(y))\ngrad g = z wrt T")
    x = np.random.default_rng(zlib.crc32(text.encode())).normal(size=SHAPE)
    given_arrays = {k: v for k, v in {"T": x, **INDICES}.items() if k in text}
    places = np.asarray(numpy_value(text, np.arange(60).reshape(SHAPE)))
    wanted = np.zeros(60)
    picked = x.ravel()[places.ravel()]
    np.add.at(wanted, places.ravel(), np.cos(picked) ** 2 - np.sin(picked) ** 2)
    np.testing.assert_allclose(m.eval("g", data=given_arrays), wanted.reshape(SHAPE), rtol=1e-12, atol=1e-14)


def test_second_derivatives_and_jacobians_of_a_gather():
    m = dsl.compile("vector v[n]\nint vector u[k]\nlet y = v[u] * v[u]\njac J = y wrt v\nhess H = sum(y * v[u]) wrt v")
    v, u = np.array([1.0, 2.0, 3.0]), np.array([2, 0, 2])
    J = np.zeros((3, 3))
    J[np.arange(3), u] = 2 * v[u]
    np.testing.assert_allclose(m.eval("J", v=v, u=u), J)
    np.testing.assert_allclose(m.eval("H", v=v, u=u), np.diag([6.0, 0.0, 36.0]))


def test_indices_over_rows():
    """The rank rule: the array, the index or both with a leading axis more."""
    m = dsl.compile("vector v[n]\nint scalar i\nlet y = v[i]\nlet z = v[1:][i]\nlet q = v[[i, 0]]")
    V, I = np.arange(12.0).reshape(3, 4), np.array([1, 0, 2])
    assert m.eval("y", v=V, i=I).tolist() == V[np.arange(3), I].tolist() and m.eval("y", v=V, i=2).tolist() == V[:, 2].tolist() and m.eval("y", v=V[0], i=I).tolist() == V[0, I].tolist()
    assert m.eval("z", v=V, i=I).tolist() == V[:, 1:][np.arange(3), I].tolist()
    assert m.eval("q", v=V, i=I).tolist() == np.stack([V[np.arange(3), I], V[:, 0]], 1).tolist()
