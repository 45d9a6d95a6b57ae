"""`m.train(…, on_step=f, on_epoch=g)`: what is called when, what it may do, and what follows from what it raises."""

from __future__ import annotations

import os
import signal
import threading
import warnings

import numpy as np
import pytest

import dsl

LINE = """seed 3
data x = linspace(-1, 1, 11)
data y = 2 * x + 1 + 0.33 * normal(11)
scalar X, Y
shared w = 0.0, b = 0.0, other = 1.0
model Y_bar = X * w + b
cost C = sqr(Y_bar - Y) * other
metric miss = abs(Y_bar - Y)
grad gw, gb = C wrt w, b
update w <- w - 0.1 * gw
update b <- b - 0.1 * gb
"""


@pytest.fixture(params=["cpu", "numpy"])
def model(request):
    return dsl.compile(LINE, device=request.param)


def train(model, **options):
    return model.train(**{"epochs": 3, "batch": 4, "X": model["x"], "Y": model["y"], **options})


def test_after_each_step(model):
    twin, seen = dsl.compile(LINE, device="numpy"), []
    x, y = twin["x"], twin["y"]

    def watch(step, metrics):
        low = (step - 1) % 3 * 4
        before = twin.eval("C", X=x[low : low + 4], Y=y[low : low + 4]).mean()
        miss = twin.eval("miss", X=x[low : low + 4], Y=y[low : low + 4]).mean()
        assert metrics == pytest.approx({"C": before, "miss": miss}, rel=1e-12) and all(type(v) is float for v in metrics.values())
        twin.step(X=x[low : low + 4], Y=y[low : low + 4])
        assert model["w"] == pytest.approx(twin["w"], rel=1e-12) and isinstance(step, int)
        seen.append(step)

    report = train(model, on_step=watch)
    assert seen == list(range(1, 10)) and report.steps == 9 and report.stopped is None


@pytest.mark.parametrize("words", [{}, {"steps": 7, "epochs": None}, {"shuffle": True}, {"epochs": 2, "batch": None}])
def test_watching_changes_nothing(model, words):
    twin = dsl.compile(LINE, device=model.session.elaborator.device)
    report, plain = train(model, on_step=lambda step, metrics: model["w"], on_epoch=lambda *_: None, **words), train(twin, **words)
    assert (model["w"], model["b"]) == (twin["w"], twin["b"])
    assert (report.steps, report.epochs, report.costs) == (plain.steps, plain.epochs, plain.costs)


@pytest.mark.parametrize("every", [2, 3, 4, 100])
def test_every_few_steps(model, every):
    seen = []
    train(model, on_step=lambda step, _: seen.append(step), every=every)
    assert seen == list(range(every, 10, every))


def test_after_each_epoch(model):
    seen = []
    report = train(model, on_epoch=lambda epoch, metrics: seen.append((epoch, metrics)), valid={"X": [0.5], "Y": [2.0]})
    assert [epoch for epoch, _ in seen] == [1, 2, 3]
    last = seen[-1][1]
    assert last == {"C": report.costs["C"], "miss": last["miss"], "valid C": report.valid["C"], "valid miss": report.valid["miss"]}
    seen.clear()
    train(model, steps=7, epochs=None, on_epoch=lambda epoch, metrics: seen.append(epoch))
    assert seen == [1, 2]


def test_counted_from_1_in_each_call(model):
    seen = []
    for _ in range(2):
        train(model, epochs=1, on_step=lambda step, _: seen.append(step))
    train(model, epochs=1)
    assert seen == [1, 2, 3, 1, 2, 3]


def test_setting_variables_between_steps(model):
    """Three steps, then the variables are set back: what follows is what begins there."""

    def restart(step, metrics):
        if step == 3:
            model["w"], model["b"], model["other"] = 0.25, 0.5, 2.0

    train(model, epochs=2, on_step=restart)
    twin = dsl.compile(LINE, device=model.session.elaborator.device)
    twin["w"], twin["b"], twin["other"] = 0.25, 0.5, 2.0
    train(twin, epochs=1)
    assert (model["w"], model["b"]) == (twin["w"], twin["b"]) and model["other"] == 2.0


def test_setting_at_the_last_step(model):
    train(model, on_step=lambda step, _: model.__setitem__("w", 7.0) if step == 9 else None)
    assert model["w"] == 7.0


def test_stop_iteration(model):
    def enough(step, metrics):
        if step == 5:
            raise StopIteration

    report = train(model, on_step=enough)
    assert (report.steps, report.epochs, report.stopped) == (5, 1, "on_step") and "on_step" in str(report)
    twin = dsl.compile(LINE, device=model.session.elaborator.device)
    assert train(twin, steps=5, epochs=None).costs == report.costs and twin["w"] == model["w"]

    def no_more(epoch, metrics):
        raise StopIteration

    assert train(model, on_epoch=no_more).stopped == "on_epoch"
    assert train(model).stopped is None


class Own(Exception):
    pass


@pytest.mark.parametrize("kind", [Own, ValueError, SystemExit])
def test_exceptions_come_through_with_the_state_of_that_step(model, kind):
    def fail(step, metrics):
        if step == 4:
            model["b"] = 9.0
            raise kind("no")

    with pytest.raises(kind, match="no"):
        train(model, on_step=fail)
    twin = dsl.compile(LINE, device=model.session.elaborator.device)
    train(twin, steps=4, epochs=None)
    assert model["w"] == twin["w"] and model["b"] == 9.0
    assert model.session.reports[-1].steps == 4
    assert train(model, epochs=1).steps == 3


def test_errors_of_the_language_in_a_callback(model):
    with pytest.raises(dsl.LrError) as caught:
        train(model, on_step=lambda *_: model["nothing"])
    assert caught.value.code == "E0301"
    for again in (lambda *_: train(model), lambda *_: model.step(X=1.0, Y=1.0), lambda *_: model.run()):
        with pytest.raises(dsl.LrError) as caught:
            train(model, on_step=again)
        assert caught.value.code == "E0902" and "while this model trains" in caught.value.message
    assert model.step(X=1.0, Y=1.0) >= 0


def test_another_model_may_train_inside(model):
    inner = dsl.compile(LINE)
    train(model, epochs=1, on_step=lambda *_: train(inner, epochs=1))
    assert inner.session.steps_before == 9


@pytest.mark.parametrize("wrong", [{"on_step": 3}, {"on_epoch": "f"}, {"on_step": print, "every": 0}, {"on_step": print, "every": 1.5}])
def test_wrong_callbacks(model, wrong):
    with pytest.raises(dsl.LrError) as caught:
        train(model, **wrong)
    assert caught.value.code == "E0902" and model["w"] == 0.0


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals come to the main thread")
def test_an_interruption_in_a_callback(model):
    def interrupt(step, metrics):
        if step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(dsl.Interrupted) as caught:
        train(model, on_step=interrupt)
    assert "step 4" in caught.value.message
    twin = dsl.compile(LINE, device=model.session.elaborator.device)
    train(twin, steps=4, epochs=None)
    assert model["w"] == twin["w"]


def test_warnings_of_a_callback_are_its_own(model):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(model, steps=1, epochs=None, on_step=lambda *_: np.log(np.float64(-1.0)))
    assert len(caught) == 1
