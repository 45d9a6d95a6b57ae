"""The interactive session without a terminal: entries, transactions, commands, undo, transcripts, what is complete."""

import io
import os
import random
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest

import dsl
from dsl.errors import LrError, Source
from dsl.repl import reader
from dsl.repl.commands import COMMANDS, Repl, command_words, resolve, takes_entry
from dsl.repl.settings import Settings, from_file
from dsl.repl.state import State
from dsl.repl.transcript import Said
from dsl.repl.transcript import script as transcript_script
from dsl.syntax.parse import parse

pytestmark = pytest.mark.on_the_cpu
SEED = """\
seed 1
data train_X = linspace(-1, 1, 101)
data train_Y = 2 * train_X + 1 + 0.33 * normal(101)
scalar X, Y
shared w = 0.0, b = 0.0
model Y_bar = X * w + b
cost  C     = mean(sqr(Y_bar - Y))
grad  gw, gb = C wrt w, b
update w <- w - 0.01 * gw
update b <- b - 0.01 * gb
"""
TRAIN = "train 100 epochs over X = train_X, Y = train_Y"


class Typed:
    """A session at the prompt; calling it types an entry and gives what it printed."""

    def __init__(self, **options):
        self.out, self.err = io.StringIO(), io.StringIO()
        self.repl = Repl(self.out, self.err, **options)
        self.session = self.repl.session
        self.fine = True

    def __call__(self, text):
        for stream in (self.out, self.err):
            stream.seek(0)
            stream.truncate()
        self.fine = self.repl.run(text)
        return self.out.getvalue().rstrip("\n")

    @property
    def said(self):
        return self.err.getvalue()

    def fails(self, text):
        """Types an entry that must fail; what is said about it."""
        self(text)
        assert not self.fine, text
        return self.said

    def value(self, name):
        return self.repl.plain(self.session.array(self.session.elaborator.scope[name].value))


@pytest.fixture
def typed():
    return Typed()


@pytest.fixture
def trained(typed):
    typed(SEED + TRAIN)
    assert typed.fine, typed.said
    return typed


# ---------------------------------------------------------------- entries
def test_an_expression_is_shown_and_held(typed):
    assert typed("2 + 3") == "5"
    assert typed("ans * 2") == "10"
    typed("let y = ans + 1")
    typed("100")
    assert typed("y") == "11"                                    # a value, not a name
    assert typed("ans") == "11"


def test_what_ans_was_stays_when_its_user_is_elaborated_again(typed):
    for line in ("let a = 1", "10", "let y = ans + a", "777", "let a = 2"):
        typed(line)
    assert typed.said == "redefined: y\n"
    assert typed("y") == "12.0"


def test_ans_holds_arrays_tuples_and_texts(typed):
    typed("[[1, 2], [3, 4]] * 0.5")
    np.testing.assert_array_equal(typed.value("ans"), [[0.5, 1], [1.5, 2]])
    assert typed("sum(ans @ ans)") == repr(float((np.array([[.5, 1], [1.5, 2]]) @ np.array([[.5, 1], [1.5, 2]])).sum()))
    assert typed("(1, 2.5)") == "(1, 2.5)"
    assert typed("ans[1]") == "2.5"


def test_a_name_of_ones_own_wins(typed):
    typed("let ans = 5")
    typed("1 + 1")
    assert typed("ans + 0") == "5.0"
    assert typed("def f(ans) = ans * 2") == "" and typed("f(4)") == "8"


def test_with_binds_inputs_of_an_expression(trained):
    assert float(trained("Y_bar with X = 3")) == pytest.approx(1.874811994480627 * 3 + 1.0121831256973197, rel=1e-12)
    assert trained("(C with X = 1, Y = 2)") == trained("C with X = 1, Y = 2")


def test_the_seed_program_says_what_lr_run_says(trained):
    model = dsl.compile(SEED + TRAIN)
    model.run()
    assert trained("w") == repr(float(model["w"])) and trained("print w, b") == f"{model['w']} {model['b']}"


def test_one_entry_of_many_pieces_runs_in_order(typed):
    assert typed("let a = 2\na + 1\nans * 10\n:type a\nlet c = a; c") == "3.0\n30.0\nfloat64\n2.0"
    assert typed("# only a comment") == "" and typed("   \n ") == "" and typed.fine


