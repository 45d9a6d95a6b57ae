"""How a kernel with totals is cut, whatever the grid.

In: extents.  Out: the number of runs.  A total is added up in two passes: every run adds up its iterations from the unit
on its own, then the runs are combined.  Which iterations a run has, and in which order everything is combined, depends on
the extents alone; a grid of any size works through the same runs, so it changes no bit.

    threads  all totals are scalars.  A run is a warp, lane l of which takes the iterations (r + k * runs) * 32 + l, or, where
             they are many, as many groups of four neighbours; the lanes are combined by shuffles.
    warps    a run is a warp that takes the iterations r + k * runs one by one and shares the loops in them among its lanes.
    columns  all totals are arrays, added to column by column in the only loop of an iteration.  A run has a lane for each column
             and takes the iterations r + k * runs: no lane meets another's element.
    slices   some total is an array.  A run is one thread, and has a slice of its own of every total: run r takes the
             iterations r + k * runs.

The device counts the runs of a resident program by the same formulas (`lr_runs_of_…` in `prelude.py`).
"""
from __future__ import annotations

from typing import Literal

Form = Literal["threads", "warps", "columns", "slices"]
WARP = 32
LANES = 128                      # threads of a block, in every kernel that is launched by itself
FEW_RUNS = 64                    # so many are made before a run gets more than one iteration a lane
LONG_RUN = 512                   # iterations of a run, before there are more of them than that
MOST_RUNS = 4224                 # 132 processors of 32 warps each: more read no faster, and have to be added up
MOST_ROW_RUNS = 2112             # the same where totals are arrays or an iteration is a row
EACH, EACH_OF_DEAR = 4, 32       # elements of a thread, where nothing is added up: more wait for memory, fewer begin too often,
DEAR = 40                        # which matters from so many operations an element on
MOST_SLICES = 1 << 14            # slices are threads, so there may be more of them,
ROWS: dict[Form, int] = {"warps": 16, "columns": 64}
"""Iterations of a run, before there are more of them than that."""
MOST_PARTIALS = 1 << 22          # elements of all runs' totals together, unless even LANES runs have more


def run_count(form: Form, extent: int, elements: int = 1) -> int:
    """The runs of a kernel of `extent` iterations whose totals have `elements` elements together."""
    if form == "threads":
        return min(-(-extent // WARP), max(FEW_RUNS, -(-extent // LONG_RUN)), MOST_RUNS)
    most = MOST_SLICES if form == "slices" else MOST_ROW_RUNS
    enough = extent if form == "slices" else max(FEW_RUNS, -(-extent // ROWS[form]))
    return max(0, min(extent, enough, most, max(LANES, MOST_PARTIALS // max(elements, 1))))
