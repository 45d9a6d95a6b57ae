"""In which way a program runs on a GPU: what is estimated of work whose answer is known, and how it moves with sizes and devices."""

import re
from itertools import pairwise

import pytest

import dsl
from dsl import show
from dsl.backends.cuda.choice import H200, MOST_THREADS, WAYS, Choice, Figures, choice_text, choose, in_words
from dsl.backends.cuda.whole import stays_on_device
from dsl.bench.peers.ours import SCRIPTS
from dsl.cli import main
from dsl.loops.ir import Kernel, Program, Store
from dsl.machine.expr import Buffer, extent, load, ref
from tests.loop_programs import BY_NAME

SMALL = Figures("small", 20, 1.5e9, 2e11)
TRAININGS = {
    "tutorial": (SCRIPTS["tutorial"], "data A = linspace(-1, 1, 101)\ntrain 100 epochs over X = A, Y = A"),
    "network": (SCRIPTS["mlp"], "data A = normal(1000, 64)\ndata u = int(0 * normal(1000))\ntrain 1 epochs over X = A, y = u batch 32"),
    "line": (SCRIPTS["linreg"], "data A = normal(10)\ntrain 1 epochs over x = A, y = A"),
    "wide network": (SCRIPTS["wide-gpu"],
                     "data A = normal(10, 784)\ndata u = int(0 * normal(10))\ntrain 1 epochs over X = A, y = u batch 8"),
}


def training(name):
    """The loop of a script, and its sizes."""
    found, = show.programs(dsl.compile("\n".join(TRAININGS[name])).session, "train", gpu=True)
    return found.program, dict(found.sizes)


def chosen(name, figures=H200, **sizes):
    program, known = training(name)
    return choose(program, known | {key.replace("_", " "): value for key, value in sizes.items()}, figures, stays_on_device(program))


@pytest.mark.parametrize("name, sizes, ways, threads", [
    ("tutorial", {}, ("one block",), 32),
    ("network", {}, ("one block",), MOST_THREADS),
    ("network", {"n": 1}, ("one block",), None),
    ("line", {"n": 101}, ("one block",), None),
    ("line", {"n": 10**9}, ("a grid", "launches"), MOST_THREADS),
    ("wide network", {"n": 8192, "rows_of_a_batch": 8192}, ("launches",), MOST_THREADS),
])
def test_what_is_taken(name, sizes, ways, threads):
    choice = chosen(name, **sizes)
    assert choice.way in ways and threads in (None, choice.threads)
    assert set(choice.seconds) == set(WAYS) and choice.seconds[choice.way] == min(choice.seconds.values())


def test_estimates_are_near_what_a_device_can_do():
    """A step over 10^9 rows of two float32 takes as long as reading them; wide products are bound by the arithmetic."""
    read = 8e9 / H200.bandwidth
    seconds = chosen("line", n=10**9).seconds
    assert all(read <= seconds[way] < 3 * read for way in ("a grid", "launches")) and seconds["one block"] > 20 * read
    wide = chosen("wide network", n=8192, rows_of_a_batch=8192).seconds
    flops = 2 * 8192 * 4096 * (784 * 2 + 10 * 3)                       # forwards, and backwards to the weights and the hidden layer
    assert wide["launches"] > flops / (2 * 128 * H200.processors * H200.clock)
    assert chosen("tutorial").seconds["one block"] < 1e-6 < 15e-6 < chosen("tutorial").seconds["launches"]


def ordered(values):
    return all(a <= b * (1 + 1e-9) for a, b in pairwise(values))


@pytest.mark.parametrize("name", ["line", "network", "wide network"])
def test_more_rows_take_longer(name):
    counts = [1, 10, 32, 100, 1000, 10**4, 10**5, 10**6, 10**7]
    choices = [chosen(name, n=count, rows_of_a_batch=count) for count in counts]
    for way in WAYS:
        assert ordered([choice.seconds[way] for choice in choices]), way
    taken = [choice.way == "one block" for choice in choices]
    assert taken == sorted(taken, reverse=True), "one block is for what is small, and nothing else"
    assert ordered([choice.threads for choice in choices])


@pytest.mark.parametrize("name", TRAININGS)
def test_better_devices_take_no_longer(name):
    program, known = training(name)
    known |= {"n": 5000} if "n" in known else {}
    figures = {"processors": (2, 10, 100, 200), "clock": (1e9, 1.5e9, 3e9), "bandwidth": (1e11, 1e12, 1e13)}
    for which, values in figures.items():
        given = {"processors": 50, "clock": 1.5e9, "bandwidth": 1e12}
        found = [choose(program, known, Figures("some", **given | {which: value})).seconds for value in values]
        for way in WAYS:
            assert ordered([seconds[way] for seconds in reversed(found)]), (which, way)


def test_what_cannot_be_is_not_taken():
    apart = Figures("no cooperative launch", 20, 1.5e9, 2e11, together=False)
    assert "a grid" not in chosen("line", apart, n=10**9).seconds
    program, known = training("network")
    assert set(choose(program, known, H200, whole=False).seconds) == {"launches"}


def test_threads_are_whole_warps():
    n, i = BY_NAME["map_vector"].program.buffers[0].shape[0], ref("i")
    x = Buffer("x", "float32", (n,), "input")
    assert stays_on_device(BY_NAME["map_vector"].program)
    for count, threads in ((0, 32), (1, 32), (32, 32), (33, 64), (200, 224), (512, 512), (10**6, 512)):
        assert choose(BY_NAME["map_vector"].program, {"n": count}, H200).threads == threads
    writes = Buffer("s", "float32", (), "scratch")
    kernel = Kernel("k", "i", extent(1), (Store(writes, (), load(x, [i])),), (), n)
    assert not stays_on_device(Program("p", (x, writes), (), (kernel,))), "a scalar that a kernel writes is no variable of every thread"


# ---------------------------------------------------------------- what is said
def test_the_line():
    choice = Choice({"one block": 3.2e-7, "a grid": 4.7e-6, "launches": 1.53e-3}, "one block", 64)
    assert choice_text(choice, SMALL, True) == ("on a GPU (small, 20 processors), by estimate a step: one block 0.32 us, a grid 4.7 us, "
                                                "launches 1.53 ms; so one block of 64 threads")
    other = Choice({"launches": 12.5}, "launches", 64)
    assert choice_text(other, SMALL, False) == "on a GPU (small, 20 processors), by estimate: launches 12.5 s; so launches"
    assert [in_words(s) for s in (1e-9, 0.999e-3, 1e-3, 0.5, 1, 100)] == ["0.001 us", "999 us", "1 ms", "500 ms", "1 s", "100 s"]


def test_show_says_it(tmp_path, capsys):
    script = tmp_path / "line.lr"
    script.write_text("\n".join(TRAININGS["tutorial"]), encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        main(["show", str(script), "train", "--cost"])
    assert not left.value.code
    line, = [text for text in capsys.readouterr().out.splitlines() if "on a GPU" in text]
    program, known = training("tutorial")
    assert line.strip() == choice_text(choose(program, known, H200), H200, True)
    assert re.search(r"by estimate a step: one block [\d.]+ us, a grid [\d.]+ us, launches [\d.]+ us; so one block of 32 threads$", line)
