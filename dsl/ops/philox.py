"""Counter-based randomness: the one definition that every backend repeats.

In: a 64-bit key that says *which draw* (seed, statement, place, calls), a counter that says *which number of it*
(element index, step, iteration).  Out: the same numbers wherever, whenever and in whatever order they are asked for;
there is no generator and no state.

The generator is Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011;
NumPy's own Philox is the 4x64 variant and gives other numbers).  One block, four 32-bit words, belongs to one element:

    counter = (index mod 2^32, index >> 32, step mod 2^32, iteration mod 2^32)
    key     = (key mod 2^32, key >> 32)
    (c0, c1, c2, c3) = philox4x32_10(counter, key)

What is made of the block uses only integer operations, conversions and single IEEE `+ - * / sqrt`, none fused, so that
every function of this module is bit-equal wherever it is written out again.  A float32 draw reads the high words of
what a float64 draw reads: both precisions see the same random number, rounded differently.

    uniform, float64   ((c0 * 2^32 + c1) >> 11) * 2^-53                  multiples of 2^-53 in [0, 1)
    uniform, float32   (c0 >> 8) * 2^-24                                 multiples of 2^-24 in [0, 1)
    bernoulli(p)       uniform < p, in the dtype of p
    normal             Box and Muller's formula, see `normal_from_words`
    shuffle            a keyed Feistel network, see `shuffle_index`
"""
from __future__ import annotations

from math import frexp, sqrt
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dsl.machine.philox import (
    FEW_ROUNDS,
    MANY_ROUNDS,
    MASK32,
    MULTIPLIER_0,
    MULTIPLIER_1,
    NORMAL,
    ROUNDS,
    SHUFFLE_MULTIPLIER_0,
    SHUFFLE_MULTIPLIER_1,
    SMALL_SHUFFLE,
    WEYL_0,
    WEYL_1,
)

Array = npt.NDArray[Any]
Shape = int | tuple[int, ...]


