"""Loops: tasks to statements.

In: tasks, each after those it reads.  Out: a block in which tasks whose outermost axes have one length share a loop, if what
one reads of another is of the same iteration; inside the loop the same again with the axes that are left.  An element that is
used in the iteration that makes it is at hand there and not loaded.

A reduction begins before the loop of its outermost reduced axis: as a total of a kernel, a local scalar, or, where axes that
stay are inside, an array of sums.  Loops that are not inside another are kernels.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dsl.ir.types import ONE, Dim
from dsl.loops import ir
from dsl.loops.task import Axis, Shop, Task
from dsl.machine.expr import Apply, Buffer, Expr, Load, Ref, apply, const, extent, load, minimum, ref, select, walk
from dsl.machine.expr import replace as substituted

LARGEST = 4000
"""Operations in one loop body; beyond that another loop is begun, as compilers take more than linear time."""
MOST_TOTALS = 64
"""Totals of one kernel, for the same reason."""
TILE = 64
"""Rows that take turns together (see `stages`)."""
WORTH_LANES = 60
"""Scalar operations of a row from which on they are worth that."""
AXIS_NAMES = "ijkl"


def axis_name(depth: int) -> str:
    return AXIS_NAMES[depth] if depth < len(AXIS_NAMES) else f"i{depth}"


# ---------------------------------------------------------------- which tasks share a loop
@dataclass
class Group:
    """Tasks in one loop; without an extent, statements outside loops."""

    extent: Dim | None
    tasks: list[Task]
    cost: int = 0


def joins(earlier: Task, later: Task) -> bool:
    """Whether both can stand in one loop: the later reads only what the earlier has written in the same iteration."""
    if earlier.alone or later.alone or not earlier.domain or not later.domain:
        return False
    axis, its = earlier.domain[0], later.domain[0]
    if axis.reduced or earlier.running == axis.name or axis.extent != its.extent or ref(axis.name) not in earlier.place:
        return False
    position = earlier.place.index(ref(axis.name))
    return all(e.index[position] is ref(its.name) for e in later.loads if e.buffer is earlier.buffer)


def alone_in_loop(task: Task) -> bool:
    return bool(task.domain) and task.running == task.domain[0].name


def groups(tasks: Sequence[Task]) -> list[Group]:
    """The tasks in as few loops as their order allows; what has no loop comes as early as it can."""
    found: list[Group] = []
    writers: dict[object, list[tuple[Group, Task]]] = {}
    readers: dict[object, list[Group]] = {}
    for task in tasks:
        earliest = 0
        reads = task.reads
        cost = task.cost + (LARGEST // MOST_TOTALS if task.domain and task.domain[0].reduced else 0)
        place = {id(group): number for number, group in enumerate(found)}
        for buffer in reads:
            for group, writer in writers.get(buffer, ()):
                straight = not (task.domain or writer.domain)
                earliest = max(earliest, place[id(group)] + (not (straight or joins(writer, task))))
        for buffer in task.writes:                       # written again, or read before: in order
            for group, _ in writers.get(buffer, ()):
                earliest = max(earliest, place[id(group)] + bool(task.domain))
            for group in readers.get(buffer, ()):
                earliest = max(earliest, place[id(group)] + bool(task.domain))
        length = task.domain[0].extent if task.domain else None
        mine = None if alone_in_loop(task) else \
            next((g for g in found[earliest:] if g.extent == length and g.cost + cost <= LARGEST), None)
        if mine is None:
            mine = Group(length, [])
            found.insert(earliest if length is None else len(found), mine)
        mine.tasks.append(task)
        mine.cost += LARGEST if alone_in_loop(task) else cost
        for buffer in task.writes:
            writers.setdefault(buffer, []).append((mine, task))
        for buffer in reads:
            readers.setdefault(buffer, []).append(mine)
    return found


# ---------------------------------------------------------------- statements
def block(tasks: Sequence[Task], shop: Shop, depth: int = 0, at_hand: Mapping[Expr, Expr] | None = None) -> list[ir.Stmt]:
    """Statements of the tasks; `at_hand` has elements that need not be loaded."""
    known = dict(at_hand or {})
    out: list[ir.Stmt] = []
    for group in groups(tasks):
        if group.extent is None:
            for task in group.tasks:
                out.extend(point(task, shop, known))
        else:
            out.extend(loop(group, shop, depth, known))
    return shared(out, shop)


def point(task: Task, shop: Shop, known: dict[Expr, Expr]) -> list[ir.Stmt]:
    """A task at one point of its domain."""
    if task.alone:
        written = set(task.writes)
        for e in [e for e in known if isinstance(e, Load) and e.buffer in written]:
            del known[e]
        return task.alone()
    task = task.substituted(known)
    out: list[ir.Stmt] = [ir.Flag(f) for f in task.flags]
    if task.target is not None:
        assert task.op is not None
        return [*out, ir.Combine(task.target, task.op, task.value)]
    dtype = task.buffer.dtype
    name = shop.name(task.hint)
    known[load(task.buffer, task.place)] = ref(name, dtype)
    return [*out, ir.Let(name, task.value.to(dtype)), ir.Store(task.buffer, task.place, ref(name, dtype))]


def loop(group: Group, shop: Shop, depth: int, known: dict[Expr, Expr]) -> list[ir.Stmt]:
    assert group.extent is not None
    index = axis_name(depth)
    if alone_in_loop(group.tasks[0]):
        return running(group.tasks[0], shop, known)
    before: list[ir.Stmt] = []
    after: list[ir.Stmt] = []
    totals: list[ir.Total] = []
    inner: list[Task] = []
    finished: dict[Expr, Expr] = {}
    summed = {t.buffer for t in group.tasks if t.wide and t.op == "add" and t.domain[0].reduced}
    blocked = shop.block and summed and all(len(t.domain) == 1 for t in group.tasks) and \
        not (group.extent.known is not None and group.extent.known <= shop.block)
    for task in group.tasks:
        axis, *rest = task.domain
        begins = axis.reduced and task.target is None
        task = replace(task.substituted({ref(axis.name): ref(index)}), domain=rest)
        if begins:
            assert task.op is not None and task.unit is not None
            target: Ref | Load = load(task.buffer, task.place)
            if depth == 0:
                totals.append(ir.Total(task.buffer, task.op, task.unit))
            elif all(a.reduced for a in rest):
                target = ref(shop.name("total"), task.buffer.dtype)
                kept = ref(shop.name(task.hint), task.buffer.dtype)
                before.append(ir.Local(target.name, target.dtype, task.unit))
                after += [ir.Let(kept.name, target), ir.Store(task.buffer, task.place, kept)]
                finished[load(task.buffer, task.place)] = kept
            else:
                before.extend(filled(task, depth))
            task = replace(task, target=target)
        inner.append(task)
    length = extent(group.extent)
    factor = 1
    if blocked:
        assert shop.block
        factor = shop.block
        index, length, body = in_blocks(inner, summed, shop, depth, known, index, length, shop.block)
    else:
        inner = [replace(t, value=t.value.to(t.buffer.dtype)) if t.wide and not t.domain else t for t in inner]
        parts = stages(inner) if depth == 0 and shop.block and shop.tiles else []
        if parts:
            index, length, body = in_tiles(parts, shop, known, index, length)
            factor = TILE
        else:
            body = tuple(block(inner, shop, depth + 1, known))
    if depth:
        made: ir.Stmt = ir.Loop(index, length, body)
    else:
        made = ir.Kernel(shop.name("k"), index, length, body, tuple(totals), work(group, factor))
    known.update(finished)
    return [*before, made, *after]


def in_blocks(tasks: Sequence[Task], summed: set[Buffer], shop: Shop, depth: int, known: Mapping[Expr, Expr], index: str, length: Expr,
              size: int) -> tuple[str, Expr, ir.Block]:
    """A loop over blocks of iterations, in each of which the sums of `summed` are added up in float32; and once more, in float64,
    if one of them is not finite there: what overflows in float32 may be small in the end."""
    number, start, row = shop.name("block"), shop.name("start"), shop.name("row")
    parts: list[tuple[Ref, ir.Stmt]] = []
    inner: list[Task] = []
    again: list[Task] = []
    overflown: Expr = const(False, "bool")
    for t in tasks:
        if t.buffer in summed:
            assert t.target is not None
            part = ref(shop.name("part"), "float32")
            parts.append((part, ir.Combine(t.target, "add", part.to("float64"))))
            again.append(replace(t, value=t.value.to("float64"), flags=()))
            finite = (part - part).eq(0)
            overflown = ~finite if len(parts) == 1 else overflown | ~finite
            t = replace(t, target=part)
        elif t.wide:
            t = replace(t, value=t.value.to(t.buffer.dtype))
        inner.append(t)
    body = block(inner, shop, depth + 1, known)
    once_more = block(needed(again, tasks), shop, depth + 1, known)
    turns = apply("idiv", length + (size - 1), const(size, "int64"))
    return number, turns, (
        ir.Let(start, ref(number) * size),
        *(ir.Local(part.name, "float32", const(0, "float32")) for part, _ in parts),
        ir.Loop(row, minimum(length - ref(start), size), (ir.Let(index, ref(start) + ref(row)), *body)),
        ir.If(overflown, (ir.Loop(row, minimum(length - ref(start), size), (ir.Let(index, ref(start) + ref(row)), *once_more)),),
              tuple(statement for _, statement in parts), seldom=True))


def needed(wanted: Sequence[Task], tasks: Sequence[Task]) -> list[Task]:
    """The wanted tasks, after those of the others that they read: these store once more what they have stored."""
    read = {b for t in wanted for b in t.reads}
    before: list[Task] = []
    for t in reversed(tasks):
        if t.target is None and not t.alone and t.buffer in read:
            before.append(replace(t, flags=()))
            read |= t.reads
    return [*reversed(before), *wanted]


def stages(tasks: Sequence[Task]) -> list[list[Task]]:
    """The tasks of a row in turns of those that have loops and those that have none, if the latter are worth vector lanes of
    their own: then many rows take one turn before the next, and the scalar work of a row runs in the lanes of many rows."""
    parts: list[tuple[bool, list[Task]]] = []
    for group in groups(tasks):
        loops = group.extent is not None
        if any(t.alone for t in group.tasks):
            return []
        if parts and parts[-1][0] == loops:
            parts[-1][1].extend(group.tasks)
        else:
            parts.append((loops, list(group.tasks)))
    dear = max((sum(t.cost for t in part) for loops, part in parts if not loops), default=0)
    return [part for _, part in parts] if len(parts) > 1 and dear >= WORTH_LANES else []


def in_tiles(parts: Sequence[Sequence[Task]], shop: Shop, known: Mapping[Expr, Expr], index: str,
             length: Expr) -> tuple[str, Expr, ir.Block]:
    """A loop over tiles of rows, in each of which every part goes through all rows of the tile."""
    number, start, row = shop.name("tile"), shop.name("start"), shop.name("row")
    body: list[ir.Stmt] = [ir.Let(start, ref(number) * TILE)]
    for part in parts:
        inner = block(part, shop, 1, known)
        body.append(ir.Loop(row, minimum(length - ref(start), TILE), (ir.Let(index, ref(start) + ref(row)), *inner)))
    return number, apply("idiv", length + (TILE - 1), const(TILE, "int64")), tuple(body)


def filled(task: Task, depth: int) -> list[ir.Stmt]:
    """An array of sums before the first is added."""
    assert task.unit is not None
    kept = [a for a in task.domain if not a.reduced]
    names = [axis_name(depth + d) for d in range(len(kept))]
    place = substituted(list(task.place), {ref(a.name): ref(n) for a, n in zip(kept, names)})
    body: ir.Block = (ir.Store(task.buffer, tuple(place), task.unit),)
    return list(nest(kept, names, body))


def nest(axes: Sequence[Axis], names: Sequence[str], body: ir.Block) -> ir.Block:
    for axis, name in zip(reversed(axes), reversed(names)):
        body = (ir.Loop(name, extent(axis.extent), body),)
    return body


def running(task: Task, shop: Shop, known: Mapping[Expr, Expr]) -> list[ir.Stmt]:
    """A running total: carried from one element to the next."""
    assert task.op is not None and task.unit is not None
    (axis,) = task.domain
    op, start = task.op, task.unit
    total = ref(shop.name("run"), task.buffer.dtype)
    step = ref(shop.name("step"))
    task = task.substituted({**known, ref(axis.name): extent(axis.extent) - 1 - step if task.reverse else step})
    if task.factor is not None:
        new = select(step.eq(0), task.value, task.value + task.factor * total)
    else:
        new = apply(op, total, task.value)
    body: list[ir.Stmt] = [*(ir.Flag(f) for f in task.flags), ir.Assign(total.name, new), ir.Store(task.buffer, task.place, total)]
    return [ir.Local(total.name, total.dtype, start), ir.Loop(step.name, extent(axis.extent), tuple(shared(body, shop)))]


def work(group: Group, factor: int) -> Dim:
    """Scalar operations of an iteration of a kernel."""
    total = Dim.of(0)
    for task in group.tasks:
        points = ONE
        for axis in task.domain[1:]:
            points = points * axis.extent
        total = total + points * (task.cost * factor)
    return total


# ---------------------------------------------------------------- what is computed twice in a block
def shared(statements: Sequence[ir.Stmt], shop: Shop) -> list[ir.Stmt]:
    """Names for operations that several expressions of one block have in common."""
    uses: dict[Expr, int] = {}
    for s in statements:
        roots = [e for e in ir.expressions(s) if not isinstance(s, ir.Kernel | ir.Loop | ir.While)]
        for e in walk(roots):
            inner = e.args if isinstance(e, Apply) else e.index if isinstance(e, Load) else ()
            for p in inner:
                uses[p] = uses.get(p, 0) + 1
        for e in roots:
            uses[e] = uses.get(e, 0) + 1
    if not any(n > 1 and isinstance(e, Apply) for e, n in uses.items()):
        return list(statements)
    named: dict[Expr, Expr] = {}
    out: list[ir.Stmt] = []
    for s in statements:
        roots = list(ir.expressions(s)) if not isinstance(s, ir.Kernel | ir.Loop | ir.While) else []
        for e in walk(roots):
            if isinstance(e, Apply) and uses.get(e, 0) > 1 and e not in named and not trivial(e):
                name = shop.name("c")
                (value,) = substituted([e], named)
                out.append(ir.Let(name, value))
                named[e] = ref(name, e.dtype)
        out.append(rewritten(s, named) if named else s)
    return out


def trivial(e: Apply) -> bool:
    """Whether an operation is no dearer than its name."""
    return e.op in ("neg", "not", "to") and not isinstance(e.args[0], Apply)


def rewritten(s: ir.Stmt, change: Mapping[Expr, Expr]) -> ir.Stmt:
    """A statement with parts of its own expressions replaced; what is inside its blocks stays."""
    def new(*roots: Expr) -> list[Expr]:
        return substituted(roots, change)
    match s:
        case ir.Let(name, value):
            return ir.Let(name, new(value)[0])
        case ir.Local(name, dtype, start):
            return ir.Local(name, dtype, new(start)[0])
        case ir.Assign(name, value):
            return ir.Assign(name, new(value)[0])
        case ir.Combine(target, op, value):
            if isinstance(target, Load):
                *index, value = new(*target.index, value)
                return ir.Combine(load(target.buffer, index), op, value)
            return ir.Combine(target, op, new(value)[0])
        case ir.Store(buffer, index, value):
            *places, value = new(*index, value)
            return ir.Store(buffer, tuple(places), value)
        case ir.If(condition, body, orelse, seldom):
            return ir.If(new(condition)[0], body, orelse, seldom)
        case ir.Window(buffer, base, start):
            return ir.Window(buffer, base, new(start)[0])
        case ir.Bind(size, value):
            return ir.Bind(size, new(value)[0])
        case ir.Flag(condition):
            return ir.Flag(new(condition)[0])
        case ir.Leave(condition):
            return ir.Leave(new(condition)[0])
        case _:
            return s
