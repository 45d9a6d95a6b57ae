"""Corners of native code, many in few programs: held to the reference, to NumPy or SciPy, or to a bound on time.

Each case is here because it once failed or because nothing else would notice if it did."""
# ruff: noqa: E501  (tables: one case a line)
from __future__ import annotations

import gc
import math
import signal
import sys
import threading
import time
import warnings

import numpy as np
import pytest

import dsl
from dsl.backends.pool import KEPT, LARGE, Pool
from dsl.ir.types import ArrayType
from dsl.loops.interpret import interpret
from dsl.loops.text import listing
from dsl.machine import expr
from dsl.ops.leaves import leaf
from dsl.runtime.programs import training_program
from dsl.runtime.steps import schedule_value, schedule_values
from dsl.syntax import program

rng = np.random.default_rng(4)


class Watched:
    """The interpreter in LLVM's place."""

    def __init__(self, made, threads=None):
        self.program = made

    def __call__(self, arrays, scalars, sizes):
        p = self.program
        by_name = {b.name: np.asarray(x) for b, x in zip(p.passed, arrays, strict=True)}
        return interpret(p, by_name, {r.name: x for r, x in zip(p.scalars, scalars, strict=True)}, sizes, runs=2)


def values(text, given, asked, device="cpu", precision="float64"):
    return dsl.compile(text, device=device, precision=precision).function(list(given), asked)(*given.values())


def same(text, given, asked, precision="float64", tolerance=1e-12, watched=None):
    """What is asked for, natively and (with `watched`, a monkeypatch) by the interpreter, is what the reference says."""
    wanted = values(text, given, asked, "numpy", precision)
    runs = [values(text, given, asked, "cpu", precision)]
    if watched is not None:
        with watched.context() as patch:
            patch.setattr("dsl.backends.llvm.native.NativeProgram", Watched)
            runs.append(values(text, given, asked, "cpu", precision))
    for got in runs:
        for formula, a, b in zip(asked, got, wanted, strict=True):
            a, b = np.asarray(a), np.asarray(b)
            assert (a.shape, a.dtype) == (b.shape, b.dtype), formula
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=formula)


# ---------------------------------------------------------------- sizes
PAIR = ["x + y", "sum(x * y + sin(x) * y)", "grad(sum(x * y + sin(x) * y), x)", "grad(sum(x * y + sin(x) * y), y)", "mean(x * y)", "cumsum(x * y)",
        "x[:, None] * y", "grad(sum((x[:, None] * y) ** 2), y)", "concat((x, y))", "concat((x * y, y))", "hess(sum(x * y + sin(x) * y), x)"]


def test_anonymous_lengths_of_one_and_none(monkeypatch):
    for n, m in [(1, 5), (5, 1), (1, 1), (5, 5), (0, 1), (1, 0), (0, 0)]:
        same("vector x, y", {"x": rng.normal(size=n), "y": rng.normal(size=m)}, PAIR, watched=monkeypatch)


EMPTY = ["A @ B", "A @ u", "v @ A", "outer(u, v)", "grad(sum(sqr(A @ B)), A)", "grad(sum(sqr(A @ B)), B)", "sum(A, axis = 0)", "mean(A, axis = 0)",
         "A.T @ A", "concat((A, A))", "concat((B, B), axis = 1)", "cumsum(A, axis = 0)", "softmax(A, axis = 0)", "reshape(A, -1)", "A[:, None] * A[None]",
         "scan(s = u for r in A: s + r)", "grad(sum(fold(s = u for r in A: s * r)), A)", "logsumexp(A, axis = 1)", "A[::-2, ::-1]", "grad(sum(sqr(A[::-2, 1:])), A)"]


def test_empty_arrays(monkeypatch):
    for n, k, m in [(0, 0, 0), (0, 2, 1), (1, 0, 3), (3, 2, 0), (2, 0, 2), (5, 3, 2)]:
        given = {"A": rng.normal(size=(n, k)), "B": rng.normal(size=(k, m)), "u": rng.normal(size=k), "v": rng.normal(size=n)}
        same("matrix A[n, k], B[k, m]\nvector u[k], v[n]", given, EMPTY, watched=monkeypatch)


