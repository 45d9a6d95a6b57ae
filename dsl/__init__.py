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
from dsl.errors import Diagnostic, Diverged, Interrupted, LrError
from dsl.model import Model, compile, load, run
from dsl.runtime.train import Report
from dsl.session import Session

__version__ = "0.1.0"
__all__ = ["Diagnostic", "Diverged", "Interrupted", "LrError", "Model", "Report", "Session", "__version__", "compile", "load", "run"]
