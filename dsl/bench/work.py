"""The work that is timed, as a table.

In: nothing.  Out: `WORK`, and `GPU_WORK` for `--device cuda`: one record a kind of work, with the sizes it is run at, and the
targets that a run is held to.

A work of the kind
    time      is repeated in a warm process; milliseconds a call
    memory    likewise; MiB by which the resident set grows at most while it is repeated
    first     is run twice in a fresh process; the first run's milliseconds less the second's: what compiling costs
    process   is a whole process; milliseconds from its start to its end
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from dsl.record import record

Kind = Literal["time", "memory", "first", "process"]
Numbers = Mapping[str, Any]

OURS = "lr"
COLUMNS: dict[str, str] = {
    OURS:            "this language",
    "lr-cold":       "this language, nothing in its cache",
    "c":             "C, the limit: gcc -O3 -march=native; full batches with -ffast-math -fopenmp, loops with -ffp-contract=off",
    "c-fast":        "C, loops with -ffast-math too, so without the finite check",
    "blas":          "the matrix products alone, by NumPy's BLAS",
    "jax":           "JAX, jit; loops as a hand-written scan",
    "jax-step":      "JAX, a jitted step called from Python",
    "torch":         "PyTorch, eager",
    "torch-compile": "PyTorch, torch.compile",
    "pytensor":      "PyTensor's function, called a step at a time in loops",
    "pytensor-scan": "PyTensor, a hand-written scan",
    "numba":         "Numba, loops by hand; parallel and fastmath on full batches",
    "numexpr":       "NumExpr",
    "numpy":         "NumPy",
    "python":        "Python floats",
    "imports":       "python -c \"import numpy, lark, llvmlite.binding\"",
}  # fmt: skip
"""Every column of a report, in its order."""

GPU_COLUMNS: dict[str, str] = {
    OURS:            "this language, CUDA kernels through CuPy",
    "lr-cold":       "this language, nothing in its cache",
    "copy":          "a copy of one array on the device, the limit of what reads and writes as much",
    "read":          "a kernel that only reads the same arrays, the limit of what sums them up",
    "cublas":        "the matrix products alone, by cuBLAS",
    "cupy":          "CuPy, an operation a kernel",
    "jax":           "JAX, jit; loops as a hand-written scan",
    "torch":         "PyTorch, eager",
    "torch-compile": "PyTorch, torch.compile",
}  # fmt: skip
"""The columns of a report about a GPU."""
LIMITS = ("copy", "read", "cublas")
"""What the device can do, timed beside ours whatever peers are asked for."""


EVERY_COLUMN = tuple(dict.fromkeys((OURS, "lr-cold", *LIMITS, "cupy", *COLUMNS)))
"""In the order of a report."""


def columns(device: str) -> dict[str, str]:
    return GPU_COLUMNS if device == "cuda" else COLUMNS


class Absent(Exception):
    """A peer that is not installed, or a form it does not have; the text says which."""


@record
class Prepared:
    """A piece of work made ready: `run` is what is timed, `numbers` takes its result apart for comparison."""

    run: Callable[[], Any]
    numbers: Callable[[Any], Numbers]
    reset: Callable[[], None] | None = None
    """Back to the start before each run, outside the time."""
    inside: Callable[[Any], float] | None = None
    """The milliseconds that the run itself says it took."""
    keeps: Any = None
    """What must live as long as the run, where that knows only its address."""
    clock: Callable[[], Callable[[], float]] | None = None
    """Starts a clock; what it returns waits for what was started since, and says how many milliseconds that took."""
    rest: Callable[[], None] | None = None
    """Gives memory back that only a run needs, while others have their turn."""


@record
class Target:
    """`of` takes at most `factor` times what `peer` takes; with `at_least`, `peer` takes at least `factor` times as long.

    Without a peer, `of` takes at most `factor` in the work's own unit; if `each`, microseconds a unit of size."""

    peer: str | None
    factor: float
    at_least: bool = False
    of: str = OURS
    size: int | None = None
    inside: bool = False
    """Of what the run itself says it took, without the call around it."""
    bandwidth: bool = False
    """The two move as many bytes, so `factor` is a part of the peer's bandwidth."""
    each: bool = False


@record
class Work:
    name: str
    title: str
    kind: Kind
    unit: str
    sizes: tuple[int, ...]
    headline: int
    quick: tuple[int, ...]
    base: str = ""
    """The entry of the peers' tables (default: the name)."""
    columns: tuple[str, ...] = tuple(c for c in COLUMNS if c not in ("lr-cold", "imports"))
    targets: tuple[Target, ...] = ()
    tolerance: float = 1e-9
    """How far a peer's numbers may be from ours, relative to the largest number of an array."""
    row_bytes: int = 0
    """What the inputs and outputs take a unit of size, which is also what has to move."""

    @property
    def entry(self) -> str:
        return self.base or self.name

    @property
    def is_moving(self) -> bool:
        """What it moves is what it is measured by."""
        return any(c in LIMITS for c in self.columns) and self.row_bytes > 0


def most(peer: str | None, factor: float, of: str = OURS, size: int | None = None, inside: bool = False) -> Target:
    return Target(peer, factor, False, of, size, inside)


def least(peer: str, factor: float, size: int | None = None) -> Target:
    return Target(peer, factor, True, OURS, size)


def share(peer: str, factor: float) -> Target:
    return Target(peer, factor, True, bandwidth=True)


GROWTH = tuple(10**k for k in range(2, 9))
STEPS = tuple(10**k for k in range(2, 7))

