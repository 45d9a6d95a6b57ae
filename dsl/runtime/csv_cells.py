"""The text of a CSV file: bytes become rows of cells, and rows become typed columns.

In: the bytes of a file.  Out: a `CsvText` (names and where the rows begin), from which `quick_columns` makes arrays if
all cells are plain numbers; else a `Sheet` (rows of equal length), from which `convert_columns` makes them with the csv
module, `int` and `float`.  A file's line numbers are worked out only when a message needs one.
`dsl/runtime/tables.py` says what the rules are and lists the codes.
"""
from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dsl.errors import FileTrouble, LrError, Span, error
from dsl.record import record

Array = npt.NDArray[Any]
Missing = Literal["nan", "drop"]
SEPARATORS = (",", ";", "\t", "|")
UNKNOWN = frozenset({"NA", "N/A", "n/a", "na", "null", "NULL", "?"})      # empty, in a number column
_MISSING_HELP = "write `missing = nan` to read nan there, or `missing = drop` to leave such rows out"
_INTEGER = re.compile(r"\s*[+-]?[0-9]+\s*", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*([eE][+-]?[0-9]+)?|\.[0-9]+([eE][+-]?[0-9]+)?|nan|inf|infinity)\s*",
                     re.ASCII | re.IGNORECASE)


@record
class CsvText:
    """A CSV file as text: its data rows begin at the character `start`.

    `plain` says that NumPy's, `int`'s and `float`'s reading of a cell is this language's (ASCII and no `_`).
    """

    name: str
    text: str
    separator: str
    names: tuple[str, ...]
    start: int
    plain: bool

    @property
    def quick_lines(self) -> list[str] | None:
        """The data lines if each is one row, with no quoted cells and no blank line that could mean a cell."""
        if '"' in self.text:
            return None
        lines = self.text[self.start:].replace("\r\n", "\n").rstrip("\r\n").split("\n")
        if lines == [""] or "\r" in self.text.replace("\r\n", "\n") or (len(self.names) == 1 and "" in lines):
            return None
        return lines


@record
class Sheet:
    """The cells of a CSV file as text; every row is as long as `csv.names`."""

    csv: CsvText
    rows: list[list[str]]


def read_text(data: bytes, name: str, separator: str | None, span: Span | None) -> CsvText:
    """The text and header of a CSV file called `name`, or E0602 (not UTF-8 text), E0603 (no header)."""
    text = _decode(data, name, span)
    if not text.strip():
        raise _bad(name, "is empty", span, "the first line names the columns, such as `x,y`")
    if separator is None:
        separator = sniff_separator(text)
    elif len(separator) != 1 or separator in '"\r\n ':
        raise error("E0603", f"a separator is one character, not {separator!r}", span, kind=FileTrouble,
                    help="the usual ones are , ; tab and |")
    stream = io.StringIO(text, newline="")
    try:
        first = next(row for row in _reader(stream, separator) if not _blank(row))
    except StopIteration:
        raise _bad(name, "has no header", span, "the first line names the columns, such as `x,y`") from None
    except csv.Error as trouble:
        raise _broken(text, separator, name, str(trouble), span) from None
    names = tuple(cell.strip() for cell in first)
    _check_names(names, name, span)
    return CsvText(name, text, separator, names, stream.tell(), "_" not in text[stream.tell():] and text.isascii())


def read_sheet(source: CsvText, span: Span | None) -> Sheet:
    """All cells, or E0603 with the line of the first row that is not as long as the header."""
    try:
        rows = list(_reader(io.StringIO(source.text[source.start:], newline=""), source.separator))
    except csv.Error as trouble:
        raise _broken(source.text, source.separator, source.name, str(trouble), span) from None
    while rows and _blank(rows[-1]):
        rows.pop()
    width = len(source.names)
    if any(len(row) != width for row in rows):          # blank lines: nothing in a table, an empty cell in one column
        rows = [row or [""] for row in rows] if width == 1 else [row for row in rows if not _blank(row)]
    sheet = Sheet(source, rows)
    for number, row in enumerate(rows):
        if len(row) != width:
            raise _ragged(sheet, number, span)
    return sheet


def count_rows(source: CsvText, span: Span | None) -> int:
    """How many data rows there are; E0603 as in `read_sheet`."""
    lines = source.quick_lines
    if lines is not None:
        marks, wanted = source.separator, len(source.names) - 1
        filled = [line for line in lines if line and not line.isspace()]
        if all(line.count(marks) == wanted for line in filled):
            return len(filled)
    return len(read_sheet(source, span).rows)