def test_binding_again_says_what_followed(typed):
    typed("let a = 2\nlet b = a * 3\nlet c = b + 1")
    assert typed.said == ""
    typed("let a = 10")
    assert typed.said == "redefined: b, c\n" and typed("c") == "31.0"
    typed("let a = 1\nlet b = 5")                                # what the entry binds itself is not named
    assert typed.said == "redefined: c\n" and typed("c") == "6.0"


def test_shared_and_data_keep_their_values_until_bound_again(trained):
    before = trained("w")
    trained("model Y_bar = X * w + 2 * b")
    assert "C, gw, gb, update w, update b" in trained.said
    assert trained("w") == before
    trained("shared w = 0.0")
    assert trained("w") == "0.0"


def test_a_script_may_be_entered_again_with_other_shapes(typed):
    typed("let a = [1, 2, 3]\nlet b = a + [10, 20, 30]\nlet c = sum(b)")
    typed("let a = [1, 2]\nlet b = a + [10, 20]\nlet c = sum(b)")
    assert typed.fine, typed.said
    assert typed("b; c").endswith("33")


def test_an_optimiser_forgets_a_variable_that_is_declared_again(typed):
    typed("shared w[3] = 1.0\ncost C = sum(sqr(w))\nminimize C wrt w using adam(rate = 0.1)\ntrain 3 steps")
    first = typed.value("w")
    typed("shared w[4] = 1.0")
    typed("train 3 steps")
    np.testing.assert_array_equal(typed.value("w"), np.full(4, first[0]))


def test_expectations_and_tests_are_checked(typed):
    typed("print 1 + 1  #> 2")
    assert typed.fine
    assert "E0707" in typed.fails("print 1 + 1  #> 3")
    assert 'test "t": ok' in (typed('test "t":\n  assert 1 < 2'), typed.said)[1]
    assert "E0706" in typed.fails('test "t":\n  assert 1 > 2')


# ---------------------------------------------------------------- all or nothing
BAD = ["let q = nonsense(1)", "let a = 1 +", "let z = 1; let q = nonsense", "shared v = 1.0\nprint [1, 2][5]", "let a = [1, 2] + [1, 2, 3]",
       "matrix M[n, n2]\nlet b = w @ w", "update b <- [1, 2]", "5\nassert 1 > 2",
       "data D = csv(\"nothing here.csv\")", ":nothing", ":type ]",
       "let k = 3\n:load nothing.lr", "cost C = X + Y_unknown", "let w = [1, 2]", "seed -1", "7 // 0", ":set digits 99", ":undo 0x",
       "dim m = 4\nshared s[m] = [1, 2]", "train 1 epochs over X = train_X",
       "minimize C wrt nobody using sgd()", "1 2", "?", "def f(x) = f(x)\nf(1)"]


@pytest.mark.parametrize("text", [t for t in BAD if t != "?"])
def test_an_entry_that_fails_changes_nothing(trained, text):
    before = State.of(trained.session)
    trained.fails(text)
    after = State.of(trained.session)
    assert not after.differs(before)
    assert picture(trained) == picture_of(before)
    assert trained("w") == "1.874811994480627"


def picture_of(state):
    session, elaborator = (kept for _, kept in state.parts)
    return (list(state.names.items()), sorted((k, id(v)) for k, v in session["values"].items()), list(map(id, elaborator["updates"])),
            elaborator["sizes"], [r.statement for r in elaborator["remembered"]], session["steps_before"], elaborator["minimized"],
            elaborator["seed"], elaborator["precision"], elaborator["device"], list(map(id, session["pending"])), len(session["items"]))


def picture(typed):
    return picture_of(State.of(typed.session))


PARTS = ["let a = {n}", "let b = a * {n}", "let c = a + b", "shared v = {n}.0", "update v <- v * 0.5", "a + {n}", "ans * 2",
         "train 2 steps",
         "scalar x", "cost D = sqr(x - v)", "grad dv = D wrt v", "D with x = {n}", "def f(y) = y + a", "f({n})", "data A = arange({n})",
         "print A, v", ":type a", ":undo", "minimize sqr(v - 1) wrt v using adam()", "let c = [1, 2, 3][a]", "shared u[k] = arange({n})",
         "let t = u + A", "seed {n}", "data R = normal(2)", ":set digits {n}", "b = 3", "let = 3", "nonsense", "let a = A[{n}]", "1 // 0"]


