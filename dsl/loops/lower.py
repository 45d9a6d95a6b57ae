"""Graphs to statements.

In: graphs of core ops (`legalise`), what their leaves are, and where their values go.  Out: a block of the loop IR.

What becomes a task: an output, an operand of a library call, a reduction, and an element-wise value that is dear and asked
for more than once.  All else is computed where it is used (`element`).  A task has its axes in the order of memory, also
where that puts a reduced axis outside: the columns of `sum(X, axis = 0)` and of `X.T @ r` are added up row by row.  `fuse`
then gives the tasks as few loops as their order allows, so that a cost, its gradients and whatever else reads the same rows
become one pass over them.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from dsl.ir.node import Node, topological
from dsl.ir.types import ONE, DType, Shape, is_float
from dsl.loops import fuse, ir
from dsl.loops.control import lower_loop, lower_permutation
from dsl.loops.element import NOUGHT, Elements, Index, counted, narrowed
from dsl.loops.legalise import KINDS, unit
from dsl.loops.order import lower_order
from dsl.loops.task import Axis, Shop, Task
from dsl.machine.expr import Buffer, Expr, Load, Ref, const, extent, load, ref, walk
from dsl.ops.control import same_loop
from dsl.ops.leaves import is_leaf

DEAREST = 400
"""Operations beyond which a value is kept however often it is used, so that no expression grows without end."""
HIGHEST = 64
"""Ops on top of each other beyond which a value is kept: `Elements` follows them by recursion."""
SMALL_PRODUCT = 512
"""Multiplications up to which a product of known sizes is written as loops."""
DEAR = {"draw": 60, "div": 4, "sqrt": 4, "floordiv": 4, "mod": 4, "gather": 2, "concat": 3, "unslice": 3, "reshape": 1, "cast": 1}
FREE = frozenset(("leaf", "const", "dim", "iota", "expand", "transpose", "slice", "mark_if"))
CHEAP = frozenset(("add", "sub", "mul", "neg", "abs", "sqr", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "where", "isnan",
                   "isfinite", "maximum", "minimum", "clip", "floor", "ceil", "round", "sign"))
TASKS = frozenset(("reduce", "running", "matmul", "scatter_add", "argsort", "scan", "iterate"))


class Lowering:
    """Graphs over one set of leaves to statements.  `leaf` gives elements of leaves, `whole_leaf` the buffer that is a leaf as a
    whole, row-major, if there is one."""

    def __init__(self, shop: Shop, leaf: Callable[[Node, Index], Expr], whole_leaf: Callable[[Node], Buffer | None]) -> None:
        self.shop, self.leaf, self.whole_leaf = shop, leaf, whole_leaf
        self.stored: dict[Node, Callable[[Index], Expr]] = {}
        self.buffers: dict[Node, Buffer] = {}
        self.tasks: list[Task] = []
        self.wanted: dict[Node, Buffer] = {}
        self.loops: dict[tuple[object, ...], list[Node]] = {}

    # ------------------------------------------------------------ what becomes a task
    def block(self, roots: Sequence[tuple[Node, Buffer]]) -> ir.Block:
        """Statements after which each buffer holds its graph's value."""
        nodes = [n for n, _ in roots]
        order = topological(nodes)
        for node, buffer in roots:
            if node not in self.wanted and node.dtype == buffer.dtype:
                self.wanted[node] = buffer
        users: dict[Node, list[Node]] = {n: [] for n in order}
        for node in order:
            for a in node.args:
                users[a].append(node)
        needed = {a for n in order for a in operands_whole(n)}
        for node in order:
            if node.op.name in ("scan", "iterate"):
                self.loops.setdefault(same_loop(node), []).append(node)
        weight: dict[Node, int] = {}
        height: dict[Node, int] = {}
        for node in order:
            if node.op.name == "mark_if":
                self.mark(node.args[1])
            weight[node] = own = cost(node) + sum(weight[a] for a in node.args)
            height[node] = 1 + max((height[a] for a in node.args), default=0)
            if node in self.stored:
                pass
            elif node.op.name in TASKS or (node.op.name == "draw" and node.attr("kind") == "permutation"):
                self.compute(node)
            elif height[node] > HIGHEST or (own > 0 and (own > DEAREST or self.pays(node, own, users[node]))) or \
                    (node in needed and (own > 0 or self.whole(node) is None)):
                self.keep(node)
            if node in self.stored:
                weight[node] = height[node] = 0
        for node, buffer in roots:
            if self.buffers.get(node) is not buffer:
                self.put(node, buffer)
        return tuple(fuse.block(self.tasks, self.shop))

    def pays(self, node: Node, own: int, users: Sequence[Node]) -> bool:
        """Whether to keep a value rather than compute it again where it is used."""
        if not node.rank:
            return any(u.rank or u.op.name in TASKS for u in users) or (len(users) > 1 and own > 8)
        repeated = any(spreads(u, node) for u in users)
        return (len(users) > 1 and own > 8) or (repeated and own > 3)

    def whole(self, node: Node) -> Buffer | None:
        """The buffer that is this node, row-major, if there is one."""
        if node in self.buffers:
            return self.buffers[node]
        if is_leaf(node):
            return self.whole_leaf(node)
        return None

    def held(self, node: Node) -> Buffer:
        """The same, made if there is none."""
        found = self.whole(node)
        if found is None:
            self.keep(node)
            found = self.buffers[node]
        return found

    def compute(self, node: Node) -> None:
        match node.op.name:
            case "reduce":
                self.reduce(node)
            case "running":
                self.running(node)
            case "matmul":
                self.matmul(node)
            case "scatter_add":
                self.scatter(node)
            case "argsort":
                lower_order(self, node)
            case "draw":
                lower_permutation(self, node)
            case _:
                lower_loop(self, self.loops[same_loop(node)])

    def inner(self, leaf: Callable[[Node, Index], Expr], whole: Callable[[Node], Buffer | None],
              roots: Sequence[tuple[Node, Buffer]]) -> ir.Block:
        return Lowering(self.shop, leaf, whole).block(roots)

    # ------------------------------------------------------------ tasks
    def axes(self, shape: Shape) -> tuple[list[Axis], Index]:
        """A loop for every axis that is longer than 1, and the index they make."""
        domain: list[Axis] = []
        index: list[Expr] = []
        for n in shape:
            if n == ONE:
                index.append(NOUGHT)
                continue
            axis = Axis(self.shop.name("_"), n)
            domain.append(axis)
            index.append(ref(axis.name))
        return domain, tuple(index)

    def add(self, task: Task) -> None:
        self.tasks.append(task)

    def elements(self) -> Elements:
        return Elements(self.leaf, self.stored)

    def target(self, node: Node, dtype: DType | None = None, shape: Shape | None = None) -> Buffer:
        """Where a task puts its result: the root's own buffer, or scratch."""
        plain = dtype in (None, node.dtype) and shape in (None, node.shape)
        if plain and node in self.wanted and node not in self.buffers:
            return self.wanted[node]
        return self.shop.buffer(dtype or node.dtype, node.shape if shape is None else shape)

    def record(self, node: Node, buffer: Buffer) -> None:
        """The node's elements are those of the buffer."""
        self.buffers[node] = buffer
        self.stored[node] = lambda index: load(buffer, index)

    def mark(self, condition: Node) -> None:
        """A fault if the scalar holds."""
        elements = self.elements()
        value = elements(condition, ())
        read = tuple({e.buffer: None for e in walk([value]) if isinstance(e, Load)})
        nowhere = Buffer("nowhere", "bool", (), "scratch")
        self.add(Task(nowhere, [], (), const(False, "bool"), alone=lambda: [ir.Flag(value)], also_reads=read))

    def keep(self, node: Node) -> None:
        buffer = self.target(node)
        self.put(node, buffer)
        self.record(node, buffer)

    def put(self, node: Node, buffer: Buffer) -> None:
        domain, index = self.axes(node.shape)
        elements = self.elements()
        value = elements(node, index).to(buffer.dtype)
        self.add(Task(buffer, domain, index, value, flags=tuple(elements.flags), hint="v"))

    def reduce(self, node: Node) -> None:
        (x,) = node.args
        attrs = dict(node.attrs)
        kind, axes, dtype = attrs["kind"], attrs["axes"], node.dtype
        domain, index = self.axes(x.shape)
        names = {e.name for a, e in zip(range(-x.rank, 0), index) if a in axes and isinstance(e, Ref)}
        domain = [replace(a, reduced=a.name in names) for a in domain]
        wide = kind in ("sum", "prod") and dtype == "float32"
        held: DType = "float64" if wide else dtype
        elements = self.elements()
        value = elements(x, index)
        value = value.to(dtype) if not is_float(dtype) else value
        self.total(node, domain, index, [a in axes for a in range(-x.rank, 0)], attrs["keepdims"], value, kind, held,
                   wide, tuple(elements.flags), finish=_mean(x, axes) if attrs["mean"] else None)

    def total(self, node: Node, domain: list[Axis], index: Index, gone: list[bool], keepdims: bool, value: Expr, kind: str, held: DType,
              wide: bool, flags: tuple[Expr, ...], finish: Callable[[Expr], Expr] | None = None) -> None:
        """A reduction into a buffer that has the axes that stay and are longer than 1."""
        kept = [a for a in domain if not a.reduced]
        shape = tuple(a.extent for a in kept)
        plain = held == node.dtype and finish is None and shape == node.shape
        buffer = self.target(node) if plain else self.shop.buffer(held, shape, "s")
        if buffer.role == "window":                              # a total is an array by itself
            buffer = self.shop.buffer(held, shape, "s")
        place = tuple(ref(a.name) for a in kept)
        order = memory_order(domain, [value])
        if not wide:
            value = value.to(held)
        if any(a.reduced for a in domain):
            self.add(Task(buffer, order, place, value, KINDS[kind], const(unit(kind, held), held), wide, flags=flags, hint="s"))
        else:
            self.add(Task(buffer, domain, place, value.to(held), flags=flags, hint="s"))
        where = [i for i, (e, dropped) in enumerate(zip(index, gone)) if isinstance(e, Ref) and not dropped]
        shown = [i for i, dropped in enumerate(gone) if keepdims or not dropped]

        def element(at: Index) -> Expr:
            total: Expr = load(buffer, [at[shown.index(i)] for i in where])
            return (finish(total) if finish else total).to(node.dtype)
        self.stored[node] = element
        if plain:
            self.buffers[node] = buffer

    def running(self, node: Node) -> None:
        """All other axes outside, the axis of the running total inside."""
        attrs = dict(node.attrs)
        axis = attrs["axis"] + node.rank
        order = [*(a for a in range(node.rank) if a != axis), axis]
        names = [self.shop.name("_") for _ in range(node.rank)]
        domain = [Axis(names[a], node.shape[a]) for a in order]
        index = tuple(ref(n) for n in names)
        elements = self.elements()
        value = elements(node.args[0], index).to(node.dtype)
        factor = elements(node.args[1], index).to(node.dtype) if len(node.args) > 1 else None
        buffer = self.target(node)
        start = 1 if attrs["kind"] == "prod" else -0.0 if is_float(node.dtype) else 0         # -0 + x is x, also where x is -0
        self.add(Task(buffer, domain, index, value, KINDS.get(attrs["kind"], "recurrence"), const(start, node.dtype), running=names[axis],
                      factor=factor, reverse=attrs["reverse"], flags=tuple(elements.flags)))
        self.record(node, buffer)

    def matmul(self, node: Node) -> None:
        a, b = node.args
        if (a.rank, b.rank) == (2, 2) and not small(node):
            left, right = self.operand(a), self.operand(b)
            out = self.target(node)
            name = self.shop.name("product")
            made = ir.Product(out, left[0], right[0], left[1], right[1], name)
            self.add(Task(out, [], (), const(0, node.dtype), alone=lambda: [made], also_reads=(left[0], right[0])))
            self.record(node, out)
            return
        inner = a.shape[-1]
        k = Axis(self.shop.name("_"), inner, True)
        lead = node.shape[:node.rank - (a.rank > 1) - (b.rank > 1)]
        rows, columns = a.shape[-2:-1] if a.rank > 1 else (), b.shape[-1:] if b.rank > 1 else ()
        domain_lead, index_lead = self.axes(lead)
        domain_row, index_row = self.axes(rows)
        domain_column, index_column = self.axes(columns)
        at: Index = (NOUGHT,) if inner == ONE else (ref(k.name),)
        domain = [*domain_lead, *domain_row, *([k] if inner != ONE else []), *domain_column]
        elements = self.elements()
        left_lead = narrowed(index_lead, lead, a.shape[:-2]) if a.rank > 2 else ()
        right_lead = narrowed(index_lead, lead, b.shape[:-2]) if b.rank > 2 else ()
        value = elements(a, (*left_lead, *index_row, *at)) * elements(b, (*right_lead, *at, *index_column))
        index = (*index_lead, *index_row, *index_column)
        self.total(node, domain, index, [False] * node.rank, False, value, "sum", node.dtype, False, tuple(elements.flags))

    def operand(self, x: Node) -> tuple[Buffer, bool]:
        """The buffer of a factor, and whether it holds the transpose."""
        base = self.whole(x)
        if base is not None:
            return base, False
        if x.op.name == "transpose" and x.attr("axes") == (-1, -2):
            base = self.whole(x.args[0])
            if base is not None:
                return base, True
        return self.held(x), False

    def scatter(self, node: Node) -> None:
        """Zeros, then every element added in the order of the indices: duplicates accumulate in one order."""
        g, *indices = node.args
        attrs = dict(node.attrs)
        wide = node.dtype == "float32"
        buffer = self.shop.buffer("float64", node.shape) if wide else self.target(node)
        rank = max((i.rank for i in indices), default=0)
        elements = self.elements()
        domain, index = self.axes(g.shape)
        places: list[Expr] = []
        dead: Expr = const(False, "bool")
        for axis, picked in enumerate(indices):
            i = elements(picked, narrowed(index[:rank], g.shape[:rank], picked.shape)).to("int64")
            place, outside, bad = counted(i, extent(node.shape[axis]), bool(attrs.get("fill")))
            elements.flag(bad, g.shape)
            dead = outside if dead is const(False, "bool") else dead | outside
            places.append(place)
        value = elements(g, index).to(buffer.dtype)
        zero_domain, zero_index = self.axes(node.shape)
        flags = tuple(elements.flags)

        def statements() -> list[ir.Stmt]:
            names = [fuse.axis_name(d) for d in range(max(len(domain), len(zero_domain)))]
            clear: ir.Block = (ir.Store(buffer, zero_index, const(0, buffer.dtype)),)
            adding: ir.Block = (*(ir.Flag(f) for f in flags),
                                ir.If(~dead, (ir.Combine(load(buffer, (*places, *index[rank:])), "add", value),)))
            both: list[ir.Stmt] = []
            for axes, body in ((zero_domain, clear), (domain, adding)):
                change: dict[Expr, Expr] = {ref(a.name): ref(n) for a, n in zip(axes, names)}
                both.extend(fuse.nest(axes, names[:len(axes)], tuple(renamed(s, change) for s in body)))
            return both
        read = tuple({e.buffer: None for e in walk([value, *places, *flags, dead]) if isinstance(e, Load)})
        self.add(Task(buffer, [], (), const(0, node.dtype), alone=statements, also_reads=read))
        if wide:
            self.stored[node] = lambda at: load(buffer, at).to(node.dtype)
        else:
            self.record(node, buffer)


