"""A real terminal for tests: a program on a pseudo-terminal, and the screen that its output makes.

`Terminal` starts it, `until` reads until a text stands on the screen (never for a time that was guessed), `send` types.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pexpect
import pyte

PATIENCE = float(os.environ.get("LR_TEST_PATIENCE", "60"))
BRACKETED = "\x1b[200~{}\x1b[201~"


class Terminal:
    """`arguments` of `python -m dsl`, in a terminal of this size, with files of its own in `folder`."""

    def __init__(self, folder: Path, *arguments: str, rows: int = 24, columns: int = 80, **environment: str) -> None:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("LR_", "NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR", "CLICOLOR"))}
        env |= {"TERM": "xterm-256color", "LR_HISTORY": str(folder / "history"), "XDG_CONFIG_HOME": str(folder / "config"),
                "PYTHONPATH": str(Path(__file__).parent.parent), "LANG": "C.UTF-8", **environment}
        self.child = pexpect.spawn(sys.executable, ["-m", "dsl", *arguments], env=env, cwd=str(folder), dimensions=(rows, columns),
                                   encoding="utf-8", codec_errors="replace", timeout=PATIENCE)
        self.child.delaybeforesend = None
        self.child.delayafterclose = self.child.delayafterterminate = 0.02
        self.screen = pyte.HistoryScreen(columns, rows, history=5000, ratio=0.5)
        self.screen.write_process_input = self.child.send        # it asks where the cursor is
        self.stream = pyte.Stream(self.screen)
        self.raw = ""

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        if self.child.isalive():
            self.child.kill(signal.SIGKILL)
        self.child.close(force=True)

    # ------------------------------------------------------------ reading
    def read(self, seconds: float = 0.1) -> bool:
        """Takes in what is there; whether the program goes on."""
        try:
            text = self.child.read_nonblocking(65536, timeout=seconds)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.raw += text
        self.stream.feed(text)
        return True

    @property
    def text(self) -> str:
        """The screen, without spaces at the ends of lines and empty lines at its end."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    @property
    def everything(self) -> str:
        """What has left the screen at its top, and the screen."""
        gone = ["".join(line[x].data for x in range(self.screen.columns)).rstrip() for line in self.screen.history.top]
        return "\n".join([*gone, self.text])

    def until(self, text: str, absent: bool = False) -> str:
        """Reads until the screen shows the text (or, `absent`, does not any more); the screen then."""
        return self.when(lambda: (text in self.text) != absent, repr(text))

    def when(self, holds: Callable[[], bool], what: str = "a change") -> str:
        """Reads until something holds; the screen then."""
        end = time.monotonic() + PATIENCE
        while not holds():
            assert self.read() or holds(), f"it ended without {what}:\n{self.text}"
            assert time.monotonic() < end, f"waited for {what}:\n{self.text}"
        return self.text

    def prompts(self) -> int:
        return sum(line.startswith("lr>") for line in self.everything.split("\n"))

    # ------------------------------------------------------------ typing
    def send(self, text: str) -> None:
        self.child.send(text)

    def enter(self, text: str, shows: str = "") -> str:
        """Types an entry and waits for the next prompt, below what it shows."""
        before = self.prompts()
        self.send(text + "\r")
        return self.when(lambda: self.prompts() > before and (not shows or shows in self.everything), f"a prompt after {text!r}")

    def paste(self, text: str) -> None:
        self.send(BRACKETED.format(text))

    def ended(self) -> int:
        """Waits for the end of the program; its exit code."""
        end = time.monotonic() + PATIENCE
        while self.read():
            assert time.monotonic() < end, f"it does not end:\n{self.text}"
        self.child.close()
        status: int | None = self.child.exitstatus
        return -1 if status is None else status
