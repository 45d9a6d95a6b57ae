"""softmax_classifier.lr: 60 epochs of shuffled batches of 24 with momentum; `data["order"]` is [60, rows]."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

BATCH = 24
RATE = 0.05
MU = 0.9
PENALTY = 0.001


def cost(parameters, X, y):
    log_p = jax.nn.log_softmax(X @ parameters["W"] + parameters["b"])
    chosen = jnp.take_along_axis(log_p, y[:, None], axis=1)
    return -jnp.mean(chosen) + PENALTY * jnp.sum(parameters["W"] ** 2)


@jax.jit
def run(parameters, X, y, batches):
    def step(state, rows):
        parameters, velocity = state
        gradient = jax.grad(cost)(parameters, X[rows], y[rows])
        velocity = jax.tree.map(lambda v, g: MU * v + g, velocity, gradient)
        return (jax.tree.map(lambda p, v: p - RATE * v, parameters, velocity), velocity), None

    return jax.lax.scan(step, (parameters, jax.tree.map(jnp.zeros_like, parameters)), batches)[0][0]


def train(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    X, y, order = np.asarray(data["Z_train"], float), np.asarray(data["u_train"]), np.asarray(data["order"])
    if order.shape[1] % BATCH:
        raise ValueError(f"{order.shape[1]} rows do not make whole batches of {BATCH}")
    start = {
        "W": np.broadcast_to(np.asarray(data["W"], float), (X.shape[1], 3)),
        "b": np.broadcast_to(np.asarray(data["b"], float), 3),
    }
    trained = run(start, X, y, order.reshape(-1, BATCH))
    return {name: np.asarray(value) for name, value in trained.items()}


def evaluate(parameters: dict[str, np.ndarray], data: dict[str, np.ndarray]) -> dict[str, float]:
    X, y = np.asarray(data["Z_test"], float), np.asarray(data["u_test"])
    predicted = np.argmax(X @ parameters["W"] + parameters["b"], axis=1)
    return {"C": float(cost(parameters, X, y)), "acc": float(np.mean(predicted == y))}
