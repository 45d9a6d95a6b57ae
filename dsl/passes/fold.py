"""Scalar constants evaluated.

In: graphs.  Out: the same graphs with every element-wise op over literals replaced by its literal.  This runs after the
stabilising rules, so that they see the expression as it was written.  An op that would fault is left for run time.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dsl.ir.node import Node, Origins, once, remade, topological
from dsl.ops.scalar import const
from dsl.ops.table import Fault, constant


def fold(roots: Sequence[Node], origins: Origins | None = None) -> list[Node]:
    new: dict[Node, Node] = {}
    inside = once(lambda body: fold(body, origins))
    with np.errstate(all="ignore"):
        for node in topological(roots):
            args = tuple(new[a] for a in node.args)
            current = remade(node, args, inside)
            if node.op.elementwise and args and node.op.numpy and all(a.op is const for a in args):
                try:
                    values = [a.op.numpy(**dict(a.attrs)) for a in args if a.op.numpy]
                    current = constant(node.op.numpy(*values, **dict(node.attrs)).item(), node.dtype)
                except Fault:
                    pass
            new[node] = current
            if origins is not None:
                origins.inherit(current, node)
    return [new[r] for r in roots]
