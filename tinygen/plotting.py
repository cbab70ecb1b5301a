"""Pictures: panels that know how to draw themselves, set side by side, saved as a PNG or played as a GIF.

    save("samples.png", scatter(data, "data"), scatter(samples, "samples"))
    animate("density.gif", heat_map(exact, extent, "exact"), heat_map(learned, extent, "learned"), captions=times)

A panel function takes arrays and titles and draws nothing yet. `scatter`, `heat_map` and `images` accept a leading axis
more, time, which `animate` plays and of which `save` shows the end. An `extent` is Matplotlib's (left, right, bottom,
top).

Colours are those of Okabe and Ito (2008), which colour-blind people tell apart, each with a dash pattern of its own for
print; maps rise evenly in lightness. Nothing here touches pyplot, opens a window, or leaves a user's settings changed.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from tinygen.errors import InputError
from tinygen.files import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Extent = tuple[float, float, float, float]

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
INK = "#333333"
CLASSES = [BLUE, "#A65F00", GREEN, VERMILION, PURPLE, "#000000", "#3C9BD0", "#8A7A00", "#7B4FA3", "#7F7F7F"]
LINES = [(BLUE, "-"), (VERMILION, "--"), (GREEN, "-."), (PURPLE, ":")]
HEAT, TIME = "magma", "viridis_r"  # colour maps of a density, and of time along a path

STYLE = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "font.size": 9.5,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "figure.constrained_layout.h_pad": 0.12,
    "figure.constrained_layout.w_pad": 0.12,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
PANEL = 3.4  # inches, width and height
MAP = 1.4  # of PANEL: maps made of many digits or images are larger


@dataclass(frozen=True)
class Panel:
    """One plot: `draw` puts it on axes and returns the function that shows frame t of `frames`."""

    draw: Callable[[Axes], Callable[[int], None]]
    frames: int = 1
    width: float = 1.0  # of PANEL
    height: float = 1.0


def scatter(
    points: ArrayLike, title: str = "", extent: Extent | None = None, colour: str = BLUE, size: float | None = None
) -> Panel:
    """Points (n, 2), or a moving cloud (frames, n, 2). Without an extent: the least square about all of them.

    size: the diameter of a dot in points of print; by default the smaller the more there are, and they shine through
    """
    points = _clouds(points, "scatter: points")
    extent = _extent(_square_about(points) if extent is None else extent)
    alpha = 0.4 if size is None else 0.9
    size = float(np.clip(120 / math.sqrt(max(points.shape[1], 1)), 1.5, 5)) if size is None else size

    def draw(ax: Axes) -> Callable[[int], None]:
        _plane(ax, title, extent)
        (dots,) = ax.plot([], [], "o", color=colour, markersize=size, markeredgewidth=0, alpha=alpha)
        return lambda t: dots.set_data(points[t].T)

    return Panel(draw, len(points))


def classes(
    points: ArrayLike,
    labels: ArrayLike,
    title: str = "",
    extent: Extent | None = None,
    xlabel: str = "$z_1$",
    ylabel: str = "$z_2$",
) -> Panel:
    """Points (n, 2) of up to ten classes, each drawn as the digit that its label (n,) is, in a colour of its own.

    So the classes can be told apart without the colours: in print, or by colour-blind people.
    """
    points, labels = _clouds(points, "classes: points")[-1], np.asarray(labels)
    if labels.shape != points.shape[:1] or not np.isin(labels, range(10)).all():
        raise InputError(f"classes: labels must be one digit from 0 to 9 for each of {len(points)} points.")
    extent = _extent(_square_about(points) if extent is None else extent)
    size = float(np.clip(160 / math.sqrt(max(len(points), 1)), 4, 9))

    def draw(ax: Axes) -> Callable[[int], None]:
        _plane(ax, title, extent)
        ax.set(xlabel=xlabel, ylabel=ylabel)
        for label in np.unique(labels):
            dots = points[labels == label].T
            colour = CLASSES[int(label)]
            ax.plot(*dots, marker=f"${label}$", linestyle="", color=colour, markersize=size, markeredgewidth=0)
        return lambda t: None

    return Panel(draw, width=MAP, height=MAP)


def images(
    pictures: ArrayLike,
    title: str = "",
    columns: int | None = None,
    rows: Sequence[str] = (),
    extent: Extent | None = None,
    xlabel: str = "$z_1$",
    ylabel: str = "$z_2$",
) -> Panel:
    """A grid of images (n, H, W), (n, H, W, 1) or (n, H, W, 3) with values from 0 to 1, or frames of it, one axis more.

    Grey images are drawn as ink on paper: 0 is white. A last axis of 1 or 3 is taken for channels.

    columns: images in a row, which are filled from the left and the top; by default about as many as there are rows
    rows:    a label for each row
    extent:  of the plane that the images are a map of; the axes then show it, with their labels. Row 0 of `grid` is at
             the bottom, but the first images are at the top.
    """
    pictures = _pictures(pictures)
    columns = math.ceil(math.sqrt(pictures.shape[1])) if columns is None else columns
    if columns < 1:
        raise InputError(f"images: columns must be at least 1, not {columns}.")
    mosaics = _mosaics(pictures, columns)
    count = math.ceil(pictures.shape[1] / columns)
    if rows and len(rows) != count:
        raise InputError(f"images: {count} rows have {len(rows)} labels; give one for each, or none.")
    left, right, bottom, top = (0.0, float(columns), float(count), 0.0) if extent is None else _extent(extent)
    width = MAP if extent is not None else float(np.clip(columns / 10, 0.8, 2.5))
    height = max((width - 0.07) * mosaics.shape[1] / mosaics.shape[2], 0.1) + (0.16 if title else 0.07)

    def draw(ax: Axes) -> Callable[[int], None]:
        ax.set_title(title)
        image = ax.imshow(mosaics[0], extent=(left, right, bottom, top), interpolation="nearest", aspect="auto")
        ax.set_box_aspect(mosaics.shape[1] / mosaics.shape[2])
        if extent is None:
            ax.set(xticks=[], yticks=np.arange(len(rows)) + 0.5, yticklabels=rows)
            ax.tick_params(length=0)
            ax.spines[:].set_visible(False)
        else:
            ax.set(xlabel=xlabel, ylabel=ylabel)
        return lambda t: image.set(data=mosaics[t])

    return Panel(draw, len(pictures), width, height)


def heat_map(
    density: ArrayLike,
    extent: Extent,
    title: str = "",
    top: ArrayLike | None = None,
    label: str = "",
    colours: str = HEAT,
) -> Panel:
    """Values on a grid (rows, columns), or frames of them, row 0 at the bottom: see `grid` and `histogram`.

    top: the value of the last colour, one for all frames or one for each, by default the greatest of all; panels that
        are to be compared need the same
    label: if not empty, a colour bar with this label
    colours: a Matplotlib colour map; "Greys" is a quiet ground to overlay something on
    """
    density = _array(density, "heat_map: density", "(rows, columns) or (frames, rows, columns)", (2, 3))
    density = density[None] if density.ndim == 2 else density
    extent = _extent(extent)
    if top is None:
        top = np.max(density, initial=0.0, where=np.isfinite(density))
    if np.shape(top) not in [(), (len(density),)] or not np.all(np.asarray(top) >= 0):
        raise InputError(f"heat_map: top must be one number or {len(density)}, none negative, not {top}.")
    if label and np.ndim(top) and np.ptp(top) > 0:
        raise InputError("heat_map: a colour bar has one scale; give one top for all frames, or no label.")
    tops = np.broadcast_to(np.where(np.asarray(top) > 0, top, 1.0), len(density))

    def draw(ax: Axes) -> Callable[[int], None]:
        _plane(ax, title, extent)
        image = ax.imshow(density[0], colours, extent=extent, origin="lower", interpolation="nearest")
        if label:
            ax.figure.colorbar(image, ax=ax, label=label, shrink=0.8)
        return lambda t: image.set(data=density[t], clim=(0, tops[t]))

    return Panel(draw, len(density), width=1.2 if label else 1.0)


def curve(
    values: ArrayLike | Mapping[str, ArrayLike],
    title: str = "",
    x: ArrayLike | None = None,
    xlabel: str = "step",
    ylabel: str = "loss",
    smooth: int = 1,
    log: str = "",
    levels: Mapping[str, float] | None = None,
) -> Panel:
    """One curve (n,), or several by name (four can be told apart), over x (0 .. n - 1 unless given).

    smooth: width of the running mean to draw; the raw values then stand behind it, pale
    log:    the axes that are logarithmic, "x", "y" or "xy"; one with nothing positive on it stays linear
    levels: horizontal lines by name, such as an entropy to be reached
    """
    named = values if isinstance(values, Mapping) else {"": values}
    curves = {name: _array(y, f"curve: values {name}".rstrip(), "(n,)", (1,)) for name, y in named.items()}
    lengths = {len(y) for y in curves.values()} | ({len(x)} if x is not None else set())
    if len(lengths) != 1:
        raise InputError(f"curve: x and all curves must have one length, not {sorted(lengths)}.")
    if log not in ("", "x", "y", "xy"):
        raise InputError(f'curve: log must be "", "x", "y" or "xy", not {log!r}.')
    x = np.arange(lengths.pop()) if x is None else _array(x, "curve: x", "(n,)", (1,))
    shown = {"x": [x], "y": curves.values()}
    log = [axis for axis in log if any(np.any(values > 0) for values in shown[axis])]
    smoothed = {name: running_mean(y, smooth) for name, y in curves.items()}

    def draw(ax: Axes) -> Callable[[int], None]:
        ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
        ax.set_xscale("log" if "x" in log else "linear")
        ax.set_yscale("log" if "y" in log else "linear")
        for i, (name, y) in enumerate(curves.items()):
            colour, dash = LINES[i % len(LINES)]
            if smooth > 1:
                _pale_line(ax, x, y, colour)
            ax.plot(x, smoothed[name], dash, color=colour, linewidth=1.6, label=name)
        for name, level in (levels or {}).items():
            ax.axhline(level, color=INK, linewidth=1, linestyle=(0, (1, 2)), label=name)
        ax.autoscale_view()
        for name in log:
            _plain_log_labels(ax, name)
        if levels or any(curves):
            ax.legend()
        return lambda t: None

    return Panel(draw, width=1.5)


def trajectories(
    paths: ArrayLike, title: str = "", extent: Extent | None = None, start: str = "start", end: str = "end"
) -> Panel:
    """Paths (steps, n, 2) of n points, pale at first and dark later; a ring marks the start and a dot the end.

    Up to a hundred or so can be told apart.
    """
    paths = _clouds(paths, "trajectories: paths")
    if len(paths) < 2:
        raise InputError(f"trajectories: paths must have shape (steps, n, 2), two steps or more, not {paths.shape}.")
    extent = _extent(_square_about(paths) if extent is None else extent)
    pieces = np.stack([paths[:-1], paths[1:]], axis=2).reshape(-1, 2, 2)  # in order of time, so that late lies above
    times = np.repeat(np.linspace(0, 1, len(paths) - 1), paths.shape[1])
    alpha = float(np.clip(math.sqrt(20 / max(paths.shape[1], 1)), 0.2, 0.8))

    def draw(ax: Axes) -> Callable[[int], None]:
        from matplotlib.collections import LineCollection
        from matplotlib.transforms import offset_copy

        _plane(ax, title, extent)
        below = offset_copy(ax.transAxes, ax.figure, 0, -36, units="points")  # clear of the axis label at any size
        ax.add_collection(LineCollection(pieces, array=times, cmap=TIME, linewidths=0.6, alpha=alpha))
        ax.plot(*paths[0].T, "o", markersize=3, markerfacecolor="white", markeredgecolor=INK, label=start, zorder=3)
        ax.plot(*paths[-1].T, "o", markersize=3, markeredgewidth=0, color=VERMILION, label=end, zorder=4)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below, borderaxespad=0, ncols=2)
        return lambda t: None

    return Panel(draw)


def mesh(rows: ArrayLike, columns: ArrayLike, title: str = "", extent: Extent | None = None) -> Panel:
    """A grid that something has bent: lines (lines, points, 2) that were its rows, and those that were its columns, in
    a colour each; or frames of them, one axis more. Many points along a line draw it smooth.
    """
    both = []
    for lines, name in ((rows, "rows"), (columns, "columns")):
        lines = _array(lines, f"mesh: {name}", "(lines, points, 2) or (frames, lines, points, 2)", (3, 4))
        if lines.shape[-1] != 2:
            raise InputError(f"mesh: {name} must be points of the plane, (lines, points, 2), not {lines.shape}.")
        both.append(lines[None] if lines.ndim == 3 else lines)
    if len(both[0]) != len(both[1]):
        raise InputError(f"mesh: there are {len(both[0])} frames of rows and {len(both[1])} of columns.")
    extent = _extent(_square_about(np.concatenate([b.reshape(-1, 2) for b in both])) if extent is None else extent)

    def draw(ax: Axes) -> Callable[[int], None]:
        from matplotlib.collections import LineCollection

        _plane(ax, title, extent)
        drawn = [LineCollection([], colors=colour, linewidths=0.5, alpha=0.8) for colour in (BLUE, VERMILION)]
        for collection in drawn:
            ax.add_collection(collection, autolim=False)

        def show(t: int) -> None:
            for collection, lines in zip(drawn, both, strict=True):
                collection.set_segments(lines[t])

        return show

    return Panel(draw, len(both[0]))


def strands(
    values: ArrayLike,
    title: str = "",
    x: ArrayLike | None = None,
    xlabel: str = "step",
    ylabel: str = "$x_1$",
    colour_at: int = -1,
) -> Panel:
    """One coordinate of many paths against time: values (steps, n) over x (0 .. steps - 1 unless given).

    Each path has one colour all along, by where it is at step `colour_at` (the last): dark is low and light is high.
    """
    values = _array(values, "strands: values", "(steps, n)", (2,))
    x = np.arange(len(values)) if x is None else _array(x, "strands: x", "(steps,)", (1,))
    if len(x) != len(values):
        raise InputError(f"strands: {len(values)} steps have {len(x)} places on the axis; give one for each.")
    lines = np.stack([np.broadcast_to(x[:, None], values.shape), values], axis=-1).swapaxes(0, 1)

    def draw(ax: Axes) -> Callable[[int], None]:
        from matplotlib.collections import LineCollection

        ax.set(title=title, xlabel=xlabel, ylabel=ylabel, xlim=(x[0], x[-1]))
        ax.add_collection(LineCollection(lines, array=values[colour_at], cmap="viridis", linewidths=0.7, alpha=0.7))
        ax.autoscale_view(scalex=False)
        return lambda t: None

    return Panel(draw, width=1.3)


def ellipses(
    means: ArrayLike, covariances: ArrayLike, title: str = "", extent: Extent | None = None, weights: ArrayLike = 1.0
) -> Panel:
    """Gaussians in the plane as the ellipses one and two deviations out: means (K, 2) and covariances (K, 2, 2), or
    frames of them, one axis more.

    weights: (K,), or frames of them: lines are the thicker the more weight a Gaussian has, up to that of 0.15
    """
    means, covariances = np.asarray(means, np.float64), np.asarray(covariances, np.float64)
    if means.ndim not in (2, 3) or means.shape[-1] != 2 or covariances.shape != (*means.shape, 2) or means.size == 0:
        wanted = "(K, 2) and (K, 2, 2), or (frames, K, 2) and (frames, K, 2, 2)"
        raise InputError(f"ellipses: shapes must be {wanted}, not {means.shape} and {covariances.shape}.")
    weights = np.broadcast_to(np.asarray(weights, np.float64), means.shape[:-1])
    means, covariances, weights = (a if means.ndim == 3 else a[None] for a in (means, covariances, weights))
    angles = np.linspace(0, 2 * np.pi, 60)
    circle = np.stack([np.cos(angles), np.sin(angles)])
    rings = means[:, :, None, :, None] + np.linalg.cholesky(covariances)[:, :, None] @ (
        np.array([1.0, 2.0])[:, None, None] * circle
    )  # (frames, K, 2 rings, 2 coordinates, 60 points)
    extent = _extent(_square_about(np.moveaxis(rings, 3, -1)) if extent is None else extent)
    widths = 0.4 + 1.8 * np.sqrt(np.clip(weights / 0.15, 0, 1))

    def draw(ax: Axes) -> Callable[[int], None]:
        _plane(ax, title, extent)
        lines = [ax.plot([], [], color=VERMILION, alpha=alpha)[0] for _ in means[0] for alpha in (0.95, 0.5)]
        (centres,) = ax.plot([], [], "o", color=VERMILION, markersize=3, markeredgewidth=0)

        def show(t: int) -> None:
            centres.set_data(means[t].T)
            for i, line in enumerate(lines):
                line.set_data(rings[t, i // 2, i % 2])
                line.set_linewidth(widths[t, i // 2])

        return show

    return Panel(draw, len(means))


def segments(
    pieces: ArrayLike,
    values: ArrayLike,
    title: str = "",
    extent: Extent | None = None,
    label: str = "",
    colours: str = TIME,
    thickness: float = 1.8,
    xlabel: str = "$x_1$",
    ylabel: str = "$x_2$",
) -> Panel:
    """Straight pieces (n, 2 ends, 2), such as the edges of a graph, in the colours of their values (n,) from 0 up.

    label: if not empty, a colour bar with this label
    """
    pieces, values = _array(pieces, "segments: pieces", "(n, 2, 2)", (3,)), np.asarray(values, np.float64)
    if pieces.shape[1:] != (2, 2) or values.shape != pieces.shape[:1]:
        raise InputError(f"segments: pieces must be (n, 2, 2), values (n,), not {pieces.shape} and {values.shape}.")
    extent = _extent(_square_about(pieces) if extent is None else extent)

    def draw(ax: Axes) -> Callable[[int], None]:
        from matplotlib.collections import LineCollection

        _plane(ax, title, extent)
        lines = LineCollection(pieces, array=values, cmap=colours, linewidths=thickness, capstyle="round")
        ax.set(xlabel=xlabel, ylabel=ylabel)
        lines.set_clim(0, max(float(values.max()), 1e-12))
        ax.add_collection(lines)
        if label:
            ax.figure.colorbar(lines, ax=ax, label=label, shrink=0.8)
        return lambda t: None

    return Panel(draw, width=MAP + 0.2 * bool(label), height=MAP)


def bars(
    heights: ArrayLike, edges: ArrayLike, title: str = "", xlabel: str = "x", ylabel: str = "", colour: str = "#BBBBBB"
) -> Panel:
    """Bars (n,), or frames of them (frames, n), between n + 1 edges: a histogram, or the pile that grows into one.

    The axes reach to the highest bar of all frames.
    """
    heights, edges = _array(heights, "bars: heights", "(n,) or (frames, n)", (1, 2)), np.asarray(edges, np.float64)
    heights = heights[None] if heights.ndim == 1 else heights
    if edges.shape != (heights.shape[1] + 1,) or not np.all(np.diff(edges) > 0):
        raise InputError(f"bars: {heights.shape[1]} bars need one edge more, and rising ones, not {edges.shape}.")
    left, right = edges[:-1], edges[1:]

    def corners(t: int) -> np.ndarray:
        ground, top = np.zeros_like(left), heights[t]
        return np.stack([np.stack([left, left, right, right], 1), np.stack([ground, top, top, ground], 1)], axis=2)

    def draw(ax: Axes) -> Callable[[int], None]:
        from matplotlib.collections import PolyCollection

        ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
        shapes = PolyCollection(corners(0), facecolors=colour, edgecolors="none", zorder=0)
        ax.add_collection(shapes, autolim=False)
        ax.update_datalim([(edges[0], 0), (edges[-1], max(float(heights.max()), 1e-12))])
        shapes.sticky_edges.y.append(0)  # the bars stand on the axis
        ax.autoscale_view()
        return lambda t: shapes.set_verts(corners(t))

    return Panel(draw, len(heights), width=1.5)


def overlay(*panels: Panel) -> Panel:
    """Several panels on the same axes: maps under paths, paths under points. The last one's extent holds, the first
    one's labels of the axes, and the first title that is not empty.
    """
    frames = _frames(panels)

    def draw(ax: Axes) -> Callable[[int], None]:
        titles, labels, shows = [], [], []
        for panel in panels:
            shows.append(panel.draw(ax))
            titles.append(ax.get_title())
            labels.append((ax.get_xlabel(), ax.get_ylabel()))
        ax.set(title=next(filter(None, titles), ""), xlabel=labels[0][0], ylabel=labels[0][1])
        return lambda t: _show(panels, shows, t)

    return Panel(draw, frames, max(panel.width for panel in panels), max(panel.height for panel in panels))


def save(
    path: str | os.PathLike, *panels: Panel, columns: int | None = None, caption: str = "", dpi: int = 150
) -> None:
    """Draws the panels side by side, or in rows of `columns`, as a PNG. Raises OutputError when that cannot be written.
    """
    with _style():
        figure, show = _figure(panels, columns, caption, dpi)
        show(_frames(panels) - 1)
        with atomic(path) as temporary:
            figure.savefig(temporary, format="png")


def animate(
    path: str | os.PathLike,
    *panels: Panel,
    captions: Sequence[str] | None = None,
    fps: float = 15,
    hold: float = 2.0,
    columns: int | None = None,
    dpi: int = 80,
) -> None:
    """Plays the frames of the panels side by side as a GIF that repeats for ever, resting `hold` seconds on the last.

    captions: one line for each frame. All frames share one palette of 64 colours, so that nothing flickers.
    Raises OutputError when the file cannot be written.
    """
    frames = _frames(panels)
    captions = [""] * frames if captions is None else list(captions)
    if len(captions) != frames:
        raise InputError(f"animate: {frames} frames have {len(captions)} captions; give one for each.")
    if not fps > 0:
        raise InputError(f"animate: fps must be positive, not {fps}.")
    with _style():
        figure, show = _figure(panels, columns, max(captions, key=len), dpi)
        images = _shared_palette(_snapshots(figure, show, captions))
    durations = [1000 / fps] * (frames - 1) + [1000 / fps + 1000 * hold]
    with atomic(path) as temporary:
        images[0].save(
            temporary, format="GIF", save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=False
        )


def grid(extent: Extent, cells: int = 64) -> np.ndarray:
    """The centres of cells x cells tiles of the extent, (cells, cells, 2): where to evaluate a density to draw it."""
    left, right, bottom, top = _extent(extent)
    middles = (np.arange(cells) + 0.5) / cells
    return np.stack(np.meshgrid(left + (right - left) * middles, bottom + (top - bottom) * middles), axis=-1)


def histogram(points: ArrayLike, extent: Extent, cells: int = 64) -> np.ndarray:
    """The density of points (n, 2), or of each cloud of (frames, n, 2), on the cells of `grid`: count / (n * area).

    Points outside the extent count in n, so that the values compare with those of the exact density.
    """
    clouds = _clouds(points, "histogram: points")
    left, right, bottom, top = _extent(extent)
    area = (right - left) * (top - bottom) / cells**2
    density = np.empty((len(clouds), cells, cells))
    for t, (x, y) in enumerate(np.moveaxis(clouds, -1, 1)):
        column = np.floor((x - left) / (right - left) * cells)
        row = np.floor((y - bottom) / (top - bottom) * cells)
        inside = (column >= 0) & (column < cells) & (row >= 0) & (row < cells)  # False for NaN too
        cell = (row[inside] * cells + column[inside]).astype(np.int64)
        density[t] = np.bincount(cell, minlength=cells**2).reshape(cells, cells) / (max(len(x), 1) * area)
    return density[0] if np.ndim(points) == 2 else density


def running_mean(values: ArrayLike, width: int) -> np.ndarray:
    """The mean over `width` values about each (over fewer near the ends), leaving out what is not finite."""
    values = np.asarray(values, np.float64)
    if width < 1:
        raise InputError(f"running_mean: the width to smooth over must be at least 1, not {width}.")
    index, finite = np.arange(len(values)), np.isfinite(values)
    first = np.maximum(index - (width - 1) // 2, 0)
    last = np.minimum(index + width // 2 + 1, len(values))
    sums = np.cumsum(np.append(0, np.where(finite, values, 0)))
    counts = np.cumsum(np.append(0, finite))
    with np.errstate(invalid="ignore"):
        return (sums[last] - sums[first]) / (counts[last] - counts[first])


def _figure(
    panels: Sequence[Panel], columns: int | None, caption: str, dpi: int
) -> tuple[Figure, Callable[[int], None]]:
    """A figure with the panels drawn on it, and the function that turns all of them to frame t."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    _frames(panels)
    columns = min(columns or len(panels), len(panels))
    rows = math.ceil(len(panels) / columns)
    widths = [max(panel.width for panel in panels[column::columns]) for column in range(columns)]
    heights = [max(panel.height for panel in panels[columns * row :][:columns]) for row in range(rows)]
    size = (PANEL * sum(widths), PANEL * sum(heights) + (0.35 if caption else 0))
    figure = Figure(size, dpi, layout="constrained")
    FigureCanvasAgg(figure)
    if caption:
        figure.suptitle(caption, fontsize=11)
    cells = figure.add_gridspec(rows, columns, width_ratios=widths, height_ratios=heights)
    shows = [panel.draw(figure.add_subplot(cell)) for panel, cell in zip(panels, cells, strict=False)]

    def show(t: int) -> None:
        _show(panels, shows, t)

    show(0)
    _settle(figure)
    return figure, show


