"""Plots: marks over evaluated arrays become a .png or .svg file, or text on a terminal.

In: marks (`Scatter`, `Line`, `Hist`, `Heatmap`) that hold NumPy arrays and the names they have in the script.  Out: the
same bytes for the same marks and matplotlib, without dates, whatever the user's matplotlib settings.  Matplotlib and
uniplot are imported only here and only when something is drawn.

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
import numpy.typing as npt

from dsl.errors import FileTrouble, LrError, Span, error
from dsl.record import entity
from dsl.runtime.files import unknown_ending, write_atomically

Array = npt.NDArray[Any]
PLOT_ENDINGS = (".png", ".svg")
MOST_BINS = 100


@entity
class Scatter:
    """A point for each x[i], y[i]; both [n].  The names become axis labels, `label` (else `y_name`) the legend."""

    x: npt.ArrayLike
    y: npt.ArrayLike
    label: str = ""
    x_name: str = ""
    y_name: str = ""


@entity
class Line:
    """A line through x[i], y[i] in the order they have; both [n]; a nan breaks it."""

    x: npt.ArrayLike
    y: npt.ArrayLike
    label: str = ""
    x_name: str = ""
    y_name: str = ""


@entity
class Hist:
    """How many of the values fall into each bin; any shape; values that are not finite are left out.

    `bins` of equal width, or by NumPy's "auto" rule, at most 100.
    """

    x: npt.ArrayLike
    bins: int | None = None
    label: str = ""
    x_name: str = ""


@entity
class Heatmap:
    """Colours for z[row, column], row 0 on top."""

    z: npt.ArrayLike
    label: str = ""
    z_name: str = ""


Mark = Scatter | Line | Hist | Heatmap


def draw(marks: Sequence[Mark], title: str | None = None, path: str | os.PathLike[str] | None = None,
         out_dir: str | os.PathLike[str] = ".", stream: IO[str] | None = None, span: Span | None = None) -> Path | None:
    """Draws the marks over each other to `path` (below `out_dir` unless absolute) and returns where it was written.

    Without a path it is drawn as text on `stream` (default: standard output) and None is returned.  Raises `LrError`
    with the codes above.
    """
    drawn = [_checked(mark, span) for mark in marks]
    if not drawn:
        raise error("E0611", "there is nothing to plot", span, help="write `plot scatter(x, y)` or `plot line(x, y)`")
    if path is None:
        _to_terminal(drawn, title, stream, span)
        return None
    target = Path(out_dir) / path
    ending = target.suffix.lower()
    if ending not in PLOT_ENDINGS:
        raise unknown_ending(target, ending, PLOT_ENDINGS, span)
    data = _picture(drawn, title, ending[1:], span)
    write_atomically(target, lambda file: file.write(data), span)
    return target


# ---------------------------------------------------------------- arrays
def _checked(mark: Mark, span: Span | None) -> Mark:
    """The mark with float64 arrays of the right shapes as `_numbers` gives them; E0611 otherwise."""
    match mark:
        case Scatter() | Line():
            kind = type(mark).__name__.lower()
            x, y = _vector(mark.x, f"{kind}'s x", mark.x_name, span), _vector(mark.y, f"{kind}'s y", mark.y_name, span)
            if len(x) != len(y):
                raise error("E0611", f"`{kind}` needs x and y of one length: {mark.x_name or 'x'} has {len(x)}, "
                            f"{mark.y_name or 'y'} has {len(y)}", span,
                            help="evaluate y on the same rows, for example `line(A, Y_bar with X = A)`")
            return type(mark)(x, y, mark.label, mark.x_name, mark.y_name)
        case Hist():
            if mark.bins is not None and mark.bins < 1:
                raise error("E0611", f"`hist` needs at least 1 bin, not {mark.bins}", span)
            values = _numbers(mark.x, "hist's values", mark.x_name, span).ravel()
            return Hist(values[np.isfinite(values)], mark.bins, mark.label, mark.x_name)
        case Heatmap():
            z = _numbers(mark.z, "heatmap's values", mark.z_name, span)
            if z.ndim != 2:
                raise error("E0611", f"`heatmap` needs a matrix: {mark.z_name or 'this'} has {_axes(z)}", span)
            return Heatmap(z, mark.label, mark.z_name)


def _vector(value: npt.ArrayLike, what: str, name: str, span: Span | None) -> Array:
    array = _numbers(value, what, name, span)
    if array.ndim == 0:
        return array.reshape(1)
    if array.ndim > 1 and array.size == max(array.shape):
        return array.ravel()                            # [n, 1] and [1, n] are vectors too
    if array.ndim > 1:
        raise error("E0611", f"{name or what} has {_axes(array)}, and {what} needs one", span,
                    help="pick a column, for example `X[:, 0]`")
    return array


def _numbers(value: npt.ArrayLike, what: str, name: str, span: Span | None) -> Array:
    """As float64, infinities as nan, and within ±1e150: the packages square the length of an axis."""
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise error("E0611", f"{name or what} is text, and only numbers can be drawn", span,
                    help="turn a text column into numbers with `codes(…)`")
    array = array.astype(np.float64)
    array[np.isinf(array)] = np.nan
    limited: Array = np.clip(array, -1e150, 1e150)
    return limited


def _axes(array: Array) -> str:
    return f"{array.ndim} ax{'is' if array.ndim == 1 else 'es'} {list(array.shape)}"


def _bins(mark: Hist) -> tuple[Array, Array]:
    """Counts [k] and edges [k + 1]."""
    values = np.asarray(mark.x)
    if mark.bins is not None:
        return np.histogram(values, mark.bins)
    try:
        count = len(np.histogram_bin_edges(values, "auto")) - 1
    except (ValueError, MemoryError, OverflowError):    # a few values very far from the rest
        count = MOST_BINS
    return np.histogram(values, min(max(count, 1), MOST_BINS))


def _axis_name(names: Sequence[str]) -> str:
    different = list(dict.fromkeys(name for name in names if name))
    return different[0] if len(different) == 1 else ""


def _legend_name(mark: Mark) -> str:
    match mark:
        case Scatter() | Line():
            return mark.label or mark.y_name
        case Hist():
            return mark.label or mark.x_name
        case Heatmap():
            return mark.label or mark.z_name


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
    axes.set_xlabel(_axis_name([mark.x_name or (mark.label if isinstance(mark, Hist) else "") for mark in flat]),
                    parse_math=False)
    axes.set_ylabel(_axis_name(y_names), parse_math=False)
    if title:
        axes.set_title(title, parse_math=False)
    named = [(handle, _legend_name(mark)) for handle, mark in zip(handles, marks, strict=True)
             if handle is not None and _legend_name(mark)]
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
            counts, edges = _bins(mark)
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
                bar.set_label(_legend_name(mark), parse_math=False)
            return None


def _missing(package: str, purpose: str, span: Span | None) -> LrError:
    return error("E0607", f"{purpose} needs the package {package}", span, kind=FileTrouble,
                 help='pip install "lr-lang[plot]"')


# ---------------------------------------------------------------- terminal
def _to_terminal(marks: Sequence[Mark], title: str | None, stream: IO[str] | None, span: Span | None) -> None:
    import sys
    stream = stream or sys.stdout
    curves = [mark for mark in marks if isinstance(mark, Scatter | Line)]
    parts = [_terminal_curves(curves, title, span)] if curves else [title] if title else []
    parts += [_terminal_bars(mark) for mark in marks if isinstance(mark, Hist)]
    parts += [_terminal_shades(mark) for mark in marks if isinstance(mark, Heatmap)]
    text = "\n".join(part.rstrip("\n") for part in parts) + "\n"
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "replace").decode(encoding))


def _terminal_curves(marks: Sequence[Scatter | Line], title: str | None, span: Span | None) -> str:
    try:
        import uniplot
    except ImportError:
        raise _missing("uniplot", "drawing on the terminal", span) from None
    finite = [np.isfinite(np.asarray(mark.x)) & np.isfinite(np.asarray(mark.y)) for mark in marks]
    if not any(keep.any() for keep in finite):
        return f"{title}\n(no points)" if title else "(no points)"
    drawn = [(mark, keep) for mark, keep in zip(marks, finite, strict=True) if keep.any()]
    names = [_legend_name(mark) for mark, _ in drawn]
    options: dict[str, Any] = {"legend_labels": names} if len(names) > 1 and all(names) else {}
    options |= {"title": title} if title else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text: Any = uniplot.plot_to_string(
            [np.asarray(mark.y)[keep] for mark, keep in drawn], [np.asarray(mark.x)[keep] for mark, keep in drawn],
            lines=[isinstance(mark, Line) for mark, _ in drawn], color=False, **options)
    return str(text) if isinstance(text, str) else "\n".join(text)       # older versions gave a list of lines


def _terminal_bars(mark: Hist) -> str:
    counts, edges = _bins(Hist(mark.x, mark.bins or 12))
    if not counts.sum():
        return "(no values)"
    labels = [f"{edge:.4g}" for edge in edges[:-1]]
    width = max(map(len, labels))
    bars = [f"{label:>{width}} │{'█' * round(50 * count / counts.max())} {count}"
            for label, count in zip(labels, counts.tolist(), strict=True)]
    return "\n".join(([_legend_name(mark)] if _legend_name(mark) else []) + bars)


def _terminal_shades(mark: Heatmap) -> str:
    z = np.asarray(mark.z)
    z = z[:: max(1, -(-z.shape[0] // 24)), :: max(1, -(-z.shape[1] // 38))]
    known = z[np.isfinite(z)]
    if not known.size:
        return "(no values)"
    low, high = known.min(), known.max()
    level = np.nan_to_num((z - low) / (high - low if high > low else 1.0) * 4)
    shades = np.array(list(" ░▒▓█"))[np.rint(level).astype(int)]
    lines = ["".join(shade * 2 for shade in row) for row in shades]
    return "\n".join([*lines, f"{_legend_name(mark)} from {low:.4g} (blank) to {high:.4g} (full)".strip()])
