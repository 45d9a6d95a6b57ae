"""Arrays in and out of `device cuda`, on a stand-in for CuPy: nothing is copied that fits, streams are kept to, memory runs out."""

import os
import re
import shutil
import signal
import sys
import types

import numpy as np
import pytest

import dsl
from dsl.backends.cuda.memory import in_words
from dsl.errors import Interrupted, LrError
from tests import stand_in_cupy
from tests.needs import needs
from tests.test_device import TRAINING

LINE = """
matrix X[n, d]
vector t[n]
shared w[d] = 0.0, b = 0.0
cost C = mean(sqr(X @ w + b - t))
grad gw, gb = C wrt w, b
update w <- w - 0.1 * gw
update b <- b - 0.1 * gb
let y = 2 * X + 1
"""
SMALL = 400
"""Bytes that may cross for addresses, marks of faults, sums and counts in one copy; arrays here are larger."""


@pytest.fixture
def gpu():
    needs(shutil.which("g++"), "g++")
    with stand_in_cupy.installed() as found:
        yield found


@pytest.fixture
def cupy(gpu):
    return stand_in_cupy


class Interface:
    """What Numba hands over: the interface with its stream."""

    def __init__(self, array, stream):
        self.array, self.stream = array, stream

    @property
    def __cuda_array_interface__(self):
        return {**self.array.__array_interface__, "version": 3, "stream": self.stream.ptr, "strides": None}


class Tensor:
    """What PyTorch hands over: DLPack, which waits for its own stream, and an interface that knows of none."""

    def __init__(self, array, stream, problem=None):
        self.array, self.stream, self.problem, self.asked = array, stream, problem, []

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        if self.problem:
            raise BufferError(self.problem)
        self.asked.append(stream)
        self.stream.run()
        return self.array.__dlpack__()

    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


def large(gpu):
    """What crossed between the host and the GPU, but for trifles."""
    return [(way, size) for way, size in gpu.copies if way != "across" and size > SMALL]


def rows(count=40, width=60):
    return np.random.default_rng(1).normal(size=(count, width))


# ---------------------------------------------------------------- functions
def test_a_function_takes_and_gives_arrays_where_they_lie(gpu, cupy):
    m = dsl.compile(LINE, device="cuda")
    f = m.function(["X", "t"], ["y", "C", "gw"])
    X, t = cupy.asarray(rows()), cupy.asarray(rows()[:, 0].copy())
    f(X, t)
    gpu.copies.clear()
    gpu.given.clear()
    y, C, gw = f(X, t)
    assert {X.data.ptr, t.data.ptr, y.data.ptr} <= gpu.given
    assert all(type(v) is cupy.ndarray for v in (y, C, gw)) and C.shape == () and gw.shape == (60,)
    assert not large(gpu) and not gpu.copied("across")
    here = dsl.compile(LINE, device="numpy").function(["X", "t"], ["y", "C", "gw"])(rows(), rows()[:, 0])
    for there, wanted in zip((y, C, gw), here, strict=True):
        np.testing.assert_allclose(there.get(), wanted, rtol=1e-12)
    gpu.copies.clear()
    assert np.array_equal(m.function(["X"], "y")(y).get(), 2 * y.get() + 1), "a result goes in again"
    assert not [size for way, size in gpu.copies if way == "up" and size > SMALL]


def test_numpy_in_gives_numpy_out(gpu):
    m = dsl.compile(LINE, device="cuda")
    found = m.function(["X"], "y")(rows())
    assert type(found) is np.ndarray and np.array_equal(found, 2 * rows() + 1)
    assert type(m.eval("y", X=rows())) is np.ndarray and type(m["b"]) is np.ndarray and m["b"].shape == ()


def test_one_array_on_the_gpu_is_enough(gpu, cupy):
    m = dsl.compile("vector a[n], b[n]\nlet s = a + b", device="cuda")
    found = m.function(["a", "b"], "s")(cupy.asarray(np.ones(5)), [1.0, 2, 3, 4, 5])
    assert np.array_equal(found.get(), [2, 3, 4, 5, 6])


