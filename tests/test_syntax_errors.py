"""Every mistake in a script to its code, place, message and help; and that each is reported once, and alone."""

import random

import pytest

from dsl.errors import Diagnostic, Label, LrError, Source, Span, error
from dsl.syntax.layout import scan
from dsl.syntax.parse import parse, parse_expression

# Code, text, line and column, the text under the caret, message, help.
MISTAKES = [
    ("E0101", "let a = (1 + 2", "1:9", "(", "`(` is never closed", "add `)` where the part inside ends"),
    ("E0101", "let a = f(x, y\nlet b = 2", "1:10", "(", "`(` is never closed", "add `)` where the part inside ends"),
    ("E0102", "let a = 1 + 2)", "1:14", ")", "`)` closes nothing", "delete it, or add the missing `(`"),
    ("E0102", "let a = [1, 2)", "1:14", ")", "`)` cannot close `[`", "write `]`"),
    ("E0102", "let a = f(x; y)", "1:12", ";",
     "`;` inside brackets", "separate items with `,`, or close the bracket before the `;`"),
    ("E0102", "let x = a) + (b", "1:10", ")", "`)` closes nothing", "delete it, or add the missing `(`"),
    ("E0103", "scalar x\n  let y = x", "2:3", "let",
     "`let` begins a statement, but its line is indented deeper",
     "begin it in the same column as the statement above"),
    ("E0103", "train 5 epochs over X = A\n  every 1 epochs: print C", "2:3", "every",
     "the `train` above opens no block", "end the line above with `:`"),
    ("E0103", "let a = b +\n  let c = 2", "2:3", "let",
     "`let` begins a statement, but its line is indented deeper",
     "begin it in the same column as the statement above"),
    ("E0103", "let a = 3\n  b = 4", "2:3", "b",
     "this line is indented deeper, so it continues the `let` above",
     "begin it in the same column as the statement above"),
    ("E0104", "\tlet a = 1", "1:1", "\t",
     "tab in the indentation", "replace every tab at the beginning of a line by four spaces (`lr fmt` does it)"),
    ("E0105", "every 10 epochs:\nlet b = 1", "1:16", ":",
     "nothing follows this `:`",
     "write the block on the lines below, indented deeper, or a statement after the `:`"),
    ("E0105", "step critic", "1:6", "critic", "`step` needs `:` and a block", "write it like `step critic:`"),
    ("E0105", "every 10 epochs print C", "1:17", "print",
     "`every` needs `:` and a block", "write it like `every 10 epochs: print C`"),
    ("E0106", "train 5 epochs:\n    every 1 epochs: print C\n  clip norm 1", "3:3", "clip",
     "this line is indented like no block above it", "begin it in the same column as the other lines of its block"),
    ("E0108", "let a = 1 let b = 2", "1:11", "let",
     "two statements on one line", "put `let` on its own line, or `;` before it"),
    ("E0110", 'let s = "abc', "1:9", '"abc',
     "this text is never closed", 'close the text with `"` on the same line; a line break inside is written `\\n`'),
    ("E0111", 'print "a\\q"', "1:9", "\\q",
     "unknown escape `\\q` in a text", 'the escapes are `\\n`, `\\t`, `\\"` and `\\\\`'),
    ("E0112", "let a = 3 $ 4", "1:11", "$", "`$` has no meaning here", "names are made of letters, digits and `_`"),
    ("E0112", "let a = x²", "1:10", "²", "`²` has no meaning here", "write `** 2`"),
    ("E0112", "let a = x − y", "1:11", "−", "`−` has no meaning here", "write `-`"),
    ("E0112", "let a = 'x'", "1:9", "'", "`'` has no meaning here", 'a text stands in double quotes: "…"'),
    ("E0112", "let a = {1: 2}", "1:9", "{",
     "`{` has no meaning here", "a block is an indented part after a line that ends in `:`"),
    ("E0112", "let a = “x”", "1:9", "“", "`“` has no meaning here", 'write `"`'),
    ("E0112", "let a = b\u200bc", "1:10", "\u200b",
     "invisible character: zero width space (U+200B)", "replace it by a plain space, or delete it"),
    ("E0112", "let a = b\u00a0+ c", "1:10", "\u00a0",
     "invisible character: no-break space (U+00A0)", "replace it by a plain space, or delete it"),
    ("E0113", "let a = 1_000", "1:9", "1_000", "`1_000` is no number", "write the digits without `_`: `1000`"),
    ("E0113", "let a = 2x", "1:9", "2x", "`2x` is no number", "a product needs its sign: `2 * x`"),
    ("E0113", "let a = 0x10", "1:9", "0x10", "`0x10` is no number", "numbers are written in decimal"),
    ("E0113", "let a = 1e", "1:9", "1e", "`1e` is no number", "the exponent needs a digit: `1e3`"),
    ("E0113", "let a = 1_0.5", "1:9", "1_0.5", "`1_0.5` is no number", "write the digits without `_`: `10.5`"),
    ("E0114", "let a = 9223372036854775808", "1:9", "9223372036854775808",
     "this integer does not fit int64", "as a float it is `9223372036854775808.0`"),
    ("E0114", "let a = 1e999", "1:9", "1e999", "this number does not fit float64", "infinity is written `inf`"),
    ("E0115", "let a = x ^ 2", "1:11", "^", "there is no operator `^`", "`**` is the power: `x ** 2`"),
    ("E0115", "let a = x && y", "1:11", "&&", "there is no operator `&&`", "write `a and b`"),
    ("E0115", "let a = !x", "1:9", "!", "there is no operator `!`", "write `not a`"),
    ("E0115", "x += 1", "1:3", "+=",
     "there is no operator `+=`", "a shared variable is changed by `update x <- x + 1`"),
    ("E0115", "let a := 3", "1:7", ":=",
     "there is no operator `:=`",
     "a name is bound by `let x = 1`, a shared variable changed by `update x <- x + 1`"),
    ("E0115", "let a = x .* y", "1:11", ".*",
     "there is no operator `.*`", "`*` works element by element; the matrix product is `@`"),
    ("E0115", "let a = x || y", "1:11", "||", "there is no operator `||`", "write `a or b`"),
    ("E0115", "let a = x => y", "1:11", "=>",
     "there is no operator `=>`", "greater or equal is `>=`; a function is `def f(x) = x + 1`"),
    ("E0120", "modle Y = X * w", "1:1", "modle", "no statement begins with `modle`", "did you mean `model`?"),
    ("E0120", "foo bar", "1:1", "foo",
     "no statement begins with `foo`",
     "a statement begins with a keyword such as `let`, `shared`, `model`, `train`, `print`"),
    ("E0120", "minimize C wrt all usnig adam()", "1:20", "usnig", "unknown word `usnig`", "did you mean `using`?"),
    ("E0120", "train 10 epochs ovr X = A", "1:17", "ovr", "unknown word `ovr`", "did you mean `over`?"),
    ("E0120", "int x", "1:5", "x",
     "`int` is followed by the kind of input", "write `int scalar x` or `int vector v[n]`"),
    ("E0120", "int8 vector v[n]", "1:1", "int8",
     "there is no dtype `int8`",
     "the dtypes are `bool`, `int`, `int32`, `int64`, `float`, `float32`, `float64`"),
    ("E0121", "import numpy as np", "1:8", "numpy",
     "`import` reads a script: its path is a text",
     'another script is read by `import "nets.lr" as nets`; all built-in functions are there without import'),
    ("E0121", "from x import y", "1:1", "from",
     "there is no `from` statement",
     'another script is read by `import "nets.lr" as nets`; all built-in functions are there without import'),
    ("E0121", "for i in range(10): print i", "1:1", "for",
     "there is no `for` statement",
     "arrays are computed whole; a loop with a state is `scan(v = v0 for t in ts: expr)`"),
    ("E0121", "while x < 3: print x", "1:1", "while",
     "there is no `while` statement",
     "a loop up to a condition is `iterate(v = v0 while condition max 100: expr)`"),
    ("E0121", "let f = lambda x: x + 1", "1:9", "lambda",
     "there is no `lambda`", "give the function a name: `def f(x) = …`"),
    ("E0121", "if x > 0: print x", "1:1", "if",
     "there is no `if` statement",
     "a choice is an expression: `let y = if c then a else b`, or `where(c, a, b)` element by element"),
    ("E0121", "let a = b if c else d", "1:11", "if",
     "`if` stands before both values", "write `if condition then a else b`"),
    ("E0121", "// comment", "1:1", "//", "`//` divides", "a comment begins with `#`"),
    ("E0121", "print x is None", "1:9", "is", "there is no `is`", "to compare, write `==`; for nan, `isnan(x)`"),
    ("E0121", "else", "1:1", "else",
     "there is no `else` statement", "a choice is an expression: `if c then a else if d then b else e`"),
    ("E0121", "let x = scan(v = v0, t in ts: v)", "1:24", "in",
     "`in` is no operator",
     "to compare with several values, write `x == a or x == b`; a loop is `scan(v = v0 for t in ts: expr)`"),
    ("E0122", "x = 3", "1:1", "x = 3",
     "`x = …` does not say what it makes",
     "a name is bound by a keyword, `let x = …` or `shared x = …`; what is shared changes by `update x <- …`"),
    ("E0122", "x[0] = 3", "1:1", "x[0] = 3",
     "`x[0] = …` binds nothing",
     "arrays are never changed in place; `where(condition, a, b)` and `concat` make new ones"),
    ("E0122", "f(x) = x + 1", "1:1", "f(x) = x + 1", "`f(x) = …` binds nothing", "a function is `def f(x) = …`"),
    ("E0122", "let (a, b) = f(x)", "1:1", "let (a, b) = f(x)",
     "`let (a, b) = …` binds nothing", "write `let a, b = …`, without brackets"),
    ("E0122", "x <- 1", "1:1", "x <- 1", "`x <- …` needs its keyword", "write `update x <- …`"),
    ("E0123", "update w = w - 1", "1:10", "=", "`update` is written with `<-`", "write `update w <- …`"),
    ("E0124", "let a <- 3", "1:7", "<-", "`let` is written with `=`", "`<-` stands only in `update w <- …`"),
    ("E0125", "let a == 3", "1:7", "==", "`let` is written with `=`", "write `=`"),
    ("E0125", "let a = b = c", "1:11", "=", "`=` stands where an expression goes on", "to compare, write `==`"),
    ("E0125", "let a = (x = 3)", "1:12", "=", "`=` stands where an expression goes on", "to compare, write `==`"),
    ("E0125", 'print(x, end="")', "1:13", "=", "`=` stands where an expression goes on", "to compare, write `==`"),
    ("E0126", "let a = x < y < z", "1:15", "<", "comparisons cannot be chained", "write `x < y and y < z`"),
    ("E0126", "let a = x < y == z", "1:15", "==", "comparisons cannot be chained", "write `x < y and y == z`"),
    ("E0127", "let a =", "1:7", "=",
     "an expression is missing after `=`", "write it here, or on the next line, indented deeper"),
    ("E0127", "let a = 3 +", "1:11", "+",
     "an expression is missing after `+`", "write it here, or on the next line, indented deeper"),
    ("E0127", "let a = * 3", "1:9", "*", "an expression is missing between `=` and `*`", None),
    ("E0127", "print", "1:1", "print",
     "an expression is missing after `print`", "write it here, or on the next line, indented deeper"),
    ("E0127", "let a = 2 * if c then 1 else 2", "1:13", "if",
     "`if` needs parentheses after `*`", "write `(if c then a else b)`"),
    ("E0127", "let a = x == not y", "1:14", "not", "`not` needs parentheses after `==`", "write `(not a)`"),
    ("E0127", "assert", "1:1", "assert",
     "an expression is missing after `assert`", 'write it like `assert x > 0, "why"`'),
    ("E0127", "shared w<lower> = ", "1:17", "=",
     "an expression is missing after `=`", "write it here, or on the next line, indented deeper"),
    ("E0128", "let a = x y", "1:11", "y",
     "two values side by side", "an operator is missing between them, or a new line"),
    ("E0128", "let a = 2 x", "1:11", "x", "two values side by side", "a product needs its sign: `2 * x`"),
    ("E0128", "let x = x[1 2]", "1:13", "2",
     "two values side by side", "an operator or a comma is missing between them"),
    ("E0128", "let a = b c d e", "1:11", "c",
     "two values side by side", "an operator is missing between them, or a new line"),
    ("E0128", "train 5 epochs until a b", "1:24", "b",
     "two values side by side", "an operator is missing between them, or a new line"),
    ("E0128", 'print x to "f.csv"', "1:9", "to",
     "two values side by side", "an operator is missing between them, or a new line"),
    ("E0128", "let a = x.2", "1:10", ".2",
     "two values side by side", "an operator is missing between them, or a new line"),
    ("E0128", "let a = 7 // the seventh", "1:18", "seventh",
     "two values side by side", "a comment begins with `#`; `//` divides"),
    ("E0129", "let if = 3", "1:5", "if", "`if` is a reserved word", "choose another name"),
    ("E0129", "let for = 3", "1:5", "for", "`for` is a reserved word", "choose another name"),
    ("E0130", "let = 3", "1:5", "=", "a name is missing after `let`", "write it like `let a = 1`"),
    ("E0130", "let 3 = x", "1:5", "3", "`3` is no name", "write it like `let a = 1`"),
    ("E0130", "update w[0] <- 3", "1:9", "[",
     "only a plain name can stand here",
     "arrays are never changed in place; `where(condition, a, b)` and `concat` make new ones"),
    ("E0130", "grad g = C wrt 2", "1:16", "2",
     "`2` is no name", "`wrt` takes names; bind an expression by `let` first"),
    ("E0130", "cost = mean(x)", "1:6", "=",
     "a name is missing after `cost`", "write it like `cost C = mean(sqr(Y_bar - Y))`"),
    ("E0130", "device", "1:1", "device", "a name is missing after `device`", "write it like `device cpu`"),
    ("E0130", "let x.y = 3", "1:6", ".", "only a plain name can stand here", "write it like `let a = 1`"),
    ("E0130", "let x = x.", "1:10", ".",
     "a name is missing after `.`",
     "a `.` is followed by `T`, a column of a table, or a name of an imported script"),
    ("E0130", "grad = C wrt w", "1:6", "=", "a name is missing after `grad`", "write it like `grad gw = C wrt w`"),
    ("E0130", "let s = scan(1 = v0 for t in ts: v)", "1:14", "1",
     "a loop needs a name here", "`scan(v = v0 for t in ts: expr)`"),
    ("E0130", 'device "cpu"', "1:8", '"cpu"', '`"cpu"` is no name', "write it like `device cpu`"),
    ("E0130", 'use "optim"', "1:5", '"optim"', '`"optim"` is no name', "write it like `use optim`"),
    ("E0131", "let a = if x then y", "1:9", "if",
     "this `if` has no `else`", "write `if condition then a else b`; there is always an `else`"),
    ("E0131", "let a = if x y else z", "1:9", "if",
     "this `if` has no `then`", "write `if condition then a else b`; there is always an `else`"),
    ("E0131", "let a = if x then y elif z then w else v", "1:21", "elif", "there is no `elif`", "write `else if`"),
    ("E0131", "if x then y", "1:1", "if",
     "this `if` has no `else`", "write `if condition then a else b`; there is always an `else`"),
    ("E0132", "grad g = C", "1:10", "C", "`grad` needs `wrt`", "write it like `grad gw = C wrt w`"),
    ("E0132", "grad g = C, w", "1:11", ",", "`grad` needs `wrt`", "write it like `grad gw = C wrt w`"),
    ("E0132", "minimize C using adam()", "1:12", "using",
     "`minimize` needs `wrt`", "write it like `minimize C wrt all using adam(rate = 1e-3)`"),
    ("E0132", "minimize C wrt all", "1:16", "all",
     "`minimize` needs `using`", "write it like `minimize C wrt all using adam(rate = 1e-3)`"),
    ("E0132", "train 10 epochs X = A", "1:17", "X",
     "`train` needs `over`", "write it like `train 100 epochs over X = A, Y = B`"),
    ("E0132", "save x", "1:6", "x", "`save` needs a file", 'write `save x to "file.csv"`'),
    ("E0132", 'save x "f.csv"', "1:8", '"f.csv"', "`save` needs `to`", 'write it like `save Y to "Y.csv"`'),
    ("E0132", "optimizer adam(r = 1): slot m = 1", "1:22", ":",
     "`optimizer` needs `for`", "write it like `optimizer mine(rate = 0.1) for p, g:`"),
    ("E0132", 'checkpoint "m" 10 epochs', "1:16", "10",
     "`checkpoint` needs `every`", 'write it like `checkpoint "m.safetensors" every 10 epochs`'),
    ("E0132", "clip 3", "1:6", "3", "`clip` needs `norm`", "write it like `clip norm 1`"),
    ("E0132", "train 3 epochs drop_last", "1:16", "drop_last",
     "`drop_last` without `batch`", "write `batch 32 drop_last`"),
    ("E0132", 'plot line(x) "f.png"', "1:14", '"f.png"',
     "`plot` needs `to`", 'write it like `plot line(x, y) to "fit.png"`'),
    ("E0132", "fit C using lbfgs()", "1:7", "using",
     "`fit` needs `wrt`", "write it like `fit C wrt all using lbfgs()`"),
    ("E0133", "train 100 epoch over X = A", "1:11", "epoch",
     "the unit is written `epochs`", "write `epochs`, also after 1"),
    ("E0133", "train 100", "1:7", "100",
     "`epochs` or `steps` is missing after `100`", "write it like `train 100 epochs over X = A, Y = B`"),
    ("E0133", "every 10: print C", "1:9", ":",
     "`epochs` or `steps` is missing after `10`", "write it like `every 10 epochs: print C`"),
    ("E0133", 'checkpoint "m" every 3', "1:22", "3",
     "`epochs` or `steps` is missing after `3`", 'write it like `checkpoint "m.safetensors" every 10 epochs`'),
    ("E0134", "print a,", "1:8", ",", "nothing follows this `,`", "delete the comma, or write the next item"),
    ("E0134", "let a, = 3", "1:6", ",", "nothing follows this `,`", "delete the comma, or write the next name"),
    ("E0134", "let a = f(,b)", "1:11", ",",
     "nothing stands before this `,`", "delete the comma, or write the item before it"),
    ("E0134", "let a = f(b,,c)", "1:12", ",", "nothing follows this `,`", "delete the comma, or write the next item"),
    ("E0134", "let a = x[1,]", "1:12", ",", "nothing follows this `,`", "delete the comma, or write the next item"),
    ("E0135", "train 10 epochs batch 3 batch 4", "1:25", "batch 4", "`batch` is given twice", "keep one of the two"),
    ("E0135", "def f(x, x) = x", "1:10", "x", "parameter `x` is given twice", "keep one of the two"),
    ("E0135", "print f(a = 1, a = 2)", "1:16", "a", "argument `a` is given twice", "keep one of the two"),
    ("E0135", "grad g, h = C wrt w, w", "1:22", "w", "name `w` is given twice", "keep one of the two"),
    ("E0135", "optimizer sgd(r) for p, p: slot m = p", "1:25", "p", "name `p` is given twice", "keep one of the two"),
    ("E0135", "train 5 epochs:\n  clip norm 1\n  clip norm 2", "3:3", "clip norm 2",
     "`clip` is given twice", "keep one of the two"),
    ("E0135", "print a with X = 1, X = 2", "1:21", "X", "name `X` is given twice", "keep one of the two"),
    ("E0136", "print f(C with X = a, 3)", "1:23", "3",
     "after `with`, every comma is followed by `name = value`",
     "put the `with` in parentheses: `(C with X = A), …`"),
    ("E0136", "print f(C with X = a, b)", "1:23", "b",
     "after `with`, every comma is followed by `name = value`",
     "put the `with` in parentheses: `(C with X = A), …`"),
    ("E0136", "print y with a = 3 with b = 2", "1:20", "with",
     "`print` takes one `with`", "separate the inputs by commas: `with X = A, Y = B`"),
    ("E0136", "print y with a = 3, z", "1:21", "z",
     "after `with`, every comma is followed by `name = value`",
     "put the `with` in parentheses: `(C with X = A), …`"),
    ("E0137", "train 5 epochs: let a = 3", "1:17", "let a = 3",
     "`let` cannot stand in a `train` block",
     "a `train` block holds `every`, `valid`, `stop after`, `rate = …`, `clip norm`, `checkpoint` and `log`"),
    ("E0137", "every 10 epochs: print C", "1:1", "every 10 epochs: print C",
     "`every` belongs inside a `train` block", "indent it below a line `train …:`"),
    ("E0137", "return 3", "1:1", "return 3",
     "`return` belongs inside a `def` block", "indent it below a line `def …:`"),
    ("E0137", "step critic: let a = 3", "1:14", "let a = 3",
     "`let` cannot stand in a `step` block", "a `step` block holds `update` and `minimize`"),
    ("E0137", "step critic: clip norm 1", "1:14", "clip norm 1",
     "`clip` cannot stand in a `step` block", "a `step` block holds `update` and `minimize`"),
    ("E0137", 'test "t": stop after 3 epochs without lower C', "1:11", "stop after 3 epochs without lower C",
     "`stop` cannot stand in a `test` block", "it belongs inside a `train` block"),
    ("E0137", "def f(x):\n  let y = x\n  y", "3:3", "y",
     "an expression by itself does nothing here", "write `return y`"),
    ("E0137", "def f(x):\n  return x\n  let y = x", "2:3", "return x",
     "`return` ends a function, but statements follow",
     "make it the last line; a choice is `return if c then a else b`"),
    ("E0138", "let s = scan(v = v0 for t in ts)", "1:32", ")",
     "a loop needs `:` and the next state", "write `scan(v = v0 for t in ts: expr)`"),
    ("E0138", "let s = scan((p, q) = (p0) for t in ts: p)", "1:24", "p0",
     "2 names, but 1 start value", "write one start value for each name: `(p, q)` goes with `(p0, q0)`"),
    ("E0138", "let s = iterate(v = v0 while v > 1: v / 2)", "1:35", ":",
     "`iterate` needs the greatest number of turns", "write `iterate(v = v0 while condition max 100: expr)`"),
    ("E0138", "let s = [x for x in xs]", "1:12", "for",
     "`for` belongs inside `scan(…)` and `fold(…)`, after the start value",
     "write `scan(v = v0 for t in ts: expr)`"),
    ("E0138", "let s = sum(x for x in xs)", "1:15", "for",
     "`for` belongs inside `scan(…)` and `fold(…)`, after the start value",
     "write `scan(v = v0 for t in ts: expr)`"),
    ("E0138", "let s = scan(a, b)", "1:9", "scan(a, b)",
     "`scan` is not written like this", "write `scan(v = v0 for t in ts: expr)`"),
    ("E0139", "print f(a = 1, 2)", "1:16", "2",
     "an argument without a name after `a = …`", "put the arguments without a name first"),
    ("E0139", "def f(x = 1, y) = x", "1:14", "y",
     "parameter `y` needs a default, as the one before it has one", "put the parameters without default first"),
    ("E0139", "print f(x + 1 = 2)", "1:9", "x + 1",
     "an argument's name stands left of `=`", "to compare, write `==`"),
    ("E0140", "shared w", "1:8", "w", "`w` has no value", "write it like `shared w = 0.0`"),
    ("E0140", "let a", "1:5", "a", "`a` has no value", "write it like `let a = 1`"),
    ("E0140", "model Y", "1:7", "Y", "`Y` has no value", "write it like `model Y = X * w`"),
    ("E0140", "def f(x)", "1:8", ")",
     "this function has no value", "write `= …`, or `:` and a block that ends in `return …`"),
    ("E0140", "let a b = 3", "1:7", "b", "`=` is missing before `b`", "write it like `let a = 1`"),
    ("E0140", "let a 3", "1:7", "3", "`=` is missing before `3`", "write it like `let a = 1`"),
    ("E0140", "train 5 epochs over X", "1:21", "X",
     "`X` has no value", "write the input and its data: `over X = A`"),
    ("E0140", "shared w = 0.0, b", "1:17", "b", "`b` has no value", "write it like `shared w = 0.0`"),
    ("E0141", "def f(x):\n  let y = x", "1:1", "def f",
     "function `f` has no `return`", "end its block with `return …`"),
    ("E0142", "load model.npz", "1:11", ".", "a file's name is a text", 'put it in double quotes: "file.csv"'),
    ("E0142", "load 3", "1:6", "3", "`load` takes a text in double quotes", 'write it like `load "m.safetensors"`'),
    ("E0142", "test foo: assert x", "1:6", "foo",
     "`test` takes a text in double quotes", 'write it like `test "name":`'),
    ("E0142", "model a, b = f(x)", "1:10", "b", "`model` binds one name", "`let p, q = …` takes a tuple apart"),
    ("E0142", "minimize C wrt w using 3", "1:24", "3",
     "`using` takes an optimizer such as `adam(rate = 1e-3)`", None),
    ("E0142", "(a + b)(c)", "1:2", "a + b", "`a + b` is no function", "a product is written `a * (b + c)`"),
    ("E0149", "vector v(n)", "1:9", "(", "sizes stand in square brackets", "write `vector v[n]`"),
    ("E0149", "vector int v[n]", "1:8", "int",
     "the dtype stands before the kind of input", "write `int vector v`"),
    ("E0149", "let a = 3:", "1:10", ":",
     "`let` opens no block",
     "`:` stands after `train …`, `every …`, `step …`, `test …`, `def …` and `optimizer …`"),
    ("E0149", "stop after 3 epochs without C", "1:29", "C",
     "expected `higher` or `lower` after `without`, found `C`",
     "write it like `stop after 5 epochs without lower C`"),
    ("E0149", "def f x = 3", "1:7", "x", "expected `(` after `f`, found `x`", "write it like `def f(x) = x + 1`"),
    ("E0149", "let a = 3 else", "1:11", "else", "the statement could end before `else`", None),
]


