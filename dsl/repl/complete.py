"""What may be typed next: in come a session, a text and the cursor, out go completions, the best first.

Nothing here knows of a terminal; `completer` gives it to the prompt, and a notebook may ask as well.
"""
from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dsl.error_index import ENTRIES
from dsl.help import known_names, library_optimizers
from dsl.ir.node import Node
from dsl.ops.functions import FORMS, FUNCTIONS
from dsl.repl import greek
from dsl.repl.candidates import candidates
from dsl.repl.offer import Completion, Offer, matching
from dsl.repl.paths import command_files, quoted_files
from dsl.repl.place import Place
from dsl.syntax.manual import MANUAL, first_sentence

if TYPE_CHECKING:
    from dsl.session import Session


def complete(session: Session, text: str, cursor: int, automatic: bool = False) -> list[Completion]:
    """What may stand at the cursor.  `automatic`: nobody has asked, so before a letter something is offered only where there is little
    choice."""
    line_start = text.rfind("\n", 0, cursor) + 1
    if line_start == 0 and text[:cursor].lstrip()[:1] in (":", "?"):
        return in_command(session, text, cursor)
    letters = greek_letters(text, cursor)
    place = Place(text, cursor)
    if place.silent:
        return []
    if place.quoted:
        return quoted_files(session, place)
    if letters is not None:
        return letters
    menu = candidates(session, place)
    if automatic and not place.word and not menu.few:
        return []
    return matching(session, place.word, place.start, menu.offers)


# ---------------------------------------------------------------- letters and commands
def greek_letters(text: str, cursor: int) -> list[Completion] | None:
    r"""Letters for a `\name` before the cursor; None if there is none."""
    found = greek.typed(text[:cursor])
    if found is None:
        return None
    start, name = found
    names = [name] if greek.replaced(text[:cursor]) is not None else [n for n, _ in greek.starting_with(name)]
    changes = [(n, greek.replaced(f"{text[:start]}\\{n}")) for n in names]
    return [Completion(change[1], change[0], f"\\{n}", change[1], "letter") for n, change in changes if change is not None]


LATER_WORDS = "not in this version"
SETTING = re.compile(r"(?:^|\s{2,})([a-z]+) ((?:\w+\|)*\w+)(?=\s{2,}|$)", re.MULTILINE)


def in_command(session: Session, text: str, cursor: int) -> list[Completion]:
    """Commands, and what follows each: their table says what that is."""
    from dsl.repl.commands import COMMANDS
    before = text[:cursor]
    indent = len(before) - len(before.lstrip())
    if before[indent] == "?":
        return matching(session, before[indent + 1:].strip(), cursor - len(before[indent + 1:].strip()), topics(session))
    word, space, rest = before[indent + 1:].partition(" ")
    if not space:
        offers = [Offer(f":{c.word}", "command", c.summary, i) for i, c in enumerate(COMMANDS.values())]
        return matching(session, f":{word}", indent, offers)
    begun = [c for name, c in COMMANDS.items() if name.startswith(word)]
    command = COMMANDS.get(word) or (begun[0] if len(begun) == 1 else None)
    if command is None or not command.usage:
        return []
    last = rest[rest.rfind(" ") + 1:]
    start = cursor - len(last)
    if "file" in command.usage:
        return command_files(rest, cursor, ".lr" if ".lr" in command.usage else ".safetensors")
    if "command" in command.usage:
        offers = [Offer(c.word, "command", c.summary, 0) for c in COMMANDS.values()]
        return matching(session, last, start, [*offers, *topics(session)])
    if "value" in command.usage:
        settings: dict[str, str] = dict(SETTING.findall(command.details))
        chosen = rest.split()[0] if " " in rest else None
        if chosen is None:
            return matching(session, last, start, [Offer(f"{n} ", "setting", v.replace("|", ", "), 0, n) for n, v in settings.items()])
        return matching(session, last, start, [Offer(v, "value", "", 0) for v in settings.get(chosen, "").split("|") if v.islower()])
    if "name" in command.usage and "value" not in command.usage:
        words = [w for part in re.findall(r"\[(\w+(?:\|\w+)+)\]", command.usage) for w in part.split("|")]
        names = [Offer(n, "name", s, 1) for n, s in session.elaborator.scope.items() if isinstance(s.value, Node)]
        extra = [Offer("train", "keyword", "the last training", 1)] if command.word in ("kernels", "code", "cost") else []
        return matching(session, last, start, [*(Offer(w, "value", "", 0) for w in words), *names, *extra])
    # An expression, a plot's marks or an entry: as the statement that takes one.
    opening = {"marks": "plot ", "entry": "", "C [wrt w]": "grad g = "}.get(command.usage, "print ")
    shift = len(before) - len(rest) - len(opening)
    inside = complete(session, opening + rest, len(opening) + len(rest))
    return [Completion(c.text, c.start + shift, c.display, c.meta, c.kind) for c in inside]


def topics(session: Session) -> list[Offer]:
    """What there is help for."""
    scope = session.elaborator.scope
    offers = []
    for name in known_names(session):
        if name in scope:
            offers.append(Offer(name, "name", scope[name], 0))
        elif name in FUNCTIONS or name in FORMS:
            offers.append(Offer(name, "function", FUNCTIONS[name].doc if name in FUNCTIONS else FORMS[name][0], 1))
        elif name in MANUAL:
            offers.append(Offer(name, "keyword", first_sentence(MANUAL[name].text), 2))
        elif name in ENTRIES:
            offers.append(Offer(name, "code", ENTRIES[name].title, 3))
        else:
            known = library_optimizers().get(name)
            offers.append(Offer(name, "optimizer", known.forms[0], 2) if known is not None else Offer(name, "function", LATER_WORDS, 3))
    return offers
