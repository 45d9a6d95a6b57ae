"""Whole programs as one kernel, run by the shim: one block that stays, or blocks that run together.

They agree with NumPy in every shape and schedule, with the same bits, which are also those of kernels that are launched one by
one; nothing races; where they wait is needed, and what they lack is found.
"""

import re
import shutil
from contextlib import contextmanager
from functools import cache, partial
from itertools import product as pairs
from pathlib import Path

import numpy as np
import pytest

import dsl
from dsl.backends.cuda import device, program, runs
from dsl.backends.cuda.ahead import AheadProgram, ahead_of
from dsl.backends.cuda.choice import WAYS, Choice
from dsl.backends.cuda.driver import CudaProgram
from dsl.backends.cuda.flat import flattened
from dsl.backends.cuda.launch import Place
from dsl.backends.cuda.parameters import Parameter
from dsl.backends.cuda.prelude import prelude
from dsl.backends.cuda.resident import Shape, WholeProgram
from dsl.backends.cuda.serial import on_the_device
from dsl.backends.cuda.shim import ShimLauncher
from dsl.backends.cuda.source import Function, print_kernels, source_text
from dsl.backends.cuda.whole import stays_on_device, whole_program
from dsl.ir.types import Dim, Size
from dsl.loops.ir import FAULT, Combine, Flag, If, Kernel, Leave, Loop, Product, Program, Store, Swap, Total, While, statements
from dsl.machine.expr import Buffer, const, extent, load, ref
from tests.loop_programs import BY_NAME, CASES, agrees
from tests.needs import needs
from tests.planted import Loaded, compiled, replaced, story
from tests.test_cuda_source import OWN_SIZES, bits, called, prefix, rows_from

EXAMPLES = Path(__file__).parent.parent / "examples"
SHAPES = (Shape(1, 32), Shape(1, 128), Shape(1, 512), Shape(2, 96), Shape(3, 64))
WHOLE = [case for case in CASES if stays_on_device(case.program)]


@pytest.fixture(scope="session", autouse=True)
def gcc():
    needs(shutil.which("g++"), "g++")


@cache
def wholes():
    return {case.name: whole_program(case.program, f"w_{prefix(case)}") for case in WHOLE}


@cache
def functions(**options):
    """Every case's program in one library."""
    return compiled([(w.source, [w.function]) for w in wholes().values()], **options)


@cache
def launched_functions():
    kernels = [k for case in CASES for k in print_kernels(*on_the_device(flattened(case.program)), prefix(case))]
    return ShimLauncher().load(source_text(kernels), [f for k in kernels for f in k.functions])


def resident(case, seed=0, shared_bytes=99 * 1024, **options):
    return WholeProgram(wholes()[case.name], Loaded(functions(**options), seed, shared_bytes=shared_bytes, **options))


def run(whole, shape, program, arrays, scalars, sizes):
    return whole.run([arrays[b.name] for b in program.passed], [scalars[r.name] for r in program.scalars], sizes, shape)


def alike(executors):
    """An executor that runs a program by all, and finds the same bits."""
    def execute(*call):
        program, arrays, scalars, sizes = call
        results = []
        for each in executors:
            own = {name: array.copy() for name, array in arrays.items()}
            flagged = each(program, own, scalars, sizes)
            results.append((flagged, {name: bits(array) for name, array in own.items()}))
        assert all(r == results[0] for r in results), f"{program.name}: the bits depend on the shape, the schedule or the way"
        for name, array in own.items():
            arrays[name][...] = array
        return flagged
    return execute


def sizes_of(case):
    found = list(case.sizes)
    least = min((s["n"] for s in case.sizes if "n" in s), default=None)
    if least is not None and case.name not in OWN_SIZES and "k" not in case.sizes[-1]:
        found += [{**case.sizes[-1], "n": length} for length in (33, 129, 1000)]
    return found


