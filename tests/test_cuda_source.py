"""Kernels as CUDA C: compiled by NVRTC without a device, and run on the CPU by the shim, where they agree with NumPy.

Bits depend neither on the order in which threads run nor on the grid; faults planted in a source are found.
"""

import os
import shutil

import numpy as np
import pytest

from dsl.backends.cuda import nvrtc, runs, shim
from dsl.backends.cuda.driver import CudaProgram
from dsl.backends.cuda.flat import flattened
from dsl.backends.cuda.launch import Place
from dsl.backends.cuda.serial import on_the_device
from dsl.backends.cuda.shim import ShimError, ShimLauncher
from dsl.backends.cuda.source import kernel_source, print_kernels, source_text
from dsl.backends.cuda.spelling import float_literal, fresh, identifier
from dsl.ir.types import Dim, Size
from dsl.loops.interpret import interpret
from dsl.loops.ir import Assign, Bind, Combine, Kernel, Let, Local, Loop, Program, Store, Swap, Total, While, Window
from dsl.machine.evaluate import evaluate
from dsl.machine.expr import Buffer, apply, const, extent, fma, load, lshr, ref, select
from tests.loop_programs import BY_NAME, CASES, agrees
from tests.needs import needs

SCHEDULES = ((0, 64), (1, 1), (2, 3))                  # the seed of the threads' order, the most blocks of a grid
LENGTHS = (0, 1, 31, 32, 33, 127, 128, 129, 1000)
OWN_SIZES = frozenset("swapped_states total_of_each_turn swapped_scalars leave_from_inner_loop flag_outside_kernels empty_blocks".split())
i, j, n = ref("i"), ref("j"), Dim.of(Size("n"))


@pytest.fixture(scope="session")
def gcc():
    needs(shutil.which("g++"), "g++")


@pytest.fixture(scope="session")
def compiler():
    try:
        nvrtc.library()
    except nvrtc.NoCompiler as missing:
        needs(False, str(missing))
    return nvrtc.compile_source


def prefix(case):
    return f"{case.name}_"


@pytest.fixture(scope="session")
def all_kernels():
    return [k for case in CASES for k in print_kernels(*on_the_device(flattened(case.program)), prefix(case))]


@pytest.fixture(scope="session")
def all_functions(all_kernels, gcc):
    """Every case's kernels in one library."""
    return ShimLauncher().load(source_text(all_kernels), [f for k in all_kernels for f in k.functions])


@pytest.fixture(scope="session")
def preemptive_functions(all_kernels, gcc):
    """The same, of threads that are put aside anywhere."""
    return ShimLauncher(preemptive=True).load(source_text(all_kernels), [f for k in all_kernels for f in k.functions])


class Loaded(ShimLauncher):
    """A launcher whose functions are compiled already."""

    def __init__(self, functions, seed=0, most_blocks=64):
        super().__init__(seed, most_blocks)
        self.functions = functions

    def load(self, source, functions):
        return {f.name: self.functions[f.name] for f in functions}


def called(cuda, program, arrays, scalars, sizes):
    return cuda([arrays[b.name] for b in program.passed], [scalars[r.name] for r in program.scalars], sizes)


def bits(array):
    """Those of every nan are alike: a GPU knows one, an x86 processor takes the first operand's, and which is first g++ chooses."""
    return np.where(np.isnan(array), np.nan, array).astype(array.dtype).tobytes() if array.dtype.kind == "f" else array.tobytes()


def in_every_schedule(cuda, launchers):
    """An executor that runs a program under every launcher, and finds the same bits."""
    def execute(program, arrays, scalars, sizes):
        results = []
        for launcher in launchers:
            own = {name: array.copy() for name, array in arrays.items()}
            cuda.launcher = launcher
            flagged = called(cuda, program, own, scalars, sizes)
            results.append((flagged, {name: bits(array) for name, array in own.items()}))
        assert all(r == results[0] for r in results), f"{program.name}: the bits depend on the schedule or the grid"
        for name, array in own.items():
            arrays[name][...] = array
        return flagged
    return execute


