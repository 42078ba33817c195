"""`ScoredTask` follows SeqIO: the same functions of the same kinds as the registered seqio.Task."""

import pytest
import seqio

from instruct.data import registry
from instruct.data.scored_task import ScoredTask
from instruct.errors import UserError
from tests.data.toy import toy_spec
from tests.workspaces import workspace

KINDS = ("predict_metric_fns", "score_metric_fns", "predict_with_aux_metric_fns")


def by_prediction(targets, predictions, ignored=None):
    return {"a": 1}


def by_score(targets, scores):
    return {"b": 1}


def with_aux(targets, predictions, aux_values):
    return {"c": 1}


def test_functions_are_sorted_as_seqio_sorts_them():
    spec = registry.add_task(
        toy_spec(
            metric_fns=[by_score, with_aux, by_prediction],
            postprocess_fn=lambda decoded, example, is_target: (decoded, example, is_target),
        )
    )
    name = spec.leaf_name("zs_noopt")
    ours, theirs = registry.scored_task(workspace(), name), seqio.TaskRegistry.get(name)
    assert ours.name == theirs.name == name
    assert [list(getattr(ours, kind)) for kind in KINDS] == [
        list(getattr(theirs, kind)) for kind in KINDS
    ]
    assert ours.postprocess_fn("x", example=1, is_target=True) == ("x", 1, True)


def test_a_reply_without_postprocessing_is_the_reply():
    assert ScoredTask(toy_spec(), "zs_noopt").postprocess_fn("x", is_target=False) == "x"


def test_a_metric_function_of_other_arguments_is_refused():
    with pytest.raises(UserError, match=r"takes \('replies',\).*predictions"):
        ScoredTask(toy_spec(metric_fns=[lambda replies: {}]), "zs_noopt").predict_metric_fns  # noqa: B018
