"""Calls: of built-in functions and of those the script defines.

In: a `Call` of the AST.  Out: a value.  A function of the script is elaborated anew at each call, in its own scope, so
that its draws are keyed by the path of calls.
"""
from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dsl.errors import Label, LrError, Span, error
from dsl.ir.node import Node, make
from dsl.ir.types import (
    Shape,
    TypeFault,
    shape_text,
)
from dsl.ops.build import as_dim
from dsl.ops.functions import FORMS, FUNCTIONS, LATER, Function, Parameter
from dsl.ops.scalar import alias
from dsl.ops.table import constant
from dsl.syntax import ast
from dsl.syntax.elsewhere import function_elsewhere
from dsl.syntax.expressions import literal_int
from dsl.syntax.faults import counted, kind_words, listing, nearest, not_built
from dsl.syntax.loops import Loops
from dsl.syntax.values import (
    Group,
    Skipped,
    Symbol,
    UserFunction,
    Value,
)

MOST_CALLS = 5_000
"""Calls of script functions in one statement: each is elaborated anew, so a chain of doublings would never end."""


class Calls(Loops):
    def call(self, expr: ast.Call) -> Value:
        function = expr.function
        if isinstance(function, ast.Name):
            symbol = self.scope.get(function.id)
            if symbol is not None and isinstance(symbol.value, UserFunction):
                return self.user_call(expr, function.id, symbol.value)
            if symbol is not None and symbol.value is None and (symbol.kind == "def" or function.id not in FUNCTIONS):
                raise Skipped
            if function.id in FUNCTIONS:
                return self.built_in(expr, FUNCTIONS[function.id])
            if function.id in LATER:
                raise not_built(expr.span, f"`{function.id}`")
            if symbol is None:
                raise self.unknown_function(function)
            words = kind_words(symbol.kind)
            raise error("E0501", f"`{function.id}` is not a function", function.span, words,
                        labels=[Label(symbol.span, "bound here")] if symbol.span else [],
                        help=f"call a name in it: `{function.id}.f(…)`" if symbol.kind == "module"
                        else f"write `{function.id} * (…)` to multiply, `{function.id}[…]` to index")
        target = self.value(function)
        if isinstance(target, UserFunction):
            return self.user_call(expr, function.span.text, target)
        raise error("E0501", f"`{function.span.text}` is not a function", function.span, "cannot be called")

    def unknown_function(self, function: ast.Name) -> LrError:
        self.check_unparsed(function.id)
        if function.id in self.later:
            return self.bound_later(function.id, function.span)
        callables = [n for n, s in self.scope.items() if isinstance(s.value, UserFunction)]
        near = nearest(function.id, [*FUNCTIONS, *FORMS, *LATER, *callables])
        return error("E0302", f"no function `{function.id}`", function.span, "not a function",
                     help=function_elsewhere(function.id) or (f"did you mean `{near}`?" if near else
                                                              f"define it: `def {function.id}(x) = …`"))

    def built_in(self, expr: ast.Call, row: Function) -> Value:
        given = self.match_arguments(expr, row)
        if row.build is None:
            return self.data_call(expr, row, given)
        values: list[Any] = []
        operands: list[ast.Expr] = []
        shown: list[Value] = []
        for parameter in row.parameters:
            argument = given.get(parameter.name)
            if argument is None:
                default = parameter.default
                if isinstance(default, int | float) and parameter.name in ("delta",):
                    default = constant(default, self.precision)
                values.append(default)
                continue
            values.append(self.argument(row, parameter.name, argument))
            if isinstance(values[-1], Node) and isinstance(argument, ast.Expr):
                operands.append(argument)
                shown.append(values[-1])
            elif parameter.name == "parts" and isinstance(argument, ast.Tuple | ast.Array):
                operands.extend(argument.items)
                shown.extend(values[-1])
        if row.group == "derivative" and len(shown) > 1 and isinstance(values[0], Node) and isinstance(values[1], Node):
            self.check_derivative(values[0], values[1], expr.span)
        with self.placing(expr.span, operands, shown):
            try:
                result = row.build(self, *values)
            except TypeFault as fault:
                self._call_fault(fault, row, given, [v for v in shown if isinstance(v, Node)])
                raise
        if isinstance(result, tuple):
            return Group(tuple(self.placed(r, expr.span) for r in result))
        return self.placed(result, expr.span)

    def _call_fault(self, fault: TypeFault, row: Function, given: dict[str, Any], arrays: Sequence[Node]) -> None:
        """A fault in the words of the call."""
        types = " and ".join(shape_text(v.shape) for v in arrays)
        where = given.get("axis", given.get("axes"))
        if fault.kind == "axis" and isinstance(where, ast.Expr):
            fault.span = where.span
        if fault.kind == "axis" and row.name in ("max", "min") and isinstance(given.get("axis"), ast.Expr):
            fault.help = f"of two values, `{row.name}imum(a, b)` takes the {'greater' if row.name == 'max' else 'lesser'}; {fault.help}"
        if fault.message.startswith("takes "):
            fault.message = f"`{row.name}` {fault.message}"
        if fault.kind == "empty":
            fault.message, fault.detail = f"`{row.name}` of no elements", types
        if fault.kind == "shape" and len(arrays) > 1 and "do not agree" in fault.message:
            fault.message = f"`{row.name}` cannot combine {types}"
        if row.name == "stack" and fault.kind in ("shape", "rank"):
            fault.message, fault.detail = f"`stack` needs parts of one shape, not {types}", ""
        if row.name == "concat" and fault.kind == "shape":
            fault.message = f"`concat` cannot join {types}"
            fault.help = "parts have the same number of axes, and one length along every axis but the joined one"

    def match_arguments(self, expr: ast.Call, row: Function) -> dict[str, Any]:
        """Arguments by parameter name; surplus sizes after `shape` belong to it."""
        given: dict[str, Any] = {}
        names = [p.name for p in row.parameters]
        positional = [a.value for a in expr.arguments if a.name is None]
        variadic = next((p for p in row.parameters if p.variadic), None)
        if variadic:
            given[variadic.name] = positional
        else:
            if len(positional) > len(names):
                if names and names[-1] == "shape":
                    first = len(names) - 1
                    span = positional[first].span.to(positional[-1].span)
                    positional = [*positional[:first], ast.Tuple(tuple(positional[first:]), span=span)]
                else:
                    raise error("E0502", f"`{row.name}` takes {counted(len(names), 'argument')}, not {len(positional)}",
                                expr.span,
                                help=f"`{row.signature}`")
            given.update(zip(names, positional, strict=False))
        for argument in expr.arguments:
            if argument.name is None:
                continue
            name = argument.name.id
            if name not in names or (variadic and name == variadic.name):
                near = nearest(name, names)
                raise error("E0503", f"`{row.name}` has no parameter `{name}`", argument.name.span, "no such parameter",
                            help=f"did you mean `{near}`?" if near else f"`{row.signature}`")
            if name in given:
                raise error("E0502", f"`{row.name}` is given `{name}` twice", argument.span, help=f"`{row.signature}`")
            given[name] = argument.value
        missing = [p.name for p in row.parameters if p.required and p.name not in given]
        if missing:
            raise error("E0502", f"`{row.name}` needs {listing(missing)}", expr.span,
                        help="write `split(A, y, test = 0.2)`" if row.name == "split" else f"`{row.signature}`")
        return given

    def argument(self, row: Function, name: str, expr: ast.Expr) -> Any:
        """An argument as its parameter wants it."""
        if isinstance(expr, ast.Name) and expr.id == "none" and "none" not in self.scope:
            if any(p.name == name and p.default is None and not p.required for p in row.parameters):
                return None
            raise error("E0504", f"`{name}` of `{row.name}` has to be given", expr.span, "nothing", help=f"`{row.signature}`")
        match name:
            case "axis" if row.name in ("concat", "stack") and isinstance(expr, ast.Tuple | ast.Array):
                raise error("E0504", f"`{row.name}` takes its arrays in brackets of their own", expr.span, f"an array as `{name}`",
                            help=f"write `{row.name}((a, b))`")
            case "axis" | "axes" | "k" | "ddof":
                return self.literal_ints(row, name, expr)
            case "keepdims":
                if not isinstance(expr, ast.Boolean):
                    raise error("E0504", f"`{name}` of `{row.name}` is `true` or `false`", expr.span)
                return expr.value
            case "shape" | "reps":
                return self.shape_argument(expr, least=-1 if row.name == "reshape" else 0)
            case "n" | "m":
                with self.placing(expr.span):
                    length = as_dim(self.node(expr))
                if length.constant is not None and length.constant < 0:
                    raise error("E0208", f"a length is not negative: {length}", expr.span)
                return length
            case "parts":
                items = expr.items if isinstance(expr, ast.Tuple | ast.Array) else None
                value = None if items else self.value(expr)
                if isinstance(value, Group):
                    return [self.as_node(v, expr) for v in value.items]
                if items is None:
                    raise error("E0504", f"`{row.name}` takes several arrays in brackets", expr.span,
                                help=f"write `{row.name}((a, b))`")
                return [self.node(i) for i in items]
            case "x" if row.group == "derivative" and row.name != "stop_grad":
                return self.wrt(expr)
            case _:
                return self.node(expr)

    def literal_ints(self, row: Function, name: str, expr: ast.Expr) -> Any:
        if name in ("axis", "axes") and isinstance(expr, ast.Tuple | ast.Array):
            items = [literal_int(i) for i in expr.items]
            if None not in items:
                return tuple(items)
        elif (value := literal_int(expr)) is not None:
            return value
        raise error("E0504", f"`{name}` of `{row.name}` is a literal integer", expr.span, "not a literal")

    def shape_argument(self, expr: ast.Expr, least: int = 0) -> Shape:
        with self.placing(expr.span):
            value = self.value(expr)
            if isinstance(value, Group):
                lengths = tuple(as_dim(self.as_node(i, expr)) for i in value.items)
            elif isinstance(expr, ast.Array):
                lengths = tuple(as_dim(self.node(i)) for i in expr.items)
            else:
                lengths = (as_dim(self.as_node(value, expr)),)
        for length in lengths:
            if length.constant is not None and length.constant < least:
                raise error("E0208", f"a length is not negative: {length}", expr.span)
        return lengths

    @abstractmethod
    def data_call(self, expr: ast.Call, row: Function, given: dict[str, Any]) -> Value:
        """A call of what the runtime does: reading files, splitting data."""

    def user_call(self, expr: ast.Call, name: str, function: UserFunction) -> Value:
        definition = function.definition
        row = Function(name, tuple(parameter_of(p) for p in definition.parameters), "", "", None)
        given = self.match_arguments(expr, row)
        if any(active is definition for active in self.active):
            raise error("E0505", f"`{name}` calls itself", expr.span, "a recursive call",
                        help="use `fold` or `scan` for loops")
        self.calls += 1
        if self.calls > MOST_CALLS:
            raise error("E0505", f"this statement makes more than {MOST_CALLS} calls", expr.span, "too many by here",
                        help="name what is used more than once with `let`, so that it is computed once")
        if len(self.active) > 40:
            raise error("E0505", "functions call each other too deep", expr.span)
        arguments: dict[str, Symbol] = {}
        for parameter in definition.parameters:
            supplied = given.get(parameter.name.id)
            if supplied is not None:
                value = self.value(supplied)
            else:
                assert parameter.default is not None
                with self.inside(function.scope):
                    value = self.value(parameter.default)
                    value = self.float_literal(parameter.default, value)
            arguments[parameter.name.id] = Symbol(parameter.name.id, "parameter", value, parameter.name.span)
        for key, symbol in arguments.items():
            if isinstance(symbol.value, Node):
                arguments[key] = Symbol(key, "parameter", make(alias, [symbol.value], {"name": f"{name}.{key}"}),
                                        symbol.span)
        place, outer = self.draws, self.call_path
        self.active.append(definition)
        self.call_path, self.draws = (*outer, name, place), 0
        try:
            with self.inside(function.scope.new_child(arguments)):
                return self.body(definition.body)
        except LrError as problem:
            raise self._called_from(problem, name, expr.span) from None
        finally:
            self.call_path, self.draws = outer, place + 1
            self.active.pop()

    def _called_from(self, problem: LrError, name: str, span: Span) -> LrError:
        """The same error with the call that led to it."""
        first, *rest = problem.diagnostics
        if any(label.text.startswith("in this call") for label in first.labels):
            return problem
        called = replace(first, labels=(*first.labels, Label(span, f"in this call of `{name}`")))
        if first in self.concerning:
            self.concerning[called] = self.concerning[first]
        return type(problem)(called, *rest)

    def body(self, statements: Sequence[ast.Statement]) -> Value:
        for statement in statements:
            match statement:
                case ast.Define("let", idents, value):
                    self.bind_local(idents, self.float_literal(value, self.value(value)), value)
                case ast.Return(value):
                    return self.value(value)
                case _:
                    raise error("E0506", "a function holds `let` and `return`", statement.span, "not here")
        raise error("E0506", "this function returns nothing", statements[-1].span, help="end it with `return …`")


def parameter_of(parameter: ast.Parameter) -> Parameter:
    """A parameter of a definition, its default shown as it is written."""
    default = parameter.default.span.text if parameter.default is not None else None
    return Parameter(parameter.name.id, default, required=default is None)