# ---------------------------------------------------------------- estimates
def cost(node: Node) -> int:
    """Scalar operations of one element of a node, its operands at hand."""
    name = node.op.name
    return 0 if name in FREE else DEAR.get(name, 1 if name in CHEAP else 12)


def spreads(user: Node, x: Node) -> bool:
    """Whether an element of `x` is used for several elements of `user`."""
    if user.op.name == "matmul":
        other = user.args[1] if user.args[0] is x else user.args[0]
        return x.rank < other.rank or (x.rank, other.rank) == (2, 2)
    if user.op.name in ("expand", "gather") or user.op.elementwise:
        return x.shape != user.shape
    return False


def operands_whole(node: Node) -> tuple[Node, ...]:
    """The operands that a task reads as arrays."""
    if node.op.name == "argsort":
        return node.args
    if node.op.name in ("scan", "iterate"):
        return tuple(a for a in node.args if not plain(a))
    return ()


def plain(node: Node, room: int = 16) -> bool:
    """Whether an element costs little and cannot fault, so that it may be computed in every turn of a loop."""
    stack = [node]
    while stack and room >= 0:
        x = stack.pop()
        if x.op.name in TASKS:
            continue
        if x.op.fault is not None or x.op.name in ("gather", "draw", "mark_if") or cost(x) > 4:
            return False
        room -= cost(x)
        stack.extend(x.args)
    return room >= 0


