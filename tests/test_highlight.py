"""Highlighting: no valid script has an error token, the tokens give the text back, and words are what the parser takes them for."""
# ruff: noqa: E501  (tables: one case a line)

import importlib
import random
import re
import sys
from pathlib import Path

import pytest
from pygments.token import Comment, Error, Generic, Keyword, Name, Operator, String, Token

from dsl.errors import Source
from dsl.highlight import CONTINUATION, PROMPT, LrDark, LrEither, LrLexer, LrLight, LrTranscriptLexer
from dsl.repl import reader
from dsl.syntax.layout import scan
from dsl.syntax.parse import parse
from dsl.syntax.pieces import enclosing, keywords, pieces
from dsl.syntax.table import load_table

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted([*ROOT.glob("examples/*.lr"), *ROOT.glob("tests/good/*.lr")])
BAD = sorted(ROOT.glob("tests/bad/*.lr"))
LEXER = LrLexer(stripnl=False, ensurenl=False)


def kinds(text):
    return list(LEXER.get_tokens_unprocessed(text))


def coloured(text):
    return [(word, kind) for _, kind, word in kinds(text) if not word.isspace()]


def check(text):
    found = kinds(text)
    assert "".join(word for _, _, word in found) == text
    place = 0
    for offset, _, word in found:
        assert offset == place
        place += len(word)
    if not text.startswith("\ufeff"):                       # Pygments takes the mark away, and writes every line's end alike
        assert "".join(word for _, word in LEXER.get_tokens(text)) == text.replace("\r\n", "\n").replace("\r", "\n")
    return found


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_valid_scripts(path):
    text = path.read_text(encoding="utf-8-sig")
    found = check(text)
    assert not parse(Source(path.name, text))[1]
    assert not [word for _, kind, word in found if kind in Error]
    # What a statement by itself is taken for, it is taken for in the whole script.
    taken = keywords(text)
    for offset, kind, word in found:
        if offset in taken:
            assert taken[offset] == (kind in Keyword or kind in Operator.Word), (word, kind)


@pytest.mark.parametrize("path", BAD, ids=lambda p: p.name)
def test_broken_scripts(path):
    check(path.read_text(encoding="utf-8", errors="replace"))


def test_random_programs():
    import random_programs
    import wide_programs
    for seed in range(60):
        for text in (random_programs.generate(seed).source, wide_programs.generate(seed)[0].source):
            assert not [word for _, kind, word in check(text) if kind in Error]


def test_random_texts_come_back():
    """Whatever is typed: no exception, nothing lost; every prefix of a script too."""
    random_state = random.Random(7)
    words = [*load_table().words, *load_table().marks, ";", "\n", "\n  ", "x", "3", '"', '"s"', "# c", "#> 1", "\t", "$", "{", "^",
             "²", "\u200b", "\r\n", "\r", "\0", "é", "λ", ":help ", "?x", "\u2028", "\ufeff"]
    for _ in range(400):
        check(" ".join(random_state.choices(words, k=random_state.randint(1, 25))))
    text = (ROOT / "examples" / "softmax_classifier.lr").read_text()
    for end in range(0, len(text), 7):
        check(text[:end])


