"""How the command line speaks: diagnostics in their three forms, exit codes, the groups of commands, usage errors.

In: what a command found or raised.  Out: text on standard error, JSON on standard output, and an exit code:
0 ok, 1 the script is wrong or an assertion failed, 2 usage or file trouble, 3 diverged, 101 internal error, 130 interrupted.
"""
from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import click

from dsl.colors import choose_color, wants_color
from dsl.errors import Diagnostic, Diverged, FileTrouble, Interrupted, LrError, did_you_mean, error, to_json

OK, WRONG, USAGE, DIVERGED, INTERNAL, INTERRUPTED = 0, 1, 2, 3, 101, 130
GROUPS = (("Run", ("run", "repl", "test")), ("Look", ("check", "show", "explain", "bench", "doctor")), ("Write", ("fmt", "completion")))


# ---------------------------------------------------------------- reporting
def report(diagnostics: Sequence[Diagnostic], form: str = "full", stream: IO[str] | None = None) -> None:
    """Diagnostics in one of the three forms; JSON goes to standard output."""
    out = stream or sys.stderr
    match form:
        case "json":
            write_utf8(to_json(diagnostics) + "\n")
        case "concise":
            out.writelines(d.concise() + "\n" for d in diagnostics)
        case _:
            out.write("\n\n".join(d.render(wants_color(out)) for d in diagnostics) + ("\n" if diagnostics else ""))
    out.flush()


def write_json(value: Any) -> None:
    """One JSON document on standard output."""
    import json
    write_utf8(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2) + "\n")


def write_utf8(text: str) -> None:
    """On standard output, in UTF-8 whatever the terminal's encoding is: for programs, and for text that must not change."""
    sys.stdout.flush()
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:
        sys.stdout.write(text)
    else:
        buffer.write(text.encode())
    sys.stdout.flush()


def exit_code(problem: LrError) -> int:
    match problem:
        case Diverged():
            return DIVERGED
        case Interrupted():
            return INTERRUPTED
        case FileTrouble():
            return USAGE
        case _ if {d.code for d in problem.diagnostics} == {"E0901"}:       # the script is right, `--set` is not
            return USAGE
        case _:
            return WRONG


def color_option(function: Any) -> Any:
    """`--color`, on every command that writes diagnostics."""
    return click.option("--color", type=click.Choice(["auto", "always", "never"]), expose_value=False, is_eager=True,
                        callback=lambda context, parameter, value: choose_color(value) if value else None,
                        help="When to colour messages: auto is on terminals, unless NO_COLOR is set.")(function)


def completes(what: str) -> Any:
    """A callback of `completion`, which is imported when a shell asks."""
    def callback(context: click.Context, parameter: click.Parameter, word: str) -> Any:
        from dsl.cli import completion
        return getattr(completion, what)(context, parameter, word)
    return callback


def open_streams() -> None:
    """Gives a process that was started without standard streams ones that lead nowhere, and lets all characters through."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")       # noqa: SIM115
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))       # noqa: SIM115
        elif "utf" not in (stream.encoding or "").lower():
            stream.reconfigure(errors="backslashreplace")


def unwritable(problem: Exception) -> bool:
    """Whether standard output could not be written, which is reported then: what fails with other files has a report of its own."""
    if not isinstance(problem, OSError) or problem.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG):
        return False
    _abandon_output()
    report([error("E0609", f"cannot write the results: {problem.strerror}").diagnostic])
    return True


def _abandon_output() -> None:
    """Nobody reads it any more: what is still in its buffer must not fail a second time at the end of the process."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# ---------------------------------------------------------------- the group of commands
class Commands(click.Group):
    """Every failure of a command ends in a diagnostic and its exit code, never in a traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return self._told(context)
        except KeyboardInterrupt:                        # a second Ctrl-C, while the first is still being reported
            context.exit(INTERRUPTED)

    def _told(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except LrError as problem:
            sys.stdout.flush()
            report(problem.diagnostics)
            context.exit(exit_code(problem))
        except KeyboardInterrupt:
            sys.stderr.write("interrupted\n")
            context.exit(INTERRUPTED)
        except BrokenPipeError:
            _abandon_output()
            context.exit(OK)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as problem:
            if unwritable(problem):
                context.exit(USAGE)
            if "LR_TRACEBACK" in os.environ:
                raise
            report([error("E0999", f"internal error: {type(problem).__name__}: {problem}",
                          help="this is a defect of lr, not of your script; set LR_TRACEBACK=1 to see where, and report it").diagnostic])
            context.exit(INTERNAL)

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        word = args[0]
        if word not in self.commands and not word.startswith("-"):
            near = did_you_mean(word, self.commands)
            is_script = Path(word).suffix == ".lr"
            raise click.UsageError(f"no command `{word}`" + (f"; to run a script: `lr run {word}`" if is_script else
                                                             f"; did you mean `{near}`?" if near else ""), context)
        return super().resolve_command(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by what they are for."""
        grouped = {name for _, names in GROUPS for name in names}
        others = tuple(sorted(set(self.commands) - grouped))
        width = max(map(len, self.commands))
        for title, names in (*GROUPS, *([("More", others)] if others else [])):
            rows = [(name.ljust(width), self.commands[name].get_short_help_str(60)) for name in names if name in self.commands]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_spacing=4)
