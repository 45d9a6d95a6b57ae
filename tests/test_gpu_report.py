"""`make gpu` with stand-ins for the driver's tool and for the interpreter: what is run, in which order, what the report says."""

import datetime
import importlib.util
import json
import sys
import time
from pathlib import Path

import pytest

PLACE = Path(__file__).parent.parent / "benchmarks" / "gpu.py"
spec = importlib.util.spec_from_file_location("gpu_report", PLACE)
gpu = importlib.util.module_from_spec(spec)
sys.modules["gpu_report"] = gpu
spec.loader.exec_module(gpu)

SMI = """#!/bin/sh
case "$1" in
  --query-gpu*) echo "NVIDIA Toy 100, 570.86.10, 81559 MiB, 9.0" ;;
  *) echo "| NVIDIA-SMI 570.86.10    Driver Version: 570.86.10    CUDA Version: 12.8 |" ;;
esac
"""
BENCH = {"versions": {"lr": "0.1.0", "cupy": "13.6.0"},
         "results": [{"column": "copy", "gb_per_s": 2900.0}, {"column": "lr", "gb_per_s": 2750.0}, {"column": "read", "gb_per_s": 3100.0}],
         "targets": [{"work": "axpb", "size": 10**9, "target": "lr at least 90% of the bandwidth of copy", "value": 0.948, "met": True},
                     {"work": "mlp", "size": 2800, "target": "jax at least 3 x lr", "value": None, "met": None}]}
