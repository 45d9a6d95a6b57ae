"""Kernels: loops whose iterations may run in any order.

In: a `Kernel`.  Out: a function of what its body reads, and the call of it:

    kernel(lo, hi, …) -> {rank-0 totals, fault}     the iterations lo … hi - 1, the totals from their units on

or, if there is enough to do, of `runs` (see runs.py).  Rank-0 totals are in registers meanwhile, the others where they are.
"""
from __future__ import annotations

from collections.abc import Callable

from dsl.backends.llvm.function import BYTES, STORED, TYPES, Function, Held, Parameter, structure
from dsl.backends.llvm.runs import Made, record, runs
from dsl.backends.llvm.runtime import FEWEST_RUNS, RUN_WORK
from dsl.ir.types import product
from dsl.loops.ir import Block, Combine, Flag, Kernel, Store, Window, buffers_of, statements
from dsl.machine.expr import Buffer, Const, Expr, Extent, Load

STACK_BYTES = 2_048                     # private arrays of fixed size up to this are on the stack, where LLVM may dissolve them


def kernel(f: Function, k: Kernel, block: Callable[[Function, Block], None]) -> None:
    number = len(f.module.functions)
    f.module.functions.append("")                               # keeps the place
    symbol = f"k{number}." + "".join(c if c.isascii() and c.isalnum() else "_" for c in k.name)
    scalars = [t for t in k.totals if t.buffer.rank == 0]
    arrays = [t for t in k.totals if t.buffer.rank > 0]
    flags = any(isinstance(s, Flag) for s in statements(k.body))
    extent = f.value(k.extent)

    inner = Function(f.module, f)
    inner.totals, inner.written = {t.buffer for t in k.totals}, written(k)
    low, high = inner.take("i64", "0", "lo"), inner.take("i64", extent, "hi")
    if flags:
        inner.mark = inner.slot("i1", "fault")
        inner.do(f"store i1 false, ptr {inner.mark}")
    for t in scalars:
        inner.entry_places[t.buffer] = Held("slot", inner.slot(TYPES[t.buffer.dtype], t.buffer.name))
        inner.write(inner.entry_places[t.buffer], t.buffer.dtype, inner.value(t.unit))
    own: dict[Buffer, str] = {}
    for t in arrays:
        own[t.buffer] = inner.take("ptr", f.pointer(t.buffer), t.buffer.name, t.buffer)
        inner.entry_places[t.buffer] = Held("memory", own[t.buffer])
        unit = inner.value(t.unit)
        with inner.counting("0", inner.count(t.buffer)) as i:
            inner.store(inner.element(own[t.buffer], t.buffer.dtype, i), t.buffer.dtype, unit)
    private = place_private(inner, k)
    with inner.counting(low, high, k.index) as i:
        inner.names[k.index], inner.bits[k.index] = Held("value", i), f.bits_of(k.extent)
        block(inner, k.body)
    returned = [TYPES[t.buffer.dtype] for t in scalars] + ["i1"] * flags
    result = structure(returned)
    values = [inner.read(inner.entry_places[t.buffer], t.buffer.dtype) for t in scalars]
    if inner.mark:
        values.append(inner.read(Held("slot", inner.mark), "bool"))
    inner.give(returned, values)
    parameters = ", ".join(f"{p.type}{attributes(inner, p)} {p.name}" for p in inner.parameters)
    f.module.functions[number] = inner.text(f"define internal {result} @{symbol}({parameters}) #0")

    def take_results(answer: str) -> None:
        for position, t in enumerate(scalars):
            f.write(f.place(t.buffer), t.buffer.dtype, f.emit(f"extractvalue {result} {answer}, {position}"))
        if flags:
            f.fault(f.emit(f"extractvalue {result} {answer}, {len(scalars)}"))

    # Inside a loop of the program LLVM may inline it, outside it would only be compiled twice; a clock does not look into it.
    once = "" if f.repeated and f.module.meter is None else " noinline"
    here = f"{result} @{symbol}({', '.join(f'{p.type} {p.operand}' for p in inner.parameters)})"
    length, work = known(k.extent), k.work.known
    if length is not None and work is not None and length * max(work, 1) < FEWEST_RUNS * RUN_WORK:
        take_results(f.call(here + (" noinline" if f.module.meter else ""), bool(returned)))
        return
    f.module.helpers.add("chunk")
    chunk = f.emit(f"call i64 @lr.chunk(i64 {extent}, i64 {f.dim(k.work)}, i64 {record(f, scalars, arrays, flags)[0]})", "chunk")
    one, many, after = f.label("one"), f.label("many"), f.label("after")
    f.branch(f.emit(f"icmp slt i64 {chunk}, {extent}"), many, one)
    f.begin(one)
    take_results(f.call(here + once, bool(returned)))
    f.jump(after)
    f.begin(many)
    made = Made(symbol, tuple(inner.parameters), tuple(scalars), tuple(arrays), flags, k.work, tuple(own.values()), private)
    take_results(f.call(runs(f, made, chunk), bool(returned)))
    f.jump(after)
    f.begin(after)


