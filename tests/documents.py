"""The examples in the documentation, as Sybil's regions.

In: a Markdown page.  Out: one `Region` a code block, which runs it and compares what it shows; `written` collects what it showed,
for `--update-golden`.

    ```lr          a script: run; what it prints is compared with its `#>` lines, or with the `text` block that follows
    ```python      run in the page's namespace; what it prints, with the `text` block that follows
    ```console     each `$` line is a command, the lines below it what it shows; `lr` runs in this process
    ```repl        an interactive session: `lr>` lines and what they show
    ```text        the output of the block before it
    ```form        the grammar of a statement: not run;  ```sh: installs things: not run

A comment before a block says more, one word a line: `file NAME` writes the block to a file instead of running it, `before` puts the
lines that follow before the script, `needs MODULE` leaves the block out where that is not installed, `not run` with its reason, `varies`
where no number is the same twice, `fresh` begins a new interactive session.

Numbers agree if they are equal to half a unit of the last digit shown, or to six digits.  Times, rates and sizes in bytes vary from
run to run: only their units are compared.  In expected lines `…` stands for anything, and in a line by itself for any
lines.
"""
from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sybil import Document, Example, Region, Sybil

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"(?:^[ ]*<!--(?P<said>(?:(?!-->)[\s\S])*)-->\n+)?"
                   r"^(?P<indent>[ ]*)(?P<fence>`{3,})(?P<language>[\w{}-]*)[^\n]*\n(?P<body>[\s\S]*?)^(?P=indent)(?P=fence)[ ]*$", re.M)
RUN = ("lr", "python", "console", "repl")
OTHER = ("text", "form", "sh", "csv", "json", "toml", "stan", "{toctree}", "{include}", "{literalinclude}", "{eval-rst}")
TAKES = re.compile(r"(?<![\w.])[\d,]+(?:\.\d+)?(?:e[+-]?\d+)?[  ]?(?:µs|us|ms|s|min)\b")
VARIES = re.compile(r"(?<![\w.])[\d,]+(?:\.\d+)?(?:e[+-]?\d+)?[  ]?(?=(?:KiB|MiB|GiB|B|bytes|steps/s|GB/s|GFLOP/s|Gop/s)\b)")
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w])")


@dataclass
class Block:
    """A fence: where its body is, what the comment before it says, and the output block that belongs to it."""

    language: str
    body: str
    start: int
    end: int
    said: str = ""
    output: Block | None = None

    def told(self, word: str) -> str | None:
        found = re.search(rf"^\s*{word}\b[ ]*([\s\S]*)" if word == "before" else rf"^\s*{word}\b[ ]*(.*)$", self.said, re.M)
        return found[1].rstrip() if found else None


@dataclass
class Page:
    """What the blocks of a page share: a folder, Python's names, an interactive session, and what was shown."""

    folder: Path
    names: dict[str, object] = field(default_factory=lambda: {"__name__": "__main__"})
    written: list[tuple[Block, str]] = field(default_factory=list)
    update: bool = False
    repl: Any = None
    screen: io.StringIO = field(default_factory=io.StringIO)


def blocks(text: str) -> list[Block]:
    found: list[Block] = []
    for match in BLOCK.finditer(text):
        body = textwrap.dedent(match["body"]) if match["indent"] else match["body"]
        block = Block(match["language"], body, match.start("body"), match.end("body"), match["said"] or "")
        if block.language == "text" and not block.said.strip().startswith("not run"):
            assert found and found[-1].output is None, f"an output without its example: {body[:60]!r}"
            found[-1].output = block
        else:
            assert block.language in RUN or block.language in OTHER, f"no meaning for ```{block.language}"
            found.append(block)
    return found


def parse(document: Document) -> Iterator[Region]:
    for block in blocks(document.text):
        if block.language in RUN or block.told("file") is not None:
            yield Region(block.start, block.end, parsed=block, evaluator=evaluate)


def evaluate(example: Example) -> str | None:
    block, page = example.parsed, example.namespace["page"]
    module, name = block.told("needs"), block.told("file")
    if block.told("not run") is not None or (module and importlib.util.find_spec(module) is None):
        return None
    if name is not None:
        (page.folder / name).write_text(block.body, encoding="utf-8")
        return None
    shown, wanted, place = RUNNERS[block.language](block, page)
    if wanted is None:
        return f"{example.path}:{example.line}: prints what the page does not show:\n{shown}" if shown else None
    plain = (lambda text: re.sub(r"[\d.,]+", "#", text)) if block.told("varies") is not None else (lambda text: text)
    reason = difference(plain(shown), plain(wanted))
    if reason is not None and page.update:
        assert "E0999" not in shown, shown
        page.written.append((place, shown))
        return None
    return f"{example.path}:{example.line}: {reason}\n--- shown\n{shown}\n--- on the page\n{wanted}" if reason else None


# ---------------------------------------------------------------- running
Shown = tuple[str, "str | None", Block]


