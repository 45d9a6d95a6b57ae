"""Messages about characters, words, brackets and indentation: in comes a place, out goes the diagnostic.

What the parser cannot read is put into words by `explain.py`, what the tree builder rejects by `build.py`; the codes of
all three stand here.
"""
# Layout and brackets                              Statements and expressions
#   E0101 bracket never closed                       E0120 unknown statement keyword or clause
#   E0102 closing bracket without an opening one     E0121 a form of another language (for, while, lambda, …)
#   E0103 deeper line begins a statement             E0122 assignment without a keyword
#   E0104 tab in indentation                         E0123 `=` where `<-` belongs
#   E0105 nothing after `:`                          E0124 `<-` where `=` belongs
#   E0106 indentation of no open block               E0125 `=` and `==` mixed up
#   E0107 nested too deeply, chain too long          E0126 chained comparison
#   E0108 two statements on a line                   E0127 expression missing
#   E0109 source or literal too large                E0128 two values side by side
# Characters and words                               E0129 reserved word as a name
#   E0110 text never closed                          E0130 name missing
#   E0111 unknown escape in a text                   E0131 `then` or `else` missing
#   E0112 bad character                              E0132 clause missing (wrt, over, using, …)
#   E0113 malformed number                           E0133 `epochs` or `steps` missing
#   E0114 number out of range                        E0134 comma too many
#   E0115 operator of another language               E0135 given twice
#                                                    E0136 `with` needs parentheses, or stands twice
#   E0149 anything else                              E0137 statement of another block
#                                                    E0138 malformed loop (scan, fold, iterate)
#                                                    E0139 malformed argument
#                                                    E0140 value missing
#                                                    E0141 block without its `return`
#                                                    E0142 something else than a call, a text, … where one belongs
from __future__ import annotations

from dsl.errors import Diagnostic, Label, Source, Span

# Operators that people bring along: what to write instead, and a remark.
FOREIGN_OPERATORS: dict[str, tuple[str, str]] = {
    "^":   ("`**`", "`**` is the power: `x ** 2`"),
    "&&":  ("`and`", "write `a and b`"),
    "||":  ("`or`", "write `a or b`"),
    "!":   ("`not`", "write `not a`"),
    "&":   ("`and`", "`and` works element by element: `a and b`"),
    "|":   ("`or`", "`or` works element by element: `a or b`; the absolute value is `abs(x)`"),
    "~":   ("`not`", "`not` works element by element: `not a`"),
    ":=":  ("`=` or `<-`", "a name is bound by `let x = 1`, a shared variable changed by `update x <- x + 1`"),
    "+=":  ("`<-`", "a shared variable is changed by `update x <- x + 1`"),
    "-=":  ("`<-`", "a shared variable is changed by `update x <- x - 1`"),
    "*=":  ("`<-`", "a shared variable is changed by `update x <- x * 2`"),
    "/=":  ("`<-`", "a shared variable is changed by `update x <- x / 2`; not equal is `!=`"),
    "**=": ("`<-`", "a shared variable is changed by `update x <- x ** 2`"),
    "//=": ("`<-`", "a shared variable is changed by `update x <- x // 2`"),
    "%=":  ("`<-`", "a shared variable is changed by `update x <- x % 2`"),
    "@=":  ("`<-`", "a shared variable is changed by `update x <- x @ y`"),
    "->":  ("nothing", "`<-` stands in `update w <- w - 0.1 * gw`; a function is `def f(x) = x + 1`"),
    "=>":  ("`>=`", "greater or equal is `>=`; a function is `def f(x) = x + 1`"),
    "=<":  ("`<=`", "less or equal is `<=`"),
    "<>":  ("`!=`", "not equal is `!=`"),
    "===": ("`==`", "equal is `==`"),
    ".*":  ("`*`", "`*` works element by element; the matrix product is `@`"),
    "./":  ("`/`", "`/` works element by element"),
    ".^":  ("`**`", "`**` works element by element"),
    ".+":  ("`+`", "`+` works element by element"),
    ".-":  ("`-`", "`-` works element by element"),
}

