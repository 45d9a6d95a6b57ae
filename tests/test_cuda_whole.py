"""Whole programs as one kernel, run by the shim: one block that stays, or blocks that run together.

They agree with NumPy in every shape and schedule, with the same bits, which are also those of kernels that are launched one by
one; nothing races; where they wait is needed, and what they lack is found.
"""

import re
import shutil
from functools import cache, partial

import numpy as np
import pytest

from dsl.backends.cuda.driver import CudaProgram
from dsl.backends.cuda.flat import flattened
from dsl.backends.cuda.resident import Shape, WholeProgram
from dsl.backends.cuda.serial import on_the_device
from dsl.backends.cuda.shim import ShimLauncher
from dsl.backends.cuda.source import print_kernels, source_text
from dsl.backends.cuda.whole import stays_on_device, whole_program
from dsl.loops.ir import Product, statements
from tests.loop_programs import BY_NAME, CASES, agrees
from tests.needs import needs
from tests.planted import Loaded, compiled, story
from tests.test_cuda_source import OWN_SIZES, bits, called, prefix

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
