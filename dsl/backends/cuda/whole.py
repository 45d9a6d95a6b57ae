"""A whole program as one kernel.

In: a `Program`.  Out: `Whole`: its source, with a function for each kernel and one `__global__` function that goes through the
program's statements.  It is launched as one block that stays, or as a grid whose blocks run together; the same text serves both.

All threads go through the statements outside of kernels with the same values: scalars, whatever their role, are variables of every
thread, and thread 0 alone stores into arrays there.  Kernels and products are done by all threads together, who wait for each
other where `barriers.py` says so.  What a kernel adds up is combined by every warp for itself if the runs are few.

Arrays are where the launch says (`places`): far, in the device's memory, or near, in the shared memory of the one block.  What is
given from outside is copied from its home if it is near, and brought home at the end, if it is not there: also where arrays
have changed places.
"""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from dsl.backends.cuda.barriers import Waits
from dsl.backends.cuda.expressions import Name, Pointer
from dsl.backends.cuda.flat import flattened
from dsl.backends.cuda.parameters import Parameter, Role, roots, written
from dsl.backends.cuda.runs import FEW_RUNS
from dsl.backends.cuda.serial import without_faults
from dsl.backends.cuda.source import Function, Printed, function_text, print_kernels, source_text
from dsl.backends.cuda.spelling import C_TYPES, PRODUCT, SUM, Text, fresh, literal
from dsl.backends.cuda.statements import Statements, gathered
from dsl.ir.types import Dim
from dsl.ir.types import product as elements
from dsl.loops.ir import (
    FAULT,
    Assign,
    Bind,
    Combine,
    Flag,
    Kernel,
    Let,
    Local,
    Loop,
    Product,
    Program,
    Stmt,
    Store,
    Swap,
    expressions,
    outside_kernels,
    size_names,
    statements,
)
from dsl.machine.expr import BITS, Buffer, Load, Ref, walk
from dsl.record import entity

THREADS = 512
"""The most threads of a block: so many leave each thread 128 registers; in a grid 64, so that two blocks fit a processor and enough
loads are on their way."""


@entity
class Array:
    """An array of a whole program: `role` is that of a buffer, `partials` of a total, or `private` of a kernel `of`."""

    buffer: Buffer
    kind: str
    of: Printed | None = None


@entity
class Whole:
    """`arrays` have a place each, in order, then come the homes of `passed`.  `scalars` are passed buffers of rank 0."""

    program: Program
    function: Function
    kernels: tuple[Printed, ...]
    arrays: tuple[Array, ...]
    passed: tuple[Buffer, ...]
    scalars: tuple[Buffer, ...]
    source: str


LARGEST = 4000
"""Parts of expressions of a program that is one kernel: the assembler's time grows with the square of what it holds at once, 10 s for
twice as many."""


def stays_on_device(program: Program) -> bool:
    """Whether a program can be one kernel: it is not too large, and no kernel in it writes a scalar other than as a total."""
    size = sum(len(walk(expressions(s))) for s in statements(program.body))
    return size <= LARGEST and not any(b.rank == 0 and b.role not in ("private", "window") and b not in {t.buffer for t in s.totals}
                   for s in statements(program.body) if isinstance(s, Kernel) for b in written(s.body))


def whole_program(program: Program, prefix: str = "", grid: bool = False) -> Whole:
    """`grid`: it is made for blocks that run together, though it may be run by one, and the other way round."""
    return _Whole(without_faults(flattened(program)), prefix, f"{THREADS}, 2" if grid else str(THREADS)).whole()


