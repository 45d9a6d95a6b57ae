"""The commands of the prompt.

In: a line such as `:type w`, and the session.  Out: what it prints, or what it changes.  `COMMANDS` is the table of them; a word may be
shortened while it stays the only one that begins so.
"""
from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dsl.errors import LrError, Source, did_you_mean, error
from dsl.ir.node import Node
from dsl.record import entity
from dsl.repl.engine import Engine
from dsl.repl.settings import one_of
from dsl.runtime.profile import duration
from dsl.syntax import ast, program
from dsl.syntax.parse import parse, parse_expression
from dsl.syntax.values import Group, Table, TextColumn, UserFunction, Value

MOST_RUNS, MOST_SECONDS = 1000, 1.0
LONGEST_ENTRY = 60
"""Of an entry that is named in a remark."""
CODE_FORMS = ("cuda", "llvm", "asm")
HABITS = {"quit": ":quit", "exit": ":quit", "help": ":help", ":?": ":help"}
LIVE = ("device", "seed", "threads")
DEVICES = ("auto", "cpu", "cuda", "numpy")


@entity
class Command:
    word: str
    usage: str
    """What follows the word."""
    summary: str
    details: str
    action: Callable[[Repl, str], None]
    entry: bool = False
    """Whether an entry follows, which may have several lines."""


class Repl(Engine):
    """The engine with its commands."""

    def execute(self, text: str, name: str, place: str | None = None) -> None:
        super().execute(text if place else self.meant(text), name, place)

    def meant(self, text: str) -> str:
        """What is written to other prompts to leave or to ask, as it is written here; names that are bound keep their meaning."""
        entry = text.strip()
        word = entry.removesuffix("()")
        if word in HABITS and word not in self.session.elaborator.scope:
            return HABITS[word]
        if word in ("clear", "cls") and word not in self.session.elaborator.scope:
            raise error("E0911", f"no command `{word}`", help="Ctrl-L clears the screen")
        if asking := re.fullmatch(r"help\(([\w.]+)\)|\?*([\w.]+)\?+|\?{2,}([\w.]+)", entry):
            return f"?{next(filter(None, asking.groups()))}"
        if foreign := re.match(r"[%!]+(\w+)", entry):
            raise error("E0911", f"no command `{foreign.group()}`", help=f"commands begin with a colon: `:{foreign[1]}`"
                        if foreign[1] in COMMANDS else "commands begin with a colon; `:help` lists them")
        return text

    def command(self, text: str) -> None:
        self.out.flush()
        if text.startswith("?"):
            asked(self, text[1:].strip())
            return
        word, _, rest = text[1:].partition(" ")
        command = resolve(word)
        if rest.strip() and not command.usage:
            raise error("E0911", f"`:{command.word}` takes nothing after it", help=f"write `:{command.word}`")
        command.action(self, rest.strip())


# ---------------------------------------------------------------- finding one
def resolve(word: str) -> Command:
    """The command of a word or its beginning.  Raises `LrError`."""
    if word in COMMANDS:
        return COMMANDS[word]
    begun = [name for name in COMMANDS if word and name.startswith(word)]
    if len(begun) == 1:
        return COMMANDS[begun[0]]
    if begun:
        *others, last = (f"`:{name}`" for name in begun)
        raise error("E0911", f"`:{word}` begins {', '.join(others)} and {last}", help="write a letter more")
    near = did_you_mean(word, COMMANDS)
    raise error("E0911", f"no command `:{word}`", help=f"did you mean `:{near}`?" if near else "`:help` lists them")


def command_words() -> list[str]:
    """All commands, with their colon."""
    return [f":{name}" for name in COMMANDS]


def takes_entry(word: str) -> bool:
    """Whether an entry follows the command, for who asks whether that is complete."""
    try:
        return resolve(word.removeprefix(":")).entry
    except LrError:
        return False


# ---------------------------------------------------------------- help
KEYS = """\
  Enter          runs what is complete, else begins a line; an empty line ends a block
  Alt-Enter      begins a line
  Tab            completes; makes a letter of \\alpha
  Up, Down       entries that begin alike
  Ctrl-R         entries that contain a text
  Ctrl-X Ctrl-E  opens $EDITOR
  Ctrl-C         clears the entry; stops a training after a whole step
  Ctrl-D         leaves
"""


