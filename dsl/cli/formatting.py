"""`lr fmt` on files: in come paths, out go files rewritten in their canonical form, or what would change in them.

A file is written beside its old self and then takes its place, so that no moment has half a script; its permissions stay, a link
stays a link, and so do the line ends of Windows.  A script with a syntax error is left as it is, and reported.
"""
from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from dsl.cli.console import OK, USAGE, WRONG, exit_code, report, write_utf8
from dsl.colors import wants_color
from dsl.errors import FileTrouble, LrError, Source, error
from dsl.record import record
from dsl.scripts import read_bytes, script_text, scripts_in
from dsl.syntax.format import format_source


@record
class Formatted:
    """A script before and after; `problem` if it was left as it is."""

    path: Path
    before: str
    after: str
    problem: LrError | None = None

    @property
    def changed(self) -> bool:
        return self.problem is None and self.after != self.before

    def diff(self) -> str:
        """What changes, as `diff -u` writes it."""
        from difflib import unified_diff
        name = str(self.path)
        lines = unified_diff(_lines(self.before), _lines(self.after), name, f"{name} (formatted)")
        return "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)


def _lines(text: str) -> list[str]:
    *whole, last = text.replace("\r\n", "\n").split("\n")
    return [*(line + "\n" for line in whole), *([last] if last else [])]


def format_data(data: bytes, name: str) -> tuple[str, str]:
    """A script's text before and after.  Raises `LrError`."""
    text = script_text(data, name)
    after = format_source(Source(name, text, name))
    before = data.decode("utf-8")
    first = before.partition("\n")[0]
    return before, after.replace("\n", "\r\n") if first.endswith("\r") else after


def formatted(path: Path) -> Formatted:
    """A file as it should be; nothing is written."""
    try:
        before, after = format_data(read_bytes(path), str(path))
    except LrError as problem:
        return Formatted(path, "", "", problem)
    return Formatted(path, before, after)


def rewrite(found: Formatted) -> None:
    """Puts the new text in the file's place.  Raises `FileTrouble`, and then the file is as it was."""
    place = Path(os.path.realpath(found.path))
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        mode = place.stat().st_mode & 0o7777
        if not os.access(place, os.W_OK):
            raise PermissionError(13, "Permission denied")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(found.after.encode())
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        if place.read_bytes() != found.before.encode():
            raise OSError(0, "it has been changed meanwhile")
        os.replace(temporary, place)
    except OSError as problem:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise error("E0609", f"cannot write `{found.path}`: {problem.strerror or problem}", kind=FileTrouble) from None


def from_standard_input() -> Formatted:
    try:
        before, after = format_data(sys.stdin.buffer.read(), "<stdin>")
    except LrError as problem:
        return Formatted(Path("-"), "", "", problem)
    return Formatted(Path("-"), before, after)


def command(files: Sequence[str], only_check: bool, show_diff: bool, quiet: bool) -> int:
    """What `lr fmt` does; the exit code."""
    results: list[Formatted] = []
    codes = {OK}
    for path in scripts_in(files):
        found = from_standard_input() if str(path) == "-" else formatted(path)
        try:
            if found.problem is not None:
                raise found.problem
            if show_diff:
                write_utf8(painted(found.diff(), wants_color(sys.stdout)))
            elif only_check and found.changed:
                sys.stdout.write(f"{path}\n")
            elif str(path) == "-" and not only_check:
                write_utf8(found.after)
            elif found.changed and not only_check:
                rewrite(found)
        except LrError as problem:
            found = replace(found, problem=problem)
            codes.add(exit_code(problem))
            report(problem.diagnostics)
        results.append(found)
    sys.stdout.flush()
    if not quiet and [str(r.path) for r in results] != ["-"]:
        sys.stderr.write(summary(results, only_check or show_diff) + "\n")
    if only_check and any(r.changed for r in results):
        codes.add(WRONG)
    return USAGE if USAGE in codes else max(codes)


def painted(diff: str, color: bool) -> str:
    """A diff in the colours that everybody knows."""
    codes = {"-": "31", "+": "32", "@": "36"}
    if not color:
        return diff
    return "".join(f"\x1b[{codes[line[0]]}m{line[:-1]}\x1b[0m\n" if line[0] in codes else line for line in diff.splitlines(keepends=True))


def summary(results: Sequence[Formatted], check: bool) -> str:
    """What was done, in one line."""
    changed = sum(r.changed for r in results)
    failed = sum(r.problem is not None for r in results)
    parts = [f"{_files(changed)} {'would be ' if check else ''}formatted", f"{_files(len(results) - changed - failed)} unchanged"]
    if failed:
        parts.append(f"{_files(failed)} not read")
    return ", ".join(part for part in parts if not part.startswith("no "))


def _files(count: int) -> str:
    return "no files" if count == 0 else f"{count} file{'' if count == 1 else 's'}"
