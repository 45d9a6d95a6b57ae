"""Values of graphs.

In: elaborated graphs, the values of leaves, and the sizes known.  Out: arrays.  Graphs are compiled once and kept; before
a run, what could not be decided about sizes when the graph was typed is checked; a fault while running becomes a
diagnostic at the place of the term that met it.
"""
from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import RLock
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dsl.backends.base import FaultAt
from dsl.backends.cuda.failures import Refused
from dsl.backends.cuda.memory import Memory, on_host
from dsl.backends.native import NativeBackend, NativeExecutable, Runnable, cuda, llvm
from dsl.backends.numpy import NumpyBackend, NumpyExecutable
from dsl.errors import LrError, Span, error
from dsl.ir.node import Node, Origins, everything, requirements, topological
from dsl.ir.types import Dim, Requirement, Shape, shape_text
from dsl.loops import ir
from dsl.loops.train import Feeds, GroupGraphs, TrainProgram, train_program
from dsl.ops.leaves import leaf_name
from dsl.pipeline import Options, prepare
from dsl.runtime.arguments import out_of_memory
from dsl.runtime.gpu import Gpu
from dsl.runtime.placement import CALLS
from dsl.syntax.binding import leaf_key, solve_linear

if TYPE_CHECKING:
    from dsl.runtime.profile import Profile

LeafKey = tuple[str, str, int]


@dataclass
class Compiled:
    """A graph ready to run: the executable, and what its sizes must fulfil."""

    executable: NumpyExecutable | NativeExecutable
    ready: list[Node]
    keys: list[LeafKey]
    needs: list[tuple[Requirement, Node]]
    lengths: dict[Dim, Node]
    names: set[str]
    checked: dict[str, int] | None = None
    placed: tuple[Any, bool] | None = None
    """Of `auto`: sizes and which arrays are on the GPU, and whether it runs there then."""

    @property
    def reference(self) -> NumpyExecutable:
        """The reference's executable, of a graph that was compiled for it."""
        assert isinstance(self.executable, NumpyExecutable)
        return self.executable


MANY = 300_000
"""Elements of a graph from which on compiling it pays even if it is run once."""


KEPT = 500
"""Graphs that stay compiled, those used last."""


