"""`show`: tasks, mixtures and prompts, for people and as JSON."""

import dataclasses
import json

import pytest
import seqio
import tensorflow as tf

from instruct.cli import arguments, show
from instruct.data import registry
from instruct.errors import UserError
from tests.data.tokenizer_folders import write_t5_model
from tests.data.toy import ToySource, fresh_name, toy_spec
from tests.workspaces import workspace


def output(capsys, *flags):
    assert show.run(arguments.parse(["show", *flags])) == 0
    return capsys.readouterr().out


def as_json(capsys, *flags):
    return json.loads(output(capsys, *flags, "--json"))


def test_a_mixture_as_json(capsys):
    found = as_json(capsys, "--mixture=gym.demo")
    leaves = found["leaves"]
    assert found["num_leaves"] == len(leaves) == found["num_unprepared"]
    assert found["num_tasks"] == len({leaf["task"] for leaf in leaves}) > 1
    assert sum(leaf["rate"] for leaf in leaves) == pytest.approx(1)
    assert {"leaf", "mode", "family", "category", "records"} <= set(leaves[0])
    category = leaves[0]["category"]
    part = as_json(capsys, "--mixture=gym.demo", f"--category={category}")
    assert {leaf["category"] for leaf in part["leaves"]} == {category}
    # Shares stay those of the whole mixture.
    assert part["leaves"][0]["rate"] == leaves[0]["rate"]


def test_tasks_as_a_list(capsys):
    found = as_json(capsys, "--family=gym")
    assert {"gym.demo", "gym.train"} <= set(found["mixtures"])
    assert {task["family"] for task in found["tasks"]} == {"gym"}
    assert "gym.chain_sum" in output(capsys, "--category=arithmetic")
    assert found["families"][0]["num_tasks"] == len(found["tasks"])
    some = as_json(capsys, "--category=ARITH*", "--category=logic", "--dataset=*sum*")["tasks"]
    assert {"gym.chain_sum", "gym.easy_sums"} <= {task["name"] for task in some}
    assert all("sum" in task["dataset"] for task in some)
    with pytest.raises(UserError, match=r"--category \(of \d+ tasks\) 'cookery'.*arithmetic"):
        output(capsys, "--family=gym", "--category=cookery")


@pytest.mark.slow
def test_a_long_list_is_told_by_family(capsys, monkeypatch):
    monkeypatch.setattr(show, "_FEW_TASKS", 3)
    short = output(capsys)
    assert "gym.chain_sum" not in short and "gym" in short and "--leaves" in short
    assert "gym.chain_sum" in output(capsys, "--leaves")


def test_licences(capsys):
    name = fresh_name("licence")
    one = registry.add_task(toy_spec(license=name, num_examples={"train": 30}))
    two = registry.add_task(toy_spec(num_examples={"train": 10}))
    mixture = fresh_name("mix")
    registry.add_mixture(mixture, {one.name: None, two.name: None})
    found = as_json(capsys, f"--mixture={mixture}", "--licenses")["licenses"]
    assert found == [
        {"license": name, "num_tasks": 1, "num_datasets": 1, "share": 0.75},
        {"license": "", "num_tasks": 1, "num_datasets": 1, "share": 0.25},
    ]
    table = output(capsys, f"--mixture={mixture}", "--licenses")
    assert "75.00%" in table and "(not stated)" in table
    everything = as_json(capsys, "--licenses")["licenses"]
    assert {"license": name, "num_tasks": 1, "num_datasets": 1} in everything
    only = as_json(capsys, f"--license={name[:-1]}*")["tasks"]
    assert one.name in [task["name"] for task in only]
    assert name in output(capsys, "--licenses", f"--license={name}")


def test_prompts_of_a_task(capsys):
    found = as_json(capsys, "--task=gym.chain_sum.zs_noopt", "--examples=2")
    assert [example["mode"] for example in found["examples"]] == ["zs_noopt"] * 2
    first = found["examples"][0]
    assert first["targets"] and first["input_tokens"] > 1
    out = output(capsys, "--task=gym.chain_sum.zs_noopt", "--examples=1")
    assert first["inputs"].splitlines()[0] in out and first["template_id"] in out
    wordings = registry.find_spec(workspace(), "gym.chain_sum").templates.name
    assert found["template_set"] == wordings and f"wordings: {wordings}" in out
    # All modes, and those with worked examples show them.
    modes = {example["mode"] for example in as_json(capsys, "--task=gym.chain_sum")["examples"]}
    assert {"zs_noopt", "fs_noopt"} <= modes


def test_what_a_vocabulary_cannot_spell(capsys, tmp_path):
    t5 = write_t5_model(tmp_path)
    spec = registry.add_task(toy_spec(ToySource("{abc}")))
    flag = f"--vocabulary={t5}"
    found = as_json(capsys, f"--task={spec.name}", flag)
    assert found["vocabulary"] == t5 and 0 < found["spelling"]["characters"] < 1
    assert set("{}") <= set(found["spelling"]["lost"])
    assert "of the characters, in 0.0% of the targets, are not in" in output(
        capsys, f"--task={spec.name}", flag
    )
    with pytest.raises(UserError, match="no store of split"):
        output(capsys, f"--mixture={spec.name}", flag)
    assert arguments.main(["prepare", f"--mixture={spec.name}", "--workers=1"]) == 0
    capsys.readouterr()
    assert f"{spec.name}: " in output(capsys, f"--mixture={spec.name}", flag)
    assert spec.name in as_json(capsys, f"--mixture={spec.name}", flag)["spelling"]
    assert "spelling" not in as_json(capsys, f"--mixture={spec.name}")
    with pytest.raises(UserError, match="--vocabulary is for --task or --mixture"):
        output(capsys, flag)


