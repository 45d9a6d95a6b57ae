"""Where the time of a run goes: `lr run --profile`.

In: the programs of a run, each in its instrumented build.  Out: a table of their kernels and products: runs, time, its share,
the bytes they had to move and what part of this machine's copying speed that is, floating-point operations a second.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

from dsl.errors import Span
from dsl.loops import ir
from dsl.runtime.columns import counted, table

if TYPE_CHECKING:
    from dsl.backends.llvm.profiled import ProfiledProgram

SHOWN = 0.01
"""Programs that took a smaller share of the time are only counted."""
HEADS = ("", "runs", "time", "share", "bytes", "of copying", "Gflop/s")


class Profile:
    """The programs that were compiled while it was asked for."""

    def __init__(self, threads: int | None) -> None:
        self.threads = threads
        self.programs: list[ProfiledProgram] = []
        self.aside: list[str] = []
        """What the reference ran, though it was asked for again and again."""
        self.launched = 0
        """Programs of a GPU, which are not measured."""

    def compiler(self, made: ir.Program) -> ProfiledProgram:
        from dsl.backends.llvm.profiled import ProfiledProgram
        self.programs.append(ProfiledProgram(made, self.threads))
        return self.programs[-1]

    def name(self, place: Span | None) -> None:
        """Where in the script the last program comes from."""
        if self.programs and place is not None:
            self.programs[-1].title = written_at(place)

    def referred(self, place: Span, seconds: float, lacking: str) -> None:
        """The `train` at this place was run by the reference, on `device numpy` or for an op `lacking` loops."""
        reason = f"for `{lacking}` has no loops in this version" if lacking else "as the device is `numpy`"
        self.aside.append(f"{written_at(place)} ({duration(seconds)})\n  not native code: the reference ran it, {reason}")

    def text(self) -> str:
        if self.launched:
            return "profile: programs that run on a GPU are not measured in this version\n"
        used = sorted((p for p in self.programs if p.calls), key=lambda p: -p.seconds)
        if not used:
            once = "" if self.aside else " (small graphs that are run once do not, unless with `--device cpu`)"
            return "\n\n".join([f"profile: nothing ran as native code{once}", *self.aside]) + "\n"
        from dsl.backends.llvm.profiled import copy_speed
        speed, threads = copy_speed(self.threads), used[0].threads
        lines = [f"profile: {counted(threads, 'thread')}; copying here: {speed / 1e9:.1f} GB/s, read and written (64 MiB, best of 5)"]
        whole = sum(p.seconds for p in used)
        shown = [p for p in used if p.seconds >= SHOWN * whole]
        for p in shown:
            lines += ["", f"{p.title} ({counted(p.calls, 'call')}, {duration(p.seconds)})", *table(HEADS, rows(p, speed), right=True)]
        if len(shown) < len(used):
            rest = sum(p.seconds for p in used[len(shown):])
            lines += ["", f"and {counted(len(used) - len(shown), 'program')} that took {duration(rest)} together"]
        for what in self.aside:
            lines += ["", what]
        return "\n".join(lines) + "\n"


def written_at(place: Span) -> str:
    return f"line {place.line}: {place.text.partition(chr(10))[0].strip().removesuffix(':')}"


def rows(p: ProfiledProgram, speed: float) -> list[list[str]]:
    """Kernels and products that ran, the dearest first, then what is left of the program's time."""
    found = sorted((m for m in p.counted.read() if m.runs), key=lambda m: -m.seconds)
    whole = max(p.seconds, 1e-9)
    made = []
    for m in found:
        moved, seconds = m.read + m.written, max(m.seconds, 1e-9)
        made.append([m.part.name, f"{m.runs:,}", duration(m.seconds), f"{m.seconds / whole:.1%}", amount(moved),
                     f"{moved / seconds / speed:.0%}", f"{m.flops / seconds / 1e9:.2f}"])
    rest = whole - sum(m.seconds for m in found)
    made.append(["the rest", "", duration(max(rest, 0.0)), f"{max(rest, 0.0) / whole:.1%}", "", "", ""])
    return made


def duration(seconds: float) -> str:
    return f"{seconds:.3f} s" if seconds >= 1 else f"{seconds * 1e3:.3f} ms"


def amount(size: int) -> str:
    for factor, unit in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"
