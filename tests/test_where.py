# ruff: noqa: E501  (tables: a case a row)
"""What `where` and `if` do not take makes no nan, no infinity and no fault: in the value and in derivatives of any order."""

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

import dsl

inf, nan = float("inf"), float("nan")


def model(text: str, rewrites: bool = True) -> dsl.Model:
    m = dsl.compile(text)
    compute = m.session.compute
    compute.check, compute.exact, compute.stable = True, rewrites, rewrites
    return m


def derivatives(m: dsl.Model, order: int = 3, **given):
    """The value of `y` and its derivatives along x, x x, x x x: each the gradient of the sum of the one before."""
    texts, current = ["y"], "y"
    for _ in range(order):
        current = f"grad(sum({current}), x)"
        texts.append(current)
    return m.function(list(given), texts)(*given.values())


# ---------------------------------------------------------------- a dead lane, whatever made it and whatever it goes through
# Each is smooth at 2 and has a nan or an infinity in its value or a derivative at 0; `%` is the variable.
POISON = ["1 / %", "log(%)", "sqrt(%)", "% ** -1.5", "% ** 0.5", "exp(1 / %)", "log(% - 1)", "% / (% * %)", "acos(% + 5) + %", "atan2(%, %) / %",
          "log(sqr(%))", "cbrt(%)", "lgamma(%)", "digamma(%)", "logit(% + 1) + %", "hypot(1 / %, 1)", "(% - 1) ** 0.5 / %", "asin(1 + %) * %", "xlogy(1, %)",
          "norm([%, %]) / %", "% * inf * 0", "log(% * 0) * 0 + %", "0 / %", "inf - 1 / %"]  # fmt: skip


@pytest.mark.parametrize("rewrites", [True, False], ids=["rewritten", "as-written"])
@pytest.mark.parametrize("poison", POISON)
def test_dead_scalar(poison, rewrites):
    f = poison.replace("%", "x")
    for choice in (f"where(x > 1, {f}, sqr(x) * x)", f"where(x <= 1, sqr(x) * x, {f})", f"if x > 1 then {f} else sqr(x) * x"):
        found = derivatives(model(f"scalar x; let y = {choice}", rewrites), x=0.0)
        np.testing.assert_array_equal(found, [0, 0, 0, 6])


CHAINS = {
    "arithmetic":  ("2 * p + 1", "sin(p) / 3", "exp(-p * p)", "-p", "p - x", "tanh(sqr(p))", "p / x", "x ** p", "p ** 3"),
    "gates":       ("relu(p)", "abs(p)", "clip(p, -1, 1)", "maximum(p, 0.1)", "minimum(p, x)", "maximum(x, p)", "leaky_relu(p)"),
    "movement":    ("reshape(p, (3, 1))[:, 0]", "(p[:, None] * ones(3, 2)).T[0]", "p[::-1][::-1]", "concat((p[:1], p[1:]))",
                    "stack((p, p))[1]", "p[[0, 1, 2]]", "tile(p, 2)[3:]", "repeat(p, 2)[::2]"),
    "reductions":  ("p + 0 * sum(where(x > 1, p, 0))", "p * mean(where(x > 1, p, 1))", "p - max(where(x > 1, p, -9))", "p * norm(where(x > 1, p, 0))",
                    "p + logsumexp(where(x > 1, p, -9))", "p * std(where(x > 1, p, 2))", "p * prod(where(x > 1, p, 1))"),
    "nested":      ("where(x > 1, p * p, p)", "where(x > 1, where(x > 1.5, p, 1 / p), log(p))", "where(x < 1, 1 / p, where(x < 1, sqrt(-p), p))"),
}  # fmt: skip


@pytest.mark.parametrize("poison", ["1 / x", "(x - 1) ** 0.5"])
@pytest.mark.parametrize("chain", [c for cs in CHAINS.values() for c in cs])
def test_dead_lane_of_a_vector(chain, poison):
    """Lane 0 is dead; lanes 1 and 2 have what they have without it."""
    text = f"vector x; let p = {poison}; let q = {chain}; let y = where(x > 1, q, sqr(x))"
    full = derivatives(model(text), x=[0.0, 2.0, 3.0])
    assert all(np.isfinite(d).all() for d in full)
    clean = derivatives(model(text.replace(f"let p = {poison}", f"let s = where(x > 1, x, 2.5); let p = {poison.replace('x', 's')}")), x=[0.0, 2.0, 3.0])
    for a, b in zip(full, clean):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal([d[0] for d in full[:3]], [0, 0, 2])


