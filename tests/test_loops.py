"""The loop IR: its text, its verifier, its interpreter."""

import os
import subprocess
import sys
import time
from dataclasses import fields, replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from loop_programs import (
    BY_NAME,
    CASES,
    NUMPY,
    agrees,
    buffer,
    d,
    extent,
    f32,
    f64,
    given,
    i,
    i64,
    j,
    kernel,
    loop,
    m,
    n,
    program,
    result,
    rows,
    state,
    t,
)

from dsl.ir.types import Dim, Size, derived
from dsl.loops import ir
from dsl.loops.interpret import POISON, Interpreter, Race, interpret
from dsl.loops.ir import Assign, Bind, Combine, Flag, If, Leave, Let, Local, Product, Store, Swap, Total, While, Window
from dsl.loops.scalar_python import Unsafe, fma32, fma64, high, low
from dsl.loops.text import dim_text, expression_text, listing
from dsl.loops.verify import verify
from dsl.machine.expr import Apply, Const, Extent, Load, Ref, apply, const, load, ref, select
from dsl.machine.instructions import TABLE

X, V, Y = given("X", "float64", n, m), given("V", "float64", n), result("Y", "float64", n)
W, S, U = state("W", "float64", n), buffer("S", "float64"), given("U", "int64", n)
x = load(V, [i])


# ---------------------------------------------------------------- text
@pytest.mark.parametrize("name", ["linear_regression", "softmax_of_rows", "descent_by_batches", "windows_of_windows", "swapped_states",
                                  "leave_from_inner_loop", "if_and_else", "gather", "scalars", "derived_sizes", "awkward_names",
                                  "several_totals"])
def test_listing(name, golden):
    golden(f"loops/{name}.txt", listing(BY_NAME[name].program))


z, u, b = ref("z", "float64"), ref("u", "int64"), ref("b", "bool")


@pytest.mark.parametrize("e, text", [
    (z - (z - 1.0), "z - (z - 1.0)"),
    ((z - z) - 1.0, "z - z - 1.0"),
    (z + (z + 1.0), "z + (z + 1.0)"),
    (z * z + z / (z * z), "z * z + z / (z * z)"),
    ((z + 1.0) * -z, "(z + 1.0) * -z"),
    (-(z * z), "-(z * z)"),
    (apply("neg", -z), "z"),
    (-f64(1.0) * f64(-1.0), "-(1.0) * -1.0"),
    (z * -0.0, "z * -0.0"),
    (f64(1e300) / f64(0.1), "1e+300 / 0.1"),
    (f32(0.1) / f32(1e-20), "0.1f / 1e-20f"),
    (ref("h", "int32") * const(3, "int32") + const(-4, "int32"), "h * 3i + -4i"),
    (f32(np.nan) / f32(-np.inf), "nanf / -inff"),
    ((u & 7) << 2, "(u & 7) << 2"),
    (u & (u << 2), "u & u << 2"),
    ((u + 1 < u).eq(~b), "(u + 1 < u) == not b"),
    ((u.eq(3)) & (z < 1.0) | ~b, "u == 3 and z < 1.0 or not b"),
    (b & (b | b), "b and (b or b)"),
    (b ^ b, "b xor b"),
    (~u ^ u | u, "~u ^ u | u"),
    (apply("lshr", u, u) >> 1, "u >>> u >> 1"),
    (select(b, z, select(z > 0.0, f64(1), -z)), "b ? z : z > 0.0 ? 1.0 : -z"),
    (select(select(b, b, ~b), select(b, z, z + 1.0), z) * 2.0, "((b ? b : not b) ? (b ? z : z + 1.0) : z) * 2.0"),
    (z.to("float32").bits_as("int32"), "bits_int32(float32(z))"),
    (apply("fma", z, apply("minimum", z, f64(2)), apply("isnan", z).to("float64")), "fma(z, minimum(z, 2.0), float64(isnan(z)))"),
    (load(X, [i + 1, extent(m) - 1 - j]), "X[i + 1, m - 1 - j]"),
    (load(S) * 2.0, "S[] * 2.0"),
    (extent(n * m - 1) * 2, "{m*n - 1} * 2"),
])
def test_expression_text(e, text):
    assert expression_text(e) == text


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
@pytest.mark.parametrize("op", ["add", "sub", "mul", "and", "or", "xor", "ashr"])
def test_literals_are_reckoned_as_numpy_does(op, dtype):
    kind = "float" if "float" in dtype else "int"
    if kind not in TABLE[op].llvm:
        return
    made = np.random.default_rng(5).normal(size=60) * 10.0 ** np.random.default_rng(6).integers(-30, 30, 60)
    values = np.concatenate([made, [0.0, -0.0, np.inf, -np.inf, np.nan]]) if kind == "float" else np.arange(-20, 30)
    with np.errstate(all="ignore"):
        values = values.astype(dtype)
        for a, b in zip(values, np.roll(values, 7) if op != "ashr" else np.abs(np.roll(values, 7))):
            got, want = apply(op, const(a.item(), dtype), const(b.item(), dtype)), TABLE[op].numpy(a, b)
            assert isinstance(got, Const) and got.dtype == dtype
            np.testing.assert_array_equal(np.array(got.value, dtype), want)
            assert np.signbit(got.value) == np.signbit(want) or np.isnan(want)


