"""Help: in comes a name, out goes what there is to know of it.

Built-in functions are described from their rows (the op table, the function table, their examples), keywords from the manual,
optimisers from the library they are written in, errors from the error index, and names in scope from the session.  Each is a `Topic`,
for the documentation to lay out; `help_text` is the same as text.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from textwrap import indent, wrap
from typing import TYPE_CHECKING, Any

from dsl.error_index import ENTRIES
from dsl.errors import LrError, Source, did_you_mean, error
from dsl.ir.node import TABLE, Node, Op, topological
from dsl.ir.text import expression
from dsl.ir.types import ArrayType, TypeFault, is_int
from dsl.ops.examples import EXAMPLES, OWN_PARAMETERS, PARAMETERS, Example, see_also
from dsl.ops.functions import FORMS, FUNCTIONS, LATER, Function
from dsl.ops.leaves import is_leaf, leaf, leaf_name
from dsl.ops.table import Gate
from dsl.record import record
from dsl.syntax import ast
from dsl.syntax.faults import CONSTANTS
from dsl.syntax.manual import MANUAL
from dsl.syntax.parse import parse
from dsl.syntax.values import Group, Module, OptimizerRule, Symbol, Table, TextColumn, UserFunction

if TYPE_CHECKING:
    from dsl.session import Session

WIDTH = 79
NOT_BUILT = "the language has it; this version of lr does not run it yet (E0801)"


@record
class Topic:
    """What there is to know of one name.

    kind       "function", "keyword", "optimizer", "constant", "error", or a name's own ("shared", "let", …)
    forms      how it is written: a function's signature, a statement's forms, a declaration
    details    labelled facts: parameters, types, derivative, accuracy; of a name its value, where it is bound, what uses it
    source     the text it is defined by, if that is in the language
    """

    name: str
    kind: str
    forms: tuple[str, ...]
    summary: str
    details: tuple[tuple[str, str], ...] = ()
    source: str = ""
    example: Example | None = None
    see_also: tuple[str, ...] = ()


def as_dict(topic: Topic) -> dict[str, Any]:
    """A topic as what JSON holds."""
    shown = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(topic).items()}
    example = topic.example
    return {**shown, "details": dict(topic.details), "example": example and {"code": example.code, "prints": example.prints}}


# ---------------------------------------------------------------- functions
@cache
def function_topic(name: str) -> Topic:
    """A built-in function.  Raises KeyError if there is none of that name."""
    if name in FORMS:
        form, text = FORMS[name]
        return Topic(name, "function", (form,), text, example=EXAMPLES[name], see_also=see_also(name))
    if name in LATER:
        return Topic(name, "function", (f"{name}(…)",), f"Not in this version: {NOT_BUILT}.")
    row = FUNCTIONS[name]
    details = tuple(_function_details(row))
    return Topic(name, "function", (row.signature,), row.doc, details, example=EXAMPLES[name], see_also=see_also(name))


def function_groups() -> dict[str, list[Topic]]:
    """All built-in functions by group, in the order of the table."""
    groups: dict[str, list[Topic]] = {}
    for name, row in FUNCTIONS.items():
        groups.setdefault(row.group, []).append(function_topic(name))
    groups["loop"] = [function_topic(name) for name in FORMS]
    return groups


def _function_details(row: Function) -> Iterator[tuple[str, str]]:
    op = TABLE.get(row.name)
    surface = op is not None and op.surface
    if surface and op is not None and op.elementwise:
        yield "types", _elementwise_types(op)
    for parameter in row.parameters:
        words = OWN_PARAMETERS.get((row.name, parameter.name)) or _parameter_words(row, parameter.name)
        if words:
            yield parameter.name, words
    if surface and op is not None:
        yield "derivative", derivative_words(op)
        if op.elementwise and op.means is not None and op.partials is None:
            yield "definition", _formula(op)
        if op.ulp is not None:
            yield "accuracy", accuracy_words(op.ulp)
    if row.group == "random":
        yield "draws", "keyed by the seed, the name that the statement binds, the step and the element; the same on every device"
    if row.build is None:
        yield "place", "stands in a `data` statement"


def _parameter_words(row: Function, name: str) -> str:
    if row.group == "reduction" and name == "axis":
        return "the axis, or a tuple of axes, that is reduced; all of them unless told"
    return PARAMETERS.get(name, "")


def _sample(op: Op, dtype: Any) -> Any:
    """The op over inputs of one dtype, under its operands' names; None if it takes none of that dtype."""
    try:
        return op(*(leaf("input", name, ArrayType("bool" if name == "condition" else dtype)) for name in op.operands))
    except (TypeFault, TypeError):
        return None


