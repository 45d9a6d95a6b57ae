"""Putting a parser's refusal into words: in comes the parser at a token it cannot read, out goes a diagnostic.

What the parser could have read there is known exactly (`expected`), and so are the words of the statement so far.
The checks stand in the order of how much they know: those that recognise a habit of another language or a slip first,
then what is missing, at last "expected this, found that".  A check that has nothing to say returns None.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from dsl.errors import Diagnostic, Label, Source, Span, did_you_mean
from dsl.ops.functions import FUNCTIONS
from dsl.syntax.layout import BLOCK_WORDS, RESERVED, STATEMENT_WORDS, Token
from dsl.syntax.messages import FOREIGN_STATEMENTS, FORMS, TRAIN_OPTIONS
from dsl.syntax.table import Table


class Reader(Protocol):
    """What is asked of the parser (see `lalr.Parser`)."""

    source: Source
    start: str
    tokens: list[Token]
    position: int
    table: Table

    def statement_start(self) -> int: ...

    def before(self) -> Reader: ...

    def expected(self) -> frozenset[str]: ...


_OPERANDS = frozenset(("WORD", "NUMBER", "STRING"))
_DTYPES = ("bool", "int", "int32", "int64", "float", "float32", "float64")
_KINDS = ("scalar", "vector", "matrix", "tensor")
_CLOSING = frozenset(("NEWLINE", "RPAR", "RSQB", "COLON", "COMMA", "EQUAL", "$END"))
_SCAN_LIMIT = 10_000                    # tokens looked at beyond the mistake


def explain(parser: Reader) -> tuple[Diagnostic, int | None]:
    """The diagnostic, and where a statement begins at which to go on (None: behind the one that is broken)."""
    failure = _Failure(parser)
    for check in _CHECKS if parser.start == "script" else (_no_expression, *_CHECKS[_STATEMENT_CHECKS:]):
        if (found := check(failure)) is not None:
            return found, failure.resume
    raise AssertionError("the last check always speaks")


class _Failure:
    """The place of a refusal: `token` is refused, `previous` was read last, `first` begins the statement."""

    def __init__(self, parser: Reader) -> None:
        self.parser, self.source, self.tokens = parser, parser.source, parser.tokens
        self.index = parser.position
        self.token = parser.tokens[self.index]
        self.start = parser.statement_start()
        self.at_start = self.index == self.start
        self.first = parser.tokens[self.start]
        self.previous = None if self.at_start else parser.tokens[self.index - 1]
        self.following = parser.tokens[min(self.index + 1, len(parser.tokens) - 1)]
        self.expected = parser.before().expected()
        self.wants_expression = "NUMBER" in self.expected
        self.wants_name = "NAME" in self.expected and not self.wants_expression
        self.after_operand = "PLUS" in self.expected and not self.wants_expression
        self.complete = "NEWLINE" in self.expected
        self.ends = self.token.type in ("NEWLINE", "$END")
        self.resume: int | None = None

    def span(self, token: Token) -> Span:
        return Span(self.source, token.start, token.end)

    def here(self) -> Span:
        """The refused token, or the last character read where nothing follows."""
        if self.token.type in ("NEWLINE", "$END", "INDENT", "DEDENT") and self.previous is not None:
            return self.span(self.previous)
        return self.span(self.token)

    def say(self, code: str, message: str, span: Span | None = None, label: str = "", *labels: Label,
            help: str | None = None) -> Diagnostic:
        return Diagnostic(code, message, Label(span or self.here(), label), labels, help=help)

    def found(self, token: Token | None = None) -> str:
        token = token or self.token
        if token.type in ("NEWLINE", "$END", "INDENT", "DEDENT"):
            return "the end of the statement"
        text = self.source.text[token.start:token.end]
        return f"`{text if len(text) <= 40 else text[:37] + '…'}`"

    def missing(self, word: str) -> str:
        return f"`{word}` is missing {'after' if self.ends else 'before'} this"

    def after(self) -> str:
        return f" after {self.found(self.previous)}" if self.previous else ""

    def form(self) -> str | None:
        form = FORMS.get(self.first.text)
        return f"write it like `{form}`" if form else None

    def clauses(self) -> list[str]:
        """The words that could stand here, operators left out."""
        return sorted(word for word, symbol in self.parser.table.words.items()
                      if symbol in self.expected and word not in ("and", "or", "with", "not", "if"))

    def backwards(self) -> Iterator[Token]:
        """The statement's tokens before the refused one, in the same brackets, last first."""
        for index in range(self.index - 1, self.start - 1, -1):
            token = self.tokens[index]
            if token.depth == self.token.depth and token.type not in ("LPAR", "LSQB"):
                yield token
            elif token.depth < self.token.depth:
                return


