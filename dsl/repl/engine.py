"""The prompt without a terminal.

In: the text of one entry.  Out: what it prints, on streams, and a session that it changed as a whole or, if it failed, not at all.  The
prompt, piped input and the tests all run on it, with the commands of `commands`.

An entry is statements, expressions by themselves (shown, and held by `ans`), commands (`:vars`) and questions (`?sum`), in any order.
Only what a `train` has done stays when something after it fails: steps may have taken hours.
"""
from __future__ import annotations

import errno
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from dsl.backends.cuda.memory import on_host
from dsl.errors import Diagnostic, Diverged, Interrupted, LrError, Source, Span, error
from dsl.ir.node import Node
from dsl.ir.types import ArrayType, Dim
from dsl.ops.leaves import leaf
from dsl.record import entity
from dsl.repl import reader
from dsl.repl.settings import Settings
from dsl.repl.state import State, kept
from dsl.repl.sweeping import large_values, sweep
from dsl.repl.transcript import Said, as_literal
from dsl.repl.wrapping import noted, wrapped
from dsl.runtime.progress import Progress, duration
from dsl.runtime.summary import resolved
from dsl.runtime.terminal import Terminal, terminal_of
from dsl.session import Session
from dsl.syntax import ast, program
from dsl.syntax.binding import leaf_key
from dsl.syntax.names import bound_names, holding, used_names
from dsl.syntax.parse import parse
from dsl.syntax.rebinding import words
from dsl.syntax.values import Group, Module, OptimizerRule, Symbol, TextColumn, UserFunction, Value

SHOWN_SECONDS = 0.05
"""An entry that took longer says how long."""
LEAST_COMPILE = 5e-4
"""Seconds of compiling that are worth a word."""


@entity
class Took:
    """The seconds of an entry: compiling, and everything else."""

    compile: float
    run: float

    def __str__(self) -> str:
        whole = duration(self.compile + self.run)
        return f"{whole} (compile {duration(self.compile)}, run {duration(self.run)})" if self.compile >= LEAST_COMPILE else whole


