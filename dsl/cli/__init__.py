"""The command line: what `lr` and its commands take, and which part of the program answers.

In: arguments.  Out: results on standard output, progress and diagnostics on standard error, and an exit code (`console`).  Whatever a
command needs is imported when it runs.
"""
from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from dsl.cli.console import OK, USAGE, WRONG, Commands, color_option, completes, exit_code, open_streams, report, unwritable, write_json
from dsl.errors import Diagnostic, LrError, Source, did_you_mean

if TYPE_CHECKING:
    from dsl.runtime.programs import Form
    from dsl.session import Session


@click.group(cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="lr-lang", prog_name="lr")
@color_option
@click.pass_context
def commands(context: click.Context) -> None:
    """lr: a small declarative language for models that learn.

    Without a command: the interactive session, in a terminal or over what is piped in.
    """
    if context.invoked_subcommand is None:
        from dsl.repl import app
        if not app.interactive():
            click.echo(context.get_help())
            return
        context.exit(app.main(app.Options()))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The program `lr`."""
    gc.set_threshold(200_000)               # graphs and trees live long; looking for cycles among them takes a tenth of a check
    open_streams()
    try:
        commands.main(args=list(arguments) if arguments is not None else None, prog_name="lr")
    except OSError as problem:              # of a `--help`, which no command has been asked for
        if not unwritable(problem):
            raise
        raise SystemExit(USAGE) from None
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
    from dsl.scripts import check_kind, read_script, script_text
    if file == "-":
        return Source("<stdin>", script_text(sys.stdin.buffer.read(), "standard input")), Path()
    check_kind(file)
    return Source(file, read_script(file), file), Path(file).parent


def session_options(function: Any) -> Any:
    for option in (click.option("--seed", type=click.IntRange(0), help="The seed of all random draws."),
                   click.option("--precision", type=click.Choice(["float32", "float64"]), help="The script's float."),
                   click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "numpy"]), help="Where to run."),
                   click.option("--set", "values", multiple=True, metavar="NAME=VALUE", shell_complete=completes("settings"),
                                help="Another value for a `let` or `dim` with a literal one (repeatable)."),
                   click.option("-e", "code", metavar="CODE", help="The script itself, instead of a file.")):
        function = option(function)
    return click.argument("file", required=False, shell_complete=completes("scripts"))(function)


def open_session(file: str | None, code: str | None, device: str | None, precision: str | None, seed: int | None, values: tuple[str, ...],
                 out: str | None = None, kind: Callable[..., Session] | None = None, **options: Any) -> tuple[Session, Source]:
    source, base = source_of(file, code)
    if kind is None:
        from dsl.session import Session
        kind = Session
    return kind(precision=precision, seed=seed, device=device, overrides=settings(values), base=base,
                out=Path(out) if out else None, **options), source


# ---------------------------------------------------------------- run, check
@commands.command(short_help="Check a script and run it.")
@session_options
@click.option("--out", metavar="DIR", help="Where files are written (the working directory unless told).")
@click.option("--threads", type=click.IntRange(1), metavar="N",
              help="Threads of native code (LR_THREADS, or all processors, unless told); results do not depend on it.")
@click.option("--profile", is_flag=True, help="Afterwards a table of where native code spent its time.")
@click.option("--resume", is_flag=False, flag_value="", metavar="[FILE]",
              help="On from the checkpoint in FILE, or from the one that the script has written; from the beginning if there is none.")
@click.option("--live", is_flag=True, help="In a terminal, draw the cost of a training while it falls.")
@click.option("--json", "as_json", is_flag=True, help="Write results and diagnostics as JSON, one object a line.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@color_option
def run(file: str | None, code: str | None, device: str | None, precision: str | None, seed: int | None, values: tuple[str, ...],
        out: str | None, threads: int | None, profile: bool, resume: str | None, live: bool, as_json: bool, quiet: bool) -> None:
    """Check a script and run it.

    FILE is a script, or `-` for standard input.
    """
    if resume and file is None and code is None:         # `lr run --resume FILE.lr`
        file, resume = resume, ""
    if as_json:
        from dsl.cli.reports import writing_events
        with writing_events() as kind:
            session, source = open_session(file, code, device, precision, seed, values, out, kind, quiet=quiet, threads=threads)
            session.load(source)
            session.run(resume=False if resume is None else resume or True)
        return
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


@commands.command(short_help="Find what is wrong with a script, without running it.")
@session_options
@click.option("--output-format", "form", type=click.Choice(["full", "concise", "json"]), default="full",
              help="How diagnostics are written.")
@click.option("--json", "form", flag_value="json", help="The same as --output-format json.")
@color_option
@click.pass_context
def check(context: click.Context, file: str | None, code: str | None, device: str | None, precision: str | None, seed: int | None,
          values: tuple[str, ...], form: str) -> None:
    """Check a script without running it.

    An absent data file is a warning here.  Editors read --json.
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
@commands.command(short_help="Show formulas, gradients, graphs, loops and code of a script.")
@session_options
@click.argument("name", required=False, shell_complete=completes("names"))
@click.option("--grad", "view", flag_value="grad", help="The gradients of a cost, written out.")
@click.option("--rules", "view", flag_value="rules", help="Which rewrite rules fired, and on what.")
@click.option("--graph", "view", flag_value="graph", help="The typed graph, one node a line.")
@click.option("--kernels", "view", flag_value="kernels", help="The loop programs of formulas and of each `train`.")
@click.option("--code", "form", is_flag=False, flag_value="cuda", type=click.Choice(["cuda", "llvm", "asm"]),
              help="Their code: CUDA C (unless told), LLVM IR after the passes, or assembly for this processor.")
