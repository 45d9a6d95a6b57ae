"""Random programs with their answers.

    python tests/random_programs.py --count 5000 [--seed 0] [--precision float32]

`generate(seed)` gives a well-typed program: inputs with named sizes, and expressions that are built twice at once, as
text in the language and as closures over NumPy.  `check` evaluates the text and compares, at two settings of the sizes;
where the program is smooth it compares the gradient of its sum with central differences along a random direction.
Another backend is checked by giving `check` another `evaluate`.
"""
# ruff: noqa: E501  (tables: one case a line)
from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import special

import dsl

LENGTHS = [{"n": 3, "m": 4, "k": 2}, {"n": 1, "m": 2, "k": 5}]
Values = dict[str, Any]


@dataclass(frozen=True)
class Term:
    """An expression: its text, its meaning in NumPy, its dtype (`f`, `i` or `b`) and its shape in size names and numbers.

    `smooth`: it has no kink and no jump in any float input, so a derivative may be compared with differences."""

    text: str
    run: Callable[[Values], Any]
    kind: str
    shape: tuple[str | int, ...]
    smooth: bool = True


@dataclass
class Program:
    inputs: dict[str, Term]
    lets: list[tuple[str, Term]]
    result: Term
    seed: int = 0
    source: str = field(init=False)

    def __post_init__(self) -> None:
        words = {"f": "", "i": "int ", "b": "bool "}
        kinds = ("scalar", "vector", "matrix", "tensor")
        lines = [f"{words[t.kind]}{kinds[len(t.shape)]} {name}{'' if anonymous(t) or not t.shape else '[' + ', '.join(map(str, t.shape)) + ']'}"
                 for name, t in self.inputs.items()]
        lines += [f"let {name} = {term.text}" for name, term in self.lets]
        self.source = "\n".join([*lines, f"let result = {self.result.text}"])

    @property
    def smooth(self) -> bool:
        return self.result.kind == "f" and self.result.smooth


# ---------------------------------------------------------------- meanings
def _softmax(x: Any, axis: int = -1) -> Any:
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / np.sum(e, axis=axis, keepdims=True)


UNARY = {                                            # name: meaning, smooth; arguments are of moderate size
    "exp": (lambda x: np.exp(x), True), "expm1": (np.expm1, True), "sin": (np.sin, True), "cos": (np.cos, True), "tanh": (np.tanh, True),
    "atan": (np.arctan, True), "sinh": (np.sinh, True), "sigmoid": (special.expit, True), "softplus": (lambda x: np.logaddexp(0, x), True),
    "sqr": (np.square, True), "erf": (special.erf, True), "gelu": (lambda x: 0.5 * x * special.erfc(-x / np.sqrt(2)), True),
    "silu": (lambda x: x * special.expit(x), True), "softsign": (lambda x: x / (1 + np.abs(x)), False), "abs": (np.abs, False),
    "relu": (lambda x: np.maximum(x, 0), False), "leaky_relu": (lambda x: np.where(x > 0, x, 0.01 * x), False), "sign": (np.sign, False),
    "cbrt": (np.cbrt, False), "floor": (np.floor, False), "round": (np.round, False), "stop_grad": (lambda x: x, False),
}
GUARDED = {"log": (np.log, "1.5 + sqr({})", lambda x: 1.5 + x * x), "sqrt": (np.sqrt, "1.5 + sqr({})", lambda x: 1.5 + x * x),
           "log1p": (np.log1p, "abs({})", np.abs), "asin": (np.arcsin, "0.9 * tanh({})", lambda x: 0.9 * np.tanh(x)),
           "lgamma": (special.gammaln, "1.0 + softplus({})", lambda x: 1 + np.logaddexp(0, x))}
BINARY = {"+": (np.add, True), "-": (np.subtract, True), "*": (np.multiply, True), "hypot": (lambda a, b: np.hypot(a, b), False),
          "maximum": (np.maximum, False), "minimum": (np.minimum, False), "logaddexp": (np.logaddexp, True), "atan2": (np.arctan2, False)}