def sizes_of(case):
    """The case's own sizes, and its lengths around those of warps and blocks."""
    found = list(case.sizes)
    least = min((s["n"] for s in case.sizes if "n" in s), default=None)
    if least is not None and case.name not in OWN_SIZES and "k" not in case.sizes[-1]:
        found += [{**case.sizes[-1], "n": length} for length in LENGTHS if length >= least]
    return found


# ---------------------------------------------------------------- through the shim
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_kernels_agree_with_numpy(case, all_functions):
    launchers = [Loaded(all_functions, seed, blocks) for seed, blocks in SCHEDULES]
    cuda = CudaProgram(case.program, launchers[0], prefix(case))
    for sizes in sizes_of(case):
        agrees(case, sizes, in_every_schedule(cuda, launchers))


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_threads_put_aside_anywhere_agree_with_numpy(case, preemptive_functions):
    launchers = [Loaded(preemptive_functions, seed, blocks) for seed, blocks in ((4, 64), (5, 2))]
    cuda = CudaProgram(case.program, launchers[0], prefix(case))
    for sizes in (case.sizes[-1], *([{**case.sizes[-1], "n": 150}] if case.name not in OWN_SIZES and "n" in case.sizes[-1] else [])):
        agrees(case, sizes, in_every_schedule(cuda, launchers))


@pytest.mark.parametrize("name", ["sum_of_float32", "several_totals", "extremes_of_nan", "linear_regression", "sum_of_outer_products"])
def test_runs_of_more_than_one_stride(name, all_functions, monkeypatch):
    """With few runs, their lanes and slices take many turns."""
    monkeypatch.setattr(runs, "MOST_RUNS", 3)
    monkeypatch.setattr(runs, "MOST_SLICES", 37)
    monkeypatch.setattr(runs, "MOST_PARTIALS", dict.fromkeys(runs.MOST_PARTIALS, 0))
    case = BY_NAME[name]
    launchers = [Loaded(all_functions, seed, blocks) for seed, blocks in SCHEDULES]
    cuda = CudaProgram(case.program, launchers[0], prefix(case))
    for length in (1, 129, 1500):
        agrees(case, {**case.sizes[-1], "n": length}, in_every_schedule(cuda, launchers))


def test_runs_depend_on_the_extents_alone():
    assert [runs.run_count("threads", length) for length in (0, 1, 32, 33, 5000, 10**5, 10**9)] == [0, 1, 1, 2, 64, 196, runs.MOST_RUNS]
    assert [runs.run_count("warps", length, 3) for length in (0, 1, 1000, 10**9)] == [0, 1, 1000, runs.MOST_RUNS]
    assert [runs.run_count("slices", length, 3) for length in (0, 1, 1000, 10**9)] == [0, 1, 1000, runs.MOST_SLICES]
    assert runs.run_count("slices", 10**9, 10**6) == runs.LANES                 # memory for 128 slices, not for 16384


def test_private_memory_is_shared_by_fewer_blocks(all_functions, monkeypatch):
    from dsl.backends.cuda import driver
    case = BY_NAME["softmax_of_rows"]
    monkeypatch.setattr(driver, "PRIVATE_BYTES", 2 * 4 * 9 * 8)
    grids = []

    class Watched(Loaded):
        def launch(self, function, grid, *arguments, **options):
            grids.append(grid)
            super().launch(function, grid, *arguments, **options)

    cuda = CudaProgram(case.program, Watched(all_functions), prefix(case))
    agrees(case, {"n": 700, "m": 9}, lambda *call: called(cuda, *call))
    assert grids == [2]


# ---------------------------------------------------------------- what no case has
def compiled(program, **launcher):
    return CudaProgram(program, ShimLauncher(**launcher))


DTYPES = {"bool": np.bool_, "int32": np.int32, "int64": np.int64, "float32": np.float32, "float64": np.float64}
BINARY = {"bool": "and or xor eq ne lt ge", "int": "add sub mul minimum maximum and or xor eq ne lt le gt ge below",
          "float": "add sub mul div minimum maximum copysign eq ne lt le gt ge"}
