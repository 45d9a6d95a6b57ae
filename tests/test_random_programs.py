"""A few hundred random programs against NumPy; `python tests/random_programs.py --count N` checks more."""
from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from random_programs import check, generate


@pytest.mark.parametrize("block", [*range(12)])
def test_programs_mean_what_numpy_says(block):
    for seed in range(25 * block, 25 * (block + 1)):
        program = generate(seed)
        try:
            check(program)
        except Exception as problem:
            raise AssertionError(f"seed {seed}\n{program.source}") from problem


def test_programs_in_float32():
    for seed in range(1000, 1080):
        check(generate(seed), precision="float32", gradients=False)


def test_a_seed_gives_the_same_program():
    assert generate(11).source == generate(11).source != generate(12).source
    assert sum(generate(seed).smooth for seed in range(200)) > 50