def test_what_does_not_fit_is_copied_on_the_gpu(gpu, cupy):
    m = dsl.compile("vector a[n]\nlet s = a + 1", device="cuda")
    f = m.function(["a"], "s")
    base = cupy.asarray(np.arange(20.0))
    f(base)
    odd = base[1:]                                               # no multiple of 16 bytes, where four elements would move at once
    assert np.array_equal(f(odd).get(), odd.get() + 1.0) and odd.data.ptr in gpu.given
    for given in (base[::2], base[::-1].astype(np.float32), cupy.asarray(np.arange(5, dtype=np.float32))):
        gpu.copies.clear()
        gpu.given.clear()
        assert np.array_equal(f(given).get(), given.get() + 1.0)
        assert given.data.ptr not in gpu.given and gpu.copied("across") == given.nbytes and not large(gpu)
    assert np.array_equal(f(cupy.asarray(np.arange(4)).astype(np.int64)).get(), [1, 2, 3, 4]), "integers come by the host"
    assert f(cupy.empty(0)).shape == (0,)


def test_integers_are_held_exactly(gpu, cupy):
    m = dsl.compile("int vector i[n]\nlet s = sum(i)", device="cuda")
    whole = cupy.asarray(np.array([1.0, 2.0]))
    assert m.eval("s", i=whole).get() == 3 and m.eval("s", i=cupy.asarray(np.array([4, 5]))).get() == 9
    with pytest.raises(LrError, match=r"cannot hold 2\.5"):
        m.eval("s", i=cupy.asarray(np.array([1.0, 2.5])))


def test_scalars_and_truth_values(gpu, cupy):
    m = dsl.compile("scalar a\nbool vector c[n]\nlet s = where(c, a, 0)", device="cuda")
    found = m.eval("s", a=cupy.asarray(np.array(3.0)), c=cupy.asarray(np.array([True, False])))
    assert found.get().tolist() == [3.0, 0.0]


