"""pendulum.lr: the same Runge-Kutta steps by `lax.scan`, Adam on length and friction."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

RATE, B1, B2, EPS = 0.02, 0.9, 0.999, 1e-8
STEP, GRAVITY = 0.05, 9.81


def slope(state, p):
    return jnp.stack([state[1], -GRAVITY / p["length"] * jnp.sin(state[0]) - p["friction"] * state[1]])


def cost(p, measured):
    def turn(s, _):
        k1 = slope(s, p)
        k2 = slope(s + STEP / 2 * k1, p)
        k3 = slope(s + STEP / 2 * k2, p)
        k4 = slope(s + STEP * k3, p)
        s = s + STEP / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return s, s[0]

    _, angles = jax.lax.scan(turn, jnp.asarray([1.0, 0.0]), None, length=len(measured))
    return jnp.mean((angles - measured) ** 2)


def train(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    measured = jnp.asarray(data["measured"])

    def adam(state, _):
        p, m, v, t = state
        g = jax.grad(cost)(p, measured)
        m = jax.tree.map(lambda m, g: B1 * m + (1 - B1) * g, m, g)
        v = jax.tree.map(lambda v, g: B2 * v + (1 - B2) * g * g, v, g)
        p = jax.tree.map(lambda p, m, v: p - RATE * (m / (1 - B1**t)) / (jnp.sqrt(v / (1 - B2**t)) + EPS), p, m, v)
        return (p, m, v, t + 1), None

    start = {name: jnp.asarray(data[name], float) for name in ("length", "friction")}
    zeros = jax.tree.map(jnp.zeros_like, start)
    (p, *_), _ = jax.jit(lambda s: jax.lax.scan(adam, s, None, length=300))((start, zeros, zeros, jnp.asarray(1.0)))
    return {name: np.asarray(value) for name, value in p.items()}