UNARY = {"bool": "not", "int": "neg abs not", "float": "neg abs floor ceil rint trunc isnan"}


def random_expressions(rng, count):
    """Expressions of every instruction, operands drawn from those before: shared, and nested as it comes."""
    made = {dtype: [ref(f"{dtype}_{k}", dtype) for k in range(3)] for dtype in DTYPES}
    for dtype, values in (("int32", (-7, 2**31 - 1, -2**31)), ("int64", (5, -2**63, 2**40)), ("float32", (0.1, -0.0, 3.0)),
                          ("float64", (0.1, -1.5, 1e300))):
        made[dtype] += [const(v, dtype) for v in values]

    def pick(dtype):
        pool = made[dtype]
        return pool[int(rng.integers(len(pool)))] if rng.random() < 0.4 else pool[int(rng.integers(max(0, len(pool) - 6), len(pool)))]

    found = []
    for _ in range(count):
        dtype = str(rng.choice(list(DTYPES)))
        kind = dtype if dtype == "bool" else dtype.rstrip("3264")
        match int(rng.integers(6)):
            case 0:
                e = apply(str(rng.choice(UNARY[kind].split())), pick(dtype))
            case 1:
                e = select(pick("bool"), pick(dtype), pick(dtype))
            case 2 if kind == "int":
                shift = const(int(rng.integers(31)), dtype)
                e = [lshr(pick(dtype), shift), pick(dtype) << shift, pick(dtype) >> shift, apply("irem", pick(dtype), const(97, dtype)),
                     apply("idiv", pick(dtype), const(13, dtype))][int(rng.integers(5))]
            case 2 if kind == "float":
                e = fma(pick(dtype), pick(dtype), pick(dtype))
            case 3 if kind == "float":
                e = pick(str(rng.choice(["bool", "int32", "int64", "float32", "float64"]))).to(dtype)
            case 3 if kind == "int":
                e = pick(str(rng.choice(["bool", "int32", "int64"]))).to(dtype)
            case _:
                e = apply(str(rng.choice(BINARY[kind].split())), pick(dtype), pick(dtype))
        if not isinstance(e, type(made["int32"][3])) and e not in made[e.dtype]:
            made[e.dtype].append(e)
            found.append(e)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_random_expressions(seed, gcc):
    rng = np.random.default_rng(seed)
    found = random_expressions(rng, 400)
    outs = {dtype: Buffer(f"out_{dtype}", dtype, (Dim.of(max(1, sum(e.dtype == dtype for e in found))),), "output") for dtype in DTYPES}
    scalars = [ref(f"{dtype}_{k}", dtype) for dtype in DTYPES for k in range(3)]
    places, body = dict.fromkeys(DTYPES, 0), []
    for e in found:
        body.append(Store(outs[e.dtype], (const(places[e.dtype], "int64"),), e))
        places[e.dtype] += 1
    program = Program("random", tuple(outs.values()), tuple(scalars), (Kernel("random", "i", extent(1), tuple(body), (), Dim.of(1)),))
    given = {"bool": [True, False, True], "int32": [3, -2**31, 12345], "int64": [-9, 2**62, 7],
             "float32": [1.5, -np.inf, np.nan], "float64": [-2.5, 1e-310, 0.0]}
    values = [DTYPES[dtype](given[dtype][k]) for dtype in DTYPES for k in range(3)]
    arrays = [np.zeros(b.shape[0].constant, b.dtype) for b in program.buffers]
    compiled(program)(arrays, values, {})
    with np.errstate(all="ignore"):
        want = evaluate(found, dict(zip(scalars, values)))
    places = dict.fromkeys(DTYPES, 0)
    for e, expected in zip(found, want):
        got = arrays[list(DTYPES).index(e.dtype)][places[e.dtype]]
        places[e.dtype] += 1
        assert got == expected or (got != got and expected != expected), f"{e!r} is {got}, not {expected}"
        assert got != got or np.signbit(np.float64(got)) == np.signbit(np.float64(expected)), f"{e!r}: the sign of {got}"


