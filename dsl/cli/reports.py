"""What `lr` says to a machine: in comes what happened, out goes JSON.  `docs/reference/json.md` describes every form.

`lr run --json` writes one object a line as things happen, the other commands one document.  Numbers that JSON has no words for are the
texts "nan", "inf" and "-inf"; columns count characters (code points) from 1, and the end of a place is the first one behind it.
"""
from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from dsl.cli.console import INTERRUPTED, OK, exit_code, write_utf8
from dsl.errors import Diagnostic, LrError, Span
from dsl.ir.node import Node
from dsl.runtime.place import Report
from dsl.session import Session
from dsl.show import FORMULAS
from dsl.syntax import program
from dsl.syntax.values import Symbol

MOST_ELEMENTS = 100_000         # of an array that is printed: a larger one is described only


# ---------------------------------------------------------------- values
def number(value: float) -> float | str:
    """A float as JSON has it."""
    return value if math.isfinite(value) else repr(float(value))


def plain(value: Any) -> Any:
    """A value that `print` shows: numbers, booleans and texts as such, tuples as lists, arrays as an object."""
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    if array.ndim == 0:
        return _elements(array.dtype, array.item())
    data = _elements(array.dtype, array.tolist()) if array.size <= MOST_ELEMENTS else None
    return {"dtype": str(array.dtype) if array.dtype.kind not in "OUS" else "text", "shape": list(array.shape), "data": data}


def _elements(dtype: np.dtype[Any], value: Any) -> Any:
    if isinstance(value, list):
        return [_elements(dtype, item) for item in value]
    return number(value) if isinstance(value, float) else value


# ---------------------------------------------------------------- a run
class Events:
    """One JSON object a line on standard output."""

    def write(self, event: str, span: Span | None, **fields: Any) -> None:
        place = {"file": span.source.name, "line": span.line} if span is not None else {}
        write_utf8(json.dumps({"event": event, **place, **fields}, ensure_ascii=False, allow_nan=False) + "\n")

    def diagnostics(self, found: Iterable[Diagnostic]) -> None:
        for diagnostic in found:
            self.write("diagnostic", None, **diagnostic.as_dict())


class JsonSession(Session):
    """A session whose results are events."""

    def __init__(self, *, events: Events, **options: Any) -> None:
        super().__init__(**options)
        self.events = events

    def command(self, item: program.Item) -> None:
        outside, self._stdout = self._stdout, io.StringIO()
        reports = len(self.reports)
        try:
            super().command(item)
            text = self._stdout.getvalue()
        finally:
            self._stdout = outside
            for report in self.reports[reports:] if isinstance(item, program.Train | program.GoOn) else ():
                self.events.write("train", item.span, **trained(report))
        match item:
            case program.Show(items=items):
                for (name, value), line in zip(items, text.splitlines()):
                    dtype, shape = typed(value)
                    self.events.write("show", item.span, name=name, dtype=dtype, shape=shape, formula=line)
            case program.Plot(path=path):
                self.events.write("plot", item.span, path=path, text=None if path else text)
            case program.SaveValue(path=path) | program.SaveState(path=path):
                self.events.write("save", item.span, path=path)
            case program.LoadState(path=path):
                self.events.write("load", item.span, path=path)
            case program.Assert(reason=reason):
                self.events.write("assert", item.span, holds=True, reason=reason)

    def show_printed(self, item: program.Print, values: Sequence[Any], text: str) -> None:
        self.events.write("print", item.span, text=text, values=[plain(value) for value in values])


@contextmanager
def writing_events() -> Iterator[Callable[..., Session]]:
    """Gives the kind of session to run; at the end come its diagnostics and the exit code, which the process then has."""
    events, sessions = Events(), list[JsonSession]()

    def made(**options: Any) -> JsonSession:
        sessions.append(JsonSession(events=events, **options))
        return sessions[-1]

    code = OK
    found: Sequence[Diagnostic] = ()
    try:
        yield made
    except LrError as problem:
        found, code = problem.diagnostics, exit_code(problem)
    except KeyboardInterrupt:
        code = INTERRUPTED
    for session in sessions:
        events.diagnostics(session.elaborator.warnings)
    events.diagnostics(found)
    events.write("end", None, exit_code=code)
    if code != OK:
        raise SystemExit(code)


def trained(report: Report) -> dict[str, Any]:
    return {"epochs": report.epochs, "steps": report.steps, "seconds": report.seconds, "costs": _numbers(report.costs),
            "valid": _numbers(report.valid), "stopped": report.stopped}


def _numbers(values: Mapping[str, float]) -> dict[str, Any]:
    return {name: number(float(value)) for name, value in values.items()}


# ---------------------------------------------------------------- what a script means
def typed(value: Any) -> tuple[str | None, list[str | int] | None]:
    """dtype and shape; sizes that are not numbers are formulas in the names of the script."""
    if not isinstance(value, Node):
        return None, None
    sizes = [size if (size := dim.evaluate({})) is not None else str(dim) for dim in value.shape]
    return value.dtype, sizes


def shown(session: Session, name: str | None, view: str | None, form: str) -> dict[str, Any]:
    """`lr show --json`: the names of a script, or one of them, and what a view says of it.  Raises `LrError` for no such name."""
    from dsl.show import describe, one, programs
    text = describe(session, name, view, form) if name is not None or view is not None else None        # type: ignore[arg-type]
    scope = session.elaborator.scope.items()
    symbols = [s for n, s in scope if n == name or (name is None and isinstance(s.value, Node))]
    result: dict[str, Any] = {"names": [_symbol(session, symbol) for symbol in symbols]}
    if name is None:
        result["updates"] = [_update(rule) for rule in session.elaborator.updates]
    match view:
        case None:
            pass
        case "kernels" | "code" | "cost":
            result["view"] = {"kind": view, "programs": [p.title for p in programs(session, name)], "text": text}
        case _:
            for symbol, entry in zip(symbols, result["names"], strict=True):
                if name is not None or symbol.kind in FORMULAS:
                    entry[view] = one(session, symbol, view)
    return result


def _symbol(session: Session, symbol: Symbol) -> dict[str, Any]:
    value = symbol.value
    dtype, shape = typed(value)
    formula = session.shown(symbol.name, value) if value is not None and symbol.kind in (*FORMULAS, "def", "optimizer") else None
    return {"kind": symbol.kind, "name": symbol.name, "dtype": dtype, "shape": shape, "formula": formula,
            "line": symbol.span.line if symbol.span is not None else None}


def _update(rule: program.UpdateRule) -> dict[str, Any]:
    from dsl.ir.text import expression
    from dsl.ops.leaves import leaf_name
    return {"target": leaf_name(rule.target), "value": expression(rule.value), "group": rule.group}
