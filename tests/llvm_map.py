"""A scalar expression as a loop over arrays, by LLVM: what the NumPy reading of expressions is compared with.

In: an expression over names.  Out: `Map`, which applies it to arrays, and the assembly its loop became.  There are no fast-math
flags, so LLVM's vectoriser may change no bit.
"""

import ctypes
import re
import struct

import llvmlite.binding as llvm
import numpy as np

from dsl.ir.types import is_float
from dsl.machine.expr import Const, walk
from dsl.machine.instructions import TABLE, kind

TYPE = {"float32": "float", "float64": "double", "int32": "i32", "int64": "i64", "bool": "i1"}
STORED = {**TYPE, "bool": "i8"}
SUFFIX = {"float32": "f32", "float64": "f64", "int32": "i32", "int64": "i64", "bool": "i1"}

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()


def literal(e):
    if is_float(e.dtype):
        return f"0x{struct.unpack('<Q', struct.pack('<d', e.value))[0]:016X}"
    return str(e.value).lower()


def conversion(source, target):
    if source == "bool":
        return "uitofp" if is_float(target) else "zext"
    if is_float(source):
        return ("fpext" if target == "float64" else "fptrunc") if is_float(target) else "fptosi"
    return "sitofp" if is_float(target) else "sext" if target == "int64" else "trunc"


def text(root, names):
    """`root` of the names' elements, as the function `map(operand …, result, count)`."""
    lines, declared, known = [], set(), {}

    def emit(instruction):
        lines.append(f"  %t{len(lines)} = {instruction}")
        return f"%t{len(lines) - 1}"

    for i, name in enumerate(names):
        place = emit(f"getelementptr inbounds {STORED[name.dtype]}, ptr %x{i}, i64 %i")
        value = emit(f"load {STORED[name.dtype]}, ptr {place}")
        known[name] = emit(f"trunc i8 {value} to i1") if name.dtype == "bool" else value
    for e in walk([root]):
        if e in known:
            continue
        if isinstance(e, Const):
            known[e] = literal(e)
            continue
        operands, source = [known[a] for a in e.args], e.args[0].dtype
        if e.op in ("to", "bits"):
            word = "bitcast" if e.op == "bits" else conversion(source, e.dtype)
            known[e] = emit(f"{word} {TYPE[source]} {operands[0]} to {TYPE[e.dtype]}")
            continue
        spelling = TABLE[e.op].llvm[kind(source)].format(*operands, t=TYPE[source], r=TYPE[e.dtype], s=SUFFIX[source])
        if call := re.match(r"call (\w+) (@[\w.]+)\((.*)\)", spelling):
            types = ", ".join(argument.split()[0] for argument in call[3].split(", "))
            declared.add(f"declare {call[1]} {call[2]}({types})")
        known[e] = emit(spelling)
    result = known[root]
    if root.dtype == "bool":
        result = emit(f"zext i1 {result} to i8")
    place = emit(f"getelementptr inbounds {STORED[root.dtype]}, ptr %y, i64 %i")
    operands = "".join(f"ptr noalias %x{i}, " for i in range(len(names)))
    return "\n".join([
        *sorted(declared), f"define void @map({operands}ptr noalias %y, i64 %n) #0 {{", "entry:", "  br label %loop", "loop:",
        "  %i = phi i64 [0, %entry], [%next, %loop]", *lines, f"  store {STORED[root.dtype]} {result}, ptr {place}",
        "  %next = add nuw nsw i64 %i, 1", "  %done = icmp eq i64 %next, %n", "  br i1 %done, label %end, label %loop",
        "end:", "  ret void", "}", 'attributes #0 = { nounwind "prefer-vector-width"="512" }'])


def optimised(source, cpu=None):
    """The module at O3, and its target machine: of this processor, or of another one of its kind."""
    features = "" if cpu else llvm.get_host_cpu_features().flatten()
    machine = llvm.Target.from_default_triple().create_target_machine(cpu=cpu or llvm.get_host_cpu_name(), features=features, opt=3)
    module = llvm.parse_assembly(source)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.loop_interleaving = options.loop_unrolling = options.slp_vectorization = True
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return module, machine


def assembly(root, names, cpu):
    module, machine = optimised(text(root, names), cpu)
    return machine.emit_assembly(module)


class Map:
    def __init__(self, root, names):
        module, machine = optimised(text(root, names))
        self.engine = llvm.create_mcjit_compiler(module, machine)
        self.engine.finalize_object()
        address = self.engine.get_function_address("map")
        self.function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (len(names) + 1), ctypes.c_int64)(address)
        self.dtypes, self.result = [n.dtype for n in names], root.dtype

    def __call__(self, *arrays):
        arrays = [np.ascontiguousarray(a) for a in arrays]
        assert [a.dtype.name for a in arrays] == self.dtypes and len({a.shape for a in arrays}) == 1
        y = np.empty(arrays[0].shape, self.result)
        self.function(*[a.ctypes.data for a in arrays], y.ctypes.data, y.size)
        return y
