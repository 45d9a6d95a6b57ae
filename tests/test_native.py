"""The native device, held to the reference: every row of the op table, the examples, state and messages of training that
goes wrong in the middle of a burst, threads, sizes, Ctrl-C, and what has no loops.

The traps, the scripts of tests/good and all of test_train.py run on both devices where they are (the fixture `device`)."""
# ruff: noqa: E501  (tables: one case a line)
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import dsl
from dsl.backends.llvm import native
from dsl.backends.native import NativeBackend, NativeExecutable
from dsl.backends.numpy import NumpyExecutable
from dsl.cli import commands
from dsl.ir.node import TABLE, make, substitute
from dsl.ir.types import Dim, Size
from dsl.loops.legalise import FORMULAS
from dsl.ops.functions import FUNCTIONS
from tests.test_ops import (
    ATTRS,
    CASES,
    ELEMENTWISE,
    FLOATS,
    INTEGERS,
    INTS,
    REAL,
    SPECIALS,
    operand_dtypes,
    same_bits,
    samples,
    symbol,
    ulps,
)

EXAMPLES = Path(__file__).parent.parent / "examples"
TRAINED = sorted(p.stem for p in EXAMPLES.glob("*.lr") if "\ntrain " in p.read_text())


def compiled() -> int:
    """Programs made or loaded since the start."""
    return native.compilations + native.loads


def both(roots, values, sizes=()):
    """The graphs' values on the reference and natively."""
    executable = NativeBackend().compile(roots)
    assert isinstance(executable, NativeExecutable)
    return NumpyExecutable(roots)(values, dict(sizes)), executable(values, dict(sizes))


# ---------------------------------------------------------------- the op table: values
def operands(op, dtype, special):
    """Points of the domain, or all combinations of special values."""
    if not special:
        return samples(op, dtype, 100)
    dtypes = operand_dtypes(op, dtype)
    with np.errstate(all="ignore"):
        numbers = np.array(SPECIALS).astype(dtype) if dtype in FLOATS else \
            np.array([i for i in INTEGERS if np.iinfo(dtype).min <= i <= np.iinfo(dtype).max], dtype)
    if op.name == "clip":
        numbers = numbers[[0, 1, 2, 3, 4, -2, -1]]
    return [g.ravel() for g in np.meshgrid(*[np.array([True, False]) if d == "bool" else numbers for d in dtypes], indexing="ij")]


def meant(op, dtype, arrays):
    """The points at which the row promises something: no faults, and no numbers so large that a digit of them is a whole period."""
    with np.errstate(all="ignore"):
        if op.name in ("floordiv", "mod"):
            keep = (arrays[1] != 0) if dtype in INTS else ~(np.isfinite(arrays[1]) & (np.abs(arrays[0] / arrays[1]) > 2.0 ** 22))
        elif op.name == "pow" and dtype in INTS:
            keep = (arrays[1] >= 0) & (arrays[1] < 100)
        elif op.name in ("sin", "cos", "tan") and dtype in FLOATS:
            keep = ~(np.abs(arrays[0]) > 2.0 ** 45) | np.isinf(arrays[0])
        elif op.name == "lgamma" and dtype in FLOATS:                        # SciPy's is infinite at denormals; the true one is 744
            keep = (arrays[0] == 0) | ~(np.abs(arrays[0]) < 1e-300)
        else:
            return arrays
    return [a[keep] for a in arrays]


@pytest.mark.parametrize("dtype, special", [*((d, s) for d in (*FLOATS, *INTS) for s in (False, True)), ("bool", False)])
def test_element_wise_rows(dtype, special):
    """All rows in one program: equal bits where the row says so, else within what the row and the reference may be off."""
    rows, roots, values = [], [], {}
    for op in ELEMENTWISE:
        if operand_dtypes(op, dtype) is None or (special and op.name in ("polygamma",)):
            continue
        arrays = meant(op, dtype, operands(op, dtype, special))
        leaves = [symbol(f"{op.name}_{i}", str(a.dtype), a.shape) for i, a in enumerate(arrays)]
        values.update(zip(leaves, arrays, strict=True))
        roots.append(make(op, leaves, ATTRS.get(op.name, {})))
        rows.append(op)
    assert len(rows) >= (3 if dtype == "bool" else 15)
    wrong = []
    for op, wanted, got in zip(rows, *both(roots, values), strict=True):
        if wanted.dtype.kind != "f" or (op.ulp is not None and max(op.ulp) <= 0.5):
            right = same_bits(got, wanted)
        else:
            allowed = (max(op.ulp) if op.ulp else 8) + (REAL[op.name][1] if op.name in REAL else 4) + 1
            finite = np.isfinite(wanted)
            right = np.array_equal(got[~finite], wanted[~finite], equal_nan=True) and ulps(got[finite], wanted[finite]) <= allowed
        if not right:
            wrong.append((op.name, got[~(got == wanted)][:5], wanted[~(got == wanted)][:5]))
    assert not wrong


