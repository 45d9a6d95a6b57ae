"""Expressions to C.

In: expressions, and what their names and buffers are called.  Out: lines that name what is used twice, and the text of
what remains.

An expression is named (`const float t1 = …;`) in front of the first statement of a block that uses it, if it is used twice
before anything it reads changes, or if its text would grow too long to read.  A name lives as C's own scopes do.
"""
from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from dsl.backends.cuda.spelling import C_TYPES, Text, cast, dim_text, fresh, infix, linear, literal, spell
from dsl.ir.types import Dim, DType, is_float
from dsl.machine.expr import BITS, Apply, Buffer, Const, Expr, Extent, Load, Ref, extent, parts, walk
from dsl.machine.instructions import TABLE, kind
from dsl.record import entity, record

LONGEST = 72                                 # characters of an expression before a part of it gets a name
AXIS_BITS = 31                               # an index, or the length of an axis, taken alone
QUOTIENTS = {"idiv": "lr_quotient", "irem": "lr_remainder"}
PLAIN = {"add": "+", "sub": "-", "mul": "*"}
BIT_CASTS = {("float32", "int32"): "__float_as_int", ("int32", "float32"): "__int_as_float",
             ("float64", "int64"): "__double_as_longlong", ("int64", "float64"): "__longlong_as_double"}


@record
class Pointer:
    """A buffer in C: `name[place]`, or `name[place * stride + offset]`, or a variable if it has no elements to choose from."""

    name: str
    stride: str = ""
    offset: str = ""
    variable: bool = False

    def at(self, place: Text) -> str:
        if self.variable:
            return self.name
        if self.stride:
            place = infix("*", place, Text(self.stride)) if place.text != "0" else place
        if self.offset:
            place = infix("+", place, Text(self.offset)) if place.text != "0" else Text(self.offset)
        return f"{self.name}[{place.text}]"


@record
class Name:
    """What a `Ref` is called, and how many bits (without the sign) its value may have."""

    text: str
    bits: int


@entity
class Scope:
    """What is known from here to the end of a C block."""

    names: dict[str, Name]
    sizes: dict[str, str]
    pointers: dict[Buffer, Pointer]
    known: dict[Expr, str]                   # expressions that have a name
    taken: set[str]


