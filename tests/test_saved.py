"""Saved state: the file, what `load` takes, and trainings that go on, bit for bit, as if they had never stopped."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import numpy as np
import pytest
import safetensors.numpy

import dsl
from dsl.errors import FileTrouble, LrError
from dsl.runtime import saved
from dsl.runtime.train import Driver
from tests import soak_resume

ARRAYS = {
    "w": np.float64(-0.0), "W": np.arange(6.0).reshape(2, 3), "T": np.arange(6.0).reshape(2, 3).T, "every_other": np.arange(9.0)[::2],
    "f": np.array([1.5, np.inf], np.float32), "n": np.array([1, -(2**62)]), "i": np.int32(-7), "yes": np.array([True, False]),
    "no": np.bool_(False), "empty": np.zeros((0, 3)), "nan": np.array([0x7FF8DEADBEEF0001, -1]).view(np.float64),
}  # fmt: skip


def bits(value) -> tuple:
    array = np.asarray(value)
    return array.dtype, array.shape, array.tobytes()


def state(model) -> dict:
    """Everything that a training changes."""
    session = model.session
    kept = {k: bits(np.array(v)) for k, v in session.values.items() if k[0] in ("shared", "slot", "counter")}
    return {**kept, "steps": session.steps_before}


# ---------------------------------------------------------------- the file
def test_every_array_comes_back(tmp_path):
    path = tmp_path / "a.safetensors"
    saved.write(path, ARRAYS, {"lr": "x", "words": ["ä", 1]})
    found = saved.read(path)
    assert {n: bits(a) for n, a in found.arrays.items()} == {n: bits(a) for n, a in ARRAYS.items()}
    assert found.about == {"version": saved.VERSION, "lr": "x", "words": ["ä", 1]}
    theirs = safetensors.numpy.load_file(path)
    assert {n: bits(a) for n, a in theirs.items()} == {n: bits(a) for n, a in ARRAYS.items()}


def test_a_damaged_file_is_never_taken(tmp_path):
    path = tmp_path / "a.safetensors"
    saved.write(path, {"w": np.arange(4.0), "n": np.int64(3)}, {"lr": "x"})
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    wrong = [whole[:length] for length in range(0, len(whole), 7)] + [whole + b"\0"]
    for place in rng.integers(0, len(whole), 150):
        wrong.append(whole[:place] + bytes([whole[place] ^ 1 << int(rng.integers(8))]) + whole[place + 1 :])
    taken = 0
    for content in wrong:
        path.write_bytes(content)
        try:
            found = saved.read(path)
        except LrError as problem:
            assert problem.code == "E0614" and isinstance(problem, FileTrouble)
        else:  # a flip may hit the padding, or the word `lr` of the metadata: then it is another program's
            taken += 1
            assert found.about is None or bits(found.arrays["w"]) == bits(np.arange(4.0))
    assert taken < 20


@pytest.mark.parametrize(
    ("about", "words"), [({"version": 99, "lr": "7.0"}, "a later version of lr wrote it (7.0"), (3, "cannot be read"), ({}, "later")]
)
def test_a_file_of_another_version(tmp_path, about, words):
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file({"w": np.ones(2)}, path, {"lr": json.dumps(about)})
    with pytest.raises(FileTrouble, match=r"E0614") as caught:
        saved.read(path)
    assert words in caught.value.message


def test_a_dtype_that_the_language_lacks(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file({"w": np.ones(2, np.float16)}, path)
    with pytest.raises(FileTrouble) as caught:
        saved.read(path)
    assert caught.value.code == "E0614" and "`w` in it is f16" in caught.value.message


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch, call):
    path = tmp_path / "a.safetensors"
    saved.write(path, {"w": np.ones(2)}, {})
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(FileTrouble) as caught:
        saved.write(path, {"w": np.zeros(2)}, {})
    assert caught.value.code == "E0609" and "no space left on device" in caught.value.message
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.safetensors"]


def test_links_stay_and_what_a_killed_writer_left_goes(tmp_path):
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "m.safetensors"
    (tmp_path / "m.safetensors").symlink_to(target)
    child = subprocess.Popen(["true"])
    child.wait()
    left = tmp_path / f".m.safetensors.{child.pid}-{child.pid}.part"
    others = tmp_path / f".m.safetensors.{os.getppid()}-{os.getppid()}.part"
    left.touch(), others.touch()
    compiled('shared w = 1.0\nupdate w <- w + 1\ntrain 2 steps:\n  checkpoint "m.safetensors" every 1 steps', tmp_path).run()
    assert (tmp_path / "m.safetensors").is_symlink() and saved.read(target).arrays["w"] == 3.0
    assert not left.exists() and others.exists()


def test_threads_that_write_one_file(tmp_path):
    """Each writes beside it in a file of its own; the last one in place stays."""
    path, together, failed = tmp_path / "m.safetensors", threading.Barrier(2), []

    def writing(value):
        together.wait()
        try:
            for _ in range(40):
                saved.write(path, {"w": np.full(20_000, value)}, {})
                assert np.ptp(saved.read(path).arrays["w"]) == 0
        except Exception as problem:
            failed.append(problem)

    writers = [threading.Thread(target=writing, args=(value,)) for value in (1.0, 2.0)]
    [writer.start() for writer in writers]
    [writer.join() for writer in writers]
    assert not failed and os.listdir(tmp_path) == ["m.safetensors"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_log_that_cannot_be_written(tmp_path):
    model = compiled(ADAM + 'train 3 epochs over X = x, Y = y:\n  log "/dev/full"', tmp_path)
    with pytest.raises(FileTrouble, match="cannot write /dev/full: no space left on device"):
        model.run()
    assert model["n"] == 23


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    places = {"folder.safetensors": "it is a directory", "none/a.safetensors": "there is no directory", "a\0b.safetensors": ""}
    for name, words in places.items():
        with pytest.raises(FileTrouble) as caught:
            saved.write(tmp_path / name, {}, {})
        assert caught.value.code == "E0609" and words in caught.value.message
    with pytest.raises(FileTrouble) as caught:
        dsl.compile("shared w = 1.0").save(tmp_path / "a.npz")
    assert caught.value.code == "E0608"


# ---------------------------------------------------------------- save and load
MODEL = """
seed 4
data x = linspace(-1, 1, 20)
scalar X
shared w = 0.5, n = true
shared int k = 3
shared V[2] = normal(2)
cost C = sqr(dropout(X, 0.5) * w - sum(V) + normal())
minimize C wrt w, V using adam(rate = 0.1)
update k <- k + 1
"""
TRAIN = "train 3 epochs over X = x batch 6 shuffle\n"


def compiled(text, path, **options):
    return dsl.compile(text, out=path, **options)


@pytest.mark.usefixtures("device")
def test_load_then_train_is_as_if_never_saved(tmp_path):
    straight = compiled(MODEL + TRAIN, tmp_path)
    straight.run()
    straight.save("m.safetensors")
    assert set(safetensors.numpy.load_file(tmp_path / "m.safetensors")) == {
        "w", "n", "k", "V", "adam1.t", "adam1.w.m", "adam1.w.v", "adam1.V.m", "adam1.V.v"}  # fmt: skip
    other = compiled(MODEL + TRAIN, tmp_path)
    other.load("m.safetensors")
    assert state(other) == state(straight)
    for model in (straight, other):
        model.session.elaborator.trained = 1  # the second `train` of each, for its shuffle
        model.train(epochs=2, batch=5, X=np.linspace(0, 1, 12))
    assert state(other) == state(straight)
    straight.load("m.safetensors")
    assert straight["k"] == 15 and straight.session.steps_before == 12


def test_load_of_what_was_never_trained_begins_the_optimiser_anew(tmp_path):
    model = compiled(MODEL + TRAIN, tmp_path)
    model.save("m.safetensors")
    model.run()
    once = state(model)
    model.load("m.safetensors")
    assert model.session.steps_before == 0 and not np.asarray(model.session.values[("slot", "adam1.V.m", 0)]).any()
    model.session.elaborator.trained = 0
    model.run()
    assert state(model) == once


def test_statements(tmp_path):
    out = io.StringIO()
    model = compiled('shared w = 1.0\nupdate w <- w * 2\nsave "m.safetensors"\ntrain 3 steps\nprint w\nload "m.safetensors"\nprint w',
                     tmp_path, stdout=out)  # fmt: skip
    model.run()
    assert out.getvalue() == "8.0\n1.0\n"


def test_a_script_without_the_optimiser_takes_the_variables(tmp_path):
    trained = compiled(MODEL + TRAIN, tmp_path)
    trained.run()
    trained.save("m.safetensors")
    reader = compiled("shared w = 0.0, n = false\nshared int k = 0\nshared V[2] = 0.0", tmp_path)
    reader.load("m.safetensors")
    assert reader["w"] == trained["w"] and bits(reader["V"]) == bits(trained["V"])
    reader.save("n.safetensors")  # what it has no use for is not lost
    again = compiled(MODEL + TRAIN, tmp_path)
    again.load("n.safetensors")
    assert state(again) == state(trained)


def test_loading_fixes_sizes(tmp_path):
    safetensors.numpy.save_file({"W": np.ones((2 * 3, 4)), "b": np.ones(3)}, tmp_path / "m.safetensors")
    model = compiled("dim d, k\nmatrix X[n, d]\nshared W[2 * d, k] = 0.0, b[d] = 0.0\nlet s = d * 10 + k", tmp_path)
    with pytest.raises(LrError, match="E0214"):
        model.save("n.safetensors")
    model.load("m.safetensors")
    assert model["s"] == 34 and model["W"].shape == (6, 4)
    with pytest.raises(LrError, match=r"d = 3|E0211"):
        model.eval("sum(X) + d", X=np.ones((2, 5)))


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("shared w = 1.0", [("V", "[2] float64", "–")]),
        ("shared w = 1.0, V[3] = 0.0", [("V", "[2] float64", "[3] float64")]),
        ("dim d = 3\nshared w = 1.0, V[d] = 0.0", [("V", "[2] float64", "[d] float64, d = 3")]),
        ("shared w = 1.0, V[2] = 0.0, b = 1.0", [("b", "–", "float64")]),
        ("shared int w = 1\nshared V[2] = 0.0", [("w", "float64", "int64")]),
        ("precision float32\nshared w = 1.0, V[2] = 0.0", [("w", "float64", "float32"), ("V", "[2] float64", "[2] float32")]),
        ("shared w[2] = 1.0, V[d] = 0.0, Z[d] = 0.0", [("w", "float64", "[2] float64"), ("Z", "–", "[d] float64")]),
    ],
)
def test_a_state_of_other_variables(tmp_path, text, rows):
    compiled("shared w = 7.0, V[2] = 7.0", tmp_path).save("m.safetensors")
    model = compiled(text, tmp_path)
    before, sizes = state(model), model.session.sizes()
    with pytest.raises(LrError) as caught:
        model.load("m.safetensors")
    table = caught.value.diagnostic.notes[0].splitlines()
    assert caught.value.code == "E0615" and [tuple(re.split(" {2,}", line)) for line in table[1:]] == rows
    assert state(model) == before and model.session.sizes() == sizes
    assert ("`precision float64`" in str(caught.value)) == text.startswith("precision")


def test_another_optimiser(tmp_path):
    first = compiled("shared w = 1.0\ncost C = sqr(w)\nminimize C wrt w using adam()\ntrain 3 steps", tmp_path)
    first.run()
    first.save("m.safetensors")
    other = compiled("shared w = 1.0\ncost C = sqr(w)\nminimize C wrt w using momentum()\ntrain 3 steps", tmp_path)
    with pytest.raises(LrError, match=r"adam1\.w\.m"):
        other.load("m.safetensors")
    assert other["w"] == 1.0


def test_load_is_read_beside_the_script(tmp_path):
    (tmp_path / "script").mkdir()
    safetensors.numpy.save_file({"w": np.array(5.0)}, tmp_path / "script" / "m.safetensors")
    (tmp_path / "script" / "a.lr").write_text('shared w = 1.0\nload "m.safetensors"')
    assert dsl.run(tmp_path / "script" / "a.lr", out=tmp_path)["w"] == 5.0
    with pytest.raises(FileTrouble, match="E0601"):
        compiled('shared w = 1.0\nload "none.safetensors"', tmp_path).run()


# ---------------------------------------------------------------- pausing and going on
DATA = """
seed 5
data x = linspace(-1, 1, 23)
data y = 2 * x + 1 + 0.33 * normal(23)
data xv = linspace(-1, 1, 7)
data yv = 2 * xv + 1
scalar X, Y
shared w = 0.0, b = 0.0, drift = 0.0
shared int n = 0
let slow = 0.1
cost C = mean(sqr(dropout(X, 0.2) * w + b - Y))
metric far = abs(X * w + b - Y)
"""
ADAM = DATA + """
minimize C wrt w, b using adam(rate = 0.05)
update drift <- 0.9 * drift + normal()
update n <- n + 1
"""
EVERYTHING = ADAM + """
train 9 epochs over X = x, Y = y batch 4 shuffle drop_last until C < 0.01:
  valid X = xv, Y = yv
  stop after 3 epochs without lower far
  every 7 steps: print n, C, far
  every 2 epochs: print C
  rate = warmup(5, cosine(0.1, 0.001))
  clip norm 1
  checkpoint "m.safetensors" every 5 steps best
  log "run.jsonl"
