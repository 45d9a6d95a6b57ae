"""One example for each built-in function, and what else its manual page says.

In: nothing.  Out: `EXAMPLES`, scripts with what they print (the tests run each); `PARAMETERS`, what a parameter of a name means;
`FAMILIES`, functions to read about together.
"""
from __future__ import annotations

from dsl.record import record


@record
class Example:
    """A whole script and what it prints; `files` of `example_files` are beside it."""

    code: str
    prints: str
    files: tuple[str, ...] = ()


EXAMPLES: dict[str, Example] = {}
"""By function."""


def example_files() -> dict[str, bytes]:
    """The files that examples read."""
    from io import BytesIO

    import numpy as np
    array, arrays = BytesIO(), BytesIO()
    np.save(array, np.array([1.0, 2.0, 3.0]))
    np.savez(arrays, a=np.array([1.0, 2.0]), b=np.array([3, 4]))
    files = {"shapes.lr": b"def area(r) = pi * sqr(r)\n", "people.csv": b"age,city\n30,Paris\n40,Lima\n35,Paris\n", "a.npy": array.getvalue(), "arrays.npz": arrays.getvalue()}
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        return files
    table = BytesIO()
    parquet.write_table(pyarrow.table({"age": [30, 40, 35]}), table)
    return {**files, "people.parquet": table.getvalue()}


FILES = ("people.csv", "shapes.lr", "a.npy", "arrays.npz", "people.parquet")


def example(code: str, prints: str) -> Example:
    return Example(code, prints, tuple(name for name in FILES if f'"{name}"' in code))


def E(name: str, code: str, prints: str) -> None:
    assert name not in EXAMPLES, name
    EXAMPLES[name] = example(code, prints)


