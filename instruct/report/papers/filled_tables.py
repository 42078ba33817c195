"""A paper's table with our runs beside it: for the terminal (`report --table`) and for the page."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from instruct import results
from instruct.report.blocks import Block, DotRow, Dots, Mark, Row, Section, Table, Text
from instruct.report.papers import measures, printed_tables
from instruct.report.papers.measures import Score
from instruct.report.papers.printed_tables import PARAMETERS, PaperRow, PaperTable
from instruct.report.read import Run
from instruct.report.wording import magnitude, with_error

# The table that the page draws, and the measures that have a line of their own in it.
MAIN = "flan_palm.5"


@dataclasses.dataclass(frozen=True)
class OurRow:
    """A run's line in a paper's table: labels as the table has them, and a score a column."""

    labels: tuple[str, ...]
    scores: tuple[Score | None, ...]

    @property
    def known_scores(self) -> list[Score]:
        """Scores of the columns that have one."""
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
    by_run = [(run, [row for row in _our_rows(table, run) if row.known_scores]) for run in runs]
    rows = tuple(row for _, inside in by_run for row in inside)
    scores = [score for row in rows for score in row.known_scores]
    return Filled(
        table,
        rows,
        tuple(run.label for run, inside in by_run if not inside),
        tuple(measures.differences(scores, table.mmlu_split)),
        tuple(measures.conditions(scores)),
    )


def _our_rows(table: PaperTable, run: Run) -> list[OurRow]:
    if "Prompting" not in table.labels:
        cells = {"Params": _size(run), "Tasks": str(trained_tasks(run) or "–")}
        last = next(name for name in table.labels if name not in cells)
        labels = tuple(run.label if n == last else cells.get(n, "–") for n in table.labels)
        # A table without promptings means direct answers by "mmlu".
        columns = ("mmlu_direct" if column == "mmlu" else column for column in table.columns)
        scores = (measures.score(run, c) if measures.is_measure(c) else None for c in columns)
        return [OurRow(labels, tuple(scores))]
    rows = []
    for prompting in measures.PROMPTINGS:
        modes = measures.DIRECT if prompting == "direct" else measures.COT
        voted = prompting == measures.VOTED
        keys = (measures.prompted(column, prompting) for column in table.columns)
        scores = (measures.score(run, k, modes=modes, voted=voted) if k else None for k in keys)
        rows.append(OurRow((run.label, prompting), tuple(scores)))
    return rows


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
    return "–" if value is None else magnitude(value)


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
    printed = [
        Row((*row.labels, *map(paper_value, table.columns, row.values))) for row in table.rows
    ]
    ours = [Row((*row.labels, *map(_score_text, row.scores)), strong=True) for row in content.ours]
    return headings, printed + ours


def _score_text(score: Score | None) -> str:
    return with_error(score.value, score.stderr) if score else "–"


def remarks(content: Filled) -> list[str]:
    """Sentences for under the table: source, notes on the figures, conditions, differences."""
    sentences = [f"Figures: {content.table.source}.", *content.table.notes]
    protocols = measures.protocols(content.table.columns, content.table.mmlu_split)
    if protocols:
        sentences += ["The paper's protocol:", *(f"- {text}." for text in protocols)]
    if content.conditions:
        sentences.append(f"Ours: {'; '.join(content.conditions)}; ± is one standard error.")
    if content.differences:
        sentences.append("What differs from the paper's protocol:")
        sentences += [f"- {text}" for text in measures.sentences(content.differences)]
    return sentences


DETAIL_COLUMNS = (
    *("Run", "Column", "Score ± s.e.", "n", "Sub-tasks", "Exemplars", "Split", "Metric", "Step"),
)


def details(content: Filled) -> list[Row]:
    """A line for each of our scores: examples, sub-tasks, exemplars, split, metric and step."""
    rows = []
    for labels, score in [
        (row.labels, score) for row in content.ours for score in row.known_scores
    ]:
        label = " ".join(label for label in labels if label != "–")
        shown = results.exemplars_text(results.exemplars_of(score.rows))
        counts = (f"{score.n:,}", f"{score.tasks} of {score.expected}", shown)
        names = (
            ", ".join(sorted({row[name] for row in score.rows})) for name in ("split", "metric")
        )
        title = measures.title_of(score.column)
        rows.append(Row((label, title, _score_text(score), *counts, *names, f"{score.step:,}")))
    return rows


def as_json(content: Filled) -> dict[str, Any]:
    """The same as plain values."""
    table = content.table

    def finite(value: float | None) -> float | None:
        return value if value is not None and math.isfinite(value) else None

    def plain(score: Score | None) -> dict[str, Any] | None:
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

    def named(labels: Sequence[str], values: Iterable[Any]) -> dict[str, Any]:
        return dict(zip((*table.labels, *table.columns), (*labels, *values)))

    return {
        "table": table.name,
        "title": table.title,
        "source": table.source,
        "paper": [named(row.labels, map(finite, row.values)) for row in table.rows],
        "ours": [named(row.labels, map(plain, row.scores)) for row in content.ours],
        "notes": list(table.notes),
        "conditions": list(content.conditions),
        "differences": measures.sentences(content.differences),
        "without_results": list(content.without),
    }


def nearest_row(runs: Sequence[Run]) -> PaperRow:
    """The paper's Flan-T5 nearest in size to the first run of known size; else the smallest."""
    rows = printed_tables.find_table(MAIN).rows
    tuned = [row for row in rows if row.labels[1].startswith("Flan-T5")]
    size = next((size for run in runs if (size := trained_parameters(run)) is not None), None)
    if size is None:
        return tuned[0]
    log_size = math.log(size)
    return min(tuned, key=lambda row: abs(math.log(PARAMETERS[row.labels[0]]) - log_size))