def test_other_libraries_arrays_are_taken_where_they_lie(gpu, cupy):
    m = dsl.compile("vector a[n]\nlet s = 2 * a", device="cuda")
    f = m.function(["a"], "s")
    producer = cupy.cuda.Stream(non_blocking=True)
    for kind in (Interface, Tensor):
        host = np.zeros(64)
        with gpu.foreign(host[-host.ctypes.data // 8 % 2:][:32]) as memory:
            producer.later(lambda memory=memory: memory.__setitem__(slice(None), np.arange(32.0)))
            gpu.copies.clear()
            found = f(kind(memory, producer))
            assert np.array_equal(found.get(), 2 * np.arange(32.0)), "what the producer had queued was done first"
            assert memory.ctypes.data in gpu.given


def test_dlpack_is_asked_with_the_current_stream(gpu, cupy):
    m = dsl.compile("vector a[n]\nlet s = 2 * a", device="cuda")
    host = np.ones(8)
    with gpu.foreign(host), cupy.cuda.Stream(non_blocking=True) as mine:
        tensor = Tensor(host, cupy.cuda.Stream())
        m.eval("s", a=tensor)
        assert tensor.asked == [mine.ptr]
        assert {stream for _, stream, _ in gpu.launches} == {mine.ptr}, "our work goes to the current stream"


def test_a_stream_comes_after_the_one_before(gpu, cupy):
    m = dsl.compile("data A = 2 * linspace(0, 1, 5)\nvector a[n]\nlet s = A + a", device="cuda")
    a = cupy.asarray(np.ones(5))
    order = []
    with cupy.cuda.Stream(non_blocking=True) as one:
        m.eval("s", a=a)
        one.later(lambda: order.append("one"))
    with cupy.cuda.Stream(non_blocking=True):
        m.eval("s", a=a)
        order.append("two")
    assert order == ["one", "two"]


@pytest.mark.parametrize("problem", ["Can't export tensors that require gradient, use tensor.detach()"])
def test_what_cannot_be_read_is_a_diagnostic(gpu, cupy, problem):
    m = dsl.compile("vector a[n]\nlet s = 2 * a", device="cuda")
    for where in ("cuda", "cpu"):
        m = dsl.compile("vector a[n]\nlet s = 2 * a", device=where)
        with pytest.raises(LrError, match=r"`a` is on a GPU and cannot be read: .*detach") as caught:
            m.eval("s", a=Tensor(np.ones(3), cupy.cuda.Stream(), problem))
        assert caught.value.code == "E0903"


# ---------------------------------------------------------------- other devices, other places
@pytest.mark.parametrize("where", ["cpu", "numpy"])
def test_without_device_cuda_they_are_copied_once_and_come_back(gpu, cupy, where):
    m = dsl.compile(LINE, device=where, data=None)
    X = cupy.asarray(rows())
    gpu.copies.clear()
    found = m.function(["X"], "y")(X)
    assert type(found) is cupy.ndarray and np.array_equal(found.get(), 2 * rows() + 1)
    assert gpu.copied("up") == X.nbytes and gpu.copies.count(("down", X.nbytes)) == 2 and not gpu.launches


def test_without_cupy_they_are_a_diagnostic(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    m = dsl.compile("vector a[n]\nlet s = 2 * a", device="cpu")
    for given in (Tensor(np.ones(3), None), types.SimpleNamespace(__cuda_array_interface__={})):
        with pytest.raises(LrError, match="CuPy, which reads it, is not installed"):
            m.eval("s", a=given)
    with pytest.raises(LrError, match="CuPy, which reads it"):
        dsl.compile("data a = ones(3)", device="cpu", data={"a": Tensor(np.ones(3), None)})


@pytest.mark.parametrize("where", ["cpu", "numpy"])
def test_dlpack_of_the_host_is_read_without_a_copy(where):
    class Only:
        def __init__(self, array):
            self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__

    host = np.arange(6.0)
    m = dsl.compile("data A = ones(6)\nvector a[n]\nlet s = 2 * a", device=where, data={"A": Only(host)})
    assert np.shares_memory(m.session.array(m.session.elaborator.scope["A"].value), host)
    assert np.array_equal(m.eval("s", a=Only(host)), 2 * host)


# ---------------------------------------------------------------- data and state
def test_data_is_used_where_it_lies(gpu, cupy):
    A = cupy.asarray(rows())
    gpu.copies.clear()
    m = dsl.compile("data A = ones(40, 60)\ndata B = A + 1\nlet s = sum(A, axis = 0)\nprint s", device="cuda", data={"A": A})
    assert not large(gpu) and A.data.ptr in gpu.given
    assert type(m["A"]) is np.ndarray and np.array_equal(m["A"], rows()) and np.array_equal(m["B"], rows() + 1)
    single = dsl.compile("data A = ones(40, 60)", device="cuda", precision="float32", data={"A": A})
    assert np.array_equal(single["A"], rows().astype(np.float32))


def test_data_of_a_script_goes_there_once(gpu, tmp_path):
    np.save(tmp_path / "a.npy", rows(100))
    m = dsl.compile('data A = npy("a.npy")\nmatrix X[n, d]\nvector v[d]\nlet s = A @ v', device="cuda", path=tmp_path / "x.lr")
    f = m.function(["v"], "s")
    v = np.ones(60)
    f(v)
    gpu.copies.clear()
    for _ in range(3):
        f(v)
    up = [size for way, size in large(gpu) if way == "up"]
    assert up == [v.nbytes + 112] * 3, "the vector only, in one copy with where arrays are, the barrier's word and the fault mark"


def test_state_stays_there(gpu, cupy):
    text = LINE.partition("grad")[0] + "minimize C wrt all using adam(rate = 0.05)\n"
    m, n = (dsl.compile(text, device=d) for d in ("cuda", "numpy"))
    m.train(epochs=1, batch=10, X=rows(), t=rows()[:, 0])
    X, t = cupy.asarray(rows()), cupy.asarray(rows()[:, 0].copy())
    gpu.copies.clear()
    m.train(epochs=3, batch=10, X=X, t=t)
    assert not large(gpu)
    n.train(epochs=1, batch=10, X=rows(), t=rows()[:, 0])
    n.train(epochs=3, batch=10, X=rows(), t=rows()[:, 0])
    np.testing.assert_allclose(m["w"], n["w"], rtol=1e-9, atol=1e-12)


def test_steps_and_setting(gpu, cupy):
    m, n = (dsl.compile(LINE, device=d) for d in ("cuda", "numpy"))
    X, t, w = cupy.asarray(rows()), cupy.asarray(rows()[:, 0].copy()), cupy.asarray(np.arange(60.0))
    m["w"], n["w"] = w, np.arange(60.0)
    m["b"] = cupy.asarray(np.array(0.5))
    n["b"] = 0.5
    w.fill(9)
    for _ in range(3):
        there, here = m.step(X=X, t=t), n.step(X=rows(), t=rows()[:, 0])
        assert isinstance(there, float) and abs(there - here) < 1e-9 * here
    np.testing.assert_allclose(m["w"], n["w"], rtol=1e-12)
    assert w.get().tolist() == [9] * 60, "the caller's array is left alone"
    gpu.copies.clear()
    m.step(X=X, t=t)
    assert not large(gpu)


def test_every_print_and_valid(gpu, capsys):
    text = TRAINING.replace("batch 10 shuffle", "batch 10:\n  valid X = A[:5], t = y[:5]\n  every 2 epochs: print w, C") + "print w, b\n"
    printed = []
    for where in ("cuda", "numpy"):
        dsl.compile(text, device=where, seed=3).run()
        printed.append(capsys.readouterr().out)
    numbers = [np.array([float(w.strip("[]")) for w in out.split() if w.strip("[]")]) for out in printed]
    assert len(numbers[0]) > 12
    np.testing.assert_allclose(numbers[0], numbers[1], rtol=1e-6)


def test_files_plots_and_asserts(gpu, tmp_path, capsys):
    text = 'data x = linspace(0, 1, 30)\nlet y = x * x\nassert all(y <= x)\nsave y to "y.csv"\nplot line(x, y)\nplot hist(x)\n'
    dsl.compile(text, device="cuda", out=tmp_path).run()
    assert np.allclose(np.loadtxt(tmp_path / "y.csv", skiprows=1), np.linspace(0, 1, 30) ** 2)


def test_divergence_and_faults_say_where(gpu, cupy):
    m = dsl.compile("vector x\nshared w[d] = [1.0, 2.0]\nupdate w <- log(w) - x\ntrain 1 steps over x = [0.0, 0.0]", device="cuda")
    with pytest.raises(dsl.Diverged, match="step 2"):
        m.train(steps=5, x=cupy.asarray(np.array([[0.9, 0.9], [0.9, 0.9], [0.9, 0.9]])))
    np.testing.assert_allclose(m["w"], np.log([1.0, 2.0]) - 0.9)
    g = dsl.compile("int vector i[n]\nvector v[m]\nlet s = sum(v[i])", device="cuda").function(["i", "v"], "s")
    with pytest.raises(LrError, match="E07"):
        g(cupy.asarray(np.array([0, 3, 9])), cupy.asarray(np.ones(2)))
    assert g(cupy.asarray(np.array([0, 1, 1])), cupy.asarray(np.ones(2))).get() == 3


# ---------------------------------------------------------------- memory, Ctrl-C
def test_memory_runs_out_and_the_session_goes_on(cupy):
    with stand_in_cupy.installed(memory=1 << 20) as gpu:
        m = dsl.compile("data A = ones(100, 100)\nvector v[n]\nlet big = v[:, None] * v", device="cuda")
        with pytest.raises(LrError) as caught:
            m.eval("big", v=np.ones(1000))
        problem = caught.value
        assert problem.code == "E0710" and "7.6 MiB asked for on the GPU" in problem.message and "of 1.0 MiB are free" in problem.message
        assert re.search(r"lr holds \d+\.\d KiB there", problem.message) and "batch k" in problem.hint
        assert m.eval("big", v=cupy.asarray(np.ones(200))).shape == (200, 200)
        assert np.array_equal(m.eval("sum(A)"), 10000.0)
        assert gpu.used < 200_000, "nothing of the failed call is held"


def test_memory_of_a_statement_has_its_place(gpu):
    with stand_in_cupy.installed(memory=1 << 20):
        text = "data v = ones(1000)\nlet a = sum(v)\nprint sum(v[:, None] * v, axis = 0) + (v[:, None] * v)\nprint a\n"
        m = dsl.compile(text, device="cuda")
        with pytest.raises(LrError) as caught:
            m.run()
        assert caught.value.code == "E0710" and caught.value.line == 3
        with pytest.raises(LrError) as caught:
            dsl.compile("data v = ones(1000)\ndata A = v[:, None] * v", device="cuda")
        assert caught.value.code == "E0710" and caught.value.line == 2


def test_what_the_pool_keeps_is_given_back_first(gpu, cupy):
    with stand_in_cupy.installed(memory=1 << 20) as small:
        m = dsl.compile("vector v[n]\nlet y = 2 * v", device="cuda")
        for count in (30_000, 50_000, 20_000, 60_000):
            assert m.eval("y", v=cupy.asarray(np.ones(count))).shape == (count,)
        host = np.ones(40_000)
        uploaded = dsl.compile("data A = ones(3)\nlet s = sum(A)", device="cuda", data={"A": host})
        assert uploaded.eval("s") == 40_000 and small.used > host.nbytes
        assert m.eval("y", v=cupy.asarray(np.ones(60_000))).shape == (60_000,), "data that can be copied again made room"
        assert uploaded.eval("s") == 40_000


def test_a_training_that_does_not_fit(gpu):
    with stand_in_cupy.installed(memory=1 << 20):
        m = dsl.compile(LINE, device="cuda")
        with pytest.raises(LrError) as caught:
            m.train(epochs=2, X=np.ones((50_000, 3)), t=np.ones(50_000))
        assert caught.value.code == "E0710"
        m.train(epochs=2, X=np.ones((50, 3)), t=np.ones(50))
        assert np.isfinite(m["w"]).all() and m["b"] != 0


def test_words_of_sizes():
    assert [in_words(n) for n in (0, 1, 1023, 1024, 1 << 20, 3 << 29, 5 << 40)] == [
        "0 bytes", "1 byte", "1023 bytes", "1.0 KiB", "1.0 MiB", "1.5 GiB", "5120.0 GiB"]


def test_ctrl_c_in_a_training(gpu, monkeypatch):
    m = dsl.compile(LINE, device="cuda")
    launch = stand_in_cupy.Function.__call__
    calls = []

    def interrupted(self, *arguments, **options):
        calls.append(self.name)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        launch(self, *arguments, **options)

    monkeypatch.setattr(stand_in_cupy.Function, "__call__", interrupted)
    with pytest.raises(Interrupted) as caught:
        m.train(epochs=100_000_000, X=rows(), t=rows()[:, 0])
    steps = m.session.reports[-1].steps
    assert 0 < steps < 100_000_000 and f"after step {steps}" in caught.value.message
    n = dsl.compile(LINE, device="numpy")
    n.train(epochs=steps, X=rows(), t=rows()[:, 0])
    np.testing.assert_allclose(m["w"], n["w"], rtol=1e-9, atol=1e-12)
