import json

import pytest

from instruct.data.registry import resolve, task_specs
from instruct.prompts.frame import Frame
from instruct.prompts.lint import lint
from instruct.prompts.record import Record
from instruct.prompts.render import Rendered, render
from tasks import published
from tests.workspaces import workspace


def test_the_finished_set_passes_the_lint():
    assert lint(published.finished_templates()) == []


def test_mixture_has_the_collection_s_rates():
    leaves = resolve(workspace(), published.MIXTURE).leaves
    assert {leaf.task: round(leaf.rate, 6) for leaf in leaves} == {
        "published.flan2021": 0.40,
        "published.t0": 0.32,
        "published.niv2": 0.20,
        "published.cot": 0.05,
        "published.dialog": 0.03,
    }
    assert {leaf.mode for leaf in leaves} == {"zs_noopt"}
    assert all(name in task_specs(workspace()) for name in [leaf.task for leaf in leaves])


class Words:
    """A tokenizer: one token a character."""

    eos_id = 1

    def encode(self, text):
        return [ord(sign) for sign in text]

    def decode(self, ids):
        return "".join(map(chr, ids))


def show(record, mode, limit=1000):
    return render(
        record,
        published.finished_templates(),
        mode,
        3,
        frame=Frame(Words()),
        max_inputs_tokens=limit,
        max_targets_tokens=100,
    )


def test_prompts_are_shown_as_they_are():
    prompt = "Read {this}.\n\n  - a\n  - b\n\nWhich?"
    shown = show(Record("1", {"prompt": prompt}, "a"), "zs_noopt")
    assert isinstance(shown, Rendered) and (shown.inputs, shown.targets) == (prompt, "a")
    cut = show(Record("1", {"prompt": prompt}, "a"), "zs_noopt", limit=20)
    assert not isinstance(cut, Rendered) and cut.reason == "inputs too long"
    record = Record("1", {"prompt": "Good?"}, "yes", ("no", "yes"), 1)
    shown = show(record, "zs_opt")
    assert isinstance(shown, Rendered) and shown.inputs.startswith("Good?\n")
    assert "no" in shown.inputs and "yes" in shown.inputs


@pytest.mark.parametrize("name", list(published.SUBMIXTURES))
def test_sources_read_local_files_and_name_missing_ones(name, tmp_path, monkeypatch):
    monkeypatch.setenv("INSTRUCT_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    source = task_specs(workspace())[f"published.{name}"].source
    assert f"{name}_submix_original" in (source.available(workspace()) or "")
    path = tmp_path / f"{name}_submix_original/data/train-00000-of-00001.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps({"inputs": f"q{n}", "targets": "a"}) + "\n" for n in (0, 1)))
    assert source.available(workspace()) is None
    found = [r for split in source.splits for r in source.records(workspace(), split)]
    assert sorted(record.fields["prompt"] for record in found) == ["q0", "q1"]


def test_a_part_is_a_task_of_its_own():
    spec = published.published_task("cot", ["zs_noopt"], ["cot_gsm8k"])
    assert spec.name == "published.cot_zs_noopt_cot_gsm8k"
    assert spec.group == "cot_submix_original"
