"""A module `cupy` without a GPU, for the tests: its memory is the host's, and its kernels are run by the shim.

In: the names of CuPy that this project uses, called as CuPy has them.  Out: what CuPy would do, as far as it can be seen from
outside: arrays that NumPy does not convert silently, a memory pool that keeps what is let go and runs out, streams whose work
waits until something waits for it, kernels of our own sources.  It is stricter than CuPy where CuPy would go wrong in silence:
a kernel's arguments must have the types that it declares, and memory must lie on this device.

    with installed(memory=1 << 20) as gpu: ...      `import cupy` gives this module; `gpu` says what was done
"""

from __future__ import annotations

import ctypes
import gc
import re
import sys
import types
import weakref
from contextlib import contextmanager

import numpy as np

from dsl.backends.cuda import shim
from dsl.runtime import bursts

__version__ = "13.6.0"
IMPLICIT = "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly."
DECLARATION = re.compile(r'extern "C" __global__\s+(?:[\w ]+(?:\([^()]*\))?\s+)*?(?:__launch_bounds__\([^()]*\)\s*)?(\w+)\(([^()]*)\)\s*\{')
ROUND = 512
SLOWER = 1000
"""So many times longer than by its figures a step takes here: the first burst of a training is so much shorter."""
NULL, CUDA = 0, 2


class OutOfMemoryError(MemoryError):
    def __init__(self, size, total, limit=0):
        words = f"allocated so far: {total:,} bytes" + (f", limit set to: {limit:,} bytes" if limit else "")
        super().__init__(f"Out of memory allocating {size:,} bytes ({words}).")


class CUDARuntimeError(RuntimeError):
    __module__ = "cupy_backends.cuda.api.runtime"


class CUDADriverError(RuntimeError):
    __module__ = "cupy_backends.cuda.api.driver"


class CompileException(Exception):
    """What NVRTC says of a source that it refuses."""

    __module__ = "cupy.cuda.compiler"

    def __init__(self, msg, source, name, options, backend="nvrtc"):
        self._msg, self.source, self.name, self.options, self.backend = msg, source, name, options, backend
        super().__init__()

    def __str__(self):
        return self._msg


class Gpu:
    """The device: how much memory it has, and what was done with it."""

    def __init__(self, memory: int, processors: int, capability: str) -> None:
        self.memory, self.processors, self.capability = memory, processors, capability
        self.regions: dict[int, int] = {}
        """Address and bytes of everything that lies on the device."""
        self.blocks: dict[int, shim.ShimMemory] = {}
        self.used, self.cached, self.limit = 0, 0, 0
        self.copies: list[tuple[str, int]] = []
        """Direction and bytes of every copy: "up", "down", "across"."""
        self.launches: list[tuple[str, int, bool]] = []
        """Name, stream, and whether all blocks ran together, of every launch."""
        self.given: set[int] = set()
        """Addresses that kernels and products were given, as arguments or in tables."""
        self.synchronised: list[int] = []
        self.numbers = 0

    def copied(self, way: str) -> int:
        return sum(size for direction, size in self.copies if direction == way)

    def holds(self, address: int, size: int) -> bool:
        return any(start <= address and address + size <= start + length for start, length in self.regions.items())

    @contextmanager
    def foreign(self, array):
        """Another library's memory on this device, for a while."""
        self.regions[array.ctypes.data] = array.nbytes
        try:
            yield array
        finally:
            del self.regions[array.ctypes.data]


gpu = Gpu(1 << 28, 4, "90")


@contextmanager
def installed(memory: int = 1 << 28, processors: int = 4, capability: str = "90"):
    """A new device, which `import cupy` finds."""
    global gpu
    before, device = sys.modules.get("cupy"), gpu
    gpu = Gpu(memory, processors, capability)
    streams.current = streams.null
    sys.modules["cupy"] = sys.modules[__name__]
    part, bursts.FIRST_PART = bursts.FIRST_PART, bursts.FIRST_PART / SLOWER
    try:
        yield gpu
    finally:
        bursts.FIRST_PART = part
        gpu = device
        if before is None:
            del sys.modules["cupy"]
        else:
            sys.modules["cupy"] = before