@pytest.mark.parametrize("start", range(4))
def test_random_entries_fail_as_a_whole(start):
    chance = random.Random(start)
    typed = Typed()
    failed = 0
    for _ in range(120):
        text = "\n".join(chance.choice(PARTS).format(n=chance.randint(0, 5)) for _ in range(chance.randint(1, 3)))
        before, trained = picture(typed), typed.session.steps_before
        typed(text)
        assert "E0999" not in typed.said, f"{text}\n{typed.said}"
        if not typed.fine and typed.session.steps_before == trained:
            failed += 1
            assert picture(typed) == before, text
    assert failed > 10


def test_steps_that_a_training_made_stay_when_what_follows_fails(typed):
    typed("shared w = 1.0\nupdate w <- w * 0.5")
    assert "what came before it in this entry has been done" in typed.fails("train 3 steps\nprint 1 // int(w * 0)")
    assert typed("w") == "0.125"


def test_divergence_keeps_the_last_good_state(typed):
    typed("shared w = 2.0\ncost C = w * w\ngrad g = C wrt w\nupdate w <- w * 1e200")
    assert "E0720" in typed.fails("train 9 steps")
    assert typed.value("w") == 2e200


def test_an_error_has_the_entrys_own_lines(typed):
    typed("1")
    assert " --> <entry 2>:3:9\n" in typed.fails("let a = 1\n:type a\nlet b = nonsense")


def test_an_internal_error_is_a_diagnostic_and_changes_nothing(typed, monkeypatch):
    typed("let a = 1")
    before = picture(typed)
    monkeypatch.setattr(typed.session, "accept", lambda *_: 1 / 0)
    assert "E0999" in typed.fails("let b = 2")
    monkeypatch.undo()
    assert picture(typed) == before and typed("a") == "1.0"


# ---------------------------------------------------------------- commands
def test_every_command_has_help(typed):
    listing = typed(":help")
    for word, command in COMMANDS.items():
        assert f":{word}" in listing and command.summary in listing
        assert typed(f":help {word}").startswith(f":{word}") and typed(f":help :{word}")
        assert typed.fine
    assert command_words() == [f":{word}" for word in COMMANDS]


def test_words_may_be_shortened():
    for word in COMMANDS:
        for end in range(1, len(word) + 1):
            begun = [w for w in COMMANDS if w.startswith(word[:end])]
            if len(begun) == 1 or word == word[:end]:
                assert resolve(word[:end]).word == word
            else:
                with pytest.raises(LrError, match="begins"):
                    resolve(word[:end])


def test_a_wrong_command_gets_the_nearest(typed):
    assert "did you mean `:vars`?" in typed.fails(":vras")
    assert "E0911" in typed.fails(":xyzzy") and "takes nothing" in typed.fails(":quit now")


def test_type(trained):
    assert trained(":type Y_bar") == "float64" and trained(":type train_X > 0") == "bool[101]"
    assert trained(":type (w, train_X)") == "(float64, float64[101])"
    trained("matrix M[n, d]\nshared v[d] = [1.0, 2, 3]\n")
    assert trained(":type M @ v") == "float64[n]" and trained(":type v") == "float64[d]   d = 3"
    assert "E0301" in trained.fails(":type nonsense") and "E0911" in trained.fails(":type")


def test_show_and_grad(trained):
    assert trained(":show C") == "mean(sqr((Y_bar - Y)))" and "update  w" in trained(":show")
    assert trained(":show sqr(w) + 1") == "(sqr(w) + 1)"
    both = trained(":grad C").split("\n")
    assert [line.partition(" = ")[0] for line in both] == ["d C / d w : float64", "d C / d b : float64"]
    assert trained(":grad C wrt w") == both[0]
    assert trained(":grad exp(2 * w) wrt w").startswith("d exp(2 * w) / d w : float64 = ")
    assert "E0911" in trained.fails(":grad sqr(w)")


def test_kernels_code_and_cost(trained):
    assert "program C" in trained(":kernels C") and "train 100 epochs" in trained(":kernels")
    assert "define" in trained(":code C") and "__global__" in trained(":code cuda train") and trained(":code asm C").startswith("#")
    assert "flops" in trained(":cost train")
    assert "E0301" in trained.fails(":kernels nobody")


