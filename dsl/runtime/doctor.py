"""What is installed here and which devices work.

In: nothing.  Out: findings as plain data, and as text with what to install where something is missing.
"""
from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib import metadata
from typing import Any

from dsl.backends.cuda.memory import in_words
from dsl.backends.cuda.nvrtc import PACKAGE
from dsl.errors import LrError
from dsl.runtime.columns import counted
from dsl.runtime.environment import threads_wanted

PACKAGES = {
    "numpy": "the reference backend", "scipy": "special functions, and the BLAS of native code", "lark": "the parser",
    "click": "the command line", "prompt_toolkit": "the REPL", "rich": "tables", "safetensors": "saved state",
    "llvmlite": "native code on the CPU", "matplotlib": "plots to files",
    "pyarrow": "Parquet files", "cupy": "CUDA",
}
EXTRAS = {"matplotlib": "plot", "pyarrow": "data", "cupy": "cuda12"}


def version_of(package: str) -> str | None:
    """The installed version; CuPy goes by several distribution names, and none but one of them should be installed."""
    if package == "cupy":
        from dsl.backends.cuda.presence import packages
        return ", ".join(p.rpartition(" ")[2] for p in packages()) or None
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def examine() -> dict[str, Any]:
    """Python, packages, devices and native code as found."""
    native = native_code()
    return {
        "lr": version_of("lr-lang"),
        "python": {"version": platform.python_version(), "executable": sys.executable, "platform": platform.platform()},
        "packages": {name: {"version": version_of(name), "for": use} for name, use in PACKAGES.items()},
        "devices": {"numpy": {"works": True, "why": "the reference backend"},
                    "cpu": {"works": native["llvm"] is not None, "why": native["why"]},
                    "cuda": cuda()},
        "native": native,
        "cuda tools": cuda_tools(),
    }


def native_code() -> dict[str, Any]:
    """The compiler for this processor, and where it keeps code."""
    try:
        from dsl.backends.llvm import engine
        from dsl.backends.llvm.cache import MOST_BYTES, directory, private
        from dsl.backends.llvm.native import available_threads
        name, features = engine.processor()
        version = engine.llvm_version()
    except Exception as problem:                     # llvmlite may be missing, or be for another processor
        return {"llvm": None, "why": f"llvmlite does not work: {problem}; scripts run on numpy"}
    folder = directory()
    found = [entry.stat().st_size for entry in os.scandir(folder) if entry.is_file()] if private(folder) else []
    try:
        threads = threads_wanted()
    except LrError:
        threads = None
    return {"llvm": version, "why": "native code, by LLVM", "processor": name, "vector bits": vector_bits(features.split(",")),
            "threads": threads or available_threads(), "threads by": "LR_THREADS" if threads else "processors",
            "cache": {"directory": folder, "usable": private(folder), "files": len(found), "bytes": sum(found), "most bytes": MOST_BYTES}}


def vector_bits(features: list[str]) -> int | None:
    """The width of the vectors that code for this processor uses, None where that is not one number."""
    widths = {"+avx512f": 512, "+avx": 256, "+sse2": 128, "+neon": 128}
    return next((bits for feature, bits in widths.items() if feature in features), None)


def cuda() -> dict[str, Any]:
    """Whether a GPU can be used, what is in the way, and what could be better."""
    from dsl.backends.cuda import device, presence
    driver = presence.driver_version()
    missing = device.absent() or presence.trial()
    found: dict[str, Any] = {"works": missing is None, "driver": presence.dotted(driver) if driver else None, "remarks": presence.remarks()}
    if missing is not None:
        return {**found, "why": f"{missing[0]}: {missing[1]}"}
    import cupy
    current = cupy.cuda.Device()
    properties = cupy.cuda.runtime.getDeviceProperties(current.id)
    _, total = cupy.cuda.runtime.memGetInfo()
    name, number = properties["name"].decode(), current.compute_capability
    return {**found, "why": f"{name} (compute capability {number[:-1]}.{number[-1:]}, {in_words(int(total))}), "
                            f"through CuPy {version_of('cupy') or cupy.__version__}"}


def cuda_tools() -> dict[str, str | None]:
    """What compiles CUDA C here, with and without a GPU."""
    from dsl.backends.cuda import nvrtc
    try:
        compiler = ".".join(map(str, nvrtc.version()))
    except (nvrtc.NoCompiler, OSError):
        compiler = None
    return {"nvrtc": compiler, "cupy": version_of("cupy"), "g++": shutil.which("g++")}


def render(findings: dict[str, Any]) -> str:
    """The findings for a person."""
    python, native, tools = findings["python"], findings["native"], findings["cuda tools"]
    lines = [f"lr {findings['lr'] or '(not installed as a package)'}, Python {python['version']}, {python['platform']}", "", "packages"]
    for name, found in findings["packages"].items():
        advice = f": pip install \"lr-lang[{EXTRAS[name]}]\"" if name in EXTRAS and not found["version"] else ""
        lines.append(f"  {name:<15} {found['version'] or 'missing':<12} {found['for']}{advice}")
    lines += ["", "devices"]
    lines.extend(f"  {name:<15} {'works' if found['works'] else 'not used':<12} {found['why']}"
                 for name, found in findings["devices"].items())
    lines.extend(f"  {'':<15} {'':<12} {remark}" for remark in findings["devices"]["cuda"]["remarks"])
    if native["llvm"] is not None:
        cache, width = native["cache"], native["vector bits"]
        kept = f"{counted(cache['files'], 'file')}, {cache['bytes'] / 2 ** 20:.1f} of at most {cache['most bytes'] >> 20} MiB" \
            if cache["usable"] else "not used: it cannot be written, or somebody else may write it"
        lines += ["", "native code", f"  {'llvm':<15} {native['llvm']}",
                  f"  {'processor':<15} {native['processor']}" + (f", vectors of {width} bits" if width else ""),
                  f"  {'threads':<15} {native['threads']} ({native['threads by']})",
                  f"  {'cache':<15} {cache['directory']} ({kept})"]
    wanted = {"driver": "missing (for an NVIDIA GPU)",
              "nvrtc": f"missing; pip install {PACKAGE} (compiles CUDA C without a GPU, for the tests)",
              "cupy": "missing (launches kernels on a GPU)", "g++": "missing (runs kernels on the CPU, for the tests)"}
    known = findings["devices"]["cuda"]["driver"]
    tools = {"driver": f"for CUDA {known}" if known else None, **tools}
    lines += ["", "CUDA C", *(f"  {tool:<15} {tools[tool] or advice}" for tool, advice in wanted.items())]
    return "\n".join(lines)
