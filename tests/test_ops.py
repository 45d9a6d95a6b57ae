"""The op table, row by row: values, types, derivatives, definitions, batching, live masks.

Everything here is driven by `TABLE`: a row without an entry in one of the oracle tables below fails
`test_every_row_has_an_oracle`.  Graphs are run by a small interpreter of their own, which compares the type of every
node with what its NumPy meaning returns.
"""
# ruff: noqa: E501  (tables: one case a line)
from __future__ import annotations

import itertools
import math
import zlib
from dataclasses import dataclass

import mpmath as mp
import numpy as np
import pytest
from scipy import special

import dsl
from dsl.ir.node import TABLE, Node, make, requirements, substitute, topological
from dsl.ir.types import ArrayType, Dim, Shapes, Size, TypeFault, is_float
from dsl.ops.calculus import DERIVATIVES
from dsl.ops.functions import FUNCTIONS
from dsl.ops.leaves import is_leaf, leaf
from dsl.ops.shape import FILL
from dsl.ops.table import Fault, constant
from dsl.passes.batch import lift, with_axis
from dsl.passes.grad import live_masks, reverse

FLOATS = ("float32", "float64")
INTS = ("int32", "int64")


# ---------------------------------------------------------------- running graphs
def symbol(name: str, dtype: str, shape=()) -> Node:
    return leaf("input", name, ArrayType(dtype, tuple(Dim.of(s) for s in shape)))


def resolved(value, sizes):
    match value:
        case Dim():
            return value.evaluate(sizes)
        case tuple():
            return tuple(resolved(v, sizes) for v in value)
        case _:
            return value


def run(roots, values=(), sizes=()) -> list:
    """The values of the graphs; every node's inferred type is compared with what came out."""
    sizes, slots = dict(sizes), dict(values)
    roots = list(roots)
    with np.errstate(all="ignore"):
        for node in topological(roots):
            if not is_leaf(node):
                slots[node] = node.op.numpy(*[slots[a] for a in node.args], **{k: resolved(v, sizes) for k, v in node.attrs})
            shape = tuple(d.evaluate(sizes) for d in node.shape)
            assert np.shape(slots[node]) == shape, f"{node} has shape {np.shape(slots[node])}, not {shape}"
            assert np.asarray(slots[node]).dtype == node.dtype, f"{node} is {np.asarray(slots[node]).dtype}"
            assert all(r.holds(sizes) for r in requirements(node)), f"{node} has a requirement that does not hold"
    return [slots[r] for r in roots]


def seeded(*parts) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(parts).encode()))


