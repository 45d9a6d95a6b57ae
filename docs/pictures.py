"""The pictures of the README and the documentation, drawn from real runs.

In: nothing.  Out: `docs/images/*.svg` and `.png`.  Each terminal is a real one (a pseudo-terminal, its screen kept by pyte), its text
is put into the SVG with its colours.  What was shown stands in the picture's `<desc>` too, so that a test can compare it with what is
shown today.

    python docs/pictures.py [--to FOLDER] [NAME …]
"""
from __future__ import annotations

import base64
import html
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pexpect
import pyte

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
LR = str(Path(sys.executable).parent / "lr")

FONT = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"
SIZE, ADVANCE, LINE = 13, 7.8, 18
BACKGROUND, BAR, TEXT = "#1f2430", "#2a3040", "#d7dae0"
COLORS = {"default": TEXT, "black": "#5c6370", "red": "#ff7b72", "green": "#7fd88f", "brown": "#e5c07b", "blue": "#7aa2f7",
          "magenta": "#d2a8ff", "cyan": "#76d7ea", "white": "#d7dae0", "brightblack": "#8b93a5", "brightred": "#ff9d94",
          "brightgreen": "#a5e8b0", "brightbrown": "#f2d59b", "brightblue": "#a0bcff", "brightmagenta": "#e2c5ff",
          "brightcyan": "#a3e6f2", "brightwhite": "#ffffff"}


@dataclass(frozen=True)
class Run:
    """Text of one look within a line, from a column on."""

    column: int
    text: str
    color: str = TEXT
    bold: bool = False
    background: str | None = None


Lines = list[list[Run]]


# ---------------------------------------------------------------- what is on a screen
class Shell:
    """A real terminal in which programs run one after another."""

    def __init__(self, folder: Path, columns: int = 92, rows: int = 40) -> None:
        self.folder, self.columns, self.rows = folder, columns, rows
        self.screen = pyte.HistoryScreen(columns, rows, history=1000)
        self.stream = pyte.ByteStream(self.screen)

    def run(self, words: Sequence[str], keys: Callable[[Any], None] | None = None, shown: str | None = None) -> None:
        """`$ words`, and what the program shows; `keys` types into it."""
        if shown != "":
            self.stream.feed(f"\x1b[32m$\x1b[0m \x1b[1m{shown or ' '.join(words)}\x1b[0m\r\n".encode())
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "LINES": str(self.rows),
                       "COLUMNS": str(self.columns), "HOME": str(self.folder), "XDG_CACHE_HOME": str(cache()),
                       "XDG_STATE_HOME": str(self.folder), "XDG_DATA_HOME": str(self.folder)}
        environment.pop("NO_COLOR", None)
        program = LR if words[0] == "lr" else words[0]
        child = pexpect.spawn(program, list(words[1:]), cwd=str(self.folder), env=environment, dimensions=(self.rows, self.columns),
                              timeout=60)
        child.delaybeforesend = None
        if keys is not None:
            keys(Typist(child, self.stream, self.screen))
        self.listen(child, None)
        child.close()

    def listen(self, child: Any, seconds: float | None) -> None:
        end = None if seconds is None else time.monotonic() + seconds
        while end is None or time.monotonic() < end:
            try:
                self.stream.feed(child.read_nonblocking(65536, timeout=0.05))
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                return

    def lines(self) -> Lines:
        return lines_of(self.screen)


class Typist:
    """Types into a program, and waits for what it shows."""

    def __init__(self, child: Any, stream: Any, screen: Any) -> None:
        self.child, self.stream, self.screen = child, stream, screen

    def pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                data = self.child.read_nonblocking(65536, timeout=min(seconds, 0.05))
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                return
            if b"\x1b[6n" in data:
                self.child.send(f"\x1b[{self.screen.cursor.y + 1};{self.screen.cursor.x + 1}R")
            self.stream.feed(data)

    def wait(self, text: str, times: int = 1, seconds: float = 20.0) -> None:
        """Until this is on the screen so many times, and still is a moment later."""
        end = time.monotonic() + seconds
        while plain(lines_of(self.screen)).count(text) < times and time.monotonic() < end:
            self.pause(0.05)
        self.pause(0.15)

    def type(self, text: str) -> None:
        for character in text:
            self.child.send(character)
            self.pause(0.003)

    def enter(self, text: str) -> None:
        """An entry, and the next prompt."""
        before = plain(lines_of(self.screen)).count("lr>")
        self.type(text)
        self.wait(text.rstrip()[-12:])
        self.child.send("\r")
        self.wait("lr>", before + 1)


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def lines_of(screen: Any) -> Lines:
    rows = [*screen.history.top, *(screen.buffer[y] for y in range(screen.lines))]
    found: Lines = []
    for row in rows:
        runs: list[Run] = []
        for x in range(screen.columns):
            cell = row[x]
            color, background = (cell.bg, cell.fg) if cell.reverse else (cell.fg, cell.bg)
            look = (shade(color), cell.bold, None if background == "default" else shade(background))
            if runs and (runs[-1].color, runs[-1].bold, runs[-1].background) == look:
                runs[-1] = Run(runs[-1].column, runs[-1].text + cell.data, *look)
            else:
                runs.append(Run(x, cell.data, *look))
        found.append([run for run in (stripped(r) for r in runs) if run.text or run.background])
    while found and not any(run.text for run in found[-1]):
        found.pop()
    return found