@pytest.mark.parametrize("case", WHOLE, ids=lambda c: c.name)
def test_every_shape_agrees_with_numpy_and_has_the_same_bits(case):
    executors = [partial(run, resident(case, seed), shape) for seed, shape in enumerate(SHAPES)]
    executors += [partial(run, resident(case, 9, shared), Shape(1, 96)) for shared in (0, 700)]
    if not any(isinstance(s, Product) for s in statements(case.program.body)):
        executors.append(partial(called, CudaProgram(case.program, Loaded(launched_functions()), prefix(case))))
    for sizes in sizes_of(case):
        agrees(case, sizes, alike(executors))


def test_nothing_races_and_nothing_is_outside():
    """In one block with arrays near and far, and in a grid; every access is looked at."""
    for case in WHOLE:
        for (seed, shape), shared in zip(enumerate((Shape(1, 128), Shape(1, 64), Shape(3, 64))), (99 * 1024, 0, 0)):
            whole = resident(case, seed, shared, sanitize=True)
            for sizes in case.sizes:
                agrees(case, sizes, partial(run, whole, shape))


@pytest.mark.parametrize("rows, columns", [(3, 5), (300, 5), (40, 133)])
def test_alignment_changes_no_bit(rows, columns):
    """Windows that begin at no multiple of 16 bytes, of arrays near and far, in one block and in a grid."""
    made = rows_from()
    whole = WholeProgram(whole_program(made), ShimLauncher())
    values, results = np.random.default_rng(0).normal(size=(rows, columns)).astype("f4"), []
    for start, shape in pairs(range(4), (Shape(1, 64), Shape(2, 32))):
        x, y = np.full((rows + 3, columns), np.nan, "f4"), np.full((rows + 3, columns), 7, "f4")
        x[start:start + rows] = values
        arrays = [x, y, np.zeros(rows, "f4"), np.zeros(columns, "f4"), np.zeros((), "f4")]
        whole.run(arrays, [np.int64(start)], {"n": rows, "m": columns}, shape)
        np.testing.assert_array_equal(y[start:start + rows], values * np.float32(3))
        assert (np.delete(y, np.s_[start:start + rows], 0) == 7).all()
        np.testing.assert_allclose(arrays[3], values.sum(0, dtype="f8"), rtol=0, atol=1e-5 * rows)
        results.append([bits(a) for a in arrays[2:]])
    assert all(r == results[0] for r in results)


SAMPLE = ("descent_by_batches", "linear_regression", "swapped_states", "total_of_each_turn", "steps_until_small", "histogram",
          "kernels_that_follow", "statements_between_kernels", "until_a_fault", "products_of_integers", "while_of_an_array")


@cache
def preemptive():
    return compiled([(wholes()[name].source, [wholes()[name].function]) for name in SAMPLE], preemptive=True)


@pytest.mark.parametrize("name", SAMPLE)
def test_threads_put_aside_anywhere_agree_with_numpy(name):
    case = BY_NAME[name]
    executors = [partial(run, WholeProgram(wholes()[name], Loaded(preemptive(), seed, preemptive=True)), shape)
                 for seed, shape in enumerate((Shape(1, 96), Shape(2, 64), Shape(3, 32)))]
    for sizes in case.sizes[-2:]:
        agrees(case, sizes, alike(executors))


@pytest.mark.parametrize("name", [case.name for case in CASES if ahead_of(case.program) is not None])
def test_launches_that_do_not_wait(name):
    """They give the bits of those that do, also where the loop is left."""
    case = BY_NAME[name]
    ahead = AheadProgram(case.program, ahead_of(case.program), ShimLauncher())
    waiting = CudaProgram(case.program, Loaded(launched_functions()), prefix(case))
    for sizes in case.sizes:
        agrees(case, sizes, alike([partial(called, ahead), partial(called, waiting)]))


@pytest.mark.parametrize("name", ["descent_by_batches", "until_a_fault", "products_of_integers"])
def test_sources(name, golden):
    golden(f"cuda/whole_{name}.cu", whole_program(BY_NAME[name].program).source)


# ---------------------------------------------------------------- helper functions
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


# ---------------------------------------------------------------- where they must wait, and where not
n, i = Dim.of(Size("n")), ref("i")
ARRAYS = {name: Buffer(name, "float64", (n,), "state") for name in "uvwxyz"}
SQUARES = {name: Buffer(name, "float64", (n, n), "state") for name in "ABC"}
SCALARS = {name: Buffer(name, "float64", (), "scratch") for name in "rs"}


