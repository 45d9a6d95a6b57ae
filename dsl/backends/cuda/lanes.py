"""Iterations that lanes share, and neighbours that move together.

In: the statements of an iteration.  Out: lines.  In the form `warps` all lanes of a warp do what stands outside of shared loops, with
the same values; lane 0 alone stores and adds to totals there.  A shared loop's turns are dealt out to the lanes; what it adds up
is combined when it ends, so that all lanes have it.  Arrays that the warp writes and reads are exchanged at `__syncwarp`.

    for j < d: s += x[j]       becomes       float s_lane = 0.0f;
                                             for (long long j = lane; j < d; j += 32) s_lane += x[j];
                                             s += lr_warp_add_float32(s_lane);

Strided loops over neighbouring elements take them in groups of four (`lr_load4`, `lr_store4`): 16 bytes of float32 at a time.
"""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise, takewhile

from dsl.backends.cuda.expressions import Name, Pointer
from dsl.backends.cuda.parameters import Needs
from dsl.backends.cuda.runs import WARP
from dsl.backends.cuda.spelling import C_TYPES, PRODUCT, Text, linear, literal
from dsl.backends.cuda.split import form_of, moving
from dsl.backends.cuda.statements import Statements, combination, gathered
from dsl.ir.types import DType
from dsl.ir.types import product as elements
from dsl.loops.ir import Block, Combine, If, Kernel, Let, Local, Loop, Stmt, Store, While, Window, blocks, expressions, statements
from dsl.machine.expr import BITS, Apply, Buffer, Const, Expr, Load, Ref, load, ref, walk
from dsl.machine.expr import replace as substituted

LARGEST_FOUR = 300               # operations of a body that is printed for groups of four as well
FEW = 512                        # turns that are known to be fewer are not grouped
MOST_KEPT = 256                  # elements of a total that the lanes of a warp keep in registers
UNITS = {"add": 0, "mul": 1, "and": True, "or": False}


def unit_of(op: str, dtype: DType) -> Text:
    """What combining with changes nothing."""
    if op in UNITS:
        return literal(UNITS[op], dtype)
    if dtype in ("float32", "float64"):
        return literal(float("inf" if op == "minimum" else "-inf"), dtype)
    half = 1 << (BITS[dtype] - 1)
    return literal(half - 1 if op == "minimum" else -half, dtype, suffixed=True)


PLACES = {
    "const int lane = threadIdx.x % 32;": ("lane",),
    "const long long warp = thread / 32, warps = threads / 32;": ("warp", "warps"),
    "const long long threads = (long long)gridDim.x * blockDim.x;": ("threads",),
    "const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;": ("thread",),
}


