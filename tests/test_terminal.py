"""The interactive session in a real terminal: what is on the screen after keys have been pressed.

Nothing waits for a time: each step waits until the screen shows what it must.
"""

import os
import re
import signal
import sys

import pytest

pytest.importorskip("pexpect")
pytest.importorskip("pyte")
if sys.platform == "win32":
    pytest.skip("pseudo-terminals are POSIX's", allow_module_level=True)

from terminals import Terminal

pytestmark = [pytest.mark.on_the_cpu, pytest.mark.child_process]

UP, DOWN, LEFT, RIGHT, ESCAPE = "\x1b[A", "\x1b[B", "\x1b[D", "\x1b[C", "\x1b"
TUTORIAL = ["seed 1", "data train_X = linspace(-1, 1, 101)", "data train_Y = 2 * train_X + 1 + 0.33 * normal(101)", "scalar X, Y",
            "shared w = 0.0, b = 0.0", "model Y_bar = X * w + b", "cost C = mean(sqr(Y_bar - Y))", "grad gw, gb = C wrt w, b",
            "update w <- w - 0.01 * gw", "update b <- b - 0.01 * gb"]
ENDLESS = "shared v = 1.0\ncost D = sqr(v)\ngrad gv = D wrt v\nupdate v <- v - 1e-9 * gv\n"


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def opened(folder, *arguments, **options):
    terminal = Terminal(folder, *arguments, **options)
    terminal.until("float64")                                    # the toolbar: the engine is there
    return terminal


def times_left_out(text):
    """A screen without what differs from run to run."""
    text = re.sub(r"in [\d.]+ m?s \([\d,]+ steps/s\)", "in TIME", text)
    took = r"[\d.]+ m?s(?: \(compile [\d.]+ m?s, run [\d.]+ m?s\))?"
    return re.sub(rf" · {took}$", "", re.sub(rf"^{took}\n", "", text, flags=re.MULTILINE))


def test_the_tutorial_is_typed(folder):
    with opened(folder, rows=30) as terminal:
        for line in TUTORIAL:
            terminal.enter(line)
        terminal.enter("train 100 epochs over X = train_X, Y = train_Y", "trained 100 epochs")
        terminal.enter("w", "1.874811994480627")
        terminal.enter("Y_bar with X = [0, 1]", "float64 [2]")
        terminal.until("· 1.6 KiB")
        shown = times_left_out(terminal.text).split("\n")
        assert shown[0].startswith("lr ") and shown[-1].split(" · ")[:3] == [" auto", "float64", "1.6 KiB"]
        assert [line for line in shown[1:-1] if line] == [
            *(f"lr> {line}" for line in TUTORIAL),
            "lr> train 100 epochs over X = train_X, Y = train_Y",
            "trained 100 epochs, 10100 steps in TIME, C = 0.1102",
            "lr> w",
            "1.874811994480627",
            "lr> Y_bar with X = [0, 1]",
            "float64 [2] · cpu · 16 bytes · min 1.012 mean 1.95 max 2.887",
            "[1.01218313 2.88699512]",
            "lr>"]
        terminal.send("\x04")
        assert terminal.ended() == 0


def test_an_error_points_at_its_place(folder):
    with opened(folder) as terminal:
        terminal.enter("let a = [1, 2]")
        terminal.enter("let b = a + nonsense", "E0301")
        assert ("error[E0301]: no name `nonsense`\n --> <entry 2>:1:13\n  |\n1 | let b = a + nonsense\n"
                "  |             ^^^^^^^^ not bound before this line\n") in terminal.text
        assert "\x1b[1;31merror[E0301]" in terminal.raw
        terminal.enter("a", "[1 2]")


def test_colours_can_be_left_out(folder):
    for arguments, environment in (((), {"NO_COLOR": "1"}), (("repl", "--color", "never"), {})):
        with opened(folder, *arguments, **environment) as terminal:
            terminal.enter("let b = nonsense", "E0301")
            assert not re.search(r"\x1b\[(?:\d+;)*[349]\d[\d;]*m", terminal.raw)


def test_the_menu_shows_types(folder):
    with opened(folder) as terminal:
        terminal.enter("data train_X = linspace(-1, 1, 101)")
        terminal.send("train_")
        terminal.until("data float64 [101]")
        terminal.send("\t")
        terminal.until("lr> train_X\n")
        terminal.send("\r")                                      # takes what is chosen
        terminal.until("data float64", absent=True)
        terminal.send("\r")
        terminal.until("float64 [101]")


def test_a_signature_stands_below(folder):
    with opened(folder) as terminal:
        terminal.send("sum(")
        terminal.until("sum(x, axis = none, keepdims = false)")


def test_greek_letters(folder):
    with opened(folder) as terminal:
        terminal.send("let \\alpha\t")
        terminal.until("lr> let α")
        terminal.send(" = 3\r")
        terminal.enter("α * 2", "6.0")