# The rows (words 0 and 2) stand exchanged in every second round, and their constants with them.
_MULTIPLIERS = np.array([[[MULTIPLIER_0], [MULTIPLIER_1]], [[MULTIPLIER_1], [MULTIPLIER_0]]], np.uint64)
_KEY_HALF = np.array([[[1], [0]], [[0], [1]]] * (ROUNDS // 2))
_WEYL = np.array([[[r * (WEYL_1 if half else WEYL_0) & MASK32] for half in _KEY_HALF[r, :, 0]]
                  for r in range(ROUNDS)], np.uint64)
_MASK32 = np.array(MASK32, np.uint64)
_1, _8, _11, _21, _32 = (np.array(shift, np.uint64) for shift in (1, 8, 11, 21, 32))
_SPREAD = 512          # up to here the constants of a round are written out for every element
_CHUNK = 8192          # elements worked on at a time, so that the words stay in the cache
_FEW, _FEW_ROWS = 3, 8 # so many blocks, or rows to shuffle, are made faster with Python's own integers


class Words(NamedTuple):
    """Philox blocks of n elements: words 0 and 2 in `even`, words 1 and 3 in `odd`; both uint64 [2, n] below 2^32."""

    even: npt.NDArray[np.uint64]
    odd: npt.NDArray[np.uint64]


# ---------------------------------------------------------------- keys and words
def draw_key(seed: int, path: tuple[str | int, ...]) -> int:
    """The 64-bit key of one draw: a BLAKE2b hash of the seed and of where the draw stands in the script.

    `path` is the name the statement binds, the draw's place in the statement, and the calls of `def` functions on the
    way.  Each part goes in with its type and length, so different paths never spell the same text.  The key is the
    8-byte digest read as a little-endian integer; it does not depend on the process, the platform or the version.
    """
    from hashlib import blake2b
    parts = [f"lr-draw-1;{int(seed)};"]
    parts.extend(f"s{len(part)}:{part};" if isinstance(part, str) else f"i{int(part)};" for part in path)
    text = "".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")


def philox_block(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 of one counter, four 32-bit words, in Python integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        a, b = MULTIPLIER_0 * c0, MULTIPLIER_1 * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & MASK32, (a >> 32) ^ c3 ^ k1, a & MASK32
        k0, k1 = (k0 + WEYL_0) & MASK32, (k1 + WEYL_1) & MASK32
    return c0, c1, c2, c3


def _chunk_words(key: int, step: int, iteration: int, index: npt.NDArray[np.uint64]) -> Words:
    """Philox of a one-dimensional run of element indices; a handful of NumPy calls a round, on [2, n] arrays."""
    count = index.shape[0]
    even, odd, product = (np.empty((2, count), np.uint64) for _ in range(3))
    even_first, even_second = even
    odd_first, odd_second = odd
    product_first, product_second = product
    np.bitwise_and(index, _MASK32, out=even_first)
    np.right_shift(index, _32, out=odd_second)         # the odd rows begin exchanged
    even_second[...], odd_first[...] = step, iteration
    multipliers = _MULTIPLIERS
    round_keys = np.array((key & MASK32, key >> 32), np.uint64)[_KEY_HALF]
    round_keys += _WEYL
    round_keys &= _MASK32
    if count <= _SPREAD:                               # NumPy is quicker on whole arrays than on broadcast columns
        multipliers, round_keys = multipliers.repeat(count, axis=2), round_keys.repeat(count, axis=2)
    factors = tuple(multipliers)
    for number, round_key in enumerate(round_keys):
        np.multiply(even, factors[number % 2], out=product)
        np.right_shift(product, _32, out=even)
        np.bitwise_xor(even, odd, out=even)
        np.bitwise_xor(even, round_key, out=even)
        np.bitwise_and(product_first, _MASK32, out=odd_second)
        np.bitwise_and(product_second, _MASK32, out=odd_first)
    return Words(even, odd[::-1])


def words(key: int, step: int, iteration: int, index: npt.NDArray[np.uint64]) -> Words:
    """The blocks of the elements in `index` (uint64, [n]).

    `key` is taken modulo 2^64, `step` and `iteration` modulo 2^32.
    """
    key, step, iteration = key & 0xFFFFFFFFFFFFFFFF, step & MASK32, iteration & MASK32
    count = index.shape[0]
    if count <= _FEW:
        halves = key & MASK32, key >> 32
        blocks = [philox_block((i & MASK32, i >> 32, step, iteration), halves) for i in index.tolist()]
        few = np.array(blocks, np.uint64).reshape(count, 4).T
        return Words(few[::2], few[1::2])
    if count <= 2 * _CHUNK:
        return _chunk_words(key, step, iteration, index)
    out = Words(np.empty((2, count), np.uint64), np.empty((2, count), np.uint64))
    for start in range(0, count, _CHUNK):
        part = slice(start, min(start + _CHUNK, count))
        out.even[:, part], out.odd[:, part] = _chunk_words(key, step, iteration, index[part])
    return out


def bits(key: int, step: int, iteration: int, n: int, offset: int = 0) -> npt.NDArray[np.uint32]:
    """The Philox blocks of elements `offset` to `offset + n - 1`: uint32, [n, 4]."""
    even, odd = words(key, step, iteration, _indices(n, offset))
    return np.stack((even[0], odd[0], even[1], odd[1]), axis=1).astype(np.uint32)


def _indices(count: int, offset: int = 0) -> npt.NDArray[np.uint64]:
    return np.arange(offset, offset + count, dtype=np.uint64)


def _places(shape: Shape, index: npt.ArrayLike | None) -> tuple[npt.NDArray[np.uint64], tuple[int, ...]]:
    """Flat element indices of a draw and its shape; an `index` array takes the place of 0, 1, 2, …"""
    dims = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
    if index is None:
        count = 1
        for extent in dims:
            count *= int(extent)
        return _indices(count), dims
    given = np.broadcast_to(np.asarray(index).astype(np.uint64, copy=False), dims)
    return given.reshape(-1), dims


# ---------------------------------------------------------------- numbers in [0, 1)
def uniform_from_words(block: Words, dtype: npt.DTypeLike) -> Array:
    """Numbers in [0, 1) from blocks: 53 random bits in float64, the first 24 of the same bits in float32."""
    even, odd = block
    if np.dtype(dtype) == np.float32:
        high: Array = (even[0] >> _8).astype(np.float32)
        return high * np.float32(2.0 ** -24)
    low: Array = ((even[0] << _21) | (odd[0] >> _11)).astype(np.float64)
    return low * np.float64(2.0 ** -53)


def uniform(key: int, step: int, iteration: int, shape: Shape, dtype: npt.DTypeLike = np.float64,
            index: npt.ArrayLike | None = None) -> Array:
    """Independent numbers, uniform in [0, 1); 1 is never drawn, 0 is.

    Element i of the flattened shape uses block i, whatever the shape; an integer array `index` (broadcast to the shape)
    gives other element numbers, so any part of a draw can be made alone.  The float32 draw is the float64 draw of the
    same key rounded down to a multiple of 2^-24.
    """
    flat, dims = _places(shape, index)
    return uniform_from_words(words(key, step, iteration, flat), dtype).reshape(dims)


def bernoulli(key: int, step: int, iteration: int, p: npt.ArrayLike, shape: Shape | None = None,
              index: npt.ArrayLike | None = None) -> npt.NDArray[np.bool_]:
    """True with probability `p`: `uniform < p`, compared in float32 if `p` is float32, else in float64.

    `p` has any shape that broadcasts to `shape` (default: its own).  p = 0 is never true, p = 1 always, nan never.
    """
    chance = np.asarray(p)
    dtype = np.float32 if chance.dtype == np.float32 else np.float64
    dims = chance.shape if shape is None else shape
    result: npt.NDArray[np.bool_] = np.less(uniform(key, step, iteration, dims, dtype, index), chance)
    return result


def categorical(key: int, step: int, iteration: int, p: npt.ArrayLike,
                index: npt.ArrayLike | None = None) -> npt.NDArray[np.int64]:
    """Classes 0 … k-1 with the probabilities (or weights >= 0) along the last axis of `p`; int64, `p.shape[:-1]`.

    By inverse cumulative sum: with c the running sum along the axis (added one after another, in the dtype of `p`) and
    u the uniform draw of the row's element index, the class is the number of c[j] <= u * c[k-1], at most k-1.  A class
    of weight 0 is never drawn, unless all are 0 (then k-1); a row with nan gives 0.  For logits use `softmax` first.
    """
    weights = np.asarray(p)
    if weights.dtype != np.float32:
        weights = weights.astype(np.float64, copy=False)
    if weights.ndim == 0 or weights.shape[-1] == 0:
        raise ValueError("categorical needs at least one class on the last axis")
    running = np.cumsum(weights, axis=-1, dtype=weights.dtype)
    u = uniform(key, step, iteration, weights.shape[:-1], weights.dtype, index)
    with np.errstate(invalid="ignore"):                 # a row of weights that holds nan or infinity is no fault here
        below = running <= (u * running[..., -1])[..., None]
    counts: npt.NDArray[np.int64] = np.minimum(np.sum(below, axis=-1, dtype=np.int64), weights.shape[-1] - 1)
    return counts


# ---------------------------------------------------------------- normal
# -log(u), u = 2^e m, sqrt(1/2) <= m < sqrt(2): the series in s^2, s = (m-1)/(m+1), of fdlibm's e_log.c and e_logf.c
# (Sun Microsystems, 1993); log 2 comes in two parts, the first short enough that its product with e is exact.
# sin(pi/2 v) = v P(v^2), 0 <= v <= 1: Chebyshev interpolation, relative error 3e-19 (float32: 7e-9) before rounding.
class NormalConstants(NamedTuple):
    """The constants of `normal_from_words` in one precision; polynomials from the lowest coefficient up."""

    real: type[np.floating[Any]]
    integer: type[np.signedinteger[Any]]
    mantissa_bits: int
    sqrt_half_pattern: int
    log: tuple[float, ...]
    log2_high: float
    log2_low: float
    sine: tuple[float, ...]


NORMAL_64 = NormalConstants(np.float64, np.int64, 52, 0x3FE6A09E667F3BCD, *NORMAL["float64"])
NORMAL_32 = NormalConstants(np.float32, np.int32, 23, 0x3F3504F3, *NORMAL["float32"])

_SQRT_HALF = {float: float.fromhex("0x1.6a09e667f3bcdp-1"), np.float32: float.fromhex("0x1.6a09e6p-1")}


def normal_from_words(block: Words, dtype: npt.DTypeLike) -> Array:
    """Standard normal numbers, one from each block, by Box and Muller's formula (Ann. Math. Stat. 29, 1958).

    One of the formula's two numbers is used: z = ±sqrt(-2 log u) * sin(pi/2 v), with u and v uniform in (0, 1) and an
    independent sign; sin(pi/2 v) is |cos| of a uniform angle.  In full, with every operation rounded once to the draw's
    dtype, none fused, and each polynomial by Horner's rule from its last coefficient (`a = a * x + c`):

        float64: u = float(((c0 * 2^32 + c1) >> 11) | 1) * 2^-53;  v = likewise from c2, c3      (float is exact)
        float32: u = float(c0 | 1) * 2^-32;  v = float(c2 | 1) * 2^-32         (float rounds to nearest, ties to even)
        d = pattern(u) - sqrt_half_pattern      as int64 (float32: int32)
        e = d >> mantissa_bits                  arithmetic shift
        m = value(pattern(u) - (e << mantissa_bits))                                in [sqrt(1/2), sqrt(2))
        f = m - 1;  s = f / (f + 2);  q = s * s;  h = (f * f) * 0.5
        r = s * (h + q * polynomial(log, q)) + e * log2_low
        l = ((h - r) - f) - e * log2_high                                           -log u
        z = sqrt(l + l) * (v * polynomial(sine, v * v));  if c3 is odd: z = -z

    u is never 0, so z is finite: |z| <= 8.5717 in float64 and 6.6605 in float32 (a normal number lies beyond that with
    probability 1e-17 and 3e-11).  Against the exact value for the same u and v the error is below 4 ulp (measured, 10^6
    draws of each precision).  A float32 number is near the float64 number of the same block.
    """
    even, odd = block
    if even.shape[1] <= _FEW:
        constants = NORMAL_32 if np.dtype(dtype) == np.float32 else NORMAL_64
        blocks = np.concatenate((even, odd)).T.tolist()
        return np.array([_normal_one(c0, c2, c1, c3, constants) for c0, c2, c1, c3 in blocks], constants.real)
    negative = (odd[1] & _1).astype(np.bool_)
    u_v: Array
    if np.dtype(dtype) == np.float32:
        u_v = (even | _1).astype(np.float32)
        u_v *= _ROUNDED_32.unit
        return _box_muller(u_v[0], u_v[1], negative, _ROUNDED_32)
    u_v = ((even << _21) | (odd >> _11) | _1).astype(np.float64)
    u_v *= _ROUNDED_64.unit
    return _box_muller(u_v[0], u_v[1], negative, _ROUNDED_64)


def _normal_one(c0: int, c2: int, c1: int, c3: int, constants: NormalConstants) -> float:
    """`normal_from_words` of one block with NumPy's scalars (Python's own in float64: the same arithmetic, quicker)."""
    real: Any
    if constants is NORMAL_64:
        real = float
        u, v = (((c0 << 32 | c1) >> 11) | 1) * 2.0 ** -53, (((c2 << 32 | c3) >> 11) | 1) * 2.0 ** -53
    else:
        real = np.float32
        u, v = real(c0 | 1) * real(2.0 ** -32), real(c2 | 1) * real(2.0 ** -32)
    fraction, e = frexp(u)
    if fraction < _SQRT_HALF[real]:
        fraction, e = 2 * fraction, e - 1
    f = real(fraction) - real(1.0)
    s = f / (f + real(2.0))
    q = s * s
    h = (f * f) * real(0.5)
    log_part, sine_part, w = real(constants.log[-1]), real(constants.sine[-1]), v * v
    for coefficient in constants.log[-2::-1]:
        log_part = log_part * q + real(coefficient)
    for coefficient in constants.sine[-2::-1]:
        sine_part = sine_part * w + real(coefficient)
    r = s * (h + q * log_part) + real(e) * real(constants.log2_low)
    minus_log = ((h - r) - f) - real(e) * real(constants.log2_high)
    z: float = real(sqrt(minus_log + minus_log)) * (v * sine_part)
    return -z if c3 & 1 else z


class _Rounded:
    """`NormalConstants` as arrays without axes of the draw's dtype, with which NumPy is quickest."""

    def __init__(self, constants: NormalConstants) -> None:
        real, integer = constants.real, constants.integer
        self.integer = integer
        self.width = np.array(constants.mantissa_bits, integer)
        self.sqrt_half = np.array(constants.sqrt_half_pattern, integer)
        self.log = [np.array(c, real) for c in constants.log]
        self.sine = [np.array(c, real) for c in constants.sine]
        self.log2_high, self.log2_low = np.array(constants.log2_high, real), np.array(constants.log2_low, real)
        self.half, self.one, self.two = np.array(0.5, real), np.array(1.0, real), np.array(2.0, real)
        self.unit = np.array(2.0 ** (-53 if real is np.float64 else -32), real)


_ROUNDED_64, _ROUNDED_32 = _Rounded(NORMAL_64), _Rounded(NORMAL_32)


def _polynomial(coefficients: list[Array], x: Array) -> Array:
    *lower, last = coefficients
    total = x * last
    for coefficient in lower[:0:-1]:
        total += coefficient
        total *= x
    total += lower[0]
    return total


def _box_muller(u: Array, v: Array, negative: npt.NDArray[np.bool_], constants: _Rounded) -> Array:
    """The second half of `normal_from_words`."""
    pattern = u.view(constants.integer)
    exponent = (pattern - constants.sqrt_half) >> constants.width
    f = (pattern - (exponent << constants.width)).view(u.dtype)
    f -= constants.one
    e = exponent.astype(u.dtype)
    s = f / (f + constants.two)
    q = s * s
    h = f * f
    h *= constants.half
    r = s * (h + q * _polynomial(constants.log, q)) + e * constants.log2_low
    minus_log = ((h - r) - f) - e * constants.log2_high
    minus_log += minus_log
    z: Array = np.sqrt(minus_log, out=minus_log)
    z *= v * _polynomial(constants.sine, v * v)
    np.negative(z, out=z, where=negative)
    return z


def normal(key: int, step: int, iteration: int, shape: Shape, dtype: npt.DTypeLike = np.float64,
           index: npt.ArrayLike | None = None) -> Array:
    """Independent standard normal numbers; elements and `index` as in `uniform`, formula of `normal_from_words`."""
    flat, dims = _places(shape, index)
    return normal_from_words(words(key, step, iteration, flat), dtype).reshape(dims)


# ---------------------------------------------------------------- permutations
_SHUFFLE_0, _SHUFFLE_1, _SHIFT_15, _SHIFT_16 = (
    np.array(value, np.uint32) for value in (SHUFFLE_MULTIPLIER_0, SHUFFLE_MULTIPLIER_1, 15, 16))


def shuffle_rounds(n: int) -> int:
    """Feistel rounds for n places: 12, and 24 for n <= 16, where halves of one or two bits mix slowly."""
    return MANY_ROUNDS if n <= SMALL_SHUFFLE else FEW_ROUNDS


def shuffle_keys(key: int, epoch: int, n: int, iteration: int = 0) -> npt.NDArray[np.uint32]:
    """The round keys of `shuffle_index`: uint32, [shuffle_rounds(n) + 1, 2]; made once an epoch.

    Round r takes words 2 (r mod 2) and 2 (r mod 2) + 1 of the Philox block of element r // 2, step `epoch`.
    """
    rounds = shuffle_rounds(n) + 1
    return bits(key, epoch, iteration, (rounds + 1) // 2).reshape(-1, 2)[:rounds]


def shuffle_index(key: int, epoch: int, i: npt.ArrayLike, n: int, iteration: int = 0) -> npt.NDArray[np.int64]:
    """Where a shuffle of n rows in this epoch takes row `i` from (0 <= i < n <= 2^62): int64, in the shape of `i`.

    For a fixed key and epoch i -> shuffle_index(i) is a bijection of 0 … n-1, each value computed on its own: a Feistel
    network on b = ceil(log2 n) bits, repeated until the value is below n (cycle walking; two turns at most on average).
    In pseudo-code, with `keys` from `shuffle_keys` and all of the mixing in uint32, where `*` and `+` wrap:

        if n <= 1: return 0
        b = number of bits of n - 1;  low = (b + 1) // 2;  high = b // 2           so high = 0 for n = 2
        mask_low = 2^low - 1;  mask_high = 2^high - 1
        x = i
        repeat
            l = x >> low;  r = x & mask_low
            for round = 0 … shuffle_rounds(n) - 1
                if round is even: l = l ^ (mix(r, keys[round]) & mask_high)
                else:             r = r ^ (mix(l, keys[round]) & mask_low)
            x = (l << low) | r
            x = x ^ (mix((x >> 1) mod 2^32, keys[shuffle_rounds(n)]) & 1)
        until x < n
        return x

        mix(a, k):  a = (a ^ k[0]) * 0x7FEB352D;  a = a ^ (a >> 15)
                    a = (a + k[1]) * 0x846CA68B;  a = a ^ (a >> 16);  return a

    The last line of the turn flips single bits: without it every such network on four or more bits is an even
    permutation.  The multipliers are those of Wellons' `lowbias32` (public domain, 2018).
    """
    places = np.asarray(i).astype(np.uint64)
    if n <= 1:
        return np.zeros(places.shape, np.int64)
    if n > 1 << 62:
        raise ValueError(f"cannot shuffle {n} rows; the limit is 2^62")
    keys = shuffle_keys(key, epoch, n, iteration)
    if places.size <= _FEW_ROWS:
        few = keys.tolist()
        return np.array([_shuffle_one(x, n, few) for x in places.reshape(-1).tolist()], np.int64).reshape(places.shape)
    flat = _shuffle_turn(places.reshape(-1), n, keys)
    outside = np.flatnonzero(flat >= n)
    while outside.size:
        flat[outside] = moved = _shuffle_turn(flat[outside], n, keys)
        outside = outside[moved >= n]
    return flat.view(np.int64).reshape(places.shape)


def _shuffle_mix(half: npt.NDArray[np.uint32], key: npt.NDArray[np.uint32],
                 mask: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    mixed = np.bitwise_xor(half, key[0, ...])
    mixed *= _SHUFFLE_0
    mixed ^= mixed >> _SHIFT_15
    mixed += key[1, ...]
    mixed *= _SHUFFLE_1
    mixed ^= mixed >> _SHIFT_16
    mixed &= mask
    return mixed


def _shuffle_turn(x: npt.NDArray[np.uint64], n: int, keys: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    bit_count = (n - 1).bit_length()
    low, high = (bit_count + 1) // 2, bit_count // 2
    low_mask, high_mask = np.array((1 << low) - 1, np.uint32), np.array((1 << high) - 1, np.uint32)
    left, right = (x >> np.uint64(low)).astype(np.uint32), x.astype(np.uint32) & low_mask
    for number, round_key in enumerate(keys[:-1]):
        if number % 2 == 0:
            left ^= _shuffle_mix(right, round_key, high_mask)
        else:
            right ^= _shuffle_mix(left, round_key, low_mask)
    joined: npt.NDArray[np.uint64] = (left.astype(np.uint64) << np.uint64(low)) | right
    joined ^= _shuffle_mix((joined >> _1).astype(np.uint32), keys[-1], np.array(1, np.uint32))
    return joined


def _shuffle_one(x: int, n: int, keys: list[list[int]]) -> int:
    """`shuffle_index` of one place in Python's integers."""
    def mix(half: int, key: list[int]) -> int:
        half = ((half ^ key[0]) * SHUFFLE_MULTIPLIER_0) & MASK32
        half = (((half ^ (half >> 15)) + key[1]) * SHUFFLE_MULTIPLIER_1) & MASK32
        return half ^ (half >> 16)

    bit_count = (n - 1).bit_length()
    low, high = (bit_count + 1) // 2, bit_count // 2
    low_mask, high_mask = (1 << low) - 1, (1 << high) - 1
    while True:
        left, right = x >> low, x & low_mask
        for number, key in enumerate(keys[:-1]):
            if number % 2 == 0:
                left ^= mix(right, key) & high_mask
            else:
                right ^= mix(left, key) & low_mask
        x = (left << low) | right
        x ^= mix((x >> 1) & MASK32, keys[-1]) & 1
        if x < n:
            return x


def permutation(key: int, step: int, n: int, iteration: int = 0) -> npt.NDArray[np.int64]:
    """A random order of 0 … n-1, int64 [n]: element i is `shuffle_index(key, step, i, n, iteration)`."""
    if n <= _FEW_ROWS or n > 4096:
        return shuffle_index(key, step, np.arange(n), n, iteration)
    # The same values from one turn over the whole domain of the network: its cycles are then walked in a table.
    table = _shuffle_turn(_indices(1 << (n - 1).bit_length()), n, shuffle_keys(key, step, n, iteration)).view(np.int64)
    order: npt.NDArray[np.int64] = table[:n].copy()
    while (outside := order >= n).any():
        order = np.where(outside, table[order], order)
    return order
