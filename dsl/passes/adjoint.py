"""The adjoint of a loop.

In: a `scan` and the cotangents of its outputs.  Out: the cotangents of its operands.  With c' = f(c, x, p) a step, the
adjoint is a loop in the other direction that carries

    λ    the cotangent of the carried values,         λ  ←  (λ + ḡ) ∂f/∂c       ḡ: what the stacked states are given
    p̄    those of captured values, added up,          p̄  ←  p̄ + (λ + ḡ) ∂f/∂p
    x̄    and keeps those of the elements,             x̄  =  (λ + ḡ) ∂f/∂x

over the states before each step, which are the stack of all states moved by one with the start in front.  The step itself
is computed again.  The adjoint is a loop like any other, so derivatives of every order are made of it.

Live masks go along as carried values, one for each λ, once some element of a state can be dead: a state that a later step
does not use gets no nan from the steps before it.

The states of all steps are kept: T times the carried values.  Where only the last ones are used and that is known to be too
much, the loop is differentiated as a loop over segments (`segments.py`), whose states are computed again.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dsl.ir.node import Node, Origins, substitute, topological
from dsl.ir.types import ONE, ArrayType
from dsl.ops.control import Loop, Output, closed, scan
from dsl.ops.leaves import leaf
from dsl.ops.scalar import add, mul, or_
from dsl.ops.shape import concat, expand, full, reshape, slice_axis, zeros_like
from dsl.ops.table import constant
from dsl.passes.loops import depending
from dsl.passes.masks import Cotangent
from dsl.passes.segments import is_long, segmented

Sweep = Callable[[Sequence[Node], Sequence[Cotangent], Sequence[Node], Origins | None], list[Cotangent | None]]


def states_before(loop: Loop, place: int) -> Node:
    """A carried value before each step, stacked by element."""
    stack = loop.output("all", place)
    start = expand(loop.args[place], stack.shape[1:])
    row: Node = reshape(start, shape=(ONE, *start.shape))
    joined: Node = concat(stack, row, axis=-stack.rank) if loop.reverse else concat(row, stack, axis=-stack.rank)
    return slice_axis(joined, -stack.rank, 1 if loop.reverse else 0, loop.length)


def loop_adjoint(loop: Loop, given: Mapping[Output, Cotangent], wanted: Sequence[bool], sweep: Sweep,
                 origins: Origins | None) -> list[Cotangent | None]:
    """The cotangents of a loop's operands, given those of its outputs."""
    count, parameters = loop.carried, loop.parameters
    active = _active(loop, given, wanted)
    if all(kind == "last" for kind, _ in given) and is_long(loop):
        return _by_segments(loop, given, wanted, sweep, origins)
    given = {output: g if g.strict else Cotangent(g.value) for output, g in given.items()}
    if not active and not any(kind == "each" for kind, _ in given):
        return [None] * len(parameters)
    other = [i for i in range(count, len(parameters)) if wanted[i]]
    targets = [parameters[i] for i in (*active, *other)]
    slopes = [leaf("carry", f"cotangent {k}", parameters[k].type) for k in active]
    masks = [leaf("carry", f"mask {k}", parameters[k].type.with_dtype("bool")) for k in active]
    rows: list[tuple[Node, Node]] = []                      # placeholders of the adjoint's sequences, with the sequences

    def element(stack: Node, name: str) -> Node:
        placeholder = leaf("element", name, ArrayType(stack.dtype, stack.shape[1:]))
        rows.append((placeholder, stack))
        return placeholder

    def row(output: Output) -> Cotangent | None:
        if output not in given:
            return None
        g, name = given[output], f"{output[0]} {output[1]}"
        return Cotangent(element(g.value, name), element(g.mask, f"mask of {name}") if g.mask is not None else None, g.strict)
    kept = {output: row(output) for output in given if output[0] != "last"}

    def step(masked: bool) -> list[Cotangent | None]:
        roots, seeds = [], []
        for k, slope, mask in zip(active, slopes, masks, strict=True):
            roots.append(loop.body[k])
            stacked = kept.get(("all", k))
            value = slope if stacked is None else add(slope, expand(stacked.value, slope.shape))
            live = None if not masked or (stacked is not None and stacked.mask is None) else \
                mask if stacked is None or stacked.mask is None else or_(mask, expand(stacked.mask, mask.shape))
            seeds.append(Cotangent(value, live, live is not None))
        for (kind, j), cotangent in kept.items():
            if kind == "each" and cotangent is not None:
                roots.append(loop.body[count + j])
                seeds.append(cotangent)
        return sweep(roots, seeds, targets, origins)
    found = step(masked=False)
    found = _factored(found, active, slopes, kept, targets)
    masked = any(g.strict for (kind, _), g in given.items() if kind != "each") or any(_strict(c) for c in found[:len(active)])
    if masked:
        found = step(masked=True)

    carried: list[tuple[Node, Node, Node]] = []             # placeholder, start, next value
    each: list[Node] = []
    results: dict[int, tuple[str, int, int | None, bool]] = {}      # operand: kind of output, its place, that of its mask

    def carry(placeholder: Node, start: Node, new: Node) -> int:
        carried.append((placeholder, expand(start, placeholder.shape), expand(new, placeholder.shape)))
        return len(carried) - 1

    def keep(value: Node, like: Node) -> int:
        each.append(expand(value, like.shape))
        return len(each) - 1
    for k, slope, mask, cotangent in zip(active, slopes, masks, found, strict=False):
        last = given.get(("last", k))
        place = carry(slope, zeros_like(slope) if last is None else last.value, zeros_like(slope) if cotangent is None else cotangent.value)
        live = None
        if masked:
            first = full(last is not None, mask.shape, "bool") if last is None or last.mask is None else last.mask
            live = carry(mask, first, full(cotangent is not None, mask.shape, "bool") if cotangent is None or cotangent.mask is None
                         else cotangent.mask)
        results[k] = ("last", place, live, masked)
    for i, cotangent in zip(other, found[len(active):], strict=True):
        if cotangent is None:
            continue
        parameter, strict = parameters[i], _strict(cotangent)
        if i < count + loop.sequences:
            place = keep(cotangent.value, parameter)
            results[i] = ("each", place, keep(cotangent.mask, parameter) if strict and cotangent.mask is not None else None, strict)
            continue
        total = leaf("carry", f"total {i}", parameter.type)
        place, live = carry(total, zeros_like(total), add(total, expand(cotangent.value, total.shape))), None
        if strict and cotangent.mask is not None:
            used = leaf("carry", f"used {i}", parameter.type.with_dtype("bool"))
            live = carry(used, full(False, used.shape, "bool"), or_(used, cotangent.mask))
        results[i] = ("last", place, live, strict)

    body = (*(new for _, _, new in carried), *each)
    read = set(topological(body))
    rows += [(parameters[k], states_before(loop, k)) for k in range(count) if parameters[k] in read]
    rows += list(zip(parameters[count:count + loop.sequences], loop.args[count:count + loop.sequences], strict=True))
    adjoint = closed(Loop(scan, (*(start for _, start, _ in carried), *(stack for _, stack in rows), *loop.captured),
                          (*(p for p, _, _ in carried), *(p for p, _ in rows), *parameters[count + loop.sequences:]),
                          body, len(carried), len(rows), (("length", loop.length), ("reverse", not loop.reverse))), origins)
    cotangents: list[Cotangent | None] = [None] * len(parameters)
    for i, (kind, place, live, strict) in results.items():
        if wanted[i]:
            cotangents[i] = Cotangent(adjoint.output(kind, place), None if live is None else adjoint.output(kind, live), strict)
    return cotangents


