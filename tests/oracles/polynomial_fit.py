"""polynomial_fit.lr: 1000 full-batch steps with momentum (velocity v <- mu v + g, then c <- c - rate v)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

STEPS = 1000
RATE = 0.1
MU = 0.9


def cost(c, x, y):
    return jnp.mean((jnp.polyval(c[::-1], x) - y) ** 2)


@jax.jit
def run(c, x, y):
    def step(state, _):
        c, velocity = state
        velocity = MU * velocity + jax.grad(cost)(c, x, y)
        return (c - RATE * velocity, velocity), None

    return jax.lax.scan(step, (c, jnp.zeros_like(c)), length=STEPS)[0][0]


def train(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    start = np.asarray(data["c"], float)
    return {"c": np.asarray(run(start, np.asarray(data["train_x"]), np.asarray(data["train_y"])))}
