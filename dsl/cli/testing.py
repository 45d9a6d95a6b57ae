"""`lr test`: in comes a script, out goes whether its `#>` lines, assertions and `test` blocks hold.

A script runs in a session of its own, and writes its files where nobody finds them.
"""
from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import IO, Any

from dsl.errors import Diagnostic, LrError, Source
from dsl.record import record
from dsl.scripts import read_script
from dsl.session import Session


@record
class Tested:
    path: Path
    checks: int
    problems: tuple[Diagnostic, ...]

    @property
    def passed(self) -> bool:
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        return {"file": str(self.path), "passed": self.passed, "checks": self.checks, "diagnostics": [d.as_dict() for d in self.problems]}

    def __str__(self) -> str:
        return f"{'ok' if self.passed else 'FAILED'} {self.path} ({self.checks} check{'' if self.checks == 1 else 's'})"


def test_script(path: Path, stream: IO[str] | None) -> Tested:
    """Runs a script; what it prints goes to the stream, if there is one."""
    with tempfile.TemporaryDirectory() as folder:
        session = Session(base=path.parent, out=Path(folder), stdout=stream or io.StringIO(), quiet=True)
        session.comparing = True
        problems: list[Diagnostic] = []
        try:
            session.load(Source(str(path), read_script(path), str(path)))
            session.run()
        except LrError as problem:
            problems.extend(problem.diagnostics)
        return Tested(path, session.checked, (*session.failures, *problems))