@click.option("--cost", "view", flag_value="cost", help="Their operations and memory traffic, in the named sizes.")
@click.option("--json", "as_json", is_flag=True, help="As JSON: names with dtype, shape, formula, and the view's text.")
@color_option
@click.pass_context
def show(context: click.Context, file: str | None, name: str | None, code: str | None, device: str | None, precision: str | None,
         seed: int | None, values: tuple[str, ...], view: str | None, form: Form | None, as_json: bool) -> None:
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
    try:
        session, source = open_session(file, code, device, precision, seed, values, evaluate=False)
        session.load(source)
        if as_json:
            from dsl.cli.reports import shown
            write_json(shown(session, name, view, form or "cuda"))
            return
        from dsl.show import describe
        sys.stdout.write(describe(session, name, view, form or "cuda"))
    except LrError as problem:
        if not as_json:
            raise
        write_json({"diagnostics": [d.as_dict() for d in problem.diagnostics]})
        context.exit(exit_code(problem))


# ---------------------------------------------------------------- repl
@commands.command()
@click.argument("file", required=False, shell_complete=completes("scripts"))
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "numpy"]), help="Where to run.")
@click.option("--precision", type=click.Choice(["float32", "float64"]), help="The session's float.")
@click.option("--seed", type=click.IntRange(0), help="The seed of all random draws.")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Threads of native code; results do not depend on it.")
@color_option
@click.pass_context
def repl(context: click.Context, file: str | None, device: str | None, precision: str | None, seed: int | None,
         threads: int | None) -> None:
    """The interactive session, after FILE if one is named.

    Piped input is run entry by entry, without prompts; an entry that fails does not stop those after it, but makes the exit code 1.
    """
    from dsl.repl import app
    context.exit(app.main(app.Options(file, device, precision, seed, threads)))


# ---------------------------------------------------------------- test
@commands.command(short_help="Run scripts with their `#>` lines and tests checked.")
@click.argument("files", nargs=-1, required=True, shell_complete=completes("scripts"))
@click.option("-v", "--verbose", is_flag=True, help="Show what the scripts print.")
@click.option("--json", "as_json", is_flag=True, help="As JSON: each script with its checks and diagnostics.")
@color_option
@click.pass_context
def test(context: click.Context, files: tuple[str, ...], verbose: bool, as_json: bool) -> None:
    """Run scripts (or folders of them) with their `#>` lines, `assert`s and `test` blocks checked."""
    from dsl.cli.testing import test_script
    from dsl.scripts import scripts_in
    paths = scripts_in(files)
    if as_json:
        results = [test_script(path, None) for path in paths]
        failed = sum(not result.passed for result in results)
        write_json({"passed": len(results) - failed, "failed": failed, "scripts": [result.as_dict() for result in results]})
    else:
        failed = 0
        for path in paths:
            result = test_script(path, sys.stdout if verbose else None)
            failed += not result.passed
            click.echo(str(result))
            report(result.problems)
        click.echo(f"{len(paths) - failed} passed, {failed} failed")
    context.exit(WRONG if failed else OK)


