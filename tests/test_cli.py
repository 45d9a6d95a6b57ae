"""The command line: exit codes, streams, options, and no traceback whatever is typed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from click import Context
from click.exceptions import Exit
from click.testing import CliRunner

import dsl
from dsl.cli import commands
from dsl.loops import legalise

GOOD = "shared w = 0.0\ncost C = sqr(w - 3)\nminimize C wrt w using sgd(rate = 0.25)\ntrain 5 epochs\nprint w  #> 2.90625\n"


@pytest.fixture
def lr(tmp_path, monkeypatch):
    """Runs the program in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, input=None):
        done = CliRunner().invoke(commands, [str(a) for a in arguments], input=input, prog_name="lr")
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert "Traceback" not in done.output
        return done

    return call


def process(*arguments, **options):
    return subprocess.run([sys.executable, "-m", "dsl", *map(str, arguments)], capture_output=True, text=True, timeout=120, **options)


# ---------------------------------------------------------------- run
def test_run_file(lr, tmp_path):
    (tmp_path / "a.lr").write_text(GOOD)
    done = lr("run", "a.lr")
    assert (done.exit_code, done.stdout) == (0, "2.90625\n")
    assert done.stderr.startswith("trained 5 epochs, 5 steps in ") and done.stderr.count("\n") == 1


def test_run_from_standard_input_and_code(lr):
    assert lr("run", "-", input="print 1 + 1").stdout == "2\n"
    assert lr("run", "-e", "print 1 + 1; print 3").stdout == "2\n3\n"
    assert lr("run", "-e", "").exit_code == 0


def test_run_quiet(lr):
    assert lr("run", "-q", "-e", GOOD).stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run"], 2),
        (["run", "none.lr"], 2),
        (["run", "."], 2),
        (["run", "-e", "print 1", "a.lr"], 2),
        (["run", "-e"], 2),
        (["run", "-e", "print x"], 1),
        (["run", "-e", "assert 1 > 2"], 1),
        (["run", "-e", 'data t = csv("none.csv")'], 2),
        (["run", "-e", "shared w = 1.0; update w <- log(-w); train 3 steps"], 3),
        (["run", "-e", "print 1 // 0"], 1),
        (["run", "-e", "print [1, 2][5]"], 1),
        (["run", "--seed", "-1", "-e", "print 1"], 2),
        (["run", "--seed", "x", "-e", "print 1"], 2),
        (["run", "--seed", "9" * 40, "-e", "print normal(2)"], None),
        (["run", "--precision", "float16", "-e", "print 1"], 2),
        (["run", "--device", "tpu", "-e", "print 1"], 2),
        (["run", "--device", "cuda", "-e", "print 1"], 1),
        (["run", "--device", "cpu", "-e", "print 1"], 0),
        (["run", "--device", "numpy", "-e", "print 1"], 0),
        (["run", "--unknown", "-e", "print 1"], 2),
        (["run", "-e", "train 99999999999999999999999 epochs"], 1),
        (["run", "-e", "let a = 10 ** 400"], None),
        (["run", "-e", "data z = zeros(10 ** 15)\nprint sum(z)"], 1),
        (["run", "-e", "print zeros(99999999999999999999)"], 1),
    ],
)
def test_exit_codes(lr, arguments, code):
    done = lr(*arguments)
    assert done.exit_code != 101, done.stderr
    assert code is None or done.exit_code == code, done.output
    if done.exit_code:
        assert done.stdout == "" and done.stderr


@pytest.mark.parametrize(
    ("given", "out"),
    [
        (["--set", "a=5"], "5.0\n"),
        (["--set", "a = 5"], "5.0\n"),
        (["--set", "a=-1e-3"], "-0.001\n"),
        (["--set", "a=1", "--set", "a=2"], "2.0\n"),
        ([], "1.0\n"),
    ],
)
def test_set(lr, given, out):
    assert lr("run", *given, "-e", "let a = 1\nprint a").stdout == out


@pytest.mark.parametrize("given", ["a", "=5", "a=", "b=1", "a=x y", "a=1;print 2", "a=[1", "a=\x00", "é=1", "a=b", "a==1", "w=2"])
def test_wrong_set(lr, given):
    done = lr("run", "--set", given, "-e", "let a = 1\nshared w = 1.0\nprint a")
    assert done.exit_code == 2 and done.stdout == "" and done.stderr


