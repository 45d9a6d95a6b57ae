"""The polynomials of `dsl/machine/`, found again: Remez's exchange algorithm in 60 digits.

In: a function, a weight, an interval and a degree.  Out: the coefficients from the lowest up, rounded to the format they are
used in, and the largest weighted error of the rounded polynomial.  Run it to print every table (`python tools/minimax.py`), or
those whose names hold a word (`python tools/minimax.py sine`).
"""
from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import mpmath as mp
import numpy as np

mp.mp.dps = 60
Function = Callable[[Any], Any]


def remez(f: Function, weight: Function, low: Any, high: Any, degree: int, rounds: int = 12) -> list[Any]:
    """The polynomial p of the degree that makes the largest |weight * (p - f)| on [low, high] least."""
    low, high = mp.mpf(low), mp.mpf(high)
    count = degree + 2
    given, floor = weight, max(abs(weight(low)), abs(weight(high))) * mp.mpf(10) ** -6
    weight = lambda x: max(abs(given(x)), floor)         # a weight of 0 would leave the system without a solution
    nodes = [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * i / (count - 1)) for i in range(count)]
    grid = [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * i / (24 * count)) for i in range(24 * count + 1)]
    values, weights = [f(x) for x in grid], [weight(x) for x in grid]
    coefficients: list[Any] = []
    for _ in range(rounds):
        matrix = mp.matrix(count, count)
        right = mp.matrix(count, 1)
        for i, x in enumerate(nodes):
            for j in range(degree + 1):
                matrix[i, j] = x ** j
            w = weight(x)
            matrix[i, degree + 1] = (-1) ** i / w
            right[i] = f(x)
        coefficients = list(mp.lu_solve(matrix, right))[:degree + 1]
        errors = [w * (mp.polyval(coefficients[::-1], x) - y) for x, y, w in zip(grid, values, weights, strict=True)]
        peaks: list[int] = []                            # one point of largest error between each two changes of sign
        for i, e in enumerate(errors):
            if peaks and (errors[peaks[-1]] > 0) == (e > 0):
                if abs(e) > abs(errors[peaks[-1]]):
                    peaks[-1] = i
            else:
                peaks.append(i)
        while len(peaks) > count:
            peaks.pop(0 if abs(errors[peaks[0]]) < abs(errors[peaks[-1]]) else -1)
        if len(peaks) < count:
            break
        nodes = [grid[i] for i in peaks]
    return coefficients


def rounded(coefficients: list[Any], bits: int) -> list[float]:
    return [float(np.float32(float(c))) if bits == 24 else float(c) for c in coefficients]


def table(name: str, f: Function, weight: Function, low: Any, high: Any, degree: int, bits: int) -> None:
    if not all(word in name for word in sys.argv[1:]):
        return
    found = rounded(remez(f, weight, low, high, degree), bits)
    points = [mp.mpf(low) + (mp.mpf(high) - low) * i / 500 for i in range(501)]
    worst = max(abs(weight(x) * (mp.polyval([mp.mpf(c) for c in found[::-1]], x) - f(x))) for x in points)
    print(f"{name}  ({bits} bits, degree {degree}, [{mp.nstr(mp.mpf(low), 5)}, {mp.nstr(mp.mpf(high), 5)}]): "
          f"error 2^{mp.nstr(mp.log(worst, 2), 4)}")
    shown = [f"{np.float32(c)!s}" if bits == 24 else repr(c) for c in found]
    print("    (" + ", ".join(shown) + ")")


def near(value: Any, series: Function, x: Any) -> Any:
    """`value(x)`, or near 0 the series, where the closed form loses its digits or divides by zero."""
    return series(x) if abs(x) < mp.mpf(10) ** -12 else value(x)


HALF_LOG2 = mp.log(2) / 2 * mp.mpf("1.002")
ROOT = mp.sqrt(2)


def exponential(x: Any) -> Any:
    """(e^x - 1 - x) / x^2"""
    return near(lambda x: (mp.exp(x) - 1 - x) / x ** 2, lambda x: mp.mpf(1) / 2 + x / 6, x)


def logarithm(x: Any) -> Any:
    """(log(1+x) - x + x^2/2) / x^3"""
    return near(lambda x: (mp.log1p(x) - x + x ** 2 / 2) / x ** 3, lambda x: mp.mpf(1) / 3 - x / 4, x)


def quotient_logarithm(z: Any) -> Any:
    """(2 atanh(s) - 2s) / s^3 with z = s^2, where log(1+f) = 2 atanh(f / (2+f))"""
    return near(lambda z: (2 * mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 2) / z, lambda z: mp.mpf(2) / 3 + 2 * z / 5, z)


if __name__ == "__main__":
    table("exponential", exponential, lambda x: x ** 2, -HALF_LOG2, HALF_LOG2, 4, 24)
    table("exponential", exponential, lambda x: x ** 2, -HALF_LOG2, HALF_LOG2, 9, 53)
    table("logarithm", logarithm, lambda x: x ** 3 / mp.log1p(x) if x else mp.mpf(0), 1 / ROOT - 1, ROOT - 1, 7, 24)
    table("logarithm", logarithm, lambda x: x ** 3 / mp.log1p(x) if x else mp.mpf(0), 1 / ROOT - 1, ROOT - 1, 8, 24)
    top = ((ROOT - 1) / (ROOT + 1)) ** 2
    table("quotient logarithm", quotient_logarithm, lambda z: z, 0, top, 5, 53)
    table("quotient logarithm", quotient_logarithm, lambda z: z, 0, top, 6, 53)
