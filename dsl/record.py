"""Frozen dataclasses that cost little to define.

`dataclass(frozen=True)` compiles six methods for every class, which for the hundred small classes of this project took a
third of the time `lr` needs to start.  Here only `__init__` is compiled; equality, hash and text are shared functions,
and that a record does not change is checked by the type checker.

    @record   a value: equal if its fields are          @entity   a thing: equal only to itself
"""
from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


def _compared(self: Any) -> tuple[Any, ...]:
    return tuple([getattr(self, f.name) for f in fields(self) if f.compare])


def _equal(self: Any, other: object) -> bool:
    return type(self) is type(other) and _compared(self) == _compared(other)


def _hash(self: Any) -> int:
    return hash((type(self), _compared(self)))


def _text(self: Any) -> str:
    shown = (f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.repr)
    return f"{type(self).__name__}({', '.join(shown)})"


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """A frozen dataclass compared by its fields (but those with `compare=False`)."""
    for name, method in (("__eq__", _equal), ("__hash__", _hash), ("__repr__", _text)):
        if name not in cls.__dict__:
            setattr(cls, name, method)
    return dataclass(eq=False, repr=False)(cls)


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(field,))
def entity(cls: type[T]) -> type[T]:
    """A frozen dataclass compared by identity."""
    if "__repr__" not in cls.__dict__:
        cls.__repr__ = _text                                                         # type: ignore[method-assign]
    return dataclass(eq=False, repr=False)(cls)
