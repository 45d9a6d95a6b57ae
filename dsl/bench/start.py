"""Whole processes: the seed tutorial from the shell to its printed result.

In: a column.  Out: the command of a process that prints w and b.  Each program is what a user of that system would put in
a file: imports, the data, the training, the print.
"""
from __future__ import annotations

import sys
from pathlib import Path

LANGUAGE = """
seed 1
data train_X = linspace(-1, 1, 101)
data train_Y = 2 * train_X + 1 + 0.33 * normal(101)

scalar X, Y
shared w = 0.0, b = 0.0

model Y_bar = X * w + b
cost  C     = mean(sqr(Y_bar - Y))
grad  gw, gb = C wrt w, b

update w <- w - 0.01 * gw
update b <- b - 0.01 * gb

train 100 epochs over X = train_X, Y = train_Y
print w, b
"""

DATA = """
import numpy as np
X = np.linspace(-1, 1, 101)
Y = 2 * X + 1 + 0.33 * np.random.default_rng(1).standard_normal(101)
"""

PROGRAMS: dict[str, str] = {}

PROGRAMS["numpy"] = DATA + """
w = b = 0.0
for epoch in range(100):
    total = 0.0
    for x, y in zip(X.tolist(), Y.tolist()):
        residual = x * w + b - y
        total += residual * residual
        w, b = w - 0.02 * residual * x, b - 0.02 * residual
print(w, b)
"""

PROGRAMS["jax"] = DATA + """
import jax
jax.config.update("jax_enable_x64", True)

def cost(state, x, y):
    return (x * state[0] + state[1] - y) ** 2

def step(state, row):
    value, (gw, gb) = jax.value_and_grad(cost)(state, *row)
    return (state[0] - 0.01 * gw, state[1] - 0.01 * gb), value

@jax.jit
def train(X, Y):
    def epoch(state, _):
        state, costs = jax.lax.scan(step, state, (X, Y))
        return state, costs.mean()
    return jax.lax.scan(epoch, (0.0, 0.0), None, length=100)[0]

w, b = train(X, Y)
print(float(w), float(b))
"""

PROGRAMS["torch"] = DATA + """
import torch
torch.set_num_threads(1)
w = torch.zeros((), dtype=torch.float64, requires_grad=True)
b = torch.zeros((), dtype=torch.float64, requires_grad=True)
for epoch in range(100):
    for x, y in zip(torch.tensor(X), torch.tensor(Y)):
        cost = (x * w + b - y) ** 2
        cost.backward()
        with torch.no_grad():
            w -= 0.01 * w.grad
            b -= 0.01 * b.grad
        w.grad = b.grad = None
print(float(w), float(b))
"""

PROGRAMS["pytensor"] = DATA + """
import pytensor
import pytensor.tensor as pt
x, y = pt.dscalar(), pt.dscalar()
w, b = pytensor.shared(np.zeros(())), pytensor.shared(np.zeros(()))
cost = pt.mean(pt.sqr(x * w + b - y))
gw, gb = pytensor.grad(cost, [w, b])
train = pytensor.function([x, y], cost, updates=[(w, w - 0.01 * gw), (b, b - 0.01 * gb)])
for epoch in range(100):
    for row in zip(X, Y):
        train(*row)
print(float(w.get_value()), float(b.get_value()))
"""

PROGRAMS["numba"] = DATA + """
import numba

@numba.njit
def train(X, Y):
    w = b = 0.0
    for epoch in range(100):
        total = 0.0
        for i in range(X.size):
            residual = X[i] * w + b - Y[i]
            total += residual * residual
            w, b = w - 0.02 * residual * X[i], b - 0.02 * residual
    return w, b

print(*train(X, Y))
"""

IMPORTS = "import numpy, lark, llvmlite.binding"


def command(column: str, python: str, device: str, folder: Path) -> list[str]:
    """The process of a column; `folder` is where a script may be written.  This language and the bare imports run under
    the present interpreter, peers under `python`."""
    if column in ("lr", "lr-cold"):
        script = folder / "tutorial.lr"
        script.write_text(LANGUAGE, encoding="utf-8")
        return [sys.executable, "-m", "dsl", "run", "--quiet", "--device", device, str(script)]
    if column == "imports":
        return [sys.executable, "-c", IMPORTS]
    return [python, "-c", PROGRAMS[column]]


def numbers(printed: str) -> dict[str, float]:
    """What a process printed last; nothing where it printed nothing."""
    words = printed.split()[-2:]
    return dict(zip(("w", "b"), map(float, words), strict=True)) if len(words) == 2 else {}
