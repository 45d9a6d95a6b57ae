"""CUDA C compiled by NVRTC, without a device or a driver.

In: source text and an architecture.  Out: `Compiled`: machine code for a real architecture (`sm_90`), PTX, and what the log says.
The library comes with the package `nvidia-cuda-nvrtc`, or with the toolkit that CuPy's `[ctk]` extra installs.

Multiplications and additions are not fused, denormals are kept, divisions and roots are rounded correctly: NVRTC's
defaults, but for the fusing.
"""
from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import re
from functools import cache
from pathlib import Path

from dsl.record import record

OPTIONS = ("--fmad=false", "--std=c++17")
PACKAGE = "nvidia-cuda-nvrtc"


class NoCompiler(Exception):
    """NVRTC is not installed."""


class CompileError(Exception):
    """The source does not compile; the text has NVRTC's first complaints, each with the line it is about."""


@record
class Compiled:
    """`cubin` is empty for a virtual architecture (`compute_90`)."""

    cubin: bytes
    ptx: str
    log: str


@cache
def library() -> ctypes.CDLL:
    """NVRTC, the newest that is installed.  Raises `NoCompiler`."""
    spec = importlib.util.find_spec("nvidia")
    found = [p for place in (spec.submodule_search_locations or () if spec else ()) for p in Path(place).glob("*/lib/libnvrtc*.so.*")]
    libraries = sorted((p for p in found if re.fullmatch(r"libnvrtc\.so\.[\d.]+", p.name)), key=lambda p: _version(p.name))
    path = str(libraries[-1]) if libraries else ctypes.util.find_library("nvrtc")
    if path is None:
        raise NoCompiler(f"NVRTC is not installed: `pip install {PACKAGE}`")
    for builtins in found:
        if builtins.parent == Path(path).parent and "builtins" in builtins.name and ".alt." not in builtins.name:
            ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)       # NVRTC looks for it by its bare name
    loaded = ctypes.CDLL(path)
    loaded.nvrtcGetErrorString.restype = ctypes.c_char_p
    return loaded


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", name))


def version() -> tuple[int, int]:
    major, minor = ctypes.c_int(), ctypes.c_int()
    library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


def compile_source(source: str, architecture: str = "sm_90", name: str = "kernels.cu") -> bytes:
    """A cubin for `sm_…`, PTX for `compute_…`.  Raises `CompileError` and `NoCompiler`."""
    made = compiled(source, architecture, name=name)
    return made.cubin or made.ptx.encode()


def compiled(source: str, architecture: str, more: tuple[str, ...] = (), name: str = "kernels.cu") -> Compiled:
    """All of it; `more` are options besides.  Raises `CompileError` and `NoCompiler`.  Threads may do so at the same time."""
    nvrtc = library()
    program = ctypes.c_void_p()
    _check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), name.encode(), 0, None, None))
    try:
        options = [f"--gpu-architecture={architecture}".encode(), *(o.encode() for o in (*OPTIONS, *more))]
        status = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        log = _text(_fetched(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program))
        if status:
            raise CompileError(complaints(log, source, name) or nvrtc.nvrtcGetErrorString(status).decode())
        cubin = _fetched(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program) if architecture.startswith("sm_") else b""
        return Compiled(cubin, _text(_fetched(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program)), log)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def supported() -> list[str]:
    """The architectures that this NVRTC compiles for."""
    count = ctypes.c_int()
    _check(library().nvrtcGetNumSupportedArchs(ctypes.byref(count)))
    numbers = (ctypes.c_int * count.value)()
    _check(library().nvrtcGetSupportedArchs(numbers))
    return [f"sm_{n}" for n in numbers]


def complaints(log: str, source: str, name: str, most: int = 5) -> str:
    """The errors of a log, each under the line of source it is about."""
    lines = source.splitlines()
    found = re.findall(rf"^{re.escape(name)}\((\d+)\): (?:catastrophic )?error\s*(?:#[\w-]+)?: (.*)$", log, re.MULTILINE)
    texts = [f"{name}:{number}: {message}\n    {lines[int(number) - 1].strip() if int(number) <= len(lines) else ''}"
             for number, message in found[:most]]
    if len(found) > most:
        texts.append(f"… and {len(found) - most} more errors")
    return "\n".join(texts) or log.strip()


def _fetched(size: ctypes._NamedFuncPointer, get: ctypes._NamedFuncPointer, program: ctypes.c_void_p) -> bytes:
    count = ctypes.c_size_t()
    _check(size(program, ctypes.byref(count)))
    text = ctypes.create_string_buffer(count.value)
    _check(get(program, text))
    return text.raw


def _text(content: bytes) -> str:
    return content.rstrip(b"\0").decode(errors="replace").strip()


def _check(status: int) -> None:
    if status:
        raise CompileError(library().nvrtcGetErrorString(status).decode())
