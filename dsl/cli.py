"""The command line: `lr run | check | show | test | explain | doctor | bench`.

In: arguments.  Out: results on standard output, progress and diagnostics on standard error, and an exit code:
0 ok, 1 the script is wrong or an assertion failed, 2 usage or file trouble, 3 diverged, 101 internal error, 130 interrupted.
"""
from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from dsl.errors import Diagnostic, Diverged, FileTrouble, Interrupted, LrError, Source, did_you_mean, error, to_json

if TYPE_CHECKING:
    from dsl.runtime.programs import Form
    from dsl.session import Session

OK, WRONG, USAGE, DIVERGED, INTERNAL, INTERRUPTED = 0, 1, 2, 3, 101, 130
LATER = {"fmt": "formatting", "repl": "the interactive session"}


# ---------------------------------------------------------------- reporting
def colored() -> bool:
    return sys.stderr.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def report(diagnostics: Sequence[Diagnostic], form: str = "full", stream: Any = None) -> None:
    """Diagnostics in one of the three forms."""
    out = stream or sys.stderr
    match form:
        case "json":
            out.write(to_json(diagnostics) + "\n")
        case "concise":
            out.writelines(d.concise() + "\n" for d in diagnostics)
        case _:
            out.write("\n\n".join(d.render(colored()) for d in diagnostics) + ("\n" if diagnostics else ""))
    out.flush()


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


class Commands(click.Group):
    """Every failure of a command ends in a diagnostic and its exit code, never in a traceback."""

    def invoke(self, context: click.Context) -> Any:
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
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            context.exit(OK)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as problem:
            if "LR_TRACEBACK" in os.environ:
                raise
            report([error("E0999", f"internal error: {type(problem).__name__}: {problem}",
                          help="this is a defect of lr, not of your script; set LR_TRACEBACK=1 to see where, and report it").diagnostic])
            context.exit(INTERNAL)

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        word = args[0]
        if word in LATER:
            raise click.UsageError(f"`lr {word}` ({LATER[word]}) is not in this version")
        if word not in self.commands and not word.startswith("-"):
            from difflib import get_close_matches
            near = next(iter(get_close_matches(word, self.commands)), None)
            raise click.UsageError(f"no command `{word}`" + ("; to run a script: `lr run " + word + "`" if Path(word).suffix == ".lr" else
                                                             f"; did you mean `{near}`?" if near else ""), context)
        return super().resolve_command(context, args)


@click.group(cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lr-lang", prog_name="lr")
@click.pass_context
def commands(context: click.Context) -> None:
    """lr: a small declarative language for models that learn."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The program `lr`."""
    gc.set_threshold(200_000)               # graphs and trees live long; looking for cycles among them takes a tenth of a check
    commands.main(args=list(arguments) if arguments is not None else None, prog_name="lr")
    raise SystemExit(OK)


# ---------------------------------------------------------------- sources and options
def settings(text: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for item in text:
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            raise click.UsageError(f"--set takes name=value, not {item!r}")
        pairs[name.strip()] = value.strip()
    return pairs


def source_of(file: str | None, code: str | None) -> tuple[Source, Path]:
    """The script, and the folder its files are read from."""
    if (file is None) == (code is None):
        raise click.UsageError("give a script: a FILE, `-` for standard input, or -e CODE")
    if code is not None:
        return Source("<command line>", code), Path()
    assert file is not None
    from dsl.scripts import read_script, script_text
    if file == "-":
        return Source("<stdin>", script_text(sys.stdin.buffer.read(), "standard input")), Path()
    return Source(file, read_script(file), file), Path(file).parent


def session_options(function: Any) -> Any:
    for option in (click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "numpy"]), help="Where to run."),
                   click.option("--precision", type=click.Choice(["float32", "float64"]), help="The script's float."),
                   click.option("--seed", type=click.IntRange(0), help="The seed of all random draws."),
                   click.option("--set", "values", multiple=True, metavar="NAME=VALUE",
                                help="Another value for a `let` or `dim` with a literal one."),
                   click.option("-e", "code", metavar="CODE", help="The script itself, instead of a file.")):
        function = option(function)
    return click.argument("file", required=False)(function)


