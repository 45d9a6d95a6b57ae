"""Values in a terminal.

In: values, or summaries of them; the width of the terminal.  Out: text.  An array has a header over its corners, so that one sees at once
what it is and whether something is wrong with it; a table is aligned; a formula is broken at its operators.

    float64 [101] · cpu · 808 bytes · min -1.0 mean 0.02 max 1.0 · 2 nan
    [-1.   -0.98 -0.96 ...  0.96  0.98  1.  ]
"""
from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from dsl.backends.cuda.memory import in_words
from dsl.errors import LrError, visible
from dsl.ir.node import Node
from dsl.ops.leaves import is_leaf
from dsl.runtime.columns import counted
from dsl.runtime.printing import format_array, format_scalar
from dsl.runtime.statistics import Number, Statistics
from dsl.runtime.summary import ENDS, AnySummary, Summary, TableSummary, resolved, summarize
from dsl.runtime.terminal import BASIC, Terminal, cells, clipped, padded
from dsl.syntax.values import Group, Module, OptimizerRule, Symbol, Table, TextColumn, UserFunction

if TYPE_CHECKING:
    from dsl.session import Session

NARROWEST = 20
"""Columns that every text here takes for granted."""
WIDEST_CELL = 24
"""Columns of a text in a table."""
CELL_DIGITS = 6
LONGEST_HEAD = 9
"""Letters before brackets under whose beginning the rest of a broken formula stands."""
WITH_USES = 100
"""Columns from which on a table of names says what each depends on, even if its values must be cut for that."""
WITH_KINDS = 60
"""Columns from which on a list of names says their kinds."""
UNKNOWN = re.compile(r"(?<![\w.])-?(?:nan|inf)(?!\w)")


def show_value(name: str | None, value: Any, *, width: int = 80, digits: int = 8, colored: bool = False, unicode: bool = True) -> str:
    """A value, or the summary of one, without a line end: an array (which may lie on a GPU), a scalar, text, a table, a tuple of these.

    `name` heads a table and the parts of a tuple; `digits` are those of an array's numbers."""
    terminal = Terminal(max(width, NARROWEST), colors=BASIC if colored else 0, unicode=unicode)
    return value if isinstance(value, str) else "\n".join(_lines(name or "", summarize(value), digits, terminal))


def _lines(name: str, value: AnySummary, digits: int, terminal: Terminal) -> list[str]:
    match value:
        case Summary(shape=()):
            return [_marked(format_scalar(value.scalar), terminal)]
        case Summary():
            return [*header(value, terminal), *_body(value, digits, terminal)]
        case TableSummary():
            return _table(name, value, digits, terminal)
        case _ if all(isinstance(item, Summary) and not item.shape for item in value):
            items = ", ".join(_marked(format_scalar(item.scalar), terminal) for item in value)
            return [f"({items}{',' if len(value) == 1 else ''})"]
        case _:
            parts = [(f"[{place}]", _lines(f"{name}[{place}]", item, digits, _narrower(terminal, 2))) for place, item in enumerate(value)]
            return [line for place, lines in parts for line in (terminal.styled(place, "bold"), *("  " + line for line in lines))]