def mistakes(text):
    return parse(Source("test.lr", text))[1]


@pytest.mark.parametrize(("code", "text", "place", "marked", "message", "help"), MISTAKES)
def test_mistake(code, text, place, marked, message, help):
    (found,) = mistakes(text)
    assert (found.code, found.message, found.help) == (code, message, help)
    assert (f"{found.span.line}:{found.span.column}", found.span.text) == (place, marked)
    assert found.render().count("\n") >= 3


@pytest.mark.parametrize(("code", "text"), [row[:2] for row in MISTAKES if row[0] != "E0104"])
def test_a_mistake_hides_no_neighbour(code, text):
    """Good statements around it are kept, and a mistake below is found, too."""
    script, found = parse(Source("test.lr", f"let before = 1\n{text}\nlet after = 2\nlet $\nprint after"))
    names = [s.names[0].id for s in script.statements if type(s).__name__ == "Define"]
    assert names[0] == "before" and (names[-1] == "after" or code == "E0108")
    assert [d.code for d in found] == [code, "E0112"]


def test_every_code_is_tested():
    codes = {row[0] for row in MISTAKES} | {"E0107", "E0109"}           # these two in test_syntax.py
    assert codes == {f"E01{n:02}" for n in (*range(1, 16), *range(20, 43), 49)}


