"""mlp_digits.lr: Adam on shuffled batches of 32, the last one short, stopping early on the validation cost.

`data["order"]` is [60, rows]; epochs after the stop are not read. `history` also returns the validation cost of every
epoch that was run.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

BATCH = 32
RATE, B1, B2, EPS = 5e-3, 0.9, 0.999, 1e-8
PATIENCE = 5
NAMES = ("W1", "b1", "W2", "b2")


def scores(parameters, X):
    hidden = jax.nn.relu(X @ parameters["W1"] + parameters["b1"])
    return hidden @ parameters["W2"] + parameters["b2"]


def cost(parameters, X, y):
    z = scores(parameters, X)
    return jnp.mean(jax.scipy.special.logsumexp(z, axis=1) - z[jnp.arange(len(y)), y])


def adam(state, X, y):
    parameters, m, v, t = state
    gradient = jax.grad(cost)(parameters, X, y)
    m = jax.tree.map(lambda m, g: B1 * m + (1 - B1) * g, m, gradient)
    v = jax.tree.map(lambda v, g: B2 * v + (1 - B2) * g * g, v, gradient)

    def moved(p, m, v):
        return p - RATE * (m / (1 - B1**t)) / (jnp.sqrt(v / (1 - B2**t)) + EPS)

    return jax.tree.map(moved, parameters, m, v), m, v, t + 1


@jax.jit
def epoch(state, X, y, order):
    whole = len(order) // BATCH * BATCH
    batches = order[:whole].reshape(-1, BATCH)
    state, _ = jax.lax.scan(lambda state, rows: (adam(state, X[rows], y[rows]), None), state, batches)
    short = order[whole:]
    return adam(state, X[short], y[short]) if len(short) else state


def history(data: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[float]]:
    X, y = jnp.asarray(data["A_train"], float), jnp.asarray(data["u_train"])
    X_valid, y_valid = jnp.asarray(data["A_valid"], float), jnp.asarray(data["u_valid"])
    start = {name: jnp.asarray(data[name], float) for name in NAMES}
    zeros = jax.tree.map(jnp.zeros_like, start)
    state = (start, zeros, zeros, jnp.asarray(1.0))
    valid_cost = jax.jit(cost)

    costs: list[float] = []
    for order in np.asarray(data["order"]):
        state = epoch(state, X, y, order)
        costs.append(float(valid_cost(state[0], X_valid, y_valid)))
        epochs_since_lowest = len(costs) - 1 - int(np.argmin(costs))
        if epochs_since_lowest >= PATIENCE:
            break
    return {name: np.asarray(value) for name, value in state[0].items()}, costs


def train(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return history(data)[0]


def evaluate(parameters: dict[str, np.ndarray], data: dict[str, np.ndarray]) -> dict[str, float]:
    X, y = jnp.asarray(data["A_test"], float), jnp.asarray(data["u_test"])
    predicted = np.argmax(np.asarray(scores(parameters, X)), axis=1)
    return {"C": float(cost(parameters, X, y)), "acc": float(np.mean(predicted == np.asarray(y)))}
