"""Faults planted in CUDA sources: many in one library, because a call of g++ costs more than most sources.

In: sources with their functions, named so that no two have one name.  Out: `Planted`, a launcher on whose functions programs run.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dsl.backends.cuda.shim import ShimLauncher
from dsl.backends.cuda.source import Function
from tests.loop_programs import Case, agrees


class Loaded(ShimLauncher):
    """A launcher whose functions are compiled already."""

    def __init__(self, functions: dict[str, Any], seed: int = 0, most_blocks: int = 64, **options: Any) -> None:
        super().__init__(seed, most_blocks, **options)
        self.functions = functions

    def load(self, source: str, functions: Sequence[Function]) -> dict[str, Any]:
        return {f.name: self.functions[f.name] for f in functions}


def compiled(sources: Iterable[tuple[str, Sequence[Function]]], **options: Any) -> dict[str, Any]:
    """The functions of all sources, each in a namespace of its own."""
    made = list(sources)
    text = "\n".join(f"namespace n{k} {{\n{source}\n}}\nusing namespace n{k};" for k, (source, _) in enumerate(made))
    return ShimLauncher(**options).load(text, [f for _, functions in made for f in functions])


def replaced(source: str, old: str, new: str) -> str:
    assert old in source, f"{old!r} is not in the source"
    return source.replace(old, new)


def story(case: Case, sizes: Iterable[dict[str, int]], executors: Iterable[Callable[..., bool]]) -> str:
    """What is found wrong, or nothing."""
    for execute in executors:
        for each in sizes:
            try:
                agrees(case, each, execute)
            except AssertionError as problem:
                return str(problem).strip() or "wrong"
    return ""
