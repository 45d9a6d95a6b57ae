"""What the shim runs, and what it finds: CUDA sources written by hand, in many orders of their threads.

Each is what the printed sources are made of: one block that stays, blocks that run together and wait for each other, arrays in
shared memory, copies of 16 bytes, and the same with a mistake in it.  NVRTC compiles the sources for the architectures there are.
"""
# ruff: noqa: E501  (what is planted, one line each)
from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from dsl.backends.cuda import device, nvrtc
from dsl.backends.cuda.device import CupyLauncher
from dsl.backends.cuda.launch import Place
from dsl.backends.cuda.shim import ShimError, ShimLauncher
from tests import stand_in_cupy
from tests.test_cuda_source import needs

ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_120")


@dataclass(frozen=True)
class Parameter:
    declaration: str


@dataclass(frozen=True)
class Function:
    name: str
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True)
class Kernel:
    """A source with one function `k`; `given` makes its arrays and numbers, `wanted` the arrays it should leave, by position."""

    source: str
    given: Any
    wanted: Any
    grid: int = 1
    block: int = 64
    shared: int = 0
    together: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def load(self, launcher: Any, source: str) -> Any:
        declared = source.partition("void k(")[2].partition(")")[0].split(",")
        return launcher.load(source, [Function("k", tuple(Parameter(" ".join(d.split())) for d in declared))])["k"]

    def run(self, launcher: Any, source: str | None = None, **changed: Any) -> list[np.ndarray]:
        """The arrays that it leaves."""
        how = {"grid": self.grid, "block": self.block, "shared": self.shared, "together": self.together} | changed
        places = [value if isinstance(value, np.generic) else Place(launcher.allocate(value.dtype.name, value.size), 0, value.shape, value.dtype.name)
                  for value in self.given()]
        for place, value in zip(places, self.given(), strict=True):
            if isinstance(place, Place):
                launcher.upload(place, value)
        function = self.load(launcher, source or self.source)
        launcher.launch(function, how["grid"], how["block"], places, how["shared"], how["together"])
        return [launcher.download(p) for p in places if isinstance(p, Place)]

    def right(self, got: list[np.ndarray]) -> bool:
        return all(np.array_equal(g, w, equal_nan=w.dtype.kind == "f") for g, w in zip(got, self.wanted(), strict=True) if w is not None)


# ---------------------------------------------------------------- sources
RESIDENT = r"""
extern "C" __global__ void k(const int* __restrict__ x, int* __restrict__ y, const int n, const int steps) {
    extern __shared__ __align__(16) unsigned char lr_near[];
    __shared__ int of_warp[32];
    int* const held = (int*)lr_near;
    const int thread = threadIdx.x, threads = blockDim.x;
    for (int i = thread; i < n; i += threads) held[i] = x[i];
    __syncthreads();
    for (int step = 0; step < steps; ++step) {
        int sum = 0;
        for (int i = thread; i < n; i += threads) sum += held[n - 1 - i];
        for (int apart = 16; apart > 0; apart /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, apart);
        if (thread % 32 == 0) of_warp[thread / 32] = sum;
        __syncthreads();
        int total = 0;
        for (int warp = 0; warp < threads / 32; ++warp) total += of_warp[warp];
        for (int i = thread; i < n; i += threads) held[i] = (3 * held[i] + total) % 1009;
        __syncthreads();
    }
    for (int i = thread; i < n; i += threads) y[i] = held[i];
}
"""

BARRIER = r"""
__device__ inline void lr_barrier(unsigned int* arrived) {
    __syncthreads();
    if (gridDim.x == 1) return;
    if (threadIdx.x == 0) {
        __threadfence();
        const unsigned int mine = blockIdx.x == 0 ? 0x80000000u - (gridDim.x - 1) : 1u;
        const unsigned int before = atomicAdd(arrived, mine);
        while (((before ^ *(volatile unsigned int*)arrived) & 0x80000000u) == 0) __nanosleep(64);
        __threadfence();
    }
    __syncthreads();
}
"""

