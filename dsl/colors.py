"""Whether to colour what is written: in comes a stream, out goes yes or no.

It is decided here for diagnostics, progress, plots and the prompt alike.  The first of these that says something decides:
`--color always|never` (as LR_COLOR, so that processes we start know it too), NO_COLOR, FORCE_COLOR or CLICOLOR_FORCE, CLICOLOR=0,
TERM=dumb, and at last whether the stream is a terminal.  NO_COLOR and FORCE_COLOR count if they are not empty (no-color.org).
"""
from __future__ import annotations

import os
from collections.abc import Mapping
from typing import IO

CHOICE = "LR_COLOR"


def wants_color(stream: IO[str], environment: Mapping[str, str] | None = None) -> bool:
    """Whether text for this stream may hold colours."""
    told = os.environ if environment is None else environment
    choice = told.get(CHOICE, "auto")
    if choice in ("always", "never"):
        return choice == "always"
    if told.get("NO_COLOR"):
        return False
    if any(told.get(name, "0") not in ("", "0") for name in ("FORCE_COLOR", "CLICOLOR_FORCE")):
        return True
    if told.get("CLICOLOR") == "0" or told.get("TERM") == "dumb":
        return False
    try:
        return stream.isatty()
    except (AttributeError, ValueError):                # not a file, or a closed one
        return False


def choose_color(choice: str) -> None:
    """`auto`, `always` or `never`, for this process and those it starts."""
    os.environ[CHOICE] = choice
