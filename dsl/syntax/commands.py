"""Commands: `print`, `show`, `plot`, `save`, `assert`, `test`.

In: their AST.  Out: the records that the session runs, over values whose inputs are all bound.
"""
from __future__ import annotations

from collections.abc import Sequence

from dsl.errors import Label, did_you_mean, error
from dsl.ir.node import Node, topological
from dsl.ir.types import (
    Shapes,
    shape_text,
)
from dsl.ops.leaves import is_leaf, leaf_name
from dsl.syntax import ast, program
from dsl.syntax.expressions import literal_int
from dsl.syntax.faults import counted, not_built
from dsl.syntax.names import bound_names
from dsl.syntax.training import Training
from dsl.syntax.values import (
    Group,
    Table,
    TextColumn,
    Value,
)

PLOTS = {"scatter": (1, 2), "line": (1, 2), "hist": (1, 1), "heatmap": (1, 1)}
"""What `plot` draws, and how many arrays it takes, from and to."""


class Commands(Training):
    def command(self, statement: ast.Statement) -> list[program.Item]:
        match statement:
            case ast.Print(items, bindings, expected, expected_span):
                values = [self.bind_value(self.value(i), bindings, i.span) for i in items]
                for item, value in zip(items, values, strict=True):
                    self.check_bound(value, item)
                return [program.Print(statement.span, tuple(values), expected, expected_span)]
            case ast.Show(items, bindings):
                return [program.Show(statement.span, tuple((i.span.text, self.bind_value(self.value(i), bindings,
                                                                                         i.span)) for i in items))]
            case ast.Bare(value_expr):
                if not self.rebind:
                    raise error("E0103", "an expression by itself does nothing in a script", statement.span,
                                help=f"print it: `print {statement.span.text}`")
                value = self.value(value_expr)
                self.check_bound(value, value_expr)
                return [program.Print(statement.span, (value,), None, None)]
            case ast.Plot():
                return [self.plot(statement)]
            case ast.Save(expr, path):
                if expr is None:
                    return [program.SaveState(statement.span, self.state_path(path))]
                node = self.node(expr)
                self.check_bound(node, expr)
                inner = expr.value if isinstance(expr, ast.With) else expr
                name = inner.id if isinstance(inner, ast.Name) else "value"
                return [program.SaveValue(statement.span, name, node, self.text(path, "a path"))]
            case ast.Load(path):
                if self.in_epoch:
                    raise error("E0512", "`load` does not stand inside a `train`", statement.span,
                                "its variables are those of the training", help="load the state above the `train`")
                return [program.LoadState(statement.span, self.state_path(path, reading=True))]
            case ast.GoOn():
                if not self.rebind:
                    raise error("E0422", "`train` by itself goes on with a training that was interrupted", statement.span,
                                "nothing was interrupted in a script", help="say how long: `train 100 epochs over X = A, Y = B`")
                return [program.GoOn(statement.span)]
            case ast.Fit():
                raise not_built(statement.span, "`fit`")
            case ast.Gradcheck():
                raise not_built(statement.span, "`gradcheck`")
            case ast.Assert(condition, reason):
                node = self.node(condition)
                if node.dtype != "bool":
                    raise error("E0203", f"`assert` takes a condition, not {node.dtype}", condition.span,
                                help="compare: `assert abs(w - 2) < 0.1`")
                self.check_bound(node, condition)
                return [program.Assert(statement.span, node, self.text(reason, "a reason") if reason else None)]
            case ast.Test(name, body):
                return [program.Test(statement.span, name.value, tuple(self.test_body(body)))]
            case _:
                words = type(statement).__name__.lower()
                raise error("E0512", f"`{words}` does not stand here", statement.span)

    def text(self, expr: ast.Expr, what: str) -> str:
        if isinstance(expr, ast.Text):
            return expr.value
        raise error("E0504", f"{what} is a text in quotes", expr.span)

    def test_body(self, body: Sequence[ast.Statement]) -> list[program.Item]:
        items: list[program.Item] = []
        with self.inside(self.scope.new_child()):
            for statement in body:
                for ident in bound_names(statement):
                    self.check_free(ident)
                items.extend(self._dispatch(statement))
        return items

    def plot(self, statement: ast.Plot) -> program.Plot:
        marks = []
        for mark in statement.marks:
            if not isinstance(mark, ast.Call) or not isinstance(mark.function, ast.Name) or \
                    mark.function.id not in PLOTS:
                name = mark.function.span.text if isinstance(mark, ast.Call) else mark.span.text
                near = did_you_mean(name, PLOTS)
                self.check_unparsed(name)
                raise error("E0513", f"no plot `{name}`", mark.span, help=f"did you mean `{near}`?" if near
                            else "`scatter(x, y)`, `line(x, y)`, `hist(x)`, `heatmap(A)`")
            kind = mark.function.id
            low, high = PLOTS[kind]
            arrays, bins = [], None
            for argument in mark.arguments:
                if argument.name is not None and argument.name.id == "bins" and kind == "hist":
                    bins = literal_int(argument.value)
                    if bins is None or bins < 1:
                        raise error("E0504", "`bins` is a literal integer, at least 1", argument.span)
                elif argument.name is not None:
                    raise error("E0503", f"`{kind}` has no parameter `{argument.name.id}`", argument.name.span,
                                help="`hist` takes `bins`; the others take arrays only")
                else:
                    node = self.node(argument.value)
                    self.check_bound(node, argument.value)
                    if node.rank > (2 if kind == "heatmap" else 1):
                        wanted, help = ("a matrix", None) if kind == "heatmap" else ("vectors", "draw a column, "
                                        f"`{argument.value.span.text}[:, 0]`, or the matrix as a `heatmap`")
                        raise error("E0204", f"`{kind}` draws {wanted}, not {shape_text(node.shape)}", argument.span,
                                    help=help)
                    shown = argument.value.value if isinstance(argument.value, ast.With) else argument.value
                    arrays.append((shown.span.text, node))
            if not low <= len(arrays) <= high:
                wanted = f"{low} or {high} arrays" if low != high else counted(low, "array")
                raise error("E0502", f"`{kind}` takes {wanted}, not {len(arrays)}", mark.span)
            self.check_lengths(kind, arrays, mark)
            marks.append(program.Mark(kind, tuple(arrays), bins, mark.span))
        title = self.text(statement.title, "a title") if statement.title else None
        return program.Plot(statement.span, tuple(marks), title,
                            self.text(statement.path, "a path") if statement.path else None)

    def check_lengths(self, kind: str, arrays: Sequence[tuple[str, Node]], mark: ast.Expr) -> None:
        if len(arrays) == 2 and arrays[0][1].rank == arrays[1][1].rank == 1:
            (name_x, x), (name_y, y) = arrays
            if Shapes().equal(x.shape[0], y.shape[0]) is None:
                raise error("E0211", f"{name_x} has {x.shape[0]} values, but {name_y} has {y.shape[0]}", mark.span,
                            f"`{kind}` needs as many of each")

    def check_bound(self, value: Value, expr: ast.Expr) -> None:
        """Every input of a value that is asked for has been given one."""
        if isinstance(value, Group):
            for item in value.items:
                self.check_bound(item, expr)
            return
        if not isinstance(value, Node):
            self.as_node(value, expr) if not isinstance(value, str | TextColumn | Table) else None
            return
        free = sorted({leaf_name(n) for n in topological([value]) if is_leaf(n, "input")})
        if free:
            names = " and ".join(f"`{n}`" for n in free)
            given = ", ".join(f"{n} = …" for n in free)
            inner = expr.value.span.text if isinstance(expr, ast.With) else expr.span.text
            symbols = [s for n in free if (s := self.scope.get(n)) and s.kind == "input"]
            labels = [Label(s.span, f"`{s.name}` is an input") for s in symbols if s.span]
            raise error("E0407", f"{names} {'has' if len(free) == 1 else 'have'} no value here", expr.span,
                        "needs " + names, labels=labels,
                        help=f"give {'it' if len(free) == 1 else 'them'}: `{inner} with {given}`")
