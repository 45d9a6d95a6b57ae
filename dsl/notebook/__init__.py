"""IPython and Jupyter: `%load_ext dsl`, then `%%lr` cells and `%lr` expressions.

    magics     `%lr` and `%%lr`: their options, their sessions by name, values handed to Python, completion
    cell       a session whose entries are cells: what it shows is displayed, what fails is raised
    borrowed   Python's variables as `data`
    html       values, progress and figures as HTML that a light and a dark page can show

In: a running IPython shell.  Out: `load`, which adds the magics to it.
"""
from __future__ import annotations

from typing import Any


def load(shell: Any) -> None:
    """The magics, and completion in their cells, in this shell."""
    from dsl.notebook.magics import LrMagics
    LrMagics(shell).install()
