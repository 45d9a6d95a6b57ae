"""The report of a run: a table for the terminal, a JSON object, a plot.

In: cells, the works they are of, and the facts of the run.  Out: text, an object, a figure in a file.
"""
from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dsl.bench.measure import Cell, Options, ratio
from dsl.bench.work import COLUMNS, EVERY_COLUMN, OURS, WORK, Target, Work, columns
from dsl.record import record

Cells = Mapping[tuple[str, int, str], Cell]


@record
class Verdict:
    """A target against what was measured; `value` is None where one of the two sides has no time."""

    work: str
    size: int
    target: Target
    value: float | None

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value >= self.target.factor if self.target.at_least else self.value <= self.target.factor

    def text(self, unit: str) -> str:
        target = self.target
        if target.bandwidth:
            return f"{target.of} at least {target.factor:.0%} of the bandwidth of {target.peer}"
        if target.each:
            return f"{target.of} at most {target.factor:g} us each"
        bound = f"{'at least' if target.at_least else 'at most'} {target.factor:g}"
        match target.peer, target.at_least:
            case None, _:
                return f"{target.of} {bound} {unit}"
            case peer, True:
                return f"{peer} {bound} x {target.of}"
            case peer, _:
                return f"{target.of}{', in the loop,' if target.inside else ''} {bound} x {peer}"

    def found(self) -> str:
        """The value in the target's own words."""
        if self.value is None:
            return ""
        if self.target.bandwidth:
            return f"{self.value:.0%}"
        return figure(self.value) + (" us" if self.target.each else "" if self.target.peer is None else " x")


def by_key(cells: Iterable[Cell]) -> dict[tuple[str, int, str], Cell]:
    return {(c.work, c.size, c.column): c for c in cells}


def unit(work: Work) -> str:
    return "MiB" if work.kind == "memory" else "ms"


def verdicts(cells: Cells, works: Sequence[Work] = WORK) -> list[Verdict]:
    """One for each target of a work and size that was run."""
    found = []
    run = {(work, size) for work, size, _ in cells}
    for work in works:
        for target in work.targets:
            size = target.size or work.headline
            if (work.name, size) not in run:
                continue
            mine = cells.get((work.name, size, target.of))
            peer = cells.get((work.name, size, target.peer)) if target.peer else None
            value = None
            if mine and mine.status == "timed":
                if target.peer is None:
                    value = mine.median * 1e3 / size if target.each else mine.median
                elif peer and peer.status == "timed" and target.inside:
                    value = mine.details["inside"] / peer.median if mine.details and "inside" in mine.details else None
                elif peer and peer.status == "timed":
                    value = ratio(peer, mine) if target.at_least else ratio(mine, peer)
            found.append(Verdict(work.name, size, target, value))
    return found


