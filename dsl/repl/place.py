"""Where the cursor is: in comes what has been typed, out goes what stands before it, as the parser sees it.

A `Place` knows the word that is being typed, the statement it is in, the block around, the open brackets, and what may come next.
"""
from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

from dsl.errors import Source
from dsl.ir.types import DTYPES
from dsl.record import record
from dsl.repl.bound import declared
from dsl.syntax.layout import RESERVED, STATEMENT_WORDS, Token, arrange
from dsl.syntax.parse import keywords_after
from dsl.syntax.pieces import enclosing, line_facts, line_tokens, pieces

_WORD = re.compile(r"[\w\u0300-\u036f]*\Z")
DECLARED = frozenset("scalar vector matrix tensor shared".split())
_LOOP = frozenset(("scan", "fold", "iterate"))
# Words that say what the names behind them are.
GOVERNORS = frozenset("wrt except of with over valid lower higher update precision device use report using".split())


@record
class Call:
    """An open bracket: what is called (empty: nothing is), how many arguments are over, the names of those given by name, and the name
    whose value is being typed."""

    opener: str
    callee: str
    done: int
    named: tuple[str, ...]
    current: str


class Place:
    """The cursor in a text.

    word, start   what has been typed of a name or a path, and where that begins
    quoted        whether it stands inside a text
    commented     whether it stands in a comment
    silent        whether nothing can be offered: in a comment, in a number
    """

    def __init__(self, text: str, cursor: int) -> None:
        before = text[:cursor]
        line = before[before.rfind("\n") + 1:]
        tokens = [t for t in line_tokens(line) if t.type not in ("END", "BREAK")]
        last = tokens[-1] if tokens else None
        self.commented = last is not None and last.type == "COMMENT"
        self.quoted = last is not None and last.type == "ERROR" and last.text == '"'
        if self.quoted and last is not None:
            self.start = cursor - len(line) + last.start + 1
            head = self.start - 1
        else:
            found = _WORD.search(before)
            self.start = head = found.start() if found else cursor
        self.text, self.cursor = text, cursor
        self.word = before[self.start:]
        touching = last is not None and last.end == len(line)
        self.silent = self.commented or (last is not None and touching and last.type in ("NUMBER", "ERROR") and last.text[:1].isdigit())
        self.head = shortened(enclosing(text, head))
        """What stands before the word, without statements that are over."""

    # ------------------------------------------------------------ the statement
    @cached_property
    def arranged(self) -> list[Token]:
        """The tokens before the word, layout among them."""
        space = " " if self.head[-1:].isalnum() or self.head[-1:] == "_" else ""
        tokens, _ = arrange(Source("<input>", self.head + space + "x"))
        end = len(self.head) + len(space)
        return [t for t in tokens if t.end <= len(self.head) or (t.type == "INDENT" and t.end <= end)]

    @cached_property
    def tokens(self) -> list[Token]:
        """Those of the statement at the cursor."""
        begin = max((i + 1 for i, t in enumerate(self.arranged) if t.type in ("NEWLINE", "INDENT", "DEDENT")), default=0)
        return self.arranged[begin:]

    @cached_property
    def owner(self) -> str:
        """The first word of the innermost block around, empty at the top."""
        headers: list[str] = []
        first = ""
        fresh = True
        for token in self.arranged:
            if token.type == "INDENT":
                headers.append(first)
                fresh = True
            elif token.type == "DEDENT":
                del headers[-1:]
            elif token.type == "NEWLINE":
                fresh = True
            elif fresh:
                first, fresh = token.text, False
        return headers[-1] if headers else ""

    @property
    def first(self) -> str:
        """The statement's first word that is no dtype."""
        words = [t.text for t in self.tokens[:2]]
        return words[1] if len(words) == 2 and words[0] in (*DTYPES, "int", "float") and words[1] in STATEMENT_WORDS else "".join(words[:1])

    @property
    def previous(self) -> Token | None:
        return self.tokens[-1] if self.tokens else None

    def is_after(self, *texts: str) -> bool:
        return self.previous is not None and self.previous.type != "STRING" and self.previous.text in texts

    @cached_property
    def expected(self) -> frozenset[str]:
        """What may come next, as `keywords_after` says it."""
        return frozenset(keywords_after(self.head))

    @property
    def keywords(self) -> list[str]:
        return sorted(w for w in self.expected if w.isidentifier() and not (w.isupper() and len(w) > 1))

    @property
    def wants_expression(self) -> bool:
        return "NUMBER" in self.expected or not self.expected            # behind a mistake, anything

    @property
    def wants_name(self) -> bool:
        return "NAME" in self.expected and not self.wants_expression

    @cached_property
    def governor(self) -> str:
        """The word that says what a list of names is of: `wrt`, `over`, …; with the text before it, at this depth of brackets."""
        depth = len(self.brackets)
        for token in reversed(self.tokens):
            if token.depth < depth:
                break
            if token.depth == depth and token.type == "WORD" and token.text in GOVERNORS:
                return token.text
        return ""

    # ------------------------------------------------------------ brackets
    @cached_property
    def brackets(self) -> list[Call]:
        """The open ones, innermost last."""
        stack: list[Call] = []
        opened: list[int] = []
        for index, token in enumerate(self.tokens):
            match token.type:
                case "LPAR" | "LSQB":
                    stack.append(Call(token.text, callee_before(self.tokens, index) if token.type == "LPAR" else "", 0, (), ""))
                    opened.append(index)
                case "RPAR" | "RSQB":
                    del stack[-1:], opened[-1:]
                case "COMMA" if stack:
                    top = stack[-1]
                    stack[-1] = Call(top.opener, top.callee, top.done + 1, top.named, "")
                case "EQUAL" if stack and self.tokens[index - 1].type == "WORD" and index - 1 > opened[-1] \
                        and self.tokens[index - 2].text in ("(", ","):
                    top, name = stack[-1], self.tokens[index - 1].text
                    stack[-1] = Call(top.opener, top.callee, top.done, (*top.named, name), name)
        return stack

    @property
    def wants_size(self) -> bool:
        """Whether this is the shape of a declaration."""
        if self.first not in DECLARED or not self.brackets or self.brackets[0].opener != "[":
            return False
        outside = [t.type for t in self.tokens if t.depth == 0]
        since = outside[len(outside) - outside[::-1].index("COMMA"):] if "COMMA" in outside else outside
        return "EQUAL" not in since

    @property
    def call(self) -> Call | None:
        """The innermost bracket, if it is a call's."""
        top = self.brackets[-1] if self.brackets else None
        return top if top is not None and top.callee else None

    @property
    def at_argument(self) -> bool:
        """Whether an argument of a call begins here."""
        return self.call is not None and self.is_after("(", ",")

    @property
    def enclosing_call(self) -> Call | None:
        """The innermost call around, other brackets inside it or not."""
        return next((b for b in reversed(self.brackets) if b.callee), None)

    # ------------------------------------------------------------ names
    @cached_property
    def piece(self) -> tuple[int, int]:
        """The top-level statement at the cursor."""
        found = (0, self.cursor)
        for begin, end in pieces(self.text[:self.cursor]):
            found = (begin, end)
        return found

    def local_names(self) -> dict[str, str]:
        """Names of the block and of the loops around, with what they are."""
        found: dict[str, str] = {}
        begin, _ = self.piece
        lines = self.text[begin:self.cursor].split("\n")
        tokens = self.arranged
        if tokens and tokens[0].text in ("def", "optimizer"):
            found.update(dict.fromkeys(header_names(tokens), "parameter"))
            for line in lines[1:]:
                found.update(declared(line.strip()))
        found.update(dict.fromkeys(self.loop_names(), "in the loop"))
        return found

    def loop_names(self) -> list[str]:
        """What the loops whose brackets are open carry and go over."""
        found: list[str] = []
        depth = 0
        for index, token in enumerate(self.tokens):
            if token.type in ("LPAR", "LSQB"):
                depth += 1
            elif token.type in ("RPAR", "RSQB"):
                depth -= 1
            elif token.text in _LOOP and index + 1 < len(self.tokens) and self.tokens[index + 1].type == "LPAR" \
                    and self._is_open(index + 1):
                names, after_for = True, False
                for inner in self.tokens[index + 2:]:
                    if inner.type == "EQUAL" or inner.text == "in":
                        names = False
                    elif inner.text == "for":
                        names, after_for = True, True
                    elif names and inner.type == "WORD" and inner.text not in RESERVED:
                        found.append(inner.text)
                    if after_for and not names:
                        break
        return found

    def _is_open(self, opener: int) -> bool:
        level = 0
        for token in self.tokens[opener:]:
            level += (token.type in ("LPAR", "LSQB")) - (token.type in ("RPAR", "RSQB"))
            if level == 0:
                return False
        return True


