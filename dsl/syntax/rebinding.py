"""Binding a name again, as the REPL does: what depends on it is elaborated again.

In: one statement after the other.  Out: the same names and updates as if the script had been written with the new
statement in the old one's place; `reelaborated` lists what followed.  `shared` and `data` keep their values.  A statement
in error, or one whose dependents would be, leaves everything as it was.
"""
from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from dsl.errors import Label, LrError, error
from dsl.ir.node import Node
from dsl.record import entity
from dsl.syntax import ast, program
from dsl.syntax.commands import Commands
from dsl.syntax.names import bound_names, read_names
from dsl.syntax.updates import UPDATES
from dsl.syntax.values import Host, SizeFact

FOLLOWING = (ast.Define, ast.Derive, *UPDATES)
"""What is elaborated again when a name it uses is bound again."""
PASSING = (ast.Def, ast.Optimizer)
"""What reads its names anew at each call, and so only passes a change on."""


@entity
class Remembered:
    """A statement, what it uses, and the number its first `minimize` has (slots are known by it)."""

    statement: ast.Statement
    uses: frozenset[str]
    minimized: int

    @property
    def words(self) -> list[str]:
        return words(self.statement)


def words(statement: ast.Statement) -> list[str]:
    """What a statement is called in the list of what followed."""
    match statement:
        case ast.Update(target):
            return [f"update {target.id}"]
        case ast.Minimize(cost):
            return [f"minimize {cost.span.text}"]
        case ast.Step(name):
            return [f"step {name.id}"]
        case _:
            return [i.id for i in bound_names(statement)]


def ordered(remembered: list[Remembered]) -> list[Remembered]:
    """The same, each after those that bind what it uses: what was bound again may be used by what had been written before it."""
    binding = {name: one for one in remembered if not isinstance(one.statement, UPDATES) for name in one.words}
    found: list[Remembered] = []
    begun: set[int] = set()
    waiting = [(one, False) for one in reversed(remembered)]
    while waiting:
        one, ready = waiting.pop()
        if ready:
            found.append(one)
        elif id(one) not in begun:
            begun.add(id(one))
            waiting.append((one, True))
            waiting.extend((binding[name], False) for name in sorted(one.uses, reverse=True) if name in binding)
    return found


class Rebinding(Commands):
    def __init__(self, host: Host, rebind: bool) -> None:
        super().__init__(host, rebind)
        self.remembered: list[Remembered] = []
        self.reelaborated: list[str] = []
        """What the last statement made follow, in order."""
        self.followed: list[str] = []
        """What all statements made follow, until somebody empties it."""
        self.coming: Counter[str] = Counter()
        """What later statements of the same text bind or update anew: it need not follow what is bound now."""

    @contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """Names, sizes and updates are as before if the body raises."""
        names = self.scope.maps[0]
        kept = dict(names), dict(self.sizes), dict(self.seen_sizes), dict(self.data_origin), set(self.model_dims)
        state = self.updates, self.gradients, self.minimized, self.remembered
        self.updates, self.gradients, self.remembered = list(self.updates), list(self.gradients), list(self.remembered)
        try:
            yield
        except BaseException:
            names.clear()
            names.update(kept[0])
            _, self.sizes, self.seen_sizes, self.data_origin, self.model_dims = kept
            self.updates, self.gradients, self.minimized, self.remembered = state
            raise

    def again(self, statement: ast.Statement) -> list[program.Item]:
        """One statement where names may be bound again."""
        self.reelaborated = []
        bound = {i.id for i in bound_names(statement)}
        changed = {name for name in bound if name in self.scope}
        sizes = dict(self.sizes)
        with self.undone_on_error():
            number = latest = self.minimized
            if isinstance(statement, ast.Minimize | ast.Step):      # said once more, it goes on with the slots it has
                number = next((r.minimized for r in self.remembered if r.statement == statement), number)
            self.minimized = number
            items = self._dispatch(statement)
            if isinstance(statement, ast.Dim):
                self.check_state(statement, sizes)
            self.minimized = max(latest, self.minimized)
            self.remembered = [r for r in self.remembered if not self.replaced(r, bound)]
            followers, self.remembered = self.remembered, []
            for one in followers:
                self.remembered.append(one)
                if not one.uses & changed:
                    continue
                if isinstance(one.statement, FOLLOWING):
                    try:
                        self.follow(one, changed)
                    except LrError:
                        if all(self.coming[word] for word in one.words):
                            self.forget_updates(one.statement)
                        elif isinstance(one.statement, UPDATES) or not any(self.coming[name] for name in one.uses):
                            raise
                        else:
                            continue                         # it follows again when the rest of what it uses is bound
                changed |= {i.id for i in bound_names(one.statement)}
                self.reelaborated.extend(one.words)
            if isinstance(statement, FOLLOWING + PASSING):
                self.remembered = ordered([*self.remembered, Remembered(statement, frozenset(read_names(statement) - bound), number)])
            self.followed.extend(self.reelaborated)
        return items

    def check_state(self, statement: ast.Dim, before: Mapping[str, SizeFact]) -> None:
        """Raises E0211 if a dim has another value than shared variables that keep theirs were made with."""
        for name in (item.name for item in statement.items):
            old, new = before.get(name.id), self.sizes.get(name.id)
            if old is None or new is None or old.value == new.value or name.id not in self.model_dims:
                continue
            for symbol in self.scope.values():
                if symbol.kind == "shared" and isinstance(symbol.value, Node) and not self.coming[symbol.name] and \
                        any(size.name == name.id for length in symbol.value.shape for size in length.sizes()):
                    raise error("E0211", f"`{symbol.name}` was made with {name.id} = {old.value}", name.span, f"{name.id} = {new.value}",
                                labels=[Label(symbol.span, "keeps its value")] if symbol.span else [],
                                help="what has this size is bound again with it, in one entry: "
                                f"`dim {name.id} = {new.value}; …; shared {symbol.name}[…] = …`")

    def replaced(self, one: Remembered, bound: set[str]) -> bool:
        """Whether all its names are bound anew, or its updates have made way for others."""
        if isinstance(one.statement, UPDATES):
            return not any(u.origin is one.statement for u in self.updates)
        return {i.id for i in bound_names(one.statement)} <= bound

    @abstractmethod
    def begin_statement(self, statement: ast.Statement) -> None:
        """What draws are keyed by starts anew."""

    def follow(self, one: Remembered, changed: set[str]) -> None:
        latest, self.minimized = self.minimized, one.minimized
        self.forget_updates(one.statement)
        self.begin_statement(one.statement)
        try:
            self._dispatch(one.statement)
        except LrError as problem:
            names = " and ".join(f"`{n}`" for n in sorted(changed & one.uses))
            note = f"it was elaborated again because {names} changed; nothing has been bound"
            placed = problem.placed(one.statement.span)
            raise type(problem)(*(replace(d, notes=(*d.notes, note)) for d in placed.diagnostics)) from None
        finally:
            self.minimized = max(latest, self.minimized)
