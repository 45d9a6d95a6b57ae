"""The CUDA sources of every program that there is: examples, `tests/good`, the traps, random programs; and what NVRTC made of them.

In: names and seeds.  Out: `Named` programs; `joined` sources of them in every way they may be run, a namespace each, because a
call of NVRTC costs more than most programs; their `Compiled` forms, kept in the temporary directory under the hash of the source,
the options and NVRTC's version.
"""
from __future__ import annotations

import hashlib
import json
import os
import random
import re
import sys
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from random_programs import LENGTHS, generate, length
from training_programs import ROWS, script
from wide_programs import generate as generate_wide

import dsl
from dsl import show
from dsl.backends.cuda import nvrtc
from dsl.backends.cuda.ahead import ahead_of
from dsl.backends.cuda.driver import cuda_source
from dsl.backends.cuda.program import sources
from dsl.errors import LrError
from dsl.loops.ir import Program

TESTS = Path(__file__).parent
EXAMPLES = sorted((TESTS.parent / "examples").glob("*.lr"))
GOOD = sorted((TESTS / "good").glob("*.lr"))
NOT_TRAINABLE = ("E0402", "E0406", "E0421")
NO_DERIVATIVE = ("E0401", "E0402", "E0403", "E0404", "E0405", "E0406")
PREFIX, BEGINS = "p_", re.compile(r"\bp_")
RESOURCES = ("--ptxas-options=-v",)


@dataclass(frozen=True)
class Named:
    """A program that has kernels, and whose it is."""

    label: str
    program: Program

    @cached_property
    def kernels(self) -> str:
        """To be launched one by one."""
        return cuda_source(self.program, PREFIX)

    @cached_property
    def ways(self) -> list[str]:
        """The same, also by a host that does not wait, and as one kernel."""
        ahead = ahead_of(self.program)
        return [*sources(self.program, PREFIX).values(), *([cuda_source(ahead, PREFIX)] if ahead is not None else [])]


def joined(programs: Sequence[Named], every_way: bool = True) -> str:
    """One source of all, the functions of the `k`th named `p{k}_…`.  Equal ones are there once."""
    texts = dict.fromkeys(text for p in programs for text in (p.ways if every_way else [p.kernels]) if text.strip())
    return "\n".join(f"namespace n{k} {{\n{re.sub(BEGINS, f'p{k}_', text)}\n}}" for k, text in enumerate(texts))


def programs_of(label: str, session: dsl.Session, name: str | None = None) -> list[Named]:
    """A script's formulas and training loops, those that have loops; of one name."""
    return [Named(f"{label}: {made.title}", made.program) for made in show.programs(session, name, gpu=True) if made.program is not None]


def of_file(path: Path) -> list[Named]:
    return programs_of(path.name, dsl.load(path).session)


def of_trap(name: str, declared: str, expression: str, has_gradient: bool) -> list[Named]:
    gradient = "\nlet slope = grad(sum(y), x)" if has_gradient else ""
    return programs_of(name, dsl.compile(f"{declared}\nlet y = {expression}{gradient}").session)


def of_seed(seed: int) -> list[Named]:
    """A random program's result, and the gradient in its first input of floats if it has one."""
    random_program = generate(seed) if seed % 4 == 0 else generate_wide(seed)[0]
    precision = "float32" if seed % 3 == 2 else "float64"
    session = dsl.compile(random_program.source, precision=precision, seed=seed).session
    first = next((name for name, term in random_program.inputs.items() if term.kind == "f"), None)
    if random_program.result.kind == "f" and first is not None:
        try:
            text = f"{random_program.source}\nlet slope = grad(sum(result), {first})"
            session = dsl.compile(text, precision=precision, seed=seed).session
        except LrError as problem:
            if problem.diagnostics[0].code not in NO_DERIVATIVE:
                raise
    return programs_of(f"seed {seed}", session)


def of_training(seed: int) -> list[Named]:
    """A random program as a model that is trained; nothing where it is none."""
    rng = random.Random(seed)
    program, _ = generate_wide(seed)
    made = script(program, rng)
    if made is None:
        return []
    text, _, inputs = made
    lines, feeds = [text], []
    for name in inputs:
        term = program.inputs[name]
        shape = ", ".join(map(str, (ROWS, *(length(d, LENGTHS[0]) for d in term.shape))))
        value = {"f": f"normal({shape})", "i": f"int(round(3 * normal({shape})))", "b": f"normal({shape}) > 0"}[term.kind]
        lines.append(f"data rows_{name} = {value}")
        feeds.append(f"{name} = rows_{name}")
    words = rng.choice(("", " batch 3", " batch 4"))
    lines.append(f"train 3 epochs{words} over {', '.join(feeds)}" if feeds else "train 9 steps")
    try:
        return programs_of(f"training of seed {seed}", dsl.compile("\n".join(lines), seed=seed).session, "train")
    except LrError as problem:
        if problem.diagnostics[0].code not in NOT_TRAINABLE:
            raise
        return []


# ---------------------------------------------------------------- compiled
def compiled(source: str, architecture: str, more: tuple[str, ...] = RESOURCES) -> nvrtc.Compiled:
    """As `nvrtc.compiled`, but for the machine code itself, which is not kept."""
    key = hashlib.sha256("\0".join((source, architecture, *nvrtc.OPTIONS, *more, str(nvrtc.version()))).encode()).hexdigest()[:32]
    place = folder() / key
    try:
        kept = json.loads(zlib.decompress(place.read_bytes()))
        return nvrtc.Compiled(b"", kept["ptx"], kept["log"])
    except (OSError, ValueError, KeyError, zlib.error):
        made = nvrtc.compiled(source, architecture, more)
    assert not architecture.startswith("sm_") or made.cubin[:4] == b"\x7fELF"
    partial = place.with_suffix(f".{os.getpid()}")
    partial.write_bytes(zlib.compress(json.dumps({"ptx": made.ptx, "log": made.log}).encode(), 1))
    partial.replace(place)
    return made


@cache
def folder() -> Path:
    """One of this user alone where there is one, else one of this process."""
    place = Path(tempfile.gettempdir(), f"lr-nvrtc-{os.getuid()}")
    place.mkdir(mode=0o700, exist_ok=True)
    found = place.lstat()
    if place.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o022:
        return Path(tempfile.mkdtemp(prefix="lr-nvrtc-"))
    return place