def test_many_axes(monkeypatch):
    asked = ["transpose(A, (5, 3, 1, 0, 2, 4))", "sum(transpose(transpose(A, (5, 3, 1, 0, 2, 4)), (1, 0, 2, 3, 5, 4)), axis = (1, 4))", "reshape(transpose(A, (5, 3, 1, 0, 2, 4)), (9, -1))",
             "max(A, axis = (1, 3, 5))", "grad(sum(sqr(sum(transpose(A, (1, 0, 3, 2, 5, 4)), axis = (0, 3)))), A)", "A[:, ::-1, :, ::2, -1]", "argmax(A, axis = 3)"]
    same("tensor A[a, b, c, d, e, f]", {"A": rng.normal(size=(2, 3, 1, 4, 2, 3))}, asked, watched=monkeypatch)


def test_places_met_twice(monkeypatch):
    given = {"x": rng.normal(size=5), "u": np.array([0, -1, 2, -1, -5, 4, 0, 0]), "A": rng.normal(size=(5, 2))}
    asked = ["A[u]", "grad(sum(sqr(x[u])), x)", "grad(sum(lgamma(abs(x[u]) + 1)), x)", "grad(sum(A[u, u % 2] ** 3), A)", "hess(sum(x[u] ** 3), x)",
             "grad(sum(x[u][u % 3] * x[u % 2]), x)", "grad(max(x[u]), x)", "x", "x[u]", "x[u]", "3.0", "x"]
    same("vector x[n]\nint vector u[m]\nmatrix A[n, k]", given, asked, watched=monkeypatch)


def test_parts_side_by_side(monkeypatch):
    given = {"x": rng.normal(size=4), "y": rng.normal(size=2), "A": rng.normal(size=(3, 2)), "B": rng.normal(size=(3, 3))}
    text = "vector x[n], y[m]\nmatrix A[k, 2], B[k, 3]\nlet D = concat((A * 2, B, A), axis = 1)\nlet z = stack((x[0] * 2, sum(x), y[0], sum(y), 3.0))\nlet c = concat((x, z, y))\n" \
        "let e = concat(([1.0][:0], [2.0][:0]))\n"
    same(text, given, ["z[0]", "z[-1]", "c", "c[-1]", "D[:, 4] * D[:, 0]", "D[1, 5]", "D.T[3]", "sum(sqr(D[:, 1:4]), axis = 1)", "grad(sum(D[:, 2] ** 2 * D[:, 0]), A)",
                       "grad(sum(sqr(z)), x)", "grad(sum(D[:, 2] ** 2 * D[:, 6]), B)", "e", "sum(where(x > 0, sum(e), 1))", "concat((z, z[:2]))[6]"], watched=monkeypatch)


# ---------------------------------------------------------------- numbers
def test_sums_of_nothing_but_minus_zero():
    total = values("vector x[n]", {"x": np.array([-0.0, -0.0, 0.0, -0.0])}, ["1 / cumsum(x)", "1 / cumsum(x[::-1])"])
    assert [list(t) for t in total] == [[-np.inf, -np.inf, np.inf, np.inf], [-np.inf, np.inf, np.inf, np.inf]]


