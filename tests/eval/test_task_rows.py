"""Lines of one task from outputs given by hand."""

import dataclasses
import json

import numpy as np
import pytest

from instruct import results
from instruct.data.feed.examples import EvalExample
from instruct.eval import metrics
from instruct.eval.scoring.measure import Measured
from instruct.eval.task_rows import (
    FixedReplies,
    ModelOutputs,
    baselines,
    measure_task,
    metric_names,
    needs_predictions,
    needs_scores,
    rows_of_task,
)


@dataclasses.dataclass
class ToyTask:
    predict_metric_fns: list = dataclasses.field(default_factory=list)
    score_metric_fns: list = dataclasses.field(default_factory=list)
    predict_with_aux_metric_fns: list = dataclasses.field(default_factory=list)

    def postprocess_fn(self, decoded_model_output, **kwargs):
        return decoded_model_output


@dataclasses.dataclass
class ToyExample:
    index: int
    targets: str
    inputs: str = "in"
    template_id: str = "t"
    references: tuple = ()
    seqio_example: dict = dataclasses.field(default_factory=dict)
    options: tuple = ()
    num_exemplars: int | None = None
    exemplars_asked: int | None = None
    truncated: bool | None = None

    @property
    def id(self):
        return f"id{self.index}"


EXAMPLES = [ToyExample(i, target) for i, target in enumerate(("a", "b", "a"))]
SHARED = {
    "suite": "s", "task": "x", "task_version": "1", "family": "f", "category": "c", "mode": "m",
    "split": "test", "group": "held_in", "step": 1,
}  # fmt: skip
FIELDS = {"checkpoint": "c", "template_set": "t", "decode": "greedy", "left_out": 0}
FIELDS |= {"metric_fns": "exact_match", "records": "ab12"}


def always(text, options=((), (), ())):
    return FixedReplies([text] * 3 if text else (), [-1] * 3, options)


@pytest.mark.parametrize(
    ("task", "predictions", "scores"),
    [
        (ToyTask([metrics.accuracy]), True, False),
        (ToyTask([], [metrics.log_likelihood]), False, True),
        (ToyTask([], [metrics.log_likelihood], [print]), True, True),
        (ToyTask(), True, False),
    ],
)
def test_only_what_is_needed_is_computed(task, predictions, scores):
    assert (needs_predictions(task), needs_scores(task)) == (predictions, scores)


def test_rows_pass_the_check_and_agree():
    task = ToyTask([metrics.exact_match, metrics.squad], [metrics.log_likelihood])
    outputs = ModelOutputs(["a", "a", "a"], {}, [-1.0, -2.0, -3.0])
    measured = measure_task(task, EXAMPLES, outputs)
    assert list(measured) == ["exact_match", "em", "f1", "log_likelihood"]
    base = baselines(task, EXAMPLES, always("b"), measured)[0]
    assert base == pytest.approx({"exact_match": 100 / 3, "em": 100 / 3, "f1": 100 / 3})
    rows = rows_of_task(SHARED, FIELDS, EXAMPLES, outputs, measured, base, {})
    for row in rows:
        results.check_row(row)
    assert [row["correct"] for row in rows[:3]] == [True, False, True]
    assert rows[1]["scores"]["log_likelihood"] == -2.0
    assert rows[6]["metric"] == "log_likelihood" and rows[6]["baseline"] is None


def test_a_line_has_the_records_own_text_and_every_reference():
    record = json.dumps({"fields": {"topic": "rain", "dialogue": "A: It rains.\nB: It does."}})
    known = ToyExample(0, "a", references=("a", "b"), seqio_example={"record": record.encode()})
    outputs = ModelOutputs(["a", "b"])
    rows = rows_of_task(SHARED, FIELDS, [known, EXAMPLES[1]], outputs, {}, {}, {})
    assert rows[0]["source"] == "rain\nA: It rains.\nB: It does."
    assert rows[0]["references"] == ["a", "b"]
    assert (rows[1]["source"], rows[1]["references"]) == ("", [])
    assert rows[0]["truncated"] is None


@pytest.mark.parametrize("truncated", [True, False])
def test_a_line_says_whether_its_input_was_cut(truncated):
    example = EvalExample(
        *("toy", 0, "id0", "in", "a", [1], [1], "t", (), ("a",), {}, {}), truncated=truncated
    )
    [row] = rows_of_task(SHARED, FIELDS, [example], ModelOutputs(["a"]), {}, {}, {})
    results.check_row(row)
    assert row["truncated"] is truncated


def test_two_metrics_of_one_name_are_both_kept():
    task = ToyTask([metrics.accuracy, metrics.accuracy])
    measured = measure_task(task, EXAMPLES, ModelOutputs(["a", "b", "b"]))
    assert list(measured) == ["accuracy", "accuracy#2"]


def test_names_are_known_before_there_are_outputs():
    task = ToyTask([metrics.exact_match], [metrics.log_likelihood])
    examples = [ToyExample(0, "a"), ToyExample(1, "b")]
    assert metric_names(task, examples, rank=False) == ["exact_match", "log_likelihood"]
    ranked = dataclasses.replace(examples[0], options=("a", "b"))
    names = metric_names(ToyTask(), [ranked, examples[1]], rank=True, rank_first=True)
    assert names == ["rank_accuracy", "rank_accuracy_per_token", "exact_match"]