COOPERATIVE = BARRIER + r"""
extern "C" __global__ void k(int* x, int* sums, unsigned int* arrived, const int n, const int steps) {
    __shared__ int of_warp[32];
    const int thread = blockIdx.x * blockDim.x + threadIdx.x, threads = gridDim.x * blockDim.x;
    for (int step = 0; step < steps; ++step) {
        int sum = 0;
        for (int i = thread; i < n; i += threads) sum += x[n - 1 - i];
        for (int apart = 16; apart > 0; apart /= 2) sum += __shfl_down_sync(0xffffffffu, sum, apart);
        if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = sum;
        __syncthreads();
        if (threadIdx.x == 0) {
            for (int warp = 1; warp < blockDim.x / 32; ++warp) sum += of_warp[warp];
            sums[blockIdx.x] = sum;
        }
        lr_barrier(arrived);
        int total = 0;
        for (int b = 0; b < gridDim.x; ++b) total += sums[b];
        for (int i = thread; i < n; i += threads) x[i] = (3 * x[i] + total) % 1009;
        lr_barrier(arrived);
    }
}
"""

FOURS = r"""
struct alignas(16) lr_four { float at[4]; };

extern "C" __global__ void k(const float* __restrict__ x, float* __restrict__ y, const int n, const int from) {
    const int thread = blockIdx.x * blockDim.x + threadIdx.x, threads = gridDim.x * blockDim.x;
    for (int group = thread; group < n / 4; group += threads) {
        lr_four four = *(const lr_four*)&x[from + 4 * group];
        for (int u = 0; u < 4; ++u) four.at[u] = four.at[u] > 0.5f || isnan(four.at[u]) ? four.at[u] : 0.5f;
        *(lr_four*)&y[4 * group] = four;
    }
    for (int i = n / 4 * 4 + thread; i < n; i += threads) y[i] = x[from + i] > 0.5f || isnan(x[from + i]) ? x[from + i] : 0.5f;
}
"""

WARPS = r"""
extern "C" __global__ void k(const int* __restrict__ x, int* __restrict__ y, const int rows) {
    __shared__ int scan[2][32];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int row = warp; row < rows; row += blockDim.x / 32) {
        scan[warp][lane] = x[32 * row + lane];
        __syncwarp();
        const int other = scan[warp][31 - lane];
        __syncwarp();
        y[32 * row + lane] = __shfl_sync(0xffffffffu, other, lane + 1, 16);
    }
}
"""


def steps_of(x: np.ndarray, steps: int) -> np.ndarray:
    for _ in range(steps):
        x = (3 * x + x.sum()) % 1009
    return x.astype(np.int32)


def numbers(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 1009, count, np.int32)


def floats(count: int) -> np.ndarray:
    values = np.random.default_rng(count).random(count, np.float32)
    values[3::17] = np.nan
    return values


def zeros(count: int, dtype: str = "int32") -> np.ndarray:
    return np.zeros(count, dtype)


def resident(block: int, n: int, steps: int = 5) -> Kernel:
    return Kernel(RESIDENT, lambda: (numbers(n), zeros(n), np.int32(n), np.int32(steps)), lambda: (None, steps_of(numbers(n), steps)), block=block,
                  shared=4 * n)


def cooperative(grid: int, block: int, n: int, steps: int = 5, **options: Any) -> Kernel:
    return Kernel(COOPERATIVE, lambda: (numbers(n), zeros(grid), zeros(1, "uint32"), np.int32(n), np.int32(steps)),
                  lambda: (steps_of(numbers(n), steps), None, None), grid=grid, block=block, together=True, options=options)


def fours(n: int, start: int) -> Kernel:
    def wanted() -> tuple[Any, ...]:
        part = floats(n + start)[start:]
        return None, np.where(np.isnan(part), part, np.maximum(part, np.float32(0.5)))
    return Kernel(FOURS, lambda: (floats(n + start), zeros(n, "float32"), np.int32(n), np.int32(start)), wanted, grid=2, block=32)


