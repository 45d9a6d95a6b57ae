"""Every example, trained here and by its JAX version on the same arrays: all parameters within 1e-9."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import dsl
from dsl.cli import commands
from dsl.ops import philox
from dsl.syntax.program import Train

EXAMPLES = Path(__file__).parent.parent / "examples"
TRAINED = sorted(p.stem for p in EXAMPLES.glob("*.lr") if "\ntrain " in p.read_text())


def starting_values(model: dsl.Model) -> dict[str, np.ndarray]:
    """Everything that has a value before training."""
    symbols = model.session.elaborator.scope
    return {name: model[name] for name, s in symbols.items() if s.kind in ("data", "shared") and name != "t"}


def order_of_rows(plan: Train, rows: int) -> np.ndarray:
    """The order in which each epoch takes the rows."""
    assert plan.shuffle_key is not None
    epochs = plan.count.attr("literal").value
    return np.stack([philox.shuffle_index(plan.shuffle_key, e, np.arange(rows), rows) for e in range(epochs)])


@pytest.mark.parametrize("name", TRAINED)
def test_every_parameter_equals_jax(name, tmp_path):
    model = dsl.load(EXAMPLES / f"{name}.lr", out=tmp_path)
    data = starting_values(model)
    plans = [item for item in model.session.items if isinstance(item, Train)]
    if plans[0].shuffle_key is not None:
        rows = next(data[f.value.attr("name")] for f in plans[0].over).shape[0]
        data["order"] = order_of_rows(plans[0], rows)
    model.run()
    expected = importlib.import_module(f"oracles.{name}").train(data)
    for key, value in expected.items():
        if key in model and model.session.elaborator.scope[key].kind == "shared":
            np.testing.assert_allclose(model[key], value, rtol=0, atol=1e-9, err_msg=key)
    trained = [k for k, s in model.session.elaborator.scope.items() if s.kind == "shared"]
    assert set(trained) <= set(expected), "the oracle leaves out a parameter"


def test_multiply_equals_jax():
    data = {"a": np.array([3.0, 4.0, -0.5]), "b": np.array([2.0, 5.0, 8.0])}
    expected = importlib.import_module("oracles.multiply").train(data)
    np.testing.assert_array_equal(dsl.load(EXAMPLES / "multiply.lr").eval("y", **data), expected["y"])


@pytest.mark.parametrize("seed", range(20))
def test_the_seed_program_equals_a_numpy_loop(seed, tmp_path):
    model = dsl.load(EXAMPLES / "linear_regression.lr", seed=seed, out=tmp_path)
    model.train(epochs=100, X=model["train_X"], Y=model["train_Y"])
    w = b = 0.0
    for _ in range(100):
        for x, y in zip(model["train_X"].tolist(), model["train_Y"].tolist(), strict=True):
            residual = x * w + b - y
            w, b = w - 0.01 * (2 * residual * x), b - 0.01 * (2 * residual)
    np.testing.assert_allclose([model["w"], model["b"]], [w, b], rtol=0, atol=1e-12)


def test_the_seed_program_draws_its_data_as_written():
    """The noise is that of `normal(101)`: other seeds give other data around the same line."""
    one, two = (dsl.load(EXAMPLES / "linear_regression.lr", seed=s)["train_Y"] for s in (1, 2))
    line = 2 * np.linspace(-1, 1, 101) + 1
    assert not np.array_equal(one, two)
    for values in (one, two):
        assert 0.2 < np.std(values - line) < 0.45


def test_every_example_passes_its_own_checks():
    result = CliRunner().invoke(commands, ["test", str(EXAMPLES)])
    assert result.exit_code == 0, result.output
    assert "10 passed, 0 failed" in result.output
