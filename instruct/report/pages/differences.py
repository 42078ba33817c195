"""Runs against the first one: paired tests over the examples that both answered, as bars and table.

Compares the papers' suites (as `measures` defines them) and every other suite that both runs have,
each at its latest step. Where no examples can be paired, the two standard errors stand in.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from instruct import results
from instruct.report.blocks import Bar, Bars, Block, Row, Section, Table, Text
from instruct.report.compare import Example, pair_examples, paired_test, task_tests
from instruct.report.papers import measures, printed_tables
from instruct.report.papers.printed_tables import PaperRow, PaperTable
from instruct.report.read import Evaluation, Run
from instruct.report.statistics import PairedTest, holm
from instruct.report.wording import all_of, counted, number, p_equals, probability, signed

COLUMNS = (
    *("mmlu_direct", "mmlu_cot", "bbh_direct", "bbh_cot", "tydiqa", "mgsm"),
    *("held_in@zero", "held_in@few", "cot_eval@zero", "cot_eval@few"),
)
# Columns of the Flan Collection's table 1 that correspond to ours.
_PAPER_COLUMNS = {
    "mmlu_direct": "mmlu_direct@few",
    "bbh_direct": "bbh_direct@few",
    "bbh_cot": "bbh_cot@few",
    **{name: name for name in ("held_in@zero", "held_in@few", "cot_eval@zero", "cot_eval@few")},
}


class Side(NamedTuple):
    """A run's score on a suite, and the evaluations with its examples."""

    value: float | None
    stderr: float | None
    evaluations: Sequence[Evaluation]
    takes: Callable[[Example], bool] = lambda line: True  # whether an example counts

    def examples(self) -> list[Example]:
        """Each example once, even if evaluations share tasks."""
        lines: dict[tuple[str, str, int], Example] = {}
        for evaluation in self.evaluations:
            for line in filter(self.takes, evaluation.scored):
                lines.setdefault((line["task"], line["mode"], line["index"]), line)
        return list(lines.values())


class Difference(NamedTuple):
    """A run's score on a suite minus the first run's."""

    title: str  # of the suite
    column: str  # its key in `measures`, or ""
    run: int  # index of the other run
    change: float  # second minus first, points
    low: float | None  # 95 per cent interval of `change`
    high: float | None
    note: str
    test: PairedTest | None = None  # of all pairs, tasks weighted equally; None without pairs
    tasks: Mapping[str, PairedTest] = {}  # the same by task


def compare_runs(runs: Sequence[Run]) -> list[Difference]:
    """Every run against the first, suite by suite, in the order of the suites."""
    return [
        difference
        for title, column, (first, *others) in _suites(runs)
        for run, other in enumerate(others, start=1)
        if first and other
        if (difference := _difference(title, column, run, first, other)) is not None
    ]


def _suites(runs: Sequence[Run]) -> Iterator[tuple[str, str, list[Side | None]]]:
    """(title, key in `measures`, each run's side or None) of everything to compare."""
    covered: set[str] = set()
    for column in COLUMNS:
        sides: list[Side | None] = [None] * len(runs)
        for index, run in enumerate(runs):
            if score := measures.score(run, column):
                suites = dict.fromkeys(row["suite"] for row in score.rows)
                covered |= suites.keys()
                by_suite = {e.suite: e for e in run.evaluations if e.step == score.step}
                evaluations = [by_suite[suite] for suite in suites]
                takes = measures.MEASURES[column].takes
                sides[index] = Side(score.value, score.stderr, evaluations, takes)
        yield measures.title_of(column), column, sides
    for suite in dict.fromkeys(suite for run in runs for suite in run.suites()):
        if suite not in covered:
            sides = [None] * len(runs)
            for index, run in enumerate(runs):
                if evaluation := run.latest(suite):
                    mean = results.aggregate(evaluation.metrics)
                    sides[index] = Side(mean.value, mean.stderr, [evaluation])
            yield suite, "", sides


def _difference(title: str, column: str, run: int, first: Side, second: Side) -> Difference | None:
    lines = [first.examples(), second.examples()]
    most = max(map(len, lines))
    pairs = pair_examples(lines)
    test = paired_test(pairs)
    # A few common examples of many are no sample of the rest.
    if test is not None and 2 * test.n >= most:
        lacking = most - test.n
        note = f"{counted(lacking, 'example')} of one run only left out" if lacking else ""
        points = (test.difference, test.low, test.high)
        return Difference(title, column, run, *points, note, test, task_tests(pairs))
    if first.value is None or second.value is None:
        return None
    change, low, high = second.value - first.value, None, None
    if first.stderr is not None and second.stderr is not None:
        reach = 1.96 * math.hypot(first.stderr, second.stderr)
        low, high = change - reach, change + reach
    note = "too few common examples: from the two standard errors"
    return Difference(title, column, run, change, low, high, note)


