"""A user arrives with a T5 of transformers and leaves with one, by `run.py` alone."""

import json
import os
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

from instruct.checkpoints.detect import open_checkpoint
from instruct.cli.arguments import main
from instruct.data.vocab import GYM_MODEL, load_vocabulary

pytestmark = pytest.mark.slow

PROMPT = "--prompt=What is 2 + 3?"
SIZES = {
    **{"d_model": 32, "d_kv": 4, "num_heads": 8, "d_ff": 48, "num_layers": 2},
    **{"num_decoder_layers": 1, "vocab_size": 6144, "dropout_rate": 0.0},
}
GIN = {
    **{"d_model": 32, "head_dim": 4, "num_heads": 8, "d_ff": 48, "num_encoder_layers": 2},
    **{"num_decoder_layers": 1, "vocab_size": 6144},
}


@pytest.fixture(scope="module")
def arrived(tmp_path_factory):
    """(transformers' model, the folder it was saved to with a SentencePiece vocabulary)."""
    torch = pytest.importorskip("torch", reason="the model is made with torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.T5Config(
        **SIZES, feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0
    )
    model = transformers.T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        model.lm_head.weight.normal_(0, 1)
    model.generation_config.update(num_beams=2, max_new_tokens=7, length_penalty=0.5)
    folder = tmp_path_factory.mktemp("arrived") / "tiny-t5"
    model.save_pretrained(folder)
    shutil.copy(GYM_MODEL, folder / "spiece.model")
    return model, folder


@pytest.fixture(scope="module")
def run(arrived, tmp_path_factory):
    """Folder with what became of it: T5X's format, back in ours, and a run of two steps."""
    folder, (_, source) = tmp_path_factory.mktemp("run"), arrived
    convert = ["convert", f"--to={folder}/t5x/checkpoint_5", f"--from={source}"]
    assert main(convert) == 0
    back = ["convert", f"--from={folder}/t5x", f"--to={folder}/back", "--format=instruct"]
    assert main([*back, f"--tokenizer={source}"]) == 0
    flags = [
        "--gin_file=gin/runs/train.gin",
        "--gin_file=gin/models/tiny_test.gin",
        *(f"--gin_bindings=config.ModelConfig.{name} = {size}" for name, size in GIN.items()),
        "--gin.MIXTURE_OR_TASK_NAME=gym.chain_sum.zs_noopt",
        "--gin.TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 16}",
        f"--gin.INITIAL_CHECKPOINT_PATH={folder}/back",
        f"--gin.VOCABULARY={source}/spiece.model",
        f"--gin.STORE_DIR={folder}/stores",
        f"--gin.MODEL_DIR={folder}/run",
        "--gin.BATCH_SIZE=8",
        "--gin.TRAIN_STEPS=2",
    ]
    assert main(["train", *flags]) == 0
    return folder


def bits(path) -> dict[str, bytes]:
    return {name: a.read().tobytes() for name, a in open_checkpoint(path).arrays.items()}


def answers(capsys, *flags) -> list[str]:
    capsys.readouterr()
    assert main(["infer", "--gin_file=gin/runs/infer.gin", *flags]) == 0
    return capsys.readouterr().out.splitlines()


def test_infer_answers_with_its_vocabulary_and_settings(arrived, capsys):
    model, folder = arrived
    torch = pytest.importorskip("torch")
    vocabulary = load_vocabulary(f"{folder}/spiece.model")
    ids = torch.tensor([[*vocabulary.encode("What is 2 + 3?"), 1]])
    expected = model.generate(ids, num_return_sequences=2, num_beams=2, max_new_tokens=7)
    texts = [vocabulary.decode(row[1:].tolist()) for row in expected]
    assert answers(capsys, f"--gin.MODEL_DIR={folder}", PROMPT) == texts


def test_infer_reads_t5x_with_a_vocabulary(arrived, run, capsys):
    t5x = f"--gin.MODEL_DIR={run}/t5x"
    assert main(["infer", "--gin_file=gin/runs/infer.gin", t5x, PROMPT]) == 2
    assert "vocabulary" in capsys.readouterr().err
    flags = [t5x, f"--gin.VOCABULARY={arrived[1]}/spiece.model", "--gin.MAX_DECODE_STEPS=3"]
    assert len(answers(capsys, *flags, PROMPT)) == 1
    questions, found = run / "questions.jsonl", run / "answers.jsonl"
    questions.write_text('{"inputs": "What is 2 + 3?", "mark": 7}\n')
    assert answers(capsys, *flags, f"--input={questions}", f"--output={found}") is not None
    (row,) = [json.loads(line) for line in found.read_text().splitlines()]
    assert row["mark"] == 7 and "prediction" in row
    settings = json.loads((run / "answers.jsonl.settings.json").read_text())
    assert settings["decode"]["strategy"] == "greedy"
    assert settings["decode"]["max_decode_steps"] == 3


def test_there_and_back_changes_no_bit(arrived, run):
    assert bits(arrived[1]) == bits(run / "t5x") == bits(run / "back")


def test_it_was_trained_from_there(run):
    rows = [json.loads(line) for line in (run / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 2 and rows[-1]["loss"] > 0
    before, after = bits(run / "back"), bits(run / "run")
    assert before.keys() == after.keys()
    # Two updates at a rate of 5e-4: it moved a little, from where it was.
    start = open_checkpoint(run / "back").arrays["token_embedder/embedding"].read()
    end = open_checkpoint(run / "run").arrays["token_embedder/embedding"].read()
    moved = abs(end - start)
    assert moved.max() > 0 and moved.mean() < 0.01 * abs(start).mean()


def test_it_leaves_as_transformers_loads_it(arrived, run, capsys):
    transformers = pytest.importorskip("transformers")
    target = run / "leaving"
    flags = [f"--from={run}/run", f"--to={target}", f"--tokenizer={arrived[1]}"]
    assert main(["convert", *flags]) == 0
    model, info = transformers.T5ForConditionalGeneration.from_pretrained(
        target, output_loading_info=True
    )
    assert not any(info.values()), info
    ours = open_checkpoint(run / "run").arrays
    assert model.shared.weight.detach().numpy().tobytes() == (
        ours["token_embedder/embedding"].read().tobytes()
    )
    assert model.generation_config.num_beams == 2
    assert (target / "spiece.model").read_bytes() == GYM_MODEL.read_bytes()
    assert len(answers(capsys, f"--gin.MODEL_DIR={target}", PROMPT)) == 2
