"""Runs against the first one: paired tests over the examples that both answered, as bars and table.

Compared are the papers' suites (as `measures` defines them) and every other suite that both runs
have, each at its latest step. Where no examples can be paired, two standard errors stand in.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence

from instruct import results
from instruct.report.blocks import Bar, Bars, Block, Row, Section, Table, Text
from instruct.report.compare import Example, pair_examples, paired_test, task_tests
from instruct.report.papers import measures, printed_tables
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
_FEW_PAIRS = "too few common examples: from the two standard errors"


@dataclasses.dataclass(frozen=True)
class Side:
    """A run's score on a suite, and the evaluations that hold its examples.

    Attributes:
        takes: whether an example counts.
    """

    value: float | None
    stderr: float | None
    evaluations: tuple[Evaluation, ...]
    takes: Callable[[Example], bool] = lambda line: True

    def examples(self) -> list[Example]:
        """Each example once, although evaluations may share tasks."""
        lines: dict[tuple[str, str, int], Example] = {}
        for evaluation in self.evaluations:
            for line in filter(self.takes, evaluation.scored):
                lines.setdefault((line["task"], line["mode"], line["index"]), line)
        return list(lines.values())


@dataclasses.dataclass(frozen=True)
class Difference:
    """A suite in one run and in the first one.

    Attributes:
        title: of the suite. column: its key in `measures`, or "". run: number of the other run.
        test: of all pairs, tasks weighing the same; None where examples cannot be paired.
        tasks: the same task by task.
        change, low, high: second minus first and its 95 per cent interval, points.
        note: what to know about it.
    """

    title: str
    column: str
    run: int
    test: PairedTest | None
    tasks: dict[str, PairedTest]
    change: float
    low: float | None
    high: float | None
    note: str


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
    """(title, key in `measures`, a side for each run that has it) of everything to compare."""
    covered: set[str] = set()
    for column in COLUMNS:
        scores = [measures.score(run, column) for run in runs]
        covered |= {row["suite"] for score in scores if score for row in score.rows}
        takes = measures.MEASURES[column].takes
        sides = [score and _measured(run, score, takes) for run, score in zip(runs, scores)]
        yield measures.title_of(column), column, sides
    for suite in dict.fromkeys(suite for run in runs for suite in run.suites()):
        if suite not in covered:
            yield suite, "", [_latest(run, suite) for run in runs]


def _measured(run: Run, score: measures.Score, takes: Callable[[Example], bool]) -> Side:
    suites = dict.fromkeys(row["suite"] for row in score.rows)
    by_suite = {e.suite: e for e in run.evaluations if e.step == score.step}
    evaluations = tuple(by_suite[suite] for suite in suites)
    return Side(score.value, score.stderr, evaluations, takes)


def _latest(run: Run, suite: str) -> Side | None:
    evaluation = run.latest(suite)
    if evaluation is None:
        return None
    mean = results.aggregate(evaluation.metrics)
    return Side(mean.value, mean.stderr, (evaluation,))


def _difference(title: str, column: str, run: int, first: Side, second: Side) -> Difference | None:
    make = functools.partial(Difference, title, column, run)
    lines = [first.examples(), second.examples()]
    most = max(map(len, lines))
    pairs = pair_examples(lines)
    test = paired_test(pairs)
    # A few common examples of many would speak for the rest without being a sample of them.
    if test is not None and 2 * test.n >= most:
        lacking = most - test.n
        note = f"{counted(lacking, 'example')} of one run only left out" if lacking else ""
        return make(test, task_tests(pairs), test.difference, test.low, test.high, note)
    if first.value is None or second.value is None:
        return None
    change = second.value - first.value
    if first.stderr is None or second.stderr is None:
        return make(None, {}, change, None, None, _FEW_PAIRS)
    reach = 1.96 * math.hypot(first.stderr, second.stderr)
    return make(None, {}, change, change - reach, change + reach, _FEW_PAIRS)


def differences_section(runs: Sequence[Run]) -> Section | None:
    """Bars and tables of all runs against the first; None for one run or nothing in common."""
    differences = compare_runs(runs) if len(runs) > 1 else []
    if not differences:
        return None
    text = (
        f"Every run against {runs[0].label}, on the examples that both answered. Intervals and p "
        "are of the paired bootstrap over examples, tasks weighing the same; neither knows of the "
        "chance in training. p after Holm allows for looking at all suites of a run at once."
    )
    printed = _printed_bars({difference.column for difference in differences})
    blocks: list[Block] = [
        *(Text(text, quiet=True), _bars(runs, differences), *printed),
        _suite_table(runs, differences),
    ]
    for number_of_run, run in enumerate(runs):
        inside = [d for d in differences if d.run == number_of_run]
        blocks += _task_table(runs[0].label, run.label, inside)
    return Section("differences", f"Against {runs[0].label}", tuple(blocks))


def _bars(runs: Sequence[Run], differences: Sequence[Difference]) -> Bars:
    groups: dict[str, list[Bar]] = {}
    for d in differences:
        note = p_equals(d.test.p) if d.test else "unpaired"
        bar = Bar(runs[d.run].label, d.change, d.low, d.high, d.run, note)
        groups.setdefault(d.title, []).append(bar)
    bars = tuple((title, tuple(inside)) for title, inside in groups.items())
    return Bars(f"Change against {runs[0].label}", bars, "points")


def _printed_bars(columns: set[str]) -> list[Bars]:
    """The Flan Collection's ablations on the suites that were compared, as its table 1 has them."""
    table = printed_tables.find_table("flan_collection.1")
    whole, *others = table.rows
    name = whole.labels[0]
    removed = [row for row in others if row.labels[0].startswith(f"{name} - ")]
    groups = []
    for column in (theirs for ours, theirs in _PAPER_COLUMNS.items() if ours in columns):
        index = table.columns.index(column)
        bars = [
            Bar(
                "–" + row.labels[0].removeprefix(f"{name} -"),
                row.values[index] - whole.values[index],
                color=color,
                printed=True,
            )
            for color, row in enumerate(removed, start=4)
        ]
        groups.append((measures.title_of(column), tuple(bars)))
    title = f"{table.paper}, table 1: change against {name} (T5-XL)"
    return [Bars(title, tuple(groups), "points")] if groups else []


