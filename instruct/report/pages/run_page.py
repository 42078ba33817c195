"""The page about one or several runs, which `run.py report --model_dir` writes."""

import math
import os
import pathlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from instruct import results
from instruct.report import blocks
from instruct.report.pages import differences, scaling, tables
from instruct.report.pages.rendering import write_document
from instruct.report.papers import filled_tables
from instruct.report.read import Run, read_runs
from instruct.report.wording import all_of, compact, counted, number, percent, with_error

# More curves than this in one chart cannot be told apart.
MAX_CURVES = 8
MAX_TASK_CHARTS = 6
MAX_POINTS = 240
MIXTURE_ROWS = 30


def write_report(
    model_dirs: Sequence[str | os.PathLike[str]], out_dir: str | os.PathLike[str]
) -> pathlib.Path:
    """Writes `report.html` and `report.md` about one or more runs into `out_dir`.

    Returns the path of `report.html`. Raises UserError if a run's folder does not exist.
    """
    runs = read_runs(model_dirs)
    return write_document(document(runs), out_dir)


def document(runs: Sequence[Run]) -> blocks.Document:
    """The page; sections without content are left out."""
    if len(runs) == 1:
        info = runs[0].info
        commit = str(info.get("commit") or "")[:12]
        parts = (info.get("start"), info.get("device"), commit and f"commit {commit}")
        title, subtitle = runs[0].label, [str(part) for part in parts if part]
    else:
        title, subtitle = f"{len(runs)} runs compared", [run.label for run in runs]
    sections = (
        overview_section(runs),
        filled_tables.papers_section(runs),
        scaling.scaling_section(runs),
        scaling.learning_section(runs),
        differences.differences_section(runs),
        tables.results_section(runs),
        training_section(runs),
        mixture_section(runs),
        tables.samples_section(runs),
        throughput_section(runs),
        configuration_section(runs),
    )
    shown = [section for section in sections if section and section.blocks]
    return blocks.Document(title, " · ".join(subtitle), shown)


def last_value(run: Run, name: str) -> float | None:
    """The last finite value of a scalar, or None."""
    return next((v for _, v in reversed(run.curve(name)) if math.isfinite(v)), None)


def _typical(run: Run, name: str) -> float | None:
    """The median over logged steps without the first, which waits for the first batches."""
    values = [v for _, v in run.curve(name)[1:] or run.curve(name) if math.isfinite(v)]
    return statistics.median(values) if values else None


@blocks.section("overview", "At a glance")
def overview_section(runs: Sequence[Run]) -> Iterator[blocks.Block]:
    """Headline numbers, then warnings: weak scores, missing or damaged files, failures."""
    facts = [{fact.name: fact for fact in _facts(run)} for run in runs]
    if len(runs) == 1:
        yield blocks.Facts(tuple(facts[0].values()))
        yield from tables.suites_compared(runs[0])
    else:
        names = dict.fromkeys(name for of_run in facts for name in of_run)
        values = ((n, *(of[n].value if n in of else "–" for of in facts)) for n in names)
        yield blocks.Table(("", *(run.label for run in runs)), list(map(blocks.Row, values)))
    notices = [
        f"{run.label}: {text}" if len(runs) > 1 else text
        for run in runs
        for text in (*_weak_scores(run), *run.warnings)
    ]
    if notices:
        yield blocks.Notices(notices)


def _facts(run: Run) -> Iterator[blocks.Fact]:
    few = all(results.is_of_training(evaluation.suite) for evaluation in run.counted())
    while_training = ", while training" if few else ""
    for group, mean in tables.headline(run).items():
        baseline = f"baseline {number(mean.baseline)}, " if mean.baseline is not None else ""
        sizes = (
            f"{counted(mean.tasks, 'task')}, {counted(mean.examples, 'example')}{while_training}"
        )
        score = with_error(mean.value, mean.stderr)
        yield blocks.Fact(f"{tables.GROUP_TITLES[group]} score", score, baseline + sizes)
    steps = max((row["step"] for row in run.metrics), default=None)
    seen = f"{compact(last_value(run, 'examples'))} examples"
    if tasks := {leaf["task"] for leaf in run.mixture.get("leaves", ()) if "task" in leaf}:
        seen += f" of {counted(len(tasks), 'task')}, {run.mixture.get('mixture', 'mixture')}"
    yield blocks.Fact("Steps", compact(steps), seen)
    validation = last_value(run, "eval/loss")
    note = f"on validation {number(validation, 3)}" if validation is not None else ""
    yield blocks.Fact("Training loss", number(last_value(run, "loss"), 3), note)
    yield blocks.Fact("Parameters", compact(filled_tables.trained_parameters(run)))
    speed, share = _typical(run, "real_tokens_per_sec"), _typical(run, "peak_share")
    yield blocks.Fact("Tokens per second", compact(speed), f"{percent(share)} of peak")


