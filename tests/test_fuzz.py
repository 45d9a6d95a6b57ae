"""Some of the random programs of `make fuzz`, on the reference, the watched interpreter and LLVM; and that a wrong backend is caught."""
from __future__ import annotations

import numpy as np
import pytest

from dsl.backends.llvm.native import NativeProgram
from tests import fuzz

BLOCKS, SIZE = 20, 15


@pytest.mark.parametrize("number", range(BLOCKS))
def test_random_programs_agree_on_every_backend(number):
    found, stories = fuzz.block(range(100_000 + SIZE * number, 100_000 + SIZE * (number + 1)), cuda=False)
    assert not stories, "\n".join(stories)
    assert found["agrees"] >= SIZE - 3


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
