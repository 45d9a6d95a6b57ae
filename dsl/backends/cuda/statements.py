"""Statements of kernels to C.

In: statements.  Out: lines.  A block is printed in stretches within which nothing changes that an expression reads; within
one, what is used twice is named once (`expressions.py`).
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from dsl.backends.cuda.expressions import Expressions, Pointer, count_uses
from dsl.backends.cuda.prelude import runs_function, runs_helper, warp_function, warp_helper
from dsl.backends.cuda.spelling import C_TYPES, SUM, UNARY, Text, infix, product
from dsl.ir.types import DType
from dsl.loops.ir import (
    Assign,
    Bind,
    Block,
    Combine,
    Flag,
    If,
    Leave,
    Let,
    Local,
    Loop,
    Stmt,
    Store,
    While,
    Window,
    blocks,
    expressions,
)
from dsl.machine.expr import BITS, Buffer, Const, Expr, Extent, Load, Ref, walk
from dsl.machine.instructions import TABLE, kind

WIDTH = 118
COMBINED = {("add", "float"): "+=", ("mul", "float"): "*=", ("and", "int"): "&=", ("or", "int"): "|="}


class Statements(Expressions):
    """Prints statements; `written` are the arrays that they write, `changing` what changes in them, `of` whose memory windows are."""

    def __init__(self, written: set[Buffer], changing: set[object], of: dict[Buffer, Buffer]) -> None:
        super().__init__()
        self.written, self.changing, self.of = written, changing, of
        self.labels = 0
        self.combining: dict[str, str] = {}                      # the functions that combine values, by name
        self.leaving: list[str] = []

    def root(self, buffer: Buffer) -> Buffer:
        return self.of.get(buffer, buffer)

    # ------------------------------------------------------------ what combines values
    def over_warp(self, op: str, dtype: DType) -> str:
        """The function that combines a value over the lanes of a warp."""
        name = warp_helper(op, dtype)
        self.combining[name] = warp_function(op, dtype, lambda place, value: combination(place, op, dtype, value))
        return name

    def over_runs(self, op: str, dtype: DType) -> str:
        """The function that combines the runs of a total."""
        self.over_warp(op, dtype)
        name = runs_helper(op, dtype)
        self.combining[name] = runs_function(op, dtype, lambda place, value: combination(place, op, dtype, value))
        return name

    # ------------------------------------------------------------ blocks
    def close(self) -> None:
        self.pop()
        self.depth -= 1
        self.line("}")

    def guarded(self, condition: str, body: Sequence[str]) -> None:
        if len(body) == 1:
            self.line(f"if ({condition}) {body[0]}")
            return
        self.line(f"if ({condition}) {{")
        self.depth += 1
        for text in body:
            self.line(text)
        self.depth -= 1
        self.line("}")

    def nested(self, opening: str, s: If | While, body: Block, bind: Callable[[], None] | None = None) -> None:
        self.line(opening)
        self.depth += 1
        self.push()
        if bind is not None:
            bind()
        self.block(body)
        self.after_turn(s)
        self.close()

    def after_turn(self, s: Stmt) -> None:
        """What stands at the end of a loop's body besides."""

    def block(self, body: Block) -> None:
        """Statements, in stretches within which nothing changes that an expression reads."""
        start = 0
        for end, s in enumerate(body, 1):
            if end == len(body) or self.changes(s):
                stretch = body[start:end]
                self.uses.append(count_uses(e for s in stretch for e in self.counted(s)))
                for s in stretch:
                    self.statement(s)
                self.uses.pop()
                start = end

    def changes(self, s: Stmt) -> frozenset[object]:
        """What a statement changes of what is read in its sight, those inside it too."""
        match s:
            case Assign(name=name) | Combine(target=Ref(name=name)) | Let(name=name) | Local(name=name):
                own: tuple[object, ...] = (name,)
            case Loop(index=name):
                own = (name,)
            case Store(buffer=b) | Combine(target=Load(buffer=b)):
                own = (self.root(b),)
            case Bind(size=size):
                own = (f"size {size}",)
            case _:
                own = ()
        return frozenset(self.changing.intersection(own)).union(*(self.changes(i) for b in blocks(s) for i in b))

    def counted(self, s: Stmt) -> Iterator[Expr]:
        """The expressions of a statement, and of those in it unless they change something."""
        if not isinstance(s, While):
            yield from expressions(s)
        if not (blocks(s) and self.changes(s)):
            for inner in (i for b in blocks(s) for i in b):
                yield from self.counted(inner)

    # ------------------------------------------------------------ statements
    def statement(self, s: Stmt) -> None:
        if isinstance(s, Loop | While):
            self.forget(self.changes(s))                         # the second turn sees what the first has changed
        match s:
            case Let(name, value):
                text, = self.texts([value], own=value)
                known = self.known(value)
                c_name = self.bind(name, self.bits(value))
                self.line(f"const {C_TYPES[value.dtype]} {c_name} = {text.text};")
                if known is None and self.worth_a_name(value):
                    self.scopes[-1].known[value] = c_name
            case Local(name, dtype, start):
                text, = self.texts([start])
                self.line(f"{C_TYPES[dtype]} {self.bind(name, BITS[dtype])} = {text.text};")
            case Assign(name, value):
                text, = self.texts([value])
                self.line(f"{self.name(Ref(name, value.dtype)).text} = {text.text};")
            case Combine() | Store():
                self.line(self.change(s))
            case Loop():
                self.loop(s)
            case While():
                self.loop_while(s)
            case If(condition=condition, body=body, orelse=orelse):
                text, = self.texts([condition])
                self.nested(f"if ({text.text}) {{", s, body)
                if orelse:
                    self.lines.pop()
                    self.nested("} else {", s, orelse)
            case Flag(condition):
                text, = self.texts([condition])
                self.line(f"if ({text.text}) *fault = true;")
            case Leave(condition):
                text, = self.texts([condition])
                self.line(f"if ({text.text}) {self.leave()};")
            case Window(buffer, base, start):
                text, = self.texts([start])
                self.window(buffer, base, text)
            case Bind(size, value):
                text, = self.texts([value])
                self.forget({f"size {size}"})
                name = self.fresh(size)
                self.line(f"const long long {name} = {text.text};")
                self.scopes[-1].sizes[size] = name
            case _:
                raise AssertionError(f"no statement of a kernel: {s!r}")
        self.forget(self.changes(s))

    def change(self, s: Combine | Store) -> str:
        """What a statement does to a variable or an element."""
        match s:
            case Combine(target, op, value):
                index = target.index if isinstance(target, Load) else ()
                *places, text = self.texts([*index, value])
                place = self.name(target).text if isinstance(target, Ref) else self.element(target.buffer, target.index, places)
                return combination(place, op, value.dtype, text)
            case Store(buffer, index, value):
                *places, text = self.texts([*index, value])
                return f"{self.element(buffer, index, places)} = {text.text};"

    def turns(self, s: Loop) -> Text:
        """How many turns a loop has, named unless it is a plain name."""
        if isinstance(s.extent, Const | Extent | Ref) and not self.depends(s.extent) & self.changes(s):
            return self.texts([s.extent], inline=True)[0]
        text, = self.texts([s.extent])
        if self.known(s.extent) is None:
            count = self.fresh(f"{s.index}_count")
            self.line(f"const long long {count} = {text.text};")
            text = Text(count)
        return text

    def loop(self, s: Loop) -> None:
        text = self.turns(s)
        self.push()
        c_name = self.bind(s.index, self.index_bits(s.extent))
        self.leaving.append("loop")
        self.line(f"for (long long {c_name} = 0; {c_name} < {text.at(SUM)}; ++{c_name}) {{")
        self.depth += 1
        self.block(s.body)
        self.after_turn(s)
        self.close()
        self.leaving.pop()

    def loop_while(self, s: While) -> None:
        """The condition is computed anew before each turn; if it needs names, inside the loop."""
        condition, body = s.condition, s.body
        text, = self.texts([condition], inline=True)
        uses = count_uses([condition])
        self.leaving.append("while")
        if len(text.text) <= WIDTH - 40 and not any(uses[e] > 1 and self.worth_a_name(e) for e in walk([condition])):
            self.nested(f"while ({text.text}) {{", s, body)
        else:
            def tested() -> None:
                self.uses.append(uses)
                text, = self.texts([condition])
                self.uses.pop()
                self.line(f"if (!{text.at(UNARY)}) break;")
            self.nested("for (;;) {", s, body, tested)
        label = self.leaving.pop()
        if label != "while":
            self.line(f"{label}:;")

    def leave(self) -> str:
        """Out of the innermost `while`: `break`, or a jump if a `for` is between."""
        if self.leaving[-1] == "while":
            return "break"
        around = max(i for i, what in enumerate(self.leaving) if what != "loop")
        if around == len(self.leaving) - 1:                      # a label is there already, but `break` says it
            return "break"
        if self.leaving[around] == "while":
            self.labels += 1
            self.leaving[around] = f"left_{self.labels}"
        return f"goto {self.leaving[around]}"

    def window(self, b: Buffer, base: Buffer, start: Text) -> None:
        pointer, root = self.pointer(base), self.root(base)
        place = product([start, *(d for d in map(self.dim, base.shape[1:]) if d.text != "1")])
        if pointer.stride:
            place = infix("*", place, Text(pointer.stride))
        name = self.fresh(b.name)
        words = f"{'' if root in self.written or root.role == 'private' else 'const '}{C_TYPES[b.dtype]}*"
        self.line(f"{words} {name} = {infix('+', Text(pointer.name), place).text};")
        self.scopes[-1].pointers[b] = Pointer(name, pointer.stride, pointer.offset)


