"""Loop programs run natively on the CPU agree with NumPy, whatever the number of threads; their code is cached and fast."""

import numpy as np
import pytest

from dsl.backends.llvm import cache as object_cache
from dsl.backends.llvm import native
from dsl.backends.llvm.native import NativeProgram
from tests.loop_programs import BY_NAME, CASES, agrees

THREADS = (1, 2, 3)


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory):
    """A cache of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def runner(run, written):
    """An executor that keeps the bits of what it wrote."""
    def execute(program, arrays, scalars, sizes):
        flagged = run([arrays[b.name] for b in program.passed], [scalars[s.name] for s in program.scalars], sizes)
        written.append([arrays[b.name].tobytes() for b in program.passed])
        return flagged
    return execute


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_programs_agree_with_numpy(case):
    natives = [NativeProgram(case.program, threads=t) for t in THREADS]
    compiled = native.compilations
    for sizes in (*case.sizes, *([case.large] if case.large else [])):
        written = []
        for program in natives:
            agrees(case, sizes, runner(program, written))
        agrees(case, sizes, runner(natives[0], written))
        assert all(w == written[0] for w in written), f"{case.name}, {sizes}: the bits depend on the threads"
    assert native.compilations == compiled, "a new size was compiled for"