print "end", n, w
"""
STEPS = DATA.replace("scalar X, Y", "vector X[k], Y[k]").replace("abs(X * w + b - Y)", "mean(abs(X * w + b - Y))") + """
step critic:
  minimize C wrt w using momentum(rate = 0.05)
step actor:
  update b <- b - slow * 0.1 * sum(X)
  update n <- n + 1
train 50 steps over X = x, Y = y batch 5 shuffle of critic, actor until far < 0.001:
  slow = exponential(0.01, 0.9)
  every 9 steps: print C, far
  checkpoint "m.safetensors" every 2 epochs
  log "run.jsonl"
print "end", n, w
"""
ROWS = ADAM + """
train 4 epochs over X = x, Y = y:
  every 1 epochs: print C
  checkpoint "m.safetensors" every 11 steps best
print "end", n, w
"""
SCRIPTS = {"everything": EVERYTHING, "steps": STEPS, "rows": ROWS}


class Killed(BaseException):
    """What `kill -9` is to a script: nothing of lr runs after it."""


def cut(monkeypatch, places, how):
    """A training is stopped after these steps, each once: by Ctrl-C, or at once and without a word."""
    left = sorted(places)
    advance = Driver.advance

    def advanced(self, count, steps):
        upcoming = [p - self.report.steps for p in left if p > self.report.steps]
        advance(self, min([count, *upcoming]), steps)
        if self.report.steps in left:
            left.remove(self.report.steps)
            if how is Killed:
                raise Killed
            self.flag.raised = True

    monkeypatch.setattr(Driver, "advance", advanced)


class Script:
    """A script in a folder of its own, run piece by piece; what it prints is put together."""

    def __init__(self, text, folder):
        self.text, self.folder, self.out = text, folder, io.StringIO()

    def model(self):
        self.last = dsl.compile(self.text, out=self.folder, stdout=self.out)
        return self.last

    def result(self):
        report = self.last.session.reports[-1]
        log = self.folder / "run.jsonl"
        return {
            **state(self.last),
            "out": self.out.getvalue(),
            "log": log.exists() and log.read_text(),
            "reports": len(self.last.session.reports),
            "report": (report.epochs, report.steps, report.costs, report.valid, report.stopped),
        }


@pytest.fixture
def folders(tmp_path):
    def made(name):
        (tmp_path / name).mkdir()
        return tmp_path / name

    return made


def until_the_end(script):
    """Lives of a script, until one of them reaches its end."""
    for life in range(60):
        try:
            script.model().run(resume=True)
            return life + 1
        except (dsl.Interrupted, Killed):
            pass
    raise AssertionError("no end")


PLACES = [[1], [6], [3, 7, 8, 20, 21], range(1, 40)]


@pytest.mark.parametrize("places", PLACES, ids=str)
@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.usefixtures("device")
def test_an_interrupted_training_goes_on(name, places, folders, monkeypatch):
    straight = Script(SCRIPTS[name], folders("straight"))
    straight.model().run()
    cut(monkeypatch, places, "Ctrl-C")
    halting = Script(SCRIPTS[name], folders("halting"))
    model, session = halting.model(), halting.last.session
    stops = 0
    try:
        model.run()
    except dsl.Interrupted as problem:
        assert problem.code == "E0721"
    while session.paused is not None:
        stops += 1
        assert session.steps_before == session.paused.steps
        with suppress(dsl.Interrupted):
            session.go_on()
    assert stops == len([p for p in places if p <= session.reports[-1].steps])
    session.run(session.items[-1:])
    assert halting.result() == straight.result()
    assert session.reports[-1].steps > 30


@pytest.mark.parametrize("how", ["Ctrl-C", Killed], ids=["ctrl_c", "killed"])
@pytest.mark.parametrize("places", [[3, 8, 18]], ids=str)
@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.usefixtures("device")
def test_a_script_is_resumed(name, places, how, folders, monkeypatch):
    straight = Script(SCRIPTS[name], folders("straight"))
    straight.model().run()
    cut(monkeypatch, places, how)
    halting = Script(SCRIPTS[name], folders("halting"))
    until_the_end(halting)
    found, wanted = halting.result(), straight.result()
    if how is Killed:  # what was printed after the last checkpoint is printed again
        lines = wanted.pop("out").splitlines()
        printed = found.pop("out").splitlines()
        assert set(printed) == set(lines) and printed[-1] == lines[-1]
    assert found == wanted
    again = halting.model()
    again.run(resume=True)
    assert halting.result() | {"out": 0} == wanted | {"out": 0}


TWICE = DATA + """
print "begun"
minimize C wrt w, b using adam()
train 3 epochs over X = x, Y = y batch 5:
  checkpoint "{first}" every 4 steps
