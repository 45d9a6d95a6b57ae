"""What runs kernels: the protocol between the driver and a device.

In: sources, memory, launches.  Out: what they do, in the order they are asked for.  `ShimLauncher` (`shim.py`) runs the source
on the CPU, `CupyLauncher` (`device.py`) on a CUDA device.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from dsl.backends.cuda.choice import Figures
from dsl.backends.cuda.source import Function
from dsl.ir.types import DType
from dsl.record import entity

Array = np.ndarray[Any, np.dtype[Any]]


@entity
class Place:
    """`shape` elements, row-major, in memory `of` a launcher, from `offset` on."""

    of: Any
    offset: int
    shape: tuple[int, ...]
    dtype: DType

    @property
    def count(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


Argument = Place | np.generic


class Launcher(Protocol):
    most_blocks: int
    """More blocks than this in a grid gain nothing."""
    figures: Figures
    """What estimates are made of."""
    shared_bytes: int
    """How much dynamic shared memory a block may have at most."""

    def load(self, source: str, functions: Sequence[Function]) -> dict[str, Any]:
        """The compiled functions, by name."""
        ...

    def allocate(self, dtype: DType, count: int) -> Any:
        """Memory of a device, with anything in it."""
        ...

    def part(self, of: Any, first: int, end: int, dtype: DType, count: int) -> Any:
        """The elements `first` to `end` of memory, as memory of `count` elements of another dtype."""
        ...

    def address(self, of: Any) -> int:
        """Where memory is, for kernels that find arrays by that.  It is theirs until the next launch has ended."""
        ...

    def queue(self) -> int:
        """Which of the device's queues launches go to now: in one, they run one after the other."""
        ...

    def upload(self, place: Place, values: Array) -> None: ...

    def download(self, place: Place) -> Array: ...

    def copy(self, to: Place, source: Place) -> None:
        """On the device."""
        ...

    def launch(self, function: Any, grid: int, block: int, arguments: Sequence[Argument], shared: int = 0,
               together: bool = False) -> None:
        """`shared` bytes of dynamic shared memory for each block; `together` if blocks wait for each other, so all must run at once."""
        ...

    def most_together(self, function: Any, block: int, shared: int) -> int:
        """How many blocks of so many threads and bytes of dynamic shared memory can run at once."""
        ...

    def product(self, out: Place, a: Place, b: Place, a_transposed: bool, b_transposed: bool) -> None: ...