class Compute:
    """Compiles and runs graphs; `lookup` gives the value of a leaf, `device` where they run.

    `cpu` and `cuda` compile every graph, `numpy` none; `auto` those that are run again and again or that have many elements, for
    the CPU or, where that pays, for a GPU.  `threads` is how many native code may use, `profile` watches it."""

    def __init__(self, origins: Origins, lookup: Callable[[Node], Any], device: Callable[[], str] = lambda: "numpy",
                 threads: int | None = None, profile: Profile | None = None) -> None:
        self.origins, self.lookup, self.device, self.threads, self.profile = origins, lookup, device, threads, profile
        self.cache: dict[tuple[bool | str, tuple[Node, ...]], Compiled] = {}
        self.reference, self.native = NumpyBackend(), NativeBackend(self.runnable, lambda: self.device() != "cuda")
        self.graphics = NativeBackend(self.launched, lambda: False)
        self.gpu = Gpu(device, threads, profile is None)
        self.loops: dict[Any, tuple[TrainProgram, Runnable]] = {}
        self.compilations = 0
        self.compile_seconds = 0.0
        self.lock, self.training_lock = RLock(), RLock()         # threads that use one model take turns
        self.exact = self.stable = True
        self.check = False

    def runnable(self, made: ir.Program) -> Runnable:
        """A loop program compiled for the device."""
        if self.device() == "cuda":
            return self.launched(made)
        return llvm(made, self.threads) if self.profile is None else self.profile.compiler(made)

    def launched(self, made: ir.Program) -> Runnable:
        """A loop program compiled for the GPU."""
        if self.profile is not None:
            self.profile.launched += 1
        return cuda(made, self.gpu.launcher)

    @contextmanager
    def memory(self) -> Iterator[None]:
        """What runs out of memory in here is a diagnostic."""
        try:
            yield
        except MemoryError as problem:
            raise self.explained(problem) from None

    def compile(self, roots: Sequence[Node], native: bool | Literal["gpu"] = False) -> Compiled:
        """For the reference, as native code of the device, or for the GPU that `auto` has chosen."""
        key = native, tuple(roots)
        found = self.cache.pop(key, None)
        if found is not None:
            self.cache[key] = found                              # the latest stand last
        else:
            while len(self.cache) >= KEPT:
                self.cache.pop(next(iter(self.cache)), None)
            began = self.began()
            before = self.cache.get((not native, key[1]))
            ready = before.ready if before else prepare(roots, Options(self.exact, self.stable, self.check, None, self.origins))
            executable = (self.graphics if native == "gpu" else self.native if native else self.reference).compile(ready)
            if self.profile is not None and isinstance(executable, NativeExecutable):
                self.profile.name(self.origins.span(roots[0]))
            order = everything(roots)
            needs = [(r, node) for node in order for r in requirements(node)]
            used = [d for node in [*order, *everything(ready)] for d in (*node.shape, *(v for _, v in node.attrs if isinstance(v, Dim)))]
            names = {s.name for d in used for s in d.sizes() if s.value is None}
            lengths = {d: node for node in reversed(order) for d in node.shape if d.bare is None and (d.constant is None or d.constant < 0)}
            found = self.cache[key] = Compiled(executable, ready, [leaf_key(n) for n in executable.leaves], needs, lengths, names)
            self.compile_seconds += time.perf_counter() - began
        return found

    def began(self) -> float:
        """The time; one compilation more."""
        self.compilations += 1
        return time.perf_counter()

    def forget(self) -> None:
        """Nothing is compiled any more, as for another device or number of threads."""
        self.cache, self.loops = {}, {}

    def without_gpu(self, made: TrainProgram) -> None:
        """A training loop for the GPU is not one any more: it will be compiled again."""
        self.loops = {key: found for key, found in self.loops.items() if found[0] is not made}

    def training(self, groups: tuple[GroupGraphs, ...], feeds: Feeds, place: Span | None = None,
                 gpu: Callable[[ir.Program], bool] = lambda program: False) -> tuple[TrainProgram, Runnable]:
        """The training loop of the statement at `place`, compiled once: for the device, or for the GPU if `gpu` says so of the program
        for the CPU.  Raises `NotNative`."""
        key = tuple((g.watched, g.costs, g.values, g.targets) for g in groups), \
            (feeds.mode, feeds.rows, feeds.schedules, feeds.shuffle, feeds.ragged)
        found = self.loops.get(key)
        if found is None:
            began = self.began()
            backend = self.native
            made = train_program(groups, feeds, origins=self.origins, tiles=backend.tiles())
            if gpu(made.program):
                backend = self.graphics
                made = train_program(groups, feeds, origins=self.origins, tiles=backend.tiles())
            found = self.loops[key] = made, backend.compiler(made.program)
            if self.profile is not None:
                self.profile.name(place)
            self.compile_seconds += time.perf_counter() - began
        return found

    def values(self, roots: Sequence[Node], sizes: Mapping[str, int], extra: Mapping[LeafKey, Any] | None = None,
               again: bool = False) -> list[Any]:
        """The arrays of the graphs, of which some may be those given; `again` if they will be asked for again and again: then
        the arrays are new ones, the caller's own.  What was computed on a GPU stays there (`Memory`)."""
        if not roots:
            return []
        device = self.device()
        compiled = self.compile(roots, native=device in ("cpu", "cuda") or (device == "auto" and again))
        self.check_sizes(compiled, sizes)
        if device == "auto" and not again and elements(compiled.ready, sizes) > MANY:
            compiled = self.compile(roots, native=True)
            compiled.checked = dict(sizes)
        given, here = extra or {}, compiled
        if device == "auto" and self.gpu.here and isinstance(compiled.executable, NativeExecutable):
            compiled = self.placed(compiled, compiled.executable, roots, sizes, given, again)
        try:
            results = self.taken(compiled, sizes, given)
        except Refused as problem:
            if not self.gpu.does_without(problem):
                raise
            here.placed = None
            results = self.taken(here, sizes, given)
        return [np.array(v) for v in results] if again and isinstance(compiled.executable, NumpyExecutable) else results

    def taken(self, compiled: Compiled, sizes: Mapping[str, int], given: Mapping[LeafKey, Any]) -> list[Any]:
        """The results over the leaves' values, taken to where the graphs run."""
        leaves = zip(compiled.keys, compiled.executable.leaves, strict=True)
        if isinstance(compiled.executable, NativeExecutable) and compiled.executable.away:
            self.gpu.follow()
            with self.memory():
                values = [given[key] if key in given else self.gpu.kept(key, self.lookup(leaf), leaf.dtype) for key, leaf in leaves]
        else:
            values = [given[key] if key in given else self.lookup(leaf) for key, leaf in leaves]
            if self.gpu.in_use:                                  # some may be there
                values = list(map(on_host, values))
        return list(self.run(compiled, values, sizes))

    def placed(self, compiled: Compiled, executable: NativeExecutable, roots: Sequence[Node], sizes: Mapping[str, int],
               given: Mapping[LeafKey, Any], again: bool) -> Compiled:
        """The graphs compiled for where `auto` runs them: the CPU, for which they are compiled, or the GPU."""
        arrays = [given[key] if key in given else self.lookup(leaf)
                  for key, leaf in zip(compiled.keys, executable.leaves, strict=True) if leaf.rank]
        state = dict(sizes), [isinstance(a, Memory) for a in arrays]
        if compiled.placed is None or compiled.placed[0] != state:
            results = sum(math.prod(d.evaluate(sizes) or 0 for d in r.shape) * np.dtype(r.dtype).itemsize for r in compiled.ready)
            calls, back = (CALLS, results) if again else (1, 0)
            compiled.placed = state, self.gpu.pays(executable.program, sizes, arrays, calls=calls, back=back)
        if not compiled.placed[1]:
            return compiled
        there = self.compile(roots, native="gpu")
        there.checked = dict(sizes)
        return there

    def run(self, compiled: Compiled, values: Sequence[Any], sizes: Mapping[str, int]) -> tuple[Any, ...]:
        try:
            if isinstance(compiled.executable, NativeExecutable):
                return compiled.executable.run(values, sizes)
            with self.lock, np.errstate(all="ignore"):           # the reference holds its sizes: one thread at a time
                compiled.executable.set_sizes(sizes)
                return compiled.executable.run(values)
        except (FaultAt, MemoryError) as problem:
            raise self.explained(problem) from None

    def explained(self, problem: FaultAt | MemoryError) -> LrError:
        """What went wrong in a run, as a diagnostic."""
        if isinstance(problem, MemoryError):
            return out_of_memory(problem)
        return error(problem.fault.code, problem.fault.message, self.origins.span(problem.node), "while running this",
                     help=problem.fault.help)

    def check_sizes(self, compiled: Compiled, sizes: Mapping[str, int]) -> None:
        """What was left open when the graph was typed must hold now."""
        if compiled.checked == sizes:
            return
        missing = sorted(n for n in compiled.names if n not in sizes)
        if missing:
            shown = " and ".join(f"`{m}`" for m in missing if "." not in m) or "a size"
            raise error("E0214", f"{shown} is not known yet", help="bind data that determines it, or fix it: `dim d = …`")
        for need, node in compiled.needs:
            if need.holds(sizes) is False:
                raise self.broken(need, node, sizes)
        for length, node in compiled.lengths.items():
            if (value := length.evaluate(sizes)) is not None and value < 0:
                raise error("E0208", f"a length is not negative: {value}", self.origins.span(node))
        compiled.checked = dict(sizes)

    def broken(self, need: Requirement, node: Node, sizes: Mapping[str, int]) -> LrError:
        def words(dim: Dim) -> str:
            value = dim.evaluate(sizes)
            return f"{dim} = {value}" if dim.constant is None and str(dim) != "?" else str(value)
        shapes = " and ".join(concrete(a.shape, sizes) for a in node.args)
        op = node.op.symbol[0] if node.op.symbol else node.op.name
        return error("E0215", f"`{op}` cannot combine {shapes}" if len(node.args) > 1 else f"`{op}` does not fit {shapes}",
                     self.origins.span(node), f"{words(need.left)} against {words(need.right)}",
                     help="these lengths were known only when data was bound; give arrays whose lengths agree")


