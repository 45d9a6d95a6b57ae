"""CUDA C run on the CPU.

In: a source and its functions.  Out: the functions in a shared library that g++ makes of the source and `shim.h`, and
`ShimLauncher`, which runs them on NumPy arrays.

Memory is full of 0xff (nan, -1) at first and has a margin on both sides, of an own number each time: a signalling nan, so that
what is read from it shows in a result.  A launch that changes a margin fails.
Libraries are kept in a folder of the temporary directory that belongs to the user, under the hash of everything that made
them, so that what has been compiled once loads in a millisecond.
"""
from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import re
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from dsl.backends.cuda.choice import H200
from dsl.backends.cuda.launch import Argument, Array, Place
from dsl.backends.cuda.source import Function
from dsl.ir.types import DType
from dsl.record import entity

FLAGS = ("-O1", "-std=c++17", "-ffp-contract=off", "-fno-strict-aliasing", "-fvisibility=hidden", "-fPIC",
         "-fsanitize=alignment,signed-integer-overflow,shift,integer-divide-by-zero,bounds", "-fno-sanitize-recover=undefined")
C_SCALARS: dict[str, Any] = {"bool": ctypes.c_bool, "int32": ctypes.c_int32, "int64": ctypes.c_int64, "float32": ctypes.c_float,
                             "float64": ctypes.c_double}
PREEMPTIVE = ("-DLR_PREEMPT", "-fsanitize-coverage=trace-pc")
WATCHED = ("-DLR_WATCH", "-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0")
HEADERS = ("shim.h", "shim_grid.h", "shim_watch.h")
MARGIN = ALIGNED = 64
MOST_THREADS, STACK, MOST_SHARED = 1024, 128 * 1024, 99 * 1024
DYNAMIC = re.compile(r"\bextern __shared__ (?:__align__\(\d+\) )?([\w <>:]+?) (\w+)\[\];")
SHARED = re.compile(r"\b__shared__ (?:__align__\(\d+\) )?([\w <>:]+?) (\w+)((?:\[[^\[\]]*\])*);")
SIGNALLING = {"float32": (np.uint32, 0xFFBF_FFFF, 0x7F80_0000), "float64": (np.uint64, 0xFFF7_FFFF_FFFF_FFFF, 0x7FF0_0000_0000_0000)}
"""The bits a number may have, and must have, to be a nan that no arithmetic makes."""


class NoCompiler(Exception):
    """g++ is not installed."""


class ShimError(AssertionError):
    """What a kernel must not do: diverge at a barrier or a shuffle, write outside its arrays."""


def shim_source(source: str, functions: Sequence[Function]) -> str:
    """The source between the shim and an entry point for every function.  Lines keep their numbers."""
    entries = []
    for f in functions:
        arguments = ", ".join(f"*({_type(p.declaration)}*)a[{k}]" for k, p in enumerate(f.parameters))
        names = ", ".join(f"a{k}" for k in range(len(f.parameters)))
        held = "".join(f", a{k} = {argument}" for k, argument in enumerate(arguments.split(", "))) if f.parameters else ""
        entries.append(f'extern "C" __attribute__((visibility("default"))) int run_{f.name}(void** a, const lr_shim::Launch* asked) {{\n'
                       f"    return lr_shim::launch(asked, [={held}] {{ ::program::{f.name}({names}); }});\n}}\n")
    inside = source.replace('extern "C" __global__', "__global__")          # the C library has functions of its own
    inside = DYNAMIC.sub(r"LR_NEAR(\1, \2)", inside)
    inside = SHARED.sub(r"typedef \1 lr_type_of_\2\3; LR_SHARED(lr_type_of_\2, \2)", inside)
    return f'#include "shim.h"\n\nnamespace program {{\n#line 1 "kernels.cu"\n{inside}\n{"".join(entries)}}}\n'


def _type(declaration: str) -> str:
    """`const float* __restrict__ x` declares a `const float*`."""
    return re.sub(r"( __restrict__)? \w+$", "", declaration)


