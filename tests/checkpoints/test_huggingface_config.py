"""`config.json` of published checkpoints, there and back; damaged ones are in test_huggingface."""

import numpy as np
import pytest

from instruct.checkpoints.huggingface_config import (
    check_config,
    config_of_model,
    is_scaled,
    model_of_config,
)
from instruct.errors import UserError

SIZES = {
    "dropout_rate": 0.1,
    "d_model": 512,
    "d_kv": 64,
    "num_heads": 6,
    "num_layers": 8,
    "num_decoder_layers": 8,
}
# As published, what does not matter here left out.
PUBLISHED = {
    "flan_t5_small": SIZES
    | {"model_type": "t5", "vocab_size": 32_128, "d_ff": 1024, "feed_forward_proj": "gated-gelu"}
    | {"tie_word_embeddings": False, "dense_act_fn": "gelu_new", "is_gated_act": True},
    "t5_small": SIZES
    | {"model_type": "t5", "vocab_size": 32_128, "d_ff": 2048, "feed_forward_proj": "relu"},
    "mt5_small": SIZES
    | {"model_type": "mt5", "vocab_size": 250_112, "d_ff": 1024, "feed_forward_proj": "gated-gelu"}
    | {"tie_word_embeddings": False},
    "flan_ul2": SIZES
    | {"model_type": "t5", "vocab_size": 32_128, "d_ff": 1024, "feed_forward_proj": "gated-silu"}
    | {"tie_word_embeddings": False, "dense_act_fn": "silu"},
}


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_ones_there_and_back(name):
    config = PUBLISHED[name]
    check_config(config, name)
    tied = is_scaled(config)
    assert tied == (name == "t5_small")
    model = model_of_config(config, name, tied)
    assert (model.d_model, model.head_dim, model.num_heads) == (512, 64, 6)
    assert model.activations == config["feed_forward_proj"]
    assert (model.relpos_buckets, model.relpos_max_distance, model.norm_epsilon) == (32, 128, 1e-6)
    written = config_of_model(model, np.dtype(np.float32), config)
    assert {key: written[key] for key in config} == config
    assert model_of_config(written, name, is_scaled(written)) == model


def test_without_a_number_of_decoder_layers_there_are_as_many_as_in_the_encoder():
    config = {k: v for k, v in PUBLISHED["t5_small"].items() if k != "num_decoder_layers"}
    assert model_of_config(config, "here", True).num_decoder_layers == 8


def test_settings_of_another_model_are_not_kept():
    model = model_of_config(PUBLISHED["t5_small"], "here", True)
    earlier = {"model_type": "bart", "pad_token_id": 1, "forced_eos_token_id": 2}
    written = config_of_model(model, np.dtype(np.float32), earlier)
    assert (written["model_type"], written["pad_token_id"]) == ("t5", 0)
    assert "forced_eos_token_id" not in written


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder_start_token_id": 2}, "decoder_start_token_id is 2.*starts with 0"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings is 'false'.*true or false"),
        ({"model_type": "umt5"}, "model_type 'umt5' is not read"),
    ],
)
def test_what_is_not_computed_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        check_config(PUBLISHED["t5_small"] | changes, "here")


def test_the_gate_may_not_contradict_itself():
    config = PUBLISHED["flan_t5_small"] | {"dense_act_fn": "silu"}
    with pytest.raises(UserError, match="dense_act_fn 'silu'.*must be 'gelu_new'"):
        model_of_config(config, "here", False)