# ---------------------------------------------------------------- text
def figure(value: float) -> str:
    """Three digits that mean something, without an exponent."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" if value >= 0.001 else f"{value:.2g}" if value == 0 else f"{value:.6f}"


def power(size: int) -> str:
    exponent = len(str(size)) - 1
    return f"10^{exponent}" if size == 10**exponent and size >= 100 else f"{size:,}"


def table(cells: Cells, works: Sequence[Work] = WORK) -> str:
    """A block a work: the headline size column by column, then how the cost grows with size, then the targets."""
    judged = verdicts(cells, works)
    blocks = []
    for work in works:
        sizes = sorted({size for name, size, _ in cells if name == work.name})
        if not sizes:
            continue
        shown = work.headline if work.headline in sizes else sizes[-1]
        lines = [f"{work.name}: {work.title}; {power(shown)} {work.unit}", *columns_of(work, shown, cells)]
        if len(sizes) > 1:
            lines += ["", *growth_of(work, sizes, cells)]
        lines += [f"  {mark(v)} {v.text(unit(work))}{'' if v.size == shown else f' at {power(v.size)} {work.unit}'}"
                  + (f": {v.found()}" if v.value is not None else "")
                  for v in judged if v.work == work.name]
        blocks.append("\n".join(lines))
    met, all_of = sum(v.met is True for v in judged), len(judged)
    unknown = sum(v.met is None for v in judged)
    closing = [f"{met} of {all_of} targets met" + (f", {unknown} not judged: a side has no time" if unknown else "")] if judged else []
    return "\n\n".join([*blocks, *closing]) + "\n"


def mark(verdict: Verdict) -> str:
    return {True: "met   ", False: "MISSED", None: "open  "}[verdict.met]


def columns_of(work: Work, size: int, cells: Cells) -> list[str]:
    """median [quartiles], and how many times ours."""
    mine = cells.get((work.name, size, OURS))
    lines = []
    for column in EVERY_COLUMN:
        cell = cells.get((work.name, size, column))
        if cell is None or (cell.status == "absent" and cell.note == "no form of this work"):
            continue
        if cell.status != "timed":
            lines.append(f"  {column:<14}{cell.note if cell.status != 'mismatch' else 'WRONG: ' + cell.note}")
            continue
        low, high = cell.quartiles
        times = f"{figure(ratio(cell, mine)):>9} x {OURS}" if mine and mine.status == "timed" and cell is not mine \
            and mine.median > 0 else ""
        inside = (cell.details or {}).get("inside")
        rate = f"{rate_of(work, cell):>9,.0f} GB/s" if work.is_moving else ""
        spread = f"[{figure(low)}, {figure(high)}]"
        lines.append((f"  {column:<14}{figure(cell.median):>10} {unit(work)}  {spread:<20}{rate}{times}"
                      + (f"  ({figure(inside)} ms of it in the loop)" if inside is not None else "")).rstrip())
    return lines


def rate_of(work: Work, cell: Cell) -> float:
    """The bytes that have to move by the time it took, in 10^9 a second."""
    return work.row_bytes * cell.size / max(cell.median, 1e-9) / 1e6


def growth_of(work: Work, sizes: Sequence[int], cells: Cells) -> list[str]:
    """Medians by size, a line a column."""
    lines = [f"  {unit(work) + ' by ' + work.unit:<16}" + "".join(f"{power(s):>11}" for s in sizes)]
    for column in EVERY_COLUMN:
        row = [cells.get((work.name, size, column)) for size in sizes]
        if any(c is not None and c.status == "timed" for c in row):
            lines.append(f"  {column:<16}" + "".join(f"{figure(c.median) if c and c.status == 'timed' else '-':>11}" for c in row))
    return lines


# ---------------------------------------------------------------- JSON
def machine(options: Options) -> dict[str, Any]:
    """The machine in words; no names of it or of its users."""
    return {"processor": processor(), "architecture": platform.machine(), "processors": os.cpu_count(), "threads": options.threads,
            "memory_gib": memory_gib(), "system": f"{platform.system()} {platform.release().split('-')[0]}",
            "python": platform.python_version()}


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None


def as_json(cells: Cells, options: Options, versions: Mapping[str, str], command: str, load: float | None = None,
            works: Sequence[Work] = WORK) -> dict[str, Any]:
    """Everything that was measured, so that a later run can be set beside it; `load` is what the machine had to do before."""
    by_name = {work.name: work for work in works}

    def entry(cell: Cell) -> dict[str, Any]:
        head = {"work": cell.work, "size": cell.size, "unit": unit(by_name[cell.work]), "column": cell.column, "status": cell.status}
        if cell.status != "timed":
            return {**head, "note": cell.note}
        mine = cells.get((cell.work, cell.size, OURS))
        low, high = cell.quartiles
        times = {"times_ours": rounded(ratio(cell, mine))} if mine and mine.status == "timed" and mine.median > 0 else {}
        return {**head, "median": rounded(cell.median), "best": rounded(min(cell.samples)),
                "quartiles": [rounded(low), rounded(high)], **times,
                "round_medians": [rounded(Cell("", 0, "", "timed", "", (r,)).median) for r in cell.rounds],
                "samples": len(cell.samples), **rates(cell), **{k: rounded(v) for k, v in (cell.details or {}).items()}}

    def rates(cell: Cell) -> dict[str, float]:
        work = by_name[cell.work]
        return {"gb_per_s": rounded(rate_of(work, cell))} if work.is_moving else {}
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "command": command, "device": options.device,
        "machine": machine(options), "load_before": load, "versions": dict(sorted(versions.items())), "rounds": options.rounds,
        "columns": {c: what for c, what in columns(options.device).items() if c in options.columns},
        "work": {w.name: w.title for w in works if any(name == w.name for name, _, _ in cells)},
        "targets": [{"work": v.work, "size": v.size, "target": v.text(unit(by_name[v.work])),
                     "value": None if v.value is None else rounded(v.value), "met": v.met} for v in verdicts(cells, works)],
        "results": [entry(c) for c in cells.values()],
    }  # fmt: skip


def rounded(value: float) -> float:
    return float(f"{value:.5g}")


# ---------------------------------------------------------------- plot
def system(column: str) -> str:
    return column.partition("-")[0]


def plot(cells: Cells, path: Path) -> bool:
    """Cost against size, a panel a work that was run at several sizes.  False, and no file, where there is none."""
    works = [w for w in WORK if w.kind == "time"
             and len({size for name, size, _ in cells if name == w.name and cells[name, size, _].status == "timed"}) > 1]
    if not works:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    across = min(3, len(works))
    down = -(-len(works) // across)
    drawing = Figure(figsize=(5.2 * across, 3.8 * down), layout="constrained")
    FigureCanvasAgg(drawing)
    systems = list(dict.fromkeys(system(c) for c in COLUMNS if system(c) != OURS))
    for place, work in enumerate(works, 1):
        axes = drawing.add_subplot(down, across, place)
        for column in COLUMNS:
            points = sorted((size, c.median, *c.quartiles) for (name, size, col), c in cells.items()
                            if name == work.name and col == column and c.status == "timed")
            if not points:
                continue
            sizes, medians, low, high = zip(*points, strict=True)
            spread = [[m - lo for m, lo in zip(medians, low, strict=True)], [hi - m for m, hi in zip(medians, high, strict=True)]]
            ours = system(column) == OURS
            style: dict[str, Any] = {"color": "black" if ours else f"C{systems.index(system(column)) % 10}",
                                     "linewidth": 2.2 if ours else 1.1, "linestyle": "--" if system(column) != column else "-"}
            axes.errorbar(sizes, medians, yerr=spread, marker="o", markersize=3, label=column, **style)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(work.title, fontsize=8)
        axes.set_xlabel(work.unit)
        axes.set_ylabel("ms")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=6)
    drawing.savefig(path, dpi=130)
    return True
