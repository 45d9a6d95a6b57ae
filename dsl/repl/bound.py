"""Names that an entry binds before it has run: in comes its text, out go names with the word that binds them."""
from __future__ import annotations

import re
from functools import lru_cache

from dsl.syntax.pieces import line_tokens

_LISTS = frozenset("let model cost metric data grad hess jac".split())
_ITEMS = frozenset("scalar vector matrix tensor shared dim slot".split())
_SINGLE = frozenset(("def", "optimizer", "step"))
_DTYPES = frozenset("bool int int64 int32 float float64 float32".split())
_BINDING = _LISTS | _ITEMS | _SINGLE | _DTYPES | {"import"}
_ONE = re.compile(r"(let|model|cost|metric|data)[ \t]+([^\W\d]\w*)[ \t]*=", re.ASCII)


@lru_cache(maxsize=16384)
def declared(line: str) -> tuple[tuple[str, str], ...]:
    """The names that the statements beginning on a line bind, by what its first words say."""
    word = line[:len(line) - len(line.lstrip("abcdefghijklmnopqrstuvwxyz0123456789"))]
    if word not in _BINDING:
        return ()
    single = _ONE.match(line) if ";" not in line else None
    if single is not None:                      # most lines: no need to cut them into tokens
        return ((single.group(2), single.group(1)),)
    found: list[tuple[str, str]] = []
    kind, depth, angle, before, open_list = "", 0, 0, "", True
    for token in line_tokens(line):
        text = line[token.start:token.end]
        match token.type:
            case "SEMICOLON":
                kind, depth, angle, open_list = "", 0, 0, True
            case "LPAR" | "LSQB":
                depth += 1
            case "RPAR" | "RSQB":
                depth -= 1
            case "LESS":
                angle += kind == "shared" and open_list
            case "MORE" | "MORE_EQUAL":
                angle = 0
            case "EQUAL" if not depth and not angle:
                open_list = False
            case "COMMA" if not depth and not angle:
                open_list = open_list or kind in _ITEMS
            case "WORD" if not kind:
                kind = text if text not in _DTYPES else kind
            case "WORD" if not depth and not angle and open_list:
                listed = kind in _LISTS | _ITEMS and before in (kind, ",", *_DTYPES) and text not in _DTYPES
                if listed or (kind in _SINGLE and before == kind):
                    found.append((text, kind))
                elif kind == "import" and before == "as":
                    found.append((text, "module"))
        before = text
    return tuple(found)


def bound_above(text: str) -> dict[str, str]:
    """The names that a text binds at the top level, the last word for each."""
    found: dict[str, str] = {}
    for line in text.split("\n"):
        if line[:1].isalpha():
            found.update(declared(line))
    return found
