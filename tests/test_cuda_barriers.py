"""Where whole programs wait: from a table of small ones; and each barrier of others, without which the watched shim sees a race."""

import re
import shutil
from functools import partial
from itertools import product as pairs

import pytest

from dsl.backends.cuda.resident import Shape, WholeProgram
from dsl.backends.cuda.whole import whole_program
from dsl.ir.types import Dim, Size
from dsl.loops.ir import FAULT, Combine, Flag, If, Kernel, Leave, Loop, Product, Program, Store, Swap, Total, While
from dsl.machine.expr import Buffer, const, extent, load, ref
from tests.loop_programs import BY_NAME
from tests.needs import needs
from tests.planted import Loaded, compiled, story
from tests.test_cuda_whole import run, wholes


@pytest.fixture(scope="session", autouse=True)
def gcc():
    needs(shutil.which("g++"), "g++")


n, i = Dim.of(Size("n")), ref("i")
ARRAYS = {name: Buffer(name, "float64", (n,), "state") for name in "uvwxyz"}
SQUARES = {name: Buffer(name, "float64", (n, n), "state") for name in "ABC"}
SCALARS = {name: Buffer(name, "float64", (), "scratch") for name in "rs"}


def kernel(name, out, *read, flag=False):
    """out[i] = the sum of what is read there."""
    value = const(0.0, "float64")
    for each in read:
        value = value + (load(ARRAYS[each], [i]) if each in ARRAYS else load(SCALARS[each]))
    return Kernel(name, "i", extent(n), (*([Flag(value < 0.0)] if flag else []), Store(ARRAYS[out], (i,), value)), (), n)


def added(name, out, read):
    """A total, in a scalar."""
    total = SCALARS[out]
    body = (Combine(load(total), "add", load(ARRAYS[read], [i])),)
    return Kernel(name, "i", extent(n), body, (Total(total, "add", const(0.0, "float64")),), n)


def columns(name, out, read):
    """A total that is an array."""
    total, j = ARRAYS[out], ref("j")
    body = (Loop("j", extent(n), (Combine(load(total, [j]), "add", load(SQUARES[read], [i, j])),)),)
    return Kernel(name, "i", extent(n), body, (Total(total, "add", const(0.0, "float64")),), n)


def multiply(out, a, b):
    return Product(SQUARES[out], SQUARES[a], SQUARES[b], False, False, f"{out}{a}{b}")


def element(out, read):
    return Store(ARRAYS[out], (const(0, "int64"),), load(ARRAYS[read], [const(1, "int64")]))


def loop(*body):
    return Loop("t", extent(n), body)


def while_(*body):
    return While(load(SCALARS["s"]) > 0.0, body)


def course(*body):
    """What a program does between its beginning and its end: kernels by name, `|` where all wait, `+name` where runs are combined."""
    program = Program("p", (*ARRAYS.values(), *SQUARES.values(), *SCALARS.values()), (), body)
    text = whole_program(program).source.rpartition("__launch_bounds__")[2]
    together = re.compile(r"if \(thread == 0\) \{\n(.*?)\n *\}", re.DOTALL)
    text = together.sub(lambda block: re.sub(r"(?m)^ *", "if (thread == 0) ", block[1]), text)
    lines = re.sub(r" *if \(many\w*\) (\{.*?\}|lr_barrier\(arrived\);)\n", "", text, flags=re.DOTALL).splitlines()
    home = [k for k, line in enumerate(lines) if line.strip().startswith("lr_copy(")]
    first = next(k for k, at in enumerate(home) if "_home, " in lines[at].partition("lr_copy(")[2].partition(", ")[0] + ", ")
    words = []
    for line in lines[home[first - 1] + 2:home[first] - 1]:
        match line.strip():
            case text if text.endswith("{"):
                words.append(") else (" if "else" in text else "(")
            case "}":
                words.append(")")
            case "lr_barrier(arrived);":
                words.append("|")
            case text if called := re.match(r"(\w+)_totals\(", text):
                words.append(f"+{called[1]}")
            case text if called := re.match(r"lr_product\((\w), (\w), (\w)", text):
                words.append("".join(called.groups()))
            case text if total := re.match(r"(\w) = many", text):
                words.append(f"+{total[1]}")
            case text if text.startswith("if (thread == 0)"):
                words.append("one")
            case text if called := re.match(r"(\w+)\(", text):
                words.append(called[1].removeprefix("lr_"))
    return " ".join(words)