def test_a_block_ends_with_an_empty_line(folder):
    with opened(folder) as terminal:
        terminal.send("def f(x):\r")
        terminal.until("\n...")
        terminal.send("let y = x * 2\r")                         # the indentation is there
        terminal.until("...   let y = x * 2\n...")
        terminal.send("  return y + 1\r")                        # typing it makes it no deeper
        terminal.until("...   return y + 1\n...")
        before = terminal.prompts()
        terminal.send("\r")
        terminal.when(lambda: terminal.prompts() > before)
        terminal.enter("f(10)", "21")
        terminal.send("(1 +\r")
        terminal.until("lr> (1 +\n...")
        terminal.enter("2)", "\n3\n")


def test_a_text_must_be_closed(folder):
    with opened(folder) as terminal:
        terminal.send('print "abc\r')
        terminal.until('a text is not closed: `"` is missing')
        terminal.send('"\r')
        terminal.until("\nabc\n")


def test_a_script_is_pasted(folder):
    with opened(folder) as terminal:
        terminal.paste("# a script\nshared w = 1.0   # start\nupdate w <- w * 0.5\n\ntrain 2 steps:\n  every 1 steps: print w\n\n"
                       "  every 2 steps: print -w\nprint \"w is\", w\n")
        terminal.until('... print "w is", w')
        assert "trained" not in terminal.text                    # Enter runs it
        terminal.send("\r")
        terminal.until("w is 0.25")
        assert "0.5\n0.25\n-0.25\ntrained" in terminal.text


def test_a_transcript_is_pasted(folder):
    with opened(folder) as terminal:
        terminal.paste("lr> let a = 2\nlr> a + 1\n12345\nlr> def f(x):\n...   return x * a\n... \nlr> f(4)\n8.0\n")
        terminal.until("a transcript: what was typed in it, 4 entries")
        assert "12345" not in terminal.text
        terminal.send("\r")
        terminal.until("lr> a + 1\n3.0\nlr> def f(x):\n...   return x * a\nlr> f(4)\n8.0\n")


def test_control_c_clears_the_entry(folder):
    with opened(folder) as terminal:
        terminal.send("let a = (1 +\r")
        terminal.until("\n...")
        before = terminal.prompts()
        terminal.send("\x03")
        terminal.when(lambda: terminal.prompts() > before)
        terminal.enter("1 + 1", "\n2\n")


def test_control_c_stops_a_training_which_goes_on(folder):
    with opened(folder, rows=40) as terminal:
        terminal.paste(ENDLESS)
        terminal.until("... update v")
        terminal.enter("")
        terminal.send("train 1000000000000 steps\r")
        terminal.until("step ")
        terminal.until("steps/s")                                # it is on its way
        terminal.send("\x03")
        terminal.until("`train` goes on from there")
        made = int(re.search(r"interrupted after step (\d+); `train` goes on", terminal.everything).group(1))
        assert made > 0
        terminal.enter("v < 1", "true")
        terminal.send("train\r")
        terminal.until("lr> train\n")
        terminal.when(lambda: "steps/s" in terminal.text.rpartition("lr> train\n")[2])
        terminal.send("\x03")
        terminal.when(lambda: len(re.findall(r"interrupted after step (\d+); `train` goes on", terminal.everything)) == 2)
        assert int(re.findall(r"interrupted after step (\d+); `train` goes on", terminal.everything)[1]) > made
        terminal.enter("(v > 0, v < 1)", "(true, true)")
        terminal.enter(":transcript", "train 1000000000000 steps  # did not come to its end")
        assert "\ntrain\n" not in terminal.text.rpartition(":transcript")[2]


def test_it_is_terminated(folder):
    with opened(folder) as terminal:
        terminal.enter("let a = 3")
        terminal.send("a + ")
        terminal.until("lr> a +")
        terminal.child.kill(signal.SIGTERM)
        assert terminal.ended() == 128 + signal.SIGTERM
        assert terminal.raw.rindex("\x1b[?2004l") > terminal.raw.rindex("\x1b[?2004h")     # as it was found


def test_a_training_that_runs_out_draws_its_cost(folder):
    with opened(folder, rows=40) as terminal:
        terminal.paste("shared v = 1.0\ncost D = sqr(v)\ngrad gv = D wrt v\nupdate v <- v - 1e-9 * gv\n")
        terminal.until("... update v")
        terminal.enter("")
        terminal.send("train 1000000000000 steps\r")
        terminal.until("┤")
        terminal.send("\x03")
        terminal.until("goes on from there")


def test_what_is_typed_meanwhile_waits_for_the_prompt(folder):
    with Terminal(folder) as terminal:
        terminal.until("lr>")                                    # the engine is still to come
        terminal.send("let a = sum(normal((1000, 1000)) @ normal((1000, 1000))) * 0\rprint a\ra + 1\ra + 2\r")
        terminal.until("lr> a + 2\n2.0\n")
        assert "lr> a + 1\n1.0\n" in terminal.text and "lr> print a\n" in terminal.text