def same_bits(a, b) -> bool:
    """Equal bit for bit; one nan is as good as another."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind != "f":
        return bool(np.all(a == b))
    return bool(np.all((np.isnan(a) & np.isnan(b)) | ((a == b) & (np.signbit(a) == np.signbit(b)))))


def ulps(got, wanted) -> float:
    """The largest distance in units of the last place of the wanted value, or of 1/4 if that is larger."""
    got, wanted = np.atleast_1d(got), np.atleast_1d(wanted)
    with np.errstate(all="ignore"):
        far = np.abs(got - wanted) / np.spacing(np.maximum(np.abs(wanted), wanted.dtype.type(0.25)))
    return float(np.max(np.where(got == wanted, 0, far), initial=0))


# ---------------------------------------------------------------- oracles of element-wise ops
EXACT = {                                                       # NumPy's answer, bit for bit
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide, "neg": np.negative,
    "floordiv": np.floor_divide, "mod": np.mod,
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "and": np.logical_and, "or": np.logical_or, "not": np.logical_not, "where": np.where,
    "isnan": np.isnan, "isfinite": np.isfinite, "sqr": lambda x: x * x, "abs": np.abs, "sign": np.sign, "sqrt": np.sqrt,
    "floor": np.floor, "ceil": np.ceil, "round": np.round,
    "maximum": lambda a, b: np.where((a == 0) & (b == 0) & (np.signbit(a) != np.signbit(b)), np.zeros_like(a + b), np.maximum(a, b)),
    "minimum": lambda a, b: np.where((a == 0) & (b == 0) & (np.signbit(a) != np.signbit(b)), np.negative(np.zeros_like(a + b)), np.minimum(a, b)),
    "relu": lambda x: np.where(x == 0, np.zeros_like(x), np.maximum(x, 0)),
    "leaky_relu": lambda x: np.where(x > 0, x, x * x.dtype.type(0.01)),
    "softsign": lambda x: x / (1 + np.abs(x)), "clip": lambda x, low, high: EXACT["minimum"](EXACT["maximum"](x, low), high),
    "xmul": lambda x, y: np.where((x == 0) & ~np.isnan(y), np.zeros_like(x), x * y),
}
REAL = {                                                        # real numbers: mpmath with 40 digits, and how many ulp off
    "exp": (mp.exp, 1), "expm1": (mp.expm1, 1), "log": (mp.log, 1), "log1p": (lambda x: mp.log(1 + x), 1),
    "logaddexp": (lambda a, b: mp.log(mp.exp(a) + mp.exp(b)), 4), "xlogy": (lambda x, y: x * mp.log(y), 3),
    "pow": (mp.power, 1), "cbrt": (lambda x: mp.sign(x) * mp.cbrt(abs(x)), 2),
    "xlog1py": (lambda x, y: x * mp.log(1 + y), 3), "hypot": (mp.hypot, 2), "sin": (mp.sin, 1), "cos": (mp.cos, 1), "tan": (mp.tan, 1), "asin": (mp.asin, 1), "acos": (mp.acos, 1),
    "atan": (mp.atan, 1), "atan2": (mp.atan2, 2), "sinh": (mp.sinh, 2), "cosh": (mp.cosh, 1), "tanh": (mp.tanh, 2),
    "sigmoid": (lambda x: 1 / (1 + mp.exp(-x)), 3), "erf": (mp.erf, 2), "erfc": (mp.erfc, 4),
    "erfcx": (lambda x: mp.exp(x * x) * mp.erfc(x), 8), "lgamma": (lambda x: mp.log(abs(mp.gamma(x))), 20),
    "digamma": (mp.digamma, 20), "polygamma": (lambda x: mp.polygamma(2, x), 8),
    "softplus": (lambda x: mp.log(1 + mp.exp(x)), 4), "gelu": (lambda x: x * mp.erfc(-x / mp.sqrt(2)) / 2, 12),
    "silu": (lambda x: x / (1 + mp.exp(-x)), 4), "logit": (lambda p: mp.log(p / (1 - p)), 8),
    "log1mexp": (lambda x: mp.log(1 - mp.exp(x)), 4), "log_erfc": (lambda x: mp.log(mp.erfc(x)), 12),
}
SCIPY = {"xlogy": special.xlogy, "xlog1py": special.xlog1py, "pow": np.power, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
         "atan2": np.arctan2, "sigmoid": special.expit, "erf": special.erf, "erfc": special.erfc, "erfcx": special.erfcx,
         "lgamma": special.gammaln, "digamma": special.digamma, "logit": special.logit, "softplus": lambda x: np.logaddexp(0, x),
         "polygamma": lambda x: special.polygamma(2, x)}
NAN, INF = math.nan, math.inf
SPECIAL = {                                                     # the value at   nan  inf  -inf  -0.0, where no library has it
    "gelu": (NAN, INF, NAN, -0.0), "silu": (NAN, INF, NAN, -0.0),
    "log1mexp": (NAN, NAN, 0.0, -INF), "log_erfc": (NAN, -INF, math.log(2), 0.0),
}
SPECIALS = [NAN, INF, -INF, 0.0, -0.0, 5e-324, -5e-324, 1e-45, 1.0, -1.0, 0.5, 2.0, -2.5, 88.0, -104.0, 3e38, -3e38, 1.7e308, -1.7e308]
INTEGERS = [0, 1, -1, 2, 3, -7, 10, 2**31 - 1, -2**31, 2**53 + 1, 2**63 - 1, -2**63]
OTHER = {                                                       # rows with a test of their own, in this file or (loops) in test_scan.py
    "const", "cast", "stop_grad", "alias", "dim", "iota", "draw", "leaf", "compress", "scan", "iterate", *(op.name for op in DERIVATIVES)}
ATTRS = {"polygamma": {"order": 2}}

ELEMENTWISE = [op for op in TABLE.values() if op.elementwise and op.name not in OTHER]


def names(ops) -> list[str]:
    return [op.name for op in ops]


def operand_dtypes(op, dtype) -> list[str] | None:
    """Operand dtypes with `dtype` as the one that matters, None if the op does not take it."""
    dtypes = ["bool", dtype, dtype] if op.name == "where" else [dtype] * len(op.operands)
    try:
        op.infer(Shapes(), *[ArrayType(d) for d in dtypes], **ATTRS.get(op.name, {}))
    except TypeFault:
        return None
    return dtypes


def apply_op(op, *values, **attrs):
    """The op on arrays, through a node, so that types are checked."""
    arrays = [np.asarray(v)[()] for v in values]
    leaves = [symbol(f"x{i}", str(a.dtype), np.shape(a)) for i, a in enumerate(arrays)]
    (result,) = run([make(op, leaves, {**ATTRS.get(op.name, {}), **attrs})], zip(leaves, arrays, strict=True))
    return result


def samples(op, dtype, count, seed=0):
    rng = seeded(op.name, dtype, seed)
    low, high = op.domain
    return [rng.integers(0, 2, count).astype(bool) if d == "bool" else
            rng.integers(-9, 10, count).astype(d) if d in INTS else
            rng.uniform(low, high, count).astype(d) for d in operand_dtypes(op, dtype)]


def test_every_row_has_an_oracle():
    known = {*EXACT, *REAL, *OTHER, *(case.op for case in CASES)}
    assert set(TABLE) <= known, f"no oracle for {sorted(set(TABLE) - known)}: add one to a table of this file"
    assert known <= set(TABLE), f"oracles of no op: {sorted(known - set(TABLE))}"


@pytest.mark.parametrize("op", list(TABLE.values()), ids=names(TABLE.values()))
def test_a_row_is_whole(op):
    assert op.doc and op.doc[-1] not in ",;" and (op.numpy or op.name in ("leaf", *names(DERIVATIVES)))
    assert op.domain[0] < op.domain[1]
    if op.elementwise:
        assert op.batch and (op.partials or op.means), "an element-wise op needs batching and a derivative"
    if op.surface:
        assert op.name in FUNCTIONS and FUNCTIONS[op.name].doc == op.doc
    if op.vjp and not op.batch:
        raise AssertionError("an op with a derivative needs a batching rule: Jacobians lift it")


# ---------------------------------------------------------------- element-wise: values
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", ELEMENTWISE, ids=names(ELEMENTWISE))
def test_values_on_the_domain(op, dtype):
    if operand_dtypes(op, dtype) is None:
        assert op.name in ("and", "or", "not")
        return
    arrays = samples(op, dtype, 40)
    got = apply_op(op, *arrays)
    if op.name in EXACT:
        assert same_bits(got, EXACT[op.name](*arrays))
        return
    function, allowed = REAL[op.name]
    with mp.workdps(40):
        wanted = np.array([float(function(*map(mp.mpf, map(float, xs)))) for xs in zip(*arrays, strict=True)])
    assert ulps(got, wanted.astype(dtype)) <= allowed + (dtype == "float32")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", ELEMENTWISE, ids=names(ELEMENTWISE))
def test_special_values(op, dtype):
    """nan, infinities, both zeros, denormals and huge numbers, in every combination."""
    dtypes = operand_dtypes(op, dtype)
    if dtypes is None:
        return
    with np.errstate(all="ignore"):
        axes = [np.array([True, False]) if d == "bool" else np.array(SPECIALS).astype(d) for d in dtypes]
    if op.name == "clip":
        axes = [a[[0, 1, 2, 3, 4, 8, 9]] for a in axes]
    grid = [g.ravel() for g in np.meshgrid(*axes, indexing="ij")]
    got = apply_op(op, *grid)
    if op.name in SPECIAL:
        got = apply_op(op, np.array([NAN, INF, -INF, -0.0], dtype))
        assert np.allclose(got, SPECIAL[op.name], rtol=1e-6, equal_nan=True)
        return
    with np.errstate(all="ignore"):
        wanted = (EXACT.get(op.name) or SCIPY.get(op.name) or getattr(np, op.name))(*grid)
    if op.name in EXACT:
        assert same_bits(got, np.asarray(wanted, got.dtype))
    else:
        with np.errstate(all="ignore"):
            wanted = wanted.astype(dtype)
        assert np.allclose(got, wanted, rtol=1e-5 if dtype == "float32" else 1e-12, atol=1e-44, equal_nan=True)


@pytest.mark.parametrize("dtype", INTS)
@pytest.mark.parametrize("op", ELEMENTWISE, ids=names(ELEMENTWISE))
def test_integers_with_their_extremes(op, dtype):
    """Overflow wraps, `//` floors, `%` has the sign of the divisor; nothing passes through a float."""
    dtypes = operand_dtypes(op, dtype)
    if dtypes is None or op.name == "clip":
        return
    bounds = np.iinfo(dtype)
    numbers = np.array([i for i in INTEGERS if bounds.min <= i <= bounds.max], dtype)
    grid = [g.ravel() for g in np.meshgrid(*[np.array([True, False]) if d == "bool" else numbers for d in dtypes])]
    if op.name in ("floordiv", "mod"):
        grid = [g[grid[1] != 0] for g in grid]
    if op.name == "pow":
        grid = [g[(grid[1] >= 0) & (grid[1] < 100)] for g in grid]
    got = apply_op(op, *grid)
    with np.errstate(all="ignore"):
        wanted = (EXACT.get(op.name) or SCIPY[op.name])(*grid)
    if op.name in ("maximum", "minimum", "relu"):
        wanted = {"maximum": np.maximum, "minimum": np.minimum, "relu": lambda x: np.maximum(x, 0)}[op.name](*grid)
    assert same_bits(got, wanted.astype(got.dtype)) and np.array_equal(got, wanted)


def test_integer_division_floors_and_wraps():
    bounds = np.iinfo(np.int64)
    assert apply_op(TABLE["floordiv"], np.int64(-7), np.int64(2)) == -4 and apply_op(TABLE["mod"], np.int64(-7), np.int64(2)) == 1
    assert apply_op(TABLE["floordiv"], np.int64(bounds.min), np.int64(-1)) == bounds.min
    assert apply_op(TABLE["add"], np.int64(bounds.max), np.int64(1)) == bounds.min
    assert apply_op(TABLE["round"], np.int64(2**53 + 1)) == 2**53 + 1 == apply_op(TABLE["floor"], np.int64(2**53 + 1))


@pytest.mark.parametrize(("name", "operands", "code"), [
    ("floordiv", ([1, 2], [1, 0]), "E0701"), ("mod", (5, 0), "E0701"), ("pow", ([2, 2], [1, -1]), "E0703"),
])
def test_integer_faults(name, operands, code):
    with pytest.raises(Fault) as caught:
        apply_op(TABLE[name], *[np.array(x) for x in operands])
    assert caught.value.code == code and caught.value.help


CLIP = [(2.0, 0.0, 1.0, 1.0), (-1.0, 0.0, 1.0, 0.0), (0.5, 0.0, 1.0, 0.5), (-0.0, 0.0, 1.0, 0.0), (NAN, 0.0, 1.0, NAN), (0.5, NAN, 1.0, NAN),
        (0.5, 0.0, NAN, NAN), (5.0, 3.0, 1.0, 1.0), (INF, -INF, INF, INF), (-INF, 0.0, INF, 0.0), (0.0, -1.0, -0.0, -0.0)]


@pytest.mark.parametrize(("x", "low", "high", "wanted"), CLIP)
def test_clip(x, low, high, wanted):
    assert same_bits(apply_op(TABLE["clip"], x, low, high), np.float64(wanted))
    assert apply_op(TABLE["clip"], np.int64(7), np.int64(0), np.int64(5)) == 5


@pytest.mark.parametrize("op", [op for op in TABLE.values() if len(op.operands) == 2 and op.elementwise], ids=lambda op: op.name)
def test_the_commutative_flag_is_true(op):
    dtype = "bool" if operand_dtypes(op, "float64") is None else "float64"
    axis = np.array([True, False]) if dtype == "bool" else np.array(SPECIALS)
    a, b = (g.ravel() for g in np.meshgrid(axis, axis))
    x, y = samples(op, dtype, 50)
    commutes = same_bits(apply_op(op, a, b), apply_op(op, b, a)) and same_bits(apply_op(op, x, y), apply_op(op, y, x))
    assert op.commutative == commutes


SHAPES = [(), (1,), (4,), (3, 1), (3, 4), (0,), (3, 0), (2, 1, 4)]


@pytest.mark.parametrize("op", ELEMENTWISE, ids=names(ELEMENTWISE))
def test_types_and_broadcasting(op):
    """What is inferred is what NumPy returns (`run` compares), for every pair of shapes and every dtype taken."""
    for dtype in ("bool", *INTS, *FLOATS):
        dtypes = operand_dtypes(op, dtype)
        if dtypes is None:
            continue
        for first, other in itertools.combinations_with_replacement(SHAPES, 2):
            arrays = [np.ones((first, other, ())[i], d) for i, d in enumerate(dtypes)]
            try:
                wide = np.broadcast_shapes(*[a.shape for a in arrays])
            except ValueError:
                with pytest.raises(TypeFault, match="do not agree"):
                    apply_op(op, *arrays)
                continue
            assert np.shape(apply_op(op, *arrays)) == wide


@pytest.mark.parametrize("op", [op for op in ELEMENTWISE if op.coerce], ids=lambda op: op.name)
def test_operands_are_coerced(op):
    """Ints, bools and plain numbers become what the op takes; a float stays the float it is."""
    for dtype in ("bool", *INTS, *FLOATS):
        x = symbol("x", dtype, (2,))
        logic = operand_dtypes(op, "float64") is None
        if logic or op.name == "where":
            args = [symbol("c", "bool", (2,)), *[x] * (2 if op.name == "where" else 0)][:len(op.operands)]
            args += [symbol("c", "bool", (2,))] * (len(op.operands) - len(args))
            node = op(*args, precision="float32")
            assert node.dtype == ("bool" if logic else dtype)
            continue
        node = op(*[x] * len(op.operands), precision="float32")
        floats = operand_dtypes(op, "int64") is None
        given = dtype if dtype in FLOATS else "float32" if floats else "int64" if dtype == "bool" else dtype
        assert {a.dtype for a in node.args} == {given}
        if len(op.operands) == 2 and dtype in FLOATS:
            assert {a.dtype for a in op(x, 2, precision="float32").args} == {dtype}


def test_a_condition_is_bool():
    with pytest.raises(TypeFault, match="a condition is bool, not float64") as caught:
        TABLE["where"](symbol("x", "float64"), 1.0, 2.0)
    assert "x != 0" in caught.value.help


# ---------------------------------------------------------------- rows with a test of their own
@pytest.mark.parametrize("dtype", ["bool", *INTS, *FLOATS])
def test_const(dtype):
    node = constant(1, dtype)
    (value,) = run([node])
    assert value == 1 and value.dtype == dtype
    assert constant(0.0, "float64") is not constant(-0.0, "float64") and constant(NAN, "float64") is constant(NAN, "float64")
    assert constant(1, "int64") is not constant(True, "bool") and constant(0.1, "float32") is constant(float(np.float32(0.1)), "float32")
    assert run([constant(1e300, "float32")]) == [INF]


@pytest.mark.parametrize(("source", "target"), list(itertools.product(["bool", *INTS, *FLOATS], repeat=2)))
def test_cast(source, target):
    values = np.array([True, False] if source == "bool" else [0, 1, -2, 7] if source in INTS else [0.0, 1.5, -2.5, 7.9]).astype(source)
    assert same_bits(apply_op(TABLE["cast"], values, dtype=target), values.astype(target))
    assert apply_op(TABLE["cast"], values[:0], dtype=target).shape == (0,)


@pytest.mark.parametrize(("value", "source", "target", "fits"), [
    (NAN, "float64", "int64", False), (INF, "float32", "int32", False), (2.0**63, "float64", "int64", False), (-2.0**63, "float64", "int64", True),
    (2.0**31, "float32", "int32", False), (-2.0**31, "float32", "int32", True), (2147483647.9, "float64", "int32", True), (-2147483648.9, "float64", "int32", True),
    (-2147483649.0, "float64", "int32", False), (np.nextafter(2.0**63, 0), "float64", "int64", True),
])
def test_int_of_a_float_that_has_none(value, source, target, fits):
    array = np.array([1.0, value], source)
    if fits:
        assert apply_op(TABLE["cast"], array, dtype=target)[1] == int(array[1])
    else:
        with pytest.raises(Fault, match=f"has no value in {target}"):
            apply_op(TABLE["cast"], array, dtype=target)


def test_marks_leave_values_alone():
    x = np.array([1.0, NAN, -0.0])
    assert same_bits(apply_op(TABLE["stop_grad"], x), x) and same_bits(apply_op(TABLE["alias"], x, name="a"), x)
    node = symbol("x", "float64", (3,))
    for op, attrs, expected in (("stop_grad", {}, 0.0), ("alias", {"name": "a"}, 1.0)):
        (gradient,) = reverse(make(TABLE[op], [node], attrs), TABLE["expand"](constant(1.0, "float64"), shape=(Dim.of(3),)), [node])
        assert np.all(run([gradient], {node: x})[0] == expected)


def test_sizes_as_values():
    n = Dim.of(Size("n"))
    node = TABLE["dim"](dim=2 * n + 1)
    assert run([node, TABLE["iota"](length=n)], sizes={"n": 3})[0] == 7
    assert same_bits(run([TABLE["iota"](length=n)], sizes={"n": 4})[0], np.arange(4)) and run([TABLE["iota"](length=n)], sizes={"n": 0})[0].shape == (0,)


def test_compress():
    x, mask = symbol("x", "float64", (4, 2)), symbol("mask", "bool", (4,))
    array, picked = np.arange(8.0).reshape(4, 2), np.array([True, False, True, False])
    assert same_bits(run([make(TABLE["compress"], [x, mask], {"count": Dim.of(2)})], {x: array, mask: picked})[0], array[picked])
    with pytest.raises(TypeFault, match="a mask of 3 rows for 4 rows"):
        make(TABLE["compress"], [x, symbol("m", "bool", (3,))], {"count": Dim.of(2)})


# ---------------------------------------------------------------- array ops: cases
@dataclass(frozen=True)
class Case:
    """`shapes(n, m)` and `attrs(n, m)` in sizes that may be symbols; `wanted(*arrays)` is NumPy's answer."""

    op: str
    shapes: object
    attrs: object
    wanted: object
    dtypes: tuple = FLOATS
    sizes: tuple = ((3, 4), (1, 1), (4, 1), (1, 3), (0, 3), (3, 0))
    smooth: bool = True
    like: str = ""                                   # what the integers of an index operand run to

    def __str__(self):
        return self.op

    def arrays(self, n, m, dtype, lead=(), mapped=None, spread=None):
        rng = seeded(self.op, n, m, dtype)
        low, high = spread or TABLE[self.op].domain
        result = []
        for i, shape in enumerate(self.shapes(n, m)):
            *shape, kind = shape if shape and isinstance(shape[-1], str) else (*shape, dtype)
            full = (*lead, *shape) if mapped is None or mapped[i] else tuple(shape)
            if kind == "index":
                result.append(rng.integers(-n, n, full) if n else np.zeros(full, np.int64))
            elif kind == "bool":
                result.append(rng.integers(0, 2, full).astype(bool))
            elif kind in INTS:
                result.append(rng.integers(-3, 4, full).astype(kind))
            else:
                spaced = np.linspace(low + 0.17, high, math.prod(full))           # all different, none 0
                result.append(rng.permutation(spaced).reshape(full).astype(kind))
        return result

    def node(self, n, m, dtype):
        """The op over leaves, `n` and `m` being numbers or symbols."""
        leaves = []
        for i, shape in enumerate(self.shapes(n, m)):
            *shape, kind = shape if shape and isinstance(shape[-1], str) else (*shape, dtype)
            leaves.append(symbol(f"x{i}", "int64" if kind == "index" else kind, shape))
        attrs = {k: dims(v) for k, v in self.attrs(n, m).items()}
        return make(TABLE[self.op], leaves, attrs), leaves


