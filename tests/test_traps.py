# ruff: noqa: E501  (tables: a case a row)
"""Points where systems of this kind have been wrong: value and gradient there, as the language defines them.

A row gives the trap's id, declarations, an expression (`y`), the inputs, the value, and the gradient of `sum(y)` with
respect to `x` (None: there is none).  `^` stands for "both ways": the row holds without the rewrites too; without the
mark it needs one.
"""

import math

import numpy as np
import pytest

import dsl

pytestmark = pytest.mark.usefixtures("device")
inf, nan = math.inf, math.nan
RAMP = [13.0 * k for k in range(1, 10)]
CLASS_0 = -104 - math.log1p(sum(math.exp(-13 * k) for k in range(1, 9)))

# id      ways  declarations                              expression                                inputs            value, gradient
CASES = [
    ("T002", "^", "scalar x", "where(x > 0, log(x), 0)", {"x": 0}, 0, 0),
    ("T003", "^", "scalar x", "where(x < 1, x, sqrt(x))", {"x": 0}, 0, 1),
    ("T004", "^", "scalar x", "where(x > 0, 0, x * inf)", {"x": 1}, 0, 0),
    ("T007", "^", "scalar x", "where(x > 0, exp(-1 / x), 0)", {"x": 0}, 0, 0),
    ("T008", "^", "scalar x; let d = [0.0, 1.0] * x", "sum(where(d > 0, d ** 0.5, 0))", {"x": 1}, 1, 0.5),
    ("T009", "^", "matrix x[n, k]; let r = sqrt(sum(sqr(x[:, None, :] - x[None, :, :]), axis = 2)); let off = arange(n)[:, None] != arange(n)[None, :]",
     "sum(where(off, 1 / r, 0))", {"x": [[0.0], [3.0]]}, 2 / 3, [[2 / 9], [-2 / 9]]),
    ("T011", "^", "scalar x; let f = where(x > 0, x ** 1.5, 0)", "hess(f, x)", {"x": -1}, 0, 0),
    ("T012", "^", "scalar x", "abs(x)", {"x": 0}, 0, 0),
    ("T013", "^", "scalar x", "sqrt(x)", {"x": 0}, 0, inf),
    ("T014", "^", "scalar x", "relu(x)", {"x": 0}, 0, 0),
    ("T015", "^", "scalar x", "maximum(x, 0)", {"x": 0}, 0, 0),
    ("T016", "^", "scalar x", "maximum(x, x)", {"x": 2}, 2, 1),
    ("T017", "^", "vector x", "max(x)", {"x": [1, 1]}, 1, [0.5, 0.5]),
    ("T018", "^", "vector x", "max(x)", {"x": [3, 1, 3]}, 3, [0.5, 0, 0.5]),
    ("T019", "^", "vector x", "min(x)", {"x": [2, 2, 2, 2]}, 2, [0.25] * 4),
    ("T020", "^", "vector x", "x[argmax(x)]", {"x": [1, 1]}, 1, [1, 0]),
    ("T021", "^", "scalar x", "clip(x, 0, 1)", {"x": 1}, 1, 1),
    ("T023", "^", "scalar z, x", "clip(z, x, 5)", {"z": -1, "x": 0}, 0, 1),
    ("T024", "^", "scalar x", "sign(x)", {"x": 0}, 0, 0),
    ("T028", "^", "vector x", "norm(x)", {"x": [0, 0]}, 0, [0, 0]),
    ("T029", "^", "vector x", "norm(x) ** 2", {"x": [0, 0]}, 0, [0, 0]),
    ("T030", "^", "vector x", "exp(-norm(x) ** 2)", {"x": [0, 0]}, 1, [0, 0]),
    ("T031", " ", "scalar x", "sqrt(x * x)", {"x": 0}, 0, 0),
    ("T033", "^", "scalar x", "hypot(x, 0)", {"x": 0}, 0, 0),
    ("T034", "^", "scalar x", "hypot(x, 1e200)", {"x": 1e200}, 1.414213562373095e200, 0.7071067811865476),
    ("T035", "^", "vector x", "std(x)", {"x": [1, 1]}, 0, [0, 0]),
    ("T037", "^", "vector x", "std(x)", {"x": [5]}, 0, [0]),
    ("T038", "^", "matrix x", "var(x, ddof = 1)", {"x": [[1]]}, nan, [[nan]]),
    ("T039", "^", "scalar x; let f = abs(x)", "hess(f, x)", {"x": 0}, 0, 0),
    ("T040", "^", "scalar x", "x ** 0", {"x": 0}, 1, 0),
    ("T043", "^", "scalar x", "x ** 0.5", {"x": 0}, 0, inf),
    ("T044", "^", "scalar x", "x ** -1", {"x": 0}, inf, -inf),
    ("T045", "^", "scalar x", "0.0 ** x", {"x": 2}, 0, 0),
    ("T046", "^", "scalar x", "0.0 ** x", {"x": 0}, 1, 0),
    ("T047", "^", "scalar x; scalar e", "x ** e", {"x": -2, "e": 2}, 4, -4),
    ("T049", "^", "scalar x", "x ** 3", {"x": -2}, -8, 12),
    ("T051", "^", "scalar x", "grad(x ** 2.0, x)", {"x": 0}, 0, 2),
    ("T052", "^", "scalar x; let f = x ** 2.0", "hess(f, x)", {"x": 0}, 2, 0),
    ("T054", " ", "scalar x", "log(1 + exp(x))", {"x": 1000}, 1000, 1),
    ("T055", "^", "scalar x", "log1p(exp(x))", {"x": -1000}, 0, 0),
    ("T056", "^", "precision float32; scalar x", "softplus(x)", {"x": 89}, 89, 1),
    ("T057", " ", "precision float32; scalar x", "log(1 + exp(x))", {"x": 95}, 95, 1),
    ("T058", " ", "scalar x", "1 / (1 + exp(-x))", {"x": -1000}, 0, 0),
    ("T061", " ", "matrix x", "sum(log(sigmoid(reshape(x, (-1, 1)))))", {"x": [[-1000]]}, -1000, [[1]]),
    ("T062", "^", "vector x", "logsumexp(x)", {"x": [1000, 1000]}, 1000.6931471805599, [0.5, 0.5]),
    ("T064", "^", "vector x", "logsumexp(x)", {"x": [-inf, -inf]}, -inf, [0, 0]),
    ("T065", "^", "vector x", "logsumexp(x)", {"x": [inf, 1]}, inf, [1, 0]),
    ("T066", "^", "scalar x", "logaddexp(x, x)", {"x": -inf}, -inf, 0),
    ("T068", " ", "vector x", "log(softmax(x))[1]", {"x": [1000, 0]}, -1000, [-1, 1]),
    ("T070", " ", f"data z = {RAMP}; scalar x", "x * log(softmax(z))[0]", {"x": 1}, CLASS_0, CLASS_0),
    ("T071", "^", "vector x", "softmax(x)", {"x": [-inf, -inf]}, [nan, nan], None),
    ("T072", "^", "matrix x[n, k]; data keep = [true, false]", "sum(where(keep[:, None], softmax(x), 0))",
     {"x": [[1, 2], [-inf, -inf]]}, 1, [[0, 0], [0, 0]]),
    ("T073", "^", "scalar x", "x * log(x)", {"x": 0}, nan, nan),
    ("T074", "^", "scalar x", "xlogy(0, x)", {"x": 0}, 0, 0),
    ("T076", " ", "scalar x", "log(1 + x)", {"x": 1e-20}, 1e-20, 1),
    ("T078", "^", "scalar x", "grad(sigmoid(x), x)", {"x": 1000}, 0, 0),
    ("T081", "^", "scalar x", "1 / (exp(x) + 2)", {"x": 0}, 1 / 3, -1 / 9),
    ("T084", "^", "vector x", "prod(x)", {"x": [0, 0, 3]}, 0, [0, 0, 0]),
    ("T086", "^", "precision float32; vector x", "prod(x)", {"x": [1e13] * 6 + [0] * 3}, 0, [0] * 9),
    ("T087", "^", "vector x", "sum(cumprod(x))", {"x": [2, 0, 3]}, 2, [1, 8, 0]),
    ("T088", "^", "vector x", "prod(x)", {"x": []}, 1, []),
    ("T089", "^", "scalar x", "log(x)", {"x": 0}, -inf, inf),
    ("T090", "^", "scalar x", "log(x)", {"x": -1}, nan, nan),
    ("T091", "^", "scalar x", "asin(x)", {"x": 1}, 1.5707963267948966, inf),
    ("T093", "^", "scalar x", "cbrt(x)", {"x": 0}, 0, inf),
    ("T094", "^", "scalar x", "cbrt(x)", {"x": -8}, -2, 1 / 12),
    ("T095", "^", "scalar x, z", "atan2(x, z)", {"x": 0, "z": 0}, 0, 0),
    ("T097", "^", "scalar x, z", "grad(atan2(x, z), x)", {"x": 0.005, "z": 0}, 0, 0),
    ("T100", "^", "scalar x", "1 / x", {"x": 0}, inf, -inf),
    ("T101", "^", "scalar x", "1 / x", {"x": -0.0}, -inf, -inf),
    ("T103", "^", "scalar x", "x - x", {"x": inf}, nan, 0),
    ("T104", "^", "scalar x", "x / x", {"x": 0}, nan, nan),
    ("T105", "^", "scalar x", "x + 0", {"x": -0.0}, 0, 1),
    ("T106", "^", "scalar x", "0 * x", {"x": nan}, nan, 0),
    ("T107", "^", "scalar x", "isnan(x)", {"x": nan}, True, None),
    ("T109", "^", "vector x", "sum(where(isnan(x), 0, x))", {"x": [2, nan, 4]}, 6, [1, 0, 1]),
    ("T111", "^", "scalar x", "sqrt(x) ** 2", {"x": -4}, nan, nan),
    ("T112", "^", "precision float32; scalar x, b", "(x + b) - x", {"x": 1e8, "b": 1}, 0, 0),
    ("T113", "^", "scalar x, z", "x * x - z * z", {"x": 1 + 2**-30, "z": 1 + 2**-30}, 0, 2 + 2**-29),
    ("T124", "^", "matrix x", "sum(x, axis = 0)", {"x": np.zeros((0, 3))}, [0, 0, 0], np.zeros((0, 3))),
    ("T125", "^", "vector x", "max(x)", {"x": [1, nan]}, nan, [nan, nan]),
    ("T126", "^", "vector x", "min(x)", {"x": [nan, nan]}, nan, [nan, nan]),
    ("T129", "^", "vector x", "argmax(x)", {"x": [3, 1, 3]}, 0, None),
    ("T130", "^", "scalar x, z", "1 / maximum(x, z)", {"x": -0.0, "z": 0.0}, inf, None),
    ("T134", "^", "int32 scalar x, b", "x % b", {"x": -(2**31), "b": -1}, 0, None),
    ("T136", "^", "int scalar x, b", "x % b", {"x": -7, "b": 3}, 2, None),
    ("T139", "^", "scalar x, b", "x // b", {"x": 1, "b": 0}, inf, None),
    ("T143", "^", "int32 vector x", "sum(x)", {"x": [2**31 - 1, 1]}, 2147483648, None),
    ("T144", "^", "int vector x", "mean(x)", {"x": [1, 2]}, 1.5, None),
    ("T146", "^", "vector x", "sum(x[None, :] + ones(3, 2))", {"x": [1, 2]}, 15, [3, 3]),
    ("T149", "^", "matrix z, x", "ones(shape(z)) * x", {"z": np.zeros((3, 2)), "x": [[1, 2]]}, [[1, 2]] * 3, [[3, 3]]),
    ("T151", "^", "vector z, x", "z + x", {"z": [], "x": [1]}, [], [0]),
    ("T152", "^", "vector x", "sum(x[[0, 0]])", {"x": [5, 6]}, 10, [2, 0]),
    ("T153", "^", "matrix x[r, c]", "x[[1, 1, 3]]", {"x": np.ones((4, 2))}, np.ones((3, 2)), [[0, 0], [2, 2], [0, 0], [1, 1]]),
]