# ---------------------------------------------------------------- explain, doctor
@commands.command(short_help="Explain an error code, a function, a keyword or an optimiser.")
@click.argument("name", metavar="NAME", required=False, shell_complete=completes("topics"))
@click.option("--list", "as_list", is_flag=True, help="All codes with their titles.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def explain(name: str | None, as_list: bool, as_json: bool) -> None:
    """What an error code means, with an example and its fix; or what a function, a keyword or an optimiser does."""
    from dsl.error_index import ENTRIES, as_dict
    from dsl.error_index import explain as explanation
    if as_list == (name is not None):
        raise click.UsageError("give an error code, such as E0201, a name, such as softmax, or --list")
    if name is None:
        if as_json:
            write_json([as_dict(entry) for entry in ENTRIES.values()])
        else:
            sys.stdout.writelines(f"{entry.code}  {entry.title}\n" for entry in ENTRIES.values())
        return
    wanted = name.upper()
    if wanted not in ENTRIES:
        from dsl.help import as_dict as topic_as_dict
        from dsl.help import help_text, known_names, topics
        if not (found := topics(None, name)):
            near = did_you_mean(name, known_names()) or did_you_mean(wanted, ENTRIES)
            advice = f"did you mean `{near}`?" if near else "`lr explain --list` shows the codes"
            raise click.UsageError(f"nothing is called `{name}`; {advice}")
        if as_json:
            write_json([topic_as_dict(topic) for topic in found])
        else:
            click.echo(help_text(None, name), nl=False)
    elif as_json:
        write_json(as_dict(ENTRIES[wanted]))
    else:
        click.echo(explanation(wanted))


@commands.command(short_help="Say what is installed, and which devices work.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def doctor(as_json: bool) -> None:
    """What is installed, which devices work, and why not."""
    from dsl.runtime.doctor import examine, render
    findings = examine()
    if as_json:
        write_json(findings)
    else:
        click.echo(render(findings))


# ---------------------------------------------------------------- fmt, completion
@commands.command(short_help="Rewrite scripts in their canonical form.")
@click.argument("files", nargs=-1, required=True, shell_complete=completes("scripts"))
@click.option("--check", "only_check", is_flag=True, help="Change nothing; list the files that would change, and exit with 1 if any.")
@click.option("--diff", "show_diff", is_flag=True, help="Change nothing; show what would change.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing about what was done.")
@color_option
@click.pass_context
def fmt(context: click.Context, files: tuple[str, ...], only_check: bool, show_diff: bool, quiet: bool) -> None:
    """Rewrite scripts (or folders of them) in their canonical form; `-` reads standard input and prints."""
    from dsl.cli import formatting
    context.exit(formatting.command(files, only_check, show_diff, quiet))


@commands.command("completion", short_help="Print what makes bash, zsh or fish complete `lr`.")
@click.argument("shell", required=False, type=click.Choice(["bash", "zsh", "fish"]))
def completion_script(shell: str | None) -> None:
    """Print what makes a shell complete commands, options, scripts and names.

    \b
    In ~/.bashrc:                  eval "$(lr completion bash)"
    In ~/.zshrc:                   eval "$(lr completion zsh)"
    In ~/.config/fish/config.fish: lr completion fish | source
    """
    from dsl.cli import completion
    shell = shell or completion.current_shell()
    if shell is None:
        raise click.UsageError("name the shell: bash, zsh or fish")
    sys.stdout.write(completion.shell_script(commands, shell))


# ---------------------------------------------------------------- bench
@commands.command(short_help="Time the same work here and in other systems.")
@click.argument("names", nargs=-1, metavar="[NAME]…", shell_complete=completes("benchmarks"))
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
