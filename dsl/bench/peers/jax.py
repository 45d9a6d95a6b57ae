"""JAX: jitted functions on arrays that lie on the device; loops as a hand-written scan (`jax`) or a step a call (`jax-step`).

In: the arrays of a work.  Out: the work made ready; every run waits for its result.
"""
from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

from dsl.bench.data import Given, array_numbers, network_numbers, places, step_numbers
from dsl.bench.work import Absent, Prepared


def versions() -> dict[str, str]:
    import jax
    return {"jax": jax.__version__, "jaxlib": version("jaxlib")}


def configure(device: str, threads: int) -> None:
    """XLA's CPU client takes as many threads as the process may use processors; on a GPU JAX chooses its device itself."""
    if device != "cuda":
        os.environ["JAX_PLATFORMS"] = "cpu"
        return
    import jax
    if jax.default_backend() not in ("gpu", "cuda"):
        raise Absent("JAX finds no GPU")
    jax.config.update("jax_default_matmul_precision", "highest")                 # float32, as everybody else's products are


def precise(wanted: bool) -> None:
    """float64 where the work is in it; elsewhere JAX's own default, which is also its faster one."""
    import jax
    jax.config.update("jax_enable_x64", wanted)


# ---------------------------------------------------------------- full batches
def step(cost: Callable[..., Any]) -> Callable[[Given], Prepared]:
    def make(given: Given) -> Prepared:
        import jax
        import jax.numpy as jnp
        precise(False)
        compiled = jax.jit(jax.value_and_grad(cost))
        x, y = jnp.asarray(given["x"]), jnp.asarray(given["y"])
        state = (jnp.float32(given["w"]), jnp.float32(given["b"]))
        return Prepared(lambda: jax.block_until_ready(compiled(state, x, y)), lambda r: step_numbers((r[0], *r[1])))
    return make


def long(block: Any, size: int) -> Any:
    """The block over and over, on the device."""
    import jax.numpy as jnp
    return jax_ready(jnp.tile(jnp.asarray(block), -(-size // len(block)))[:size])


def jax_ready(value: Any) -> Any:
    import jax
    return jax.block_until_ready(value)


def long_step(given: Given) -> Prepared:
    return step(squares)({**given, **{name: long(given[name], given["size"]) for name in ("x", "y")}})


def squares(state: Any, x: Any, y: Any) -> Any:
    import jax.numpy as jnp
    w, b = state
    return jnp.mean((x * w + b - y) ** 2)


def entropy(state: Any, x: Any, y: Any) -> Any:
    import jax.numpy as jnp
    w, b = state
    z = x * w + b
    return jnp.mean(jnp.logaddexp(0.0, z) - y * z)


def elements(name: str) -> Callable[[Given], Prepared]:
    def make(given: Given) -> Prepared:
        import jax
        import jax.numpy as jnp
        precise(False)
        forms: dict[str, Callable[[Any, Any], Any]] = {
            "chain": lambda a, x: jnp.tanh(x) * jnp.exp(-x * x) + jnp.log1p(x * x),
            "axpb": lambda a, x: a * x + x * x}
        compiled, a, x = jax.jit(forms[name]), jnp.float32(given["a"]), jnp.asarray(given["x"])
        return Prepared(lambda: jax.block_until_ready(compiled(a, x)), array_numbers)
    return make


def long_elements(name: str) -> Callable[[Given], Prepared]:
    """Compared where everybody compares; without float64 there is no sum of so many to compare."""
    def make(given: Given) -> Prepared:
        prepared = elements(name)({**given, "x": long(given["x"], given["size"])})
        return Prepared(prepared.run, lambda y: {"elements": np.asarray(y[places(len(y))])})
    return make


def logreg100(given: Given) -> Prepared:
    import jax
    import jax.numpy as jnp
    precise(False)
    X, y, rate = jnp.asarray(given["X"]), jnp.asarray(given["y"]), float(given["rate"])

    def cost(state: Any, X: Any, y: Any) -> Any:
        z = X @ state[0] + state[1]
        return jnp.mean(jnp.logaddexp(0.0, z) - y * z)

    def moved(state: Any, X: Any, y: Any) -> Any:
        value, gradients = jax.value_and_grad(cost)(state, X, y)
        return tuple(p - rate * g for p, g in zip(state, gradients, strict=True)), value
    compiled = jax.jit(moved)
    state = [(jnp.zeros(X.shape[1], jnp.float32), jnp.float32(0))]
    start = state[0]

    def reset() -> None:
        state[0] = start

    def run() -> Any:
        state[0], value = jax.block_until_ready(compiled(state[0], X, y))
        return value
    return Prepared(run, lambda value: {"cost": value, "w": state[0][0], "b": state[0][1]}, reset)


# ---------------------------------------------------------------- training loops
def tutorial_step(rate: float) -> Callable[[Any, Any], Any]:
    import jax

    def cost(state: Any, x: Any, y: Any) -> Any:
        w, b = state
        return (x * w + b - y) ** 2

    def moved(state: Any, row: Any) -> Any:
        value, gradients = jax.value_and_grad(cost)(state, *row)
        return tuple(p - rate * g for p, g in zip(state, gradients, strict=True)), value
    return moved


def tutorial(given: Given) -> Prepared:
    import jax
    import jax.numpy as jnp
    precise(True)
    epochs, moved = given["epochs"], tutorial_step(given["rate"])

    def train(X: Any, Y: Any) -> Any:
        def epoch(state: Any, _: Any) -> Any:
            state, costs = jax.lax.scan(moved, state, (X, Y))
            return state, jnp.mean(costs)
        return jax.lax.scan(epoch, (0.0, 0.0), None, length=epochs)
    compiled, X, Y = jax.jit(train), jnp.asarray(given["X"]), jnp.asarray(given["Y"])
    return Prepared(lambda: jax.block_until_ready(compiled(X, Y)), lambda r: {"w": r[0][0], "b": r[0][1], "cost": r[1][-1]})


def tutorial_stepped(given: Given) -> Prepared:
    import jax
    precise(True)
    compiled, X, Y, epochs = jax.jit(tutorial_step(given["rate"])), given["X"], given["Y"], given["epochs"]

    def run() -> Any:
        state: Any = (0.0, 0.0)
        for _ in range(epochs):
            for row in zip(X, Y, strict=True):
                state, _cost = compiled(state, row)
        return jax.block_until_ready(state)
    return Prepared(run, lambda state: {"w": state[0], "b": state[1]})


def network_step(rate: float) -> Callable[[Any, Any], Any]:
    import jax
    import jax.numpy as jnp

    def cost(state: Any, x: Any, y: Any) -> Any:
        W1, b1, W2, b2 = state
        z = jnp.tanh(x @ W1 + b1) @ W2 + b2
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], axis=1))

    def moved(state: Any, rows: Any) -> Any:
        value, gradients = jax.value_and_grad(cost)(state, *rows)
        return tuple(p - rate * g for p, g in zip(state, gradients, strict=True)), value
    return moved


