"""What goes wrong on a CUDA device besides what a script does, as diagnostics.

In: what CuPy raises.  Out: `told`, which wraps what asks CuPy for something: no room is a `NoRoom`, a source that is refused
`Refused`, and anything else that CUDA says an `LrError`.

Kernels run after their launch has returned, so an error may come from any later call.  After most of them the process can use the
device no more, and what lay there is lost.
"""
from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from dsl.errors import LrError, error

P = ParamSpec("P")
T = TypeVar("T")

CUPY = ("cupy", "cupy_backends")
FULL = re.compile(r"OUT_OF_MEMORY|MemoryAllocation|ALLOC_FAILED")
UNREADABLE = re.compile(r"INVALID_IMAGE|INVALID_PTX|INVALID_SOURCE|NO_BINARY_FOR_GPU|UNSUPPORTED_PTX_VERSION|JIT_")
LONGEST = 160
"""Characters of a message that are shown."""


class NoRoom(MemoryError):
    """A device has no room."""


class Refused(LrError):
    """The compiler of kernels, or the driver, does not take one of ours: a defect of lr, and nothing has run."""


def told(action: Callable[P, T]) -> Callable[P, T]:
    """The same; what CuPy raises is said in our words."""
    @wraps(action)
    def wrapped(*arguments: P.args, **more: P.kwargs) -> T:
        try:
            return action(*arguments, **more)
        except Exception as problem:
            found = explained(problem)
            if found is problem:
                raise
            raise found from None
    return wrapped


def explained(problem: Exception) -> Exception:
    """What a caller is told: the problem itself if it is not one of CUDA."""
    if type(problem).__module__.partition(".")[0] not in CUPY or isinstance(problem, MemoryError):
        return problem
    words = str(problem)
    if type(problem).__name__ == "CompileException":
        return refused(f"NVRTC refuses a kernel of lr: {complaint(words)}")
    if not isinstance(problem, RuntimeError):                       # CuPy's own checks
        return problem
    if FULL.search(words):
        return NoRoom(shortened(words))
    if UNREADABLE.search(words):
        return refused(f"the driver refuses a kernel of lr: {shortened(words)}")
    return error("E0803", f"the GPU has failed: {shortened(words)}",
                 help="values that lay on it may be lost, and this process may not be able to use it again: start again; "
                      "if it fails again, `device cpu` runs without it")


def refused(message: str) -> LrError:
    return error("E0804", message, kind=Refused,
                 help="this is a defect of lr, not of your script: please report it; `device cpu` runs the same script")


def complaint(log: str) -> str:
    """The first error in a compiler's log, without its warnings."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return shortened(next((line for line in lines if "error" in line), lines[0] if lines else "it gives no reason"))


def shortened(text: str) -> str:
    line = text.strip().partition("\n")[0]
    return line if len(line) <= LONGEST else line[:LONGEST] + "…"
