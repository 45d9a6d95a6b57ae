"""`lr fmt`: the canonical form, on what it must keep (the tree, every comment and its place) and on what it must change."""

import os
import random
import re
import stat
import sys
from itertools import chain
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_syntax import STATEMENTS
from test_traps import CASES
from ugly_scripts import check, kinds, script, tree, uglify

import dsl
from dsl.cli import commands
from dsl.error_index import ENTRIES
from dsl.errors import LrError, Source
from dsl.syntax import ast
from dsl.syntax.format import WIDTH, format_source
from dsl.syntax.parse import parse

sys.path.insert(0, str(Path(__file__).parent))
ROOT = Path(dsl.__file__).parent.parent
SHIPPED = [*sorted((ROOT / "examples").rglob("*.lr")), *sorted((ROOT / "dsl/library").glob("*.lr"))]


def formatted(text: str) -> str:
    return format_source(Source("script", text))


# ---------------------------------------------------------------- what is kept
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_what_ships_is_in_canonical_form(path):
    text = path.read_text(encoding="utf-8")
    assert check(text) == text, f"lr fmt {path.relative_to(ROOT)}"


@pytest.mark.parametrize("path", sorted((ROOT / "tests/good").glob("*.lr")), ids=lambda path: path.name)
def test_good_scripts(path):
    check(path.read_text(encoding="utf-8"))


def test_scripts_of_the_error_index_and_the_traps():
    """Those with a syntax error are refused, with its code."""
    refused = 0
    examples = [(e.code, text) for e in ENTRIES.values() if e.kind == "script" for text in (e.example, e.fix)]
    traps = [("", f"{declarations}\nlet y = {expression}\n") for _, _, declarations, expression, *_ in CASES]
    for code, text in chain(examples, traps, [("", text) for text, _ in STATEMENTS]):
        _, problems = parse(Source("script", text))
        if {p.code for p in problems} - {"E0104"}:
            refused += 1
            with pytest.raises(LrError) as caught:
                formatted(text)
            assert code in {"", *(d.code for d in caught.value.diagnostics)}
        else:
            check(text)
    assert 20 < refused < 120


def test_random_scripts_as_no_one_should_write_them():
    """`make fuzz` takes 1,000; each holds comments, line ends and spaces wherever they may stand."""
    seen: set[str] = set()
    for seed in range(200):
        rng = random.Random(seed)
        text = uglify(rng, script(rng))
        check(text)
        seen |= kinds(tree(text))
    every = {cls.__name__ for base in (ast.Statement, ast.Expr) for cls in base.__subclasses__()}
    assert every - seen <= {"Bare", "GoOn", "Held"}, sorted(every - seen)


def test_random_programs_as_no_one_should_write_them():
    from random_programs import generate
    from wide_programs import generate as generate_wide
    for seed in range(25):
        for program in (generate(seed), generate_wide(seed)[0]):
            check(program.source)
            check(uglify(random.Random(seed), program.source))


def test_the_check_itself_sees_what_is_wrong(monkeypatch):
    def wrong(change):
        monkeypatch.setattr("ugly_scripts.format_source", lambda source: change(format_source(source)))
        with pytest.raises(AssertionError):
            check("let a = [1, 2]  # one\nprint a  # two\n")
    wrong(lambda text: text.replace("# one", ""))
    wrong(lambda text: text.replace("# one", "# two"))
    wrong(lambda text: text.replace("  # one\n", "\n# one\n").replace("let", "\nlet", 1))
    wrong(lambda text: text.replace("[1, 2]", "[1, 2, 3]"))
    wrong(lambda text: "let a = [1, 2]\nprint a  # one # two\n")
    wrong(lambda text: text + "\n")


