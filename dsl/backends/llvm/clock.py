"""The clock around a kernel or a product, where a build is to count what it does.

In: the function that a statement is printed into.  Out: what counts its run, its time, its flops and bytes.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dsl.backends.llvm.function import Function
from dsl.backends.llvm.meter import FIELDS
from dsl.ir.types import ONE, Dim
from dsl.loops.ir import Kernel, Product


@contextmanager
def measured(f: Function, s: Kernel | Product) -> Iterator[None]:
    """What is printed meanwhile is measured as `s`, if there is a meter."""
    meter = f.module.meter
    if meter is None:
        yield
        return
    f.module.helpers.add("now")
    number, began = meter.places[s], f.emit("call i64 @lr.now()", "began")
    yield
    elapsed = f.emit(f"sub i64 {f.emit('call i64 @lr.now()', 'ended')}, {began}")
    each = meter.parts[number].each
    values = ["1", elapsed, *(_value(f, d) for d in (each.flops, each.read, each.written))]
    for field, value in enumerate(values):
        place = f.emit(f"inttoptr i64 {meter.address + 8 * (FIELDS * number + field)} to ptr")
        f.emit(f"atomicrmw add ptr {place}, i64 {value} monotonic")


def _value(f: Function, dim: Dim) -> str:
    """A polynomial in sizes, and in scalars that are the extent of a loop; what neither is counts as 1."""
    with f.scope():
        for name in {s.name for s in dim.sizes() if s.value is None}:
            if name in f.sizes or name in f.entry_sizes:
                continue
            if name in f.names or name in f.entry_names:
                f.sizes[name] = f.read(f.name(name, "int64"), "int64")
            else:
                dim = dim.substitute({name: ONE})
        return f.dim(dim)