def test_wrong_set_says_what_is_meant(lr):
    assert "`rate`" in lr("run", "--set", "rat=1", "-e", "let rate = 1\nprint rate").stderr


def test_header_overrides(lr):
    text = "precision float64; seed 4\nprint uniform()"
    assert (
        lr("run", "-e", text).stdout
        == lr("run", "--seed", "4", "-e", "print uniform()").stdout
        != lr("run", "--seed", "5", "-e", text).stdout
    )
    assert lr("run", "--precision", "float32", "-e", "print 1 / 3").stdout == "0.33333334\n"


def test_out(lr, tmp_path):
    assert lr("run", "--out", "deep/er", "-e", 'let v = [1, 2]\nsave v to "v.csv"').exit_code == 0
    assert (tmp_path / "deep/er/v.csv").read_text() == "v\n1\n2\n"
    (tmp_path / "file").write_text("")
    done = lr("run", "--out", "file", "-e", 'let v = [1, 2]\nsave v to "v.csv"')
    assert done.exit_code == 2 and "cannot write" in done.stderr


def test_reads_are_relative_to_the_script(lr, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/n.csv").write_text("v\n1\n")
    (tmp_path / "sub/a.lr").write_text('data t = csv("n.csv")\nprint t.v')
    assert lr("run", "sub/a.lr").stdout == "[1]\n"


def test_files_that_are_no_scripts(lr, tmp_path):
    (tmp_path / "latin.lr").write_bytes(b"# caf\xe9\nprint 1")
    (tmp_path / "zero.lr").write_bytes(b"print 1\x00\n")
    (tmp_path / "empty.lr").write_bytes(b"")
    (tmp_path / "bom.lr").write_bytes("﻿print 1".encode())
    (tmp_path / "crlf.lr").write_bytes(b"print 1\r\nprint 2\r\n")
    (tmp_path / "binary.lr").write_bytes(bytes(range(256)))
    codes = {name: lr("run", f"{name}.lr").exit_code for name in ("latin", "zero", "empty", "bom", "crlf", "binary")}
    assert codes == {"latin": 2, "zero": 1, "empty": 0, "bom": 0, "crlf": 0, "binary": 2}
    assert lr("check", "latin.lr").exit_code == 2 and lr("show", "latin.lr").exit_code == 2
    assert lr("run", "-", input=b"\xff\xfe").exit_code == 2


def test_unreadable_file(lr, tmp_path, monkeypatch):
    from pathlib import Path

    (tmp_path / "a.lr").write_text("print 1")
    monkeypatch.setattr(Path, "open", lambda *a, **k: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    done = lr("run", "a.lr")
    assert done.exit_code == 2 and "ermission denied" in done.stderr


def test_streams_are_apart(tmp_path):
    done = process("run", "-e", GOOD + "print undefined")
    assert done.returncode == 1 and done.stdout == "" and "error[E0301]" in done.stderr
    done = process("run", "-e", GOOD + 'assert w < 0, "negative"', cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == "2.90625\n" and "negative" in done.stderr


def test_internal_errors(lr, monkeypatch):
    def broken(*_):
        raise RuntimeError("a defect")

    monkeypatch.setattr(dsl.Session, "run", broken)
    done = lr("run", "-e", "print 1")
    assert done.exit_code == 101 and "error[E0999]" in done.stderr and "a defect" in done.stderr


def test_deep_nesting_is_no_internal_error(lr):
    for text in (
        "print " + "(" * 3000 + "1" + ")" * 3000,
        "print " + "-" * 3000 + "1",
        "print " + "1 + " * 3000 + "1",
        "print " + "[" * 3000 + "]" * 3000,
    ):
        assert lr("run", "-e", text).exit_code in (0, 1)


def test_broken_pipe():
    done = subprocess.run(
        f"{sys.executable} -m dsl run -e 'print arange(1000000) * 1.5; print 1; print zeros((900, 19))' | head -c 1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""


@pytest.mark.child_process
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_results_that_cannot_be_written():
    for words in ("run -e 'print 1'", "run --json -e 'print 1'", "explain E0101", "explain --list", "show -e 'let a = 1'", "--help",
                  "repl"):
        done = subprocess.run(f"echo 'print 1' | {sys.executable} -m dsl {words} > /dev/full", shell=True, capture_output=True, text=True,
                              timeout=60)
        assert done.returncode == 2 and done.stderr.startswith("error[E0609]") and done.stderr.count("\n") == 1, (words, done)
    for words, code in (("run -e 'print 1'", 0), ("run -e 'print x'", 1), ("check --json -e 'print x'", 1)):
        done = subprocess.run(f"{sys.executable} -m dsl {words} >&- 2>&-", shell=True, timeout=60)
        assert done.returncode == code
    for words in ("repl", "run -"):
        done = subprocess.run(f"{sys.executable} -m dsl {words} <&-", shell=True, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.child_process
def test_characters_that_the_terminal_lacks():
    plain = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for words, input, expected in ((["run", "-e", 'print "é"'], "", b"\\xe9\n"), (["fmt", "-"], 'print  "é"', 'print "é"\n'.encode()),
                                   (["check", "--json", "-e", 'print "é"'], "", b"[]\n"), (["run", "--json", "-e", 'print "é"'], "", None)):
        done = subprocess.run([sys.executable, "-m", "dsl", *words], input=input.encode(), capture_output=True, timeout=60, env=plain)
        assert (done.returncode, done.stderr) == (0, b"") and (done.stdout == expected if expected else "é".encode() in done.stdout)


@pytest.mark.child_process
@pytest.mark.parametrize("words", ["explain --list", "show -e 'let a = [1, 2]' --kernels", "run --json -e 'print arange(90000)'", "--help"])
def test_readers_that_leave(words):
    done = subprocess.run(f"{sys.executable} -m dsl {words} | head -c 1", shell=True, capture_output=True, text=True, timeout=60)
    assert (len(done.stdout), done.stderr) == (1, "")


# Exit codes, as the language says: 0 ok, 1 the script is wrong, 2 usage or file trouble, 3 diverged; 101 and 130 have tests below.
EXITS = {
    0: ["run ok.lr", "check ok.lr", "show ok.lr", "test ok.lr", "fmt ok.lr", "fmt --check ok.lr", "explain E0101", "doctor",
        "completion bash", "--help", "--version", "check absent.lr"],
    1: ["run wrong.lr", "check wrong.lr", "show wrong.lr", "test wrong.lr", "test absent.lr", "fmt --check ugly.lr", "fmt open.lr",
        "test no.lr", "run fails.lr", "show ok.lr nothing"],
    2: ["run", "run none.lr", "check none.lr", "show none.lr", "test void", "fmt none.lr", "fmt", "test", "run void", "explain E9999",
        "explain", "completion tcsh", "run --what ok.lr", "nothing", "run absent.lr", "run ok.lr --set b=1", "run ok.lr --device x",
        "run t.csv", "test t.csv", "fmt t.csv", "bench nothing", "run --out ok.lr saves.lr"],
    3: ["run diverges.lr", "run --json diverges.lr"],
}


@pytest.mark.parametrize(("code", "words"), [(code, words) for code, rows in EXITS.items() for words in rows])
def test_table_of_exit_codes(lr, tmp_path, code, words):
    files = {"ok.lr": "let a = 1\n", "wrong.lr": "print x\n", "absent.lr": 'data t = csv("none.csv")\n',
             "ugly.lr": "let a=1", "open.lr": "print (", "no.lr": "print 1  #> 2\n", "fails.lr": "assert 1 > 2\n",
             "saves.lr": 'save [1, 2] to "v.csv"\n', "t.csv": "a\n1\n",
             "diverges.lr": "shared w = 1.0\nupdate w <- log(-w)\ntrain 3 steps\n"}
    (tmp_path / "void").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    done = lr(*words.split())
    assert done.exit_code == code, done.output


@pytest.mark.parametrize(("given", "said"), [("m.py", "it is Python"), ("t.csv", "it is a table"), ("n.ipynb", "it is a notebook"),
                                              ("s.safetensors", "saved state"), ("large.lr", "larger than any script")])
def test_what_is_no_script_is_named(lr, tmp_path, monkeypatch, given, said):
    from dsl import scripts
    monkeypatch.setattr(scripts, "LARGEST", 1000)
    (tmp_path / given).write_text("print 1\n" * 200)
    for command in ("run", "check", "show", "fmt"):
        done = lr(command, given)
        assert done.exit_code == 2 and "error[E0602]" in done.stderr and said in done.stderr
        assert (tmp_path / given).read_text() == "print 1\n" * 200


def test_names_that_are_nearly_right(lr, tmp_path):
    (tmp_path / "model.lr").write_text("print 1\n")
    for given in ("modle.lr", "model", "Model.lr"):
        assert "did you mean `model.lr`?" in lr("run", given).stderr
    assert "lr test" in lr("run", ".").stderr


def test_no_color():
    done = process("run", "-e", "print x", env={**os.environ, "NO_COLOR": "1"})
    assert "\x1b" not in done.stderr


NETWORK = """seed 3
data A = normal(400, 30)
data y = A @ linspace(-1, 1, 30)
matrix X[n, d]
vector t[n]
shared W[d, 8] = 0.1 * normal(), v[8] = 0.1
cost C = mean(sqr(tanh(X @ W) @ v - t))
minimize C wrt all using adam
train 4 epochs over X = A, t = y batch 150 shuffle
print C with X = A, t = y
print sum(W), v
"""


def test_profile(lr):
    plain, done = lr("run", "-q", "--device", "cpu", "-e", NETWORK), lr("run", "-q", "--profile", "--device", "cpu", "-e", NETWORK)
    assert (done.exit_code, plain.stderr) == (0, "")
    numbers, expected = (np.array(re.findall(r"-?\d+\.\d+", text), float) for text in (done.stdout, plain.stdout))
    np.testing.assert_allclose(numbers, expected, rtol=1e-6)    # digits as printed
    assert "GB/s" in done.stderr and "of copying" in done.stderr
    train = done.stderr.partition("train 4 epochs")[2].partition("\n\n")[0]
    runs = {name: int(count.replace(",", "")) for name, count in re.findall(r"^  (product\d+|k\d+) +([\d,]+) ", train, re.M)}
    assert sum(name.startswith("product") for name in runs) >= 2 and set(runs.values()) == {12}     # 3 batches an epoch
    shares = [float(share) for share in re.findall(r" m?s +([\d.]+)%", train)]
    assert "the rest" in train and 99 < sum(shares) < 101


RUNNING = """shared w = [3.0, 1.0, 2.0]
cost C = sum(cumsum(w)[1:] ** 2)
minimize C wrt w using sgd(rate = 0.1)
train 3 steps
print sum(w)
"""


def test_profile_of_what_does_not_run_natively(lr, monkeypatch):
    done = lr("run", "--profile", "--device", "numpy", "-e", "print 1 + 1")
    assert (done.exit_code, done.stdout) == (0, "2\n") and "nothing ran as native code" in done.stderr
    monkeypatch.setattr(legalise, "CORE", legalise.CORE - {"running"})
    done = lr("run", "-q", "--profile", "--device", "cpu", "-e", RUNNING)
    assert "line 4: train 3 steps (" in done.stderr and "`running` has no loops" in done.stderr
    done = lr("run", "-q", "--profile", "--device", "numpy", "-e", RUNNING)
    assert "line 4: train 3 steps (" in done.stderr and "device is `numpy`" in done.stderr
    done = lr("run", "--profile", "--device", "cpu", "-e", "print sum(ones(9))\nassert false")
    assert done.exit_code == 1 and "line 1: " in done.stderr and "E0706" in done.stderr


def test_threads_change_nothing(lr, monkeypatch):
    text = NETWORK.replace("normal(400, 30)", "normal(40000, 30)").replace("batch 150", "batch 20000")
    outputs = {lr("run", "-q", "--device", "cpu", "--threads", n, "-e", text + "print W").stdout for n in (1, 2, 3)}
    monkeypatch.setenv("LR_THREADS", "2")
    outputs.add(lr("run", "-q", "--device", "cpu", "-e", text + "print W").stdout)
    assert len(outputs) == 1 and outputs != {""}


def test_how_threads_are_given(lr, monkeypatch):
    def threads(**options):
        made = []
        monkeypatch.setattr("dsl.backends.llvm.native.NativeProgram", lambda program, threads: made.append(threads) or OFF)
        with pytest.raises(TypeError):
            dsl.compile("let y = sum(ones(3))", device="cpu", **options)["y"]
        return made
    OFF = None
    assert (threads(), threads(threads=3)) == ([None], [3])
    monkeypatch.setenv("LR_THREADS", "5")
    assert (threads(), threads(threads=3)) == ([5], [3])
    for wrong in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv("LR_THREADS", wrong)
        done = lr("run", "-e", "print 1")
        assert done.exit_code == 2 and "LR_THREADS" in done.stderr
    monkeypatch.setenv("LR_THREADS", " ")
    assert lr("run", "-e", "print 1").exit_code == 0 and lr("run", "--threads", "0", "-e", "print 1").exit_code == 2


# ---------------------------------------------------------------- check
def test_check(lr):
    assert (done := lr("check", "-e", GOOD)).exit_code == 0 and done.output == ""
    done = lr("check", "-e", "print x\nprint y")
    assert done.exit_code == 1 and done.stderr.count("error[E0301]") == 2 and done.stdout == ""


def test_check_runs_nothing(lr, tmp_path):
    done = lr("check", "-e", 'assert false\nprint 1\nlet v = [1, 2]\nsave v to "a.csv"\nplot line(v) to "a.png"')
    assert (done.exit_code, done.output) == (0, "")
    assert not list(tmp_path.iterdir())


def test_check_concise(lr, tmp_path):
    (tmp_path / "a.lr").write_text("let a = 1\nprint b")
    done = lr("check", "--output-format", "concise", "a.lr")
    assert done.exit_code == 1 and done.stderr == "a.lr:2:7: error[E0301]: no name `b`\n"


def test_check_json(lr, tmp_path):
    (tmp_path / "a.lr").write_text("let a = 1\nprint b")
    done = lr("check", "--output-format", "json", "a.lr")
    (found,) = json.loads(done.stdout)
    assert done.exit_code == 1 and found["code"] == "E0301" and found["severity"] == "error"
    assert set(found) == {"code", "severity", "message", "primary", "labels", "notes", "help"}
    assert found["primary"] | {"text": ""} == {"file": "a.lr", "line": 2, "column": 7, "end_line": 2, "end_column": 8, "text": ""}
    assert json.loads(lr("check", "--output-format", "json", "-e", "let a = 1").stdout) == []


def test_check_json_of_a_missing_script(lr):
    done = lr("check", "--output-format", "json", "none.lr")
    assert done.exit_code == 2 and json.loads(done.stdout)[0]["code"] == "E0601"


def test_absent_data(lr, tmp_path):
    (tmp_path / "a.lr").write_text('data t = csv("none.csv")\nmatrix X[n, d]\nshared w[d] = 0.0\ncost C = sum(X @ w)\nprint sum(t.a)\n')
    done = lr("check", "a.lr")
    assert done.exit_code == 0 and "warning[E0601]" in done.stderr and "none.csv" in done.stderr
    (warned,) = json.loads(lr("check", "--output-format", "json", "a.lr").stdout)
    assert warned["severity"] == "warning"
    done = lr("run", "a.lr")
    assert done.exit_code == 2 and "error[E0601]" in done.stderr


def test_check_reads_headers(lr, tmp_path):
    (tmp_path / "n.csv").write_text("v,u\n1,2\n")
    done = lr("check", "-e", 'data t = csv("n.csv")\nprint t.w')
    assert done.exit_code == 1 and "`w`" in done.stderr


# ---------------------------------------------------------------- show
SHOWN = (
    "scalar X, Y\nshared w = 0.0, b = 0.0\ndata x = [1.0, 2.0]\nlet r = X * w + b - Y\ncost C = mean(sqr(r))\ngrad gw, gb = C wrt w, b\n"
    "update w <- w - 0.1 * gw\nupdate b <- b - 0.1 * gb\ndef f(x) = x + 1\nlet s = log(1 + exp(w))\n"
)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["r"], ["(((X * w) + b) - Y)"]),
        (["C"], ["mean(sqr(r))"]),
        (["gw"], ["X", "r"]),
        (["C", "--grad"], ["d C / d w", "d C / d b"]),
        (["s", "--rules"], ["softplus"]),
        (["C", "--graph"], ["sqr", "X", "float64"]),
        (["f"], ["def f(x) = x + 1"]),
        (["x"], ["x"]),
        ([], ["cost", "update", "shared", "C", "gw", "w", "mean(sqr(r))"]),
        (["--grad"], ["d C / d w"]),
        (["--graph"], ["sqr"]),
        (["--rules"], ["softplus"]),
    ],
)
def test_show(lr, tmp_path, arguments, parts):
    (tmp_path / "a.lr").write_text(SHOWN)
    done = lr("show", "a.lr", *arguments)
    assert done.exit_code == 0 and done.stdout.endswith("\n"), done.stderr
    assert all(part in done.stdout for part in parts), done.stdout
    again = lr("show", "-e", SHOWN, *arguments)
    assert again.stdout == done.stdout


@pytest.mark.parametrize("slices", ["1: :-1 2:-1 -3: 1:4 ::2 ::-1 -5:-2 3:-2:2 10:2:-1 3::2 -4::2 :4 :-2:3 : 3:-1 -6:-1:4".split()])
def test_shown_slices_mean_what_they_show(lr, slices):
    """Python's own slices of an array of 12 tell what the formula and the length that are shown mean."""
    script = "vector x[n]\n" + "".join(f"let s{k} = x[{text}]\n" for k, text in enumerate(slices))
    lines = lr("show", "-e", script).stdout.splitlines()[2:]
    names = {"n": 12, "x": np.arange(12), "min": min, "max": max}
    for text, line in zip(slices, lines, strict=True):
        length, formula = re.search(r"float64\[(.*?)\] +=? *(.*)", line).groups()
        expected = eval(f"x[{text}]", {"x": names["x"]})
        assert eval(formula, dict(names)).tolist() == expected.tolist(), line
        assert eval(length, dict(names)) == len(expected), line
        if text.count(":") == 1:
            assert formula == ("x" if text == ":" else f"x[{text}]")


def test_show_of_train_says_which_views_it_has(lr):
    done = lr("show", "-e", "shared w = 1.0\nupdate w <- w / 2\ntrain 2 steps", "train")
    assert done.exit_code == 1 and "--kernels" in done.stderr


def test_show_writes_no_python_of_ours(lr):
    script = "vector x[n]\nshared w[1] = 1.0\ncost C = mean(sort(x * w)[-1000:]) / (n - 1)\nlet a = 1 / (n - 1)"
    for arguments in (["C", "--grad"], ["C", "--graph"], ["C", "--rules"]):
        shown = lr("show", "-e", script, *arguments).stdout
        assert shown and "Dim(" not in shown and "Size(" not in shown
    assert lr("show", "-e", script, "a").stdout == "(1 / (n - 1))\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["-e", SHOWN, "nothing"], 1),
        (["none.lr"], 2),
        ([], 2),
        (["-e", "print x"], 1),
        (["-e", SHOWN, "--kernels"], 0),
        (["-e", SHOWN, "--kernels", "nothing"], 1),
        (["-e", SHOWN, "--code", "C"], 2),
        (["-e", SHOWN, "--code", "--cost"], 2),
        (["-e", SHOWN, "--cost"], 0),
        (["-e", "", "C"], 1),
        (["-e", ""], 0),
        (["-e", SHOWN, "r", "x"], 2),
    ],
)
def test_show_codes(lr, arguments, code):
    done = lr("show", *arguments)
    assert done.exit_code == code, done.output
    assert code == 0 or done.stderr