print "between", w
train 40 steps over X = x, Y = y batch 6 shuffle:
  log "run.jsonl"
train 2 epochs over X = x, Y = y:
  checkpoint "{last}" every 10 steps
print "end", w
"""


@pytest.mark.parametrize("files", [("a.safetensors", "a.safetensors"), ("a.safetensors", "b.safetensors")], ids=["one", "two"])
@pytest.mark.parametrize("place", [1, 4, 30, 46])
def test_several_trainings(files, place, folders, monkeypatch):
    """The place is one of the first of the three that gets so far; what came before the last checkpoint is not done again."""
    text = TWICE.format(first=files[0], last=files[1])
    straight = Script(text, folders("straight"))
    straight.model().run()
    cut(monkeypatch, [place], Killed)
    halting = Script(text, folders("halting"))
    assert until_the_end(halting) == 2
    found, wanted = halting.result(), straight.result()
    lines, printed = wanted.pop("out").splitlines(), found.pop("out").splitlines()
    assert printed[-1] == lines[-1] and set(printed) == set(lines)
    assert printed.count("begun") == (2 if place <= 4 else 1)      # killed at step 4 it had not written yet
    assert {**found, "reports": 0} == {**wanted, "reports": 0}
    out = halting.out.getvalue()
    halting.model().run(resume=True)
    assert halting.out.getvalue() == out and state(halting.last) == state(straight.last)


def test_a_training_without_a_checkpoint_is_made_again(folders, monkeypatch):
    """What follows the last checkpoint begins at its end."""
    text = TWICE.format(first="a.safetensors", last="a.safetensors")
    straight = Script(text, folders("straight"))
    straight.model().run()
    cut(monkeypatch, [20], Killed)  # in the second
    halting = Script(text, folders("halting"))
    with pytest.raises(Killed):
        halting.model().run()
    remarks = io.StringIO()
    model = dsl.compile(text, out=halting.folder, stdout=io.StringIO(), stderr=remarks, quiet=False)
    model.run(resume=True)
    assert re.search(r"after the `train` in line \d+\n", remarks.getvalue()) and state(model) == state(straight.last)


# ---------------------------------------------------------------- the best
@pytest.mark.usefixtures("device")
def test_the_best_state_is_kept(tmp_path):
    """Of a cost that falls and rises again: at the end, in the file, and for whoever loads it in between."""
    text = """
