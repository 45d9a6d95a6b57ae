"""Random programs as models: a part of their inputs is trained on mapped rows, natively and by the reference.

`compare_training(seed)` says what became of one.  Where a program is smooth the reference itself shows how far states may be
apart: it trains again from a state and data that are off in the last places, by functions that are.
"""
# ruff: noqa: E501  (a table a line)
from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from random_programs import LENGTHS, Program, anonymous, length
from wide_programs import generate

import dsl
from dsl.errors import LrError
from dsl.ir.node import TABLE

ROWS = 7
WORDS: list[dict[str, Any]] = [{}, {"shuffle": True}, {"batch": 3}, {"batch": 3, "shuffle": True}, {"batch": 4, "drop_last": True}, {"batch": 7}]
OPTIMIZERS = ["sgd(rate = 0.05)", "momentum(rate = 0.02)", "adam(rate = 0.01)", "adamw(rate = 0.01)", "nesterov(rate = 0.02)", "rmsprop(rate = 0.01)", "adagrad(rate = 0.05)"]
RANDOM_CHANGES, FACTOR = 4, 1000


class Unlike(AssertionError):
    """The state after training is not the reference's."""


def script(program: Program, rng: random.Random) -> tuple[str, list[str], list[str]] | None:
    """A training script, its shared variables and its inputs."""
    if program.result.kind != "f":
        return None
    floats = [n for n, t in program.inputs.items() if t.kind == "f" and not anonymous(t)]
    shared = [n for n in floats if rng.random() < 0.5] or floats[:1]
    inputs = [n for n in program.inputs if n not in shared]
    if not shared:
        return None
    known = {d for n in inputs for d in program.inputs[n].shape}
    fixed = any(isinstance(d, str) and d not in known for n in shared for d in program.inputs[n].shape)
    lines = ["dim " + ", ".join(f"{d} = {n}" for d, n in LENGTHS[0].items())] if fixed else []
    for line in program.source.splitlines():
        name = next((n for n in shared if line.split("[")[0].split()[-1:] == [n]), None)
        if name is not None and not line.startswith("let"):
            shape = program.inputs[name].shape
            lines.append(f"shared {name}{'[' + ', '.join(map(str, shape)) + ']' if shape else ''} = 0.4 * normal()")
        else:
            lines.append(line)
    lines += ["cost C = mean(result) + 0.05 * sum(sqr(result))", "use optim", f"minimize C wrt all using {rng.choice(OPTIMIZERS)}"]
    return "\n".join(lines), shared, inputs


def arrays(program: Program, inputs: list[str], seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    result = {}
    for name in inputs:
        term = program.inputs[name]
        shape = (ROWS, *(length(d, LENGTHS[0]) for d in term.shape))
        result[name] = {"f": lambda s=shape: rng.uniform(-1.5, 1.5, s), "i": lambda s=shape: rng.integers(-5, 6, s),
                        "b": lambda s=shape: rng.integers(0, 2, s).astype(bool)}[term.kind]()
    return result


def compare_training(seed: int, device: str = "cpu") -> str:
    """`trained`, `stopped` (with the same words), or `none` where there is nothing to train.  Raises `Unlike`."""
    rng = random.Random(seed)
    program, _ = generate(seed)
    made = script(program, rng)
    if made is None:
        return "none"
    text, shared, inputs = made
    data, words = arrays(program, inputs, seed), rng.choice(WORDS)
    wanted = trained(text, "numpy", seed, data, words, shared)
    if wanted is None:
        return "none"
    got = trained(text, device, seed, data, words, shared)
    assert got is not None
    if got[0] != wanted[0]:
        raise Unlike(f"{words}\n{text}\nnative: {got[0]}\nreference: {wanted[0]}")
    if not program.smooth:
        return "trained" if wanted[0] == "" else "stopped"
    changes = np.random.default_rng(seed)
    moved = {name: np.zeros(np.shape(wanted[1][name])) for name in shared}
    for _ in range(RANDOM_CHANGES):
        near = {n: x * (1 + 2e-16 * changes.choice([-1, 0, 1], x.shape)) if x.dtype.kind == "f" else x for n, x in data.items()}
        with functions_off(changes):
            other = trained(text, "numpy", seed, near, words, shared, changes)
        assert other is not None
        if other[0] != wanted[0]:
            return "stopped"
        moved = {n: np.maximum(m, np.abs(other[1][n] - wanted[1][n])) for n, m in moved.items()}
    for name in shared:
        a, b = got[1][name], wanted[1][name]
        scale = max(moved[name].max(initial=0), 2e-16 * np.abs(b).max(initial=0), 1e-16)
        if not np.allclose(a, b, rtol=0, atol=FACTOR * scale, equal_nan=True):
            raise Unlike(f"{words}\n{text}\n{name} is {a}\nnot {b}\nwhich moves by {moved[name]}")
    return "trained" if wanted[0] == "" else "stopped"


@contextmanager
def functions_off(rng: np.random.Generator) -> Iterator[None]:
    """The reference's functions each a little off, as far as those of another backend may be: 1 - tanh(x)² near its ends is
    made of little else."""
    rows = {op: op.numpy for op in TABLE.values() if op.numpy is not None and op.ulp is not None and max(op.ulp) > 0.5}

    def off(meaning: Any, units: float) -> Any:
        def run(*args: Any, **attrs: Any) -> Any:
            y = np.asarray(meaning(*args, **attrs))
            return np.where(np.isfinite(y), y * (1 + units * np.finfo(y.dtype).eps * rng.uniform(-1, 1, y.shape)).astype(y.dtype), y)[()]
        return run
    try:
        for op, meaning in rows.items():
            op.numpy = off(meaning, 2 * max(op.ulp))
        yield
    finally:
        for op, meaning in rows.items():
            op.numpy = meaning


def trained(text: str, device: str, seed: int, data: dict[str, np.ndarray], words: dict[str, Any], shared: list[str],
            changes: np.random.Generator | None = None) -> tuple[str, dict[str, np.ndarray]] | None:
    """How training ended and the state then; None if the script is not one that can be trained."""
    try:
        model = dsl.compile(text, device=device, seed=seed)
    except LrError as problem:
        if problem.diagnostics[0].code in ("E0402", "E0421", "E0406"):
            return None
        raise
    end = ""
    try:
        if data:
            if changes is not None:
                model.train(epochs=0, data=data, **words)
                for name in shared:
                    value = model[name]
                    model[name] = value * (1 + 2e-16 * changes.choice([-1, 0, 1], value.shape))
            report = model.train(epochs=3, data=data, **words)
        else:
            report = model.train(steps=9)
        end = ""
        assert report.steps
    except LrError as problem:
        if problem.diagnostics[0].code == "E0419":
            return None
        end = str(problem)
    return end, {name: np.asarray(model[name]) for name in shared}
