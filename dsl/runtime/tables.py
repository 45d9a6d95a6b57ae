"""Reading data: CSV, NumPy and Parquet files become named NumPy arrays.

In: a path, and for tables what an empty cell means (`missing`).  Out: a `Table` (columns of one length), `Arrays`
(named arrays of any shapes) or one array, in the language's dtypes: bool, int32, int64, float32, float64, or text (an
object array of `str`).  Whatever is wrong with a file is a `FileTrouble` that says the file's line and column and what
to write instead; no content of a file makes any other exception.

    E0601  no such file                        E0604  a cell that is not a number, or one beyond the range
    E0602  cannot be read, or is not UTF-8     E0605  an empty cell
    E0603  not the shape of a CSV table        E0606  not a valid .npy, .npz or .parquet file, or a type unknown here
    E0607  a package that is not installed     E0612  no such column     E0613  text where numbers are needed; `split`
"""
from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from dsl.errors import FileTrouble, LrError, Span, did_you_mean, error
from dsl.record import record
from dsl.runtime.csv_cells import CsvText, Missing, convert_columns, count_rows, quick_columns, read_sheet, read_text

Array = npt.NDArray[Any]
__all__ = ["Arrays", "Header", "Missing", "Table", "codes", "header", "labels", "read_csv", "read_npy", "read_npz",
           "read_parquet", "split_indices"]


@record
class Arrays:
    """Named arrays of one file, in the file's order; `source` is the file's name for messages.

    `n_rows` is the length of their first axis where all have the same, else 0.
    """

    columns: dict[str, Array]
    source: str
    n_rows: int

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.columns)

    def column(self, name: str, span: Span | None = None) -> Array:
        """The array called `name`, or E0612 with the nearest name."""
        if name in self.columns:
            return self.columns[name]
        near = did_you_mean(name, self.columns)
        listed = ", ".join(self.names[:12]) + (", …" if len(self.names) > 12 else "")
        raise error("E0612", f"{self.source} has no column `{name}`", span,
                    help=f"did you mean `{near}`?" if near else f"its columns are {listed}")


@record
class Table(Arrays):
    """Columns of one length: each [n_rows], of bool, int64, float64 or text (object array of `str`)."""

    separator: str = ","                # what a CSV's cells were separated by
    dropped: int = 0                    # rows left out by `missing = drop`

    def matrix(self, select: slice | Sequence[int] = slice(None), span: Span | None = None) -> Array:
        """The selected columns side by side: [n_rows, k], in the widest dtype among them; E0613 if one is text."""
        names = self.names
        chosen = names[select] if isinstance(select, slice) else tuple(names[place] for place in select)
        for name in chosen:
            if self.columns[name].dtype == object:
                raise error("E0613", f'column "{name}" of {self.source} is text, and a matrix holds numbers', span,
                            help=f"leave it out, or turn it into numbers with `codes(t.{name})`")
        if not chosen:
            return np.empty((self.n_rows, 0))
        return np.stack([self.columns[name] for name in chosen], axis=1)


@record
class Header:
    """What is known of a file without converting it: names, number of rows (None if they differ), shapes by name."""

    names: tuple[str, ...]
    n_rows: int | None
    shapes: dict[str, tuple[int, ...]]


# ---------------------------------------------------------------- CSV
def read_csv(path: str | os.PathLike[str], *, missing: Missing | None = None, separator: str | None = None,
             span: Span | None = None) -> Table:
    """The table in a CSV file with a header line, in UTF-8 (a byte order mark and CRLF are fine).

    The separator is `,` `;` tab or `|`, whichever the header has most of, unless given.  A column is bool if every cell
    is `true` or `false`, int64 if every cell is an integer (exactly), float64 if every cell is a number (`nan`, `inf`
    too), else text.  If more than half of a column's cells are numbers and one is not, that cell is an error (E0604).

    `missing` says what an empty cell is: None, an error (E0605); "nan", a nan in a numeric column (float64 then) and ""
    in a text column; "drop", the whole row is left out.  With either, `NA`, `N/A`, `null` and `?` in a numeric column
    count as empty.  Blank lines are skipped.
    """
    path = Path(path)
    source = _csv_text(path, separator, span)
    columns = quick_columns(source)
    if columns is not None:
        return Table(columns, source.name, len(columns[source.names[0]]), source.separator)
    sheet = read_sheet(source, span)
    columns, n_rows = convert_columns(sheet, missing, span)
    return Table(columns, source.name, n_rows, source.separator, len(sheet.rows) - n_rows)


