"""Which names statements bind and use.

In: statements and expressions of the AST.  Out: names; no scope is consulted.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from dsl.syntax import ast


def bound_names(statement: ast.Statement) -> list[ast.Ident]:
    """The names a statement binds."""
    match statement:
        case ast.Dim(items) | ast.Input(items=items):
            return [i.name for i in items]
        case ast.Shared(items=shared):
            return [i.name for i in shared]
        case ast.Data(names) | ast.Define(names=names) | ast.Derive(names=names):
            return list(names)
        case ast.Def(name) | ast.Optimizer(name) | ast.Step(name):
            return [name]
        case ast.Import(alias=name):
            return [name]
        case _:
            return []


def names_in(expr: ast.Expr) -> list[ast.Name]:
    match expr:
        case ast.Name():
            return [expr]
        case ast.Binary():
            return names_in(expr.left) + names_in(expr.right)
        case ast.Unary():
            return names_in(expr.operand)
        case _:
            return []


def used_names(part: object, *, keys: bool = True) -> Iterator[str]:
    """Every name written in a statement or expression where a value is read (names of its own scopes included), and if not told
    otherwise those that are only named, as the keys of `over`."""
    stack = [part]
    while stack:
        match stack.pop():
            case ast.Name(id):
                yield id
            case ast.Ident(id):
                if keys:
                    yield id
            case tuple() as items:
                stack.extend(items)
            case ast.Syntax() as syntax:
                stack.extend(vars(syntax).values())
            case _:
                pass


def read_names(statement: ast.Statement) -> set[str]:
    """The names a statement reads from outside, and at most those of its inner scopes; parameters of a function are its own."""
    found = set(used_names(statement))
    match statement:
        case ast.Def(parameters=parameters) | ast.Optimizer(parameters=parameters):
            names = statement.names if isinstance(statement, ast.Optimizer) else ()
            own = {name.id for name in (*names, *(p.name for p in parameters))}
            return found - (own - set(used_names(tuple(p.default for p in parameters))))
        case _:
            return found


def holding(part: Any, name: str, value: object) -> Any:
    """A statement or expression with a value in place of a name; as it is where the name is one of its own scopes, too."""
    return part if _own(part, name) else _held(part, name, value)


def _own(part: object, name: str) -> bool:
    match part:
        case ast.Ident(id):
            return id == name
        case tuple() as items:
            return any(_own(item, name) for item in items)
        case ast.Syntax() as syntax:
            return any(_own(item, name) for item in vars(syntax).values())
        case _:
            return False


def _held(part: Any, name: str, value: object) -> Any:
    match part:
        case ast.Name(id) if id == name:
            return ast.Held(name, value, span=part.span)
        case tuple() as items:
            return tuple(_held(item, name, value) for item in items)
        case ast.Syntax() as syntax:
            changed = {key: _held(item, name, value) for key, item in vars(syntax).items() if isinstance(item, tuple | ast.Syntax)}
            return replace(syntax, **changed) if changed else syntax
        case _:
            return part
