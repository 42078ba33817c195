"""Axes, curves, bars and dots as numbers, without looking."""

import itertools
import math
import re

import pytest

from instruct.report import charts
from instruct.report.blocks import Bar, Bars, Chart, Charts, DotRow, Dots, Mark, Series
from tests.report.pages.test_rendering import html_of


def drawn(content) -> str:
    return html_of(Charts((content,)) if isinstance(content, Chart) else content)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.3, 9.2, [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]),
        (1, 2000, [0.0, 500.0, 1000.0, 1500.0, 2000.0]),
        (-3, 4, [-4.0, -2.0, 0.0, 2.0, 4.0]),
        (5, 5, [4.5, 5.0, 5.5]),
        (0.0011, 0.0014, [0.0011, 0.0012, 0.0013, 0.0014]),
    ],
)
def test_ticks_are_round_and_span_the_range(low, high, expected):
    found = charts.ticks(low, high)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "step", "text"),
    [
        (0.5, 0.5, "0.5"),
        (2, 1, "2"),
        (20000, 10000, "20k"),
        (3e6, 1e6, "3M"),
        (2e-5, 1e-5, "2e-05"),
    ],
)
def test_tick_labels(value, step, text):
    assert charts.tick_label(value, step) == text


def points_of(svg):
    return [
        tuple(map(float, pair.split(",")))
        for line in re.findall(r'points="([^"]*)"', svg)
        for pair in line.split()
    ]


def test_a_curve_falls_from_left_to_right():
    series = Series("a", ((0, 4.0), (50, 2.0), (100, 1.0)))
    points = points_of(drawn(Chart("Loss", (series,))))
    assert points[0][0] == charts.STEPS.left and points[-1][0] == charts.STEPS.right
    assert [y for _, y in points] == sorted(y for _, y in points)


def test_a_gap_breaks_the_curve_and_is_marked():
    values = ((0, 1.0), (1, 2.0), (2, math.nan), (3, 1.0), (4, 2.0))
    svg = drawn(Chart("Loss", (Series("a", values, color=9),)))
    assert svg.count("<polyline") == 2
    assert svg.count('class="gap"') == 1
    assert 'class="curve s1"' in svg


def test_charts_of_nothing_and_of_one_point():
    nothing = drawn(Chart("Loss", (Series("a", ((1, math.nan),)),)))
    assert "No finite value" in nothing
    one = drawn(Chart("Rate", (Series("a", ((7, 0.001),)),)))
    assert "<circle" in one and "nan" not in one


def test_titles_are_escaped():
    svg = drawn(Chart('<b>"', (Series("<i>", ((0, 1.0), (1, 2.0))),)))
    assert "<b>" not in svg and "<i>" not in svg


def test_dots_stand_in_proportion():
    row = DotRow("a", (Mark(50.0, 5.0), Mark(math.nan)), baseline=25.0)
    svg = drawn(Dots("T", (row, DotRow("b", (Mark(81.0),))), ()))
    assert 'cx="50.00%"' in svg and 'x1="45.00%" x2="55.00%"' in svg
    assert 'class="baseline" x1="25.00%"' in svg
    assert svg.count("<circle") == 2  # not the mark that is not a number


def test_the_axis_covers_all_marks():
    assert charts.dot_range([]) == (0.0, 100.0)
    assert charts.dot_range([DotRow("a", (Mark(81.0, 2.0),))]) == (0.0, 100.0)
    assert charts.dot_range([DotRow("a", (Mark(11.0, 2.0),), baseline=3.0)]) == (0.0, 15.0)
    low, high = charts.dot_range([DotRow("a", (Mark(-7.5),))])
    assert low <= -7.5 and high >= 0.0


@pytest.mark.parametrize(
    ("low", "high", "numbers"),
    [
        (-100, 50, ["-100", "0", "50"]),
        (-40, 100, ["-40", "0", "100"]),
        (-5, 100, ["0", "100"]),  # -5 would touch the 0
        (0, 100, ["0", "50", "100"]),
        (-20, 0, ["-20", "-10", "0"]),
        (-1, 1, ["-1", "0", "1"]),
    ],
)
def test_the_scale_of_changes_always_has_its_zero(low, high, numbers):
    labels = charts.scale_labels(low, high)
    assert [text for _, text, _ in labels] == numbers
    (zero,) = (x for x, text, _ in labels if text == "0")
    assert zero == pytest.approx(-100 * low / (high - low))


def test_a_mark_without_error_claims_none():
    row = DotRow("t", (Mark(0.0, 0.0, 0), Mark(-0.04, None, 1)), 0.0)
    svg = drawn(Dots("T", (row,), ()))
    assert "±" not in svg and svg.count("<title>0.0</title>") == 3


def test_log_ticks_lie_inside():
    assert charts.log_ticks(6e7, 6e11) == [1e8, 1e9, 1e10, 1e11]
    assert charts.log_ticks(9, 9) == [9]
    assert charts.log_ticks(50, 900) == [100, 300]
    assert charts.log_ticks(20, 25) == [20]


def dot_positions(svg):
    return [
        (float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg)
    ]


def test_equal_factors_are_equal_distances():
    series = Series("a", ((1e6, 10.0), (1e7, 20.0), (1e8, 30.0)))
    (first, second, third) = dot_positions(drawn(Chart("T", (series,), sizes="Parameters")))
    assert second[0] - first[0] == pytest.approx(third[0] - second[0], abs=0.11)
    assert first[1] > second[1] > third[1]


