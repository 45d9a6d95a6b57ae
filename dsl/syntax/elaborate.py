"""Statements to a program.

In: the AST of a script, one statement after the other.  Out: names bound to typed graphs, and the records of
`dsl/syntax/program.py` for what runs.  A statement in error binds its names to nothing, so that all errors of a file come
out in one go and none twice.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dsl.errors import Diagnostic, Label, LrError, Source, did_you_mean, error
from dsl.ir.node import Node, make, reaches, topological
from dsl.ir.types import ArrayType, Dim, DType, Shape, Shapes, Size, TypeFault, is_float, is_int, shape_text, type_of_array
from dsl.ops.calculus import gradient, hessian, jac
from dsl.ops.functions import Function, as_dim, dim_node, literal_value
from dsl.ops.leaves import is_leaf, leaf, leaf_name
from dsl.ops.scalar import alias
from dsl.ops.shape import dim, expand, gather, reshape
from dsl.ops.table import cast, constant
from dsl.syntax import ast, program
from dsl.syntax.binding import Binder
from dsl.syntax.expressions import CONSTANTS, not_built
from dsl.syntax.parse import parse
from dsl.syntax.training import Training
from dsl.syntax.values import Group, Host, LoadedTable, Module, OptimizerRule, Scope, SizeFact, Skipped, Symbol, Table, TextColumn, UserFunction, Value

DTYPE_WORDS: dict[str, DType | None] = {"bool": "bool", "int": "int64", "int64": "int64", "int32": "int32", "float": None,
                                        "float32": "float32", "float64": "float64"}
RANKS = {"scalar": 0, "vector": 1, "matrix": 2}
DEVICES = ("auto", "cpu", "cuda", "numpy")


class Elaborator(Training, Binder):
    """The names bound so far and what is to run; `statement` adds one statement."""

    def __init__(self, host: Host, *, precision: str | None = None, seed: int | None = None, device: str | None = None,
                 overrides: dict[str, str] | None = None, rebind: bool = False) -> None:
        Binder.__init__(self, host)
        self.fixed_header = {k for k, v in (("precision", precision), ("seed", seed), ("device", device)) if v is not None}
        self.precision = self._dtype_word(precision) if precision else "float64"
        self.seed = seed or 0
        self.device = device or "auto"
        self.overrides = dict(overrides or {})
        self.used_overrides: set[str] = set()
        self.rebind = rebind
        self.warnings: list[Diagnostic] = []
        self.generation = 0
        self.files: set[str] = set()
        self.importing: tuple[str, ...] = ()
        self.begun = False
        self.init_training()

    # ------------------------------------------------------------ scripts
    def script(self, statements: Sequence[ast.Statement]) -> tuple[list[program.Item], list[Diagnostic]]:
        """Every statement in order: what they become, and every error found."""
        items: list[program.Item] = []
        found: list[Diagnostic] = []
        for statement in statements:
            try:
                items.extend(self.statement(statement))
            except LrError as problem:
                found.extend(problem.diagnostics)
        return items, [self.finished(d) for d in found]

    def finished(self, diagnostic: Diagnostic) -> Diagnostic:
        """A diagnostic with the values of the sizes it speaks of, known by the end of the script."""
        facts = []
        for dim in self.concerning.get(diagnostic, ()):
            for size in dim.sizes():
                fact = self.sizes.get(size.name) or self.seen_sizes.get(size.name)
                words = f"{size.name} = {fact.value} from {fact.origin}" if fact else f"{size.name} = {size.value}" if size.value is not None else None
                if words and size.named and words not in facts:
                    facts.append(words)
        if not facts or diagnostic.primary is None:
            return diagnostic
        text = ", ".join([*([diagnostic.primary.text] if diagnostic.primary.text else []), *facts])
        return replace(diagnostic, primary=Label(diagnostic.primary.span, text))

    def statement(self, statement: ast.Statement) -> list[program.Item]:
        """One statement; on an error its names are bound to nothing and `LrError` is raised."""
        self.draws, self.call_path, self.declared_shape = 0, (), None
        names = bound_names(statement)
        self.statement_name = " ".join(i.id for i in names) or f"{type(statement).__name__} {' '.join(statement.span.text.split())}"
        before = set(self.scope)
        try:
            for ident in names:
                self.check_free(ident)
            return self._dispatch(statement)
        except Skipped:
            self.poison(names, before, statement)
            return []
        except LrError as problem:
            self.poison(names, before, statement)
            raise problem.placed(statement.span) from None
        except RecursionError:
            self.poison(names, before, statement)
            raise error("E0109", "this statement is nested too deep", statement.span, help="name parts of it with `let`") from None

    def poison(self, names: Iterable[ast.Ident], before: set[str], statement: ast.Statement) -> None:
        kind = "def" if isinstance(statement, ast.Def) else "failed"
        for ident in names:
            if ident.id not in before or self.rebind is False:
                self.scope.maps[0].setdefault(ident.id, Symbol(ident.id, kind, None, ident.span))

    def check_free(self, ident: ast.Ident) -> None:
        if ident.id in CONSTANTS:
            raise error("E0305", f"`{ident.id}` is predefined and cannot be bound again", ident.span)
        old = self.scope.maps[0].get(ident.id)
        if old is not None and not self.rebind:
            raise error("E0304", f"`{ident.id}` is bound twice", ident.span, "again here",
                        labels=[Label(old.span, "first bound here")] if old.span else [], help="a name is bound once in a script; choose another")

    def bind(self, ident: ast.Ident, kind: str, value: Value) -> None:
        self.scope.maps[0][ident.id] = Symbol(ident.id, kind, value, ident.span)

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
            case ast.Optimizer(name):
                self.bind(name, "optimizer", OptimizerRule(statement, self.scope))
            case _:
                return self.command(statement)
        return []

    # ------------------------------------------------------------ header
    def _dtype_word(self, word: str) -> DType:
        return "float32" if word == "float32" else "float64"

    def precision_statement(self, dtype: ast.Ident) -> None:
        if dtype.id not in ("float32", "float64"):
            raise error("E0509", f"no precision `{dtype.id}`", dtype.span, help="`precision float32` or `precision float64`")
        if self.begun:
            raise error("E0509", "`precision` stands before everything that has a dtype", dtype.span, help="move it to the top of the script")
        if "precision" not in self.fixed_header:
            self.precision = self._dtype_word(dtype.id)

    def seed_statement(self, value: ast.Expr) -> None:
        seed = self._literal_int(value)
        if seed is None or seed < 0:
            raise error("E0509", "a seed is a whole number, not negative", value.span)
        if self.begun:
            raise error("E0509", "`seed` stands before every random draw", value.span, help="move it to the top of the script")
        if "seed" not in self.fixed_header:
            self.seed = seed

    def device_statement(self, name: ast.Ident) -> None:
        if name.id not in DEVICES:
            near = did_you_mean(name.id, DEVICES)
            raise error("E0509", f"no device `{name.id}`", name.span, help=f"did you mean `{near}`?" if near else "`auto`, `cpu`, `cuda` or `numpy`")
        if "device" not in self.fixed_header:
            self.device = name.id

    def import_statement(self, statement: ast.Import) -> None:
        path = statement.path.value
        source = self.host.read_script(path, statement.path.span)
        if source.name in self.importing:
            raise error("E0508", f"`{path}` imports itself", statement.path.span, " → ".join((*self.importing, source.name)))
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
                    if not isinstance(statement, ast.Def | ast.Optimizer | ast.Define | ast.Dim | ast.Import | ast.Use) or \
                            (isinstance(statement, ast.Define) and statement.kind != "let"):
                        raise error("E0508", "an imported script holds definitions only", statement.span, "not a definition",
                                    help="keep `def`, `optimizer`, `let` and `dim` there, and the rest in the script that imports it")
                    self._dispatch(statement)
                return self.scope
        finally:
            self.importing = before

    # ------------------------------------------------------------ sizes and inputs
    def dim_item(self, item: ast.DimItem) -> None:
        name, value = item.name.id, None
        if name in self.overrides:
            value = self.override(item.name, item.value, integer=True)
        elif item.value is not None:
            self.in_data = True
            try:
                with self.placing(item.value.span):
                    length = as_dim(self.node(item.value))
            finally:
                self.in_data = False
            value = length.known
            if value is None and not any(not s.named for s in length.sizes()):
                fact = length.evaluate({n: f.value for n, f in self.sizes.items()})
                value = fact
            if value is None and not length.anonymous:
                raise error("E0208", "the value of this dim is not known yet", item.value.span, str(length),
                            help="a `dim` is fixed by literals, by `data`, or left open: `dim n`")
        if value is not None and value < 0:
            raise error("E0208", f"a size is not negative: {value}", item.value.span if item.value else item.name.span)
        size = Size(name, True, value)
        if value is not None:
            self.sizes[name] = SizeFact(value, f"`dim {name}`, line {item.name.span.line}")
        self.scope.maps[0][name] = Symbol(name, "dim", dim_node(Dim.of(size)) if value is None else self._fixed_dim(size), item.name.span)

    def _fixed_dim(self, size: Size) -> Node:
        result: Node = dim(dim=Dim.of(size))
        return result

    def shape_of(self, items: Sequence[ast.Expr]) -> Shape:
        """A declared shape; a name that is not bound yet becomes a dim."""
        for item in items:
            for name in names_in(item):
                if name.id not in self.scope and name.id not in CONSTANTS:
                    self.scope.maps[0][name.id] = Symbol(name.id, "dim", dim_node(Dim.of(Size(name.id))), name.span)
        lengths = []
        for item in items:
            with self.placing(item.span):
                length = as_dim(self.node(item))
            if length.constant is not None and length.constant < 0:
                raise error("E0208", f"a length is not negative: {length}", item.span)
            lengths.append(length)
        return tuple(lengths)

    def anonymous(self, name: str) -> Dim:
        self.generation += 1
        return Dim.of(Size(f"{name}.{self.generation}", named=False))

    def dtype_of(self, word: ast.Ident | None) -> DType:
        if word is None:
            return self.precision
        if word.id not in DTYPE_WORDS:
            near = did_you_mean(word.id, DTYPE_WORDS)
            raise error("E0509", f"no dtype `{word.id}`", word.span, help=f"did you mean `{near}`?" if near else None)
        dtype = DTYPE_WORDS[word.id] or self.precision
        if is_float(dtype) and dtype != self.precision:
            raise error("E0509", f"a script has one float: {self.precision}", word.span, dtype, help=f"write `precision {dtype}` at the top of the script")
        return dtype

    def input_item(self, statement: ast.Input, item: ast.InputItem) -> None:
        dtype = self.dtype_of(statement.dtype)
        rank = RANKS.get(statement.kind)
        if item.shape is not None:
            if rank is not None and len(item.shape) != rank:
                kind = next((k for k, r in RANKS.items() if r == len(item.shape)), "tensor")
                raise error("E0212", f"a {statement.kind} has {rank} size{'' if rank == 1 else 's'}, not {len(item.shape)}", item.span,
                            help=f"write `{kind} {item.name.id}[{', '.join(e.span.text for e in item.shape)}]`")
            shape = self.shape_of(item.shape)
        elif rank is None:
            raise error("E0212", "a tensor needs its sizes", item.span, help=f"write `tensor {item.name.id}[n, h, w]`")
        else:
            shape = tuple(self.anonymous(item.name.id) for _ in range(rank))
        node = leaf("input", item.name.id, ArrayType(dtype, shape), self.next_generation(item.name.id))
        self.bind(item.name, "input", node)

    def next_generation(self, name: str) -> int:
        if not self.rebind or name not in self.scope:
            return 0
        self.generation += 1
        return self.generation

    # ------------------------------------------------------------ data
    def data_statement(self, statement: ast.Data) -> None:
        self.in_data, self.files = True, set()
        try:
            given = [self.host.given(i.id) for i in statement.names]
            if all(g is not None for g in given):
                for ident, array in zip(statement.names, given, strict=True):
                    self.bind_data(ident, self.data_leaf(ident.id, np.asarray(array)), statement)
                return
            value = self.value(statement.value)
            for ident, part, array in zip(statement.names, self.unpack(statement.names, value, statement.value), given, strict=True):
                self.bind_data(ident, part if array is None else self.data_leaf(ident.id, np.asarray(array)), statement)
        finally:
            self.in_data = False

    def bind_data(self, ident: ast.Ident, value: Value, statement: ast.Data) -> None:
        origin = next(iter(self.files)) if len(self.files) == 1 else f"{ident.id}, line {ident.span.line}"
        self.data_origin[ident.id] = origin
        if isinstance(value, Node | Group) and not (isinstance(value, Node) and is_leaf(value, "data") and leaf_name(value) == ident.id):
            node = self.as_node(value, statement.value)
            self.check_data_only(node, statement)
            array = self.host.evaluate(node)
            if array is None:
                value = leaf("data", ident.id, node.type, self.next_generation(ident.id))
            else:
                value = self.data_leaf(ident.id, np.asarray(array), node.dtype)
        if not isinstance(value, Node | Table | TextColumn):
            raise error("E0204", "`data` holds arrays, tables and columns", statement.value.span)
        self.bind(ident, "data", value)

    def data_leaf(self, name: str, array: np.ndarray, dtype: DType | None = None) -> Node:
        if array.dtype.kind not in "biuf":
            raise error("E0606", f"`{name}` holds {array.dtype}, not numbers")
        type = type_of_array(array, self.precision)
        type = type.with_dtype(dtype) if dtype else type
        node = leaf("data", name, type, self.next_generation(name))
        self.host.keep(node, np.asarray(array, dtype=type.dtype, order="C")[()])
        return node

    def check_data_only(self, node: Node, statement: ast.Data) -> None:
        for part in topological([node]):
            if is_leaf(part, "shared", "input", "slot"):
                kind = part.attr("kind")
                raise error("E0510", f"`data` may not read the {kind} `{leaf_name(part)}`", statement.value.span,
                            "evaluated once, before anything is trained" if kind == "shared" else "an input has no value here",
                            help="use `let` for what depends on it")

    def data_call(self, expr: ast.Call, row: Function, given: dict[str, Any]) -> Value:
        if not self.in_data:
            raise error("E0511", f"`{row.name}` stands in `data` statements", expr.span, help=f"write `data t = {expr.span.text}` and use `t`")
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
            raise error("E0504", f"`{kind}` takes a path in quotes", path.span)
        options: dict[str, Any] = {}
        if "missing" in given:
            word = given["missing"]
            text = word.id if isinstance(word, ast.Name) else word.value if isinstance(word, ast.Text) else None
            if text not in ("nan", "drop"):
                raise error("E0504", "`missing` is `nan` or `drop`", word.span)
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
            columns: dict[str, Node | TextColumn] = {}
            for name, values in loaded.columns.items():
                array = np.asarray(values)
                columns[name] = TextColumn(name, array) if array.dtype.kind in "OUS" else self.data_leaf(f"{path.value}:{name}", array)
            return Table(path.value.rsplit("/", 1)[-1], columns, Dim.of(loaded.rows))
        return self.data_leaf(path.value, np.asarray(loaded))

    def split(self, expr: ast.Call, given: dict[str, Any]) -> Value:
        test = given["test"]
        share = literal_value(self.node(test))
        if share is None or not 0 < share < 1:
            raise error("E0504", "`test` of `split` is a literal between 0 and 1", test.span, help="`split(A, y, test = 0.2)`")
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
            raise error("E0211", f"{parts[0][0].span.text} has {lengths[0]} rows, but {parts[other][0].span.text} has {lengths[other]}",
                        parts[other][0].span, f"{lengths[other]} rows", labels=[Label(parts[0][0].span, f"{lengths[0]} rows")])
        if lengths[0] is None:
            raise Skipped
        train, held = self.host.split(lengths[0], float(share), self.draw_key())
        rows = [self.data_leaf(f"{self.statement_name} rows {kind}", index) for kind, index in (("train", train), ("test", held))]
        return Group(tuple(self._take(value, index, array) for _, value in parts for index, array in zip(rows, (train, held), strict=True)))

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
                raise error("E0204", f"`{name}` takes a column of texts", column.span, shape_text(value.shape), help="these are numbers already")
            raise error("E0204", f"`{name}` takes a column of texts", column.span)
        texts, codes = np.unique(value.values.astype(str), return_inverse=True)
        if name == "labels":
            return TextColumn(value.name, texts)
        return self.data_leaf(f"{self.statement_name} codes of {value.name}", codes.astype(np.int64).reshape(-1))

    # ------------------------------------------------------------ state
    def shared_item(self, statement: ast.Shared, item: ast.SharedItem) -> program.Item:
        if item.constraints:
            raise not_built(item.constraints[0].span, "constraints of shared variables")
        dtype = self.dtype_of(statement.dtype) if statement.dtype else None
        self.statement_name, self.draws = item.name.id, 0
        shape = self.shape_of(item.shape) if item.shape is not None else None
        self.declared_shape = shape
        start = self.as_node(self.value(item.value), item.value)
        if statement.dtype is None:
            start = self.float_literal(item.value, start)                              # type: ignore[assignment]
            dtype = start.dtype
        assert dtype is not None and isinstance(start, Node)
        if is_int(dtype) and is_float(start.dtype):
            raise error("E0203", f"`{item.name.id}` is {dtype}, but starts from a {start.dtype}", item.value.span, help="write a whole number, or convert with `int(…)`")
        start = cast(start, dtype)
        for part in topological([start]):
            if is_leaf(part, "input"):
                raise error("E0512", f"the start of `{item.name.id}` may not read the input `{leaf_name(part)}`", item.value.span)
        if shape is not None:
            start = self.start_in_shape(item, start, shape)
        for length in start.shape:
            for size in length.sizes():
                if size.named:
                    self.model_dims.add(size.name)
                    if size.name in self.seen_sizes and size.name not in self.sizes and size.value is None:
                        self.sizes[size.name] = self.seen_sizes[size.name]
        node = leaf("shared", item.name.id, start.type, self.next_generation(item.name.id))
        self.bind(item.name, "shared", node)
        return program.SharedState(item.span, item.name.id, node, start)

    def start_in_shape(self, item: ast.SharedItem, start: Node, shape: Shape) -> Node:
        for want, have in zip(reversed(shape), reversed(start.shape), strict=False):
            size = want.bare
            if size and size.named and size.value is None and have.constant not in (None, 1):
                fact = self.sizes.setdefault(size.name, SizeFact(have.constant or 0, f"{item.name.id}, line {item.span.line}"))
                if fact.value != have.constant:
                    raise error("E0211", f"`{item.name.id}` needs {size.name} = {fact.value}, but its start has {have}", item.value.span,
                                f"{size.name} = {fact.value} from {fact.origin}")
                start = expand_known(start, have, want)
        try:
            return expand(start, shape)
        except TypeFault as fault:
            raise error("E0202", f"`{item.name.id}` is declared {shape_text(shape)}, but starts from {shape_text(start.shape)}", item.value.span,
                        fault.detail, help="give a start of that shape, or a scalar for every element") from None

    # ------------------------------------------------------------ definitions
    def override(self, name: ast.Ident, value: ast.Expr | None, integer: bool = False) -> Any:
        """The value `--set name=value` gives, for a name bound to a literal."""
        text = self.overrides[name.id]
        literal = value is not None and (self._literal_int(value) is not None or isinstance(value, ast.Number | ast.Boolean) or
                                         (isinstance(value, ast.Unary) and isinstance(value.operand, ast.Number)))
        if not literal and not (integer and value is None):
            raise error("E0901", f"`--set {name.id}=…` needs a `let` or `dim` with a literal value", name.span, "not a literal here")
        self.used_overrides.add(name.id)
        try:
            return int(text) if integer else text == "true" if isinstance(value, ast.Boolean) else float(text)
        except ValueError:
            raise error("E0901", f"`--set {name.id}={text}` is not a {'whole number' if integer else 'number'}", name.span) from None

    def define(self, statement: ast.Define) -> None:
        if statement.kind == "let" and len(statement.names) == 1 and statement.names[0].id in self.overrides:
            ident = statement.names[0]
            value: Value = constant(self.override(ident, statement.value), "bool" if isinstance(statement.value, ast.Boolean) else self.precision)
        else:
            value = self.float_literal(statement.value, self.value(statement.value))
        for ident, part in zip(statement.names, self.unpack(statement.names, value, statement.value), strict=True):
            if statement.kind in ("model", "cost", "metric") or isinstance(part, Node):
                part = self.named(statement, ident, self.as_node(part, statement.value))
            self.bind(ident, statement.kind, part)

    def named(self, statement: ast.Define, ident: ast.Ident, node: Node) -> Node:
        if statement.kind in ("cost", "metric"):
            if node.rank:
                diagnostic = error("E0403", f"a {statement.kind} is a scalar, not {shape_text(node.shape)}", statement.value.span, shape_text(node.shape),
                                   help=f"reduce it: `{statement.kind} {ident.id} = mean({statement.value.span.text})`")
                self.concerning[diagnostic.diagnostic] = node.shape
                raise diagnostic
            node = cast(node, self.precision)
        result = make(alias, [node], {"name": ident.id})
        self.origins.record(result, ident.span)
        return result

    def derive(self, statement: ast.Derive) -> None:
        if len(statement.names) != len(statement.wrt):
            raise error("E0404", f"{len(statement.names)} names for {len(statement.wrt)} derivatives", statement.span,
                        help="give one name to each variable after `wrt`")
        target = self.node(statement.value)
        for ident, variable in zip(statement.names, statement.wrt, strict=True):
            x = self.wrt(ast.Name(variable.id, span=variable.span))
            self.check_reaches(target, x, variable, statement.value)
            make_derivative: Callable[[Node, Node], Node] = {"grad": gradient, "hess": hessian, "jac": lambda f, v: make(jac, [f, v])}[statement.kind]
            with self.placing(statement.value.span, [statement.value], [target]):
                node = make_derivative(target, x)
            self.placed(node, statement.span)
            result = make(alias, [node], {"name": ident.id})
            self.origins.record(result, ident.span)
            self.bind(ident, statement.kind, result)

    def check_reaches(self, target: Node, x: Node, variable: ast.Ident, value: ast.Expr) -> None:
        if x not in reaches([target], [x]):
            raise error("E0402", f"`{value.span.text}` does not depend on `{variable.id}`", variable.span, "not reached",
                        labels=[Label(value.span, f"this never uses `{variable.id}`")], help="use it in the cost, or leave it out of `wrt`")

    def def_statement(self, statement: ast.Def) -> None:
        if statement.vjp_parameter is not None:
            raise not_built(statement.span, "`with vjp(…)`")
        names = [p.name.id for p in statement.parameters]
        for parameter in statement.parameters:
            if names.count(parameter.name.id) > 1:
                raise error("E0304", f"parameter `{parameter.name.id}` stands twice", parameter.span)
        if not isinstance(statement.body[-1], ast.Return):
            raise error("E0506", f"`{statement.name.id}` returns nothing", statement.body[-1].span, "the last line of the body", help="end it with `return …`")
        self.bind(statement.name, "def", UserFunction(statement, self.scope))

    # ------------------------------------------------------------ commands
    def command(self, statement: ast.Statement) -> list[program.Item]:
        match statement:
            case ast.Print(items, bindings, expected, expected_span):
                values = [self.bind_value(self.value(i), bindings, i.span) for i in items]
                for item, value in zip(items, values, strict=True):
                    self.check_bound(value, item)
                return [program.Print(statement.span, tuple(values), expected, expected_span)]
            case ast.Show(items, bindings):
                return [program.Show(statement.span, tuple((i.span.text, self.bind_value(self.value(i), bindings, i.span)) for i in items))]
            case ast.Bare(value_expr):
                if not self.rebind:
                    raise error("E0103", "an expression by itself does nothing in a script", statement.span, help=f"print it: `print {statement.span.text}`")
                value = self.value(value_expr)
                self.check_bound(value, value_expr)
                return [program.Print(statement.span, (value,), None, None)]
            case ast.Plot():
                return [self.plot(statement)]
            case ast.Save(expr, path):
                if expr is None:
                    raise not_built(statement.span, "saving the whole state")
                node = self.node(expr)
                self.check_bound(node, expr)
                inner = expr.value if isinstance(expr, ast.With) else expr
                name = inner.id if isinstance(inner, ast.Name) else "value"
                return [program.SaveValue(statement.span, name, node, self.text(path, "a path"))]
            case ast.Load():
                raise not_built(statement.span, "`load`")
            case ast.Fit():
                raise not_built(statement.span, "`fit`")
            case ast.Gradcheck():
                raise not_built(statement.span, "`gradcheck`")
            case ast.Assert(condition, reason):
                node = self.node(condition)
                if node.dtype != "bool":
                    raise error("E0203", f"`assert` takes a condition, not {node.dtype}", condition.span, help="compare: `assert abs(w - 2) < 0.1`")
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
        kinds = {"scatter": (1, 2), "line": (1, 2), "hist": (1, 1), "heatmap": (1, 1)}
        marks = []
        for mark in statement.marks:
            if not isinstance(mark, ast.Call) or not isinstance(mark.function, ast.Name) or mark.function.id not in kinds:
                name = mark.function.span.text if isinstance(mark, ast.Call) else mark.span.text
                near = did_you_mean(name, kinds)
                raise error("E0513", f"no plot `{name}`", mark.span, help=f"did you mean `{near}`?" if near else "`scatter(x, y)`, `line(x, y)`, `hist(x)`, `heatmap(A)`")
            kind = mark.function.id
            low, high = kinds[kind]
            arrays, bins = [], None
            for argument in mark.arguments:
                if argument.name is not None and argument.name.id == "bins" and kind == "hist":
                    bins = self._literal_int(argument.value)
                    if bins is None or bins < 1:
                        raise error("E0504", "`bins` is a literal integer, at least 1", argument.span)
                elif argument.name is not None:
                    raise error("E0503", f"`{kind}` has no parameter `{argument.name.id}`", argument.name.span)
                else:
                    node = self.node(argument.value)
                    self.check_bound(node, argument.value)
                    if node.rank > (2 if kind == "heatmap" else 1):
                        raise error("E0204", f"`{kind}` draws {'a matrix' if kind == 'heatmap' else 'vectors'}, not {shape_text(node.shape)}", argument.span)
                    shown = argument.value.value if isinstance(argument.value, ast.With) else argument.value
                    arrays.append((shown.span.text, node))
            if not low <= len(arrays) <= high:
                raise error("E0502", f"`{kind}` takes {low if low == high else f'{low} or {high}'} arrays, not {len(arrays)}", mark.span)
            self.check_lengths(kind, arrays, mark)
            marks.append(program.Mark(kind, tuple(arrays), bins, mark.span))
        title = self.text(statement.title, "a title") if statement.title else None
        return program.Plot(statement.span, tuple(marks), title, self.text(statement.path, "a path") if statement.path else None)

    def check_lengths(self, kind: str, arrays: Sequence[tuple[str, Node]], mark: ast.Expr) -> None:
        if len(arrays) == 2 and arrays[0][1].rank == arrays[1][1].rank == 1:
            (name_x, x), (name_y, y) = arrays
            if Shapes().equal(x.shape[0], y.shape[0]) is None:
                raise error("E0211", f"{name_x} has {x.shape[0]} values, but {name_y} has {y.shape[0]}", mark.span, f"`{kind}` needs as many of each")

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
            raise error("E0407", f"{names} {'has' if len(free) == 1 else 'have'} no value here", expr.span, "needs " + names.replace("`", ""),
                        help=f"give {'it' if len(free) == 1 else 'them'}: `{inner} with {given}`")

    def warn(self, diagnostic: Diagnostic) -> None:
        self.warnings.append(diagnostic)


def expand_known(start: Node, have: Dim, want: Dim) -> Node:
    """A start of literal length, given the name of the dim that it fixes."""
    shape = tuple(want if d == have else d for d in start.shape)
    result: Node = reshape(start, shape=shape)
    return result


def bound_names(statement: ast.Statement) -> list[ast.Ident]:
    """The names a statement binds."""
    match statement:
        case ast.Dim(items) | ast.Input(items=items):
            return [i.name for i in items]
        case ast.Shared(items=shared):
            return [i.name for i in shared]
        case ast.Data(names) | ast.Define(names=names) | ast.Derive(names=names):
            return list(names)
        case ast.Def(name) | ast.Optimizer(name) | ast.Step(name):
            return [name]
        case ast.Import(alias=name):
            return [name]
        case _:
            return []


def names_in(expr: ast.Expr) -> list[ast.Name]:
    match expr:
        case ast.Name():
            return [expr]
        case ast.Binary():
            return names_in(expr.left) + names_in(expr.right)
        case ast.Unary():
            return names_in(expr.operand)
        case _:
            return []