def test_shared_parts_are_written_once():
    e = z
    for _ in range(200):
        e = e * e + 1.0
    lines = expression_text(e).splitlines()
    assert len(lines) == 200 and lines[0] == "%0 = z * z + 1.0" and lines[-1] == "%198 * %198 + 1.0"
    chain = z
    for _ in range(5000):
        chain = chain + 1.0
    assert max(map(len, expression_text(chain).splitlines())) < 120


def test_dim_text():
    four, length = Dim.of(Size("k", True, 4)), Dim.of(Size("rows of it"))
    assert dim_text(n * m - 2 * n + 1) == "m*n - 2*n + 1"
    assert dim_text(derived("floordiv", n * m, d)) != dim_text(n * derived("floordiv", m, d))
    assert dim_text(derived("max", n - 1, 0) + four) == "max(n - 1, 0) + k:4"
    assert dim_text(length * 2) == "2*`rows of it`"
    assert dim_text(Dim.of(Size("v.3", named=False)) - 1) == "v.3 - 1"
    assert dim_text(-1 * n) == "-n" and dim_text(Dim.of(0)) == "0"


def changed(value):
    """What is like `value` but for one thing, in every way.  What declares a buffer changes with all its uses, in `redeclared`."""
    match value:
        case ir.Buffer():
            yield replace(value, name=value.name + "_")
        case Const(v, dtype):
            yield const(not v if dtype == "bool" else v + 1 if abs(v) < 1e6 else 0, dtype)
            if v == 0 and "float" in dtype:
                yield const(-0.0 if str(v) == "0.0" else 0.0, dtype)
            yield const(v, {"int32": "int64", "int64": "int32", "float32": "float64", "float64": "float32", "bool": "int64"}[dtype])
        case Ref(name, dtype):
            yield ref(name + "_", dtype)
        case Extent(dim):
            yield extent(dim + 1)
        case Load(buffer, index):
            yield from (load(b, index) for b in changed(buffer))
            yield from (load(buffer, (*index[:a], other, *index[a + 1:])) for a in range(len(index)) for other in changed(index[a]))
        case Apply(op, args, dtype):
            alike = {"add": "sub", "lt": "le", "minimum": "maximum", "neg": "abs", "select": "fma", "to": "bits", "ashr": "lshr",
                     "mul": "div"}
            yield apply(alike.get(op, "mul"), *args, dtype=dtype)
            if op in ("to", "bits"):
                yield from (apply(op, *args, dtype=to) for to in NUMPY if to != dtype)
            yield from (apply(op, *args[:a], other, *args[a + 1:], dtype=dtype) for a in range(len(args)) for other in changed(args[a]))
        case Dim():
            yield value + 1
        case bool():
            yield not value
        case str():
            yield {"add": "mul", "minimum": "maximum", "float64": "float32", "int64": "int32"}.get(value, value + "_")
        case tuple():
            for a, item in enumerate(value):
                yield (*value[:a], *value[a + 1:])
                yield from ((*value[:a], other, *value[a + 1:]) for other in changed(item))
        case _:
            for f in fields(value):
                yield from (replace(value, **{f.name: other}) for other in changed(getattr(value, f.name)))


def redeclared(p):
    """The program with one thing about one buffer changed, everywhere."""
    def exchange(value, old, new):
        match value:
            case ir.Buffer():
                return new if value is old else value
            case Load(buffer, index):
                return Load(exchange(buffer, old, new), exchange(index, old, new))
            case Apply(op, args, dtype):
                return apply(op, *exchange(args, old, new), dtype=dtype)
            case tuple():
                return tuple(exchange(v, old, new) for v in value)
            case Dim() | str() | bool() | Const() | Ref() | Extent():
                return value
            case _:
                return replace(value, **{f.name: exchange(getattr(value, f.name), old, new) for f in fields(value)})

    for b in dict.fromkeys((*p.buffers, *ir.buffers_of(p.body))):
        yield exchange(p, b, replace(b, dtype="int32" if b.dtype != "int32" else "int64"))
        yield from (exchange(p, b, replace(b, shape=(*b.shape[:a], b.shape[a] + 1, *b.shape[a + 1:]))) for a in range(b.rank))
        if b.role not in ("private", "window"):
            yield exchange(p, b, replace(b, role="state" if b.role != "state" else "output"))


@pytest.mark.parametrize("name", ["linear_regression", "descent_by_batches", "leave_from_inner_loop", "products_float32", "if_and_else",
                                  "gather", "softmax_of_rows", "scalars", "swapped_states", "bool_instructions"])
def test_what_differs_differs_in_text(name):
    p = BY_NAME[name].program
    text, count = listing(p), 0
    for other in (*changed(p), *redeclared(p)):
        count += 1
        assert listing(other) != text, other
    assert count > 40


