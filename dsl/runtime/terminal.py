"""What a terminal can show, and how wide text is on it.

In: a stream.  Out: `Terminal`: its size, how many colours it has, whether it takes more than ASCII, whether what is written can be
redrawn.  Whether there are colours is decided by `colors`; COLUMNS and LINES are believed.
"""
from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
from typing import IO

from dsl.colors import wants_color
from dsl.record import record

WIDTH, HEIGHT = 80, 24
"""Of what does not say."""
BASIC, MANY, TRUE = 8, 256, 1 << 24
"""Numbers of colours."""
STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "magenta": "35", "cyan": "36"}
SERIES = (("36", "38;5;38"), ("33", "38;5;208"), ("32", "38;5;71"), ("35", "38;5;134"), ("31", "38;5;167"), ("34", "38;5;67"))
"""The colours of curves drawn together: of eight, of 256; they read on dark and on light ground."""
OFF = "\x1b[0m"
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@record
class Terminal:
    columns: int = WIDTH
    lines: int = HEIGHT
    colors: int = 0
    unicode: bool = True
    interactive: bool = False

    def styled(self, text: str, style: str) -> str:
        """`text` in a style by name, where there are colours."""
        return f"\x1b[{STYLES[style]}m{text}{OFF}" if self.colors and text else text

    def series(self, text: str, number: int, ground: int = -1) -> str:
        """`text` in the colour of the curve of that number, on that of another; negative numbers are none."""
        if not self.colors or not text or number < 0 > ground:
            return text
        found = [SERIES[n % len(SERIES)][self.colors >= MANY] for n in (number, ground) if n >= 0]
        if ground >= 0:                                          # 3… are colours of letters, 4… of their ground
            found[-1] = "4" + found[-1][1:]
        return f"\x1b[{';'.join(found)}m{text}{OFF}"


def terminal_of(stream: IO[str], environment: Mapping[str, str] = os.environ) -> Terminal:
    """What is known of where a stream goes; of a file or a pipe: 80 by 24, no colours."""
    columns, lines = size_of(stream, environment)
    interactive = is_terminal(stream) and environment.get("TERM", "") != "dumb"
    colors = 0
    if wants_color(stream, environment):
        true = environment.get("COLORTERM", "").lower() in ("truecolor", "24bit")
        colors = TRUE if true else MANY if "256" in environment.get("TERM", "") else BASIC
    return Terminal(columns, lines, colors, can_write(stream, "⣿█┤·"), interactive)


def size_of(stream: IO[str], environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Columns and lines: as COLUMNS and LINES say, else as the terminal does."""
    told = [int(text) if (text := environment.get(name, "")).isdecimal() else 0 for name in ("COLUMNS", "LINES")]
    if not all(told):
        try:
            found = os.get_terminal_size(stream.fileno())
            told = [ours or theirs for ours, theirs in zip(told, found, strict=True)]
        except (AttributeError, OSError, ValueError):            # no file, a closed one, not a terminal
            pass
    return told[0] or WIDTH, told[1] or HEIGHT


def is_terminal(stream: IO[str]) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def can_write(stream: IO[str], text: str) -> bool:
    """Whether the stream's encoding has these characters; what has none, such as a buffer of text, takes all."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


# ---------------------------------------------------------------- widths
@cache
def _cell(letter: str) -> int:
    from unicodedata import category, east_asian_width
    if category(letter) in ("Mn", "Me", "Cf", "Cc"):             # marks on the letter before, and what is not seen
        return 0
    return 2 if east_asian_width(letter) in "WF" else 1


def cells(text: str) -> int:
    """How many columns text takes; East Asian letters take two, combining marks and colours none."""
    text = ESCAPE.sub("", text) if "\x1b" in text else text
    return len(text) if text.isascii() else sum(map(_cell, text))


def clipped(text: str, width: int, mark: str = "…") -> str:
    """Text without colours in at most `width` columns; `mark` says that something is missing."""
    if cells(text) <= width:
        return text
    room, kept = width - cells(mark), ""
    for letter in text:
        room -= _cell(letter)
        if room < 0:
            break
        kept += letter
    return kept + mark if width >= cells(mark) else mark[:max(width, 0)]


def padded(text: str, width: int, right: bool = False) -> str:
    """Text with blanks up to `width` columns: after it, or before it if it is to stand right."""
    blanks = " " * (width - cells(text))
    return blanks + text if right else text + blanks
