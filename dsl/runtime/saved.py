"""Saved state as a file: safetensors, written whole or not at all.

In: named arrays, and what is to be known about them.  Out: a file that every reader of safetensors opens, and the same again from
it, bit for bit.  What is known about the arrays stands as JSON under `lr` in the file's own metadata, with a checksum over all of it;
a file without it is another program's, of which only the arrays are taken.

Nothing is known here of sessions; what a state consists of is `dsl/runtime/state.py`.
"""
from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dsl.errors import FileTrouble, LrError, Span, error
from dsl.runtime.files import unknown_ending, write_atomically

Array = npt.NDArray[Any]
ENDING = ".safetensors"
VERSION = 1
"""Of what stands under `lr`; a file of a later one is not read."""
DTYPES = {"BOOL": "bool", "I32": "int32", "I64": "int64", "F32": "float32", "F64": "float64"}
"""The format's words for the dtypes of the language."""


@dataclass(frozen=True)
class Saved:
    """What a file holds: arrays by name, and what is known about them (None in another program's file)."""

    path: Path
    arrays: dict[str, Array]
    about: dict[str, Any] | None


def check_ending(path: Path, span: Span | None = None) -> None:
    """Raises E0608 for a name that does not say it is a saved state."""
    if path.suffix.lower() != ENDING:
        raise unknown_ending(path, path.suffix.lower(), (ENDING,), span)


def write(path: Path, arrays: Mapping[str, Array], about: Mapping[str, Any], span: Span | None = None) -> None:
    """Puts a file in place; what stood there before stays if that fails.  Raises E0608, E0609."""
    from safetensors.numpy import save
    check_ending(path, span)
    dense = {name: np.ascontiguousarray(a).reshape(np.shape(a)) for name, a in arrays.items()}      # a scalar keeps its 0 axes
    known = {"version": VERSION, **about}
    text = json.dumps({**known, "checksum": checksum(dense, known)}, ensure_ascii=False, allow_nan=False)
    content = save(dense, {"lr": text})
    write_atomically(path, lambda file: file.write(content), span)


def read(path: Path, span: Span | None = None) -> Saved:
    """What a file holds.  Raises E0601 if it is not there or cannot be read, E0614 if it is no saved state."""
    arrays: dict[str, Array] = {}
    from safetensors import SafetensorError, safe_open
    try:
        with open(path, "rb"):                           # the system's words for what is wrong, which the library hides
            pass
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            foreign = {k: d for k in file.keys() if (d := file.get_slice(k).get_dtype()) not in DTYPES}    # noqa: SIM118
            if foreign:
                name, dtype = next(iter(foreign.items()))
                raise spoilt(path, f"`{name}` in it is {dtype.lower()}, which lr has not", span,
                             f"convert it to one of {', '.join(DTYPES.values())} before it is saved")
            for name in file.keys():                     # noqa: SIM118
                arrays[name] = np.asarray(file.get_tensor(name))
    except (OSError, ValueError) as trouble:             # ValueError: a zero byte in the path
        raise error("E0601", f"cannot read `{path}`: {_words(trouble)}", span, kind=FileTrouble) from None
    except SafetensorError as trouble:
        raise spoilt(path, f"it is damaged, or no safetensors file ({trouble})", span) from None
    return Saved(path, arrays, _about(path, metadata["lr"], arrays, span) if "lr" in metadata else None)


def _about(path: Path, text: str, arrays: Mapping[str, Array], span: Span | None) -> dict[str, Any]:
    try:
        about = json.loads(text)
        version = about.get("version")
        expected = about.pop("checksum", None)
    except (ValueError, AttributeError, TypeError):
        raise spoilt(path, "what it says about itself cannot be read", span) from None
    if not isinstance(version, int) or version > VERSION:
        raise spoilt(path, f"a later version of lr wrote it ({about.get('lr', 'unknown')}, format {version}; this one reads {VERSION})",
                     span, "read it with that version")
    if expected != checksum(arrays, about):
        raise spoilt(path, "it is damaged: its checksum is another one", span)
    return dict(about)


def checksum(arrays: Mapping[str, Array], about: Mapping[str, Any]) -> int:
    """CRC-32 over names, dtypes, shapes and bytes of the arrays, and over what is known about them."""
    total = zlib.crc32(json.dumps(about, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        total = zlib.crc32(f"{name} {array.dtype.name} {array.shape}".encode(), total)
        total = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, total)
    return total


def spoilt(path: Path, why: str, span: Span | None, help: str | None = None) -> LrError:
    return error("E0614", f"`{path}` is not a state that can be loaded: {why}", span, kind=FileTrouble,
                 help=help or "load another copy; files that `save` and `checkpoint` write are whole, or as they were before")


def _words(trouble: Exception) -> str:
    return trouble.strerror.lower() if isinstance(trouble, OSError) and trouble.strerror else str(trouble)
