"""The wheel, built from the sdist, works on its own: installed in an empty environment, run far from the checkout.

The dependencies are lent by this environment. With LR_TEST_INSTALL=1 they are installed too, as a user would (it takes
about a minute and needs the package index).
"""

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
EXAMPLE = "linear_regression.lr"


def run(*command: object, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs a command with nothing of this environment in it but the PATH, with `cwd` as the home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LR_", "XDG_"))}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=kept | {"HOME": str(cwd)},
                          capture_output=True, text=True, timeout=300)  # fmt: skip
    assert not check or done.returncode == 0, f"{command} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist, and the wheel built from it."""
    if not (CHECKOUT / "pyproject.toml").exists():
        pytest.skip("needs a checkout")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, CHECKOUT, cwd=folder)
    return folder


def test_contents(built):
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    modules = {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "dsl").rglob("*.py")}
    library = {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "dsl/library").glob("*.lr")}
    assert modules | library | {"dsl/py.typed", "dsl/grammar/lr.lark"} <= in_wheel
    assert {"dsl", "lr_lang"} == {name.partition("/")[0].partition("-")[0] for name in in_wheel}
    assert {"grammar/lr.lark", f"examples/{EXAMPLE}", "examples/data/README.md", "LICENSE", "Makefile"} <= in_sdist


@pytest.mark.parametrize("dependencies", ["lent", "installed"])
def test_installed_wheel_runs_alone(built, tmp_path, dependencies):
    (wheel,) = built.glob("*.whl")
    if dependencies == "installed" and not os.environ.get("LR_TEST_INSTALL"):
        pytest.skip("LR_TEST_INSTALL is not set")
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    paths = sysconfig.get_paths("venv", {"base": str(tmp_path / "env")})
    scripts, site = Path(paths["scripts"]), Path(paths["purelib"])
    python = scripts / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, "install", "--quiet")
    if dependencies == "lent":
        run(*pip, "--no-deps", "--no-index", wheel, cwd=tmp_path)
        # A plain path: .pth files over there, this package's editable install among them, are not read.
        (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    else:
        run(*pip, f"lr-lang[plot] @ {wheel.as_uri()}", cwd=tmp_path)

    away = tmp_path / "away"
    away.mkdir()
    (away / EXAMPLE).write_bytes((CHECKOUT / "examples" / EXAMPLE).read_bytes())
    where = run(python, "-c", "import dsl; print(dsl.__file__)", cwd=away).stdout.strip()
    assert Path(where) == site / "dsl" / "__init__.py"

    for command in ([scripts / "lr"], [python, "-m", "dsl"]):
        output = run(*command, "run", EXAMPLE, cwd=away).stdout
        shown, values = output.splitlines()[:2]
        assert shown == "((X * w) + b)"
        assert re.fullmatch(r"\S+ \S+", values), output
        w, b = map(float, values.split())
        assert w == pytest.approx(2, abs=0.2) and b == pytest.approx(1, abs=0.1)
        assert (away / "fit.png").read_bytes().startswith(b"\x89PNG")
        (away / "fit.png").unlink()

    # The grammar was the wheel's: without it nothing runs.
    (site / "dsl" / "grammar" / "lr.lark").unlink()
    assert run(python, "-m", "dsl", "run", EXAMPLE, cwd=away, check=False).returncode != 0


def test_dependencies_are_declared():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = list(project["dependencies"])
    for extra in ("cuda12", "cuda13", "plot", "data", "notebook", "bench"):
        requirements += project["optional-dependencies"][extra]
    declared = {re.match(r"[\w-]+?(?=-cuda\d|[^\w-])", requirement)[0].lower() for requirement in requirements}
    imported = set()
    for path in (CHECKOUT / "dsl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add((node.module or "").partition(".")[0])
    assert {name.lower() for name in imported - sys.stdlib_module_names - {"dsl"}} <= declared
