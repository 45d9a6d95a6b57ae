"""Every code has an entry, every example fails with its code, every fix runs."""

import io
import re
from pathlib import Path

import pytest

import dsl
from dsl.error_index import ENTRIES, explain
from dsl.errors import LrError, Source

CODES = set(re.findall(r'"(E0\d{3})"', "".join(
    path.read_text(encoding="utf-8") for path in Path(dsl.__file__).parent.rglob("*.py") if path.name != "error_index.py")))
SHOWN = [code for code, entry in ENTRIES.items() if entry.kind != "none"]


def codes(code: str, text: str, folder: Path) -> set[str]:
    """The codes that a script, or a piece of Python, fails with."""
    entry = ENTRIES[code]
    for name, content in entry.files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        if entry.kind == "python":
            exec(compile(text, code, "exec"), {})
            return set()
        session = dsl.Session(base=folder, out=folder, stdout=io.StringIO(), quiet=True)
        session.comparing = True
        session.load(Source("example.lr", text))
        session.run()
    except LrError as problem:
        return {d.code for d in problem.diagnostics}
    return {d.code for d in session.failures}


def test_every_code_has_an_entry():
    assert set(ENTRIES) == CODES


@pytest.mark.parametrize("code", SHOWN)
def test_example(code, tmp_path):
    assert codes(code, ENTRIES[code].example, tmp_path) == {code}


@pytest.mark.parametrize("code", SHOWN)
def test_fix(code, tmp_path):
    assert codes(code, ENTRIES[code].fix, tmp_path) == set()


@pytest.mark.parametrize("code", ENTRIES)
def test_explain(code):
    entry, text = ENTRIES[code], explain(code.lower())
    title, told = text.split("\n\n")[:2]
    assert title == f"{code}: {entry.title}" and " ".join(told.split()) == entry.text and max(map(len, told.splitlines())) < 80
    assert entry.text.endswith(".") and len(entry.title) < 70
    assert max(map(len, text.splitlines()), default=0) < 110


def test_explain_unknown():
    with pytest.raises(KeyError):
        explain("E0000")
