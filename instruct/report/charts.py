"""Geometry of the charts that `pages/charts.html` draws: axes, ticks, curves, ranges.

Curves have a fixed view box, `WIDTH` by the frame's height; bars and dots use per cent of the
page's width.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from instruct.report.blocks import Bar, Chart, DotRow, Series
from instruct.report.wording import magnitude, shortened

PALETTE_SIZE = 8
WIDTH = 360
CURVE_ROWS = 10  # of the table that replaces a chart in Markdown
ZERO_SHARE = 0.12  # of a logarithmic axis, reserved for 0 where there is a 0
_LEAST_APART = 0.12  # distance of two numbers below an axis, as a share of its length
_TAG_HEIGHT = 11.0
_TICK_CHARACTER, _TICK_GAP = 6.0, 6.0  # widths below an axis, in the units of the view box
_TELLS_APART = 1e-9  # relative distance from which on two numbers are drawn apart
_LARGEST = 1e300  # end of an axis: spans of larger numbers are beyond every float
_DODGE = 5.0  # between the intervals of curves with a common x

Point = tuple[float, float]
Label = tuple[float, str, str]  # position, text, SVG's text-anchor


class Frame(NamedTuple):
    """Height of a view box and the edges of its axes."""

    height: int
    left: int
    right: int
    top: int
    base: int


STEPS = Frame(216, 46, WIDTH - 12, 10, 188)
SIZES = Frame(250, 40, WIDTH - 14, 12, 210)


class Curve(NamedTuple):
    """A series in the view box; `errors` are (x, top, bottom), `gaps` x of non-finite values."""

    series: Series
    title: str
    lines: list[list[Point]]
    dots: list[Point]
    errors: list[tuple[float, float, float]]
    gaps: list[float]


class Plot(NamedTuple):
    """A chart in the view box; `tags` are (y, x, text, color), `levels` y."""

    frame: Frame
    y_labels: list[tuple[float, str]]
    x_labels: list[Label]
    curves: list[Curve]
    tags: list[tuple[float, float, str, int]]
    levels: list[float]


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) that span [low, high], about `count` steps.

    >>> ticks(0.3, 9.2)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    low, high = (min(max(end, -_LARGEST), _LARGEST) for end in (low, high))
    # Between numbers that differ in their last digits only there is no room for ticks.
    least = max(_TELLS_APART * max(abs(low), abs(high)), 1 / _LARGEST)
    if not high - low > least:
        low, high = low - max(0.5, least), low + max(0.5, least)
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.85)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, -math.floor(math.log10(step)))
    return [round(i * step, digits) for i in range(first, last + 1)]


def tick_label(value: float, step: float) -> str:
    """A tick as text, `0.05`, `15k` or `2M`, with as many digits as the axis's `step` needs."""
    if short := shortened(value, "g", 1e4, like=step):
        return short
    if step < 1e-4:
        return f"{value:.1g}"
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step < 1 else 0
    return f"{value:.{digits}f}"


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within [low, high]; with 3 between them where they are fewer than three."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    inside = [10.0**power for power in powers if low <= 10.0**power <= high]
    if len(inside) < 3:
        inside += [3 * 10.0**power for power in powers if low <= 3 * 10.0**power <= high]
    return sorted(inside) or [low]


def plot(chart: Chart) -> Plot | None:
    """Geometry of a chart's curves; None without finite values."""
    ends = [(x, y) for one in chart.series for x, *both in _error_ends(one) for y in both]
    if not ends:
        return None
    xs, ys = zip(*ends)
    ys = (*ys, *(level for _, level in chart.levels))
    low, high = min(ys), max(ys)
    high = low if math.isclose(low, high, rel_tol=_TELLS_APART) else high
    if not chart.sizes and (chart.percent or (low == high and low > 0)):
        low, high = min(0.0, low), high if high > low else 1.25 * high
    y_ticks = ticks(low, high)
    frame = SIZES if chart.sizes else STEPS
    tagged = any(one.tag for one in chart.series)
    across, x_labels = _size_axis(xs, tagged, chart) if chart.sizes else _step_axis(xs)

    def at(x: float, y: float) -> Point:
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return across(x), frame.base - up * (frame.base - frame.top)

    y_labels = [(at(xs[0], y)[1], tick_label(y, y_ticks[1] - y_ticks[0])) for y in y_ticks]
    curve_of = _size_curve if chart.sizes else _step_curve
    curves = [
        curve_of(one, lambda x, y, aside=aside: (at(x, y)[0] + aside, at(x, y)[1]))
        for one, aside in zip(chart.series, _asides(chart.series))
    ]
    levels = [at(xs[0], level)[1] for _, level in chart.levels]
    return Plot(frame, y_labels, x_labels, curves, _tags(curves), levels)


