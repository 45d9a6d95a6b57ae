"""Loop programs run natively on the CPU agree with NumPy, whatever the number of threads; their code is cached and fast."""

import gc
import itertools
import math
import os
import platform
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import dsl
from dsl.backends.llvm import blas, native
from dsl.backends.llvm import cache as object_cache
from dsl.backends.llvm.module import module_text
from dsl.backends.llvm.native import NativeProgram
from dsl.backends.llvm.plan import storages
from dsl.errors import Source
from dsl.ir.types import Dim, Size
from dsl.loops.ir import Combine, Flag, If, Kernel, Let, Loop, Product, Program, Store, Total, While, Window
from dsl.machine.expr import Buffer, const, extent, load, ref, select
from dsl.show import describe
from tests.loop_programs import CASES, agrees

sys.path.insert(0, str(Path(__file__).parent))
import random_programs

THREADS = (1, 2, 3)


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory):
    """A cache of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def runner(run, written):
    """An executor that keeps the bits of what it wrote."""
    def execute(program, arrays, scalars, sizes):
        flagged = run([arrays[b.name] for b in program.passed], [scalars[s.name] for s in program.scalars], sizes)
        written.append([arrays[b.name].tobytes() for b in program.passed])
        return flagged
    return execute


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_programs_agree_with_numpy(case):
    natives = [NativeProgram(case.program, threads=t) for t in THREADS]
    compiled = native.compilations
    for sizes in (*case.sizes, *([case.large] if case.large else [])):
        written = []
        for program in natives:
            agrees(case, sizes, runner(program, written))
        agrees(case, sizes, runner(natives[0], written))
        assert all(w == written[0] for w in written), f"{case.name}, {sizes}: the bits depend on the threads"
    assert native.compilations == compiled, "a new size was compiled for"


@pytest.mark.parametrize("first, precision", [(20_000, "float64"), (30_000, "float32")])
def test_random_programs_of_the_language_agree_with_numpy(first, precision, monkeypatch):
    """Values and, in float64, gradients, compiled to native code."""
    compile_ = dsl.compile
    monkeypatch.setattr(random_programs.dsl, "compile", lambda text, **given: compile_(text, **{**given, "device": "cpu"}))
    before = sum(counts())
    for seed in range(first, first + 25):
        program = random_programs.generate(seed)
        try:
            random_programs.check(program, precision=precision, gradients=precision == "float64")
        except Exception as problem:
            raise AssertionError(f"seed {seed}, {precision}\n{program.source}") from problem
    assert sum(counts()) >= before + 25


def counts():
    return native.compilations, native.loads


# ---------------------------------------------------------------- programs of this file
n, m, d = (Dim.of(Size(name)) for name in "nmd")
i, j = ref("i"), ref("j")


def sum_program(dtype="float32", total="float64", work=2):
    x, t = Buffer("x", dtype, (n,), "input"), Buffer("t", total, (), "output")
    body = Combine(load(t), "add", load(x, [i]).to(total))
    return Program("total", (x, t), (), (Kernel("k", "i", extent(n), (body,), (Total(t, "add", const(0, total)),), Dim.of(work)),))


def map_program(constant=2.5, name="scaled", dtype="float32"):
    x, y = Buffer("x", dtype, (n,), "input"), Buffer("y", dtype, (n,), "output")
    store = Store(y, (i,), load(x, [i]) * ref("a", dtype) + constant)
    return Program(name, (x, y), (ref("a", dtype),), (Kernel("k", "i", extent(n), (store,), (), Dim.of(2)),))


def scaled(run, x, a):
    y = np.full_like(x, 7)
    assert not run([x, y], [a], {"n": len(x)})
    return y


# ---------------------------------------------------------------- numbers
def test_float32_sums_keep_their_digits_in_a_float64_total():
    x = np.random.default_rng(0).normal(size=10_000_000).astype("f4")
    bits = set()
    for threads in THREADS:
        t = np.zeros(())
        NativeProgram(sum_program(), threads=threads)([x, t], [], {"n": len(x)})
        bits.add(t.tobytes())
    assert len(bits) == 1
    assert abs(float(t) - math.fsum(x)) <= 1e-6 * np.abs(x.astype("f8")).sum() * 1e-6


def test_a_sum_in_float32_is_regrouped_over_lanes_and_runs():
    """So that its error grows with the length of a lane's part of a run, not with all 10^7 terms."""
    x = np.ones(20_000_000, "f4")
    t = np.zeros((), "f4")
    NativeProgram(sum_program("float32", "float32"))([x, t], [], {"n": len(x)})
    assert t == 20_000_000, "one accumulator stands still at 2^24"