def _settle(figure: Figure) -> None:
    """Lays the panels out, once and for all.

    The solver's last digits differ from call to call; rounded, the same arguments give the same file.
    """
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine("none")
    for ax in figure.axes:
        ax.set_position(np.round(ax.get_position(original=True).bounds, 6))


def _snapshots(figure: Figure, show: Callable[[int], None], captions: Sequence[str]) -> list[np.ndarray]:
    """Each frame as pixels (height, width, 3). Layout, titles and ticks, most of the work, are drawn once."""
    inside = [[*ax.images, *ax.collections, *ax.lines, *filter(None, [ax.get_legend()])] for ax in figure.axes]
    changing = [artist for artists in inside for artist in sorted(artists, key=lambda artist: artist.zorder)]
    changing += figure.texts  # the caption, if there is one
    for artist in changing:
        artist.set_animated(True)  # leaves it out of the drawing below
    figure.canvas.draw()
    ground = figure.canvas.copy_from_bbox(figure.bbox)
    frames = []
    for t, caption in enumerate(captions):
        show(t)
        for text in figure.texts:
            text.set_text(caption)
        figure.canvas.restore_region(ground)
        for artist in changing:
            figure.draw_artist(artist)
        frames.append(np.array(figure.canvas.buffer_rgba())[..., :3])
    return frames


