"""What `lr bench` does.

In: the words of the command line.  Out: the table on standard output, progress on standard error, and the files asked for.
Raises `ValueError` for a word that means nothing.
"""
from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import IO, Any

from dsl.bench import report
from dsl.bench.measure import Bench, Cell, Options, fitting, measure, opened
from dsl.bench.measure import columns_of as columns_with
from dsl.bench.work import LIMITS, OURS, Work, columns, works
from dsl.errors import LrError, did_you_mean
from dsl.record import record
from dsl.runtime.files import write_atomically

QUICK_ROUNDS, ROUNDS = 2, 7
QUICK_TURN, TURN = 0.05, 0.3
BUSY = 0.4
"""The load a processor above which others are at work."""


@record
class Request:
    names: tuple[str, ...] = ()
    quick: bool = False
    device: str = "cpu"
    rounds: int | None = None
    peers: str | None = None
    sizes: tuple[int, ...] = ()
    python: str | None = None
    threads: int | None = None
    json: str | None = None
    plot: str | None = None


def known(word: str, among: Sequence[str], what: str) -> str:
    if word in among:
        return word
    near = did_you_mean(word, among)
    raise ValueError(f"no {what} `{word}`" + (f"; did you mean `{near}`?" if near else f"; there are {', '.join(among)}"))


def columns_of(peers: str | None, device: str = "cpu") -> tuple[str, ...]:
    """Ours, what a GPU can do, and every column of the systems named: `jax` means `jax-step` too.  All of them by default."""
    there = tuple(columns(device))
    if peers is None:
        return there
    always = (OURS, f"{OURS}-cold", "imports", *LIMITS)
    libraries = tuple(dict.fromkeys(c.partition("-")[0] for c in there if c not in always))
    wanted = {known(w.strip(), (*there, *libraries), "peer") for w in peers.split(",") if w.strip()}
    return tuple(c for c in there if c in always or c in wanted or c.partition("-")[0] in wanted)


def selected(names: Sequence[str], device: str = "cpu") -> list[Work]:
    there = works(device)
    wanted = {known(name, [work.name for work in there], "work") for name in names}
    return [work for work in there if not names or work.name in wanted]


def sizes_of(work: Work, request: Request) -> tuple[int, ...]:
    if request.sizes and (len(work.sizes) > 1 or work.row_bytes):
        return tuple(sorted(set(request.sizes)))
    return work.quick if request.quick else work.sizes


def usable_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def options_of(request: Request) -> Options:
    rounds = request.rounds or (QUICK_ROUNDS if request.quick else ROUNDS)
    return Options(request.device, rounds, QUICK_TURN if request.quick else TURN, columns_of(request.peers, request.device),
                   request.python or sys.executable, request.threads or usable_processors())


def listing(device: str = "cpu") -> str:
    """The work there is, one a line."""
    width = max(len(work.name) for work in works(device))
    lines = [f"{work.name:<{width}}  {work.title}; {', '.join(map(report.power, work.sizes))} {work.unit}" for work in works(device)]
    return "\n".join([*lines, "", "columns:", *(f"{name:<{width + 5}}  {what}" for name, what in columns(device).items())]) + "\n"


def words(request: Request) -> str:
    """The command that makes this run, without the paths of this machine."""
    parts = ["lr", "bench", *request.names, *(["--quick"] if request.quick else []), "--device", request.device]
    pairs: list[tuple[str, Any]] = [("--rounds", request.rounds), ("--peers", request.peers), ("--threads", request.threads)]
    parts += [part for name, value in pairs if value is not None for part in (name, str(value))]
    parts += [part for size in request.sizes for part in ("--size", str(size))]
    parts += [part for name, path in (("--python", request.python), ("--json", request.json), ("--plot", request.plot)) if path
              for part in (name, Path(path).name)]
    return shlex.join(parts)


def check_places(request: Request) -> None:
    """What would fail only after minutes of measuring."""
    if request.device == "cuda":
        import dsl
        try:
            dsl.compile("let one = 1.0", device="cuda")
        except LrError as problem:
            raise ValueError(f"{problem.diagnostics[0].message}; `lr doctor` says what is missing") from None
    for option, path in (("--json", request.json), ("--plot", request.plot)):
        if path and not os.access(Path(path).resolve().parent, os.W_OK):
            raise ValueError(f"{option}: no folder to write to, `{Path(path).parent}`")
    if request.plot and find_spec("matplotlib") is None:
        raise ValueError("--plot needs matplotlib: pip install 'lr-lang[plot]'")
    if request.python and which(request.python) is None:
        raise ValueError(f"--python: no program `{request.python}`")


def bench(request: Request, quiet: bool = False) -> str:
    """Run it; the table.  The JSON file is written after every work, so that a run broken off leaves what it has."""
    chosen, options = selected(request.names, request.device), options_of(request)
    check_places(request)
    cells: list[Cell] = []

    def say(text: str) -> None:
        if not quiet:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    if load is not None and load > BUSY * options.threads:
        say(f"the machine is busy (load {load:.1f}): times will be worth little")
    with opened(options, say) as running:
        versions = running.versions(chosen)
        room = running.room() if request.device == "cuda" else None
        for place, work in enumerate(chosen):
            before: dict[str, Cell] = {}
            sizes = sizes_of(work, request)
            if room is not None and work.row_bytes:
                work, sizes = fitted(running, work, sizes, room)
                chosen[place] = work
            for size in sizes:
                found = measure(running, work, size, before)
                before = {cell.column: cell for cell in found}
                cells += found
            if request.json:
                content = report.as_json(report.by_key(cells), options, versions, words(request), load, chosen)
                text = json.dumps(content, indent=1) + "\n"
                write_atomically(Path(request.json), partial(put, text.encode()))
    keyed = report.by_key(cells)
    if request.plot and not report.plot(keyed, Path(request.plot)):
        say("nothing to plot: no work was timed at several sizes")
    return report.table(keyed, chosen)


def put(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


def fitted(running: Bench, work: Work, sizes: Sequence[int], room: int) -> tuple[Work, tuple[int, ...]]:
    """The work with sizes, its headline among them, at which all sides that are there fit on the GPU."""
    there = [c for c in columns_with(work, running.options) if c not in running.missing]

    def fits(size: int) -> int:
        found = fitting(work, size, there, room)
        if found < size:
            running.say(f"{work.name}: {size:,} {work.unit} do not fit on the GPU with all sides; {found:,} do")
        return found
    return replace(work, headline=fits(work.headline)), tuple(dict.fromkeys(map(fits, sizes)))
