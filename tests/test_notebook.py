"""Notebooks: the example and the cells below run in one kernel; what they show is looked at as data and as a page.

`--update-golden` stores the outputs of the example anew."""

from __future__ import annotations

import io
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dsl
from dsl.notebook.borrowed import Borrowed, free_names, is_data
from dsl.notebook.cell import Cell
from dsl.notebook.html import curve_svg, progress_html, value_html
from dsl.runtime.summary import summarize
from dsl.syntax.parse import parse

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "notebook.ipynb"
pytestmark = pytest.mark.filterwarnings("default")               # those of Jupyter's packages are not ours

CELLS = {
    "python": """import numpy as np, pandas as pd, os, signal, threading
a = np.arange(4.0)
b = [1, 2, 3]
k = 3
people = pd.DataFrame({"age": [36, 41, 85], "name": ["Ada", "<b>Alan</b>", "Grace"]})
text = "no data"
""",
    "fresh": "%%lr --fresh --seed 5 --device cpu\nshared w = 0.5\nlet t = k * w + sum(a)\nlet n = sum(b)\nt\nn",
    "anew": "k = 5\na = np.arange(5.0)\nb.append(10)",
    "follows": "%lr t",
    "in place": "%lr sum(b)",
    "shared": "a[0] = 100.0\n%lr t",
    "table": "%%lr\npeople\npeople.age * k",
    "array": "%%lr\nlet A = reshape(arange(1200), (40, 30)) / 7\nA\n[1.0, nan, inf]\nones(2, 2, 2)\n(1, [2, 3])\ntrue",
    "out": "%%lr -o w,A --out t\nshow t",
    "out here": "type(w).__name__, A.shape, float(t)",
    "handle": "lr['w'] = 2.0\nlr.eval('t'), lr",
    "unknown": "%lr text + 1",
    "syntax": "%%lr\nlet q = w @ <i>",
    "after": "%lr w",
    "part": "%%lr\nlet z = 1\nlet y = zz",
    "nothing of it": "'z' in lr",
    "python error": "def deeper():\n    lr.function([], 't')(1)\ndeeper()",
    "options": "%%lr --device numpy\nw",
    "wrong option": "%%lr --nonsense\nw",
    "other": "%%lr --name other --precision float32\nshared w = 7\nw",
    "both": "other['w'], lr['w']",
    "first again": "y = %lr --name lr w\ny",
    "plot": "%%lr --name lr\nplot hist(a) title \"a < b\" to \"plot.png\"\nplot line(a)",
    "command": "%%lr\n:type A\n?sum",
    "training": "%%lr\ncost C = sqr(w - 1)\nminimize C wrt w using sgd(rate = 0.001)\ntrain 30000 epochs:\n  every 10000 epochs: print C",
    "from python": "seen = []\nr = lr.train(steps=4, on_step=lambda step, metrics: seen.append((step, metrics['C'] >= 0)))\nprint(seen)\nr",
    "later": "threading.Timer(0.4, lambda: os.kill(os.getpid(), signal.SIGINT)).start()",
    "interrupted": "%%lr\nshared v = 0.0\ncost E = sqr(v - normal())\nminimize E wrt v using sgd(rate = 0.01)\ntrain 1000000000 epochs",
    "diverges": "%%lr\nlet big = exp(1000 * w + 1000)\ncost D = big\nminimize D wrt w using sgd(rate = 1e300)\ntrain 3 steps",
    "in the end": "%lr w >= 0",
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The example's cells, executed, and the outputs of the cells above by name."""
    nbformat, client = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    folder = tmp_path_factory.mktemp("notebook")
    example = nbformat.read(EXAMPLE, 4)
    whole = nbformat.read(EXAMPLE, 4)
    whole.cells += [nbformat.v4.new_code_cell(source) for source in CELLS.values()]
    client.NotebookClient(whole, timeout=60, allow_errors=True, resources={"metadata": {"path": str(folder)}}).execute()
    count = len(example.cells)
    outputs = {name: cell.outputs for name, cell in zip(CELLS, whole.cells[count:], strict=True)}
    return whole, whole.cells[:count], outputs, folder


def texts(outputs, kind="text/plain"):
    return [o["data"][kind] for o in outputs if "data" in o and kind in o["data"]]


def printed(outputs):
    return "".join(o["text"] for o in outputs if o["output_type"] == "stream")


def problem(outputs):
    (found,) = (o for o in outputs if o["output_type"] == "error")
    return found


def shown(outputs):
    """What a cell shows, without times, pictures and the last digits."""
    found = []
    for output in outputs:
        parts = {"text": output.get("text", "")} if "text" in output else dict(output.get("data", {}))
        parts |= {"error": "\n".join(output["traceback"])} if "traceback" in output else {}
        for kind, text in sorted(parts.items()):
            if kind.startswith("image/"):
                found.append((kind, "picture"))
                continue
            text = re.sub(r"<svg.*?</svg>", "", text, flags=re.S)
            text = re.sub(r"seconds=[\d.e-]+", "seconds=0.0", text)
            text = re.sub(r"in [\d.]+ m?s( \([\d.,]+ steps/s\))?", "in no time", text)
            found.append((kind, re.sub(r"\d+\.\d{4,}", lambda number: f"{float(number[0]):.4g}", text)))
    return found


@pytest.mark.child_process
class TestInAKernel:
    def test_the_example_shows_what_is_stored_in_it(self, ran, request):
        import nbformat

        _, cells, _, _ = ran
        if request.config.getoption("--update-golden"):
            stored = nbformat.read(EXAMPLE, 4)
            for old, new in zip(stored.cells, cells, strict=True):
                if old.cell_type == "code":
                    old.outputs, old.execution_count = new.outputs, new.execution_count
                    old.metadata.pop("execution", None)
            nbformat.write(stored, EXAMPLE)
        stored = nbformat.read(EXAMPLE, 4)
        for old, new in zip(stored.cells, cells, strict=True):
            if old.cell_type == "code":
                assert shown(old.outputs) == shown(new.outputs), old.source
                failed = any(o.output_type == "error" for o in new.outputs)
                assert failed == ("raises-exception" in old.metadata.get("tags", [])), old.source

    def test_python_names_are_data(self, ran):
        _, _, out, _ = ran
        assert texts(out["fresh"]) == ["7.5", "6"]
        assert texts(out["follows"])[-1] == "np.float64(12.5)"               # 5 * 0.5 + 10
        assert "redefined: t" in texts(out["follows"])
        assert texts(out["in place"])[-1] == "np.int64(16)"
        assert texts(out["shared"])[-1] == "np.float64(112.5)"               # taken as it is, not copied

    def test_tables(self, ran):
        _, _, out, _ = ran
        table, column = texts(out["table"], "text/html")
        assert "table of 3 rows, 2 columns" in table and "&lt;b&gt;Alan&lt;/b&gt;" in table and "<b>Alan" not in table
        assert "180" in column and "int64 [3]" in column

    def test_arrays(self, ran):
        _, _, out, _ = ran
        corner, bad, cube, pair, truth = texts(out["array"], "text/html")
        assert "float64 [40, 30]" in corner and "min 0.0 mean 85.64 max 171.3" in corner and corner.count("<tr>") == 10
        assert ">39<" in corner and ">29<" in corner and ">20<" not in corner and "⋮" in corner
        assert bad.count(">nan</span>") == bad.count(">inf</span>") == 1 and "1 nan</span>" in bad
        assert "[1, :, :]" in cube and "[1]</code>" in pair and "true" in truth

    def test_values_for_python(self, ran):
        _, _, out, _ = ran
        assert texts(out["out here"]) == ["('float64', (40, 30), 112.5)"]
        assert "(5 * w)" in printed(out["out"]) or "k * w" in printed(out["out"])
        (handle,) = texts(out["handle"])
        assert handle.startswith("(array(120.), <Model %%lr: ")
        assert "array(7., dtype=float32), array(2.)" in texts(out["both"])[0] and texts(out["first again"]) == ["np.float64(2.0)"]

    def test_errors_are_diagnostics(self, ran):
        _, _, out, _ = ran
        found = problem(out["unknown"])
        assert found["ename"] == "LrError" and "Python's `text` is a str" in found["evalue"] and "Traceback" not in str(found["traceback"])
        assert any("\x1b[1;31merror[E0301]" in line for line in found["traceback"])
        (number,) = {c.execution_count for c in ran[0].cells if c.source == CELLS["syntax"]}
        assert f"<cell {number}>:1:" in problem(out["syntax"])["evalue"]
        assert texts(out["after"]) == ["np.float64(2.0)"]
        assert "E0301" in problem(out["part"])["evalue"] and texts(out["nothing of it"]) == ["False"]
        lines = problem(out["python error"])["traceback"]
        assert any("line 3, in <module>: deeper()" in line for line in lines)
        assert any("line 2, in deeper: lr.function" in line for line in lines)
        assert "--fresh" in problem(out["options"])["evalue"] and "--nonsense" in problem(out["wrong option"])["evalue"]

    def test_plots(self, ran):
        _, _, out, folder = ran
        from base64 import b64decode

        for picture in texts(out["plot"], "image/png"):
            assert b64decode(picture).startswith(b"\x89PNG")
        assert len(texts(out["plot"], "image/png")) == 2 and (folder / "plot.png").read_bytes().startswith(b"\x89PNG")
        assert texts(out["plot"]) == ["plot: a < b", "plot: a"]

    def test_commands(self, ran):
        _, _, out, _ = ran
        assert "float64[40, 30]" in printed(out["command"]) and "sum(" in printed(out["command"])

    def test_trainings(self, ran):
        _, _, out, _ = ran
        (line,) = texts(out["training"])
        assert line.startswith("trained 30000 epochs, 30000 steps in ") and len(printed(out["training"]).split()) == 3
        assert "[(1, True), (2, True), (3, True), (4, True)]" in printed(out["from python"])
        assert "trained " in texts(out["from python"], "text/html")[-1]
        stopped = problem(out["interrupted"])
        assert stopped["ename"] == "Interrupted" and "E0721" in stopped["evalue"]
        assert any(text.startswith("stopped after ") for text in texts(out["interrupted"])) and "goes on from there" in stopped["evalue"]
        assert "<svg" in texts(out["interrupted"], "text/html")[0]
        assert problem(out["diverges"])["ename"] == "Diverged" and texts(out["in the end"]) == ["np.True_"]

    def test_the_page(self, ran):
        """What nbconvert makes of it: errors in colour, figures, and nothing of the user's as HTML."""
        exporter = pytest.importorskip("nbconvert").HTMLExporter(exclude_input_prompt=True)
        page, _ = exporter.from_notebook_node(ran[0])
        assert page.count("data:image/png;base64") >= 3
        assert re.search(r'ansi-red[\w -]*">error\[E0301\]', page)
        assert "<b>Alan</b>" not in page and "&lt;b&gt;Alan&lt;/b&gt;" in page
        assert "<svg" in page and "<table>" in page


# ---------------------------------------------------------------- in this process
@pytest.fixture
def shell():
    pytest.importorskip("IPython")
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.io import capture_output

    saved = sys.displayhook, sys.excepthook
    InteractiveShell.clear_instance()
    made = InteractiveShell.instance()

    def run(text):
        with capture_output() as caught:
            result = made.run_cell(text)
        return result, caught.stderr + caught.stdout

    run("%load_ext dsl\nimport numpy as np\nages = np.ones(3)")
    made.run = run
    yield made
    InteractiveShell.clear_instance()
    sys.displayhook, sys.excepthook = saved


def test_in_a_terminal_it_is_text(shell):
    result, out = shell.run("%%lr\nshared w = 0.5\nages * 2\nw")
    assert result.success and "float64 [3]" in out and "<" not in out
    result, out = shell.run("x = %lr w + 1\nx")
    assert result.result == 1.5
    result, out = shell.run("%lr ww")
    assert isinstance(result.error_in_exec, dsl.LrError) and "no name `ww`" in out and "Traceback" not in out
    assert shell.user_ns["lr"]["w"] == 0.5


def test_completion(shell):
    from IPython.core.completer import provisionalcompleter

    shell.run("%%lr\nshared weights = 1.0\nages + 1")

    def completed(code):
        with provisionalcompleter():
            return {c.text: (c.start, c.end) for c in shell.Completer.completions(code, len(code))}

    assert completed("%%lr --seed 1\nlet y = wei")["weights"] == (22, 25)
    assert "softmax" in completed("%%lr\nlet y = 2\nlet z = softm") and "softmax" in completed("y = %lr softm")
    assert completed("%%lr\n\\alp") == {"α": (5, 9)}
    assert "linspace" in completed("np.lin") and "weights" not in completed("wei")


def test_a_name_that_is_taken_stays_pythons(shell):
    shell.run("lr = 3")
    shell.run("%%lr --name other\nshared v = 1")
    result, _ = shell.run("lr, other['v'], (lr == 3)")
    assert result.result[0] == 3 and result.result[1] == 1.0


def test_followers_that_do_not_fit_any_more(shell):
    shell.run("a = np.ones(3); b = np.ones(3)\n")
    shell.run("%%lr\nlet s = sum(a * b)\ns")
    shell.run("a = np.ones(4)")
    result, out = shell.run("%lr s")
    assert isinstance(result.error_in_exec, dsl.LrError) and "E0202" in out and "`a` changed" in out
    shell.run("b = np.ones(4) * 2")
    assert shell.run("%lr s")[0].result == 8.0                   # both at once
    shell.run("a = np.ones(5)\nb = np.ones(5) * 3")
    assert shell.run("%lr s")[0].result == 15.0


def test_a_variable_that_is_no_data_any_more(shell):
    shell.run("%%lr\nsum(ages)")
    shell.run("ages = 'fifty'")
    result, out = shell.run("%%lr\nsum(ages)")
    assert result.success and "Python's `ages` is a str now" in out and out.endswith("3.0\n")
    assert "Python's" not in shell.run("%%lr\nlet other = 1")[1] and "Python's" not in shell.run("del ages\n%lr sum(ages)")[1]


@pytest.mark.parametrize("command", [":help", ":vars", "?sum", ":type ages", ":type ages  \n\n", ":HELP"])
def test_a_command_by_itself(shell, command):
    """A cell ends in a line break, however it was typed."""
    shell.run("%%lr\nages + 1")
    result, out = shell.run(f"%%lr\n{command}\n")
    assert result.success == (command != ":HELP") and ("no command `:HELP`" in out) == (command == ":HELP")


@pytest.mark.parametrize("options", ["--name 1x", "--name '<b>'", "--name for", "--seed x", "--nonsense", "--name '"])
def test_wrong_options(shell, options):
    before = set(shell.user_ns)
    result, out = shell.run(f"%%lr {options}\nlet a = 1")
    assert isinstance(result.error_in_exec, dsl.LrError) and result.error_in_exec.code == "E0902" and "argparse" not in out
    assert not (set(shell.user_ns) - before - {"_i", "_ii", "_iii", *[f"_i{n}" for n in range(9)]})


def test_an_interruption_outside_a_training(shell, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    shell.run("%%lr\nlet kept = 1")
    monkeypatch.setattr(Cell, "statements", interrupted)
    result, out = shell.run("%%lr\nlet kept = 2")
    assert isinstance(result.error_in_exec, KeyboardInterrupt) and "nothing has changed" in out and "dsl" not in out and "line" not in out
    monkeypatch.undo()
    assert shell.run("%lr kept")[0].result == 1.0


# ---------------------------------------------------------------- parts
@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("let z = a * w + a", {"a", "w"}),
        ("def f(x, y = k) = x * y + c", {"k", "c"}),
        ("let s = scan(v = v0 for t in ts: v + t * q)", {"v0", "ts", "q"}),
        ("let s = iterate(v = v0 while v < m max 100: v * 2)", {"v0", "m"}),
        ("print C with X = A", {"C", "A"}),
        ("train 3 epochs over X = A, Y = B:\n  every 2 epochs: print C", {"A", "B", "C"}),
        ("def f(x):\n  let u = x + g\n  return u", {"g"}),
        ("t.age", {"t"}),
        ("data b = linspace(0, 1, num)", {"num", "linspace"}),
    ],
)
def test_free_names(text, names):
    script, problems = parse(dsl.errors.Source("a", text))
    assert not problems
    found = set(free_names(script.statements[0]))
    assert found - {"linspace"} == names - {"linspace"}


