"""Randomness: known answers, statistics with fixed seeds, independence of shape and chunk, bijections, keys."""
from __future__ import annotations

from itertools import permutations, product
from math import factorial

import numpy as np
import pytest
from scipy import stats

from dsl.ops import philox
from dsl.ops.philox import (
    Words,
    bernoulli,
    bits,
    categorical,
    draw_key,
    normal,
    normal_from_words,
    permutation,
    philox_block,
    shuffle_index,
    shuffle_keys,
    shuffle_rounds,
    uniform,
    words,
)

KEY = draw_key(1, ("train_Y", 0))
MAX = 0xFFFFFFFF
FIXED_KEY = 5755269897874392988
FIXED_UNIFORM = [0.5855094255148748, 0.5838246923823497, 0.2547434185981481]
FIXED_NORMAL = [0.9672601536583756, 0.22734363909696273, 1.65023665938639]
FIXED_NORMAL_32 = [0.9672601222991943, 0.22734366357326508, 1.65023672580719]
FIXED_PERMUTATION = [3, 9, 8, 2, 6, 0, 7, 4, 5, 1]
# Random123's kat_vectors, philox4x32 with 10 rounds: counter, key, words.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((MAX,) * 4, (MAX, MAX), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
@pytest.mark.parametrize("count", [1, 4, 600])
def test_known_answers(counter, key, answer, count):
    assert philox_block(counter, key) == answer
    c0, c1, c2, c3 = counter
    block = bits(key[0] | key[1] << 32, c2, c3, count, offset=(c0 | c1 << 32) - (count - 1 if c0 else 0))
    assert tuple(block[count - 1 if c0 else 0].tolist()) == answer


def rows(block):
    return np.stack((block.even[0], block.odd[0], block.even[1], block.odd[1]), 1)


def test_every_path_gives_the_same_words():
    index = np.array([0, 1, 5, 2**32 - 1, 2**32, 2**40 + 7, 2**64 - 1], np.uint64)
    many = rows(words(KEY, 7, 9, index))
    for row, i in zip(many, index.tolist(), strict=True):
        expected = philox_block((i & MAX, i >> 32, 7, 9), (KEY & MAX, KEY >> 32))
        assert tuple(row.tolist()) == expected
        assert tuple(rows(words(KEY, 7, 9, np.array([i], np.uint64)))[0].tolist()) == expected


def test_step_and_iteration_wrap_at_32_bits():
    assert (bits(KEY, 2**32 + 3, 2**33, 5) == bits(KEY, 3, 0, 5)).all()
    assert (bits(KEY, -1, 0, 5) == bits(KEY, 2**32 - 1, 0, 5)).all()


@pytest.mark.parametrize("draw", [uniform, normal])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_element_depends_on_its_index_only(draw, dtype):
    whole = draw(KEY, 2, 3, 20_000, dtype)
    assert whole.dtype == dtype
    for start, stop in ((0, 1), (5, 7), (17, 800), (8000, 17_000), (19_999, 20_000)):
        part = draw(KEY, 2, 3, stop - start, dtype, index=np.arange(start, stop))
        assert part.tobytes() == whole[start:stop].tobytes()
    assert draw(KEY, 2, 3, (40, 500), dtype).tobytes() == whole.tobytes()
    scattered = np.array([[3, 19_000], [3, 0]])
    assert draw(KEY, 2, 3, (2, 2), dtype, index=scattered).tobytes() == whole[scattered].tobytes()
    assert draw(KEY, 2, 3, (), dtype).shape == () and draw(KEY, 2, 3, (), dtype) == whole[0]
    assert draw(KEY, 2, 3, (0, 3), dtype).shape == (0, 3)
    assert (bits(KEY, 2, 3, 50) == bits(KEY, 2, 3, 90, offset=0)[:50]).all()
    assert (bits(KEY, 2, 3, 50)[20:] == bits(KEY, 2, 3, 30, offset=20)).all()


def test_draws_are_fixed_for_good():
    """These values are part of the language: a change of them changes what scripts print."""
    assert draw_key(1, ("train_Y", 0)) == KEY == FIXED_KEY
    assert uniform(KEY, 0, 0, 3).tolist() == FIXED_UNIFORM
    assert normal(KEY, 0, 0, 3).tolist() == FIXED_NORMAL
    assert normal(KEY, 0, 0, 3, np.float32).tolist() == FIXED_NORMAL_32
    assert permutation(KEY, 0, 10).tolist() == FIXED_PERMUTATION