def warps(rows: int) -> Kernel:
    def wanted() -> tuple[Any, ...]:
        turned = numbers(32 * rows).reshape(rows, 2, 16)[:, ::-1, ::-1]
        return None, np.roll(turned, -1, axis=2).reshape(-1)
    return Kernel(WARPS, lambda: (numbers(32 * rows), zeros(32 * rows), np.int32(rows)), wanted)


KERNELS = {
    "one block that stays": resident(64, 200),
    "one warp": resident(32, 7),
    "the largest block": resident(1024, 1500, steps=3),
    "blocks together": cooperative(4, 64, 500),
    "more blocks than elements": cooperative(7, 64, 300, blocks_together=7),
    "one block, launched together": cooperative(1, 64, 100),
    "large blocks together": cooperative(3, 1024, 5000, steps=2),
    "sixteen bytes at a time": fours(203, 4),
    "warps of their own": warps(5),
}
SCHEDULES = [*({"seed": seed} for seed in range(6)), *({"seed": seed, "preemptive": True} for seed in range(3)),
             *({"seed": seed, "sanitize": True} for seed in range(2)), {"seed": 3, "preemptive": True, "sanitize": True}]


@pytest.fixture(scope="module", autouse=True)
def gcc() -> None:
    needs(shutil.which("g++"), "g++")


@pytest.mark.parametrize("what", KERNELS)
def test_every_schedule_means_the_same(what: str) -> None:
    kernel = KERNELS[what]
    for schedule in SCHEDULES:
        assert kernel.right(kernel.run(ShimLauncher(**schedule, **kernel.options))), schedule


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_sources_compile(architecture: str) -> None:
    try:
        nvrtc.library()
    except nvrtc.NoCompiler as missing:
        needs(False, str(missing))
    for source in (RESIDENT, COOPERATIVE, FOURS, WARPS):
        assert nvrtc.compile_source(source, architecture)[:4] == b"\x7fELF"