def test_what_is_data():
    for value in (1, 2.5, True, np.float32(1), np.ones(3), [1, 2], [[1.0], [2]], pd.Series([1]), pd.DataFrame({"a": [1]})):
        assert is_data(value), value
    for value in ("a", b"a", None, {}, {1}, print, np, [], ["a"], np.array(["a"]), float, [1, None]):
        assert not is_data(value), value


def test_objects_that_go_are_not_held():
    session = dsl.Session(interactive=True, quiet=True)
    names = {"a": np.ones(3)}
    borrowed = Borrowed(session, names)
    borrowed.bind(["a"])
    assert len(borrowed.objects) == 1
    names["a"] = np.ones(3)
    borrowed.renew()
    assert [value is names["a"] for value in borrowed.objects.values()] == [True]


def test_html_is_escaped_and_whole():
    from html.parser import HTMLParser

    class Balanced(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open = []

        def handle_starttag(self, tag, attrs):
            if tag not in ("polyline", "circle"):
                self.open.append(tag)

        def handle_endtag(self, tag):
            if tag not in ("polyline", "circle"):
                assert self.open.pop() == tag

    texts = np.array(["<script>x</script>", "&", "a" * 200], object)
    numbers = [np.ones((50, 50)), np.ones((3, 4, 5)), np.float64(np.nan), np.ones(0), np.array([True, False])]
    for value in [*numbers, texts, (np.ones(2), np.int64(1))]:
        page = value_html("<b>", summarize(value, 4))
        parser = Balanced()
        parser.feed(page)
        assert not parser.open and "<script>" not in page and "<b>" not in page.replace("<b>nan", "").replace("= <b>", "")
    parser = Balanced()
    parser.feed(progress_html("<x>", 0.5, [[1, 2, 3], [3.0, np.nan, 1e-9, 5.0]]))
    assert not parser.open


def test_small_curves():
    assert curve_svg([]) == curve_svg([[1.0, 2.0]]) == curve_svg([[np.nan] * 5]) == ""
    falling = [tuple(map(float, point.split(","))) for point in re.search(r'points="([^"]*)"', curve_svg([[100.0, 10.0, 1.0]]))[1].split()]
    assert falling[1][1] == pytest.approx((falling[0][1] + falling[2][1]) / 2, abs=0.1)       # decades are even steps
    flat = re.search(r'points="([^"]*)"', curve_svg([[1.0, 1.0 + 1e-9, 1.0]]))[1]
    assert len({point.split(",")[1] for point in flat.split()}) == 1


def test_streams_are_those_of_the_moment():

    cell = Cell({}, False, lambda: 1)
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        cell.cell("print 1 + 1\n2 + 3")
    assert out.getvalue() == "2\n5\n"
