"""A model card is YAML that the hub's library reads, and says what it does not know."""

import dataclasses
import json
import re
import shutil

import pytest
import yaml
from huggingface_hub import ModelCard

from instruct import results
from instruct.report.pages.model_card import (
    MANY_ROWS,
    NOT_RECORDED,
    CardFacts,
    front_matter_of,
    hub_name,
    is_unchanged,
    model_card,
)
from tests.report.made_up_run import write_run

FACTS = CardFacts(
    name="my-model",
    is_adapter=False,
    source="a checkpoint of this program, runs/a/checkpoints/2000",
    run=None,
    step=2000,
    layout="encoder_decoder",
    num_params=2_734_080,
    dtype="float32",
    base="",
    command="run.py convert --from=runs/a --to=my-model",
    notes=(),
)


def plain(card: ModelCard) -> str:
    return card.text.replace("\\", "")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A made-up run of twelve tasks; one says its licence, two say where their data are from."""
    folder = write_run(tmp_path_factory.mktemp("card") / "a", num_tasks=12)
    mixture = json.loads((folder / "mixture.json").read_text())
    first, second = mixture["leaves"][:2]
    first |= {"license": "CC-BY-4.0", "url": "https://huggingface.co/datasets/me/numbers"}
    second |= {"license": "", "url": "https://example.org/data"}
    (folder / "mixture.json").write_text(json.dumps(mixture))
    info = json.loads((folder / "run.json").read_text())
    config = {"data.batch_size": 64, "seed": 3, "optimizer.name": "adamw"}
    config["initial_checkpoint_path"] = None
    config |= {"lora.rank": 8, "lora.targets": ".*query/kernel"}
    info["config"] |= config
    info |= {"num_params_trained": 4096, "commit_dirty": True, "code_sha256": "abcd"}
    (folder / "run.json").write_text(json.dumps(info))
    return folder


def test_the_hubs_library_reads_results_with_their_n_and_errors(run):
    card = ModelCard(model_card(dataclasses.replace(FACTS, run=run)))
    assert card.data.license == "unknown" and card.data.library_name == "transformers"
    assert card.data.datasets == ["me/numbers"] and card.data.base_model is None
    assert card.data.tags == ["instruct", "instruction-tuning", "lora"]
    assert card.data.model_name == "my-model" and len(card.data.eval_results) == 12
    lines = (run / "eval/gym.demo_eval/step_2000/results.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["kind"] == "metric"]
    for result, row in zip(card.data.eval_results, rows[::2]):
        assert result.dataset_type == row["task"] and result.metric_type == row["metric"]
        assert result.metric_value == round(row["value"], 4)
        assert result.metric_args["n"] == row["n"] == 8
        assert result.metric_args["stderr"] == round(row["stderr"], 4)
        assert (result.metric_args["step"], result.metric_args["decode"]) == (2000, "greedy")


def test_the_text_says_data_settings_results_and_what_is_missing(run):
    card = ModelCard(model_card(dataclasses.replace(FACTS, run=run, dtype="bfloat16")))
    text = plain(card)
    assert "| gym.task_0000 | CC-BY-4.0 | https://huggingface.co/datasets/me/numbers |" in text
    # What was read in whole windows is not what the steps trained on.
    assert "were read, some ahead of training; the run's steps used 119,460." in text
    assert f"| gym.task_0001 | {NOT_RECORDED} | https://example.org/data |" in text
    assert "| Base model | none: training started from random parameters |" in text
    assert "| LoRA rank | 8 |" in text and "| Learning rate | 0.001 |" in text
    assert "| Batch (rows of a step) | 64 |" in text and "| Seed | 3 |" in text
    assert "| Parameters that were trained | 4,096 |" in text
    assert "| Commit of instruct | 0123abcd, with changed files |" in text
    assert f"| Longest inputs (tokens) | {NOT_RECORDED} |" in text
    assert "run.py train --gin_file=gin/recipes/demo.gin" in text and FACTS.command in text
    assert "gym.broken (zs_noopt) failed: KeyError" in text
    assert "Tasks that were trained on: 0 of 8 not evaluated." in text
    assert "these are rounded to bfloat16" in text
    assert "AutoModelForSeq2SeqLM" in text


def test_results_of_other_steps_are_not_this_models(run):
    card = ModelCard(model_card(dataclasses.replace(FACTS, run=run, step=1500)))
    assert card.data.eval_results is None
    text = plain(card)
    assert "No result of this checkpoint is recorded." in text
    assert "Evaluated at other steps than this checkpoint's only: gym.demo_eval." in text


def test_evaluations_while_training_count_if_there_are_no_others(tmp_path):
    folder = write_run(tmp_path / "run", num_tasks=2)
    facts = dataclasses.replace(FACTS, run=folder)
    ended = folder / "eval" / "gym.demo_eval" / "step_2000"
    rows = (ended / "results.jsonl").read_text().replace("gym.demo_eval", "training-gym.demo_eval")
    during = folder / "eval" / "training-gym.demo_eval" / "step_2000"
    during.mkdir(parents=True)
    (during / "results.jsonl").write_text(re.sub(r', "crc32": "\w+"', "", rows))
    both = model_card(facts)
    assert "training-gym" not in both and "while training" not in both
    shutil.rmtree(ended)
    alone = plain(ModelCard(model_card(facts)))
    assert "| training-gym.demo_eval |" in alone
    assert "measured while training, on few examples of each task." in alone


def test_a_large_suite_is_its_mean(tmp_path):
    run = write_run(tmp_path / "a", num_tasks=MANY_ROWS + 4)
    card = ModelCard(model_card(dataclasses.replace(FACTS, run=run)))
    (result,) = card.data.eval_results
    assert result.dataset_name == "gym.demo_eval (mean of 24 tasks) zs_noopt"
    assert result.metric_args["n"] == 24 * 8 and result.metric_args["stderr"] > 0
    assert "<details><summary>24 tasks of gym.demo_eval</summary>" in plain(card)


def test_the_mean_of_a_suite_names_the_tasks_with_a_value_only(tmp_path):
    run = write_run(tmp_path / "a", num_tasks=MANY_ROWS + 4, eval_steps=(2000,))
    (path,) = run.glob("eval/*/*/results.jsonl")
    rows = list(results.read_rows(path))
    next(row for row in rows if row["kind"] == "metric")["value"] = None
    path.write_text("".join(map(results.to_line, rows)))
    card = ModelCard(model_card(dataclasses.replace(FACTS, run=run)))
    (result,) = card.data.eval_results
    assert result.dataset_name == "gym.demo_eval (mean of 23 tasks) zs_noopt"


def test_another_programs_checkpoint_says_that_nothing_is_recorded(tmp_path):
    base = tmp_path / "models--google--flan-t5-base" / "snapshots" / "1"
    base.mkdir(parents=True)
    (base / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: [en]\n---\n# Flan-T5\n")
    card = ModelCard(model_card(dataclasses.replace(FACTS, base=str(base))))
    assert card.data.base_model == "google/flan-t5-base" and card.data.license == "apache-2.0"
    text = plain(card)
    assert f"The training data are {NOT_RECORDED} here." in text
    assert f"How the model was trained is {NOT_RECORDED} here." in text
    assert "apache-2.0, of the base model's card" in text


def test_an_adapter_names_its_base():
    facts = dataclasses.replace(FACTS, is_adapter=True, base="google/flan-t5-base")
    card = ModelCard(model_card(facts))
    assert card.data.library_name == "peft" and card.data.base_model == "google/flan-t5-base"
    assert 'AutoModelForSeq2SeqLM.from_pretrained("google/flan-t5-base")' in card.text


def test_texts_of_runs_cannot_break_out(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    run = write_run(tmp_path / "a: b\n---", num_tasks=2)
    facts = dataclasses.replace(FACTS, run=run, name="x\n---\n# y", source=f"{tmp_path}/a|<b>")
    text = model_card(facts)
    assert str(tmp_path) not in text and "~/a" in text
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "unknown"
    assert "\n# y\n" not in text and "<b>" not in text.replace("\\<b", "")


def test_folders_of_the_machine_are_not_published(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/homes/jane")
    run = write_run(tmp_path / "run", num_tasks=2)
    gin = "data.folder = '/secret/corp/x.jsonl'\ndata.other = 'gs://b/c/d'\nfrozen = '.*/k/.*'\n"
    gin += "MLflow.tracking_uri = 'https://corp:secret@mlflow.example.org/a'\n"
    (run / "operative.gin").write_text(gin)
    info = json.loads((run / "run.json").read_text())
    info["command_line"] = "/opt/jane/run.py train --gin.MODEL_DIR=/homes/jane --x='/secret/a b/c'"
    (run / "run.json").write_text(json.dumps(info))
    facts = dataclasses.replace(
        FACTS,
        run=run,
        source="a checkpoint, /secret/my_corp/a",
        command="run.py convert --from=file:///secret/a/b --to=/homes/jane/out https://a.b/c/d",
    )
    text = model_card(facts)
    assert "jane" not in text and "secret" not in text and "corp" not in text
    assert str(tmp_path) not in text
    assert "--gin.MODEL_DIR=~ " in text and "--to=~/out https://a.b/c/d" in text
    assert "'https://mlflow.example.org/a'" in text
    assert "gs://b/c/d" in text and "'.*/k/.*'" in text and "'…/x.jsonl'" in text
    assert is_unchanged(text)


def test_a_run_that_continues_a_converted_one_did_not_start_at_random(run, tmp_path):
    folder = write_run(tmp_path / "run", num_tasks=1)
    info = json.loads((folder / "run.json").read_text())
    info["config"]["initial_checkpoint_path"] = None
    info["sessions"] = [{"from_step": 1_100_000}]
    (folder / "run.json").write_text(json.dumps(info))
    text = model_card(dataclasses.replace(FACTS, run=folder))
    assert f"| Base model | {NOT_RECORDED} |" in text
    assert "random parameters" in model_card(dataclasses.replace(FACTS, run=run))


def test_a_path_that_training_started_from_is_no_name_on_the_hub(tmp_path):
    folder = write_run(tmp_path / "run", num_tasks=1)
    info = json.loads((folder / "run.json").read_text())
    info["config"]["initial_checkpoint_path"] = "runs/base"
    (folder / "run.json").write_text(json.dumps(info))
    card = ModelCard(model_card(dataclasses.replace(FACTS, run=folder, base="runs/base")))
    assert card.data.base_model is None
    assert "| Base model | base (its name on the hub is not recorded) |" in plain(card)


def test_several_licences_of_a_base_stay_a_list(tmp_path):
    text = "\ufeff---\nlicense: [mit, apache-2.0]\n---\n"  # some editors write a BOM
    (tmp_path / "README.md").write_text(text)
    card = ModelCard(model_card(dataclasses.replace(FACTS, base=str(tmp_path))))
    assert card.data.license == ["mit", "apache-2.0"]
    assert "| Licence | mit, apache-2.0, of the base model's card |" in plain(card)


def test_an_edited_card_is_known_from_one_that_may_be_replaced(run):
    text = model_card(dataclasses.replace(FACTS, run=run))
    assert is_unchanged(text)
    assert not is_unchanged(text.replace("unknown", "mit")) and not is_unchanged("# My model\n")
    assert not is_unchanged(text + "A line.\n")


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("google/flan-t5-base", "google/flan-t5-base"),
        ("/cache/models--google--t5/snapshots/1", "google/t5"),
        ("/home/me/flan-t5-base", ""),
        ("gs://bucket/a", ""),
        ("", ""),
    ],
)
def test_names_on_the_hub(place, name):
    assert hub_name(place) == name


@pytest.mark.parametrize("text", [None, "# no front matter", "---\n[\n---\n", "---\n- a\n---\n"])
def test_unreadable_cards_of_bases_say_nothing(text, tmp_path):
    if text is not None:
        (tmp_path / "README.md").write_text(text)
    assert front_matter_of(str(tmp_path)) == {}
