"""Values, standard errors and single values of metrics of every kind."""

import math
import statistics

import numpy as np
import pytest

from instruct.eval import metrics
from instruct.eval.scoring import measure


class Scalar:
    """Like SeqIO's."""

    def __init__(self, value):
        self.value = value


def test_a_mean_has_the_usual_standard_error():
    targets, predictions = ["a"] * 4, ["a", "a", "b", "a"]
    found = measure.measure(metrics.exact_match, targets, {"predictions": predictions})
    one = found["exact_match"]
    assert one.value == 75.0 and one.singles == (100.0, 100.0, 0.0, 100.0)
    assert one.stderr == pytest.approx(50.0 / 2)  # sd of (100, 100, 0, 100) is 50, n = 4


def median(targets, predictions):
    return {"median": statistics.median(predictions)}


def test_no_mean_is_bootstrapped_and_seeded():
    rng = np.random.default_rng(0)
    values = rng.normal(size=400).tolist()
    outputs = {"predictions": values}
    first = measure.measure(median, values, outputs, seed=1)["median"]
    assert first.singles is None
    # The median of a normal sample: sd * sqrt(pi / 2) / sqrt(n).
    assert first.stderr == pytest.approx(math.sqrt(math.pi / 2) / 20, rel=0.2)
    assert measure.measure(median, values, outputs, seed=1)["median"] == first
    assert measure.measure(median, values, outputs, seed=2)["median"].stderr != first.stderr
    none = measure.measure(median, values, outputs, bootstrap_samples=0)["median"]
    assert none.stderr is None and none.value == first.value


def test_one_example_has_no_standard_error():
    found = measure.measure(metrics.exact_match, ["a"], {"predictions": ["a"]})
    assert found["exact_match"] == (100.0, None, (100.0,))


def test_a_metric_that_refuses_parts_still_has_a_value():
    def pairs_only(targets, predictions):
        if len(set(predictions)) < 3:
            raise ValueError("needs three different values")
        return {"spread": max(predictions) - min(predictions)}

    found = measure.measure(pairs_only, [0, 0, 0], {"predictions": [1, 2, 4]})
    assert found["spread"] == (3.0, None, None)


def test_aux_values_are_taken_apart_with_the_examples():
    def weighted(targets, predictions, aux_values):
        assert len(aux_values["weight"]) == len(predictions)
        return {"weighted": float(np.mean(aux_values["weight"]))}

    outputs = {"predictions": ["a", "b"], "aux_values": {"weight": [1.0, 3.0]}}
    assert measure.measure(weighted, ["a", "b"], outputs)["weighted"].singles == (1.0, 3.0)


def test_numbers_leaves_texts_out():
    result = {"a": 1, "b": np.float32(2), "c": Scalar(3.0), "d": "text", "e": Scalar("x"), "f": [1]}
    assert measure.numbers(result) == {"a": 1.0, "b": 2.0, "c": 3.0}


@pytest.mark.parametrize(
    ("singles", "right"),
    [
        ((100.0, 0.0, 40.0), [True, False, None]),
        ((1.0, 0.0, 0.5), [True, False, None]),
        ((0.0, 0.0), [False, False]),
    ],
)
def test_what_counts_as_right(singles, right):
    assert [measure.is_right(singles, i) for i in range(len(singles))] == right


def test_texts_of_numpy_are_no_numbers():
    assert measure.numbers(
        {"text": np.str_("abc"), "bytes": np.bytes_(b"1"), "one": np.int64(1)}
    ) == {"one": 1.0}
