"""What a menu shows: in come candidates and the word typed so far, out go those that continue it, the best first, with what each is.

Nothing is computed for a menu: of a value only what is stored, or written as a literal, is shown.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from dsl.help import kind_word, type_of
from dsl.ir.node import Node
from dsl.ops.build import literal_value
from dsl.ops.leaves import is_leaf
from dsl.record import record
from dsl.syntax.binding import leaf_key
from dsl.syntax.values import Module, Symbol, Table

if TYPE_CHECKING:
    from dsl.session import Session


@record
class Completion:
    """`text` takes the place of what stands from `start` to the cursor; `display` and `meta` are a menu's two columns; `kind` says
    what it is: keyword, name, function, parameter, optimizer, column, path, letter, command, …"""

    text: str
    start: int
    display: str
    meta: str
    kind: str


@record
class Offer:
    """A candidate: `rank` says how likely it is at the place (0: most), `about` is what its meta text is made of."""

    text: str
    kind: str
    about: Any = ""
    rank: int = 1
    display: str = ""


@record
class Menu:
    """The candidates at a place; `few`: they are so certain that a menu may open before a letter is typed."""

    offers: list[Offer]
    few: bool = False


def matches(word: str, candidate: str) -> int | None:
    """How well a candidate continues what was typed: 0 by its beginning, 1 but for capitals, 2 with letters left out; None: not."""
    if candidate.startswith(word):
        return 0
    low, name = word.lower(), candidate.lower()
    if name.startswith(low):
        return 1
    if len(low) < 2 or (name[:1] != low[:1] and low not in name):
        return None
    rest = iter(name)
    return 2 if all(letter in rest for letter in low) else None


def matching(session: Session, word: str, start: int, offers: Iterable[Offer]) -> list[Completion]:
    """The candidates that continue the word, the best first, each once."""
    found: dict[str, tuple[tuple[int, int, str], Offer]] = {}
    for offer in offers:
        quality = matches(word, offer.text)
        if quality is None:
            continue
        key = (quality, offer.rank, offer.text.lower())
        if offer.text not in found or key < found[offer.text][0]:
            found[offer.text] = (key, offer)
    ordered = sorted(found.values(), key=lambda pair: pair[0])
    return [Completion(o.text, start, o.display or o.text, meta(session, o), o.kind) for _, o in ordered]


def meta(session: Session, offer: Offer) -> str:
    """The second column of a menu."""
    match offer.about:
        case str() as text:
            return text
        case Symbol() as symbol:
            return symbol_words(session, symbol)
        case value:
            return type_of(value)


def symbol_words(session: Session, symbol: Symbol) -> str:
    """`matrix float64 [n, d]`, `let 0.01`, `dim 8`: what a name is; its value where that is at hand and short."""
    kind, words = kind_word(symbol), type_of(symbol.value)
    if symbol.kind == "step":
        return "group of updates"
    if symbol.kind in ("def", "optimizer") or isinstance(symbol.value, Table | Module):
        return words
    value = scalar_at_hand(session, symbol)
    if symbol.kind == "dim":
        return f"dim {value}".rstrip()
    return f"{kind} {words} = {value}" if value else f"{kind} {words}".rstrip()


def scalar_at_hand(session: Session, symbol: Symbol) -> str:
    """The value of a single number that is stored or a literal: nothing is computed for a menu."""
    value = symbol.value
    if symbol.kind == "dim":
        fact = session.elaborator.sizes.get(symbol.name)
        return str(fact.value) if fact is not None else ""
    if not isinstance(value, Node) or value.rank:
        return ""
    held = session.values.get(leaf_key(value)) if is_leaf(value) else literal_value(value)
    if isinstance(held, np.generic | bool | int | float) or (isinstance(held, np.ndarray) and held.ndim == 0):
        return session.printed(np.asarray(held)[()])
    return ""
