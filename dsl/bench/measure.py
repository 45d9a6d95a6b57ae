"""Measuring: every side is checked against the others, then all are timed in turn.

In: the work, and what to compare.  Out: a `Cell` for each work, size and column: samples, or why there are none.

A side is a process.  Of all of them one runs at a time; the others wait for a line on standard input.  In each round every
side has a turn of several samples, so that a machine that slows down slows all of them; ratios are taken within a round.
"""
from __future__ import annotations

import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from dsl.bench import start
from dsl.bench.expected import expected
from dsl.bench.work import COLUMNS, EVERY_COLUMN, LIMITS, OURS, Numbers, Work
from dsl.bench.worker import module_of
from dsl.record import entity, record

Status = Literal["timed", "absent", "failed", "mismatch", "skipped"]
Say = Callable[[str], None]

PATIENCE = 600.0
"""Seconds after which an answer is not waited for."""
PAUSE = 0.03
"""Seconds between turns, in which the threads of the side before stop spinning."""
TOO_SLOW = 3_000.0
"""Milliseconds a call that are not worth waiting for, judged by the size before."""
MOST_SAMPLES = 25
SMALL = 10**6
"""Rows up to which nobody asks for room."""
TEMPORARIES: Mapping[str, int] = {"numpy": 5, "torch": 5, "pytensor": 5, "jax": 2, "numexpr": 2, "torch-compile": 1, OURS: 1}
"""Arrays as long as an input that a side makes on its way, for the room that large sizes need."""
GPU_TEMPORARIES: Mapping[str, int] = {"cupy": 5, "torch": 5, "jax": 2, "torch-compile": 2, OURS: 2}
"""The same on a GPU, where sides give them back between turns."""
GPU_PART = 0.9
"""Of the memory that is free on a GPU, what may be used."""

THREADS = ("LR_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "NUMEXPR_MAX_THREADS",
           "NUMEXPR_NUM_THREADS")
FORGOTTEN = ("OPENBLAS_CORETYPE", "PYTHONDEVMODE", "PYTHONWARNINGS", "PYTHONPROFILEIMPORTTIME", "PYTHONDONTWRITEBYTECODE")
"""What would make a library or the interpreter slower than it is."""
HERE = (OURS, f"{OURS}-cold", "imports", "c", "c-fast", "numpy", "blas", "python", "cupy", *LIMITS)
"""Columns that run under the present interpreter, as they need nothing that it has not."""


@record
class Options:
    """What to compare and how."""

    device: str = "cpu"
    rounds: int = 7
    turn: float = 0.3
    """Seconds a turn."""
    columns: tuple[str, ...] = tuple(COLUMNS)
    python: str = sys.executable
    threads: int = 2
    room: int = 8 << 30
    """Bytes that all sides may take together."""


@record
class Cell:
    """One work at one size in one column."""

    work: str
    size: int
    column: str
    status: Status
    note: str = ""
    rounds: tuple[tuple[float, ...], ...] = ()
    """Samples by round."""
    details: Mapping[str, float] | None = None

    @property
    def samples(self) -> list[float]:
        return [s for samples in self.rounds for s in samples]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        samples = self.samples
        if len(samples) < 2:
            return samples[0], samples[0]
        low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
        return low, high


def ratio(cell: Cell, base: Cell) -> float:
    """How many times as long as `base`: the median over the rounds of the ratio of the round's medians."""
    pairs = zip(cell.rounds, base.rounds, strict=False)
    return statistics.median(statistics.median(mine) / max(statistics.median(other), 1e-12) for mine, other in pairs)


class Trouble(Exception):
    """A side that gives no numbers, with the status that its cell gets."""

    def __init__(self, status: Status, note: str) -> None:
        super().__init__(note)
        self.status, self.note = status, note


