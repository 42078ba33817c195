"""The CoT Collection's rows as records and prompts."""

import json

import pytest

from instruct.data.registry import resolve
from instruct.data.vocab import load_vocabulary
from instruct.prompts.frame import Frame
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped, Rendered, render
from instruct.workspace import Workspace
from tasks import cot_collection

ROW = {
    "source": "Is 7 a prime number?\n",
    "target": "yes",
    "rationale": "Only 1 and 7 divide 7.",
    "task": "primes",
}


def test_a_row_is_a_finished_prompt_with_a_rationale():
    record = cot_collection.read_row(ROW, "a")
    assert isinstance(record, Record) and record.metadata == {"task": "primes"}
    templates = cot_collection.cot_collection_task().templates
    shown = render(
        record,
        templates,
        "cot",
        3,
        frame=Frame(load_vocabulary("bytes")),
        max_inputs_tokens=200,
        max_targets_tokens=100,
    )
    assert isinstance(shown, Rendered)
    assert shown.inputs == "Is 7 a prime number?\n\nLet's think step by step."
    assert shown.targets == "Only 1 and 7 divide 7.\nThe answer is yes."


@pytest.mark.parametrize("change", [{"rationale": None}, {"target": " "}])
def test_rows_without_an_answer_or_rationale_are_dropped(change):
    assert isinstance(cot_collection.read_row(ROW | change, "a"), Dropped)


def test_lines_under_the_data_folder_are_read_and_split(tmp_path):
    spec = cot_collection.cot_collection_task()
    workspace = Workspace(data_dir=tmp_path, store_dir=tmp_path / "stores")
    assert "CoT-Collection" in str(spec.source.available(workspace))
    folder = tmp_path / "CoT-Collection"
    folder.mkdir()
    rows = [ROW | {"source": f"Is {number} a prime number?"} for number in range(300)]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert spec.source.available(workspace) is None
    sizes = {split: len(list(spec.source.records(workspace, split))) for split in spec.splits}
    assert sum(sizes.values()) == 300 and sizes["train"] > 280
    assert [leaf.mode for leaf in resolve(workspace, "cot_collection.all").leaves] == ["cot"]