class Recorder:
    """A stream that passes on what is written, unless it is silenced; what is written inside of `kept` is remembered, too."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self.held: list[str] | None = None
        self.silent = False

    def write(self, text: str) -> int:
        if self.held is not None:
            self.held.append(text)
        return len(text) if self.silent else self.stream.write(text)

    @contextmanager
    def kept(self) -> Iterator[list[str]]:
        self.held = []
        try:
            yield self.held
        finally:
            self.held = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class Engine(ABC):
    """One session at the prompt; `run` is all that a front end needs.

    out, err    results; diagnostics, progress and remarks
    echo        whether the entries of a pasted transcript are shown before their results"""

    def __init__(self, out: IO[str], err: IO[str], *, settings: Settings | None = None, device: str | None = None,
                 precision: str | None = None, seed: int | None = None, threads: int | None = None, echo: bool = False) -> None:
        self.out, self.err, self.echo = out, err, echo
        self.settings = settings or Settings()
        self.recorder = Recorder(out)
        self.session = Session(interactive=True, device=device, precision=precision, seed=seed, threads=threads,
                               stdout=self.recorder, stderr=err)               # type: ignore[arg-type]
        self.session.comparing = True
        self.number = 0
        self.undone: list[tuple[State, int, str]] = []
        """Before each entry that changed something: the state, how much had been said; and the entry."""
        self.said: list[Said] = []
        self.took = Took(0.0, 0.0)
        self.loaded: Path | None = None
        self.done = False
        self.large: set[Any] = set()
        """The large arrays that were there when it was last looked which of them are needed."""
        self.remember = True
        """Whether the entry that runs can be undone."""
        self.bound: set[str] = set()

    # ------------------------------------------------------------ streams
    @property
    def terminal(self) -> Terminal:
        """Where results go, as it is now; colours by the setting."""
        found = terminal_of(self.out)
        match self.settings.colors:
            case "always" if not found.colors:
                return Terminal(found.columns, found.lines, 8, found.unicode, found.interactive)
            case "never":
                return Terminal(found.columns, found.lines, 0, found.unicode, found.interactive)
            case _:
                return found

    @property
    def colored(self) -> bool:
        return self.terminal.colors > 0

    def say(self, text: str) -> None:
        """A result that is no value: what a command found."""
        self.out.write(text if text.endswith("\n") or not text else text + "\n")

    def prose(self, text: str) -> None:
        """As `say`, in the width of a terminal."""
        self.say(wrapped(text, self.terminal.columns) if self.terminal.interactive else text)

    def remark(self, text: str) -> None:
        """Beside the results, dimmed."""
        terminal = self.terminal
        self.err.write(terminal.styled(wrapped(text, terminal.columns) if terminal.interactive else text, "dim") + "\n")

    def report(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.out.flush()
        if diagnostics:
            terminal = self.terminal
            text = "\n\n".join(d.render(self.colored) for d in diagnostics)
            self.err.write((noted(text, terminal.columns) if terminal.interactive else text) + "\n")
        self.err.flush()

    # ------------------------------------------------------------ entries
    def run(self, text: str) -> bool:
        """Everything that was typed or pasted; whether all of it succeeded."""
        typed = reader.transcript(text)
        if typed is None:
            return self.entry(text)
        fine = True
        for one in typed:
            if self.echo:
                self.out.write(reader.PROMPT + one.replace("\n", "\n" + reader.CONTINUATION) + "\n")
            fine = self.entry(one) and fine
            if self.done:
                break
        return fine

    def entry(self, text: str) -> bool:
        """One entry, as a whole or not at all."""
        if not text.strip():
            return True
        self.number += 1
        self.remember, self.bound = True, set()
        session, said = self.session, len(self.said)
        session.reporter = self.reporter()
        before = State.of(session)
        began, compiled = time.perf_counter(), session.compute.compile_seconds
        session.elaborator.followed.clear()
        fine = False
        try:
            self.execute(text, f"<entry {self.number}>")
            fine = True
        except Interrupted as problem:
            kept_steps = self.keeps(before)
            if not kept_steps:
                self.restore(before, said)
            state, *notes = problem.diagnostic.notes
            self.remark("; ".join([problem.message, *notes, "`train` goes on from there" if kept_steps else state]))
        except LrError as problem:
            self.report(problem.diagnostics)
            if not self.keeps(before):
                self.restore(before, said)
            elif not isinstance(problem, Diverged):
                self.remark("what came before it in this entry has been done")
        except KeyboardInterrupt:
            self.restore(before, said)
            self.remark("interrupted: nothing has changed")
        except (RecursionError, MemoryError) as problem:
            self.restore(before, said)
            what = ("E0109", "this is nested too deep") if isinstance(problem, RecursionError) else ("E0802", "out of memory")
            self.report([error(*what, help="name parts of it with `let`" if isinstance(problem, RecursionError) else None).diagnostic])
        except BrokenPipeError:
            raise
        except Exception as problem:
            if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG):
                raise                                            # of the output: files have errors of their own
            self.restore(before, said)
            if "LR_TRACEBACK" in os.environ:
                raise
            self.report([error("E0999", f"internal error: {type(problem).__name__}: {problem}",
                               help="this is a defect of lr, not of your entry; set LR_TRACEBACK=1 to see where, and "
                               "report it").diagnostic])
        finally:
            self.recorder.silent = False
            session.failures.clear()
            session.reports[:-1] = []
        self.settle(before)
        seconds, compiling = time.perf_counter() - began, session.compute.compile_seconds - compiled
        self.took = Took(min(compiling, seconds), max(0.0, seconds - compiling))
        if self.remember and State.of(session).differs(before):
            self.undone = kept([*self.undone, (before, said, text)])
        self.out.flush()
        if seconds > SHOWN_SECONDS and self.settings.times == "on" and self.terminal.interactive and not self.done:
            self.remark(str(self.took))
        return fine

    def reporter(self) -> Callable[[int | None, str, IO[str]], Progress]:
        """How trainings are followed."""
        if self.settings.curve == "on" and self.terminal.interactive:
            from dsl.repl.curve import Curve
            return Curve
        return Progress

    def keeps(self, before: State) -> bool:
        """Whether a failed entry keeps what it has done: a training has made steps."""
        steps: int = before.parts[0][1]["steps_before"]
        return self.session.steps_before != steps

    def restore(self, state: State, said: int) -> None:
        state.restore(self.session)
        del self.said[said:]

    def settle(self, before: State) -> None:
        """What follows a change of device; plans of trainings that were run again stand once; what nothing needs is let go."""
        session = self.session
        if session.elaborator.device != before.parts[1][1]["device"]:
            self.moved()
        latest = {i.span.text: i for i in session.items if isinstance(i, program.Train)}
        session.items[:] = latest.values()
        if large_values(session) != self.large:
            sweep(session)
            self.large = large_values(session)

    def moved(self) -> None:
        """Another device or number of threads: values come to the host, everything is compiled anew when it is needed."""
        session = self.session
        session.values.update({key: on_host(value) for key, value in session.values.items()})
        session.compute.forget()

    # ------------------------------------------------------------ what an entry is made of
    def execute(self, text: str, name: str, place: str | None = None) -> None:
        """Statements and commands in the order of the text.  Raises `LrError`."""
        parts = reader.pieces(text)
        lines = text.split("\n")
        for part in parts:
            if part.command:
                count = part.text.count("\n") + 1
                lines[part.line:part.line + count] = [""] * count
        source = Source(name, "\n".join(lines), place)
        script, problems = parse(source)
        if problems:
            raise LrError(*problems)
        asked = [p for p in parts if p.command]
        group: list[ast.Statement] = []
        for statement in script.statements:
            while asked and asked[0].line < statement.span.line:
                self.statements(source, group)
                group = []
                self.command(asked.pop(0).text)
            group.append(statement)
            if isinstance(statement, ast.Bare):
                self.statements(source, group)
                group = []
        self.statements(source, group)
        for piece in asked:
            self.command(piece.text)

    @abstractmethod
    def command(self, text: str) -> None:
        """A line that begins with `:` or `?`.  Raises `LrError`."""

    def statements(self, source: Source, typed: Sequence[ast.Statement]) -> None:
        """Statements, of which the last may be an expression by itself.  Raises `LrError`."""
        if not typed:
            return
        session = self.session
        held, said = [self.with_ans(s) for s in typed], [Said(s, self.ans_used(s)) for s in typed]
        self.bound |= {word for s in typed for word in words(s)}
        with self.warned():
            items = session.accept(source, held)
        said[-1].drawn = isinstance(typed[-1], ast.Bare) and session.elaborator.draws > 0
        self.say_what_followed()
        self.said.extend(said)
        for item in items:
            if isinstance(item, program.SharedState):
                continue
            mine = next(one for one in said if one.holds(item.span))
            self.item(item, mine)

    def item(self, item: program.Item, said: Said) -> None:
        session = self.session
        if isinstance(said.statement, ast.Bare) and isinstance(item, program.Print):
            self.show(said, item.items[0], item.span)
        elif isinstance(item, program.Print):
            with self.recorder.kept() as printed:
                session.execute([item])
            said.printed = "".join(printed)
        else:
            try:
                session.execute([item])
            except LrError:
                said.broken = True
                raise
        if session.failures:
            raise LrError(*session.failures)
        if isinstance(item, program.Test):
            self.remark(f'test "{item.name}": ok')

    @contextmanager
    def warned(self) -> Iterator[None]:
        """What elaboration warns of in here is reported."""
        count = len(self.session.elaborator.warnings)
        try:
            yield
        finally:
            self.report(self.session.elaborator.warnings[count:])

    def say_what_followed(self) -> None:
        followed = [n for n in dict.fromkeys(self.session.elaborator.followed) if n not in self.bound]
        self.session.elaborator.followed.clear()
        if followed:
            self.remark("redefined: " + ", ".join(followed))

    # ------------------------------------------------------------ values
    def show(self, said: Said, value: Value, span: Span) -> None:
        """An expression by itself: shown, and held by `ans`."""
        session = self.session
        try:
            found = resolved(value, session.array)
        except LrError as problem:
            raise problem.placed(span) from None
        if isinstance(value, Node | Group | TextColumn | str):
            plain = self.plain(found)
            said.printed = session.printed(plain) if not isinstance(plain, np.ndarray) or plain.size <= 1000 else None
            said.valued, said.literal = True, as_literal(plain)
        self.say(self.shown(span.text.strip(), value, found))
        self.hold(value, found)

    def shown(self, name: str, value: Value, found: Any) -> str:
        if isinstance(value, UserFunction | OptimizerRule | Module):
            return self.session.shown(name, value)
        from dsl.repl.display import show_value
        terminal = self.terminal
        return show_value(name, found, width=terminal.columns, digits=self.settings.digits, colored=terminal.colors > 0,
                          unicode=terminal.unicode)

    def plain(self, found: Any) -> Any:
        return tuple(map(self.plain, found)) if isinstance(found, tuple) else on_host(found)

    @property
    def ans(self) -> Symbol | None:
        """What `ans` stands for; None if there is no value yet, or a statement has bound the name."""
        symbol = self.session.elaborator.scope.get("ans")
        return symbol if symbol is not None and symbol.span is None else None

    def hold(self, value: Value, found: Any) -> None:
        """`ans` is this value from now on, unless a statement has bound the name."""
        scope = self.session.elaborator.scope
        if "ans" in scope and self.ans is None:
            return
        kept = self.constant(value, found)
        if kept is not None:
            scope.maps[0]["ans"] = Symbol("ans", "data", kept, None)

    def constant(self, value: Value, found: Any) -> Value | None:
        """A value that depends on nothing any more; None of a definition."""
        match value:
            case Node():
                elaborator = self.session.elaborator
                elaborator.generation += 1
                shape = tuple(Dim.of(length) for length in found.shape) if value.rank else ()
                node = leaf("data", "ans", ArrayType(value.dtype, shape), elaborator.generation)
                self.session.values[leaf_key(node)] = found
                return node
            case Group(items):
                parts = [self.constant(item, part) for item, part in zip(items, found, strict=True)]
                return Group(tuple(p for p in parts if p is not None))
            case TextColumn() | str():
                return value
            case _:
                return None

    def with_ans(self, statement: ast.Statement) -> ast.Statement:
        """A statement with the value that `ans` has now in the place of the name."""
        if self.ans is None or "ans" not in used_names(statement):
            return statement
        changed: ast.Statement = holding(statement, "ans", self.ans.value)
        return changed

    def ans_used(self, statement: ast.Statement) -> Said | None:
        """Whose value `ans` is in this statement."""
        if self.ans is None or "ans" not in used_names(statement):
            return None
        return next((s for s in reversed(self.said) if s.valued), None)

    # ------------------------------------------------------------ scripts
    def load(self, path: Path, run: bool = True) -> None:
        """A script's statements in this session, its files read from where it lies; `run`: its commands, too.  Raises `LrError`."""
        from dsl.scripts import read_script
        text = read_script(path)
        before = self.session.base
        self.session.base = path.parent
        try:
            if run:
                self.execute(text, str(path), str(path))
            else:
                self.definitions(Source(str(path), text, str(path)))
        finally:
            self.session.base = before
        self.loaded = path

    def definitions(self, source: Source) -> None:
        """What a script defines; its commands are checked and left out, and shared variables keep their values where these fit."""
        script, problems = parse(source)
        session = self.session
        values, slots = dict(session.values), {leaf_key(u.target): u for u in session.elaborator.updates}
        names = {s.name: leaf_key(s.value) for s in session.elaborator.scope.values() if isinstance(s.value, Node) and s.kind == "shared"}
        self.bound |= {word for s in script.statements for word in words(s)}
        with self.warned():
            items = session.accept(source, script.statements, problems)
        self.say_what_followed()
        anew = []
        for item in items:
            if not isinstance(item, program.SharedState):
                continue
            old, key = values.get(names.get(item.name, ("", "", 0))), leaf_key(item.leaf)
            fits = old is not None and key in session.values and old.dtype == session.values[key].dtype and \
                np.shape(old) == np.shape(session.values[key])
            if fits:
                session.values[key] = old
            elif item.name in names:
                anew.append(item.name)
        for key in slots:
            if key in values and key not in session.values:
                session.values[key] = values[key]
        if anew:
            slotted = [leaf_key(u.target) for u in session.elaborator.updates if u.start is not None]
            for key in slotted:
                session.values.pop(key, None)
            self.remark("begins anew: " + ", ".join(anew))
        self.said.extend(Said(s, None) for s in script.statements if bound_names(s) or isinstance(s, ast.Update | ast.Minimize))

    # ------------------------------------------------------------ trying
    @contextmanager
    def tried(self) -> Iterator[None]:
        """Whatever is done in here is undone, and prints nothing."""
        before, said = State.of(self.session), len(self.said)
        quiet, self.session.quiet = self.session.quiet, True
        self.recorder.silent = True
        try:
            yield
        finally:
            self.recorder.silent = False
            self.restore(before, said)
            self.session.quiet = quiet

    def undo(self, count: int) -> list[str]:
        """The state before the last `count` entries that changed something; what was undone, the last first."""
        made: list[str] = []
        while len(made) < count and self.undone:
            state, said, text = self.undone.pop()
            self.restore(state, said)
            made.append(text)
        self.remember = False
        return made

    # ------------------------------------------------------------ figures
    def memory(self) -> int:
        """Bytes of the session's arrays."""
        return sum({id(a): a.nbytes for a in self.session.values.values() if hasattr(a, "nbytes")}.values())

