"""Before and after: the same examples answered by two models, as one page.

Scores with paired intervals, what outputs invent and miss, outputs side by side from the largest
loss to the largest gain, and the conditions of both evaluations.
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from instruct.errors import UserError
from instruct.report import blocks
from instruct.report.compare import (
    Example,
    key_of,
    pair_examples,
    paired_test,
    same_question,
)
from instruct.report.faithfulness.check import Checked
from instruct.report.faithfulness.detector import Detector, load_detector
from instruct.report.pages import compare_faithfulness
from instruct.report.pages.compare_faithfulness import Both
from instruct.report.pages.rendering import write_document
from instruct.report.read import Evaluation, conditions, find_results, read_finished
from instruct.report.statistics import PairedTest, Rates, holm
from instruct.report.wording import counted, failure_lines, number, p_equals, probability, signed

# What may rank outputs, the first that both runs have; else the first metric.
RANKED_BY = ("rougeL", "rougeLsum", "rouge1", "f1", "bleu")
SHOWN = 100
_UNKNOWN = "–"  # what earlier results files do not say
# Conditions that differ by nature between two models, and need no warning.
_EXPECTED = (*("checkpoint", "parameters", "results", "step", "suite", "n", "trained on the task"),)


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """How two evaluations are compared.

    Attributes:
        suite: which suite; see `read.find_results`.
        detector: see `ner.load_detector`.
        rank_by: metric that ranks the outputs; "" for the usual one.
        examples: most outputs shown: half of them with the largest gains, half with losses.
        seed: of the resampling.
    """

    suite: str = ""
    detector: str = "rules"
    rank_by: str = ""
    examples: int = SHOWN
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Pair:
    """One example of both evaluations.

    Attributes:
        lines: before and after.
        change: how much better the output after is in the metric that ranks; None without a value.
        checked: what both outputs invent and miss; None where answers are short.
    """

    lines: tuple[Example, Example]
    change: float | None
    checked: Both | None

    @property
    def new_inventions(self) -> int:
        """How many more things the output after invents."""
        both = self.checked
        return len(both.after.invented) - len(both.before.invented) if both else 0


@dataclasses.dataclass(frozen=True)
class Compared:
    """Two evaluations held against each other.

    Attributes:
        pairs: examples of both with the same id and target, in the order of the first.
        left_out: what was not compared, in words.
        metrics: names of the metrics that both have, in the order of the file.
        tests: of each metric that has a value an example.
        rank_by: the metric that ranks.
        inventions: per cent of outputs that invent something; None for short answers.
    """

    before: Evaluation
    after: Evaluation
    pairs: tuple[Pair, ...]
    left_out: tuple[str, ...]
    metrics: tuple[str, ...]
    tests: Mapping[str, PairedTest]
    rank_by: str
    inventions: Rates | None

    @property
    def checked(self) -> list[Both]:
        """What was checked, in the order of `pairs`; [] for short answers."""
        return [pair.checked for pair in self.pairs if pair.checked]


def write_comparison(
    before: str, after: str, out_dir: str | os.PathLike[str], config: CompareConfig
) -> tuple[pathlib.Path, dict[str, Any]]:
    """Writes `before_after.html` and `.md`; returns the page's path and the numbers.

    Raises:
        UserError: an evaluation is not found, or nothing can be compared.
    """
    compared = compare(before, after, config)
    page = write_document(document(compared, config), out_dir, "before_after")
    return page, summary(compared)


def compare(before: str, after: str, config: CompareConfig) -> Compared:
    """Reads and pairs both evaluations, tests every metric, checks every output."""
    paths = [find_results(run, config.suite) for run in (before, after)]
    if paths[0].resolve() == paths[1].resolve():
        raise UserError(f"{paths[0]} is both before and after. Name two runs, or two steps of one.")
    detector = load_detector(config.detector)
    first, second = (read_finished(path, keep=dict) for path in paths)
    examples = [{key_of(line): line for line in one.examples} for one in (first, second)]
    common = [(line, examples[1][key]) for key, line in examples[0].items() if key in examples[1]]
    lines = [pair for pair in common if same_question(*pair)]
    if not lines:
        raise UserError(
            f"{paths[0]} and {paths[1]} have no example in common. Evaluate both on the same "
            "suite, split, EvalConfig.seed and number of examples."
        )
    names = {row["metric"] for row in second.lines}
    metrics = [m for m in dict.fromkeys(row["metric"] for row in first.lines) if m in names]
    tested = {
        metric: paired_test(pair_examples([first.examples, second.examples], metric), config.seed)
        for metric in metrics
    }
    tests = {metric: test for metric, test in tested.items() if test is not None}
    rank_by = _rank_metric(config.rank_by, tests)
    pairs = _pairs(lines, rank_by, detector)
    checked = [pair.checked for pair in pairs if pair.checked]
    alone = [len(model) - len(common) for model in examples]
    return Compared(
        before=first,
        after=second,
        pairs=pairs,
        left_out=(
            *_left_out(alone[0], "before", first),
            *_left_out(alone[1], "after", second),
            *_differing_examples(lines, len(common)),
        ),
        metrics=tuple(metrics),
        tests=tests,
        rank_by=rank_by,
        inventions=compare_faithfulness.invention_rates(checked) if checked else None,
    )


def _rank_metric(asked: str, tests: Mapping[str, PairedTest]) -> str:
    if not tests:
        raise UserError(
            "no metric of these evaluations has a value for each example; none can rank."
        )
    if asked and asked not in tests:
        raise UserError(f"no metric {asked!r} to rank by; allowed: {', '.join(tests)}")
    return asked or next((name for name in RANKED_BY if name in tests), next(iter(tests)))


def _pairs(
    lines: Sequence[tuple[Example, Example]], rank_by: str, detector: Detector
) -> tuple[Pair, ...]:
    worth_checking = compare_faithfulness.worth_checking([first for first, _ in lines])
    pairs = []
    for pair in lines:
        before, after = (line["scores"].get(rank_by) for line in pair)
        change = None if before is None or after is None else after - before
        both = compare_faithfulness.check_both(*pair, detector) if worth_checking else None
        pairs.append(Pair(pair, change, both))
    return tuple(pairs)


def _left_out(alone: int, name: str, evaluation: Evaluation) -> list[str]:
    examples = counted(alone, "example was", "examples were")
    only = [f"{examples} only evaluated {name}: left out."] if alone else []
    return [*only, *(f"{name}: {line}" for line in failure_lines(evaluation.failures))]


def _differing_examples(lines: Sequence[tuple[Example, Example]], common: int) -> list[str]:
    changed = common - len(lines)
    prompts = sum(before["prompt"] != after["prompt"] for before, after in lines)
    cut = sum(_is_cut(before) for before, _ in lines)
    unknown = sum(not before["source"] for before, _ in lines)
    texts = {
        f"{counted(changed, 'example has', 'examples have')} another id or target before than "
        "after: left out.": changed,
        f"{prompts:,} of {counted(len(lines), 'prompt')} are not the same before and after: "
        "another wording or length is part of the difference.": prompts,
        f"{counted(cut, 'input was', 'inputs were')} too long for the model and cut. What is lost "
        "counts as said by the input.": cut,
        f"{counted(unknown, 'example has', 'examples have')} no source of their own: outputs are "
        "held against the whole prompt, instruction and exemplars included.": unknown,
    }
    return [text for text, count in texts.items() if count]


def _is_cut(line: Example) -> bool:
    """Whether the prompt shows the beginning of a line of the source and not its end.

    For files that do not say: a source also holds fields that the wording never shows.
    """
    if line["truncated"] is not None:
        return line["truncated"]
    prompt = " ".join(line["prompt"].split())
    texts = (" ".join(text.split()) for text in line["source"].split("\n"))
    return any(text[:40] in prompt and text[-40:] not in prompt for text in texts if text)


def differing_conditions(compared: Compared) -> list[str]:
    """What differs besides the model, in words."""
    first, second = conditions(compared.before), conditions(compared.after)
    return [
        f"{name} is not the same: before {first.get(name, '–')}, after {second.get(name, '–')}."
        for name in dict.fromkeys([*first, *second])
        if name not in _EXPECTED
        and first.get(name) != second.get(name)
        and _UNKNOWN not in (first.get(name), second.get(name))
    ]


def summary(compared: Compared) -> dict[str, Any]:
    """The numbers of the page, for a program to read."""
    numbers: dict[str, Any] = {
        "n": len(compared.pairs),
        "metrics": {name: dataclasses.asdict(test) for name, test in compared.tests.items()},
        "left_out": list(compared.left_out),
    }
    if compared.inventions is not None:
        numbers["outputs_that_invent"] = dataclasses.asdict(compared.inventions)
    return numbers


def document(compared: Compared, config: CompareConfig) -> blocks.Document:
    """The page."""
    sections = [_overview(compared), _scores_section(compared)]
    if checked := compared.checked:
        sections.append(compare_faithfulness.section(checked, ("Before", "After"), config.detector))
    sections += [_outputs_section(compared, config.examples // 2), _conditions_section(compared)]
    return blocks.Document(
        f"Before and after: {compared.before.suite or 'two evaluations'}",
        f"before ({_folder(compared.before)}) · after ({_folder(compared.after)})",
        tuple(sections),
    )


def _folder(evaluation: Evaluation) -> str:
    """`<run>, step_<n>` of MODEL_DIR/eval/<suite>/step_<n>/results.jsonl."""
    path = evaluation.path.resolve()
    if path.parts[-4:-3] == ("eval",):
        return f"{path.parents[3].name}, {path.parent.name}"
    return path.parent.name


def _overview(compared: Compared) -> blocks.Section:
    test = compared.tests[compared.rank_by]
    facts = [
        blocks.Fact(
            f"{compared.rank_by}, change",
            signed(test.difference),
            f"{_interval(test)}, from {test.first:.1f} to {test.second:.1f}, n = {test.n:,}",
        ),
        blocks.Fact(
            "Better / worse",
            f"{test.wins:,} / {test.losses:,}",
            f"of {counted(test.n, 'output')}, {test.n - test.wins - test.losses:,} equal",
        ),
    ]
    rates = compared.inventions
    if rates and rates.first is not None and rates.second is not None and rates.change is not None:
        low, high = rates.change_interval or (math.nan, math.nan)
        note = f"before {rates.first:.1f} %, change {rates.change:+.1f} [{low:+.1f}, {high:+.1f}]"
        facts.append(blocks.Fact("Outputs that invent", f"{rates.second:.1f} %", note))
    parts: list[blocks.Block] = [
        blocks.Facts(tuple(facts)),
        blocks.Text(_verdict(compared.rank_by, test)),
    ]
    notices = (*differing_conditions(compared), *compared.left_out)
    if notices:
        parts.append(blocks.Notices(notices))
    return blocks.Section("overview", "At a glance", tuple(parts))


def _verdict(metric: str, test: PairedTest) -> str:
    if test.difference == test.low == test.high == 0:
        return f"{metric} is the same after as before."
    way = "higher" if test.difference > 0 else "lower"
    change = f"{metric} is {abs(test.difference):.1f} points {way} after than before"
    if test.clear:
        why = "chance in the choice of examples does not explain it"
        return f"{change}, and {why} ({p_equals(test.p)})."
    return (
        f"{change}, but that may be chance in the choice of examples ({p_equals(test.p)}): the "
        f"95 % interval reaches from {signed(test.low)} to {signed(test.high)}."
    )


def _interval(test: PairedTest) -> str:
    return f"[{signed(test.low)}, {signed(test.high)}]"


def _scores_section(compared: Compared) -> blocks.Section:
    rows = []
    corrected = dict(zip(compared.tests, holm([test.p for test in compared.tests.values()])))
    for metric in compared.metrics:
        test = compared.tests.get(metric)
        if test is None:
            cells = (*map(number, _means(compared, metric)), *["–"] * 6)
        else:
            cells = (
                *(number(test.first), number(test.second), signed(test.difference)),
                *(_interval(test), probability(test.p), probability(corrected[metric])),
                *(f"{test.wins} / {test.losses}", f"{test.n:,}"),
            )
        rows.append(blocks.Row((metric, *cells), strong=metric == compared.rank_by))
    columns = ("Metric", "Before", "After", "Change", "95 % interval", "p", "p (Holm)")
    some = compared.tests[compared.rank_by]
    text = (
        f"Paired bootstrap over examples ({some.resamples:,} resamples, seed {some.seed}): both "
        "outputs of an example are drawn together. p is two-sided; p (Holm) is corrected for the "
        "number of metrics. Only the choice of examples is chance here, not the training seed."
    )
    table = blocks.Table((*columns, "Better / worse", "n"), tuple(rows))
    parts: list[blocks.Block] = [table, blocks.Text(text, quiet=True)]
    groups = next(iter(compared.tests.values())).groups
    if groups > 1:
        parts.append(blocks.Text(f"Scores are unweighted means over {groups} tasks.", quiet=True))
    return blocks.Section("scores", "Scores", tuple(parts))


def _means(compared: Compared, metric: str) -> list[float | None]:
    """Means before and after over the tasks whose metric both evaluations know."""
    before, after = (
        {
            (row["task"], row["mode"]): row["value"]
            for row in evaluation.lines
            if row["metric"] == metric and row["value"] is not None
        }
        for evaluation in (compared.before, compared.after)
    )
    common = [task for task in before if task in after]
    return [
        sum(values[task] for task in common) / len(common) if common else None
        for values in (before, after)
    ]


def _outputs_section(compared: Compared, half: int) -> blocks.Section:
    half = max(1, half)
    pairs, metric = compared.pairs, compared.rank_by
    changed = sorted((p for p in pairs if p.change is not None), key=lambda p: p.change or 0)
    gains = [pair for pair in reversed(changed) if (pair.change or 0) > 0][:half]
    losses = [pair for pair in changed if (pair.change or 0) < 0][:half]
    parts: list[blocks.Block] = []
    if compared.checked:
        text = (
            "Marked in an output: filled, what the input does not say (invented); thinly "
            "underlined, names, numbers, dates and places that it does say. Dashed in a "
            "reference: what the output after misses."
        )
        parts.append(blocks.Text(text, quiet=True))
        worse = sorted(pairs, key=lambda pair: -pair.new_inventions)
        worse = [pair for pair in worse if pair.new_inventions > 0]
        if worse:
            title = f"More invented after than before: {len(worse):,} of {len(pairs):,}"
            cards = tuple(_card(pair, metric) for pair in worse[:half])
            parts.append(blocks.SideBySide(title, cards, 3))
    for title, chosen in (("Largest gains", gains), ("Largest losses", losses)):
        if chosen:
            cards = tuple(_card(pair, metric) for pair in chosen)
            parts.append(blocks.SideBySide(f"{title} in {metric}", cards, 6))
    rest = len(pairs) - len(gains) - len(losses)
    if rest:
        kind = "with smaller or no changes"
        shown = counted(rest, f"output {kind} is", f"outputs {kind} are")
        parts.append(blocks.Text(f"{shown} not shown.", quiet=True))
    return blocks.Section("outputs", "Outputs side by side", tuple(parts))


def _card(pair: Pair, metric: str) -> blocks.Comparison:
    before, after = pair.lines
    scores = " → ".join(number(line["scores"].get(metric)) for line in pair.lines)
    change = "" if pair.change is None else f" ({signed(pair.change)})"
    both = pair.checked
    return blocks.Comparison(
        title=before["id"] or f"{before['task']} {before['index']}",
        scores=f"{metric} {scores}{change}",
        source=before["source"] or before["prompt"],
        references=tuple(
            compare_faithfulness.reference_spans(text, both)
            for text in before["references"] or [before["target"]]
        ),
        outputs=(
            _output("before", 0, before, both and both.before),
            _output("after", 1, after, both and both.after),
        ),
    )


def _output(name: str, color: int, line: Example, checked: Checked | None) -> blocks.Output:
    spans = compare_faithfulness.output_spans(line["prediction"], checked)
    return blocks.Output(name, spans, color, compare_faithfulness.remarks(checked))


def _conditions_section(compared: Compared) -> blocks.Section:
    first, second = conditions(compared.before), conditions(compared.after)
    rows = []
    for name in dict.fromkeys([*first, *second]):
        values = first.get(name, "–"), second.get(name, "–")
        rows.append(blocks.Row((name, *values, "" if values[0] == values[1] else "differs")))
    table = blocks.Table(("Condition", "Before", "After", ""), tuple(rows), 4)
    return blocks.Section("conditions", "Conditions of both runs", (table,))
