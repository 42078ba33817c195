"""docs/your_data.md: a file of dialogues to a tuned model, a page and a folder, by its commands."""

import json
import pathlib
import re
import shlex
import shutil

import pytest

from instruct import peak
from instruct.cli.arguments import main
from instruct.data.task_file import TaskFile, read_task_file
from instruct.data.vocab import GYM_MODEL
from instruct.eval.named_metrics import METRICS

PAGE = (pathlib.Path(__file__).resolve().parents[1] / "docs" / "your_data.md").read_text()
SMALL = """
include 'gin/runs/train.gin'
include 'gin/models/tiny_test.gin'
from __gin__ import dynamic_registration
from instruct.models import config
from instruct.train import loop
TASK_FEATURE_LENGTHS = {'inputs': 128, 'targets': 32}
BATCH_SIZE = 8
TRAIN_STEPS = 4
config.ModelConfig.vocab_size = 6144
config.ModelConfig.num_encoder_layers = 1
config.ModelConfig.num_decoder_layers = 1
loop.train.trackers = ()
"""


def commands() -> list[list[str]]:
    """The arguments of every `python run.py` of the page."""
    texts = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    lines = "".join(texts).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[2:] for line in lines if line.startswith("python run.py ")]


def write_dialogues(path: pathlib.Path, count: int) -> None:
    """Synthetic dialogues, all different."""
    things, days = ("tea", "lunch", "chess", "a walk"), ("Monday", "Friday", "Sunday")
    rows = (
        {
            "dialogue": f"Ana: Is {things[n % 4]} fine on {days[n % 3]}, at {n}?\nBen: Yes.",
            "summary": f"Ana and Ben agree on {things[n % 4]} at {n} on {days[n % 3]}.",
        }
        for n in range(count)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.slow
def test_three_commands_lead_from_a_file_to_a_page_and_a_folder(tmp_path, monkeypatch, capsys):
    transformers = pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("INSTRUCT_STORE_DIR", str(tmp_path / "stores"))
    monkeypatch.setattr(peak, "matmul_peak", lambda *_: 1e9)
    write_dialogues(tmp_path / "train.jsonl", 500)
    (tmp_path / "small.gin").write_text(SMALL)
    config = transformers.T5Config(
        vocab_size=6144,
        d_model=32,
        num_heads=8,
        d_kv=8,
        d_ff=64,
        num_layers=1,
        num_decoder_layers=1,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path / "flan-t5-small")
    shutil.copy(GYM_MODEL, tmp_path / "flan-t5-small" / "spiece.model")
    train, evaluate, convert, *_ = commands()
    recipe = "--gin_file=gin/recipes/flan_t5_small_finetune.gin"
    assert recipe in train
    train[train.index(recipe)] = "--gin_file=small.gin"
    train = [word.replace("=~", f"={tmp_path}") for word in train]
    assert main(train) == 0
    said = capsys.readouterr().err
    assert "splits: train 450, validation 50" in said and "metric: rouge" in said
    assert read_task_file(tmp_path / "runs/tuned/task.toml").data == str(tmp_path / "train.jsonl")
    assert main([*evaluate, "--limit=4"]) == 0
    assert "before_after.html" in capsys.readouterr().out
    page = (tmp_path / "runs/tuned/before_after.md").read_text()
    assert "rouge1" in page and "own." in page
    assert main(convert) == 0
    folder = tmp_path / "my-flan-t5"
    assert {"config.json", "model.safetensors", "spiece.model"} <= {
        p.name for p in folder.iterdir()
    }


def test_the_other_commands_of_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_dialogues(tmp_path / "train.jsonl", 12)
    task_file = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    rates = re.search(r"```text\n(own\.support.*?)```", PAGE, re.DOTALL)
    assert task_file and rates
    text = task_file[1].replace("own.support", "own.page_support")
    (tmp_path / "my_task.toml").write_text(text)
    (tmp_path / "my_rates.tsv").write_text(rates[1].replace("own.support", "own.page_support"))
    show, mixture = commands()[3:]
    assert main([*show, "--task_name=own.page_dialogues"]) == 0
    captured = capsys.readouterr()
    assert "task own.page_dialogues, version" in captured.err and "Summarize: Ana" in captured.out
    assert main([*mixture, "--json"]) == 0
    leaves = json.loads(capsys.readouterr().out)["leaves"]
    rates = {leaf["task"]: leaf["rate"] for leaf in leaves}
    assert rates["own.page_support"] == pytest.approx(2 / 3)


def test_the_page_names_keys_and_metrics_that_there_are():
    for name in ("accuracy", "exact_match", "rouge", "rouge_unicode", "squad", "number_match"):
        assert name in METRICS and f"`{name}`" in PAGE
    assert set(METRICS) <= set(re.findall(r"`(\w+)`", PAGE))
    for key in re.findall(r"^(\w+) = ", PAGE, re.MULTILINE):
        assert key in TaskFile.__dataclass_fields__