E("where",       "let x = [4.0, -1.0]\nprint where(x > 0, sqrt(x), 0)",                   "[2. 0.]")
E("isnan",       "print isnan([1.0, nan])",                                               "[false  true]")
E("isfinite",    "print isfinite([1.0, inf, nan])",                                       "[ true false false]")
E("exp",         "print exp([0.0, 1.0])",                                                 "[1.         2.71828183]")
E("expm1",       "print expm1(1e-12)",                                                    "1.0000000000005e-12")
E("log",         "print log([1.0, 10.0])",                                                "[0.         2.30258509]")
E("log1p",       "print log1p(1e-12)",                                                    "9.999999999995e-13")
E("logaddexp",   "print logaddexp(1000.0, 1000.0)",                                       "1000.6931471805599")
E("xlogy",       "print xlogy([0.0, 2.0], [0.0, 3.0])",                                   "[0.         2.19722458]")
E("sqrt",        "print sqrt([4.0, 2.0])",                                                "[2.         1.41421356]")
E("cbrt",        "print cbrt([-8.0, 27.0])",                                              "[-2.  3.]")
E("sqr",         "print sqr([-3, 2])",                                                    "[9 4]")
E("abs",         "print abs([-3, 2])",                                                    "[3 2]")
E("sign",        "print sign([-2.5, 0.0, 3.0])",                                          "[-1.  0.  1.]")
E("hypot",       "print hypot(3.0, 4.0)",                                                 "5.0")
E("floor",       "print floor([-1.5, 1.5])",                                              "[-2.  1.]")
E("ceil",        "print ceil([-1.5, 1.5])",                                               "[-1.  2.]")
E("round",       "print round([0.5, 1.5, 2.6])",                                          "[0. 2. 3.]")
E("sin",         "print sin([0.0, pi / 2])",                                              "[0. 1.]")
E("cos",         "print cos([0.0, pi / 3])",                                              "[1.  0.5]")
E("tan",         "print tan([0.0, pi / 4])",                                              "[0. 1.]")
E("asin",        "print asin([0.0, 1.0])",                                                "[0.         1.57079633]")
E("acos",        "print acos([1.0, 0.0])",                                                "[0.         1.57079633]")
E("atan",        "print atan([0.0, 1.0])",                                                "[0.         0.78539816]")
E("atan2",       "print atan2(1.0, -1.0)",                                                "2.356194490192345")
E("sinh",        "print sinh(1.0)",                                                       "1.1752011936438014")
E("cosh",        "print cosh(1.0)",                                                       "1.5430806348152437")
E("tanh",        "print tanh([-1.0, 0.0, 1.0])",                                          "[-0.76159416  0.          0.76159416]")
E("sigmoid",     "print sigmoid([-2.0, 0.0, 2.0])",                                       "[0.11920292 0.5        0.88079708]")
E("erf",         "print erf([0.0, 0.5, 1.0])",                                            "[0.         0.52049988 0.84270079]")
E("erfc",        "print erfc([0.0, 10.0])",                                               "[1.00000000e+00 2.08848758e-45]")
E("lgamma",      "print lgamma([1.0, 5.0])",                                              "[0.         3.17805383]")
E("digamma",     "print digamma(1.0)",                                                    "-0.5772156649015329")
E("maximum",     "print maximum([-1.0, 2.0], 0)",                                         "[0. 2.]")
E("minimum",     "print minimum([-1.0, 2.0], [0.0, 1.0])",                                "[-1.  1.]")
E("clip",        "print clip([-2.0, 0.3, 7.0], 0, 1)",                                    "[0.  0.3 1. ]")
E("relu",        "print relu([-1.0, 0.0, 2.0])",                                          "[0. 0. 2.]")
E("leaky_relu",  "print leaky_relu([-1.0, 2.0])",                                         "[-0.01  2.  ]")
E("softplus",    "print softplus([-1.0, 0.0, 1000.0])",                                   "[3.13261688e-01 6.93147181e-01 1.00000000e+03]")
E("gelu",        "print gelu([-1.0, 0.0, 1.0])",                                          "[-0.15865525  0.          0.84134475]")
E("softsign",    "print softsign([-1.0, 0.0, 3.0])",                                      "[-0.5   0.    0.75]")
E("silu",        "print silu([-1.0, 0.0, 1.0])",                                          "[-0.26894142  0.          0.73105858]")
E("logit",       "print logit([0.5, 0.9])",                                               "[0.         2.19722458]")
E("sum",         "let A = [[1, 2], [3, 4]]\nprint sum(A), sum(A, axis = 0)",              "10 [4 6]")
E("mean",        "let A = [[1, 2], [3, 4]]\nprint mean(A), mean(A, axis = 1)",            "2.5 [1.5 3.5]")
E("max",         "let A = [[1, 5], [3, 4]]\nprint max(A), max(A, axis = 0)",              "5 [3 5]")
E("min",         "print min([3, 1, 2])",                                                  "1")
E("var",         "print var([1.0, 2.0, 6.0])",                                            "4.666666666666667")
E("std",         "print std([1.0, 2.0, 6.0]), std([1.0, 2.0, 6.0], ddof = 1)",            "2.160246899469287 2.6457513110645907")
E("norm",        "print norm([3.0, 4.0])",                                                "5.0")
E("logsumexp",   "print logsumexp([1000.0, 1000.0])",                                     "1000.6931471805599")
E("any",         "print any([false, true])",                                              "true")
E("all",         "print all([1, 2] > 0)",                                                 "true")
E("argmax",      "let P = [[0.1, 0.9], [0.8, 0.2]]\nprint argmax(P, axis = 1)",           "[1 0]")
E("argmin",      "print argmin([3, 1, 2])",                                               "1")
E("softmax",     "print softmax([1.0, 2.0, 3.0])",                                        "[0.09003057 0.24472847 0.66524096]")
E("log_softmax", "print log_softmax([1.0, 2.0, 3.0])",                                    "[-2.40760596 -1.40760596 -0.40760596]")
E("prod",        "print prod([1.0, 2.0, 3.0])",                                           "6.0")
E("cumsum",      "print cumsum([1, 2, 3])",                                               "[1 3 6]")
E("cumprod",     "print cumprod([1, 2, 3])",                                              "[1 2 6]")
E("float",       "print float(3) / 2, float([true, false])",                              "1.5 [1. 0.]")
E("int",         "print int([1.9, -1.9])",                                                "[ 1 -1]")
E("bool",        "print bool([0, 2])",                                                    "[false  true]")
E("reshape",     "print reshape(arange(6), (2, -1))",                                     "[[0 1 2]\n [3 4 5]]")
E("transpose",   "print transpose([[1, 2, 3], [4, 5, 6]])",                               "[[1 4]\n [2 5]\n [3 6]]")
E("expand_dims", "print shape(expand_dims([1, 2, 3], 0))",                                "(1, 3)")
E("squeeze",     "print squeeze([[1, 2, 3]])",                                            "[1 2 3]")
E("concat",      "print concat(([1, 2], [3]))",                                           "[1 2 3]")
E("stack",       "print stack(([1, 2], [3, 4]), axis = 1)",                               "[[1 3]\n [2 4]]")
E("tile",        "print tile([1, 2], 3)",                                                 "[1 2 1 2 1 2]")
E("repeat",      "print repeat([1, 2], 3)",                                               "[1 1 1 2 2 2]")
E("zeros",       "print zeros(3)",                                                        "[0. 0. 0.]")
E("ones",        "print ones((2, 2))",                                                    "[[1. 1.]\n [1. 1.]]")
E("full",        "print full(3, 0.5)",                                                    "[0.5 0.5 0.5]")
E("eye",         "print eye(2)",                                                          "[[1. 0.]\n [0. 1.]]")
E("arange",      "print arange(5), arange(1, 2, 0.25)",                                   "[0 1 2 3 4] [1.   1.25 1.5  1.75]")
E("linspace",    "print linspace(0, 1, 5)",                                               "[0.   0.25 0.5  0.75 1.  ]")
E("zeros_like",  "print zeros_like([1.0, 2.0])",                                          "[0. 0.]")
E("ones_like",   "print ones_like([1.0, 2.0])",                                           "[1. 1.]")
E("tril",        "print tril([[1, 2], [3, 4]])",                                          "[[1 0]\n [3 4]]")
E("triu",        "print triu([[1, 2], [3, 4]])",                                          "[[1 2]\n [0 4]]")
E("diag",        "print diag([1, 2]), diag([[1, 2], [3, 4]])",                            "[[1 0]\n [0 2]] [1 4]")
E("one_hot",     "print one_hot([0, 2], 3)",                                              "[[1. 0. 0.]\n [0. 0. 1.]]")
E("sort",        "print sort([3, 1, 2])",                                                 "[1 2 3]")
E("argsort",     "print argsort([3, 1, 2])",                                              "[1 2 0]")
E("size",        "let A = zeros((2, 3))\nprint size(A), size(A, 1)",                      "6 3")
E("shape",       "print shape(zeros((2, 3)))",                                            "(2, 3)")
E("dot",         "print dot([1, 2], [3, 4])",                                             "11")
E("outer",       "print outer([1, 2], [3, 4])",                                           "[[3 4]\n [6 8]]")
E("mse",         "print mse([1.0, 2.0], [1.0, 4.0])",                                     "2.0")
E("mae",         "print mae([1.0, 2.0], [1.0, 4.0])",                                     "1.0")
E("huber",       "print huber([0.5, -3.0])",                                              "[0.125 2.5  ]")
E("bce",         "print bce(0.9, 1)",                                                     "0.10536051565782628")
E("bce_logits",  "print bce_logits(1000.0, 0)",                                           "1000.0")
E("xent",        "print xent([[2.0, 0.0, 1.0]], [0])",                                    "[0.40760596]")
E("normal",      "seed 1\nprint normal(3)",                                               "[-0.26545348  1.36184178 -0.11155592]")
E("uniform",     "seed 1\nprint uniform(3)",                                              "[0.52937392 0.11283775 0.45134352]")
E("bernoulli",   "seed 1\nprint bernoulli(0.5, 4)",                                       "[false  true false false]")
E("categorical", "seed 1\nprint categorical([0.2, 0.8], 4)",                              "[1 0 1 1]")
E("permutation", "seed 1\nprint permutation(5)",                                          "[1 3 0 2 4]")
E("dropout",     "seed 1\nprint dropout(ones(4), 0.5, training = true)",                  "[0. 2. 0. 2.]")
E("stop_grad",   "scalar x\nlet y = x * stop_grad(x)\nprint grad(y, x) with x = 3",       "3.0")
E("grad",        "scalar x\nlet y = x ** 3\nprint grad(y, x) with x = 2",                 "12.0")
E("hess",        "vector x[n]\nlet y = sum(x ** 3)\nprint hess(y, x) with x = [1, 2]",    "[[ 6.  0.]\n [ 0. 12.]]")
E("jac",         "vector x[n]\nlet y = sqr(x)\nprint jac(y, x) with x = [1, 2]",          "[[2. 0.]\n [0. 4.]]")
E("jvp",         "vector x[n]\nlet y = sqr(x)\nprint jvp(y, x, [1, 1]) with x = [1, 2]",  "[2. 4.]")
E("vjp",         "vector x[n]\nlet y = sqr(x)\nprint vjp(y, x, [1, 0]) with x = [1, 2]",  "[2. 0.]")
E("hvp",         "vector x[n]\nlet y = sum(x ** 3)\nprint hvp(y, x, [1, 0]) with x = [1, 2]", "[6. 0.]")
E("standardize", "data A = [[1.0, 10.0], [3.0, 30.0]]\nprint standardize(A)",             "[[-1. -1.]\n [ 1.  1.]]")
E("csv",         "data t = csv(\"people.csv\")\nprint t\nprint mean(t.age)",              "table people.csv: 3 rows, columns age, city\n35.0")
E("npy",         "data a = npy(\"a.npy\")\nprint a",                                      "[1. 2. 3.]")
E("npz",         "data t = npz(\"arrays.npz\")\nprint t.a",                               "[1. 2.]")
E("parquet",     "data t = parquet(\"people.parquet\")\nprint mean(t.age)",               "35.0")
E("split",       "data A_train, A_test = split(arange(5), test = 0.4)\nprint A_train, A_test", "[2 3 4] [0 1]")
E("codes",       "data t = csv(\"people.csv\")\ndata c = codes(t.city)\nprint c",         "[1 0 1]")
E("labels",      "data t = csv(\"people.csv\")\ndata names = labels(t.city)\nprint names", "[Lima Paris]")
E("scan",        "print scan(v = 0 for t in [1, 2, 3]: v + t)",                           "[1 3 6]")
E("fold",        "print fold(v = 0 for t in [1, 2, 3]: v + t)",                           "6")
E("iterate",     "print iterate(v = 1.0 while v < 100 max 20: v * 2)",                    "128.0")