def test_a_formatter_that_errs_is_not_believed(monkeypatch):
    from dsl.syntax import format
    from dsl.syntax.spacing import Spacing
    monkeypatch.setattr(Spacing, "before", lambda self, i: 0 if self.pieces[i].kind == "NUMBER" else 1)
    with pytest.raises((AssertionError, LrError)):
        format.format_source(Source("script", "let a = b ** 2\nprint 1"))


# ---------------------------------------------------------------- what is changed
FORMS = [
    ("let a=1", "let a = 1\n"),
    ("let   a  =  b[ 1 : , None ]*-c . T", "let a = b[1:, None] * -c.T\n"),
    ("print x [ : , : 8 ],x[::-1],x[n-1:],x[...,0]", "print x[:, :8], x[::-1], x[n - 1:], x[..., 0]\n"),
    ("print f( a,b = 1 ) [ 0 ]", "print f(a, b = 1)[0]\n"),
    ("print a**2, a ** 2, a **b, 2**-1", "print a**2, a ** 2, a ** b, 2**-1\n"),
    ("print - - x, not  x, a - -b, -  1", "print --x, not x, a - -b, -1\n"),
    ("print ((a)), (a,), (a ,b,), [1,2,], ( )", "print ((a)), (a,), (a, b), [1, 2], ()\n"),
    ("print w<-1", "print w < -1\n"),
    ("update w<-w-1", "update w <- w - 1\n"),
    ("shared s< lower = 0,upper=1 >[k]=1,t<simplex>= 2", "shared s<lower=0, upper=1>[k] = 1, t<simplex> = 2\n"),
    ("shared s< lower=(1,), upper=[ 2 ] > [ k ]=1", "shared s<lower=(1,), upper=[2]>[k] = 1\n"),
    ("int  vector u [ n ] , v[ 2*n ]", "int vector u[n], v[2 * n]\n"),
    ("print if a>1 then b else c,where(a and b or not c,1,2)", "print if a > 1 then b else c, where(a and b or not c, 1, 2)\n"),
    ("let z=scan((p,q)=(0,1)for t in ts:(q,p+q))", "let z = scan((p, q) = (0, 1) for t in ts: (q, p + q))\n"),
    ("let z=iterate(v=a while v>1 max 10:v/2)", "let z = iterate(v = a while v > 1 max 10: v / 2)\n"),
    ("def f(x,y=1)=x+y", "def f(x, y = 1) = x + y\n"),
    ("def f(x)=x with vjp(g)=g*2", "def f(x) = x with vjp(g) = g * 2\n"),
    ('print "a  b" , "#"#c', 'print "a  b", "#"  #c\n'),
    ("print 1 ;print 2;;", "print 1 ; print 2\n"),
    ("print 007, 1E+5, .50, 2.", "print 007, 1E+5, .50, 2.\n"),
    ("print 2 .T", "print 2 .T\n"),
    ("\n\n# a\n\n\n\nprint 1\n\n\n# b\n\n", "# a\n\nprint 1\n\n# b\n"),
    ("test \"a\":\n\n\n    print 1\n\n\n    # in\n# out\n", 'test "a":\n  print 1\n\n  # in\n# out\n'),
    ("train 3 epochs:every 1 epochs:print C;print D", "train 3 epochs: every 1 epochs: print C ; print D\n"),
    ("train 3 epochs: # c\n      # d\n      every 1 epochs:\n         print C",
     "train 3 epochs:  # c\n  # d\n  every 1 epochs:\n    print C\n"),
    ("step a:\n\tupdate w <- 1 # tab", "step a:\n  update w <- 1   # tab\n"),
    ("\ufeffprint 1\r\nprint 2\r\n", "print 1\nprint 2\n"),
    ("print 1;  #> 1\nprint 2", "print 1\n#> 1\nprint 2\n"),
    ("print 1 # a\n  # b\n ; print 2", "print 1  # a\n# b\nprint 2\n"),
    ("print 1\n  # b\n ; print 2 ; print 3", "print 1\n# b\nprint 2 ; print 3\n"),
    ("let a = b+\n c", "let a = b +\n    c\n"),
    ("let a = b\n + c", "let a = b\n    + c\n"),
    ("let a = f(\nb, c)", "let a = f(\n  b, c\n)\n"),
    ("let a = f(b,\n c\n )", "let a = f(b,\n          c)\n"),
    ("let A = [[1,2],\n[3,4],\n]", "let A = [[1, 2],\n         [3, 4]]\n"),
    ("let A = [\n [1,2], # one\n # two\n [3,4],\n]", "let A = [\n  [1, 2],  # one\n  # two\n  [3, 4],\n]\n"),
    ("let f\n = 1", "let f = 1\n"),
    ("", ""),
    ("\n \n", ""),
    ("# only", "# only\n"),
]


