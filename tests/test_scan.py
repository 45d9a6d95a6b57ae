# ruff: noqa: E501  (tables: a case a row)
"""Loops against JAX's `lax.scan` in double precision (values, gradients, second order), NumPy loops and differences."""

import io
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import dsl
from dsl.backends.numpy import NumpyBackend
from dsl.errors import LrError, Source
from dsl.ir.node import everything, topological
from dsl.ops.control import LOOPS, opened, same_loop, scan
from dsl.ops.scalar import tanh
from dsl.pipeline import Options, prepare
from dsl.syntax.values import Symbol

jax.config.update("jax_enable_x64", True)


def model(text: str, **given) -> dsl.Model:
    m = dsl.compile(text, device="numpy", **given)
    m.session.compute.check = True
    return m


def rng_arrays(shapes: dict[str, tuple[int, ...]], seed=0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(-0.9, 0.9, shape) for name, shape in shapes.items()}


def node(m: dsl.Model, name: str):
    symbol: Symbol = m.session.elaborator.scope[name]
    return symbol.value


def compiled(m: dsl.Model, *names: str):
    return prepare([node(m, name) for name in names], Options(check=True, origins=m.session.elaborator.origins))


# ---------------------------------------------------------------- against JAX, to the second order
def states(step, start, xs, reverse=False):
    """All states of a carry (a tuple of several) after each step."""
    def both(c, x):
        new = step(c, x)
        return new, new
    return lax.scan(both, start, xs, reverse=reverse)[1]


def last(step, start, xs):
    return lax.scan(lambda c, x: (step(c, x), 0.0), start, xs)[0]


CASES = {
    "logistic map": ("scalar a", "scan(x = 0.4 for i in arange(9): (3.2 + a) * x * (1 - x))", {"a": ()},
                     lambda a: states(lambda x, i: (3.2 + a) * x * (1 - x), 0.4, jnp.arange(9))),
    "start": ("scalar a, b", "fold(x = a * b for i in arange(5): sin(x) + b * x)", {"a": (), "b": ()},
              lambda a, b: last(lambda x, i: jnp.sin(x) + b * x, a * b, jnp.arange(5))),
    "rnn": ("matrix W[h, h], U[h, d], X[t, d]\nvector b[h]", "scan(s = zeros(h) for x in X: tanh(W @ s + U @ x + b))",
            {"W": (3, 3), "U": (3, 2), "X": (6, 2), "b": (3,)},
            lambda W, U, X, b: states(lambda s, x: jnp.tanh(W @ s + U @ x + b), jnp.zeros(3), X)),
    "gated": ("matrix W[h, h], U[h, h], X[t, h]", "fold((s, m) = (zeros(h), ones(h)) for x in X: (sigmoid(W @ s + x) * m + (1 - sigmoid(W @ s + x)) * s, tanh(U @ m + s)))[0]",
              {"W": (3, 3), "U": (3, 3), "X": (5, 3)},
              lambda W, U, X: last(lambda c, x: ((g := jax.nn.sigmoid(W @ c[0] + x)) * c[1] + (1 - g) * c[0], jnp.tanh(U @ c[1] + c[0])), (jnp.zeros(3), jnp.ones(3)), X)[0]),
    "two outputs": ("vector u[t], v[t]\nscalar k", "oscillator(u, v, k)", {"u": (6,), "v": (6,), "k": ()},
                    lambda u, v, k: (lambda p, q: p[-1] * q[2] + jnp.sum(p * q) * k)(*states(lambda c, e: (c[0] + 0.1 * c[1] * e[0], c[1] - 0.1 * jnp.sin(c[0]) * k + e[1]), (0.3, 0.1), (u, v)))),
    "integers beside": ("vector u[t]", "fold((s, n) = (0.0, 0) for x in u: (s * n + x * x, n + 1))[0]", {"u": (5,)},
                        lambda u: last(lambda c, x: (c[0] * c[1] + x * x, c[1] + 1), (0.0, 0), u)[0]),
    "picked by index": ("matrix E[n, d]\nvector w[d]", "fold(s = w for i in [2, 0, 2, 1]: tanh(s * E[i]) + s)", {"E": (3, 2), "w": (2,)},
                        lambda E, w: last(lambda s, i: jnp.tanh(s * jnp.asarray(E)[i]) + s, w, jnp.array([2, 0, 2, 1]))),
    "matrices": ("tensor M[t, n, n]", "fold(P = eye(n) for m in M: P @ m + 0.1 * P.T)", {"M": (4, 2, 2)},
                 lambda M: last(lambda P, m: P @ m + 0.1 * P.T, jnp.eye(2), M)),
    "nested": ("vector u[t]\nscalar w", "scan(s = w for x in u: s * 0.5 + fold(r = x for y in u: cos(r * w) + s * y))", {"u": (4,), "w": ()},
               lambda u, w: states(lambda s, x: s * 0.5 + last(lambda r, y: jnp.cos(r * w) + s * y, x, u), w, u)),
    "scan of a scan": ("vector u[t]\nscalar w", "fold(s = 1.0 for x in scan(r = w for y in u: r * y + w): s * cos(x) + w)", {"u": (4,), "w": ()},
                       lambda u, w: last(lambda s, x: s * jnp.cos(x) + w, 1.0, states(lambda r, y: r * y + w, w, u))),
    "branches": ("vector u[t]\nscalar w", "scan(s = w for x in u: if x > 0 then log(1.5 + s * x) else s * s - x)", {"u": (7,), "w": ()},
                 lambda u, w: states(lambda s, x: jnp.where(x > 0, jnp.log(jnp.where(x > 0, 1.5 + s * x, 1.0)), s * s - x), w, u)),
    "reductions": ("matrix X[t, d]", "scan(s = ones(d) for x in X: softmax(s * x) + mean(s) * x)", {"X": (4, 3)},
                   lambda X: states(lambda s, x: jax.nn.softmax(s * x) + jnp.mean(s) * x, jnp.ones(3), X)),
    "unused carry": ("vector u[t]\nscalar w", "fold((s, r) = (w, w * w) for x in u: (s + x * x * w, r * s))[0]", {"u": (3,), "w": ()},
                     lambda u, w: last(lambda c, x: (c[0] + x * x * w, c[1] * c[0]), (w, w * w), u)[0]),
    "named outside": ("matrix A[n, n]\nvector v[n]", "fold(s = v for i in arange(3): S @ s + exp(-d) * s)", {"A": (2, 2), "v": (2,)},
                      lambda A, v: last(lambda s, i: (A + A.T) @ s + jnp.exp(-jnp.log(1 + jnp.exp(v))) * s, v, jnp.arange(3))),
    "derivative inside": ("scalar a, b", "fold(x = a for i in arange(4): x - 0.3 * grad(sin(x * b) + x ** 3 * b, x))", {"a": (), "b": ()},
                          lambda a, b: last(lambda x, i: x - 0.3 * jax.grad(lambda x: jnp.sin(x * b) + x**3 * b)(x), a, jnp.arange(4))),
}
BEFORE = {
    "two outputs": """def oscillator(u, v, k):
  let p, q = scan((p, q) = (0.3, 0.1) for (a, b) in (u, v): (p + 0.1 * q * a, q - 0.1 * sin(p) * k + b))
  return p[-1] * q[2] + sum(p * q) * k
""",
    "named outside": "let S = A + A.T\nlet d = log(1 + exp(v))\n",
}


