"""Products of matrices.

In: a `Product`.  Out: the call of one of four functions an element type, written when first needed:

    product(frame, out, a, b, m, n, k)           decides by the shape alone: plain loops, one library call, or tiles of `out`
    tile(environment, run, worker)               rows or columns of `out`, by the library
    loops(out, a, b, m, n, k)                    plain loops: small products, integers, and what a 32-bit length cannot say

The library is BLAS, in Fortran's order: a row-major matrix is its transpose there, so out' = b' a' is what is asked for.
Tiles never cut k, and their edges follow from the shape, so the number of threads changes no bit.
"""
from __future__ import annotations

from dsl.backends.llvm.frame import DGEMM, SGEMM
from dsl.backends.llvm.function import STORED, SUFFIX, TYPES, Function, Module
from dsl.backends.llvm.runs import share
from dsl.ir.types import DType, is_float
from dsl.loops.ir import Product

SMALL = 128                             # multiplications up to which plain loops are faster than a call of the library
TILE = 8_388_608                        # the least multiplications of a tile
LEAST = 256                             # its least rows or columns: the library packs an operand anew for every tile
BAND = 32                               # they are a multiple of this
LIBRARY: dict[DType, int] = {"float32": SGEMM, "float64": DGEMM}


def product(f: Function, p: Product) -> None:
    dtype = p.out.dtype
    name = f"lr.product.{SUFFIX[dtype]}.{'t' if p.a_transposed else 'n'}{'t' if p.b_transposed else 'n'}"
    if name not in f.module.helpers:
        f.module.helpers.add(name)
        f.module.functions += write(f.module, name, dtype, p.a_transposed, p.b_transposed)
    (m, n), k = (f.dim(d) for d in p.out.shape), f.dim(p.a.shape[0 if p.a_transposed else 1])
    arrays = ", ".join(f"ptr {f.pointer(b)}" for b in (p.out, p.a, p.b))
    f.do(f"call void @{name}(ptr {f.frame()}, {arrays}, i64 {m}, i64 {n}, i64 {k})")


def write(module: Module, name: str, dtype: DType, a_transposed: bool, b_transposed: bool) -> list[str]:
    made = [_loops(module, name, dtype, a_transposed, b_transposed)]
    if is_float(dtype):
        return [*made, _decide(module, name), _tile(module, name, dtype, a_transposed, b_transposed)]
    f = Function(module)
    f.do(f"call void @{name}.loops({_ARRAYS})")
    f.do("ret void")
    return [*made, f.text(f"define internal void @{name}(ptr %frame, {_ARRAYS}) #0")]


_ARRAYS = "ptr %out, ptr %a, ptr %b, i64 %m, i64 %n, i64 %k"
_KEPT = ["ptr %out", "ptr %a", "ptr %b", "i64 %m", "i64 %n", "i64 %k", "ptr %frame"]


def _loops(module: Module, name: str, dtype: DType, a_transposed: bool, b_transposed: bool) -> str:
    f = Function(module)
    type_, zero = TYPES[dtype], "0.0" if is_float(dtype) else "0"

    def at(pointer: str, row: str, length: str, column: str) -> str:
        start = f.emit(f"mul nuw nsw i64 {row}, {length}")
        return f.emit(f"getelementptr inbounds {STORED[dtype]}, ptr {pointer}, i64 {f.emit(f'add nuw nsw i64 {start}, {column}')}")

    def left(i: str, l: str) -> str:
        return f.load(at("%a", l, "%m", i) if a_transposed else at("%a", i, "%k", l), dtype)

    def step(x: str, y: str, total: str) -> str:
        if is_float(dtype):
            return f.emit(f"fadd reassoc contract {type_} {total}, {f.emit(f'fmul reassoc contract {type_} {x}, {y}')}")
        return f.emit(f"add {type_} {total}, {f.emit(f'mul {type_} {x}, {y}')}")

    total = f.slot(type_)
    with f.counting("0", "%m") as i:
        if b_transposed:                                        # rows meet rows
            with f.counting("0", "%n") as j:
                f.do(f"store {type_} {zero}, ptr {total}")
                with f.counting("0", "%k") as l:
                    x, y = left(i, l), f.load(at("%b", j, "%k", l), dtype)
                    f.do(f"store {type_} {step(x, y, f.emit(f'load {type_}, ptr {total}'))}, ptr {total}")
                f.store(at("%out", i, "%n", j), dtype, f.emit(f"load {type_}, ptr {total}"))
        else:                                                   # a row of out gathers rows of b
            with f.counting("0", "%n") as j:
                f.store(at("%out", i, "%n", j), dtype, zero)
            with f.counting("0", "%k") as l:
                x = left(i, l)
                with f.counting("0", "%n") as j:
                    place = at("%out", i, "%n", j)
                    f.store(place, dtype, step(x, f.load(at("%b", l, "%n", j), dtype), f.load(place, dtype)))
    f.do("ret void")
    arrays = "ptr noalias %out, ptr noalias readonly %a, ptr noalias readonly %b, i64 %m, i64 %n, i64 %k"
    small = "optsize " * is_float(dtype)                        # the library does what is worth vectors
    return f.text(f"define internal void @{name}.loops({arrays}) noinline {small}#0")


