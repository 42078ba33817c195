"""Before and after: the same examples answered by two models, as one page.

Scores with paired intervals, what outputs invent and miss, outputs side by side from the largest
loss to the largest gain, and the conditions of both evaluations.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from instruct import results
from instruct.errors import UserError
from instruct.report import blocks, read
from instruct.report.compare import Example, key_of, pair_examples, paired_test, same_question
from instruct.report.faithfulness.detector import load_detector
from instruct.report.pages import compare_faithfulness
from instruct.report.pages.compare_faithfulness import Both
from instruct.report.pages.rendering import write_document
from instruct.report.read import Evaluation
from instruct.report.statistics import PairedTest, Rates, holm
from instruct.report.wording import counted, number, p_equals, probability, signed

# Metrics that rank outputs: the first one with a value for each example; else any that has.
RANKED_BY = ("rougeL", "rougeLsum", "rouge1", "f1", "bleu")
# Conditions that always differ between two models and need no warning.
_EXPECTED = ("checkpoint", "parameters", "results", "step", "suite", "n", "trained on the task")


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """Settings of a comparison of two evaluations."""

    suite: str = ""  # see `read.find_results`
    detector: str = "rules"  # see `load_detector`
    rank_by: str = ""  # metric that ranks the outputs; "": the first of `RANKED_BY`
    examples: int = 100  # half of it: most gains, most losses and most inventions that are shown
    seed: int = 0  # of the resampling


@dataclasses.dataclass(frozen=True)
class Pair:
    """One example of both evaluations."""

    lines: tuple[Example, Example]  # before and after
    change: float | None  # of the metric that ranks; None without a value
    checked: Both | None  # None where answers are short

    @property
    def new_inventions(self) -> int:
        """How many more things the output after invents."""
        both = self.checked
        return len(both.after.invented) - len(both.before.invented) if both else 0


@dataclasses.dataclass(frozen=True)
class Compared:
    """Two evaluations and everything computed about their common examples."""

    before: Evaluation
    after: Evaluation
    pairs: Sequence[Pair]  # examples of both with the same id and target, in the first's order
    left_out: Sequence[str]  # what was not compared, in words
    metrics: Sequence[str]  # that both have, in the order of the file
    tests: Mapping[str, PairedTest]  # of each metric with a value for each example
    rank_by: str

    @property
    def checked(self) -> list[Both]:
        """The checks, in the order of `pairs`; [] for short answers."""
        return [pair.checked for pair in self.pairs if pair.checked]

    @functools.cached_property
    def inventions(self) -> Rates | None:
        """Per cent of outputs that invent something; None for short answers."""
        return compare_faithfulness.invention_rates(self.checked) if self.checked else None

    @property
    def conditions(self) -> dict[str, tuple[str | None, str | None]]:
        """Each condition before and after; None where an evaluation lacks it."""
        first, second = read.conditions(self.before), read.conditions(self.after)
        return {name: (first.get(name), second.get(name)) for name in {**first, **second}}


def write_comparison(
    before: str, after: str, out_dir: str | os.PathLike[str], config: CompareConfig
) -> tuple[pathlib.Path, dict[str, Any]]:
    """Writes `before_after.html` and `.md`; returns the path of the page and its numbers.

    Raises:
        UserError: an evaluation is not found, or nothing can be compared.
    """
    compared = compare(before, after, config)
    page = write_document(document(compared, config), out_dir, "before_after")
    return page, summary(compared)


def compare(before: str, after: str, config: CompareConfig) -> Compared:
    """Reads and pairs both evaluations, tests every metric, checks every output."""
    paths = [read.find_results(run, config.suite) for run in (before, after)]
    if paths[0].resolve() == paths[1].resolve():
        raise UserError(f"{paths[0]} is both before and after. Name two runs, or two steps of one.")
    detector = load_detector(config.detector)
    first, second = (read.read_finished(path, keep=dict) for path in paths)
    by_key = [{key_of(line): line for line in one.examples} for one in (first, second)]
    common = [(line, by_key[1][key]) for key, line in by_key[0].items() if key in by_key[1]]
    lines = [pair for pair in common if same_question(*pair)]
    if not lines:
        raise UserError(
            f"{paths[0]} and {paths[1]} have no example in common. Evaluate both on the same "
            "suite, split, EvalConfig.seed and number of examples."
        )
    names = {row["metric"] for row in second.lines}
    metrics = [m for m in dict.fromkeys(row["metric"] for row in first.lines) if m in names]
    models = [first.examples, second.examples]
    tested = {m: paired_test(pair_examples(models, m), config.seed) for m in metrics}
    tests = {metric: test for metric, test in tested.items() if test is not None}
    if not tests:
        raise UserError(
            "no metric of these evaluations has a value for each example; none can rank. Evaluate "
            "a task with such a metric."
        )
    if config.rank_by and config.rank_by not in tests:
        raise UserError(f"no metric {config.rank_by!r} to rank by; allowed: {', '.join(tests)}")
    rank_by = config.rank_by or next(m for m in (*RANKED_BY, *tests) if m in tests)
    worth_checking = compare_faithfulness.worth_checking([line for line, _ in lines])
    pairs = []
    for pair in lines:
        scores = [line["scores"].get(rank_by) for line in pair]
        change = None if None in scores else scores[1] - scores[0]
        both = compare_faithfulness.check_both(*pair, detector) if worth_checking else None
        pairs.append(Pair(pair, change, both))
    left_out = []
    for name, evaluation, examples in zip(("before", "after"), (first, second), by_key):
        if alone := len(examples) - len(common):
            count = counted(alone, "example was", "examples were")
            left_out.append(f"{count} only evaluated {name}: left out.")
        left_out += [f"{name}: {line}" for line in results.failure_lines(evaluation.failures)]
    return Compared(
        before=first,
        after=second,
        pairs=pairs,
        left_out=[*left_out, *_differing_examples(lines, len(common) - len(lines))],
        metrics=metrics,
        tests=tests,
        rank_by=rank_by,
    )


def _differing_examples(lines: Sequence[tuple[Example, Example]], changed: int) -> list[str]:
    """Sentences about pairs that are no fair comparison; `changed` ones were left out."""
    prompts = sum(before["prompt"] != after["prompt"] for before, after in lines)
    cut = sum(any(map(_is_cut, pair)) for pair in lines)
    unknown = sum(not before["source"] for before, _ in lines)
    empty = [sum(not str(line["prediction"]).strip() for line in one) for one in zip(*lines)]
    texts = {
        f"{counted(changed, 'example has', 'examples have')} another id or target before than "
        "after: left out.": changed,
        f"{prompts:,} of {counted(len(lines), 'prompt')} are not the same before and after: "
        "another wording or length is part of the difference.": prompts,
        f"{counted(cut, 'input was', 'inputs were')} too long before or after and cut. "
        "What is lost counts as said by the input.": cut,
        f"{counted(unknown, 'example has', 'examples have')} no source of their own: outputs are "
        "held against the whole prompt, instruction and exemplars included.": unknown,
        f"{counted(sum(empty), 'output is', 'outputs are')} empty ({empty[0]:,} before, "
        f"{empty[1]:,} after): these invent nothing.": sum(empty),
    }
    return [text for text, count in texts.items() if count]


def _is_cut(line: Example) -> bool:
    """Whether the prompt lost the end of its source.

    Files that do not record it: whether the prompt shows the beginning of a line of the source and
    not its end. (A source also holds fields that the wording never shows.)
    """
    if line["truncated"] is not None:
        return line["truncated"]
    prompt = " ".join(line["prompt"].split())
    texts = (" ".join(text.split()) for text in line["source"].split("\n"))
    return any(text[:40] in prompt and text[-40:] not in prompt for text in texts if text)


def differing_conditions(compared: Compared) -> list[str]:
    """Sentences about the conditions that differ although the model alone should."""
    return [
        f"{name} is not the same: before {before or '–'}, after {after or '–'}."
        for name, (before, after) in compared.conditions.items()
        if name not in _EXPECTED and before != after and "–" not in (before, after)
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
    sections = [_overview(compared), _scores_section(compared)]
    if checked := compared.checked:
        sections.append(compare_faithfulness.faithfulness_section(checked, config.detector))
    sections += [_outputs_section(compared, config.examples // 2), _conditions_section(compared)]
    return blocks.Document(
        f"Before and after: {compared.before.suite or 'two evaluations'}",
        f"before ({_folder(compared.before)}) · after ({_folder(compared.after)})",
        sections,
    )


def _folder(evaluation: Evaluation) -> str:
    """`<run>, step_<n>` of MODEL_DIR/eval/<suite>/step_<n>/results.jsonl."""
    path = evaluation.path.resolve()
    if path.parts[-4:-3] == ("eval",):
        return f"{path.parents[3].name}, {path.parent.name}"
    return path.parent.name


@blocks.section("overview", "At a glance")
def _overview(compared: Compared) -> Iterator[blocks.Block]:
    metric, test = compared.rank_by, compared.tests[compared.rank_by]
    change = signed(test.difference)
    note = f"{_interval(test)}, from {test.first:.1f} to {test.second:.1f}, n = {test.n:,}"
    equal = test.n - test.wins - test.losses
    outputs = f"of {counted(test.n, 'output')}, {equal:,} equal"
    facts = [
        blocks.Fact(f"{metric}, change", change, note),
        blocks.Fact("Better / worse", f"{test.wins:,} / {test.losses:,}", outputs),
    ]
    if rates := compared.inventions:
        note = f"before {rates.first:.1f} %, change {compare_faithfulness.change_text(rates)}"
        facts.append(blocks.Fact("Outputs that invent", f"{rates.second:.1f} %", note))
    yield blocks.Facts(facts)
    yield blocks.Text(_verdict(metric, test))
    if notices := [*differing_conditions(compared), *compared.left_out]:
        yield blocks.Notices(notices)


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


@blocks.section("scores", "Scores")
def _scores_section(compared: Compared) -> Iterator[blocks.Block]:
    rows = []
    corrected = dict(zip(compared.tests, holm([test.p for test in compared.tests.values()])))
    for metric in compared.metrics:
        if test := compared.tests.get(metric):
            cells = (number(test.first), number(test.second), signed(test.difference))
            cells += (_interval(test), probability(test.p), probability(corrected[metric]))
            cells += (f"{test.wins} / {test.losses}", f"{test.n:,}")
        else:
            cells = (*map(number, _means(compared, metric)), *["–"] * 6)
        rows.append(blocks.Row((metric, *cells), strong=metric == compared.rank_by))
    columns = ("Metric", "Before", "After", "Change", "95 % interval", "p", "p (Holm)")
    yield blocks.Table((*columns, "Better / worse", "n"), rows)
    test = compared.tests[compared.rank_by]
    text = (
        f"Paired bootstrap over examples ({test.resamples:,} resamples, seed {test.seed}): both "
        "outputs of an example are drawn together. p is two-sided; p (Holm) is corrected for the "
        "number of metrics. Only the choice of examples is chance here, not the training seed."
    )
    yield blocks.Text(text, quiet=True)
    groups = next(iter(compared.tests.values())).groups
    if groups > 1:
        yield blocks.Text(f"Scores are unweighted means over {groups} tasks.", quiet=True)


def _means(compared: Compared, metric: str) -> list[float | None]:
    """Means before and after over the tasks with this metric in both evaluations."""
    before, after = (
        {
            (row["task"], row["mode"]): row
            for row in evaluation.lines
            if row["metric"] == metric and row["value"] is not None
        }
        for evaluation in (compared.before, compared.after)
    )
    common = [task for task in before if task in after]
    return [results.aggregate(rows[task] for task in common).value for rows in (before, after)]


@blocks.section("outputs", "Outputs side by side")
def _outputs_section(compared: Compared, half: int) -> Iterator[blocks.Block]:
    half = max(1, half)
    pairs, metric = compared.pairs, compared.rank_by
    ranked = sorted((pair for pair in pairs if pair.change), key=lambda pair: pair.change or 0)
    gains = [pair for pair in reversed(ranked) if (pair.change or 0) > 0][:half]
    losses = [pair for pair in ranked if (pair.change or 0) < 0][:half]
    if compared.checked:
        text = (
            "Marked in an output: filled, what the input does not say (invented); thinly "
            "underlined, names, numbers, dates and places that it does say. Dashed in a "
            "reference: what the output after misses."
        )
        yield blocks.Text(text, quiet=True)
    worse = [pair for pair in pairs if pair.new_inventions > 0]
    worse.sort(key=lambda pair: -pair.new_inventions)
    invented = f"More invented after than before: {len(worse):,} of {len(pairs):,}"
    for title, shown, open_items in (
        (invented, worse[:half], 3),
        (f"Largest gains in {metric}", gains, 6),
        (f"Largest losses in {metric}", losses, 6),
    ):
        if shown:
            yield blocks.SideBySide(title, [_card(pair, metric) for pair in shown], open_items)
    if rest := len(pairs) - len({id(pair) for pair in (*worse[:half], *gains, *losses)}):
        kind = "with smaller or no changes"
        text = counted(rest, f"output {kind} is", f"outputs {kind} are")
        yield blocks.Text(f"{text} not shown.", quiet=True)


def _card(pair: Pair, metric: str) -> blocks.Comparison:
    before, after = pair.lines
    scores = " → ".join(number(line["scores"].get(metric)) for line in pair.lines)
    change = "" if pair.change is None else f" ({signed(pair.change)})"
    both = pair.checked
    return blocks.Comparison(
        title=before["id"] or f"{before['task']} {before['index']}",
        scores=f"{metric} {scores}{change}",
        source=before["source"] or before["prompt"],
        references=[
            compare_faithfulness.reference_spans(text, both)
            for text in before["references"] or [before["target"]]
        ],
        outputs=[
            compare_faithfulness.output("before", 0, before["prediction"], both and both.before),
            compare_faithfulness.output("after", 1, after["prediction"], both and both.after),
        ],
    )


@blocks.section("conditions", "Conditions of both runs")
def _conditions_section(compared: Compared) -> Iterator[blocks.Block]:
    rows = []
    for name, pair in compared.conditions.items():
        before, after = ("–" if value is None else value for value in pair)
        rows.append(blocks.Row((name, before, after, "" if before == after else "differs")))
    yield blocks.Table(("Condition", "Before", "After", ""), rows, 4)
