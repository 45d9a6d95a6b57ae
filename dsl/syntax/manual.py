"""What every word of the language means.

In: nothing.  Out: `MANUAL`, a page for each keyword: how it is written, what it does, and a script with what it prints (the tests run
each).  The built-in functions have their pages from `dsl/ops`.
"""
from __future__ import annotations

import re

from dsl.ops.examples import Example, example
from dsl.record import record


@record
class Page:
    """`words` are the keywords it is about, `forms` how they are written; `later`: read, and not run by this version."""

    words: tuple[str, ...]
    forms: tuple[str, ...]
    text: str
    example: Example
    see_also: tuple[str, ...] = ()
    later: bool = False


MANUAL: dict[str, Page] = {}
"""By keyword."""


INSIDE = {
    "after": "the patience of `stop`", "all": "every shared variable that the cost reaches", "and": "both", "as": "the name of an imported script",
    "batch": "how many rows a step takes", "best": "keeps the state whose cost was least", "drop_last": "without a shorter last batch",
    "else": "the value where the condition does not hold", "epochs": "passes over the data", "except": "variables that stay as they are",
    "for": "what goes over the rows, or what a rule is for", "higher": "of what becomes better by growing", "in": "whose rows a loop goes over",
    "lower": "of what becomes better by shrinking", "max": "the number of turns that is an error", "norm": "the joint norm of the gradients",
    "not": "the opposite", "of": "which groups of updates", "or": "one of them, or both", "over": "which data the inputs take",
    "report": "standard errors", "shuffle": "rows in a new order every epoch", "steps": "single steps", "then": "the value where the condition holds",
    "title": "the title of the plot", "to": "the file it is written to", "until": "a condition that ends it", "using": "which optimiser",
    "vjp": "a derivative of its own", "while": "as long as a condition holds", "with": "its inputs replaced", "without": "what has to get better",
    "wrt": "with respect to which names", "None": "a new axis of length 1",
}
"""What a word inside a statement adds, in a few words, for menus."""


def first_sentence(text: str) -> str:
    """For a menu: the text up to its first full stop."""
    return text.split(". ")[0].rstrip(".")


def page(words: str, forms: str, text: str, code: str, prints: str = "", see: str = "", later: bool = False) -> None:
    entry = Page(tuple(words.split()), tuple(re.split(r"\n(?! )", forms)), " ".join(text.split()), example(code, prints), tuple(see.split()), later)
    for word in entry.words:
        assert word not in MANUAL, word
        MANUAL[word] = entry


# ---------------------------------------------------------------- the head of a script
page("precision", "precision float32\nprecision float64",
     """The float of the whole script: float64 unless told. It stands above everything that has a dtype; data is converted once, when it
     is bound. The command line's `--precision` goes before it.""",
     "precision float32\nprint 1 / 3", "0.33333334", "float device")
page("seed", "seed 1",
     """Where all random draws start from: 0 unless told. A draw depends on the seed, on the name its statement binds and on the step, so
     the same script gives the same numbers on every device and with any number of threads.""",
     "seed 1\nprint uniform()", "0.40313928353349004", "normal shuffle permutation")
page("device", "device auto\ndevice cpu\ndevice cuda\ndevice numpy",
     """Where the script runs: `cpu` compiles for the processor, `cuda` for an NVIDIA GPU (an error where there is none), `numpy` is the
     reference. `auto`, the default, compiles what is worth it and takes a GPU that is there where that pays. Results do not depend on it
     but in the last digits of sums.""",
     "device cpu\nprint sum(arange(5))", "10", "precision")
page("import as", 'import "nets.lr" as nets',
     """Reads definitions (`def`, `optimizer`, `let`, `dim`) from another script, below a name: `nets.layer(x)`. The path is from this
     script's folder.""",
     'import "shapes.lr" as shapes\nprint shapes.area(2.0)', "12.566370614359172", "use def")
page("use", "use optim",
     """Takes the definitions of a library module without a prefix. `optim` holds the optimisers; after `using` they are known without it,
     too.""",
     "use optim\nshared w = 1.0\ncost C = sqr(w)\nminimize C wrt w using sgd(rate = 0.25)\ntrain 3 steps\nprint w", "0.125", "import using optimizer")

# ---------------------------------------------------------------- sizes, inputs, data, state
page("dim", "dim n, d\ndim k = 10\ndim d = size(A, 1)",
     """Declares a size, or fixes it. A name in the shape of an input declares one, too. In an expression a dim is an int64 scalar. Two
     different dims never match, and a dim never broadcasts, not even where its value is 1.""",
     "dim k = 3\nshared w[k] = 1.0\nprint k * sum(w)", "9.0", "matrix shared size")