def test_none_has_a_place_left_of_the_smallest():
    series = Series("a", ((0, 10.0), (9, 20.0), (1836, 30.0)), dashed=True, tag="8B")
    svg = drawn(Chart("T", (series,), sizes="Tasks"))
    none, nine, most = dot_positions(svg)
    assert charts.SIZES.left < none[0] < nine[0] < most[0] < charts.WIDTH - 40
    assert ">0</text>" in svg and 'class="curve s0 dashed hollow"' in svg and ">8B</text>" in svg


def test_errors_are_drawn_and_span_the_axis():
    series = Series("a", ((10, 50.0), (100, 60.0)), errors=(20.0, None))
    svg = drawn(Chart("T", (series,), sizes="Tasks"))
    (ends,) = re.findall(r'class="error"[^>]*y1="([\d.]+)" y2="([\d.]+)"', svg)
    (_, middle), _ = dot_positions(svg)
    top, bottom = map(float, ends)
    assert top < middle < bottom and middle - top == pytest.approx(bottom - middle, abs=0.11)
    assert top >= charts.SIZES.top and bottom <= charts.SIZES.base


def test_tags_at_the_same_height_are_moved_apart():
    made = tuple(Series(n, ((1, 0.0), (10, 5.0)), tag=n) for n in ("a", "b", "c"))
    svg = drawn(Chart("T", (*made, Series("top", ((1, 90.0),))), sizes="x"))
    heights = [float(y) for y in re.findall(r'class="tag[^>]* y="([\d.]+)"', svg)]
    assert len(heights) == 3
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 10.9
    assert max(heights) <= charts.SIZES.base + 4


def test_a_chart_of_nothing_of_one_point_and_of_hostile_names():
    nothing = drawn(Chart("T", (Series("a", ((1, math.nan),)),), sizes="x"))
    assert "No finite value" in nothing
    one = drawn(Chart("<b>", (Series("<i>", ((7, 1.0),), tag="<u>"),), sizes="<x>"))
    assert "<circle" in one and "nan" not in one
    assert not re.search(r"<(b|i|u|x)>", one)


def test_bars_grow_from_zero_and_carry_their_interval():
    bars = (Bar("a", -10.0, -15.0, -5.0, 1), Bar("b", 20.0), Bar("c", 1.0, printed=True))
    assert charts.bar_range(bars) == (-20.0, 20.0)
    svg = drawn(Bars("T", (("", bars),)))
    assert 'x="25.00%" width="25.00%"' in svg
    assert 'class="whisker" x1="12.50%" x2="37.50%"' in svg and 'class="bar s1"' in svg
    assert "-10.0, from -15.0 to -5.0" in svg
    assert 'x="50.00%" width="50.00%"' in svg and 'class="bar s0 hollow"' in svg
    assert re.findall(r">(-?[\d.]+)</text>", svg) == ["-20", "0", "20"]


def test_bars_of_nothing():
    assert charts.bar_range([Bar("a", 0.0)]) == (-1.0, 1.0)
    assert "<rect" not in drawn(Bars("T", (("", (Bar("a", math.nan),)),)))


def test_points_have_their_labels_and_those_that_would_touch_are_left_out():
    series = Series("a", ((1, 10.0), (60, 20.0), (64, 20.0)))
    ticks = ((1, "1"), (60, "sixty"), (64, "64"))
    svg = drawn(Chart("T", (series,), sizes="tasks", ticks=ticks))
    assert ">1</text>" in svg and ">64</text>" in svg and "sixty" not in svg


def test_a_linear_axis_has_equal_distances_and_may_start_below_zero():
    series = Series("a", ((-0.5, 10.0), (0, 20.0), (1, 30.0)))
    first, second, third = dot_positions(drawn(Chart("T", (series,), sizes="x", linear=True)))
    assert third[0] - second[0] == pytest.approx(2 * (second[0] - first[0]), abs=0.3)


def test_intervals_of_curves_stand_side_by_side_and_levels_in_the_legend():
    curves = [
        Series(name, ((1, 50.0), (9, 60.0)), color, intervals=((45.0, 58.0), None))
        for color, name in enumerate(("a", "b"))
    ]
    chart = Chart("T", tuple(curves), sizes="tasks", levels=(("majority answer", 30.0),))
    svg = drawn(chart)
    xs = re.findall(r'class="error" x1="([\d.]+)"', svg)
    assert len(xs) == 2 and float(xs[1]) - float(xs[0]) == pytest.approx(5, abs=0.1)
    assert svg.count('class="level"') == 2 and "majority answer 30.0" in svg
    assert charts.plot(chart).levels[0] <= charts.SIZES.base  # the axis spans the level


@pytest.mark.parametrize("base", [0.0, 1e-8, 1 / 3, 123456.789, 1e15, -5.0, 1e17, -1e17])
@pytest.mark.parametrize("percent", [False, True])
def test_values_that_differ_in_their_last_digit_only_are_drawn(base, percent):
    """No ticks fit between them; a metric that hardly changes ended the whole page."""
    other = math.nextafter(base, math.inf)
    for ends in ((base, other), (base, base)):
        series = Series("a", tuple(enumerate(ends, 1)))
        drawing = charts.plot(Chart("Constant", (series,), percent=percent))
        assert drawing is not None
        numbers = [number for point in drawing.curves[0].lines[0] for number in point]
        assert all(map(math.isfinite, numbers)) and len(drawing.y_labels) > 1


@pytest.mark.parametrize(("low", "high"), [(1.7e308, 1.7e308), (-1.7e308, 1.7e308), (0.0, 3.4e38)])
def test_values_at_the_end_of_all_floats_are_drawn(low, high):
    drawing = charts.plot(Chart("Lost", (Series("a", ((1, low), (2, high))),)))
    assert drawing is not None
    assert all(math.isfinite(y) for line in drawing.curves[0].lines for _, y in line)
