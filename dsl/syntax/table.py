"""The parse table: in comes the text of `grammar/lr.lark`, out goes the LALR table and the terminals as plain data.

Lark computes the table.  That costs half a second, so the result is kept as JSON in the user's cache directory under a
name that holds the grammar's hash; Lark is imported only when there is no such file.  A file that cannot be read,
or whose digest is wrong, is made anew; a directory that cannot be written is done without.  JSON, not pickle: reading
a cache can never run code.
"""
from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from typing import Any

from dsl.record import record

FORMAT = "1"                            # part of the cache key: raise it when the meaning of the stored data changes
STARTS = ("script", "expression")


@record
class Rule:
    """A production.  `picks` lists the children handed on: an index doubled, plus one where a list is spliced in, and -1
    for None; `passed` is the index of the child that stands for the whole; `name` is None for a spliced list."""

    origin: str
    name: str | None
    length: int
    picks: tuple[int, ...]
    passed: int | None


@record
class Table:
    """`states[s][symbol]` is a state to go to, or `~r` to reduce by rule r; `words` and `marks` map text to terminal."""

    rules: tuple[Rule, ...]
    states: tuple[Mapping[str, int], ...]
    starts: Mapping[str, int]
    ends: Mapping[str, int]
    words: Mapping[str, str]
    marks: Mapping[str, str]
    patterns: Mapping[str, str]


def grammar_text() -> str:
    """The grammar beside the package in a checkout, else the one inside the package."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    beside = os.path.join(os.path.dirname(package), "grammar", "lr.lark")
    # An editable install may leave an old copy inside the package, so the checkout's own file comes first.
    if os.path.isfile(beside) and os.path.basename(os.path.dirname(package)) not in ("site-packages", "dist-packages"):
        with open(beside, encoding="utf-8") as file:
            return file.read()
    from importlib.resources import files
    return files("dsl").joinpath("grammar", "lr.lark").read_text(encoding="utf-8")


@cache
def load_table() -> Table:
    """The table of the current grammar, from the cache where possible."""
    grammar = grammar_text()
    name = f"grammar-{sha256((FORMAT + grammar).encode()).hexdigest()[:20]}.json"
    data = _read_cache(name)
    if data is None:
        data = compute(grammar)
        _write_cache(name, data)
    return _from_data(data)


def _from_data(data: dict[str, Any]) -> Table:
    rules = tuple(Rule(origin, rule_name, length, tuple(picks), passed)
                  for origin, rule_name, length, picks, passed in data["rules"])
    return Table(rules, tuple(data["states"]), data["starts"], data["ends"], data["words"], data["marks"], data["patterns"])


def compute(grammar: str) -> dict[str, Any]:
    """The table as JSON data, computed by Lark."""
    from lark import Lark
    from lark.lexer import Lexer, PatternStr

    class NoLexer(Lexer):
        def __init__(self, *_: Any) -> None: ...

        def lex(self, *_: Any) -> Any:
            return iter(())

    lark = Lark(grammar, parser="lalr", lexer=NoLexer, start=list(STARTS), maybe_placeholders=True)
    table = lark.parser.parser._parse_table             # what Lark's stand-alone generator writes out, too
    rule_numbers = {rule: number for number, rule in enumerate(lark.rules)}
    state_numbers = {state: number for number, state in enumerate(table.states)}
    states = []
    for row in table.states.values():
        states.append({symbol: state_numbers[target] if action.name == "Shift" else ~rule_numbers[target]
                       for symbol, (action, target) in row.items()})
    fixed = {t.pattern.value: t.name for t in lark.terminals if isinstance(t.pattern, PatternStr)}
    return {"rules": [_rule_data(rule) for rule in lark.rules],
            "states": states,
            "starts": {name: state_numbers[table.start_states[name]] for name in STARTS},
            "ends": {name: state_numbers[table.end_states[name]] for name in STARTS},
            "words": {text: name for text, name in fixed.items() if text.isidentifier()},
            "marks": {text: name for text, name in fixed.items() if not text.isidentifier()},
            "patterns": {t.name: t.pattern.value for t in lark.terminals if not isinstance(t.pattern, PatternStr)}}


def _rule_data(rule: Any) -> list[Any]:
    """Lark's tree-shaping options of a rule, as the fields of `Rule`."""
    origin, options = str(rule.origin.name), rule.options
    flags = "".join("1" if empty else "0" for empty in options.empty_indices) or "0" * len(rule.expansion)
    absent = [len(ones) for ones in flags.split("0")]
    picks: list[int] = []
    for position, symbol in enumerate(rule.expansion):
        picks.extend([-1] * absent[position])
        if symbol.is_term and symbol.filter_out and not options.keep_all_tokens:
            continue
        picks.append(2 * position + (0 if symbol.is_term or not symbol.name.startswith("_") else 1))
    picks.extend([-1] * absent[len(rule.expansion)])
    single = len(picks) == 1 and picks[0] >= 0 and picks[0] % 2 == 0
    passed = picks[0] // 2 if single and options.expand1 and not rule.alias else None
    name = None if origin.startswith("_") else str(rule.alias or origin)
    return [origin, name, len(rule.expansion), picks, passed]


# ---------------------------------------------------------------- the cache
def cache_directory() -> str:
    base = os.environ.get("XDG_CACHE_HOME") or ""
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "lr")


def _read_cache(name: str) -> dict[str, Any] | None:
    try:
        with open(os.path.join(cache_directory(), name), "rb") as file:
            digest, _, body = file.read().partition(b"\n")
        if digest.decode() != sha256(body).hexdigest():
            return None
        data = json.loads(body)
        return data if isinstance(data, dict) else None
    except (OSError, ValueError):
        return None


def _write_cache(name: str, data: dict[str, Any]) -> None:
    body = json.dumps(data, separators=(",", ":")).encode()
    directory = cache_directory()
    temporary = os.path.join(directory, f"{name}.{os.getpid()}")
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(sha256(body).hexdigest().encode() + b"\n" + body)
        os.replace(temporary, os.path.join(directory, name))    # another process sees the whole file or none
    except OSError:
        return