def written(name: str) -> tuple[str, dict, object]:
    declared, expression, shapes, function = CASES[name]
    before = BEFORE.get(name, "")
    head = f"{before}{declared}\n" if before.startswith("def") else f"{declared}\n{before}"
    lines = [f"let f = {expression}", "let c = sum(f * sin(1 + f))"]
    for x in shapes:
        lines += [f"grad g_{x} = c wrt {x}", f"hess h_{x} = c wrt {x}", f"jac j_{x} = f wrt {x}"]
    return head + "\n".join(lines), shapes, function


@pytest.mark.parametrize("name", CASES)
def test_against_jax(name):
    text, shapes, function = written(name)
    m, values = model(text), rng_arrays(shapes)
    where = list(range(len(shapes)))

    def cost(*xs):
        f = function(*xs)
        return jnp.sum(f * jnp.sin(1 + f))
    oracle = jax.jit(lambda *xs: (function(*xs), jax.grad(cost, where)(*xs), jax.jacobian(function, where)(*xs), [jax.hessian(cost, i)(*xs) for i in where]))
    value, gradients, jacobians, hessians = oracle(*values.values())
    np.testing.assert_allclose(m.eval("f", **values), value, rtol=1e-12, atol=1e-13)
    for i, x in enumerate(shapes):
        np.testing.assert_allclose(m.eval(f"g_{x}", **values), gradients[i], rtol=1e-10, atol=1e-12, err_msg=f"gradient {x}")
        np.testing.assert_allclose(m.eval(f"j_{x}", **values), jacobians[i], rtol=1e-10, atol=1e-12, err_msg=f"Jacobian {x}")
        np.testing.assert_allclose(m.eval(f"h_{x}", **values), hessians[i], rtol=1e-9, atol=1e-11, err_msg=f"Hessian {x}")