WORK: tuple[Work, ...] = (
    Work("tutorial", "the tutorial: one-sample steps with cost, epoch mean and finite check", "time", "steps",
         (10_100, 1_010_000), 10_100, (1_010,), tolerance=1e-9,
         targets=(most("c", 1.15), most("c", 1.15, inside=True), most("c", 1.15, size=1_010_000), least("pytensor", 500), least("jax", 1))),
    Work("linreg", "linear-regression step: cost and both gradients, float32", "time", "rows",
         GROWTH, 10**7, (100, 10_000), tolerance=2e-3, row_bytes=8,
         targets=(most("c", 1.1), least("jax", 8), least("torch-compile", 2))),
    Work("logistic", "logistic-regression step: cost and both gradients, float32", "time", "rows",
         GROWTH, 10**7, (100, 10_000), tolerance=2e-3, row_bytes=8,
         targets=(most("c", 1.1), least("jax", 8), least("torch-compile", 4))),
    Work("chain", "tanh(x)*exp(-x*x) + log1p(x*x), float32", "time", "elements",
         GROWTH, 10**7, (100, 10_000), tolerance=1e-5, row_bytes=8,
         targets=(most("c", 1.1), least("jax", 3))),
    Work("axpb", "y = a*x + x*x, float32", "time", "elements", GROWTH, 10**7, (100, 10_000), tolerance=1e-5, row_bytes=8),
    Work("logreg100", "logistic regression on 100 features: one full-batch gradient step, float32", "time", "rows",
         (1_000, 10_000, 100_000), 100_000, (1_000,), tolerance=1e-3, row_bytes=404,
         targets=(least("jax", 2.5),)),
    Work("mlp", "MLP 64-64-10 on the digits, batches of 32, 50 epochs, float32", "time", "steps",
         (56, 2_800), 2_800, (56,), tolerance=1e-2,
         targets=(most("jax", 0.8),)),
    Work("wide", "MLP 784-512-10, batches of 256, float32", "time", "steps", (20,), 20, (2,), tolerance=1e-2,
         targets=(most("blas", 1.1),)),
    Work("scan", "logistic map, r = 3.2: the last state, float64", "time", "steps", STEPS, 10**6, (100, 10_000), tolerance=1e-9,
         targets=(most("c", 1.2), least("jax", 1))),
    Work("scan-grad", "logistic map, r = 3.2: the last state and its derivative in r, float64", "time", "steps",
         STEPS, 10**6, (100, 10_000), tolerance=1e-9,
         targets=(most("c", 1.2), least("jax", 1))),
    Work("memory", "growth of the resident set over warm linear-regression steps, MiB", "memory", "rows",
         (10**7,), 10**7, (10_000,), tolerance=2e-3, row_bytes=8,
         targets=(most(None, 2.0),)),
    Work("compile", "compiling the training loop of the MLP", "first", "steps", (56,), 56, (56,), base="mlp",
         columns=(OURS, "lr-cold", "jax"), tolerance=1e-2,
         targets=(most(None, 400.0, of="lr-cold"), most(None, 30.0))),
    Work("start", "the tutorial as a whole process, from the shell to the printed result", "process", "steps",
         (10_100,), 10_100, (10_100,), columns=(OURS, "lr-cold", "imports", "jax", "torch", "pytensor", "numba", "numpy"),
         tolerance=0.2,
         targets=(most("jax", 0.6), most("jax", 0.6, of="lr-cold"), most("imports", 1.4))),
)  # fmt: skip

GPU_WORK: tuple[Work, ...] = (
    Work("axpb", "y = a*x + x*x, float32", "time", "elements", (10**9,), 10**9, (10**7,), base="axpb-gpu", tolerance=1e-5, row_bytes=8,
         columns=(OURS, "copy", "cupy", "jax", "torch-compile"),
         targets=(share("copy", 0.9),)),
    Work("chain", "tanh(x)*exp(-x*x) + log1p(x*x), float32", "time", "elements", (10**9,), 10**9, (10**7,), base="chain-gpu",
         tolerance=1e-5, row_bytes=8, columns=(OURS, "copy", "cupy", "jax", "torch", "torch-compile"),
         targets=(share("copy", 0.75), least("cupy", 5), least("jax", 1), least("torch-compile", 1))),
    Work("linreg", "linear-regression step: cost and both gradients, float32", "time", "rows", (10**9,), 10**9, (10**7,),
         base="linreg-gpu", tolerance=2e-3, row_bytes=8, columns=(OURS, "read", "cupy", "jax", "torch", "torch-compile"),
         targets=(share("read", 0.85), least("jax", 1), least("torch-compile", 1))),
    Work("tutorial", "the tutorial: one-sample steps with cost, epoch mean and finite check", "time", "steps",
         (10_100,), 10_100, (1_010,), tolerance=1e-9, columns=(OURS, "jax"),
         targets=(most(None, 1.0), least("jax", 20))),
    Work("mlp", "MLP 64-64-10 on the digits, batches of 32, 50 epochs, float32", "time", "steps", (2_800,), 2_800, (56,), tolerance=1e-2,
         columns=(OURS, "jax", "torch"),
         targets=(Target(None, 15.0, each=True), least("jax", 3))),
    Work("wide", "MLP 784-4096-10, batches of 8192, float32", "time", "steps", (10,), 10, (1,), base="wide-gpu", tolerance=1e-2,
         columns=(OURS, "cublas", "jax", "torch"),
         targets=(most("cublas", 1.1),)),
    Work("compile", "compiling the training loop of the MLP", "first", "steps", (56,), 56, (56,), base="mlp",
         columns=(OURS, "lr-cold", "jax"), tolerance=1e-2,
         targets=(most(None, 1_000.0, of="lr-cold"), most(None, 50.0))),
)  # fmt: skip


def works(device: str) -> tuple[Work, ...]:
    return GPU_WORK if device == "cuda" else WORK


BY_NAME = {work.name: work for work in WORK}
