"""Training: what every word of `train` means, against plain NumPy loops."""

from __future__ import annotations

import io
import json
import math
import signal
import subprocess
import sys

import numpy as np
import pytest

import dsl

pytestmark = pytest.mark.usefixtures("device")

LINE = """
data x = linspace(-1, 1, {rows})
data y = 2 * x + 1 + 0.33 * normal({rows})
scalar X, Y
shared w = 0.0, b = 0.0
cost C = mean(sqr(X * w + b - Y))
metric far = abs(X * w + b - Y)
grad gw, gb = C wrt w, b
update w <- w - 0.1 * gw
update b <- b - 0.1 * gb
"""


def compiled(text: str, **options) -> dsl.Model:
    return dsl.compile(text, **options)


def trained(text: str, **options) -> dsl.Model:
    model = dsl.compile(text, **options)
    model.run()
    return model


def output(text: str, **options) -> str:
    stream = io.StringIO()
    trained(text, stdout=stream, **options)
    return stream.getvalue()


def problem(text: str, **options) -> dsl.LrError:
    with pytest.raises(dsl.LrError) as caught:
        trained(text, **options)
    return caught.value


def report(model: dsl.Model) -> dsl.Report:
    return model.session.reports[-1]


def line_loop(x, y, epochs, size=1, drop_last=False, order=None, steps=None, rate=0.1, w=0.0, b=0.0):
    """The line fitted by steps over batches of `size` rows: w, b, and the cost of the last whole or broken epoch."""
    taken, cost = 0, math.nan
    for epoch in range(epochs):
        rows = np.arange(len(x)) if order is None else order(epoch)
        total = weight = 0.0
        for low in range(0, len(x), size):
            chosen = rows[low : low + size]
            if drop_last and len(chosen) < size:
                continue
            residual = x[chosen] * w + b - y[chosen]
            total, weight = total + np.sum(residual**2), weight + len(chosen)
            w, b = w - rate * np.mean(2 * residual * x[chosen]), b - rate * np.mean(2 * residual)
            taken += 1
            if taken == steps:
                return w, b, total / weight
        cost = total / weight
    return w, b, cost


def check_line(model, expected, tolerance=1e-12):
    w, b, cost = expected
    np.testing.assert_allclose([model["w"], model["b"]], [w, b], rtol=0, atol=tolerance)
    assert report(model).cost == pytest.approx(cost, rel=1e-12)


# ---------------------------------------------------------------- rows and batches
@pytest.mark.parametrize("rows", [1, 2, 7, 10])
@pytest.mark.parametrize(
    ("words", "size", "drop"),
    [
        ("", 1, False),
        ("batch 1", 1, False),
        ("batch 3", 3, False),
        ("batch 3 drop_last", 3, True),
        ("batch 5", 5, False),
        ("batch 10", 10, False),
        ("batch 100", 100, False),
    ],
)
def test_mapped_rows(rows, words, size, drop):
    text = LINE.format(rows=rows) + f"train 4 epochs over X = x, Y = y {words}"
    if drop and rows < size:
        assert problem(text).code == "E0420"
        return
    model = trained(text)
    check_line(model, line_loop(model["x"], model["y"], 4, size, drop))
    steps = rows // size if drop else -(-rows // size)
    assert (report(model).epochs, report(model).steps) == (4, 4 * steps)


@pytest.mark.parametrize(("words", "size"), [("", 10), ("batch 4", 4), ("batch 4 drop_last", 4), ("batch 10", 10)])
def test_equal_rank(words, size):
    model = trained(
        LINE.format(rows=10)
        .replace("scalar", "vector")
        .replace("X, Y", "X[n], Y[n]", 1)
        .replace("abs(X", "mean(abs(X")
        .replace("b - Y)\ngrad", "b - Y))\ngrad")
        + f"train 6 epochs over X = x, Y = y {words}"
    )
    check_line(model, line_loop(model["x"], model["y"], 6, size, "drop_last" in words))


def test_whole_batch_mapped_equals_equal_rank():
    mapped = trained(LINE.format(rows=12) + "train 5 epochs over X = x, Y = y batch 12")
    check_line(mapped, line_loop(mapped["x"], mapped["y"], 5, 12))


@pytest.mark.parametrize("steps", [1, 3, 4, 5, 10, 11])
@pytest.mark.parametrize(("words", "size", "drop"), [("", 1, False), ("batch 3", 3, False), ("batch 3 drop_last", 3, True)])
def test_steps_wrap_at_row_0(steps, words, size, drop):
    model = trained(LINE.format(rows=4) + f"train {steps} steps over X = x, Y = y {words}")
    w, b, _ = line_loop(model["x"], model["y"], 99, size, drop, steps=steps)
    np.testing.assert_allclose([model["w"], model["b"]], [w, b], rtol=0, atol=1e-13)
    assert report(model).steps == steps
    a_epoch = {"": 4, "batch 3": 2, "batch 3 drop_last": 1}[words]
    assert report(model).epochs == steps // a_epoch


def test_no_steps():
    model = trained(LINE.format(rows=3) + "train 0 epochs over X = x, Y = y\ntrain 0 steps over X = x, Y = y")
    assert model["w"] == 0.0 and report(model).cost is None and report(model).epochs == 0


def test_without_data():
    model = trained("shared w = 10.0\ncost C = sqr(w - 3)\ngrad g = C wrt w\nupdate w <- w - 0.25 * g\ntrain 5 epochs\ntrain 3 steps")
    w = 10.0
    for _ in range(8):
        w -= 0.25 * 2 * (w - 3)
    assert model["w"] == pytest.approx(w, rel=1e-14)
    assert [r.steps for r in model.session.reports] == [5, 3]


def test_updates_without_cost():
    model = trained("shared k = 0.0\nupdate k <- k + 1\ntrain 7 steps")
    assert model["k"] == 7.0 and report(model).cost is None


def test_row_vectors_and_matrices():
    """Inputs of rank 1 mapped over a matrix of rows, and a fixed matrix read as data."""
    model = trained("""
data A = normal(9, 3)
data t = normal(9)
data P = normal(3, 3)
vector x[d]
scalar y
shared w[d] = 0.0
cost C = sqr((x @ P) @ w - y)
grad g = C wrt w
update w <- w - 0.05 * g
train 3 epochs over x = A, y = t batch 4
""")
    A, t, P = model["A"], model["t"], model["P"]
    w = np.zeros(3)
    for _ in range(3):
        for low in range(0, 9, 4):
            Z = A[low : low + 4] @ P
            w = w - 0.05 * 2 * Z.T @ (Z @ w - t[low : low + 4]) / len(Z)
    np.testing.assert_allclose(model["w"], w, rtol=0, atol=1e-13)


