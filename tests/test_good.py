"""Right programs, one feature each, with the values they must print; worked out without the program."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

import dsl
from dsl.errors import Source

GOOD = Path(__file__).parent / "good"
SCRIPTS = sorted(GOOD.glob("*.lr"))


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_good(path, tmp_path):
    session = dsl.Session(base=GOOD, out=tmp_path, stdout=io.StringIO(), quiet=True)
    session.comparing = True
    session.compute.check = True
    session.load(Source(path.name, path.read_text(encoding="utf-8")))
    session.run()
    assert session.checked > 0, "nothing is checked"
    assert not session.failures, "\n\n".join(d.render() for d in session.failures)


def test_there_are_enough():
    assert len(SCRIPTS) >= 40