def _csv_text(path: Path, separator: str | None, span: Span | None) -> CsvText:
    with open_file(path, span) as file:
        try:
            data = file.read()
        except (OSError, MemoryError) as trouble:
            raise cannot_read(path, trouble, span) from None
    return read_text(data, path.name, separator, span)


# ---------------------------------------------------------------- NumPy and Parquet
def read_npy(path: str | os.PathLike[str], span: Span | None = None) -> Array:
    """The array in a .npy file, in one of the language's dtypes; pickled objects are refused (E0606)."""
    path = Path(path)
    with open_file(path, span) as file:
        return _npy_array(file, path.name, os.fstat(file.fileno()).st_size, span)


def read_npz(path: str | os.PathLike[str], span: Span | None = None) -> Arrays:
    """The arrays in a .npz file by name, as `read_npy` reads each."""
    path = Path(path)
    arrays: dict[str, Array] = {}
    with open_file(path, span) as file:
        for name, size, member in _npz_members(file, path.name, span):
            arrays[name] = _npy_array(member, f"{name} in {path.name}", size, span)
    lengths = {array.shape[:1] for array in arrays.values()}
    return Arrays(arrays, path.name, sum(lengths.pop()) if len(lengths) == 1 else 0)


def read_parquet(path: str | os.PathLike[str], *, missing: Missing | None = None, span: Span | None = None) -> Table:
    """The table in a Parquet file (needs pyarrow); a null is what an empty cell is in `read_csv`."""
    path = Path(path)
    open_file(path, span).close()
    table = _parquet(path, span, lambda parquet: parquet.read_table(str(path)))
    dropped = 0
    if missing == "drop":
        kept = _parquet(path, span, lambda _: table.drop_null())
        dropped, table = table.num_rows - kept.num_rows, kept
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name in columns:
            raise _bad_file(path.name, f'has two columns called "{name}"', span)
        if column.null_count and missing is None:
            row = next(number for number, value in enumerate(column) if not value.is_valid)
            raise error("E0605", f'{path.name} row {row}, column "{name}": no value', span, kind=FileTrouble,
                        help="write `missing = nan` to read nan there, or `missing = drop` to leave such rows out")
        columns[name] = _from_arrow(column, name, path, span)
    return Table(columns, path.name, int(table.num_rows), dropped=dropped)


def _from_arrow(column: Any, name: str, path: Path, span: Span | None) -> Array:
    import pyarrow.types as kinds
    kind = column.type.value_type if kinds.is_dictionary(column.type) else column.type
    if kinds.is_string(kind) or kinds.is_large_string(kind):
        return np.array([value or "" for value in column.to_pylist()], object)
    if kinds.is_boolean(kind) and column.null_count:
        column = column.cast("uint8")
    elif not (kinds.is_boolean(kind) or kinds.is_integer(kind) or kinds.is_floating(kind)):
        raise _bad_file(path.name, f'has {kind} in column "{name}", which is not a type of this language', span)
    array = _parquet(path, span, lambda _: column.to_numpy())
    return _own_dtype(np.asarray(array), f'column "{name}" of {path.name}', span)


def _parquet(path: Path, span: Span | None, action: Any) -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise error("E0607", "reading .parquet needs the package pyarrow", span, kind=FileTrouble,
                    help='pip install "lr-lang[data]"') from None
    try:
        return action(parquet)
    except (Exception, MemoryError) as trouble:         # whatever a damaged file makes the reader raise
        raise _bad_file(path.name, f"is not a readable .parquet file ({_first_line(trouble)})", span) from None