def test_metrics_are_means_over_rows():
    model = compiled(LINE.format(rows=10))
    found = output(LINE.format(rows=10) + "train 1 epochs over X = x, Y = y batch 4:\n  every 1 epochs: print C, far")
    x, y = model["x"], model["y"]
    w = b = 0.0
    far = []
    for low in range(0, 10, 4):
        r = x[low : low + 4] * w + b - y[low : low + 4]
        far += list(abs(r))
        w, b = w - 0.1 * np.mean(2 * r * x[low : low + 4]), b - 0.1 * np.mean(2 * r)
    assert float(found.split()[1]) == pytest.approx(np.mean(far), rel=1e-13)


def test_mapped_value_in_an_update_is_an_error():
    found = problem(LINE.format(rows=4) + "shared s = 0.0\nupdate s <- s + X\ntrain 1 epochs over X = x, Y = y batch 2")
    assert found.code == "E0419"
    one = trained(LINE.format(rows=4) + "shared s = 0.0\nupdate s <- s + X\ntrain 1 epochs over X = x, Y = y")
    assert one["s"] == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("words", ["batch 0", "batch 2.5", "batch -1"])
def test_wrong_batches(words):
    assert problem(LINE.format(rows=4) + f"train 1 epochs over X = x, Y = y {words}").code == "E0415"


def test_no_rows():
    model = compiled(LINE.format(rows=4))
    with pytest.raises(dsl.LrError) as caught:
        model.train(epochs=1, X=[], Y=[])
    assert caught.value.code == "E0420"


def test_counts_may_be_names():
    model = trained("let n = 3\ndim k = 4\n" + LINE.format(rows=10) + "train int(n) epochs over X = x, Y = y batch k")
    check_line(model, line_loop(model["x"], model["y"], 3, 4))


# ---------------------------------------------------------------- data of all kinds
@pytest.mark.parametrize(
    ("dtype", "good"), [("float", [0.5, 1.0, 2.0]), ("int", [1.0, 2.0, 3.0]), ("int32", [1, 2, 3]), ("bool", [True, False, True])]
)
def test_input_dtypes(dtype, good):
    model = compiled(f"{dtype} scalar X\nshared s = 0.0\nupdate s <- s + float(X)\n")
    for values in (good, np.array(good, dtype="float32"), np.array(good, dtype=object).astype(float)):
        model["s"] = 0
        model.train(epochs=1, X=values)
        assert model["s"] == sum(map(float, good))


def test_integer_input_with_fractions():
    model = compiled("int scalar X\nshared s = 0.0\nupdate s <- s + X\n")
    for call in (
        lambda: model.train(epochs=1, X=[1.0, 2.5]),
        lambda: model.step(X=[1.0, 2.5]),
        lambda: model.eval("X", X=2.5),
        lambda: model.train(epochs=1, X=[1.0, math.nan]),
    ):
        with pytest.raises(dsl.LrError) as caught:
            call()
        assert caught.value.code == "E0203"
    assert model["s"] == 0.0


def test_nan_in_data_stops_training_where_it_is_read():
    model = compiled(LINE.format(rows=5))
    y = np.array([1.0, 2.0, np.nan, 4.0, 5.0])
    with pytest.raises(dsl.Diverged, match="step 3"):
        model.train(epochs=2, X=np.arange(5.0), Y=y)
    w, b, _ = line_loop(np.arange(2.0), y[:2], 1)
    assert (model["w"], model["b"]) == (w, b)


def test_nan_in_data_masked_out_is_fine():
    model = compiled(
        "vector y[n]\nshared m = 0.0\nlet seen = not isnan(y)\ncost C = sum(where(seen, sqr(y - m), 0)) / sum(seen)\n"
        "grad g = C wrt m\nupdate m <- m - 0.5 * g"
    )
    model.train(epochs=1, y=[1.0, np.nan, 3.0])
    assert model["m"] == 2.0


# ---------------------------------------------------------------- shuffle
ORDER = "scalar X\nshared digits = 0.0\nupdate digits <- 10 * digits + X\n"


def orders(text, epochs, **options):
    model = compiled(text, **options)
    found = []
    for _ in range(epochs):
        model["digits"] = 0
        model.run()
        found.append(str(int(model["digits"])).zfill(8))
    return found


def test_shuffle_is_a_permutation_new_each_epoch():
    model = compiled(
        "data x = arange(10)\nscalar X\nshared seen[k] = zeros(10), t = 0.0\n"
        "update seen <- seen + one_hot(int(X), 10) * (t + 1)\nupdate t <- t + 1\ntrain 3 epochs over X = x shuffle"
    )
    model.run()
    assert model["seen"].sum() == sum(range(1, 31))
    first = compiled(ORDER + "train 8 steps over X = arange(8) shuffle")
    first.run()
    two = compiled(ORDER + "train 16 steps over X = arange(8) shuffle")
    two.run()
    digits = str(int(two["digits"])).zfill(16)
    assert sorted(digits[:8]) == sorted(digits[8:]) == list("01234567") and digits[:8] != digits[8:]
    assert digits[:8] == str(int(first["digits"])).zfill(8)


def test_shuffle_depends_on_the_seed_only():
    text = ORDER + "train 1 epochs over X = arange(8) shuffle"
    assert orders(text, 1, seed=1) == orders(text, 1, seed=1) != orders(text, 1, seed=2)
    edited = (
        "let other = 3\ndata noise = normal(4)\n"
        + ORDER.replace("10 *", "10.0 *")
        + "print other\ntrain 1 epochs over X = arange(8) shuffle"
    )
    assert orders(text, 1, seed=1) == orders(edited, 1, seed=1, stdout=io.StringIO())


def test_shuffle_of_batches_is_the_loop_with_that_order():
    model = compiled(LINE.format(rows=10) + "train 3 epochs over X = x, Y = y batch 4 shuffle")
    plan = model.session.items[-1]
    from dsl.ops import philox

    model.run()
    check_line(model, line_loop(model["x"], model["y"], 3, 4, order=lambda e: philox.shuffle_index(plan.shuffle_key, e, np.arange(10), 10)))


