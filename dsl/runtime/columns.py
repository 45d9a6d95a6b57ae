"""Tables of plain text.

In: words.  Out: lines in columns.
"""
from __future__ import annotations

from collections.abc import Sequence


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: bool = False) -> list[str]:
    """Lines in columns, all but the first flush right if asked for."""
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    return ["  " + "  ".join(word.rjust(w) if right and i else word.ljust(w)
                             for i, (word, w) in enumerate(zip(row, widths, strict=True))).rstrip() for row in (heads, *rows)]


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
