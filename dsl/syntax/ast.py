"""The abstract syntax: one frozen dataclass per grammar rule, each with the `span` it was written at.

In: nothing.  Out: the types that `parse` builds and `elaborate` and `format` read.  No meaning lives here: names are
strings, shapes are expressions, a call is a call whatever it calls.  BNF of the statements is in `grammar/lr.lark`.
"""
from __future__ import annotations

from dataclasses import field
from typing import Any, Literal

from dsl.errors import Span
from dsl.record import record


@record
class Syntax:
    """Anything written in a script; equality ignores where it was written."""

    span: Span = field(compare=False, repr=False, kw_only=True)


@record
class Expr(Syntax):
    """An expression."""


@record
class Statement(Syntax):
    """A statement; `clauses` of `train` are statements of their own kind."""


@record
class Ident(Syntax):
    """A name where one is bound or named as such (not an expression)."""

    id: str


# ---------------------------------------------------------------- expressions
@record
class Number(Expr):
    """A literal; `value` is int or float as written (`2` int, `2.0` and `2e0` float)."""

    value: int | float


@record
class Text(Expr):
    value: str


@record
class Boolean(Expr):
    value: bool


@record
class Name(Expr):
    id: str


@record
class Held(Expr):
    """A value in the place of the name it had when the expression was typed, such as the prompt's `ans`; no text means it."""

    name: str
    value: Any = field(compare=False)


@record
class Unary(Expr):
    """`-x`, `+x` or `not x`."""

    op: Literal["-", "+", "not"]
    operand: Expr


@record
class Binary(Expr):
    """`left op right`; op is one of `+ - * / // % ** @ < <= > >= == != and or`; `op_span` is the operator's place."""

    op: str
    left: Expr
    right: Expr
    op_span: Span = field(compare=False, repr=False, kw_only=True)


@record
class Conditional(Expr):
    """`if condition then value else otherwise`."""

    condition: Expr
    value: Expr
    otherwise: Expr


@record
class Attribute(Expr):
    """`value.name`: `.T`, a table's column, or a name of an imported module."""

    value: Expr
    name: Ident


@record
class Slice(Syntax):
    start: Expr | None
    stop: Expr | None
    step: Expr | None


@record
class NewAxis(Syntax):
    """`None` as an index item."""


@record
class Dots(Syntax):
    """`...` as an index item."""


@record
class Index(Expr):
    value: Expr
    items: tuple[Expr | Slice | NewAxis | Dots, ...]


@record
class Argument(Syntax):
    """An argument of a call; `name` is None when positional."""

    name: Ident | None
    value: Expr


@record
class Call(Expr):
    """`function(arguments)`; function is a `Name` or an `Attribute` (`nets.mlp`)."""

    function: Expr
    arguments: tuple[Argument, ...]


@record
class Array(Expr):
    """`[a, b, c]`, possibly nested."""

    items: tuple[Expr, ...]


@record
class Tuple(Expr):
    """`(a, b)`, `(a,)`, `()`."""

    items: tuple[Expr, ...]


@record
class Binding(Syntax):
    """`X = expr` after `with` or `over`."""

    name: Ident
    value: Expr


@record
class With(Expr):
    """`value with X = a, Y = b`."""

    value: Expr
    bindings: tuple[Binding, ...]


@record
class Loop(Expr):
    """`scan(v = v0 for t in ts: body)` and `fold`; several states are `(p, q) = (p0, q0)`, several sequences likewise.

    `tupled` tells whether states were written as a tuple, so that the body is one too."""

    kind: Literal["scan", "fold"]
    states: tuple[Ident, ...]
    starts: tuple[Expr, ...]
    elements: tuple[Ident, ...]
    sequences: tuple[Expr, ...]
    body: Expr
    tupled: bool


@record
class Iterate(Expr):
    """`iterate(v = v0 while condition max count: body)`."""

    states: tuple[Ident, ...]
    starts: tuple[Expr, ...]
    condition: Expr
    limit: Expr
    body: Expr
    tupled: bool


# ---------------------------------------------------------------- header and declarations
@record
class Precision(Statement):
    dtype: Ident


@record
class Seed(Statement):
    value: Expr


@record
class Device(Statement):
    name: Ident


@record
class Import(Statement):
    """`import "nets.lr" as nets`."""

    path: Text
    alias: Ident


@record
class Use(Statement):
    """`use optim`: a module of the library that ships with the language."""

    module: Ident


@record
class DimItem(Syntax):
    name: Ident
    value: Expr | None


@record
class Dim(Statement):
    items: tuple[DimItem, ...]


@record
class InputItem(Syntax):
    """`shape` is None when written without brackets."""

    name: Ident
    shape: tuple[Expr, ...] | None


@record
class Input(Statement):
    """`int vector u[n], v[n]`; dtype is the written word (`int`, `bool`, `float32` …) or None."""

    kind: Literal["scalar", "vector", "matrix", "tensor"]
    dtype: Ident | None
    items: tuple[InputItem, ...]


@record
class Data(Statement):
    names: tuple[Ident, ...]
    value: Expr


@record
class Constraint(Syntax):
    """`lower=0`, `upper=1`, or a bare word (`simplex`, `ordered`, `cholesky`) with value None."""

    name: Ident
    value: Expr | None


