"""A report's sections besides results: overview, curves, mixture, throughput, configuration."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from instruct.report import differences, scaling, tables
from instruct.report.blocks import (
    Block,
    Charts,
    Code,
    Document,
    DotRow,
    Dots,
    Fact,
    Facts,
    Lines,
    Mark,
    Notices,
    Row,
    Section,
    Series,
    Table,
    Text,
)
from instruct.report.papers import filled_tables
from instruct.report.read import Run
from instruct.report.wording import all_of, counted

# More curves than this in one chart cannot be told apart; the rest goes into the table.
MAX_CURVES = 8
MAX_POINTS = 240
MIXTURE_ROWS = 30


def document(runs: Sequence[Run]) -> Document:
    """The whole report of one or more runs."""
    single = runs[0].label if len(runs) == 1 else f"{len(runs)} runs compared"
    parts = [_started(run) for run in runs] if len(runs) == 1 else [run.label for run in runs]
    return Document(
        title=single,
        subtitle=" · ".join(part for part in parts if part),
        sections=(
            overview_section(runs),
            *_comparisons(runs),
            tables.results_section(runs),
            training_section(runs),
            mixture_section(runs),
            tables.samples_section(runs),
            throughput_section(runs),
            configuration_section(runs),
        ),
    )


def _comparisons(runs: Sequence[Run]) -> list[Section]:
    """What compares runs with the papers and with each other, as far as their results allow it."""
    made = (
        filled_tables.papers_section(runs),
        scaling.scaling_section(runs),
        scaling.learning_section(runs),
        differences.differences_section(runs),
    )
    return [section for section in made if section is not None]


def _started(run: Run) -> str:
    commit = str(run.info.get("commit") or "")[:12]
    parts = (run.info.get("start"), run.info.get("device"), commit and f"commit {commit}")
    return " · ".join(str(part) for part in parts if part)


def last_value(run: Run, name: str) -> float | None:
    """The last finite value of a scalar, or None."""
    values = [value for _, value in run.curve(name) if math.isfinite(value)]
    return values[-1] if values else None


def _typical(run: Run, name: str) -> float | None:
    """The median over logged steps but the first, which waits for the first batches."""
    values = [v for _, v in run.curve(name)[1:] or run.curve(name) if math.isfinite(v)]
    return statistics.median(values) if values else None


def compact(value: float | None) -> str:
    """`76.9M`, `1.2k`, `0.031`, "–" for None."""
    if value is None or not math.isfinite(value):
        return "–"
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            scale = 1e3 if suffix == "k" else size
            return f"{value / scale:.1f}{suffix}"
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def percent(share: float | None) -> str:
    """A share of 1 as per cent."""
    return "–" if share is None or not math.isfinite(share) else f"{100 * share:.1f} %"


def _overview(run: Run) -> list[Fact]:
    facts = []
    for group, mean in tables.headline(run).items():
        baseline = f"baseline {tables.number(mean.baseline)}, " if mean.baseline is not None else ""
        value = tables.with_error(mean.value, mean.stderr)
        name = f"{tables.GROUP_TITLES[group]} score"
        sizes = f"{counted(mean.tasks, 'task')}, {counted(mean.examples, 'example')}"
        facts.append(Fact(name, value, baseline + sizes))
    steps = max((row["step"] for row in run.metrics), default=None)
    facts.append(Fact("Steps", compact(steps), f"{compact(last_value(run, 'examples'))} examples"))
    evaluated = last_value(run, "eval/loss")
    note = f"on validation {tables.number(evaluated, 3)}" if evaluated is not None else ""
    facts.append(Fact("Training loss", tables.number(last_value(run, "loss"), 3), note))
    facts.append(Fact("Parameters", compact(_parameters(run))))
    share = percent(_typical(run, "peak_share"))
    speed = compact(_typical(run, "real_tokens_per_sec"))
    facts.append(Fact("Tokens per second", speed, f"{share} of peak"))
    return facts


def _weak_scores(run: Run) -> list[str]:
    """Groups whose score is no better, by two standard errors, than always saying the same."""
    found = []
    for group, mean in tables.headline(run).items():
        if mean.value is None or mean.baseline is None:
            continue
        if mean.value - 2 * (mean.stderr or 0.0) <= mean.baseline:
            score = tables.with_error(mean.value, mean.stderr)
            found.append(
                f"the {tables.GROUP_TITLES[group].lower()} score, {score}, is not clearly above "
                f"the baseline, {tables.number(mean.baseline)}."
            )
    return found


def _parameters(run: Run) -> float | None:
    model = run.info.get("model")
    nested = model.get("num_params") if isinstance(model, Mapping) else None
    value = run.info.get("num_params", nested)
    return float(value) if isinstance(value, int | float) else None


def overview_section(runs: Sequence[Run]) -> Section:
    """The figures one looks for first, then what is missing or went wrong."""
    blocks: list[Block] = []
    if len(runs) == 1:
        blocks.append(Facts(tuple(_overview(runs[0]))))
    else:
        facts = [{fact.name: fact for fact in _overview(run)} for run in runs]
        names = dict.fromkeys(name for found in facts for name in found)
        rows = [
            Row((name, *(found[name].value if name in found else "–" for found in facts)))
            for name in names
        ]
        blocks.append(Table(("", *(run.label for run in runs)), tuple(rows)))
    several = len(runs) > 1
    told = ((run, warning) for run in runs for warning in (*_weak_scores(run), *run.warnings))
    warnings = [f"{run.label}: {text}" if several else text for run, text in told]
    if warnings:
        blocks.append(Notices(tuple(warnings)))
    return Section("overview", "At a glance", tuple(blocks))


def thin(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """At most `MAX_POINTS` points: means over equal runs of neighbours, a NaN staying NaN."""
    size = -(-len(points) // MAX_POINTS)
    if size <= 1:
        return tuple(points)
    bins = [points[i : i + size] for i in range(0, len(points), size)]
    return tuple((b[-1][0], sum(y for _, y in b) / len(b)) for b in bins)


def _chart(
    runs: Sequence[Run], title: str, names: Sequence[tuple[str, str]], is_percent: bool = False
) -> Lines | None:
    """One chart of (scalar, what to call it); the second and later names are dashed."""
    series = []
    for color, run in enumerate(runs):
        for order, (name, title_of) in enumerate(names):
            points = [(x, 100 * y if is_percent else y) for x, y in run.curve(name)]
            if points:
                label = title_of
                if len(runs) > 1:
                    label = f"{run.label}, {title_of}" if len(names) > 1 else run.label
                shown = color if len(runs) > 1 else order
                series.append(Series(label, thin(points), shown, dashed=order > 0))
    return Lines(title, tuple(series), is_percent) if series else None


def _group_charts(runs: Sequence[Run], prefix: str, title: str) -> list[Lines]:
    """Per-group losses: one chart a run, so that a colour is a group; the worst groups first."""
    charts = []
    for run in runs:
        names = [n for n in run.scalar_names() if n.startswith(prefix)]
        ranked = sorted(names, key=lambda n: -(last_value(run, n) or 0.0))[:MAX_CURVES]
        series = tuple(
            Series(name.removeprefix(prefix), thin(run.curve(name)), color)
            for color, name in enumerate(sorted(ranked))
        )
        if series:
            more = f" (the {MAX_CURVES} highest of {len(names)})" if len(names) > MAX_CURVES else ""
            whose = f", {run.label}" if len(runs) > 1 else ""
            charts.append(Lines(f"{title}{whose}{more}", series))
    return charts


def training_section(runs: Sequence[Run]) -> Section:
    """Loss and accuracy in training and on validation data, in all and by group."""
    wanted = [
        _chart(runs, "Loss", [("loss", "training"), ("eval/loss", "validation")]),
        _chart(
            runs,
            "Token accuracy (%)",
            [("accuracy", "training"), ("eval/accuracy", "validation")],
            is_percent=True,
        ),
        *_group_charts(runs, "loss/", "Training loss by group"),
        *_group_charts(runs, "eval/loss/", "Validation loss by group"),
        _chart(runs, "Learning rate", [("learning_rate", "learning rate")]),
        _chart(runs, "Gradient norm", [("gradient_norm", "gradient norm")]),
    ]
    charts = tuple(chart for chart in wanted if chart is not None)
    blocks: tuple[Block, ...] = (Charts(charts),) if charts else (Text("No step logged yet."),)
    return Section("training", "Training", blocks)


def mixture_section(runs: Sequence[Run]) -> Section:
    """Share of examples each category was to have and had; every leaf; what was dropped."""
    blocks: list[Block] = []
    for run in runs:
        leaves = [leaf for leaf in run.mixture.get("leaves", ()) if isinstance(leaf, Mapping)]
        if not leaves:
            continue
        shares = _shares(leaves, "category")
        title = f"{run.mixture.get('mixture', 'mixture')}: {counted(len(leaves), 'task')}"
        title = f"{run.label}, {title}" if len(runs) > 1 else title
        rows = tuple(
            DotRow(name, (Mark(100 * realised, None, 0),), 100 * asked)
            for name, asked, realised in shares[:MIXTURE_ROWS]
        )
        blocks.append(
            Dots(title, rows, ((0, "realised"),), "share of examples (%)", tick="asked for")
        )
        if len(shares) > MIXTURE_ROWS:
            blocks.append(
                Text(f"{counted(len(shares) - MIXTURE_ROWS, 'smaller one')} not shown.", quiet=True)
            )
        blocks.append(_leaf_table(leaves))
        dropped = run.mixture.get("dropped_reasons") or {}
        if dropped:
            lines = tuple(Row((str(k), f"{v:,}")) for k, v in sorted(dropped.items()))
            blocks.append(Table(("Why examples were dropped", "Examples"), lines))
    if not blocks:
        blocks.append(Text("The mixture as realised has not been written yet."))
    return Section("mixture", "Mixture", tuple(blocks))


def _shares(leaves: Sequence[Mapping[str, Any]], name: str) -> list[tuple[str, float, float]]:
    """(group, share asked for, share realised), the largest first; shares of 1."""
    sums: dict[str, list[float]] = {}
    for leaf in leaves:
        pair = sums.setdefault(str(leaf.get(name) or "none"), [0.0, 0.0])
        pair[0] += float(leaf.get("asked") or 0.0)
        pair[1] += float(leaf.get("realised") or 0.0)
    asked, realised = (sum(pair[i] for pair in sums.values()) or 1.0 for i in (0, 1))
    shares = [(group, a / asked, r / realised) for group, (a, r) in sums.items()]
    return sorted(shares, key=lambda share: (-share[1], share[0]))


def _leaf_table(leaves: Sequence[Mapping[str, Any]]) -> Table:
    asked = sum(float(leaf.get("asked") or 0) for leaf in leaves) or 1.0
    realised = sum(float(leaf.get("realised") or 0) for leaf in leaves) or 1.0
    counts = ("examples", "dropped", "truncated", "tokens")
    rows = [
        Row(
            (
                str(leaf.get("name", "–")),
                percent(float(leaf.get("asked") or 0) / asked),
                percent(float(leaf.get("realised") or 0) / realised),
                *(f"{int(leaf.get(name) or 0):,}" for name in counts),
            )
        )
        for leaf in leaves
    ]
    columns = ("Task and mode", "Asked", "Realised", "Examples", "Dropped", "Truncated", "Tokens")
    return Table(columns, tuple(rows), fold=f"{all_of(len(rows), 'task')} of the mixture")


def throughput_section(runs: Sequence[Run]) -> Section:
    """How fast, how full, and how near the machine's measured matrix-multiply peak."""
    rows = []
    for title, name, form in (
        ("Real tokens per second", "real_tokens_per_sec", compact),
        ("Padding share", "padding_share", percent),
        ("Share of the measured peak", "peak_share", percent),
        ("Seconds a step", "step_secs", compact),
    ):
        if any(run.curve(name) for run in runs):
            rows.append(Row((title, *(form(_typical(run, name)) for run in runs))))
    peaks = [run.info.get("matmul_peak_gflops") for run in runs]
    if any(isinstance(peak, int | float) for peak in peaks):
        cells = (compact(p) if isinstance(p, int | float) else "–" for p in peaks)
        rows.append(Row(("Matrix-multiply peak, GFLOP/s", *cells)))
    if not rows:
        return Section("throughput", "Throughput", (Text("No step has been timed yet."),))
    wanted = [
        _chart(runs, "Real tokens per second", [("real_tokens_per_sec", "tokens/s")]),
        _chart(runs, "Padding (%)", [("padding_share", "padding")], is_percent=True),
        _chart(runs, "Share of peak (%)", [("peak_share", "share of peak")], is_percent=True),
    ]
    names = tuple(run.label for run in runs) if len(runs) > 1 else ("Median",)
    return Section(
        "throughput",
        "Throughput",
        (
            Table(("", *names), tuple(rows)),
            Charts(tuple(chart for chart in wanted if chart is not None)),
        ),
    )


