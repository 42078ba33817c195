"""Figures over several runs, as inline SVG: curves over a size that grows by factors, and bars.

Coloured by the page's style sheet, as `figures` are. What a paper printed is hollow and dashed, so
that it is told apart from what was measured here without any colour.
"""

import html
import itertools
import math
from collections.abc import Sequence

from instruct.report.blocks import Bar, Scaling, Series
from instruct.report.figures import PALETTE_SIZE, tick_label, ticks
from instruct.report.wording import signed

WIDTH, HEIGHT = 360, 250
LEFT, RIGHT, TOP, BOTTOM = 40, 14, 12, 40
# The share of the width that stands for "none" on a logarithmic axis, when there is a 0.
NONE_SHARE = 0.12
_NEAR = 11.0  # least distance of two labels at the ends of curves


def magnitude(value: float) -> str:
    """A count as short as it goes: `77M`, `2.85B`, `1.8k`, `282`."""
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:g}"


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within [low, high]; with 3 between them where they are fewer than three.

    >>> log_ticks(8, 2000)
    [10.0, 100.0, 1000.0]
    >>> log_ticks(50, 900)
    [100.0, 300.0]
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found = [10.0**power for power in range(first, last + 1) if low <= 10.0**power <= high]
    if len(found) < 3:
        more = [3 * 10.0**power for power in range(first, last + 1)]
        found = sorted(found + [value for value in more if low <= value <= high])
    return found or [low]


def scaling_chart(chart: Scaling) -> str:
    """An SVG of the chart without its title; x is logarithmic, 0 has a place of its own."""
    finite = [(x, y) for s in chart.series for x, y in s.points if math.isfinite(y)]
    if not finite:
        return '<p class="quiet">No finite value.</p>'
    low, high = _spread(chart.series)
    y_ticks = ticks(low, high)
    above = [x for x, _ in finite if x > 0]
    x_low, x_high = min(above, default=1.0), max(above, default=1.0)
    none = any(x <= 0 for x, _ in finite)
    start = LEFT + 8 + (NONE_SHARE * (WIDTH - LEFT - RIGHT) if none else 0.0)
    # Room for the names at the ends of the curves that have one.
    end = WIDTH - RIGHT - (58 if any(s.tag for s in chart.series) else 8)

    def at(x: float, y: float) -> tuple[float, float]:
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        height = HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)
        if x <= 0:
            return LEFT + 10.0, height
        span = math.log(x_high / x_low)
        return start + (math.log(x / x_low) / span if span else 0.5) * (end - start), height

    parts = [_axes(at, y_ticks, log_ticks(x_low, x_high), none, chart.x)]
    parts += [_curve(series, at) for series in chart.series]
    parts += _tags(chart.series, at)
    label = html.escape(f"{chart.title} over {chart.x}. " + " ".join(map(_told, chart.series)))
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )


def _spread(series: Sequence[Series]) -> tuple[float, float]:
    values = []
    for one in series:
        for place, (_, y) in enumerate(one.points):
            if math.isfinite(y):
                error = one.errors[place] if place < len(one.errors) else None
                values += [y - (error or 0.0), y + (error or 0.0)]
    return min(values), max(values)


def _told(series: Series) -> str:
    points = [f"{magnitude(x)}: {y:.1f}" for x, y in series.points if math.isfinite(y)]
    return f"{series.name}: {', '.join(points)}."


