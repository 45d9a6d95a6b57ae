"""The device's own functions by themselves: how many runs a kernel has, as the host counts them, and products, against NumPy."""

import shutil
from functools import partial
from itertools import product as pairs

import numpy as np
import pytest

from dsl.backends.cuda import runs
from dsl.backends.cuda.launch import Place
from dsl.backends.cuda.parameters import Parameter
from dsl.backends.cuda.prelude import prelude
from dsl.backends.cuda.shim import ShimLauncher
from dsl.backends.cuda.source import Function
from tests.needs import needs
from tests.planted import compiled, replaced


@pytest.fixture(scope="session", autouse=True)
def gcc():
    needs(shutil.which("g++"), "g++")


def test_the_device_counts_runs_as_the_host_does():
    forms = ("threads", "warps", "columns", "slices")
    calls = [f"lr_runs_of_{form}(extent[i]{'' if form == 'threads' else ', elements[i]'})" for form in forms]
    body = "\n".join(f"        {form}[i] = {call};" for form, call in zip(forms, calls))
    declared = ["const long long* extent", "const long long* elements", *(f"long long* {form}" for form in forms), "long long n"]
    text = f"""extern "C" __global__ void counts({', '.join(declared)}) {{
    for (long long i = threadIdx.x; i < n; i += blockDim.x) {{
{body}
    }}
}}
"""
    function = Function("counts", tuple(Parameter(w.split()[-1], w, "buffer", w) for w in declared), text)
    launcher = ShimLauncher()
    counts = launcher.load(prelude(text, {}) + text, [function])["counts"]
    lengths = [0, 1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 1000, 1023, 1024, 1025, 2047, 2048, 2049, 4095, 4096, 4097,
               32767, 32768, 32769, 10**5, 10**6, 4325375, 4325376, 4325377, 10**7, 10**9, 10**12]
    extents, elements = (np.array(x) for x in zip(*pairs(lengths, (0, 1, 3, 100, 255, 256, 257, 500, 10**4, 10**6, 10**9))))
    places = [Place(launcher.allocate("int64", len(extents)), 0, extents.shape, "int64") for _ in range(6)]
    launcher.upload(places[0], extents)
    launcher.upload(places[1], elements)
    launcher.launch(counts, 1, 128, [*places, np.int64(len(extents))])
    for form, place in zip(forms, places[2:]):
        wanted = [runs.run_count(form, int(n), int(size)) for n, size in zip(extents, elements)]
        assert launcher.download(place).tolist() == wanted, form


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_finite(dtype):
    form = np.finfo(dtype)
    values = [0, -0.0, 1, -1, form.max, -form.max, form.tiny, form.smallest_subnormal, np.inf, -np.inf, np.nan, -np.nan]
    bits = np.array([0x7ff0000000000001, 0xfff8dead00000000, 0x7fefffffffffffff], np.uint64).view("f8") if dtype == "float64" else \
        np.array([0x7f800001, 0xffc0dead, 0x7f7fffff], np.uint32).view("f4")
    x = np.concatenate([np.array(values, dtype), bits, np.random.default_rng(1).normal(size=50).astype(dtype)])
    parameters = f"const {C_TYPES[dtype]}* x, bool* y, long long n"
    body = "for (int i = threadIdx.x; i < n; i += 32) y[i] = lr_finite(x[i]);"
    text = f'extern "C" __global__ void finite({parameters}) {{\n    {body}\n}}\n'
    function = Function("finite", tuple(Parameter(w.split()[-1], w, "buffer", w) for w in parameters.split(", ")), text)
    launcher = ShimLauncher()
    given, found = (Place(launcher.allocate(d, len(x)), 0, x.shape, d) for d in (dtype, "bool"))
    launcher.upload(given, x)
    launcher.launch(launcher.load(prelude(text, {}) + text, [function])["finite"], 1, 32, [given, found, np.int64(len(x))])
    np.testing.assert_array_equal(launcher.download(found), np.isfinite(x))


PRODUCT = """extern "C" __global__ void NAME(T* out, const T* a, const T* b, long long rows, long long inner, long long columns,
    long long a_row, long long a_inner, long long b_inner, long long b_column) {
    lr_product(out, a, b, rows, inner, columns, a_row, a_inner, b_inner, b_column);
}
"""
C_TYPES = {"int32": "int", "int64": "long long", "float32": "float", "float64": "double"}
SIZES = [(1, 1, 1), (4, 0, 32), (0, 3, 5), (3, 5, 0), (4, 4, 32), (5, 7, 33), (3, 255, 31), (4, 256, 32), (8, 257, 64), (7, 516, 1),
         (1, 300, 65), (16, 12, 8)]


def product_functions(**planted):
    """`lr_product` of every dtype, and with a fault each."""
    names = ["out", "a", "b", "rows", "inner", "columns", "a_row", "a_inner", "b_inner", "b_column"]
    made = []
    for label, edit in {"right": lambda text: text, **planted}.items():
        for dtype, c_type in C_TYPES.items():
            text = PRODUCT.replace("NAME", f"{label}_{dtype}").replace("T*", f"{c_type}*")
            declared = tuple(Parameter(n, f"{c_type}* {n}" if k < 3 else f"long long {n}", "buffer", n) for k, n in enumerate(names))
            made.append((edit(prelude(text, {}) + text), [Function(f"{label}_{dtype}", declared, text)]))
    return made


