"""Every built-in function, called from the language, against NumPy, SciPy and JAX.

A case is a call and what it should give; it is run with the arrays as data (sizes are numbers) and as inputs (sizes are
symbols), in float64 and in float32.  `test_every_function_is_called` fails for a function without a case.
"""
# ruff: noqa: E501  (tables: one case a line)
from __future__ import annotations

import re
import zlib

import numpy as np
import pytest
from scipy import special, stats

import dsl
from dsl.ops.functions import FUNCTIONS

KINDS = ("scalar", "vector", "matrix", "tensor")
WORDS = {"f": "", "i": "int ", "b": "bool "}


def seeded(*parts) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(parts).encode()))


def declaration(name, array) -> str:
    """An input that takes the array, with its lengths named after their values."""
    word = "int32 " if array.dtype == np.int32 else WORDS[array.dtype.kind]
    shape = f"[{', '.join(f'n{n}' if n > 1 else str(n) for n in array.shape)}]" if array.ndim else ""
    return f"{word}{KINDS[min(array.ndim, 3)]} {name}{shape}"


def ways(text, arrays, precision="float64"):
    """The value of a call, first with the arrays as data, then as inputs."""
    used = {k: v for k, v in arrays.items() if re.search(rf"\b{k}\b", text)}
    script = f"precision {precision}\n" + "\n".join(f"data {name} = 0" for name in used)
    yield dsl.compile(script, data=used, device="numpy").eval(text)          # on the reference: other devices add up in another order
    script = f"precision {precision}\n" + "\n".join(declaration(name, a) for name, a in used.items())
    yield dsl.compile(script, device="numpy").eval(text, data=used)


def value(text, precision="float64", **arrays):
    """The value, the same both ways."""
    first, second = ways(text, {k: np.asarray(v) for k, v in arrays.items()}, precision)
    np.testing.assert_array_equal(first, second)
    assert np.asarray(first).dtype == np.asarray(second).dtype
    return first


rng = seeded("arrays")
ARRAYS = {
    "a": np.array(0.7), "b": np.array(-1.3), "p": np.array(0.3),
    "v": rng.normal(size=5), "w": rng.normal(size=5), "q": rng.uniform(0.05, 0.95, 5),
    "M": rng.normal(size=(3, 4)), "N": rng.normal(size=(4, 2)), "S": rng.normal(size=(4, 4)), "P": rng.uniform(0.05, 0.95, (3, 4)),
    "T": rng.normal(size=(2, 3, 4)), "E": np.zeros((0, 4)), "one": rng.normal(size=(3, 1, 2)),
    "i": np.array([2, -1, 0, 5, 3]), "j": np.array([0, 3, 1]), "k": np.array([[1, 0, 2, 1], [3, 3, 0, 2], [0, 1, 1, 3]]),
    "h": np.array([3, -2, 7], np.int32), "t": np.array([True, False, True, True, False]),
    "U": np.array([[True, False], [True, True]]), "ties": np.array([2.0, 1.0, 2.0, 1.0, 0.5]),
}
A = ARRAYS
sigma = special.expit
softmax, log_softmax = special.softmax, special.log_softmax


def lse(x, axis=None, keepdims=False):
    return special.logsumexp(x, axis=axis, keepdims=keepdims)


