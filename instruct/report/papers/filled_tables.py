"""A paper's table with our runs: for the terminal (`report --table`) and for the page."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from instruct import results
from instruct.report.blocks import Block, DotRow, Dots, Mark, Row, Section, Table, Text
from instruct.report.papers import measures, printed_tables
from instruct.report.papers.measures import Score
from instruct.report.papers.printed_tables import PARAMETERS, PaperRow, PaperTable
from instruct.report.read import Run
from instruct.report.wording import magnitude, with_error

MAIN = "flan_palm.5"  # the table that the page draws


@dataclasses.dataclass(frozen=True)
class OurRow:
    """A run's line in a paper's table: the table's labels, and a score a column."""

    labels: tuple[str, ...]
    scores: tuple[Score | None, ...]

    @property
    def known_scores(self) -> list[Score]:
        """Scores of the columns that have one."""
        return [score for score in self.scores if score is not None]


@dataclasses.dataclass(frozen=True)
class Filled:
    """A paper's table and our lines for it.

    Attributes:
        without: labels of the runs without any score, which have no line.
        differences: see `measures.differences`. conditions: see `measures.conditions`.
    """

    table: PaperTable
    ours: tuple[OurRow, ...]
    without: tuple[str, ...]
    differences: tuple[tuple[str, str], ...]
    conditions: tuple[str, ...]


def fill(table: PaperTable, runs: Sequence[Run]) -> Filled:
    """Compute our scores for every column that results can fill."""
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
        size = trained_parameters(run)
        cells = {
            "Params": magnitude(size) if size else "–",
            "Tasks": str(trained_tasks(run) or "–"),
        }
        last = next(name for name in table.labels if name not in cells)
        labels = tuple(run.label if n == last else cells.get(n, "–") for n in table.labels)
        # Such a table means direct answers by "mmlu".
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
    """The number of distinct tasks in mixture.json, or None."""
    leaves = [leaf for leaf in run.mixture.get("leaves", ()) if isinstance(leaf, dict)]
    return len({str(leaf.get("task") or leaf.get("name")) for leaf in leaves}) or None


def paper_value(column: str, value: float) -> str:
    """A printed figure: a score with one digit, other numbers as short as they are."""
    if math.isnan(value):
        return "–"
    if measures.is_measure(column):
        return f"{value:.1f}"
    return f"{value:,.0f}" if value == int(value) and 1000 <= value < 1e7 else f"{value:g}"


def lines(content: Filled) -> tuple[tuple[str, ...], list[Row]]:
    """Headings and lines: the paper's, then ours in bold with ± one standard error."""
    table = content.table
    headings = (*table.labels, *map(measures.title_of, table.columns))
    printed = [
        Row((*row.labels, *map(paper_value, table.columns, row.values))) for row in table.rows
    ]
    ours = [Row((*row.labels, *map(_score_text, row.scores)), strong=True) for row in content.ours]
    return headings, printed + ours


def _score_text(score: Score | None) -> str:
    return with_error(score.value, score.stderr) if score else "–"


def remarks(content: Filled) -> list[str]:
    """Sentences below the table: source, notes, protocol, conditions, differences."""
    sentences = [f"Figures: {content.table.source}.", *content.table.notes]
    if protocols := measures.protocols(content.table.columns, content.table.mmlu_split):
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
    """A line for each of our scores, with the columns `DETAIL_COLUMNS`."""
    rows = []
    for ours in content.ours:
        label = " ".join(label for label in ours.labels if label != "–")
        for score in ours.known_scores:
            splits, metrics = (sorted({row[n] for row in score.rows}) for n in ("split", "metric"))
            cells = (
                *(label, measures.title_of(score.column), _score_text(score), f"{score.n:,}"),
                f"{score.tasks} of {score.expected}",
                results.exemplars_text(results.exemplars_of(score.rows)),
                *(", ".join(splits), ", ".join(metrics), f"{score.step:,}"),
            )
            rows.append(Row(cells))
    return rows


def as_json(content: Filled) -> dict[str, Any]:
    """The table, our lines and the remarks as plain values."""
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

    names = (*table.labels, *table.columns)
    return {
        "table": table.name,
        "title": table.title,
        "source": table.source,
        "paper": [dict(zip(names, (*r.labels, *map(finite, r.values)))) for r in table.rows],
        "ours": [dict(zip(names, (*r.labels, *map(plain, r.scores)))) for r in content.ours],
        "notes": list(table.notes),
        "conditions": list(content.conditions),
        "differences": measures.sentences(content.differences),
        "without_results": list(content.without),
    }


def nearest_row(runs: Sequence[Run]) -> PaperRow:
    """The paper's Flan-T5 nearest in size to the first run of known size; else the smallest."""
    rows = printed_tables.find_table(MAIN).rows
    tuned = [row for row in rows if row.labels[1].startswith("Flan-T5")]
    size = next((size for run in runs if (size := trained_parameters(run))), None)
    if size is None:
        return tuned[0]
    log_size = math.log(size)
    return min(tuned, key=lambda row: abs(math.log(PARAMETERS[row.labels[0]]) - log_size))


def papers_section(runs: Sequence[Run]) -> Section | None:
    """The section of a page: a plot with the nearest Flan-T5 as tick, and folded tables.

    None if no run has results of a suite of the papers.
    """
    filled = [
        content for t in printed_tables.all_tables().values() if (content := fill(t, runs)).ours
    ]
    if not filled:
        return None
    blocks: list[Block] = [_plot(content, runs) for content in filled if content.table.name == MAIN]
    # Each difference once; with the tables that it is true of if the main one is not.
    tables: dict[tuple[str, str], list[str]] = {}
    for content in filled:
        for pair in content.differences:
            tables.setdefault(pair, []).append(content.table.name)
    differences = measures.sentences(
        (title, text if MAIN in names else f"{text} ({', '.join(names)})")
        for (title, text), names in tables.items()
    )
    if differences:
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


def _plot(content: Filled, runs: Sequence[Run]) -> Dots:
    row = nearest_row(runs)
    colors = {run.label: color for color, run in enumerate(runs)}
    table = content.table
    labels = [ours.labels[table.labels.index("Model")] for ours in content.ours]
    dots = []
    for number, column in enumerate(table.columns):
        marks = tuple(
            Mark(score.value, score.stderr, colors[label])
            for label, ours in zip(labels, content.ours)
            if (score := ours.scores[number]) is not None and score.value is not None
        )
        if marks:
            dots.append(DotRow(measures.title_of(column), marks, row.values[number]))
    return Dots(
        "Suites of the papers",
        tuple(dots),
        tuple((colors[label], label) for label in labels),
        "score (%)",
        tabled=True,
        tick=f"{row.labels[1]} ({row.labels[0]}), {table.paper}",
    )
