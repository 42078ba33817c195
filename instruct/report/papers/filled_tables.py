"""A paper's table with our runs beside it: for the terminal (`report --table`) and for the page."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from instruct import results
from instruct.report.blocks import Block, DotRow, Dots, Mark, Row, Section, Table, Text
from instruct.report.papers import measures, printed_tables
from instruct.report.papers.measures import Score
from instruct.report.papers.printed_tables import PaperRow, PaperTable
from instruct.report.read import Run
from instruct.report.tables import with_error

# The table that the page draws, and the measures that have a line of their own in it.
MAIN = "flan_palm.5"


@dataclasses.dataclass(frozen=True)
class OurRow:
    """A run's line in a paper's table: labels as the table has them, and a score a column."""

    labels: tuple[str, ...]
    scores: tuple[Score | None, ...]

    @property
    def found(self) -> list[Score]:
        """The scores that there are."""
        return [score for score in self.scores if score is not None]


@dataclasses.dataclass(frozen=True)
class Filled:
    """A paper's table and our lines for it; runs without any score of it have none.

    Attributes:
        without: labels of those runs.
        differences: (suite, what in protocol sets our number apart).
        conditions: how ours were measured.
    """

    table: PaperTable
    ours: tuple[OurRow, ...]
    without: tuple[str, ...]
    differences: tuple[tuple[str, str], ...]
    conditions: tuple[str, ...]


def fill(table: PaperTable, runs: Sequence[Run]) -> Filled:
    """Our scores for every column that results can fill."""
    rows, without = [], []
    for run in runs:
        made = [row for row in _our_rows(table, run) if row.found]
        rows += made
        if not made:
            without.append(run.label)
    scores = [score for row in rows for score in row.found]
    return Filled(
        table,
        tuple(rows),
        tuple(without),
        tuple(measures.differences(scores, table.mmlu_split)),
        tuple(measures.conditions(scores)),
    )


def _our_rows(table: PaperTable, run: Run) -> list[OurRow]:
    size = _size(run)
    if "Prompting" not in table.labels:
        place = {"Params": size, "Tasks": str(trained_tasks(run) or "–")}
        last = next(name for name in table.labels if name not in place)
        labels = tuple(run.label if n == last else place.get(n, "–") for n in table.labels)
        scores = [
            measures.score(run, _plain(column)) if measures.is_measure(column) else None
            for column in table.columns
        ]
        return [OurRow(labels, tuple(scores))]
    made = []
    for prompting in measures.PROMPTINGS:
        modes = measures.DIRECT if prompting == "direct" else measures.COT
        scores = []
        for column in table.columns:
            key = measures.prompted(column, prompting)
            voted = prompting == measures.VOTED
            scores.append(measures.score(run, key, modes=modes, voted=voted) if key else None)
        made.append(OurRow((run.label, prompting), tuple(scores)))
    return made


def _plain(column: str) -> str:
    """A table without promptings means direct answers by "mmlu"."""
    return "mmlu_direct" if column == "mmlu" else column


def trained_parameters(run: Run) -> float | None:
    """The number of parameters in run.json, or None."""
    model = run.info.get("model")
    nested = model.get("num_params") if isinstance(model, dict) else None
    value = run.info.get("num_params", nested)
    return float(value) if isinstance(value, int | float) and value > 0 else None


def trained_tasks(run: Run) -> int | None:
    """How many distinct tasks the mixture as realised has, or None where it is not known."""
    leaves = [leaf for leaf in run.mixture.get("leaves", ()) if isinstance(leaf, dict)]
    return len({str(leaf.get("task") or leaf.get("name")) for leaf in leaves}) or None


def _size(run: Run) -> str:
    value = trained_parameters(run)
    if value is None:
        return "–"
    for unit, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{suffix}"
    return f"{value:.0f}"


def paper_value(column: str, value: float) -> str:
    """A printed figure: one digit where it is a score, else as short as it is."""
    if math.isnan(value):
        return "–"
    if measures.is_measure(column):
        return f"{value:.1f}"
    return f"{value:,.0f}" if value == int(value) and 1000 <= value < 1e7 else f"{value:g}"


def lines(content: Filled) -> tuple[tuple[str, ...], list[Row]]:
    """(headings, lines): the paper's, then ours in bold with ± one standard error."""
    table = content.table
    headings = (*table.labels, *(measures.title_of(column) for column in table.columns))
    made = []
    for row in table.rows:
        values = map(paper_value, table.columns, row.values)
        made.append(Row((*row.labels, *values)))
    for ours in content.ours:
        values = (with_error(s.value, s.stderr) if s else "–" for s in ours.scores)
        made.append(Row((*ours.labels, *values), strong=True))
    return headings, made


def remarks(content: Filled) -> list[str]:
    """Sentences for under the table: source, notes on the figures, conditions, differences."""
    told = [f"Figures: {content.table.source}.", *content.table.notes]
    protocols = measures.protocols(content.table.columns, content.table.mmlu_split)
    if protocols:
        told += ["The paper's protocol:", *(f"- {text}." for text in protocols)]
    if content.conditions:
        told.append(f"Ours: {'; '.join(content.conditions)}; ± is one standard error.")
    if content.differences:
        told.append("What differs from the paper's protocol:")
        told += [f"- {text}" for text in measures.sentences(content.differences)]
    return told


