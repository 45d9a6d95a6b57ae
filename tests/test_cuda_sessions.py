"""Whole sessions on `device cuda`, on a stand-in for CuPy: what a user may do to them, and what may go wrong on a GPU."""

import gc
import io
import shutil
import weakref

import numpy as np
import pytest

import dsl
from dsl.backends.cuda import device, failures, resident
from dsl.backends.cuda import program as programs
from dsl.backends.cuda.choice import Choice
from dsl.backends.cuda.driver import CudaProgram
from dsl.backends.cuda.shim import ShimLauncher
from dsl.errors import LrError, Source
from dsl.ir.types import Dim, Size
from dsl.loops.ir import Kernel, Let, Loop, Program, Store
from dsl.machine.expr import Buffer, const, extent, load, ref
from dsl.runtime import gpu as runtime_gpu
from dsl.runtime.bursts import Bursts
from dsl.runtime.placement import Processor
from tests import stand_in_cupy
from tests.needs import needs

LINE = """
matrix X[n, d]
vector t[n]
shared w[d] = 0.0
cost C = mean(sqr(X @ w - t))
minimize C wrt w using sgd(rate = 0.1)
let y = 2 * X + 1
"""
SCRIPT = LINE + """
data A = linspace(-1, 1, 30)[:, None] + [0.0, 0.5]
data b = A @ [1.0, -2.0]
train 40 epochs over X = A, t = b batch 7
print w
"""


@pytest.fixture
def gpu():
    needs(shutil.which("g++"), "g++")
    with stand_in_cupy.installed() as found:
        yield found


@pytest.fixture
def auto(gpu, monkeypatch):
    """`auto` takes the GPU: there is a driver, and a CPU that is slow."""
    monkeypatch.setattr(runtime_gpu, "driver_here", lambda: True)
    monkeypatch.setattr(runtime_gpu, "processor", lambda threads: Processor(1e6, 1e6, 1e6, 0.1))
    return gpu


@pytest.fixture
def launches(monkeypatch):
    """All programs are launched kernel by kernel."""
    chosen = programs.choose

    def choose(*arguments):
        found = chosen(*arguments)
        return Choice(found.seconds, "launches", found.threads)
    monkeypatch.setattr(programs, "choose", choose)


def session(text, device):
    made = dsl.Session(device=device, stdout=io.StringIO(), stderr=io.StringIO())
    made.load(Source("a.lr", text))
    return made