class Expressions:
    """Prints expressions, and declarations of what it names, into `lines`."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.depth = 1
        self.scopes: list[Scope] = []
        self.uses: list[Counter[Expr]] = [Counter()]
        self.changing: set[object] = set()   # names and buffers that change while they are in sight
        self.flat: dict[tuple[Expr, Expr, Expr], Ref] = {}        # row and column, of so many columns: what counts all elements
        self._depends: dict[Expr, frozenset[object]] = {}

    # ------------------------------------------------------------ scopes
    def push(self) -> None:
        self.scopes.append(Scope({}, {}, {}, {}, set()))

    def pop(self) -> None:
        self.scopes.pop()

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text if text else "")

    def fresh(self, name: str) -> str:
        text = fresh(name, lambda t: any(t in s.taken for s in self.scopes))
        self.scopes[-1].taken.add(text)
        return text

    def bind(self, name: str, bits: int) -> str:
        """Declares what `Ref(name)` means from here on."""
        self.forget({name})
        text = self.fresh(name)
        self.scopes[-1].names[name] = Name(text, bits)
        return text

    def name(self, ref: Ref) -> Name:
        return next(s.names[ref.name] for s in reversed(self.scopes) if ref.name in s.names)

    def size(self, name: str) -> str:
        return next(s.sizes[name] for s in reversed(self.scopes) if name in s.sizes)

    def pointer(self, buffer: Buffer) -> Pointer:
        return next(s.pointers[buffer] for s in reversed(self.scopes) if buffer in s.pointers)

    def known(self, e: Expr) -> str | None:
        return next((s.known[e] for s in reversed(self.scopes) if e in s.known), None)

    def forget(self, changed: Iterable[object]) -> None:
        """Drops the names of expressions that read what changes."""
        changed = self.changing.intersection(changed)
        if changed:
            for scope in self.scopes:
                for e in [e for e in scope.known if self.depends(e) & changed]:
                    del scope.known[e]

    def depends(self, e: Expr) -> frozenset[object]:
        """What `e` reads of `changing`."""
        for part in walk([e]) if e not in self._depends else ():
            if part not in self._depends:
                found = frozenset(self.changing.intersection(self._reads(part)))
                self._depends[part] = found.union(*(self._depends[p] for p in parts(part)))
        return self._depends[e]

    def _reads(self, e: Expr) -> list[object]:
        match e:
            case Ref(name=name):
                return [name]
            case Extent(dim=dim):
                return [f"size {s.name}" for s in dim.sizes()]
            case Load(buffer=buffer):
                return [self.root(buffer), *(f"size {s.name}" for d in buffer.shape for s in d.sizes())]
            case _:
                return []

    def root(self, buffer: Buffer) -> Buffer:
        """The buffer whose memory this one is."""
        return buffer

    # ------------------------------------------------------------ printing
    def dim(self, dim: Dim) -> Text:
        return dim_text(dim, self.size)

    def element(self, buffer: Buffer, index: Sequence[Expr], texts: Iterable[Text]) -> str:
        """An element in C."""
        known = dict(zip(index, texts, strict=True))
        places, lengths = self.joined(buffer, index)
        at = [known[e] if e in known else self.texts([e], inline=True)[0] for e in places]
        return self.pointer(buffer).at(linear(map(self.dim, lengths[1:]), at))

    def joined(self, buffer: Buffer, index: Sequence[Expr]) -> tuple[list[Expr], list[Dim]]:
        """An index, and the lengths of the axes; a row and a column that were made from an index of all elements are that again."""
        places, lengths, at = list(index), list(buffer.shape), 1
        while at < len(places):
            whole = self.flat.get((places[at - 1], places[at], extent(lengths[at])))
            if whole is None:
                at += 1
            else:
                places[at - 1:at + 1] = [whole]
                lengths[at - 1:at + 1] = [lengths[at - 1] * lengths[at]]
                at = max(1, at - 1)
        return places, lengths

    def texts(self, roots: Sequence[Expr], inline: bool = False, own: Expr | None = None) -> list[Text]:
        """The roots as C, after declarations of what in them deserves a name (nothing if `inline`); `own` gets one anyway."""
        done: dict[Expr, Text] = {}
        for e in self._unknown(roots):
            text = self._text(e, done)
            if not inline and e is not own and self._deserves_name(e, text, e in roots):
                text = Text(self.declare(e, text))
            done[e] = text
        return [done[r] for r in roots]

    def declare(self, e: Expr, text: Text) -> str:
        name = self.fresh(self._proposal(e))
        self.line(f"const {C_TYPES[e.dtype]} {name} = {text.text};")
        self.scopes[-1].known[e] = name
        return name

    def _unknown(self, roots: Sequence[Expr]) -> Iterator[Expr]:
        """Parts before wholes, not entering what has a name."""
        seen: set[Expr] = set()
        stack = [(r, False) for r in reversed(roots)]
        while stack:
            e, ready = stack.pop()
            if ready:
                yield e
            elif e not in seen:
                seen.add(e)
                stack.append((e, True))
                if self.known(e) is None:
                    stack.extend((p, False) for p in reversed(parts(e)))

    def _text(self, e: Expr, done: dict[Expr, Text]) -> Text:
        known = self.known(e)
        if known is not None:
            return Text(known)
        match e:
            case Const(value=value, dtype=dtype):
                return literal(value, dtype)
            case Ref():
                return Text(self.name(e).text)
            case Extent(dim=dim):
                return self.dim(dim)
            case Load(buffer=buffer, index=index):
                return Text(self.element(buffer, index, [done[i] for i in index]))
            case Apply(op="to", args=(a,), dtype=dtype):
                return cast(dtype, done[a])
            case Apply(op="lt", args=(Apply(op="abs", args=(a,)), Const(value=value))) if value == math.inf and a in done:
                return Text(f"lr_finite({done[a].text})")
            case Apply(op="bits", args=(a,), dtype=dtype):
                return Text(f"{BIT_CASTS[a.dtype, dtype]}({done[a].text})")
            case Apply(op=op, args=args, dtype=dtype):
                return self.instruction(op, args, [done[a] for a in args], dtype)
        raise AssertionError(e)

    def instruction(self, op: str, args: tuple[Expr, ...], texts: list[Text], dtype: DType) -> Text:
        operand = args[0].dtype
        if op == "add" and (opposite := self._opposite(args[1])) is not None:
            op, texts = "sub", [texts[0], opposite]
            if is_float(operand) or self.magnitude(op, args) < BITS[operand]:
                return infix("-", *texts)
            return Text(f"lr_sub({texts[0].text}, {self._suffixed(args[1], opposite)})")
        if op in QUOTIENTS and operand == "int64" and not isinstance(args[1], Const):
            return Text(f"{QUOTIENTS[op]}({', '.join(self._suffixed(a, t) for a, t in zip(args, texts))})")
        if op in PLAIN and kind(operand) == "int" and self.magnitude(op, args) < BITS[operand]:
            return infix(PLAIN[op], *texts)
        if op == "neg" and self.bits(args[0]) < BITS[operand]:
            return spell("-{0}", texts)
        spelling = TABLE[op].cuda[kind(operand)]
        if op in ("select", "ashr") or "(" in spelling:          # where int64 literals must be seen to be such
            texts = [Text(self._suffixed(a, t), t.level) for a, t in zip(args, texts)]
        return spell(spelling, texts, f="f" if operand == "float32" else "")

    @staticmethod
    def _suffixed(e: Expr, text: Text) -> str:
        return f"{text.text}LL" if isinstance(e, Const) and e.dtype == "int64" and text.text[-1].isdigit() else text.text

    @staticmethod
    def _opposite(e: Expr) -> Text | None:
        """The literal of -e, for a negative number to be taken away instead of added."""
        if isinstance(e, Const) and e.dtype != "bool" and e.value < 0 and e.value != -(1 << (BITS[e.dtype] - 1)):
            return literal(-e.value, e.dtype)
        return None

    def magnitude(self, op: str, args: tuple[Expr, ...]) -> int:
        sizes = [self.bits(a) for a in args]
        return sum(sizes) if op == "mul" else max(sizes) + 1

    def bits(self, e: Expr) -> int:
        """An integer's bits without its sign, at most; products and sums of indices and lengths are known not to overflow."""
        if is_float(e.dtype):
            return BITS[e.dtype]
        match e:
            case Const(value=value):
                return int(abs(value)).bit_length()
            case Ref():
                return self.name(e).bits
            case Extent(dim=dim):
                return min(62, AXIS_BITS * max((len(m) for m, _ in dim.terms), default=1))
            case Apply(op="add" | "sub" | "mul" as op, args=args):
                return min(self.magnitude(op, args), BITS[e.dtype])
            case Apply(op="neg" | "idiv" | "abs", args=(a, *_)):
                return self.bits(a)
            case Apply(op="irem", args=(a, b)):
                return min(self.bits(a), self.bits(b))
            case Apply(op="minimum" | "maximum", args=args) | Apply(op="select", args=(_, *args)):
                return max(map(self.bits, args))
            case Apply(op="and", args=(_, Const(value=mask))) if mask >= 0:
                return int(mask).bit_length()
            case Apply(op="to", args=(a,)) if a.dtype in ("bool", "int32"):
                return BITS[a.dtype]
            case _:
                return BITS[e.dtype]

    def index_bits(self, extent: Expr) -> int:
        """Of an index below `extent`, which is an axis, or all elements of an array."""
        return max(AXIS_BITS, self.bits(extent)) if isinstance(extent, Const | Extent) else AXIS_BITS

    # ------------------------------------------------------------ what gets a name
    def _deserves_name(self, e: Expr, text: Text, whole: bool) -> bool:
        if self.known(e) is not None or not self.worth_a_name(e):
            return False
        return self.uses[-1][e] > 1 or (len(text.text) > LONGEST and not whole)

    def worth_a_name(self, e: Expr) -> bool:
        """Not what is as short as a name, nor plain steps in an index such as `i + 1` or `i * d + j`."""
        match e:
            case Load(buffer=buffer):
                return not self.pointer(buffer).variable
            case Apply(op="neg" | "to" | "not" | "isnan" | "bits", args=(a,)):
                return bool(parts(a))
            case Apply(op="add" | "sub" | "mul", dtype="int64"):
                return self.bits(e) > 63 or len(walk([e])) > 7
            case Apply(op="eq" | "ne" | "lt" | "le" | "gt" | "ge", args=(a, b)):
                return bool(parts(a) or parts(b))
            case _:
                return isinstance(e, Apply)

    def _proposal(self, e: Expr) -> str:
        if isinstance(e, Load):
            letters = "".join(i.name for i in e.index if isinstance(i, Ref) and len(i.name) == 1)
            return f"{e.buffer.name}_{letters}" if len(letters) == len(e.index) and letters else f"{e.buffer.name}_value"
        return next(f"t{k}" for k in range(1, 1 << 30) if not any(f"t{k}" in s.taken for s in self.scopes))


def count_uses(roots: Iterable[Expr]) -> Counter[Expr]:
    """How many different places use an expression; what uses it twice in one place counts twice."""
    roots = list(roots)
    uses: Counter[Expr] = Counter(roots)
    for e in walk(roots):
        uses.update(parts(e))
    return uses
