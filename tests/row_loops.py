"""Random loops whose steps go over rows: `fold`, `scan` and `iterate` of vectors and matrices, within each other too.

In: a generator (`random_programs.py`).  Out: `RowLoops`, one whose programs are made of such loops.  A step adds up rows (`sum(X * w, axis =
0)`), multiplies matrices, exchanges states, or is any other term; half of the time the next state is just that, so that a total
is a state as soon as it is added up.
"""
# ruff: noqa: E501  (a maker's text and its meaning stand side by side)
from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

sys.path.insert(0, str(Path(__file__).parent))
from random_programs import Generator, Program, Term, Values, _atom

Sizes = tuple[str | int, ...]
Next = tuple[str, Callable[[Values], Any], bool]
"""The text of a state's next value, its meaning, and whether that is smooth."""
REDUCTIONS: dict[str, Callable[..., Any]] = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min, "prod": np.prod, "logsumexp": special.logsumexp}
MOST, DEEPEST = 4, 6
"""Such loops of a program, and names that are local at one place."""


class RowLoops(Generator):
    """Wants `local`, `leaf` and `length` of the generator that it is mixed into."""

    local: list[tuple[str, Term]]
    length: Callable[[], str | int]

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.rowed = 0
        self.budget = self.rng.randint(6, 18)

    def program(self, seed: int) -> Program:
        """One that is a loop, or made of one that has a name."""
        kind, shape = self.rng.choice("fffffi"), self.shape(self.rng.choice([0, 1, 1, 1, 2, 2]))
        makers = [self.row_fold, self.row_fold, self.row_scan, self.row_iterate]
        made = None
        while made is None:
            made = self.rng.choice(makers)(kind, shape, 4)
        if self.rng.random() < 0.5:
            return Program(self.inputs, self.lets, made, seed)
        self.lets.append(("y", made))
        result = self.term(kind, shape, 3)
        both = Term(f"({result.text} + y)", lambda v: result.run(v) + made.run(v), kind, shape, result.smooth and made.smooth)
        used = "y" in result.text.replace("(", " ").replace(")", " ").replace(",", " ").split()
        return Program(self.inputs, self.lets, result if used else both, seed)

    def makers(self, kind: str) -> list[Any]:
        usual = super().makers(kind)
        if kind == "b" or self.rowed >= MOST:
            return usual
        return usual + [self.row_fold] * (len(usual) // 5) + [self.row_scan] * (len(usual) // 8) + [self.row_iterate]

    # ------------------------------------------------------------ the three loops
    def row_fold(self, kind, shape, depth):
        made = self.steps(kind, shape, None, depth)
        return made and Term(f"fold({made[0]})" + "[0]" * made[0].startswith("("), lambda v: made[1](v)[-1], kind, shape, made[2])

    def row_scan(self, kind, shape, depth):
        made = self.steps(kind, shape[1:], shape[0], depth) if shape else None
        return made and Term(f"scan({made[0]})" + "[0]" * made[0].startswith("("), lambda v: np.stack(made[1](v)), kind, shape, made[2])

    def row_iterate(self, kind, shape, depth):
        """So many turns, or until all is small; derivatives do not go through."""
        if kind != "f" or self.rowed >= MOST or len(shape) == 3 or len(self.local) >= DEEPEST:
            return None
        self.rowed += 1
        start, (h, c) = self.term("f", shape, min(depth, 1)), (f"h{self.rowed}", f"c{self.rowed}")
        counted = self.rng.random() < 0.5
        with_states = [(h, Term(h, lambda v: v[h], "f", shape)), *([(c, Term(c, lambda v: v[c], "i", ()))] if counted else [])]
        (text, following, _), = self.inside(with_states, lambda: [self.following("f", h, [], shape, depth)])
        if counted:
            turns = self.rng.choice([0, 1, 3, 4])

            def meaning(v: Values) -> Any:
                state = start.run(v)
                for turn in range(turns):
                    state = following({**v, h: state, c: np.int64(turn)})
                return state
            made = f"iterate(({h}, {c}) = ({start.text}, 0) while {c} < {turns} max 9: ({text}, {c} + 1))[0]"
        else:
            test, small = self.rng.choice([(f"any(abs({h}) > 0.1)", lambda x: not np.any(np.abs(x) > 0.1)), (f"max(abs({h})) > 0.1", lambda x: np.max(np.abs(x)) <= 0.1),
                                           (f"sum(sqr({h})) > 0.1", lambda x: np.sum(x * x) <= 0.1)])

            def meaning(v: Values) -> Any:
                state = np.tanh(start.run(v))
                while not small(state):
                    state = 0.5 * state * special.expit(following({**v, h: state}))
                return state
            made = f"iterate({h} = tanh({start.text}) while {test} max 60: 0.5 * {h} * sigmoid({text}))"
        return Term(f"stop_grad({made})", lambda v: np.broadcast_to(meaning(v), np.shape(start.run(v))), "f", shape, False)

    def steps(self, kind: str, shape: Sizes, axis: str | int | None, depth: int) -> tuple[str, Callable[[Values], list[Any]], bool] | None:
        """The inside of a loop, all its first states, and whether that is smooth.  `axis`: how many turns, if that is given."""
        if self.rowed >= MOST or len(self.local) >= DEEPEST or len(shape) == 3:
            return None
        self.rowed += 1
        number, count = self.rowed, self.rng.choice([1, 1, 1, 2, 2, 3])
        states = [f"{letter}{number}" for letter in ("w", "u", "z")[:count]]
        starts = [self.term(kind, shape, min(depth, 1)) for _ in states]
        sequences = self.sequences(shape, axis, depth)
        elements = [f"{letter}{number}" for letter in ("e", "s")[:len(sequences)]]
        local = [(p, Term(p, lambda v, p=p: v[p], kind, shape)) for p in states]
        local += [(t, Term(t, lambda v, t=t: v[t], s.kind, s.shape[1:])) for t, s in zip(elements, sequences, strict=True)]
        new = self.inside(local, lambda: [self.following(kind, p, [q for q in states if q != p], shape, depth) for p in states])

        def run(v: Values) -> list[Any]:
            now, found = [np.broadcast_to(s.run(v), np.shape(starts[0].run(v))) for s in starts], []
            for items in zip(*(s.run(v) for s in sequences), strict=True):
                at = {**v, **dict(zip(states, now, strict=True)), **dict(zip(elements, items, strict=True))}
                now = [np.broadcast_to(f(at), np.shape(p)) for (_, f, _), p in zip(new, now, strict=True)]
                found.append(now[0])
            return found

        def tuple_of(words: list[str]) -> str:
            return words[0] if len(words) == 1 else f"({', '.join(words)})"
        smooth = all(t.smooth for t in (*starts, *sequences)) and all(s for _, _, s in new)
        return f"{tuple_of(states)} = {tuple_of([s.text for s in starts])} for {tuple_of(elements)} in {tuple_of([s.text for s in sequences])}: " \
               f"{tuple_of([text for text, _, _ in new])}", run, smooth

    def sequences(self, shape: Sizes, axis: str | int | None, depth: int) -> list[Term]:
        """One or two arrays whose rows a loop takes; rows of an outer loop's row among them."""
        rows = [t for _, t in self.local if t.kind != "b" and t.shape]
        if axis is None and rows and self.rng.random() < 0.5:
            first = self.rng.choice(rows)
            axis = first.shape[0]
        else:
            axis = self.length() if axis is None else axis
            rest = self.rng.choice([shape, shape, shape[-1:], (), (self.length(), *shape[-1:])])
            kind = self.rng.choice("ffi")
            first = Term(f"arange({axis})", lambda v: np.arange(axis), "i", (axis,)) if isinstance(axis, int) and self.rng.random() < 0.5 else \
                self.term(kind, (axis, *rest), min(depth, 1))
        return [first] if self.rng.random() < 0.7 else [first, self.term("f", (axis, *self.rng.choice([shape, shape[-1:], ()])), min(depth, 1))]

    def inside(self, local: list[tuple[str, Term]], make: Callable[[], list[Next]]) -> list[Next]:
        outer = self.local
        self.local = [*outer, *local]
        try:
            return make()
        finally:
            self.local = outer

    # ------------------------------------------------------------ a step
    def following(self, kind: str, p: str, others: list[str], shape: Sizes, depth: int) -> Next:
        text, meaning, smooth = self.step(kind, p, others, shape, depth)
        if kind == "i":
            return f"({text}) % 1000", lambda v: meaning(v) % np.int64(1000), smooth
        form, function = self.rng.choice([("{}", lambda y, w: y)] * 3 + [("tanh({})", lambda y, w: np.tanh(y)), ("0.5 * {p} + tanh({})", lambda y, w: 0.5 * w + np.tanh(y)),
                                         ("({}) / 4", lambda y, w: y / 4)])
        return form.format(text, p=p), lambda v: function(meaning(v), v[p]), smooth

    def step(self, kind: str, p: str, others: list[str], shape: Sizes, depth: int) -> Next:
        while True:
            made = self.rng.choice([self.added_rows, self.added_rows, self.added_rows, self.added_columns, self.all_added, self.multiplied, self.there_and_back, self.descent,
                                    self.changed, self.exchanged, self.any_term, self.within])(kind, p, others, shape, max(0, depth - 2))
            if made is not None:
                return made

    def reduction(self, kind: str) -> tuple[str, Any]:
        name = self.rng.choice(["sum", "max", "min"] if kind == "i" else ["sum", "sum", "sum", "mean", "mean", "max", "min", "prod", "logsumexp"])
        return name, REDUCTIONS[name]

    def added_rows(self, kind, p, others, shape, depth):
        if len(shape) == 3:
            return None
        x = self.term(kind, (self.length(), *shape), depth)
        q, (name, function), op = self.rng.choice([p, p, *others]), self.reduction(kind), self.rng.choice("**+")
        axis = 0 if self.rng.random() < 0.7 else -1 - len(shape)
        return f"{name}({x.text} {op} {q}, axis = {axis})", lambda v: function(np.multiply(x.run(v), v[q]) if op == "*" else x.run(v) + v[q], axis=0), \
            x.smooth and name not in ("max", "min")

    def added_columns(self, kind, p, others, shape, depth):
        if not shape or len(shape) == 3:
            return None
        x, (name, function) = self.term(kind, (*shape, self.length()), depth), self.reduction(kind)
        q = self.rng.choice([p, *others])
        wide = f"{q}[{', '.join(':' * len(shape))}, None]"
        return f"{name}({x.text} * {wide}, axis = {len(shape) if self.rng.random() < 0.5 else -1})", \
            lambda v: function(x.run(v) * np.expand_dims(v[q], -1), axis=-1), x.smooth and name not in ("max", "min")

    def all_added(self, kind, p, others, shape, depth):
        """A scalar, beside what is or is not one."""
        x, (name, function) = self.term(kind, (self.length(), *shape), depth), self.reduction(kind)
        return f"({name}({x.text} * {p}) - {p})", lambda v: function(x.run(v) * v[p]) - v[p], x.smooth and name not in ("max", "min")

    def multiplied(self, kind, p, others, shape, depth):
        if kind == "i" or not shape:
            return None
        q, left = self.rng.choice([p, p, *others]), self.rng.random() < 0.5
        d = shape[0] if left else shape[-1]
        x, turned = self.term("f", (d, d), depth), self.rng.random() < 0.4
        a = f"{_atom(x.text)}.T" if turned else x.text

        def matrix(v: Values) -> Any:
            return np.transpose(x.run(v)) if turned else x.run(v)
        return (f"({a} @ {q})", lambda v: matrix(v) @ v[q], x.smooth) if left else (f"({q} @ {a})", lambda v: v[q] @ matrix(v), x.smooth)

    def there_and_back(self, kind, p, others, shape, depth):
        """Through an axis of another length, by one matrix or two."""
        if kind == "i" or not shape:
            return None
        r = self.length()
        x, y = self.term("f", (r, shape[0]), depth), self.term("f", (shape[0], r), depth)
        if self.rng.random() < 0.5:
            return f"({_atom(x.text)}.T @ ({x.text} @ {p}))", lambda v: np.transpose(x.run(v)) @ (x.run(v) @ v[p]), x.smooth
        return f"({y.text} @ tanh({x.text} @ {p}))", lambda v: y.run(v) @ np.tanh(x.run(v) @ v[p]), x.smooth and y.smooth

    def descent(self, kind, p, others, shape, depth):
        if kind == "i" or len(shape) != 1:
            return None
        r = self.length()
        x, t = self.term("f", (r, *shape), depth), self.term("f", (r,), depth)
        return f"({p} - 0.1 * mean({x.text} * ({x.text} @ {p} - {t.text})[:, None], axis = 0))", \
            lambda v: v[p] - 0.1 * np.mean(x.run(v) * (x.run(v) @ v[p] - t.run(v))[:, None], axis=0), x.smooth and t.smooth

    def changed(self, kind, p, others, shape, depth):
        """A matrix by its own rows and columns."""
        if len(shape) != 2:
            return None
        if kind == "i":
            return f"({p} - max({p}, axis = 0))", lambda v: v[p] - np.max(v[p], axis=0), True
        a, b = self.term("f", shape[:1], depth), self.term("f", shape[1:], depth)
        ways = [(f"({p} + outer({a.text}, {b.text}))", lambda v: v[p] + np.multiply.outer(a.run(v), b.run(v)), a.smooth and b.smooth),
                (f"({p} - mean({p}, axis = 0))", lambda v: v[p] - np.mean(v[p], axis=0), True),
                (f"({p} * {_atom(a.text)}[:, None] - sum({p}, axis = 1)[:, None])", lambda v: v[p] * a.run(v)[:, None] - np.sum(v[p], axis=1)[:, None], a.smooth),
                (f"softmax({p}, axis = 0)", lambda v: special.softmax(v[p], axis=0), True)]
        return self.rng.choice(ways + ([(f"{p}.T", lambda v: v[p].T, True)] if shape[0] == shape[1] else []))

    def exchanged(self, kind, p, others, shape, depth):
        return (q := self.rng.choice(others), lambda v: v[q], True) if others else None

    def any_term(self, kind, p, others, shape, depth):
        x = self.term(kind, shape, depth + 1)
        return f"({x.text} - {p})", lambda v: x.run(v) - v[p], x.smooth

    def within(self, kind, p, others, shape, depth):
        """A loop in the loop."""
        made = self.rng.choice([self.row_fold, self.row_fold, self.row_scan, self.row_iterate])(kind, shape, depth + 1)
        return made and (made.text, made.run, made.smooth)
