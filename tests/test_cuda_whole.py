"""Whole programs as one kernel, run by the shim: one block that stays, or blocks that run together.

They agree with NumPy in every shape and schedule, with the same bits, which are also those of kernels that are launched one by
one; nothing races; planted faults are found.
"""

import shutil
from functools import cache, partial
from itertools import product as pairs

import numpy as np
import pytest

from dsl.backends.cuda.ahead import AheadProgram, ahead_of
from dsl.backends.cuda.driver import CudaProgram
from dsl.backends.cuda.flat import flattened
from dsl.backends.cuda.resident import KEPT, Shape, WholeProgram
from dsl.backends.cuda.serial import on_the_device
from dsl.backends.cuda.shim import ShimLauncher
from dsl.backends.cuda.source import print_kernels, source_text
from dsl.backends.cuda.staging import Staging
from dsl.backends.cuda.whole import stays_on_device, whole_program
from dsl.loops.ir import Product, statements
from tests.loop_programs import BY_NAME, CASES, agrees
from tests.needs import needs
from tests.planted import Loaded, compiled, replaced, story
from tests.test_cuda_source import OWN_SIZES, bits, called, prefix, rows_from

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


# ---------------------------------------------------------------- small arrays that go in one piece
def called_with(whole, case, seed):
    """A call of a case, with what is wanted of it: the arrays, and a function that makes the call."""
    sizes = case.sizes[-1]
    arrays, scalars = case.make(sizes, np.random.default_rng(seed))
    wanted = {**arrays, **case.expected({name: a.copy() for name, a in arrays.items()}, scalars, sizes)}
    return arrays, wanted, lambda: run(whole, Shape(1, 64), case.program, arrays, scalars, sizes)


def test_a_call_during_another_has_memory_of_its_own(monkeypatch):
    """As threads that make the same steps do."""
    case = BY_NAME["swapped_states"]
    whole = resident(case)
    (outer, outer_wanted, call), (inner, inner_wanted, other) = (called_with(whole, case, seed) for seed in (1, 2))
    launch, waiting = whole.launcher.launch, [other]

    def interrupted(*given, **options):
        if waiting:
            waiting.pop()()
        launch(*given, **options)
    monkeypatch.setattr(whole.launcher, "launch", interrupted)
    assert not call()
    for arrays, wanted in ((outer, outer_wanted), (inner, inner_wanted)):
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, wanted[name])
    assert len(whole.stagings) == 1


@pytest.mark.parametrize("where", ["upload", "launch", "download"])
def test_a_call_that_fails_changes_nothing_and_leaves_nothing(monkeypatch, where):
    case = BY_NAME["swapped_states"]
    whole = resident(case)
    _, _, call = called_with(whole, case, 3)
    call()
    arrays, wanted, call = called_with(whole, case, 4)
    before = {name: a.copy() for name, a in arrays.items()}
    real = getattr(whole.launcher, where)

    def broken(*given, **options):
        monkeypatch.setattr(whole.launcher, where, real)
        raise MemoryError("once")
    monkeypatch.setattr(whole.launcher, where, broken)
    with pytest.raises(MemoryError, match="once"):
        call()
    assert len(whole.stagings) == (where == "upload"), "what is large goes there first"
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name])
    assert not call()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, wanted[name])


def test_stagings_do_not_become_more_and_more():
    case = BY_NAME["swapped_states"]
    whole = resident(case)
    for length in range(1, 3 * KEPT):
        sizes = {**case.sizes[-1], "m": length}
        arrays, scalars = case.make(sizes, np.random.default_rng(length))
        wanted = case.expected({name: a.copy() for name, a in arrays.items()}, scalars, sizes)
        run(whole, Shape(1, 64), case.program, arrays, scalars, sizes)
        np.testing.assert_array_equal(arrays["a"], wanted["a"])
        assert len(whole.stagings) == min(length, KEPT)


def test_small_arrays_lie_apart():
    """There is room between them, which is nobody's: what runs over an end is found where accesses are looked at."""
    staging = Staging(ShimLauncher(), (("float64", 3), ("bool", 0), ("int32", 1), ("uint64", 4)))
    starts = [t.elements.ctypes.data for t in staging.there]
    assert all(start % 16 == 0 for start in starts)
    ends = [start + a.nbytes for start, a in zip(starts, staging.here)]
    assert all(b - a >= 16 for a, b in zip(ends, [*starts[1:], starts[0] + staging.memory.nbytes]))
    for number, here in enumerate(staging.here):
        here[...] = number + np.arange(here.size)
    staging.send()
    for number, there in enumerate(staging.there):
        np.testing.assert_array_equal(there.elements, number + np.arange(len(there.elements)))
        there.elements[...] += there.elements.dtype.type(1)
    staging.fetch()
    np.testing.assert_array_equal(staging.here[3], 4 + np.arange(4))
