"""docs/export.md: its scripts and commands, and answers equal to those of `infer`."""

import json
import pathlib
import re
import runpy
import shlex
import sys

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from instruct.checkpoints import native
from instruct.checkpoints.arrays import held
from instruct.cli.arguments import main
from instruct.data.vocab import load_vocabulary
from instruct.models.config import ModelConfig
from instruct.models.decoder_config import DecoderConfig
from instruct.models.model import make_model
from tests.data.tokenizer_folders import write_folder

PAGE = (pathlib.Path(__file__).resolve().parents[1] / "docs" / "export.md").read_text()
WORDS = ["what", "is", "the", "sum", "of", "three", "numbers", "wrote", "some", "small", "town"]
SIZES = {"d_model": 32, "num_heads": 4, "head_dim": 8, "d_ff": 48}
T5 = ModelConfig(**SIZES, vocab_size=6144, num_encoder_layers=2, num_decoder_layers=2)
LLAMA = DecoderConfig(**SIZES, vocab_size=768, num_layers=2, num_kv_heads=2, tied_output=False)


def commands() -> list[list[str]]:
    """The page's lines that begin with `python`, as words behind it."""
    texts = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    lines = "".join(texts).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("python ")]


def run(command: list[str], monkeypatch) -> None:
    """A command of the page, in this process."""
    if command[0] == "run.py":
        assert main(command[1:]) == 0
    else:
        monkeypatch.setattr(sys, "argv", command)
        runpy.run_path(command[0], run_name="__main__")


def write_run(folder: pathlib.Path, config, vocabulary: str) -> None:
    """A random model that says words of letters alone, more or fewer of them by the prompt.

    Every tokenizer writes those words alike.
    """
    words = load_vocabulary(vocabulary)
    texts = ((number, words.decode([number])) for number in range(words.vocab_size))
    params = jax.jit(make_model(config).init)(jax.random.key(3))
    arrays = {}
    for path, leaf in flatten_dict(params, sep="/").items():
        scale = 6.0 if path.endswith(("query/kernel", "out/kernel")) else 1.0
        arrays[path] = np.asarray(leaf) * scale
    said = np.zeros(config.vocab_size)
    said[[number for number, text in texts if re.fullmatch("[a-z]{3,}", text)]] = 1.0
    said[words.eos_id] = 2.5
    arrays["decoder/logits_dense/kernel"] *= said
    arrays = {path: held(array, path) for path, array in arrays.items()}
    info = {"config": {"data.vocabulary": vocabulary}}
    native.write_checkpoint(folder, arrays, config, info=info)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """The current folder: the page's scripts and a file of 50 prompts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, text in re.findall(r"`(\w+\.py)`:\n\n```python\n(.*?)```", PAGE, re.DOTALL):
        (tmp_path / name).write_text(text)
    random = np.random.default_rng(0)
    rows = [{"inputs": " ".join(random.choice(WORDS, 4 + n % 30)), "id": n} for n in range(50)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def predictions(path: pathlib.Path) -> list[str]:
    texts = [json.loads(line)["prediction"] for line in path.read_text().splitlines()]
    assert len(texts) == 50 and len(set(texts)) > 25, "answers should differ"
    return texts


@pytest.mark.slow
def test_ctranslate2_answers_as_infer_does(clone, monkeypatch):
    pytest.importorskip("ctranslate2")
    write_run(clone / "runs/tuned", T5, "gym")
    convert, *others = commands()
    assert convert[-1] == "--tokenizer=~/flan-t5-small"
    for command in ([*convert[:-1], "--tokenizer=gym"], *others):
        run(command, monkeypatch)
    assert predictions(clone / "answers.jsonl") == predictions(clone / "expected.jsonl")


@pytest.mark.slow
def test_ctranslate2_answers_as_a_decoder_does(clone, monkeypatch):
    pytest.importorskip("ctranslate2")
    folder = write_folder("llama2", clone / "words", WORDS, size=700)
    write_run(clone / "runs/tuned", LLAMA, str(folder / "tokenizer.json"))
    convert, to_float32, _, _, infer = commands()
    for command in (
        [*convert[:-1], f"--tokenizer={folder}"],
        to_float32,
        ["answer_decoder.py", "my-model", "my-model-float32", "prompts.jsonl", "answers.jsonl"],
        infer,
    ):
        run(command, monkeypatch)
    assert predictions(clone / "answers.jsonl") == predictions(clone / "expected.jsonl")