def _suite_table(runs: Sequence[Run], differences: Sequence[Difference]) -> Table:
    corrected: dict[int, float] = {}
    for run in {difference.run for difference in differences}:
        tests = [d.test for d in differences if d.run == run and d.test is not None]
        corrected |= zip(map(id, tests), holm([test.p for test in tests]))
    rows = []
    for d in differences:
        test = d.test
        change = (signed(d.change), _interval(d.low, d.high))
        means, rest = ("–", "–"), ("–",) * 4
        if test:
            means = (number(test.first), number(test.second))
            rest = (probability(test.p), probability(corrected[id(test)]), f"{test.n:,}")
            rest += (f"{test.wins:,} / {test.losses:,}",)
        rows.append(Row((d.title, runs[d.run].label, *means, *change, *rest, d.note)))
    columns = ("Suite", "Run", runs[0].label, "Run's", "Change", "95 % interval", "p", "p (Holm)")
    return Table((*columns, "n", "Better / worse", "Note"), tuple(rows), 2)


def _interval(low: float | None, high: float | None) -> str:
    """`-1.2 to +3.4`, "–" where it is not known."""
    return "–" if low is None or high is None else f"{signed(low)} to {signed(high)}"


def _task_table(first: str, label: str, differences: Sequence[Difference]) -> list[Table]:
    """A run's tasks, folded: the largest changes first, p corrected over all; [] without any."""
    tests = [(name, d.title, test) for d in differences for name, test in d.tasks.items()]
    corrected = holm([test.p for _, _, test in tests])
    ranked = sorted(zip(tests, corrected), key=lambda item: -abs(item[0][2].difference))
    rows = [
        Row(
            (
                *(name, title, number(test.first), number(test.second), signed(test.difference)),
                *(_interval(test.low, test.high), probability(p), f"{test.n:,}"),
            )
        )
        for (name, title, test), p in ranked
    ]
    columns = ("Task", "Suite", first, label, "Change", "95 % interval", "p (Holm)", "n")
    fold = f"{all_of(len(rows), 'task')} of {label} against {first}"
    return [Table(columns, tuple(rows), 2, fold=fold)] if rows else []
