"""A function of LLVM IR while it is printed: names, blocks, scalars, sizes, addresses.

In: expressions.  Out: lines of LLVM IR.  What a function does not know itself it asks of the function around it, and takes
as a parameter: so the body of a kernel becomes a function of just what it reads.

Local scalars live in stack slots, which LLVM turns into registers.  A truth value is an i1 in registers and slots, and a
byte in arrays.  Integer arithmetic wraps, as the IR says; where an index is made of loop indices and sizes it cannot, and
is marked so (`nsw`), because the vectoriser has to see it.
"""
from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from dsl.backends.llvm.meter import Meter
from dsl.ir.types import Atom, Dim, DType, Size, is_float, product
from dsl.loops.ir import Program, Swap, Window, statements
from dsl.machine.expr import BITS, Apply, Buffer, Const, Expr, Extent, Load, Ref, walk
from dsl.machine.instructions import TABLE, kind
from dsl.record import record

TYPES: dict[DType, str] = {"bool": "i1", "int32": "i32", "int64": "i64", "float32": "float", "float64": "double"}
STORED: dict[DType, str] = {**TYPES, "bool": "i8"}
BYTES: dict[DType, int] = {"bool": 1, "int32": 4, "int64": 8, "float32": 4, "float64": 8}
SUFFIX: dict[DType, str] = {"bool": "i1", "int32": "i32", "int64": "i64", "float32": "f32", "float64": "f64"}
SIZE_BITS = 48                          # what a size and an index below it are taken to fit
SAFE_BITS = 62
WHOLE_LOOPS = 1_000                     # metadata: what such loops have in common, then one number each


@record
class Held:
    """Where a scalar or an array is.

        value    the operand is the scalar               slot     it points to the scalar on the stack
        memory   it points to the elements               moving   it points to such a pointer (of an array that is swapped)
    """

    kind: Literal["value", "slot", "memory", "moving"]
    operand: str


@record
class Parameter:
    """What a function takes from the one around it: `operand` is its name there."""

    type: str
    name: str
    operand: str
    buffer: Buffer | None = None


class Module:
    """What the functions of a module share.  With a `meter` they count what they do."""

    def __init__(self, program: Program, meter: Meter | None = None) -> None:
        self.program, self.meter = program, meter
        self.functions: list[str] = []
        self.helpers: set[str] = set()                          # names of parts of the fixed runtime that are called
        self.whole_loops = 0                                    # loops that are not unrolled, each with metadata of its own
        self.swapped = {b for s in statements(program.body) if isinstance(s, Swap) for b in (s.a, s.b)}
        self.bases = {s.buffer: s.base for s in statements(program.body) if isinstance(s, Window)}
        self.alike: dict[Buffer, Buffer] = {}                   # a forest: buffers that may name one memory have one root
        for s in statements(program.body):
            match s:
                case Window(buffer=a, base=b) | Swap(a=a, b=b):
                    self.join(a, b)
                case _:
                    pass

    def root(self, buffer: Buffer) -> Buffer:
        while (parent := self.alike.get(buffer, buffer)) is not buffer:
            buffer = parent
        return buffer

    def join(self, a: Buffer, b: Buffer) -> None:
        if (a := self.root(a)) is not (b := self.root(b)):
            self.alike[a] = b


def number(value: bool | int | float, dtype: DType) -> str:
    """A literal.  A float is given by the bits of its float64 value, which LLVM wants for float32, too."""
    if is_float(dtype):
        return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
    return str(value).lower()


def structure(types: Sequence[str]) -> str:
    """The type of several results."""
    return f"{{ {', '.join(types)} }}" if types else "void"


