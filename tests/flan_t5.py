"""A tiny T5 of random weights in place of Flan-T5: its folder, its gin settings, dialogues."""

import json
import os
import pathlib
import shutil

import pytest

from instruct.data.vocab import GYM_MODEL

# A model that compiles in seconds, short rows, and windows of few examples: a run of two steps
# otherwise renders thousands that it never trains on, in the background.
SMALL_GIN = """
from __gin__ import dynamic_registration
from instruct.data import config as data_config
from instruct.models import config
from instruct.train import loop

TASK_FEATURE_LENGTHS = {'inputs': 128, 'targets': 16}
BATCH_SIZE = 8
TRAIN_STEPS = 2
NUM_EVAL_EXAMPLES = 4
loop.train.num_eval_examples = 8
data_config.DataConfig.window_examples = 32
config.ModelConfig.vocab_size = 6144
config.ModelConfig.d_model = 32
config.ModelConfig.num_heads = 8
config.ModelConfig.head_dim = 4
config.ModelConfig.d_ff = 48
config.ModelConfig.num_encoder_layers = 1
config.ModelConfig.num_decoder_layers = 1
config.ModelConfig.dtype = 'float32'
"""


def write_flan_t5(folder: pathlib.Path) -> None:
    """A Hugging Face folder of the sizes of `SMALL_GIN`, random weights, a small vocabulary."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers = pytest.importorskip("transformers")
    config = transformers.T5Config(
        vocab_size=6144,
        d_model=32,
        num_heads=8,
        d_kv=4,
        d_ff=48,
        num_layers=1,
        num_decoder_layers=1,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    shutil.copy(GYM_MODEL, folder / "spiece.model")


def write_dialogues(path: pathlib.Path, count: int) -> None:
    """JSON lines of made-up dialogues and their summaries, all different."""
    things, names = ("bread", "the keys", "two tickets", "a lamp"), ("Anna", "Omar", "Mia")
    rows = (
        {
            "dialogue": f"{names[n % 3]}: Is {things[n % 4]} there?\nSara: Not yet, but {n} are.",
            "summary": f"Sara has not got {things[n % 4]} for {names[n % 3]} yet.",
        }
        for n in range(count)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