CASES = {                                                      # a call: what it gives
    # conversion
    "float(i)": A["i"] * 1.0, "float(t)": A["t"] * 1.0, "float(v)": A["v"], "float(3)": 3.0, "float(h)": A["h"] * 1.0,
    "int(v)": A["v"].astype(np.int64), "int(t)": A["t"].astype(np.int64), "int(i)": A["i"], "int(h)": A["h"], "int(-2.7)": np.int64(-2),
    "bool(i)": A["i"] != 0, "bool(v)": A["v"] != 0, "bool(t)": A["t"], "bool(0.0)": np.False_,
    # shape
    "reshape(M, (4, 3))": A["M"].reshape(4, 3), "reshape(M, (2, -1))": A["M"].reshape(2, -1), "reshape(T, -1)": A["T"].ravel(),
    "reshape(M, 12)": A["M"].ravel(), "reshape(M, (-1, 2, 3))": A["M"].reshape(-1, 2, 3), "reshape(a, (1, 1))": np.full((1, 1), 0.7),
    "reshape(M, 4, 3)": A["M"].reshape(4, 3), "reshape(T, (2, -1))": A["T"].reshape(2, -1), "reshape(M, [2, 6])": A["M"].reshape(2, 6),
    "reshape(T, (size(T, 0), -1))": A["T"].reshape(2, -1), "reshape(E, (2, 0))": np.zeros((2, 0)), "reshape(t, (5, 1))": A["t"][:, None],
    "transpose(M)": A["M"].T, "transpose(T)": A["T"].T, "transpose(T, axes = (1, 0, 2))": A["T"].transpose(1, 0, 2),
    "transpose(T, axes = (-1, 0, 1))": A["T"].transpose(-1, 0, 1), "transpose(v)": A["v"], "transpose(v, axes = 0)": A["v"], "M.T": A["M"].T, "a + transpose(a)": 1.4,
    "expand_dims(v, 0)": A["v"][None], "expand_dims(v, 1)": A["v"][:, None], "expand_dims(M, -1)": A["M"][..., None], "expand_dims(M, axis = 1)": A["M"][:, None],
    "squeeze(one)": A["one"][:, 0], "squeeze(one, 1)": A["one"][:, 0], "squeeze(one, axis = -2)": A["one"][:, 0],
    "squeeze(reshape(a, (1, 1)))": 0.7, "squeeze(reshape(v, (1, 5, 1)), axis = (0, 2))": A["v"],
    "concat((v, w))": np.concatenate([A["v"], A["w"]]), "concat((M, M), axis = 1)": np.concatenate([A["M"]] * 2, 1), "concat([v, w, v])": np.concatenate([A["v"], A["w"], A["v"]]),
    "concat((M, E))": A["M"], "concat((v, i))": np.concatenate([A["v"], A["i"]]), "concat((t, i))": np.concatenate([A["t"], A["i"]]), "concat((T, T), -1)": np.concatenate([A["T"]] * 2, -1),
    "concat((t, t))": np.concatenate([A["t"]] * 2), "stack((v, w))": np.stack([A["v"], A["w"]]), "stack((v, w), axis = 1)": np.stack([A["v"], A["w"]], 1), "stack((M, M), -1)": np.stack([A["M"]] * 2, -1),
    "stack((a, b))": np.array([0.7, -1.3]), "stack((1, 2.5))": np.array([1, 2.5]), "[v, w]": np.stack([A["v"], A["w"]]), "[[1, 2], [3, 4]]": np.array([[1, 2], [3, 4]]),
    "tile(v, 2)": np.tile(A["v"], 2), "tile(M, (2, 3))": np.tile(A["M"], (2, 3)), "tile(v, (2, 1))": np.tile(A["v"], (2, 1)), "tile(T, 2)": np.tile(A["T"], 2), "tile(a, 3)": np.tile(0.7, 3),
    "tile(v, 0)": np.tile(A["v"], 0), "repeat(v, 3)": np.repeat(A["v"], 3), "repeat(M, 2)": np.repeat(A["M"], 2), "repeat(M, 2, axis = 0)": np.repeat(A["M"], 2, 0), "repeat(M, 2, 1)": np.repeat(A["M"], 2, 1),
    "repeat(a, 4)": np.repeat(0.7, 4), "repeat(v, 0)": np.zeros(0), "repeat(i, size(j))": np.repeat(A["i"], 3),
    "zeros(3)": np.zeros(3), "zeros((2, 3))": np.zeros((2, 3)), "zeros(2, 3)": np.zeros((2, 3)), "zeros(0)": np.zeros(0), "zeros(size(v))": np.zeros(5), "zeros(())": 0.0, "zeros(shape(M))": np.zeros((3, 4)),
    "ones(3)": np.ones(3), "ones((2, size(M, 1)))": np.ones((2, 4)), "full(3, 2.5)": np.full(3, 2.5), "full((2, 2), 7)": np.full((2, 2), 7), "full(2, a)": np.full(2, 0.7), "full((3, 5), v)": np.tile(A["v"], (3, 1)),
    "eye(3)": np.eye(3), "eye(2, 4)": np.eye(2, 4), "eye(size(v))": np.eye(5), "eye(0)": np.eye(0),
    "arange(5)": np.arange(5), "arange(2, 5)": np.arange(2, 5), "arange(0, 10, 3)": np.arange(0, 10, 3), "arange(5, 0, -2)": np.arange(5, 0, -2), "arange(5, 2)": np.arange(5, 2), "arange(0)": np.arange(0),
    "arange(size(v))": np.arange(5), "arange(1, size(v) + 1)": np.arange(1, 6), "arange(0, 1, 0.25)": np.arange(0, 1, 0.25), "arange(2.5)": np.arange(2.5), "arange(1.0, 2.0, 0.1)": np.arange(1.0, 2.0, 0.1), "arange(-3, 3)": np.arange(-3, 3),
    "arange(size(v), 0, -1)": np.arange(5, 0, -1),
    "linspace(0, 1, 5)": np.linspace(0, 1, 5), "linspace(a, b, 7)": np.linspace(0.7, -1.3, 7), "linspace(-1, 1, 101)": np.linspace(-1, 1, 101), "linspace(2, 3, 1)": np.linspace(2, 3, 1), "linspace(2, 3, 0)": np.zeros(0),
    "linspace(0, 1, size(v))": np.linspace(0, 1, 5), "zeros_like(M)": np.zeros((3, 4)), "zeros_like(i)": np.zeros(5, np.int64), "ones_like(v)": np.ones(5), "ones_like(h)": np.ones(3, np.int32), "ones_like(t)": np.ones(5, bool),
    "tril(S)": np.tril(A["S"]), "tril(S, 1)": np.tril(A["S"], 1), "tril(M, k = -1)": np.tril(A["M"], -1), "triu(S)": np.triu(A["S"]), "triu(M, -1)": np.triu(A["M"], -1), "triu(T)": np.triu(A["T"]), "tril(k)": np.tril(A["k"]), "triu(U)": np.triu(A["U"]),
    "diag(v)": np.diag(A["v"]), "diag(v, 1)": np.diag(A["v"], 1), "diag(v, -2)": np.diag(A["v"], -2), "diag(S)": np.diag(A["S"]), "diag(M, 1)": np.diag(A["M"], 1), "diag(M, k = -1)": np.diag(A["M"], -1), "diag(N)": np.diag(A["N"]), "diag(M, 7)": np.zeros(0),
    "one_hot(j, 4)": np.eye(4)[A["j"]], "one_hot(k, 4)": np.eye(4)[A["k"]], "one_hot(2, 3)": np.eye(3)[2], "one_hot(j, size(S, 0))": np.eye(4)[A["j"]],
    "sort(v)": np.sort(A["v"]), "sort(M, axis = 0)": np.sort(A["M"], 0), "sort(T, 1)": np.sort(A["T"], 1), "sort(i)": np.sort(A["i"]), "argsort(v)": np.argsort(A["v"]), "argsort(M, 0)": np.argsort(A["M"], 0), "argsort(ties)": np.argsort(A["ties"], kind="stable"),
    "size(M)": np.int64(12), "size(M, 1)": np.int64(4), "size(T, -1)": np.int64(4), "size(a)": np.int64(1), "shape(M)[1]": np.int64(4), "shape(T)[-3]": np.int64(2), "size(M, 0) + 0.5": 3.5, "size(M) // size(M, 0)": np.int64(4),
    # linear algebra
    "dot(v, w)": A["v"] @ A["w"], "dot(M, N)": A["M"] @ A["N"], "dot(M, S[0])": A["M"] @ A["S"][0], "dot(a, v)": 0.7 * A["v"], "outer(v, w)": np.outer(A["v"], A["w"]), "outer(v, j)": np.outer(A["v"], A["j"]), "outer(M, v)": np.outer(A["M"], A["v"]),
    "M @ N": A["M"] @ A["N"], "T @ N": A["T"] @ A["N"], "v @ w": A["v"] @ A["w"], "i @ i": A["i"] @ A["i"], "i @ v": A["i"] @ A["v"], "h @ h": A["h"] @ A["h"],
    # losses
    "mse(v, w)": np.mean((A["v"] - A["w"]) ** 2), "mse(v, i)": np.mean((A["v"] - A["i"]) ** 2), "mae(v, w)": np.mean(np.abs(A["v"] - A["w"])), "mae(i, t)": np.mean(np.abs(A["i"] - 1.0 * A["t"])), "mse(M, 0.5)": np.mean((A["M"] - 0.5) ** 2),
    "huber(v)": special.huber(1, A["v"]), "huber(v, 0.3)": special.huber(0.3, A["v"]), "huber(i, delta = 2)": special.huber(2, A["i"]),
    "bce(q, t)": -np.log(np.where(A["t"], A["q"], 1 - A["q"])), "bce(q, 0.3)": -(0.3 * np.log(A["q"]) + 0.7 * np.log(1 - A["q"])),
    "bce_logits(v, t)": -np.log(np.where(A["t"], sigma(A["v"]), sigma(-A["v"]))), "bce_logits(v, q)": np.logaddexp(0, A["v"]) - A["q"] * A["v"],
    "xent(M, j)": -log_softmax(A["M"], -1)[np.arange(3), A["j"]], "xent(v, 2)": -log_softmax(A["v"])[2], "xent(T, [[1, 0, 2], [3, 1, 0]])": -np.take_along_axis(log_softmax(A["T"], -1), np.array([[1, 0, 2], [3, 1, 0]])[..., None], -1)[..., 0],
    # reductions, with every way to say the axis
    **{call.format(name): f(x.ravel() if axes is None else x, **(axes or {}))
       for name, f in {"sum": np.sum, "prod": np.prod, "mean": np.mean, "var": np.var, "std": np.std, "min": np.min, "max": np.max, "norm": np.linalg.norm, "logsumexp": lse}.items()
       for call, x, axes in (("{}(v)", A["v"], None), ("{}(M)", A["M"], None), ("{}(M, 0)", A["M"], {"axis": 0}), ("{}(T, axis = -1)", A["T"], {"axis": -1}),
                             ("{}(T, axis = 1, keepdims = true)", A["T"], {"axis": 1, "keepdims": True}))},
    "sum(T, axis = (0, 2))": np.sum(A["T"], (0, 2)), "mean(T, axis = [0, 1], keepdims = true)": np.mean(A["T"], (0, 1), keepdims=True), "max(T, (1, 2))": np.max(A["T"], (1, 2)), "norm(T, (0, 1))": np.sqrt(np.sum(A["T"] ** 2, (0, 1))),
    "sum(a)": 0.7, "mean(a)": 0.7, "max(a)": 0.7, "std(a)": 0.0, "sum(i)": np.sum(A["i"]), "sum(h)": np.sum(A["h"], dtype=np.int64), "sum(t)": np.int64(3), "prod(h)": np.prod(A["h"], dtype=np.int64), "mean(i)": np.mean(A["i"]), "mean(t)": np.mean(A["t"]),
    "max(h)": np.int32(7), "min(i)": np.int64(-1), "max(t)": np.int64(1), "sum(E)": 0.0, "sum(E, 0)": np.zeros(4), "prod(E)": 1.0, "std(i)": np.std(A["i"]), "var(v, ddof = 1)": np.var(A["v"], ddof=1), "std(M, 0, ddof = 1)": np.std(A["M"], 0, ddof=1),
    "norm(i)": np.linalg.norm(A["i"]), "logsumexp(i)": lse(A["i"]), "sum(M, keepdims = true)": np.sum(A["M"], keepdims=True),
    "argmax(v)": np.argmax(A["v"]), "argmin(v)": np.argmin(A["v"]), "argmax(M)": np.argmax(A["M"]), "argmax(M, 0)": np.argmax(A["M"], 0), "argmin(T, axis = 1, keepdims = true)": np.argmin(A["T"], 1, keepdims=True), "argmax(i)": np.int64(3), "argmax(t)": np.int64(0), "argmin(ties)": np.int64(4), "argmax(ties)": np.int64(0),
    "any(t)": np.True_, "all(t)": np.False_, "any(M > 1, 0)": np.any(A["M"] > 1, 0), "all(M < 9, axis = 1)": np.ones(3, bool), "any(U, 1, keepdims = true)": np.any(A["U"], 1, keepdims=True), "all(E > 0)": np.True_,
    # row-wise
    "softmax(M)": softmax(A["M"], -1), "softmax(M, 0)": softmax(A["M"], 0), "softmax(v)": softmax(A["v"]), "softmax(i)": softmax(A["i"]), "log_softmax(M)": log_softmax(A["M"], -1), "log_softmax(T, axis = 1)": log_softmax(A["T"], 1), "softmax(T, (1, 2))": softmax(A["T"], (1, 2)),
    "cumsum(v)": np.cumsum(A["v"]), "cumsum(M)": np.cumsum(A["M"]), "cumsum(M, 0)": np.cumsum(A["M"], 0), "cumsum(T, axis = -2)": np.cumsum(A["T"], -2), "cumsum(i)": np.cumsum(A["i"]), "cumsum(h)": np.cumsum(A["h"], dtype=np.int64), "cumsum(t)": np.cumsum(A["t"]),
    "cumprod(v)": np.cumprod(A["v"]), "cumprod(M, 1)": np.cumprod(A["M"], 1), "cumprod(i)": np.cumprod(A["i"]), "cumprod(a)": np.array([0.7]),
    # element-wise with more than one operand, or defined here
    "where(v > 0, v, 0)": np.where(A["v"] > 0, A["v"], 0), "where(t, i, 7)": np.where(A["t"], A["i"], 7), "where(t, i, 0.5)": np.where(A["t"], A["i"], 0.5), "where(t, t, not t)": np.ones(5, bool), "if a > 0 then v else w": A["v"],
    "logaddexp(v, w)": np.logaddexp(A["v"], A["w"]), "xlogy(q, q)": special.xlogy(A["q"], A["q"]), "xlogy(i - 2, 3)": special.xlogy(A["i"] - 2, 3), "hypot(v, w)": np.hypot(A["v"], A["w"]), "hypot(3, 4)": 5.0, "atan2(v, w)": np.arctan2(A["v"], A["w"]),
    "maximum(v, w)": np.maximum(A["v"], A["w"]), "maximum(i, 1)": np.maximum(A["i"], 1), "maximum(i, 0.5)": np.maximum(A["i"], 0.5), "minimum(h, 2)": np.minimum(A["h"], 2), "minimum(M, M[0])": np.minimum(A["M"], A["M"][0]), "maximum(t, 0)": A["t"].astype(np.int64),
    "clip(v, -0.5, 0.5)": np.clip(A["v"], -0.5, 0.5), "clip(i, 0, 3)": np.clip(A["i"], 0, 3), "clip(h, -1, 5)": np.clip(A["h"], -1, 5), "clip(i, 0.5, 2)": np.clip(A["i"], 0.5, 2.0), "clip(v, low = b, high = a)": np.clip(A["v"], -1.3, 0.7),
    "isnan(v / 0)": np.zeros(5, bool), "isfinite(v / 0)": np.zeros(5, bool), "isnan(i)": np.zeros(5, bool), "round(v * 2)": np.round(A["v"] * 2), "round(i)": A["i"], "floor(h)": A["h"], "sqr(i)": A["i"] ** 2, "abs(h)": np.abs(A["h"]), "sign(i)": np.sign(A["i"]), "abs(t)": A["t"].astype(np.int64),
    "exp(i)": np.exp(A["i"]), "sqrt(t)": np.sqrt(1.0 * A["t"]), "relu(i)": np.maximum(A["i"], 0), "relu(h)": np.maximum(A["h"], 0),
    **{f"{name}(v)": f(A["v"]) for name, f in {
        "exp": np.exp, "expm1": np.expm1, "cbrt": np.cbrt, "sqr": np.square, "abs": np.abs, "sign": np.sign, "sin": np.sin, "cos": np.cos, "tan": np.tan, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh,
        "sigmoid": sigma, "softplus": lambda x: np.logaddexp(0, x), "relu": lambda x: np.maximum(x, 0), "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x), "gelu": lambda x: x * stats.norm.cdf(x), "silu": lambda x: x * sigma(x), "softsign": lambda x: x / (1 + np.abs(x)),
        "erf": special.erf, "erfc": special.erfc, "floor": np.floor, "ceil": np.ceil, "round": np.round}.items()},
    **{f"{name}(q)": f(A["q"]) for name, f in {"log": np.log, "log1p": np.log1p, "sqrt": np.sqrt, "asin": np.arcsin, "acos": np.arccos, "logit": special.logit, "lgamma": special.gammaln, "digamma": special.digamma}.items()},
    # data
    "standardize(M)": (A["M"] - A["M"].mean(0)) / A["M"].std(0), "standardize(v)": (A["v"] - A["v"].mean()) / A["v"].std(), "standardize(M, like = S)": (A["M"] - A["S"].mean(0)) / A["S"].std(0), "standardize(i)": (A["i"] - A["i"].mean()) / A["i"].std(),
    "stop_grad(v)": A["v"], "dropout(v, 0.5)": A["v"], "dropout(v, 0)": A["v"], "dropout(i, 0.5)": A["i"] * 1.0, "dropout(v, 0, training = true)": A["v"],
}
ELSEWHERE = {"normal", "uniform", "bernoulli", "categorical", "permutation", "grad", "hess", "jac", "jvp", "vjp", "hvp",
             "csv", "npy", "npz", "parquet", "split", "codes", "labels"}