def papers_section(runs: Sequence[Run]) -> Section | None:
    """The page's section: our scores with the nearest Flan-T5 as tick, then the tables, folded.

    None where no run has results of a suite of the papers.
    """
    contents = [fill(table, runs) for table in printed_tables.all_tables().values()]
    filled = [content for content in contents if content.ours]
    if not filled:
        return None
    blocks: list[Block] = [_plot(content, runs) for content in filled if content.table.name == MAIN]
    if differences := _all_differences(filled):
        text = f"What differs from the papers' protocols: {' '.join(differences)}"
        blocks.append(Text(text, quiet=True))
    scores = [score for content in filled for row in content.ours for score in row.known_scores]
    text = f"Ours: {'; '.join(measures.conditions(scores))}. ± is one standard error."
    scored = dict.fromkeys(line for content in filled for line in details(content))
    fold = "Our scores: n, sub-tasks, exemplars shown, split, metric and step of each"
    blocks += [Text(text, quiet=True), Table(DETAIL_COLUMNS, tuple(scored), 2, fold=fold)]
    for content in filled:
        headings, rows = lines(content)
        table = content.table
        fold = f"{table.paper}, table {table.name.partition('.')[2]}: {table.title}"
        blocks.append(Table(headings, tuple(rows), len(table.labels), fold=fold))
    return Section("papers", "Beside the papers", tuple(blocks))


def _all_differences(contents: Sequence[Filled]) -> list[str]:
    """What differs, each thing once; with the tables it is true of if the main one is not."""
    names: dict[tuple[str, str], list[str]] = {}
    for content in contents:
        for pair in content.differences:
            names.setdefault(pair, []).append(content.table.name)
    return measures.sentences(
        (title, what if MAIN in tables else f"{what} ({', '.join(tables)})")
        for (title, what), tables in names.items()
    )


def _plot(content: Filled, runs: Sequence[Run]) -> Dots:
    row = nearest_row(runs)
    colors = {run.label: color for color, run in enumerate(runs)}
    table = content.table
    model = table.labels.index("Model")
    dots = []
    for number, column in enumerate(table.columns):
        scores = [(ours.labels[model], ours.scores[number]) for ours in content.ours]
        marks = tuple(
            Mark(score.value, score.stderr, colors[label])
            for label, score in scores
            if score is not None and score.value is not None
        )
        if marks:
            dots.append(DotRow(measures.title_of(column), marks, row.values[number]))
    return Dots(
        "Suites of the papers",
        tuple(dots),
        tuple((colors[ours.labels[model]], ours.labels[model]) for ours in content.ours),
        "score (%)",
        tabled=True,
        tick=f"{row.labels[1]} ({row.labels[0]}), {table.paper}",
    )