def build(source: str, functions: Sequence[Function], preemptive: bool = False, watched: bool = False) -> ctypes.CDLL:
    """The library of a source.  Raises `NoCompiler`, or `ShimError` if g++ refuses the source."""
    flags = (*FLAGS, *(PREEMPTIVE if preemptive else ()), *(WATCHED if watched else ()))
    compiler = shutil.which("g++")
    if compiler is None:
        raise NoCompiler("g++ is not installed")
    text = shim_source(source, functions)
    headers = {name: resources.files("dsl.backends.cuda").joinpath(name).read_text(encoding="utf-8") for name in HEADERS}
    key = hashlib.sha256("\0".join((text, *headers.values(), *flags, compiler)).encode()).hexdigest()[:32]
    library = _folder() / f"{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory() as place:
            for name, header in headers.items():
                Path(place, name).write_text(header, encoding="utf-8")
            Path(place, "shimmed.cpp").write_text(text, encoding="utf-8")
            for command in ([*flags, "-c", "shimmed.cpp"], ["-shared", "-Wl,-z,defs", "shimmed.o", "-o", "shimmed.so"]):
                made = subprocess.run([compiler, *command], cwd=place, capture_output=True, text=True)
                if made.returncode:
                    raise ShimError(made.stderr[:4000])
            partial = library.with_suffix(f".{os.getpid()}")
            shutil.copyfile(Path(place, "shimmed.so"), partial)
            partial.replace(library)
    return ctypes.CDLL(str(library))


class Range(ctypes.Structure):
    """Memory that a kernel may touch, of elements of `granule` bytes.  As `shim.h` has it, like the next."""

    _fields_ = (("begin", ctypes.c_void_p), ("size", ctypes.c_uint64), ("granule", ctypes.c_uint64), ("records", ctypes.c_void_p))


class Launch(ctypes.Structure):
    _fields_ = (*((name, ctypes.c_uint64) for name in ("grid", "block", "shared", "shared_most", "together", "seed", "arguments",
                                                       "ranges")),
                ("range", ctypes.POINTER(Range)), ("stacks", ctypes.c_void_p), ("message", ctypes.c_void_p))


