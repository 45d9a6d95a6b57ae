"""A program as a module of LLVM IR.

In: a `Program`.  Out: the text of a module with one function to call, `answer lr_run(frame)`.

    answer   ::=  0 done | 1 a fault was met | 2 nothing was done: the workspace is smaller than `bytes needed`
"""
from __future__ import annotations

from dsl.backends.llvm.frame import CAPACITY, FIRST, NEEDED, THREADS, WORKSPACE
from dsl.backends.llvm.function import BYTES, STORED, TYPES, WHOLE_LOOPS, Function, Held, Module
from dsl.backends.llvm.kernels import on_stack, padded, private_buffers
from dsl.backends.llvm.meter import Meter
from dsl.backends.llvm.plan import storages
from dsl.backends.llvm.runtime import HELPERS
from dsl.backends.llvm.statements import block
from dsl.loops.ir import FAULT, Kernel, Program, size_names, statements
from dsl.machine.expr import Buffer

ENTRY = "lr_run"
MOST_SCOPES = 64                        # of which each names all others


def module_text(program: Program, wide: bool, meter: Meter | None = None) -> str:
    """`wide`: the processor has 512-bit vectors, and they shall be used.  `meter` counts what the program does."""
    module = Module(program, meter)
    main = Main(module)
    text = main.print_all()
    helpers = [HELPERS[name] for name in HELPERS if name in module.helpers]
    width = ' "prefer-vector-width"="512"' if wide else ""
    return "\n".join([*helpers, *module.functions, text, f"attributes #0 = {{ nounwind{width} }}", *main.metadata()])


