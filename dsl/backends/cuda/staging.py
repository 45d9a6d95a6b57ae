"""Small arrays of the host side by side in one piece of a device's memory.

In: a launcher, and of each array its dtype and how many elements it has.  Out: a `Staging`: where each array is on the device, and room
for it on the host.  One copy takes all of them there and one brings them back; each copy by itself would cost 10 to 20 us.

Arrays begin at multiples of 16 bytes, as kernels want them that move four elements at a time, and there is room between them, so that
what runs over the end of one does not lie in the next.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from dsl.backends.cuda.launch import Array, Launcher, Place
from dsl.backends.cuda.memory import Memory

SMALL = 1024
"""Bytes of the largest arrays that are worth copying once more on the host."""
ALIGNED, WORD = 16, 8
Part = tuple[str, int]
"""The dtype and the length of an array."""


class Staging:
    def __init__(self, launcher: Launcher, parts: tuple[Part, ...]) -> None:
        self.launcher, self.parts = launcher, parts
        word: Any = "uint64"
        ends = [0]
        for dtype, count in parts:
            ends.append(ends[-1] + (-(-count * np.dtype(dtype).itemsize // ALIGNED) + 1) * (ALIGNED // WORD))
        self.memory = Memory(launcher, word, ends[-1])
        self.host = np.zeros(ends[-1], word)
        self.there: list[Any] = []
        """Memory of the launcher for each array."""
        self.here: list[Array] = []
        """Its elements on the host: what goes there, then what came back."""
        for (dtype, count), first, end in zip(parts, ends, ends[1:], strict=False):
            name: Any = dtype
            self.there.append(launcher.part(self.memory.held, first, end, name, count))
            self.here.append(self.host[first:end].view(dtype)[:count])

    def place(self, number: int) -> Place:
        element: Any = self.parts[number][0]
        return Place(self.there[number], 0, self.here[number].shape, element)

    def send(self) -> None:
        self.launcher.upload(self.memory.place(), self.host)

    def fetch(self) -> None:
        self.host[...] = self.launcher.download(self.memory.place())