def network(stepped: bool) -> Callable[[Given], Prepared]:
    def make(given: Given) -> Prepared:
        import jax
        import jax.numpy as jnp
        precise(False)
        epochs, batch, moved = given["epochs"], given["batch"], network_step(float(given["rate"]))
        X = jnp.asarray(given["X"]).reshape(-1, batch, given["X"].shape[1])
        y = jnp.asarray(given["y"]).reshape(-1, batch)
        start = tuple(jnp.asarray(given[n]) for n in ("W1", "b1", "W2", "b2"))

        def train(state: Any, X: Any, y: Any) -> Any:
            def epoch(state: Any, _: Any) -> Any:
                state, costs = jax.lax.scan(moved, state, (X, y))
                return state, jnp.mean(costs)
            return jax.lax.scan(epoch, state, None, length=epochs)

        compiled: Callable[..., Any] = jax.jit(moved if stepped else train)
        batches = [(X[i], y[i]) for i in range(len(X))] if stepped else []

        def run_steps() -> Any:
            state = start
            for _ in range(epochs):
                for rows in batches:
                    state, _cost = compiled(state, rows)
            return jax.block_until_ready(state), None
        run = run_steps if stepped else lambda: jax.block_until_ready(compiled(start, X, y))
        return Prepared(run, lambda result: network_numbers(given, *result[0]))
    return make


# ---------------------------------------------------------------- loops in expressions
def logistic_map(start: float, steps: int) -> Callable[[Any], Any]:
    import jax

    def last(r: Any) -> Any:
        return jax.lax.scan(lambda x, _: (r * x * (1 - x), None), start, None, length=steps)[0]
    return last


def scan(given: Given) -> Prepared:
    import jax
    precise(True)
    compiled, r = jax.jit(logistic_map(given["start"], given["size"])), given["r"]
    return Prepared(lambda: jax.block_until_ready(compiled(r)), lambda last: {"last": last})


def scan_gradient(given: Given) -> Prepared:
    import jax
    precise(True)
    compiled, r = jax.jit(jax.value_and_grad(logistic_map(given["start"], given["size"]))), given["r"]
    return Prepared(lambda: jax.block_until_ready(compiled(r)), lambda both: {"last": both[0], "derivative": both[1]})


TABLE: dict[str, dict[str, Callable[[Given], Prepared]]] = {
    "jax": {"tutorial": tutorial, "linreg": step(squares), "memory": step(squares), "logistic": step(entropy),
            "chain": elements("chain"), "axpb": elements("axpb"), "logreg100": logreg100, "mlp": network(False),
            "wide": network(False), "scan": scan, "scan-grad": scan_gradient, "axpb-gpu": long_elements("axpb"),
            "chain-gpu": long_elements("chain"), "linreg-gpu": long_step, "wide-gpu": network(False)},
    "jax-step": {"tutorial": tutorial_stepped, "mlp": network(True)},
}
