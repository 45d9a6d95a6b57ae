"""Scripts on device `cuda`, the shim in the GPU's place, in each way that a program may run; they equal the reference."""

import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import dsl
from dsl.backends.cuda import device, program
from dsl.backends.cuda.choice import WAYS, Choice
from dsl.backends.cuda.shim import ShimLauncher
from tests.needs import needs
from tests.test_cuda_source import bits

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="session", autouse=True)
def gcc():
    needs(shutil.which("g++"), "g++")


@contextmanager
def gpu(way):
    """Device `cuda` is the shim, and what can go this way does."""
    launch, launchers, grids = ShimLauncher.launch, [], []

    def chosen(made, sizes, figures, whole=True):
        taken = way if whole else "launches"
        return Choice({taken: 1e-3}, taken, 96)

    def launcher():
        launchers.append(ShimLauncher(len(launchers), most_blocks=5, blocks_together=3))
        return launchers[-1]

    def watched(self, function, grid, block, arguments, shared=0, together=False):
        grids.append((grid, together))
        launch(self, function, grid, block, arguments, shared, together)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "choose", chosen)
        patch.setattr(device, "absent", lambda: None)
        patch.setattr(device, "CupyLauncher", launcher)
        patch.setattr(ShimLauncher, "launch", watched)
        yield
    assert any(together for _, together in grids) == (way == "a grid")
    assert way == "launches" or (3 if way == "a grid" else 1, way == "a grid") in grids


@pytest.fixture(params=WAYS)
def way(request):
    with gpu(request.param):
        yield request.param


def both(text, **options):
    return [dsl.compile(text, device=name, **options) for name in ("cuda", "numpy")]


def equal(left, right, names, tolerance=1e-12):
    for name in names:
        np.testing.assert_allclose(np.asarray(left[name]), right[name], rtol=tolerance, atol=tolerance, err_msg=name)


LINE = """
seed 1
data train_X = linspace(-1, 1, 101)
data train_Y = 2 * train_X + 1 + 0.33 * normal(101)
scalar X, Y
shared w = 0.0, b = 0.0
model Y_bar = X * w + b
cost C = mean(sqr(Y_bar - Y))
grad gw, gb = C wrt w, b
update w <- w - 0.01 * gw
update b <- b - 0.01 * gb
train 3 epochs over X = train_X, Y = train_Y
"""


@pytest.mark.parametrize("text", [LINE, LINE.replace("train_Y\n", "train_Y batch 32\n").replace("3 epochs", "20 epochs")])
def test_the_line_of_the_tutorial(text, way):
    there, here = both(text)
    there.run()
    here.run()
    equal(there, here, "wb")
    assert there.session.reports[-1].steps == here.session.reports[-1].steps


def test_handwritten_digits():
    """An epoch of Adam over some of the rows, in batches, with products and validation; by one block and by a grid."""
    text = (EXAMPLES / "mlp_digits.lr").read_text(encoding="utf-8").partition('test "')[0].replace("train 60", "train 1")
    text = text.replace("data/digits.csv", str(EXAMPLES / "data" / "digits.csv")).replace("t.label, test = 0.2", "t.label, test = 0.9")
    here = dsl.compile(text, device="numpy")
    here.run()
    results = []
    for way in ("one block", "a grid"):
        with gpu(way):
            there = dsl.compile(text, device="cuda")
            there.run()
            equal(there, here, ("W1", "b1", "W2", "b2"))
            results.append([bits(np.asarray(there[name])) for name in ("W1", "b1", "W2", "b2")])
    assert results[0] == results[1]


@pytest.mark.parametrize("seed", (9, 55))
def test_random_models(seed, way, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES.parent / "tests"))
    from tests import training_programs
    assert training_programs.compare_training(seed, "cuda") in ("trained", "stopped")


STOPPED = """
vector x[n]
int vector at[n]
shared w[4] = 1.0, v = 0.5
let far = exp(v * mean(x))
cost C = mean(sqr(w[at] - x)) + far
grad gw, gv = C wrt w, v
update w <- w - 0.1 * gw
update v <- v - RATE * gv
"""


@pytest.mark.parametrize("rate, bad", [(0.1, None), (0.1, "index"), (0.1, "nan"), (-1e4, None), (-5.0, None)])
def test_what_stops_a_training(rate, bad, way):
    """A fault, a nan and what is infinite inside a burst: the same words, state and count of steps as the reference."""
    rng = np.random.default_rng(0)
    x, at = rng.uniform(0.5, 1, size=(90, 5)), rng.integers(0, 4, size=(90, 5))
    if bad == "index":
        at[61, 2] = 4
    if bad == "nan":
        x[47, 3] = np.nan
    ends = []
    for model in both(STOPPED.replace("RATE", str(rate))):
        try:
            model.train(epochs=2, data={"x": x, "at": at})
            words = ""
        except dsl.LrError as problem:
            words = str(problem)
        steps = model.session.reports[-1].steps if model.session.reports else 0
        ends.append((words, steps, {name: np.asarray(model[name]) for name in "wv"}))
    (there, steps, state), (here, wanted, reference) = ends
    assert there == here and steps == wanted
    equal(state, reference, "wv")
    assert bool(here) == (bad is not None or rate < 0)
