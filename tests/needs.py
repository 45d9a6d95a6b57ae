"""What a test needs that may not be installed: said aloud where it is missing, and a failure in CI."""
from __future__ import annotations

import os

import pytest


def needs(found: object, what: str) -> None:
    if not found:
        assert not os.environ.get("CI"), f"{what} is not installed"
        print(f"\nSKIPPED: {what} is not installed")
        pytest.skip(f"{what} is not installed")