REDUCE = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min, "prod": np.prod, "norm": lambda x, axis, keepdims: np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims)),
          "logsumexp": lambda x, axis, keepdims: special.logsumexp(x, axis=axis, keepdims=keepdims), "var": np.var, "std": np.std}


# ---------------------------------------------------------------- the generator
class Generator:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.inputs: dict[str, Term] = {}
        self.lets: list[tuple[str, Term]] = []
        self.budget = self.rng.randint(3, 14)

    def program(self, seed: int) -> Program:
        for _ in range(self.rng.choice([0, 0, 1, 2])):
            name = f"y{len(self.lets)}"
            term = self.term("f", self.shape(), 3)
            self.lets.append((name, term))
        kind, shape = self.rng.choice("ffffib"), self.shape()
        result = self.term(kind, shape, 5)
        while result.text.lstrip("-").isdigit():                             # bound to a name, it would be a float
            result = self.term(kind, shape, 5)
        return Program(self.inputs, self.lets, result, seed)

    def shape(self, rank: int | None = None) -> tuple[str | int, ...]:
        rank = self.rng.choice([0, 1, 1, 2, 2, 3]) if rank is None else rank
        return tuple(self.rng.choice(["n", "m", "k", "n", "m", 2]) for _ in range(rank))

    def leaf(self, kind: str, shape: tuple[str | int, ...]) -> Term:
        old = [n for n, t in self.inputs.items() if (t.kind, t.shape) == (kind, shape)]
        lets = [(n, t) for n, t in self.lets if (t.kind, t.shape) == (kind, shape)]
        if lets and self.rng.random() < 0.6:
            name, term = self.rng.choice(lets)
            return Term(name, term.run, kind, shape, term.smooth)
        if not shape and self.rng.random() < 0.4:
            value = {"f": self.rng.choice([0.5, -1.25, 2.0, 0.1]), "i": self.rng.choice([0, 1, 2, -3]), "b": self.rng.random() < 0.5}[kind]
            return Term(str(value).lower(), lambda v: value, kind, ())
        if old and self.rng.random() < 0.7:
            name = self.rng.choice(old)
        else:
            name = f"{kind}{len(self.inputs)}"
            self.inputs[name] = Term(name, lambda v: v[name], kind, shape)
        return self.inputs[name]

    def term(self, kind: str, shape: tuple[str | int, ...], depth: int) -> Term:
        """Any expression of this kind and shape."""
        self.budget -= 1
        if depth <= 0 or self.budget <= 0:
            return self.leaf(kind, shape)
        makers = self.makers(kind)
        for _ in range(20):
            made = self.rng.choice(makers)(kind, shape, depth - 1)
            if made is not None:
                return made
        return self.leaf(kind, shape)

    def makers(self, kind: str) -> list[Callable[..., Term | None]]:
        return {"f": [self.unary, self.unary, self.binary, self.binary, self.guarded, self.divide, self.reduce, self.where, self.move, self.slice, self.matmul,
                      self.rowwise, self.power, self.gather, self.cumulate, self.convert, self.join, self.clip],
                "i": [self.integer, self.integer, self.where, self.move, self.reduce, self.argument, self.slice, self.gather, self.join],
                "b": [self.compare, self.compare, self.logic, self.move, self.slice]}[kind]

    def thin(self, shape: tuple[str | int, ...]) -> tuple[str | int, ...]:
        """A shape that broadcasts to this one: fewer leading axes, some of length 1."""
        if self.rng.random() < 0.6:
            return shape
        return tuple(1 if self.rng.random() < 0.3 else d for d in shape[self.rng.randint(0, len(shape)):])

    def pair(self, kind: str, shape: tuple[str | int, ...], depth: int) -> tuple[Term, Term]:
        terms = [self.term(kind, shape, depth), self.term(kind, self.thin(shape), depth)]
        self.rng.shuffle(terms)
        return terms[0], terms[1]

    # ------------------------------------------------------------ element-wise
    def unary(self, kind, shape, depth):
        name = self.rng.choice(list(UNARY))
        function, smooth = UNARY[name]
        x = self.term("f", shape, depth)
        if name in ("exp", "expm1", "sinh", "sqr"):
            return Term(f"{name}(tanh({x.text}))", lambda v: function(np.tanh(x.run(v))), "f", shape, x.smooth)
        return Term(f"{name}({x.text})", lambda v: function(x.run(v)), "f", shape, x.smooth and smooth)

    def guarded(self, kind, shape, depth):
        name = self.rng.choice(list(GUARDED))
        function, text, guard = GUARDED[name]
        x = self.term("f", shape, depth)
        return Term(f"{name}({text.format(x.text)})", lambda v: function(guard(x.run(v))), "f", shape, x.smooth and name != "log1p")

    def binary(self, kind, shape, depth):
        name = self.rng.choice([*BINARY, *"+-*"])
        function, smooth = BINARY[name]
        a, b = self.pair("f", shape, depth)
        text = f"({a.text} {name} {b.text})" if name in "+-*" else f"{name}({a.text}, {b.text})"
        return Term(text, lambda v: function(a.run(v), b.run(v)), "f", shape, a.smooth and b.smooth and smooth)

    def divide(self, kind, shape, depth):
        a, b = self.pair("f", shape, depth)
        return Term(f"({a.text} / (1.25 + sqr({b.text})))", lambda v: a.run(v) / (1.25 + np.square(b.run(v))), "f", shape, a.smooth and b.smooth)

    def power(self, kind, shape, depth):
        x, n = self.term("f", shape, depth), self.rng.choice([0, 1, 2, 3, -1, 0.5])
        return Term(f"(1 + sigmoid({x.text})) ** {n}", lambda v: (1 + special.expit(x.run(v))) ** n, "f", shape, x.smooth)

    def clip(self, kind, shape, depth):
        x = self.term("f", shape, depth)
        return Term(f"clip({x.text}, -0.75, 1)", lambda v: np.clip(x.run(v), -0.75, 1), "f", shape, False)

    def where(self, kind, shape, depth):
        c, (a, b) = self.term("b", self.thin(shape), depth), self.pair(kind, shape, depth)
        form = "where({}, {}, {})" if self.rng.random() < 0.7 else "(if {} then {} else {})"
        return Term(form.format(c.text, a.text, b.text), lambda v: np.where(c.run(v), a.run(v), b.run(v)), kind, shape, a.smooth and b.smooth and c.smooth)

    def compare(self, kind, shape, depth):
        op, function = self.rng.choice([("<", np.less), ("<=", np.less_equal), (">", np.greater), (">=", np.greater_equal), ("==", np.equal), ("!=", np.not_equal)])
        a, b = self.pair("i" if op in ("==", "!=") else self.rng.choice("fi"), shape, depth)
        return Term(f"({a.text} {op} {b.text})", lambda v: function(a.run(v), b.run(v)), "b", shape, a.kind == "i" and a.smooth and b.smooth)

    def logic(self, kind, shape, depth):
        if self.rng.random() < 0.3:
            x = self.term("b", shape, depth)
            return Term(f"(not {x.text})", lambda v: np.logical_not(x.run(v)), "b", shape, x.smooth)
        a, b = self.pair("b", shape, depth)
        op, function = self.rng.choice([("and", np.logical_and), ("or", np.logical_or)])
        return Term(f"({a.text} {op} {b.text})", lambda v: function(a.run(v), b.run(v)), "b", shape, a.smooth and b.smooth)

    def integer(self, kind, shape, depth):
        a, b = self.pair("i", shape, depth)
        op, function = self.rng.choice([("+", np.add), ("-", np.subtract), ("*", np.multiply), ("//", np.floor_divide), ("%", np.mod), ("max", np.maximum)])
        if op in ("//", "%"):
            return Term(f"({a.text} {op} (1 + abs({b.text} % 1000)))", lambda v: function(a.run(v), 1 + np.abs(b.run(v) % np.int64(1000))), "i", shape, a.smooth and b.smooth)
        text = f"maximum({a.text}, {b.text})" if op == "max" else f"({a.text} {op} {b.text})"
        return Term(text, lambda v: function(a.run(v), b.run(v)), "i", shape, a.smooth and b.smooth)

    def convert(self, kind, shape, depth):
        x = self.term(self.rng.choice("ib"), shape, depth)
        scaled = x.kind == "i"
        return Term(f"float({x.text} % 7)" if scaled else f"float({x.text})", lambda v: np.asarray(x.run(v) % np.int64(7) if scaled else x.run(v)).astype(float), "f", shape, x.smooth)

    # ------------------------------------------------------------ shapes
    def move(self, kind, shape, depth):
        if len(shape) == 2 and self.rng.random() < 0.5:
            x = self.term(kind, shape[::-1], depth)
            return Term(f"{_atom(x.text)}.T", lambda v: np.transpose(x.run(v)), kind, shape, x.smooth)
        if len(shape) == 3:
            order = self.rng.sample(range(3), 3)
            source = tuple(shape[order.index(i)] for i in range(3))
            x = self.term(kind, source, depth)
            return Term(f"transpose({x.text}, axes = ({', '.join(map(str, order))}))", lambda v: np.transpose(x.run(v), order), kind, shape, x.smooth)
        if shape and 1 not in shape and self.rng.random() < 0.5:
            x = self.term(kind, shape, depth)
            flat = "reshape({}, -1)" if self.rng.random() < 0.5 else "reshape({}, size({}))".replace("size({})", " * ".join(map(str, shape)))
            return Term(f"reshape({flat.format(x.text)}, ({', '.join(map(str, shape))},))" if len(shape) > 1 else flat.format(x.text), lambda v: x.run(v), kind, shape, x.smooth)
        if 1 in shape:
            axis = shape.index(1)
            x = self.term(kind, shape[:axis] + shape[axis + 1:], depth)
            return Term(f"expand_dims({x.text}, {axis})", lambda v: np.expand_dims(x.run(v), axis), kind, shape, x.smooth)
        return None

    def slice(self, kind, shape, depth):
        way = self.rng.choice(["reverse", "pick", "tail"])
        if way == "pick":
            axis = self.rng.randint(0, len(shape))
            if len(shape) == 3:
                return None
            place = self.rng.choice([0, -1])
            x = self.term(kind, (*shape[:axis], self.rng.choice(["n", "m", 2]), *shape[axis:]), depth)
            index = (*[slice(None)] * axis, place)
            return Term(f"{_atom(x.text)}[{', '.join([*[':'] * axis, str(place)])}]", lambda v: np.asarray(x.run(v))[index], kind, shape, x.smooth)
        if not shape:
            return None
        axis = self.rng.randrange(len(shape))
        x = self.term(kind, shape, depth)
        if way == "reverse":
            index = (*[slice(None)] * axis, slice(None, None, -1))
            return Term(f"{_atom(x.text)}[{', '.join([*[':'] * axis, '::-1'])}]", lambda v: np.asarray(x.run(v))[index], kind, shape, x.smooth)
        y = self.term(kind, (*shape[:axis], 2, *shape[axis + 1:]), depth)                    # join two, take the tail again
        index = (*[slice(None)] * axis, slice(2, None))
        return Term(f"concat(({y.text}, {x.text}), axis = {axis})[{', '.join([*[':'] * axis, '2:'])}]",
                    lambda v: np.concatenate((y.run(v), x.run(v)), axis)[index], kind, shape, x.smooth and y.smooth)

    def join(self, kind, shape, depth):
        if 2 not in shape:
            return None
        axis = shape.index(2)
        rest = shape[:axis] + shape[axis + 1:]
        a, b = self.term(kind, rest, depth), self.term(kind, rest, depth)
        return Term(f"stack(({a.text}, {b.text}), axis = {axis})", lambda v: np.stack((a.run(v), b.run(v)), axis), kind, shape, a.smooth and b.smooth)

    def gather(self, kind, shape, depth):
        if not shape:
            return None
        x = self.term(kind, (2, *shape[1:]), depth)
        i = self.term("i", shape[:1], depth)
        return Term(f"{_atom(x.text)}[{i.text} % 2]", lambda v: np.asarray(x.run(v))[np.asarray(i.run(v)) % np.int64(2)], kind, shape, x.smooth and i.smooth)

    # ------------------------------------------------------------ along axes
    def reduce(self, kind, shape, depth):
        if len(shape) == 3:
            return None
        name = self.rng.choice(["sum", "max", "min"] if kind == "i" else list(REDUCE))
        axis = self.rng.randint(0, len(shape))
        x = self.term(kind, (*shape[:axis], self.rng.choice(["n", "m", 2]), *shape[axis:]), depth)
        function = REDUCE[name]
        text = f"{name}({x.text}, axis = {axis - len(shape) - 1 if self.rng.random() < 0.5 else axis})"
        smooth = x.smooth and (kind == "i" or name not in ("max", "min", "norm", "std"))
        return Term(text, lambda v: function(np.asarray(x.run(v)), axis=axis, keepdims=False), kind, shape, smooth)

    def rowwise(self, kind, shape, depth):
        if not shape:
            return None
        axis = self.rng.randrange(len(shape))
        x, name = self.term("f", shape, depth), self.rng.choice(["softmax", "log_softmax"])
        text = f"{name}({x.text}, axis = {axis})" if axis != len(shape) - 1 or self.rng.random() < 0.5 else f"{name}({x.text})"
        return Term(text, lambda v: _softmax(x.run(v), axis) if name == "softmax" else special.log_softmax(x.run(v), axis), "f", shape, x.smooth)

    def cumulate(self, kind, shape, depth):
        if not shape:
            return None
        axis = self.rng.randrange(len(shape))
        x, (name, function) = self.term("f", shape, depth), self.rng.choice([("cumsum", np.cumsum), ("cumprod", np.cumprod)])
        return Term(f"{name}({x.text}, {axis})", lambda v: function(x.run(v), axis), "f", shape, x.smooth)

    def argument(self, kind, shape, depth):
        if len(shape) == 3:
            return None
        name, function = self.rng.choice([("argmax", np.argmax), ("argmin", np.argmin)])
        axis = self.rng.randint(0, len(shape))
        x = self.term("i", (*shape[:axis], self.rng.choice(["n", "m", 2]), *shape[axis:]), depth)
        return Term(f"{name}({x.text}, {axis})", lambda v: function(np.asarray(x.run(v)), axis), "i", shape, x.smooth)

    def matmul(self, kind, shape, depth):
        if not shape or len(shape) > 3:
            return None
        inner = self.rng.choice(["n", "m", "k"])
        if len(shape) == 1:
            left, right = ((shape[0], inner), (inner,)) if self.rng.random() < 0.5 else ((inner,), (inner, shape[0]))
        else:
            left, right = (*shape[:-1], inner), (inner, shape[-1])
        a, b = self.term("f", left, depth), self.term("f", right, depth)
        return Term(f"({a.text} @ {b.text})", lambda v: np.matmul(a.run(v), b.run(v)), "f", shape, a.smooth and b.smooth)


