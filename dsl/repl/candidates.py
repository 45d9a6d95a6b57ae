"""What may stand at a place: in come a session and a `Place`, out goes a `Menu`.

The parser says which keywords and kinds of things are legal there, the session which names there are, and what they are.
"""
from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from dsl.help import library_optimizers
from dsl.ir.node import Node, topological
from dsl.ops.build import literal_value
from dsl.ops.functions import FORMS, FUNCTIONS
from dsl.repl.bound import bound_above
from dsl.repl.offer import Menu, Offer
from dsl.repl.place import Place
from dsl.repl.signature import plot_signature, signature_of, taken_apart
from dsl.syntax.commands import PLOTS
from dsl.syntax.elaborate import DEVICES
from dsl.syntax.faults import CONSTANTS
from dsl.syntax.layout import CLAUSE_WORDS
from dsl.syntax.manual import INSIDE, MANUAL, first_sentence
from dsl.syntax.training import SCHEDULES
from dsl.syntax.values import Module, OptimizerRule, Symbol, Table, UserFunction

if TYPE_CHECKING:
    from dsl.session import Session

FIT_METHODS = ("lbfgs", "newton", "gauss_newton")
DEVICE_WORDS = ("what pays, the default", "compiled for the processor", "an NVIDIA GPU", "the reference")


def candidates(session: Session, place: Place) -> Menu:
    """All that may stand at a place."""
    keywords = [Offer(w, "keyword", keyword_words(w), 4 if w in ("and", "or") else 3 if place.tokens else 0) for w in place.keywords]
    if place.is_after("."):
        return Menu(members(session, place), few=True)
    if place.is_after("using"):
        return Menu(list(optimizers(session, place)), few=True)
    if place.owner == "train" and not place.tokens:
        return Menu([*schedule_targets(session), *keywords])
    if place.wants_expression:
        return Menu([*expression_offers(session, place), *keywords], few=False)
    if place.wants_name:
        offers = list(name_offers(session, place))
        return Menu([*offers, *keywords], few=bool(offers))
    return Menu(keywords)


@cache
def keyword_words(word: str) -> str:
    """What a keyword adds to a statement, or the form of the one that it begins."""
    page = MANUAL[word]
    if word in INSIDE:
        return INSIDE[word]
    begins = [form.partition("\n")[0] for form in page.forms if form.split()[0] == word]
    return begins[0] if begins else first_sentence(page.text)


def names_in_scope(session: Session, place: Place) -> dict[str, Any]:
    """Every name that may be read here: of the session, of the entry above the cursor, of the block and the loops around."""
    found: dict[str, Any] = {n: s for n, s in session.elaborator.scope.items() if s.kind != "failed"}
    begin, _ = place.piece
    for name, word in bound_above(place.text[:begin]).items():
        found[name] = f"{word}, above"
    found.update(place.local_names())
    return found


def expression_offers(session: Session, place: Place) -> Iterator[Offer]:
    names = names_in_scope(session, place)
    if place.at_argument and (call := place.call) is not None:
        yield from parameter_offers(session, place, call.callee, call.done, call.named)
    sizes = place.wants_size
    for name, about in names.items():
        kind = about.kind if isinstance(about, Symbol) else str(about).partition(",")[0]
        if kind in ("optimizer", "step"):
            continue
        yield Offer(name, "function" if kind == "def" else "name", about, 4 if sizes and kind != "dim" else 1)
    if sizes:
        return
    if place.first == "plot" and not place.brackets:
        for mark in PLOTS:
            yield Offer(mark, "function", plot_signature(mark), 0)
    if place.owner == "train" and place.tokens and not place.brackets and place.first not in CLAUSE_WORDS:
        for schedule, form in SCHEDULES.items():
            yield Offer(schedule, "function", form, 0)
    for name, row in FUNCTIONS.items():
        if row.build is not None or place.first == "data" or not place.tokens:
            yield Offer(name, "function", row.signature, 2)
    for name, (form, _) in FORMS.items():
        yield Offer(name, "function", form, 2)
    for name, value in CONSTANTS.items():
        yield Offer(name, "constant", repr(value), 2)