def quick_columns(source: CsvText) -> dict[str, Array] | None:
    """The columns if all cells are plain numbers, by NumPy's reader; None if that is not so or not certain."""
    lines = source.quick_lines if source.plain else None
    if lines is None:
        return None
    separator, names = source.separator, source.names
    with warnings.catch_warnings():
        warnings.simplefilter("error")                  # an integer read through a float, or no data
        try:
            numbers = np.loadtxt(lines, np.float64, comments=None, delimiter=separator, ndmin=2)
            if numbers.shape[1] != len(names) or np.isinf(numbers).any():
                return None
            first = next(line for line in lines if line).split(separator)
            whole = [place for place, cell in enumerate(first) if _INTEGER.fullmatch(cell)
                     and (numbers[:, place] == np.rint(numbers[:, place])).all()]
            integers = np.loadtxt(lines, np.int64, comments=None, delimiter=separator, ndmin=2, usecols=whole) \
                if whole else np.empty((0, 0), np.int64)
        except (ValueError, OverflowError, IndexError, Warning):
            return None
    columns = {name: np.ascontiguousarray(numbers[:, place]) for place, name in enumerate(names)}
    columns |= {names[place]: np.ascontiguousarray(integers[:, k]) for k, place in enumerate(whole)}
    return columns


def sniff_separator(text: str) -> str:
    """Which of , ; tab | the first line has most of outside quotes; `,` if none."""
    line = next(line for line in io.StringIO(text) if line.strip())
    bare = re.sub(r'"[^"]*"', "", line)
    best = max(SEPARATORS, key=bare.count)
    return best if bare.count(best) else ","


def _decode(data: bytes, name: str, span: Span | None) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        data, reason = b"\xff", "it is UTF-16"
    else:
        reason = ""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as trouble:
        line = data.count(b"\n", 0, trouble.start) + 1
        reason = reason or f"line {line} holds the byte 0x{data[trouble.start]:02x}"
        raise error("E0602", f"{name} is not UTF-8 text: {reason}", span, kind=FileTrouble,
                    help="save it as UTF-8, for example `iconv -f latin1 -t utf-8`") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise error("E0602", f"{name} is not text: line {line} holds a zero byte", span, kind=FileTrouble,
                    help="is it a binary file? .npy, .npz and .parquet have their own functions")
    return text


def _reader(stream: io.StringIO, separator: str) -> Any:
    return csv.reader(stream, delimiter=separator, skipinitialspace=True, strict=True)


def _blank(row: list[str]) -> bool:
    return not row or (len(row) == 1 and not row[0].strip())


# ---------------------------------------------------------------- columns
@record
class Column:
    """The cells of one column; cell i stands in data row `kept[i]` of the file."""

    sheet: Sheet
    place: int
    cells: Sequence[str]
    kept: Sequence[int]

    def where(self, row: int) -> str:
        source = self.sheet.csv
        line = _line(self.sheet, self.kept[row])
        return f'{source.name} line {line}, column "{source.names[self.place] or self.place + 1}"'


def convert_columns(sheet: Sheet, missing: Missing | None, span: Span | None) -> tuple[dict[str, Array], int]:
    """The sheet's columns by name, and how many rows they have."""
    kept: Sequence[int] = range(len(sheet.rows))
    table: Sequence[Sequence[str]] = list(zip(*sheet.rows, strict=True)) if sheet.rows else [()] * len(sheet.csv.names)
    if missing == "drop" and kept:
        whole = ~np.logical_or.reduce([_absent(cells, missing) for cells in table])
        if not whole.all():
            kept = np.flatnonzero(whole).tolist()
            table = [[cells[row] for row in kept] for cells in table]
    columns = {name: _convert(Column(sheet, place, cells, kept), missing, span)
               for place, (name, cells) in enumerate(zip(sheet.csv.names, table, strict=True))}
    return columns, len(kept)


def _convert(column: Column, missing: Missing | None, span: Span | None) -> Array:
    cells = column.cells
    if not cells:
        return np.empty(0)
    if column.sheet.csv.plain:                          # the quick way: all of the column's cells are numbers
        try:
            whole = list(map(int, cells))
        except ValueError:
            pass
        else:
            return _integers(column, whole, span)
        try:
            return _floats(column, np.array(list(map(float, cells))), span)
        except ValueError:
            pass
    absent = _absent(cells, missing)
    if missing is None and absent.any():
        raise error("E0605", f"{column.where(int(np.argmax(absent)))}: the cell is empty", span, kind=FileTrouble,
                    help=_MISSING_HELP)
    present = [cell for cell, gone in zip(cells, absent.tolist(), strict=True) if not gone]
    if present and all(cell.strip().lower() in ("true", "false") for cell in present):
        truth = [cell.strip().lower() == "true" for cell in present]
        return np.array(truth) if len(present) == len(cells) else _spread(truth, absent)
    numbers = sum(1 for cell in present if _NUMBER.fullmatch(cell))
    if numbers < len(present):
        if 2 * numbers <= len(present):
            return np.array(["" if not cell.strip() else cell for cell in cells], object)
        row = next(row for row, cell in enumerate(cells) if not absent[row] and not _NUMBER.fullmatch(cell))
        raise _not_a_number(column, row, span)
    if len(present) < len(cells):
        return _floats(column, _spread([float(cell) for cell in present], absent), span)
    if all(_INTEGER.fullmatch(cell) for cell in cells):
        return _integers(column, [_whole(cell) for cell in cells], span)
    return _floats(column, np.array([float(cell) for cell in cells]), span)