def known(extent: Expr) -> int | None:
    """The number of iterations, if the program says it."""
    match extent:
        case Const(value=int() as value):
            return value
        case Extent(dim=dim):
            return dim.known
        case _:
            return None


# ---------------------------------------------------------------- what a kernel touches
def written(k: Kernel) -> set[Buffer]:
    """The buffers that the body writes, and the bases of the windows through which it does."""
    found: set[Buffer] = {t.buffer for t in k.totals}
    for s in statements(k.body):
        match s:
            case Store(buffer=b) | Combine(target=Load(buffer=b)):
                found.add(b)
            case _:
                pass
    for s in reversed([s for s in statements(k.body) if isinstance(s, Window)]):
        if s.buffer in found:
            found.add(s.base)
    return found


def attributes(f: Function, p: Parameter) -> str:
    """Arrays do not overlap, but for windows and what they show."""
    if p.buffer is None or p.type != "ptr":
        return ""
    root = f.module.root(p.buffer)
    family = [q.buffer for q in f.parameters if q.buffer is not None and f.module.root(q.buffer) is root]
    apart = len(family) == 1 or all(b.role != "window" for b in family) or not any(b in f.written for b in family)
    return " noalias" * apart + " readonly" * (p.buffer not in f.written and apart)


def private_buffers(k: Kernel) -> tuple[Buffer, ...]:
    return tuple(b for b in buffers_of(k.body) if b.role == "private")


def on_stack(b: Buffer) -> int | None:
    """The number of elements of a private array that is on the stack."""
    count = product(b.shape).known
    return max(count, 1) if count is not None and count * BYTES[b.dtype] <= STACK_BYTES else None


def place_private(f: Function, k: Kernel) -> str | None:
    """Gives the private buffers a place; the parameter under which the thread's region comes, if one is needed."""
    region, offset = None, "0"
    for b in private_buffers(k):
        if b.rank == 0:
            f.entry_places[b] = Held("slot", f.slot(TYPES[b.dtype], b.name))
            continue
        if (count := on_stack(b)) is not None:
            pointer = f.emit_entry(f"alloca [{count} x {STORED[b.dtype]}], align 64", b.name)
        else:
            assert f.outer is not None
            region = region or f.take("ptr", f.outer.private_region[0], "private")
            pointer = f.emit_entry(f"getelementptr i8, ptr {region}, i64 {offset}", b.name)
            offset = f.emit_entry(f"add i64 {offset}, {padded(f, b)}")
        f.entry_places[b] = Held("memory", pointer)
    return region


def padded(f: Function, b: Buffer) -> str:
    """The bytes of an array, up to a multiple of 64; computed at the function's entry."""
    count = f.emit_entry(f"call i64 @llvm.smax.i64(i64 {f.count(b)}, i64 0)")
    size = f.emit_entry(f"mul i64 {count}, {BYTES[b.dtype]}")
    return f.emit_entry(f"and i64 {f.emit_entry(f'add i64 {size}, 63')}, -64")
