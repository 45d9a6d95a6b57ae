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

from collections.abc import Callable, Sequence

from dsl.errors import LrError, Span, error
from dsl.ir.node import Node, Origins, make, once, reaches, remade, substitute, topological
from dsl.ir.types import is_float
from dsl.ops.calculus import contains_derivatives, double_vjp, jac, jvp, vjp
from dsl.ops.control import iterate, opened, same_loop, scan
from dsl.ops.leaves import is_leaf, leaf
from dsl.ops.linalg import matmul
from dsl.ops.reduction import cumprod, recurrence
from dsl.ops.scalar import add, and_, cast_op, or_, select
from dsl.ops.shape import expand, gather, sum_to, zeros_like
from dsl.ops.table import Gate
from dsl.passes.adjoint import loop_adjoint
from dsl.passes.batch import rows_over_basis, unit_vector
from dsl.passes.masks import Cotangent, live_masks, mask_to, skipping
from dsl.passes.shield import shielded

Simplify = Callable[[list[Node]], list[Node]]


MIXING = frozenset((matmul, cumprod, recurrence))
"""Ops whose derivative multiplies live cotangents with elements of an operand that may be dead."""


# ---------------------------------------------------------------- derivative ops written out
def differentiate(roots: Sequence[Node], simplify: Simplify, origins: Origins | None = None) -> list[Node]:
    """The graphs without derivative ops."""
    if not contains_derivatives(roots):
        return list(roots)
    order = topological(roots)
    inside = once(lambda body: differentiate(body, simplify, origins))
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
            new[node] = remade(node, args, inside)
        if origins is not None:
            origins.inherit(new[node], node)
    return [new[r] for r in roots]


def _one(args: tuple[Node, ...]) -> tuple[Node, list[Node], Node]:
    return args[0], [args[1]], args[2]


def pull_back(f: Node, names: list[Node], v: Node, simplify: Simplify, origins: Origins | None = None) -> list[Node]:
    """`v` times the Jacobian of `f` with respect to each name: `f` is simplified with the names taken as independent."""
    opaque = {x: x if is_leaf(x) else leaf("value", f"independent {dict(x.attrs).get('name')}", x.type) for x in names}
    (function,) = simplify(substitute([f], {x: o for x, o in opaque.items() if x is not o}, origins=origins))
    (function,) = shielded([function], (), origins)
    targets = list(opaque.values())
    gradients = reverse(function, expand(v, f.shape), targets, origins)
    back = {o: x for x, o in opaque.items() if x is not o}
    return substitute(gradients, back, origins=origins) if back else gradients


# ---------------------------------------------------------------- one reverse sweep
def expand_definitions(roots: Sequence[Node], on_path: set[Node], origins: Origins | None) -> list[Node]:
    """Ops on the path that have a definition but no derivative of their own, replaced by their definition."""
    new: dict[Node, Node] = {}
    for node in topological(roots):
        args = tuple(new[a] for a in node.args)
        op = node.op
        if node in on_path and op.means and not op.partials and not op.vjp:
            defined = op.means(*args, **dict(node.attrs))
            (new[node],) = expand_definitions([defined], reaches([defined], args), origins)
            if origins is not None:
                for inner in topological([defined]):
                    origins.inherit(inner, node)
        else:
            new[node] = node if args == node.args else make(op, args, node.attrs)
        if origins is not None:
            origins.inherit(new[node], node)
    return [new[r] for r in roots]


def reverse(root: Node, seed: Node, targets: Sequence[Node], origins: Origins | None = None) -> list[Node]:
    """The cotangents of the targets, given that of the root; zeros where the root does not depend on one."""
    found = sweep([root], [Cotangent(seed)], targets, origins)
    return [zeros_like(t) if c is None else c.value for t, c in zip(targets, found, strict=True)]


def sweep(roots: Sequence[Node], seeds: Sequence[Cotangent], targets: Sequence[Node],
          origins: Origins | None = None) -> list[Cotangent | None]:
    """The cotangents of the targets, given those of the roots; None where no root depends on one."""
    roots = expand_definitions(roots, reaches(roots, targets), origins)
    order = topological(roots)
    on_path = reaches(roots, targets)
    pending: dict[Node, list[Cotangent]] = {}
    for root, seed in zip(roots, seeds, strict=True):
        pending.setdefault(root, []).append(seed)
    result: dict[Node, Cotangent] = {}
    first: dict[tuple[object, ...], Node] = {}              # the last output of each loop to be met
    for node in order:
        if node.op is scan and node in on_path:
            first.setdefault(same_loop(node), node)
    outputs: dict[tuple[object, ...], dict[tuple[str, int], Cotangent]] = {}

    def give(arg: Node, cotangent: Cotangent | None, node: Node) -> None:
        if cotangent is not None:
            pending.setdefault(arg, []).append(cotangent)
            if origins is not None:
                origins.inherit(cotangent.value, node)
    for node in reversed(order):
        if node not in on_path:
            continue
        total = _meet(pending.pop(node)) if node in pending else None
        if total is not None and origins is not None:
            origins.inherit(total.value, node)
        if node in targets:
            if total is not None:
                result[node] = total
        elif node.op is scan:
            key = same_loop(node)
            if total is not None:
                outputs.setdefault(key, {})[node.attr("output")] = total
            if first[key] is node and key in outputs:
                wanted = [a in on_path and is_float(a.dtype) for a in node.args]
                for arg, cotangent in zip(node.args, loop_adjoint(opened(node), outputs[key], wanted, sweep, origins), strict=True):
                    give(arg, cotangent, node)
        elif total is not None:
            for arg, cotangent in zip(node.args, _through(node, total, on_path, origins), strict=True):
                give(arg, cotangent, node)
    return [result.get(t) for t in targets]


def _meet(parts: Sequence[Cotangent]) -> Cotangent:
    """Contributions added up; an element is live if it is in any of them."""
    value, mask = parts[0].value, parts[0].mask
    for part in parts[1:]:
        value = add(value, part.value)
        if mask is not part.mask:
            mask = or_(mask, part.mask) if mask is not None and part.mask is not None else None
    return Cotangent(value, mask, any(part.strict for part in parts))


def _through(node: Node, g: Cotangent, on_path: set[Node], origins: Origins | None) -> list[Cotangent | None]:
    """What each operand of a node gets from the node's cotangent."""
    wanted = [a in on_path and is_float(a.dtype) for a in node.args]
    attrs = dict(node.attrs)
    if node.op.partials:
        partials = node.op.partials(node, *node.args, **attrs)
        return [_element(g, p, node, a) if w and p is not None else None
                for a, w, p in zip(node.args, wanted, partials, strict=True)]
    if node.op is iterate and any(wanted):
        raise no_gradient(origins.span(node) if origins is not None else None)
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


def no_gradient(span: Span | None) -> LrError:
    """The error of a derivative that goes through `iterate`."""
    return error("E0421", "there is no derivative through `iterate`", span, "the number of turns depends on the values",
                 help="use `fold` over a fixed number of steps, or cut the derivative with `stop_grad(…)`")