def multiplied(launcher, function, a, b, ta, tb, shift, grid, block):
    """The product of the arrays by one launch; `shift` moves them off their places."""
    dtype = a.dtype.name
    out = (a.shape[ta], b.shape[1 - tb])
    places = []
    for array in (np.full(out, 77, dtype), a, b):
        memory = launcher.allocate(dtype, array.size + shift)
        places.append(Place(memory, shift, array.shape, dtype))
        launcher.upload(places[-1], array)
    steps = [*((1, a.shape[1]) if ta else (a.shape[1], 1)), *((1, b.shape[1]) if tb else (b.shape[1], 1))]
    numbers = [np.int64(x) for x in (out[0], a.shape[1 - ta], out[1], *steps)]
    launcher.launch(function, grid, block, [*places, *numbers], 0, grid > 1)
    return launcher.download(places[0])


def operands(rng, dtype, size, ta, tb):
    n, k, m = size
    shapes = ((k, n) if ta else (n, k), (m, k) if tb else (k, m))
    if dtype.startswith("int"):
        return [rng.integers(-2**31, 2**31, size=shape).astype(dtype) for shape in shapes]
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def product_is_right(launcher, functions, label="right", sizes=SIZES, ways=((0, 1, 64), (1, 2, 96)), dtypes=tuple(C_TYPES)):
    rng = np.random.default_rng(0)
    for dtype, size, ta, tb in pairs(dtypes, sizes, (0, 1), (0, 1)):
        a, b = operands(rng, dtype, size, ta, tb)
        results = [multiplied(launcher, functions[f"{label}_{dtype}"], a, b, ta, tb, *way) for way in ways]
        for got in results:
            assert got.tobytes() == results[0].tobytes(), "bits depend on the shape or the alignment"
        left, right = a.T if ta else a, b.T if tb else b
        if dtype.startswith("int"):
            np.testing.assert_array_equal(results[0], left @ right)
            continue
        wide = np.longdouble if dtype == "float64" else np.float64
        exact, most = left.astype(wide) @ right.astype(wide), np.abs(left).astype(wide) @ np.abs(right).astype(wide)
        eps = np.finfo(dtype).eps / 2
        summed = min(size[1], 256) if dtype == "float32" else size[1]
        bound = summed * eps / (1 - summed * eps) * most + eps * np.abs(exact)              # Higham (2002), 3.1; then it is rounded
        assert (np.abs(results[0] - exact) <= bound * (1 + 1e-9)).all(), (dtype, size, ta, tb)


def test_products_agree_with_numpy():
    """Float32 within the bound of sums of 256 products that are added up in float64; bits do not depend on where the arrays lie."""
    functions = compiled(product_functions())
    product_is_right(ShimLauncher(1), functions, ways=((0, 1, 32), (0, 1, 128), (1, 1, 64), (2, 2, 96), (3, 3, 64)))


def test_products_meet_their_arrays_alone():
    functions = compiled(product_functions(), sanitize=True)
    product_is_right(ShimLauncher(2, sanitize=True), functions, ways=((0, 1, 64), (1, 2, 32)), dtypes=("float32", "float64"))


PRODUCT_FAULTS = {
    "rows": ("if (i + r < rows && j < columns)", "if (i + r < rows - 1 && j < columns)"),
    "rows_beyond": ("if (i + r < rows && j < columns)", "if (j < columns)"),
    "columns_beyond": ("if (i + r < rows && j < columns)", "if (i + r < rows)"),
    "column_read_beyond": ("b + min(j, columns - 1) * b_column", "b + j * b_column"),
    "rows_read_beyond": ("min(i + 3, rows - 1) * a_row", "(i + 3) * a_row"),
    "parts_overlap": ("first += 256", "first += 255"),
    "part_too_long": ("min(inner - first, 256LL)", "256LL"),
    "part_forgotten": ("total[r] = lr_plus(total[r], sum[r])", "total[r] = sum[r]"),
    "rest_forgotten": ("for (; k < count; ++k, b += b_inner) {", "for (; false;) {"),
    "misaligned": ("const bool aligned = (unsigned long long)a % alignof(lr_four<T>) == 0;", "const bool aligned = true;"),
    "misaligned_rows": ("aligned && a_inner == 1 && a_row % 4 == 0", "aligned && a_inner == 1"),
    "tiles": ("tile / across * 4, j = tile % across * 32", "tile % across * 4, j = tile / across * 32"),
    "neighbour": ("{b[0], b[b_inner], b[2 * b_inner], b[3 * b_inner]}", "{b[0], b[b_inner], b[2 * b_inner], b[2 * b_inner]}"),
    "grid": ("tile += warps", "tile += 2 * warps"),
}


def test_faults_in_products_are_found():
    edits = {label: partial(replaced, old=old, new=new) for label, (old, new) in PRODUCT_FAULTS.items()}
    functions = compiled(product_functions(**edits), sanitize=True)
    missed = []
    for label in PRODUCT_FAULTS:
        try:
            product_is_right(ShimLauncher(3, sanitize=True), functions, label, dtypes=("float32", "float64"))
            missed.append(label)
        except AssertionError:
            pass
    assert not missed
