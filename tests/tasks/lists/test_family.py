"""Tasks of the lists family: records, splits, wordings and what is held out."""

import itertools

import pytest

from instruct.data.vocab import load_vocabulary
from instruct.prompts.frame import Frame
from instruct.prompts.lint import doubled_labels, lint
from instruct.prompts.record import Record
from instruct.prompts.render import Rendered, render
from tasks.answers import answer_reader
from tasks.lists.family import (
    ONE_WORDING,
    RECORDS,
    UNSEEN_WORDINGS,
    ListSource,
    held_out_kinds,
    template_set,
    trained_kinds,
)
from tasks.lists.kinds import KINDS
from tasks.lists.operations import HELD_OUT, OPERATIONS, TRAINED, Operation
from tests.workspaces import workspace


def some_records(operation: str, split: str, count: int) -> list[Record]:
    return list(
        itertools.islice(ListSource(operation, "animals").records(workspace(), split), count)
    )


def prompt(record: Record, operation: str, mode: str, key: int = 0, wordings: str = "") -> Rendered:
    shown = render(
        record,
        template_set(OPERATIONS[operation], wordings),
        mode,
        key,
        frame=Frame(load_vocabulary("bytes")),
        max_inputs_tokens=999,
        max_targets_tokens=999,
    )
    assert isinstance(shown, Rendered)
    return shown


@pytest.mark.parametrize("operation", OPERATIONS)
def test_splits_share_no_question_and_are_as_large_as_declared(operation):
    questions = {}
    for split, wanted in RECORDS.items():
        records = some_records(operation, split, wanted + 1)
        assert len(records) == wanted
        questions[split] = {tuple(record.fields.values()) for record in records}
        assert len(questions[split]) == wanted
    for one, other in itertools.combinations(questions.values(), 2):
        assert not one & other


def test_records_are_the_same_each_time():
    assert some_records("after", "test", 20) == some_records("after", "test", 20)


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda row: row.name)
def test_wordings_pass_the_lint(operation: Operation):
    sets = [template_set(operation)]
    sets += [template_set(operation, UNSEEN_WORDINGS)] * (operation in TRAINED)
    for wordings in sets:
        assert lint(wordings) == [] == doubled_labels(wordings)


def test_sets_of_wordings():
    (record,) = some_records("after", "test", 1)
    trained, unseen, one = (
        {prompt(record, "after", "zs_noopt", key, wordings).inputs for key in range(300)}
        for wordings in ("", UNSEEN_WORDINGS, ONE_WORDING)
    )
    assert len(trained) == 20 and len(unseen) == 12 and not trained & unseen
    assert len(one) == 1 and one < trained


def test_a_worked_solution_comes_before_the_answer_and_is_read_again():
    record = some_records("last", "test", 1)[0]
    shown = prompt(record, "last", "zs_cot")
    assert shown.targets == f"{record.rationale} Answer: {record.answer}"
    read = answer_reader(template_set(OPERATIONS["last"]))
    assert read(shown.targets) == record.answer.casefold()


def test_options_are_shown_as_text():
    record = some_records("contains", "test", 1)[0]
    shown = prompt(record, "contains", "zs_opt")
    assert shown.targets == record.answer and set(shown.options) == {"yes", "no"}
    assert "\nOptions:\n- " in shown.inputs


def test_every_operation_and_every_kind_is_partly_held_out():
    for operation in TRAINED:
        assert len(held_out_kinds(operation)) == 3
        assert {*held_out_kinds(operation), *trained_kinds(operation)} == set(KINDS)
    held_out = [kind for operation in TRAINED for kind in held_out_kinds(operation)]
    assert min(held_out.count(kind) for kind in KINDS) >= 4
    for operation in HELD_OUT:
        assert held_out_kinds(operation) == tuple(KINDS)


def test_a_question_names_its_options_but_not_an_inverted_one():
    record = some_records("first", "test", 1)[0]
    asked, inverted = (prompt(record, "first", mode) for mode in ("zs_noopt", "zs_inv"))
    assert asked.options == record.options and asked.options[asked.answer_index] == record.answer
    assert (inverted.options, inverted.answer_index) == ((), -1)