def test_history_is_searched_and_saved(folder):
    with opened(folder) as terminal:
        terminal.enter("let alpha = 1")
        terminal.enter("print 5", "\n5\n")
        terminal.enter("let beta = 2")
        terminal.send("pri" + UP)                                # what begins so
        terminal.until("lr> print 5\n")
        terminal.send("\x03")
        terminal.send("\x12alph")                                # Ctrl-R
        terminal.until("I-search backward: alph")
        terminal.when(lambda: terminal.text.count("let alpha = 1") == 2)
        terminal.send("\r\x05\x15")                              # accepted, to its end, all of it cut
        terminal.when(lambda: terminal.text.count("let alpha = 1") == 1)
        terminal.send("\x04")
        assert terminal.ended() == 0
    with opened(folder) as terminal:
        terminal.send("let b")                                   # suggested from the last session
        terminal.until("lr> let beta = 2")
        terminal.send(RIGHT + "1\r")
        terminal.enter("beta", "\n21.0\n")
    assert os.stat(folder / "history").st_mode & 0o777 == 0o600


def test_vi_keys(folder):
    with opened(folder) as terminal:
        terminal.enter(":set keys vi")
        terminal.send("bc" + ESCAPE)
        terminal.send("0i1 + " + ESCAPE)
        terminal.send("$xx" + "a41" + ESCAPE)
        terminal.until("lr> 1 + 41")
        terminal.send("\r")
        terminal.until("\n42\n")
    (folder / "config" / "lr").mkdir(parents=True)
    (folder / "config" / "lr" / "config.toml").write_text('[repl]\nkeys = "vi"\n')
    with opened(folder) as terminal:
        terminal.send("1 + 7" + ESCAPE + "r8\r")
        terminal.until("\n9\n")


def test_an_entry_is_written_in_an_editor(folder):
    editor = folder / "editor.sh"
    editor.write_text('#!/bin/sh\nprintf "let a = 20\\nprint a + 2\\n" > "$1"\n')
    editor.chmod(0o755)
    with opened(folder, EDITOR=str(editor), VISUAL=str(editor)) as terminal:
        terminal.send("\x18\x05")                                # Ctrl-X Ctrl-E
        terminal.until("\n22.0\n")


def test_the_toolbar_knows_sizes_and_memory(folder):
    with opened(folder) as terminal:
        terminal.enter("shared W[n, d] = ones((3, 4))")
        terminal.until(" auto · float64 · d = 4, n = 3 · 96 B")
        terminal.enter(":set device numpy")
        terminal.until(" numpy · float64")


def test_a_plot_is_drawn_in_the_terminal(folder):
    with opened(folder, rows=40) as terminal:
        terminal.enter("data x = linspace(0, 1, 20)")
        terminal.enter(":plot scatter(x, x * x)", "x * x")
        assert "┤" in terminal.text


def test_help_is_wrapped_between_words(folder):
    with opened(folder, rows=60, columns=50) as terminal:
        terminal.enter(":help", "Ctrl-D         leaves")
        words = set(re.findall(r"[a-z]{4,}", terminal.text))
    with opened(folder, rows=60, columns=200) as terminal:
        terminal.enter(":help", "Ctrl-D         leaves")
        assert words <= set(re.findall(r"[a-z]{4,}", terminal.text))


def test_a_terminal_that_only_prints(folder):
    with Terminal(folder, TERM="dumb") as terminal:
        terminal.until("lr>")
        terminal.send("def f(x):\r")
        terminal.until("\n...")
        terminal.send("  return x + 1\r")
        terminal.when(lambda: terminal.text.count("...") == 2)
        terminal.send("\r")
        terminal.when(lambda: terminal.prompts() == 2)
        terminal.send("f(3)\r")
        terminal.until("\n4\n")
        assert "\x1b[" not in terminal.raw
        terminal.send("\x04")
        assert terminal.ended() == 0


def test_a_file_is_run_first(folder):
    (folder / "m.lr").write_text("let a = 3\nprint a\nlet b = nonsense\n")
    with opened(folder, "repl", "m.lr") as terminal:
        assert "--> m.lr:3:9" in terminal.text
        terminal.enter("1", "\n1\n")                             # the prompt is there to mend it
    (folder / "m.lr").write_text("let a = 3\nprint a\n")
    with opened(folder, "repl", "m.lr", "--seed", "4") as terminal:
        assert "\n3.0\n" in terminal.text
        terminal.enter("a + 1", "\n4.0\n")
        terminal.enter(":set seed", "\nseed 4\n")
        terminal.send(":quit\r")
        assert terminal.ended() == 0
