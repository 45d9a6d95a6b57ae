"""Random programs on every backend.

    python tests/fuzz.py --count 5000 [--seed 0] [--jobs 2] [--cuda 50] [--sanitize]

Each program is a loop program with its values, the gradients of its sum, and now and then second derivatives.  It is run by
the reference, by the interpreter (watched, kernels in one and in three runs), by LLVM (on one and on two threads, every other
program with runs of a few operations, so that threads share what is this small), and some of it by CUDA source in the shim: as
launches, as one block and as a grid; with `--sanitize` the shim looks at every access.
Threads may change no bit.  Other differences are measured by the reference itself: every op that another backend may round
otherwise gets a random error of twice what its row allows, those that add up get theirs in their operands too, and what that
does to the results, eightfold, is the bound.  What flips under such errors (a comparison, a rounding) is nobody's fault.
Every fifth one is trained besides (`training_programs.py`), and some of these also by CUDA source.
"""
# ruff: noqa: E501  (what is compared, one line each)
from __future__ import annotations

import argparse
import multiprocessing
import random
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from random_programs import LENGTHS, Program, check, generate, values_of
from training_programs import compare_training
from wide_programs import generate as generate_wide

import dsl
from dsl.backends.llvm import kernels, products, runtime, threads
from dsl.backends.llvm.native import NativeProgram
from dsl.backends.native import NativeBackend, NativeExecutable
from dsl.backends.numpy import NumpyExecutable, resolve
from dsl.errors import LrError
from dsl.loops.interpret import interpret
from dsl.loops.ir import Product, statements
from dsl.loops.text import listing
from dsl.ops.control import LOOPS

SAMPLES, MORE = 4, 60
"""Runs of the reference with errors; and how many before a program is said to be wrong."""
EVERY_CUDA, EVERY_TRAINED = 50, 5
LONG = {"n": 37, "m": 20, "k": 17}
"""Lengths at which LLVM's loops are vectors; the interpreter would take too long."""


# ---------------------------------------------------------------- all backends at once
FINE = runtime.HELPERS["chunk"].replace("32768", "4").replace("shl i64 %record, 2", "and i64 %record, 0")
assert FINE.count(", 4\n") == 1 and "and i64 %record, 0" in FINE


def finely_cut() -> Any:
    """What makes LLVM's programs share runs of a few operations."""
    stack = mock.patch.multiple(products, SMALL=0, TILE=4), mock.patch.object(kernels, "RUN_WORK", 1), mock.patch.dict(runtime.HELPERS, chunk=FINE)
    return stack


