"""Loop programs as text.

In: a `Program`.  Out: `listing`, which golden tests hold, `lr show --kernels` prints and caches hash: equal programs have equal
text in every process, and whatever changes the compiled code changes the text.

    Program  ::= "program" name ["sizes" size, …]  Buffer …  ["scalar" name: dtype] …  Block
    Buffer   ::= ("input" | "output" | "state" | "scratch") name: dtype[shape]           in the order they are passed
    Block    ::= a Stmt a line, the statements inside one indented deeper
    Stmt     ::= "let" name: dtype = e   |  "local" name: dtype = e  |  name = e
               | place += e              (*=  min=  max=  and=  or=)
               | name[e, …] = e
               | "for" name < e          |  "while" e                |  "if" e … "else" …
               | "kernel" name "for" name < e  ["total" name (op, unit)] …  "work" size
               | "private" name: dtype[shape]                                  first in a kernel
               | "window" name: dtype[shape] "of" name "from" e
               | "size" name = e         |  "swap" name, name        |  "flag if" e          |  "leave if" e
               | "product" name: out = a @ b                                   (a.T, b.T)
               | %k = e                  a part of the next statement that it uses twice, or that is long

A float64 literal is written 1.0, a float32 1.0f, an int64 1, an int32 1i.  An extent that is not a bare size stands in braces;
so does a bare one whose name is a value's too.  Operators bind as in C, but `&`, `^` and `|` of integers bind closer than
comparisons; >> keeps the sign, >>> does not.
"""
from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from dsl.ir.types import Atom, Dim, DType, Shape, Size
from dsl.loops.ir import (
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
    Total,
    While,
    Window,
    buffers_of,
    expressions,
    size_names,
    statements,
)
from dsl.machine.expr import Apply, Buffer, Const, Expr, Extent, Load, Ref, parts, walk

LONGEST = 100
"""Characters after which a part of an expression gets a line of its own."""
SMALLEST = 4
"""Nodes from which on a part that is used twice gets a line of its own."""

# How tightly each form binds; the operands of a stronger one need no brackets.
CHOICE, UNARY, ATOM = 1, 12, 13
INFIX: dict[str, tuple[str, int]] = {
    "eq": ("==", 5), "ne": ("!=", 5), "lt": ("<", 5), "le": ("<=", 5), "gt": (">", 5), "ge": (">=", 5),
    "shl": ("<<", 9), "ashr": (">>", 9), "lshr": (">>>", 9), "add": ("+", 10), "sub": ("-", 10), "mul": ("*", 11), "div": ("/", 11),
}
LOGIC: dict[tuple[str, bool], tuple[str, int]] = {                              # by whether the operands are bool
    ("or", True): ("or", 2), ("xor", True): ("xor", 3), ("and", True): ("and", 4),
    ("or", False): ("|", 6), ("xor", False): ("^", 7), ("and", False): ("&", 8),
}
COMBINING = {"add": "+=", "mul": "*=", "minimum": "min=", "maximum": "max=", "and": "and=", "or": "or="}


# ---------------------------------------------------------------- sizes and literals
def dim_text(dim: Dim, values: bool = True) -> str:
    """A length, with the names of anonymous sizes and (unless told) the values of fixed ones."""
    text = ""
    for monomial, coefficient in dim.terms:
        names = "*".join(_atom_text(a, values) for a in monomial)
        size = abs(coefficient)
        term = names if names and size == 1 else f"{size}*{names}" if names else str(size)
        text += f" {'-' if coefficient < 0 else '+'} {term}" if text else f"-{term}" if coefficient < 0 else term
    return text or "0"


def size_text(name: str) -> str:
    return name if re.fullmatch(r"[\w.]+", name) else f"`{name}`"


def _atom_text(atom: Atom, values: bool) -> str:
    if isinstance(atom, Size):
        return size_text(atom.name) + (f":{atom.value}" if values and atom.value is not None else "")
    return f"{atom.kind}({dim_text(atom.left, values)}, {dim_text(atom.right, values)})"


