"""Tokens and layout: in comes a source text, out goes the list of tokens that the parser reads.

`scan` cuts the text into raw tokens.  `arrange` then gives lines their meaning: newlines inside brackets vanish, a
deeper line continues the statement, NEWLINE ends every statement (a `;` becomes one), and what follows a `:` outside
brackets is enclosed in INDENT and DEDENT, on the same line or below.  These three have no width and stand at the end of
the token before, so that spans end where the text ends.  A mistake becomes an ERROR token carrying its diagnostic;
nothing raises.
"""
from __future__ import annotations

import re
from functools import cache

from dsl.errors import TAB_WIDTH, Diagnostic, Source, Span
from dsl.syntax import messages
from dsl.syntax.table import load_table

RESERVED = frozenset("and or not if then else with for in while true false".split())
MAXIMUM_TOKENS = 1_000_000
MAXIMUM_CHARACTERS = 16 * 2**20
MAXIMUM_BRACKETS = 100
MAXIMUM_BLOCKS = 100
MAXIMUM_TEXT = 65_536                   # characters of a literal text
MAXIMUM_WORD = 1_000                    # characters of a name or number

# Words that may begin a statement, and those that may only begin a clause of `train`.
CLAUSE_WORDS = frozenset("every valid stop clip checkpoint log".split())
STATEMENT_WORDS = CLAUSE_WORDS | frozenset(
    "precision seed device import use dim scalar vector matrix tensor bool int int64 int32 float float64 float32 data "
    "shared let model cost metric grad hess jac update minimize step train fit def return optimizer slot print show "
    "plot save load assert test gradcheck".split())
BLOCK_WORDS = frozenset("train every step test def optimizer".split())
_BINDERS = frozenset("update let model cost metric data shared grad hess jac dim slot".split())
_OPENERS = {"(": ")", "[": "]", "{": "}"}      # braces mean nothing, but they do enclose
_CLOSERS = {")": "(", "]": "["}


class Token:
    """A token: `type` is a terminal of the grammar, WORD (a name or keyword, not yet told apart), or ERROR.

    `extra` is an ERROR's diagnostic, or a NEWLINE's `#>` comments.  `first` marks the first token of a line, `depth` is
    the number of brackets open before it."""

    __slots__ = ("depth", "end", "extra", "first", "start", "text", "type")

    def __init__(self, type: str, text: str, start: int, end: int, extra: Diagnostic | Span | None = None) -> None:
        self.type = type
        self.text = text
        self.start = start
        self.end = end
        self.extra = extra
        self.first = False
        self.depth = 0

    def __repr__(self) -> str:
        return f"{self.type}({self.text!r})"


@cache
def _master() -> re.Pattern[str]:
    """One pattern for all tokens; operators longest first, those of other languages among them."""
    table = load_table()
    marks = sorted({*table.marks, *messages.FOREIGN_OPERATORS}, key=len, reverse=True)
    return re.compile(
        rf"[ \t]*(?:(?P<WORD>{table.patterns['NAME']})|(?P<NUMBER>{table.patterns['NUMBER']})"
        rf"|(?P<MARK>{'|'.join(map(re.escape, marks))})|(?P<BREAK>\r?\n)|(?P<COMMENT>\#[^\n]*)"
        rf"|(?P<STRING>{table.patterns['STRING']})|(?P<SEMICOLON>;)|(?P<BAD>[^ \t])|(?P<END>\Z))")


def scan(source: Source) -> list[Token]:
    """The raw tokens, BREAK, COMMENT and SEMICOLON among them, ending in END."""
    text = source.text
    marks = load_table().marks
    match = _master().match
    position = 1 if text.startswith("\ufeff") else 0
    tokens: list[Token] = []
    while True:
        found = match(text, position)
        assert found is not None and found.lastgroup is not None
        kind = found.lastgroup
        start, position = found.span(kind)
        word = text[start:position]
        token = Token(kind, word, start, position)
        if kind == "WORD":
            if not word.isascii() or position - start > MAXIMUM_WORD:
                token = _unusual_word(source, token)
        elif kind == "MARK":
            if word in marks:
                token.type = marks[word]
            else:
                token = _error(token, messages.foreign_operator(source, start, position))
        elif kind == "NUMBER":
            token = _number(source, token)
            position = token.end
        elif kind == "STRING":
            token = _text(source, token)
        elif kind == "BAD":
            if word == '"':
                stop = text.find("\n", start)
                token.end = position = len(text) if stop < 0 else stop
                token = _error(token, messages.unterminated_text(Span(source, start, position)))
                token.text = '"'
            else:
                token = _error(token, messages.bad_character(source, start))
        tokens.append(token)
        if kind == "END":
            return tokens
        if len(tokens) > MAXIMUM_TOKENS:
            tokens.append(Token("END", "", position, position))
            return tokens