def asked(repl: Repl, name: str) -> None:
    """`?name`."""
    if not name:
        help(repl, "")
    elif name.startswith(":"):
        help(repl, name)
    else:
        from dsl.help import help_text
        repl.prose(help_text(repl.session, name))


def help(repl: Repl, rest: str) -> None:
    if rest and not rest.startswith(":") and not any(name.startswith(rest) for name in COMMANDS):
        asked(repl, rest)
        return
    if rest:
        command = resolve(rest.removeprefix(":"))
        repl.prose(f":{command.word} {command.usage}".rstrip() + "\n" + "\n".join(f"  {line}" for line in command.details.splitlines()))
        return
    width = max(len(f"{c.word} {c.usage}") for c in COMMANDS.values())
    rows = [f"  :{f'{c.word} {c.usage}':{width}}  {c.summary}" for c in COMMANDS.values()]
    repl.prose("Statements run as in a script; an expression by itself is shown, and `ans` is its value. A name that is bound again "
               "changes what depends on it. `?name` explains a function, a statement, a name, an error; `:help show` a command, whose "
               "word may be shortened.\n\n" + "\n".join(rows) + "\n\n" + KEYS)


# ---------------------------------------------------------------- looking
def source_of(text: str) -> Source:
    return Source("<command>", text)


def value_of(repl: Repl, text: str) -> Value:
    """An expression elaborated and not evaluated."""
    session = repl.session
    expr = parse_expression(source_of(text))
    elaborator = session.elaborator
    statement = repl.with_ans(ast.Bare(expr, span=expr.span))
    assert isinstance(statement, ast.Bare)
    elaborator.begin_statement(statement)
    elaborator.later, elaborator.unparsed = {}, set()
    try:
        return elaborator.value(statement.value)
    except LrError as problem:
        raise type(problem)(*(elaborator.finished(d) for d in problem.placed(expr.span).diagnostics)) from None


def needed(command: str, rest: str, example: str) -> str:
    if not rest:
        raise error("E0911", f"`:{command}` of what?", help=f"write `:{command} {example}`")
    return rest


def type_words(repl: Repl, value: Value) -> str:
    """What a value is: dtype and sizes, and the sizes that are known."""
    match value:
        case Node():
            known = repl.session.sizes()
            names = dict.fromkeys(s.name for d in value.shape for s in d.sizes() if s.named and s.name in known)
            sizes = ", ".join(f"{name} = {known[name]}" for name in names)
            return str(value.type).removesuffix("[]") + (f"   {sizes}" if sizes else "")
        case Group(items):
            return f"({', '.join(type_words(repl, item) for item in items)})"
        case Table(_, columns, rows):
            return f"table, {rows} rows: " + ", ".join(f"{name} {type_words(repl, column)}" for name, column in columns.items())
        case TextColumn(values=values):
            return f"text[{len(values)}]"
        case UserFunction(definition):
            return f"function of {', '.join(p.name.id for p in definition.parameters) or 'nothing'}"
        case str():
            return "text"
        case _:
            return type(value).__name__.lower()


def type_(repl: Repl, rest: str) -> None:
    with repl.tried():
        words = type_words(repl, value_of(repl, needed("type", rest, "w")))
    repl.say(words)


def described(repl: Repl, name: str | None, view: str | None, form: Any = "cuda") -> str:
    from dsl.show import describe
    return describe(repl.session, name, view, form)


def show(repl: Repl, rest: str) -> None:
    from dsl.repl.display import show_formula, show_formulas
    if not rest or rest in repl.session.elaborator.scope:
        repl.say(show_formulas(described(repl, rest or None, None), width=repl.terminal.columns) or "nothing is bound yet\n")
        return
    with repl.tried():
        text = repl.session.shown(rest, value_of(repl, rest))
    repl.say(show_formula(text, width=repl.terminal.columns))


