"""The abstract syntax: one frozen dataclass per grammar rule, each with the `span` it was written at.

In: nothing.  Out: the types that `parse` builds and `elaborate` and `format` read.  No meaning lives here: names are
strings, shapes are expressions, a call is a call whatever it calls.  BNF of the statements is in `grammar/lr.lark`.
"""
from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar, dataclass_transform

from dsl.errors import Span

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def syntax(cls: type[T]) -> type[T]:
    """A frozen dataclass whose equality, hash and text are inherited from `Syntax`.

    `dataclass` would compile six methods for each of these sixty classes, a third of the time `lr` takes to start; that
    a node does not change is checked by the type checker alone."""
    return dataclass(eq=False, repr=False)(cls)


@syntax
class Syntax:
    """Anything written in a script; equality ignores where it was written."""

    span: Span = field(compare=False, repr=False, kw_only=True)

    def _compared(self) -> tuple[Any, ...]:
        return tuple(getattr(self, f.name) for f in fields(self) if f.compare)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash((type(self), self._compared()))

    def __repr__(self) -> str:
        shown = (f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.repr)
        return f"{type(self).__name__}({', '.join(shown)})"


@syntax
class Expr(Syntax):
    """An expression."""


@syntax
class Statement(Syntax):
    """A statement; `clauses` of `train` are statements of their own kind."""


@syntax
class Ident(Syntax):
    """A name where one is bound or named as such (not an expression)."""

    id: str


# ---------------------------------------------------------------- expressions
@syntax
class Number(Expr):
    """A literal; `value` is int or float as written (`2` int, `2.0` and `2e0` float)."""

    value: int | float


@syntax
class Text(Expr):
    value: str


@syntax
class Boolean(Expr):
    value: bool


@syntax
class Name(Expr):
    id: str


@syntax
class Unary(Expr):
    """`-x`, `+x` or `not x`."""

    op: Literal["-", "+", "not"]
    operand: Expr


@syntax
class Binary(Expr):
    """`left op right`; op is one of `+ - * / // % ** @ < <= > >= == != and or`; `op_span` is the operator's place."""

    op: str
    left: Expr
    right: Expr
    op_span: Span = field(compare=False, repr=False, kw_only=True)


@syntax
class Conditional(Expr):
    """`if condition then value else otherwise`."""

    condition: Expr
    value: Expr
    otherwise: Expr


@syntax
class Attribute(Expr):
    """`value.name`: `.T`, a table's column, or a name of an imported module."""

    value: Expr
    name: Ident


@syntax
class Slice(Syntax):
    start: Expr | None
    stop: Expr | None
    step: Expr | None


@syntax
class NewAxis(Syntax):
    """`None` as an index item."""


@syntax
class Dots(Syntax):
    """`...` as an index item."""


@syntax
class Index(Expr):
    value: Expr
    items: tuple[Expr | Slice | NewAxis | Dots, ...]


@syntax
class Argument(Syntax):
    """An argument of a call; `name` is None when positional."""

    name: Ident | None
    value: Expr


@syntax
class Call(Expr):
    """`function(arguments)`; function is a `Name` or an `Attribute` (`nets.mlp`)."""

    function: Expr
    arguments: tuple[Argument, ...]


@syntax
class Array(Expr):
    """`[a, b, c]`, possibly nested."""

    items: tuple[Expr, ...]


@syntax
class Tuple(Expr):
    """`(a, b)`, `(a,)`, `()`."""

    items: tuple[Expr, ...]


@syntax
class Binding(Syntax):
    """`X = expr` after `with` or `over`."""

    name: Ident
    value: Expr


@syntax
class With(Expr):
    """`value with X = a, Y = b`."""

    value: Expr
    bindings: tuple[Binding, ...]


@syntax
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


@syntax
class Iterate(Expr):
    """`iterate(v = v0 while condition max count: body)`."""

    states: tuple[Ident, ...]
    starts: tuple[Expr, ...]
    condition: Expr
    limit: Expr
    body: Expr
    tupled: bool


# ---------------------------------------------------------------- header and declarations
@syntax
class Precision(Statement):
    dtype: Ident


@syntax
class Seed(Statement):
    value: Expr


@syntax
class Device(Statement):
    name: Ident


@syntax
class Import(Statement):
    """`import "nets.lr" as nets`."""

    path: Text
    alias: Ident


@syntax
class Use(Statement):
    """`use optim`: a module of the library that ships with the language."""

    module: Ident


@syntax
class DimItem(Syntax):
    name: Ident
    value: Expr | None


@syntax
class Dim(Statement):
    items: tuple[DimItem, ...]


@syntax
class InputItem(Syntax):
    """`shape` is None when written without brackets."""

    name: Ident
    shape: tuple[Expr, ...] | None


@syntax
class Input(Statement):
    """`int vector u[n], v[n]`; dtype is the written word (`int`, `bool`, `float32` …) or None."""

    kind: Literal["scalar", "vector", "matrix", "tensor"]
    dtype: Ident | None
    items: tuple[InputItem, ...]


@syntax
class Data(Statement):
    names: tuple[Ident, ...]
    value: Expr


