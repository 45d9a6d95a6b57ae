"""Wrong programs, each with the whole message it gives: tests/bad/NAME.lr and tests/golden/bad/NAME.txt.

A script whose first line is `# --set name=value` is loaded with that override.  What is printed before an error is left
out.
"""

import io
from importlib.util import find_spec
from pathlib import Path

import pytest

import dsl
from dsl.errors import LrError, Source

BAD = Path(__file__).parent / "bad"
SCRIPTS = sorted(BAD.glob("*.lr"))


def report(path: Path, out: Path) -> str:
    """Everything that loading and running the script says is wrong."""
    text = path.read_text(encoding="utf-8")
    first, _, _ = text.partition("\n")
    given = dict([first.removeprefix("# --set ").split("=")]) if first.startswith("# --set ") else {}
    session = dsl.Session(base=path.parent, out=out, overrides=given, quiet=True, stdout=io.StringIO())
    session.comparing = True
    try:
        session.load(Source(path.name, text))
        session.run()
    except LrError as problem:
        return "\n\n".join([*(d.render() for d in session.failures), str(problem)]) + "\n"
    return "\n\n".join(d.render() for d in session.failures) + "\n"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_message(path, golden, tmp_path):
    if path.stem == "device_cuda" and find_spec("cupy"):
        pytest.skip("with CuPy another message, or none")
    text = report(path, tmp_path).replace(str(BAD), "").replace(str(tmp_path), "")
    assert "error[E" in text
    golden(f"bad/{path.stem}.txt", text)