def dense(lines: Lines) -> Lines:
    """Without the free lines above the last one, below a prompt."""
    last = len(lines) - 1
    while last > 1 and not any(run.text.strip() for run in lines[last - 1]):
        last -= 1
    return [*lines[:last], [], lines[-1]] if last < len(lines) - 1 else lines


def stripped(run: Run) -> Run:
    return run if run.background else Run(run.column, run.text.rstrip(), run.color, run.bold, None)


def shade(color: str) -> str:
    return COLORS.get(color) or (f"#{color}" if re.fullmatch("[0-9a-f]{6}", color) else TEXT)


def code_lines(text: str) -> Lines:
    """A script with the colours of its lexer."""
    from pygments.token import Comment, Keyword, Name, Number, Operator, String

    from dsl.highlight import LrLexer
    colors = [(Comment, "#8b93a5"), (Keyword, "#d2a8ff"), (Number, "#e5c07b"), (String, "#7fd88f"), (Operator, "#76d7ea"),
              (Name.Function, "#7aa2f7"), (Name.Builtin, "#7aa2f7")]
    found: Lines = [[]]
    column = 0
    for kind, value in LrLexer().get_tokens(text):
        for k, part in enumerate(value.split("\n")):
            if k:
                found.append([])
                column = 0
            if part.strip():
                color = next((c for token, c in colors if kind in token), TEXT)
                found[-1].append(Run(column, part, color, kind in Keyword))
            column += len(part)
    while found and not found[-1]:
        found.pop()
    return found


def plain(lines: Lines) -> str:
    texts = []
    for runs in lines:
        text = ""
        for run in runs:
            text = text.ljust(run.column) + run.text
        texts.append(text.rstrip())
    return "\n".join(texts)


# ---------------------------------------------------------------- drawing
def window(lines: Lines, x: float, y: float, columns: int, rows: int, title: str = "") -> str:
    """A window with text in it."""
    width, height = columns * ADVANCE + 28, rows * LINE + 48
    parts = [f'<rect x="{x}" y="{y}" width="{width:.0f}" height="{height}" rx="8" fill="{BACKGROUND}"/>',
             f'<path d="M{x} {y + 28}v-20a8 8 0 0 1 8-8h{width - 16:.0f}a8 8 0 0 1 8 8v20z" fill="{BAR}"/>']
    parts += [f'<circle cx="{x + 16 + 16 * k}" cy="{y + 14}" r="4.5" fill="{color}"/>'
              for k, color in enumerate(("#ff7b72", "#e5c07b", "#7fd88f"))]
    parts.append(f'<text x="{x + width / 2:.0f}" y="{y + 18}" fill="#8b93a5" text-anchor="middle" font-size="12">'
                 f'{html.escape(title)}</text>')
    for k, runs in enumerate(lines[:rows]):
        for run in runs:
            left, top = x + 14 + run.column * ADVANCE, y + 50 + k * LINE
            length = len(run.text) * ADVANCE
            if run.background:
                parts.append(f'<rect x="{left:.1f}" y="{top - 13}" width="{length:.1f}" height="{LINE}" fill="{run.background}"/>')
            if run.text.strip():
                weight = ' font-weight="bold"' if run.bold else ""
                parts.append(f'<text x="{left:.1f}" y="{top}" fill="{run.color}"{weight} textLength="{length:.1f}" '
                             f'lengthAdjust="spacingAndGlyphs" xml:space="preserve">{html.escape(run.text)}</text>')
    return "\n".join(parts)


def size(columns: int, rows: int) -> tuple[float, float]:
    return columns * ADVANCE + 28, rows * LINE + 48


def svg(width: float, height: float, body: str, text: str) -> str:
    return (f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}" font-family="{FONT}" font-size="{SIZE}">\n'
            f'<desc>{html.escape(text)}</desc>\n{body}\n</svg>\n')


def of_terminal(lines: Lines, title: str, columns: int | None = None) -> str:
    columns = columns or max(max((r.column + len(r.text) for r in runs), default=0) for runs in lines) + 2
    width, height = size(columns, len(lines))
    return svg(width, height, window(lines, 0, 0, columns, len(lines), title), plain(lines))


# ---------------------------------------------------------------- the pictures
SCRIPT = "linear_regression.lr"


def script() -> str:
    return (ROOT / "examples" / SCRIPT).read_text(encoding="utf-8").partition("\ntest ")[0]