def _weak_scores(run: Run) -> list[str]:
    """Groups and suites without some values, or not above the baseline by two standard errors."""
    means = {
        f"the {tables.GROUP_TITLES[group].lower()} score": mean
        for group, mean in tables.headline(run).items()
    }
    means |= {f"the score on {row.title}": row.means[0] for row in tables.suite_rows(run)}
    lacking = [
        f"{name}: {results.without_value_text(mean.without_value, mean.tasks)}."
        for name, mean in means.items()
        if mean.without_value
    ]
    return lacking + [
        f"{name}, {with_error(mean.value, mean.stderr)}, is not clearly above the baseline, "
        f"{number(mean.baseline)}."
        for name, mean in means.items()
        if mean.value is not None
        and mean.baseline is not None
        and mean.value - 2 * (mean.stderr or 0.0) <= mean.baseline
    ]


def thin(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """At most `MAX_POINTS` points: means of neighboring points; a NaN stays NaN."""
    size = max(1, -(-len(points) // MAX_POINTS))
    bins = [points[i : i + size] for i in range(0, len(points), size)]
    return tuple((b[-1][0], sum(y for _, y in b) / len(b)) for b in bins)


def _charts(*charts: blocks.Chart) -> Iterator[blocks.Charts]:
    """The charts that have a curve, if any."""
    if shown := [chart for chart in charts if chart.series]:
        yield blocks.Charts(shown)


def _chart(
    runs: Sequence[Run],
    title: str,
    scalars: Mapping[str, str],
    percent: bool = False,
    dashed: bool = True,
) -> blocks.Chart:
    """One chart of scalars {label: name}; all but the first are `dashed`."""
    series = []
    for color, run in enumerate(runs):
        for order, (label, scalar) in enumerate(scalars.items()):
            points = [(x, 100 * y if percent else y) for x, y in run.curve(scalar)]
            if len(runs) > 1:
                label = f"{run.label}, {label}" if len(scalars) > 1 else run.label
            shown = color if len(runs) > 1 else order
            if points:
                series.append(blocks.Series(label, thin(points), shown, dashed and order > 0))
    return blocks.Chart(title, tuple(series), percent)


def _group_charts(runs: Sequence[Run], prefix: str, title: str) -> Iterator[blocks.Chart]:
    """Losses of the groups with the highest ones: one chart a run, so that a color is a group."""
    for run in runs:
        names = [n for n in run.scalar_names() if n.startswith(prefix)]
        ranked = sorted(names, key=lambda n: -(last_value(run, n) or 0.0))[:MAX_CURVES]
        more = f" (the {MAX_CURVES} highest of {len(names)})" if len(names) > MAX_CURVES else ""
        whose = f", {run.label}" if len(runs) > 1 else ""
        scalars = {name.removeprefix(prefix): name for name in sorted(ranked)}
        yield _chart([run], f"{title}{whose}{more}", scalars, dashed=False)


def _evaluation_charts(runs: Sequence[Run]) -> Iterator[blocks.Chart]:
    """Metrics of the tasks that training evaluates (`eval/<task>/<metric>`), a chart a task."""
    by_task: dict[str, dict[str, str]] = {}
    for name in dict.fromkeys(name for run in runs for name in run.scalar_names()):
        prefix, _, rest = name.partition("/")
        task, _, metric = rest.rpartition("/")
        if prefix == "eval" and task not in ("", "loss"):
            by_task.setdefault(task, {})[metric] = name
    shown = list(by_task)[:MAX_TASK_CHARTS]
    for task in shown:
        title = f"{task}, while training"
        if task == shown[-1] and len(by_task) > len(shown):
            title += f" ({len(shown)} of {len(by_task)} tasks are drawn)"
        yield _chart(runs, title, dict(list(by_task[task].items())[:MAX_CURVES]), dashed=False)


@blocks.section("training", "Training", "No step logged yet.")
def training_section(runs: Sequence[Run]) -> Iterator[blocks.Block]:
    """Loss and accuracy on training and validation data, in all and by group."""
    accuracy = {"training": "accuracy", "validation": "eval/accuracy"}
    return _charts(
        _chart(runs, "Loss", {"training": "loss", "validation": "eval/loss"}),
        _chart(runs, "Token accuracy (%)", accuracy, percent=True),
        *_group_charts(runs, "loss/", "Training loss by group"),
        *_group_charts(runs, "eval/loss/", "Validation loss by group"),
        *_evaluation_charts(runs),
        _chart(runs, "Learning rate", {"learning rate": "learning_rate"}),
        _chart(runs, "Gradient norm", {"gradient norm": "gradient_norm"}),
    )


@blocks.section("mixture", "Mixture", "The mixture as realised has not been written yet.")
def mixture_section(runs: Sequence[Run]) -> Iterator[blocks.Block]:
    """Requested and realized shares of examples by category; every leaf; dropped examples."""
    for run in runs:
        leaves = [leaf for leaf in run.mixture.get("leaves", ()) if isinstance(leaf, Mapping)]
        if not leaves:
            continue
        whose = f"{run.label}, " if len(runs) > 1 else ""
        title = f"{whose}{run.mixture.get('mixture', 'mixture')}: {counted(len(leaves), 'task')}"
        shares = _shares(leaves)
        rows = [
            blocks.DotRow(name, (blocks.Mark(realized),), asked)
            for name, asked, realized in shares[:MIXTURE_ROWS]
        ]
        unit, legend = "share of examples (%)", ((0, "realised"),)
        yield blocks.Dots(title, rows, legend, unit, tick="asked for")
        if len(shares) > MIXTURE_ROWS:
            text = f"{counted(len(shares) - MIXTURE_ROWS, 'smaller one')} not shown."
            yield blocks.Text(text, quiet=True)
        yield _leaf_table(leaves)
        text = "Counts are of examples that were read, some ahead of training."
        yield blocks.Text(text, quiet=True)
        if dropped := run.mixture.get("dropped_reasons"):
            lines = [blocks.Row((str(k), f"{v:,}")) for k, v in sorted(dropped.items())]
            yield blocks.Table(("Why examples were dropped", "Examples"), lines)


def _total(leaves: Sequence[Mapping[str, Any]], name: str) -> float:
    return sum(float(leaf.get(name) or 0.0) for leaf in leaves)


def _shares(leaves: Sequence[Mapping[str, Any]]) -> list[tuple[str, float, float]]:
    """(category, requested share, realized share) in per cent, the largest first."""
    categories: dict[str, list[Mapping[str, Any]]] = {}
    for leaf in leaves:
        categories.setdefault(str(leaf.get("category") or "none"), []).append(leaf)
    asked, realized = (_total(leaves, name) or 1.0 for name in ("asked", "realised"))
    shares = [
        (c, 100 * (_total(inside, "asked") / asked), 100 * (_total(inside, "realised") / realized))
        for c, inside in categories.items()
    ]
    return sorted(shares, key=lambda share: (-share[1], share[0]))


def _leaf_table(leaves: Sequence[Mapping[str, Any]]) -> blocks.Table:
    totals = {name: _total(leaves, name) or 1.0 for name in ("asked", "realised")}
    counts = ["examples", "dropped", "truncated", "tokens"]
    if any(leaf.get("exemplars_missing") for leaf in leaves):
        counts.append("exemplars_missing")
    rows = []
    for leaf in leaves:
        shares = (percent(float(leaf.get(n) or 0) / total) for n, total in totals.items())
        texts = (f"{int(leaf.get(n) or 0):,}" for n in counts)
        rows.append(blocks.Row((str(leaf.get("name", "–")), *shares, *texts)))
    titles = (name.replace("_", " ").capitalize() for name in counts)
    columns = ("Task and mode", "Asked", "Realised", *titles)
    return blocks.Table(columns, rows, fold=f"{all_of(len(rows), 'task')} of the mixture")


@blocks.section("throughput", "Throughput", "No step has been timed yet.")
def throughput_section(runs: Sequence[Run]) -> Iterator[blocks.Block]:
    """Tokens per second, padding, and share of the machine's measured matrix-multiply peak."""
    rows = [
        blocks.Row((title, *(form(_typical(run, name)) for run in runs)))
        for title, name, form in (
            ("Real tokens per second", "real_tokens_per_sec", compact),
            ("Padding share", "padding_share", percent),
            ("Share of the measured peak", "peak_share", percent),
            ("Seconds a step", "step_secs", compact),
        )
        if any(run.curve(name) for run in runs)
    ]
    peaks = [run.info.get("matmul_peak_gflops") for run in runs]
    if any(isinstance(peak, int | float) for peak in peaks):
        cells = (compact(p) if isinstance(p, int | float) else "–" for p in peaks)
        rows.append(blocks.Row(("Matrix-multiply peak, GFLOP/s", *cells)))
    if not rows:
        return
    names = [run.label for run in runs] if len(runs) > 1 else ["Median"]
    yield blocks.Table(("", *names), rows)
    yield from _goodput_table(runs)
    yield from _charts(
        _chart(runs, "Real tokens per second", {"tokens/s": "real_tokens_per_sec"}),
        _chart(runs, "Padding (%)", {"padding": "padding_share"}, percent=True),
        _chart(runs, "Share of peak (%)", {"share of peak": "peak_share"}, percent=True),
    )


# What training counts wall time as (`instruct/train/goodput.py`).
_GOODPUT = {
    "steps": "Training steps",
    "input_wait": "Waiting for input",
    "compilation": "Compilation",
    "checkpoints": "Checkpoints",
    "evaluation": "Evaluation",
    "restarts": "Restarts",
    "other": "Other",
}


def _goodput_table(runs: Sequence[Run]) -> Iterator[blocks.Block]:
    """Shares of wall time at the last logged step; nothing for runs that logged none."""
    if not any(run.curve("goodput/steps") for run in runs):
        return
    names = [run.label for run in runs] if len(runs) > 1 else ["Share"]
    rows = [
        blocks.Row((title, *(percent(last_value(run, f"goodput/{kind}")) for run in runs)))
        for kind, title in _GOODPUT.items()
    ]
    yield blocks.Table(("Goodput: wall time of the run", *names), rows)
    yield blocks.Text(blocks.NOTES["goodput"], quiet=True)


def _flat(name: str, value: Any) -> list[tuple[str, str]]:
    """(dotted name, text) of every value inside mappings and lists."""
    if isinstance(value, Mapping):
        items = [(f"{name}.{key}", item) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        items = [(f"{name} {index}", item) for index, item in enumerate(value, start=1)]
    else:
        large = isinstance(value, int) and value >= 10_000
        return [(name, f"{value:,}" if large else str(value))]
    return [pair for item in items for pair in _flat(*item)]


# The tables of run.json's entries; all other entries go into "Run and machine".
_TABLES = {"command_line": "", "model": "Model", "num_params": "Model", "versions": "Versions"}
_TABLES |= {"num_params_held": "Model", "num_params_trained": "Model"}
_TABLES |= {"python": "Versions", "config": "Settings that affect results", "sessions": "Sessions"}


@blocks.section("configuration", "Configuration", "No configuration was found.")
def configuration_section(runs: Sequence[Run]) -> Iterator[blocks.Block]:
    """Command line, machine, versions, model, and the operative gin configuration."""
    for run in runs:
        whose = f" of {run.label}" if len(runs) > 1 else ""
        if command := run.info.get("command_line"):
            yield blocks.Code(f"Command line{whose}", str(command), fold=False)
        for title in dict.fromkeys(["Run and machine", *filter(None, _TABLES.values())]):
            names = [n for n in run.info if _TABLES.get(n, "Run and machine") == title]
            pairs = [pair for name in names for pair in _flat(name, run.info[name])]
            if pairs:
                rows = list(map(blocks.Row, pairs))
                yield blocks.Table(("Setting", "Value"), rows, 2, fold=f"{title}{whose}")
        if run.operative_gin:
            yield blocks.Code(f"operative.gin{whose}", run.operative_gin)
