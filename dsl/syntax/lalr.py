"""The parser's machine: in come tokens, out go a tree and the mistakes in it.

`Parser` runs the LALR table.  A word is taken for a keyword where the table accepts that keyword there, and for a name
elsewhere; where both are possible (at the beginning of a statement) the next token decides.  After a mistake it drops
the statement and goes on with the next one, so a file's errors are reported together; the block of a broken header is
still read.  Nothing here recurses into expressions, and nesting is bounded, so the tree is safe to walk.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dsl.errors import Diagnostic, Source, Span
from dsl.syntax import messages
from dsl.syntax.build import Builder
from dsl.syntax.layout import BLOCK_WORDS, RESERVED, Token
from dsl.syntax.table import load_table

MAXIMUM_NESTING = 100                   # brackets, calls, signs, `if`s inside each other
MAXIMUM_CHAIN = 1000                    # operators in a row; with the nesting, this also bounds the depth of any tree
MAXIMUM_ERRORS = 100                    # reported of one script
_STACK_LIMIT = 4000                     # states: above what the nesting allowed by MAXIMUM_NESTING can need
_NESTING = {"power", "unary", "if_", "with_", "attribute", "call", "loop", "iterate", "index", "tuple_", "array",
            "chained_comparison"}
_JUMPS: dict[tuple[int, int, str], int] = {}    # see `Parser._jump`; the same for all parsers
# What can follow an operand: a word before one of these is a name, even at the beginning of a statement.
_AFTER_OPERAND = frozenset(
    "PLUS MINUS STAR SLASH FLOOR PERCENT AT POWER LESS LESS_EQUAL MORE MORE_EQUAL EQUAL_EQUAL UNEQUAL DOT COMMA EQUAL "
    "ARROW LPAR LSQB RPAR RSQB NEWLINE".split())
_OPERATOR_WORDS = frozenset("and or then else with in".split())
# Alone on a line, or before `=`, these are meant as keywords: `let = 3` lacks a name.
_FIRM = frozenset("let shared update print show train minimize fit plot import use def return assert optimizer device "
                  "precision dim scalar vector matrix tensor gradcheck".split())
_FIRM_BEFORE_EQUAL = _FIRM | frozenset("model cost metric data grad hess jac".split())

_Plan = tuple[int, str, Any, tuple[int, ...], int | None, int]      # see `Parser._plan`


class Rejected(Exception):
    """A token that no rule accepts, or a tree too deep (then with its diagnostic)."""

    def __init__(self, diagnostic: Diagnostic | None = None) -> None:
        super().__init__()
        self.diagnostic = diagnostic


class Parser:
    """One run over a list of tokens; `diagnostics` grows, `result` is the value of the start rule."""

    def __init__(self, source: Source, tokens: list[Token], start: str = "script", top_level: bool = True) -> None:
        self.table = load_table()
        self.source, self.start = source, start
        self.tokens = tokens
        self.position = 0
        self.stop = len(tokens)
        self.builder = Builder(source)
        self.builder.top_level = top_level
        self.diagnostics = self.builder.diagnostics
        self.plan = self._plan()
        self.states = [self.table.starts[start]]
        self.end_state = self.table.ends[start]
        # Beside each state but the first: the value, its text's start and end, and the depth of its tree.
        self.values: list[Any] = []
        self.begins: list[int] = []
        self.ends: list[int] = []
        self.depths: list[int] = []
        self.result: Any = None
        self.pending: Token | None = None       # read before the token at `position`
        self.settled = 0                        # how many diagnostics stay, whatever follows
        self.resume: int | None = None          # where a statement begins inside the one that is broken
        self.resumed = 0                        # where the last such statement did begin

    def run(self) -> None:
        """Reads all tokens, recovering after each mistake."""
        while not self.advance():
            self._recover()
            if self.position >= self.stop:
                return

    def advance(self) -> bool:
        """Reads tokens up to the end (True) or to one that is not accepted, which has been reported (False)."""
        try:
            self._read()
        except Rejected as rejected:
            self.resume = None
            if len(self.diagnostics) >= MAXIMUM_ERRORS:
                return False
            diagnostic = rejected.diagnostic
            if diagnostic is None:
                from dsl.syntax.explain import explain
                diagnostic, self.resume = explain(self)
            self._retract(self.tokens[self.statement_start()].start)
            self.diagnostics.append(diagnostic)
            self.settled = len(self.diagnostics)
            return False
        return True

    # ------------------------------------------------------------ shift and reduce
    def _read(self) -> None:
        rows, words, jumps = self.table.states, self.table.words, _JUMPS
        plan = self.plan
        tokens, states = self.tokens, self.states
        while self.position < self.stop:
            token = self.pending or tokens[self.position]
            row = rows[states[-1]]
            symbol = token.type
            undecided = False
            if symbol == "WORD":
                symbol = words.get(token.text, "NAME")
                if symbol != "NAME" and token.text not in RESERVED:
                    if symbol not in row:
                        symbol = "NAME"
                    else:
                        undecided = "NAME" in row
            while True:
                action = row.get(symbol)
                if action is None:
                    raise Rejected(token.extra if isinstance(token.extra, Diagnostic) else None)
                if action >= 0:
                    if not undecided or "NAME" not in row or self._is_keyword(token, action):
                        break
                    symbol, undecided = "NAME", False
                    continue
                length, _, build, _, passed, _ = plan[~action]
                if build is None and length == 1 and passed == 0:
                    # A chain of such rules leads an operand up all levels of precedence; its end depends on this only.
                    key = (states[-2], action, symbol)
                    target = jumps.get(key)
                    if target is None:
                        target = jumps[key] = self._jump(*key)
                    states[-1] = target
                    row = rows[target]
                    continue
                row = self._reduce(plan[~action])
                if symbol == "$END" and states[-1] == self.end_state:
                    self.result = self.values[-1]
                    self.position += 1
                    return
            if len(states) > _STACK_LIMIT:
                raise Rejected(messages.too_deep(Span(self.source, token.start, token.end), MAXIMUM_NESTING))
            self._push(action, token, token.start, token.end, 0)
            if self.pending is None:
                self.position += 1
            else:
                self.pending = None

    def _push(self, state: int, value: Any, begin: int, end: int, depth: int) -> None:
        self.states.append(state)
        self.values.append(value)
        self.begins.append(begin)
        self.ends.append(end)
        self.depths.append(depth)

    def _reduce(self, rule: _Plan) -> Mapping[str, int]:
        """Puts a rule's value in the place of its children; the row of the new state."""
        length, origin, build, picks, passed, weight = rule
        if length:
            values, begins, ends, depths = self.values, self.begins, self.ends, self.depths
            begin, end, depth = begins[-length], ends[-1], max(depths[-length:]) + weight
            children = values[-length:]
            del self.states[-length:], values[-length:], begins[-length:], ends[-length:], depths[-length:]
        else:
            begin = end = self.ends[-1] if self.ends else 0
            depth, children = 0, []
        if depth > MAXIMUM_CHAIN:
            raise Rejected(self._too_deep(weight, begin, children))
        if build is None:
            value = children[passed] if passed is not None else _spliced(picks, children)
        elif passed is None:
            value = build(begin, end, *_picked(picks, children))
        else:
            value = build(begin, end, *[children[pick] for pick in picks])
        rows = self.table.states
        target = rows[self.states[-1]][origin]
        self._push(target, value, begin, end, depth)
        return rows[target]

    def _plan(self) -> list[_Plan]:
        """For each rule: length, origin, method, picks, the child passed on (with a method: not None if no pick needs
        care), and what it adds to the depth."""
        plan: list[_Plan] = []
        for rule in self.table.rules:
            if rule.passed is not None or rule.name is None:
                plan.append((rule.length, rule.origin, None, rule.picks, rule.passed, 0))
                continue
            weight = 1 if rule.name == "binary" else MAXIMUM_CHAIN // MAXIMUM_NESTING if rule.name in _NESTING else 0
            plain = all(pick >= 0 and pick % 2 == 0 for pick in rule.picks)
            picks = tuple(pick // 2 for pick in rule.picks) if plain else rule.picks
            method = getattr(self.builder, rule.name)
            plan.append((rule.length, rule.origin, method, picks, 0 if plain else None, weight))
        return plan

    def _jump(self, below: int, action: int, symbol: str) -> int:
        """The state above `below` after `action` and all further reductions that only pass one child on."""
        while True:
            rule = self.table.rules[~action]
            target = self.table.states[below][rule.origin]
            following = self.table.states[target].get(symbol)
            if following is None or following >= 0:
                return target
            after = self.table.rules[~following]
            if after.length != 1 or after.passed != 0:
                return target
            action = following

    def _too_deep(self, weight: int, begin: int, children: list[Any]) -> Diagnostic:
        if weight == 1:
            return messages.chain_too_long(Span(self.source, children[1].start, children[1].end), MAXIMUM_CHAIN)
        return messages.too_deep(Span(self.source, begin, begin + 1), MAXIMUM_NESTING)

    def _is_keyword(self, token: Token, action: int) -> bool:
        """Whether a word is meant as a keyword where it could be a name, too."""
        following = self.tokens[self.position + 1]
        target = self.table.states[action]
        if following.type == "WORD":
            if following.text in _OPERATOR_WORDS:
                return token.text in _FIRM or self.table.words[following.text] in target
            return True
        if following.type in target:
            return True
        if following.type == "NEWLINE":
            return token.text in _FIRM
        if following.type == "EQUAL":
            return token.text in _FIRM_BEFORE_EQUAL
        return following.type not in _AFTER_OPERAND

    # ------------------------------------------------------------ recovery
    def accepts(self, symbol: str) -> bool:
        """Whether a terminal could really be read next (the table alone may reduce first and then refuse)."""
        rows, rules = self.table.states, self.table.rules
        kept, extra = len(self.states), list[int]()
        while True:
            state = extra[-1] if extra else self.states[kept - 1]
            action = rows[state].get(symbol)
            if action is None:
                return False
            if action >= 0 or state == self.end_state:
                return True
            rule = rules[~action]
            length = rule.length
            shorter = min(length, len(extra))
            if shorter:
                del extra[-shorter:]
            kept -= length - shorter
            below = extra[-1] if extra else self.states[kept - 1]
            extra.append(rows[below][rule.origin])

    def expected(self) -> frozenset[str]:
        """The terminals that could be read next."""
        terminals = (symbol for symbol in self.table.states[self.states[-1]] if symbol.isupper())
        return frozenset(symbol for symbol in terminals if self.accepts(symbol))

    def statement_start(self) -> int:
        """Index of the first token of the statement that is being read."""
        index = self.position
        while index > self.resumed and self.tokens[index - 1].type not in ("NEWLINE", "INDENT"):
            index -= 1
        return index

    def before(self) -> Parser:
        """A parser that stands before the current token, without the reductions which that token brought about."""
        keep = self._enclosing()
        twin = Parser(self.source, self.tokens, self.start)
        twin.states = self.states[:keep]
        twin.values, twin.begins, twin.ends, twin.depths = ([0] * (keep - 1) for _ in range(4))
        twin.position, twin.stop, twin.resumed = self.statement_start(), self.position, self.resumed
        twin._read()
        return twin

    def _enclosing(self) -> int:
        """How many states belong to what encloses the current statement; the statements before it are put away."""
        while self.position == self.statement_start():
            actions = set(self.table.states[self.states[-1]].values())
            if len(actions) != 1 or (action := actions.pop()) >= 0:
                break
            self._reduce(self.plan[~action])                # whatever follows
        keep = len(self.states)
        while keep > 1 and "line" not in self.table.states[self.states[keep - 1]]:
            keep -= 1
        return keep

    def _retract(self, start: int) -> None:
        """Drops what was found in a statement so far: half of one is easily misread."""
        while len(self.diagnostics) > self.settled and (span := self.diagnostics[-1].span) is not None and span.start >= start:
            self.diagnostics.pop()

    def _recover(self) -> None:
        """Drops the statement being read, whose block (if it has one) is still searched for mistakes."""
        rows, tokens, resume = self.table.states, self.tokens, self.resume
        if resume is not None:
            self.resumed = resume
            if resume == self.position and self.accepts("NEWLINE"):
                place = tokens[resume - 1].end          # what stands before is a whole statement
                self.pending = Token("NEWLINE", "", place, place)
                return
        keep = self._enclosing()
        if "line" not in rows[self.states[keep - 1]]:
            self.position = len(tokens)
            return
        header = tokens[self.statement_start()].text
        del self.states[keep:]
        for stack in (self.values, self.begins, self.ends, self.depths):
            del stack[keep - 1:]
        self.builder.large.clear()
        if resume is None:
            while tokens[self.position].type not in ("NEWLINE", "$END"):
                self.position += 1
                if tokens[self.position].type == "INDENT":
                    self._skip_block(header in BLOCK_WORDS)
            if tokens[self.position].type == "NEWLINE":
                self.position += 1
        else:
            self.position = resume
        place = tokens[self.position - 1].end if self.position else 0
        self._push(rows[self.states[-1]]["line"], None, place, place, 0)

    def _skip_block(self, search: bool) -> None:
        """From an INDENT to its DEDENT; the statements below a header are searched for their own mistakes."""
        start = self.position + 1
        level = 0
        while True:
            kind = self.tokens[self.position].type
            level += (kind == "INDENT") - (kind == "DEDENT")
            if level == 0:
                break
            self.position += 1
        if search and self.tokens[start].first:
            end = self.tokens[self.position].start
            tokens = [*self.tokens[start:self.position], Token("$END", "", end, end)]
            inside = Parser(self.source, tokens, top_level=False)
            inside.run()
            self.diagnostics.extend(inside.diagnostics[:MAXIMUM_ERRORS])


def _picked(picks: tuple[int, ...], children: list[Any]) -> Iterator[Any]:
    for pick in picks:
        if pick < 0:
            yield None
        elif pick % 2:
            yield from children[pick // 2]
        else:
            yield children[pick // 2]


def _spliced(picks: tuple[int, ...], children: list[Any]) -> list[Any]:
    """A repetition's list; the list so far is extended in place, which keeps long ones linear."""
    if picks and picks[0] % 2 and picks[0] > 0:
        result: list[Any] = children[picks[0] // 2]
        result.extend(_picked(picks[1:], children))
        return result
    return list(_picked(picks, children))
