"""Some of the random programs of `make fuzz`, on the reference, the watched interpreter and LLVM; and that a wrong backend is caught."""
from __future__ import annotations

import os
import re
import shutil

import numpy as np
import pytest

from dsl.backends.cuda.barriers import Waits
from dsl.backends.cuda.shim import ShimLauncher
from dsl.backends.llvm.native import NativeProgram
from dsl.loops.ir import Swap
from tests import fuzz
from tests.test_cuda_source import needs
from tests.wide_programs import loops_over_rows

BLOCKS, SIZE = 20 if os.environ.get("LR_TEST_ALL") else 12, 15


@pytest.mark.parametrize("number", range(BLOCKS))
def test_random_programs_agree_on_every_backend(number):
    found, stories = fuzz.block(range(100_000 + SIZE * number, 100_000 + SIZE * (number + 1)), cuda=False)
    assert not stories, "\n".join(stories)
    assert found["agrees"] >= SIZE - 3


LOOPS_OVER_ROWS = (217, 229)


def test_loops_over_rows_agree_in_every_form():
    """Also as CUDA source: launches, one block, a grid."""
    needs(shutil.which("g++"), "g++")
    assert all(map(loops_over_rows, LOOPS_OVER_ROWS))
    found, stories = fuzz.block(LOOPS_OVER_ROWS, cuda=1)
    assert not stories, "\n".join(stories)
    assert found["agrees"] == found["with CUDA"] == len(LOOPS_OVER_ROWS)


def test_a_total_that_changes_places_before_it_is_combined_is_found(monkeypatch):
    """What such programs were made for: a `Swap` that does not wait."""
    needs(shutil.which("g++"), "g++")
    waits = Waits.statement

    def hasty(self, s, since):
        if isinstance(s, Swap):
            return since if s.a in self.variables else since.renamed(self.root(s.a), self.root(s.b))
        return waits(self, s, since)
    monkeypatch.setattr(Waits, "statement", hasty)
    found, stories = fuzz.block(LOOPS_OVER_ROWS, cuda=1)
    assert found["wrong"] == len(LOOPS_OVER_ROWS) and all("CUDA" in story for story in stories)


def wrong_where(change, seeds):
    """The programs that are found wrong if LLVM's results are changed so."""
    real = NativeProgram.__call__

    def off(self, arrays, scalars, sizes):
        fault = real(self, arrays, scalars, sizes)
        change(arrays[-1])
        return fault
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NativeProgram, "__call__", off)
        return fuzz.block(seeds, cuda=False)[0]["wrong"]


def test_small_errors_are_found():
    """A millionth of a float64, another integer, another bool; but not the last place."""
    def slightly(a):
        a[...] = a + 1 if a.dtype.kind == "i" else ~a if a.dtype.kind == "b" else a * (1 + (1e-3 if a.dtype == np.float32 else 1e-6))

    def last_place(a):
        if a.dtype.kind == "f":
            a[...] = np.nextafter(a, a.dtype.type(0))
    seeds = range(200, 212)
    assert wrong_where(slightly, seeds) >= 8
    assert wrong_where(last_place, seeds) == 0


@pytest.mark.parametrize("seed, old, new, message", [
    (207, r"lr_barrier\(arrived\);", "__syncthreads();", r"race: thread .* without a barrier in between"),
    (107, r"= (\w+)\[(\w+)\];", r"= \1[\2 + 1];", r"thread .* of block .* reads . bytes at byte .* of (argument|place) ., which has"),
])
def test_what_reads_too_far_or_races_is_found(seed, old, new, message, monkeypatch):
    """In the CUDA source of a program, if every access is looked at."""
    needs(shutil.which("g++"), "g++")
    load = ShimLauncher.load
    monkeypatch.setattr(ShimLauncher, "load", lambda self, source, functions: load(self, re.sub(old, new, source), functions))
    found, (story,) = fuzz.block([seed], sanitize=True)
    assert found["wrong"] == 1 and re.search(message, story, re.DOTALL), story
    assert f"# seed {seed}," in story