# ---------------------------------------------------------------- layout
def _unclosed(f: _Failure) -> Diagnostic | None:
    if not f.token.depth or not (f.token.first or f.token.type in ("COLON", "EQUAL")):
        return None
    for token in f.tokens[f.index:f.index + _SCAN_LIMIT]:
        if token.type in ("NEWLINE", "$END"):
            break
        if isinstance(token.extra, Diagnostic) and token.extra.code == "E0101":
            return token.extra
    return None


def _deeper_line(f: _Failure) -> Diagnostic | None:
    for index in (f.index, f.index - 1):
        token = f.tokens[index]
        if index <= f.start or not token.first or token.depth or token.type != "WORD":
            continue
        begins = token.text in STATEMENT_WORDS
        if index < f.index and not (begins and f.token.type in _OPERANDS):
            continue
        if not begins and not f.complete:
            continue
        span = f.span(token)
        above = Label(f.span(f.first), "this statement goes on below, as long as lines are indented deeper")
        if index == f.index and "COLON" in f.expected and f.first.text in BLOCK_WORDS:
            return f.say("E0103", f"the `{f.first.text}` above opens no block", span, "this is indented deeper", above,
                         help="end the line above with `:`")
        if begins:
            f.resume = None if f.first.text in BLOCK_WORDS else index
            message = f"`{token.text}` begins a statement, but its line is indented deeper"
        else:
            message = f"this line is indented deeper, so it continues the `{f.first.text}` above"
        return f.say("E0103", message, span, "", above, help="begin it in the same column as the statement above")
    return None


def _two_statements(f: _Failure) -> Diagnostic | None:
    token = f.token
    if f.complete and f.index > f.start + 1 and token.type == "WORD" and token.text in STATEMENT_WORDS and not token.first \
            and f.following.type in (*_OPERANDS, "LPAR", "ERROR"):
        f.resume = f.index
        return f.say("E0108", "two statements on one line", f.span(token), "a second one begins here",
                     help=f"put `{token.text}` on its own line, or `;` before it")
    return None


# ---------------------------------------------------------------- words of other languages, unknown words
def _foreign_statement(f: _Failure) -> Diagnostic | None:
    word = f.first.text if f.first.type == "WORD" else ""
    if f.at_start and f.token.type in ("FLOOR", "SLASH", "PERCENT"):
        return f.say("E0121", f"{f.found()} divides", help="a comment begins with `#`")
    if f.at_start and f.token.type == "AT":
        return f.say("E0121", "there are no decorators", help="delete it: what a script runs is compiled as it is")
    place = f.start if word in RESERVED else f.start + 1
    begins = f.index == place and (word in RESERVED or f.token.type in (*_OPERANDS, "COLON"))
    if not begins and (word != "if" or f.token.type != "COLON"):
        return None
    help = FOREIGN_STATEMENTS.get(word)
    if word == "import":
        return f.say("E0121", "`import` reads a script: its path is a text", help=help)
    return f.say("E0121", f"there is no `{word}` statement", f.span(f.first), help=help) if help else None