def _asides(series: Sequence[Series]) -> list[float]:
    """Distances by which curves with intervals are moved sideways, so that none hides another."""
    order = [index for index, one in enumerate(series) if one.intervals]
    asides = {index: _DODGE * (n - (len(order) - 1) / 2) for n, index in enumerate(order)}
    return [asides.get(index, 0.0) for index in range(len(series))]


def _error_ends(series: Series) -> list[tuple[float, float, float]]:
    """(x, low, high) of the finite points' errors; an unknown error is 0."""
    if series.intervals:
        ends = zip(series.points, series.intervals)
        return [(x, *(interval or (y, y))) for (x, y), interval in ends if math.isfinite(y)]
    pairs = itertools.zip_longest(series.points, series.errors)
    return [(x, y - (e or 0.0), y + (e or 0.0)) for (x, y), e in pairs if math.isfinite(y)]


def _step_axis(xs: Sequence[float]) -> tuple[Callable[[float], float], list[Label]]:
    low, high = min(xs), max(xs)
    low = 0.0 if low < 0.1 * high else low

    def across(x: float) -> float:
        share = (x - low) / (high - low) if high > low else 0.5
        return STEPS.left + share * (STEPS.right - STEPS.left)

    values = [t for t in ticks(low, high) if low <= t <= high and t == int(t)] or [low]
    step = values[1] - values[0] if len(values) > 1 else 1.0
    # A label in the middle of the last tick would leave the picture.
    anchors = ["end" if high > low and value == high else "middle" for value in values]
    return across, [(across(v), tick_label(v, step), a) for v, a in zip(values, anchors)]


def _size_axis(
    xs: Sequence[float], tagged: bool, chart: Chart
) -> tuple[Callable[[float], float], list[Label]]:
    """A logarithmic axis with 0 at the far left, or a linear one; room for tags at the right."""
    if chart.linear:
        first, last = min(xs), max(xs)
        begin, stop = SIZES.left + 12, SIZES.right - (58 if tagged else 12)

        def along(x: float) -> float:
            share = (x - first) / (last - first) if last > first else 0.5
            return begin + share * (stop - begin)

        values = [t for t in ticks(first, last) if first <= t <= last] or [first]
        step = values[1] - values[0] if len(values) > 1 else 1.0
        marks = chart.ticks or [(value, tick_label(value, step)) for value in values]
        return along, _apart([(along(x), text, "middle") for x, text in marks])
    positive = [x for x in xs if x > 0]
    low, high = min(positive, default=1.0), max(positive, default=1.0)
    has_zero = len(positive) < len(xs)
    start = SIZES.left + 8 + (ZERO_SHARE * (SIZES.right - SIZES.left) if has_zero else 0.0)
    end = SIZES.right - (58 if tagged else 8)

    def across(x: float) -> float:
        if x <= 0:
            return SIZES.left + 10.0
        share = math.log(x / low) / math.log(high / low) if high > low else 0.5
        return start + share * (end - start)

    if chart.ticks:
        return across, _apart([(across(x), text, "middle") for x, text in chart.ticks])
    labels = [(across(x), magnitude(x), "middle") for x in log_ticks(low, high)]
    return across, [(across(0.0), "0", "middle"), *labels] if has_zero else labels


def _apart(labels: Sequence[Label]) -> list[Label]:
    """Labels in the order of x, without the texts that would touch their right neighbor."""
    free, kept = math.inf, []
    for x, text, anchor in sorted(labels, reverse=True):
        half = len(text) * _TICK_CHARACTER / 2
        kept.append((x, text if x + half + _TICK_GAP <= free else "", anchor))
        free = x - half if kept[-1][1] else free
    return kept[::-1]