def test_every_row_is_taken_once_an_epoch():
    model = trained(
        "data x = arange(37)\nscalar X\nshared s = 0.0, c = 0.0\ncost C = X\nmetric one = X * 0 + 1\n"
        "update s <- s + 1\nupdate c <- c + 1\ntrain 3 epochs over X = x batch 5 shuffle:\n  every 1 epochs: assert C == 18.0"
    )
    assert model["s"] == 24


# ---------------------------------------------------------------- simultaneous updates
def test_swap():
    model = trained("shared a = 1.0, b = 2.0\nupdate a <- b\nupdate b <- a\ntrain 3 steps")
    assert (model["a"], model["b"]) == (2.0, 1.0)


def test_swap_of_arrays():
    model = trained("shared a[n] = [1, 2, 3], b[n] = [4, 5, 6]\nupdate a <- b\nupdate b <- a\ntrain 1 steps")
    assert model["a"].tolist() == [4, 5, 6] and model["b"].tolist() == [1, 2, 3]


def test_fibonacci():
    model = trained("shared int a = 0, b = 1\nupdate a <- b\nupdate b <- a + b\ntrain 50 steps")
    assert model["a"] == 12586269025 and model["a"].dtype == np.int64


def test_order_of_updates_does_not_matter():
    lines = ["update w <- w - 0.1 * gw", "update b <- b - 0.1 * gb", "update m <- 0.9 * m + 0.1 * gw"]
    head = LINE.split("update")[0].format(rows=20) + "shared m = 0.0\n"
    results = []
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        model = trained(head + "\n".join(lines[i] for i in order) + "\ntrain 3 epochs over X = x, Y = y batch 6")
        results.append([model[n].tobytes() for n in "wbm"])
    assert results[0] == results[1] == results[2]


def test_only_updates_above_a_train_run_in_it():
    model = trained("shared a = 0.0, b = 0.0\nupdate a <- a + 1\ntrain 2 steps\nupdate b <- b + 1\ntrain 3 steps")
    assert (model["a"], model["b"]) == (5.0, 3.0)


def test_bool_and_int_state():
    model = trained(
        "shared bool odd = false\nshared int n = 0\nshared int32 k = 5\nupdate odd <- not odd\nupdate n <- n + 1\n"
        "update k <- k // 2\ntrain 3 steps"
    )
    assert (model["odd"].dtype, model["n"].dtype, model["k"].dtype) == (bool, np.int64, np.int32)
    assert bool(model["odd"]) and model["n"] == 3 and model["k"] == 0


# ---------------------------------------------------------------- groups
GROUPS = """
scalar X
data x = [1.0, 2.0, 3.0]
shared a = 1.0, b = 2.0
cost A = sqr(a * X - b)
cost B = sqr(b - 3 * a)
step first:
  update a <- a - 0.1 * grad(A, a)
step second:
  update b <- b - 0.1 * grad(B, b)
"""


@pytest.mark.parametrize(("words", "order"), [("of first, second", "ab"), ("of second, first", "ba"), ("of first", "a")])
def test_groups_in_order(words, order):
    stream = io.StringIO()
    model = trained(GROUPS + f"train 2 epochs over X = x {words}", stdout=stream)
    a, b = 1.0, 2.0
    for _ in range(2):
        sums = {"A": 0.0, "B": 0.0}
        for x in (1.0, 2.0, 3.0):
            for letter in order:
                if letter == "a":
                    sums["A"] += (a * x - b) ** 2
                    a = a - 0.1 * 2 * (a * x - b) * x
                else:
                    sums["B"] += (b - 3 * a) ** 2
                    b = b - 0.1 * 2 * (b - 3 * a)
    np.testing.assert_allclose([model["a"], model["b"]], [a, b], rtol=0, atol=1e-12)
    found = report(model).costs
    assert list(found) == [{"a": "A", "b": "B"}[o] for o in order]
    for name, value in found.items():
        assert value == pytest.approx(sums[name] / 3, rel=1e-12)


def test_groups_in_steps_share_the_batch():
    model = trained(GROUPS + "train 2 steps over X = x of first, second")
    a, b = 1.0, 2.0
    for x in (1.0, 2.0):
        a = a - 0.1 * 2 * (a * x - b) * x
        b = b - 0.1 * 2 * (b - 3 * a)
    np.testing.assert_allclose([model["a"], model["b"]], [a, b], rtol=0, atol=1e-12)
    assert report(model).steps == 2 and set(report(model).costs) == {"A", "B"}


def test_the_same_cost_in_two_groups():
    text = GROUPS.replace("grad(B, b)", "grad(A, b)") + "train 1 epochs over X = x of first, second"
    model = trained(text)
    a, b, total = 1.0, 2.0, 0.0
    for x in (1.0, 2.0, 3.0):
        total += (a * x - b) ** 2
        a = a - 0.1 * 2 * (a * x - b) * x
        b = b + 0.1 * 2 * (a * x - b)
    np.testing.assert_allclose([model["a"], model["b"]], [a, b], rtol=0, atol=1e-12)
    assert report(model).cost == pytest.approx(total / 3)  # as the first group met it


def test_ungrouped_updates_do_not_run_with_of():
    model = trained(GROUPS + "shared c = 0.0\nupdate c <- c + 1\ntrain 1 steps over X = x of first\ntrain 2 steps")
    assert model["c"] == 2.0


def test_divergence_in_the_second_group_takes_the_first_back():
    model = compiled(
        "shared a = 1.0, b = 2.0\nstep first:\n  update a <- a + 1\nstep second:\n  update b <- log(3 - a)\ntrain 9 steps of first, second"
    )
    with pytest.raises(dsl.Diverged, match="step 2"):
        model.run()
    assert model["a"] == 2.0 and model["b"] == 0.0
    assert model.train(steps=1, of="first").steps == 1 and model["a"] == 3.0


def test_unknown_group():
    found = problem(GROUPS + "train 1 steps over X = x of frist")
    assert found.code == "E0413" and "first" in found.hint


# ---------------------------------------------------------------- until, every, stop, valid
COUNT = "shared k = 0.0\ncost C = 10 - k\nupdate k <- k + 1\n"


def test_until_by_epoch():
    model = compiled("shared k = 0.0\ncost C = sqr(10 - k)\nupdate k <- k - 0.5 * grad(C, k) / 10\n")
    costs, k = [], 0.0
    while True:
        cost = (10 - k) ** 2
        k += 0.1 * (10 - k)
        costs.append(cost)
        if cost < 5:
            break
    result = model.train(epochs=100, until="C < 5")
    assert result.epochs == len(costs) and result.stopped == "until" and result.cost == pytest.approx(costs[-1])
    assert model["k"] == pytest.approx(k)