def dims(value):
    """Lengths in attributes are `Dim`s; axes, steps and flags stay as they are."""
    return value() if callable(value) else value


def D(*lengths):
    return lambda: tuple(Dim.of(x) for x in lengths)


def W(*items):
    return lambda: tuple((Dim.of(s), Dim.of(n), k) for s, n, k in items)


def axes(*chosen, keepdims=None, **more):
    return lambda n, m: {"axes": chosen, **({} if keepdims is None else {"keepdims": keepdims}), **more}


matrix = lambda n, m: [(n, m)]
cube = lambda n, m: [(n, 2, m)]
none = lambda n, m: {}
NONEMPTY = ((3, 4), (1, 1), (4, 1), (1, 3))


def reductions(op, function, **more):
    return [Case(op, matrix, axes(-1, keepdims=False), lambda x: function(x, axis=-1), **more),
            Case(op, matrix, axes(-2, keepdims=True), lambda x: function(x, axis=-2, keepdims=True), **more),
            Case(op, cube, axes(-3, -1, keepdims=False), lambda x: function(x.swapaxes(0, 1).reshape(2, -1), axis=1), **more),
            Case(op, cube, axes(-3, -2, -1, keepdims=True), lambda x: np.reshape(function(x.ravel(), axis=0), (1, 1, 1)), **more),
            Case(op, matrix, axes(keepdims=False), lambda x: np.reshape(function(x.reshape(1, -1), axis=0), x.shape), **more)]