REGRESSION = """precision float32
data X = normal(20, 3)
data y = X @ [1, 2, 3]
matrix A[n, d]
vector b[n]
shared w[d] = 0.0
let p = A @ w
cost C = mean(sqr(p - b))
minimize C wrt w using sgd(rate = 0.1)
train 5 epochs over A = X, b = y batch 8
let last = sum(w)
"""


def test_show_kernels(lr, tmp_path, golden):
    (tmp_path / "a.lr").write_text(REGRESSION)
    golden("show/kernels.txt", (done := lr("show", "a.lr", "--kernels")).stdout)
    assert done.exit_code == 0
    heads = [line for line in done.stdout.splitlines() if line and not line.startswith(" ")]
    assert heads == ["let p", "cost C", "train 5 epochs over A = X, b = y batch 8", "let last"]
    one = lr("show", "a.lr", "C", "--kernels").stdout
    assert one.startswith("cost C\n") and one in done.stdout
    train = lr("show", "a.lr", "train", "--kernels").stdout
    assert train.startswith("train 5") and train in done.stdout


def test_show_cost(lr, tmp_path, golden):
    (tmp_path / "a.lr").write_text(REGRESSION)
    done = lr("show", "a.lr", "--cost")
    golden("show/cost.txt", done.stdout)
    assert "with d = 3" in done.stdout                          # the data's columns; nothing was evaluated


