"""Loop programs checked.

In: a `Program`.  Out: nothing, or an AssertionError that says which statement breaks which rule of `ir.py`:

    names        values (scalars, `Let`s, `Local`s, loop indices) and buffers are declared once in a chain of blocks and used
                 in scope, with the dtype they were declared with
    types        operands are of one dtype and of a kind the instruction takes; indices, extents and sizes are int64
    buffers      what is passed or scratch is listed in the program, a window comes after its `Window`, a private buffer is
                 used in kernels only, nothing writes an `input` or a window of one
    kernels      do not nest, write no outer value, and touch a total by `Combine` with its own op only
    control      `Leave` stands in a `While`, of the same kernel; `Swap`, `Product` and `Kernel` stand in no kernel

A buffer whose shape has a size that a `Bind` hides is one of the hidden size's new length from there on; but then its window
must be made anew, and buffers that are swapped have no window open.
"""
from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from dsl.ir.types import DType, Shape, is_float
from dsl.loops.ir import (
    FAULT,
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
    Program,
    Stmt,
    Store,
    Swap,
    While,
    Window,
    buffers_of,
    expressions,
)
from dsl.loops.text import declared, expression_text, statement_text
from dsl.machine.expr import BITS, COMPARISONS, Apply, Buffer, Const, Expr, Extent, Load, Ref, walk
from dsl.machine.instructions import TABLE, kind

PASSED, MADE = ("input", "output", "state"), ("private", "window")
COMBINING = ("add", "mul", "minimum", "maximum", "and", "or")


@dataclass(frozen=True)
class _Value:
    """A name's dtype, and whether it is a `Local` that this place may write."""

    dtype: DType
    writable: bool = False


@dataclass(frozen=True)
class _Scope:
    values: dict[str, _Value]
    buffers: dict[str, Buffer]
    roots: dict[Buffer, Buffer]
    """What each open window is a part of."""
    stale: frozenset[Buffer] = frozenset()
    """Windows whose shape has a size that was bound after them."""
    kernel: Kernel | None = None
    in_while: bool = False

    def root(self, buffer: Buffer) -> Buffer:
        return self.roots.get(buffer, buffer)