def test_until_by_epoch_uses_the_epoch_mean():
    model = compiled("scalar X\nshared s = 0.0\ncost C = X + s\nupdate s <- s - 1 + 0 * grad(C, s)\n")
    result = model.train(epochs=50, X=[1.0, 2.0, 3.0], until="C < -7")
    # the epoch's mean of X + s over s = 0, -1, -2 (first epoch) is 1; it falls by 3 an epoch
    assert result.epochs == 4 and result.cost == -8.0 and model["s"] == -12.0


def test_until_by_step_is_tested_each_step():
    model = compiled("scalar X\nshared s = 0.0\ncost C = X + s\nupdate s <- s - 1 + 0 * grad(C, s)\n")
    result = model.train(steps=50, X=[1.0, 2.0, 3.0], until="C < 1")
    # C: 1, 1, 1, -2: the fourth step is the first below 1
    assert result.steps == 4 and model["s"] == -4.0 and result.stopped == "until"


def test_until_may_read_state():
    model = compiled("shared k = 0.0\nupdate k <- k + 1\n")
    assert model.train(epochs=100, until="k >= 7").epochs == 7 and model["k"] == 7


def test_every_by_epoch_sees_epoch_values_and_the_state():
    text = "scalar X\nshared s = 0.0\ncost C = X + s\nupdate s <- s - 1 + 0 * grad(C, s)\n"
    found = output(text + "train 5 epochs over X = [1, 2, 3]:\n  every 2 epochs: print C, s")
    assert found == "-2.0 -6.0\n-8.0 -12.0\n"


def test_every_by_steps():
    text = "shared s = 0.0\nupdate s <- s + 1\n"
    assert output(text + "train 7 steps:\n  every 3 steps: print s") == "3.0\n6.0\n"
    assert output(
        "scalar X\n" + text + "train 3 epochs over X = [1, 2]:\n  every 4 steps: print s\n  every 2 epochs:\n    print s, s"
    ) == "4.0\n4.0 4.0\n".replace("4.0\n4.0 4.0", "4.0 4.0\n4.0")


def test_every_with_costs_by_steps_in_the_first_epoch():
    text = "scalar X\nshared s = 0.0\ncost C = X\nupdate s <- s + 1 + 0 * grad(C, s)\n".replace("+ 0 * grad(C, s)", "")
    found = output(text + "train 1 epochs over X = [1, 2, 3, 6]:\n  every 2 steps: print C\n")
    assert found == "1.5\n3.0\n"


def test_with_inside_every_is_not_the_epoch_value():
    text = "scalar X\nshared s = 0.0\ncost C = X + s\nupdate s <- s + 1\n"
    assert output(text + "train 2 epochs over X = [1, 2]:\n  every 1 epochs: print C, (C with X = 100)") == "2.0 102.0\n4.0 104.0\n"


VALID = "scalar X, Y\nshared w = 0.0\ncost C = sqr(w * X - Y)\nmetric far = abs(w * X - Y)\ngrad g = C wrt w\nupdate w <- w - 0.1 * g\n"


def test_valid_values():
    text = VALID + ("train 3 epochs over X = [1, 2], Y = [2, 4]:\n  valid X = [1, 2, 3], Y = [1, 1, 1]\n  every 1 epochs: print C, far, w")
    lines = [list(map(float, line.split())) for line in output(text).splitlines()]
    w = 0.0
    for cost, far, state in lines:
        for x, y in ((1, 2), (2, 4)):
            w -= 0.1 * 2 * (w * x - y) * x
        errors = w * np.array([1, 2, 3]) - 1
        assert (state, cost, far) == pytest.approx((w, np.mean(errors**2), np.mean(abs(errors))))
    model = trained(text, stdout=io.StringIO())
    assert report(model).valid == pytest.approx({"C": lines[-1][0], "far": lines[-1][1]})
    assert report(model).cost != pytest.approx(lines[-1][0])


def test_valid_of_other_length_whole():
    model = compiled("vector X[n], Y[n]\nshared w = 0.0\ncost C = mean(sqr(w * X - Y))\nupdate w <- w - 0.1 * grad(C, w)")
    found = model.train(epochs=1, X=[1.0, 2.0], Y=[2.0, 4.0], valid={"X": [1.0], "Y": [5.0]})
    assert found.valid["C"] == pytest.approx((model["w"] - 5) ** 2)


def test_valid_needs_every_input():
    assert problem(VALID + "train 1 epochs over X = [1], Y = [2]:\n  valid X = [1]").code == "E0407"


def test_draws_do_not_act_in_valid():
    model = compiled("vector X[n]\nshared w = 1.0\ncost C = mean(dropout(X, 0.5)) + 0 * w\nupdate w <- w - 0 * grad(C, w)")
    found = model.train(epochs=1, X=np.ones(1000), valid={"X": np.ones(7)})
    assert found.valid["C"] == 1.0 and found.cost != 1.0


def test_stop_without_lower_cost():
    # the cost falls to 0 at k = 5 and rises again
    text = (
        "shared k = 0.0\ncost C = sqr(k - 5)\nupdate k <- k + 1 + 0 * grad(C, k)\ntrain 100 epochs:\n  stop after 3 epochs without lower C"
    )
    model = trained(text)
    assert report(model).epochs == 9 and report(model).stopped == "no lower C" and model["k"] == 9


def test_stop_without_higher_metric():
    text = "shared k = 0.0\nmetric acc = minimum(k, 4)\nupdate k <- k + 1\ntrain 100 epochs:\n  stop after 2 epochs without higher acc"
    model = trained(text)
    assert report(model).epochs == 7 and report(model).stopped == "no higher acc"


def test_stop_by_steps():
    text = "shared k = 0.0\nmetric acc = minimum(k, 4)\nupdate k <- k + 1\ntrain 100 steps:\n  stop after 2 steps without higher acc"
    assert report(trained(text)).steps == 7


def test_stop_looks_at_valid():
    text = VALID + "train 50 epochs over X = [1, 2], Y = [2, 4]:\n  valid X = [1], Y = [0]\n  stop after 2 epochs without lower C"
    assert report(trained(text)).epochs == 3  # from w = 0 the validation cost only grows


def test_nan_never_counts_as_better():
    text = "shared k = 0.0\nmetric m = if k == 1 then nan else 0 - k\nupdate k <- k + 1\n"
    text += "train 9 epochs:\n  stop after 4 epochs without higher m"
    assert report(trained(text)).epochs == 5


