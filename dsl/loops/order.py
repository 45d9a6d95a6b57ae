"""Orders as statements.

In: an `argsort`, within a lowering.  Out: one task that finds, row by row, the places that sort the last axis: merge sort from
runs of one upward (von Neumann 1945), which is stable, so ties keep their order; nan comes last.
"""
from __future__ import annotations

from dsl.ir.node import Node
from dsl.ir.types import is_float
from dsl.loops import fuse, ir
from dsl.loops.control import Outer
from dsl.loops.task import Task
from dsl.machine.expr import Expr, apply, const, extent, load, minimum, ref, select


def lower_order(outer: Outer, node: Node) -> None:
    """The order of every row of an array that is stored."""
    (x,) = node.args
    source = outer.held(x)
    shop, out = outer.shop, outer.target(node)
    *lead, length = x.shape
    here = [shop.name("at") for _ in lead]
    row = tuple(ref(name) for name in here)
    n = extent(length)
    old, new = shop.buffer("int64", (length,), "order"), shop.buffer("int64", (length,), "merged")
    width, run, place, left, right = (ref(shop.name(word)) for word in ("width", "pair", "place", "left", "right"))
    low, middle, high = (ref(shop.name(word)) for word in ("low", "middle", "high"))

    def value(position: Expr, end: Expr) -> Expr:
        """The element that a position of the order names; past the end of its run any one."""
        return load(source, (*row, load(old, (select(position < end, position, low),))))

    def less(a: Expr, b: Expr) -> Expr:
        return (a < b) | (apply("isnan", b) & ~apply("isnan", a)) if is_float(x.dtype) else ~a & b if x.dtype == "bool" else a < b
    takes_left = ref(shop.name("takes"), "bool")
    merge: ir.Block = (
        ir.Let(takes_left.name, (left < middle) & ((right >= high) | ~less(value(right, high), value(left, middle)))),
        ir.Store(new, (low + place,), load(old, (select(takes_left, left, right),))),
        ir.Assign(left.name, left + takes_left.to("int64")),
        ir.Assign(right.name, right + (~takes_left).to("int64")))
    pairs = apply("idiv", n + 2 * width - 1, 2 * width)
    body: ir.Block = (
        ir.Loop(place.name, n, (ir.Store(old, (place,), place),)),
        ir.Local(width.name, "int64", const(1, "int64")),
        ir.While(width < n, (
            ir.Loop(run.name, pairs, (
                ir.Let(low.name, run * 2 * width),
                ir.Let(middle.name, minimum(low + width, n)), ir.Let(high.name, minimum(low + 2 * width, n)),
                ir.Local(left.name, "int64", low), ir.Local(right.name, "int64", middle),
                ir.Loop(place.name, high - low, merge))),
            ir.Swap(old, new),
            ir.Assign(width.name, width * 2))),
        ir.Loop(place.name, n, (ir.Store(out, (*row, place), load(old, (place,))),)))
    for name, d in zip(reversed(here), reversed(lead), strict=True):
        body = (ir.Loop(name, extent(d), body),)
    statements = fuse.shared(body, shop)
    outer.add(Task(out, [], (), const(0, "int64"), alone=lambda: list(statements), also_reads=(source,), also_writes=(old, new)))
    outer.record(node, out)
