"""Loop programs as Python source, for the interpreter.

In: a verified `Program`.  Out: `Code`: a function for its body and one for each kernel, one line an instruction, over NumPy
scalars of the exact dtypes.  An instruction that Python has an operator for is written with it, the others call
`scalar_python.py` or the `numpy` column of the instruction table.

    def main(run):                               def kernel(run, scope, first, last):
      n = run.sizes['n']                           b0 = scope.views[B0]
      t0 = i64(n)                                  for v0 in indices(first, last):
      run.run_kernel(K0, Scope(…))                   t0 = run.read(b0, (v0,), NOTE0, v0)

`bN` is a buffer's `View`, `aN` its array, `vN` a value, `tN` an instruction's result, `sN` a size, `CN` a literal.  Checked code
goes through `run.read` and `run.write`, unchecked code indexes the arrays.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dsl.ir.types import Dim, DType, Size, is_float
from dsl.loops import scalar_python
from dsl.loops.ir import (
    FAULT,
    Assign,
    Bind,
    Block,
    Combine,
    Flag,
    If,
    Kernel,
    Leave,
    Let,
    Local,
    Loop,
    Product,
    Program,
    Stmt,
    Store,
    Swap,
    While,
    Window,
    blocks,
    buffers_of,
    expressions,
    size_names,
    statements,
)
from dsl.loops.text import statement_text
from dsl.machine.expr import BITS, Apply, Buffer, Const, Expr, Extent, Load, Ref, walk
from dsl.machine.instructions import TABLE

NUMPY: dict[DType, type[np.generic]] = {
    "bool": np.bool_, "int32": np.int32, "int64": np.int64, "float32": np.float32, "float64": np.float64,
}
OPERATORS = {
    "add": "{} + {}", "sub": "{} - {}", "mul": "{} * {}", "div": "{} / {}", "neg": "-{}", "and": "{} & {}", "or": "{} | {}",
    "xor": "{} ^ {}", "not": "~{}", "shl": "{} << {}", "ashr": "{} >> {}", "eq": "{} == {}", "ne": "{} != {}", "lt": "{} < {}",
    "le": "{} <= {}", "gt": "{} > {}", "ge": "{} >= {}",
}
CALLS = {"select": "choose", "minimum": "low", "maximum": "high"}


@dataclass(frozen=True)
class Code:
    """A program as Python: `main(run)`, and for each kernel `(run, scope, first, last)`."""

    main: Callable[[Any], None]
    kernels: dict[Kernel, Callable[[Any, Any, int, int], None]]
    source: str


@dataclass(frozen=True)
class _Scope:
    """The Python names of what is in scope; `iteration` is that of the kernel around, `left` the flag that ends the `While`
    around from inside a `Loop`."""

    values: dict[str, str]
    sizes: dict[str, str]
    buffers: dict[Buffer, str]
    totals: frozenset[Buffer] = frozenset()
    iteration: str = "None"
    left: str = ""
    looped: bool = False


def python_code(program: Program, checked: bool, scope_class: type) -> Code:
    """The program as Python; `scope_class` is what a kernel's surroundings are handed over in."""
    return _Writer(program, checked, scope_class).code()


