"""What shells complete, asked as a shell asks and in a real bash; zsh and fish too where they are installed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from dsl.cli import commands
from dsl.error_index import ENTRIES

SCRIPT = """dim k = 3
let rate = 0.5
let other = rate * 2
let low = -1
data A = ones(3)
scalar x, y
shared w = 0.0, b = 1.0
def f(z) = z + 1
optimizer o(rate = 1) for p, g, t:
  update p <- p - g
cost C = sqr(w * x - y)
grad gw = C wrt w
train 3 epochs over x = A, y = A
"""
BOUND = {"k", "rate", "other", "low", "A", "x", "y", "w", "b", "f", "o", "C", "gw", "train"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("one.lr", "two.lr", "deep/three.lr", "deep/four.lr", "lone/er/five.lr", ".hidden.lr", "notes.txt", "void/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(SCRIPT if name == "one.lr" else "let a = (")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def completed(*words: str) -> list[str]:
    *before, word = words
    return [item.value for item in ShellComplete(commands, {}, "lr", "_LR_COMPLETE").get_completions(before, word)]


def test_commands_and_options():
    assert set(completed("")) == set(commands.commands) and len(completed("")) >= 9
    assert completed("ex") == ["explain"] and set(completed("run", "--dev")) == {"--device"}
    assert completed("run", "--device", "c") == ["cpu", "cuda"] and completed("run", "--color", "") == ["auto", "always", "never"]
    assert completed("completion", "") == ["bash", "zsh", "fish"]
    assert "--json" in completed("test", "--") and "--diff" in completed("fmt", "--d")


def test_scripts(folder):
    for command in ("run", "check", "show", "test", "fmt"):
        assert completed(command, "") == ["deep/", "lone/", "one.lr", "two.lr", "void/"]
    assert completed("run", "o") == ["one.lr"] and completed("run", ".h") == [".hidden.lr"] and completed("run", "none") == []
    assert completed("run", "deep/") == completed("run", "d") == ["deep/four.lr", "deep/three.lr"]
    assert completed("run", "l") == ["lone/er/five.lr"] and completed("run", "v") == [] and completed("run", "nowhere/x") == []
    assert completed("fmt", "one.lr", "tw") == ["two.lr"]
    assert completed("run", f"{folder}/o") == [f"{folder}/one.lr"]


def test_names_in_a_script(folder):
    assert set(completed("show", "one.lr", "")) == BOUND and completed("show", "one.lr", "g") == ["gw"]
    assert completed("show", "-e", "let quantity = 1", "q") == ["quantity"]
    assert completed("show", "none.lr", "") == [] and completed("show", "two.lr", "") == []
    assert completed("show", "--grad", "one.lr", "C") == ["C"]


def test_what_can_be_set(folder):
    assert set(completed("run", "one.lr", "--set", "")) == {"k=", "rate=", "low="}
    assert completed("check", "one.lr", "--set", "r") == ["rate="]
    assert completed("run", "-e", "let quantity = 1", "--set", "q") == ["quantity="]
    assert completed("run", "--set", "") == []


def test_codes_and_benchmarks():
    assert completed("explain", "e01") == [code for code in ENTRIES if code.startswith("E01")]
    assert completed("explain", "softm") == ["softmax"] and {"train", "adam", "softmax"} <= set(completed("explain", ""))
    assert "tutorial" in completed("bench", "") and completed("bench", "tut") == ["tutorial"]


# ---------------------------------------------------------------- in shells
PATH = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def script(shell: str) -> str:
    done = subprocess.run([sys.executable, "-m", "dsl", "completion", shell], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_are_accepted(shell):
    text = script(shell)
    assert text.startswith(f"# Completion of `lr` in {shell}") and "_LR_COMPLETE" in text
    if shutil.which(shell) is not None:
        done = subprocess.run([shell, "-n"], input=text, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


def test_the_login_shell_is_known(monkeypatch):
    from click.testing import CliRunner
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert CliRunner().invoke(commands, ["completion"]).stdout == script("fish")
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert CliRunner().invoke(commands, ["completion"]).exit_code == 2


@pytest.mark.child_process
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_in_bash(folder):
    """As bash does it: the words typed so far, and the function that `complete` was told of."""
    asked = {"lr ru": "run", "lr run o": "one.lr", "lr show one.lr g": "gw", "lr run one.lr --set r": "rate=", "lr explain E0101": "E0101",
             "lr run --device cu": "cuda"}
    ask = 'COMP_WORDS=({}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=(); $F lr; echo "${{COMPREPLY[*]}}"'
    lines = [ask.format(text) for text in asked]
    program = "\n".join(['eval "$(lr completion bash)"', "F=$(complete -p lr | sed 's/.*-F \\([^ ]*\\).*/\\1/')", *lines])
    done = subprocess.run(["bash", "--norc", "-c", program], capture_output=True, text=True, timeout=120, env={**os.environ, **PATH})
    assert (done.stdout.splitlines(), done.stderr) == (list(asked.values()), "")


@pytest.mark.child_process
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_tab_in_a_terminal(folder):
    pexpect = pytest.importorskip("pexpect")
    bash = pexpect.spawn("bash", ["--norc"], encoding="utf-8", timeout=30, env={**os.environ, **PATH, "PS1": "$ ", "TERM": "dumb"})
    bash.expect_exact("$ ")
    bash.sendline('eval "$(lr completion bash)"; echo ready')
    bash.expect("\nready\r?\n")
    bash.send("lr run lo\t")
    bash.expect_exact("lr run lone/er/five.lr ")
    bash.sendcontrol("u")
    bash.send("lr show one.lr \t\t")
    bash.expect(r"(?s)A .*C .*train")
    found = bash.before + bash.after
    assert re.search(r"\bgw\b", found) and re.search(r"\bother\b", found)
    bash.sendcontrol("u")
    bash.sendline("exit")
    bash.expect(pexpect.EOF)
    bash.close()