@pytest.mark.parametrize("rows", [5, 1024, 5000])
def test_a_float32_mean_whose_sum_overflows(rows, monkeypatch):
    """NumPy in float64 is the judge: a block of float32 numbers that overflows is added up again."""
    x = np.full(rows, 3e38, np.float32)
    given = {"x": x, "y": np.where(np.arange(rows) % 2, x, -x), "z": rng.permutation(np.where(np.arange(rows) < rows // 2, x, -x)), "A": np.full((rows, 3), 3e38, np.float32),
             "bad": np.where(np.arange(rows) == rows - 2, np.nan, 1).astype(np.float32), "far": np.where(np.arange(rows) == 3, np.inf, 1).astype(np.float32)}
    asked = ["mean(x)", "sum(x)", "mean(y)", "sum(z)", "mean(x * 0.5)", "mean(A, axis = 1)", "mean(A, axis = 0)", "mean(A)", "mean(bad)", "sum(far)", "max(x)", "mean(sqr(x * 1e-38) + x)"]
    text = "vector x[n], y[n], z[n], bad[n], far[n]\nmatrix A[n, k]"
    wide = {k: v.astype(np.float64) for k, v in given.items()}
    with warnings.catch_warnings(), np.errstate(over="ignore"):
        wanted = [np.float32(v) for v in (wide["x"].mean(), wide["x"].sum(), wide["y"].mean(), wide["z"].sum(), wide["x"].mean() / 2)]
    got = values(text, given, asked, precision="float32")
    for a, b in zip(got, wanted):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    same(text, given, asked, "float32", 1e-6, monkeypatch if rows == 5 else None)


def test_the_second_sum_makes_nothing_else_twice():
    """Float64 and whole sums, maxima and arrays that are made in the same pass; the gradients too."""
    x = np.full(3000, 2e38, np.float32)
    x[7] = -1
    text = "vector x[n]\nint vector c[n]\nlet r = tanh(x) * 3e38\ncost C = mean(r * 0.9)\n"
    asked = ["C", "r", "sum(c)", "max(r)", "grad(mean(x * x[0] * 1e-38), x)", "sum(c * (x > 0))", "argmin(x)"]
    same(text, {"x": x, "c": np.arange(3000)}, asked, "float32", 1e-6)


def test_integers():
    for dtype, low, high in (("int32", -2 ** 31, 2 ** 31 - 1), ("int64", -2 ** 63, 2 ** 63 - 1)):
        word = "int" if dtype == "int64" else dtype
        given = {"a": np.array([7, -7, 0, high, low, 5, -1], dtype), "b": np.array([2, -2, 3, 0, -1, 0, 3], dtype)}
        same(f"{word} vector a[n], b[n]", given, ["a + b", "a * b", "a * a * a", "where(b == 0, 0, a // b)", "where(b == 0, 7, a % b)", "sum(a)", "cumsum(a)",
                                                  "cumprod(a)", "argmin(a)", "a ** abs(b)", "mean(a)", "-a", "abs(a)", "sum(a * a)", "a // 3", "a % -3"])
    large = np.full(500, 2 ** 53 + 1)
    got = values("int vector a[n]", {"a": large}, ["sum(a)", "sum(a, axis = 0) - 500 * a[0]"])
    assert int(got[0]) == 500 * (2 ** 53 + 1) and int(got[1]) == 0


def test_arrays_however_they_lie():
    """Transposed, strided, repeated, read-only, unaligned, of other byte order and width."""
    F = np.asfortranarray(rng.normal(size=(30, 40)))
    odd = np.frombuffer(b"\0" + F.tobytes(), np.float64, offset=1).reshape(30, 40)
    assert not odd.flags.aligned and not odd.flags.writeable
    for A in (F, F[::-2, ::3], np.broadcast_to(F[:1], (5, 40)), odd, F.astype(">f8"), F.astype(np.float32)):
        for precision, tolerance in (("float64", 1e-11), ("float32", 1e-4)):
            got = values("matrix A[n, m], B[n, m]", {"A": A, "B": A}, ["sum(A, axis = 0)", "A.T @ B", "A - B", "exp(A)"], precision=precision)
            wide = np.array(A, np.float64)
            for x, wanted in zip(got, (wide.sum(0), wide.T @ wide, wide * 0, np.exp(wide)), strict=True):
                np.testing.assert_allclose(x, wanted, rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------- large programs
def chain(length, line):
    return "vector x[n]\nlet y0 = x\n" + "".join(f"let y{i} = {line.format(p=f'y{i - 1}', i=i)}\n" for i in range(1, length + 1))


@pytest.mark.parametrize("line", ["x - {p}", "-{p}[::-1]", "{p} * {p} * 0.5 + x", "{p} * x + {i}.5", "{p} - x[0]", "where({p} > 0, {p} - x, {p} + x)"])
def test_high_towers_of_cheap_ops(line):
    """No recursion that follows the graph all the way; the whole way to native code in about linear time."""
    x = rng.normal(size=40) * 0.1
    same(chain(800, line), {"x": x}, ["y800"], tolerance=1e-9)


def seconds(make, *sizes):
    taken = []
    for size in sizes:
        began = time.process_time()
        make(size)
        taken.append(time.process_time() - began)
    return taken


def layers(count):
    lines = [f"shared W{i}[d, d] = 0.1, b{i}[d] = 0.0\nlet h{i + 1} = tanh(h{i} @ W{i} + b{i})" for i in range(count)]
    return "use optim\nmatrix X[m, d]\nlet h0 = X\n" + "\n".join(lines) + f"\ncost C = mean(sqr(h{count}))\nminimize C wrt all using adam(rate = 0.01)\n"


def test_compile_time_is_about_linear():
    """Rewriting, lowering, text of loops and of LLVM IR, of chains and of many variables: four times the work in less than ten times
    the time (what was quadratic took sixteen)."""
    from dsl.backends.llvm.module import module_text
    from dsl.loops.evaluate import program as loop_program
    from dsl.pipeline import Options, prepare

    def formula(length, line="{p} * {p} * 0.5 + x"):
        m = dsl.compile(chain(length, line), device="numpy")
        made, _ = loop_program(prepare([m._symbol(f"y{length}").value], Options(origins=m.session.elaborator.origins)))
        listing(made)
        module_text(made, True)

    def training(count):
        m = dsl.compile(layers(count), device="numpy")
        with m._given({"X": np.ones((3, 3))}, "") as over:
            statement = dsl.syntax.ast.Train(dsl.syntax.ast.Number(1, span=m._span("")), "steps", tuple(over), None, False, False, (), None, (), span=m._span(""))
            made = training_program("", m._plan(statement), m.session.compute, m.session.sizes())
        listing(made.program)
        text = module_text(made.program, True)
        assert len(text) < 80_000 * count
    formula(20)
    training(2)
    for make, small in ((formula, 250), (training, 6), (lambda length: formula(length, "lgamma({p}) + x"), 8)):
        few, many = seconds(make, small, 4 * small)
        assert many < 10 * few, (make, few, many)


def test_two_hundred_variables():
    terms = " + ".join(f"sin(w{i} * x)" for i in range(100))
    text = "use optim\nvector x[n]\n" + "".join(f"shared w{i} = {i}.5\n" for i in range(100)) + \
        f"cost C = mean(sqr({terms}))\nminimize C wrt all using momentum(rate = 0.001)\n"
    models = [dsl.compile(text, device=d) for d in ("numpy", "cpu")]
    for m in models:
        m.train(steps=5, x=np.linspace(0, 1, 50))
    np.testing.assert_allclose([models[1][f"w{i}"] for i in range(100)], [models[0][f"w{i}"] for i in range(100)], rtol=1e-9)


# ---------------------------------------------------------------- state
def pairs(text, *acts):
    """What each act does to the state, the report and the error is the same on both devices."""
    seen = []
    for device in ("numpy", "cpu"):
        m, trace = dsl.compile(text, device=device), []
        for act in acts:
            try:
                act(m)
                problem = ""
            except dsl.LrError as found:
                problem = str(found)
            shared = [n for n, s in m.session.elaborator.scope.items() if s.kind == "shared"]
            r = m.session.reports[-1] if m.session.reports else None
            trace.append((problem, {n: m[n] for n in shared if n in m and not problem.startswith("error[E03")}, (r.steps, r.epochs, r.stopped) if r else None,
                          [*r.costs.values(), *r.valid.values()] if r else []))
        seen.append(trace)
    for number, (a, b) in enumerate(zip(*seen, strict=True)):
        assert (a[0], a[2]) == (b[0], b[2]), number
        np.testing.assert_allclose(b[3], a[3], rtol=1e-9)
        for n in a[1]:
            np.testing.assert_allclose(b[1][n], a[1][n], rtol=1e-9, atol=1e-12, err_msg=f"{n} after act {number}")


def trained(**how):
    return lambda m: m.train(**how)


def stepped(**how):
    return lambda m: m.step(**how)


def put(name, value):
    return lambda m: m.__setitem__(name, value)


LINEAR = """use optim
matrix X[n, d]
vector y[n]
shared w[d] = 0.1, b = 0.0
let z = X @ w + b - y
cost C = mean(sqr(z))
metric hi = max(abs(z))
minimize C wrt all using adam(rate = 0.05)
"""


def test_training_again_and_again():
    X, y = rng.normal(size=(23, 3)), rng.normal(size=23)
    bad = X.copy()
    bad[13, 1] = np.nan
    pairs(LINEAR, trained(steps=7, batch=5, shuffle=True, X=X, y=y), trained(steps=9, batch=5, shuffle=True, X=X, y=y), stepped(X=X[:4], y=y[:4]), put("w", [1, 2, 3.0]),
          trained(epochs=2, batch=4, X=X, y=y), trained(epochs=2, batch=6, X=bad, y=y), trained(epochs=1, batch=4, X=X[:3], y=y[:3]), stepped(X=bad, y=y),
          trained(epochs=3, X=X, y=y), trained(epochs=3, batch=100, X=X, y=y), trained(epochs=1, batch=5, shuffle=True, X=np.vstack([X] * 50), y=np.hstack([y] * 50)),
          trained(epochs=2, batch=5, drop_last=True, shuffle=True, X=X, y=y), trained(steps=11, batch=5, drop_last=True, X=X[:9], y=y[:9]),
          trained(epochs=2, batch=5, X=X[:1], y=y[:1]), trained(epochs=0, X=X, y=y), trained(epochs=4, batch=5, X=X, y=y, valid={"X": X[:7], "y": y[:7]}),
          trained(epochs=100, batch=5, X=X, y=y, until="C < 1.0"))


def test_variables_that_take_each_others_values():
    pairs("shared a = 1.0, b = 2.0, v[3] = [1, 2, 3], u[3] = [4, 5, 6]\nupdate a <- b\nupdate b <- a\nupdate v <- u\nupdate u <- v[::-1]\n", trained(steps=5), trained(steps=1), stepped())
    pairs("shared a = 1.0, b = 2.0, M[2, 2] = [[1.0, 2], [3, 4]]\nstep one:\n  update a <- a + b\n  update M <- M.T + a\nstep two:\n  update a <- a * 2 - b\n  update b <- a\n"
          "  update M <- M @ M * 0.1\n", trained(steps=5, of=["one", "two"]), trained(steps=3, of=["two", "one"]), trained(steps=3, of=["one"]))
    pairs("shared int k = 7\nshared s = 0.0, i[4] = 0.0\nupdate s <- s + 12 // k\nupdate k <- k - 1\nupdate i <- i + k\n",
          trained(steps=5), trained(steps=5), put("k", 9), trained(steps=4), stepped(), trained(steps=10))


def test_results_are_kept_while_the_next_call_runs():
    m = dsl.compile("vector x[n]", device="cpu")
    function = m.function(["x"], "x * 2")
    held, views = [], []
    for turn in range(6):
        x = np.full(300_000, float(turn))
        held.append(function(x))
        views.append(function(x)[::7][1:])
    assert all((a == 2 * turn).all() for turn, a in enumerate(held)) and all((v == 2 * turn).all() for turn, v in enumerate(views))


def test_the_pool_may_be_given_memory_back_while_it_looks_for_some():
    """Whenever Python collects cycles, it may let go of an array: also while the pool's lock is held."""
    pool = Pool()
    held = pool.empty((LARGE,), "bool")
    with pool.lock:
        del held
        gc.collect()
    again = pool.empty((LARGE,), "bool")
    assert not pool.free and not pool.returned
    del again
    assert len(pool.free) == 1
    huge = pool.empty((KEPT + 1,), "bool")
    del huge
    assert len(pool.free) == 1


def test_too_little_memory_is_an_error_and_nothing_more():
    m = dsl.compile("vector x[n]\nshared w = 1.0\nlet z = cumsum(outer(x, x) * w, axis = 0)\ncost C = mean(sqr(z)) + mean(z)\n"
                    "grad g = C wrt w\nupdate w <- w - 0.1 * g\n", device="cpu")
    m.train(steps=2, x=np.ones(3))
    before = m["w"]
    for use in (lambda x: m.train(steps=2, x=x), lambda x: m.step(x=x), lambda x: m.eval("z", x=x)):
        with pytest.raises(dsl.LrError, match="E0710"):
            use(np.ones(3_000_000))
        assert m["w"] == before
    m.train(steps=2, x=np.ones(4))
    assert m["w"] != before and m.session.steps_before == 4


def test_a_second_ctrl_c_in_a_burst(monkeypatch):
    """The steps of the burst are counted, whatever is pressed while it runs."""
    from dsl.runtime.bursts import Bursts
    pace = Bursts.pace

    def pressed(self, made, seconds):
        pace(self, made, seconds)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    m = dsl.compile("shared a = 0.0\nupdate a <- a + 1\n", device="cpu")
    m.train(steps=3)
    with monkeypatch.context() as patch:
        patch.setattr(Bursts, "pace", pressed)
        with pytest.raises(dsl.Interrupted):
            m.train(steps=10 ** 9)
    steps = m.session.steps_before
    assert m["a"] == steps > 3
    m.train(steps=2)
    assert m["a"] == steps + 2


def test_compiled_graphs_do_not_pile_up(monkeypatch):
    monkeypatch.setattr("dsl.runtime.compute.KEPT", 20)
    m = dsl.compile("vector x[n]\nlet y = sum(x)", device="cpu")
    function = m.function(["x"], "y * 0.25")
    for i in range(60):
        assert m.eval(f"y * {i}.5", x=np.ones(4)) == 4 * (i + 0.5) and function(np.ones(4)) == 1
    assert len(m.session.compute.cache) == 20


# ---------------------------------------------------------------- schedules
def test_schedules_of_many_steps_at_once():
    def make(kind, *numbers, inner=None):
        return program.Schedule(None, None, kind, tuple(map(float, numbers)), inner)

    for schedule in (make("cosine", 0.1, 0.003), make("linear", 0.3, -0.1), make("exponential", 0.1, 0.93), make("exponential", 1.0, 1.5), make("steps", 0.1, 0.3, 3),
                     make("warmup", 40, inner=make("cosine", 0.1, 0.01)), make("warmup", 0, inner=make("linear", 1, 0)), make("warmup", 500, inner=make("exponential", 1, 0.9))):
        for first, count, steps, epoch in ((0, 300, 300, 7), (37, 100, 300, 1), (299, 1, 300, 300), (0, 1, 1, 1), (41, 0, 300, 7)):
            got = schedule_values(schedule, first, count, steps, epoch)
            assert [float(v).hex() for v in got] == [schedule_value(schedule, i, steps, i // epoch).hex() for i in range(first, first + count)], schedule


def test_a_schedule_takes_no_more_than_the_steps():
    m = dsl.compile("use optim\nshared w = 3.0\ncost C = sqr(w - 1)\nminimize C wrt w using sgd(rate = 0.05)\ntrain 400000 steps:\n  rate = cosine(0.1, 0.001)\n", device="cpu")
    began = time.process_time()
    m.run()
    assert math.isclose(m["w"], 1) and time.process_time() - began < 1.5                    # it took a microsecond a step or two


# ---------------------------------------------------------------- threads
def test_equal_nodes_are_one_object_in_every_thread():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for make in (lambda i: expr.ref(f"thread_{i}"), lambda i: leaf("value", f"thread_{i}", ArrayType("float64"))):
            found, barrier = [None] * 4, threading.Barrier(4)

            def work(number, make=make, found=found, barrier=barrier):
                barrier.wait()
                found[number] = [make(i) for i in range(10_000)]
            threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            assert all(a is b for other in found[1:] for a, b in zip(found[0], other, strict=True))
    finally:
        sys.setswitchinterval(before)


def test_one_function_called_in_several_threads():
    """With other sizes in each: results of other lengths once ended the process."""
    m = dsl.compile("vector x[n]\nlet y = cumsum(x) * 2 + sum(x)", device="cpu")
    function, wrong = m.function(["x"], "y"), []
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def work(length):
        x = np.ones(length)
        for _ in range(150):
            if not np.array_equal(function(x), np.cumsum(x) * 2 + length):
                wrong.append(length)
    threads = [threading.Thread(target=work, args=(n,)) for n in (10, 1000, 100_000, 5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    sys.setswitchinterval(before)
    assert not wrong


def test_one_model_trained_in_several_threads():
    m = dsl.compile("vector x[n]\nshared a = 0.0, s = 0.0\nupdate a <- a + 1\nupdate s <- s + sum(x)", device="cpu")

    def work(length):
        x = np.ones(length)
        for _ in range(40):
            m.train(steps=2, x=x)
            m.step(x=x)
    threads = [threading.Thread(target=work, args=(n,)) for n in (10, 3000, 5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert m["a"] == 3 * 40 * (2 + 1) and m["s"] == 40 * (2 + 1) * 3015


def test_models_trained_in_several_threads():
    X, y = rng.normal(size=(300, 5)), rng.normal(size=300)
    results, problems = {}, []

    def work(number):
        try:
            m = dsl.compile(LINEAR.replace("0.05", "0.04"), device="cpu")
            m.train(steps=40, X=X, y=y)
            m.train(epochs=3, batch=7, shuffle=True, X=X, y=y)
            results[number] = m["w"].tobytes()
        except BaseException as problem:
            problems.append(problem)
    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not problems and len(results) == 3 and len(set(results.values())) == 1


def test_what_is_sorted_may_be_a_reduction():
    """The mean of rows has no array of its own until something asks for it as a whole."""
    source = "precision float32; matrix X[n, d]; let s = sort(mean(X, axis = 1)); let a = argsort(-sum(X, axis = 0)); let t = sort(X @ X[0])"
    x = np.random.default_rng(5).normal(size=(6, 4)).astype(np.float32)
    native, reference = (dsl.compile(source, device=device).function(["X"], ["s", "a", "t"])(x) for device in ("cpu", "numpy"))
    for got, wanted in zip(native, reference, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)
