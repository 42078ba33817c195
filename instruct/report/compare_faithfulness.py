"""Faithfulness on a before-and-after page: what outputs invent and miss, counted and marked."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from instruct.report.blocks import Block, Row, Section, Span, Table, Text
from instruct.report.faithfulness import quality
from instruct.report.faithfulness.check import Checked, check
from instruct.report.faithfulness.detector import Detector
from instruct.report.faithfulness.mentions import KINDS, Mention
from instruct.report.intervals import Rates, paired_rates, wilson

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
    rows += _kind_rows("Invented", "names among those of the outputs", checked, "invented")
    rows += _kind_rows("Missed", "of what the references say", checked, "missed")
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
    rates = invention_rates(checked)
    texts = [one for both in checked for one in both.people]
    hits = sum(bool(one.invented) for one in texts)
    people = (
        "–" if not texts else f"{100 * hits / len(texts):.1f} {_bounds(wilson(hits, len(texts)))}"
    )
    count = f"{len(checked):,}"
    return Row((title, *_cells(rates), f"{count} / {count}", people), strong=True)


def _kind_rows(title: str, of: str, checked: Sequence[Both], what: str) -> list[Row]:
    rows = []
    for kind in ("", *KINDS):
        first = [_counts(both.before, what, kind) for both in checked]
        second = [_counts(both.after, what, kind) for both in checked]
        rates = paired_rates(first, second)
        numbers = [sum(n for _, n in counts) for counts in (first, second)]
        people = "–"
        if what == "invented":
            pairs = [_counts(one, what, kind) for both in checked for one in both.people]
            hits, n = (sum(pair[place] for pair in pairs) for place in (0, 1))
            people = f"{100 * hits / n:.1f}" if n else "–"
        if what == "missed":
            of_all = " of the references' items"
        else:
            of_all = " of the outputs' items"
        name = f"{title}:{of_all}" if not kind else f"{title} {kind}s"
        count = f"{numbers[0]:,} / {numbers[1]:,}"
        rows.append(Row((name, *_cells(rates), count, people), strong=not kind))
    return rows


def _counts(checked: Checked, what: str, kind: str) -> tuple[int, int]:
    hits = checked.invented if what == "invented" else checked.missed
    among = checked.mentions if what == "invented" else checked.expected
    return _of_kind(hits, kind), _of_kind(among, kind)


def _of_kind(mentions: Sequence[Mention], kind: str) -> int:
    return sum(not kind or mention.kind == kind for mention in mentions)


def _cells(rates: Rates) -> tuple[str, str, str]:
    pairs = [(rates.first, rates.first_interval), (rates.second, rates.second_interval)]
    made = [_rate(value, interval) for value, interval in pairs]
    change = "–" if rates.change is None else f"{rates.change:+.1f}"
    if rates.change_interval is not None:
        low, high = rates.change_interval
        change += f" [{low:+.1f}, {high:+.1f}]"
    return made[0], made[1], change


def _rate(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" + (f" {_bounds(interval)}" if interval else "")


def _bounds(interval: tuple[float, float]) -> str:
    return f"[{interval[0]:.1f}, {interval[1]:.1f}]"


def output_spans(text: str, checked: Checked) -> tuple[Span, ...]:
    """The output with what it invents marked, and what the input says marked quietly."""
    marks = {(start, end): ("invented", kind) for start, end, kind in checked.spans}
    for mention in checked.mentions:
        marks.setdefault((mention.start, mention.end), ("known", mention.kind))
    return marked(text, marks)


def reference_spans(text: str, both: Both) -> tuple[Span, ...]:
    """A reference with what the later output misses marked."""
    marks = {}
    for mention in both.after.missed:
        start = text.find(mention.text)
        if start >= 0:
            marks[start, start + len(mention.text)] = ("missed", mention.kind)
    return marked(text, marks)


def marked(text: str, marks: Mapping[tuple[int, int], tuple[str, str]]) -> tuple[Span, ...]:
    """A text cut at its marks {(start, end): (mark, kind)}; of two that overlap, the first."""
    spans, at = [], 0
    for (start, end), (mark, kind) in sorted(marks.items()):
        if start < at:
            continue
        if start > at:
            spans.append(Span(text[at:start]))
        spans.append(Span(text[start:end], mark, f"{mark} {kind}"))
        at = end
    return (*spans, Span(text[at:])) if at < len(text) else tuple(spans)


def remarks(checked: Checked) -> tuple[str, ...]:
    """What stands below an output: what it invents and misses."""
    made = []
    for word, mentions in (("invented", checked.invented), ("missed", checked.missed)):
        if mentions:
            made.append(f"{word}: {', '.join(f'{m.text} ({m.kind})' for m in mentions)}")
    return tuple(made)
