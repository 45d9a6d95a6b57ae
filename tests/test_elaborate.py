"""What statements mean: names, sizes, binding, functions, optimisers, and names bound again."""

import io
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dsl
from dsl.errors import LrError, Source
from dsl.syntax import program


def value(text: str, name: str = "y", **options):
    return dsl.compile(text, **options)[name]


def printed(text: str, **options) -> str:
    out = io.StringIO()
    session = dsl.Session(stdout=out, quiet=True, **options)
    session.load(Source("t.lr", text))
    session.run()
    return out.getvalue()


def codes(text: str, **options) -> list[str]:
    with pytest.raises(LrError) as caught:
        printed(text, **options)
    return [d.code for d in caught.value.diagnostics]


def message(text: str) -> str:
    with pytest.raises(LrError) as caught:
        printed(text)
    return str(caught.value)


# ---------------------------------------------------------------- literals and dtypes
@pytest.mark.parametrize(("expression", "dtype", "expected"), [
    ("2", "float64", 2.0),
    ("-2", "float64", -2.0),
    ("7 // 2", "int64", 3),
    ("[1, 2, 3]", "int64", [1, 2, 3]),
    ("int(2)", "int64", 2),
    ("7 / 2", "float64", 3.5),
    ("1 + 0.5", "float64", 1.5),
    ("2 ** 3", "int64", 8),
    ("2 ** -1", "float64", 0.5),
    ("(1 < 2) + (3 < 4)", "int64", 2),
    ("-(1 < 2)", "int64", -1),
    ("true", "bool", True),
    ("if 2 > 1 then 3 else 4.5", "float64", 3.0),
    ("pi", "float64", np.pi),
])  # fmt: skip
def test_literals(expression, dtype, expected):
    found = value(f"let y = {expression}")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)


def test_precision_is_the_float_of_the_script():
    m = dsl.compile("precision float32\nlet a = 0.1\nshared w = 1\nlet b = w * 3 + 1")
    assert {m[n].dtype for n in "awb"} == {np.dtype("float32")}
    assert value("let y = 0.5", precision="float32").dtype == "float32"


def test_precision_given_from_outside_wins_over_the_header():
    assert value("precision float32\nlet y = 0.5", precision="float64").dtype == "float64"


def test_int_inputs():
    m = dsl.compile("int vector u[n]\nbool scalar c\nlet y = if c then u // 2 else u")
    assert m.eval("y", u=[3, 4], c=True).tolist() == [1, 2]
    assert m.eval("y", u=[3.0, 4.0], c=0).tolist() == [3, 4]
    with pytest.raises(LrError):
        m.eval("y", u=[0.5, 1.5], c=True)


def test_shared_dtype():
    m = dsl.compile("shared int n = 3, k = -1\nupdate n <- n + 1\ntrain 2 steps")
    m.run()
    assert m["n"].dtype == "int64" and m["n"] == 5 and m["k"] == -1


# ---------------------------------------------------------------- draws
def test_a_draw_is_keyed_by_its_name_and_place():
    base = value("seed 1\ndata y = normal(3)")
    assert np.array_equal(base, value("seed 1\nlet z = normal(9)\ndata other = uniform(2)\ndata y = normal(3)"))
    assert not np.array_equal(base, value("seed 2\ndata y = normal(3)"))
    assert not np.array_equal(base, value("seed 1\ndata z = normal(3)", "z"))
    assert np.array_equal(base, value("seed 7\ndata y = normal(3)", seed=1))


def test_each_call_is_its_own_draw():
    assert np.all(value("let y = normal(3) - normal(3)") != 0)
    assert np.all(value("let a = normal(3)\nlet y = a - a") == 0)
    m = dsl.compile("def f(x) = x + normal(2)\nlet a = f(0)\nlet b = f(0)\nlet y = f(0) - f(0)")
    assert not np.array_equal(m["a"], m["b"]) and np.all(m["y"] != 0)


def test_no_seed_is_seed_0():
    assert np.array_equal(value("data y = normal(3)"), value("seed 0\ndata y = normal(3)"))


