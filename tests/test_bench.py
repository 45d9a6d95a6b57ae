"""`lr bench`: the table of work, our scripts against NumPy, the workers' protocol, the report. Nothing here asserts a time."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import dsl
from dsl.bench import command, data, measure, report, start
from dsl.bench.measure import Bench, Cell, Options, Trouble, Worker, differing, ratio
from dsl.bench.peers import numpy as by_numpy
from dsl.bench.peers import ours
from dsl.bench.work import BY_NAME, COLUMNS, GPU_COLUMNS, GPU_WORK, LIMITS, WORK, Absent
from dsl.cli import commands
from dsl.errors import error

TINY = {"tutorial": 1_010, "linreg": 500, "memory": 500, "logistic": 500, "chain": 500, "axpb": 500, "logreg100": 200, "mlp": 56, "wide": 1,
        "scan": 100, "scan-grad": 100}


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setitem(ours.SETTINGS, "device", "numpy")


def lr(*words):
    return CliRunner().invoke(commands, ["bench", *words])


# ---------------------------------------------------------------- the table
@pytest.mark.parametrize(("works", "options"), [(WORK, Options()), (GPU_WORK, Options("cuda", columns=tuple(GPU_COLUMNS)))],
                         ids=["cpu", "cuda"])
def test_the_table_is_well_formed(works, options):
    assert len({work.name for work in works}) == len(works)
    for work in works:
        assert work.kind in measure.KINDS
        assert work.entry in data.INPUTS or work.kind == "process"
        assert work.headline in work.sizes and list(work.sizes) == sorted(work.sizes) and max(work.quick) <= work.headline
        assert set(work.columns) <= set(options.columns)
        for target in work.targets:
            assert {target.of, target.peer or target.of} <= set(work.columns), work.name
            assert target.size is None or target.size in work.sizes
            timed = measure.columns_of(work, options)
            assert {target.of, target.peer or target.of} <= set(timed), f"{work.name}: a target for a peer without a form"


@pytest.mark.parametrize("column", [c for c in dict.fromkeys((*COLUMNS, *GPU_COLUMNS)) if c != "imports"])
def test_every_column_has_a_form_and_every_form_a_work(column):
    module = measure.import_module(measure.module_of(column))
    entries = {work.entry for work in (*WORK, *GPU_WORK)}
    assert module.TABLE[column] and set(module.TABLE[column]) <= entries


# ---------------------------------------------------------------- numbers
def expected(entry, given):
    """What the work comes to, in float64 and without the code of a peer."""
    match entry:
        case "linreg" | "memory" | "logistic":
            x, y = given["x"].astype(float), given["y"].astype(float)
            z = 0.1 * x + 0.2

            def cost(z):
                return np.mean((z - y) ** 2) if entry != "logistic" else np.mean(np.log1p(np.exp(z)) - y * z)
            h = 1e-6
            slopes = [(cost(z + h * d) - cost(z - h * d)) / (2 * h) for d in (x, np.ones_like(x))]
            return {"cost": cost(z), "gw": slopes[0], "gb": slopes[1]}
        case "chain" | "axpb":
            x = given["x"].astype(float)
            y = np.tanh(x) * np.exp(-(x**2)) + np.log1p(x**2) if entry == "chain" else 1.5 * x + x**2
            return {"sum": y.sum(), "elements": list(y[:: len(y) // 64][:64])}
        case "tutorial":
            w = b = 0.0
            for _ in range(given["epochs"]):
                costs = []
                for x, y in zip(given["X"], given["Y"], strict=True):
                    e = w * x + b - y
                    costs.append(e * e)
                    w, b = w - 0.02 * e * x, b - 0.02 * e
            return {"w": w, "b": b, "cost": np.mean(costs)}
        case "logreg100":
            residual = 0.5 - given["y"].astype(float)
            return {"cost": np.log(2), "w": list(-0.1 * residual @ given["X"] / len(residual)), "b": -0.1 * residual.mean()}
        case "scan" | "scan-grad":
            def last(r):
                x = 0.5
                for _ in range(given["size"]):
                    x = r * x * (1 - x)
                return x
            both = {"last": last(3.2), "derivative": (last(3.2 + 1e-6) - last(3.2 - 1e-6)) / 2e-6}
            return both if entry == "scan-grad" else {"last": both["last"]}
    return None


@pytest.mark.parametrize("entry", sorted(TINY))
def test_our_scripts_give_the_right_numbers(here, entry):
    given = data.inputs(entry, TINY[entry])
    wanted = expected(entry, given)
    if wanted is None:                                   # networks: a few steps by hand
        prepared = by_numpy.TABLE["numpy"][entry](given)
        wanted = prepared.numbers(prepared.run())
    try:
        prepared = ours.TABLE["lr"][entry](given)
    except Absent as reason:
        pytest.skip(str(reason))
    if prepared.reset:
        prepared.reset()
    found = prepared.numbers(prepared.run())
    assert set(found) == set(wanted)
    for name in wanted:
        assert np.allclose(found[name], wanted[name], rtol=2e-4, atol=2e-5), name


def test_a_form_not_in_this_version_is_absent_and_an_error_is_not(here, monkeypatch):
    def refuse(code):
        def compile(*_, **__):
            raise error(code, "refused")
        return compile

    monkeypatch.setattr(dsl, "compile", refuse("E0801"))
    with pytest.raises(Absent, match="not in this version"):
        ours.model("axpb")
    monkeypatch.setattr(dsl, "compile", refuse("E0301"))
    with pytest.raises(dsl.LrError, match="refused"):
        ours.model("axpb")


def test_inputs_are_the_same_everywhere_and_of_the_right_kind():
    first, again = data.inputs("linreg", 3_000), data.inputs("linreg", 3_000)
    assert np.array_equal(first["x"], again["x"]) and first["y"].dtype == np.float32
    assert set(np.unique(data.inputs("logistic", 3_000)["y"])) == {0, 1}
    digits = data.inputs("mlp", 2_800)
    assert digits["X"].shape == (1792, 64) and digits["X"].max() == 1 and digits["epochs"] == 50


def test_the_products_of_the_wide_network_are_five(monkeypatch):
    shapes = []
    monkeypatch.setattr(by_numpy.np, "matmul", lambda a, b, out: shapes.append((a.shape, b.shape, out.shape)))
    by_numpy.products(data.inputs("wide", 1)).run()
    assert shapes == [((256, 784), (784, 512), (256, 512)), ((256, 512), (512, 10), (256, 10)), ((512, 256), (256, 10), (512, 10)),
                      ((256, 10), (10, 512), (256, 512)), ((784, 256), (256, 512), (784, 512))]


# ---------------------------------------------------------------- workers
FAKE = """
import json, os, sys
for line in sys.stdin:
    word = line.split()[0]
    if word == "about": reply = {"versions": {"fake": "1"}}
    elif word == "prepare": reply = {"numbers": {"cost": 1.0}, "prepare": 1.0, "first": 2.0, "second": 0.5}
    elif word == "time": reply = {"samples": [2.0] * int(line.split()[1]), "inside": [1.0]}
    elif word == "die": print("about to end", file=sys.stderr); os._exit(7)
    elif word == "sleep": import time; time.sleep(30); reply = {}
    elif word == "release": reply = {}
    elif word == "absent": reply = {"absent": "not installed"}
    else: reply = {"error": "ValueError: " + word}
    print(json.dumps(reply), flush=True)
