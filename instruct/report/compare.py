"""Two evaluations of the same examples brought together: pairs, tests, checks, conditions."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from instruct import results
from instruct.errors import UserError
from instruct.report import compare_faithfulness, paired
from instruct.report.compare_faithfulness import Both
from instruct.report.evaluation_file import (
    EvaluationFile,
    Key,
    find_results,
    labels_of,
    read_evaluation,
)
from instruct.report.faithfulness.detector import load_detector
from instruct.report.paired import PairedTest
from instruct.report.wording import counted, failure_lines

# What may rank outputs, the first that both runs have; else the first metric.
RANKED_BY = ("rougeL", "rougeLsum", "rouge1", "f1", "bleu")
SHOWN = 100
# Settings that differ by nature between two models, and need no warning.
_UNKNOWN = "–"  # what earlier results files do not say
_EXPECTED = ("checkpoint", "parameters")


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """How two evaluations are compared.

    Attributes:
        suite: which suite; see `evaluation_file.find_results`.
        detector: see `faithfulness.detector.load_detector`.
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
class Compared:
    """Two evaluations brought together.

    Attributes:
        before, after: the evaluations.
        keys: examples of both with the same id and target, in the order of the first.
        left_out: what was not compared, in words.
        metrics: names of the metrics that are compared, in the order of the file.
        tests: of each metric that has a value an example.
        rank_by: the metric that ranks. checked: each example's outputs; {} for short answers.
    """

    before: EvaluationFile
    after: EvaluationFile
    keys: tuple[Key, ...]
    left_out: tuple[str, ...]
    metrics: tuple[str, ...]
    tests: Mapping[str, PairedTest]
    rank_by: str
    checked: Mapping[Key, Both]


def compare(before: str, after: str, config: CompareConfig) -> Compared:
    """Reads and pairs both evaluations, tests every metric, checks every output."""
    paths = [find_results(run, config.suite) for run in (before, after)]
    if paths[0].resolve() == paths[1].resolve():
        raise UserError(f"{paths[0]} is both before and after. Name two runs, or two steps of one.")
    detector = load_detector(config.detector)
    labels = labels_of(paths, ["before", "after"])
    first, second = (read_evaluation(path, label) for path, label in zip(paths, labels))
    common = [key for key in first.examples if key in second.examples]
    keys = [key for key in common if _same_question(first.examples[key], second.examples[key])]
    if not keys:
        raise UserError(
            f"{paths[0]} and {paths[1]} have no example in common. Evaluate both on the same "
            "suite, split, EvalConfig.seed and number of examples."
        )
    metrics = _common_metrics(first, second)
    tests = {}
    for metric in metrics:
        pairs = paired.pair_examples(first.rows, second.rows, metric)
        if pairs.keys:
            test = paired.paired_bootstrap(
                pairs.first, pairs.second, pairs.groups, seed=config.seed
            )
            tests[metric] = test
    rank_by = _rank_metric(config.rank_by, tests)
    rows = [first.examples[key] for key in keys]
    checked = {}
    if compare_faithfulness.worth_checking(rows):
        checked = {
            key: compare_faithfulness.check_both(
                first.examples[key], second.examples[key], detector
            )
            for key in keys
        }
    left_out = _left_out(first, second, common, keys)
    return Compared(first, second, tuple(keys), left_out, tuple(metrics), tests, rank_by, checked)


