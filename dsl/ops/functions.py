"""The built-in functions of the language: one row each.

A row gives the call's parameters, a line of documentation, and how the call becomes nodes.  Element-wise ops, reductions
and row-wise ops that are marked `surface` in the op table need no row here: theirs is made from the op's.

Parameters are written `name`, `name=default` or `*name`; what an argument may be follows from the parameter's name:

    axis axes keepdims ddof k   literals              shape reps n m   sizes (ints or dims; a shape is a tuple or one int)
    parts                       several arrays        everything else  an array
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dsl.ir.node import TABLE
from dsl.ops import build, calculus
from dsl.ops.scalar import abs as absolute
from dsl.ops.scalar import ge, le, sqr
from dsl.ops.shape import argsort, eye, full, sort
from dsl.ops.table import cast
from dsl.record import record


@record
class Parameter:
    name: str
    default: Any = None
    required: bool = True
    variadic: bool = False

    def __str__(self) -> str:
        shown = "none" if self.default is None else str(self.default).lower()
        return f"*{self.name}" if self.variadic else self.name if self.required else f"{self.name} = {shown}"


@record
class Function:
    """`build(context, *arguments)` makes the nodes; None for what the runtime does (reading files, splitting data)."""

    name: str
    parameters: tuple[Parameter, ...]
    doc: str
    group: str
    build: Callable[..., Any] | None

    @property
    def signature(self) -> str:
        return f"{self.name}({', '.join(map(str, self.parameters))})"


FUNCTIONS: dict[str, Function] = {}
"""Every built-in function by name."""


def parameters(text: str) -> tuple[Parameter, ...]:
    result = []
    values = {"none": None, "true": True, "false": False, "()": ()}
    for word in text.split():
        name, given, default = word.partition("=")
        if name.startswith("*"):
            result.append(Parameter(name[1:], required=False, variadic=True))
        elif given:
            value = values[default] if default in values else float(default) if "." in default or "e" in default else int(default)
            result.append(Parameter(name, value, required=False))
        else:
            result.append(Parameter(name))
    return tuple(result)


def function(name: str, signature: str, group: str, doc: str, build: Callable[..., Any] | None) -> None:
    assert name not in FUNCTIONS, name
    FUNCTIONS[name] = Function(name, parameters(signature), doc, group, build)


def _from_table() -> None:
    for op in list(TABLE.values()):
        if not op.surface:
            continue
        operands = " ".join(op.operands)
        if op.elementwise:
            function(op.name, operands, "element-wise", op.doc, build.elementwise_call(op))
        elif op.name in ("softmax", "log_softmax"):
            function(op.name, "x axis=-1", "row-wise", op.doc, build.rowwise(op))
        elif op.name in ("cumsum", "cumprod"):
            function(op.name, "x axis=none", "row-wise", op.doc, build.running(op))
        else:
            ddof = op.name in ("var", "std")
            function(op.name, "x axis=none keepdims=false" + " ddof=0" * ddof, "reduction", op.doc, build.reduction_call(op, ddof))


# ---------------------------------------------------------------- rows
_from_table()
F = function
F("float", "x", "conversion", "`x` in the script's float.", build.convert("float"))
F("int",   "x", "conversion", "`x` as an integer, rounded towards 0; nan and infinity are an error.", build.convert("int64"))
F("bool",  "x", "conversion", "Whether `x` is not 0.", build.convert("bool"))
F("reshape",     "x shape",        "shape", "The same elements in another shape; one length may be -1.", build.reshape_call)
F("transpose",   "x axes=none",    "shape", "Axes in another order (reversed unless told).", build.transpose_call)
F("expand_dims", "x axis",         "shape", "A new axis of length 1.", build.expand_dims_call)
F("squeeze",     "x axis=none",    "shape", "Without axes of length 1.", build.squeeze)
F("concat",      "parts axis=0",   "shape", "Arrays joined along an axis: `concat((a, b))`.", build.concat_call)
F("stack",       "parts axis=0",   "shape", "Arrays joined along a new axis: `stack((a, b))`.", build.stack_call)
F("tile",        "x reps",         "shape", "The whole array repeated.", build.tile)
F("repeat",      "x n axis=none",  "shape", "Each element repeated `n` times.", build.repeat)
F("zeros",       "shape",          "shape", "Zeros.", lambda context, shape: full(0, shape, context.precision))
F("ones",        "shape",          "shape", "Ones.",  lambda context, shape: full(1, shape, context.precision))
F("full",        "shape value",    "shape", "One value everywhere.", build.full_call)
F("eye",         "n m=none",       "shape", "The identity matrix.", lambda context, n, m=None: eye(n, n if m is None else m, context.precision))
F("arange",      "start stop=none step=none", "shape", "`start, start + step, …` below `stop`; of one argument, from 0.", build.arange)
F("linspace",    "start stop n",   "shape", "`n` evenly spaced values, both ends included.", build.linspace)
F("zeros_like",  "x",              "shape", "Zeros of the shape of `x`.", build.like(0))
F("ones_like",   "x",              "shape", "Ones of the shape of `x`.", build.like(1))
F("tril",        "x k=0",          "shape", "The lower triangle, up to the `k`-th diagonal.", build.triangle_call(le))
F("triu",        "x k=0",          "shape", "The upper triangle, from the `k`-th diagonal.", build.triangle_call(ge))
F("diag",        "x k=0",          "shape", "A vector on the `k`-th diagonal of a matrix, or that diagonal of a matrix.", build.diag)
F("one_hot",     "i n",            "shape", "Rows with a 1 at the class, of `n` classes.", build.one_hot_call)
F("sort",        "x axis=-1",      "shape", "Sorted along an axis, nan last.", build.along_last(sort))
F("argsort",     "x axis=-1",      "shape", "The indices that sort an axis; ties keep their order.", build.along_last(argsort))
F("size",        "x axis=none",    "shape", "The number of elements, or the length of an axis.", build.size_call)
F("shape",       "x",              "shape", "The lengths of the axes, as a tuple.", build.shape_call)
F("dot",         "a b",            "linear algebra", "Product of vectors, matrices or scalars.", build.dot_call)
F("outer",       "a b",            "linear algebra", "`a[:, None] * b`.", build.outer)
F("mse",         "p y",            "loss", "Mean square difference.", lambda context, p, y: build.mean_all(sqr(build.floats(context, p)[0] - y)))
F("mae",         "p y",            "loss", "Mean absolute difference.", lambda context, p, y: build.mean_all(absolute(build.floats(context, p)[0] - y)))
F("huber",       "r delta=1",      "loss", "`r*r/2` near 0, linear beyond `delta`; element-wise.", build.huber)
F("bce",         "p y",            "loss", "Cross-entropy of a probability `p` against 0 or 1; element-wise.", build.bce)
F("bce_logits",  "z y",            "loss", "Cross-entropy of `sigmoid(z)` against 0 or 1; element-wise.", build.bce_logits)
F("xent",        "z classes",      "loss", "Cross-entropy of `softmax(z)` against integer classes; one value a row.", build.xent)
F("normal",      "shape=none",     "random", "Standard normal draws.", build.draw_call("normal"))
F("uniform",     "shape=none",     "random", "Uniform draws on [0, 1).", build.draw_call("uniform"))
F("bernoulli",   "p shape=none",   "random", "True with probability `p`.", build.bernoulli)
F("categorical", "p shape=none",   "random", "A class drawn with the probabilities along the last axis.", build.categorical)
F("permutation", "n",              "random", "The first `n` integers in random order.", build.permutation)
F("dropout",     "x p training=none", "random", "In training steps, `x / (1 - p)` or 0 with probability `p`; elsewhere `x`.", build.dropout)
F("stop_grad",   "x",              "derivative", "`x`, taken as a constant by derivatives.", build.stop)
F("grad",        "C x",            "derivative", "Gradient of a scalar with respect to a name.", lambda context, C, x: calculus.gradient(C, x))
F("hess",        "C x",            "derivative", "Hessian of a scalar with respect to a name.", lambda context, C, x: calculus.hessian(C, x))
F("jac",         "f x",            "derivative", "Jacobian with respect to a name.", lambda context, f, x: calculus.jac(f, x))
F("jvp",         "f x v",          "derivative", "Jacobian with respect to a name, times `v`.", lambda context, f, x, v: calculus.jvp(f, x, cast(v, f.dtype)))
F("vjp",         "f x v",          "derivative", "`v` times the Jacobian with respect to a name.", lambda context, f, x, v: calculus.vjp(f, x, cast(v, f.dtype)))
F("hvp",         "C x v",          "derivative", "Hessian of a scalar with respect to a name, times `v`.", lambda context, C, x, v: calculus.hvp(C, x, cast(v, C.dtype)))
F("standardize", "A like=none",    "data", "Columns less their mean, over their deviation (of `like` if given).", build.standardize_call)
F("csv",         "path missing=none separator=none", "data", "A table read from a CSV file with a header.", None)
F("npy",         "path",           "data", "An array read from a .npy file.", None)
F("npz",         "path",           "data", "The arrays of a .npz file, as columns of a table.", None)
F("parquet",     "path missing=none", "data", "A table read from a Parquet file.", None)
F("split",       "*parts test",    "data", "Training and test rows, shuffled by the seed: `split(A, y, test = 0.2)` gives A_train, A_test, y_train, y_test.", None)
F("codes",       "column",         "data", "A text column as integers, in sorted order.", None)
F("labels",      "column",         "data", "The sorted distinct texts of a column.", None)

FORMS = {
    "scan": ("scan(v = v0 for t in ts: expr)", "A loop over the rows of `ts` that carries `v` from `v0` on: its values after every step, stacked. "
             "Several: `scan((p, q) = (p0, q0) for (t, u) in (ts, us): (e1, e2))` gives a tuple."),
    "fold": ("fold(v = v0 for t in ts: expr)", "The same loop: its value after the last step."),
    "iterate": ("iterate(v = v0 while cond max 100: expr)", "A loop while a condition holds: its value where it does not. Reaching `max` turns is an error; "
                "no derivative goes through it."),
}
"""What is written like a call and is a form of its own: how it is written, and what it is."""

LATER = frozenset("""einsum cholesky solve solve_triangular cho_solve logdet det inv eigh svd qr trace normal_lpdf student_t_lpdf
bernoulli_logit_lpmf poisson_log_lpmf multi_normal_cholesky_lpdf gamma_lpdf beta_lpdf rk4""".split())
"""Functions of the language that this version does not have yet."""