@pytest.mark.parametrize("rows", ["softmax(p)", "log_softmax(p)", "p - mean(p, axis = 1, keepdims = true)", "p / norm(p, axis = 1, keepdims = true)",
                                  "cumsum(p, axis = 1)", "cumprod(p, axis = 1)", "sort(p, axis = 1)", "p * max(p, axis = 1)[:, None]", "p @ w", "(w.T @ p.T).T",
                                  "p - logsumexp(p, axis = 1, keepdims = true)", "p * prod(p, axis = 1, keepdims = true)", "p * std(p, axis = 1, keepdims = true)",
                                  "softmax(p.T, axis = 0).T", "reshape(reshape(p, (3, 2)), (2, 3))", "concat((p[:, 1:], p[:, :1]), axis = 1)"])
@pytest.mark.parametrize("poison", ["1 / x", "log(x)"])
def test_dead_row(rows, poison):
    """Row 1 of the result is dead, and poisoned before; row 0 and the weights have what they have without it."""
    text = f"matrix x, w; let p = {poison}; let y = where([true, false][:, None], {rows}, 0); let z = sum(sqr(y))"
    m = model(text)
    wanted = ["y", "grad(z, x)", "grad(z, w)", "grad(sum(sqr(grad(z, x))), x)", "grad(sum(grad(z, x) * x), w)"]
    w = np.arange(9.0).reshape(3, 3) / 7
    poisoned, clean = (m.function(["x", "w"], wanted)([[1.0, 2.0, 4.0], last], w) for last in ([0.0, -1.0, 0.0], [1.0, 1.5, 3.0]))
    for a, b in zip(poisoned, clean):
        np.testing.assert_array_equal(a, b)
    assert np.isfinite(poisoned[3]).all() and (poisoned[1][1] == 0).all()


@pytest.mark.parametrize("total", ["cumsum", "cumprod"])
def test_running_totals_before_the_poison(total):
    m = model(f"vector x; let y = sum(where(arange(3) < 1, {total}(1 / x), 0) ** 3); let g = grad(y, x); let h = hess(y, x)")
    g, h = m.function(["x"], ["g", "h"])([2.0, 0.0, 0.0])
    np.testing.assert_allclose(g, [-3 / 16, 0, 0])
    np.testing.assert_allclose(h, np.diag([12 / 32, 0, 0]))


def test_products_of_poisoned_rows():
    """Missing data: a nan row of the design matrix that `where` leaves out reaches no weight."""
    m = model("matrix X[n, d]; vector y[n]; shared w[d] = [1.0, 2.0]; cost C = mean(where(isnan(y), 0, sqr(X @ w - y))); grad g = C wrt w; hess H = C wrt w")
    X, y = np.array([[1.0, 2.0], [nan, inf], [0.5, -1.0]]), np.array([1.0, nan, 2.0])
    g, h = m.function(["X", "y"], ["g", "H"])(X, y)
    kept, r = X[[0, 2]], X[[0, 2]] @ [1, 2] - y[[0, 2]]
    np.testing.assert_allclose(g, 2 / 3 * kept.T @ r)
    np.testing.assert_allclose(h, 2 / 3 * kept.T @ kept)


def test_mask_survives_broadcasting():
    m = model("scalar x; vector v; let p = log(x) + 0 * v; let y = where(v > 1, p, v); let s = sum(sqr(y))")
    assert m.eval("grad(s, x)", x=0.0, v=[0.5, 1.0]) == 0
    assert m.eval("grad(grad(s, x), x)", x=0.0, v=[0.5, 1.0]) == 0
    np.testing.assert_allclose(m.eval("grad(s, x)", x=2.0, v=[0.5, 3.0]), 2 * np.log(2) / 2)


