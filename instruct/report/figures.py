"""Figures as inline SVG, coloured by the page's style sheet so that they follow dark mode.

Line charts have a small fixed view box (they are set side by side and shrink little on a phone);
dot rows use per cent as coordinates and stretch with the page. No scripts, no fonts, no links.
"""

import html
import math
from collections.abc import Sequence

from instruct.report.blocks import DotRow, Lines, Series
from instruct.report.wording import number, plus_minus

WIDTH, HEIGHT = 360, 216
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 28
PALETTE_SIZE = 8

# Least distance of two numbers below an axis, as a share of its length.
_LEAST_APART = 0.12

Point = tuple[float, float]


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) that span [low, high], about `count` steps.

    >>> ticks(0.3, 9.2)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    if not high > low:
        low, high = low - 0.5, low + 0.5
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.85)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, -math.floor(math.log10(step)))
    return [round(i * step, digits) for i in range(first, last + 1)]


def tick_label(value: float, step: float) -> str:
    """A tick as text: `0.05`, `1.5k`, `2M`; all ticks of an axis with equal digits."""
    for size, suffix in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size or (value == 0 and step >= size):
            scale = 1e3 if suffix == "k" else size
            return f"{value / scale:g}{suffix}"
    if step < 1e-4:
        return f"{value:.1g}"
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step < 1 else 0
    return f"{value:.{digits}f}"


def line_chart(chart: Lines) -> str:
    """An SVG of the chart without its title; curves carry a `<title>` for pointing devices."""
    finite = [(x, y) for s in chart.series for x, y in s.points if math.isfinite(y)]
    if not finite:
        return '<p class="quiet">No finite value.</p>'
    xs, ys = [x for x, _ in finite], [y for _, y in finite]
    low, high = min(ys), max(ys)
    if chart.percent or (low == high and low > 0):
        low, high = min(0.0, low), high if high > low else 1.25 * high
    y_ticks = ticks(low, high)
    x_low, x_high = min(xs), max(xs)
    if x_low < 0.1 * x_high:
        x_low = 0.0
    x_ticks = [t for t in ticks(x_low, x_high, 4) if x_low <= t <= x_high and t == int(t)]

    def at(x: float, y: float) -> Point:
        across = (x - x_low) / (x_high - x_low) if x_high > x_low else 0.5
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return (
            LEFT + across * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM),
        )

    parts = [_axes(at, x_ticks or [x_low], y_ticks, x_low, x_high)]
    parts += [_curve(series, at, y_ticks[-1]) for series in chart.series]
    label = html.escape(f"{chart.title}. " + " ".join(_summary(s) for s in chart.series))
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )


def _summary(series: Series) -> str:
    finite = [y for _, y in series.points if math.isfinite(y)]
    return f"{series.name}: {finite[0]:.4g} to {finite[-1]:.4g}." if finite else series.name


def _axes(at, x_ticks: Sequence[float], y_ticks: Sequence[float], low: float, high: float) -> str:
    step = y_ticks[1] - y_ticks[0]
    parts = []
    for value in y_ticks:
        _, y = at(low, value)
        span = f'x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"'
        place = f'x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end"'
        parts.append(f'<line class="grid" {span}/><text {place}>{tick_label(value, step)}</text>')
    base = HEIGHT - BOTTOM
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
    x_step = x_ticks[1] - x_ticks[0] if len(x_ticks) > 1 else 1.0
    for value in x_ticks:
        x, _ = at(value, y_ticks[0])
        # A label in the middle of the last tick would leave the picture.
        anchor = "end" if high > low and value == high else "middle"
        text = tick_label(value, x_step)
        parts.append(f'<text x="{x:.1f}" y="{base + 15}" text-anchor="{anchor}">{text}</text>')
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{base}" y2="{base + 3}"/>')
    return "".join(parts)


