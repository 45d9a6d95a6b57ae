"""What `:set` changes, and the file in which it may stand.

In: `~/.config/lr/config.toml` (XDG_CONFIG_HOME moves it), of which the table `repl` is read; `:set name value`.  Out: `Settings`.  A file
that cannot be read, or says what is not known, is a remark at the start, never a failure.

    [repl]
    keys = "vi"
    digits = 4
"""
from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dsl.errors import LrError, did_you_mean, error

CHOICES: dict[str, tuple[str, ...]] = {
    "keys": ("emacs", "vi"), "colors": ("auto", "always", "never"), "theme": ("either", "dark", "light", "none"),
    "times": ("on", "off"), "curve": ("on", "off"), "completion": ("typing", "tab")}
"""Settings that take a word."""


def one_of(choices: Sequence[str]) -> str:
    return f"{', '.join(choices[:-1])} or {choices[-1]}" if len(choices) > 1 else choices[0]


@dataclass
class Settings:
    """How the prompt behaves; none of it changes a result."""

    keys: str = "emacs"
    """Keys of the editor: emacs or vi."""
    colors: str = "auto"
    """When colours are used: auto (a terminal, and NO_COLOR not set), always, never."""
    theme: str = "either"
    """Colours of what is typed: for either background, a dark or a light one, or none."""
    digits: int = 8
    """Digits of an array's numbers, 1 to 17."""
    times: str = "on"
    """Whether entries that took long say how long: on or off."""
    curve: str = "on"
    """Whether a training draws its cost in a terminal: on or off."""
    completion: str = "typing"
    """When the menu opens: typing or tab."""

    def change(self, name: str, text: str) -> None:
        """Raises `LrError` if there is no such setting or value."""
        names = [f.name for f in fields(self)]
        if name not in names:
            near = did_you_mean(name, names)
            raise error("E0911", f"no setting `{name}`", help=f"did you mean `{near}`?" if near else "one of " + ", ".join(names))
        if name == "digits":
            if not text.isdecimal() or not 1 <= int(text) <= 17:
                raise error("E0911", f"`digits` is a whole number from 1 to 17, not `{text}`")
            self.digits = int(text)
        elif text not in CHOICES[name]:
            near = did_you_mean(text, CHOICES[name])
            raise error("E0911", f"`{name}` is {one_of(CHOICES[name])}, not `{text}`",
                        help=f"did you mean `{near}`?" if near else None)
        else:
            setattr(self, name, text)


def config_path() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or ""
    return (Path(base) if os.path.isabs(base) else Path("~/.config").expanduser()) / "lr" / "config.toml"


def from_file() -> tuple[Settings, list[str]]:
    """The settings, and what is to be said about the file."""
    settings, remarks = Settings(), list[str]()
    try:
        path = config_path()
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, RuntimeError):
        return settings, remarks
    import tomllib
    try:
        table: dict[str, Any] = dict(tomllib.loads(text).get("repl", {}))
    except (tomllib.TOMLDecodeError, TypeError, ValueError) as problem:
        return settings, [f"{path}: {problem}"]
    for name, value in table.items():
        try:
            settings.change(name, ("on" if value else "off") if isinstance(value, bool) else str(value))
        except LrError as problem:
            remarks.append(f"{path}: {problem.message}")
    return settings, remarks
