"""linear_regression.lr: 100 epochs of one-sample gradient steps, in the data's order."""

from __future__ import annotations

import jax
import numpy as np

EPOCHS = 100
RATE = 0.01


def cost(parameters, x, y):
    return (x * parameters["w"] + parameters["b"] - y) ** 2


def step(parameters, sample):
    gradient = jax.grad(cost)(parameters, *sample)
    return jax.tree.map(lambda p, g: p - RATE * g, parameters, gradient), None


@jax.jit
def run(parameters, x, y):
    def epoch(parameters, _):
        return jax.lax.scan(step, parameters, (x, y))

    return jax.lax.scan(lambda p, _: (epoch(p, _)[0], None), parameters, length=EPOCHS)[0]


def train(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    start = {name: np.asarray(data[name], float) for name in ("w", "b")}
    trained = run(start, np.asarray(data["train_X"]), np.asarray(data["train_Y"]))
    return {name: np.asarray(value) for name, value in trained.items()}
