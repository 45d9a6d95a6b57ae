"""Every error code: what it means, a script that has it, and the script put right.

In: nothing.  Out: `ENTRIES`, and `explain(code)`, which `lr explain` prints.  Examples are whole scripts, with the files
they read; the tests run each and its fix.  Where no script alone can show an error, the example is Python, or is left out.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from textwrap import fill, indent
from typing import Literal


@dataclass(frozen=True)
class Entry:
    """`example` fails with `code` and `fix` does not; `files` are beside them, `kind` says what they are written in."""

    code: str
    title: str
    text: str
    example: str = ""
    fix: str = ""
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    kind: Literal["script", "python", "none"] = "script"


ENTRIES: dict[str, Entry] = {}
HEADER = b'{"w":{"dtype":"F64","shape":[],"data_offsets":[0,8]}}'
ONE_SCALAR = len(HEADER).to_bytes(8, "little") + HEADER + b"\x00\x00\x00\x00\x00\x00\xf0\x3f"
"""A file of safetensors: `w`, which is 1.0."""


WIDTH = 79


def explain(code: str) -> str:
    """What a code means, with an example and its fix.  Raises KeyError for a code there is not."""
    entry = ENTRIES[code.upper()]
    parts = [f"{entry.code}: {entry.title}", fill(entry.text, WIDTH, break_long_words=False, break_on_hyphens=False)]
    for name, content in entry.files.items():
        if isinstance(content, str):
            parts.append(f"With the file {name}:\n\n{indent(content.rstrip(), '    ')}")
    if entry.kind != "none":
        parts.append(f"Wrong:\n\n{indent(entry.example, '    ')}")
        parts.append(f"Right:\n\n{indent(entry.fix, '    ')}")
    return "\n\n".join(parts) + "\n"


def as_dict(entry: Entry) -> dict[str, object]:
    """An entry as `lr explain --json` writes it; what is no text of a file is left out."""
    files = {name: content for name, content in entry.files.items() if isinstance(content, str)}
    return {"code": entry.code, "title": entry.title, "text": entry.text, "kind": entry.kind, "example": entry.example or None,
            "fix": entry.fix or None, "files": files}


def _entry(code: str, title: str, text: str, example: str = "", fix: str = "",
           files: Mapping[str, str | bytes] | None = None, kind: Literal["script", "python", "none"] = "script") -> None:
    assert code not in ENTRIES, code
    ENTRIES[code] = Entry(code, title, " ".join(text.split()), example.strip("\n"), fix.strip("\n"), files or {},
                          kind if example else "none")


# ---------------------------------------------------------------- form
_entry("E0101", "a bracket is never closed",
       """Every `(`, `[` and `{` needs its partner. Inside brackets a statement goes on over line ends, so the place shown
       is where the bracket was opened.""",
       "let y = (1 + 2", "let y = (1 + 2)")
_entry("E0102", "a bracket that closes nothing, or the wrong one",
       """A closing bracket stands without its partner, or another kind of bracket is open. A `;` cannot stand inside
       brackets either: it ends a statement.""",
       "let v = [1, 2, 3)", "let v = [1, 2, 3]")
_entry("E0103", "a statement begins in a wrong place",
       """Every line begins with a keyword in the same column as the lines around it. A deeper line goes on with the
       statement above, and an expression by itself does nothing in a script.""",
       "let a = 2\na + 1", "let a = 2\nprint a + 1")
_entry("E0104", "a tab in the indentation",
       "Lines are indented with spaces, so that a block looks the same in every editor.",
       "def f(x):\n\treturn x * 2\nprint f(1)", "def f(x):\n  return x * 2\nprint f(1)")
_entry("E0105", "a block is missing",
       """A line that ends in `:` opens a block: the lines below, indented deeper, or one statement after the colon. Blocks
       belong to `train`, `every`, `step`, `test`, `def` and `optimizer`.""",
       "def f(x):\nprint 1", "def f(x):\n  return x * 2\nprint 1")
_entry("E0106", "a line is indented like no block above it",
       "The lines of a block begin in one column; a line that leaves it begins in the column of a block outside.",
       "def f(x):\n    let y = x * 2\n  return y", "def f(x):\n    let y = x * 2\n    return y")
_entry("E0107", "nested too deep",
       """Brackets and operators are nested deeper than is read. Name parts of the expression with `let`; that is also
       easier to read.""",
       """import dsl\ndsl.compile("let a = " + "(" * 300 + "1" + ")" * 300)""",
       """import dsl\ndsl.compile("let a = " + "(" * 30 + "1" + ")" * 30)""", kind="python")
_entry("E0108", "two statements on one line",
       "A line holds one statement, or several with `;` between them.",
       "let a = 1 let b = 2", "let a = 1; let b = 2")
_entry("E0109", "too long or too large",
       "A name, number or text is longer, or a script larger or nested deeper, than is read.",
       """import dsl\ndsl.compile("let " + "a" * 30_000 + " = 1")""",
       """import dsl\ndsl.compile("let " + "a" * 30 + " = 1")""", kind="python")
_entry("E0110", "a text is never closed",
       "A text begins and ends with `\"` on one line; a line break inside is written `\\n`.",
       'print "hello', 'print "hello"')
_entry("E0111", "an unknown escape in a text",
       "In a text, `\\` begins one of the escapes `\\n`, `\\t`, `\\\"` and `\\\\`.",
       r'print "50\% done"', 'print "50% done"')
_entry("E0112", "a character that has no meaning",
       """Names are letters, digits and `_`; everything else is one of the operators and brackets. Signs copied from a text
       document, such as a long minus, look alike but are others.""",
       "let a = 3 − 1", "let a = 3 - 1")
_entry("E0113", "not a number",
       "Numbers are written as `3`, `0.5`, `1e-3`, without `_` between digits. A number has one point at most.",
       "let a = 1.2.3", "let a = 1.23")
_entry("E0114", "a number that does not fit",
       "Integers have 64 bits and floats reach 1.8e308. A larger integer can be written as a float.",
       "let a = 99999999999999999999", "let a = 99999999999999999999.0")
_entry("E0115", "an operator of another language",
       "The operators are `+ - * / // % ** @`, comparisons, and the words `and`, `or`, `not`.",
       "let a = 2 ^ 3", "let a = 2 ** 3")
_entry("E0120", "no statement begins with this word",
       "Every statement begins with a keyword; the message names the nearest one.",
       "scalr x", "scalar x")
_entry("E0121", "a form of another language",
       """There are no statements `if`, `for`, `while`, no `lambda` and no `//` comments. A choice is the expression
       `if c then a else b`; arrays are computed whole.""",
       "scalar x\nlet y = 1 if x > 0 else 0", "scalar x\nlet y = if x > 0 then 1 else 0")
_entry("E0122", "an assignment without its keyword",
       "A name is bound by a keyword, which says what it is: `let`, `shared`, `data`, `model`, `cost`.",
       "w = 0.0", "shared w = 0.0")
_entry("E0123", "`update` is written with `<-`",
       "An update says what a variable becomes after the step, so it has an arrow; `=` binds a name once.",
       "shared w = 0.0\nupdate w = w + 1", "shared w = 0.0\nupdate w <- w + 1")
_entry("E0124", "this statement is written with `=`",
       "Only `update` has an arrow.",
       "let y <- 3", "let y = 3")
_entry("E0125", "`=` and `==` mixed up",
       "`=` binds a name or gives an argument; `==` compares.",
       "let y == 3", "let y = 3")
_entry("E0126", "comparisons cannot be chained",
       "`a < b < c` means different things in different languages; write both comparisons.",
       "let x = 2\nlet inside = 0 < x < 3", "let x = 2\nlet inside = 0 < x and x < 3")
_entry("E0127", "an expression is missing",
       "An operator, comma or keyword is followed by something that is no value.",
       "let y = 3 *", "let y = 3 * 2")
_entry("E0128", "two values side by side",
       "An operator or a comma is missing between them. A product needs its sign.",
       "let x = 4\nlet y = 2 x", "let x = 4\nlet y = 2 * x")
_entry("E0129", "a reserved word as a name",
       "`and or not if then else with for in while true false` are reserved everywhere.",
       "scalar in", "scalar input_value")
_entry("E0130", "only a plain name can stand here",
       "What a statement binds is a name: letters, digits and `_`, not beginning with a digit.",
       "let 2 = 3", "let two = 3")
_entry("E0131", "an incomplete `if`",
       "A choice is an expression and always has both values: `if c then a else b`.",
       "scalar x\nlet y = if x > 0 then x", "scalar x\nlet y = if x > 0 then x else 0")
_entry("E0132", "a clause is missing",
       "The statement needs another word to be complete; the message shows its form.",
       "shared w = 1.0\ncost C = sqr(w)\nminimize C wrt w",
       "shared w = 1.0\ncost C = sqr(w)\nminimize C wrt w using sgd()")
_entry("E0133", "`epochs` or `steps` is missing",
       "A length of training is counted in `epochs` (passes over the data) or `steps` (updates), also after 1.",
       "shared w = 0.0\nupdate w <- w + 1\ntrain 100", "shared w = 0.0\nupdate w <- w + 1\ntrain 100 steps")
_entry("E0134", "a comma without an item",
       "Items are separated by commas; none stands at the end of a statement.",
       "print 1,", "print 1")
_entry("E0135", "given twice",
       "A clause, name or parameter stands once.",
       "scalar a\nprint a with a = 1, a = 2", "scalar a\nprint a with a = 1")
_entry("E0136", "`with` takes everything after it",
       """`with` has the lowest precedence and takes every `name = value` that follows; among the arguments of a call it
       stands in parentheses.""",
       "scalar a\nprint maximum(a with a = 3, 2)", "scalar a\nprint maximum((a with a = 3), 2)")
_entry("E0137", "a statement outside its block",
       "`every`, `valid`, `slot`, `return` and the like belong inside the block of another statement.",
       "cost C = 1.0\nevery 10 epochs: print C",
       "shared w = 1.0\ncost C = sqr(w)\nminimize C wrt w using sgd()\ntrain 10 epochs:\n  every 5 epochs: print C")
_entry("E0138", "a loop is not written like this",
       """Loops carry their state: `scan(v = v0 for t in ts: expr)`, `fold(…)` likewise, and
       `iterate(v = v0 while cond max 100: expr)`.""",
       "let s = scan(1, 2)", "let s = cumsum([1, 2])")
_entry("E0139", "named and unnamed arguments in the wrong order",
       "Arguments without a name come first, and parameters without a default before those with one.",
       "let y = sum(axis = 0, [1, 2])", "let y = sum([1, 2], axis = 0)")
_entry("E0140", "a name has no value",
       "The statement binds a name, so `=` and a value follow it.",
       "let a", "let a = 1")
_entry("E0141", "a function without `return`",
       "The block of a `def` holds `let` lines and ends in `return`.",
       "def f(x):\n  let y = x + 1", "def f(x):\n  let y = x + 1\n  return y")
_entry("E0142", "something else is expected here",
       "A file name is a text in quotes, `using` takes an optimiser, `model` binds one name.",
       "scalar x\nmodel p, q = x * 2", "scalar x\nmodel p = x * 2")
_entry("E0149", "the statement is not written like this",
       "The statement could end here, or something else could follow; the message shows its form.",
       "vector v(n)", "vector v[n]")

# ---------------------------------------------------------------- types
_entry("E0201", "`@` cannot multiply these shapes",
       """The last axis of the left side must be the first axis of the right side. Two dims of different names never match,
       whatever their values; a transpose is written `.T`.""",
       "matrix X[n, d]\nshared w[k] = 0.0\nmodel p = X @ w", "matrix X[n, d]\nshared w[d] = 0.0\nmodel p = X @ w")
_entry("E0202", "shapes do not agree",
       """Shapes are matched from the right, and a length of 1 stretches, as in NumPy. A named dim never stretches, and two
       different named dims never match.""",
       "matrix P[n, k]\nvector y[n]\nlet r = P - y", "matrix P[n, k]\nvector y[n]\nlet r = P - y[:, None]")
_entry("E0203", "the wrong kind of number",
       """A condition is true or false, an index is an integer, a derivative needs floats. `float(x)`, `int(x)` and `bool(x)`
       convert.""",
       "scalar x\nlet y = if x then 1 else 0", "scalar x\nlet y = if x != 0 then 1 else 0")
_entry("E0204", "the wrong kind of value",
       "An array is needed where a table, a text or a function stands, or an array with another number of axes.",
       'data t = csv("people.csv")\nprint mean(t)', 'data t = csv("people.csv")\nprint mean(t.age)',
       {"people.csv": "name,age\nAda,36\nAlan,41\n"})
_entry("E0205", "an axis that is not there",
       "Axes are counted from 0, or from the end with negative numbers.",
       "matrix X[n, d]\nlet m = mean(X, axis = 2)", "matrix X[n, d]\nlet m = mean(X, axis = 1)")
_entry("E0206", "a largest or smallest of nothing",
       "`max`, `min`, `argmax` and `argmin` need at least one element.",
       "print max(zeros(0))", "print sum(zeros(0))")
_entry("E0207", "an index out of range",
       "Indices are counted from 0, or from the end with negative numbers; `x[3]` is the fourth element.",
       "let v = [1, 2, 3]\nprint v[3]", "let v = [1, 2, 3]\nprint v[2]")
_entry("E0208", "not a size",
       "Sizes are made of whole numbers and dims, and are not negative; they cannot depend on values.",
       "vector v[n]\ndim m = sum(v)", "vector v[n]\nlet m = size(v, 0)")
_entry("E0209", "a mask outside `data`",
       """How many rows a mask picks would be known only while running, so masks pick rows in `data` only. Elsewhere `where`
       keeps the shape.""",
       "vector x[n]\nlet s = sum(x[x > 0])", "vector x[n]\nlet s = sum(where(x > 0, x, 0))")
_entry("E0210", "data with the wrong number of axes",
       "Data bound to an input has its number of axes, or one more: then it is taken row by row.",
       "scalar x\nprint x * 2 with x = ones(4, 3, 2)", "scalar x\nprint x * 2 with x = ones(4)")
_entry("E0211", "lengths disagree",
       """Data bound to an input has the lengths that its dims have elsewhere. A dim in the shape of a `shared` variable is
       fixed once, by the first thing that determines it.""",
       "vector X[n], Y[n]\nprint sum(X * Y) with X = [1, 2], Y = [1, 2, 3]",
       "vector X[n], Y[n]\nprint sum(X * Y) with X = [1, 2], Y = [1, 2]")
_entry("E0212", "the wrong number of sizes",
       "A `vector` has one size, a `matrix` two, a `tensor` any number.",
       "vector X[n, d]", "matrix X[n, d]")
_entry("E0213", "names of one `over` bind unlike",
       """In one `over`, all data is bound whole, or all is taken row by row (it has one axis more than its input). A value
       that is the same for all rows is used as `data`.""",
       """
