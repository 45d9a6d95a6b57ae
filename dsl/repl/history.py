"""Entries of earlier sessions.

In: LR_HISTORY, or else `~/.local/state/lr/history` (XDG_STATE_HOME moves it); entries as they are accepted.  Out: `SavedHistory` for the
prompt.  Each entry is appended in one locked write, so that sessions at the same time lose nothing of each other; only the
user may read the file.  LR_HISTORY empty, `off` or `0` keeps nothing; a file that cannot be written is done without.
"""
from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prompt_toolkit.history import History

MOST_BYTES = 4 << 20
"""A longer file loses its older half."""
OFF = ("", "off", "0", "none")


def history_path() -> Path | None:
    """Where entries are kept; None if they are not."""
    told = os.environ.get("LR_HISTORY")
    if told is not None:
        return None if told.strip().lower() in OFF else Path(told).expanduser()
    base = os.environ.get("XDG_STATE_HOME") or ""
    try:
        return (Path(base) if os.path.isabs(base) else Path("~/.local/state").expanduser()) / "lr" / "history"
    except RuntimeError:                                     # nobody's home
        return None


class SavedHistory(History):
    """Entries in prompt_toolkit's form: a comment with the time, then each line after a `+`."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        super().__init__()

    def load_history_strings(self) -> Iterable[str]:
        """The latest first."""
        if self.path is None:
            return []
        try:
            text = self.path.read_bytes()[-MOST_BYTES:].decode("utf-8", errors="replace")
        except OSError:
            return []
        return list(dict.fromkeys(reversed(list(parsed(text)))))

    def append_string(self, string: str) -> None:
        if string.strip() and (not self._loaded_strings or self._loaded_strings[0] != string):
            super().append_string(string)

    def store_string(self, string: str) -> None:
        if self.path is None:
            return
        lines = "".join(f"+{line}\n" for line in string.split("\n"))
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.shorten()
            with locked(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as file:
                os.write(file, f"\n# {time.strftime('%Y-%m-%d %H:%M:%S')}\n{lines}".encode())
        except OSError:
            self.path = None

    def shorten(self) -> None:
        """The newer half of a file that has grown too long."""
        assert self.path is not None
        if not self.path.exists() or self.path.stat().st_size <= MOST_BYTES:
            return
        with locked(self.path, os.O_RDWR) as file:
            text = os.read(file, 1 << 30)
            half = text.find(b"\n# ", len(text) // 2)
            os.ftruncate(file, 0)
            os.pwrite(file, text[half:], 0)


@contextmanager
def locked(path: Path, flags: int) -> Iterator[int]:
    """The open file, ours alone while the body runs, where the system has such locks."""
    file = os.open(path, flags, 0o600)
    try:
        try:
            import fcntl
            fcntl.flock(file, fcntl.LOCK_EX)
        except (ImportError, OSError):
            pass
        yield file
    finally:
        os.close(file)


def parsed(text: str) -> Iterator[str]:
    """The entries in a file's text, the oldest first."""
    held: list[str] = []
    for line in text.split("\n"):
        if line.startswith("+"):
            held.append(line[1:])
        elif held:
            yield "\n".join(held)
            held = []
    if held:
        yield "\n".join(held)