def logsumexp(x, axis, keepdims=False):
    if x.shape[axis] == 0:
        return np.full(np.sum(x, axis=axis, keepdims=keepdims).shape, -np.inf, x.dtype)
    return special.logsumexp(x, axis=axis, keepdims=keepdims)


def mean_of(x, axis, keepdims=False):
    return np.sum(x, axis=axis, keepdims=keepdims) / np.float64(x.shape[axis])


def var_of(x, axis, keepdims=False):
    return mean_of((x - mean_of(x, axis, True)) ** 2, axis, keepdims)


def others(x):
    return np.array([[np.prod(np.delete(row, j)) for j in range(len(row))] for row in x]).reshape(x.shape)


def running(a, b):
    out = []
    for i in range(b.shape[-1]):
        out.append(b[..., i] + (a[..., i] * out[-1] if out else 0))
    return np.stack(out, -1) if out else b


def scattered(g, i, shape):
    out = np.zeros(shape)
    for place, row in zip(i, g, strict=True):
        out[place] += row
    return out


COUNTED = (*INTS, *FLOATS)
CASES = [
    Case("reshape", matrix, lambda n, m: {"shape": D(m, n)}, lambda x: x.reshape(x.shape[::-1]), dtypes=("bool", *COUNTED)),
    Case("reshape", matrix, lambda n, m: {"shape": D(n * m)}, np.ravel),
    Case("transpose", cube, lambda n, m: {"axes": (-2, -1, -3)}, lambda x: np.transpose(x, (1, 2, 0)), dtypes=("bool", *COUNTED)),
    Case("transpose", cube, lambda n, m: {"axes": (-1, -2)}, lambda x: x.swapaxes(1, 2)),
    Case("expand", lambda n, m: [(n, 1)], lambda n, m: {"shape": D(2, n, m)}, None, dtypes=("bool", *COUNTED)),
    Case("expand", lambda n, m: [()], lambda n, m: {"shape": D(n, m)}, None),
    Case("sum_to", matrix, lambda n, m: {"shape": D(1, m)}, lambda x: x.sum(0, keepdims=True)),
    Case("sum_to", lambda n, m: [(2, n, m)], lambda n, m: {"shape": D(m)}, lambda x: x.sum((0, 1))),
    Case("sum_to", matrix, lambda n, m: {"shape": D()}, np.sum),
    Case("concat", lambda n, m: [(n, m), (2, m), (n, m)], lambda n, m: {"axis": -2}, lambda *xs: np.concatenate(xs), dtypes=("bool", *COUNTED)),
    Case("concat", lambda n, m: [(n, m), (n, 1)], lambda n, m: {"axis": -1}, lambda *xs: np.concatenate(xs, 1)),
    Case("slice", matrix, lambda n, m: {"items": W((1, n - 1, 1), (0, m, 1))}, lambda x: x[1:], sizes=((3, 4), (1, 2), (4, 0)), dtypes=("bool", *COUNTED)),
    Case("slice", matrix, lambda n, m: {"items": W((m - 1, m, -1))}, lambda x: x[:, ::-1]),
    Case("slice", lambda n, m: [(7, n)], lambda n, m: {"items": W((1, 3, 2), (0, n, 1))}, lambda x: x[1:7:2]),
    Case("slice", lambda n, m: [(7, n)], lambda n, m: {"items": W((5, 3, -2), (0, n, 1))}, lambda x: x[5::-2]),
    Case("unslice", lambda n, m: [(n, 3)], lambda n, m: {"items": W((1, 3, 2)), "shape": D(m + 6)}, None),
    Case("gather", lambda n, m: [(n, m), (5, "index")], none, lambda x, i: x[i], sizes=NONEMPTY, dtypes=("bool", *COUNTED)),
    Case("gather", lambda n, m: [(n, n, m), (2, 1, "index"), (3, "index")], none, lambda x, i, j: x[i, j], sizes=NONEMPTY),
    Case("gather", lambda n, m: [(n, m), ("index",)], none, lambda x, i: x[i], sizes=NONEMPTY),
    Case("gather", lambda n, m: [(n, m), (5, "index")], lambda n, m: {"fill": True}, lambda x, i: x[i], sizes=NONEMPTY),
    Case("scatter_add", lambda n, m: [(5, m), (5, "index")], lambda n, m: {"shape": D(n, m)}, None, sizes=NONEMPTY),
    Case("scatter_add", lambda n, m: [(2, 3, m), (2, 1, "index"), (3, "index")], lambda n, m: {"shape": D(n, n, m)}, None, sizes=NONEMPTY),
    Case("sort", matrix, none, lambda x: np.sort(x, -1), dtypes=COUNTED),
    Case("argsort", matrix, none, lambda x: np.argsort(x, -1, kind="stable"), dtypes=COUNTED, smooth=False),
    *[Case("matmul", lambda n, m, a=a, b=b: [a(n, m), b(n, m)], none, np.matmul, dtypes=COUNTED) for a, b in (
        (lambda n, m: (n, m), lambda n, m: (m, 2)), (lambda n, m: (n, m), lambda n, m: (m,)), (lambda n, m: (n,), lambda n, m: (n, m)),
        (lambda n, m: (n,), lambda n, m: (n,)), (lambda n, m: (2, n, m), lambda n, m: (m, 3)), (lambda n, m: (n, m), lambda n, m: (2, m, n)),
        (lambda n, m: (3, 1, n, m), lambda n, m: (2, m, n)), (lambda n, m: (2, n, m), lambda n, m: (m,)), (lambda n, m: (n,), lambda n, m: (2, n, m)))],
    *reductions("sum", np.sum, dtypes=COUNTED), *reductions("prod", np.prod, dtypes=COUNTED), *reductions("mean", mean_of),
    *reductions("max", np.max, dtypes=COUNTED, sizes=NONEMPTY), *reductions("min", np.min, dtypes=COUNTED, sizes=NONEMPTY),
    *reductions("var", var_of), *reductions("std", lambda x, **kw: np.sqrt(var_of(x, **kw)), sizes=((3, 4), (4, 3), (5, 1), (1, 5), (0, 3))),
    Case("var", matrix, axes(-2, keepdims=False, ddof=1), lambda x: np.var(x, axis=0, ddof=1), sizes=((3, 4), (2, 1), (3, 0))),
    Case("std", matrix, axes(-1, keepdims=False, ddof=1), lambda x: np.std(x, axis=1, ddof=1), sizes=((3, 4), (1, 2), (0, 3))),
    *reductions("norm", lambda x, axis, keepdims=False: np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims))),
    *reductions("logsumexp", logsumexp),
    *reductions("any", np.any, dtypes=("bool",), smooth=False), *reductions("all", np.all, dtypes=("bool",), smooth=False),
    *[Case(op, matrix, axes(-1, keepdims=False), lambda x, f=f: f(x, axis=-1), dtypes=COUNTED, sizes=NONEMPTY, smooth=False) for op, f in (("argmax", np.argmax), ("argmin", np.argmin))],
    *[Case(op, matrix, axes(-2, keepdims=True), lambda x, f=f: f(x, axis=0, keepdims=True), sizes=NONEMPTY, smooth=False) for op, f in (("argmax", np.argmax), ("argmin", np.argmin))],
    *[Case(op, matrix, axes(-2, -1, keepdims=False), lambda x, f=f: f(x), sizes=NONEMPTY, smooth=False) for op, f in (("argmax", np.argmax), ("argmin", np.argmin))],
    *[Case("softmax", matrix, axes(a), lambda x, a=a: special.softmax(x, axis=a) if x.size else x) for a in (-1, -2)],
    *[Case("log_softmax", matrix, axes(a), lambda x, a=a: special.log_softmax(x, axis=a) if x.size else x) for a in (-1, -2)],
    Case("softmax", cube, axes(-3, -1), lambda x: special.softmax(x, axis=(0, 2)) if x.size else x),
    Case("other_product", matrix, axes(-1), others),
    Case("other_product", matrix, axes(-2), lambda x: others(x.T).T),
    *[Case(op, matrix, axes(a), lambda x, f=f, a=a: f(x, axis=a), dtypes=COUNTED) for op, f in (("cumsum", np.cumsum), ("cumprod", np.cumprod)) for a in (-1, -2)],
    *[Case(op, matrix, axes(-1, reverse=True), lambda x, f=f: f(x[:, ::-1], axis=1)[:, ::-1]) for op, f in (("cumsum", np.cumsum), ("cumprod", np.cumprod))],
    Case("recurrence", lambda n, m: [(n, m), (n, m)], lambda n, m: {"reverse": False}, running),
    Case("recurrence", lambda n, m: [(n, m), (n, m)], lambda n, m: {"reverse": True}, lambda a, b: running(a[..., ::-1], b[..., ::-1])[..., ::-1]),
]
IDS = [f"{c.op}-{i}" for i, c in enumerate(CASES)]