page("scalar vector matrix tensor", "scalar x, y\nvector v[n]\nmatrix X[n, d]\ntensor T[n, h, w]\nint vector u[n]",
     """Declares inputs: what is given by `over` in `train`, by `with`, or by Python. The names in brackets are its sizes; without brackets
     they have no names. The dtype stands before, the script's float unless told. An array with one axis more than the input is taken row
     by row.""",
     "matrix X[n, d]\nvector w[d]\nlet y = X @ w\nprint y with X = [[1, 2], [3, 4]], w = [10, 1]", "[12. 34.]", "with over dim data")
page("bool int int64 int32 float float64 float32", "bool scalar flag\nint vector u[n]\nint64 scalar i\nint32 matrix K[n, d]\nfloat scalar x\nfloat64 scalar y\nfloat32 scalar z\nshared int k = 0",
     """The dtype of an input or a shared variable, before its kind. `int` is int64 and `float` the script's float. `float(x)`, `int(x)` and
     `bool(x)` convert.""",
     "int vector u[n]\nmatrix T[k, d]\nprint T[u] with T = [[1, 2], [3, 4]], u = [1, 1]", "[[3. 4.]\n [3. 4.]]", "scalar precision")
page("data", "data A = expr\ndata t = csv(\"file.csv\")\ndata A_train, A_test = split(A, test = 0.2)",
     """A value that is computed once, when the script is read; it may not read shared variables. Of a table, `t.age` is a column and
     `t[:, :8]` a matrix of columns. From Python, `data = {"A": array}` takes its place.""",
     'data t = csv("people.csv")\ndata old = t.age[t.age > 32]\nprint old', "[40 35]", "let csv split standardize")
page("shared", "shared w = 0.0, b = 0.0\nshared W[d, k] = 0.1 * normal()\nshared int n = 0",
     """State: what is trained. It starts from the value given, is changed by `update` and `minimize`, and keeps its value from one `train`
     to the next. In front of a shape, a single value fills it, and a draw takes it.""",
     "shared w = 1.0\nupdate w <- 2 * w\ntrain 3 steps\nprint w", "8.0", "update minimize grad")

# ---------------------------------------------------------------- the graph
page("let", "let z = expr\nlet p, q = (a, b)",
     """Names an expression. It is not computed here but wherever it is used, from the values of that moment.""",
     "scalar x\nlet y = x ** 2 + 1\nprint y with x = 3", "10.0", "model cost data")
page("model", "model Y_bar = expr",
     "A `let` that is the prediction.", "scalar X\nshared w = 2.0\nmodel Y_bar = w * X\nprint Y_bar with X = [1, 2]", "[2. 4.]", "let cost")
page("cost", "cost C = expr",
     """A scalar that training makes small. `train` reports it: over an epoch, the mean of its batches weighted by their rows. In `every`,
     `until` and `stop` it is the epoch's value.""",
     "scalar X, Y\nshared w = 0.0\ncost C = sqr(w * X - Y)\nminimize C wrt w using sgd(rate = 0.1)\ntrain 50 epochs over X = [1, 2], Y = [3, 6]\nprint w",
     "3.0", "metric minimize grad")
page("metric", "metric acc = expr",
     "A scalar that is watched beside the cost: in `every`, `until` and `stop` it is the epoch's value, that of `valid` where given.",
     "int vector y[n]\nmatrix Z[n, k]\nmetric acc = mean(argmax(Z, axis = 1) == y)\nprint acc with Z = [[1, 2], [3, 1]], y = [1, 1]", "0.5", "cost stop valid")
page("grad", "grad gw, gb = C wrt w, b",
     """The gradient of a scalar with respect to shared variables, inputs or `let` names: exact reverse mode, of any order. `show` prints it
     as a formula. In an expression: `grad(C, w)`.""",
     "shared w = 3.0\ncost C = w ** 2\ngrad g = C wrt w\nshow g\nprint g", "(2 * w)\n6.0", "hess jac wrt show")
page("hess", "hess H = C wrt w", "The matrix of second derivatives of a scalar with respect to a name.",
     "vector x[n]\nlet y = sum(x ** 3)\nhess H = y wrt x\nprint H with x = [1, 2]", "[[ 6.  0.]\n [ 0. 12.]]", "grad jac")
page("jac", "jac J = f wrt x", "The derivatives of every element of `f` with respect to every element of a name.",
     "vector x[n]\nlet y = sqr(x)\njac J = y wrt x\nprint J with x = [1, 2]", "[[2. 0.]\n [0. 4.]]", "grad hess")