def breaking(monkeypatch, problem, after=0):
    """After so many more launches, each of them raises."""
    launch, left = stand_in_cupy.Function.__call__, [after]

    def broken(self, *arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            raise problem
        launch(self, *arguments, **options)
    monkeypatch.setattr(stand_in_cupy.Function, "__call__", broken)


# ---------------------------------------------------------------- a GPU that fails
LOST = [stand_in_cupy.CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered"),
        stand_in_cupy.CUDADriverError("CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure\nmore"),
        stand_in_cupy.CUDADriverError("CUDA_ERROR_DEVICE_UNAVAILABLE: device is lost")]


@pytest.mark.parametrize("problem", LOST, ids=lambda problem: str(problem).partition(":")[0])
def test_a_gpu_that_fails_is_a_diagnostic_with_a_place(gpu, monkeypatch, problem):
    training = session(SCRIPT, "cuda")
    formula = session("vector v[n]\ndata b = linspace(0, 1, 9)\nprint 1\nprint sum(v) with v = 3 * b", "cuda")
    m = dsl.compile(LINE, device="cuda")
    m["w"] = [1.0, 2.0]
    breaking(monkeypatch, problem)
    for line, action in [(11, training.run), (4, formula.run), (1, lambda: m.train(epochs=2, X=np.ones((3, 2)), t=np.ones(3))),
                         (None, lambda: m.eval("y", X=np.ones((3, 2)))), (None, lambda: m.step(X=np.ones((3, 2)), t=np.ones(3)))]:
        with pytest.raises(LrError) as caught:
            action()
        found = caught.value.diagnostic
        assert found.code == "E0803" and caught.value.line == line
        assert found.message == f"the GPU has failed: {str(problem).splitlines()[0]}"
        assert "may be lost" in found.help and "start again" in found.help and "`device cpu`" in found.help


@pytest.mark.parametrize("where", ["asnumpy", "empty", "ndarray.set", "get_current_stream", "Event.record", "ndarray.__setitem__"])
def test_any_call_may_be_the_one_that_fails(gpu, monkeypatch, where):
    m = dsl.compile(LINE, device="cuda")
    X = stand_in_cupy.asarray(np.ones((3, 2), np.float32))
    m.step(X=np.ones((3, 2)), t=np.ones(3))
    owner, _, name = where.rpartition(".")
    space = getattr(stand_in_cupy, owner) if owner else stand_in_cupy.cuda if where == "get_current_stream" else stand_in_cupy
    stream = stand_in_cupy.Stream()

    def broken(*arguments, **options):
        raise LOST[0]
    monkeypatch.setattr(space, name, broken)
    for action in (lambda: m["w"], lambda: m.step(X=np.ones((3, 2)), t=np.ones(3)), lambda: m.eval("y", X=X)):
        with stream:
            try:
                action()
            except LrError as problem:
                assert problem.code in ("E0803", "E0903") and "cudaErrorIllegalAddress" in problem.message
    with stream, pytest.raises(LrError, match="cudaErrorIllegalAddress"):
        m.eval("sum(w) + sum(y)", X=np.ones((3, 2)))
        m.eval("y", X=X)
        m["w"]


def test_a_launch_for_which_there_is_no_room(gpu, monkeypatch):
    m = dsl.compile(LINE, device="cuda")
    breaking(monkeypatch, stand_in_cupy.CUDADriverError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"))
    with pytest.raises(LrError) as caught:
        m.eval("y", X=np.ones((3, 2)))
    assert caught.value.code == "E0710" and "OUT_OF_MEMORY" in caught.value.message and "device cpu" in caught.value.hint


def test_errors_that_are_not_of_cuda_stay_what_they_are():
    for problem in (RuntimeError("x"), ValueError("y"), MemoryError("z"), stand_in_cupy.OutOfMemoryError(1, 2)):
        assert failures.explained(problem) is problem


# ---------------------------------------------------------------- a source that is refused
LOG = """kern.cu(3): warning #177-D: variable "a" was declared but never referenced

kern.cu(12): error: identifier "lr_nothing" is undefined
kern.cu(15): error: expected a ";"

2 errors detected in the compilation of "kern.cu".
"""


def refusing(monkeypatch):
    def refuse(source, options=(), **more):
        raise stand_in_cupy.CompileException(LOG, source, "kern.cu", options)
    monkeypatch.setattr(stand_in_cupy.cuda.compiler, "compile_using_nvrtc", refuse)


@pytest.fixture
def nothing_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_a_kernel_that_is_refused(gpu, nothing_cached, monkeypatch):
    training = session(SCRIPT.replace("data A", "data A = ones(30, 2)  #").replace("data b", "data b = ones(30)  #"), "cpu")
    training.elaborator.device = "cuda"
    refusing(monkeypatch)
    with pytest.raises(LrError) as caught:
        training.run()
    found = caught.value.diagnostic
    assert found.code == "E0804" and caught.value.line == 11
    assert found.message == 'NVRTC refuses a kernel of lr: kern.cu(12): error: identifier "lr_nothing" is undefined'
    assert "report" in found.help and "`device cpu`" in found.help


@pytest.mark.parametrize("problem", ["CUDA_ERROR_UNSUPPORTED_PTX_VERSION: the provided PTX was compiled with an unsupported toolchain.",
                                     "CUDA_ERROR_NO_BINARY_FOR_GPU: no kernel image is available for execution on the device"])
def test_machine_code_that_the_driver_refuses(gpu, monkeypatch, problem):
    def load(self, code):
        raise stand_in_cupy.CUDADriverError(problem)
    monkeypatch.setattr(stand_in_cupy.Module, "load", load)
    with pytest.raises(LrError) as caught:
        dsl.compile(LINE, device="cuda").eval("y", X=np.ones((3, 2)))
    assert caught.value.code == "E0804" and problem in caught.value.message


def test_auto_goes_on_on_the_cpu(auto, nothing_cached, monkeypatch):
    wanted = session(SCRIPT, "numpy")
    wanted.run()
    refusing(monkeypatch)
    there = session(SCRIPT, "auto")
    there.run()
    assert there.stdout.getvalue() == wanted.stdout.getvalue() and not auto.launches
    said = [line for line in there.stderr.getvalue().splitlines() if "refuses" in line]
    assert said == ["auto: on the CPU, because NVRTC refuses a kernel of lr: kern.cu(12): error: identifier \"lr_nothing\" is undefined; "
                    "this is a defect of lr: please report it"]
    m = dsl.compile(LINE, device="auto")
    f = m.function(["X"], "y")
    for _ in range(2):
        assert np.array_equal(f(np.ones((3, 2))), np.full((3, 2), 3.0))
    assert m.step(X=np.ones((3, 2)), t=np.ones(3)) == 1.0 and not auto.launches


def test_auto_goes_on_with_the_state_that_the_gpu_had(auto, nothing_cached, monkeypatch):
    text = SCRIPT.replace("print w", "train 3 epochs over X = A, t = b batch 7 shuffle\nprint w")
    wanted = session(text, "numpy")
    wanted.run()
    there = session(text, "auto")
    there.command(there.items[0])
    assert auto.launches
    refusing(monkeypatch)
    before = len(auto.launches)
    there.run(there.items[1:])
    assert there.stdout.getvalue() == wanted.stdout.getvalue() and len(auto.launches) == before


def test_auto_does_without_a_gpu_that_cannot_be_had(auto, monkeypatch):
    def attributes(self):
        raise stand_in_cupy.CUDARuntimeError("cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy or unavailable")
    monkeypatch.setattr(stand_in_cupy.Device, "attributes", property(attributes))
    here = session(SCRIPT, "auto")
    here.run()
    said = [line for line in here.stderr.getvalue().splitlines() if line.startswith("auto:")]
    assert said == ["auto: on the CPU, because the GPU has failed: cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy or "
                    "unavailable; see `nvidia-smi`"]
    with pytest.raises(LrError, match="E0803"):
        dsl.compile(SCRIPT, device="cuda")


# ---------------------------------------------------------------- memory that runs out in the middle
GROWING = """
matrix X[n, d]
vector t[n]
shared w[d] = 0.0
cost C = mean(sqr(X @ w - t))
minimize C wrt w using adam(rate = 0.1)
"""


def test_steps_of_a_burst_that_runs_out_of_memory_are_undone(gpu, launches, monkeypatch):
    """What the host launches asks for memory on the way; the state is then that of the steps that are reported."""
    rng = np.random.default_rng(0)
    X, t = rng.normal(size=(200, 3)), rng.normal(size=200)
    monkeypatch.setattr(Bursts, "pace", lambda *_: None)           # all bursts are as long as the first
    for number in (3, 40, 110):
        m = dsl.compile(GROWING, device="cuda")
        m.train(epochs=1, batch=20, X=X, t=t)
        with monkeypatch.context() as patch:
            breaking(patch, stand_in_cupy.CUDADriverError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"), number)
            with pytest.raises(LrError) as caught:
                m.train(epochs=30, batch=20, X=X, t=t)
        assert caught.value.code == "E0710"
        made = m.session.reports[-1].steps
        reference = dsl.compile(GROWING, device="numpy")
        reference.train(epochs=1, batch=20, X=X, t=t)
        if made:
            reference.train(steps=made, batch=20, X=X, t=t)
        np.testing.assert_allclose(m["w"], reference["w"], rtol=1e-9, atol=1e-12)
        for each in (m, reference):
            each.train(epochs=1, batch=20, X=X, t=t)
        np.testing.assert_allclose(m["w"], reference["w"], rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------- what the host launches
def test_scalars_of_a_step_are_few_launches(gpu, launches):
    """Adam's scalars depend on a counter on the device: forty statements, that one thread makes in a launch or two."""
    m = dsl.compile(GROWING, device="cuda")
    X, t = np.ones((10, 3)), np.ones(10)
    counts = []
    for steps in (2, 3, 7):
        before = len(gpu.launches)
        m.train(steps=steps, X=X, t=t)
        counts.append(len(gpu.launches) - before)
    assert (counts[2] - counts[1]) / 4 <= 9, counts
    (_, compiled), = m.session.compute.loops.values()
    most = max(len(f.parameters) for p in compiled.launched.ahead.kernels.values() for f in p.functions)
    assert most < 20, "what only one of the launches meets is a variable in it"


COURSE = """
vector x[d]
shared w[3] = 0.5
let r = iterate(v = w while max(abs(v)) > 0.1 max 100: 0.5 * v + 0.001 * x)
update w <- w * 0.9 + 0.1 * x + r
"""


def test_a_loop_in_a_step_ends_when_arrays_say_so(gpu, launches):
    x = np.linspace(-1, 1, 12).reshape(4, 3)
    m, reference = (dsl.compile(COURSE, device=where) for where in ("cuda", "numpy"))
    for each in (m, reference):
        each.train(epochs=1, x=x)
    np.testing.assert_allclose(m["w"], reference["w"], rtol=1e-12)


def test_such_steps_are_undone_too(gpu, launches, monkeypatch):
    monkeypatch.setattr(Bursts, "pace", lambda *_: None)
    x = np.linspace(-1, 1, 60).reshape(20, 3)
    m, reference = (dsl.compile(COURSE, device=where) for where in ("cuda", "numpy"))
    with monkeypatch.context() as patch:
        breaking(patch, stand_in_cupy.CUDADriverError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"), 100)
        with pytest.raises(LrError, match="E0710"):
            m.train(epochs=1, x=x)
    made = m.session.reports[-1].steps
    assert made < 20
    if made:
        reference.train(steps=made, x=x)
    np.testing.assert_allclose(m["w"], reference["w"], rtol=1e-12)


# ---------------------------------------------------------------- training again and again
@pytest.mark.parametrize("where", ["numpy", "cpu", "cuda"])
def test_a_train_that_cannot_begin_leaves_nothing_behind(gpu, where):
    """Whether it is the first of its form or not."""
    text = "vector x[d]\nshared w[3] = 0.5\ncost C = sum(sqr(w - x * uniform(3)))\nminimize C wrt w using sgd(rate = 0.1)"
    X = np.arange(30.0).reshape(10, 3) / 10
    m, never_wrong = (dsl.compile(text, device=where, seed=1) for _ in range(2))
    for rows, options in ((0, {}), (3, {"drop_last": True})):
        for _ in range(2):
            for each in (m, never_wrong):
                each.train(epochs=1, batch=4, x=X, **options)
            with pytest.raises(LrError) as caught:
                m.train(epochs=1, batch=4, x=X[:rows], **options)
            assert caught.value.code == "E0420"
            np.testing.assert_array_equal(m["w"], never_wrong["w"])


@pytest.mark.parametrize("where", ["numpy", "cpu", "cuda"])
def test_a_model_holds_no_data_of_its_last_train(gpu, where):
    X, t = np.ones((5000, 4)), np.ones(5000)
    with stand_in_cupy.installed(memory=X.nbytes * 2 - 10_000) as small:
        m = dsl.compile(GROWING, device=where)
        m["w"] = np.zeros(4)
        for k in range(3):
            mine = X + k
            there = stand_in_cupy.asarray(mine) if where == "cuda" and k == 2 else None
            watched = weakref.ref(mine)
            m.train(steps=2, X=mine if there is None else there, t=t)
            del mine, there
            gc.collect()
            assert watched() is None and small.used < 10_000


WIDE = """
matrix X[n, d]
int vector k[n]
dim K
shared W[d, K] = 0.1 * normal(d, K)
model z = tanh(X @ W)
cost C = mean(xent(z, k)) + mean(sort(z)[:, 0])
minimize C wrt W using sgd(rate = 0.01)
"""


def test_a_grid_is_smaller_where_its_threads_need_much_memory(gpu, monkeypatch):
    """A warp has a row's sorted values to itself; the results have the same bits with any number of them."""
    chosen, call = programs.choose, device.CupyLauncher.launch
    grids, results = [], []

    def launch(self, function, grid, *more):
        grids.append(grid)
        call(self, function, grid, *more)
    monkeypatch.setattr(programs, "choose", lambda *arguments: Choice(chosen(*arguments).seconds, "a grid", 64))
    monkeypatch.setattr(device.CupyLauncher, "launch", launch)
    for room in (1 << 28, 2 * 100 * 8 * 3, 1):
        monkeypatch.setattr(resident, "PRIVATE_BYTES", room)
        m = dsl.compile(WIDE, device="cuda", seed=1)
        m["W"] = np.linspace(-1, 1, 500).reshape(5, 100)
        grids.clear()
        m.train(steps=2, X=np.linspace(-1, 1, 40).reshape(8, 5), k=np.arange(8) * 12)
        results.append((grids[-1], m["W"]))
    assert [blocks for blocks, _ in results] == [4, 3, 2]
    assert all(np.array_equal(w, results[0][1]) for _, w in results)


# ---------------------------------------------------------------- lanes that store one after the other
def ones_at_k():
    """A row of zeros by all lanes, then a one by the first."""
    return [Loop("j", extent(D), (Store(OUT, (I, J), const(0.0, "float64")),)), Store(OUT, (I, load(K, (I,))), const(1.0, "float64"))], \
        lambda k, d: np.eye(d)[k]


def shifted():
    """Turn j of the first loop and turn j - 1 of the second store the same element."""
    return [Loop("j", extent(D), (Store(OUT, (I, J), const(1.0, "float64")),)),
            Loop("j", extent(D - 1), (Let("at", J + const(1, "int64")), Store(OUT, (I, ref("at")), const(2.0, "float64"))))], \
        lambda k, d: np.where(np.arange(d) > 0, 2.0, 1.0) + 0.0 * k[:, None]


def longer_and_longer():
    """Turn j is another lane's where there are enough turns for groups of four."""
    return [Loop("p", extent(D), (Loop("j", ref("p") + const(1, "int64"), (Store(OUT, (I, J), ref("p").to("float64")),)),))], \
        lambda k, d: np.full((len(k), d), d - 1.0)


N, D = (Dim.of(Size(name)) for name in "nd")
I, J = ref("i"), ref("j")
K, OUT = Buffer("k", "int64", (N,), "input"), Buffer("out", "float64", (N, D), "output")


@pytest.mark.parametrize("make", [ones_at_k, shifted, longer_and_longer])
def test_lanes_that_store_one_after_the_other_wait(make):
    needs(shutil.which("g++"), "g++")
    body, wanted = make()
    program = Program("rows", (K, OUT), (), (Kernel("k0", "i", extent(N), tuple(body), (), N),))
    for seed in range(3):
        run = CudaProgram(program, ShimLauncher(seed, sanitize=True))
        for d in (7, 40, 150):
            k, out = np.array([3, 6, 0, 5, 5]), np.full((5, d), np.nan)
            run([k, out], [], {"n": 5, "d": d})
            np.testing.assert_array_equal(out, wanted(k, d))


@pytest.mark.parametrize("where", ["numpy", "cuda"])
def test_what_the_caller_changes_is_seen(gpu, where):
    """Arrays that are handed in are the caller's: what is in them when a training begins is what it reads."""
    X = np.ones((4, 2))
    text = "data A = zeros(4, 2)\nvector x[d]\nshared s = 0.0\nupdate s <- s + sum(x)\ntrain 1 epochs over x = A"
    m = dsl.compile(text, device=where, data={"A": X})
    m.run()
    X[:] = 10
    m.run()
    assert m["s"] == 88


@pytest.mark.parametrize("way", ["one block", "a grid", "launches"])
def test_what_a_fold_carries_may_be_a_sum_over_rows(gpu, monkeypatch, way):
    """It changes places with the next one as soon as its runs are made."""
    chosen = programs.choose

    def choose(*given):
        found = chosen(*given)
        return Choice(found.seconds, way, found.threads)
    monkeypatch.setattr(programs, "choose", choose)
    text = "matrix X[n, d]\nvector v[d]\nlet y = fold(w = v for t in arange(3): sum(X * w, axis = 0))"
    X, v = np.random.default_rng(2).normal(size=(5, 40)), np.random.default_rng(3).normal(size=40)
    want = v
    for _ in range(3):
        want = (X * want).sum(axis=0)
    np.testing.assert_allclose(dsl.compile(text, device="cuda").function(["X", "v"], "y")(X, v), want, rtol=1e-12)


@pytest.mark.parametrize("way", ["one block", "a grid"])
def test_a_launch_of_a_whole_program_is_one_copy_up_and_one_down(gpu, monkeypatch, way):
    """Sums, what was seen last, the outcome, where arrays are, the barrier's word and the fault mark go together; memory for them stays."""
    chosen, real = programs.choose, resident.WholeProgram.run

    def choose(*given):
        found = chosen(*given)
        return Choice(found.seconds, way, found.threads)
    monkeypatch.setattr(programs, "choose", choose)
    counts, calls = dict.fromkeys(("upload", "download", "allocate"), 0), []

    def count(name, of):
        def counted(self, *given):
            counts[name] += 1
            return of(self, *given)
        monkeypatch.setattr(device.CupyLauncher, name, counted)
    for name in counts:
        count(name, getattr(device.CupyLauncher, name))

    def run(self, arrays, *more):
        before, copied = dict(counts), [gpu.copied(direction) for direction in ("up", "down")]
        fault = real(self, arrays, *more)
        scratch = sum(a.kind not in ("input", "state", "output") for a in self.whole.arrays) if way == "a grid" else 0
        calls.append({name: counts[name] - before[name] for name in counts} | {"scratch": scratch}
                     | {d: gpu.copied(d) - b for d, b in zip(("up", "down"), copied)})
        return fault
    monkeypatch.setattr(resident.WholeProgram, "run", run)
    dsl.compile(LINE + """
data A = linspace(-1, 1, 30)[:, None] + [0.0, 0.5]
data b = A @ [1.0, -2.0]
train 2 epochs over X = A, t = b batch 7
train 40 epochs over X = A, t = b batch 7
""", device="cuda").run()
    first, second, *_ = (c for c in calls if c["download"])
    assert all((c["upload"], c["download"]) == (1, 1) and c["up"] == c["down"] < 1000 for c in (first, second))
    assert (first["allocate"] - first["scratch"], second["allocate"] - second["scratch"]) == (1, 0)
    assert all(c["upload"] == 1 for c in calls), "also of data that is made there, of which nothing comes back"
