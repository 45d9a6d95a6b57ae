"""Everything that needs a GPU, in one call: `make gpu`, or `python benchmarks/gpu.py --minutes 15` where a GPU is there for a while.

In: a machine.  Out: `benchmarks/gpu-DATE.md` and `.json`: what the machine is, what ran, which targets are met.

Parts come in the order of their worth: a first run, the benchmarks, the ways, the tests, the sanitizer.  Each has a limit of time; one that
fails or runs out of it says so in the report, and the next one begins.  The report is written anew after every part.  Only the
standard library is needed here; what is run needs more, and says so.
"""
from __future__ import annotations

import argparse
import contextlib
import ctypes
import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ("linear_regression", "logistic_regression", "softmax_classifier", "mlp_digits", "polynomial_fit")
SANITIZED = ("linear_regression", "logistic_regression", "softmax_classifier")
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
TESTS = ("test_on_a_gpu", "test_examples", "test_good", "test_traps", "test_train", "test_python", "test_scan", "test_where",
         "test_functions", "test_indexing", "test_philox", "test_grad", "test_random_programs")
"""Test files whose scripts run on the GPU, those first whose failure would tell most."""
TOOLKITS = Path("/usr/local")
ORACLES = {"JAX_PLATFORMS": "cpu"}
"""They are asked on the host: JAX would take most of the GPU's memory, in every process."""
LEAST = 10.0
"""Seconds with which no part is begun."""
NO_GPU = 2


# ---------------------------------------------------------------- commands
@dataclass
class Ran:
    """A command that ended: `code` is None if its time was up."""

    code: int | None
    output: str
    seconds: float

    @property
    def last(self) -> str:
        return next((line.strip() for line in reversed(self.output.splitlines()) if line.strip()), "")


def run(command: Sequence[str], limit: float, more: Mapping[str, str] | None = None) -> Ran:
    """Runs it in the repository with all it starts, and ends all of it at the limit."""
    began = time.monotonic()
    path = os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]).rstrip(os.pathsep)
    variables = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(more or {})}
    with tempfile.TemporaryFile() as written:
        try:
            process = subprocess.Popen(list(command), cwd=ROOT, env=variables, stdout=written, stderr=subprocess.STDOUT,
                                       stdin=subprocess.DEVNULL, start_new_session=True)
        except OSError as problem:
            return Ran(127, str(problem), 0.0)
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        written.seek(0)
        output = written.read().decode(errors="replace")
    return Ran(code, output, time.monotonic() - began)


# ---------------------------------------------------------------- the machine
@dataclass
class Machine:
    gpu: str
    driver: str
    cuda: str
    """The newest CUDA that the driver knows."""
    memory: str = ""
    capability: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def extra(self) -> str:
        return "cuda13" if int(self.cuda.partition(".")[0] or 0) >= 13 else "cuda12"


def machine() -> Machine | str:
    """The first GPU as its driver describes it, or what is missing."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return asked_the_driver()
    asked = run([tool, "--query-gpu=name,driver_version,memory.total,compute_cap", "--format=csv,noheader"], 30)
    if asked.code != 0 or not asked.last:
        return f"nvidia-smi finds no GPU: {asked.last or 'it says nothing'}"
    words = [w.strip() for w in asked.output.strip().splitlines()[0].split(",")]
    if len(words) != 4:
        return f"nvidia-smi says what is not understood: {asked.last}"
    known = re.search(r"CUDA Version:\s*([\d.]+)", run([tool], 30).output)
    return Machine(words[0], words[1], known[1] if known else "", words[2], words[3])


def asked_the_driver() -> Machine | str:
    """Containers may have a driver without its tools."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver (neither nvidia-smi nor libcuda.so.1)"
    count, version, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status or not count.value:
        return f"the NVIDIA driver finds no GPU (status {status})"
    driver.cuDriverGetVersion(ctypes.byref(version))
    driver.cuDeviceGetName(name, len(name), 0)
    return Machine(name.value.decode(), "unknown", f"{version.value // 1000}.{version.value % 1000 // 10}")


SEEN = """
import json, cupy
cupy.zeros(3).sum().get()
p = cupy.cuda.runtime.getDeviceProperties(0)
print(json.dumps({"cupy": cupy.__version__, "nvrtc": "%d.%d" % cupy.cuda.nvrtc.getVersion(),
                  "cuda runtime": str(cupy.cuda.runtime.runtimeGetVersion()), "device seen by cupy": p["name"].decode()}))
"""


# ---------------------------------------------------------------- the run
@dataclass
class Part:
    """What became of a part of the run."""

    name: str
    status: str
    """`well`, `failed`, `time was up`, `left out`."""
    seconds: float = 0.0
    note: str = ""
    output: str = ""


