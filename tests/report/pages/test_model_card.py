"""A model card is YAML that the hub's library reads, and says what it does not know."""

import dataclasses
import json

import pytest
import yaml
from huggingface_hub import ModelCard

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


def test_a_large_suite_is_its_mean(tmp_path):
    run = write_run(tmp_path / "a", num_tasks=MANY_ROWS + 4)
    card = ModelCard(model_card(dataclasses.replace(FACTS, run=run)))
    (result,) = card.data.eval_results
    assert result.dataset_name == "gym.demo_eval (mean of 24 tasks) zs_noopt"
    assert result.metric_args["n"] == 24 * 8 and result.metric_args["stderr"] > 0
    assert "<details><summary>24 tasks of gym.demo_eval</summary>" in plain(card)


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
