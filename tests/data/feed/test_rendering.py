"""Keys are the same everywhere and for ever; metrics see SeqIO's types."""

import json

import numpy as np
import pytest

from instruct.data.feed.rendering import (
    FEATURE_NAMES,
    ExampleRenderer,
    RecordList,
    example_features,
    example_key,
    exemplar_indices,
    exemplars_asked,
    name_key,
)
from instruct.data.token_record import TokenRecord
from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError
from instruct.prompts.chat_template import ChatTemplate
from instruct.prompts.frame import Frame
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped, Rendered
from instruct.prompts.template import Template, TemplateSet
from tests.data.toy import toy_spec
from tests.workspaces import workspace

RECORD = Record("r1", {"question": "Which?"}, "b", ("a", "b"), 1, metadata={"entry": [1, 2]})
TEMPLATES = TemplateSet(
    "set",
    ("question",),
    zs_opt=(Template("choose", "{question}\n{options}"),),
    zs_noopt=(Template("ask", "{question}"),),
)


def render(mode, key):
    renderer = ExampleRenderer(mode, TEMPLATES, None, Frame(load_vocabulary("bytes")), (512, 64))
    return renderer(RECORD, 0, key)


def test_keys_are_pinned():
    # A changed key words every example of every finished run anew.
    assert name_key("gym.chain_sum.zs_noopt") == 13457391023001452308
    assert example_key(0, name_key("a"), 0) == 6174743680133303446


def test_keys_differ_by_seed_leaf_and_number():
    keys = {
        example_key(seed, name_key(leaf), number)
        for seed in (0, 1)
        for leaf in "ab"
        for number in (-1, 0, 1)
    }
    assert len(keys) == 12
    assert all(0 <= key < 1 << 64 for key in keys)


def test_exemplars_only_in_few_shot_modes_and_never_the_query():
    assert exemplar_indices("zs_opt", 1, 50, 3) == []
    for key in range(50):
        drawn = exemplar_indices("fs_opt", key, 6, 3)
        assert drawn and 3 not in drawn and len(set(drawn)) == len(drawn)
    assert exemplar_indices("tk_instruct", 1, 6, None) == [0, 1]
    assert exemplars_asked("tk_instruct", None, 1, "tk_definition_2_positive") == 2
    assert exemplars_asked("tk_instruct_mixed", None, 2, "tk_definition") == 0
    assert exemplar_indices("tk_instruct", 1, 6, 0) == [1, 2]
    assert any(3 in exemplar_indices("fs_noopt", key, 6, None) for key in range(50))


def test_fixed_exemplars_are_the_first_ones_without_the_query():
    assert exemplar_indices("direct", 1, 50, None) == []
    for key in range(5):
        assert exemplar_indices("direct", key, 50, None, shots=3) == [0, 1, 2]
        assert exemplar_indices("cot", key, 50, 1, shots=3) == [0, 2, 3]
    assert exemplar_indices("direct", 1, 2, None, shots=3) == [0, 1]


def test_features_have_the_types_of_seqios_evaluator():
    shown = render("zs_opt", 3)
    features = example_features(RECORD, shown)
    assert tuple(features) == FEATURE_NAMES
    assert features["id"] == b"r1" and features["answer"] == b"b"
    assert features["references"].tolist() == [b"b"]
    assert features["options"].dtype == object
    assert features["options"][features["answer_index"]] == b"b"
    assert isinstance(features["answer_index"], np.int32)
    assert json.loads(features["metadata"]) == {"entry": [1, 2]}
    assert Record.from_json(features["record"]) == RECORD
    hidden = example_features(RECORD, render("zs_noopt", 3))
    assert hidden["options"].size == 0 and hidden["answer_index"] == -1


def test_exemplars_are_part_of_the_step():
    spec = toy_spec(modes={"fs_noopt": 1})
    records = RecordList(spec.source.records(workspace(), "train"))
    opened = []

    def open_records(split):
        opened.append(split)
        return records

    frame = Frame(load_vocabulary("bytes"))
    for split in ("train", "validation"):
        renderer = ExampleRenderer.of_task(spec, "fs_noopt", split, frame, (512, 64), open_records)
        drawn = renderer.exemplar_numbers(3, 7)
        assert drawn == exemplar_indices(
            "fs_noopt", 7, len(records), 3 if split == "train" else None
        )
        shown = renderer(records[3], 3, 7)
        assert shown == renderer.render(records[3], 7, records.read(drawn))
        assert isinstance(shown, Rendered) and shown.exemplar_ids
    ExampleRenderer.of_task(spec, "zs_noopt", "train", frame, (512, 64), open_records)
    assert opened == ["train", "train"]


def test_tokens_of_a_plain_task_stay_as_they_are():
    renderer = ExampleRenderer("", None, None, Frame(load_vocabulary("bytes")), (512, 64))
    shown = renderer(TokenRecord("0", [5, 1], [6, 1], "in", "out"), 0, 0)
    assert isinstance(shown, Rendered)
    assert (shown.input_ids, shown.target_ids) == ([5, 1], [6, 1])
    with pytest.raises(UserError, match="holds record 'r1', not tokens"):
        renderer(RECORD, 0, 0)


def test_the_start_of_a_sequence_takes_the_place_of_a_plain_tasks_last_token():
    frame = Frame(load_vocabulary("bytes"), (2,))
    renderer = ExampleRenderer("", None, None, frame, (4, 64))
    for ids, expected in (([5, 6, 1], [2, 5, 6, 1]), ([5, 6, 7, 1], [2, 5, 6, 1])):
        shown = renderer(TokenRecord("0", ids, [6, 1], "in", "out"), 0, 0)
        assert isinstance(shown, Rendered)
        assert shown.input_ids == expected and shown.truncated == (len(ids) > 3)


def test_an_example_that_a_chat_template_refuses_is_dropped():
    chat = ChatTemplate("{{ raise_exception('No users') }}", place="folder")
    frame = Frame(load_vocabulary("bytes"), chat=chat)
    renderer = ExampleRenderer("zs_noopt", TEMPLATES, None, frame, (512, 64))
    assert renderer(RECORD, 0, 0) == Dropped("chat template refuses messages (No users)")