def elements(roots: Sequence[Node], sizes: Mapping[str, int]) -> int:
    """The elements of all terms of the graphs."""
    return sum(math.prod(d.evaluate(sizes) or 0 for d in node.shape) for node in topological(roots))


def concrete(shape: Shape, sizes: Mapping[str, int]) -> str:
    lengths = [d.evaluate(sizes) for d in shape]
    return shape_text([d if n is None else n for d, n in zip(shape, lengths, strict=True)])


def solve_sizes(pairs: Sequence[tuple[Node, tuple[int, ...]]], known: Mapping[str, int], span: Span | None = None) -> dict[str, int]:
    """The sizes that inputs of these actual shapes have.  Raises `LrError` where they disagree."""
    sizes = dict(known)
    origin: dict[str, str] = {}
    later: list[tuple[Node, Dim, int, int]] = []
    for node, shape in pairs:
        name = leaf_name(node)
        if len(shape) != node.rank:
            raise error("E0210", f"`{name}` has {node.rank} axes, but is given {len(shape)}", span, f"an array of shape {shape}")
        for axis, (dim, length) in enumerate(zip(node.shape, shape, strict=True)):
            size = dim.bare
            if size is None or size.value is not None:
                later.append((node, dim, axis, length))
            elif sizes.setdefault(size.name, length) != length:
                why = f"{sizes[size.name]} from {origin[size.name]}" if size.name in origin else f"{size.name} = {sizes[size.name]}"
                raise error("E0211", f"axis {axis} of `{name}` is `{size.name}`: {sizes[size.name]} here, but {length} in the array given",
                            span, why,
                            help="give arrays whose lengths agree")
            else:
                origin.setdefault(size.name, f"`{name}`")
    for node, dim, axis, length in later:
        unknown = {s.name for s in dim.sizes() if s.value is None and s.name not in sizes}
        if len(unknown) == 1:
            root = solve_linear(dim.substitute({n: Dim.of(v) for n, v in sizes.items()}), next(iter(unknown)), length)
            if root is not None:
                sizes[next(iter(unknown))] = root
        value = dim.evaluate(sizes)
        if value != length:
            raise error("E0211", f"axis {axis} of `{leaf_name(node)}` is `{dim}`: {value} here, but {length} in the array given", span,
                        help="give arrays whose lengths agree")
    return sizes