SAMPLES = [
    ("let test = 1", {"let": Keyword, "test": Name.Variable}),
    ("data A, B = split(t, test = 0.2)", {"data": Keyword, "B": Name.Variable, "split": Name.Builtin, "test": Name.Attribute}),
    ("let a = log(x) + t.cost", {"log": Name.Builtin, "cost": Name.Property}),
    ("train 10 epochs over X = A batch 32 shuffle", dict.fromkeys("train epochs over batch shuffle".split(), Keyword)),
    ("let batch = 3 + shuffle", {"batch": Name.Variable, "shuffle": Name}),
    ("let ε = α * 2", {"ε": Name.Variable, "α": Name}),
    ("int matrix X[n, 2*k], Y[m]", {"int": Keyword.Type, "matrix": Keyword.Declaration, "X": Name.Variable, "n": Name.Label, "k": Name.Label,
                                    "m": Name.Label, "Y": Name.Variable}),
    ("shared W[d, k] = 0.1 * normal(), b[k] = z[j]", {"W": Name.Variable, "d": Name.Label, "b": Name.Variable, "normal": Name.Builtin, "j": Name}),
    ("dim n, d = 3", {"n": Name.Label, "d": Name.Label}),
    ("def square(x, y = 1) = x * y", {"def": Keyword, "square": Name.Function, "y": Name}),
    ("minimize C wrt all using adam(rate = 1e-3)", {"minimize": Keyword, "wrt": Keyword, "all": Keyword, "using": Keyword, "adam": Name.Class,
                                                    "rate": Name.Attribute}),
    ("optimizer mine(rate = 0.1) for p, g, t:\n  slot m = zeros_like(p)\n  update p <- p - rate * g",
     {"optimizer": Keyword, "mine": Name.Class, "for": Keyword, "slot": Keyword, "update": Keyword, "<-": Operator, "m": Name.Variable}),
    ("train 5 epochs:\n  rate = cosine(1e-2, 1e-4)\n  stop after 3 epochs without lower C\n  every 2 epochs: print C",
     {"cosine": Name.Builtin, "stop": Keyword, "after": Keyword, "without": Keyword, "lower": Keyword, "every": Keyword, "print": Keyword}),
    ("plot line(x, y), hist(z, bins = 5) title \"a\" to \"b.png\"", {"line": Name.Builtin, "hist": Name.Builtin, "title": Keyword, "to": Keyword}),
    ("print if not a and true then 1 else nan", {"if": Keyword, "not": Operator.Word, "true": Keyword.Constant, "nan": Name.Constant}),
    ("let s = scan(v = 0.0 for t in ts: v + t)", {"scan": Name.Builtin, "v": Name, "for": Keyword, "in": Operator.Word}),
    ("let y = iterate(v = 1.0 while v < 9 max 5: v * 2)", {"iterate": Name.Builtin, "while": Keyword, "max": Keyword}),
    ("let m = max(x)", {"max": Name.Builtin}),
    ("print w, b  #> 2.0 1.0", {"#> 2.0 1.0": Comment.Special}),
    ("let a = 1 # note", {"# note": Comment.Single}),
    ('print "a\\nb"', {'"a': String.Double, "\\n": String.Escape, 'b"': String.Double}),
    ("let a = 1; let b = 2", {"b": Name.Variable}),
    ("let a = $", {"$": Error}),
    ("train 10 epo", {"train": Keyword, "epo": Name}),
    (":help softmax", {":help": Name.Decorator, "softmax": Name}),
    ("?softmax", {"?": Name.Decorator}),
    ("print \"a\u2028b\"", {'"a\u2028b"': String.Double}),
    ("assert (acc with X = A, y = u) > 0.5", {"X": Name, "y": Name, "with": Keyword}),
    ("let x = x[:, None]", {"None": Keyword.Constant}),
    ("import \"nets.lr\" as nets\nlet a = nets.layer(1)", {"import": Keyword, "as": Keyword, "layer": Name.Property}),
]


@pytest.mark.parametrize(("text", "wanted"), SAMPLES, ids=[text.split("\n")[0] for text, _ in SAMPLES])
def test_kinds(text, wanted):
    found = {}
    for word, kind in coloured(text):
        found.setdefault(word, kind)
    for word, kind in wanted.items():
        assert found[word] is kind or (kind in (Keyword, Operator) and found[word] in kind), (word, found[word])


def test_colours_do_not_change_while_a_statement_is_typed():
    """A finished word keeps its colour as the rest of the statement comes."""
    text = 'train 60 epochs over X = A batch 32 shuffle:\n  valid X = B\n  every 10 epochs: print C, acc\n  log "run.jsonl"\n'
    whole = {offset: kind for offset, kind, _ in kinds(text)}
    for end in range(1, len(text)):
        if text[end - 1] == " " and text[end - 2].isalnum():
            for offset, kind, word in kinds(text[:end])[:-2]:
                assert kind is whole[offset] or word.isspace(), (text[:end], word)


def test_entry_point():
    """The name that Pygments, Sphinx and Markdown know the lexer by."""
    project = (ROOT / "pyproject.toml").read_text()
    module, name = re.search(r'\[project.entry-points."pygments.lexers"\]\nlr = "(.*):(.*)"', project).groups()
    assert getattr(importlib.import_module(module), name) is LrLexer
    assert LrLexer.name == "lr" and "*.lr" in LrLexer.filenames