def expected(case, arrays, n, m):
    """NumPy's answer, for the few ops whose answer needs the attributes too."""
    attrs = {k: dims(v) for k, v in case.attrs(n, m).items()}
    shape = tuple(int(d.constant) for d in attrs["shape"]) if "shape" in attrs else ()
    match case.op:
        case "expand":
            return np.broadcast_to(arrays[0], shape)
        case "scatter_add":
            out = np.zeros(shape)
            np.add.at(out, tuple(arrays[1:]), arrays[0])
            return out
        case "unslice":
            out = np.zeros((*arrays[0].shape[:-1], *shape))
            out[..., 1:7:2] = arrays[0]
            return out
        case _:
            return case.wanted(*arrays)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_array_values_and_types(case):
    """The value, and the inferred type with numbers and with symbols for the sizes."""
    a, b = Dim.of(Size("n")), Dim.of(Size("m", named=False))
    for dtype in case.dtypes:
        for n, m in case.sizes:
            arrays = case.arrays(n, m, dtype)
            node, leaves = case.node(n, m, dtype)
            (got,) = run([node], zip(leaves, arrays, strict=True))
            with np.errstate(all="ignore"):
                wanted = np.asarray(expected(case, arrays, n, m))
            close = {"rtol": 2e-6 if dtype == "float32" else 1e-13, "atol": 1e-6 if dtype == "float32" else 1e-14}
            assert np.allclose(got, wanted, **close, equal_nan=True) and np.shape(got) == wanted.shape
            general, leaves = case.node(a, b, dtype)
            (again,) = run([general], zip(leaves, arrays, strict=True), {"n": n, "m": m})
            assert same_bits(again, got)
            (fixed,) = substitute([general], {}, {"n": Dim.of(n), "m": Dim.of(m)})
            assert fixed.type == ArrayType(node.dtype, tuple(Dim.of(d) for d in np.shape(got)))


# ---------------------------------------------------------------- derivatives
def directional(root, leaves, arrays, targets, seeds, step=1e-5, sizes=(), rtol=1e-6):
    """Gradients of `sum(weights * root)` against central differences along random directions."""
    rng = seeded(*seeds)
    weights = symbol("weights", root.dtype, root.shape)
    values = dict(zip(leaves, arrays, strict=True))
    values[weights] = rng.uniform(0.5, 1.5, [d.evaluate(dict(sizes)) for d in root.shape])[()]
    gradients = reverse(root, weights, targets)
    for target, gradient in zip(targets, run(gradients, values, sizes), strict=True):
        assert np.all(np.isfinite(gradient))
        for _ in range(2):
            direction = rng.normal(size=np.shape(values[target]))
            up, down = (run([root], {**values, target: values[target] + s * step * direction}, sizes)[0] for s in (1, -1))
            wanted = np.sum(values[weights] * (up - down)) / (2 * step)
            got = np.sum(gradient * direction)
            assert abs(got - wanted) <= rtol * (1 + abs(wanted)), f"{got} against {wanted}"
    return gradients, values


