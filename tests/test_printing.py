"""Printed values and the comparison behind `#>`."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsl.runtime.printing import compare_expected, format_value


@pytest.mark.parametrize(("value", "text"), [
    (6.0, "6.0"), (np.float64(6), "6.0"), (np.array(6.0), "6.0"), (0.1, "0.1"), (1 / 3, "0.3333333333333333"),
    (np.float32(0.1), "0.1"), (np.float32(1) / np.float32(3), "0.33333334"), (np.array(0.1, np.float32), "0.1"),
    (1e16, "1e+16"), (1e-5, "1e-05"), (-0.0, "-0.0"), (np.float32(-0.0), "-0.0"), (np.nan, "nan"), (-np.inf, "-inf"),
    (np.float32(np.nan), "nan"), (True, "true"), (np.False_, "false"), (np.array(True), "true"),
    (7, "7"), (np.int64(-7), "-7"), (np.int32(7), "7"), (np.array(9007199254740993), "9007199254740993"),
    ("text, as it is", "text, as it is"), ((1, 2.0, True), "1 2.0 true"),
    (np.array([1.0, 0.5]), "[1.  0.5]"), (np.array([1, 2]), "[1 2]"), (np.array([]), "[]"),
    (np.array([True, False]), "[ true false]"), (np.array([True, True]), "[true true]"),
    (np.array([[True], [False]]), "[[ true]\n [false]]"), (np.eye(2), "[[1. 0.]\n [0. 1.]]"),
    (np.array(["a", "bc"], object), "[a bc]"), (np.array(["a", "bc"]), "[a bc]"),
    (np.array(["a", "", "c d"], object), '[a "" c d]'), (np.array([""]), '[""]'), (np.array([], object), "[]"),
    (np.array([["\x1b[2J", "\n"], ["\t", "\u2028"]], object), "[[␛[2J ␊]\n [␉ \ufffd]]"),
    (np.array([np.nan, 1.5, -np.inf]), "[ nan  1.5 -inf]"),
])
def test_format(value, text):
    assert format_value(value) == text


def test_arrays_beyond_twenty_a_side_show_corners():
    assert "..." not in format_value(np.arange(20)) and "..." not in format_value(np.zeros((20, 20)))
    assert format_value(np.arange(21)) == "[ 0  1  2 ... 18 19 20]"
    assert format_value(np.arange(42).reshape(21, 2)).count("\n") == 6
    assert format_value(np.zeros((2, 21))) == "[[0. 0. 0. ... 0. 0. 0.]\n [0. 0. 0. ... 0. 0. 0.]]"
    assert format_value(np.ones(30, bool)) == "[true true true ... true true true]"


def test_printoptions_have_no_say():
    with np.printoptions(precision=2, suppress=True, nanstr="?", threshold=1, edgeitems=1, sign="+"):
        assert format_value(np.array([1 / 3, np.nan, 1])) == "[0.33333333        nan 1.        ]"


@given(st.floats(allow_nan=False))
def test_scalars_read_back(x):
    assert float(format_value(x)) == x and str(x) == format_value(x)


@given(st.floats(width=32, allow_nan=False))
def test_float32_scalars_read_back(x):
    assert np.float32(format_value(np.float32(x))) == np.float32(x)


@pytest.mark.parametrize(("printed", "expected"), [
    ("2.0", "2.0"), ("1.96", "2.0"), ("2.05", "2.0"), ("1.95", "2.0"), ("2.4", "2"), ("1500.0", "1e3"), ("nan", "nan"),
    ("-inf", "-inf"), ("[1.  0.5]", "[1. 0.5]"), ("[1.  0.5]", "[ 1.0   0.50 ]"),
    ("[[1. 0.]\n [0. 1.]]", "[[1. 0.] [0. 1.]]"),
    ("near 0.1029384 true", "near 0.103 true"), ("-0.0", "0.0"), ("x1 = 2.0", "x1 = 2.0"), ("", " "),
    ("[0 1 2 ... 18 19 20]", "[0 1 2 ... 18 19 20]"), ("1.23456789e-07", "1.2346e-7"), ("(1.0, 2)", "(1.0, 2)"),
    ("-1.0", "-1.0"), ("9007199254740993", "9007199254740993"), ("1e+400", "1e400")])
def test_expected(printed, expected):
    assert compare_expected(printed, expected) is None


@pytest.mark.parametrize(("printed", "expected", "reason"), [
    ("2.06", "2.0", "2.0 was expected, and 2.06 is printed: 0.06 apart, where 0.05 is allowed"),
    ("9007199254740992", "9007199254740993", "apart"),
    ("nan", "2.0", "2.0 was expected, and nan is printed"),
    ("inf", "-inf", "-inf was expected, and inf is printed"),
    ("1.0", "nan", "nan was expected"),
    ("true", "false", "`false` was expected, and `true` is printed"),
    ("1.0 2.0", "1.0", "`2.0` is printed after what was expected"),
    ("1.0", "1.0 2.0", "`2.0` was expected, and nothing more is printed"),
    ("[1.0]", "1.0", "`1.0` was expected, and `[` is printed"),
    ("x1", "x2", "`x2` was expected, and `x1` is printed"),
])
def test_not_as_expected(printed, expected, reason):
    assert reason in compare_expected(printed, expected)


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_can_be_compared(printed, expected):
    assert compare_expected(printed, printed) is None
    assert compare_expected(printed, expected) is None or isinstance(compare_expected(printed, expected), str)


def test_numbers_beyond_all_exponents():
    assert compare_expected("1e99999999999999999999", "2e99999999999999999999")
    assert compare_expected("1e999999999", "1")
