"""Arrays of other libraries on a device: taken where they lie, and given back the same way.

In: anything with `__dlpack__` or `__cuda_array_interface__` (CuPy, PyTorch, Numba, JAX).  Out: `Memory` over the same elements where
dtype, layout, place and device allow, over a copy where not; and CuPy arrays over the elements of a `Memory`.

What the producer has queued is finished before anything here reads it: DLPack and the array interface hand over the producer's
stream, and CuPy makes its current stream, on which all our work runs, wait for it.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from dsl.backends.cuda.failures import told
from dsl.backends.cuda.memory import Memory, kept, on_host
from dsl.ir.types import DType

PLAIN = frozenset((np.ndarray, int, float, bool, list, tuple, str, np.float64, np.float32, np.int64, np.int32, np.bool_))
"""Types whose values are on the host, as is soon told."""
ON_CUDA = frozenset((2, 13))
"""DLPack's numbers for CUDA's device memory and managed memory."""
DTYPES = frozenset(("bool", "int32", "int64", "float32", "float64"))


def on_device(value: Any) -> bool:
    """Whether a value is another library's array in the memory of a CUDA device.  Imports nothing."""
    if type(value) in PLAIN:
        return False
    return dlpack_device(value) in ON_CUDA or _interface(value) is not None


def dlpack_device(value: Any) -> int | None:
    """DLPack's number for the kind of device that holds a value; None if it does not speak DLPack."""
    try:
        return int(value.__dlpack_device__()[0])
    except Exception:                                    # whatever an object of the caller's raises
        return None


def _interface(value: Any) -> Any:
    try:
        return value.__cuda_array_interface__
    except Exception:                                    # PyTorch's tensors on the host raise
        return None


def device_array(value: Any) -> Any:
    """The value as a CuPy array over the same elements.  Raises what CuPy and the value's library raise."""
    import cupy
    if isinstance(value, cupy.ndarray):
        return value
    if dlpack_device(value) in ON_CUDA:
        try:
            return cupy.from_dlpack(value)
        except Exception:                                # an old DLPack, or a dtype that it has no code for
            if _interface(value) is None:
                raise
    return cupy.asarray(value)


def fetched(value: Any) -> np.ndarray[Any, Any]:
    """Another library's array on a device, copied to the host."""
    import cupy
    found: np.ndarray[Any, Any] = cupy.asnumpy(device_array(value))
    return found


def received(value: Any, launcher: Any, element: DType | None = None) -> Memory | np.ndarray[Any, Any]:
    """Another library's array on a device as a value, of dtype `element` if that is told: on the device; on the host if that would
    not keep every number (for the caller to check) or if CuPy does not launch."""
    array = device_array(value)
    cupy = getattr(launcher, "cupy", None)
    name: Any = array.dtype.name
    wanted: Any = element or name
    floats = array.dtype.kind == np.dtype(wanted).kind == "f"
    if cupy is None or name not in DTYPES | {"float16"} or wanted not in DTYPES or not (name == wanted or floats) or not array.ndim:
        host: np.ndarray[Any, Any] = array.get()
        return host
    fits = name == wanted and array.flags.c_contiguous and array.size
    if not fits or int(array.device.id) != int(cupy.cuda.runtime.getDevice()):
        made = Memory(launcher, wanted, array.size, array.shape)
        given_back(made)[...] = array
        return made
    return Memory(launcher, name, array.size, array.shape, held=array.reshape(-1))


def given_back(memory: Memory) -> Any:
    """A CuPy array over the same elements."""
    return memory.held[:memory.size].reshape(memory.shape)


@told
def given(value: Any) -> Any:
    """A value as a CuPy array, over the same elements if it is on the device."""
    import cupy
    if isinstance(value, Memory) and hasattr(value.launcher, "cupy"):
        return given_back(value)
    return cupy.asarray(on_host(value))


@told
def cast(memory: Memory, element: DType) -> Memory:
    """In another dtype, on the device if that is between floats."""
    if memory.element == element:
        return memory
    if hasattr(memory.launcher, "cupy") and memory.dtype.kind == np.dtype(element).kind == "f":
        made = Memory(memory.launcher, element, memory.size, memory.shape)
        given_back(made)[...] = given_back(memory)
        return made
    with np.errstate(all="ignore"):
        return kept(memory.launcher, memory.fetched().astype(element))