data A = ones(10, 3)
data y = ones(10)
vector X[d]
vector Y[n]
shared w[d] = 0.0
cost C = mean(sqr(X @ w - Y))
minimize C wrt w using sgd()
train 5 epochs over X = A, Y = y
""", """
data A = ones(10, 3)
data y = ones(10)
vector X[d]
scalar Y
shared w[d] = 0.0
cost C = sqr(X @ w - Y)
minimize C wrt w using sgd()
train 5 epochs over X = A, Y = y
""")
_entry("E0214", "a size is not known yet",
       "Nothing so far says how long an axis is: bind data to the input that has it, or fix it by `dim`.",
       "shared w[d] = 0.0\nprint w", "dim d = 3\nshared w[d] = 0.0\nprint w")
_entry("E0215", "lengths disagree at run time",
       "Lengths that were open when the script was checked turned out not to agree.",
       """
vector a, b
let s = sum(a + b)
shared w = 0.0
update w <- s
data A = ones(5, 3)
data B = ones(5, 2)
train 1 epochs over a = A, b = B
""", """
vector a, b
let s = sum(a + b)
shared w = 0.0
update w <- s
data A = ones(5, 3)
data B = ones(5, 3)
train 1 epochs over a = A, b = B
""")

# ---------------------------------------------------------------- names
_entry("E0301", "a name that is not bound",
       "A name is bound above its use; case matters.",
       "shared weight = 0.0\nlet y = wieght * 2", "shared weight = 0.0\nlet y = weight * 2")
_entry("E0302", "no such function",
       "The function is neither built in nor defined above; or a function stands where a value is needed.",
       "scalar x\nlet y = sigmiod(x)", "scalar x\nlet y = sigmoid(x)")
_entry("E0303", "no such column or attribute",
       "A table has the columns of its file, an imported script the names it binds; arrays have `.T` only.",
       'data t = csv("people.csv")\nprint mean(t.agee)', 'data t = csv("people.csv")\nprint mean(t.age)',
       {"people.csv": "name,age\nAda,36\nAlan,41\n"})
_entry("E0304", "a name is bound twice",
       "A name is bound once in a script, so that it means the same everywhere.",
       "let a = 1\nlet a = 2", "let a = 1\nlet b = 2")
_entry("E0305", "a predefined name",
       "`pi`, `inf` and `nan` cannot be bound again.",
       "let pi = 3", "let three = 3")

# ---------------------------------------------------------------- derivatives, updates, training
_entry("E0401", "a derivative with respect to something that is no name",
       "Derivatives are taken with respect to shared variables, inputs and names bound by `let`.",
       "shared w = 1.0\nprint grad(sqr(w), w * 2)", "shared w = 1.0\nprint grad(sqr(w), w)")
_entry("E0402", "the cost does not depend on this variable",
       "Its derivative would be zero everywhere, which is nearly always a mistake.",
       "shared w = 1.0, b = 0.0\ncost C = sqr(w)\ngrad gw, gb = C wrt w, b",
       "shared w = 1.0, b = 0.0\ncost C = sqr(w + b)\ngrad gw, gb = C wrt w, b")
_entry("E0403", "not a scalar",
       "Costs and metrics are scalars, and a gradient is of a scalar: reduce with `mean` or `sum`.",
       "vector X[n]\nshared w = 0.0\ncost C = sqr(X - w)", "vector X[n]\nshared w = 0.0\ncost C = mean(sqr(X - w))")
_entry("E0404", "as many names as derivatives",
       "`grad a, b = C wrt x, y` gives each derivative its name, in order.",
       "shared w = 1.0, b = 0.0\ncost C = sqr(w + b)\ngrad g = C wrt w, b",
       "shared w = 1.0, b = 0.0\ncost C = sqr(w + b)\ngrad gw, gb = C wrt w, b")
_entry("E0405", "two updates of one variable in a step",
       """All updates of a step are simultaneous: each reads the values from before the step, so a variable has one. A
       `minimize` is an update of every variable it trains.""",
       "shared w = 0.0\nupdate w <- w + 1\nupdate w <- w * 2", "shared w = 0.0\nupdate w <- (w + 1) * 2")
_entry("E0406", "nothing to train",
       "`train` runs the updates declared above it: `update` and `minimize` outside `step`, or the groups named after `of`.",
       "shared w = 1.0\ncost C = sqr(w)\ntrain 10 epochs",
       "shared w = 1.0\ncost C = sqr(w)\nminimize C wrt w using sgd()\ntrain 10 epochs")
_entry("E0407", "an input has no value",
       "What is printed, plotted or trained depends on an input, which gets its value by `with` or `over`.",
       "scalar a, b\nprint a * b with a = 3", "scalar a, b\nprint a * b with a = 3, b = 2")
_entry("E0408", "not a shared variable",
       "Only state declared by `shared` can be updated.",
       "let w = 0.5\nupdate w <- w - 0.1", "shared w = 0.5\nupdate w <- w - 0.1")
_entry("E0409", "no such optimiser",
       "`using` takes an optimiser of the library or one defined above by `optimizer`.",
       "shared w = 1.0\ncost C = sqr(w)\nminimize C wrt w using adamm()",
       "shared w = 1.0\ncost C = sqr(w)\nminimize C wrt w using adam()")
_entry("E0410", "an optimiser is not written like this",
       """`optimizer name(rate = …) for p, g, t:` names the variable, its gradient and the step, holds `slot`, `let` and
       `update`, and updates the variable and its slots.""",
       "optimizer mine(rate = 0.1) for p, g:\n  update p <- p - rate * g",
       "optimizer mine(rate = 0.1) for p, g, t:\n  update p <- p - rate * g")
_entry("E0411", "an input is bound twice",
       "Two bindings of one `with`, `over` or call name the same input.")
_entry("E0412", "not an input",
       "`with` and `over` bind inputs and shared variables; other names follow from them.",
       "let a = 2\nprint a * 3 with a = 4", "scalar a\nprint a * 3 with a = 4")
_entry("E0413", "no such group of updates",
       "`of` names groups declared above by `step name:`.",
       "shared w = 1.0\nstep shrink:\n  update w <- w / 2\ntrain 3 steps of shrnk",
       "shared w = 1.0\nstep shrink:\n  update w <- w / 2\ntrain 3 steps of shrink")
_entry("E0414", "`batch` or `shuffle` without rows",
       "Batches and their order are of rows of data bound by `over`.",
       "shared w = 0.0\nupdate w <- w + 1\ntrain 10 epochs batch 32",
       "shared w = 0.0\nupdate w <- w + 1\ntrain 10 epochs")
_entry("E0415", "not a whole number",
       "Numbers of epochs and steps, batch sizes and the like are whole numbers, known before training.",
       "scalar X\nshared w = 0.0\nupdate w <- w + 1\ntrain 2 epochs over X = ones(6) batch 0",
       "scalar X\nshared w = 0.0\nupdate w <- w + 1\ntrain 2 epochs over X = ones(6) batch 3")
_entry("E0416", "neither a cost nor a metric",
       "`stop` watches an epoch's value, which costs and metrics have.",
       "shared w = 1.0\nlet e = sqr(w)\nupdate w <- w / 2\ntrain 5 epochs:\n  stop after 2 epochs without lower e",
       "shared w = 1.0\nmetric e = sqr(w)\nupdate w <- w / 2\ntrain 5 epochs:\n  stop after 2 epochs without lower e")
_entry("E0417", "`clip norm` without `minimize`",
       "It holds the joint norm of the gradients of one `minimize`; hand-written updates scale their gradients themselves.",
       "shared w = 1.0\ncost C = sqr(w)\ngrad g = C wrt w\nupdate w <- w - 0.1 * g\ntrain 5 epochs:\n  clip norm 1",
       "shared w = 1.0\ncost C = sqr(w)\nminimize C wrt w using sgd(rate = 0.1)\ntrain 5 epochs:\n  clip norm 1")
_entry("E0418", "not a schedule",
       """In a `train` block, `rate = cosine(0.1, 0.001)` changes a literal `let` or a parameter of an optimiser from step to
       step; the name must be one of these, and only one.""",
       "shared w = 1.0\ncost C = sqr(w)\nminimize C wrt w using sgd()\ntrain 5 epochs:\n  rate = cosine(0.1)",
       "shared w = 1.0\ncost C = sqr(w)\nminimize C wrt w using sgd()\ntrain 5 epochs:\n  rate = cosine(0.1, 0.01)")
_entry("E0419", "an update reads a value of every row",
       """With batches taken row by row, costs, metrics and their derivatives are averaged over the rows. Another value that
       differs from row to row has no one value for an update.""",
       "scalar X\nshared w = 0.0\nupdate w <- w + X\ntrain 2 epochs over X = ones(6) batch 3",
       "scalar X\nshared w = 0.0\nmetric m = X\nupdate w <- w + m\ntrain 2 epochs over X = ones(6) batch 3")
_entry("E0420", "no rows to train on",
       "The data has no rows, or fewer than one batch while `drop_last` leaves out a short one.",
       "scalar X\nshared w = 0.0\nupdate w <- w + 1\ntrain 2 epochs over X = ones(5) batch 8 drop_last",
       "scalar X\nshared w = 0.0\nupdate w <- w + 1\ntrain 2 epochs over X = ones(5) batch 8")
_entry("E0421", "no derivative through `iterate`",
       """How many turns `iterate` makes depends on the values, and it has no derivative as yet. Use `fold` over a fixed number of
       steps, or take the result as a constant with `stop_grad`.""",
       "shared w = 2.0\nlet r = iterate(x = w while x < 100 max 9: x * x)\ngrad g = r wrt w",
       "shared w = 2.0\nlet r = fold(x = w for i in arange(3): x * x)\ngrad g = r wrt w")

# ---------------------------------------------------------------- calls and statements
_entry("E0422", "nothing to go on with",
       """In the interactive session `train` by itself goes on with the training that Ctrl-C cut off, to the end that was planned. That
       takes one that was cut off, and updates and data that are still the same. In a script `train` says how long.""",
       "shared w = 1.0\nupdate w <- w / 2\ntrain", "shared w = 1.0\nupdate w <- w / 2\ntrain 3 epochs")
_entry("E0423", "`best` of what",
       """`checkpoint … best` keeps the state of the lowest cost. Where there are several costs, or none, `stop after … without` says what
       is watched, and whether lower or higher is better.""",
       'shared w = 1.0\nupdate w <- w / 2\ntrain 3 steps:\n  checkpoint "m.safetensors" every 1 steps best',
       'shared w = 1.0\nmetric size = abs(w)\nupdate w <- w / 2\n'
       'train 3 steps:\n  checkpoint "m.safetensors" every 1 steps best\n  stop after 5 steps without lower size')

_entry("E0501", "not a function",
       "Only functions are called. A product is written with `*`, an element as `x[i]`.",
       "let w = 2\nprint w(3)", "let w = 2\nprint w * 3")
_entry("E0502", "too many or too few arguments",
       "The help line shows what the function takes.",
       "print clip([1, 2], 0)", "print clip([1, 2], 0, 1)")
_entry("E0503", "no such parameter",
       "A named argument has the name of a parameter of the function.",
       "print sum([1, 2], axes = 0)", "print sum([1, 2], axis = 0)")
_entry("E0504", "an argument that must be a literal",
       "Axes, paths and the like are read when the script is checked, so they are written out.",
       "let k = 0\nprint sum([1, 2], axis = k)", "print sum([1, 2], axis = 0)")
_entry("E0505", "calls without end",
       """A function cannot call itself, and a statement cannot make thousands of calls: each call is worked out anew when
       the script is checked.""",
       "def f(n) = if n > 0 then n * f(n - 1) else 1\nprint f(3)", "print prod(arange(1, 4))")
_entry("E0506", "a function's block",
       "The block of a `def` holds `let` lines and ends in `return`.")
_entry("E0507", "as many names as values",
       "Taking a tuple apart needs a name for each of its values.",
       "let a, b, c = shape(ones(2, 3))", "let a, b = shape(ones(2, 3))")
_entry("E0508", "an import",
       "An imported script holds `def`, `optimizer`, `let` and `dim` only, and does not import itself.",
       'import "tools.lr" as tools', 'def square(x) = x * x\nprint square(3)',
       {"tools.lr": "def square(x) = x * x\nprint square(2)\n"})
_entry("E0509", "the header",
       "`precision`, `seed` and `device` stand at the top of a script, and take the values the message names.",
       "let a = 1\nseed 3", "seed 3\nlet a = 1")
_entry("E0510", "`data` reads state or an input",
       "Data is evaluated once, before anything is trained or bound; what changes is a `let`.",
       "shared w = 2.0\ndata A = w * ones(3)", "shared w = 2.0\nlet A = w * ones(3)")
_entry("E0511", "a loader outside `data`",
       "Files are read once, by `data`; `split`, `codes` and `labels` stand there too.",
       'print csv("people.csv")', 'data t = csv("people.csv")\nprint t.age', {"people.csv": "name,age\nAda,36\nAlan,41\n"})
_entry("E0512", "a statement that does not stand here",
       "The start of a `shared` variable cannot read an input, and blocks hold the statements that belong to them.",
       "scalar x\nshared w = x + 1", "scalar x\nshared w = 1.0")
_entry("E0513", "no such plot",
       "There are `scatter(x, y)`, `line(x, y)`, `hist(x)` and `heatmap(A)`.",
       'plot scater([1, 2], [3, 4]) to "p.png"', 'print [1, 2]')

# ---------------------------------------------------------------- files
_entry("E0601", "a file is not there",
       "Paths are relative to the script.",
       'data t = csv("peple.csv")', 'data t = csv("people.csv")', {"people.csv": "name,age\nAda,36\nAlan,41\n"})
_entry("E0602", "a file cannot be read or written",
       "It is not text in UTF-8, the system refuses it, or its folder is not there.",
       'data t = csv("latin.csv")', 'data t = csv("utf8.csv")',
       {"latin.csv": b"name,age\nJos\xe9,36\n", "utf8.csv": "name,age\nJos\xe9,36\n"})
_entry("E0603", "a table is malformed",
       "Every row has as many cells as the header, quotes are closed, column names differ.",
       'data t = csv("short.csv")', 'data t = csv("whole.csv")',
       {"short.csv": "name,age\nAda\n", "whole.csv": "name,age\nAda,36\n"})
_entry("E0604", "a cell is not a number",
       "Nearly all cells of the column are numbers, and this one is not.",
       'data t = csv("bad.csv")', 'data t = csv("good.csv")',
       {"bad.csv": "age\n36\n41\nx\n85\n", "good.csv": "age\n36\n41\n30\n85\n"})
_entry("E0605", "a cell is empty",
       "An unknown value is read as nan with `missing = nan`; `missing = drop` leaves its row out.",
       'data t = csv("gap.csv")', 'data t = csv("gap.csv", missing = drop)',
       {"gap.csv": "name,age\nAda,36\nAlan,\n"})
_entry("E0606", "an array that holds no numbers",
       "Files and arrays handed in hold booleans, integers or floats.")
_entry("E0607", "a package is missing",
       "Reading .parquet files, and Arrow data from Python, needs pyarrow: `pip install 'lr-lang[data]'`.")
_entry("E0608", "an unknown format",
       "Values are saved as .csv or .npy, the whole state as .safetensors.",
       'save ones(2) to "a.xyz"', 'save ones(2) to "a.npy"')
_entry("E0609", "a file cannot be written",
       "The system refuses it: the folder is read-only, the disk is full, or a folder has that name.")
_entry("E0610", "too many axes for a .csv file",
       "A .csv file holds a vector or a matrix; a .npy file any array.",
       'save ones(2, 2, 2) to "a.csv"', 'save ones(2, 2, 2) to "a.npy"')
_entry("E0611", "nothing to plot",
       "A plot needs at least one value that is a number, and x and y of one length.")
_entry("E0612", "no such column",
       "The table that was loaded has no column of that name.")
_entry("E0613", "rows or columns that cannot be taken",
       "A matrix is made of columns of numbers, and a split leaves rows on both sides.",
       "data A = ones(1, 2)\ndata A1, A2 = split(A, test = 0.5)", "data A = ones(4, 2)\ndata A1, A2 = split(A, test = 0.5)")

_entry("E0614", "not a saved state",
       """`load` and `--resume` read .safetensors files: those of `save` and `checkpoint`, and other programs' with arrays of the script's
       dtypes. This one is damaged, of another format, or of a later version of lr.""",
       'load "m.safetensors"', "let a = 1", {"m.safetensors": b"\x93NUMPY"})
_entry("E0615", "the state of other variables",
       """A state is loaded whole: the file has each `shared` variable in its shape and dtype, and no others. What differs is shown, and
       nothing is changed.""",
       'shared w[3] = 1.0\nload "m.safetensors"', 'shared w = 1.0\nload "m.safetensors"', {"m.safetensors": ONE_SCALAR})
_entry("E0616", "a checkpoint of another script, or none",
       """`--resume` goes on with the script that wrote the checkpoint, over the same data, with the same `seed`, `precision` and `--set`.
       What comes after the `train` may have changed. To begin with the variables of another one, `load` it.""",
       'import dsl\ndsl.compile("shared w = 1.0\\nupdate w <- w / 2\\ntrain 2 epochs").run(resume=True)',
       'import dsl\ndsl.compile("shared w = 1.0\\nupdate w <- w / 2\\ntrain 2 epochs").run()', kind="python")

# ---------------------------------------------------------------- running
_entry("E0701", "integer division by zero",
       "Integers have no infinity. Guard the division; `where` and `if` do not compute the branch not taken.",
       "data b = [2, 0]\nprint 4 // b", "data b = [2, 0]\nprint where(b != 0, 4 // b, 0)")
_entry("E0702", "an index out of range",
       "Indices are counted from 0, or from the end with negative numbers.",
       "data A = [10, 20, 30]\ndata i = [0, 3]\nprint A[i]", "data A = [10, 20, 30]\ndata i = [0, 2]\nprint A[i]")
_entry("E0703", "an integer to a negative power",
       "It is not an integer; convert first.",
       "data b = [-1, 2]\nprint 2 ** b", "data b = [-1, 2]\nprint 2.0 ** b")
_entry("E0704", "`int` of nan or infinity",
       "Integers have neither. Replace such values first.",
       "print int(nan)", "print int(where(isfinite(nan), nan, 0))")
_entry("E0705", "a reduction of no elements",
       "The largest of nothing is not defined.")
_entry("E0706", "an assertion does not hold",
       "The condition of an `assert` is false; the message is the reason given with it.",
       'assert 1 > 2, "one is less"', 'assert 2 > 1, "one is less"')
_entry("E0707", "another value is printed",
       "`lr test` compares what `print` shows with the text after `#>`, to half a unit of its last digit.",
       "print 1 + 1  #> 3", "print 1 + 1  #> 2")
_entry("E0708", "`iterate` did not come to an end",
       "After `max` turns the condition still held. Allow more turns, or check that the condition can be reached from the start.",
       "print iterate(v = 1.0 while v < 100 max 5: v * 2)", "print iterate(v = 1.0 while v < 100 max 10: v * 2)")
_entry("E0710", "not enough memory",
       """The arrays of one step do not fit. Take fewer rows at a time, or `precision float32`. On a GPU the message says how much was asked
       for, how much `lr` holds there and how much is free (other programs may hold the rest). The session goes on.""")
_entry("E0720", "training diverged",
       """A cost or variable became nan, or went from finite to infinite. The state is that of the step before, and the place
       shown is the term that first was not finite.""",
       "shared w = 1.0\ncost C = sqr(sqr(w))\nminimize C wrt w using sgd(rate = 10)\ntrain 100 steps",
       "shared w = 1.0\ncost C = sqr(sqr(w))\nminimize C wrt w using sgd(rate = 0.1)\ntrain 100 steps")
_entry("E0721", "training was interrupted",
       "The state is that of the last whole step.")
_entry("E0801", "not in this version",
       "The language has this form, and this version of lr does not run it yet.",
       "shared s<lower=0> = 1.0", "shared s = 1.0")

_entry("E0802", "no GPU for `device cuda`",
       "The script (or `--device`) asks for a CUDA device. That takes CuPy, an NVIDIA GPU and its driver;\n"
       "`lr doctor` says what is missing. With `--device cpu` the same script runs on the processor.")

_entry("E0803", "the GPU has failed",
       """A kernel or a copy has gone wrong: the device is gone, was reset or is used up by others, or something has read or written
       where nothing is. Kernels run beside the host, so the place shown is where that was noticed. What lay on the device may be
       lost, and mostly the process can use it no more: start again, with `device cpu` if it fails again, and then report it.""")
_entry("E0804", "a kernel is refused",
       """The compiler of kernels (NVRTC), or the driver, does not take a source that lr has written. That is a defect of lr: please
       report it with the script. `device auto` goes on on the CPU; `device cuda` stops, and `device cpu` runs the same script.""")

# ---------------------------------------------------------------- the command line and Python
_entry("E0901", "`--set`",
       "`--set name=value` replaces the literal value of a `let` or `dim` of the script.",
       'import dsl\ndsl.compile("let rate = 0.1", set={"rte": 0.2})',
       'import dsl\ndsl.compile("let rate = 0.1", set={"rate": 0.2})', kind="python")
_entry("E0902", "the arguments of a Python call",
       "The message names what the call takes.",
       'import dsl\ndsl.compile("let a = 1", precision="float16")',
       'import dsl\ndsl.compile("let a = 1", precision="float32")', kind="python")
_entry("E0903", "not an array of this kind",
       "Arrays handed over from Python hold numbers of the kind that the name was declared with.",
       'import dsl\nm = dsl.compile("def f(x) = x")\nm["f"]',
       'import dsl\nm = dsl.compile("let a = 1")\nm["a"]', kind="python")
_entry("E0911", "a command of the prompt",
       """At the prompt of `lr` a line that begins with `:` is a command. Its word may be shortened as long as it stays the only one
       that begins so; `:help` lists them, `:help show` explains one.""",
       'from dsl.repl.commands import resolve\nresolve("vrs")',
       'from dsl.repl.commands import resolve\nresolve("var")', kind="python")
_entry("E0999", "an internal error",
       "A fault of lr itself. Please report it, with the script.")
