"""What the compiler makes of programs of the language, run by the loop interpreter: verified, and watched for races and bounds.

The native device with the interpreter in LLVM's place, against NumPy (random programs) and against the reference (training).
"""
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import random_programs

import dsl
from dsl.errors import LrError
from dsl.loops.interpret import interpret
from dsl.loops.text import listing


@pytest.fixture
def watched(monkeypatch):
    """The programs that were made for the CPU; all were run by the interpreter, their kernels in one to three runs."""
    made = []

    class Watched:
        def __init__(self, program, threads=None):
            self.program, self.runs = program, 1 + len(made) % 3
            made.append(program)

        def __call__(self, arrays, scalars, sizes):
            p = self.program
            by_name = {b.name: np.asarray(x) for b, x in zip(p.passed, arrays, strict=True)}
            return interpret(p, by_name, {r.name: x for r, x in zip(p.scalars, scalars, strict=True)}, sizes, runs=self.runs)

    monkeypatch.setattr("dsl.backends.llvm.native.NativeProgram", Watched)
    return made


@pytest.mark.parametrize("first, precision", [(0, "float64"), (40, "float64"), (10000, "float32"), (10040, "float32")])
def test_random_programs(first, precision, watched, monkeypatch):
    compile = dsl.compile
    monkeypatch.setattr(random_programs.dsl, "compile", lambda text, **given: compile(text, **{**given, "device": "cpu"}))
    for seed in range(first, first + 40):
        program = random_programs.generate(seed)
        try:
            random_programs.check(program, precision=precision, gradients=precision == "float64")
        except Exception as problem:
            raise AssertionError(f"seed {seed}, {precision}\n{program.source}\n{listing(watched[-1])}") from problem
    assert len(watched) >= 40


SHARED = """
data A = normal(23, 3)
data y = A @ [1.0, -2.0, 0.5] + 0.1 * normal(23)
matrix X[n, d]
vector t[n]
shared w[d] = 0.0, b = 0.0
let r = X @ w + b - t
cost C = mean(sqr(r))
"""
TRAINING = {
    "one sample a step": """
data xs = linspace(-1, 1, 21)
data ys = 2 * xs + 1 + 0.3 * normal(21)
scalar x, y
shared w = 0.0, b = 0.0
cost C = sqr(x * w + b - y)
grad gw, gb = C wrt w, b
update w <- w - 0.1 * gw
update b <- b - 0.1 * gb
train 3 epochs over x = xs, y = ys
""",
    "all rows": SHARED + "use optim\nminimize C wrt all using momentum(rate = 0.05)\ntrain 7 epochs over X = A, t = y\n",
    "batches, a short last one, in a new order": SHARED + "use optim\nminimize C wrt all using adam(rate = 0.05)\n"
                                                 "train 3 epochs over X = A, t = y batch 5 shuffle\n",
    "mapped batches": """
data xs = normal(17)
scalar x
shared w = 0.5
cost C = sqr(tanh(w * x) - sin(x))
grad g = C wrt w
update w <- w - 0.2 * g
train 4 epochs over x = xs batch 4
""",
    "exchanged state": """
data xs = normal(9)
scalar x
shared a = 1.0, b = 2.0, m[3] = 0.25
update a <- b + x
update b <- a * 0.5
update m <- m * a + x
train 5 epochs over x = xs
""",
    "classes": """
data A = normal(19, 4)
data c = argmax(A @ normal(4, 3), axis = 1)
matrix X[n, d]
int vector u[n]
dim k = 3
shared W[d, k] = 0.0, E[k] = 0.0
let z = X @ W + E
cost C = mean(xent(z, u)) + 0.01 * sum(sqr(W)) + 0.1 * mean(sqr(E[u]))
use optim
minimize C wrt all using rmsprop(rate = 0.05)
train 4 epochs over X = A, u = c batch 8 shuffle
""",
    "a hidden layer with dropout": """
data A = normal(12, 3)
data y = sum(A, axis = 1)
matrix X[n, d]
vector t[n]
dim h = 5
shared V[d, h] = 0.3 * normal(), v[h] = 0.3 * normal()
cost C = mean(sqr(dropout(relu(X @ V), 0.2) @ v - t))
use optim
minimize C wrt all using sgd(rate = 0.05)
train 6 steps over X = A, t = y batch 5
""",
}


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("name", TRAINING)
def test_training(name, precision, watched):
    """State after training: as the reference leaves it, to the digits that other sums cost."""
    text = f"seed 3\n{TRAINING[name]}"
    ours, reference = (dsl.compile(text, device=device, precision=precision) for device in ("cpu", "numpy"))
    for model in (ours, reference):
        model.run()
    assert any(p.name.startswith("train") for p in watched), "the training loop was not made native"
    shared = [n for n, s in reference.session.elaborator.scope.items() if s.kind == "shared"]
    assert shared
    for key in shared:
        np.testing.assert_allclose(ours[key], reference[key], rtol=0, atol=1e-11 if precision == "float64" else 1e-4, err_msg=key)


@pytest.mark.parametrize("device", ["cpu", "numpy"])
def test_faults_are_found(device, watched):
    m = dsl.compile("vector x[n]\nint vector u[k]\nlet y = sum(x[u] * 2)", device=device)
    assert m.eval("y", x=np.arange(4.0), u=np.array([3, 1])) == 8
    with pytest.raises(LrError):
        m.eval("y", x=np.arange(4.0), u=np.array([3, 4]))
    assert len(watched) == (device == "cpu")


@pytest.mark.parametrize("state, shape, step", [("vector v[m]", (4,), "sum(X * e, axis = 0) + w"), ("matrix v[k, m]", (3, 4), "X * e + w"),
                                                ("matrix v[k, m]", (3, 4), "X * e + 0.5 * w")])
def test_what_goes_into_a_row_of_a_stack_may_be_a_sum_over_rows(state, shape, step, watched):
    """The derivative with respect to each row of a sequence; a kernel's total is an array by itself, and no part of one."""
    text = f"matrix X[k, m], E[n, m]\n{state}\nlet y = scan(w = v for e in E: {step})\nlet g = grad(sum(sin(y)), E)"
    rng = np.random.default_rng(1)
    values = [rng.normal(size=shape) for shape in ((3, 4), (5, 4), shape)]
    got, wanted = (dsl.compile(text, device=device).function(["X", "E", "v"], "g")(*values) for device in ("cpu", "numpy"))
    assert watched
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-14)
