"""What Python callers hand in, checked: every fault is an `LrError` that names the argument.

In: any Python value.  Out: an array of numbers in the dtype wanted, a count, a text, a mapping.  An array of another library is
taken where it lies: on the host, and on a device if a `launcher` says that this is where it will be used.

    E0203  numbers that an integer cannot hold      E0902  a wrong argument      E0903  not an array of numbers
    E0710  no memory for them
"""
from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from dsl.backends.cuda.arrays import PLAIN, cast, dlpack_device, fetched, on_device, received
from dsl.backends.cuda.failures import NoRoom
from dsl.backends.cuda.memory import Memory
from dsl.errors import LrError, error
from dsl.ir.types import DType
from dsl.runtime import frames
from dsl.syntax.values import LoadedTable

Array = np.ndarray[Any, np.dtype[Any]]


class SupportsDLPack(Protocol):
    """An array of another library, on the host or on a CUDA device: PyTorch, JAX, CuPy …"""

    def __dlpack__(self, *args: Any, **options: Any) -> Any: ...
    def __dlpack_device__(self) -> Any: ...


class SupportsArrowStream(Protocol):
    """A dataframe or a table: pandas, polars, pyarrow, DuckDB …"""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any: ...


class SupportsArrowArray(Protocol):
    def __arrow_c_array__(self, requested_schema: Any = None) -> Any: ...


if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    Data: TypeAlias = ArrayLike | SupportsDLPack | SupportsArrowStream | SupportsArrowArray | Sequence[Any]
    """What is taken as data: numbers, lists of them, arrays and dataframes of any library."""
else:
    Data = Any

ON_HOST = 1
"""DLPack's number for the host's memory."""


def as_array(name: str, value: Any, launcher: Any = None, dtype: DType | None = None) -> Array | Memory:
    """The value as an array of numbers or truth values; `Memory` where it lies on a device and is to be used there, of this dtype
    if it can be had there."""
    if isinstance(value, dict | set | str | bytes) or value is None:
        raise error("E0903", f"`{name}` is {type(value).__name__}, not an array of numbers")
    plain = type(value) in PLAIN
    if isinstance(value, Memory):
        return value
    if not plain and on_device(value):
        return from_device(name, value, launcher, dtype)
    value = value if plain else frames.received(name, value)
    if not plain and frames.is_table(value):
        return frames.matrix(name, value)
    if not plain and frames.is_column(value):
        return checked(name, value, frames.column(name, value))
    if not plain and isinstance(value, np.ma.MaskedArray) and np.any(value.mask):
        place = ", ".join(str(int(i)) for i in np.argwhere(np.ma.getmaskarray(value))[0])
        raise error("E0605", f"`{name}` is masked at [{place}]", help=f"give it a value: `{name}.filled(nan)`")
    try:
        array = np.asarray(value) if plain or not only_dlpack(value) else np.from_dlpack(value)
    except Exception as problem:                         # whatever an `__array__` of the caller's raises
        words = str(problem).partition("\n")[0]
        raise error("E0903", f"`{name}` is not an array: {words}", help=_rows_help(problem)) from None
    return checked(name, value, array)


def as_given(name: str, value: Any, launcher: Any = None, table: bool = False,
             missing: frames.Missing | None = None) -> Array | Memory | LoadedTable:
    """What is handed in for a `data` statement: an array, a column of texts (an object array), or the columns of a table if the
    statement is of a `table`.  Integers that int64 cannot hold are E0203."""
    if isinstance(value, LoadedTable):
        return value
    if (type(value) not in PLAIN or (isinstance(value, np.ndarray) and value.dtype.names)) and not on_device(value):
        value = frames.received(name, value)
        if table and (isinstance(value, Mapping) or frames.is_table(value)):
            return frames.table(name, value, missing)
        if frames.is_column(value):
            return within(name, frames.column(name, value, missing))
    return within(name, as_array(name, value, launcher))


def within(name: str, array: Array | Memory) -> Array | Memory:
    if array.dtype == np.uint64 and array.ndim and np.any(array > np.uint64(2 ** 63 - 1)):
        raise error("E0203", f"`{name}` holds {np.asarray(array).max()}, beyond int64", help="convert it to float first")
    return array


def checked(name: str, value: Any, array: Array) -> Array:
    if array.dtype.kind in "biuf":
        return array
    if array.dtype.names is not None:
        return frames.matrix(name, array)
    if array.dtype.kind == "O" and (array.ndim or isinstance(array.item(), frames.NUMBERS)):
        array = frames.numbers(f"`{name}`", array)
        if array.dtype.kind in "biuf":
            return array
    if array.dtype.name in SHORT_FLOATS:
        return array.astype(np.float32)
    held = type(value).__name__ if array.dtype == object and not array.ndim else frames.words(array)
    raise error("E0903", f"`{name}` holds {held}, not numbers", help=_number_help(name, value, array))


