"""CuPy: an operation a kernel (`cupy`); and what the device itself can do: `copy`, `read`, `cublas`.

In: the arrays of a work.  Out: the work made ready, timed by events of the current stream.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dsl.bench.data import Given, places, step_numbers, whole
from dsl.bench.work import Numbers, Prepared

READ = """
struct alignas(16) four { float a, b, c, d; };

// Sums up fours, so that none of them may be left out.
extern "C" __global__ void __launch_bounds__(256) read(const float* __restrict__ array, long long n, float* sums) {
    const four* x = (const four*)array;
    float sum = 0.0f;
    const long long step = (long long)gridDim.x * blockDim.x;
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    for (; i + 3 * step < n; i += 4 * step) {
        const four p = x[i], q = x[i + step], r = x[i + 2 * step], s = x[i + 3 * step];
        sum += p.a + p.b + p.c + p.d + q.a + q.b + q.c + q.d + r.a + r.b + r.c + r.d + s.a + s.b + s.c + s.d;
    }
    for (; i < n; i += step) sum += x[i].a + x[i].b + x[i].c + x[i].d;
    if (sum == 12345.678f) sums[threadIdx.x] = sum;
}
"""
BLOCKS_OF_A_PROCESSOR = 8


def versions() -> dict[str, str]:
    import cupy
    return {"cupy": cupy.__version__}


def configure(device: str, threads: int) -> None:
    """The device's context and cuBLAS are made before anything is timed."""
    import cupy
    one = cupy.zeros((1, 1), dtype="float32")
    cupy.matmul(one, one, out=cupy.empty((1, 1), dtype="float32"))


def room() -> int:
    """Bytes of the device that are free."""
    import cupy
    free, _ = cupy.cuda.runtime.memGetInfo()
    return int(free)


def clock() -> Callable[[], float]:
    import cupy
    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    begin.record()

    def stop() -> float:
        end.record()
        end.synchronize()
        return float(cupy.cuda.get_elapsed_time(begin, end))
    return stop


def rest() -> None:
    import cupy
    cupy.get_default_memory_pool().free_all_blocks()


def prepared(run: Callable[[], Any], numbers: Callable[[Any], Numbers]) -> Prepared:
    return Prepared(run, numbers, clock=clock, rest=rest)


def long(block: Any, size: int) -> Any:
    """The block over and over, on the device."""
    import cupy
    made, there = cupy.empty(size, dtype=block.dtype), cupy.asarray(block)

    def fill(part: slice, count: int) -> None:
        made[part] = there[:count]
    whole(block, size, fill)
    return made


def element_numbers(y: Any) -> dict[str, Any]:
    """As `data.expected` has them; the sum is made on the device."""
    import cupy
    at = places(len(y))
    return {"sum": float(cupy.sum(y, dtype="float64")), "elements": [float(y[int(i)]) for i in at]}


# ---------------------------------------------------------------- an operation a kernel
def elements(form: Callable[[Any, Any, Any], Any]) -> Callable[[Given], Prepared]:
    def make(given: Given) -> Prepared:
        import cupy
        a, x = float(given["a"]), long(given["x"], given["size"])
        return prepared(lambda: form(cupy, a, x), element_numbers)
    return make


def linreg(given: Given) -> Prepared:
    import cupy
    x, y = long(given["x"], given["size"]), long(given["y"], given["size"])
    w, b = float(given["w"]), float(given["b"])

    def run() -> Any:
        residual = x * w + b - y
        return cupy.mean(residual * residual), 2 * cupy.mean(residual * x), 2 * cupy.mean(residual)
    return prepared(run, step_numbers)


# ---------------------------------------------------------------- limits
def copy(given: Given) -> Prepared:
    """The present contents of one array to another: as many bytes as a function of each element moves."""
    import cupy
    x = long(given["x"], given["size"])
    y = cupy.empty(len(x), dtype=x.dtype)
    return prepared(lambda: cupy.copyto(y, x), lambda _: {})


def read(given: Given) -> Prepared:
    """Both arrays of a step, read once."""
    import cupy
    import numpy as np
    kernel = cupy.RawKernel(READ, "read")
    arrays = [long(given[name], given["size"]) for name in ("x", "y")]
    sums = cupy.zeros(256, dtype="float32")
    grid = BLOCKS_OF_A_PROCESSOR * cupy.cuda.Device().attributes["MultiProcessorCount"]

    def run() -> None:
        for x in arrays:
            kernel((grid,), (256,), (x, np.int64(len(x) // 4), sums))
    return prepared(run, lambda _: {})


def products(given: Given) -> Prepared:
    """The five products of every step of the network, of the same shapes, into arrays made before."""
    import cupy
    X, W1, W2 = (cupy.asarray(given[name]) for name in ("X", "W1", "W2"))
    batch = given["batch"]
    hidden, z = cupy.empty((batch, W1.shape[1]), dtype="float32"), cupy.empty((batch, W2.shape[1]), dtype="float32")
    dW1, dW2, dhidden = (cupy.empty(a.shape, dtype="float32") for a in (W1, W2, hidden))

    def run() -> None:
        for _ in range(given["epochs"]):
            for start in range(0, len(X), batch):
                x = X[start:start + batch]
                cupy.matmul(x, W1, out=hidden)
                cupy.matmul(hidden, W2, out=z)
                cupy.matmul(hidden.T, z, out=dW2)
                cupy.matmul(z, W2.T, out=dhidden)
                cupy.matmul(x.T, dhidden, out=dW1)
    return prepared(run, lambda _: {})


TABLE: dict[str, dict[str, Callable[[Given], Prepared]]] = {
    "cupy": {"axpb-gpu": elements(lambda _, a, x: a * x + x * x),
             "chain-gpu": elements(lambda cupy, a, x: cupy.tanh(x) * cupy.exp(-x * x) + cupy.log1p(x * x)), "linreg-gpu": linreg},
    "copy": {"axpb-gpu": copy, "chain-gpu": copy},
    "read": {"linreg-gpu": read},
    "cublas": {"wide-gpu": products},
}
