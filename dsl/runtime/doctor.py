"""What is installed here and which devices work.

In: nothing.  Out: findings as plain data, and as text with what to install where something is missing.
"""
from __future__ import annotations

import platform
import sys
from importlib import metadata
from typing import Any

PACKAGES = {
    "numpy": "the reference backend", "scipy": "special functions", "lark": "the parser", "click": "the command line",
    "prompt_toolkit": "the REPL", "rich": "tables", "safetensors": "saved state", "llvmlite": "native code on the CPU",
    "matplotlib": "plots to files", "uniplot": "plots in the terminal", "pyarrow": "Parquet files", "cupy": "CUDA",
}
EXTRAS = {"matplotlib": "plot", "uniplot": "plot", "pyarrow": "data", "cupy": "cuda12"}


def version_of(package: str) -> str | None:
    """The installed version; CuPy goes by several distribution names."""
    for name in (package, "cupy-cuda12x", "cupy-cuda13x") if package == "cupy" else (package,):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def examine() -> dict[str, Any]:
    """Python, packages and devices as found."""
    packages = {name: {"version": version_of(name), "for": use} for name, use in PACKAGES.items()}
    return {
        "lr": version_of("lr-lang"),
        "python": {"version": platform.python_version(), "executable": sys.executable, "platform": platform.platform()},
        "packages": packages,
        "devices": {"numpy": {"works": True, "why": "the reference backend"},
                    "cpu": {"works": False, "why": "native code is not in this version; scripts run on numpy"},
                    "cuda": cuda(packages["cupy"]["version"])},
    }


def cuda(version: str | None) -> dict[str, Any]:
    """Whether a GPU could be used, and what is in the way."""
    if version is None:
        return {"works": False, "why": "CuPy is not installed: pip install \"lr-lang[cuda12]\" (or cuda13); "
                                        "and GPU code is not in this version"}
    try:
        import cupy
        count = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as problem:
        return {"works": False, "why": f"CuPy {version} finds no GPU: {problem}; and GPU code is not in this version"}
    return {"works": False, "why": f"{count} GPU found, but GPU code is not in this version"}


def render(findings: dict[str, Any]) -> str:
    """The findings for a person."""
    python = findings["python"]
    lines = [f"lr {findings['lr'] or '(not installed as a package)'}, Python {python['version']}, {python['platform']}", "", "packages"]
    for name, found in findings["packages"].items():
        advice = f"missing; pip install \"lr-lang[{EXTRAS[name]}]\"" if name in EXTRAS else "missing"
        lines.append(f"  {name:<15} {found['version'] or advice:<12} {found['for']}")
    lines += ["", "devices"]
    lines.extend(f"  {name:<15} {'works' if found['works'] else 'not used':<12} {found['why']}"
                 for name, found in findings["devices"].items())
    return "\n".join(lines)