def _atom(text: str) -> str:
    return text if text.replace("_", "").isalnum() and not text[0].isdigit() else f"({text})"


def generate(seed: int) -> Program:
    return Generator(seed).program(seed)


# ---------------------------------------------------------------- checking
def anonymous(term: Term) -> bool:
    """Whether an input's sizes have no names: `n?` is n for the first setting of the sizes and 1 for others, `n!` the reverse."""
    return any(str(d).endswith(("?", "!")) for d in term.shape)


def length(d: str | int, sizes: dict[str, int]) -> int:
    if isinstance(d, int):
        return d
    return sizes[d.rstrip("?!")] if d.isalnum() or d.endswith("?") == (sizes == LENGTHS[0]) else 1


def values_of(program: Program, sizes: dict[str, int]) -> Values:
    rng = np.random.default_rng(program.seed)
    result: Values = {}
    for name, term in program.inputs.items():
        shape = tuple(length(d, sizes) for d in term.shape)
        result[name] = {"f": lambda s=shape: rng.uniform(-1.5, 1.5, s), "i": lambda s=shape: rng.integers(-5, 6, s),
                        "b": lambda s=shape: rng.integers(0, 2, s).astype(bool)}[term.kind]()
    return result


def evaluate(program: Program, precision: str = "float64") -> Callable[[Values], Any]:
    """The result as a function of the inputs, by the reference backend."""
    function = dsl.compile(program.source, device="numpy", precision=precision).function(list(program.inputs), "result")
    return lambda values: function(*values.values())