def test_every_function_is_called():
    called = {name for text in CASES for name in re.findall(r"\b([a-z_0-9]+)\(", text)}
    assert set(FUNCTIONS) <= called | ELSEWHERE, f"no case calls {sorted(set(FUNCTIONS) - called - ELSEWHERE)}"
    assert set(FUNCTIONS) >= ELSEWHERE and not any(f"{name}(" in text for name in ELSEWHERE for text in CASES if not re.search(rf"\w{name}\(", text))


@pytest.mark.parametrize("text", CASES)
def test_against_numpy(text):
    wanted = np.asarray(CASES[text])
    got = np.asarray(value(text, **ARRAYS))
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    if wanted.dtype.kind == "f":
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-13)
    else:
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("text", CASES)
def test_precision_float32_is_kept(text):
    """Under `precision float32` every float is a float32; integers and bools are what they were."""
    wanted = np.asarray(CASES[text])
    for got in map(np.asarray, ways(text, ARRAYS, "float32")):
        assert got.dtype == (np.float32 if wanted.dtype.kind == "f" else wanted.dtype) and got.shape == wanted.shape
        if wanted.dtype.kind == "f":
            np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=2e-5)


def test_under_float32_no_node_is_float64():
    """No silent upcast inside either; `linspace` alone counts in float64 and rounds once."""
    from dsl.ir.node import topological
    inputs = "\n".join(declaration(name, a) for name, a in ARRAYS.items())
    m = dsl.compile(f"precision float32\n{inputs}")
    for text in CASES:
        function = m.function([n for n in ARRAYS if re.search(rf"\b{n}\b", text)], text)
        wide = [n for n in topological(function.outputs) if n.dtype == "float64"]
        assert not wide or "linspace" in text, f"{text}: {wide[0]}"