def test_live_and_dead_uses_of_one_value():
    m = model("scalar x; let p = 1 / x; let y = where(x > 1, p, 0) + where(x > 1, 0, p)")
    assert m.eval("y", x=0.0) == inf and m.eval("grad(y, x)", x=0.0) == -inf
    np.testing.assert_allclose(m.eval("grad(y, x)", x=2.0), -0.25)


# ---------------------------------------------------------------- faults
FAULTS = {
    "division":   ("int vector a, b", "where(b != 0, a // b, -1)", {"a": [7, 5, -7], "b": [2, 0, 2]}, [3, -1, -4]),
    "remainder":  ("int vector a, b", "where(b != 0, a % b, -1)", {"a": [7, 5, -7], "b": [2, 0, 2]}, [1, -1, 1]),
    "else":       ("int vector a, b", "where(b == 0, -1, a // b)", {"a": [7, 5, -7], "b": [2, 0, 2]}, [3, -1, -4]),
    "power":      ("int vector a, b", "where(b >= 0, a ** b, 0)", {"a": [2, 2], "b": [3, -1]}, [8, 0]),
    "int":        ("vector a", "where(isfinite(a), int(a), -1)", {"a": [2.7, nan, -inf]}, [2, -1, -1]),
    "index":      ("vector v[n]; int vector i", "where(i < n, v[i], 0)", {"v": [5, 6], "i": [1, 2, 0]}, [6, 0, 5]),
    "empty":      ("vector v[n]; int vector i", "where(i < n, v[i], 0)", {"v": [], "i": [0, 1]}, [0, 0]),
    "rows":       ("matrix v[n, k]; int vector i", "where((i < n)[:, None], v[i], 0)", {"v": [[5, 6]], "i": [0, 3]}, [[5, 6], [0, 0]]),
    "two":        ("matrix v[n, k]; int vector i, j", "where(i < n and j < k, v[i, j], 0)", {"v": [[5, 6]], "i": [0, 3, 0], "j": [1, 0, 9]}, [6, 0, 0]),
    "chain":      ("vector v[n]; int vector a, b", "where(b != 0, v[a // b], 0)", {"v": [5, 6], "a": [2, 1], "b": [2, 0]}, [6, 0]),
    "nested":     ("int vector a, b", "where(b != 0, where(a // b > 1, a % b, 7), -1)", {"a": [7, 1, 5], "b": [2, 0, 4]}, [1, -1, 7]),
    "circular":   ("int vector a, b; let q = a // b", "where(b != 0, where(q > 1, q, 0), -1)", {"a": [7, 1], "b": [2, 0]}, [3, -1]),
    "moved":      ("int vector a, b; let q = a // b", "where(b[::-1] != 0, concat((q, q))[2:][::-1], -1)", {"a": [7, 1], "b": [2, 0]}, [-1, 3]),
    "reduced":    ("int matrix a, b", "where(all(b != 0, axis = 1), sum(a // b, axis = 1), -1)", {"a": [[4, 6], [1, 1]], "b": [[2, 3], [1, 0]]}, [4, -1]),
    "scalar if":  ("int scalar a, b", "if b != 0 then a // b else 0", {"a": 1, "b": 0}, 0),
    "broadcast":  ("int vector a; int scalar b", "where(b != 0, a // b, a)", {"a": [1, 2], "b": 0}, [1, 2]),
    "condition":  ("vector v[n]; int vector i", "where(i < n, where(v[i] > 5, v[i], 1), 0)", {"v": [5, 6], "i": [0, 1, 2]}, [1, 6, 0]),
}  # fmt: skip


@pytest.mark.parametrize("rewrites", [True, False], ids=["rewritten", "as-written"])
@pytest.mark.parametrize("case", FAULTS)
def test_no_fault_in_a_lane_not_taken(case, rewrites):
    declared, expression, given_, wanted = FAULTS[case]
    np.testing.assert_array_equal(model(f"{declared}\nlet y = {expression}", rewrites).eval("y", data=given_), wanted)


