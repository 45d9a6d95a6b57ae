"""What the environment says about a run.

In: environment variables.  Out: settings; a wrong one is a diagnostic.
"""
from __future__ import annotations

import os

from dsl.errors import FileTrouble, error


def threads_wanted() -> int | None:
    """How many threads LR_THREADS allows; None if it is not set.  Raises `LrError`."""
    text = os.environ.get("LR_THREADS", "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise error("E0902", f"LR_THREADS is {text!r}", help="a whole number of threads, from 1", kind=FileTrouble)
    return int(text)
