"""docs/your_data.md: a file of dialogues to a tuned model, a page and a folder, by its commands."""

import json
import pathlib
import re
import shlex

import pytest

from instruct import peak
from instruct.cli.arguments import main
from instruct.data.task_file import TaskFile, read_task_file
from instruct.eval.named_metrics import METRICS
from tests.flan_t5 import SMALL_GIN, write_dialogues, write_flan_t5

PAGE = (pathlib.Path(__file__).resolve().parents[1] / "docs" / "your_data.md").read_text()


def commands() -> list[list[str]]:
    """The arguments of every `python run.py` of the page."""
    texts = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    lines = "".join(texts).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[2:] for line in lines if line.startswith("python run.py ")]


@pytest.mark.slow
def test_three_commands_lead_from_a_file_to_a_page_and_a_folder(tmp_path, monkeypatch, capsys):
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("INSTRUCT_STORE_DIR", str(tmp_path / "stores"))
    monkeypatch.setattr(peak, "matmul_peak", lambda *_: 1e9)
    write_dialogues(tmp_path / "train.jsonl", 500)
    (tmp_path / "small.gin").write_text(SMALL_GIN)
    write_flan_t5(tmp_path / "flan-t5-small")
    train, evaluate, convert, *_ = commands()
    recipe = "--gin_file=gin/recipes/flan_t5_small_finetune.gin"
    train.insert(train.index(recipe) + 1, "--gin_file=small.gin")
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
    assert "task own.page_dialogues, version" in captured.err and "Summarize: " in captured.out
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