def _npz_members(file: IO[bytes], name: str, span: Span | None) -> list[tuple[str, int, IO[bytes]]]:
    from zipfile import ZipFile
    try:
        archive = ZipFile(file)
        members = [(info.filename.removesuffix(".npy"), info.file_size, archive.open(info))
                   for info in archive.infolist() if not info.is_dir()]
    except Exception as trouble:                        # whatever a damaged archive makes zipfile raise
        raise _bad_file(name, f"is not a valid .npz file ({_first_line(trouble)})", span) from None
    return members


def _npy_header(file: IO[bytes], name: str, span: Span | None) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        return tuple(int(extent) for extent in shape), dtype
    except Exception as trouble:                        # whatever a damaged header makes NumPy raise
        raise _bad_file(name, f"is not a valid .npy file ({_first_line(trouble)})", span) from None


def _npy_array(file: IO[bytes], name: str, size: int, span: Span | None) -> Array:
    shape, dtype = _npy_header(file, name, span)
    if dtype.hasobject:
        raise _bad_file(name, "holds pickled Python objects, which are never loaded (they can run code)", span,
                        "save plain numbers: `np.save(path, np.asarray(values, float))`")
    count = 1
    for extent in shape:
        count *= extent
    if count * dtype.itemsize > size:
        raise _bad_file(name, f"is cut short: an array of shape {shape} of {dtype} needs more than its {size} bytes",
                        span)
    try:
        file.seek(0)
        array = np.lib.format.read_array(file, allow_pickle=False)
    except (Exception, MemoryError) as trouble:
        raise _bad_file(name, f"is not a valid .npy file ({_first_line(trouble)})", span) from None
    return _own_dtype(array, name, span)


def _own_dtype(array: Array, name: str, span: Span | None) -> Array:
    """The array in C order, in the dtype of this language that holds all its values."""
    match array.dtype.kind, array.dtype.itemsize:
        case "b", _:
            wanted: Any = np.bool_
        case "i", 4:
            wanted = np.int32
        case "i" | "u", _:
            wanted = np.int64
            if array.dtype.itemsize == 8 and array.dtype.kind == "u" and array.size and array.max() >= 2**63:
                raise _bad_file(name, f"holds {array.max()}, beyond int64", span)
        case "f", 2 | 4:
            wanted = np.float32
        case "f", 8:
            wanted = np.float64
        case ("U", _):
            wanted = object
        case _:
            raise _bad_file(name, f"holds {array.dtype}, which is not a type of this language", span,
                            "convert it with NumPy to bool, int64, float32 or float64 first")
    return np.ascontiguousarray(array, dtype=wanted) if array.ndim else array.astype(wanted)


# ---------------------------------------------------------------- headers
def header(path: str | os.PathLike[str], span: Span | None = None) -> Header:
    """Names, rows and shapes of a data file, without converting its numbers (for `lr check`)."""
    path = Path(path)
    match path.suffix.lower():
        case ".npy":
            with open_file(path, span) as file:
                shape, _ = _npy_header(file, path.name, span)
            return Header(("",), shape[0] if shape else None, {"": shape})
        case ".npz":
            shapes = {}
            with open_file(path, span) as file:
                for name, _, member in _npz_members(file, path.name, span):
                    shapes[name], _ = _npy_header(member, f"{name} in {path.name}", span)
            lengths = {shape[:1] for shape in shapes.values()}
            first = lengths.pop() if len(lengths) == 1 else ()
            return Header(tuple(shapes), first[0] if first else None, shapes)
        case ".parquet":
            open_file(path, span).close()
            data = _parquet(path, span, lambda parquet: parquet.ParquetFile(str(path)))
            names, rows = tuple(data.schema_arrow.names), int(data.metadata.num_rows)
            return Header(names, rows, dict.fromkeys(names, (rows,)))
        case _:
            source = _csv_text(path, None, span)
            rows = count_rows(source, span)
            return Header(source.names, rows, dict.fromkeys(source.names, (rows,)))