NOT_SAYABLE = {
    "T142": "there are no 8-bit integers",
    "T154": "no assignment to elements: arrays are values",
}


def model(text: str, rewrites: bool = True) -> dsl.Model:
    m = dsl.compile(text)
    compute = m.session.compute
    compute.check, compute.exact, compute.stable = True, rewrites, rewrites
    return m


def agrees(found, wanted) -> None:
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    ulps = 8 * np.finfo(found.dtype if found.dtype.kind == "f" else float).eps
    np.testing.assert_allclose(found, wanted, rtol=ulps, atol=1e-300)


WAYS = [pytest.param(*case[:1], *case[2:], rewrites, id=f"{case[0]}{'' if rewrites else '-as-written'}")
        for case in CASES for rewrites in (True, False) if rewrites or case[1] == "^"]


@pytest.mark.parametrize("trap, declared, expression, given, value, gradient, rewrites", WAYS)
def test_trap(trap, declared, expression, given, value, gradient, rewrites):
    m = model(f"{declared}\nlet y = {expression}", rewrites)
    agrees(m.eval("y", data=given), value)
    if gradient is not None:
        agrees(m.eval("grad(sum(y), x)", data=given), gradient)


def test_every_trap_is_covered():
    """Each is in the table, has a test of its own, or is out of the language's reach for a reason given."""
    tabled = {case[0] for case in CASES}
    by_name = {name.split("_")[1].upper() for name in globals() if name.startswith("test_t") and name[6:9].isdigit()}
    assert not (tabled & by_name) and not (NOT_SAYABLE.keys() & (tabled | by_name))
    covered = tabled | by_name | NOT_SAYABLE.keys()
    assert covered == set(IDS.split())