def kernel(name, out, *read, flag=False):
    """out[i] = the sum of what is read there."""
    value = const(0.0, "float64")
    for each in read:
        value = value + (load(ARRAYS[each], [i]) if each in ARRAYS else load(SCALARS[each]))
    return Kernel(name, "i", extent(n), (*([Flag(value < 0.0)] if flag else []), Store(ARRAYS[out], (i,), value)), (), n)


def added(name, out, read):
    """A total, in a scalar."""
    total = SCALARS[out]
    body = (Combine(load(total), "add", load(ARRAYS[read], [i])),)
    return Kernel(name, "i", extent(n), body, (Total(total, "add", const(0.0, "float64")),), n)


def columns(name, out, read):
    """A total that is an array."""
    total, j = ARRAYS[out], ref("j")
    body = (Loop("j", extent(n), (Combine(load(total, [j]), "add", load(SQUARES[read], [i, j])),)),)
    return Kernel(name, "i", extent(n), body, (Total(total, "add", const(0.0, "float64")),), n)


def multiply(out, a, b):
    return Product(SQUARES[out], SQUARES[a], SQUARES[b], False, False, f"{out}{a}{b}")


def element(out, read):
    return Store(ARRAYS[out], (const(0, "int64"),), load(ARRAYS[read], [const(1, "int64")]))


def loop(*body):
    return Loop("t", extent(n), body)


def while_(*body):
    return While(load(SCALARS["s"]) > 0.0, body)


def course(*body):
    """What a program does between its beginning and its end: kernels by name, `|` where all wait, `+name` where runs are combined."""
    program = Program("p", (*ARRAYS.values(), *SQUARES.values(), *SCALARS.values()), (), body)
    text = whole_program(program).source.rpartition("__launch_bounds__")[2]
    lines = re.sub(r" *if \(many\w*\) (\{.*?\}|lr_barrier\(arrived\);)\n", "", text, flags=re.DOTALL).splitlines()
    home = [k for k, line in enumerate(lines) if line.strip().startswith("lr_copy(")]
    first = next(k for k, at in enumerate(home) if "_home, " in lines[at].partition("lr_copy(")[2].partition(", ")[0] + ", ")
    words = []
    for line in lines[home[first - 1] + 2:home[first] - 1]:
        match line.strip():
            case text if text.endswith("{"):
                words.append(") else (" if "else" in text else "(")
            case "}":
                words.append(")")
            case "lr_barrier(arrived);":
                words.append("|")
            case text if called := re.match(r"(\w+)_totals\(", text):
                words.append(f"+{called[1]}")
            case text if called := re.match(r"lr_product\((\w), (\w), (\w)", text):
                words.append("".join(called.groups()))
            case text if total := re.match(r"(\w) = many", text):
                words.append(f"+{total[1]}")
            case text if text.startswith("if (thread == 0)"):
                words.append("one")
            case text if called := re.match(r"(\w+)\(", text):
                words.append(called[1].removeprefix("lr_"))
    return " ".join(words)