def _elementwise_types(op: Op) -> str:
    of_ints, of_floats = _sample(op, "int64"), _sample(op, "float64")
    shape = "element-wise" + (", with broadcasting" if len(op.operands) > 1 else "")
    if of_floats is not None and of_floats.dtype == "bool":
        return f"{shape}; bool"
    if of_ints is not None and is_int(of_ints.dtype):
        return f"{shape}; integers stay integers"
    return f"{shape}; integers are taken as floats"


def derivative_words(op: Op) -> str:
    """What the derivative of an op is, written out where it is element-wise."""
    if op.partials is None and op.elementwise and op.means is not None:
        return "that of its definition"
    if op.partials is None:
        return "exact, of any order" if op.vjp is not None or op.means is not None else "none: its value jumps"
    value = "r" if "y" in op.operands else "y"
    y = leaf("input", value, ArrayType("float64"))
    partials = op.partials(y, *_operands(op))
    parts = [f"d/d{name} = {_partial_words(partial)}" for name, partial in zip(op.operands, partials, strict=True) if partial is not None]
    if not parts:
        return "0: it is constant between its jumps"
    return "; ".join(parts) + (f", where {value} is the value" if any(_mentions(p, y) for p in partials) else "")


def _operands(op: Op) -> list[Node]:
    return [leaf("input", name, ArrayType("bool" if name == "condition" else "float64")) for name in op.operands]


def _partial_words(partial: Any) -> str:
    if isinstance(partial, Gate):
        return f"{_partial_words(partial.factor)} where {bare(partial.condition)}, else 0"
    return bare(partial) if isinstance(partial, Node) else str(partial)


def bare(node: Node) -> str:
    """A formula without the brackets that only repeat others: those around a whole argument, or around all of it."""
    text = expression(node)
    place = 0
    while (place := text.find("(", place)) >= 0:
        stop = _closes(text, place)
        opens = place == 0 or text[place - 1] == "(" or text[place - 2:place] == ", "
        if opens and (stop == len(text) - 1 or text[stop + 1] in ",)") and not _is_tuple(text[place + 1:stop]):
            text = text[:place] + text[place + 1:stop] + text[stop + 1:]
        else:
            place += 1
    return text


def _closes(text: str, place: int) -> int:
    """Where the bracket at a place closes."""
    depth = 0
    for index in range(place, len(text)):
        depth += (text[index] == "(") - (text[index] == ")")
        if depth == 0:
            return index
    return len(text) - 1


def _is_tuple(text: str) -> bool:
    depth = 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            return True
    return False


def _mentions(partial: Any, y: Node) -> bool:
    if isinstance(partial, Gate):
        return _mentions(partial.condition, y) or _mentions(partial.factor, y)
    return isinstance(partial, Node) and y in topological([partial])


def _formula(op: Op) -> str:
    return bare(op.means(*_operands(op))) if op.means is not None else ""


def accuracy_words(ulp: tuple[float, float]) -> str:
    """The bound of a row's `ulp` column in words."""
    single, double = ulp
    if single == double == 0:
        return "exact"
    if single == double == 0.5:
        return "correctly rounded"
    return f"within {double:g} ulp in float64, {single:g} ulp in float32"


# ---------------------------------------------------------------- keywords, optimisers, constants, errors
@cache
def keyword_topic(word: str) -> Topic:
    """A keyword.  Raises KeyError if there is none."""
    entry = MANUAL[word]
    details = (("status", NOT_BUILT),) if entry.later else ()
    return Topic(word, "keyword", entry.forms, entry.text, details, example=None if entry.later else entry.example, see_also=entry.see_also)


