"""What a program costs.

In: a program.  Out: how many scalar operations a call makes, for given sizes.
"""
from __future__ import annotations

from collections.abc import Mapping

from dsl.loops import ir
from dsl.machine.expr import Apply, Const, Expr, Extent, walk


def operations(program: ir.Program, sizes: Mapping[str, int]) -> int:
    """Scalar operations of one call, a `While` counted as one turn."""
    return _block(program.body, sizes)


def _block(body: ir.Block, sizes: Mapping[str, int]) -> int:
    total = 0
    for s in body:
        own = sum(isinstance(e, Apply) for e in walk(ir.expressions(s)))
        match s:
            case ir.Kernel(extent=extent, body=inner) | ir.Loop(extent=extent, body=inner):
                total += _turns(extent, sizes) * (_block(inner, sizes) + 1)
            case ir.While(body=inner):
                total += _block(inner, sizes)
            case ir.If(body=inner, orelse=orelse):
                total += max(_block(inner, sizes), _block(orelse, sizes))
            case ir.Product(out=out, a=a, a_transposed=transposed):
                inner_length = a.shape[0 if transposed else 1]
                count = 2
                for d in (*out.shape, inner_length):
                    count *= d.evaluate(sizes) or 1
                total += count
            case _:
                total += own + 1
    return total


def _turns(e: Expr, sizes: Mapping[str, int]) -> int:
    """The value of an extent; what is known only while running counts as its bound, or as 1."""
    match e:
        case Const(value):
            return int(value)
        case Extent(dim):
            return max(0, dim.evaluate(sizes) or 0)
        case Apply("add", (a, b)):
            return _turns(a, sizes) + _turns(b, sizes)
        case Apply("sub", (a, b)):
            return max(0, _turns(a, sizes) - _turns(b, sizes))
        case Apply("mul", (a, b)):
            return _turns(a, sizes) * _turns(b, sizes)
        case Apply("idiv", (a, b)):
            return _turns(a, sizes) // max(1, _turns(b, sizes))
        case Apply("minimum", (a, b)):
            return min(_turns(a, sizes), _turns(b, sizes))
        case Apply("maximum", (a, b)):
            return max(_turns(a, sizes), _turns(b, sizes))
        case _:
            return 1