@pytest.mark.parametrize("wanted, body", [
    ("a b", [kernel("a", "y", "x"), kernel("b", "z", "x")]),
    ("a | b", [kernel("a", "y", "x"), kernel("b", "z", "y")]),
    ("a | b", [kernel("a", "y", "x"), kernel("b", "x", "z")]),
    ("a | b", [kernel("a", "y", "x"), kernel("b", "y", "z")]),
    ("a b | c", [kernel("a", "y", "x"), kernel("b", "z", "x"), kernel("c", "w", "y", "z")]),
    ("a b | +r +s c", [added("a", "r", "x"), added("b", "s", "y"), kernel("c", "z", "r", "s")]),
    ("a | +r b c", [added("a", "r", "x"), kernel("b", "x", "y"), kernel("c", "z", "r")]),
    ("a | +r c | b | +r", [added("a", "r", "x"), kernel("c", "z", "r"), added("b", "r", "x")]),
    ("a b | +a", [columns("a", "y", "A"), kernel("b", "z", "x")]),
    ("a | +a | b", [columns("a", "y", "A"), kernel("b", "z", "y")]),
    ("a b | +a +b | c", [columns("a", "y", "A"), columns("b", "z", "B"), kernel("c", "x", "y", "z")]),
    ("a b | +a +s | c", [columns("a", "y", "A"), added("b", "s", "x"), kernel("c", "z", "y", "s")]),
    ("CAB | ACB", [multiply("C", "A", "B"), multiply("A", "C", "B")]),
    ("CAB | ABB", [multiply("C", "A", "B"), multiply("A", "B", "B")]),
    ("CAB | a | +a", [multiply("C", "A", "B"), columns("a", "y", "C")]),
    ("( | a b )", [loop(kernel("a", "y", "x"), kernel("b", "z", "x"))]),
    ("( | a | b )", [loop(kernel("a", "y", "x"), kernel("b", "x", "y"))]),
    ("( | a swap )", [loop(kernel("a", "y", "x"), Swap(ARRAYS["x"], ARRAYS["y"]))]),
    ("( a swap | b )", [loop(kernel("a", "y", "x"), Swap(ARRAYS["z"], ARRAYS["y"]), kernel("b", "w", "z"))]),
    ("( | a swap b )", [loop(kernel("a", "y", "x"), Swap(ARRAYS["z"], ARRAYS["y"]), kernel("b", "w", "y"))]),
    ("( | a | +s b )", [loop(added("a", "s", "x"), kernel("b", "y", "s"))]),
    ("( a | b | +s )", [while_(kernel("a", "y", "x"), added("b", "s", "y"))]),
    ("( | b | +s a )", [while_(added("b", "s", "y"), Leave(load(SCALARS["s"]) > 9.0), kernel("a", "y", "x"))]),
    ("( | a | )", [while_(kernel("a", "y", "x", flag=True), Leave(FAULT))]),
    ("a b", [kernel("a", "y", "x", flag=True), kernel("b", "z", "x", flag=True)]),
    ("one one", [element("y", "x"), element("z", "x")]),
    ("a | one", [kernel("a", "y", "x"), element("z", "y")]),
    ("one | a", [element("y", "x"), kernel("a", "z", "y")]),
    ("one | a", [element("y", "x"), kernel("a", "y", "z")]),
    ("( | a ( | b ) | c )", [loop(kernel("a", "y", "x"), loop(kernel("b", "z", "y")), kernel("c", "x", "z"))]),
    ("( a ) else ( b ) | c", [If(extent(n) > 3, (kernel("a", "y", "x"),), (kernel("b", "z", "x"),)), kernel("c", "w", "y")]),
    ("( a | +s ) c", [If(extent(n) > 3, (added("a", "s", "x"),)), kernel("c", "w", "s")]),
])
def test_where_they_wait(wanted, body):
    assert course(*body) == wanted


# ---------------------------------------------------------------- barriers, one by one
HOMEWARD = re.compile(r"lr_copy\(\w+_home|for \(long long element|if \(thread == 0\) [*{]")
BARRIER = re.compile(r"\n *(?:if \(\w+\) )?lr_barrier\(arrived\);")
NEEDLESS = {
    "permuted_axes": ["k1(x, flat, d, m, n);"],                          # elements that thread 0 does not write
    "swapped_states": ["k0(row, a, s, m);"],                             # a thread meets its own elements again
    "kernels_that_follow": ["third(b, a, x, n);"],
    "products_of_integers": ["lr_product(b, x, a, 7, 7, n, 7, 1, n, 1);"],
    "statements_between_kernels": [                                      # thread 0 alone
        "if (thread == 0) y[t] = lr_mul(y[t], 3LL);", "if (thread == 0) x[n - 1] = lr_sub(y[t + 1], y[t]);",
        "if (thread == 0) sums[0] = sums[1] & 255;"],
}
"""What stands after barriers that these programs are right without, because of which thread does what."""


def between(source):
    """The barriers inside a program: not those after arrays were copied from home, and before they are brought there."""
    start = source.rindex("__launch_bounds__")

    def inside(m):
        before, after = source[:m.start()].rpartition("\n")[2].strip(), source[m.end():].lstrip()
        return m.start() > start and not before.startswith(("lr_copy(", "bool met")) and not HOMEWARD.match(after)
    return [m for m in BARRIER.finditer(source) if inside(m)]


