"""Random programs with more forms than `random_programs.py` has: loops, draws, gathers by any index, anonymous sizes.

`generate(seed)` gives a program.  Where it draws random numbers it has no meaning in NumPy (`drawn`): only backends are compared.
"""
# ruff: noqa: E501  (a maker's text and its meaning stand side by side)
from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

sys.path.insert(0, str(Path(__file__).parent))
from random_programs import Generator, Program, Term, Values, _atom
from row_loops import RowLoops

MORE_UNARY = {"tan": "atan({})", "asin": "tanh({})", "acos": "tanh({})", "cosh": "tanh({})", "erfc": "{}", "digamma": "1.5 + sqr({})",
              "logit": "sigmoid({})", "ceil": "{}", "log": "abs({})", "sqrt": "abs({})", "exp": "{}", "log1p": "exp({})"}


class Drawn(Exception):
    """The value of a draw is not known here."""


class Wide(Generator):
    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.local: list[tuple[str, Term]] = []
        self.drawn = False
        self.loops = 0

    def makers(self, kind: str) -> list[Any]:
        return super().makers(kind) + {
            "f": [self.scan, self.fold, self.iterate, self.draw, self.picked, self.nameless, self.nameless, self.more_unary, self.roll, self.triangle, self.total_of_bools,
                  self.pairs, self.losses, self.blend, self.sorted, self.product_of_vectors],
            "i": [self.scan, self.fold, self.picked, self.roll, self.random_integers, self.count],
            "b": [self.all_or_any, self.random_bools, self.tests, self.picked]}[kind]

    def leaf(self, kind: str, shape: tuple[str | int, ...]) -> Term:
        inside = [t for _, t in self.local if (t.kind, t.shape) == (kind, shape)]
        if inside and self.rng.random() < 0.7:
            return self.rng.choice(inside)
        return super().leaf(kind, shape)

    def fresh(self, kind: str, shape: tuple[str | int, ...]) -> Term:
        """An input of its own."""
        name = f"{kind}{len(self.inputs)}"
        self.inputs[name] = Term(name, lambda v: v[name], kind, shape)
        return self.inputs[name]

    def length(self) -> str | int:
        return self.rng.choice(["n", "m", "k", 2, 3])

    # ------------------------------------------------------------ loops
    def looped(self, kind: str, shape: tuple[str | int, ...], axis: str | int, depth: int) -> tuple[str, Any, bool] | None:
        """The inside of a scan or fold, what it does in NumPy, and whether that is smooth."""
        if len(self.local) >= 2 or self.loops >= 2:
            return None
        self.loops += 1
        several = kind == "f" and self.rng.random() < 0.3
        start = self.term(kind, shape, min(depth, 1))
        element_kind = self.rng.choice("ffi") if kind == "f" else "i"
        rest = self.rng.choice([shape if len(shape) < 3 else (), (), shape[1:]])
        sequence = self.term(element_kind, (axis, *rest), min(depth, 2))
        number = self.loops
        p, q, t = f"p{number}", f"q{number}", f"t{number}"
        outer = self.local
        self.local = [*outer, *[(n, Term(n, lambda v, n=n: v[n], k, s)) for n, k, s in
                                [(p, kind, shape), (t, element_kind, rest), *([(q, "f", ())] if several else [])]]]
        body, second = self.term(kind, shape, min(depth, 2)), self.term("f", (), 1)
        self.local = outer
        bounded = f"tanh({body.text} + {p})" if kind == "f" else f"({body.text} + {p}) % 1000"
        limit = (lambda x: np.tanh(x)) if kind == "f" else (lambda x: x % np.int64(1000))

        def states(v: Values) -> list[Any]:
            state, beside, found = start.run(v), np.float64(0.25), []
            for x in sequence.run(v):
                inside = {**v, p: state, q: beside, t: x}
                # A body of fewer axes than the state broadcasts with it.
                state, beside = limit(body.run(inside) + state), np.tanh(second.run(inside))
                found.append(state)
            return found
        smooth = start.smooth and sequence.smooth and body.smooth and (second.smooth or not several)
        if several:
            return f"({p}, {q}) = ({start.text}, 0.25) for {t} in {sequence.text}: ({bounded}, tanh({second.text}))", states, smooth
        return f"{p} = {start.text} for {t} in {sequence.text}: {bounded}", states, smooth

    def scan(self, kind, shape, depth):
        made = self.looped(kind, shape[1:], shape[0], depth) if shape else None
        if made is None:
            return None
        text, states, smooth = made
        return Term(f"scan({text})" + "[0]" * text.startswith("("), lambda v: np.stack(states(v)), kind, shape, smooth)

    def fold(self, kind, shape, depth):
        made = self.looped(kind, shape, self.length(), depth)
        if made is None:
            return None
        text, states, smooth = made
        return Term(f"fold({text})" + "[0]" * text.startswith("("), lambda v: states(v)[-1], kind, shape, smooth)

    def iterate(self, kind, shape, depth):
        """Halved until it is small; derivatives do not go through."""
        if shape or self.local:
            return None
        x = self.term("f", (), depth)

        def meaning(v: Values) -> Any:
            state = np.tanh(x.run(v))
            while np.abs(state) > 0.1:
                state = state * 0.5 + 0.01
            return state
        return Term(f"stop_grad(iterate(h = tanh({x.text}) while abs(h) > 0.1 max 30: h * 0.5 + 0.01))", meaning, "f", (), False)

    # ------------------------------------------------------------ draws
    def unknown(self, v: Values) -> Any:
        raise Drawn

    def sized(self, shape: tuple[str | int, ...]) -> str:
        """The shape as an argument; a size variable is known only if an input has it."""
        for d in shape:
            if isinstance(d, str) and not any(d in t.shape for t in self.inputs.values()):
                self.fresh("f", (d,))
        return ", ".join(map(str, shape))

    def draw(self, kind, shape, depth):
        self.drawn = True
        x = self.term("f", shape, depth)
        way = self.rng.choice(["normal({})", "uniform({})", "dropout"])
        if way == "dropout":
            return Term(f"dropout({x.text}, 0.3, training = true)", self.unknown, "f", shape, x.smooth)
        return Term(f"({x.text} + 0.5 * {way.format(self.sized(shape))})", self.unknown, "f", shape, x.smooth)

    def random_integers(self, kind, shape, depth):
        if len(shape) > 1:
            return None
        self.drawn = True
        if not shape:
            p = self.term("f", (self.rng.choice([2, 3]),), depth)
            return Term(f"categorical(softmax({p.text}))", self.unknown, "i", ())
        return Term(f"permutation({self.sized(shape)})", self.unknown, "i", shape)

    def random_bools(self, kind, shape, depth):
        self.drawn = True
        return Term(f"bernoulli(0.4, ({self.sized(shape)}{',' * (len(shape) == 1)}))" if shape else "bernoulli(0.4)", self.unknown, "b", shape)

    # ------------------------------------------------------------ elements by index, moved and masked
    def picked(self, kind, shape, depth):
        """Rows, or single elements, by any index: negative ones and repeated ones too."""
        if not shape or len(shape) > 2:
            return None
        source, two = self.length(), self.rng.random() < 0.3
        if two:
            other = self.length()
            x = self.fresh(kind, (source, other, *shape[1:]))
            i, j = (self.term("i", shape[:1], min(depth, 1)) for _ in range(2))
            text = f"{x.text}[{i.text} % size({x.text}, 0) - size({x.text}, 0), {j.text} % size({x.text}, 1)]"

            def meaning(v: Values) -> Any:
                a = x.run(v)
                return a[i.run(v) % np.int64(a.shape[0]) - a.shape[0], j.run(v) % np.int64(a.shape[1])]
            return Term(text, lambda v: np.broadcast_to(meaning(v), np.shape(meaning(v))), kind, shape, i.smooth and j.smooth)
        x = self.term(kind, (source, *shape[1:]), min(depth, 2)) if self.rng.random() < 0.5 else self.fresh(kind, (source, *shape[1:]))
        if len(x.text) > 80:
            return None
        i = self.term("i", shape[:1], min(depth, 2))
        off = self.rng.random() < 0.5
        text = f"{_atom(x.text)}[{i.text} % size({x.text}, 0){f' - size({x.text}, 0)' if off else ''}]"
        return Term(text, lambda v: np.asarray(x.run(v))[np.asarray(i.run(v)) % np.int64(np.shape(x.run(v))[0])], kind, shape, x.smooth and i.smooth)

    def roll(self, kind, shape, depth):
        if not shape or shape[0] == 1:
            return None
        x = self.term(kind, shape, depth)
        a = _atom(x.text)
        return Term(f"concat(({a}[1:], {a}[:1]))", lambda v: np.roll(x.run(v), -1, axis=0), kind, shape, x.smooth) if len(x.text) < 80 else None

    def triangle(self, kind, shape, depth):
        if len(shape) < 2:
            return None
        x, k = self.term("f", shape, depth), self.rng.choice([0, 1, -1])
        name, function = self.rng.choice([("tril", np.tril), ("triu", np.triu)])
        return Term(f"{name}({x.text}, {k})", lambda v: function(x.run(v), k), "f", shape, x.smooth)

    def sorted(self, kind, shape, depth):
        if not shape or self.local or self.rng.random() < 0.7:
            return None
        x = self.term("f", shape, depth)
        return Term(f"sort({x.text})", lambda v: np.sort(x.run(v), axis=-1), "f", shape, False)

    # ------------------------------------------------------------ sizes without names
    def nameless(self, kind, shape, depth):
        """Beside an operand whose lengths are 1 or not, as it turns out."""
        if not shape:
            return None
        own = tuple(f"{d}{self.rng.choice('?!')}" if isinstance(d, str) else d for d in shape[self.rng.randrange(max(0, len(shape) - 2), len(shape)):])
        if not any(isinstance(d, str) for d in own) or not all(isinstance(d, str) for d in own):
            return None
        x, a = self.term("f", shape, depth), self.fresh("f", own)
        if self.rng.random() < 0.4:
            b = self.fresh("f", tuple(d[:-1] + ("!" if d[-1] == "?" else "?") for d in own))
            name, function, smooth = self.rng.choice([("({} + {})", np.add, True), ("({} * {})", np.multiply, True), ("maximum({}, {})", np.maximum, False)])
            a, both = Term(name.format(a.text, b.text), lambda v, a=a, f=function: f(a.run(v), b.run(v)), "f", own), smooth
        else:
            both = True
        name, function, smooth = self.rng.choice([("({} + {})", np.add, True), ("({} * {})", np.multiply, True), ("atan2({}, {})", np.arctan2, False), ("hypot({}, {})", np.hypot, False)])
        return Term(name.format(x.text, a.text), lambda v: function(x.run(v), a.run(v)), "f", shape, x.smooth and both and smooth)

    # ------------------------------------------------------------ more functions
    def more_unary(self, kind, shape, depth):
        name = self.rng.choice(list(MORE_UNARY))
        inside = MORE_UNARY[name]
        x = self.term("f", shape, depth)
        outer = {"tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "cosh": np.cosh, "erfc": special.erfc, "digamma": special.digamma,
                 "logit": special.logit, "ceil": np.ceil, "log": np.log, "sqrt": np.sqrt, "exp": np.exp, "log1p": np.log1p}[name]
        inner = {"atan({})": np.arctan, "tanh({})": np.tanh, "{}": lambda x: x, "1.5 + sqr({})": lambda x: 1.5 + x * x, "sigmoid({})": special.expit,
                 "abs({})": np.abs, "exp({})": np.exp}[inside]
        return Term(f"{name}({inside.format(x.text)})", lambda v: outer(inner(x.run(v))), "f", shape,
                    x.smooth and name in ("tan", "cosh", "erfc", "digamma"))

    def losses(self, kind, shape, depth):
        x, y = self.pair("f", shape, depth)
        if self.rng.random() < 0.5:
            return Term(f"bce_logits({x.text}, sigmoid({y.text}))", lambda v: np.logaddexp(0, x.run(v)) - x.run(v) * special.expit(y.run(v)), "f", shape, x.smooth and y.smooth)
        return Term(f"huber({x.text} - {y.text})", lambda v: _huber(x.run(v) - y.run(v)), "f", shape, False)

    def blend(self, kind, shape, depth):
        """A guard that derivatives must respect."""
        x, y = self.term("f", shape, depth), self.term("f", shape, min(depth, 1))
        if len(x.text) > 100:
            return None
        form, function = self.rng.choice([("where({0} > 0, log({0}), {1})", lambda a, b: np.where(a > 0, np.log(a), b)),
                                          ("where({0} != 0, {1} / {0}, 0)", lambda a, b: np.where(a != 0, b / a, 0)),
                                          ("where({0} >= 0, sqrt({0}) * {1}, {0})", lambda a, b: np.where(a >= 0, np.sqrt(a) * b, a))])
        return Term(form.format(x.text, y.text), lambda v: function(x.run(v), y.run(v)), "f", shape, False)

    def pairs(self, kind, shape, depth):
        if len(shape) != 2:
            return None
        a, b = self.term("f", shape[:1], depth), self.term("f", shape[1:], depth)
        if self.rng.random() < 0.5:
            return Term(f"outer({a.text}, {b.text})", lambda v: np.multiply.outer(a.run(v), b.run(v)), "f", shape, a.smooth and b.smooth)
        return Term(f"({_atom(a.text)}[:, None] - {_atom(b.text)}[None, :])", lambda v: np.subtract.outer(a.run(v), b.run(v)), "f", shape, a.smooth and b.smooth)

    def product_of_vectors(self, kind, shape, depth):
        if shape:
            return None
        d = self.length()
        a, b = self.term("f", (d,), depth), self.term("f", (d,), depth)
        return Term(f"dot({a.text}, {b.text})", lambda v: np.dot(a.run(v), b.run(v)), "f", shape, a.smooth and b.smooth)

    def total_of_bools(self, kind, shape, depth):
        x = self.term("b", (*shape, self.length()), depth) if len(shape) < 3 else None
        return x and Term(f"mean({x.text}, axis = -1)", lambda v: np.mean(x.run(v), axis=-1), "f", shape, x.smooth)

    def count(self, kind, shape, depth):
        x = self.term("b", (*shape, self.length()), depth) if len(shape) < 3 else None
        return x and Term(f"sum({x.text}, axis = -1)", lambda v: np.sum(x.run(v), axis=-1), "i", shape, x.smooth)

    def all_or_any(self, kind, shape, depth):
        name, function = self.rng.choice([("any", np.any), ("all", np.all)])
        x = self.term("b", (*shape, self.length()), depth) if len(shape) < 3 else None
        return x and Term(f"{name}({x.text}, axis = -1)", lambda v: function(x.run(v), axis=-1), "b", shape, x.smooth)

    def tests(self, kind, shape, depth):
        x = self.term("f", shape, depth)
        name, function = self.rng.choice([("isnan", np.isnan), ("isfinite", np.isfinite)])
        return Term(f"{name}(log({x.text}))", lambda v: function(np.log(x.run(v))), "b", shape, False)


def _huber(r: Any) -> Any:
    return np.where(np.abs(r) <= 1, 0.5 * r * r, np.abs(r) - 0.5)


class WideLoops(RowLoops, Wide):
    """Of all forms, and mostly of loops over rows."""


def loops_over_rows(seed: int) -> bool:
    return seed % 8 in (1, 5, 6)


def generate(seed: int) -> tuple[Program, bool]:
    """A program, and whether it draws."""
    generator = WideLoops(seed) if loops_over_rows(seed) else Wide(seed)
    program = generator.program(seed)
    return program, generator.drawn
