"""Kernels to CUDA C.

In: a `Program`.  Out: for each kernel a function, and a second one if it has totals, which combines the runs (`runs.py`).

    threads  one thread an iteration, in steps of the grid; with totals, in steps of a run: each lane of a warp adds up for
             itself, the lanes are combined, and the run's value is kept
    warps    one warp an iteration, whose lanes share the loops in it (`split.py`, `lanes.py`)
    columns  one lane a column and run, which keeps the column's totals
    slices   one thread a run, with a slice of every total; neighbouring runs lie side by side in memory

A private buffer of few and known elements is an array of the thread, any other a part of scratch memory in which the
threads lie side by side, and the warps one after the other.  Blocks are of any number of warps; the grid is free.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence

from dsl.backends.cuda.expressions import Name, Pointer
from dsl.backends.cuda.lanes import Lanes
from dsl.backends.cuda.parameters import Parameter, Role, is_once, locals_of, roots
from dsl.backends.cuda.prelude import prelude
from dsl.backends.cuda.runs import LANES, WARP, Form
from dsl.backends.cuda.spelling import C_TYPES, PRODUCT, SUM, Text, fresh, literal
from dsl.backends.cuda.statements import WIDTH
from dsl.ir.types import product as elements
from dsl.loops.ir import Block, Kernel, Program, Total, statements
from dsl.machine.expr import BITS, Buffer, Const, Expr, Extent, Ref
from dsl.record import entity, record

IN_REGISTERS = 64                # elements of a private buffer that are kept as an array of the thread
MEANINGS = {"add": "sum", "mul": "product", "minimum": "least", "maximum": "largest", "and": "all", "or": "any"}


@record
class Function:
    """A `__global__` function: its parameters in order, and its text."""

    name: str
    parameters: tuple[Parameter, ...]
    text: str


@entity
class Printed:
    """A kernel in C.  `finish` combines the runs of its totals; `combining` are the functions that these call to combine values."""

    kernel: Kernel
    form: Form
    main: Function
    finish: Function | None
    combining: dict[str, str]

    @property
    def functions(self) -> tuple[Function, ...]:
        return (self.main,) if self.finish is None else (self.main, self.finish)


def print_kernels(program: Program, variables: frozenset[Buffer] = frozenset(), prefix: str = "",
                  inside: bool = False) -> tuple[Printed, ...]:
    """Every kernel of a program, in order; `variables` are passed by value.  Functions are named `prefix` and the kernel's name;
    those `inside` another are called by it and not launched."""
    of, own, taken = roots(program), locals_of(program), set[str]()
    kernels = dict.fromkeys(s for s in statements(program.body) if isinstance(s, Kernel))
    return tuple(_Kernel(k, of, own.get(k, []), variables, prefix, taken, inside).printed() for k in kernels)


def source_text(kernels: Sequence[Printed], more: Sequence[Function] = (), combining: Mapping[str, str] | None = None) -> str:
    """One source of kernels, of `more` functions that call them, and of the helper functions they need."""
    body = "\n".join(f.text for f in (*(f for k in kernels for f in k.functions), *more))
    helpers = {**(combining or {}), **{name: text for k in kernels for name, text in k.combining.items()}}
    return prelude(body, helpers) + body


def kernel_source(program: Program, variables: frozenset[Buffer] = frozenset(), prefix: str = "") -> str:
    """The whole source of a program's kernels."""
    return source_text(print_kernels(program, variables, prefix))


def in_registers(private: Buffer) -> bool:
    count = elements(private.shape).known
    return count is not None and count <= IN_REGISTERS


