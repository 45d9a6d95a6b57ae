"""Random scripts, written as no one should write them.

    python tests/ugly_scripts.py --count 1000 [--seed 0]

`script(rng)` makes a script with statements and blocks of every kind; it need not mean anything.  `uglify(rng, text)` writes the same
words with random spaces, tabs, line ends, comments, `;`, and indentation.  Run as a program it formats what they make, and checks it.
"""
from __future__ import annotations

import argparse
import random
import re
import sys
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from dsl.errors import Source
from dsl.syntax import ast
from dsl.syntax.format import format_source
from dsl.syntax.layout import Layout
from dsl.syntax.parse import parse

NAMES = "x y z w W1 b_2 mu θ σ data cost step of batch rate all test axis to over epochs max title model".split()
TEXTS = ['"a b"', '"# no comment"', '"\\"; (\\n"', '""', '"Ünïcode"']
WORDS = "why|because of f(x)|!|> 2.0|[1, 2|\"text|; x = 1|let y = 3|ä ö 漢字|  spaced  out|\ttab".split("|")


# ---------------------------------------------------------------- scripts
class Maker:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def pick(self, *choices: str) -> str:
        return self.rng.choice(choices)

    def name(self) -> str:
        return self.rng.choice(NAMES)

    def many(self, make, least: int = 1, most: int = 3) -> str:
        return ", ".join(make() for _ in range(self.rng.randint(least, most)))

    def names(self) -> str:
        return ", ".join(self.rng.sample(NAMES, self.rng.randint(1, 3)))

    def bindings(self, depth: int = 1) -> str:
        return ", ".join(f"{name} = {self.expression(depth, False)}" for name in self.rng.sample(NAMES, self.rng.randint(1, 3)))

    def literal(self) -> str:
        return self.pick("0", "1", "32", "0.5", "1e-3", "2.", ".5", "9007199254740993", "1.5E+10", "true", "false")

    def index(self, depth: int) -> str:
        part = lambda: self.pick("", "1", "-1", "n - 1") if self.rng.random() < 0.8 else self.expression(depth, False)
        return self.rng.choice([lambda: "None", lambda: "...", lambda: self.expression(depth, False), lambda: f"{part()}:{part()}",
                                lambda: f"{part()}:{part()}:{part()}", lambda: ":"])()

    def arguments(self, depth: int) -> str:
        values = [self.expression(depth, False) for _ in range(self.rng.randint(0, 4))]
        named = self.rng.sample(NAMES, self.rng.randint(0, len(values))) if self.rng.random() < 0.4 else []
        values = [*values[len(named):], *(f"{name} = {value}" for name, value in zip(named, values))]
        return ", ".join(values) + (self.pick("", "", ",") if values else "")

    def expression(self, depth: int, free: bool = True) -> str:
        """`free`: may it end in `with`?"""
        if depth <= 0:
            return self.rng.choice([self.name, self.name, self.literal])()
        e = lambda: self.expression(depth - 1, False)
        o = lambda: self.operand(depth - 1)
        forms = [lambda: f"{o()} {self.pick('+', '-', '*', '/', '//', '%', '@', '**', '<', '>', '==', '!=', '<=', '>=')} {o()}",
                 lambda: f"{o()} {self.pick('+', '*')} {o()} {self.pick('-', '/', '+')} {o()} {self.pick('-', '+')} {o()}",
                 lambda: f"{o()} {self.pick('and', 'or')} {o()}", lambda: f"-{o()}", lambda: f"(not {o()})", lambda: f"- -{o()}",
                 lambda: f"(if {e()} then {e()} else {e()})", self.operand_form(depth)]
        if free and self.rng.random() < 0.15:
            return f"{o()} with {self.bindings(depth - 1)}"
        return self.rng.choice(forms)()

    def operand_form(self, depth: int):
        return lambda: self.operand(depth)

    def operand(self, depth: int) -> str:
        if depth <= 0:
            return self.expression(0)
        e = lambda: self.expression(depth - 1, False)
        return self.rng.choice([
            lambda: f"{self.name()}({self.arguments(depth - 1)})",
            lambda: f"{self.name()}[{self.many(lambda: self.index(depth - 1))}]", lambda: f"({e()})", lambda: f"({e()},)",
            lambda: f"({e()}, {e()}{self.pick('', ',')})", lambda: f"[{self.many(e, 1, 5)}{self.pick('', ',')}]", lambda: "[]",
            lambda: f"[[{self.many(e, 3, 3)}], [{self.many(e, 3, 3)}]]", lambda: f"{self.name()}.T", lambda: f"f({e()})[0].T",
            lambda: f"scan({self.name()} = {e()} for t in {e()}: {e()})", lambda: f"fold((p, q) = ({e()}, 1) for t in {e()}: (q, {e()}))",
            lambda: f"iterate(v = {e()} while {e()} max 10: {e()})", lambda: f'einsum({self.rng.choice(TEXTS)}, {e()})'])()

    def statement(self, where: str = "top") -> list[str]:
        """Lines; those of a block are indented by two."""
        e = lambda: self.expression(self.rng.randint(0, 3))
        c = lambda: self.expression(self.rng.randint(0, 2), False)
        commands = [lambda: f"print {self.many(c)}", lambda: f"print {self.many(c)} with {self.bindings()}", lambda: f"show {c()}",
                    lambda: f"print {self.name()}   #> {self.pick('1.0', 'nan', '[1 2]')}",
                    lambda: f'plot line({c()}, {c()}), hist({c()}) title {self.rng.choice(TEXTS)} to "a.png"',
                    lambda: f'save {c()} to "a.csv"', lambda: 'load "m.safetensors"', lambda: f"assert {c()}, {self.rng.choice(TEXTS)}"]
        update = lambda: f"update {self.name()} <- {e()}"
        let = lambda: f"let {self.names()} = {e()}"
        clauses = [lambda: [f"valid {self.bindings()}"], lambda: [f"stop after 5 {self.pick('epochs', 'steps')} without lower C"],
                   lambda: ["rate = cosine(1e-2, 1e-4)"], lambda: [f"clip norm {c()}"], lambda: ['log "run.jsonl"'],
                   lambda: ['checkpoint "m" every 10 epochs best'], lambda: self.block("every 10 epochs", "every")]
        match where:
            case "every":
                return [self.rng.choice(commands)()]
            case "train":
                return self.rng.choice(clauses)()
            case "step":
                return [update()]
            case "def":
                return [let()]
            case "optimizer":
                return [self.rng.choice([let, update, lambda: f"slot {self.bindings()}"])()]
        if self.rng.random() < 0.3:
            return [self.rng.choice(commands)()]
        shape = lambda: f"[{self.many(lambda: self.pick('n', 'd', 'n + 1', '2 * k', '3'))}]"
        return self.rng.choice([
            lambda: [self.pick("precision float32", "seed 1", "device cpu", 'import "nets.lr" as nets', "use optim")],
            lambda: [f"dim n, {self.name()} = {c()}"], lambda: [f"{self.pick('', 'int ', 'bool ')}matrix X{shape()}, Y, Z{shape()}"],
            lambda: [f"data {self.names()} = {e()}"], lambda: [let()], lambda: [f"{self.pick('cost', 'model', 'metric')} C = {e()}"],
            lambda: [f"shared w = {c()}, s<lower=0> = {c()}, t<lower=-1, upper={self.operand(1)}>{shape()} = {c()}"],
            lambda: [f"shared int p<simplex>{shape()} = {c()}"],
            lambda: [f"{self.pick('grad', 'hess', 'jac')} g = {c()} wrt {self.names()}"],
            lambda: [update()], lambda: [f"minimize C wrt all except {self.names()} using adam(rate = {c()})"],
            lambda: [f"fit C wrt {self.names()} using lbfgs(tol = 1e-8) over {self.bindings()} report se"],
            lambda: [f"def f({self.names()}, k = {c()}) = {e()}"], lambda: [f"def g(q) = {c()} with vjp(g) = {e()}"],
            lambda: [f"gradcheck C wrt {self.names()}"], lambda: [f"train {c()} steps"],
            lambda: self.block(f"train 100 epochs over {self.bindings()} batch 32 drop_last shuffle of a, b until {c()}", "train"),
            lambda: self.block("step critic", "step"), lambda: [*self.block("def f(x, y = 1)", "def"), f"  return {e()}"],
            lambda: self.block("optimizer o(rate = 0.1) for p, g, t", "optimizer"),
            *([lambda: self.block('test "a: b"', "test")] if where == "top" else [])])()

    def block(self, header: str, kind: str) -> list[str]:
        parts = [self.statement(kind) for _ in range(self.rng.randint(1, 3))]
        if kind == "train":                             # a clause is given once, but for `every`
            parts = list({part[0].split()[0] if part[0][:5] != "every" else i: part for i, part in enumerate(parts)}.values())
        body = [line for part in parts for line in part]
        return [f"{header}:", *("  " + line for line in body)]