def test_rendering():
    text = "scalar x\nlet y = f(x,\n   x * 2]\nprint if x > 0 then y\n"
    assert "\n\n".join(d.render() for d in mistakes(text)) == """\
error[E0102]: `]` cannot close `(`
 --> test.lr:3:9
  |
2 | let y = f(x,
  |          - opened here
3 |    x * 2]
  |         ^ `)` is expected first
  = help: write `)`

error[E0131]: this `if` has no `else`
 --> test.lr:4:7
  |
4 | print if x > 0 then y
  |       ^^
  |                     - `else` is missing after this
  = help: write `if condition then a else b`; there is always an `else`"""


# ---------------------------------------------------------------- recovery
def test_all_mistakes_of_a_file_in_one_go():
    text = """\
modle Y = X * w
let a = (1 + 2
let b = 3
let c = * 2
train 5 epochs over X A:
  every 2 epochs: print c
  every 2 epochs: print +
  stop after 3 epochs without C
  clip norm 1
let d = "unclosed
def f(x):
  let y = x $ 2
  return y
shared w = 1; let e = 2 ^ 3; let g = 4
let h = 5
"""
    script, found = parse(Source("test.lr", text))
    assert [(d.span.line, d.code) for d in found] == [
        (1, "E0120"), (2, "E0101"), (4, "E0127"), (5, "E0140"), (7, "E0127"), (8, "E0149"), (10, "E0110"), (12, "E0112"),
        (14, "E0115")]
    assert [s.span.text.split("\n")[0] for s in script.statements] == [
        "let b = 3", "def f(x):", "shared w = 1", "let g = 4", "let h = 5"]


