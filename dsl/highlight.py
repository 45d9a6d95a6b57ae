"""Colours for the language: in comes text, out go Pygments' tokens; and the styles that terminals and pages colour them with.

A word is a keyword where the parser reads it as one, so `split(A, test = 0.2)`, `log(x)` and `t.cost` are not coloured.  Behind a
mistake, or while a statement is being typed, the first word of a line decides.  Joined, the tokens give the text back.
"""
from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, ClassVar

from pygments.lexer import Lexer, do_insertions  # type: ignore[attr-defined]  # the stubs lack it
from pygments.style import Style
from pygments.token import (
    Comment,
    Error,
    Generic,
    Keyword,
    Name,
    Number,
    Operator,
    Punctuation,
    String,
    Text,
    Token,
    Whitespace,
    _TokenType,
)

from dsl.ops.functions import FORMS, FUNCTIONS, LATER
from dsl.record import record
from dsl.syntax import layout
from dsl.syntax.commands import PLOTS
from dsl.syntax.faults import CONSTANTS
from dsl.syntax.layout import RESERVED, STATEMENT_WORDS
from dsl.syntax.pieces import keywords, line_tokens, pieces
from dsl.syntax.training import SCHEDULES

BUILT_IN = frozenset((*FUNCTIONS, *FORMS, *LATER))
SHAPED = frozenset("scalar vector matrix tensor shared".split())
DTYPES = frozenset("bool int int64 int32 float float64 float32".split())
BINDING = frozenset("let model cost metric data grad hess jac dim slot shared import".split()) | SHAPED
OPERATOR_WORDS = frozenset("and or not in".split())
CONSTANT_WORDS = frozenset(("true", "false", "None"))

Piece = tuple[int, _TokenType, str]


class LrLexer(Lexer):
    """The `lr` language."""

    name = "lr"
    url = "https://pypi.org/project/lr-lang/"
    aliases: ClassVar[list[str]] = ["lr"]
    filenames: ClassVar[list[str]] = ["*.lr"]
    mimetypes: ClassVar[list[str]] = ["text/x-lr"]

    def get_tokens_unprocessed(self, text: str) -> Iterator[Piece]:
        """Offset, kind and text of every token, the spaces between them too."""
        for start, end in pieces(text):
            for offset, kind, word in _coloured(text[start:end]):
                yield start + offset, kind, word


PROMPT, CONTINUATION = "lr> ", "... "


class LrTranscriptLexer(Lexer):
    """What a terminal shows of a session: entries behind their prompts, results, errors."""

    name = "lr session"
    url = LrLexer.url
    aliases: ClassVar[list[str]] = ["lr-repl"]
    filenames: ClassVar[list[str]] = []
    mimetypes: ClassVar[list[str]] = ["text/x-lr-session"]

    def get_tokens_unprocessed(self, text: str) -> Iterator[Piece]:
        """Offset, kind and text of every token."""
        entry: list[tuple[int, str]] = []                   # the lines of the entry being read
        start, failed = 0, False
        for line in text.splitlines(keepends=True):
            prompt = next((p for p in (PROMPT, CONTINUATION) if line.startswith(p) or line.rstrip("\r\n") == p.rstrip()), None)
            if prompt != CONTINUATION or not entry:
                yield from _entry(entry)
                entry = []
            if prompt == PROMPT or (prompt == CONTINUATION and entry):
                entry.append((start, line))
                failed = False
            else:
                failed = failed or line.startswith(("error[", "warning["))
                yield start, Generic.Error if failed else Generic.Output, line
            start += len(line)
        yield from _entry(entry)


def _entry(lines: list[tuple[int, str]]) -> Iterator[Piece]:
    """The lines of one entry: highlighted together, each behind its prompt."""
    code, prompts = "", []
    for _, line in lines:
        prompts.append((len(code), [(0, Generic.Prompt, line[:len(PROMPT)])]))
        code += line[len(PROMPT):]
    for offset, kind, word in do_insertions(prompts, LrLexer().get_tokens_unprocessed(code)):
        yield lines[0][0] + offset, kind, word


@lru_cache(maxsize=4096)
def _coloured(text: str) -> tuple[Piece, ...]:
    """The tokens of one statement."""
    # What a REPL is told: `:command argument`, `?name`.
    mark = text[:len(text) - len(text.lstrip(":?"))]
    if mark:
        end = next((i for i in range(len(mark), len(text)) if not text[i].isalpha()), len(text))
        word = end if ":" in mark else len(mark)
        return ((0, Name.Decorator, text[:word]), *((word + o, kind, w) for o, kind, w in _coloured(text[word:])))
    return tuple(_Statement(text).pieces())