def what_follows(source, barrier, mark):
    return source[barrier.end():].lstrip().partition("\n")[0].replace(mark, "")


LARGE = {"sum_of_float32": {"n": 33000}, "linear_regression": {"n": 1100, "d": 5}, "sum_of_outer_products": {"n": 1100, "m": 2, "d": 3},
         "totals_of_known_length": {"n": 1100}}
"""With so many runs that one warp combines them."""
WAITING = (*LARGE, *NEEDLESS, "descent_by_batches", "total_of_each_turn", "products_float64", "steps_until_small", "ragged_scratch",
           "until_a_fault", "histogram", "while_of_an_array", "batches_of_float32", "derived_sizes")


def test_barriers_are_needed():
    """Without any one of them the watched shim sees a race, in one block or in a grid."""
    planted = []
    for name in WAITING:
        for number in range(len(between(wholes()[name].source))):
            mark = f"b{len(planted)}_"
            whole = whole_program(BY_NAME[name].program, mark)
            barrier = between(whole.source)[number]
            after = what_follows(whole.source, barrier, mark)
            if after != "}" or name in LARGE:                            # else it is one for many runs
                planted.append((name, after, whole, whole.source[:barrier.start()] + whole.source[barrier.end():]))
    assert {name for name, *_ in planted} == {*WAITING}
    functions = compiled([(source, [whole.function]) for _, _, whole, source in planted], sanitize=True)
    missed = []
    for name, after, whole, _ in planted:
        case = BY_NAME[name]
        executors = [partial(run, WholeProgram(whole, Loaded(functions, seed, sanitize=True)), shape)
                     for seed, shape in pairs(range(2), (Shape(1, 128), Shape(3, 64)))]
        if not story(case, [*case.sizes[-3:], *([LARGE[name]] if name in LARGE else [])], executors):
            missed.append((name, after))
    assert missed == [(name, after) for name, after, *_ in planted if after in NEEDLESS.get(name, [])]


# ---------------------------------------------------------------- planted faults
FAULTS = {
    "a barrier for one warp": ("kernels_that_follow", "\n        lr_barrier(", "\n        if (threadIdx.x < 32) lr_barrier("),
    "a barrier for one block": ("kernels_that_follow", "\n        lr_barrier(", "\n        if (blockIdx.x < 1) lr_barrier("),
    "every thread stores": ("statements_between_kernels", "if (thread == 0) y[t] = lr_mul", "y[t] = lr_mul"),
    "every block has a thread that stores": ("statements_between_kernels", "if (thread == 0) y[t] =", "if (threadIdx.x == 0) y[t] ="),
    "once is for every block": ("while_of_an_array", "if (blockIdx.x == 0 && threadIdx.x == 0)", "if (threadIdx.x == 0)"),
    "what is at home is not fetched": ("update_in_place", "lr_copy(w, w_home, n);", ""),
    "what is near is not brought home": ("update_in_place", "lr_copy(w_home, w, n);", ""),
    "arrays that changed places are not brought home": ("descent_by_batches", "lr_copy(w_home, w, d);", ""),
    "one of two that changed places is brought home": ("swapped_states", "b_home[element] = b_element;", ""),
    "brought to the other's home": ("swapped_states", "a_home[element] = a_element", "a_home[element] = b_element"),
    "one brought home before the other is read": (
        "swapped_states", "const long long b_element", "a_home[element] = a_element;\n        const long long b_element"),
    "arrays that do not change places": ("swapped_states", "lr_swap(a, b);", ""),
    "scalars that do not change places": ("swapped_scalars", "lr_swap(a, b);", ""),
    "a scalar not brought home": ("steps_until_small", "*steps_given = steps", "*steps_given = 0"),
    "a fault not flagged by a kernel": ("until_a_fault", "*fault = true", "*fault = false"),
    "a fault not looked at": ("until_a_fault", "(met || *fault)", "met"),
    "a fault outside of kernels not brought home": ("flag_outside_kernels", "if (met) *fault = true", ""),
    "many runs for some threads": ("sum_of_float32", "_runs > 64;", "_runs > 64 && threadIdx.x < 32;", {"n": 33000}),
    "many runs combined by nobody": ("sum_of_float32", "if (many) {", "if (false) {", {"n": 33000}),
    "many runs combined elsewhere": ("sum_of_float32", "many ? total_runs[", "many ? total_runs[-1 + ", {"n": 33000}),
    "fewer runs than there are": ("sum_of_float32", "lr_runs_of_threads(n);", "max(lr_runs_of_threads(n) - 1, 0LL);"),
    "an element of a total that no warp makes": ("sum_of_outer_products", " % warps", "", {"n": 1100, "m": 2, "d": 3}),
    "a wrong unit": ("steps_until_small", "1, -(double)INFINITY)", "1, 60.0)"),
    "a transposed product": ("products_of_integers", "lr_product(b, x, a, 7, 7, n, 7, 1,", "lr_product(b, x, a, 7, 7, n, 1, 7,"),
    "a product of other arrays": ("products_of_integers", "lr_product(b, x, a, 7, 7, n, 1, 7", "lr_product(a, x, b, 7, 7, n, 1, 7"),
    "a window of the turn before": ("swapped_states", "x + t * m", "x + max(t - 1, 0LL) * m"),
    "a short batch as long as others": ("batches_of_float32", "min(k, n - start)", "k"),
}


