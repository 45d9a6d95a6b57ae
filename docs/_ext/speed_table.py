"""The table of speeds, from what `lr bench` wrote last.

In: `benchmarks/latest.json`.  Out: Markdown, with the machine, the versions and the date.  The README holds the same text between two
comments; `python docs/_ext/speed_table.py` writes it there, and a test holds that it is what this makes."""
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
BEGIN, END = "<!-- speed: made by docs/_ext/speed_table.py from benchmarks/latest.json -->", "<!-- /speed -->"

ROWS = [
    ("tutorial", 10_100, "the script above: 10,100 steps of one sample"),
    ("linreg", 10_000_000, "linear regression, cost and both gradients, 10⁷ float32 rows"),
    ("linreg", 100, "the same, 100 rows"),
    ("logistic", 10_000_000, "logistic regression, likewise, 10⁷ rows"),
    ("chain", 10_000_000, "`tanh(x) * exp(-x*x) + log1p(x*x)`, 10⁷ elements"),
    ("axpb", 1_000_000, "`a*x + x*x`, 10⁶ elements"),
    ("logreg100", 100_000, "logistic regression on 100 features, 10⁵ rows"),
    ("mlp", 2_800, "network 64-64-10, 2,800 steps on batches of 32"),
    ("wide", 20, "network 784-512-10, 20 steps on batches of 256"),
    ("scan-grad", 100_000, "10⁵ steps of a recurrence and their derivative"),
    ("compile", 56, "compiling the network's training loop"),
    ("start", 10_100, "the script above, from the shell to its result"),
]
PEERS = {"c": "C", "jax": "JAX", "torch": "PyTorch", "torch-compile": "torch.compile", "pytensor": "PyTensor", "numpy": "NumPy"}


def table() -> str:
    found = json.loads((ROOT / "benchmarks" / "latest.json").read_text(encoding="utf-8"))
    results = {(r["work"], r["size"], r["column"]): r for r in found["results"]}
    lines = ["| milliseconds | lr | " + " | ".join(PEERS.values()) + " |", "|---|" + "--:|" * (len(PEERS) + 1)]
    for work, size, words in ROWS:
        cells = [figure(results.get((work, size, column))) for column in ("lr", *PEERS)]
        lines.append(f"| {words} | **{cells[0]}** | {' | '.join(cells[1:])} |")
    return "\n".join(lines) + "\n\n" + circumstances(found) + "\n"


def figure(result: dict[str, Any] | None) -> str:
    if result is None or result["status"] != "timed":
        return "–"
    value = float(result["median"])
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{2 if value < 1 else 1}f}" if value >= 0.1 else f"{value:.2g}"


def circumstances(found: dict[str, Any]) -> str:
    machine, versions = found["machine"], found["versions"]
    names = {"jax": "JAX", "torch": "PyTorch", "pytensor": "PyTensor", "numpy": "NumPy", "gcc": "gcc", "llvmlite": "llvmlite"}
    return (f"Medians of {found['rounds']} rounds taken in turn on {found['date'][:10]}: {machine['processor']}, "
            f"{machine['processors']} processors, {machine['memory_gib']:.0f} GiB, {machine['system'].split('-')[0]}, "
            f"Python {machine['python']}; "
            + ", ".join(f"{words} {versions[name]}" for name, words in names.items() if name in versions)
            + ". C is `gcc -O3 -march=native`, on full batches with `-ffast-math` and OpenMP; JAX's loops are written by hand as "
              "`lax.scan`. Training loops of lr are timed with planning and report, as `m.train(…)` from Python.")


def in_readme() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}{END}{after}"


if __name__ == "__main__":
    (ROOT / "README.md").write_text(in_readme(), encoding="utf-8")
    sys.stdout.write(table())