def test_a_header_without_colon_takes_its_lines_with_it():
    text = "train 5 epochs over X = A\n  every 2 epochs: print c\n  clip norm 1\n  rate = linear(1, 0)\nlet b = 1 2\nlet c = 3"
    script, found = parse(Source("test.lr", text))
    assert [(d.span.line, d.code) for d in found] == [(2, "E0103"), (5, "E0128")]
    assert [s.span.text for s in script.statements] == ["let c = 3"]


def test_statements_indented_by_mistake_are_still_read():
    script, found = parse(Source("test.lr", "let a = 1\n  let b = 2\n  let c = 3 +\nlet d = 4"))
    assert [(d.span.line, d.code) for d in found] == [(2, "E0103"), (3, "E0103"), (3, "E0127")]
    assert [s.names[0].id for s in script.statements] == ["a", "b", "d"]


def test_tabs_are_reported_once():
    script, found = parse(Source("test.lr", "train 5 epochs:\n\tclip norm 1\n\tevery 2 epochs:\n\t\tprint a\nlet b = 1\n"))
    assert [(d.span.line, d.code) for d in found] == [(2, "E0104")]
    assert len(script.statements) == 2 and len(script.statements[0].clauses) == 2


def test_at_most_a_hundred():
    assert len(mistakes("let a b\n" * 500)) == 100