page("wrt all except", "grad g = C wrt w\nminimize C wrt all using adam()\nminimize C wrt all except W1 using adam()",
     """With respect to what: shared variables, inputs or `let` names. `all` means every shared variable that the cost reaches, `except` leaves
     some of them as they are.""",
     "shared a = 1.0, b = 1.0\ncost C = sqr(a) + sqr(b)\nminimize C wrt all except b using sgd(rate = 0.5)\ntrain 1 steps\nprint a, b", "0.0 1.0", "grad minimize")

# ---------------------------------------------------------------- state change and training
page("update", "update w <- expr",
     """How a shared variable changes in a step of `train`. All right-hand sides of a step read the values from before it, whatever the
     order of the lines.""",
     "shared a = 1, b = 2\nupdate a <- b\nupdate b <- a\ntrain 1 steps\nprint a, b", "2.0 1.0", "minimize step train")
page("minimize using", "minimize C wrt all using adam(rate = 1e-3)",
     """Updates that make a cost smaller, by an optimiser: sgd, momentum, nesterov, rmsprop, adagrad, adam, adamw, or one that the script
     defines.""",
     "shared w = 5.0\ncost C = sqr(w - 2)\nminimize C wrt w using sgd(rate = 0.5)\ntrain 10 steps\nprint w", "2.0", "optimizer update train sgd adam")
page("step", "step critic:\n  update w <- expr",
     "A named group of updates. `train … of critic, actor` makes the groups in that order, each seeing what the one before has changed.",
     "shared a = 1.0, b = 0.0\nstep first:\n  update a <- a + 1\nstep second:\n  update b <- a\ntrain 1 steps of first, second\nprint a, b", "2.0 2.0", "of update train")
page("train epochs steps", "train 100 epochs over X = A, Y = B batch 32 shuffle\ntrain 1000 steps\ntrain 10 epochs over X = A:\n  every 10 epochs: print C",
     """Makes the updates above it, step after step. Data with one axis more than its input gives one sample a step, or `batch k` rows at a
     time. Interrupted, it leaves the state of the last whole step; a cost or variable that becomes nan stops it at that step and says
     where. Its clauses, in a block: every, valid, stop, a schedule (`rate = cosine(1e-2, 1e-4)`), clip, checkpoint, log.""",
     "scalar X, Y\nshared w = 0.0\ncost C = sqr(w * X - Y)\nminimize C wrt w using sgd(rate = 0.05)\ntrain 40 epochs over X = [1, 2, 3], Y = [2, 4, 6] batch 2\nprint w",
     "2.0", "over batch shuffle every valid stop until")
page("over", "train 10 epochs over X = A, Y = B",
     "Which data the inputs take in `train`. All names bind by one rule, and agree in their number of rows.",
     "vector X[d]\nshared m[d] = 0.0\nupdate m <- m + X\ntrain 1 epochs over X = [[1, 2], [3, 4]]\nprint m", "[4. 6.]", "train with batch")
page("batch drop_last", "train 10 epochs over X = A batch 32\ntrain 10 epochs over X = A batch 32 drop_last",
     """How many rows a step takes; costs, metrics and gradients are the means over them. A shorter last batch is kept unless `drop_last`.""",
     "scalar X\nshared n = 0, s = 0.0\ncost C = s * X\ngrad g = C wrt s\nupdate s <- s + g\nupdate n <- n + 1\ntrain 1 epochs over X = [1, 2, 3, 4, 5] batch 2\nprint n, s",
     "3.0 10.0", "train shuffle")
page("shuffle", "train 10 epochs over X = A batch 32 shuffle",
     "Takes the rows in a new order every epoch. The orders follow from the seed.",
     "scalar X\nshared s = 0.0\nupdate s <- 10 * s + X\ntrain 1 epochs over X = [1, 2, 3, 4] shuffle\nprint s", "1324.0", "batch seed")
page("of", "train 100 steps of critic, actor", "Which groups of updates a `train` makes, in this order.",
     "shared a = 0.0, b = 0.0\nstep one:\n  update a <- a + 1\nstep two:\n  update b <- b + a\ntrain 3 steps of one, two\nprint a, b", "3.0 6.0", "step train")
page("until", "train 1000 epochs over X = A until C < 0.01",
     "Ends a `train` as soon as a condition holds. It is tested after each epoch, or after each step in `train … steps`.",
     "shared w = 1.0\ncost C = w\nupdate w <- w / 2\ntrain 100 steps until C < 0.1\nprint w", "0.03125", "stop train")
