"""Python's variables in a session.

In: Python's names, statements about to be elaborated.  Out: `data` in the session for each free name that Python has as a number, an
array, a column or a table.  It is bound when a statement first uses it.  When the variable is assigned anew, the next cell binds it
again, and what depends on it is elaborated again; what was changed in place is read again by the next cell that names it.
An array of the session's own dtype in C order is not copied, so that a change in place is seen at once.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from dsl.backends.cuda.arrays import on_device
from dsl.errors import LrError, Source, Span, error
from dsl.ir.node import Node
from dsl.ops.functions import FUNCTIONS
from dsl.runtime import frames
from dsl.runtime.arguments import as_given
from dsl.session import Session
from dsl.syntax import ast
from dsl.syntax.binding import leaf_key
from dsl.syntax.names import bound_names
from dsl.syntax.values import LoadedTable, Symbol, Table, TextColumn

PYTHON = "<python>"
NUMBERS = (bool, int, float, np.bool_, np.number)


class Borrowed:
    """The names of one session that stand for Python's."""

    def __init__(self, session: Session, names: Mapping[str, Any]) -> None:
        self.session, self.names = session, names
        self.objects: WeakKeyDictionary[Symbol, Any] = WeakKeyDictionary()
        """Which object each symbol was made of."""
        self.latest: set[str] = set()

    def just_bound(self) -> set[str]:
        """The names bound since this was last asked."""
        found, self.latest = self.latest, set()
        return found

    # ------------------------------------------------------------ when
    def renew(self) -> None:
        """What Python has assigned anew since.  Raises `LrError` if it, or what depends on it, is not right any more."""
        scope = self.session.elaborator.scope.maps[0]
        mine = {name: self.objects[symbol] for name, symbol in scope.items() if symbol in self.objects and name in self.names}
        self.bind([name for name, value in mine.items() if self.names[name] is not value and is_data(self.names[name])])

    def borrow(self, statements: Sequence[ast.Statement]) -> None:
        """What these statements use and only Python knows.  Raises `LrError`."""
        bound: set[str] = set()
        due: dict[str, None] = {}
        for statement in statements:
            for name in free_names(statement):
                if name in self.names and name not in bound and is_data(self.names[name]) and self.due(name, self.names[name]):
                    due[name] = None
            bound |= {i.id for i in bound_names(statement)}
        self.bind(list(due))

    def left_behind(self, statements: Sequence[ast.Statement]) -> list[tuple[str, str]]:
        """Names among those of these statements that were Python's data and are something else there by now, and what."""
        used = dict.fromkeys(name for statement in statements for name in free_names(statement))
        return [(name, type(self.names[name]).__name__) for name in used if name in self.names and not is_data(self.names[name])
                and self.session.elaborator.scope.get(name) in self.objects]

    def due(self, name: str, value: Any) -> bool:
        """Whether a name is to be bound: nobody has, or its object holds other values than when it was."""
        symbol = self.session.elaborator.scope.get(name)
        return name not in FUNCTIONS if symbol is None else symbol in self.objects and self.changed(symbol, value)

    # ------------------------------------------------------------ how
    def bind(self, names: Sequence[str]) -> None:
        """All at once: what depends on several of them is elaborated again when all have their new values."""
        if not names:
            return
        session, values = self.session, {name: self.names[name] for name in names}
        source = Source(PYTHON, ", ".join(names))
        whole = Span(source, 0, len(source.text))
        starts = accumulate((len(name) + 2 for name in names), initial=0)
        idents = tuple(ast.Ident(name, span=Span(source, start, start + len(name))) for name, start in zip(names, starts))
        statement = ast.Data(idents, ast.Name(names[0], span=whole), span=whole)
        session.given_data.update({name: self.taken(name, value) for name, value in values.items()})
        try:
            session.accept(source, [statement])
        finally:
            for name in names:
                session.given_data.pop(name, None)
        self.objects.update({session.elaborator.scope[name]: value for name, value in values.items()})
        self.latest |= values.keys()

    def taken(self, name: str, value: Any) -> Any:
        return as_given(name, value, self.session.compute.gpu.receiver, table=True)

    def changed(self, symbol: Symbol, value: Any) -> bool:
        """Whether an object holds other values than when it was bound."""
        if isinstance(value, NUMBERS) or on_device(value):
            return False
        held, now = symbol.value, self.taken(symbol.name, value)
        match held:
            case Table(columns=columns):
                return not isinstance(now, LoadedTable) or columns.keys() != now.columns.keys() or \
                    not all(self.same(part, now.columns[title]) for title, part in columns.items())
            case _:
                return not self.same(held, now)

    def same(self, held: Any, now: Any) -> bool:
        mine = self.session.values.get(leaf_key(held)) if isinstance(held, Node) else held.values if isinstance(held, TextColumn) else None
        if mine is None or np.shape(mine) != np.shape(now):
            return False
        array = np.asarray(mine)
        return mine is now or np.array_equal(array, np.asarray(now, dtype=array.dtype), equal_nan=array.dtype.kind == "f")


def is_data(value: Any) -> bool:
    """Whether a Python value is a number, an array, a column or a table, or a list of numbers."""
    if isinstance(value, NUMBERS):
        return True
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, NUMBERS) or is_data(item) for item in value)
    if isinstance(value, str | bytes | dict | set | type) or callable(value):
        return False
    if isinstance(value, np.ndarray):
        return value.dtype.names is not None or value.dtype.kind in "biuf"
    if frames.library(value) in ("pandas", "polars", "pyarrow"):
        return frames.is_table(value) or frames.is_column(value) or hasattr(value, "__arrow_c_stream__")
    return any(hasattr(value, word) for word in ("__array__", "__array_interface__", "__dlpack__", "__arrow_c_array__"))


def no_name(problem: LrError, names: Mapping[str, Any]) -> LrError:
    """`no name x`, with what Python's `x` is, if it has one."""
    first = problem.diagnostic
    name = first.span.text if first.code == "E0301" and first.span else ""
    if name not in names or is_data(names[name]):
        return problem
    kind = type(names[name]).__name__
    more = error("E0301", f"{first.message}; Python's `{name}` is a {kind}, which is no data", first.span, "not bound in the cells so far",
                 help="numbers, arrays, columns and dataframes of Python's are `data` here")
    return type(problem)(more.diagnostic, *problem.diagnostics[1:])


# ---------------------------------------------------------------- names
def free_names(statement: ast.Statement) -> Iterator[str]:
    """Names whose values a statement reads, without those of its own functions and loops, each once."""
    read: dict[str, None] = {}
    own: set[str] = set()
    stack: list[object] = [statement]
    while stack:
        part = stack.pop()
        match part:
            case ast.Name(id):
                read[id] = None
            case ast.Loop(states=states, elements=elements):
                own |= {i.id for i in (*states, *elements)}
            case ast.Iterate(states=states):
                own |= {i.id for i in states}
            case ast.Parameter(name):
                own.add(name.id)
            case ast.Optimizer(names=names):
                own |= {i.id for i in names}
            case ast.Statement() if part is not statement:
                own |= {i.id for i in bound_names(part)}
            case _:
                pass
        if isinstance(part, tuple):
            stack.extend(part)
        elif isinstance(part, ast.Syntax):
            stack.extend(vars(part).values())
    return iter([name for name in read if name not in own])
