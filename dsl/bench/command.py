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
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

from dsl.bench import report
from dsl.bench.measure import Cell, Options, measure, opened
from dsl.bench.work import BY_NAME, COLUMNS, OURS, WORK, Work
from dsl.errors import did_you_mean
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


def columns_of(peers: str | None) -> tuple[str, ...]:
    """Ours, and every column of the systems named: `jax` means `jax-step` too.  All of them by default."""
    if peers is None:
        return tuple(COLUMNS)
    always = (OURS, f"{OURS}-cold", "imports")
    libraries = tuple(dict.fromkeys(c.partition("-")[0] for c in COLUMNS if c not in always))
    wanted = {known(w.strip(), (*COLUMNS, *libraries), "peer") for w in peers.split(",") if w.strip()}
    return tuple(c for c in COLUMNS if c in always or c in wanted or c.partition("-")[0] in wanted)


def selected(names: Sequence[str]) -> list[Work]:
    wanted = {known(name, tuple(BY_NAME), "work") for name in names}
    return [work for work in WORK if not names or work.name in wanted]


def sizes_of(work: Work, request: Request) -> tuple[int, ...]:
    if request.sizes and len(work.sizes) > 1:
        return tuple(sorted(set(request.sizes)))
    return work.quick if request.quick else work.sizes


def usable_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def options_of(request: Request) -> Options:
    rounds = request.rounds or (QUICK_ROUNDS if request.quick else ROUNDS)
    return Options(request.device, rounds, QUICK_TURN if request.quick else TURN, columns_of(request.peers),
                   request.python or sys.executable, request.threads or usable_processors())


def listing() -> str:
    """The work there is, one a line."""
    width = max(map(len, BY_NAME))
    lines = [f"{work.name:<{width}}  {work.title}; {', '.join(map(report.power, work.sizes))} {work.unit}" for work in WORK]
    return "\n".join([*lines, "", "columns:", *(f"{name:<{width + 5}}  {what}" for name, what in COLUMNS.items())]) + "\n"


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
    for option, path in (("--json", request.json), ("--plot", request.plot)):
        if path and not os.access(Path(path).resolve().parent, os.W_OK):
            raise ValueError(f"{option}: no folder to write to, `{Path(path).parent}`")
    if request.plot and find_spec("matplotlib") is None:
        raise ValueError("--plot needs matplotlib: pip install 'lr-lang[plot]'")
    if request.python and which(request.python) is None:
        raise ValueError(f"--python: no program `{request.python}`")


def bench(request: Request, quiet: bool = False) -> str:
    """Run it; the table.  The JSON file is written after every work, so that a run broken off leaves what it has."""
    works, options = selected(request.names), options_of(request)
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
        versions = running.versions(works)
        for work in works:
            before: dict[str, Cell] = {}
            for size in sizes_of(work, request):
                found = measure(running, work, size, before)
                before = {cell.column: cell for cell in found}
                cells += found
            if request.json:
                content = report.as_json(report.by_key(cells), options, versions, words(request), load)
                text = json.dumps(content, indent=1) + "\n"
                write_atomically(Path(request.json), lambda file, text=text: file.write(text.encode()))   # type: ignore[misc]
    keyed = report.by_key(cells)
    if request.plot and not report.plot(keyed, Path(request.plot)):
        say("nothing to plot: no work was timed at several sizes")
    return report.table(keyed)