def test_a_shared_draw_takes_the_declared_shape():
    m = dsl.compile("dim d = 4\nshared W[d, 3] = 0.1 * normal(), b[3] = 1")
    assert m["W"].shape == (4, 3) and len(set(m["W"].ravel())) == 12
    assert m["b"].tolist() == [1, 1, 1] and m["b"].dtype == "float64"


def test_adding_an_item_changes_no_draw_of_another():
    one = value("shared W[3] = normal()", "W")
    assert np.array_equal(one, value("shared b[3] = normal(), W[3] = normal()", "W"))


# ---------------------------------------------------------------- sizes
def test_dims():
    assert printed("dim n, k = 3\ndata A = ones(2, 4)\ndim d = size(A, 1)\nprint k, d, k * d + 1") == "3 4 13\n"
    assert printed("vector v[n]\nlet m = n + 1\nprint m with v = [1, 2]") == "3\n"


def test_other_dims_are_solved_anew():
    text = "vector v[n]\nlet s = n * sum(v)\nprint s with v = [1, 2]\nprint s with v = [1, 2, 3]"
    assert printed(text) == "6.0\n18.0\n"


def test_a_model_dim_is_fixed_by_the_first_binding():
    text = "matrix X[n, d]\nshared w[d] = 1.0\nlet y = X @ w\nprint y with X = ones(2, 3)\nprint w\n"
    assert printed(text) == "[3. 3.]\n[1. 1. 1.]\n"
    assert codes(text + "print y with X = ones(2, 4)") == ["E0211"]
    assert codes(text + "let z = y with X = ones(2, 4)") == ["E0211"]


def test_a_start_fixes_a_dim():
    assert printed("shared w[d] = [1, 2, 3]\nprint d, w") == "3 [1 2 3]\n"


def test_compound_sizes():
    text = "vector v[n], w[n + 1]\nlet s = sum(v) + sum(w)\n"
    assert printed(text + "print s with v = [1, 2], w = [1, 1, 1]") == "6.0\n"
    assert printed(text + "print s with w = [1, 1, 1], v = [1, 2]") == "6.0\n"
    assert codes(text + "print s with v = [1, 2], w = [1, 1]") == ["E0211"]


def test_a_fixed_size_is_compared():
    assert codes("dim d = 3\nmatrix X[n, d]\nprint sum(X) with X = ones(5, 4)") == ["E0211"]
    assert codes("matrix X[n, 3]\nprint sum(X) with X = ones(5, 4)") == ["E0211"]
    assert printed("matrix X[n, 3]\nprint sum(X) with X = ones(5, 3)") == "15.0\n"


def test_a_named_dim_never_broadcasts():
    assert codes("vector v[n], w[m]\nlet y = v + w") == ["E0202"]
    assert codes("vector v[n], w[m]\nlet y = v + w\nprint y with v = [1], w = [1]") == ["E0202"]
    assert printed("vector v, w\nprint v + w with v = [1, 2], w = [1]") == "[2. 3.]\n"


# ---------------------------------------------------------------- binding
def test_with_is_an_expression():
    assert printed("scalar x\nlet f = x * 2\nlet y = (f with x = 3) + (f with x = 4)\nprint y") == "14.0\n"


def test_with_binds_all_that_follows():
    assert printed("scalar x, z\nlet f = x * z\nprint f, x with x = 3, z = 4") == "12.0 3.0\n"


def test_with_maps_over_one_axis_more():
    text = "vector x[n]\nscalar a\nlet f = a * sum(x)\n"
    assert printed(text + "print f with x = ones(4, 3), a = 2") == "[6. 6. 6. 6.]\n"
    assert printed(text + "print f with x = ones(2, 3), a = [1, 2]") == "[3. 6.]\n"
    assert printed(text + "print a with x = ones(2, 3), a = 5") == "[5. 5.]\n"
    assert codes(text + "print f with x = ones(4, 3), a = [1, 2]") == ["E0211"]


def test_with_replaces_shared_variables():
    assert printed("shared w = 2.0\nlet y = w * 3\nprint y, y + 0 with w = 5") == "15.0 15.0\n"


def test_with_reaches_into_derivatives():
    assert printed("scalar x\nlet f = x ** 3\ngrad g = f wrt x\nprint g with x = 2") == "12.0\n"
    assert printed("scalar x\nlet f = x ** 3\ngrad g = f wrt x\nprint g with x = [1, 2]") == "[ 3. 12.]\n"