shared w = 0.0
cost C = sqr(w - 7)
update w <- w + 1 + 0 * C
train {} steps:
  checkpoint "m.safetensors" every 2 steps best
"""
    model = compiled(text.format(20), tmp_path)
    model.run()
    # The cost of a step is that of the state before it; the epoch of a training without data is a step.
    assert model["w"] == 8.0 and safetensors.numpy.load_file(tmp_path / "m.safetensors")["w"] == 8.0
    assert model.session.reports[-1].steps == 20 and model.session.steps_before == 20


def test_the_last_state_is_beside_the_best(tmp_path, monkeypatch):
    text = """
shared w = 0.0
cost C = sqr(w - 7)
update w <- w + 1 + 0 * C
train 40 steps:
  checkpoint "m.safetensors" every 2 steps best
"""
    cut(monkeypatch, [15], "Ctrl-C")
    with pytest.raises(dsl.Interrupted):
        compiled(text, tmp_path).run()
    found = safetensors.numpy.load_file(tmp_path / "m.safetensors")
    assert (found["w"], found["last/w"]) == (8.0, 15.0)
    reader = compiled(text, tmp_path)
    reader.load("m.safetensors")
    assert reader["w"] == 8.0
    resumed = compiled(text, tmp_path)
    resumed.run(resume=True)
    assert resumed["w"] == 8.0 and resumed.session.reports[-1].steps == 40


@pytest.mark.usefixtures("device")
def test_stop_says_what_is_best(tmp_path):
    text = """
