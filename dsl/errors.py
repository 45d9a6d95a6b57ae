"""Diagnostics: what every stage raises and every front end prints.

In: a place (`Span`), a message, labels on both sides, a help line.  Out: the same diagnostic as terminal text, one
line, or JSON.  There is one type, `Diagnostic`, for the terminal, editors, notebooks and tests; `LrError` carries one or
more of them through Python.  Codes are listed with an example and its fix in `dsl/error_index.py`.
"""
from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from os.path import basename, dirname
from typing import Any

from dsl.record import record

TAB_WIDTH = 4


@dataclass(eq=False)
class Source:
    """A text and the name it is reported under (a path as the user wrote it, `<stdin>`, `<repl>`)."""

    name: str
    text: str
    path: str | None = None

    def __repr__(self) -> str:
        return f"Source({self.name!r})"

    @cached_property
    def line_starts(self) -> list[int]:
        starts = [0]
        starts.extend(i + 1 for i, c in enumerate(self.text) if c == "\n")
        return starts

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of a character offset, both counted from 1."""
        line = bisect_right(self.line_starts, offset)
        return line, offset - self.line_starts[line - 1] + 1

    def line(self, number: int) -> str:
        start = self.line_starts[number - 1]
        end = self.line_starts[number] - 1 if number < len(self.line_starts) else len(self.text)
        return self.text[start:end].rstrip("\r")


@record
class Span:
    """The characters `start` (included) to `end` (excluded) of a source."""

    source: Source
    start: int
    end: int

    @property
    def line(self) -> int:
        return self.source.position(self.start)[0]

    @property
    def column(self) -> int:
        return self.source.position(self.start)[1]

    @property
    def text(self) -> str:
        return self.source.text[self.start:self.end]

    def to(self, other: Span) -> Span:
        """The span from the start of this one to the end of `other`."""
        return Span(self.source, min(self.start, other.start), max(self.end, other.end))

    def __str__(self) -> str:
        return f"{self.source.name}:{self.line}:{self.column}"


@record
class Label:
    span: Span
    text: str = ""


@record
class Diagnostic:
    """One finding: `code` and `message` say what, `primary` where, `labels` the other sides, `help` what to write instead."""

    code: str
    message: str
    primary: Label | None = None
    labels: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    help: str | None = None
    severity: str = "error"

    @property
    def span(self) -> Span | None:
        return self.primary.span if self.primary else None

    def at(self, span: Span | None) -> Diagnostic:
        """This diagnostic placed at `span`, if it has no place yet."""
        return self if self.primary or span is None else replace(self, primary=Label(span))

    def concise(self) -> str:
        place = f"{self.span}: " if self.span else ""
        return visible(f"{place}{self.severity}[{self.code}]: {self.message}")

    def as_dict(self) -> dict[str, Any]:
        def label(item: Label) -> dict[str, Any]:
            span = item.span
            end_line, end_column = span.source.position(span.end)
            return {"file": span.source.name, "line": span.line, "column": span.column,
                    "end_line": end_line, "end_column": end_column, "text": item.text}
        return {"code": self.code, "severity": self.severity, "message": self.message,
                "primary": label(self.primary) if self.primary else None,
                "labels": [label(item) for item in self.labels], "notes": list(self.notes), "help": self.help}

    def render(self, color: bool = False) -> str:
        return _render(self, color)

    def __str__(self) -> str:
        return self.render()


class LrError(Exception):
    """Something is wrong with a script, its data or its run; `diagnostics` say what and where (never empty)."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        super().__init__(*diagnostics)
        self.diagnostics: tuple[Diagnostic, ...] = diagnostics

    @property
    def diagnostic(self) -> Diagnostic:
        return self.diagnostics[0]

    @property
    def code(self) -> str:
        """Of the first diagnostic, such as `E0201`."""
        return self.diagnostic.code

    @property
    def message(self) -> str:
        """Of the first diagnostic."""
        return self.diagnostic.message

    @property
    def hint(self) -> str | None:
        """What to write instead, if that is known."""
        return self.diagnostic.help

    @property
    def file(self) -> str | None:
        return self.diagnostic.span.source.name if self.diagnostic.span else None

    @property
    def line(self) -> int | None:
        return self.diagnostic.span.line if self.diagnostic.span else None

    @property
    def column(self) -> int | None:
        return self.diagnostic.span.column if self.diagnostic.span else None

    def placed(self, span: Span | None) -> LrError:
        """The same error with every diagnostic that has no place put at `span`."""
        if all(d.primary for d in self.diagnostics) or span is None:
            return self
        return type(self)(*(d.at(span) for d in self.diagnostics))

    def __str__(self) -> str:
        return "\n\n".join(d.render() for d in self.diagnostics)

    def _repr_html_(self) -> str:
        return as_html("\n\n".join(d.render(color=True) for d in self.diagnostics))

    def _render_traceback_(self) -> list[str]:
        """What IPython shows where nobody catches this: the callers' own lines, and the diagnostics in colour."""
        return [*callers(self), *"\n\n".join(d.render(color=True) for d in self.diagnostics).split("\n")]