# ---------------------------------------------------------------- columns of text, and splitting
def labels(column: Array) -> Array:
    """The different values of a column in sorted order (text by code points): [k]."""
    return np.array(sorted(set(column.tolist())), object) if column.dtype == object else np.unique(column)


def codes(column: Array) -> npt.NDArray[np.int64]:
    """For each value of a column its place in `labels(column)`: int64, in the column's shape."""
    if column.dtype != object:
        places = np.unique(column, return_inverse=True)[1]
        return places.reshape(column.shape).astype(np.int64)
    number = {label: place for place, label in enumerate(labels(column).tolist())}
    return np.array([number[value] for value in column.ravel().tolist()], np.int64).reshape(column.shape)


def split_indices(n: int, test: float, key: int,
                  span: Span | None = None) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The rows for training and for testing among n: int64 [n - m] and [m], m = ceil(test · n), each in rising order.

    The test rows are the first m of `permutation(key, 0, n)`.  `test` counts as the decimal number it is written as, so
    that 7 rows of 100 are `test = 0.07`, although the nearest binary fraction is a little more.  E0613 unless 0 < test
    < 1 and a row is left for training.
    """
    from fractions import Fraction
    from math import ceil

    from dsl.ops.philox import permutation
    if not 0 < test < 1:
        raise error("E0613", f"`test` is a share of the rows between 0 and 1, not {test}", span,
                    help="`test = 0.2` takes a fifth of the rows for testing")
    count = ceil(Fraction(repr(float(test))) * n)
    if count >= n:
        raise error("E0613", f"a test share of {test} of {n} row{'s' if n != 1 else ''} leaves none to train on", span,
                    help="take a smaller share, or more data")
    order = permutation(key, 0, n)
    return np.sort(order[count:]), np.sort(order[:count])


# ---------------------------------------------------------------- files
def open_file(path: Path, span: Span | None = None) -> IO[bytes]:
    """The file opened for reading, or E0601 with the nearest name in its directory, or E0602."""
    try:
        if path.is_dir():
            raise IsADirectoryError
        return open(path, "rb")
    except (FileNotFoundError, NotADirectoryError):
        raise _not_found(path, span) from None
    except (OSError, ValueError) as trouble:            # ValueError: a zero byte in the path
        raise cannot_read(path, trouble, span) from None


def _not_found(path: Path, span: Span | None) -> LrError:
    try:
        beside = sorted(entry.name for entry in os.scandir(path.parent) if not entry.is_dir())
    except OSError:
        return error("E0601", f"no such file: {path}", span, kind=FileTrouble,
                     help=f"there is no directory {path.parent}")
    near = did_you_mean(path.name, beside)
    same = [name for name in beside if name.endswith(path.suffix)] if path.suffix else []
    help = (f"did you mean `{near}`?" if near else
            f"in that directory: {', '.join(same[:6])}{', …' if len(same) > 6 else ''}" if same else
            "relative paths start at the directory of the script")
    return error("E0601", f"no such file: {path}", span, kind=FileTrouble, help=help)


def cannot_read(path: Path, trouble: BaseException, span: Span | None) -> LrError:
    match trouble:
        case PermissionError():
            reason: str = "no permission"
        case IsADirectoryError():
            reason = "it is a directory"
        case MemoryError():
            reason = "it does not fit in memory"
        case OSError(strerror=str(words)):
            reason = words.lower()
        case _:
            reason = _first_line(trouble)
    return error("E0602", f"cannot read {path}: {reason}", span, kind=FileTrouble)


def _bad_file(name: str, what: str, span: Span | None, help: str | None = None) -> LrError:
    return error("E0606", f"{name} {what}", span, kind=FileTrouble, help=help)


def _first_line(trouble: BaseException) -> str:
    return (str(trouble).strip().split("\n")[0] or type(trouble).__name__)[:120]


