# ruff: noqa: E501  (tables: a case a row)
"""Reverse mode against JAX in double precision and against central differences, to the third order."""

import jax
import jax.numpy as jnp
import jax.scipy as jsp
import numpy as np
import pytest

import dsl

jax.config.update("jax_enable_x64", True)


def model(text: str) -> dsl.Model:
    m = dsl.compile(text)
    m.session.compute.check = True
    return m


def arrays(*shapes, seed=0, low=0.3, high=1.7):
    rng = np.random.default_rng(seed)
    return [rng.uniform(low, high, s) for s in shapes]


def differences(f, x, step=1e-5):
    """The Jacobian of `f` at `x` by central differences: the shape of `f`, then that of `x`."""
    x = np.asarray(x, dtype=float)
    columns = []
    for place in np.ndindex(x.shape):
        shift = np.zeros_like(x)
        shift[place] = step
        columns.append((np.asarray(f(x + shift)) - np.asarray(f(x - shift))) / (2 * step))
    return np.stack(columns, -1).reshape(*columns[0].shape, *x.shape) if columns else np.zeros((*np.shape(f(x)), *x.shape))


# ---------------------------------------------------------------- composite expressions, to the third order
X3, X23 = [0.7, 1.3, 0.4], [[0.7, 1.3, 0.4], [1.1, 0.5, 0.9]]
AGAINST_JAX = [
    ("vector x", "sum(sin(x) * exp(-sqr(x)) / (1 + x))", X3, lambda x: jnp.sum(jnp.sin(x) * jnp.exp(-x * x) / (1 + x))),
    ("vector x", "log(sum(exp(x))) * prod(x)", X3, lambda x: jsp.special.logsumexp(x) * jnp.prod(x)),
    ("vector x", "sum(x ** x) + sum(2 ** x) + sum(x ** 2.5)", X3, lambda x: jnp.sum(x**x) + jnp.sum(2.0**x) + jnp.sum(x**2.5)),
    ("vector x", "norm(x) * std(x) * var(x, ddof = 1)", X3, lambda x: jnp.linalg.norm(x) * jnp.std(x) * jnp.var(x, ddof=1)),
    ("vector x", "sum(cumprod(x) * cumsum(x)) + sum(cumsum(x * x))", X3, lambda x: jnp.sum(jnp.cumprod(x) * jnp.cumsum(x)) + jnp.sum(jnp.cumsum(x * x))),
    ("vector x", "sum(atan2(x, x[::-1]) * hypot(x, 2 * x[::-1]) * logaddexp(x, sqr(x)))", X3,
     lambda x: jnp.sum(jnp.arctan2(x, x[::-1]) * jnp.hypot(x, 2 * x[::-1]) * jnp.logaddexp(x, x * x))),
    ("vector x", "sum(gelu(x) * silu(x) + softplus(x) * sigmoid(x) - relu(x - 1) ** 2)", X3,
     lambda x: jnp.sum(jax.nn.gelu(x, approximate=False) * jax.nn.silu(x) + jax.nn.softplus(x) * jax.nn.sigmoid(x) - jax.nn.relu(x - 1) ** 2)),
    ("vector x", "sum(lgamma(x) * digamma(x) * erf(x) * erfc(x))", X3,
     lambda x: jnp.sum(jsp.special.gammaln(x) * jsp.special.digamma(x) * jsp.special.erf(x) * jsp.special.erfc(x))),
    ("vector x", "sum(xlogy(x, x) * log1p(x) * expm1(x) * cbrt(x) / sqrt(x))", X3,
     lambda x: jnp.sum(jsp.special.xlogy(x, x) * jnp.log1p(x) * jnp.expm1(x) * jnp.cbrt(x) / jnp.sqrt(x))),
    ("vector x", "sum(tan(x / 2) * asin(x / 2) * acos(x / 2) * atan(x) * sinh(x) * cosh(x) * tanh(x))", X3,
     lambda x: jnp.sum(jnp.tan(x / 2) * jnp.arcsin(x / 2) * jnp.arccos(x / 2) * jnp.arctan(x) * jnp.sinh(x) * jnp.cosh(x) * jnp.tanh(x))),
    ("vector x", "sum(sort(x) * [1, 2, 3] * x) + max(x * x) * min(x)", X3, lambda x: jnp.sum(jnp.sort(x) * jnp.array([1, 2, 3]) * x) + jnp.max(x * x) * jnp.min(x)),
    ("vector x", "sum(leaky_relu(x - 1) * clip(x * x, 0.2, 1)) + sum(huber(x, 0.8) * maximum(x, 1 / x) * abs(x - 2))", X3,
     lambda x: jnp.sum(jax.nn.leaky_relu(x - 1) * jnp.clip(x * x, 0.2, 1)) + jnp.sum(jnp.where(abs(x) <= 0.8, 0.5 * x * x, 0.8 * (abs(x) - 0.4)) * jnp.maximum(x, 1 / x) * abs(x - 2))),
    ("vector x", "sum(x[[0, 0, 2]] ** 3 * x[1:][[1, 0, 1]])", X3, lambda x: jnp.sum(x[jnp.array([0, 0, 2])] ** 3 * x[1:][jnp.array([1, 0, 1])])),
    ("vector x", "sum((x % 0.3) * x) + sum(floor(x) * x) + bce(sigmoid(x), 0.3)[0] * mse(x, sqr(x))", X3,
     lambda x: jnp.sum((x % 0.3) * x) + jnp.sum(jnp.floor(x) * x) + (jax.nn.softplus(x) - 0.3 * x)[0] * jnp.mean((x - x * x) ** 2)),
    ("matrix x", "sum(softmax(x) * log_softmax(x, axis = 0) * x)", X23, lambda x: jnp.sum(jax.nn.softmax(x) * jax.nn.log_softmax(x, axis=0) * x)),
    ("matrix x", "sum(sqr(x @ x.T)) + sum(tanh(x).T @ x)", X23, lambda x: jnp.sum((x @ x.T) ** 2) + jnp.sum(jnp.tanh(x).T @ x)),
    ("matrix x", "sum(concat((x[:, 1:], sqr(x[:, ::2])), axis = 1) ** 3) + sum(stack((x, x.T.T * x), axis = 1)[:, 1] * x)", X23,
     lambda x: jnp.sum(jnp.concatenate((x[:, 1:], x[:, ::2] ** 2), 1) ** 3) + jnp.sum(jnp.stack((x, x * x), 1)[:, 1] * x)),
    ("matrix x", "sum(prod(x, axis = 1) * mean(x, axis = 1)) + sum(norm(x, axis = 0) * logsumexp(x, axis = 0) * max(x, axis = 0))", X23,
     lambda x: jnp.sum(jnp.prod(x, 1) * jnp.mean(x, 1)) + jnp.sum(jnp.linalg.norm(x, axis=0) * jsp.special.logsumexp(x, axis=0) * jnp.max(x, 0))),
    ("matrix x", "sum(var(x, axis = 1, keepdims = true) * x * std(x, axis = 0, ddof = 1, keepdims = true)) * sum(cumsum(x, axis = 0) * cumprod(x, axis = 1))", X23,
     lambda x: jnp.sum(jnp.var(x, 1, keepdims=True) * x * jnp.std(x, 0, ddof=1, keepdims=True)) * jnp.sum(jnp.cumsum(x, 0) * jnp.cumprod(x, 1))),
    ("matrix x", "sum(tile(x, (2, 1))[1:3] ** 2 * repeat(x, 2, axis = 0)[::2]) + sum(reshape(x, (3, 2)) ** 2 @ x) + sum(diag(x @ x.T) * diag(x @ x.T, 1)) + sum(tril(x) * triu(x, 1))", X23,
     lambda x: jnp.sum(jnp.tile(x, (2, 1))[1:3] ** 2 * jnp.repeat(x, 2, 0)[::2]) + jnp.sum(jnp.reshape(x, (3, 2)) ** 2 @ x) + jnp.sum(jnp.diag(x @ x.T) * jnp.diag(x @ x.T, 1)) + jnp.sum(jnp.tril(x) * jnp.triu(x, 1))),
    ("matrix x", "mean(xent(x * x, [2, 0])) * sum(sort(x, axis = 0) * x) + sum(outer(x[0], x[1]) * (x.T @ x)) + x[1, 2] ** 3 * x[argmax(x[:, 0]), 1]", X23,
     lambda x: -jnp.mean(jax.nn.log_softmax(x * x)[jnp.arange(2), jnp.array([2, 0])]) * jnp.sum(jnp.sort(x, 0) * x) + jnp.sum(jnp.outer(x[0], x[1]) * (x.T @ x)) + x[1, 2] ** 3 * x[1, 1]),
]  # fmt: skip


