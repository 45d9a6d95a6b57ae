"""Every program that there is, compiled for GPUs by NVRTC without one, and what the code must not hold (`ptx_lint.py`)."""
from __future__ import annotations

import os
import re
from collections.abc import Sequence

import pytest

from dsl.backends.cuda import nvrtc
from tests import cuda_sources, ptx_lint
from tests.cuda_sources import EXAMPLES, GOOD, Named, compiled, joined
from tests.loop_programs import BY_NAME, CASES
from tests.needs import needs
from tests.ptx_lint import MARK, entries, usages
from tests.test_traps import CASES as TRAPS

ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_120")
HERE = "sm_90"
ALL = bool(os.environ.get("LR_TEST_ALL"))
"""Everything, for every architecture: `make fuzz`."""
RANDOM, TRAINED, TOGETHER = range(80 if ALL else 40), range(100, 120 if ALL else 105), 10
"""Random programs, random trainings, and how many programs are one source."""
AS_KERNELS = 20
"""The random programs from here on are compiled as kernels only."""
LONG = ("logistic_regression", "matrix_factorization", "mlp_digits", "newton", "pendulum", "recurrent", "softmax_classifier")
"""Examples that are compiled for one architecture: a whole training or a loop with its adjoint takes the compiler seconds each time.
So are the traps.  `ALL` asks for every architecture."""
MOST_SPILLED, MOST_OF_A_WHOLE = 32, 3500
"""Bytes a thread: with 32 registers all warps of a processor fit, and the assembler would rather put a few aside, around its own
functions for divisions, than take more.  What is beyond that is a kernel that holds too much: the largest whole program does."""


@pytest.fixture(scope="module", autouse=True)
def compiler():
    try:
        nvrtc.library()
    except nvrtc.NoCompiler as missing:
        needs(False, str(missing))


def found_in(programs: Sequence[Named], architectures: Sequence[str] = ARCHITECTURES,
             every_way: bool | None = None) -> dict[str, ptx_lint.Usage]:
    """Compiles the programs and lints the code; what their kernels take on `HERE`.  A complaint shows whose the kernels are.

    If nothing else is asked for, they are compiled in every way for that one only: it takes long."""
    kernels: dict[str, ptx_lint.Usage] = {}
    whose = "\n".join(p.label for p in programs)
    for architecture in architectures:
        source = joined(programs, architecture == HERE if every_way is None else every_way)
        made = compiled(source, architecture)
        used = usages(made.log)
        assert used and used.keys() == entries(made.ptx).keys()
        wrong = ptx_lint.complaints(source, made.ptx)
        assert not wrong, "\n".join([f"{architecture}:", *wrong, whose])
        kernels = used if architecture == HERE else kernels
    wrong = ptx_lint.fused(compiled(MARK + joined(programs, every_way is not False), "compute_90", ()).ptx)
    assert not wrong, "\n".join([*wrong, whose])
    return kernels


def blocks(places: range, size: int) -> list[range]:
    return [places[k:k + size] for k in range(0, len(places), size)]


def test_the_compiler_knows_the_architectures():
    assert set(ARCHITECTURES) <= set(nvrtc.supported())


# ---------------------------------------------------------------- programs
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples(path):
    """Their kernels keep what they work on in registers."""
    programs = cuda_sources.of_file(path)
    used = found_in(programs, (HERE,) if path.stem in LONG and not ALL else ARCHITECTURES, every_way=True)
    print(ptx_lint.table(used))
    wholes = {f"p{k}_{name}" for k in range(len(used)) for name in {p.program.name for p in programs}}
    assert used and max(u.spilled for u in used.values()) <= MOST_OF_A_WHOLE
    assert max(u.spilled for name, u in used.items() if name not in wholes) <= MOST_SPILLED


@pytest.mark.parametrize("block", blocks(range(len(GOOD)), TOGETHER), ids=lambda block: GOOD[block[0]].stem)
def test_good(block):
    found_in([p for k in block for p in cuda_sources.of_file(GOOD[k])])


@pytest.mark.parametrize("block", blocks(range(len(TRAPS)), TOGETHER), ids=lambda block: TRAPS[block[0]][0])
def test_traps(block):
    programs = []
    for name, _, declared, expression, _, _, gradient in (TRAPS[k] for k in block):
        programs += cuda_sources.of_trap(name, declared, expression, gradient is not None)
    assert len(programs) >= len(block)
    found_in(programs, ARCHITECTURES if ALL else (HERE,), every_way=True)