def test_text_is_the_same_in_every_process():
    code = "import hashlib, loop_programs as l; from dsl.loops.text import listing\n" \
           "print(hashlib.sha256(''.join(listing(c.program) for c in l.CASES).encode()).hexdigest())"
    here = Path(__file__).parent
    made = {subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=here,
                           env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(here.parent)}).stdout for seed in ("1", "2")}
    assert len(made) == 1


# ---------------------------------------------------------------- verifier
def test_programs_verify():
    for case in CASES:
        verify(case.program)


def bad(*body, buffers=(X, V, U, Y, W, S), scalars=()):
    return program("bad", buffers, *body, scalars=scalars)


wb, private = buffer("wb", "float64", rows, role="window"), buffer("P", "float64", m, role="private")
line, page = buffer("line", "float64", m, role="window"), buffer("page", "float64", rows, m, role="window")
T = [Total(S, "add", f64(0))]
A, B, C = (state(name, "float64", n, m) for name in "ABC")
SQUARE = state("SQ", "float64", 2, 3)
add_up = Combine(load(S), "add", x)

WRONG = {
    "value not in scope": (bad(Store(S, (), z)), "z is not in scope"),
    "value out of its block": (bad(If(extent(n) > 0, (Let("z", f64(1)),)), Store(S, (), z)), "z is not in scope"),
    "loop index out of its loop": (bad(loop(i, n), Flag(i > 0)), "i is not in scope"),
    "other dtype": (bad(Let("z", f32(1)), Store(S, (), z)), "z is float32, read as float64"),
    "scalar of another dtype": (bad(Store(S, (), z), scalars=[ref("z", "float32")]), "z is float32, read as float64"),
    "declared twice": (bad(Let("z", f64(1)), If(extent(n) > 0, (Let("z", f64(1)),))), "z is declared twice"),
    "index declared twice": (bad(loop(i, n, loop(i, n))), "i is declared twice"),
    "kernel index declared": (bad(loop(i, n, kernel(i, n))), "i is declared twice"),
    "scalar declared": (bad(Let("z", f64(1)), scalars=[z]), "z is declared twice"),
    "two scalars": (bad(scalars=[z, ref("z", "int64")]), "two scalars are named z"),
    "two buffers": (bad(buffers=[X, buffer("X", "float64")]), "two buffers are named X"),
    "order of buffers": (bad(buffers=[S, X]), "scratch stands before a buffer that is passed"),
    "window listed": (bad(buffers=[wb]), "wb: float64[rows of a batch] window is listed"),
    "window named twice": (bad(kernel(i, n, Window(line, X, i), Window(line, X, i))), "line is declared twice"),
    "operands of two dtypes": (bad(Store(S, (), apply("add", f64(1), f32(1)))), "add of float64, float32"),
    "operand of a wrong kind": (bad(Let("z", apply("sqrt", i64(4)))), "sqrt of int64"),
    "bool added": (bad(Let("b", const(True, "bool")), Let("z", apply("add", b, b))), "add of bool, bool"),
    "fma of integers": (bad(Let("z", apply("fma", i64(1), i64(1), i64(1)))), "fma of int64, int64, int64"),
    "result of a wrong dtype": (bad(Let("z", apply("div", f64(1), f64(1), dtype="float32"))), "div of float64 gives float64, not float32"),
    "comparison that is no bool": (bad(Local("w", "float64", f64(1)), Let("z", apply("lt", ref("w", "float64"), f64(1), dtype="float64"))),
                                   "lt of float64 gives bool, not float64"),
    "too few operands": (bad(Let("z", apply("add", f64(1)))), "add of 1 operands"),
    "too many operands": (bad(Let("z", apply("neg", f64(1), f64(2)))), "neg of 2 operands"),
    "no instruction": (bad(Let("z", apply("exp", f64(1)))), "no instruction exp"),
    "condition of select": (bad(Let("z", apply("select", i64(1), f64(1), f64(2)))), "select of int64, float64, float64"),
    "arms of select": (bad(Let("z", apply("select", const(True, "bool"), f64(1), f32(2)))), "select of bool, float64, float32"),
    "bits of another width": (bad(Let("z", apply("bits", f64(1), dtype="int32"))), "bits of float64 as int32"),
    "conversion to bool": (bad(Let("z", apply("to", f64(1), dtype="bool"))), "a conversion of float64 to bool"),
    "literal of a wrong type": (bad(Let("z", Const(1, "float64"))), "1 is no float64"),
    "literal too large": (bad(Let("z", Const(2**31, "int32"))), "2147483648 is no int32"),
    "fault inside an index": (bad(kernel(i, n, Store(Y, (i,), load(V, [apply("sqrt", i)])))), "sqrt of int64"),
    "float index": (bad(kernel(i, n, Store(Y, (i,), load(V, [f64(0)])))), "an index of V is not int64"),
    "int32 index of a store": (bad(Store(Y, (const(0, "int32"),), f64(0))), "an index of Y is not int64"),
    "rank of a store": (bad(Store(Y, (), f64(0))), "0 indices for Y: float64[n]"),
    "rank of a load": (bad(Store(S, (), Load(X, (i64(0),)))), "1 indices for X"),
    "store of another dtype": (bad(Store(S, (), f32(0))), "what is stored in S is float32, not float64"),
    "store to an input": (bad(Store(V, (i64(0),), f64(0))), "the input V is written"),
    "store to a window of an input": (bad(Window(line, X, i64(0)), Store(line, (i64(0),), f64(0))), "the input X is written"),
    "combine into an input": (bad(Combine(load(V, [i64(0)]), "add", f64(0))), "the input V is written"),
    "product into an input": (bad(Product(X, A, B, True, False, "p"), buffers=[X, A, B]), "the input X is written"),
    "buffer not listed": (bad(Store(A, (i64(0), i64(0)), f64(0))), "A: float64[n, m] state is not listed"),
    "scratch not listed": (bad(Store(S, (), f64(0)), buffers=[V]), "S: float64[] scratch is not listed"),
    "another scratch of that name": (bad(Store(buffer("S", "float64"), (), f64(0))), "S: float64[] scratch is not listed"),
    "window before it is opened": (bad(Store(S, (), load(line, [i64(0)]))), "the window line is used where it is not open"),
    "window out of its block": (bad(loop(i, n, Window(line, X, i)), Store(S, (), load(line, [i64(0)]))), "the window line is used where"),
    "window of another dtype": (bad(Window(buffer("f", "float32", m, role="window"), X, i64(0))), "f: float32[m] is no window of X"),
    "window two axes less": (bad(Window(buffer("f", "float64", role="window"), X, i64(0))), "f: float64[] is no window of X"),
    "window of other columns": (bad(Window(buffer("f", "float64", 2, 4, role="window"), SQUARE, i64(0)), buffers=[SQUARE]),
                                "f: float64[2, 4] is no window of SQ: float64[2, 3]"),
    "window that is scratch": (bad(Window(S, V, i64(0))), "S: float64[] scratch is opened as a window"),
    "window of a scalar": (bad(Window(buffer("f", "float64", role="window"), S, i64(0))), "is no window of S"),
    "start of a window": (bad(Window(line, X, f64(0))), "the start is float64, not int64"),
    "window older than its size": (bad(Window(wb, V, i64(0)), Bind("rows of a batch", i64(1)), Store(S, (), load(wb, [i64(0)]))),
                                   "a size of the window wb was bound after it"),
    "private outside": (bad(Store(private, (i64(0),), f64(0))), "the private buffer P is used outside a kernel"),
    "private named as another": (bad(kernel(i, n, Store(buffer("S", "float64", role="private"), (), f64(0)))), "two buffers are named S"),
    "kernel in a kernel": (bad(kernel(i, n, kernel(j, n, name="k1"))), "a Kernel stands in a kernel"),
    "product in a kernel": (bad(kernel(i, n, Product(C, A, B, True, False, "p")), buffers=[A, B, C]), "a Product stands in a kernel"),
    "swap in a kernel": (bad(kernel(i, n, Swap(A, B)), buffers=[A, B]), "a Swap stands in a kernel"),
    "two kernels of one name": (bad(kernel(i, n), kernel(i, n)), "two kernels or products are named k0"),
    "kernel assigns an outer local": (bad(Local("z", "float64", f64(0)), kernel(i, n, Assign("z", x))),
                                      "z is assigned, and is no Local of this kernel"),
    "kernel combines into an outer local": (bad(Local("z", "float64", f64(0)), kernel(i, n, Combine(z, "add", x))),
                                            "z is assigned, and is no Local of this kernel"),
    "let assigned": (bad(Let("z", f64(0)), Assign("z", f64(1))), "z is assigned, and is no Local"),
    "index assigned": (bad(loop(i, n, Assign("i", i + 1))), "i is assigned, and is no Local"),
    "scalar assigned": (bad(Assign("z", f64(1)), scalars=[z]), "z is assigned, and is no Local"),
    "unknown assigned": (bad(Assign("z", f64(1))), "z is not in scope"),
    "local of another dtype": (bad(Local("z", "float64", f32(0))), "the start of z is float32, not float64"),
    "assigned another dtype": (bad(Local("z", "float64", f64(0)), Assign("z", f32(1))), "z is float64, assigned float32"),
    "combined with another dtype": (bad(Local("z", "float64", f64(0)), Combine(z, "add", f32(1))), "z is float64, combined with float32"),
    "element combined with another dtype": (bad(Combine(load(S), "add", f32(1))), "what is combined into S is float32"),
    "combined by subtraction": (bad(Combine(load(S), "sub", f64(1))), "sub combines nothing"),
    "floats combined by and": (bad(Combine(load(S), "and", f64(1))), "and does not combine float64"),
    "total read": (bad(kernel(i, n, add_up, Store(Y, (i,), load(S)), totals=T)), "the total S is read in its kernel"),
    "total written": (bad(kernel(i, n, Store(S, (), x), totals=T)), "the total S is written in its kernel by other than Combine"),
    "total combined by another op": (bad(kernel(i, n, Combine(load(S), "mul", x), totals=T)), "the total S is combined by another op"),
    "total is its own term": (bad(kernel(i, n, Combine(load(S), "add", load(S) * x), totals=T)), "the total S is read in its kernel"),
    "total that is state": (bad(kernel(i, n, totals=[Total(W, "add", f64(0))])),
                            "the total W: float64[n] state is neither scratch nor an output"),
    "total named twice": (bad(kernel(i, n, totals=T * 2)), "a total is named twice"),
    "total not listed": (bad(kernel(i, n, totals=T), buffers=[V]), "S: float64[] scratch is not listed"),
    "unit of another dtype": (bad(kernel(i, n, totals=[Total(S, "add", f32(0))])), "the unit of S is float32"),
    "unit reads the index": (bad(kernel(i, n, totals=[Total(S, "add", x)])), "i is not in scope"),
    "extent reads a total": (bad(kernel(i, load(S).to("int64"), totals=T)), "the extent or a unit reads a total"),
    "window of a total": (bad(kernel(i, n, Window(buffer("f", "float64", role="window"), Y, i), totals=[Total(Y, "add", f64(0))])),
                          "a window of the total Y"),
    "window of a total, from before": (bad(Window(buf := buffer("f", "float64", role="window"), Y, i64(0)),
                                           kernel(i, n, Store(buf, (), x), totals=[Total(Y, "add", f64(0))])), "the total f is written"),
    "extent of a kernel": (bad(kernel(i, f64(3))), "the extent is float64, not int64"),
    "extent of a loop": (bad(loop(i, const(3, "int32"))), "the extent is int32, not int64"),
    "condition of if": (bad(If(i64(1), ())), "the condition is int64, not bool"),
    "condition of while": (bad(While(f64(1), ())), "the condition is float64, not bool"),
    "condition of flag": (bad(Flag(f64(1))), "the condition is float64, not bool"),
    "condition of leave": (bad(While(extent(n) > 0, (Leave(i64(0)),))), "the condition is int64, not bool"),
    "size that is a float": (bad(Bind("k", f64(1))), "the size k is float64, not int64"),
    "leave outside": (bad(loop(i, n, Leave(i > 0))), "Leave stands in no While"),
    "leave out of a kernel": (bad(While(extent(n) > 0, (kernel(i, n, Leave(i > 0)),))), "Leave stands in no While"),
    "swap of unlike shapes": (bad(Swap(A, W), buffers=[A, W]), "A: float64[n, m] and W: float64[n] are swapped"),
    "swap of unlike dtypes": (bad(Swap(A, buffer("F", "float32", n, m)), buffers=[A]), "F: float32[n, m] scratch is not listed"),
    "swap of dtypes": (bad(Swap(W, f := buffer("F", "float32", n)), buffers=[W, f]), "W: float64[n] and F: float32[n] are swapped"),
    "swap with itself": (bad(Swap(W, W)), "are swapped"),
    "swap of an input": (bad(Swap(W, V)), "the input V is written"),
    "swap of a window": (bad(Window(w := buffer("w", "float64", m, role="window"), A, i64(0)), Swap(w, w), buffers=[A]),
                         "w: float64[m] window is swapped"),
    "swap under a window": (bad(Window(line, A, i64(0)), Swap(A, B), buffers=[A, B]), "A is swapped while it has a window"),
    "swap with what has a window": (bad(Window(line, A, i64(0)), Swap(B, A), buffers=[A, B]), "A is swapped while it has a window"),
    "swap under a window of a window": (bad(Window(page, A, i64(0)), loop(i, n, Window(line, page, i), Swap(B, A)), buffers=[A, B]),
                                        "A is swapped while it has a window"),
    "swap in a turn under a window": (
        bad(Window(line, A, i64(0)), loop(i, n, Store(S, (), load(line, [i64(0)])), Swap(A, B)), buffers=[A, B, S]),
        "A is swapped while it has a window"),
    "swap in a branch under a window": (bad(Window(line, A, i64(0)), If(extent(n) > 1, (), (Swap(A, B),)),
                                            Store(S, (), load(line, [i64(0)])), buffers=[A, B, S]), "A is swapped while it has a window"),
    "product of a vector": (bad(Product(C, A, W, False, False, "p"), buffers=[A, C, W]),
                            "the matrices are not of rank 2 and one float dtype"),
    "product of integers": (bad(Product(*(ints := [buffer(x, "int64", n, n) for x in "abc"]), False, False, "p"), buffers=ints),
                            "the matrices are not of rank 2 and one float dtype"),
    "product in place": (bad(Product(A, A, B, True, False, "p"), buffers=[A, B]), "A is an operand too"),
    "product of unlike lengths": (bad(Product(C, SQUARE, SQUARE, False, False, "p"), buffers=[C, SQUARE]),
                                  "the shapes do not agree"),
}


