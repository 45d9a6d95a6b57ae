"""`lr`: a small declarative language for models that learn.

Read the packages in this order; each imports only those before it.

    errors       Span, Diagnostic, LrError            what every stage raises
    ir           types, node, text                    sizes, typed nodes, their text form
    ops          the op table                         one row an op; the built-in functions
    passes       rewrite, rules, grad, batch …        graph to graph
    syntax       ast, parse, elaborate                text to typed graphs
    backends     numpy                                graphs to numbers
    pipeline     the order of passes
    runtime      data, training, plots, printing
    session      names, values, commands
    model        the Python interface                 cli: the command line

    >>> import dsl
    >>> m = dsl.compile("scalar a, b; let y = a * b")
    >>> float(m.eval("y", a=3, b=2))
    6.0
"""
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsl.errors import Diagnostic, Diverged, Interrupted, LrError
    from dsl.function import Function
    from dsl.model import Model, compile, load, run
    from dsl.runtime.train import Report
    from dsl.session import Session

__version__ = "0.1.0"
__all__ = ["Diagnostic", "Diverged", "Function", "Interrupted", "LrError", "Model", "Report", "Session", "__version__", "compile", "load",
           "run"]

# What is named above is imported when it is first asked for: `lr` draws its prompt, and prints its help, without NumPy.
_FROM = {"Diagnostic": "errors", "Diverged": "errors", "Interrupted": "errors", "LrError": "errors", "Function": "function",
         "Model": "model", "compile": "model", "load": "model", "run": "model", "Report": "runtime.train", "Session": "session"}


if not TYPE_CHECKING:                                    # a type checker reads the imports above, and knows what there is not
    def __getattr__(name: str) -> Any:
        from importlib import import_module
        if name not in _FROM:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_FROM[name]}"), name)
        return value


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext dsl`: the magics `%lr` and `%%lr`."""
    from dsl.notebook import load
    load(shell)


def __dir__() -> list[str]:
    return sorted(__all__)
