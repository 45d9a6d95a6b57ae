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
from pathlib import Path

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
    ("about", "words"), [({"version": 99, "lr": "7.0"}, "a later version of lr wrote it (7.0"), (3, "cannot be read"), ({}, "later version")]
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


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    for name, words in (("folder.safetensors", "it is a directory"), ("none/a.safetensors", "there is no directory"), ("a\0b.safetensors", "")):
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
    assert model.session.steps_before == 0 and not model.session.values[("slot", "adam1.V.m", 0)].any()
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
STEPS = DATA.replace("scalar X, Y", "vector X[k], Y[k]").replace("metric far = abs(X * w + b - Y)", "metric far = mean(abs(X * w + b - Y))") + """
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
    advance, interrupted = Driver.advance, Driver.interrupted

    def advanced(self, count, steps):
        upcoming = [p - self.report.steps for p in left if p > self.report.steps]
        advance(self, min([count, *upcoming]), steps)
        if self.report.steps in left:
            left.remove(self.report.steps)
            if how is Killed:
                raise Killed
            self.flag.raised = True

    monkeypatch.setattr(Driver, "advance", advanced)
    return interrupted


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
        return {**state(self.last), "out": self.out.getvalue(), "log": log.exists() and log.read_text(), "reports": len(self.last.session.reports),
                "report": (report.epochs, report.steps, report.costs, report.valid, report.stopped)}  # fmt: skip


@pytest.fixture
def folders(tmp_path):
    def made(name):
        (tmp_path / name).mkdir()
        return tmp_path / name

    return made


PLACES = [[1], [4], [5], [6], [3, 7, 8, 20, 21], range(1, 40)]


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
        try:
            session.go_on()
        except dsl.Interrupted:
            pass
    assert stops == len([p for p in places if p <= session.reports[-1].steps])
    session.run(session.items[-1:])
    assert halting.result() == straight.result()
    assert session.reports[-1].steps > 30


@pytest.mark.parametrize("how", ["Ctrl-C", Killed], ids=["ctrl_c", "killed"])
@pytest.mark.parametrize("places", PLACES, ids=str)
@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.usefixtures("device")
def test_a_script_is_resumed(name, places, how, folders, monkeypatch):
    straight = Script(SCRIPTS[name], folders("straight"))
    straight.model().run()
    cut(monkeypatch, places, how)
    halting = Script(SCRIPTS[name], folders("halting"))
    for _ in range(60):
        try:
            halting.model().run(resume=True)
            break
        except (dsl.Interrupted, Killed):
            pass
    found, wanted = halting.result(), straight.result()
    if how is Killed:  # what was printed after the last checkpoint is printed again
        lines = wanted.pop("out").splitlines()
        printed = found.pop("out").splitlines()
        assert set(printed) == set(lines) and printed[-1] == lines[-1]
    assert found == wanted
    again = halting.model()
    again.run(resume=True)
    assert halting.result() | {"out": 0} == wanted | {"out": 0}
