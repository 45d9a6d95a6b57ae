"""What a type checker says of programs that use the package."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import dsl

PROGRAM = '''
from pathlib import Path
import numpy as np
import dsl

m = dsl.compile("scalar X", device="cpu", precision="float32", seed=1, set={"k": 2}, data={"A": [1.0, 2.0], "B": np.ones(3)})
reveal_type(m)                                            # Model
reveal_type(dsl.load(Path("a.lr"), out="there"))          # Model
reveal_type(dsl.run("a.lr", quiet=False))                 # Model
reveal_type(m["w"])                                       # Array
m["w"] = 0.0
m["w"] = [1, 2]
reveal_type(m.function(["X"], "C"))                       # Function[Array]
reveal_type(m.function(["X"], ["C", "gw"]))               # Function[tuple[Array, ...]]
reveal_type(m.function(["X"], ["C"])(np.ones(3), 2.0))    # tuple[Array, ...]
f = m.function(("X", "Y"), "C")
reveal_type(f(1.0, [2.0]))                                # Array
reveal_type(f(1.0, 2.0).sum())                            # Any
reveal_type(m.eval("C", X=3.0))                           # Array
reveal_type(m.step(X=1.0))                                # float | dict[str, float] | None
report = m.train(epochs=3, batch=32, shuffle=True, X=np.ones(3), Y=[1.0, 2.0, 3.0])
reveal_type(report)                                       # Report
reveal_type(report.cost)                                  # float | dict[str, float] | None
reveal_type(report.costs)                                 # dict[str, float]
reveal_type(report.steps)                                 # int
try:
    m.run()
except (dsl.Diverged, dsl.Interrupted) as stopped:
    reveal_type(stopped.line)                             # int | None
except dsl.LrError as problem:
    reveal_type(problem.diagnostics)                      # tuple[Diagnostic, ...]
    reveal_type(problem.code)                             # str
    reveal_type(problem.hint)                             # str | None
reveal_type(dsl.Session())                                # Session
reveal_type(dsl.__version__)                              # str


def watch(step: int, metrics: dict[str, float]) -> None:
    print(step, metrics["C"])


m.train(steps=10, on_step=watch, every=5)
m.train(epochs=10, on_epoch=lambda epoch, metrics: metrics["C"] < 1)
'''
WRONG = '''
import dsl

m = dsl.compile("scalar X", device="tpu")                 # error: arg-type
m = dsl.compile(3)                                        # error: arg-type
m.train(epochs="many")                                    # error: arg-type
m.function(["X"], 3)                                      # error: call-overload
m["w"] = object()                                         # error: assignment
dsl.load("a.lr", nonsense=1)                              # error: call-arg
m.train(epochs=1, on_step=len)                            # error: arg-type
dsl.nothing                                               # error: attr-defined
'''
SHORT = [
    (r"numpy\.ndarray\[Any, numpy\.dtype\[Any\]\]", "Array"),
    (r"numpy\.", ""),
    (r"builtins\.", ""),
    (r"dsl\.[\w.]+\.", ""),
    (r"ndarray\[Any, dtype\[Any\]\]", "Array"),
]


def checked(program: str, folder: Path) -> list[tuple[int, str]]:
    """Line and message of everything that mypy says."""
    (folder / "program.py").write_text(program)
    cache = Path(dsl.__file__).parent.parent / ".mypy_cache"
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir", str(cache / "users"), "--no-error-summary",
         "--hide-error-context", str(folder / "program.py")],
        capture_output=True, text=True, cwd=Path(dsl.__file__).parent.parent)  # fmt: skip
    found = re.findall(r"program\.py:(\d+): (?:note|error): (.*)", done.stdout)
    assert found or done.returncode == 0, done.stdout + done.stderr
    return [(int(line), message) for line, message in found]


@pytest.mark.child_process
@pytest.mark.slow
def test_what_a_checker_says(tmp_path):
    pytest.importorskip("mypy")
    lines = (PROGRAM + WRONG).split("\n")
    said: dict[int, str] = {}
    for line, message in checked(PROGRAM + WRONG, tmp_path):
        if "Revealed type" in message:
            kind = re.sub(r"^.*?[\"'](.*)[\"']$", r"\1", message)
            for pattern, word in SHORT:
                kind = re.sub(pattern, word, kind)
            said[line] = kind
        elif (code := re.search(r"\[([\w-]+)\]$", message)) and line not in said:
            said[line] = f"error: {code[1]}"
    wanted = {number: text.partition("# ")[2].strip() for number, text in enumerate(lines, 1) if "# " in text}
    assert said == wanted


def test_what_is_exported():
    assert set(dsl.__all__) >= {"Model", "Function", "Session", "Report", "LrError", "Diverged", "Interrupted", "Diagnostic"}
    for name in dsl.__all__:
        found = getattr(dsl, name)
        assert name == "__version__" or (found.__doc__ or "").strip(), name
    with pytest.raises(AttributeError):
        dsl.nothing  # noqa: B018


def test_a_model_in_words():
    m = dsl.compile("scalar X, Y\nshared w = 0.5, b = 0.0\ndata a = [1, 2]\nmodel p = X * w\ncost C = sqr(p - Y)", path="some.lr")
    assert repr(m) == "<Model some.lr: inputs X, Y; data a; shared w, b; model p; cost C>"
    assert repr(m.function(["X", "Y"], ["C", "p + 1"])) == "<Function (X, Y) -> (C, p + 1)>"
    assert repr(m.function("X", "p")) == "<Function (X) -> p>"
    html = m._repr_html_()
    assert "<code>w</code>" in html and "0.5" in html and "int64 [2]" in html
    assert repr(dsl.compile("")) == "<Model <string>>"


def test_an_error_in_html():
    with pytest.raises(dsl.LrError) as caught:
        dsl.compile("let a = 1 <b> 2\nlet c = x0\nlet d = c", path="<script>.lr")
    html = caught.value._repr_html_()
    assert "&lt;script&gt;.lr" in html and "<script>" not in html and html.count("<span") == html.count("</span>")
    text = re.sub(r"<[^>]+>", "", html)
    import html as entities

    assert entities.unescape(text) == str(caught.value)


def test_colours_are_read_on_white_and_on_black():
    from dsl.errors import HTML_COLORS

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    for color in HTML_COLORS.values():
        light = luminance(color)
        assert 1.05 / (light + 0.05) > 3.8 and (light + 0.05) / (luminance("#111111") + 0.05) > 3.8, color
