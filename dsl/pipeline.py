"""The order of passes, and nothing else.

    text ─ parse → AST ─ elaborate → graph ─ simplify + stabilise ─ differentiate ─ simplify + stabilise ─ fold ─ guard → backend
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dsl.ir.node import Node, Origins, verify
from dsl.passes.fold import fold
from dsl.passes.grad import differentiate
from dsl.passes.guard import guard
from dsl.passes.loops import contains_loops, hoist, sink
from dsl.passes.rewrite import Fired, rewrite
from dsl.passes.rules import EXACT, STABLE, STRIP


@dataclass
class Options:
    """What the passes may do; `check` verifies every graph between passes."""

    exact: bool = True
    stable: bool = True
    check: bool = False
    trace: list[Fired] | None = None
    origins: Origins = field(default_factory=Origins)


def simplify(roots: Sequence[Node], options: Options) -> list[Node]:
    """Names stripped, then the rules, in the bodies of loops too; then what no step of a loop changes moves out of it."""
    rule_sets = [STRIP, *([EXACT] if options.exact else []), *([STABLE] if options.stable else [])]
    roots = sink(rewrite(roots, [STRIP], None, options.origins), options.origins) if contains_loops(roots) else roots
    roots = _checked(rewrite(roots, rule_sets, options.trace, options.origins), options)
    return _checked(hoist(roots, options.origins), options)


def prepare(roots: Sequence[Node], options: Options) -> list[Node]:
    """From what was elaborated to what a backend compiles."""
    roots = _checked(differentiate(roots, lambda f: simplify(f, options), options.origins), options)
    roots = simplify(roots, options)
    if options.exact:
        roots = _checked(fold(roots, options.origins), options)
    return _checked(guard(roots, options.origins), options)


def _checked(roots: list[Node], options: Options) -> list[Node]:
    if options.check:
        verify(roots)
    return roots
