"""Which examples of two evaluations are held against each other, and their tests."""

import math

import numpy as np
import pytest

from instruct.report.compare import pair_examples, paired_test, task_draws, task_tests


def row(index, correct=None, task="t", kind="example", target="x", **scores):
    return {
        "kind": kind,
        "task": task,
        "mode": "direct",
        "split": "test",
        "index": index,
        "id": f"test-{index}",
        "target": target,
        "correct": correct,
        "scores": scores,
    }


def test_examples_are_paired_by_what_they_are_not_by_their_place():
    first = [row(0, True), row(1, False), row(2, True), row(9, True)]
    second = [row(2, False), row(1, True), row(0, True, target="y"), row(8, True), row(7, True)]
    pairs = pair_examples([first, second])
    assert [key[3] for key in pairs.keys] == [1, 2]
    assert pairs.scores.tolist() == [[0, 100], [100, 0]]
    assert pairs.counts == (4, 5)


def test_metrics_by_name_and_as_usual():
    first = [row(0, None, rouge1=40.0, rouge2=9.0), row(1, None, rouge1=math.nan), row(2, True)]
    second = [row(0, None, rouge1=44.0, rouge2=8.0), row(1, None, rouge1=3.0), row(2, False)]
    assert pair_examples([first, second], "rouge2").scores.tolist() == [[9.0, 8.0]]
    usual = pair_examples([first, second])
    assert usual.scores.tolist() == [[40.0, 44.0], [100.0, 0.0]]


def test_rows_are_compared_task_by_task_and_in_all():
    first = [row(i, i < 5, "a") for i in range(10)] + [row(i, False, "b") for i in range(30)]
    second = [row(i, i < 5, "a") for i in range(10)] + [row(i, i < 15, "b") for i in range(30)]
    pairs = pair_examples([first, second])
    whole = paired_test(pairs, seed=1, resamples=1000)
    tests = task_tests(pairs, seed=1, resamples=1000)
    assert whole is not None and whole.difference == 25
    assert list(tests) == ["a direct", "b direct"] and tests["a direct"].p == 1
    assert tests["b direct"].difference == 50 and tests["b direct"].clear
    assert paired_test(pair_examples([first, []])) is None


def test_a_resample_draws_the_same_examples_for_every_model():
    models = [[row(i, i % 2 == 0) for i in range(50)] for _ in range(3)]
    metrics = [{"value": 50.0, "stderr": 7.0, "metric": ""}] * 3
    draws = task_draws(metrics, models, np.random.default_rng(0), 500)
    assert draws.paired == 50 and draws.values.tolist() == [50, 50, 50]
    assert (draws.drawn == draws.drawn[:, :1]).all()
    assert draws.drawn[:, 0].std() == pytest.approx(50 / 50**0.5, rel=0.1)


def test_a_metric_that_is_no_mean_over_examples_has_its_own_error():
    models = [[row(i, i % 2 == 0) for i in range(50)] for _ in range(2)]
    metrics = [{"value": 61.0, "stderr": 2.0, "metric": ""}, {"value": 7.0, "stderr": None}]
    draws = task_draws(metrics, models, np.random.default_rng(0), 500)
    assert draws.paired == 0 and draws.values.tolist() == [61, 7]
    assert draws.drawn[:, 0].std() == pytest.approx(2, rel=0.1)
    assert np.isnan(draws.drawn[:, 1]).all()
