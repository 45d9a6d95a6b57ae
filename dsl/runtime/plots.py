"""Plots: marks over evaluated arrays become a .png or .svg file, or text on a terminal.

In: marks (`Scatter`, `Line`, `Hist`, `Heatmap`) that hold NumPy arrays and the names they have in the script.  Out: the
same bytes for the same marks and matplotlib, without dates, whatever the user's matplotlib settings.  Matplotlib is
imported only here and only when a file is drawn; a terminal needs no package (`terminal_plots.py`).

    E0607  a package that is not installed       E0608  an ending other than .png and .svg
    E0609  cannot be written                     E0611  arrays that cannot be drawn, such as x and y of two lengths
"""
from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from dsl.errors import FileTrouble, LrError, Span, error, visible
from dsl.runtime.files import unknown_ending, write_atomically
from dsl.runtime.marks import Heatmap, Hist, Line, Mark, Scatter, axis_name, bins, checked, legend_name
from dsl.runtime.terminal import Terminal, terminal_of

__all__ = ["Heatmap", "Hist", "Line", "Mark", "Scatter", "draw"]
PLOT_ENDINGS = (".png", ".svg")


def draw(marks: Sequence[Mark], title: str | None = None, path: str | os.PathLike[str] | None = None,
         out_dir: str | os.PathLike[str] = ".", stream: IO[str] | None = None, span: Span | None = None,
         terminal: Terminal | None = None) -> Path | None:
    """Draws the marks over each other to `path` (below `out_dir` unless absolute) and returns where it was written.

    Without a path it is drawn as text on `stream` (default: standard output), as `terminal` can show it (default: what is known of
    the stream), and None is returned.  Raises `LrError` with the codes above.
    """
    drawn = [checked(mark, span) for mark in marks]
    if not drawn:
        raise error("E0611", "there is nothing to plot", span, help="write `plot scatter(x, y)` or `plot line(x, y)`")
    if path is None:
        import sys

        from dsl.runtime.terminal_plots import plotted
        stream = stream or sys.stdout
        text = "\n".join(plotted(drawn, visible(title or ""), terminal or terminal_of(stream))) + "\n"
        encoding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(text.encode(encoding, "replace").decode(encoding))
        return None
    target = Path(out_dir) / path
    ending = target.suffix.lower()
    if ending not in PLOT_ENDINGS:
        raise unknown_ending(target, ending, PLOT_ENDINGS, span)
    data = _picture(drawn, title, ending[1:], span)
    write_atomically(target, lambda file: file.write(data), span)
    return target


def picture(marks: Sequence[Mark], title: str | None = None, kind: str = "png", span: Span | None = None) -> bytes:
    """The marks over each other as a .png or .svg: its bytes.  Raises `LrError`."""
    return _picture([checked(mark, span) for mark in marks], title, kind, span)


# ---------------------------------------------------------------- pictures
_BLUE, _ORANGE, _GREEN, _RED, _VIOLET, _BROWN = "#3b6fb6", "#e0792b", "#3d9a5f", "#c6413f", "#8062b0", "#8a6a52"
_COLORS = (_BLUE, _ORANGE, _GREEN, _RED, _VIOLET, _BROWN)
_INK, _PALE = "#33383f", "#e7e9ed"
_STYLE: dict[str, Any] = {
    "figure.figsize": (6.4, 4.2), "figure.dpi": 150, "savefig.dpi": 150, "figure.facecolor": "white",
    "font.family": "DejaVu Sans", "font.size": 9.5, "text.color": _INK,
    "axes.titlesize": 11.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 10.0,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#9aa1ab", "axes.linewidth": 0.8,
    "axes.labelcolor": _INK, "axes.labelsize": 10, "axes.labelpad": 5.0, "axes.grid": True, "axes.axisbelow": True,
    "axes.xmargin": 0.03, "axes.ymargin": 0.05, "axes.unicode_minus": True, "grid.color": _PALE, "grid.linewidth": 0.8,
    "xtick.color": "#9aa1ab", "ytick.color": "#9aa1ab", "xtick.labelcolor": _INK, "ytick.labelcolor": _INK,
    "xtick.major.size": 3, "ytick.major.size": 3, "lines.linewidth": 2.0, "lines.solid_capstyle": "round",
    "legend.frameon": True, "legend.framealpha": 0.9, "legend.edgecolor": "none", "legend.fancybox": False,
    "figure.constrained_layout.h_pad": 0.12, "figure.constrained_layout.w_pad": 0.12, "svg.hashsalt": "lr",
    "svg.fonttype": "path", "agg.path.chunksize": 10000,
}