def schedule_targets(session: Session) -> Iterator[Offer]:
    """What a clause `name = schedule` may be of: a `let` with a literal value, or a parameter of an optimiser in use."""
    for name, symbol in session.elaborator.scope.items():
        if symbol.kind == "let" and isinstance(symbol.value, Node) and literal_value(symbol.value) is not None:
            yield Offer(f"{name} = ", "name", symbol, 2, name)
    known = {str(n) for u in session.elaborator.updates for n in parameter_names(u.value)}
    for name in sorted(known):
        yield Offer(f"{name} = ", "parameter", "of the optimiser, by a schedule", 2, name)


def parameter_names(node: Node) -> Iterator[str]:
    for part in topological([node]):
        if part.op.name == "alias" and re.match(r"[^\W\d]\w*\d+\.\w+$", str(part.attr("name"))) and literal_value(part) is not None:
            yield str(part.attr("name")).rpartition(".")[2]


def name_offers(session: Session, place: Place) -> Iterator[Offer]:
    """Where a name must stand: those that the words before it allow."""
    names = names_in_scope(session, place)

    def of(*kinds: str, ending: str = "") -> Iterator[Offer]:
        for name, about in names.items():
            kind = about.kind if isinstance(about, Symbol) else about.removesuffix(", above")
            if kind in kinds or (kind in ("scalar", "vector", "matrix", "tensor") and "input" in kinds):
                yield Offer(name + ending, "name", about, kinds.index(kind) if kind in kinds else kinds.index("input"), name)
    match place.governor:
        case "wrt":
            yield from of("shared") if place.first in ("minimize", "fit") else of("shared", "input", "let", "model", "cost", "metric")
        case "except":
            yield from of("shared")
        case "of":
            yield from of("step")
        case "with" | "over" | "valid":
            yield from of("input", "shared", ending=" = ")
        case "lower" | "higher":
            yield from of("cost", "metric")
        case "update":
            yield from of("shared", "slot", "parameter", ending=" <- ")
        case "precision":
            yield from (Offer(w, "value", "the script's float", 0) for w in ("float64", "float32"))
        case "device":
            yield from (Offer(w, "value", words, 0) for w, words in zip(DEVICES, DEVICE_WORDS, strict=True))
        case "use":
            yield from (Offer(n, "module", "library module", 0) for n in library_modules())
        case "report":
            yield Offer("se", "value", "standard errors", 0)


@cache
def library_modules() -> tuple[str, ...]:
    from importlib import resources
    return tuple(sorted(p.name.removesuffix(".lr") for p in resources.files("dsl").joinpath("library").iterdir() if p.name.endswith(".lr")))


def optimizers(session: Session, place: Place) -> Iterator[Offer]:
    """What may stand after `using`."""
    if place.first == "fit":
        yield from (Offer(name, "optimizer", "method of `fit`", 0) for name in FIT_METHODS)
        return
    for name, topic in library_optimizers().items():
        yield Offer(name, "optimizer", topic.forms[0], 1)
    for name, about in names_in_scope(session, place).items():
        if isinstance(about, Symbol) and isinstance(about.value, OptimizerRule):
            yield Offer(name, "optimizer", about, 0)
        elif isinstance(about, Symbol) and isinstance(about.value, Module):
            yield Offer(name, "name", about, 2)
        elif about == "optimizer, above":
            yield Offer(name, "optimizer", about, 0)


def members(session: Session, place: Place) -> list[Offer]:
    """Columns of a table, names of a module; of anything else its transpose."""
    owner = place.tokens[-2].text if len(place.tokens) > 1 and place.tokens[-2].type == "WORD" else ""
    symbol = session.elaborator.scope.get(owner)
    match symbol.value if symbol is not None else None:
        case Table(columns=columns):
            return [Offer(name, "column", column) for name, column in columns.items()]
        case Module(scope=scope):
            return [Offer(name, "function" if isinstance(s.value, UserFunction) else "name", s) for name, s in scope.items()]
        case _:
            return [Offer("T", "name", "the transpose")]


def parameter_offers(session: Session, place: Place, callee: str, done: int, named: tuple[str, ...]) -> Iterator[Offer]:
    """Arguments by name that have not been given."""
    signature = signature_of(session, place, callee)
    if signature is None:
        return
    _, parameters, _ = taken_apart(signature)
    variadic = False
    for index, parameter in enumerate(parameters):
        name, _, default = parameter.partition(" = ")
        if name not in named and (variadic or (default and index >= done - len(named))):
            yield Offer(f"{name} = ", "parameter", f"{default} unless told" if default else "", index - 100, name)
        variadic = variadic or parameter.startswith("*")