# ---------------------------------------------------------------- types of arithmetic (LANGUAGE, section 3)
ARITHMETIC = [                                                 # expression, value, dtype
    ("i + 1", [3, 0, 1, 6, 4], "int64"), ("i + 0.5", [2.5, -0.5, 0.5, 5.5, 3.5], "float64"), ("i + a", [2.7, -0.3, 0.7, 5.7, 3.7], "float64"),
    ("i / 2", [1.0, -0.5, 0.0, 2.5, 1.5], "float64"), ("i // 2", [1, -1, 0, 2, 1], "int64"), ("i % 3", [2, 2, 0, 2, 0], "int64"), ("i // 2.0", [1.0, -1.0, 0.0, 2.0, 1.0], "float64"),
    ("7 / 2", 3.5, "float64"), ("7 // 2", 3, "int64"), ("-7 // 2", -4, "int64"), ("-7 % 3", 2, "int64"), ("7.5 // 2", 3.0, "float64"), ("-7.5 % 2", 0.5, "float64"),
    ("t + t", [2, 0, 2, 2, 0], "int64"), ("t * 2", [2, 0, 2, 2, 0], "int64"), ("t + 0.5", [1.5, 0.5, 1.5, 1.5, 0.5], "float64"), ("-t", [-1, 0, -1, -1, 0], "int64"), ("t / 2", [0.5, 0, 0.5, 0.5, 0], "float64"),
    ("t ** 2", [1, 0, 1, 1, 0], "int64"), ("true + true", 2, "int64"), ("t == 1", [True, False, True, True, False], "bool"), ("t and not t", [False] * 5, "bool"), ("t == t", [True] * 5, "bool"), ("t < 1", [False, True, False, False, True], "bool"),
    ("h + 1", [4, -1, 8], "int32"), ("h * h", [9, 4, 49], "int32"), ("h + j", [3, 1, 8], "int64"), ("h + 0.5", [3.5, -1.5, 7.5], "float64"), ("h / 2", [1.5, -1.0, 3.5], "float64"), ("h // 2", [1, -1, 3], "int32"), ("-h", [-3, 2, -7], "int32"),
    ("h ** 2", [9, 4, 49], "int32"), ("h + true", [4, -1, 8], "int64"), ("h + 3000000000", [3000000003, 2999999998, 3000000007], "int64"), ("maximum(h, 0)", [3, 0, 7], "int32"), ("where(h > 0, h, 0)", [3, 0, 7], "int32"), ("where(h > 0, h, 0.5)", [3.0, 0.5, 7.0], "float64"),
    ("[h[0], 1]", [3, 1], "int32"), ("h + size(h)", [6, 1, 10], "int64"), ("h % 2", [1, 0, 1], "int32"), ("1 - h", [-2, 3, -6], "int32"), ("h == 3", [True, False, False], "bool"),
    ("2 ** 3", 8, "int64"), ("2 ** -1", 0.5, "float64"), ("i ** 2", [4, 1, 0, 25, 9], "int64"), ("(i * i + 1) ** -1", [0.2, 0.5, 1.0, 1 / 26, 0.1], "float64"), ("2.0 ** 3", 8.0, "float64"), ("2 ** 0.5", 2 ** 0.5, "float64"), ("i ** 0", [1] * 5, "int64"), ("h ** -1", [1 / 3, -0.5, 1 / 7], "float64"),
    ("9223372036854775807 + 1", -2**63, "int64"), ("2 ** 63", -2**63, "int64"), ("(h - 5) * 1073741824", [-2**31, 2**30, -2**31], "int32"), ("-9223372036854775808", -2**63, "int64"), ("-9223372036854775808 // -1", -2**63, "int64"), ("abs(-9223372036854775808)", -2**63, "int64"),
    ("1 < 2", True, "bool"), ("1 == 1.0", True, "bool"), ("nan == nan", False, "bool"), ("nan != nan", True, "bool"), ("pi", np.pi, "float64"), ("-inf", -np.inf, "float64"),
    ("[1, 2, 3]", [1, 2, 3], "int64"), ("[1, 2.5]", [1.0, 2.5], "float64"), ("[true, 2]", [1, 2], "int64"), ("if true then 1 else 2.5", 1.0, "float64"), ("0.0 * -1", -0.0, "float64"), ("-0.0", -0.0, "float64"),
]


