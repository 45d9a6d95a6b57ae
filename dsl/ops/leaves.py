"""What a graph starts from besides literals: inputs, shared variables, data, and the like.

A leaf is known by its kind and name; a name bound again gets another `generation`, so that graphs of the old one stay
whole.  Values are looked up by leaf when a compiled graph runs.
"""
from __future__ import annotations

from typing import Any

from dsl.ir.node import Node, make
from dsl.ir.types import ArrayType, Shapes
from dsl.ops.table import array

KINDS = ("input", "shared", "data", "slot", "counter", "schedule", "step", "training", "value", "carry", "element", "captured")


def _infer(shapes: Shapes, kind: str, name: str, type: ArrayType, generation: int) -> ArrayType:
    return type


leaf_op = array("leaf", "", "A value given from outside.", infer=_infer)


def leaf(kind: str, name: str, type: ArrayType, generation: int = 0) -> Node:
    """The leaf called `name`; `kind` is one of `KINDS`."""
    assert kind in KINDS, kind
    return make(leaf_op, (), {"kind": kind, "name": name, "type": type, "generation": generation})


def is_leaf(node: Node, *kinds: str) -> bool:
    return node.op is leaf_op and (not kinds or node.attr("kind") in kinds)


def leaf_name(node: Node) -> str:
    name: Any = node.attr("name")
    return str(name)


STEP = leaf("step", "step", ArrayType("int64"))
"""The number of the training step a draw belongs to; 0 outside training."""
TRAINING = leaf("training", "training", ArrayType("bool"))
"""Whether a step of `train` is running (for `dropout`)."""
