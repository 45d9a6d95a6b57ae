"""The data of a `train`, in the order its steps read it.

In: a training plan and its arrays.  Out: for every step the rows it reads and the sizes they have.  `total` rows are read
`size` at a time up to row `stop` (short of `total` under `drop_last`), and then again from row 0.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dsl.backends.cuda.memory import Memory, on_host
from dsl.errors import error
from dsl.ops import philox
from dsl.ops.leaves import leaf_name
from dsl.runtime.compute import LeafKey, solve_sizes
from dsl.runtime.steps import rows_key
from dsl.syntax import program
from dsl.syntax.binding import leaf_key


class Reading:
    """How the rank rule reads the data of a plan: `one_by_one` a row a step, `by_row` mapped batches, `whole` all of it a step."""

    def __init__(self, plan: program.Train) -> None:
        mapped = bool(plan.over) and plan.over[0].mapped
        self.plan = plan
        self.by_row = mapped and plan.batch is not None
        self.one_by_one = mapped and plan.batch is None
        self.whole = not plan.over or (not mapped and plan.batch is None)
        self.keys = [rows_key(f) if self.by_row else leaf_key(f.leaf) for f in plan.over]

    def changing_sizes(self, known: Mapping[str, int]) -> tuple[str, ...]:
        """The sizes that depend on how many rows a batch has."""
        if self.whole or self.one_by_one:
            return ()
        found = {"rows of a batch"}
        for feed in self.plan.over if not self.by_row else ():
            unknown = {s.name for s in feed.leaf.shape[0].sizes() if s.value is None and s.name not in known}
            found |= unknown if len(unknown) == 1 else set()
        return tuple(sorted(found))


class Rows(Reading):
    """The data of a `train`, row by row."""

    def __init__(self, plan: program.Train, arrays: Sequence[Any], size: int, known: Callable[[], Mapping[str, int]]) -> None:
        super().__init__(plan)
        self.known = known
        self.size = size if self.by_row or not (self.whole or self.one_by_one) else 1
        if self.size < 1:
            raise error("E0415", f"a batch size is at least 1, not {self.size}", plan.span)
        self.hold(arrays)

    def hold(self, arrays: Sequence[Any]) -> None:
        """These arrays from now on; they may lie on a GPU."""
        self.arrays = [a if isinstance(a, Memory) or a.ndim else a[()] for a in arrays] if self.whole else list(arrays)
        self.sources: list[LeafKey | None] = [None] * len(arrays)
        """Of which leaf of the session each is the value."""
        self.fetched: list[Any] | None = None
        self.total = 1 if self.whole else arrays[0].shape[0] if arrays[0].ndim else 1
        self.stop = self.total - self.total % self.size if self.plan.drop_last else self.total
        self.shuffled: tuple[int, Any] | None = None
        self.sizes_by_length: dict[int, dict[str, int]] = {}
        if self.total == 0:
            raise error("E0420", "there are no rows to train on", self.plan.span)
        for feed, array in zip(self.plan.over, arrays, strict=True):
            if not self.whole and (not array.ndim or array.shape[0] != self.total):
                raise error("E0211", f"`{leaf_name(feed.leaf)}` has no {self.total} rows to take batches of", feed.span,
                            help="with `batch`, every input has one row a sample; use fixed values as `data` directly")
        if self.plan.drop_last and self.size > self.total:
            raise error("E0420", f"no whole batch: {self.total} rows, batches of {self.size}", self.plan.span,
                        help="leave out `drop_last`, or take smaller batches")

    def release(self) -> None:
        """The arrays are not needed any more, until others are held."""
        self.arrays, self.fetched = [], None

    @property
    def steps_an_epoch(self) -> int:
        return -(-self.stop // self.size)

    def batches(self) -> Iterator[tuple[int, int, int]]:
        """Epoch, first row and the row after the last one of every step, without end."""
        epoch, stop, size = 0, self.stop, self.size
        while True:
            for low in range(0, stop, size):
                yield epoch, low, min(low + size, stop)
            epoch += 1

    def read(self, epoch: int, low: int, high: int) -> list[Any]:
        """What a step on the reference reads, in the order of `keys`."""
        if self.fetched is None:
            self.fetched = list(map(on_host, self.arrays))
        if self.whole:
            return list(self.fetched)
        place: Any = low if self.one_by_one else slice(low, high)
        if self.plan.shuffle_key is not None:
            place = self.order(epoch)[place]
        return [array[place] for array in self.fetched]

    def order(self, epoch: int) -> Any:
        """The shuffled row numbers of an epoch."""
        if self.shuffled is None or self.shuffled[0] != epoch:
            assert self.plan.shuffle_key is not None
            self.shuffled = epoch, philox.shuffle_index(self.plan.shuffle_key, epoch, np.arange(self.total), self.total)
        return self.shuffled[1]

    def sizes(self, length: int) -> dict[str, int]:
        """The sizes in a step of this many rows."""
        if length not in self.sizes_by_length:
            pairs = [(f.leaf, np.shape(a) if self.whole else a.shape[1:] if f.mapped else (length, *a.shape[1:]))
                     for f, a in zip(self.plan.over, self.arrays, strict=True)]
            self.sizes_by_length[length] = {**solve_sizes(pairs, self.known(), self.plan.span), "rows of a batch": length}
        return self.sizes_by_length[length]


class HeldOut:
    """The `valid` data: bound whole or as one mapped batch of all its rows."""

    def __init__(self, feeds: Sequence[program.Feed], arrays: Sequence[Any], known: Mapping[str, int]) -> None:
        self.mapped = feeds[0].mapped
        self.given: dict[LeafKey, Any] = {}
        pairs, length = [], 1
        for feed, array in zip(feeds, arrays, strict=True):
            self.given[rows_key(feed) if feed.mapped else leaf_key(feed.leaf)] = array if isinstance(array, Memory) else array[()]
            pairs.append((feed.leaf, array.shape[1:] if feed.mapped else array.shape))
            length = array.shape[0] if feed.mapped else length
        if length == 0:
            raise error("E0420", "there are no rows in `valid`", feeds[0].span)
        self.sizes = {**solve_sizes(pairs, known, feeds[0].span), "rows of a batch": length}
