"""Reading tables and arrays, writing values: what comes out, and what is said when a file is wrong."""
from __future__ import annotations

import io
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsl.errors import FileTrouble, LrError
from dsl.ops.philox import draw_key
from dsl.runtime.files import save_value, write_atomically
from dsl.runtime.tables import codes, header, labels, read_csv, read_npy, read_npz, read_parquet, split_indices

SEVERAL = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture
def csv(tmp_path):
    def write(content, name="pima.csv"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / name
    return write


def trouble(action, *arguments, **options):
    with pytest.raises(FileTrouble) as caught:
        action(*arguments, **options)
    return caught.value


# ---------------------------------------------------------------- CSV that is fine
def test_column_types(csv):
    table = read_csv(csv("i,f,t,b,big\n1,1.5,x,true,9007199254740993\n-2,nan,y z,False,-9223372036854775808\n"))
    assert {name: column.dtype for name, column in table.columns.items()} == {
        "i": np.int64, "f": np.float64, "t": object, "b": np.bool_, "big": np.int64}
    assert table.columns["big"].tolist() == [9007199254740993, -2**63]
    assert table.columns["b"].tolist() == [True, False] and table.columns["t"].tolist() == ["x", "y z"]
    assert (table.n_rows, table.source, table.separator) == (2, "pima.csv", ",")


def test_quick_and_careful_reading_agree(csv):
    """A quoted cell sends the whole file the careful way."""
    lines = ["a,b,c,d", "1,2.5,9007199254740993,1e5", " 3 ,.5,-7,inf", "+4,-0.0,8,NaN", "", "5,1.,9,-Infinity"]
    plain, quoted = read_csv(csv("\n".join(lines))), read_csv(csv("\n".join(lines).replace("+4", '"+4"')))
    for name in "abcd":
        assert plain.columns[name].dtype == quoted.columns[name].dtype
        assert plain.columns[name].tobytes() == quoted.columns[name].tobytes()
    assert plain.columns["c"].tolist() == [9007199254740993, -7, 8, 9]


def test_integers_written_as_floats_are_floats(csv):
    table = read_csv(csv("a,b,c\n1,1,2.0\n2.0,2,3.0\n"))
    assert [table.columns[name].dtype for name in "abc"] == [np.float64, np.int64, np.float64]


@pytest.mark.parametrize(("mark", "content"), [
    (",", "a,b\n1,2\n"), (";", "a;b\n1;2\n"), ("\t", "a\tb\n1\t2\n"), ("|", "a|b\n1|2\n"), (",", "a,b\r\n1,2\r\n"),
    (",", "\ufeffa,b\n1,2"), (",", "\n\na,b\n\n1,2\n\n"), (",", '"a","b"\n1,2\n'), (",", "a, b\n1, 2\n"),
    (",", "a,b\r1,2\r"), (";", '"a,,,";b\n1;2\n')])
def test_separators_and_line_ends(csv, mark, content):
    table = read_csv(csv(content))
    assert table.separator == mark and table.n_rows == 1
    assert [column.tolist() for column in table.columns.values()] == [[1], [2]]
    assert table.names[1] == "b" and header(csv(content)).n_rows == 1


def test_quoted_cells(csv):
    table = read_csv(csv('name,x\n"a, ""b""",1\n"two\nlines",2\n'))
    assert table.columns["name"].tolist() == ['a, "b"', "two\nlines"] and table.columns["x"].dtype == np.int64


def test_names_that_are_not_identifiers(csv):
    table = read_csv(csv("body mass (kg),2nd\n1,2\n"))
    assert table.names == ("body mass (kg)", "2nd") and table.matrix([1]).tolist() == [[2]]
    with pytest.raises(LrError) as caught:
        table.column("body mass")
    assert caught.value.code == "E0612" and caught.value.hint == "did you mean `body mass (kg)`?"


def test_matrix(csv):
    table = read_csv(csv("a,b,c,t\n1,2.5,true,x\n3,4.5,false,y\n"))
    assert table.matrix(slice(0, 2)).tolist() == [[1, 2.5], [3, 4.5]]
    assert table.matrix(slice(0, 1)).dtype == np.int64 and table.matrix([]).shape == (2, 0)
    with pytest.raises(LrError) as caught:
        table.matrix()
    assert caught.value.code == "E0613" and 'column "t"' in caught.value.message


def test_only_a_header(csv):
    assert read_csv(csv("a,b\n")).n_rows == 0 and header(csv("a,b\n")).shapes == {"a": (0,), "b": (0,)}


def test_separator_can_be_given(csv):
    assert read_csv(csv("a:b\n1:2\n"), separator=":").columns["b"].tolist() == [2]
    assert trouble(read_csv, csv("a\n1"), separator="::").code == "E0603"


def test_a_hundred_thousand_rows_are_quick(csv):
    from time import perf_counter
    numbers = np.random.default_rng(0).normal(size=(20_000, 20)).round(6)
    path = csv(",".join(f"c{k}" for k in range(20)) + "\n" + "\n".join(
        ",".join(map(repr, row)) for row in numbers.tolist()))
    start = perf_counter()
    table = read_csv(path)
    assert perf_counter() - start < 2 and (table.matrix() == numbers).all()


# ---------------------------------------------------------------- missing cells
def test_missing(csv):
    content = "x,n,t,b\n1,1,p,true\n,2,,false\n3,,r,\nNA,4,s,true\n"
    error = trouble(read_csv, csv(content))
    assert error.code == "E0605" and error.message == 'pima.csv line 3, column "x": the cell is empty'
    assert "`missing = nan`" in error.hint and "`missing = drop`" in error.hint
    table = read_csv(csv(content), missing="nan")
    assert np.array_equal(table.columns["x"], [1, np.nan, 3, np.nan], equal_nan=True)
    assert np.array_equal(table.columns["n"], [1, 2, np.nan, 4], equal_nan=True)
    assert np.array_equal(table.columns["b"], [1, 0, np.nan, 1], equal_nan=True)
    assert table.columns["t"].tolist() == ["p", "", "r", "s"] and table.n_rows == 4
    table = read_csv(csv(content), missing="drop")
    assert (table.n_rows, table.dropped) == (1, 3) and table.columns["x"].dtype == np.int64
    assert table.columns["b"].tolist() == [True]


def test_unknown_words_are_text_in_a_text_column(csv):
    table = read_csv(csv("country\nNA\nDE\nFR\n"), missing="drop")
    assert table.columns["country"].tolist() == ["NA", "DE", "FR"]


def test_all_cells_missing(csv):
    table = read_csv(csv("a,b\n1,\n2,\n"), missing="nan")
    assert table.columns["b"].tolist() == ["", ""] or np.isnan(table.columns["b"].astype(float)).all()
    assert read_csv(csv("a,b\n1,\n2,\n"), missing="drop").n_rows == 0


# ---------------------------------------------------------------- CSV that is wrong
@pytest.mark.parametrize(("content", "code", "message", "hint"), [
    ("", "E0603", "pima.csv is empty", "the first line names the columns"),
    (" \n\n", "E0603", "pima.csv is empty", "first line"),
    ("1,2,3\n4,5,6\n", "E0603", "pima.csv has no header: its first line holds only numbers", "`x0,x1,x2`"),
    ("a,b,a\n1,2,3\n", "E0603", 'has two columns called "a", the 1st and the 3rd', "its own name"),
    (",,a\n1,2,3\n", "E0603", "has two columns without a name", "its own name"),
    ("a,b\n1,2\n3,4,5\n", "E0603", "pima.csv line 3: 3 cells, and the header has 2", "double quotes"),
    ("a,b\n1,2\n\n3\n", "E0603", "pima.csv line 4: 1 cell, and the header has 2", "leave it empty"),
    ('a,b\n"x\ny",2\n3\n', "E0603", "pima.csv line 4: 1 cell", "leave it empty"),
    ('a,b\n1,2\n"x,2\n3,4\n', "E0603", "pima.csv line 3: a quoted cell is not closed", "written twice"),
    ('a,b\n1,2\n"x"y,2\n', "E0603", "pima.csv line 3: there is text after a closing quote", "written twice"),
    ("age,b\n1,2\nold,4\n3,5\n", "E0604", 'pima.csv line 3, column "age": `old` is not a number', "leave it empty"),
    ("age\n1\nNA\n3\n", "E0604", 'pima.csv line 3, column "age": `NA` is not a number', "`missing = nan`"),
    ("age;b\n1;2\n3;4\n1,5;6\n", "E0604", 'line 4, column "age": `1,5` is not a number', "with a point: 1.5"),
    ("age\n1\n1_000\n3\n", "E0604", "`1_000` is not a number", "correct the cell"),
    ("age\n1\n１２\n3\n", "E0604", "`１２` is not a number", "correct the cell"),
    ("age\n1\n0x10\n3\n", "E0604", "`0x10` is not a number", "correct the cell"),
    ("age\n1\n9223372036854775808\n", "E0604", 'line 3, column "age": `9223372036854775808` is beyond int64', "point"),
    ("age\n1\n1e999\n", "E0604", 'line 3, column "age": `1e999` is beyond float64', "`inf`"),
    ("age\n1\n" + "9" * 5000 + "\n", "E0604", "is beyond", ""),
    ("a,age\n1,2\n1,\n", "E0605", 'pima.csv line 3, column "age": the cell is empty', "`missing = nan`"),
    ("age\n1\n\n3\n", "E0605", 'pima.csv line 3, column "age": the cell is empty', "`missing = drop`"),
    ("a,age\n1,2\n\n\n1, \n", "E0605", 'pima.csv line 5, column "age": the cell is empty', "`missing = drop`"),
    (b"a,b\n1,caf\xe9\n", "E0602", "pima.csv is not UTF-8 text: line 2 holds the byte 0xe9", "iconv"),
    ("a,b\n1,2\n".encode("utf-16"), "E0602", "it is UTF-16", "iconv"),
    (b"a,b\n1,\x00\n", "E0602", "line 2 holds a zero byte", "binary"),
])
def test_what_is_wrong_is_said(csv, content, code, message, hint):
    error = trouble(read_csv, csv(content))
    assert error.code == code and message in error.message and hint in (error.hint or "")


def test_bad_cell_after_dropped_rows_has_the_line_of_the_file(csv):
    error = trouble(read_csv, csv("a,b\n,1\n1,2\n2,x\n3,4\n4,5\n"), missing="drop")
    assert error.message.startswith('pima.csv line 4, column "b": `x`')


def test_a_mostly_text_column_is_text(csv):
    assert read_csv(csv("id\n12\nA3\nB4\n")).columns["id"].tolist() == ["12", "A3", "B4"]


def test_not_found(tmp_path):
    (tmp_path / "pima.csv").write_text("a\n1\n")
    error = trouble(read_csv, tmp_path / "pina.csv")
    assert error.code == "E0601" and error.hint == "did you mean `pima.csv`?" and "pina.csv" in error.message
    assert trouble(read_csv, tmp_path / "zzzzzz.csv").hint == "in that directory: pima.csv"
    assert "no directory" in trouble(read_csv, tmp_path / "no" / "x.csv").hint
    assert trouble(header, tmp_path / "pima.csv" / "x.csv").code == "E0601"
    for read in (read_npy, read_npz, read_parquet, header):
        assert trouble(read, tmp_path / "none.npy").code == "E0601"


def test_cannot_read(tmp_path, csv):
    assert trouble(read_csv, tmp_path).message.endswith("it is a directory")
    assert trouble(read_csv, "a\0b.csv").code == "E0602"
    assert trouble(read_csv, "x" * 5000 + ".csv").code == "E0602"
    if not ROOT:
        path = csv("a\n1\n")
        path.chmod(0)
        assert trouble(read_csv, path).message.endswith("no permission")


cells = st.text(alphabet='0123456789.,;-+eE"\n\r\t| naxé_', max_size=60)


@SEVERAL
@given(content=st.one_of(st.binary(max_size=80), cells.map(str.encode),
                         cells.map(lambda text: f"a,b\n{text}".encode())),
       missing=st.sampled_from([None, "nan", "drop"]))
def test_no_bytes_make_a_traceback(tmp_path, content, missing):
    path = tmp_path / "fuzz.csv"
    path.write_bytes(content)
    for action in (lambda: read_csv(path, missing=missing), lambda: header(path)):
        try:
            table = action()
        except FileTrouble as caught:
            assert caught.code in {"E0602", "E0603", "E0604", "E0605"} and "fuzz.csv" in caught.message
        else:
            assert len(set(table.names)) == len(table.names)


@SEVERAL
@given(st.lists(st.lists(st.floats(), min_size=3, max_size=3), min_size=1, max_size=5))
def test_saved_numbers_read_back(tmp_path, rows):
    matrix = np.array(rows)
    save_value(tmp_path / "m.csv", "Y", matrix)
    table = read_csv(tmp_path / "m.csv")
    assert table.names == ("Y_0", "Y_1", "Y_2") and np.array_equal(table.matrix(), matrix, equal_nan=True)


# ---------------------------------------------------------------- NumPy and Parquet
@pytest.mark.parametrize(("stored", "read"), [
    (np.float64, np.float64), (np.float32, np.float32), (np.float16, np.float32), (np.int64, np.int64),
    (np.int32, np.int32), (np.int8, np.int64), (np.uint8, np.int64), (np.uint32, np.int64), (np.uint64, np.int64),
    (np.bool_, np.bool_), (">f8", np.float64), (">i4", np.int32)])
def test_npy(tmp_path, stored, read):
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(stored)
    np.save(tmp_path / "a.npy", np.asfortranarray(array))
    got = read_npy(tmp_path / "a.npy")
    assert got.dtype == read and got.flags.c_contiguous and (got == array).all()
    assert header(tmp_path / "a.npy").n_rows == 2
    np.savez(tmp_path / "a.npz", x=array, y=array[0])
    arrays = read_npz(tmp_path / "a.npz")
    assert arrays.names == ("x", "y") and (arrays.column("x") == array).all()
    assert header(tmp_path / "a.npz").shapes == {"x": (2, 3), "y": (3,)} and header(tmp_path / "a.npz").n_rows is None


def test_npy_scalar_and_text(tmp_path):
    np.save(tmp_path / "a.npy", np.array(2.5))
    assert read_npy(tmp_path / "a.npy").shape == () and header(tmp_path / "a.npy").n_rows is None
    np.save(tmp_path / "a.npy", np.array(["x", "yy"]))
    assert read_npy(tmp_path / "a.npy").tolist() == ["x", "yy"]


def test_npy_that_is_refused(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.array([{}], object))
    error = trouble(read_npy, path)
    assert error.code == "E0606" and "pickled Python objects, which are never loaded" in error.message
    np.savez(tmp_path / "a.npz", x=np.array([print], object), allow_pickle=True)
    assert "pickled" in trouble(read_npz, tmp_path / "a.npz").message
    for array in (np.array([1j]), np.array(["2020"], "M8[D]"), np.array([2**63], np.uint64),
                  np.zeros(1, [("a", "f8")])):
        np.save(path, array)
        assert trouble(read_npy, path).code == "E0606"
    path.write_bytes(b"not an array")
    assert trouble(read_npy, path).message.startswith("a.npy is not a valid .npy file")
    assert trouble(header, path).code == "E0606"
    assert trouble(read_npz, path).message.startswith("a.npy is not a valid .npz file")
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**9)})
    path.write_bytes(stream.getvalue())
    assert "cut short" in trouble(read_npy, path).message


