"""`device auto`: which machine a piece of work goes to, from a table and for scripts; what is said; that nothing is asked of a GPU that
is not there."""

import io
import re
import shutil
import sys

import numpy as np
import pytest

import dsl
from dsl.backends.cuda import device
from dsl.backends.cuda.choice import Figures
from dsl.backends.cuda.choice import choose as on_the_gpu
from dsl.runtime import gpu as runtime_gpu
from dsl.runtime.placement import COMPILE, MARGIN, SHORT, START, Choice, Processor, Work, choose, in_words, processor, work_of
from tests import stand_in_cupy
from tests.needs import needs
from tests.test_cost import made

H100 = Figures("NVIDIA H100", 132, 1.755e9, 3.35e12)
GB = 10 ** 9

WORKS = {
    # steps, operations, bytes and kernels of a step; seconds of a step on the GPU; before the first
    "tutorial: 10,100 steps of one sample": (Work(10_100, 40, 100, 1), 1e-7, START, "cpu"),
    "a million steps of one sample": (Work(1_000_000, 40, 100, 1), 1e-7, START, "cpu"),
    "small MLP, batch 32, 1,000 steps": (Work(1_000, 600_000, 200_000, 12), 15e-6, START, "cpu"),
    "small MLP, batch 32, 10^6 steps": (Work(1_000_000, 600_000, 200_000, 12), 15e-6, START, "gpu"),
    "wide MLP, batch 8192, 100 steps": (Work(100, 10 ** 11, GB, 12, host=25_000_000), 3e-3, START, "gpu"),
    "wide MLP, one step": (Work(1, 10 ** 11, GB, 12, host=25_000_000), 3e-3, START, "cpu"),
    "wide MLP, one step of a GPU in use": (Work(1, 10 ** 11, GB, 12, host=25_000_000), 3e-3, COMPILE, "gpu"),
    "y = a*x + x*x, 10^9 float32 on the host": (Work(1, 3 * GB, 8 * GB, 1, host=8 * GB), 3e-3, START, "cpu"),
    "a function of that": (Work(1, 3 * GB, 8 * GB, 1, host=8 * GB, calls=20), 3e-3, START, "cpu"),
    "a function of it on the GPU": (Work(1, 3 * GB, 8 * GB, 1, device=8 * GB, calls=20), 3e-3, COMPILE, "gpu"),
    "regression on 10^9 rows, 100 steps": (Work(100, 10 * GB, 8 * GB, 3, host=8 * GB), 3e-3, START, "gpu"),
    "10^6 elements once": (Work(1, 10 ** 7, 10 ** 7, 1, host=8 * 10 ** 6), 1e-5, COMPILE, "cpu"),
    "what one thread does": (Work(10, 1000, 1000, 1, serial=GB), 10.0, START, "cpu"),
    "nothing": (Work(0, 0, 0, 0), 0.0, START, "cpu"),
}


@pytest.mark.parametrize("name", WORKS)
def test_where_work_goes_with_16_threads(name):
    work, step, start, wanted = WORKS[name]
    choice = choose(work, processor(16), step, start)
    assert ("gpu" if choice.gpu else "cpu") == wanted, choice


def test_little_gain_is_none():
    work = Work(1000, 10 ** 8, 10 ** 6, 1)
    here = choose(work, processor(1), 0.0, 0.0).cpu_seconds
    assert choose(work, processor(1), 0.0, here / MARGIN * 0.99).gpu and not choose(work, processor(1), 0.0, here / MARGIN * 1.01).gpu
    assert not choose(Work(1, int(4e9 * SHORT * 0.9), 0, 1), processor(1), 0.0, 0.0).gpu


@pytest.mark.parametrize(("formula", "n", "gpu"), [
    ("tanh(x) * exp(-x * x)", 1000, False), ("tanh(x) * exp(-x * x)", 10 ** 8, True),
    ("M @ N", 100, False), ("(M @ N) @ (N.T @ M.T)", 20_000, True), ("a * x + y", 10 ** 7, False)])
def test_formulas_on_a_gpu_that_is_in_use(formula, n, gpu):
    sizes = {"n": n, "k": min(n, 4096), "m": min(n, 4096), "q": 5}
    program = made(formula)
    work = work_of(program, sizes, calls=20)
    assert choose(work, processor(8), min(on_the_gpu(program, sizes, H100).seconds.values()), COMPILE).gpu == gpu


def test_words():
    assert [in_words(s) for s in (3e-6, 0.0123, 1.0, 61.7, 12_345.6)] == ["3 us", "12.3 ms", "1 s", "61.7 s", "12,346 s"]
    assert Choice(True, 60.0, 2.0, "NVIDIA H100").words == "on the GPU (NVIDIA H100): 2 s there, 60 s on the CPU, by estimate"
    assert Choice(False, 0.1, 2.0).words == "on the CPU: 100 ms there, 2 s on the GPU, by estimate"


