"""Statements to a program.

In: the AST of a script, one statement after the other.  Out: names bound to typed graphs, and the records of
`dsl/syntax/program.py` for what runs.  A statement in error binds its names to nothing, so that all errors of a file come
out in one go and none twice.
"""
from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from dsl.errors import Diagnostic, Label, LrError, Source, Span, did_you_mean, error
from dsl.ir.node import Node, make
from dsl.ir.types import (
    DType,
    shape_text,
)
from dsl.ops.calculus import gradient, hessian, jac
from dsl.ops.scalar import alias
from dsl.ops.table import cast, constant
from dsl.syntax import ast, program
from dsl.syntax.expressions import literal_int
from dsl.syntax.faults import counted, not_built
from dsl.syntax.names import bound_names
from dsl.syntax.parse import parse
from dsl.syntax.rebinding import Rebinding, words
from dsl.syntax.updates import UPDATES
from dsl.syntax.values import (
    Host,
    Module,
    OptimizerRule,
    Scope,
    Skipped,
    Symbol,
    UserFunction,
    Value,
)

DEVICES = ("auto", "cpu", "cuda", "numpy")


class Elaborator(Rebinding):
    """The names bound so far and what is to run; `statement` adds one statement."""

    def __init__(self, host: Host, *, precision: str | None = None, seed: int | None = None, device: str | None = None,
                 overrides: dict[str, str] | None = None, rebind: bool = False) -> None:
        super().__init__(host, rebind)
        header = {"precision": precision, "seed": seed, "device": device}
        self.fixed_header = {word for word, value in header.items() if value is not None}
        self.precision = self._dtype_word(precision) if precision else "float64"
        self.seed = seed or 0
        self.device = device or os.environ.get("LR_DEVICE") or "auto"
        self.overrides = dict(overrides or {})
        self.importing: tuple[str, ...] = ()
        self.begun = False
        self.header: dict[str, Span] = {}

    # ------------------------------------------------------------ scripts
    def script(self, statements: Sequence[ast.Statement],
               problems: Sequence[Diagnostic] = ()) -> tuple[list[program.Item], list[Diagnostic]]:
        """Every statement in order: what they become, and every error found.

        `problems` are what parsing found: what their statements bind is not reported as unknown, and no statement with
        one of them is reported on twice."""
        items: list[program.Item] = []
        found: list[Diagnostic] = []
        spans = [d.primary.span for d in problems if d.primary]
        self.unparsed = {name for span in spans for name in unparsed_names(span)}
        self.updates_failed = bool(spans)
        self.later = {ident.id: ident.span for s in reversed(statements) for ident in bound_names(s)}
        self.coming = Counter(word for s in statements for word in words(s))
        for statement in statements:
            self.coming.subtract(words(statement))
            broken = any(statement.span.start <= s.start <= statement.span.end for s in spans)
            try:
                if broken and isinstance(statement, ast.Def | ast.Optimizer):
                    self.poison(statement)
                else:
                    items.extend(self.statement(statement))
            except LrError as problem:
                if not broken:
                    found.extend(problem.diagnostics)
        return items, [self.finished(d) for d in found]

    def finished(self, diagnostic: Diagnostic) -> Diagnostic:
        """A diagnostic with the values of the sizes it speaks of, known by the end of the script."""
        facts: list[str] = []
        labels = list(diagnostic.labels)
        sizes = dict.fromkeys(s for d in self.concerning.get(diagnostic, ()) for s in d.sizes() if s.named)
        for size in sizes:
            fact = self.sizes.get(size.name) or self.seen_sizes.get(size.name)
            if fact is None:
                continue
            shown = next((i for i, label in enumerate(labels) if mentions(label.text, size.name)), None)
            if size.value is not None and shown is not None:
                labels[shown] = Label(labels[shown].span, f"{labels[shown].text}, {size.name} = {fact.value}")
            else:
                facts.append(f"{size.name} = {fact.value} from {fact.origin}")
        if diagnostic.primary is None:
            return diagnostic
        text = ", ".join([*([diagnostic.primary.text] if diagnostic.primary.text else []), *facts])
        return replace(diagnostic, primary=Label(diagnostic.primary.span, text), labels=tuple(labels))

    def statement(self, statement: ast.Statement) -> list[program.Item]:
        """One statement; on an error its names are bound to nothing and `LrError` is raised."""
        self.begin_statement(statement)
        try:
            for ident in bound_names(statement):
                self.check_free(ident)
            return self.again(statement) if self.rebind else self._dispatch(statement)
        except Skipped:
            self.poison(statement)
            return []
        except LrError as problem:
            self.poison(statement)
            raise problem.placed(statement.span) from None
        except RecursionError:
            self.poison(statement)
            raise error("E0109", "this statement is nested too deep", statement.span,
                        help="name parts of it with `let`") from None

    def poison(self, statement: ast.Statement) -> None:
        """The names of a statement in error stand for nothing; in the REPL they stay what they were, and those that are new are not
        reported as unknown in the rest of the text."""
        self.updates_failed = self.updates_failed or isinstance(statement, UPDATES)
        if self.rebind:
            self.unparsed |= {ident.id for ident in bound_names(statement)}
            return
        kind = "def" if isinstance(statement, ast.Def) else "failed"
        for ident in bound_names(statement):
            self.scope.maps[0].setdefault(ident.id, Symbol(ident.id, kind, None, ident.span))

    def begin_statement(self, statement: ast.Statement) -> None:
        """Draws are keyed by what a statement binds, or else by what it says."""
        self.draws, self.call_path, self.declared_shape, self.calls = 0, (), None, 0
        self.statement_name = " ".join(i.id for i in bound_names(statement)) or \
            f"{type(statement).__name__} {' '.join(statement.span.text.split())}"

    def _dispatch(self, statement: ast.Statement) -> list[program.Item]:
        if not isinstance(statement, ast.Precision | ast.Seed | ast.Device | ast.Import | ast.Use):
            self.begun = True
        match statement:
            case ast.Precision(dtype):
                self.precision_statement(dtype)
            case ast.Seed(value):
                self.seed_statement(value)
            case ast.Device(name):
                self.device_statement(name)
            case ast.Import():
                self.import_statement(statement)
            case ast.Use(module):
                self.use_statement(module)
            case ast.Dim(items):
                for item in items:
                    self.dim_item(item)
            case ast.Input():
                for input_item in statement.items:
                    self.input_item(statement, input_item)
            case ast.Data():
                self.data_statement(statement)
            case ast.Shared():
                return [self.shared_item(statement, item) for item in statement.items]
            case ast.Define():
                self.define(statement)
            case ast.Derive():
                self.derive(statement)
            case ast.Update():
                self.update_statement(statement, None)
            case ast.Minimize():
                self.minimize_statement(statement, None)
            case ast.Step():
                self.step_statement(statement)
            case ast.Train():
                return [self.train_statement(statement)]
            case ast.Def():
                self.def_statement(statement)
            case ast.Optimizer():
                self.optimizer_statement(statement)
            case _:
                return self.command(statement)
        return []

    def warn(self, diagnostic: Diagnostic) -> None:
        self.warnings.append(diagnostic)

    # ------------------------------------------------------------ header
    def _dtype_word(self, word: str) -> DType:
        return "float32" if word == "float32" else "float64"

    def once(self, word: str, span: Span) -> None:
        """A header word stands once in a script."""
        if word in self.header and not self.rebind:
            raise error("E0509", f"`{word}` stands twice", span, "again here", labels=[Label(self.header[word], "first here")],
                        help="keep one of them")
        self.header[word] = span

    def precision_statement(self, dtype: ast.Ident) -> None:
        self.once("precision", dtype.span)
        if dtype.id not in ("float32", "float64"):
            raise error("E0509", f"no precision `{dtype.id}`", dtype.span,
                        help="`precision float32` or `precision float64`")
        kept = "precision" in self.fixed_header or dtype.id == self.precision or not self.scope
        if self.begun and not (self.rebind and kept):
            raise error("E0509", "`precision` stands before everything that has a dtype", dtype.span,
                        help="start anew with `lr repl --precision " + dtype.id + "`" if self.rebind else
                        "move it to the top of the script")
        if "precision" not in self.fixed_header:
            self.precision = self._dtype_word(dtype.id)

    def seed_statement(self, value: ast.Expr) -> None:
        self.once("seed", value.span)
        seed = literal_int(value)
        if seed is None or seed < 0:
            raise error("E0509", "a seed is a whole number, not negative", value.span, help="write `seed 1`")
        if self.begun and not self.rebind:
            raise error("E0509", "`seed` stands before every random draw", value.span,
                        help="move it to the top of the script")
        if "seed" not in self.fixed_header:
            self.seed = seed

    def device_statement(self, name: ast.Ident) -> None:
        self.once("device", name.span)
        if name.id not in DEVICES:
            near = "cuda" if name.id == "gpu" else did_you_mean(name.id, DEVICES)
            raise error("E0509", f"no device `{name.id}`", name.span,
                        help=f"did you mean `{near}`?" if near else "`auto`, `cpu`, `cuda` or `numpy`")
        if "device" not in self.fixed_header:
            self.device = name.id

    def import_statement(self, statement: ast.Import) -> None:
        path = statement.path.value
        source = self.host.read_script(path, statement.path.span)
        if source.name in self.importing:
            raise error("E0508", f"`{path}` imports itself", statement.path.span,
                        " → ".join((*self.importing, source.name)))
        self.bind(statement.alias, "module", Module(statement.alias.id, self.module(source)))

    def use_statement(self, module: ast.Ident) -> None:
        source = self.host.read_library(module.id)
        if source is None:
            raise error("E0508", f"no library module `{module.id}`", module.span, help="`use optim` has the optimisers")
        for name, symbol in self.module(source).items():
            if name not in self.scope:
                self.scope.maps[0][name] = symbol

    def module(self, source: Source) -> Scope:
        """The definitions of another script, in a scope of their own."""
        script, problems = parse(source)
        if problems:
            raise LrError(*problems)
        before = self.importing
        self.importing = (*before, source.name)
        try:
            with self.inside(Scope({})):
                for statement in script.statements:
                    if not isinstance(statement,
                                      ast.Def | ast.Optimizer | ast.Define | ast.Dim | ast.Import | ast.Use) or \
                            (isinstance(statement, ast.Define) and statement.kind != "let"):
                        raise error("E0508", "an imported script holds definitions only", statement.span,
                                    "not a definition",
                                    help="keep `def`, `optimizer`, `let` and `dim` there, and the rest in the script that imports it")
                    self._dispatch(statement)
                return self.scope
        finally:
            self.importing = before

    # ------------------------------------------------------------ definitions

    def define(self, statement: ast.Define) -> None:
        if statement.kind == "let" and len(statement.names) == 1 and statement.names[0].id in self.overrides:
            ident = statement.names[0]
            value: Value = constant(self.override(ident, statement.value),
                                    "bool" if isinstance(statement.value, ast.Boolean) else self.precision)
        else:
            value = self.float_literal(statement.value, self.value(statement.value))
        for ident, part in zip(statement.names, self.unpack(statement.names, value, statement.value), strict=True):
            if statement.kind in ("model", "cost", "metric") or isinstance(part, Node):
                part = self.named(statement, ident, self.as_node(part, statement.value))
            self.bind(ident, statement.kind, part)

    def named(self, statement: ast.Define, ident: ast.Ident, node: Node) -> Node:
        if statement.kind in ("cost", "metric"):
            if node.rank:
                diagnostic = error("E0403", f"a {statement.kind} is a scalar, not {shape_text(node.shape)}",
                                   statement.value.span, shape_text(node.shape),
                                   help=f"reduce it: `{statement.kind} {ident.id} = mean({statement.value.span.text})`")
                self.concerning[diagnostic.diagnostic] = node.shape
                raise diagnostic
            node = cast(node, self.precision)
        result = make(alias, [node], {"name": ident.id})
        self.origins.record(result, ident.span)
        return result

    def derive(self, statement: ast.Derive) -> None:
        if len(statement.names) != len(statement.wrt):
            wanted = counted(len(statement.wrt), "derivative")
            raise error("E0404", f"{counted(len(statement.names), 'name')} for {wanted}", statement.span,
                        help="give one name to each variable after `wrt`")
        target = self.node(statement.value)
        if target.rank and statement.kind != "jac":
            word = "gradient" if statement.kind == "grad" else "Hessian"
            raise error("E0403", f"a {word} is of a scalar, and `{statement.value.span.text}` is "
                        f"{shape_text(target.shape)}", statement.value.span, labels=self.bound_labels(statement.value),
                        help="reduce it (`mean(…)`, `sum(…)`), or take `jac`")
        for ident, variable in zip(statement.names, statement.wrt, strict=True):
            x = self.wrt(ast.Name(variable.id, span=variable.span))
            self.check_reaches(target, x, variable, statement.value)
            self.check_derivative(target, x, variable.span)
            with self.placing(statement.value.span, [statement.value], [target]):
                match statement.kind:
                    case "grad":
                        node = gradient(target, x)
                    case "hess":
                        node = hessian(target, x)
                    case "jac":
                        node = make(jac, [target, x])
            self.placed(node, statement.span)
            result = make(alias, [node], {"name": ident.id})
            self.origins.record(result, ident.span)
            self.bind(ident, statement.kind, result)

    def optimizer_statement(self, statement: ast.Optimizer) -> None:
        name, words = statement.name, [i.id for i in statement.names]
        if len(words) != 3:
            raise error("E0410", f"`{name.id}` names {counted(len(words), 'thing')}; an optimiser names three",
                        statement.names[0].span.to(statement.names[-1].span), "the variable, its gradient, the step",
                        help=f"write `optimizer {name.id}(…) for p, g, t:`")
        if not any(isinstance(line, ast.Update) and line.target.id == words[0] for line in statement.body):
            raise error("E0410", f"`{name.id}` never updates `{words[0]}`", name.span, "nothing would be trained",
                        help=f"end it with `update {words[0]} <- {words[0]} - rate * {words[1]}`")
        self.bind(name, "optimizer", OptimizerRule(statement, self.scope))

    def def_statement(self, statement: ast.Def) -> None:
        if statement.vjp_parameter is not None:
            raise not_built(statement.span, "`with vjp(…)`")
        names = [p.name.id for p in statement.parameters]
        for parameter in statement.parameters:
            if names.count(parameter.name.id) > 1:
                raise error("E0304", f"parameter `{parameter.name.id}` stands twice", parameter.span)
        if not isinstance(statement.body[-1], ast.Return):
            raise error("E0506", f"`{statement.name.id}` returns nothing", statement.body[-1].span,
                        "the last line of the body", help="end it with `return …`")
        self.bind(statement.name, "def", UserFunction(statement, self.scope))


def unparsed_names(span: Span) -> list[str]:
    """The names on the lines of a statement that could not be parsed, as far as they go up to the error."""
    line = span.line
    while line > 1 and span.source.line(line)[:1].isspace():
        line -= 1
    text = "\n".join(span.source.line(n) for n in range(line, span.line + 1))
    return re.findall(r"[^\W\d]\w*", text)


def mentions(text: str, size: str) -> bool:
    """Whether the shape in a label names the size."""
    _, _, shape = text.partition("[")
    return re.search(rf"\b{re.escape(size)}\b", shape) is not None


