"""Before and after: the same examples answered by two models, as one page.

Scores with paired intervals, what outputs invent and miss, outputs side by side from the largest
loss to the largest gain, and the conditions of both evaluations.
"""

import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from instruct.report import compare_faithfulness, paired
from instruct.report.blocks import (
    Block,
    Comparison,
    Document,
    Fact,
    Facts,
    Notices,
    Output,
    Row,
    Section,
    SideBySide,
    Span,
    Table,
    Text,
)
from instruct.report.compare import (
    CompareConfig,
    Compared,
    change_of,
    compare,
    conditions,
    differing_conditions,
    summary,
)
from instruct.report.compare_faithfulness import Both
from instruct.report.evaluation_file import Key
from instruct.report.pages.rendering import write_document
from instruct.report.paired import PairedTest
from instruct.report.wording import counted, number, p_equals, probability, signed


def write_comparison(
    before: str, after: str, out_dir: str | os.PathLike[str], config: CompareConfig
) -> tuple[pathlib.Path, dict[str, Any]]:
    """Writes `before_after.html` and `.md`; returns the page's path and the numbers.

    Raises UserError where an evaluation is not found or nothing can be compared.
    """
    compared = compare(before, after, config)
    page = write_document(document(compared, config), out_dir, "before_after")
    return page, summary(compared)


def document(compared: Compared, config: CompareConfig) -> Document:
    """The page."""
    header = compared.before.header
    sections = [
        _overview(compared),
        _scores_section(compared),
        *([_faithfulness(compared, config)] if compared.checked else []),
        _outputs_section(compared, config),
        _conditions_section(compared),
    ]
    title = f"Before and after: {header.get('suite', 'two evaluations')}"
    return Document(
        title,
        f"{compared.before.label} · {compared.after.label}",
        tuple(sections),
    )


def _faithfulness(compared: Compared, config: CompareConfig) -> Section:
    checked = list(compared.checked.values())
    return compare_faithfulness.section(checked, ("Before", "After"), config.detector)


def _overview(compared: Compared) -> Section:
    test = compared.tests[compared.rank_by]
    facts = [
        Fact(
            f"{compared.rank_by}, change",
            signed(test.difference),
            f"{_interval(test)}, from {test.first:.1f} to {test.second:.1f}, n = {test.n:,}",
        ),
        Fact(
            "Better / worse",
            f"{test.wins:,} / {test.losses:,}",
            f"of {counted(test.n, 'output')}, {test.n - test.wins - test.losses:,} equal",
        ),
    ]
    if compared.checked:
        rates = compare_faithfulness.invention_rates(list(compared.checked.values()))
        if rates.first is not None and rates.second is not None and rates.change is not None:
            low, high = rates.change_interval or (math.nan, math.nan)
            note = (
                f"before {rates.first:.1f} %, change {rates.change:+.1f} [{low:+.1f}, {high:+.1f}]"
            )
            facts.append(Fact("Outputs that invent", f"{rates.second:.1f} %", note))
    told: list[Block] = [Facts(tuple(facts)), Text(_verdict(compared))]
    notices = [*differing_conditions(compared), *compared.left_out]
    if notices:
        told.append(Notices(tuple(notices)))
    return Section("overview", "At a glance", tuple(told))


def _verdict(compared: Compared) -> str:
    test = compared.tests[compared.rank_by]
    if test.difference == test.low == test.high == 0:
        return f"{compared.rank_by} is the same after as before."
    way = "higher" if test.difference > 0 else "lower"
    found = f"{compared.rank_by} is {abs(test.difference):.1f} points {way} after than before"
    if test.clear:
        why = "chance in the choice of examples does not explain it"
        return f"{found}, and {why} ({p_equals(test.p)})."
    return (
        f"{found}, but that may be chance in the choice of examples ({p_equals(test.p)}): the "
        f"95 % interval reaches from {signed(test.low)} to {signed(test.high)}."
    )


def _interval(test: PairedTest) -> str:
    return f"[{signed(test.low)}, {signed(test.high)}]"


def _scores_section(compared: Compared) -> Section:
    rows = []
    corrected = dict(zip(compared.tests, paired.holm([test.p for test in compared.tests.values()])))
    for metric in compared.metrics:
        values = _values(compared, metric)
        test = compared.tests.get(metric)
        if test is None:
            cells = (number(values[0]), number(values[1]), *["–"] * 6)
        else:
            cells = (
                *(number(test.first), number(test.second), signed(test.difference)),
                *(
                    _interval(test),
                    probability(test.p),
                    probability(corrected[metric]),
                    f"{test.wins} / {test.losses}",
                ),
                f"{test.n:,}",
            )
        rows.append(Row((metric, *cells), strong=metric == compared.rank_by))
    columns = ("Metric", "Before", "After", "Change", "95 % interval", "p", "p (Holm)")
    some = next(iter(compared.tests.values()))
    text = (
        f"Paired bootstrap over examples ({some.resamples:,} resamples, seed {some.seed}): both "
        "outputs of an example are drawn together. p is two-sided; p (Holm) is corrected for the "
        "number of metrics. Only the choice of examples is chance here, not the training seed."
    )
    blocks: list[Block] = [
        Table((*columns, "Better / worse", "n"), tuple(rows)),
        Text(text, quiet=True),
    ]
    if some.groups > 1:
        blocks.append(Text(f"Scores are unweighted means over {some.groups} tasks.", quiet=True))
    return Section("scores", "Scores", tuple(blocks))


