"""Whether there is a GPU that can be used, and if not, what is in the way.

In: this machine.  Out: `driver_here`, which asks the file system only; `problem`, the first thing that keeps a GPU from being used, with
what to do about it; `trial`, which runs something on it; `remarks` on what works but could be better.

CuPy is imported by `problem` and what follows, and only if it is installed.
"""
from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from typing import Any

Problem = tuple[str, str]
"""What is in the way, and what to do about it."""

PACKAGES = ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x", "cupy-cuda14x", "cupy-rocm-4-3", "cupy-rocm-5-0", "cupy-rocm-7-0")
OLDEST, OLDEST_OF_13 = 60, 75
"""Compute capabilities: below the first no kernel of ours runs, below the second CUDA 13 compiles for none."""
NO_HEADERS = ("cannot open source file", "could not open source file", "CUDA headers", "CUDA_PATH", "CUDA root directory")
"""What NVRTC and CuPy say, depending on their versions, where CUDA's headers are missing."""
LONGEST = 120
"""Characters of another library's message that are shown."""
DRIVERS = ("/dev/nvidiactl", "/dev/nvidia0", "/usr/lib/wsl/lib/libcuda.so.1")


def driver_here() -> bool:
    """Whether this machine has an NVIDIA driver and this process may see GPUs.  Costs microseconds."""
    if hidden() or sys.platform == "darwin":
        return False
    if os.name == "nt":
        return os.path.exists(os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "nvcuda.dll"))
    return any(map(os.path.exists, DRIVERS))


def hidden() -> bool:
    """Whether CUDA_VISIBLE_DEVICES leaves no GPU: it is set, and empty or begins with -1."""
    text = os.environ.get("CUDA_VISIBLE_DEVICES")
    return text is not None and text.strip().partition(",")[0].strip() in ("", "-1")


def driver_version() -> tuple[int, int] | None:
    """The newest CUDA that the driver knows; None without a driver."""
    import ctypes
    for name in ("nvcuda.dll",) if os.name == "nt" else ("libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"):
        try:
            found = ctypes.c_int(0)
            if ctypes.CDLL(name).cuDriverGetVersion(ctypes.byref(found)) == 0 and found.value:
                return found.value // 1000, found.value % 1000 // 10
        except (OSError, AttributeError):
            continue
    return None


def packages() -> list[str]:
    """The installed distributions of CuPy, of which there should be one, with their versions."""
    from importlib import metadata
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found


def to_install(driver: tuple[int, int] | None) -> str:
    """What `pip` is to install for a driver."""
    if driver is None:
        return "`pip install \"lr-lang[cuda12]\"` (or `[cuda13]`, as the driver's version is)"
    return f"`pip install \"lr-lang[cuda{13 if driver[0] >= 13 else 12}]\"`"


