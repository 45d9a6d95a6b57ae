"""Building the tree: in come the children of a production, out goes an AST node with its span.

`Builder` has one method for each rule name or alias of `grammar/lr.lark`, called with the start and end of the text and
the production's children.  Rules that yield no node of their own (`names`, `bindings`, `shape`) yield tuples.  What the
grammar lets pass on purpose is checked here: the statements a block may hold, arguments, loops, clauses given twice.
Such mistakes go to `diagnostics`; they do not stop the parser.
"""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from dsl.errors import Label, Source, Span
from dsl.record import record
from dsl.syntax import ast
from dsl.syntax.build_expressions import ExpressionBuilder, shortened
from dsl.syntax.layout import Token


class Option(NamedTuple):
    """A clause after a statement's fixed part, such as `batch 32`."""

    keyword: str
    value: Any
    span: Span


@record
class Targets:
    """What stands after `wrt`: names, or None for `all` with exceptions."""

    names: tuple[ast.Ident, ...] | None
    exclude: tuple[ast.Ident, ...]


_COMMANDS = (ast.Print, ast.Show, ast.Plot, ast.Save, ast.Load, ast.Assert, ast.Gradcheck)
_CLAUSES = (ast.Every, ast.Valid, ast.StopAfter, ast.Schedule, ast.ClipNorm, ast.Checkpoint, ast.Log)
# What each block may hold, and how to say it.
ALLOWED: dict[str, tuple[tuple[type[ast.Statement], ...], str]] = {
    "train":     (_CLAUSES, "`every`, `valid`, `stop after`, `rate = …`, `clip norm`, `checkpoint` and `log`"),
    "every":     (_COMMANDS, "commands such as `print` and `plot`"),
    "step":      ((ast.Update, ast.Minimize), "`update` and `minimize`"),
    "def":       ((ast.Define, ast.Return), "`let`, and `return` at its end"),
    "optimizer": ((ast.Slot, ast.Define, ast.Update), "`slot`, `let` and `update`"),
}
_OWNER: dict[type[ast.Statement], str] = {
    **dict.fromkeys(_CLAUSES, "train"), ast.Return: "def", ast.Slot: "optimizer"}


def first_word(span: Span) -> str:
    """The word a statement or clause begins with."""
    text = span.source.text
    end = span.start
    while end < span.end and (text[end].isalnum() or text[end] == "_"):
        end += 1
    return text[span.start:end]