@pytest.mark.parametrize(("text", "wanted", "dtype"), ARITHMETIC)
def test_types_of_arithmetic(text, wanted, dtype):
    got = np.asarray(value(text, **ARRAYS))
    assert got.dtype == dtype
    np.testing.assert_allclose(got, np.asarray(wanted), rtol=1e-15) if dtype == "float64" else np.testing.assert_array_equal(got, wanted)
    assert np.array_equal(np.signbit(got), np.signbit(np.asarray(wanted, got.dtype))) if dtype == "float64" else True
    single = np.asarray(next(ways(text, ARRAYS, "float32")))
    assert single.dtype == ("float32" if dtype == "float64" else dtype)


@pytest.mark.parametrize(("script", "dtype"), [("let x = 3", "float64"), ("let x = -3", "float64"), ("let x = 7 // 2", "int64"), ("let x = 3.0", "float64"), ("let x = true", "bool"), ("shared x = 1", "float64"), ("let x = [1, 2]", "int64"), ("let x = (3)", "float64")])
def test_a_bound_literal_is_a_float(script, dtype):
    assert dsl.compile(script)["x"].dtype == dtype
    assert dsl.compile(script, precision="float32")["x"].dtype == dtype.replace("64", "32" if "float" in dtype else "64")


# ---------------------------------------------------------------- errors
ERRORS = [
    ("sum(M, 2)", "E0205", "axis 2 of an array with 2 axes"), ("sum(v, axis = (0, 0))", "E0205", "named twice"), ("sum(a, 0)", "E0205", "axis 0 of an array with 0 axes"), ("sort(M, -3)", "E0205", "axis -3"), ("cumsum(M, 2)", "E0205", "axis 2"),
    ("argmax(v, axis = 1)", "E0205", "axis 1"), ("softmax(a)", "E0204", "needs an array"), ("expand_dims(v, 3)", "E0205", "axis 3"), ("transpose(M, axes = (0, 0))", "E0205", "every axis once"), ("squeeze(M, 0)", "E0202", "cannot squeeze"),
    ("reshape(M, (5, -1))", "E0202", "cannot reshape"), ("reshape(M, (5, 2))", "E0202", "cannot reshape"), ("reshape(M, (-1, -1))", "E0202", "only one length"), ("concat((v, M))", "E0202", "cannot join"), ("concat((a, b))", "E0204", "joins arrays"), ("stack((v, M))", "E0204", "parts of one shape"),
    ("concat((M, N))", "E0202", "cannot join"), ("v + j", "E0202", "cannot combine"), ("M @ M", "E0201", "cannot multiply"), ("v @ a", "E0204", "needs arrays"), ("dot(M, T)", "E0204", "takes vectors and matrices"), ("any(v)", "E0203", "takes bool"), ("v and v", "E0203", "a condition is bool"),
    ("one_hot(v, 3)", "E0203", "integer classes"), ("xent(M, v)", "E0203", "integer classes"), ("xent(M, k)", "E0204", "one more axis"), ("tril(v)", "E0204", "no matrix"), ("diag(T)", "E0204", "a vector or a matrix"), ("max(zeros(0))", "E0206", "of no elements"), ("argmin(zeros((0, 2)), 0)", "E0206", "of no elements"),
    ("arange(0, 5, 0)", "E0202", "step 0"), ("arange(a)", "E0203", "literal bounds"), ("zeros(a)", "E0208", "whole numbers and dims"), ("exp(v, w)", "E0502", "takes 1 argument"), ("clip(v, 0)", "E0502", "needs"), ("sum(v, keepdims = 1)", "E0504", "`true` or `false`"), ("sum(v, axes = 0)", "E0503", "no parameter"),
    ("standardize(a)", "E0204", "an array of rows"), ("categorical(a)", "E0204", "along the last axis"), ("grad(v, v)", "E0204", "a gradient is of a scalar"), ("hypot(v, j)", "E0202", "cannot combine"), ("-zeros(-2)", "E0208", "not negative"),
]


