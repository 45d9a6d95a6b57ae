"""recurrent.lr: a recurrent network by `lax.scan`, Adam on shuffled batches of 20."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

BATCH, RATE, B1, B2, EPS = 20, 0.02, 0.9, 0.999, 1e-8
NAMES = ("W", "v", "c", "a", "a0")


def score(parameters, steps):
    def turn(state, t):
        return jnp.tanh(parameters["W"] @ state + parameters["v"] * t + parameters["c"]), None

    last, _ = jax.lax.scan(turn, jnp.zeros(len(parameters["c"])), steps)
    return parameters["a"] @ last + parameters["a0"]


def cost(parameters, steps, above):
    z = jax.vmap(score, (None, 0))(parameters, steps)
    return jnp.mean(jax.nn.softplus(z) - above * z)


def adam(state, batch):
    parameters, m, v, t = state
    gradient = jax.grad(cost)(parameters, *batch)
    m = jax.tree.map(lambda m, g: B1 * m + (1 - B1) * g, m, gradient)
    v = jax.tree.map(lambda v, g: B2 * v + (1 - B2) * g * g, v, gradient)
    moved = jax.tree.map(lambda p, m, v: p - RATE * (m / (1 - B1**t)) / (jnp.sqrt(v / (1 - B2**t)) + EPS), parameters, m, v)
    return (moved, m, v, t + 1), None


def train(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    steps, above = jnp.asarray(data["S_train"], float), jnp.asarray(data["u_train"], float)
    start = {name: jnp.asarray(data[name], float) for name in NAMES}
    zeros = jax.tree.map(jnp.zeros_like, start)
    rows = np.asarray(data["order"]).reshape(-1, BATCH)
    (parameters, *_), _ = jax.jit(lambda s, b: jax.lax.scan(adam, s, b))(
        (start, zeros, zeros, jnp.asarray(1.0)), (steps[rows], above[rows]))
    return {name: np.asarray(value) for name, value in parameters.items()}