DETAIL_COLUMNS = (
    *("Run", "Column", "Score ± s.e.", "n", "Sub-tasks", "Exemplars", "Split", "Metric", "Step"),
)


def details(content: Filled) -> list[Row]:
    """A line for each of our scores: examples, sub-tasks, exemplars, split, metric and step."""
    made = []
    for ours in content.ours:
        for score in ours.found:
            made.append(
                Row(
                    (
                        " ".join(label for label in ours.labels if label != "–"),
                        measures.title_of(score.column),
                        with_error(score.value, score.stderr),
                        f"{score.n:,}",
                        f"{score.tasks} of {score.expected}",
                        results.exemplars_text(results.exemplars_of(score.rows)),
                        ", ".join(sorted({row["split"] for row in score.rows})),
                        ", ".join(sorted({row["metric"] for row in score.rows})),
                        f"{score.step:,}",
                    )
                )
            )
    return made


def as_json(content: Filled) -> dict[str, Any]:
    """The same as plain values."""
    table = content.table

    def finite(value: float | None) -> float | None:
        return value if value is not None and math.isfinite(value) else None

    def one(score: Score | None) -> dict[str, Any] | None:
        if score is None:
            return None
        shown = results.exemplars_of(score.rows)
        return {
            "value": finite(score.value),
            "stderr": finite(score.stderr),
            "n": score.n,
            "sub_tasks": score.tasks,
            "expected_sub_tasks": score.expected,
            "exemplars": None if shown is None else dataclasses.asdict(shown),
            "step": score.step,
        }

    return {
        "table": table.name,
        "title": table.title,
        "source": table.source,
        "paper": [
            dict(zip(table.labels, row.labels)) | dict(zip(table.columns, map(finite, row.values)))
            for row in table.rows
        ],
        "ours": [
            dict(zip(table.labels, row.labels)) | dict(zip(table.columns, map(one, row.scores)))
            for row in content.ours
        ],
        "notes": list(table.notes),
        "conditions": list(content.conditions),
        "differences": measures.sentences(content.differences),
        "without_results": list(content.without),
    }


def nearest_row(runs: Sequence[Run]) -> PaperRow:
    """The paper's Flan-T5 nearest in size to the first run of known size; else the smallest."""
    table = printed_tables.find_table(MAIN)
    tuned = [row for row in table.rows if row.labels[1].startswith("Flan-T5")]
    sizes = [trained_parameters(run) for run in runs]
    wanted = next((size for size in sizes if size is not None), None)
    if wanted is None:
        return tuned[0]

    def apart(row: PaperRow) -> float:
        return abs(math.log((printed_tables.parameters(row.labels[0]) or 1.0) / wanted))

    return min(tuned, key=apart)


def papers_section(runs: Sequence[Run]) -> Section | None:
    """The page's section: our scores with the nearest Flan-T5 as tick, then the tables, folded.

    None where no run has results of a suite of the papers.
    """
    contents = [fill(table, runs) for table in printed_tables.all_tables().values()]
    filled = [content for content in contents if content.ours]
    if not filled:
        return None
    blocks: list[Block] = []
    main = next((content for content in filled if content.table.name == MAIN), None)
    if main is not None:
        blocks.append(_plot(main, runs))
    told = _all_differences(filled)
    if told:
        text = "What differs from the papers' protocols: " + " ".join(told)
        blocks.append(Text(text, quiet=True))
    scores = [score for content in filled for row in content.ours for score in row.found]
    conditions = measures.conditions(scores)
    blocks.append(Text(f"Ours: {'; '.join(conditions)}. ± is one standard error.", quiet=True))
    scored = dict.fromkeys(line for content in filled for line in details(content))
    fold = "Our scores: n, sub-tasks, exemplars shown, split, metric and step of each"
    blocks.append(Table(DETAIL_COLUMNS, tuple(scored), 2, fold=fold))
    for content in filled:
        headings, rows = lines(content)
        table = content.table
        fold = f"{table.paper}, table {table.name.partition('.')[2]}: {table.title}"
        blocks.append(Table(headings, tuple(rows), len(table.labels), fold=fold))
    return Section("papers", "Beside the papers", tuple(blocks))


def _all_differences(contents: Sequence[Filled]) -> list[str]:
    """What differs, each thing once; with the tables it is true of if the main one is not."""
    where: dict[tuple[str, str], list[str]] = {}
    for content in contents:
        for pair in content.differences:
            where.setdefault(pair, []).append(content.table.name)
    return measures.sentences(
        (title, what if MAIN in names else f"{what} ({', '.join(names)})")
        for (title, what), names in where.items()
    )


def _plot(content: Filled, runs: Sequence[Run]) -> Dots:
    row = nearest_row(runs)
    colors = {run.label: color for color, run in enumerate(runs)}
    place = content.table.labels.index("Model")
    lines_of = []
    for at, column in enumerate(content.table.columns):
        marks = []
        for ours in content.ours:
            score = ours.scores[at]
            if score is not None and score.value is not None:
                marks.append(Mark(score.value, score.stderr, colors[ours.labels[place]]))
        if marks:
            lines_of.append(DotRow(measures.title_of(column), tuple(marks), row.values[at]))
    legend = tuple((colors[o.labels[place]], o.labels[place]) for o in content.ours)
    return Dots(
        "Suites of the papers",
        tuple(lines_of),
        legend,
        "score (%)",
        tabled=True,
        tick=f"{row.labels[1]} ({row.labels[0]}), {content.table.paper}",
    )