def gathered(lines: Sequence[str], condition: str) -> list[str]:
    """Statements that follow each other under one condition stand under it together."""
    made: list[str] = []
    for line in lines:
        inner = line.lstrip()
        before = line[:len(line) - len(inner)]
        opening, done = f"{before}{condition.rstrip()} {{", f"{before}    {inner.removeprefix(condition)}"
        if not made or not inner.startswith(condition) or inner.endswith("{"):
            made.append(line)
        elif made[-1].startswith(before + condition):
            first = made.pop().removeprefix(before + condition)
            made += [opening, f"{before}    {first}", done, f"{before}}}"]
        elif made[-1] == f"{before}}}" and _opening(made) == opening:
            made.insert(-1, done)
        else:
            made.append(line)
    return made


def _opening(lines: Sequence[str]) -> str:
    """The line that the block which the last line closes begins with."""
    depth = len(lines[-1]) - len(lines[-1].lstrip())
    return next((line for line in reversed(lines[:-1]) if len(line) - len(line.lstrip()) <= depth), "")


def combination(place: str, op: str, dtype: DType, value: Text) -> str:
    """place = op(place, value);"""
    if symbol := COMBINED.get((op, kind(dtype))):
        return f"{place} {symbol} {value.text};"
    spelling = TABLE[op].cuda[kind(dtype)]
    if "(" not in spelling:
        return f"{place} = {infix(spelling.split()[1], Text(place), value).text};"
    suffix = "LL" if dtype == "int64" and value.text.lstrip("-").isdigit() else ""
    return f"{place} = {spelling.format(place, value.text + suffix)};"
