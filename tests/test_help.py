"""Help: every function, keyword, optimiser and error has a page, whose example prints what it says; names say what they are."""
# ruff: noqa: E501  (tables: one case a line)

import io
import json
import math

import numpy as np
import pytest
from scipy import special

import dsl
from dsl import help
from dsl.error_index import ENTRIES
from dsl.errors import LrError, Source
from dsl.ir.node import TABLE
from dsl.ops.examples import EXAMPLES, FAMILIES, OWN_PARAMETERS, example_files
from dsl.ops.functions import FORMS, FUNCTIONS, LATER
from dsl.syntax.faults import CONSTANTS
from dsl.syntax.layout import CLAUSE_WORDS
from dsl.syntax.manual import MANUAL
from dsl.syntax.parse import parse
from dsl.syntax.table import load_table

PAGES = {page.words[0]: page for page in MANUAL.values()}
OPTIMIZERS = sorted(help.library_optimizers())


def session_of(text, **options):
    session = dsl.Session(interactive=True, stdout=io.StringIO(), quiet=True, **options)
    session.load(Source("<repl>", text))
    return session


def printed(code, folder):
    out = io.StringIO()
    session = dsl.Session(base=folder, out=folder, stdout=out, quiet=True)
    session.load(Source("example.lr", code))
    session.run()
    return out.getvalue().rstrip("\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("examples")
    for name, content in example_files().items():
        (place / name).write_bytes(content)
    return place


# ---------------------------------------------------------------- functions
def test_every_function_has_an_example():
    assert set(EXAMPLES) == {*FUNCTIONS, *FORMS}


@pytest.mark.parametrize("name", EXAMPLES)
def test_function(name, folder):
    topic = help.function_topic(name)
    text = help.help_text(None, name)
    assert topic.kind == "function" and topic.forms[0].startswith(f"{name}(") and topic.summary
    assert text.startswith(topic.forms[0]) and max(map(len, text.splitlines())) <= 100
    assert name in topic.example.code
    if any(file not in example_files() for file in topic.example.files):
        pytest.skip("pyarrow is not installed")
    assert printed(topic.example.code, folder) == topic.example.prints


NUMBERS = {name: getattr(np, name) for name in "exp expm1 log log1p sqrt cbrt sign floor ceil sin cos tan sinh cosh tanh sum prod mean cumsum cumprod".split()}
NUMBERS |= {"sigmoid": special.expit, "logit": special.logit, "erf": special.erf, "erfc": special.erfc, "lgamma": special.gammaln,
            "digamma": special.digamma, "softmax": special.softmax, "log_softmax": special.log_softmax, "logsumexp": special.logsumexp,
            "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "round": np.rint, "sqr": np.square, "abs": np.abs}


@pytest.mark.parametrize("name", NUMBERS)
def test_examples_agree_with_numpy_and_scipy(name):
    """What the help prints is what those print of the same argument."""
    example = EXAMPLES[name]
    call = example.code.rpartition("print ")[2].partition("), ")[0].rstrip(")") + ")"
    given = {"A": [[1, 2], [3, 4]], "pi": math.pi, "np": np}
    argument = eval(call.partition("(")[2].rstrip(")"), given)
    want = NUMBERS[name](np.array(argument))
    got = [float(word) for word in example.prints.replace("[", " ").replace("]", " ").split()][:np.size(want)]
    assert np.allclose(got, np.ravel(want), rtol=1e-7)


@pytest.mark.parametrize("name", [n for n, op in TABLE.items() if op.surface and op.elementwise and op.partials is not None and n != "digamma"])
def test_derivative_words(name):
    """The formula in the help is in the language, and its value is the derivative."""
    op = TABLE[name]
    words = help.derivative_words(op)
    if words.startswith("0"):
        assert all(part is None for part in op.partials(*(help.leaf("input", n, help.ArrayType("float64")) for n in ("y", *op.operands))))
        return
    formulas, _, value = words.partition(", where ")
    names = {"condition": True, **dict(zip([n for n in op.operands if n != "condition"], (0.7, 0.4, 0.9), strict=False))}
    declared = "".join(f"{'bool ' * (n == 'condition')}scalar {n}\n" for n in op.operands)
    if value:
        declared += f"let {value[0]} = {name}({', '.join(op.operands)})\n"
    given = {n: names[n] for n in op.operands}
    for formula in formulas.split("; "):
        operand, _, text = formula.removeprefix("d/d").partition(" = ")
        text, _, condition = text.removesuffix(", else 0").partition(" where ") if text.endswith(", else 0") else (text, "", "")
        text = f"if {condition} then {text} else 0" if condition else text
        model = dsl.compile(f"{declared}let f = {name}({', '.join(op.operands)})\ngrad g = f wrt {operand}\nlet h = {text}")
        assert np.allclose(model.eval("g", **given), model.eval("h", **given), rtol=1e-12), formula


def test_own_parameters_exist():
    names = {(name, p.name) for name, row in FUNCTIONS.items() for p in row.parameters}
    assert set(OWN_PARAMETERS) <= names


def test_families_exist():
    assert {name for family in FAMILIES for name in family} <= {*FUNCTIONS, *FORMS}


@pytest.mark.parametrize("name", sorted(LATER))
def test_functions_to_come(name):
    assert "not run it yet" in " ".join(help.help_text(None, name).split())


def test_groups():
    groups = help.function_groups()
    assert sorted(t.name for topics in groups.values() for t in topics) == sorted({*FUNCTIONS, *FORMS})


@pytest.mark.parametrize(("ulp", "words"), [((0, 0), "exact"), ((0.5, 0.5), "correctly rounded"), ((1.6, 2.1), "within 2.1 ulp in float64, 1.6 ulp in float32")])
def test_accuracy_words(ulp, words):
    assert help.accuracy_words(ulp) == words


# ---------------------------------------------------------------- keywords and optimisers
def test_every_keyword_has_a_page():
    assert set(MANUAL) == set(load_table().words)


@pytest.mark.parametrize("word", PAGES)
def test_keyword(word, folder):
    page = PAGES[word]
    topic = help.keyword_topic(word)
    assert topic.forms and topic.summary.endswith(".") and page.words[0] == word
    for other in page.words:
        assert any(other in form for form in page.forms) and other in help.help_text(None, other)
    try:
        assert printed(page.example.code, folder) == page.example.prints
        assert not page.later and topic.example is page.example
    except LrError as problem:
        assert page.later and {d.code for d in problem.diagnostics} == {"E0801"}, problem
        assert topic.example is None and "E0801" in help.help_text(None, word)


@pytest.mark.parametrize("word", PAGES)
def test_forms_are_in_the_language(word):
    """Every form parses, those of clauses in a `train`."""
    for form in PAGES[word].forms:
        text = f"train 1 epochs:\n  {form}" if word in CLAUSE_WORDS else form
        if "…" not in form:
            assert not parse(Source("form", text))[1], form


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer(name, folder):
    topic = help.library_optimizers()[name]
    assert topic.source.startswith(f"optimizer {name}(") and topic.summary
    assert printed(topic.example.code, folder) == topic.example.prints
    assert topic.source.splitlines()[-1] in help.help_text(None, name)


def test_see_also_is_known():
    known = set(help.known_names())
    for name in known - set(ENTRIES):
        for topic in help.topics(None, name):
            assert set(topic.see_also) <= known, name


@pytest.mark.parametrize("name", CONSTANTS)
def test_constant(name, folder):
    topic = help.constant_topic(name)
    assert printed(topic.example.code, folder) == topic.example.prints


@pytest.mark.parametrize("code", ENTRIES)
def test_error(code):
    assert ENTRIES[code].title in help.help_text(None, code.lower())


# ---------------------------------------------------------------- names
SCRIPT = """seed 1
matrix X[n, d]
vector y[n]
shared w[d] = 0.0, b = 1.5
let z = X @ w + b
cost C = mean(sqr(z - y))
minimize C wrt all using adam()
data A = [[1.0, 2.0], [3.0, nan], [5.0, 6.0], [1, 2], [1, 2], [1, 2], [1, 2], [1, 2], [1, 2]]
def f(x, k = 2) = k * x
dim k = 4
let rate = 0.1
optimizer mine(rate = 0.1) for p, g, t:
  update p <- p - rate * g
"""


@pytest.mark.parametrize(("name", "parts"), [
    ("X", ["matrix X: float64 [n, d]", "<repl>:2: matrix X[n, d]", "used by", "z, C"]), ("b", ["shared b: float64", "1.5", "update b"]),
    ("w", ["d not known yet"]), ("z", ["let z: float64 [n]", "((X @ w) + b)", "X, w, b"]), ("C", ["mean(sqr((z - y)))"]),
    ("A", ["data A: float64 [9, 2]", "from 1 to 6, mean", "1 nan"]), ("f", ["f(x, k = 2)", "def f(x, k = 2) = k * x"]), ("rate", ["0.1"]),
    ("k", ["dim k: int64", "4"]), ("mine", ["mine(rate = 0.1)", "update p <- p - rate * g"]),
])
def test_names(name, parts):
    text = help.help_text(session_of(SCRIPT), name)
    for part in parts:
        assert part in text, text


def test_sizes_and_state_are_told():
    session = session_of(SCRIPT)
    session.load(Source("<repl>", "data B = zeros((5, 3))\ndata v = zeros(5)\ntrain 2 epochs over X = B, y = v"))
    session.run()
    text = help.help_text(session, "w")
    assert "d = 3 from B" in text and "[0. 0. 0.]" in text


def test_columns_and_members(tmp_path):
    (tmp_path / "t.csv").write_text("age,city\n30,Paris\n40,Lima\n")
    (tmp_path / "nets.lr").write_text("def layer(x) = x + 1\nlet k = 3\n")
    session = session_of('data t = csv("t.csv")\nimport "nets.lr" as nets', base=tmp_path)
    assert "age, city" in help.help_text(session, "t")
    assert "float64" in help.help_text(session, "t.age") or "int64" in help.help_text(session, "t.age")
    assert "text [2]" in help.help_text(session, "t.city")
    assert "layer" in help.help_text(session, "nets") and "def layer(x) = x + 1" in help.help_text(session, "nets.layer")


def test_a_name_hides_no_function():
    text = help.help_text(session_of("let relu_ = 1\nlet log = 2.0"), "log") if "log" not in FUNCTIONS else help.help_text(None, "log")
    assert "Natural logarithm" in text and "run.jsonl" in text


@pytest.mark.parametrize(("name", "near"), [("sofmax", "softmax"), ("trian", "train"), ("adm", "adam"), ("E0210x", "E0210"), ("qqqqqq", None)])
def test_unknown(name, near):
    with pytest.raises(LrError) as caught:
        help.help_text(session_of(SCRIPT), name)
    assert caught.value.code == "E0301" and (near or "there is help for") in caught.value.diagnostic.help


def test_lr_explain():
    from click.testing import CliRunner

    from dsl.cli import commands
    run = CliRunner().invoke
    assert run(commands, ["explain", "softmax"]).output == help.help_text(None, "softmax")
    assert json.loads(run(commands, ["explain", "grad", "--json"]).output)[0]["forms"] == ["grad(C, x)"]
    wrong = run(commands, ["explain", "sofmax"])
    assert wrong.exit_code == 2 and "did you mean `softmax`?" in wrong.output


def test_overview():
    text = help.help_text(session_of(SCRIPT), "")
    assert all(word in text for word in ("softmax", "train", "adam", "scan", "pi", "rate")) and max(map(len, text.splitlines())) <= 100
