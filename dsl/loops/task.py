"""What is to be computed, before it has loops.

In: nothing.  Out: `Task`, a value at each point of a domain that goes to a buffer; `Shop`, what one program has in common.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

from dsl.ir.types import Dim, DType, Shape
from dsl.loops import ir
from dsl.loops.element import Index
from dsl.machine import expr
from dsl.machine.expr import Apply, Buffer, Expr, Load, Ref, walk


@dataclass(frozen=True)
class Axis:
    """A loop of a task; `reduced` if the task adds up along it."""

    name: str
    extent: Dim
    reduced: bool = False


@dataclass(eq=False)
class Task:
    """`value` at each point of `domain` goes to buffer[place].

    Without `op` it is stored.  With one it is a reduction: combined, from `unit` on; `target` is where, once the task is
    inside its outermost reduced loop.  `wide`: float32 values whose total is float64.
    `running` names the axis of a running total, `factor` that of a recurrence, `reverse` its direction.
    `alone`: statements that are the whole task (a library call, a scan), which read and write these buffers besides."""

    buffer: Buffer
    domain: list[Axis]
    place: Index
    value: Expr
    op: str | None = None
    unit: Expr | None = None
    wide: bool = False
    running: str | None = None
    factor: Expr | None = None
    reverse: bool = False
    flags: tuple[Expr, ...] = ()
    alone: Callable[[], list[ir.Stmt]] | None = None
    also_reads: tuple[Buffer, ...] = ()
    also_writes: tuple[Buffer, ...] = ()
    target: Ref | Load | None = None
    hint: str = "v"

    @property
    def parts(self) -> tuple[Expr, ...]:
        """Its expressions."""
        return (self.value, *self.place, *self.flags, *((self.factor,) if self.factor is not None else ()))

    @cached_property
    def loads(self) -> list[Load]:
        return [e for e in walk(self.parts) if isinstance(e, Load)]

    @cached_property
    def cost(self) -> int:
        """Scalar operations at one point."""
        return sum(isinstance(e, Apply) for e in walk(self.parts)) + 1

    @property
    def reads(self) -> set[Buffer]:
        return {e.buffer for e in self.loads}.union(self.also_reads)

    @property
    def writes(self) -> tuple[Buffer, ...]:
        return (self.buffer, *self.also_writes)

    def substituted(self, change: dict[Expr, Expr]) -> Task:
        """The task with parts of its expressions replaced."""
        value, *rest = expr.replace(self.parts, change)
        n, m = len(self.place), len(self.place) + len(self.flags)
        target = expr.replace([self.target], change)[0] if isinstance(self.target, Load) else self.target
        assert target is None or isinstance(target, Load | Ref)
        factor = rest[m] if len(rest) > m else None
        return replace(self, value=value, place=tuple(rest[:n]), flags=tuple(rest[n:m]), factor=factor, target=target)


@dataclass
class Shop:
    """What one program has in common: names, scratch, whether long float32 sums are added up in blocks, and whether rows may take
    turns in tiles, which is for vector lanes and not for warps."""

    block: int | None
    tiles: bool = True
    scratch: list[Buffer] = field(default_factory=list)
    count: dict[str, int] = field(default_factory=dict)

    def name(self, hint: str) -> str:
        number = self.count[hint] = self.count.get(hint, -1) + 1
        return f"{hint}{number}"

    def buffer(self, dtype: DType, shape: Shape, hint: str = "t") -> Buffer:
        made = Buffer(self.name(hint), dtype, shape, "scratch")
        self.scratch.append(made)
        return made