def _no_expression(f: _Failure) -> Diagnostic | None:
    if f.index == f.start + 1 and f.first.text in STATEMENT_WORDS and f.token.type in _OPERANDS:
        return f.say("E0149", f"an expression is expected here, not a `{f.first.text}` statement", f.span(f.first))
    if f.at_start and f.ends:
        return f.say("E0127", "an expression is missing")
    if f.at_start and f.index > 0:
        return f.say("E0149", "a second expression begins here", help="only one can stand here")
    return None


def _unknown_statement(f: _Failure) -> Diagnostic | None:
    if f.index != f.start + 1 or f.first.type != "WORD" or f.token.type not in _OPERANDS or f.token.text in RESERVED:
        return None
    word = f.first.text
    if word in STATEMENT_WORDS:
        return None
    if f.token.text in _KINDS:
        return f.say("E0120", f"there is no dtype `{word}`", f.span(f.first),
                     help=f"the dtypes are {', '.join(f'`{dtype}`' for dtype in _DTYPES)}")
    near = did_you_mean(word, sorted(STATEMENT_WORDS))
    help = "a statement begins with a keyword such as `let`, `shared`, `model`, `train`, `print`"
    help = f"did you mean `{near}`?" if near else help
    return f.say("E0120", f"no statement begins with `{word}`", f.span(f.first), help=help)


def _foreign_expression(f: _Failure) -> Diagnostic | None:
    token, previous = f.token, f.previous
    if previous is None:
        return None
    if previous.type == "WORD" and previous.text == "lambda" and token.type in ("WORD", "COLON"):
        return f.say("E0121", "there is no `lambda`", f.span(previous), help="give the function a name: `def f(x) = …`")
    if f.after_operand and token.text == "if":
        return f.say("E0121", "`if` stands before both values", help="write `if condition then a else b`")
    if f.after_operand and token.text == "is":
        return f.say("E0121", "there is no `is`", help="to compare, write `==`; for nan, `isnan(x)`")
    if f.after_operand and token.text == "in":
        return f.say("E0121", "`in` is no operator", help="to compare with several values, write `x == a or x == b`; "
                     "a loop is `scan(v = v0 for t in ts: expr)`")
    if f.wants_expression and token.type == "WORD" and token.text in ("if", "not") and previous.type != "NEWLINE":
        return f.say("E0127", f"`{token.text}` needs parentheses after {f.found(previous)}",
                     help="write `(if c then a else b)`" if token.text == "if" else "write `(not a)`")
    return None


def _loops(f: _Failure) -> Diagnostic | None:
    word = f.token.text if f.token.type == "WORD" else ""
    if word == "for" and f.first.text == "train" and f.index == f.start + 1:
        return f.say("E0121", "`train` is followed by how long", help=f.form())
    if word in ("for", "while") and not f.at_start and "FOR" not in f.expected:
        form = "iterate(v = v0 while condition max 100: expr)" if word == "while" else "scan(v = v0 for t in ts: expr)"
        kinds = "`iterate(…)`" if word == "while" else "`scan(…)` and `fold(…)`"
        return f.say("E0138", f"`{word}` belongs inside {kinds}, after the start value", help=f"write `{form}`")
    if "MAX" in f.expected:
        return f.say("E0138", "`iterate` needs the greatest number of turns", label="`max` is missing before this",
                     help="write `iterate(v = v0 while condition max 100: expr)`")
    if f.token.depth and "COLON" in f.expected and any(t.text == "in" for t in f.backwards()):
        return f.say("E0138", "a loop needs `:` and the next state", label="`:` is missing before this",
                     help="write `scan(v = v0 for t in ts: expr)`")
    return None


def _misspelt_clause(f: _Failure) -> Diagnostic | None:
    if f.token.type != "WORD" or f.wants_expression or f.wants_name or f.at_start:
        return None
    near = did_you_mean(f.token.text, f.clauses())
    if near is None:
        return None
    if near in ("epochs", "steps"):
        return f.say("E0133", f"the unit is written `{near}`", help=f"write `{near}`, also after 1")
    return f.say("E0120", f"unknown word `{f.token.text}`", help=f"did you mean `{near}`?")