def array_text(dtype: DType, shape: Shape) -> str:
    return f"{dtype}[{', '.join(map(dim_text, shape))}]"


def literal_text(literal: Const) -> str:
    value = literal.value
    match literal.dtype:
        case "bool":
            return "true" if value else "false"
        case "int64":
            return str(value)
        case "int32":
            return f"{value}i"
        case "float64" | "float32" if value != value:
            bits = struct.pack(">d", value)
            sign_and_payload = "" if bits == struct.pack(">d", float("nan")) else f"({bits.hex()})"
            return f"nan{sign_and_payload}" if literal.dtype == "float64" else f"nan{sign_and_payload}f"
        case "float64":
            return repr(float(value))
        case "float32":
            return f"{np.float32(value)!s}f"


# ---------------------------------------------------------------- expressions
class _Printer:
    """`doubtful` are the names that are both a size's and a value's."""

    def __init__(self, doubtful: frozenset[str] = frozenset()) -> None:
        self.doubtful = doubtful

    def expressions(self, roots: Sequence[Expr]) -> tuple[list[str], list[tuple[str, int]]]:
        """Lines for the shared and the long parts, then the text of each root and how tightly it binds."""
        uses = Counter(roots)
        order = walk(roots)
        for e in order:
            uses.update(parts(e))
        whole = set(roots)
        lines: list[str] = []
        text: dict[Expr, tuple[str, int]] = {}
        nodes: dict[Expr, int] = {}
        for e in order:
            written, strength = self.one(e, text)
            count = 1 + sum(nodes[p] for p in parts(e))
            shared = uses[e] > 1 and count >= SMALLEST
            if shared or (len(written) > LONGEST and e not in whole):
                name = f"%{len(lines)}"
                lines.append(f"{name} = {written}")
                written, strength, count = name, ATOM, 1
            text[e], nodes[e] = (written, strength), count
        return lines, [text[r] for r in roots]

    def one(self, e: Expr, text: dict[Expr, tuple[str, int]]) -> tuple[str, int]:
        """An expression whose parts have been written."""

        def at_least(part: Expr, strength: int) -> str:
            written, own = text[part]
            return written if own >= strength else f"({written})"

        match e:
            case Const():
                written = literal_text(e)
                return written, UNARY if written.startswith("-") else ATOM
            case Ref(name=name):
                return name, ATOM
            case Extent(dim=dim):
                plain = dim.bare is not None and dim.bare.name not in self.doubtful
                return dim_text(dim) if plain else f"{{{dim_text(dim)}}}", ATOM
            case Load(buffer=buffer, index=index):
                return f"{buffer.name}[{', '.join(text[i][0] for i in index)}]", ATOM
            case Apply(op="select", args=(condition, yes, no)):
                return f"{at_least(condition, CHOICE + 1)} ? {at_least(yes, CHOICE + 1)} : {text[no][0]}", CHOICE
            case Apply(op="to", args=(a,), dtype=dtype):
                return f"{dtype}({text[a][0]})", ATOM
            case Apply(op="bits", args=(a,), dtype=dtype):
                return f"bits_{dtype}({text[a][0]})", ATOM
            case Apply(op="neg" | "not" as op, args=(a,)):
                sign = "-" if op == "neg" else "not " if a.dtype == "bool" else "~"
                return sign + (f"({text[a][0]})" if isinstance(a, Const) else at_least(a, UNARY)), UNARY
            case Apply(op=op, args=(a, b)) if op in INFIX or (op, a.dtype == "bool") in LOGIC:
                symbol, strength = INFIX.get(op) or LOGIC[op, a.dtype == "bool"]
                left = strength + (symbol in ("==", "!=", "<", "<=", ">", ">="))
                return f"{at_least(a, left)} {symbol} {at_least(b, strength + 1)}", strength
            case Apply(op=op, args=args):
                return f"{op}({', '.join(text[a][0] for a in args)})", ATOM
        raise AssertionError(f"not an expression: {e!r}")

    # ------------------------------------------------------------ statements
    def block(self, body: Block, indent: str) -> Iterable[str]:
        for s in body:
            shared, written = self.expressions(expressions(s))
            yield from (indent + line for line in (*shared, self.statement(s, [text for text, _ in written])))
            deeper = indent + "  "
            match s:
                case Loop(body=inner) | While(body=inner):
                    yield from self.block(inner, deeper)
                case If(body=inner, orelse=orelse):
                    yield from self.block(inner, deeper)
                    if orelse:
                        yield f"{indent}else"
                        yield from self.block(orelse, deeper)
                case Kernel(body=inner):
                    yield from (f"{deeper}private {declared(b)}" for b in buffers_of(inner) if b.role == "private")
                    yield from self.block(inner, deeper)
                case _:
                    pass

    def statement(self, s: Stmt, e: Sequence[str]) -> str:
        """The line of a statement, given the text of its `expressions`."""
        match s:
            case Let(name, value):
                return f"let {name}: {value.dtype} = {e[0]}"
            case Local(name, dtype):
                return f"local {name}: {dtype} = {e[0]}"
            case Assign(name):
                return f"{name} = {e[0]}"
            case Combine(target, op):
                place = target.name if isinstance(target, Ref) else f"{target.buffer.name}[{', '.join(e[:-1])}]"
                return f"{place} {COMBINING.get(op, op)} {e[-1]}"
            case Store(buffer):
                return f"{buffer.name}[{', '.join(e[:-1])}] = {e[-1]}"
            case Loop(index):
                return f"for {index} < {e[0]}"
            case While():
                return f"while {e[0]}"
            case If(seldom=seldom):
                return f"if {e[0]}{'  seldom' if seldom else ''}"
            case Kernel(name, index, totals=totals, work=work):
                added = "".join(f"  total {_total(t, unit)}" for t, unit in zip(totals, e[1:], strict=True))
                return f"kernel {name} for {index} < {e[0]}{added}  work {dim_text(work)}"
            case Window(buffer, base):
                return f"window {declared(buffer)} of {base.name} from {e[0]}"
            case Bind(size):
                return f"size {size_text(size)} = {e[0]}"
            case Swap(a, b):
                return f"swap {a.name}, {b.name}"
            case Flag():
                return f"flag if {e[0]}"
            case Leave():
                return f"leave if {e[0]}"
            case Product(out, a, b, a_transposed, b_transposed, name):
                left, right = a.name + ".T" * a_transposed, b.name + ".T" * b_transposed
                return f"product {name}: {out.name} = {left} @ {right}"