def test_show_cuda(lr, tmp_path, golden):
    (tmp_path / "a.lr").write_text(REGRESSION)
    done = lr("show", "a.lr", "C", "--code")
    golden("show/cuda.txt", done.stdout)
    assert done.stdout == lr("show", "a.lr", "C", "--code", "cuda").stdout == lr("show", "--code=cuda", "a.lr", "C").stdout
    assert lr("show", "a.lr", "--code").stdout.count("__global__") > done.stdout.count("__global__")


def test_shown_cuda_compiles(lr, tmp_path):
    from dsl.backends.cuda import nvrtc
    (tmp_path / "a.lr").write_text(REGRESSION)
    for name in ("p", "C", "train", "last"):
        source = lr("show", "a.lr", name, "--code").stdout
        try:
            assert nvrtc.compile_source(source, "sm_90")
        except nvrtc.NoCompiler as missing:
            pytest.skip(str(missing))


def test_show_code_of_the_processor(lr, tmp_path):
    (tmp_path / "a.lr").write_text(REGRESSION)
    ir, assembly = (lr("show", "a.lr", "C", "--code", form).stdout for form in ("llvm", "asm"))
    assert ir.startswith("; cost C\n") and "i64 @lr_run(ptr" in ir
    assert assembly.startswith("# cost C\n") and "lr_run:" in assembly