# ---------------------------------------------------------------- signs mixed up
def _signs(f: _Failure) -> Diagnostic | None:
    kind, previous = f.token.type, f.previous
    if kind in ("EQUAL", "EQUAL_EQUAL") and "ARROW" in f.expected:
        name = previous.text if previous else "w"
        return f.say("E0123", "`update` is written with `<-`", help=f"write `update {name} <- …`")
    if kind == "ARROW" and "EQUAL" in f.expected:
        return f.say("E0124", f"`{f.first.text}` is written with `=`", help="`<-` stands only in `update w <- …`")
    if kind == "EQUAL_EQUAL" and "EQUAL" in f.expected and not f.after_operand:
        return f.say("E0125", f"`{f.first.text}` is written with `=`", label="`==` compares", help="write `=`")
    if kind == "EQUAL" and f.after_operand and previous is not None and "WRT" not in f.expected:
        return f.say("E0125", "`=` stands where an expression goes on", help="to compare, write `==`")
    return None


# ---------------------------------------------------------------- names
def _reserved(f: _Failure) -> Diagnostic | None:
    if f.wants_name and not f.at_start and f.token.type == "WORD" and f.token.text in RESERVED:
        return f.say("E0129", f"`{f.token.text}` is a reserved word", label="not free as a name",
                     help="choose another name")
    return None


def _names(f: _Failure) -> Diagnostic | None:
    token, previous = f.token, f.previous
    if token.type in ("DOT", "LSQB", "LPAR") and not f.after_operand and previous is not None \
            and previous.type == "WORD" and not f.expected & {"LSQB", "LPAR"} and f.expected & {"EQUAL", "ARROW"}:
        help = f.form()
        if token.type == "LSQB":
            help = "arrays are never changed in place; `where(condition, a, b)` and `concat` make new ones"
        elif token.type == "LPAR" and f.first.text in ("let", "model") and f.index == f.start + 2:
            help = (f"a function is `def {previous.text}(x) = …`; an expression of inputs needs no brackets: "
                    f"`{f.first.text} {previous.text} = …`")
        return f.say("E0130", "only a plain name can stand here", help=help)
    if not f.wants_name or previous is None or "STRING" in f.expected:
        return None
    if (wrong := _with_list(f)) is not None:
        return wrong
    if previous.type == "COMMA":
        help = "delete the comma, or write the next name"
        if token.type in _CLOSING:
            return f.say("E0134", "nothing follows this `,`", f.span(previous), help=help)
        return f.say("E0134", f"a name is missing before {f.found()}", help=help)
    if previous.type == "WORD" and previous.text in ("wrt", "of", "except"):
        form: str | None = f"`{previous.text}` takes names; bind an expression by `let` first"
    elif previous.text in ("over", "valid", "with"):
        form = f"say which input it is for: `{previous.text} X = {f.found().strip('`') if token.type == 'WORD' else '…'}`"
    elif token.type in ("LPAR", "LSQB"):
        form = "names stand without brackets: `let a, b = …`"
    elif previous.type == "DOT":
        form = "a `.` is followed by `T`, a column of a table, or a name of an imported script"
    else:
        form = f.form()
    message = f"{f.found()} is no name" if token.type in ("NUMBER", "STRING") else f"a name is missing{f.after()}"
    return f.say("E0130", message, help=form)


