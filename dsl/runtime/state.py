"""What of a session is saved, and how it comes back.

In: a session.  Out: its state as named arrays, with what is known of where they come from (`collected`, `described`); and a file's
arrays put in their place (`restore`), after all of them have been compared with what the script declares: where anything differs
nothing changes, and the error shows both sides.

A shared variable is saved under its name, what an optimiser remembers of it as `adam1.w.m`, an optimiser's count of steps as
`adam1.t` (of the first `minimize`).
"""
from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dsl.backends.cuda.memory import on_host
from dsl.errors import LrError, Span, error
from dsl.ir.node import Node
from dsl.ir.types import Shape, shape_text
from dsl.ops.leaves import is_leaf, leaf_name
from dsl.runtime.compute import LeafKey, solve_sizes
from dsl.runtime.doctor import version_of
from dsl.runtime.saved import Array, Saved
from dsl.syntax import ast, program
from dsl.syntax.binding import leaf_key
from dsl.syntax.elaborate import Elaborator
from dsl.syntax.values import SizeFact, Table, TextColumn, Value

LAST = "last/"
"""Before the names of what is not the best state but the last one."""


class Stateful(Protocol):
    """A session."""

    elaborator: Elaborator
    values: dict[LeafKey, Any]
    pending: list[program.SharedState]
    statements: list[ast.Statement]
    imported: dict[str, str]
    hashes: dict[LeafKey, str]
    steps_before: int

    @property
    def steps_made(self) -> int: ...
    def sizes(self) -> dict[str, int]: ...
    def allocate(self) -> None: ...
    def array(self, node: Node) -> Any: ...


# ---------------------------------------------------------------- what there is
def shared_variables(session: Stateful) -> dict[str, Node]:
    """By name, in the order of their declarations."""
    symbols = session.elaborator.scope.maps[0].values()
    return {s.name: s.value for s in symbols if s.kind == "shared" and isinstance(s.value, Node) and is_leaf(s.value, "shared")}


def slots(session: Stateful) -> dict[str, program.UpdateRule]:
    """What the optimisers of the script remember, by name."""
    return {leaf_name(u.target): u for u in session.elaborator.updates if u.start is not None}


def waiting(session: Stateful) -> dict[str, LeafKey]:
    """What was loaded for optimisers that the script has not."""
    return {key[1]: key for key in session.values if key[0] in ("slot", "counter")}


def keys(session: Stateful) -> dict[str, LeafKey]:
    """All that is saved, by name; some of it may have no value yet."""
    remembered = {name: leaf_key(u.target) for name, u in slots(session).items()} or waiting(session)
    return {**{name: leaf_key(node) for name, node in shared_variables(session).items()}, **remembered}


def collected(session: Stateful, values: Mapping[LeafKey, Any]) -> dict[str, Array]:
    """The state as arrays of NumPy."""
    return {name: np.asarray(on_host(values[key])) for name, key in keys(session).items() if key in values}


def described(session: Stateful, arrays: Iterable[str]) -> dict[str, Any]:
    """What is to be known of a state, in JSON's values."""
    elaborator, kinds = session.elaborator, keys(session)
    return {"lr": version(), "precision": elaborator.precision, "seed": elaborator.seed, "device": elaborator.device,
            "steps": session.steps_made,
            "tensors": {name: kinds[name][0] if name in kinds else "last" for name in arrays},
            "unallocated": [name for name, key in kinds.items() if key[0] == "shared" and key not in session.values],
            "dims": {name: elaborator.sizes[name].value for name in sorted(elaborator.model_dims) if name in elaborator.sizes},
            "data": data_hashes(session), "set": dict(elaborator.overrides),
            "script": [fingerprint(s) for s in session.statements], "imports": dict(session.imported)}


@cache
def version() -> str:
    return version_of("lr-lang") or "unknown"


# ---------------------------------------------------------------- what it comes from
def fingerprint(part: object) -> str:
    """Of what a statement says, however it is laid out."""
    words: list[str] = []
    stack = [part]
    while stack:
        match stack.pop():
            case ast.Syntax() as syntax:
                words.append(type(syntax).__name__)
                stack.extend(value for name, value in vars(syntax).items() if not isinstance(value, Span))
            case tuple() as items:
                words.append(f"({len(items)}")
                stack.extend(items)
            case leaf:
                words.append(repr(leaf))
    return digest([" ".join(words).encode()])


def data_hashes(session: Stateful) -> dict[str, str]:
    """Of each `data`: its dtype, its shape and its elements."""
    symbols = session.elaborator.scope.maps[0].values()
    return {s.name: data_hash(session, s.value) for s in symbols if s.kind == "data" and s.value is not None and s.span is not None}


def data_hash(session: Stateful, value: Value) -> str:
    match value:
        case Node() if is_leaf(value):
            key = leaf_key(value)
            if key not in session.hashes:
                session.hashes[key] = array_hash(np.asarray(on_host(session.array(value))))
            return session.hashes[key]
        case Node():
            return array_hash(np.asarray(on_host(session.array(value))))
        case Table(columns=columns):
            return digest([f"{name} {data_hash(session, column)}\n".encode() for name, column in columns.items()])
        case TextColumn(values=texts):
            return digest([repr(texts.tolist()).encode()])
        case _:
            return ""


def array_hash(array: Array) -> str:
    return digest([f"{array.dtype.name} {array.shape}".encode(), np.ascontiguousarray(array).reshape(-1).view(np.uint8)])