@dataclass
class Everything:
    """A loop program on every executor; LLVM's results are handed on."""

    program: Any
    fine: bool
    cuda: bool
    slow: bool = True
    sanitize: bool = False
    seed: int = 0
    answers: dict[str, tuple[bool, list[np.ndarray]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.fine:
            one, two, three = finely_cut()
            with one, two, three:
                self.native = NativeProgram(self.program, threads=2, cache=False)
        else:
            self.native = NativeProgram(self.program, threads=2, cache=False)
        if self.cuda:
            self.on_cuda = on_cuda(self.program, self.sanitize, self.seed)

    def __call__(self, arrays: Sequence[np.ndarray], scalars: Sequence[Any], sizes: dict[str, int]) -> bool:
        program = self.program
        self.answers = {}
        ways: dict[str, Any] = {"LLVM on one thread": lambda a: self.on(1, a, scalars, sizes), "LLVM on two threads": lambda a: self.on(2, a, scalars, sizes)}
        for runs in (1, 3) if self.slow else ():
            ways[f"interpreter, {runs} runs"] = lambda a, runs=runs: interpret(
                program, {b.name: x for b, x in zip(program.passed, a, strict=True)}, {r.name: x for r, x in zip(program.scalars, scalars, strict=True)}, sizes, runs=runs)
        for name, run in self.on_cuda.items() if self.cuda and self.slow else ():
            ways[name] = lambda a, run=run: run(a, scalars, sizes)
        for name, way in ways.items():
            own = [a.copy() for a in arrays]
            self.answers[name] = bool(way(own)), own
        fault, results = self.answers["LLVM on one thread"]
        for a, b in zip(arrays, results, strict=True):
            a[...] = b
        return fault

    def on(self, count: int, arrays: list[np.ndarray], scalars: Sequence[Any], sizes: dict[str, int]) -> bool:
        self.native.threads = count
        self.native._frames.clear()
        return self.native(arrays, scalars, sizes)


def on_cuda(program: Any, sanitize: bool, seed: int) -> dict[str, Any]:
    """The ways in which CUDA source runs a program, in random shapes; a grid's blocks are small, so that it has more than one."""
    from dsl.backends.cuda.program import GpuProgram, Shape
    from dsl.backends.cuda.shim import ShimLauncher
    rng = random.Random(seed)
    gpu = GpuProgram(program, ShimLauncher(seed, most_blocks=5, sanitize=sanitize, shared_bytes=rng.choice((0, 600, 4096, 99 << 10))))
    found = {"CUDA, launches": gpu.launched}
    if gpu.stays:
        for name, shape in (("CUDA, one block", Shape(1, rng.choice((32, 64, 96, 256)))), ("CUDA, a grid", Shape(rng.randint(2, 4), rng.choice((32, 64, 96))))):
            found[name] = lambda arrays, scalars, sizes, shape=shape: gpu.whole.run(arrays, scalars, sizes, shape)
    return found


def same_bits(program: Any, answers: dict[str, tuple[bool, list[np.ndarray]]]) -> bool:
    """Whether the ways of CUDA agree in every bit, but that a nan is a nan; the launcher's products are another library's."""
    product = any(isinstance(s, Product) for s in statements(program.body))
    ways = [arrays for name, (_, arrays) in answers.items() if name.startswith("CUDA") and not (product and name.endswith("launches"))]
    plain = [[np.where(np.isnan(a), np.nan, a).astype(a.dtype).tobytes() if a.dtype.kind == "f" else a.tobytes() for a in arrays] for arrays in ways]
    return all(found == plain[0] for found in plain)


@contextmanager
def device_cuda(seed: int, sanitize: bool) -> Iterator[None]:
    """The shim is the GPU; a program that can be one kernel is one, of one block or three."""
    from dsl.backends.cuda import device
    from dsl.backends.cuda.choice import Choice
    from dsl.backends.cuda.program import GpuProgram
    from dsl.backends.cuda.shim import ShimLauncher
    real, way = GpuProgram.choice, ("launches", "one block", "a grid")[seed // EVERY_CUDA % 3]

    def choice(self: Any, sizes: Any) -> Choice:
        found = real(self, sizes)
        return Choice(found.seconds, way, 32) if self.stays else found
    launcher = mock.patch.object(device, "CupyLauncher", lambda: ShimLauncher(seed, most_blocks=5, blocks_together=3, sanitize=sanitize))
    with launcher, mock.patch.object(device, "absent", lambda: None), mock.patch.object(GpuProgram, "choice", choice):
        yield


# ---------------------------------------------------------------- what errors of rounding do
EXACT = frozenset(("const", "dim", "iota", "leaf", "sort", "max", "min", "cast", "spread", "alias", "stop_grad", "xmul"))
POINTS = ("lgamma", "digamma", "polygamma", "logaddexp", "logit")          # NumPy's and SciPy's lose digits near their zeros
LEAST = {"log_softmax": 1, "logsumexp": 1}          # logarithms of sums that may be 1 and a little
SUMS = ("sum_to", "scatter_add")                    # they move elements, and add up those that meet


class Rounded:
    """The reference, its ops a little off, each element by itself."""

    def __init__(self, executable: NumpyExecutable, rng: np.random.Generator) -> None:
        self.executable, self.rng = executable, rng

    def off(self, value: Any, units: float, least: float = 0) -> Any:
        """The value some units off; they are those of `least` where it is smaller."""
        value = np.asarray(value)
        if value.dtype.kind != "f":
            return value[()]
        error = units * np.finfo(value.dtype).eps * self.rng.uniform(-1, 1, value.shape)
        moved = value + np.maximum(np.abs(value), value.dtype.type(least)) * error.astype(value.dtype)
        return np.where(np.isfinite(value), moved, value)[()]

    def __call__(self, leaves: Sequence[Any]) -> tuple[Any, ...]:
        this = self.executable
        seen = dict(zip(this.leaves, leaves, strict=True)) | this.constants
        for node in this.nodes:
            args = [seen[a] for a in node.args]
            if node.op in LOOPS:
                runner = this.loops[node]
                inner = Rounded(runner.body.executable, self.rng)

                def body(*operands: Any, runner: Any = runner, inner: Rounded = inner) -> tuple[Any, ...]:
                    given = dict(zip(runner.loop.parameters, operands, strict=True))
                    return inner([given[leaf] for leaf in inner.executable.leaves])
                seen.update(zip(runner.outputs, runner(*args, body=body), strict=True))
                continue
            op, attrs = node.op, {k: resolve(v, this.sizes or {}) for k, v in node.attrs}
            uniform = op.name == "draw" and attrs["kind"] != "normal"
            exact = (op.structural and op.name not in SUMS) or op.name in EXACT or uniform or (op.ulp is not None and max(op.ulp) <= 0.5)
            if not exact and (not op.elementwise or op.name in POINTS) and op.name != "draw":
                args = [self.off(a, 2) for a in args]
            value = op.numpy(*args, **attrs)
            seen[node] = value if exact else self.off(value, 2 * max(op.ulp or (4,)), LEAST.get(op.name, 0))
        return tuple(seen[r] for r in this.roots)


def agrees(got: np.ndarray, wanted: np.ndarray, others: Sequence[Any]) -> np.ndarray:
    """Where a result is as near the reference's as errors of rounding bring it."""
    if wanted.dtype.kind != "f":
        return (got == wanted) | np.any([np.asarray(o) != wanted for o in others], axis=0)
    with np.errstate(all="ignore"):
        moved = np.max([np.abs(np.asarray(o).astype(float) - wanted) for o in others], axis=0)
        same = (got == wanted) | (np.isnan(got) & np.isnan(wanted))
        info = np.finfo(wanted.dtype)
        near = np.abs(got.astype(float) - wanted) <= 8 * moved + 4 * info.eps * np.abs(wanted) + info.tiny
        unsettled = np.any([np.isfinite(o) != np.isfinite(wanted) for o in others], axis=0)
    return same | near | unsettled


# ---------------------------------------------------------------- one program
class Wrong(AssertionError):
    """A backend does not mean what the reference means."""


def made(seed: int) -> tuple[Program, bool]:
    return (generate(seed), False) if seed % 4 == 0 else generate_wide(seed)


def precision_of(seed: int) -> str:
    return "float32" if seed % 3 == 2 else "float64"


def outputs(model: dsl.Model, program: Program) -> list[str]:
    """The value, the gradients there are, and sometimes a second derivative."""
    texts = ["result"]
    if program.result.kind == "f":
        for name, term in program.inputs.items():
            first, second = f"grad(sum(result), {name})", f"grad(sum(sin(grad(sum(result), {name}))), {name})"
            for text in [first, *[second] * (program.seed % 6 == 1 and len(texts) == 1)] if term.kind == "f" else []:
                try:
                    model.function(list(program.inputs), [text])
                    texts.append(text)
                except LrError as problem:
                    if problem.diagnostics[0].code not in ("E0401", "E0402", "E0403", "E0404", "E0405", "E0406"):
                        raise
    return texts


def compare(seed: int, cuda: bool = False, sanitize: bool = False) -> str:
    """What became of a program: `agrees`, or `reference` where no loops were made.  Raises `Wrong`, or what a backend raised."""
    program, drawn = made(seed)
    precision = precision_of(seed)
    if not drawn:
        check(program, precision=precision, gradients=False)
    model = dsl.compile(program.source, device="numpy", precision=precision, seed=seed)
    texts = outputs(model, program)
    function = model.function(list(program.inputs), texts)
    compute = model.session.compute
    loops: list[Everything] = []

    def compiler(program: Any) -> Everything:
        loops.append(Everything(program, seed % 2 == 1, cuda, sanitize=sanitize, seed=seed))
        return loops[-1]
    compute.native = NativeBackend(compiler)
    for sizes in (*LENGTHS, LONG):
        values = list(values_of(program, sizes).values())
        compute.device = lambda: "numpy"
        problem = wanted = None
        try:
            wanted = function(*values)
            if other := [t for t, y in zip(texts, wanted, strict=True) if y.dtype.kind == "f" and y.dtype != precision]:
                raise Wrong(f"{other} are not {precision}")
        except LrError as found:
            problem = found
        compute.device = lambda: "cpu"
        if loops:
            loops[0].slow = sizes is not LONG
        try:
            got = function(*values)
        except LrError as found:
            if problem is None or found.diagnostics != problem.diagnostics:
                raise
            continue
        if problem is not None:
            raise Wrong(f"the reference says {problem}")
        compiled, = (c for (native, _), c in compute.cache.items() if native)
        if not isinstance(compiled.executable, NativeExecutable):
            return "reference"
        reference, = (c for (native, _), c in compute.cache.items() if not native)
        answers = loops[0].answers
        one, two = (answers[f"LLVM on {n}"] for n in ("one thread", "two threads"))
        if [a.tobytes() for a in one[1]] != [a.tobytes() for a in two[1]]:
            raise Wrong(f"threads change bits\n{listing(loops[0].program)}")
        if not same_bits(loops[0].program, answers):
            raise Wrong(f"the ways of CUDA differ in bits\n{listing(loops[0].program)}")
        settle(program, reference.executable, function, values, texts, answers, wanted, len(got), loops[0].program, compute)
    return "agrees"


def settle(program: Program, executable: Any, function: Any, values: Sequence[Any], texts: Sequence[str], answers: dict[str, Any],
           wanted: Sequence[Any], count: int, loops: Any, compute: Any) -> None:
    rng = np.random.default_rng(program.seed)
    samples: list[Any] = []

    def sample(more: int) -> None:
        compute.device = lambda: "numpy"
        with mock.patch.object(executable, "run", lambda leaves: Rounded(executable, rng)(leaves)):
            samples.extend(function(*values) for _ in range(more))
    sample(SAMPLES)
    for name, (fault, arrays) in answers.items():
        if fault:
            raise Wrong(f"{name}: a fault that the reference does not meet\n{listing(loops)}")
        for i, (text, y, right) in enumerate(zip(texts, arrays[len(arrays) - count:], wanted, strict=True)):
            if y.shape != right.shape or y.dtype != right.dtype:
                raise Wrong(f"{name}: {text} is {y.dtype}{y.shape}, not {right.dtype}{right.shape}")
            if not np.all(agrees(y, right, [s[i] for s in samples])):
                if len(samples) == SAMPLES:
                    sample(MORE)
                bad = ~agrees(y, right, [s[i] for s in samples])
                if bad.any():
                    moved = np.max([np.abs(np.asarray(s[i]).astype(float) - right)[bad] for s in samples], axis=0)
                    raise Wrong(f"{name}: {text} is {y[bad]}, not {right[bad]}, which moves by {moved}\n{listing(loops)}")


# ---------------------------------------------------------------- many
def block(seeds: Sequence[int], cuda: int = EVERY_CUDA, sanitize: bool = False) -> tuple[Counter[str], list[str]]:
    """What became of these programs, and the stories of those that failed.  Each `cuda`th is run by CUDA source, if it is not 0."""
    found: Counter[str] = Counter()
    stories = []
    for seed in seeds:
        shim = cuda > 0 and seed % cuda == 7 % cuda
        try:
            found[compare(seed, shim, sanitize)] += 1
            found["with CUDA"] += shim
            if seed % EVERY_TRAINED == 3:
                found[compare_training(seed)] += 1
            if cuda and seed % cuda == 23 % cuda and seed % EVERY_TRAINED == 3:
                with device_cuda(seed, sanitize):
                    found[f"{compare_training(seed, 'cuda')} with CUDA"] += 1
        except Exception as problem:
            found["wrong"] += 1
            where = "" if isinstance(problem, AssertionError) else traceback.format_exc(limit=-4)
            stories.append(f"# seed {seed}, {precision_of(seed)}: {type(problem).__name__}\n{made(seed)[0].source}\n{problem}\n{where}")
    return found, stories


def prepare() -> None:
    """Threads are woken for every job, however small.  Before any program runs in this process."""
    threads.WAKE = 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare random programs on all backends.")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0, help="of the first program; the others follow")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--cuda", type=int, default=EVERY_CUDA, metavar="N", help="run every Nth program by CUDA source too")
    parser.add_argument("--sanitize", action="store_true", help="every access of CUDA source is looked at: arrays, races, what nothing was written to")
    parser.add_argument("--show", action="store_true", help="print the program of --seed and its loops, and do no more")
    options = parser.parse_args()
    began = time.monotonic()
    last = options.seed + options.count
    blocks = [range(first, min(first + 20, last)) for first in range(options.seed, last, 20)]
    total: Counter[str] = Counter()
    if options.show:
        print(made(options.seed)[0].source)
        return 0
    with multiprocessing.get_context("spawn").Pool(options.jobs, prepare, maxtasksperchild=20) as pool:
        for found, stories in pool.imap_unordered(partial(block, cuda=options.cuda if shutil.which("g++") else 0, sanitize=options.sanitize), blocks):
            total += found
            for story in stories:
                print(story, flush=True)
            print(f"\r{sum(total[w] for w in ('agrees', 'reference', 'wrong'))} programs, {total['wrong']} wrong", end="", file=sys.stderr)
    print(f"\n{total['agrees']} of {options.count} programs agree on every backend ({total['with CUDA']} with CUDA in the shim{', every access looked at' * options.sanitize}), {total['trained'] + total['stopped']} were trained alike "
          f"({total['trained with CUDA'] + total['stopped with CUDA']} with CUDA), "
          f"{total['reference']} have no loops yet, {total['wrong']} are wrong; {time.monotonic() - began:.0f} s")
    return 1 if total["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