@pytest.mark.parametrize("declared, expression, given_", [
    ("int vector a, b", "where(b >= 0, a // b, 0)", {"a": [1], "b": [0]}),
    ("vector v[n]; int vector i", "where(i <= n, v[i], 0)", {"v": [1, 2], "i": [2]}),
    ("vector a", "where(a > 0, int(a), 0)", {"a": [inf]}),
    ("int vector a, b; let q = a // b", "where(b != 0, q, 0) + q", {"a": [1], "b": [0]}),
])  # fmt: skip
def test_a_lane_taken_still_faults(declared, expression, given_):
    with pytest.raises(dsl.LrError, match="E070"):
        model(f"{declared}\nlet y = {expression}").eval("y", data=given_)


def test_derivatives_through_guarded_lanes():
    """The adjoint of a guarded index, and factors that hold a guarded quotient, do not fault either."""
    m = model("vector x[n]; int vector a, b; let y = sum(where(b != 0, x[a // b] ** 3, 0))")
    given_ = {"x": [1.0, 2.0], "a": [1, 9, 3], "b": [1, 0, 2]}
    np.testing.assert_array_equal(m.eval("grad(y, x)", data=given_), [0, 24])
    np.testing.assert_array_equal(m.eval("hess(y, x)", data=given_), [[0, 0], [0, 24]])
    m = model("vector x; int vector a, b; let y = sum(where(b != 0, sqr(x) * (a // b) + a % b, x))")
    given_ = {"x": [1.0, 2.0], "a": [7, 1], "b": [2, 0]}
    np.testing.assert_array_equal(m.eval("grad(y, x)", data=given_), [6, 1])
    np.testing.assert_array_equal(m.eval("hess(y, x)", data=given_), [[6, 0], [0, 0]])


def test_guards_under_the_rank_rule():
    m = model("vector x[n]; int scalar i; let y = where(i < n, x[i], 0); let g = grad(y, x)")
    y, g = m.function(["x", "i"], ["y", "g"])([5.0, 6.0], [0, 2, 1])
    np.testing.assert_array_equal(y, [5, 0, 6])
    np.testing.assert_array_equal(g, [[1, 0], [0, 0], [0, 1]])


def test_gates_of_hard_functions_stop_infinite_slopes():
    m = model("scalar x")
    for text in ("relu(sqrt(x) - 1)", "clip(sqrt(x), 1, 2)", "maximum(sqrt(x), 1)", "minimum(-sqrt(x), -1)", "xlogy(0, sqrt(x))"):
        assert m.eval(f"grad({text}, x)", x=0.0) == 0


# ---------------------------------------------------------------- random expressions
ATOM = st.sampled_from(["x", "v", "2.0", "0.5", "p"])
UNARY = st.sampled_from(["sin({})", "tanh({})", "exp(-sqr({}))", "sqr({})", "relu({})", "abs({})", "log1p(sqr({}))", "-{}", "{}[::-1][::-1]", "({} + x)[[0, 1, 2, 3]]"])
BINARY = st.sampled_from(["({} + {})", "({} * {})", "({} - {})", "maximum({}, {})", "where(v > 2, {}, {})", "hypot({}, {})", "({} / (1 + sqr({})))"])
TREES = st.recursive(ATOM, lambda inner: st.builds(lambda f, a: f.format(a), UNARY, inner) | st.builds(lambda f, a, b: f.format(a, b), BINARY, inner, inner),
                     max_leaves=8)


@seed(0)
@settings(max_examples=30, deadline=None, database=None)
@given(tree=TREES, poison=st.sampled_from(["1 / x", "log(x)", "sqrt(x)", "x ** -2.5", "acos(x + 3)"]))
def test_random_expressions(tree, poison):
    """Dead lanes hold a poisoned value `p` anywhere in a random tree; what comes out is as if it were 1 there."""
    text = f"vector x, v; let p = {{}}; let q = {tree} + 0 * x; let y = where(x > 1, q, x); let z = sum(y * v)"
    x, v = [0.0, 2.0, 0.0, 3.0], [1.0, 2.5, 3.0, 0.5]
    wanted = ["y", "grad(z, x)", "hess(z, x)"]
    one, two = (model(text.format(p)).function(["x", "v"], wanted)(x, v) for p in (poison, "where(x > 1, " + poison.replace("x", "where(x > 1, x, 1)") + ", 1)"))
    for a, b in zip(one, two):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    if "acos" not in poison:
        assert all(np.isfinite(a).all() for a in one)