def test_vars(trained):
    text = trained(":vars")
    for name in ("train_X", "w", "Y_bar", "C", "gw"):
        assert any(line.split()[0] == name for line in text.split("\n") if line.strip())
    assert "1.874811994480627" in text


def test_time_changes_nothing(trained):
    before = picture(trained)
    assert trained(":time Y_bar with X = 3").startswith("compile ")
    assert "median" in trained(":time train 1 epochs over X = train_X, Y = train_Y")
    assert trained(":time print w") and "nothing to run" in trained(":time let q = 3")
    assert picture(trained) == before
    assert "E0301" in trained.fails(":time nonsense") and picture(trained) == before


def test_time_takes_a_block():
    assert takes_entry(":time") and takes_entry("ti") and not takes_entry("type") and not takes_entry("t")
    assert reader.verdict(":time train 3 steps:", takes_entry) == "more"
    assert reader.verdict(":ti train 3 steps:\n  every 1 steps: print w\n", takes_entry) == "run"


def test_set(trained):
    assert "digits" in trained(":set") and trained(":set digits") == "digits 8"
    trained(":set digits 3")
    assert trained("[pi, 1.0]").split("\n")[-1] == "[3.142 1.   ]"
    trained(":set device numpy")
    assert trained("w") == "1.874811994480627" and trained.session.compute.device() == "numpy"
    assert "device" not in trained(":transcript")
    trained(TRAIN)
    on_numpy = trained.value("w")
    assert on_numpy == pytest.approx(1.8748, abs=1e-3)
    assert "start anew" in trained.fails(":set precision float32")
    assert "did you mean `cuda`?" in trained.fails(":set device cudda")
    assert "did you mean `digits`?" in trained.fails(":set digit 3")
    trained(":set threads 1")
    assert trained.session.compute.threads == 1
    trained(":set keys = vi")
    assert trained.repl.settings.keys == "vi"


def test_the_seed_is_of_draws_from_now_on(typed):
    typed("let a = normal(2)")
    before = typed("a")
    typed(":set seed 5")
    assert typed("a") == before
    typed("seed 5\nlet b = normal(2)")
    other = dsl.compile("seed 5\nlet b = normal(2)")
    np.testing.assert_array_equal(typed.value("b"), other["b"])


def test_precision_while_nothing_is_bound(typed):
    typed(":set precision float32")
    typed("shared w = 1.0")
    assert typed(":type w") == "float32"
    assert Typed(precision="float32")("1.0 + 1") == "2.0"