GOOD = """\
dim n, d = 3
matrix X[n, d]
shared w[d] = 0.1 * normal(), s<lower=0> = 1.0
model Y = X @ w + exp(s)
cost C = mean(sqr(Y - 1)) + (if d > 2 then 1 else 0)
grad gw, gs = C wrt w, s
update w <- w - 0.1 * gw
minimize C wrt all except w using adam(rate = 1e-3)
train 100 epochs over X = A batch 32 shuffle until C < 0.1:
  every 10 epochs: print C, w[1:, None]
  stop after 5 epochs without lower C
def f(x, y = 1):
  let z = x * y
  return z ** 2
print Y with X = A
plot line(A, Y) to "fit.png"
save Y with X = A to "pred.csv"
"""


def test_one_slip_gives_one_error_in_its_line():
    """A word lost, doubled or replaced anywhere: nothing is reported in another statement."""
    assert not mistakes(GOOD)
    tokens = [t for t in scan(Source("good.lr", GOOD)) if t.type not in ("BREAK", "END") and t.text not in '()[]:"']
    random_state = random.Random(7)
    elsewhere = several = 0
    for _ in range(250):
        token = random_state.choice(tokens)
        instead = random_state.choice(("", "$", "+", "x y", "if", ",", "^ 2", "12ab", "=", "wrt"))
        source = Source("bad.lr", GOOD[:token.start] + instead + GOOD[token.end:])
        line = source.position(token.start)[0]
        found = parse(source)[1]
        several += len(found) > 1
        elsewhere += any(abs(d.span.line - line) > 1 for d in found)
    assert elsewhere <= 3 and several <= 12


