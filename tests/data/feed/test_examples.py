"""Evaluation examples: the same every time, never inverted, few-shot without the query."""

import dataclasses

import pytest

from instruct.data import registry
from instruct.data.feed.examples import (
    eval_examples,
    majority_answer,
    majority_position,
    num_asked,
)
from instruct.data.stores.prepare import prepare
from instruct.errors import UserError
from instruct.prompts.record import Record
from instruct.prompts.template import Template
from tests.data.toy import TEMPLATES, ToySource, eval_config, toy_config, toy_spec
from tests.workspaces import workspace

LENGTHS = {"inputs": 256, "targets": 16}


def leaf_of(spec, prepared=True):
    registry.add_task(spec)
    if prepared:
        prepare(
            workspace(), registry.resolve(workspace(), spec.name), toy_config(spec.name)
        ).check()
    return registry.resolve(workspace(), spec.name).leaves[0]


def test_examples_are_fixed_by_the_seed():
    leaf = leaf_of(toy_spec(ToySource("x", size=60)))
    every = eval_examples(workspace(), leaf, "validation", eval_config(LENGTHS))
    assert [example.index for example in every] == list(range(60))
    some = eval_examples(workspace(), leaf, "validation", eval_config(LENGTHS), limit=10, seed=4)
    again = eval_examples(workspace(), leaf, "validation", eval_config(LENGTHS), limit=10, seed=4)
    other = eval_examples(workspace(), leaf, "validation", eval_config(LENGTHS), limit=10, seed=5)
    assert len(some) == 10
    assert [e.inputs for e in some] == [e.inputs for e in again]
    assert [e.index for e in some] == sorted(e.index for e in some) != [e.index for e in other]
    example = every[7]
    assert (example.id, example.targets, example.references) == ("validation/7", "0", ("0",))
    assert example.task == leaf.name and example.template_id in ("ask", "say")
    assert example.target_ids == [ord("0") + 3, 1] and example.input_ids[-1] == 1
    assert example.seqio_example["inputs_pretokenized"] == example.inputs.encode()


def test_few_shot_exemplars_come_from_the_training_split():
    leaf = leaf_of(toy_spec(ToySource("x", size=40), modes={"fs_noopt": 1}))
    for example in eval_examples(workspace(), leaf, "validation", eval_config(LENGTHS), limit=15):
        *shots, query = example.inputs.split("[x] ")[1:]
        assert query.startswith(f"{1000 + example.index} + 1")
        assert shots and all(int(shot.split(" + ")[0]) < 40 for shot in shots)
    for example in eval_examples(workspace(), leaf, "train", eval_config(LENGTHS), limit=15):
        assert example.inputs.count(f"[x] {example.index} + 1") == 1


def test_a_long_target_is_trimmed_and_a_long_question_left_out():
    wording = Template("long", "{question}", targets="It is {answer}")
    templates = dataclasses.replace(TEMPLATES, zs_noopt=(wording,), truncate_field="")
    leaf = leaf_of(toy_spec(ToySource("x", size=200, words=1), templates=templates))
    every = eval_examples(workspace(), leaf, "validation", eval_config(LENGTHS))
    short = {"inputs": 256, "targets": 4}
    trimmed = eval_examples(workspace(), leaf, "validation", eval_config(short))
    assert [example.targets for example in trimmed] == [example.targets for example in every]
    assert [e.target_ids for e in trimmed] == [e.target_ids[:4] for e in every]
    assert {len(example.target_ids) for example in every} == {len("It is 1") + 1}
    length = 60  # questions have up to 29 more words
    few = {"inputs": length, "targets": 16}
    fitting = eval_examples(workspace(), leaf, "validation", eval_config(few), limit=150)
    config = dataclasses.replace(toy_config(leaf.name), feature_lengths=few)
    assert 0 < len(fitting) < num_asked(workspace(), leaf, "validation", config, 150) == 150
    assert num_asked(workspace(), leaf, "validation", config, None) == 200


def test_exemplars_that_do_not_fit_are_counted():
    source = ToySource("x", size=40, words=1)
    leaf = leaf_of(toy_spec(source, modes={"direct": 1}, shots=3, exemplar_split="train"))
    every = eval_examples(workspace(), leaf, "validation", eval_config(LENGTHS | {"inputs": 2048}))
    assert {(e.num_exemplars, e.exemplars_asked, e.truncated) for e in every} == {(3, 3, False)}
    fewer = eval_examples(workspace(), leaf, "validation", eval_config(LENGTHS | {"inputs": 90}))
    assert {e.exemplars_asked for e in fewer} == {3}
    assert {0, 1} <= {e.num_exemplars for e in fewer} <= {0, 1, 2}
    for example in fewer:
        if not example.truncated:
            assert example.inputs.count("[x]") == 1 + (example.num_exemplars or 0)
    # All that is left then is the end of the question.
    assert any(e.truncated and e.num_exemplars == 0 for e in fewer)


