"""Kernels cut into runs.

In: a kernel's function.  Out: two functions more, and the call of the first:

    runs(…, chunk) -> {rank-0 totals, fault}        all runs, on the threads there are, then their records combined in order
    task(environment, run, worker)                  one run: the kernel's function, with totals in the run's own record

How long a run is follows from the extent, the work of an iteration and the size of the totals alone (`lr.chunk`), so the
number of threads changes no bit.

    record       ::=  rank-0 totals and fault mark, 8 bytes each; then the other totals, each from a multiple of 64 bytes on
    environment  ::=  the arguments of the kernel's function, chunk, records, bytes of a record, bytes between the private
                      arrays of two threads, where in a record each total of rank > 0 begins; 8 bytes each
"""
from __future__ import annotations

from collections.abc import Sequence

from dsl.backends.llvm.frame import POOL
from dsl.backends.llvm.function import BYTES, SUFFIX, TYPES, Function, Held, Module, Parameter, structure
from dsl.ir.types import Dim, DType
from dsl.loops.ir import Total
from dsl.record import entity


@entity
class Made:
    """A kernel's function: its name and parameters, the first two of which are the bounds; its totals, whether it has a fault
    mark, the work of an iteration, the parameters that point to the totals of rank > 0, and the one that points to the private
    arrays, if any."""

    symbol: str
    parameters: tuple[Parameter, ...]
    scalars: tuple[Total, ...]
    arrays: tuple[Total, ...]
    flags: bool
    work: Dim
    own: tuple[str, ...]
    private: str | None

    @property
    def returned(self) -> list[tuple[str, DType]]:
        """What is combined of the results, and how."""
        return [(t.op, t.buffer.dtype) for t in self.scalars] + [("or", "bool")] * self.flags