# ---------------------------------------------------------------- workers
def environment(options: Options, folder: Path, cache: str | None = None) -> dict[str, str]:
    """The same threads for every library, and caches of the peers in a folder that goes away."""
    threads = str(options.threads)
    own = {"PYTENSOR_FLAGS": f"base_compiledir={folder / 'pytensor'}", "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
           "NUMBA_CACHE_DIR": str(folder / "numba"), "XDG_CACHE_HOME": cache or str(folder / "cache"),
           "CUPY_CACHE_DIR": str(Path(cache or folder, "cupy")), "CUDA_CACHE_PATH": str(Path(cache or folder, "driver")),
           "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
           **dict.fromkeys(THREADS, threads)}
    if options.device != "cuda":
        own["JAX_PLATFORMS"] = "cpu"
    return {**{k: v for k, v in os.environ.items() if k not in FORGOTTEN}, **own}


def interpreter(column: str, options: Options) -> str:
    return sys.executable if column in HERE else options.python


def columns_of(work: Work, options: Options) -> list[str]:
    """Those asked for that have a form of the work."""
    def has(column: str) -> bool:
        if work.kind == "process":
            return column in HERE[:3] or column in start.PROGRAMS
        return work.entry in import_module(module_of(column)).TABLE.get(column, {})
    return [c for c in options.columns if c in work.columns and has(c)]


