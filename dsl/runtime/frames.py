"""Tables and columns of other libraries: dataframes and series, Arrow data, structured arrays.

In: a Python value.  Out: `table` its columns by name as a loader gives them, `matrix` its columns of numbers side by side, `column` one
of them; texts are object arrays of `str`.  pandas and polars are read by their own methods; everything else that offers an Arrow
stream or array (`__arrow_c_stream__`, `__arrow_c_array__`: Arrow's own tables, DuckDB's relations, …) through pyarrow.  Dates and
times of a table are texts, as a CSV file would have them.  Imports none of these libraries before a value of theirs is seen.

    E0605  a cell without a value      E0607  pyarrow is not installed      E0613  a column that is not of numbers
    E0903  a type that is not one of this language
"""
from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from numbers import Real
from typing import Any, Literal

import numpy as np

from dsl.errors import LrError, error
from dsl.record import entity
from dsl.syntax.values import LoadedTable

Array = np.ndarray[Any, Any]
Missing = Literal["nan", "drop"]
NUMBERS = (Real, Decimal, np.bool_)


@entity
class Column:
    """What is in a column: numbers, texts (objects) or dates (`datetime64`), and which cells have no value; `fill`: how its library
    writes another value there."""

    values: Array
    absent: Array | None
    fill: str


# ---------------------------------------------------------------- what a value is
def library(value: Any) -> str:
    """The package that a value's type comes from."""
    return type(value).__module__.partition(".")[0]


def received(name: str, value: Any) -> Any:
    """The value, or Arrow data of any library as pyarrow's: a stream can be read only once."""
    return value if library(value) in ("pandas", "polars", "numpy") or not _is_arrow(value) else _arrow(value, name)


def is_table(value: Any) -> bool:
    """Whether a value, once received, has named columns."""
    if isinstance(value, np.ndarray):
        return value.dtype.names is not None
    match library(value):
        case "pandas" | "polars":
            return any(base.__name__ == "DataFrame" for base in type(value).__mro__)
        case "pyarrow":
            return _is_struct(value)
        case _:
            return False


def is_column(value: Any) -> bool:
    """Whether a value, once received, is one column of a dataframe or an Arrow array."""
    match library(value):
        case "pandas":
            return not is_table(value) and hasattr(value, "dtype") and hasattr(value, "isna")
        case "polars":
            return type(value).__name__ == "Series"
        case "pyarrow":
            return hasattr(value, "type") and not _is_struct(value)
        case _:
            return False


# ---------------------------------------------------------------- out
def table(name: str, value: Any, missing: Missing | None = None) -> LoadedTable:
    """The columns of a table.  A cell without a value is E0605, or by `missing` nan ("" among texts), or its row is left out."""
    found: dict[str, Column] = {}
    for title, raw in columns(name, value):
        if title in found:
            raise error("E0903", f"`{name}` has two columns called `{title}`", help="rename one of them")
        place = f"column `{title}` of `{name}`"
        read = _read(place, raw)
        found[title] = Column(_texts(read.values, read.absent), read.absent, read.fill)
    kept: Any = slice(None)
    if missing == "drop":
        absent = [c.absent for c in found.values() if c.absent is not None]
        if absent:
            kept = ~np.logical_or.reduce(absent)
    arrays = {}
    for title, read in found.items():
        values = read.values if missing == "drop" else filled(f"column `{title}` of `{name}`", read, missing,
                                                              ", or write `missing = nan` or `missing = drop` where the script loads it")
        arrays[title] = values[kept]
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) > 1:
        shown = ", ".join(f"`{title}` {len(array)}" for title, array in arrays.items())
        raise error("E0903", f"the columns of `{name}` differ in length: {shown}")
    return LoadedTable(arrays, lengths.pop() if lengths else 0)


def matrix(name: str, value: Any) -> Array:
    """The columns of a table side by side: [rows, columns].  One that is not of numbers is E0613."""
    parts = []
    for title, raw in columns(name, value):
        place = f"column `{title}` of `{name}`"
        parts.append(filled(place, read := _read(place, raw)))
        if read.values.dtype.kind not in "biuf":
            raise error("E0613", f"{place} holds {words(read.values)}, and a matrix holds numbers",
                        help=_instead(read.values, f"[{title!r}]"))
    if not parts:
        raise error("E0903", f"`{name}` has no columns")
    return np.column_stack(parts) if len(parts) > 1 else parts[0].reshape(-1, 1)


def column(name: str, value: Any, missing: Missing | None = None) -> Array:
    """One column, of numbers or texts."""
    read = _read(f"`{name}`", value)
    if missing == "drop" and read.absent is not None:
        return read.values[~read.absent]
    return filled(f"`{name}`", read, missing)


def filled(place: str, read: Column, missing: Missing | None = None, more: str = "") -> Array:
    """The values of a column in which every cell has one, or nan (""): E0605 with the row otherwise."""
    if read.absent is None or not read.absent.any():
        return read.values
    if missing is None:
        row = int(np.argmax(read.absent))
        raise error("E0605", f"{place} has no value in row {row}",
                    help=f"rows count from 0; fill it: `{read.fill}`, leave the row out{more}")
    if read.values.dtype.kind in "biuf":
        return np.where(read.absent, np.nan, read.values)
    return np.where(read.absent, "", read.values)