def whole_faults(**options):
    made = {}
    for number, (what, (name, old, new, *more)) in enumerate(FAULTS.items()):
        whole = whole_program(BY_NAME[name].program, f"f{number}_")
        made[what] = BY_NAME[name], whole, more, replaced(whole.source, old, new)
    functions = compiled([(source, [whole.function]) for _, whole, _, source in made.values()], **options)
    for what, (case, whole, more, _) in made.items():
        yield what, case, [*case.sizes, *more], [
            partial(run, WholeProgram(whole, Loaded(functions, seed, **options)), shape)
            for seed, shape in enumerate((Shape(1, 32), Shape(1, 128), Shape(2, 96), Shape(3, 64)))]


def test_planted_faults_are_found():
    """Some are races or outside of arrays; so every access is looked at."""
    missed = [what for what, case, sizes, executors in whole_faults(sanitize=True) if not story(case, sizes, executors)]
    assert not missed


class Overlapping(WholeProgram):
    """One array's near place is another's end."""

    def near(self, sizes, shape):
        found, end = super().near(sizes, shape)
        last = max(found, key=found.__getitem__, default=None)
        if last is not None and found[last] >= 16:
            found[last] -= 16
        return found, end


def test_near_places_that_overlap_are_found():
    case = BY_NAME["descent_by_batches"]
    overlapping = Overlapping(wholes()[case.name], Loaded(functions()))
    assert story(case, case.sizes, [partial(run, overlapping, Shape(1, 64))])


def test_the_smallest_arrays_are_near():
    case, sizes = BY_NAME["linear_regression"], {"n": 1000, "d": 5}
    whole = resident(case, 0, 1 << 14)
    found, end = whole.near(sizes, Shape(1, 64))
    names = {whole.whole.arrays[number].buffer.name for number in found}
    assert {"g", "r"} <= names and end <= 1 << 14 and all(place % 16 == 0 for place in found.values())
    assert whole.near(sizes, Shape(2, 64)) == ({}, 0)
    assert resident(case, 0, 0).near(sizes, Shape(1, 64)) == ({}, 0)


# ---------------------------------------------------------------- scripts
@contextmanager
def gpu(way):
    """Device `cuda` is the shim, and what can go this way does."""
    launch, launchers, grids = ShimLauncher.launch, [], []

    def chosen(made, sizes, figures, whole=True):
        return Choice({}, way if whole else "launches", 96)

    def launcher():
        launchers.append(ShimLauncher(len(launchers), most_blocks=5, blocks_together=3))
        return launchers[-1]

    def watched(self, function, grid, block, arguments, shared=0, together=False):
        grids.append((grid, together))
        launch(self, function, grid, block, arguments, shared, together)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "choose", chosen)
        patch.setattr(device, "absent", lambda: None)
        patch.setattr(device, "CupyLauncher", launcher)
        patch.setattr(ShimLauncher, "launch", watched)
        yield
    assert any(together for _, together in grids) == (way == "a grid")
    assert way == "launches" or (3 if way == "a grid" else 1, way == "a grid") in grids


