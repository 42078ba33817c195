"""What a suite needs of its tasks; the whole of it is in test_runner.py."""

import pytest

from instruct.data import registry
from instruct.data.feed.examples import EvalExample
from instruct.data.stores.prepare import prepare
from instruct.errors import UserError
from instruct.eval import suite_run
from instruct.eval.eval_config import EvalConfig
from instruct.eval.suite_run import (
    LeafExamples,
    SuiteRun,
    fixed_replies,
    prompt_losses,
    split_of,
)
from instruct.eval.task_rows import FixedReplies
from tests.data.toy import toy_config, toy_spec
from tests.eval import toy_tasks
from tests.workspaces import workspace


def test_the_first_split_that_a_task_has():
    toy_tasks.register()
    (leaf,) = registry.resolve(workspace(), "evalsuite.new").leaves
    assert split_of(leaf, ("validation", "test", "train")) == "test"
    assert split_of(leaf, ("train", "test")) == "train"
    with pytest.raises(UserError, match="none of the splits validation; it has train, test"):
        split_of(leaf, ("validation",))


def example(shown, asked: int | None = 3, cut: bool | None = False, options=(), markers=()):
    features = {"markers": [marker.encode() for marker in markers]}
    texts = ("t", 0, "0", "in", "out", [], [], "t")
    return EvalExample(*texts, options, (), {}, features, shown, asked, cut)


def test_what_prompts_lost_is_said_with_numbers():
    assert prompt_losses([example(3), example(3)], 64) == []
    assert prompt_losses([example(0, 0), example(0, 0)], 64) == []
    assert prompt_losses([example(3), example(1), example(0, cut=True)], 2048) == [
        "2 of 3 prompts show fewer exemplars than asked for: 1.33 of 3 (at least 0), inputs of "
        "2,048 tokens",
        "1 of 3 prompts lost the end of their source, inputs of 2,048 tokens",
    ]
    assert prompt_losses([example(None, None, None)], 64) == []  # a plain seqio task


def run_of(leaf, folder, examples_fn):
    config, data = EvalConfig("evalsuite.new"), toy_config(leaf.name)
    settings = {}, "", config, data, "greedy", None, {}, workspace(), examples_fn
    return SuiteRun("suite", folder, 1, folder, *settings)


def no_examples(leaf, split):
    return LeafExamples([], 0, FixedReplies((), [], []))


def test_devices_without_memory_for_a_task_are_told_in_one_line(tmp_path):
    toy_tasks.register()
    (leaf,) = registry.resolve(workspace(), "evalsuite.new").leaves

    class Small:
        def outputs(self, *_):
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory.\nBuffer 1: 20 GiB")

    run = run_of(leaf, tmp_path, no_examples)
    (row,) = run._rows(leaf, Small(), None)  # pyright: ignore[reportArgumentType]
    assert row["error"].startswith("the devices have too little memory (Out of memory). A smaller")
    assert "EVAL_BATCH_SIZE" in row["error"] and "Buffer" not in row["error"]


@pytest.mark.parametrize("refuses", [True, False])
def test_a_task_that_one_of_several_processes_cannot_read_is_computed_by_none(
    monkeypatch, tmp_path, refuses
):
    """Its machine's record store may be damaged; the others would wait for it, or go wrong."""
    toy_tasks.register()
    (leaf,) = registry.resolve(workspace(), "evalsuite.new").leaves
    told: list[str] = []

    def first_problem(problem):
        told.append(problem)
        return "process 1: the store is damaged"

    def examples_fn(leaf, split):
        if refuses:
            raise UserError("the store is damaged")
        return no_examples(leaf, split)

    class NoModel:
        def outputs(self, *_):
            raise AssertionError("the other process computes something else")

    monkeypatch.setattr(suite_run, "first_problem", first_problem)
    run = run_of(leaf, tmp_path, examples_fn)
    (row,) = run._rows(leaf, NoModel(), None)  # pyright: ignore[reportArgumentType]
    assert told == ["the store is damaged" if refuses else ""]
    assert (row["kind"], row["error"]) == ("failure", "process 1: the store is damaged")


def test_the_most_frequent_answer_is_said_as_the_prompt_shows_it(monkeypatch):
    toy_tasks.register()
    (leaf,) = registry.resolve(workspace(), "evalsuite.new").leaves
    monkeypatch.setattr(suite_run, "majority_answer", lambda *_: ("green", 0.5))
    monkeypatch.setattr(suite_run, "majority_position", lambda *_: (-1, 0.0))
    shown = [
        example(0, options=("red", "green"), markers=("(a)", "(b)")),
        example(0, options=("green", "red")),
        example(0, options=("red", "blue")),
        example(0),
    ]
    data = toy_config("evalsuite.new")
    replies = fixed_replies(workspace(), leaf, "test", data, shown)
    assert replies.majority == ["(b)", "green", "green", "green"]
    assert replies.chosen == [1, 0, -1, -1]
    assert replies.options == [["(a)", "(b)"], ["green", "red"], ["red", "blue"], []]
    monkeypatch.setattr(suite_run, "majority_position", lambda *_: (1, 0.6))
    replies = fixed_replies(workspace(), leaf, "test", data, shown)
    assert replies.majority[:3] == ["(b)", "red", "blue"] and replies.chosen[:3] == [1, 1, 1]
    monkeypatch.setattr(suite_run, "majority_answer", lambda *_: ("", 0.0))
    monkeypatch.setattr(suite_run, "majority_position", lambda *_: (-1, 0.0))
    assert fixed_replies(workspace(), leaf, "test", data, shown).majority == ()


def test_the_most_frequent_answer_is_the_evaluated_split_s_whatever_is_prepared():
    spec = toy_spec(modes={"zs_noopt": 1})
    registry.add_task(spec)
    (leaf,) = registry.resolve(workspace(), spec.name).leaves
    data = toy_config(leaf.name)

    def replies(*splits):
        prepare(workspace(), registry.resolve(workspace(), leaf.name), data, splits).check()
        return fixed_replies(workspace(), leaf, "validation", data, [example(None)]).majority

    assert replies("validation") == replies("validation", "train") == ["0"]  # "1" in training