def open_session(file: str | None, code: str | None, device: str | None, precision: str | None, seed: int | None, values: tuple[str, ...],
                 out: str | None = None, **options: Any) -> tuple[Session, Source]:
    from dsl.session import Session
    source, base = source_of(file, code)
    session = Session(precision=precision, seed=seed, device=device, overrides=settings(values), base=base,
                      out=Path(out) if out else None, **options)
    return session, source


# ---------------------------------------------------------------- run, check
@commands.command()
@session_options
@click.option("--out", metavar="DIR", help="Where files are written (the working directory unless told).")
@click.option("--threads", type=click.IntRange(1), metavar="N",
              help="Threads of native code (LR_THREADS, or all processors, unless told); results do not depend on it.")
@click.option("--profile", is_flag=True, help="Afterwards a table of where native code spent its time.")
@click.option("--resume", is_flag=False, flag_value="", metavar="[FILE]",
              help="On from the checkpoint in FILE, or from the one that the script has written; from the beginning if there is none.")
@click.option("--live", is_flag=True, help="In a terminal, draw the cost of a training while it falls.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def run(file: str | None, code: str | None, device: str | None, precision: str | None, seed: int | None, values: tuple[str, ...],
        out: str | None, threads: int | None, profile: bool, resume: str | None, live: bool, quiet: bool) -> None:
    """Check a script and run it."""
    if resume and file is None and code is None:         # `lr run --resume FILE.lr`
        file, resume = resume, ""
    session, source = open_session(file, code, device, precision, seed, values, out, quiet=quiet, threads=threads, profile=profile)
    if live:
        from dsl.repl.curve import Curve
        session.reporter = Curve
    try:
        session.load(source)
        report(session.elaborator.warnings)
        session.run(resume=False if resume is None else resume or True)
    finally:
        if session.profile is not None:
            sys.stdout.flush()
            sys.stderr.write(session.profile.text())


@commands.command()
@session_options
@click.option("--output-format", "form", type=click.Choice(["full", "concise", "json"]), default="full",
              help="How diagnostics are written.")
@click.pass_context
def check(context: click.Context, file: str | None, code: str | None, device: str | None, precision: str | None, seed: int | None,
          values: tuple[str, ...], form: str) -> None:
    """Check a script without running it.

    An absent data file is a warning here.
    """
    result = OK
    found: list[Diagnostic] = []
    session = None
    try:
        session, source = open_session(file, code, device, precision, seed, values, evaluate=False)
        session.load(source)
    except LrError as problem:
        found.extend(problem.diagnostics)
        result = exit_code(problem)
    found = [*(session.elaborator.warnings if session else ()), *found]
    if found or form == "json":
        report(found, form, sys.stdout if form == "json" else None)
    context.exit(result)


# ---------------------------------------------------------------- show
@commands.command()
@session_options
@click.argument("name", required=False)
@click.option("--grad", "view", flag_value="grad", help="The gradients of a cost, written out.")
@click.option("--rules", "view", flag_value="rules", help="Which rewrite rules fired, and on what.")
@click.option("--graph", "view", flag_value="graph", help="The typed graph, one node a line.")
@click.option("--kernels", "view", flag_value="kernels", help="The loop programs of formulas and of each `train`.")
@click.option("--code", "form", is_flag=False, flag_value="cuda", type=click.Choice(["cuda", "llvm", "asm"]),
              help="Their code: CUDA C (unless told), LLVM IR after the passes, or assembly for this processor.")
@click.option("--cost", "view", flag_value="cost", help="Their operations and memory traffic, in the named sizes.")
def show(file: str | None, name: str | None, code: str | None, device: str | None, precision: str | None, seed: int | None,
         values: tuple[str, ...], view: str | None, form: Form | None) -> None:
    """Show what a script means.

    Every named expression as a formula, or one of them: its gradient, its graph, the loops it becomes. NAME is a name of the script;
    with --kernels, --code and --cost also `train`. No data file and no GPU is needed.
    """
    if form is not None:
        if view is not None:
            raise click.UsageError(f"either --{view} or --code")
        view = "code"
    if code is not None and file is not None and name is None:
        file, name = None, file
    session, source = open_session(file, code, device, precision, seed, values, evaluate=False)
    session.load(source)
    from dsl.show import describe
    sys.stdout.write(describe(session, name, view, form or "cuda"))


