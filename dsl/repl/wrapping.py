"""Prose in the width of a terminal: lines that are too long are broken between words.

In: text, which may hold colours, and a width.  Out: the same text; what stands before two or more spaces, as in a list, or before the
first word of a note, keeps its column to itself.
"""
from __future__ import annotations

import re

from dsl.runtime.terminal import ESCAPE

LEAD = re.compile(r" *(?:\S+(?: \S+)* {2,}(?=\S)|= \w+: )?")
"""What the rest of a line stands right of."""
NARROWEST = 20


def wrapped(text: str, width: int) -> str:
    return "\n".join(part for line in text.split("\n") for part in _line(line, width))


def noted(text: str, width: int) -> str:
    """A diagnostic, of which the lines of source stay whole."""
    notes = [ESCAPE.sub("", line).startswith("  = ") for line in text.split("\n")]
    return "\n".join(part for line, note in zip(text.split("\n"), notes, strict=True) for part in (_line(line, width) if note else [line]))


def _line(line: str, width: int) -> list[str]:
    if len(ESCAPE.sub("", line)) <= width:
        return [line]
    lead = LEAD.match(ESCAPE.sub("", line))
    indent = len(lead.group()) if lead else 0
    if width - indent < NARROWEST:
        indent = len(line) - len(line.lstrip(" "))
    found, held, used = list[str](), "", 0
    for word in re.split(r"(?<=\S)(?= )", line):
        length = len(ESCAPE.sub("", word))
        if used + length > width and used > indent:
            found.append(held)
            held, used = " " * indent, indent
            word = word.lstrip(" ")
            length = len(ESCAPE.sub("", word))
        held, used = held + word, used + length
    return [*found, held]
