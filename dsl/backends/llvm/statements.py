"""Statements of the loop IR as LLVM IR.

In: a block and the function it goes into.  Out: that function's lines.
"""
from __future__ import annotations

from dsl.backends.llvm.clock import measured
from dsl.backends.llvm.function import STORED, TYPES, Function, Held
from dsl.backends.llvm.kernels import kernel, known
from dsl.backends.llvm.products import product
from dsl.ir.types import product as extent_of
from dsl.loops.ir import (
    Assign,
    Bind,
    Block,
    Combine,
    Flag,
    If,
    Kernel,
    Leave,
    Let,
    Local,
    Loop,
    Product,
    Stmt,
    Store,
    Swap,
    While,
    Window,
)
from dsl.machine.expr import Buffer, Expr, Load, Ref

UNROLLED = 8
"""Turns up to which a loop of a fixed number of turns may be written out.  Longer ones would be before they are vectorised, and
then the loop around would be, with its elements gathered from all over memory."""

MANY = 1 << 20
WRITTEN_OUT = 16
"""Turns up to which nests of such loops are written out here.  LLVM would do so after it has moved what does not change out of the
loop around, so that `m[j]` became a load in that loop, which then was not vectorised."""


def standing(body: Block) -> int:
    """How often the innermost statements stand there once the loops in a block are written out; much if they cannot be."""
    most = 1
    for s in body:
        match s:
            case Loop(_, extent, inside):
                turns = known(extent)
                most = max(most, (turns if turns is not None and turns <= UNROLLED else MANY) * standing(inside))
            case Kernel() | Product() | While() | If():
                return MANY
            case _:
                pass
    return most


def block(f: Function, body: Block) -> None:
    with f.scope():
        for s in body:
            statement(f, s)


def statement(f: Function, s: Stmt) -> None:
    match s:
        case Let(name, value):
            f.bits[name] = f.bits_of(value)
            f.names[name] = Held("value", f.value(value))
        case Local(name, dtype, start):
            first = f.value(start)
            f.bits[name] = 64
            f.names[name] = Held("slot", f.slot(TYPES[dtype], name))
            f.write(f.names[name], dtype, first)
        case Assign(name, value):
            f.write(f.name(name, value.dtype), value.dtype, f.value(value))
        case Combine(target, op, value):
            _combine(f, target, op, value)
        case Store(buffer, index, value):
            *places, stored = f.values([*index, value])
            if buffer.rank == 0:
                f.write(f.place(buffer), buffer.dtype, stored)
            else:
                f.store(f.address(buffer, places), buffer.dtype, stored, buffer)
        case Loop(index, extent, body):
            end = f.value(extent)
            bits = f.bits_of(extent)
            turns = known(extent)
            if turns is not None and turns <= UNROLLED and turns * standing(body) <= WRITTEN_OUT:
                for turn in range(turns):
                    with f.scope():
                        f.names[index], f.bits[index] = Held("value", str(turn)), bits
                        block(f, body)
                return
            with f.counting("0", end, index, whole=turns is not None and turns > UNROLLED) as i:
                f.names[index], f.bits[index] = Held("value", i), bits
                f.repeated += 1
                block(f, body)
                f.repeated -= 1
        case While(condition, body):
            head, inside, after = f.label("while"), f.label("turn"), f.label("left")
            f.jump(head)
            f.begin(head)
            f.branch(f.value(condition), inside, after)
            f.begin(inside)
            f.exits.append(after)
            f.repeated += 1
            block(f, body)
            f.repeated -= 1
            f.exits.pop()
            f.jump(head)
            f.begin(after)
        case If(condition, body, orelse):
            yes, no, after = f.label("then"), f.label("else"), f.label("endif")
            f.branch(f.value(condition), yes, no if orelse else after)
            f.begin(yes)
            block(f, body)
            f.jump(after)
            if orelse:
                f.begin(no)
                block(f, orelse)
                f.jump(after)
            f.begin(after)
        case Leave(condition):
            following = f.label("stay")
            f.branch(f.value(condition), f.exits[-1], following)
            f.begin(following)
        case Flag(condition):
            f.fault(f.value(condition))
        case Bind(size, value):
            bound = f.value(value)
            f.sizes[size] = bound
            f.dims = {d: v for d, v in f.dims.items() if all(a.name != size for a in d.sizes())}
        case Window(buffer, base, start):
            row = f.dim(extent_of(base.shape[1:]))
            offset = f.emit(f"mul nsw i64 {f.value(start)}, {row}")
            first = f.emit(f"getelementptr {STORED[base.dtype]}, ptr {f.pointer(base)}, i64 {offset}", buffer.name)
            f.places[buffer] = Held("memory", first)
        case Swap(a, b):
            _swap(f, a, b)
        case Kernel():
            with measured(f, s):
                kernel(f, s, block)
        case Product():
            with measured(f, s):
                product(f, s)


def _combine(f: Function, target: Ref | Load, op: str, value: Expr) -> None:
    dtype = target.dtype
    if isinstance(target, Ref):
        held = f.name(target.name, dtype)
        new = f.value(value)
        f.write(held, dtype, f.combine(op, dtype, f.read(held, dtype), new, True))
        return
    buffer = target.buffer
    regroup = buffer in f.totals
    *places, new = f.values([*target.index, value])
    if buffer.rank == 0:
        held = f.place(buffer)
        f.write(held, dtype, f.combine(op, dtype, f.read(held, dtype), new, regroup))
    else:
        address = f.address(buffer, places)
        f.store(address, dtype, f.combine(op, dtype, f.load(address, dtype, buffer), new, regroup), buffer)


def _swap(f: Function, a: Buffer, b: Buffer) -> None:
    left, right = f.place(a), f.place(b)
    if a.rank == 0:
        x, y = f.read(left, a.dtype), f.read(right, b.dtype)
        f.write(left, a.dtype, y)
        f.write(right, b.dtype, x)
        return
    assert left.kind == right.kind == "moving", (a, b)
    x, y = f.pointer(a), f.pointer(b)
    f.do(f"store ptr {y}, ptr {left.operand}")
    f.do(f"store ptr {x}, ptr {right.operand}")