def problem() -> Problem | None:
    """The first thing that keeps a GPU from being used; None if one can be."""
    driver = driver_version()
    if importlib.util.find_spec("cupy") is None:
        if driver is None and not driver_here():
            return "CuPy is not installed, and there is no NVIDIA driver", f"an NVIDIA GPU and its driver, then {to_install(driver)}"
        return "CuPy is not installed", to_install(driver)
    installed = packages()
    if len(installed) > 1:
        names = [p.partition(" ")[0] for p in installed]
        return (f"{len(installed)} packages of CuPy are installed at once ({', '.join(installed)}), which overwrite each other",
                f"`pip uninstall {' '.join(names)}`, then {to_install(driver)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import cupy
    except Exception as trouble:                         # a library that it needs, or another interpreter's build
        return f"CuPy cannot be imported ({first_line(trouble)})", f"`pip uninstall {name_of(installed)}`, then {to_install(driver)}"
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as trouble:                         # without a driver CuPy says so in several ways
        return no_devices(cupy, trouble, driver, name_of(installed))
    if not count:
        return without_devices()
    return compiler_problem(cupy, name_of(installed))


def name_of(installed: list[str]) -> str:
    return installed[0].partition(" ")[0] if installed else "cupy"


def first_line(trouble: Exception) -> str:
    text = str(trouble).strip().partition("\n")[0] or type(trouble).__name__
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def without_devices() -> Problem:
    if hidden():
        return "CuPy finds no GPU: CUDA_VISIBLE_DEVICES hides them all", "unset it, or give it the number of an NVIDIA GPU"
    return "CuPy finds no GPU", "it needs an NVIDIA GPU that this process may see (`nvidia-smi`; in a container: `--gpus all`)"


def no_devices(cupy: Any, trouble: Exception, driver: tuple[int, int] | None, package: str) -> Problem:
    """Why CuPy cannot count the GPUs."""
    text = first_line(trouble)
    if hidden():
        return without_devices()
    needed = version(cupy, "runtimeGetVersion")
    if "InsufficientDriver" in text and driver is not None and needed is not None and driver < needed:
        advice = "a newer NVIDIA driver" if needed[0] == driver[0] or driver[0] < 12 else \
            f"`pip uninstall {package}`, then {to_install(driver)}; or a newer NVIDIA driver"
        return f"the NVIDIA driver, for CUDA {dotted(driver)}, is too old for {package}, which is built for CUDA {dotted(needed)}", advice
    if driver is None:
        return f"CuPy finds no GPU ({text})", "it needs an NVIDIA GPU and its driver (see `nvidia-smi`)"
    return (f"CuPy finds no GPU ({text})",
            "see whether `nvidia-smi` finds the NVIDIA GPU; after an update of its driver, start the machine again")


def version(cupy: Any, name: str) -> tuple[int, int] | None:
    """What `runtimeGetVersion` or `driverGetVersion` says."""
    try:
        found = int(getattr(cupy.cuda.runtime, name)())
    except Exception:
        return None
    return (found // 1000, found % 1000 // 10) if found else None


def dotted(number: tuple[int, int]) -> str:
    return f"{number[0]}.{number[1]}"


def compiler_problem(cupy: Any, package: str) -> Problem | None:
    """Whether CuPy's NVRTC is there and compiles for the GPU."""
    try:
        nvrtc = tuple(cupy.cuda.nvrtc.getVersion())
    except Exception as trouble:
        return f"NVRTC, which compiles kernels, is missing ({first_line(trouble)})", f"`pip install \"{package}[ctk]\"`"
    try:
        capability = int(cupy.cuda.Device().compute_capability)
    except Exception as trouble:
        return f"the GPU does not answer ({first_line(trouble)})", "see `nvidia-smi`"
    shown = f"{capability // 10}.{capability % 10}"
    if capability < OLDEST:
        return f"the GPU is too old: its compute capability is {shown}, and lr needs {OLDEST // 10}.{OLDEST % 10}", "another GPU"
    if nvrtc[0] >= 13 and capability < OLDEST_OF_13:
        return (f"the GPU (compute capability {shown}) is too old for CUDA {dotted((nvrtc[0], nvrtc[1]))}",
                f"`pip uninstall {package}`, then `pip install \"lr-lang[cuda12]\"`")
    return None


def trial() -> Problem | None:
    """Runs a kernel of CuPy's, where `problem` found nothing: what else is missing."""
    import cupy
    package = name_of(packages())
    try:
        found = cupy.asnumpy(cupy.asarray([1.0, 2.0]) + 1.0).tolist()
    except Exception as trouble:
        if any(words in str(trouble) for words in NO_HEADERS):
            return "CUDA's headers are missing, which kernels of CuPy include", f"`pip install \"{package}[ctk]\"`"
        return f"a kernel does not run ({first_line(trouble)})", "see `nvidia-smi`, and whether other programs use the GPU"
    return None if found == [2.0, 3.0] else (f"a kernel computes {found} for [2.0, 3.0]", "see `nvidia-smi`")


def remarks() -> list[str]:
    """What works, but could be better."""
    driver, installed = driver_version(), packages()
    name, found = name_of(installed), []
    if name == "cupy" and installed:
        found.append(f"`cupy` is the package that is built from source: `pip uninstall cupy`, then {to_install(driver)}, needs no compiler")
    if name == "cupy-cuda12x" and driver is not None and driver[0] >= 13:
        found.append(f"the driver knows CUDA {dotted(driver)}; `pip uninstall {name}`, then {to_install(driver)}, is made for it")
    return found