shared k = 0.0
metric acc = 10 - sqr(k - 4)
update k <- k + 1
train 100 epochs:
  stop after 3 epochs without higher acc
  checkpoint "m.safetensors" every 50 epochs best
"""
    model = compiled(text, tmp_path)
    model.run()
    report = model.session.reports[-1]
    assert (report.stopped, report.epochs, model["k"]) == ("no higher acc", 8, 5.0)
    last = compiled(text.replace(" best", ""), tmp_path)
    last.run()
    assert last["k"] == 8.0


# ---------------------------------------------------------------- what keeps a script from going on
RESUMED = """
seed 2
data A = linspace(0, 1, 9)
let rate = 0.1
scalar a
shared w = 1.0
cost C = sqr(w - a)
grad g = C wrt w
update w <- w - rate * g
train 4 epochs over a = A:
  checkpoint "m.safetensors" every 1 epochs
print w
"""


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (("sqr(w - a)", "abs(w - a)"), {}, "cost C = abs(w - a)"),
        (("4 epochs", "5 epochs"), {}, "train 5 epochs"),
        ((RESUMED[RESUMED.index("shared"):], "shared w = 1.0\n"), {}, "it had more statements"),
        ((), {"data": {"A": np.linspace(0, 2, 9)}}, "other numbers"),
        ((), {"seed": 3}, "written with `seed 2`, and this is `seed 3`"),
        ((), {"precision": "float32"}, "`precision float32`"),
        ((), {"set": {"rate": 0.2}}, "written with no `--set`, and this is `--set rate=0.2`"),
    ],
)  # fmt: skip
def test_another_script_or_other_data(tmp_path, change, options, words):
    compiled(RESUMED, tmp_path).run()
    before = (tmp_path / "m.safetensors").read_bytes()
    model = compiled(RESUMED.replace(*change) if change else RESUMED, tmp_path, **options)
    with pytest.raises(FileTrouble) as caught:
        model.run(resume=tmp_path / "m.safetensors")
    assert caught.value.code == "E0616" and words in str(caught.value)
    assert model["w"] == 1.0 and (tmp_path / "m.safetensors").read_bytes() == before


def test_data_of_another_device(tmp_path):
    """Draws differ in their last bits there, which nobody sees in what is printed."""
    text = RESUMED.replace("linspace(0, 1, 9)", "exp(3 * normal(2000))").replace("train 4", "train 1")
    compiled(text, tmp_path, device="cpu").run()
    with pytest.raises(FileTrouble) as caught:
        compiled(text, tmp_path, device="cpu", data={"A": np.zeros(2000)}).run(resume=True)
    assert "on `device" not in str(caught.value)
    with pytest.raises(FileTrouble, match="written on `device cpu`, and this is `device numpy`"):
        compiled(text, tmp_path, device="numpy").run(resume=True)


def test_what_may_change(tmp_path):
    """Layout, comments, and what comes after the training."""
    compiled(RESUMED, tmp_path).run()
    text = RESUMED.replace("sqr(w - a)", "sqr( w-a )   # the cost") + 'print "more"'
    out = io.StringIO()
    model = compiled(text, tmp_path, stdout=out)
    model.run(resume=True)
    assert out.getvalue().endswith("more\n") and model.session.reports[-1].epochs == 4


def test_no_checkpoint_to_go_on_from(tmp_path):
    remarks = io.StringIO()
    model = compiled(RESUMED, tmp_path, stdout=io.StringIO(), stderr=remarks, quiet=False)
    model.run(resume=True)
    assert remarks.getvalue().startswith("no checkpoint yet: from the beginning\n") and model.session.reports[-1].epochs == 4
    model.save("s.safetensors")
    safetensors.numpy.save_file({"w": np.ones(1)}, tmp_path / "t.safetensors")
    for name, words in (("s", "written by `save`"), ("t", "another program")):
        with pytest.raises(FileTrouble, match=words):
            compiled(RESUMED, tmp_path).run(resume=tmp_path / f"{name}.safetensors")
    with pytest.raises(FileTrouble, match="E0616"):
        compiled("let a = 1", tmp_path).run(resume=True)


# ---------------------------------------------------------------- what else may happen
FOREVER = 'shared a = 0.0, b = 0.0\nupdate a <- a + 1\nupdate b <- a\ntrain 10000 steps:\n  every 500 steps: print a\n'


def interactive(text, **options):
    session = dsl.Session(interactive=True, quiet=True, stdout=io.StringIO(), **options)
    entered(session, text)
    return session


def entered(session, text):
    for item in session.load(dsl.errors.Source("<repl>", text)):
        if not isinstance(item, dsl.syntax.program.SharedState):
            session.execute([item])


def test_train_by_itself(monkeypatch):
    cut(monkeypatch, [700], "Ctrl-C")
    session = interactive(FOREVER.partition("train")[0])
    with pytest.raises(dsl.Interrupted):
        entered(session, FOREVER[FOREVER.index("train"):])
    assert str(session.paused) == "interrupted after step 700 of 10000"
    entered(session, "train")
    assert session.paused is None and np.asarray(session.values[("shared", "a", 0)]) == 10000
    assert session.stdout.getvalue().splitlines() == [f"{500.0 * i}" for i in range(1, 21)]
    with pytest.raises(LrError, match="E0422"):
        entered(session, "train")
    with pytest.raises(LrError, match="E0422"):
        dsl.compile("train")


def test_what_is_set_in_between_is_taken(monkeypatch):
    cut(monkeypatch, [10], "Ctrl-C")
    model = dsl.compile("shared a = 0.0\nupdate a <- a + 1\ntrain 30 steps")
    with pytest.raises(dsl.Interrupted):
        model.run()
    model["a"] = 1000.0
    assert model.session.go_on().steps == 30 and model["a"] == 1020.0


def test_what_ends_a_pause(monkeypatch):
    """Another training, a step, a state that is loaded; updates or data that are bound again."""
    cut(monkeypatch, [10, 11], "Ctrl-C")
    text = "data A = ones(40)\nscalar x\nshared a = 0.0\nupdate a <- a + x\n"
    train = "train 30 steps over x = A"
    for then in ("train 2 steps over x = A", "update a <- a + 2 * x", "data A = zeros(40)", "let b = a"):
        monkeypatch.undo()
        cut(monkeypatch, [10], "Ctrl-C")
        session = interactive(text)
        with pytest.raises(dsl.Interrupted):
            entered(session, train)
        entered(session, then)
        if "let" not in then:
            with pytest.raises(LrError, match="E0422"):
                session.go_on()
        else:
            assert session.go_on().steps == 30


def test_a_pause_stays_what_it_is(monkeypatch):
    """Going on twice from one place, as after an undo, gives the same twice."""
    cut(monkeypatch, [20], "Ctrl-C")
    model = dsl.compile(ADAM + "train 9 epochs over X = x, Y = y batch 4 shuffle")
    with pytest.raises(dsl.Interrupted):
        model.run()
    session, kept = model.session, dict(model.session.values)
    paused = session.interrupted
    session.go_on()
    once = state(model)
    session.values.clear()
    session.values.update(kept)
    session.steps_before, session.interrupted = 20, paused
    session.go_on()
    assert state(model) == once


def test_an_error_between_steps_leaves_a_place(tmp_path):
    """A disk that is full: what can be done about it is done, and the training goes on."""
    (tmp_path / "m.safetensors").mkdir()
    text = ADAM + 'train 9 epochs over X = x, Y = y batch 4:\n  every 3 steps: print n\n  checkpoint "m.safetensors" every 10 steps'
    out, straight = io.StringIO(), io.StringIO()
    model = compiled(text, tmp_path, stdout=out)
    with pytest.raises(FileTrouble, match="E0609"):
        model.run()
    (tmp_path / "m.safetensors").rmdir()
    assert model.session.go_on().steps == 54
    other = compiled(text, tmp_path, stdout=straight)
    other.run()
    assert state(model) == state(other) and out.getvalue() == straight.getvalue()


def test_what_follows_a_step_is_done_again_if_it_was_cut_off(folders):
    """The log has each epoch once, patience counts each once, and what could not be written is written."""
    text = ADAM + """
