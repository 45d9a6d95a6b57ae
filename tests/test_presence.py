"""What keeps a GPU from being used: each of the ways that machines have, by stand-ins for what CuPy says there."""

import json
import os
import sys
import types
from importlib import metadata

import pytest
from click.testing import CliRunner

from dsl.backends.cuda import presence
from dsl.cli import commands
from dsl.runtime import doctor
from tests import stand_in_cupy


def raising(error):
    def call(*_):
        raise error
    return call


def cupy(count=lambda: 1, runtime=12090, nvrtc=lambda: (12, 9), capability="90"):
    """What `import cupy` finds."""
    device = types.SimpleNamespace(compute_capability=capability, id=0)
    found = types.ModuleType("cupy")
    found.cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(getDeviceCount=count, runtimeGetVersion=lambda: runtime), Device=lambda: device,
        nvrtc=types.SimpleNamespace(getVersion=nvrtc))
    return found


INSUFFICIENT = raising(RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"))
NO_DEVICE = raising(RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected\nmore"))
NO_NVRTC = raising(RuntimeError('Failure finding "libnvrtc.so.13 or libnvrtc.so.12": ' + "No such file: libnvrtc.so.13, " * 9))
ONE = ["cupy-cuda12x 13.6.0"]

CASES = {
    # CuPy (None: not installed), its packages, the driver's CUDA, CUDA_VISIBLE_DEVICES; words of the problem and of the advice
    "all is well": (cupy(), ONE, (12, 9), None, None, None),
    "a newer driver": (cupy(), ONE, (13, 0), None, None, None),
    "nothing": (None, [], None, None, "CuPy is not installed, and there is no NVIDIA driver", "an NVIDIA GPU and its driver, then"),
    "no CuPy": (None, [], (12, 4), None, "CuPy is not installed", "lr-lang[cuda12]"),
    "no CuPy, CUDA 13": (None, [], (13, 0), None, "CuPy is not installed", "lr-lang[cuda13]"),
    "two packages": (cupy(), ["cupy-cuda12x 13.6.0", "cupy-cuda13x 13.6.0"], (13, 0), None, "2 packages of CuPy",
                     "pip uninstall cupy-cuda12x cupy-cuda13x`, then `pip install \"lr-lang[cuda13]"),
    "a broken build": ("broken", ["cupy 13.6.0"], (12, 4), None, "CuPy cannot be imported (libcublas.so.12", "pip uninstall cupy`, then"),
    "no driver": (cupy(INSUFFICIENT), ONE, None, None, "CuPy finds no GPU (cudaErrorInsufficientDriver", "NVIDIA GPU and its driver"),
    "an old driver": (cupy(INSUFFICIENT, runtime=13000), ["cupy-cuda13x 13.6.0"], (12, 4), None,
                      "driver, for CUDA 12.4, is too old for cupy-cuda13x, which is built for CUDA 13.0",
                      "pip uninstall cupy-cuda13x`, then `pip install \"lr-lang[cuda12]"),
    "a very old driver": (cupy(INSUFFICIENT), ONE, (11, 4), None, "driver, for CUDA 11.4, is too old", "a newer NVIDIA driver"),
    "no device": (cupy(NO_DEVICE), ONE, (12, 9), None, "CuPy finds no GPU (cudaErrorNoDevice", "nvidia-smi"),
    "hidden": (cupy(NO_DEVICE), ONE, (12, 9), "", "CUDA_VISIBLE_DEVICES hides them all", "unset it"),
    "hidden by -1": (cupy(lambda: 0), ONE, (12, 9), "-1", "CUDA_VISIBLE_DEVICES hides them all", "unset it"),
    "none": (cupy(lambda: 0), ONE, (12, 9), "0", "CuPy finds no GPU", "--gpus all"),
    "no NVRTC": (cupy(nvrtc=NO_NVRTC), ONE, (12, 9), None, "NVRTC, which compiles kernels, is missing (Failure finding",
                 "pip install \"cupy-cuda12x[ctk]\""),
    "an old GPU": (cupy(capability="52"), ONE, (12, 9), None, "compute capability is 5.2", "another GPU"),
    "a GPU that CUDA 13 has left": (cupy(capability="70", nvrtc=lambda: (13, 0)), ["cupy-cuda13x 14.0"], (13, 0), None,
                                    "(compute capability 7.0) is too old for CUDA 13.0", "lr-lang[cuda12]"),
}


class Broken:
    """A finder of modules that fails as a library that is missing does."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "cupy":
            raise ImportError("libcublas.so.12: cannot open shared object file")


def machine(monkeypatch, found, packages, driver, visible):
    find_spec = presence.importlib.util.find_spec
    monkeypatch.setattr(presence.importlib.util, "find_spec",
                        lambda name, *more: (None if found is None else object()) if name == "cupy" else find_spec(name, *more))
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    if found == "broken":
        monkeypatch.setattr(sys, "meta_path", [Broken, *sys.meta_path])
    elif found is not None:
        monkeypatch.setitem(sys.modules, "cupy", found)
    monkeypatch.setattr(presence, "packages", lambda: packages)
    monkeypatch.setattr(presence, "driver_version", lambda: driver)
    monkeypatch.setattr(presence, "DRIVERS", ("/",) if driver else ())
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)


@pytest.mark.parametrize("name", CASES)
def test_what_is_in_the_way(name, monkeypatch):
    *there, problem, advice = CASES[name]
    machine(monkeypatch, *there)
    found = presence.problem()
    if problem is None:
        assert found is None
        return
    assert problem in found[0] and advice in found[1] and "\n" not in "".join(found)
    assert len(found[0]) < 250
    lines = CliRunner().invoke(commands, ["doctor"]).stdout.splitlines()
    (line,) = [x for x in lines if x.startswith("  cuda ")]
    assert "not used" in line and problem in line and advice in line


@pytest.mark.parametrize(("driver", "visible", "there"), [(True, None, True), (True, "0,1", True), (True, "", False), (True, " -1", False),
                                                          (False, None, False), (True, "GPU-8a3f", True)])
def test_the_driver_is_looked_for_in_the_file_system(driver, visible, there, monkeypatch, tmp_path):
    monkeypatch.setattr(presence, "DRIVERS", (str(tmp_path if driver else tmp_path / "none"),))
    monkeypatch.setattr(sys, "platform", "linux")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert presence.driver_here() == there


def test_remarks(monkeypatch):
    machine(monkeypatch, cupy(), ["cupy 13.6.0"], (12, 4), None)
    assert "built from source" in presence.remarks()[0] and "cuda12" in presence.remarks()[0]
    machine(monkeypatch, cupy(), ONE, (13, 0), None)
    assert "knows CUDA 13.0" in presence.remarks()[0] and "cuda13" in presence.remarks()[0]
    machine(monkeypatch, cupy(), ONE, (12, 4), None)
    assert presence.remarks() == []


def test_doctor_where_a_gpu_works(monkeypatch):
    with stand_in_cupy.installed():
        monkeypatch.setattr(presence, "driver_version", lambda: (13, 0))
        monkeypatch.setattr(presence, "packages", lambda: ONE)
        found = doctor.examine()
        assert found["devices"]["cuda"]["works"] and "Stand-in (compute capability 9.0, 256.0 MiB)" in found["devices"]["cuda"]["why"]
        text = doctor.render(found)
        assert "for CUDA 13.0" in text and "lr-lang[cuda13]" in text
        json.dumps(found)


@pytest.mark.parametrize("words", [
    "catastrophic error: cannot open source file \"cuda_fp16.h\"", "Failed to find CUDA headers.",
    "Failed to auto-detect CUDA root directory. Please specify `CUDA_PATH`"])
def test_missing_headers(words, monkeypatch):
    with stand_in_cupy.installed():
        monkeypatch.setattr(presence, "packages", lambda: ONE)
        monkeypatch.setattr(stand_in_cupy.ndarray, "__add__", raising(RuntimeError(words)))
        found = presence.trial()
        assert "headers are missing" in found[0] and "cupy-cuda12x[ctk]" in found[1]
        monkeypatch.setattr(stand_in_cupy.ndarray, "__add__", raising(RuntimeError("an illegal memory access")))
        assert "illegal memory access" in presence.trial()[0]


def test_packages_are_those_installed(monkeypatch):
    def version(name):
        if name in ("cupy-cuda12x", "cupy-cuda13x"):
            return "13.6.0"
        raise metadata.PackageNotFoundError(name)
    monkeypatch.setattr(metadata, "version", version)
    assert presence.packages() == ["cupy-cuda12x 13.6.0", "cupy-cuda13x 13.6.0"]
    assert doctor.version_of("cupy") == "13.6.0, 13.6.0"


def test_the_driver_of_this_machine():
    found = presence.driver_version()
    assert found is None or (found[0] >= 10 and os.name in ("nt", "posix"))
