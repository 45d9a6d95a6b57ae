"""The memory plan: which scratch arrays share storage.

In: a program.  Out: its storages, each a list of scratch arrays that are never in use at the same time.

An array is in use from the first statement of the program's body that meets it (or a window of it) to the last.  Arrays
share only if they have equally many bytes for all sizes.  An array that is swapped keeps its storage to itself: its
contents move.
"""
from __future__ import annotations

from dsl.backends.llvm.function import BYTES
from dsl.ir.types import Dim, product
from dsl.loops.ir import Program, Swap, Window, buffers_of, statements
from dsl.machine.expr import Buffer


def storages(program: Program) -> list[list[Buffer]]:
    bases = {s.buffer: s.base for s in statements(program.body) if isinstance(s, Window)}
    swapped = {b for s in statements(program.body) if isinstance(s, Swap) for b in (s.a, s.b)}
    first: dict[Buffer, int] = {}
    last: dict[Buffer, int] = {}
    for place, s in enumerate(program.body):
        for b in buffers_of((s,)):
            while b in bases:
                first.setdefault(b, place)
                last[b] = place
                b = bases[b]
            first.setdefault(b, place)
            last[b] = place
    planned: list[list[Buffer]] = []
    free: dict[tuple[int, Dim], list[tuple[int, list[Buffer]]]] = {}          # last use, storage
    for b in sorted((b for b in program.scratch if b.rank and b in first), key=lambda b: first[b]):
        shelf = free.setdefault((BYTES[b.dtype], product(b.shape)), [])
        position = next((i for i, (end, _) in enumerate(shelf) if end < first[b]), None)
        if b in swapped or position is None:
            storage = [b]
            planned.append(storage)
        else:
            _, storage = shelf.pop(position)
            storage.append(b)
        if b not in swapped:
            shelf.append((last[b], storage))
    return planned
