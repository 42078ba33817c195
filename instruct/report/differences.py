"""Runs against the first one: paired tests over the examples that both answered, as bars and table.

Compared are the papers' suites (as `measures` defines them) and every other suite that both runs
have, each at its latest step. Where no examples can be paired, two standard errors stand in.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from instruct import results
from instruct.errors import UserError
from instruct.report import measures, paired, paper_tables
from instruct.report.blocks import Bar, Bars, Block, Row, Section, Table, Text
from instruct.report.run_files import Run
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
_KEPT = ("task", "mode", "split", "index", "id", "target", "correct", "scores", "kind")
_FEW_PAIRS = "too few common examples: from the two standard errors"

Example = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Compared:
    """A suite in one run and in the first one.

    Attributes:
        title: of the suite. column: its key in `measures`, or "". run: place of the other run.
        test: of all pairs, tasks weighing the same; None where examples cannot be paired.
        tasks: the same task by task.
        difference, low, high: second minus first and its 95 per cent interval, points.
        note: what to know about it.
    """

    title: str
    column: str
    run: int
    test: paired.PairedTest | None
    tasks: dict[str, paired.PairedTest]
    difference: float
    low: float | None
    high: float | None
    note: str


class _Examples:
    """Example lines of runs, read once a file and without their long texts."""

    def __init__(self) -> None:
        self._read: dict[tuple[str, str, int], list[Example]] = {}

    def of(self, run: Run, suite: str, step: int) -> list[Example]:
        key = (str(run.path), suite, step)
        if key not in self._read:
            path = run.path / "eval" / suite / f"step_{step}" / results.FILE_NAME
            try:
                rows = results.read_rows(path, ("example",))
                made = [{name: row[name] for name in _KEPT} | {"suite": suite} for row in rows]
            except (UserError, OSError):
                made = []  # read_runs has told of damaged files
            self._read[key] = made
        return self._read[key]


def compare_runs(runs: Sequence[Run]) -> list[Compared]:
    """Every run against the first, suite by suite, in the order of the suites."""
    examples = _Examples()
    made = []
    covered: set[str] = set()
    for column in COLUMNS:
        scores = [measures.score(run, column) for run in runs]
        for score in scores:
            covered |= {row["suite"] for row in score.rows} if score else set()
        for place in range(1, len(runs)):
            first, second = scores[0], scores[place]
            if first is not None and second is not None:
                sides = [_of_score(examples, runs[n], scores[n]) for n in (0, place)]
                means = [(score.value, score.stderr) for score in (first, second)]
                title = measures.title_of(column)
                made.append(_compared(title, column, place, sides, means))
    for suite in dict.fromkeys(suite for run in runs for suite in run.suites()):
        if suite not in covered:
            made += _compare_suite(examples, runs, suite)
    return [found for found in made if found is not None]


def _of_score(examples: _Examples, run: Run, score: measures.Score | None) -> list[Example]:
    if score is None:
        return []
    takes = measures.MEASURES[score.column].takes
    suites = dict.fromkeys(row["suite"] for row in score.rows)
    chosen: dict[tuple[str, str, int], Example] = {}
    for suite in suites:
        for row in examples.of(run, suite, score.step):
            if takes(row):
                chosen.setdefault((row["task"], row["mode"], row["index"]), row)
    return list(chosen.values())


def _compare_suite(examples: _Examples, runs: Sequence[Run], suite: str) -> list["Compared | None"]:
    latest = [run.latest(suite) for run in runs]
    first = latest[0]
    if first is None:
        return []
    made = []
    for place, second in enumerate(latest[1:], start=1):
        if second is None:
            continue
        sides = [examples.of(runs[n], suite, e.step) for n, e in ((0, first), (place, second))]
        means = [results.aggregate(e.metrics) for e in (first, second)]
        pair = [(mean.value, mean.stderr) for mean in means]
        made.append(_compared(suite, "", place, sides, pair))
    return made


def _compared(
    title: str,
    column: str,
    place: int,
    sides: Sequence[Sequence[Mapping[str, Any]]],
    means: Sequence[tuple[float | None, float | None]],
) -> Compared | None:
    tests = paired.compare_rows(sides[0], sides[1])
    most = max(len(side) for side in sides)
    # A few common examples of many would speak for the rest without being a sample of them.
    if tests and 2 * tests[""].n >= most:
        whole = tests.pop("")
        lacking = most - whole.n
        note = f"{counted(lacking, 'example')} of one run only left out" if lacking else ""
        values = (whole.difference, whole.low, whole.high)
        return Compared(title, column, place, whole, tests, *values, note)
    (first, first_error), (second, second_error) = means
    if first is None or second is None:
        return None
    change = second - first
    if first_error is None or second_error is None:
        return Compared(title, column, place, None, {}, change, None, None, _FEW_PAIRS)
    reach = 1.96 * math.hypot(first_error, second_error)
    values = (change, change - reach, change + reach)
    return Compared(title, column, place, None, {}, *values, _FEW_PAIRS)


def differences_section(runs: Sequence[Run]) -> Section | None:
    """Bars and tables of all runs against the first; None for one run or nothing in common."""
    found = compare_runs(runs) if len(runs) > 1 else []
    if not found:
        return None
    text = (
        f"Every run against {runs[0].label}, on the examples that both answered. Intervals and p "
        "are of the paired bootstrap over examples, tasks weighing the same; neither knows of the "
        "chance in training. p after Holm allows for looking at all suites of a run at once."
    )
    blocks: list[Block] = [Text(text, quiet=True), _bars(runs, found)]
    printed = _printed_bars({compared.column for compared in found})
    if printed is not None:
        blocks.append(printed)
    blocks.append(_suite_table(runs, found))
    blocks += _task_tables(runs, found)
    return Section("differences", f"Against {runs[0].label}", tuple(blocks))


def _bars(runs: Sequence[Run], found: Sequence[Compared]) -> Bars:
    groups = []
    for title in dict.fromkeys(compared.title for compared in found):
        inside = [compared for compared in found if compared.title == title]
        groups.append(
            (
                title,
                tuple(
                    Bar(runs[c.run].label, c.difference, c.low, c.high, c.run, _p_text(c.test))
                    for c in inside
                ),
            )
        )
    return Bars(f"Change against {runs[0].label}", tuple(groups), "points")


def _p_text(test: paired.PairedTest | None) -> str:
    if test is None:
        return "unpaired"
    return p_equals(test.p)


def _printed_bars(columns: set[str]) -> Bars | None:
    """The Flan Collection's ablations on the suites that were compared, as its table 1 has them."""
    table = paper_tables.find_table("flan_collection.1")
    whole, *others = table.rows
    removed = [row for row in others if row.labels[0].startswith(f"{whole.labels[0]} - ")]
    groups = []
    for ours, theirs in _PAPER_COLUMNS.items():
        if ours in columns:
            place = table.columns.index(theirs)
            bars = []
            for color, row in enumerate(removed):
                label = "–" + row.labels[0].removeprefix(f"{whole.labels[0]} -")
                change = row.values[place] - whole.values[place]
                bars.append(Bar(label, change, color=4 + color, printed=True))
            groups.append((measures.title_of(theirs), tuple(bars)))
    if not groups:
        return None
    title = f"{table.paper}, table 1: change against {whole.labels[0]} (T5-XL)"
    return Bars(title, tuple(groups), "points")