@cache
def library_optimizers() -> dict[str, Topic]:
    """The optimisers of the library, each with its source."""
    from importlib import resources
    text = resources.files("dsl").joinpath("library", "optim.lr").read_text(encoding="utf-8")
    script, _ = parse(Source("optim.lr", text))
    found: dict[str, Topic] = {}
    for statement in script.statements:
        if isinstance(statement, ast.Optimizer):
            above = text[:statement.span.start].rstrip().rpartition("\n\n")[2].rpartition("\n")[2]
            found[statement.name.id] = _optimizer(statement, above.lstrip("# ").rstrip())
    return {name: _with_example(topic, found) for name, topic in found.items()}


def _optimizer(definition: ast.Optimizer, summary: str) -> Topic:
    return Topic(definition.name.id, "optimizer", (optimizer_signature(definition),), summary, source=definition.span.text)


def optimizer_signature(definition: ast.Optimizer | ast.Def) -> str:
    words = (p.name.id if p.default is None else f"{p.name.id} = {p.default.span.text}" for p in definition.parameters)
    return f"{definition.name.id}({', '.join(words)})"


def _with_example(topic: Topic, others: Iterable[str]) -> Topic:
    from dataclasses import replace
    code = f"shared w = 5.0\ncost C = sqr(w - 2)\nminimize C wrt w using {topic.name}(rate = 0.1)\ntrain 1000 steps\nprint abs(w - 2) < 0.1"
    return replace(topic, example=Example(code, "true"), see_also=(*(n for n in others if n != topic.name), "minimize", "optimizer"))


def constant_topic(name: str) -> Topic:
    """`pi`, `inf` or `nan`."""
    words = {"pi": "The length of a circle over its diameter.", "inf": "Infinity.", "nan": "Not a number."}[name]
    return Topic(name, "constant", (name,), words, example=Example(f"print {name}", repr(CONSTANTS[name])), see_also=("isfinite", "isnan"))


def error_topic(code: str) -> Topic:
    """An error code.  Raises KeyError if there is none."""
    entry = ENTRIES[code.upper()]
    return Topic(entry.code, "error", (), entry.title, (("meaning", entry.text),))


# ---------------------------------------------------------------- names of a session
def name_topic(session: Session, name: str) -> Topic:
    """A name in scope.  Raises KeyError if there is none."""
    symbol = session.elaborator.scope[name]
    value = symbol.value
    match value:
        case UserFunction(definition) | OptimizerRule(definition):
            details = [] if symbol.span is None else [("bound", _place(symbol))]
            return Topic(name, symbol.kind, (optimizer_signature(definition),), "", tuple(details), source=definition.span.text)
        case Module(scope=scope):
            details = [("holds", ", ".join(scope)), ("bound", _place(symbol))]
        case Table(columns=columns):
            details = [("columns", ", ".join(columns)), ("bound", _place(symbol))]
        case Node():
            details = list(_node_details(session, symbol, value))
        case _:
            details = [("bound", _place(symbol))]
    return Topic(name, symbol.kind, (f"{kind_word(symbol)} {name}{_type_suffix(value)}",), "", tuple(d for d in details if d[1]))


def kind_word(symbol: Symbol) -> str:
    """The word that a name was declared by."""
    if symbol.kind == "input" and isinstance(symbol.value, Node):
        return ("scalar", "vector", "matrix", "tensor")[min(symbol.value.rank, 3)]
    return symbol.kind


def type_of(value: Any) -> str:
    """A value's type in a few words: `float64 [n, d]`."""
    match value:
        case Node():
            shape = str(value.type).removeprefix(value.dtype)
            return value.dtype if shape in ("[]", "") else f"{value.dtype} {shape}"
        case TextColumn(values=values):
            return f"text [{len(values)}]"
        case Table(columns=columns, rows=rows):
            return f"table, {rows} rows, {len(columns)} columns"
        case Group(items):
            return f"({', '.join(map(type_of, items))})"
        case UserFunction(definition) | OptimizerRule(definition):
            return optimizer_signature(definition)
        case Module():
            return "module"
        case str():
            return "text"
        case _:
            return ""