# ---------------------------------------------------------------- transcripts
TRANSCRIPT = """lr> let a = 1
lr> train 3 epochs:
...   every 1 epochs: print C
...
1.0
lr> let q = z
error[E0301]: no name `z`
 --> <entry 1>:1:9
lr>
lr> a
1.0
"""


def test_transcript():
    found = list(LrTranscriptLexer().get_tokens_unprocessed(TRANSCRIPT))
    place = 0
    for offset, _, word in found:
        assert offset == place
        place += len(word)
    assert "".join(word for _, _, word in found) == TRANSCRIPT
    kinds_of = {}
    for _, kind, word in found:
        kinds_of.setdefault(word, kind)
    assert kinds_of["lr> "] is kinds_of["... "] is Generic.Prompt and kinds_of["1.0\n"] is Generic.Output
    assert kinds_of["every"] is kinds_of["train"] is Keyword and kinds_of["error[E0301]: no name `z`\n"] is Generic.Error
    assert sum(kind is Generic.Prompt for _, kind, _ in found) == 7
    assert (PROMPT, CONTINUATION) == (reader.PROMPT, reader.CONTINUATION)
    for end in range(len(TRANSCRIPT)):
        assert "".join(w for _, _, w in LrTranscriptLexer().get_tokens_unprocessed(TRANSCRIPT[:end])) == TRANSCRIPT[:end]


# ---------------------------------------------------------------- the pieces
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_pieces_are_the_statements(path):
    """Cut into pieces and parsed one by one, a script has the same statements."""
    text = path.read_text(encoding="utf-8-sig")
    cut = [text[start:end] for start, end in pieces(text)]
    assert "".join(cut) == text
    whole = [s.span.text for s in parse(Source("a", text))[0].statements]
    assert [s.span.text for part in cut for s in parse(Source("b", part))[0].statements] == whole


@pytest.mark.parametrize(("text", "kept"), [
    ("let a = 1\nlet b = ", "let b = "),
    ("train 5 epochs:\n  clip norm 1\n  every 2 epochs:\n    print C\n    ", "train 5 epochs:\n  every 2 epochs:\n    "),
    ("train 5 epochs:\n  clip norm 1\n  ", "train 5 epochs:\n  "), ("train 5 epochs:\n  clip norm 1\n", ""),
    ("let a = f(1,\n2,\n", "let a = f(1,\n2,\n"), ("let a = (1\nlet b = 2\nprint ", "print "),
    ("let a = 1 +\n  2 +\n  ", "let a = 1 +\n  2 +\n  "), ("", ""), ("  ", "  "), ("def f(x):\n  let y = x\n  ret", "def f(x):\n  ret"),
])
def test_enclosing(text, kept):
    assert enclosing(text, len(text)) == kept


def test_words_inside_a_piece_are_scanned_alike():
    for path in SCRIPTS[:20]:
        text = path.read_text(encoding="utf-8-sig")
        words = {t.start for t in scan(Source("a", text)) if t.type == "WORD"}
        found = {offset for offset, kind, word in kinds(text) if re.match(r"[^\W\d]", word) and kind not in String}
        assert found == words


# ---------------------------------------------------------------- styles
def luminance(colour):
    """Of WCAG 2: relative luminance of an sRGB colour."""
    parts = [int(colour[i:i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("style", "backgrounds", "least"), [
    (LrLight, ("ffffff", "fdf6e3"), 4.5), (LrDark, ("000000", "1e1e1e", "282a36"), 4.5), (LrEither, ("ffffff", "000000"), 4.0),
    (LrEither, ("fdf6e3", "1e1e1e"), 3.2)], ids=["light", "dark", "either", "either, softer"])
def test_colours_stand_out(style, backgrounds, least):
    colours = {str(kind): dict(style.style_for_token(kind))["color"] for kind, _ in style}
    low = [(kind, colour, background, round(contrast(colour, background), 2)) for kind, colour in colours.items() if colour
           for background in backgrounds if contrast(colour, background) < least]
    assert not low, low
    assert colours[str(Token.Keyword)]


def test_lexer_is_light():
    """Highlighting asks for no backend and no terminal library."""
    import subprocess
    code = "import sys, dsl.highlight; print([m for m in ('llvmlite', 'prompt_toolkit', 'scipy', 'dsl.session') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