@pytest.mark.parametrize("block", blocks(range(len(CASES)), 2 * TOGETHER), ids=lambda block: CASES[block[0]].name)
def test_loop_programs(block):
    used = found_in([Named(CASES[k].name, CASES[k].program) for k in block], (HERE,))
    assert len(used) >= len(block)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_fma_of_a_program_is_one_instruction(dtype):
    for source in Named(dtype, BY_NAME[f"{dtype}_instructions"].program).ways:
        assert set(re.findall(r"\bfma(\.[\w.]+)", compiled(source, HERE).ptx)) == {f".rn.f{dtype[-2:]}"}
        assert "marked.f" in compiled(MARK + source, "compute_90", ()).ptx


@pytest.mark.parametrize("block", blocks(RANDOM, TOGETHER), ids=lambda block: f"seeds-from-{block[0]}")
def test_random_programs(block):
    assert found_in([p for seed in block for p in cuda_sources.of_seed(seed)], (HERE,), every_way=block[0] < AS_KERNELS)


@pytest.mark.parametrize("block", blocks(TRAINED, TOGETHER), ids=lambda block: f"seeds-from-{block[0]}")
def test_random_trainings(block):
    assert found_in([p for seed in block for p in cuda_sources.of_training(seed)], (HERE,))


# ---------------------------------------------------------------- what the lint is for
BODY = 'extern "C" __global__ void k(float* x, const float* __restrict__ y, double* z, unsigned int* u, int n) {{\n{}\n}}'
PLANTED = {
    "an atomic sum of float32": ("atomicAdd(x, y[0]);", "atomic arithmetic of floats"),
    "an atomic sum of float64": ("z[1] = atomicAdd(z, 1.0);", "atomic arithmetic of floats"),
    "an atomic sum by compare and swap": (
        "for (unsigned a = *u, b; (b = atomicCAS(u, a, __float_as_uint(__uint_as_float(a) + y[0]))) != a;) a = b;",
        "a loop of compare and swap"),
    "a fast division": ("x[0] = __fdividef(y[0], y[1]);", "an approximation: div.approx.f32"),
    "a fast reciprocal": ('asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(x[0]) : "f"(y[0]));', ": rcp.approx.ftz.f32"),
    "a reciprocal that is corrected, and used before that": (
        'float r, s; asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(y[0])); s = fmaf(fmaf(-y[0], r, 1.0f), r, r); x[0] = s; x[1] = r;',
        ": rcp.approx.ftz.f32"),
    "a fast exponential": ("x[0] = __expf(y[0]);", "an approximation: ex2.approx"),
    "a fast root": ("x[0] = rsqrtf(y[0]);", "an approximation: rsqrt.approx"),
    "a fast tanh": ('asm("tanh.approx.f32 %0, %1;" : "=f"(x[0]) : "f"(y[0]));', "an approximation: tanh.approx.f32"),
    "a product that may be fused": ('asm("mul.f32 %0, %1, %1;" : "=f"(x[0]) : "f"(y[0]));', "the assembler may fuse: mul.f32"),
    "a sum that may be fused": ('asm("add.f64 %0, %1, %1;" : "=d"(z[0]) : "d"(z[1]));', "the assembler may fuse: add.f64"),
    "a read past what was written": ("x[n] = 1.0f; x[0] = __ldg(x + 1);", "x is read through the cache of constants"),
    "such a read in the next turn": ("for (int i = 0; i < n; ++i) { z[i] = __ldg(x + i); x[i + 1] = y[i]; }",
                                     "x is read through the cache of constants"),
    "such a read behind a barrier": ("if (threadIdx.x == 0) x[0] = y[0]; __syncthreads(); z[threadIdx.x] = __ldg(x);",
                                     "x is read through the cache of constants"),
    "such a read of one of two": ("float* one = n > 3 ? x : (float*)z; one[n] = 1.0f; x[n + 1] = __ldg((float*)z + n);",
                                  "z is read through the cache of constants"),
    "such a read in a loop": (
        "float *a = x, *b = x + n; for (int i = 0; i < n; ++i) { b[i] = __ldg(a + i) * y[i]; float* c = a; a = b; b = c; }",
        "x is read through the cache of constants"),
}
TABLE = "float* a = (float*)t[0]; float* b = (float*)t[1]; a[n] = 1.0f; x[n] = {};"
RIGHT = {
    "arithmetic": "x[n] = x[0] * y[1] + y[2] / y[3] - sqrtf(y[4]); z[n] = z[0] * z[1] + sqrt(z[2]);",
    "whole numbers added atomically": "atomicAdd(u, 1u); atomicOr(u + 1, 2u); atomicExch(u + 2, 3u);",
    "arrays that are read only": "for (int i = 0; i < n; ++i) x[i] = y[i] + __ldg(z + i);",
    "a read before the first write": "for (int i = 0; i < n; ++i) z[i] = __ldg(x + i) * y[i]; x[0] = 1.0f;",
    "fma where it is written": "x[0] = fmaf(y[0], y[1], y[2]); z[0] = fma(z[1], z[2], z[3]); x[1] = fma(y[0], y[3], y[2]);",
    "shared memory": "__shared__ float s[128]; s[threadIdx.x] = y[threadIdx.x]; __syncthreads(); x[threadIdx.x] = s[127 - threadIdx.x];",
}