def _axes(at, y_ticks: Sequence[float], x_ticks: Sequence[float], none: bool, name: str) -> str:
    step = y_ticks[1] - y_ticks[0]
    base = HEIGHT - BOTTOM
    parts = []
    for value in y_ticks:
        _, y = at(1.0, value)
        span = f'x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"'
        place = f'x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end"'
        parts.append(f'<line class="grid" {span}/><text {place}>{tick_label(value, step)}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
    for value in [0.0, *x_ticks] if none else x_ticks:
        x, _ = at(value, y_ticks[0])
        text = "0" if value == 0 else magnitude(value)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{base}" y2="{base + 3}"/>')
        parts.append(f'<text x="{x:.1f}" y="{base + 15}" text-anchor="middle">{text}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    place = f'x="{middle}" y="{HEIGHT - 6}" text-anchor="middle"'
    return "".join(parts) + f"<text {place}>{html.escape(name)}</text>"


def _curve(series: Series, at) -> str:
    finite = [(place, x, y) for place, (x, y) in enumerate(series.points) if math.isfinite(y)]
    drawn = []
    if len(finite) > 1:
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in (at(x, y) for _, x, y in finite))
        drawn.append(f'<polyline points="{path}"/>')
    for place, x, y in finite:
        error = series.errors[place] if place < len(series.errors) else None
        across, height = at(x, y)
        if error:
            _, top = at(x, y + error)
            _, bottom = at(x, y - error)
            ends = f'y1="{top:.1f}" y2="{bottom:.1f}"'
            drawn.append(f'<line class="error" x1="{across:.1f}" x2="{across:.1f}" {ends}/>')
        drawn.append(f'<circle cx="{across:.1f}" cy="{height:.1f}" r="3"/>')
    kind = f"s{series.color % PALETTE_SIZE}" + (" dashed hollow" if series.dashed else "")
    title = html.escape(_told(series))
    return f'<g class="curve {kind}"><title>{title}</title>{"".join(drawn)}</g>'


def _tags(series: Sequence[Series], at) -> list[str]:
    """Names at the right ends of curves, moved apart where they would touch."""
    ends = []
    for one in series:
        finite = [(x, y) for x, y in one.points if math.isfinite(y)]
        if one.tag and finite:
            x, y = at(*finite[-1])
            ends.append([y, x, one.tag, one.color])
    ends.sort()
    for before, after in itertools.pairwise(ends):
        after[0] = max(after[0], before[0] + _NEAR)
    excess = ends[-1][0] - (HEIGHT - BOTTOM) if ends else 0.0
    if excess > 0:
        ends[-1][0] -= excess
        for after, before in itertools.pairwise(ends[::-1]):
            before[0] = min(before[0], after[0] - _NEAR)
    return [
        f'<text class="tag s{color % PALETTE_SIZE}" x="{x + 6:.1f}" y="{y + 3.5:.1f}">'
        f"{html.escape(tag)}</text>"
        for y, x, tag, color in ends
    ]


def bar_range(bars: Sequence[Bar]) -> tuple[float, float]:
    """The common axis of bars: round numbers around all values and intervals, with 0 inside."""
    values = [0.0]
    for bar in bars:
        values += [v for v in (bar.value, bar.low, bar.high) if v is not None and math.isfinite(v)]
    low, high = min(values), max(values)
    if low == high:
        return -1.0, 1.0
    marks = ticks(low, high)
    return marks[0], marks[-1]


def bar(one: Bar, low: float, high: float) -> str:
    """A horizontal bar from 0 to the value, with its interval, as an SVG that stretches."""

    def at(value: float) -> float:
        return 100 * (min(max(value, low), high) - low) / (high - low)

    zero = f"{at(0.0):.2f}%"
    parts = [f'<line class="axis" x1="{zero}" x2="{zero}" y1="0" y2="20"/>']
    told = signed(one.value)
    if math.isfinite(one.value):
        left, right = sorted((at(0.0), at(one.value)))
        size = f'x="{left:.2f}%" width="{right - left:.2f}%" y="4" height="12"'
        parts.append(f"<rect {size}/>")
    if one.low is not None and one.high is not None:
        ends = f'x1="{at(one.low):.2f}%" x2="{at(one.high):.2f}%"'
        parts.append(f'<line class="whisker" {ends} y1="10" y2="10"/>')
        told += f", from {signed(one.low)} to {signed(one.high)}"
    kind = f"bar s{one.color % PALETTE_SIZE}" + (" hollow" if one.printed else "")
    return (
        f'<svg class="dots" height="20" role="presentation"><g class="{kind}">'
        f"<title>{told}</title>{''.join(parts)}</g></svg>"
    )
