"""Arrays that lie on a device.

In: a launcher, what it is to hold.  Out: `Memory`, a value like an array: it has a shape and a dtype, kernels take it where it lies,
and NumPy fetches it when it converts it (`np.asarray`).

What a `Memory` holds is not changed once it is a value of a session; only a program that is given one as its state or its
output writes it.
"""
from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np

from dsl.backends.cuda.failures import NoRoom, told
from dsl.ir.types import DType

if TYPE_CHECKING:
    from dsl.backends.cuda.launch import Launcher, Place

Array = np.ndarray[Any, np.dtype[Any]]


class OutOfDeviceMemory(NoRoom):
    """No room for an array: bytes asked for, bytes that values and scratch of ours hold, bytes free and in all (0 if not known)."""

    def __init__(self, asked: int, live: int, free: int, total: int) -> None:
        super().__init__(f"{in_words(asked)} asked for on the GPU; lr holds {in_words(live)} there"
                         + (f", {in_words(free)} of {in_words(total)} are free" if total else ""))
        self.asked, self.live, self.free, self.total = asked, live, free, total


def in_words(size: int) -> str:
    """Bytes with a unit: 1.5 GiB."""
    power = min((max(size, 1).bit_length() - 1) // 10, 3)
    unit = ("byte" if size == 1 else "bytes", "KiB", "MiB", "GiB")[power]
    return f"{size / 1024 ** power:.{min(power, 1)}f} {unit}"


class Live:
    """Bytes that all `Memory` holds now."""

    bytes = 0


class Memory:
    """`size` elements of `element` on the device of `launcher`, an array of `shape`.

    `held` is the launcher's memory; a `Swap` exchanges those of two."""

    def __init__(self, launcher: Launcher, element: DType, size: int, shape: Sequence[int] | None = None, held: Any = None) -> None:
        self.launcher, self.element, self.size = launcher, element, size
        self.shape = (size,) if shape is None else tuple(shape)
        self.owned = 0
        self.held = room(launcher, element, size) if held is None else held
        if held is None:
            self.owned = self.nbytes
            Live.bytes += self.owned

    def __del__(self) -> None:
        Live.bytes -= self.owned

    # ------------------------------------------------------------ as an array
    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.element)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("what lies on a device is copied to be read")
        found = self.fetched()
        return found if dtype is None else found.astype(dtype, copy=False)

    def fetched(self, shape: tuple[int, ...] | None = None) -> Array:
        """What is in it now."""
        return self.launcher.download(self.place(0, self.shape if shape is None else shape))

    def place(self, offset: int = 0, shape: Sequence[int] | None = None) -> Place:
        """Elements of it, where they are now."""
        from dsl.backends.cuda.launch import Place
        return Place(self.held, offset, self.shape if shape is None else tuple(shape), self.element)

    def copy(self) -> Memory:
        made = Memory(self.launcher, self.element, self.size, self.shape)
        self.launcher.copy(made.place(), self.place())
        return made

    # ------------------------------------------------------------ as the interpreter of programs sees it
    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):                                # the interpreter makes a `View`, which says where it is
            return self
        return self.launcher.download(self.place(int(at), ()))[()]

    def __setitem__(self, at: int, value: Any) -> None:
        self.launcher.upload(self.place(int(at), ()), np.asarray(value, self.element))

    def reshape(self, shape: tuple[int, ...]) -> Memory:
        return self


def kept(launcher: Launcher, array: Any, element: DType | None = None) -> Memory:
    """An array of the host on the device."""
    host: Array = np.asarray(array, element)
    name: Any = host.dtype.name
    memory = Memory(launcher, name, host.size, host.shape)
    launcher.upload(memory.place(), host)
    return memory


class Uploads:
    """Arrays of the host that were used on a device, each by a key, and what lies there for them; let go when the device is full."""

    everywhere: WeakSet[Uploads] = WeakSet()

    def __init__(self) -> None:
        self.found: dict[Any, tuple[Any, Memory]] = {}
        self.everywhere.add(self)

    def taken(self, launcher: Launcher, key: Any, array: Any, element: DType) -> Memory:
        """The array on the device, copied there if the last one of this key was another."""
        found = self.found.get(key)
        if found is None or found[0] is not array or found[1].element != element:
            found = self.found[key] = array, kept(launcher, array, element)
        return found[1]


def on_host(value: Any) -> Any:
    """A value where NumPy can read it: a scalar if it has no axes."""
    return value.fetched()[()] if isinstance(value, Memory) else value


def room(launcher: Launcher, element: DType, count: int) -> Any:
    """Memory of the device.  Raises `OutOfDeviceMemory` if there is none even after what is let go has been given back."""
    try:
        return launcher.allocate(element, count)
    except MemoryError:
        for uploads in list(Uploads.everywhere):
            uploads.found.clear()
        gc.collect()                                             # arrays in circles of references
        give_back(launcher)
    try:
        return launcher.allocate(element, count)
    except MemoryError:
        raise OutOfDeviceMemory(count * np.dtype(element).itemsize, Live.bytes, *free_and_total(launcher)) from None


@told
def give_back(launcher: Launcher) -> None:
    """What CuPy's pool keeps of memory that was let go is the device's again."""
    cupy = getattr(launcher, "cupy", None)
    if cupy is not None:
        cupy.get_default_memory_pool().free_all_blocks()


@told
def free_and_total(launcher: Launcher) -> tuple[int, int]:
    """Bytes of the device that are free, those of CuPy's pool among them, and all its bytes; zeros if it does not say."""
    cupy = getattr(launcher, "cupy", None)
    if cupy is None:
        return 0, 0
    free, total = cupy.cuda.runtime.memGetInfo()
    return int(free) + int(cupy.get_default_memory_pool().free_bytes()), int(total)