@pytest.mark.parametrize("op", [op for op in ELEMENTWISE if operand_dtypes(op, "float64")], ids=lambda op: op.name)
def test_element_wise_derivatives(op):
    """First and second, at points of the domain away from kinks."""
    arrays = samples(op, "float64", 30, seed=1)
    if op.name in ("floor", "ceil", "round", "floordiv"):
        arrays = [np.floor(x) + 0.3 * (1 + i) for i, x in enumerate(arrays)]
    if op.name == "mod":
        arrays = [np.floor(arrays[0]) + 0.3, np.where(arrays[1] > 0, 1.17, -1.43)]
    if op.name == "clip":
        arrays = [arrays[0], -1 - 0.2 * np.abs(arrays[1]), 1 + 0.2 * np.abs(arrays[2])]
    shapes = [(30,)] * len(arrays)
    leaves = [symbol(f"x{i}", str(a.dtype), s) for i, (a, s) in enumerate(zip(arrays, shapes, strict=True))]
    root = make(op, leaves, ATTRS.get(op.name, {}))
    if not is_float(root.dtype):
        return
    targets = [x for x in leaves if is_float(x.dtype)]
    gradients, values = directional(root, leaves, arrays, targets, (op.name,))
    second = [g for g in gradients if not is_leaf(g)]
    for gradient in second:
        directional(gradient, list(values), list(values.values()), [t for t in targets if t in topological([gradient])], (op.name, 2), rtol=1e-5)


@pytest.mark.parametrize("case", [c for c in CASES if c.smooth], ids=[i for c, i in zip(CASES, IDS, strict=True) if c.smooth])
def test_array_derivatives(case):
    for n, m in case.sizes:
        arrays = case.arrays(n, m, "float64")
        node, leaves = case.node(n, m, "float64")
        targets = [x for x in leaves if is_float(x.dtype)]
        if any(a == 0 for a in (n, m)) or (case.op == "std" and not np.all(run([node], zip(leaves, arrays, strict=True))[0] > 0)):
            for t, g in zip(targets, run(reverse(node, node, targets), zip(leaves, arrays, strict=True)), strict=True):
                assert g.shape == tuple(d.constant for d in t.shape)
            continue
        gradients, values = directional(node, leaves, arrays, targets, (case.op, n, m))
        for gradient in gradients:
            inside = [t for t in targets if t in topological([gradient])]
            if inside:
                directional(gradient, list(values), list(values.values()), inside, (case.op, n, m, 2), rtol=1e-5)


KINKS = [                                            # expression of x, where, its derivative there (LANGUAGE, section 5)
    ("abs(x)", 0.0, 0.0), ("abs(x)", -0.0, 0.0), ("relu(x)", 0.0, 0.0), ("maximum(x, 0)", 0.0, 0.0), ("minimum(x, 0)", 0.0, 0.0),
    ("maximum(0, x)", 0.0, 0.0), ("maximum(x, -x)", 0.0, 0.0), ("maximum(x, 2 * x)", 0.0, 1.5), ("minimum(x, 3 * x)", 0.0, 2.0),
    ("clip(x, 0, 1)", 0.0, 1.0), ("clip(x, 0, 1)", 1.0, 1.0), ("clip(x, 0, 1)", 1.5, 0.0), ("clip(x, 0, 1)", -0.5, 0.0),
    ("minimum(maximum(x, 0), 1)", 0.0, 0.0), ("clip(2.0, 3, x)", 1.0, 1.0), ("clip(0.5, x, 0.25)", 0.75, 0.0),
    ("x ** 0", 0.0, 0.0), ("x ** 0", 2.0, 0.0), ("x ** 1", 0.0, 1.0), ("x ** 2", 0.0, 0.0), ("0.0 ** x", 1.0, 0.0), ("x ** 3", -2.0, 12.0),
    ("sqr(x)", 0.0, 0.0), ("sign(x)", 0.0, 0.0), ("floor(x)", 1.0, 0.0), ("round(x)", 0.5, 0.0), ("leaky_relu(x)", 0.0, 0.01),
    ("hypot(x, 0.0)", 0.0, 0.0), ("atan2(x, 0.0)", 0.0, 0.0), ("norm([x, 0 * x])", 0.0, 0.0), ("std([x, x])", 1.0, 0.0),
    ("prod([x, 2.0, 3.0])", 0.0, 6.0), ("prod([x, x])", 0.0, 0.0), ("prod([x, 0.0, 3.0])", 1.0, 0.0), ("max([x, x])", 1.0, 1.0),
    ("max([x, 1.0])", 1.0, 0.5), ("min([x, x, 1.0])", 1.0, 2 / 3), ("where(x > 0, sqrt(x), 0)", 0.0, 0.0), ("where(x > 0, log(x), x)", -1.0, 1.0),
    ("xlogy(x, 2.0)", 0.0, math.log(2)), ("xlogy(0.0, x)", 0.0, 0.0), ("sqrt(x)", 4.0, 0.25), ("softsign(x)", 0.0, 1.0),
    ("logsumexp([x, -inf])", 1.0, 1.0), ("logsumexp([x, x])", 0.0, 1.0), ("logaddexp(x, -inf)", 0.0, 1.0), ("logaddexp(x, x)", -INF, 0.0), ("sigmoid(x)", 800.0, 0.0), ("softplus(x)", 800.0, 1.0), ("log(1 + exp(x))", 800.0, 1.0), ("tanh(x)", 400.0, 0.0),
    ("huber(x)", 1.0, 1.0), ("huber(x)", -1.0, -1.0), ("bce(x, 0)", 0.0, 1.0), ("bce(x, 1)", 1.0, -1.0), ("bce_logits(x, 1)", 0.0, -0.5), ("bce_logits(x, 0)", 40.0, 1.0),
    ("cumprod([x, 0.0, x])[2]", 1.0, 0.0), ("cumprod([x, x])[1]", 0.0, 0.0), ("sort([x, 1.0])[0]", 0.0, 1.0), ("x % 2", 1.0, 1.0), ("x // 2", 1.0, 0.0),
]


@pytest.mark.parametrize(("text", "at", "wanted"), KINKS)
def test_defined_derivatives(text, at, wanted):
    m = dsl.compile(f"scalar x; let y = {text}; grad g = y wrt x")
    assert float(m.eval("g", x=at)) == pytest.approx(wanted, abs=1e-300)


# ---------------------------------------------------------------- definitions
@pytest.mark.parametrize("op", [op for op in ELEMENTWISE if op.means], ids=lambda op: op.name)
def test_a_definition_means_the_same(op):
    for dtype in FLOATS:
        arrays = samples(op, dtype, 60, seed=2)
        leaves = [symbol(f"x{i}", dtype, (60,)) for i in range(len(arrays))]
        whole, defined = run([make(op, leaves), op.means(*leaves)], zip(leaves, arrays, strict=True))
        assert whole.dtype == defined.dtype == dtype
        assert np.allclose(whole, defined, rtol=1e-5 if dtype == "float32" else 1e-12, atol=1e-6 if dtype == "float32" else 1e-14)
        assert all(not inner.op.means or inner.op is not op for inner in topological([op.means(*leaves)]))


@pytest.mark.parametrize("case", [c for c in CASES if TABLE[c.op].means], ids=[i for c, i in zip(CASES, IDS, strict=True) if TABLE[c.op].means])
def test_a_definition_of_an_array_op_means_the_same(case):
    for n, m in case.sizes:
        arrays = case.arrays(n, m, "float64")
        node, leaves = case.node(n, m, "float64")
        if not np.all([arrays[0].size]) and case.op in ("softmax", "log_softmax"):
            continue
        whole, defined = run([node, node.op.means(*leaves, **dict(node.attrs))], zip(leaves, arrays, strict=True))
        assert np.allclose(whole, defined, rtol=1e-12, atol=1e-14, equal_nan=True)


