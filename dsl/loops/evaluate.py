"""A graph as a program.

In: prepared graphs.  Out: a `Program` with a buffer for every leaf (scalars by value) and for every result.
"""
from __future__ import annotations

import re
from collections.abc import Sequence

from dsl.ir.node import Node, Origins, topological
from dsl.loops import ir
from dsl.loops.element import Index
from dsl.loops.legalise import legalise
from dsl.loops.lower import Lowering
from dsl.loops.task import Shop
from dsl.loops.tidy import tidy
from dsl.machine.expr import Buffer, Expr, Ref, load, ref
from dsl.ops.leaves import is_leaf, leaf_name

BLOCK = 1024
"""How many float32 numbers are added up in float32 before their sum is added in float64."""


def word(text: str) -> str:
    """A name that every code generator can print."""
    made = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in text)
    return made if made and not made[0].isdigit() else f"_{made}"


MADE = re.compile(r"[ijkl]|[a-z]+\d+")
"""What the names look like that a lowering makes for itself."""


class Names:
    """Words that are taken neither by others nor by a lowering."""

    def __init__(self) -> None:
        self.taken: set[str] = set()

    def __call__(self, text: str) -> str:
        base = word(text)
        base = made = f"{base}_" if MADE.fullmatch(base) else base
        number = 1
        while made in self.taken:
            number += 1
            made = f"{base}_{number}"
        self.taken.add(made)
        return made


def program(roots: Sequence[Node], name: str = "graph", block: int | None = BLOCK,
            origins: Origins | None = None, tiles: bool = True) -> tuple[ir.Program, tuple[Node, ...]]:
    """The program of graphs, and their leaves: first those that are arrays, then the scalars.  Raises `NotNative`."""
    core = legalise(roots, origins)
    leaves = [n for n in topological(core) if is_leaf(n)]
    names = Names()
    arrays = {n: Buffer(names(leaf_name(n)), n.dtype, n.shape, "input") for n in leaves if n.rank}
    scalars: dict[Node, Ref] = {n: ref(names(leaf_name(n)), n.dtype) for n in leaves if not n.rank}
    outputs = [Buffer(names(f"out_{i}"), n.dtype, n.shape, "output") for i, n in enumerate(core)]

    def element(leaf: Node, index: Index) -> Expr:
        return load(arrays[leaf], index) if leaf.rank else scalars[leaf]
    shop = Shop(block, tiles)
    body = Lowering(shop, element, arrays.get).block(list(zip(core, outputs)))
    body, scratch = tidy(body, shop.scratch)
    made = ir.Program(name, (*arrays.values(), *outputs, *scratch), tuple(scalars.values()), body)
    return made, (*arrays, *scalars)