class Builder(ExpressionBuilder):
    """One method for each rule."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.incomplete: set[int] = set()       # ends of blocks that lost a statement
        self.top_level = True

    # ------------------------------------------------------------ script, lines, blocks
    def script(self, start: int, end: int, *lines: ast.Statement | None) -> ast.Script:
        statements = tuple(line for line in lines if line is not None)
        for statement in statements if self.top_level else ():
            owner = _OWNER.get(type(statement))
            if isinstance(statement, ast.Schedule):
                target = statement.target.id
                help = (f"write `{target} {shortened(statement.value.span.text)}`, without `=`" if target in ("seed", "precision", "device")
                        else f"a name is bound by a keyword, `let {target} = …` or `shared {target} = …`; "
                        f"what is shared changes by `update {target} <- …`")
                self.mistake("E0122", f"`{target} = …` does not say what it makes", statement.span, help=help)
            elif owner is not None:
                word = first_word(statement.span)
                self.mistake("E0137", f"`{word}` belongs inside a `{owner}` block", statement.span,
                             help=f"indent it below a line `{owner} …:`")
        return ast.Script(statements, span=self.span(0, len(self.source.text)))

    def expression(self, start: int, end: int, value: ast.Expr, newline: Token) -> ast.Expr:
        self._settle()
        return value

    def line(self, start: int, end: int, statement: Any, newline: Token) -> ast.Statement | None:
        self._settle()
        if isinstance(statement, ast.Print) and isinstance(newline.extra, Span):
            span = newline.extra
            written = span.text.strip()
            first = span.start + span.text.index(written)
            return replace(statement, expected=written, expected_span=self.span(first, first + len(written)))
        return statement if isinstance(statement, ast.Statement) else None

    def _settle(self) -> None:
        for span in self.large:
            self.mistake("E0114", "this integer does not fit int64", span, "greater than 9223372036854775807",
                        help=f"as a float it is `{span.text}.0`")
        self.large.clear()

    def block(self, start: int, end: int, *children: Any) -> tuple[ast.Statement, ...]:
        if None in children:
            self.incomplete.add(end)
        return tuple(child for child in children if isinstance(child, ast.Statement))

    def _check_block(self, owner: str, name: Span, body: tuple[ast.Statement, ...]) -> tuple[ast.Statement, ...]:
        kinds, described = ALLOWED[owner]
        for statement in body:
            if isinstance(statement, kinds) and not (isinstance(statement, ast.Define) and statement.kind != "let"):
                continue
            if isinstance(statement, ast.Bare):
                message, help = "an expression by itself does nothing here", f"a `{owner}` block holds {described}"
                if owner == "def":
                    help = f"write `return {shortened(statement.span.text)}`"
                elif owner == "every":
                    help = f"write `print {shortened(statement.span.text)}`"
            elif isinstance(statement, ast.Schedule):
                message = f"`{statement.target.id} = …` does not say what it makes"
                help = f"write `let {statement.target.id} = …`; a `{owner}` block holds {described}"
            else:
                message = f"`{first_word(statement.span)}` cannot stand in a `{owner}` block"
                help = f"a `{owner}` block holds {described}"
            above = Label(name, f"the `{owner}` block begins here")
            self.mistake("E0137", message, statement.span, "", above, help=help)
        return body

    # ------------------------------------------------------------ header and declarations
    def precision(self, start: int, end: int, dtype: ast.Ident) -> ast.Precision:
        return ast.Precision(dtype, span=self.span(start, end))

    def seed(self, start: int, end: int, value: ast.Expr) -> ast.Seed:
        return ast.Seed(value, span=self.span(start, end))

    def device(self, start: int, end: int, name: ast.Ident) -> ast.Device:
        return ast.Device(name, span=self.span(start, end))

    def import_(self, start: int, end: int, path: ast.Text, alias: ast.Ident) -> ast.Import:
        return ast.Import(path, alias, span=self.span(start, end))

    def use(self, start: int, end: int, module: ast.Ident) -> ast.Use:
        return ast.Use(module, span=self.span(start, end))

    def dim_item(self, start: int, end: int, name: ast.Ident, value: ast.Expr | None) -> ast.DimItem:
        return ast.DimItem(name, value, span=self.span(start, end))

    def dim(self, start: int, end: int, *items: ast.DimItem) -> ast.Dim:
        return ast.Dim(items, span=self.span(start, end))

    def dtype(self, start: int, end: int, word: Token) -> ast.Ident:
        return ast.Ident(word.text, span=self.span(start, end))

    def kind(self, start: int, end: int, word: Token) -> str:
        return word.text

    def shape(self, start: int, end: int, *sizes: ast.Expr) -> tuple[ast.Expr, ...]:
        return sizes

    def input_item(self, start: int, end: int, name: ast.Ident, shape: tuple[ast.Expr, ...] | None) -> ast.InputItem:
        return ast.InputItem(name, shape, span=self.span(start, end))

    def input_(self, start: int, end: int, dtype: ast.Ident | None, kind: Any, *items: ast.InputItem) -> ast.Input:
        return ast.Input(kind, dtype, items, span=self.span(start, end))

    def data(self, start: int, end: int, names: tuple[ast.Ident, ...], value: ast.Expr) -> ast.Data:
        return ast.Data(names, value, span=self.span(start, end))

    def constraint(self, start: int, end: int, name: ast.Ident, value: ast.Expr | None) -> ast.Constraint:
        return ast.Constraint(name, value, span=self.span(start, end))

    def constraints(self, start: int, end: int, *items: ast.Constraint) -> tuple[ast.Constraint, ...]:
        self.once((item.name for item in items), "constraint")
        return items

    def shared_item(self, start: int, end: int, name: ast.Ident, constraints: tuple[ast.Constraint, ...] | None,
                    shape: tuple[ast.Expr, ...] | None, value: ast.Expr) -> ast.SharedItem:
        return ast.SharedItem(name, constraints or (), shape, value, span=self.span(start, end))

    def shared(self, start: int, end: int, dtype: ast.Ident | None, *items: ast.SharedItem) -> ast.Shared:
        return ast.Shared(dtype, items, span=self.span(start, end))

    # ------------------------------------------------------------ graph, derivatives, state change
    define_kind = derive_kind = unit = direction = kind

    def define(self, start: int, end: int, kind: Any, names: tuple[ast.Ident, ...], value: ast.Expr) -> ast.Define:
        if kind != "let" and len(names) > 1:
            self.mistake("E0142", f"`{kind}` binds one name", names[1].span, help="`let p, q = …` takes a tuple apart")
        return ast.Define(kind, names, value, span=self.span(start, end))

    def derive(self, start: int, end: int, kind: Any, names: tuple[ast.Ident, ...], value: ast.Expr,
               wrt: tuple[ast.Ident, ...]) -> ast.Derive:
        self.once(wrt, "name")
        return ast.Derive(kind, names, value, wrt, span=self.span(start, end))

    def update(self, start: int, end: int, target: ast.Ident, value: ast.Expr) -> ast.Update:
        return ast.Update(target, value, span=self.span(start, end))

    def lone_arrow(self, start: int, end: int, target: ast.Ident, value: ast.Expr) -> None:
        self.mistake("E0122", f"`{target.id} <- …` needs its keyword", self.span(start, end),
                    help=f"write `update {target.id} <- …`")

    def wrt(self, start: int, end: int, names: tuple[ast.Ident, ...]) -> Targets:
        self.once(names, "name")
        return Targets(names, ())

    def wrt_all(self, start: int, end: int, exclude: tuple[ast.Ident, ...] | None) -> Targets:
        return Targets(None, exclude or ())

    def minimize(self, start: int, end: int, cost: ast.Expr, wrt: Targets, optimizer: ast.Expr) -> ast.Minimize:
        self._callee(optimizer, "an optimizer such as `adam(rate = 1e-3)`")
        return ast.Minimize(cost, wrt.names, wrt.exclude, optimizer, span=self.span(start, end))

    def step(self, start: int, end: int, name: ast.Ident, body: tuple[ast.Statement, ...]) -> ast.Step:
        self._check_block("step", self.span(start, name.span.end), body)
        return ast.Step(name, body, span=self.span(start, end))

    def _callee(self, value: ast.Expr, wanted: str) -> None:
        callee = value.function if isinstance(value, ast.Call) else value
        if not isinstance(callee, ast.Name | ast.Attribute):
            self.mistake("E0142", f"`using` takes {wanted}", value.span)

    # ------------------------------------------------------------ training
    def _option(self, start: int, end: int, value: Any = True) -> Option:
        span = self.span(start, end)
        return Option(first_word(span), value, span)

    over = batch = drop_last = shuffle = of = until = report = title = destination = _option

    def _options(self, options: Iterable[Option]) -> dict[str, Any]:
        found: dict[str, Option] = {}
        for option in options:
            if option.keyword in found:
                self.mistake("E0135", f"`{option.keyword}` is given twice", option.span, "",
                             Label(found[option.keyword].span, "given here first"), help="keep one of the two")
            else:
                found[option.keyword] = option
        return {keyword: option.value for keyword, option in found.items()}

    def train(self, start: int, end: int, count: ast.Expr, unit: Any, *rest: Any) -> ast.Train:
        *options, block = rest
        given = self._options(options)
        for option in options:
            if option.keyword == "drop_last" and "batch" not in given:
                self.mistake("E0132", "`drop_last` without `batch`", option.span, help="write `batch 32 drop_last`")
        clauses = self._check_block("train", self.span(start, start + 5), block or ())
        self._clauses_once(clauses)
        return ast.Train(count, unit, given.get("over", ()), given.get("batch"), "drop_last" in given,
                         "shuffle" in given, given.get("of", ()), given.get("until"), clauses,
                         span=self.span(start, end))

    def go_on(self, start: int, end: int) -> ast.GoOn:
        return ast.GoOn(span=self.span(start, end))

    def _clauses_once(self, clauses: tuple[ast.Statement, ...]) -> None:
        seen: dict[object, ast.Statement] = {}
        for clause in clauses:
            if isinstance(clause, ast.Schedule):
                key: object = clause.target.id
            elif isinstance(clause, ast.Valid | ast.ClipNorm | ast.Log | ast.StopAfter | ast.Checkpoint):
                key = type(clause)
            else:
                continue
            if key in seen:
                self.mistake("E0135", f"`{first_word(clause.span)}` is given twice", clause.span, "",
                             Label(seen[key].span, "given here first"), help="keep one of the two")
            seen.setdefault(key, clause)

    def every(self, start: int, end: int, count: ast.Expr, unit: Any, body: tuple[ast.Statement, ...]) -> ast.Every:
        body = self._check_block("every", self.span(start, start + 5), body)
        return ast.Every(count, unit, body, span=self.span(start, end))

    def valid(self, start: int, end: int, bindings: tuple[ast.Binding, ...]) -> ast.Valid:
        return ast.Valid(bindings, span=self.span(start, end))

    def stop(self, start: int, end: int, count: ast.Expr, unit: Any, direction: Any,
             name: ast.Ident) -> ast.StopAfter:
        return ast.StopAfter(count, unit, direction, name, span=self.span(start, end))

    def schedule(self, start: int, end: int, target: ast.Expr, value: ast.Expr) -> ast.Schedule | None:
        if isinstance(target, ast.Name):
            return ast.Schedule(ast.Ident(target.id, span=target.span), value, span=self.span(start, end))
        written = shortened(target.span.text)
        match target:
            case ast.Call(ast.Name("let" | "data" | "shared" as word)):
                help = f"write `{word} a, b = …`, without brackets"
            case ast.Call():
                help = f"a function is `def {written} = …`"
            case ast.Index():
                help = "arrays are never changed in place; `where(condition, a, b)` and `concat` make new ones"
            case _:
                help = "a name is bound by a keyword: `let x = …`"
        self.mistake("E0122", f"`{written} = …` binds nothing", self.span(start, end), help=help)
        return None

    def clip(self, start: int, end: int, value: ast.Expr) -> ast.ClipNorm:
        return ast.ClipNorm(value, span=self.span(start, end))

    def checkpoint(self, start: int, end: int, path: ast.Expr, count: ast.Expr, unit: Any,
                   best: Token | None) -> ast.Checkpoint:
        return ast.Checkpoint(path, count, unit, best is not None, span=self.span(start, end))

    def log(self, start: int, end: int, path: ast.Expr) -> ast.Log:
        return ast.Log(path, span=self.span(start, end))

    def fit(self, start: int, end: int, cost: ast.Expr, wrt: Targets, method: ast.Expr, *options: Option) -> ast.Fit:
        self._callee(method, "a method such as `lbfgs()`")
        given = self._options(options)
        return ast.Fit(cost, wrt.names, wrt.exclude, method, given.get("over", ()), given.get("report"),
                       span=self.span(start, end))

    # ------------------------------------------------------------ functions and optimisers
    def parameter(self, start: int, end: int, name: ast.Ident, default: ast.Expr | None) -> ast.Parameter:
        return ast.Parameter(name, default, span=self.span(start, end))

    def parameters(self, start: int, end: int, *items: ast.Parameter | None) -> tuple[ast.Parameter, ...]:
        parameters = tuple(item for item in items if item is not None)
        self.once((item.name for item in parameters), "parameter")
        optional = False
        for item in parameters:
            if optional and item.default is None:
                message = f"parameter `{item.name.id}` needs a default, as the one before it has one"
                self.mistake("E0139", message, item.span, help="put the parameters without default first")
            optional = item.default is not None
        return parameters

    def def_expression(self, start: int, end: int, name: ast.Ident, parameters: tuple[ast.Parameter, ...],
                       value: ast.Expr) -> ast.Def:
        body = (ast.Return(value, span=value.span),)
        return ast.Def(name, parameters, body, None, None, span=self.span(start, end))

    def def_vjp(self, start: int, end: int, name: ast.Ident, parameters: tuple[ast.Parameter, ...], value: ast.Expr,
                cotangent: ast.Ident, vjp: ast.Expr) -> ast.Def:
        body = (ast.Return(value, span=value.span),)
        return ast.Def(name, parameters, body, cotangent, vjp, span=self.span(start, end))

    def def_block(self, start: int, end: int, name: ast.Ident, parameters: tuple[ast.Parameter, ...],
                  body: tuple[ast.Statement, ...]) -> ast.Def:
        header = self.span(start, name.span.end)
        before = len(self.diagnostics)
        self._check_block("def", header, body)
        for statement in body[:-1]:
            if isinstance(statement, ast.Return):
                self.mistake("E0137", "`return` ends a function, but statements follow", statement.span,
                            help="make it the last line; a choice is `return if c then a else b`")
        if len(self.diagnostics) == before and end not in self.incomplete and not isinstance(body[-1], ast.Return):
            self.mistake("E0141", f"function `{name.id}` has no `return`", header,
                        help="end its block with `return …`")
        return ast.Def(name, parameters, body, None, None, span=self.span(start, end))

    def return_(self, start: int, end: int, value: ast.Expr) -> ast.Return:
        return ast.Return(value, span=self.span(start, end))

    def optimizer(self, start: int, end: int, name: ast.Ident, parameters: tuple[ast.Parameter, ...],
                  names: tuple[ast.Ident, ...], body: tuple[ast.Statement, ...]) -> ast.Optimizer:
        self.once(names, "name")
        self._check_block("optimizer", self.span(start, name.span.end), body)
        return ast.Optimizer(name, parameters, names, body, span=self.span(start, end))

    def slot(self, start: int, end: int, *items: ast.Binding) -> ast.Slot:
        return ast.Slot(items, span=self.span(start, end))

    # ------------------------------------------------------------ commands and checks
    def items(self, start: int, end: int, *items: ast.Expr) -> tuple[ast.Expr, ...]:
        return items

    def print_(self, start: int, end: int, items: tuple[ast.Expr, ...],
               bindings: tuple[ast.Binding, ...] | None) -> ast.Print:
        return ast.Print(items, bindings or (), span=self.span(start, end))

    def show(self, start: int, end: int, items: tuple[ast.Expr, ...],
             bindings: tuple[ast.Binding, ...] | None) -> ast.Show:
        return ast.Show(items, bindings or (), span=self.span(start, end))

    def plot(self, start: int, end: int, marks: tuple[ast.Expr, ...], *options: Option) -> ast.Plot:
        given = self._options(options)
        return ast.Plot(marks, given.get("title"), given.get("to"), span=self.span(start, end))

    def save(self, start: int, end: int, value: ast.Expr, path: ast.Expr | None) -> ast.Save:
        span = self.span(start, end)
        if path is not None:
            return ast.Save(value, path, span=span)
        if not isinstance(value, ast.Text):
            self.mistake("E0132", "`save` needs a file", value.span,
                        help=f'write `save {shortened(value.span.text)} to "file.csv"`')
        return ast.Save(None, value, span=span)

    def load(self, start: int, end: int, path: ast.Expr) -> ast.Load:
        return ast.Load(path, span=self.span(start, end))

    def assert_(self, start: int, end: int, condition: ast.Expr, reason: ast.Expr | None) -> ast.Assert:
        return ast.Assert(condition, reason, span=self.span(start, end))

    def test(self, start: int, end: int, name: ast.Text, body: tuple[ast.Statement, ...]) -> ast.Test:
        for statement in body:
            owner, word = _OWNER.get(type(statement)), first_word(statement.span)
            if isinstance(statement, ast.Schedule):
                help = f"write `let {word} = …`"
            elif owner:
                help = f"it belongs inside a `{owner}` block"
            elif isinstance(statement, ast.Test):
                help = "tests stand side by side"
            else:
                continue
            self.mistake("E0137", f"`{word}` cannot stand in a `test` block", statement.span, help=help)
        return ast.Test(name, body, span=self.span(start, end))

    def gradcheck(self, start: int, end: int, cost: ast.Expr, wrt: tuple[ast.Ident, ...]) -> ast.Gradcheck:
        return ast.Gradcheck(cost, wrt, span=self.span(start, end))

    def bare(self, start: int, end: int, value: ast.Expr) -> ast.Bare:
        return ast.Bare(value, span=self.span(start, end))
