"""How the call around the cursor is made: in come a session, a text and the cursor, out goes the signature, cut at the parameter that is
being typed."""
from __future__ import annotations

from typing import TYPE_CHECKING

from dsl.help import library_optimizers, optimizer_signature
from dsl.ops.functions import FORMS, FUNCTIONS
from dsl.repl.place import Place
from dsl.syntax.commands import PLOTS
from dsl.syntax.training import SCHEDULES
from dsl.syntax.values import Module, OptimizerRule, UserFunction

if TYPE_CHECKING:
    from dsl.session import Session


def signature_parts(session: Session, text: str, cursor: int) -> tuple[str, str, str] | None:
    """The signature of the call around the cursor: what stands before the current parameter, the parameter, what stands after it."""
    if text[:cursor].lstrip()[:1] in (":", "?"):
        return None
    place = Place(text, cursor)
    call = place.enclosing_call
    if place.commented or call is None:
        return None
    signature = signature_of(session, place, call.callee)
    if signature is None:
        return None
    head, parameters, tail = taken_apart(signature)
    names = [name_of(p) for p in parameters]
    index = names.index(call.current) if call.current in names else min(call.done, len(parameters) - 1)
    if call.current and call.current not in names:
        index = -1
    variadic = next((i for i, p in enumerate(parameters) if p.startswith("*")), None)
    if variadic is not None and not call.current:
        index = min(index, variadic)
    if not parameters or index < 0:
        return signature, "", ""
    before = head + "".join(f"{p}, " for p in parameters[:index])
    after = "".join(f", {p}" for p in parameters[index + 1:]) + tail
    return before, parameters[index], after


def signature_at(session: Session, text: str, cursor: int) -> str | None:
    """The signature of the call around the cursor, None outside of calls."""
    parts = signature_parts(session, text, cursor)
    return None if parts is None else "".join(parts)


def signature_of(session: Session, place: Place, callee: str) -> str | None:
    """How a function, optimiser, schedule or plot is called."""
    scope = session.elaborator.scope
    owner, _, member = callee.rpartition(".")
    module = scope.get(owner) if owner else None
    symbol = module.value.scope.get(member) if module is not None and isinstance(module.value, Module) else scope.get(callee)
    if symbol is not None and isinstance(symbol.value, UserFunction | OptimizerRule):
        return (f"{owner}." if owner else "") + optimizer_signature(symbol.value.definition)
    if any(t.text == "using" for t in place.tokens) and callee in library_optimizers():
        return library_optimizers()[callee].forms[0]
    if place.owner == "train" and callee in SCHEDULES:
        return SCHEDULES[callee]
    if place.first == "plot" and callee in PLOTS:
        return plot_signature(callee)
    if callee in FUNCTIONS:
        return FUNCTIONS[callee].signature
    return FORMS[callee][0] if callee in FORMS else None


def plot_signature(mark: str) -> str:
    arrays = ["A"] if mark == "heatmap" else ["x", "y"][:PLOTS[mark][1]]
    return f"{mark}({', '.join([*arrays, *(['bins = none'] if mark == 'hist' else [])])})"


def taken_apart(signature: str) -> tuple[str, list[str], str]:
    """`f(`, its parameters, and `)`; a loop's form has no parameters that could be given by name."""
    head, _, inner = signature.partition("(")
    inner = inner.removesuffix(")")
    if head in FORMS:
        return f"{head}({inner})", [], ""
    parameters: list[str] = []
    depth, part = 0, ""
    for character in inner:
        depth += (character in "([") - (character in ")]")
        if character == "," and not depth:
            parameters.append(part.strip())
            part = ""
        else:
            part += character
    return f"{head}(", [*parameters, part.strip()] if part.strip() else parameters, ")"


def name_of(parameter: str) -> str:
    return parameter.partition(" = ")[0].lstrip("*")
