"""The JAX oracles against gradients derived by hand, in NumPy loops, on made-up data."""

import numpy as np
import pytest
from oracles import linear_regression, logistic_regression, mlp_digits, multiply, polynomial_fit, softmax_classifier

CLOSE = {"rtol": 0, "atol": 1e-10}


def softmax(z):
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_multiply():
    assert multiply.train({"a": np.float64(4), "b": np.float64(5)})["y"] == 20.0


def test_linear_regression(rng):
    x = np.linspace(-1, 1, 101)
    y = 2 * x + 1 + 0.33 * rng.standard_normal(101)
    w = b = 0.0
    for _ in range(100):
        for xi, yi in zip(x, y):
            r = 2 * (w * xi + b - yi)
            w, b = w - 0.01 * r * xi, b - 0.01 * r
    found = linear_regression.train({"train_X": x, "train_Y": y, "w": np.float64(0), "b": np.float64(0)})
    np.testing.assert_allclose([found["w"], found["b"]], [w, b], **CLOSE)
    np.testing.assert_allclose([w, b], [2, 1], atol=0.2)


def test_polynomial_fit(rng):
    x = np.linspace(-1, 1, 60)
    y = 1 - 2 * x + 3 * x**3 + 0.1 * rng.standard_normal(60)
    powers = x[:, None] ** np.arange(4)
    c, velocity = np.zeros(4), np.zeros(4)
    for _ in range(1000):
        velocity = 0.9 * velocity + 2 / 60 * powers.T @ (powers @ c - y)
        c = c - 0.1 * velocity
    found = polynomial_fit.train({"train_x": x, "train_y": y, "c": np.zeros(4)})["c"]
    np.testing.assert_allclose(found, c, **CLOSE)
    np.testing.assert_allclose(found, [1, -2, 0, 3], atol=0.2)


def test_logistic_regression(rng):
    X = rng.standard_normal((200, 5))
    y = (X @ np.arange(-2, 3) + rng.standard_normal(200) > 0).astype(int)
    w, b = np.zeros(5), 0.0
    for _ in range(300):
        error = 1 / (1 + np.exp(-(X @ w + b))) - y
        w, b = w - 0.5 * (X.T @ error / 200 + 0.002 * w), b - 0.5 * error.mean()
    data = {"Z_train": X, "u_train": y, "Z_test": X, "u_test": y, "w": np.zeros(5), "b": np.float64(0)}
    found = logistic_regression.train(data)
    np.testing.assert_allclose(found["w"], w, **CLOSE)
    np.testing.assert_allclose(found["b"], b, **CLOSE)
    assert logistic_regression.evaluate(found, data)["acc"] > 0.85


def test_softmax_classifier(rng):
    y = rng.integers(0, 3, 120)
    X = rng.standard_normal((120, 4)) + np.eye(3, 4)[y] * 3
    order = np.stack([rng.permutation(120) for _ in range(60)])
    W, b, vW, vb = np.zeros((4, 3)), np.zeros(3), np.zeros((4, 3)), np.zeros(3)
    for rows in order.reshape(-1, 24):
        error = (softmax(X[rows] @ W + b) - np.eye(3)[y[rows]]) / 24
        vW, vb = 0.9 * vW + X[rows].T @ error + 0.002 * W, 0.9 * vb + error.sum(axis=0)
        W, b = W - 0.05 * vW, b - 0.05 * vb
    data = {"Z_train": X, "u_train": y, "Z_test": X, "u_test": y, "W": np.zeros((4, 3)), "b": np.zeros(3)}
    found = softmax_classifier.train(data | {"order": order})
    np.testing.assert_allclose(found["W"], W, **CLOSE)
    np.testing.assert_allclose(found["b"], b, **CLOSE)
    assert softmax_classifier.evaluate(found, data)["acc"] > 0.85


def test_mlp_digits(rng):
    y = rng.integers(0, 10, 300)
    X = 0.5 * np.abs(rng.standard_normal((300, 64))) + rng.random((10, 64))[y]
    X[:, :3] = 0  # as the corners of the digits: no gradient there
    y[:205:4] = rng.integers(0, 10, 52)  # wrong labels, so that training longer makes it worse
    data = {
        "A_train": X[:205], "u_train": y[:205],
        "A_valid": X[205:], "u_valid": y[205:],
        "A_test": X[205:], "u_test": y[205:],
        "W1": 0.18 * rng.standard_normal((64, 32)), "b1": np.zeros(32),
        "W2": 0.25 * rng.standard_normal((32, 10)), "b2": np.zeros(10),
        "order": np.stack([rng.permutation(205) for _ in range(60)]),
    }  # fmt: skip
    p = [data[name] for name in mlp_digits.NAMES]
    m, v, t, costs = [0.0] * 4, [0.0] * 4, 0, []
    for epoch in data["order"]:
        for rows in np.split(epoch, range(32, 205, 32)):
            hidden = np.maximum(X[rows] @ p[0] + p[1], 0)
            error = (softmax(hidden @ p[2] + p[3]) - np.eye(10)[y[rows]]) / len(rows)
            back = error @ p[2].T * (hidden > 0)
            gradients = [X[rows].T @ back, back.sum(axis=0), hidden.T @ error, error.sum(axis=0)]
            t += 1
            m = [0.9 * a + 0.1 * g for a, g in zip(m, gradients)]
            v = [0.999 * a + 0.001 * g**2 for a, g in zip(v, gradients)]
            rate = 5e-3 / (1 - 0.9**t)
            p = [a - rate * mi / (np.sqrt(vi / (1 - 0.999**t)) + 1e-8) for a, mi, vi in zip(p, m, v)]
        z = np.maximum(X[205:] @ p[0] + p[1], 0) @ p[2] + p[3]
        costs.append(-np.mean(np.log(softmax(z)[np.arange(95), y[205:]])))
        if len(costs) - 1 - np.argmin(costs) >= 5:
            break
    found, valid_costs = mlp_digits.history(data)
    np.testing.assert_allclose(valid_costs, costs, **CLOSE)
    for name, value in zip(mlp_digits.NAMES, p):
        np.testing.assert_allclose(found[name], value, **CLOSE, err_msg=name)
    assert len(costs) < 60, "the made-up data should show early stopping"
    assert mlp_digits.evaluate(found, data)["acc"] > 0.5
