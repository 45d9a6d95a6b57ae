"""Kernels: loops that are cut into runs.

In: a `Kernel`.  Out: up to three functions, and the call of one of them:

    kernel(lo, hi, …) -> {rank-0 totals, fault}     the iterations lo … hi - 1, the totals from their units on
    runs(extent, …) -> {rank-0 totals, fault}       all runs, on the threads there are, then their records combined in order
    task(environment, run, worker)                  one run: `kernel`, with totals in the run's own record

How long a run is follows from the extent, the work of an iteration and the size of the totals alone, so the number of
threads changes no bit.  A kernel of one run is called straight away, where LLVM may inline it.

    record  ::=  rank-0 totals and fault mark, one to 8 bytes; then the other totals, each from a multiple of 64 bytes on
"""
from __future__ import annotations

from collections.abc import Callable

from dsl.backends.llvm.function import BYTES, STORED, TYPES, Function, Held, Parameter
from dsl.ir.types import product
from dsl.loops.ir import Block, Combine, Flag, Kernel, Store, Swap, Total, Window, buffers_of, statements
from dsl.loops.ir import Product as MatrixProduct
from dsl.machine.expr import Buffer, Const, Expr, Extent, Load

RUN_WORK = 32_768                       # the least scalar operations that are worth a run of their own
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
            inner.store(element(inner, t.buffer, own[t.buffer], i), t.buffer.dtype, unit)
    private = place_private(inner, k)
    with inner.counting(low, high, k.index) as i:
        inner.names[k.index], inner.bits[k.index] = Held("value", i), f.bits_of(k.extent)
        block(inner, k.body)
    returned = [TYPES[t.buffer.dtype] for t in scalars] + ["i1"] * flags
    result = f"{{ {', '.join(returned)} }}" if returned else "void"
    values = [inner.read(inner.entry_places[t.buffer], t.buffer.dtype) for t in scalars]
    if inner.mark:
        values.append(inner.read(Held("slot", inner.mark), "bool"))
    give(inner, result, returned, values)
    parameters = ", ".join(f"{p.type}{attributes(inner, p)} {p.name}" for p in inner.parameters)
    f.module.functions[number] = inner.text(f"define internal {result} @{symbol}({parameters}) #0")

    def take_results(answer: str) -> None:
        for position, t in enumerate(scalars):
            f.write(f.place(t.buffer), t.buffer.dtype, f.emit(f"extractvalue {result} {answer}, {position}"))
        if flags:
            f.fault(f.emit(f"extractvalue {result} {answer}, {len(scalars)}"))

    here = f"{result} @{symbol}({', '.join(f'{p.type} {p.operand}' for p in inner.parameters)})"
    length, work = known(k.extent), k.work.known
    if length is not None and work is not None and length * max(work, 1) < 2 * RUN_WORK:
        take_results(call(f, here, returned))
        return
    f.module.helpers.add("chunk")
    chunk = f.emit(f"call i64 @lr.chunk(i64 {extent}, i64 {f.dim(k.work)}, i64 {record_bytes(f, returned, arrays)[0]})", "chunk")
    there = runs(f, symbol, result, returned, inner, private, scalars, arrays, own, extent, chunk)
    one, many, after = f.label("one"), f.label("many"), f.label("after")
    f.branch(f.emit(f"icmp slt i64 {chunk}, {extent}"), many, one)
    f.begin(one)
    take_results(call(f, here, returned))
    f.jump(after)
    f.begin(many)
    take_results(call(f, there, returned))
    f.jump(after)
    f.begin(after)


def call(f: Function, what: str, returned: list[str]) -> str:
    if returned:
        return f.emit(f"call {what}", "totals")
    f.do(f"call {what}")
    return ""


def give(f: Function, result: str, returned: list[str], values: list[str]) -> None:
    """The function returns these values."""
    answer = "undef"
    for position, (type_, value) in enumerate(zip(returned, values, strict=True)):
        answer = f.emit(f"insertvalue {result} {answer}, {type_} {value}, {position}")
    f.do(f"ret {result} {answer}" if returned else "ret void")