def _picture(marks: Sequence[Mark], title: str | None, kind: str, span: Span | None) -> bytes:
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise _missing("matplotlib", "drawing to a file", span) from None
    buffer = io.BytesIO()
    metadata = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")                 # glyphs that the font lacks, axes of a single point
        matplotlib.rcdefaults()
        settings: Any = matplotlib.rcParams
        settings.update(_STYLE)
        figure = Figure(layout="constrained")
        _draw_axes(figure, figure.add_subplot(), marks, title)
        figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()


def _draw_axes(figure: Any, axes: Any, marks: Sequence[Mark], title: str | None) -> None:
    handles = [_draw_mark(figure, axes, mark, _COLORS[place % len(_COLORS)], len(marks))
               for place, mark in enumerate(marks)]
    flat = [mark for mark in marks if not isinstance(mark, Heatmap)]
    y_names = [mark.y_name for mark in flat if isinstance(mark, Scatter | Line)]
    if any(isinstance(mark, Hist) for mark in marks):
        y_names.append("count")
    axes.set_xlabel(axis_name([mark.x_name or (mark.label if isinstance(mark, Hist) else "") for mark in flat]),
                    parse_math=False)
    axes.set_ylabel(axis_name(y_names), parse_math=False)
    if title:
        axes.set_title(title, parse_math=False)
    named = [(handle, legend_name(mark)) for handle, mark in zip(handles, marks, strict=True)
             if handle is not None and legend_name(mark)]
    if len(named) > 1:
        points = sum(np.size(mark.x) for mark in flat)
        legend = axes.legend(*zip(*named, strict=True), loc="best" if points <= 5000 else "upper right")
        for text in legend.get_texts():
            text.set_parse_math(False)


def _draw_mark(figure: Any, axes: Any, mark: Mark, color: str, total: int) -> Any:
    """Draws one mark; returns what stands for it in a legend."""
    match mark:
        case Scatter(x=x, y=y):
            count = np.size(x)
            size, alpha = (20, 0.75) if count <= 500 else (9, 0.5) if count <= 5000 else (3, 0.35)
            return axes.scatter(x, y, s=size, color=color, alpha=alpha, linewidths=0, rasterized=count > 10_000)
        case Line(x=x, y=y):
            lone = np.size(x) == 1                      # a line through one point is nothing to see
            return axes.plot(x, y, color=color, marker="o" if lone else None, rasterized=np.size(x) > 100_000)[0]
        case Hist():
            counts, edges = bins(mark)
            if not counts.sum():
                return None
            axes.grid(False, axis="x")
            return axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=color, edgecolor="white",
                            linewidth=0.6 if len(counts) <= 60 else 0, alpha=0.9 if total == 1 else 0.6)
        case Heatmap(z=z):
            rows, columns = np.shape(z)
            axes.grid(False)
            for spine in axes.spines.values():
                spine.set_visible(False)
            if rows and columns:
                near_square = 0.4 <= rows / columns <= 2.5
                image = axes.imshow(z, cmap="viridis", interpolation="nearest",
                                    aspect="equal" if near_square else "auto")
                for axis in (axes.xaxis, axes.yaxis):
                    axis.get_major_locator().set_params(integer=True)
                bar = figure.colorbar(image, cax=axes.inset_axes((1.025, 0, 0.035, 1)))
                bar.outline.set_visible(False)
                bar.set_label(legend_name(mark), parse_math=False)
            return None


def _missing(package: str, purpose: str, span: Span | None) -> LrError:
    return error("E0607", f"{purpose} needs the package {package}", span, kind=FileTrouble,
                 help='pip install "lr-lang[plot]"')


