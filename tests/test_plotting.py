"""The pictures: that they are drawn for what reports hold, and that a row keeps its colour."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from r1ranker import plotting
from r1ranker.plotting import plot_curve, plot_groups, plot_scatter

LONG = "a model whose name is long, with $x$ in it and a_very_long_word_that_has_no_space_to_break_at"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures, as they are saved."""
    figures: list[Any] = []
    save = plotting._save

    def keep(figure: Any, path: Path) -> None:
        figures.append(figure)
        save(figure, path)

    monkeypatch.setattr(plotting, "_save", keep)
    return figures


def assert_image(path: Path) -> None:
    data = path.read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    assert data.startswith(b"\x89PNG")
    assert width > 600
    assert height > 150
    assert len(data) > 5000


@pytest.mark.parametrize("steps", [0, 1, 50])
def test_a_curve_is_drawn_for_any_number_of_steps(steps: int, tmp_path: Path) -> None:
    values = [float(i) for i in range(steps)]
    series = {"total": values, "$format": [float("nan"), *values[1:]][:steps]}
    plot_curve(range(steps), series, tmp_path / "curve.png", "a run")
    assert_image(tmp_path / "curve.png")


def test_groups_have_a_bar_for_each_value_and_whiskers_from_low_to_high(drawn: list[Any], tmp_path: Path) -> None:
    series = {"one": [(0.5, 0.4, 0.7), (0.25, 0.25, 0.25)], "none": [None, None], LONG: [(0.1, 0.1 + 1e-17, 0.1), None]}
    plot_groups(["films", LONG], series, tmp_path / "groups.png", title="a $title$", label="MRR")
    assert_image(tmp_path / "groups.png")
    (axes,) = drawn[0].axes
    bars = [bar for container in axes.containers for bar in getattr(container, "patches", ())]
    assert sorted(bar.get_height() for bar in bars) == [0.1, 0.25, 0.5]
    first = next(bar for bar in bars if bar.get_height() == 0.5)
    assert -0.5 < first.get_x() < first.get_x() + first.get_width() < 0.5
    whiskers = axes.collections[0].get_segments()
    assert [list(segment[:, 1]) for segment in whiskers] == [pytest.approx([0.4, 0.7]), pytest.approx([0.25, 0.25])]


def test_many_bars_stand_in_panels_of_one_scale(drawn: list[Any], tmp_path: Path) -> None:
    groups = [f"set {k}" for k in range(9)]
    series: dict[str, list[tuple[float, float, float] | None]] = {
        f"row {r}": [(0.01 * (9 * r + k), 0.0, 1.0) for k in range(9)] for r in range(10)
    }
    series["first panel alone"] = [(0.9, 0.0, 1.0), *[None] * 8]
    series["last panel alone"] = [*[None] * 8, (0.91, 0.0, 1.0)]
    plot_groups(groups, series, tmp_path / "many.png", title="a title", label="MRR")
    panels = drawn[0].axes
    assert [[text.get_text() for text in axes.get_xticklabels()] for axes in panels] == [
        groups[:3],
        groups[3:6],
        groups[6:],
    ]
    heights = [bar.get_height() for axes in panels for c in axes.containers for bar in getattr(c, "patches", ())]
    assert sorted(heights) == pytest.approx([0.01 * k for k in range(92)])
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in panels}) == 1
    assert len(set(colours(drawn[0]).values())) == 12


def test_more_series_than_colours_are_named_lines(drawn: list[Any], tmp_path: Path) -> None:
    groups = ["films", "music", "games", LONG]
    series: dict[str, list[tuple[float, float, float] | None]] = {
        f"row {k}": [(0.01 * k, 0.0, 0.01 * k + 0.2), None, (0.5, 0.5 + 1e-17, 0.5), (0.1, 0.0, 0.2)] for k in range(25)
    }
    plot_groups(groups, {**series, "none": [None] * 4}, tmp_path / "rows.png", title="a $title$", label="MRR")
    assert_image(tmp_path / "rows.png")
    first, second, *_ = axes = drawn[0].axes
    assert [ax.get_title(loc="left") for ax in axes[:3]] == groups[:3]
    assert [text.get_text() for text in first.get_yticklabels()] == list(series)
    (points,) = (container.lines[0] for container in first.containers)
    assert list(points.get_xdata()) == pytest.approx([0.01 * k for k in range(25)])
    assert list(points.get_ydata()) == list(range(25))
    assert first.get_ylim()[0] > first.get_ylim()[1]  # the first series on top
    assert not len(second.containers[0].lines[0].get_xdata())
    renderer = FigureCanvasAgg(drawn[0]).get_renderer()
    drawn[0].draw(renderer)
    assert all(text.get_window_extent(renderer).x0 >= 0 for text in first.get_yticklabels())