def digest(parts: Iterable[Any]) -> str:
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        found.update(part)
    return found.hexdigest()


# ---------------------------------------------------------------- putting it back
@dataclass(frozen=True)
class Row:
    """What differs of one name."""

    name: str
    there: str
    here: str


def restore(session: Stateful, saved: Saved, span: Span | None = None) -> None:
    """The session's state is that of the file.  Raises E0615, with the session as it was, if it is not one of this script."""
    about, declared, remembered = saved.about, shared_variables(session), slots(session)
    kinds = about["tensors"] if about is not None else {}
    found = {name: array for name, array in saved.arrays.items() if about is None or not name.startswith(LAST)}
    given = {name: a for name, a in found.items() if kinds.get(name, "shared") == "shared"}
    slot_values = {name: a for name, a in found.items() if name not in given}
    sizes, differing = matched(declared, given, session.sizes(), about["unallocated"] if about is not None else ())
    if remembered and slot_values:
        _, other = matched({name: u.target for name, u in remembered.items()}, slot_values, sizes, list(remembered))
        differing += other
    if differing:
        raise other_variables(session, saved, differing, span)
    values = session.values
    values.update({leaf_key(declared[name]): own(array) for name, array in given.items()})
    session.pending[:] = [s for s in session.pending if leaf_key(s.leaf) not in values]
    for name in {s.name for node in declared.values() for d in node.shape for s in d.sizes() if s.value is None}:
        if name in sizes and name not in session.elaborator.sizes:
            session.elaborator.sizes[name] = SizeFact(sizes[name], saved.path.name)
    if about is not None:
        for key in waiting(session).values():
            del values[key]
        values.update({("counter" if kinds[name] == "counter" else "slot", name, 0): own(array) for name, array in slot_values.items()})
        session.steps_before = int(about["steps"])
        for update in remembered.values():               # as at the beginning where the file has none
            if update.start is not None and leaf_key(update.target) not in values:
                values[leaf_key(update.target)] = session.array(update.start)
    session.allocate()


def own(array: Array) -> Any:
    return np.array(array)[()]


def matched(declared: Mapping[str, Node], given: Mapping[str, Array], known: Mapping[str, int],
            optional: Sequence[str]) -> tuple[dict[str, int], list[Row]]:
    """The sizes that arrays have in the place of leaves, and what differs."""
    sizes = dict(known)
    differing = {name: Row(name, array_words(given[name]) if name in given else "–", leaf_words(declared.get(name), known))
                 for name in [*declared, *given] if (name in declared) != (name in given) and name not in optional}
    rest = {name: node for name, node in declared.items() if name in given}
    while rest:
        solved = []
        for name, node in rest.items():
            try:
                found = solve_sizes([(node, given[name].shape)], sizes)
            except LrError:                              # a size may follow from another variable
                continue
            sizes = found
            solved.append(name)
            if given[name].dtype.name != node.dtype:
                differing[name] = Row(name, array_words(given[name]), leaf_words(node, known))
        if not solved:
            break
        rest = {name: node for name, node in rest.items() if name not in solved}
    differing.update({name: Row(name, array_words(given[name]), leaf_words(node, sizes)) for name, node in rest.items()})
    order = [*declared, *given]
    return sizes, sorted(differing.values(), key=lambda row: order.index(row.name))


def array_words(array: Array) -> str:
    return type_words(tuple(map(str, array.shape)), array.dtype.name)


def leaf_words(node: Node | None, known: Mapping[str, int]) -> str:
    """A declared type, with the sizes that are known."""
    if node is None:
        return "–"
    shape: Shape = node.shape
    sizes = {s.name: s.value if s.value is not None else known.get(s.name) for d in shape for s in d.sizes() if s.named}
    facts = [f"{name} = {value}" for name, value in sizes.items() if value is not None]
    return ", ".join([type_words(shape, node.dtype), *facts])


def type_words(shape: Sequence[Any], dtype: str) -> str:
    return f"{shape_text(shape)} {dtype}" if shape else dtype


def other_variables(session: Stateful, saved: Saved, rows: Sequence[Row], span: Span | None) -> LrError:
    """Both sides of what differs, in columns."""
    table = [Row("", "in the file", "in the script"), *rows]
    wide = [max(len(getattr(row, column)) for row in table) for column in ("name", "there")]
    lines = [f"{row.name:<{wide[0]}}  {row.there:<{wide[1]}}  {row.here}".rstrip() for row in table]
    notes = ["\n".join(lines)]
    precision = None if saved.about is None else saved.about["precision"]
    if precision is not None and precision != session.elaborator.precision:
        notes.append(f"the file is of `precision {precision}`, the script of `precision {session.elaborator.precision}`")
    names = {row.name for row in rows}
    symbols = session.elaborator.scope
    help = "nothing was changed; load a state of this script" if not names & set(symbols) or precision is None else \
        "nothing was changed; declare the variables as they were when it was saved, or train anew"
    return error("E0615", f"`{saved.path.name}` holds the state of other variables", span, notes=notes, help=help)


def state_file(path: Path, base: Path, out: Path, written: Iterable[Path], ours_first: bool) -> Path:
    """Where a state is read from: what this session has written, else beside the script or where files are written."""
    there, beside = out / path, base / path
    if there in written:
        return there
    first, second = (there, beside) if ours_first else (beside, there)
    return first if first.exists() or not second.exists() else second