@record
class _Bracket:
    opener: str
    callee: str


class _Statement:
    """One walk over the raw tokens of a statement and its block."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.taken = keywords(text)
        self.brackets: list[_Bracket] = []
        self.begin()

    def begin(self) -> None:
        """What is remembered of one statement."""
        self.first = ""             # its first keyword that is no dtype
        self.previous = ""          # the token before
        self.keyword = ""           # the last keyword
        self.called = False         # is the token before a name, so that a bracket is a call's?
        self.bound = False          # has `=`, `:` or `<-` come at the outside?

    def pieces(self) -> Iterator[Piece]:
        start = 0
        for line in self.text.split("\n"):
            line = self.text[start:start + len(line) + 1]
            yield from self.line(start, line)
            start += len(line)

    def line(self, start: int, line: str) -> Iterator[Piece]:
        place = 0
        tokens = [t for t in line_tokens(line) if t.type not in ("BREAK", "END")]
        for index, token in enumerate(tokens):
            if token.start > place:
                yield start + place, Whitespace if line[place:token.start].isspace() else Text, line[place:token.start]
            word = line[token.start:token.end]
            if token.type == "STRING":
                yield from strings(start + token.start, word)
            else:
                after = tokens[index + 1] if index + 1 < len(tokens) else None
                yield start + token.start, self.kind(token, word, start + token.start, after, index == 0), word
            self.follow(token, word)
            place = token.end
        if place < len(line):
            yield start + place, Whitespace if line[place:].isspace() else Text, line[place:]

    def follow(self, token: layout.Token, word: str) -> None:
        """Brackets, and where the next statement of the line or block begins."""
        match token.type:
            case "LPAR" | "LSQB":
                self.brackets.append(_Bracket(word, self.previous if self.called else ""))
            case "RPAR" | "RSQB":
                del self.brackets[-1:]
            case "SEMICOLON" | "COLON" if not self.brackets:
                self.begin()
                return
            case "EQUAL" | "ARROW" if not self.brackets:
                self.bound = True
            case "COMMA" if not self.brackets and self.first in SHAPED | {"dim", "slot"}:
                self.bound = False
            case "COMMENT":
                return
        self.called = self.called and token.type == "WORD"
        self.previous = word

    def kind(self, token: layout.Token, word: str, offset: int, after: layout.Token | None, leads: bool) -> _TokenType:
        match token.type:
            case "COMMENT":
                return Comment.Special if word.startswith("#>") else Comment.Single
            case "NUMBER":
                return Number.Integer if word.isdigit() else Number.Float
            case "WORD":
                return self.word(word, offset, after, leads)
            case "LPAR" | "RPAR" | "LSQB" | "RSQB" | "COMMA" | "COLON" | "SEMICOLON" | "DOT" | "DOTS":
                return Punctuation
            case "ERROR" | "BAD":
                return Error
            case _:
                return Operator

    def word(self, word: str, offset: int, after: layout.Token | None, leads: bool) -> _TokenType:
        self.called = not self.is_keyword(word, offset, after, leads)
        return self.name_kind(word, after) if self.called else self.keyword_kind(word)

    def is_keyword(self, word: str, offset: int, after: layout.Token | None, leads: bool) -> bool:
        if word in RESERVED:
            return True
        if offset in self.taken:
            return self.taken[offset]
        return leads and word in STATEMENT_WORDS and after is not None and after.type in ("WORD", "NUMBER", "STRING")

    def keyword_kind(self, word: str) -> _TokenType:
        if not self.brackets:
            if not self.first and word not in DTYPES:
                self.first, self.bound = word, False
            self.keyword = word
        if word in OPERATOR_WORDS:
            return Operator.Word
        if word in CONSTANT_WORDS:
            return Keyword.Constant
        if word in DTYPES:
            return Keyword.Type
        return Keyword.Declaration if word in BINDING else Keyword

    def name_kind(self, word: str, after: layout.Token | None) -> _TokenType:
        following = after.type if after is not None else ""
        bracket = self.brackets[-1] if self.brackets else None
        if self.previous == ".":
            return Name.Property
        if bracket is None and not self.bound:
            if self.keyword in ("def", "step", "optimizer") and self.previous == self.keyword:
                return Name.Function if self.keyword == "def" else Name.Class
            if self.keyword == "dim":
                return Name.Label
            if self.keyword in BINDING and (self.keyword == self.previous or self.previous == "," or self.previous in DTYPES):
                return Name.Variable
        if bracket is not None and bracket.opener == "[" and not self.bound and self.first in SHAPED:
            return Name.Label
        if following == "LPAR" and word in BUILT_IN:
            return Name.Builtin
        if following == "LPAR" and ((self.first == "plot" and word in PLOTS) or (self.bound and not self.first and word in SCHEDULES)):
            return Name.Builtin
        if self.keyword == "using" and self.previous in ("using", "."):
            return Name.Class
        if bracket is not None and bracket.opener == "(" and following == "EQUAL" and self.previous in ("(", ","):
            return Name.Attribute if bracket.callee and bracket.callee not in FORMS and \
                (self.bound or self.first not in ("def", "optimizer")) else Name
        if word in CONSTANTS:
            return Name.Constant
        return Name


def strings(start: int, word: str) -> Iterator[Piece]:
    """A literal text, its escapes by themselves."""
    place = 0
    while (escape := word.find("\\", place)) >= 0:
        if escape > place:
            yield start + place, String.Double, word[place:escape]
        yield start + escape, String.Escape, word[escape:escape + 2]
        place = escape + 2
    if place < len(word):
        yield start + place, String.Double, word[place:]


# ---------------------------------------------------------------- styles
@record
class Palette:
    """One colour for each role."""

    text: str
    keyword: str
    declaration: str
    type: str
    function: str
    definition: str
    size: str
    constant: str
    string: str
    number: str
    comment: str
    expected: str
    operator: str
    error: str


def _styles(colours: Palette) -> dict[Any, str]:
    c = colours
    return {
        Token: c.text, Name: c.text,
        Keyword: f"bold {c.keyword}", Keyword.Declaration: f"bold {c.declaration}", Keyword.Type: c.type, Keyword.Constant: c.constant,
        Operator: c.operator, Operator.Word: f"bold {c.keyword}", Punctuation: c.operator,
        Name.Builtin: c.function, Name.Function: f"bold {c.function}", Name.Class: c.function, Name.Variable: f"bold {c.definition}",
        Name.Label: c.size, Name.Attribute: c.size, Name.Property: c.definition, Name.Constant: c.constant,
        Name.Decorator: f"bold {c.keyword}",
        String: c.string, String.Escape: f"bold {c.string}", Number: c.number,
        Comment: f"italic {c.comment}", Comment.Special: f"noitalic {c.expected}",
        Generic.Prompt: f"bold {c.keyword}", Generic.Output: c.comment, Generic.Error: c.error, Error: f"underline {c.error}",
    }


LIGHT = Palette(text="#1f2328", keyword="#8b2fb0", declaration="#7a3e9d", type="#00677a", function="#0550ae", definition="#1f2328",
                size="#8a4b08", constant="#0f766e", string="#116329", number="#a03000", comment="#62707d", expected="#3d7a1f",
                operator="#4b5560", error="#c01c28")
DARK = Palette(text="#dfe3ea", keyword="#d59bf6", declaration="#c4a7f5", type="#6fd0e0", function="#7ab8ff", definition="#f2f4f8",
               size="#e5b567", constant="#63d3bf", string="#9ad17c", number="#f2a272", comment="#8f9bab", expected="#a7c96a",
               operator="#b6bfca", error="#ff7b72")
EITHER = Palette(text="", keyword="#a75fd0", declaration="#9a66cc", type="#008292", function="#2f79d0", definition="", size="#a3701c",
                 constant="#138577", string="#3f8535", number="#c0602a", comment="#76797f", expected="#5f8021", operator="",
                 error="#db4743")


class LrLight(Style):
    """For light backgrounds."""

    background_color = "#ffffff"
    styles = _styles(LIGHT)


class LrDark(Style):
    """For dark backgrounds."""

    background_color = "#14161b"
    styles = _styles(DARK)


class LrEither(Style):
    """For a terminal of which nobody knows the background: every colour stands out from black and from white, and names, which are
    most of the text, have the terminal's own."""

    background_color = "#ffffff"
    styles = _styles(EITHER)