def test_a_task_asks_for_exemplars_that_its_split_lacks():
    leaf = leaf_of(toy_spec(ToySource("x", size=4), modes={"direct": 1}, shots=6))
    for example in eval_examples(workspace(), leaf, "validation", eval_config(LENGTHS)):
        assert (example.num_exemplars, example.exemplars_asked) == (4, 6)


def test_drawn_and_absent_exemplars():
    drawn = leaf_of(toy_spec(ToySource("x", size=40), modes={"fs_noopt": 1}))
    counts = {
        (e.num_exemplars, e.exemplars_asked)
        for e in eval_examples(
            workspace(), drawn, "validation", eval_config(LENGTHS | {"inputs": 4096})
        )
    }
    assert {asked for _, asked in counts} == {1, 2, 3, 4, 5}
    assert all(shown == asked for shown, asked in counts)
    none = leaf_of(toy_spec(ToySource("x", size=5)))
    every = eval_examples(workspace(), none, "validation", eval_config(LENGTHS))
    assert {(e.num_exemplars, e.exemplars_asked) for e in every} == {(0, 0)}


@dataclasses.dataclass(frozen=True)
class ChoiceSource:
    """Four options a question, all texts different; the second is right in three of five rows."""

    splits: tuple[str, ...] = ("validation",)

    def fingerprint(self, workspace):
        return "choices"

    def available(self, workspace):
        return None

    def records(self, workspace, split):
        for number in range(20):
            options = tuple(f"{letter}{number}" for letter in "wxyz")
            place = (1, 1, 1, 2, 3)[number % 5]
            fields = {"question": f"{number}?"}
            yield Record(f"{number}", fields, options[place], options, place)


def test_the_most_frequent_place_among_options_that_keep_their_order():
    wording = Template("ask", "{question} {options}")
    templates = dataclasses.replace(TEMPLATES, zs_opt=(wording,), shuffle_options=False)
    changes = {"splits": {"validation": "validation"}, "modes": {"zs_opt": 1}}
    fixed = leaf_of(toy_spec(ChoiceSource(), templates=templates, **changes), prepared=False)
    config = toy_config(fixed.name)
    assert majority_position(workspace(), fixed, config, "validation") == (-1, 0.0)
    prepare(workspace(), registry.resolve(workspace(), fixed.task), config, ("validation",)).check()
    assert majority_position(workspace(), fixed, config, "validation") == (1, pytest.approx(0.6))
    shuffled = dataclasses.replace(templates, shuffle_options=True)
    mixed = leaf_of(toy_spec(ChoiceSource(), templates=shuffled, **changes), prepared=False)
    prepare(
        workspace(),
        registry.resolve(workspace(), mixed.task),
        toy_config(mixed.name),
        ("validation",),
    ).check()
    assert majority_position(workspace(), mixed, config, "validation") == (-1, 0.0)


def test_majority_answer():
    leaf = leaf_of(toy_spec(ToySource("x", size=15)))
    config = toy_config(leaf.name)
    assert majority_answer(workspace(), leaf, config) == ("1", pytest.approx(0.2))
    assert majority_answer(workspace(), leaf, config, "test") == ("", 0.0)


def test_unprepared_is_a_clear_message():
    leaf = leaf_of(toy_spec(), prepared=False)
    with pytest.raises(UserError, match="no prepared records of split 'test'"):
        eval_examples(workspace(), leaf, "test", eval_config(LENGTHS))


def test_an_example_says_whether_its_source_was_cut():
    leaf = leaf_of(toy_spec(ToySource("x", size=60, words=1)))
    whole = eval_examples(workspace(), leaf, "validation", eval_config(LENGTHS))
    assert {example.truncated for example in whole} == {False}
    every = eval_examples(
        workspace(), leaf, "validation", eval_config({"inputs": 60, "targets": 16})
    )
    sizes = {example.index: len(example.inputs) for example in whole}
    assert {example.truncated for example in every} == {True, False}
    assert all(e.truncated == (len(e.inputs) < sizes[e.index]) for e in every)


def test_prompts_of_a_decoder_begin_with_its_start():
    leaf = leaf_of(toy_spec(ToySource("x", size=60, words=1)))
    lengths = {"inputs": 60, "targets": 16}
    plain = eval_examples(workspace(), leaf, "validation", eval_config(lengths))
    started = eval_examples(
        workspace(), leaf, "validation", eval_config(lengths, layout="decoder_only")
    )
    assert [e.input_ids for e in started] == [[0, *e.input_ids] for e in plain]
    assert [e.target_ids for e in started] == [e.target_ids for e in plain]
    assert max(len(e.input_ids) for e in started) == 61