@pytest.mark.parametrize("wanted, body", [
    ("a b", [kernel("a", "y", "x"), kernel("b", "z", "x")]),
    ("a | b", [kernel("a", "y", "x"), kernel("b", "z", "y")]),
    ("a | b", [kernel("a", "y", "x"), kernel("b", "x", "z")]),
    ("a | b", [kernel("a", "y", "x"), kernel("b", "y", "z")]),
    ("a b | c", [kernel("a", "y", "x"), kernel("b", "z", "x"), kernel("c", "w", "y", "z")]),
    ("a b | +r +s c", [added("a", "r", "x"), added("b", "s", "y"), kernel("c", "z", "r", "s")]),
    ("a | +r b c", [added("a", "r", "x"), kernel("b", "x", "y"), kernel("c", "z", "r")]),
    ("a | +r c | b | +r", [added("a", "r", "x"), kernel("c", "z", "r"), added("b", "r", "x")]),
    ("a b | +a", [columns("a", "y", "A"), kernel("b", "z", "x")]),
    ("a | +a | b", [columns("a", "y", "A"), kernel("b", "z", "y")]),
    ("a b | +a +b | c", [columns("a", "y", "A"), columns("b", "z", "B"), kernel("c", "x", "y", "z")]),
    ("a b | +a +s | c", [columns("a", "y", "A"), added("b", "s", "x"), kernel("c", "z", "y", "s")]),
    ("CAB | ACB", [multiply("C", "A", "B"), multiply("A", "C", "B")]),
    ("CAB | ABB", [multiply("C", "A", "B"), multiply("A", "B", "B")]),
    ("CAB | a | +a", [multiply("C", "A", "B"), columns("a", "y", "C")]),
    ("( | a b )", [loop(kernel("a", "y", "x"), kernel("b", "z", "x"))]),
    ("( | a | b )", [loop(kernel("a", "y", "x"), kernel("b", "x", "y"))]),
    ("( | a swap )", [loop(kernel("a", "y", "x"), Swap(ARRAYS["x"], ARRAYS["y"]))]),
    ("( a swap | b )", [loop(kernel("a", "y", "x"), Swap(ARRAYS["z"], ARRAYS["y"]), kernel("b", "w", "z"))]),
    ("( | a swap b )", [loop(kernel("a", "y", "x"), Swap(ARRAYS["z"], ARRAYS["y"]), kernel("b", "w", "y"))]),
    ("( | a | +s b )", [loop(added("a", "s", "x"), kernel("b", "y", "s"))]),
    ("( a | b | +s )", [while_(kernel("a", "y", "x"), added("b", "s", "y"))]),
    ("( | b | +s a )", [while_(added("b", "s", "y"), Leave(load(SCALARS["s"]) > 9.0), kernel("a", "y", "x"))]),
    ("( | a | )", [while_(kernel("a", "y", "x", flag=True), Leave(FAULT))]),
    ("a b", [kernel("a", "y", "x", flag=True), kernel("b", "z", "x", flag=True)]),
    ("one one", [element("y", "x"), element("z", "x")]),
    ("a | one", [kernel("a", "y", "x"), element("z", "y")]),
    ("one | a", [element("y", "x"), kernel("a", "z", "y")]),
    ("one | a", [element("y", "x"), kernel("a", "y", "z")]),
    ("( | a ( | b ) | c )", [loop(kernel("a", "y", "x"), loop(kernel("b", "z", "y")), kernel("c", "x", "z"))]),
    ("( a ) else ( b ) | c", [If(extent(n) > 3, (kernel("a", "y", "x"),), (kernel("b", "z", "x"),)), kernel("c", "w", "y")]),
    ("( | a | +a swap )", [loop(columns("a", "y", "A"), Swap(ARRAYS["y"], ARRAYS["z"]))]),
    ("( | a | +s swap )", [loop(added("a", "s", "x"), Swap(SCALARS["s"], SCALARS["r"]))]),
    ("( a | +s ) c", [If(extent(n) > 3, (added("a", "s", "x"),)), kernel("c", "w", "s")]),
])
def test_where_they_wait(wanted, body):
    assert course(*body) == wanted