@dataclass
class _Verifier:
    program: Program
    typed: set[Expr] = field(default_factory=set)
    names: dict[str, Stmt] = field(default_factory=dict)
    """Kernels and products by name."""

    # ------------------------------------------------------------ declarations
    def run(self) -> None:
        p = self.program
        buffers: dict[str, Buffer] = {}
        for b in p.buffers:
            self.require(b.role in (*PASSED, "scratch"), f"{b} is listed in the program")
            self.require(b.name not in buffers, f"two buffers are named {b.name}")
            buffers[b.name] = b
        self.require(p.buffers == p.passed + p.scratch, "scratch stands before a buffer that is passed")
        values: dict[str, _Value] = {}
        for r in p.scalars:
            self.require(r.name not in values, f"two scalars are named {r.name}")
            values[r.name] = _Value(r.dtype)
        self.block(p.body, _Scope(values, buffers, {}))

    def require(self, holds: bool, message: str, s: Stmt | None = None) -> None:
        if not holds:
            raise AssertionError(f"{self.program.name}: {message}" + (f", in `{statement_text(s)}`" if s is not None else ""))

    def declare(self, name: str, value: _Value, scope: _Scope, s: Stmt) -> _Scope:
        self.require(name not in scope.values, f"{name} is declared twice", s)
        return replace(scope, values={**scope.values, name: value})

    # ------------------------------------------------------------ expressions
    def expressions(self, roots: Iterable[Expr], scope: _Scope, s: Stmt) -> None:
        for e in walk(roots):
            match e:
                case Ref() if e is FAULT:
                    self.require(scope.kernel is None, "the fault mark is not read in kernels", s)
                case Ref(name, dtype):
                    known = scope.values.get(name)
                    self.require(known is not None, f"{name} is not in scope", s)
                    assert known is not None
                    self.require(known.dtype == dtype, f"{name} is {known.dtype}, read as {dtype}", s)
                case Load(buffer, index):
                    self.access(buffer, index, scope, s)
                    self.require(not self.is_total(buffer, scope), f"the total {buffer.name} is read in its kernel", s)
                case _ if e not in self.typed:
                    wrong = self.fault(e)
                    self.require(not wrong, f"{wrong} in `{expression_text(e)}`", s)
                    self.typed.add(e)
                case _:
                    pass

    def fault(self, e: Expr) -> str:
        """What is wrong with the types in a literal, size or instruction; empty if nothing."""
        match e:
            case Const(value, dtype):
                fits = isinstance(value, bool) if dtype == "bool" else isinstance(value, float) if is_float(dtype) else \
                    isinstance(value, int) and not isinstance(value, bool) and -1 << (BITS[dtype] - 1) <= value < 1 << (BITS[dtype] - 1)
                return "" if fits else f"{value!r} is no {dtype}"
            case Extent():
                return ""
            case Apply(op, args, dtype):
                return _instruction_fault(op, [a.dtype for a in args], dtype)
        return f"{e!r} is no expression"

    def access(self, buffer: Buffer, index: tuple[Expr, ...], scope: _Scope, s: Stmt) -> None:
        self.visible(buffer, scope, s)
        self.require(len(index) == buffer.rank, f"{len(index)} indices for {declared(buffer)}", s)
        self.require(all(i.dtype == "int64" for i in index), f"an index of {buffer.name} is not int64", s)

    def visible(self, buffer: Buffer, scope: _Scope, s: Stmt) -> None:
        found = scope.buffers.get(buffer.name)
        match buffer.role:
            case "window":
                self.require(found is buffer, f"the window {buffer.name} is used where it is not open", s)
                self.require(buffer not in scope.stale, f"a size of the window {buffer.name} was bound after it", s)
            case "private":
                self.require(scope.kernel is not None, f"the private buffer {buffer.name} is used outside a kernel", s)
            case _:
                self.require(found is buffer, f"{buffer} is not listed in the program", s)

    def is_total(self, buffer: Buffer, scope: _Scope) -> bool:
        return scope.kernel is not None and scope.root(buffer) in {t.buffer for t in scope.kernel.totals}

    def is_a(self, e: Expr, dtype: DType, what: str, s: Stmt) -> None:
        self.require(e.dtype == dtype, f"{what} is {e.dtype}, not {dtype}", s)

    def writes(self, buffer: Buffer, scope: _Scope, s: Stmt) -> None:
        self.visible(buffer, scope, s)
        self.require(scope.root(buffer).role != "input", f"the input {scope.root(buffer).name} is written", s)

    # ------------------------------------------------------------ statements
    def block(self, body: Block, scope: _Scope) -> None:
        for s in body:
            self.expressions(expressions(s), scope, s)
            scope = self.statement(s, scope)

    def statement(self, s: Stmt, scope: _Scope) -> _Scope:
        """Checks a statement whose expressions are in order; returns what is in scope after it."""
        match s:
            case Let(name, value):
                return self.declare(name, _Value(value.dtype), scope, s)
            case Local(name, dtype, start):
                self.is_a(start, dtype, f"the start of {name}", s)
                return self.declare(name, _Value(dtype, True), scope, s)
            case Assign(name, value):
                self.local(name, value.dtype, scope, s)
            case Combine(target, op, value):
                self.combine(target, op, value, scope, s)
            case Store(buffer, index, value):
                self.access(buffer, index, scope, s)
                self.writes(buffer, scope, s)
                self.is_a(value, buffer.dtype, f"what is stored in {buffer.name}", s)
                self.require(not self.is_total(buffer, scope), f"the total {buffer.name} is written in its kernel by other than Combine", s)
            case Loop(index, extent, body):
                self.is_a(extent, "int64", "the extent", s)
                self.block(body, self.declare(index, _Value("int64"), scope, s))
            case While(condition, body):
                self.is_a(condition, "bool", "the condition", s)
                self.block(body, replace(scope, in_while=True))
            case If(condition, body, orelse):
                self.is_a(condition, "bool", "the condition", s)
                self.block(body, scope)
                self.block(orelse, scope)
            case Kernel():
                self.kernel(s, scope)
            case Window(buffer, base, start):
                return self.window(buffer, base, start, scope, s)
            case Bind(size, value):
                self.is_a(value, "int64", f"the size {size}", s)
                met = frozenset(b for b in scope.roots if any(v.name == size for d in b.shape for v in d.sizes()))
                return replace(scope, stale=scope.stale | met)
            case Swap(a, b):
                self.outside(scope, s)
                for buffer in (a, b):
                    self.writes(buffer, scope, s)
                    self.require(buffer.role not in MADE, f"{buffer} is swapped", s)
                    self.require(buffer not in scope.roots.values(), f"{buffer.name} is swapped while it has a window", s)
                self.require(a is not b and a.type == b.type, f"{declared(a)} and {declared(b)} are swapped", s)
            case Flag(condition):
                self.is_a(condition, "bool", "the condition", s)
            case Leave(condition):
                self.is_a(condition, "bool", "the condition", s)
                self.require(scope.in_while, "Leave stands in no While", s)
            case Product():
                self.product(s, scope)
        return scope

    def local(self, name: str, dtype: DType, scope: _Scope, s: Stmt) -> None:
        known = scope.values.get(name)
        self.require(known is not None, f"{name} is not in scope", s)
        assert known is not None
        self.require(known.writable, f"{name} is assigned, and is no Local" + (" of this kernel" if scope.kernel is not None else ""), s)
        self.require(known.dtype == dtype, f"{name} is {known.dtype}, assigned {dtype}", s)

    def combine(self, target: Ref | Load, op: str, value: Expr, scope: _Scope, s: Stmt) -> None:
        self.combines(op, target.dtype, s)
        if isinstance(target, Ref):
            self.require(target.dtype == value.dtype, f"{target.name} is {target.dtype}, combined with {value.dtype}", s)
            self.local(target.name, value.dtype, scope, s)
            return
        buffer = target.buffer
        self.access(buffer, target.index, scope, s)
        self.writes(buffer, scope, s)
        self.is_a(value, buffer.dtype, f"what is combined into {buffer.name}", s)
        if self.is_total(buffer, scope):
            assert scope.kernel is not None
            self.require(any(t.buffer is buffer and t.op == op for t in scope.kernel.totals),
                         f"the total {buffer.name} is combined by another op than its own, or through a window", s)

    def combines(self, op: str, dtype: DType, s: Stmt) -> None:
        self.require(op in COMBINING, f"{op} combines nothing", s)
        self.require(kind(dtype) in TABLE[op].llvm, f"{op} does not combine {dtype}", s)

    def once(self, name: str, s: Stmt) -> None:
        self.require(self.names.setdefault(name, s) is s, f"two kernels or products are named {name}", s)

    def outside(self, scope: _Scope, s: Stmt) -> None:
        self.require(scope.kernel is None, f"a {type(s).__name__} stands in a kernel", s)

    def kernel(self, s: Kernel, scope: _Scope) -> None:
        self.outside(scope, s)
        self.once(s.name, s)
        self.is_a(s.extent, "int64", "the extent", s)
        totals = [t.buffer for t in s.totals]
        self.require(len(set(totals)) == len(totals), "a total is named twice", s)
        for t in s.totals:
            self.require(t.buffer.role in ("scratch", "output"), f"the total {t.buffer} is neither scratch nor an output", s)
            self.visible(t.buffer, scope, s)
            self.combines(t.op, t.buffer.dtype, s)
            self.is_a(t.unit, t.buffer.dtype, f"the unit of {t.buffer.name}", s)
        own = any(isinstance(e, Load) and scope.root(e.buffer) in totals for e in walk(expressions(s)))
        self.require(not own, "the extent or a unit reads a total", s)
        buffers = dict(scope.buffers)
        for b in buffers_of(s.body):
            if b.role == "private":                                  # declared nowhere: it is the whole kernel's
                self.require(b.name not in buffers, f"two buffers are named {b.name}", s)
                buffers[b.name] = b
        outer = {name: replace(v, writable=False) for name, v in scope.values.items()}
        inner = self.declare(s.index, _Value("int64"), replace(scope, values=outer, buffers=buffers, kernel=s, in_while=False), s)
        self.block(s.body, inner)

    def window(self, buffer: Buffer, base: Buffer, start: Expr, scope: _Scope, s: Stmt) -> _Scope:
        self.is_a(start, "int64", "the start", s)
        self.visible(base, scope, s)
        self.require(not self.is_total(base, scope), f"a window of the total {base.name}", s)
        self.require(buffer.role == "window", f"{buffer} is opened as a window", s)
        self.require(buffer.name not in scope.buffers, f"{buffer.name} is declared twice", s)
        lost = base.rank - buffer.rank
        self.require(base.rank > 0 and lost in (0, 1) and buffer.dtype == base.dtype and _agree(buffer.shape[1 - lost:], base.shape[1:]),
                     f"{declared(buffer)} is no window of {declared(base)}", s)
        return replace(scope, buffers={**scope.buffers, buffer.name: buffer}, roots={**scope.roots, buffer: scope.root(base)})

    def product(self, s: Product, scope: _Scope) -> None:
        self.outside(scope, s)
        self.once(s.name, s)
        for buffer in (s.a, s.b):
            self.visible(buffer, scope, s)
        self.writes(s.out, scope, s)
        self.require(all(x.rank == 2 and x.dtype == s.out.dtype for x in (s.out, s.a, s.b)) and is_float(s.out.dtype),
                     "the matrices are not of rank 2 and one float dtype", s)
        self.require(scope.root(s.out) not in (scope.root(s.a), scope.root(s.b)), f"{s.out.name} is an operand too", s)
        (rows, inner), (length, columns) = (x.shape[::-1] if t else x.shape for x, t in ((s.a, s.a_transposed), (s.b, s.b_transposed)))
        self.require(_agree((rows, inner, columns), (s.out.shape[0], length, s.out.shape[1])), "the shapes do not agree", s)