@pytest.mark.parametrize("name", ["nested", "gated", "branches"])
def test_products_with_derivatives(name):
    """jvp, vjp and hvp, and a third derivative along a direction."""
    text, shapes, function = written(name)
    x, values = next(iter(shapes)), rng_arrays(shapes, 1)
    given, v = tuple(values.values()), np.random.default_rng(2).standard_normal(shapes[x])
    direction = f"data v = {v.tolist()}\n"
    m = model(f"{direction}{text}\nlet hv = hvp(c, {x}, v)\nlet jv = jvp(f, {x}, v)\nlet vj = vjp(f, {x}, cos(f))\nlet third = vjp(hv, {x}, v)")

    def cost(p):
        f = function(p, *given[1:])
        return jnp.sum(f * jnp.sin(1 + f))

    def along(p):
        return jax.jvp(jax.grad(cost), (p,), (v,))[1]

    @jax.jit
    def oracle(first):
        out, pull = jax.vjp(lambda p: function(p, *given[1:]), first)
        return {"hv": along(first), "jv": jax.jvp(lambda p: function(p, *given[1:]), (first,), (v,))[1], "vj": pull(jnp.cos(out))[0],
                "third": jax.vjp(along, first)[1](jnp.asarray(v))[0]}
    wanted = oracle(given[0])
    for key, value in wanted.items():
        np.testing.assert_allclose(m.eval(key, **values), value, rtol=1e-9, atol=1e-11, err_msg=key)


@pytest.mark.parametrize("name", [n for n in CASES if n not in ("integers beside",)])
def test_rows(name):
    """The rank rule: an expression bound one rank higher is the row-by-row result."""
    text, shapes, _ = written(name)
    m = model(text)
    for mapped in shapes:
        rows = rng_arrays({k: (3, *s) if k == mapped else s for k, s in shapes.items()}, 3)
        for what in ("f", f"g_{mapped}", f"g_{list(shapes)[-1]}"):
            wanted = [m.eval(what, **{k: v[i] if k == mapped else v for k, v in rows.items()}) for i in range(3)]
            np.testing.assert_allclose(m.eval(what, **rows), np.stack(wanted), rtol=1e-12, atol=1e-13, err_msg=f"{what} by {mapped}")
    both = rng_arrays({k: (3, *s) for k, s in shapes.items()}, 4)
    wanted = [m.eval("f", **{k: v[i] for k, v in both.items()}) for i in range(3)]
    np.testing.assert_allclose(m.eval("f", **both), np.stack(wanted), rtol=1e-12, atol=1e-13)


# ---------------------------------------------------------------- random loops
class Writer:
    """Writes a random smooth step over scalars or vectors, as text and as a function."""

    UNARY = [("tanh({})", jnp.tanh), ("sin({})", jnp.sin), ("sigmoid({})", jax.nn.sigmoid), ("log(1 + exp({}))", jax.nn.softplus), ("0.5 * {}", lambda x: 0.5 * x)]
    BINARY = [("({} + {})", jnp.add), ("({} * {})", jnp.multiply), ("({} - {})", jnp.subtract), ("where({0} > {1}, {0}, 0.3 * {1})", lambda a, b: jnp.where(a > b, a, 0.3 * b))]

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def term(self, names, depth):
        pick = self.random
        if depth == 0 or pick.random() < 0.15:
            name = pick.choice(names)
            return name, lambda scope: scope[name]
        if pick.random() < 0.45:
            (form, f), (text, run) = pick.choice(self.UNARY), self.term(names, depth - 1)
            return form.format(text), lambda scope: f(run(scope))
        if pick.random() < 0.12:
            return self.loop(names, depth - 1)
        (form, f), (a, run_a), (b, run_b) = pick.choice(self.BINARY), self.term(names, depth - 1), self.term(names, depth - 1)
        return form.format(a, b), lambda scope: f(run_a(scope), run_b(scope))

    def loop(self, names, depth):
        """A fold over `u` of one or two values."""
        count = self.random.choice((1, 2))
        level = sum(n.startswith("e") for n in names)
        carried, element = [f"c{level}{k}" for k in range(count)], f"e{level}"
        starts = [self.term(names, min(depth, 1)) for _ in carried]
        steps = [self.term([*names, *carried, element], depth) for _ in carried]
        place = self.random.randrange(count)
        many = "({})".format if count > 1 else "{}".format
        text = (f"fold({many(', '.join(carried))} = {many(', '.join(t for t, _ in starts))} for {element} in u: "
                f"{many(', '.join(t for t, _ in steps))})" + (f"[{place}]" if count > 1 else ""))

        def run(scope):
            def step(c, x):
                inner = {**scope, **dict(zip(carried, c, strict=True)), element: x}
                return tuple(f(inner) for _, f in steps), 0.0
            first = tuple(jnp.asarray(f(scope), dtype=float) for _, f in starts)
            return lax.scan(step, first, scope["u"])[0][place]
        return text, run


