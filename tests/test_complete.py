"""Completion: what is offered where, in which order, with which words beside it; signatures; letters; and that nothing raises."""
# ruff: noqa: E501  (tables: one case a line)

import io
import random
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

import dsl
from dsl.errors import Source
from dsl.ops.functions import FUNCTIONS
from dsl.repl import greek
from dsl.repl.bound import bound_above, declared
from dsl.repl.complete import complete
from dsl.repl.completer import LrCompleter
from dsl.repl.offer import matches
from dsl.repl.place import Place, shortened
from dsl.repl.signature import signature_at, signature_parts, taken_apart
from dsl.syntax.layout import CLAUSE_WORDS, STATEMENT_WORDS, scan
from dsl.syntax.names import bound_names
from dsl.syntax.parse import keywords_after, parse
from dsl.syntax.table import load_table

ROOT = Path(__file__).parent.parent
SCRIPT = """seed 1
data t = csv("t.csv")
import "nets.lr" as nets
matrix X[n, d]
int vector y[n]
shared w[d] = 0.0, bias = 1.5
let z = X @ w + bias
cost C = mean(sqr(z - y))
metric acc = mean(z > 0)
minimize C wrt all using adam()
data A = normal((5, 3))
def affine(x, k = 2) = k * x
let rate = 0.1
step critic:
  update bias <- bias + 1
dim classes = 4
optimizer mine(speed = 0.1) for p, g, t:
  update p <- p - speed * g
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("files")
    (place / "t.csv").write_text("age,city\n30,Paris\n40,Lima\n")
    (place / "nets.lr").write_text("def layer(x, k = 2) = k * x\nlet scale = 3\n")
    (place / "m.safetensors").write_text("")
    (place / ".hidden.csv").write_text("a\n1\n")
    (place / "sub").mkdir()
    (place / "sub" / "b.csv").write_text("a\n1\n")
    return place


@pytest.fixture(scope="module")
def session(folder):
    made = dsl.Session(interactive=True, stdout=io.StringIO(), quiet=True, base=folder, out=folder)
    made.load(Source("<repl>", SCRIPT))
    return made


def at(session, text, automatic=False):
    """Completions at the `|` of a text, or its end."""
    before, _, after = text.partition("|")
    return complete(session, before + after, len(before), automatic)


def texts(session, text, **options):
    return [c.text for c in at(session, text, **options)]


# ---------------------------------------------------------------- what is offered
FIRST = [
    # A prefix: what comes first.
    ("le", "let"), ("pri", "print"), ("tr", "train"), ("let q = so", "softmax softplus softsign sort"), ("let q = sum(X, ax", "axis"),
    ("let q = af", "affine"), ("let q = W", "w where"), ("let q = smx", "softmax"), ("let q = lsm", "log_softmax"), ("print bi", "bias"),
    ("print t.", "age city"), ("print t.c", "city"), ("print nets.", "layer scale"), ("print X.", "T"),
    ("minimize C wrt ", "bias w all"), ("minimize C wrt bias, ", "bias w"), ("minimize C wrt all ", "except using"), ("minimize C wrt all except ", "bias w"),
    ("minimize C wrt all using ", "mine adagrad adam adamw"), ("minimize C wrt all using ad", "adagrad adam adamw"),
    ("minimize C wrt all using adam(r", "rate"), ("minimize C wrt all using mine(", "speed"), ("fit C wrt all using ", "gauss_newton lbfgs newton"),
    ("train 10 ", "epochs steps and or"), ("train 10 epochs ", "batch drop_last of over shuffle until"), ("train 10 epochs over ", "X y bias w"),
    ("train 10 steps of ", "critic"), ("train 10 epochs over X = A:\n  ", "checkpoint clip every log stop valid"), ("train 10 epochs:\n  ra", "rate"),
    ("train 10 epochs:\n  rate = co", "cosine"), ("train 10 epochs:\n  every 2 epochs:\n    ", "assert gradcheck load plot print save show"),
    ("train 10 epochs:\n  stop after 3 epochs without ", "higher lower"), ("train 10 epochs:\n  stop after 3 epochs without lower ", "C acc"),
    ("grad g = C wrt ", "bias w X y rate z"), ("print C with ", "X y bias w"), ("print C with X = A, ", "X y bias w"),
    ("matrix Q[n, ", "classes d n"), ("shared W[", "classes d n"), ("int matrix Q[", "classes d n"), ("shared W[d] = 0, V[", "classes d n"), ("shared W[d] = z[", "A acc"),
    ("device ", "auto cpu cuda numpy"), ("precision ", "float32 float64"), ("use ", "optim"), ("update ", "bias w"),
    ("plot sc", "scatter"), ("plot hist(z, b", "bins"), ("plot line(z) ", "title to"), ("let q = if z > 0 ", "then with and or"),
    ("def f(xx, yy = 1):\n  let inner = xx\n  return in", "inner"), ("def f(xx, yy = 1) = y", "y yy"), ("def f(x):\n  ", "let return"),
    ("let s = scan(vel = 0.0 for tick in A: ve", "vel"), ("let s = scan((pos, vel) = (0.0, 1.0) for tick in A: (ti", "tick"),
    ("optimizer o(r = 1) for par, gra, t:\n  update par <- par - r * gr", "gra"), ("optimizer o(r = 1) for par, gra, t:\n  ", "let slot update"),
    ("let above = 3\nprint ab", "above abs"), ("data tr, te = split(A, te", "test"), ("print affine(3, ", "k"), ("print affine(3, k", "k"),
    ("let m = (1,\n  bi", "bias"), ("print bias; pri", "print"), ("let c = (C with X = A, y = ac", "acc"),
    # Paths.
    ('data q = csv("', "sub/ t.csv"), ('data q = csv("sub/', "b.csv"), ('data q = csv("T', "t.csv"), ('import "', "nets.lr sub/"), ('load "', "m.safetensors sub/"),
    ('save "m', "m.safetensors"), ('save z to "su', "sub/"), ('train 1 epochs:\n  checkpoint "', "m.safetensors sub/"), ('data q = csv(path = "', "sub/ t.csv"),
    ('data q = csv(".h', ".hidden.csv"), ('data q = csv("|.csv")', "sub/ t.csv"),
    # Letters.
    ("\\al", "α"), ("let q = \\beta", "β"), ("x\\ha", "x̂"), ("let y\\hat", "ŷ"), ("\\Ga", "Γ"),
    # Commands.
    (":he", ":help"), (":t", ":type :time :transcript"), (":help softm", "softmax log_softmax"), (":help undo", "undo"), (":type w + bi", "bias"), (":grad C wrt ", "bias w X y"),
    (":set ke", "keys"), (":set keys ", "emacs vi"), (":set device c", "cpu cuda"), (":code ll", "llvm"), (":kernels ", "A acc"), (":kernels tr", "train"),
    (":time train 10 epochs ov", "over"), (":plot sc", "scatter"), ("?softm", "softmax"), ("?E02", "E0201"), ("?ada", "adagrad adam adamw"),
]


@pytest.mark.parametrize(("text", "wanted"), FIRST, ids=[text for text, _ in FIRST])
def test_first(session, text, wanted):
    """The first completions, in order."""
    found = texts(session, text)
    assert [w.split()[0] for w in found[:len(wanted.split())]] == wanted.split()


NOTHING = ["# so", "let q = 3 # so", 'print "a', 'print "so', "12", "let q = 3.", "let q = 1e", "let ", 'assert z > 0, "w', 'plot line(z) title "s',
           ":nothing ", ":vars ", ":quit ", "data q = csv(\"no/such/folder/", "dim ", "def ", "print t.zz", "save \"\0"]


@pytest.mark.parametrize("text", NOTHING)
def test_nothing(session, text):
    assert at(session, text) == []


def test_files_are_read_in_data_statements(session):
    assert "csv" in texts(session, "data q = cs") and "csv" not in texts(session, "let q = cs")


@pytest.mark.parametrize(("text", "offered"), [
    ("", False), ("let q = ", False), ("print z, ", False), ("let q = sum(X, ", False), ("train 10 epochs ", False), ("print t.", True), ("minimize C wrt ", True),
    ("minimize C wrt w using ", True), ("train 10 epochs over ", True), ("device ", True), ('csv("', True), ("l", True), ("let q = s", True),
])
def test_automatic(session, text, offered):
    """Unasked, a menu opens behind a letter, or where there is little choice."""
    assert bool(at(session, text, automatic=True)) == offered


def test_meta(session):
    words = {c.text: (c.kind, c.meta) for text in ("let q = ", "print t.", "minimize C wrt all using ", "data q = csv(\"") for c in at(session, text)}
    assert words["X"] == ("name", "matrix float64 [n, d]") and words["y"] == ("name", "vector int64 [n]")
    assert words["w"] == ("name", "shared float64 [d]") and words["bias"] == ("name", "shared float64 = 1.5")
    assert words["A"] == ("name", "data float64 [5, 3]") and words["rate"] == ("name", "let float64 = 0.1") and words["classes"] == ("name", "dim 4")
    assert words["affine"] == ("function", "affine(x, k = 2)") and words["softmax"] == ("function", "softmax(x, axis = -1)")
    assert words["t"][1].startswith("table, 2 rows") and words["nets"][1] == "module"
    assert words["age"] == ("column", "int64 [2]") and words["city"] == ("column", "text [2]")
    assert words["adam"] == ("optimizer", "adam(rate = 1e-3, b1 = 0.9, b2 = 0.999, eps = 1e-8)")
    assert words["sub/"] == ("path", "folder") and words["t.csv"] == ("path", "26 bytes")
    assert words["pi"][1].startswith("3.14159")


def test_values_are_those_of_now():
    made = dsl.Session(interactive=True, stdout=io.StringIO(), quiet=True)
    made.load(Source("<repl>", "shared b = 1.0\nupdate b <- b + 1"))
    assert at(made, "print ")[0].text == "b" and at(made, "print ")[0].meta == "shared float64 = 1.0"
    made.load(Source("<repl>", "train 2 steps"))
    made.run()
    assert next(c for c in at(made, "print ") if c.text == "b").meta == "shared float64 = 3.0"


def test_keywords_are_those_the_parser_takes(session):
    """Every keyword offered is legal there, and every legal one is offered."""
    for text in ("", "train 10 ", "train 10 epochs ", "minimize C wrt all ", "print z ", "grad g = C ", "train 1 epochs:\n  ", "def f(x):\n  ", "let q = ", "if z > 0 ", "int "):
        legal = {w for w in keywords_after(text) if w.isidentifier() and w in load_table().words}
        assert {c.text for c in at(session, text) if c.kind == "keyword"} == legal - ({"None"} if "None" not in legal else set()), text
    assert {c.text for c in at(session, "") if c.kind == "keyword"} >= STATEMENT_WORDS - CLAUSE_WORDS - {"return", "slot"}


def test_every_function_is_offered(session):
    assert {c.text for c in at(session, "data q = ")} >= set(FUNCTIONS)


def test_replacing(session):
    """The range that is replaced: the word before the cursor, of a path its last part."""
    (only,) = [c for c in at(session, 'data q = csv("sub/b|.csv")') if c.kind == "path"]
    assert only.start == len('data q = csv("sub/')
    assert at(session, "let q = so|ft")[0].start == len("let q = ")
    for text in ("let q = so", "print t.a", "\\al", ":he", ":type bi", "?so", ":load pyp", ":set ke", "train 10 epochs over X"):
        for c in at(session, text):
            assert 0 <= c.start <= len(text)
            assert matches(text[c.start:].lstrip("\\"), c.text) is not None or c.kind == "letter"


def test_matches():
    assert [matches("so", w) for w in ("softmax", "Softmax", "log_softmax", "tanh")] == [0, 1, 2, None]
    assert matches("s", "abs") is None and matches("", "x") == 0 and matches("smx", "softmax") == 2


def test_nothing_raises(session):
    """Whatever stands there, at every cursor."""
    state = random.Random(3)
    text = (ROOT / "examples" / "mlp_digits.lr").read_text()
    for cursor in range(0, len(text), 11):
        complete(session, text, cursor)
        signature_at(session, text, cursor)
    words = [*load_table().words, *load_table().marks, "\n", "\n  ", "x", "w", "3", '"', "# c", "$", "\\al", "(", "(", ")", "[", "]", "adam", "t", "scan", ":help", "?", "λ", "\0"]
    for _ in range(300):
        text = " ".join(state.choices(words, k=state.randint(1, 15)))
        cursor = state.randrange(len(text) + 1)
        for c in complete(session, text, cursor):
            assert 0 <= c.start <= cursor
        signature_at(session, text, cursor)


# ---------------------------------------------------------------- signatures
@pytest.mark.parametrize(("text", "parts"), [
    ("let q = sum(X, ", ("sum(x, ", "axis = none", ", keepdims = false)")), ("let q = sum(", ("sum(", "x", ", axis = none, keepdims = false)")),
    ("let q = sum(X, keepdims = tr", ("sum(x, axis = none, ", "keepdims = false", ")")), ("let q = sum(abs(z), ax", ("sum(x, ", "axis = none", ", keepdims = false)")),
    ("let q = sum(abs(z", ("abs(", "x", ")")), ("let q = softmax([1, 2, ", ("softmax(", "x", ", axis = -1)")), ("print affine(1, ", ("affine(x, ", "k = 2", ")")),
    ("print nets.layer(", ("nets.layer(", "x", ", k = 2)")), ("minimize C wrt all using adam(b1 = ", ("adam(rate = 1e-3, ", "b1 = 0.9", ", b2 = 0.999, eps = 1e-8)")),
    ("data a, b = split(A, y, ", ("split(", "*parts", ", test)")), ("data a, b = split(A, test = 0", ("split(*parts, ", "test", ")")),
    ('data q = csv("', ("csv(", "path", ", missing = none, separator = none)")), ("let s = scan(v = 0 for ", ("scan(v = v0 for t in ts: expr)", "", "")),
    ("plot hist(z, ", ("hist(x, ", "bins = none", ")")), ("train 1 epochs:\n  rate = cosine(1, ", ("cosine(first, ", "last", ")")),
    ("let q = sum(X)", None), ("let q = (1, ", None), ("let q = nothing(", None), ("# sum(", None), ("let q = sum(X, bogus = ", ("sum(x, axis = none, keepdims = false)", "", "")),
    ("if (", None), (":type sum(", None),
])
def test_signature(session, text, parts):
    assert signature_parts(session, text, len(text)) == parts
    assert signature_at(session, text, len(text)) == (None if parts is None else "".join(parts))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures_come_apart(name):
    head, parameters, tail = taken_apart(FUNCTIONS[name].signature)
    assert parameters == [str(p) for p in FUNCTIONS[name].parameters]
    assert head + ", ".join(parameters) + tail == FUNCTIONS[name].signature


# ---------------------------------------------------------------- the place
@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/*.lr")), ids=lambda p: p.name)
def test_bound_above_is_what_scripts_bind(path):
    text = path.read_text()
    wanted = [i.id for s in parse(Source("a", text))[0].statements for i in bound_names(s)]
    assert sorted(bound_above(text)) == sorted(set(wanted))


@pytest.mark.parametrize(("line", "names"), [
    ("shared W[d, k] = f(1, 2), b<lower=0, upper=1>[k] = 0, c = 1", "W b c"), ("int matrix X[n, 2*k], Y", "X Y"), ("dim n, k = 3", "n k"),
    ("let a, b = (1, 2); let c = 3", "a b c"), ("letter = 3", ""), ("let a == 3", "a"), ('import "a" as nets', "nets"), ("shared int k = 1", "k"), ("print a, b", ""),
])
def test_declared(line, names):
    assert [n for n, _ in declared(line)] == names.split()


def test_long_statements_are_shortened():
    """Items that are over do not change what may come next."""
    head = "let q = concat((\n" + "  f(1),\n  2,\n" * 400 + "  3,\n  "
    short = shortened(head)
    assert short.count("\n") < 700 and keywords_after(short) == keywords_after(head)
    assert shortened("let a = (1,\n2,\n") == "let a = (1,\n2,\n"


def test_place_without_words():
    place = Place("", 0)
    assert place.first == "" and place.owner == "" and place.call is None and place.governor == "" and place.previous is None


# ---------------------------------------------------------------- letters
@pytest.mark.parametrize("name", greek.letters())
def test_letters_are_names(name):
    """What Tab makes is a letter of a name as it stands: the language does not read it as another one."""
    start, letter = greek.replaced(f"x\\{name}")
    text = "x"[:start] + letter
    tokens = scan(Source("a", text))
    assert [t.type for t in tokens] == ["WORD", "END"] and tokens[0].text == text


@pytest.mark.parametrize(("text", "wanted"), [
    ("let \\alpha", (4, "α")), ("\\Omega", (0, "Ω")), ("a\\beta", (1, "β")), ("y\\hat", (0, "ŷ")), ("x\\hat", (0, "x̂")), ("\\hat", None), ("3\\hat", None),
    ("\\nothing", None), ("alpha", None), ("\\", None), ("x\u0304\\hat", (0, "x\u0304\u0302")),
])
def test_replaced(text, wanted):
    assert greek.replaced(text) == wanted


def test_how_to_type():
    assert greek.how_to_type("αx̂") == ["\\alpha", "\\hat"] and greek.how_to_type("abc") == []


# ---------------------------------------------------------------- the prompt
def test_completer(session):
    completer = LrCompleter(lambda: session)
    document = Document("let q = so", 10)
    asked = list(completer.get_completions(document, CompleteEvent(completion_requested=True)))
    assert asked[0].text == "softmax" and asked[0].start_position == -2 and asked[0].display_meta_text == "softmax(x, axis = -1)"
    assert "function" in asked[0].style
    empty = Document("let q = ", 8)
    assert not list(completer.get_completions(empty, CompleteEvent(text_inserted=True)))
    assert list(completer.get_completions(empty, CompleteEvent(completion_requested=True)))
