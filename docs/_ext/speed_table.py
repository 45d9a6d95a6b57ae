"""The tables of speeds, from what `lr bench` wrote last on a CPU and `make gpu` on a GPU.

In: `benchmarks/latest.json`, the last `benchmarks/gpu-DATE.json`.  Out: Markdown, with the machine, the versions and the date.  The README
holds the same texts between comments; `python docs/_ext/speed_table.py` writes them there, and a test compares them."""
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
CPU_MARKS = "<!-- speed: made by docs/_ext/speed_table.py from benchmarks/latest.json -->", "<!-- /speed -->"
GPU_MARKS = "<!-- gpu: made by docs/_ext/speed_table.py from the last benchmarks/gpu-DATE.json -->", "<!-- /gpu -->"

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
GPU_ROWS = [
    ("axpb", 10**9, "`a*x + x*x`, 10⁹ elements"),
    ("chain", 10**9, "`tanh(x) * exp(-x*x) + log1p(x*x)`, 10⁹ elements"),
    ("linreg", 10**9, "linear regression, cost and both gradients, 10⁹ rows"),
    ("tutorial", 10_100, "the script above: 10,100 steps of one sample, float64"),
    ("mlp", 2_800, "network 64-64-10, 2,800 steps on batches of 32"),
    ("wide", 10, "network 784-4096-10, 10 steps on batches of 8,192"),
]
GPU_PEERS = {"copy": "copy", "read": "read", "cublas": "cuBLAS alone", "cupy": "CuPy", "jax": "JAX", "torch": "PyTorch",
             "torch-compile": "torch.compile"}
PEERS = {"c": "C", "jax": "JAX", "torch": "PyTorch", "torch-compile": "torch.compile", "pytensor": "PyTensor", "numpy": "NumPy"}


def table() -> str:
    found = json.loads((ROOT / "benchmarks" / "latest.json").read_text(encoding="utf-8"))
    return rows(found, ROWS, PEERS) + "\n\n" + circumstances(found) + "\n"


def gpu_table() -> str:
    last = max((ROOT / "benchmarks").glob("gpu-*.json"))
    found = json.loads(last.read_text(encoding="utf-8"))
    machine, versions = found["machine"], found["machine"]["versions"] | found["bench"]["versions"]
    names = {"cupy": "CuPy", "nvrtc": "NVRTC", "jax": "JAX", "torch": "PyTorch", "numpy": "NumPy"}
    return (rows(found["bench"], GPU_ROWS, GPU_PEERS)
            + f"\n\nMedians of {found['bench']['rounds']} rounds taken in turn on {found['date']}: {machine['gpu']}, "
            + f"driver {machine['driver']}; "
            + ", ".join(f"{words} {versions[name]}" for name, words in names.items() if name in versions)
            + ". float32 unless said. The whole report, with the targets that are missed: "
            + f"[`{last.stem}.md`](benchmarks/{last.stem}.md).\n")


def rows(found: dict[str, Any], wanted: list[tuple[str, int, str]], peers: dict[str, str]) -> str:
    results = {(r["work"], r["size"], r["column"]): r for r in found["results"]}
    lines = ["| milliseconds | lr | " + " | ".join(peers.values()) + " |", "|---|" + "--:|" * (len(peers) + 1)]
    for work, size, words in wanted:
        cells = [figure(results.get((work, size, column))) for column in ("lr", *peers)]
        lines.append(f"| {words} | **{cells[0]}** | {' | '.join(cells[1:])} |")
    return "\n".join(lines)


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
    for (begin, end), made in ((CPU_MARKS, table()), (GPU_MARKS, gpu_table())):
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{made}{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    (ROOT / "README.md").write_text(in_readme(), encoding="utf-8")
    sys.stdout.write(table() + gpu_table())
