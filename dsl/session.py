"""A session: names, values, and what is run with them.

In: statements, arrays.  Out: printed results, plots, files, and the state after training.  The command line, the Python
interface, the REPL and notebooks all stand on this one class.  Two sessions share nothing.
"""
from __future__ import annotations

import io
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from dsl.backends.cuda.arrays import cast
from dsl.backends.cuda.memory import Memory, on_host
from dsl.errors import Diagnostic, FileTrouble, LrError, Source, Span, did_you_mean, error, warning
from dsl.ir.node import Node, topological
from dsl.ir.text import expression
from dsl.ops.leaves import is_leaf
from dsl.pipeline import Options, prepare, simplify
from dsl.runtime.arguments import as_given
from dsl.runtime.compute import Compute, LeafKey
from dsl.runtime.environment import threads_wanted
from dsl.runtime.paused import Paused
from dsl.runtime.place import Place
from dsl.runtime.printing import compare_expected, format_value
from dsl.runtime.profile import Profile
from dsl.runtime.progress import Progress
from dsl.runtime.train import Driver, Report
from dsl.syntax import ast, program
from dsl.syntax.binding import leaf_key
from dsl.syntax.elaborate import Elaborator
from dsl.syntax.parse import parse
from dsl.syntax.values import Group, LoadedTable, Module, OptimizerRule, Table, TextColumn, UserFunction, Value

if TYPE_CHECKING:
    from numpy.typing import ArrayLike