def test_show_of_what_has_no_loops(lr, monkeypatch):
    monkeypatch.setattr(legalise, "CORE", legalise.CORE - {"argsort"})
    for view in ("--kernels", "--cost", "--code"):
        done = lr("show", "-e", "vector v\nlet s = argsort(v)\nlet t = v + 1", view)
        assert done.exit_code == 0 and "no loop program" in done.stdout and "`argsort`" in done.stdout and "let t" in done.stdout


def test_show_of_what_has_no_program(lr):
    text = "def f(x) = x + 1\nlet a = 1"
    assert "only formulas" in lr("show", "-e", text, "f", "--cost").stdout
    assert "only formulas" in lr("show", "-e", text, "train", "--kernels").stdout
    assert lr("show", "-e", text, "train").exit_code == 1       # without these views it is a name like any other
    assert "let train" in lr("show", "-e", "let train = 2 * sum(ones(3))", "train", "--kernels").stdout


def test_show_programs_need_no_data(lr):
    text = 'data t = csv("none.csv")\nmatrix X[n, d]\nshared w[d] = 0.0\ncost C = sum(X @ w)\nminimize C wrt w using sgd\n'
    for view in ("--kernels", "--cost", "--code"):
        assert lr("show", "-e", text + "train 3 epochs over X = t[:, :2]", view).exit_code == 0