def element(f: Function, buffer: Buffer, pointer: str, index: str) -> str:
    return f.emit(f"getelementptr inbounds {STORED[buffer.dtype]}, ptr {pointer}, i64 {index}")


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
            case Store(buffer=b) | Combine(target=Load(buffer=b)) | MatrixProduct(out=b):
                found.add(b)
            case Swap(a=a, b=b):
                found.update((a, b))
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
        if b in f.module.swapped:
            f.entry_places[b] = Held("moving", f.slot("ptr", b.name))
            f.entry.append(f"  store ptr {pointer}, ptr {f.entry_places[b].operand}")
    return region


def padded(f: Function, b: Buffer) -> str:
    """The bytes of an array, up to a multiple of 64; computed at the function's entry."""
    count = f.emit_entry(f"call i64 @llvm.smax.i64(i64 {f.count(b)}, i64 0)")
    size = f.emit_entry(f"mul i64 {count}, {BYTES[b.dtype]}")
    return f.emit_entry(f"and i64 {f.emit_entry(f'add i64 {size}, 63')}, -64")


# ---------------------------------------------------------------- runs
def record_bytes(f: Function, returned: list[str], arrays: list[Total]) -> tuple[str, list[str]]:
    """The size of a record, and where in it each array begins."""
    total, offsets = str((8 * len(returned) + 63) // 64 * 64), []
    for t in arrays:
        offsets.append(total)
        count = f.emit(f"call i64 @llvm.smax.i64(i64 {f.count(t.buffer)}, i64 0)")
        size = f.emit(f"mul i64 {count}, {BYTES[t.buffer.dtype]}")
        rounded = f.emit(f"and i64 {f.emit(f'add i64 {size}, 63')}, -64")
        total = f.emit(f"add i64 {total}, {rounded}")
    return total, offsets


def runs(f: Function, symbol: str, result: str, returned: list[str], inner: Function, private: str | None,
         scalars: list[Total], arrays: list[Total], own: dict[Buffer, str], extent: str, chunk: str) -> str:
    """Writes `runs` and `task`; the call of `runs`."""
    g = Function(f.module, f)
    f.module.helpers.add("parallel")
    handed = [(p, g.take(p.type, p.operand, p.name[1:])) for p in inner.parameters]
    by_name = {p.name: n for p, n in handed}
    frame, length = g.frame(), g.take("i64", chunk, "chunk")
    stride = g.take("i64", f.private_region[1], "stride") if private else "0"
    end = by_name[inner.parameters[1].name]
    last = g.emit(f"add i64 {end}, {length}")
    count = g.emit(f"sdiv i64 {g.emit(f'sub i64 {last}, 1')}, {length}", "runs")
    record, offsets = record_bytes(g, returned, arrays)
    whole = f"{result} @{symbol}({', '.join(f'{p.type} {n}' for p, n in handed)})"
    records = "null"
    if returned or arrays:
        records = g.emit(f"call ptr @malloc(i64 {g.emit(f'mul i64 {count}, {record}')})", "records")
        without, enough = g.label("without"), g.label("enough")
        g.branch(g.emit(f"icmp eq ptr {records}, null"), without, enough)
        g.begin(without)
        answer = call(g, whole, returned)
        g.do(f"ret {result} {answer}" if returned else "ret void")
        g.begin(enough)
    kept = [*((p.type, n) for p, n in handed), ("i64", length), ("ptr", records), ("i64", record), ("i64", stride)]
    kept += [("i64", offset) for offset in offsets]
    environment = g.emit_entry(f"alloca [{len(kept)} x i64]", "environment")
    for position, (type_, operand) in enumerate(kept):
        g.do(f"store {type_} {operand}, ptr {g.emit(f'getelementptr inbounds i64, ptr {environment}, i64 {position}')}")
    g.do(f"call void @lr.parallel(ptr {frame}, ptr @{symbol}.task, ptr {environment}, i64 {count})")
    _task(f, symbol, result, returned, inner, private, arrays, own, [t for t, _ in kept])

    def part(run: str, offset: str) -> str:
        at = g.emit(f"add i64 {g.emit(f'mul i64 {run}, {record}')}, {offset}")
        return g.emit(f"getelementptr i8, ptr {records}, i64 {at}")

    slots = [g.slot(type_) for type_ in returned]
    ops = [t.op for t in scalars] + ["or"] * (len(returned) - len(scalars))
    dtypes = [t.buffer.dtype for t in scalars] + ["bool"] * (len(returned) - len(scalars))
    for position, (slot, type_) in enumerate(zip(slots, returned, strict=True)):
        first = part("0", str(8 * position))
        g.do(f"store {type_} {g.emit(f'load {type_}, ptr {first}')}, ptr {slot}")
    for t, offset in zip(arrays, offsets, strict=True):
        into, number = by_name[own[t.buffer]], g.count(t.buffer)
        first = part("0", offset)
        with g.counting("0", number) as i:
            g.store(element(g, t.buffer, into, i), t.buffer.dtype, g.load(element(g, t.buffer, first, i), t.buffer.dtype))
    with g.counting("1", count, "run") as run:
        for position, (slot, op, dtype) in enumerate(zip(slots, ops, dtypes, strict=True)):
            following, held = part(run, str(8 * position)), Held("slot", slot)
            theirs = g.emit(f"load {TYPES[dtype]}, ptr {following}")
            g.write(held, dtype, g.combine(op, dtype, g.read(held, dtype), theirs, False))
        for t, offset in zip(arrays, offsets, strict=True):
            into, following, dtype = by_name[own[t.buffer]], part(run, offset), t.buffer.dtype
            with g.counting("0", g.count(t.buffer)) as i:
                address = element(g, t.buffer, into, i)
                theirs = g.load(element(g, t.buffer, following, i), dtype)
                g.store(address, dtype, g.combine(t.op, dtype, g.load(address, dtype), theirs, False))
    if records != "null":
        g.do(f"call void @free(ptr {records})")
    give(g, result, returned, [g.emit(f"load {type_}, ptr {slot}") for slot, type_ in zip(slots, returned, strict=True)])
    parameters = ", ".join(f"{p.type} {p.name}" for p in g.parameters)
    f.module.functions.append(g.text(f"define internal {result} @{symbol}.runs({parameters}) noinline #0"))
    return f"{result} @{symbol}.runs({', '.join(f'{p.type} {p.operand}' for p in g.parameters)})"


def _task(f: Function, symbol: str, result: str, returned: list[str], inner: Function, private: str | None,
          arrays: list[Total], own: dict[Buffer, str], types: list[str]) -> None:
    """What a thread does with one run; `types` are those of the environment, in the order of `runs`."""
    t = Function(f.module)
    values = [t.emit(f"load {type_}, ptr {t.emit(f'getelementptr inbounds i64, ptr %environment, i64 {i}')}")
              for i, type_ in enumerate(types)]
    given = dict(zip([p.name for p in inner.parameters], values, strict=False))
    chunk, records, record, stride, *offsets = values[len(inner.parameters):]
    low, end = inner.parameters[0].name, given[inner.parameters[1].name]
    given[low] = t.emit(f"mul nsw i64 %run, {chunk}")
    stop = t.emit(f"add nsw i64 {given[low]}, {chunk}")
    given[inner.parameters[1].name] = t.emit(f"call i64 @llvm.smin.i64(i64 {stop}, i64 {end})")
    if private:
        given[private] = t.emit(f"getelementptr i8, ptr {given[private]}, i64 {t.emit(f'mul i64 %worker, {stride}')}")
    if returned or arrays:
        mine = t.emit(f"getelementptr i8, ptr {records}, i64 {t.emit(f'mul i64 %run, {record}')}")
        for total, offset in zip(arrays, offsets, strict=True):
            given[own[total.buffer]] = t.emit(f"getelementptr i8, ptr {mine}, i64 {offset}")
    answer = call(t, f"{result} @{symbol}({', '.join(f'{p.type} {given[p.name]}' for p in inner.parameters)}) noinline", returned)
    for position, type_ in enumerate(returned):
        part = t.emit(f"extractvalue {result} {answer}, {position}")
        t.do(f"store {type_} {part}, ptr {t.emit(f'getelementptr i8, ptr {mine}, i64 {8 * position}')}")
    t.do("ret void")
    f.module.functions.append(t.text(f"define internal void @{symbol}.task(ptr %environment, i64 %run, i64 %worker) #0"))