def _values(compared: Compared, metric: str) -> list[float | None]:
    """Means before and after over the tasks whose metric both evaluations know."""
    known = [
        {
            (row["task"], row["mode"]): row["value"]
            for row in one.metrics
            if row["metric"] == metric and row["value"] is not None
        }
        for one in (compared.before, compared.after)
    ]
    common = [task for task in known[0] if task in known[1]]
    return [sum(of[task] for task in common) / len(common) if common else None for of in known]


def _outputs_section(compared: Compared, config: CompareConfig) -> Section:
    changes = {key: change_of(compared, key) for key in compared.keys}
    ranked = sorted(
        (k for k in compared.keys if changes[k] is not None), key=lambda k: changes[k] or 0
    )
    half = max(1, config.examples // 2)
    gains = [key for key in reversed(ranked) if (changes[key] or 0) > 0][:half]
    losses = [key for key in ranked if (changes[key] or 0) < 0][:half]
    blocks: list[Block] = []
    if compared.checked:
        blocks.append(
            Text(
                "Marked in an output: filled, what the input does not say (invented); thinly "
                "underlined, names, numbers, dates and places that it does say. Dashed in a "
                "reference: what the output after misses.",
                quiet=True,
            )
        )
        worse = sorted(
            (k for k in compared.keys if _new_inventions(compared, k) > 0),
            key=lambda k: -_new_inventions(compared, k),
        )
        if worse:
            title = f"More invented after than before: {len(worse):,} of {len(compared.keys):,}"
            blocks.append(_cards(title, worse[:half], compared, 3))
    for title, chosen in (("Largest gains", gains), ("Largest losses", losses)):
        if chosen:
            blocks.append(_cards(f"{title} in {compared.rank_by}", chosen, compared, 6))
    rest = len(compared.keys) - len({*gains, *losses})
    if rest:
        kind = "with smaller or no changes"
        shown = counted(rest, f"output {kind} is", f"outputs {kind} are")
        blocks.append(Text(f"{shown} not shown.", quiet=True))
    return Section("outputs", "Outputs side by side", tuple(blocks))


def _cards(title: str, keys: Sequence[Key], compared: Compared, shown: int) -> SideBySide:
    return SideBySide(title, tuple(_card(compared, key) for key in keys), shown)


def _new_inventions(compared: Compared, key: Key) -> int:
    both = compared.checked[key]
    return len(both.after.invented) - len(both.before.invented)


def _card(compared: Compared, key: Key) -> Comparison:
    rows = [one.examples[key] for one in (compared.before, compared.after)]
    scores = [row["scores"].get(compared.rank_by) for row in rows]
    change = change_of(compared, key)
    shown = f"{compared.rank_by} {number(scores[0])} → {number(scores[1])}"
    shown += f" ({signed(change)})" if change is not None else ""
    both = compared.checked.get(key)
    references = rows[0]["references"] or [rows[0]["target"]]
    spans = [_marked(row["prediction"], both, place) for place, row in enumerate(rows)]
    return Comparison(
        title=rows[0]["id"] or f"{key[0]} {key[3]}",
        scores=shown,
        source=rows[0]["source"] or rows[0]["prompt"],
        references=tuple(
            compare_faithfulness.reference_spans(text, both)
            if both
            else compare_faithfulness.marked(text, {})
            for text in references
        ),
        outputs=(
            Output("before", spans[0], 0, _notes(both, 0)),
            Output("after", spans[1], 1, _notes(both, 1)),
        ),
    )


def _marked(text: str, both: Both | None, place: int) -> tuple[Span, ...]:
    if both is None:
        return compare_faithfulness.marked(text, {})
    return compare_faithfulness.output_spans(text, (both.before, both.after)[place])


def _notes(both: Both | None, place: int) -> tuple[str, ...]:
    return compare_faithfulness.remarks((both.before, both.after)[place]) if both else ()


def _conditions_section(compared: Compared) -> Section:
    first, second = conditions(compared.before), conditions(compared.after)
    rows = []
    for name in dict.fromkeys([*first, *second]):
        values = first.get(name, "–"), second.get(name, "–")
        rows.append(Row((name, *values, "" if values[0] == values[1] else "differs")))
    table = Table(("Condition", "Before", "After", ""), tuple(rows), 4)
    return Section("conditions", "Conditions of both runs", (table,))