# ---------------------------------------------------------------- batching
def mapping(count):
    return [flags for flags in itertools.product([False, True], repeat=count) if any(flags)]


def check_lift(node, leaves, arrays, flags, rows, sizes=(), symbolic=True):
    """The lifted graph equals the graph run once a row."""
    length = Dim.of(Size("rows")) if symbolic else Dim.of(rows)
    given = {x: symbol(f"rows of {i}", x.dtype, (length, *x.shape)) for i, (x, f) in enumerate(zip(leaves, flags, strict=True)) if f}
    (lifted,), (has_axis,) = lift([node], given, length)
    assert has_axis and lifted.type == ArrayType(node.dtype, (length, *node.shape))
    values = {given.get(x, x): a for x, a in zip(leaves, arrays, strict=True)}
    (got,) = run([lifted], values, {**dict(sizes), "rows": rows})
    for i in range(rows):
        (row,) = run([node], {x: a[i] if f else a for x, a, f in zip(leaves, arrays, flags, strict=True)}, sizes)
        assert np.allclose(got[i], row, rtol=1e-12, atol=1e-14, equal_nan=True)
    return got


@pytest.mark.parametrize("op", ELEMENTWISE, ids=names(ELEMENTWISE))
def test_element_wise_ops_over_one_more_axis(op):
    dtype = "bool" if operand_dtypes(op, "float64") is None else "float64"
    dtypes = operand_dtypes(op, dtype)
    rng = seeded(op.name, "lift")
    for shapes in itertools.product([(), (3,), (2, 1), (2, 3)], repeat=min(2, len(dtypes))):
        shapes = (*shapes, ())[:len(dtypes)]
        for flags in mapping(len(dtypes)):
            arrays = [np.asarray(rng.uniform(*op.domain, ((2,) if f else ()) + s) if d != "bool" else rng.integers(0, 2, ((2,) if f else ()) + s)).astype(d)[()]
                      for s, d, f in zip(shapes, dtypes, flags, strict=True)]
            leaves = [symbol(f"x{i}", d, s) for i, (d, s) in enumerate(zip(dtypes, shapes, strict=True))]
            check_lift(make(op, leaves, ATTRS.get(op.name, {})), leaves, arrays, flags, 2)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_array_ops_over_one_more_axis(case):
    dtype = case.dtypes[-1]
    n, m = case.sizes[0]
    for rows in (2, 1, 0):
        for flags in mapping(len(case.shapes(n, m))):
            arrays = case.arrays(n, m, dtype, (rows,), flags)
            node, leaves = case.node(n, m, dtype)
            check_lift(node, leaves, arrays, flags, rows, symbolic=rows != 1)
            general, leaves = case.node(Dim.of(Size("n")), Dim.of(Size("m")), dtype)
            check_lift(general, leaves, arrays, flags, rows, {"n": n, "m": m}, symbolic=rows != 1)


@pytest.mark.parametrize("name", ["cast", "stop_grad", "alias"])
def test_marks_over_one_more_axis(name):
    x = symbol("x", "float64", (3,))
    node = make(TABLE[name], [x], {"cast": {"dtype": "float32"}, "alias": {"name": "a"}}.get(name, {}))
    check_lift(node, [x], [np.arange(6.0).reshape(2, 3)], [True], 2)


def test_draws_over_one_more_axis_are_one_a_row():
    step = symbol("step", "int64")
    for kind in ("uniform", "normal"):
        node = TABLE["draw"](step, kind=kind, key=7, shape=(Dim.of(3),), dtype="float64")
        (lifted,), (has_axis,) = lift([node], {}, Dim.of(4))
        assert has_axis
        one, rows = run([node, lifted], {step: np.int64(5)})
        assert rows.shape == (4, 3) and len(np.unique(rows)) == 12 and same_bits(rows[0], one)
    shuffled = TABLE["draw"](step, kind="permutation", key=7, shape=(Dim.of(5),), dtype="int64")
    assert sorted(run([shuffled], {step: np.int64(0)})[0]) == [0, 1, 2, 3, 4]
    assert lift([shuffled], {}, Dim.of(4))[1] == [False]
    assert run([TABLE["draw"](step, kind="normal", key=7, shape=(), dtype="float32")], {step: np.int64(0)})[0].dtype == "float32"


def test_what_depends_on_nothing_mapped_stays():
    x, y = symbol("x", "float64", (3,)), symbol("y", "float64", (3,))
    (a, b), flags = lift([x + y, TABLE["exp"](y)], {x: symbol("rows", "float64", (2, 3))}, Dim.of(2))
    assert flags == [True, False] and b is TABLE["exp"](y) and with_axis(b, False, Dim.of(2)).shape == a.shape


# ---------------------------------------------------------------- live masks
MASKED = [c for c in CASES if (TABLE[c.op].live or (TABLE[c.op].structural and TABLE[c.op].vjp)) and c.op != "sort"]    # there every element matters


@pytest.mark.parametrize("case", MASKED, ids=[i for c, i in zip(CASES, IDS, strict=True) if c in MASKED])
def test_dead_elements_do_not_matter(case):
    """With nan in every operand element that an output mask leaves unused, the live outputs are what they were."""
    n, m = case.sizes[0]
    dtype = "float64" if "float64" in case.dtypes else "bool"
    node, leaves = case.node(n, m, dtype)
    arrays = case.arrays(n, m, dtype)
    mask = symbol("mask", "bool", node.shape)
    rng = seeded(case.op, "mask")
    masks = live_masks(mask, node)
    values = dict(zip(leaves, arrays, strict=True))
    (before,) = run([node], values)
    for density in (0.0, 0.2, 0.6, 1.0):
        alive = rng.random(np.shape(before)) < density
        changed = dict(values)
        for x, live in zip(leaves, masks, strict=True):
            if live is None or x.dtype != dtype:
                continue
            assert live.dtype == "bool" and live.shape == x.shape
            (used,) = run([live], {**values, mask: alive})
            changed[x] = np.where(used, values[x], np.nan if dtype == "float64" else ~values[x])[()]
            if density == 1.0 and case.op not in ("slice", "gather", "scatter_add"):
                assert np.all(used)
            if density == 0.0:
                assert not np.any(used)
        if any(not c.any() for c in [alive]):
            continue
        (after,) = run([node], changed)
        assert same_bits(np.asarray(after)[alive], np.asarray(before)[alive])


def test_a_filled_gather_reads_nothing_where_it_is_dead():
    x, i = symbol("x", "float64", (3,)), symbol("i", "int64", (4,))
    node = make(TABLE["gather"], [x, i], {"fill": True})
    assert same_bits(run([node], {x: np.array([1.0, 2.0, NAN]), i: np.array([0, FILL, -2, FILL])})[0], np.array([1.0, 0.0, 2.0, 0.0]))
    empty = symbol("e", "float64", (0,))
    assert same_bits(run([make(TABLE["gather"], [empty, i], {"fill": True})], {empty: np.zeros(0), i: np.full(4, FILL)})[0], np.zeros(4))
    g = symbol("g", "float64", (4,))
    back = make(TABLE["scatter_add"], [g, i], {"shape": (Dim.of(3),), "fill": True})
    assert same_bits(run([back], {g: np.array([1.0, NAN, 2.0, NAN]), i: np.array([0, FILL, 0, FILL])})[0], np.array([3.0, 0.0, 0.0]))
    with pytest.raises(Fault, match="index 3 is out of range for an axis of length 3"):
        run([node], {x: np.ones(3), i: np.array([0, FILL, 3, FILL])})


