"""Random orders as statements.

In: a key, the epoch (or step), how many rows.  Out: statements that fill an array with the shuffled row numbers, as
`shuffle_index` of `dsl/ops/philox.py` gives them: every place is found on its own, so the kernel runs on any number of threads.
"""
from __future__ import annotations

from dsl.ir.types import Dim
from dsl.loops import ir
from dsl.loops.fuse import shared
from dsl.loops.task import Shop
from dsl.machine.expr import Buffer, Expr, const, load, ref
from dsl.machine.philox import FEW_ROUNDS, MANY_ROUNDS, round_key, shuffle_geometry, shuffle_is_small, shuffle_turn


def shuffled_order(order: Buffer, key: int | Expr, epoch: Expr, count: Expr, shop: Shop, iteration: Expr | int = 0) -> list[ir.Stmt]:
    """order[i] becomes the row that place i of this epoch takes, for i < count."""
    keys = shop.buffer("int32", (Dim.of(MANY_ROUNDS + 1), Dim.of(2)), "keys")
    number, zero, one = ref(shop.name("round")), const(0, "int64"), const(1, "int64")
    first, second = round_key(key, epoch, iteration, number)
    geometry = [shop.name(word) for word in ("bits", "mask", "mask")]
    made = shuffle_geometry(count)
    known = type(made)(*(ref(name, e.dtype) for name, e in zip(geometry, made, strict=True)))

    def walk(rounds: int) -> ir.Block:
        """Turns of the network until the place is one of those there are."""
        i, place, again = ref(shop.name("place")), shop.name("x"), shop.name("again")
        words = [(load(keys, (const(r, "int64"), zero)), load(keys, (const(r, "int64"), one))) for r in range(rounds + 1)]
        after = shop.name("y")
        body: ir.Block = (
            ir.Local(place, "int64", i), ir.Local(again, "bool", const(True, "bool")),
            ir.While(ref(again, "bool"), (
                *shared([ir.Let(after, shuffle_turn(ref(place), known, words))], shop),
                ir.Assign(place, ref(after)), ir.Assign(again, ref(after) >= count))),
            ir.Store(order, (i,), ref(place)))
        return (ir.Kernel(shop.name("shuffle"), i.name, count, body, (), Dim.of(12 * rounds)),)
    return [
        ir.Loop(number.name, const(MANY_ROUNDS + 1, "int64"), tuple(shared([
            ir.Store(keys, (number, zero), first), ir.Store(keys, (number, one), second)], shop))),
        *shared([ir.Let(name, e) for name, e in zip(geometry, made, strict=True)], shop),
        ir.If(count > 1, (ir.If(shuffle_is_small(count), walk(MANY_ROUNDS), walk(FEW_ROUNDS)),),
              (ir.If(count.eq(1), (ir.Store(order, (const(0, "int64"),), const(0, "int64")),)),))]
