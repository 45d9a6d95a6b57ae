"""The helper functions of a CUDA source.

In: the text of kernels.  Out: the helpers they call, and those that these call, in an order in which each is known.

Integer arithmetic wraps in a program and must not overflow in C, so it is done unsigned where it may wrap.  `minimum` and
`maximum` keep a nan and order -0 below +0, which C's `fmin` does not.
"""
from __future__ import annotations

import re
from collections.abc import Callable

from dsl.backends.cuda.runs import FEW_RUNS, LANES, LONG_RUN, MOST_PARTIALS, MOST_ROW_RUNS, MOST_RUNS, MOST_SLICES, ROWS, WARP, Form
from dsl.backends.cuda.spelling import C_TYPES, Text
from dsl.ir.types import DType

UNSIGNED = {"int": "unsigned int", "long long": "unsigned long long"}
CALLED = re.compile(r"\blr_\w+")


def _integers(template: str) -> str:
    return "\n".join(template.replace("UT", unsigned).replace("T", signed) for signed, unsigned in UNSIGNED.items())


def _floats(template: str) -> str:
    return "\n".join(template.replace("T", t) for t in ("float", "double"))


def _runs_of_rows(form: Form) -> str:
    """As `run_count` has it."""
    return f"""__device__ inline long long lr_runs_of_{form}(long long extent, long long elements) {{
    const long long most = max({LANES}LL, {MOST_PARTIALS}LL / max(elements, 1LL));
    const long long enough = max({FEW_RUNS}LL, (extent + {ROWS[form] - 1}) / {ROWS[form]});
    return max(min(min(extent, enough), min({MOST_ROW_RUNS}LL, most)), 0LL);
}}"""


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
    "lr_finite": """// Whether a number is neither infinite nor nan; of a double its exponent tells, sooner than a comparison.
__device__ inline bool lr_finite(float x) { return fabsf(x) < INFINITY; }
__device__ inline bool lr_finite(double x) { return (__double2hiint(x) & 0x7ff00000) != 0x7ff00000; }""",
    "lr_ratio": """// a / b to the last bit, of numbers that are neither tiny nor huge: an approximate 1 / b, corrected, then the quotient.
// (Markstein, IBM J. Res. Dev. 34, 1990.)  Without the cases that `/` has to look for, it is twice as fast.
__device__ inline float lr_ratio(float a, float b) {
#ifdef __CUDA_ARCH__
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(b));
    r = fmaf(fmaf(-b, r, 1.0f), r, r);
    const float q = a * r;
    return fmaf(fmaf(-b, q, a), r, q);
#else
    return a / b;
#endif
}
__device__ inline double lr_ratio(double a, double b) { return a / b; }""",
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
    "lr_barrier": """// All threads of all blocks, which run together, wait for each other, and see what the others have written.
__device__ inline void lr_barrier(unsigned int* arrived) {
    __syncthreads();
    if (gridDim.x == 1) return;
    if (threadIdx.x == 0) {
        __threadfence();
        // The top bit turns over when all have come: block 0 adds what the others' ones leave open.
        const unsigned int mine = blockIdx.x == 0 ? 0x80000000u - (gridDim.x - 1) : 1u;
        const unsigned int before = atomicAdd(arrived, mine);
        while (((before ^ *(volatile unsigned int*)arrived) & 0x80000000u) == 0) __nanosleep(32);
        __threadfence();
    }
    __syncthreads();
}""",
    "lr_array": """// Where an array is: below 2^20 bytes the place is one in the block's own memory.
template <class T> __device__ inline T* lr_array(unsigned long long place, unsigned char* near) {
    return place < (1ull << 20) ? (T*)(near + place) : (T*)place;
}""",
    "lr_copy": """template <class T> __device__ inline void lr_copy(T* to, const T* from, long long count) {
    if (to == from) return;
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x, threads = (long long)gridDim.x * blockDim.x;
    for (long long k = thread; k < count; k += threads) to[k] = from[k];
}""",
    "lr_swap": "template <class T> __device__ inline void lr_swap(T& a, T& b) { const T kept = a; a = b; b = kept; }",
    "lr_runs_of_threads": f"""__device__ inline long long lr_runs_of_threads(long long extent) {{
    return min(min((extent + {WARP - 1}) / {WARP}, max({FEW_RUNS}LL, (extent + {LONG_RUN - 1}) / {LONG_RUN})), {MOST_RUNS}LL);
}}""",
    "lr_runs_of_warps": _runs_of_rows("warps"),
    "lr_runs_of_columns": _runs_of_rows("columns"),
    "lr_runs_of_slices": f"""__device__ inline long long lr_runs_of_slices(long long extent, long long elements) {{
    const long long most = max({LANES}LL, {MOST_PARTIALS}LL / max(elements, 1LL));
    return max(min(min(extent, {MOST_SLICES}LL), most), 0LL);
}}""",
    "lr_fma": """// sum + a * b, rounded once; integers wrap.
__device__ inline float lr_fma(float a, float b, float sum) { return fmaf(a, b, sum); }
__device__ inline double lr_fma(double a, double b, double sum) { return fma(a, b, sum); }
"""+_integers("__device__ inline T lr_fma(T a, T b, T sum) { return (T)((UT)sum + (UT)a * (UT)b); }"),
    "lr_plus": """// a + b; integers wrap.
__device__ inline double lr_plus(double a, double b) { return a + b; }
"""+_integers("__device__ inline T lr_plus(T a, T b) { return (T)((UT)a + (UT)b); }"),
    "lr_wide": """template <class T> struct lr_wide { typedef T type; };
template <> struct lr_wide<float> { typedef double type; };""",
    "lr_dots": """// sum[r] += the products of `count` elements of row r of a with those of a column of b; `whole`: four neighbours of
// a row lie at a multiple of 16 bytes, `across`: those of a column.
template <class T> __device__ inline void lr_dots(
    T (&sum)[4], const T* const (&a)[4], const T* b, int count, long long a_inner, long long b_inner, bool whole, bool across) {
    int k = 0;
    if (whole) {
        #pragma unroll 4
        for (; k + 4 <= count; k += 4, b += 4 * b_inner) {
            lr_four<T> a_four[4];
            #pragma unroll
            for (int r = 0; r < 4; ++r) a_four[r] = *(const lr_four<T>*)(a[r] + k);
            const T b_four[4] = {b[0], b[b_inner], b[2 * b_inner], b[3 * b_inner]};
            #pragma unroll
            for (int u = 0; u < 4; ++u) {
                #pragma unroll
                for (int r = 0; r < 4; ++r) sum[r] = lr_fma(a_four[r].at[u], b_four[u], sum[r]);
            }
        }
    } else if (across) {
        const T* a_column = a[0];
        #pragma unroll 8
        for (; k < count; ++k, a_column += a_inner, b += b_inner) {
            const lr_four<T> a_four = *(const lr_four<T>*)a_column;
            #pragma unroll
            for (int r = 0; r < 4; ++r) sum[r] = lr_fma(a_four.at[r], *b, sum[r]);
        }
    }
    #pragma unroll 2
    for (; k < count; ++k, b += b_inner) {
        #pragma unroll
        for (int r = 0; r < 4; ++r) sum[r] = lr_fma(a[r][k * a_inner], *b, sum[r]);
    }
}""",
    "lr_product": """// out[i, j] = sum over k of a[i, k] * b[k, j].  A warp makes four rows of 32 columns at a time, lane l
// column l; sums of 256 products are added up in the wider type.  The steps say how a and b lie: one of each array's is 1.
template <class T> __device__ inline void lr_product(
    T* __restrict__ out, const T* __restrict__ a, const T* __restrict__ b, long long rows, long long inner, long long columns,
    long long a_row, long long a_inner, long long b_inner, long long b_column) {
    const long long warp = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / 32, warps = (long long)gridDim.x * blockDim.x / 32;
    const long long across = (columns + 31) / 32, tiles = (rows + 3) / 4 * across;
    const bool aligned = (unsigned long long)a % alignof(lr_four<T>) == 0;
    #pragma unroll 1
    for (long long tile = warp; tile < tiles; tile += warps) {
        const long long i = tile / across * 4, j = tile % across * 32 + threadIdx.x % 32;
        const T* const b_j = b + min(j, columns - 1) * b_column;
        typename lr_wide<T>::type total[4] = {0, 0, 0, 0};
        #pragma unroll 1
        for (long long first = 0; first < inner; first += 256) {
            const T* const a_rows[4] = {
                a + i * a_row + first * a_inner, a + min(i + 1, rows - 1) * a_row + first * a_inner,
                a + min(i + 2, rows - 1) * a_row + first * a_inner, a + min(i + 3, rows - 1) * a_row + first * a_inner};
            T sum[4] = {0, 0, 0, 0};
            lr_dots(sum, a_rows, b_j + first * b_inner, (int)min(inner - first, 256LL), a_inner, b_inner,
                    aligned && a_inner == 1 && a_row % 4 == 0, aligned && a_row == 1 && a_inner % 4 == 0 && i + 4 <= rows);
            #pragma unroll
            for (int r = 0; r < 4; ++r) total[r] = lr_plus(total[r], sum[r]);
        }
        #pragma unroll
        for (int r = 0; r < 4; ++r) {
            if (i + r < rows && j < columns) out[(i + r) * columns + j] = (T)total[r];
        }
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
    #pragma unroll 8
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