def _agree(a: Shape, b: Shape) -> bool:
    """Whether two shapes may be equal once sizes are known; those of two names may, since a `Bind` gives any value."""
    return len(a) == len(b) and all((x - y).known in (0, None) for x, y in zip(a, b, strict=True))


def _instruction_fault(op: str, args: list[DType], dtype: DType) -> str:
    if op not in TABLE:
        return f"no instruction {op}"
    match op, args:
        case "select", [condition, yes, no]:
            return "" if condition == "bool" and yes == no == dtype else f"select of {', '.join(args)} to {dtype}"
        case "to", [source]:
            return "" if source != dtype and dtype != "bool" else f"a conversion of {source} to {dtype}"
        case "bits", [source]:
            return "" if source != dtype and BITS[source] == BITS[dtype] else f"bits of {source} as {dtype}"
        case "select" | "to" | "bits", _:
            return f"{op} of {len(args)} operands"
    spelling = TABLE[op].llvm
    wanted = 1 + max(int(place) for place in re.findall(r"\{(\d)\}", next(iter(spelling.values()))))
    if len(args) != wanted:
        return f"{op} of {len(args)} operands"
    if len(set(args)) > 1 or kind(args[0]) not in spelling:
        return f"{op} of {', '.join(args)}"
    result = "bool" if op in COMPARISONS else args[0]
    return "" if dtype == result else f"{op} of {args[0]} gives {result}, not {dtype}"


def verify(program: Program) -> None:
    """Raises AssertionError."""
    _Verifier(program).run()