def _absent(cells: Sequence[str], missing: Missing | None) -> npt.NDArray[np.bool_]:
    """Which cells are empty; `NA` and the like too where `missing` is given and the column is one of numbers."""
    absent = np.array([not cell or cell.isspace() for cell in cells], np.bool_)
    if missing is not None and any(cell.strip() in UNKNOWN for cell in set(cells)):
        unknown = np.array([cell.strip() in UNKNOWN for cell in cells], np.bool_)
        others = [cell for cell, gone in zip(cells, (absent | unknown).tolist(), strict=True) if not gone]
        if others and 2 * sum(1 for cell in others if _NUMBER.fullmatch(cell)) > len(others):
            return absent | unknown
    return absent


def _spread(present: Sequence[float], absent: npt.NDArray[np.bool_]) -> Array:
    column = np.full(absent.shape, np.nan)
    column[~absent] = present
    return column


def _whole(cell: str) -> int:
    try:
        return int(cell)
    except ValueError:                                  # Python's limit of digits
        return 1 << 64


def _integers(column: Column, whole: list[int], span: Span | None) -> Array:
    try:
        return np.array(whole, np.int64)
    except OverflowError:
        row = next(number for number, value in enumerate(whole) if not -2**63 <= value < 2**63)
        raise error("E0604", f"{column.where(row)}: {_short(column.cells[row])} is beyond int64", span,
                    kind=FileTrouble, help="write it with a decimal point to read the column as floats") from None


def _floats(column: Column, values: Array, span: Span | None) -> Array:
    for row in np.flatnonzero(np.isinf(values)).tolist():
        if "i" not in column.cells[row].lower():
            raise error("E0604", f"{column.where(row)}: {_short(column.cells[row])} is beyond float64", span,
                        kind=FileTrouble, help="write `inf` if infinity is meant")
    return values


# ---------------------------------------------------------------- messages
def _numbered(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank with the line each begins on."""
    reader = _reader(io.StringIO(text, newline=""), separator)
    last = 0
    for row in reader:
        yield last + 1, row
        last = reader.line_num


def _line(sheet: Sheet, row: int) -> int:
    """The line of the file on which data row `row` (from 0) begins."""
    one = len(sheet.csv.names) == 1
    lines, header_seen = -1, False
    for line, cells in _numbered(sheet.csv.text, sheet.csv.separator):
        if not header_seen:
            header_seen = not _blank(cells)
        elif one or not _blank(cells):
            lines += 1
            if lines == row:
                return line
    return 0


def _not_a_number(column: Column, row: int, span: Span | None) -> LrError:
    cell = column.cells[row]
    if cell.strip() in UNKNOWN:
        help = _MISSING_HELP
    elif re.fullmatch(r"\s*[+-]?[0-9]+,[0-9]+\s*", cell):
        help = f"decimals are written with a point: {cell.strip().replace(',', '.')}"
    else:
        help = "correct the cell; if the value is unknown leave it empty and write `missing = nan` or `missing = drop`"
    return error("E0604", f"{column.where(row)}: {_short(cell)} is not a number, and the rest of the column is", span,
                 kind=FileTrouble, help=help)


def _check_names(names: tuple[str, ...], source: str, span: Span | None) -> None:
    if all(_NUMBER.fullmatch(name) for name in names):
        example = ",".join(f"x{place}" for place in range(min(3, len(names))))
        raise _bad(source, "has no header: its first line holds only numbers", span,
                   f"put a line of column names above it, such as `{example}{',…' if len(names) > 3 else ''}`")
    seen: dict[str, int] = {}
    for place, name in enumerate(names):
        if name in seen:
            which = f'called "{name}"' if name else "without a name"
            raise _bad(source, f"has two columns {which}, the {_nth(seen[name] + 1)} and the {_nth(place + 1)}", span,
                       "give each column its own name in the first line")
        seen[name] = place


def _ragged(sheet: Sheet, row: int, span: Span | None) -> LrError:
    found, wanted = len(sheet.rows[row]), len(sheet.csv.names)
    help = ("put cells that hold the separator in double quotes" if found > wanted else
            "an unknown value is still a cell: leave it empty between separators")
    return error("E0603", f"{sheet.csv.name} line {_line(sheet, row)}: {_count(found, 'cell')}, and the header has "
                 f"{wanted}", span, kind=FileTrouble, help=help)


def _broken(text: str, separator: str, name: str, reason: str, span: Span | None) -> LrError:
    line = 1
    try:
        for start, cells in _numbered(text, separator):
            line = start + 1 + sum(cell.count("\n") for cell in cells)       # where the next row begins
    except csv.Error:
        pass
    what = ("a quoted cell is not closed" if "end of data" in reason or "limit" in reason else
            "there is text after a closing quote" if "expected after" in reason else reason)
    return error("E0603", f"{name} line {line}: {what}", span, kind=FileTrouble,
                 help='inside a quoted cell, a double quote is written twice: "so ""quoted"" it is"')


def _bad(name: str, what: str, span: Span | None, help: str) -> LrError:
    return error("E0603", f"{name} {what}", span, kind=FileTrouble, help=help)


def _short(cell: str) -> str:
    cell = cell.strip()
    return f"`{cell if len(cell) <= 40 else cell[:37] + '…'}`"


def _nth(number: int) -> str:
    last = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else last}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