MISTAKE = "matrix X[n, d]\ndim k = 9\nshared w[k] = 0, b = 0\nmodel p = sigmoid(X @ w + b)\n"


def readme(folder: Path) -> dict[str, str | bytes]:
    """What the script prints, a formula, a mistake; and the line."""
    (folder / SCRIPT).write_text(script(), encoding="utf-8")
    (folder / "logreg.lr").write_text(MISTAKE, encoding="utf-8")
    shell = Shell(folder, columns=84, rows=20)
    shell.run(["lr", "run", SCRIPT])
    shell.run(["lr", "show", SCRIPT, "gw"])
    shell.run(["lr", "check", "logreg.lr"])
    shown, plot = shell.lines(), (folder / "fit.png").read_bytes()
    width, height = size(84, len(shown))
    beside = height * 1.3
    body = window(shown, 0, 0, 84, len(shown), "lr") + (
        f'<rect x="{width + 12:.0f}" y="0" width="{beside:.0f}" height="{height}" rx="8" fill="#ffffff"/>'
        f'<image x="{width + 18:.0f}" y="4" width="{beside - 12:.0f}" height="{height - 8}" '
        f'xlink:href="data:image/png;base64,{base64.b64encode(plot).decode()}"/>')
    return {"lr.svg": svg(width + 12 + beside, height, body, plain(shown)), "fit.png": plot}


def prompt(folder: Path) -> dict[str, str | bytes]:
    """An interactive session, with the menu of completions open."""
    shell, seen = Shell(folder, columns=92, rows=30), []

    def keys(typist: Typist) -> None:
        typist.wait("lr>")
        entries = ("data X = reshape(linspace(-1, 1, 12), (4, 3))", "X", "vector x[d]", "shared w[d] = 0.0, b = 0.0",
                   "model p = sigmoid(w @ x + b)", "grad gw = log(p) wrt w", "gw with x = X")
        for entry in entries:
            typist.enter(entry)
        typist.type("let loss = log")
        typist.wait("logsumexp(x")
        seen.append(shell.lines())
        typist.type("\x03\x04")

    shell.run(["lr"], keys, shown="")
    return {"repl.svg": of_terminal(dense(seen[0]), "lr", 92)}


def training(folder: Path) -> dict[str, str | bytes]:
    """A training while it runs, and as it ends."""
    (folder / "digits.lr").write_text(DIGITS.replace("DATA", str(ROOT / "examples" / "data" / "digits.csv")), encoding="utf-8")
    shell, seen = Shell(folder, columns=92, rows=17), []

    def keys(typist: Typist) -> None:
        typist.wait("lr>")
        typist.enter(":load digits.lr")
        seen.append(shell.lines())
        typist.type("\x04")

    shell.run(["lr"], keys, shown="")
    return {"training.svg": of_terminal(dense(seen[0]), "lr", 92)}


DIGITS = """seed 5
use optim
data t = csv("DATA")
data A, A_valid, u, u_valid = split(t[:, :64] / 16, t.label, test = 0.3)
dim h = 64, k = 10
matrix X[n, d]
int vector y[n]
shared W1[d, h] = sqrt(2 / d) * normal(), b1[h] = 0.0
shared W2[h, k] = sqrt(2 / h) * normal(), b2[k] = 0.0
model z = relu(X @ W1 + b1) @ W2 + b2
cost C = mean(xent(z, y))
minimize C wrt all using sgd(rate = 0.02)
train 300 epochs over X = A, y = u batch 16 shuffle:
  valid X = A_valid, y = u_valid
"""


def figure(folder: Path) -> dict[str, str | bytes]:
    """A plot in the terminal."""
    text = script().replace('to "fit.png"', 'title "a line through 101 points"')
    (folder / SCRIPT).write_text(text, encoding="utf-8")
    shell = Shell(folder, columns=84, rows=24)
    shell.run(["lr", "run", "-q", SCRIPT])
    return {"plot.svg": of_terminal(shell.lines(), "terminal", 84)}


PICTURES: dict[str, Callable[[Path], dict[str, str | bytes]]] = {"readme": readme, "prompt": prompt, "training": training,
                                                                      "figure": figure}


def drawn(name: str) -> dict[str, str | bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return PICTURES[name](Path(folder))


def described(picture: str) -> str:
    """What a picture says was shown."""
    found = re.search(r"<desc>([\s\S]*?)</desc>", picture)
    assert found
    return html.unescape(found[1])


def main(names: Sequence[str]) -> None:
    images = IMAGES
    if names[:1] == ["--to"]:
        images, names = Path(names[1]), names[2:]
    images.mkdir(exist_ok=True)
    for name in names or PICTURES:
        for file, content in drawn(name).items():
            place = images / file
            place.write_bytes(content) if isinstance(content, bytes) else place.write_text(content, encoding="utf-8")
            print(place)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(sys.argv[1:])