@pytest.mark.parametrize(("text", "code", "words"), ERRORS)
def test_errors(text, code, words):
    """At once where sizes are known; with symbols for sizes the ones that need none of them."""
    m = dsl.compile("\n".join(f"data {name} = 0" for name in ARRAYS), data=ARRAYS)
    with pytest.raises(dsl.LrError) as caught:
        m.eval(text)
    assert caught.value.code == code and words in caught.value.message
    assert caught.value.column is not None


@pytest.mark.parametrize(("text", "code"), [("int(v)", "E0704"), ("i // (i - i)", "E0701"), ("i % 0", "E0701"), ("2 ** i", "E0703"), ("v[i]", "E0702"), ("max(v[:0])", "E0206")])
def test_faults_name_the_place(text, code):
    m = dsl.compile("vector v[n]\nint vector i[n]")
    with pytest.raises(dsl.LrError) as caught:
        m.eval(text, data={k: x for k, x in (("v", [1.0, np.nan]), ("i", [-1, 7])) if k in text})
    assert caught.value.code in (code, "E0705") and caught.value.line == 1 and caught.value.column


# ---------------------------------------------------------------- linspace
@pytest.mark.parametrize(("first", "last", "n"), [(-1, 1, 101), (0, 1, 7), (0.1, 0.7, 13), (3, -2, 50), (1e-3, 1e3, 1001), (5, 5, 4), (0, 1, 2), (2, 3, 1), (-1e300, 1e300, 9)])
def test_linspace_is_numpys(first, last, n):
    for got in ways(f"linspace({first}, {last}, {n})", {}):
        wanted = np.linspace(first, last, n)
        assert np.max(np.abs(got - wanted) / np.spacing(np.abs(wanted) + 1e-300), initial=0) <= 1 and got[0] == first and (n == 1 or got[-1] == last)
    for got in ways(f"linspace({first}, {last}, {n})", {}, "float32") if abs(first) < 1e30 else ():
        wanted = np.linspace(float(np.float32(first)), float(np.float32(last)), n).astype(np.float32)            # rounded once
        assert np.max(np.abs(got - wanted) / np.spacing(np.abs(wanted) + np.float32(1e-30)), initial=0) <= 1 and got[0] == np.float32(first)