@dataclass
class Session:
    python: str
    out: Path
    minutes: float
    quick: bool
    peers: str | None
    device: Machine
    date: str
    began: float = field(default_factory=time.monotonic)
    parts: list[Part] = field(default_factory=list)
    bench: dict[str, Any] = field(default_factory=dict)

    @property
    def left(self) -> float:
        return 60 * self.minutes - (time.monotonic() - self.began)

    def part(self, name: str, command: Sequence[str], limit: float, note: Callable[[Ran], str] = lambda ran: ran.last,
             more: Mapping[str, str] | None = None, keep: int = 4000) -> Part:
        """Runs a command as a part, writes the report."""
        if self.left < LEAST:
            return self.add(Part(name, "left out", 0.0, "no time is left"))
        say(f"{name} (at most {min(limit, self.left):.0f} s)")
        ran = run(command, min(limit, self.left), more)
        status = "time was up" if ran.code is None else "well" if ran.code == 0 else "failed"
        return self.add(Part(name, status, ran.seconds, note(ran), ran.output[-keep:]))

    def add(self, part: Part) -> Part:
        self.parts.append(part)
        say(f"  {part.status}{f' in {part.seconds:.0f} s' if part.seconds else ''}: {part.note}")
        self.write()
        return part

    def write(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        place = self.out / f"gpu-{self.date}"
        place.with_suffix(".json").write_text(json.dumps(as_json(self), indent=1) + "\n", encoding="utf-8")
        place.with_suffix(".md").write_text(as_text(self), encoding="utf-8")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---------------------------------------------------------------- parts
def install(session: Session) -> bool:
    """Whether CuPy is there and works, installed if need be.  Without a network what is there must do."""
    seen = seen_by_cupy(session)
    if isinstance(seen, str):
        extra = session.device.extra
        wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][extra]
        session.part(f"install CuPy ({extra})", [session.python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet",
                                                 "--retries", "1", "--timeout", "15", *wanted], 300)
        seen = seen_by_cupy(session)
    if isinstance(seen, str):
        session.add(Part("CuPy", "failed", 0.0, seen))
        return False
    session.device.versions |= seen
    session.add(Part("CuPy", "well", 0.0, f"{seen['cupy']} finds {seen['device seen by cupy']}"))
    return True


def seen_by_cupy(session: Session) -> dict[str, str] | str:
    """Versions, or why CuPy does not work."""
    asked = run([session.python, "-c", SEEN], min(120, max(session.left, LEAST)))
    if asked.code != 0:
        return asked.last or f"CuPy says nothing (exit code {asked.code})"
    found: dict[str, str] = json.loads(asked.last)
    return found


def example(session: Session, name: str) -> list[str]:
    return [session.python, "-m", "dsl", "run", f"examples/{name}.lr", "--device", "cuda", "--quiet", "--out", str(ROOT / "build" / "gpu")]


def smoke(session: Session) -> None:
    """The examples; the README's first, in a process of its own each."""
    for name in EXAMPLES:
        session.part(f"run {name}", example(session, name), 120)
    session.part("checks of the examples", [session.python, "-m", "dsl", "test", "examples"], 180, more={"LR_DEVICE": "cuda"})


def benchmarks(session: Session) -> None:
    place = session.out / f".gpu-{session.date}.bench.json"
    words = [session.python, "-m", "dsl", "bench", "--device", "cuda", "--quiet", "--json", str(place),
             *(["--quick"] if session.quick else []),
             *(["--rounds", "3"] if session.minutes < 30 and not session.quick else []),
             *(["--python", session.peers] if session.peers else [])]

    def note(ran: Ran) -> str:
        return ran.last if ran.code == 0 else f"broken off; the last words: {ran.last}"
    session.out.mkdir(parents=True, exist_ok=True)
    session.part("benchmarks", words, 0.6 * 60 * session.minutes, note, keep=20_000)
    with contextlib.suppress(OSError, ValueError):
        session.bench = json.loads(place.read_text())
        place.unlink()
    session.write()


def ways(session: Session) -> None:
    """What each way of the GPU takes beside its estimate."""
    session.part("ways", [session.python, "benchmarks/ways.py"], 120, lambda ran: "see below" if ran.code == 0 else ran.last)


def tests(session: Session) -> None:
    """In several processes where pytest can, one after the other where not."""
    there = [str(path) for name in TESTS if (path := ROOT / "tests" / f"{name}.py").exists()]
    workers = max(2, min(12, (os.cpu_count() or 4) - 2))
    several = ["-n", str(workers), "--dist", "worksteal"] if run([session.python, "-c", "import xdist"], 30).code == 0 else []
    common = [session.python, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "-p", "no:benchmark", *several]
    session.part("tests", [*common, "--device", "cuda", *there], 0.7 * max(session.left, LEAST), tested, ORACLES)


def tested(ran: Ran) -> str:
    """pytest's closing line, and the names of the first that failed."""
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", ran.output, re.MULTILINE)
    shown = f"; {', '.join(failed[:8])}{' …' if len(failed) > 8 else ''}" if failed else ""
    return ran.last + shown


def sanitizer(session: Session) -> None:
    tool = shutil.which("compute-sanitizer") or next((str(p) for p in sorted(TOOLKITS.glob("cuda*/bin/compute-sanitizer"))), None)
    if tool is None:
        session.add(Part("compute-sanitizer", "left out", 0.0, "it is not installed (it comes with the CUDA toolkit)"))
        return
    for kind in TOOLS:
        for name in SANITIZED:
            session.part(f"{kind}: {name}", [tool, "--tool", kind, "--error-exitcode", "9", "--target-processes", "all",
                                             *example(session, name)], 150, sanitized)