def script(rng: random.Random) -> str:
    maker = Maker(rng)
    return "".join(line + "\n" for _ in range(rng.randint(1, 6)) for line in maker.statement())


# ---------------------------------------------------------------- ugly
class Ugly:
    """Writes the tokens of a script that has no mistakes."""

    def __init__(self, rng: random.Random, text: str) -> None:
        self.rng = rng
        layout = Layout(Source("script", text))
        self.text, self.tokens = text, layout.run()
        self.wild = rng.random() < 0.7             # with line ends inside statements
        self.commented = rng.random() * 0.3
        self.out = ""

    def comment(self) -> str:
        return f"#{self.rng.choice(['', ' ', '> ', '  '])}{self.rng.choice(WORDS)}{self.rng.choice(['', '', ' ', '  '])}"

    def lines(self, indent: int) -> str:
        """Blank lines and comments of their own, then the indentation."""
        text = ""
        while self.rng.random() < 0.3:
            blank = self.rng.choice(["", "  ", "\t"])
            text += (" " * self.rng.randint(0, 6) + self.comment() if self.rng.random() < self.commented * 2 else blank) + "\n"
        return text + " " * indent

    def end(self) -> str:
        space = self.rng.choice(["", " ", "   "])
        return space + (self.comment() if self.rng.random() < self.commented else "") + "\n"

    def space(self, last: str, following: str, indent: int) -> str:
        if self.wild and self.rng.random() < 0.12:
            return self.end() + self.lines(indent + self.rng.randint(1, 9))
        choices = [" ", " ", "  ", "\t ", "     "]
        if not (last[-1:] + following[:1]).replace("_", "a").isalnum() and not (
                last[-1:] in "<>=*/.-+!" or (last[-1:].isdigit() and following[:1] == ".")):
            choices += [""] * 5
        return self.rng.choice(choices)

    def write(self) -> str:
        self.out = self.lines(0)
        columns = [0]
        last, fresh = "", True
        for i, token in enumerate(self.tokens):
            following = self.tokens[i + 1] if i + 1 < len(self.tokens) else token
            match token.type:
                case "NEWLINE":
                    if following.type in ("DEDENT", "$END", "NEWLINE") or self.tokens[i - 1].type == "DEDENT":
                        fresh, last = True, ""
                        continue
                    if self.rng.random() < 0.15 and self.out.rpartition("\n")[2].strip():
                        self.out += self.rng.choice([" ; ", ";", "; ;"])
                        last = ";"
                        continue
                    fresh, last = True, ""
                case "INDENT":
                    columns.append(columns[-1] + self.rng.randint(1, 8))
                    fresh, last = True, ""
                case "DEDENT":
                    columns.pop()
                    fresh, last = True, ""
                case "$END":
                    pass
                case _:
                    written = self.text[token.start:token.end]
                    if fresh:
                        if self.out.strip():
                            self.out += self.end()
                        self.out += self.lines(columns[-1])
                    elif last not in ("", ";"):
                        self.out += self.space(last, written, columns[-1])
                    self.out += written
                    last, fresh = written, False
        return self.out + self.end() + self.lines(0)