# Characters that look like, or mean, something the language writes otherwise.
_LOOKALIKES = {
    "−": "-", "–": "-", "—": "-", "×": "*", "·": "*", "⋅": "*", "∗": "*", "÷": "/", "≤": "<=", "≥": ">=", "≠": "!=",
    "←": "<-", "→": "<-", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "‘": '"', "’": '"', "'": '"', "`": '"',
    "…": "...", "√": "sqrt(…)", "∑": "sum(…)", "∏": "prod(…)", "∂": "grad", "∇": "grad", "∞": "inf", "∧": "and",
    "∨": "or", "¬": "not", "（": "(", "）": ")", "，": ",", "：": ":", "；": ";", "＝": "=", "²": "** 2", "³": "** 3",
    "⊤": ".T", "ᵀ": ".T",
}

_CONTROLS = {"\r": "carriage return", "\0": "null character", "\f": "form feed", "\v": "vertical tab", "\x1b": "escape"}

# First words that other languages begin a statement with, and what stands for them here.
FOREIGN_STATEMENTS = {
    "import": 'another script is read by `import "nets.lr" as nets`; all built-in functions are there without import',
    "from": 'another script is read by `import "nets.lr" as nets`; all built-in functions are there without import',
    "for": "arrays are computed whole; a loop with a state is `scan(v = v0 for t in ts: expr)`",
    "while": "a loop up to a condition is `iterate(v = v0 while condition max 100: expr)`",
    "if": "a choice is an expression: `let y = if c then a else b`, or `where(c, a, b)` element by element",
    "class": "a function is `def f(x) = …`; parameters that learn are `shared w = 0.0`",
    **dict.fromkeys(("function", "func", "fn", "lambda"), "a function is `def f(x) = …`"),
    "var": "a name is bound by `let x = …`, state that changes by `shared w = …`",
    **dict.fromkeys(("val", "const", "auto"), "a name is bound by `let x = …`"),
    **dict.fromkeys(("try", "raise"), "there are no exceptions; `assert condition, \"why\"` checks a condition"),
    **dict.fromkeys(("loss", "objective"), "what is made small is `cost C = …`"),
    **dict.fromkeys(("input", "inputs", "placeholder", "feature"),
                    "inputs are `scalar x`, `vector v[n]`, `matrix X[n, d]` and `tensor T[n, h, w]`"),
    **dict.fromkeys(("real", "number", "double"), "a number that is given later is `scalar x`; state is `shared w = 0.0`"),
    "array": "an array that is given later is `vector v[n]` or `matrix X[n, d]`; a value that is there, `let a = [1, 2]`",
    **dict.fromkeys(("param", "params", "parameter", "parameters", "weight", "weights", "variable", "state"),
                    "what training changes is `shared w = 0.0`"),
    **dict.fromkeys(("set", "assign"), "a name is bound by `let x = …`; what is shared changes by `update w <- …`"),
    **dict.fromkeys(("gradient", "derivative", "diff"), "derivatives are `grad gw = C wrt w`"),
    "maximize": "write `cost C = -value`, and `minimize C wrt all using adam()`",
    **dict.fromkeys(("optimize", "optimise"), "write `minimize C wrt all using adam()`"),
    **dict.fromkeys(("learn", "run", "epochs"), "write `train 100 epochs over X = A, Y = B`"),
    **dict.fromkeys(("echo", "display", "disp", "puts", "printf", "write", "println"), "values are shown by `print x, y`"),
    "del": "names stay bound", "global": "every name of a script is visible below its line",
    **dict.fromkeys(("else", "elif"), "a choice is an expression: `if c then a else if d then b else e`"),
}
TRAIN_OPTIONS = {"batch": "batch 32", "drop_last": "drop_last", "shuffle": "shuffle", "of": "of critic, actor", "until": "until C < 0.1"}
"""What follows the data of a `train`, and may be taken for one more input."""
FORMS = {
    "assert": 'assert x > 0, "why"',           "minimize": "minimize C wrt all using adam(rate = 1e-3)",
    "checkpoint": 'checkpoint "m.safetensors" every 10 epochs', "model": "model Y = X * w",
    "clip": "clip norm 1",                     "metric": "metric acc = mean(Y == T)",
    "cost": "cost C = mean(sqr(Y_bar - Y))",   "optimizer": "optimizer mine(rate = 0.1) for p, g:",
    "data": 'data A = csv("A.csv")',           "plot": 'plot line(x, y) to "fit.png"',
    "def": "def f(x) = x + 1",                 "save": 'save Y to "Y.csv"',
    "device": "device cpu",                    "precision": "precision float32",
    "dim": "dim k = 10",                       "scalar": "scalar x",
    "every": "every 10 epochs: print C",       "shared": "shared w = 0.0",
    "fit": "fit C wrt all using lbfgs()",      "slot": "slot m = zeros_like(p)",
    "grad": "grad gw = C wrt w",               "step": "step critic:",
    "gradcheck": "gradcheck C wrt w",          "stop": "stop after 5 epochs without lower C",
    "hess": "hess H = C wrt w",                "tensor": "tensor T[n, h, w]",
    "import": 'import "nets.lr" as nets',      "test": 'test "name":',
    "jac": "jac J = f wrt x",                  "train": "train 100 epochs over X = A, Y = B",
    "let": "let a = 1",                        "update": "update w <- w - 0.1 * gw",
    "load": 'load "m.safetensors"',            "valid": "valid X = A, Y = B",
    "log": 'log "run.jsonl"',                  "vector": "vector v[n]",
    "matrix": "matrix X[n, d]",                "use": "use optim",
}