@pytest.mark.parametrize(("given", "expected"), FORMS, ids=[given[:40] for given, _ in FORMS])
def test_form(given, expected):
    assert formatted(given) == expected
    check(given)


def test_the_seed_program_stays_as_it_is():
    seed = (ROOT / "examples/linear_regression.lr").read_text(encoding="utf-8")
    assert "cost  C     = " in seed and formatted(seed) == seed


ALIGNED = [
    ("model Y_bar = X\ncost  C     = Y\ngrad  g, h = C wrt w, b\n", None),                             # kept
    ("model  Y_bar  = X\ncost   C      = Y\n", "model Y_bar = X\ncost  C     = Y\n"),                    # as narrow as it can be
    ("let a = 1\nlet bcd = 2\n", None),                                                                  # not made
    ("let a   = 1\nlet bcd = 2\n\nlet e = 3\n", None),
    ("let a   = 1\n\nlet bcd = 2\n", "let a = 1\n\nlet bcd = 2\n"),                                      # not across a blank line
    ("let a   = 1\n# why\nlet bcd = 2\n", "let a = 1\n# why\nlet bcd = 2\n"),
    ("let a   = 1\nlet bcdef = 2\n", "let a = 1\nlet bcdef = 2\n"),                                      # it was none
    ("update w   <- 1\nupdate bcd <- 2\n", None),
    ("matrix X[n]\nvector y[n]\nscalar  z\n", "matrix X[n]\nvector y[n]\nscalar z\n"),
    ("print a      # one\nprint bcd    # two\n", None),                                                  # comments stay in their column
    ("print a*b  # one\nprint b*cd # two\n", "print a * b   # one\nprint b * cd  # two\n"),                   # … together
    ("print a         # one\n", None),
    ("print a" + " " * 150 + "# far\n", "print a  # far\n"),
]


@pytest.mark.parametrize(("given", "expected"), ALIGNED)
def test_alignment(given, expected):
    assert formatted(given) == (expected or given)
    check(given)


LONG = '''let loss = mean(sqr(predicted_values_of_the_model - measured_values) + 0.001 * sum(sqr(weights_of_all_layers)))
def slope(angle, speed, length, friction) = stack([speed, -gravity / length * sin(angle) - friction * speed])
train 1000 epochs over X = training_inputs_of_the_model, Y = training_outputs_of_the_model batch 32 shuffle until C < 1e-3:
  every 10 epochs: print C; print accuracy_of_the_model_on_the_training_rows, accuracy_on_the_test_rows  # c
print classify(first_argument, second_argument, keyword_argument = function(of_this, and_of_that), another = 3) with X = A
let chosen = if condition_of_the_first_kind > 10 then value_of_the_first_kind else if another < 3 then another_value else rest
'''
BROKEN = '''let loss = mean(sqr(predicted_values_of_the_model - measured_values) +
                0.001 * sum(sqr(weights_of_all_layers)))
def slope(angle, speed, length, friction) =
    stack([speed, -gravity / length * sin(angle) - friction * speed])
train 1000 epochs over X = training_inputs_of_the_model, Y = training_outputs_of_the_model batch 32
    shuffle until C < 1e-3:
  every 10 epochs:
    print C ; print accuracy_of_the_model_on_the_training_rows, accuracy_on_the_test_rows  # c
print classify(first_argument, second_argument, keyword_argument = function(of_this, and_of_that),
               another = 3) with X = A
let chosen = if condition_of_the_first_kind > 10 then value_of_the_first_kind
    else if another < 3 then another_value else rest
'''


