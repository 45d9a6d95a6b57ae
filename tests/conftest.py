"""Golden files: `golden("name.txt", text)` compares with tests/golden/name.txt; `--update-golden` rewrites it.

`device`: a test with this fixture runs twice, on the reference and natively."""

from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden from what the code prints now")


@pytest.fixture
def golden(request):
    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        assert path.exists(), f"no {path.name} in tests/golden: `make golden` writes it"
        assert text == path.read_text(encoding="utf-8"), f"{name} differs: if that is right, `make golden`"

    return compare


@pytest.fixture(params=["numpy", "cpu"])
def device(request, monkeypatch):
    """The device of every script that does not choose one itself."""
    monkeypatch.setenv("LR_DEVICE", request.param)
    return request.param
