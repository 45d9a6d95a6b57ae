"""Kernels as CUDA C: compiled by NVRTC without a device, and run on the CPU by the shim, where they agree with NumPy.

Bits depend neither on the order in which threads run nor on the grid; faults planted in a source are found.
"""

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dsl.backends.cuda import nvrtc, runs, shim
from dsl.backends.cuda.driver import CudaProgram
from dsl.backends.cuda.flat import flattened
from dsl.backends.cuda.launch import Place
from dsl.backends.cuda.parameters import Parameter
from dsl.backends.cuda.prelude import HELPERS
from dsl.backends.cuda.serial import on_the_device
from dsl.backends.cuda.shim import ShimError, ShimLauncher
from dsl.backends.cuda.source import Function, kernel_source, print_kernels, source_text
from dsl.backends.cuda.spelling import float_literal, fresh, identifier
from dsl.ir.types import Dim, Size
from dsl.loops.interpret import interpret
from dsl.loops.ir import Assign, Bind, Combine, Kernel, Let, Local, Loop, Program, Store, Swap, Total, While, Window
from dsl.machine.evaluate import evaluate
from dsl.machine.expr import Buffer, apply, const, extent, fma, load, lshr, ref, select
from tests.loop_programs import BY_NAME, CASES, agrees
from tests.needs import needs
from tests.planted import Loaded, compiled, replaced, story

ROOT = Path(__file__).parent.parent
SCHEDULES = ((0, 64), (1, 1), (2, 3))                  # the seed of the threads' order, the most blocks of a grid
LENGTHS = (0, 1, 31, 32, 33, 127, 128, 129, 1000)
LONG = 100_003
SOME = ("map_vector", "sum_of_float32", "several_totals", "gather_with_faults", "histogram")          # with LONG besides
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


@pytest.fixture(scope="session")
def watched_functions(all_kernels, gcc):
    """The same, every access looked at."""
    return ShimLauncher(sanitize=True).load(source_text(all_kernels), [f for k in all_kernels for f in k.functions])


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
        found += [{**case.sizes[-1], "n": length} for length in (*LENGTHS, *[LONG] * (case.name in SOME)) if length >= least]
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


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_nothing_races_and_nothing_is_outside(case, watched_functions):
    cuda = CudaProgram(case.program, Loaded(watched_functions, 6, 3, sanitize=True), prefix(case))
    for sizes in (*case.sizes, *([] if case.name in OWN_SIZES or "n" not in case.sizes[-1] else [{**case.sizes[-1], "n": 530}])):
        agrees(case, sizes, partial(called, cuda))


@pytest.mark.parametrize("name", ["sum_of_float32", "several_totals", "extremes_of_nan", "linear_regression", "sum_of_outer_products",
                                  "histogram", "totals_of_known_length", "extremes_of_columns"])
def test_runs_of_more_than_one_stride(name, all_functions, monkeypatch):
    """With few runs, their lanes and slices take many turns."""
    monkeypatch.setattr(runs, "MOST_RUNS", 3)
    monkeypatch.setattr(runs, "MOST_ROW_RUNS", 3)
    monkeypatch.setattr(runs, "MOST_SLICES", 37)
    monkeypatch.setattr(runs, "MOST_PARTIALS", 0)
    case = BY_NAME[name]
    launchers = [Loaded(all_functions, seed, blocks) for seed, blocks in SCHEDULES]
    cuda = CudaProgram(case.program, launchers[0], prefix(case))
    for length in (1, 129, 1500):
        agrees(case, {**case.sizes[-1], "n": length}, in_every_schedule(cuda, launchers))


def test_runs_depend_on_the_extents_alone():
    assert [runs.run_count("threads", length) for length in (0, 1, 32, 33, 5000, 10**5, 10**9)] == [0, 1, 1, 2, 64, 196, runs.MOST_RUNS]
    assert [runs.run_count("warps", length, 3) for length in (0, 1, 64, 1000, 10**4, 10**9)] == [0, 1, 64, 64, 625, runs.MOST_ROW_RUNS]
    assert [runs.run_count("columns", length, 3) for length in (0, 1, 64, 1000, 10**4, 10**9)] == [0, 1, 64, 64, 157, runs.MOST_ROW_RUNS]
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
def on_the_shim(program, **launcher):
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
    on_the_shim(program)(arrays, values, {})
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
    on_the_shim(program)(arrays, [], {})

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
    on_the_shim(program)(arrays, [], {"n": 300})
    assert arrays[1].tolist() == (2 * arrays[0]).tolist()