def _diagnostic(code: str, message: str, span: Span, label: str = "", *labels: Label,
                help: str | None = None) -> Diagnostic:
    return Diagnostic(code, message, Label(span, label), labels, help=help)


# ---------------------------------------------------------------- characters and words
def foreign_operator(source: Source, start: int, end: int) -> Diagnostic:
    text = source.text[start:end]
    instead, remark = FOREIGN_OPERATORS[text]
    label = "" if instead == "nothing" else f"{instead} is meant?"
    return _diagnostic("E0115", f"there is no operator `{text}`", Span(source, start, end), label, help=remark)


def bad_character(source: Source, at: int) -> Diagnostic:
    from unicodedata import category, name, normalize
    character = source.text[at]
    code, called = f"U+{ord(character):04X}", name(character, "").lower()
    visible = character.isprintable() and not category(character).startswith(("M", "Z", "C"))
    called = _CONTROLS.get(character, called or "a character without a name")
    message = f"`{character}` has no meaning here" if visible else f"invisible character: {called} ({code})"
    help = None
    if character in _LOOKALIKES:
        help = f"write `{_LOOKALIKES[character]}`"
        if character == "'":
            before = source.text[at - 1:at]
            transposed = (before.isalnum() or before in ("_", ")", "]")) and source.text.find("'", at + 1) < 0
            help = "the transposed matrix is `A.T`" if transposed else 'a text stands in double quotes: "…"'
    elif character in "{}":
        help = "a block is an indented part after a line that ends in `:`"
    elif character == "\\":
        help = "a line goes on when the next one is indented deeper, or inside brackets"
    elif character == "?":
        help = "a choice is `if condition then a else b`"
    elif character == "$":
        help = "names are made of letters, digits and `_`"
    elif category(character) in ("Zs", "Cf") or character == "\ufeff":
        help = "replace it by a plain space, or delete it"
    elif visible and normalize("NFKC", character).isdigit():
        help = f"names are made of letters, digits and `_`: write `{normalize('NFKC', character)}`"
    elif visible and not character.isascii():
        help = f"it is {called} ({code}); names are made of letters, digits and `_`"
    return _diagnostic("E0112", message, Span(source, at, at + 1), help=help)


def unterminated_text(span: Span) -> Diagnostic:
    return _diagnostic("E0110", "this text is never closed", span, 'no `"` before the end of the line',
                       help='close the text with `"` on the same line; a line break inside is written `\\n`')


def bad_escape(span: Span) -> Diagnostic:
    return _diagnostic("E0111", f"unknown escape `{span.text}` in a text", span,
                       help='the escapes are `\\n`, `\\t`, `\\"` and `\\\\`')