def test_schedules_differ() -> None:
    """Blocks that run together meet in many orders, and so do the threads of one."""
    source = 'extern "C" __global__ void k(unsigned int* at, int* order) { order[atomicAdd(at, 1u)] = blockIdx.x * blockDim.x + threadIdx.x; }'
    kernel = Kernel(source, lambda: (zeros(1, "uint32"), zeros(96)), None, grid=3, block=32, together=True)
    found = [kernel.run(ShimLauncher(seed))[1] for seed in range(40)]
    assert all(sorted(order) == list(range(96)) for order in found)
    assert len({tuple(order) for order in found}) == 40 and len({order[0] for order in found}) > 20
    mixed = [np.count_nonzero(np.diff(order // 32)) for order in found]
    assert min(mixed) < 10 < 40 < max(mixed), "blocks one after another, and all at once"


# ---------------------------------------------------------------- planted faults
WHEN = "without a barrier in between"
UNORDERED = f"(which nothing was written to|and thread .* {WHEN})"
WRONG = ""
"""No message, but a result that is not the right one in one of the schedules."""

FAULTS: dict[str, tuple[str, str, str, str, dict[str, Any]]] = {
    # what: kernel, old text, new text, the message, how it is launched
    "no barrier after the load": ("one block that stays", "held[i] = x[i];\n    __syncthreads();", "held[i] = x[i];", WRONG, {}),
    "no barrier after the warps' sums": ("one block that stays", "= sum;\n        __syncthreads();", "= sum;", WRONG, {}),
    "no barrier after an update": ("one block that stays", "% 1009;\n        __syncthreads();", "% 1009;", WRONG, {}),
    "no barrier of the grid after the sums": ("blocks together", "        lr_barrier(arrived);\n        int", "        __syncthreads();\n        int", WRONG, {}),
    "no barrier of the grid after the update": ("blocks together", "% 1009;\n        lr_barrier(arrived);", "% 1009;\n        __syncthreads();", WRONG, {}),
    "a barrier for a part of the block": ("one block that stays", "= sum;\n        __syncthreads();", "= sum;\n        if (thread < 40) __syncthreads();",
                                          "barrier divergence: 64 of 64 threads at different __syncthreads, 0 have ended, in block 0", {}),
    "a barrier that the last warp passes by": ("blocks together", "__device__ inline void lr_barrier(unsigned int* arrived) {\n",
                                               "__device__ inline void lr_barrier(unsigned int* arrived) {\n    if (threadIdx.x >= 32) return;\n",
                                               "barrier divergence: 64 of 64 threads at different __syncthreads, 0 have ended, in block", {}),
    "a barrier that one block passes by": ("blocks together", "        lr_barrier(arrived);\n        int", "        if (blockIdx.x != 1) lr_barrier(arrived);\n        int",
                                           r"the grid waits for ever: 3 of 4 blocks wait \(3 threads in __nanosleep\), the others have ended", {}),
    "a block that leaves early": ("blocks together", "{\n        int sum = 0;", "{\n        if (blockIdx.x == 2 && step == 3) return;\n        int sum = 0;",
                                  r"the grid waits for ever: 3 of 4 blocks wait \(3 threads in __nanosleep\), the others have ended", {}),
    "a thread that leaves early": ("blocks together", "{\n        int sum = 0;", "{\n        if (thread == 77 && step == 3) return;\n        int sum = 0;",
                                   "warp divergence: lanes ffffdfff of ffffffff wait in warp 0 of block 1", {}),
    "a block too many is counted": ("blocks together", "(gridDim.x - 1)", "gridDim.x", "the grid waits for ever: 4 of 4 blocks wait", {}),
    "not launched together": ("blocks together", "", "", "the grid waits for ever: block . waits .1 threads in __nanosleep., and was not launched together",
                              {"together": False}),
    "too many blocks together": ("blocks together", "", "", "no such launch: 5 blocks cannot run together", {"grid": 5}),
    "a value read before the barrier": ("blocks together", "        lr_barrier(arrived);\n        int total = 0;\n        for (int b = 0; b < gridDim.x; ++b) total += sums[b];",
                                        "        int total = 0;\n        for (int b = 0; b < gridDim.x; ++b) total += sums[b];\n        lr_barrier(arrived);", WRONG, {}),
    "a tail that is not guarded": ("sixteen bytes at a time", "n / 4; group", "(n + 3) / 4; group", "argument 1 was written outside its array", {}),
    "a tail that is forgotten": ("sixteen bytes at a time", "i < n; i", "i < n - 1; i", WRONG, {}),
    "shared memory that nothing was written to": ("one block that stays", "= sum;\n", "= sum;\n        if (step == 0 && thread == 0) of_warp[1] = of_warp[2];\n", WRONG, {}),
    "dynamic shared memory that nothing was written to": ("one block that stays", "i < n; i += threads) held[i] = x[i]", "i < n - 1; i += threads) held[i] = x[i]", WRONG, {}),
    "dynamic shared memory that is too small": ("one block that stays", "", "", "dynamic shared memory was written outside its 796 bytes, in block 0", {"shared": 796}),
    "no dynamic shared memory": ("one block that stays", "", "", "dynamic shared memory was written outside its 0 bytes", {"shared": 0}),
    "more dynamic shared memory than there is": ("one block that stays", "", "", "no such launch: 101377 bytes of dynamic shared memory, where 101376 is the most",
                                                 {"shared": 99 * 1024 + 1}),
    "more declared than there is": ("one block that stays", "of_warp[32]", "of_warp[12289]", "too much shared memory: 49156 bytes are declared and 800 given", {}),
    "more declared and given than there is": ("one block that stays", "", "", "too much shared memory: 128 bytes are declared and 101300 given", {"shared": 101300}),
    "an index beyond a shared array": ("one block that stays", "warp < threads / 32", "warp < threads", r"kernels.cu:16: an index is beyond its array, in thread", {}),
    "a pointer beyond a shared array": ("one block that stays", "of_warp[thread / 32] = sum", "*(&of_warp[0] + 32 + thread / 32) = sum",
                                        "a shared array of 128 bytes was written outside, in block 0", {}),
    "an index that overflows": ("one block that stays", "held[n - 1 - i]", "held[(n - 1 - i) * 20000000 / 20000000]", "kernels.cu:11: a product of integers overflows, in thread", {}),
    "a division by zero": ("one block that stays", "% 1009", "% (step - 2)", "a quotient of integers is by zero", {}),
    "a shift too far": ("one block that stays", "3 * held[i]", "(3 << step * 16) + held[i]", "an integer is shifted by more than it has bits", {}),
    "a shuffle over half a warp": ("warps of their own", "lane + 1, 16", "lane + 1, 32", WRONG, {}),
    "a shuffle over a part that is none": ("warps of their own", "lane + 1, 16", "lane + 1, 12", "a shuffle has no width of 12", {}),
    "a shuffle that leaves a lane out": ("warps of their own", "__shfl_sync(0xffffffffu", "__shfl_sync(0xffffefffu", "lane 12 of block 0 is not in the mask ffffefff it gives", {}),
    "a shuffle for a part of the warp": ("warps of their own", "= __shfl_sync", "= lane == 5 ? 0 : __shfl_sync", "warp divergence: lanes .* wait in warp . of block 0", {}),
    "no barrier of a warp": ("warps of their own", "+ lane];\n        __syncwarp();", "+ lane];", WRONG, {}),
    "a nan that is lost": ("sixteen bytes at a time", "four.at[u] > 0.5f || isnan(four.at[u]) ? four.at[u] : 0.5f", "fmaxf(four.at[u], 0.5f)", WRONG, {}),
    "sixteen bytes that are not aligned": ("not aligned", "", "", "kernels.cu:7: what is read or written here is not aligned, in thread", {}),
}

SEEN_BY_LOOKING: dict[str, tuple[str, str, str, str, dict[str, Any]]] = {
    "no barrier after the load": (*FAULTS["no barrier after the load"][:3], f"byte .* of dynamic shared memory of 800 bytes, {UNORDERED}", {}),
    "no barrier after the warps' sums": (*FAULTS["no barrier after the warps' sums"][:3], f"byte .* of a shared array of 128 bytes, {UNORDERED}", {}),
    "no barrier after an update": (*FAULTS["no barrier after an update"][:3], f"race: .* {WHEN}", {}),
    "no barrier of the grid after the sums": (*FAULTS["no barrier of the grid after the sums"][:3], f"race: .* of argument ., which has .*, .* {WHEN}", {}),
    "no barrier of the grid after the update": (*FAULTS["no barrier of the grid after the update"][:3], f"race: .* of argument ., which has .*, .* {WHEN}", {}),
    "no fence before a block arrives": ("blocks together", "        __threadfence();\n        const", "        const", f"race: .* {WHEN}", {}),
    "no fence after the others came": ("blocks together", "        __threadfence();\n    }", "    }", f"race: .* {WHEN}", {}),
    "no barrier of the block before it arrives": ("blocks together", "{\n    __syncthreads();\n    if (gridDim", "{\n    if (gridDim", f"race: .* {WHEN}", {}),
    "no barrier of the block after it came": ("blocks together", "    }\n    __syncthreads();\n}", "    }\n}", f"race: .* {WHEN}", {}),
    "a count that is not atomic": ("blocks together", "atomicAdd(arrived, mine)", "*arrived; *arrived += mine", f"race: .* of argument ., which has .*, .* {WHEN}", {}),
    "no barrier of a warp": (*FAULTS["no barrier of a warp"][:3], f"byte .* of a shared array of 256 bytes, {UNORDERED}", {}),
    "no barrier of a warp before it writes again": ("warps of their own", "[31 - lane];\n        __syncwarp();", "[31 - lane];", f"race: .* {WHEN}", {}),
    "reads beyond an array": ("blocks together", "x[n - 1 - i]", "x[n - i]", "thread 0 of block 0 reads 4 bytes at byte 2000 of argument 0, which has 2000", {}),
    "reads far from all arrays": ("blocks together", "x[n - 1 - i]", "x[(n - i) * 1000000ll]", "reads 4 bytes at memory of no array", {}),
    "reads before an array": ("sixteen bytes at a time", "y[i] = x[from + i]", "y[i] = x[i - from - 200]", "thread . of block 0 reads 4 bytes at byte -(16|12|8) of argument 0, which has 828", {}),
    "sixteen bytes beyond an array": ("sixteen bytes at a time", "n / 4; group", "(n + 3) / 4; group", "thread 18 of block 1 reads 16 bytes at byte 816 of argument 0, which has 828", {}),
    "shared memory that nothing was written to": (*FAULTS["shared memory that nothing was written to"][:3], "thread 0 of block 0 reads byte 8 of a shared array of 128 bytes, which nothing was written to", {}),
    "dynamic shared memory that nothing was written to": (*FAULTS["dynamic shared memory that nothing was written to"][:3], "reads byte 796 of dynamic shared memory of 800 bytes, which nothing was written to", {}),
    "reads beyond dynamic shared memory": ("one block that stays", "held[n - 1 - i]", "held[n - i]", "thread 0 of block 0 reads 4 bytes at byte 800 of dynamic shared memory of 800 bytes", {}),
    "writes another array": ("blocks together", "sums[blockIdx.x] = sum", "sums[blockIdx.x + 4] = sum", "writes 4 bytes at byte .* of argument 1, which has 16", {}),
}


def planted(fault: tuple[str, str, str, str, dict[str, Any]]) -> tuple[Kernel, str, str, dict[str, Any]]:
    name, old, new, message, how = fault
    kernel = {**KERNELS, "not aligned": fours(203, 1)}[name]
    assert old in kernel.source
    return kernel, kernel.source.replace(old, new), message, how


@pytest.mark.parametrize("what", FAULTS)
def test_planted_faults(what: str) -> None:
    kernel, source, message, how = planted(FAULTS[what])
    if message:
        for seed in range(3):
            with pytest.raises(ShimError, match=message):
                kernel.run(ShimLauncher(seed), source, **how)
        return
    schedules = [*({"seed": seed} for seed in range(4)), *({"seed": seed, "preemptive": True} for seed in range(8))]
    assert not all(kernel.right(kernel.run(ShimLauncher(**schedule), source, **how)) for schedule in schedules)


@pytest.mark.parametrize("what", SEEN_BY_LOOKING)
def test_faults_that_are_seen_in_every_schedule(what: str) -> None:
    """Whether or not they change a result."""
    kernel, source, message, how = planted(SEEN_BY_LOOKING[what])
    for seed in range(6):
        with pytest.raises(ShimError, match=message):
            kernel.run(ShimLauncher(seed, sanitize=True), source, **how)


def test_a_sum_in_place_is_a_read_and_a_write() -> None:
    source = 'extern "C" __global__ void k(int* x) {\n    x[threadIdx.x] += 1;\n    if (threadIdx.x == 0) x[3] += 1;\n}\n'
    function = Function("k", (Parameter("int* x"),))
    for seed in range(4):
        launcher = ShimLauncher(seed, sanitize=True)
        place = Place(launcher.allocate("int32", 32), 0, (32,), "int32")
        launcher.upload(place, np.zeros(32, np.int32))
        with pytest.raises(ShimError, match=r"race: thread . of block 0 reads byte 12 of argument 0"):
            launcher.launch(launcher.load(source, [function])["k"], 1, 32, [place])


def test_what_is_no_race() -> None:
    """The same value from several threads; a thread's own; what an atomic word hands over; neighbours in an array of bools."""
    source = r"""
extern "C" __global__ void k(int* fault, int* x, unsigned int* turn, bool* flags, int* y) {
    if (threadIdx.x % 3 == 0) *fault = 1;
    const int thread = blockIdx.x * blockDim.x + threadIdx.x;
    x[thread] = thread;
    x[thread] += 1;
    flags[thread] = thread % 2;
    if (thread == 0) {
        y[0] = 7;
        __threadfence();
        atomicExch(turn, 1u);
    }
    if (thread == 40) {
        while (*(volatile unsigned int*)turn == 0) __nanosleep(20);
        __threadfence();
        y[1] = y[0] + x[40];
    }
}"""
    kernel = Kernel(source, lambda: (zeros(1), zeros(64), zeros(1, "uint32"), zeros(64, "bool"), zeros(2)),
                    lambda: (None, np.arange(1, 65), None, np.arange(64) % 2 == 1, np.array([7, 48])), grid=2, block=32, together=True)
    for schedule in SCHEDULES:
        assert kernel.right(kernel.run(ShimLauncher(**schedule))), schedule


def test_an_array_of_a_thread_is_its_own() -> None:
    source = r"""
__device__ inline int sum_of(const int* held, const int count) {
    int sum = 0;
    for (int j = 0; j < count; ++j) sum += held[j];
    return sum;
}
extern "C" __global__ void k(int* y, const int count) {
    int held[5];
    for (int j = 0; j < count; ++j) held[j] = j * threadIdx.x;
    y[threadIdx.x] = sum_of(held, 5);
}"""
    def kernel(count: int) -> Kernel:
        return Kernel(source, lambda: (zeros(64), np.int32(count)), lambda: (10 * np.arange(64),))
    for schedule in SCHEDULES:
        assert kernel(5).right(kernel(5).run(ShimLauncher(**schedule)))
        with pytest.raises(ShimError, match=r"kernels\.cu:9: an index is beyond its array, in thread"):
            kernel(6).run(ShimLauncher(**schedule))


def test_what_is_found_by_its_address_is_looked_at() -> None:
    source = r"""
extern "C" __global__ void k(const long long* places, const int n) {
    int* const x = (int*)places[0];
    for (int i = threadIdx.x; i < n; i += blockDim.x) x[i] = i;
}"""
    for n, message in ((40, None), (41, "writes 4 bytes at byte 160 of place 0, which has 160")):
        launcher = ShimLauncher(sanitize=True)
        held = launcher.allocate("int32", 40)
        places = np.array([launcher.address(held)])
        kernel = Kernel(source, lambda places=places, n=n: (places, np.int32(n)), None)
        if message is None:
            kernel.run(launcher)
            assert launcher.download(Place(held, 0, (40,), "int32")).tolist() == list(range(40))
        else:
            with pytest.raises(ShimError, match=message):
                kernel.run(launcher)


def test_launches_that_are_none() -> None:
    kernel = KERNELS["sixteen bytes at a time"]
    for how in ({"block": 1025}, {"block": 0}, {"grid": 0}):
        with pytest.raises(ShimError, match="no such launch"):
            kernel.run(ShimLauncher(), **how)


def test_what_g_plus_plus_refuses() -> None:
    """A name that the shim does not have, with the line of the source; sums of floats by atomic operations, which have no order."""
    for call in ("__brev(3u)", "atomicAdd((float*)x, 1.0f)"):
        with pytest.raises(ShimError, match=r"kernels\.cu:2:"):
            Kernel(f'extern "C" __global__ void k(int* x) {{\n    x[0] = {call};\n}}', lambda: (zeros(1),), None).run(ShimLauncher())


# ---------------------------------------------------------------- through CuPy
@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with stand_in_cupy.installed() as gpu:
        yield gpu


def test_kernels_through_cupy(gpu: Any) -> None:
    for name in ("one block that stays", "blocks together", "sixteen bytes at a time", "warps of their own"):
        kernel = KERNELS[name]
        assert kernel.right(kernel.run(CupyLauncher())), name
        assert gpu.launches[-1] == ("k", gpu.launches[-1][1], kernel.together)


def test_more_shared_memory_is_asked_for_once(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    driver = stand_in_cupy.driver
    real = driver.funcSetAttribute
    monkeypatch.setattr(driver, "funcSetAttribute", staticmethod(lambda f, attribute, value: asked.append((attribute, value)) or real(f, attribute, value)))
    monkeypatch.setattr(driver, "occupancyMaxActiveBlocksPerMultiprocessor",
                        staticmethod(lambda f, block, shared: 2 if shared <= driver.dynamic[f] and (block, shared) == (64, 60_000) else 0))
    launcher, kernel = CupyLauncher(), resident(64, 15_000, steps=1)
    assert launcher.shared_bytes == 99 * 1024
    function = kernel.load(launcher, RESIDENT)
    assert launcher.most_together(function, 64, 60_000) == 2 * launcher.processors == 8
    places = [Place(launcher.allocate("int32", 15_000), 0, (15_000,), "int32") for _ in range(2)]
    launcher.upload(places[0], numbers(15_000))
    for shared in (60_000, 60_000, 60_004, 60_000):
        launcher.launch(function, 1, 64, [*places, np.int32(15_000), np.int32(1)], shared)
        assert np.array_equal(launcher.download(places[1]), steps_of(numbers(15_000), 1))
    assert asked == [(driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, n) for n in (60_000, 60_004)]


def test_sources_are_compiled_once_and_denormals_kept(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """CuPy's own modules flush denormals: NVRTC is called with our options and no others, and the machine code is kept."""
    assert not {"RawModule", "RawKernel"} & vars(stand_in_cupy).keys()
    calls = []
    compile_ = stand_in_cupy.cuda.compiler.compile_using_nvrtc
    monkeypatch.setattr(stand_in_cupy.cuda.compiler, "compile_using_nvrtc", lambda source, options: calls.append(options) or compile_(source, options))
    kernel = KERNELS["sixteen bytes at a time"]
    for _ in range(2):
        assert kernel.right(kernel.run(CupyLauncher()))
    assert calls == [("-std=c++17", "--fmad=false")]

    folder = os.path.join(os.environ["XDG_CACHE_HOME"], "lr", "kernels")
    file, = os.listdir(folder)
    with open(os.path.join(folder, file), "r+b") as damaged:
        damaged.seek(80)
        damaged.write(b"?")
    assert kernel.right(kernel.run(CupyLauncher())) and len(calls) == 2, "what is damaged is made anew"
    monkeypatch.setattr(device, "OPTIONS", (*device.OPTIONS, "-lineinfo"))
    monkeypatch.setattr(gpu, "capability", "120")
    kernel.run(CupyLauncher())
    assert len(calls) == 3 and len(os.listdir(folder)) == 2
    os.chmod(folder, 0o777)
    kernel.run(CupyLauncher())
    assert len(calls) == 4, "a folder that others can write is not trusted"


def test_ftz_comes_from_the_options() -> None:
    """What CuPy appends to the options of a module is what our options leave out."""
    try:
        nvrtc.library()
    except nvrtc.NoCompiler as missing:
        needs(False, str(missing))
    source = 'extern "C" __global__ void k(float* x) { x[0] *= x[1]; }'
    assert ".ftz" not in nvrtc.compile_source(source, "compute_90").decode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nvrtc, "OPTIONS", ("--ftz=false", "-ftz=true"))
        assert ".ftz" in nvrtc.compile_source(source, "compute_90").decode()
    assert not [o for o in (*device.OPTIONS, *nvrtc.OPTIONS) if "ftz" in o]
