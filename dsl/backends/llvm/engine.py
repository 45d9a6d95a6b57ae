"""From LLVM IR to code that runs: parse, optimise, make object code, load it.

In: the text of a module, or object code made of one earlier on such a processor.  Out: object code, and the addresses of
functions in an engine that is freed with it.  No flag lets LLVM change the arithmetic as written.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from weakref import finalize


@cache
def binding() -> Any:
    """llvmlite's binding, its native target ready."""
    import llvmlite.binding as llvm
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


@cache
def processor() -> tuple[str, str]:
    """The name and the features of the host."""
    llvm = binding()
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


@cache
def llvm_version() -> str:
    return ".".join(map(str, binding().llvm_version_info))


@cache
def wide_vectors() -> bool:
    return "+avx512f" in processor()[1].split(",")


def target_machine() -> Any:
    """A new one: an engine takes the one it is made with into its possession."""
    llvm = binding()
    name, features = processor()
    return llvm.Target.from_default_triple().create_target_machine(cpu=name, features=features, opt=3, jit=True)


@contextmanager
def _optimised(text: str) -> Iterator[tuple[Any, Any]]:
    """The module after the passes, and its machine.  It has a context of its own: what LLVM keeps of types and names goes too."""
    llvm = binding()
    machine, context = target_machine(), llvm.create_context()
    try:
        module = llvm.parse_assembly(text, context)
        try:
            module.triple = llvm.get_process_triple()
            module.data_layout = str(machine.target_data)
            tuning = llvm.create_pipeline_tuning_options(speed_level=3)
            tuning.loop_vectorization = tuning.slp_vectorization = tuning.loop_interleaving = tuning.loop_unrolling = True
            builder = llvm.create_pass_builder(machine, tuning)
            builder.getModulePassManager().run(module, builder)
            yield module, machine
        finally:
            module.close()
    finally:
        context.close()


def optimised_ir(text: str) -> str:
    with _optimised(text) as (module, _):
        return str(module)


def assembly(text: str) -> str:
    with _optimised(text) as (module, machine):
        return str(machine.emit_assembly(module))


def object_code(text: str) -> bytes:
    with _optimised(text) as (module, machine):
        return bytes(machine.emit_object(module))


def _free(engine: Any, context: Any) -> None:
    engine.close()
    context.close()


class Loaded:
    """Object code in memory, ready to run while this lives."""

    def __init__(self, code: bytes) -> None:
        llvm = binding()
        self._code = code                                       # LLVM does not say how long it looks at it
        self._context = llvm.create_context()
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly("", self._context), target_machine())
        # The engine goes before its context, also where a cycle of references dies at once.
        self._freed = finalize(self, _free, self._engine, self._context)
        self._freed.atexit = False
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()

    def address(self, symbol: str) -> int:
        return int(self._engine.get_function_address(symbol))

    def keep(self, *symbols: str) -> list[int]:
        """Their addresses, for good: the code is never freed, not even when the interpreter ends, as threads may sleep in it."""
        found = [self.address(s) for s in symbols]
        self._freed.detach()
        self._engine.detach()
        self._context.detach()
        return found
