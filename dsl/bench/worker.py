"""A peer in a process of its own, so that its import, its threads and its crashes are its own too.

In, a line each on standard input:                  Out, a JSON object a line on standard output:
    about                                               {"versions": {…}}
    prepare ENTRY SIZE                                  {"numbers": {…}, "prepare": ms, "first": ms, "second": ms}
    time COUNT                                          {"samples": [ms a call, …], "inside": [ms, …] or null}
    memory COUNT                                        {"samples": [MiB by which the resident set grew]}
    release                                             {}
    room                                                {"room": bytes that are free on the device}
or {"absent": why}, or {"error": what}.

    python worker.py COLUMN DEVICE THREADS
"""
from __future__ import annotations

import gc
import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import IO, Any

SHORTEST_SAMPLE = 0.5
"""Milliseconds below which a sample is the mean of several calls."""

LONG_CALL = 200.0
"""Milliseconds from which a call needs no other before it to be warm."""


def module_of(column: str) -> str:
    library = column.partition("-")[0]
    return "dsl.bench.peers." + {"lr": "ours", "blas": "numpy", "python": "numpy", "copy": "cupy", "read": "cupy",
                                 "cublas": "cupy"}.get(library, library)


class Server:
    """What is prepared now, and the answers."""

    def __init__(self, column: str, device: str, threads: int) -> None:
        self.column, self.device, self.threads = column, device, threads
        self.prepared: Any = None
        self.calls = 1
        self.warms = True

    def answer(self, words: list[str]) -> dict[str, Any]:
        match words:
            case ["about"]:
                return {"versions": import_module(module_of(self.column)).versions()}
            case ["prepare", entry, size]:
                return self.prepare(entry, int(size))
            case ["time", count]:
                return self.time(int(count))
            case ["memory", count]:
                return {"samples": [self.memory(int(count))]}
            case ["release"]:
                rest = getattr(self.prepared, "rest", None)
                self.prepared = None
                gc.collect()
                if rest:
                    rest()
                return {}
            case ["room"]:
                peer = import_module(module_of(self.column))
                peer.configure(self.device, self.threads)
                return {"room": peer.room()}
        return {"error": f"no such request: {' '.join(words)}"}

    def prepare(self, entry: str, size: int) -> dict[str, Any]:
        from dsl.bench.data import inputs
        from dsl.bench.work import Absent
        self.prepared = None
        gc.collect()
        peer = import_module(module_of(self.column))
        make: Callable[..., Any] | None = peer.TABLE.get(self.column, {}).get(entry)
        if make is None:
            raise Absent("no form of this work")
        peer.configure(self.device, self.threads)
        given = inputs(entry, size)
        begin = perf_counter()
        prepared = make(given)
        del given
        prepare = 1e3 * (perf_counter() - begin)
        first, result = self.once(prepared)
        numbers = plain(prepared.numbers(result))
        del result
        second, result = self.once(prepared)
        del result
        if prepared.rest:
            prepared.rest()
        self.calls = 1 if prepared.reset else max(1, math.ceil(SHORTEST_SAMPLE / max(second, 1e-4)))
        self.warms = second < LONG_CALL
        self.prepared = prepared
        return {"numbers": numbers, "prepare": prepare, "first": first, "second": second}

    def once(self, prepared: Any) -> tuple[float, Any]:
        if prepared.reset:
            prepared.reset()
        stop = (prepared.clock or wall)()
        result = prepared.run()
        return stop(), result

    def time(self, count: int) -> dict[str, Any]:
        """After a run that is not counted, unless runs are long: the process slept, its caches and threads are cold."""
        if self.prepared is None:
            return {"error": "nothing is prepared"}
        prepared, calls = self.prepared, self.calls
        run: Callable[[], Any] = prepared.run
        if self.warms:
            self.once(prepared)
        clock = prepared.clock or wall
        samples, inside = [], []
        gc.disable()
        try:
            for _ in range(count):
                if prepared.reset:
                    prepared.reset()
                stop = clock()
                for _ in range(calls - 1):
                    run()
                result = run()
                samples.append(stop() / calls)
                if prepared.inside:
                    inside.append(prepared.inside(result))
                del result
        finally:
            gc.enable()
        if prepared.rest:
            prepared.rest()
        return {"samples": samples, "inside": inside or None}

    def memory(self, count: int) -> float:
        """The high-water mark of the resident set over `count` runs, above what it was before them.

        Writing 5 to /proc/self/clear_refs sets the mark to the present size (proc(5))."""
        from dsl.bench.work import Absent
        for _ in range(3):
            self.once(self.prepared)
        gc.collect()
        try:
            Path("/proc/self/clear_refs").write_text("5")
            before = status_field("VmRSS")
        except (OSError, KeyError):
            raise Absent("needs Linux's /proc/self/clear_refs") from None
        for _ in range(count):
            self.once(self.prepared)
        return max(0, status_field("VmHWM") - before) / 1024


def wall() -> Callable[[], float]:
    """The clock of work that has ended when its call returns."""
    begin = perf_counter()
    return lambda: 1e3 * (perf_counter() - begin)


def status_field(name: str) -> int:
    """A size in /proc/self/status, in KiB."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(fields[name].split()[0])


def plain(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers and lists that JSON has a form for."""
    from numpy import ndim
    return {name: [float(v) for v in value] if ndim(value) else float(value) for name, value in numbers.items()}


def serve(column: str, device: str, threads: int, requests: IO[str], replies: IO[str]) -> None:
    from dsl.bench.work import Absent
    server = Server(column, device, threads)
    for line in requests:
        try:
            reply = server.answer(line.split())
        except Absent as reason:
            reply = {"absent": str(reason)}
        except ImportError as problem:
            missing = (problem.name or "").partition(".")[0]
            reply = {"absent": "not installed"} if missing and missing == module_of(column).rpartition(".")[2] else {"error": str(problem)}
        except Exception as problem:
            reply = {"error": f"{type(problem).__name__}: {problem}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def limit_to(threads: int) -> None:
    """The first `threads` of the processors this process may use, for the libraries that ask nobody."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def main(column: str, device: str, threads: int) -> None:
    limit_to(threads)
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)                                        # what a library prints is no reply
    serve(column, device, threads, sys.stdin, replies)


if __name__ == "__main__":
    folder = Path(__file__).resolve().parents[1]
    sys.path = [p for p in sys.path if Path(p or ".").resolve() != folder / "bench"]
    if module_of(sys.argv[1]) == "dsl.bench.peers.ours":
        sys.path.insert(0, str(folder.parent))
    else:                                                # the package without what `import dsl` loads
        from types import ModuleType
        package = ModuleType("dsl")
        package.__path__ = [str(folder)]
        sys.modules["dsl"] = package
    import_module("dsl.bench.worker").main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
