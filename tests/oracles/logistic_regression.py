"""logistic_regression.lr: 300 full-batch gradient steps on the penalised cross-entropy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

STEPS = 300
RATE = 0.5
PENALTY = 0.001


def cost(parameters, X, y):
    w, b = parameters["w"], parameters["b"]
    z = X @ w + b
    # -y log p - (1 - y) log(1 - p) with p = 1 / (1 + exp(-z))
    return jnp.mean(jnp.logaddexp(0.0, z) - y * z) + PENALTY * jnp.sum(w**2)


@jax.jit
def run(parameters, X, y):
    def step(parameters, _):
        gradient = jax.grad(cost)(parameters, X, y)
        return jax.tree.map(lambda p, g: p - RATE * g, parameters, gradient), None

    return jax.lax.scan(step, parameters, length=STEPS)[0]


def train(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    X, y = np.asarray(data["Z_train"], float), np.asarray(data["u_train"], float)
    start = {
        "w": np.broadcast_to(np.asarray(data["w"], float), X.shape[1]),
        "b": np.asarray(data["b"], float),
    }
    return {name: np.asarray(value) for name, value in run(start, X, y).items()}


def evaluate(parameters: dict[str, np.ndarray], data: dict[str, np.ndarray]) -> dict[str, float]:
    X, y = np.asarray(data["Z_test"], float), np.asarray(data["u_test"], float)
    z = X @ parameters["w"] + parameters["b"]
    return {"C": float(cost(parameters, X, y)), "acc": float(np.mean((z > 0) == (y == 1)))}