def test_a_bound_value_may_use_another_input():
    assert printed("scalar x, z\nlet f = x * 2\nlet g = f with x = z + 1\nprint g with z = 1") == "4.0\n"


# ---------------------------------------------------------------- functions
def test_def():
    text = """
let scale = 10
def f(x, y = 2, z = scale) = x * y + z
def g(x):
  let scale = 3
  let a, b = (x, x * scale)
  return (b, a)
let p, q = g(1)
let r = g(2)[0]
print f(1), f(1, 3), f(1, z = 0), f(y = 5, x = 1), p, q, r
"""
    assert printed(text) == "12.0 13.0 2.0 15.0 3.0 1 6.0\n"


def test_def_scopes():
    assert printed("let a = 1\ndef f(a) = a * 2\nprint f(5), a") == "10 1.0\n"
    assert printed("def f(x) = g(x)\ndef g(x) = x + 1\nprint f(1)") == "2\n"
    assert "in this call of `f`" in message("def f(A) = A @ A\nmatrix X[n, d]\nlet y = f(X)")


def test_import_and_use(tmp_path):
    (tmp_path / "nets.lr").write_text("let two = 2\ndef dense(x, w) = x * w + two\noptimizer slow(rate = 0.5) for p, g, t:\n"
                                      "  update p <- p - rate * g\n")
    text = 'import "nets.lr" as nets\nshared w = 1.0\ncost C = sqr(w)\nminimize C wrt w using nets.slow()\n' \
           "train 1 steps\nprint nets.dense(3, 4), nets.two, w"
    assert printed(text, base=tmp_path) == "14.0 2.0 0.0\n"
    assert printed("use optim\nshared w = 1.0\ncost C = sqr(w)\nminimize C wrt w using sgd(rate = 0.5)\n"
                   "train 1 steps\nprint w") == "0.0\n"


# ---------------------------------------------------------------- optimisers, groups, training
def test_an_optimiser_of_the_script():
    text = """
optimizer heavy(rate = 0.1, mu = 0.5) for p, g, t:
  slot v = zeros_like(p)
  let v1 = mu * v + g
  update v <- v1
  update p <- p - rate * v1 / t
shared w[2] = [1.0, 2.0]
cost C = sum(sqr(w)) / 2
minimize C wrt all using heavy(mu = 0.25)
train 3 steps
"""
    w, v = np.array([1.0, 2.0]), np.zeros(2)
    for t in (1, 2, 3):
        v = 0.25 * v + w
        w = w - 0.1 * v / t
    m = dsl.compile(text)
    m.run()
    np.testing.assert_allclose(m["w"], w, rtol=1e-15)


def test_groups_run_in_order_and_see_each_other():
    text = "shared a = 1.0, b = 1.0\nstep first:\n  update a <- a + b\nstep second:\n  update b <- a * 10\n"
    assert printed(text + "train 1 steps of first, second\nprint a, b") == "2.0 20.0\n"
    assert printed(text + "train 1 steps of second, first\nprint a, b") == "11.0 10.0\n"


def test_updates_are_simultaneous():
    assert printed("shared a = 1.0, b = 2.0\nupdate a <- b\nupdate b <- a\ntrain 1 steps\nprint a, b") == "2.0 1.0\n"


def test_minimize_all_except():
    text = "shared a = 1.0, b = 1.0, c = 1.0\ncost C = sqr(a) + sqr(b)\n" \
           "minimize C wrt all except b using sgd(rate = 0.5)\ntrain 1 steps\nprint a, b, c"
    assert printed(text) == "0.0 1.0 1.0\n"


def test_costs_reported():
    m = dsl.compile("scalar X\nshared w = 0.0\ncost C = sqr(w - X)\nminimize C wrt w using sgd(rate = 0.0)")
    assert m.train(epochs=1, X=[1.0, 3.0]).costs == {"C": 5.0}


def test_a_mapped_expression_in_train_needs_its_input():
    assert codes("scalar X, Y\nshared w = 0.0\ncost C = sqr(w * X - Y)\nminimize C wrt w using sgd()\n"
                 "train 1 epochs over X = ones(3)") == ["E0407"]