def small(node: Node) -> bool:
    """Whether a product is written as loops: a vector in disguise, or few multiplications."""
    (n, k), m = node.args[0].shape, node.args[1].shape[1]
    lengths = [d.known for d in (n, k, m)]
    if any(v == 1 for v in lengths):
        return True
    return all(v is not None for v in lengths) and (lengths[0] or 0) * (lengths[1] or 0) * (lengths[2] or 0) <= SMALL_PRODUCT


def _mean(x: Node, axes: tuple[int, ...]) -> Callable[[Expr], Expr]:
    count = ONE
    for a in axes:
        count = count * x.shape[a]
    return lambda total: total / extent(count).to(total.dtype)


def memory_order(domain: list[Axis], values: Iterable[Expr]) -> list[Axis]:
    """The axes in the order in which the largest array among the operands has them."""
    names = {a.name: a for a in domain}
    best: list[str] = []
    for e in walk(values):
        if isinstance(e, Load):
            met = [i.name for i in e.index if isinstance(i, Ref) and i.name in names]
            if len(met) > len(best) and len(set(met)) == len(met):
                best = met
    if len(best) < 2:
        return domain
    rest = [a for a in domain if a.name not in best]
    result = [names[n] for n in best]
    for a in rest:                                       # where it stood among those around it
        after = [b for b in domain[domain.index(a) + 1:] if b in result]
        result.insert(result.index(after[0]) if after else len(result), a)
    return result


def renamed(s: ir.Stmt, change: dict[Expr, Expr]) -> ir.Stmt:
    """A statement with names replaced, in the blocks of an `If` too."""
    made = fuse.rewritten(s, change)
    if not isinstance(made, ir.If):
        return made
    body, orelse = (tuple(renamed(t, change) for t in block) for block in (made.body, made.orelse))
    return ir.If(made.condition, body, orelse)