def test_a_name_lives_as_long_as_its_value(gcc):
    """`x[0] + v` is the same expression before and after `v` and `x` change; so it is in both branches of sibling scopes."""
    x, y, v = Buffer("x", "int64", (Dim.of(3),), "state"), Buffer("y", "int64", (Dim.of(8),), "output"), ref("v")
    def at(k):
        return (const(k, "int64"),)
    value = (load(x, at(0)) + v) * 3
    a, b = ref("a"), ref("b")
    body = (Local("v", "int64", const(1, "int64")), Store(y, at(0), value), Store(y, at(1), value + 1),
            Store(x, at(0), const(10, "int64")), Store(y, at(2), value),
            Loop("j", const(2, "int64"), (Let("a", value * 2), Store(y, (j + 3,), a + a * value), Store(x, at(0), load(x, at(0)) + v))),
            Loop("j", const(1, "int64"), (Let("a", value * 5), Let("b", a * 2), Store(y, (j + 5,), a + b + (a + b) * 2))),
            Store(y, at(6), value), Store(y, at(7), value * value))
    program = Program("names", (x, y), (), (Kernel("names", "i", extent(1), body, (), Dim.of(1)),))
    arrays = [np.array([5, 0, 0]), np.zeros(8, np.int64)]
    compiled(program)(arrays, [], {})

    want = {"x": np.array([5, 0, 0]), "y": np.zeros(8, np.int64)}
    interpret(program, want, {}, {})
    assert arrays[1].tolist() == want["y"].tolist() and arrays[0].tolist() == want["x"].tolist()


def test_private_buffers_in_registers(gcc):
    """A private array of few elements is the thread's own."""
    x, y = Buffer("x", "float32", (n,), "input"), Buffer("y", "float32", (n,), "output")
    held = Buffer("held", "float32", (Dim.of(4),), "private")
    body = (Loop("j", const(4, "int64"), (Store(held, (j,), load(x, [i]) * j.to("float32")),)),
            Store(y, (i,), load(held, [const(3, "int64")]) - load(held, [const(1, "int64")])))
    program = Program("registers", (x, y), (), (Kernel("k", "i", extent(n), body, (), Dim.of(4)),))
    assert "float held[4];" in kernel_source(program)
    arrays = [np.arange(300, dtype=np.float32), np.zeros(300, np.float32)]
    compiled(program)(arrays, [], {"n": 300})
    assert arrays[1].tolist() == (2 * arrays[0]).tolist()


def agrees_with_the_interpreter(program, arrays, sizes):
    """Also with threads that are put aside anywhere."""
    want = {name: array.copy() for name, array in arrays.items()}
    flagged = interpret(program, want, {}, sizes)
    for preemptive in (False, True):
        got = [arrays[b.name].copy() for b in program.passed]
        assert compiled(program, preemptive=preemptive)(got, [], sizes) == flagged
        for b, array in zip(program.passed, got, strict=True):
            np.testing.assert_array_equal(array, want[b.name], err_msg=b.name)


def test_conditions_that_need_names(gcc):
    """A `While` whose condition uses something twice, and a size bound in a kernel, which hides one outside."""
    x, y, z = Buffer("x", "int64", (n,), "input"), Buffer("y", "int64", (n,), "output"), ref("z")
    square = (z * z + load(x, [i])) * 3
    m = Dim.of(Size("m"))
    body = (Local("z", "int64", load(x, [i]) + extent(m)), While((square < 5000) & (square.ne(77)), (Assign("z", z * 2 + 1),)),
            Bind("m", z + i), Store(y, (i,), z * 1000 + extent(m)))
    program = Program("conditions", (x, y), (), (Kernel("k", "i", extent(n), body, (), n),))
    assert "for (;;) {" in kernel_source(program)
    agrees_with_the_interpreter(program, {"x": np.arange(200), "y": np.zeros(200, np.int64)}, {"n": 200, "m": 1})


