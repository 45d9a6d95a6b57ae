"""Scripts of the language run as CUDA programs, by the shim, and compared with the reference; what the host waits for."""

import shutil

import numpy as np
import pytest

import dsl
from dsl.backends.cuda import program
from dsl.backends.cuda.choice import WAYS, Choice
from dsl.backends.cuda.driver import CudaProgram
from dsl.backends.cuda.flat import flattened
from dsl.backends.cuda.program import GpuProgram
from dsl.backends.cuda.serial import on_the_device
from dsl.backends.cuda.shim import ShimLauncher
from dsl.backends.native import NativeBackend
from dsl.ir.types import Dim, Size
from dsl.loops.ir import Assign, Combine, Kernel, Let, Local, Loop, Program, Store, Total, statements
from dsl.loops.verify import verify
from dsl.machine.expr import Buffer, const, extent, load, ref
from tests import stand_in_cupy
from tests.loop_programs import BY_NAME, CASES, agrees
from tests.random_programs import check, generate
from tests.test_cuda_source import called, needs


@pytest.fixture(scope="module", autouse=True)
def gcc():
    needs(shutil.which("g++"), "g++")


class Counting(ShimLauncher):
    """Counts what makes the host wait."""

    def __init__(self, **options):
        super().__init__(**options)
        self.downloads = 0

    def download(self, place):
        self.downloads += 1
        return super().download(place)


def on_the_shim(text, **options):
    """A model whose native code is CUDA C, and the programs it has compiled."""
    programs = []

    def compiler(program):
        programs.append(CudaProgram(program, Counting(most_blocks=5)))
        return programs[-1]

    model = dsl.compile(text, device="cpu", **options)
    model.session.compute.native = NativeBackend(compiler)
    model.session.compute.gpu.launcher = ShimLauncher()
    return model, programs


@pytest.mark.parametrize("seed", range(12))
def test_random_programs_mean_what_numpy_says(seed):
    compiled = []

    def evaluate(program, precision):
        model, programs = on_the_shim(program.source, precision=precision)
        compiled.append(programs)
        function = model.function(list(program.inputs), "result")
        return lambda values: function(*values.values())

    check(generate(seed), evaluate, precision=("float64", "float32")[seed % 2], gradients=False)
    assert compiled[0], "nothing was compiled"


LOGISTIC = """
seed 3
dim n = 37
data X = normal(37, 3)
data y = where(X[:, 0] + 0.5 * normal(37) > 0, 1.0, 0.0)
vector x[3]
scalar t
shared w = 0.1 * normal(3), b = 0.0
model z = x @ w + b
cost C = mean(softplus(z) - t * z)
grad gw, gb = C wrt w, b
update w <- w - 0.3 * gw
update b <- b - 0.3 * gb
train 4 epochs over x = X, t = y batch 8 shuffle
"""


def test_training_equals_the_reference():
    model, programs = on_the_shim(LOGISTIC)
    reference = dsl.compile(LOGISTIC, device="numpy")
    model.run()
    reference.run()
    for name in ("w", "b"):
        np.testing.assert_allclose(model[name], reference[name], rtol=1e-12, atol=1e-12, err_msg=name)
    assert any(p.program.name == "train" and p.launcher.launches > 20 for p in programs)


ONE_BY_ONE = """
seed 1
data X = linspace(-1, 1, 21)
data Y = 2 * X + 1
scalar x, y
shared w = 0.0, b = 0.0
cost C = sqr(x * w + b - y)
grad gw, gb = C wrt w, b
update w <- w - 0.05 * gw
update b <- b - 0.05 * gb
train 10 epochs over x = X, y = Y
"""


def test_steps_on_single_numbers_are_one_launch():
    """Without kernels in it, the whole loop of a burst is one: the host starts it and reads the results."""
    model, programs = on_the_shim(ONE_BY_ONE)
    reference = dsl.compile(ONE_BY_ONE, device="numpy")
    model.run()
    reference.run()
    np.testing.assert_array_equal([model["w"], model["b"]], [reference["w"], reference["b"]])
    train, = (p for p in programs if p.program.name == "train")
    assert len(train.functions) == 1 and train.launcher.launches < 10


def test_faults_go_to_the_reference():
    model, programs = on_the_shim("int vector at\nvector x[5]\nlet y = sum(x[at])")
    function = model.function(["x", "at"], "y")
    assert function(np.arange(5.0), np.array([1, 4, -1])) == 9
    with pytest.raises(dsl.LrError, match="E07"):
        function(np.arange(5.0), np.array([1, 5]))
    assert programs[0].launcher.launches


# ---------------------------------------------------------------- serial statements
def kernels_of(program):
    return [s for s in statements(program.body) if isinstance(s, Kernel)]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_moved_programs_are_well_formed(case):
    program, variables = on_the_device(flattened(case.program))
    verify(program)
    assert all(b.rank == 0 and b in program.scratch for b in variables)
    again, _ = on_the_device(program)
    assert kernels_of(again) == kernels_of(program), "something was left to move"


@pytest.mark.parametrize("name, kernels, downloads", [
    ("recurrence", 1, 2),                          # the whole program is one kernel: only the two results come back
    ("leave_from_inner_loop", 1, 1),
    ("sum_of_float32", 2, 1),                      # the total is converted where it is
    ("total_of_each_turn", 2, 1),                  # a kernel and a store a turn, no waiting in between
    ("map_matrix", 1, 1),
])
def test_the_host_waits_for_results_only(name, kernels, downloads):
    case = BY_NAME[name]
    cuda = CudaProgram(case.program, Counting())
    assert len(kernels_of(cuda.program)) == kernels
    agrees(case, case.sizes[-1], lambda *call: called(cuda, *call))
    assert cuda.launcher.downloads == downloads