IDS = """
T002 T003 T004 T007 T008 T009 T011 T012 T013 T014 T015 T016 T017 T018 T019 T020 T021 T023 T024 T028 T029 T030 T031 T033
T034 T035 T037 T038 T039 T040 T043 T044 T045 T046 T047 T049 T051 T052 T054 T055 T056 T057 T058 T061 T062 T064 T065 T066
T068 T070 T071 T072 T073 T074 T076 T078 T080 T081 T084 T086 T087 T088 T089 T090 T091 T093 T094 T095 T097 T100 T101 T103
T104 T105 T106 T107 T109 T111 T112 T113 T116 T118 T120 T124 T125 T126 T127 T129 T130 T131 T132 T134 T136 T139 T141 T142
T143 T144 T145 T146 T149 T151 T152 T153 T154 T155 T159 T160 T164 T165 T166 T167 T168
"""


# ---------------------------------------------------------------- the same points, said otherwise
def test_sign_of_zero():
    """T101 and T105 in their bits."""
    m = model("scalar x")
    assert not np.signbit(m.eval("x + 0", x=-0.0))
    assert np.signbit(m.eval("x - 0", x=-0.0)) and np.signbit(m.eval("x * 1", x=-0.0))


def test_softmax_jacobian_of_minus_infinity():
    """T071: the Jacobian is nan in its own row and leaves the other row alone."""
    m = model("vector x; matrix X")
    agrees(m.eval("jac(softmax(x), x)", x=[-inf, -inf]), [[nan, nan], [nan, nan]])
    found = m.eval("grad(sum(softmax(X) * [1, 2]), X)", X=[[1, 1], [-inf, -inf]])
    agrees(found, [[-0.25, 0.25], [nan, nan]])