# ---------------------------------------------------------------- JAX as the oracle of losses and their gradients
def test_losses_and_gradients_against_jax():
    import jax
    import jax.numpy as jnp
    with jax.enable_x64(True):
        z, y, q = ARRAYS["M"], ARRAYS["j"], ARRAYS["P"]
        labels = (ARRAYS["S"][:3] > 0).astype(float)
        m = dsl.compile("matrix Z[n, k], L[n, k], Q[n, k]\nint vector y[n]\n"
                        "let x = mean(xent(Z, y)); grad gx = x wrt Z\nlet b = sum(bce_logits(Z, L)); grad gb = b wrt Z\nlet c = sum(bce(Q, L)); grad gc = c wrt Q\n"
                        "let h = sum(huber(Z, 0.4)); grad gh = h wrt Z\nlet l = sum(sqr(log_softmax(Z))); grad gl = l wrt Z\nlet s = sum(sqr(softmax(Z, 0))); grad gs = s wrt Z\n"
                        "let e = sum(sqr(logsumexp(Z, 1))); grad ge = e wrt Z\nlet g = sum(gelu(Z)); grad gg = g wrt Z; let u = sum(silu(Z)); grad gu = u wrt Z")
        losses = {
            "gx": lambda z: jnp.mean(-jax.nn.log_softmax(z)[jnp.arange(3), y]), "gb": lambda z: jnp.sum(jax.nn.softplus(z) - labels * z),
            "gh": lambda z: jnp.sum(jnp.where(jnp.abs(z) <= 0.4, z * z / 2, 0.4 * (jnp.abs(z) - 0.2))), "gl": lambda z: jnp.sum(jax.nn.log_softmax(z) ** 2),
            "gs": lambda z: jnp.sum(jax.nn.softmax(z, 0) ** 2), "ge": lambda z: jnp.sum(jax.nn.logsumexp(z, 1) ** 2), "gg": lambda z: jnp.sum(jax.nn.gelu(z, approximate=False)), "gu": lambda z: jnp.sum(jax.nn.silu(z)),
        }
        given = {"Z": z, "L": labels, "y": y, "Q": q}
        for name, loss in losses.items():
            np.testing.assert_allclose(m.function(list(given), name)(*given.values()), jax.grad(loss)(z), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(m.eval("gc", Q=q, L=labels), jax.grad(lambda q: -jnp.sum(labels * jnp.log(q) + (1 - labels) * jnp.log1p(-q)))(q), rtol=1e-12)


def test_losses_at_the_edges():
    assert value("bce([0.0, 1.0, 0.0], [0, 1, 1])").tolist() == [0.0, 0.0, np.inf]
    assert value("bce(1e-20, 0)") == pytest.approx(1e-20, rel=1e-12)
    np.testing.assert_allclose(value("bce_logits([800.0, -800.0, 40.0, -40.0], [1, 0, 1, 0])"), [0, 0, np.exp(-40), np.exp(-40)], rtol=1e-12)
    assert value("bce_logits(800.0, 0)") == 800 and np.array_equal(value("xent([[1000.0, 0.0]], [1])"), [1000.0])


# ---------------------------------------------------------------- standardize
def test_standardize_leaves_constant_columns_at_zero():
    table = np.stack([np.full(101, 0.1), np.linspace(0, 1, 101), np.full(101, 3.0)], 1)
    got = value("standardize(A)", A=table)
    np.testing.assert_allclose(got[:, [0, 2]], 0, atol=1e-14)
    np.testing.assert_allclose(got[:, 1], (table[:, 1] - 0.5) / table[:, 1].std(), atol=1e-12)
    test = value("standardize(A, like = B)", A=table[:3] + 1, B=table)
    np.testing.assert_allclose(test[:, 0], 1.0)


# ---------------------------------------------------------------- split
def test_split():
    script = "seed {}\ndata X = 0\ndata y = 0\ndata X_train, X_test, y_train, y_test = split(X, y, test = {})"
    X, y = np.arange(22.0).reshape(11, 2), np.arange(11)
    m = dsl.compile(script.format(3, 0.2), data={"X": X, "y": y})
    assert len(m["X_test"]) == len(m["y_test"]) == 3 and len(m["X_train"]) == 8                       # ceil(0.2 * 11)
    assert sorted([*m["y_train"], *m["y_test"]]) == list(range(11))
    assert np.array_equal(m["X_train"][:, 0], 2.0 * m["y_train"]) and np.array_equal(m["X_test"][:, 1], 2.0 * m["y_test"] + 1)
    again, other = (dsl.compile(script.format(seed, 0.2), data={"X": X, "y": y})["y_test"] for seed in (3, 4))
    assert np.array_equal(again, m["y_test"]) and not np.array_equal(other, m["y_test"])
    assert m["y_train"].dtype == np.int64


# ---------------------------------------------------------------- draws
def test_draws_have_their_shapes_and_types():
    for text, shape, dtype in [("normal()", (), "float64"), ("normal(3)", (3,), "float64"), ("uniform((2, 3))", (2, 3), "float64"), ("uniform(2, 3)", (2, 3), "float64"), ("normal(0)", (0,), "float64"),
                               ("bernoulli(0.5)", (), "bool"), ("bernoulli(0.5, 4)", (4,), "bool"), ("bernoulli(v)", (5,), "bool"), ("bernoulli(v, (2, 5))", (2, 5), "bool"), ("categorical([0.2, 0.8])", (), "int64"),
                               ("categorical(M)", (3,), "int64"), ("categorical([0.2, 0.8], 6)", (6,), "int64"), ("permutation(5)", (5,), "int64"), ("normal(size(v))", (5,), "float64")]:
        got = np.asarray(value(text, v=np.full(5, 0.5), M=np.full((3, 2), 0.5)))
        assert got.shape == shape and got.dtype == dtype
        single = np.asarray(next(ways(text, {"v": np.full(5, 0.5), "M": np.full((3, 2), 0.5)}, "float32")))
        assert single.dtype == dtype.replace("float64", "float32") and single.shape == shape


def test_each_call_is_its_own_draw_and_a_let_is_one():
    m = dsl.compile("let z = normal(3); let d = z - z; let e = normal(3) - normal(3); def noise(n) = normal(n)\nlet f = noise(3) - noise(3)")
    assert np.all(m["d"] == 0) and np.all(m["e"] != 0) and np.all(m["f"] != 0)
    assert len(np.unique(np.concatenate([m["z"], m["e"], m["f"]]))) == 9


def test_draws_are_reproducible_and_keyed_by_their_statement():
    text = "seed 7\nlet a = uniform(4)\nlet b = normal(4)\ndata c = permutation(6)\nshared w[3] = 0.1 * normal()"
    first, second = dsl.compile(text), dsl.compile(text)
    edited = dsl.compile("seed 7\nlet zero = normal(9)\nlet a = uniform(4) + uniform(4)\nlet b = normal(4)\nlet more = permutation(3)\ndata c = permutation(6)\nshared w[3] = 0.1 * normal()")
    other = dsl.compile(text.replace("seed 7", "seed 8"))
    for name in "abcw":
        assert np.array_equal(first[name], second[name]) and not np.array_equal(first[name], other[name])
        assert np.array_equal(first[name], edited[name]) == (name != "a")
    assert np.array_equal(dsl.compile("let a = normal(4)")["a"], dsl.compile("seed 0\nlet a = normal(4)")["a"])
    assert np.array_equal(dsl.compile("let a = uniform(9)")["a"][:4], dsl.compile("let a = uniform(4)")["a"])


def test_draws_look_like_their_distributions():
    m = dsl.compile("let u = uniform(20000); let z = normal(20000); let c = categorical([0.1, 0.6, 0.3], 20000); let b = bernoulli(0.25, 20000)\ndata p = permutation(1000)")
    assert m["u"].min() >= 0 and m["u"].max() < 1 and stats.kstest(m["u"], "uniform").pvalue > 1e-3 and stats.kstest(m["z"], "norm").pvalue > 1e-3
    assert np.allclose(np.bincount(m["c"]) / 20000, [0.1, 0.6, 0.3], atol=0.02) and abs(m["b"].mean() - 0.25) < 0.02
    assert sorted(m["p"]) == list(range(1000))
    assert set(dsl.compile("let c = categorical([0, 1, 0, 3.0, 0], 500)")["c"]) == {1, 3}


def test_one_draw_a_row_under_mapping():
    m = dsl.compile("vector x[n]; let y = x + normal(size(x)); let s = sum(x) + normal()")
    x = np.zeros((4, 3))
    rows, single = m.eval("y", x=x), m.eval("s", x=x)
    assert rows.shape == (4, 3) and len(np.unique(rows)) == 12 and len(np.unique(single)) == 4
    assert np.array_equal(rows[0], m.eval("y", x=x[0])) and np.array_equal(rows[:2], m.eval("y", x=x[:2]))


# ---------------------------------------------------------------- dropout
def test_dropout_outside_training_and_when_asked():
    v = np.arange(1.0, 2001.0)
    assert np.array_equal(value("dropout(v, 0.25)", v=v), v)
    kept = value("dropout(v, 0.25, training = true)", v=v)
    assert set(np.unique(kept / v)) <= {0.0, 1 / 0.75} | set(np.unique(v / 0.75 / v)) and 0.7 < np.mean(kept != 0) < 0.8
    gradient = dsl.compile("vector v[n]; grad g = sum(dropout(v, 0.25, training = true)) wrt v").eval("g", v=v)
    assert set(np.round(np.unique(gradient), 12)) == {0.0, round(1 / 0.75, 12)}


def test_dropout_is_active_in_training_steps():
    m = dsl.compile("vector x[n]; shared w = 0.0; cost C = w * mean(dropout(x, 0.5)); grad g = C wrt w; update w <- w - g")
    x = np.ones(1000)
    m.step(x=x)
    first = m["w"].item()
    m.step(x=x)
    assert -1.2 < first < -0.8 and first != -1.0 and m["w"] != 2 * first                   # another draw in every step
    assert m.eval("mean(dropout(x, 0.5))", x=x) == 1.0