def colours(figure: Any) -> dict[str, Any]:
    return {
        text.get_text(): tuple(handle.get_facecolor()[0] if hasattr(handle, "get_offsets") else handle.get_facecolor())
        for legend in figure.legends
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }


def test_a_row_has_its_colour_in_all_pictures_and_no_other_has_it(drawn: list[Any], tmp_path: Path) -> None:
    names = ["_a name that begins like a private one", *(f"row {k}" for k in range(1, 20))]
    bar = [(0.5, 0.4, 0.6)]
    odd = {name: bar if k % 2 else [None] for k, name in enumerate(names)}
    plot_groups(["a"], dict.fromkeys(names, bar), tmp_path / "a.png", title="", label="")
    plot_groups(["b"], odd, tmp_path / "b.png", title="", label="")
    points = {name: (10.0**k, 0.5) for k, name in enumerate(names)}
    without = {name: None if name == "row 3" else point for name, point in points.items()}
    plot_scatter({"c": without, "d": points}, tmp_path / "c.png", x_label="x", y_label="y")
    whole, some, scatter = map(colours, drawn)
    assert len(set(whole.values())) == len(whole) == 20
    assert some == {name: whole[name] for name in names[1::2]}
    assert scatter == whole


def inside(figure: Any) -> bool:
    """Whether all that is written lies within the picture."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    page = figure.bbox
    # A logarithmic axis also has labels for ticks that are out of sight.
    texts = [t for axes in figure.axes if axes.get_xscale() == "linear" for t in axes.get_xticklabels()]
    boxes = [t.get_window_extent(renderer) for t in [*texts, *figure.legends]]
    return all(b.x0 >= page.x0 - 1 and b.x1 <= page.x1 + 1 and b.y0 >= -1 and b.y1 <= page.y1 + 1 for b in boxes)


@pytest.mark.parametrize("count", [1, 12])
def test_long_names_are_not_cut_off(drawn: list[Any], tmp_path: Path, count: int) -> None:
    names = [f"{k} {LONG}" for k in range(count)]
    bars = {name: [(0.5, 0.4, 0.6)] * 3 for name in names}
    plot_groups(["films", "music", "games"], bars, tmp_path / "a.png", title="MRR", label="MRR")
    points = {name: (10.0 + k, 0.5) for k, name in enumerate(names)}
    plot_scatter({"recommendation, mean of 3": points}, tmp_path / "b.png", x_label="x", y_label="y")
    assert all(map(inside, drawn))
    assert all(axes.get_position().width > 0.25 for figure in drawn for axes in figure.axes)


def test_long_names_of_many_rows_are_not_cut_off_and_their_points_differ(drawn: list[Any], tmp_path: Path) -> None:
    names = [f"{k} {LONG}" for k in range(45)]
    lines = {name: [(0.5, 0.4, 0.6)] for name in names}
    plot_groups(["films"], lines, tmp_path / "a.png", title="MRR", label="MRR")
    points = {name: (10.0 + k, 0.5) for k, name in enumerate(names)}
    plot_scatter({"recommendation": points}, tmp_path / "b.png", x_label="x", y_label="y")
    renderer = FigureCanvasAgg(drawn[0]).get_renderer()
    drawn[0].draw(renderer)
    (axes,) = drawn[0].axes
    boxes = [text.get_window_extent(renderer) for text in axes.get_yticklabels()]
    assert len(boxes) == 45
    assert all(box.x0 >= 0 for box in boxes)
    assert all(upper.y0 >= lower.y1 - 1 for upper, lower in pairwise(boxes))
    assert axes.get_position().width > 0.25
    marks = [(p.get_facecolor().tobytes(), p.get_paths()[0].vertices.tobytes()) for p in drawn[1].axes[0].collections]
    assert len(set(marks)) == 45


def test_nothing_to_draw_is_no_reason_to_fail(tmp_path: Path) -> None:
    plot_groups(["films"], {"one": [None]}, tmp_path / "a.png", title="", label="")
    plot_scatter({"films": {"one": None}}, tmp_path / "b.png", x_label="x", y_label="y")
    assert (tmp_path / "a.png").exists()
    assert (tmp_path / "b.png").exists()