LONG = 20
"""Lines of a statement that are looked at whole."""


def shortened(head: str) -> str:
    """A very long statement without items of its brackets that are over: lines that end in a comma and open nothing.

    What may come next does not depend on how many there are."""
    lines = head.split("\n")
    if len(lines) <= LONG:
        return head
    depth = 0
    kept: list[str] = []
    for index, line in enumerate(lines):
        facts = line_facts(line)
        whole = depth > 0 and not facts.opens and not facts.closes and line.endswith(",") and index < len(lines) - LONG
        depth += facts.opens - facts.closes
        if not whole or depth == 0:
            kept.append(line)
    return "\n".join(kept)


def callee_before(tokens: Sequence[Token], index: int) -> str:
    """The dotted name in front of a bracket; empty where a keyword or a sign stands there."""
    parts: list[str] = []
    place = index - 1
    while place >= 0 and tokens[place].type == "WORD" and tokens[place].text not in RESERVED:
        parts.append(tokens[place].text)
        if place < 2 or tokens[place - 1].type != "DOT":
            break
        place -= 2
    return ".".join(reversed(parts))


def header_names(tokens: Sequence[Token]) -> list[str]:
    """The parameters of a `def` or `optimizer`, and what the latter calls the variable, its gradient and the step."""
    found = []
    behind = False
    for before, token in pairwise(tokens):
        if token.type in ("COLON", "NEWLINE", "INDENT") or (token.type == "EQUAL" and token.depth == 0):
            break
        behind = behind or before.text == "for"
        if token.type == "WORD" and ((token.depth == 1 and before.text in ("(", ",")) or (behind and before.text in ("for", ","))):
            found.append(token.text)
    return found