train 9 epochs over X = x, Y = y batch 4:
  every 2 epochs:
    save n to "n.csv"
    print C
  stop after 4 epochs without lower C
  log "run.jsonl"
"""
    straight, halting = Script(text, folders("straight")), Script(text, folders("halting"))
    straight.model().run()
    (halting.folder / "n.csv").mkdir()
    with pytest.raises(FileTrouble, match="E0609"):
        halting.model().run()
    assert halting.last.session.paused.steps == 12 and not halting.out.getvalue()
    (halting.folder / "n.csv").rmdir()
    halting.last.session.go_on()
    assert halting.result() == straight.result()
    assert (halting.folder / "n.csv").read_text() == (straight.folder / "n.csv").read_text()


def test_arrays_from_python_go_on(monkeypatch):
    cut(monkeypatch, [7], "Ctrl-C")
    model, other = dsl.compile(ADAM), dsl.compile(ADAM)
    arrays = {"X": np.linspace(0, 1, 11), "Y": np.linspace(1, 0, 11)}
    with pytest.raises(dsl.Interrupted):
        model.train(epochs=4, batch=3, **arrays)
    model.session.go_on()
    other.train(epochs=4, batch=3, **arrays)
    assert state(model) == state(other)
    model.train(epochs=1, batch=3, **arrays)
    other.train(epochs=1, batch=3, **arrays)
    assert state(model) == state(other)


# ---------------------------------------------------------------- processes
@pytest.mark.child_process
def test_ctrl_c_writes_a_checkpoint(tmp_path):
    script = tmp_path / "long.lr"
    script.write_text(FOREVER.replace("10000", "100000000") + '  checkpoint "m.safetensors" every 1000000 epochs\n')
    command = [sys.executable, "-u", "-m", "dsl", "run", str(script), "--resume", "--out", str(tmp_path)]
    steps = 0
    for words in ("no checkpoint yet", "on from"):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert process.returncode == 130 and "Traceback" not in err and words in err, err
        assert f"`--resume` goes on from {'m.safetensors'}" in err
        found = safetensors.numpy.load_file(tmp_path / "m.safetensors")
        assert found["a"] == found["b"] + 1 > steps
        steps = found["a"]


@pytest.mark.child_process
def test_killed_again_and_again(tmp_path):
    done = soak_resume.soak(4, tmp_path, first=60, second=300)
    assert done.kills >= 4
