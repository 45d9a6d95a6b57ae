"""Reverse-mode differentiation.

In: graphs with the derivative ops of `dsl/ops/calculus.py`.  Out: the same graphs with them written out, innermost
first.  Each differentiated expression is simplified and stabilised before its derivative is taken.

A cotangent carries a live mask.  Where `where` does not take a branch its elements are dead: an element-wise rule then
emits `where(mask, g * dy/dx, 0)`, so that no nan or infinity of the dead branch gets through, to any order.  Ops that
move elements move the mask likewise; reductions spread it; ops that mix elements of an operand with live cotangents
(products of matrices, running products) read 0 in place of the operand's dead elements.  The gates of `relu`, `clip`,
`maximum` make masks too, but those do not reach through products of matrices: that would cost a pass over every weight.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from dsl.ir.node import Node, Origins, make, reaches, substitute, topological
from dsl.ir.types import Shape, is_float
from dsl.ops.calculus import DERIVATIVES, double_vjp, jac, jvp, vjp
from dsl.ops.leaves import is_leaf, leaf
from dsl.ops.linalg import matmul
from dsl.ops.reduction import any_, cumprod, recurrence
from dsl.ops.scalar import add, and_, cast_op, ne, or_, select
from dsl.ops.shape import FILL, expand, expand_op, gather, reshape, sum_to, zeros_like
from dsl.ops.table import Gate
from dsl.passes.batch import rows_over_basis, unit_vector
from dsl.record import record

Simplify = Callable[[list[Node]], list[Node]]


MIXING = frozenset((matmul, cumprod, recurrence))
"""Ops whose derivative multiplies live cotangents with elements of an operand that may be dead."""


@record
class Cotangent:
    """`mask` tells which elements are live (None: every one) and the value is 0 elsewhere; `strict` if a `where` made it."""

    value: Node
    mask: Node | None = None
    strict: bool = False


# ---------------------------------------------------------------- derivative ops written out
def differentiate(roots: Sequence[Node], simplify: Simplify, origins: Origins | None = None) -> list[Node]:
    """The graphs without derivative ops."""
    order = topological(roots)
    if not any(node.op in DERIVATIVES for node in order):
        return list(roots)
    together: dict[tuple[Node, Node], list[Node]] = {}
    for node in order:
        if node.op is vjp and is_leaf(node.args[1]):
            together.setdefault((node.args[0], node.args[2]), []).append(node)
    new: dict[Node, Node] = {}
    for node in order:
        if node in new:
            continue
        args = tuple(new[a] for a in node.args)
        if node.op is vjp and is_leaf(node.args[1]):
            peers = together[node.args[0], node.args[2]]
            results = pull_back(args[0], [p.args[1] for p in peers], args[2], simplify, origins)
            new.update(zip(peers, results, strict=True))
        elif node.op is vjp:
            new[node] = pull_back(*_one(args), simplify, origins)[0]
        elif node.op is jac:
            row = pull_back(args[0], [args[1]], unit_vector(args[0]), simplify, origins)[0]
            new[node] = rows_over_basis(row, args[0], args[1])
        elif node.op is jvp:
            new[node] = differentiate([double_vjp(*args)], simplify, origins)[0]
        else:
            new[node] = node if args == node.args else make(node.op, args, node.attrs)
        if origins is not None:
            origins.inherit(new[node], node)
    return [new[r] for r in roots]


def _one(args: tuple[Node, ...]) -> tuple[Node, list[Node], Node]:
    return args[0], [args[1]], args[2]


def pull_back(f: Node, names: list[Node], v: Node, simplify: Simplify, origins: Origins | None = None) -> list[Node]:
    """`v` times the Jacobian of `f` with respect to each name: `f` is simplified with the names taken as independent."""
    opaque = {x: x if is_leaf(x) else leaf("value", f"independent {dict(x.attrs).get('name')}", x.type) for x in names}
    (function,) = simplify(substitute([f], {x: o for x, o in opaque.items() if x is not o}, origins=origins))
    targets = list(opaque.values())
    gradients = reverse(function, expand(v, f.shape), targets, origins)
    back = {o: x for x, o in opaque.items() if x is not o}
    return substitute(gradients, back, origins=origins) if back else gradients


# ---------------------------------------------------------------- one reverse sweep
def expand_definitions(root: Node, on_path: set[Node], origins: Origins | None) -> Node:
    """Ops on the path that have a definition but no derivative of their own, replaced by their definition."""
    new: dict[Node, Node] = {}
    for node in topological([root]):
        args = tuple(new[a] for a in node.args)
        op = node.op
        if node in on_path and op.means and not op.partials and not op.vjp:
            defined = op.means(*args, **dict(node.attrs))
            new[node] = expand_definitions(defined, reaches([defined], args), origins)
            if origins is not None:
                for inner in topological([defined]):
                    origins.inherit(inner, node)
        else:
            new[node] = node if args == node.args else make(op, args, node.attrs)
        if origins is not None:
            origins.inherit(new[node], node)
    return new[root]


def reverse(root: Node, seed: Node, targets: Sequence[Node], origins: Origins | None = None) -> list[Node]:
    """The cotangents of the targets, given that of the root; zeros where the root does not depend on one."""
    root = expand_definitions(root, reaches([root], targets), origins)
    order = topological([root])
    on_path = reaches([root], targets)
    pending: dict[Node, list[Cotangent]] = {root: [Cotangent(seed)]}
    result: dict[Node, Node] = {}
    for node in reversed(order):
        if node not in on_path or node not in pending:
            continue
        total = _meet(pending.pop(node))
        if origins is not None:
            origins.inherit(total.value, node)
        if node in targets:
            result[node] = total.value
            continue
        for arg, cotangent in zip(node.args, _through(node, total, on_path), strict=True):
            if cotangent is not None:
                pending.setdefault(arg, []).append(cotangent)
                if origins is not None:
                    origins.inherit(cotangent.value, node)
    return [result.get(t) or zeros_like(t) for t in targets]


def _meet(parts: Sequence[Cotangent]) -> Cotangent:
    """Contributions added up; an element is live if it is in any of them."""
    value, mask = parts[0].value, parts[0].mask
    for part in parts[1:]:
        value = add(value, part.value)
        mask = or_(mask, part.mask) if mask is not None and part.mask is not None else None
    return Cotangent(value, mask, any(part.strict for part in parts))


def _through(node: Node, g: Cotangent, on_path: set[Node]) -> list[Cotangent | None]:
    """What each operand of a node gets from the node's cotangent."""
    wanted = [a in on_path and is_float(a.dtype) for a in node.args]
    attrs = dict(node.attrs)
    if node.op.partials:
        partials = node.op.partials(node, *node.args, **attrs)
        return [_element(g, p, node, a) if w and p is not None else None
                for a, w, p in zip(node.args, wanted, partials, strict=True)]
    if node.op.vjp is None:
        return [None] * len(node.args)
    keep_masks = g.mask is not None and (g.strict or node.op is not matmul)
    masks = live_masks(g.mask if keep_masks else None, node)
    args = list(node.args)
    if keep_masks and node.op in MIXING:
        args = [a if mask is None else select(mask, a, 0) for a, mask in zip(args, masks, strict=True)]
    elif g.mask is not None and node.op is gather:
        args, attrs = skipping(node, args, g.mask), {"fill": True}
    results: list[Cotangent | None] = []
    for w, value, mask in zip(wanted, node.op.vjp(g.value, node, *args, **attrs), masks, strict=True):
        if not w or value is None:
            results.append(None)
        elif mask is None or node.op.structural:
            results.append(Cotangent(value, mask, g.strict))
        else:
            results.append(Cotangent(select(mask, value, 0), mask, g.strict))
    return results


def _element(g: Cotangent, partial: object, node: Node, arg: Node) -> Cotangent:
    """The element-wise rule: `where(mask, g * partial, 0)`, summed back to the operand's shape."""
    mask = g.mask
    match partial:
        case Gate(condition, factor):
            condition = expand(condition, node.shape)
            mask = condition if mask is None else and_(mask, condition)
            value = select(condition, g.value, 0) if factor == 1 else select(mask, g.value * factor, 0)
        case 1 | 1.0:
            value = g.value
        case -1 | -1.0:
            value = -g.value
        case _:
            value = g.value * partial
            value = value if mask is None else select(mask, value, 0)
    if node.op.name == "cast":
        value = cast_op(value, dtype=arg.dtype)
    value = sum_to(expand(value, node.shape), arg.shape)
    return Cotangent(value) if mask is None else Cotangent(value, mask_to(mask, arg.shape), g.strict or node.op is select)


# ---------------------------------------------------------------- masks
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