def _type_suffix(value: Any) -> str:
    words = type_of(value)
    return f": {words}" if words else ""


def _node_details(session: Session, symbol: Symbol, value: Node) -> Iterator[tuple[str, str]]:
    if not is_leaf(value) and symbol.kind not in ("input", "shared", "data", "dim"):
        with suppress(LrError):
            formula = session.shown(symbol.name, value)
            yield "formula", formula if formula != value_text(session, symbol) else ""
    if symbol.kind == "shared":
        yield "starts from", session.elaborator.starts.get(symbol.name, "")
    yield "value", value_text(session, symbol)
    sizes = sorted({s.name for d in value.shape for s in d.sizes() if s.named})
    known = session.elaborator.sizes
    yield "sizes", ", ".join(f"{n} = {known[n].value} from {known[n].origin}" if n in known else f"{n} not known yet" for n in sizes)
    yield "bound", _place(symbol)
    yield "depends on", ", ".join(_names_below(session, symbol))
    yield "used by", ", ".join(_names_above(session, symbol))


def value_text(session: Session, symbol: Symbol, longest: int = 60) -> str:
    """The value as text, on one line, where it is at hand or costs nothing; else ""."""
    value = symbol.value
    if symbol.kind == "dim":
        fact = session.elaborator.sizes.get(symbol.name)
        return str(fact.value) if fact else ""
    if not isinstance(value, Node) or any(is_leaf(n, "input") for n in topological([value])):
        return ""
    at_hand = is_leaf(value, "shared", "data") or (value.rank == 0 and not any(is_leaf(n, "data") and n.rank for n in topological([value])))
    if not session.evaluating or not at_hand:
        return ""
    try:
        array = session.array(value)
    except LrError:
        return ""
    if array.size <= 16 and len(text := " ".join(session.printed(session.host(value)).split())) <= longest:
        return text
    return figures(array)


def figures(array: Any) -> str:
    """An array in one line: its least, mean and greatest element, and how many are nan."""
    from dsl.runtime.summary import Summary, summarize
    summary = summarize(array)
    found = summary.statistics if isinstance(summary, Summary) else None
    if found is None or found.mean is None or found.least is None or found.largest is None:
        return ""
    bad = [f"{count} {word}" for count, word in ((found.nan, "nan"), (found.infinite, "infinite")) if count]
    return ", ".join([f"from {found.least:.4g} to {found.largest:.4g}, mean {found.mean:.4g}", *bad])


def _place(symbol: Symbol) -> str:
    span = symbol.span
    if span is None:
        return ""
    line = span.source.line(span.line).strip()
    return f"{span.source.name}:{span.line}: {line if len(line) <= 70 else line[:69] + '…'}"


def _is_within(inner: Any, outer: Any) -> bool:
    return isinstance(inner, Node) and isinstance(outer, Node) and inner is not outer and inner in topological([outer])


def _names_below(session: Session, symbol: Symbol) -> list[str]:
    return [s.name for s in session.elaborator.scope.values() if s.kind != "dim" and _is_within(s.value, symbol.value)]


def _names_above(session: Session, symbol: Symbol) -> list[str]:
    found = [s.name for s in session.elaborator.scope.values() if _is_within(symbol.value, s.value)]
    updates = {f"update {leaf_name(u.target)}" for u in session.elaborator.updates
               if is_leaf(u.target, "shared") and (u.target is symbol.value or _is_within(symbol.value, u.value))}
    return [*found, *sorted(updates)]