def _with_list(f: _Failure) -> Diagnostic | None:
    """`with` takes all that follows a comma."""
    item = f.previous is not None and f.previous.type == "COMMA" and f.wants_name and f.token.type not in _CLOSING
    if not item and f.expected != {"EQUAL"}:
        return None
    before = list(f.backwards())
    comma = next((t for t in before[:2] if t.type == "COMMA"), None)
    opener = next((t for t in before if t.type == "WORD" and t.text in ("with", "over", "valid")), None)
    if comma is None or opener is None or opener.text != "with":
        return None
    place = f.here() if item or f.previous is None else f.span(f.previous)
    return f.say("E0136", "after `with`, every comma is followed by `name = value`", place, "",
                 Label(f.span(opener), "this `with` takes all that follows"),
                 help="put the `with` in parentheses: `(C with X = A), …`")


def _second_with(f: _Failure) -> Diagnostic | None:
    earlier = next((t for t in f.backwards() if t.text == "with"), None)
    if f.token.text == "with" and not f.token.depth and earlier is not None:
        return f.say("E0136", f"`{f.first.text}` takes one `with`", None, "", Label(f.span(earlier), "the first one"),
                     help="separate the inputs by commas: `with X = A, Y = B`")
    return None


# ---------------------------------------------------------------- what is missing
def _condition(f: _Failure) -> Diagnostic | None:
    for word, form in (("THEN", "then"), ("ELSE", "else")):
        if word in f.expected and f.after_operand:
            if f.token.text in ("elif", "elseif"):
                return f.say("E0131", f"there is no `{f.token.text}`", help="write `else if`")
            opener = next((t for t in f.backwards() if t.text == "if"), None)
            return f.say("E0131", f"this `if` has no `{form}`", f.span(opener) if opener else None, "",
                         Label(f.here(), f.missing(form)),
                         help="write `if condition then a else b`; there is always an `else`")
    return None


def _commas(f: _Failure) -> Diagnostic | None:
    previous = f.previous
    if previous is not None and previous.type == "COMMA" and f.token.type in _CLOSING:
        return f.say("E0134", "nothing follows this `,`", f.span(previous),
                     help="delete the comma, or write the next item")
    if f.token.type == "COMMA" and f.wants_expression:
        return f.say("E0134", "nothing stands before this `,`", help="delete the comma, or write the item before it")
    return None


def _expression(f: _Failure) -> Diagnostic | None:
    if not f.wants_expression or f.at_start or f.previous is None:
        return None
    if f.ends:
        form = f.form() if f.index == f.start + 1 else None
        return f.say("E0127", f"an expression is missing{f.after()}",
                     help=form or "write it here, or on the next line, indented deeper")
    if f.token.type == "WORD" and f.token.text in RESERVED:
        return f.say("E0127", f"an expression is missing before {f.found()}")
    return f.say("E0127", f"an expression is missing between {f.found(f.previous)} and {f.found()}")


def _units(f: _Failure) -> Diagnostic | None:
    if "EPOCHS" not in f.expected:
        return None
    return f.say("E0133", f"`epochs` or `steps` is missing{f.after()}", help=f.form())


def _clauses(f: _Failure) -> Diagnostic | None:
    word, expected = f.first.text, f.expected
    missing = None
    if "WRT" in expected:
        missing = "wrt"
    elif "USING" in expected and word in ("minimize", "fit"):
        missing = "using"
    elif word == "optimizer" and "FOR" in expected:
        missing = "for"
    elif word == "train" and "OVER" in expected and f.token.type == "WORD" and f.following.type == "EQUAL":
        missing = "over"
    elif "TO" in expected and f.token.type == "STRING":
        if f.previous is not None and f.previous.text in ("title", "to"):
            return f.say("E0134", f"`{f.previous.text}` stands without a comma before it", f.span(f.previous), help=f.form())
        missing = "to"
    elif len(expected) == 1 and (only := next(iter(expected))).lower() in f.parser.table.words:
        missing = only.lower()
    if missing is None:
        return None
    return f.say("E0132", f"`{word}` needs `{missing}`", label=f.missing(missing), help=f.form())