def _decide(module: Module, name: str) -> str:
    f = Function(module)
    lengths = [f.emit(f"sitofp i64 {x} to double") for x in ("%m", "%n", "%k")]
    area = f.emit(f"fmul double {lengths[0]}, {lengths[1]}")
    work = f.emit(f"fmul double {area}, {lengths[2]}")
    longest = f.emit("call i64 @llvm.smax.i64(i64 %m, i64 %n)")
    longest = f.emit(f"call i64 @llvm.smax.i64(i64 {longest}, i64 %k)")
    plain, library, after = (f.label(x) for x in ("plain", "library", "after"))
    small = f.emit(f"fcmp ole double {work}, {SMALL}.0")
    f.branch(f.emit(f"or i1 {small}, {f.emit(f'icmp sgt i64 {longest}, 2147483647')}"), plain, library)
    f.begin(plain)
    f.do(f"call void @{name}.loops({_ARRAYS})")
    f.jump(after)
    f.begin(library)
    environment = f.emit_entry(f"alloca [{len(_KEPT) + 1} x i64]", "environment")
    edge = f.emit("call i64 @llvm.smax.i64(i64 %m, i64 %n)", "edge")
    wanted = f.emit(f"call i64 @llvm.fptosi.sat.i64.f64(double {f.emit(f'fdiv double {work}, {TILE}.0')})")
    bands = f.emit(f"sdiv i64 {edge}, {LEAST}")
    tiles = f.emit(f"call i64 @llvm.smin.i64(i64 {wanted}, i64 {bands})")
    tiles = f.emit(f"call i64 @llvm.smin.i64(i64 {tiles}, i64 64)")
    tiles = f.emit(f"call i64 @llvm.smax.i64(i64 {tiles}, i64 1)")
    zeros = f.emit(f"call i64 @llvm.ctlz.i64(i64 {tiles}, i1 true)")
    tiles = f.emit(f"lshr i64 {-(1 << 63)}, {zeros}")                 # a power of two, so that threads have equal shares
    up = f.emit(f"add i64 {edge}, {tiles}")
    exact = f.emit(f"sdiv i64 {f.emit(f'sub i64 {up}, 1')}, {tiles}")
    rounded = f.emit(f"and i64 {f.emit(f'add i64 {exact}, {BAND - 1}')}, {-BAND}")
    several = f.emit(f"icmp sgt i64 {tiles}, 1")
    length = f.emit(f"select i1 {several}, i64 {rounded}, i64 {edge}")
    last = f.emit(f"add i64 {edge}, {length}")
    count = f.emit(f"sdiv i64 {f.emit(f'sub i64 {last}, 1')}, {length}")
    for position, kept in enumerate([*_KEPT, f"i64 {length}"]):
        f.do(f"store {kept}, ptr {f.word(environment, position)}")
    share(f, f"{name}.tile", environment, count, f.emit(f"call i64 @llvm.fptosi.sat.i64.f64(double {work})"))
    f.jump(after)
    f.begin(after)
    f.do("ret void")
    return f.text(f"define internal void @{name}(ptr %frame, {_ARRAYS}) noinline optnone #0")


def _tile(module: Module, name: str, dtype: DType, a_transposed: bool, b_transposed: bool) -> str:
    f = Function(module)
    kinds = [*(kept.split()[0] for kept in _KEPT), "i64"]
    out, a, b, m, n, k, frame, length = (
        f.emit(f"load {type_}, ptr {f.word('%environment', i)}") for i, type_ in enumerate(kinds))
    tall = f.emit(f"icmp sge i64 {m}, {n}")
    edge = f.emit(f"select i1 {tall}, i64 {m}, i64 {n}")
    start = f.emit(f"mul i64 %run, {length}")
    size = f.emit(f"call i64 @llvm.smin.i64(i64 {length}, i64 {f.emit(f'sub i64 {edge}, {start}')})")

    def cut(rows: bool) -> tuple[str, str]:
        """Where a tile begins along rows (or columns), and how many it has."""
        mine = tall if rows else f.emit(f"xor i1 {tall}, true")
        return f.emit(f"select i1 {mine}, i64 {start}, i64 0"), f.emit(f"select i1 {mine}, i64 {size}, i64 {m if rows else n}")

    (row, rows), (column, columns) = cut(True), cut(False)

    def shifted(pointer: str, by: str, stride: str) -> str:
        return f.emit(f"getelementptr inbounds {STORED[dtype]}, ptr {pointer}, i64 {f.emit(f'mul i64 {by}, {stride}')}")

    out = shifted(shifted(out, row, n), column, "1")
    a = shifted(a, row, "1" if a_transposed else k)
    b = shifted(b, column, k if b_transposed else "1")

    def boxed(type_: str, value: str) -> str:
        box = f.emit_entry(f"alloca {type_}")
        f.do(f"store {type_} {value}, ptr {box}")
        return f"ptr {box}"

    def int32(value: str) -> str:
        return boxed("i32", f.emit(f"trunc i64 {value} to i32"))

    def letter(transposed: bool) -> str:
        return boxed("i8", str(ord("T" if transposed else "N")))

    routine = f.emit(f"load ptr, ptr {f.word(frame, LIBRARY[dtype])}")
    type_ = TYPES[dtype]
    arguments = [letter(b_transposed), letter(a_transposed), int32(columns), int32(rows), int32(k), boxed(type_, "1.0"),
                 f"ptr {b}", int32(k if b_transposed else n), f"ptr {a}", int32(m if a_transposed else k), boxed(type_, "0.0"),
                 f"ptr {out}", int32(n)]
    f.do(f"call void {routine}({', '.join(arguments)})")
    f.do("ret void")
    return f.text(f"define internal void @{name}.tile(ptr %environment, i64 %run, i64 %worker) #0")