# ---------------------------------------------------------------- text
def topics(session: Session | None, name: str) -> list[Topic]:
    """Everything of that name: in scope first, then what the language has."""
    name = name.strip().removesuffix("()")
    scope = session.elaborator.scope if session is not None else {}
    found = []
    if session is not None and name in scope:
        found.append(name_topic(session, name))
    if name in FUNCTIONS or name in FORMS or name in LATER:
        found.append(function_topic(name))
    if name in MANUAL:
        found.append(keyword_topic(name))
    if name in library_optimizers() and not any(t.kind == "optimizer" for t in found):
        found.append(library_optimizers()[name])
    if name in CONSTANTS:
        found.append(constant_topic(name))
    if name.upper() in ENTRIES:
        found.append(error_topic(name))
    if not found and session is not None and "." in name:
        found.extend(_member(session, name))
    return found


def _member(session: Session, name: str) -> Iterator[Topic]:
    """`t.age`, `nets.layer`."""
    owner, _, part = name.partition(".")
    symbol = session.elaborator.scope.get(owner)
    value = symbol.value if symbol is not None else None
    if isinstance(value, Table) and part in value.columns:
        yield Topic(name, "column", (f"column {name}{_type_suffix(value.columns[part])}",), "")
    elif isinstance(value, Module) and part in value.scope:
        member = value.scope[part]
        if isinstance(member.value, UserFunction | OptimizerRule):
            yield Topic(name, member.kind, (f"{owner}.{type_of(member.value)}",), "", source=member.value.definition.span.text)
        else:
            yield Topic(name, member.kind, (f"{member.kind} {name}{_type_suffix(member.value)}",), "")


def known_names(session: Session | None = None) -> list[str]:
    """All that there is help for."""
    scope = session.elaborator.scope if session is not None else ()
    return list(dict.fromkeys([*scope, *FUNCTIONS, *FORMS, *LATER, *MANUAL, *library_optimizers(), *CONSTANTS, *ENTRIES]))


def help_text(session: Session | None, name: str) -> str:
    """All there is to know of a name, as text; without a name, an overview.  Raises `LrError` for a name nobody knows."""
    if not name.strip():
        return overview(session)
    found = topics(session, name)
    if not found:
        near = did_you_mean(name.strip(), known_names(session))
        raise error("E0301", f"there is nothing called `{name.strip()}`",
                    help=f"did you mean `{near}`?" if near else
                    "there is help for every function, keyword, optimiser, error code and name in scope")
    return "\n".join(text_of(topic) for topic in found)


def text_of(topic: Topic) -> str:
    """A topic as plain text."""
    if topic.kind == "error":
        from dsl.error_index import explain
        return explain(topic.name)
    parts = [*topic.forms, *([""] if topic.forms else [])]
    if topic.summary:
        parts += [*_wrapped(_sentence(topic.summary), "  "), ""]
    if topic.details:
        width = max(len(label) for label, _ in topic.details)
        for label, text in topic.details:
            parts += _wrapped(text, " " * (width + 4), f"  {label.ljust(width)}  ")
        parts.append("")
    if topic.source and topic.source not in topic.forms:
        parts += [indent(topic.source, "  "), ""]
    if topic.example is not None:
        parts += [indent(topic.example.code, "  > "), indent(topic.example.prints, "  "), ""]
    if topic.see_also:
        parts += [*_wrapped(", ".join(topic.see_also), "  ", "  see also  "), ""]
    return "\n".join(parts).rstrip("\n") + "\n"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _wrapped(text: str, rest: str, first: str | None = None) -> list[str]:
    return wrap(text, WIDTH, initial_indent=rest if first is None else first, subsequent_indent=rest, break_long_words=False,
                break_on_hyphens=False)


def overview(session: Session | None = None) -> str:
    """What there is, by kind."""
    rows: list[tuple[str, list[str]]] = []
    if session is not None and session.elaborator.scope:
        rows.append(("names", list(session.elaborator.scope)))
    rows.append(("statements", list(MANUAL)))
    groups = function_groups()
    rows += [(group, [t.name for t in members]) for group, members in groups.items()]
    rows += [("optimisers", list(library_optimizers())), ("constants", list(CONSTANTS))]
    width = max(len(label) for label, _ in rows)
    lines = [line for label, names in rows for line in _wrapped(" ".join(names), " " * (width + 2), f"{label.ljust(width)}  ")]
    return "\n".join(lines) + "\n"