PYTHON = """#!%s
import json, os, sys, time
words, settings = sys.argv[1:], json.loads(os.environ["SETTINGS"])
text, log = " ".join(words), os.environ["LOG"]
with open(log, "a") as lines:
    lines.write(json.dumps([words, os.environ.get("LR_DEVICE")]) + chr(10))
for what, seconds in settings.get("slow", {}).items():
    if what in text:
        print("begun", flush=True)
        time.sleep(seconds)
if "import json, cupy" in text:
    if settings.get("cupy") == "absent" and not os.path.exists(log + ".installed"):
        sys.exit("ModuleNotFoundError: No module named 'cupy'")
    print("a warning first")
    print(json.dumps({"cupy": "13.6.0", "nvrtc": "12.8", "device seen by cupy": "NVIDIA Toy 100"}))
elif "pip" in words:
    if not settings.get("network", True):
        sys.exit("ERROR: No matching distribution found for cupy-cuda12x")
    open(log + ".installed", "w").close()
elif "bench" in words:
    open(words[words.index("--json") + 1], "w").write(os.environ["BENCH"])
    print("axpb: y = a*x + x*x, float32" + chr(10) + "1 of 2 targets met, 1 not judged")
elif "pytest" in words:
    print("FAILED tests/test_good.py::test_x - AssertionError" + chr(10) + "1 failed, 9 passed in 2.00s")
    sys.exit(1)
elif settings.get("fails") and settings["fails"] in text:
    sys.exit("error[E0710]: the GPU has no memory left")
"""
SANITIZER = """#!/bin/sh
echo "========= COMPUTE-SANITIZER"
case "$*" in *racecheck*logistic*) echo "========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)"; exit 9 ;; esac
echo "========= ERROR SUMMARY: 0 errors"
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A machine with a GPU, as far as its commands can tell; only these are on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def tool(name, text):
        place = folder / name
        place.write_text(text)
        place.chmod(0o755)
        return str(place)

    def run(*words, python=PYTHON % sys.executable, **settings):
        monkeypatch.setenv("SETTINGS", json.dumps(settings))
        code = gpu.main(["--python", tool("toy-python", python), "--out", str(tmp_path / "out"), *words])
        log = tmp_path / "log"
        called = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        found, text = (tmp_path / "out" / f"gpu-{datetime.date.today().isoformat()}{suffix}" for suffix in (".json", ".md"))
        return (code, called, json.loads(found.read_text()), text.read_text()) if found.exists() else (code, called, {}, "")
    tool("nvidia-smi", SMI)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(gpu, "TOOLKITS", folder)
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv("BENCH", json.dumps(BENCH))
    run.tool = tool
    return run


def status(report):
    return {part["name"]: part["status"] for part in report["parts"]}


def test_all_of_it(toy):
    toy.tool("compute-sanitizer", SANITIZER)
    code, called, report, text = toy()
    assert code == 1, "tests fail"
    ways = ("import json, cupy", "dsl run", "dsl test", "dsl bench", "benchmarks/ways.py", "import xdist", "pytest")
    kinds = [next(way for way in ways if way in " ".join(words)) for words, _ in called]
    first = {kind: kinds.index(kind) for kind in kinds}
    assert first["import json, cupy"] < first["dsl run"] < first["dsl test"] < first["dsl bench"] < first["pytest"]
    assert "--device cuda" in " ".join(called[first["dsl run"]][0])
    assert "examples/linear_regression.lr" in called[first["dsl run"]][0] and called[first["dsl test"]][1] == "cuda"
    pytest_words = called[first["pytest"]][0]
    assert pytest_words[pytest_words.index("--device") + 1] == "cuda" and any(w.endswith("test_on_a_gpu.py") for w in pytest_words)
    assert not any("pip" in words for words, _ in called), "CuPy is there"
    found = status(report)
    assert found["tests"] == found["racecheck: logistic_regression"] == "failed" and found["memcheck: linear_regression"] == "well"
    assert report["copy bandwidth"] == "2,900 GB/s" and report["machine"]["driver"] == "570.86.10" and report["bench"] == BENCH
    for words in ("# On a GPU: NVIDIA Toy 100", "| driver | 570.86.10 |", "| CUDA of the driver | 12.8 |", "| cupy | 13.6.0 |",
                  "| met | 95% |", "| open |  |", "1 failed, 9 passed in 2.00s; tests/test_good.py::test_x",
                  "RACECHECK SUMMARY: 1 hazard", "2,900 GB/s", "y = a*x + x*x, float32"):
        assert words in text, words


def test_without_a_gpu_it_says_what_is_missing(toy, capsys, monkeypatch):
    toy.tool("nvidia-smi", "#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'\nexit 9\n")
    code, called, report, _ = toy()
    says = capsys.readouterr().err
    assert (code, called, report) == (2, [], {}) and "could not communicate with the NVIDIA driver" in says and "lr doctor" in says
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(gpu.ctypes, "CDLL", lambda _: (_ for _ in ()).throw(OSError()))
    assert toy()[0] == 2 and "there is no NVIDIA driver" in capsys.readouterr().err


def test_cupy_is_installed_for_the_driver(toy):
    code, called, report, _ = toy("--only", "smoke", cupy="absent")
    pip = next(words for words, _ in called if "pip" in words)
    assert code == 0 and pip[-1].startswith("cupy-cuda12x[ctk]") and status(report)["CuPy"] == "well"
    toy.tool("nvidia-smi", SMI.replace("12.8", "13.0"))
    assert isinstance(gpu.machine(), gpu.Machine) and gpu.machine().extra == "cuda13"


def test_without_cupy_and_network_it_says_so(toy, capsys):
    code, called, report, _ = toy(cupy="absent", network=False)
    assert code == 2 and status(report) == {"install CuPy (cuda12)": "failed", "CuPy": "failed"}
    assert "No module named 'cupy'" in capsys.readouterr().err and not any("bench" in words for words, _ in called)


def test_it_goes_on_after_a_part_that_fails(toy):
    code, _, report, text = toy(fails="softmax")
    found = status(report)
    assert code == 1 and found["run softmax_classifier"] == "failed" and found["run mlp_digits"] == found["benchmarks"] == "well"
    assert found["compute-sanitizer"] == "left out" and "E0710" in text


def test_a_part_that_takes_too_long_is_ended_with_all_it_started(toy, monkeypatch):
    monkeypatch.setattr(gpu, "LEAST", 1.0)
    began = time.monotonic()
    code, _, report, _ = toy("--minutes", "0.1", "--only", "smoke,bench", slow={"linear_regression": 60})
    found = status(report)
    assert time.monotonic() - began < 30 and code == 1
    assert found["run linear_regression"] == "time was up" and found["benchmarks"] == "left out"
    assert next(p for p in report["parts"] if p["name"] == "run linear_regression")["output"].strip() == "begun"


def test_what_is_run_ends_with_its_children():
    ran = gpu.run(["/bin/sh", "-c", "sleep 50 & echo started; sleep 50"], 0.5)
    assert ran.code is None and ran.output == "started\n" and ran.seconds < 20
    assert gpu.run(["/no/such/program"], 1).code == 127


def test_a_short_loan_has_fewer_rounds(toy):
    _, called, _, _ = toy("--minutes", "15", "--only", "bench")
    words = next(words for words, _ in called if "bench" in words)
    assert words[words.index("--rounds") + 1] == "3" and "--quick" not in words
    _, called, _, _ = toy("--quick", "--only", "bench", "--peers", "/some/python")
    words = [words for words, _ in called if "bench" in words][-1]
    assert "--quick" in words and words[words.index("--python") + 1] == "/some/python"
    with pytest.raises(SystemExit):
        toy("--only", "benhc")


def test_the_test_files_are_there():
    assert [name for name in gpu.TESTS if not (gpu.ROOT / "tests" / f"{name}.py").exists()] == []
    assert [name for name in {*gpu.EXAMPLES, *gpu.SANITIZED} if not (gpu.ROOT / "examples" / f"{name}.lr").exists()] == []