def test_reduced_extremes_of_zeros():
    """T130 as a reduction, at both places."""
    m = model("vector x")
    for zeros in ([-0.0, 0.0], [0.0, -0.0]):
        assert not np.signbit(m.eval("max(x)", x=zeros)) and np.signbit(m.eval("min(x)", x=zeros))


@pytest.mark.parametrize("values", [[1, 0.999999] * 5, [0.1] * 10, [1e4 + 0.1] * 10])
def test_t080_variance_is_not_negative(values):
    m = model("precision float32; vector x")
    assert m.eval("var(x)", x=values) >= 0
    assert np.isfinite(m.eval("grad(std(x), x)", x=values)).all()


def test_t116_long_sum():
    m = model("precision float32; vector x; let y = sum(x); grad g = y wrt x")
    ones = np.ones(2**24 + 4, np.float32)
    y, g = m.function(["x"], ["y", "g"])(ones)
    assert y == 16777220 and (g == 1).all()


def test_t118_strided_mean():
    m = model("precision float32; matrix x; let y = mean(x, axis = 0); grad g = sum(y) wrt x")
    rows = 2 * 10**7
    y, g = m.function(["x"], ["y", "g[0]"])(np.ones((rows, 2), np.float32))
    agrees(y, [1, 1])
    np.testing.assert_allclose(g, [1 / rows, 1 / rows], rtol=1e-6)


def test_t120_half_precision_data():
    m = model("precision float32; vector x; let y = mean(x); grad g = y wrt x")
    y, g = m.function(["x"], ["y", "g"])(np.ones(10**5, np.float16))
    assert y == 1 and y.dtype == np.float32
    np.testing.assert_allclose(g, 1e-5, rtol=1e-6)


@pytest.mark.parametrize("place", range(4))
def test_t127_nan_at_any_place(place):
    x = np.array([3.0, 1.0, 7.0])
    m = model("vector x")
    for op in ("max", "min"):
        assert np.isnan(m.eval(f"{op}(x)", x=np.insert(x, place, nan)))
    assert m.eval("argmax(x)", x=np.insert(x, place, nan)) == place


