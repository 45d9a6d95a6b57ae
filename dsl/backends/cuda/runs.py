"""How a kernel with totals is cut, whatever the grid.

In: extents.  Out: the number of runs.  A total is added up in two passes: every run adds up its iterations from the unit
on its own, then the runs are combined.  Which iterations a run has, and in which order everything is combined, depends on
the extents alone; a grid of any size works through the same runs, so it changes no bit.

    lanes   all totals are scalars.  A run is a block of LANES threads: lane t of run r takes the iterations
            (r + k * runs) * LANES + t, k = 0, 1, …; the lanes are combined by shuffles, then over the warps.
    slices  some total is an array.  A run is one thread, and has a slice of its own of every total: run r takes the
            iterations r + k * runs.
"""
from __future__ import annotations

from typing import Literal

Form = Literal["map", "lanes", "slices"]
LANES = 128                      # threads of a block, in every kernel
MOST_RUNS = 2048                 # 132 processors of 16 such blocks each
MOST_SLICES = 1 << 14            # slices are threads, so there may be more of them,
MOST_PARTIALS = 1 << 22          # unless they take too much memory: 16 MiB of float32


def run_count(form: Form, extent: int, elements: int = 1) -> int:
    """The runs of a kernel of `extent` iterations whose totals have `elements` elements together."""
    if form == "lanes":
        return min(-(-extent // LANES), MOST_RUNS)
    return max(0, min(extent, MOST_SLICES, max(LANES, MOST_PARTIALS // max(elements, 1))))
