"""Hand-made loop programs with random inputs and what NumPy says they give, for every executor of the loop IR.

    for case in CASES:
        for sizes in case.sizes:                       # small; case.large, if any, is long enough to be cut into runs
            agrees(case, sizes, execute)               # execute(program, arrays, scalars, sizes) -> whether a fault was flagged

`execute` writes the arrays in place.  A result named in `tolerance` may differ by that part of the largest magnitude (or of 1);
all others agree in every bit (any nan is as good as another).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from dsl.ir.types import Dim, Size, derived
from dsl.loops.ir import (
    FAULT,
    Assign,
    Bind,
    Combine,
    Flag,
    If,
    Kernel,
    Leave,
    Let,
    Local,
    Loop,
    Product,
    Program,
    Store,
    Swap,
    Total,
    While,
    Window,
)
from dsl.machine.expr import (
    Buffer,
    apply,
    const,
    extent,
    fma,
    load,
    lshr,
    maximum,
    minimum,
    ref,
    select,
)

n, m, d, k, rows = (Dim.of(Size(name)) for name in ("n", "m", "d", "k", "rows of a batch"))
i, j, p, q, t = (ref(name) for name in "ijpqt")
ONE = Dim.of(1)
NUMPY = {"bool": np.bool_, "int32": np.int32, "int64": np.int64, "float32": np.float32, "float64": np.float64}


@dataclass(frozen=True)
class Case:
    """`make(sizes, rng)` gives arrays (all passed buffers, by name) and scalars; `expected(arrays, scalars, sizes)` the arrays
    that are written, from those before the run; `flagged`, of the same, whether a fault is met."""

    name: str
    program: Program
    make: Callable
    expected: Callable
    sizes: tuple[dict[str, int], ...]
    large: dict[str, int] | None = None
    tolerance: dict[str, float] = field(default_factory=dict)
    flagged: Callable = lambda arrays, scalars, sizes: False


CASES: list[Case] = []


def case(*sizes, large=None, **tolerance):
    """The function gives program, make, expected and perhaps flagged; `tolerance` is by the name of the result."""
    def add(function):
        program, *parts = function()
        CASES.append(Case(function.__name__, program, *parts[:2], sizes or ({},), large, tolerance, *parts[2:]))
        return function
    return add


def agrees(case: Case, sizes: dict[str, int], execute: Callable, seed: int = 0) -> None:
    """Run a case and compare with what is expected, fault flag and inputs (unchanged) included."""
    arrays, scalars = case.make(sizes, np.random.default_rng(seed))
    before = {name: array.copy() for name, array in arrays.items()}
    with np.errstate(all="ignore"):
        expected = case.expected({name: array.copy() for name, array in before.items()}, scalars, sizes)
        flagged = case.flagged(before, scalars, sizes)
    assert execute(case.program, arrays, scalars, sizes) == flagged, f"{case.name}: the fault flag is not {flagged}"
    for buffer in case.program.passed:
        want = np.asarray(expected.get(buffer.name, before[buffer.name]))
        assert buffer.name in expected or buffer.role == "input", f"{case.name} says nothing about {buffer.name}"
        compare(f"{case.name}, {sizes}: {buffer.name}", arrays[buffer.name], want, case.tolerance.get(buffer.name, 0.0))


def compare(what: str, got: np.ndarray, want: np.ndarray, tolerance: float) -> None:
    assert got.dtype == want.dtype and got.shape == want.shape, f"{what} is {got.dtype}{got.shape}, not {want.dtype}{want.shape}"
    if tolerance:
        finite = np.abs(want[np.isfinite(want)]).max(initial=1.0)
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * finite, err_msg=what)
    else:
        np.testing.assert_array_equal(got, want, err_msg=what)
        if got.dtype.kind == "f":
            np.testing.assert_array_equal(np.signbit(got) & ~np.isnan(got), np.signbit(want) & ~np.isnan(want), err_msg=f"{what}: signs")


# ---------------------------------------------------------------- short forms
def f64(value):
    return const(value, "float64")


def f32(value):
    return const(value, "float32")


def i64(value):
    return const(value, "int64")


def buffer(name, dtype, *shape, role="scratch"):
    return Buffer(name, dtype, tuple(Dim.of(s) for s in shape), role)


def given(name, dtype, *shape):
    return buffer(name, dtype, *shape, role="input")


def result(name, dtype, *shape):
    return buffer(name, dtype, *shape, role="output")


def state(name, dtype, *shape):
    return buffer(name, dtype, *shape, role="state")


def kernel(index, length, *body, totals=(), name="k0", work=8):
    return Kernel(name, index.name, length if not isinstance(length, Dim) else extent(length), tuple(body), tuple(totals), Dim.of(work))


def loop(index, length, *body):
    return Loop(index.name, length if not isinstance(length, Dim) else extent(length), tuple(body))


def program(name, buffers, *body, scalars=()):
    return Program(name, tuple(buffers), tuple(scalars), tuple(body))


def exp(x):
    """e to a moderate float64: 2**q times a Taylor polynomial of the rest, which is at most ln(2) / 2."""
    whole = apply("rint", x * 1.4426950408889634)
    rest = fma(whole, -2.3190468138462996e-17, fma(whole, -0.6931471805599453, x))          # ln 2 in two parts
    value, factor = f64(1.0), 1.0
    terms = [1.0]
    for power in range(1, 14):
        factor /= power
        terms.append(factor)
    value = f64(terms[-1])
    for term in reversed(terms[:-1]):
        value = fma(value, rest, term)
    return value * ((whole.to("int64") + 1023) << 52).bits_as("float64")


def outputs(sizes, **shapes):
    """Arrays full of what must not survive."""
    return {name: np.full(shape, 77, dtype) for name, (dtype, *shape) in shapes.items()}


SMALL = ({"n": 0}, {"n": 1}, {"n": 2}, {"n": 37})
MATRIX = ({"n": 0, "m": 3}, {"n": 3, "m": 0}, {"n": 1, "m": 1}, {"n": 5, "m": 1}, {"n": 1, "m": 7}, {"n": 13, "m": 17})
LONG, WIDE = {"n": 100003}, {"n": 5003, "m": 21}


# ---------------------------------------------------------------- maps
@case(*SMALL, large=LONG)
def map_vector():
    x, y = given("x", "float64", n), result("y", "float64", n)
    body = kernel(i, n, Store(y, (i,), load(x, [i]) * 2.0 + 1.0))
    return program("map_vector", [x, y], body), \
        lambda s, rng: ({"x": rng.normal(size=s["n"]), **outputs(s, y=("f8", s["n"]))}, {}), \
        lambda a, c, s: {"y": a["x"] * 2 + 1}


@case(*MATRIX, large=WIDE)
def map_matrix():
    x, r, c, y = given("x", "float32", n, m), given("r", "float32", m), given("c", "float32", n, 1), result("y", "float32", n, m)
    body = kernel(i, n, loop(j, m, Store(y, (i, j), load(x, [i, j]) * load(r, [j]) + load(c, [i, i64(0)]))))

    def make(s, rng):
        N, M = s["n"], s["m"]
        floats = {"x": (N, M), "r": (M,), "c": (N, 1)}
        return {name: rng.normal(size=shape).astype("f4") for name, shape in floats.items()} | outputs(s, y=("f4", N, M)), {}

    return program("map_matrix", [x, r, c, y], body), make, lambda a, c, s: {"y": a["x"] * a["r"] + a["c"]}


@case({"n": 2, "m": 3, "d": 4}, {"n": 5, "m": 1, "d": 2}, {"n": 0, "m": 2, "d": 2}, large={"n": 300, "m": 31, "d": 17})
def permuted_axes():
    """y[q, i, j] = x[i, j, q], with a polynomial of sizes as an extent."""
    x, y, flat = given("x", "int32", n, m, d), result("y", "int32", d, n, m), result("flat", "int32", n * m * d + 1)
    one = kernel(i, n, loop(j, m, loop(q, d, Store(y, (q, i, j), load(x, [i, j, q])))))
    two = kernel(p, n * m * d, Store(flat, (p + 1,), load(x, [
        apply("idiv", p, maximum(extent(m * d), 1)), apply("irem", apply("idiv", p, maximum(extent(d), 1)), maximum(extent(m), 1)),
        apply("irem", p, maximum(extent(d), 1))])), name="k1")
    first = Store(flat, (i64(0),), const(5, "int32"))
    # idiv takes no divisor -1 and no 0; 1 is fine

    def make(s, rng):
        N, M, D = s["n"], s["m"], s["d"]
        return {"x": rng.integers(-99, 99, size=(N, M, D)).astype("i4"), **outputs(s, y=("i4", D, N, M), flat=("i4", N * M * D + 1))}, {}

    return program("permuted_axes", [x, y, flat], one, first, two), make, \
        lambda a, c, s: {"y": a["x"].transpose(2, 0, 1), "flat": np.concatenate([[5], a["x"].ravel()]).astype("i4")}


@case(*SMALL, large=LONG)
def update_in_place():
    w, g, rate = state("w", "float32", n), given("g", "float32", n), ref("rate", "float32")
    body = kernel(i, n, Store(w, (i,), load(w, [i]) - rate * load(g, [i])))
    return program("update_in_place", [w, g], body, scalars=[rate]), \
        lambda s, rng: ({x: rng.normal(size=s["n"]).astype("f4") for x in "wg"}, {"rate": np.float32(0.1)}), \
        lambda a, c, s: {"w": a["w"] - c["rate"] * a["g"]}


@case(*SMALL, large=LONG)
def add_to_elements():
    """Combine into elements that are no totals."""
    w, x = state("w", "float64", n), given("x", "float64", n)
    body = kernel(i, n, Combine(load(w, [i]), "add", load(x, [i])), Combine(load(w, [i]), "maximum", f64(0.0)))
    return program("add_to_elements", [w, x], body), \
        lambda s, rng: ({"w": rng.normal(size=s["n"]), "x": rng.normal(size=s["n"])}, {}), \
        lambda a, c, s: {"w": np.maximum(a["w"] + a["x"], 0)}


# ---------------------------------------------------------------- reductions
@case(*SMALL, large=LONG, y=1e-6)
def sum_of_float32():
    x, y, total = given("x", "float32", n), result("y", "float32"), buffer("total", "float64")
    body = kernel(i, n, Combine(load(total), "add", load(x, [i]).to("float64")), totals=[Total(total, "add", f64(0.0))])
    return program("sum_of_float32", [x, y, total], body, Store(y, (), load(total).to("float32"))), \
        lambda s, rng: ({"x": rng.normal(size=s["n"]).astype("f4") + np.float32(3), **outputs(s, y=("f4",))}, {}), \
        lambda a, c, s: {"y": np.array(a["x"].sum(dtype="f8"), "f4")}


@case(*SMALL, large=LONG, y=1e-6)
def sum_in_blocks():
    """Float32 sums of 64 elements each, added up in float64."""
    x, y, total = given("x", "float32", n), result("y", "float64"), buffer("total", "float64")
    part, base = ref("part", "float32"), ref("base")
    body = kernel(i, derived("floordiv", n + 63, 64), Local("part", "float32", f32(0)), Let("base", i * 64),
                  loop(j, minimum(i64(64), extent(n) - base), Combine(part, "add", load(x, [base + j]))),
                  Combine(load(total), "add", part.to("float64")), totals=[Total(total, "add", f64(0.0))])
    return program("sum_in_blocks", [x, y, total], body, Store(y, (), load(total))), \
        lambda s, rng: ({"x": rng.normal(size=s["n"]).astype("f4"), **outputs(s, y=("f8",))}, {}), \
        lambda a, c, s: {"y": np.array(a["x"].sum(dtype="f8"))}


@case(*MATRIX, large=WIDE, y=1e-13)
def sum_of_rows():
    x, y, z = given("x", "float64", n, m), result("y", "float64", n), ref("z", "float64")
    body = kernel(i, n, Local("z", "float64", f64(0)), loop(j, m, Combine(z, "add", load(x, [i, j]))), Store(y, (i,), z))
    return program("sum_of_rows", [x, y], body), \
        lambda s, rng: ({"x": rng.normal(size=(s["n"], s["m"])), **outputs(s, y=("f8", s["n"]))}, {}), \
        lambda a, c, s: {"y": a["x"].sum(1)}


@case(*MATRIX, large=WIDE, y=1e-12)
def sum_of_columns():
    """A total of rank 1, in an output."""
    x, y = given("x", "float64", n, m), result("y", "float64", m)
    body = kernel(i, n, loop(j, m, Combine(load(y, [j]), "add", load(x, [i, j]))), totals=[Total(y, "add", f64(0))])
    return program("sum_of_columns", [x, y], body), \
        lambda s, rng: ({"x": rng.normal(size=(s["n"], s["m"])), **outputs(s, y=("f8", s["m"]))}, {}), \
        lambda a, c, s: {"y": a["x"].sum(0)}


@case(*MATRIX, large={"n": 3001, "m": 500})
def extremes_of_columns():
    """Two totals of rank 1, of integers, of which each iteration meets only some elements."""
    x, low, high = given("x", "int64", n, m), result("low", "int64", m), result("high", "int32", m)
    v = load(x, [i, j])
    body = kernel(i, n, loop(j, m, If(v > 0, (Combine(load(low, [j]), "minimum", v),)), Combine(load(high, [j]), "maximum", v.to("int32"))),
                  totals=[Total(low, "minimum", i64(2**63 - 1)), Total(high, "maximum", const(-2**31, "int32"))])

    def expected(a, c, s):
        positive = np.where(a["x"] > 0, a["x"], 2**63 - 1)
        return {"low": positive.min(0, initial=2**63 - 1), "high": a["x"].astype("i4").max(0, initial=-2**31)}

    def make(s, rng):
        return {"x": rng.integers(-9999, 9999, size=(s["n"], s["m"])), **outputs(s, low=("i8", s["m"]), high=("i4", s["m"]))}, {}

    return program("extremes_of_columns", [x, low, high], body), make, expected


@case({"n": 0, "m": 2, "d": 3}, {"n": 1, "m": 1, "d": 1}, {"n": 19, "m": 2, "d": 3}, large={"n": 20011, "m": 3, "d": 4}, g=1e-12)
def sum_of_outer_products():
    """A total of rank 2, beside one that counts in int64."""
    x, y, g, count = given("x", "float64", n, m), given("y", "float32", n, d), result("g", "float64", m, d), result("count", "int64")
    body = kernel(i, n, loop(p, m, loop(q, d, Combine(load(g, [p, q]), "add", load(x, [i, p]) * load(y, [i, q]).to("float64")),
                                        Combine(load(count), "add", i64(1)))),
                  totals=[Total(g, "add", f64(0)), Total(count, "add", i64(0))])
    return program("sum_of_outer_products", [x, y, g, count], body), \
        lambda s, rng: ({"x": rng.normal(size=(s["n"], s["m"])), "y": rng.normal(size=(s["n"], s["d"])).astype("f4"),
                         **outputs(s, g=("f8", s["m"], s["d"]), count=("i8",))}, {}), \
        lambda a, c, s: {"g": a["x"].T @ a["y"].astype("f8"), "count": np.array(a["x"].size * s["d"])}


@case(*SMALL, large=LONG, add=1e-12, mul=1e-12)
def several_totals():
    x, u = given("x", "float64", n), given("u", "int32", n)
    kinds = {"add": ("add", "float64", 0.0), "mul": ("mul", "float64", 1.0), "low": ("minimum", "float64", np.inf),
             "high": ("maximum", "float64", -np.inf), "least": ("minimum", "int32", 2**31 - 1), "most": ("maximum", "int32", -2**31),
             "all": ("and", "bool", True), "any": ("or", "bool", False), "bits": ("or", "int32", 0), "common": ("and", "int32", -1)}
    made = {name: result(name, dtype) for name, (_, dtype, _) in kinds.items()}
    v, w = load(x, [i]), load(u, [i])
    values = {"add": v, "mul": fma(v, 1e-5, 1.0), "low": v, "high": v, "least": w, "most": w, "all": v < 3.0, "any": v > 3.0,
              "bits": w, "common": w | 5}
    body = kernel(i, n, *(Combine(load(made[name]), kinds[name][0], value) for name, value in values.items()),
                  totals=[Total(made[name], op, const(unit, dtype)) for name, (op, dtype, unit) in kinds.items()])

    def expected(a, c, s):
        X, U = a["x"], a["u"]
        return {"add": X.sum(), "mul": np.prod(X * 1e-5 + 1), "low": X.min(initial=np.inf), "high": X.max(initial=-np.inf),
                "least": U.min(initial=2**31 - 1), "most": U.max(initial=-2**31), "all": (X < 3).all(), "any": (X > 3).any(),
                "bits": np.bitwise_or.reduce(U), "common": np.bitwise_and.reduce(U | np.int32(5))}

    return program("several_totals", [x, u, *made.values()], body), \
        lambda s, rng: ({"x": rng.normal(size=s["n"]), "u": rng.integers(-1000, 1000, size=s["n"]).astype("i4"),
                         **{name: np.array(1, NUMPY[dtype]) for name, (_, dtype, _) in kinds.items()}}, {}), expected


@case({"n": 1}, {"n": 37}, large=LONG)
def extremes_of_nan():
    x, low, high = given("x", "float32", n), result("low", "float32"), result("high", "float32")
    body = kernel(i, n, Combine(load(low), "minimum", load(x, [i])), Combine(load(high), "maximum", load(x, [i])),
                  totals=[Total(low, "minimum", f32(np.inf)), Total(high, "maximum", f32(-np.inf))])

    def make(s, rng):
        x = rng.normal(size=s["n"]).astype("f4")
        x[s["n"] // 2] = np.nan
        return {"x": x, **outputs(s, low=("f4",), high=("f4",))}, {}

    return program("extremes_of_nan", [x, low, high], body), make, lambda a, c, s: {"low": a["x"].min(), "high": a["x"].max()}


@case({"n": 2}, {"n": 50}, large=LONG)
def extremes_of_zeros():
    """-0 lies below +0."""
    x, low, high = given("x", "float64", n), result("low", "float64"), result("high", "float64")
    body = kernel(i, n, Combine(load(low), "minimum", load(x, [i])), Combine(load(high), "maximum", load(x, [i])),
                  totals=[Total(low, "minimum", f64(np.inf)), Total(high, "maximum", f64(-np.inf))])
    return program("extremes_of_zeros", [x, low, high], body), \
        lambda s, rng: ({"x": np.where(np.arange(s["n"]) % 2 == 0, 0.0, -0.0), **outputs(s, low=("f8",), high=("f8",))}, {}), \
        lambda a, c, s: {"low": np.array(-0.0), "high": np.array(0.0)}


@case({"n": 0, "m": 3}, {"n": 1, "m": 1}, {"n": 13, "m": 17}, large=WIDE)
def argmax_of_rows():
    x, y, best, at = given("x", "float64", n, m), result("y", "int64", n), ref("best", "float64"), ref("at")
    body = kernel(i, n, Local("best", "float64", load(x, [i, i64(0)])), Local("at", "int64", i64(0)),
                  loop(j, m, If(load(x, [i, j]) > best, (Assign("best", load(x, [i, j])), Assign("at", j)))), Store(y, (i,), at))
    return program("argmax_of_rows", [x, y], body), \
        lambda s, rng: ({"x": rng.integers(0, 9, size=(s["n"], s["m"])).astype("f8"), **outputs(s, y=("i8", s["n"]))}, {}), \
        lambda a, c, s: {"y": a["x"].argmax(1)}


@case({"n": 0, "m": 2}, {"n": 1, "m": 1}, {"n": 7, "m": 9}, large={"n": 3001, "m": 21}, y=1e-13)
def softmax_of_rows():
    x, y, e = given("x", "float64", n, m), result("y", "float64", n, m), buffer("e", "float64", m, role="private")
    high, total = ref("high", "float64"), ref("total", "float64")
    body = kernel(i, n, Local("high", "float64", f64(-np.inf)), loop(j, m, Combine(high, "maximum", load(x, [i, j]))),
                  Local("total", "float64", f64(0)),
                  loop(j, m, Store(e, (j,), exp(load(x, [i, j]) - high)), Combine(total, "add", load(e, [j]))),
                  loop(j, m, Store(y, (i, j), load(e, [j]) / total)), work=40)

    def expected(a, c, s):
        e = np.exp(a["x"] - a["x"].max(1, keepdims=True))
        return {"y": e / e.sum(1, keepdims=True)}

    return program("softmax_of_rows", [x, y], body), \
        lambda s, rng: ({"x": rng.normal(size=(s["n"], s["m"])) * 5, **outputs(s, y=("f8", s["n"], s["m"]))}, {}), expected


@case({"n": 0, "d": 2}, {"n": 3, "d": 0}, {"n": 1, "d": 1}, {"n": 23, "d": 5}, large={"n": 20011, "d": 8}, r=1e-13, g=1e-11, cost=1e-12)
def linear_regression():
    """A product of a matrix with a vector and its transpose with the result, in one pass."""
    x, w, y = given("x", "float32", n, d), given("w", "float64", d), given("y", "float64", n)
    r, g, cost = result("r", "float64", n), result("g", "float64", d), result("cost", "float64")
    z, rest = ref("z", "float64"), ref("rest", "float64")
    body = kernel(i, n, Local("z", "float64", f64(0)), loop(j, d, Combine(z, "add", load(x, [i, j]).to("float64") * load(w, [j]))),
                  Let("rest", z - load(y, [i])), Store(r, (i,), rest), Combine(load(cost), "add", rest * rest),
                  loop(j, d, Combine(load(g, [j]), "add", load(x, [i, j]).to("float64") * rest)),
                  totals=[Total(g, "add", f64(0)), Total(cost, "add", f64(0))])

    def make(s, rng):
        N, D = s["n"], s["d"]
        return {"x": rng.normal(size=(N, D)).astype("f4"), "w": rng.normal(size=D), "y": rng.normal(size=N),
                **outputs(s, r=("f8", N), g=("f8", D), cost=("f8",))}, {}

    def expected(a, c, s):
        x = a["x"].astype("f8")
        r = x @ a["w"] - a["y"]
        return {"r": r, "g": x.T @ r, "cost": np.array(r @ r)}

    return program("linear_regression", [x, w, y, r, g, cost], body), make, expected


# ---------------------------------------------------------------- batches, windows, state
def _descent(w, x, y, rate, batch):
    for start in range(0, len(x), batch):
        r = x[start:start + batch] @ w - y[start:start + batch]
        w = w - rate * (x[start:start + batch].T @ r) / len(r)
    return w


def _batches(n, d, k):
    return {"n": n, "d": d, "k": k, "rows of a batch": k}


BATCHES = [_batches(*lengths) for lengths in ((0, 2, 3), (3, 1, 4), (9, 3, 3), (23, 4, 5), (7, 2, 1))]


@case(*BATCHES, large=_batches(20011, 6, 5003), w=1e-11)
def descent_by_batches():
    """One epoch of linear regression: windows of batches, a short last one, state that is swapped, an odd or even number of times."""
    x, y, w, rate = given("x", "float64", n, d), given("y", "float64", n), state("w", "float64", d), ref("rate", "float64")
    g, new, r = buffer("g", "float64", d), buffer("new", "float64", d), buffer("r", "float64", rows)
    xb, yb = buffer("xb", "float64", rows, d, role="window"), buffer("yb", "float64", rows, role="window")
    z, start = ref("z", "float64"), ref("start")
    turn = loop(t, derived("floordiv", n + k - 1, k), Let("start", t * extent(k)),
                Bind("rows of a batch", minimum(extent(k), extent(n) - start)), Window(xb, x, start), Window(yb, y, start),
                kernel(i, rows, Local("z", "float64", f64(0)), loop(j, d, Combine(z, "add", load(xb, [i, j]) * load(w, [j]))),
                       Store(r, (i,), z - load(yb, [i])), name="residual"),
                kernel(i, rows, loop(j, d, Combine(load(g, [j]), "add", load(xb, [i, j]) * load(r, [i]))), totals=[Total(g, "add", f64(0))],
                       name="gradient"),
                kernel(j, d, Store(new, (j,), load(w, [j]) - rate * load(g, [j]) / extent(rows).to("float64")), name="update"),
                Swap(w, new))

    def make(s, rng):
        return {"x": rng.normal(size=(s["n"], s["d"])), "y": rng.normal(size=s["n"]), "w": rng.normal(size=s["d"])}, {"rate": 0.1}

    made = program("descent_by_batches", [x, y, w, g, new, r], turn, scalars=[rate])
    return made, make, lambda a, c, s: {"w": _descent(a["w"], a["x"], a["y"], c["rate"], s["k"])}


@case(*BATCHES, large=_batches(20011, 6, 5003))
def ragged_scratch():
    """Scratch whose inner axis is the rows of a batch: with fewer rows its elements lie closer together."""
    x, y = given("x", "int64", n, d), result("y", "int64", n, d)
    turned, out = buffer("turned", "int64", d, rows), buffer("out", "int64", rows, d, role="window")
    start = ref("start")
    turn = loop(t, derived("floordiv", n + k - 1, k), Let("start", t * extent(k)),
                Bind("rows of a batch", minimum(extent(k), extent(n) - start)), Window(out, y, start),
                kernel(i, rows, loop(j, d, Store(turned, (j, i), load(x, [start + i, j]) + 1))),
                kernel(i, rows, loop(j, d, Store(out, (i, j), load(turned, [j, extent(rows) - 1 - i]) * extent(rows))), name="k1"))

    def expected(a, c, s):
        parts = [a["x"][start:start + s["k"]] for start in range(0, s["n"], s["k"])]
        return {"y": np.concatenate([a["x"][:0], *((part[::-1] + 1) * len(part) for part in parts)])}

    return program("ragged_scratch", [x, y, turned], turn), \
        lambda s, rng: ({"x": rng.integers(-99, 99, size=(s["n"], s["d"])), **outputs(s, y=("i8", s["n"], s["d"]))}, {}), expected


@case({"n": 0}, {"n": 1}, {"n": 10}, {"n": 11})
def swapped_scalars():
    """Fibonacci numbers: states and scratch of rank 0 that exchange their contents."""
    a, b, s = state("a", "int64"), state("b", "int64"), buffer("s", "int64")
    turn = loop(t, n, Store(s, (), load(a) + load(b)), Swap(a, b), Swap(b, s))

    def expected(arrays, c, sizes):
        a, b = arrays["a"], arrays["b"]
        for _ in range(sizes["n"]):
            a, b = b, a + b
        return {"a": a, "b": b}

    return program("swapped_scalars", [a, b, s], turn), lambda z, rng: ({"a": np.array(0), "b": np.array(1)}, {}), expected


@case({"n": 0, "m": 2}, {"n": 1, "m": 3}, {"n": 6, "m": 5}, {"n": 7, "m": 1}, {"n": 8, "m": 40}, large={"n": 40, "m": 3001})
def swapped_states():
    """Two states, and scratch, exchange their contents n times: left and right move on by one row each."""
    x, a, b, s = given("x", "int64", n, m), state("a", "int64", m), state("b", "int64", m), buffer("s", "int64", m)
    row = buffer("row", "int64", m, role="window")
    turn = loop(t, n, Window(row, x, t), kernel(j, m, Store(s, (j,), load(row, [j]) - load(a, [j]) * 3)), Swap(a, b), Swap(b, s))

    def expected(arrays, c, sizes):
        a, b = arrays["a"], arrays["b"]
        for row in arrays["x"]:
            a, b = b, row - a * 3
        return {"a": a, "b": b}

    return program("swapped_states", [x, a, b, s], turn), \
        lambda z, rng: ({"x": rng.integers(-9, 9, size=(z["n"], z["m"])), "a": rng.integers(-9, 9, size=z["m"]),
                         "b": rng.integers(-9, 9, size=z["m"])}, {}), expected


@case({"n": 0, "d": 40}, {"n": 1, "d": 3}, {"n": 2, "d": 64}, {"n": 5, "d": 40}, w=1e-12, last=1e-12)
def swapped_totals():
    """Totals, an array and a scalar, that change places with others as soon as they are added up."""
    x, w, g = given("x", "float64", n, d), state("w", "float64", d), buffer("g", "float64", d)
    last, s, r = result("last", "float64"), buffer("s", "float64"), buffer("r", "float64")
    body = [Store(r, (), f64(0)),
            loop(t, n,
                 kernel(i, n, loop(j, d, Combine(load(g, [j]), "add", load(x, [i, j]) * load(w, [j]))), totals=[Total(g, "add", f64(0))]),
                 Swap(w, g),
                 kernel(i, n, Combine(load(s), "add", load(x, [i, i64(0)]) + load(r)), totals=[Total(s, "add", f64(0))], name="k1"),
                 Swap(s, r)),
            Store(last, (), load(r))]

    def expected(arrays, c, sizes):
        w, r = arrays["w"], 0.0
        for _ in arrays["x"]:
            w, r = (arrays["x"] * w).sum(axis=0), (arrays["x"][:, 0] + r).sum()
        return {"w": w, "last": np.array(float(r))}

    return program("swapped_totals", [x, w, last, g, s, r], *body), \
        lambda z, rng: ({"x": rng.normal(size=(z["n"], z["d"])), "w": rng.normal(size=z["d"]), **outputs(z, last=("f8",))}, {}), expected


@case({"n": 0, "m": 2, "d": 2}, {"n": 1, "m": 1, "d": 1}, {"n": 4, "m": 3, "d": 5}, large={"n": 3000, "m": 3, "d": 5})
def windows_of_windows():
    """In a kernel, a row of rank 2 of a cube, and rows of rank 1 of that, read and written."""
    x, y = given("x", "float64", n, m, d), result("y", "float64", n, m, d)
    page, line, out, spot = (buffer(name, "float64", *shape, role="window") for name, shape in
                             (("page", (m, d)), ("line", (d,)), ("out", (m, d)), ("spot", ())))
    body = kernel(i, n, Window(page, x, i), Window(out, y, i),
                  loop(j, m, Window(line, page, extent(m) - 1 - j),
                       loop(q, d, Window(spot, line, q), Store(out, (j, q), load(spot) + load(line, [i64(0)])))))
    return program("windows_of_windows", [x, y], body), \
        lambda s, rng: ({"x": rng.normal(size=tuple(s[a] for a in "nmd")), **outputs(s, y=("f8", *(s[a] for a in "nmd")))}, {}), \
        lambda a, c, s: {"y": a["x"][:, ::-1] + a["x"][:, ::-1, :1]}


@case({"n": 0}, {"n": 1}, {"n": 5}, {"n": 12})
def total_of_each_turn():
    """A kernel in a serial loop: its total begins at the unit each time.  y[t] = sum of x[:t], by a kernel of t iterations."""
    x, y, total = given("x", "int64", n), result("y", "int64", n), buffer("total", "int64")
    turn = loop(t, n, kernel(i, t, Combine(load(total), "add", load(x, [i])), totals=[Total(total, "add", i64(0))]),
                Store(y, (t,), load(total)))
    return program("total_of_each_turn", [x, y, total], turn), \
        lambda s, rng: ({"x": rng.integers(-99, 99, size=s["n"]), **outputs(s, y=("i8", s["n"]))}, {}), \
        lambda a, c, s: {"y": np.cumsum(a["x"]) - a["x"]}


@case({"n": 6, "k": 4}, {"n": 6, "k": 0}, {"n": 6, "k": 6}, large={"n": 50000, "k": 40000})
def extent_from_data():
    """A kernel over as many elements as an input says; the others keep their value."""
    x, count, y = given("x", "float64", n), given("count", "int64"), state("y", "float64", n)
    body = kernel(i, load(count), Store(y, (i,), -load(x, [i])))
    return program("extent_from_data", [x, count, y], body), \
        lambda s, rng: ({"x": rng.normal(size=s["n"]), "count": np.array(s["k"]), "y": np.ones(s["n"])}, {}), \
        lambda a, c, s: {"y": np.where(np.arange(s["n"]) < s["k"], -a["x"], 1.0)}


# ---------------------------------------------------------------- faults, control
def _gather(name, low, high):
    u, x, y = given("u", "int64", n), given("x", "float32", m), result("y", "float32", n)
    at, bad = ref("at"), ref("bad", "bool")
    body = kernel(i, n, Let("at", load(u, [i])), Let("bad", (at < 0) | (at >= extent(m))), Flag(bad),
                  Store(y, (i,), load(x, [select(bad, i64(0), at)])))
    return program(name, [u, x, y], body), \
        lambda s, rng: ({"u": rng.integers(low, s["m"] + high, size=s["n"]), "x": rng.normal(size=s["m"]).astype("f4"),
                         **outputs(s, y=("f4", s["n"]))}, {}), \
        lambda a, c, s: {"y": a["x"][np.where((a["u"] < 0) | (a["u"] >= s["m"]), 0, a["u"])]}, \
        lambda a, c, s: bool(((a["u"] < 0) | (a["u"] >= s["m"])).any())


@case({"n": 0, "m": 1}, {"n": 1, "m": 1}, {"n": 30, "m": 4}, large={"n": 100003, "m": 100})
def gather():
    return _gather("gather", 0, 0)


@case({"n": 0, "m": 1}, {"n": 40, "m": 2}, large={"n": 100003, "m": 1000000})
def gather_with_faults():
    return _gather("gather_with_faults", -1, 1)


@case({"n": 0}, {"n": 3})
def flag_outside_kernels():
    """Size 3 is a fault, size 0 is none."""
    y = result("y", "int64")
    return program("flag_outside_kernels", [y], Flag(extent(n) > 2), Store(y, (), extent(n * n + 1))), \
        lambda s, rng: (outputs(s, y=("i8",)), {}), lambda a, c, s: {"y": np.array(s["n"] ** 2 + 1)}, lambda a, c, s: s["n"] > 2


@case(*SMALL, large=LONG, y=1e-15)
def roots_by_newton():
    """A While with a Leave in a kernel."""
    x, y, z, old, turns = given("x", "float64", n), result("y", "float64", n), ref("z", "float64"), ref("old", "float64"), ref("turns")
    count = result("count", "int64", n)
    body = kernel(i, n, Local("z", "float64", load(x, [i])), Local("turns", "int64", i64(0)),
                  While(turns < 100, (Let("old", z), Assign("z", (old + load(x, [i]) / old) * 0.5),
                                      Leave(apply("abs", z - old) <= 1e-15 * old), Combine(turns, "add", i64(1)))),
                  Store(y, (i,), z), Store(count, (i,), turns), work=100)

    def expected(a, c, s):
        counts = np.zeros(s["n"], "i8")
        for place, x in enumerate(a["x"]):
            z = x
            while counts[place] < 100:
                old, z = z, (z + x / z) * 0.5
                if abs(z - old) <= 1e-15 * old:
                    break
                counts[place] += 1
        return {"y": np.sqrt(a["x"]), "count": counts}

    return program("roots_by_newton", [x, y, count], body), \
        lambda s, rng: ({"x": rng.uniform(0.5, 50, size=s["n"]), **outputs(s, y=("f8", s["n"]), count=("i8", s["n"]))}, {}), expected


@case({"n": 0, "m": 9}, {"n": 4, "m": 0}, {"n": 4, "m": 3}, {"n": 4, "m": 50}, large={"n": 20011, "m": 50})
def steps_until_small():
    """A While around kernels: at most m halvings, until the largest element is at most 1."""
    w, high, steps, turns = state("w", "float64", n), buffer("high", "float64"), result("steps", "int64"), ref("turns")
    body = (Local("turns", "int64", i64(0)), While(turns < extent(m), (
        kernel(i, n, Combine(load(high), "maximum", load(w, [i])), totals=[Total(high, "maximum", f64(-np.inf))]),
        Leave(load(high) <= 1.0), kernel(i, n, Store(w, (i,), load(w, [i]) * 0.5), name="k1"), Assign("turns", turns + 1))),
        Store(steps, (), turns))

    def expected(a, c, s):
        w, steps = a["w"], 0
        while steps < s["m"] and w.max(initial=-np.inf) > 1:
            w, steps = w * 0.5, steps + 1
        return {"w": w, "steps": np.array(steps)}

    return program("steps_until_small", [w, steps, high], *body), \
        lambda s, rng: ({"w": rng.uniform(1, 50, size=s["n"]), **outputs(s, steps=("i8",))}, {}), expected


@case({"n": 0}, {"n": 1}, {"n": 10}, {"n": 30})
def leave_from_inner_loop():
    """A Leave in a Loop in a While ends both; the While inside the Loop ends alone."""
    y, turns, met, inner = result("y", "int64", 3), ref("turns"), ref("met"), ref("inner")
    body = (Local("turns", "int64", i64(0)), Local("met", "int64", i64(0)), Local("inner", "int64", i64(0)),
            While(turns < extent(n), (
                loop(i, i64(4), loop(j, i64(3),
                     Combine(met, "add", i64(1)),
                     While(inner < 100 * met, (Leave(inner > 10 * met), Combine(inner, "add", i64(7)))),
                     If(turns > 2, (Leave(turns * 10 + i * 3 + j >= 54),)))),
                Combine(turns, "add", i64(1)))),
            Store(y, (i64(0),), turns), Store(y, (i64(1),), met), Store(y, (i64(2),), inner))

    def expected(a, c, s):
        turns = met = inner = 0
        def turn():
            nonlocal met, inner
            for i in range(4):
                for j in range(3):
                    met += 1
                    while inner < 100 * met and not inner > 10 * met:
                        inner += 7
                    if turns > 2 and turns * 10 + i * 3 + j >= 54:
                        return False
            return True
        while turns < s["n"] and turn():
            turns += 1
        return {"y": np.array([turns, met, inner])}

    return program("leave_from_inner_loop", [y], *body), lambda s, rng: (outputs(s, y=("i8", 3)), {}), expected


@case(*SMALL, large=LONG)
def if_and_else():
    x, y, z = given("x", "float64", n), result("y", "float64", n), ref("z", "float64")
    v = load(x, [i])
    body = kernel(i, n, Local("z", "float64", f64(0)),
                  If(v > 0.0, (If(v > 1.0, (Assign("z", v * 2.0),), (Assign("z", v + 5.0),)), Combine(z, "mul", f64(3))),
                     (Let("old", z), If(v < -1.0, (Assign("z", ref("old", "float64") - 1.0),)))),
                  If(z.ne(0), (Store(y, (i,), z),), (Store(y, (i,), f64(-0.0)),)))
    return program("if_and_else", [x, y], body), \
        lambda s, rng: ({"x": rng.normal(size=s["n"]), **outputs(s, y=("f8", s["n"]))}, {}), \
        lambda a, c, s: {"y": np.where(a["x"] > 0, 3 * np.where(a["x"] > 1, a["x"] * 2, a["x"] + 5), np.where(a["x"] < -1, -1.0, -0.0))}


@case({"n": 3, "k": 0}, {"n": 3, "k": 1}, large={"n": 50000, "k": 1})
def kernel_in_if():
    x, y = given("x", "float32", n), state("y", "float32", n)
    body = If(extent(k) > 0, (kernel(i, n, Store(y, (i,), load(x, [i]))),), (kernel(i, n, Store(y, (i,), -load(x, [i])), name="k1"),))
    return program("kernel_in_if", [x, y], body), \
        lambda s, rng: ({"x": rng.normal(size=s["n"]).astype("f4"), "y": np.ones(s["n"], "f4")}, {}), \
        lambda a, c, s: {"y": a["x"] if s["k"] else -a["x"]}


# ---------------------------------------------------------------- serial loops, scalars
@case(*SMALL, large={"n": 5000})
def recurrence():
    """y[t] = 0.9 * y[t - 1] + x[t], in a Local, without a kernel; the last one in an output of rank 0."""
    x, start, z = given("x", "float64", n), given("start", "float64"), ref("z", "float64")
    y, last = result("y", "float64", n), result("last", "float64")
    body = (Local("z", "float64", load(start)), loop(t, n, Assign("z", z * 0.9 + load(x, [t])), Store(y, (t,), z)), Store(last, (), z))

    def expected(a, c, s):
        z, y = a["start"][()], np.empty(s["n"])
        for t in range(s["n"]):
            y[t] = z = z * 0.9 + a["x"][t]
        return {"y": y, "last": np.array(z)}

    return program("recurrence", [x, y, last, start], *body), \
        lambda s, rng: ({"x": rng.normal(size=s["n"]), "start": np.array(0.5), **outputs(s, y=("f8", s["n"]), last=("f8",))}, {}), expected


@case(*MATRIX, large=WIDE)
def products_along_rows():
    """Running products of the rows, wrapping, by way of a private buffer."""
    x, y, held = given("x", "int32", n, m), result("y", "int32", n, m), buffer("held", "int32", m, role="private")
    z = ref("z", "int32")
    body = kernel(i, n, Local("z", "int32", const(1, "int32")), loop(j, m, Combine(z, "mul", load(x, [i, j])), Store(held, (j,), z)),
                  loop(j, m, Store(y, (i, extent(m) - 1 - j), load(held, [extent(m) - 1 - j]))))
    return program("products_along_rows", [x, y], body), \
        lambda s, rng: ({"x": rng.integers(-9, 10, size=(s["n"], s["m"])).astype("i4"), **outputs(s, y=("i4", s["n"], s["m"]))}, {}), \
        lambda a, c, s: {"y": np.cumprod(a["x"], axis=1, dtype="i4")}


@case({"n": 0}, {"n": 5}, large={"n": 50000})
def scalars():
    """Parameters by value of every dtype, rank 0 scratch, inputs and outputs, and outer values read in a kernel."""
    kinds = {"b": "bool", "u": "int32", "v": "int64", "r": "float32", "s": "float64"}
    values = {name: ref(name, dtype) for name, dtype in kinds.items()}
    back = {name: result(f"{name}_out", dtype) for name, dtype in kinds.items()}
    x, y, held = given("x", "float64"), result("y", "float64", n), buffer("held", "float64")
    half, twice = ref("half", "float64"), ref("twice", "float64")
    body = (*(Store(back[name], (), value) for name, value in values.items()), Store(held, (), load(x) + values["s"]),
            Let("half", load(held) * 0.5), Local("twice", "float64", load(held)), Combine(twice, "mul", f64(2)),
            kernel(i, n, Store(y, (i,), half * twice + load(held) + i.to("float64") * values["r"].to("float64"))))

    def make(s, rng):
        given = {"b": np.True_, "u": np.int32(-7), "v": np.int64(2**40), "r": np.float32(0.1), "s": np.float64(0.7)}
        out = {f"{name}_out": np.zeros((), NUMPY[dtype]) for name, dtype in kinds.items()}
        return {"x": np.array(3.3), **outputs(s, y=("f8", s["n"])), **out}, given

    def expected(a, c, s):
        held = a["x"] + c["s"]
        y = held * 0.5 * (held * 2) + held + np.arange(s["n"]) * np.float64(c["r"])
        return {"y": y, **{f"{name}_out": np.array(value) for name, value in c.items()}}

    return program("scalars", [x, y, *back.values(), held], *body, scalars=values.values()), make, expected


# ---------------------------------------------------------------- instructions
@case(*SMALL, large=LONG)
def conversions():
    """Every dtype to every other, and elements of every dtype."""
    dtypes = list(NUMPY)
    passed, stores = [given(f"from_{dtype}", dtype, n) for dtype in dtypes], []
    for source in tuple(passed):
        for dtype in dtypes:
            passed.append(result(f"{source.dtype}_{dtype}", dtype, n))
            stores.append(Store(passed[-1], (i,), load(source, [i]).to(dtype)))

    def make(s, rng):
        floats = rng.choice([-3.75, -0.5, 0.0, 0.25, 2.5, 1e6], size=s["n"])
        arrays = {"from_bool": floats > 0, "from_float32": floats.astype("f4"), "from_float64": floats,
                  "from_int32": rng.integers(-2**31, 2**31, size=s["n"]).astype("i4"),
                  "from_int64": rng.integers(-2**63, 2**63, size=s["n"], dtype="i8")}
        return arrays | {b.name: np.ones(s["n"], NUMPY[b.dtype]) for b in passed if b.role == "output"}, {}

    def expected(a, c, s):
        return {f"{x}_{y}": a[f"from_{x}"].astype(NUMPY[y]) for x in dtypes for y in dtypes}

    return program("conversions", passed, kernel(i, n, *stores)), make, expected


def _integers(dtype):
    a, b, sh = given("a", dtype, n), given("b", dtype, n), given("sh", dtype, n)
    u, v, w = (load(x, [i]) for x in (a, b, sh))
    width = 32 if dtype == "int32" else 64

    def wrap(value):
        return (value + (1 << (width - 1))) % (1 << width) - (1 << (width - 1))

    def cut(x, y):
        return abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)

    mask = (1 << width) - 1
    table = {
        "add": (u + v, lambda x, y, z: x + y), "sub": (u - v, lambda x, y, z: x - y), "mul": (u * v, lambda x, y, z: x * y),
        "neg": (-u, lambda x, y, z: -x), "abs": (apply("abs", u), lambda x, y, z: abs(x)),
        "idiv": (apply("idiv", u, v), lambda x, y, z: cut(x, y)), "irem": (apply("irem", u, v), lambda x, y, z: x - cut(x, y) * y),
        "low": (minimum(u, v), lambda x, y, z: min(x, y)), "high": (maximum(u, v), lambda x, y, z: max(x, y)),
        "and": (u & v, lambda x, y, z: x & y), "or": (u | v, lambda x, y, z: x | y), "xor": (u ^ v, lambda x, y, z: x ^ y),
        "not": (~u, lambda x, y, z: ~x), "shl": (u << w, lambda x, y, z: x << z), "ashr": (u >> w, lambda x, y, z: x >> z),
        "lshr": (lshr(u, w), lambda x, y, z: (x & mask) >> z),
        "select": (select(u < v, u, v * 2), lambda x, y, z: x if x < y else y * 2),
    }
    tests = {
        "eq": (u.eq(w), lambda x, y, z: x == z), "ne": (u.ne(w), lambda x, y, z: x != z), "lt": (u < v, lambda x, y, z: x < y),
        "le": (u <= w, lambda x, y, z: x <= z), "gt": (u > v, lambda x, y, z: x > y), "ge": (u >= w, lambda x, y, z: x >= z),
        "below": (apply("below", u, v), lambda x, y, z: (x & mask) < (y & mask)),
    }
    outs = {f"{dtype}_{op}": result(f"{dtype}_{op}", dtype if op in table else "bool", n) for op in (*table, *tests)}
    stores = [Store(outs[f"{dtype}_{op}"], (i,), value) for op, (value, _) in (table | tests).items()]

    def make(s, rng):
        edges = np.array([0, 1, -1, 2, -2, 5, -7, 100, -100, (1 << (width - 1)) - 1, -(1 << (width - 1))])
        x = np.where(rng.random(s["n"]) < 0.5, rng.choice(edges, size=s["n"]), rng.integers(-10**6, 10**6, size=s["n"]))
        y = rng.choice(edges[3:], size=s["n"])                                                # idiv takes neither 0 nor -1
        arrays = {"a": x, "b": y, "sh": rng.integers(0, width, size=s["n"])}
        out = {b.name: np.ones(s["n"], NUMPY[b.dtype]) for b in outs.values()}
        return {name: v.astype(NUMPY[dtype]) for name, v in arrays.items()} | out, {}

    def expected(a, c, s):
        triples = [tuple(map(int, xs)) for xs in zip(a["a"], a["b"], a["sh"], strict=True)]
        made = {f"{dtype}_{op}": np.array([wrap(f(*xs)) for xs in triples], NUMPY[dtype]) for op, (_, f) in table.items()}
        return made | {f"{dtype}_{op}": np.array([f(*xs) for xs in triples], bool) for op, (_, f) in tests.items()}

    return program(f"{dtype}_instructions", [a, b, sh, *outs.values()], kernel(i, n, *stores)), make, expected


@case(*SMALL, large={"n": 3001})
def int32_instructions():
    return _integers("int32")


@case(*SMALL, large={"n": 3001})
def int64_instructions():
    return _integers("int64")


@case({"n": 0}, {"n": 4}, {"n": 64})
def bool_instructions():
    a, b = given("a", "bool", n), given("b", "bool", n)
    u, v = load(a, [i]), load(b, [i])
    table = {"and": (u & v, np.logical_and), "or": (u | v, np.logical_or), "xor": (u ^ v, np.logical_xor), "not": (~u, lambda x, y: ~x),
             "eq": (u.eq(v), np.equal), "ne": (u.ne(v), np.not_equal), "lt": (u < v, np.less), "le": (u <= v, np.less_equal),
             "gt": (u > v, np.greater), "ge": (u >= v, np.greater_equal), "select": (select(u, v, ~v), lambda x, y: np.where(x, y, ~y))}
    outs = {op: result(f"out_{op}", "bool", n) for op in table}
    body = kernel(i, n, *(Store(outs[op], (i,), value) for op, (value, _) in table.items()))

    def make(s, rng):
        return {"a": rng.random(s["n"]) < 0.5, "b": rng.random(s["n"]) < 0.5, **{b.name: np.ones(s["n"], bool) for b in outs.values()}}, {}

    return program("bool_instructions", [a, b, *outs.values()], body), make, \
        lambda x, c, s: {f"out_{op}": f(x["a"], x["b"]) for op, (_, f) in table.items()}


def _exactly(x, y, z, dtype):
    """x * y + z, rounded once: by way of fractions, to nearest even, for finite numbers."""
    if not np.isfinite([x, y, z]).all():
        return z if np.isfinite([x, y]).all() else x * y + z
    exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
    if exact == 0:
        return x * y + z
    info = np.finfo(NUMPY[dtype])
    if abs(exact) >= Fraction(float(info.max)) + Fraction(2) ** (info.maxexp - info.nmant - 2):       # half a step beyond the largest
        return np.copysign(NUMPY[dtype](np.inf), NUMPY[dtype](1 if exact > 0 else -1))
    if dtype == "float64":
        return np.float64(float(exact))
    near = np.float32(float(exact))                                     # within one step of the right one
    around = [v for v in (np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))) if np.isfinite(v)]
    return min(around, key=lambda v: (abs(Fraction(float(v)) - exact), int(v.view("i4")) & 1))


def _floats(dtype):
    a, b, z = given("a", dtype, n), given("b", dtype, n), given("z", dtype, n)
    u, v, w = (load(x, [i]) for x in (a, b, z))
    integer = "int32" if dtype == "float32" else "int64"

    def low(x, y):
        zero = np.copysign(x, np.where(np.signbit(x) | np.signbit(y), -1, 1))
        return np.where((x == 0) & (y == 0), zero, np.minimum(x, y)).astype(x.dtype)

    def high(x, y):
        return -low(-x, -y)

    table = {
        "add": (u + v, lambda x, y, z: x + y), "sub": (u - v, lambda x, y, z: x - y), "mul": (u * v, lambda x, y, z: x * y),
        "div": (u / v, lambda x, y, z: x / y), "neg": (-u, lambda x, y, z: -x), "abs": (apply("abs", u), lambda x, y, z: np.abs(x)),
        "sqrt": (apply("sqrt", u), lambda x, y, z: np.sqrt(x)), "floor": (apply("floor", u), lambda x, y, z: np.floor(x)),
        "ceil": (apply("ceil", u), lambda x, y, z: np.ceil(x)), "rint": (apply("rint", u), lambda x, y, z: np.rint(x)),
        "trunc": (apply("trunc", u), lambda x, y, z: np.trunc(x)), "low": (minimum(u, v), lambda x, y, z: low(x, y)),
        "high": (maximum(u, v), lambda x, y, z: high(x, y)), "copysign": (apply("copysign", u, v), lambda x, y, z: np.copysign(x, y)),
        "fma": (fma(u, v, w), lambda x, y, z: np.array([_exactly(*xs, dtype) for xs in zip(x, y, z)], NUMPY[dtype])),
        "select": (select(u < v, u, w), lambda x, y, z: np.where(x < y, x, z)),
        "unfused": (u * v + w, lambda x, y, z: x * y + z),
        "rounded": ((u * v).bits_as(integer).bits_as(dtype) - w, lambda x, y, z: x * y - z),
    }
    tests = {
        "eq": (u.eq(v), lambda x, y, z: x == y), "ne": (u.ne(v), lambda x, y, z: x != y), "lt": (u < v, lambda x, y, z: x < y),
        "le": (u <= v, lambda x, y, z: x <= y), "gt": (u > v, lambda x, y, z: x > y), "ge": (u >= v, lambda x, y, z: x >= y),
        "isnan": (apply("isnan", u), lambda x, y, z: np.isnan(x)), "negative": (u.bits_as(integer) < 0, lambda x, y, z: np.signbit(x)),
    }
    outs = {f"{dtype}_{op}": result(f"{dtype}_{op}", dtype if op in table else "bool", n) for op in (*table, *tests)}
    stores = [Store(outs[f"{dtype}_{op}"], (i,), value) for op, (value, _) in (table | tests).items()]

    def make(s, rng):
        info = np.finfo(NUMPY[dtype])
        edges = np.array([0.0, -0.0, 1, -1, 0.5, -0.5, 1.5, 2.5, np.inf, -np.inf, np.nan, info.max, info.tiny, info.eps,
                          info.smallest_subnormal])
        arrays = {}
        for name in ("a", "b", "z"):
            values = rng.normal(size=s["n"]) * np.exp2(rng.integers(-12, 12, size=s["n"]))
            values = np.where(rng.random(s["n"]) < 0.4, rng.choice(edges, size=s["n"]), values)
            arrays[name] = np.where(values == 0, values, np.where(rng.random(s["n"]) < 0.5, -values, values)).astype(NUMPY[dtype])
        near = rng.random(s["n"]) < 0.3                               # cancels: what fma and its parts round differently
        with np.errstate(all="ignore"):
            arrays["z"] = np.where(near, -(arrays["a"] * arrays["b"]), arrays["z"])
        return arrays | {b.name: np.ones(s["n"], NUMPY[b.dtype]) for b in outs.values()}, {}

    def expected(a, c, s):
        return {f"{dtype}_{op}": np.asarray(f(a["a"], a["b"], a["z"])) for op, (_, f) in (table | tests).items()}

    return program(f"{dtype}_instructions", [a, b, z, *outs.values()], kernel(i, n, *stores)), make, expected


@case({"n": 0}, {"n": 1}, {"n": 200}, large={"n": 3001})
def float32_instructions():
    return _floats("float32")


@case({"n": 0}, {"n": 1}, {"n": 200}, large={"n": 3001})
def float64_instructions():
    return _floats("float64")


@case(*SMALL, large=LONG, y=4e-16)
def exponential():
    x, y = given("x", "float64", n), result("y", "float64", n)
    return program("exponential", [x, y], kernel(i, n, Store(y, (i,), exp(load(x, [i]))), work=30)), \
        lambda s, rng: ({"x": rng.uniform(-20, 0, size=s["n"]), **outputs(s, y=("f8", s["n"]))}, {}), lambda a, c, s: {"y": np.exp(a["x"])}


@case(*SMALL, large=LONG)
def many_statements():
    """300 values, each of two before it, and a Local that is assigned in between."""
    x, y, v = given("x", "float64", n), result("y", "float64", n), ref("v", "float64")
    rng = np.random.default_rng(7)
    plan = [(str(rng.choice(["add", "sub", "mul", "maximum", "select"])), *map(int, rng.integers(max(0, step - 12), step + 1, size=2)))
            for step in range(300)]
    made, body = [load(x, [i])], [Local("v", "float64", load(x, [i]))]
    for step, (op, a, b) in enumerate(plan):
        a, b = made[a], made[b]
        value = select(a < b, a, v) if op == "select" else apply(op, a, b)
        name = f"x{step}"
        body += [Let(name, minimum(maximum(value, -2.0), 2.0) * 0.9375)]
        made.append(ref(name, "float64"))
        if step % 10 == 9:
            body += [Assign("v", v + made[-1] * 0.125)]

    def expected(arrays, c, s):
        v, made = arrays["x"], [arrays["x"]]
        for step, (op, a, b) in enumerate(plan):
            a, b = made[a], made[b]
            value = {"add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "maximum": np.maximum,
                     "select": lambda a, b: np.where(a < b, a, v)}[op](a, b)                      # noqa: B023
            made.append(np.minimum(np.maximum(value, -2), 2) * 0.9375)
            if step % 10 == 9:
                v = v + made[-1] * 0.125
        return {"y": v}

    return program("many_statements", [x, y], kernel(i, n, *body, Store(y, (i,), v), work=900)), \
        lambda s, rng: ({"x": rng.normal(size=s["n"]), **outputs(s, y=("f8", s["n"]))}, {}), expected


# ---------------------------------------------------------------- products of matrices
def _products(dtype):
    """All four, an operand and a result each once in a scratch and in a window."""
    shapes = {(False, False): ((n, k), (k, m)), (False, True): ((n, k), (m, k)),
              (True, False): ((k, n), (k, m)), (True, True): ((k, n), (m, k))}
    passed, body = [], []
    for ta, tb in shapes:
        mark = f"{'t' if ta else 'n'}{'t' if tb else 'n'}"
        a, b = (given(f"{x}_{mark}", dtype, *shape) for x, shape in zip("ab", shapes[ta, tb], strict=True))
        out = result(f"out_{mark}", dtype, n, m)
        passed += [a, b, out]
        body.append(Product(out, a, b, ta, tb, f"product_{mark}"))
    cube, into = given("cube", dtype, 2, n, k), result("into", dtype, 2, n, n)
    page, half, copy = buffer("page", dtype, n, k, role="window"), buffer("half", dtype, n, n, role="window"), buffer("copy", dtype, n, k)
    body.append(loop(t, i64(2), Window(page, cube, t), Window(half, into, 1 - t),
                     kernel(i, n, loop(j, k, Store(copy, (i, j), load(page, [i, j]) * 2.0))),
                     Product(half, page, copy, False, True, "product_w")))
    name = f"products_{dtype}"

    def make(s, rng):
        def array(b):
            shape = tuple(dim.evaluate(s) for dim in b.shape)
            return rng.normal(size=shape).astype(NUMPY[dtype]) if b.role == "input" else np.full(shape, 77, NUMPY[dtype])
        return {b.name: array(b) for b in (*passed, cube, into)}, {}

    def expected(a, c, s):
        made = {}
        for ta, tb in shapes:
            mark = f"{'t' if ta else 'n'}{'t' if tb else 'n'}"
            x, y = a[f"a_{mark}"].astype("f8"), a[f"b_{mark}"].astype("f8")
            made[f"out_{mark}"] = (x.T if ta else x) @ (y.T if tb else y)
        cube = a["cube"].astype("f8")
        made["into"] = (2 * cube @ cube.transpose(0, 2, 1))[::-1]
        return {x: y.astype(NUMPY[dtype]) for x, y in made.items()}

    return program(name, [*passed, cube, into, copy], *body), make, expected


PRODUCTS = [dict(zip("nmk", lengths, strict=True)) for lengths in ((1, 1, 1), (3, 4, 0), (0, 2, 3), (5, 7, 3), (1, 9, 17))]
LARGE_PRODUCT = {"n": 150, "m": 130, "k": 170}


@case(*PRODUCTS, large=LARGE_PRODUCT, **dict.fromkeys(("out_nn", "out_nt", "out_tn", "out_tt", "into"), 3e-6))
def products_float32():
    return _products("float32")


@case(*PRODUCTS, large=LARGE_PRODUCT, **dict.fromkeys(("out_nn", "out_nt", "out_tn", "out_tt", "into"), 1e-14))
def products_float64():
    return _products("float64")


# ---------------------------------------------------------------- sizes and names
@case({"n": 0, "m": 4}, {"n": 3, "m": 4}, {"n": 9, "m": 1})
def derived_sizes():
    """Extents that are no polynomials, a size with a value, extents below 0."""
    fixed, four = Dim.of(Size("four", True, 4)), Dim.of(4)
    lengths = [n * m - 2 * n + 1, derived("floordiv", n * n + 3, m), derived("max", n - m, 0), derived("min", n, m), derived("wide", m, n),
               fixed * n, derived("floordiv", -1 * n, four)]
    y, x, z = result("y", "int64", len(lengths)), given("x", "int64", fixed), result("z", "int64", derived("max", n - 5, 0), fixed)
    count = buffer("count", "int64")
    body = [Store(y, (i64(place),), extent(length)) for place, length in enumerate(lengths)]
    body += [kernel(i, n - 5, loop(j, fixed, Store(z, (i, j), load(x, [j]) + i))), loop(t, n - 5 - n * n, Store(y, (i64(0),), i64(99))),
             kernel(i, n - 5, Combine(load(count), "add", i64(1)), totals=[Total(count, "add", i64(0))], name="k1"),
             Combine(load(y, [i64(0)]), "add", load(count) * 1000)]

    def expected(a, c, s):
        N, M = s["n"], s["m"]
        more = max(N - 5, 0)
        y = [N * M - 2 * N + 1 + more * 1000, (N * N + 3) // M, max(N - M, 0), min(N, M), N if M == 1 else M, 4 * N, -N // 4]
        return {"y": np.array(y), "z": a["x"] + np.arange(more)[:, None]}

    return program("derived_sizes", [y, x, z, count], *body), \
        lambda s, rng: ({"x": rng.integers(0, 9, size=4), **outputs(s, y=("i8", 7), z=("i8", max(s["n"] - 5, 0), 4))}, {}), expected


@case({"n": 1, "double": 2, "v.3": 3}, {"n": 6, "double": 1, "v.3": 4})
def awkward_names():
    """Words of C, Python and LLVM, Greek letters, and one name for a size, a buffer and a value."""
    double, anonymous = Dim.of(Size("double")), Dim.of(Size("v.3", named=False))
    a, b, c = given("int", "float64", n, double), given("λ", "float64", anonymous), result("for", "float64", n, double, anonymous)
    total, held = result("n", "float64"), buffer("return", "float64", anonymous, role="private")
    at, value, while_, rate = ref("n"), ref("lambda", "float64"), ref("while", "float64"), ref("rate", "float64")
    body = kernel(at, n, loop(ref("double"), double, Let("lambda", load(a, [at, ref("double")])), Local("while", "float64", f64(0)),
                              loop(j, anonymous, Store(held, (j,), load(b, [j]) * value)),
                              loop(ref("entry"), anonymous, Combine(while_, "add", load(held, [ref("entry")]))),
                              loop(ref("λ"), anonymous, Store(c, (at, ref("double"), ref("λ")), load(held, [ref("λ")]) - rate)),
                              Combine(load(total), "maximum", value)), totals=[Total(total, "maximum", f64(-np.inf))], name="main")
    made = program("awkward_names", [a, b, c, total], body, scalars=[rate])

    def make(s, rng):
        N, D, V = s["n"], s["double"], s["v.3"]
        out = outputs(s, **{"for": ("f8", N, D, V), "n": ("f8",)})
        return {"int": rng.normal(size=(N, D)), "λ": rng.normal(size=V), **out}, {"rate": 0.5}

    return made, make, lambda a, c, s: {"for": a["int"][..., None] * a["λ"] - c["rate"], "n": a["int"].max()}


@case(*SMALL, large=LONG)
def shared_parts():
    """An expression of 2**60 parts, of which only 120 are different."""
    x, y = given("x", "float64", n), result("y", "float64", n)
    e = load(x, [i])
    for _ in range(60):
        e = e * e - 1.5

    def expected(a, c, s):
        value = a["x"]
        for _ in range(60):
            value = value * value - 1.5
        return {"y": value}

    return program("shared_parts", [x, y], kernel(i, n, Store(y, (i,), e), work=120)), \
        lambda s, rng: ({"x": rng.uniform(-1.5, 1.5, size=s["n"]), **outputs(s, y=("f8", s["n"]))}, {}), expected


# ---------------------------------------------------------------- what lanes and runs share
RAGGED = ({"n": 0, "m": 3}, {"n": 3, "m": 0}, {"n": 1, "m": 1}, {"n": 5, "m": 33}, {"n": 4, "m": 131}, {"n": 3, "m": 518})


@case(*RAGGED, large={"n": 901, "m": 131}, y=3e-6)
def centred_rows():
    """Rows less their mean: a loop that adds up and one that stores, over the same elements."""
    x, y, z = given("x", "float32", n, m), result("y", "float32", n, m), ref("z", "float32")
    body = kernel(i, n, Local("z", "float32", f32(0)), loop(j, m, Combine(z, "add", load(x, [i, j]))),
                  loop(j, m, Store(y, (i, j), load(x, [i, j]) - z / extent(m).to("float32"))))
    return program("centred_rows", [x, y], body), \
        lambda s, rng: ({"x": rng.normal(size=(s["n"], s["m"])).astype("f4"), **outputs(s, y=("f4", s["n"], s["m"]))}, {}), \
        lambda a, c, s: {"y": (a["x"] - a["x"].sum(1, keepdims=True, dtype="f8") / max(s["m"], 1)).astype("f4")}


@case(*RAGGED, large={"n": 901, "m": 131})
def rows_that_are_read_back():
    """What an iteration writes it reads again, elsewhere: by a loop, by a statement, and by a loop again."""
    x, y, ends = given("x", "int64", n, m), state("y", "int64", n, m), result("ends", "int64", n)
    last = extent(m) - 1
    body = kernel(i, n, loop(j, m, Store(y, (i, j), load(y, [i, j]) + load(x, [i, j]))), Store(ends, (i,), i64(0)),
                  If(extent(m) > 0, (Store(y, (i, last), load(y, [i, i64(0)]) * 3),
                                     Combine(load(y, [i, i64(0)]), "add", load(y, [i, last])),
                                     Store(ends, (i,), load(y, [i, i64(0)]) - load(y, [i, last])))),
                  loop(j, m, Combine(load(y, [i, j]), "add", load(ends, [i]))))

    def expected(a, c, s):
        y = a["x"] + a["y"]
        ends = np.zeros(s["n"], "i8")
        if s["m"]:
            y[:, -1] = y[:, 0] * 3
            y[:, 0] = y[:, 0] + y[:, -1]
            ends = y[:, 0] - y[:, -1]
        return {"y": y + ends[:, None], "ends": ends}

    def make(s, rng):
        x, y = (rng.integers(-99, 99, size=(s["n"], s["m"])) for _ in range(2))
        return {"x": x, "y": y, **outputs(s, ends=("i8", s["n"]))}, {}

    return program("rows_that_are_read_back", [x, y, ends], body), make, expected


@case(*({"n": n} for n in (0, 1, 37, 300)), large={"n": 20011}, g=1e-12, h=0, norm=1e-12)
def totals_of_known_length():
    """Totals of 40 and 64 elements, which the lanes of a warp can keep; a third one is met by other statements too."""
    x, r = given("x", "float32", n, 40), given("r", "float64", n)
    g, h, count, norm = result("g", "float64", 40), result("h", "float32", 64), result("count", "int64", 40), result("norm", "float64")
    v, rest = load(x, [i, j]), ref("rest", "float64")
    body = kernel(i, n, Let("rest", load(r, [i])), Combine(load(norm), "add", rest * rest),
                  loop(j, i64(40), Combine(load(g, [j]), "add", v.to("float64") * rest),
                       Combine(load(count, [j]), "add", (v > 0.0).to("int64"))),
                  loop(p, i64(64), Combine(load(h, [p]), "maximum", load(x, [i, apply("irem", p * 7, i64(40))]) - p.to("float32"))),
                  Combine(load(count, [i64(3)]), "add", i64(1)),
                  totals=[Total(g, "add", f64(0)), Total(h, "maximum", f32(-np.inf)), Total(count, "add", i64(0)),
                          Total(norm, "add", f64(0))])

    def expected(a, c, s):
        x, columns = a["x"], np.arange(64)
        return {"g": x.T.astype("f8") @ a["r"], "h": (x[:, columns * 7 % 40] - columns.astype("f4")).max(0, initial=-np.inf),
                "count": (x > 0).sum(0) + s["n"] * (np.arange(40) == 3), "norm": np.array(a["r"] @ a["r"])}

    return program("totals_of_known_length", [x, r, g, h, count, norm], body), \
        lambda s, rng: ({"x": rng.normal(size=(s["n"], 40)).astype("f4"), "r": rng.normal(size=s["n"]),
                         **outputs(s, g=("f8", 40), h=("f4", 64), count=("i8", 40), norm=("f8",))}, {}), expected


@case({"n": 0, "m": 3}, {"n": 1, "m": 1}, {"n": 37, "m": 5}, {"n": 400, "m": 7}, large={"n": 100003, "m": 50}, weights=1e-12)
def histogram():
    """Totals at places that data choose, one of rank 2 with short rows, and a scalar."""
    u, w = given("u", "int32", n), given("w", "float64", n)
    counts, weights, most = result("counts", "int64", m), result("weights", "float64", m, 3), result("most", "int32")
    at = ref("at")
    body = kernel(i, n, Let("at", load(u, [i]).to("int64")), Combine(load(counts, [at]), "add", i64(1)),
                  loop(q, i64(3), Combine(load(weights, [at, q]), "add", load(w, [i]) * q.to("float64"))),
                  Combine(load(most), "maximum", load(u, [i])),
                  totals=[Total(counts, "add", i64(0)), Total(weights, "add", f64(0)), Total(most, "maximum", const(-1, "int32"))])

    def expected(a, c, s):
        sums = np.bincount(a["u"], a["w"], minlength=s["m"])
        return {"counts": np.bincount(a["u"], minlength=s["m"]), "weights": sums[:, None] * np.arange(3.0),
                "most": np.array(a["u"].max(initial=-1), "i4")}

    return program("histogram", [u, w, counts, weights, most], body), \
        lambda s, rng: ({"u": rng.integers(0, s["m"], size=s["n"]).astype("i4"), "w": rng.normal(size=s["n"]),
                         **outputs(s, counts=("i8", s["m"]), weights=("f8", s["m"], 3), most=("i4",))}, {}), expected


@case({"n": 0, "m": 3}, {"n": 3, "m": 0}, {"n": 1, "m": 1}, {"n": 13, "m": 40}, {"n": 300, "m": 33}, large=WIDE, y=1e-12)
def part_of_a_total():
    """A loop adds to fewer elements than a total has; the others keep its unit."""
    x, y = given("x", "float64", n, m), result("y", "float64", m + 2)
    body = kernel(i, n, loop(j, m, Combine(load(y, [j]), "add", load(x, [i, j]))), totals=[Total(y, "add", f64(0))])
    return program("part_of_a_total", [x, y], body), \
        lambda s, rng: ({"x": rng.normal(size=(s["n"], s["m"])), **outputs(s, y=("f8", s["m"] + 2))}, {}), \
        lambda a, c, s: {"y": np.append(a["x"].sum(0), [0, 0])}


@case(*(_batches(*lengths) for lengths in ((0, 5, 3), (10, 5, 3), (700, 5, 231), (31, 133, 3), (9, 5, 2))),
      large=_batches(20011, 5, 5001), total=1e-5, sums=1e-5)
def batches_of_float32():
    """Batches that begin at no multiple of 16 bytes, mapped and added up in whole and by rows."""
    x, y, sums, total = given("x", "float32", n, d), result("y", "float32", n, d), result("sums", "float32", n), result("total", "float32")
    xb, yb, sb = buffer("xb", "float32", rows, d, role="window"), buffer("yb", "float32", rows, d, role="window"), \
        buffer("sb", "float32", rows, role="window")
    part, start, z = buffer("part", "float64"), ref("start"), ref("z", "float32")
    turn = loop(t, derived("floordiv", n + k - 1, k), Let("start", t * extent(k)),
                Bind("rows of a batch", minimum(extent(k), extent(n) - start)), Window(xb, x, start), Window(yb, y, start),
                Window(sb, sums, start),
                kernel(i, rows, loop(j, d, Store(yb, (i, j), load(xb, [i, j]) * 2.0 - 1.0)), name="mapped"),
                kernel(i, rows, loop(j, d, Combine(load(part), "add", load(yb, [i, j]).to("float64"))), totals=[Total(part, "add", f64(0))],
                       name="added"),
                kernel(i, rows, Local("z", "float32", f32(0)), loop(j, d, Combine(z, "add", load(yb, [i, j]))), Store(sb, (i,), z),
                       name="rowwise"),
                Combine(load(total), "add", load(part).to("float32")))

    def expected(a, c, s):
        y = a["x"] * 2 - 1
        return {"y": y, "sums": y.sum(1, dtype="f8").astype("f4"), "total": np.array(y.sum(dtype="f8"), "f4")}

    return program("batches_of_float32", [x, y, sums, total, part], Store(total, (), f32(0)), turn), \
        lambda s, rng: ({"x": rng.normal(size=(s["n"], s["d"])).astype("f4"),
                         **outputs(s, y=("f4", s["n"], s["d"]), sums=("f4", s["n"]), total=("f4",))}, {}), expected


# ---------------------------------------------------------------- one after the other
@case({"n": 0, "m": 3}, {"n": 1, "m": 1}, {"n": 5, "m": 2}, {"n": 70, "m": 4}, {"n": 300, "m": 3}, large={"n": 3001, "m": 50})
def kernels_that_follow():
    """Each kernel reads, reversed, what the one before it wrote, or writes what that one read; m rounds."""
    x, a, b = state("x", "int64", n), buffer("a", "int64", n), buffer("b", "int64", n)
    other = extent(n) - 1 - i
    turn = loop(t, m, kernel(i, n, Store(a, (i,), load(x, [other]) + t), name="first"),
                kernel(i, n, Store(b, (i,), load(a, [other]) * 3), name="second"),
                kernel(i, n, Store(x, (i,), load(b, [i]) - load(a, [other])), name="third"),
                kernel(i, n, Store(a, (i,), i * t), name="fourth"),
                kernel(i, n, Store(x, (i,), lshr(load(x, [i]) * 7 + load(a, [other]), i64(3))), name="fifth"))

    def expected(arrays, c, s):
        x, place = arrays["x"], np.arange(s["n"])
        for t in range(s["m"]):
            a = x[::-1] + t
            x = a[::-1] * 3 - a[::-1]
            x = ((x * 7 + (place * t)[::-1]).view("u8") >> np.uint64(3)).view("i8")
        return {"x": x}

    return program("kernels_that_follow", [x, a, b], turn), lambda s, rng: ({"x": rng.integers(-99, 99, size=s["n"])}, {}), expected


@case({"n": 1, "m": 3}, {"n": 5, "m": 4}, {"n": 70, "m": 9}, {"n": 300, "m": 3}, large={"n": 3001, "m": 50})
def statements_between_kernels():
    """Elements that single statements read and write: from a kernel, for a kernel, from each other; totals that are arrays."""
    x, y, sums, high = state("x", "int64", n), result("y", "int64", m + 1), buffer("sums", "int64", 3), buffer("high", "int64")
    last = extent(n) - 1
    turn = loop(t, m, kernel(i, n, Store(x, (i,), load(x, [i]) + load(y, [t])), name="changed"),
                Store(y, (t + 1,), load(y, [t]) + load(x, [last])), Combine(load(y, [t]), "mul", i64(3)),
                Store(x, (last,), load(y, [t + 1]) - load(y, [t])),
                kernel(i, n, loop(q, i64(3), Combine(load(sums, [q]), "add", load(x, [i]) * (q + 1))),
                       Combine(load(high), "maximum", load(x, [i])),
                       totals=[Total(sums, "add", i64(0)), Total(high, "maximum", i64(-2**63))], name="added"),
                Combine(load(y, [t]), "add", load(sums, [i64(2)]) - load(high)),
                Store(sums, (i64(0),), load(sums, [i64(1)]) & 255), Store(y, (t + 1,), load(y, [t + 1]) & 255),
                kernel(i, n, Store(x, (i,), load(x, [i]) - load(sums, [i64(0)]) * i), name="lowered"))

    def expected(a, c, s):
        x, y = a["x"], np.zeros(s["m"] + 1, "i8")
        for t in range(s["m"]):
            x = x + y[t]
            y[t + 1] = y[t] + x[-1]
            y[t] *= 3
            x[-1] = y[t + 1] - y[t]
            y[t] += 3 * x.sum() - x.max()
            y[t + 1] &= 255
            x = x - (2 * x.sum() & 255) * np.arange(s["n"])
        return {"x": x, "y": y}

    return program("statements_between_kernels", [x, y, sums, high], kernel(i, m + 1, Store(y, (i,), i64(0)), name="cleared"), turn), \
        lambda s, rng: ({"x": rng.integers(-99, 99, size=s["n"]), **outputs(s, y=("i8", s["m"] + 1))}, {}), expected


@case({"n": 1, "m": 9}, {"n": 40, "m": 0}, {"n": 40, "m": 1}, {"n": 40, "m": 5}, {"n": 300, "m": 9}, large={"n": 3001, "m": 50})
def until_a_fault():
    """Rows are added until one has a negative element, or the first total is beyond a limit; a fault is met or not."""
    x, a, b = given("x", "int64", m, n), state("a", "int64", n), buffer("b", "int64", n)
    turns, row, total = result("turns", "int64"), buffer("row", "int64", n, role="window"), buffer("total", "int64")
    at = ref("at")
    body = (Local("at", "int64", i64(0)), While(at < extent(m), (
        Window(row, x, at),
        kernel(i, n, Flag(load(row, [i]) < 0), Store(b, (i,), load(a, [i]) + load(row, [i])), Combine(load(total), "add", load(row, [i])),
               totals=[Total(total, "add", i64(0))]),
        Leave(FAULT), Leave(load(total) > 60 * extent(n)), Swap(a, b), Assign("at", at + 1))), Store(turns, (), at))

    def steps(a, s):
        bad = (a["x"] < 0).any(1) if s["n"] else np.zeros(s["m"], bool)
        stop = bad | (a["x"].sum(1) > 60 * s["n"])
        first = int(stop.argmax()) if stop.any() else s["m"]
        return first, first < s["m"] and bool(bad[first])

    def make(s, rng):
        x = rng.integers(0, 100, size=(s["m"], s["n"]))
        if s["m"] == 9:
            x[:] %= 50
            x[5, s["n"] // 2] = -1
        return {"x": x, "a": rng.integers(-9, 9, size=s["n"]), **outputs(s, turns=("i8",))}, {}

    return program("until_a_fault", [x, a, turns, b, total], *body), make, \
        lambda a, c, s: {"a": a["a"] + a["x"][:steps(a, s)[0]].sum(0), "turns": np.array(steps(a, s)[0])}, \
        lambda a, c, s: steps(a, s)[1]


@case({"n": 1, "m": 1}, {"n": 6, "m": 4}, {"n": 40, "m": 7}, {"n": 300, "m": 3}, large={"n": 2000, "m": 11})
def products_of_integers():
    """Products between kernels and swaps: what they read is what is in the arrays then.  All numbers are integers, so exact."""
    a, b, x = state("a", "float64", 7, n), state("b", "float64", 7, n), given("x", "float64", 7, 7)
    turn = loop(t, m, Product(b, x, a, False, False, "moved"), Swap(a, b),
                kernel(i, i64(7), loop(j, n, Store(b, (i, j), load(a, [i, j]) - load(a, [6 - i, j])))), Swap(a, b),
                Product(b, x, a, True, False, "moved_back"))

    def expected(arrays, c, s):
        a, b, x = arrays["a"], arrays["b"], arrays["x"]
        for _ in range(s["m"]):
            a = x @ a
            a = a - a[::-1]
            b = x.T @ a
        return {"a": a, "b": b}

    return program("products_of_integers", [a, b, x], turn), \
        lambda s, rng: ({"x": rng.integers(-1, 2, size=(7, 7)).astype("f8"), "a": rng.integers(-3, 4, size=(7, s["n"])).astype("f8"),
                         "b": np.ones((7, s["n"]))}, {}), expected


@case({"n": 0}, {"n": 1}, {"n": 40}, {"n": 300}, large={"n": 3001})
def while_of_an_array():
    """A While that asks an element which a kernel changes, then one that a statement changes."""
    x, y, left = state("x", "int64", n), result("y", "int64", 2), buffer("left", "int64", 2)
    zero, one = i64(0), i64(1)
    body = (Store(y, (zero,), zero), Store(y, (one,), zero), Store(left, (zero,), extent(n)), Store(left, (one,), i64(5)),
            While(load(left, [zero]) > 0, (
                kernel(i, n, Store(x, (i,), select(load(x, [i]) > 0, load(x, [i]) - 1, zero)), name="lowered"),
                kernel(i, one, Store(left, (zero,), zero), loop(j, n, Combine(load(left, [zero]), "maximum", load(x, [j]))), name="asked"),
                Combine(load(y, [zero]), "add", one))),
            While(load(left, [one]) > 0, (Combine(load(left, [one]), "add", i64(-1)), Combine(load(y, [one]), "add", load(left, [one])))))

    def expected(a, c, s):
        return {"x": np.zeros_like(a["x"]), "y": np.array([max(a["x"].max(initial=0), min(s["n"], 1)), 10])}

    return program("while_of_an_array", [x, y, left], *body), \
        lambda s, rng: ({"x": rng.integers(0, 9, size=s["n"]), **outputs(s, y=("i8", 2))}, {}), expected


# ---------------------------------------------------------------- nothing at all
@case({"n": 0})
def empty_blocks():
    """Loops, branches and kernels without statements, and a program whose result is a literal."""
    y = result("y", "float32")
    body = (loop(t, i64(3)), If(extent(n) > 0, (), (Store(y, (), f32(0.1)),)), kernel(i, n), While(const(False, "bool"), ()))
    return program("empty_blocks", [y], *body), lambda s, rng: (outputs(s, y=("f4",)), {}), lambda a, c, s: {"y": np.array(0.1, "f4")}


BY_NAME = {case.name: case for case in CASES}
