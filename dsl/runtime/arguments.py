"""What Python callers hand in, checked: every fault is an `LrError` that names the argument.

In: any Python value.  Out: an array of numbers in the dtype wanted, a count, a text, a mapping.

    E0203  numbers that an integer cannot hold      E0902  a wrong argument      E0903  not an array of numbers
"""
from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dsl.errors import error

Array = np.ndarray[Any, Any]


def as_array(name: str, value: Any) -> Array:
    """The value as an array of numbers or truth values."""
    if isinstance(value, dict | set | str | bytes) or value is None:
        raise error("E0903", f"`{name}` is {type(value).__name__}, not an array of numbers")
    try:
        array = np.asarray(value)
    except Exception as problem:                         # whatever an `__array__` of the caller's raises
        raise error("E0903", f"`{name}` is not an array: {problem}", help="give rows of one length") from None
    if array.dtype.kind not in "biuf":
        held = type(value).__name__ if array.dtype == object and not array.ndim else str(array.dtype)
        raise error("E0903", f"`{name}` holds {held}, not numbers")
    return array


def as_dtype(name: str, value: Any, dtype: str) -> Array:
    """The value as an array of this dtype; integers must hold it exactly."""
    if type(value) is np.ndarray and value.dtype == dtype and value.flags.c_contiguous:
        return value
    array = as_array(name, value)
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
