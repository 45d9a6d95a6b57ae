"""The Python interface: a script as an object.

In: a script, arrays.  Out: arrays, and training driven from Python.

    m = dsl.load("model.lr")                    checked; `data` and `shared` evaluated
    m.train(epochs=100, X=xs, Y=ys)             Theano's loop
    m["w"], m.eval("Y_bar", X=3.0)              values
    f = m.function(["X", "Y"], ["C", "gw"])     a callable
"""
from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import get_ident
from typing import IO, Any, Literal, overload

import numpy as np

from dsl.backends.cuda.memory import Memory
from dsl.contents import as_html, contents, in_line
from dsl.errors import LrError, Source, Span, did_you_mean, error
from dsl.function import Function
from dsl.ir.node import Node, topological
from dsl.ops.leaves import is_leaf, leaf_name
from dsl.runtime.arguments import Array, Data, as_array, as_count, as_dtype, as_inputs, as_mapping, as_names, as_text
from dsl.runtime.compute import solve_sizes
from dsl.runtime.looks import Observer
from dsl.runtime.train import Driver, Report
from dsl.scripts import read_script
from dsl.session import Session
from dsl.syntax import ast, program
from dsl.syntax.binding import leaf_key
from dsl.syntax.parse import parse_expression
from dsl.syntax.values import Group, SizeFact, Symbol

Given = Array | Memory
Callback = Callable[[int, dict[str, float]], object]
Device = Literal["auto", "cpu", "cuda", "numpy"]
Precision = Literal["float32", "float64"]
STEPS = 1000
"""How often `m.step` is called, for all that is known."""


