"""Files and folders where a path is typed: in comes the place, out go completions.

Paths are read from the session's folder and written below its `--out`, so that is where they are looked for.
"""
from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from dsl.ops.functions import FUNCTIONS
from dsl.record import record
from dsl.repl.offer import Completion
from dsl.repl.place import Place

if TYPE_CHECKING:
    from dsl.session import Session

MOST = 2_000
"""Entries of a folder that are looked at."""
STATE = (".safetensors",)


@record
class Wanted:
    """Files of these endings first; `written`: from the folder where results go."""

    endings: tuple[str, ...]
    written: bool


AFTER = {"import": Wanted((".lr",), False), "load": Wanted(STATE, False), "save": Wanted(STATE, True), "checkpoint": Wanted(STATE, True),
         "log": Wanted((".jsonl",), True), "to": Wanted((".png", ".svg", ".pdf", ".csv", ".npy"), True)}
"""By the keyword before the text."""
ENDINGS = {"csv": (".csv", ".tsv", ".txt"), "parquet": (".parquet", ".pq")}
"""By the function that reads; others by its name."""


def wanted(place: Place) -> Wanted | None:
    """What kind of path stands at a quoted place; None if the text is no path."""
    call = place.call
    if call is not None:
        row = FUNCTIONS.get(call.callee)
        index = call.current or (row.parameters[min(call.done, len(row.parameters) - 1)].name if row is not None and row.parameters else "")
        return Wanted(ENDINGS.get(call.callee, (f".{call.callee}",)), False) if index == "path" else None
    previous = place.previous
    return AFTER.get(previous.text) if previous is not None and previous.type == "WORD" else None


def quoted_files(session: Session, place: Place) -> list[Completion]:
    """Completions of the path in quotes at a place; none if the text is no path."""
    kind = wanted(place)
    if kind is None:
        return []
    return files(session.out if kind.written else session.base, place.word, place.cursor, kind.endings)


def command_files(rest: str, cursor: int, ending: str) -> list[Completion]:
    """Completions of a command's argument, with quotes or without, from the working directory."""
    return files(Path(), rest.lstrip().removeprefix('"'), cursor, (ending,))


def files(base: Path, typed: str, cursor: int, endings: tuple[str, ...]) -> list[Completion]:
    """Entries of the folder that the typed path is in, whose names begin as typed: folders and wanted files first."""
    folder, _, begun = typed.rpartition("/")
    place = base / f"{folder}/" if "/" in typed else base
    try:
        with os.scandir(os.path.expanduser(place)) as entries:
            found = [(e.name, e.is_dir()) for _, e in zip(range(MOST), entries, strict=False)]
    except (OSError, ValueError):
        return []
    shown: list[tuple[bool, bool, str, Completion]] = []
    for name, is_folder in found:
        if not name.lower().startswith(begun.lower()) or (name.startswith(".") and not begun.startswith(".")) or not name.isprintable():
            continue
        text = f"{name}/" if is_folder else name
        meta = "folder" if is_folder else size_words(place / name)
        wrong = not is_folder and not name.endswith(endings)
        shown.append((wrong, not name.startswith(begun), text, Completion(text, cursor - len(begun), text, meta, "path")))
    return [completion for *_, completion in sorted(shown, key=lambda row: row[:3])]


def size_words(path: Path) -> str:
    from dsl.backends.cuda.memory import in_words
    try:
        return in_words(path.stat().st_size)
    except OSError:
        return ""
