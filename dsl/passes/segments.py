"""A long loop as a loop over segments.

In: a `scan` over T elements of which only the last values are used.  Out: the same values from about √T segments of about √T
steps each, and the rest of the steps.  Its adjoint keeps the states between segments and, one segment at a time, those
inside: 2 √T states in place of T, for computing every step once more.
"""
from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

from dsl.ir.node import Node, Origins
from dsl.ir.types import Dim, product
from dsl.ops.control import Loop, closed, scan
from dsl.ops.leaves import leaf
from dsl.ops.shape import reshape, slice_axis

MOST_STATES = 2 ** 28
"""Bytes of states that an adjoint keeps before it takes segments."""
SHORTEST = 16


def is_long(loop: Loop) -> bool:
    """Whether the states of all steps would not fit; sizes that are known only at run time are taken to fit."""
    length = loop.length.known
    elements = [product(p.shape).known for p in loop.parameters[:loop.carried]]
    return length is not None and length >= SHORTEST and 8 * length * sum(e or 0 for e in elements) > MOST_STATES


def segmented(loop: Loop, origins: Origins | None = None) -> list[Node]:
    """The last carried values, from segments."""
    total = loop.length.known
    assert total is not None
    size = isqrt(total)
    count, rest = divmod(total, size)
    first, after = (rest, 0) if loop.reverse else (0, count * size)           # where the segments begin, and the rest
    carries, captured = loop.parameters[:loop.carried], loop.parameters[loop.carried + loop.sequences:]
    sequences = loop.args[loop.carried:loop.carried + loop.sequences]

    def rows(start: int, length: int) -> list[Node]:
        return [slice_axis(s, -s.rank, start, length) for s in sequences]
    folded: list[Node] = [reshape(s, shape=(Dim.of(count), Dim.of(size), *s.shape[1:])) for s in rows(first, count * size)]
    placeholders = [leaf("element", f"segment {i}", s.type.with_shape(s.shape[1:])) for i, s in enumerate(folded)]
    inner = steps(loop, (*carries, *placeholders, *captured), size, origins)
    outer = closed(Loop(scan, (*loop.starts, *folded, *loop.captured), (*carries, *placeholders, *captured),
                        tuple(inner.output("last", k) for k in range(loop.carried)), loop.carried, len(folded),
                        (("length", Dim.of(count)), ("reverse", loop.reverse))), origins)
    lasts = [outer.output("last", k) for k in range(loop.carried)]
    if not rest:
        return lasts
    end = steps(loop, (*lasts, *rows(after, rest), *loop.captured), rest, origins)
    return [end.output("last", k) for k in range(loop.carried)]


def steps(loop: Loop, args: Sequence[Node], length: int, origins: Origins | None) -> Loop:
    """Some steps of the loop, over these operands."""
    return closed(Loop(scan, tuple(args), loop.parameters, loop.body, loop.carried, loop.sequences,
                       (("length", Dim.of(length)), ("reverse", loop.reverse))), origins)
