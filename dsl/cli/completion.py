"""What the shell completes: in comes the word that is being typed, out go scripts, names in them, `--set` pairs, error codes.

Nothing here needs more than the parser, so that a Tab is answered at once; what cannot be read completes to nothing.
"""
from __future__ import annotations

import os
from collections.abc import Iterator

import click
from click.shell_completion import CompletionItem

from dsl.errors import LrError, Source
from dsl.scripts import SUFFIX, read_script
from dsl.syntax import ast

SHELLS = ("bash", "zsh", "fish")
WHERE = {"bash": ('eval "$(lr completion bash)"', "~/.bashrc"), "zsh": ('eval "$(lr completion zsh)"', "~/.zshrc"),
         "fish": ("lr completion fish | source", "~/.config/fish/config.fish")}


def shell_script(group: click.Command, shell: str) -> str:
    """What the shell is to read so that it asks us."""
    from click.shell_completion import get_completion_class
    made = get_completion_class(shell)
    assert made is not None
    line, file = WHERE[shell]
    return f"# Completion of `lr` in {shell}: put this line into {file}\n#   {line}\n{made(group, {}, 'lr', '_LR_COMPLETE').source()}\n"


def current_shell() -> str | None:
    """The login shell, if it is one that we know."""
    name = os.path.basename(os.environ.get("SHELL", ""))
    return name if name in SHELLS else None


# ---------------------------------------------------------------- files
def scripts(context: click.Context, parameter: click.Parameter, word: str) -> list[CompletionItem]:
    """Scripts and folders; a folder that is the only choice is looked into, so that a second Tab is not needed.

    `lr show -e CODE` has no file: its argument is a name."""
    if context.command.name == "show" and context.params.get("code"):
        return names(context, parameter, word)
    while True:
        found = list(_entries(word))
        if len(found) != 1 or not found[0].endswith("/"):
            return [CompletionItem(path) for path in found]
        inside = list(_entries(found[0]))
        if not inside:
            return []
        word = found[0]


def _entries(word: str) -> Iterator[str]:
    folder, start = os.path.split(word)
    try:
        entries = sorted(os.scandir(os.path.expanduser(folder) or "."), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        name = entry.name
        if name.startswith(start) and not (name.startswith(".") and not start):
            if entry.is_dir():
                yield os.path.join(folder, name) + "/"
            elif name.endswith(SUFFIX):
                yield os.path.join(folder, name)


# ---------------------------------------------------------------- what is in a script
def names(context: click.Context, parameter: click.Parameter, word: str) -> list[CompletionItem]:
    """The names that a script binds, with the line that does."""
    return [CompletionItem(name, help=line) for name, line in _bound(context) if name.startswith(word)]


def settings(context: click.Context, parameter: click.Parameter, word: str) -> list[CompletionItem]:
    """`name=` of each `let` and `dim` that `--set` can change."""
    found = []
    for statement in _statements(context):
        match statement:
            case ast.Define(kind="let", names=(name,), value=ast.Number() | ast.Boolean() | ast.Unary(operand=ast.Number()) as value):
                found.append((name.id, value.span.text))
            case ast.Dim(items=items):
                found.extend((item.name.id, item.value.span.text) for item in items if isinstance(item.value, ast.Number))
            case _:
                pass
    return [CompletionItem(f"{name}=", help=f"now {value}") for name, value in found if name.startswith(word)]


def _statements(context: click.Context) -> tuple[ast.Statement, ...]:
    from dsl.syntax.parse import parse
    code = context.params.get("code")
    # Where an option still lacks its value, click has read no arguments yet.
    file = context.params.get("file") or next((word for word in context.args if word.endswith(SUFFIX)), "-")
    try:
        if code is not None:
            return parse(Source("", code))[0].statements
        return parse(Source("", read_script(file)))[0].statements if file != "-" else ()
    except LrError:
        return ()


def _bound(context: click.Context) -> Iterator[tuple[str, str]]:
    trains = False
    for statement in _statements(context):
        bound: tuple[ast.Ident, ...] = ()
        match statement:
            case ast.Define(names=bound) | ast.Derive(names=bound) | ast.Data(names=bound):
                pass
            case ast.Dim(items=items) | ast.Input(items=items) | ast.Shared(items=items):
                bound = tuple(item.name for item in items)
            case ast.Def(name=name) | ast.Optimizer(name=name):
                bound = (name,)
            case ast.Train():
                trains = True
            case _:
                pass
        yield from ((name.id, statement.span.text.partition("\n")[0][:60]) for name in bound)
    if trains:
        yield "train", "the training loop, with --kernels, --code or --cost"


# ---------------------------------------------------------------- other words
def topics(context: click.Context, parameter: click.Parameter, word: str) -> list[CompletionItem]:
    """What `lr explain` knows: error codes, and names of the language, for which the op table is read."""
    from dsl.error_index import ENTRIES
    found = [CompletionItem(code, help=entry.title) for code, entry in ENTRIES.items() if word and code.startswith(word.upper())]
    if found:
        return found
    from dsl.help import known_names
    return [CompletionItem(name) for name in sorted(known_names()) if name.startswith(word)]


def benchmarks(context: click.Context, parameter: click.Parameter, word: str) -> list[CompletionItem]:
    from dsl.bench.work import works
    return [CompletionItem(work.name) for work in works(context.params.get("device") or "cpu") if work.name.startswith(word)]
