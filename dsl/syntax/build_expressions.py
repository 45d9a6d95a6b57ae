"""Building expressions: in come the children of a production, out goes an AST node with its span.

The methods are named like the rules and aliases of `grammar/lr.lark`; `build.py` adds those of the statements.  Each
gets the start and end of its text.  What stands left of `=` in a call, and the forms of loops, are checked here: the
grammar reads them as expressions.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dsl.errors import Diagnostic, Label, Source, Span
from dsl.syntax import ast
from dsl.syntax.layout import Token

_LOOPS = {"scan": "scan(v = v0 for t in ts: expr)", "fold": "fold(v = v0 for t in ts: expr)",
          "iterate": "iterate(v = v0 while condition max 100: expr)"}


class ExpressionBuilder:
    """Names, bindings and expressions; `mistake` reports what the grammar let pass."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.diagnostics: list[Diagnostic] = []
        self.large: list[Span] = []             # literals 2**63, which only a minus sign makes an int64

    def span(self, start: int, end: int) -> Span:
        return Span(self.source, start, end)

    def mistake(self, code: str, message: str, span: Span, label: str = "", *labels: Label,
                help: str | None = None) -> None:
        self.diagnostics.append(Diagnostic(code, message, Label(span, label), labels, help=help))

    # ------------------------------------------------------------ names and bindings
    def name(self, start: int, end: int, word: Token) -> ast.Ident:
        return ast.Ident(word.text, span=self.span(start, end))

    def names(self, start: int, end: int, *names: ast.Ident) -> tuple[ast.Ident, ...]:
        return names

    def binding(self, start: int, end: int, name: ast.Ident, value: ast.Expr) -> ast.Binding:
        return ast.Binding(name, value, span=self.span(start, end))

    def bindings(self, start: int, end: int, *bindings: ast.Binding) -> tuple[ast.Binding, ...]:
        self.once((binding.name for binding in bindings), "name")
        return bindings

    def once(self, names: Iterable[ast.Ident], what: str) -> None:
        seen: dict[str, ast.Ident] = {}
        for name in names:
            if name.id in seen:
                self.mistake("E0135", f"{what} `{name.id}` is given twice", name.span, "",
                             Label(seen[name.id].span, "given here first"), help="keep one of the two")
            seen.setdefault(name.id, name)

    # ------------------------------------------------------------ expressions
    def number(self, start: int, end: int, literal: Token) -> ast.Number:
        span = self.span(start, end)
        if literal.text.isdigit():
            value = int(literal.text)
            if value == 2**63:
                self.large.append(span)
            return ast.Number(value, span=span)
        return ast.Number(float(literal.text), span=span)

    def text(self, start: int, end: int, literal: Token) -> ast.Text:
        return ast.Text(literal.text, span=self.span(start, end))

    def boolean(self, start: int, end: int, word: Token) -> ast.Boolean:
        return ast.Boolean(word.text == "true", span=self.span(start, end))

    def variable(self, start: int, end: int, word: Token) -> ast.Name:
        return ast.Name(word.text, span=self.span(start, end))

    def unary(self, start: int, end: int, sign: Token, operand: ast.Expr) -> ast.Expr:
        span = self.span(start, end)
        if sign.text == "-" and self.large and self.large[-1] is operand.span:
            self.large.pop()
            return ast.Number(-2**63, span=span)
        return ast.Unary(sign.text, operand, span=span)  # type: ignore[arg-type]

    def binary(self, start: int, end: int, left: ast.Expr, sign: Token, right: ast.Expr) -> ast.Binary:
        return ast.Binary(sign.text, left, right, span=self.span(start, end), op_span=self.span(sign.start, sign.end))

    power = binary

    def chained_comparison(self, start: int, end: int, *parts: Any) -> ast.Expr:
        operands, signs = parts[::2], parts[1::2]
        left, middle, right = (shortened(operand.span.text) for operand in operands[:3])
        self.mistake("E0126", "comparisons cannot be chained", self.span(signs[1].start, signs[1].end), "",
                    Label(self.span(signs[0].start, signs[0].end), "the first comparison"),
                    help=f"write `{left} {signs[0].text} {middle} and {middle} {signs[1].text} {right}`")
        return self.binary(start, operands[1].span.end, operands[0], signs[0], operands[1])

    def if_(self, start: int, end: int, condition: ast.Expr, value: ast.Expr, otherwise: ast.Expr) -> ast.Conditional:
        return ast.Conditional(condition, value, otherwise, span=self.span(start, end))

    def with_(self, start: int, end: int, value: ast.Expr, bindings: tuple[ast.Binding, ...]) -> ast.With:
        return ast.With(value, bindings, span=self.span(start, end))

    def attribute(self, start: int, end: int, value: ast.Expr, name: ast.Ident) -> ast.Attribute:
        return ast.Attribute(value, name, span=self.span(start, end))

    def index(self, start: int, end: int, value: ast.Expr, *items: Any) -> ast.Index:
        return ast.Index(value, items, span=self.span(start, end))

    def slice_(self, start: int, end: int, first: ast.Expr | None, stop: ast.Expr | None,
               step: ast.Expr | None) -> ast.Slice:
        return ast.Slice(first, stop, step, span=self.span(start, end))

    def new_axis(self, start: int, end: int) -> ast.NewAxis:
        return ast.NewAxis(span=self.span(start, end))

    def dots(self, start: int, end: int) -> ast.Dots:
        return ast.Dots(span=self.span(start, end))

    def tuple_(self, start: int, end: int, *items: ast.Expr) -> ast.Tuple:
        return ast.Tuple(items, span=self.span(start, end))

    def array(self, start: int, end: int, *items: ast.Expr | None) -> ast.Array:
        return ast.Array(_present(items), span=self.span(start, end))

    # ------------------------------------------------------------ calls and loops
    def positional(self, start: int, end: int, value: ast.Expr) -> ast.Argument:
        return ast.Argument(None, value, span=self.span(start, end))

    def keyword(self, start: int, end: int, target: ast.Expr, value: ast.Expr) -> ast.Argument:
        if isinstance(target, ast.Name):
            return ast.Argument(ast.Ident(target.id, span=target.span), value, span=self.span(start, end))
        self.mistake("E0139", "an argument's name stands left of `=`", target.span, "this is no name",
                    help="to compare, write `==`")
        return ast.Argument(None, value, span=self.span(start, end))

    def call(self, start: int, end: int, function: ast.Expr, *items: ast.Argument | None) -> ast.Call:
        span = self.span(start, end)
        arguments = _present(items)
        if not isinstance(function, ast.Name | ast.Attribute):
            self.mistake("E0142", f"`{shortened(function.span.text)}` is no function", function.span,
                        help="a product is written `a * (b + c)`")
        named: ast.Argument | None = None
        for argument in arguments:
            if argument.name is not None:
                named = argument
            elif named is not None and named.name is not None:
                self.mistake("E0139", f"an argument without a name after `{named.name.id} = …`", argument.span, "",
                            Label(named.span, "from here on every argument has a name"),
                            help="put the arguments without a name first")
        if named is not None:
            self.once((argument.name for argument in arguments if argument.name is not None), "argument")
        if isinstance(function, ast.Name) and function.id in _LOOPS:
            form = _LOOPS[function.id]
            self.mistake("E0138", f"`{function.id}` is not written like this", span, help=f"write `{form}`")
        return ast.Call(function, arguments, span=span)

    def loop(self, start: int, end: int, function: ast.Expr, states: ast.Expr, starts: ast.Expr, elements: ast.Expr,
             sequences: ast.Expr, body: ast.Expr) -> ast.Expr:
        span = self.span(start, end)
        kind = self._loop_kind(function, ("scan", "fold"), "`for`")
        names, values, tupled = self._pairs(states, starts, "start value")
        items, columns, _ = self._pairs(elements, sequences, "sequence")
        return ast.Loop("fold" if kind == "fold" else "scan", names, values, items, columns, body, tupled, span=span)

    def iterate(self, start: int, end: int, function: ast.Expr, states: ast.Expr, starts: ast.Expr, condition: ast.Expr,
                limit: ast.Expr, body: ast.Expr) -> ast.Expr:
        self._loop_kind(function, ("iterate",), "`while`")
        names, values, tupled = self._pairs(states, starts, "start value")
        return ast.Iterate(names, values, condition, limit, body, tupled, span=self.span(start, end))

    def _loop_kind(self, function: ast.Expr, kinds: Sequence[str], word: str) -> str:
        if isinstance(function, ast.Name) and function.id in kinds:
            return function.id
        self.mistake("E0138", f"{word} belongs inside {' or '.join(f'`{kind}(…)`' for kind in kinds)}", function.span,
                    help=f"write `{_LOOPS[kinds[0]]}`")
        return kinds[0]

    def _pairs(self, left: ast.Expr, right: ast.Expr,
               what: str) -> tuple[tuple[ast.Ident, ...], tuple[ast.Expr, ...], bool]:
        """Names, their values, and whether they were written as tuples; one value for each name, also after a mistake."""
        tupled = isinstance(left, ast.Tuple)
        targets = left.items if isinstance(left, ast.Tuple) else (left,)
        values = right.items if tupled and isinstance(right, ast.Tuple) else (right,)
        names = []
        for target in targets:
            if isinstance(target, ast.Name):
                names.append(ast.Ident(target.id, span=target.span))
            else:
                self.mistake("E0130", "a loop needs a name here", target.span, help="`scan(v = v0 for t in ts: expr)`")
                names.append(ast.Ident(f" {len(names)}", span=target.span))
        if len(targets) != len(values):
            self.mistake("E0138", f"{len(targets)} names, but {len(values)} {what}{'s' if len(values) != 1 else ''}",
                        right.span, "", Label(left.span, "for these names"),
                        help=f"write one {what} for each name: `(p, q)` goes with `(p0, q0)`")
        self.once(names, "name")
        count = min(len(names), len(values))
        return tuple(names[:count]), tuple(values[:count]), tupled


def _present(items: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(item for item in items if item is not None)


def shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 40 else line[:37] + "…"