def case_groups():
    """The cases of array ops by dtype and sizes, each a program of many."""
    groups = {}
    for i, case in enumerate(CASES):
        for dtype in case.dtypes:
            groups.setdefault((dtype, case.sizes), []).append((i, case))
    return [pytest.param(dtype, sizes, cases, id=f"{dtype}-{number}") for number, ((dtype, sizes), cases) in enumerate(groups.items())]


@pytest.mark.parametrize("dtype, sizes, cases", case_groups())
def test_array_rows(dtype, sizes, cases):
    """Many rows in a program over symbolic sizes, which is compiled once."""
    roots, held = [], []
    for i, case in cases:
        node, leaves = case.node(Dim.of(Size("n")), Dim.of(Size("m")), dtype)
        new = {leaf: symbol(f"{leaf.attr('name')}_{i}", leaf.dtype, leaf.shape) for leaf in leaves}
        (root,) = substitute([node], new)
        roots.append(root)
        held.append((case, [new[leaf] for leaf in leaves]))
    if not roots:
        return
    executable, reference = NativeBackend().compile(roots), NumpyExecutable(roots)
    before = compiled()
    for n, m in sizes:
        values = {leaf: a for case, leaves in held for leaf, a in zip(leaves, case.arrays(n, m, dtype), strict=True)}
        lengths = {"n": n, "m": m}
        for (case, _), got, wanted in zip(held, executable(values, lengths), reference(values, lengths), strict=True):
            assert got.shape == wanted.shape and got.dtype == wanted.dtype, case.op
            if (TABLE[case.op].structural and case.op not in ("sum_to", "scatter_add")) or wanted.dtype.kind != "f":
                assert same_bits(got, wanted), case.op
            else:
                eps = np.finfo(wanted.dtype).eps
                np.testing.assert_allclose(got, wanted, rtol=64 * eps, atol=64 * eps * max(1, np.abs(wanted).max(initial=0)), err_msg=f"{case.op} {n} {m}")
    assert compiled() == before