def grad(repl: Repl, rest: str) -> None:
    rest = needed("grad", rest, "C wrt w")
    from dsl.repl.display import show_formulas
    symbol = repl.session.elaborator.scope.get(rest)
    if symbol is not None:
        repl.say(show_formulas(described(repl, rest, "grad"), width=repl.terminal.columns))
        return
    if "wrt" not in rest.split():
        raise error("E0911", f"`:grad` of `{rest}` with respect to what?", help=f"write `:grad {rest} wrt w`")
    script, problems = parse(source_of(f"grad _ = {rest}"))
    if problems:
        raise LrError(*problems)
    (statement,) = script.statements
    assert isinstance(statement, ast.Derive)
    lines = []
    with repl.tried():
        for variable in statement.wrt:
            one = ast.Derive("grad", (ast.Ident("grad _", span=statement.span),), statement.value, (variable,), span=statement.span)
            repl.session.accept(statement.span.source, [repl.with_ans(one)])
            value = repl.session.elaborator.scope["grad _"].value
            assert isinstance(value, Node)
            lines.append(f"d {statement.value.span.text} / d {variable.id} : {type_words(repl, value)} = "
                         f"{repl.session.shown('grad _', value)}")
    repl.say(show_formulas("\n".join(lines), width=repl.terminal.columns))


def kernels(repl: Repl, rest: str) -> None:
    repl.say(described(repl, rest or None, "kernels") or "no formulas yet\n")


def cost(repl: Repl, rest: str) -> None:
    repl.prose(described(repl, rest or None, "cost") or "no formulas yet\n")


def code(repl: Repl, rest: str) -> None:
    words = rest.split()
    form = words.pop(0) if words and words[0] in CODE_FORMS else "llvm"
    repl.say(described(repl, words[0] if words else None, "code", form) or "no formulas yet\n")


def vars_(repl: Repl, rest: str) -> None:
    from dsl.repl.display import vars_table
    terminal = repl.terminal
    repl.say(vars_table(repl.session, width=terminal.columns, colored=terminal.colors > 0, unicode=terminal.unicode))


# ---------------------------------------------------------------- timing
def time_(repl: Repl, rest: str) -> None:
    rest = needed("time", rest, "train 10 epochs over X = A")
    session, compute = repl.session, repl.session.compute
    source = source_of(rest)
    script, problems = parse(source)
    if problems:
        raise LrError(*problems)
    with repl.tried():
        began = time.perf_counter()
        made = session.accept(source, [repl.with_ans(s) for s in script.statements])
        items = [i for i in made if not isinstance(i, program.SharedState)]
        elaborated = time.perf_counter() - began
        runs: list[float] = []
        first = 0.0
        spent = time.perf_counter()
        while not runs or (items and len(runs) < MOST_RUNS and time.perf_counter() - spent < MOST_SECONDS):
            with repl.tried():
                before = compute.compile_seconds
                started = time.perf_counter()
                for item in items:
                    perform_quietly(repl, item)
                took = time.perf_counter() - started
                first += compute.compile_seconds - before
                runs.append(took - (compute.compile_seconds - before))
    compiling = elaborated + first
    if not items:
        repl.say(f"{duration(elaborated)} to bind; nothing to run")
        return
    count = f"best {duration(min(runs))}, median {duration(statistics.median(runs))} of {len(runs):,} runs" if len(runs) > 1 else \
        f"{duration(runs[0])}, once"
    repl.say(f"compile {duration(compiling)}   run {count}")


def perform_quietly(repl: Repl, item: program.Item) -> None:
    if isinstance(item, program.Print):
        for value in item.items:
            repl.session.plain(value)
    else:
        repl.session.execute([item])


# ---------------------------------------------------------------- settings
def set_(repl: Repl, rest: str) -> None:
    from dataclasses import fields
    elaborator, compute = repl.session.elaborator, repl.session.compute
    if not rest:
        rows: list[tuple[str, Any]] = [("device", elaborator.device), ("precision", elaborator.precision), ("seed", elaborator.seed),
                                       ("threads", compute.threads or "all")]
        rows += [(f.name, getattr(repl.settings, f.name)) for f in fields(repl.settings)]
        width = max(len(name) for name, _ in rows)
        repl.say("\n".join(f"  {name:{width}}  {value}" for name, value in rows))
        return
    name, value = re.fullmatch(r'([^\s=]*)[\s=]*"?(.*?)"?', rest, re.DOTALL).groups()  # type: ignore[union-attr]    # anything matches
    if not value:
        now = {"device": elaborator.device, "precision": elaborator.precision, "seed": elaborator.seed, "threads": compute.threads or "all",
               **vars(repl.settings)}
        if name not in now:
            near = did_you_mean(name, now)
            raise error("E0911", f"no setting `{name}`", help=f"did you mean `{near}`?" if near else "`:set` lists them")
        repl.say(f"{name} {now[name]}")
        return
    match name:
        case "device":
            choose(name, value, DEVICES)
            repl.execute(f"device {value}", "<command>")
            repl.said.pop()                                      # no part of what was said: results do not depend on it
        case "seed":
            if not value.isdecimal():
                raise error("E0911", f"a seed is a whole number, not `{value}`")
            elaborator.seed = int(value)
            repl.remark("for draws from now on; what is bound stays")
        case "precision":
            choose(name, value, ("float32", "float64"))
            if value != elaborator.precision and repl.session.elaborator.scope:
                raise error("E0911", f"what is bound is {elaborator.precision}, and a session has one float",
                            help=f"start anew with `lr repl --precision {value}`")
            elaborator.precision = "float32" if value == "float32" else "float64"
        case "threads":
            if value != "all" and (not value.isdecimal() or int(value) < 1):
                raise error("E0911", f"`threads` is a whole number from 1, or `all`, not `{value}`")
            compute.threads = None if value == "all" else int(value)
            repl.moved()
        case _:
            repl.settings.change(name, value)