# ---------------------------------------------------------------- barriers, one by one
HOMEWARD = re.compile(r"lr_copy\(\w+_home|for \(long long element|if \(thread == 0\) [*{]")
BARRIER = re.compile(r"\n *(?:if \(\w+\) )?lr_barrier\(arrived\);")
NEEDLESS = {
    "permuted_axes": ["k1(x, flat, d, m, n);"],                          # elements that thread 0 does not write
    "swapped_states": ["k0(row, a, s, m);"],                             # a thread meets its own elements again
    "kernels_that_follow": ["third(b, a, x, n);"],
    "products_of_integers": ["lr_product(b, x, a, 7, 7, n, 7, 1, n, 1);"],
    "statements_between_kernels": [                                      # thread 0 alone
        "if (thread == 0) y[t] = lr_mul(y[t], 3LL);", "if (thread == 0) x[n - 1] = lr_sub(y[t + 1], y[t]);",
        "if (thread == 0) sums[0] = sums[1] & 255;"],
}
"""What stands after barriers that these programs are right without, because of which thread does what."""


def between(source):
    """The barriers inside a program: not those after arrays were copied from home, and before they are brought there."""
    start = source.rindex("__launch_bounds__")

    def inside(m):
        before, after = source[:m.start()].rpartition("\n")[2].strip(), source[m.end():].lstrip()
        return m.start() > start and not before.startswith(("lr_copy(", "bool met")) and not HOMEWARD.match(after)
    return [m for m in BARRIER.finditer(source) if inside(m)]


def what_follows(source, barrier, mark):
    return source[barrier.end():].lstrip().partition("\n")[0].replace(mark, "")


LARGE = {"sum_of_float32": {"n": 33000}, "linear_regression": {"n": 1100, "d": 5}, "sum_of_outer_products": {"n": 1100, "m": 2, "d": 3},
         "totals_of_known_length": {"n": 1100}}
"""With so many runs that one warp combines them."""
WAITING = (*LARGE, *NEEDLESS, "descent_by_batches", "total_of_each_turn", "products_float64", "steps_until_small", "ragged_scratch",
           "until_a_fault", "histogram", "while_of_an_array", "batches_of_float32", "derived_sizes")


def test_barriers_are_needed():
    """Without any one of them the watched shim sees a race, in one block or in a grid."""
    planted = []
    for name in WAITING:
        for number in range(len(between(wholes()[name].source))):
            mark = f"b{len(planted)}_"
            whole = whole_program(BY_NAME[name].program, mark)
            barrier = between(whole.source)[number]
            after = what_follows(whole.source, barrier, mark)
            if after != "}" or name in LARGE:                            # else it is one for many runs
                planted.append((name, after, whole, whole.source[:barrier.start()] + whole.source[barrier.end():]))
    assert {name for name, *_ in planted} == {*WAITING}
    functions = compiled([(source, [whole.function]) for _, _, whole, source in planted], sanitize=True)
    missed = []
    for name, after, whole, _ in planted:
        case = BY_NAME[name]
        executors = [partial(run, WholeProgram(whole, Loaded(functions, seed, sanitize=True)), shape)
                     for seed, shape in pairs(range(2), (Shape(1, 128), Shape(3, 64)))]
        if not story(case, [*case.sizes[-3:], *([LARGE[name]] if name in LARGE else [])], executors):
            missed.append((name, after))
    assert missed == [(name, after) for name, after, *_ in planted if after in NEEDLESS.get(name, [])]
