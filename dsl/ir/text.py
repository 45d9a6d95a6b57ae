"""Graphs as text.

In: nodes.  Out: `expression`, a node as a formula in the language's own notation, with every operation in brackets; and
`listing`, a graph as one line a node, which is what golden tests hold.
"""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dsl.ir.node import Node, inner_graphs, topological
from dsl.ir.types import Derived, Dim, derived, shape_text

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


def expression(root: Node, names: Mapping[Node, str] | None = None, whole: bool = True) -> str:
    """The formula of a node; nodes in `names` (but the root, if it is to be written out as a `whole`) are written by name."""
    known = dict(names or {})
    text: dict[Node, str] = {}
    for node in topological([root]):
        if node in known and not (whole and node is root):
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
            return str(attrs["dim"].grouped())
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
        case "unslice":
            windows = ", ".join(_window(i, n) for i, n in zip(attrs["items"], attrs["shape"], strict=True))
            return f"unslice({args[0]}, [{windows}], {_shape(attrs['shape'])})"
        case "draw":
            return f"{attrs['kind']}({_shape(attrs['shape'])})"
        case "scan" | "iterate":
            return _loop(node, attrs, args)
        case _ if node.op.symbol and len(args) == 2:
            return f"({args[0]} {node.op.symbol[0]} {args[1]})"
        case _:
            return f"{node.op.name}({', '.join([*args, *_attributes(node, attrs)])})"


def _loop(node: Node, attrs: Mapping[str, Any], args: Sequence[str]) -> str:
    """A loop as the language writes it; of several results the one meant, as an index.  Placeholders are called by their place:
    `v` what is carried, `t` an element; an apostrophe for each loop inside, so that what is captured stays clear."""
    body, count, sequences = attrs["body"], attrs["carried"], attrs.get("sequences", 0)
    prime = "'" * _depth(node)
    taken = set(re.findall(r"\w+'*", " ".join(args)))
    while any(f"{letter}{k}{prime}" in taken for letter in "vt" for k in ("", *range(max(count, sequences)))):
        prime += "'"
    carries = [f"v{k if count > 1 else ''}{prime}" for k in range(count)]
    elements = [f"t{k if sequences > 1 else ''}{prime}" for k in range(sequences)]
    words = [*carries, *elements, *args[count + sequences:]]
    inner = [expression(root, dict(zip(attrs["parameters"], words, strict=True)), whole=False) for root in body]
    new, kept = inner[:count], inner[count:]
    start = f"{_together(carries)} = {_together(args[:count])}"
    kind, place = attrs["output"]
    pick = f"[{place}]" if count > 1 and kind != "each" else ""
    if node.op.name == "iterate":
        return f"iterate({start} while {kept[0]} max {attrs['limit']}: {_together(new)}){pick}"
    over = [f"flip({a}, 0)" if attrs["reverse"] else a for a in args[count:count + sequences]] or [f"arange({attrs['length']})"]
    each = f" keeping {kept[place]}" if kind == "each" else ""
    word = "fold" if kind == "last" else "scan"
    return f"{word}({start} for {_together(elements or ['_'])} in {_together(over)}: {_together(new)}{each}){pick}"


def _together(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"({', '.join(parts)})"


def _depth(node: Node) -> int:
    """How deep the loops in the body of a loop are nested."""
    return max((1 + _depth(n) for n in topological(inner_graphs(node)) if inner_graphs(n)), default=0)


def _inside(call: str) -> str:
    return call[call.index("(") + 1:-1]


def _shape(shape: Sequence[Dim]) -> str:
    return str(shape[0]) if len(shape) == 1 else f"({', '.join(map(str, shape))})"


def _window(item: tuple[Dim, Dim, int], length: Dim) -> str:
    """A slice as it is written: `[1:]` is from min(n, 1), for the axis may be shorter."""
    start, count, step = item
    if step == 1 and start == Dim.of(0) and count == length:
        return ":"
    if step < 0:
        stop = start + count * step
        return f"{'' if start == length - 1 else start}:{'' if stop == Dim.of(-1) else stop}:{step}"
    low = _bound(start, length)
    first = low if isinstance(low, int) and low >= 0 else start
    room = derived("max", length - first, 0)             # what is left of the axis
    if count in (derived("floordiv", room + (step - 1), step), derived("min", length, -low if isinstance(low, int) else 0)):
        high: int | Dim | str = ""
    else:
        high = _bound((_unclamped(count) if step == 1 else count * step) + first, length)
        if isinstance(high, Dim) and ((gap := (high - length).constant) or 0) < 0:
            high = gap or 0
    return f"{low or ''}:{'' if high == length else high}" + (f":{step}" if step != 1 else "")


def _bound(end: Dim, length: Dim) -> int | Dim:
    """The number that an end of a slice of an axis of this length was written as, if it was one."""
    if end.constant is not None:
        return end.constant
    match end.terms:
        case (((Derived("min", left, right),), 1),) if left == length and right.constant is not None:
            return right.constant
        case (((Derived("max", left, right),), 1),) if right == Dim.of(0) and (gap := (left - length).constant) is not None and gap < 0:
            return gap
        case _:
            return end


def _unclamped(count: Dim) -> Dim:
    """k of max(k, 0)."""
    match count.terms:
        case (((Derived("max", left, right),), 1),) if right == Dim.of(0):
            return left
        case _:
            return count


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
        if inner_graphs(node):
            lines.extend(_listed_loop(node, label))
            continue
        hidden = ("type", "generation") if node.op.name == "leaf" else ()
        attrs = [f"{k} = {_attribute(v)}" for k, v in node.attrs if k not in hidden]
        name = f"    # {names[node]}" if names and node in names else ""
        lines.append(f"%{i} = {node.op.name}({', '.join([*(label[a] for a in node.args), *attrs])}) : {node.type}{name}")
    lines.append(f"return {', '.join(label[r] for r in roots)}")
    return "\n".join(lines)


def _listed_loop(node: Node, label: Mapping[Node, str]) -> list[str]:
    """A loop and, indented, its body; the parameters of the body are those of the loop, in order."""
    attrs = dict(node.attrs)
    kind, place = attrs.pop("output")
    parameters, body = attrs.pop("parameters"), attrs.pop("body")
    words = ", ".join([*(label[a] for a in node.args), *(f"{k} = {v}" for k, v in sorted(attrs.items())), f"output = {kind} {place}"])
    given = ", ".join(f"{dict(p.attrs)['kind']} {dict(p.attrs)['name']} : {p.type}" for p in parameters)
    return [f"{label[node]} = {node.op.name}({words}) : {node.type} over ({given})",
            *("  " + line for line in listing(body).splitlines())]


def _attribute(value: Any) -> str:
    if not isinstance(value, tuple) or not value:
        return str(value)
    if all(isinstance(v, Dim) for v in value):
        return shape_text(value)
    return f"({', '.join(map(_attribute, value))}{',' if len(value) == 1 else ''})"