# ---------------------------------------------------------------- the op table: derivatives, through the language
AXES = ("sum", "mean", "prod", "max", "min", "norm", "logsumexp", "var", "std", "softmax", "log_softmax", "cumsum", "cumprod")
FORMS = {
    "reshape": "reshape(z, (2, -1))", "transpose": "z.T * 2", "slice": "z[1:, ::-1]", "unslice": "grad(sum(sqr(z[1:])), z)", "gather": "z[[1, 0, 1]]",
    "concat": "concat((z, z[:1], sqr(z)))", "matmul": "z @ z.T", "tril": "tril(z)", "outer": "outer(z[0], z[1])", "where": "where(z > 0, log(z), z)",
    "stack": "stack((z, z * z))", "tile": "tile(z, 2)", "repeat": "repeat(z, 2)", "scan": "scan(s = z[0] for r in z: sin(s) * r)",
    "fold": "fold(s = 1.0 for r in z: s * mean(r) + 0.5)", "diag": "diag(z[0])", "xent": "xent(z, [0, 1])", "huber": "huber(z)",
}


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_derivatives(precision):
    """Gradients of all differentiable functions, at points of the domain and at special ones, in a few programs."""
    lines, named, points = [], [], {}
    for name, function in FUNCTIONS.items():
        op = TABLE.get(name)
        if function.group == "element-wise" and op is not None and 1 <= len(op.operands) <= 2 and (op.partials or op.means) and name not in ("isnan", "isfinite"):
            own = [f"{name}_{i}" for i in range(len(op.operands))]
            try:
                dsl.compile(f"vector {', '.join(own)}\nlet y = sin({name}({', '.join(own)})) + 0\nlet g = grad(sum(y), {own[0]})")
            except dsl.LrError:
                continue
            low, high = op.domain
            rng = np.random.default_rng(7)
            for i, x in enumerate(own):
                lines.append(f"vector {x}[k]")
                points[x] = np.concatenate([rng.uniform(low, high, 40), [[0, 1, -1, np.inf, -np.inf, np.nan, 1e12, 0.5],
                                                                      [0, 1, 2, 1, 0.5, 1, 3, -0.5]][i]])
                named.append(f"grad(sum({name}({', '.join(own)})), {x})")
    assert len(named) > 35
    z = np.array([[0.3, -1.2, 2.0], [0.7, 1.5, -0.4]])
    lines.append("matrix z[n, m]")
    points["z"] = z
    forms = [f"grad(sum(sin({text})), z)" for text in FORMS.values()]
    forms += [f"grad(sum(sin({name}(z, axis = {axis}))), z)" for name in AXES for axis in (0, 1)]
    model = {device: dsl.compile("\n".join(lines), precision=precision, device=device) for device in ("numpy", "cpu")}
    before = compiled()
    wrong = []
    for texts in (named[:30], named[30:], forms[:20], forms[20:]):
        inputs = [x for x in points if any(x in text.replace("(", " ").replace(",", " ").replace(")", " ").split() or x == "z" for text in texts)]
        wanted, got = (model[device].function(inputs, texts)(*[points[x] for x in inputs]) for device in ("numpy", "cpu"))
        tolerance = 1e-11 if precision == "float64" else 1e-3
        for text, a, b in zip(texts, wanted, got, strict=True):
            assert a.dtype == b.dtype == precision, text
            if not np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True):
                wrong.append((text, a, b))
    assert not wrong
    assert compiled() - before == 4


# ---------------------------------------------------------------- examples
@pytest.mark.parametrize("name", TRAINED)
def test_examples_leave_the_same_state(name, tmp_path):
    models = [dsl.load(EXAMPLES / f"{name}.lr", device=device, out=tmp_path) for device in ("numpy", "cpu")]
    for model in models:
        model.run()
    shared = [n for n, s in models[0].session.elaborator.scope.items() if s.kind == "shared"]
    assert shared
    for key in shared:
        np.testing.assert_allclose(models[1][key], models[0][key], rtol=0, atol=1e-9, err_msg=key)
    reports = [[(r.epochs, r.steps, r.stopped) for r in m.session.reports] for m in models]
    assert reports[0] == reports[1]


def test_every_example_passes_its_own_checks(monkeypatch):
    monkeypatch.setenv("LR_DEVICE", "cpu")
    result = CliRunner().invoke(commands, ["test", str(EXAMPLES)])
    assert result.exit_code == 0, result.output