def _curve(series: Series, at, top: float) -> str:
    pieces: list[list[Point]] = [[]]
    gaps = []
    for x, y in series.points:
        if math.isfinite(y):
            pieces[-1].append(at(x, y))
        else:
            pieces.append([])
            gaps.append(at(x, top))
    kind = f"s{series.color % PALETTE_SIZE}" + (" dashed" if series.dashed else "")
    drawn = []
    for piece in pieces:
        if len(piece) > 1:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in piece)
            drawn.append(f'<polyline points="{path}"/>')
        elif piece:
            drawn.append(f'<circle cx="{piece[0][0]:.1f}" cy="{piece[0][1]:.1f}" r="2.6"/>')
    if pieces[-1]:
        x, y = pieces[-1][-1]
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>')
    for x, y in gaps[:20]:
        cross = f"M{x - 3:.1f} {y - 3:.1f}l6 6m0 -6l-6 6"
        drawn.append(f'<path class="gap" d="{cross}"><title>not finite</title></path>')
    title = html.escape(_summary(series))
    return f'<g class="curve {kind}"><title>{title}</title>{"".join(drawn)}</g>'


def axis_range(rows: Sequence[DotRow]) -> tuple[float, float]:
    """The common axis of a dot plot: round numbers around all marks, 0 to 100 at the widest."""
    values = [row.baseline for row in rows if row.baseline is not None]
    for row in rows:
        for mark in row.marks:
            values += [mark.value - (mark.stderr or 0.0), mark.value + (mark.stderr or 0.0)]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return 0.0, 100.0
    low, high = min(0.0, *finite), max(0.0, *finite)
    if low >= 0 and 60 < high <= 100:
        return 0.0, 100.0
    marks = ticks(low, high)
    return marks[0], marks[-1]


def scale(low: float, high: float) -> str:
    """The axis below dot rows or bars as an SVG that stretches: both ends, and 0 or the middle.

    An end whose number would touch that of 0 has none.
    """
    inside = 0.0 if low <= 0.0 <= high else (low + high) / 2
    values = [v for v in (low, high) if abs(v - inside) >= _LEAST_APART * (high - low)]
    if inside in (low, high):
        values.append((low + high) / 2)
    labels = []
    for value in sorted({inside, *values}):
        across = 100 * (value - low) / (high - low)
        anchor = "start" if value == low else "end" if value == high else "middle"
        labels.append(f'<text x="{across:.2f}%" y="14" text-anchor="{anchor}">{value:g}</text>')
    line = '<line class="axis" x1="0" x2="100%" y1="1" y2="1"/>'
    return f'<svg class="dots scale" height="18" role="presentation">{line}{"".join(labels)}</svg>'


def dot_row(row: DotRow, low: float, high: float) -> str:
    """One line of a dot plot as an SVG that stretches: whisker of one standard error, dot, tick."""

    def at(value: float) -> str:
        return f"{100 * (min(max(value, low), high) - low) / (high - low):.2f}%"

    height = 22 if len(row.marks) < 2 else 8 + 10 * len(row.marks)
    middle = height / 2
    parts = [f'<line class="grid" x1="0" x2="100%" y1="{middle}" y2="{middle}"/>']
    if row.baseline is not None and math.isfinite(row.baseline):
        x = at(row.baseline)
        parts.append(
            f'<line class="baseline" x1="{x}" x2="{x}" y1="3" y2="{height - 3}">'
            f"<title>{number(row.baseline)}</title></line>"
        )
    for place, mark in enumerate(row.marks):
        if not math.isfinite(mark.value):
            continue
        y = middle + 10 * (place - (len(row.marks) - 1) / 2)
        error = mark.stderr or 0.0
        parts.append(
            f'<g class="mark s{mark.color % PALETTE_SIZE}">'
            f"<title>{number(mark.value)}{plus_minus(mark.stderr)}</title>"
            f'<line x1="{at(mark.value - error)}" x2="{at(mark.value + error)}" y1="{y}" y2="{y}"/>'
            f'<circle cx="{at(mark.value)}" cy="{y}" r="{5 if row.strong else 4}"/></g>'
        )
    kind = "dots strong" if row.strong else "dots"
    return f'<svg class="{kind}" height="{height}" role="presentation">{"".join(parts)}</svg>'
