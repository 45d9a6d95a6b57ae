"""From LLVM IR to code that runs: parse, optimise, make object code, load it.

In: the text of a module, or object code made of one earlier on such a processor.  Out: object code, and the addresses of
functions in an engine that is freed with it.  No flag lets LLVM change the arithmetic as written.
"""
from __future__ import annotations

import threading
from functools import cache
from typing import Any

_lock = threading.RLock()               # LLVM's global state is initialised and its modules are made by one thread at a time


@cache
def binding() -> Any:
    """llvmlite's binding, its native target ready."""
    import llvmlite.binding as llvm
    with _lock:
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


class Optimised:
    """A module after the passes; its context goes with it."""

    def __init__(self, text: str) -> None:
        llvm = binding()
        with _lock:
            self.context = llvm.create_context()
            self.machine = target_machine()
            self.module = llvm.parse_assembly(text, self.context)
            self.module.triple = llvm.get_process_triple()
            self.module.data_layout = str(self.machine.target_data)
            tuning = llvm.create_pipeline_tuning_options(speed_level=3)
            tuning.loop_vectorization = tuning.slp_vectorization = tuning.loop_interleaving = tuning.loop_unrolling = True
            builder = llvm.create_pass_builder(self.machine, tuning)
            builder.getModulePassManager().run(self.module, builder)

    def __str__(self) -> str:
        return str(self.module)

    def assembly(self) -> str:
        return str(self.machine.emit_assembly(self.module))

    def object_code(self) -> bytes:
        return bytes(self.machine.emit_object(self.module))


class Loaded:
    """Object code in memory, ready to run until `close`."""

    def __init__(self, object_code: bytes) -> None:
        llvm = binding()
        with _lock:
            self._context = llvm.create_context()
            self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly("", self._context), target_machine())
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(object_code))
            self._engine.finalize_object()

    def address(self, symbol: str) -> int:
        return int(self._engine.get_function_address(symbol))

    def keep(self, *symbols: str) -> list[int]:
        """Their addresses, for good: the code is never freed, not even when the interpreter ends, as threads may sleep in it."""
        found = [self.address(s) for s in symbols]
        self._engine.detach()
        self._context.detach()
        return found

    def close(self) -> None:
        with _lock:
            self._engine.close()
            self._context.close()