@pytest.mark.parametrize("declared, expression, x, function", [pytest.param(*c, id=c[1][:50]) for c in AGAINST_JAX])
def test_three_orders(declared, expression, x, function):
    m = model(f"{declared}; let C = {expression}; let g = grad(C, x); let H = hess(C, x); let d = sum(H * (H + x)); let t = grad(d, x)")
    C, g, H, t = m.function(["x"], ["C", "g", "H", "t"])(x)
    forward_over_reverse = jax.jit(lambda p: jax.jvp(jax.value_and_grad(function), [p], [jnp.sin(p)]))
    (value, gradient), (_, product) = forward_over_reverse(jnp.array(x))
    np.testing.assert_allclose(C, value, rtol=1e-12)
    np.testing.assert_allclose(g, gradient, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(np.tensordot(H, np.sin(x), np.ndim(x)), product, rtol=1e-9, atol=1e-9)
    slope, d = m.function(["x"], "g"), m.function(["x"], "d")
    np.testing.assert_allclose(H, differences(slope, x), rtol=2e-6, atol=2e-6 * max(1, abs(H).max()))
    np.testing.assert_allclose(t, differences(d, x), rtol=2e-5, atol=2e-5 * max(1, abs(t).max()))


# ---------------------------------------------------------------- products of every rank
RANKS = [((3,), (3,)), ((3,), (3, 2)), ((4, 3), (3,)), ((4, 3), (3, 2)), ((2, 4, 3), (3, 5)), ((4, 3), (2, 3, 5)), ((2, 4, 3), (2, 3, 5)),
         ((1, 4, 3), (2, 3, 5)), ((2, 4, 3), (3,)), ((3,), (2, 3, 5)), ((2, 4, 3), (1, 3, 5)), ((0, 3), (3, 2)), ((4, 0), (0, 2))]  # fmt: skip
KINDS = {1: "vector", 2: "matrix", 3: "tensor"}


def declared(name: str, shape, sizes: str) -> str:
    """An input of a rank, its sizes literal or anonymous."""
    if sizes == "anonymous" and len(shape) < 3:
        return f"{KINDS[len(shape)]} {name}"
    return f"{KINDS[len(shape)]} {name}[{', '.join(map(str, shape))}]"


@pytest.mark.parametrize("sizes", ["literal", "anonymous"])
@pytest.mark.parametrize("a, b", RANKS, ids=str)
def test_matmul(a, b, sizes):
    m = model(f"{declared('a', a, sizes)}; {declared('b', b, sizes)}; let C = sum(sin(a @ b)); let ga = grad(C, a); let gb = grad(C, b)\n"
              "let Haa = hess(C, a); let Hab = jac(ga, b)")
    x, y = arrays(a, b)
    f = m.function(["a", "b"], ["C", "ga", "gb", "Haa", "Hab"])
    C, ga, gb, haa, hab = f(x, y)
    np.testing.assert_allclose(C, np.sum(np.sin(x @ y)))
    np.testing.assert_allclose(ga, differences(lambda v: f(v, y)[0], x), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(gb, differences(lambda v: f(x, v)[0], y), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(haa, differences(lambda v: f(v, y)[1], x), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(hab, differences(lambda v: f(x, v)[1], y), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("which", ["both", "a", "b"])
@pytest.mark.parametrize("a, b", [r for r in RANKS if 0 not in r[0] and max(map(len, r)) < 3], ids=str)
def test_matmul_by_rows(a, b, which):
    """The rank rule over an expression that holds gradients: each row is what it is alone."""
    m = model(f"{declared('a', a, 'literal')}; {declared('b', b, 'literal')}; let C = sum(sin(a @ b)); let ga = grad(C, a); let H = hess(C, b); let v = jvp(a @ b, b, b)")
    f = m.function(["a", "b"], ["C", "ga", "H", "v"])
    x, y = arrays((5, *a) if which != "b" else a, (5, *b) if which != "a" else b)
    together = f(x, y)
    for row in range(5):
        alone = f(x[row] if which != "b" else x, y[row] if which != "a" else y)
        for t, s in zip(together, alone):
            np.testing.assert_allclose(t[row], s, rtol=1e-13, atol=1e-13)


# ---------------------------------------------------------------- shapes and reductions by differences
@pytest.mark.parametrize("expression", [
    *[f"{op}(x, axis = {axis}, keepdims = {keep})" for op in ("sum", "mean", "prod", "max", "min", "norm", "std", "var", "logsumexp")
      for axis, keep in ((0, "true"), (-1, "false"), ("(0, 2)", "false"), ("(1, 2)", "true"))],
    "cumsum(x, axis = 1)", "cumprod(x, axis = 0)", "softmax(x, axis = 1)", "log_softmax(x, axis = 0)", "sort(x, axis = 1)", "cumprod(x)", "cumsum(x)",
    "transpose(x, (2, 0, 1))", "x.T", "x[:, ::-1, 1:]", "x[..., None, 0]", "x[1]", "x[:, [1, 0, 1]]", "x[[0, 1], :, [1, 1]]", "x[[[0, 1], [1, 1]]]",
    "reshape(x, -1)", "expand_dims(x, 1)", "concat((x, x[:, :1]), axis = 1)", "stack((x, x), axis = -1)", "tile(x, (2, 1, 2))", "repeat(x, 3, axis = 1)",
    "x * x[:, :1]", "x - mean(x, axis = (0, 1))", "x[:, argmax(sum(x, axis = (0, 2)))]", "where(x > 1, x, x[:, :, ::-1])",
])  # fmt: skip
def test_shapes(expression):
    m = model(f"tensor x[2, 3, 2]; let y = {expression}; let C = sum(y * y * y); let g = grad(C, x); let H = hess(C, x); let J = jac(y, x); let v = jvp(y, x, x * x)")
    (x,) = arrays((2, 3, 2))
    f = m.function(["x"], ["C", "g", "H", "J", "y", "v"])
    _, g, H, J, _, v = f(x)
    np.testing.assert_allclose(g, differences(lambda p: f(p)[0], x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(H, differences(lambda p: f(p)[1], x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(J, differences(lambda p: f(p)[4], x), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(v, np.tensordot(J, x * x, x.ndim), rtol=1e-12, atol=1e-13)


# ---------------------------------------------------------------- the forms
def test_statements_and_calls_agree():
    m = model("vector x; vector u; scalar s; let C = sum(exp(s * x) * x); grad gx, gs = C wrt x, s; hess H = C wrt x; jac J = sin(x) * s wrt x")
    names = ["gx", "gs", "H", "J", "grad(C, x)", "hess(C, x)", "jac(sin(x) * s, x)", "hvp(C, x, u)", "vjp(sin(x) * s, x, u)", "jvp(sin(x) * s, x, u)"]
    x, u, s = np.array([0.3, -0.7]), np.array([2.0, 1.0]), 0.9
    gx, gs, H, J, gx2, H2, J2, hv, vj, jv = m.function(["x", "u", "s"], names)(x, u, s)
    np.testing.assert_allclose(gx, np.exp(s * x) * (1 + s * x), rtol=1e-14)
    np.testing.assert_allclose(gs, np.sum(np.exp(s * x) * x * x), rtol=1e-14)
    np.testing.assert_allclose(H, np.diag(np.exp(s * x) * (2 * s + s * s * x)), rtol=1e-13)
    np.testing.assert_allclose(J, np.diag(s * np.cos(x)))
    for a, b in ((gx, gx2), (H, H2), (J, J2), (hv, H @ u), (vj, u @ J), (jv, J @ u)):
        np.testing.assert_allclose(a, b, rtol=1e-14)


def test_derivatives_of_non_scalars():
    m = model("matrix X[n, k]; vector v[k]; let Y = tanh(X) @ v; let J = jac(Y, X); let JJ = jac(J, v); let K = jac(jac(Y, v), X)")
    (X, v) = arrays((2, 3), (3,))
    J, JJ, K = m.function(["X", "v"], ["J", "JJ", "K"])(X, v)
    np.testing.assert_allclose(J, differences(lambda p: np.tanh(p) @ v, X), rtol=1e-7, atol=1e-8)
    f = m.function(["X", "v"], "J")
    np.testing.assert_allclose(JJ, differences(lambda p: f(X, p), v), rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(K, np.moveaxis(JJ, -1, 1), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("a, b", [((3,), (1,)), ((1,), (3,)), ((3,), (3,)), ((1,), (1,))])
def test_anonymous_lengths_that_broadcast(a, b):
    """Two anonymous vectors, one of length 1 at run time: its gradient is summed back, to the second order."""
    m = model("vector x, y; let C = sum(exp(x * y) + where(x > y, x, y * y)); let g = grad(C, x); let h = grad(C, y); let H = hess(C, x); let M = jac(h, x)")
    x, y = arrays(a, b)
    f = m.function(["x", "y"], ["C", "g", "h", "H", "M"])
    _, g, h, H, M = f(x, y)
    np.testing.assert_allclose(g, differences(lambda p: f(p, y)[0], x), rtol=1e-6)
    np.testing.assert_allclose(h, differences(lambda p: f(x, p)[0], y), rtol=1e-6)
    np.testing.assert_allclose(H, differences(lambda p: f(p, y)[1], x), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(M, differences(lambda p: f(p, y)[2], x), rtol=1e-6, atol=1e-7)


def test_with_over_gradients():
    """Per-row gradients and Hessians, with a shared variable and a mapped scalar."""
    m = model("""vector x[d]; scalar y; shared w[d] = [0.5, -1.0, 2.0]
let p = sigmoid(x @ w)
let C = sqr(p - y) * sum(w * w)
grad g = C wrt w
hess H = C wrt w
data A = [[1.0, 2.0, 3.0], [0.1, -0.2, 0.3]]
data b = [1.0, 0.0]
let rows = (g with x = A, y = b)
let hessians = (H with x = A, y = b)
let inputs = (grad(C, x) with x = A, y = b)
let fixed = (g with x = A, y = 1.0)
let vectors = (jvp(p, x, x) with x = A)
let products = (hvp(C, w, x) with x = A, y = b)""")
    A, b = m["A"], m["b"]
    f = m.function(["x", "y"], ["g", "H", "grad(C, x)", "jvp(p, x, x)", "hvp(C, w, x)"])
    alone = [f(a, y) for a, y in zip(A, b)]
    for i, name in enumerate(["rows", "hessians", "inputs", "vectors", "products"]):
        np.testing.assert_allclose(m[name], [r[i] for r in alone], rtol=1e-13, err_msg=name)
    np.testing.assert_allclose(m["fixed"], [f(a, 1.0)[0] for a in A], rtol=1e-13)


def test_with_respect_to_a_let():
    """A name in `wrt` is taken as independent: what it is made of does not matter, and no rewrite swallows it."""
    m = model("vector x; let e = exp(x); let s = sum(e); let C = log(s); let a = grad(C, e); let b = grad(C, s); let c = hess(C, e); let d = grad(sum(sqr(a)), x)")
    x = np.array([0.1, 0.5])
    a, b, c, d = m.function(["x"], ["a", "b", "c", "d"])(x)
    s = np.exp(x).sum()
    np.testing.assert_allclose(a, [1 / s] * 2)
    np.testing.assert_allclose(b, 1 / s)
    np.testing.assert_allclose(c, np.full((2, 2), -1 / s**2))
    np.testing.assert_allclose(d, -4 / s**3 * np.exp(x))


def test_total_derivatives_of_names_that_depend_on_each_other():
    m = model("shared w = 0.7; let z = w * w; let q = sin(z); let C = z * q * w; grad gw, gz, gq = C wrt w, z, q; grad hq, hz, hw = C wrt q, z, w; let second = grad(gz, w)")
    w = 0.7
    z, q = w * w, np.sin(w * w)
    gq, gz = z * w, q * w + z * w * np.cos(z)
    gw = z * q + gz * 2 * w
    for name, wanted in {"gw": gw, "gz": gz, "gq": gq, "hw": gw, "hz": gz, "hq": gq}.items():
        np.testing.assert_allclose(m[name], wanted, rtol=1e-13, err_msg=name)
    second = q + z * np.cos(z) + 2 * w * w * (2 * np.cos(z) - z * np.sin(z))
    np.testing.assert_allclose(m["second"], second, rtol=1e-13)


def test_stop_grad():
    m = model("scalar x; let C = x * stop_grad(x * x) + stop_grad(sin(x)); let g = grad(C, x); let h = grad(g, x)")
    g, h = m.function(["x"], ["g", "h"])(3.0)
    assert g == 9 and h == 0                # constant to every order


def test_functions_that_differentiate():
    m = model("""vector x
def energy(q) = sum(sqr(q)) / 2 + prod(q)
def force(q):
  let e = energy(q)
  return -grad(e, q)
def newton(q):
  let e = energy(q)
  let h = hess(e, q)
  return h @ grad(e, q)
let a = force(x); let b = force(x * x); let c = newton(x); let d = jac(force(x), x); let e = grad(sum(force(x)), x)""")
    x = np.array([2.0, 3.0])
    a, b, c, d, e = m.function(["x"], ["a", "b", "c", "d", "e"])(x)
    np.testing.assert_allclose(a, -x - x[::-1])
    np.testing.assert_allclose(b, -(x**2) - x[::-1] ** 2)
    np.testing.assert_allclose(c, np.ones((2, 2)) @ (x + x[::-1]))
    np.testing.assert_allclose(d, -np.ones((2, 2)))
    np.testing.assert_allclose(e, [-2, -2])


def test_nested_derivatives_of_one_name():
    m = model("scalar x; let f = x ** 5; let a = grad(f, x); let b = grad(a, x); let c = grad(b, x); let d = grad(c * x, x); let e = jvp(jvp(f, x, 1.0), x, 2.0)")
    found = m.function(["x"], ["a", "b", "c", "d", "e"])(2.0)
    np.testing.assert_allclose(found, [5 * 16, 20 * 8, 60 * 4, 180 * 4, 40 * 8])


@pytest.mark.parametrize("values, gradient", [([2.0, 0.0, 3.0], [0, 6, 0]), ([0.0, 0.0, 3.0], [0, 0, 0]), ([1.0, 2.0, 3.0], [6, 3, 2])])
def test_products_with_zeros(values, gradient):
    m = model("vector x; let C = prod(x); let g = grad(C, x); let H = hess(C, x); let S = hess(sum(cumprod(x)), x); let t = jac(hess(C, x), x)")
    g, H, S, t = m.function(["x"], ["g", "H", "S", "t"])(values)
    a, b, c = values
    np.testing.assert_array_equal(g, gradient)
    np.testing.assert_array_equal(H, [[0, c, b], [c, 0, a], [b, a, 0]])
    np.testing.assert_array_equal(S, [[0, 1 + c, b], [1 + c, 0, a], [b, a, 0]])
    np.testing.assert_array_equal(t, [[[int({i, j, k} == {0, 1, 2}) for k in range(3)] for j in range(3)] for i in range(3)])


@pytest.mark.parametrize("op", ["max", "min"])
def test_ties_share(op):
    m = model(f"matrix x[n, k]; let g = grad(sum({op}(x, axis = 1) * [1, 10]), x); let h = grad({op}(x), x); let p = grad(sum(sort(x, axis = 1)[:, 0]), x)")
    x = [[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]]
    g, h, p = m.function(["x"], ["g", "h", "p"])(x)
    np.testing.assert_allclose(g, [[1 / 3] * 3, [10 / 3] * 3])
    np.testing.assert_allclose(h, np.full((2, 3), 1 / 6))
    np.testing.assert_array_equal(p.sum(axis=1), [1, 1])


def test_duplicates_of_indices_accumulate():
    m = model("matrix U[r, k]; int vector i, j; let y = sum(U[i] * U[j], axis = 1); let C = sum(y ** 3); let g = grad(C, U); let H = hess(C, U)")
    (U,) = arrays((4, 2))
    i, j = [1, 1, 3, -1], [1, 0, 3, 3]
    f = m.function(["U", "i", "j"], ["C", "g", "H"])
    _, g, H = f(U, i, j)
    np.testing.assert_allclose(g, differences(lambda p: f(p, i, j)[0], U), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(H, differences(lambda p: f(p, i, j)[1], U), rtol=1e-6, atol=1e-6)
    assert (g[2] == 0).all()


def test_shared_parts_are_differentiated_once():
    """A chain of doublings is linear in its length, not exponential."""
    m = model("scalar x; " + "; ".join(f"let y{k + 1} = y{k} * y{k} + y{k}" for k in range(40)).replace("y0", "x") + "; let g = grad(y40, x)")
    assert m.eval("g", x=0.0) == 1


def test_float32_stays_float32():
    m = model("precision float32; matrix X[n, d]; shared w[d] = [1.0, 2.0]; cost C = mean(sqr(X @ w)) + std(w); grad g = C wrt w; hess H = C wrt w")
    g, h = m.function(["X"], ["g", "H"])([[1, 2], [3, 4], [5, 7]])
    assert g.dtype == h.dtype == np.float32
    X, w = np.array([[1, 2], [3, 4], [5, 7]]), np.array([1.0, 2.0])
    np.testing.assert_allclose(g, 2 / 3 * X.T @ (X @ w) + (w - w.mean()) / (w.std() * 2), rtol=1e-5)


@pytest.mark.parametrize("text, code", [
    ("vector x; int vector i; let g = grad(sum(x[i]), i)", "E0203"),
    ("vector x; let g = grad(x, x)", "E0204"),
    ("vector x; let g = grad(argmax(x), x)", "E0203"),
    ("scalar x; scalar z; grad g = x * x wrt z", "E04"),
])  # fmt: skip
def test_what_has_no_gradient(text, code):
    with pytest.raises(dsl.LrError, match=code):
        dsl.compile(text)
