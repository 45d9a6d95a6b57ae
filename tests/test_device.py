"""`device cuda` in a session: what runs there (by the shim, in place of CuPy's launches), and what it says where it cannot."""

import shutil
import sys
import types

import numpy as np
import pytest

import dsl
from dsl.backends.cuda import device, presence
from dsl.backends.cuda.shim import ShimLauncher
from dsl.errors import LrError
from tests.needs import needs

TRAINING = """
data A = normal(37, 3)
data y = A @ [1.0, -2.0, 0.5] + 0.1 * normal(37)
matrix X[n, d]
vector t[n]
shared w[d] = 0.0, b = 0.0
cost C = mean(sqr(X @ w + b - t))
minimize C wrt all using adam(rate = 0.05)
train 6 epochs over X = A, t = y batch 10 shuffle
print C with X = A, t = y
"""


@pytest.fixture
def launchers(monkeypatch):
    """The launchers that were made; each runs its kernels on this processor."""
    needs(shutil.which("g++"), "g++")
    made = []

    class Counting(ShimLauncher):
        def __init__(self):
            super().__init__(most_blocks=4)
            self.programs = 0
            made.append(self)

        def load(self, source, functions):
            self.programs += 1
            return super().load(source, functions)

    monkeypatch.setattr(device, "CupyLauncher", Counting)
    monkeypatch.setattr(device, "absent", lambda: None)
    return made


def test_training_and_evaluation_run_there(launchers):
    there, here = (dsl.compile(TRAINING, device=d, seed=7) for d in ("cuda", "numpy"))
    (launcher,) = launchers
    before, launched = launcher.programs, launcher.launches
    assert before and launched, "the data is made there"
    for m in (there, here):
        m.run()
    assert launcher.programs == before + 2 and launcher.launches > launched, "the loop, and the cost"
    for name in ("w", "b"):
        np.testing.assert_allclose(there[name], here[name], rtol=1e-9)
    X = np.arange(6.0).reshape(2, 3)
    np.testing.assert_allclose(there.eval("X @ w + b", X=X), here.eval("X @ w + b", X=X), rtol=1e-9)


def test_the_data_of_a_training_goes_there_once(launchers, monkeypatch):
    m = dsl.compile(TRAINING.replace("6 epochs", "60 epochs").replace("print C with X = A, t = y", ""), device="cuda")
    uploads = []
    upload = ShimLauncher.upload

    def watched(self, place, values):
        if place.dtype == "float64":
            uploads.append(np.shape(values))
        upload(self, place, values)

    monkeypatch.setattr(ShimLauncher, "upload", watched)
    m.run()
    assert (37, 3) not in uploads and (37,) not in uploads, "the data was made there"
    assert (3,) not in uploads, "so were w and Adam's arrays"


def test_no_profile_of_a_gpu(launchers):
    session = dsl.Session(device="cuda", profile=True)
    session.load(dsl.errors.Source("a.lr", "data z = 2 * linspace(0, 1, 5)"))
    assert "not measured" in session.profile.text()


def test_the_header_and_the_command_line(launchers):
    text = "device cuda\ndata z = 2 * linspace(0, 1, 5)\n"
    assert np.array_equal(dsl.compile(text)["z"], np.linspace(0, 2, 5)) and launchers
    launchers.clear()
    assert dsl.compile(text, device="numpy")["z"].size == 5 and not launchers


def test_faults_and_divergence_there(launchers):
    text = "data u = [0, 3, 9]\nint vector i[n]\nvector v[m]\nlet g = sum(v[i])"
    with pytest.raises(LrError, match="E07"):
        dsl.compile(text, device="cuda").eval("g", i=[0, 3, 9], v=[1.0, 2.0])
    m = dsl.compile("shared w = 1.0\nupdate w <- log(w) - 1\ntrain 5 steps", device="cuda")
    with pytest.raises(dsl.Diverged, match="step 2"):
        m.run()
    assert m["w"] == -1.0


def message(text="let a = 1", **options):
    with pytest.raises(LrError) as caught:
        dsl.compile(text, **options)
    (found,) = caught.value.diagnostics
    assert found.code == "E0802" and "device cpu" in found.help
    return found


def test_without_cupy(monkeypatch):
    monkeypatch.setattr(presence.importlib.util, "find_spec", lambda name: None)
    found = message("device cuda\ndata z = ones(3)\ndata y = z + 1")
    assert "CuPy is not installed" in found.message and "lr-lang[cuda12]" in found.help and found.primary.span.line == 1
    assert message(device="cuda").primary is None


@pytest.mark.parametrize("answer", [0, RuntimeError("cudaErrorNoDevice: no device is detected\nmore"), ImportError("libcuda.so.1")])
def test_with_cupy_and_no_gpu(answer, monkeypatch):
    def count():
        if isinstance(answer, Exception):
            raise answer
        return answer
    cupy = types.ModuleType("cupy")
    cupy.cuda = types.SimpleNamespace(runtime=types.SimpleNamespace(getDeviceCount=count))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(presence.importlib.util, "find_spec", lambda name: object())
    found = message(device="cuda")
    assert "no GPU" in found.message and "\n" not in found.message and "NVIDIA" in found.help
    assert isinstance(answer, int) or str(answer).splitlines()[0] in found.message


def test_checking_needs_no_gpu(monkeypatch):
    monkeypatch.setattr(device, "absent", lambda: ("nothing is here", "nothing helps"))
    session = dsl.Session(device="cuda", evaluate=False)
    session.load(dsl.errors.Source("a.lr", TRAINING))


def test_nobody_else_asks_for_cupy(monkeypatch):
    monkeypatch.setattr(device, "absent", lambda: pytest.fail("asked for a GPU"))
    monkeypatch.setitem(sys.modules, "cupy", None)              # an import of it would fail
    for where in ("auto", "cpu", "numpy"):
        m = dsl.compile(TRAINING, device=where)
        m.run()