@pytest.mark.parametrize("name", WRONG)
def test_verify_refuses(name):
    wrong, message = WRONG[name]
    with pytest.raises(AssertionError) as caught:
        verify(wrong)
    assert message in str(caught.value)


def test_swaps_between_blocks_that_have_windows():
    """A window ends with its block, and one of another array is no matter."""
    read = (Window(line, A, i64(0)), Store(S, (), load(line, [i64(0)])))
    verify(bad(loop(i, n, If(extent(n) > 1, read), Swap(A, B), If(extent(n) > 2, read), Window(page, C, i64(0)), Swap(A, B)),
               buffers=[A, B, C, S]))


def test_names_may_be_used_again_in_other_blocks():
    again = [kernel(i, n, Let("z", x), Store(Y, (i,), z), name=f"k{place}") for place in range(2)]
    windows = [loop(i, n, Window(line, X, i), Store(S, (), load(line, [i64(0)]))) for _ in range(2)]
    verify(bad(*again, *windows, If(extent(n) > 0, (Let("z", i64(1)),), (Let("z", f64(1)),))))


# ---------------------------------------------------------------- interpreter
def execute(runs, check):
    return lambda p, arrays, scalars, sizes: interpret(p, arrays, scalars, sizes, runs=runs, check=check)


@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("name", BY_NAME)
def test_interpreter_agrees(name, runs):
    for seed, sizes in enumerate(BY_NAME[name].sizes):
        agrees(BY_NAME[name], sizes, execute(runs, check=True), seed)