@syntax
class Constraint(Syntax):
    """`lower=0`, `upper=1`, or a bare word (`simplex`, `ordered`, `cholesky`) with value None."""

    name: Ident
    value: Expr | None


@syntax
class SharedItem(Syntax):
    name: Ident
    constraints: tuple[Constraint, ...]
    shape: tuple[Expr, ...] | None
    value: Expr


@syntax
class Shared(Statement):
    """`shared w = 0.0, b = 0.0`; dtype as in `Input` (`shared int n = 0`)."""

    dtype: Ident | None
    items: tuple[SharedItem, ...]


@syntax
class Define(Statement):
    """`let z = expr`, `model`, `cost`, `metric`; several names only for `let p, q = …`."""

    kind: Literal["let", "model", "cost", "metric"]
    names: tuple[Ident, ...]
    value: Expr


@syntax
class Derive(Statement):
    """`grad gw, gb = C wrt w, b`, `hess`, `jac`."""

    kind: Literal["grad", "hess", "jac"]
    names: tuple[Ident, ...]
    value: Expr
    wrt: tuple[Ident, ...]


@syntax
class Update(Statement):
    target: Ident
    value: Expr


@syntax
class Minimize(Statement):
    """`minimize C wrt all except W1 using adam(rate = 1e-3)`; `wrt` is None for `all`."""

    cost: Expr
    wrt: tuple[Ident, ...] | None
    exclude: tuple[Ident, ...]
    optimizer: Expr                     # a Call, or a bare Name for all defaults


@syntax
class Step(Statement):
    """`step critic:` a named group of updates."""

    name: Ident
    body: tuple[Statement, ...]


# ---------------------------------------------------------------- training
@syntax
class Every(Statement):
    """`every 10 epochs: …`."""

    count: Expr
    unit: Literal["epochs", "steps"]
    body: tuple[Statement, ...]


@syntax
class Valid(Statement):
    bindings: tuple[Binding, ...]


@syntax
class StopAfter(Statement):
    """`stop after 5 epochs without lower C`."""

    count: Expr
    unit: Literal["epochs", "steps"]
    direction: Literal["lower", "higher"]
    name: Ident


@syntax
class Schedule(Statement):
    """`rate = cosine(1e-2, 1e-4)`."""

    target: Ident
    value: Expr


@syntax
class ClipNorm(Statement):
    value: Expr


@syntax
class Checkpoint(Statement):
    path: Expr
    count: Expr
    unit: Literal["epochs", "steps"]
    best: bool


@syntax
class Log(Statement):
    path: Expr


@syntax
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


@syntax
class Fit(Statement):
    cost: Expr
    wrt: tuple[Ident, ...] | None
    exclude: tuple[Ident, ...]
    method: Expr
    over: tuple[Binding, ...]
    report: Ident | None


# ---------------------------------------------------------------- functions and optimisers
@syntax
class Parameter(Syntax):
    name: Ident
    default: Expr | None


@syntax
class Return(Statement):
    value: Expr


@syntax
class Def(Statement):
    """`def f(x, y = 1) = expr` has a body of one `Return`; the block form has `let`s before it.

    `with vjp(g) = e2` gives `vjp_parameter` and `vjp_value`."""

    name: Ident
    parameters: tuple[Parameter, ...]
    body: tuple[Statement, ...]
    vjp_parameter: Ident | None
    vjp_value: Expr | None


@syntax
class Slot(Statement):
    items: tuple[Binding, ...]


@syntax
class Optimizer(Statement):
    """`optimizer adam(rate = 1e-3, …) for p, g, t:` with `slot`, `let` and `update` statements."""

    name: Ident
    parameters: tuple[Parameter, ...]
    names: tuple[Ident, ...]
    body: tuple[Statement, ...]


# ---------------------------------------------------------------- commands and checks
@syntax
class Print(Statement):
    """`print a, b with X = A  #> 2.0`; `expected` is the text after `#>`, at `expected_span`."""

    items: tuple[Expr, ...]
    bindings: tuple[Binding, ...]
    expected: str | None = None
    expected_span: Span | None = field(default=None, compare=False, repr=False)


@syntax
class Show(Statement):
    items: tuple[Expr, ...]
    bindings: tuple[Binding, ...]


@syntax
class Plot(Statement):
    """`plot scatter(x, y), line(x, f with X = x) title "…" to "fit.png"`."""

    marks: tuple[Expr, ...]
    title: Expr | None
    path: Expr | None


@syntax
class Save(Statement):
    """`save "m.safetensors"` has no value; `save Y_bar with X = A to "pred.csv"` has one."""

    value: Expr | None
    path: Expr


@syntax
class Load(Statement):
    path: Expr


@syntax
class Assert(Statement):
    condition: Expr
    reason: Expr | None


@syntax
class Test(Statement):
    name: Text
    body: tuple[Statement, ...]


@syntax
class Gradcheck(Statement):
    cost: Expr
    wrt: tuple[Ident, ...]


@syntax
class Bare(Statement):
    """An expression by itself: the REPL prints it; in a script it is an error that says so."""

    value: Expr


@syntax
class Script(Syntax):
    statements: tuple[Statement, ...]