def test_totals_of_any_length_combine_in_order():
    """Totals so large that their records decide the number of runs, then so many that memory does."""
    x, t = Buffer("x", "float64", (n, d), "input"), Buffer("t", "float64", (d,), "output")
    body = Loop("j", extent(d), (Combine(load(t, [j]), "add", load(x, [i, j])),))
    program = Program("columns", (x, t), (), (Kernel("k", "i", extent(n), (body,), (Total(t, "add", const(0, "float64")),), d * 2),))
    for shape in ((3000, 50), (40, 20_000), (2, 700_000)):
        data = np.random.default_rng(1).normal(size=shape)
        results = []
        for threads in THREADS:
            t_ = np.full(shape[1], 9.0)
            NativeProgram(program, threads=threads)([data, t_], [], dict(zip("nd", shape, strict=True)))
            results.append(t_.tobytes())
        np.testing.assert_allclose(t_, data.sum(0), atol=1e-10)
        assert len(set(results)) == 1


def test_arrays_at_odd_addresses_and_without_elements():
    run = NativeProgram(map_program())
    memory = np.random.default_rng(2).bytes(4 * 100 + 3)
    x = np.frombuffer(memory, "f4", 100, offset=3)
    y = np.frombuffer(bytearray(4 * 100 + 1), "f4", 100, offset=1)
    assert not x.flags.aligned and not y.flags.aligned
    run([x, y], [2.0], {"n": 100})
    np.testing.assert_array_equal(y, x * np.float32(2) + np.float32(2.5))
    assert scaled(run, np.empty(0, "f4"), 2.0).size == 0
    assert scaled(run, x[100:], 2.0).size == 0


def test_a_scalar_beyond_float32_is_infinite():
    run = NativeProgram(map_program())
    np.testing.assert_array_equal(scaled(run, np.ones(3, "f4"), 1e300), np.full(3, np.inf, "f4"))
    np.testing.assert_array_equal(scaled(run, np.ones(3, "f4"), np.float32(3)), np.full(3, 5.5, "f4"))


def test_wrong_arrays_are_refused():
    run = NativeProgram(map_program())
    with pytest.raises(AssertionError):
        scaled(run, np.ones(3), 1.0)
    with pytest.raises(AssertionError):
        scaled(run, np.ones(6, "f4")[::2], 1.0)
    with pytest.raises(ValueError, match="zip"):
        run([np.ones(3, "f4")], [1.0], {"n": 3})
    with pytest.raises(KeyError):
        run([np.ones(3, "f4")] * 2, [1.0], {})
    np.testing.assert_array_equal(scaled(run, np.ones(3, "f4"), 1.0), np.full(3, 3.5, "f4"))


