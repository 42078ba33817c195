"""`config.json` of published checkpoints, there and back; damaged ones are in test_huggingface."""

import numpy as np
import pytest

from instruct.checkpoints.huggingface_config import config_of_model, open_config
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


def model_of(config, place="here"):
    family, settings = open_config(config, place)
    return family.read(settings, place)


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_ones_there_and_back(name):
    config = PUBLISHED[name]
    model = model_of(config, name)
    assert model.tied_output == (name == "t5_small")
    assert (model.d_model, model.head_dim, model.num_heads) == (512, 64, 6)
    assert model.activations == config["feed_forward_proj"]
    assert (model.relpos_buckets, model.relpos_max_distance, model.norm_epsilon) == (32, 128, 1e-6)
    written = config_of_model(model, np.dtype(np.float32), config)
    assert {key: written[key] for key in config} == config
    assert model_of(written, name) == model


def test_without_a_number_of_decoder_layers_there_are_as_many_as_in_the_encoder():
    config = {k: v for k, v in PUBLISHED["t5_small"].items() if k != "num_decoder_layers"}
    assert model_of(config).num_decoder_layers == 8


def test_settings_of_another_model_are_not_kept():
    model = model_of(PUBLISHED["t5_small"])
    earlier = {"model_type": "bart", "pad_token_id": 1, "forced_eos_token_id": 2}
    written = config_of_model(model, np.dtype(np.float32), earlier)
    assert (written["model_type"], written["pad_token_id"]) == ("t5", 0)
    assert "forced_eos_token_id" not in written


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder_start_token_id": 2}, "decoder_start_token_id is 2.*only 0 is"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings is 'false'.*true or false"),
        ({"model_type": "bart"}, "model_type 'bart' is not read"),
    ],
)
def test_what_is_not_computed_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        model_of(PUBLISHED["t5_small"] | changes)


def test_the_gate_may_not_contradict_itself():
    config = PUBLISHED["flan_t5_small"] | {"dense_act_fn": "silu"}
    with pytest.raises(UserError, match="dense_act_fn 'silu'.*must be 'gelu_new'"):
        model_of(config)