class Main(Function):
    """The function of the program itself."""

    def __init__(self, module: Module) -> None:
        super().__init__(module)
        self.domain: dict[Buffer, int] = {}                     # roots of buffers that may name one memory, numbered

    def field(self, position: int, type_: str) -> str:
        address = self.emit_entry(f"getelementptr inbounds i64, ptr %frame, i64 {position}")
        return self.emit_entry(f"load {type_}, ptr {address}")

    def print_all(self) -> str:
        program = self.module.program
        position = FIRST
        given: dict[Buffer, str] = {}
        for b in program.passed:
            given[b] = self.field(position, "ptr")
            position += 1
        for s in program.scalars:
            value = self.field(position, STORED[s.dtype])
            self.entry_names[s.name] = Held("value", self.emit_entry(f"icmp ne i8 {value}, 0") if s.dtype == "bool" else value)
            position += 1
        for name in size_names(program):
            self.entry_sizes[name] = self.field(position, "i64")
            position += 1
        planned = storages(program)
        for storage in planned:
            for b in storage[1:]:
                self.module.join(b, storage[0])
        self._plan(planned)
        self._place(given)
        self.mark = self.slot("i1", FAULT.name)
        self.do(f"store i1 false, ptr {self.mark}")
        self.entry_names[FAULT.name] = Held("slot", self.mark)
        block(self, program.body)
        self._restore(given)
        raised = self.read(self.entry_names[FAULT.name], "bool")
        self.do(f"ret i64 {self.emit(f'zext i1 {raised} to i64')}")
        return self.text(f"define i64 @{ENTRY}(ptr %frame) #0")

    # ------------------------------------------------------------ the workspace
    def _plan(self, planned: list[list[Buffer]]) -> None:
        """Places the scratch arrays, and asks for more room where there is too little."""
        kernels = [s for s in statements(self.module.program.body) if isinstance(s, Kernel)]
        regions = [[b for b in private_buffers(k) if b.rank and on_stack(b) is None] for k in kernels]
        if not planned and not any(regions):
            return
        base, offset = self.field(WORKSPACE, "ptr"), "0"
        for storage in planned:
            pointer = self.emit_entry(f"getelementptr inbounds i8, ptr {base}, i64 {offset}", storage[0].name)
            for b in storage:
                self.entry_places[b] = Held("memory", pointer)
            offset = self.emit_entry(f"add i64 {offset}, {padded(self, storage[0])}")
        if any(regions):
            stride = "0"
            for region in filter(None, regions):
                total = "0"
                for b in region:
                    total = self.emit_entry(f"add i64 {total}, {padded(self, b)}")
                stride = self.emit_entry(f"call i64 @llvm.smax.i64(i64 {stride}, i64 {total})")
            self.private_region = self.emit_entry(f"getelementptr inbounds i8, ptr {base}, i64 {offset}", "private"), stride
            threads = self.field(THREADS, "i64")
            offset = self.emit_entry(f"add i64 {offset}, {self.emit_entry(f'mul i64 {stride}, {threads}')}")
        enough, short = self.label("enough"), self.label("short")
        self.branch(self.emit(f"icmp sle i64 {offset}, {self.field(CAPACITY, 'i64')}"), enough, short)
        self.begin(short)
        self.do(f"store i64 {offset}, ptr {self.word('%frame', NEEDED)}")
        self.do("ret i64 2")
        self.begin(enough)

    # ------------------------------------------------------------ arrays and variables
    def _place(self, given: dict[Buffer, str]) -> None:
        for b in self.module.program.buffers:
            if b.rank == 0:
                self.entry_places[b] = Held("slot", self.slot(TYPES[b.dtype], b.name))
                if b in given:
                    self.write(self.entry_places[b], b.dtype, self.load(given[b], b.dtype))
                continue
            if b in given:
                self.entry_places[b] = Held("memory", given[b])
            if b in self.module.swapped and b in self.entry_places:
                moving = Held("moving", self.slot("ptr", b.name))
                self.do(f"store ptr {self.entry_places[b].operand}, ptr {moving.operand}")
                self.entry_places[b] = moving

    def _restore(self, given: dict[Buffer, str]) -> None:
        """Variables go back to their arrays; swapped arrays get their contents where the caller looks for them."""
        for b, original in given.items():
            if b.rank == 0 and b.role != "input":
                self.store(original, b.dtype, self.read(self.entry_places[b], b.dtype))
        for b, original in given.items():
            if b.rank == 0 or b not in self.module.swapped:
                continue
            self.module.helpers.add("exchange")
            current = self.pointer(b)
            moved, after = self.label("moved"), self.label("settled")
            self.branch(self.emit(f"icmp ne ptr {current}, {original}"), moved, after)
            self.begin(moved)
            size = self.emit(f"mul i64 {self.count(b)}, {BYTES[b.dtype]}")
            self.do(f"call void @lr.exchange(ptr {current}, ptr {original}, i64 {size})")
            for other in self.module.program.buffers:
                if other in self.module.swapped and self.module.root(other) is self.module.root(b) and other in self.entry_places:
                    theirs = self.pointer(other)
                    taken = self.emit(f"icmp eq ptr {theirs}, {original}")
                    left = self.emit(f"select i1 {taken}, ptr {current}, ptr {theirs}")
                    self.do(f"store ptr {left}, ptr {self.entry_places[other].operand}")
            self.do(f"store ptr {original}, ptr {self.entry_places[b].operand}")
            self.jump(after)
            self.begin(after)

    # ------------------------------------------------------------ what cannot overlap
    def tag(self, buffer: Buffer | None) -> str:
        if buffer is None:
            return ""
        root = self.module.root(buffer)
        if root not in self.domain and len(self.domain) == MOST_SCOPES:
            return ""
        number = self.domain.setdefault(root, len(self.domain))
        return f", !alias.scope !{3 * number + 1}, !noalias !{3 * number + 2}"

    def metadata(self) -> list[str]:
        """Number n: !3n its scope, !3n+1 the list of that, !3n+2 the list of all others; then the domain."""
        domain = 3 * len(self.domain)
        lines = [f"!{domain} = distinct !{{!{domain}}}"] if self.domain else []
        for n in self.domain.values():
            others = ", ".join(f"!{3 * m}" for m in self.domain.values() if m != n)
            lines += [f"!{3 * n} = distinct !{{!{3 * n}, !{domain}}}", f"!{3 * n + 1} = !{{!{3 * n}}}", f"!{3 * n + 2} = !{{{others}}}"]
        lines.append(f'!{WHOLE_LOOPS} = !{{!"llvm.loop.unroll.disable"}}')
        loops = range(WHOLE_LOOPS + 1, WHOLE_LOOPS + 1 + self.module.whole_loops)
        return lines + [f"!{n} = distinct !{{!{n}, !{WHOLE_LOOPS}}}" for n in loops]