class FileTrouble(LrError):
    """A file that cannot be read or written, or a usage fault (exit code 2)."""


class Diverged(LrError):
    """Training met a NaN, or a finite value became infinite; the state is that of the step before (exit code 3)."""


class Interrupted(LrError):
    """The user stopped the run; the state is that of the last whole step (exit code 130)."""


def error(code: str, message: str, span: Span | None = None, label: str = "", *, labels: Iterable[Label] = (),
          notes: Sequence[str] = (), help: str | None = None, kind: type[LrError] = LrError) -> LrError:
    """An `LrError` of one diagnostic."""
    return kind(Diagnostic(code, message, Label(span, label) if span else None, tuple(labels), tuple(notes), help))


def warning(code: str, message: str, span: Span | None = None, label: str = "", *, labels: Iterable[Label] = (),
            notes: Sequence[str] = (), help: str | None = None) -> Diagnostic:
    return Diagnostic(code, message, Label(span, label) if span else None, tuple(labels), tuple(notes), help, "warning")


def did_you_mean(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate nearest to `word` in spelling, or None when nothing is near."""
    from difflib import get_close_matches
    pool = list(candidates)
    lower = {c.lower(): c for c in pool}
    if word.lower() in lower:
        return lower[word.lower()]
    near = get_close_matches(word, pool, n=1, cutoff=0.6 if len(word) > 2 else 0.75) if len(word) > 1 else []
    return near[0] if near else None


def to_json(diagnostics: Iterable[Diagnostic]) -> str:
    import json
    return json.dumps([d.as_dict() for d in diagnostics], ensure_ascii=False, indent=2)


def callers(problem: BaseException) -> list[str]:
    """The lines of the program that ran into an error, outermost first: those of no library."""
    from traceback import extract_tb
    own = dirname(__file__)
    frames = [frame for frame in extract_tb(problem.__traceback__) if frame.line and "get_ipython().run_" not in frame.line
              and not frame.filename.startswith((own, "<frozen")) and "site-packages" not in frame.filename]
    return [f"  {_cell_or_file(frame.filename)}, line {frame.lineno}, in {frame.name}: {frame.line}" for frame in frames]


def _cell_or_file(name: str) -> str:
    """Cells have files that nobody has seen."""
    return "cell" if "ipykernel" in name or name.startswith("<ipython-input") else basename(name)


# ---------------------------------------------------------------- HTML
HTML_COLORS = {"31": "#d6403c", "32": "#2f8f45", "33": "#a8730b", "34": "#3a7fc4", "36": "#1b8a99"}
"""As the terminal's colours of these numbers; each can be read on white and on black."""


def as_html(text: str) -> str:
    """What is coloured for a terminal as HTML."""
    from html import escape
    parts = text.split("\x1b[")
    html = escape(parts[0])
    opened = False
    for part in parts[1:]:
        code, _, rest = part.partition("m")
        html += "</span>" if opened else ""
        color = HTML_COLORS.get(code.removeprefix("1;"))
        opened = code != "0"
        style = ("font-weight:bold;" if code.startswith("1") else "") + (f"color:{color}" if color else "")
        html += (f'<span style="{style}">' if opened else "") + escape(rest)
    return f'<pre style="white-space:pre;overflow-x:auto;line-height:1.35">{html}{"</span>" if opened else ""}</pre>'


# ---------------------------------------------------------------- terminal text
_COLORS = {"error": "\x1b[1;31m", "warning": "\x1b[1;33m", "note": "\x1b[1;36m", "bold": "\x1b[1m", "frame": "\x1b[1;34m",
           "help": "\x1b[1;32m", "off": "\x1b[0m"}


@dataclass
class _Painter:
    color: bool
    lines: list[str] = field(default_factory=list)

    def paint(self, text: str, role: str) -> str:
        return f"{_COLORS[role]}{text}{_COLORS['off']}" if self.color and text else text


def _cell_width(text: str) -> int:
    """Columns a terminal gives to `text`: wide characters take two, combining marks none."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


_UNSEEN = {**{code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"}, 127: 0x2421,
           **dict.fromkeys([*range(128, 160), *range(0x2028, 0x202F), *range(0x2066, 0x206A)], 0xFFFD)}
"""What would move a terminal's cursor, change its colours or turn its text around, as one visible character each."""
LONGEST_LINE, AROUND = 200, 80
"""Columns of a source line that is shown whole, and how many of a longer one stand before the place that is meant."""


def visible(text: str) -> str:
    """Text that does nothing to a terminal but to be seen."""
    return text if text.isprintable() else text.translate(_UNSEEN)


def _render(d: Diagnostic, color: bool) -> str:
    painter = _Painter(color)
    out = painter.lines
    out.append(f"{painter.paint(f'{d.severity}[{d.code}]', d.severity)}{painter.paint(': ' + visible(d.message), 'bold')}")
    if d.primary:
        _snippets(d, painter)
    gutter = " "
    for note in d.notes:
        head, *rest = visible(note).split("\n")
        out.append(f"  {painter.paint('=', 'frame')} note: {head}")
        out.extend(f"{gutter * 10}{line}" for line in rest)
    if d.help:
        head, *rest = visible(d.help).split("\n")
        out.append(f"  {painter.paint('=', 'frame')} {painter.paint('help', 'help')}: {head}")
        out.extend(f"{gutter * 10}{line}" for line in rest)
    return "\n".join(out)


def _snippets(d: Diagnostic, painter: _Painter) -> None:
    assert d.primary is not None
    groups: dict[int, tuple[Source, list[tuple[Label, bool]]]] = {}
    for label, main in [(d.primary, True), *((item, False) for item in d.labels)]:
        groups.setdefault(id(label.span.source), (label.span.source, []))[1].append((label, main))
    width = max(len(str(label.span.line)) for _, labels in groups.values() for label, _ in labels)
    for source, labels in groups.values():
        head = labels[0][0].span
        arrow = "-->" if labels[0][1] else ":::"
        painter.lines.append(f"{' ' * width}{painter.paint(arrow, 'frame')} {visible(source.name)}:{head.line}:{head.column}")
        painter.lines.append(f"{' ' * width} {painter.paint('|', 'frame')}")
        by_line: dict[int, list[tuple[Label, bool]]] = {}
        for label, main in labels:
            by_line.setdefault(label.span.line, []).append((label, main))
        for number in sorted(by_line):
            text, low, high = _window(visible(source.line(number)), by_line[number][0][0].span.column - 1)
            number_text = painter.paint(f"{number:>{width}} |", "frame")
            painter.lines.append(f"{number_text} {text.expandtabs(TAB_WIDTH)}".rstrip())
            for label, main in sorted(by_line[number], key=lambda item: (not item[1], item[0].span.start)):
                column = min(max(label.span.column - 1, low), high) - low
                stop = min(len(text), max(label.span.column - 1 + max(1, label.span.end - label.span.start) - low, column + 1))
                indent = _cell_width(text[:column].expandtabs(TAB_WIDTH))
                length = max(1, _cell_width(text[:stop].expandtabs(TAB_WIDTH)) - indent)
                mark = painter.paint(("^" if main else "-") * length, d.severity if main else "frame")
                gutter = painter.paint(f"{' ' * width} |", "frame")
                painter.lines.append(f"{gutter} {' ' * indent}{mark} {visible(label.text)}".rstrip())


def _window(text: str, place: int) -> tuple[str, int, int]:
    """What is shown of a line, the column it begins in, and the last column that is seen."""
    if len(text) <= LONGEST_LINE:
        return text, 0, len(text)
    low = max(0, min(place, len(text)) - AROUND)
    high = low + LONGEST_LINE
    return ("…" + text[low + 1:] if low else text)[:LONGEST_LINE] + ("…" if high < len(text) else ""), low, min(high, len(text))
