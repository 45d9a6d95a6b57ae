"""Reading text: in comes a source, out go its AST and every syntax error in it.

`parse` is what the compiler reads a script with, `parse_expression` reads an expression by itself.  `is_complete` and
`keywords_after` serve whoever types: they ask the same parser whether a text may end, and what may follow it.
"""
from __future__ import annotations

from dsl.errors import Diagnostic, LrError, Source, Span
from dsl.syntax import ast
from dsl.syntax.lalr import MAXIMUM_ERRORS, Parser
from dsl.syntax.layout import BLOCK_WORDS, CLAUSE_WORDS, STATEMENT_WORDS, Layout, Token, arrange

_LAYOUT = frozenset(("NEWLINE", "INDENT", "DEDENT", "$END"))
_TOP_LEVEL_WORDS = STATEMENT_WORDS - CLAUSE_WORDS - {"return", "slot"}
# The words that may begin a statement in each block.
_HELD = {
    "train": CLAUSE_WORDS | {"NAME"},
    "every": frozenset("print show plot save load assert gradcheck".split()),
    "step": frozenset("update minimize".split()),
    "def": frozenset("let return".split()),
    "optimizer": frozenset("slot let update".split()),
    "test": _TOP_LEVEL_WORDS - {"test", "precision", "seed", "device", "import", "use"},
}


def parse(source: Source) -> tuple[ast.Script, list[Diagnostic]]:
    """The script and its syntax errors in the order of the text; statements with an error are left out."""
    tokens, diagnostics = arrange(source)
    parser = Parser(source, tokens)
    parser.run()
    found = sorted(diagnostics + parser.diagnostics, key=lambda d: (d.span.start if d.span else 0))
    script = parser.result
    if not isinstance(script, ast.Script):
        script = ast.Script((), span=Span(source, 0, len(source.text)))
    return script, found[:MAXIMUM_ERRORS]


def parse_expression(source: Source) -> ast.Expr:
    """The one expression of a text; raises `LrError` with the first syntax error."""
    tokens, diagnostics = arrange(source, statements=False)
    parser = Parser(source, tokens, "expression")
    if not diagnostics:
        parser.advance()
    diagnostics = [*diagnostics, *parser.diagnostics]
    if diagnostics:
        raise LrError(diagnostics[0])
    value = parser.result
    assert isinstance(value, ast.Expr)
    return value


def is_complete(text: str) -> bool:
    """Whether a REPL should run what was typed (False: ask for another line).

    Incomplete are an open bracket, a block's header without its body, and a statement that stops too early (after an
    operator, without its `else`).  Inside an indented block, and to give up, an empty last line ends the input."""
    source = Source("<input>", text)
    layout = Layout(source)
    tokens = layout.run()
    ended_by_hand = text.rstrip(" \t").endswith("\n")
    parser = Parser(source, tokens)
    if parser.advance():
        return ended_by_hand or not layout.in_block
    index = min(parser.position, len(tokens) - 1)
    if any(token.type not in _LAYOUT and token.type != "ERROR" for token in tokens[index:]):
        return True
    found = tokens[index].extra
    if isinstance(found, Diagnostic) and found.code not in ("E0101", "E0105"):
        return True
    return ended_by_hand and not (isinstance(found, Diagnostic) and found.code == "E0101")


def keywords_after(text: str) -> set[str]:
    """What may follow a text: keywords and signs as they are written; NAME, NUMBER, STRING, NEWLINE for their kinds.

    The text ends before the word that is being typed; a last line of spaces counts as that word's indentation."""
    cursor = len(text) + 1 if text[-1:].isalnum() or text[-1:] == "_" else len(text)
    source = Source("<input>", text.ljust(cursor) + "x")
    tokens, _ = arrange(source)
    parser = Parser(source, tokens)
    parser.stop = next((i for i, token in enumerate(tokens) if token.type == "WORD" and token.start == cursor), 0)
    parser.run()
    if parser.position > parser.stop:
        return set()
    written = {symbol: word for word, symbol in [*parser.table.words.items(), *parser.table.marks.items()]}
    kinds = {"NAME", "NUMBER", "STRING", "NEWLINE"}
    found = {written.get(symbol, symbol) for symbol in parser.expected() if symbol in written or symbol in kinds}
    if parser.stop > 0 and tokens[parser.stop - 1].type not in ("NEWLINE", "INDENT"):
        return found
    stack = [value for value in parser.values if isinstance(value, Token)]
    opened = max((i for i, token in enumerate(stack) if token.type == "INDENT"), default=0)
    owner = next((token.text for token in reversed(stack[:opened]) if token.text in BLOCK_WORDS), None)
    return found & _HELD[owner] if owner else found - (STATEMENT_WORDS - _TOP_LEVEL_WORDS)
