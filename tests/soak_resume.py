"""A script killed at random moments, again and again, until it has come to its end: `make soak`.

In: how often to kill, and where.  Out: whether the checkpoint could be read after every kill, and whether the last run ended with the
state of one that nobody killed, bit for bit.  Each life runs `lr run --resume`, as a job scheduler does.

The process is killed from outside, at a moment drawn from what a life takes; so it is met in the middle of steps, of writing the
file, of starting, and of ending.  A life that outlived its moment by the end of the script is counted as the end.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from dsl.runtime import saved

SCRIPT = """
seed 7
data A = normal(400, 30)
data y = A @ linspace(-1, 1, 30) + 0.1 * normal(400)
vector a[d]
scalar t
shared w[d] = 0.1 * normal()
shared v = 0.0
cost C = sqr(dropout(a, 0.1) @ w - t)
minimize C wrt w using adam(rate = 1e-3)
update v <- 0.99 * v + normal()
train {first} epochs over a = A, t = y batch 32 shuffle:
  checkpoint "first.safetensors" every 3 steps best
  rate = cosine(1e-2, 1e-4)
  log "first.jsonl"
train {second} steps over a = A, t = y batch 50:
  checkpoint "second.safetensors" every 5 steps
print w[0], v
save "end.safetensors"
"""
"""Few steps between two writes: a kill meets the writing often."""


@dataclass
class Soaked:
    kills: int = 0
    lives: int = 0
    places: int = 0
    """Different numbers of steps that lives began at."""


def run(folder: Path, script: Path, device: str, seconds: float | None) -> tuple[int, str]:
    """One life, killed after so many seconds: its exit code (negative: the signal) and what it printed."""
    command = [sys.executable, "-m", "dsl", "run", str(script), "--resume", "--out", str(folder), "--device", device, "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            out, err = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), err
    return process.returncode, out


def soak(kills: int, folder: Path, device: str = "cpu", first: int = 300, second: int = 2000, seed: int = 0) -> Soaked:
    """Kills a script until it has been killed so often, and lets it end.  Raises AssertionError."""
    rng, done = random.Random(seed), Soaked()
    script = folder / "soak.lr"
    script.write_text(SCRIPT.format(first=first, second=second))
    straight, halting = folder / "straight", folder / "halting"
    straight.mkdir(), halting.mkdir()
    began = time.monotonic()
    code, printed = run(straight, script, device, None)
    whole = time.monotonic() - began
    assert code == 0
    places, shortest = set(), 0.3 * min(whole, 2.0)
    while done.kills < kills:
        code, out = run(halting, script, device, rng.uniform(shortest, min(whole, 2.0)))
        done.lives += 1
        done.kills += code != 0
        for name in ("first", "second"):
            path = halting / f"{name}.safetensors"
            if path.exists():
                about = saved.read(path).about
                assert about is not None
                places.add((name, about["train"]["place"]["steps"]))
        if code == 0:
            ended(straight, halting, printed, out)
            for path in halting.iterdir():       # and again from the beginning
                path.unlink()
    code, out = run(halting, script, device, None)
    if (halting / "end.safetensors").exists() and out:
        ended(straight, halting, printed, out)
    done.places = len(places)
    return done


def ended(straight: Path, halting: Path, printed: str, out: str) -> None:
    """The same state, log and results."""
    for name in ("end", "first", "second"):
        theirs, ours = saved.read(straight / f"{name}.safetensors"), saved.read(halting / f"{name}.safetensors")
        assert {n: a.tobytes() for n, a in theirs.arrays.items()} == {n: a.tobytes() for n, a in ours.arrays.items()}, name
    assert (straight / "first.jsonl").read_bytes() == (halting / "first.jsonl").read_bytes()
    assert out in (printed, ""), out                     # killed after its last checkpoint was marked as complete: nothing is printed
    assert len(list(halting.glob(".*.part"))) <= 3         # of one killed writer, and of files that are not written again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--device", default="cpu", choices=["cpu", "numpy", "cuda"])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done = soak(arguments.kills, Path(folder), arguments.device, seed=arguments.seed)
    print(f"killed {done.kills} times in {done.lives + 1} lives, met at {done.places} places: every file was whole, every end the same")


if __name__ == "__main__":
    main()