# ---------------------------------------------------------------- what goes wrong in a burst
LINEAR = "scalar X\nshared w = 1.0, n = 0.0\ncost C = sqr(w * X - 1)\ngrad g = C wrt w\nupdate n <- n + 1\nupdate w <- w - 0.001 * g\n"
BAD = {
    "nan": "shared w = 5000.0, u = 0.0\nupdate u <- u + sqrt(w)\nupdate w <- w - 1\ntrain 10000 steps",
    "nan of the cost": "shared w = 3000.0\ncost C = log(w - 10)\ngrad g = C wrt w\nupdate w <- w - 1 + 0 * g\ntrain 10000 steps",
    "infinite": "shared w = 1.0, n = 0\nupdate w <- w * 1.5\nupdate n <- n + 1\ntrain 100000 steps",
    "division by zero": "shared int k = 4000\nshared s = 0.0\nupdate s <- s + 12000 // k\nupdate k <- k - 1\ntrain 9000 steps",
    "index": "data at = arange(3000) % 7 + 9 * (arange(3000) // 2999)\nint scalar i\nshared v[n] = [1, 2, 3, 4, 5, 6, 7], s = 0.0\n"
             "update s <- s * 0.5 + v[i - 4]\ntrain 2 epochs over i = at",
    "nan in the data": f"data xs = where(arange(2000) == 1777, nan, linspace(0, 1, 2000))\n{LINEAR}train 3 epochs over X = xs",
    "nan in a batch": f"data xs = where(arange(2000) == 1777, nan, linspace(0, 1, 2000))\n{LINEAR}train 3 epochs over X = xs batch 7",
    "nan in a shuffled batch": f"data xs = where(arange(2000) == 1777, nan, linspace(0, 1, 2000))\n{LINEAR}train 3 epochs over X = xs batch 7 shuffle",
    "an element": "data A = normal(64, 3)\nmatrix X[n, d]\nshared W[d] = 1.0, k = 800.0\nupdate W <- W * 0.5 + mean(X, axis = 0)\n"
                  "update k <- k - 1\ncost C = sum(W * sqrt(k - 300 * arange(3)))\ntrain 1000 epochs over X = A",
    "second group": "shared a = 900.0, b = 0.0\nstep one:\n  update a <- a - 1\nstep two:\n  update b <- b + log(a)\ntrain 2000 steps of one, two",
    "iteration limit": "shared a = 1.0, n = 0.0\nupdate a <- iterate(x = a while x < 2000 max 2500: x + 1) * 0 - n\nupdate n <- n + 1\ntrain 2000 steps",
    "until": "shared a = 0.0, b = 0.0\ncost C = a\nupdate a <- a + 1\nupdate b <- b + a\ntrain 5000 steps until a > 1234",
    "every": "shared a = 0.0\nupdate a <- a + 1\ntrain 5000 steps:\n  every 700 steps: print a\n  every 900 steps: assert a < 3000, \"enough\"",
}


@pytest.mark.parametrize("name", BAD)
def test_the_same_end(name):
    """The same error, word for word, and the state of the last whole step, bit for bit."""
    ends = []
    for device in ("numpy", "cpu"):
        model = dsl.compile(BAD[name], device=device)
        problem = "none"
        try:
            model.run()
        except dsl.LrError as found:
            problem = f"{type(found).__name__} {found}"
        state = {k: model[k].tobytes() for k, s in model.session.elaborator.scope.items() if s.kind == "shared"}
        steps = [(r.steps, r.epochs, r.stopped) for r in model.session.reports]
        ends.append((problem, state, steps))
    assert ends[0] == ends[1]
    assert (name == "until") == (ends[0][0] == "none")


def test_a_burst_goes_on_after_an_error():
    """What follows an error is what would have followed without it."""
    text = f"data xs = linspace(0.5, 1, 400)\n{LINEAR}"
    model, straight = dsl.compile(text, device="cpu"), dsl.compile(text, device="cpu")
    bad = np.linspace(0.5, 1, 400)
    bad[300] = np.nan
    with pytest.raises(dsl.Diverged, match="step 301"):
        model.train(epochs=1, X=bad)
    model.train(epochs=1, X=bad[301:])
    straight.train(epochs=1, X=np.delete(bad, 300))
    assert model["w"].tobytes() == straight["w"].tobytes() and model["n"] == straight["n"] == 399


# ---------------------------------------------------------------- the same bits
RANDOM = """seed 5
data xs = normal(37)
scalar x
shared s = 0.0, u = 0.0, v[3] = 0.0, o = 0.0
update s <- s * 0.5 + x
update u <- u * 0.75 + uniform()
update v <- v * 0.5 + uniform(3)
update o <- o * 2 - floor(o * 2 / 1000) * 1000 + bernoulli(0.3)
train 30 epochs over x = xs shuffle
"""


@pytest.mark.parametrize("words", ["shuffle", "batch 5 shuffle", "batch 5", ""])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_orders_and_draws_have_the_same_bits(precision, words):
    text = RANDOM.replace(" shuffle", f" {words}" if words else "")
    if "batch" in words:
        text = text.replace("scalar x", "vector x[k]").replace("+ x", "+ max(x)")
    reference, ours = (dsl.compile(text, device=device, precision=precision) for device in ("numpy", "cpu"))
    for model in (reference, ours):
        model.run()
    assert {k: ours[k].tobytes() for k in "suvo"} == {k: reference[k].tobytes() for k in "suvo"}