@pytest.mark.parametrize("name", BY_NAME)
def test_unchecked_interpreter_agrees(name):
    for seed, sizes in enumerate(BY_NAME[name].sizes):
        agrees(BY_NAME[name], sizes, execute(2, check=False), seed)


@pytest.mark.parametrize("name", ["sum_of_float32", "linear_regression", "sum_in_blocks", "several_totals", "descent_by_batches",
                                  "products_float64"])
def test_long_programs_agree(name):
    agrees(BY_NAME[name], {**BY_NAME[name].large, "n": min(BY_NAME[name].large["n"], 5000)}, execute(4, check=False))


def test_expected_results_can_be_missed():
    """A wrong program does not agree: what `agrees` compares is what was computed."""
    case = BY_NAME["map_vector"]
    with pytest.raises(AssertionError, match="map_vector"):
        agrees(case, {"n": 3}, lambda *_: False)
    with pytest.raises(AssertionError, match="fault flag"):
        agrees(case, {"n": 3}, lambda *_: True)


def arrays(size=4):
    return {"X": np.ones((size, 3)), "V": np.arange(float(size)), "U": np.arange(size), "Y": np.zeros(size), "W": np.zeros(size)}

def run(*body, check=True, runs=1, buffers=(X, V, U, Y, W, S), size=4):
    """The arrays after the statements have run."""
    made = arrays(size)
    passed = {b.name: made[b.name] for b in buffers if b.role != "scratch"}
    interpret(bad(*body, buffers=buffers), passed, {}, {"n": size, "m": 3, "rows of a batch": 2}, check=check, runs=runs)
    return made


