"""docs/pretraining_tasks.md: its module, its commands and its numbers."""

import json
import pathlib
import re

import pytest

from instruct.cli.arguments import main
from instruct.prompts.denoising import DenoiserSet

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "pretraining_tasks.md"
MODULES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_table_of_lengths():
    sets = DenoiserSet()
    denoisers = {d.id: d for d in (*sets.ul2, *sets.u_palm, *sets.causal_lm)}
    rows = re.findall(
        r"^\| (`\w+`(?:, `\w+`)*) \| (\d+) \| (\d+) \|$", PAGE.read_text(), re.MULTILINE
    )
    named = [name for names, *_ in rows for name in re.findall(r"\w+", names)]
    assert set(named) == set(denoisers) - {"x_32_15"}
    for names, *lengths in rows:
        for name in re.findall(r"\w+", names):
            longest = [denoisers[name].longest_text(511, room, 100) for room in (113, 511)]
            assert longest == [int(length) for length in lengths], name


@pytest.mark.slow
def test_a_folder_is_shown_and_trained_on(tmp_path, monkeypatch, capsys):
    documents = tmp_path / "data" / "my_text"
    documents.mkdir(parents=True)
    for name in ("data_path", "evaluation", "extending"):
        (documents / f"{name}.txt").write_text(PAGE.with_name(f"{name}.md").read_text())
    (tmp_path / "my_text.py").write_text("\n".join(MODULES))
    monkeypatch.chdir(tmp_path)
    folders = ["--gin.MIXTURE_OR_TASK_MODULE=my_text.py", "--gin.DATA_DIR=data"]
    folders.append("--gin.STORE_DIR=stores")
    assert main(["show", "--task=my.text.span_corruption", "--examples=1", *folders]) == 0
    shown = capsys.readouterr().out
    assert "template r_3_15" in shown and "<extra_id_0>" in shown
    assert main(["prepare", "--mixture=my.text", *folders]) == 0
    train = ["--gin_file=gin/runs/train.gin", "--gin_file=gin/models/tiny_test.gin", *folders]
    train += [f"--gin.ModelConfig.num_{side}_layers=1" for side in ("encoder", "decoder")]
    lengths = "--gin.TASK_FEATURE_LENGTHS={'inputs': 128, 'targets': 128}"
    run = ["--gin.BATCH_SIZE=8", "--gin.TRAIN_STEPS=2", "--gin.MODEL_DIR=runs/mine"]
    mixture = "--gin.MIXTURE_OR_TASK_NAME=half_and_half"
    assert main(["train", *train, lengths, *run, mixture, "--gin.VOCABULARY=bytes"]) == 2
    assert "no sentinels" in capsys.readouterr().err
    assert (
        main(["train", *train, lengths, *run, mixture, "--gin.VOCABULARY=bytes#extra_ids=100"]) == 0
    )
    counts = json.loads((tmp_path / "runs" / "mine" / "mixture.json").read_text())
    modes = {leaf["mode"]: leaf["examples"] for leaf in counts["leaves"]}
    assert set(modes) == {"span_corruption", "causal_lm"} and min(modes.values()) > 10
