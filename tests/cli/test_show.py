"""`show`: tasks, mixtures and prompts, for people and as JSON."""

import json

import pytest

from instruct.cli import arguments, show


def output(capsys, *flags):
    assert show.run(arguments.parse(["show", *flags])) == 0
    return capsys.readouterr().out


def as_json(capsys, *flags):
    return json.loads(output(capsys, *flags, "--json"))


def test_a_mixture_as_json(capsys):
    found = as_json(capsys, "--mixture=gym.demo")
    leaves = found["leaves"]
    assert found["num_leaves"] == len(leaves)
    assert found["num_tasks"] == len({leaf["task"] for leaf in leaves}) > 1
    assert sum(leaf["rate"] for leaf in leaves) == pytest.approx(1)
    assert {"leaf", "mode", "family", "category", "records"} <= set(leaves[0])
    category = leaves[0]["category"]
    part = as_json(capsys, "--mixture=gym.demo", f"--category={category}")
    assert {leaf["category"] for leaf in part["leaves"]} == {category}


def test_tasks_as_a_list(capsys):
    found = as_json(capsys, "--family=gym")
    assert {"gym.demo", "gym.train"} <= set(found["mixtures"])
    assert {task["family"] for task in found["tasks"]} == {"gym"}
    assert "gym.chain_sum" in output(capsys, "--category=arithmetic")


def test_prompts_of_a_task(capsys):
    found = as_json(capsys, "--task=gym.chain_sum.zs_noopt", "--examples=2")
    assert [example["mode"] for example in found["examples"]] == ["zs_noopt"] * 2
    first = found["examples"][0]
    assert first["targets"] and first["input_tokens"] > 1
    out = output(capsys, "--task=gym.chain_sum.zs_noopt", "--examples=1")
    assert first["inputs"].splitlines()[0] in out and first["template_id"] in out
    # All modes, and those with worked examples show them.
    modes = {example["mode"] for example in as_json(capsys, "--task=gym.chain_sum")["examples"]}
    assert {"zs_noopt", "fs_noopt"} <= modes


def test_packed_rows_of_a_prepared_mixture(capsys):
    task = "gym.chain_sum.zs_noopt"
    assert arguments.main(["prepare", f"--mixture={task}", "--workers=1"]) == 0
    out = output(capsys, f"--mixture={task}", "--rows=1")
    assert "segment 1" in out and "segment 2" in out
