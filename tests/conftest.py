"""Golden files: `golden("name.txt", text)` compares with tests/golden/name.txt; `--update-golden` rewrites it.

`device`: a test with this fixture runs twice, on the reference and natively.  With `--device cuda` it runs on the GPU instead, and
so does every script that does not choose a device; `--stand-in` puts CuPy's stand-in in the GPU's place.  `on_the_cpu` marks tests
that say what another device does: they are left out then; `gpu` marks those that are left out without it.  `child_process` marks those
that start one, where no stand-in is."""

import os
import sys
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden from what the code prints now")
    parser.addoption("--device", help="run the tests' scripts on this device")
    parser.addoption("--stand-in", action="store_true", help="with --device cuda: no GPU but CuPy's stand-in")


def pytest_configure(config):
    if config.getoption("--device"):
        os.environ["LR_DEVICE"] = config.getoption("--device")
    if config.getoption("--stand-in"):
        sys.path.insert(0, str(Path(__file__).parent.parent))
        from tests import stand_in_cupy
        standing = stand_in_cupy.installed()
        standing.__enter__()
        config.add_cleanup(lambda: standing.__exit__(None, None, None))


def pytest_collection_modifyitems(config, items):
    out = ["on_the_cpu" if config.getoption("--device") else "gpu", *(["child_process"] if config.getoption("--stand-in") else [])]
    kept = [item for item in items if not any(map(item.get_closest_marker, out))]
    config.hook.pytest_deselected(items=[item for item in items if any(map(item.get_closest_marker, out))])
    items[:] = kept


def pytest_generate_tests(metafunc):
    own = [name.strip() for mark in metafunc.definition.iter_markers("parametrize") for name in str(mark.args[0]).split(",")]
    if "device" in metafunc.fixturenames and "device" not in own:
        given = metafunc.config.getoption("--device")
        metafunc.parametrize("device", [given] if given else ["numpy", "cpu"], indirect=True)


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


@pytest.fixture(autouse=True)
def own_colors():
    """What a command was told about colours is for it alone."""
    yield
    os.environ.pop("LR_COLOR", None)


@pytest.fixture
def device(request, monkeypatch):
    """The device of every script that does not choose one itself."""
    monkeypatch.setenv("LR_DEVICE", request.param)
    return request.param