# ---------------------------------------------------------------- from outside
def test_overrides():
    text = "let rate = 0.1\ndim k = 3\nlet flag = true\nprint rate, k, flag"
    assert printed(text) == "0.1 3 true\n"
    assert printed(text, overrides={"rate": 0.5, "k": 4, "flag": "false"}) == "0.5 4 false\n"
    assert codes(text, overrides={"k": 2.5}) == ["E0901"]
    assert codes(text, overrides={"rte": 1}) == ["E0901"]
    assert codes("let a = 1 + 1", overrides={"a": 1}) == ["E0901"]


def test_data_given():
    text = 'data A = csv("not_there.csv")\nlet y = sum(A)'
    assert value(text, data={"A": [1.0, 2.0]}) == 3.0
    assert value("data A, B = split(ones(4), test = 0.5)\nlet y = sum(A) + sum(B)", data={"A": [5.0]}) == 7.0


# ---------------------------------------------------------------- errors
def test_all_errors_at_once_and_none_twice():
    text = """
let a = unknown1 + 1
let b = a * 2
cost C = b + a
grad g = C wrt a
shared w = 0.0
update w <- w - g
train 3 steps
print a, b, C, g
let c = unknown2
def f(x) = x + c
print f(1)
"""
    assert codes(text) == ["E0301", "E0301"]


def test_what_could_not_be_parsed_is_not_reported_as_unknown():
    assert codes("let a = (1 + 2\nlet b = a + 1\nprint b\ndef f(x):\n  let y = x *\n  return y\nprint f(1)") == ["E0101", "E0127"]


def test_a_failed_optimiser_and_def_are_reported_once():
    assert codes("def f(x, x) = x\nprint f(1)") == ["E0135"]
    assert codes("optimizer o(rate = 1) for p, g:\n  update p <- p - g\nshared w = 1.0\ncost C = sqr(w)\n"
                 "minimize C wrt w using o()\ntrain 2 steps") == ["E0410"]


# ---------------------------------------------------------------- binding again
class Repl:
    def __init__(self) -> None:
        self.out = io.StringIO()
        self.session = dsl.Session(interactive=True, stdout=self.out, quiet=True)

    def __call__(self, text: str) -> list[str]:
        """Runs one entry; what was elaborated again."""
        items = self.session.load(Source("<repl>", text))
        self.session.run([i for i in items if not isinstance(i, program.SharedState)])
        return self.session.elaborator.reelaborated

    def shows(self, text: str) -> str:
        before = len(self.out.getvalue())
        self(f"print {text}")
        return self.out.getvalue()[before:].rstrip("\n")


def test_binding_again_follows():
    repl = Repl()
    for line in ("let a = 2", "let b = a * 3", "def f(x) = x + a", "let c = b + f(1)", "let d = 7"):
        assert repl(line) == []
    assert repl.shows("a, b, c, d") == "2.0 6.0 9.0 7.0"
    assert repl("let a = 10") == ["b", "f", "c"]
    assert repl.shows("b, c") == "30.0 41.0"
    assert repl("let b = 1") == ["c"]
    assert repl.shows("a, c") == "10.0 12.0"
    assert repl("let a = 0") == ["f", "c"]
    assert repl.shows("b, c") == "1.0 2.0"


def test_binding_again_keeps_state_and_follows_into_updates():
    repl = Repl()
    for line in ("shared w = 1.0", "let rate = 0.5", "cost C = sqr(w)", "grad g = C wrt w", "update w <- w - rate * g", "train 1 steps"):
        repl(line)
    assert repl.shows("w") == "0.0"
    assert repl("shared w = 4.0") == ["C", "g", "update w"]
    assert repl("let rate = 0.25") == ["update w"]
    repl("train 1 steps")
    assert repl.shows("w") == "2.0"
    assert repl("cost C = 2 * w") == ["g", "update w"]
    repl("train 1 steps")
    assert repl.shows("w") == "1.5"
    assert repl("update w <- w + 1") == []
    repl("train 1 steps")
    assert repl.shows("w") == "2.5"