def _total(total: Total, unit: str) -> str:
    return f"{total.buffer.name} ({total.op}, {unit})"


def declared(buffer: Buffer) -> str:
    return f"{buffer.name}: {array_text(buffer.dtype, buffer.shape)}"


def _values(body: Block) -> Iterable[str]:
    """The names of the values a block declares."""
    for s in statements(body):
        match s:
            case Let(name=name) | Local(name=name) | Loop(index=name) | Kernel(index=name):
                yield name
            case _:
                pass


# ---------------------------------------------------------------- the module's functions
def expression_text(e: Expr) -> str:
    """An expression on one line, after a line for each part that is long or used twice."""
    lines, ((written, _),) = _Printer().expressions([e])
    return "\n".join([*lines, written])


def statement_text(s: Stmt) -> str:
    """A statement without those inside it."""
    lines, written = _Printer().expressions(expressions(s))
    return "\n".join([*lines, _Printer().statement(s, [text for text, _ in written])])


def listing(program: Program) -> str:
    """A whole program."""
    sizes = size_names(program)
    doubtful = frozenset(sizes) & {*(r.name for r in program.scalars), *_values(program.body)}
    lines = [f"program {program.name}{'  sizes ' if sizes else ''}{', '.join(map(size_text, sizes))}"]
    lines += [f"  {b.role} {declared(b)}" for b in program.passed]
    lines += [f"  scalar {r.name}: {r.dtype}" for r in program.scalars]
    lines += [f"  {b.role} {declared(b)}" for b in program.scratch]
    lines += _Printer(doubtful).block(program.body, "  ")
    return "\n".join(lines) + "\n"