class Worker:
    """A process that answers `worker.py`'s requests for one column."""

    def __init__(self, column: str, options: Options, variables: Mapping[str, str], log: Path,
                 command: Sequence[str] | None = None) -> None:
        python = interpreter(column, options)
        script = Path(__file__).with_name("worker.py")
        self.log = log
        with log.open("ab") as errors:
            self.process = subprocess.Popen(command or [python, str(script), column, options.device, str(options.threads)],
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=dict(variables),
                                            start_new_session=True)

    def ask(self, request: str, patience: float = PATIENCE) -> dict[str, Any]:
        """The answer.  Raises `Trouble` where there is none, or one that says why not; after the former it is of no more use."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(request.encode() + b"\n")
            self.process.stdin.flush()
            ready, _, _ = select.select([self.process.stdout], [], [], patience)
            line = self.process.stdout.readline() if ready else b""
        except OSError:
            ready, line = [self.process.stdout], b""
        if not line:
            self.close()
            raise Trouble("failed", self.last_words() if ready else f"no answer within {patience:g} s")
        reply: dict[str, Any] = json.loads(line)
        if "absent" in reply:
            raise Trouble("absent", reply["absent"])
        if "error" in reply:
            raise Trouble("failed", reply["error"])
        return reply

    def last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"the process ended ({self.process.wait()})" + (f": {lines[-1]}" if lines else "")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                with suppress(OSError):
                    stream.close()


class Side(Protocol):
    """One column of one work at one size."""

    def prepare(self) -> Numbers: ...
    def turn(self) -> tuple[float, ...]: ...
    def details(self) -> dict[str, float]: ...


class Warm:
    """Work repeated in a process that stays: `time` and `memory`."""

    def __init__(self, bench: Bench, work: Work, size: int, column: str) -> None:
        self.bench, self.work, self.size, self.column = bench, work, size, column
        self.inside: list[float] = []
        self.count = 1

    def prepare(self) -> Numbers:
        reply = self.bench.worker(self.column).ask(f"prepare {self.work.entry} {self.size}")
        self.first = reply["first"]
        budget = 1e3 * self.bench.options.turn
        self.count = 5 if self.work.kind == "memory" else max(1, min(MOST_SAMPLES, int(budget / max(reply["second"], 0.5))))
        numbers: Numbers = reply["numbers"]
        return numbers

    def turn(self) -> tuple[float, ...]:
        word = "memory" if self.work.kind == "memory" else "time"
        reply = self.bench.worker(self.column).ask(f"{word} {self.count}")
        self.inside.extend(reply.get("inside") or [])
        return tuple(reply["samples"])

    def details(self) -> dict[str, float]:
        return {"first": self.first, **({"inside": statistics.median(self.inside)} if self.inside else {})}


class Fresh:
    """Work run twice in a new process each time; `lr-cold` finds nothing in its cache, `lr` what it left there itself."""

    def __init__(self, bench: Bench, work: Work, size: int, column: str) -> None:
        self.bench, self.work, self.size, self.column = bench, work, size, column
        self.prepared: list[float] = []

    def once(self) -> dict[str, Any]:
        with self.bench.cache(self.column) as variables:
            worker = Worker(self.column, self.bench.options, variables, self.bench.folder / "log")
            try:
                return worker.ask(f"prepare {self.work.entry} {self.size}")
            finally:
                worker.close()

    def prepare(self) -> Numbers:
        numbers: Numbers = self.once()["numbers"]
        return numbers

    def turn(self) -> tuple[float, ...]:
        reply = self.once()
        self.prepared.append(reply["prepare"])
        return (max(0.0, reply["first"] - reply["second"]),)

    def details(self) -> dict[str, float]:
        return {"before": statistics.median(self.prepared)}


class Whole:
    """A whole process, timed from outside."""

    def __init__(self, bench: Bench, work: Work, size: int, column: str) -> None:
        self.bench, self.column = bench, column

    def prepare(self) -> Numbers:
        return start.numbers(self.once()[1])

    def turn(self) -> tuple[float, ...]:
        return (self.once()[0],)

    def once(self) -> tuple[float, str]:
        options = self.bench.options
        command = start.command(self.column, interpreter(self.column, options), options.device, self.bench.folder)
        with self.bench.cache(self.column) as variables:
            begin = time.perf_counter()
            done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=PATIENCE, check=False)
            elapsed = 1e3 * (time.perf_counter() - begin)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            missing = "ModuleNotFoundError" in last and self.column not in HERE
            raise Trouble("absent" if missing else "failed", "not installed" if missing else last)
        return elapsed, done.stdout

    def details(self) -> dict[str, float]:
        return {}


# ---------------------------------------------------------------- the bench
@entity
class Bench:
    """The workers of one run, started when first needed, and the folder their caches are in."""

    options: Options
    folder: Path
    say: Say
    workers: dict[str, Worker]
    missing: dict[str, str]

    def variables(self) -> dict[str, str]:
        return environment(self.options, self.folder)

    @contextmanager
    def cache(self, column: str) -> Iterator[dict[str, str]]:
        """The environment of a process that ends; for `lr-cold` with a cache folder of its own."""
        with ExitStack() as stack:
            own = stack.enter_context(tempfile.TemporaryDirectory(dir=self.folder)) if column.endswith("-cold") else None
            yield environment(self.options, self.folder, own)

    def worker(self, column: str) -> Worker:
        found = self.workers.get(column)
        if found is None or not found.alive:
            found = self.workers[column] = Worker(column, self.options, self.variables(), self.folder / "log")
        return found

    def release(self, column: str) -> None:
        """What a worker holds of the last work; one that cannot let go of it ends."""
        worker = self.workers.get(column)
        if worker is not None and worker.alive:
            try:
                worker.ask("release")
            except Trouble:
                worker.close()

    def versions(self, works: Sequence[Work]) -> dict[str, str]:
        """Of every side of the works that is there; the others go into `missing`."""
        found: dict[str, str] = {}
        needed = {c for work in works for c in columns_of(work, self.options)} - {"imports", f"{OURS}-cold"}
        for column in (c for c in EVERY_COLUMN if c in needed):
            try:
                found.update(self.worker(column).ask("about")["versions"])
            except Trouble as trouble:
                self.missing[column] = trouble.note
                self.say(f"{column}: {trouble.note}")
        return found

    def room(self) -> int | None:
        """Bytes of the GPU that all sides may take together; None if our side finds none."""
        try:
            return int(GPU_PART * self.worker(OURS).ask("room")["room"])
        except Trouble:
            return None

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()


@contextmanager
def opened(options: Options, say: Say) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="lr-bench-") as folder:
        bench = Bench(options, Path(folder), say, {}, {})
        try:
            yield bench
        finally:
            bench.close()


KINDS: dict[str, Callable[[Bench, Work, int, str], Side]] = {"time": Warm, "memory": Warm, "first": Fresh, "process": Whole}


def fitting(work: Work, size: int, columns: Sequence[str], room: int) -> int:
    """The size, halved until all sides fit on a GPU: each keeps its inputs and outputs, and one at a time its temporaries."""
    most = max((GPU_TEMPORARIES.get(c, 0) for c in columns), default=0)
    while size > 1 and size * (work.row_bytes * len(columns) + 4 * most) > room:
        size //= 2
    return size


def available_memory() -> int:
    """Bytes; where the system does not say, plenty."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 1 << 40