class _Stacks:
    """Memory for the threads' stacks, which all libraries share; one launch at a time has it."""

    def __init__(self) -> None:
        self.lock, self.size = threading.Lock(), 0

    def enough(self, threads: int) -> int:
        """The address of memory for the stacks of so many threads."""
        if threads * STACK > self.size:
            self.size = threads * STACK
            self.memory = mmap.mmap(-1, self.size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return ctypes.addressof(ctypes.c_char.from_buffer(self.memory))


_stacks = _Stacks()


def run(function: Any, values: Sequence[Any], grid: int, block: int, seed: int, shared: int = 0, together: bool = False,
        most_shared: int = MOST_SHARED, ranges: Sequence[Range] = ()) -> None:
    """Calls a function of a library; `values` are ctypes objects.  Raises `ShimError`."""
    if not (0 < block <= MOST_THREADS and 0 < grid < 1 << 31):
        raise ShimError(f"no such launch: {grid} blocks of {block} threads")
    if shared > most_shared:
        raise ShimError(f"no such launch: {shared} bytes of dynamic shared memory, where {most_shared} is the most")
    pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
    message = ctypes.create_string_buffer(256)
    with _stacks.lock:
        launch = Launch(grid, block, shared, most_shared, together, seed, len(values), len(ranges), (Range * len(ranges))(*ranges),
                        _stacks.enough(block * grid if together else block), ctypes.addressof(message))
        if function(pointers, ctypes.byref(launch)):
            raise ShimError(message.value.decode())


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
    """`elements` with a margin of equal numbers before and behind, in `whole`."""

    whole: Array
    elements: Array
    margin: bytes

    def intact(self) -> bool:
        return self.whole[:MARGIN].tobytes() == self.margin == self.whole[-MARGIN:].tobytes()


def margin(dtype: DType, number: int) -> bytes:
    random = np.random.default_rng(number).integers(0, 256, size=MARGIN, dtype=np.uint8)
    if dtype in SIGNALLING:
        unsigned, may, must = SIGNALLING[dtype]
        random = random.view(unsigned) & unsigned(may) | unsigned(must | 1)
    return random.tobytes()


def _range(memory: ShimMemory) -> Range:
    """What a kernel may touch; of an array without elements the first one may be read."""
    elements = memory.elements
    return Range(elements.ctypes.data, max(elements.nbytes, elements.itemsize), elements.itemsize, None)


NOTHING = Range(None, 0, 1, None)


class ShimLauncher:
    """`seed` chooses the order in which blocks and threads run; `preemptive` ones are put aside anywhere, not at barriers only.

    With `sanitize` every access is looked at: one outside all arrays fails, also if it reads, and so do two that race."""

    def __init__(self, seed: int = 0, most_blocks: int = 64, preemptive: bool = False, sanitize: bool = False,
                 shared_bytes: int = MOST_SHARED, blocks_together: int = 4) -> None:
        self.seed, self.most_blocks, self.preemptive, self.sanitize = seed, most_blocks, preemptive, sanitize
        self.shared_bytes, self.blocks_together = shared_bytes, blocks_together
        self.figures = H200
        self.launches = self.allocations = 0
        self.addressed: list[ShimMemory] = []                    # what the next launch finds by its address

    def load(self, source: str, functions: Sequence[Function]) -> dict[str, Any]:
        if not functions:
            return {}
        library = build(source, functions, self.preemptive, self.sanitize)
        return {f.name: getattr(library, f"run_{f.name}") for f in functions}

    def allocate(self, dtype: DType, count: int) -> ShimMemory:
        size = count * np.dtype(dtype).itemsize
        self.allocations += 1
        room, around = np.full(size + 2 * MARGIN + ALIGNED, 0xFF, np.uint8), margin(dtype, self.allocations)
        whole = room[-room.ctypes.data % ALIGNED:][:size + 2 * MARGIN]
        whole[:MARGIN] = whole[-MARGIN:] = np.frombuffer(around, np.uint8)
        return ShimMemory(whole, whole[MARGIN:MARGIN + size].view(dtype), around)

    def part(self, of: ShimMemory, first: int, end: int, dtype: DType, count: int) -> ShimMemory:
        return ShimMemory(of.whole, of.elements[first:end].view(dtype)[:count], of.margin)

    def queue(self) -> int:
        return 0

    def upload(self, place: Place, values: Array) -> None:
        self.array(place)[...] = values

    def download(self, place: Place) -> Array:
        return self.array(place).copy()

    def copy(self, to: Place, source: Place) -> None:
        self.array(to)[...] = self.array(source)

    def most_together(self, function: Any, block: int, shared: int) -> int:
        return self.blocks_together

    def address(self, of: ShimMemory) -> int:
        self.addressed.append(of)
        return int(of.elements.ctypes.data)

    def launch(self, function: Any, grid: int, block: int, arguments: Sequence[Argument], shared: int = 0,
               together: bool = False) -> None:
        if together and grid > self.most_together(function, block, shared):
            raise ShimError(f"no such launch: {grid} blocks cannot run together")
        values = [ctypes.c_void_p(a.of.elements.ctypes.data + a.offset * np.dtype(a.dtype).itemsize) if isinstance(a, Place) else
                  C_SCALARS[a.dtype.name](a.item()) for a in arguments]
        self.launches += 1
        addressed, self.addressed = self.addressed, []
        ranges = [*(_range(a.of) if isinstance(a, Place) else NOTHING for a in arguments), *map(_range, addressed)] if self.sanitize else ()
        run(function, values, grid, block, (self.seed << 20) + self.launches, shared, together, self.shared_bytes, ranges)
        for number, a in enumerate(arguments):
            if isinstance(a, Place) and not a.of.intact():
                raise ShimError(f"argument {number} was written outside its array")
        for number, memory in enumerate(addressed):
            if not memory.intact():
                raise ShimError(f"place {number} was written outside its array")

    def product(self, out: Place, a: Place, b: Place, a_transposed: bool, b_transposed: bool) -> None:
        left, right = self.array(a).astype(np.float64), self.array(b).astype(np.float64)
        self.array(out)[...] = (left.T if a_transposed else left) @ (right.T if b_transposed else right)

    @staticmethod
    def array(place: Place) -> Array:
        elements: Array = place.of.elements[place.offset:place.offset + place.count]
        return elements.reshape(place.shape)