@pytest.mark.parametrize("shape", [(300, 7, 200), (7, 300, 200), (64, 64, 1), (1, 513, 700), (513, 1, 700), (20, 20, 20), (200, 300, 0)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_products(shape, dtype):
    rng = np.random.default_rng(3)
    k = Dim.of(Size("k"))
    for ta, tb in ((False, False), (True, False), (False, True), (True, True)):
        a, b = Buffer("a", dtype, (k, n) if ta else (n, k), "input"), Buffer("b", dtype, (m, k) if tb else (k, m), "input")
        out = Buffer("out", dtype, (n, m), "output")
        program = Program("product", (a, b, out), (), (Product(out, a, b, ta, tb, "p"),))
        rows, columns, inner = shape
        x = (rng.normal(size=(rows, inner)) * 10).astype(dtype)
        y = (rng.normal(size=(inner, columns)) * 10).astype(dtype)
        results = []
        for threads in THREADS:
            z = np.full((rows, columns), 77, dtype)
            run = NativeProgram(program, threads=threads)
            run([np.ascontiguousarray(x.T if ta else x), np.ascontiguousarray(y.T if tb else y), z], [],
                {"n": rows, "m": columns, "k": inner})
            results.append(z.tobytes())
        assert len(set(results)) == 1
        if dtype == "int64":
            np.testing.assert_array_equal(z, x @ y)
        else:
            bound = np.abs(x).astype("f8") @ np.abs(y).astype("f8") * np.finfo(dtype).eps * 10
            assert (np.abs(z - x.astype("f8") @ y.astype("f8")) <= bound).all()


def test_scipys_threads_are_as_before():
    functions = blas.thread_functions()
    assert functions, "SciPy's OpenBLAS is not found"
    get, put = functions
    before = get()
    try:
        put(2)
        with blas.ONE_THREAD:
            assert get() == 1
            with blas.ONE_THREAD:
                assert get() == 1
            assert get() == 1
        assert get() == 2
    finally:
        put(before)


def test_scipys_own_answer_is_as_good(monkeypatch):
    """Where no OpenBLAS is found, SciPy is asked for the routines."""
    x, y = np.random.default_rng(7).normal(size=(2, 30, 30))
    a, b, out = (Buffer(name, "float64", (n, n), role) for name, role in (("a", "input"), ("b", "input"), ("out", "output")))
    program = Program("product", (a, b, out), (), (Product(out, a, b, False, False, "p"),))
    direct, asked = blas.routines(), blas.routines.__wrapped__
    assert blas.library(), "SciPy's OpenBLAS is not found"
    for found in (blas.library, lambda: None):
        monkeypatch.setattr(blas, "library", found)
        monkeypatch.setattr(blas, "routines", asked)
        z = np.zeros((30, 30))
        NativeProgram(program)([x, y, z], [], {"n": 30})
        np.testing.assert_allclose(z, x @ y, rtol=1e-12, atol=1e-12)
        assert (blas.routines() == direct) == (found() is not None)


# ---------------------------------------------------------------- memory
def test_scratch_that_is_never_in_use_together_shares_storage():
    x, y = Buffer("x", "float64", (n,), "input"), Buffer("y", "float64", (n,), "output")
    scratch = [Buffer(f"s{p}", "float64", (n,), "scratch") for p in range(6)]
    chain = [x, *scratch, y]
    kernels = [Kernel(f"k{p}", "i", extent(n), (Store(b, (i,), load(a, [i]) + 1),), (), Dim.of(1))
               for p, (a, b) in enumerate(itertools.pairwise(chain))]
    program = Program("chain", (x, y, *scratch), (), tuple(kernels))
    planned = storages(program)
    assert len(planned) == 2 and sorted(b.name for s in planned for b in s) == [b.name for b in scratch]
    run = NativeProgram(program)
    for length in (0, 5, 1000, 3):
        data = np.random.default_rng(4).normal(size=length)
        out = np.zeros(length)
        run([data, out], [], {"n": length})
        np.testing.assert_array_equal(out, data + 1 + 1 + 1 + 1 + 1 + 1 + 1)
    assert len(run._frames) == 1


def turns(body, *buffers):
    """A program that runs a body a number of times: `x` and the state `y` are passed, the rest is scratch."""
    x, y = Buffer("x", "float64", (n,), "input"), Buffer("y", "float64", (n,), "state")
    scratch = [Buffer(name, "float64", (n,), "scratch") for name in buffers]
    made = Loop("t", extent(Dim.of(Size("turns"))), tuple(body(x, y, *scratch)))
    return Program("turns", (x, y, *scratch), (), (made,))


def step(name, out, value, length=None):
    return Kernel(name, "i", extent(n if length is None else length), (Store(out, (i,), value),), (), Dim.of(1))


def test_scratch_of_a_turn_shares_storage():
    program = turns(lambda x, y, a, b, c: (
        step("k0", a, load(x, [i]) + load(y, [i])), step("k1", b, load(a, [i]) * 2), step("k2", c, load(b, [i]) + 1),
        step("k3", y, load(c, [i]) * 0.5)), *"abc")
    assert sorted(map(len, storages(program))) == [1, 2]
    x, y = np.random.default_rng(8).normal(size=(2, 3000))
    expected = y.copy()
    for _ in range(5):
        expected = ((x + expected) * 2 + 1) * 0.5
    NativeProgram(program)([x, y], [], {"n": 3000, "turns": 5})
    np.testing.assert_array_equal(y, expected)


def test_a_statement_that_stands_twice_is_two_uses():
    x, y = Buffer("x", "float64", (n,), "input"), Buffer("y", "float64", (n,), "output")
    a, b = (Buffer(name, "float64", (n,), "scratch") for name in "ab")
    again = step("k1", y, load(a, [i]))
    program = Program("again", (x, y, a, b), (), (step("k0", a, load(x, [i])), again, step("k2", b, load(x, [i]) * 2), again))
    assert [len(s) for s in storages(program)] == [1, 1]


@pytest.mark.parametrize("first", [
    lambda x, y, a: step("k", a, load(a, [i]) + load(y, [i])),                                          # reads what it writes
    lambda x, y, a: step("k", a, load(x, [i]), n - 1),                                                  # not to the end
    lambda x, y, a: Loop("u", extent(n - 1), (Loop("i", extent(n), (Store(a, (i,), load(x, [i])),)),)),   # perhaps not at all
    lambda x, y, a: Kernel("k", "i", extent(n), (If(load(x, [i]) > 0, (Store(a, (i,), load(x, [i])),)),), (), Dim.of(1)),
    lambda x, y, a: Kernel("k", "i", extent(n), (Store(a, (extent(n) - 1 - i,), load(x, [i])),), (), Dim.of(1))])
def test_what_a_turn_may_leave_to_the_next_is_kept(first):
    program = turns(lambda x, y, a, b: (
        first(x, y, a), step("k1", y, load(a, [i]) + load(y, [i])), step("k2", b, load(y, [i]) * 3), step("k3", y, load(b, [i]))), *"ab")
    assert [len(s) for s in storages(program)] == [1, 1]


def test_a_condition_of_a_loop_reads_what_its_turns_left():
    x, y = Buffer("x", "float64", (n,), "input"), Buffer("y", "float64", (n,), "state")
    a, b = (Buffer(name, "float64", (n,), "scratch") for name in "ab")
    body = (step("k0", a, load(y, [i]) + load(x, [i])), step("k1", y, load(a, [i])),
            step("k2", b, load(y, [i]) * 0), step("k3", y, load(y, [i]) + load(b, [i])))
    zero = const(0, "int64")
    program = Program("p", (x, y, a, b), (), (step("k", a, load(y, [i])), While(load(a, [zero]) < 10, body)))
    x_, y_ = np.ones(5), np.zeros(5)
    NativeProgram(program)([x_, y_], [], {"n": 5})
    np.testing.assert_array_equal(y_, np.full(5, 10.0))
    inner = Program("p", (x, y, a, b), (), (Loop("t", const(1, "int64"), (While(load(a, [zero]) < 10, body),)),))
    assert [len(s) for s in storages(inner)] == [1, 1]


def test_scratch_without_elements_may_be_read():
    """At index 0, as the IR says; the value is not used."""
    s, y = Buffer("s", "float64", (n,), "scratch"), Buffer("y", "float64", (), "output")
    program = Program("none", (y, s), (), (Store(y, (), select(extent(n).eq(0), 1.0, load(s, [const(0, "int64")]))),))
    run, y_ = NativeProgram(program), np.zeros(())
    run([y_], [], {"n": 0})
    assert y_ == 1


@pytest.mark.parametrize("width", [5, 3000, None])
def test_private_arrays_are_a_threads_own(width):
    """On the stack, in the workspace with a fixed size, in the workspace with a size of the call."""
    w = d if width is None else Dim.of(width)
    x, y = Buffer("x", "float64", (n, w), "input"), Buffer("y", "float64", (n, w), "output")
    own, other = Buffer("own", "float64", (w,), "private"), Buffer("other", "int64", (w,), "private")
    row = Buffer("row", "float64", (w,), "window")
    body = (Window(row, x, i),
            Loop("j", extent(w), (Store(own, (j,), load(row, [j]) * 2), Store(other, (j,), i + j))),
            Loop("j", extent(w), (Store(y, (i, j), load(own, [extent(w) - 1 - j]) + load(other, [j]).to("float64")),)))
    program = Program("p", (x, y), (), (Kernel("k", "i", extent(n), body, (), w * 6),))
    for rows, columns in ((0, 4), (3, 0), (2, 7), (2000, 700)):
        columns = columns if width is None else width
        data = np.random.default_rng(6).normal(size=(rows, columns))
        for threads in THREADS:
            out = np.zeros((rows, columns))
            NativeProgram(program, threads=threads)([data, out], [], {"n": rows, "d": columns})
            np.testing.assert_array_equal(out, data[:, ::-1] * 2 + (np.arange(rows)[:, None] + np.arange(columns)))


def resident():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_thousand_programs_leave_no_memory_behind():
    program = map_program(name="again")
    def one(cache):
        run = NativeProgram(program, cache=cache)
        scaled(run, np.ones(8, "f4"), 1.0)
    for _ in range(20):
        one(False)
        one(True)
    gc.collect()
    before = resident()
    for _ in range(40):
        one(False)
    for _ in range(960):
        one(True)
    gc.collect()
    assert resident() - before < 16 << 20


# ---------------------------------------------------------------- code
def test_simple_loops_are_vector_code():
    wide = re.compile(r"\b[yz]mm\d" if platform.machine() in ("x86_64", "AMD64") else r"\bv\d+\.|\bz\d+\.")
    assert wide.search(NativeProgram(map_program()).assembly)
    assert wide.search(NativeProgram(sum_program()).assembly)


@pytest.mark.parametrize("op, dtype, unit", [
    ("add", "float32", 0), ("mul", "float64", 1), ("minimum", "float32", np.inf), ("maximum", "float64", -np.inf), ("add", "int64", 0),
    ("maximum", "int32", -(2**31)), ("and", "bool", True), ("or", "bool", False)])
def test_reductions_are_vector_code(op, dtype, unit):
    x, t = Buffer("x", dtype, (n,), "input"), Buffer("t", dtype, (), "output")
    total = Total(t, op, const(unit, dtype))
    program = Program("r", (x, t), (), (Kernel("k", "i", extent(n), (Combine(load(t), op, load(x, [i])),), (total,), Dim.of(1)),))
    optimised = NativeProgram(program).optimised_ir
    kernel = optimised[re.search(r"define .*@k0\.k\(", optimised).start():]
    kernel = kernel[:kernel.index("\n}\n")]
    assert re.search(r"<\d+ x ", kernel)


def test_a_flag_does_not_keep_a_loop_from_vectors():
    x, y = Buffer("x", "float32", (n,), "input"), Buffer("y", "float32", (n,), "output")
    body = (Flag(load(x, [i]) < 0), Store(y, (i,), load(x, [i]) + 1))
    program = Program("f", (x, y), (), (Kernel("k", "i", extent(n), body, (), Dim.of(1)),))
    assert re.search(r"fcmp olt <\d+ x float>", NativeProgram(program).optimised_ir)


@pytest.mark.parametrize("precision, spelling", [("float64", "double"), ("float32", "float")])
def test_rows_with_private_arrays_are_vector_code(precision, spelling):
    """A mixture of three: each row of a kernel holds three densities, and reads three means and weights."""
    def widest(text):
        session = dsl.Session(device="cpu", precision=precision)
        session.load(Source("rows.lr", text))
        widths = re.findall(rf"= f(?:mul|add) <(\d+) x {spelling}>", describe(session, "C", "code", "llvm"))
        return max(map(int, widths), default=1)
    mixture = """vector x[n]
shared m[3] = 0.5, w[3] = 0.1
let r = sum(logsumexp(w - 0.5 * sqr(x[:, None] - m), axis = 1))
let C = grad(r, m)"""
    sums_are_wider = 2 if precision == "float32" else 1
    assert widest(mixture) * sums_are_wider >= widest("vector x[n]\nlet C = sqr(x) + 1") > 1


def test_no_flag_changes_the_arithmetic():
    for case in CASES:
        text = re.sub(r"(?s)define internal void @lr\.product.*?\n}\n", "", module_text(case.program, True))
        flags = set(re.findall(r"\b(nnan|ninf|nsz|arcp|contract|afn|fast)\b", text))
        assert not flags, (case.name, flags)


def test_a_serial_loop_over_scalars_touches_no_memory():
    """Ten thousand turns of Newton's method for a root in a few instructions a turn."""
    s, x = Buffer("s", "float64", (), "state"), ref("x", "float64")
    body = (Let("x", load(s)), Store(s, (), x * 0.5 + ref("a", "float64") / x * 0.5))
    program = Program("newton", (s,), (ref("a", "float64"),), (Loop("i", const(10_000, "int64"), body),))
    run = NativeProgram(program)
    state = np.ones(())
    run([state], [2.0], {})
    assert abs(state - math.sqrt(2)) < 1e-15
    optimised = run.optimised_ir
    loop = max(re.findall(r"(?ms)^[\w.]+:.*?(?=^[\w.]+:|^})", optimised), key=lambda b: b.count("fdiv"))
    assert "fdiv" in loop and " load " not in loop and " store " not in loop


# ---------------------------------------------------------------- threads and processes
def test_calls_at_the_same_time():
    x = np.random.default_rng(5).normal(size=500_000)
    run = NativeProgram(sum_program("float64"), threads=3)
    first = np.zeros(())
    run([x, first], [], {"n": len(x)})
    results = []
    def calls():
        for _ in range(50):
            t = np.zeros(())
            run([x, t], [], {"n": len(x)})
            results.append(t.tobytes())
    workers = [threading.Thread(target=calls) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 200 and set(results) == {first.tobytes()}


def python(code, **environment):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False,
                          env={**os.environ, **environment}, cwd=Path(__file__).parent.parent)


COMMON = """
import os, sys, numpy as np
from tests.test_llvm import *
x = np.ones(1_000_000)
def total(run):
    t = np.zeros(())
    run([x, t], [], {"n": len(x)})
    return float(t)
"""


def test_a_forked_child_has_threads_of_its_own_and_ends():
    done = python(COMMON + """
run = NativeProgram(sum_program("float64"), threads=3)
assert total(run) == 1e6
children = []
for _ in range(3):
    child = os.fork()
    if not child:
        good = all(total(run) == 1e6 for _ in range(20)) and total(NativeProgram(sum_program("float64", work=3), threads=2)) == 1e6
        sys.exit(0 if good else 1)
    children.append(child)
assert total(run) == 1e6
for child in children:
    assert os.waitpid(child, 0)[1] == 0
print("done")
""")
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_the_interpreter_ends_while_threads_sleep():
    done = python(COMMON + """
run = NativeProgram(sum_program("float64"), threads=4)
for _ in range(10):
    assert total(run) == 1e6
threads = os.listdir("/proc/self/task")
assert len(threads) >= 4, threads
print("done")
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_idle_threads_use_no_time():
    x, t = np.ones(1_000_000), np.zeros(())
    run = NativeProgram(sum_program("float64"), threads=4)
    for _ in range(3):
        run([x, t], [], {"n": len(x)})
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1


# ---------------------------------------------------------------- the cache
@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "lr" / "objects"


def compiled_then(change=lambda: None):
    """Compiles a program, makes a change, makes it again: what the second time counted."""
    program = map_program(name="kept")
    first = NativeProgram(program)
    change()
    before = counts()
    second = NativeProgram(program)
    for run in (first, second):
        np.testing.assert_array_equal(scaled(run, np.arange(5, dtype="f4"), 2.0), np.arange(5, dtype="f4") * 2 + 2.5)
    return tuple(b - a for a, b in zip(before, counts(), strict=True))


def test_code_is_kept_for_the_next_time(own_cache):
    assert compiled_then() == (0, 1)
    (file,) = own_cache.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600 and own_cache.stat().st_mode & 0o777 == 0o700
    before = counts()
    other = NativeProgram(map_program(constant=3.5, name="kept"))
    assert counts() == (before[0] + 1, before[1]) and scaled(other, np.zeros(1, "f4"), 1.0) == 3.5
    NativeProgram(map_program(name="kept"), cache=False)
    assert counts() == (before[0] + 2, before[1])


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:20], lambda data: data[:-1], lambda data: data + b"\0",
                                    lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:], lambda data: b"x" * len(data)])
def test_a_damaged_file_is_made_anew(own_cache, damage):
    def change():
        (file,) = own_cache.iterdir()
        file.write_bytes(damage(file.read_bytes()))
    assert compiled_then(change) == (1, 0)
    assert compiled_then() == (0, 1)


def test_a_cache_that_cannot_be_used_is_done_without(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    for home in (str(blocked), "/proc/nowhere"):
        monkeypatch.setenv("XDG_CACHE_HOME", home)
        assert compiled_then() == (1, 0)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners")
def test_a_cache_that_others_may_write_is_not_trusted(own_cache):
    assert compiled_then(lambda: own_cache.chmod(0o777)) == (1, 0)
    own_cache.chmod(0o700)
    assert compiled_then() == (0, 1)


def test_a_directory_in_a_files_place(own_cache):
    def change():
        (file,) = own_cache.iterdir()
        file.unlink()
        file.mkdir()
    assert compiled_then(change) == (1, 0)


def test_what_was_used_longest_ago_goes(own_cache, monkeypatch):
    monkeypatch.setattr(object_cache, "MOST_FILES", 3)
    programs = [map_program(constant=float(c)) for c in range(5)]
    for age, program in enumerate(programs[:3]):
        NativeProgram(program)
        for file in own_cache.iterdir():
            os.utime(file, (file.stat().st_mtime - 10, file.stat().st_mtime - 10))
        del age
    NativeProgram(programs[0])                                  # used again: now the newest
    NativeProgram(programs[3])
    before = counts()
    for p in (0, 2, 3):
        NativeProgram(programs[p])
    assert counts() == (before[0], before[1] + 3)
    NativeProgram(programs[1])
    assert counts() == (before[0] + 1, before[1] + 3)
    monkeypatch.setattr(object_cache, "MOST_BYTES", 1)
    NativeProgram(programs[4])
    assert list(own_cache.iterdir()) == []


def test_processes_that_compile_at_the_same_time(own_cache):
    code = COMMON + """
for work in range(2, 8):
    assert total(NativeProgram(sum_program("float64", work=work), threads=2)) == 1e6
print(*counts())
"""
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                cwd=Path(__file__).parent.parent) for _ in range(3)]
    for process in running:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    done = python(code)
    assert done.stdout == "0 6\n", (done.stdout, done.stderr)
    assert all(len(file.name) == 64 for file in own_cache.iterdir())
