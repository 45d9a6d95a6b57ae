"""Which names statements bind and use.

In: statements and expressions of the AST.  Out: names; no scope is consulted.
"""
from __future__ import annotations

from collections.abc import Iterator

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


def used_names(part: object) -> Iterator[str]:
    """Every name written in a statement or expression where a value is read (names of its own scopes included)."""
    stack = [part]
    while stack:
        match stack.pop():
            case ast.Name(id) | ast.Ident(id):
                yield id
            case tuple() as items:
                stack.extend(items)
            case ast.Syntax() as syntax:
                stack.extend(vars(syntax).values())
            case _:
                pass