class _Kernel(Lanes):
    """One kernel: its parameters and the loops around its body."""

    def __init__(self, kernel: Kernel, of: dict[Buffer, Buffer], own: list[Buffer], variables: frozenset[Buffer], prefix: str,
                 taken: set[str], inside: bool) -> None:
        super().__init__(kernel, of, own)
        self.variables, self.inside = variables, inside
        self.parameters: list[Parameter] = []
        self.function = fresh(prefix + kernel.name, taken.__contains__)
        taken.add(self.function)
        self.finisher = fresh(f"{self.function}_totals", taken.__contains__) if kernel.totals else ""
        taken.add(self.finisher)

    def printed(self) -> Printed:
        main = self.main()
        return Printed(self.kernel, self.form, main, self.finish() if self.kernel.totals else None, self.combining)

    # ------------------------------------------------------------ parameters
    def parameter(self, role: Role, what: Buffer | Ref | str, name: str, declaration: str) -> str:
        text = self.fresh(name)
        self.parameters.append(Parameter(text, f"{declaration} {text}", role, what))
        return text

    def array(self, b: Buffer) -> None:
        """A parameter for the elements of a buffer.  Two that may share memory, one of them written, are not `restrict`."""
        root = self.root(b)
        is_written = root in self.needs.written
        alone = sum(self.root(other) is root for other in self.needs.buffers) == 1 or not is_written
        words = f"{'' if is_written else 'const '}{C_TYPES[b.dtype]}*{' __restrict__' if alone else ''}"
        self.scopes[-1].pointers[b] = Pointer(self.parameter("buffer", b, b.name, words))

    def partials(self, total: Total, const: bool) -> str:
        words = f"{'const ' if const else ''}{C_TYPES[total.buffer.dtype]}* __restrict__"
        return self.parameter("partials", total.buffer, f"{total.buffer.name}_runs", words)

    def lengths(self, extent: Expr | None, sizes: Sequence[str]) -> Text:
        """Parameters for names, the kernel's extent and sizes; returns how the extent is written."""
        for b in self.needs.buffers if extent is not None else ():
            if b in self.variables:
                name = self.parameter("variable", b, b.name, C_TYPES[b.dtype])
                self.scopes[-1].pointers[b] = Pointer(name, variable=True)
        for value in self.needs.values if extent is not None else ():
            name = self.parameter("value", value, value.name, C_TYPES[value.dtype])
            self.scopes[-1].names[value.name] = Name(name, BITS[value.dtype])
        count = ""
        if extent is not None and not isinstance(extent, Const | Extent):
            count = self.parameter("count", "count", f"{self.kernel.index}_count", "long long")
        if self.kernel.totals:
            self.parameter("runs", "runs", "runs", "long long")
        for size in sizes:
            self.scopes[-1].sizes[size] = self.parameter("size", size, size, "long long")
        return Text(count) if count or extent is None else self.texts([extent])[0]

    def unit(self, total: Total) -> str:
        """A literal, or a parameter: the host knows its value."""
        if isinstance(total.unit, Const):
            return literal(total.unit.value, total.unit.dtype).text
        b = total.buffer
        known = next((p.name for p in self.parameters if p.role == "unit" and p.what is b), None)
        return known or self.parameter("unit", b, f"{b.name}_unit", C_TYPES[b.dtype])

    # ------------------------------------------------------------ the two functions
    def main(self) -> Function:
        kernel, needs = self.kernel, self.needs
        needs.expressions([kernel.extent] if isinstance(kernel.extent, Extent) else [])
        for t in kernel.totals:
            if self.form == "slices":
                needs.shape(t.buffer)
        self.push()
        self.scopes[-1].taken.update(("thread", "threads", "runs", "run", "warp", "warps", "lane", "element", "turn", "u", self.function,
                                      self.finisher))
        for b in sorted(needs.buffers, key=lambda b: self.root(b) in needs.written):
            if b not in self.variables:
                self.array(b)
        slices = {t.buffer: self.partials(t, const=False) for t in kernel.totals}
        stored = [b for b in needs.private if not self.in_registers(b)]
        for b in stored:
            name = self.parameter("private", b, b.name, f"{C_TYPES[b.dtype]}* __restrict__")
            self.scopes[-1].pointers[b] = Pointer(name, "threads", "thread")
        if needs.flags:
            self.parameter("fault", "fault", "fault", "bool*")
        units = {t.buffer: self.unit(t) for t in kernel.totals}
        self.scopes[-1].taken.discard("runs")
        extent = self.lengths(kernel.extent, list(needs.sizes))
        if is_once(kernel):
            self.only_iteration()
        else:
            self.places(stored)
            match self.form:
                case "threads" if kernel.totals:
                    self.runs_of_threads(extent, slices, units)
                case "threads":
                    self.iterations("thread", extent, "threads", f"{extent.at(PRODUCT)} >= 4 * threads")
                case "warps" if kernel.totals:
                    self.runs_of_warps(extent, slices, units)
                case "warps":
                    self.iterations("warp", extent, "warps")
                case "columns":
                    self.runs_of_columns(extent, slices, units)
                case "slices":
                    self.runs_of_slices(extent, slices, units)
        self.without_unused()
        return self.function_text(self.function, self.summary())

    def in_registers(self, b: Buffer) -> bool:
        return self.form != "warps" and in_registers(b)

    def places(self, stored: Sequence[Buffer]) -> None:
        """Which thread this is, of how many, and where it has its private arrays."""
        by_warp = self.form in ("warps", "columns") or bool(self.kernel.totals and self.form == "threads")
        self.line("const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;")
        self.line("const long long threads = (long long)gridDim.x * blockDim.x;")
        if by_warp:
            self.line("const long long warp = thread / 32, warps = threads / 32;")
            self.line("const int lane = threadIdx.x % 32;")
        for b in stored if self.form == "warps" else ():
            whole = self.pointer(b).name
            own = self.fresh(f"{b.name}_own")
            count = self.dim(elements(b.shape))
            self.line(f"{C_TYPES[b.dtype]}* {own} = {whole} + warp * {count.at(PRODUCT + 1)};")
            self.scopes[-1].pointers[b] = Pointer(own)

    def iterations(self, first: str, extent: Text, step: str, many: str = "", body: Block | None = None) -> None:
        bits = self.index_bits(self.kernel.extent)
        if many:
            self.strided(self.kernel.index, bits, extent, first, step, many, self.kernel.body, self.iteration)
            return
        self.push()
        index = self.bind(self.kernel.index, bits)
        self.line(f"for (long long {index} = {first}; {index} < {extent.at(SUM)}; {index} += {step}) {{")
        self.depth += 1
        self.iteration(body)
        self.close()

    def only_iteration(self) -> None:
        self.push()
        self.scopes[-1].names[self.kernel.index] = Name("0", 0)
        for b in self.needs.private:
            if not self.in_registers(b):
                self.scopes[-1].pointers[b] = Pointer(self.pointer(b).name)
        self.line("if (blockIdx.x == 0 && threadIdx.x == 0) {")
        self.depth += 1
        for b in self.needs.own:
            name = self.fresh(b.name)
            self.scopes[-1].pointers[b] = Pointer(name, variable=True)
            self.line(f"{C_TYPES[b.dtype]} {name};")
        self.iteration()
        self.close()

    def iteration(self, body: Block | None = None) -> None:
        for b in self.needs.private:
            if self.in_registers(b):
                self.local_array(b)
        self.block(self.kernel.body if body is None else body)

    def local_array(self, b: Buffer) -> None:
        name = self.fresh(b.name)
        self.line(f"{C_TYPES[b.dtype]} {name}[{max(elements(b.shape).known or 0, 1)}];")
        self.scopes[-1].pointers[b] = Pointer(name)

    # ------------------------------------------------------------ runs
    def run(self, mine: str, step: str) -> None:
        self.line(f"for (long long run = {mine}; run < runs; run += {step}) {{")
        self.depth += 1
        self.push()

    def total_variable(self, t: Total, unit: str) -> None:
        name = self.fresh(t.buffer.name)
        self.scopes[-1].pointers[t.buffer] = Pointer(name, variable=True)
        self.line(f"{C_TYPES[t.buffer.dtype]} {name} = {unit};")

    def scalars_of_warp(self, slices: dict[Buffer, str]) -> None:
        """The lanes' totals combined, and kept as the run's."""
        scalars = [t for t in self.kernel.totals if t.buffer.rank == 0]
        for t in scalars:
            name = self.pointer(t.buffer).name
            self.line(f"{name} = {self.over_warp(t.op, t.buffer.dtype)}({name});")
        if scalars:
            self.guarded("lane == 0", [f"{slices[t.buffer]}[run] = {self.pointer(t.buffer).name};" for t in scalars])

    def runs_of_threads(self, extent: Text, slices: dict[Buffer, str], units: dict[Buffer, str]) -> None:
        self.run("warp", "warps")
        for t in self.kernel.totals:
            self.total_variable(t, units[t.buffer])
        self.iterations(f"run * {WARP} + lane", extent, f"runs * {WARP}", f"{extent.at(PRODUCT)} >= runs * {4 * WARP}")
        self.scalars_of_warp(slices)
        self.close()

    def runs_of_warps(self, extent: Text, slices: dict[Buffer, str], units: dict[Buffer, str]) -> None:
        self.run("warp", "warps")
        for t in self.kernel.totals:
            b, c_type = t.buffer, C_TYPES[t.buffer.dtype]
            if b.rank == 0:
                self.total_variable(t, units[b])
            elif b in self.kept:
                name = self.fresh(f"{b.name}_lane")
                turns = -(-self.kept[b] // WARP)
                self.scopes[-1].pointers[b] = Pointer(name)
                self.line(f"{c_type} {name}[{turns}];")
                self.each_turn(turns, f"{name}[turn] = {units[b]};")
            else:
                own, count = self.fresh(f"{b.name}_own"), self.dim(elements(b.shape))
                self.line(f"{c_type}* {own} = {slices[b]} + run * {count.at(PRODUCT + 1)};")
                self.scopes[-1].pointers[b] = Pointer(own)
                self.line(f"for (long long element = lane; element < {count.at(SUM)}; element += {WARP}) {own}[element] = {units[b]};")
        self.exchange(any(t.buffer.rank and t.buffer not in self.kept for t in self.kernel.totals))
        self.iterations("run", extent, "runs")
        self.scalars_of_warp(slices)
        for b, length in self.kept.items():
            own, place = self.pointer(b).name, f"{WARP} * turn + lane"
            store = f"{slices[b]}[run * {length} + {place}] = {own}[turn];"
            self.each_turn(-(-length // WARP), f"if ({place} < {length}) {store}" if length % WARP else store)
        self.close()

    def each_turn(self, turns: int, text: str) -> None:
        self.line("#pragma unroll")
        self.line(f"for (int turn = 0; turn < {turns}; ++turn) {text}")

    def runs_of_columns(self, extent: Text, slices: dict[Buffer, str], units: dict[Buffer, str]) -> None:
        """A warp takes 32 columns of a run at a time."""
        loop, = self.shares
        columns = self.turns(loop)
        across, item = self.fresh("across"), self.fresh("item")
        self.line(f"const long long {across} = ({columns.at(SUM)} + {WARP - 1}) / {WARP};")
        self.line(f"for (long long {item} = warp; {item} < runs * {across}; {item} += warps) {{")
        self.depth += 1
        self.push()
        index = self.bind(loop.index, self.index_bits(loop.extent))
        self.line(f"const long long run = {item} / {across}, {index} = {item} % {across} * {WARP} + lane;")
        self.line(f"if ({index} >= {columns.at(SUM)}) continue;")
        for t in self.kernel.totals:
            self.total_variable(t, units[t.buffer])
        self.sharing = True
        self.iterations("run", extent, "runs", body=(*self.kernel.body[:-1], *loop.body))
        for t in self.kernel.totals:
            b = t.buffer
            self.line(f"{slices[b]}[run * {columns.at(PRODUCT)} + {index}] = {self.pointer(b).name};")
        self.close()

    def runs_of_slices(self, extent: Text, slices: dict[Buffer, str], units: dict[Buffer, str]) -> None:
        self.run("thread", "threads")
        for t in self.kernel.totals:
            b = t.buffer
            if b.rank == 0:
                self.total_variable(t, units[b])
            else:
                self.scopes[-1].pointers[b] = Pointer(slices[b], "runs", "run")
                count = self.dim(elements(b.shape))
                self.line(f"for (long long element = 0; element < {count.at(SUM)}; ++element) "
                          f"{self.pointer(b).at(Text('element'))} = {units[b]};")
        self.iterations("run", extent, "runs")
        for t in self.kernel.totals:
            if t.buffer.rank == 0:
                self.line(f"{slices[t.buffer]}[run] = {self.pointer(t.buffer).name};")
        self.close()

    def finish(self) -> Function:
        """Every total from its runs: a warp an element, scalars by different warps."""
        self.lines, self.depth, self.scopes, self.parameters = [], 1, [], []
        self.push()
        self.scopes[-1].taken.update(("total", "element", "run", "runs", "warp", "warps", "thread", "threads", "lane"))
        totals = self.kernel.totals
        names: list[tuple[str, str]] = []
        for t in totals:
            out = f"{C_TYPES[t.buffer.dtype]}* __restrict__"
            names.append((self.partials(t, const=True), self.parameter("buffer", t.buffer, t.buffer.name, out)))
        units = [self.unit(t) for t in totals]
        self.scopes[-1].taken.discard("runs")
        sizes: dict[str, None] = {s.name: None for t in totals for d in t.buffer.shape for s in d.sizes() if s.value is None}
        self.lengths(None, list(sizes))
        self.line("const long long warp = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / 32;")
        self.line("const long long warps = (long long)gridDim.x * blockDim.x / 32;")
        self.line("const int lane = threadIdx.x % 32;")
        for number, (t, (runs, out), unit) in enumerate(zip(totals, names, units)):
            c_type, rank, over = C_TYPES[t.buffer.dtype], t.buffer.rank, self.over_runs(t.op, t.buffer.dtype)
            count = self.dim(elements(t.buffer.shape)).at(SUM)
            if rank == 0:
                self.line(f"if (warp == {f'{number} % warps' if number else 0}) {{")
                first, step, place = runs, "1", "0"
            else:
                self.line(f"for (long long element = warp; element < {count}; element += warps) {{")
                first, step = (f"{runs} + element * runs", "1") if self.form == "slices" else (f"{runs} + element", count)
                place = "element"
            self.line(f"    const {c_type} total = {over}({first}, runs, {step}, {unit});")
            self.line(f"    if (lane == 0) {out}[{place}] = total;")
            self.line("}")
        results = ", ".join(t.buffer.name for t in totals)
        return self.function_text(self.finisher, f"{self.finisher}: {results} from the runs of {self.function}")

    # ------------------------------------------------------------ text
    def summary(self) -> str:
        """What the kernel does, in one sentence."""
        kernel, needs = self.kernel, self.needs
        stored = [b for b in needs.buffers if self.root(b) in needs.written]
        loaded = [b for b in needs.buffers if b not in stored]
        parts = []
        if stored:
            parts.append(f"writes {', '.join(map(_shown, stored))}")
        if kernel.totals:
            parts.append(f"totals {', '.join(f'{_shown(t.buffer)} ({MEANINGS[t.op]})' for t in kernel.totals)}")
        extent = str(kernel.extent.dim) if isinstance(kernel.extent, Extent) else \
            str(kernel.extent.value) if isinstance(kernel.extent, Const) else f"{kernel.index}_count"
        source = f" from {', '.join(map(_shown, loaded))}" if loaded else ""
        over = "once" if is_once(kernel) else f"over {kernel.index} < {extent}"
        return f"{self.function}: {over}, {' and '.join(parts) or 'checks'}{source}"

    def function_text(self, name: str, summary: str) -> Function:
        body = "\n".join(self.lines)
        head = "__device__ inline void" if self.inside else f'extern "C" __global__ void __launch_bounds__({LANES})'
        return Function(name, tuple(self.parameters), function_text(head, name, self.parameters, summary, body))


def function_text(head: str, name: str, parameters: Sequence[Parameter], summary: str, body: str) -> str:
    comment = _wrapped(summary.split(" "), " ", "// ", "//     ")
    head = f"{head} {name}("
    inside = ", ".join(p.declaration for p in parameters)
    if len(head) + len(inside) + 3 > WIDTH:
        inside = "\n" + _wrapped([p.declaration for p in parameters], ", ", "    ", "    ")
    return f"{comment}\n{head}{inside}) {{\n{body}\n}}\n"


def _shown(b: Buffer) -> str:
    return f"{b.name}[{', '.join(map(str, b.shape))}]" if b.rank else b.name


def _wrapped(words: Sequence[str], joint: str, first: str, later: str) -> str:
    lines = [first + words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(joint) + len(word) > WIDTH:
            lines[-1] += joint.rstrip()
            lines.append(later + word)
        else:
            lines[-1] += joint + word
    return "\n".join(lines)

