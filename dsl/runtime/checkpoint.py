"""Checkpoints: a saved state with the place of a training in it, and how a script goes on from one.

In: a session in the middle of a `train`.  Out: its state and place in one file; and from such a file what is left of the script
(`found`), after the script and its data have been compared with those that it was written by.

One file holds all of it, so that one renaming makes it the new one.  With `best` the variables stand there as they were at the best
value, for whoever loads them, and again under `last/` as they were last, for the training to go on from.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dsl.errors import FileTrouble, LrError, Span, error
from dsl.ops.leaves import leaf_name
from dsl.runtime.compute import LeafKey
from dsl.runtime.place import Place, as_json, from_json
from dsl.runtime.saved import Saved, read, spoilt, write
from dsl.runtime.state import LAST, Stateful, collected, data_hashes, described, fingerprint, keys, own
from dsl.syntax import program
from dsl.syntax.binding import leaf_key


class Running(Stateful, Protocol):
    """A session that runs a script."""

    items: list[program.Item]

    def output_path(self, path: str) -> Path: ...


# ---------------------------------------------------------------- writing
def write_checkpoint(session: Running, path: Path, plan: program.Train, place: Place, best: Mapping[LeafKey, Any] | None) -> None:
    """The state as the session has it, and the place, in one file."""
    arrays = collected(session, session.values)
    if best is not None and place.watch.step != place.steps and not place.finished:
        names = {key: name for name, key in keys(session).items()}
        last = {LAST + names[key]: arrays[names[key]] for key in best if key in names}
        arrays = {**collected(session, {**session.values, **best}), **last}
    about = {**described(session, arrays), "steps": place.before + place.steps,
             "train": {"statement": position(session, plan), "place": as_json(place)}, "complete": False}
    write(path, arrays, about, plan.span)


def completed(path: Path) -> None:
    """The script that wrote this checkpoint has come to its end."""
    saved = read(path)
    if saved.about is not None:
        write(path, saved.arrays, {**saved.about, "complete": True})


def position(session: Running, plan: program.Train) -> int | None:
    """Which statement of the script it is; None if it is within another one, was made in Python, or typed."""
    if session.elaborator.rebind:
        return None
    return next((i for i, s in enumerate(session.statements) if s.span is plan.span), None)


# ---------------------------------------------------------------- going on
@dataclass(frozen=True)
class Checkpoint:
    """Where a script stands: its `train`, the place in it, what has to be restored, and what comes after it."""

    saved: Saved
    plan: program.Train
    place: Place
    complete: bool
    rest: Sequence[program.Item]

    def state(self) -> Saved:
        """The last state."""
        last = {name.removeprefix(LAST): array for name, array in self.saved.arrays.items() if name.startswith(LAST)}
        return Saved(self.saved.path, {**{n: a for n, a in self.saved.arrays.items() if not n.startswith(LAST)}, **last}, self.saved.about)

    def best(self) -> dict[LeafKey, Any] | None:
        """The variables at the best value so far."""
        if self.plan.checkpoint is None or self.plan.checkpoint.best is None or not self.place.watch.step:
            return None
        targets = [u.target for g in self.plan.groups for u in g.updates]
        return {leaf_key(t): own(self.saved.arrays[leaf_name(t)]) for t in targets if leaf_name(t) in self.saved.arrays}


def found(session: Running, path: Path | None) -> Checkpoint | None:
    """The checkpoint to go on from: in that file, or the furthest of those that the script writes; None if there is none yet.

    Raises E0616 if it is of another script or of other data, E0614 if it cannot be read."""
    clauses = [item.checkpoint for item in session.items if isinstance(item, program.Train) and item.checkpoint is not None]
    paths = [path] if path is not None else list(dict.fromkeys(session.output_path(clause.path) for clause in clauses))
    if not paths:
        raise error("E0616", "there is nothing to go on from: no `train` of this script writes a checkpoint", kind=FileTrouble,
                    help='add `checkpoint "m.safetensors" every 10 epochs` below the `train`')
    checkpoints = [examined(session, read(p)) for p in paths if p.exists()]
    return max(checkpoints, key=lambda c: (c.plan.span.start, c.place.finished, c.place.steps), default=None)


def examined(session: Running, saved: Saved) -> Checkpoint:
    """What a file says of the script, compared with the script."""
    path, about = saved.path, saved.about
    if about is None or "train" not in about:
        by = "another program wrote it" if about is None else "it was written by `save`"
        raise error("E0616", f"`{path}` is no checkpoint: {by}", kind=FileTrouble,
                    help=f'to begin with its variables: `load "{path}"`')
    try:
        place, at = from_json(about["train"]["place"]), about["train"]["statement"]
    except (KeyError, TypeError, ValueError):
        raise spoilt(path, "the place in the training cannot be read", None) from None
    if at is None:
        raise error("E0616", f"`{path}` was not written by a `train` of a script's own", kind=FileTrouble,
                    help=f'to begin with its variables: `load "{path}"`')
    compare(session, path, about, at)
    span = session.statements[at].span
    number, plan = next((i, item) for i, item in enumerate(session.items) if item.span is span)
    assert isinstance(plan, program.Train)
    whole = about["script"] == [fingerprint(s) for s in session.statements]
    return Checkpoint(saved, plan, place, bool(about["complete"]) and whole, session.items[number + 1:])


def compare(session: Running, path: Path, about: Mapping[str, Any], at: int) -> None:
    """Raises E0616 unless all up to the `train` is what it was; what comes after it may be another."""
    theirs, ours = about["script"][:at + 1], [fingerprint(s) for s in session.statements[:at + 1]]
    if theirs != ours:
        same = [a == b for a, b in zip(theirs, ours)]
        first = same.index(False) if False in same else None
        raise other(path, "another script", session.statements[first].span if first is not None else None,
                    "not what it was" if first is not None else "", "" if first is not None else "it had more statements")
    end = session.statements[at].span.end
    for name, text in about["imports"].items():
        if session.imported.get(name) != text:
            raise other(path, "another script", None, "", f"`{name}`, which is imported, is not what it was")
    elaborator = session.elaborator
    for what, here in (("precision", elaborator.precision), ("seed", elaborator.seed), ("set", elaborator.overrides)):
        if about[what] != here:
            raise other(path, "another run", None, "", f"it was written with {option(what, about[what])}, and this is {option(what, here)}")
    symbols, hashes = session.elaborator.scope, data_hashes(session)
    for name, text in about["data"].items():
        symbol = symbols.get(name)
        if name in hashes and hashes[name] != text and symbol is not None and symbol.span is not None and symbol.span.start < end:
            there, device = about.get("device", elaborator.device), elaborator.device
            note = "" if there == device else \
                f"it was written on `device {there}`, and this is `device {device}`; what they compute may differ in its last bits"
            raise other(path, "other data", symbol.span, "other numbers than when it was written", note)


def option(what: str, value: Any) -> str:
    """An option of a run as it is written."""
    return " ".join(f"`--set {k}={v}`" for k, v in value.items()) or "no `--set`" if isinstance(value, dict) else f"`{what} {value}`"


def other(path: Path, what: str, span: Span | None, label: str, note: str = "") -> LrError:
    return error("E0616", f"`{path}` is a checkpoint of {what}", span, label, notes=[note] if note else [], kind=FileTrouble,
                 help=f'put it back as it was, remove the file to begin anew, or begin with its variables: `load "{path}"`')