# ---------------------------------------------------------------- memory
class _Block:
    """Device memory, between margins; let go, it stays with the pool."""

    def __init__(self, size: int) -> None:
        taken = -(-max(size, 1) // ROUND) * ROUND
        owner = gpu
        if owner.cached >= taken:                                   # the pool has a block let go
            owner.cached -= taken
        elif owner.used + owner.cached + taken > min(owner.memory, owner.limit or owner.memory):
            raise OutOfMemoryError(taken, owner.used + owner.cached, owner.limit)
        owner.used += taken
        owner.numbers += 1
        around = shim.margin("bool", owner.numbers)
        whole = np.full(size + 2 * shim.MARGIN + 64, 0xFF, np.uint8)
        start = -whole.ctypes.data % 64
        whole = whole[start:start + size + 2 * shim.MARGIN]
        whole[:shim.MARGIN] = whole[-shim.MARGIN:] = np.frombuffer(around, np.uint8)
        self.bytes = whole[shim.MARGIN:shim.MARGIN + size]
        self.address = self.bytes.ctypes.data if size else whole.ctypes.data + shim.MARGIN
        owner.regions[self.address] = size
        owner.blocks[self.address] = shim.ShimMemory(whole, self.bytes, around)
        weakref.finalize(self, _let_go, owner, self.address, taken)


def _let_go(owner: Gpu, address: int, taken: int) -> None:
    del owner.regions[address], owner.blocks[address]
    owner.used -= taken
    owner.cached += taken


class MemoryPool:
    def used_bytes(self):
        return gpu.used

    def free_bytes(self):
        return gpu.cached

    def total_bytes(self):
        return gpu.used + gpu.cached

    def free_all_blocks(self, stream=None):
        gc.collect()
        gpu.cached = 0

    def set_limit(self, size=None, fraction=None):
        gpu.limit = size if size is not None else int((fraction or 0) * gpu.memory)

    def get_limit(self):
        return gpu.limit


pool = MemoryPool()


def get_default_memory_pool():
    return pool


# ---------------------------------------------------------------- streams
class Stream:
    """Work may be queued (`later`) and is done when the stream is waited for, or when its next work is."""

    last = 16

    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        if not null:
            Stream.last += 16
        self.ptr, self.non_blocking = (NULL if null else Stream.last), non_blocking
        self.waiting: list = []
        streams.all[self.ptr] = self

    def later(self, work) -> None:
        self.waiting.append(work)

    def run(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()

    def synchronize(self):
        gpu.synchronised.append(self.ptr)
        self.run()

    def wait_event(self, event):
        self.later(event.synchronize)

    def record(self, event=None):
        event = event or Event()
        event.record(self)
        return event

    def __enter__(self):
        self.before = streams.current
        streams.current = self
        return self

    def __exit__(self, *_):
        streams.current = self.before

    def use(self):
        streams.current = self
        return self


class Event:
    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self.recorded: Stream | None = None

    def record(self, stream=None):
        self.recorded = stream or streams.current

    def synchronize(self):
        if self.recorded is not None:
            self.recorded.run()

    @property
    def done(self):
        return self.recorded is None or not self.recorded.waiting


class streams:
    """The streams there are."""

    all: dict[int, Stream] = {}
    null: Stream
    current: Stream

    @staticmethod
    def begin() -> int:
        """What is done now comes after what the current stream has queued; the default stream waits for the blocking ones."""
        for other in list(streams.all.values()) if streams.current.ptr == NULL else [streams.current]:
            if other is streams.current or not other.non_blocking:
                other.run()
        return streams.current.ptr


streams.null = streams.current = Stream.null = Stream(null=True)


def get_current_stream(device_id=-1):
    return streams.current


def stream_synchronize(stream):
    # 1 and 2 are the default streams' names
    (streams.null if stream in (NULL, 1, 2) else streams.all[stream]).synchronize()


# ---------------------------------------------------------------- arrays
class ndarray:
    """Elements on the device: `elements` is a NumPy array over them, `owner` keeps them alive."""

    __array_ufunc__ = None
    __hash__ = None

    def __init__(self, elements, owner):
        self.elements, self.owner = elements, owner
        if elements.size and not gpu.holds(elements.ctypes.data, 1):
            raise CUDARuntimeError("cudaErrorInvalidValue: invalid argument (memory of the host)")

    shape = property(lambda self: self.elements.shape)
    dtype = property(lambda self: self.elements.dtype)
    ndim = property(lambda self: self.elements.ndim)
    size = property(lambda self: self.elements.size)
    nbytes = property(lambda self: self.elements.nbytes)
    itemsize = property(lambda self: self.elements.itemsize)
    strides = property(lambda self: self.elements.strides)
    flags = property(lambda self: types.SimpleNamespace(c_contiguous=self.elements.flags.c_contiguous,
                                                        f_contiguous=self.elements.flags.f_contiguous))
    T = property(lambda self: ndarray(self.elements.T, self.owner))
    device = property(lambda self: Device(0))
    data = property(lambda self: types.SimpleNamespace(ptr=self.elements.ctypes.data, mem=self.owner, device_id=0))

    def __array__(self, dtype=None, copy=None):
        raise TypeError(IMPLICIT)

    def __array_function__(self, *_):
        raise TypeError(IMPLICIT)

    @property
    def __cuda_array_interface__(self):
        strides = None if self.elements.flags.c_contiguous else self.strides
        return {"shape": self.shape, "typestr": self.dtype.str, "descr": self.dtype.descr, "version": 3, "strides": strides,
                "stream": streams.current.ptr or 1, "data": (self.elements.ctypes.data, False)}

    def __dlpack_device__(self):
        return CUDA, 0

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        if stream is not None and stream != -1:
            stream_synchronize(stream)
        return self.elements.__dlpack__()

    def get(self, stream=None, order="C", out=None, blocking=True):
        return _down(self.elements)

    def set(self, arr, stream=None):
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if arr.dtype != self.dtype or arr.shape != self.shape:
            raise ValueError(f"{arr.dtype}{arr.shape} does not fit {self.dtype}{self.shape}")
        _begin()
        gpu.copies.append(("up", arr.nbytes))
        if arr.dtype.kind in "iu" and arr.itemsize == 8:
            gpu.given.update(n for n in arr.ravel().tolist() if gpu.holds(n, 1))
        self.elements[...] = arr

    def copy(self, order="C"):
        made = empty(self.shape, self.dtype)
        made[...] = self
        return made

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        if not copy and self.dtype == dtype:
            return self
        made = empty(self.shape, dtype)
        _begin()
        made.elements[...] = self.elements.astype(dtype)
        return made

    def reshape(self, *shape, order="C"):
        changed = self.elements.view()
        wanted = shape[0] if len(shape) == 1 else shape
        try:
            changed.shape = wanted if isinstance(wanted, tuple) else (wanted,)
        except AttributeError:                                      # a copy is needed
            return self.copy().reshape(wanted)
        return ndarray(changed, self.owner)

    def view(self, dtype=None):
        return ndarray(self.elements.view(dtype), self.owner)

    def ravel(self, order="C"):
        return self.reshape(-1)

    def fill(self, value):
        _begin()
        self.elements.fill(value)

    def item(self):
        return self.get().item()

    def __len__(self):
        return len(self.elements)

    def __getitem__(self, at):
        found = self.elements[at]
        return ndarray(found if isinstance(found, np.ndarray) else self.elements[(*np.atleast_1d(at), None)].reshape(()), self.owner)

    def __setitem__(self, at, value):
        _begin()
        if isinstance(value, ndarray):
            gpu.copies.append(("across", value.nbytes))
            value = value.elements
        elif isinstance(value, np.ndarray):
            gpu.copies.append(("up", value.nbytes))
        self.elements[at] = value

    def __float__(self):
        return float(self.get())

    def __int__(self):
        return int(self.get())

    def __bool__(self):
        return bool(self.get())

    def __repr__(self):
        return repr(self.get())

    def __str__(self):
        return str(self.get())


def _begin():
    return streams.begin()


def _down(elements):
    _begin()
    streams.current.synchronize()
    gpu.copies.append(("down", elements.nbytes))
    return np.array(elements, order="C")


def _element_wise(name):
    def operation(*operands):
        _begin()
        found = np.asarray(getattr(np, name)(*[a.elements if isinstance(a, ndarray) else a for a in operands]))
        made = empty(found.shape, found.dtype)
        made.elements[...] = found
        return made
    return operation


ELEMENT_WISE = frozenset("add subtract multiply divide exp tanh log1p square equal not_equal less sum isfinite abs maximum".split())


def __getattr__(name):
    if name in ELEMENT_WISE:
        return _element_wise(name)
    raise AttributeError(f"the stand-in for CuPy has no `{name}`")


for _word, _name in (("add", "add"), ("sub", "subtract"), ("mul", "multiply"), ("truediv", "divide"), ("eq", "equal"), ("ne", "not_equal"),
                     ("lt", "less")):
    setattr(ndarray, f"__{_word}__", _element_wise(_name))


def empty(shape, dtype=float, order="C"):
    dtype = np.dtype(dtype)
    shape = tuple(shape) if isinstance(shape, (tuple, list)) else (int(shape),)
    count = int(np.prod(shape, dtype=np.int64))
    block = _Block(count * dtype.itemsize)
    return ndarray(block.bytes.view(dtype).reshape(shape), block)


def zeros(shape, dtype=float, order="C"):
    made = empty(shape, dtype)
    made.fill(0)
    return made


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    if isinstance(obj, ndarray):
        fits = dtype is None or obj.dtype == dtype
        fits &= order != "C" or obj.flags.c_contiguous
        if fits and not copy:
            return obj
        if copy is False and not fits:
            raise ValueError("unable to avoid copy")
        return obj.astype(dtype or obj.dtype)
    if hasattr(obj, "__cuda_array_interface__"):
        given = obj.__cuda_array_interface__
        if given.get("stream") is not None:
            stream_synchronize(given["stream"])
        return array(ndarray(_over(given), obj), dtype, copy, order)
    host = np.array(obj, dtype=dtype, order="C")
    made = empty(host.shape, host.dtype)
    made.set(host)
    return made


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    return array(a, dtype, copy, order or "K", blocking=blocking)


def ascontiguousarray(a, dtype=None):
    return asarray(a, dtype, "C")


def arange(start, stop=None, step=1, dtype=None):
    return array(np.arange(*((0, start) if stop is None else (start, stop)), step, dtype=dtype))


def _over(interface):
    """A NumPy array over the memory that an interface describes."""
    held = types.SimpleNamespace(__array_interface__={k: interface[k] for k in ("shape", "typestr", "data")} | {
        "version": 3, "strides": interface.get("strides")})
    return np.asarray(held)


def from_dlpack(array, *, device=None, copy=None):
    kind, number = array.__dlpack_device__()
    if kind != CUDA:
        raise RuntimeError(f"CPU arrays cannot be directly imported to CuPy. Use `cupy.asarray` instead. ({kind}, {number})")
    capsule = array.__dlpack__(stream=streams.current.ptr or 1)
    given = types.SimpleNamespace(__dlpack__=lambda **_: capsule, __dlpack_device__=lambda: (1, 0))
    return ndarray(np.from_dlpack(given), array)


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


def matmul(x1, x2, /, out=None, **_):
    assert isinstance(x1, ndarray) and isinstance(x2, ndarray) and isinstance(out, ndarray)
    _begin()
    gpu.given.update(a.elements.ctypes.data for a in (x1, x2, out))
    out.elements[...] = np.matmul(x1.elements.astype(float), x2.elements.astype(float))
    return out


# ---------------------------------------------------------------- the device and its kernels
class Device:
    def __init__(self, device=None):
        self.id = 0 if device is None else int(device)
        if self.id:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __int__(self):
        return self.id

    def __eq__(self, other):
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self):
        return self.id

    compute_capability = property(lambda self: gpu.capability)
    mem_info = property(lambda self: mem_get_info())
    attributes = property(lambda self: {
        "MultiProcessorCount": gpu.processors, "MaxSharedMemoryPerBlock": 48 << 10, "MaxSharedMemoryPerBlockOptin": 99 << 10,
        "MaxSharedMemoryPerMultiprocessor": 100 << 10, "MaxThreadsPerBlock": 1024, "MaxThreadsPerMultiProcessor": 1536, "WarpSize": 32,
        "ClockRate": 1_500_000, "MemoryClockRate": 1_500_000, "GlobalMemoryBusWidth": 4096, "L2CacheSize": 4 << 20,
        "ComputeCapabilityMajor": int(gpu.capability[:-1]), "ComputeCapabilityMinor": int(gpu.capability[-1:]), "CooperativeLaunch": 1})

    def synchronize(self):
        for each in list(streams.all.values()):
            each.synchronize()


def mem_get_info():
    return gpu.memory - gpu.used - gpu.cached, gpu.memory


def _declared(source):
    """The kernels of a source: names, and parameters as they are declared."""
    return [types.SimpleNamespace(name=name, parameters=[types.SimpleNamespace(declaration=" ".join(p.split()))
                                                         for p in parameters.split(",") if p.strip()])
            for name, parameters in DECLARATION.findall(source)]


class Module:
    def load(self, cubin):
        source = cubin.decode()
        self.declared = {f.name: f for f in _declared(source)}
        self.library = shim.build(source, list(self.declared.values()))

    def get_function(self, name):
        return Function(self, name)


class Function:
    last = 0

    def __init__(self, module, name):
        self.name, self.declared = name, module.declared[name]
        self.run = getattr(module.library, f"run_{name}")
        Function.last += 1
        self.ptr = Function.last
        driver.dynamic[self.ptr] = 48 << 10

    def __call__(self, grid, block, args, shared_mem=0, stream=None, enable_cooperative_groups=False):
        if shared_mem > driver.dynamic[self.ptr]:
            raise CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        on = _begin()
        values = [_value(self.name, p.declaration, a) for p, a in zip(self.declared.parameters, args, strict=True)]
        gpu.launches.append((self.name, on, enable_cooperative_groups))
        shim.run(self.run, values, grid[0], block[0], len(gpu.launches), shared_mem, enable_cooperative_groups)
        for memory in list(gpu.blocks.values()):
            if not memory.intact():
                raise shim.ShimError(f"{self.name} wrote outside an array")


C_TYPES = {"bool": "bool", "int32": "int", "int64": "long long", "float32": "float", "float64": "double", "uint32": "unsigned int",
           "uint64": "unsigned long long"}
SAME = {"int32_t": "int", "int64_t": "long long", "long": "long long", "unsigned": "unsigned int", "uint32_t": "unsigned int"}


def _value(name, declaration, given):
    wanted = re.sub(r"\b(const|__restrict__|volatile)\b", "", declaration).rpartition(" ")[0].strip()
    wanted, pointer, _ = wanted.partition("*")
    wanted = SAME.get(wanted.strip(), wanted.strip())
    held = C_TYPES[given.dtype.name]
    if bool(pointer) != isinstance(given, ndarray) or (held != wanted and wanted not in ("unsigned char", "void")):
        raise TypeError(f"{name}: `{declaration}` is given {type(given).__name__} of {given.dtype}")
    if not pointer:
        return shim.C_SCALARS[given.dtype.name](given.item())
    gpu.given.add(given.elements.ctypes.data)
    return ctypes.c_void_p(given.elements.ctypes.data)


class driver:
    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8
    dynamic: dict[int, int] = {}
    CUDADriverError = CUDADriverError

    @staticmethod
    def occupancyMaxActiveBlocksPerMultiprocessor(func, blockSize, dynamicSMemSize):
        return 1

    @staticmethod
    def funcGetAttribute(attribute, f):
        return driver.dynamic[f]

    @staticmethod
    def funcSetAttribute(f, attribute, value):
        driver.dynamic[f] = value


def compile_using_nvrtc(source, options=(), arch=None, filename="kern.cu", name_expressions=None, log_stream=None,
                        cache_in_memory=False, jitify=None):
    return source.encode(), None


cuda = types.SimpleNamespace(
    Device=Device, Stream=Stream, Event=Event, Module=Module, Function=Function, MemoryPool=MemoryPool,
    get_current_stream=get_current_stream, driver=driver,
    compiler=types.SimpleNamespace(compile_using_nvrtc=compile_using_nvrtc, CompileException=CompileException),
    memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError), nvrtc=types.SimpleNamespace(getVersion=lambda: (0, 0)),
    runtime=types.SimpleNamespace(
        getDeviceCount=lambda: 1, getDevice=lambda: 0, memGetInfo=mem_get_info, streamSynchronize=stream_synchronize,
        driverGetVersion=lambda: 13000, runtimeGetVersion=lambda: 12090, CUDARuntimeError=CUDARuntimeError,
        deviceSynchronize=lambda: Device().synchronize(),
        getDeviceProperties=lambda device: {"name": b"Stand-in", "major": int(gpu.capability[:-1]), "minor": int(gpu.capability[-1:]),
                                            "totalGlobalMem": gpu.memory, "multiProcessorCount": gpu.processors}))
