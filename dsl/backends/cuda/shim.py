"""CUDA C run on the CPU.

In: a source and its functions.  Out: the functions in a shared library that g++ makes of the source and `shim.h`, and
`ShimLauncher`, which runs them on NumPy arrays.

Memory is allocated with a margin of known bytes on both sides, filled with 0xff; a launch that changes a margin fails.
Libraries are kept in a folder of the temporary directory that belongs to the user, under the hash of everything that made
them, so that what has been compiled once loads in a millisecond.
"""
from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from dsl.backends.cuda.launch import Argument, Array, Place
from dsl.backends.cuda.source import Function
from dsl.ir.types import DType
from dsl.record import entity

FLAGS = ("-O1", "-std=c++17", "-ffp-contract=off", "-fno-strict-aliasing", "-fvisibility=hidden", "-shared", "-fPIC")
C_SCALARS: dict[str, Any] = {"bool": ctypes.c_bool, "int32": ctypes.c_int32, "int64": ctypes.c_int64, "float32": ctypes.c_float,
                             "float64": ctypes.c_double}
MARGIN = 64
MARGIN_BYTE = 0xA5


class NoCompiler(Exception):
    """g++ is not installed."""


class ShimError(AssertionError):
    """What a kernel must not do: diverge at a barrier or a shuffle, write outside its arrays."""


def shim_source(source: str, functions: Sequence[Function]) -> str:
    """The source between the shim and an entry point for every function."""
    entries = []
    for f in functions:
        arguments = ", ".join(f"*({_type(p.declaration)}*)a[{k}]" for k, p in enumerate(f.parameters))
        entries.append(f'extern "C" __attribute__((visibility("default"))) int run_{f.name}'
                       f"(void** a, unsigned grid, unsigned block, uint64_t seed, char* text) {{\n"
                       f"    return lr_shim::launch(grid, block, seed, text, [=] {{ {f.name}({arguments}); }});\n}}\n")
    return f'#include "shim.h"\n\n{source}\n{"".join(entries)}'


def _type(declaration: str) -> str:
    """`const float* __restrict__ x` declares a `const float*`."""
    return re.sub(r"( __restrict__)? \w+$", "", declaration)


def build(source: str, functions: Sequence[Function]) -> ctypes.CDLL:
    """The library of a source.  Raises `NoCompiler`, or `ShimError` if g++ refuses the source."""
    compiler = shutil.which("g++")
    if compiler is None:
        raise NoCompiler("g++ is not installed")
    text = shim_source(source, functions)
    header = resources.files("dsl.backends.cuda").joinpath("shim.h").read_text(encoding="utf-8")
    key = hashlib.sha256("\0".join((text, header, *FLAGS, compiler)).encode()).hexdigest()[:32]
    library = _folder() / f"{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory() as place:
            Path(place, "shim.h").write_text(header, encoding="utf-8")
            Path(place, "kernels.cpp").write_text(text, encoding="utf-8")
            made = subprocess.run([compiler, *FLAGS, "kernels.cpp", "-o", "kernels.so"], cwd=place, capture_output=True, text=True)
            if made.returncode:
                raise ShimError(made.stderr[:4000])
            partial = library.with_suffix(f".{os.getpid()}")
            shutil.copyfile(Path(place, "kernels.so"), partial)
            partial.replace(library)
    return ctypes.CDLL(str(library))


def _folder() -> Path:
    """A folder that nobody else can write: what lies in it is loaded and run."""
    folder = Path(tempfile.gettempdir(), f"lr-shim-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ShimError(f"{folder} is not a folder of this user alone")
    return folder


@entity
class ShimMemory:
    """`bytes` with a margin before and behind; `elements` are what is between."""

    bytes: Array
    elements: Array


class ShimLauncher:
    """`seed` chooses the order in which blocks and threads run."""

    def __init__(self, seed: int = 0, most_blocks: int = 64) -> None:
        self.seed, self.most_blocks = seed, most_blocks
        self.launches = 0

    def load(self, source: str, functions: Sequence[Function]) -> dict[str, Any]:
        if not functions:
            return {}
        library = build(source, functions)
        return {f.name: getattr(library, f"run_{f.name}") for f in functions}

    def allocate(self, dtype: DType, count: int) -> ShimMemory:
        size = count * np.dtype(dtype).itemsize
        raw = np.full(size + 2 * MARGIN, MARGIN_BYTE, np.uint8)
        raw[MARGIN:MARGIN + size] = 0xFF
        return ShimMemory(raw, raw[MARGIN:MARGIN + size].view(dtype))

    def upload(self, place: Place, values: Array) -> None:
        self.array(place)[...] = values

    def download(self, place: Place) -> Array:
        return self.array(place).copy()

    def launch(self, function: Any, grid: int, block: int, arguments: Sequence[Argument]) -> None:
        values = [ctypes.c_void_p(a.of.elements.ctypes.data + a.offset * np.dtype(a.dtype).itemsize) if isinstance(a, Place) else
                  C_SCALARS[a.dtype.name](a.item()) for a in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
        message = ctypes.create_string_buffer(256)
        self.launches += 1
        seed = (self.seed << 20) + self.launches
        if function(pointers, ctypes.c_uint(grid), ctypes.c_uint(block), ctypes.c_uint64(seed), message):
            raise ShimError(message.value.decode())
        for a in arguments:
            if isinstance(a, Place) and not ((a.of.bytes[:MARGIN] == MARGIN_BYTE).all() and (a.of.bytes[-MARGIN:] == MARGIN_BYTE).all()):
                raise ShimError(f"argument {arguments.index(a)} was written outside its array")

    def product(self, out: Place, a: Place, b: Place, a_transposed: bool, b_transposed: bool) -> None:
        left, right = self.array(a).astype(np.float64), self.array(b).astype(np.float64)
        self.array(out)[...] = (left.T if a_transposed else left) @ (right.T if b_transposed else right)

    @staticmethod
    def array(place: Place) -> Array:
        elements: Array = place.of.elements[place.offset:place.offset + place.count]
        return elements.reshape(place.shape)
