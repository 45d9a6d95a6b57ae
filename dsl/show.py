"""What a script means, for `lr show`.

In: a loaded session, a name, a view.  Out: text: formulas in the user's names, gradients written out, the rules that fired,
the typed graph; the loop programs, their code and cost.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

from dsl.errors import Span, did_you_mean, error
from dsl.ir.node import Node, topological
from dsl.ir.text import expression, listing
from dsl.ir.types import is_float
from dsl.ops.calculus import gradient
from dsl.ops.leaves import is_leaf, leaf_name
from dsl.passes.rewrite import Fired
from dsl.pipeline import prepare
from dsl.syntax import program
from dsl.syntax.values import Symbol, Value

if TYPE_CHECKING:
    from dsl.runtime.programs import Form, Titled
    from dsl.session import Session

NOTHING = ("no rule fired\n",)
FORMULAS = ("let", "model", "cost", "metric", "grad", "hess", "jac")


PROGRAM_VIEWS = ("kernels", "code", "cost")


def describe(session: Session, name: str | None, view: str | None, form: Form = "cuda") -> str:
    """The text of one name, or of the whole program; `form` is that of the code.  Raises `LrError`."""
    symbol = session.elaborator.scope.get(name) if name is not None else None
    if name is not None and (symbol is None or symbol.value is None) and not (name == "train" and view in PROGRAM_VIEWS):
        near = did_you_mean(name, session.elaborator.scope)
        views = "`train` is shown with --kernels, --code or --cost" if name == "train" else None
        raise error("E0301", f"no name `{name}`", help=views or (f"did you mean `{near}`?" if near else None))
    if view in PROGRAM_VIEWS:
        return in_programs(session, name, view, form)
    return whole(session, view) if symbol is None else one(session, symbol, view)


# ---------------------------------------------------------------- programs
def in_programs(session: Session, name: str | None, view: str, form: Form) -> str:
    from dsl.runtime.programs import code_text, cost_text, gpu_text, kernels_text
    match view:
        case "kernels":
            texts = [kernels_text(p) for p in programs(session, name)]
        case "cost":
            on_gpu = programs(session, name, gpu=True)
            texts = [cost_text(p) + gpu_text(g) for p, g in zip(programs(session, name), on_gpu, strict=True)]
        case _:
            texts = [code_text(p, form) for p in programs(session, name, gpu=form == "cuda")]
    return "\n".join(texts) if texts or name is None else f"`{name}` has no program: only formulas and `train` have\n"


def programs(session: Session, name: str | None, gpu: bool = False) -> list[Titled]:
    """The loop programs of the formulas and the `train`s, in the script's order; of one formula, or of what is called `train`; as
    they are for a CPU or a GPU."""
    from dsl.runtime.programs import formula_program, training_program
    found: list[tuple[int, Titled]] = []
    known, options = session.sizes(), session.options()
    for symbol in session.elaborator.scope.values():
        if isinstance(symbol.value, Node) and (symbol.name == name or (name is None and symbol.kind in FORMULAS)):
            made = formula_program(f"{symbol.kind} {symbol.name}", symbol.name, symbol.value, options, known, gpu)
            found.append((place(symbol.span), made))
    if name is None or (name == "train" and name not in session.elaborator.scope):
        for item in session.items:
            if isinstance(item, program.Train):
                title = item.span.text.partition("\n")[0].strip().removesuffix(":")
                found.append((place(item.span), training_program(title, item, session.compute, known, gpu)))
    return [made for _, made in sorted(found, key=lambda pair: pair[0])]


def place(span: Span | None) -> int:
    return span.start if span is not None else -1


# ---------------------------------------------------------------- formulas


def whole(session: Session, view: str | None) -> str:
    """Every named thing of the script, in order; with a view, what it says of each formula."""
    if view is not None:
        return "".join(section(session, symbol, view) for symbol in session.elaborator.scope.values()
                       if isinstance(symbol.value, Node) and symbol.kind in (FORMULAS if view != "grad" else ("cost",)))
    rows: list[tuple[str, str, str, str]] = []
    for name, symbol in session.elaborator.scope.items():
        if isinstance(symbol.value, Node):
            text = f"= {session.shown(name, symbol.value)}" if symbol.kind in FORMULAS else ""
            rows.append((symbol.kind, name, type_text(symbol.value), text))
    rows.extend(("update", leaf_name(u.target), type_text(u.target), f"<- {expression(u.value)}")
                for u in session.elaborator.updates if is_leaf(u.target, "shared"))
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
    return "".join("  ".join([*(word.ljust(width) for word, width in zip(row, widths)), row[3]]).rstrip() + "\n" for row in rows)


def type_text(node: Node) -> str:
    """`float64[n, d]`, and `float64` for a scalar."""
    return str(node.type).removesuffix("[]")


def section(session: Session, symbol: Symbol, view: str) -> str:
    """A view of one formula under its name; nothing where the view has nothing to say."""
    text = one(session, symbol, view)
    if view == "grad" or text in NOTHING:
        return "" if text in NOTHING else text
    return f"{symbol.kind} {symbol.name}\n" + "".join(f"  {line}\n" for line in text.splitlines())


def one(session: Session, symbol: Symbol, view: str | None) -> str:
    value: Value | None = symbol.value
    name = symbol.name
    if not isinstance(value, Node):
        assert value is not None
        return session.shown(name, value) + "\n"
    match view:
        case "grad":
            return gradients(session, name, value)
        case "rules":
            return rules(session, value)
        case "graph":
            return listing(prepare([value], session.options())) + "\n"
        case _:
            return f"{session.shown(name, value)}\n"


def gradients(session: Session, name: str, value: Node) -> str:
    """The gradient of a scalar with respect to every shared variable it reaches."""
    if value.rank or not is_float(value.dtype):
        return f"{name} is {value.type}: a gradient is of a scalar\n"
    targets = [n for n in topological([value]) if is_leaf(n, "shared") and is_float(n.dtype)]
    names = {n: k for n, k in session.names().items() if k != name}
    lines = []
    for target in targets:
        (written,) = prepare([gradient(value, target)], session.options())
        lines.append(f"d {name} / d {leaf_name(target)} : {type_text(target)} = {expression(written, names)}\n")
    return "".join(lines) or f"{name} depends on no shared variable\n"


def rules(session: Session, value: Node) -> str:
    """Each rule that fired while the value (with its derivatives) was prepared."""
    trace: list[Fired] = []
    prepare([value], session.options(trace))
    fired_rules = [fired for fired in trace if fired.rule.name != "alias"]
    return "".join(f"{fired.rule}: {expression(fired.before)}  →  {expression(fired.after)}\n" for fired in fired_rules) or NOTHING[0]
