"""PyTensor: functions with updates, as Theano's tutorial writes them; a step a call in loops, or a scan (`pytensor-scan`).

In: the arrays of a work.  Out: the work made ready.  Functions on large arrays trust their input, which saves its checks.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dsl.bench.data import Given, array_numbers, network_numbers, step_numbers
from dsl.bench.work import Prepared


def versions() -> dict[str, str]:
    import pytensor
    return {"pytensor": pytensor.__version__}


def configure(device: str, threads: int) -> None:
    """Where it compiles to, and its BLAS's threads, are set before the process starts."""


# ---------------------------------------------------------------- full batches
def step(entropy: bool) -> Callable[[Given], Prepared]:
    def make(given: Given) -> Prepared:
        import pytensor
        import pytensor.tensor as pt
        x, y = pt.fvector(), pt.fvector()
        w, b = pytensor.shared(given["w"]), pytensor.shared(given["b"])
        z = x * w + b
        cost = pt.mean(pt.softplus(z) - y * z) if entropy else pt.mean(pt.sqr(z - y))
        function = pytensor.function([x, y], [cost, *pytensor.grad(cost, [w, b])])
        function.trust_input = True
        return Prepared(lambda: function(given["x"], given["y"]), step_numbers)
    return make


def elements(name: str) -> Callable[[Given], Prepared]:
    def make(given: Given) -> Prepared:
        import pytensor
        import pytensor.tensor as pt
        x, a = pt.fvector(), pytensor.shared(given["a"])
        y = pt.tanh(x) * pt.exp(-x * x) + pt.log1p(x * x) if name == "chain" else a * x + x * x
        function = pytensor.function([x], y)
        function.trust_input = True
        return Prepared(lambda: function(given["x"]), array_numbers)
    return make


def logreg100(given: Given) -> Prepared:
    import pytensor
    import pytensor.tensor as pt
    X, y, rate = pt.fmatrix(), pt.fvector(), given["rate"]
    w, b = pytensor.shared(np.zeros(given["X"].shape[1], np.float32)), pytensor.shared(np.zeros((), np.float32))
    z = X @ w + b
    cost = pt.mean(pt.softplus(z) - y * z)
    updates = [(p, p - rate * g) for p, g in zip((w, b), pytensor.grad(cost, [w, b]), strict=True)]
    function = pytensor.function([X, y], cost, updates=updates)
    function.trust_input = True

    def reset() -> None:
        w.set_value(np.zeros_like(w.get_value()))
        b.set_value(np.zeros((), np.float32))
    return Prepared(lambda: function(given["X"], given["y"]), lambda cost: {"cost": cost, "w": w.get_value(), "b": b.get_value()}, reset)


# ---------------------------------------------------------------- training loops
def tutorial(given: Given) -> Prepared:
    import pytensor
    import pytensor.tensor as pt
    X, Y, rate, epochs = given["X"], given["Y"], given["rate"], given["epochs"]
    x, y, w, b = pt.dscalar(), pt.dscalar(), pytensor.shared(np.zeros(())), pytensor.shared(np.zeros(()))
    cost = pt.mean(pt.sqr(x * w + b - y))
    gw, gb = pytensor.grad(cost, [w, b])
    function = pytensor.function([x, y], cost, updates=[(w, w - rate * gw), (b, b - rate * gb)])

    def reset() -> None:
        w.set_value(np.zeros(()))
        b.set_value(np.zeros(()))

    def run() -> float:
        mean = 0.0
        for _ in range(epochs):
            total = 0.0
            for row in zip(X, Y, strict=True):
                total += function(*row)
            mean = float(total) / len(X)
        return mean
    return Prepared(run, lambda mean: {"w": w.get_value(), "b": b.get_value(), "cost": mean}, reset)


def tutorial_scan(given: Given) -> Prepared:
    """One scan over the rows of all epochs, one after another."""
    import pytensor
    import pytensor.tensor as pt
    Xs, Ys, rate = pt.dvector(), pt.dvector(), given["rate"]

    def moved(x: Any, y: Any, w: Any, b: Any) -> Any:
        cost = pt.sqr(x * w + b - y)
        gw, gb = pytensor.grad(cost, [w, b])
        return w - rate * gw, b - rate * gb
    zero = pt.as_tensor(np.float64(0))
    ws, bs = pytensor.scan(moved, sequences=[Xs, Ys], outputs_info=[zero, zero], return_updates=False)
    function = pytensor.function([Xs, Ys], [ws[-1], bs[-1]])
    X, Y = (np.tile(given[n], given["epochs"]) for n in ("X", "Y"))
    return Prepared(lambda: function(X, Y), lambda result: dict(zip(("w", "b"), result, strict=True)))


def network(given: Given) -> Prepared:
    import pytensor
    import pytensor.tensor as pt
    names = ("W1", "b1", "W2", "b2")
    X, y, batch, epochs, rate = (given[n] for n in ("X", "y", "batch", "epochs", "rate"))
    state = W1, b1, W2, b2 = [pytensor.shared(given[n]) for n in names]
    x, classes = pt.fmatrix(), pt.ivector()
    logs = pt.special.log_softmax(pt.tanh(x @ W1 + b1) @ W2 + b2, axis=-1)
    cost = -pt.mean(logs[pt.arange(classes.shape[0]), classes])
    updates = [(p, p - rate * g) for p, g in zip(state, pytensor.grad(cost, state), strict=True)]
    function = pytensor.function([x, classes], cost, updates=updates)
    function.trust_input = True

    def reset() -> None:
        for parameter, name in zip(state, names, strict=True):
            parameter.set_value(given[name])

    def run() -> None:
        for _ in range(epochs):
            for start in range(0, len(X), batch):
                function(X[start:start + batch], y[start:start + batch])
    return Prepared(run, lambda _: network_numbers(given, *(p.get_value() for p in state)), reset)


TABLE: dict[str, dict[str, Callable[[Given], Prepared]]] = {
    "pytensor": {"tutorial": tutorial, "linreg": step(False), "memory": step(False), "logistic": step(True), "chain": elements("chain"),
                 "axpb": elements("axpb"), "logreg100": logreg100, "mlp": network, "wide": network},
    "pytensor-scan": {"tutorial": tutorial_scan},
}