def record(f: Function, scalars: Sequence[Total], arrays: Sequence[Total], flags: bool) -> tuple[str, list[str]]:
    """The size of a record, and where in it each array begins."""
    total, offsets = str((8 * (len(scalars) + flags) + 63) // 64 * 64), []
    for t in arrays:
        offsets.append(total)
        count = f.emit(f"call i64 @llvm.smax.i64(i64 {f.count(t.buffer)}, i64 0)")
        size = f.emit(f"mul i64 {count}, {BYTES[t.buffer.dtype]}")
        rounded = f.emit(f"and i64 {f.emit(f'add i64 {size}, 63')}, -64")
        total = f.emit(f"add i64 {total}, {rounded}")
    return total, offsets


def runs(f: Function, made: Made, chunk: str) -> str:
    """Writes the two functions; what is to be called."""
    g = Function(f.module, f)
    types = [TYPES[dtype] for _, dtype in made.returned]
    result = structure(types)
    given = {p.name: g.take(p.type, p.operand, p.name[1:]) for p in made.parameters}
    length = g.take("i64", chunk, "chunk")
    stride = g.take("i64", f.private_region[1], "stride") if made.private else "0"
    last = g.emit(f"add i64 {given[made.parameters[1].name]}, {length}")
    count = g.emit(f"sdiv i64 {g.emit(f'sub i64 {last}, 1')}, {length}", "runs")
    size, offsets = record(g, made.scalars, made.arrays, made.flags)
    records = "null"
    if types or made.arrays:
        f.module.helpers.add("malloc")
        records = g.emit(f"call ptr @malloc(i64 {g.emit(f'mul i64 {count}, {size}')})", "records")
        without, enough = g.label("without"), g.label("enough")
        g.branch(g.emit(f"icmp eq ptr {records}, null"), without, enough)
        g.begin(without)                                        # no memory: all as one run
        whole = g.call(f"{result} @{made.symbol}({', '.join(f'{p.type} {given[p.name]}' for p in made.parameters)}) noinline", bool(types))
        g.do(f"ret {result} {whole}")
        g.begin(enough)
    kept = [*((p.type, given[p.name]) for p in made.parameters), ("i64", length), ("ptr", records), ("i64", size), ("i64", stride)]
    kept += [("i64", offset) for offset in offsets]
    environment = g.emit_entry(f"alloca [{len(kept)} x i64]", "environment")
    for position, (type_, operand) in enumerate(kept):
        g.do(f"store {type_} {operand}, ptr {g.word(environment, position)}")
    operations = g.emit(f"mul i64 {given[made.parameters[1].name]}, {g.dim(made.work)}")
    share(g, f"{made.symbol}.task", environment, count, operations)
    task(f.module, made, [type_ for type_, _ in kept])

    def part(run: str, offset: str) -> str:
        at = g.emit(f"add i64 {g.emit(f'mul i64 {run}, {size}')}, {offset}")
        return g.emit(f"getelementptr i8, ptr {records}, i64 {at}")

    slots = [g.slot(type_) for type_ in types]
    for position, (slot, type_) in enumerate(zip(slots, types, strict=True)):
        g.do(f"store {type_} {g.emit(f'load {type_}, ptr {g.word(records, position)}')}, ptr {slot}")
    for t, own, offset in zip(made.arrays, made.own, offsets, strict=True):
        bytes_ = g.emit(f"mul i64 {g.count(t.buffer)}, {BYTES[t.buffer.dtype]}")
        g.do(f"call void @llvm.memcpy.p0.p0.i64(ptr {given[own]}, ptr {part('0', offset)}, i64 {bytes_}, i1 false)")
    with g.counting("1", count, "run") as run:
        mine = part(run, "0")
        for position, (slot, (op, dtype)) in enumerate(zip(slots, made.returned, strict=True)):
            theirs = g.emit(f"load {TYPES[dtype]}, ptr {g.word(mine, position)}")
            g.write(Held("slot", slot), dtype, g.combine(op, dtype, g.read(Held("slot", slot), dtype), theirs, False))
        for t, own, offset in zip(made.arrays, made.own, offsets, strict=True):
            into = f"ptr {given[own]}, ptr {part(run, offset)}, i64 {g.count(t.buffer)}"
            g.do(f"call void @{combiner(f.module, t.op, t.buffer.dtype)}({into})")
    if records != "null":
        g.do(f"call void @free(ptr {records})")
    g.give(types, [g.emit(f"load {type_}, ptr {slot}") for slot, type_ in zip(slots, types, strict=True)])
    parameters = ", ".join(f"{p.type} {p.name}" for p in g.parameters)
    f.module.functions.append(g.text(f"define internal {result} @{made.symbol}.runs({parameters}) noinline optnone #0"))
    return f"{result} @{made.symbol}.runs({', '.join(f'{p.type} {p.operand}' for p in g.parameters)})"


def share(f: Function, task: str, environment: str, count: str, operations: str) -> None:
    """All runs of a task, on the threads there are (see threads.py); `operations` is how much there is to do in all."""
    frame = f.frame()
    pool = f.emit(f"load ptr, ptr {f.word(frame, POOL)}")
    f.do(f"call void {f.emit(f'load ptr, ptr {pool}')}(ptr {frame}, ptr @{task}, ptr {environment}, i64 {count}, i64 {operations})")


def task(module: Module, made: Made, types: Sequence[str]) -> None:
    """What a thread does with one run; `types` are those of the environment."""
    t = Function(module)
    values = [t.emit(f"load {type_}, ptr {t.word('%environment', position)}") for position, type_ in enumerate(types)]
    given = dict(zip([p.name for p in made.parameters], values, strict=False))
    chunk, records, size, stride, *offsets = values[len(made.parameters):]
    low, high = made.parameters[0].name, made.parameters[1].name
    given[low] = t.emit(f"mul nsw i64 %run, {chunk}")
    given[high] = t.emit(f"call i64 @llvm.smin.i64(i64 {t.emit(f'add nsw i64 {given[low]}, {chunk}')}, i64 {given[high]})")
    if made.private:
        given[made.private] = t.emit(f"getelementptr i8, ptr {given[made.private]}, i64 {t.emit(f'mul i64 %worker, {stride}')}")
    mine = t.emit(f"getelementptr i8, ptr {records}, i64 {t.emit(f'mul i64 %run, {size}')}")
    for own, offset in zip(made.own, offsets, strict=True):
        given[own] = t.emit(f"getelementptr i8, ptr {mine}, i64 {offset}")
    returned = [TYPES[dtype] for _, dtype in made.returned]
    result = structure(returned)
    answer = t.call(f"{result} @{made.symbol}({', '.join(f'{p.type} {given[p.name]}' for p in made.parameters)}) noinline", bool(returned))
    for position, type_ in enumerate(returned):
        t.do(f"store {type_} {t.emit(f'extractvalue {result} {answer}, {position}')}, ptr {t.word(mine, position)}")
    t.do("ret void")
    header = f"define internal void @{made.symbol}.task(ptr %environment, i64 %run, i64 %worker)"
    module.functions.append(t.text(f"{header} noinline optnone #0"))


def combiner(module: Module, op: str, dtype: DType) -> str:
    """A function that combines one array of totals into another, element by element."""
    name = f"lr.combine.{op}.{SUFFIX[dtype]}"
    if name not in module.helpers:
        module.helpers.add(name)
        f = Function(module)
        with f.counting("0", "%count") as i:
            address = f.element("%into", dtype, i)
            value = f.combine(op, dtype, f.load(address, dtype), f.load(f.element("%theirs", dtype, i), dtype), False)
            f.store(address, dtype, value)
        f.do("ret void")
        arrays = "ptr noalias %into, ptr noalias readonly %theirs"
        module.functions.append(f.text(f"define internal void @{name}({arrays}, i64 %count) noinline #0"))
    return name
