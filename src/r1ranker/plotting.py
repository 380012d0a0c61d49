"""The package's plots. Figures are made directly, so that a user's pyplot state is left alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from io import BytesIO
from math import ceil, isfinite, nan
from pathlib import Path
from textwrap import fill
from typing import Any

from r1ranker.errors import MissingExtraError
from r1ranker.files import write_atomic

_PLAIN, _BASE, _MARKED = "#9db4c9", "#59636e", "#d9662b"
_SERIES = ("#d9662b", "#2f6f9f", "#4d9a5b", "#8a5fa8", "#b08a2e", "#59636e")
# Twenty for many series: the strong ones, then light and dark ones.
_MANY = (
    *_SERIES, "#f2a5c4", "#8fd0e8", "#c5d86d", "#f7c873", "#b9a7e0", "#c4c9cf",
    "#7a1f2b", "#0f4c5c", "#1f6b3a", "#e23d6d", "#14b8a6", "#5b3a1e", "#3b5bdb", "#111827",
)  # fmt: skip
_MARKERS = "osD^v"  # the first for as many points as there are colours, and so on
_LABEL = 32  # characters to a line of a label
_BARS = 60  # about so many stand side by side
_COLUMNS = 3  # panels of named lines beside each other


def plot_bars(
    names: Sequence[str],
    values: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    path: str | Path,
    *,
    title: str,
    label: str,
    base: str = "",
    marked: Collection[str] = (),
) -> None:
    """Writes a PNG of horizontal bars (0 to 1), first name on top, with whiskers from low to high.

    base, marked: names drawn in a colour of their own (the row compared with; the trained ones).

    Raises MissingExtraError without matplotlib.
    """
    figure = _figure(8.0, 1.3 + 0.42 * len(names))
    axes = figure.add_subplot()
    places = range(len(names))
    colours = [_MARKED if n in marked else _BASE if n == base else _PLAIN for n in names]
    axes.barh(places, values, height=0.62, color=colours)
    # A mean of exact values can lie a rounding error outside of its interval.
    below = [max(0.0, v - low) for v, (low, _) in zip(values, intervals, strict=True)]
    above = [max(0.0, high - v) for v, (_, high) in zip(values, intervals, strict=True)]
    axes.errorbar(values, places, xerr=(below, above), fmt="none", ecolor="#1f2328", elinewidth=1.1, capsize=3)
    reach = max([high for _, high in intervals] + list(values) + [1e-6])
    for place, value, (_, high) in zip(places, values, intervals, strict=True):
        axes.text(max(value, high) + 0.015 * reach, place, f"{value:.3f}", va="center", fontsize=9, color="#1f2328")
    if base in names:
        axes.axvline(values[names.index(base)], color=_BASE, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    axes.set_yticks(places, [f"{n} (base)" if n == base else n for n in names], parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, reach * 1.12)
    axes.set_xlabel(label)
    axes.tick_params(axis="y", length=0)
    _finish(figure, axes, "x", title, path)


def plot_curve(
    steps: Sequence[float],
    series: Mapping[str, Sequence[float]],
    path: str | Path,
    title: str,
    label: str = "reward",
) -> None:
    """Writes a PNG of values by training step: faint as recorded, and a line smoothed over past steps.

    The smoothing is an exponential moving average, corrected for its start, over about a twentieth of
    the steps. Raises MissingExtraError without matplotlib.
    """
    figure = _figure(8.0, 4.2)
    axes = figure.add_subplot()
    for index, (name, values) in enumerate(series.items()):
        colour = _SERIES[index % len(_SERIES)]
        marker = "o" if len(values) == 1 else ""  # one point makes no line
        axes.plot(steps, values, color=colour, alpha=0.3, linewidth=1.0, marker=marker)
        axes.plot(steps, _smooth(values, span=max(1.0, len(values) / 20)), color=colour, linewidth=2.0, label=name)
    if len(series) > 1:
        axes.legend(frameon=False)
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    axes.margins(x=0.01)
    _finish(figure, axes, "y", title, path)


def plot_groups(
    groups: Sequence[str],
    series: Mapping[str, Sequence[tuple[float, float, float] | None]],
    path: str | Path,
    *,
    title: str,
    label: str,
) -> None:
    """Writes a PNG of bars in groups: for each series one (value, low, high) a group, or None for no bar.

    A series without any bar takes no room, but keeps its colour for itself: in several plots of the same series
    each has the same colour throughout. Many bars stand in panels below each other. More series than there are colours
    become points on named lines, the first on top. Raises MissingExtraError without matplotlib.
    """
    shown = [(k, name, values) for k, (name, values) in enumerate(series.items()) if any(values)]
    if len(series) > len(_MANY):
        _plot_rows(groups, {name: values for _, name, values in shown}, path, title, label)
        return
    legend = [fill(name, _LABEL) for _, name, _ in shown]
    panels = ceil(len(groups) * (len(shown) + 2) / _BARS)
    most = ceil(len(groups) / max(1, panels))  # groups of a panel
    panels = ceil(len(groups) / max(1, most))
    figure = _figure(max(8.0, 4.4 + 0.22 * most * (len(shown) + 2)), max(_height(legend), 3.2 * panels))
    handles: list[Any] = []
    first = None
    for panel in range(panels):
        part = slice(panel * most, (panel + 1) * most)
        axes = figure.add_subplot(panels, 1, panel + 1, sharey=first)
        first = first or axes
        bars = _draw_groups(axes, groups[part], [(colour, values[part]) for colour, _, values in shown])
        # Where a panel has no bar of a series, it has none of its colour for the legend.
        handles = [old if len(old) else new for old, new in zip(handles, bars, strict=True)] if handles else bars
        axes.set_xlim(-0.5, most - 0.5)  # a last panel of fewer groups has bars as wide as the others'
        axes.set_ylabel(label)
        _dress(axes, "y", title if panel == 0 else "")
    _legend(figure, handles, legend)
    _save(figure, path)


def _draw_groups(
    axes: Any, groups: Sequence[str], shown: Sequence[tuple[int, Sequence[tuple[float, float, float] | None]]]
) -> list[Any]:
    """The bars of one panel, a colour and a value a group for each series; returns a handle for each."""
    handles = []
    width = 0.84 / max(1, len(shown))
    for index, (colour, values) in enumerate(shown):
        offset = (index - (len(shown) - 1) / 2) * width
        bars = [(k + offset, *value) for k, value in enumerate(values) if value is not None]
        places, heights = [x for x, *_ in bars], [value for _, value, _, _ in bars]
        below = [max(0.0, value - low) for _, value, low, _ in bars]
        above = [max(0.0, high - value) for _, value, _, high in bars]
        handles.append(axes.bar(places, heights, width=width * 0.92, color=_colour(colour)))
        axes.errorbar(places, heights, yerr=(below, above), fmt="none", ecolor="#1f2328", elinewidth=0.8, capsize=1.5)
    axes.set_xticks(range(len(groups)), [fill(name, _LABEL) for name in groups], parse_math=False)
    axes.tick_params(axis="x", length=0)
    return handles


def _plot_rows(
    groups: Sequence[str],
    shown: Mapping[str, Sequence[tuple[float, float, float] | None]],
    path: str | Path,
    title: str,
    label: str,
) -> None:
    """A panel a group, and in it a named line a series: the value as a point, whiskers from low to high."""
    columns = max(1, min(_COLUMNS, len(groups)))
    lines = ceil(len(groups) / columns)
    names = [fill(name, 2 * _LABEL) for name in shown]
    height = len(names) * (0.2 + 0.14 * max((name.count("\n") for name in names), default=0))
    longest = max((len(line) for name in names for line in name.splitlines()), default=0)
    figure = _figure(max(3.2, 0.6 + 0.085 * longest) + 3.0 * columns, lines * max(2.0, 0.9 + height))
    first = None
    for place, group in enumerate(groups):
        axes = figure.add_subplot(lines, columns, place + 1, sharex=first, sharey=first)
        first = first or axes
        points = [(k, *value) for k, values in enumerate(shown.values()) if (value := values[place]) is not None]
        rows, means = [k for k, *_ in points], [value for _, value, _, _ in points]
        below = [max(0.0, value - low) for _, value, low, _ in points]
        above = [max(0.0, high - value) for _, value, _, high in points]
        axes.errorbar(means, rows, xerr=(below, above), fmt="o", color=_MARKED, markersize=4, ecolor=_PLAIN, capsize=2)
        axes.tick_params(axis="y", length=0, labelleft=place % columns == 0)
        axes.set_xlabel(label)
        _dress(axes, "both", fill(group, _LABEL))
    if first is not None:
        first.set_yticks(range(len(shown)), names, parse_math=False)
        first.set_ylim(len(shown) - 0.5, -0.5)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", parse_math=False)
    _save(figure, path)


def plot_scatter(
    panels: Mapping[str, Mapping[str, tuple[float, float] | None]],
    path: str | Path,
    *,
    x_label: str,
    y_label: str,
) -> None:
    """Writes a PNG with a panel of named points for each title (x above 0, on a logarithmic axis).

    A name has the same colour and marker in all panels if they list the same names; None draws no point. Raises
    MissingExtraError without matplotlib.
    """
    drawn = [name for points in panels.values() for name, point in points.items() if point is not None]
    figure = _figure(3.2 + 3.4 * len(panels), _height([fill(name, _LABEL) for name in dict.fromkeys(drawn)]))
    handles: dict[str, Any] = {}
    for place, (title, points) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), place)
        for index, (name, point) in enumerate(points.items()):
            if point is not None:
                marker = _MARKERS[index // len(_MANY) % len(_MARKERS)]
                drawn_point = axes.scatter(*point, s=55, color=_colour(index), marker=marker, zorder=3)
                handles[fill(name, _LABEL)] = drawn_point
        axes.set_xscale("log")
        axes.set_xlabel(x_label)
        if place == 1:
            axes.set_ylabel(y_label)
        _dress(axes, "both", fill(title, _LABEL))
    _legend(figure, list(handles.values()), list(handles))
    _save(figure, path)


def _height(legend: Sequence[str]) -> float:
    """Inches that the plot needs for its legend, and at least what looks well."""
    return max(4.4, 0.6 + 0.19 * sum(1 + label.count("\n") for label in legend))


def _legend(figure: Any, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Beside the axes, where it hides nothing."""
    legend = figure.legend(handles, labels, frameon=False, fontsize=8.5, loc="outside right center")
    for text in legend.get_texts():
        text.set_parse_math(False)


def _colour(index: int) -> str:
    """A colour for one of up to twenty series; from there on they come again."""
    return _MANY[index % len(_MANY)]


def _smooth(values: Sequence[float], span: float) -> list[float]:
    keep, total, weight, smooth = 1 - 1 / span, 0.0, 0.0, []
    for value in values:
        if isfinite(value):  # a step without a value leaves the line where it was
            total, weight = keep * total + value, keep * weight + 1
        smooth.append(total / weight if weight else nan)
    return smooth


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise MissingExtraError("Plotting", "matplotlib", "eval") from error
    # The pads are the inches around the axes.
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))


def _finish(figure: Any, axes: Any, grid: str, title: str, path: str | Path) -> None:
    """What plots with one pair of axes share."""
    _dress(axes, grid, title)
    _save(figure, path)


def _dress(axes: Any, grid: str, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)


def _save(figure: Any, path: str | Path) -> None:
    """The file appears whole or not at all."""
    image = BytesIO()
    figure.savefig(image, dpi=150, format="png")
    write_atomic(Path(path), image.getvalue())