@pytest.mark.parametrize("seed", range(12))
def test_random_loops(seed):
    text, run = Writer(seed).loop(["a", "b"], 3)
    m = model(f"vector u[t]\nscalar a, b\nlet f = {text}\nlet ga = if true then grad(f, a) else 0.0\nlet gu = vjp(f, u, 1.0)\nlet gab = vjp(ga, b, 1.0)\nlet guu = jac(gu, u)")
    values = rng_arrays({"u": (3,), "a": (), "b": ()}, seed)

    def f(u, a, b):
        return run({"u": u, "a": a, "b": b})
    given = values["u"], values["a"], values["b"]
    oracle = jax.jit(lambda *g: {"f": f(*g), "ga": jax.grad(f, 1)(*g), "gu": jax.grad(f)(*g), "gab": jax.grad(jax.grad(f, 1), 2)(*g), "guu": jax.hessian(f)(*g)})
    wanted = oracle(*given)
    for key, value in wanted.items():
        np.testing.assert_allclose(m.eval(key, **values), value, rtol=1e-9, atol=1e-10, err_msg=f"{key} of {text}")
    rows = rng_arrays({"a": (4,)}, seed)["a"]
    np.testing.assert_allclose(m.eval("ga", **{**values, "a": rows}), [m.eval("ga", **{**values, "a": x}) for x in rows], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("steps", [16, 23, 40])
def test_segments(steps, monkeypatch):
    """Beyond the memory budget states are computed again by segments: other loops, the same derivatives."""
    text = f"""dim t = {steps}
vector u[t]
scalar w
let p, q = fold((p, q) = (w, zeros(3)) for x in u: (sin(p * x + w) + sum(q), tanh(q * w + x * p)))
let f = p * sum(q) + p
let g = grad(f, w)
let gu = vjp(f, u, 1.0)
let h = grad(g, w)
let masked = grad(where(w > 0, f, w * w), w)
"""
    values = rng_arrays({"u": (steps,)}, 5)
    outputs = ("g", "gu", "h", "masked")
    whole = {n: model(text).eval(n, **values, w=0.3) for n in outputs}
    monkeypatch.setattr("dsl.passes.segments.MOST_STATES", 1000)
    m = model(text)
    for n in outputs:
        np.testing.assert_allclose(m.eval(n, **values, w=0.3), whole[n], rtol=1e-11, atol=1e-13, err_msg=n)
    assert m.eval("masked", **values, w=-0.5) == -1.0
    (g,) = compiled(m, "g")
    longest = max(n.shape[0].constant or 0 for n in everything([g]) if n.op is scan and n.attr("output")[0] == "all")
    assert longest <= 6


# ---------------------------------------------------------------- dead steps
def test_what_no_step_uses_is_dead_to_derivatives():
    """A nan or an overflow in a branch not taken reaches no derivative of any order, inside a step, between steps and outside."""
    m = model("""vector u[t]
scalar a, k
let inside = fold(s = a for x in u: where(x > 0, s * log(x), s * s))
let between = fold(s = a for x in u: where(x > 5, x * a, exp(1000 * s * s)))
let z = log(k)
let outside = where(k > 0, fold(s = a for x in u: s * x + z), a * a)
let sequence = fold(s = a for x in log(u): where(a > 0, s + a, s * x))
let inside_a = grad(inside, a)
let inside_aa = grad(inside_a, a)
let inside_u = vjp(inside, u, 1.0)
let between_a = grad(between, a)
let between_aa = vjp(between_a, a, 1.0)
let outside_a = grad(outside, a)
let outside_aa = vjp(outside_a, a, 1.0)
let outside_k = grad(outside, k)
let outside_u = vjp(outside, u, 1.0)
let sequence_u = vjp(sequence, u, 1.0)
""")
    u = np.array([2.0, -1.0, 3.0, 7.0])
    a, log2, log3, log7 = 0.8, np.log(2), np.log(3), np.log(7)
    part = log3 * log7 * log2**2                     # inside is a² log²2 log 3 log 7
    np.testing.assert_allclose(m.eval("inside", u=u, a=a), part * a**2)
    np.testing.assert_allclose(m.eval("inside_a", u=u, a=a), 2 * part * a)
    np.testing.assert_allclose(m.eval("inside_aa", u=u, a=a), 2 * part)
    assert np.isfinite(m.eval("inside_u", u=u, a=a)).all() and m.eval("inside_u", u=u, a=a)[1] == 0
    assert [float(m.eval(n, u=u, a=a)) for n in ("between", "between_a", "between_aa")] == [7 * a, 7.0, 0.0]
    assert [float(m.eval(n, u=u, a=a, k=-1.0)) for n in ("outside", "outside_a", "outside_aa", "outside_k")] == [a * a, 2 * a, 2.0, 0.0]
    np.testing.assert_array_equal(m.eval("outside_u", u=u, a=a, k=-1.0), np.zeros(4))
    np.testing.assert_array_equal(m.eval("sequence_u", u=u, a=a), np.zeros(4))
    np.testing.assert_allclose(m.eval("outside_a", u=u, a=[a, a], k=[2.0, -1.0]), [np.prod(u), 2 * a])


ROWS = """vector x[n]
int vector i[n]
scalar k
shared w = 0.5
let f = where(k > 0, fold(s = w for j in i: s * w + x[j]), -w)
let g = where(k > 0, iterate(v = 1.0 while v < 10 max 20: v * k), -1.0)
cost C = mean(sqr(f - k))
grad gw = C wrt w
let both = fold(s = 0.0 for t in x: s + where(k > 0, fold(r = t for j in i: r + x[j]), t))
"""


def test_rows_that_are_not_taken():
    """With rows mapped, a loop in a branch is used row by row: neither an index nor a limit of another row is a fault."""
    m = model(ROWS)
    x, good, bad = np.array([[1.0, 2], [3, 4], [5, 6]]), [1, 0], [7, -9]
    given = {"x": x, "i": np.array([good, bad, good]), "k": np.array([2.0, -1, 3])}
    for name in ("f", "C", "gw", "both"):
        wanted = [m.eval(name, x=x[r], i=given["i"][r], k=given["k"][r]) for r in range(3)]
        np.testing.assert_allclose(m.eval(name, **given), wanted, err_msg=name)
    np.testing.assert_array_equal(m.eval("g", k=[2.0, -1, -0.5]), [16, -1, -1])
    with pytest.raises(LrError, match="E0702"):
        m.eval("f", x=x, i=given["i"], k=[2.0, 1, 3])
    with pytest.raises(LrError, match="E0708"):
        m.eval("g", k=[2.0, 0.5])


def test_rows_that_are_not_taken_in_training():
    m = model(ROWS + "update w <- w - 0.01 * gw\n")
    data = {"x": np.array([[1.0, 2], [3, 4], [5, 6]]), "i": np.array([[1, 0], [7, -9], [1, 0]]), "k": np.array([2.0, -1, 3])}
    slopes = [m.eval("gw", **{n: a[r] for n, a in data.items()}) for r in range(3)]
    m.train(epochs=1, batch=3, data=data)
    np.testing.assert_allclose(m["w"], 0.5 - 0.01 * np.mean(slopes), rtol=1e-13)


# ---------------------------------------------------------------- forms
def test_equal_loops_are_one():
    """Names of a loop are no part of it, and its outputs are computed together."""
    m = model("vector u[n]\nscalar w\nlet a = scan(v = w for t in u: v * t + w)\nlet b = scan(state = w for x in u: state * x + w)\n"
              "let p, q = scan((p, q) = (w, 1.0) for t in u: (q, p * t))\nlet r = fold((x, y) = (w, 1.0) for z in u: (y, x * z))[1]")
    a, b, p, q, r = compiled(m, "a", "b", "p", "q", "r")
    assert a is b and p is not q and same_loop(p) == same_loop(q) == same_loop(r)
    runners = {id(loop) for loop in NumpyBackend().compile([p, q, r]).loops.values()}
    assert len(runners) == 1


def test_what_no_step_changes_is_computed_once():
    m = model("matrix A[n, n]\nvector x[n]\nlet f = fold(v = x for i in arange(5): tanh(A @ A @ v + sum(exp(x))))")
    (f,) = compiled(m, "f")
    inside = [n.op.name for n in everything(opened(f).body)]
    assert "matmul" in inside and "exp" not in inside and "sum" not in inside
    faulting = model("int scalar k\nlet f = fold(v = 0 for t in zeros(0): v + 1 // k)")
    assert faulting.eval("f", k=0) == 0


def test_rules_apply_in_bodies():
    m = model("scalar a\nlet e = exp(a)\nlet f = fold(v = a for i in arange(2): log(exp(v * 600) + e))\nlet g = fold(v = a for i in arange(1): log(1 + exp(v)))")
    f, g = compiled(m, "f", "g")
    assert [n.op.name for n in opened(f).body] == ["logaddexp"] and [n.op.name for n in opened(g).body] == ["softplus"]
    assert m.eval("f", a=2.0) == 720000.0


def test_gradient_keeps_no_state_it_does_not_read():
    """The adjoint of a sum needs no states, and the loop itself is not run for its gradient."""
    m = model("vector u[n]\nscalar w\nlet f = fold(v = w for t in u: v + t * w)\nlet g = grad(f, w)")
    (g,) = compiled(m, "g")
    loops = {same_loop(n) for n in topological([g]) if n.op in LOOPS}
    assert len(loops) == 1


def test_adjoint_of_several_outputs_is_one_loop():
    m = model("vector u[n]\nscalar w\nlet p, q = scan((p, q) = (w, w) for t in u: (p * q + t, q * t))\nlet g = grad(sum(p * q) + p[2], w)")
    (g,) = compiled(m, "g")
    loops = {same_loop(n) for n in topological([g]) if n.op is scan}
    assert len(loops) == 2


def test_listing_of_a_body_has_its_ops():
    m = model("vector u[n]\nlet f = fold(v = 0.0 for t in u: tanh(v + t))")
    (f,) = compiled(m, "f")
    assert any(n.op is tanh for n in everything([f])) and not any(n.op is tanh for n in topological([f]))


def test_sizes_inside_bodies():
    """Sizes that only a body has are solved and checked like others."""
    m = model("vector u[n], v[m]\nlet f = fold(s = 0.0 for t in u: s + t * sum(v + arange(m)))\nlet g = scan(s = zeros(n) for t in v: s + t * u)")
    np.testing.assert_allclose(m.eval("f", u=[1.0, 2], v=[1.0, 1, 1]), 18)
    np.testing.assert_allclose(m.eval("f", u=[1.0, 2, 3], v=[1.0]), 6)
    assert m.eval("g", u=[1.0, 2], v=[1.0, 1, 1]).shape == (3, 2)
    anonymous = model("vector u, v\nlet f = fold(s = u for t in v: s * t + u)")
    np.testing.assert_allclose(anonymous.eval("f", u=[1.0, 2], v=[1.0, 2, 3]), [16, 32])
    with pytest.raises(LrError, match="E0215"):
        model("vector u, v\nlet f = fold(s = u for t in v: s * t + v)").eval("f", u=[1.0, 2], v=[1.0, 2, 3])


def test_lengths_of_nothing():
    m = model("vector u[n]\nscalar w\nlet f = fold(v = w * w for t in u: v * t)\nlet all = scan(v = w for t in u: v * t)\nlet g = grad(f, w)\nlet gu = vjp(f, u, 1.0)\nlet ga = grad(sum(all), w)")
    values = {"u": np.zeros(0), "w": 3.0}
    assert [float(m.eval(n, **values)) for n in ("f", "g", "ga")] == [9.0, 6.0, 0.0]
    assert m.eval("all", **values).shape == (0,) == m.eval("gu", **values).shape


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_dtypes(precision):
    m = model(f"precision {precision}\ndata xs = [1.5, 2.5]\nlet a = fold(v = 0 for t in xs: v + t)\nlet b = scan(v = 1 for t in [1, 2]: v * t)\n"
              "let c = fold(v = false for t in xs: v or t > 2)\nlet d, e = scan((d, e) = (0, true) for t in xs: (d + 1, not e))\nlet f = fold(v = 0.0 for t in [1, 2]: t)")
    assert [m[n].dtype.name for n in "abcdef"] == [precision, "int64", "bool", "int64", "bool", precision]
    assert m["a"] == 4 and m["c"] and m["e"].tolist() == [False, True] and m["f"] == 2


# ---------------------------------------------------------------- draws
def test_draws_are_their_own_in_every_iteration():
    m = model("seed 5\nlet walk = scan(v = 0.0 for i in arange(2000): normal())\nlet pair = scan((a, b) = (0.0, 0.0) for i in arange(500): (normal(), normal()))\n"
              "let nested = scan(v = zeros(40) for i in arange(30): scan(u = 0.0 for j in arange(40): uniform()))\nlet one = normal()\nlet same = scan(v = 0.0 for i in arange(5): one)\n"
              "let order = scan(p = zeros(6) for i in arange(50): permutation(6))")
    walk, pair, nested = m["walk"], m.eval("stack(pair)"), m["nested"]
    assert len(set(walk)) == 2000 and abs(walk.mean()) < 0.1 and abs(walk.std() - 1) < 0.1 and abs(np.corrcoef(walk[:-1], walk[1:])[0, 1]) < 0.1
    assert len(set(pair.ravel())) == 1000 and len(set(nested.ravel())) == 1200
    assert len(set(m["same"])) == 1 and len({tuple(p) for p in m["order"]}) > 30
    again = model("seed 5\nlet walk = scan(v = 0.0 for i in arange(2000): normal())")
    np.testing.assert_array_equal(again["walk"], walk)
    shorter = model("seed 5\nlet walk = scan(v = 0.0 for i in arange(20): normal())")
    np.testing.assert_array_equal(shorter["walk"], walk[:20])
    other = model("seed 6\nlet walk = scan(v = 0.0 for i in arange(20): normal())")
    assert not np.isin(other["walk"], walk).any()


def test_draws_are_the_same_in_the_gradient():
    """The recomputed body draws what the forward one drew."""
    m = model("scalar w\nlet f = fold(v = 1.0 for i in arange(6): v * w + normal())\nlet g = grad(f, w)")
    step = 1e-6
    slope = (m.eval("f", w=0.7 + step) - m.eval("f", w=0.7 - step)) / (2 * step)
    np.testing.assert_allclose(m.eval("g", w=0.7), slope, rtol=1e-7)


def test_draws_of_rows_and_turns():
    m = model("scalar w\nlet f = fold(v = w for i in arange(3): v + normal())\nlet t = iterate((v, n) = (0.0, 0) while n < 50 max 60: (normal(), n + 1))\n"
              "let u = iterate((s, n) = (0.0, 0) while n < 50 max 60: (s + uniform(), n + 1))")
    rows = m.eval("f", w=np.zeros(100))
    assert len(set(rows)) == 100
    assert 15 < m.eval("u[0]") < 35


def test_dropout_in_a_loop_is_active_in_training_only():
    text = """seed 2
shared w = 1.0, kept = 0.0
let ys = scan(v = 0.0 for i in arange(400): dropout(w, 0.5))
update kept <- sum(where(ys > 0, 1.0, 0.0))
"""
    m = model(text)
    assert (m["ys"] == 1).all()
    m.train(steps=1)
    assert 150 < m["kept"] < 250


# ---------------------------------------------------------------- iterate
def test_iterate_against_numpy():
    m = model("scalar a, tol\nlet x, n = iterate((x, n) = (a, 0) while abs(x * x - a) > tol max 100: (0.5 * (x + a / x), n + 1))")
    for a in (2.0, 1e-3, 12345.0):
        x, n = a, 0
        while abs(x * x - a) > 1e-9:
            x, n = 0.5 * (x + a / x), n + 1
        assert m.eval("x", a=a, tol=1e-9) == x and m.eval("n", a=a, tol=1e-9) == n
    rows = np.array([2.0, 1e-3, 12345.0, 1.0])
    np.testing.assert_array_equal(m.eval("n", a=rows, tol=1e-9), [m.eval("n", a=a, tol=1e-9) for a in rows])
    np.testing.assert_array_equal(m.eval("x", a=rows, tol=1e-9), [m.eval("x", a=a, tol=1e-9) for a in rows])
    with pytest.raises(LrError, match=r"E0708.*max 100"):
        m.eval("x", a=-1.0, tol=1e-9)


def test_derivatives_beside_iterate():
    """What a derivative does not go through may hold an `iterate`."""
    m = model("""scalar w
let a = fold((s, r) = (w, 2.0) for i in arange(3): (s * r, iterate(x = r while x < 3 * r max 60: x + 1)))[0]
let b = w * stop_grad(iterate(x = w while x < 10 max 9: x * 3))
let c = w * float(iterate(n = 0 while n < w max 20: n + 1))
let ga = grad(a, w)
let gb = grad(b, w)
let gc = grad(c, w)
""")
    assert m.eval("a", w=3.0) == 3 * 2 * 6 * 18 and m.eval("ga", w=3.0) == 2 * 6 * 18
    assert m.eval("gb", w=2.0) == 18 and m.eval("gc", w=2.5) == 3


@pytest.mark.parametrize("end", ["stop_grad(iterate(x = w while x > 0.1 max 9: x * 0.5))", "stop_grad(2 * g)",
                                 "stop_grad(fold(p = g for j in arange(2): p * g))"])
@pytest.mark.parametrize("loop", ["fold((a, b) = (w, w) for i in arange(3): (0.5 * a + b * {}, b * b))[0]",
                                  "fold(a = w for i in arange(3): fold(p = a for j in arange(2): 0.5 * p + {}))"])
def test_a_step_may_end_derivatives_at_an_iterate_outside(end, loop):
    """What no step changes is computed before the loop, without what ended the derivative there."""
    text = f"scalar w, c\nlet g = iterate(h = w while h > 0.1 max 9: h * 0.5)\nlet s = {end}\n"
    m = model(f"{text}let y = {loop.format(end)}\nlet z = {loop.format('c')}\nlet gy = grad(y, w)\nlet gz = grad(z, w)\n")
    assert m.eval("gy", w=0.7) == pytest.approx(m.eval("gz", w=0.7, c=m.eval("s", w=0.7)), rel=1e-13)
    with pytest.raises(LrError, match="E0421"):
        model("scalar w\nlet g = iterate(h = w while h > 0.1 max 9: h * 0.5)\n"
              "let y = fold((a, b) = (w, stop_grad(g)) for i in arange(3): (a * b, tanh(g)))[0]\nlet gy = grad(y, w)")


@pytest.mark.parametrize("device", ["numpy", "cpu"])
def test_rows_that_draw_until_they_are_done(device):
    """Each row draws for itself in its own number of turns, and one that is done stays so, whatever would be drawn next."""
    m = dsl.compile("""scalar x
let tries = iterate(h = 0.0 while uniform() > 0.5 max 60: h + 1)
let small = iterate(h = x while h > 0.1 max 60: 0.5 * h * sigmoid(normal()))
let h, turns = iterate((h, c) = (x, 0) while h > 0.1 and c < 4 max 60: (0.5 * h + 0 * normal(), c + 1))
let late = iterate((h, c) = (x, 0) while h > 0.1 or c == 6 max 60: (0.5 * h + 0 * normal(), c + 1))[0]
let within = iterate(h = x while h > 0.1 max 60: fold(p = h for i in arange(2): p * (0.5 + 0.2 * uniform())))
""", device=device, seed=5)
    x = np.concatenate([[0.05, 0.15, 0.3, 0.7, 1.0, 9.0], np.linspace(0.2, 20, 3000)])
    tries = m.eval("tries + 0 * x", x=x)
    assert abs(tries.mean() - 1) < 0.1 and abs((tries == 0).mean() - 0.5) < 0.04 and len(set(tries)) > 6
    for name in ("small", "within"):
        found = m.eval(name, x=x)
        assert np.all(found <= 0.1) and np.all(found > 0) and found[0] == 0.05 and len(set(found[6:])) > 2900
    wanted = np.clip(np.ceil(np.log2(x / 0.1)), 0, 4)
    np.testing.assert_array_equal(m.eval("turns", x=x), wanted)
    np.testing.assert_allclose(m.eval("h", x=x), x * 0.5**wanted, rtol=1e-15)
    np.testing.assert_allclose(m.eval("late", x=x), x * 0.5**np.array([row_by_row(v) for v in x]), rtol=1e-15)


def row_by_row(h: float) -> int:
    c = 0
    while h > 0.1 or c == 6:
        h, c = 0.5 * h, c + 1
    return c


def test_iterate_reaches_exactly_max():
    assert model("let v = iterate(v = 0 while v < 5 max 5: v + 1)")["v"] == 5
    with pytest.raises(LrError, match="E0708"):
        model("let v = iterate(v = 0 while v < 5 max 4: v + 1)")["v"]
    dims = model("dim k = 4\nlet v = iterate(v = 0 while v < 5 max k + 1: v + 1)")
    assert dims["v"] == 5


def test_iterate_in_an_update():
    m = model("shared w = 3.0\nupdate w <- iterate(v = w while v > 1 max 50: v / 2)\n")
    m.step()
    assert m["w"] == 0.75


# ---------------------------------------------------------------- training
RNN = """seed 1
dim h = 4
matrix X[t, d]
scalar y
shared W[h, h] = 0.3 * normal(), U[h, d] = 0.3 * normal(), b[h] = 0.0, v[h] = 0.3 * normal()
cost C = sqr(v @ fold(s = zeros(h) for x in X: tanh(W @ s + U @ x + b)) - y)
minimize C wrt all using sgd(rate = 0.05)
"""


def test_training_a_recurrent_network_against_jax():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((24, 7, 2)), rng.standard_normal(24)
    m = model(RNN)
    m.step(X=X[:1], y=y[:1])
    state = {k: np.array(m[k]) for k in "WUbv"}

    def cost(p, xs, ys):
        def one(x, t):
            s = last(lambda s, row: jnp.tanh(p["W"] @ s + p["U"] @ row + p["b"]), jnp.zeros(4), x)
            return (p["v"] @ s - t) ** 2
        return jnp.mean(jax.vmap(one)(xs, ys))
    slope = jax.jit(jax.grad(cost))
    for _ in range(5):
        for low in range(0, 24, 8):
            g = slope(state, X[low:low + 8], y[low:low + 8])
            state = {k: state[k] - 0.05 * g[k] for k in state}
    m.train(epochs=5, batch=8, data={"X": X, "y": y})
    for k in "WUbv":
        np.testing.assert_allclose(m[k], state[k], rtol=1e-9, atol=1e-11)


def test_time_steps_of_training_as_a_scan():
    """Gradient descent written as a loop over rows is what `train` does row by row."""
    xs, ys = np.linspace(-1, 1, 12), np.linspace(0, 2, 12) ** 2
    data = f"data xs = {xs.tolist()}\ndata ys = {ys.tolist()}\n"
    loop = model(data + """let w, b = fold((w, b) = (0.0, 0.0) for (x, y) in (xs, ys): (w - 0.1 * grad(sqr(w * x + b - y), w), b - 0.1 * grad(sqr(w * x + b - y), b)))""")
    trained = model(data + """scalar x, y
shared w = 0.0, b = 0.0
cost C = sqr(w * x + b - y)
grad gw, gb = C wrt w, b
update w <- w - 0.1 * gw
update b <- b - 0.1 * gb
train 1 epochs over x = xs, y = ys""")
    trained.run()
    np.testing.assert_allclose([loop["w"], loop["b"]], [trained["w"], trained["b"]], rtol=1e-13)


def test_shown_as_it_is_written():
    m = model("shared w = 0.5, v = 1.0\ndata xs = [1.0, 2]\nlet h = scan(state = 0.0 for x in xs: tanh(w * state + x))\n"
              "let g = fold(a = 0.0 for x in xs: a + v * x)\nlet p = iterate(a = 1.0 while a < 9 max 9: a * 3)", )
    shown = {n: m.session.shown(n, node(m, n)) for n in "hgp"}
    assert shown == {"h": "scan(v = 0 for t in xs: tanh(((w * v) + t)))", "g": "fold(v' = 0 for t' in xs: (v' + (v * t')))",
                     "p": "iterate(v = 1 while (v < 9) max 9: (v * 3))"}


def test_bad_step_of_a_nested_loop_is_found():
    out = io.StringIO()
    session = dsl.Session(stdout=out, quiet=True, device="numpy")
    text = """shared w = 1.0
let f = fold(s = w for i in arange(4): s + fold(r = 1.0 for j in arange(3): r * log(2.5 - i - j + 0 * s)))
update w <- f
train 1 steps
"""
    session.load(Source("nested.lr", text))
    with pytest.raises(LrError, match=r"`log` gave nan here, from -0.5, in iteration 2 of the loop, in iteration 1 of the loop around it"):
        session.run()