def test_keys_are_distinct():
    parts = ["a", "b", "ab", "1", 1, 11, "s1:a", -1, "", "ü"]
    paths = [(), *((p,) for p in parts), *product(parts, parts), *product(parts[:5], repeat=3)]
    keys = {draw_key(seed, path) for seed in (0, 1, -1, 10**30) for path in paths}
    assert len(keys) == 4 * len(paths)
    assert all(0 <= key < 2**64 for key in keys)
    assert draw_key(0, ("1",)) != draw_key(0, (1,))


@pytest.mark.parametrize("change", [{"key": KEY + 1}, {"step": 1}, {"iteration": 1}])
def test_neighbouring_draws_are_independent(change):
    base = {"key": KEY, "step": 0, "iteration": 0, "shape": 100_000}
    x, y = normal(**base), normal(**(base | change))
    assert abs(np.corrcoef(x, y)[0, 1]) < 4 / np.sqrt(100_000)
    assert abs(np.corrcoef(x**2, y**2)[0, 1]) < 4 / np.sqrt(100_000)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_uniform_statistics(dtype):
    x = uniform(KEY, 0, 0, 200_000, dtype)
    assert x.min() >= 0 and x.max() < 1
    assert abs(x.mean(dtype=float) - 0.5) < 4 / np.sqrt(12 * x.size)
    assert abs(x.var(dtype=float) - 1 / 12) < 4 * np.sqrt(1 / 180 / x.size)
    assert stats.kstest(x.astype(float), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 4 / np.sqrt(x.size)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normal_statistics(dtype):
    x = normal(KEY, 0, 0, 400_000, dtype).astype(float)
    assert abs(x.mean()) < 4 / np.sqrt(x.size)
    assert abs(x.var() - 1) < 4 * np.sqrt(2 / x.size)
    assert abs(stats.skew(x)) < 4 * np.sqrt(6 / x.size) and abs(stats.kurtosis(x)) < 4 * np.sqrt(24 / x.size)
    assert stats.kstest(x, "norm").pvalue > 1e-3
    for bound in (2, 3, 4):
        expected = x.size * 2 * stats.norm.sf(bound)
        assert abs((abs(x) > bound).sum() - expected) < 4 * np.sqrt(expected) + 1


def test_float32_draws_are_the_float64_draws_rounded():
    wide, narrow = uniform(KEY, 0, 0, 10_000), uniform(KEY, 0, 0, 10_000, np.float32)
    assert (np.floor(wide * 2**24) / 2**24 == narrow).all()
    difference = np.abs(normal(KEY, 0, 0, 10_000) - normal(KEY, 0, 0, 10_000, np.float32))
    assert difference.max() < 1e-3 and np.median(difference) < 1e-7


def test_normal_is_accurate():
    block = words(KEY, 0, 0, np.arange(50_000, dtype=np.uint64))
    c0, c1, c2, c3 = rows(block).T
    wide = np.longdouble
    pi = wide("3.14159265358979323846264338327950288")
    u = (((c0 << 32 | c1) >> 11) | 1).astype(wide) / wide(2) ** 53
    v = (((c2 << 32 | c3) >> 11) | 1).astype(wide) / wide(2) ** 53
    exact = np.sqrt(-2 * np.log(u)) * np.sin(pi / 2 * v) * np.where(c3 & 1, -1, 1)
    z = normal_from_words(block, np.float64)
    assert np.max(np.abs(z - exact) / np.spacing(np.abs(z))) < 4
    u = (c0 | 1).astype(np.float32).astype(wide) / wide(2) ** 32
    v = (c2 | 1).astype(np.float32).astype(wide) / wide(2) ** 32
    exact = np.sqrt(-2 * np.log(u)) * np.sin(pi / 2 * v) * np.where(c3 & 1, -1, 1)
    z = normal_from_words(block, np.float32)
    assert np.max(np.abs(z - exact) / np.spacing(np.abs(z))) < 4


def test_normal_is_finite_at_the_ends():
    ends = np.array(list(product([0, 1, 2**31 - 1, 2**31, MAX], repeat=4)), np.uint64).T
    for dtype, bound in ((np.float64, 8.5717), (np.float32, 6.6605)):
        z = normal_from_words(Words(ends[::2], ends[1::2]), dtype)
        assert np.isfinite(z).all() and abs(z).max() < bound
        assert (np.signbit(z) == (ends[3] % 2 == 1)).all()


def naive_normal(block, real, integer):
    """The docstring's pseudo-code, one number at a time."""
    c = philox.NORMAL_64 if real is np.float64 else philox.NORMAL_32
    c0, c1, c2, c3 = block
    if real is np.float64:
        u = real(((c0 << 32 | c1) >> 11) | 1) * real(2.0**-53)
        v = real(((c2 << 32 | c3) >> 11) | 1) * real(2.0**-53)
    else:
        u, v = real(c0 | 1) * real(2.0**-32), real(c2 | 1) * real(2.0**-32)

    def polynomial(coefficients, x):
        a = real(coefficients[-1])
        for k in coefficients[-2::-1]:
            a = a * x + real(k)
        return a
    d = int(u.view(integer)) - c.sqrt_half_pattern
    e = d >> c.mantissa_bits
    m = integer(int(u.view(integer)) - (e << c.mantissa_bits)).view(real)
    f = m - real(1)
    s = f / (f + real(2))
    q = s * s
    h = (f * f) * real(0.5)
    r = s * (h + q * polynomial(c.log, q)) + real(e) * real(c.log2_low)
    minus_log = ((h - r) - f) - real(e) * real(c.log2_high)
    z = np.sqrt(minus_log + minus_log) * (v * polynomial(c.sine, v * v))
    return -z if c3 & 1 else z


@pytest.mark.parametrize(("real", "integer"), [(np.float64, np.int64), (np.float32, np.int32)])
def test_normal_is_its_pseudo_code(real, integer):
    z = normal(KEY, 4, 5, 300, real)
    for value, block in zip(z, bits(KEY, 4, 5, 300).tolist(), strict=True):
        assert value.tobytes() == naive_normal(block, real, integer).tobytes()


def test_bernoulli():
    x = bernoulli(KEY, 0, 0, np.full(100_000, 0.3))
    assert x.dtype == bool and abs(x.mean() - 0.3) < 4 * np.sqrt(0.21 / x.size)
    assert not bernoulli(KEY, 0, 0, np.zeros(1000)).any() and bernoulli(KEY, 0, 0, np.ones(1000)).all()
    assert not bernoulli(KEY, 0, 0, np.nan, 100).any()
    assert bernoulli(KEY, 0, 0, 0.5).shape == () and bernoulli(KEY, 0, 0, 0.5, (3, 4)).shape == (3, 4)
    assert (bernoulli(KEY, 0, 0, np.array([0.2, 0.9]), (50, 2)).mean(0) > [0.0, 0.5]).all()
    p = np.full(1000, 0.3, np.float32)
    assert (bernoulli(KEY, 0, 0, p) == (uniform(KEY, 0, 0, 1000, np.float32) < p)).all()
    assert (bernoulli(KEY, 0, 0, 0.3, 1000) == (uniform(KEY, 0, 0, 1000) < 0.3)).all()


def test_categorical():
    p = np.tile([0.1, 0.0, 0.6, 0.3, 0.0], (50_000, 1))
    drawn = categorical(KEY, 0, 0, p)
    counts = np.bincount(drawn, minlength=5)
    assert drawn.dtype == np.int64 and counts[1] == counts[4] == 0
    assert stats.chisquare(counts[[0, 2, 3]], np.array([0.1, 0.6, 0.3]) * 50_000).pvalue > 1e-3
    assert (categorical(KEY, 0, 0, 7 * p) == drawn).mean() > 0.9999       # weights need not sum to 1
    assert (categorical(KEY, 0, 0, p[:10], index=np.arange(90, 100)) == drawn[90:100]).all()
    assert (categorical(KEY, 0, 0, p.astype(np.float32)) == drawn).mean() > 0.999
    assert categorical(KEY, 0, 0, [0.0, 1.0]) == 1
    assert categorical(KEY, 0, 0, [0.0, 0.0]) == 1 and categorical(KEY, 0, 0, [np.nan, 1.0]) == 0
    assert categorical(KEY, 0, 0, np.ones((4, 3, 2))).shape == (4, 3)
    with pytest.raises(ValueError):
        categorical(KEY, 0, 0, np.ones((4, 0)))


def naive_shuffle(i, n, keys):
    """The docstring's pseudo-code."""
    def mix(a, k):
        a = ((a ^ k[0]) * 0x7FEB352D) % 2**32
        a = a ^ (a >> 15)
        a = ((a + k[1]) * 0x846CA68B) % 2**32
        return a ^ (a >> 16)
    if n <= 1:
        return 0
    b = (n - 1).bit_length()
    low, high = (b + 1) // 2, b // 2
    x = i
    while True:
        left, right = x >> low, x % 2**low
        for r in range(shuffle_rounds(n)):
            if r % 2 == 0:
                left ^= mix(right, keys[r]) % 2**high
            else:
                right ^= mix(left, keys[r]) % 2**low
        x = left << low | right
        x ^= mix((x >> 1) % 2**32, keys[shuffle_rounds(n)]) & 1
        if x < n:
            return x


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 16, 17, 101, 1000])
def test_shuffle_is_its_pseudo_code(n):
    keys = shuffle_keys(KEY, 3, n, 1).tolist()
    expected = [naive_shuffle(i, n, keys) for i in range(n)]
    assert len(keys) == shuffle_rounds(n) + 1
    assert permutation(KEY, 3, n, 1).tolist() == expected
    assert shuffle_index(KEY, 3, np.arange(n), n, 1).tolist() == expected
    assert [int(shuffle_index(KEY, 3, i, n, 1)) for i in range(n)] == expected