class Model:
    """A checked script with its own state.  Made by `dsl.load` and `dsl.compile`."""

    def __init__(self, session: Session, source: Source) -> None:
        self.session, self.source = session, source
        self._running: int | None = None
        self._functions: dict[Any, Function[Any]] = {}
        self._steps: dict[Any, _Step] = {}
        self._trainings: dict[Any, _Training] = {}

    def __repr__(self) -> str:
        rows = contents(self.session)
        return f"<Model {self.source.name}: {in_line(rows)}>" if rows else f"<Model {self.source.name}>"

    def _repr_html_(self) -> str:
        elaborator = self.session.elaborator
        return as_html(f"{self.source.name}  {elaborator.precision}, device {elaborator.device}", contents(self.session))

    # ------------------------------------------------------------ running
    def run(self, *, resume: bool | str | Path = False) -> None:
        """Run the script's commands (`train`, `print`, `plot` …) in order.

        `resume`: on from the checkpoint in that file, or (True) from the furthest that the script has written; from the beginning if
        there is none yet.  Raises `LrError` (E0616) if the script, its data or its options are not what they were."""
        self._check_idle("m.run")
        self.session.run(resume=resume if isinstance(resume, bool) else as_text("`resume`", str(resume)))

    def train(self, *, epochs: int | None = None, steps: int | None = None, batch: int | None = None, drop_last: bool = False,
              shuffle: bool = False, of: str | Sequence[str] | None = None, until: str | None = None,
              valid: Mapping[str, Data] | None = None, data: Mapping[str, Data] | None = None, on_step: Callback | None = None,
              on_epoch: Callback | None = None, every: int = 1, **inputs: Data) -> Report:
        """Train as the statement `train` does, with these arrays; inputs by keyword, or in `data` where a name clashes.

        An array whose rank is one higher than its input's is taken row by row (`batch` rows a step); a dataframe counts as a matrix of
        its columns.

        on_step    is called after each step (after every `every` of them) as `on_step(step, metrics)`: the number of whole steps
                   made in this call, and the costs and metrics of the last one as floats
        on_epoch   after each epoch, as `on_epoch(epoch, metrics)`: their means over the epoch, and as "valid C" those of `valid`

        Both may read variables (`m["w"]`) and set them; what they raise ends the training with the state of that step, and
        `StopIteration` ends it as if it were done.  Steps between two calls are made in one go: with small steps that is many times
        as fast as a call after each.

        Returns a `Report` (`.cost` is the last epoch's).  Raises `Diverged`, with the last good state kept, and `Interrupted`."""
        if (epochs is None) == (steps is None):
            raise error("E0902", "`train` takes either `epochs` or `steps`", help="m.train(epochs=100, X=xs)")
        unit: Literal["epochs", "steps"] = "epochs" if epochs is not None else "steps"
        count = as_count(unit, epochs if epochs is not None else steps)
        receiver = self.session.compute.gpu.receiver
        feeds = {name: as_array(name, value, receiver) for name, value in as_inputs(data, inputs).items()}
        # A plan that reads nothing of the arrays but their ranks serves every later call of the same form.
        plain = until is None and not valid and not shuffle
        key = unit, batch, drop_last, str(of), tuple(sorted((n, v.ndim) for n, v in feeds.items())), self._bound(), \
            on_step is None and on_epoch is None
        span = self._span(f"m.train({unit}={count})")
        observers = self._observers(on_step, on_epoch, every)
        condition = parse_expression(Source("until", as_text("`until`", until))) if until is not None else None
        with self.session.compute.training_lock:
            self._check_idle("m.train")
            if plain and key in self._trainings:
                with self._observed(self._trainings[key].driver, observers):
                    return self._trainings[key](feeds, count)
            with self._tentative(), self._given(feeds, "") as over, self._given(as_mapping("valid", valid), "valid ") as held:
                statement = ast.Train(
                    ast.Number(count, span=span), unit, tuple(over),
                    ast.Number(as_count("batch", batch), span=span) if batch is not None else None,
                    bool(drop_last), bool(shuffle), tuple(ast.Ident(g, span=span) for g in as_names("`of`", of if of is not None else [])),
                    condition, (ast.Valid(tuple(held), span=span),) if held else (), span=span)
                plan = self._plan(statement)
                driver = Driver(self.session, self._watching(plan) if observers else plan)
                with self._observed(driver, observers):
                    report = self.session.trained(driver, driver.run)
                if plain:
                    self._trainings[key] = _Training(self, driver)
                return report

    def step(self, *, data: Mapping[str, Data] | None = None, **inputs: Data) -> float | dict[str, float] | None:
        """One step of all ungrouped updates on these rows as one batch; returns the cost before it (Theano's function
        with updates): None without a cost, a dict of several."""
        feeds = as_inputs(data, inputs)
        nodes = {name: self._symbol(name).value for name in feeds}
        receiver = self.session.compute.gpu.receiver
        arrays = {name: as_dtype(name, value, node.dtype, receiver) if isinstance(node := nodes[name], Node) else
                  as_array(name, value, receiver) for name, value in feeds.items()}
        key = tuple(sorted((n, a.ndim) for n, a in arrays.items())), self._bound()
        try:
            with self.session.compute.training_lock, self._tentative():
                self._check_idle("m.step")
                if key not in self._steps:
                    self._steps[key] = _Step(self, arrays)
                return self._steps[key](arrays)
        except MemoryError as problem:
            raise self.session.compute.explained(problem) from None

    # ------------------------------------------------------------ values
    def __getitem__(self, name: str) -> Array:
        """The value of any name that needs no input (0-d for a scalar), as a copy; NumPy's, wherever it was computed."""
        value = self._symbol(name).value
        if isinstance(value, Group):
            raise error("E0903", f"`{name}` is a tuple", help="ask for its parts")
        if not isinstance(value, Node):
            plain = self.session.plain(value) if value is not None else None
            if isinstance(plain, np.ndarray):
                return plain.copy()
            raise error("E0903", f"`{name}` is not an array")
        return np.array(self.session.array(value))

    def __setitem__(self, name: str, value: Data) -> None:
        """Set a shared variable; the shape must be the declared one."""
        symbol = self._symbol(name)
        if not isinstance(symbol.value, Node) or not is_leaf(symbol.value, "shared"):
            raise error("E0408", f"`{name}` is not a shared variable", help="only `shared` variables are set")
        node = symbol.value
        array = as_dtype(name, value, node.dtype, self.session.compute.gpu.receiver)
        with self.session.compute.memory():
            own = np.array(array)[()] if not isinstance(array, Memory) else array if array.owned else array.copy()
        sizes = solve_sizes([(node, array.shape)], self.session.sizes())
        for size_name in {s.name for d in node.shape for s in d.sizes() if s.value is None}:
            if size_name not in self.session.elaborator.sizes:
                self.session.elaborator.sizes[size_name] = SizeFact(sizes[size_name], f"m[{name!r}]")
        self.session.pending = [s for s in self.session.pending if leaf_key(s.leaf) != leaf_key(node)]
        self.session.values[leaf_key(node)] = own
        self.session.allocate()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self.session.elaborator.scope

    def eval(self, expression: str, *, data: Mapping[str, Data] | None = None, **inputs: Data) -> Array:
        """The value of an expression, its inputs bound by their own rank (or one more: row by row): `m.eval("Y_bar", X=3.0)`."""
        feeds = as_inputs(data, inputs)
        return self.function(list(feeds), as_text("an expression", expression))(*feeds.values())

    @overload
    def function(self, inputs: str | Sequence[str], outputs: str) -> Function[Array]: ...
    @overload
    def function(self, inputs: str | Sequence[str], outputs: list[str] | tuple[str, ...]) -> Function[tuple[Array, ...]]: ...
    def function(self, inputs: str | Sequence[str], outputs: str | Sequence[str]) -> Function[Any]:
        """A callable from arrays (in the order of `inputs`) to values of names or expressions.

        A string out gives one array, a list a tuple.  Each array binds by its own rank; nothing is compiled again for
        another length.  If one of the arrays is on a GPU (CuPy's, PyTorch's …), the results are CuPy's, else NumPy's."""
        names, texts = as_names("`inputs`", inputs), as_names("`outputs`", outputs)
        key = tuple(names), tuple(texts), isinstance(outputs, str), self._bound()
        if key not in self._functions:
            self._functions[key] = Function(self, names, texts, isinstance(outputs, str))
        return self._functions[key]

    def save(self, path: str | Path) -> None:
        """Write the whole state to a .safetensors file: shared variables, what optimisers remember, the count of steps.

        The file is replaced in one go: a failure leaves the one that was there."""
        self.session.save(path)

    def load(self, path: str | Path) -> None:
        """Read a state: of `save`, of a checkpoint, or the variables that another program wrote under their names.

        Raises `LrError` (E0615), with nothing changed, unless the file has each shared variable in its shape and dtype."""
        self.session.load_state(path)

    # ------------------------------------------------------------ helpers
    def _symbol(self, name: str) -> Symbol:
        symbol = self.session.elaborator.scope.get(as_text("a name", name))
        if symbol is None or symbol.value is None:
            near = did_you_mean(name, self.session.elaborator.scope)
            raise error("E0301", f"no name `{name}`", help=f"did you mean `{near}`?" if near else None)
        return symbol

    def _span(self, text: str) -> Span:
        return Span(Source("<python>", text), 0, len(text))

    def _bound(self) -> Hashable:
        """What has been bound so far: what is compiled for it is so again after a name has been bound anew."""
        return tuple(self.session.elaborator.scope.values()), tuple(self.session.elaborator.updates)

    def _finished(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except LrError as problem:
            raise type(problem)(*(self.session.elaborator.finished(d) for d in problem.diagnostics)) from None

    def _plan(self, statement: ast.Train) -> program.Train:
        (plan,) = self._finished(lambda: self.session.elaborator.statement(statement))
        assert isinstance(plan, program.Train)
        return plan

    @contextmanager
    def _tentative(self) -> Iterator[None]:
        """Sizes that a failed binding would have fixed stay open, unless state was allocated with them."""
        session, elaborator = self.session, self.session.elaborator
        sizes, pending, trained = dict(elaborator.sizes), list(session.pending), elaborator.trained
        try:
            yield
        except LrError:
            if session.pending == pending:
                elaborator.sizes.clear()
                elaborator.sizes.update(sizes)
                elaborator.trained = trained
            raise

    def _observers(self, on_step: Callback | None, on_epoch: Callback | None, every: int) -> list[Observer]:
        if as_count("every", every) < 1:
            raise error("E0902", "`every` counts from 1", help="`every=1` calls `on_step` after each step")
        for name, call in (("on_step", on_step), ("on_epoch", on_epoch)):
            if call is not None and not callable(call):
                raise error("E0902", f"`{name}` is a function of a number and a dict, not {call!r}", help="def f(step, metrics): …")
        settings: Any = np.geterr()                      # the callback's own; steps are made without NumPy's warnings

        def shielded(call: Callback) -> Callback:
            def called(number: int, metrics: dict[str, float]) -> object:
                with np.errstate(**settings):
                    return call(number, metrics)
            return called
        found = [Observer("epochs", 1, shielded(on_epoch), "on_epoch")] if on_epoch is not None else []
        return [Observer("steps", every, shielded(on_step), "on_step"), *found] if on_step is not None else found

    def _watching(self, plan: program.Train) -> program.Train:
        """The plan with all costs and metrics that its data suffices for being watched."""
        fed = {leaf_key(f.leaf) for f in plan.over}
        more = {s.name: s.value for s in self.session.elaborator.scope.values()
                if s.kind in ("cost", "metric") and isinstance(s.value, Node)
                and all(leaf_key(n) in fed for n in topological([s.value]) if is_leaf(n, "input"))}
        return replace(plan, watched={**plan.watched, **more})

    @contextmanager
    def _observed(self, driver: Driver, observers: Sequence[Observer]) -> Iterator[None]:
        """The observers are called in a run of this driver."""
        driver.observers = observers
        self._running = get_ident()
        try:
            yield
        finally:
            self._running = None
            driver.observers = ()

    def _check_idle(self, what: str) -> None:
        if self._running == get_ident():
            raise error("E0902", f"`{what}` is called while this model trains", help="end that training first: `raise StopIteration`")

    def _given(self, arrays: Mapping[str, Data], prefix: str) -> _Given:
        return _Given(self, {n: as_array(n, v, self.session.compute.gpu.receiver) for n, v in arrays.items()}, prefix)


class _Given:
    """Arrays as data of a statement made in Python, under names that no script can write."""

    def __init__(self, model: Model, arrays: Mapping[str, Given], prefix: str) -> None:
        self.model, self.arrays, self.prefix = model, arrays, prefix
        self.leaves: list[Node] = []

    def __enter__(self) -> list[ast.Binding]:
        bindings = []
        elaborator = self.model.session.elaborator
        for name, array in self.arrays.items():
            text = f"{name} = {self.prefix}{name}"
            span = self.model._span(text)
            hidden = f"{self.prefix}given {name}"
            elaborator.generation += 1
            self.leaves.append(elaborator.data_leaf(hidden, array))
            elaborator.scope.maps[0][hidden] = Symbol(hidden, "data", self.leaves[-1], None)
            elaborator.data_origin[hidden] = f"`{name}`"
            value = ast.Name(hidden, span=Span(span.source, len(name) + 3, len(text)))
            bindings.append(ast.Binding(ast.Ident(name, span=Span(span.source, 0, len(name))), value, span=span))
        return bindings

    def __exit__(self, *_: object) -> None:
        for name in self.arrays:
            self.model.session.elaborator.scope.maps[0].pop(f"{self.prefix}given {name}", None)
        for node in self.leaves:
            self.model.session.forget(node)


class _Training:
    """A `train` that has run once, for other arrays of the same ranks."""

    def __init__(self, model: Model, driver: Driver) -> None:
        self.model, self.driver = model, driver

    def __call__(self, arrays: Mapping[str, Data], count: int) -> Report:
        receiver = self.model.session.compute.gpu.receiver
        taken = [as_dtype(leaf_name(f.leaf), arrays[leaf_name(f.leaf)], f.leaf.dtype, receiver) for f in self.driver.plan.over]
        lengths = {a.shape[0] for a in taken if a.ndim and not self.driver.rows.whole}
        if len(lengths) > 1:
            raise error("E0211", f"arrays of {' and '.join(map(str, sorted(lengths)))} rows in one `train`",
                        help="all inputs have one row a sample")
        self.model.session.elaborator.trained += 1
        return self.model.session.trained(self.driver, lambda: self.driver.again(taken, count))


class _Step:
    """All ungrouped updates on one batch."""

    def __init__(self, model: Model, arrays: Mapping[str, Given]) -> None:
        self.model = model
        elaborator = model.session.elaborator
        span = model._span("m.step(…)")
        rows = max((a.shape[0] for a in arrays.values() if a.ndim), default=1)
        with model._given(arrays, "") as over:
            values = {name: model._symbol(name).value for name in arrays}
            mapped = any(isinstance(v := values[n], Node) and a.ndim == v.rank + 1 for n, a in arrays.items())
            batch = ast.Number(max(rows, 1), span=span) if mapped else None
            statement = ast.Train(ast.Number(1, span=span), "steps", tuple(over), batch, False, False, (), None, (), span=span)
            plan = model._plan(statement)
            elaborator.trained -= 1
            self.plan, self.driver = plan, Driver(model.session, plan, often=STEPS)
            self.costs = {name for g in plan.groups for name in elaborator.costs_of(g.updates)}
            self.driver.prepare()

    def __call__(self, arrays: Mapping[str, Given]) -> float | dict[str, float] | None:
        driver, session = self.driver, self.model.session
        taken = [arrays[leaf_name(f.leaf)] for f in self.plan.over]
        lengths = {a.shape[0] for a, f in zip(taken, self.plan.over, strict=True) if f.mapped}
        if len(lengths) > 1:
            raise error("E0211", f"arrays of {' and '.join(map(str, sorted(lengths)))} rows in one step",
                        help="all rows of a step go together")
        driver.rows.hold(taken)
        driver.rows.size = driver.rows.total
        driver.steps_elsewhere = session.steps_before
        driver.single()
        session.steps_before += 1
        costs = {n: float(v) for f in driver.functions for n, v in zip(f.watched, f.results) if n in self.costs}
        return None if not costs else next(iter(costs.values())) if len(costs) == 1 else costs


# ---------------------------------------------------------------- entry points
def compile(text: str, device: Device | None = None, precision: Precision | None = None, seed: int | None = None,
            set: Mapping[str, float | int | bool | str] | None = None, data: Mapping[str, Data] | None = None,
            path: str | Path | None = None, *, out: str | Path | None = None, stdout: IO[str] | None = None,
            stderr: IO[str] | None = None, quiet: bool = True, threads: int | None = None) -> Model:
    """Check a script and evaluate its `data` and `shared`; its commands run with `Model.run`.

    text                      the script
    device, precision, seed   override the script's header
    set                       values for `let`s and `dim`s with a literal value
    data                      arrays, dataframes and columns in place of the `data` statements of these names; float64 arrays of NumPy
                              in C order are taken as they are, without a copy
    path                      where the text is from: relative reads are from its folder, else the working directory
    out                       the folder that files are written to, else the working directory
    stdout, stderr, quiet     where results go; where remarks and progress go, and that there are none
    threads                   how many native code may use (LR_THREADS, or all processors); results do not depend on it

    Raises `LrError` with every diagnostic of the script."""
    if precision not in (None, "float32", "float64"):
        raise error("E0902", f"no precision {precision!r}", help="`float32` or `float64`")
    if device not in (None, "auto", "cpu", "cuda", "numpy"):
        raise error("E0902", f"no device {device!r}", help="`auto`, `cpu`, `cuda` or `numpy`")
    if seed is not None:
        seed = as_count("seed", seed)
    if threads is not None and as_count("threads", threads) < 1:
        raise error("E0902", f"`threads` is at least 1, not {threads}")
    source = Source(str(path) if path is not None else "<string>", as_text("a script", text), str(path) if path is not None else None)
    base = Path(path).parent if path is not None else Path()
    session = Session(precision=precision, seed=seed, device=device, overrides=as_mapping("set", set),
                      data=as_mapping("data", data), base=base, out=Path(out) if out is not None else None,
                      stdout=stdout, stderr=stderr, quiet=quiet, threads=threads)
    session.load(source)
    return Model(session, source)


def load(path: str | Path, device: Device | None = None, precision: Precision | None = None, seed: int | None = None,
         set: Mapping[str, float | int | bool | str] | None = None, data: Mapping[str, Data] | None = None, *,
         out: str | Path | None = None, stdout: IO[str] | None = None, stderr: IO[str] | None = None, quiet: bool = True,
         threads: int | None = None) -> Model:
    """`compile` of a file, which is read from its own folder.  Raises `LrError`, also if it cannot be read."""
    return compile(read_script(path), device, precision, seed, set, data, path, out=out, stdout=stdout, stderr=stderr, quiet=quiet,
                   threads=threads)


def run(path: str | Path, device: Device | None = None, precision: Precision | None = None, seed: int | None = None,
        set: Mapping[str, float | int | bool | str] | None = None, data: Mapping[str, Data] | None = None, *,
        out: str | Path | None = None, stdout: IO[str] | None = None, stderr: IO[str] | None = None, quiet: bool = True,
        threads: int | None = None, resume: bool | str | Path = False) -> Model:
    """`load` a script and run its commands, with `resume` on from its checkpoint (`Model.run`).

    Raises `LrError`, `Diverged` and `Interrupted` among them."""
    model = load(path, device, precision, seed, set, data, out=out, stdout=stdout, stderr=stderr, quiet=quiet, threads=threads)
    model.run(resume=resume)
    return model
