"""`lr bench --device cuda` end to end at tiny sizes, on the stand-in for CuPy; and PyTorch's and JAX's forms of the same work."""

import json
import time

import numpy as np
import pytest
from click.testing import CliRunner

from dsl.bench import command, data, measure, report, worker
from dsl.bench.expected import expected
from dsl.bench.measure import Bench, Cell, Options, Trouble, differing
from dsl.bench.peers import cupy as by_cupy
from dsl.bench.peers import ours
from dsl.bench.work import GPU_COLUMNS, GPU_WORK, OURS
from dsl.cli import commands
from tests import stand_in_cupy as stand_in
from tests.test_cuda_source import gcc  # noqa: F401  (a fixture)

BY_NAME = {work.name: work for work in GPU_WORK}
TINY = {"axpb-gpu": 3_000, "chain-gpu": 3_000, "linreg-gpu": 3_000, "tutorial": 1_010, "mlp": 56, "wide-gpu": 2}


class RawKernel:
    """As CuPy's, compiled by the stand-in."""

    def __init__(self, code, name, options=(), backend="nvrtc"):
        module = stand_in.Module()
        module.load(code.encode())
        self.function = module.get_function(name)

    def __call__(self, grid, block, args):
        self.function(grid, block, args)


class Event(stand_in.Event):
    def record(self, stream=None):
        super().record(stream)
        self.at = time.perf_counter()


def on_device(values):
    return stand_in.asarray(np.asarray(values))


@pytest.fixture
def gpu(monkeypatch, gcc):  # noqa: F811
    """The stand-in with what only the bench asks for; blocks of 1,000 elements, and a small network."""
    more = {"sum": lambda a, dtype=None: on_device(np.sum(a.elements, dtype=dtype)), "mean": lambda a: on_device(np.mean(a.elements)),
            "copyto": lambda dst, src: dst.__setitem__(slice(None), src), "RawKernel": RawKernel}
    others = stand_in.__getattr__
    monkeypatch.setattr(stand_in, "__getattr__", lambda name: more[name] if name in more else others(name))
    monkeypatch.setattr(stand_in.ndarray, "__neg__", lambda a: a * -1, raising=False)
    monkeypatch.setattr(stand_in.ndarray, "__rmul__", lambda a, other: a * other, raising=False)
    monkeypatch.setattr(stand_in.cuda, "Event", Event)
    monkeypatch.setattr(stand_in.cuda, "get_elapsed_time", lambda a, b: 1e3 * (b.at - a.at), raising=False)
    monkeypatch.setattr(data, "CHUNK", 1_000)
    monkeypatch.setattr(data, "GPU_BATCH", 8)
    monkeypatch.setattr(data, "GPU_HIDDEN", 6)
    monkeypatch.setitem(ours.SETTINGS, "device", "cuda")
    with stand_in.installed() as device:
        yield device


@pytest.mark.parametrize(("column", "entry"), [(c, e) for c in ("lr", "cupy", "copy", "read", "cublas") for e in TINY
                                               if e in measure.import_module(measure.module_of(c)).TABLE[c]])
def test_a_side_on_a_gpu(gpu, column, entry):
    """What it gives is NumPy's; a turn gives samples, and memory is given back."""
    server = worker.Server(column, "cuda", 1)
    reply = server.answer(["prepare", entry, str(TINY[entry])])
    if column in ("lr", "cupy"):
        assert differing(expected(entry, TINY[entry]), reply["numbers"], 2e-3 if "elements" not in reply["numbers"] else 1e-5) is None
    else:
        assert reply["numbers"] == {}
    turn = server.answer(["time", "2"])
    assert len(turn["samples"]) == 2 and min(turn["samples"]) > 0
    assert stand_in.get_default_memory_pool().free_bytes() == 0
    if entry.endswith("-gpu") and entry != "wide-gpu":
        assert gpu.used >= 4 * TINY[entry] and gpu.copied("down") < 2 * TINY[entry], "long arrays do not leave the device"
    server.answer(["release"])
    assert gpu.used < 4 * TINY["axpb-gpu"]
    assert server.answer(["room"])["room"] > 0


def test_a_wrong_result_is_found(gpu):
    given = data.inputs("axpb-gpu", 3_000)
    wanted = expected("axpb-gpu", 3_000)
    for change in (lambda a, x: a * x + x, lambda a, x: x[::-1]):
        right = np.resize(given["x"], 3_000)
        y = on_device(np.asarray(change(1.5, right), np.float32))
        assert differing(wanted, by_cupy.element_numbers(y), 1e-5)
    last = 1.5 * right + right * right
    last[-1] += 1
    assert differing(wanted, by_cupy.element_numbers(on_device(last.astype(np.float32))), 1e-5)


