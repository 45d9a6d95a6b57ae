"""The helper functions of a CUDA source.

In: the text of kernels.  Out: the helpers they call, and those that these call, in an order in which each is known.

Integer arithmetic wraps in a program and must not overflow in C, so it is done unsigned where it may wrap.  `minimum` and
`maximum` keep a nan and order -0 below +0, which C's `fmin` does not.
"""
from __future__ import annotations

import re
from collections.abc import Callable

from dsl.backends.cuda.spelling import C_TYPES, Text
from dsl.ir.types import DType

UNSIGNED = {"int": "unsigned int", "long long": "unsigned long long"}
CALLED = re.compile(r"\blr_\w+")


def _integers(template: str) -> str:
    return "\n".join(template.replace("UT", unsigned).replace("T", signed) for signed, unsigned in UNSIGNED.items())


def _floats(template: str) -> str:
    return "\n".join(template.replace("T", t) for t in ("float", "double"))


HELPERS: dict[str, str] = {
    "INFINITY": "#ifndef INFINITY\n#define INFINITY __int_as_float(0x7f800000)\n#endif",
    "NAN": "#ifndef NAN\n#define NAN __int_as_float(0x7fc00000)\n#endif",
    "lr_add": "// a + b, wrapping.\n" + _integers("__device__ inline T lr_add(T a, T b) { return (T)((UT)a + (UT)b); }"),
    "lr_sub": "// a - b, wrapping.\n" + _integers("__device__ inline T lr_sub(T a, T b) { return (T)((UT)a - (UT)b); }"),
    "lr_mul": "// a * b, wrapping.\n" + _integers("__device__ inline T lr_mul(T a, T b) { return (T)((UT)a * (UT)b); }"),
    "lr_neg": "// -a, wrapping.\n" + _integers("__device__ inline T lr_neg(T a) { return (T)(0 - (UT)a); }"),
    "lr_abs": "// |a|, wrapping.\n" + _integers("__device__ inline T lr_abs(T a) { return a < 0 ? (T)(0 - (UT)a) : a; }"),
    "lr_shl": "// Shifted left.\n" + _integers("__device__ inline T lr_shl(T a, T count) { return (T)((UT)a << count); }"),
    "lr_lshr": "// Shifted right, zeros in.\n" + _integers("__device__ inline T lr_lshr(T a, T count) { return (T)((UT)a >> count); }"),
    "lr_below": "// a < b, unsigned.\n" + _integers("__device__ inline bool lr_below(T a, T b) { return (UT)a < (UT)b; }"),
    "lr_minimum": "// The smaller; a nan is kept, and -0 is below +0.\n" + _floats(
        "__device__ inline T lr_minimum(T a, T b) { return isnan(a) || a < b || (a == b && signbit(a)) ? a : b; }"),
    "lr_maximum": "// The larger; a nan is kept, and +0 is above -0.\n" + _floats(
        "__device__ inline T lr_maximum(T a, T b) { return isnan(a) || a > b || (a == b && !signbit(a)) ? a : b; }"),
    "lr_quotient": """// a / b, cut off towards zero; short numbers are divided as such, which is several times faster.
__device__ inline long long lr_quotient(long long a, long long b) {
    return (a | b) >> 32 == 0 ? (long long)((unsigned int)a / (unsigned int)b) : a / b;
}""",
    "lr_remainder": """// a % b, likewise.
__device__ inline long long lr_remainder(long long a, long long b) {
    return (a | b) >> 32 == 0 ? (long long)((unsigned int)a % (unsigned int)b) : a % b;
}""",
    "lr_four": """// Four neighbours in an array, which move 16 bytes at a time where they lie at a multiple of that.
template <class T> struct alignas(sizeof(T) < 4 ? 4 * sizeof(T) : 16) lr_four { T at[4]; };""",
    "lr_load4": """template <class T> __device__ inline lr_four<T> lr_load4(const T* from) {
    if ((unsigned long long)from % alignof(lr_four<T>) == 0) return *(const lr_four<T>*)from;
    return {from[0], from[1], from[2], from[3]};
}""",
    "lr_store4": """template <class T> __device__ inline void lr_store4(T* to, const lr_four<T>& values) {
    if ((unsigned long long)to % alignof(lr_four<T>) == 0) {
        *(lr_four<T>*)to = values;
    } else {
        for (int u = 0; u < 4; ++u) to[u] = values.at[u];
    }
}""",
    "lr_floordiv": """// The quotient rounded down; 0 if the divisor is.
__device__ inline long long lr_floordiv(long long a, long long b) {
    if (b == 0) return 0;
    const long long quotient = a / b;
    return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}""",
}


def warp_helper(op: str, dtype: DType) -> str:
    """The name of the function that combines a value over the lanes of a warp."""
    return f"lr_warp_{op}_{dtype}"


def runs_helper(op: str, dtype: DType) -> str:
    """The name of the function that combines the runs of a total."""
    return f"lr_runs_{op}_{dtype}"


def warp_function(op: str, dtype: DType, combine: Callable[[str, Text], str]) -> str:
    """By a butterfly, so that all lanes have the same bits."""
    c_type = C_TYPES[dtype]
    return f"""// `{op}` over the lanes of a warp, always in the same order; every lane has the result.
__device__ inline {c_type} {warp_helper(op, dtype)}({c_type} value) {{
    for (int step = 16; step > 0; step /= 2) {{
        const {c_type} other = __shfl_xor_sync(0xffffffffu, value, step);
        {combine("value", Text("other"))}
    }}
    return value;
}}"""


def runs_function(op: str, dtype: DType, combine: Callable[[str, Text], str]) -> str:
    """The lanes of a warp take the runs in turn."""
    c_type = C_TYPES[dtype]
    return f"""// `{op}` over the runs of a total, which lie `step` elements apart; every lane of the warp has the result.
__device__ inline {c_type} {runs_helper(op, dtype)}(const {c_type}* of_run, long long runs, long long step, {c_type} total) {{
    for (long long run = threadIdx.x % 32; run < runs; run += 32) {combine("total", Text("of_run[run * step]"))}
    return {warp_helper(op, dtype)}(total);
}}"""


def prelude(text: str, combining: dict[str, str]) -> str:
    """What stands before the kernels; `combining` are the functions that combine, by name."""
    known = {**HELPERS, **combining}
    order: list[str] = []

    def need(piece: str) -> None:
        for name in sorted({*CALLED.findall(piece), *(n for n in ("INFINITY", "NAN") if re.search(rf"\b{n}\b", piece))}):
            if name in known and name not in order:
                need(known[name].replace(name, ""))
                order.append(name)

    need(text)
    return "".join(known[name] + "\n\n" for name in order)
