"""`%lr` and `%%lr`.

In: a line, or a cell and its options.  Out: a value; a session that lasts over cells, under a name; values as Python's variables.
"""
from __future__ import annotations

import argparse
import re
import shlex
from keyword import iskeyword
from typing import Any

from dsl.errors import LrError, Source, did_you_mean, error
from dsl.model import Model
from dsl.notebook.cell import Cell

NAMED = re.compile(r"\s*--name[ =](\w+)\s*")
MAIN = "lr"
SETTINGS = ("device", "precision", "seed", "threads")
LINE = """The value of an expression of the language, in the session of the `%%lr` cells, as NumPy has it:

    x = %lr Y_bar with X = 3

A statement is run and has no value.  `%lr --name other w` asks the session of that name.  Python's numbers, arrays, columns and
dataframes may be used by name, as in `%%lr`."""
WHOLE = """Statements of the language, in a session that lasts over cells.

    -o NAMES, --out NAMES    names whose values Python gets as variables when the cell is done: -o w,b
    --name NAME              the session, and the name of Python's handle of it; `lr` unless told
    --fresh                  begin the session anew
    --device DEVICE          where it runs: auto, cpu, cuda, numpy
    --precision PRECISION    its float: float32, float64
    --seed SEED              of its random draws
    --threads COUNT          how many native code may use

An expression by itself is shown, and `ans` is its value; `:help` lists commands, `?sum` explains a name.  A name that is bound again
changes what depends on it.  A cell is done as a whole or, if it fails, not at all; only what a `train` has done stays.

Python's numbers, arrays, columns and dataframes may be used by name: a name that the session does not know becomes `data` when it is
first used.  It follows the variable: assigned anew, it is bound again by the next cell; changed in place, by the next cell that names it.

`lr` is the session as a `dsl.Model`: `lr["w"]`, `lr["w"] = 0`, `lr.eval(…)`, `lr.train(…)`."""


class Parser(argparse.ArgumentParser):
    """Of a magic's line: what is wrong is a diagnostic."""

    def error(self, message: str) -> Any:
        raise error("E0902", f"%%lr: {message}", help="`%%lr?` lists the options")


def parser() -> Parser:
    made = Parser(prog="%%lr", add_help=False)
    made.add_argument("-o", "--out", action="append", default=[])
    made.add_argument("--name", default=MAIN)
    made.add_argument("--fresh", action="store_true")
    made.add_argument("--device", choices=("auto", "cpu", "cuda", "numpy"))
    made.add_argument("--precision", choices=("float32", "float64"))
    made.add_argument("--seed", type=int)
    made.add_argument("--threads", type=int)
    return made


class LrMagics:
    """The sessions of one shell by name.  Each is there for Python, too, as a `dsl.Model` of that name."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.cells: dict[str, Cell] = {}
        self.models: dict[str, Model] = {}
        self.current = MAIN

    def install(self) -> None:
        """Into the shell: the magics, completion in their cells, colours for them in a terminal."""
        from IPython.core import magic

        from dsl.notebook.completing import complete_in, highlight_in

        def line(line: str) -> Any:
            return self.line(line)

        def whole(line: str, cell: str) -> None:
            self.whole(line, cell)
        for kind, function, text in (("line", line, LINE), ("cell", whole, WHOLE)):
            function.__doc__ = text
            self.shell.register_magic_function(magic.no_var_expand(function), kind, "lr")
        complete_in(self.shell, lambda: self.cells[self.current].session if self.current in self.cells else None)
        highlight_in(self.shell)

    # ------------------------------------------------------------ sessions
    def cell_of(self, name: str, fresh: bool = False, **options: Any) -> Cell:
        """The session of that name, made if there is none."""
        given = {key: value for key, value in options.items() if value is not None}
        found = self.cells.get(name)
        if found is not None and not fresh:
            self.check(name, found, given)
        else:
            found = Cell(self.shell.user_ns, hasattr(self.shell, "kernel"), self.number, **given)
            self.cells[name] = found
            self.offer(name, found)
        self.current = name
        return found

    def number(self) -> int:
        """Of the cell that runs: `In` holds it already, while the shell's own count may be the next one's."""
        return len(self.shell.user_ns.get("In", "  ")) - 1

    def check(self, name: str, cell: Cell, given: dict[str, Any]) -> None:
        elaborator = cell.session.elaborator
        now = {"device": elaborator.device, "precision": elaborator.precision, "seed": elaborator.seed,
               "threads": cell.session.compute.threads}
        for key, value in given.items():
            if now[key] != value:
                raise error("E0902", f"`--{key} {value}`: the session `{name}` has {key} {now[key]}",
                            help="`--fresh` begins it anew, `--name other` begins another one")

    def offer(self, name: str, cell: Cell) -> None:
        """The session as a `Model` among Python's variables, unless something else has the name."""
        names = self.shell.user_ns
        if name not in names or names[name] is self.models.get(name):
            names[name] = self.models[name] = Model(cell.session, Source(f"%%lr --name {name}" if name != MAIN else "%%lr", ""))

    # ------------------------------------------------------------ the magics
    def line(self, line: str) -> Any:
        named = NAMED.match(line)
        return self.cell_of(named[1] if named else self.current).asked_for(line[named.end():] if named else line)

    def whole(self, line: str, text: str) -> None:
        try:
            options = parser().parse_args(shlex.split(line))
        except LrError as problem:
            raise problem.with_traceback(None) from None     # which is argparse's
        except ValueError as problem:                        # a quote that is not closed
            raise error("E0902", f"%%lr: {problem}") from None
        if not options.name.isidentifier() or iskeyword(options.name):
            raise error("E0902", f"%%lr: `{options.name}` is no name", help="`--name` takes one that Python has for variables")
        cell = self.cell_of(options.name, options.fresh, **{key: getattr(options, key) for key in SETTINGS})
        cell.cell(text)
        for name in (n.strip() for part in options.out for n in part.split(",")):
            self.shell.user_ns[name] = self.handed_out(cell, name)

    def handed_out(self, cell: Cell, name: str) -> Any:
        if name not in cell.session.elaborator.scope:
            near = did_you_mean(name, cell.session.elaborator.scope)
            raise error("E0301", f"`-o {name}`: no name `{name}`", help=f"did you mean `{near}`?" if near else None)
        return cell.asked_for(name)
