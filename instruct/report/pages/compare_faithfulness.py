"""Faithfulness on a before-and-after page: what outputs invent and miss, counted and marked."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from instruct.report.blocks import Block, Row, Section, Span, Table, Text
from instruct.report.faithfulness import quality
from instruct.report.faithfulness.check import Checked, check
from instruct.report.faithfulness.detector import Detector
from instruct.report.faithfulness.mentions import KINDS
from instruct.report.statistics import Rates, paired_rates, wilson

# Below this many words a reference is a label, in which nothing can be invented.
SHORTEST = 4


@dataclasses.dataclass(frozen=True)
class Both:
    """One example of both runs, checked.

    Attributes:
        source: what the outputs were held against; from the prompt where it is not known.
        references: accepted answers.
        before, after: the outputs' checks. people: the checks of the references against the source.
    """

    source: str
    references: tuple[str, ...]
    before: Checked
    after: Checked
    people: tuple[Checked, ...]


def worth_checking(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the answers asked for are sentences."""
    return bool(rows) and statistics.median(len(r["target"].split()) for r in rows) >= SHORTEST


def check_both(before: Mapping[str, Any], after: Mapping[str, Any], detector: Detector) -> Both:
    """Checks both outputs for one example, given its two lines."""
    source = before["source"] or after["source"] or before["prompt"]
    references = tuple(before["references"] or (before["target"],))
    return Both(
        source=source,
        references=references,
        before=check(source, before["prediction"], references, detector),
        after=check(source, after["prediction"], references, detector),
        people=tuple(check(source, text, (), detector) for text in references),
    )


def section(checked: Sequence[Both], names: tuple[str, str], detector: str) -> Section:
    """Rates of both runs with intervals, and what they mean."""
    rows = [_share_row("Outputs that invent something", checked)]
    rows += [_kind_row("Invented", "outputs", kind, checked) for kind in ("", *KINDS)]
    rows += [_kind_row("Missed", "references", kind, checked) for kind in ("", *KINDS)]
    columns = ("", *names, "Change", "Outputs or items", "References")
    blocks: list[Block] = [
        Text(
            "Invented: a name, number, date or place of the output that the input does not say, in "
            "these or other words. Missed: one that at least half of an example's references say "
            "and the output does not. Each counts once an example. Compared is what is mentioned, "
            "not what is claimed: the right names in the wrong roles go unnoticed."
        ),
        Table(columns, tuple(rows)),
        Text(
            "Per cent with 95 % intervals, from resampling examples with both outputs. "
            "The last column holds the references against the input: what people seem to invent, "
            "the detector's errors included.",
            quiet=True,
        ),
        Text(quality.describe(detector), quiet=True),
    ]
    return Section("faithfulness", "Faithfulness", tuple(blocks))


def invention_rates(checked: Sequence[Both]) -> Rates:
    """Per cent of outputs in which something is invented, of both runs."""
    first = [(int(bool(both.before.invented)), 1) for both in checked]
    second = [(int(bool(both.after.invented)), 1) for both in checked]
    return paired_rates(first, second)


def _share_row(title: str, checked: Sequence[Both]) -> Row:
    references = [one for both in checked for one in both.people]
    hits, n = sum(bool(one.invented) for one in references), len(references)
    people = _rate(100 * hits / n if n else None, wilson(hits, n))
    count = f"{len(checked):,} / {len(checked):,}"
    return Row((title, *_cells(invention_rates(checked)), count, people), strong=True)


def _kind_row(title: str, items: str, kind: str, checked: Sequence[Both]) -> Row:
    """What is invented or missed of a kind of mention; of all kinds for ""."""

    def counts(one: Checked) -> tuple[int, int]:
        invented = (one.invented, one.mentions)
        pair = invented if title == "Invented" else (one.missed, one.expected)
        hits, among = (sum(not kind or m.kind == kind for m in mentions) for mentions in pair)
        return hits, among

    first = [counts(both.before) for both in checked]
    second = [counts(both.after) for both in checked]
    people = "–"
    if title == "Invented":
        pairs = [counts(one) for both in checked for one in both.people]
        hits, n = (sum(pair[index] for pair in pairs) for index in (0, 1))
        people = _rate(100 * hits / n if n else None)
    count = " / ".join(f"{sum(n for _, n in pairs):,}" for pairs in (first, second))
    name = f"{title} {kind}s" if kind else f"{title}: of the {items}' items"
    return Row((name, *_cells(paired_rates(first, second)), count, people), strong=not kind)


def _cells(rates: Rates) -> tuple[str, str, str]:
    change = "–" if rates.change is None else f"{rates.change:+.1f}"
    if rates.change_interval is not None:
        low, high = rates.change_interval
        change += f" [{low:+.1f}, {high:+.1f}]"
    first = _rate(rates.first, rates.first_interval)
    return first, _rate(rates.second, rates.second_interval), change


def _rate(value: float | None, interval: tuple[float, float] | None = None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" + (f" [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else "")


def output_spans(text: str, checked: Checked | None) -> tuple[Span, ...]:
    """The output with what it invents marked, and what the input says marked quietly."""
    if checked is None:
        return marked(text, {})
    marks = {(start, end): ("invented", kind) for start, end, kind in checked.spans}
    for mention in checked.mentions:
        marks.setdefault((mention.start, mention.end), ("known", mention.kind))
    return marked(text, marks)


def reference_spans(text: str, both: Both | None) -> tuple[Span, ...]:
    """A reference with what the later output misses marked."""
    marks = {}
    for mention in both.after.missed if both else ():
        start = text.find(mention.text)
        if start >= 0:
            marks[start, start + len(mention.text)] = ("missed", mention.kind)
    return marked(text, marks)


def marked(text: str, marks: Mapping[tuple[int, int], tuple[str, str]]) -> tuple[Span, ...]:
    """A text cut at its marks {(start, end): (mark, kind)}; of two that overlap, the first."""
    spans, offset = [], 0
    for (start, end), (mark, kind) in sorted(marks.items()):
        if start < offset:
            continue
        if start > offset:
            spans.append(Span(text[offset:start]))
        spans.append(Span(text[start:end], mark, f"{mark} {kind}"))
        offset = end
    return (*spans, Span(text[offset:])) if offset < len(text) else tuple(spans)


def remarks(checked: Checked | None) -> tuple[str, ...]:
    """What stands below an output: what it invents and misses."""
    if checked is None:
        return ()
    return tuple(
        f"{word}: {', '.join(f'{m.text} ({m.kind})' for m in mentions)}"
        for word, mentions in (("invented", checked.invented), ("missed", checked.missed))
        if mentions
    )