def _flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        pairs = [
            _flat(item, f"{prefix}.{name}" if prefix else str(name)) for name, item in value.items()
        ]
        return [pair for found in pairs for pair in found]
    if isinstance(value, list | tuple):
        pairs = [_flat(item, f"{prefix} {place}") for place, item in enumerate(value, start=1)]
        return [pair for found in pairs for pair in found]
    return [(prefix, f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value))]


def _settings(info: Mapping[str, Any]) -> dict[str, list[str]]:
    """Names of run.json's entries by the table they go into."""
    titles = {"model": "Model", "num_params": "Model", "versions": "Versions", "python": "Versions"}
    titles |= {"config": "What results hang on", "sessions": "Sessions"}
    grouped: dict[str, list[str]] = {title: [] for title in ("Run and machine", *titles.values())}
    for name in info:
        if name != "command_line":
            grouped[titles.get(name, "Run and machine")].append(name)
    return grouped


def configuration_section(runs: Sequence[Run]) -> Section:
    """Command line, machine, versions, model, and the operative gin configuration."""
    blocks: list[Block] = []
    for run in runs:
        whose = f" of {run.label}" if len(runs) > 1 else ""
        if run.info.get("command_line"):
            blocks.append(Code(f"Command line{whose}", str(run.info["command_line"]), fold=False))
        for title, names in _settings(run.info).items():
            rows = tuple(Row(pair) for name in names for pair in _flat(run.info[name], name))
            if rows:
                blocks.append(Table(("Setting", "Value"), rows, 2, fold=f"{title}{whose}"))
        if run.operative_gin:
            blocks.append(Code(f"operative.gin{whose}", run.operative_gin))
    if not blocks:
        blocks.append(Text("No configuration was found."))
    return Section("configuration", "Configuration", tuple(blocks))
