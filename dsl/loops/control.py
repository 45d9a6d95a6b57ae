"""Loops of the language as loops of the IR.

In: the nodes of one `scan` or `iterate`, within a lowering.  Out: one task that runs the loop: carried values live in buffers
of their own, the body is lowered like any other graph, and what it makes takes their place after each turn.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from dsl.ir.node import Node
from dsl.loops import ir
from dsl.loops.element import Elements, Index
from dsl.loops.legalise import legalise
from dsl.loops.shuffle import shuffled_order
from dsl.loops.task import Shop, Task
from dsl.machine.expr import Buffer, Expr, Load, Ref, const, extent, load, ref, walk
from dsl.ops.control import Loop, opened


class Outer(Protocol):
    """The lowering that a loop stands in."""

    shop: Shop

    def elements(self) -> Elements: ...
    def whole(self, node: Node) -> Buffer | None: ...
    def held(self, node: Node) -> Buffer: ...
    def target(self, node: Node) -> Buffer: ...
    def put(self, node: Node, buffer: Buffer) -> None: ...
    def record(self, node: Node, buffer: Buffer) -> None: ...
    def add(self, task: Task) -> None: ...

    def inner(self, leaf: Callable[[Node, Index], Expr], whole: Callable[[Node], Buffer | None],
              roots: Sequence[tuple[Node, Buffer]]) -> ir.Block:
        """Other graphs lowered, over other leaves."""
        ...


def lower_permutation(outer: Outer, node: Node) -> None:
    """A random order of 0 … n - 1."""
    attrs = dict(node.attrs)
    elements = outer.elements()
    step = elements(node.args[0], ())
    iteration = elements(node.args[1], ()) if len(node.args) > 1 else const(0, "int64")
    buffer = outer.target(node)
    statements = shuffled_order(buffer, attrs["key"], step, extent(attrs["shape"][0]), outer.shop, iteration)
    read = tuple({e.buffer: None for e in walk([step, iteration]) if isinstance(e, Load)})
    outer.add(Task(buffer, [], (), const(0, "int64"), alone=lambda: statements, also_reads=read))
    outer.record(node, buffer)


class _Body:
    """The body of a loop being lowered: its parameters are carried buffers, rows of sequences, and values from outside."""

    def __init__(self, outer: Outer, loop: Loop, nodes: list[Node]) -> None:
        self.outer, self.loop, self.shop = outer, loop, outer.shop
        self.place: Expr = const(0, "int64")
        self.elements = outer.elements()
        self.carried = [self.shop.buffer(p.dtype, p.shape, "carry") for p in loop.parameters[:loop.carried]]
        self.next = [self.shop.buffer(p.dtype, p.shape, "next") for p in loop.parameters[:loop.carried]]
        self.number = {p: i for i, p in enumerate(loop.parameters)}
        self.windows: dict[Node, Buffer] = {}
        self.nodes = {n.attr("output"): n for n in nodes}

    def element(self, leaf: Node, index: Index) -> Expr:
        number, loop = self.number[leaf], self.loop
        if number < loop.carried:
            return load(self.carried[number], index)
        if leaf in self.windows:
            return load(self.windows[leaf], index)
        if number < loop.carried + loop.sequences:
            return self.elements(loop.args[number], (self.place, *index))
        return self.elements(loop.args[number], index)

    def whole(self, leaf: Node) -> Buffer | None:
        number, loop = self.number[leaf], self.loop
        if number < loop.carried:
            return self.carried[number]
        if number < loop.carried + loop.sequences:
            return self.windows.get(leaf)
        return self.outer.whole(loop.args[number])

    def lower(self, roots: list[tuple[Node, Buffer]]) -> ir.Block:
        core = legalise([n for n, _ in roots])
        return self.outer.inner(self.element, self.whole, [(n, b) for n, (_, b) in zip(core, roots, strict=True)])

    def advance(self) -> list[ir.Stmt]:
        """The new values take the place of the old ones."""
        return [ir.Swap(old, new) if old.rank else ir.Store(old, (), load(new)) for old, new in zip(self.carried, self.next, strict=True)]

    def finish(self, statements: list[ir.Stmt], written: list[Buffer]) -> None:
        """One task of the outer block, after the starts have been put in place."""
        outer, loop = self.outer, self.loop
        for start, buffer in zip(loop.starts, self.carried, strict=True):
            outer.put(start, buffer)
        mine = {*self.carried, *self.next}
        met = [b for b in ir.buffers_of(tuple(statements)) if b not in mine and b not in written and b.role != "window"]
        first, *others = [*self.carried, *written] or [self.shop.buffer("bool", (), "nothing")]
        outer.add(Task(first, [], (), const(0, first.dtype), alone=lambda: statements, also_reads=(*self.carried, *met),
                       also_writes=tuple(others)))
        for (kind, number), node in self.nodes.items():
            if kind == "last":
                outer.record(node, self.carried[number])


def lower_scan(outer: Outer, nodes: list[Node]) -> None:
    loop = opened(nodes[0])
    body = _Body(outer, loop, nodes)
    turn = ref(body.shop.name("turn"))
    length = extent(loop.length)
    statements: list[ir.Stmt] = []
    body.place = turn
    if loop.reverse:
        body.place = ref(body.shop.name("back"))
        assert isinstance(body.place, Ref)
        statements.append(ir.Let(body.place.name, length - 1 - turn))
    for parameter, value in zip(loop.parameters[loop.carried:loop.carried + loop.sequences], loop.args[loop.carried:], strict=False):
        base = outer.whole(value)
        if parameter.rank and base is not None:
            window = body.windows[parameter] = Buffer(body.shop.name("row"), parameter.dtype, parameter.shape, "window")
            statements.append(ir.Window(window, base, body.place))
    roots: list[tuple[Node, Buffer]] = list(zip(loop.body[:loop.carried], body.next, strict=True))
    stacks: list[Buffer] = []
    after: list[ir.Stmt] = []
    for (kind, number), node in body.nodes.items():
        if kind == "last":
            continue
        value = loop.body[number if kind == "all" else loop.carried + number]
        stack = outer.target(node)
        outer.record(node, stack)
        stacks.append(stack)
        if value.rank:
            row = Buffer(body.shop.name("kept"), value.dtype, value.shape, "window")
            statements.append(ir.Window(row, stack, body.place))
        else:
            row = body.shop.buffer(value.dtype, (), "kept")
            after.append(ir.Store(stack, (body.place,), load(row)))
        roots.append((value, row))
    inner = (*statements, *body.lower(roots), *after, *body.advance())
    body.finish([ir.Loop(turn.name, length, tuple(inner))], stacks)


def lower_iterate(outer: Outer, nodes: list[Node]) -> None:
    loop = opened(nodes[0])
    body = _Body(outer, loop, nodes)
    turn, going = body.shop.name("turn"), body.shop.buffer("bool", (), "going")
    limit = extent(dict(loop.limits)["limit"])
    inner = body.lower([*zip(loop.body[:loop.carried], body.next, strict=True), (loop.body[-1], going)])
    at_end = ref(turn) >= limit
    body.finish([
        ir.Local(turn, "int64", const(0, "int64")),
        ir.While(const(True, "bool"), (
            *inner, ir.Flag(load(going) & at_end), ir.Leave(~load(going) | at_end), *body.advance(), ir.Assign(turn, ref(turn) + 1)))], [])


def lower_loop(outer: Outer, nodes: list[Node]) -> None:
    """All results of one loop."""
    (lower_scan if nodes[0].op.name == "scan" else lower_iterate)(outer, nodes)