class Session:
    """Names bound so far and their values.

    precision, seed, device   override the script's header      overrides   `--set name=value`
    data                      arrays in place of the script's `data` of that name
    base, out                 where files are read from and written to
    evaluate                  False only checks (`lr check`): nothing is computed and an absent file is a warning
    threads                   how many native code may use; LR_THREADS, or all processors, unless told.  It changes no result
    profile                   native code counts what it does, for `profile.text()`
    """

    def __init__(self, *, precision: str | None = None, seed: int | None = None, device: str | None = None,
                 overrides: Mapping[str, Any] | None = None, data: Mapping[str, ArrayLike] | None = None, base: Path | None = None,
                 out: Path | None = None, evaluate: bool = True, stdout: IO[str] | None = None, stderr: IO[str] | None = None,
                 interactive: bool = False, quiet: bool = False, threads: int | None = None, profile: bool = False) -> None:
        self.given_data: dict[str, Any] = dict(data or {})
        self.used_data: set[str] = set()
        self.base, self.out = base or Path(), out or Path()
        self.evaluating, self.quiet = evaluate, quiet
        self._stdout, self._stderr = stdout, stderr
        self.values: dict[LeafKey, Any] = {}
        self.pending: list[program.SharedState] = []
        self.items: list[program.Item] = []
        self.failures: list[Diagnostic] = []
        self.comparing = False
        self.checked = 0
        self.steps_before = 0
        self.reports: list[Report] = []
        self.statements: list[ast.Statement] = []
        self.imported: dict[str, str] = {}
        self.hashes: dict[LeafKey, str] = {}
        self.written: set[Path] = set()
        """States that were saved here."""
        self.checkpointed: Path | None = None
        """The latest checkpoint of the script's own."""
        self.training: Driver | None = None
        self.interrupted: tuple[Paused, int] | None = None
        self.reporter: Callable[[int | None, str, IO[str]], Progress] = Progress         # how a `train` is followed
        self.drawer: Callable[..., object] | None = None         # in place of `plots.draw`
        self.elaborator = Elaborator(self, precision=precision, seed=seed, device=device, rebind=interactive,
                                     overrides={k: str(v) for k, v in (overrides or {}).items()})
        threads = threads if threads is not None else threads_wanted()
        self.profile = Profile(threads) if profile else None
        self.compute = Compute(self.elaborator.origins, self.lookup, lambda: self.elaborator.device, threads, self.profile)
        self.compute.gpu.say = self.remark

    # ------------------------------------------------------------ streams
    @property
    def stdout(self) -> IO[str]:
        return self._stdout or sys.stdout

    @property
    def stderr(self) -> IO[str]:
        return self._stderr or sys.stderr

    def remark(self, line: str) -> None:
        """Beside the results: on standard error, unless the session is quiet."""
        if not self.quiet:
            self.stderr.write(line + "\n")

    # ------------------------------------------------------------ loading
    def load(self, source: Source) -> list[program.Item]:
        """Check a whole script, with its `data` and `shared` evaluated; what it would run is returned and kept.

        Raises `LrError` with every diagnostic of the script."""
        script, problems = parse(source)
        return self.accept(source, script.statements, problems)

    def accept(self, source: Source, statements: Sequence[ast.Statement], problems: Sequence[Diagnostic] = ()) -> list[program.Item]:
        """`load` of statements that have been parsed, with these syntax errors."""
        if self.evaluating:
            self._check_device(statements)
        items, found = self.elaborator.script(statements, problems)
        self._check_given(problems or found)
        every = sorted([*problems, *found], key=lambda d: d.span.start if d.span and d.span.source is source else -1)
        if every:
            raise LrError(*every) if not any(d.code in FILE_CODES for d in every) else FileTrouble(*every)
        self.pending.extend(i for i in items if isinstance(i, program.SharedState))
        self._begin_again({leaf_key(i.leaf) for i in items if isinstance(i, program.SharedState)})
        self.items.extend(i for i in items if not isinstance(i, program.SharedState))
        self.statements.extend(statements)
        if self.evaluating:
            self.allocate()
        return items

    def _begin_again(self, declared: set[LeafKey]) -> None:
        """What an optimiser remembers of variables that have been declared anew is forgotten."""
        updates = self.elaborator.updates
        numbers = {u.minimize for u in updates if u.minimize is not None and leaf_key(u.target) in declared}
        for update in updates:
            if update.minimize in numbers and update.start is not None:
                self.values.pop(leaf_key(update.target), None)

    def _check_device(self, statements: Sequence[ast.Statement]) -> None:
        """Raises `LrError` if the script is to run on a GPU and there is none."""
        written = next((s for s in statements if isinstance(s, ast.Device)), None)
        fixed = "device" in self.elaborator.fixed_header or written is None
        if (self.elaborator.device if fixed or written is None else written.name.id) == "cuda":
            from dsl.backends.cuda.device import absent
            missing = absent()
            if missing is not None:
                raise error("E0802", f"`device cuda`: {missing[0]}", None if fixed or written is None else written.span,
                            help=f"{missing[1]}; `device cpu` runs without a GPU")

    def _check_given(self, failed: Sequence[Diagnostic]) -> None:
        unused = set(self.elaborator.overrides) - self.elaborator.used_overrides
        absent = set(self.given_data) - self.used_data
        if absent and not failed:
            name = min(absent)
            near = did_you_mean(name, self.elaborator.scope)
            raise error("E0901", f"the script has no `data {name}`", help=f"did you mean `{near}`?" if near else None)
        if unused and not failed:
            name = min(unused)
            if name in self.elaborator.scope:
                raise error("E0901", f"`--set {name}=…`: `{name}` is no `let` or `dim`", kind=FileTrouble,
                            help="`--set` gives a `let` or a `dim` with a literal value another one")
            near = did_you_mean(name, self.elaborator.scope)
            raise error("E0901", f"`--set {name}=…`: the script has no `let` or `dim` of that name",
                        help=f"did you mean `{near}`?" if near else None, kind=FileTrouble)

    def run(self, items: Sequence[program.Item] | None = None, *, resume: bool | str | Path = False) -> None:
        """Run what was loaded (or these items), in order.

        `resume`: on from the checkpoint in that file, or (True) from the furthest that the script's `train`s have written; from the
        beginning if there is none yet.  Raises E0616 if the script or its data are others than when it was written."""
        whole = items is None
        self.execute(self._resumed(resume) if resume is not False else self.items if items is None else items)
        if whole and self.checkpointed is not None:
            from dsl.runtime.checkpoint import completed
            completed(self.checkpointed)

    def _resumed(self, resume: bool | str | Path) -> Sequence[program.Item]:
        """What is left to run, after the training that a checkpoint is in the middle of has been brought to its end."""
        from dsl.runtime import checkpoint, state
        found = checkpoint.found(self, None if isinstance(resume, bool) else Path(resume))
        if found is None:
            self.remark("no checkpoint yet: from the beginning")
            return self.items
        place, path, line = found.place, found.saved.path, found.plan.span.line
        state.restore(self, found.state(), found.plan.span)
        self.checkpointed = None if found.complete else path
        if place.finished:
            self.remark(f"{path}: this script has come to its end; remove the file to run it again" if found.complete else
                        f"on from {path}: after the `train` in line {line}")
            self.steps_before = place.before + place.steps
            self.reports.append(place.report())
            return [] if found.complete else found.rest
        self.remark(f"on from {path}: `train` in line {line}, step {place.steps}")
        self.steps_before = place.before
        driver = Driver(self, found.plan)
        self.trained(driver, lambda: driver.run(place, found.best()))
        return found.rest

    # ------------------------------------------------------------ Host: what elaboration asks
    def evaluate(self, node: Node) -> Any | None:
        if not self.evaluating:
            return None
        return self.array(node)

    def keep(self, leaf: Node, value: Any) -> None:
        with self.compute.memory():
            self.values[leaf_key(leaf)] = cast(value, leaf.dtype) if isinstance(value, Memory) else value

    def forget(self, leaf: Node) -> None:
        """A data leaf that is not used any more."""
        self.values.pop(leaf_key(leaf), None)
        self.compute.gpu.forget(leaf_key(leaf))

    def given(self, name: str, table: bool = False, missing: Literal["nan", "drop"] | None = None) -> Any | None:
        self.used_data.add(name)
        value = self.given_data.get(name)
        if value is None:
            return None
        found = as_given(name, value, self.compute.gpu.receiver, table, missing)
        if isinstance(found, np.ndarray):
            self.compute.gpu.callers.append(found)       # they may change it
        return found

    def load_path(self, path: str) -> Path:
        return Path(path) if Path(path).is_absolute() else self.base / path

    def load_file(self, kind: str, path: str, options: Mapping[str, Any], span: Span) -> LoadedTable | Any | None:
        from dsl.runtime import tables
        place = self.load_path(path)
        if not place.exists() and not self.evaluating:
            self.elaborator.warn(warning("E0601", f"no file `{path}`", span, "absent now", help="what depends on it is not checked"))
            return None
        try:
            if kind == "npy":
                return tables.read_npy(place, span=span)
            if kind == "npz":
                arrays = tables.read_npz(place, span=span)
                return LoadedTable(dict(arrays.columns), arrays.n_rows)
            reader = tables.read_csv if kind == "csv" else tables.read_parquet
            table = reader(place, span=span, **options)
            return LoadedTable(dict(table.columns), table.n_rows)
        except LrError as problem:
            raise problem.placed(span) from None

    def split(self, rows: int, test: float, key: int) -> tuple[Any, Any]:
        from dsl.runtime.tables import split_indices
        return split_indices(rows, test, key)

    def read_script(self, path: str, span: Span) -> Source:
        place = self.load_path(path)
        try:
            text = place.read_text(encoding="utf-8-sig")
            self.imported[path] = crc(text)
            return Source(path, text, str(place))
        except (OSError, UnicodeDecodeError) as problem:
            raise error("E0601", f"cannot read `{path}`: {_os_words(problem)}", span, kind=FileTrouble) from None

    def read_library(self, name: str) -> Source | None:
        place = resources.files("dsl").joinpath("library", f"{name}.lr")
        return Source(f"{name}.lr", place.read_text(encoding="utf-8")) if name.isidentifier() and place.is_file() else None

    # ------------------------------------------------------------ values
    def sizes(self) -> dict[str, int]:
        return {name: fact.value for name, fact in self.elaborator.sizes.items()}

    def lookup(self, leaf: Node) -> Any:
        key = leaf_key(leaf)
        if key in self.values:
            return self.values[key]
        match key[0]:
            case "step":
                return np.int64(0)
            case "training":
                return np.bool_(False)
            case "shared":
                self.allocate()
                if key in self.values:
                    return self.values[key]
                unknown = {s.name for d in leaf.shape for s in d.sizes() if s.name not in self.sizes() and s.value is None}
                missing = " and ".join(f"`{name}`" for name in sorted(unknown))
                raise error("E0214", f"`{key[1]}` is not allocated: {missing or 'a size'} is not known yet",
                            help="bind data that determines it, or fix it: `dim d = …`")
            case "input":
                raise error("E0407", f"`{key[1]}` has no value here", help=f"give it: `with {key[1]} = …`")
            case _:
                raise error("E0407", f"`{key[1]}` has no value yet")

    def allocate(self) -> None:
        """Give shared variables their starting values, once their sizes are known."""
        waiting, self.pending = self.pending, []
        for state in waiting:
            known = self.sizes()
            if all(d.evaluate(known) is not None for d in state.leaf.shape) and self._ready(state.start):
                try:
                    with self.compute.memory():
                        start = self.array(state.start)
                        self.values[leaf_key(state.leaf)] = cast(start, state.leaf.dtype) if isinstance(start, Memory) else \
                            np.array(start, dtype=state.leaf.dtype)[()]
                except LrError as problem:
                    raise problem.placed(state.span) from None
            else:
                self.pending.append(state)

    def _ready(self, start: Node) -> bool:
        return all(leaf_key(n) in self.values for n in topological([start]) if is_leaf(n, "shared", "data"))

    def array(self, node: Node) -> Any:
        """The value of a graph whose leaves all have one; on a GPU if it was computed there and has axes."""
        if node.op.name == "const":
            return np.dtype(node.dtype).type(node.attr("literal").value)
        value = self.lookup(node) if is_leaf(node) else self.compute.values([node], self.sizes())[0]
        return value if node.rank else on_host(value)

    def host(self, node: Node) -> Any:
        """Its value where NumPy can read it."""
        return on_host(self.array(node))

    # ------------------------------------------------------------ running
    def execute(self, items: Sequence[program.Item]) -> None:
        for item in items:
            try:
                self.command(item)
            except LrError as problem:
                raise problem.placed(item.span) from None

    def command(self, item: program.Item) -> None:
        match item:
            case program.Print():
                self.print(item)
            case program.Show(items=items):
                for name, value in items:
                    self.stdout.write(self.shown(name, value) + "\n")
            case program.Train():
                self.train(item)
            case program.Plot():
                self.plot(item)
            case program.SaveState(path=path):
                self.save(path)
            case program.LoadState(path=path):
                self.load_state(path, item.span)
            case program.GoOn():
                self.go_on()
            case program.SaveValue(name=name, value=value, path=path):
                from dsl.runtime.files import save_value
                save_value(self.output_path(path), name, np.asarray(self.host(value)))
            case program.Assert(condition=condition, reason=reason):
                self.checked += 1
                if not np.all(self.host(condition)):
                    raise error("E0706", reason or "this assertion does not hold", item.span, "false")
            case program.Test():
                if self.comparing:
                    self.test(item)
            case _:
                raise AssertionError(item)

    def test(self, item: program.Test) -> None:
        from dataclasses import replace
        try:
            self.execute(item.body)
        except LrError as problem:
            first, *rest = problem.diagnostics
            raise type(problem)(replace(first, notes=(*first.notes, f"in test \"{item.name}\"")), *rest) from None

    def plain(self, value: Value) -> Any:
        """A value as what is printed: arrays, texts, tuples of them."""
        match value:
            case Node():
                return self.host(value)
            case Group(items):
                return tuple(self.plain(i) for i in items)
            case TextColumn(values=values):
                return values
            case Table(name, columns, rows):
                return f"table {name}: {rows} rows, columns {', '.join(columns)}"
            case UserFunction() | OptimizerRule() | Module():
                return "a definition"
            case str():
                return value

    def printed(self, value: Any, digits: int | None = 8) -> str:
        if isinstance(value, tuple):
            return f"({', '.join(self.printed(v, digits) for v in value)}{',' if len(value) == 1 else ''})"
        return format_value(value, digits)

    def print(self, item: program.Print) -> None:
        values = [self.plain(v) for v in item.items]
        text = " ".join(self.printed(v) for v in values)
        self.show_printed(item, values, text)
        if item.expected is not None and self.comparing:
            self.checked += 1
            reason = compare_expected(text, item.expected)
            if reason and compare_expected(" ".join(self.printed(v, None) for v in values), item.expected):
                found = error("E0707", f"this prints {text}", item.expected_span or item.span, reason)
                self.failures.append(found.diagnostic)

    def show_printed(self, item: program.Print, values: Sequence[Any], text: str) -> None:
        """Where the text of a `print`, and the values it is of, go."""
        self.stdout.write(text + "\n")

    def output_path(self, path: str) -> Path:
        """Where a file is written; folders below `--out` are made, others must be there."""
        if Path(path).is_absolute():
            return Path(path)
        place = self.out / path
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise error("E0609", f"cannot write `{path}`: {_os_words(problem)}", kind=FileTrouble) from None
        return place

    def plot(self, item: program.Plot) -> None:
        from dsl.runtime import plots
        marks: list[plots.Mark] = []
        for mark in item.marks:
            arrays = [np.atleast_1d(np.asarray(self.host(node))) for _, node in mark.arrays]
            names = [name for name, _ in mark.arrays]
            match mark.kind:
                case "hist":
                    marks.append(plots.Hist(arrays[0], mark.bins, x_name=names[0]))
                case "heatmap":
                    marks.append(plots.Heatmap(np.atleast_2d(arrays[0]), z_name=names[0]))
                case _:
                    if len(arrays) == 1:
                        arrays, names = [np.arange(len(arrays[0])), arrays[0]], ["", names[0]]
                    kind = plots.Scatter if mark.kind == "scatter" else plots.Line
                    marks.append(kind(arrays[0], arrays[1], x_name=names[0], y_name=names[1]))
        path = self.output_path(item.path) if item.path else None
        draw = self.drawer or plots.draw
        draw(marks, item.title or "", path, stream=self.stdout, span=item.span)

    # ------------------------------------------------------------ training
    def progress(self, total: int, unit: str) -> Progress:
        """A reporter for one `train`; it goes nowhere in a quiet session."""
        if self.quiet:
            return Progress(total, unit.removesuffix("s"), io.StringIO(), interactive=False, quiet=True)
        return self.reporter(total, unit.removesuffix("s"), self.stderr)

    def train(self, plan: program.Train) -> Report:
        driver = Driver(self, plan)
        return self.trained(driver, driver.run)

    def trained(self, driver: Driver, run: Callable[[], Report]) -> Report:
        """One `train`, counted also if it fails; if it is cut off, it can go on."""
        self.training, self.interrupted, driver.left = driver, None, None
        try:
            with self.compute.memory():
                return run()
        except LrError as problem:
            raise problem.placed(driver.plan.span) from None
        finally:
            self.training = None
            self.steps_before += driver.report.steps
            self.reports.append(driver.report)
            paused = Paused.of(driver)
            self.interrupted = None if paused is None else (paused, self.steps_before)
            if self.profile is not None and driver.report.steps and driver.bursts is None:
                from dsl.runtime.programs import training_program
                reference = self.compute.device() == "numpy"
                lacking = "" if reference else training_program("", driver.plan, self.compute, self.sizes()).lacking
                self.profile.referred(driver.plan.span, driver.report.seconds, lacking)

    @property
    def paused(self) -> Paused | None:
        """The training that was cut off last, if no other step has been made since."""
        return self.interrupted[0] if self.interrupted is not None and self.interrupted[1] == self.steps_before else None

    def go_on(self) -> Report:
        """On with the training that was cut off, to its planned end, as if it had never stopped; its report is of all of it.

        Variables that were set in between are taken as they are.  Raises E0422 if there is none, or if its updates or data changed."""
        paused = self.paused
        if paused is None:
            raise error("E0422", "no training was interrupted", help="begin one: `train 100 epochs over X = A, Y = B`")
        paused.check(self.elaborator)
        if self.reports and self.reports[-1] is paused.report:
            self.reports.pop()
        self.steps_before = paused.place.before
        return self.trained(paused.driver, paused.go_on)

    # ------------------------------------------------------------ saved state
    @property
    def steps_made(self) -> int:
        """Steps of all trainings so far."""
        return self.steps_before + (self.training.report.steps if self.training is not None else 0)

    def save(self, path: str | Path) -> None:
        """The whole state into a .safetensors file: shared variables, what optimisers remember, the count of steps."""
        from dsl.runtime import saved, state
        self.allocate()
        for waiting in self.pending:
            self.lookup(waiting.leaf)                    # says which size is missing
        place = self.output_path(str(path))
        saved.check_ending(place)
        arrays = state.collected(self, self.values)
        saved.write(place, arrays, state.described(self, arrays))
        self.written.add(place)

    def load_state(self, path: str | Path, span: Span | None = None) -> None:
        """The state that a .safetensors file holds, of `save`, of a checkpoint or of another program's.

        Raises E0615, with nothing changed, unless the file has each shared variable in its shape and dtype."""
        from dsl.runtime import saved, state
        file = state.state_file(Path(path), self.base, self.out, self.written, ours_first=span is None)
        saved.check_ending(file, span)
        state.restore(self, saved.read(file, span), span)
        self.interrupted = None

    def write_checkpoint(self, plan: program.Train, place: Place, best: Mapping[LeafKey, Any] | None) -> bool:
        """The clause `checkpoint` of a training at this place; whether a script can go on from the file."""
        from dsl.runtime import checkpoint
        from dsl.runtime.files import clear_parts
        assert plan.checkpoint is not None
        path = self.output_path(plan.checkpoint.path)
        if path not in self.written:
            clear_parts(path)
        checkpoint.write_checkpoint(self, path, plan, place, best)
        self.written.add(path)
        resumable = checkpoint.position(self, plan) is not None
        if resumable:
            self.checkpointed = path
        return resumable

    # ------------------------------------------------------------ showing
    def names(self) -> dict[Node, str]:
        """Simplified nodes of named values, so that formulas are shown in the user's names."""
        named: dict[Node, str] = {}
        for name, symbol in self.elaborator.scope.items():
            if symbol.kind in ("let", "model", "cost", "metric") and isinstance(symbol.value, Node) and symbol.value.op.name == "alias":
                (simple,) = prepare([symbol.value], self.options())
                if simple.args:
                    named.setdefault(simple, name)
        return named

    def options(self, trace: Any = None) -> Options:
        return Options(trace=trace, origins=self.elaborator.origins)

    def shown(self, name: str, value: Value) -> str:
        """A named expression as a formula; a derivative written out, in the user's names."""
        match value:
            case Node():
                from dsl.ops.calculus import contains_derivatives
                if contains_derivatives([value]):
                    (written,) = prepare([value], self.options())
                    return expression(written, {n: k for n, k in self.names().items() if k != name})
                inner = value.args[0] if value.op.name == "alias" else value
                return expression(inner)
            case Group(items):
                return f"({', '.join(self.shown(name, i) for i in items)})"
            case UserFunction(definition):
                return definition.span.text
            case OptimizerRule(definition):
                return definition.span.text
            case _:
                return str(self.plain(value))

    def simplified(self, node: Node, trace: Any = None) -> Node:
        return simplify([node], self.options(trace))[0]


FILE_CODES = frozenset({"E0601", "E0602"})


def crc(text: str) -> str:
    """Whether a text is the same."""
    return f"{zlib.crc32(text.encode()):08x}"


def _os_words(problem: Exception) -> str:
    return problem.strerror or str(problem) if isinstance(problem, OSError) else "it is not UTF-8 text"