def _suite_table(runs: Sequence[Run], found: Sequence[Compared]) -> Table:
    corrected: dict[int, float] = {}
    for run in {compared.run for compared in found}:
        inside = [c for c in found if c.run == run and c.test is not None]
        values = paired.holm([c.test.p for c in inside if c.test is not None])
        corrected |= {id(c): p for c, p in zip(inside, values)}
    rows = []
    for compared in found:
        test = compared.test
        cells = [compared.title, runs[compared.run].label]
        cells += [number(test.first), number(test.second)] if test else ["–", "–"]
        cells += [signed(compared.difference), interval(compared.low, compared.high)]
        if test:
            cells += [probability(test.p), probability(corrected[id(compared)]), f"{test.n:,}"]
            cells += [f"{test.wins:,} / {test.losses:,}"]
        else:
            cells += ["–"] * 4
        rows.append(Row((*cells, compared.note)))
    columns = ("Suite", "Run", runs[0].label, "Run's", "Change", "95 % interval", "p", "p (Holm)")
    return Table((*columns, "n", "Better / worse", "Note"), tuple(rows), 2)


def interval(low: float | None, high: float | None) -> str:
    """`-1.2 to +3.4`, "–" where it is not known."""
    return "–" if low is None or high is None else f"{signed(low)} to {signed(high)}"


def _task_tables(runs: Sequence[Run], found: Sequence[Compared]) -> list[Table]:
    """One folded table a run: every task, the largest changes first, p corrected over all."""
    made = []
    for place, run in enumerate(runs):
        tests = [
            (compared.title, name, test)
            for compared in found
            if compared.run == place
            for name, test in compared.tasks.items()
        ]
        if not tests:
            continue
        corrected = paired.holm([test.p for _, _, test in tests])
        ranked = sorted(zip(tests, corrected), key=lambda item: -abs(item[0][2].difference))
        rows = []
        for (title, name, test), p in ranked:
            cells = (name, title, number(test.first), number(test.second))
            change = (signed(test.difference), interval(test.low, test.high))
            rows.append(Row((*cells, *change, probability(p), f"{test.n:,}")))
        columns = ("Task", "Suite", runs[0].label, run.label, "Change", "95 % interval")
        fold = f"{all_of(len(rows), 'task')} of {run.label} against {runs[0].label}"
        made.append(Table((*columns, "p (Holm)", "n"), tuple(rows), 2, fold=fold))
    return made
