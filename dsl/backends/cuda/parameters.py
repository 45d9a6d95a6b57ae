"""What the function of a kernel is given.

In: a kernel and the program around it.  Out: `Needs`: the names, sizes and buffers that the kernel has from outside, and how
its buffers are used; and `Parameter`s, which say where each argument of a printed function comes from.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from dsl.ir.types import Dim
from dsl.loops.ir import (
    Assign,
    Bind,
    Block,
    Combine,
    Flag,
    Kernel,
    Let,
    Local,
    Loop,
    Product,
    Program,
    Stmt,
    Store,
    Swap,
    Window,
    blocks,
    buffers_of,
    expressions,
    own_buffers,
    statements,
)
from dsl.machine.expr import Buffer, Expr, Extent, Load, Ref, const, walk
from dsl.record import record

Role = Literal["buffer", "partials", "private", "fault", "variable", "value", "unit", "count", "runs", "size", "places", "arrived"]


@record
class Parameter:
    """`role` tells what the argument is:

        buffer     the elements of `what`            variable   the value of a scratch buffer that lives on the host
        partials   a total `what`, once a run        value      the value of the name `what`
        private    `what`, once a thread             unit       the unit of the total `what`
        fault      one bool: a `Flag` was raised     count, runs, size (named `what`)   lengths, as int64
        places     where the arrays of a whole program are (`whole.py`)
        arrived    a number, 0 at first, by which the blocks of a grid wait for each other
    """

    name: str
    declaration: str
    role: Role
    what: Buffer | Ref | str


def roots(program: Program) -> dict[Buffer, Buffer]:
    """Whose memory each window is a part of."""
    bases = {s.buffer: s.base for s in statements(program.body) if isinstance(s, Window)}

    def root(b: Buffer) -> Buffer:
        while b in bases:
            b = bases[b]
        return b

    return {b: root(b) for b in bases}


def host_variables(program: Program) -> frozenset[Buffer]:
    """Scratch of rank 0 that no kernel and no product writes: it is a variable of the host."""
    device: set[Buffer] = set(program.passed)
    swaps: list[tuple[Buffer, Buffer]] = []
    of = roots(program)
    for s in statements(program.body):
        match s:
            case Kernel(body=body, totals=totals):
                device.update(t.buffer for t in totals)
                device.update(of.get(b, b) for b in written(body))
            case Product(out=out):
                device.add(of.get(out, out))
            case Swap(a=a, b=b):
                swaps.append((a, b))
            case Window(base=base):
                device.add(of.get(base, base))
            case _:
                pass
    for _ in swaps:
        for a, b in swaps:
            if a in device or b in device:
                device.update((a, b))
    return frozenset(b for b in program.scratch if b.rank == 0 and b not in device)


def locals_of(program: Program) -> dict[Kernel, list[Buffer]]:
    """Scratch of rank 0 that only one kernel meets, which has one iteration, and that keeps nothing for when it runs again: it is a
    variable of the thread."""
    users: dict[Buffer, list[Stmt]] = {}

    def meet(body: Block) -> None:
        for s in body:
            for b in buffers_of((s,)) if isinstance(s, Kernel) else own_buffers(s):
                users.setdefault(b, []).append(s)
            if not isinstance(s, Kernel):
                for inner in blocks(s):
                    meet(inner)

    meet(program.body)
    once, bases = set(program.body), set(roots(program).values())
    found: dict[Kernel, list[Buffer]] = {}
    for b in program.scratch:
        match users.get(b):
            case [Kernel() as kernel] if b.rank == 0 and is_once(kernel) and b not in bases \
                    and (kernel in once or _stored_first(kernel.body, b)):
                found.setdefault(kernel, []).append(b)
            case _:
                pass
    return found


def _stored_first(body: Block, b: Buffer) -> bool:
    """Whether the first that a body does with `b` is to store in it."""
    first = next((s for s in body if b in buffers_of((s,))), None)
    read = {e.buffer for e in walk(expressions(first)) if isinstance(e, Load)} if first is not None else set()
    return isinstance(first, Store) and first.buffer is b and b not in read


def is_once(kernel: Kernel) -> bool:
    """Whether it has one iteration, and is no matter of threads."""
    return kernel.extent is const(1, "int64") and not kernel.totals


def written(body: Block) -> list[Buffer]:
    """The buffers that statements store into, in order."""
    found: dict[Buffer, None] = {}
    for s in statements(body):
        match s:
            case Store(buffer=b) | Combine(target=Load(buffer=b)):
                found.setdefault(b)
            case _:
                pass
    return list(found)


class Needs:
    """What a kernel has from outside, in the order it is met, and what changes in it."""

    def __init__(self, kernel: Kernel, of: dict[Buffer, Buffer], own: Sequence[Buffer] = ()) -> None:
        self.own = own
        self.values: dict[Ref, None] = {}
        self.sizes: dict[str, None] = {}
        self.buffers: dict[Buffer, None] = {}
        self.private: dict[Buffer, None] = {}
        self.totals = {t.buffer for t in kernel.totals}
        self.of = of
        body = kernel.body
        self.flags = any(isinstance(s, Flag) for s in statements(body))
        self.written = {of.get(b, b) for b in written(body)}
        self.read = {of.get(e.buffer, e.buffer) for s in statements(body) for e in walk(expressions(s)) if isinstance(e, Load)}
        self.shadowed: set[str] = set()
        self._windows = {s.buffer for s in statements(body) if isinstance(s, Window)}
        self._inside(body, frozenset({kernel.index}), frozenset())
        assigned = {s.name for s in statements(body) if isinstance(s, Assign)} | {
            s.target.name for s in statements(body) if isinstance(s, Combine) and isinstance(s.target, Ref)}
        self.changing: set[object] = {*assigned, *self.shadowed, *(self.written & self.read)}

    def _inside(self, body: Block, names: frozenset[str], sizes: frozenset[str]) -> None:
        for s in body:
            inner = names
            self.expressions(expressions(s), names, sizes)
            match s:
                case Let(name=name) | Local(name=name):
                    self._shadow(name, names)
                    names = inner = names | {name}
                case Loop(index=name):
                    self._shadow(name, names)
                    inner = names | {name}
                case Combine(target=Load(buffer=b)) | Store(buffer=b):
                    self.buffer(b, sizes)
                case Window(buffer=b, base=base):
                    self.buffer(base, sizes)
                    self._shape(b.shape[1:], sizes)
                case Bind(size=size):
                    self.shadowed.add(f"size {size}")
                    sizes = sizes | {size}
                case _:
                    pass
            for block in blocks(s):
                self._inside(block, inner, sizes)

    def _shadow(self, name: str, names: frozenset[str]) -> None:
        if name in names or name in {v.name for v in self.values}:
            self.shadowed.add(name)

    def expressions(self, found: Iterable[Expr], names: frozenset[str] = frozenset(), sizes: frozenset[str] = frozenset()) -> None:
        for e in walk(found):
            match e:
                case Ref(name=name) if name not in names:
                    self.values.setdefault(e)
                case Extent(dim=dim):
                    self._shape((dim,), sizes)
                case Load(buffer=b):
                    self.buffer(b, sizes)
                case _:
                    pass

    def buffer(self, b: Buffer, sizes: frozenset[str]) -> None:
        self._shape(b.shape[1:], sizes)
        if b.role == "private":
            self.private.setdefault(b)
        elif b not in self.totals and b not in self._windows and b not in self.own:
            self.buffers.setdefault(b)

    def shape(self, b: Buffer) -> None:
        """The whole shape is asked for."""
        self._shape(b.shape, frozenset())

    def _shape(self, dims: Iterable[Dim], hidden: frozenset[str]) -> None:
        for s in (s for d in dims for s in d.sizes()):
            if s.value is None and s.name not in hidden:
                self.sizes.setdefault(s.name)