def words(array: Array) -> str:
    """What an array holds that is not numbers."""
    match array.dtype.kind:
        case "O" | "U" | "S" | "T":
            return "texts"
        case "M":
            return f"dates ({array.dtype})"
        case "m":
            return f"lengths of time ({array.dtype})"
        case "c":
            return f"complex numbers ({array.dtype})"
        case _:
            return str(array.dtype)


def _instead(array: Array, cell: str) -> str:
    if array.dtype.kind in "Mm":
        return f"leave it out, or make days of it: `(df{cell} - df{cell}.min()) / np.timedelta64(1, \"D\")`"
    return "leave it out, or hand in codes (`pandas.factorize`, `np.unique(…, return_inverse=True)`)"


# ---------------------------------------------------------------- columns
def columns(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Names and columns of a table, each as its library has it; those of a mapping may be lists."""
    if isinstance(value, Mapping):
        yield from ((str(title), received(f"{name}.{title}", raw) if hasattr(raw, "dtype") or _is_arrow(raw) else np.asarray(raw))
                    for title, raw in value.items())
        return
    if isinstance(value, np.ndarray):
        flat = value.reshape(-1)
        yield from ((field, flat[field]) for field in value.dtype.names or ())
        return
    match library(value):
        case "pandas":
            yield from ((str(title), value.iloc[:, place]) for place, title in enumerate(value.columns))
        case "polars":
            yield from ((series.name, series) for series in value.get_columns())
        case _:
            yield from zip((f.name for f in value.type), value.flatten(), strict=True)


def _read(place: str, raw: Any) -> Column:
    try:
        if isinstance(raw, np.ndarray):
            found = Column(raw, None, "")
        else:
            match library(raw):
                case "pandas":
                    found = _pandas(raw)
                case "polars":
                    found = _polars(raw)
                case _:
                    found = _pyarrow(_whole(raw))
    except LrError:
        raise
    except Exception as problem:                         # whatever another library raises for a type of its own
        line = str(problem).strip().partition("\n")[0]
        raise error("E0903", f"{place} cannot be read: {line}", help="convert it to numbers or texts first") from None
    if found.values.ndim != 1:
        raise error("E0903", f"{place} has {found.values.ndim} axes in itself", help="hand it in as an array by itself")
    return Column(numbers(place, found.values, found.absent, column=True), found.absent, found.fill)


def _pandas(raw: Any) -> Column:
    pandas: Any = sys.modules["pandas"]                  # whose value this is
    series = raw if isinstance(raw, pandas.Series) else pandas.Series(raw)
    dtype = series.dtype
    if isinstance(dtype, pandas.CategoricalDtype):
        codes = series.cat.codes.to_numpy()
        names = _pandas(pandas.Series(series.cat.categories)).values
        absent = codes < 0
        values = names[codes] if len(names) else np.full(len(codes), "", object)
        return Column(values, absent if absent.any() else None, "s.cat.add_categories('?').fillna('?')")
    plain = isinstance(dtype, np.dtype) and dtype.kind != "O"
    if plain and dtype.kind != "M":
        return Column(series.to_numpy(), None, "")
    absent = series.isna().to_numpy()
    some = bool(absent.any())
    fill = "s.fillna(…)"
    if not plain and dtype.kind in "biuf":
        wanted = np.dtype(getattr(dtype, "numpy_dtype", None) or f"{dtype.kind}8")
        values = series.to_numpy(dtype=wanted, na_value=wanted.type(0)) if some else series.to_numpy(dtype=wanted)
        return Column(values, absent if some else None, 's.astype("float64")')
    if dtype.kind == "M":
        local = series.dt.tz_localize(None) if getattr(dtype, "tz", None) is not None else series
        return Column(local.to_numpy(dtype="datetime64[ns]"), absent if some else None, fill)
    return Column(series.to_numpy(dtype=object), absent if some else None, fill)


def _polars(series: Any) -> Column:
    polars: Any = sys.modules["polars"]
    some = series.null_count() > 0
    absent = series.is_null().to_numpy() if some else None
    kind = series.dtype
    if kind.is_numeric() or kind == polars.Boolean:
        if kind.is_decimal():
            series = series.cast(polars.Float64)
        whole = series.fill_null(False if kind == polars.Boolean else 0) if some else series
        return Column(whole.to_numpy(), absent, 's.fill_null(float("nan"))')
    if kind.is_temporal() and kind != polars.Time:
        return Column(series.to_numpy(), absent, "s.fill_null(…)")
    if kind.is_nested() or kind == polars.Binary:
        raise TypeError(f"its type is {kind}")
    values = np.empty(len(series), object)
    values[:] = series.cast(polars.String).to_list()
    return Column(values, absent, 's.fill_null("")')


def _pyarrow(found: Any) -> Column:
    import pyarrow.types as kinds
    if kinds.is_dictionary(found.type):
        found = found.dictionary_decode()
    kind, fill = found.type, "pyarrow.compute.fill_null(c, …)"
    absent = np.asarray(found.is_null()) if found.null_count else None
    if kinds.is_decimal(kind) or kinds.is_null(kind):
        found = found.cast("float64")
    elif kinds.is_string(kind) or kinds.is_large_string(kind) or kind == "string_view":
        values = np.empty(len(found), object)
        values[:] = found.to_pylist()
        return Column(values, absent, fill)
    elif not (kinds.is_boolean(kind) or kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_temporal(kind)):
        raise TypeError(f"its type is {kind}")
    if kinds.is_time(kind):
        return _pyarrow(found.cast("string"))
    if absent is not None and not kinds.is_temporal(kind):
        found = found.fill_null(False if kinds.is_boolean(kind) else 0)
    return Column(found.to_numpy(zero_copy_only=False), absent, fill)


def _arrow(value: Any, name: str) -> Any:
    """The value as an Arrow array, perhaps in chunks; a table is one of structs."""
    try:
        import pyarrow
    except ImportError:
        raise error("E0607", f"`{name}` is Arrow data, and reading it needs the package pyarrow" if name else
                    "reading Arrow data needs the package pyarrow", help='pip install "lr-lang[data]"') from None
    try:
        if hasattr(value, "__arrow_c_array__") and not hasattr(value, "__arrow_c_stream__"):
            return pyarrow.array(value)
        return pyarrow.chunked_array(value)
    except Exception as problem:                         # whatever the producer of the stream raises
        line = str(problem).strip().partition("\n")[0]
        raise error("E0903", f"`{name}` cannot be read as Arrow data: {line}") from None


def _is_arrow(value: Any) -> bool:
    return hasattr(value, "__arrow_c_stream__") or hasattr(value, "__arrow_c_array__")


def _whole(found: Any) -> Any:
    """An Arrow array in one piece."""
    if not hasattr(found, "chunks"):
        return found
    import pyarrow
    filled = [chunk for chunk in found.chunks if len(chunk)]         # pyarrow 26 cannot join empty ones that came with an offset
    return filled[0] if len(filled) == 1 else pyarrow.chunked_array(filled, found.type).combine_chunks()


def _is_struct(found: Any) -> bool:
    import pyarrow.types as kinds
    return bool(hasattr(found, "type") and kinds.is_struct(found.type))


# ---------------------------------------------------------------- cells that are Python objects
def numbers(place: str, array: Array, absent: Array | None = None, column: bool = False) -> Array:
    """An array of Python's numbers (`Decimal` and `Fraction` too) as one of numbers; one of texts stays."""
    if array.dtype.kind in "US" or array.dtype.kind == "T":
        return array.astype(object)
    if array.dtype.kind != "O":
        return array
    flat = array.reshape(-1)
    known = flat if absent is None else flat[~absent.reshape(-1)]
    if len(known) and all(isinstance(v, str) for v in known):
        return array
    bad = next((i for i, v in enumerate(flat) if not isinstance(v, NUMBERS) and (absent is None or not absent.reshape(-1)[i])), None)
    if bad is not None:
        shown = repr(flat[bad])
        at = f"row {bad}" if column else f"[{', '.join(str(int(i)) for i in np.unravel_index(bad, array.shape))}]"
        what = shown if len(shown) <= 40 else type(flat[bad]).__name__
        raise error("E0903", f"{place} holds {what} in {at}, not a number", help="a column holds numbers, or texts; an array numbers")
    kinds: tuple[tuple[Callable[[Any], bool], Any], ...] = (
        (lambda v: isinstance(v, bool | np.bool_), np.bool_), (lambda v: isinstance(v, int | np.integer), np.int64))
    dtype: Any = next((dtype for fits, dtype in kinds if len(known) and all(map(fits, known))), np.float64)
    result = np.zeros(flat.shape, dtype)
    try:
        result[slice(None) if absent is None else ~absent.reshape(-1)] = known.astype(dtype)
    except (OverflowError, ArithmeticError, ValueError):
        raise error("E0903", f"{place} holds a number beyond the range of {np.dtype(dtype)}", help="divide by a unit first") from None
    return result.reshape(array.shape)


def _texts(array: Array, absent: Array | None) -> Array:
    """Columns of a table: dates and times as texts, the rest as it is."""
    if array.dtype.kind not in "Mm":
        return array
    if array.dtype.kind == "M":
        known = array if absent is None else array[~absent]
        unit: Any = next(u for u in ("D", "s", "us", "ns") if np.array_equal(known.astype(f"datetime64[{u}]").astype(known.dtype), known))
        moments: Any = array.astype(f"datetime64[{unit}]")
        written = np.datetime_as_string(moments, unit=unit)
        return np.array([str(w).replace("T", " ") for w in written], object)
    return np.array([str(v) for v in array], object)
