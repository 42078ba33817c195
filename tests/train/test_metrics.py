"""Interval means, their JSON state, and divergence."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from instruct.mean import Mean
from instruct.train.loss import LossTotals
from instruct.train.metrics import IntervalMetrics, TrainingDiverged, eval_scalars
from instruct.train.step import StepMetrics


def mean(total, weight):
    return Mean(jnp.asarray(total, jnp.float32), jnp.asarray(weight, jnp.float32))


def step_metrics(loss, weight, norm=1.0, groups=((0.0, 0.0), (0.0, 0.0))):
    totals = LossTotals(
        mean(loss, weight), mean(0.1, weight), mean(1.0, weight), mean(*zip(*groups))
    )
    return StepMetrics(totals, jnp.float32(norm), jnp.float32(0.5), mean(30.0, 40.0))


def test_means_are_by_weight_over_the_interval():
    meter = IntervalMetrics(["a", "b"])
    meter.add(1, step_metrics(10.0, 10.0, 1.0, ((10.0, 10.0), (0.0, 0.0))), {"a": 2}, 2)
    meter.add(2, step_metrics(90.0, 30.0, 3.0, ((90.0, 30.0), (0.0, 0.0))), {"a": 3}, 3)
    scalars = meter.scalars()
    assert scalars["loss"] == 2.5 == scalars["loss/a"] and "loss/b" not in scalars
    assert scalars["gradient_norm"] == 2.0 and scalars["learning_rate"] == 0.5
    assert scalars["padding_share"] == 0.25 and scalars["examples"] == 5
    assert meter.timed_steps == 2 and meter.timed_tokens == 60
    meter.clear()
    assert meter.timed_steps == 0 == meter.timed_tokens and meter.examples == 5


def test_json_state_continues_exactly():
    whole, first = IntervalMetrics(["a"]), IntervalMetrics(["a"])
    parts = [step_metrics(x, 3.0, x, ((x, 3.0),)) for x in (0.1, 0.7, 1.3)]
    for number, part in enumerate(parts):
        whole.add(number, part, {}, 1)
    first.add(0, parts[0], {}, 1)
    second = IntervalMetrics(["a"])
    second.restore(json.loads(json.dumps(first.state())))
    for part in parts[1:]:
        second.add(1, part, {}, 1)
    assert second.scalars() == whole.scalars()
    # What another process computed is not part of this one's speed.
    assert (whole.timed_steps, second.timed_steps, second.timed_tokens) == (3, 2, 60.0)


@pytest.mark.parametrize(("loss", "norm"), [(np.nan, 1.0), (np.inf, 1.0), (1.0, np.nan)])
def test_not_finite_names_step_and_tasks(loss, norm):
    meter = IntervalMetrics([])
    counts = {f"task{i:02d}": i for i in range(12)}
    with pytest.raises(
        TrainingDiverged, match=r"step 7.*task11: 11, task10: 10.*and 2 more.*new MODEL_DIR"
    ):
        meter.add(7, without_groups(loss, norm), counts, 1)


def without_groups(loss, norm):
    totals = LossTotals(mean(loss, 1.0), mean(0, 1), mean(0, 1), mean(np.zeros(0), np.zeros(0)))
    return StepMetrics(totals, jnp.float32(norm), jnp.float32(0.5), mean(1, 1))


def test_eval_scalars():
    totals = LossTotals(mean(8, 4), mean(0, 4), mean(1, 4), mean([6.0, 0.0], [2.0, 0.0]))
    assert eval_scalars(totals, ["a", "b"]) == {
        "eval/loss": 2.0,
        "eval/accuracy": 0.25,
        "eval/loss/a": 3.0,
    }