class Lanes(Statements):
    """Prints the statements of an iteration that a thread or a warp makes."""

    def __init__(self, kernel: Kernel, of: dict[Buffer, Buffer], own: Sequence[Buffer]) -> None:
        needs = Needs(kernel, of, own)
        super().__init__(needs.written, needs.changing, of)
        self.kernel, self.needs = kernel, needs
        self.form, self.shares = form_of(kernel, of)
        self.sharing = False                                     # whether what is printed stands in a shared loop
        self.seldom = False                                      # whether it stands under a condition that hardly ever holds
        self.four_stores: dict[Stmt, str] = {}
        self.indices: list[tuple[int, str]] = []                  # lines that name an integer: what nobody reads is taken out
        self.find_flat(kernel.body)
        arrays = [t.buffer for t in kernel.totals if t.buffer.rank]
        self.kept = {b: count for b in arrays if (count := self._kept_count(b)) is not None}
        self.exchanged = {*(b for b in self.needs.written & self.needs.read), *(b for b in arrays if b not in self.kept),
                          *self.stored_again()}

    def stored_again(self) -> set[Buffer]:
        """Arrays of which different lanes may store an element, one after the other: a shared loop stores in them, and so does another
        statement, or that loop when it is met again."""
        stores = Counter(self.root(b) for s in statements(self.kernel.body) for b in self._changed(s))
        again = {inner for s in statements(self.kernel.body) if isinstance(s, Loop | While) for inner in statements(s.body)}
        shared = {self.root(b) for loop in self.shares for s in statements(loop.body) for b in self._changed(s)
                  if loop in again or stores[self.root(b)] > 1}
        return shared - {t.buffer for t in self.kernel.totals}

    def find_flat(self, body: Block) -> None:
        """Rows and columns that are made from an index of all elements."""
        for row, column in pairwise(body):
            match row, column:
                case Let(i, Apply("idiv", (Ref() as whole, m))), Let(j, Apply("irem", (Ref() as same, m_))) if whole is same and m is m_:
                    self.flat[ref(i), ref(j), m] = whole
                case _:
                    pass

    def _kept_count(self, total: Buffer) -> int | None:
        """The elements of a total that lanes keep in registers: it is added to in shared loops over its known length alone."""
        count = elements(total.shape).known
        if self.form != "warps" or total.rank != 1 or count is None or count > MOST_KEPT:
            return None
        good = {load(total, (ref(loop.index),)) for loop in self.shares if isinstance(loop.extent, Const) and loop.extent.value == count}
        inside = {s for loop in self.shares for s in statements(loop.body) if isinstance(s, Combine) and s.target in good}
        return count if all(s in inside for s in statements(self.kernel.body) if total in self._changed(s)) else None

    # ------------------------------------------------------------ what lanes do together
    def statement(self, s: Stmt) -> None:
        together = self.form == "warps" and not self.sharing
        match s:
            case Store(buffer=b) | Combine(target=Load(buffer=b)) if together:
                self.exchange(self.root(b) in self.exchanged)
                self.line(f"if (lane == 0) {self.change(s)}")
                self.exchange(self.root(b) in self.exchanged)
                self.forget(self.changes(s))
            case Store() if s in self.four_stores:
                *_, text = self.texts([*s.index, s.value])
                self.line(f"{self.four_stores[s]} = {text.text};")
            case Let(name, value) if value.dtype == "int64":
                super().statement(s)
                self.indices.append((len(self.lines) - 1, self.name(ref(name)).text))
            case If(seldom=True):
                self.seldom = True
                super().statement(s)
                self.seldom = False
            case _:
                super().statement(s)

    def exchange(self, needed: bool) -> None:
        if needed and (not self.lines or self.lines[-1].strip() != "__syncwarp();"):
            self.line("__syncwarp();")

    def loop(self, s: Loop) -> None:
        if s not in self.shares:
            super().loop(s)
            return
        changed = {self.root(b) for i in statements(s.body) for b in self._changed(i)}
        count = self.turns(s)
        inside = {i.name for i in statements(s.body) if isinstance(i, Let | Local)}
        sums = {i.target: i.op for i in statements(s.body)
                if isinstance(i, Combine) and isinstance(i.target, Ref) and i.target.name not in inside}
        self.exchange(bool(changed & self.exchanged))
        self.push()
        whole = {target: self.name(target).text for target in sums}
        for target, op in sums.items():
            lane = self.fresh(f"{target.name}_lane")
            self.line(f"{C_TYPES[target.dtype]} {lane} = {unit_of(op, target.dtype).text};")
            self.scopes[-1].names[target.name] = Name(lane, BITS[target.dtype])
        self.sharing = True
        self.leaving.append("loop")
        if self.kept and isinstance(s.extent, Const) and any(b in self.kept for i in statements(s.body) for b in self._changed(i)):
            self.kept_turns(s, int(s.extent.value))
        else:
            self.strided(s.index, self.index_bits(s.extent), count, "lane", "32", f"{count.at(PRODUCT)} >= 128", s.body,
                         lambda: self.block(s.body))
        self.leaving.pop()
        self.sharing = False
        lanes = {target: self.name(target).text for target in sums}
        taken = self.scopes[-1].taken
        self.pop()
        self.scopes[-1].taken.update(taken)                      # in C it was no block of its own
        for target, op in sums.items():
            value = Text(f"{self.over_warp(op, target.dtype)}({lanes[target]})")
            self.line(combination(whole[target], op, target.dtype, value))
        self.exchange(bool(changed & self.exchanged))

    @staticmethod
    def _changed(s: Stmt) -> tuple[Buffer, ...]:
        match s:
            case Store(buffer=b) | Combine(target=Load(buffer=b)):
                return (b,)
            case _:
                return ()

    def kept_turns(self, s: Loop, count: int) -> None:
        """A loop whose totals are registers, one for each turn of a lane."""
        self.line("#pragma unroll")
        self.line(f"for (int turn = 0; turn < {-(-count // WARP)}; ++turn) {{")
        self.depth += 1
        self.push()
        index = self.bind(s.index, self.index_bits(s.extent))
        self.line(f"const long long {index} = {WARP} * turn + lane;")
        if count % WARP:
            self.line(f"if ({index} >= {count}) continue;")
        for b in self.kept:
            self.scopes[-1].pointers[b] = Pointer(f"{self.pointer(b).name}[turn]", variable=True)
        self.block(s.body)
        self.close()

    # ------------------------------------------------------------ strided loops
    def strided(self, index: str, bits: int, count: Text, first: str, step: str, many: str, body: Block,
                printed: Callable[[], None]) -> None:
        """index = first, first + step, … below `count`; if `many` holds, in groups of four neighbours before the rest."""
        few = count.text.isdigit() and int(count.text) < FEW
        loads, stores = self.neighbours(index, body) if not (self.seldom or few) else ([], [])
        if loads or stores:
            fours, group = self.fresh("fours"), self.fresh("group")
            self.line(f"const long long {fours} = {many} ? {count.at(PRODUCT)} / 4 : 0;")
            self.line(f"for (long long {group} = {first}; {group} < {fours}; {group} += {step}) {{")
            self.depth += 1
            self.push()
            self.fours(index, bits, group, loads, stores, body, printed)
            self.close()
            first = f"4 * {fours} + {first}"
        self.push()
        name = self.bind(index, bits)
        self.line(f"for (long long {name} = {first}; {name} < {count.at(PRODUCT)}; {name} += {step}) {{")
        self.depth += 1
        printed()
        self.close()

    def fours(self, index: str, bits: int, group: str, loads: Sequence[Load], stores: Sequence[Store], body: Block,
              printed: Callable[[], None]) -> None:
        base = self.fresh(f"{index}_first")
        self.scopes[-1].names[index] = Name(base, bits)
        self.line(f"const long long {base} = 4 * {group};")
        names: dict[Load, str] = {}
        stays: dict[Expr, Expr] = {ref(name): ref(index) if offset is None else offset + ref(index)
                                   for name, offset in moving(index, body).items()}

        def address(buffer: Buffer, place: Sequence[Expr]) -> str:
            places, lengths = self.joined(buffer, place)
            at = linear(map(self.dim, lengths[1:]), self.texts(substituted(places, stays), inline=True))
            return f"&{self.pointer(buffer).at(at)}"

        for e in loads:
            names[e] = self.fresh(f"{e.buffer.name}_four")
            self.line(f"const lr_four<{C_TYPES[e.dtype]}> {names[e]} = lr_load4({address(e.buffer, e.index)});")
        for s in stores:
            self.four_stores[s] = self.fresh(f"{s.buffer.name}_four")
            self.line(f"lr_four<{C_TYPES[s.buffer.dtype]}> {self.four_stores[s]};")
        written = [f"lr_store4({address(s.buffer, s.index)}, {self.four_stores[s]});" for s in stores]
        self.line("#pragma unroll")
        self.line("for (int u = 0; u < 4; ++u) {")
        self.depth += 1
        self.push()
        name = self.bind(index, bits)
        self.line(f"const long long {name} = {base} + u;")
        for e in loads:
            value = self.fresh(self._proposal(e))
            self.line(f"const {C_TYPES[e.dtype]} {value} = {names[e]}.at[u];")
            self.scopes[-1].known[e] = value
        for s in stores:
            self.four_stores[s] += ".at[u]"
        self.indices.append((len(self.lines) - 1 - len(loads), name))
        printed()
        self.close()
        for s in stores:
            del self.four_stores[s]
        for text in written:
            self.line(text)

    def neighbours(self, index: str, body: Block) -> tuple[list[Load], list[Store]]:
        """The loads and stores of a body whose elements are neighbours in neighbouring turns, and which every turn makes."""
        inside = list(statements(body))
        if any(isinstance(s, Loop | While | Window) for s in inside) or self.needs.private \
                or sum(isinstance(e, Apply) for s in inside for e in walk(expressions(s))) > LARGEST_FOUR:
            return [], []
        names = moving(index, body)
        own = {index, *(s.name for s in inside if isinstance(s, Let | Local))}

        def neighbour(buffer: Buffer, place: Sequence[Expr]) -> bool:
            if not buffer.rank or buffer in {t.buffer for t in self.kernel.totals} or self.pointer(buffer).variable:
                return False
            *others, last = self.joined(buffer, place)[0]
            return isinstance(last, Ref) and last.name in names and not any(isinstance(e, Ref) and e.name in own for e in walk(others))

        always = [s for s in body if not blocks(s)]
        loads = [e for e in walk([e for s in always for e in expressions(s)]) if isinstance(e, Load)
                 and self.root(e.buffer) not in self.needs.written and neighbour(e.buffer, e.index)]
        stored = [s for s in inside if isinstance(s, Store)]
        stores = [s for s in always if isinstance(s, Store) and self.root(s.buffer) not in self.needs.read
                  and sum(self.root(o.buffer) is self.root(s.buffer) for o in stored) == 1 and neighbour(s.buffer, s.index)]
        return loads, stores

    def without_unused(self) -> None:
        """Takes out the rows and columns that nobody uses."""
        for at, name in sorted(self.indices, reverse=True):
            inside = takewhile(partial(as_deep, self.lines[at]), self.lines[at + 1:])
            if not any(re.search(rf"\b{name}\b", text) for text in inside):
                del self.lines[at]
        self.indices.clear()
        self.lines = gathered(self.lines, "if (lane == 0) ")
        for line, names in PLACES.items():                       # where the thread is, as far as it matters
            found = [k for k, text in enumerate(self.lines) if text.strip() == line]
            if found and not any(re.search(rf"\b{name}\b", text) for name in names for text in self.lines[found[0] + 1:]):
                del self.lines[found[0]]


def as_deep(line: str, other: str) -> bool:
    """Whether another line stands in the same block, or deeper."""
    return len(other) - len(other.lstrip()) >= len(line) - len(line.lstrip())
