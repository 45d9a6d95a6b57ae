"""`data` statements: files, splits, codes of texts, and arrays handed in from outside.

In: their AST.  Out: names bound to data leaves, tables and columns, evaluated once by the host.
"""
from __future__ import annotations

from typing import Any, Literal

import numpy as np

from dsl.errors import Label, error
from dsl.ir.node import Node, topological
from dsl.ir.types import (
    Dim,
    DType,
    shape_text,
    type_of_array,
)
from dsl.ops.build import literal_value
from dsl.ops.functions import Function
from dsl.ops.leaves import is_leaf, leaf, leaf_name
from dsl.ops.shape import gather
from dsl.syntax import ast
from dsl.syntax.binding import Binder
from dsl.syntax.faults import CONSTANTS
from dsl.syntax.values import (
    Group,
    Host,
    LoadedTable,
    Skipped,
    Symbol,
    Table,
    TextColumn,
    UserFunction,
    Value,
)


class Data(Binder):
    def __init__(self, host: Host, rebind: bool) -> None:
        super().__init__(host)
        self.rebind = rebind
        self.files: set[str] = set()

    def check_free(self, ident: ast.Ident) -> None:
        if ident.id in CONSTANTS:
            raise error("E0305", f"`{ident.id}` is predefined and cannot be bound again", ident.span)
        old = self.scope.maps[0].get(ident.id)
        if old is not None and not self.rebind:
            raise error("E0304", f"`{ident.id}` is bound twice", ident.span, "again here",
                        labels=[Label(old.span, "first bound here")] if old.span else [],
                        help="a name is bound once in a script; choose another")

    def next_generation(self, name: str) -> int:
        if not self.rebind or name not in self.scope:
            return 0
        self.generation += 1
        return self.generation

    def bind(self, ident: ast.Ident, kind: str, value: Value) -> None:
        self.scope.maps[0][ident.id] = Symbol(ident.id, kind, value, ident.span)

    def data_statement(self, statement: ast.Data) -> None:
        self.in_data, self.files = True, set()
        try:
            table, missing = self.replaced_loader(statement.value)
            given = [self.host.given(i.id, table, missing) for i in statement.names]
            if all(g is not None for g in given):
                for ident, array in zip(statement.names, given, strict=True):
                    self.bind_data(ident, self.handed_in(ident.id, array), statement)
                return
            value = self.value(statement.value)
            for ident, part, array in zip(statement.names, self.unpack(statement.names, value, statement.value), given,
                                          strict=True):
                self.bind_data(ident, part if array is None else self.handed_in(ident.id, array), statement)
        finally:
            self.in_data = False

    def replaced_loader(self, value: ast.Expr) -> tuple[bool, Literal["nan", "drop"] | None]:
        """Whether a statement loads a table, and what it says of empty cells: that holds for a table handed in, too."""
        match value:
            case ast.Call(ast.Name("csv" | "parquet" | "npz"), arguments):
                said = [a.value for a in arguments if a.name is not None and a.name.id == "missing"]
                word = next((w.id if isinstance(w, ast.Name) else w.value for w in said if isinstance(w, ast.Name | ast.Text)), None)
                return True, "nan" if word == "nan" else "drop" if word == "drop" else None
            case _:
                return False, None

    def handed_in(self, name: str, value: Any) -> Value:
        """What the host was given for a data name."""
        if isinstance(value, LoadedTable):
            return self.table(name, value)
        return TextColumn(name, value) if value.dtype.kind == "O" else self.data_leaf(name, value)

    def table(self, name: str, loaded: LoadedTable) -> Table:
        columns: dict[str, Node | TextColumn] = {}
        for title, values in loaded.columns.items():
            array = np.asarray(values)
            columns[title] = TextColumn(title, array) if array.dtype.kind in "OUS" else self.data_leaf(f"{name}:{title}", array)
        return Table(name.rsplit("/", 1)[-1], columns, Dim.of(loaded.rows))

    def bind_data(self, ident: ast.Ident, value: Value, statement: ast.Data) -> None:
        file = next(iter(self.files)) if len(self.files) == 1 else self.table_origin(statement.value)
        origin = file or f"{ident.id}, line {ident.span.line}"
        self.data_origin[ident.id] = origin
        if isinstance(value, Node | Group) and not (isinstance(value, Node) and is_leaf(value, "data")
                                                    and leaf_name(value) == ident.id):
            node = self.as_node(value, statement.value)
            self.check_data_only(node, statement)
            array = self.host.evaluate(node)
            if array is None:
                value = leaf("data", ident.id, node.type, self.next_generation(ident.id))
            else:
                value = self.data_leaf(ident.id, array, node.dtype)
        if not isinstance(value, Node | Table | TextColumn):
            raise error("E0204", "`data` holds arrays, tables and columns", statement.value.span,
                        "a function" if isinstance(value, UserFunction) else "")
        self.bind(ident, "data", value)

    def data_leaf(self, name: str, array: Any, dtype: DType | None = None) -> Node:
        """A leaf with this value, an array of NumPy or one that the host keeps on a device."""
        if array.dtype.kind not in "biuf":
            raise error("E0606", f"`{name}` holds {array.dtype}, not numbers")
        type = type_of_array(array, self.precision)
        type = type.with_dtype(dtype) if dtype else type
        node = leaf("data", name, type, self.next_generation(name))
        self.host.keep(node, np.asarray(array, dtype=type.dtype, order="C")[()] if isinstance(array, np.ndarray | np.generic) else array)
        return node

    def check_data_only(self, node: Node, statement: ast.Data) -> None:
        for part in topological([node]):
            if is_leaf(part, "shared", "input", "slot"):
                kind = part.attr("kind")
                word = "shared variable" if kind == "shared" else kind
                raise error("E0510", f"`data` may not read the {word} `{leaf_name(part)}`", statement.value.span,
                            "evaluated once, before anything is trained" if kind == "shared"
                            else "an input has no value here",
                            help="use `let` for what depends on it")

    # ------------------------------------------------------------ loaders
    def data_call(self, expr: ast.Call, row: Function, given: dict[str, Any]) -> Value:
        if not self.in_data:
            raise error("E0511", f"`{row.name}` stands in `data` statements", expr.span,
                        help="write `data A_train, A_test = split(A, test = 0.2)`" if row.name == "split"
                        else f"write `data t = {expr.span.text}` and use `t`")
        match row.name:
            case "csv" | "npy" | "npz" | "parquet":
                return self.load_file(expr, row.name, given)
            case "split":
                return self.split(expr, given)
            case "codes" | "labels":
                return self.coded(expr, row.name, given["column"])
            case _:
                raise AssertionError(row.name)

    def load_file(self, expr: ast.Call, kind: str, given: dict[str, Any]) -> Value:
        path = given["path"]
        if not isinstance(path, ast.Text):
            raise error("E0504", f"`{kind}` takes a path in quotes", path.span,
                        help=f"write `{kind}(\"{path.span.text}\")`")
        options: dict[str, Any] = {}
        if "missing" in given:
            word = given["missing"]
            text = word.id if isinstance(word, ast.Name) else word.value if isinstance(word, ast.Text) else None
            if text not in ("nan", "drop"):
                raise error("E0504", "`missing` is `nan` or `drop`", word.span,
                            help="`nan` reads empty cells as nan, `drop` leaves such rows out")
            options["missing"] = text
        if "separator" in given:
            if not isinstance(given["separator"], ast.Text):
                raise error("E0504", "`separator` is a character in quotes", given["separator"].span)
            options["separator"] = given["separator"].value
        loaded = self.host.load_file(kind, path.value, options, path.span)
        if loaded is None:
            raise Skipped
        self.files.add(path.value.rsplit("/", 1)[-1])
        if isinstance(loaded, LoadedTable):
            return self.table(path.value, loaded)
        return self.data_leaf(path.value, np.asarray(loaded))

    def split(self, expr: ast.Call, given: dict[str, Any]) -> Value:
        test = given["test"]
        share = literal_value(self.node(test))
        if share is None or not 0 < share < 1:
            raise error("E0504", "`test` of `split` is a literal between 0 and 1", test.span,
                        help="`split(A, y, test = 0.2)`")
        parts = [(p, self.value(p)) for p in given["parts"]]
        if not parts:
            raise error("E0502", "`split` needs something to split", expr.span)
        lengths = []
        for part, value in parts:
            match value:
                case Node() if value.rank:
                    lengths.append(value.shape[0].known)
                case Table():
                    lengths.append(value.rows.known)
                case TextColumn():
                    lengths.append(len(value.values))
                case _:
                    raise error("E0204", "`split` takes arrays of rows", part.span)
        if len({n for n in lengths if n is not None}) > 1:
            other = next(i for i, n in enumerate(lengths) if n != lengths[0])
            raise error("E0211",
                        f"{parts[0][0].span.text} has {lengths[0]} rows, but {parts[other][0].span.text} has {lengths[other]}",
                        parts[other][0].span, f"{lengths[other]} rows",
                        labels=[Label(parts[0][0].span, f"{lengths[0]} rows")])
        if lengths[0] is None:
            raise Skipped
        train, held = self.host.split(lengths[0], float(share), self.draw_key())
        rows = [self.data_leaf(f"{self.statement_name} rows {kind}", index) for kind,
                index in (("train", train), ("test", held))]
        return Group(tuple(self._take(value, index, array) for _, value in parts for index,
                           array in zip(rows, (train, held), strict=True)))

    def _take(self, value: Value, index: Node, rows: np.ndarray) -> Value:
        match value:
            case Node():
                picked: Node = gather(value, index)
                return picked
            case TextColumn(name, values):
                return TextColumn(name, values[rows])
            case Table(name, columns):
                taken = {n: self._take(c, index, rows) for n, c in columns.items()}
                return Table(name, {n: c for n, c in taken.items() if isinstance(c, Node | TextColumn)}, index.shape[0])
            case _:
                raise AssertionError(value)

    def coded(self, expr: ast.Call, name: str, column: ast.Expr) -> Value:
        value = self.value(column)
        if not isinstance(value, TextColumn):
            if isinstance(value, Node):
                raise error("E0204", f"`{name}` takes a column of texts", column.span, shape_text(value.shape),
                            help="these are numbers already")
            raise error("E0204", f"`{name}` takes a column of texts", column.span)
        texts, codes = np.unique(value.values.astype(str), return_inverse=True)
        if name == "labels":
            return TextColumn(value.name, texts)
        return self.data_leaf(f"{self.statement_name} codes of {value.name}", codes.astype(np.int64).reshape(-1))