def _step_curve(series: Series, at: Callable[[float, float], Point]) -> Curve:
    """A line with gaps at non-finite values; single points and the last point have a dot."""
    runs = itertools.groupby(series.points, key=lambda point: math.isfinite(point[1]))
    pieces = [list(points) for finite, points in runs if finite]
    dots = [p for piece in pieces for p in piece if len(piece) == 1 or p is series.points[-1]]
    title = series.name
    if pieces:
        title += f": {pieces[0][0][1]:.4g} to {pieces[-1][-1][1]:.4g}."
    lines = [list(itertools.starmap(at, piece)) for piece in pieces if len(piece) > 1]
    gaps = [at(x, 0)[0] for x, y in series.points if not math.isfinite(y)]
    return Curve(series, title, lines, list(itertools.starmap(at, dots)), [], gaps)


def _size_curve(series: Series, at: Callable[[float, float], Point]) -> Curve:
    """A line through the finite points, each with a dot and its error."""
    finite = [(x, y) for x, y in series.points if math.isfinite(y)]
    dots = list(itertools.starmap(at, finite))
    title = f"{series.name}: {', '.join(f'{magnitude(x)}: {y:.1f}' for x, y in finite)}."
    errors = [(*at(x, high), at(x, low)[1]) for x, low, high in _error_ends(series) if low < high]
    return Curve(series, title, [dots] if len(dots) > 1 else [], dots, errors, [])


def _tags(curves: Sequence[Curve]) -> list[tuple[float, float, str, int]]:
    """Names at the right ends of curves, moved apart where they would touch."""
    tagged = [(one.dots[-1], one.series) for one in curves if one.series.tag and one.dots]
    ends = sorted((y, x, one.tag, one.color) for (x, y), one in tagged)
    down = list(itertools.accumulate((y for y, *_ in ends), lambda a, y: max(y, a + _TAG_HEIGHT)))
    inside = (min(y, SIZES.base) for y in reversed(down))
    heights = list(itertools.accumulate(inside, lambda b, y: min(y, b - _TAG_HEIGHT)))
    return [(y, x, tag, n) for y, (_, x, tag, n) in zip(reversed(heights), ends)]


def table_steps(chart: Chart) -> list[float]:
    """Up to `CURVE_ROWS` steps of the longest curve, evenly spread, for a table of its values."""
    xs = [x for x, _ in max(chart.series, key=lambda one: len(one.points)).points]
    indices = {round(i * (len(xs) - 1) / (CURVE_ROWS - 1)) for i in range(CURVE_ROWS)}
    return [xs[index] for index in sorted(indices)]


def dot_range(rows: Sequence[DotRow]) -> Point:
    """The common axis of a dot plot: round numbers around all marks, 0 to 100 at the widest."""
    values = [row.baseline for row in rows if row.baseline is not None]
    for mark in (mark for row in rows for mark in row.marks):
        values += [mark.value - (mark.stderr or 0.0), mark.value + (mark.stderr or 0.0)]
    finite = [value for value in values if math.isfinite(value)]
    if not finite or (min(finite) >= 0 and 60 < max(finite) <= 100):
        return 0.0, 100.0
    return _around(finite)


def bar_range(bars: Sequence[Bar]) -> Point:
    """The common axis of bars: round numbers around all values and intervals, with 0 inside."""
    values = [v for bar in bars for v in (bar.value, bar.low, bar.high) if v is not None]
    finite = [value for value in values if math.isfinite(value)]
    return _around(finite) if any(finite) else (-1.0, 1.0)


def _around(values: Iterable[float]) -> Point:
    marks = ticks(min(0.0, *values), max(0.0, *values))
    return marks[0], marks[-1]


def share(value: float, low: float, high: float) -> float:
    """Per cent of the way from low to high, clipped to 0-100."""
    return 100 * (min(max(value, low), high) - low) / (high - low)


def scale_labels(low: float, high: float) -> list[Label]:
    """Numbers below dots or bars, at per cent of the width: both ends, and 0 or the middle.

    An end whose number would touch that of 0 is left out.
    """
    inside = 0.0 if low <= 0.0 <= high else (low + high) / 2
    values = {v for v in (low, high) if abs(v - inside) >= _LEAST_APART * (high - low)}
    if inside in (low, high):
        values.add((low + high) / 2)
    anchors = {low: "start", high: "end"}
    return [
        (share(value, low, high), f"{value:g}", anchors.get(value, "middle"))
        for value in sorted({inside, *values})
    ]