def test_modes_outside_the_mixture_are_shown_too(capsys):
    spec = registry.add_task(toy_spec(modes={"zs_noopt": 1.0}, extra_modes=("fs_noopt",)))
    found = as_json(capsys, f"--task={spec.name}")
    assert [example["mode"] for example in found["examples"]] == ["zs_noopt", "fs_noopt"]
    one = as_json(capsys, f"--task={spec.name}.fs_noopt")["examples"]
    assert [example["task"] for example in one] == [f"{spec.name}.fs_noopt"]


def test_prompts_from_a_store_whose_source_has_gone(capsys):
    source = ToySource("gone")
    spec = registry.add_task(toy_spec(source))
    assert arguments.main(["prepare", f"--mixture={spec.name}", "--workers=1"]) == 0
    capsys.readouterr()
    object.__setattr__(source, "missing", "the folder of sums is not there")
    assert as_json(capsys, f"--task={spec.name}")["examples"]
    never = registry.add_task(toy_spec(ToySource("never", missing="get sums.tsv from the shop")))
    with pytest.raises(UserError, match="no prepared store, and its source: get sums.tsv"):
        output(capsys, f"--task={never.name}")


def test_the_split_that_is_there_is_found(capsys):
    only = registry.add_task(
        toy_spec(ToySource("only", splits=("validation",)), splits={"validation": "validation"})
    )
    assert as_json(capsys, f"--task={only.name}")["split"] == "validation"
    assert "split validation" in output(capsys, f"--task={only.name}")
    assert only.name in output(capsys, f"--mixture={only.name}")
    both = registry.add_task(toy_spec())
    assert as_json(capsys, f"--task={both.name}")["split"] == "train"
    assert as_json(capsys, f"--task={both.name}", "--split=validation")["split"] == "validation"
    # Of the files of several splits only one's.
    half = registry.add_task(toy_spec(HalfSource("half")))
    assert as_json(capsys, f"--task={half.name}")["split"] == "validation"
    with pytest.raises(UserError, match="no file of split train"):
        output(capsys, f"--task={half.name}", "--split=train")
    # A mode whose exemplars are not there does not hide the others.
    spec = registry.add_task(toy_spec(HalfSource("more"), extra_modes=("fs_noopt",)))
    shown, dropped = as_json(capsys, f"--task={spec.name}")["examples"]
    assert shown["inputs"] and dropped["reason"] == "no file of split train"
    assert "no file of split train" in output(capsys, f"--task={spec.name}")
    with pytest.raises(UserError, match="no file of split train"):
        output(capsys, f"--task={spec.name}.fs_noopt")


@dataclasses.dataclass(frozen=True)
class HalfSource(ToySource):
    """The train file is missing, as a suite's may be."""

    def records(self, workspace, split):
        if split == "train":
            raise UserError("no file of split train")
        return super().records(workspace, split)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--task=gym.chain_sum", "--mixture=gym.demo"], "not both"),
        (["--overlap"], "give --mixture"),
        (["--mixture=gym.demo", "--against=gym.held_out"], "add --overlap"),
        (["--mixture=gym.demo", "--draws=0"], "--draws=0: the smallest number allowed is 1"),
        (
            ["--task=gym.chain_sum", "--examples=-1"],
            "--examples=-1: the smallest number allowed is 0",
        ),
        (
            ["--task=gym.chain_sum", "--split=nowhere"],
            "unknown split of task 'gym.chain_sum' 'nowhere'",
        ),
        (["--task=gym.chain_sum.zs_nopt"], "Did you mean 'zs_noopt'"),
        (["--mixture=gym.demo", "--split=tran"], "Did you mean 'train'"),
    ],
)
def test_flags_that_do_not_go_together(capsys, flags, message):
    with pytest.raises(UserError, match=message):
        output(capsys, *flags)


@pytest.mark.slow
def test_packed_rows_of_a_prepared_mixture(capsys):
    task = "gym.chain_sum.zs_noopt"
    assert arguments.main(["prepare", f"--mixture={task}", "--workers=1"]) == 0
    out = output(capsys, f"--mixture={task}", "--rows=1")
    assert "segment 1" in out and "segment 2" in out


@pytest.mark.slow
def test_a_plain_seqio_task_is_shown_as_its_pipeline_makes_it(capsys):
    name, words = fresh_name("plain"), seqio.ByteVocabulary(extra_ids=0)
    features = {key: seqio.Feature(words) for key in ("inputs", "targets")}
    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(plain_rows, splits=["validation"]),
        preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        output_features=features,
    )
    found = as_json(capsys, f"--task={name}", "--examples=5")
    assert found["split"] == "validation" and found["vocabulary"] == "bytes#extra_ids=0"
    first, second, dropped = found["examples"]
    assert (first["inputs"], first["targets"]) == ("what?", "this")
    assert (first["input_tokens"], second["target_tokens"]) == (6, 5)
    assert dropped["reason"] == "empty target"
    with pytest.raises(UserError, match="unknown split.*'train'.*Allowed: validation"):
        output(capsys, f"--task={name}", "--split=train")


def plain_rows(split, shuffle_files=False, seed=None):
    del split, shuffle_files, seed
    rows = {"inputs": ["what?", "and?", "?"], "targets": ["this", "that", ""]}
    return tf.data.Dataset.from_tensor_slices(rows)