def test_a_model_that_has_diverged_ranks_no_option_right():
    unknown = np.array([np.nan, np.nan])
    ranked = [(unknown, np.ones(2), 0), (np.array([-1.0, -2.0]), np.ones(2), 0)]
    measured = measure_task(ToyTask(), EXAMPLES[:2], ModelOutputs(["a", "a"], ranked=ranked))
    assert measured["rank_accuracy"].singles == (0.0, 100.0)
    assert measured["rank_accuracy_per_token"].value == 50.0


def test_ranking_covers_the_examples_with_options():
    totals, lengths = np.array([-4.0, -3.0]), np.array([4, 1])
    outputs = ModelOutputs(["a", "b", "a"], ranked=[(totals, lengths, 1), None, None])
    measured = measure_task(ToyTask(), EXAMPLES, outputs)
    assert measured["rank_accuracy"].value == 100.0
    assert measured["rank_accuracy_per_token"].value == 0.0
    rows = rows_of_task(SHARED, FIELDS, EXAMPLES, outputs, measured, {}, {})
    assert rows[0]["scores"] == {"exact_match": 100.0}
    by_metric = {row["metric"]: row["n"] for row in rows if row["kind"] == "metric"}
    assert by_metric == {"exact_match": 3, "rank_accuracy": 1, "rank_accuracy_per_token": 1}


def test_a_metric_that_chokes_on_the_majority_answer_has_no_baseline():
    def strict(targets, predictions):
        return {"number": float(np.mean([float(p) for p in predictions]))}

    measured = {"number": Measured(1.0, None, None)}
    assert baselines(ToyTask([strict]), EXAMPLES, always("many"), measured)[0] == {}
    assert baselines(ToyTask([strict]), EXAMPLES, always(""), measured)[0] == {}
    assert baselines(ToyTask([strict]), EXAMPLES, always("4"), measured)[0] == {"number": 4.0}


def test_a_random_choice_is_right_as_often_as_options_allow():
    task = ToyTask([metrics.exact_match])
    outputs = ModelOutputs(["a", "a", "a"])
    measured = measure_task(task, EXAMPLES, outputs)
    # Of two, of four and of no options: the targets are a, b, a.
    replies = always("a", (("a", "b"), ("a", "b", "c", "d"), ()))
    chance = baselines(task, EXAMPLES, replies, measured)[1]
    assert chance == pytest.approx({"exact_match": 100 * (1 / 2 + 1 / 4 + 0) / 3})
    assert baselines(task, EXAMPLES, always("a"), measured)[1] == {}
    # A metric that is no mean over examples has none.
    whole = {"exact_match": Measured(1.0, None, None)}
    assert baselines(task, EXAMPLES, replies, whole)[1] == {}


def test_baselines_of_ranking():
    totals, lengths = np.array([-4.0, -3.0]), np.array([4, 1])
    ranked = [(totals, lengths, 1), (totals, lengths, 0), None]
    outputs = ModelOutputs(["a", "b", "a"], ranked=ranked)
    measured = measure_task(ToyTask(), EXAMPLES, outputs)
    replies = FixedReplies(["a"] * 3, [1, 1, -1], (("b", "a"), ("b", "a"), ()))
    base = baselines(ToyTask(), EXAMPLES, replies, measured, ranked)[0]
    assert base["rank_accuracy"] == base["rank_accuracy_per_token"] == 50.0
    chance = baselines(ToyTask(), EXAMPLES, replies, measured, ranked)[1]
    assert chance["rank_accuracy"] == chance["rank_accuracy_per_token"] == 50.0


def test_lines_count_what_prompts_show_and_lost():
    shown = [
        dataclasses.replace(EXAMPLES[0], num_exemplars=5, exemplars_asked=5, truncated=False),
        dataclasses.replace(EXAMPLES[1], num_exemplars=2, exemplars_asked=5, truncated=True),
    ]
    measured = measure_task(ToyTask(), shown, ModelOutputs(["a", "b"]))
    fields = FIELDS | {"left_out": 3}
    *lines, metric = rows_of_task(
        SHARED, fields, shown, ModelOutputs(["a", "b"]), measured, {}, {"exact_match": 50.0}
    )
    counts = [(row["exemplars"], row["exemplars_asked"], row["truncated"]) for row in lines]
    assert counts == [(5, 5, False), (2, 5, True)]
    assert (metric["exemplars_mean"], metric["exemplars_min"]) == (3.5, 2)
    assert (metric["exemplars_asked"], metric["truncated"], metric["left_out"]) == (5.0, 1, 3)
    assert metric["random_baseline"] == 50.0
    # A plain seqio task does not tell.
    *_, metric = rows_of_task(
        SHARED, FIELDS, EXAMPLES, ModelOutputs(["a", "b", "a"]), measured, {}, {}
    )
    assert metric["exemplars_mean"] is metric["exemplars_min"] is metric["truncated"] is None
