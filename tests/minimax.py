"""The polynomials of `dsl/machine/`, found again: Remez's exchange algorithm in 60 digits.

In: a function, a weight, an interval and a degree.  Out: the coefficients from the lowest up, rounded to the format they are
used in, and the largest weighted error of the rounded polynomial.  Run it to print every table (`python tests/minimax.py`), or
those whose names hold a word (`python tests/minimax.py sine`).
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


def quotient_logarithm_rest(z: Any) -> Any:
    """(2 atanh(s) - 2s - 2/3 s^3) / s^5"""
    return near(lambda z: (quotient_logarithm(z) - mp.mpf(2) / 3) / z, lambda z: mp.mpf(2) / 5 + 2 * z / 7, z)


def sine(z: Any) -> Any:
    """(sin r - r) / r^3 with z = r^2"""
    return near(lambda z: (mp.sin(mp.sqrt(z)) / mp.sqrt(z) - 1) / z, lambda z: -mp.mpf(1) / 6 + z / 120, z)


def cosine(z: Any) -> Any:
    """(cos r - 1 + r^2/2) / r^4"""
    return near(lambda z: (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z ** 2, lambda z: mp.mpf(1) / 24 - z / 720, z)


def arcsine(z: Any) -> Any:
    """(asin x - x) / x^3 with z = x^2"""
    return near(lambda z: (mp.asin(mp.sqrt(z)) / mp.sqrt(z) - 1) / z, lambda z: mp.mpf(1) / 6 + 3 * z / 40, z)


def arctangent(z: Any) -> Any:
    """(atan x - x) / x^3 with z = x^2"""
    return near(lambda z: (mp.atan(mp.sqrt(z)) / mp.sqrt(z) - 1) / z, lambda z: -mp.mpf(1) / 3 + z / 5, z)


def sine_pi(z: Any) -> Any:
    """sin(pi r) / r with z = r^2"""
    return near(lambda z: mp.sin(mp.pi * mp.sqrt(z)) / mp.sqrt(z), lambda z: mp.pi - mp.pi ** 3 * z / 6, z)


def cosine_pi(z: Any) -> Any:
    """cos(pi r) with z = r^2"""
    return mp.cos(mp.pi * mp.sqrt(z))


def error_function(z: Any) -> Any:
    """erf(x) / x - 1 with z = x^2"""
    return near(lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z), lambda z: 2 / mp.sqrt(mp.pi) * (1 - z / 3), z) - 1


def scaled_complement(t: Any, centre: Any) -> Any:
    """(x + 1/2) exp(x^2) erfc(x) for x = centre (1+t) / (1-t), on the whole half-line"""
    if t > 1 - mp.mpf(10) ** -9:
        return 1 / mp.sqrt(mp.pi)
    x = centre * (1 + t) / (1 - t)
    return (x + mp.mpf(1) / 2) * mp.exp(x * x) * mp.erfc(x)


def log_gamma(w: Any) -> Any:
    """log gamma(1+w) / (w (w-1))"""
    if abs(w) < mp.mpf(10) ** -15:
        return mp.euler
    if abs(w - 1) < mp.mpf(10) ** -15:
        return 1 - mp.euler
    return mp.loggamma(1 + w) / (w * (w - 1))


if __name__ == "__main__":
    ONE = lambda x: mp.mpf(1)
    table("exponential", exponential, lambda x: x ** 2, -HALF_LOG2, HALF_LOG2, 4, 24)
    table("exponential of powers", exponential, lambda x: x ** 2, -HALF_LOG2, HALF_LOG2, 5, 53)
    table("exponential", exponential, lambda x: x ** 2, -HALF_LOG2, HALF_LOG2, 9, 53)
    table("logarithm", logarithm, lambda x: x ** 3 / mp.log1p(x) if x else mp.mpf(0), 1 / ROOT - 1, ROOT - 1, 8, 24)
    top = ((ROOT - 1) / (ROOT + 1)) ** 2 * mp.mpf("1.001")
    table("quotient logarithm of powers", quotient_logarithm, lambda z: z, 0, top, 4, 53)
    table("quotient logarithm", quotient_logarithm, lambda z: z, 0, top, 6, 53)
    table("quotient logarithm rest", quotient_logarithm_rest, lambda z: z ** 2, 0, top, 8, 53)
    top = (mp.pi / 4 * mp.mpf("1.01")) ** 2
    table("sine", sine, lambda z: z, 0, top, 2, 24)
    table("sine", sine, lambda z: z, 0, top, 5, 53)
    table("cosine", cosine, lambda z: z ** 2, 0, top, 2, 24)
    table("cosine", cosine, lambda z: z ** 2, 0, top, 5, 53)
    table("arcsine", arcsine, lambda z: z, 0, mp.mpf("0.2501"), 4, 24)
    table("arcsine", arcsine, lambda z: z, 0, mp.mpf("0.2501"), 12, 53)
    top = (mp.mpf("0.4143")) ** 2
    table("arctangent", arctangent, lambda z: z, 0, top, 4, 24)
    table("arctangent", arctangent, lambda z: z, 0, top, 10, 53)
    table("sine pi", sine_pi, ONE, 0, mp.mpf("0.25"), 8, 53)
    table("cosine pi", cosine_pi, ONE, 0, mp.mpf("0.25"), 9, 53)
    table("error function", error_function, ONE, 0, 1, 6, 24)
    table("error function", error_function, ONE, 0, 1, 12, 53)
    for centre, degree, bits in ((2, 11, 24), (4, 23, 53)):
        table(f"scaled complement {centre}", lambda t, c=centre: scaled_complement(t, mp.mpf(c)), ONE, -1, 1, degree, bits)
    table("log gamma", log_gamma, ONE, 0, 1, 20, 53)
    table("cube root", lambda m: m ** (-mp.mpf(1) / 3), ONE, 1 / ROOT, ROOT, 3, 24)
    table("cube root", lambda m: m ** (-mp.mpf(1) / 3), ONE, 1 / ROOT, ROOT, 5, 53)
