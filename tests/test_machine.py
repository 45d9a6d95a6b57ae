"""Native scalar code, row by row of the op table: its error, its special values, its faults, and the same bits from LLVM.

Everything is driven by `TABLE`.  float32 code is compared with the row's NumPy meaning in float64; float64 code with long
doubles where the processor has 80-bit ones, and always, on fewer points, with mpmath; what is exact is compared bit for bit with NumPy.
"""

import itertools
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import mpmath as mp
import numpy as np
import pytest
from llvm_map import Map, assembly
from scipy import special

from dsl.ir.node import TABLE, Node, make, topological
from dsl.ir.types import ArrayType, Shapes, TypeFault, is_float
from dsl.machine import fused
from dsl.machine.evaluate import evaluate
from dsl.machine.expr import NEVER, Const, const, fma, ref, select, span, walk
from dsl.machine.expr import apply as machine_apply
from dsl.machine.instructions import TABLE as INSTRUCTIONS
from dsl.machine.trigonometric import REDUCED_TO
from dsl.ops.leaves import leaf
from dsl.ops.table import Fault

ROWS = {name: op for name, op in TABLE.items() if op.elementwise}
DTYPES = ("float32", "float64", "int32", "int64", "bool")
ATTRS = {"cast": [{"dtype": d} for d in DTYPES], "alias": [{"name": "x"}], "polygamma": [{"order": n} for n in (1, 2, 3)]}
REAL = ("float32", "float64")
LONG = np.longdouble if np.finfo(np.longdouble).nmant >= 63 else None


@pytest.fixture(autouse=True)
def quiet():
    """Infinities and nans are made on purpose, also by the references."""
    with np.errstate(all="ignore"):
        yield


def cases(names):
    """Each row with every choice of operand dtypes it takes and of attributes."""
    found = []
    for name in names:
        op = ROWS[name]
        for first, attrs in itertools.product(DTYPES, ATTRS.get(name, [{}])):
            dtypes = ("bool", first, first) if name == "where" else (first,) * len(op.operands)
            try:
                op.infer(Shapes(), *[ArrayType(d, ()) for d in dtypes], **attrs)
            except TypeFault:
                continue
            found.append(pytest.param(op, dtypes, attrs, id="-".join([name, first, *map(str, attrs.values())])))
    return found


def random(name):
    return np.random.default_rng(zlib.crc32(name.encode()))


def build(op, dtypes, attrs):
    names = [ref(f"x{i}", d) for i, d in enumerate(dtypes)]
    return names, op.code(*names, **attrs)


def run(op, operands, attrs):
    names, root = build(op, [a.dtype.name for a in operands], attrs)
    result = np.broadcast_to(evaluate([root], dict(zip(names, operands, strict=True)))[0], operands[0].shape)
    assert result.dtype.name == root.dtype
    return result


# ---------------------------------------------------------------- where functions are tried
def special_values(dtype):
    """Zeros, ends, kinks, and halves, with their neighbours."""
    if dtype == "bool":
        return np.array([False, True])
    if not is_float(dtype):
        info = np.iinfo(dtype)
        return np.array([0, 1, -1, 2, -2, 3, 7, -7, 62, 63, 64, 100, info.max, info.min, info.max - 1, info.min + 1], dtype)
    info = np.finfo(dtype)
    plain = [0, 0.5, 1, 1.5, 2, 2.5, 3, 10, info.tiny, info.smallest_subnormal, info.max, np.inf, 2.0 ** 31, 2.0 ** 63, np.log(2), 1e6]
    values = np.array([*plain, *[-v for v in plain], np.nan], dtype)
    beside = [np.nextafter(values, np.array(end, dtype)) for end in (np.inf, -np.inf)]
    return np.unique(np.concatenate([values, *beside]))


def patterns(generator, dtype, count):
    """All bit patterns alike: every exponent, denormal numbers, nans."""
    if dtype == "bool":
        return generator.integers(0, 2, count).astype(bool)
    width = {"float32": np.uint32, "int32": np.uint32, "float64": np.uint64, "int64": np.uint64}[dtype]
    return generator.integers(0, np.iinfo(width).max, count, width, endpoint=True).view(dtype)