# ---------------------------------------------------------------- expressions by themselves
@pytest.mark.parametrize(("text", "code", "message"), [
    ("", "E0127", "an expression is missing"), ("a +", "E0127", "an expression is missing after `+`"),
    ("let a = 3", "E0149", "an expression is expected here, not a `let` statement"), ("a b", "E0128", "two values side by side"),
    ("a = 3", "E0125", "`=` stands where an expression goes on"), ("(a", "E0101", "`(` is never closed"),
    ("a; b", "E0149", "a second expression begins here"), ("a < b < c", "E0126", "comparisons cannot be chained"),
    ("then", "E0149", "expected an expression, found `then`"), ("9" * 30, "E0114", "this integer does not fit int64"),
])
def test_expression(text, code, message):
    with pytest.raises(LrError) as caught:
        parse_expression(Source("test.lr", text))
    assert (caught.value.code, caught.value.message) == (code, message)


# ---------------------------------------------------------------- what is shown of a script
def test_what_a_script_holds_does_nothing_to_the_terminal():
    text = 'let b = "x\x1b[2J\x9b\u202e\x7f\b" +'
    shown = mistakes(text)[0].render()
    assert '1 | let b = "x␛[2J\ufffd\ufffd␡␈" +' in shown.split("\n") and shown.replace("\n", "").isprintable()
    assert shown.split("\n")[4].index("^") - shown.split("\n")[3].index("let") == text.index("+")
    assert Diagnostic("E0601", "no `\x1b[31m`", help="\x07").render() == "error[E0601]: no `␛[31m`\n  = help: ␇"
    assert error("E0101", "a\x1b", Span(Source("\x1b", "a"), 0, 1)).diagnostic.concise() == "␛:1:1: error[E0101]: a␛"


@pytest.mark.parametrize("place", [0, 1, 79, 80, 81, 150, 200, 500, 898, 899, 900])
def test_long_lines_are_shown_around_the_place(place):
    """Both ends say that there is more, and the mark stands below what it stood below."""
    text = "".join(chr(97 + i % 26) for i in range(900))
    source = Source("s", text)
    first, last = Label(Span(source, 0, 1), "first"), Label(Span(source, 899, 900), "last")
    lines = Diagnostic("E0301", "m", Label(Span(source, place, place + 3)), (first, last)).render().split("\n")
    line, marks, at_start, at_end = (line[4:] for line in lines[3:])
    assert len(line) <= 201 and line.startswith("…") == (place > 80) and line.endswith("…") == (place < 780)
    assert line[marks.index("^"):][:3] in (text[place:place + 3], "")
    assert at_start.index("-") == 0 and at_end.index("-") <= len(line) and at_end.endswith("- last")
    short = text[:200]
    assert short in Diagnostic("E0301", "m", Label(Span(Source("s", short), 5, 6))).render()