def sanitized(ran: Ran) -> str:
    summaries = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: [^\n]*", ran.output)
    return "; ".join(dict.fromkeys(summaries)) or ran.last


# ---------------------------------------------------------------- the report
def bandwidth(session: Session, column: str) -> str:
    rates = [r["gb_per_s"] for r in session.bench.get("results", []) if r["column"] == column and "gb_per_s" in r]
    return f"{max(rates):,.0f} GB/s" if rates else "not measured"


def as_json(session: Session) -> dict[str, Any]:
    return {"date": session.date, "machine": asdict(session.device), "minutes": session.minutes, "quick": session.quick,
            "seconds": round(time.monotonic() - session.began, 1), "copy bandwidth": bandwidth(session, "copy"),
            "read bandwidth": bandwidth(session, "read"), "parts": [asdict(p) for p in session.parts], "bench": session.bench}


def as_text(session: Session) -> str:
    device, bench = session.device, session.bench
    rows = [("GPU", device.gpu), ("compute capability", device.capability), ("memory", device.memory), ("driver", device.driver),
            ("CUDA of the driver", device.cuda), *device.versions.items(), ("Python", sys.version.split()[0]),
            *((f"{name}", version) for name, version in bench.get("versions", {}).items() if name != "cupy"),
            ("copy bandwidth", bandwidth(session, "copy")), ("read bandwidth", bandwidth(session, "read"))]
    lines = [f"# On a GPU: {device.gpu}, {session.date}", "", "| | |", "|---|---|", *(f"| {a} | {cell(b)} |" for a, b in rows if b), "",
             "## What ran", "", "| part | | seconds | |", "|---|---|---|---|",
             *(f"| {p.name} | {p.status} | {p.seconds:.1f} | {cell(p.note)} |" for p in session.parts), ""]
    if bench.get("targets"):
        words = {True: "met", False: "MISSED", None: "open"}
        lines += ["## Targets", "", "| work | size | target | | measured |", "|---|---|---|---|---|",
                  *(f"| {t['work']} | {t['size']:,} | {t['target']} | {words[t['met']]} | {measured(t)} |" for t in bench["targets"]), ""]
    for p in session.parts:
        if p.name in ("benchmarks", "ways") and p.output:
            lines += [f"## {p.name.capitalize()}", "", "```", p.output.strip(), "```", ""]
    for p in session.parts:
        if p.status == "failed" and p.name not in ("benchmarks", "ways"):
            lines += [f"## {p.name}: the end of what it said", "", "```", p.output.strip()[-4000:], "```", ""]
    return "\n".join(lines)


def measured(target: Mapping[str, Any]) -> str:
    value = target["value"]
    return "" if value is None else f"{value:.0%}" if "bandwidth" in target["target"] else f"{value:,.4g}"


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")[:300]


# ---------------------------------------------------------------- all of it
def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run everything that needs a GPU, and write benchmarks/gpu-DATE.md and .json.")
    parser.add_argument("--minutes", type=float, default=60, help="for all of it (default: 60)")
    parser.add_argument("--quick", action="store_true", help="small sizes in the benchmarks")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has (or is given) CuPy; default: this one")
    parser.add_argument("--peers", metavar="PYTHON", help="the interpreter that JAX and PyTorch run under")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks", help="where the report goes")
    parser.add_argument("--only", help="of smoke, bench, ways, tests, sanitizer: these, with commas")
    options = parser.parse_args(words)
    parts: dict[str, Callable[[Session], None]] = {
        "smoke": smoke, "bench": benchmarks, "ways": ways, "tests": tests, "sanitizer": sanitizer}
    chosen = [w.strip() for w in options.only.split(",")] if options.only else list(parts)
    if set(chosen) - set(parts):
        parser.error(f"--only: there are {', '.join(parts)}")
    found = machine()
    if isinstance(found, str):
        say(f"No GPU to run on: {found}.\n`lr doctor` says what is installed, which devices work, and what to do about the others.")
        return NO_GPU
    say(f"{found.gpu}, driver {found.driver}, CUDA {found.cuda or 'unknown'}")
    session = Session(options.python, options.out, options.minutes, options.quick, options.peers, found, datetime.date.today().isoformat())
    if not install(session):
        say(f"CuPy does not work here: {session.parts[-1].note}\n`lr doctor` says which package fits this driver "
            f"({found.extra}: see pyproject.toml); --python names an interpreter that has it.")
        return NO_GPU
    for name in chosen:
        try:
            parts[name](session)
        except Exception as problem:                      # the other parts are worth having
            session.add(Part(name, "failed", 0.0, f"{type(problem).__name__}: {problem}"))
    say(f"the report is in {session.out.name}/gpu-{session.date}.md")
    return 1 if any(p.status in ("failed", "time was up") for p in session.parts) else 0


if __name__ == "__main__":
    sys.exit(main())
