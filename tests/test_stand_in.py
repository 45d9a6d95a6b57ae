"""The stand-in for CuPy: it has CuPy's names, signatures and errors where CuPy is there to compare with, and its faults are seen."""

import inspect
import json
import os
import subprocess
import sys
import types

import numpy as np
import pytest

from tests import stand_in_cupy as cupy

CLASSES = [cupy.ndarray, cupy.MemoryPool, cupy.Stream, cupy.Event, cupy.Device, cupy.Module, cupy.Function]
OURS = {"elements", "owner", "later", "run", "waiting", "last", "declared", "library", "name", "dynamic", "ptr", "recorded", "before"}
"""What only the stand-in has, and attributes of instances."""
ASK = """
import inspect, json, sys
import cupy, cupy.cuda.compiler, cupy.cuda.memory
found = {}
for path in json.load(sys.stdin):
    value = cupy
    try:
        for name in path.split("."):
            value = getattr(value, name)
    except AttributeError:
        found[path] = None
        continue
    try:
        found[path] = list(inspect.signature(value.__init__ if inspect.isclass(value) else value).parameters)
    except (TypeError, ValueError):
        found[path] = (getattr(value, "__doc__", None) or "").strip().splitlines()[:1]
error = cupy.cuda.memory.OutOfMemoryError
json.dump([cupy.__version__, found, [str(error(1000, 2000, 3000)), str(error(1000, 2000))], [c.__name__ for c in error.__mro__],
           [c.__name__ for c in cupy.cuda.runtime.CUDARuntimeError.__mro__]], sys.stdout)
"""


def names(space, path=""):
    """Everything that the stand-in offers as CuPy's."""
    for name, value in vars(space).items():
        if name.startswith("_") and name not in ("__dlpack__", "__dlpack_device__", "__cuda_array_interface__"):
            continue
        if name not in OURS:
            yield f"{path}{name}", value
            if value in CLASSES or isinstance(value, types.SimpleNamespace) or value is cupy.driver:
                yield from names(value, f"{path}{name}.")


def offered():
    public = {n: v for n, v in vars(cupy).items() if n == "cuda" or (getattr(v, "__module__", None) == cupy.__name__ and n in (
        "ndarray", "empty", "zeros", "array", "asarray", "ascontiguousarray", "arange", "from_dlpack", "asnumpy", "matmul",
        "get_default_memory_pool"))}
    return dict(names(types.SimpleNamespace(**public)))


def test_names_are_those_of_cupy():
    """CuPy need not be that of this interpreter: LR_CUPY_PYTHON names another."""
    python = os.environ.get("LR_CUPY_PYTHON", sys.executable)
    wanted = offered()
    asked = subprocess.run([python, "-c", ASK], input=json.dumps(list(wanted)), capture_output=True, text=True)
    if asked.returncode:
        print(f"\nSKIPPED: CuPy is not installed for {python}")
        pytest.skip("CuPy is not installed")
    version, found, texts, memory, runtime = json.loads(asked.stdout)
    assert not [path for path, what in found.items() if what is None], version
    for path, value in wanted.items():
        if not callable(value) or isinstance(value, type) or "nvrtc.getVersion" in path:
            continue
        here = [p for p in inspect.signature(value).parameters if p not in ("self", "_")]
        there = found[path]
        if len(there) == 1 and "(" in there[0]:                     # the first line of a text: `f(self, *, stream=None, …)`
            there = [w.partition("=")[0].split()[-1] for w in there[0].partition("(")[2].partition(")")[0].split(",") if w.strip()]
        if {"args", "kwargs"} <= set(there) or there[:1] == ["args"]:
            continue                                                # CuPy does not say
        there = [w.lstrip("*") for w in there if w not in ("self", "*", "/")]
        assert [w for w in there if w in here] == here, (path, here, there)
    assert texts == [str(cupy.OutOfMemoryError(1000, 2000, 3000)), str(cupy.OutOfMemoryError(1000, 2000))]
    assert memory == [c.__name__ for c in cupy.OutOfMemoryError.__mro__]
    assert runtime == [c.__name__ for c in cupy.CUDARuntimeError.__mro__]


def test_arrays_are_not_converted_silently():
    with cupy.installed() as gpu:
        a = cupy.asarray(np.arange(6.0).reshape(2, 3))
        for convert in (np.asarray, np.array, np.sum, lambda x: np.add(x, 1), lambda x: np.ones((2, 3)) * x):
            with pytest.raises(TypeError):
                convert(a)
        assert np.array_equal(cupy.asnumpy(a[1:, ::2]), [[3.0, 5.0]]) and np.array_equal((a + a).get()[0], [0, 2, 4])
        assert gpu.copied("up") == 48 and a.reshape(-1).data.ptr == a.data.ptr != a[1:].data.ptr
        with pytest.raises(cupy.CUDARuntimeError):
            cupy.ndarray(np.ones(3), None)


def test_memory_runs_out_and_is_kept():
    with cupy.installed(memory=1 << 20):
        pool = cupy.get_default_memory_pool()
        first = cupy.empty(100_000, np.float64)
        with pytest.raises(MemoryError, match="Out of memory allocating"):
            cupy.empty(100_000, np.float64)
        assert pool.used_bytes() == pool.total_bytes() == 800_256
        del first
        assert pool.used_bytes() == 0 and pool.free_bytes() == 800_256
        pool.free_all_blocks()
        assert pool.total_bytes() == 0 and cupy.cuda.runtime.memGetInfo() == (1 << 20, 1 << 20)


def test_streams_wait():
    with cupy.installed():
        done = []
        side = cupy.cuda.Stream(non_blocking=True)
        side.later(lambda: done.append("side"))
        cupy.zeros(3)
        assert not done, "the default stream does not wait for it"
        event = side.record()
        cupy.cuda.get_current_stream().wait_event(event)
        cupy.zeros(3)
        assert done == ["side"]


KERNEL = """
extern "C" __global__ void twice(const float* __restrict__ x, float* __restrict__ y, const long long n) {
    const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i < n) y[i] = 2.0f * x[i];
}
"""


def test_kernels_run_and_their_arguments_are_checked():
    with cupy.installed() as gpu:
        code, _ = cupy.cuda.compiler.compile_using_nvrtc(KERNEL)
        module = cupy.cuda.Module()
        module.load(code)
        twice = module.get_function("twice")
        x, y = cupy.asarray(np.arange(40, dtype=np.float32)), cupy.zeros(40, np.float32)
        with cupy.cuda.Stream() as side:
            twice((2,), (32,), (x, y, np.int64(40)))
        assert np.array_equal(y.get(), 2 * np.arange(40)) and gpu.launches == [("twice", side.ptr, False)]
        for wrong in [(x, y, np.int32(40)), (x.astype(np.float64), y, np.int64(40)), (x, y, y), (x, np.ones(40), np.int64(40))]:
            with pytest.raises(TypeError, match="twice"):
                twice((2,), (32,), wrong)
        with pytest.raises(AssertionError, match="outside"):
            twice((4,), (32,), (x, y, np.int64(50)))
