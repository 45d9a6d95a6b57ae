"""Random numbers as expressions: bit for bit those of `dsl/ops/philox.py`, evaluated and compiled."""

import numpy as np
import pytest
from llvm_map import Map

from dsl.machine import philox as machine
from dsl.machine.evaluate import evaluate
from dsl.machine.expr import Apply, const, ref, walk
from dsl.ops import philox

KEY = philox.draw_key(5, ("w", 3))
STEP, ITERATION = 2 ** 32 + 7, 3                         # taken modulo 2^32
INDEX = np.concatenate([np.arange(3000), [2 ** 32 - 1, 2 ** 32, 2 ** 40 + 5, 2 ** 62]]).astype(np.int64)
i, step, iteration, key, n, x = map(ref, ("i", "step", "iteration", "key", "n", "x"))
VALUES = {i: INDEX, step: np.int64(STEP), iteration: np.int64(ITERATION), key: np.array(KEY, np.uint64).view(np.int64)[()]}
BLOCK = philox.words(KEY, STEP, ITERATION, INDEX.view(np.uint64))


@pytest.mark.parametrize("given", [KEY, key], ids=["literal key", "key of the run"])
def test_words(given):
    found = evaluate(machine.words(given, step, iteration, i), VALUES)
    for word, expected in zip(found, (BLOCK.even[0], BLOCK.odd[0], BLOCK.even[1], BLOCK.odd[1]), strict=True):
        assert (np.broadcast_to(word, INDEX.shape) == expected.view(np.int64)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["uniform", "normal"])
def test_numbers(name, dtype):
    """Not only NumPy's reading: what LLVM compiles has the same bits, so nothing was fused."""
    root = getattr(machine, name)(machine.words(KEY, const(STEP, "int64"), ITERATION, i), dtype)
    expected = getattr(philox, f"{name}_from_words")(BLOCK, dtype)
    (found,) = evaluate([root], {i: INDEX})
    assert found.dtype == dtype and (found == expected).all()
    assert (Map(root, [i])(INDEX) == expected).all()
    assert not any(isinstance(e, Apply) and e.op == "fma" for e in walk([root]))


def test_bit_length():
    values = np.array([0, 1, 2, 3, 4, 255, 256, 2 ** 31, 2 ** 40 - 1, 2 ** 62])
    (found,) = evaluate([machine.bit_length(x)], {x: values})
    assert found.tolist() == [int(v).bit_length() for v in values]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16, 17, 100, 1000, 2 ** 40 + 12345, 2 ** 62])
def test_shuffle(count):
    """One turn, and turns until the place is below n, as a `While` does."""
    rounds = philox.shuffle_rounds(count)
    values = {**VALUES, n: np.int64(count)}
    assert evaluate([machine.shuffle_rounds(n)], values) == [rounds]
    assert bool(evaluate([machine.shuffle_is_small(n)], values)[0]) == (rounds == machine.MANY_ROUNDS)
    pairs = [machine.round_key(KEY, step, iteration, const(number, "int64")) for number in range(rounds + 1)]
    halves = evaluate([half for pair in pairs for half in pair], values)
    assert (np.array(halves).reshape(-1, 2).view(np.uint32) == philox.shuffle_keys(KEY, STEP, count, ITERATION)).all()
    keys = [(const(int(a), "int32"), const(int(b), "int32")) for a, b in np.array(halves).reshape(-1, 2)]
    turn = machine.shuffle_turn(x, machine.shuffle_geometry(n), keys)
    start = np.unique(np.array([k * (count - 1) // 199 for k in range(200)]))
    (place,) = evaluate([turn], {x: start, n: values[n]})
    while (place >= count).any():
        place = np.where(place >= count, evaluate([turn], {x: place, n: values[n]})[0], place)
    assert (place == philox.shuffle_index(KEY, STEP, start, count, ITERATION)).all()
