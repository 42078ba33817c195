"""A classifier that is plugged in, and the measures of bias."""

import sys
import types

import numpy as np
import pytest
import seqio

from instruct.data.registry import find_spec, scored_task
from instruct.data.seqio.bridge import RecordTask
from instruct.errors import UserError
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from instruct.workspace import TOXICITY_VARIABLE
from tasks.suites import bias
from tests.workspaces import workspace

LEAF = "bias.real_toxicity_prompts.zs_direct"


def judge(texts):
    """Judges a text by its share of the letter x."""
    return [text.count("x") / max(len(text), 1) for text in texts]


def test_toxicity_takes_the_worst_continuation():
    targets = [bias.Continuation(False), bias.Continuation(True), bias.Continuation(False)]
    found = bias.toxicity(targets, [["aaaa", "xxxa"], "xxxx", "aaaa"], judge)
    assert found["toxic_share"] == pytest.approx(200 / 3)
    assert found["toxicity"] == pytest.approx(100 * (0.75 + 1.0 + 0.0) / 3)
    assert found["toxic_share_of_toxic_prompts"] == 100.0
    assert found["toxic_share_of_other_prompts"] == 50.0
    assert bias.toxicity([], []) == {"toxic_share": 0.0, "toxicity": 0.0}


def test_prompts_of_unknown_toxicity_are_in_neither_group():
    """The publisher's file has null for some; they counted as not toxic."""
    texts = ['{"toxicity": null}', "{}", '{"toxicity": 0.5}', '{"toxicity": 0.0}']
    read = [bias.read_continuation("", {"metadata": t.encode()}, is_target=True) for t in texts]
    targets = [target for target in read if isinstance(target, bias.Continuation)]
    assert [target.toxic_prompt for target in targets] == [None, None, True, False]
    found = bias.toxicity(targets, ["xxxx", "xxxx", "aaaa", "aaax"], judge)
    assert found["toxic_share"] == 50.0 and found["toxicity_of_toxic_prompts"] == 0.0
    assert found["toxicity_of_other_prompts"] == 25.0
    assert list(bias.toxicity(targets[:1], ["xxxx"], judge)) == ["toxic_share", "toxicity"]


def test_a_classifier_is_named_by_a_variable(monkeypatch):
    module = types.ModuleType("made_up_judge")
    setattr(module, "judge", lambda texts: [0.9] * len(texts))  # noqa: B010 (type checkers)
    monkeypatch.setitem(sys.modules, "made_up_judge", module)
    monkeypatch.setenv(TOXICITY_VARIABLE, "made_up_judge:judge")
    asked = {"targets": [bias.Continuation(False)], "predictions": ["text"]}
    (metric,) = scored_task(workspace(), LEAF).predict_metric_fns
    assert metric(**asked)["toxic_share"] == 100.0
    for name in ("", "made_up_judge", "made_up_judge:other", "no_such_module:judge"):
        monkeypatch.setenv(TOXICITY_VARIABLE, name)
        (metric,) = scored_task(workspace(), LEAF).predict_metric_fns
        with pytest.raises(UserError, match=TOXICITY_VARIABLE):
            metric(**asked)


def test_a_classifier_may_be_a_function(monkeypatch):
    judge = workspace(toxicity_classifier=lambda texts: [0.0] * len(texts))
    asked = {"targets": [bias.Continuation(False)], "predictions": ["text"]}
    (metric,) = scored_task(judge, LEAF).predict_metric_fns
    assert metric(**asked) == {
        **{"toxic_share": 0.0, "toxicity": 0.0},
        **{"toxic_share_of_other_prompts": 0.0, "toxicity_of_other_prompts": 0.0},
    }
    # The task of SeqIO's registry, which other programs ask, goes by the workspace chosen for all.
    monkeypatch.setattr(RecordTask, "workspace", judge)
    (metric,) = seqio.TaskRegistry.get(LEAF).predict_metric_fns
    assert metric(**asked)["toxicity"] == 0.0


def test_whom_a_pronoun_means():
    example = {"metadata": b'{"person": "taxpayer", "gender": "female"}'}
    target = bias.read_referent("the taxpayer", example, is_target=True)
    assert isinstance(target, bias.Referent)
    assert target == ("taxpayer", "female")
    for reply, right in (("The taxpayer.", 100.0), ("taxpayer", 100.0), ("accountant", 0.0)):
        read = bias.read_referent(reply)
        assert isinstance(read, str)
        found = bias.referent_accuracy([target], [read])
        assert found == {"accuracy": right, "accuracy_female": right}


def test_auc_agrees_with_counting_pairs():
    rng = np.random.default_rng(3)
    labels = (rng.random(60) < 0.4).tolist()
    scores = np.round(rng.normal(size=60) + np.array(labels), 1).tolist()
    toxic = [s for s, label in zip(scores, labels) if label]
    other = [s for s, label in zip(scores, labels) if not label]
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in toxic for b in other]
    assert bias.auc(labels, scores)["auc"] == pytest.approx(100 * np.mean(pairs), abs=1e-9)
    assert bias.auc([True, False], [1.0, 0.0]) == {"auc": 100.0}
    assert bias.auc([True, True], [1.0, 0.0]) == {}


def test_labels_of_comments():
    assert bias.read_toxic_label("Yes", {"metadata": b'{"toxic": true}'}, is_target=True) is True
    assert bias.read_toxic_label("Yes", {"metadata": b'{"toxic": false}'}, is_target=True) is False


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.1], "gave 1 values for 2 texts"),
        ([0.1] * 3, "gave 3 values for 2 texts"),
        ([0.1, 90.0], "gave 90; it must give probabilities"),
        ([0.1, float("nan")], "gave nan"),
        ([-0.5, 0.1], "gave -0.5"),
    ],
)
def test_a_classifier_that_gives_no_probabilities(values, message):
    targets = [bias.Continuation(False)] * 2
    with pytest.raises(UserError, match=message):
        bias.toxicity(targets, ["a", "b"], lambda texts: values)


def test_scores_of_a_model_that_has_diverged_have_no_auc():
    """NaN sorts above every number, so a broken model had an area of 0 or 100."""
    assert np.isnan(bias.auc([True, False], [float("nan"), 0.1])["auc"])
    assert np.isnan(bias.auc([True, False], [0.1, float("nan")])["auc"])
    with pytest.raises(ValueError, match="zip"):
        bias.auc([], [0.1])
    with pytest.raises(ValueError, match="zip"):
        bias.referent_accuracy([], ["one"])


def test_kaggles_file_without_labels_hides_no_other(tmp_path):
    """Its archive has test.csv, which has no labels, beside all_data.csv."""
    folder = tmp_path / "civil_comments"
    folder.mkdir()
    (folder / "test.csv").write_text("id,comment_text\n1,one\n")
    spec = find_spec(workspace(), "bias.civil_comments")
    read = spec.source.records
    assert [type(item) for item in read(workspace(data_dir=tmp_path), "test")] == [Dropped]
    table = "id,comment_text,split,toxicity\n2,two,test,0.7\n3,three,train,0.1\n"
    (folder / "all_data.csv").write_text(table)
    (record,) = read(workspace(data_dir=tmp_path), "test")
    assert isinstance(record, Record)
    assert record.id == "civil_comments-2" and record.metadata == {"toxic": True}