def _blocks(f: _Failure) -> Diagnostic | None:
    word = f.first.text
    if "COLON" in f.expected and word in BLOCK_WORDS and not f.token.depth:
        if word == "def" and f.ends:
            return f.say("E0140", "this function has no value",
                         help="write `= …`, or `:` and a block that ends in `return …`")
        if word == "train" and not (f.token.type == "WORD" and f.token.text in STATEMENT_WORDS):
            return None
        return f.say("E0105", f"`{word}` needs `:` and a block", label=f.missing(":"), help=f.form())
    return None


def _stray_colon(f: _Failure) -> Diagnostic | None:
    word = f.first.text
    if f.token.type == "COLON" and not f.token.depth:
        return f.say("E0149", f"`{word}` opens no block" if word in STATEMENT_WORDS else "no block can begin here",
                     help="`:` stands after `train …`, `every …`, `step …`, `test …`, `def …` and `optimizer …`")
    return None


def _values(f: _Failure) -> Diagnostic | None:
    if "EQUAL" not in f.expected or f.previous is None or f.after_operand:
        return None
    if (wrong := _with_list(f)) is not None:
        return wrong
    if f.token.type in ("NEWLINE", "$END", "COMMA", "RPAR"):
        before = list(f.backwards())
        name = next((t for t in before if t.type == "WORD"), f.previous)
        if name.text in TRAIN_OPTIONS and f.first.text == "train":
            return f.say("E0140", f"`{name.text}` stands without a comma before it", f.span(name), help=f.form())
        if len(before) > 1 and before[1].text in ("over", "with", "valid"):
            return f.say("E0140", f"`{name.text}` has no value", f.span(name),
                         help=f"write the input and its data: `{before[1].text} X = A`")
        return f.say("E0140", f"`{name.text}` has no value", f.span(name), help=f.form() or f"write `{name.text} = …`")
    return f.say("E0140", f"`=` is missing before {f.found()}", help=f.form())


def _texts(f: _Failure) -> Diagnostic | None:
    word = f.first.text
    if "STRING" in f.expected and not f.wants_expression and f.previous is not None:
        return f.say("E0142", f"{f.found(f.previous)} takes a text in double quotes", label="no text", help=f.form())
    if f.token.type in ("DOT", "SLASH") and word in ("load", "log", "checkpoint", "save", "plot"):
        return f.say("E0142", "a file's name is a text", help='put it in double quotes: "file.csv"')
    return None


def _side_by_side(f: _Failure) -> Diagnostic | None:
    if not f.after_operand or f.token.type not in _OPERANDS or f.previous is None or f.token.text in RESERVED:
        return None
    if f.token.type == "STRING" and f.previous.text in ("f", "r", "b") and f.previous.end == f.token.start:
        help: str | None = "values stand beside texts: `print \"x =\", x`"
    elif f.previous.text in FUNCTIONS and f.token.type in ("WORD", "NUMBER"):
        help = f"the arguments of a function stand in brackets: `{f.previous.text}({f.found().strip('`')})`"
    elif f.token.text in ("mod", "div", "rem"):
        help = "the remainder is `a % b`, division without it `a // b`"
    elif f.first.text in _KINDS and f.index == f.start + 4:
        help = f"the sizes stand behind the name: `{f.first.text} {f.token.text}[n]`"
    elif f.previous.type == "NUMBER" and f.token.type == "WORD":
        help = f"a product needs its sign: `{f.previous.text} * {f.token.text}`"
    elif f.index > f.start + 2 and f.tokens[f.index - 2].type == "FLOOR":
        help = "a comment begins with `#`; `//` divides"
    elif f.token.depth and f.token.type == "NUMBER" and f.previous.type == "WORD" and f.first.text in ("minimize", "fit"):
        help = f"an argument is given by `{f.previous.text} = {f.token.text}`"
    elif f.token.depth:
        help = "an operator or a comma is missing between them"
    else:
        help = "an operator is missing between them, or a new line"
    return f.say("E0128", "two values side by side", None, "", Label(f.span(f.previous), "the first one"), help=help)