# ---------------------------------------------------------------- accuracy and order
def test_float32_sums_are_accumulated_wide():
    many = np.ones(2**24 + 4, np.float32)
    assert apply_op(TABLE["sum"], many, axes=(-1,), keepdims=False) == 2**24 + 4
    assert apply_op(TABLE["cumsum"], many, axes=(-1,))[-1] == 2**24 + 4
    assert apply_op(TABLE["sum_to"], many, shape=()) == 2**24 + 4
    columns = np.full((5 * 10**5, 2), 0.1, np.float32)                         # NumPy's own float32 sum is off by a percent
    assert np.all(np.abs(apply_op(TABLE["mean"], columns, axes=(-2,), keepdims=False) - np.float32(0.1)) <= 1e-8)
    assert np.abs(np.mean(columns, axis=0)[0] - 0.1) > 1e-5
    few = np.array([2**24, 1, 1, 1, 1], np.float32)
    assert apply_op(TABLE["scatter_add"], few, np.zeros(5, np.int64), shape=(1,))[0] == 2**24 + 4
    assert apply_op(TABLE["var"], np.float32(1e4) + np.float32([0, 1, 2, 3]), axes=(-1,), keepdims=False) == 1.25


def test_integer_sums_are_wide():
    x = np.full(3, 2**31 - 1, np.int32)
    assert apply_op(TABLE["sum"], x, axes=(-1,), keepdims=False) == 3 * (2**31 - 1)
    assert apply_op(TABLE["prod"], x[:2], axes=(-1,), keepdims=False) == (2**31 - 1) ** 2
    assert apply_op(TABLE["cumsum"], x, axes=(-1,))[2] == 3 * (2**31 - 1)


@pytest.mark.parametrize("place", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("dtype", FLOATS)
def test_extremes_carry_nan_from_anywhere(place, dtype):
    x = np.array([3, -1, INF, -INF, 0], dtype)
    x[place] = NAN
    for name in ("max", "min"):
        assert np.isnan(apply_op(TABLE[name], x, axes=(-1,), keepdims=False))
    for name in ("argmax", "argmin"):
        assert apply_op(TABLE[name], np.append(x, NAN).astype(dtype), axes=(-1,), keepdims=False) == place


@pytest.mark.parametrize("values", [[0.0, -0.0], [-0.0, 0.0], [-0.0, -0.0], [0.0, -0.0, -INF], [INF, -0.0, 0.0], [0.0, -INF], [0.0, INF],
                                    [-0.0, -1.0], [-0.0, 1.0], [0.0, -1.0, NAN]])
@pytest.mark.parametrize("dtype", FLOATS)
def test_extremes_know_the_sign_of_zero(values, dtype):
    """+0 beats -0 in `max`, -0 beats +0 in `min`, in whatever order they come."""
    def key(v):
        return v, math.copysign(1, v)
    for order in itertools.permutations(values):
        x = np.array(order, dtype)
        for name, pick in (("max", max), ("min", min)):
            wanted = NAN if any(map(math.isnan, values)) else pick(values, key=key)
            assert same_bits(apply_op(TABLE[name], x, axes=(-1,), keepdims=False), np.array(wanted, dtype)[()])


@pytest.mark.parametrize(("name", "value"), [("sum", 0.0), ("prod", 1.0), ("norm", 0.0), ("logsumexp", -INF), ("any", False), ("all", True), ("mean", NAN)])
def test_the_value_of_nothing_is_the_unit(name, value):
    op = TABLE[name]
    got = apply_op(op, np.zeros((2, 0), bool if name in ("any", "all") else float), axes=(-1,), keepdims=False)
    assert same_bits(got, np.full(2, value)) and same_bits(np.array(op.unit, got.dtype), got[0])


@pytest.mark.parametrize("name", ["max", "min", "argmax", "argmin"])
def test_an_extreme_of_nothing_is_an_error(name):
    n = Dim.of(Size("n"))
    with pytest.raises(Fault, match="of no elements"):
        apply_op(TABLE[name], np.zeros((2, 0)), axes=(-1,), keepdims=False)
    with pytest.raises(dsl.LrError, match=f"`{name}` of no elements"):
        dsl.compile(f"let y = {name}(zeros(0))")
    x = symbol("x", "float64", (n,))
    with pytest.raises(Fault, match=f"`{name}` of no elements"):
        run([make(TABLE[name], [x], {"axes": (-1,), "keepdims": False})], {x: np.zeros(0)}, {"n": 0})


def test_norms_and_softmax_without_overflow():
    one = {"axes": (-1,), "keepdims": False}
    assert apply_op(TABLE["norm"], np.array([3e200, 4e200]), **one) == pytest.approx(5e200)
    assert apply_op(TABLE["norm"], np.array([3e-200, 4e-200]), **one) == pytest.approx(5e-200)
    assert apply_op(TABLE["norm"], np.float32([3e30, 4e30]), **one) == pytest.approx(5e30)
    assert apply_op(TABLE["norm"], np.array([INF, 1.0]), **one) == INF and np.isnan(apply_op(TABLE["norm"], np.array([INF, NAN]), **one))
    assert apply_op(TABLE["logsumexp"], np.array([1000.0, 1000.0]), **one) == pytest.approx(1000 + math.log(2))
    assert apply_op(TABLE["logsumexp"], np.array([-INF, -INF]), **one) == -INF and apply_op(TABLE["logsumexp"], np.array([INF, 0.0]), **one) == INF
    assert np.allclose(apply_op(TABLE["softmax"], np.array([1000.0, 0.0, -INF]), axes=(-1,)), [1, 0, 0])
    assert np.allclose(apply_op(TABLE["log_softmax"], np.array([1000.0, 0.0]), axes=(-1,)), [0, -1000])
    assert apply_op(TABLE["prod"], np.array([1e200, 1e200, 0.0]), **one) == 0 and np.isnan(apply_op(TABLE["prod"], np.array([INF, 0.0]), **one))


# ---------------------------------------------------------------- one row is all an op needs
def test_a_new_op_is_one_row():
    """`softsign` is one row of `dsl/ops/composite.py`; everything else follows from it."""
    row = FUNCTIONS["softsign"]
    assert row.signature == "softsign(x)" and row.doc == "`x / (1 + abs(x))`." and row.group == "element-wise"
    m = dsl.compile("vector v[n]; let y = softsign(v); grad g = sum(y) wrt v; matrix M[n, n]; jac J = softsign(v) wrt v; hess H = sum(y) wrt v")
    v = np.array([-3.0, -0.5, 0.0, 0.5, 4.0])
    assert np.array_equal(m.eval("y", v=v), v / (1 + np.abs(v)))
    slope = 1 / (1 + np.abs(v)) ** 2
    assert np.allclose(m.eval("g", v=v), slope, rtol=1e-14)
    assert np.allclose(m.eval("J", v=v), np.diag(slope), rtol=1e-14)
    assert np.allclose(m.eval("H", v=v), np.diag(-2 * np.sign(v) / (1 + np.abs(v)) ** 3), rtol=1e-13)
    rows = np.stack([v, v + 1])
    assert np.array_equal(m.eval("y", v=rows), rows / (1 + np.abs(rows)))                       # the rank rule
    single = dsl.compile("vector v[n]", precision="float32").eval("softsign(v)", v=v)
    assert single.dtype == np.float32 and np.allclose(single, v / (1 + np.abs(v)), rtol=1e-6)
    assert dsl.compile("int vector v[n]").eval("softsign(v)", v=[1, -1]).tolist() == [0.5, -0.5]
    with pytest.raises(dsl.LrError) as caught:
        m.eval("softsign(v, v)", v=v)
    assert caught.value.code == "E0502" and "`softsign(x)`" in caught.value.hint
    with pytest.raises(TypeFault, match="`softsign` takes floats, not int64"):
        make(TABLE["softsign"], [symbol("i", "int64")])