def check(program: Program, evaluate: Callable[..., Any] = evaluate, precision: str = "float64", gradients: bool = True) -> None:
    """Raises AssertionError, or what the language raised, if the program does not mean what NumPy says.

    What NumPy itself does under a change of the inputs in their last places is allowed tenfold."""
    function = evaluate(program, precision)
    step = 1e-13 if precision == "float64" else 1e-6
    for sizes in LENGTHS:
        values = values_of(program, sizes)
        near = {n: x * (1 + step) if program.inputs[n].kind == "f" else x for n, x in values.items()}
        with np.errstate(all="ignore"):
            wanted, other = np.asarray(program.result.run(values)), np.asarray(program.result.run(near))
        got = function(values)
        shape = tuple(length(d, sizes) for d in program.result.shape)
        dtype = {"f": precision, "i": "int64", "b": "bool"}[program.result.kind]
        assert got.shape == shape == wanted.shape, f"shape {got.shape}, wanted {wanted.shape}"
        assert got.dtype == dtype, f"{got.dtype}, wanted {dtype}"
        if program.result.kind != "f":
            assert np.array_equal(got, wanted) or not np.array_equal(wanted, other), f"{got}\nwanted {wanted}"
            continue
        with np.errstate(all="ignore"):
            allowed = 1000 * step * (1 + np.abs(wanted)) + 10 * np.abs(wanted - other)
            agree = (np.abs(got - wanted) <= allowed) | (got == wanted) | np.isnan(wanted) & np.isnan(got) | np.isnan(allowed)
        assert np.all(agree), f"{got}\nwanted {wanted}"
    names = [n for n, t in program.inputs.items() if t.kind == "f" and _reaches(program, n)]
    if gradients and program.smooth and names:
        check_gradient(program, names)