@pytest.mark.parametrize("rank", [0, 1])
def test_private_memory_beside_totals(rank, gcc):
    x, held = Buffer("x", "int64", (n, n), "input"), Buffer("held", "int64", (n,), "private")
    y = Buffer("y", "int64", (n,)[:rank], "output")
    body = (Loop("j", extent(n), (Store(held, (j,), load(x, [i, j]) + j),)),
            Loop("j", extent(n), (Combine(load(y, [j][:rank]), "add", load(held, [extent(n) - 1 - j]) * i),)))
    kernel = Kernel("k", "i", extent(n), body, (Total(y, "add", const(0, "int64")),), n)
    values = np.random.default_rng(0).integers(-9, 9, size=(150, 150))
    agrees_with_the_interpreter(Program("p", (x, y), (), (kernel,)), {"x": values, "y": np.ones((150,)[:rank], np.int64)}, {"n": 150})


def test_windows_of_one_array_may_overlap(gcc):
    """What may share memory is not `restrict` if it is written."""
    x, y = Buffer("x", "int64", (n,), "state"), Buffer("y", "int64", (n,), "output")
    window = Buffer("rest", "int64", (n - 1,), "window")
    one = const(1, "int64")
    kernel = Kernel("k", "i", extent(n - 1), (Store(window, (i,), load(window, [i]) * 2), Store(y, (i,), load(window, [i]))), (), n)
    both = Kernel("both", "i", one, (Store(window, (i,), load(x, [i + 2]) + load(x, [i])),), (), n)
    program = Program("windows", (x, y), (), (Window(window, x, one), kernel, both))
    source = kernel_source(program)
    assert "long long* __restrict__ rest" in source.partition("both(")[0]
    assert "long long* x, long long* rest" in source.partition("both(")[2]
    agrees_with_the_interpreter(program, {"x": np.arange(9), "y": np.zeros(9, np.int64)}, {"n": 9})


def test_units_that_are_no_literals(gcc):
    x, total, start = Buffer("x", "float32", (n,), "input"), Buffer("total", "float32", (), "output"), ref("start", "float32")
    kernel = Kernel("k", "i", extent(n), (Combine(load(total), "maximum", load(x, [i])),), (Total(total, "maximum", start),), n)
    program = Program("units", (x, total), (start,), (kernel,))
    arrays = [np.full(200, -5, np.float32), np.zeros((), np.float32)]
    compiled(program)(arrays, [np.float32(-3)], {"n": 200})
    assert arrays[1] == -3


def test_strange_names(gcc, compiler):
    """Names of the language that C has other uses for, or cannot spell."""
    rows = Dim.of(Size("rows of a batch"))
    x, y = Buffer("θ", "float32", (rows,), "input"), Buffer("float", "float32", (rows,), "output")
    rate, runs_, thread = ref("lr_add", "float32"), ref("threadIdx", "float32"), ref("thread", "float32")
    body = (Let("int", load(x, [i]) * rate), Store(y, (i,), ref("int", "float32") + runs_ * thread))
    kernel = Kernel("3 times!", "i", extent(rows), body, (), Dim.of(1))
    program = Program("strange", (x, y), (rate, runs_, thread), (kernel,))
    compiler(kernel_source(program))
    arrays = [np.arange(5, dtype=np.float32), np.zeros(5, np.float32)]
    compiled(program)(arrays, [np.float32(2), np.float32(3), np.float32(1)], {"rows of a batch": 5})
    assert arrays[1].tolist() == [3, 5, 7, 9, 11]


def test_identifiers():
    assert [identifier(t) for t in ("w", "θ", "Δx", "a b", "2x", "x₁", "…")] == ["w", "theta", "Deltax", "a_b", "v2x", "x1", "value"]
    assert fresh("for", {"for_"}.__contains__) == "for_2" and fresh("w", {"w", "w_2"}.__contains__) == "w_3"


