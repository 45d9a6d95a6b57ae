"""Sizes and shapes: `Dim` against plain integers, `decide`, broadcasting, and what is left to be checked at run time."""
# ruff: noqa: E501  (tables: one case a line)
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dsl.ir.types import (
    ONE,
    ZERO,
    ArrayType,
    Derived,
    Dim,
    Requirement,
    Shapes,
    Size,
    TypeFault,
    decide,
    derived,
    product,
    promote,
    shape_text,
    type_of_array,
)

NAMES = ("n", "d", "k")
n, d, k = (Dim.of(Size(name)) for name in NAMES)
u, v = (Dim.of(Size(name, named=False)) for name in ("u", "v"))
ten = Dim.of(Size("ten", value=10))

INTEGERS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "//": lambda a, b: a // b,
            "max": max, "min": min, "wide": lambda a, b: b if a == 1 else a}
DIMS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "//": lambda a, b: a // b,
        "max": lambda a, b: derived("max", a, b), "min": lambda a, b: derived("min", a, b), "wide": lambda a, b: derived("wide", a, b)}

trees = st.recursive(st.integers(-4, 6) | st.sampled_from(NAMES),
                     lambda below: st.tuples(st.sampled_from(sorted(INTEGERS)), below, below), max_leaves=8)
lengths = st.fixed_dictionaries({name: st.integers(0, 12) for name in NAMES})


def as_dim(tree) -> Dim:
    match tree:
        case int():
            return Dim.of(tree)
        case str():
            return Dim.of(Size(tree))
        case (op, a, b):
            return DIMS[op](as_dim(a), as_dim(b))


def as_int(tree, sizes) -> int | None:
    """The same in plain integers; None where a divisor is 0."""
    match tree:
        case int():
            return tree
        case str():
            return sizes[tree]
        case (op, a, b):
            left, right = as_int(a, sizes), as_int(b, sizes)
            return None if left is None or right is None or (op == "//" and right == 0) else INTEGERS[op](left, right)


# ---------------------------------------------------------------- polynomials
@given(trees, lengths)
@settings(max_examples=200, deadline=None)
def test_a_dim_is_what_integers_say(tree, sizes):
    expected = as_int(tree, sizes)
    assume(expected is not None)
    assert as_dim(tree).evaluate(sizes) == expected


@given(trees, trees, lengths)
@settings(max_examples=100, deadline=None)
def test_substitution_and_evaluation_agree(tree, inner, sizes):
    inside = as_int(inner, sizes)
    assume(inside is not None and inside >= 0)
    expected = as_int(tree, {**sizes, "n": inside})
    assume(expected is not None)
    replaced = as_dim(tree).substitute({"n": as_dim(inner)})
    assume(as_int(tree, {**sizes, "n": inside}) is not None)
    assert replaced.evaluate(sizes) == expected
    constant = as_dim(tree).substitute({name: Dim.of(value) for name, value in {**sizes, "n": inside}.items()})
    assert constant.constant == expected


def words(dim: Dim) -> Dim | int:
    """A polynomial without derived atoms, read back from its text."""
    return eval(str(dim), {name: Dim.of(Size(name)) for name in NAMES})


@given(st.recursive(st.integers(-4, 6) | st.sampled_from(NAMES), lambda below: st.tuples(st.sampled_from("+-*"), below, below), max_leaves=8))
@settings(max_examples=200, deadline=None)
def test_polynomials_are_canonical(tree):
    dim = as_dim(tree)
    match tree:
        case (op, a, b) if op in "+*":
            assert as_dim((op, b, a)) == dim and hash(as_dim((op, b, a))) == hash(dim)
        case ("-", a, b):
            assert -as_dim(("-", b, a)) == dim
    assert Dim.of(words(dim)) == dim
    assert dim - dim == ZERO and dim * 1 == dim and dim * 0 == ZERO and dim + 0 == dim
    assert all(c for _, c in dim.terms)


