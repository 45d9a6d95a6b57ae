"""Writing values: an array becomes a .csv or .npy file, whole or not at all.

In: a path, the name the value has in the script, an array.  Out: the file, written beside its place under a temporary
name, flushed to the disk and renamed, so that a reader or a crash never meets half of it.

    E0608  an ending that is not known      E0609  cannot be written      E0610  more than two axes in a .csv
"""
from __future__ import annotations

import errno
import glob
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import get_native_id
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from dsl.errors import FileTrouble, LrError, Span, did_you_mean, error
from dsl.runtime.printing import format_scalar

Array = npt.NDArray[Any]
VALUE_ENDINGS = (".csv", ".npy")


def save_value(path: str | os.PathLike[str], name: str, array: npt.ArrayLike, span: Span | None = None) -> None:
    """Writes `array` to `path`, in the format its ending says.

    `.csv`: a header and one line a row, at most two axes: a scalar or vector under `name`, a matrix [n, k] under
    `name_0` … `name_{k-1}`; digits that read back the same, `true` and `false`, text in quotes where it needs them.
    `.npy`: the array in C order, any shape, not text.  Raises E0608, E0609 or E0610.
    """
    path, array = Path(path), np.asarray(array)
    match path.suffix.lower():
        case ".csv":
            if array.ndim > 2:
                raise error("E0610", f"`{name}` has {array.ndim} axes, and a .csv file has two", span, kind=FileTrouble,
                            help=f"write `{path.stem}.npy`, or reshape it: `reshape({name}, ({array.shape[0]}, -1))`")
            text = _csv(name, array)
            write_atomically(path, lambda file: file.write(text.encode("utf-8")), span)
        case ".npy":
            if array.dtype == object or array.dtype.kind in "US":
                raise error("E0608", f"`{name}` is text, which a .npy file cannot hold safely", span, kind=FileTrouble,
                            help=f"write `{path.stem}.csv`")
            whole = np.ascontiguousarray(array).reshape(array.shape)     # a scalar keeps its 0 axes
            write_atomically(path, lambda file: np.lib.format.write_array(file, whole, allow_pickle=False), span)
        case ending:
            raise unknown_ending(path, ending, VALUE_ENDINGS, span)


def _csv(name: str, array: Array) -> str:
    table = array.reshape(-1, 1) if array.ndim < 2 else array
    header = [name] if array.ndim < 2 else [f"{name}_{place}" for place in range(array.shape[1])]
    if table.dtype == object or table.dtype.kind == "U":
        import csv
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(table.tolist())
        return stream.getvalue()
    columns: list[list[str]]
    match table.dtype.kind:
        case "b":
            columns = [["true" if value else "false" for value in column] for column in table.T.tolist()]
        case "f" if table.dtype == np.float64:
            columns = [list(map(repr, column)) for column in table.T.tolist()]
        case "f":
            columns = [list(map(format_scalar, column)) for column in table.T]
        case _:
            columns = [list(map(str, column)) for column in table.T.tolist()]
    lines = map(",".join, zip(*columns, strict=True)) if columns else [""] * len(table)
    return "\n".join((",".join(header), *lines)) + "\n"


class Lines:
    """A file that is written line by line, behind the first `kept` bytes of what is there, or of less if it is shorter.

    `length` is its bytes so far.  Every call may raise E0609."""

    def __init__(self, path: Path, kept: int = 0, span: Span | None = None) -> None:
        self.path, self.span, self.length = path, span, 0
        with self._told():
            self.file = open(path, "r+b" if kept and path.exists() else "wb", buffering=0)                       # noqa: SIM115
            if kept:
                self.length = self.file.truncate(min(kept, self.file.seek(0, os.SEEK_END)))
                self.file.seek(self.length)

    def write(self, line: str) -> None:
        content = memoryview(line.encode() + b"\n")
        with self._told():
            while content:
                written = self.file.write(content) or 0
                self.length += written
                content = content[written:]

    def flush_to_disk(self) -> None:
        with self._told():
            _flush(self.file.fileno())

    def close(self) -> None:
        with self._told():
            self.file.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as trouble:
            raise _cannot_write(self.path, trouble, self.span) from None


def _flush(descriptor: int) -> None:
    """To the disk; a pipe, a terminal and some mounts have none to flush to."""
    try:
        os.fsync(descriptor)
    except OSError as trouble:
        if trouble.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
            raise


# ---------------------------------------------------------------- writing in one go
def write_atomically(path: Path, write: Callable[[IO[bytes]], Any], span: Span | None = None) -> None:
    """Calls `write` on a temporary file beside `path`, then puts it in place; E0609 leaves what stood there before.

    The file and its directory are flushed to the disk, so a file of this name is whole after a crash too.  A link stays one, and
    what is write-protected stays as it is.
    """
    asked = path
    try:
        path = Path(os.path.realpath(asked))
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{get_native_id()}.part")
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a directory")
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, "no permission")
        try:
            with open(temporary, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _flush_directory(path.parent)
    except (OSError, ValueError) as trouble:            # ValueError: a zero byte in the path
        raise _cannot_write(asked, trouble, span) from None


def clear_parts(path: Path) -> None:
    """Takes away what writers of this file had begun that were killed."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        number = part.name.removesuffix(".part").rpartition(".")[2].partition("-")[0]
        if number.isdigit() and not _alive(int(number)):
            with suppress(OSError):
                part.unlink()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _flush_directory(directory: Path) -> None:
    """Makes a rename last; where a directory cannot be opened (Windows, some mounts) there is nothing to do."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:
        return
    try:
        _flush(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(path: Path, trouble: OSError | ValueError, span: Span | None) -> LrError:
    help = None
    match trouble:
        case FileNotFoundError() | NotADirectoryError():
            reason, help = f"there is no directory {path.parent}", f"make it first: `mkdir -p {path.parent}`"
        case PermissionError():
            reason, help = "no permission", "choose another place with `--out DIR`"
        case OSError(strerror=str(words)):
            reason = words.lower()
        case _:
            reason = str(trouble)
    return error("E0609", f"cannot write {path}: {reason}", span, kind=FileTrouble, help=help)


def unknown_ending(path: Path, ending: str, known: tuple[str, ...], span: Span | None = None) -> LrError:
    """E0608: what the file's name ends in, and the endings that are known here."""
    near = did_you_mean(ending, known) if ending else None
    listed = " and ".join(filter(None, [", ".join(known[:-1]), known[-1]]))
    what = f"ends in {ending}, which is not a format known here" if ending else "has no ending that says its format"
    return error("E0608", f"{path.name} {what}", span, kind=FileTrouble,
                 help=f"did you mean `{path.stem}{near}`? {listed} can be written" if near else
                 f"{listed} can be written")
