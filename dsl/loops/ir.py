"""The loop IR.

In: expressions (`dsl/machine/expr.py`).  Out: `Program`, which the code generators print and the interpreter runs.

    Program  ::= name, buffers, body: Block
    Block    ::= Stmt …
    Stmt     ::= Let(name, value)                          a scalar, from here to the end of its block
               | Local(name, dtype, start)                 a scalar that changes
               | Assign(name, value)
               | Combine(target, op, value)                target = op(target, value); target is a Ref to a Local, or a Load
               | Store(buffer, index, value)
               | Loop(index, extent, body)                 index = 0 … extent - 1, in order
               | While(condition, body)                    tested before each turn; `condition` reads Locals
               | If(condition, body, orelse, seldom)     `seldom`: the condition hardly ever holds
               | Kernel(name, index, extent, body, totals) a loop whose iterations may run in any order and on many threads
               | Window(buffer, base, start)               a window: rows of `base` from `start` on (one axis less: one row)
               | Bind(size, value)                         a size variable has this value, from here to the end of its block
               | Swap(a, b)                                two buffers of one type exchange their contents (their pointers)
               | Flag(condition)                           where it holds the program has met a fault (an index out of range, …)
               | Leave(condition)                          ends the innermost `While` around it
               | Product(out, a, b, …)                     a product of matrices, done by a library

**Kernels.**  `totals` are what the iterations add up: `Combine` into a total may stand anywhere in the body, and no other
statement reads or writes it there.  A total holds its unit before the first iteration, whatever was in its buffer.  A
backend cuts 0 … extent-1 into runs of which only the extents decide the edges, adds each run up from the unit on its own
and combines the runs in order: so the threads change no bit.  An iteration writes only elements that no other iteration
reads or writes; its `private` buffers are its own.  Kernels do not nest.

**Reassociation.**  A `Combine` into a Local or a total may be regrouped over the iterations of a loop (vector lanes);
all other arithmetic is done as written.

**Faults** do not stop a program.  What faults is computed with harmless operands instead, a `Flag` raises the program's
fault mark, and whoever called it runs the same thing on the reference to learn what and where it was.  The mark is false at
the start; outside kernels it can be read as the bool `FAULT`.

An array without elements may be read at its very beginning (where the row-major place is 0); the value is not used.

**Sizes** are int64 parameters, one a size variable that is met in an extent or a shape; a `Bind` hides one.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from dsl.ir.types import Dim, DType
from dsl.machine.expr import Buffer, Expr, Extent, Load, Ref, ref, walk
from dsl.record import entity

Block = tuple["Stmt", ...]
FAULT = ref("fault", "bool")


@entity
class Let:
    name: str
    value: Expr


@entity
class Local:
    name: str
    dtype: DType
    start: Expr


@entity
class Assign:
    name: str
    value: Expr


@entity
class Combine:
    """`op` is one of add, mul, minimum, maximum, and, or."""

    target: Ref | Load
    op: str
    value: Expr


@entity
class Store:
    buffer: Buffer
    index: tuple[Expr, ...]
    value: Expr


@entity
class Loop:
    index: str
    extent: Expr
    body: Block


@entity
class While:
    condition: Expr
    body: Block


@entity
class If:
    condition: Expr
    body: Block
    orelse: Block = ()
    seldom: bool = False


@entity
class Total:
    """What the iterations of a kernel add up into `buffer`, which is scratch (of any rank) or an output."""

    buffer: Buffer
    op: str
    unit: Expr


@entity
class Kernel:
    """`work` estimates the scalar operations of one iteration, in the sizes; it decides whether threads pay."""

    name: str
    index: str
    extent: Expr
    body: Block
    totals: tuple[Total, ...]
    work: Dim


@entity
class Window:
    """`buffer` (role window) is base[start : start + rows] if the ranks are equal, base[start] if it has one axis less."""

    buffer: Buffer
    base: Buffer
    start: Expr


@entity
class Bind:
    size: str
    value: Expr


@entity
class Swap:
    a: Buffer
    b: Buffer


@entity
class Flag:
    condition: Expr


@entity
class Leave:
    condition: Expr


@entity
class Product:
    """`out[i, j] = sum over k of a'[i, k] * b'[k, j]`, where a' is `a`, or its transpose if `a_transposed`.

    All three have rank 2.  The sum may be regrouped and fused.  Any backend may cut `out` into tiles, never k."""

    out: Buffer
    a: Buffer
    b: Buffer
    a_transposed: bool
    b_transposed: bool
    name: str


Stmt = Let | Local | Assign | Combine | Store | Loop | While | If | Kernel | Window | Bind | Swap | Flag | Leave | Product


@entity
class Program:
    """`buffers` are all inputs, outputs and state, in the order they are passed, then scratch; windows and private buffers
    are met in the body only.  `scalars` are parameters by value."""

    name: str
    buffers: tuple[Buffer, ...]
    scalars: tuple[Ref, ...]
    body: Block

    @property
    def passed(self) -> tuple[Buffer, ...]:
        """The buffers that are given from outside."""
        return tuple(b for b in self.buffers if b.role != "scratch")

    @property
    def scratch(self) -> tuple[Buffer, ...]:
        return tuple(b for b in self.buffers if b.role == "scratch")


# ---------------------------------------------------------------- walks
def blocks(s: Stmt) -> tuple[Block, ...]:
    """The blocks inside a statement."""
    match s:
        case Loop(body=body) | While(body=body) | Kernel(body=body):
            return (body,)
        case If(body=body, orelse=orelse):
            return body, orelse
        case _:
            return ()


def statements(body: Block) -> Iterator[Stmt]:
    """Every statement, those inside others too, in order."""
    for s in body:
        yield s
        for inner in blocks(s):
            yield from statements(inner)


def outside_kernels(body: Block) -> Iterator[Stmt]:
    """The same, but for those inside kernels."""
    for s in body:
        yield s
        for inner in () if isinstance(s, Kernel) else blocks(s):
            yield from outside_kernels(inner)


def expressions(s: Stmt) -> tuple[Expr, ...]:
    """The expressions of the statement itself."""
    match s:
        case Let(value=e) | Local(start=e) | Assign(value=e) | Loop(extent=e) | While(condition=e) | If(condition=e) | Window(start=e) | \
             Bind(value=e) | Flag(condition=e) | Leave(condition=e):
            return (e,)
        case Combine(target=target, value=e):
            return (*(target.index if isinstance(target, Load) else ()), e)
        case Store(index=index, value=e):
            return (*index, e)
        case Kernel(extent=e, totals=totals):
            return (e, *(t.unit for t in totals))
        case _:
            return ()


def buffers_of(body: Block) -> list[Buffer]:
    """Every buffer that is met, in order."""
    met: dict[Buffer, None] = {}
    for s in statements(body):
        met.update(dict.fromkeys(own_buffers(s)))
    return list(met)


def own_buffers(s: Stmt) -> list[Buffer]:
    """Every buffer that the statement itself meets, not those inside it."""
    met = [e.buffer for e in walk(expressions(s)) if isinstance(e, Load)]
    match s:
        case Store(buffer=b):
            met.append(b)
        case Combine(target=Load(buffer=b)):
            met.append(b)
        case Kernel(totals=totals):
            met.extend(t.buffer for t in totals)
        case Window(buffer=b, base=base):
            met.extend((base, b))
        case Swap(a=a, b=b):
            met.extend((a, b))
        case Product(out=out, a=a, b=b):
            met.extend((a, b, out))
        case _:
            pass
    return met


def size_names(program: Program) -> tuple[str, ...]:
    """The size variables that are parameters of the program, sorted; looked for once."""
    found = _sizes.get(program)
    if found is None:
        found = _sizes[program] = _size_names(program)
    return found


_sizes: WeakKeyDictionary[Program, tuple[str, ...]] = WeakKeyDictionary()


def _size_names(program: Program) -> tuple[str, ...]:
    dims: set[Dim] = set()
    for b in (*program.buffers, *buffers_of(program.body)):
        dims.update(b.shape)
    for s in statements(program.body):
        for e in walk(expressions(s)):
            if isinstance(e, Extent):
                dims.add(e.dim)
    return tuple(sorted({v.name for d in dims for v in d.sizes() if v.value is None}))


def named(values: Iterable[Any]) -> dict[str, Any]:
    return {v.name: v for v in values}