SHORT_FLOATS = frozenset(("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3", "float8_e3m4"))
"""Dtypes that other libraries add to NumPy's."""


def _number_help(name: str, value: Any, array: Array) -> str | None:
    """What to write instead of an array of something else."""
    match array.dtype.kind:
        case "M":
            return f'count days: `({name} - {name}.min()) / np.timedelta64(1, "D")`'
        case "m":
            return f'count days: `{name} / np.timedelta64(1, "D")`'
        case "c":
            return f"take `{name}.real` and `{name}.imag`"
        case "O" | "U" | "S" | "T" if array.ndim:
            return f"codes of texts: `np.unique({name}, return_inverse=True)[1]`; written numbers: `{name}.astype(float)`"
        case _:
            ways = {"toarray": "its dense form", "collect": "its rows", "to_numpy": "an array"}
            return next((f"hand in {what}: `{name}.{way}()`" for way, what in ways.items() if hasattr(value, way)), None)


def _rows_help(problem: Exception) -> str | None:
    if "inhomogeneous" in str(problem):
        return "give rows of one length"
    return "call `.detach()` first" if "grad" in str(problem) else None


def only_dlpack(value: Any) -> bool:
    """Whether an array on the host can be read by DLPack and by nothing else that NumPy knows."""
    return not hasattr(value, "__array__") and not hasattr(value, "__array_interface__") and dlpack_device(value) == ON_HOST


def from_device(name: str, value: Any, launcher: Any = None, dtype: Any = None) -> Array | Memory:
    """Another library's array on a CUDA device: there for a launcher, else copied to the host."""
    try:
        found = fetched(value) if launcher is None else received(value, launcher, dtype)
    except MemoryError as problem:
        raise out_of_memory(problem) from None
    except LrError:                                      # of the device, not of the array
        raise
    except ImportError:
        raise error("E0903", f"`{name}` is on a GPU, and CuPy, which reads it, is not installed",
                    help='`pip install "lr-lang[cuda12]"` (or `[cuda13]`), or copy it to the host first') from None
    except Exception as problem:                         # whatever the caller's library raises: a tensor with a gradient, another device
        words = str(problem).partition("\n")[0]
        raise error("E0903", f"`{name}` is on a GPU and cannot be read: {words}", help="copy it to the host first") from None
    return found if isinstance(found, Memory) else checked(name, value, found)


def out_of_memory(problem: MemoryError) -> LrError:
    """As a diagnostic."""
    elsewhere = "; `device cpu` uses the host's memory" if isinstance(problem, NoRoom) else ""
    return error("E0710", f"not enough memory: {problem}",
                 help=f"use fewer rows at a time (`batch k`), or `precision float32`{elsewhere}")


def as_dtype(name: str, value: Any, dtype: DType, launcher: Any = None) -> Array | Memory:
    """The value as an array of this dtype; integers must hold it exactly."""
    if type(value) is np.ndarray and value.dtype == dtype and value.flags.c_contiguous:
        return value
    array = as_array(name, value, launcher, dtype)
    if isinstance(array, Memory):
        if array.element == dtype or array.dtype.kind == np.dtype(dtype).kind == "f":
            return cast(array, dtype)
        array = array.fetched()
    if dtype == "bool":
        return np.asarray(array != 0)
    with np.errstate(all="ignore"):
        result = np.asarray(array, dtype=dtype, order="C")
        if dtype.startswith("int") and array.dtype != result.dtype and not np.all(result == array):
            bad = array[np.asarray(result != array)].flat[0]
            raise error("E0203", f"`{name}` is {dtype}, which cannot hold {bad}", help="round it, or declare it float")
    return result


def as_count(name: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise error("E0902", f"`{name}` is a whole number, not {value!r}") from None
    if not 0 <= number < 2 ** 62:
        range_words = "a whole number from 0" if number < 0 else "below 2 ** 62"
        raise error("E0902", f"`{name}` is {range_words}, not {number}")
    return number


def as_text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise error("E0902", f"{name} is a text, not {value!r}")
    return value


def as_names(name: str, value: Any) -> list[str]:
    """A text or several, as a list."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Sequence):
        raise error("E0902", f"{name} is a list of texts, not {value!r}")
    return [as_text(f"each of {name}", item) for item in value]


def as_mapping(name: str, value: Any) -> dict[str, Any]:
    """A mapping from names; None is an empty one."""
    if value is not None and not isinstance(value, Mapping):
        raise error("E0902", f"`{name}` is a mapping from names to arrays, not {value!r}", help=f'{name}={{"X": xs}}')
    return {as_text(f"each key of `{name}`", k): v for k, v in (value or {}).items()}


def as_inputs(data: Any, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs from `data` and from keywords, none of them twice."""
    given = as_mapping("data", data)
    twice = sorted(given.keys() & keywords.keys())
    if twice:
        raise error("E0902", f"`{twice[0]}` is given in `data` and as a keyword")
    return {**given, **keywords}