def _shared_palette(frames: list[np.ndarray], colours: int = 64) -> list:
    """Frames as Pillow images that share one palette: greys for paper and text, and a median cut of eight frames."""
    from PIL import Image

    pixels = np.concatenate(frames[:: math.ceil(len(frames) / 8)]).reshape(-1, 3)
    pixels = pixels[(pixels < 248).any(axis=1)]  # an entry near white, but not quite, would tint the paper
    pixels = np.append(pixels, np.zeros((1, 3), np.uint8), axis=0)  # one at least
    greys = np.repeat([255, 204, 153, 102, 51], 3).tolist()
    palette = Image.fromarray(pixels[None]).quantize(colours - 5, Image.Quantize.MEDIANCUT)
    palette.putpalette(greys + palette.getpalette())
    return [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]


def _frames(panels: Sequence[Panel]) -> int:
    counts = {panel.frames for panel in panels} - {1}
    if not panels or len(counts) > 1:
        raise InputError(f"panels must be at least one, and have 1 frame or the same number, not {sorted(counts)}.")
    return counts.pop() if counts else 1


def _show(panels: Sequence[Panel], shows: Sequence[Callable[[int], None]], t: int) -> None:
    for panel, show in zip(panels, shows, strict=True):
        show(min(t, panel.frames - 1))


