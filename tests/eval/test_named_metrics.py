"""Metrics by name, and how answers are read for them."""

import pytest

from instruct.data import own_task
from instruct.errors import UserError
from instruct.eval.named_metrics import METRICS, find_metrics, read_texts


def test_names_that_targets_suggest_are_metrics():
    names = (own_task.ACCURACY, own_task.EXACT_MATCH, own_task.ROUGE, own_task.ROUGE_UNICODE)
    assert set(names) <= set(METRICS)
    with pytest.raises(UserError, match="Did you mean 'rouge'"):
        find_metrics("rogue", ())


@pytest.mark.parametrize("name", METRICS)
def test_right_answers_have_the_full_score(name):
    labels = ("7 red apples", "8 red apples")
    for function in find_metrics(name, labels):
        values = function(targets=labels, predictions=labels)
        assert set(values.values()) == {100.0}, values


def test_classes_are_those_of_the_file():
    accuracy, class_f1 = find_metrics("accuracy", ("dry", "wet"))
    values = class_f1(targets=["dry"], predictions=["dry"])
    assert values == {"macro_f1": 100.0, "f1 dry": 100.0, "f1 wet": 0.0}
    assert accuracy(targets=["dry"], predictions=["wet"]) == {"accuracy": 0.0}


def test_targets_are_read_with_their_references():
    assert read_texts(" wet\n") == "wet"
    example = {"references": [b"wet", b"damp"]}
    assert read_texts("wet", example, is_target=True) == ["wet", "damp"]
    assert read_texts("wet", example) == "wet"
    assert read_texts("wet ", {"references": [b"wet"]}, is_target=True) == "wet"