@dataclass
class _Writer:
    program: Program
    checked: bool
    scope_class: type
    space: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    pending: list[tuple[str, Kernel, _Scope]] = field(default_factory=list)
    known: dict[Any, str] = field(default_factory=dict)
    count: int = 0

    def code(self) -> Code:
        self.space.update(vars(scalar_python), i64=np.int64, Scope=self.scope_class)
        program = self.program
        self.lines.append("def main(run):")
        sizes = self.prologue(size_names(program), "run.sizes[{!r}]", "s")
        values = self.prologue([r.name for r in program.scalars], "run.scalars[{!r}]", "v")
        buffers = self.views(program.buffers, "run")
        self.block(program.body, _Scope(values, sizes, buffers), 1)
        kernels: dict[Kernel, str] = {}
        for name, kernel, scope in self.pending:                    # kernels do not nest: the list does not grow here
            kernels[kernel] = name
            self.kernel(name, kernel, scope)
        source = "\n".join(self.lines) + "\n"
        exec(compile(source, f"<{program.name}>", "exec"), self.space)
        return Code(self.space["main"], {k: self.space[name] for k, name in kernels.items()}, source)

    # ------------------------------------------------------------ names
    def new(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def given(self, letter: str, value: Any, key: Any = None) -> str:
        """The global name of an object."""
        key = letter, value if key is None else key
        if key not in self.known:
            name = self.known[key] = f"{letter}{len(self.known)}"
            self.space[name] = value
        return self.known[key]

    def note(self, s: Stmt) -> str:
        return self.given("NOTE", statement_text(s), s)

    def line(self, depth: int, text: str) -> None:
        self.lines.append("  " * depth + text)

    def prologue(self, names: Sequence[str], source: str, letter: str) -> dict[str, str]:
        python = {name: self.new(letter) for name in names}
        for name, short in python.items():
            self.line(1, f"{short} = {source.format(name)}")
        return python

    def views(self, buffers: Sequence[Buffer], owner: str) -> dict[Buffer, str]:
        return {b: self.view(1, f"{owner}.views[{self.given('B', b)}]") for b in buffers}

    def view(self, depth: int, value: str) -> str:
        number = self.new("")
        self.line(depth, f"b{number} = {value}")
        if not self.checked:
            self.line(depth, f"a{number} = b{number}.array")
        return number

    # ------------------------------------------------------------ expressions
    def dim(self, dim: Dim, sizes: dict[str, str]) -> str:
        def atom(a: Any) -> str:
            if isinstance(a, Size):
                return sizes.get(a.name) or str(a.value)
            return f"{a.kind}({self.dim(a.left, sizes)}, {self.dim(a.right, sizes)})"
        return " + ".join("*".join([str(c), *map(atom, m)]) if c != 1 or not m else "*".join(map(atom, m)) for m, c in dim.terms) or "0"

    def shape(self, buffer: Buffer, sizes: dict[str, str]) -> str:
        return f"({''.join(self.dim(d, sizes) + ', ' for d in buffer.shape)})"

    def evaluate(self, roots: Sequence[Expr], scope: _Scope, depth: int, s: Stmt) -> list[str]:
        """Lines that compute the expressions; returns what stands for each."""
        names: dict[Expr, str] = {}
        for e in walk(roots):
            match e:
                case Const(value=literal, dtype=dtype):
                    names[e] = self.given("C", NUMPY[dtype](literal), e)
                    continue
                case Ref(name=name):
                    names[e] = "run.flagged" if e is FAULT else scope.values[name]
                    continue
                case Extent(dim=dim):
                    value = f"i64({self.dim(dim, scope.sizes)})"
                case Load(buffer=buffer, index=index):
                    value = self.element(buffer, [names[i] for i in index], scope, s)
                case Apply(op=op, args=args, dtype=dtype):
                    value = self.instruction(op, [names[a] for a in args], args[0].dtype, dtype, s)
                case _:
                    raise AssertionError(f"not an expression: {e!r}")
            names[e] = self.new("t")
            self.line(depth, f"{names[e]} = {value}")
        return [names[r] for r in roots]

    def element(self, buffer: Buffer, index: Sequence[str], scope: _Scope, s: Stmt) -> str:
        places, number = f"({''.join(i + ', ' for i in index)})", scope.buffers[buffer]
        if self.checked:
            return f"run.read(b{number}, {places}, {self.note(s)}, {self.iteration(buffer, scope)})"
        return f"a{number}[{places}]"

    def iteration(self, buffer: Buffer, scope: _Scope) -> str:
        """Whose access to the buffer it is, for what may meet another iteration's."""
        return "None" if buffer.role == "private" or buffer in scope.totals else scope.iteration

    def instruction(self, op: str, args: Sequence[str], source: DType, result: DType, s: Stmt) -> str:
        """An instruction; checked, it also refuses operands outside its domain."""
        if self.checked and (op in ("idiv", "irem", "shl", "ashr", "lshr")):
            return f"safe({self.given('F', TABLE[op].numpy)}, {op!r}, {BITS[source]}, {', '.join(args)}, {self.note(s)})"
        if op in OPERATORS:
            return OPERATORS[op].format(*args)
        match op:
            case "select" | "minimum" | "maximum":
                return f"{CALLS[op]}({', '.join(args)})"
            case "fma":
                return f"{'fma32' if result == 'float32' else 'fma64'}({', '.join(args)})"
            case "to" if self.checked and is_float(source) and not is_float(result):
                return f"convert({args[0]}, {self.given('T', NUMPY[result])}, {self.note(s)})"
            case "to":
                return f"{args[0]}.astype({self.given('T', NUMPY[result])})"
            case "bits":
                return f"{args[0]}.view({self.given('T', NUMPY[result])})"
            case _:
                return f"{self.given('F', TABLE[op].numpy)}({', '.join(args)})"

    # ------------------------------------------------------------ statements
    def block(self, body: Block, scope: _Scope, depth: int) -> None:
        if not body:
            self.line(depth, "pass")
        for position, s in enumerate(body):
            scope = self.statement(s, scope, depth, body[position + 1:])

    def statement(self, s: Stmt, scope: _Scope, depth: int, rest: Block) -> _Scope:
        """Lines for a statement; returns what is in scope after it."""
        if isinstance(s, While):
            return self.loop_while(s, scope, depth)
        e = self.evaluate(expressions(s), scope, depth, s)
        match s:
            case Let(name=name) | Local(name=name):
                value = self.new("v")
                self.line(depth, f"{value} = {e[0]}")
                return replace(scope, values={**scope.values, name: value})
            case Assign(name=name):
                self.line(depth, f"{scope.values[name]} = {e[0]}")
            case Combine(Ref(name=name) as target, op):
                value = scope.values[name]
                self.line(depth, f"{value} = {self.instruction(op, (value, e[0]), target.dtype, target.dtype, s)}")
            case Combine(Load(buffer=buffer) as target, op):
                old = self.new("t")
                self.line(depth, f"{old} = {self.element(buffer, e[:-1], scope, s)}")
                self.store(buffer, e[:-1], self.instruction(op, (old, e[-1]), target.dtype, target.dtype, s), scope, depth, s)
            case Store(buffer=buffer):
                self.store(buffer, e[:-1], e[-1], scope, depth, s)
            case Loop(index=index, body=body):
                value = self.new("v")
                self.line(depth, f"for {value} in indices(0, {e[0]}):")
                self.block(body, replace(scope, values={**scope.values, index: value}, looped=True), depth + 1)
                if any(_leaving(body)):
                    self.line(depth, f"if {scope.left}: break")
            case If(body=body, orelse=orelse):
                self.line(depth, f"if {e[0]}:")
                self.block(body, scope, depth + 1)
                if orelse:
                    self.line(depth, "else:")
                    self.block(orelse, scope, depth + 1)
            case Kernel():
                name = f"kernel{len(self.pending)}"
                self.pending.append((name, s, scope))
                units = ", ".join(f"{self.given('B', t.buffer)}: {unit}" for t, unit in zip(s.totals, e[1:], strict=True))
                self.line(depth, f"run.run_kernel({self.given('K', s)}, {self.surroundings(scope, f'int({e[0]}), {{{units}}}')})")
            case Product():
                self.line(depth, f"run.run_product({self.given('P', s)}, {self.surroundings(scope, '0, {}')})")
            case Window(buffer=buffer, base=base):
                shape = self.shape(buffer, scope.sizes)
                view = f"run.window(b{scope.buffers[base]}, {self.given('B', buffer)}, {e[0]}, {shape}, {self.note(s)})"
                return replace(scope, buffers={**scope.buffers, buffer: self.view(depth, view)})
            case Bind(size=size):
                return self.bind(size, e[0], scope, depth, rest, s)
            case Swap(a=a, b=b):
                self.line(depth, f"run.swap(b{scope.buffers[a]}, b{scope.buffers[b]})")
            case Flag():
                self.line(depth, f"if {e[0]}: run.flagged = True")
            case Leave() if scope.looped:
                self.line(depth, f"if {e[0]}:")
                self.line(depth + 1, f"{scope.left} = True")
                self.line(depth + 1, "break")
            case Leave():
                self.line(depth, f"if {e[0]}: break")
        return scope

    def store(self, buffer: Buffer, index: Sequence[str], value: str, scope: _Scope, depth: int, s: Stmt) -> None:
        places, number = f"({''.join(i + ', ' for i in index)})", scope.buffers[buffer]
        if self.checked:
            self.line(depth, f"run.write(b{number}, {places}, {value}, {self.note(s)}, {self.iteration(buffer, scope)})")
        else:
            self.line(depth, f"a{number}[{places}] = {value}")

    def loop_while(self, s: While, scope: _Scope, depth: int) -> _Scope:
        inner = replace(scope, left=self.new("left"), looped=False)
        self.line(depth, f"{inner.left} = False")
        self.line(depth, "while True:")
        condition, = self.evaluate((s.condition,), scope, depth + 1, s)
        self.line(depth + 1, f"if not {condition}: break")
        self.block(s.body, inner, depth + 1)
        return scope

    def bind(self, size: str, value: str, scope: _Scope, depth: int, rest: Block, s: Bind) -> _Scope:
        """A size gets a value.  Buffers whose shape holds it and that are used from here on keep their memory and change their shape."""
        name = self.new("s")
        self.line(depth, f"{name} = int({value})")
        sizes, buffers = {**scope.sizes, size: name}, dict(scope.buffers)
        for b in buffers_of(rest):
            if b in buffers and any(v.name == size for d in b.shape for v in d.sizes()):
                buffers[b] = self.view(depth, f"run.reshaped(b{buffers[b]}, {self.shape(b, sizes)}, {self.note(s)})")
        return replace(scope, sizes=sizes, buffers=buffers)

    def surroundings(self, scope: _Scope, more: str) -> str:
        def table(items: dict[str, str]) -> str:
            return f"{{{', '.join(f'{k}: {v}' for k, v in items.items())}}}"
        views = {self.given("B", b): f"b{number}" for b, number in scope.buffers.items()}
        return f"Scope({table({repr(k): v for k, v in scope.values.items()})}, {table({repr(k): v for k, v in scope.sizes.items()})}, " \
               f"{table(views)}, {more})"

    def kernel(self, name: str, kernel: Kernel, outer: _Scope) -> None:
        """The function that runs the iterations from `first` to before `last`, adding up into the totals' buffers."""
        used = {e.name for s in statements(kernel.body) for e in walk(expressions(s)) if isinstance(e, Ref)} \
            | {s.target.name for s in statements(kernel.body) if isinstance(s, Combine) and isinstance(s.target, Ref)}
        met = buffers_of(kernel.body)
        self.lines.append(f"def {name}(run, scope, first, last):")
        sizes = self.prologue(list(outer.sizes), "scope.sizes[{!r}]", "s")
        values = self.prologue([v for v in outer.values if v in used], "scope.values[{!r}]", "v")
        buffers = self.views([b for b in met if b in outer.buffers], "scope")
        private = [b for b in met if b.role == "private"]
        for b in private:
            buffers[b] = self.view(1, f"run.private({self.given('B', b)}, {self.shape(b, sizes)})")
        index = self.new("v")
        self.line(1, f"for {index} in indices(first, last):")
        if self.checked:
            for b in private:
                self.line(2, f"run.poison(b{buffers[b]})")
        totals = frozenset(t.buffer for t in kernel.totals)
        self.block(kernel.body, _Scope({**values, kernel.index: index}, sizes, buffers, totals, index), 2)


def _leaving(body: Block) -> Iterator[Leave]:
    """The `Leave`s that end a `While` outside `body`."""
    for s in body:
        if isinstance(s, Leave):
            yield s
        elif not isinstance(s, While):
            for inner in blocks(s):
                yield from _leaving(inner)