page("every", "every 10 epochs: print C\nevery 500 steps: save W to \"W.csv\"",
     "A clause of `train`: commands that run every so many epochs or steps. A cost or metric is the epoch's value there.",
     "shared w = 1.0\ncost C = sqr(w)\nminimize C wrt w using sgd(rate = 0.25)\ntrain 4 steps:\n  every 2 steps: print w", "0.25\n0.0625", "train print")
page("valid", "valid X = A_valid, Y = B_valid",
     "A clause of `train`: the rows on which the costs and metrics of `every`, `until` and `stop` are computed instead.",
     "scalar X, Y\nshared w = 0.0\ncost C = abs(w * X - Y)\nupdate w <- w + 1\ntrain 2 epochs over X = [1], Y = [2]:\n"
     "  valid X = [10], Y = [30]\n  every 1 epochs: print C", "20.0\n10.0", "stop metric")
page("stop after without lower higher", "stop after 5 epochs without lower C\nstop after 5 epochs without higher acc",
     "A clause of `train`: ends it once a cost or metric has not become better for so many epochs or steps.",
     "shared w = 1.0\ncost C = sqr(w)\nminimize C wrt w using sgd(rate = 0.5)\nshared n = 0\nupdate n <- n + 1\ntrain 100 steps:\n  stop after 3 steps without lower C\nprint w, n",
     "0.0 5.0", "until valid metric")
page("clip norm", "clip norm 1",
     "A clause of `train`: holds the joint norm of the gradients of each `minimize` below a bound.",
     "shared w = 10.0\ncost C = sqr(w)\nminimize C wrt w using sgd(rate = 1)\ntrain 1 steps:\n  clip norm 1\nprint w", "9.0", "minimize norm")
page("checkpoint best", 'checkpoint "m.safetensors" every 10 epochs\ncheckpoint "m.safetensors" every 10 epochs best',
     """A clause of `train`: saves the whole state every so often, in one file that is replaced as a whole; `best` keeps the state whose cost
     on the rows of `valid` was least. `lr run --resume` goes on from it.""",
     'shared w = 1.0\ncost C = sqr(w)\nminimize C wrt w using sgd(rate = 0.25)\ntrain 4 steps:\n  checkpoint "m.safetensors" every 2 steps\nload "m.safetensors"\nprint w',
     "0.0625", "save load log")
page("log", 'log "run.jsonl"', "A clause of `train`: writes costs and metrics to a file, one JSON object an epoch.",
     'shared w = 1.0\ncost C = sqr(w)\nminimize C wrt w using sgd(rate = 0.25)\ntrain 3 steps:\n  log "run.jsonl"\nprint w', "0.125", "every checkpoint")
page("fit report", "fit C wrt w, b using lbfgs(tol = 1e-8)\nfit C wrt all using lbfgs() over X = A, Y = B report se",
     "Finds the variables that make a cost least, by a method for small problems: lbfgs, newton, gauss_newton.",
     "shared w = 0.0\ncost C = sqr(w - 2)\nfit C wrt w using lbfgs()\nprint w", "2.0", "minimize", later=True)

# ---------------------------------------------------------------- definitions
page("def return", "def f(x, y = 1) = expr\ndef f(x):\n  let y = expr\n  return expr",
     """A function. It is written out at each call, so its parameters take arrays of any shape; names of the script above it are visible
     inside.""",
     "def area(r, h = 1):\n  let base = pi * sqr(r)\n  return base * h\nprint area(1.0), area(1.0, h = 2)", "3.141592653589793 6.283185307179586", "let import")
page("vjp", "def f(x) = e with vjp(g) = e2",
     "A function with a derivative of its own: `g` is what comes back, and `e2` what goes on to `x`.",
     "def f(x) = floor(x) with vjp(g) = g\nscalar x\nlet y = f(x)\nprint grad(y, x) with x = 1.5", "1.0", "def grad", later=True)
page("optimizer slot", "optimizer mine(rate = 0.1) for p, g, t:\n  slot v = zeros_like(p)\n  let v1 = 0.9 * v + g\n  update v <- v1\n  update p <- p - rate * v1",
     """A rule for one variable: `p` stands for it, `g` for its gradient, `t` for the number of the step, from 1. A `slot` is state that the
     rule keeps for each variable.""",
     "optimizer signs(rate = 0.5) for p, g, t:\n  update p <- p - rate * sign(g)\nshared w = 2.0\ncost C = sqr(w)\nminimize C wrt w using signs()\ntrain 3 steps\nprint w",
     "0.5", "minimize update use")