OUTSIDE = {
    "load": (kernel(i, n, Store(Y, (i,), load(V, [i + 1]))), r"V\[4\] is outside \[4\] in `Y\[i\] = V\[i \+ 1\]`"),
    "load below 0": (kernel(i, n, Store(Y, (i,), load(V, [i - 1]))), r"V\[-1\] is outside \[4\]"),
    "second axis": (kernel(i, n, Store(Y, (i,), load(X, [i64(0), i]))), r"X\[0, 3\] is outside \[4, 3\]"),
    "store": (Store(Y, (extent(n),), f64(0)), r"Y\[4\] is outside \[4\] in `Y\[n\] = 0.0`"),
    "combine": (Combine(load(Y, [i64(-1)]), "add", f64(0)), r"Y\[-1\] is outside \[4\]"),
    "arm not taken": (Store(S, (), select(extent(n) > 0, f64(0), load(V, [extent(n)]))), r"V\[4\] is outside"),
    "window": (loop(t, n, Window(wb, V, t)), r"wb\[2\] from 3 on sticks out of V\[4\]"),
    "window below 0": (Window(wb, V, i64(-1)), r"wb\[2\] from -1 on sticks out of V\[4\]"),
    "row": (Window(line, X, extent(n)), r"line\[3\] from 4 on sticks out of X\[4, 3\]"),
    "element of a window": (loop(t, i64(2), Window(wb, V, t), Store(S, (), load(wb, [t + 1]))), r"wb\[2\] is outside \[2\]"),
    "window of other columns": (Window(buffer("f", "float64", 2, n, role="window"), X, i64(0)),
                                r"f\[2, 4\] from 0 on sticks out of X\[4, 3\]"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_index_outside_its_axis(name):
    statement, message = OUTSIDE[name]
    with pytest.raises(IndexError, match=message):
        run(statement)


def test_buffer_that_outgrows_its_memory():
    scratch = buffer("R", "float64", rows)
    with pytest.raises(IndexError, match=r"R\[3\] does not fit the 2 elements"):
        run(Bind("rows of a batch", i64(3)), Store(scratch, (i64(2),), f64(0)), buffers=(V, scratch))


MEETING = {
    "one element written by all": (kernel(i, n, Store(S, (), x)), "iterations 0 and 1 write S[]"),
    "neighbour read after it is written": (kernel(i, n, Store(W, (i,), load(W, [apply("maximum", i - 1, i64(0))]))),
                                           "iteration 1 reads what 0 writes: W[0]"),
    "neighbour read before it is written": (kernel(i, n, Store(W, (i,), load(W, [apply("minimum", i + 1, i64(3))]))),
                                            "iteration 1 writes what another one reads: W[1]"),
    "read by several, then written": (kernel(i, n, If(i < 3, (Store(Y, (i,), load(W, [i64(3)])),), (Store(W, (i,), f64(0)),))),
                                      "iteration 3 writes what another one reads: W[3]"),
    "combined into one element": (kernel(i, n, Combine(load(S), "add", x)), "iteration 1 reads what 0 writes: S[]"),
    "scattered": (kernel(i, n, Store(Y, (apply("irem", i, i64(2 + 1)),), x)), "iterations 0 and 3 write Y[0]"),
    "through a window": (kernel(i, i64(3), Window(wb, Y, i), Store(wb, (i64(0),), x), Store(wb, (i64(1),), x)),
                         "iterations 0 and 1 write wb[0]"),
    "through a window and not": (kernel(i, i64(3), Window(wb, Y, i), Store(wb, (i64(0),), x), Store(S, (), load(Y, [i + 1]))),
                                 "iteration 1 writes what another one reads: wb[0]"),
}


@pytest.mark.parametrize("runs", [1, 4])
@pytest.mark.parametrize("name", MEETING)
def test_iterations_that_meet(name, runs):
    statement, message = MEETING[name]
    with pytest.raises(Race) as caught:
        run(statement, runs=runs)
    assert message in str(caught.value)
    run(statement, check=False)


def test_iterations_that_do_not_meet():
    """The same element within one iteration, in one kernel after another, in turns of a loop, read by all, in a total."""
    made = run(kernel(i, n, Store(W, (i,), x), Combine(load(W, [i]), "add", load(W, [i]))),
               loop(t, i64(2), kernel(i, i64(1), Store(S, (), load(W, [t + 2])), name="k1")),
               kernel(i, n, Store(Y, (i,), load(S) + load(W, [i])), name="k2"))
    assert made["Y"].tolist() == [6, 8, 10, 12]


@pytest.mark.parametrize("dtype", NUMPY)
def test_scratch_begins_poisoned(dtype):
    made, out, back = buffer("made", dtype, 2), result("out", dtype), result("back", dtype, n)
    private = buffer("private", dtype, role="private")
    p = bad(Store(out, (), load(made, [i64(1)])), kernel(i, n, Store(back, (i,), load(private)), Store(private, (), const(0, dtype))),
            buffers=[out, back, made])
    got = {"out": np.zeros((), NUMPY[dtype]), "back": np.zeros(3, NUMPY[dtype])}
    interpret(p, got, {}, {"n": 3})
    for array in got.values():
        np.testing.assert_array_equal(array, np.full(array.shape, POISON[dtype], NUMPY[dtype]))


UNSAFE = {
    "division by 0": (apply("idiv", i64(1), i), r"idiv\(1, 0\)"),
    "remainder of 0": (apply("irem", i64(1), i), r"irem\(1, 0\)"),
    "division by -1": (apply("idiv", i64(1), i - 1), r"idiv\(1, -1\)"),
    "shift too far": (i64(1) << (i + 64), r"shl\(1, 64\)"),
    "shift below 0": (i64(1) >> (i - 1), r"ashr\(1, -1\)"),
    "int32 shift": ((const(1, "int32") << (i + 32).to("int32")).to("int64"), r"shl\(1, 32\)"),
    "nan as an integer": ((x / x).to("int64"), "nan does not fit int64"),
    "infinity as an integer": ((f64(1) / x).to("int32").to("int64"), "inf does not fit int32"),
    "too large": ((x + 2.0**63).to("int64"), r"9.22\d*e\+18 does not fit int64"),
    "just too large": ((x - 2.0**31 - 1).to("int32").to("int64"), r"-2147483649.0 does not fit int32"),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_operands_outside_the_domain(name):
    value, message = UNSAFE[name]
    with pytest.raises(Unsafe, match=message):
        run(kernel(i, n, Store(Y, (i,), value.to("float64"))))


def test_operands_at_the_edge_of_the_domain():
    made = run(Store(Y, (i64(0),), (load(V, [i64(0)]) - 2147483648.9).to("int32").to("float64")),
               Store(Y, (i64(1),), (load(V, [i64(1)]) * -(2.0**63)).to("int64").to("float64")))
    assert made["Y"][:2].tolist() == [-(2.0**31), -(2.0**63)]


def test_runs_begin_at_the_unit():
    """With a unit that is none, each of the runs adds it: so a run does start from it."""
    total = result("T", "float64")
    p = bad(kernel(i, n, Combine(load(total), "add", f64(1)), totals=[Total(total, "add", f64(100))]), buffers=[total])
    for runs in (1, 2, 5):
        got = np.zeros(())
        interpret(p, {"T": got}, {}, {"n": 4}, runs=runs)
        assert got == 4 + 100 * runs


def test_arguments_are_checked():
    p = bad(kernel(i, n, Store(Y, (i,), x)), buffers=[V, Y])
    for wrong in ({"V": np.ones(3)}, {"V": np.ones(4, "f4")}, {"V": np.ones(8)[::2]}):
        with pytest.raises(TypeError, match="V is float64"):
            interpret(p, {**arrays(), **wrong}, {}, {"n": 4})


def test_another_executor_runs_the_kernels():
    """A subclass sees values, sizes (bound ones too) and arrays (windows too), and its results count."""
    seen = []

    class Elsewhere(Interpreter):
        def run_kernel(self, kernel, scope):
            seen.append((kernel.name, scope.count, scope.length(rows), scope.values["start"].item(), scope.array(wb).tolist()))
            out, = (scope.array(b) for b in scope.views if b.role == "output")
            out[:] += scope.array(wb).sum() + sum(scope.units.values())

        def run_product(self, product, scope):
            scope.array(product.out)[:] = scope.values["start"] + 7

    start, count = ref("start"), buffer("count", "float64")
    made = [result("O", "float64", 1), state("M", "float64", 2, 2), given("N", "float64", 2, 2)]
    body = loop(t, i64(2), Let("start", t * 3), Bind("rows of a batch", apply("minimum", i64(3), extent(n) - start)), Window(wb, V, start),
                kernel(i, rows, totals=[Total(count, "add", f64(0.5))], name="sum"), Product(made[1], made[2], made[2], False, False, "p"))
    given_arrays = {"V": np.arange(5.0), "O": np.zeros(1), "M": np.zeros((2, 2)), "N": np.zeros((2, 2))}
    assert not Elsewhere(bad(body, buffers=[V, *made, count]), given_arrays, {}, {"n": 5, "rows of a batch": 0}).run()
    assert seen == [("sum", 3, 3, 0, [0.0, 1.0, 2.0]), ("sum", 2, 2, 3, [3.0, 4.0])]
    assert given_arrays["O"] == 11 and (given_arrays["M"] == 10).all()


@pytest.mark.parametrize("dtype, function", [("float32", fma32), ("float64", fma64)])
def test_scalar_fma(dtype, function):
    """As the table's, at random, where it cancels, at ties and at the ends of the range."""
    rng, real = np.random.default_rng(3), NUMPY[dtype]
    info, count = np.finfo(real), 6000
    with np.errstate(all="ignore"):
        a, b, c = (np.ldexp(rng.normal(size=count), rng.integers(-30, 30, size=count)).astype(real) for _ in range(3))
        a = np.where(rng.random(count) < 0.3, rng.integers(-4096, 4096, size=count).astype(real), a)
        near = (-(a * b) * (1 + rng.integers(-3, 4, size=count) * info.eps / 2)).astype(real)
        c = np.where(rng.random(count) < 0.6, near, c)
        edges = [0.0, -0.0, np.inf, -np.inf, np.nan, info.max, -info.max, info.tiny, info.smallest_subnormal, 1, -1 - info.eps]
        edges = np.array(edges, real)
        a, b, c = (np.where(rng.random(count) < 0.2, rng.choice(edges, size=count), v) for v in (a, b, c))
        want, got = TABLE["fma"].numpy(a, b, c), np.array([function(*v) for v in zip(a, b, c, strict=True)])
    assert got.dtype == real
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.signbit(got) & ~np.isnan(got), np.signbit(want) & ~np.isnan(want))


def test_scalar_extremes():
    for dtype, values in (("float64", [0.0, -0.0, 1.0, -2.5, np.inf, -np.inf, np.nan]), ("int32", [0, 1, -5, 2**31 - 1, -2**31])):
        for a, b in product(map(NUMPY[dtype], values), repeat=2):
            for function, op in ((low, "minimum"), (high, "maximum")):
                with np.errstate(all="ignore"):
                    want, got = TABLE[op].numpy(a, b), function(a, b)
                assert got.dtype == want.dtype
                assert (np.isnan(want) and np.isnan(got)) or (got == want and np.signbit(got) == np.signbit(want)), (op, a, b)


def test_interpreter_is_quick_enough():
    """A kernel of 500 iterations with 30 instructions, compiled and checked, takes some 10 milliseconds."""
    e = x
    for step in range(15):
        e = e * 0.5 + float(step)
    p = bad(kernel(i, n, Store(Y, (i,), e)), buffers=[V, Y])
    begin = time.perf_counter()
    interpret(p, {"V": np.ones(500), "Y": np.zeros(500)}, {}, {"n": 500})
    assert time.perf_counter() - begin < 1

