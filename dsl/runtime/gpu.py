"""The GPU of a session: what launches there, which arrays lie there, and whether `device auto` takes it.

In: the device that is asked for, programs, arrays.  Out: a launcher, arrays where its programs take them, choices, and one line that
says each.  Nothing here costs anything where there is no NVIDIA driver; CuPy is imported when a GPU is used, or would be.
"""
from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from dsl.backends.cuda.arrays import cast
from dsl.backends.cuda.failures import Refused, told
from dsl.backends.cuda.memory import Memory, Uploads, kept, on_host
from dsl.backends.cuda.presence import driver_here
from dsl.errors import LrError
from dsl.ir.types import DType
from dsl.loops import ir
from dsl.runtime.placement import COMPILE, START, Choice, choose, in_float64, processor, work_of

FAST_AT_FLOAT64 = frozenset(("60", "70", "80", "90", "100"))
"""Compute capabilities of GPUs that do half as much in float64 as in float32."""


class Gpu:
    """`device` is the one asked for; `threads` are those of the CPU; `auto` takes no GPU unless `free`."""

    def __init__(self, device: Callable[[], str], threads: int | None, free: bool) -> None:
        self.device, self.threads, self.free = device, threads, free
        self.uploads = Uploads()
        self.callers: list[np.ndarray[Any, Any]] = []            # arrays that were given from outside, as they are
        self.stream: Any = None
        self.say: Callable[[str], None] = lambda line: None
        self.said: set[object] = set()

    # ------------------------------------------------------------ what there is
    @cached_property
    def launcher(self) -> Any:
        """What launches; one for all programs."""
        from dsl.backends.cuda import device
        return device.CupyLauncher()

    @property
    def in_use(self) -> bool:
        return "launcher" in self.__dict__

    @cached_property
    def here(self) -> bool:
        """Whether `auto` may think of a GPU: there is a driver."""
        return self.free and driver_here()

    @cached_property
    def lacks(self) -> tuple[str, str] | None:
        """What keeps a GPU from being used, and what to do about it."""
        from dsl.backends.cuda import device
        found = device.absent()
        if found is None:
            try:
                _ = self.launcher
            except LrError as problem:                           # others have it, or it has failed before
                return problem.message, "see `nvidia-smi`"
        return found

    @property
    def receiver(self) -> Any:
        """What takes arrays that callers have on a GPU: None where they are copied to the host."""
        device = self.device()
        if device == "cuda":
            return self.launcher
        return self.launcher if device == "auto" and "cupy" in sys.modules and self.here and self.lacks is None else None

    def does_without(self, problem: Refused) -> bool:
        """Whether the CPU is to do what the GPU's compiler has refused: that of `auto` does it, and all that comes after it."""
        if self.device() != "auto":
            return False
        self.lacks = problem.message, "this is a defect of lr: please report it"
        self.tell("lacks", f"on the CPU, because {self.lacks[0]}; {self.lacks[1]}")
        return True

    # ------------------------------------------------------------ what lies there
    @told
    def follow(self) -> None:
        """CuPy's current stream, on which everything runs, comes after the one that was current before."""
        cupy = getattr(self.launcher, "cupy", None) if self.device() in ("cuda", "auto") else None
        if cupy is not None:
            stream, before = cupy.cuda.get_current_stream(), self.stream
            if before is not None and before.ptr != stream.ptr:
                stream.wait_event(before.record())
            self.stream = stream

    def kept(self, key: object, value: Any, dtype: DType) -> Any:
        """A value as programs of the GPU take it: an array there, copied once however often it is used, and a scalar here.  What
        the caller may have changed since is copied again."""
        if not np.ndim(value):
            return on_host(value)
        if isinstance(value, Memory):
            return cast(value, dtype)
        if any(np.may_share_memory(value, theirs) for theirs in self.callers if theirs.flags.writeable):
            return kept(self.launcher, value, dtype)
        return self.uploads.taken(self.launcher, key, value, dtype)

    def forget(self, key: object) -> None:
        """An array is not needed any more."""
        self.uploads.found.pop(key, None)

    # ------------------------------------------------------------ whether `auto` takes it
    def pays(self, program: ir.Program, sizes: Mapping[str, int], arrays: Sequence[Any], what: str = "", steps: int | None = None,
             calls: int = 1, back: int = 0) -> bool:
        """Whether `auto` runs a program on the GPU, over these arrays, with `back` bytes of results that go to where they came from.
        If it does, that is said once; if not, only with a name for `what` it does."""
        if self.device() != "auto" or not self.here:
            return False
        found = self.choice(program, sizes, arrays, steps, calls, back)
        if found.gpu and self.lacks is not None:
            self.tell("lacks", f"on the CPU, because {self.lacks[0]}; {self.lacks[1]}")
            return False
        if found.gpu or what:
            self.tell((what, found.gpu), f"{what + ' ' if what else ''}{found.words}")
        return found.gpu

    def choice(self, program: ir.Program, sizes: Mapping[str, int], arrays: Sequence[Any], steps: int | None, calls: int,
               back: int) -> Choice:
        from dsl.backends.cuda import choice as estimate
        there = sum(a.nbytes for a in arrays if isinstance(a, Memory))
        here = sum(getattr(a, "nbytes", 0) for a in arrays if not isinstance(a, Memory))
        here, there = (here, there + back) if there else (here + back, there)
        work, cpu = work_of(program, sizes, steps, here, there, calls), processor(self.threads or processors())
        start = COMPILE if self.in_use else START
        best = estimate.Figures("GPU", 256, 3e9, 1e13)           # no GPU is faster: what does not pay there asks for none
        found = choose(work, cpu, min(estimate.choose(program, sizes, best).seconds.values()), start)
        if not found.gpu or self.lacks is not None:
            return found
        figures = getattr(self.launcher, "figures", estimate.H200)
        step = min(estimate.choose(program, sizes, figures).seconds.values())
        if not self.fast_at_float64():
            step += in_float64(program, work, figures.processors, figures.clock)
        return choose(work, cpu, step, start, figures.name)

    def fast_at_float64(self) -> bool:
        cupy = getattr(self.launcher, "cupy", None)
        return cupy is None or cupy.cuda.Device().compute_capability in FAST_AT_FLOAT64

    def tell(self, key: object, line: str) -> None:
        """Once for each key."""
        if key not in self.said:
            self.said.add(key)
            self.say(f"auto: {line}")


def processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
