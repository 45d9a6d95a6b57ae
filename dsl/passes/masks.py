"""Live masks: which elements of a value are in use.

In: the mask of a node's elements.  Out: the masks of its operands' elements.  Reverse mode carries them backwards with
cotangents; `guard` carries them from the results down to what can fault.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence

from dsl.ir.node import Node, everything, inner_graphs
from dsl.ir.types import Shape, is_float, is_int
from dsl.ops.control import iterate, scan
from dsl.ops.reduction import EXTREMES, any_
from dsl.ops.scalar import cast_op, floordiv, mod, ne, pow, select
from dsl.ops.shape import FILL, expand_op, gather, reshape, sum_to
from dsl.record import record


@record
class Cotangent:
    """`mask` tells which elements are live (None: every one) and the value is 0 elsewhere; `strict` if a `where` made it."""

    value: Node
    mask: Node | None = None
    strict: bool = False


def mask_to(mask: Node, shape: Shape) -> Node:
    """A mask reduced to the shape of a broadcast operand: live if any of its copies is."""
    if mask.shape == shape:
        return mask
    extra = mask.rank - len(shape)
    axes = [a for a in range(-mask.rank, 0) if a < -len(shape) or (shape[a].constant == 1 != mask.shape[a].constant)]
    undecided = any(mask.shape[a] != shape[a] for a in range(-len(shape), 0) if a not in axes)
    if undecided:
        result: Node = ne(sum_to(cast_op(mask, dtype="int64"), shape), 0)
        return result
    reduced = any_(mask, axes=tuple(axes), keepdims=True)
    return reshape(reduced, shape=shape) if extra else reduced      # type: ignore[no-any-return]


def live_masks(mask: Node | None, node: Node) -> list[Node | None]:
    """Which elements of each operand are in use, given which of the node's are; None: all."""
    nothing: list[Node | None] = [None] * len(node.args)
    if mask is None:
        return nothing
    attrs = dict(node.attrs)
    if node.op.structural and node.op.vjp:
        if node.op is gather:
            backs: Iterable[Node | None] = gather.vjp(cast_op(mask, dtype="int64"), node, *skipping(node, node.args, mask), fill=True)  # type: ignore[misc]
        elif node.op is expand_op:
            backs = [sum_to(cast_op(mask, dtype="int64"), node.args[0].shape)]
        else:
            backs = node.op.vjp(mask, node, *node.args, **attrs)
        return [b if b is None or b.dtype == "bool" else ne(b, 0) for b in backs]
    if node.op.live:
        return list(node.op.live(mask, node, *node.args, **attrs))
    if node.op.elementwise:
        return [mask_to(mask, a.shape) for a in node.args]
    return nothing


def looked_up(node: Node, mask: Node) -> Node:
    """Which places of the index arrays of a `gather` are in use, given which of its elements are."""
    trailing = tuple(range(max(index.rank for index in node.args[1:]) - node.rank, 0))
    return any_(mask, axes=trailing, keepdims=False) if trailing else mask


def skipping(node: Node, args: Sequence[Node], mask: Node) -> list[Node]:
    """The operands of a `gather` in which the elements that a mask leaves out are not looked up."""
    picks = looked_up(node, mask)
    return [args[0], *(select(picks, index, FILL) for index in args[1:])]


# ---------------------------------------------------------------- what masks are for
def can_fault(node: Node) -> bool:
    """Whether some operands make the op fault: an integer division, an index, the largest of nothing, a loop without end."""
    op = node.op
    return (op in (floordiv, mod, pow) and is_int(node.dtype)) or op is gather or op in EXTREMES or op is iterate or \
        (op is cast_op and is_int(node.dtype) and is_float(node.args[0].dtype)) or \
        (op is scan and any(map(can_fault, everything(inner_graphs(node)))))