def _factored(found: list[Cotangent | None], active: Sequence[int], slopes: Sequence[Node], kept: Mapping[Output, object],
              targets: Sequence[Node]) -> list[Cotangent | None]:
    """With one scalar λ and nothing else coming in, every cotangent of a step is λ times a factor that does not depend on it.

    Written so, a step back costs one multiplication of λ whatever f is, and a λ that dies out does reach 0, while a difference of
    its multiples may stay at the smallest number there is, on which every operation takes a hundred times as long."""
    if len(active) != 1 or kept or slopes[0].rank or any(c is not None and c.mask is not None for c in found):
        return found
    slope = slopes[0]
    values = [c.value for c in found if c is not None]
    factors = iter(substitute(values, {slope: constant(1, slope.dtype)}))
    return [None if c is None else Cotangent(expand(mul(next(factors), slope), t.shape)) for c, t in zip(found, targets, strict=True)]


def _by_segments(loop: Loop, given: Mapping[Output, Cotangent], wanted: Sequence[bool], sweep: Sweep,
                 origins: Origins | None) -> list[Cotangent | None]:
    """The same through the loop's segments, its operands taken as independent."""
    names = [leaf("value", f"operand {i}", a.type) for i, a in enumerate(loop.args)]
    lasts = segmented(Loop(loop.op, tuple(names), loop.parameters, loop.body, loop.carried, loop.sequences, loop.limits), origins)
    found = sweep([lasts[k] for _, k in given], list(given.values()), [n for n, w in zip(names, wanted, strict=True) if w], origins)
    back = dict(zip(names, loop.args, strict=True))
    results = iter(found)

    def restored(g: Cotangent | None) -> Cotangent | None:
        if g is None:
            return None
        value, *mask = substitute([g.value] if g.mask is None else [g.value, g.mask], back, origins=origins)
        return Cotangent(value, mask[0] if mask else None, g.strict)
    return [restored(next(results)) if w else None for w in wanted]


def _active(loop: Loop, given: Mapping[Output, Cotangent], wanted: Sequence[bool]) -> list[int]:
    """The carried values that depend on a wanted operand and that some output depends on."""
    count = loop.carried
    places = {p: i for i, p in enumerate(loop.parameters)}
    reached = set(depending(loop, wanted))
    useful = {place for kind, place in given if kind != "each"}
    waiting = [*(loop.body[k] for k in useful), *(loop.body[count + j] for kind, j in given if kind == "each")]
    while waiting:
        for node in topological([waiting.pop()]):
            k = places.get(node, count)
            if k < count and k not in useful:
                useful.add(k)
                waiting.append(loop.body[k])
    return [k for k in range(count) if k in useful and loop.parameters[k] in reached]


def _strict(cotangent: Cotangent | None) -> bool:
    return cotangent is not None and cotangent.strict and cotangent.mask is not None