def differences_section(runs: Sequence[Run]) -> Section | None:
    """Bars and tables of all runs against the first; None for one run or nothing in common."""
    differences = compare_runs(runs) if len(runs) > 1 else []
    if not differences:
        return None
    first = runs[0].label
    text = (
        f"Every run against {first}, on the examples that both answered. Intervals and p "
        "are of the paired bootstrap over examples, tasks weighing the same; neither knows of the "
        "chance in training. p after Holm allows for looking at all suites of a run at once."
    )
    groups: dict[str, tuple[Bar, ...]] = {}
    for d in differences:
        note = p_equals(d.test.p) if d.test else "unpaired"
        bar = Bar(runs[d.run].label, d.change, d.low, d.high, d.run, note)
        groups[d.title] = (*groups.get(d.title, ()), bar)
    blocks: list[Block] = [
        Text(text, quiet=True),
        Bars(f"Change against {first}", list(groups.items()), "points"),
        *_printed_bars({difference.column for difference in differences}),
        _suite_table(runs, differences),
    ]
    for index, run in enumerate(runs):
        blocks += _task_table(first, run.label, [d for d in differences if d.run == index])
    return Section("differences", f"Against {first}", blocks)


def _printed_bars(columns: set[str]) -> list[Bars]:
    """The ablations of the Flan Collection's table 1 on the suites that were compared."""
    table = printed_tables.find_table("flan_collection.1")
    prefix = f"{table.rows[0].labels[0]} - "
    ablations = [row for row in table.rows if row.labels[0].startswith(prefix)]
    theirs = [theirs for ours, theirs in _PAPER_COLUMNS.items() if ours in columns]
    return printed_bars(table, theirs, ablations)


def printed_bars(table: PaperTable, columns: Sequence[str], rows: Sequence[PaperRow]) -> list[Bars]:
    """Differences of a printed table's rows to its first row; [] without columns.

    Args:
        columns: some of the table's.
        rows: some of the table's.
    """
    whole = table.rows[0]
    name = whole.labels[0]
    groups = []
    for column in columns:
        index = table.columns.index(column)
        bars = []
        for color, row in enumerate(rows, start=4):
            change = row.values[index] - whole.values[index]
            label = re.sub(rf"^{re.escape(name)} -", "–", row.labels[0])
            bars.append(Bar(label, change, color=color, printed=True))
        groups.append((measures.title_of(column), tuple(bars)))
    title = f"{table.paper}, table {table.name.partition('.')[2]}: change against {name}"
    return [Bars(title, groups, "points")] if groups else []


def _suite_table(runs: Sequence[Run], differences: Sequence[Difference]) -> Table:
    corrected: dict[int, float] = {}
    for run in range(len(runs)):
        tests = [d.test for d in differences if d.run == run and d.test]
        corrected |= zip(map(id, tests), holm([test.p for test in tests]))
    rows = []
    for d in differences:
        means, significance = ("–", "–"), ("–",) * 4
        if test := d.test:
            means = (number(test.first), number(test.second))
            significance = (probability(test.p), probability(corrected[id(test)]))
            significance += (f"{test.n:,}", f"{test.wins:,} / {test.losses:,}")
        change = (signed(d.change), _interval(d.low, d.high))
        rows.append(Row((d.title, runs[d.run].label, *means, *change, *significance, d.note)))
    columns = ("Suite", "Run", runs[0].label, "Run's", "Change", "95 % interval", "p", "p (Holm)")
    return Table((*columns, "n", "Better / worse", "Note"), rows, 2)


def _interval(low: float | None, high: float | None) -> str:
    """`-1.2 to +3.4`, "–" if unknown."""
    return "–" if low is None or high is None else f"{signed(low)} to {signed(high)}"


def _task_table(first: str, label: str, differences: Sequence[Difference]) -> list[Table]:
    """A run's tasks, folded: the largest changes first, p corrected over all; [] without any."""
    tests = [(name, d.title, test) for d in differences for name, test in d.tasks.items()]
    corrected = zip(tests, holm([test.p for _, _, test in tests]))
    rows = []
    for (name, title, test), p in sorted(corrected, key=lambda row: -abs(row[0][2].difference)):
        means = (number(test.first), number(test.second), signed(test.difference))
        interval = _interval(test.low, test.high)
        rows.append(Row((name, title, *means, interval, probability(p), f"{test.n:,}")))
    columns = ("Task", "Suite", first, label, "Change", "95 % interval", "p (Holm)", "n")
    fold = f"{all_of(len(rows), 'task')} of {label} against {first}"
    return [Table(columns, rows, 2, fold=fold)] if rows else []