# ---------------------------------------------------------------- in a session
BIG = """
matrix X[n, d]
vector t[n]
shared w[d] = 0.0
cost C = mean(sqr(X @ w - t))
minimize C wrt all using sgd(rate = 0.1)
data A = normal(100, 4)
data y = A @ ones(4)
train {} epochs over X = A, t = y
print sum(w)
"""


@pytest.fixture
def auto(monkeypatch):
    """A GPU's driver, and a CPU so slow that a GPU pays; what was said; what was launched."""
    needs(shutil.which("g++"), "g++")
    monkeypatch.setattr(runtime_gpu, "driver_here", lambda: True)
    monkeypatch.setattr(runtime_gpu, "processor", lambda threads: Processor(1e6, 1e6, 1e6, 0.1))
    with stand_in_cupy.installed() as found:
        yield found


def run(text, **options):
    out, said = io.StringIO(), io.StringIO()
    session = dsl.Session(device="auto", stdout=out, stderr=said, **options)
    session.load(dsl.errors.Source("a.lr", text))
    session.run()
    return out.getvalue(), [line for line in said.getvalue().splitlines() if line.startswith("auto:")], session


def test_a_training_goes_to_the_gpu_where_that_pays(auto):
    out, said, session = run(BIG.format(30))
    assert auto.launches and len(said) == 1
    assert re.fullmatch(r"auto: `train` in line 9 on the GPU \(Stand-in\): \S+ m?s there, \S+ s on the CPU, by estimate", said[0]), said
    wanted = dsl.compile(BIG.format(30), device="numpy", stdout=io.StringIO())
    wanted.run()
    assert abs(float(out) - float(wanted["w"].sum())) < 1e-9
    assert abs(float(session.host(session.elaborator.scope["w"].value).sum()) - float(out)) < 1e-6


def test_a_short_one_stays_and_no_cupy_is_imported(auto, monkeypatch):
    monkeypatch.setattr(runtime_gpu, "processor", processor)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "cupy", None)                # an import of it would fail
        _, said, _ = run(BIG.format(4))
    assert not auto.launches and len(said) == 1
    assert re.fullmatch(r"auto: `train` in line 9 on the CPU: \S+ [mu]s there, \S+ s on the GPU, by estimate", said[0]), said


def test_what_is_in_the_way_is_said_once(auto, monkeypatch):
    monkeypatch.setattr(device, "absent", lambda: ("CuPy is not installed", "`pip install …`"))
    _, said, _ = run(BIG.format(30) + "train 30 epochs over X = A, t = y\n")
    assert said == ["auto: on the CPU, because CuPy is not installed; `pip install …`"] and not auto.launches


def test_quiet_sessions_say_nothing(auto):
    _, said, _ = run(BIG.format(30), quiet=True)
    assert not said and auto.launches


def test_without_a_driver_nothing_is_said_or_asked(monkeypatch):
    monkeypatch.setattr(runtime_gpu, "driver_here", lambda: False)
    monkeypatch.setattr(device, "absent", lambda: pytest.fail("asked for a GPU"))
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(runtime_gpu, "processor", lambda threads: pytest.fail("reckoned"))
    _, said, _ = run(BIG.format(30))
    assert not said


def test_functions_go_where_their_arrays_are(auto, monkeypatch):
    m = dsl.compile("vector x[n]\nlet y = tanh(x) + 1\nlet s = sum(x)", device="auto")
    f, g = m.function(["x"], "y"), m.function(["x"], "s")
    host = np.linspace(0, 1, 5000)
    there = stand_in_cupy.asarray(host)
    found = f(there)
    assert type(found) is stand_in_cupy.ndarray and auto.launches and there.data.ptr in auto.given
    np.testing.assert_allclose(found.get(), np.tanh(host) + 1, rtol=1e-13)
    assert type(f(host)) is np.ndarray and abs(float(g(there).get()) - host.sum()) < 1e-9
    monkeypatch.setattr(runtime_gpu, "processor", processor)
    few = dsl.compile("vector x[n]\nlet y = tanh(x) + 1", device="auto").function(["x"], "y")
    auto.launches.clear()
    assert np.array_equal(few(stand_in_cupy.asarray(np.zeros(2))).get(), [1, 1])
    assert not auto.launches, "two elements are fetched"


def test_state_of_the_gpu_is_used_on_the_cpu(auto):
    text = BIG.format(30) + "let b = w + 1\nprint b, w[0] * 2\nassert all(w <= 2)\n"
    out, _, _ = run(text)
    assert auto.launches and len(out.splitlines()) == 2
    m = dsl.compile(BIG.format(30), device="auto", stdout=io.StringIO())
    m.run()
    before = m["w"]
    m.train(steps=3, X=np.ones((5, 4)), t=np.ones(5))
    assert m["w"].shape == (4,) and not np.array_equal(m["w"], before)


def test_a_profile_measures_the_cpu(auto):
    _, said, _ = run(BIG.format(30), profile=True)
    assert not said and not auto.launches