def _reaches(program: Program, name: str) -> bool:
    values = values_of(program, LENGTHS[0])
    with np.errstate(all="ignore"):
        before = program.result.run(values)
        after = program.result.run({**values, name: values[name] + 0.125})
    return not np.array_equal(before, after, equal_nan=True)


def check_gradient(program: Program, names: list[str]) -> None:
    """The gradient of the sum against central differences of the NumPy meaning, in one random direction."""
    model = dsl.compile(f"{program.source}\ngrad {', '.join(f'd{n}' for n in names)} = sum(result) wrt {', '.join(names)}", device="numpy")
    function = model.function(list(program.inputs), [f"d{n}" for n in names])
    for sizes in LENGTHS:
        values = values_of(program, sizes)
        rng = np.random.default_rng(program.seed + 1)
        directions = {n: rng.normal(size=np.shape(values[n])) for n in names}
        got = sum(float(np.sum(g * directions[n])) for g, n in zip(function(*values.values()), names, strict=True))

        def moved(t: float, values: Values = values, directions: Values = directions) -> float:
            return float(np.sum(program.result.run({**values, **{n: values[n] + t * directions[n] for n in names}})))
        with np.errstate(all="ignore"):
            h = 1e-4
            wanted = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)
            scale = 1 + abs(wanted) + abs(moved(0.0))
        assert abs(got - wanted) <= 1e-6 * scale or not np.isfinite(wanted), f"gradient {got}, differences {wanted}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Check random programs against NumPy.")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first program; the others follow")
    parser.add_argument("--precision", default="float64", choices=["float64", "float32"])
    parser.add_argument("--show", action="store_true", help="print every program")
    options = parser.parse_args()
    failures = 0
    for seed in range(options.seed, options.seed + options.count):
        program = generate(seed)
        if options.show:
            print(f"# {seed}\n{program.source}\n")
        try:
            check(program, precision=options.precision, gradients=options.precision == "float64")
        except Exception as problem:
            failures += 1
            print(f"# seed {seed}: {type(problem).__name__}\n{program.source}\n{problem}\n")
    print(f"{options.count - failures} of {options.count} programs agree")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