class _Whole(Statements):
    def __init__(self, program: Program, prefix: str, bounds: str) -> None:
        of = roots(program)
        self.program, self.bounds = program, bounds
        met = list(statements(program.body))
        self.variables = frozenset(b for b in program.buffers if not b.rank)
        outside = set(outside_kernels(program.body))
        out = {of.get(b, b) for b in written(program.body)} | {t.buffer for s in met if isinstance(s, Kernel) for t in s.totals} \
            | {of.get(s.out, s.out) for s in met if isinstance(s, Product)} | {b for s in met if isinstance(s, Swap) for b in (s.a, s.b)}
        names = Counter(s.name for s in outside if isinstance(s, Let | Local))
        names.update(s.index for s in outside if isinstance(s, Loop))
        assigned = {s.name for s in outside if isinstance(s, Assign)} | {
            s.target.name for s in outside if isinstance(s, Combine) and isinstance(s.target, Ref)}
        changing: set[object] = {*out, *assigned, *(n for n, count in names.items() if count > 1), FAULT.name,
                                 *(f"size {s.size}" for s in outside if isinstance(s, Bind))}
        super().__init__(out, changing, of)
        self.kernels = print_kernels(program, self.variables, prefix, inside=True)
        self.printed = {p.kernel: p for p in self.kernels}
        self.waits = Waits(program.body, self.variables, of)
        self.flags = any(isinstance(s, Flag) for s in met)
        self.parameters: list[Parameter] = []
        self.partials: dict[Buffer, str] = {}
        self.pending: list[tuple[Printed, str, Text]] = []       # kernels whose runs are to be combined, with their counts of runs
        self.private: dict[tuple[Printed, Buffer], str] = {}
        self.function = fresh(prefix + program.name, {f.name for p in self.kernels for f in p.functions}.__contains__)

    # ------------------------------------------------------------ the function
    def whole(self) -> Whole:
        program = self.program
        self.push()
        taken = self.scopes[-1].taken
        taken.update(f.name for p in self.kernels for f in p.functions)
        taken.update(("thread", "threads", "warp", "warps", "lane", "arrived", "places", "lr_near", "fault", "met", self.function))
        inputs = [b for b in program.passed if b.rank and b.role == "input"]
        passed = tuple(b for b in program.passed if b.rank and b.role != "input")
        scalars = tuple(b for b in program.passed if not b.rank)
        for b in inputs:
            name = self.parameter("buffer", b, self.fresh(b.name), f"const {C_TYPES[b.dtype]}* __restrict__")
            self.scopes[-1].pointers[b] = Pointer(name)
        given = {b: self.parameter("buffer", b, self.fresh(f"{b.name}_given"), f"{C_TYPES[b.dtype]}*") for b in scalars}
        self.parameters.append(Parameter("places", "const unsigned long long* __restrict__ places", "places", "places"))
        self.parameters.append(Parameter("arrived", "unsigned int* arrived", "arrived", "arrived"))
        if self.flags:
            self.parameters.append(Parameter("fault", "bool* fault", "fault", "fault"))
        for value in program.scalars:
            name = self.parameter("value", value, self.fresh(value.name), C_TYPES[value.dtype])
            self.scopes[-1].names[value.name] = Name(name, BITS[value.dtype])
        for size in size_names(program):
            self.scopes[-1].sizes[size] = self.parameter("size", size, self.fresh(size), "long long")
        self.line("extern __shared__ __align__(16) unsigned char lr_near[];")
        self.line("const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;")
        arrays = self.declare_arrays(passed)
        self.declare_variables(given)
        homes = self.from_home(passed, len(arrays))
        self.block(program.body)
        self.bring_home(passed, homes, given)
        self.lines = gathered(without_unread(self.lines, ["thread"]), "if (thread == 0) ")
        text = function_text(f'extern "C" __global__ void __launch_bounds__({self.bounds})', self.function, self.parameters, self.summary(),
                             "\n".join(self.lines))
        function = Function(self.function, tuple(self.parameters), text)
        return Whole(program, function, self.kernels, arrays, passed, scalars, source_text(self.kernels, [function], self.combining))

    def parameter(self, role: Role, what: Buffer | Ref | str, name: str, words: str) -> str:
        self.parameters.append(Parameter(name, f"{words} {name}", role, what))
        return name

    def declare_arrays(self, passed: tuple[Buffer, ...]) -> tuple[Array, ...]:
        arrays: list[Array] = []

        def place(b: Buffer, hint: str, kind: str, of: Printed | None = None) -> str:
            name, c_type = self.fresh(hint), C_TYPES[b.dtype]
            self.line(f"{c_type}* {name} = lr_array<{c_type}>(places[{len(arrays)}], lr_near);")
            arrays.append(Array(b, kind, of))
            return name

        for b in (*passed, *(b for b in self.program.scratch if b.rank)):
            self.scopes[-1].pointers[b] = Pointer(place(b, b.name, b.role))
        for p in self.kernels:
            for t in p.kernel.totals:
                if t.buffer not in self.partials:
                    self.partials[t.buffer] = place(t.buffer, f"{t.buffer.name}_runs", "partials", p)
            for parameter in p.main.parameters:
                if parameter.role == "private" and isinstance(parameter.what, Buffer):
                    self.private[p, parameter.what] = place(parameter.what, parameter.what.name, "private", p)
        return tuple(arrays)

    def declare_variables(self, given: dict[Buffer, str]) -> None:
        if self.flags:
            self.line("bool met = false;")
        self.scopes[-1].names[FAULT.name] = Name("(met || *fault)" if self.flags else "false", 1)
        for b in self.program.buffers:
            if b.rank:
                continue
            name = self.fresh(b.name)
            self.scopes[-1].pointers[b] = Pointer(name, variable=True)
            start = f"*{given[b]}" if b in given else literal(0, b.dtype).text
            self.line(f"{C_TYPES[b.dtype]} {name} = {start};")

    def from_home(self, passed: tuple[Buffer, ...], first: int) -> dict[Buffer, str]:
        """Arrays that are near begin with what is at home."""
        homes: dict[Buffer, str] = {}
        for number, b in enumerate(passed):
            name, c_type = self.fresh(f"{b.name}_home"), C_TYPES[b.dtype]
            self.line(f"{c_type}* const {name} = ({c_type}*)places[{first + number}];")
            self.line(f"lr_copy({self.pointer(b).name}, {name}, {self.dim(elements(b.shape)).text});")
            homes[b] = name
        if passed or self.flags:
            self.line("lr_barrier(arrived);")
        return homes

    def bring_home(self, passed: tuple[Buffer, ...], homes: dict[Buffer, str], given: dict[Buffer, str]) -> None:
        """Arrays that change places among each other element by element: what a thread brings it has read before.  Scalars after all
        threads have read them."""
        if passed or self.flags or any(b.role != "input" for b in given):
            self.line("lr_barrier(arrived);")
        for group in self.exchanging(passed):
            if len(group) == 1:
                b = group[0]
                self.line(f"lr_copy({homes[b]}, {self.pointer(b).name}, {self.dim(elements(b.shape)).text});")
                continue
            count = self.dim(elements(group[0].shape)).at(SUM)
            self.line(f"for (long long element = thread; element < {count}; element += (long long)gridDim.x * blockDim.x) {{")
            kept = [self.fresh(f"{b.name}_element") for b in group]
            for b, name in zip(group, kept, strict=True):
                self.line(f"    const {C_TYPES[b.dtype]} {name} = {self.pointer(b).name}[element];")
            for b, name in zip(group, kept, strict=True):
                self.line(f"    {homes[b]}[element] = {name};")
            self.line("}")
        stores = [f"*{given[b]} = {self.pointer(b).name};" for b in given if b.role != "input"]
        if self.flags:
            stores.append("if (met) *fault = true;")
        if stores:
            self.guarded("thread == 0", stores)

    def exchanging(self, passed: tuple[Buffer, ...]) -> list[list[Buffer]]:
        """The passed arrays, those together that may have each other's memory."""
        groups = [{b} for b in self.program.buffers if b.rank]
        for s in statements(self.program.body):
            if isinstance(s, Swap) and s.a.rank:
                first, second = (next(g for g in groups if b in g) for b in (s.a, s.b))
                if first is not second:
                    first |= second
                    groups.remove(second)
        found = [[b for b in passed if b in g] for g in groups]
        return [g for g in found if g]

    def summary(self) -> str:
        products = sum(isinstance(s, Product) for s in statements(self.program.body))
        parts = [f"{count} {what}{'s' * (count > 1)}" for count, what in ((len(self.kernels), "kernel"), (products, "product")) if count]
        return f"{self.function}: the whole program, by one block or by blocks that run together" + (
            f"; of {' and '.join(parts)}" if parts else "")

    # ------------------------------------------------------------ statements
    def changes(self, s: Stmt) -> frozenset[object]:
        match s:
            case Swap(a=a, b=b):
                return frozenset((a, b))
            case Product(out=out):
                return frozenset((self.root(out),))
            case Flag():
                return frozenset((FAULT.name,))
            case Kernel(totals=totals):
                return super().changes(s).union((FAULT.name,), (t.buffer for t in totals))
            case _:
                return super().changes(s)

    def statement(self, s: Stmt) -> None:
        if s in self.waits.before:
            self.wait()
        if s in self.waits.twice:
            self.line("lr_barrier(arrived);")
        match s:
            case Kernel():
                self.kernel(self.printed[s])
            case Product():
                self.product(s)
            case Swap(a=a, b=b):
                self.line(f"lr_swap({self.pointer(a).name}, {self.pointer(b).name});")
            case Store(buffer=b) | Combine(target=Load(buffer=b)) if b not in self.variables:
                self.line(f"if (thread == 0) {self.change(s)}")
            case Flag(condition):
                text, = self.texts([condition])
                self.line(f"met = met || {text.at(PRODUCT)};")
            case _:
                super().statement(s)
        self.forget(self.changes(s))
        if s in self.waits.after:
            self.wait()

    def after_turn(self, s: Stmt) -> None:
        if s in self.waits.after_turn:
            self.line("lr_barrier(arrived);")

    def kernel(self, printed: Printed) -> None:
        kernel, name = printed.kernel, printed.main.name
        runs = ""
        extent, = self.texts([kernel.extent])
        if kernel.totals:
            runs = self.fresh(f"{name}_runs")
            count = sum((elements(t.buffer.shape) for t in kernel.totals), start=Dim.of(0))
            more = "" if printed.form == "threads" else f", {self.dim(count).text}"
            self.line(f"const long long {runs} = lr_runs_of_{printed.form}({extent.text}{more});")
        self.line(f"{name}({', '.join(self.argument(p, printed, runs, extent) for p in printed.main.parameters)});")
        if printed.finish is not None:
            self.pending.append((printed, runs, extent))

    def wait(self) -> None:
        """A barrier; then the runs of kernels before it are combined.  Few are combined by every warp for itself, many by one warp a
        total, for which all wait again; arrays always so, but what meets them waits."""
        self.line("lr_barrier(arrived);")
        pending, self.pending = self.pending, []
        calls = {p: f"{p.finish.name}({', '.join(self.argument(a, p, runs, extent) for a in p.finish.parameters)});"
                 for p, runs, extent in pending if p.finish is not None}
        scalars = [(p, t, runs) for p, runs, _ in pending for t in p.kernel.totals if not t.buffer.rank]
        with_arrays = [p for p, _, _ in pending if any(t.buffer.rank for t in p.kernel.totals)]
        for p in with_arrays:
            self.line(calls[p])
        many = ""
        if scalars:
            counts = dict.fromkeys(runs for _, _, runs in scalars)
            many = self.fresh("many")
            self.line(f"const bool {many} = {' || '.join(f'{runs} > {FEW_RUNS}' for runs in counts)};")
            self.guarded(many, [*(calls[p] for p, _, _ in pending if p not in with_arrays), "lr_barrier(arrived);"])
        for _, t, runs in scalars:
            unit, = self.texts([t.unit])
            own = f"{self.over_runs(t.op, t.buffer.dtype)}({self.partials[t.buffer]}, {runs}, 1, {unit.text})"
            self.line(f"{self.pointer(t.buffer).name} = {many} ? {self.partials[t.buffer]}[{runs}] : {own};")

    def argument(self, p: Parameter, printed: Printed, runs: str, extent: Text) -> str:
        match p.role, p.what:
            case "buffer", Buffer() as b if b in self.partials and not b.rank:
                return f"&{self.partials[b]}[{runs}]"            # a total that the finishing function makes
            case ("buffer" | "variable"), Buffer() as b:
                return self.pointer(b).name
            case "partials", Buffer() as b:
                return self.partials[b]
            case "private", Buffer() as b:
                return self.private[printed, b]
            case "unit", Buffer() as b:
                total = next(t for t in printed.kernel.totals if t.buffer is b)
                return self.texts([total.unit])[0].text
            case "value", Ref() as value:
                return self.texts([value])[0].text
            case "size", str() as size:
                return self.size(size)
            case "count", _:
                return extent.text
            case "runs", _:
                return runs
            case "fault", _:
                return "fault"
            case _:
                raise AssertionError(f"{printed.main.name}: {p!r}")

    def product(self, s: Product) -> None:
        (rows, columns), one = map(self.dim, s.out.shape), literal(1, "int64")
        inner = self.dim(s.a.shape[0 if s.a_transposed else 1])
        a_step, b_step = self.dim(s.a.shape[1]), self.dim(s.b.shape[1])
        steps = [*((one, a_step) if s.a_transposed else (a_step, one)), *((one, b_step) if s.b_transposed else (b_step, one))]
        places = [self.pointer(b).name for b in (s.out, s.a, s.b)]
        self.line(f"lr_product({', '.join([*places, *(t.text for t in (rows, inner, columns, *steps))])});")


def without_unread(lines: list[str], names: Sequence[str]) -> list[str]:
    """Without the lines that name what no other line reads."""
    for name in names:
        met = [at for at, line in enumerate(lines) if re.search(rf"\b{name}\b", line)]
        if len(met) == 1:
            del lines[met[0]]
    return lines