@record
class SharedItem(Syntax):
    name: Ident
    constraints: tuple[Constraint, ...]
    shape: tuple[Expr, ...] | None
    value: Expr


@record
class Shared(Statement):
    """`shared w = 0.0, b = 0.0`; dtype as in `Input` (`shared int n = 0`)."""

    dtype: Ident | None
    items: tuple[SharedItem, ...]


@record
class Define(Statement):
    """`let z = expr`, `model`, `cost`, `metric`; several names only for `let p, q = …`."""

    kind: Literal["let", "model", "cost", "metric"]
    names: tuple[Ident, ...]
    value: Expr


@record
class Derive(Statement):
    """`grad gw, gb = C wrt w, b`, `hess`, `jac`."""

    kind: Literal["grad", "hess", "jac"]
    names: tuple[Ident, ...]
    value: Expr
    wrt: tuple[Ident, ...]


@record
class Update(Statement):
    target: Ident
    value: Expr


@record
class Minimize(Statement):
    """`minimize C wrt all except W1 using adam(rate = 1e-3)`; `wrt` is None for `all`."""

    cost: Expr
    wrt: tuple[Ident, ...] | None
    exclude: tuple[Ident, ...]
    optimizer: Expr                     # a Call, or a bare Name for all defaults


@record
class Step(Statement):
    """`step critic:` a named group of updates."""

    name: Ident
    body: tuple[Statement, ...]


# ---------------------------------------------------------------- training
@record
class Every(Statement):
    """`every 10 epochs: …`."""

    count: Expr
    unit: Literal["epochs", "steps"]
    body: tuple[Statement, ...]


@record
class Valid(Statement):
    bindings: tuple[Binding, ...]


@record
class StopAfter(Statement):
    """`stop after 5 epochs without lower C`."""

    count: Expr
    unit: Literal["epochs", "steps"]
    direction: Literal["lower", "higher"]
    name: Ident


@record
class Schedule(Statement):
    """`rate = cosine(1e-2, 1e-4)`."""

    target: Ident
    value: Expr


@record
class ClipNorm(Statement):
    value: Expr


@record
class Checkpoint(Statement):
    path: Expr
    count: Expr
    unit: Literal["epochs", "steps"]
    best: bool


@record
class Log(Statement):
    path: Expr


@record
class GoOn(Statement):
    """`train` by itself: the interactive session goes on with the training that was interrupted."""


@record
class Train(Statement):
    """`train 100 epochs over X = A batch 32 shuffle of critic until C < 1: clauses`."""

    count: Expr
    unit: Literal["epochs", "steps"]
    over: tuple[Binding, ...]
    batch: Expr | None
    drop_last: bool
    shuffle: bool
    groups: tuple[Ident, ...]
    until: Expr | None
    clauses: tuple[Statement, ...]


@record
class Fit(Statement):
    cost: Expr
    wrt: tuple[Ident, ...] | None
    exclude: tuple[Ident, ...]
    method: Expr
    over: tuple[Binding, ...]
    report: Ident | None


# ---------------------------------------------------------------- functions and optimisers
@record
class Parameter(Syntax):
    name: Ident
    default: Expr | None


@record
class Return(Statement):
    value: Expr


@record
class Def(Statement):
    """`def f(x, y = 1) = expr` has a body of one `Return`; the block form has `let`s before it.

    `with vjp(g) = e2` gives `vjp_parameter` and `vjp_value`."""

    name: Ident
    parameters: tuple[Parameter, ...]
    body: tuple[Statement, ...]
    vjp_parameter: Ident | None
    vjp_value: Expr | None


@record
class Slot(Statement):
    items: tuple[Binding, ...]


@record
class Optimizer(Statement):
    """`optimizer adam(rate = 1e-3, …) for p, g, t:` with `slot`, `let` and `update` statements."""

    name: Ident
    parameters: tuple[Parameter, ...]
    names: tuple[Ident, ...]
    body: tuple[Statement, ...]


# ---------------------------------------------------------------- commands and checks
@record
class Print(Statement):
    """`print a, b with X = A  #> 2.0`; `expected` is the text after `#>`, at `expected_span`."""

    items: tuple[Expr, ...]
    bindings: tuple[Binding, ...]
    expected: str | None = None
    expected_span: Span | None = field(default=None, compare=False, repr=False)


@record
class Show(Statement):
    items: tuple[Expr, ...]
    bindings: tuple[Binding, ...]


@record
class Plot(Statement):
    """`plot scatter(x, y), line(x, f with X = x) title "…" to "fit.png"`."""

    marks: tuple[Expr, ...]
    title: Expr | None
    path: Expr | None


@record
class Save(Statement):
    """`save "m.safetensors"` has no value; `save Y_bar with X = A to "pred.csv"` has one."""

    value: Expr | None
    path: Expr


@record
class Load(Statement):
    path: Expr


@record
class Assert(Statement):
    condition: Expr
    reason: Expr | None


@record
class Test(Statement):
    name: Text
    body: tuple[Statement, ...]


@record
class Gradcheck(Statement):
    cost: Expr
    wrt: tuple[Ident, ...]


@record
class Bare(Statement):
    """An expression by itself: the REPL prints it; in a script it is an error that says so."""

    value: Expr


@record
class Script(Syntax):
    statements: tuple[Statement, ...]