def wrong(source, options=()):
    marked = compiled(MARK + source, "compute_90", options)
    return ptx_lint.complaints(source, compiled(source, HERE, options).ptx) + ptx_lint.fused(marked.ptx)


@pytest.mark.parametrize("what", PLANTED)
def test_planted_faults_are_found(what):
    body, says = PLANTED[what]
    found = wrong(BODY.format(body))
    assert found and all(says in text for text in found), found


@pytest.mark.parametrize("what", RIGHT)
def test_right_code_is_not_blamed(what):
    assert wrong(BODY.format(RIGHT[what])) == []


def test_fused_products_are_found(monkeypatch):
    source = BODY.format("x[0] = y[0] * y[1] + y[2]; z[0] = z[1] * z[2] + z[3]; x[1] = fmaf(y[0], y[1], y[2]);")
    assert wrong(source) == []
    monkeypatch.setattr(nvrtc, "OPTIONS", ("--std=c++17",))                       # NVRTC fuses unless it is told not to
    found = [text for text in wrong(source) if "fused" in text]
    assert len(found) == 2 and any("f32" in text for text in found) and any("f64" in text for text in found)
    assert any("fused" in text for text in wrong(BODY.format("x[0] = __fmaf_rn(y[0], y[1], y[2]);")))


def test_flushed_denormals_and_fast_mathematics_are_found(monkeypatch):
    source = BODY.format("x[0] = y[0] * y[1]; x[1] = y[0] / y[1];")
    monkeypatch.setattr(nvrtc, "OPTIONS", ("--ftz=true",))
    assert any("denormals flushed" in text for text in wrong(source))
    monkeypatch.setattr(nvrtc, "OPTIONS", ("--prec-div=false",))
    assert any("an approximation: div.full.f32" in text for text in wrong(source))


def test_arrays_in_a_table_are_arrays_of_their_own():
    """A program that is one kernel finds its arrays so."""
    source = BODY.replace("unsigned int* u", "const unsigned long long* __restrict__ t")
    assert wrong(source.format(TABLE.format("a[1] * b[2] * y[n]"))) == []
    assert any("an array in it is read through" in text for text in wrong(source.format(TABLE.format("__ldg(b + 2)"))))


def test_calls_are_found():
    source = "__device__ __noinline__ float square(float a) { return a * a; }\n" + BODY.format("x[0] = square(y[0]);")
    assert any("a call" in text for text in wrong(source))


def test_what_a_kernel_takes():
    """An array with an index of its own lies in the stack; with few registers a thread spills; shared memory is counted."""
    body = ("float a[64]; for (int i = 0; i < 64; ++i) a[i] = y[i] * y[i + n];\n"
            "float s = 0; for (int i = 0; i < 64; ++i) s += {} * a[i]; x[0] = s;")
    indexed, held = (usages(compiled(BODY.format(body.format(f"a[{index}]")), HERE).log)["k"] for index in ("n & 63 ^ i", "63 - i"))
    assert indexed.stack >= 256 and held.stack == held.spilled == 0 < held.registers
    tight = usages(compiled(BODY.format(body.format("a[63 - i]")), HERE, (*cuda_sources.RESOURCES, "--maxrregcount=24")).log)["k"]
    assert tight.spilled > 0 and tight.registers <= 24
    assert usages(compiled(BODY.format(RIGHT["shared memory"]), HERE).log)["k"].shared == 512
    lines = ptx_lint.table({"held": held, "tight": tight}).splitlines()
    assert lines[1].split() == ["tight", str(tight.registers), str(tight.stack), str(tight.spilled), "0"]


def test_errors_show_the_line():
    with pytest.raises(nvrtc.CompileError, match=r"kernels\.cu:2: identifier \"missing\" is undefined\n    x\[0\] = missing;"):
        nvrtc.compile_source(BODY.format("x[0] = missing;"))


def test_what_is_kept_is_what_was_made(tmp_path, monkeypatch):
    monkeypatch.setattr(cuda_sources, "folder", lambda: tmp_path)
    source = BODY.format("x[0] = y[0];")
    made, kept = compiled(source, HERE), compiled(source, HERE)
    assert made.cubin[:4] == b"\x7fELF" and (made.ptx, made.log) == (kept.ptx, kept.log) and kept.cubin == b""
    place, = tmp_path.iterdir()
    place.write_bytes(b"broken")
    assert compiled(source, HERE).cubin                                          # compiled again
    compiled(source, "sm_80")
    assert len(list(tmp_path.iterdir())) == 2