def test_float_literals_are_exact():
    rng = np.random.default_rng(0)
    for dtype, bits in (("float32", np.uint32), ("float64", np.uint64)):
        values = rng.integers(0, np.iinfo(bits).max, size=3000, dtype=bits).view(dtype)
        for value in [*values[np.isfinite(values)], *np.array([0.1, 1 / 3, 1e-8, 1, 3, 123456789, 5e-45, 2**-149, 2**-126, 65504], dtype)]:
            text = float_literal(abs(float(value)), dtype).rstrip("f")
            parsed = float.fromhex(text) if "x" in text else float(text)
            assert np.dtype(dtype).type(parsed) == abs(value), (text, value)
            assert "x" not in text or parsed == abs(float(value)), text
    assert [float_literal(float(np.float32(x)), "float32") for x in (0.5, 0.1, 1 / 3)] == ["0.5f", "0.1f", "0x1.555556p-2f"]
    assert [float_literal(x, "float64") for x in (0.5, 1e-5, 1 / 3)] == ["0.5", "1e-05", "0x1.5555555555555p-2"]


def test_a_kernel_swaps_no_arrays():
    x, y = (Buffer(name, "float32", (n,), "state") for name in "xy")
    program = Program("swaps", (x, y), (), (Kernel("k", "i", extent(n), (Swap(x, y),), (), n),))
    with pytest.raises(AssertionError, match="no statement of a kernel"):
        kernel_source(program)


# ---------------------------------------------------------------- sources to read
@pytest.mark.parametrize("name", ["softmax_of_rows", "linear_regression", "gather_with_faults", "roots_by_newton"])
def test_sources(name, golden):
    golden(f"cuda/{name}.cu", kernel_source(*on_the_device(flattened(BY_NAME[name].program))))


# ---------------------------------------------------------------- planted faults
SECOND_BARRIER = "= value;\n    __syncthreads();\n"
FAULTS = {
    "no barrier before the warps are combined": ("sum_of_float32", SECOND_BARRIER, "= value;\n"),
    "no barrier before shared memory is used again": ("sum_of_columns", "    __syncthreads();\n    if (thr", "    if (thr"),
    "a barrier for a part of the block": ("sum_of_float32", SECOND_BARRIER, "= value;\n    if (threadIdx.x < 64) __syncthreads();\n"),
    "different barriers": ("sum_of_float32", SECOND_BARRIER, "= value;\nif (threadIdx.x < 64) __syncthreads(); else __syncthreads();\n"),
    "a shuffle for a part of a warp": ("sum_of_float32", "total = lr_block", "if (threadIdx.x != 77) total = lr_block"),
    "a shuffle that leaves lanes out": ("sum_of_float32", "0xffffffffu", "0x7fffffffu"),
    "a shuffle over half a warp": ("sum_of_float32", "step = 16", "step = 8"),
    "a shuffle too many": ("sum_of_float32", "step = 16", "step = 32"),
    "a shuffle of half the width": ("sum_of_float32", "value, step)", "value, step, 16)"),
    "a warp forgotten": ("sum_of_float32", "warp < 4", "warp < 3"),
    "one iteration too many": ("map_vector", "i < n", "i <= n"),
    "one iteration too few": ("map_vector", "i < n", "i < n - 1"),
    "one iteration too many in a sum": ("sum_of_float32", "i < n", "i <= n"),
    "runs that overlap": ("sum_of_float32", "run * 128", "run * 127"),
    "lanes that stride too far": ("sum_of_float32", "runs * 128", "runs * 129"),
    "lanes that stride with the grid": ("sum_of_float32", "runs * 128", "(long long)gridDim.x * 128"),
    "slices that stride with the grid": ("linear_regression", "i += runs", "i += gridDim.x * blockDim.x"),
    "slices that begin with anything": ("linear_regression", "g_runs[element * runs + run] = 0.0", "0"),
    "slices mixed up": ("linear_regression", "g_runs[j * runs + run]", "g_runs[run * d + j]"),
    "a run forgotten": ("sum_of_float32", "run = threadIdx.x; run < runs", "run = threadIdx.x + 1; run < runs"),
    "a nan lost in max": ("extremes_of_nan", "isnan(a) || a > b", "a > b"),
    "a nan lost in min": ("extremes_of_nan", "isnan(a) || a < b", "a < b"),
    "the sign of zero lost": ("extremes_of_zeros", "!signbit(a)", "false"),
    "a wrong unit": ("extremes_of_zeros", "double high = -(double)INFINITY", "double high = 1.0"),
    "a fault not flagged": ("gather_with_faults", "*fault = true", "*fault = false"),
    "an index not guarded": ("gather_with_faults", "0LL : at", "at : at"),
    "rows that lie closer together": ("map_matrix", "i * m + j", "i + j"),
}