@pytest.fixture(params=WAYS)
def way(request):
    with gpu(request.param):
        yield request.param


def both(text, **options):
    return [dsl.compile(text, device=name, **options) for name in ("cuda", "numpy")]


def equal(left, right, names, tolerance=1e-12):
    for name in names:
        np.testing.assert_allclose(np.asarray(left[name]), right[name], rtol=tolerance, atol=tolerance, err_msg=name)


LINE = """
seed 1
data train_X = linspace(-1, 1, 101)
data train_Y = 2 * train_X + 1 + 0.33 * normal(101)
scalar X, Y
shared w = 0.0, b = 0.0
model Y_bar = X * w + b
cost C = mean(sqr(Y_bar - Y))
grad gw, gb = C wrt w, b
update w <- w - 0.01 * gw
update b <- b - 0.01 * gb
train 3 epochs over X = train_X, Y = train_Y
"""


@pytest.mark.parametrize("text", [LINE, LINE.replace("train_Y\n", "train_Y batch 32\n").replace("3 epochs", "20 epochs")])
def test_the_line_of_the_tutorial(text, way):
    there, here = both(text)
    there.run()
    here.run()
    equal(there, here, "wb")
    assert there.session.reports[-1].steps == here.session.reports[-1].steps


def test_handwritten_digits():
    """An epoch of Adam over some of the rows, in batches, with products and validation; by one block and by a grid."""
    text = (EXAMPLES / "mlp_digits.lr").read_text(encoding="utf-8").partition('test "')[0].replace("train 60", "train 1")
    text = text.replace("data/digits.csv", str(EXAMPLES / "data" / "digits.csv")).replace("t.label, test = 0.2", "t.label, test = 0.9")
    here = dsl.compile(text, device="numpy")
    here.run()
    results = []
    for way in ("one block", "a grid"):
        with gpu(way):
            there = dsl.compile(text, device="cuda")
            there.run()
            equal(there, here, ("W1", "b1", "W2", "b2"))
            results.append([bits(np.asarray(there[name])) for name in ("W1", "b1", "W2", "b2")])
    assert results[0] == results[1]


@pytest.mark.parametrize("seed", (14, 55))
def test_random_models(seed, way, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES.parent / "tests"))
    from tests import training_programs
    assert training_programs.compare_training(seed, "cuda") in ("trained", "stopped")


STOPPED = """
vector x[n]
int vector at[n]
shared w[4] = 1.0, v = 0.5
let far = exp(v * mean(x))
cost C = mean(sqr(w[at] - x)) + far
grad gw, gv = C wrt w, v
update w <- w - 0.1 * gw
update v <- v - RATE * gv
"""


@pytest.mark.parametrize("rate, bad", [(0.1, None), (0.1, "index"), (0.1, "nan"), (-1e4, None), (-5.0, None)])
def test_what_stops_a_training(rate, bad, way):
    """A fault, a nan and what is infinite inside a burst: the same words, state and count of steps as the reference."""
    rng = np.random.default_rng(0)
    x, at = rng.uniform(0.5, 1, size=(90, 5)), rng.integers(0, 4, size=(90, 5))
    if bad == "index":
        at[61, 2] = 4
    if bad == "nan":
        x[47, 3] = np.nan
    ends = []
    for model in both(STOPPED.replace("RATE", str(rate))):
        try:
            model.train(epochs=2, data={"x": x, "at": at})
            words = ""
        except dsl.LrError as problem:
            words = str(problem)
        steps = model.session.reports[-1].steps if model.session.reports else 0
        ends.append((words, steps, {name: np.asarray(model[name]) for name in "wv"}))
    (there, steps, state), (here, wanted, reference) = ends
    assert there == here and steps == wanted
    equal(state, reference, "wv")
    assert bool(here) == (bad is not None or rate < 0)