# ---------------------------------------------------------------- commands and checks
page("print", "print e, f\nprint e with X = A",
     """Prints values, with one space between. What stands after `#>` on the line is compared by `lr test`, to half a unit of the last digit
     shown.""",
     "let a = [1, 2]\nprint a, sum(a)  #> [1 2] 3", "[1 2] 3", "show with assert")
page("show", "show e", "Prints formulas: what a name stands for, a gradient written out.",
     "scalar X\nshared w = 1.0\nmodel Y = w * X\nshow Y", "(w * X)", "print grad")
page("with", "print C with X = A, Y = B\nlet test_cost = (C with X = A, Y = B)",
     """The expression with its inputs replaced. An array with one axis more than the input is taken row by row. It takes every `name = value`
     after it, so among the arguments of a call it stands in parentheses.""",
     "scalar x\nlet y = x ** 2\nprint y with x = [1, 2, 3]", "[1. 4. 9.]", "scalar over print")
page("plot title to", 'plot scatter(x, y), line(x, z) title "fit" to "fit.png"\nplot hist(x, bins = 20)\nplot heatmap(A)',
     "Draws one picture of several layers: into a file, or in the terminal without `to`.",
     'let x = linspace(0, 1, 5)\nplot line(x, sqr(x)) title "a parabola" to "parabola.png"\nprint mean(sqr(x))', "0.375", "print save")
page("save", 'save "m.safetensors"\nsave Y_bar with X = A to "pred.csv"',
     """Writes a file below `--out`, else in the working directory. With a name: a value, as CSV or .npy. With a path alone: the whole state,
     that is shared variables, the optimisers' slots, the seed and the step.""",
     'shared w = 2.0\nsave w to "w.csv"\nprint w', "2.0", "load checkpoint")
page("load", 'load "m.safetensors"', "Takes shared variables, optimisers' slots and the step from a file that `save` or `checkpoint` has written.",
     'shared w = 1.0\nsave "m.safetensors"\nupdate w <- w + 1\ntrain 3 steps\nprint w\nload "m.safetensors"\nprint w', "4.0\n1.0", "save checkpoint")
page("assert", 'assert e, "why"', "Stops with an error, the reason given, unless a condition holds for every element.",
     'let x = [1, 2]\nassert x > 0, "all are positive"\nprint "fine"', "fine", "test print")
page("test", 'test "name":\n  assert e, "why"', "Checks that `lr test` runs, and `lr run` leaves out.",
     'let a = 2\ntest "doubled":\n  assert 2 * a == 4, "twice"\nprint a', "2.0", "assert print")
page("gradcheck", "gradcheck C wrt w", "Compares a gradient with differences of the cost.",
     "shared w = 1.0\ncost C = sqr(w)\ngradcheck C wrt w", "", "grad", later=True)

# ---------------------------------------------------------------- words in expressions
page("if then else", "if c then a else b",
     """A choice, element by element. The branch not taken can make no nan, no infinity and no error, in the value or in a derivative; of a
     single value, only the branch taken is computed.""",
     "let x = [4.0, -1.0]\nprint if x > 0 then sqrt(x) else 0", "[2. 0.]", "where")
page("and or not", "a and b\na or b\nnot a", "Logic, element by element.",
     "let x = [1, 2, 3]\nprint x > 1 and not x == 3", "[false  true false]", "if any all")
page("true false", "true\nfalse", "The two truth values. In arithmetic they count as 1 and 0.", "print true, sum([true, false, true])", "true 2", "bool")
page("for in", "scan(v = v0 for t in ts: expr)\nfold(v = v0 for t in ts: expr)\noptimizer mine(rate = 0.1) for p, g, t:\n  update p <- p - rate * g",
     """In a loop, what goes over the rows of an array: `scan` gives all states, `fold` the last one. In `optimizer`, what the rule is for.""",
     "print fold(v = 1 for t in [2, 3, 4]: v * t)", "24", "scan fold optimizer")
page("while max", "iterate(v = v0 while cond max 100: expr)",
     "In `iterate`, the condition as long as which it goes on, and the number of turns that is an error.",
     "print iterate(x = 1.0 while abs(x * x - 2) > 1e-12 max 50: (x + 2 / x) / 2)", "1.414213562373095", "iterate")
page("None", "x[:, None]", "In an index, a new axis of length 1.", "let x = [1, 2]\nprint x[:, None] * x", "[[1 2]\n [2 4]]", "expand_dims")
