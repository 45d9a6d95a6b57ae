"""Loop programs on the GPU itself: `pytest --device cuda`, as `make gpu` calls it; with `--stand-in` in CuPy's stand-in.

Every program is run in each way there is: as launches, as one block that stays, as blocks that run together.  Results are those of
NumPy, and the same bits every time.
"""

import pytest

from dsl.backends.cuda.driver import CudaProgram
from dsl.backends.cuda.program import GpuProgram
from dsl.backends.cuda.resident import Shape, WholeProgram
from dsl.backends.cuda.whole import stays_on_device, whole_program
from tests.loop_programs import CASES, agrees

pytestmark = pytest.mark.gpu
SHAPES = ((1, 32), (1, 256), (4, 128))


@pytest.fixture(scope="module")
def launcher():
    from dsl.backends.cuda.device import CupyLauncher
    return CupyLauncher()


def twice(run):
    """An executor that runs a program again on the same values and finds the same bits."""
    def execute(program, arrays, scalars, sizes):
        given, values = [arrays[b.name] for b in program.passed], [scalars[r.name] for r in program.scalars]
        again = [a.copy() for a in given]
        flagged = run(given, values, sizes)
        assert run(again, values, sizes) == flagged
        assert all(a.tobytes() == b.tobytes() for a, b in zip(given, again)), "the bits differ from run to run"
        return flagged
    return execute


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_as_launches(case, launcher):
    cuda = CudaProgram(case.program, launcher)
    for sizes in case.sizes:
        agrees(case, sizes, twice(cuda))


@pytest.mark.parametrize("case", [c for c in CASES if stays_on_device(c.program)], ids=lambda c: c.name)
def test_as_one_kernel(case, launcher):
    whole = WholeProgram(whole_program(case.program), launcher)
    for blocks, threads in SHAPES:
        together = min(blocks, launcher.most_together(whole.function, threads, 0))
        shape = Shape(together, threads)
        for sizes in case.sizes:
            agrees(case, sizes, twice(lambda *call, shape=shape: whole.run(*call, shape)))


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_as_is_chosen(case, launcher):
    cuda = GpuProgram(case.program, launcher)
    for sizes in case.sizes:
        agrees(case, sizes, twice(cuda))