def test_load_and_reload(typed, tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n3,4\n")
    script = tmp_path / "m.lr"
    script.write_text('data t = csv("a.csv")\nshared w[2] = 1.0, b = 0.0\nlet s = sum(w) + b\nupdate w <- w + t.x\n'
                      "train 2 steps\nprint s\n")
    assert typed(f':load "{script}"') == "10.0"
    typed("let twice = 2 * s")
    script.write_text(script.read_text().replace("sum(w) + b", "sum(w) - 1").replace("b = 0.0", "b[3] = 7"))
    assert typed(":reload") == ""                                # its commands do not run
    assert "begins anew: b" in typed.said and "redefined: twice" in typed.said
    assert typed("s") == "9.0" and typed("twice") == "18.0"
    np.testing.assert_array_equal(typed.value("w"), [3, 7])
    np.testing.assert_array_equal(typed.value("b"), [7, 7, 7])
    script.write_text("let s = nonsense")
    before = picture(typed)
    assert f"{script}:1:9" in typed.fails(":reload") and picture(typed) == before
    assert "no script has been loaded" in Typed().fails(":reload")


def test_reload_keeps_what_optimisers_remember(typed, tmp_path):
    script = tmp_path / "m.lr"
    script.write_text("shared w = 1.0\ncost C = sqr(w - 3)\nminimize C wrt w using adam(rate = 0.1)\ntrain 3 steps\n")
    typed(f":load {script}")
    typed(":reload")
    typed("train 3 steps")
    model = dsl.compile(script.read_text().replace("3 steps", "6 steps"))
    model.run()
    assert typed.value("w") == float(model["w"])


def test_a_training_gone_on_with_is_one_in_the_transcript():
    text = "shared v = 1.0\nupdate v <- v / 2\ntrain 9 steps\nprint v\ntrain\nprint v\n"
    said = [Said(statement, None) for statement in parse(Source("a.lr", text))[0].statements]
    said[2].broken, said[3].printed, said[5].printed = True, "0.25\n", "0.001953125\n"
    assert transcript_script(said).splitlines()[2:] == ["train 9 steps", "print v  # was 0.25 at that time", "print v  #> 0.001953125"]
    said[4].broken = True
    assert transcript_script(said).splitlines()[2:] == [
        "train 9 steps  # did not come to its end", "print v  # was 0.25 at that time", "print v  # was 0.001953125 at that time"]


@pytest.mark.parametrize(("text", "meant"), [("help(exp)", "?exp"), ("exp?", "?exp"), ("??exp", "?exp"), ("help", ":help")])
def test_other_prompts_ways_to_ask(typed, text, meant):
    assert typed(text) == typed(meant) != ""


@pytest.mark.parametrize("text", ["quit", "exit", "exit()", "quit()"])
def test_other_prompts_ways_to_leave(typed, text):
    word = text.removesuffix("()")
    typed(f"let {word} = 3")
    assert typed.value(word) == 3 and typed(word) == "3.0" and not typed.repl.done       # a name is a name
    typed(":undo")
    typed(text)
    assert typed.repl.done


def test_what_is_no_command_here(typed):
    assert "`:time`" in typed.fails("%time 1") and "`:help`" in typed.fails("!ls") and "Ctrl-L" in typed.fails("clear")


def test_one_mistake_is_told_once(typed):
    said = typed.fails("shared W[3] = ones()\nlet z = 2 * W\nprint z\nlet q = nowhere")
    assert [line[:12] for line in said.splitlines() if line.startswith("error")] == ["error[E0502]", "error[E0301]"] and "nowhere" in said
    assert "E0301" in typed.fails("z")


def test_a_size_that_state_was_made_with(typed):
    typed("dim d = 2\nmatrix X[n, d]\nshared W[d, 3] = 1.0\nlet z = X @ W")
    assert typed("sum(z with X = eye(2))") == "6.0"
    said = typed.fails("dim d = 4")
    assert "error[E0211]: `W` was made with d = 2" in said and "`dim d = 4; …; shared W[…] = …`" in said
    assert typed("sum(z with X = eye(2))") == "6.0"
    typed("dim d = 2")
    assert typed.fine
    typed("dim d = 4; matrix X[n, d]; shared W[d, 3] = 1.0")
    assert typed.fine and typed.said == "redefined: z\n"
    assert typed("sum(z with X = eye(4))") == "12.0"


def test_save_and_restore(trained, tmp_path):
    path = tmp_path / "s.safetensors"
    trained(f":save {path}")
    assert trained.fine, trained.said
    trained("shared w = 0.0")
    trained(f":restore {path}")
    assert trained.fine and trained.value("w") == 1.874811994480627
    trained(":undo")
    assert trained.value("w") == 0
    assert trained.fails(f":restore {tmp_path / 'none.safetensors'}")


def test_undo(trained):
    trained("let a = 1")
    trained("let a = 2; let c = a")
    more = "train 1 epochs over X = train_X[:50], Y = train_Y[:50]"
    trained(more)
    after = trained.value("w")
    trained(":vars")                                             # what changes nothing is not counted
    trained("w")
    trained(":undo")
    assert trained.value("w") == 1.874811994480627 != after
    trained(more)
    assert trained.value("w") == after                           # draws and steps count as before
    trained(":undo 2")
    assert trained.value("a") == 1.0 and "E0301" in trained.fails("c")
    trained(":undo 99")
    assert "there were no more" in trained.said and not trained.session.elaborator.scope
    assert "nothing to undo" in trained.fails(":undo")


def test_undo_gives_back_data_and_updates(typed):
    typed("data A = [1, 2, 3]\nshared w = 1.0\nlet s = sum(A) * w\nupdate w <- w + 1")
    typed("data A = [10, 20]")
    typed("update w <- w * 3")
    typed(":undo 2")
    typed("train 1 steps")
    assert typed("s") == "12.0"


def test_plot(trained):
    trained(":plot scatter(train_X, train_Y)")
    assert trained.fine and "train_Y" in trained.out.getvalue()
    assert len(trained(":plot train_Y").split("\n")) > 5
    assert "E0911" in trained.fails(":plot") and trained.fails(":plot nonsense")


def test_questions(trained):
    assert "softmax" in trained("?softmax") and "train" in trained("?train") and trained("?w") and trained(":help exp")
    assert trained("?").startswith("Statements run")
    trained("?nonsense")


def test_doctor_and_quit(typed):
    assert "numpy" in typed(":doctor")
    typed(":quit")
    assert typed.repl.done


# ---------------------------------------------------------------- transcripts
def run_as_test(text, tmp_path):
    """The script's failures, as `lr test` finds them; how many results were compared."""
    session = dsl.Session(stdout=io.StringIO(), quiet=True, base=tmp_path, out=tmp_path)
    session.comparing = True
    session.load(Source("t.lr", text))
    session.run()
    return session.failures, session.checked


def test_a_transcript_runs_and_gives_the_results(trained, tmp_path):
    for line in ("w", "ans * 2", "let y = ans + b", "y", "train_X[:3]", "print w, b", "Y_bar with X = 3", "nonsense", "(w, b)",
                 "train_X > 2",
                 "sum(train_X) < 1"):
        trained(line)
    path = tmp_path / "session.lr"
    trained(f":transcript {path}")
    text = path.read_text()
    assert text.startswith("seed 1\n") and "nonsense" not in text and trained(":transcript") == text.rstrip()
    failures, checked = run_as_test(text, tmp_path)
    assert not failures and checked == 9


def test_a_transcript_of_names_bound_again(typed, tmp_path):
    for line in ("let a = 2", "let b = a * 3", "print b", "let a = 10", "b", "let a = a + 1", "a", "b", "shared w = 1.0",
                 "update w <- w * 0.5", "train 2 steps", "w", "update w <- w * 0.1", "train 1 steps", "w", "a * 2", "data k = [1, 2]", "k",
                 "let p, q = (1, 2)", "let p = 5", "p + q"):
        typed(line)
        assert typed.fine, typed.said
    text = typed(":transcript")
    failures, checked = run_as_test(text, tmp_path)
    assert not failures, text
    assert "was 6.0" in text and text.count("let b") == 1 and "#> 22.0" in text and checked >= 5


def test_a_transcript_states_what_options_set(tmp_path):
    typed = Typed(seed=7, precision="float32")
    typed("let a = normal(2)\na")
    typed("normal(2)")
    text = typed(":transcript")
    assert text.startswith("precision float32\nseed 7\n") and text.endswith("a draw of its own")
    assert run_as_test(text, tmp_path) == ([], 1)


def test_parameters_are_no_outer_names(typed):
    typed("let x = 1; let k = 2\ndef g(x, m = k) = x * m\nlet y = g(3)")
    typed("let x = 5")
    assert typed.fine and typed.said == ""
    typed("let k = 3")
    assert typed.said == "redefined: g, y\n" and typed("y") == "9.0"


def test_it_is_said_what_was_undone(typed):
    for entry in ("let a = 1", "a", "def f(x):\n  return x\n", f"let b = {' + '.join(['a'] * 50)}"):
        typed(entry)
    typed(":undo")
    assert typed.said == f"undone: `{('let b = ' + 'a + ' * 50)[:59]}…`\n"
    typed(":undo 5")
    assert typed.said == "undone: 2 entries, from `let a = 1` on; there were no more\n"
    typed("let c = 1\nlet d = 2")
    typed(":undo")
    assert typed.said == "undone: `let c = 1 …`\n"


@pytest.mark.parametrize("entry", [":set digits 4", ":set digits=4", ":set digits = 4", ':set digits "4"'])
def test_ways_to_set(typed, entry):
    typed(entry)
    assert typed.fine and typed.repl.settings.digits == 4


def test_undone_entries_are_not_in_a_transcript(typed):
    typed("let a = 1")
    typed("let b = 2")
    typed(":undo")
    assert typed(":transcript") == "let a = 1"


# ---------------------------------------------------------------- reading
@pytest.mark.parametrize(("text", "verdict", "indent"), [
    ("let a = 1", "run", ""), ("let a = (1 +", "more", "  "), ("let a = [1,\n  2", "more", "  "), ("let a = 1 +", "more", "  "),
    ("train 3 steps:", "more", "  "), ("train 3 steps:\n  every 1 steps: print w", "more", "  "),
    ("train 3 steps:\n  every 1 steps: print w\n", "run", "  "), ("train 3 steps:\n  every 1 steps:", "more", "    "),
    ("def f(x):\n  let y = g(1,", "more", "    "), ('print "abc', "text", ""), ('print "a", "b\\"', "text", ""), ('print "abc"', "run", ""),
    ("let a = )", "run", ""), ("", "run", ""), (":vars", "run", ""), (":save \"x", "run", ""), ("?sum", "run", ""),
    ("def f(x) = x", "run", ""), ("let a = 1\n:time def f(x):", "more", "  "), ("a\n  + 2", "run", "  ")])
def test_enter_runs_only_what_is_complete(text, verdict, indent):
    assert reader.verdict(text, takes_entry) == verdict
    if verdict == "more":
        assert reader.indentation(text) == indent


def test_a_transcript_is_recognised():
    text = "lr> let a = 2\nlr> a + 1\n3.0\nlr> def f(x):\n...   return x\n... \nlr> f([1, 2])\nfloat64 [2]\n[1 2]\n... no entry\nlr>\n"
    assert reader.transcript(text) == ["let a = 2", "a + 1", "def f(x):\n  return x", "f([1, 2])"]
    assert reader.transcript("3.0\n" + text) is not None
    assert reader.transcript("let a = 1\nprint a") is None
    typed = Typed(echo=True)
    shown = typed("lr> let a = 2\nlr> a + 1\n999\nlr> nonsense\nlr> a").split("\n")
    assert shown == ["lr> let a = 2", "lr> a + 1", "3.0", "lr> nonsense", "lr> a", "2.0"]
    assert not typed.fine


def test_piped_text_is_read_as_a_script_is():
    lines = "# first\nlet a = [1,\n2]\n\ntrain 3 steps:\n  every 1 steps: print w\n\n  every 2 steps: print w\n" \
            ":vars\nlet b = 1 +\n  2\n# last\n"
    assert list(reader.entries(lines.splitlines(True))) == [
        "let a = [1,\n2]", "train 3 steps:\n  every 1 steps: print w\n\n  every 2 steps: print w", ":vars", "let b = 1 +\n  2\n# last"]
    assert list(reader.entries(["lr> let a = 1\n", "lr> a\n", "1.0\n", "lr> def f(x):\n", "...   return x\n", "...\n"])) == \
        ["let a = 1", "a", "def f(x):\n  return x"]


# ---------------------------------------------------------------- lr, without a terminal
def lr(*arguments, text="", **environment):
    env = {**os.environ, "LR_HISTORY": "off", **environment}
    return subprocess.run([sys.executable, "-m", "dsl", *arguments], input=text, capture_output=True, text=True, env=env, timeout=120)


def test_pipe():
    done = lr("repl", text="let a = 2\na + 1\nnonsense\n[1, 2] * a\n")
    assert done.returncode == 1 and done.stdout.startswith("3.0\nfloat64 [2]") and "E0301" in done.stderr
    done = lr(text="1 + 1\n:quit\n2 + 2\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


def test_pipe_of_what_is_not_text():
    text = b"1 + \xff\n\x00\n\xef\xbb\xbf1 + 1\r\n"
    done = subprocess.run([sys.executable, "-m", "dsl", "repl"], input=text, capture_output=True, timeout=120)
    assert done.returncode == 1 and done.stdout == b"2\n" and done.stderr.count(b"error[") == 2 and b"E0999" not in done.stderr


def test_pipe_after_a_file(tmp_path):
    (tmp_path / "m.lr").write_text("let a = normal()\nprint 1\n")
    done = lr("repl", str(tmp_path / "m.lr"), "--seed", "3", "--precision", "float32", "--device", "numpy", text=":type a\na\n:set seed\n")
    expected = dsl.compile("let a = normal()", seed=3, precision="float32")["a"]
    assert done.returncode == 0 and done.stdout == f"1\nfloat32\n{expected[()]!s}\nseed 3\n"
    assert lr("repl", str(tmp_path / "none.lr"), text="1\n").returncode == 1


def test_the_prompt_is_drawn_before_numpy_is_loaded():
    code = "import sys, dsl.cli, dsl.repl.app as a; a.Prompt(a.Options(), a.Settings(), []).session; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    loaded = set(done.stdout.split())
    assert "prompt_toolkit" in loaded, done.stderr
    assert not loaded & {"numpy", "lark", "scipy", "pygments", "dsl.session", "dsl.syntax.parse"}


# ---------------------------------------------------------------- settings and history
def test_settings_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert from_file() == (Settings(), [])
    (tmp_path / "lr").mkdir()
    path = tmp_path / "lr" / "config.toml"
    path.write_text('[repl]\nkeys = "vi"\ndigits = 4\ntimes = false\ncolours = "no"\n')
    settings, remarks = from_file()
    assert (settings.keys, settings.digits, settings.times) == ("vi", 4, "off") and len(remarks) == 1 and "colours" in remarks[0]
    for text in ("[repl", "repl = 3\n", "repl = [1]\n"):
        path.write_text(text)
        settings, remarks = from_file()
        assert settings == Settings() and len(remarks) == 1


def test_history_is_private_and_shared(tmp_path, monkeypatch):
    from dsl.repl.history import SavedHistory, history_path
    path = tmp_path / "deep" / "history"
    monkeypatch.setenv("LR_HISTORY", str(path))
    assert history_path() == path
    entries = [[f"let a{t} = {n}\n  + 1" for n in range(30)] for t in range(4)]

    def write(mine):
        history = SavedHistory(path)
        for entry in mine:
            history.append_string(entry)
    threads = [threading.Thread(target=write, args=(mine,)) for mine in entries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    read = list(SavedHistory(path).load_history_strings())
    assert sorted(read) == sorted(e for mine in entries for e in mine)
    for mine in entries:
        assert [e for e in reversed(read) if e in mine] == mine
    for word in ("", "off", "0"):
        monkeypatch.setenv("LR_HISTORY", word)
        assert history_path() is None
    monkeypatch.delenv("LR_HISTORY")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert history_path() == tmp_path / "lr" / "history"
    blocked = tmp_path / "file"
    blocked.write_text("")
    history = SavedHistory(blocked / "history")                  # cannot be written
    history.append_string("let a = 1")
    assert history.path is None


def test_a_long_history_loses_its_older_half(tmp_path, monkeypatch):
    from dsl.repl import history
    monkeypatch.setattr(history, "MOST_BYTES", 2000)
    saved = history.SavedHistory(tmp_path / "history")
    for number in range(200):
        saved.append_string(f"let a = {number}")
    assert (tmp_path / "history").stat().st_size < 2200
    read = list(history.SavedHistory(tmp_path / "history").load_history_strings())
    assert read[0] == "let a = 199" and read == [f"let a = {n}" for n in range(199, 199 - len(read), -1)]


def test_the_memory_of_undo_is_bounded(typed, monkeypatch):
    from dsl.repl import state
    monkeypatch.setattr(state, "MOST_BYTES", 5 * 8 * 1000)
    typed("shared w[1000] = 1.0\nupdate w <- w + 1")
    for _ in range(20):
        typed("train 1 steps")
    assert 2 <= len(typed.repl.undone) <= 6
    typed(":undo")
    np.testing.assert_array_equal(typed.value("w"), np.full(1000, 20.0))


def test_large_arrays_that_nothing_needs_are_let_go(typed, monkeypatch):
    from dsl.repl import sweeping
    monkeypatch.setattr(sweeping, "LARGE", 8 * 1000)
    typed("data A = arange(1000)\nlet s = sum(A)\ndef f(x) = x + sum(A)")
    typed("A * 2.0")
    typed("let kept = sum(ans)\ndef g(x) = x + ans[1]")
    for number in range(5):
        typed(f"A + {number}.0")
        typed(f"data A = arange(1000) + {number}")
    large = [key for key in typed.session.values if key[0] == "data"]
    assert sorted(key[1] for key in large) == ["A", "ans", "ans"]
    assert typed("kept; s; f(1); g(1); sum(A)") == "999000.0\n503500\n503501\n3.0\n503500"
    typed(":undo 3")
    assert typed("s; sum(A)") == "500500\n500500"
