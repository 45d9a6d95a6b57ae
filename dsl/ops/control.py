"""Loops: one row each.

A loop is an op over a body, which is a graph of its own.  The body is closed: it reads nothing but placeholder leaves, one
an operand, so that whoever walks the outer graph need not enter it.

    scan     operands    starts c…, sequences x… of `length` rows, captured values p…
             body        the next carried value for each c, then what is kept of each step
             parameters  leaves `carry 0…`, `element 0…`, `captured 0…`, in the order of the operands
    iterate  operands    starts c…, captured values p…
             body        the next carried value for each c, then the condition, which is asked first: where it does not hold the
                         next values are not computed

A node is one output of a loop: ("all", k) the k-th carried value after every step, stacked by element; ("last", k) its last
value; ("each", k) the k-th thing kept of every step.  The nodes of one loop differ in `output` only, and whatever runs them
runs the loop once.  With `reverse` the last element is taken first.  Equal loops are equal nodes: placeholders are
known by their place.  A draw in a body has the number of the iteration as an operand, which is a sequence like any other.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dsl.ir.node import Attrs, Node, Op, Origins, make, substitute, topological
from dsl.ir.types import ArrayType, Dim, Shapes, TypeFault
from dsl.ops.leaves import leaf
from dsl.ops.reduction import any_
from dsl.ops.scalar import const
from dsl.ops.shape import expand
from dsl.ops.table import Fault, array
from dsl.record import record

Output = tuple[str, int]
Result = tuple[str, int, tuple[int, ...], str]
"""An output with its actual shape and dtype."""


# ---------------------------------------------------------------- typing
def _agree(shapes: Shapes, what: str, wanted: ArrayType, given: ArrayType) -> None:
    """Two types that must be the same; lengths that cannot be compared yet are checked at run time."""
    fits = wanted.dtype == given.dtype and wanted.rank == given.rank and \
        all(shapes.equal(a, b) is not None for a, b in zip(wanted.shape, given.shape, strict=True))
    if not fits:
        raise TypeFault(f"{what} is {given}, not {wanted}", dims=(*wanted.shape, *given.shape))


def _scan_infer(shapes: Shapes, *types: ArrayType, body: tuple[Node, ...], parameters: tuple[Node, ...], carried: int,
                sequences: int, length: Dim, reverse: bool, output: Output) -> ArrayType:
    for place, (given, parameter) in enumerate(zip(types, parameters, strict=True)):
        if carried <= place < carried + sequences:
            if shapes.equal(length, given.shape[0]) is None:
                raise TypeFault(f"the sequences of a loop have one length, not {length} and {given.shape[0]}", dims=(length, given.shape[0]),
                                help="give sequences with the same number of rows")
            given = given.with_shape(given.shape[1:])
        _agree(shapes, "an operand of the loop", parameter.type, given)
    for parameter, new in zip(parameters, body[:carried], strict=False):
        _agree(shapes, "the next carried value", parameter.type, new.type)
    kind, place = output
    if kind == "each":
        return body[carried + place].type.with_shape((length, *body[carried + place].shape))
    value = parameters[place].type
    return value.with_shape((length, *value.shape)) if kind == "all" else value


def _iterate_infer(shapes: Shapes, *types: ArrayType, body: tuple[Node, ...], parameters: tuple[Node, ...], carried: int,
                   limit: Dim, output: Output) -> ArrayType:
    for given, parameter in zip(types, parameters, strict=True):
        _agree(shapes, "an operand of the loop", parameter.type, given)
    for parameter, new in zip(parameters, body[:carried], strict=False):
        _agree(shapes, "the next carried value", parameter.type, new.type)
    if body[-1].type != ArrayType("bool"):
        raise TypeFault(f"the condition of a loop is one bool, not {body[-1].type}", kind="dtype")
    return parameters[output[1]].type


# ---------------------------------------------------------------- NumPy meanings
def _run_scan(body: Callable[..., Sequence[Any]], results: Sequence[Result], *values: Any, carried: int, sequences: int,
              length: int, reverse: bool) -> list[Any]:
    """The outputs asked for; `body` is the compiled body, of one argument a parameter."""
    state = list(values[:carried])
    columns, captured = values[carried:carried + sequences], values[carried + sequences:]
    kept: list[Any] = [None if kind == "last" else np.empty(shape, dtype) for kind, _, shape, dtype in results]
    stacks = [(stack, place if kind == "all" else carried + place)
              for stack, (kind, place, _, _) in zip(kept, results, strict=True) if kind != "last"]
    for i in range(length - 1, -1, -1) if reverse else range(length):
        out = body(*state, *[column[i] for column in columns], *captured)
        state = list(out[:carried])
        for stack, place in stacks:
            stack[i] = out[place]
    return [state[place] if kind == "last" else stack for stack, (kind, place, _, _) in zip(kept, results, strict=True)]


def _run_iterate(body: Callable[..., Sequence[Any]], results: Sequence[Result], *values: Any, condition: Callable[..., Sequence[Any]],
                 carried: int, limit: int) -> list[Any]:
    state, captured = list(values[:carried]), values[carried:]
    for turn in range(limit + 1):
        if not condition(*state, *captured)[0]:
            break
        if turn == limit:
            raise Fault("E0708", f"the condition still holds after max {limit} turns",
                        "allow more turns, or check that the condition is reached from this start")
        state = list(body(*state, *captured))
    return [state[place] for _, place, _, _ in results]


def _live(mask: Node, y: Node, *args: Node, **_: Any) -> list[Node]:
    """A loop is in use as a whole: its operands are if any element of its result is."""
    used = any_live(mask)
    return [expand(used, a.shape) for a in args]


def any_live(mask: Node) -> Node:
    result: Node = any_(mask, axes=tuple(range(-mask.rank, 0)), keepdims=False) if mask.rank else mask
    return result


scan = array("scan", "*values", "A loop over the rows of sequences that carries values from step to step.", infer=_scan_infer, numpy=_run_scan,
             live=_live)
iterate = array("iterate", "*values", "A loop that carries values from turn to turn while a condition holds.", infer=_iterate_infer, numpy=_run_iterate,
                live=_live)
LOOPS: tuple[Op, ...] = (scan, iterate)


# ---------------------------------------------------------------- a loop taken apart and put together
@record
class Loop:
    """What the nodes of one loop share; `limits` are its other attributes."""

    op: Op
    args: tuple[Node, ...]
    parameters: tuple[Node, ...]
    body: tuple[Node, ...]
    carried: int
    sequences: int
    limits: Attrs

    @property
    def starts(self) -> tuple[Node, ...]:
        return self.args[:self.carried]

    @property
    def captured(self) -> tuple[Node, ...]:
        return self.args[self.carried + self.sequences:]

    @property
    def length(self) -> Dim:
        length: Dim = dict(self.limits)["length"]
        return length

    @property
    def reverse(self) -> bool:
        return bool(dict(self.limits)["reverse"])

    def output(self, kind: str, place: int) -> Node:
        """One output as a node."""
        attrs = {"body": self.body, "parameters": self.parameters, "carried": self.carried, **dict(self.limits), "output": (kind, place)}
        return make(self.op, self.args, {**attrs, "sequences": self.sequences} if self.op is scan else attrs)


def opened(node: Node) -> Loop:
    """The loop that a node is an output of."""
    attrs = dict(node.attrs)
    body, parameters, carried = attrs.pop("body"), attrs.pop("parameters"), attrs.pop("carried")
    attrs.pop("output")
    return Loop(node.op, node.args, parameters, body, carried, attrs.pop("sequences", 0), tuple(sorted(attrs.items())))


def same_loop(node: Node) -> tuple[Any, ...]:
    """A key that is equal for the outputs of one loop."""
    return node.op, node.args, tuple(pair for pair in node.attrs if pair[0] != "output")


def closed(loop: Loop, origins: Origins | None = None) -> Loop:
    """The loop in its canonical form: placeholders named by their place; no sequence or captured value that the body does
    not read, none twice; literals in the body."""
    read = set(topological(loop.body))
    outside: dict[tuple[int, Node], Node] = {}
    kept: list[tuple[Node, Node, int]] = []                 # placeholder, operand, and 0, 1, 2: carried, sequence, captured
    replacement: dict[Node, Node] = {}
    for place, (parameter, value) in enumerate(zip(loop.parameters, loop.args, strict=True)):
        role = 0 if place < loop.carried else 1 if place < loop.carried + loop.sequences else 2
        if role and parameter not in read:
            continue
        if role == 2 and value.op is const:
            replacement[parameter] = value
        elif role and (role, value) in outside:
            replacement[parameter] = outside[role, value]
        else:
            kept.append((parameter, value, role))
            if role:
                outside[role, value] = parameter
    counts = [0, 0, 0]
    parameters = []
    for parameter, _, role in kept:
        parameters.append(leaf(("carry", "element", "captured")[role], str(counts[role]), parameter.type))
        counts[role] += 1
    named = {old: new for (old, _, _), new in zip(kept, parameters, strict=True)}
    named |= {old: named.get(new, new) for old, new in replacement.items()}
    body = substitute(loop.body, {old: new for old, new in named.items() if old is not new}, origins=origins)
    return Loop(loop.op, tuple(value for _, value, _ in kept), tuple(parameters), tuple(body), loop.carried, counts[1], loop.limits)