def test_the_host_waits_where_it_must():
    """A `Leave` that depends on a total: one number a turn."""
    case = BY_NAME["steps_until_small"]
    cuda = CudaProgram(case.program, Counting())
    arrays, scalars = case.make({"n": 4, "m": 50}, np.random.default_rng(0))
    called(cuda, case.program, arrays, scalars, {"n": 4, "m": 50})
    assert cuda.launcher.downloads == int(arrays["steps"]) + 1 + 2


def test_arrays_that_stay_on_the_device():
    """Descent by batches, two epochs: nothing is copied in between, and the swapped states are where they should be."""
    case = BY_NAME["descent_by_batches"]
    sizes = case.sizes[-2]
    cuda = CudaProgram(case.program, Counting())
    arrays, scalars = case.make(sizes, np.random.default_rng(0))
    kept = [cuda.keep(arrays[b.name]) for b in case.program.passed]
    before = cuda.launcher.downloads
    for _ in range(2):
        assert not cuda(kept, list(scalars.values()), sizes)
        arrays |= case.expected(arrays, scalars, sizes)
    assert cuda.launcher.downloads == before
    at = [b.name for b in case.program.passed].index("w")
    np.testing.assert_allclose(kept[at].fetched(arrays["w"].shape), arrays["w"], rtol=0, atol=1e-12)
    with pytest.raises(TypeError, match=r"y is float64\[23\]; given 92 elements of float64"):
        cuda([kept[0]] * len(kept), list(scalars.values()), sizes)


# ---------------------------------------------------------------- through CuPy's stand-in
@pytest.mark.parametrize("name", ["linear_regression", "descent_by_batches", "gather_with_faults", "products_float32", "softmax_of_rows",
                                  "extent_from_data", "scalars", "swapped_states", "until_a_fault", "statements_between_kernels"])
@pytest.mark.parametrize("way", WAYS)
def test_what_is_asked_of_cupy(way, name, monkeypatch, tmp_path):
    """In each way that a program may run."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(program, "choose", lambda *_: Choice({}, way, 96))
    case = BY_NAME[name]
    with stand_in_cupy.installed() as gpu:
        cuda = GpuProgram(case.program)
        for sizes in case.sizes:
            before = len(gpu.launches)
            agrees(case, sizes, lambda *call: called(cuda, *call))
            assert way == "launches" or [together for _, _, together in gpu.launches[before:]] == [way == "a grid"]


# ---------------------------------------------------------------- loops over rows and columns
def extents(name):
    return [(k.index, str(k.extent.dim)) for k in kernels_of(flattened(BY_NAME[name].program)) if hasattr(k.extent, "dim")]


def test_independent_turns_are_iterations():
    assert extents("map_matrix") == [("ij", "m*n")]
    assert extents("permuted_axes")[0] == ("ijq", "d*m*n")


@pytest.mark.parametrize("name", ["sum_of_rows", "sum_of_columns", "softmax_of_rows", "argmax_of_rows", "products_along_rows",
                                  "linear_regression", "windows_of_windows", "roots_by_newton"])
def test_turns_that_depend_on_each_other_stay_loops(name):
    assert kernels_of(flattened(BY_NAME[name].program)) == kernels_of(BY_NAME[name].program)


def turns(stores, totals=(), lets=()):
    """Whether the loop in a kernel over a matrix is taken apart."""
    loop = Loop("j", extent(m), tuple(stores))
    kernel = Kernel("k", "i", extent(n), (*lets, loop), tuple(totals), Dim.of(1))
    return kernels_of(flattened(Program("p", (x, y, v), (), (kernel,))))[0] is not kernel


n, m, i, j = Dim.of(Size("n")), Dim.of(Size("m")), ref("i"), ref("j")
x, y = Buffer("x", "float32", (n, m), "input"), Buffer("y", "float32", (n, m), "state")
v = Buffer("v", "float32", (m,), "state")


def test_which_turns_are_independent():
    assert turns([Store(y, (i, j), load(x, [i, j]) * load(v, [j]))])
    assert turns([Store(y, (i, j), load(y, [i, j]) + 1.0)])
    assert turns([Store(y, (i, j), load(x, [i, j]) * ref("a", "float32"))], lets=[Let("a", load(x, [i, i]))])
    total = Buffer("total", "float32", (), "scratch")
    assert turns([Combine(load(total), "add", load(x, [i, j]))], totals=[Total(total, "add", const(0.0, "float32"))])

    assert not turns([Store(y, (i, j), load(y, [i, j - 1]) + 1.0)]), "reads what another turn writes"
    assert not turns([Store(v, (j,), load(x, [i, j]))]), "the last row wins"
    assert not turns([Store(y, (i, j * 2), load(x, [i, j]))]), "not the index by itself"
    assert not turns([Store(y, (i, j), load(x, [i, j])), Store(y, (j, i), load(x, [i, j]))]), "two places"
    nought, a = const(0.0, "float32"), ref("a", "float32")
    assert not turns([Combine(load(v, [j]), "add", load(x, [i, j]))], totals=[Total(v, "add", nought)]), "a total with elements"
    assert not turns([Assign("a", a + load(x, [i, j])), Store(y, (i, j), a)], lets=[Local("a", "float32", nought)]), "a running sum"