def uglify(rng: random.Random, text: str) -> str:
    """The same script with every freedom taken; comments are added to it."""
    return Ugly(rng, text).write()


# ---------------------------------------------------------------- what must hold
def elements(text: str) -> list[str]:
    """The characters of a script without its spaces, in order, with each text and each comment as one: found without our lexer."""
    found = re.findall(r'"(?:\\.|[^"\\\n])*"|#[^\n]*|[^\s;]', text.lstrip("\ufeff"))
    found = [item.rstrip() if item[0] == "#" else item for item in found]
    words = [(i, item) for i, item in enumerate(found) if item[0] != "#"]
    dropped = {i for (i, item), (_, after) in pairwise(words) if item == "," and after in ")]"}
    return [item for i, item in enumerate(found) if i not in dropped]


def tree(text: str) -> ast.Script:
    found, problems = parse(Source("script", text))
    problems = [p for p in problems if p.code != "E0104"]
    assert not problems, "\n".join(p.render() for p in problems)
    return found


def check(text: str) -> str:
    """The formatted text; fails if anything but its look has changed."""
    once = format_source(Source("script", text))
    assert format_source(Source("script", once)) == once, "not idempotent"
    assert tree(once) == tree(text), "another tree"
    assert elements(once) == elements(text), "a word or comment is lost or moved"
    lines = once.split("\n")
    assert once == "" or (once.endswith("\n") and lines[0] and lines[-1] == "" and (len(lines) < 2 or lines[-2]))
    assert "\n\n\n" not in once and "\t" not in re.sub(r'"(?:\\.|[^"\\\n])*"|#[^\n]*', "", once)
    assert not any(line != line.rstrip() for line in lines)
    return once


def kinds(node: ast.Syntax) -> set[str]:
    """The kinds of statements and expressions in a tree."""
    found = {type(node).__name__}
    for f in fields(node):
        value = getattr(node, f.name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, ast.Syntax):
                found |= kinds(item)
    return found


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--count", type=int, default=1000)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    wrong = 0
    for seed in range(given.seed, given.seed + given.count):
        rng = random.Random(seed)
        text = uglify(rng, script(rng))
        try:
            check(text)
        except Exception as problem:
            wrong += 1
            print(f"seed {seed}: {type(problem).__name__}: {problem}\n{text}", file=sys.stderr)
    print(f"{given.count} scripts, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