@contextlib.contextmanager
def _style() -> Iterator[None]:
    """Matplotlib's defaults with ours on top, whatever the user has set; theirs return afterwards."""
    import matplotlib

    defaults = {key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"}
    with matplotlib.rc_context({**defaults, **STYLE}):
        yield


def _plane(ax: Axes, title: str, extent: Extent) -> None:
    ax.set(title=title, xlabel="$x_1$", ylabel="$x_2$", xlim=extent[:2], ylim=extent[2:], aspect="equal")


def _pale_line(ax: Axes, x: np.ndarray, y: np.ndarray, colour: str) -> None:
    """Raw values behind their running mean. The axes stretch to 98 % of them: spikes may leave the picture."""
    from matplotlib.lines import Line2D

    ax.add_artist(Line2D(x, y, color=colour, alpha=0.25, linewidth=0.5))
    finite = np.isfinite(y)
    if finite.any():
        ax.update_datalim(np.column_stack([x[[0, -1]], np.quantile(y[finite], [0.01, 0.99])]))


def _plain_log_labels(ax: Axes, name: str) -> None:
    """Labels a logarithmic axis 0.3, 1, 20 in place of powers of ten, the fewer the more decades it spans."""
    low, high = ax.get_xlim() if name == "x" else ax.get_ylim()
    decades = math.log10(high / low)
    digits = "1" if decades > 2 else "125" if decades > 1 else "1234568"

    def label(value: float, position: int | None = None) -> str:
        return f"{value:g}" if f"{value:e}"[0] in digits else ""

    axis = ax.xaxis if name == "x" else ax.yaxis
    axis.set_major_formatter(label)
    axis.set_minor_formatter(label)


def _pictures(pictures: ArrayLike) -> np.ndarray:
    """(frames, n, H, W, 3) in [0, 1], as they are to be seen."""
    x = np.asarray(pictures, np.float32)
    x = x if x.ndim in (4, 5) and x.shape[-1] in (1, 3) else x[..., None]
    x = x[None] if x.ndim == 4 else x
    if x.ndim != 5 or x.size == 0 or x.shape[-1] not in (1, 3):
        wanted = "(n, H, W), (n, H, W, 1), (n, H, W, 3) or one axis more in front"
        raise InputError(f"images: pictures must have shape {wanted}, none of them 0, not {np.shape(pictures)}.")
    x = np.clip(np.nan_to_num(x, nan=0.5), 0, 1)
    return x if x.shape[-1] == 3 else np.repeat(1 - x, 3, axis=-1)


def _mosaics(pictures: np.ndarray, columns: int, ground: float = 0.86) -> np.ndarray:
    """(frames, height, width, 3): the images of each frame in rows, on a grey ground that shows between them."""
    frames, n, height, width, channels = pictures.shape
    gap, count = math.ceil(max(height, width) / 28), math.ceil(n / columns)
    padded = np.full((frames, count * columns, height + gap, width + gap, channels), ground, np.float32)
    padded[:, n:] = 1  # nothing there: paper
    padded[:, :n, :height, :width] = pictures
    tiles = padded.reshape(frames, count, columns, height + gap, width + gap, channels)
    whole = tiles.swapaxes(2, 3).reshape(frames, count * (height + gap), columns * (width + gap), channels)
    return whole[:, :-gap, :-gap]


def _square_about(points: np.ndarray) -> Extent:
    flat = points.reshape(-1, 2)
    flat = flat[np.isfinite(flat).all(1)]
    if len(flat) == 0:
        return (-1.0, 1.0, -1.0, 1.0)
    low, high = flat.min(0), flat.max(0)
    (x, y), half = (low + high) / 2, 0.53 * max(float(np.max(high - low)), 1e-6)
    return (x - half, x + half, y - half, y + half)


def _extent(extent: Extent) -> Extent:
    left, right, bottom, top = extent
    if not (np.isfinite(extent).all() and left < right and bottom < top):
        raise InputError(f"extent must be finite, left < right and bottom < top, not {extent}.")
    return extent


def _clouds(points: ArrayLike, name: str) -> np.ndarray:
    """(frames, n, 2); a cloud (n, 2) is one frame, and may be empty."""
    points = np.asarray(points, np.float64)
    if points.ndim not in (2, 3) or points.shape[-1] != 2 or (points.ndim == 3 and len(points) == 0):
        raise InputError(f"{name} must have shape (n, 2) or (frames, n, 2), not {points.shape}.")
    return points[None] if points.ndim == 2 else points


def _array(values: ArrayLike, name: str, shape: str, ndims: tuple[int, ...]) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim not in ndims or values.size == 0:
        raise InputError(f"{name} must have shape {shape}, none of them 0, not {values.shape}.")
    return values