def choose(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        near = "cuda" if value.lower() == "gpu" else did_you_mean(value, choices)
        raise error("E0911", f"`{name}` is {one_of(choices)}, not `{value}`", help=f"did you mean `{near}`?" if near else None)


# ---------------------------------------------------------------- files
def path_of(command: str, rest: str, example: str) -> Path:
    return Path(needed(command, rest, example).strip('"')).expanduser()


def load(repl: Repl, rest: str) -> None:
    repl.load(path_of("load", rest, "model.lr"))


def reload(repl: Repl, rest: str) -> None:
    if repl.loaded is None:
        raise error("E0911", "no script has been loaded", help="write `:load model.lr`")
    repl.load(repl.loaded, run=False)
    repl.remark(f"reloaded {repl.loaded}; its commands have not run")


def save(repl: Repl, rest: str) -> None:
    path = path_of("save", rest, "state.safetensors")
    repl.session.save(path)
    repl.remark(f"saved to {path}")


def restore(repl: Repl, rest: str) -> None:
    path = path_of("restore", rest, "state.safetensors")
    repl.session.load_state(path)
    repl.remark(f"restored from {path}")


def undo(repl: Repl, rest: str) -> None:
    if rest and (not rest.isdecimal() or int(rest) < 1):
        raise error("E0911", f"`:undo` takes how many entries, not `{rest}`", help="write `:undo 2`")
    count = int(rest or 1)
    made = repl.undo(count)
    if not made:
        raise error("E0911", "there is nothing to undo")
    line, *more = made[-1].strip().split("\n")
    first = f"`{line if len(line) <= LONGEST_ENTRY else line[:LONGEST_ENTRY - 1] + '…'}{' …' if more else ''}`"
    repl.remark(f"undone: {first if len(made) == 1 else f'{len(made)} entries, from {first} on'}"
                + ("; there were no more" if len(made) < count else ""))


def transcript(repl: Repl, rest: str) -> None:
    from dsl.repl.transcript import script
    from dsl.runtime.files import write_atomically
    elaborator = repl.session.elaborator
    said = {type(one.statement) for one in repl.said}
    header = [f"precision {elaborator.precision}"] if elaborator.precision != "float64" and ast.Precision not in said else []
    header += [f"seed {elaborator.seed}"] if elaborator.seed and ast.Seed not in said else []
    text = script(repl.said, header)
    if not rest:
        repl.say(text or "nothing has been said yet")
        return
    path = path_of("transcript", rest, "session.lr")
    write_atomically(path, lambda file: file.write(text.encode()), None)
    repl.remark(f"written to {path}")


# ---------------------------------------------------------------- the rest
PLOTS = ("scatter", "line", "hist", "heatmap")


def plot(repl: Repl, rest: str) -> None:
    marks = needed("plot", rest, "scatter(x, y)")
    if not any(f"{kind}(" in marks.replace(" ", "") for kind in PLOTS):
        with repl.tried():
            value = value_of(repl, marks)
        rank = value.rank if isinstance(value, Node) else 0
        marks = f"heatmap({marks})" if rank == 2 else f"line({marks})"
    script, problems = parse(source_of(f"plot {marks}"))
    if problems:
        raise LrError(*problems)
    items = repl.session.accept(script.span.source, [repl.with_ans(s) for s in script.statements])
    repl.session.execute(items)


def doctor(repl: Repl, rest: str) -> None:
    from dsl.runtime.doctor import examine, render
    repl.prose(render(examine()))


def quit(repl: Repl, rest: str) -> None:
    repl.done = True


def table(*rows: Command) -> dict[str, Command]:
    return {row.word: row for row in rows}


COMMANDS = table(
    Command("help", "[command]", "this list, or what one command does",
            "Explains a command. `:help sum` is `?sum`: a function, a statement, a bound name, an optimiser, an error code.", help),
    Command("type", "e", "dtype and shape of an expression",
            "Prints the type of an expression without computing it, and the sizes in it that are known.\n:type Y_bar\n:type X @ w", type_),
    Command("show", "[name]", "a formula, or all that is bound",
            "Prints a named expression, or any other, as the formula it stands for; without a name all that is bound, and the "
            "updates.", show),
    Command("grad", "C [wrt w]", "a gradient, written out",
            "Prints the derivative of a scalar as a formula: of a name with respect to every shared variable it reaches, or of any "
            "expression with respect to the names after `wrt`.", grad),
    Command("kernels", "[name]", "the loop programs of formulas and trainings",
            "Prints the loops that one formula, the last `train`s (`:kernels train`) or all of them become.", kernels),
    Command("code", "[cuda|llvm|asm] [name]", "their code",
            "Prints LLVM's code (unless told), assembly for this processor, or CUDA C.\n:code cuda C\n:code asm train", code),
    Command("cost", "[name]", "their operations and memory traffic",
            "Prints how many operations each part takes and how many bytes it moves, in the named sizes and in numbers.", cost),
    Command("vars", "", "every name: kind, type, value, what it needs",
            "Prints a table of all bound names.", vars_),
    Command("time", "entry", "how long an entry takes, compiled and run",
            "Runs an entry again and again, for about a second, on the same state, and prints how long it takes. It changes nothing.\n"
            ":time Y_bar with X = 3\n:time train 10 epochs over X = A, Y = B", time_, True),
    Command("set", "[name value]", "the settings, or another value for one",
            "device auto|cpu|cuda|numpy      where to run from now on\n"
            "seed N                          of draws from now on; what is bound stays as it is\n"
            "threads N|all                   of native code; changes no result\n"
            "precision float32|float64       only while nothing is bound\n"
            "digits N                        of an array's numbers\n"
            "keys emacs|vi                   of the editor\n"
            "colors auto|always|never        when results and errors are coloured\n"
            "theme either|dark|light|none    of what is typed\n"
            "times on|off                    whether entries say how long they took\n"
            "curve on|off                    whether trainings draw their cost\n"
            "completion typing|tab           when the menu opens\n"
            "The file ~/.config/lr/config.toml may hold those of the prompt, in its table `[repl]`.", set_),
    Command("load", "file.lr", "a script, run in this session",
            "Runs a script here, with its commands. Its files are read from where it lies.", load),
    Command("reload", "", "the last loaded script again: its definitions",
            "Reads the last loaded script again. Its definitions take effect, its commands do not run; shared variables, and what "
            "optimisers remember, keep their values where shape and dtype are the same.", reload),
    Command("save", "file", "all trained state, to a file",
            "Writes shared variables, optimisers' memory, seed and step to a safetensors file.", save),
    Command("restore", "file", "the state in such a file",
            "Reads what `:save`, `save` or a checkpoint wrote. If shapes differ, it says how, and changes nothing.", restore),
    Command("undo", "[n]", "the state before the last entry, or the last n",
            "Takes back the last entries that changed something: names, values, updates, trained state. A value that was only shown "
            "does not count, and files stay written.", undo),
    Command("plot", "marks", "a plot in the terminal",
            "Draws `scatter(x, y)`, `line(x, y)`, `hist(x)`, `heatmap(A)`, several with commas; of a bare vector its line, of a matrix "
            "its heatmap.", plot),
    Command("transcript", "[file]", "what worked so far, as a script with its results",
            "Writes a script of the entries that worked, results behind `#>`, so that `lr test` checks it; without a file, prints "
            "it. What was bound again stands once, in its last form. Write it where you started `lr`: paths of data stay as they "
            "are.", transcript),
    Command("doctor", "", "what is installed, which devices work", "As `lr doctor`.", doctor),
    Command("quit", "", "leave; Ctrl-D does so, too", "Leaves.", quit))
