"""A session whose entries are the cells of a notebook.

In: the text of a cell, Python's names.  Out: what it shows, displayed; what fails, raised.  A cell is done as a whole or, if it fails, not
at all, but for what a `train` in it has done.  Its commands (`:vars`, `?sum`) are those of the prompt.
"""
from __future__ import annotations

import sys
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from dsl.backends.cuda.memory import on_host
from dsl.errors import Diagnostic, Interrupted, LrError, Source, Span, as_html
from dsl.notebook.borrowed import Borrowed, no_name
from dsl.notebook.html import progress_html, text_html, value_html
from dsl.repl.commands import Repl
from dsl.repl.curve import Curve
from dsl.runtime.marks import Mark, legend_name
from dsl.runtime.progress import Cost, Progress
from dsl.runtime.summary import summarize
from dsl.syntax import ast
from dsl.syntax.values import Value

CORNER = 4
"""Elements of a long axis that are shown at each end."""
PIXELS = 640
"""How wide a plot is shown; it is drawn half as large again, for fine screens."""


class Stopped(KeyboardInterrupt):
    """Ctrl-C outside a training."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the places in lr that were met are nobody's concern."""
        return ["KeyboardInterrupt"]


class Output:
    """Standard output or error, whichever they are at the moment."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, word: str) -> Any:
        return getattr(getattr(sys, self.name), word)


class Cell(Repl):
    """`rich`: whether the front end shows HTML and pictures, which a terminal does not; `count`: the number of the cell."""

    def __init__(self, names: Mapping[str, Any], rich: bool, count: Callable[[], int], **options: Any) -> None:
        out: Any = Output("stdout")
        err: Any = out if rich else Output("stderr")         # a notebook sets standard error off, like something that went wrong
        super().__init__(out, err, **options)
        self.rich, self.count = rich, count
        self.settings.times = "off"
        self.session.comparing = True
        self.borrowed = Borrowed(self.session, names)
        self.problem: LrError | None = None
        self.asked = False
        """Whether values are asked for, instead of being shown."""
        self.value: Any = None
        if rich:
            self.session.drawer, self.session.reporter = self.draw, Following

    # ------------------------------------------------------------ cells
    def cell(self, text: str) -> None:
        """Raises what a notebook is to stop at."""
        fine = self.run(text.rstrip())                       # IPython ends a cell with a line break, which no command takes
        problem = self.failure()
        if isinstance(problem, Interrupted) and self.session.paused is not None:
            first, *rest = problem.diagnostics
            problem = Interrupted(replace(first, notes=(*first.notes, "`train` goes on from there")), *rest)
        if problem is not None:
            raise no_name(problem, self.borrowed.names).with_traceback(None) from None
        if not fine:
            raise Stopped

    def failure(self) -> LrError | None:
        """What the entry failed with, which is forgotten with this."""
        found, self.problem = self.problem, None
        return found

    def asked_for(self, text: str) -> Any:
        """The value of the expression that a text ends in, None without one."""
        self.value, self.asked = None, True
        try:
            self.cell(text)
            return self.value
        finally:
            self.value, self.asked = None, False

    def execute(self, text: str, name: str, place: str | None = None) -> None:
        try:
            self.borrowed.renew()
            super().execute(text, name if place else f"<cell {self.count()}>", place)
        except LrError as problem:                           # what is raised in the end, of its own kind
            self.problem = problem
            raise

    def statements(self, source: Source, typed: Sequence[ast.Statement]) -> None:
        for name, kind in self.borrowed.left_behind(typed):
            self.remark(f"Python's `{name}` is a {kind} now, which is no data; `{name}` here is what it was before")
        self.borrowed.borrow(typed)
        self.bound |= self.borrowed.just_bound()
        super().statements(source, typed)

    # ------------------------------------------------------------ what is shown
    def report(self, diagnostics: Sequence[Diagnostic]) -> None:
        """Warnings are shown here, errors where the cell ends."""
        errors = [d for d in diagnostics if d.severity == "error"]
        if errors and self.problem is None:
            self.problem = LrError(*errors)
        for one in diagnostics:
            if one not in errors:
                self.display(one.render(self.colored), as_html(one.render(color=True)))

    def remark(self, text: str) -> None:
        if isinstance(self.problem, Interrupted):            # the error says it
            return
        if self.rich:
            self.display(text, text_html(text))
        else:
            super().remark(text)

    def show(self, said: Any, value: Value, span: Span) -> None:
        if self.asked:                                   # what a session remembers of it is not needed
            from dsl.runtime.summary import resolved
            try:
                found = resolved(value, self.session.array)
            except LrError as problem:
                raise problem.placed(span) from None
            self.value = host(found)
            self.hold(value, found)
            return
        super().show(said, value, span)

    def shown(self, name: str, value: Value, found: Any) -> str:
        text = super().shown(name, value, found)
        if not self.rich:
            return text
        arrays = isinstance(found, np.ndarray | np.generic | tuple) or hasattr(found, "dtype") or hasattr(found, "columns")
        self.display(text, value_html(name, summarize(found, CORNER)) if arrays else text_html(text))
        return ""

    def display(self, text: str, html: str) -> None:
        if not self.rich:
            self.out.write(text + "\n")
            return
        self.out.flush()
        show({"text/plain": text, "text/html": html})

    # ------------------------------------------------------------ plots and trainings
    def draw(self, marks: Sequence[Mark], title: str, path: Path | None = None, stream: IO[str] | None = None,
             span: Span | None = None) -> None:
        """A picture in the notebook, and in the file if one is named; text, where matplotlib is not installed."""
        from dsl.runtime import plots
        if path is not None:
            plots.draw(marks, title, path, span=span)
        try:
            data = plots.picture(marks, title, span=span)
        except LrError as problem:
            if problem.code != "E0607" or path is not None:
                raise
            plots.draw(marks, title, None, stream=stream, span=span)
            return
        words = title or ", ".join(filter(None, map(legend_name, marks)))
        show({"text/plain": f"plot: {words}", "image/png": b64encode(data).decode()}, {"image/png": {"width": PIXELS, "alt": words}})

    def reporter(self) -> Callable[[int | None, str, IO[str]], Progress]:
        return Following if self.rich else super().reporter()


class Following(Curve):
    """A training in a notebook: one line that is drawn anew, with a bar and the costs so far."""

    def __init__(self, total: int | None, unit: str, stream: IO[str]) -> None:
        super().__init__(total, unit, stream, interactive=True)
        self.place: Any = None

    def _redraw(self, now: float) -> None:
        share = self.done / self.total if self.total else None
        self.put("  ".join(self._parts(now)), share)

    def clear(self) -> None:
        """What is printed stands below the line."""

    def close(self, done: float | None = None, steps: int | None = None, cost: Cost = None, note: str | None = None, *,
              verb: str = "trained", failed: bool = False) -> None:
        if self.closed:
            return
        self._keep(self.done if done is None else done, self.cost if cost is None else cost, self.valid)
        self.done = self.done if done is None else done
        self.steps = self.steps if steps is None else steps
        self.cost = self.cost if cost is None else cost
        self.put(self.summary("stopped after" if failed else verb, note), None)
        self.closed = True

    def put(self, text: str, share: float | None) -> None:
        html = progress_html(text, share, [values for _, values in self.points.values()])
        data = {"text/plain": text, "text/html": html}
        if self.place is None:
            self.place = show(data, place=True)
        else:
            self.place.update(data, raw=True)


def show(data: dict[str, str], metadata: dict[str, Any] | None = None, place: bool = False) -> Any:
    """An output of the cell, in several forms; with `place`, what it can be changed by."""
    from IPython.display import display
    options: dict[str, Any] = {"display_id": True} if place else {}
    return display(data, raw=True, metadata=metadata or {}, **options)


def host(found: Any) -> Any:
    """A value as NumPy has it: a table as a dict of its columns, a tuple as one."""
    if isinstance(found, tuple):
        return tuple(map(host, found))
    if hasattr(found, "columns"):
        return {name: host(column) for name, column in found.columns.items()}
    value = on_host(found)
    return np.array(value)[()] if isinstance(value, np.ndarray | np.generic) else value if isinstance(value, str) else None
