"""Axes, curves and dots as numbers, without looking."""

import math
import re

import pytest

from instruct.report import figures
from instruct.report.blocks import DotRow, Lines, Mark, Series


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
    found = figures.ticks(low, high)
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
    assert figures.tick_label(value, step) == text


def points_of(svg):
    return [
        tuple(map(float, pair.split(",")))
        for line in re.findall(r'points="([^"]*)"', svg)
        for pair in line.split()
    ]


def test_a_curve_falls_from_left_to_right():
    series = Series("a", ((0, 4.0), (50, 2.0), (100, 1.0)))
    points = points_of(figures.line_chart(Lines("Loss", (series,))))
    assert points[0][0] == figures.LEFT and points[-1][0] == figures.WIDTH - figures.RIGHT
    assert [y for _, y in points] == sorted(y for _, y in points)


def test_a_gap_breaks_the_curve_and_is_marked():
    values = ((0, 1.0), (1, 2.0), (2, math.nan), (3, 1.0), (4, 2.0))
    svg = figures.line_chart(Lines("Loss", (Series("a", values, color=9),)))
    assert svg.count("<polyline") == 2
    assert svg.count('class="gap"') == 1
    assert 'class="curve s1"' in svg


def test_charts_of_nothing_and_of_one_point():
    nothing = figures.line_chart(Lines("Loss", (Series("a", ((1, math.nan),)),)))
    assert "No finite value" in nothing
    one = figures.line_chart(Lines("Rate", (Series("a", ((7, 0.001),)),)))
    assert "<circle" in one and "nan" not in one


def test_titles_are_escaped():
    svg = figures.line_chart(Lines('<b>"', (Series("<i>", ((0, 1.0), (1, 2.0))),)))
    assert "<b>" not in svg and "<i>" not in svg


def test_dots_stand_in_proportion():
    row = DotRow("a", (Mark(50.0, 5.0), Mark(math.nan)), baseline=25.0)
    svg = figures.dot_row(row, 0.0, 100.0)
    assert 'cx="50.00%"' in svg and 'x1="45.00%" x2="55.00%"' in svg
    assert 'class="baseline" x1="25.00%"' in svg
    assert svg.count("<circle") == 1


def test_the_axis_covers_all_marks():
    assert figures.axis_range([]) == (0.0, 100.0)
    assert figures.axis_range([DotRow("a", (Mark(81.0, 2.0),))]) == (0.0, 100.0)
    assert figures.axis_range([DotRow("a", (Mark(11.0, 2.0),), baseline=3.0)]) == (0.0, 15.0)
    low, high = figures.axis_range([DotRow("a", (Mark(-7.5),))])
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
    drawn = figures.scale(low, high)
    assert re.findall(r">(-?[\d.]+)</text>", drawn) == numbers
    zero = re.search(r'x="([\d.]+)%"[^>]*>0</text>', drawn)
    assert float(zero[1]) == pytest.approx(-100 * low / (high - low), abs=0.01)


def test_a_mark_without_error_claims_none():
    drawn = figures.dot_row(DotRow("t", (Mark(0.0, 0.0, 0), Mark(-0.04, None, 1)), 0.0), -1, 1)
    assert "±" not in drawn and drawn.count("<title>0.0</title>") == 3