def test_shuffle_is_a_bijection():
    for n in range(301):
        for epoch in (0, 1):
            order = permutation(KEY, epoch, n)
            assert order.dtype == np.int64 and (np.sort(order) == np.arange(n)).all()
    for n in (4096, 4097, 65_536, 100_003):
        assert (np.sort(permutation(KEY, 0, n)) == np.arange(n)).all()


@pytest.mark.parametrize("n", [2**32 - 1, 2**32, 2**33 + 5, 2**53 + 11, 2**62])
def test_shuffle_of_very_many_rows(n):
    places = np.r_[np.arange(5000), np.arange(n - 5000, n)]
    moved = shuffle_index(KEY, 0, places, n)
    assert moved.min() >= 0 and moved.max() < n and np.unique(moved).size == places.size
    assert shuffle_index(KEY, 0, n - 1, n) == moved[-1] == naive_shuffle(n - 1, n, shuffle_keys(KEY, 0, n).tolist())
    assert stats.kstest(moved / n, "uniform").pvalue > 1e-3
    with pytest.raises(ValueError):
        shuffle_index(KEY, 0, 0, 2**62 + 1)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_orders_are_equally_likely(n):
    number = {order: k for k, order in enumerate(permutations(range(n)))}
    trials = 6_000 if n < 5 else 12_000
    counts = np.zeros(factorial(n))
    for epoch in range(trials):
        counts[number[tuple(permutation(KEY, epoch, n).tolist())]] += 1
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("n", [16, 101, 256])
def test_neighbours_in_a_shuffle_are_independent(n):
    orders = np.array([permutation(KEY, epoch, n) for epoch in range(1500)])
    assert stats.chisquare(np.bincount(orders[:, 0], minlength=n)).pvalue > 1e-3
    assert stats.chisquare(np.bincount(orders[:, -1], minlength=n)).pvalue > 1e-3
    assert abs(np.corrcoef(orders[:, 0], orders[:, 1])[0, 1] + 1 / (n - 1)) < 4 / np.sqrt(1500)
    rises = (np.diff(orders, axis=1) > 0).sum()
    assert abs(rises / (1500 * (n - 1)) - 0.5) < 4 / np.sqrt(12 * 1500 * (n - 1) / 3)


def test_odd_and_even_orders_both_occur():
    """A Feistel network alone gives only even permutations of 16, 32, 64 … places."""
    def sign(order):
        seen, parity = set(), 0
        for start in range(len(order)):
            place = start
            while place not in seen:
                seen.add(place)
                place = order[place]
                parity ^= place != start
        return parity
    odd = sum(sign(permutation(KEY, epoch, 16).tolist()) for epoch in range(1000))
    assert abs(odd - 500) < 4 * np.sqrt(250)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_few_normal_numbers_are_made_as_many_are(dtype):
    whole = normal(KEY, 0, 1, 3000, dtype)
    alone = [normal(KEY, 0, 1, (), dtype, index=i).tobytes() for i in range(3000)]
    assert b"".join(alone) == whole.tobytes()