"""


@pytest.fixture
def fake(tmp_path):
    workers = []

    def make(program=FAKE):
        workers.append(Worker("numpy", Options(), {}, tmp_path / "log", [sys.executable, "-c", program]))
        return workers[-1]
    yield make
    for worker in workers:
        worker.close()


def test_a_worker_answers_and_its_troubles_have_a_status(fake):
    worker = fake()
    assert worker.ask("about") == {"versions": {"fake": "1"}}
    assert worker.ask("time 3")["samples"] == [2.0, 2.0, 2.0]
    with pytest.raises(Trouble, match="not installed") as trouble:
        worker.ask("absent")
    assert trouble.value.status == "absent"
    with pytest.raises(Trouble, match="ValueError: nonsense") as trouble:
        worker.ask("nonsense")
    assert trouble.value.status == "failed" and worker.alive
    with pytest.raises(Trouble, match=r"ended \(7\): about to end"):
        worker.ask("die")
    assert not worker.alive


def test_a_worker_is_not_waited_for_without_end(fake):
    worker = fake()
    with pytest.raises(Trouble, match="no answer"):
        worker.ask("sleep", patience=0.1)
    assert not worker.alive


def test_measuring_checks_first_and_leaves_out_who_is_wrong_or_ends(fake, tmp_path):
    wrong = FAKE.replace('"cost": 1.0', '"cost": 2.0')
    ends = FAKE.replace('elif word == "time": reply =', 'elif word == "time": os._exit(3)\n    elif word == "never": reply =')
    workers = {"lr": fake(), "jax": fake(), "torch": fake(wrong), "numba": fake(ends)}
    bench = Bench(Options(rounds=3, columns=(*workers, "pytensor")), tmp_path, lambda _: None, workers, {"pytensor": "not installed"})
    cells = {c.column: c for c in measure.measure(bench, BY_NAME["linreg"], 100, {})}
    assert list(cells) == ["lr", "jax", "torch", "pytensor", "numba"]
    assert (cells["lr"].status, cells["jax"].status) == ("timed", "timed") and len(cells["lr"].rounds) == 3
    assert cells["torch"].status == "mismatch" and "cost = 2" in cells["torch"].note
    assert cells["pytensor"].status == "absent" and cells["numba"].status == "failed"


def test_what_would_be_too_slow_or_too_large_is_left_out(fake, tmp_path):
    workers = {"lr": fake(), "numpy": fake()}
    bench = Bench(Options(rounds=1, columns=("lr", "numpy"), room=1_300_000_000), tmp_path, lambda _: None, workers, {})
    before = {"numpy": Cell("linreg", 10**3, "numpy", "timed", "", ((100.0,),))}
    late = {c.column: c for c in measure.measure(bench, BY_NAME["linreg"], 10**6, before)}
    assert late["numpy"].status == "skipped" and "slow" in late["numpy"].note and late["lr"].status == "timed"
    large = {c.column: c for c in measure.measure(bench, BY_NAME["linreg"], 10**8, {})}
    assert large["numpy"].status == "skipped" and "room" in large["numpy"].note and large["lr"].status == "timed"


@pytest.mark.parametrize("column", ["numpy", pytest.param("c", marks=pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc"))])
def test_a_real_worker(column):
    requests = "about\nprepare linreg 200\ntime 2\nmemory 1\nrelease\ntime 1\nprepare nothing 1\nwhat\n"
    script = Path(measure.__file__).with_name("worker.py")
    done = subprocess.run([sys.executable, str(script), column, "numpy", "1"], input=requests, capture_output=True, text=True, check=True)
    about, prepared, timed, memory, released, empty, nothing, unknown = map(json.loads, done.stdout.splitlines())
    assert about["versions"] and len(timed["samples"]) == 2 and min(timed["samples"]) > 0 and released == {}
    assert memory.get("samples", [0])[0] >= 0
    assert "nothing is prepared" in empty["error"] and "no form" in nothing["absent"] and "no such request" in unknown["error"]
    assert differing(expected("linreg", data.inputs("linreg", 200)), prepared["numbers"], 1e-3) is None


def test_differences_are_relative_to_the_largest_of_an_array():
    assert differing({"g": [1.0, 1000.0]}, {"g": [1.5, 1000.0]}, 1e-3) is None
    assert "g = 3" in (differing({"g": [1.0, 1000.0]}, {"g": [3.0, 1000.0]}, 1e-3) or "")
    assert "2 numbers" in (differing({"g": 1.0}, {"g": [1.0, 2.0]}, 1e-3) or "")
    assert "nan" in (differing({"g": 1.0}, {"g": float("nan")}, 1e-3) or "")
    assert differing({"g": 1.0}, {"h": 2.0}, 1e-3) is None


# ---------------------------------------------------------------- the report
def canned():
    def cell(work, size, column, *samples, status="timed", note="", details=None):
        return Cell(work, size, column, status, note, tuple((s, s) for s in samples), details)
    return report.by_key([
        cell("linreg", 10**6, "lr", 0.2), cell("linreg", 10**6, "c", 0.25), cell("linreg", 10**6, "jax", 2.0),
        cell("linreg", 10**7, "lr", 2.0, 4.0, 2.0), cell("linreg", 10**7, "c", 2.0, 4.0, 1.0),
        cell("linreg", 10**7, "jax", 10.0, 20.0, 9.0),
        cell("linreg", 10**7, "torch-compile", status="absent", note="not installed"),
        cell("linreg", 10**7, "numpy", status="mismatch", note="cost = 2, which is far from 1 from lr's"),
        cell("tutorial", 10_100, "lr", 0.1, details={"first": 50.0, "inside": 0.08}), cell("tutorial", 10_100, "c", 0.08),
        cell("memory", 10**7, "lr", 1.5),
    ])


def test_ratios_are_taken_within_rounds():
    cells = canned()
    assert ratio(cells["linreg", 10**7, "jax"], cells["linreg", 10**7, "lr"]) == 5.0
    assert cells["linreg", 10**7, "lr"].median == 2.0 and cells["linreg", 10**7, "lr"].quartiles == (2.0, 3.5)


def test_targets_are_judged():
    judged = {(v.work, v.target.peer, v.target.inside): (v.value, v.met) for v in report.verdicts(canned())}
    assert judged == {("tutorial", "c", False): (pytest.approx(1.25), False), ("tutorial", "c", True): (pytest.approx(1.0), True),
                      ("tutorial", "pytensor", False): (None, None), ("tutorial", "jax", False): (None, None),
                      ("linreg", "c", False): (1.0, True), ("linreg", "jax", False): (5.0, False),
                      ("linreg", "torch-compile", False): (None, None), ("memory", None, False): (1.5, True)}


def test_the_table_is_rendered(golden):
    golden("bench_table.txt", report.table(canned()))


def test_json_holds_what_was_measured():
    content = report.as_json(canned(), Options(), {"numpy": "2"}, "lr bench linreg", 0.5)
    assert json.loads(json.dumps(content)) == content
    jax = next(r for r in content["results"] if r["column"] == "jax" and r["size"] == 10**7)
    assert (jax["median"], jax["times_ours"], jax["unit"], jax["round_medians"]) == (10.0, 5.0, "ms", [10.0, 20.0, 9.0])
    assert content["load_before"] == 0.5 and jax["best"] == 9.0
    assert {"date", "machine", "versions", "command", "device", "targets"} <= set(content)
    assert [t["met"] for t in content["targets"]].count(True) == 3


def test_the_plot_has_a_panel_a_work(tmp_path):
    assert report.plot(canned(), tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    few = {key: cell for key, cell in canned().items() if key[1] == 10**7}
    assert not report.plot(few, tmp_path / "none.png") and not (tmp_path / "none.png").exists()


# ---------------------------------------------------------------- the command
def test_the_list():
    done = lr("--list")
    assert done.exit_code == 0 and all(work.name in done.output for work in WORK) and "10^8" in done.output
    done = lr("--list", "--device", "cuda")
    assert done.exit_code == 0 and all(work.name in done.output for work in GPU_WORK) and "cublas" in done.output


@pytest.mark.parametrize(("words", "says"), [(["linrg"], "did you mean `linreg`?"), (["--peers", "jaxx"], "did you mean `jax`?"),
                                             (["--json", "/no/such/folder/b.json"], "no folder"),
                                             (["--python", "/no/such/python"], "no program"),
                                             (["--device", "tpu"], "--device"), (["--rounds", "0"], "--rounds")])
def test_words_that_mean_nothing(words, says):
    done = lr(*words)
    assert done.exit_code == 2 and says in done.stderr


def test_peers_are_chosen_by_system_or_column():
    assert command.columns_of(None) == tuple(COLUMNS)
    assert command.columns_of("jax") == ("lr", "lr-cold", "jax", "jax-step", "imports")
    assert command.columns_of("jax-step, c") == ("lr", "lr-cold", "c", "c-fast", "jax-step", "imports")
    assert command.columns_of("") == ("lr", "lr-cold", "imports")
    assert command.columns_of(None, "cuda") == tuple(GPU_COLUMNS) and "numba" not in GPU_COLUMNS
    assert command.columns_of("torch", "cuda") == ("lr", "lr-cold", *LIMITS, "torch", "torch-compile")


def test_the_command_is_written_without_paths():
    words = command.words(command.Request(("linreg",), True, "cpu", 3, "c,jax", (100,), "/some/where/bin/python", 2, "/else/b.json"))
    assert words == "lr bench linreg --quick --device cpu --rounds 3 --peers c,jax --threads 2 --size 100 --python python --json b.json"


def test_a_whole_run(tmp_path, monkeypatch):
    """A tiny one, in real processes."""
    monkeypatch.chdir(tmp_path)
    done = lr("axpb", "--quick", "--device", "numpy", "--peers", "numpy,c", "--rounds", "1", "--json", "b.json", "--plot", "b.png")
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "b.json").read_text())
    status = {(r["column"], r["size"]): r["status"] for r in content["results"]}
    limit = "timed" if shutil.which("gcc") else "absent"
    assert status == {(c, n): s for n in (100, 10_000) for c, s in (("lr", "timed"), ("numpy", "timed"), ("c", limit))}
    assert (tmp_path / "b.png").exists() and "10^4" in done.stdout and "round 1 of 1" in done.stderr


def test_whole_processes_print_the_line(tmp_path):
    for column in ("lr", "numpy"):
        done = subprocess.run(start.command(column, sys.executable, "numpy", tmp_path), capture_output=True, text=True, check=True)
        found = start.numbers(done.stdout)
        assert found["w"] == pytest.approx(2, abs=0.3) and found["b"] == pytest.approx(1, abs=0.2)
    assert start.numbers("") == {}


def test_a_fresh_process_for_what_compiling_costs(tmp_path):
    bench = Bench(Options(device="numpy", rounds=1, columns=("lr", "lr-cold")), tmp_path, lambda _: None, {}, {})
    cells = measure.measure(bench, BY_NAME["compile"], 56, {})
    assert [(c.column, c.status) for c in cells] == [("lr", "timed"), ("lr-cold", "timed")], [c.note for c in cells]
    assert all(c.median >= 0 and c.details["before"] > 0 for c in cells)