def measure(bench: Bench, work: Work, size: int, before: Mapping[str, Cell]) -> list[Cell]:
    """All columns of a work at a size; `before` are the cells of the size below, which say what would be too slow."""
    options, cells = bench.options, {}
    sides: dict[str, Side] = {}
    answers: dict[str, Numbers] = {}
    room = min(options.room, int(0.8 * available_memory()))

    def need(column: str) -> int:
        arrays = TEMPORARIES.get("numpy" if column == OURS and options.device == "numpy" else column, 0)
        return size * (work.row_bytes + 4 * arrays) if work.row_bytes and options.device != "cuda" else 0
    # Ours and the limit first, then as many as fit.
    for column in sorted(columns_of(work, options), key=lambda c: (c != OURS, c != "c", need(c) if size > SMALL else 0)):
        def without(status: Status, note: str, column: str = column) -> None:
            cells[column] = Cell(work.name, size, column, status, note)
        smaller = before.get(column)
        if column in bench.missing:
            without("absent", bench.missing[column])
        elif smaller is not None and smaller.status == "timed" and smaller.median * size / smaller.size > TOO_SLOW:
            without("skipped", "too slow at this size")
        elif smaller is not None and smaller.status in ("absent", "failed"):
            without(smaller.status, smaller.note)
        elif size > SMALL and need(column) > room:
            without("skipped", "no room at this size")
        else:
            bench.say(f"{work.name}, {size:,} {work.unit}: preparing {column}")
            side = KINDS[work.kind](bench, work, size, column)
            try:
                answers[column] = side.prepare()
                sides[column] = side
                room -= need(column) if size > SMALL else 0
            except Trouble as trouble:
                without(trouble.status, trouble.note)
    reference = next(iter(answers), None)
    right = expected(work.entry, size) if options.device == "cuda" and answers else None
    for column, numbers in answers.items():
        assert reference is not None
        wrong = differing(answers[reference] if right is None else right, numbers, work.tolerance)
        if wrong:
            cells[column] = Cell(work.name, size, column, "mismatch", f"{wrong} from {reference if right is None else 'NumPy'}'s")
            del sides[column]
    cells.update(timed(bench, work, size, sides))
    for column in answers:
        bench.release(column)
    return [cells[c] for c in EVERY_COLUMN if c in cells]


def timed(bench: Bench, work: Work, size: int, sides: dict[str, Side]) -> dict[str, Cell]:
    """Round robin; a side that fails on its way leaves the others alone."""
    rounds: dict[str, list[tuple[float, ...]]] = {column: [] for column in sides}
    cells: dict[str, Cell] = {}
    for number in range(bench.options.rounds):
        bench.say(f"{work.name}, {size:,} {work.unit}: round {number + 1} of {bench.options.rounds}")
        for column, side in sides.items():
            if column in cells:
                continue
            time.sleep(PAUSE)
            try:
                rounds[column].append(side.turn())
            except Trouble as trouble:
                cells[column] = Cell(work.name, size, column, trouble.status, trouble.note)
    return {**{c: Cell(work.name, size, c, "timed", "", tuple(rounds[c]), sides[c].details()) for c in sides if c not in cells}, **cells}


def differing(reference: Numbers, numbers: Numbers, tolerance: float) -> str | None:
    """The first number that both have and that differs by more than the tolerance times its array's largest, in words."""
    for name in reference.keys() & numbers.keys():
        mine, other = (v if isinstance(v, list) else [v] for v in (numbers[name], reference[name]))
        scale = max((abs(v) for v in other), default=0.0)
        if len(mine) != len(other):
            return f"{name} has {len(mine)} numbers, unlike {len(other)}"
        for a, b in zip(mine, other, strict=True):
            if not abs(a - b) <= tolerance * max(scale, 1e-3) and not (a != a and b != b):
                return f"{name} = {a:.8g}, which is far from {b:.8g}"
    return None
