"""--data and its flags in every mode, and task files beside modules."""

import dataclasses
import json

import pytest

from instruct import gin_config
from instruct.cli import own_data, settings
from instruct.cli.arguments import main, parse
from instruct.data import registry
from instruct.errors import UserError


@pytest.fixture
def data(tmp_path, request):
    """A file with the name of the test, so that every test has its own task."""
    path = tmp_path / f"{request.node.name.removeprefix('test_')[:30]}.jsonl"
    rows = [{"a": f"text {n}", "b": "wet" if n % 2 else "dry"} for n in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def of(data, *flags, mode="train"):
    return parse([mode, f"--data={data}", "--inputs=a", "--targets=b", *flags])


def test_train_and_eval_take_the_task_where_no_flag_names_another(data, capsys):
    files = ["--gin_file=gin/recipes/gym_demo.gin", "--gin.MODEL_DIR=runs/a"]
    flags = of(data, *files)
    own = settings.own_task(flags)
    assert own is not None
    said = capsys.readouterr().err
    assert f"task {own.spec.name}, version {own.spec.version}" in said
    _, entries = settings.load(flags, own)
    assert entries[gin_config.TRAIN]["data"].mixture == own.spec.name
    assert entries[gin_config.EVALUATE]["config"].suites == (own.spec.name,)
    assert entries[gin_config.SUITES]["mixtures"] == own.spec.name
    flags = of(data, *files, "--gin.EVAL_MIXTURES=gym.held_out")
    _, entries = settings.load(flags, settings.own_task(flags))
    assert entries[gin_config.EVALUATE]["config"].suites == ("gym.held_out",)
    # A file without such a macro gets none.
    settings.load(parse(["show", f"--data={data}", "--inputs=a", "--targets=b"]), own)


def test_flags_are_the_keys_of_a_task_file(data, tmp_path):
    toml = tmp_path / "mine.toml"
    flags = ["--template=Wet?\\n{a}", "--metric=exact_match", "--held_out_share=0.2"]
    own = own_data.task_of_flags(of(data, *flags, f"--save_task={toml}", mode="show"))
    assert own is not None and own.task_file.templates == ("Wet?\n{a}",)
    again = own_data.task_of_flags(parse(["train", f"--data={toml}"]))
    assert again is not None and again.task_file == own.task_file
    changed = parse(["train", f"--data={toml}", "--metric=rouge", "--task_name=own.other_metric"])
    other = own_data.task_of_flags(changed)
    assert other is not None and other.task_file.metric == "rouge"
    assert other.task_file.templates == own.task_file.templates


def test_eval_warns_of_another_version_than_the_trained_one(data, tmp_path, capsys):
    trained = own_data.task_of_flags(of(data))
    assert trained is not None
    own_data.warn_of_other_version(trained, tmp_path)  # no task.toml
    (tmp_path / own_data.TASK_FILE).write_text(trained.to_toml())
    capsys.readouterr()
    own_data.warn_of_other_version(trained, tmp_path)
    assert capsys.readouterr().err == ""
    spec = dataclasses.replace(trained.spec, version="other")
    own_data.warn_of_other_version(dataclasses.replace(trained, spec=spec), tmp_path)
    assert f"trained on {trained.title}" in capsys.readouterr().err


def test_prompts_are_shown_without_a_licence_and_a_description(data, capsys):
    assert main(["show", f"--data={data}", "--inputs=a", "--targets=b"]) == 0
    head = capsys.readouterr().out.splitlines()[:2]
    assert head[0].rpartition(", ")[2].startswith("version ") and head[0] == head[0].rstrip()
    assert head[1].startswith("wordings: ")


def test_several_inputs(data):
    flags = parse(["show", f"--data={data}", "--inputs=a, b", "--targets=c"])
    with pytest.raises(UserError, match="unknown column 'c'"):
        own_data.task_of_flags(flags)


def test_task_files_stand_beside_modules(data, tmp_path):
    toml = tmp_path / "beside_modules.toml"
    toml.write_text(f"[task]\ndata = {str(data)!r}\ninputs = 'a'\ntargets = 'b'\n")
    (tmp_path / "beside_rates.tsv").write_text("own.beside_modules\t1\ngym.chain_sum\t3\n")
    names = f"{toml},{tmp_path}/beside_rates.tsv"
    workspace, _ = settings.load(parse(["show", f"--gin.MIXTURE_OR_TASK_MODULE={names}"]))
    leaves = registry.resolve(workspace, "beside_rates").leaves
    assert {leaf.task: leaf.rate for leaf in leaves}["own.beside_modules"] == 0.25


def test_prepare_builds_its_stores(data, tmp_path, capsys):
    flags = [f"--data={data}", "--inputs=a", "--targets=b", f"--gin.STORE_DIR={tmp_path}/stores"]
    assert main(["prepare", *flags, "--workers=1", "--json"]) == 0
    stores = json.loads(capsys.readouterr().out)
    assert {store["split"]: store["records"] for store in stores} == {"train": 18, "validation": 2}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--inputs=a"], "--inputs is for --data"),
        (["--save_task=a.toml"], "--save_task is for --data"),
        (["--data=none.jsonl"], "no such file"),
        (["--data=gs://bucket/a.jsonl"], "--data is 'gs://bucket/a.jsonl'"),
        (["--data=none.toml"], "cannot read the task file none.toml"),
    ],
)
def test_wrong_flags(flags, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["show", *flags]) == 2
    assert words in capsys.readouterr().err


def test_eval_takes_the_task_that_the_run_trained_on(data, tmp_path, capsys):
    own = own_data.task_of_flags(of(data))
    assert own is not None
    run = tmp_path / "run"
    run.mkdir()
    flags = ["--gin_file=gin/runs/eval.gin", f"--gin.MODEL_DIR={run}"]
    assert settings.task_of_run(parse(["eval", *flags])) is None  # no task.toml
    (run / own_data.TASK_FILE).write_text(own.to_toml())
    capsys.readouterr()
    again = settings.task_of_run(parse(["eval", *flags]))
    assert again is not None and again.spec.name == own.spec.name
    assert f"--data={run / own_data.TASK_FILE}" in capsys.readouterr().err
    data.unlink()
    with pytest.raises(UserError, match=r"no such file.*--gin.EVAL_MIXTURES=NAME"):
        settings.task_of_run(parse(["eval", *flags]))
    other = parse(["eval", *flags, "--gin.EVAL_MIXTURES=gym.demo"])
    assert settings.task_of_run(other) is None
    assert "warning: " in capsys.readouterr().err


def test_data_is_refused_where_it_would_be_ignored(data, capsys):
    command = ["show", f"--data={data}", "--inputs=a", "--targets=b"]
    assert main([*command, "--task=gym.chain_sum"]) == 2
    assert "--task=gym.chain_sum names another one" in capsys.readouterr().err
    name = f"own.{data.name.removesuffix('.jsonl')}"
    assert main([*command, f"--task={name}.fs_noopt", "--json"]) == 0
    assert main([*command, f"--validation={data}", "--held_out_share=0.2"]) == 2
    assert f"{data} is the validation split" in capsys.readouterr().err


def test_wrong_places_to_save(data, capsys, tmp_path):
    command = ["show", f"--data={data}", "--inputs=a", "--targets=b"]
    assert main([*command, "--save_task=a.txt"]) == 2
    assert "ends in .toml" in capsys.readouterr().err
    assert main([*command, f"--save_task={tmp_path}/none/a.toml"]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main([*command, "--held_out_share=some"]) == 2
    assert "--held_out_share=some" in capsys.readouterr().err
