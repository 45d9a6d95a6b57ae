"""The documentation says what is true: every example in it runs and shows what stands there."""

import html
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import documents
from tests.needs import needs

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(p for p in (ROOT / "docs").rglob("*.md") if "_generated" not in p.parts)]

pytestmark = pytest.mark.on_the_cpu


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_examples_of(page, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "LR_COLOR", "LR_DEVICE", "LR_THREADS", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    failed = documents.run_page(page, tmp_path, request.config.getoption("--update-golden"))
    assert not failed, "\n\n".join(failed)


def test_an_example_that_shows_something_else_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text('```lr\nprint 1 + 1\n```\n\n```text\n3\n```\n\n```python\nprint("a")\n```\n\n```lr\nprint 2  #> 3\n```\n')
    (tmp_path / "work").mkdir()
    assert len(documents.run_page(page, tmp_path / "work", False)) == 3


# ---------------------------------------------------------------- what is made from elsewhere
def script_of_the_docs(name, folder):

    specification = importlib.util.spec_from_file_location(name, ROOT / "docs" / folder / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_speeds_of_the_readme_are_those_measured():
    made = script_of_the_docs("speed_table", "_ext").in_readme()
    assert made == (ROOT / "README.md").read_text(encoding="utf-8"), "python docs/_ext/speed_table.py"


def test_pages_are_reached_and_say_nothing_of_this_place():
    """Every page is in a table of contents, and every link of a page to another file leads to one."""
    named = set()
    for page in (ROOT / "docs").rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        for contents in re.findall(r"```\{toctree\}\n([\s\S]*?)```", text):
            named |= {(page.parent / f"{line}.md").resolve() for line in contents.split() if not line.startswith(":")}
        for link in re.findall(r"\]\(([^)#:]+\.(?:md|svg|png))(?:#[^)]*)?\)", text):
            assert (page.parent / link).exists() or "_generated" in link or "_generated" in page.parts, f"{page}: {link}"
    written = {p.resolve() for p in (ROOT / "docs").rglob("*.md") if "_generated" not in p.parts} - {(ROOT / "docs" / "index.md").resolve()}
    assert written <= named


@pytest.mark.child_process
@pytest.mark.parametrize("name", ["readme", "prompt", "figure"])
def test_pictures_show_what_is_shown_today(name, tmp_path):
    """In a process of its own: a terminal is a fork, which JAX in this one would not like."""
    needs(importlib.util.find_spec("pyte") is not None, "pyte")
    subprocess.run([sys.executable, str(ROOT / "docs" / "pictures.py"), "--to", str(tmp_path), name], check=True, capture_output=True)
    for picture in tmp_path.glob("*.svg"):
        now, then = (re.search(r"<desc>([\s\S]*?)</desc>", path.read_text(encoding="utf-8"))[1]
                     for path in (picture, ROOT / "docs" / "images" / picture.name))
        assert documents.difference(html.unescape(now), html.unescape(then)) is None, "python docs/pictures.py"


@pytest.mark.child_process
def test_the_documentation_is_built_without_a_warning(tmp_path):
    needs(all(importlib.util.find_spec(name) for name in ("sphinx", "furo", "myst_parser", "sphinx_copybutton")), "lr-lang[docs]")
    built = subprocess.run([sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-E", "-b", "html", "-d",
                            str(tmp_path / "doctrees"), str(ROOT / "docs"), str(tmp_path / "html")], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert "linear_regression" in (tmp_path / "html" / "_generated" / "gallery" / "linear_regression.html").read_text(encoding="utf-8")
