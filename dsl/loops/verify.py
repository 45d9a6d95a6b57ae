"""Loop programs checked.

In: a `Program`.  Out: nothing, or an AssertionError that says which statement breaks which rule of `ir.py`.
"""
from __future__ import annotations

from dsl.loops.ir import Program


def verify(program: Program) -> None:
    """Raises AssertionError."""