def _same_question(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return (one["id"], one["target"]) == (other["id"], other["target"])


def _common_metrics(first: EvaluationFile, second: EvaluationFile) -> list[str]:
    names = dict.fromkeys(row["metric"] for row in first.metrics)
    other = {row["metric"] for row in second.metrics}
    return [name for name in names if name in other]


def _rank_metric(asked: str, tests: Mapping[str, PairedTest]) -> str:
    if not tests:
        raise UserError(
            "no metric of these evaluations has a value for each example; none can rank."
        )
    if asked and asked not in tests:
        raise UserError(f"no metric {asked!r} to rank by; allowed: {', '.join(tests)}")
    return asked or next((name for name in RANKED_BY if name in tests), next(iter(tests)))


def _left_out(
    first: EvaluationFile, second: EvaluationFile, common: Sequence[Key], keys: Sequence[Key]
) -> tuple[str, ...]:
    told = []
    for one, name in ((first, "before"), (second, "after")):
        alone = len(one.examples) - len(common)
        if alone:
            told.append(
                f"{counted(alone, 'example was', 'examples were')} only evaluated {name}: left out."
            )
        told += [f"{name}: {line}" for line in failure_lines(one.failures)]
    changed = len(common) - len(keys)
    if changed:
        told.append(
            f"{counted(changed, 'example has', 'examples have')} another id or target before than "
            "after: left out."
        )
    prompts = sum(first.examples[k]["prompt"] != second.examples[k]["prompt"] for k in keys)
    if prompts:
        told.append(
            f"{prompts:,} of {counted(len(keys), 'prompt')} are not the same before and after: "
            "another wording or length is part of the difference."
        )
    cut = sum(_is_cut(first.examples[key]) for key in keys)
    if cut:
        told.append(
            f"{counted(cut, 'input was', 'inputs were')} too long for the model and cut. What is "
            "lost counts as said by the input."
        )
    unknown = sum(not first.examples[key]["source"] for key in keys)
    if unknown:
        told.append(
            f"{counted(unknown, 'example has', 'examples have')} no source of their own: outputs "
            "are held against the whole prompt, instruction and exemplars included."
        )
    return tuple(told)


def _is_cut(row: Mapping[str, Any]) -> bool:
    """Whether the prompt shows the beginning of a line of the source and not its end.

    For files that do not say: a source also holds fields that the wording never shows.
    """
    if row["truncated"] is not None:
        return row["truncated"]
    prompt = " ".join(row["prompt"].split())
    lines = (" ".join(line.split()) for line in row["source"].split("\n"))
    return any(line[:40] in prompt and line[-40:] not in prompt for line in lines if line)


def change_of(compared: Compared, key: Key) -> float | None:
    """How much better the output after is, in the metric that ranks; None where it has none."""
    values = [
        one.examples[key]["scores"].get(compared.rank_by)
        for one in (compared.before, compared.after)
    ]
    return None if values[0] is None or values[1] is None else values[1] - values[0]


def conditions(one: EvaluationFile) -> dict[str, str]:
    """Everything that an evaluation's numbers hang on, in words."""
    rows = one.metrics
    found = {
        "suite": str(one.header.get("suite", "")),
        "results": str(one.path),
        "checkpoint": str(one.header.get("checkpoint", "")),
        "step": f"{one.header.get('step', 0):,}",
        "n": f"{len(one.examples):,}",
        "decode": ", ".join(sorted({row["decode"] for row in rows})),
        "task version": ", ".join(sorted({f"{r['task']} {r['task_version']}" for r in rows})),
        "template set": ", ".join(sorted({row["template_set"] for row in rows})),
        "split": ", ".join(sorted({row["split"] for row in rows})),
        "exemplars shown": results.exemplars_text(
            results.exemplars_of(results.primary_metrics(rows))
        ),
        "trained on the task": ", ".join(sorted({row["group"].replace("_", "-") for row in rows})),
    }
    for name, value in one.header.get("settings", {}).items():
        if name not in found:
            found[name] = str(value)
    return found


def differing_conditions(compared: Compared) -> list[str]:
    """What differs besides the model, in words."""
    first, second = conditions(compared.before), conditions(compared.after)
    ignored = (*_EXPECTED, "results", "step", "suite", "n", "trained on the task")
    names = [n for n in dict.fromkeys([*first, *second]) if n not in ignored]
    return [
        f"{name} is not the same: before {first.get(name, '–')}, after {second.get(name, '–')}."
        for name in names
        if first.get(name) != second.get(name)
        and _UNKNOWN not in (first.get(name), second.get(name))
    ]


def summary(compared: Compared) -> dict[str, Any]:
    """The numbers of the page, for a program to read."""
    found: dict[str, Any] = {
        "n": len(compared.keys),
        "metrics": {name: dataclasses.asdict(test) for name, test in compared.tests.items()},
        "left_out": list(compared.left_out),
    }
    if compared.checked:
        rates = compare_faithfulness.invention_rates(list(compared.checked.values()))
        found["outputs_that_invent"] = dataclasses.asdict(rates)
    return found
