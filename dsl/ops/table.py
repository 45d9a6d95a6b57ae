"""How a row of the op table is written.

In: the few facts of an op.  Out: an `Op` in `TABLE`, with typing, coercion and batching that its kind implies.

`elementwise` rows name a signature:
    num     operands promoted to one dtype, which is the result's      float   the same, ints become the script's float
    same    one operand, its dtype kept                                compare operands promoted, result bool
    logic   bool operands and result                                   test    one float operand, result bool
    select  a bool, then operands promoted to one dtype, the result's
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dsl.ir.node import TABLE, Literal, Node, Op, make
from dsl.ir.types import ONE, ArrayType, Dim, DType, Shape, Shapes, TypeFault, is_float, promote
from dsl.record import record


class Fault(Exception):
    """An op met a value it has no result for (integer division by zero, an index out of range) while running."""

    def __init__(self, code: str, message: str, help: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.help = code, message, help


@record
class Gate:
    """A partial derivative that is `factor` where `condition` holds; elsewhere the operand is dead, its derivative 0
    whatever the cotangent is and whatever the operand itself was computed from."""

    condition: Node
    factor: Any = 1


Signature = str
WORDS = {"num": "numbers", "float": "numbers", "same": "numbers", "compare": "numbers", "logic": "bool", "test": "numbers",
         "select": "a bool and two values"}


def array(name: str, operands: str, doc: str, **row: Any) -> Op:
    """A row of any kind; see `Op` for its columns."""
    assert name not in TABLE, f"two rows named {name}"
    op = TABLE[name] = Op(name, tuple(operands.split()), doc, **row)
    return op


def elementwise(name: str, operands: str, signature: Signature, doc: str, **row: Any) -> Op:
    """A row of an element-wise op with broadcasting."""
    def infer(shapes: Shapes, *types: ArrayType, **attrs: Any) -> ArrayType:
        return ArrayType(_result_dtype(name, signature, types), shapes.broadcast(*[t.shape for t in types]))

    def coerce(args: Sequence[Any], precision: DType) -> list[Node]:
        return coerce_operands(signature, args, precision)
    return array(name, operands, doc, infer=infer, coerce=coerce, batch=batch_elementwise, elementwise=True, **row)


def _result_dtype(name: str, signature: Signature, types: Sequence[ArrayType]) -> DType:
    dtypes = [t.dtype for t in types]
    def refuse(wanted: str) -> TypeFault:
        return TypeFault(f"`{name}` takes {wanted}, not {' and '.join(dtypes)}", kind="dtype")
    match signature:
        case "num" | "compare":
            if len(set(dtypes)) > 1:
                raise refuse("operands of one dtype")
            if signature == "num" and dtypes[0] == "bool":
                raise refuse("numbers")
            return "bool" if signature == "compare" else dtypes[0]
        case "float" | "test":
            if len(set(dtypes)) > 1 or not is_float(dtypes[0]):
                raise refuse("floats")
            return "bool" if signature == "test" else dtypes[0]
        case "same":
            if dtypes[0] == "bool":
                raise refuse("numbers")
            return dtypes[0]
        case "logic":
            if set(dtypes) != {"bool"}:
                raise refuse("bool")
            return "bool"
        case "select":
            if dtypes[0] != "bool" or len(set(dtypes[1:])) > 1:
                raise refuse("a bool and values of one dtype")
            return dtypes[1]
        case _:
            raise AssertionError(signature)


# ---------------------------------------------------------------- operands
def constant(value: bool | int | float, dtype: DType) -> Node:
    """A scalar literal as a node."""
    kind = bool if dtype == "bool" else float if is_float(dtype) else int
    plain = kind(value)
    if dtype == "float32":
        with np.errstate(over="ignore"):
            plain = float(np.float32(value))
    return make(TABLE["const"], (), {"literal": Literal(plain, dtype)})


def cast(x: Node, dtype: DType) -> Node:
    """`x` in another dtype; a literal is converted at once."""
    if x.dtype == dtype:
        return x
    if x.op.name == "const" and not (is_float(x.dtype) and not is_float(dtype)):
        return constant(x.attr("literal").value, dtype)
    return make(TABLE["cast"], (x,), {"dtype": dtype})


def is_literal(x: Node) -> bool:
    """Whether `x` is a number written in the script (a tie with one is one-sided)."""
    while x.op.name in ("cast", "neg"):
        x = x.args[0]
    return x.op.name == "const"


def coerce_operands(signature: Signature, args: Sequence[Any], precision: DType) -> list[Node]:
    """Numbers become literals of the other operands' dtype; dtypes are promoted as the signature says.

    A literal is weak: beside int32 operands one that fits is int32."""
    if signature == "select":
        return [_as_bool(args[0]), *coerce_operands("pair", args[1:], precision)]
    if signature == "logic":
        return [_as_bool(a) for a in args]
    dtypes = [a.dtype for a in args if isinstance(a, Node)]
    if len(dtypes) == len(args) and is_float(dtypes[0]) and len(set(dtypes)) == 1:
        return list(args)
    if "int32" in dtypes:
        dtypes = [a.dtype for a in args if isinstance(a, Node) and not _is_small(a)]
    plain = [a for a in args if not isinstance(a, Node)]
    if signature == "pair" and all(d == "bool" for d in dtypes) and all(isinstance(a, bool) for a in plain):
        return [a if isinstance(a, Node) else constant(a, "bool") for a in args]
    dtype: DType = promote(*dtypes) if dtypes else "int64" if all(isinstance(a, int) for a in plain) else precision
    if not is_float(dtype) and (signature in ("float", "test") or any(isinstance(a, float) for a in plain)):
        dtype = precision
    return [cast(a, dtype) if isinstance(a, Node) else constant(a, dtype) for a in args]


def _is_small(x: Node) -> bool:
    """Whether `x` is an integer literal that int32 holds."""
    return x.op.name == "const" and x.dtype == "int64" and -2 ** 31 <= x.attr("literal").value < 2 ** 31


def _as_bool(value: Any) -> Node:
    if isinstance(value, bool):
        return constant(value, "bool")
    if isinstance(value, Node) and value.dtype != "bool":
        raise TypeFault(f"a condition is bool, not {value.dtype}", kind="dtype",
                        help="compare with something: `x != 0`, or convert with `bool(x)`")
    assert isinstance(value, Node)
    return value


# ---------------------------------------------------------------- batching
def lift_to_rank(x: Node, rank: int) -> Node:
    """A mapped operand [N, …] with unit axes after N until it has `rank` axes besides N."""
    missing = rank - (x.rank - 1)
    if missing <= 0:
        return x
    shape = (x.shape[0], *(ONE,) * missing, *x.shape[1:])
    return make(TABLE["reshape"], (x,), {"shape": shape})


def batch_elementwise(op: Op, args: Sequence[Node], mapped: Sequence[bool], length: Dim, **attrs: Any) -> Node:
    rank = max(a.rank - m for a, m in zip(args, mapped, strict=True))
    return make(op, [lift_to_rank(a, rank) if m else a for a, m in zip(args, mapped, strict=True)], attrs)


def batch_same(op: Op, args: Sequence[Node], mapped: Sequence[bool], length: Dim, **attrs: Any) -> Node:
    """For ops of one operand whose attributes count axes from the right: nothing changes."""
    return make(op, args, attrs)


def broadcast_all(args: Sequence[Node], mapped: Sequence[bool], length: Dim) -> list[Node]:
    """Every operand with the leading axis, unmapped ones repeated along it."""
    return [a if m else make(TABLE["expand"], (a,), {"shape": (length, *a.shape)})
            for a, m in zip(args, mapped, strict=True)]


# ---------------------------------------------------------------- helpers for rows
def special(name: str) -> Callable[..., Any]:
    """A function of `scipy.special`, imported when first used."""
    def call(*args: Any) -> Any:
        from scipy import special as functions
        return getattr(functions, name)(*args)
    return call


def shape_attr(shape: Sequence[Any]) -> Shape:
    return tuple(Dim.of(d) for d in shape)