def _narrower(terminal: Terminal, by: int) -> Terminal:
    return Terminal(max(terminal.columns - by, NARROWEST // 2), colors=terminal.colors, unicode=terminal.unicode)


def _marked(text: str, terminal: Terminal) -> str:
    """Numbers that are none stand out."""
    return UNKNOWN.sub(lambda found: terminal.styled(found.group(), "red"), text) if terminal.colors else text


# ---------------------------------------------------------------- arrays
def header(value: Summary, terminal: Terminal) -> list[str]:
    """dtype and shape, device, memory, figures, and what is not finite; in as many lines as it takes."""
    figures = value.statistics
    parts = [f"{value.dtype} [{', '.join(map(str, value.shape))}]", value.device, value.memory]
    if not value.size:
        parts.append("empty")
    elif figures is None:
        parts.append(f"{value.distinct} different" if value.distinct is not None else "")
    elif figures.true is not None:
        parts.append(f"{figures.true:,} of {value.size:,} true")
    else:
        text = figures_text(figures)
        parts += [text] if cells(text) <= terminal.columns - 2 else re.split(" (?=mean|max)", text)
    alarms = [f"{number:,} {word}" for number, word in ((figures.nan, "nan"), (figures.infinite, "inf")) if number] if figures else []
    return _joined([*((part, "dim") for part in parts if part), *((part, "red") for part in alarms)], terminal)


def figures_text(figures: Statistics) -> str:
    """`min -1.0 mean 0.02 max 1.0`, or `all 1.0`; nothing if there is no finite number."""
    if figures.least is None or figures.largest is None or figures.mean is None:
        return ""
    if figures.least == figures.largest:
        return f"all {_figure(figures.least)}"
    noise = 1e-15 * max(abs(figures.least), abs(figures.largest))            # what rounding leaves of a mean that is 0
    mean = 0.0 if abs(figures.mean) < noise else figures.mean
    return f"min {_figure(figures.least)} mean {_figure(mean)} max {_figure(figures.largest)}"


def _figure(value: Number) -> str:
    """Four digits; floats keep `.0`."""
    if isinstance(value, int):
        return str(value) if abs(value) < 10 ** 10 else f"{value:.3e}"
    text = f"{value:.4g}"
    return text if not text.lstrip("-").isdigit() else f"{text}.0"


def _joined(parts: Sequence[tuple[str, str]], terminal: Terminal) -> list[str]:
    """Parts with dots between them, broken before a part that does not fit."""
    dot = " · " if terminal.unicode else " | "
    lines: list[tuple[str, int]] = []
    for text, style in parts:
        shown = terminal.styled(text, style)
        if lines and lines[-1][1] + len(dot) + cells(text) <= terminal.columns:
            lines[-1] = lines[-1][0] + terminal.styled(dot, "dim") + shown, lines[-1][1] + len(dot) + cells(text)
        else:
            indent = "  " if lines else ""
            lines.append((indent + shown, len(indent) + cells(text)))
    return [line for line, _ in lines]


def _body(value: Summary, digits: int, terminal: Terminal) -> list[str]:
    if not value.size:
        return []
    text = format_array(value.corner, digits, terminal.columns - 1, value.edge, bool(value.cut))
    return _marked(text, terminal).split("\n")


# ---------------------------------------------------------------- tables
def _table(name: str, value: TableSummary, digits: int, terminal: Terminal) -> list[str]:
    columns = value.columns
    title = f"table {name}" if name.isidentifier() else "table"
    facts = [title, counted(value.rows, "row"), counted(len(columns), "column"), in_words(value.bytes)]
    lines = _joined([(fact, "dim") for fact in facts], terminal)
    if not columns or not value.rows:
        names = [f"{visible(column)} {summary.dtype}" for column, summary in columns]
        return [*lines, *_joined([(text, "dim") for text in names], terminal)]
    cut = bool(columns[0][1].cut)
    last = value.rows - ENDS if cut else value.rows
    rows = [str(row) for row in (*range(ENDS if cut else value.rows), *range(last, value.rows))]
    widest = min(WIDEST_CELL, terminal.columns - cells(rows[-1]) - 4 - len(_more(terminal)))
    found = [_column(column, summary, min(digits, CELL_DIGITS), cut, widest, terminal) for column, summary in columns]
    index = ["", "", *rows]
    if cut:
        index.insert(2 + ENDS, _more(terminal))
    kept = _fitting([max(map(cells, column)) for column, _ in found], max(map(cells, index)), terminal)
    shown: list[tuple[list[str], bool]] = [(index, True)]
    for before, place in pairwise([-1, *kept, len(found)]):
        if place != before + 1:
            shown.append(([_more(terminal)] + [""] * (len(index) - 1), False))
        shown.extend(found[place:place + 1])
    widths = [max(map(cells, column)) for column, _ in shown]
    for row in range(len(index)):
        words = [padded(column[row], width, right) for (column, right), width in zip(shown, widths, strict=True)]
        if row < 2:
            lines.append("  ".join(terminal.styled(word, "bold" if row == 0 else "dim") for word in words).rstrip())
        else:
            lines.append("  ".join([terminal.styled(words[0], "dim"), *(_marked(word, terminal) for word in words[1:])]).rstrip())
    return lines


def _more(terminal: Terminal) -> str:
    return "…" if terminal.unicode else "..."


def _column(name: str, value: Summary, digits: int, cut: bool, widest: int, terminal: Terminal) -> tuple[list[str], bool]:
    """Name, type and cells, none wider than `widest`; whether they stand right."""
    items = [*value.corner[:ENDS], *value.corner[-ENDS:]] if cut else list(value.corner)
    texts = [clipped(_cell(item, digits), widest, _more(terminal)) for item in items]
    texts = _aligned(texts) if value.dtype.startswith("float") else texts
    if cut:
        texts.insert(ENDS, _more(terminal))
    return [clipped(visible(name), widest, _more(terminal)), value.dtype, *texts], value.statistics is not None


def _cell(item: Any, digits: int) -> str:
    if isinstance(item, str):
        return visible(" ".join(item.split()))
    if not isinstance(item, float | np.floating):
        return format_scalar(item)
    text = f"{float(item):.{digits}g}"
    return text if not text.lstrip("-").isdigit() else f"{text}.0"


def _aligned(texts: list[str]) -> list[str]:
    """Numbers that stand right, with their points under each other."""
    if any("e" in text for text in texts):
        return texts
    behind = [len(text.partition(".")[2]) for text in texts]
    return [text + " " * (max(behind, default=0) - length) if "." in text else text for text, length in zip(texts, behind, strict=True)]


def _fitting(widths: Sequence[int], index: int, terminal: Terminal) -> list[int]:
    """Which columns there is room for: all, or the first ones and the last with a mark between."""
    if index + sum(width + 2 for width in widths) <= terminal.columns:
        return list(range(len(widths)))
    room, kept = terminal.columns - index - 2 - len(_more(terminal)), list[int]()
    for place in (0, len(widths) - 1, *range(1, len(widths) - 1)):
        room -= widths[place] + 2
        if room < 0 and kept:
            break
        kept.append(place)
    return sorted(kept)


# ---------------------------------------------------------------- names
def vars_table(session: Session, *, width: int = 80, colored: bool = False, unicode: bool = True) -> str:
    """The names that are bound, with what they are and hold: values and figures of data and state, formulas of the rest; where there is
    room, also which names stand in what was written."""
    terminal = Terminal(max(width, NARROWEST), colors=BASIC if colored else 0, unicode=unicode)
    rows, held = list[tuple[str, str, str, str, str]](), 0
    scope = session.elaborator.scope
    uses = {name: one.uses for one in session.elaborator.remembered for name in one.words}
    for name, symbol in scope.items():
        if symbol.value is not None:
            kind, type_text, text, size = _described(session, symbol)
            rows.append((name, kind, type_text, text, ", ".join(n for n in scope if n in uses.get(name, ()) and n != name)))
            held += size
    if not rows:
        return "nothing is bound yet"
    heads = ("name", "kind", "type", "value", "depends on")
    shown = [(0, "bold"), *([(1, "dim")] if terminal.columns >= WITH_KINDS else []), (2, ""), (3, "")]
    wide = [max(cells(row[i]) for row in (heads, *rows)) for i in range(5)]
    share = [min(wide[0], terminal.columns // 4), wide[1], min(wide[2], terminal.columns // 3), 0, min(wide[4], terminal.columns // 4)]
    if any(row[4] for row in rows) and (terminal.columns >= WITH_USES or sum(wide) + 2 * 4 <= terminal.columns):
        shown.append((4, "dim"))
    share[3] = max(min(wide[3], terminal.columns - sum(share[i] + 2 for i, _ in shown if i != 3)), 1)
    lines = [terminal.styled("  ".join(padded(heads[i], share[i]) for i, _ in shown).rstrip(), "dim")]
    for row in rows:
        words = [(padded(clipped(row[i], share[i], _more(terminal)), share[i]), style) for i, style in shown]
        while words and not words[-1][0].strip():
            words.pop()
        words[-1] = words[-1][0].rstrip(), words[-1][1]
        lines.append("  ".join(terminal.styled(word, style) if style else _marked(word, terminal) for word, style in words).rstrip())
    return "\n".join([*lines, *_joined([(counted(len(rows), "name"), "dim"), (f"{in_words(held)} held", "dim")], terminal)])


def _described(session: Session, symbol: Symbol) -> tuple[str, str, str, int]:
    """Kind, type, what it holds or how it is made, and the bytes of that."""
    value = symbol.value
    leaf = value.args[0] if isinstance(value, Node) and value.op.name == "alias" else value
    match value:
        case Node() if isinstance(leaf, Node) and is_leaf(leaf, "shared", "data"):
            try:
                found = summarize(session.array(leaf))
            except LrError as problem:
                return symbol.kind, _type(value), "not allocated yet" if problem.code == "E0214" else problem.message, 0
            assert isinstance(found, Summary)
            return symbol.kind, f"{found.dtype}{_shape(found.shape)}", in_short(found), found.bytes
        case Node() if value.op.name == "dim":
            return symbol.kind, _type(value), str(session.sizes().get(symbol.name, "")), 0
        case Node():
            return symbol.kind, _type(value), "" if is_leaf(value) else session.shown(symbol.name, value), 0
        case TextColumn(values=texts):
            found = summarize(texts)
            assert isinstance(found, Summary)
            return symbol.kind, f"text{_shape(found.shape)}", in_short(found), found.bytes
        case Table(columns=columns):
            found = summarize(resolved(value, session.array))
            assert isinstance(found, TableSummary)
            return symbol.kind, "table", f"{counted(found.rows, 'row')}: {', '.join(columns)}", found.bytes
        case Group():
            return symbol.kind, "tuple", session.shown(symbol.name, value), 0
        case UserFunction() | OptimizerRule():
            return symbol.kind, "", value.definition.span.text.partition("\n")[0], 0
        case Module():
            return symbol.kind, "", ", ".join(value.scope.maps[0]), 0
        case _:
            return symbol.kind, "", str(value), 0


def in_short(value: Summary) -> str:
    """A scalar, or what is known of an array, in a few words."""
    figures = value.statistics
    if not value.shape:
        return format_scalar(value.scalar)
    if not value.size:
        return "empty"
    if figures is None:
        return f"{value.distinct} different" if value.distinct is not None else ""
    if figures.true is not None:
        return f"{figures.true:,} of {value.size:,} true"
    if value.size <= 4:
        return " ".join(format_array(value.corner, 4, 200).split())
    alarms = [f"{number:,} {word}" for number, word in ((figures.nan, "nan"), (figures.infinite, "inf")) if number]
    return ", ".join(text for text in (figures_text(figures), *alarms) if text)


def _type(node: Node) -> str:
    return str(node.type).removesuffix("[]")


def _shape(shape: Sequence[int]) -> str:
    return f"[{', '.join(map(str, shape))}]" if shape else ""


# ---------------------------------------------------------------- formulas
OPERATOR = re.compile(r" (?:\*\*|//|[<>=!]=|[-+*/%@<>]|and|or|for|while|with|then|else) ")
COMMA = re.compile(r"[,:] ")
OPEN, CLOSE = "([{", ")]}"


def show_formula(text: str, *, start: str = "", width: int = 80) -> str:
    """`start` and a formula; one that is too long is broken: operands under each other with their operators before them, arguments on
    lines of their own; after a long start it begins a line of its own."""
    width = max(width, NARROWEST)
    column = cells(start)
    if column > width // 2 - 4 and column + cells(text) > width:
        return start.rstrip() + "\n    " + _broken(text, 4, 4, width)
    return start + _broken(text, column, 2 if start else 0, width)


def show_formulas(text: str, *, width: int = 80) -> str:
    """Lines such as those of `lr show`, `cost  C  float64  = mean(sqr(y))`, of which those that are too long are broken."""
    lines = []
    for line in text.split("\n"):
        sign = re.search(r" (?:=|<-) ", line) if cells(line) > width else None
        cut = sign.end() if sign else 0
        lines.append(show_formula(line[cut:], start=line[:cut], width=width))
    return "\n".join(lines)


def _broken(text: str, column: int, indent: int, width: int) -> str:
    """The text from `column` on, its later lines at `indent` or deeper."""
    if column + cells(text) <= width:
        return text
    parts = _split(text, COMMA)
    parts = parts if len(parts) > 1 else _split(text, OPERATOR)
    if len(parts) == 1:
        return _group(text, column, indent, width)
    lines = [_broken(part, indent if number else column, indent, width) for number, part in enumerate(parts)]
    return ("\n" + " " * indent).join(lines)


def _group(text: str, column: int, indent: int, width: int) -> str:
    """What stands in the longest brackets is broken by itself: under its beginning, or on lines of its own if much stands before it.
    Where there is no room to go deeper, lines are filled."""
    if column > width // 2 - 4:
        return _filled(text, column, indent, width)
    best, depth, begin = (0, 0), 0, 0
    for place, letter in enumerate(text):
        if letter in OPEN:
            begin, depth = (place if depth == 0 else begin), depth + 1
        elif letter in CLOSE and depth:
            depth -= 1
            if depth == 0 and place - begin > best[1] - best[0]:
                best = begin, place
    if depth and len(text) - 1 - begin > best[1] - best[0]:      # a formula that was cut off
        best = begin, len(text)
    first, last = best
    if last - first < 2:
        return text
    head, inner, tail = text[:first + 1], text[first + 1:last], text[last:]
    if len(head) <= LONGEST_HEAD:
        deeper = column + cells(head)
        return head + _broken(inner, deeper, deeper, width - cells(tail)) + tail
    return f"{head}\n{' ' * (indent + 2)}{_broken(inner, indent + 2, indent + 2, width - cells(tail))}{tail}"


def _filled(text: str, column: int, indent: int, width: int) -> str:
    lines, room = [""], width - column
    for word in text.split(" "):
        if lines[-1] and cells(lines[-1]) + 1 + cells(word) > room:
            lines.append("")
            room = width - indent - 2
        lines[-1] += " " * bool(lines[-1]) + word
    return ("\n" + " " * (indent + 2)).join(lines)


def _split(text: str, separator: re.Pattern[str]) -> list[str]:
    """The parts of a text between separators outside all brackets: a comma or colon ends its part, an operator begins one."""
    depth, start, parts = 0, 0, list[str]()
    for place, letter in enumerate(text):
        depth += (letter in OPEN) - (letter in CLOSE)
        if depth == 0 and place > start and separator.match(text, place):
            end = place + (letter != " ")
            parts.append(text[start:end])
            start = end + 1
    return [*parts, text[start:]]