def samples(op, dtype, count):
    """Random patterns, the row's domain, numbers of moderate size, and small ones of both signs."""
    generator = random(f"{op.name} {dtype}")
    low, high = op.domain
    logs = np.exp(generator.uniform(-25, 0, count // 5)) * generator.choice([-1, 1], count // 5)
    return np.concatenate([
        patterns(generator, dtype, count // 5), generator.uniform(low, high, count // 5), generator.uniform(-2, 2, count // 5),
        generator.uniform(-1, 1, count // 5) * (110 if dtype == "float32" else 760), logs]).astype(dtype)


def operands_of(op, dtype, count):
    """Operands of every kind of pair: unlike, alike, equal, of sizes that give powers within range."""
    first = samples(op, dtype, count)
    generator = random(f"operands of {op.name} {dtype}")
    if len(op.operands) == 1:
        return [first]
    second = generator.permutation(first)
    nearly = (first * (1 + generator.integers(-4, 5, first.size) * np.finfo(dtype).eps)).astype(dtype)
    others = [(first, second), (first, nearly), (np.abs(first), np.abs(second))]
    if op.name == "pow":
        base = np.abs(patterns(generator, dtype, count))
        base[::2] = generator.uniform(0.1, 3, base[::2].size)
        exponent = generator.uniform(-1, 1, count) * (110 if dtype == "float32" else 760) / np.log(base.astype("float64"))
        whole = generator.integers(-20, 20, count)
        others += [(base, exponent.astype(dtype)), (-base, whole.astype(dtype))]
    return [np.concatenate(side) for side in zip(*others, strict=True)]


# ---------------------------------------------------------------- errors
FLOOR = {"lgamma": 1.0, "digamma": 1.0, "polygamma": 8.0, "logaddexp": 1.0}
"""Where the result passes through 0 between large terms, errors count as if it were at least this large."""


def errors(found, exact, dtype, floor=0.0):
    """In units in the last place of the exact value; infinite where one is nan or infinite and the other is not."""
    rounded = exact.astype(dtype)
    size = np.maximum(np.abs(np.where(np.isfinite(rounded), rounded, 1)), np.array(floor, dtype))
    unit = np.spacing(size).astype(exact.dtype)
    both = np.isfinite(rounded) & np.isfinite(found)
    same = (rounded == found) | (np.isnan(rounded) & np.isnan(found))
    distance = np.abs(np.where(both, found, 0).astype(exact.dtype) - np.where(both, exact, 0)) / unit
    return np.where(both, distance, np.where(same, 0, np.inf)).astype("float64")


def check(op, operands, attrs, exact):
    dtype = operands[0].dtype.name
    found = run(op, operands, attrs)
    below_zero = np.zeros(found.shape, bool) if op.name not in FLOOR else operands[0] < 0
    if op.name in ("digamma", "logaddexp"):
        below_zero[:] = True
    error = np.maximum(errors(found, exact, dtype) * ~below_zero, errors(found, exact, dtype, FLOOR.get(op.name, 0)))
    worst = int(np.argmax(error))
    bound = op.ulp[dtype == "float64"]
    assert error[worst] <= bound, (f"{error[worst]:.3f} ulp at {[float(x[worst]).hex() for x in operands]}: "
                                   f"{found[worst]!r}, exact {exact[worst]!r}; {np.count_nonzero(error > bound)} such")


def in_domain(op, operands):
    """sin, cos and tan are stated up to 2^45; SciPy's polygamma counts up from where it is to 9."""
    (x, *_) = operands
    match op.name:
        case "sin" | "cos" | "tan":
            return [x[np.abs(x) <= REDUCED_TO]]
        case "polygamma":
            return [x[(x > -200) | np.isinf(x)]]
        case _:
            return operands


INEXACT = [name for name, op in ROWS.items() if op.code and op.ulp not in ((0, 0), (0.5, 0.5))]
EXACT = [name for name, op in ROWS.items() if op.code and name not in INEXACT]


@pytest.mark.parametrize(("op", "dtypes", "attrs"), [c for c in cases(INEXACT) if c.values[1][0] == "float32"])
def test_error_in_float32(op, dtypes, attrs):
    operands = in_domain(op, operands_of(op, "float32", 60000))
    exact = op.numpy(*[x.astype("float64") for x in operands], **attrs)
    check(op, operands, attrs, exact)


def long_sigmoid(x):
    return np.where(x < 0, np.exp(x) / (1 + np.exp(x)), 1 / (1 + np.exp(-x)))


def long_logit(p):
    middle = np.abs(p - 0.5) < 0.25
    return np.where(middle, np.log1p(np.where(middle, (2 * p - 1) / (1 - p), 0)), np.log(p / (1 - p)))


def nothing_if_zero(function):
    return lambda x, y: np.where((x == 0) & ~np.isnan(y), 0, x * function(y))


LONG_REFERENCES = {
    **{name: getattr(np, name) for name in "exp expm1 log log1p logaddexp cbrt hypot sin cos tan sinh cosh tanh".split()},
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "atan2": np.arctan2, "pow": np.power,
    "xlogy": nothing_if_zero(np.log), "xlog1py": nothing_if_zero(np.log1p), "sigmoid": long_sigmoid, "logit": long_logit,
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "log1mexp": lambda x: np.where(x > -0.6875, np.log(-np.expm1(x)), np.log1p(-np.exp(x))),
}


@pytest.mark.skipif(LONG is None, reason="long double is no wider than double here")
@pytest.mark.parametrize("name", sorted(LONG_REFERENCES))
def test_error_in_float64(name):
    op = ROWS[name]
    operands = in_domain(op, operands_of(op, "float64", 40000))
    exact = LONG_REFERENCES[name](*[x.astype(LONG) for x in operands])
    check(op, operands, {}, exact)


def mp_erfcx(x):
    return mp.exp(x * x) * mp.erfc(x)


def mp_log_gamma(x):
    return mp.log(abs(mp.gamma(x))) if abs(x) < 1000 else mp.re(mp.loggamma(x))


MP_REFERENCES = {
    **{name: getattr(mp, name) for name in "exp expm1 log log1p cbrt hypot sin cos tan sinh cosh tanh asin acos atan atan2".split()},
    "erf": mp.erf, "erfc": mp.erfc, "digamma": mp.digamma,
    "pow": lambda a, b: a ** b, "xlogy": lambda x, y: x * mp.log(y), "xlog1py": lambda x, y: x * mp.log1p(y),
    "logaddexp": lambda a, b: max(a, b) + mp.log1p(mp.exp(-abs(a - b))),
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)), "logit": lambda p: mp.log(p / (1 - p)), "softplus": lambda x: mp.log1p(mp.exp(x)),
    "log1mexp": lambda x: mp.log1p(-mp.exp(x)) if x < -1 else mp.log(-mp.expm1(x)), "erfcx": mp_erfcx, "lgamma": mp_log_gamma,
    "polygamma": lambda x, order: mp.polygamma(order, x), "gelu": lambda x: x * mp.erfc(-x / mp.sqrt(2)) / 2,
    "log_erfc": lambda x: mp.log(mp.erfc(x)) if x > 0.5 else mp.log1p(-mp.erf(x)),
}
SLOW = {"digamma": 150, "polygamma": 60, "lgamma": 300, "gelu": 300, "log_erfc": 300, "erfc": 300, "erfcx": 300, "erf": 300}
MP_RANGE = {"erfcx": (-26.6, 1e4), "log_erfc": (-1e3, 1e3), "erfc": (-40, 40), "gelu": (-38.4, 40), "polygamma": (-50, 1e5),
            "digamma": (-50, 1e6), "log1mexp": (-700, 0), "cbrt": (0, np.inf), "lgamma": (-50, 1e30)}


def mp_reference(function, *operands):
    """As double plus its small rest, in long doubles if there are any: the exact value to 25 digits, nan where it is not real."""
    wide = LONG or np.float64
    out = np.full(operands[0].shape, np.nan, wide)
    for i, point in enumerate(zip(*operands, strict=True)):
        value = function(*[mp.mpf(float(x)) for x in point])
        if isinstance(value, mp.mpf):
            high = float(value)
            out[i] = wide(high) + wide(float(value - high)) if np.isfinite(high) else high
    return out


@pytest.mark.parametrize("name", INEXACT)
def test_error_in_float64_by_mpmath(name):
    assert name in MP_REFERENCES, f"no mpmath oracle of {name}"
    op = ROWS[name]
    count = SLOW.get(name, 800)
    low, high = MP_RANGE.get(name, (-1e12, 1e12))
    operands = operands_of(op, "float64", 4 * count)
    pick = random(name).permutation(operands[0].size)
    operands = [x[pick] for x in operands]
    usable = np.logical_and.reduce([np.isfinite(x) & (x >= low) & (x <= high) for x in operands])
    operands = [x[usable][:count] for x in operands]
    with mp.workdps(40):
        for attrs in ATTRS.get(name, [{}]):
            exact = mp_reference(lambda *x, attrs=attrs: MP_REFERENCES[name](*x, **attrs), *operands)
            real = np.isfinite(exact.astype("float64"))
            assert np.count_nonzero(real) > count // 5
            check(op, [x[real] for x in operands], attrs, exact[real])


# ---------------------------------------------------------------- special values
UNLIKE = {
    ("digamma", "float64"): "SciPy has nan, and no infinity, within 1e-308 of the pole at 0",
    ("lgamma", "float64"): "SciPy has infinity, and not 713, within 1e-305 of the pole at 0",
}


@pytest.mark.parametrize(("op", "dtypes", "attrs"), [c for c in cases(INEXACT) if c.values[1][0] in REAL])
def test_special_values(op, dtypes, attrs):
    """nan, infinity and the sign of 0 as NumPy has them, at every special value and pair of them."""
    grid = np.meshgrid(*[special_values(d) for d in dtypes])
    operands = in_domain(op, [g.ravel() for g in grid])
    if (op.name, dtypes[0]) in UNLIKE:
        operands = [x[(np.abs(x) > 1e-300) | (x == 0) | np.isnan(x)] for x in operands]
    found = run(op, operands, attrs)
    expected = op.numpy(*operands, **attrs)
    # an overflow that one of the two only just avoids is an error of a unit, which the tests above measure
    limit = np.finfo(dtypes[0]).max / 8
    infinite = (np.isinf(found) & ~(np.abs(expected) > limit)) | (np.isinf(expected) & ~(np.abs(found) > limit))
    signs = (found == 0) & (expected == 0) & (np.signbit(found) != np.signbit(expected))
    wrong = (np.isnan(found) != np.isnan(expected)) | infinite | signs
    shown = [([x[i].item() for x in operands], found[i], expected[i]) for i in np.flatnonzero(wrong)[:5]]
    assert not wrong.any(), shown


# ---------------------------------------------------------------- what is exact
@pytest.mark.parametrize(("op", "dtypes", "attrs"), cases(EXACT))
def test_same_bits_as_numpy(op, dtypes, attrs):
    generator = random(op.name)
    grid = [g.ravel() for g in np.meshgrid(*[special_values(d) for d in dtypes])]
    more = [np.concatenate([patterns(generator, d, 1500), (generator.normal(0, 30, 1500)).astype(d)]) for d in dtypes]
    operands = [np.concatenate(pair) for pair in zip(grid, more, strict=True)]
    if op.fault is not None:
        operands = [x[~faults(op, operands, attrs)] for x in operands]
    if op.name in ("floordiv", "mod") and dtypes[0] == "float64":
        operands = [x[~(np.abs(operands[0]) >= 2.0 ** 149 * np.abs(operands[1]))] for x in operands]
    found = run(op, operands, attrs)
    expected = np.asarray(op.numpy(*operands, **attrs))
    assert found.dtype == expected.dtype
    same = found == expected
    if is_float(found.dtype.name):
        same = (same & (np.signbit(found) == np.signbit(expected))) | (np.isnan(found) & np.isnan(expected))
    wrong = [([x[i].item() for x in operands], found[i], expected[i]) for i in np.flatnonzero(~same)[:5]]
    assert not wrong, wrong


def test_remainder_of_a_huge_quotient():
    """Where the quotient has more than 150 bits, float64's remainder is still one: of the divisor's sign, and below it."""
    generator = random("huge quotient")
    a, b = patterns(generator, "float64", 20000), patterns(generator, "float64", 20000)
    keep = np.isfinite(a) & np.isfinite(b) & (b != 0) & (np.abs(a) / np.abs(b) > 2.0 ** 150)
    a, b = a[keep], b[keep]
    assert a.size > 5000
    rest = run(TABLE["mod"], [a, b], {})
    assert (np.abs(rest) <= np.abs(b)).all() and (np.signbit(rest) == np.signbit(b)).all()


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 7, 10, 63])
def test_integer_power_with_a_literal(dtype, exponent):
    x = ref("x", dtype)
    values = np.concatenate([special_values(dtype), patterns(random(dtype), dtype, 500)])
    root = TABLE["pow"].code(x, const(exponent, dtype))
    assert not any(e.op == "select" for e in walk([root]) if hasattr(e, "op"))
    found = np.broadcast_to(evaluate([root], {x: values})[0], values.shape)
    assert (found == values ** np.array(exponent, dtype)).all()


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("exponent", [0.0, -0.0, 1.0, 2.0, 3.0, 4.0, -1.0, -2.0, 0.5, -0.5, 1.5, 7.0, -3.0, np.inf, -np.inf, np.nan])
def test_power_with_a_literal(dtype, exponent):
    op, x = TABLE["pow"], ref("x", dtype)
    values = np.concatenate([special_values(dtype), samples(op, dtype, 3000)])
    found = np.broadcast_to(evaluate([op.code(x, const(exponent, dtype))], {x: values})[0], values.shape)
    wide = np.float64 if dtype == "float32" else LONG or np.float64
    # given a scalar 0.5, NumPy takes the root, which -inf has not; its powers of arrays are C's
    exact = np.power(values.astype(wide), np.full(values.shape, exponent, wide))
    plain = np.power(values, np.full(values.shape, exponent, dtype))
    assert errors(found, exact, dtype).max() <= op.ulp[dtype == "float64"]
    zero = (found == 0) & (plain == 0)
    assert (np.signbit(found) == np.signbit(plain))[zero].all()


@pytest.mark.parametrize("name", ["sin", "cos"])
@pytest.mark.parametrize("dtype", REAL)
def test_sine_of_anything_is_within_one(name, dtype):
    x = patterns(random("large"), dtype, 20000)
    y = run(TABLE[name], [x], {})
    assert (np.isnan(y) == ~np.isfinite(x)).all() and (np.abs(y[np.isfinite(x)]) <= 1).all()


@pytest.mark.parametrize("dtype", REAL)
def test_sine_near_its_zeros(dtype):
    """Multiples of pi/2, as near as floats come, up to where reduction is stated."""
    generator = random("zeros of sine")
    counts = np.concatenate([np.arange(1, 500), generator.integers(1, 2 ** 44, 500)])
    x = (counts * (np.pi / 2)).astype(dtype)
    for name in ("sin", "cos", "tan"):
        with mp.workdps(60):
            exact = mp_reference(MP_REFERENCES[name], x)
        check(TABLE[name], [x], {}, exact)


# ---------------------------------------------------------------- faults
def faults(op, operands, attrs):
    names = [ref(f"x{i}", a.dtype.name) for i, a in enumerate(operands)]
    root = op.fault(*names, **attrs)
    assert root.dtype == "bool"
    return np.broadcast_to(evaluate([root], dict(zip(names, operands, strict=True)))[0], operands[0].shape)


@pytest.mark.parametrize(("op", "dtypes", "attrs"), [c for c in cases(ROWS) if c.values[0].fault])
def test_faults_are_those_of_the_reference(op, dtypes, attrs):
    grid = [g.ravel() for g in np.meshgrid(*[special_values(d) for d in dtypes])]
    found = faults(op, grid, attrs)
    for i, fault in enumerate(found):
        point = [x[i] for x in grid]
        try:
            op.numpy(*point, **attrs)
        except Fault:
            assert fault, point
        else:
            assert not fault, point
    run(op, grid, attrs)                                 # and the code is harmless there


def test_rows_that_can_fault_say_where():
    assert {name for name, op in ROWS.items() if op.fault} == {"floordiv", "mod", "pow", "cast"}


# ---------------------------------------------------------------- the table as a whole
def test_every_row_ends_in_code():
    """A row has code, or its definition is made of rows that have."""
    for name, op in ROWS.items():
        if op.code:
            assert op.ulp is not None, f"{name} states no error"
            continue
        xs = [leaf(kind="input", name=f"x{i}", type=ArrayType("float64", ())) for i in range(len(op.operands))]
        assert op.means is not None, f"{name} has neither code nor a definition"
        for node in topological([op.means(*xs)]):
            assert isinstance(node, Node) and (node.op.code or node.op.name in ("leaf", "const")), f"{name} needs {node.op.name}"


@pytest.mark.parametrize(("op", "dtypes", "attrs"), cases([name for name, op in ROWS.items() if op.code]))
def test_code_is_well_typed(op, dtypes, attrs):
    names, root = build(op, dtypes, attrs)
    inferred = make(op, [leaf(kind="input", name=n.name, type=ArrayType(n.dtype, ())) for n in names], attrs)
    assert root.dtype == inferred.dtype
    for e in walk([root]):
        if isinstance(e, Const) or e in names:
            continue
        assert e.op in INSTRUCTIONS
        sides = e.args[1:] if e.op == "select" else e.args
        assert len({a.dtype for a in sides}) == 1, e.op


# ---------------------------------------------------------------- LLVM
WITH_CODE = [name for name, op in ROWS.items() if op.code and name not in ("alias", "stop_grad")]


@pytest.mark.parametrize(("op", "dtypes", "attrs"), cases(WITH_CODE))
def test_llvm_gives_the_same_bits(op, dtypes, attrs):
    """Optimised and vectorised, without fast-math flags."""
    names, root = build(op, dtypes, attrs)
    generator = random(f"llvm {op.name}")
    sides = [np.concatenate([special_values(d), patterns(generator, d, 200), generator.normal(0, 3, 300).astype(d)]) for d in dtypes]
    count = min(len(s) for s in sides)
    operands = [generator.permutation(s)[:count] for s in sides]
    expected = np.broadcast_to(evaluate([root], dict(zip(names, operands, strict=True)))[0], (count,))
    found = Map(root, names)(*operands)
    same = found == expected
    if is_float(root.dtype):
        same = (same & (np.signbit(found) == np.signbit(expected))) | (np.isnan(found) & np.isnan(expected))
    assert same.all(), [([x[i].item() for x in operands], found[i], expected[i]) for i in np.flatnonzero(~same)[:5]]


@pytest.mark.parametrize("name", "exp expm1 log log1p tanh sigmoid softplus sin erf".split())
@pytest.mark.parametrize("dtype", REAL)
def test_loops_become_vectors(name, dtype):
    """The loop of a straight-line function works on 64 bytes at a time on a processor that can."""
    import llvmlite.binding as llvm
    if not llvm.get_default_triple().startswith("x86_64"):
        pytest.skip("the test reads x86 assembly")
    names, root = build(TABLE[name], (dtype,), {})
    made = assembly(root, names, "skylake-avx512")
    assert made.count("zmm") > 20 and "call" not in made


# ---------------------------------------------------------------- instructions
@pytest.mark.parametrize("dtype", REAL)
def test_fused_multiply_add(dtype):
    """Against rational numbers, and LLVM's: cancellation, ties, huge and tiny operands, denormal results."""
    generator = random("fma")
    n, info = 4000, np.finfo(dtype)
    a, b = generator.normal(0, 1, (2, n)).astype(dtype)
    tiny = np.ldexp(a, info.minexp + generator.integers(-info.nmant, 60, n)).astype(dtype)
    huge = np.ldexp(b, info.maxexp - generator.integers(0, 60, n)).astype(dtype)
    eighths = (generator.integers(1, 64, n) / 8).astype(dtype)
    far = np.ldexp(b, generator.integers(-60, 60, n)).astype(dtype)
    x, y, z = ref("x", dtype), ref("y", dtype), ref("z", dtype)
    native = Map(fma(x, y, z), [x, y, z])
    groups = [(a, b, (-a * b * (1 + generator.integers(-3, 4, n) * info.eps)).astype(dtype)), (a, b, far), (huge, tiny, a),
              (eighths, eighths, far), (eighths, eighths, -eighths * eighths), (tiny, eighths, tiny[::-1]), (huge, b, huge[::-1]),
              tuple(patterns(generator, dtype, n) for _ in range(3)), tuple(generator.choice(special_values(dtype), (3, n)))]
    for group in groups:
        found, expected = fused.fma(*group), native(*group)
        same = ((found == expected) & (np.signbit(found) == np.signbit(expected))) | (np.isnan(found) & np.isnan(expected))
        assert same.all(), [(*[v[i].item() for v in group], found[i], expected[i]) for i in np.flatnonzero(~same)[:3]]
    for p, q, r in zip(a[:300], b[:300], far[:300], strict=True):
        exact = Fraction(float(p)) * Fraction(float(q)) + Fraction(float(r))
        nearest = fused.fma(p, q, r)
        assert type(nearest).__name__ == dtype
        around = [np.nextafter(nearest, np.array(s * np.inf, dtype)) for s in (-1, 1)]
        assert all(abs(Fraction(float(nearest)) - exact) <= abs(Fraction(float(v)) - exact) for v in around)


def test_evaluate_asks_for_memory():
    from dsl.ir.types import Dim, Size
    from dsl.machine.expr import Buffer, extent, load
    n = Dim.of(Size("n"))
    row = Buffer("v", "float64", (n,), "input")
    i = ref("i")
    values = np.arange(5.0)
    memory = {"v": lambda index: values[index]}
    (found,) = evaluate([load(row, [i]) * 2 + extent(n).to("float64")], {i: np.array([1, 4])},
                        lambda e, *index: memory[e.buffer.name](*index) if index else np.int64(values.size))
    assert found.tolist() == [7.0, 13.0]
    with pytest.raises(KeyError, match="worth"):
        evaluate([ref("missing")], {})


def test_tables_are_found_again():
    """`tests/minimax.py` prints the coefficients that the code has."""
    from dsl.machine import exponential, powers
    tool = Path(__file__).parent / "minimax.py"
    printed = subprocess.run([sys.executable, tool, "exponential"], capture_output=True, text=True, check=True).stdout
    found = [tuple(map(float, line.strip(" ()").split(", "))) for line in printed.splitlines()[1::2]]
    single, double = (exponential.CONSTANTS[d].exponential for d in REAL)
    assert found == [single, powers.SHORT_EXPONENTIAL, double]


def test_scipy_is_the_meaning_of_special_rows():
    """The rows whose oracle above is the row itself are SciPy's functions."""
    x = np.linspace(0.1, 3, 7)
    for name in ("erf", "erfc", "erfcx", "digamma", "logit"):
        assert (TABLE[name].numpy(x / 4) == getattr(special, name)(x / 4)).all()


# ---------------------------------------------------------------- what the form of an expression tells
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_lie_in_their_spans(dtype):
    """Random expressions over special and random values: no value is outside, and no comparison is left out that may hold."""
    generator = np.random.default_rng(3)
    names = [ref(name, dtype) for name in "ab"]
    values = {r: np.concatenate([np.repeat(special_values(dtype), 6), generator.normal(0, 30, 300).astype(dtype)]) for r in names}
    values[names[1]] = generator.permutation(values[names[1]])
    known = [*names, const(0.0, dtype), const(-1.5, dtype), const(3.0, dtype), const(float("inf"), dtype)]
    folded = 0
    for _ in range(1500):
        x, y = (known[i] for i in generator.integers(0, len(known), 2))
        made = (x + y, x * x, -x * x, -x, machine_apply("abs", x), machine_apply("sqrt", x), select(x < y, x, y))[generator.integers(7)]
        known.append(made)
        (found,) = evaluate([made], values)
        low, high = span(made)
        inside = np.isnan(found) | ((low <= found) & (found <= high))
        assert inside.all(), (made, low, high)
        for op in NEVER:
            limit = const(float(generator.choice([-2.0, -1.5, 0.0, 0.5, 3.0])), dtype)
            if machine_apply(op, made, limit) is const(False, "bool"):
                folded += 1
                assert not INSTRUCTIONS[op].numpy(found, limit.value).any(), (op, made, limit)
    assert folded > 200
