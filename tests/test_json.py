"""What a machine reads: every form of JSON that `docs/reference/json.md` describes, and nothing but JSON on standard output."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import dsl
from dsl.cli import commands
from dsl.error_index import ENTRIES

PAGE = (Path(dsl.__file__).parent.parent / "docs/reference/json.md").read_text(encoding="utf-8")
SCRIPT = """let rate = 0.5
shared w = 1.0
cost C = sqr(w - 3)
minimize C wrt w using sgd(rate = rate)
train 2 epochs: every 1 epochs: print "C", C
print w, [1, 2] > 1, nan, (1, inf)
show C
assert w > 0, "positive"
plot line([1, 2]) to "a.svg"
save w to "w.csv"
save "m.safetensors"
load "m.safetensors"
test "later": assert false
"""


@pytest.fixture
def lr(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*arguments, input=None):
        done = CliRunner().invoke(commands, [str(a) for a in arguments], input=input, prog_name="lr")
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    return call


def events(done):
    found = [json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON")) for line in done.stdout.splitlines()]
    assert found[-1] == {"event": "end", "exit_code": done.exit_code}
    return found[:-1]


# ---------------------------------------------------------------- run
def test_events_of_a_run(lr, tmp_path):
    (tmp_path / "a.lr").write_text(SCRIPT)
    done = lr("run", "--json", "-q", "a.lr")
    assert (done.exit_code, done.stderr) == (0, "")
    found = events(done)
    assert all(event["file"] == "a.lr" for event in found)
    assert [(event["event"], event["line"]) for event in found] == [
        ("print", 5), ("print", 5), ("train", 5), ("print", 6), ("show", 7), ("assert", 8), ("plot", 9), ("save", 10), ("save", 11),
        ("load", 12)]
    first, _, train, printed, show, holds, plot, saved, state, _ = found
    assert first["text"] == "C 4.0" and first["values"] == ["C", 4.0]
    assert train["epochs"] == train["steps"] == 2 and train["costs"] == {"C": 0.0} and train["stopped"] is None and train["seconds"] > 0
    assert printed["values"] == [3.0, {"dtype": "bool", "shape": [2], "data": [False, True]}, "nan", [1, "inf"]]
    assert printed["text"] == lr("run", "-q", "-e", 'let w = 3\nprint w, [1, 2] > 1, nan, (1, inf)').stdout.rstrip("\n")
    assert (show["name"], show["dtype"], show["shape"], show["formula"]) == ("C", "float64", [], "sqr((w - 3))")
    assert holds["holds"] is True and holds["reason"] == "positive"
    assert (plot["path"], saved["path"], state["path"]) == ("a.svg", "w.csv", "m.safetensors") and (tmp_path / "w.csv").exists()


@pytest.mark.parametrize(("text", "code", "diagnostic"), [
    ("print x", 1, "E0301"), ("print (", 1, "E0101"), ('data t = csv("none.csv")', 2, "E0601"), ("assert 1 > 2", 1, "E0706"),
    ("shared w = 1.0\nupdate w <- log(-w)\ntrain 3 steps", 3, "E0720"), ("print 1", 0, None)])
def test_ends_as_without(lr, text, code, diagnostic):
    done = lr("run", "--json", "-q", "-e", text)
    found = [event for event in events(done) if event["event"] == "diagnostic"]
    assert done.exit_code == code == lr("run", "-q", "-e", text).exit_code and done.stderr == ""
    assert [event["code"] for event in found] == ([diagnostic] if diagnostic else [])
    assert lr("run", "--json", "-q", "none.lr").exit_code == 2 and events(lr("run", "--json", "none.lr"))[0]["code"] == "E0601"


def test_what_was_printed_before_a_failure_is_there(lr):
    found = events(lr("run", "--json", "-q", "-e", "print 1\nprint 2\nassert false\nprint 3"))
    assert [event["event"] for event in found] == ["print", "print", "diagnostic"]


def test_large_arrays_are_described(lr):
    small, large, text = events(lr("run", "--json", "-q", "-e", "print zeros((10, 10000))\nprint zeros(100001)\nprint \"é\\n\""))
    assert len(small["values"][0]["data"]) == 10 and small["values"][0]["shape"] == [10, 10000]
    assert large["values"] == [{"dtype": "float64", "shape": [100001], "data": None}] and text["values"] == ["é\n"]


def test_columns_of_text_and_integers(lr, tmp_path):
    (tmp_path / "t.csv").write_text("name,n\nada,1\nalan,2\n")
    text = 'data t = csv("t.csv")\nprint t.name\nprint t.n\nprint 9007199254740993'
    words, numbers, large = events(lr("run", "--json", "-q", "-e", text))
    assert words["values"] == [{"dtype": "text", "shape": [2], "data": ["ada", "alan"]}]
    assert numbers["values"][0]["dtype"] == "int64" and large["values"] == [9007199254740993]


def test_plots_without_a_file_are_text(lr):
    (plot,) = events(lr("run", "--json", "-q", "-e", "plot line([1, 2, 3])"))
    assert plot["event"] == "plot" and plot["path"] is None and len(plot["text"]) > 100


# ---------------------------------------------------------------- the other commands
def test_check(lr, tmp_path):
    (tmp_path / "a.lr").write_text("let a = 1\nlet 漢 = 2; print 漢, b")
    done = lr("check", "--json", "a.lr")
    assert done.stdout == lr("check", "--output-format", "json", "a.lr").stdout and done.exit_code == 1 and done.stderr == ""
    (found,) = json.loads(done.stdout)
    assert found["primary"]["line"] == 2 and (found["primary"]["column"], found["primary"]["end_column"]) == (21, 22)     # characters
    assert json.loads(lr("check", "--json", "-e", "let a = 1").stdout) == []


def test_show(lr, tmp_path):
    (tmp_path / "a.lr").write_text("matrix X[n, d]\nvector v[2 * n]\nshared w[d] = 0.0\ncost C = sum(sqr(X @ w))\nlet k = 3\n"
                                   "def f(x) = x + 1\nupdate w <- w - 1\ntrain 1 steps over X = ones((2, 2))\n")
    whole = json.loads(lr("show", "--json", "a.lr").stdout)
    rows = {row["name"]: row for row in whole["names"]}
    assert list(rows) == ["n", "d", "X", "v", "w", "C", "k"]
    assert rows["X"] == {"kind": "input", "name": "X", "dtype": "float64", "shape": ["n", "d"], "formula": None, "line": 1}
    assert rows["v"]["shape"] == ["2*n"] and rows["C"]["shape"] == [] and rows["C"]["formula"] == "sum(sqr((X @ w)))"
    assert whole["updates"] == [{"target": "w", "value": "(w - 1)", "group": None}]
    (one,) = json.loads(lr("show", "--json", "a.lr", "C", "--grad").stdout)["names"]
    assert one["grad"] == lr("show", "a.lr", "C", "--grad").stdout
    (function,) = json.loads(lr("show", "--json", "a.lr", "f").stdout)["names"]
    assert (function["kind"], function["formula"], function["dtype"]) == ("def", "def f(x) = x + 1", None)
    view = json.loads(lr("show", "--json", "a.lr", "--kernels").stdout)["view"]
    assert view["text"] == lr("show", "a.lr", "--kernels").stdout and "train 1 steps over X = ones((2, 2))" in view["programs"]
    assert json.loads(lr("show", "--json", "a.lr", "train", "--cost").stdout)["names"] == []
    graphs = json.loads(lr("show", "--json", "a.lr", "--graph").stdout)["names"]
    assert [row["name"] for row in graphs if "graph" in row] == ["C", "k"]
    for arguments, code, exit_code in ((["a.lr", "nothing"], "E0301", 1), (["-e", "let a = b"], "E0301", 1), (["none.lr"], "E0601", 2)):
        done = lr("show", "--json", *arguments)
        (problem,) = json.loads(done.stdout)["diagnostics"]
        assert (problem["code"], done.exit_code, done.stderr) == (code, exit_code, "")


def test_test(lr, tmp_path):
    (tmp_path / "ok.lr").write_text("print 1  #> 1")
    (tmp_path / "wrong.lr").write_text("print 1  #> 2")
    done = lr("test", "--json", ".")
    found = json.loads(done.stdout)
    assert done.exit_code == 1 and (found["passed"], found["failed"]) == (1, 1)
    ok, wrong = found["scripts"]
    assert ok == {"file": "ok.lr", "passed": True, "checks": 1, "diagnostics": []}
    assert wrong["diagnostics"][0]["code"] == "E0707" and wrong["diagnostics"][0]["primary"]["column"] == 13


def test_explain_and_doctor(lr):
    every = json.loads(lr("explain", "--list", "--json").stdout)
    assert [entry["code"] for entry in every] == list(ENTRIES)
    one = json.loads(lr("explain", "e0201", "--json").stdout)
    assert one in every and one["example"] and one["fix"] and set(one) == {"code", "title", "text", "kind", "example", "fix", "files"}
    assert lr("explain", "--list").stdout.splitlines()[0] == "E0101  a bracket is never closed"
    assert lr("explain", "--list", "E0201").exit_code == 2 and lr("explain").exit_code == 2
    assert json.loads(lr("doctor", "--json").stdout)["devices"]["numpy"]["works"] is True


# ---------------------------------------------------------------- the page
def test_the_page_names_every_field(lr, tmp_path):
    (tmp_path / "a.lr").write_text(SCRIPT)

    def names(value):
        match value:
            case dict():
                return set(value).union(*map(names, value.values()))
            case list():
                return set().union(*map(names, value))
            case _:
                return set()
    found = names(events(lr("run", "--json", "a.lr")) + events(lr("run", "--json", "-e", "print x"))) - {"C"}
    found |= names(json.loads(lr("show", "--json", "a.lr").stdout)) | names(json.loads(lr("test", "--json", "a.lr").stdout)) - {"C"}
    found |= names(json.loads(lr("explain", "E0201", "--json").stdout))
    documented = set(re.findall(r'`([a-z_]+)`|"([a-z_]+)":', PAGE))
    documented = {name for pair in documented for name in pair}
    assert found <= documented, sorted(found - documented)
    assert {event["event"] for event in events(lr("run", "--json", "a.lr"))} <= documented