PARAMETERS = {
    "axis": "the axis that is worked along, from 0, or from the end: -1 is the last",
    "axes": "the new order of the axes, as a tuple; reversed unless told",
    "keepdims": "true leaves axes of length 1 where axes are reduced",
    "ddof": "what is taken off the number of elements it is divided by: 1 for a sample",
    "shape": "a tuple of lengths, or one length; sizes of the script may stand in it",
    "k": "the diagonal: 0 the main one, 1 the one above, -1 the one below",
    "reps": "how many times, for each axis or for the last",
    "missing": "what an empty cell becomes: `nan`, or `drop` for its whole row; unless told, it is an error",
    "separator": "between the cells of a row: `\",\"`, `\";\"`, … ; found in the header unless told",
    "like": "whose mean and deviation are used (those of the training rows)",
    "test": "the share of rows for the test, from 0 to 1, rounded up",
    "training": "true or false; unless told, true in the steps of `train`",
    "delta": "where the square turns into the line",
    "classes": "integers from 0, one a row",
    "path": "a file, from the script's folder",
    "parts": "arrays, as a tuple; of one length for `split`",
    "p": "a probability, from 0 to 1",
    "step": "from one value to the next: 1 unless told",
    "low": "the least value", "high": "the greatest value",
    "condition": "true or false for each element",
}
"""What a parameter means, where its name alone does not say it."""
OWN_PARAMETERS = {
    ("softmax", "axis"): "the axis whose values add up to 1", ("log_softmax", "axis"): "the axis whose probabilities add up to 1",
    ("cumsum", "axis"): "the axis it runs along; unless told, over all elements in order",
    ("cumprod", "axis"): "the axis it runs along; unless told, over all elements in order",
    ("size", "axis"): "the axis whose length is meant", ("repeat", "axis"): "the axis along which; unless told, all elements in order",
    ("squeeze", "axis"): "which axes of length 1 to drop; all unless told", ("concat", "axis"): "the axis along which they are joined",
    ("stack", "axis"): "where the new axis stands", ("expand_dims", "axis"): "where the new axis stands",
    ("normal", "shape"): "a tuple of lengths or one; unless told, the declared shape in `shared W[n, k] = …`, else one number",
    ("uniform", "shape"): "a tuple of lengths or one; unless told, the declared shape in `shared W[n, k] = …`, else one number",
    ("bernoulli", "shape"): "unless told, that of `p`", ("categorical", "shape"): "how many draws; unless told, one for each row of `p`",
    ("categorical", "p"): "probabilities along the last axis", ("dropout", "p"): "the share of elements that become 0",
    ("bce", "p"): "a probability", ("mse", "p"): "the prediction", ("mae", "p"): "the prediction", ("logit", "p"): "a probability",
    ("standardize", "A"): "a matrix: one row a sample",
}
"""The same, of one function."""

FAMILIES = tuple(map(str.split, """
exp expm1 log log1p logaddexp logsumexp
sqrt cbrt sqr hypot norm
abs sign relu
sin cos tan asin acos atan atan2
sinh cosh tanh sigmoid
sigmoid logit softplus bce_logits
erf erfc gelu
lgamma digamma
maximum minimum clip max min
where isnan isfinite
relu leaky_relu gelu silu softplus softsign
floor ceil round int
float int bool
sum mean prod cumsum cumprod
mean var std standardize
min max argmin argmax sort argsort
any all where
softmax log_softmax logsumexp xent
reshape transpose expand_dims squeeze
concat stack tile repeat
zeros ones full eye zeros_like ones_like
arange linspace
tril triu diag
one_hot argmax xent
size shape
dot outer
mse mae huber
bce bce_logits xent
normal uniform bernoulli categorical permutation dropout
grad hess jac jvp vjp hvp stop_grad
csv npy npz parquet
split standardize codes labels
scan fold iterate
xlogy log bce
""".strip().split("\n")))
"""Functions that are looked up together."""


def see_also(name: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(other for family in FAMILIES if name in family for other in family if other != name))
