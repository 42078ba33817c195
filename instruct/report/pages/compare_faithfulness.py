"""Faithfulness on a before-and-after page: what outputs invent and miss, counted and marked."""

import dataclasses
import functools
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from instruct.report.blocks import NOTES, Block, Output, Row, Span, Table, Text, section
from instruct.report.faithfulness import quality
from instruct.report.faithfulness.check import Checked, check
from instruct.report.faithfulness.detector import Detector
from instruct.report.faithfulness.mentions import KINDS
from instruct.report.statistics import Rates, paired_rates, wilson

# Answers with fewer words are labels, in which nothing can be invented.
SHORTEST = 4

Count = Callable[[Checked], tuple[int, int]]  # (hits, items) of a text


@dataclasses.dataclass(frozen=True)
class Both:
    """The checks of one example: of both outputs, and of the references against the source."""

    before: Checked
    after: Checked
    people: Sequence[Checked]


def worth_checking(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the expected answers are sentences."""
    return statistics.median(len(row["target"].split()) for row in rows) >= SHORTEST


def check_both(before: Mapping[str, Any], after: Mapping[str, Any], detector: Detector) -> Both:
    """Checks both outputs of one example against its source, else its prompt."""
    source = before["source"] or after["source"] or before["prompt"]
    references = tuple(before["references"] or (before["target"],))
    return Both(
        before=check(source, before["prediction"], references, detector),
        after=check(source, after["prediction"], references, detector),
        people=[check(source, text, (), detector) for text in references],
    )


@section("faithfulness", "Faithfulness")
def faithfulness_section(checked: Sequence[Both], detector: str) -> Iterator[Block]:
    """Rates of both runs with intervals, and their meaning."""
    rows = [_row("Outputs that invent something", _invents, checked, strong=True)]
    for title, items, *fields in (
        ("Invented", "outputs", "invented", "mentions"),
        ("Missed", "references", "missed", "expected"),
    ):
        for kind in ("", *KINDS):
            name = f"{title} {kind}s" if kind else f"{title}: of the {items}' items"
            count = functools.partial(_mentions, kind, fields)
            rows.append(_row(name, count, checked, strong=not kind))
    yield Text(NOTES["faithfulness"])
    yield Table(("", "Before", "After", "Change", "Outputs or items", "References"), rows)
    yield Text(NOTES["faithfulness_rates"], quiet=True)
    yield Text(quality.describe(detector), quiet=True)


def _invents(one: Checked) -> tuple[int, int]:
    return int(bool(one.invented)), 1


def _mentions(kind: str, fields: Sequence[str], one: Checked) -> tuple[int, int]:
    """Mentions of a kind ("": of all kinds) in two fields of `Checked`."""
    hits, items = (sum(not kind or m.kind == kind for m in getattr(one, f)) for f in fields)
    return hits, items


def _counts(checked: Sequence[Both], count: Count) -> list[list[tuple[int, int]]]:
    """Before and after: the counts of each example."""
    return [[count(both.before) for both in checked], [count(both.after) for both in checked]]


def _row(name: str, count: Count, checked: Sequence[Both], strong: bool) -> Row:
    first, second = _counts(checked, count)
    rates = paired_rates(first, second)
    items = " / ".join(f"{sum(n for _, n in counts):,}" for counts in (first, second))
    hits, n = map(sum, zip(*(count(one) for both in checked for one in both.people)))
    people = _rate(100 * hits / n if n else None, wilson(hits, n) if count is _invents else None)
    cells = (name, _rate(rates.first, rates.first_interval))
    cells += (_rate(rates.second, rates.second_interval), change_text(rates), items, people)
    return Row(cells, strong)


def invention_rates(checked: Sequence[Both]) -> Rates:
    """Per cent of both runs' outputs in which something is invented."""
    first, second = _counts(checked, _invents)
    return paired_rates(first, second)


def change_text(rates: Rates) -> str:
    """`+1.2 [-0.3, +2.7]`, without the interval if unknown."""
    change = "–" if rates.change is None else f"{rates.change:+.1f}"
    if rates.change_interval is not None:
        low, high = rates.change_interval
        change += f" [{low:+.1f}, {high:+.1f}]"
    return change


def _rate(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" + (f" [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else "")


def output(name: str, color: int, text: str, checked: Checked | None) -> Output:
    """A run's output with its mentions marked; below it, what it invents and misses."""
    if checked is None:
        return Output(name, marked(text, {}), color)
    marks = {(start, end): ("invented", kind) for start, end, kind in checked.spans}
    for mention in checked.mentions:
        marks.setdefault((mention.start, mention.end), ("known", mention.kind))
    notes = [
        f"{word}: {', '.join(f'{m.text} ({m.kind})' for m in mentions)}"
        for word, mentions in (("invented", checked.invented), ("missed", checked.missed))
        if mentions
    ]
    return Output(name, marked(text, marks), color, notes)


def reference_spans(text: str, both: Both | None) -> tuple[Span, ...]:
    """A reference with what the later output misses marked."""
    marks = {}
    for mention in both.after.missed if both else ():
        start = text.find(mention.text)
        if start >= 0:
            marks[start, start + len(mention.text)] = ("missed", mention.kind)
    return marked(text, marks)


def marked(text: str, marks: Mapping[tuple[int, int], tuple[str, str]]) -> tuple[Span, ...]:
    """Cuts a text at its marks {(start, end): (mark, kind)}; of two that overlap, the first."""
    spans, offset = [], 0
    for (start, end), (mark, kind) in sorted(marks.items()):
        if start < offset:
            continue
        if start > offset:
            spans.append(Span(text[offset:start]))
        spans.append(Span(text[start:end], mark, f"{mark} {kind}"))
        offset = end
    return (*spans, Span(text[offset:])) if offset < len(text) else tuple(spans)