def test_what_only_reads_reads_everything(gpu):
    """The kernel's sum is stored only where it is one number: put that number there, and leave out nothing."""
    source = by_cupy.READ.replace("if (sum == 12345.678f) sums[threadIdx.x] = sum", "sums[blockIdx.x * blockDim.x + threadIdx.x] = sum")
    for count in (4, 1_000, 40_000):
        sums = stand_in.zeros(2 * 256, np.float32)
        x = np.random.default_rng(count).integers(-9, 9, count).astype(np.float32)
        RawKernel(source, "read")((2,), (256,), (on_device(x), np.int64(count // 4), sums))
        assert sums.get().sum() == x.sum()


@pytest.fixture
def precision_as_before():
    """JAX has one precision for the whole process, which other tests set."""
    jax = pytest.importorskip("jax")
    before = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize("name", [f"{peer}-{work}" for peer in ("jax", "torch") for work in TINY])
def test_peers_have_the_same_work(name, monkeypatch, precision_as_before):
    """On the CPU, as they would do it on a GPU."""
    peer, _, entry = name.partition("-")
    pytest.importorskip(peer)
    monkeypatch.setattr(data, "CHUNK", 1_000)
    monkeypatch.setattr(data, "GPU_BATCH", 8)
    monkeypatch.setattr(data, "GPU_HIDDEN", 6)
    reply = worker.Server(peer, "cpu", 1).answer(["prepare", entry, str(TINY[entry])])
    assert differing(expected(entry, TINY[entry]), reply["numbers"], 1e-2 if entry in ("mlp", "wide-gpu") else 2e-4) is None


# ---------------------------------------------------------------- sizes
def test_sizes_that_fit_on_the_gpu():
    work = BY_NAME["chain"]
    columns = [*work.columns]
    assert measure.fitting(work, 10**9, columns, 72 * 10**9) == 10**9
    assert measure.fitting(work, 10**9, columns, 40 * 10**9) == 5 * 10**8
    assert measure.fitting(work, 10**9, [OURS, "copy"], 24 * 10**9) == 10**9


def test_a_size_that_does_not_fit_is_said_and_judged(tmp_path):
    said = []
    bench = Bench(Options("cuda", columns=tuple(GPU_COLUMNS)), tmp_path, said.append, {}, {"cupy": "not installed"})
    work, sizes = command.fitted(bench, BY_NAME["axpb"], (10**9,), 10**10)
    assert sizes == (250_000_000,) and work.headline == 250_000_000 and "250,000,000 do" in said[0]
    cells = report.by_key([Cell("axpb", work.headline, c, "timed", "", ((ms, ms),)) for c, ms in (("lr", 1.25), ("copy", 1.0))])
    verdict, = report.verdicts(cells, [work])
    assert verdict.value == pytest.approx(0.8) and verdict.met is False


# ---------------------------------------------------------------- the report
def canned():
    def cell(work, size, column, ms):
        return Cell(work, size, column, "timed", "", ((ms, ms), (ms, ms)))
    return report.by_key([
        cell("axpb", 10**9, "lr", 4.0), cell("axpb", 10**9, "copy", 3.8), cell("axpb", 10**9, "cupy", 12.0),
        Cell("axpb", 10**9, "jax", "absent", "not installed"),
        cell("linreg", 10**9, "lr", 5.0), cell("linreg", 10**9, "read", 4.0), cell("linreg", 10**9, "jax", 6.0),
        cell("mlp", 2_800, "lr", 28.0), cell("mlp", 2_800, "jax", 140.0),
        cell("compile", 56, "lr", 30.0), cell("compile", 56, "lr-cold", 1_200.0)])


def test_the_table_of_a_gpu_is_rendered(golden):
    golden("bench_gpu_table.txt", report.table(canned(), GPU_WORK))


def test_targets_of_a_gpu_are_judged():
    judged = {v.text("ms"): (v.found(), v.met) for v in report.verdicts(canned(), GPU_WORK)}
    assert judged["lr at least 90% of the bandwidth of copy"] == ("95%", True)
    assert judged["lr at least 85% of the bandwidth of read"] == ("80%", False)
    assert judged["lr at most 15 us each"] == ("10 us", True)
    assert judged["lr-cold at most 1000 ms"] == ("1,200", False)
    assert judged["torch-compile at least 1 x lr"] == ("", None)
    content = report.as_json(canned(), Options("cuda", columns=tuple(GPU_COLUMNS)), {}, "lr bench --device cuda", None, GPU_WORK)
    assert json.loads(json.dumps(content)) == content
    assert next(r for r in content["results"] if r["column"] == "copy")["gb_per_s"] == pytest.approx(8 * 1e9 / 3.8e-3 / 1e9, rel=1e-3)


# ---------------------------------------------------------------- the command
def test_without_a_gpu_it_says_so():
    done = CliRunner().invoke(commands, ["bench", "--device", "cuda", "axpb"])
    assert done.exit_code == 2 and "lr doctor" in done.stderr and "device cuda" in done.stderr


class InProcess:
    """A worker without a process."""

    alive = True

    def __init__(self, column):
        self.server = worker.Server(column, "cuda", 1)

    def ask(self, request, patience=0):
        if self.server.column in ("jax", "torch", "torch-compile"):
            raise Trouble("absent", "not installed")
        return self.server.answer(request.split())

    def close(self):
        pass


def test_a_whole_run_on_a_gpu(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(Bench, "worker", lambda self, column: self.workers.setdefault(column, InProcess(column)))
    monkeypatch.chdir(tmp_path)
    words = ["bench", "axpb", "linreg", "tutorial", "--device", "cuda", "--size", "2000", "--rounds", "1", "--json", "gpu.json"]
    done = CliRunner().invoke(commands, words)
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "gpu.json").read_text())
    status = {(r["work"], r["column"]): r["status"] for r in content["results"]}
    assert status["axpb", "lr"] == status["axpb", "copy"] == status["linreg", "read"] == status["tutorial", "lr"] == "timed", done.output
    assert status["axpb", "jax"] == "absent" and "GB/s" in done.stdout and content["device"] == "cuda"