# ---------------------------------------------------------------- test
@commands.command()
@click.argument("files", nargs=-1, required=True)
@click.option("-v", "--verbose", is_flag=True, help="Show what the scripts print.")
@click.pass_context
def test(context: click.Context, files: tuple[str, ...], verbose: bool) -> None:
    """Run scripts (or folders of them) with their `#>` lines, `assert`s and `test` blocks checked."""
    import io
    import tempfile

    from dsl.scripts import read_script
    from dsl.session import Session
    scripts = [p for f in files for p in (sorted(Path(f).glob("**/*.lr")) if Path(f).is_dir() else [Path(f)])]
    if not scripts:
        raise error("E0601", f"no scripts in {' '.join(files)}", kind=FileTrouble)
    failed = 0
    for path in scripts:
        printed = io.StringIO()
        with tempfile.TemporaryDirectory() as folder:
            session = Session(base=path.parent, out=Path(folder), stdout=sys.stdout if verbose else printed, quiet=True)
            session.comparing = True
            problems: list[Diagnostic] = []
            try:
                session.load(Source(str(path), read_script(path), str(path)))
                session.run()
            except LrError as problem:
                problems.extend(problem.diagnostics)
            problems = [*session.failures, *problems]
        checks = session.checked
        click.echo(f"{'FAILED' if problems else 'ok'} {path} ({checks} check{'' if checks == 1 else 's'})")
        if problems:
            failed += 1
            report(problems)
    click.echo(f"{len(scripts) - failed} passed, {failed} failed")
    context.exit(WRONG if failed else OK)


# ---------------------------------------------------------------- explain, doctor
@commands.command()
@click.argument("code")
def explain(code: str) -> None:
    """What an error code means, with an example and its fix."""
    from dsl.error_index import ENTRIES
    from dsl.error_index import explain as explanation
    wanted = code.upper()
    if wanted not in ENTRIES:
        near = did_you_mean(wanted, ENTRIES)
        raise click.UsageError(f"no error code {code!r}" + (f"; did you mean {near}?" if near else ""))
    click.echo(explanation(wanted))


@commands.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def doctor(as_json: bool) -> None:
    """What is installed, which devices work, and why not."""
    from dsl.runtime.doctor import examine, render
    findings = examine()
    if as_json:
        import json
        click.echo(json.dumps(findings, indent=2))
    else:
        click.echo(render(findings))


# ---------------------------------------------------------------- bench
@commands.command()
@click.argument("names", nargs=-1, metavar="[NAME]…")
@click.option("--list", "as_list", is_flag=True, help="The work there is, and the columns.")
@click.option("--quick", is_flag=True, help="Small sizes, few rounds.")
@click.option("--device", type=click.Choice(["cpu", "numpy", "cuda"]), default="cpu", show_default=True, help="Where our side runs.")
@click.option("--rounds", type=click.IntRange(1), help="Turns of every side (default 7; 2 with --quick).")
@click.option("--peers", metavar="NAMES", help="Only these beside ours, with commas: c,jax,torch.")
@click.option("--size", "sizes", type=click.IntRange(1), multiple=True, help="Only this size, of work that has several (repeatable).")
@click.option("--threads", type=click.IntRange(1), help="Processors for every side (default: all).")
@click.option("--python", metavar="PATH", help="The interpreter that peers run under (default: this one).")
@click.option("--json", "json_file", metavar="FILE", help="Write what was measured as JSON.")
@click.option("--plot", "plot_file", metavar="FILE", help="Draw cost against size.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def bench(names: tuple[str, ...], as_list: bool, quick: bool, device: str, rounds: int | None, peers: str | None, sizes: tuple[int, ...],
          threads: int | None, python: str | None, json_file: str | None, plot_file: str | None, quiet: bool) -> None:
    """Time the same work here and in what else is installed, side by side."""
    from dsl.bench import command
    if as_list:
        sys.stdout.write(command.listing(device))
        return
    request = command.Request(names, quick, device, rounds, peers, sizes, python, threads, json_file, plot_file)
    try:
        sys.stdout.write(command.bench(request, quiet))
    except ValueError as problem:
        raise click.UsageError(str(problem)) from None


if __name__ == "__main__":
    main()
