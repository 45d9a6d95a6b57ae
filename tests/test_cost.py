"""What a program is said to cost, against what the watched interpreter sees it touch, and against counts by hand."""

from collections import defaultdict

import numpy as np
import pytest

from dsl.errors import Source
from dsl.ir.types import Dim
from dsl.loops import ir
from dsl.loops.cost import WIDTH, cost, operations, value
from dsl.loops.evaluate import program
from dsl.loops.interpret import Interpreter
from dsl.loops.text import dim_text
from dsl.machine.expr import Buffer, const, extent, fma, load, ref
from dsl.pipeline import prepare
from dsl.session import Session

HEAD = """precision {}
vector x[n], y[n], f[m]
matrix M[n, k], N[k, m], S[n, n]
int vector u[q]
scalar a
"""
SIZES = {"n": 7, "k": 4, "m": 3, "q": 5}
FORMULAS = ["a * x + y", "sum(sqr(x - y))", "mean(M, axis = 0)", "sum(M, axis = 1)", "softmax(M)", "M @ N", "x @ M", "M.T @ (M * a)",
            "x[1:] * 2", "cumsum(x)", "M + x[:, None]", "outer(x, f)", "max(M @ N, axis = 1)", "sum(diag(S))", "S + S.T",
            "tanh(x) * exp(-x * x)", "fold(s = 0.0 for t in x: s * a + t)", "concat([x, f])", "norm(x) * y", "where(x > 0, x, y * a)",
            "std(x)", "tril(S)"]  # fmt: skip


def made(formula, precision="float32"):
    session = Session(evaluate=False)
    session.load(Source("a.lr", HEAD.format(precision) + f"let z = {formula}"))
    return program(prepare([session.elaborator.scope["z"].value], session.options()))[0]


class Watched(Interpreter):
    """Which elements of arrays each kernel, each product and the rest touch."""

    part = None

    def run(self):
        self.touched = defaultdict(lambda: (set(), set()))
        return super().run()

    def run_kernel(self, kernel, scope):
        self.part = kernel
        super().run_kernel(kernel, scope)
        self.part = None

    def _seen(self, at, place, written):
        if at.buffer.rank and at.buffer.role != "private" and at.root.role != "private":
            self.touched[self.part][written].add((at.root, place))

    def read(self, at, index, note, iteration):
        self._seen(at, self.position(at, index, note), 0)
        return super().read(at, index, note, iteration)

    def write(self, at, index, value, note, iteration):
        self._seen(at, self.position(at, index, note), 1)
        super().write(at, index, value, note, iteration)


def run(p, sizes):
    rng = np.random.default_rng(3)
    arrays = {b.name: (rng.integers(0, 3, s) if "int" in b.dtype else rng.normal(size=s)).astype(b.dtype) for b in p.passed
              for s in [tuple(d.evaluate(sizes) for d in b.shape)]}  # fmt: skip
    watched = Watched(p, arrays, {r.name: 0.5 for r in p.scalars}, sizes)
    watched.run()
    return {part: [sum(WIDTH[b.dtype] for b, _ in found) for found in sides] for part, sides in watched.touched.items()}


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("formula", FORMULAS)
def test_bytes_are_what_is_touched(formula, precision):
    p = made(formula, precision)
    seen = run(p, SIZES)
    totals = {b for s in ir.statements(p.body) if isinstance(s, ir.Kernel) for b in (t.buffer for t in s.totals)}
    for part in cost(p).parts:
        if part.kind == "product":
            continue
        if part.statement is not None and any(b.rank for b in totals):
            continue                                            # the watched totals are read at each addition
        read, written = seen.get(part.statement, (0, 0))
        assert (value(part.each.read, SIZES), value(part.each.written, SIZES)) == (read, written), (part.name, dim_text(part.each.read))


def test_overlapping_views_count_as_one_of_them():
    assert dim_text(cost(made("x[1:] - x[:-1]")).total.read) == "4*max(n - 1, 0)"


def test_a_gather_reads_as_many_as_it_asks_for():
    (part,) = (p for p in cost(made("sum(M[u])")).parts if p.kind == "kernel")
    assert dim_text(part.each.read) == "4*k*q + 8*q"


@pytest.mark.parametrize(
    ("formula", "flops"),
    [("a * x + y", "2*n"), ("x - y", "n"), ("M @ N", "2*k*m*n"), ("x / a", "n"), ("abs(x)", "0"), ("sum(x)", "n + 0"), ("sqrt(x)", "n"),
     ("M + M.T.T * a", "2*k*n"), ("fold(s = 0.0 for t in x: s * a + t)", "2*n"), ("x[::-1]", "0"), ("outer(x, f)", "m*n")],
)  # fmt: skip
def test_operations_by_hand(formula, flops):
    assert dim_text(cost(made(formula)).total.flops) == flops.removesuffix(" + 0")


def kernel(body, totals=(), count="n"):
    return ir.Kernel("k", "i", extent(Dim.of(N) if count == "n" else Dim.of(count)), tuple(body), tuple(totals), Dim.of(1))


N = made("x").passed[0].shape[0].bare
X, Y = (Buffer(name, "float64", (Dim.of(N),), role) for name, role in (("x", "input"), ("y", "output")))
I = ref("i")


def one(*body, scratch=()):
    return cost(ir.Program("p", (X, Y, *scratch), (), body))


def test_a_fused_multiply_add_is_two():
    assert dim_text(one(kernel([ir.Store(Y, (I,), fma(load(X, (I,)), 2.0, 1.0))])).total.flops) == "2*n"


def test_the_longer_branch_counts_in_a_kernel_and_none_outside():
    dear, cheap = (ir.Store(Y, (I,), load(X, (I,)) * 2.0 + 1.0),), (ir.Store(Y, (I,), load(X, (I,)) * 2.0),)
    for branches in ((dear, cheap), (cheap, dear)):
        found = one(kernel([ir.If(load(X, (I,)) > 0.0, *branches)]))
        assert dim_text(found.total.flops) == "3*n"             # the comparison is one
    found = one(ir.If(const(True, "bool"), (kernel(dear),)))
    (part,) = (p for p in found.parts if p.kind == "kernel")
    assert part.seldom and dim_text(part.each.flops) == "2*n" and dim_text(found.total.flops) == "0"


def test_a_while_counts_as_one_turn():
    body = (ir.Local("t", "int64", const(0, "int64")),
            ir.While(ref("t") < 5, (kernel([ir.Store(Y, (I,), load(X, (I,)) * 3.0)]), ir.Assign("t", ref("t") + 1))))
    found = one(*body)
    assert [(p.kind, p.turning) for p in found.parts] == [("kernel", True), ("statements", True), ("statements", False)]
    assert dim_text(found.step.total.flops) == "n" == dim_text(found.total.flops)


def test_kernels_in_loops_run_often():
    (part, *_) = one(ir.Loop("j", extent(Dim.of(N)), (kernel([ir.Store(Y, (I,), load(X, (ref("j"),)))]),))).parts
    assert (dim_text(part.times), dim_text(part.each.read), dim_text(part.each.written)) == ("n", "8", "8*n")


def test_operations_need_no_sizes_and_are_never_negative():
    p = made("M[2:] @ N")
    assert operations(p, {}) >= 0 and operations(p, {"n": 0, "k": 0, "m": 0}) >= 0
    assert operations(p, {**SIZES, "n": 700}) > 50 * operations(p, SIZES)