@SEVERAL
@given(data=st.data())
def test_damaged_files_make_no_traceback(tmp_path, data):
    stream = io.BytesIO()
    kind = data.draw(st.sampled_from(["npy", "npz", "parquet"]))
    if kind == "npz":
        np.savez_compressed(stream, x=np.arange(5.0), y=np.arange(3))
    else:
        np.save(stream, np.arange(5.0))
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"fuzz.{kind}"
    path.write_bytes(bytes(content[:data.draw(st.integers(0, len(content)))]))
    for read in ({"npy": read_npy, "npz": read_npz, "parquet": read_parquet}[kind], header):
        try:
            read(path)
        except FileTrouble as caught:
            assert caught.code in {"E0606", "E0607"}


def test_an_archive_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("notes.txt", "hello")
    assert trouble(read_npz, tmp_path / "a.npz").code == "E0606"


def test_parquet(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    words = arrow.array(["u", "v", "u"]).dictionary_encode()
    parquet.write_table(arrow.table({"i": [1, 2, 3], "f": [0.5, None, 2.5], "t": ["x", None, "z"],
                                     "b": [True, False, True], "d": words}), path)
    assert header(path).n_rows == 3 and header(path).names == ("i", "f", "t", "b", "d")
    error = trouble(read_parquet, path)
    assert error.code == "E0605" and error.message == 't.parquet row 1, column "f": no value'
    table = read_parquet(path, missing="nan")
    assert table.columns["i"].dtype == np.int64 and np.isnan(table.columns["f"][1])
    assert table.columns["t"].tolist() == ["x", "", "z"] and table.columns["d"].tolist() == ["u", "v", "u"]
    assert table.columns["b"].dtype == np.bool_
    table = read_parquet(path, missing="drop")
    assert (table.n_rows, table.dropped) == (2, 1) and table.columns["f"].tolist() == [0.5, 2.5]
    parquet.write_table(arrow.table({"l": [[1], [2]]}), path)
    assert "list" in trouble(read_parquet, path).message


def test_parquet_without_its_package(tmp_path, monkeypatch):
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    error = trouble(read_parquet, tmp_path / "t.parquet")
    assert error.code == "E0607" and error.hint == 'pip install "lr-lang[data]"'


# ---------------------------------------------------------------- codes, labels, split
def test_codes_and_labels():
    column = np.array(["b", "a", "Ä", "b"], object)
    assert labels(column).tolist() == ["a", "b", "Ä"] and codes(column).tolist() == [1, 0, 2, 1]
    assert codes(column).dtype == np.int64 and codes(np.array([30, 10, 30])).tolist() == [1, 0, 1]
    assert labels(np.array([30, 10, 30])).tolist() == [10, 30]
    assert codes(np.array([], object)).shape == (0,)


@pytest.mark.parametrize(("n", "test", "m"), [
    (10, 0.2, 2), (101, 0.2, 21), (100, 0.07, 7), (3, 0.5, 2), (150, 0.1, 15)])
def test_split(n, test, m):
    train_rows, test_rows = split_indices(n, test, draw_key(0, ("split",)))
    assert len(test_rows) == m and train_rows.dtype == np.int64
    assert sorted([*train_rows.tolist(), *test_rows.tolist()]) == list(range(n))
    assert (np.diff(train_rows) > 0).all() and (np.diff(test_rows) > 0).all()
    again = split_indices(n, test, draw_key(0, ("split",)))
    assert (again[1] == test_rows).all()
    if n > 50:
        assert (split_indices(n, test, draw_key(1, ("split",)))[1] != test_rows).any()


@pytest.mark.parametrize(("n", "test"), [(10, 0.0), (10, 1.0), (10, 3), (10, np.nan), (1, 0.5), (2, 0.9), (0, 0.2)])
def test_split_that_is_wrong(n, test):
    with pytest.raises(LrError) as caught:
        split_indices(n, test, 0)
    assert caught.value.code == "E0613"


# ---------------------------------------------------------------- writing
@pytest.mark.parametrize(("array", "text"), [
    (1.5, "Y\n1.5\n"), (np.array([1.0, 0.1]), "Y\n1.0\n0.1\n"), (np.array([True, False]), "Y\ntrue\nfalse\n"),
    (np.array([[1, 2], [3, 4]]), "Y_0,Y_1\n1,2\n3,4\n"), (np.array([0.1], np.float32), "Y\n0.1\n"),
    (np.array([np.nan, -np.inf]), "Y\nnan\n-inf\n"), (np.array(["a", 'b,"c"'], object), 'Y\na\n"b,""c"""\n'),
    (np.zeros((0, 2)), "Y_0,Y_1\n"), (np.array([]), "Y\n"), (np.array([[1.0, 2.0]]).T, "Y_0\n1.0\n2.0\n")])
def test_save_csv(tmp_path, array, text):
    save_value(tmp_path / "p.csv", "Y", array)
    assert (tmp_path / "p.csv").read_text() == text and os.listdir(tmp_path) == ["p.csv"]


@pytest.mark.parametrize("array", [np.array(2.5), np.arange(12).reshape(3, 4).T, np.zeros((2, 3, 4), np.float32)])
def test_save_npy(tmp_path, array):
    save_value(tmp_path / "p.npy", "Y", array)
    back = np.load(tmp_path / "p.npy")
    assert back.shape == array.shape and back.dtype == array.dtype and (back == array).all() and back.flags.c_contiguous


def test_save_that_is_wrong(tmp_path):
    error = trouble(save_value, tmp_path / "p.txt", "Y", [1.0])
    assert error.code == "E0608" and error.hint == ".csv and .npy can be written"
    assert "no ending" in trouble(save_value, tmp_path / "p", "Y", [1.0]).message
    assert "did you mean `p.csv`?" in trouble(save_value, tmp_path / "p.cvs", "Y", [1.0]).hint
    error = trouble(save_value, tmp_path / "p.csv", "Y", np.zeros((2, 3, 4)))
    assert error.code == "E0610" and "`p.npy`" in error.hint
    assert trouble(save_value, tmp_path / "p.npy", "Y", np.array(["a"], object)).code == "E0608"
    error = trouble(save_value, tmp_path / "no" / "p.csv", "Y", [1.0])
    assert error.code == "E0609" and "there is no directory" in error.message
    (tmp_path / "dir.csv").mkdir()
    assert "it is a directory" in trouble(save_value, tmp_path / "dir.csv", "Y", [1.0]).message
    assert trouble(save_value, "a\0b.csv", "Y", [1.0]).code == "E0609"
    if not ROOT:
        (tmp_path / "closed").mkdir(mode=0o500)
        assert "no permission" in trouble(save_value, tmp_path / "closed" / "p.csv", "Y", [1.0]).message


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("old")

    def fail(file):
        file.write(b"half")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["p.csv"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk(tmp_path, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")
    assert "no space left on device" in trouble(write_atomically, tmp_path / "p.csv", full).message