def test_long_lines_are_broken_where_they_are_bound_most_loosely():
    assert re.sub(" +# c", "  # c", formatted(LONG)) == re.sub(" +# c", "  # c", BROKEN)
    check(LONG)


def test_lines_are_no_longer_than_they_must_be():
    text = "let a = [" + ", ".join(f"[{i}, {i * i}.5, name_{i}]" for i in range(500)) + "]\nprint " + " + ".join(["f(x)"] * 300)
    lines = check(text).splitlines()
    assert max(map(len, lines)) <= WIDTH and len(lines) < 200
    assert "let " + "a" * 200 in check("let " + "a" * 200 + " = " + "b" * 200)          # what cannot be broken


def test_large_scripts_take_no_longer_than_their_length():
    """100 times the words in one array, and the same nesting as is read."""
    formatted("data A = [" + ",".join(map(str, range(10_000))) + "]")
    check("print " + "(" * 90 + "1" + ")" * 90)
    check("print " + "f(" * 90 + "1" + ")" * 90 + " # c")
    formatted("print " + " + ".join("1" * 900))             # whose tree is deeper than Python compares


# ---------------------------------------------------------------- the command
@pytest.fixture
def lr(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*arguments, input=None):
        done = CliRunner().invoke(commands, ["fmt", *map(str, arguments)], input=input, prog_name="lr")
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    return call


def test_rewrites_in_place(lr, tmp_path):
    (tmp_path / "a.lr").write_text("let a=1")
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "deep/er/b.lr").write_text("let b=1")
    (tmp_path / "deep/c.lr").write_text("let c = 1\n")
    (tmp_path / "deep/.hidden").mkdir()
    (tmp_path / "deep/.hidden/d.lr").write_text("let d=1")
    (tmp_path / "deep/notes.txt").write_text("let e=1")
    unchanged = (tmp_path / "deep/c.lr").stat()
    done = lr("a.lr", "deep")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "2 files formatted, 1 file unchanged\n")
    assert [(tmp_path / p).read_text() for p in ("a.lr", "deep/er/b.lr", "deep/.hidden/d.lr", "deep/notes.txt")] == [
        "let a = 1\n", "let b = 1\n", "let d=1", "let e=1"]
    after = (tmp_path / "deep/c.lr").stat()
    assert (after.st_mtime_ns, after.st_ino) == (unchanged.st_mtime_ns, unchanged.st_ino)
    assert not [p for p in tmp_path.rglob("*") if p.name.endswith(".tmp")]
    assert lr("-q", "a.lr", "deep").output == ""


def test_check_and_diff_change_nothing(lr, tmp_path):
    (tmp_path / "a.lr").write_text("let a=1\nlet b = 2")
    (tmp_path / "b.lr").write_text("let a = 1\n")
    done = lr("--check", ".")
    assert (done.exit_code, done.stdout, done.stderr) == (1, "a.lr\n", "1 file would be formatted, 1 file unchanged\n")
    done = lr("--diff", "a.lr", "b.lr")
    assert done.exit_code == 0 and done.stdout.splitlines() == [
        "--- a.lr", "+++ a.lr (formatted)", "@@ -1,2 +1,2 @@", "-let a=1", "-let b = 2", "\\ No newline at end of file",
        "+let a = 1", "+let b = 2"]
    assert lr("--diff", "--check", "a.lr").exit_code == 1
    assert lr("--check", "b.lr").exit_code == 0
    assert (tmp_path / "a.lr").read_text() == "let a=1\nlet b = 2"
    assert "\x1b[32m+let a = 1\x1b[0m" in lr("--diff", "--color", "always", "a.lr").stdout


