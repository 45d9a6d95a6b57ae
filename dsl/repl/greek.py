r"""Letters that keyboards lack: in comes `\alpha`, out goes `α`.

The table holds what the language takes as a letter of a name: the Greek alphabet, some Latin letters of mathematics, and marks that
stand above the letter before them (`x\hat` is x̂).  What normalisation would turn into another letter, such as the micro sign, is left out.
"""
from __future__ import annotations

import re
from functools import cache
from unicodedata import name as name_of_character
from unicodedata import normalize

MARKS = {"hat": "\u0302", "bar": "\u0304", "tilde": "\u0303", "dot": "\u0307", "ddot": "\u0308", "check": "\u030c", "breve": "\u0306",
         "acute": "\u0301", "grave": "\u0300", "ring": "\u030a"}
"""Combining marks: they change the letter they are typed behind."""
_LATIN = {"hbar": "ħ", "imath": "ı", "jmath": "ȷ", "eth": "ð", "thorn": "þ", "ae": "æ", "AE": "Æ", "oe": "œ", "OE": "Œ",
          "aa": "å", "AA": "Å", "ss": "ß"}
_OTHER_NAMES = {"varepsilon": "epsilon", "vartheta": "theta", "varphi": "phi", "varrho": "rho", "varpi": "pi", "varkappa": "kappa"}
_TYPED = re.compile(r"\\([A-Za-z]*)$")


@cache
def letters() -> dict[str, str]:
    """Every name, without its backslash, and what it stands for."""
    found: dict[str, str] = {}
    for code in (*range(0x391, 0x3AA), *range(0x3B1, 0x3CA)):
        words = name_of_character(chr(code), "").split()
        if words[:1] == ["GREEK"] and words[2:3] == ["LETTER"]:
            name = {"LAMDA": "lambda", "FINAL": "varsigma"}.get(words[3], words[3].lower())
            found[name.capitalize() if words[1] == "CAPITAL" else name] = chr(code)
    found.update({other: found[name] for other, name in _OTHER_NAMES.items()})
    return {**found, **_LATIN, **MARKS}


def typed(text: str) -> tuple[int, str] | None:
    r"""Where a `\name` at the end of a text begins, and the name so far; None if there is none."""
    found = _TYPED.search(text)
    return (found.start(), found.group(1)) if found else None


def replaced(text: str) -> tuple[int, str] | None:
    r"""What Tab makes of a text that ends in `\name`: where the change begins, and what stands there then.  A mark joins the letter
    before it.  None if it ends in no whole name, or in a mark without a letter."""
    found = typed(text)
    if found is None or found[1] not in letters():
        return None
    start, name = found
    letter = letters()[name]
    if name not in MARKS:
        return start, letter
    if not text[:start] or not (text[start - 1].isalpha() or text[start - 1] in MARKS.values()):
        return None
    # The whole name is composed anew, as the language reads it: a letter and its mark may be one character.
    begin = start - 1
    while begin and text[begin] in MARKS.values():
        begin -= 1
    return begin, normalize("NFKC", text[begin:start] + letter)


def starting_with(prefix: str) -> list[tuple[str, str]]:
    """Names that begin so, and their letters; the shortest first."""
    return sorted(((n, c) for n, c in letters().items() if n.startswith(prefix)), key=lambda pair: (len(pair[0]), pair[0]))


def how_to_type(text: str) -> list[str]:
    r"""For the characters of a text that a keyboard may lack, what to type: `α` by `\alpha`."""
    by_letter: dict[str, str] = {}
    for name, letter in letters().items():
        by_letter.setdefault(letter, f"\\{name}")
    return [by_letter[c] for c in normalize("NFD", text) if c in by_letter]