@given(trees, trees)
@settings(max_examples=200, deadline=None)
def test_decide_is_right_whatever_the_lengths(left, right):
    a, b = as_dim(left), as_dim(right)
    assume(not (a.bare and b.bare))                                  # two different names never match, by decree
    agreed = decide(a, b)
    assert decide(b, a) == agreed
    for sizes in ({"n": 2, "d": 3, "k": 5}, {"n": 0, "d": 0, "k": 0}, {"n": 1, "d": 1, "k": 1}, {"n": 7, "d": 2, "k": 1}):
        x, y = as_int(left, sizes), as_int(right, sizes)
        if agreed is not None and x is not None and y is not None:
            assert (x == y) == agreed


@pytest.mark.parametrize(("dim", "text"), [
    (ZERO, "0"), (n, "n"), (-n, "-n"), (n + 1, "n + 1"), (1 + n, "n + 1"), (n - 1, "n - 1"), (2 * n, "2*n"), (n + n, "2*n"),
    (n * d, "d*n"), (d * n, "d*n"), (n * n - n * d + 3, "-d*n + n*n + 3"), (5 - n, "-n + 5"), (n - n, "0"), (u, "?"),
    (u + 1, "? + 1"), ((n + 1) // 2, "(n + 1)//2"), (n // (d + 1), "n//(d + 1)"), (n // 2 + 1, "n//2 + 1"), (ten, "ten"),
    (derived("max", n - 1, ZERO), "n - 1"), (derived("max", n, d), "max(d, n)"), (derived("min", n, 3), "min(n, 3)"),
    (derived("wide", u, v), "?"),
])
def test_printing(dim, text):
    assert str(dim) == text


@pytest.mark.parametrize(("left", "right", "quotient"), [
    (6 * n + 3, 3, 2 * n + 1), (n * d, n, d), (n * d, d, n), (n * d * 6, 2 * n, 3 * d), (n * d + n * k, n, d + k), (n, n, ONE),
    (-4 * n, -2, 2 * n), (ZERO, n, ZERO), (Dim.of(7), 2, Dim.of(3)), (Dim.of(-7), 2, Dim.of(-4)), (n * 3, 3 * n, ONE),
])
def test_divisions_that_come_out_even(left, right, quotient):
    assert left // right == quotient


@pytest.mark.parametrize(("left", "right"), [(n + 1, 2), (n, d), (n + d, n), (2 * n, 3), (n * d, d * d), (n, 0)])
def test_divisions_that_stay(left, right):
    assert (left // right).terms[0][0][0].kind == "floordiv"


@pytest.mark.parametrize(("made", "simple"), [
    (derived("max", n, 0), n), (derived("max", n * d + 1, 0), n * d + 1), (derived("max", n + 1, n), n + 1),
    (derived("min", n + 1, n), n), (derived("min", 0, n), ZERO), (derived("max", 3, 5), Dim.of(5)), (derived("min", n, n), n),
    (derived("wide", u, u), u), (derived("wide", u, 1), u), (derived("wide", 1, u), u),
    (derived("max", derived("max", n - 3, 0), 0), derived("max", n - 3, 0)),
    (derived("max", n // 2, 0), n // 2),
])
def test_extremes_that_can_be_told(made, simple):
    assert made == simple


@pytest.mark.parametrize("dim", [n - 3, (n - 3) // 2, derived("min", n, Dim.of(2)) - derived("min", n, Dim.of(4)),
                                 (derived("min", n, 1) - derived("min", n, 3) + 1) // 2, derived("min", n - 3, d), n // (d - 4)])
def test_what_may_be_negative_is_held_at_zero(dim):
    held = derived("max", dim, 0)
    values = [dim.evaluate({"n": i, "d": 2}) for i in range(8)]
    assert min(values) < 0 and [held.evaluate({"n": i, "d": 2}) for i in range(8)] == [max(x, 0) for x in values]


def test_what_a_dim_tells_of_itself():
    assert n.bare == Size("n") and (n + 1).bare is None and (2 * n).bare is None and (n // 2).bare is None
    assert Dim.of(4).constant == 4 and ZERO.constant == 0 and n.constant is None and ten.constant is None
    assert ten.known == 10 and (ten * 2 + 1).known == 21 and (ten + n).known is None
    assert n.evaluate({}) is None and (n + d).evaluate({"n": 1}) is None
    assert {s.name for s in ((n + 1) // d + derived("max", k, u)).sizes()} == {"n", "d", "k", "u"}
    assert derived("min", n, 1).anonymous and not derived("min", n, 2).anonymous
    assert derived("min", 3, n) == derived("min", n, 3) and derived("max", n, d) == derived("max", d, n)
    assert u.anonymous and (u + n).anonymous and (u // 2).anonymous and not (n + d).anonymous
    assert Dim.of(3) == Dim.of(Dim.of(3)) and Dim.of(0) == ZERO and 5 - n == -(n - 5)
    assert product((n, 2, d)) == 2 * n * d and product(()) == ONE
    assert n.substitute({}) is n and (n + d).substitute({"k": ONE}) == n + d


# ---------------------------------------------------------------- agreement
@pytest.mark.parametrize(("left", "right", "answer"), [
    (n, n, True), (n, d, False), (n, ten, False), (n + 1, n, False), (n + d, d + n, True), (Dim.of(3), Dim.of(3), True),
    (Dim.of(3), Dim.of(4), False), (ten, Dim.of(10), True), (ten, Dim.of(9), False), (n, Dim.of(3), None), (n, 2 * n, None),
    (2 * n, 2 * d, None), (u, n, None), (u, v, None), (u, u, True), (u, Dim.of(1), None), (n * d, d * n, True),
    (n // 2, n, None), (u + 1, u, False),
])
def test_decide(left, right, answer):
    assert decide(left, right) is answer and decide(right, left) is answer


NEVER = "never"
BROADCAST = [                                       # two lengths, the length they have together, the requirement left
    (n, n, n, None), (n, ONE, n, None), (ONE, n, n, None), (ONE, ONE, ONE, None), (Dim.of(3), ONE, Dim.of(3), None),
    (n, d, NEVER, None), (Dim.of(3), Dim.of(4), NEVER, None), (n, n + 1, NEVER, None), (ten, Dim.of(3), NEVER, None),
    (n, Dim.of(3), n, "equal"), (ten, Dim.of(10), ten, None), (2 * n, 2 * d, 2 * n, "equal"),
    (u, ONE, u, None), (u, u, u, None), (u, n, n, "broadcast"), (n, u, n, "broadcast"), (u, Dim.of(3), Dim.of(3), "broadcast"),
    (u, v, derived("wide", u, v), "broadcast"), (u + 1, u, derived("wide", u + 1, u), "broadcast"),
]


@pytest.mark.parametrize(("left", "right", "together", "left_open"), BROADCAST, ids=lambda x: str(x))
def test_lengths_that_meet(left, right, together, left_open):
    shapes = Shapes()
    found = shapes.broadcast_dims(left, right)
    assert found == (None if together == NEVER else together)
    assert [r.kind for r in shapes.requirements] == ([left_open] if left_open else [])


@pytest.mark.parametrize(("need", "sizes", "holds"), [
    (Requirement("equal", n, Dim.of(3)), {"n": 3}, True), (Requirement("equal", n, Dim.of(3)), {"n": 1}, False),
    (Requirement("equal", n, Dim.of(3)), {}, None),
    (Requirement("broadcast", u, n), {"u": 1, "n": 5}, True), (Requirement("broadcast", u, n), {"u": 5, "n": 1}, False),
    (Requirement("broadcast", u, n), {"u": 5, "n": 5}, True), (Requirement("broadcast", u, v), {"u": 5, "v": 1}, True),
    (Requirement("broadcast", u, v), {"u": 5, "v": 2}, False), (Requirement("broadcast", u, Dim.of(3)), {"u": 1}, True),
    (Requirement("index", Dim.of(2), n), {"n": 3}, True), (Requirement("index", Dim.of(-3), n), {"n": 3}, True),
    (Requirement("index", Dim.of(3), n), {"n": 3}, False), (Requirement("index", Dim.of(-4), n), {"n": 3}, False),
])
def test_requirements_at_run_time(need, sizes, holds):
    assert need.holds(sizes) is holds


axes = st.sampled_from([n, d, u, v, ONE, Dim.of(2), Dim.of(3), n + 1])


@given(st.lists(st.lists(axes, max_size=3), min_size=1, max_size=3), st.fixed_dictionaries({name: st.sampled_from([1, 2, 3]) for name in "nduv"}))
@settings(max_examples=200, deadline=None)
def test_broadcasting_is_numpys_and_stricter_with_names(dims, sizes):
    """What is accepted, and holds at run time, is what NumPy gives; what is refused has a named size against another."""
    shapes = Shapes()
    actual = [tuple(a.evaluate(sizes) for a in shape) for shape in dims]
    try:
        result = shapes.broadcast(*map(tuple, dims))
    except TypeFault as fault:
        assert fault.dims and all(not a.anonymous for a in fault.dims)
        return
    if all(r.holds(sizes) for r in shapes.requirements):
        assert tuple(a.evaluate(sizes) for a in result) == np.broadcast_shapes(*actual)
    elif not any(not a.anonymous and a != ONE for shape in dims for a in shape):
        with pytest.raises(ValueError, match="broadcast"):
            np.broadcast_shapes(*actual)


def test_a_named_size_of_one_does_not_broadcast():
    shapes = Shapes()
    assert shapes.broadcast((n,), (Dim.of(3),)) == (n,)
    assert shapes.requirements[0].holds({"n": 1}) is False


def test_a_broadcast_that_fails_shows_both_shapes():
    with pytest.raises(TypeFault, match=r"shapes \[n, k\] and \[d\] do not agree") as caught:
        Shapes().broadcast((n, k), (d,))
    assert caught.value.detail == "k against d" and caught.value.dims == (k, d)


def test_equal_prefers_the_length_that_says_more():
    assert Shapes().equal(Dim.of(10), ten) == ten and Shapes().equal(ten, Dim.of(10)) == ten
    assert Shapes().equal(u, n) == n and Shapes().equal(n, u) == n and Shapes().equal(n, d) is None


# ---------------------------------------------------------------- array types
def test_array_types():
    matrix = ArrayType("float64", (n, Dim.of(3)))
    assert str(matrix) == "float64[n, 3]" and str(ArrayType("bool")) == "bool[]" and shape_text((n + 1, 2)) == "[n + 1, 2]"
    assert matrix.rank == 2 and matrix.size == 3 * n and ArrayType("bool").size == ONE
    assert matrix.with_dtype("int64") == ArrayType("int64", matrix.shape) and matrix.with_dtype("float64") is matrix
    assert matrix.with_shape((2,)) == ArrayType("float64", (Dim.of(2),))
    assert matrix.substitute({"n": Dim.of(2)}) == ArrayType("float64", (Dim.of(2), Dim.of(3)))
    assert len({matrix, ArrayType("float64", (n, Dim.of(3)))}) == 1


@pytest.mark.parametrize(("dtypes", "answer"), [
    (["bool"], "int64"), (["bool", "int32"], "int64"), (["int32", "int32"], "int32"), (["int32", "int64"], "int64"),
    (["int64", "float32"], "float32"), (["bool", "float32"], "float32"), (["float32", "float64"], "float64"),
])
def test_promotion(dtypes, answer):
    assert promote(*dtypes) == answer == promote(*reversed(dtypes))


@pytest.mark.parametrize(("dtype", "precision", "answer"), [
    ("f8", "float32", "float32"), ("f4", "float64", "float64"), ("f2", "float64", "float64"), ("i4", "float64", "int32"),
    ("i8", "float32", "int64"), ("u1", "float64", "int64"), ("i2", "float64", "int64"), ("?", "float64", "bool"),
])
def test_the_type_of_data(dtype, precision, answer):
    assert type_of_array(np.zeros((2, 0), dtype), precision) == ArrayType(answer, (Dim.of(2), ZERO))


def test_derived_sizes_print_and_order_stably():
    a, b = n // 2, derived("max", n, d)
    assert a + b == b + a and str(a * b) == str(b * a) and Derived("floordiv", n, Dim.of(2)) == a.terms[0][0][0]
