"""Whether what is written has colours: one decision, for every stream and whoever writes."""

import io
import os
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from dsl.cli import commands
from dsl.colors import CHOICE, wants_color
from dsl.runtime.progress import Progress
from dsl.runtime.terminal import terminal_of


class Stream(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


# environment                                              on a terminal, elsewhere
TABLE = [
    ({},                                                   True, False),
    ({"NO_COLOR": "1"},                                    False, False),
    ({"NO_COLOR": ""},                                     True, False),
    ({"TERM": "dumb"},                                     False, False),
    ({"CLICOLOR": "0"},                                    False, False),
    ({"CLICOLOR": "1"},                                    True, False),
    ({"FORCE_COLOR": "1"},                                 True, True),
    ({"FORCE_COLOR": "0"},                                 True, False),
    ({"CLICOLOR_FORCE": "1", "TERM": "dumb"},              True, True),
    ({"NO_COLOR": "1", "FORCE_COLOR": "1"},                False, False),
    ({CHOICE: "always", "NO_COLOR": "1"},                  True, True),
    ({CHOICE: "never", "FORCE_COLOR": "1"},                False, False),
    ({CHOICE: "auto", "NO_COLOR": "1"},                    False, False),
    ({CHOICE: "nonsense"},                                 True, False),
]  # fmt: skip


@pytest.mark.parametrize(("environment", "terminal", "elsewhere"), TABLE)
def test_table(environment, terminal, elsewhere):
    assert wants_color(Stream(True), environment) is terminal and wants_color(Stream(False), environment) is elsewhere
    assert bool(terminal_of(Stream(True), environment).colors) is terminal


def test_streams_that_are_no_files():
    closed = open(os.devnull)       # noqa: SIM115
    closed.close()
    assert wants_color(closed, {}) is False and wants_color(object(), {}) is False


def test_progress_and_diagnostics_ask_the_same(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for choice, expected in (("always", True), ("never", False), ("auto", True)):
        monkeypatch.setenv(CHOICE, choice)
        assert Progress(10, "epoch", Stream(True)).color is expected


@pytest.mark.parametrize("command", ["run", "check", "show", "fmt"])
def test_option(command, monkeypatch):
    monkeypatch.setenv(CHOICE, "auto")
    script = ["-e", "print ("] if command != "fmt" else ["-"]
    for words, colored in (([command, "--color", "always"], True), ([command, "--color", "never"], False), ([command], False),
                           (["--color", "always", command], True)):
        monkeypatch.setenv(CHOICE, "auto")
        done = CliRunner().invoke(commands, [*words, *script], input="print (")
        assert done.exit_code == 1 and ("\x1b[" in done.stderr) is colored, words
        assert re.sub(r"\x1b\[[\d;]*m", "", done.stderr).startswith("error[E0101]")
    assert CliRunner().invoke(commands, [command, "--color", "sometimes", *script]).exit_code == 2


@pytest.mark.child_process
def test_in_a_terminal():
    """A pseudo-terminal shows colours unless told otherwise; a pipe does not unless told so."""
    pexpect = pytest.importorskip("pexpect")
    plain = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", CHOICE, "FORCE_COLOR", "CLICOLOR_FORCE")} | {"TERM": "xterm"}
    words = [sys.executable, "-m", "dsl", "check", "-e", "print x"]
    for environment, colored in ((plain, True), (plain | {"NO_COLOR": "1"}, False)):
        text, code = pexpect.run(" ".join(words[:-1]) + " 'print x'", withexitstatus=True, env=environment)
        assert code == 1 and (b"\x1b[1;31merror" in text) is colored
    done = subprocess.run(words, capture_output=True, env=plain | {"FORCE_COLOR": "1"}, timeout=60)
    assert b"\x1b[1;31merror" in done.stderr
