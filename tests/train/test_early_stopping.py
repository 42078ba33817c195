"""A run stops by the rows of its metrics alone, and says why."""

import dataclasses
import math

import pytest

from instruct.checkpoints.checkpoint import CheckpointConfig
from instruct.errors import UserError
from instruct.train.early_stopping import EarlyStopping, choice_lines

BEST = CheckpointConfig(best_metric="eval/toy/rougeL", save_every_steps=100)


def rows(*values, name="eval/toy/rougeL"):
    """A row an evaluation, every 10 steps, with logged steps in between."""
    found = []
    for number, value in enumerate(values, start=1):
        found += [{"step": 10 * number - 5, "loss": 1.0}, {"step": 10 * number, name: value}]
    return found


def steps_until_stop(config, *values):
    """The number of evaluations after which a run stops; None: it does not."""
    counts = range(1, len(values) + 1)
    return next((n for n in counts if config.reason(rows(*values[:n]))), None)


def test_it_stops_after_as_many_evaluations_without_a_better_one():
    config = EarlyStopping(patience=2).resolved(BEST)
    assert steps_until_stop(config, 1, 2, 3, 4) is None
    assert steps_until_stop(config, 5, 4, 6, 6, 6, 9) == 5
    assert steps_until_stop(config, 5, 4, 3, 9) == 3
    assert EarlyStopping().resolved(BEST).reason(rows(5, 4, 3)) is None
    said = config.reason(rows(5, 4, 6, 6, 6))
    assert said == "2 evaluations did not improve eval/toy/rougeL since step 30 (6)"


def test_small_changes_count_for_nothing_and_add_up():
    config = EarlyStopping(patience=2, min_change=1.0).resolved(BEST)
    assert steps_until_stop(config, 5, 5.9, 6) == 3
    assert steps_until_stop(config, 5, 5.9, 6.5, 7, 7.6) is None  # of the best, not of the last
    assert "by more than 1 since step 10" in str(config.reason(rows(5, 5.9, 6)))


def test_losses_are_better_if_they_are_lower():
    lower = EarlyStopping(patience=1).resolved(CheckpointConfig())
    assert (lower.metric, lower.is_lowest) == ("eval/loss", True)
    assert lower.reason(rows(3, 2, name="eval/loss")) is None
    assert lower.reason(rows(3, 3.5, name="eval/loss"))
    higher = EarlyStopping(patience=1).resolved(BEST)
    assert higher.is_lowest is False
    assert EarlyStopping(1, is_lowest=True).resolved(BEST).is_lowest is True
    named = dataclasses.replace(BEST, best_metric="wer", best_is_lowest=True)
    assert EarlyStopping(1).resolved(named).is_lowest is True
    assert EarlyStopping(1, metric="eval/loss/toy").resolved(named).is_lowest is True


def test_a_value_that_is_not_finite_is_no_improvement():
    config = EarlyStopping(patience=2).resolved(BEST)
    assert steps_until_stop(config, None, None, 3) == 2
    assert steps_until_stop(config, None, 3, math.nan, 4, None, None) == 6


def test_what_chooses_is_said_where_it_is_asked_for():
    assert choice_lines(CheckpointConfig(), EarlyStopping(), [7]) == []
    stops = EarlyStopping(patience=3).resolved(BEST)
    kept, warning, stop = choice_lines(BEST, stops, [200, 30])
    assert kept == "keeps the checkpoint with the highest eval/toy/rougeL"
    assert "evaluations every 30 steps and checkpoints every 100" in warning
    assert stop == "stops early after 3 evaluations without a higher eval/toy/rougeL"
    assert choice_lines(BEST, stops, [200]) == [kept, stop]


def test_bad_values_are_named():
    with pytest.raises(UserError, match=r"EarlyStopping.patience is 0"):
        EarlyStopping(patience=0)
    with pytest.raises(UserError, match=r"EarlyStopping.min_change is -1"):
        EarlyStopping(min_change=-1)


def test_a_metric_that_was_never_finite_is_named_without_a_best():
    stops = EarlyStopping(patience=2, metric="m", is_lowest=True)
    rows = [{"step": 1, "m": None}, {"step": 2, "m": None}]
    assert stops.reason(rows) == "2 evaluations gave no finite m"
