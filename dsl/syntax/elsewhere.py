"""What other languages and libraries call things: in comes a name that is not bound here, out goes what to write instead.

Operators and first words of statements that people bring along are in `messages.py`, with the places they are met at.
"""
from __future__ import annotations

PREFIXES = ("np", "numpy", "T", "tt", "theano", "torch", "jnp", "tf", "math", "pt", "pm", "nn", "F")

NAMES = {
    "None": "there is no `None` but in an index, `x[:, None]`; leave the argument out",
    "True": "write `true`", "False": "write `false`", "self": "there are no objects",
    "π": "write `pi`", "e": "write `exp(1)`", "Infinity": "write `inf`",
    **{p: f"functions stand without a prefix: `exp(x)`, not `{p}.exp(x)`" for p in PREFIXES},
}

# Functions, by what is written here. `a` and `b` are whatever the caller has.
_SPELLINGS: tuple[tuple[str, str], ...] = (
    ("`size(x, 0)`, or `shape(x)` for all lengths", "len length numel ndim nrow ncol rows cols"),
    ("`arange(n)`", "range seq iota"),
    ("brackets: `[1, 2, 3]`", "array asarray tensor matrix vector list Tensor as_tensor c"),
    ("`log(x)`", "ln"),
    ("`log(x) / log(2)`", "log2"),
    ("`log(x) / log(10)`", "log10"),
    ("`x ** y`", "pow power"),
    ("`a @ b`", "matmul mm bmm mv dot_product tensordot"),
    ("`a * b`", "multiply mul elemwise"),
    ("`a / b`", "divide div true_divide"),
    ("`a + b`", "add"),
    ("`a - b`", "subtract sub"),
    ("`a % b`", "mod fmod remainder"),
    ("`-x`", "negative neg"),
    ("`sqr(x)`", "square"),
    ("`abs(x)`", "absolute fabs"),
    ("`asin(x)`", "arcsin"), ("`acos(x)`", "arccos"), ("`atan(x)`", "arctan"), ("`atan2(y, x)`", "arctan2"),
    ("`where(condition, a, b)`, or `if condition then a else b`", "ifelse cond select switch iff"),
    ("`maximum(a, b)`", "fmax"), ("`minimum(a, b)`", "fmin"),
    ("`clip(x, low, high)`", "clamp"),
    ("`sigmoid(x)`", "expit logistic"),
    ("`uniform(n)`", "rand random runif"),
    ("`normal(n)`", "randn rnorm gauss standard_normal"),
    ("`int(floor(k * uniform(n)))`", "randint integers"),
    ("`permutation(n)`", "randperm"),
    ("`concat((a, b))`", "concatenate cat append hstack c_ join"),
    ("`concat((a, b), axis = 0)`", "vstack rbind"),
    ("`stack((a, b), axis = 1)`", "column_stack cbind"),
    ("`reshape(x, shape)`", "view flatten ravel"),
    ("`expand_dims(x, axis)`, or `x[:, None]`", "unsqueeze newaxis dimshuffle"),
    ("`transpose(x)`, or `x.T`", "permute swapaxes t"),
    ("`eye(n)`", "identity"),
    ("`x[::-1]`", "flip reverse reversed flipud"),
    ("`sort(x)`", "sorted"),
    ("`U[rows]`", "take gather index_select embedding"),
    ("`float(x)` or `int(x)`", "astype cast double long"),
    ("`xent(scores, classes)`", "cross_entropy crossentropy CrossEntropyLoss categorical_crossentropy "
                                "sparse_categorical_crossentropy nll_loss"),
    ("`bce(p, y)`, or `bce_logits(scores, y)`", "binary_cross_entropy binary_crossentropy BCELoss "
                                                "binary_cross_entropy_with_logits"),
    ("`mse(prediction, y)`", "mse_loss MSELoss mean_squared_error"),
    ("`mae(prediction, y)`", "l1_loss L1Loss mean_absolute_error"),
    ("`grad(C, w)`", "gradient backward autograd value_and_grad derivative diff"),
    ("`hess(C, w)`", "hessian"),
    ("`jac(f, x)`", "jacobian jacfwd jacrev jacobi"),
    ("`stop_grad(x)`", "detach stop_gradient disconnected_grad"),
    ("`data t = csv(\"f.csv\")`", "read_csv loadtxt genfromtxt open read"),
    ("`data t = parquet(\"f.parquet\")`", "read_parquet"),
    ("`(y with x = xs)`: data of one rank more maps an expression over its rows", "vmap map apply vectorize"),
    ("`fold(v = v0 for t in ts: expr)`", "reduce foldl"),
    ("`iterate(v = v0 while condition max 100: expr)`", "while_loop fixed_point"),
    ("`scan(v = v0 for t in ts: expr)`", "cumulative accumulate fori_loop"),
)
FUNCTIONS = {name: instead for instead, names in _SPELLINGS for name in names.split()}

_WITHOUT: dict[str, str] = {
    **dict.fromkeys(("jit", "compile", "function"), "nothing needs to be compiled by hand: write the expression itself"),
    **dict.fromkeys(("str", "format", "sprintf", "printf"), "values stand beside texts: `print \"x =\", x`"),
    **dict.fromkeys(("median", "quantile", "percentile"), "there is none; `sort(x)` orders a vector, and an index takes its element"),
}


def function_elsewhere(name: str) -> str | None:
    """What a function of another language is here."""
    instead = FUNCTIONS.get(name)
    return f"here it is {instead}" if instead else _WITHOUT.get(name)