def malformed_number(span: Span, good: int) -> Diagnostic:
    text = span.text
    number, rest = text[:good], text[good:]
    if "_" in rest:
        plain = text.replace("_", "")
        help = f"write the digits without `_`: `{plain}`" if plain.replace(".", "", 1).isdigit() else None
    elif number == "0" and rest[0] in "xXbBoO":
        help = "numbers are written in decimal"
    elif rest[0] in "eE" and not rest[1:].isalnum():
        help = f"the exponent needs a digit: `{number}e3`"
    elif rest.isidentifier():
        help = f"a product needs its sign: `{number} * {rest}`"
    else:
        help = None
    return _diagnostic("E0113", f"`{_shortened(text)}` is no number", span, help=help)


def integer_too_large(span: Span) -> Diagnostic:
    return _diagnostic("E0114", "this integer does not fit int64", span, "greater than 9223372036854775807",
                       help=f"as a float it is `{_shortened(span.text)}.0`")


def float_too_large(span: Span) -> Diagnostic:
    return _diagnostic("E0114", "this number does not fit float64", span, "greater than 1.7976931348623157e308",
                       help="infinity is written `inf`")


def too_long(span: Span, what: str, limit: int) -> Diagnostic:
    shown = Span(span.source, span.start, min(span.end, span.start + 20))
    return _diagnostic("E0109", f"this {what} is longer than {limit} characters", shown)


def too_large(source: Source, limit: str) -> Diagnostic:
    return _diagnostic("E0109", f"this script is larger than {limit}", Span(source, 0, 0),
                       help='keep numbers in a file and read it: `data A = csv("A.csv")`')


def _shortened(text: str) -> str:
    return text if len(text) <= 30 else text[:27] + "…"


# ---------------------------------------------------------------- brackets and indentation
def unclosed(source: Source, opener: int, closer: str) -> Diagnostic:
    text = source.text[opener]
    return _diagnostic("E0101", f"`{text}` is never closed", Span(source, opener, opener + 1), "opened here",
                       help=f"add `{closer}` where the part inside ends")


def stray_closer(source: Source, at: int) -> Diagnostic:
    text = source.text[at]
    opener = "(" if text == ")" else "["
    return _diagnostic("E0102", f"`{text}` closes nothing", Span(source, at, at + 1), f"no `{opener}` is open here",
                       help=f"delete it, or add the missing `{opener}`")


def mismatched_closer(source: Source, at: int, opener: int, closer: str) -> Diagnostic:
    text, opened = source.text[at], source.text[opener]
    return _diagnostic("E0102", f"`{text}` cannot close `{opened}`", Span(source, at, at + 1),
                       f"`{closer}` is expected first",
                       Label(Span(source, opener, opener + 1), "opened here"), help=f"write `{closer}`")


def semicolon_in_brackets(source: Source, at: int, opener: int) -> Diagnostic:
    return _diagnostic("E0102", "`;` inside brackets", Span(source, at, at + 1), "`;` ends a statement",
                       Label(Span(source, opener, opener + 1), "opened here"),
                       help="separate items with `,`, or close the bracket before the `;`")


def tab_indentation(span: Span) -> Diagnostic:
    return _diagnostic("E0104", "tab in the indentation", span, "indent with spaces",
                       help="replace every tab at the beginning of a line by four spaces (`lr fmt` does it)")


def empty_block(source: Source, colon: int) -> Diagnostic:
    return _diagnostic("E0105", "nothing follows this `:`", Span(source, colon, colon + 1), "a block begins here",
                       help="write the block on the lines below, indented deeper, or a statement after the `:`")


def no_such_indentation(source: Source, start: int, end: int) -> Diagnostic:
    return _diagnostic("E0106", "this line is indented like no block above it", Span(source, start, end),
                       help="begin it in the same column as the other lines of its block")


def too_deep(span: Span, limit: int) -> Diagnostic:
    return _diagnostic("E0107", f"nested deeper than {limit} levels", span,
                       help="give inner parts a name: `let part = …`")


def chain_too_long(span: Span, limit: int) -> Diagnostic:
    return _diagnostic("E0107", f"more than {limit} operators in one expression", span,
                       help="give parts of it a name (`let part = …`), or use `sum([…])`")