def test_show_needs_no_data(lr):
    done = lr("show", "-e", 'data t = csv("none.csv")\nmatrix X[n, d]\nshared w[d] = 0.0\ncost C = sum(X @ w)\n', "C")
    assert done.exit_code == 0 and done.stdout == "sum((X @ w))\n"


# ---------------------------------------------------------------- test
def test_test(lr, tmp_path):
    (tmp_path / "ok.lr").write_text(GOOD + 'plot line([1, 2]) to "a.png"\nsave w to "w.csv"\nassert true\n')
    done = lr("test", "ok.lr")
    assert (done.exit_code, done.stdout) == (0, "ok ok.lr (2 checks)\n1 passed, 0 failed\n"), done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["ok.lr"]


def test_test_of_folders_and_failures(lr, tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/ok.lr").write_text("print 1  #> 1")
    (tmp_path / "a/b/wrong.lr").write_text("print 1  #> 2\nprint 2  #> 3\nprint 4 #> 4")
    (tmp_path / "a/b/broken.lr").write_text("print x")
    (tmp_path / "a/b/diverges.lr").write_text("shared w = 1.0\nupdate w <- log(-w)\ntrain 3 steps")
    done = lr("test", "a")
    assert done.exit_code == 1 and done.stdout.endswith("1 passed, 3 failed\n")
    assert done.stderr.count("error[E0707]") == 2 and "error[E0301]" in done.stderr and "error[E0720]" in done.stderr
    assert "ok a/ok.lr (1 check)" in done.stdout and "FAILED a/b/wrong.lr (3 checks)" in done.stdout


def test_test_blocks_run_in_test_only(lr, tmp_path):
    text = 'print 1\ntest "sums":\n  assert 1 + 1 == 3, "no"\n'
    assert lr("run", "-e", text).exit_code == 0
    (tmp_path / "a.lr").write_text(text)
    done = lr("test", "a.lr")
    assert done.exit_code == 1 and 'in test "sums"' in done.stderr


def test_test_goes_on_after_a_missing_file(lr, tmp_path):
    (tmp_path / "ok.lr").write_text("print 1  #> 1")
    done = lr("test", "none.lr", "ok.lr")
    assert done.exit_code == 1 and "1 passed, 1 failed" in done.stdout and "E0601" in done.stderr


def test_test_of_nothing(lr, tmp_path):
    assert lr("test").exit_code == 2
    (tmp_path / "empty").mkdir()
    assert lr("test", "empty").exit_code == 2


def test_test_verbose(lr, tmp_path):
    (tmp_path / "a.lr").write_text("print 41")
    assert "41\n" in lr("test", "-v", "a.lr").stdout and "41\n" not in lr("test", "a.lr").stdout


# ---------------------------------------------------------------- explain, doctor, help
def test_explain(lr):
    done = lr("explain", "E0201")
    assert done.exit_code == 0 and "E0201" in done.stdout
    assert lr("explain", "e0201").stdout == done.stdout
    wrong = lr("explain", "E0000")
    assert wrong.exit_code == 2 and "E0000" in wrong.stderr
    assert lr("explain").exit_code == 2


def test_every_code_can_be_explained(lr):
    """Every code that the code raises."""
    import re
    from pathlib import Path

    from dsl.error_index import ENTRIES

    raised = {code for path in Path(dsl.__file__).parent.rglob("*.py") for code in re.findall(r'"(E0\d{3})"', path.read_text())}
    assert raised <= set(ENTRIES), sorted(raised - set(ENTRIES))


def test_doctor(lr):
    done = lr("doctor")
    assert done.exit_code == 0 and "numpy" in done.stdout and "devices" in done.stdout
    found = json.loads(lr("doctor", "--json").stdout)
    assert found["devices"]["numpy"]["works"] is True and found["packages"]["numpy"]["version"]


def test_doctor_knows_native_code(lr, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LR_THREADS", "3")
    before = json.loads(lr("doctor", "--json").stdout)["native"]
    lr("run", "--device", "cpu", "-e", "print sum(ones(7) * 0.123)")
    native = json.loads(lr("doctor", "--json").stdout)["native"]
    assert (native["threads"], native["threads by"], native["vector bits"]) == (3, "LR_THREADS", before["vector bits"])
    assert native["cache"]["directory"] == str(tmp_path / "lr" / "objects") and before["cache"]["bytes"] == 0
    assert native["cache"]["bytes"] == sum(f.stat().st_size for f in (tmp_path / "lr" / "objects").iterdir()) > 0
    text = lr("doctor").stdout
    assert all(word in text for word in ("native code", native["llvm"], native["processor"], str(tmp_path), "nvrtc", "g++"))


def test_help(lr):
    for arguments in ([], ["--help"], ["-h"]):
        done = lr(*arguments)
        assert done.exit_code == 0 and "Usage: lr" in done.stdout and "run" in done.stdout and "check" in done.stdout
    assert "--set" in lr("run", "--help").stdout
    assert lr("--version").stdout.startswith("lr")


@pytest.mark.parametrize(("word", "meant"), [("rnu", "run"), ("chekc", "check"), ("shwo", "show"), ("xyzzy", None)])
def test_unknown_commands(lr, word, meant):
    done = lr(word)
    assert done.exit_code == 2 and word in done.stderr
    assert meant is None or f"`{meant}`" in done.stderr


def test_a_script_as_command_is_explained(lr, tmp_path):
    (tmp_path / "a.lr").write_text("print 1")
    done = lr("a.lr")
    assert done.exit_code == 2 and "lr run a.lr" in done.stderr


def test_interrupt_outside_training(lr, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(dsl.Session, "run", interrupted)
    done = lr("run", "-e", "print 1")
    assert done.exit_code == 130 and "interrupted" in done.stderr


def test_interrupt_while_an_interrupt_is_reported(lr, monkeypatch):
    pressed = []

    def interrupted(*_, **__):
        pressed.append(1)
        raise KeyboardInterrupt

    def again(context, code):
        if len(pressed) < 2:
            interrupted()
        raise Exit(code)

    monkeypatch.setattr(dsl.Session, "run", interrupted)
    monkeypatch.setattr(Context, "exit", again)
    assert lr("run", "-e", "print 1").exit_code == 130 and len(pressed) == 2


def test_the_module_is_the_program():
    done = process("run", "-e", "print 1 + 1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


def test_show_with_writes_the_value_for_the_input(lr):
    done = lr("run", "-e", "scalar X\nshared w = 2.0\nlet y = X * w\ndata A = ones(3)\nshow y\nshow y with X = 3\nshow y with X = A")
    assert done.stdout.splitlines() == ["(X * w)", "(3 * w)", "(A * w)"]