def test_a_nan_metric_does_not_stop_training():
    model = trained(
        "shared k = 0.0\nmetric m = k / k\ncost C = sqr(k - 1)\nupdate k <- k - 0.5 * grad(C, k)\ntrain 2 epochs:\n"
        "  every 1 epochs: print m",
        stdout=io.StringIO(),
    )
    assert model["k"] == 1.0


# ---------------------------------------------------------------- log
def test_log(tmp_path):
    trained(VALID + 'train 2 epochs over X = [1, 2], Y = [2, 4]:\n  log "deep/run.jsonl"\n  valid X = [1], Y = [0]', out=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "deep" / "run.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 2), (2, 4)]
    w = 0.0
    for line in lines:
        costs = []
        for x, y in ((1, 2), (2, 4)):
            costs.append((w * x - y) ** 2)
            w -= 0.1 * 2 * (w * x - y) * x
        assert line["C"] == pytest.approx(np.mean(costs)) and line["valid"]["C"] == pytest.approx(w**2)


def test_log_that_cannot_be_written(tmp_path):
    (tmp_path / "x.jsonl").mkdir()
    found = problem(COUNT + 'train 2 epochs:\n  log "x.jsonl"', out=tmp_path)
    assert isinstance(found, dsl.errors.FileTrouble) and "x.jsonl" in found.message


# ---------------------------------------------------------------- schedules
def rates(clause, words="10 steps", extra=""):
    """The value that a schedule had in every step."""
    text = f"let rate = 7\n{extra}shared seen[n] = {[0.0] * 10}, k = 0.0\nupdate seen <- where(arange(10) == int(k), rate, seen)\n"
    text += f"update k <- k + 1\ntrain {words}:\n  rate = {clause}"
    return trained(text)["seen"]


def test_linear_and_cosine_reach_both_ends():
    u = np.arange(10) / 9
    np.testing.assert_allclose(rates("linear(1, 0.1)"), 1 + (0.1 - 1) * u, rtol=1e-14)
    np.testing.assert_allclose(rates("cosine(1, 0.1)"), 0.1 + 0.9 * (1 + np.cos(np.pi * u)) / 2, rtol=1e-14)
    assert rates("cosine(1, 0.1)")[0] == 1 and rates("cosine(1, 0.1)")[9] == pytest.approx(0.1, rel=1e-15)


def test_schedules_over_epochs_without_data_are_the_same():
    np.testing.assert_array_equal(rates("linear(1, 0.1)", "10 epochs"), rates("linear(1, 0.1)"))


def test_exponential_and_steps_are_staircases_by_epoch():
    over = "5 epochs over X = [0, 0]"
    extra = "scalar X\n"
    epoch = np.arange(10) // 2
    np.testing.assert_allclose(rates("exponential(1, 0.5)", over, extra), 0.5**epoch, rtol=1e-15)
    np.testing.assert_allclose(rates("steps(1, 0.1, 2)", over, extra), 0.1 ** (epoch // 2), rtol=1e-15)
    np.testing.assert_allclose(rates("exponential(1, 0.5)", "10 steps over X = [0, 0]", extra), 0.5**epoch, rtol=1e-15)
    np.testing.assert_allclose(rates("exponential(1, 0.5)"), 0.5 ** np.arange(10), rtol=1e-15)


def test_warmup():
    expected = [0.25, 0.5, 0.75, 1.0] + list(1 + (0.1 - 1) * np.arange(6) / 5)
    np.testing.assert_allclose(rates("warmup(4, linear(1, 0.1))"), expected, rtol=1e-14)


def test_one_step_takes_the_first_value():
    assert rates("cosine(1, 0.1)", "1 steps")[0] == 1


def test_schedules_restart():
    model = compiled(
        "let rate = 7\nshared s = 0.0\nupdate s <- s + rate\ntrain 3 steps:\n  rate = linear(1, 3)\nprint rate", stdout=io.StringIO()
    )
    model.run()
    assert model["s"] == 6
    model.run()
    assert model["s"] == 12 and model["rate"] == 7
    assert model.session.stdout.getvalue() == "7.0\n7.0\n"


def test_schedule_of_an_optimizer_parameter():
    model = trained("shared w = 1.0\ncost C = sqr(w)\nminimize C wrt w using sgd(rate = 0.3)\ntrain 4 steps:\n  rate = linear(0.1, 0.4)")
    w = 1.0
    for rate in (0.1, 0.2, 0.3, 0.4):
        w -= rate * 2 * w
    assert model["w"] == pytest.approx(w, rel=1e-13)


def test_ambiguous_schedule():
    head = "shared w = 1.0, v = 1.0\ncost C = sqr(w) + sqr(v)\nminimize C wrt w using sgd(rate = 0.3)\n"
    assert problem(head + "minimize C wrt v using sgd(rate = 0.3)\ntrain 4 steps:\n  rate = linear(0.1, 0.4)").code == "E0418"
    assert problem("let rate = 0.3\n" + head + "update v <- v - rate\ntrain 4 steps:\n  rate = linear(0.1, 0.4)").code == "E0418"
    assert problem(head + "train 4 steps:\n  speed = linear(0.1, 0.4)").code == "E0418"


def test_schedule_of_a_named_rate_reaches_the_optimizer():
    model = trained(
        "let slow = 0.3\nshared w = 1.0\ncost C = sqr(w)\nminimize C wrt w using sgd(rate = slow)\n"
        "train 2 steps:\n  slow = linear(0.1, 0.4)"
    )
    assert model["w"] == pytest.approx(0.8 * 0.2, rel=1e-13)


@pytest.mark.parametrize(
    "clause", ["steps(1, 0.1, 0)", "warmup(-1, linear(1, 2))", "exponential(1, 1e300)", "cosine(1)", "3", "linear(1, s)"]
)
def test_wrong_schedules_are_errors_not_crashes(clause):
    found = problem(f"let rate = 7\nshared s = 0.0\nupdate s <- s + rate\ntrain 300 steps:\n  rate = {clause}")
    assert found.code in ("E0418", "E0720")


# ---------------------------------------------------------------- optimisers
def sgd(p, g, t, s, rate=0.01):
    return p - rate * g


def momentum(p, g, t, s, rate=0.01, mu=0.9):
    s["v"] = mu * s.get("v", 0.0) + g
    return p - rate * s["v"]


def nesterov(p, g, t, s, rate=0.01, mu=0.9):
    s["v"] = mu * s.get("v", 0.0) + g
    return p - rate * (g + mu * s["v"])


def rmsprop(p, g, t, s, rate=1e-3, rho=0.9, eps=1e-8):
    s["s"] = rho * s.get("s", 0.0) + (1 - rho) * g**2
    return p - rate * g / (np.sqrt(s["s"]) + eps)


def adagrad(p, g, t, s, rate=0.01, eps=1e-10):
    s["s"] = s.get("s", 0.0) + g**2
    return p - rate * g / (np.sqrt(s["s"]) + eps)


def adam(p, g, t, s, rate=1e-3, b1=0.9, b2=0.999, eps=1e-8):
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
    return p - rate * (s["m"] / (1 - b1**t)) / (np.sqrt(s["v"] / (1 - b2**t)) + eps)


def adamw(p, g, t, s, rate=1e-3, decay=0.01, **rest):
    return adam(p, g, t, s, rate, **rest) - rate * decay * p


OPTIMIZERS = [
    (sgd, {}),
    (sgd, {"rate": 0.2}),
    (momentum, {}),
    (momentum, {"rate": 0.1, "mu": 0.5}),
    (nesterov, {}),
    (nesterov, {"rate": 0.05, "mu": 0.95}),
    (rmsprop, {}),
    (rmsprop, {"rate": 0.1, "rho": 0.5, "eps": 1e-3}),
    (adagrad, {}),
    (adagrad, {"rate": 0.5}),
    (adam, {}),
    (adam, {"rate": 0.1, "b1": 0.5, "b2": 0.9, "eps": 1e-4}),
    (adamw, {}),
    (adamw, {"rate": 0.1, "decay": 0.3}),
]
QUADRATIC = "shared w[n] = [1.0, -2.0, 3.0], s = 0.5\ncost C = sum(sqr(w) * arange(3)) + sqr(s - 2) + s * w[0]\n"


@pytest.mark.parametrize(
    ("rule", "options"), OPTIMIZERS, ids=lambda v: getattr(v, "__name__", None) or "-".join(map(str, v.values())) or "defaults"
)
def test_optimizers(rule, options):
    words = ", ".join(f"{k} = {v!r}" for k, v in options.items())
    model = compiled(QUADRATIC + f"minimize C wrt all using {rule.__name__}({words})\ntrain 40 epochs\ntrain 25 steps")
    model.run()
    w, s, slots = np.array([1.0, -2.0, 3.0]), 0.5, ({}, {})
    for t in range(1, 66):  # slots and t go on over the second `train`
        gw, gs = 2 * w * np.arange(3) + s * np.array([1.0, 0, 0]), 2 * (s - 2) + w[0]
        w, s = rule(w, gw, t, slots[0], **options), rule(s, gs, t, slots[1], **options)
    np.testing.assert_allclose(model["w"], w, rtol=0, atol=1e-12)
    np.testing.assert_allclose(model["s"], s, rtol=0, atol=1e-12)


def test_two_minimizes_count_apart():
    model = trained(
        "shared a = 1.0, b = 1.0\ncost C = sqr(a) + sqr(b)\nminimize C wrt a using adam(rate = 0.1)\n"
        "minimize C wrt b using adam(rate = 0.2)\ntrain 3 steps"
    )
    for name, rate in (("a", 0.1), ("b", 0.2)):
        p, slots = 1.0, {}
        for t in range(1, 4):
            p = adam(p, 2 * p, t, slots, rate)
        assert model[name] == pytest.approx(p, rel=1e-13)


def test_except_leaves_a_variable_alone():
    model = trained("shared a = 1.0, b = 1.0\ncost C = sqr(a) + sqr(b)\nminimize C wrt all except a using sgd(rate = 0.1)\ntrain 1 steps")
    assert model["a"] == 1.0 and model["b"] == pytest.approx(0.8)


def test_an_optimizer_of_the_users_own():
    model = trained("""
optimizer signs(rate = 0.5) for p, g, t:
  slot last = zeros_like(p)
  update last <- g
  update p <- p - rate * sign(g) / t
shared w = 2.0
cost C = sqr(w)
minimize C wrt w using signs()
train 3 steps
""")
    assert model["w"] == pytest.approx(2 - 0.5 * (1 + 1 / 2 + 1 / 3))


def test_float32_training_stays_float32():
    model = trained("precision float32\n" + QUADRATIC + "minimize C wrt all using adam(rate = 0.1)\ntrain 5 steps")
    assert model["w"].dtype == model["s"].dtype == np.float32


def test_mapped_minimize_averages():
    model = trained(
        "scalar X, Y\ndata x = normal(10)\ndata y = normal(10)\nshared w = 0.0\ncost C = sqr(w * X - Y)\n"
        "minimize C wrt w using momentum(rate = 0.1)\ntrain 3 epochs over X = x, Y = y batch 4"
    )
    x, y, w, slots = model["x"], model["y"], 0.0, {}
    for _ in range(3):
        for low in range(0, 10, 4):
            part = slice(low, low + 4)
            w = momentum(w, np.mean(2 * (w * x[part] - y[part]) * x[part]), 0, slots, 0.1)
    assert model["w"] == pytest.approx(w, rel=1e-12)


# ---------------------------------------------------------------- clip norm
@pytest.mark.parametrize("bound", [0.5, 1.0, 1e9])
def test_clip_norm_is_joint(bound):
    model = trained(QUADRATIC + f"minimize C wrt all using momentum(rate = 0.1)\ntrain 6 steps:\n  clip norm {bound}")
    w, s, slots = np.array([1.0, -2.0, 3.0]), 0.5, ({}, {})
    for _ in range(6):
        gw, gs = 2 * w * np.arange(3) + s * np.array([1.0, 0, 0]), 2 * (s - 2) + w[0]
        scale = min(1.0, bound / math.sqrt(np.sum(gw**2) + gs**2))
        w, s = momentum(w, gw * scale, 0, slots[0], 0.1), momentum(s, gs * scale, 0, slots[1], 0.1)
    np.testing.assert_allclose([*model["w"], model["s"]], [*w, s], rtol=0, atol=1e-12)


def test_clip_norm_of_mapped_batches_is_of_the_mean_gradient():
    model = trained(
        "scalar X, Y\ndata x = 5 * normal(8)\ndata y = normal(8)\nshared w = 0.0\ncost C = sqr(w * X - Y)\n"
        "minimize C wrt w using sgd(rate = 0.1)\ntrain 2 epochs over X = x, Y = y batch 4:\n  clip norm 1"
    )
    x, y, w = model["x"], model["y"], 0.0
    for _ in range(2):
        for low in (0, 4):
            part = slice(low, low + 4)
            g = np.mean(2 * (w * x[part] - y[part]) * x[part])
            w -= 0.1 * g * min(1, 1 / abs(g))
    assert model["w"] == pytest.approx(w, rel=1e-12)


def test_clip_norm_at_zero_gradient():
    model = trained("shared w = 0.0\ncost C = sqr(w)\nminimize C wrt w using sgd()\ntrain 2 steps:\n  clip norm 1")
    assert model["w"] == 0.0


def test_clip_norm_of_hand_written_updates():
    assert problem("shared w = 1.0\ncost C = sqr(w)\nupdate w <- w - grad(C, w)\ntrain 1 steps:\n  clip norm 1").code == "E0417"


# ---------------------------------------------------------------- draws in steps
def test_one_draw_a_step():
    text = "let z = uniform()\nshared a = 0.0, b = 0.0, s = 0.0\nupdate a <- z\nupdate b <- z\nupdate s <- s + z\n"
    model = compiled(text)
    seen = []
    for _ in range(4):
        model.step()
        assert model["a"] == model["b"]
        seen.append(float(model["a"]))
    assert len(set(seen)) == 4 and all(0 <= u < 1 for u in seen)
    again = trained(text + "train 4 steps")
    assert again["s"] == sum(seen) and again["a"] == seen[-1]


def test_draws_go_on_over_a_second_train():
    text = "shared a = 0.0\nupdate a <- 1000 * a + floor(1000 * uniform())\n"
    assert trained(text + "train 2 steps\ntrain 2 steps")["a"] == trained(text + "train 4 steps")["a"]


def test_each_call_is_its_own_draw():
    model = trained("shared d[n] = zeros(3)\nupdate d <- normal(3) - normal(3)\ntrain 1 steps")
    assert np.all(model["d"] != 0)


def test_draws_by_row_in_mapped_batches():
    model = compiled("scalar X\nshared w = 0.0\nmetric m = X * uniform()\nmetric q = uniform()\ncost C = X + w\nupdate w <- w + 1\n")
    model.session.load(dsl.errors.Source("more", "train 1 epochs over X = [1, 1, 1, 1] batch 4:\n  every 1 epochs: print m, q"))
    stream = io.StringIO()
    model.session._stdout = stream
    model.run()
    m, q = map(float, stream.getvalue().split())
    assert 0 < m < 1 and 0 < q < 1


def test_dropout_is_active_in_train_only():
    model = compiled("vector x[n]\nshared s = 0.0\nlet d = dropout(x, 0.25)\ncost C = sum(d)\nupdate s <- sum(d)\n")
    ones = np.ones(1000)
    assert model.eval("C", x=ones) == 1000
    model.train(epochs=1, x=ones)
    kept = float(model["s"]) * 0.75
    assert kept == pytest.approx(round(kept)) and 650 < kept < 850
    first = float(model["s"])
    model.step(x=ones)
    assert model["s"] != first and model["s"] != 1000
    assert model.eval("C", x=ones) == 1000


def test_dropout_takes_every_row_apart():
    model = compiled("scalar x\nshared w = 0.0\ncost C = dropout(x, 0.5) * (1 + w)\nupdate w <- w + 0 * grad(C, w)")
    found = model.train(epochs=1, batch=4000, x=np.ones(4000))
    assert 0.9 < found.cost < 1.1 and found.cost != 1.0 and found.cost not in (0.0, 2.0)


# ---------------------------------------------------------------- sizes
def test_model_dims_are_fixed_by_the_first_binding():
    model = compiled("matrix X[n, d]\nshared w[d] = 0.1\ncost C = mean(sqr(X @ w))\nupdate w <- w - 0.1 * grad(C, w)")
    with pytest.raises(dsl.LrError) as caught:
        model["w"]
    assert caught.value.code == "E0214"
    model.train(epochs=1, X=np.ones((5, 3)))
    assert model["w"].shape == (3,)
    model.train(epochs=1, X=np.ones((8, 3)))
    with pytest.raises(dsl.LrError) as caught:
        model.train(epochs=1, X=np.ones((5, 4)))
    assert caught.value.code == "E0211"


def test_the_first_binding_in_the_script_fixes_them_where_it_is_read():
    model = trained(
        "data A = normal(6, 4)\nmatrix X[n, d]\nshared w[d] = normal()\ncost C = mean(sqr(X @ w))\n"
        "update w <- w - 0.1 * grad(C, w)\ntrain 1 epochs over X = A"
    )
    assert model["w"].shape == (4,)


def test_ragged_sizes_compile_nothing():
    model = compiled(
        LINE.format(rows=10).replace("scalar", "vector").replace("X, Y", "X[n], Y[n]", 1).replace("metric far = abs(X * w + b - Y)", "")
    )
    model.train(epochs=1, batch=4, X=np.arange(10.0), Y=np.arange(10.0))
    before = model.session.compute.compilations
    for rows in (1, 2, 11, 13, 50):
        model.train(epochs=2, batch=4, X=np.arange(rows) / rows, Y=np.arange(rows) / rows)
    assert model.session.compute.compilations == before


def test_ragged_mapped_batches_compile_nothing():
    model = compiled(LINE.format(rows=10))
    model.train(epochs=1, batch=4, X=np.arange(10.0), Y=np.arange(10.0))
    before = model.session.compute.compilations
    for rows in (1, 2, 11, 13, 50):
        model.train(epochs=2, batch=4, X=np.arange(rows) / rows, Y=np.arange(rows) / rows)
        model.step(X=np.arange(rows) / rows, Y=np.arange(rows) / rows)
    assert model.session.compute.compilations <= before + 1  # `step` may have one of its own


def test_rows_that_disagree():
    model = compiled(LINE.format(rows=4))
    with pytest.raises(dsl.LrError) as caught:
        model.train(epochs=1, X=[1, 2, 3], Y=[1, 2])
    assert caught.value.code == "E0211"


# ---------------------------------------------------------------- divergence
def test_nan_names_step_variable_and_term():
    model = compiled("shared w = 3.0, u = 0.0\nupdate u <- u + sqrt(w)\nupdate w <- w - 1\ntrain 10 steps")
    with pytest.raises(dsl.Diverged) as caught:
        model.run()
    found = caught.value
    assert found.code == "E0720" and "step 5" in found.message and "`u`" in found.message and found.line == 2
    assert found.diagnostic.span.text == "sqrt(w)"
    assert model["w"] == -1.0 and model["u"] == pytest.approx(math.sqrt(3) + math.sqrt(2) + 1)
    assert "step 4" in " ".join(found.diagnostic.notes)


def test_nan_in_the_cost():
    model = compiled("shared w = 2.0\ncost C = log(w)\ngrad g = C wrt w\nupdate w <- w - 1 + 0 * g\ntrain 10 steps")
    with pytest.raises(dsl.Diverged) as caught:
        model.run()
    assert "step 3" in caught.value.message and "infinite" in caught.value.message and model["w"] == 0.0


def test_infinite_from_finite_stops():
    model = compiled("shared w = 1e300\nupdate w <- w * 1e5\ntrain 10 steps")
    with pytest.raises(dsl.Diverged) as caught:
        model.run()
    assert "step 2" in caught.value.message and "infinite" in caught.value.message and model["w"] == 1e300 * 1e5


def test_infinite_on_purpose_is_fine():
    model = trained(
        "shared best = inf, low[n] = [inf, 1], k = 3.0\ncost C = best\nupdate best <- minimum(best, k)\nupdate k <- k - 1\n"
        "shared never = -inf\nupdate never <- never\nupdate low <- low\ntrain 5 steps"
    )
    assert model["best"] == -1.0 and model["never"] == -np.inf


def test_infinity_to_nan_stops():
    model = compiled("shared a = inf\nupdate a <- a - a\ntrain 2 steps")
    with pytest.raises(dsl.Diverged, match="step 1"):
        model.run()
    assert model["a"] == np.inf


def test_state_that_starts_as_nan_may_stay():
    model = trained("shared a = nan, b[n] = [nan, 1]\nupdate b <- b + 1\nupdate a <- a + 1\ntrain 2 steps")
    assert np.isnan(model["a"]) and model["b"][1] == 3


def test_divergence_in_mapped_batches_names_the_term_of_the_script():
    model = compiled("scalar X\nshared w = 1.0\ncost C = log(X * w)\ngrad g = C wrt w\nupdate w <- w - 0.01 * g")
    with pytest.raises(dsl.Diverged) as caught:
        model.train(epochs=1, batch=2, X=[1.0, 2.0, 3.0, -4.0])
    assert "step 2" in caught.value.message and caught.value.diagnostic.span.text == "log(X * w)"


def test_optimizer_slots_of_the_step_before():
    text = "shared w = 1.0\nscalar X\ncost C = w * X\nminimize C wrt w using momentum(rate = 0.1)\n"
    model = compiled(text)
    with pytest.raises(dsl.Diverged):
        model.train(epochs=1, X=[1.0, 2.0, np.nan])
    model.train(epochs=1, X=[3.0])
    straight = compiled(text)
    straight.train(epochs=1, X=[1.0, 2.0, 3.0])
    assert model["w"] == straight["w"]


def test_fault_inside_a_step_leaves_the_state_before():
    model = compiled("shared int k = 3\nshared s = 0.0\nupdate s <- s + 12 // k\nupdate k <- k - 1\ntrain 9 steps")
    with pytest.raises(dsl.LrError) as caught:
        model.run()
    assert not isinstance(caught.value, dsl.Diverged) and caught.value.line == 3
    assert model["k"] == 0 and model["s"] == 4 + 6 + 12


def test_index_fault_in_a_step():
    model = compiled("int scalar i\nshared v[n] = [1, 2, 3], s = 0.0\nupdate s <- s + v[i]")
    with pytest.raises(dsl.LrError) as caught:
        model.train(epochs=1, i=[0, 2, 3, 1])
    assert caught.value.diagnostic.span.text == "v[i]" and model["s"] == 4.0


def test_error_in_every_keeps_the_state():
    model = compiled('shared k = 0.0\nupdate k <- k + 1\ntrain 5 steps:\n  every 2 steps: assert k < 3, "too far"')
    with pytest.raises(dsl.LrError, match="too far"):
        model.run()
    assert model["k"] == 4.0
    assert model.train(steps=1).steps == 1 and model["k"] == 5.0


# ---------------------------------------------------------------- interruption
FOREVER = "shared a = 0.0, b = 0.0\nupdate a <- a + 1\nupdate b <- a\ntrain 100000000 steps:\n  every 500 steps: print a\n"


@pytest.mark.child_process
def test_ctrl_c_ends_the_command_line_with_130(tmp_path):
    script = tmp_path / "long.lr"
    script.write_text(FOREVER)
    command = [sys.executable, "-u", "-m", "dsl", "run", str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "500.0\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    assert "interrupted after step" in err and "long.lr:4" in err


@pytest.mark.child_process
@pytest.mark.parametrize("presses", [1, 2])
def test_interrupted_state_is_whole(presses):
    """Ctrl-C comes while step 500's `print` runs; a second one at once ends that too."""
    code = f"""
import dsl, os, signal
class Pressed:
    def write(self, text):
        for _ in range({presses}):
            os.kill(os.getpid(), signal.SIGINT)
m = dsl.compile({FOREVER!r}, stdout=Pressed())
try:
    m.run()
except dsl.Interrupted as problem:
    report = m.session.reports[-1]
    assert m["a"] == m["b"] + 1 == report.steps == 500, (m["a"], m["b"], report)
    assert "after step 500" in problem.message and problem.code == "E0721", problem
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    m.train(steps=2)
    assert m["a"] == 502
    print("whole")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "whole\n", done.stderr


# ---------------------------------------------------------------- the report
def test_report():
    model = compiled(LINE.format(rows=5))
    found = model.train(epochs=3, X=model["x"], Y=model["y"])
    assert (found.epochs, found.steps, found.stopped) == (3, 15, None)
    assert found.seconds > 0 and found.costs == {"C": found.cost} and "C = " in str(found)


def test_report_of_steps_in_the_middle_of_an_epoch():
    model = compiled(LINE.format(rows=5))
    found = model.train(steps=7, X=model["x"], Y=model["y"])
    _, _, cost = line_loop(model["x"], model["y"], 9, steps=7)
    assert (found.epochs, found.steps) == (1, 7) and found.cost == pytest.approx(cost)


def test_summary_line():
    stream = io.StringIO()
    trained(LINE.format(rows=5) + "train 2 epochs over X = x, Y = y", stderr=stream, quiet=False)
    assert stream.getvalue().startswith("trained 2 epochs, 10 steps in ") and "C = " in stream.getvalue()