def test_t131_same_bits_every_run():
    x = np.random.default_rng(0).standard_normal(10**6)
    m = model("vector x; let y = sum(x); grad g = sum(x * x) wrt x")
    f = m.function(["x"], ["y", "g"])
    first = [v.tobytes() for v in f(x)]
    assert all([v.tobytes() for v in f(x)] == first for _ in range(20))


@pytest.mark.parametrize("op", ["//", "%"])
def test_t132_integer_division_by_zero(op):
    m = model(f"int32 scalar a, b\nlet y = a {op} b")
    with pytest.raises(dsl.LrError) as caught:
        m.eval("y", a=1, b=0)
    first = caught.value.diagnostics[0]
    assert first.code == "E0701" and first.span.line == 2 and first.span.text == f"a {op} b"


@pytest.mark.parametrize("x", [inf, -inf, nan, 1e300])
def test_t141_int_of_no_integer(x):
    m = model("scalar x\nlet y = int(x)")
    with pytest.raises(dsl.LrError, match="E0704") as caught:
        m.eval("y", x=x)
    assert caught.value.diagnostics[0].span.line == 2


def test_t145_large_integers(tmp_path):
    (tmp_path / "big.csv").write_text("n\n9007199254740993\n")
    m = dsl.compile('data a = [9007199254740993]; data t = csv("big.csv"); data b = t.n', path=tmp_path / "script.lr")
    assert m["a"].item() == m["b"].item() == 9007199254740993


@pytest.mark.parametrize("place", [2, -3, 2**40])
def test_t155_index_out_of_range(place):
    m = model("vector x; int scalar i\nlet y = x[i]")
    with pytest.raises(dsl.LrError, match="E0702") as caught:
        m.eval("y", x=[1, 2], i=place)
    assert caught.value.diagnostics[0].span.line == 2


# ---------------------------------------------------------------- updates
def test_t159_updates_keep_to_their_variables():
    m = model("shared x = 1, y = 0; update x <- x; update y <- x + 1")
    m.step()
    assert m["x"] == 1 and m["y"] == 2


def test_t160_updates_are_simultaneous():
    m = model("shared m = 0, w = 1; update m <- 0.9 * m + 1; update w <- w - 0.1 * m")
    m.step()
    assert m["m"] == 1 and m["w"] == 1


def test_t164_values_given_out_do_not_change():
    m = model("shared w = 1, v[2] = 1; update w <- w + 1; update v <- v + 1")
    before = [m["w"], m["v"], m.eval("v")]
    m.step()
    agrees(before[0], 1)
    agrees(before[1], [1, 1])
    agrees(before[2], [1, 1])
    before[1][:] = 7
    agrees(m["v"], [2, 2])


def test_t165_order_of_updates():
    updates = ["update a <- a - 0.1 * ga", "update b <- b - 0.1 * gb * a", "update c <- sin(a + b + c)"]
    results = []
    for order in (updates, updates[::-1], [updates[1], updates[2], updates[0]]):
        head = "scalar X; shared a = 0.3, b = 0.7, c = 0.1; cost C = sqr(a * X + b - c); grad ga, gb = C wrt a, b; "
        m = model(head + "; ".join(order))
        for x in (0.1, 0.2, 0.3):
            m.step(X=x)
        results.append([m[name].tobytes() for name in "abc"])
    assert results[0] == results[1] == results[2]


def test_t166_nan_stops_training():
    m = model("scalar X\nshared w = 1.0\nupdate w <- w * log(X)")
    with pytest.raises(dsl.Diverged) as caught:
        m.train(epochs=1, X=[math.e, math.e, -1.0, math.e])
    text = str(caught.value)
    assert "step 3" in text and "w" in text and "log(X)" in text
    agrees(m["w"], 1)


def test_t167_the_same_gradient_twice():
    m = model("scalar x; let f = sin(x) * exp(x); grad g = f wrt x; grad h = f wrt x; let both = grad(f, x) + grad(f, x)")
    g, h, both, once = m.function(["x"], ["g", "h", "both", "grad(sin(x) * exp(x), x)"])(0.7)
    assert g == h == once and both == 2 * g


def test_t168_state_keeps_its_dtype():
    m = model("precision float32; shared w = 1.0; update w <- w * 0.1")
    m.step()
    assert m["w"].dtype == np.float32 and m["w"] == np.float32(0.1)