def run_script(block: Block, page: Page) -> Shown:
    import dsl
    from dsl.errors import LrError, Source
    out = io.StringIO()
    before = block.told("before") or ""
    session = dsl.Session(base=page.folder, out=page.folder, stdout=out, quiet=True)
    session.comparing = True
    problems = []
    try:
        if before.strip():
            session.load(Source("before.lr", textwrap.dedent(before)))
        session.load(Source("example.lr", block.body))
        problems.extend(session.elaborator.warnings)
        session.run()
    except LrError as problem:
        problems.extend(problem.diagnostics)
    problems.extend(session.failures)
    shown = out.getvalue() + "\n\n".join(d.render(False) for d in problems)
    if block.output is None:
        return ("" if session.checked and not problems else shown), None, block
    return shown, block.output.body, block.output


def run_python(block: Block, page: Page) -> Shown:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(block.body, "<page>", "exec"), page.names)
    return out.getvalue(), block.output.body if block.output else None, block.output or block


def run_console(block: Block, page: Page) -> Shown:
    shown = []
    for command in re.findall(r"^\$ (.*(?:\\\n.*)*)", block.body, re.M):
        shown.append(f"$ {command}\n{command_output(command)}")
    return "".join(shown), block.body, block


def run_repl(block: Block, page: Page) -> Shown:
    from dsl.repl.commands import Repl
    from dsl.repl.reader import CONTINUATION, PROMPT, transcript
    if page.repl is None or block.told("fresh") is not None:
        page.screen = io.StringIO()
        page.repl = Repl(page.screen, page.screen)
    shown = []
    for entry in transcript(block.body) or []:
        page.screen.seek(0)
        page.screen.truncate()
        page.repl.run(entry)
        shown.append(PROMPT + entry.replace("\n", "\n" + CONTINUATION) + "\n" + page.screen.getvalue())
    return "".join(shown), block.body, block


def command_output(command: str) -> str:
    words = shlex.split(command.replace("\\\n", " "))
    if words[0] == "lr" and not set("|>;&$") & set(command):
        from dsl.cli import commands
        both = io.StringIO()
        with contextlib.redirect_stdout(both), contextlib.redirect_stderr(both), contextlib.suppress(SystemExit):
            commands.main(args=words[1:], prog_name="lr")
        return both.getvalue()
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "NO_COLOR": "1", "COLUMNS": "100"}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, timeout=60)
    return done.stdout + done.stderr


RUNNERS = {"lr": run_script, "python": run_python, "console": run_console, "repl": run_repl}


# ---------------------------------------------------------------- comparing
def difference(shown: str, wanted: str) -> str | None:
    ours, theirs = lines(shown), lines(wanted)
    place, skipping = 0, False
    for expected in theirs:
        if expected.strip() == "…":
            skipping = True
            continue
        while skipping and place < len(ours) and not same(ours[place], expected):
            place += 1
        if place == len(ours):
            return f"not shown: {expected!r}"
        if not same(ours[place], expected):
            return f"shown: {ours[place]!r}, on the page: {expected!r}"
        place, skipping = place + 1, False
    return f"shown, and not on the page: {ours[place]!r}" if place < len(ours) and not skipping else None


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip("\n").splitlines()]


def same(shown: str, expected: str) -> bool:
    shown, expected = (re.sub(r"\s+", " ", VARIES.sub("#", TAKES.sub("# time", line))) for line in (shown, expected))
    if "…" in expected:
        return re.fullmatch(".*".join(map(re.escape, expected.split("…"))), shown) is not None
    return NUMBER.sub("#", shown) == NUMBER.sub("#", expected) and all(
        map(near, NUMBER.findall(shown), NUMBER.findall(expected)))


def near(shown: str, expected: str) -> bool:
    if shown == expected:
        return True
    digits = re.search(r"\.(\d*)", expected)
    exponent = re.search(r"[eE]([-+]?\d+)", expected)
    unit = 10.0 ** ((int(exponent[1]) if exponent else 0) - (len(digits[1]) if digits else 0))
    apart = abs(float(shown) - float(expected))
    return ("." in expected or "e" in expected) and (apart <= 0.5 * unit or apart <= 1e-6 * abs(float(expected)))


# ---------------------------------------------------------------- pages
def run_page(path: Path, folder: Path, update: bool) -> list[str]:
    """What the examples of a page show otherwise than it says; with `update` it is made to say so."""
    page = Page(folder, update=update)
    document = Sybil(parsers=[parse], pattern=path.name, path=str(path.parent)).parse(path)
    document.namespace["page"] = page
    for name in ("examples", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    failed = []
    for example in document.examples():
        try:
            example.evaluate()
        except Exception as problem:
            failed.append(str(problem))
    text = document.text
    for block, shown in reversed(page.written):
        text = text[:block.start] + shown.rstrip("\n") + "\n" + text[block.end:]
    if page.written:
        path.write_text(text, encoding="utf-8")
    return failed