def _error(token: Token, diagnostic: Diagnostic) -> Token:
    return Token("ERROR", token.text, token.start, token.end, diagnostic)


def _unusual_word(source: Source, token: Token) -> Token:
    if token.end - token.start > MAXIMUM_WORD:
        return _error(token, messages.too_long(Span(source, token.start, token.end), "name", MAXIMUM_WORD))
    from unicodedata import normalize
    # Compatibility forms look alike and are typed by chance: the micro sign is Greek mu.
    for offset, character in enumerate(token.text):
        if not ("x" + character).isidentifier():
            return _error(token, messages.bad_character(source, token.start + offset))
    name = normalize("NFKC", token.text)
    if not name.isidentifier():
        return _error(token, messages.bad_character(source, token.start))
    return Token("WORD", name, token.start, token.end)


_NUMBER_TAIL = re.compile(r"[\w.]*(?:(?<=[eE])[+-]\w*)?")


def _number(source: Source, token: Token) -> Token:
    tail = _NUMBER_TAIL.match(source.text, token.end)
    if tail and tail.end() > token.end and not tail.group().startswith(".."):
        whole = Token("NUMBER", source.text[token.start:tail.end()], token.start, tail.end())
        return _error(whole, messages.malformed_number(Span(source, whole.start, whole.end), token.end - token.start))
    span = Span(source, token.start, token.end)
    if token.end - token.start > MAXIMUM_WORD:
        return _error(token, messages.too_long(span, "number", MAXIMUM_WORD))
    if token.text.isdigit():
        # 2**63 itself stays: as `-9223372036854775808` it is the least int64, which the tree builder sees to.
        if len(token.text.lstrip("0")) > 19 or int(token.text) > 2**63:
            return _error(token, messages.integer_too_large(span))
    elif float(token.text) == float("inf"):
        return _error(token, messages.float_too_large(span))
    return token


_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}


def _text(source: Source, token: Token) -> Token:
    """Checks the escapes; `token.text` becomes the value."""
    if token.end - token.start > MAXIMUM_TEXT:
        return _error(token, messages.too_long(Span(source, token.start, token.end), "text", MAXIMUM_TEXT))
    for escape in _ESCAPE.finditer(token.text):
        if escape.group(1) not in _ESCAPES:
            at = token.start + escape.start()
            return _error(token, messages.bad_escape(Span(source, at, at + 2)))
    token.text = _ESCAPE.sub(lambda escape: _ESCAPES[escape.group(1)], token.text[1:-1])
    return token


