"""The instrumented build: it counts what the programs do, changes no result, and leaves the normal build alone."""

import io
import re

import numpy as np
import pytest

import dsl
from dsl.backends.llvm.meter import Meter
from dsl.backends.llvm.native import NativeProgram
from dsl.backends.llvm.profiled import ProfiledProgram, copy_speed
from dsl.errors import Source
from dsl.loops.cost import cost, value
from dsl.runtime.profile import amount, duration
from tests.test_cost import made

RAGGED = """
precision float32
data A = normal(37, 3)
data y = normal(37)
matrix X[n, d]
vector t[n]
shared w[d] = 0.0
cost C = mean(sqr(X @ w - t))
minimize C wrt w using sgd(rate = 0.05)
train 2 epochs over X = A, t = y batch 10
"""


def profiled(text, **options):
    session = dsl.Session(profile=True, device="cpu", quiet=True, stdout=io.StringIO(), **options)
    session.load(Source("a.lr", text))
    session.run()
    return session


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("formula", ["softmax(M)", "sum(sqr(x))", "(M @ N) * a", "M.T @ x", "tanh(x @ M)"])
def test_counters_are_the_costs(formula, threads):
    p = made(formula, "float64")
    sizes, runs = {"n": 9000, "k": 5, "m": 3, "q": 1}, 4
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=[d.evaluate(sizes) for d in b.shape]) for b in p.passed]
    program, plain = ProfiledProgram(p, threads), NativeProgram(p, threads=threads)
    for _ in range(runs):
        assert not program(arrays, [0.5] * len(p.scalars), sizes)
    results = arrays[-1].copy()
    plain(arrays, [0.5] * len(p.scalars), sizes)
    np.testing.assert_allclose(results, arrays[-1], rtol=1e-13)
    measured = program.counted.read()
    assert measured and len(measured) == sum(part.statement is not None for part in cost(p).parts)
    for m in measured:
        each = m.part.each
        assert (m.runs, m.flops, m.read, m.written) == (runs, *(runs * value(d, sizes) for d in (each.flops, each.read, each.written)))
    assert program.calls == runs and 0 < sum(m.seconds for m in measured) <= program.seconds


def test_sizes_are_those_of_the_batch():
    session = profiled(RAGGED)
    (train,) = (p for p in session.profile.programs if "train" in p.title)
    rows = next(m for m in train.counted.read() if "n" in {s.name for s in m.part.each.flops.sizes()})
    assert rows.runs == 2 * 4
    assert rows.read == 2 * (37 * (3 + 1) * 4 + 4 * 3 * 4)     # each epoch: X, t and four times w; the last batch has 7 rows
    assert train.title == "line 10: train 2 epochs over X = A, t = y batch 10"


def test_a_normal_build_has_no_clock():
    p = made("softmax(M)")
    plain = NativeProgram(p)
    assert "lr.now" not in plain.llvm_ir and "clock_gettime" not in plain.llvm_ir
    assert "lr.now" in NativeProgram(p, meter=Meter(p)).llvm_ir


def test_an_instrumented_build_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    p = made("softmax(M * 1.5)")
    ProfiledProgram(p)
    kept = set(tmp_path.glob("lr/objects/*"))
    NativeProgram(p)
    assert len(set(tmp_path.glob("lr/objects/*")) - kept) == 1, "the normal build is made anew, and kept"


def test_the_table():
    session = profiled(RAGGED + "print C with X = A, t = y\nprint normal(3)")
    for number, p in enumerate(session.profile.programs):
        p.seconds = 1.0 if number < 3 else 1e-9
    text = session.profile.text()
    assert re.match(r"profile: \d+ threads?; copying here: [\d.]+ GB/s", text)
    assert text.count(" call") == 3 and re.search(r"\nand \d+ programs that took 0.000 ms together\n$", text)
    for line in text.splitlines():
        assert not re.match(r"  k\d", line) or re.fullmatch(r"  k\d+ +[\d,]+ +[\d.]+ m?s +[\d.]+% +[\d.]+ \w+ +\d+% +[\d.]+", line), line


def test_results_are_the_same_but_for_the_last_bits():
    plain = dsl.compile(RAGGED, device="cpu")
    plain.run()
    np.testing.assert_allclose(profiled(RAGGED).values["shared", "w", 0], plain["w"], rtol=1e-5)


def test_units():
    assert [amount(s) for s in (0, 1023, 1024, 3 << 20, 5 << 30, 1 << 41)] == ["0 B", "1023 B", "1.0 KiB", "3.0 MiB", "5.0 GiB", "2.0 TiB"]
    assert [duration(s) for s in (0.5e-6, 0.25, 2.0)] == ["0.001 ms", "250.000 ms", "2.000 s"]
    assert 1e8 < copy_speed(1) < 1e12
