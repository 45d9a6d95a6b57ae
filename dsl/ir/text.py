"""Graphs as text.

In: nodes.  Out: `expression`, a node as a formula in the language's own notation, with every operation in brackets; and
`listing`, a graph as one line a node, which is what golden tests hold.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dsl.ir.node import Node, topological
from dsl.ir.types import Dim, shape_text

LONGEST = 4000
"""Characters after which a formula is cut."""
GIVEN = "given "
"""How the alias of an input that `with` has given a value begins: formulas show the value."""


def number(value: bool | int | float) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case float() if value != value:
            return "nan"
        case float() if value in (float("inf"), float("-inf")):
            return "inf" if value > 0 else "-inf"
        case float() if value == int(value) and abs(value) < 1e16:
            return str(int(value)) if str(value) != "-0.0" else "-0.0"
        case _:
            return repr(value)


def expression(root: Node, names: Mapping[Node, str] | None = None) -> str:
    """The formula of a node; nodes in `names` (but the root) are written by name."""
    known = dict(names or {})
    text: dict[Node, str] = {}
    for node in topological([root]):
        if node is not root and node in known:
            text[node] = known[node]
        elif node is not root and node.op.name == "alias" and not str(node.attr("name")).startswith(GIVEN):
            text[node] = display_name(node)
        else:
            text[node] = _formula(node, [text[a] for a in node.args])
        if len(text[node]) > LONGEST:
            text[node] = text[node][:LONGEST] + "…"
    return text[root]


def display_name(node: Node) -> str:
    name = str(dict(node.attrs)["name"])
    return name.rsplit(".", 1)[-1]


def _formula(node: Node, args: Sequence[str]) -> str:
    attrs = dict(node.attrs)
    match node.op.name:
        case "const":
            return number(attrs["literal"].value)
        case "leaf":
            return display_name(node)
        case "dim":
            return str(attrs["dim"])
        case "alias" | "cast":
            return args[0]
        case "neg":
            return f"(-{args[0]})"
        case "not":
            return f"(not {args[0]})"
        case "vjp" if node.args[2].op.name == "const":
            return f"grad({args[0]}, {args[1]})"
        case "jac" if node.args[0].op.name == "vjp" and node.args[0].args[1] is node.args[1]:
            return f"hess({_inside(args[0])})"
        case "transpose" if node.rank == 2:
            return f"{args[0]}.T"
        case "gather":
            return f"{args[0]}[{', '.join(args[1:])}]"
        case "iota":
            return f"arange({attrs['length']})"
        case "expand":
            return args[0]
        case "sum_to" if node.shape == node.args[0].shape[node.args[0].rank - node.rank:]:
            extra = tuple(range(node.args[0].rank - node.rank))
            axis = "" if not node.rank else f", axis = {extra[0] if len(extra) == 1 else extra}"
            return f"sum({args[0]}{axis})"
        case "reshape" | "sum_to":
            return f"{node.op.name}({args[0]}, {_shape(attrs['shape'])})"
        case "slice":
            axes = node.args[0].shape[-len(attrs["items"]):]
            return f"{args[0]}[{', '.join(_window(i, n) for i, n in zip(attrs['items'], axes, strict=True))}]"
        case "draw":
            return f"{attrs['kind']}({_shape(attrs['shape'])})"
        case _ if node.op.symbol and len(args) == 2:
            return f"({args[0]} {node.op.symbol[0]} {args[1]})"
        case _:
            return f"{node.op.name}({', '.join([*args, *_attributes(node, attrs)])})"


def _inside(call: str) -> str:
    return call[call.index("(") + 1:-1]


def _shape(shape: Sequence[Dim]) -> str:
    return str(shape[0]) if len(shape) == 1 else f"({', '.join(map(str, shape))})"


def _window(item: tuple[Dim, Dim, int], length: Dim) -> str:
    start, count, step = item
    if step == 1 and start == Dim.of(0) and count == length:
        return ":"
    stop = start + count * step
    if step < 0:
        return f"{'' if start == length - 1 else start}:{'' if stop == Dim.of(-1) else stop}:{step}"
    return f"{'' if start == Dim.of(0) else start}:{'' if stop == length else stop}" + (f":{step}" if step != 1 else "")


def _attributes(node: Node, attrs: Mapping[str, Any]) -> list[str]:
    shown = []
    axes = attrs.get("axes")
    if axes is not None and node.args and len(axes) != node.args[0].rank:
        shown.append(f"axis = {axes[0] if len(axes) == 1 else axes}")
    if attrs.get("keepdims") and axes:
        shown.append("keepdims = true")
    shown.extend(f"{k} = {_attribute(v)}" for k, v in attrs.items()
                 if k not in ("axes", "keepdims", "fill") and v not in (False, None))
    return shown


def listing(roots: Sequence[Node], names: Mapping[Node, str] | None = None) -> str:
    """One line a node: `%3 = mul(%1, %2) : float64[n]`."""
    label: dict[Node, str] = {}
    lines = []
    for i, node in enumerate(topological(roots)):
        label[node] = f"%{i}"
        hidden = ("type", "generation") if node.op.name == "leaf" else ()
        attrs = [f"{k} = {_attribute(v)}" for k, v in node.attrs if k not in hidden]
        name = f"    # {names[node]}" if names and node in names else ""
        lines.append(f"%{i} = {node.op.name}({', '.join([*(label[a] for a in node.args), *attrs])}) : {node.type}{name}")
    lines.append(f"return {', '.join(label[r] for r in roots)}")
    return "\n".join(lines)


def _attribute(value: Any) -> str:
    if isinstance(value, tuple) and value and all(isinstance(v, Dim) for v in value):
        return shape_text(value)
    return str(value)