RACES = {
    "private memory that threads share": ("softmax_of_rows", " * threads + thread]", "]"),
    "slices that threads share": ("linear_regression", "g_runs[j * runs + run]", "g_runs[j * runs]"),
}


def edited(case, old, new, preemptive=False):
    """The case's program with its source changed, under every schedule."""
    class Editor(ShimLauncher):
        def load(self, source, functions):
            assert old in source, f"{old} is not in the source"
            return super().load(source.replace(old, new), functions)

    cuda = CudaProgram(case.program, Editor(preemptive=preemptive))
    return in_every_schedule(cuda, [ShimLauncher(seed, blocks) for seed, blocks in (*SCHEDULES, (3, 2), (4, 64))])


@pytest.mark.parametrize("what", FAULTS | RACES)
def test_planted_faults_are_found(what, gcc, monkeypatch):
    monkeypatch.setattr(runs, "MOST_RUNS", 3)
    monkeypatch.setattr(runs, "MOST_SLICES", 37)
    monkeypatch.setattr(runs, "MOST_PARTIALS", dict.fromkeys(runs.MOST_PARTIALS, 0))
    name, old, new = (FAULTS | RACES)[what]
    case = BY_NAME[name]
    with pytest.raises(AssertionError):
        execute = edited(case, old, new, preemptive=what in RACES)
        for sizes in (*case.sizes, {**case.sizes[-1], "n": 1000}):
            agrees(case, sizes, execute)


def test_the_shim_says_what_is_wrong(gcc):
    def message(name):
        case, old, new = BY_NAME[FAULTS[name][0]], *FAULTS[name][1:]
        with pytest.raises(ShimError) as error:
            agrees(case, {**case.sizes[-1], "n": 300}, edited(case, old, new))
        return str(error.value)

    assert message("a barrier for a part of the block").startswith("barrier divergence: 64 of 128 threads at __syncthreads, 64 have ended")
    assert message("different barriers").startswith("barrier divergence: 128 of 128 threads at different __syncthreads")
    assert message("a shuffle for a part of a warp").startswith("warp divergence: lanes ffffdfff of ffffffff wait in warp 2 of block 0")
    assert message("a shuffle that leaves lanes out").startswith("lane 31 of block 0 is not in the mask 7fffffff it gives")
    assert message("one iteration too many") == "argument 1 was written outside its array"


def test_partial_warps(gcc):
    """A block of 40 threads: the lanes that do not exist are not waited for, and what they would give is poison."""
    from dsl.backends.cuda.parameters import Parameter
    from dsl.backends.cuda.source import Function
    text = """extern "C" __global__ void k(int* x) {
    __shared__ int s[40];
    s[threadIdx.x] = __shfl_down_sync(0xffffffffu, (int)threadIdx.x, 4);
    __syncthreads();
    x[threadIdx.x] = s[39 - threadIdx.x];
}"""
    launcher = ShimLauncher()
    function, = launcher.load(text, [Function("k", (Parameter("x", "int* x", "buffer", "x"),), text)]).values()
    place = Place(launcher.allocate("int32", 40), 0, (40,), "int32")
    launcher.launch(function, 1, 40, [place])
    want = [t + 4 if t % 32 + 4 < 32 else t for t in range(40)]
    want[36:] = [-1] * 4                                                         # lanes 8 to 11 of the second warp are not there
    assert launcher.download(place).tolist() == want[::-1]


def test_other_folders_are_not_trusted(gcc, tmp_path, monkeypatch):
    """A folder that others can write holds no libraries of ours."""
    monkeypatch.setattr(shim.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = tmp_path / f"lr-shim-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(ShimError, match="not a folder of this user alone"):
        shim.build("", [])