def _kinds(f: _Failure) -> Diagnostic | None:
    if {"SCALAR", "VECTOR"} <= f.expected and f.previous is not None:
        dtype = f.previous.text
        return f.say("E0120", f"`{dtype}` is followed by the kind of input",
                     help=f"write `shared {dtype} k = 0`" if f.token.text == "shared" else
                     f"write `{dtype} scalar x` or `{dtype} vector v[n]`")
    if f.first.text in _KINDS and f.previous is not None and f.previous.text in _DTYPES and f.token.type == "WORD":
        return f.say("E0149", "the dtype stands before the kind of input", f.span(f.previous),
                     help=f"write `{f.previous.text} {f.first.text} {f.token.text}`")
    if f.token.type == "LPAR" and "LSQB" in f.expected and not f.after_operand:
        return f.say("E0149", "sizes stand in square brackets", help=f"write `{FORMS.get(f.first.text, 'vector v[n]')}`")
    return None


def _extra(f: _Failure) -> str | None:
    """What somebody meant who went on with a statement that was at its end."""
    word, kind = f.first.text, f.token.type
    if word in _KINDS and kind == "EQUAL":
        name = next((t.text for t in f.backwards() if t.type == "WORD"), "x")
        return f"an input gets its value later (`with`, `train … over`); a value that is there is `let {name} = …` or `data {name} = …`"
    if word in _KINDS and kind in ("LSQB", "NUMBER"):
        return f"sizes stand in one pair of brackets: `{FORMS[word]}`"
    if kind == "COMMA" and f.previous is not None and f.previous.type == f.following.type == "NUMBER" and len(f.following.text) == 3:
        return f"several values stand in brackets, `[1, 2]`; a number has no commas: `{f.previous.text}{f.following.text}`"
    return "several values stand in brackets, `[1, 2]`" if kind == "COMMA" and "EQUAL" not in f.expected else None


def _anything(f: _Failure) -> Diagnostic | None:
    if f.wants_expression:
        wanted = ["a statement" if f.at_start and f.parser.start == "script" else "an expression"]
    else:
        words = {symbol: text for text, symbol in [*f.parser.table.words.items(), *f.parser.table.marks.items()]}
        named = {"NAME": "a name", "STRING": "a text in double quotes", "NEWLINE": "the end of the statement"}
        pool = sorted(f.expected & _CLOSING if f.after_operand else f.expected - {"$END"})
        wanted = [named.get(symbol) or f"`{words.get(symbol, symbol.lower())}`" for symbol in pool][:5]
    if f.complete and f.token.type in ("EQUAL", "LSQB", "COMMA", "NUMBER") and (help := _extra(f)) is not None:
        return f.say("E0149", f"the statement could end before {f.found()}", label="this does not continue it", help=help)
    if f.complete and not f.wants_expression:
        help = f"what can follow: {', '.join(f'`{clause}`' for clause in f.clauses())}" if f.clauses() else None
        return f.say("E0149", f"the statement could end before {f.found()}", label="this does not continue it",
                     help=help)
    alternatives = " or ".join(wanted) if len(wanted) < 3 else ", ".join(wanted[:-1]) + " or " + wanted[-1]
    if not alternatives:
        return f.say("E0149", f"{f.found()} cannot stand here")
    return f.say("E0149", f"expected {alternatives}{f.after()}, found {f.found()}", help=f.form())


# The first of these speak about statements only.
_STATEMENT_CHECKS = 4
_CHECKS: tuple[Callable[[_Failure], Diagnostic | None], ...] = (
    _deeper_line, _two_statements, _foreign_statement, _unknown_statement,
    _unclosed, _reserved, _foreign_expression, _loops, _second_with, _signs, _names, _commas, _misspelt_clause,
    _condition, _expression, _units, _texts, _blocks, _clauses, _stray_colon, _kinds, _values, _side_by_side, _anything)