# ---------------------------------------------------------------- layout
class Layout:
    """The state of one pass over the raw tokens."""

    def __init__(self, source: Source, statements: bool = True) -> None:
        self.source = source
        self.statements = statements                # or one expression?
        self.raw = scan(source)
        self.out: list[Token] = []
        self.brackets: list[Token] = []
        self.blocks: list[tuple[int, bool]] = []    # column, and whether the block stands on its header's line
        self.column = 0                             # where the current statement's first line begins
        self.opening = 0                            # where in `out` the current statement begins
        self.begun = False                          # does the current statement have a token?
        self.header: Token | None = None            # the `:` that waits for its block
        self.previous_end = 0
        self.expected: Span | None = None           # the `#>` comment on a line of the current statement
        self.in_block = False                       # does the text end inside an indented block?
        self.diagnostics: list[Diagnostic] = []     # mistakes that spoil no statement

    def run(self) -> list[Token]:
        fresh, line_start = True, 0
        for index, token in enumerate(self.raw):
            kind = token.type
            if kind == "BREAK":
                fresh, line_start = True, token.end
                if not self.begun:
                    self.expected = None
                continue
            if kind == "COMMENT":
                if token.text.startswith("#>") and not fresh:
                    start = token.start + 2
                    self.expected = Span(self.source, start, token.end) if self.expected is None else self.expected
                continue
            if kind == "END":
                break
            if fresh:
                token.first = True
                fresh = False
                self._line(index, token, line_start)
            self._token(token)
        self._finish(self.raw[-1])
        return self.out

    # A statement's end, and the ends of the blocks that end with it.
    def _emit(self, type: str, extra: Span | None = None) -> None:
        self.out.append(Token(type, "", self.previous_end, self.previous_end, extra))

    def _mistake(self, diagnostic: Diagnostic, at: Token) -> None:
        self.out.append(Token("ERROR", at.text, at.start, at.end, diagnostic))
        self.begun = True

    def _end_statement(self) -> None:
        if self.header is not None:
            self._mistake(messages.empty_block(self.source, self.header.start), self.header)
            self.header = None
        if self.begun:
            self._emit("NEWLINE", self.expected)
        self.begun = False
        self.expected = None

    def _close_block(self) -> None:
        self.blocks.pop()
        self._emit("DEDENT")
        self._emit("NEWLINE")

    def _line(self, index: int, token: Token, line_start: int) -> None:
        """The first token of a line: does it continue, end, or open something?"""
        column = self._indentation(token, line_start)
        if self.brackets:
            if column > self.column or not begins_statement(token, self.raw[index + 1]):
                return
            self._unclosed(token)
        if not self.blocks:
            self.blocks.append((column, False))
            self.column = column
            return
        if column > self.column:
            if self.header is not None:
                self._open_block(column, False)
            return
        self._end_statement()
        while len(self.blocks) > 1 and (self.blocks[-1][1] or column < self.blocks[-1][0]):
            if not self.blocks[-1][1] and column > self.blocks[-2][0]:
                break
            self._close_block()
        self.column, inline = self.blocks[-1]
        if column != self.column:
            # Reported once: the lines that follow will agree with this one.
            self.blocks[-1] = (column, inline)
            self.column = column
            self.diagnostics.append(messages.no_such_indentation(self.source, token.start, token.end))

    def _indentation(self, token: Token, line_start: int) -> int:
        text = self.source.text
        if line_start == 0 and text.startswith("\ufeff"):
            line_start = 1
        indentation = text[line_start:token.start]
        if "\t" not in indentation:
            return token.start - line_start
        if not self.diagnostics and not self.brackets:          # once a file: whoever uses tabs uses them on every line
            self.diagnostics.append(messages.tab_indentation(Span(self.source, line_start, token.start)))
        return len(indentation.expandtabs(TAB_WIDTH))

    def _open_block(self, column: int, inline: bool) -> None:
        assert self.header is not None
        if len(self.blocks) > MAXIMUM_BLOCKS:
            span = Span(self.source, self.header.start, self.header.end)
            self._mistake(messages.too_deep(span, MAXIMUM_BLOCKS), self.header)
            self.header = None
            return
        self.header = None
        self._emit("INDENT")
        self.blocks.append((column, inline))
        self.column = column if not inline else self.column
        self.begun = False

    def _token(self, token: Token) -> None:
        kind = token.type
        if kind == "SEMICOLON" and not self.brackets:
            self._end_statement()
            return
        if self.header is not None and not token.first:
            self._open_block(self.column, True)
        if not self.begun:
            self.opening = len(self.out)
            self.begun = True
        token.depth = len(self.brackets)
        if kind in ("LPAR", "LSQB"):
            self.brackets.append(token)
            if len(self.brackets) == MAXIMUM_BRACKETS + 1:
                self._mistake(messages.too_deep(Span(self.source, token.start, token.end), MAXIMUM_BRACKETS), token)
        elif kind in ("RPAR", "RSQB"):
            self._closer(token)
        elif kind == "SEMICOLON":
            token = Token("ERROR", ";", token.start, token.end, messages.semicolon_in_brackets(
                self.source, token.start, self.brackets[-1].start))
        elif kind == "COLON" and not self.brackets:
            self.header = token
        elif kind == "ARROW" and not self._arrow():
            token = self._split(token, "LESS", "MINUS")
        elif kind == "MORE_EQUAL" and self._in_constraints():
            token = self._split(token, "MORE", "EQUAL")
        elif kind == "ERROR" and token.text == '"':
            self.brackets.clear()                   # the closing brackets are most likely inside the text
        elif kind == "ERROR" and token.text == "{":
            self.brackets.append(token)
        elif kind == "ERROR" and token.text == "}" and self.brackets and self.brackets[-1].text == "{":
            self.brackets.pop()
        self.out.append(token)
        self.previous_end = token.end

    def _split(self, token: Token, first: str, second: str) -> Token:
        middle = token.start + 1
        left, right = Token(first, token.text[0], token.start, middle), Token(second, token.text[1], middle, token.end)
        left.first, left.depth, right.depth = token.first, token.depth, token.depth
        self.out.append(left)
        return right

    def _arrow(self) -> bool:
        """Is `<-` an arrow, as in `update w <- 1`, and not a comparison with a negative number, as in `print w<-1`?"""
        count = len(self.out) - self.opening
        if self.brackets or not self.statements or count < 2:
            return self.statements and not self.brackets and count == 1
        first, before, target = self.out[self.opening], self.out[-2], self.out[-1]
        binds = before.text in _BINDERS or (first.text in _BINDERS and before.type == "COMMA")
        return binds and target.type == "WORD"

    def _in_constraints(self) -> bool:
        """Is this the `>=` of `shared s<lower=0>= 1`, the end of constraints and a value's `=`?"""
        for index in range(len(self.out) - 1, max(self.opening, len(self.out) - 100), -1):
            kind = self.out[index].type
            if kind == "LESS":
                name, before = self.out[index - 1], self.out[index - 2]
                return (self.out[self.opening].text == "shared" and name.type == "WORD"
                        and before.type in ("WORD", "COMMA"))
            if kind == "MORE":
                return False
        return False

    def _closer(self, token: Token) -> None:
        opener = _CLOSERS[token.text]
        if not self.brackets:
            self._mistake(messages.stray_closer(self.source, token.start), token)
        elif self.brackets[-1].text == opener:
            self.brackets.pop()
        else:
            last = self.brackets[-1]
            self._mistake(messages.mismatched_closer(self.source, token.start, last.start, _OPENERS[last.text]), token)
            while self.brackets and self.brackets[-1].text != opener:
                self.brackets.pop()
            if self.brackets:
                self.brackets.pop()

    def _unclosed(self, at: Token) -> None:
        opener = self.brackets[-1]
        self._mistake(messages.unclosed(self.source, opener.start, _OPENERS[opener.text]), at)
        self.brackets.clear()

    def _finish(self, end: Token) -> None:
        if self.brackets:
            self._unclosed(end)
        self._end_statement()
        self.in_block = any(not inline for _, inline in self.blocks[1:])
        while len(self.blocks) > 1:
            self._close_block()
        self.out.append(Token("$END", "", self.previous_end, self.previous_end))


def begins_statement(word: Token, after: Token) -> bool:
    """Inside brackets: two words side by side, the first a statement's, are no expression."""
    return (word.type == "WORD" and word.text in STATEMENT_WORDS
            and (after.type in ("NUMBER", "STRING")
                 or (after.type == "WORD" and after.text not in RESERVED and after.text != "max")))


def arrange(source: Source, statements: bool = True) -> tuple[list[Token], list[Diagnostic]]:
    """The tokens of a source for the parser, ending in `$END`, and the mistakes that stand in no token."""
    if len(source.text) > MAXIMUM_CHARACTERS:
        return [Token("$END", "", 0, 0)], [messages.too_large(source, "16 MB")]
    layout = Layout(source, statements)
    if len(layout.raw) > MAXIMUM_TOKENS:
        return [Token("$END", "", 0, 0)], [messages.too_large(source, "a million words and signs")]
    return layout.run(), layout.diagnostics
