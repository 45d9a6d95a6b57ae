"""The instructions: one row each.

A row says what an instruction means in NumPy (on scalars or arrays of its dtype), and how LLVM and CUDA C spell it.  In a
spelling `{0}`, `{1}`, … are the operands, `{t}` the operands' type, `{r}` the result's type and, in LLVM, `{s}` the
operands' intrinsic suffix (`f32`, `i64`) or, in CUDA, `{f}` the suffix of C's float functions (`sqrtf`, `sqrt`).  No
spelling fuses a multiplication with an addition but `fma`.  Functions `lr_…` are in `dsl/backends/cuda/prelude.py`.

    kinds   float    both float dtypes      int    int32 and int64      bool      a truth value

Integer arithmetic wraps.  `idiv` and `irem` cut off towards zero, and their operands are known to be safe: the divisor is
neither 0 nor -1.  Shift counts are below the width.  `below` compares integers as unsigned.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dsl.ir.types import DType, is_float
from dsl.machine import fused
from dsl.record import entity

Spelling = dict[str, str]


@entity
class Instruction:
    """One row: `llvm` and `cuda` give a spelling for each kind of operand the instruction takes."""

    name: str
    numpy: Callable[..., Any]
    llvm: Spelling
    cuda: Spelling
    doc: str


TABLE: dict[str, Instruction] = {}


def row(name: str, numpy: Callable[..., Any], llvm: Spelling, cuda: Spelling, doc: str) -> None:
    assert name not in TABLE and llvm.keys() == cuda.keys(), name
    TABLE[name] = Instruction(name, numpy, llvm, cuda, doc)


def kind(dtype: DType) -> str:
    return "float" if is_float(dtype) else "bool" if dtype == "bool" else "int"


# ---------------------------------------------------------------- meanings that need more than one call
def _unsigned(x: Any) -> Any:
    return np.asarray(x).view(np.uint32 if np.asarray(x).dtype == np.int32 else np.uint64)


def _lshr(a: Any, b: Any) -> Any:
    return (_unsigned(a) >> _unsigned(b)).view(np.asarray(a).dtype)[()]


def _extreme(plain: Callable[..., Any], larger: bool) -> Callable[..., Any]:
    def run(a: Any, b: Any) -> Any:
        if np.asarray(a).dtype.kind != "f":
            return plain(a, b)
        return np.where((a == 0) & (b == 0), (a + b) if larger else -(-a + -b), plain(a, b)).astype(np.asarray(a).dtype)[()]
    return run


def _trunc_div(a: Any, b: Any) -> Any:
    return ((a - np.fmod(a, b)) // b)[()]                       # not by way of |a|, which the smallest integer has not


def _trunc_rem(a: Any, b: Any) -> Any:
    return np.fmod(a, b)[()]


def _convert(x: Any, dtype: Any = None) -> Any:
    with np.errstate(all="ignore"):
        return np.asarray(x).astype(dtype)[()]


def _bits(x: Any, dtype: Any = None) -> Any:
    return np.asarray(x).view(dtype)[()]


def _select(condition: Any, a: Any, b: Any) -> Any:
    return np.where(condition, a, b)[()]


# ---------------------------------------------------------------- arithmetic
row("add", np.add,      {"float": "fadd {t} {0}, {1}", "int": "add {t} {0}, {1}"}, {"float": "{0} + {1}", "int": "lr_add({0}, {1})"}, "a + b")
row("sub", np.subtract, {"float": "fsub {t} {0}, {1}", "int": "sub {t} {0}, {1}"}, {"float": "{0} - {1}", "int": "lr_sub({0}, {1})"}, "a - b")
row("mul", np.multiply, {"float": "fmul {t} {0}, {1}", "int": "mul {t} {0}, {1}"}, {"float": "{0} * {1}", "int": "lr_mul({0}, {1})"}, "a * b")
row("div", np.divide,   {"float": "fdiv {t} {0}, {1}"}, {"float": "{0} / {1}"}, "a / b")
row("ratio", np.divide, {"float": "fdiv {t} {0}, {1}"}, {"float": "lr_ratio({0}, {1})"}, "a / b, b and the result neither tiny nor huge")
row("neg", np.negative, {"float": "fneg {t} {0}", "int": "sub {t} 0, {0}"}, {"float": "-{0}", "int": "lr_neg({0})"}, "-a")
row("fma", fused.fma,       {"float": "call {t} @llvm.fma.{s}({t} {0}, {t} {1}, {t} {2})"}, {"float": "fma{f}({0}, {1}, {2})"}, "a * b + c, rounded once")
row("abs", np.abs,      {"float": "call {t} @llvm.fabs.{s}({t} {0})", "int": "call {t} @llvm.abs.{s}({t} {0}, i1 false)"}, {"float": "fabs{f}({0})", "int": "lr_abs({0})"}, "|a|")
row("sqrt", np.sqrt,    {"float": "call {t} @llvm.sqrt.{s}({t} {0})"}, {"float": "sqrt{f}({0})"}, "square root")
row("floor", np.floor,  {"float": "call {t} @llvm.floor.{s}({t} {0})"}, {"float": "floor{f}({0})"}, "rounded down")
row("ceil", np.ceil,    {"float": "call {t} @llvm.ceil.{s}({t} {0})"}, {"float": "ceil{f}({0})"}, "rounded up")
row("rint", np.rint,    {"float": "call {t} @llvm.rint.{s}({t} {0})"}, {"float": "rint{f}({0})"}, "rounded to the nearest, halves to even")
row("trunc", np.trunc,  {"float": "call {t} @llvm.trunc.{s}({t} {0})"}, {"float": "trunc{f}({0})"}, "cut off towards 0")
row("minimum", _extreme(np.minimum, False), {"float": "call {t} @llvm.minimum.{s}({t} {0}, {t} {1})", "int": "call {t} @llvm.smin.{s}({t} {0}, {t} {1})"},
    {"float": "lr_minimum({0}, {1})", "int": "min({0}, {1})"}, "the smaller, or nan")
row("maximum", _extreme(np.maximum, True), {"float": "call {t} @llvm.maximum.{s}({t} {0}, {t} {1})", "int": "call {t} @llvm.smax.{s}({t} {0}, {t} {1})"},
    {"float": "lr_maximum({0}, {1})", "int": "max({0}, {1})"}, "the larger, or nan")
row("copysign", np.copysign, {"float": "call {t} @llvm.copysign.{s}({t} {0}, {t} {1})"}, {"float": "copysign{f}({0}, {1})"}, "|a| with the sign of b")
row("idiv", _trunc_div, {"int": "sdiv {t} {0}, {1}"}, {"int": "{0} / {1}"}, "quotient, cut off towards 0")
row("irem", _trunc_rem, {"int": "srem {t} {0}, {1}"}, {"int": "{0} % {1}"}, "remainder of `idiv`")

# ---------------------------------------------------------------- bits
row("and", np.bitwise_and, {"int": "and {t} {0}, {1}", "bool": "and {t} {0}, {1}"}, {"int": "{0} & {1}", "bool": "{0} && {1}"}, "a and b")
row("or",  np.bitwise_or,  {"int": "or {t} {0}, {1}", "bool": "or {t} {0}, {1}"}, {"int": "{0} | {1}", "bool": "{0} || {1}"}, "a or b")
row("xor", np.bitwise_xor, {"int": "xor {t} {0}, {1}", "bool": "xor {t} {0}, {1}"}, {"int": "{0} ^ {1}", "bool": "{0} != {1}"}, "a or b, not both")
row("not", np.invert,      {"int": "xor {t} {0}, -1", "bool": "xor {t} {0}, true"}, {"int": "~{0}", "bool": "!{0}"}, "not a")
row("shl", np.left_shift,  {"int": "shl {t} {0}, {1}"}, {"int": "lr_shl({0}, {1})"}, "shifted left")
row("ashr", np.right_shift, {"int": "ashr {t} {0}, {1}"}, {"int": "{0} >> {1}"}, "shifted right, the sign coming in")
row("lshr", _lshr,         {"int": "lshr {t} {0}, {1}"}, {"int": "lr_lshr({0}, {1})"}, "shifted right, zeros coming in")

# ---------------------------------------------------------------- comparisons: false with a nan, but `ne`
def comparison(name: str, numpy: Callable[..., Any], symbol: str, ordered: str, signed: str, unsigned: str) -> None:
    llvm = {"float": f"fcmp {ordered} {{t}} {{0}}, {{1}}", "int": f"icmp {signed} {{t}} {{0}}, {{1}}", "bool": f"icmp {unsigned} {{t}} {{0}}, {{1}}"}
    row(name, numpy, llvm, dict.fromkeys(llvm, f"{{0}} {symbol} {{1}}"), f"a {symbol} b")


comparison("eq", np.equal,         "==", "oeq", "eq",  "eq")
comparison("ne", np.not_equal,     "!=", "une", "ne",  "ne")
comparison("lt", np.less,          "<",  "olt", "slt", "ult")
comparison("le", np.less_equal,    "<=", "ole", "sle", "ule")
comparison("gt", np.greater,       ">",  "ogt", "sgt", "ugt")
comparison("ge", np.greater_equal, ">=", "oge", "sge", "uge")
row("below", lambda a, b: np.less(_unsigned(a), _unsigned(b)), {"int": "icmp ult {t} {0}, {1}"}, {"int": "lr_below({0}, {1})"}, "a < b, unsigned")
row("isnan", np.isnan,      {"float": "fcmp uno {t} {0}, {0}"}, {"float": "isnan({0})"}, "whether a is nan")

# ---------------------------------------------------------------- choice and conversion (spelt by the code generators)
row("select", _select, {"bool": "select i1 {0}, {r} {1}, {r} {2}"}, {"bool": "{0} ? {1} : {2}"}, "b where a holds, else c")
row("to", _convert, {}, {}, "another dtype; a float to an integer is cut off and must fit")
row("bits", _bits, {}, {}, "the same bits read as another dtype")