WIDE = """seed 2
matrix X[n, d]
vector t[n]
shared w[d] = 0.1 * normal(), b = 0.0
let r = tanh(X @ w + b) - t
cost C = mean(sqr(r)) + 0.01 * logsumexp(r)
metric low = min(r)
use optim
minimize C wrt all using adam(rate = 0.05)
let spread = std(X, axis = 0)
let best = argmax(X, axis = 0)
let total = sum(exp(-sqr(X)) * t[:, None])
"""


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_threads_change_no_bit(precision, monkeypatch):
    rng = np.random.default_rng(0)
    X, t = rng.normal(size=(30_011, 9)), rng.normal(size=30_011)
    seen = []
    for count in (1, 2, 3):
        monkeypatch.setattr(native, "available_threads", lambda count=count: count)
        model = dsl.compile(WIDE, device="cpu", precision=precision)
        model.train(epochs=3, X=X, t=t)
        model.train(epochs=1, batch=10_007, shuffle=True, X=X, t=t)
        values = model.function(["X", "t"], ["spread", "best", "total", "C", "grad(C, w)", "low"])(X, t)
        seen.append([model["w"].tobytes(), model["b"].tobytes(), *(np.asarray(v).tobytes() for v in values)])
    assert seen[0] == seen[1] == seen[2]


# ---------------------------------------------------------------- sizes
def test_a_new_size_compiles_nothing():
    model = dsl.compile(WIDE, device="cpu")
    rng = np.random.default_rng(0)
    function = model.function(["X", "t"], ["spread", "best", "total", "C", "grad(C, w)"])

    def use(rows):
        X, t = rng.normal(size=(rows, 4)), rng.normal(size=rows)
        function(X, t)
        model.eval("total", X=X, t=t)
        model.train(epochs=2, X=X, t=t)
        model.train(epochs=2, batch=4, shuffle=True, X=X, t=t)
        model.train(steps=3, batch=5, drop_last=True, X=X, t=t)
        model.step(X=X, t=t)
    use(11)
    before, made = compiled(), model.session.compute.compilations
    for rows in (10, 12, 40, 7, 500):
        use(rows)
    assert compiled() == before and model.session.compute.compilations == made


# ---------------------------------------------------------------- interruption
def test_ctrl_c_is_heard_within_a_tenth_of_a_second():
    """At a whole step, with the state as it is then; the best of three, as other programs run on this machine."""
    code = """
import os, signal, threading, time
import dsl
pressed = []
def press():
    pressed.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)
heard = []
m = dsl.compile("data A = normal(64, 8)\\nmatrix X[n, d]\\nshared w[d] = 1.0, a = 0.0, b = 0.0\\n"
                "update w <- w * 0.9 + 0.1 * mean(tanh(X * w), axis = 0)\\nupdate a <- a + 1\\nupdate b <- a", device="cpu")
A = m["A"]
total = 0
for turn in range(3):
    threading.Timer(0.4, press).start()
    try:
        m.train(steps=10**9, X=A)
        raise SystemExit("it was not interrupted")
    except dsl.Interrupted as problem:
        heard.append(time.perf_counter() - pressed[-1])
        total += m.session.reports[-1].steps
        assert f"after step {m.session.reports[-1].steps}" in str(problem), problem
    assert m["a"] == m["b"] + 1 == total, (m["a"], m["b"], total)
assert total > 3000, total
print(min(heard))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.1


# ---------------------------------------------------------------- what has no loops
def test_the_reference_runs_what_has_no_loops(monkeypatch):
    """Every op but the rows picked by a mask in `data` has loops today; here one is taken away."""
    monkeypatch.delitem(FORMULAS, "sort")
    model, reference = (dsl.compile("vector x[n]\nshared w = 0.5\nlet y = cumsum(sort(x * w))\ncost C = mean(sqr(y))\ngrad g = C wrt w\n"
                                    "update w <- w - 0.01 * g", device=device) for device in ("cpu", "numpy"))
    x = np.array([3.0, -1.0, 2.0, 0.5])
    before = compiled()
    assert np.array_equal(model.function(["x"], "y")(x), np.cumsum(np.sort(x * 0.5)))
    assert all(isinstance(c.executable, NumpyExecutable) for c in model.session.compute.cache.values())
    for m in (model, reference):
        m.train(epochs=20, x=x)
    assert model["w"] == reference["w"] and compiled() == before