class Function:
    def __init__(self, module: Module, outer: Function | None = None) -> None:
        self.module, self.outer = module, outer
        self.entry: list[str] = []                              # runs once, before everything else
        self.lines: list[str] = []
        self.block = "start"
        self.exits: list[str] = []                              # where `Leave` goes, innermost last
        self.parameters: list[Parameter] = []
        self.written: set[Buffer] = set()                       # buffers that are written in here, windows by their bases
        self.totals: set[Buffer] = set()
        self.repeated = 0                                       # how many loops there are around what is being printed
        self.private_region = ("null", "0")                     # where a kernel's private arrays are, and the bytes of a thread
        self.mark: str | None = None                            # the slot of the fault mark, if there is a `Flag`
        # What holds in the whole function, and what holds to the end of the block.
        self.entry_names: dict[str, Held] = {}
        self.entry_places: dict[Buffer, Held] = {}
        self.entry_sizes: dict[str, str] = {}
        self.entry_dims: dict[Dim, str] = {}
        self.entry_bits: dict[str, int] = {}
        self.names: dict[str, Held] = {}
        self.places: dict[Buffer, Held] = {}
        self.sizes: dict[str, str] = {}
        self.dims: dict[Dim, str] = {}
        self.bits: dict[str, int] = {}
        self._frame: str | None = None
        self._count = 0

    # ------------------------------------------------------------ lines and blocks
    def fresh(self, hint: str = "v") -> str:
        self._count += 1
        return f"%{re.sub('[^A-Za-z0-9_]', '_', hint)}.{self._count}"

    def emit(self, text: str, hint: str = "v") -> str:
        name = self.fresh(hint)
        self.lines.append(f"  {name} = {text}")
        return name

    def do(self, text: str) -> None:
        self.lines.append(f"  {text}")

    def emit_entry(self, text: str, hint: str = "v") -> str:
        name = self.fresh(hint)
        self.entry.append(f"  {name} = {text}")
        return name

    def label(self, hint: str) -> str:
        return self.fresh(hint)[1:]

    def begin(self, label: str) -> None:
        self.lines.append(f"{label}:")
        self.block = label

    def jump(self, label: str) -> None:
        self.do(f"br label %{label}")

    def branch(self, condition: str, yes: str, no: str) -> None:
        self.do(f"br i1 {condition}, label %{yes}, label %{no}")

    def slot(self, type_: str, hint: str = "slot") -> str:
        return self.emit_entry(f"alloca {type_}", hint)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """What is named in here is forgotten after."""
        kept = self.names, self.places, self.sizes, self.dims, self.bits
        self.names, self.places, self.sizes, self.dims, self.bits = (dict(self.names), dict(self.places), dict(self.sizes),
                                                                      dict(self.dims), dict(self.bits))
        yield
        self.names, self.places, self.sizes, self.dims, self.bits = kept

    @contextmanager
    def counting(self, first: str, end: str, hint: str = "i", whole: bool = False) -> Iterator[str]:
        """A loop over first … end - 1; yields its index.  `whole`: it is not unrolled."""
        head, latch, after = self.label("loop"), self.label("next"), self.label("done")
        before, index, following = self.block, self.fresh(hint), self.fresh("n")
        self.branch(self.emit(f"icmp slt i64 {first}, {end}"), head, after)
        self.begin(head)
        self.do(f"{index} = phi i64 [ {first}, %{before} ], [ {following}, %{latch} ]")
        with self.scope():
            yield index
        self.jump(latch)
        self.begin(latch)
        self.do(f"{following} = add nuw nsw i64 {index}, 1")
        again = self.emit(f"icmp slt i64 {following}, {end}")
        mark = f", !llvm.loop !{WHOLE_LOOPS + 1 + self.module.whole_loops}" if whole else ""
        self.module.whole_loops += whole
        self.do(f"br i1 {again}, label %{head}, label %{after}{mark}")
        self.begin(after)

    def call(self, what: str, gives: bool = True) -> str:
        if gives:
            return self.emit(f"call {what}", "answer")
        self.do(f"call {what}")
        return ""

    def give(self, types: Sequence[str], values: Sequence[str]) -> None:
        """The function returns these values."""
        answer, result = "undef", structure(types)
        for position, (type_, value) in enumerate(zip(types, values, strict=True)):
            answer = self.emit(f"insertvalue {result} {answer}, {type_} {value}, {position}")
        self.do(f"ret {result} {answer}" if types else "ret void")

    def text(self, header: str) -> str:
        """The function, its last block ended by the caller."""
        return "\n".join([f"{header} {{", "entry:", *self.entry, "  br label %start", "start:", *self.lines, "}", ""])

    # ------------------------------------------------------------ sizes
    def size(self, name: str) -> str:
        if (found := self.sizes.get(name) or self.entry_sizes.get(name)) is None:
            assert self.outer is not None, f"no size {name}"
            found = self.entry_sizes[name] = self.take("i64", self.outer.size(name), f"size_{name}")
        return found

    def dim(self, dim: Dim) -> str:
        """The value of a length.  One of the function's own sizes is computed at its entry."""
        if dim.constant is not None:
            return str(dim.constant)
        local = any(s.name in self.sizes for s in dim.sizes() if s.value is None)
        known = self.dims if local else self.entry_dims
        if (found := known.get(dim)) is not None:
            return found
        emit = self.emit if local else self.emit_entry
        total = ""
        for monomial, coefficient in dim.terms:
            term = str(coefficient) if coefficient != 1 or not monomial else ""
            for atom in monomial:
                factor = self._atom(atom)
                term = emit(f"mul nsw i64 {term}, {factor}") if term else factor
            total = emit(f"add nsw i64 {total}, {term}") if total else term
        known[dim] = total
        return total

    def _atom(self, atom: Atom) -> str:
        if isinstance(atom, Size):
            return str(atom.value) if atom.value is not None else self.size(atom.name)
        left, right = self.dim(atom.left), self.dim(atom.right)
        local = any(s.name in self.sizes for d in (atom.left, atom.right) for s in d.sizes() if s.value is None)
        emit = self.emit if local else self.emit_entry
        match atom.kind:
            case "max" | "min":
                return emit(f"call i64 @llvm.s{atom.kind}.i64(i64 {left}, i64 {right})")
            case "wide":
                return emit(f"select i1 {emit(f'icmp eq i64 {left}, 1')}, i64 {right}, i64 {left}")
            case "floordiv":
                self.module.helpers.add("floordiv")
                return emit(f"call i64 @lr.floordiv(i64 {left}, i64 {right})")

    def count(self, buffer: Buffer) -> str:
        """The number of its elements."""
        return self.dim(product(buffer.shape))

    # ------------------------------------------------------------ what comes from outside
    def take(self, type_: str, operand: str, hint: str, buffer: Buffer | None = None) -> str:
        """A new parameter."""
        name = self.fresh(hint)
        self.parameters.append(Parameter(type_, name, operand, buffer))
        return name

    def name(self, name: str, dtype: DType) -> Held:
        if (found := self.names.get(name) or self.entry_names.get(name)) is None:
            assert self.outer is not None, f"no scalar {name}"
            outer = self.outer.read(self.outer.name(name, dtype), dtype)
            found = self.entry_names[name] = Held("value", self.take(TYPES[dtype], outer, name))
            self.entry_bits[name] = self.outer.known_bits(name)
        return found

    def place(self, buffer: Buffer) -> Held:
        if (found := self.places.get(buffer) or self.entry_places.get(buffer)) is None:
            assert self.outer is not None, f"no place for {buffer}"
            there = self.outer.place(buffer)
            if buffer.rank == 0 and there.kind != "memory":
                if buffer in self.written:                      # only one iteration writes it
                    found = Held("slot", self.take("ptr", there.operand, buffer.name))
                else:
                    found = Held("value", self.take(TYPES[buffer.dtype], self.outer.read(there, buffer.dtype), buffer.name))
            else:
                found = Held("memory", self.take("ptr", self.outer.pointer(buffer), buffer.name, buffer))
            self.entry_places[buffer] = found
        return found

    def pointer(self, buffer: Buffer) -> str:
        """Where the elements are now."""
        match self.place(buffer):
            case Held("moving", operand):
                return self.emit(f"load ptr, ptr {operand}", buffer.name)
            case Held("memory", operand):
                return operand
            case held:
                raise AssertionError(f"{buffer} is in a register: {held}")

    def read(self, held: Held, dtype: DType) -> str:
        """The scalar that is held."""
        match held.kind:
            case "value":
                return held.operand
            case "slot":
                return self.emit(f"load {TYPES[dtype]}, ptr {held.operand}")
            case _:
                return self.load(held.operand, dtype)

    def write(self, held: Held, dtype: DType, value: str) -> None:
        if held.kind == "slot":
            self.do(f"store {TYPES[dtype]} {value}, ptr {held.operand}")
        else:
            assert held.kind == "memory", held
            self.store(held.operand, dtype, value)

    def frame(self) -> str:
        """The frame of the call."""
        if self.outer is None:
            return "%frame"
        if self._frame is None:
            self._frame = self.take("ptr", self.outer.frame(), "frame")
        return self._frame

    def fault(self, condition: str) -> None:
        """The fault mark is raised where the condition holds."""
        assert self.mark is not None
        before = self.emit(f"load i1, ptr {self.mark}")
        self.do(f"store i1 {self.emit(f'or i1 {before}, {condition}')}, ptr {self.mark}")

    # ------------------------------------------------------------ elements
    def load(self, address: str, dtype: DType, buffer: Buffer | None = None) -> str:
        value = self.emit(f"load {STORED[dtype]}, ptr {address}, align {BYTES[dtype]}{self.tag(buffer)}")
        return self.emit(f"icmp ne i8 {value}, 0") if dtype == "bool" else value

    def store(self, address: str, dtype: DType, value: str, buffer: Buffer | None = None) -> None:
        if dtype == "bool":
            value = self.emit(f"zext i1 {value} to i8")
        self.do(f"store {STORED[dtype]} {value}, ptr {address}, align {BYTES[dtype]}{self.tag(buffer)}")

    def tag(self, buffer: Buffer | None) -> str:
        """What to say of an access to a buffer: which others it cannot meet."""
        return ""

    def element(self, pointer: str, dtype: DType, index: str) -> str:
        return self.emit(f"getelementptr inbounds {STORED[dtype]}, ptr {pointer}, i64 {index}")

    def word(self, pointer: str, position: int) -> str:
        """The address of one of several fields of 8 bytes."""
        return self.emit(f"getelementptr inbounds i64, ptr {pointer}, i64 {position}")

    def address(self, buffer: Buffer, index: Sequence[str]) -> str:
        """Where an element is: every index is within its axis, so nothing here overflows."""
        pointer = self.pointer(buffer)
        flat = ""
        for position, dim in zip(index, buffer.shape, strict=True):
            if flat and dim.constant != 1:
                flat = self.emit(f"mul nuw nsw i64 {flat}, {self.dim(dim)}")
            flat = self.emit(f"add nuw nsw i64 {flat}, {position}") if flat and position != "0" else flat or position
        return self.element(pointer, buffer.dtype, flat) if index else pointer

    # ------------------------------------------------------------ expressions
    def value(self, e: Expr) -> str:
        return self.values([e])[0]

    def values(self, roots: Sequence[Expr]) -> list[str]:
        """The operands of expressions; what they share is computed once."""
        done: dict[Expr, str] = {}
        bits: dict[Expr, int] = {}
        for e in walk(roots):
            bits[e] = self._bits(e, bits)
            match e:
                case Const(value, dtype):
                    done[e] = number(value, dtype)
                case Ref(name, dtype):
                    done[e] = self.read(self.name(name, dtype), dtype)
                case Extent(dim):
                    done[e] = self.dim(dim)
                case Load(buffer, index):
                    place = self.place(buffer)
                    if buffer.rank == 0 and place.kind in ("value", "slot"):
                        done[e] = self.read(place, buffer.dtype)
                    else:
                        done[e] = self.load(self.address(buffer, [done[i] for i in index]), buffer.dtype, buffer)
                case Apply(op, args, dtype):
                    exact = bits[e] <= SAFE_BITS and dtype == "int64" and op in ("add", "sub", "mul")
                    done[e] = self.emit(self._apply(op, args, dtype, [done[a] for a in args], " nsw" if exact else ""), op)
                case _:
                    raise AssertionError(e)
        return [done[r] for r in roots]

    def bits_of(self, e: Expr) -> int:
        """How many bits a value is known to fit; 64: nothing is known."""
        bits: dict[Expr, int] = {}
        for part in walk([e]):
            bits[part] = self._bits(part, bits)
        return bits[e]

    def known_bits(self, name: str) -> int:
        return self.bits.get(name) or self.entry_bits.get(name, 64)

    def _bits(self, e: Expr, known: dict[Expr, int]) -> int:
        match e:
            case Const(value=int() as value):
                return value.bit_length() + 1
            case Extent():
                return SIZE_BITS
            case Ref(name, "int64"):
                return self.known_bits(name)
            case Apply("add" | "sub" | "select" | "minimum" | "maximum" | "neg", args, "int64"):
                return min(64, 1 + max(known[a] for a in args))
            case Apply("mul", (a, b), "int64"):
                return min(64, known[a] + known[b])
            case Apply("idiv", (a, _), "int64"):
                return known[a]
            case _:
                return BITS.get(e.dtype, 64) if not is_float(e.dtype) else 64

    def _apply(self, op: str, args: Sequence[Expr], dtype: DType, operands: Sequence[str], flags: str) -> str:
        source = args[0].dtype
        match op:
            case "to":
                return conversion(source, dtype, operands[0])
            case "bits":
                return f"bitcast {TYPES[source]} {operands[0]} to {TYPES[dtype]}"
            case _:
                spelling = TABLE[op].llvm[kind(source)]
                if flags:
                    spelling = spelling.replace(op, op + flags, 1)
                return spelling.format(*operands, t=TYPES[source], r=TYPES[dtype], s=SUFFIX[source])

    def combine(self, op: str, dtype: DType, a: str, b: str, regroup: bool) -> str:
        """`op(a, b)` of a `Combine`; sums and products of floats may be regrouped where the IR allows it."""
        spelling = TABLE[op].llvm[kind(dtype)]
        if regroup and is_float(dtype) and op in ("add", "mul"):
            spelling = spelling.replace(f"f{op}", f"f{op} reassoc", 1)
        return self.emit(spelling.format(a, b, t=TYPES[dtype], r=TYPES[dtype], s=SUFFIX[dtype]), op)


def conversion(source: DType, target: DType, operand: str) -> str:
    """`to`: the instruction that converts."""
    how: str
    match source, target:
        case "bool", ("int32" | "int64"):
            how = "zext"
        case "bool", _:
            how = "uitofp"
        case ("int32" | "int64"), ("float32" | "float64"):
            how = "sitofp"
        case ("float32" | "float64"), ("int32" | "int64"):
            how = "fptosi"
        case "int32", "int64":
            how = "sext"
        case "int64", "int32":
            how = "trunc"
        case "float32", "float64":
            how = "fpext"
        case "float64", "float32":
            how = "fptrunc"
        case _:
            raise AssertionError((source, target))
    return f"{how} {TYPES[source]} {operand} to {TYPES[target]}"