def agrees_with_the_interpreter(program, arrays, sizes):
    """Also with threads that are put aside anywhere."""
    want = {name: array.copy() for name, array in arrays.items()}
    flagged = interpret(program, want, {}, sizes)
    for preemptive in (False, True):
        got = [arrays[b.name].copy() for b in program.passed]
        assert on_the_shim(program, preemptive=preemptive)(got, [], sizes) == flagged
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
    on_the_shim(program)(arrays, [np.float32(-3)], {"n": 200})
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
    on_the_shim(program)(arrays, [np.float32(2), np.float32(3), np.float32(1)], {"rows of a batch": 5})
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


def test_long_quotients(gcc):
    """Numbers of 32 bits are divided as such, and no others: also where an index is a product beyond 2^32."""
    source = HELPERS["lr_quotient"] + "\n" + HELPERS["lr_remainder"] + """
extern "C" __global__ void NAME(const long long* a, const long long* b, long long* q, long long* r, long long n) {
    for (long long i = threadIdx.x; i < n; i += blockDim.x) {
        q[i] = lr_quotient(a[i], b[i]);
        r[i] = lr_remainder(a[i], b[i]);
    }
}
"""
    declared = [Parameter(w[-1], w, "buffer", w[-1]) for w in ("const long long* a", "const long long* b", "long long* q", "long long* r")]
    declared.append(Parameter("n", "long long n", "size", "n"))
    edges = [abs(s * 2**k + d) for k in (0, 7, 31, 32, 33, 40, 62) for d in (-1, 0, 1, 12345) for s in (1, 3 if k < 60 else 1)]
    edges = sorted({e for e in (*edges, *(-e for e in edges)) if e})
    a, b = (np.array(x) for x in zip(*((x, y) for x in edges for y in edges), strict=True))
    wanted = [int(abs(x) // abs(y)) * (1 if (x < 0) == (y < 0) else -1) for x, y in zip(a.tolist(), b.tolist())]
    texts = {"right": source, "cut": replaced(source, "(a | b) >> 32 == 0 ?", "true ?"),
             "one_only": replaced(source, "(a | b) >> 32", "a >> 32"),
             "with_sign": replaced(source, "(a | b) >> 32 == 0", "(a | b) < 1LL << 32")}
    functions = compiled([(text.replace("NAME", name), [Function(name, tuple(declared), "")]) for name, text in texts.items()])
    for name, function in functions.items():
        launcher = ShimLauncher()
        places = [Place(launcher.allocate("int64", len(a)), 0, a.shape, "int64") for _ in range(4)]
        launcher.upload(places[0], a)
        launcher.upload(places[1], b)
        try:
            launcher.launch(function, 1, 64, [*places, np.int64(len(a))])
        except ShimError as problem:
            assert name != "right" and "by zero" in str(problem)
            continue
        q, r = (launcher.download(place).tolist() for place in places[2:])
        right = q == wanted and r == [x - y * z for x, y, z in zip(a.tolist(), b.tolist(), wanted)]
        assert right == (name == "right"), name


def rows_from():
    """Rows from `start` on: mapped, added up by rows and by columns, and in whole, all in float32."""
    m = Dim.of(Size("m"))
    x, y = Buffer("x", "float32", (n + 3, m), "input"), Buffer("y", "float32", (n + 3, m), "state")
    xw, yw = Buffer("xw", "float32", (n, m), "window"), Buffer("yw", "float32", (n, m), "window")
    by_row, by_column = Buffer("rows", "float32", (n,), "output"), Buffer("columns", "float32", (m,), "output")
    total = Buffer("all", "float32", (), "output")
    z, zero = ref("z", "float32"), const(0.0, "float32")
    value = load(xw, [i, j])
    body = (Window(xw, x, ref("start")), Window(yw, y, ref("start")),
            Kernel("mapped", "i", extent(n), (Loop("j", extent(m), (Store(yw, (i, j), value * 3.0),)),), (), m),
            Kernel("by_row", "i", extent(n), (Local("z", "float32", zero), Loop("j", extent(m), (Combine(z, "add", value),)),
                                              Store(by_row, (i,), z)), (), m),
            Kernel("by_column", "i", extent(n), (Loop("j", extent(m), (Combine(load(by_column, [j]), "add", value),)),),
                   (Total(by_column, "add", zero),), m),
            Kernel("in_whole", "i", extent(n), (Loop("j", extent(m), (Combine(load(total), "add", value),)),),
                   (Total(total, "add", zero),), m))
    return Program("rows_from", (x, y, by_row, by_column, total), (ref("start"),), body)


@pytest.mark.parametrize("rows, columns", [(3, 5), (300, 5), (7, 133), (600, 131)])
def test_alignment_changes_no_bit(rows, columns, gcc):
    """Windows that begin at no multiple of 16 bytes hold the same numbers, and give the same bits."""
    program = rows_from()
    cuda = on_the_shim(program)
    values = np.random.default_rng(0).normal(size=(rows, columns)).astype("f4")
    results = []
    for start in range(4):
        x, y = np.full((rows + 3, columns), np.nan, "f4"), np.full((rows + 3, columns), 7, "f4")
        x[start:start + rows] = values
        arrays = [x, y, np.zeros(rows, "f4"), np.zeros(columns, "f4"), np.zeros((), "f4")]
        cuda(arrays, [np.int64(start)], {"n": rows, "m": columns})
        np.testing.assert_array_equal(y[start:start + rows], values * np.float32(3))
        assert (np.delete(y, np.s_[start:start + rows], 0) == 7).all()
        np.testing.assert_allclose(arrays[2], values.sum(1, dtype="f8"), rtol=0, atol=1e-5 * columns)
        np.testing.assert_allclose(arrays[3], values.sum(0, dtype="f8"), rtol=0, atol=1e-5 * rows)
        results.append([bits(a) for a in arrays[2:]])
    assert all(r == results[0] for r in results)


# ---------------------------------------------------------------- sources to read
SAME = """
from dsl.backends.cuda.program import sources
from hashlib import sha256
from tests.loop_programs import CASES
kept = [object() for _ in range(12345)]
print(sha256(repr([sources(case.program) for case in CASES]).encode()).hexdigest())
"""


def test_sources_are_the_same_in_every_process():
    """A compiled source is kept under its hash."""
    begun = [subprocess.Popen([sys.executable, "-c", SAME], env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}, cwd=ROOT,
                              stdout=subprocess.PIPE, text=True) for seed in ("1", "2", "3")]
    found = [process.communicate()[0].strip() for process in begun]
    assert len(found[0]) == 64 and len({*found}) == 1


GOLDEN = ["softmax_of_rows", "linear_regression", "gather_with_faults", "roots_by_newton", "totals_of_known_length", "histogram"]


@pytest.mark.parametrize("name", GOLDEN)
def test_sources(name, golden):
    golden(f"cuda/{name}.cu", kernel_source(*on_the_device(flattened(BY_NAME[name].program))))


# ---------------------------------------------------------------- planted faults
SLICED = "counts_runs[at * runs + run]"
FAULTS = {
    "a shuffle for a part of a warp": ("sum_of_float32", "total = lr_warp", "if (lane != 13) total = lr_warp"),
    "a shuffle that leaves lanes out": ("sum_of_float32", "0xffffffffu", "0x7fffffffu"),
    "a shuffle over half a warp": ("sum_of_float32", "step = 16", "step = 8"),
    "a shuffle too many": ("sum_of_float32", "step = 16", "step = 32"),
    "a step of the butterfly too few": ("sum_of_float32", "step > 0", "step > 1"),
    "a shuffle of half the width": ("sum_of_float32", "value, step)", "value, step, 16)"),
    "a butterfly that lane 0 alone has the end of": ("centred_rows", "__shfl_xor_sync", "__shfl_down_sync"),
    "lanes that are not combined": ("centred_rows", "z += lr_warp_add_float32(z_lane)", "z += z_lane"),
    "what was there before the lanes forgotten": ("batches_of_float32", "total[0] += ", "total[0] = "),
    "one iteration too many": ("map_vector", "i < n", "i <= n"),
    "one iteration too few": ("map_vector", "i < n", "i < n - 1"),
    "one iteration too many in a sum": ("sum_of_float32", "i < n", "i <= n"),
    "threads that stride too far": ("map_vector", "i += threads", "i += threads + 1"),
    "groups of threads that stride too far": ("map_vector", "group += threads", "group += 2 * threads"),
    "runs that overlap": ("sum_of_float32", "run * 32", "run * 31"),
    "lanes of runs that stride too far": ("sum_of_float32", "i += runs * 32", "i += runs * 33"),
    "groups of runs that stride too far": ("sum_of_float32", "group += runs * 32", "group += runs * 33"),
    "lanes of runs that stride with the grid": ("sum_of_float32", "runs * 32", "warps * 32"),
    "lanes that stride too little": ("centred_rows", "j += 32", "j += 31"),
    "lanes that stride too far": ("centred_rows", "j += 32", "j += 33"),
    "groups of lanes that stride too far": ("centred_rows", "group_2 += 32", "group_2 += 64", {"n": 2, "m": 518}),
    "the rest after groups forgotten": ("map_vector", "4 * fours + thread", "n + thread"),
    "the rest after groups of a run forgotten": ("sum_of_float32", "4 * fours + run * 32 + lane", "(fours ? n : 0) + run * 32 + lane"),
    "the rest after groups of lanes forgotten": ("centred_rows", "4 * fours_2 + lane", "(fours_2 ? m : 0) + lane"),
    "the rest counted twice": ("sum_of_float32", "4 * fours + run", "run"),
    "a group beyond the end": ("map_vector", "n / 4 : 0", "(n + 3) / 4 : 0"),
    "a group of a run beyond the end": ("sum_of_float32", "n / 4 : 0", "(n + 3) / 4 : 0"),
    "a group of lanes beyond the end": ("centred_rows", "m / 4 : 0", "(m + 3) / 4 : 0"),
    "three of four neighbours": ("sum_of_float32", "u < 4", "u < 3"),
    "the same neighbour four times": ("sum_of_float32", ".at[u]", ".at[0]"),
    "neighbours from elsewhere": ("centred_rows", "i * m + j_first", "j_first"),
    "a misaligned load of 16 bytes": (
        "batches_of_float32", "if ((unsigned long long)from % alignof(lr_four<T>) == 0) return *", "return *"),
    "a misaligned store of 16 bytes": (
        "batches_of_float32", "if ((unsigned long long)to % alignof(lr_four<T>) == 0) {", "if (true) {"),
    "one element lost where neighbours are not aligned": ("batches_of_float32", "from[2], from[3]}", "from[2], from[2]}"),
    "every lane adds to a total": ("linear_regression", "cost += rest * rest;\n            }", "}\n            cost += rest * rest;"),
    "every lane adds to an element": ("rows_that_are_read_back", "if (lane == 0) y[i * m] =", "y[i * m] ="),
    "a total that a lane kept mixed up": ("totals_of_known_length", "g_lane[turn] +=", "g_lane[0] +="),
    "turns stored in another's place": ("totals_of_known_length", "= h_lane[turn]", "= h_lane[1 - turn]"),
    "a kept total not at its unit": ("totals_of_known_length", "h_lane[turn] = -INFINITY", "h_lane[turn] = 0.0f"),
    "fewer turns than elements": ("totals_of_known_length", "turn < 2; ++turn) {", "turn < 1; ++turn) {"),
    "kept totals of runs mixed up": ("totals_of_known_length", "run * 40 + 32 * turn", "run * 32 + 32 * turn"),
    "too few registers": ("totals_of_known_length", "double g_lane[2]", "double g_lane[1]"),
    "slices that stride with the grid": ("histogram", "i += runs", "i += threads"),
    "slices that begin with anything": ("histogram", "counts_runs[element * runs + run] = 0", "0"),
    "slices mixed up": ("histogram", SLICED, "counts_runs[run * m + at]"),
    "warps' totals that begin with anything": ("linear_regression", "g_own[element] = 0.0", "0"),
    "warps' totals mixed up": ("linear_regression", "g_runs + run * d", "g_runs + warp * d"),
    "columns that stride with the grid": ("sum_of_columns", "i += runs", "i += warps"),
    "columns of which the last 32 are missing": ("sum_of_columns", "(m + 31) / 32", "m / 32"),
    "runs of columns mixed up": ("sum_of_columns", "run = item / across", "run = item % runs", {"n": 40, "m": 70}),
    "columns mixed up": ("extremes_of_columns", "high_runs[run * m + j]", "high_runs[run * m + (j + 1) % m]"),
    "columns that begin elsewhere": ("extremes_of_columns", "low = 9223372036854775807LL", "low = 0"),
    "a total in another run's place": ("sum_of_float32", "total_runs[run]", "total_runs[warp]"),
    "totals mixed up": ("several_totals", "least_runs[run] = least", "least_runs[run] = most"),
    "totals that warps do not reach": ("several_totals", " % warps)", ")"),
    "a run forgotten": ("sum_of_float32", "run = threadIdx.x % 32; run < runs", "run = threadIdx.x % 32 + 1; run < runs"),
    "runs that stride too far": ("histogram", "run += 32) total", "run += 33) total"),
    "elements of runs mixed up": ("linear_regression", "runs, d, 0.0", "runs, 1, 0.0"),
    "a nan lost in max": ("extremes_of_nan", "isnan(a) || a > b", "a > b"),
    "a nan lost in min": ("extremes_of_nan", "isnan(a) || a < b", "a < b"),
    "the sign of zero lost": ("extremes_of_zeros", "!signbit(a)", "false"),
    "a wrong unit": ("extremes_of_zeros", "double high = -(double)INFINITY", "double high = 1.0"),
    "a wrong unit of lanes": ("centred_rows", "z_lane = 0.0f", "z_lane = 1.0f"),
    "a wrong unit of runs": ("several_totals", "mul_runs, runs, 1, 1.0", "mul_runs, runs, 1, 2.0"),
    "a fault not flagged": ("gather_with_faults", "*fault = true", "*fault = false"),
    "a fault not flagged in groups": ("gather_with_faults", "*fault = true;\n            y_", ";\n            y_", {"n": 640, "m": 2}),
    "an index not guarded": ("gather_with_faults", "0LL : at", "at : at"),
    "rows that lie closer together": ("centred_rows", "i * m + j", "i + j"),
    "once is more than once": ("batches_of_float32", "if (blockIdx.x == 0 && threadIdx.x == 0)", "if (threadIdx.x < 2)"),
}

BEYOND = {
    "a turn beyond the elements": ("totals_of_known_length", "if (j >= 40) continue;", ""),
    "a turn stored beyond the elements": ("totals_of_known_length", "if (32 * turn + lane < 40) g_runs", "g_runs"),
    "private memory of warps mixed up": ("softmax_of_rows", "e + warp * m", "e + lane * m"),
    "neighbours that are read beyond the end": ("centred_rows", "m >= 128 ? m / 4", "m >= 128 ? (m + 3) / 4"),
    "an element read beyond the end": ("rows_that_are_read_back", "j < m", "j <= m"),
    "columns beyond the end": ("sum_of_columns", "if (j >= m) continue;", ""),
}
"""What these write may lie far from any array: they are run watched alone."""

SYNC = re.compile(r"\n *__syncwarp\(\);")


def without(*numbers):
    """Leaves out these of the places where a warp's lanes wait for each other; of two that follow each other one is enough."""
    def edit(source):
        found = list(SYNC.finditer(source))
        for number in sorted(numbers, reverse=True):
            source = source[:found[number].start()] + source[found[number].end():]
        return source
    return edit


NEEDLESS = ("softmax_of_rows", "awkward_names")
"""What lanes exchange here each of them only reads back itself."""
RACES = {
    "private memory that warps share": ("softmax_of_rows", " + warp * m;", ";"),
    "slices that threads share": ("histogram", SLICED, "counts_runs[at * runs]"),
    "warps' totals that they share": ("linear_regression", "g_runs + run * d", "g_runs"),
    "every lane stores": ("rows_that_are_read_back", "if (lane == 0) ends[i] = 0", "ends[i] = lane"),
    "units and sums": ("sum_of_outer_products", "", without(0, 1)),
    "units and sums of groups": ("linear_regression", "", without(0, 1)),
    "a loop and a statement": ("totals_of_known_length", "", without(2, 3)),
    "a statement and the next iteration's loop": ("totals_of_known_length", "", without(4, 1)),
    "a loop, and what is read back": ("rows_that_are_read_back", "", without(1, 2, 3)),
    "a statement, and what a loop reads": ("rows_that_are_read_back", "", without(6, 7)),
}


@pytest.fixture
def few_runs(monkeypatch):
    monkeypatch.setattr(runs, "MOST_RUNS", 6)
    monkeypatch.setattr(runs, "MOST_ROW_RUNS", 6)
    monkeypatch.setattr(runs, "MOST_SLICES", 37)
    monkeypatch.setattr(runs, "MOST_PARTIALS", 0)


def with_faults(faults, **options):
    """Every fault's program, an executor of it in every schedule, and the sizes at which it is looked for."""
    printed = {}
    for number, (what, (name, old, new, *more)) in enumerate(faults.items()):
        case, mark = BY_NAME[name], f"f{number}_"
        kernels = print_kernels(*on_the_device(flattened(case.program)), mark)
        source = new(source_text(kernels)) if callable(new) else replaced(source_text(kernels), old, new)
        printed[what] = case, mark, more, source, [f for k in kernels for f in k.functions]
    functions = compiled([(source, own) for *_, source, own in printed.values()], **options)
    for what, (case, mark, more, *_) in printed.items():
        launchers = [Loaded(functions, seed, blocks, **options) for seed, blocks in (*SCHEDULES, (3, 2), (4, 64))]
        sizes = (*case.sizes, *more, *([] if case.name in OWN_SIZES else [{**case.sizes[-1], "n": count} for count in (300, 1003)]))
        yield what, case, sizes, CudaProgram(case.program, launchers[0], mark), launchers


def test_planted_faults_are_found(gcc, few_runs):
    missed = [what for what, case, sizes, cuda, launchers in with_faults(FAULTS)
              if not story(case, sizes, [in_every_schedule(cuda, launchers)])]
    assert not missed


def without_any():
    """Every kernel in which lanes wait for each other, and do not."""
    for case in CASES:
        if case.name not in NEEDLESS and SYNC.search(source_text(print_kernels(*on_the_device(flattened(case.program))))):
            yield f"no waiting: {case.name}", (case.name, "", partial(SYNC.sub, ""))


def test_what_the_watched_shim_sees(gcc, few_runs):
    """Races, and accesses outside of arrays, in one schedule, right results or not."""
    wide = {"n": 3, "m": 133, "d": 133}
    missed = []
    for what, case, sizes, cuda, launchers in with_faults({**RACES, **BEYOND, **dict(without_any())}, sanitize=True):
        more = {**case.sizes[-1], **{k: v for k, v in wide.items() if k in case.sizes[-1]}}
        cuda.launcher = launchers[0]
        found = story(case, (*sizes, more), [partial(called, cuda)])
        if not re.match(r"race: |thread \d+ of block", found):
            missed.append((what, found))
    assert not missed


def test_threads_put_aside_anywhere_show_races(gcc, few_runs):
    """In the results, too."""
    alone = ("a loop and a statement", "a statement and the next iteration's loop", "units and sums of groups")
    # sums in place, which nothing comes between
    shown = {what: fault for what, fault in RACES.items() if what not in alone}
    missed = [what for what, case, sizes, cuda, launchers in with_faults(shown, preemptive=True)
              if not story(case, (*sizes, {**case.sizes[-1], "n": 13, "m": 133}), [in_every_schedule(cuda, launchers)])]
    assert not missed


def test_what_needs_no_barrier(gcc):
    """These programs are right without: found so if that changes."""
    for what, case, sizes, cuda, launchers in with_faults({name: (name, "", partial(SYNC.sub, "")) for name in NEEDLESS}, sanitize=True):
        for launcher in launchers[:2]:
            cuda.launcher = launcher
            assert not story(case, sizes, [partial(called, cuda)]), what


def test_the_shim_says_what_is_wrong(gcc, few_runs):
    names = ("a shuffle for a part of a warp", "a shuffle that leaves lanes out", "one iteration too many", "a misaligned load of 16 bytes",
             "too few registers")
    found = {what: story(case, sizes, [partial(called, cuda)])
             for what, case, sizes, cuda, _ in with_faults({name: FAULTS[name] for name in names})}
    assert re.match("warp divergence: lanes ffffdfff of ffffffff wait in warp . of block ", found["a shuffle for a part of a warp"])
    assert re.match("lane 31 of block . is not in the mask 7fffffff it gives", found["a shuffle that leaves lanes out"])
    assert found["one iteration too many"] == "argument 1 was written outside its array"
    assert re.match(r"kernels.cu:\d+: what is read or written here is not aligned", found["a misaligned load of 16 bytes"])
    assert re.match(r"kernels.cu:\d+: an index is beyond its array", found["too few registers"])


def test_partial_warps(gcc):
    """A block of 40 threads: the lanes that do not exist are not waited for, and what they would give is poison."""
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