def test_an_optimiser_may_be_chosen_again():
    repl = Repl()
    for line in ("shared w = 8.0", "cost C = sqr(w)", "minimize C wrt w using sgd(rate = 0.25)", "train 1 steps"):
        repl(line)
    assert repl.shows("w") == "4.0"
    repl("minimize C wrt w using sgd(rate = 0.5)")
    repl("train 1 steps")
    assert repl.shows("w") == "0.0"
    assert repl("cost C = sqr(w - 3)") == ["minimize C"]
    repl("train 1 steps")
    assert repl.shows("w") == "3.0"


def test_a_failed_binding_changes_nothing():
    repl = Repl()
    for line in ("let a = [1, 2]", "let b = a + [10, 20]"):
        repl(line)
    with pytest.raises(LrError) as caught:
        repl("let a = [1, 2, 3]")
    assert "elaborated again because `a` changed; nothing has been bound" in str(caught.value)
    assert repl.shows("a, b") == "[1 2] [11 22]"
    with pytest.raises(LrError):
        repl("let b = nonsense")
    assert repl.shows("b") == "[11 22]"


def test_draws_stay_when_elaborated_again():
    repl = Repl()
    repl("let a = 1")
    repl("let b = a + 0 * normal(2) + normal(2)")
    before = repl.shows("b")
    repl("let a = 1")
    assert repl.shows("b") == before


# ---------------------------------------------------------------- bounds
def test_a_chain_of_doublings_ends():
    text = "def f0(x) = x + sin(x)\n" + "".join(f"def f{i}(x) = f{i - 1}(f{i - 1}(x))\n" for i in range(1, 60)) + "print f59(1)"
    assert codes(text) == ["E0505"]


def test_a_chain_of_lets_is_shared():
    text = "let a0 = 1.0\n" + "".join(f"let a{i} = a{i - 1} + a{i - 1}\n" for i in range(1, 60)) + "print a59"
    assert printed(text) == "5.764607523034235e+17\n"


def test_deep_nesting_is_an_error_or_works():
    assert printed("let y = " + "(" * 40 + "1" + ")" * 40 + "\nprint y") == "1.0\n"
    assert codes("let y = " + "-(" * 5000 + "1" + ")" * 5000)[0].startswith("E010")


# ---------------------------------------------------------------- mutated scripts
SCRIPTS = [p.read_text(encoding="utf-8") for p in sorted((Path(__file__).parent / "bad").glob("*.lr"))] + [
    "dim k = 2\nmatrix X[n, d]\nvector Y[n]\nshared W[d, k] = 0.1 * normal(), b[k] = 0\nmodel P = softmax(X @ W + b)\n"
    "cost C = mean(xent(X @ W + b, int(Y)))\nminimize C wrt all using adam(rate = 0.1)\n"
    "train 2 epochs over X = ones(6, 3), Y = zeros(6) batch 2 shuffle:\n  every 1 epochs: print C\n",
    "scalar x\ndef f(a, b = 2) = a * b\nlet y = f(x) + (f(x, 3) with x = 2)\ngrad g = y wrt x\nprint g, y with x = [1, 2]\n",
    "data A = arange(12)\ndata B = reshape(A, (3, 4))\ndata C = B[B[:, 0] > 2]\nprint B[1:, None], C, B.T @ B\n",
]
WORDS = sorted({w for text in SCRIPTS for w in text.replace("(", " ").replace(")", " ").split() if len(w) < 12})


def mutate(text: str, draw: random.Random) -> str:
    words = text.replace("\n", " \n ").replace("(", " ( ").replace(")", " ) ").replace(",", " , ").split(" ")
    for _ in range(draw.randint(1, 3)):
        place = draw.randrange(len(words))
        match draw.randrange(4):
            case 0:
                words[place] = draw.choice(WORDS)
            case 1:
                words.insert(place, draw.choice(WORDS))
            case 2:
                del words[place]
            case _:
                other = draw.randrange(len(words))
                words[place], words[other] = words[other], words[place]
        if not words:
            return ""
    return " ".join(words).replace(" \n ", "\n")


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False))
def test_mutated_scripts_raise_nothing_else(draw):
    text = mutate(draw.choice(SCRIPTS), draw)
    session = dsl.Session(base=Path(__file__).parent / "bad", stdout=io.StringIO(), quiet=True)
    try:
        session.load(Source("mutated.lr", text))
    except LrError as problem:
        assert str(problem)