def test_standard_input(lr):
    assert lr("-", input="let a=1").output == "let a = 1\n"
    assert lr("--check", "-", input="let a=1").exit_code == 1 and lr("--check", "-", input="let a = 1\n").exit_code == 0
    assert lr("-", input=b"\xff").exit_code == 2
    done = lr("-", input="let a = (")
    assert done.exit_code == 1 and done.stdout == "" and "error[E0101]" in done.stderr and "<stdin>:1:9" in done.stderr


def test_what_cannot_be_formatted_is_left_alone(lr, tmp_path):
    (tmp_path / "bad.lr").write_text("let a=(\nprint  1")
    (tmp_path / "latin.lr").write_bytes(b"# caf\xe9\n")
    (tmp_path / "good.lr").write_text("let a=1")
    done = lr("bad.lr", "good.lr")
    assert done.exit_code == 1 and "E0101" in done.stderr and "1 file formatted, 1 file not read" in done.stderr
    assert (tmp_path / "bad.lr").read_text() == "let a=(\nprint  1" and (tmp_path / "good.lr").read_text() == "let a = 1\n"
    done = lr("latin.lr", "none.lr", "good.lr")
    assert done.exit_code == 2 and done.stderr.count("error[E0601]") == 2
    assert (tmp_path / "latin.lr").read_bytes() == b"# caf\xe9\n"
    (tmp_path / "empty").mkdir()
    assert lr("empty").exit_code == 2 and lr().exit_code == 2


def test_what_lies_about_in_a_folder(lr, tmp_path):
    os.mkfifo(tmp_path / "pipe.lr")                         # which nobody writes to
    (tmp_path / "gone.lr").symlink_to("nowhere.lr")
    (tmp_path / "around").symlink_to(".")
    (tmp_path / "folder.lr").mkdir()
    (tmp_path / "a.lr").write_text("let a=1")
    done = lr(".")
    assert done.exit_code == 2 and done.stderr.count("error") == 1 and "cannot read `gone.lr`" in done.stderr
    assert "did you mean" not in done.stderr and "1 file formatted" in done.stderr


def test_what_is_changed_meanwhile_stays(lr, tmp_path, monkeypatch):
    path, fsync = tmp_path / "a.lr", os.fsync
    path.write_text("let a=1")
    monkeypatch.setattr(os, "fsync", lambda file: (fsync(file), path.write_text("let b=2")))
    done = lr("a.lr")
    assert done.exit_code == 2 and "changed meanwhile" in done.stderr and path.read_text() == "let b=2" and len(os.listdir(tmp_path)) == 1


def test_permissions_links_and_line_ends_stay(lr, tmp_path):
    (tmp_path / "real.lr").write_bytes("\ufeff# é\r\nlet a=1\r\n".encode())
    os.chmod(tmp_path / "real.lr", 0o640)
    (tmp_path / "link.lr").symlink_to("real.lr")
    assert lr("link.lr").exit_code == 0
    assert (tmp_path / "link.lr").is_symlink() and (tmp_path / "real.lr").read_bytes() == "# é\r\nlet a = 1\r\n".encode()
    assert stat.S_IMODE((tmp_path / "real.lr").stat().st_mode) == 0o640
    assert lr("--check", "link.lr").exit_code == 0


def test_a_file_that_cannot_be_written_is_as_it_was(lr, tmp_path, monkeypatch):
    (tmp_path / "a.lr").write_text("let a=1")

    def full(*_):
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            done = lr("a.lr")
        assert done.exit_code == 2 and "error[E0609]" in done.stderr and "No space left" in done.stderr
        assert (tmp_path / "a.lr").read_text() == "let a=1" and [p.name for p in tmp_path.iterdir()] == ["a.lr"]
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert lr("a.lr").exit_code == 2
