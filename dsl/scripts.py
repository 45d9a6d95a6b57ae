"""Script files: in come paths as they were typed, out come texts, and the scripts of folders.  What cannot be read is said in words."""
from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from dsl.errors import FileTrouble, did_you_mean, error

SUFFIX = ".lr"
LARGEST = 64 << 20             # bytes: four times what the parser reads


def read_bytes(path: str | Path) -> bytes:
    """What a script's file holds.  Raises `FileTrouble`."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(LARGEST + 1)
    except (OSError, ValueError) as problem:             # ValueError: a zero byte in the path
        help = None
        if isinstance(problem, IsADirectoryError):
            help = f"a script is a file, such as `{Path(path) / 'model.lr'}`; `lr test` and `lr fmt` take folders"
        raise error("E0601", f"cannot read `{path}`: {getattr(problem, 'strerror', None) or problem}", kind=FileTrouble,
                    help=help or _nearby(Path(path))) from None
    if len(data) > LARGEST:
        raise error("E0602", f"`{path}` is larger than any script: more than {LARGEST >> 20} MiB", kind=FileTrouble,
                    help="data belongs into files of its own, which a script reads: `data t = csv(\"t.csv\")`")
    return data


def _nearby(path: Path) -> str | None:
    """What may have been meant by the name of a file that is not there."""
    try:
        names = [entry.name for entry in os.scandir(path.parent) if entry.name.endswith(SUFFIX) and entry.is_file()]
    except (OSError, ValueError):
        return None
    near = did_you_mean(path.name.removesuffix(SUFFIX), [name.removesuffix(SUFFIX) for name in names])
    return f"did you mean `{path.parent / (near + SUFFIX)}`?" if near else None


def read_script(path: str | Path) -> str:
    """The text of a script.  Raises `FileTrouble`."""
    return script_text(read_bytes(path), str(path))


def script_text(data: bytes, name: str) -> str:
    """The text of a script's bytes, with one kind of line end.  Raises `FileTrouble`."""
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as problem:
        line = data[:problem.start].count(b"\n") + 1
        raise error("E0601", f"cannot read `{name}`: line {line} is not UTF-8 text", kind=FileTrouble,
                    help="save it as UTF-8" if b"\0" not in data else "a script is a text file; this looks like something else") from None


def scripts_in(paths: Iterable[str]) -> list[Path]:
    """Files as given, and those ending in `.lr` of folders, at any depth.

    Raises `FileTrouble` if a folder has none, and for a file that is something else, which nobody wants to be rewritten."""
    found: list[Path] = []
    for given in paths:
        if not os.path.isdir(given):
            check_kind(given)
            found.append(Path(given))
            continue
        inside = sorted(_below(given))
        if not inside:
            raise error("E0601", f"no scripts in `{given}`", kind=FileTrouble, help=f"scripts are files whose names end in `{SUFFIX}`")
        found.extend(inside)
    return list(dict.fromkeys(found))


def _below(folder: str) -> Iterator[Path]:
    """Folders whose names begin with a dot belong to tools, not to whoever writes scripts."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in names if name.endswith(SUFFIX) and _may_be_read(os.path.join(place, name)))


def _may_be_read(path: str) -> bool:
    """Not so a pipe or a device, which might never end; what is not there is reported later."""
    return os.path.isfile(path) or not os.path.exists(path)


# What is given instead of a script now and then, and what to do with it.
_OTHERS = {".py": "it is Python: `python {}`", ".ipynb": "it is a notebook: `%load_ext dsl` there gives `%%lr`",
           ".csv": "it is a table: a script reads it by `data t = csv(\"{}\")`",
           ".parquet": "it is a table: a script reads it by `data t = parquet(\"{}\")`",
           ".npy": "it is an array: a script reads it by `data A = npy(\"{}\")`",
           ".npz": "it holds arrays: a script reads them by `data t = npz(\"{}\")`",
           ".safetensors": "it is a saved state: a script reads it by `load \"{}\"`"}


def check_kind(path: str) -> None:
    """Raises `FileTrouble` for a file whose name says that it is something else than a script."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in _OTHERS and os.path.isfile(path):
        raise error("E0602", f"`{path}` is not a script", kind=FileTrouble, help=_OTHERS[suffix].format(os.path.basename(path)))
