import dataclasses

import pytest

from instruct.errors import UserError
from instruct.models.config import ModelConfig

TINY = ModelConfig(
    vocab_size=384,
    d_model=32,
    num_heads=8,
    head_dim=8,
    d_ff=64,
    num_encoder_layers=2,
    num_decoder_layers=2,
)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"d_model": "12"}, ["d_model", "'12'", "whole number", "without quotes: 12"]),
        ({"num_heads": 8.0}, ["num_heads", "8.0", "whole number"]),
        ({"num_encoder_layers": True}, ["num_encoder_layers", "True"]),
        ({"scan_layers": 1}, ["scan_layers", "True or False"]),
        ({"dtype": None}, ["dtype", "None", "float32"]),
        ({"d_ff": -1}, ["d_ff", "-1", "at least 1"]),
        ({"vocab_size": 0}, ["vocab_size is 0", "gin/models/"]),
        ({"dropout_rate": 1.0}, ["dropout_rate", "1.0", "[0, 1)"]),
        ({"norm_epsilon": 0.0}, ["norm_epsilon", "above 0"]),
        ({"relpos_buckets": 30}, ["relpos_buckets", "multiple of 4"]),
        ({"relpos_max_distance": 16}, ["relpos_max_distance", "above relpos_buckets / 2 = 16"]),
        ({"dtype": "bfloat"}, ["dtype", "'bfloat'", "Did you mean 'bfloat16'"]),
        ({"activations": "gelu"}, ["activations", "gated-gelu", "relu"]),
        ({"remat": "some"}, ["remat", "none", "minimal", "full"]),
        ({"attention": "splash"}, ["attention", "einsum", "flash"]),
    ],
)
def test_bad_values_are_refused_with_value_allowed_and_fix(change, says):
    with pytest.raises(UserError) as error:
        dataclasses.replace(TINY, **change)
    for part in says:
        assert part in str(error.value)


def test_a_whole_number_serves_where_a_number_is_asked():
    assert dataclasses.replace(TINY, dropout_rate=0).dropout_rate == 0


def test_flops_are_those_of_the_peer_benchmark():
    """peer_bench: 114.4 and 164.1 GFLOP for 16 rows of 256 + 64 tokens."""
    config = ModelConfig(
        vocab_size=512,
        d_model=256,
        num_heads=4,
        head_dim=64,
        d_ff=512,
        num_encoder_layers=4,
        num_decoder_layers=4,
    )
    assert config.train_flops(16, 256, 64) / 1e9 == pytest.approx(114.4, abs=0.2)
    wide = dataclasses.replace(config, vocab_size=32128)
    assert wide.train_flops(16, 256, 64) / 1e9 == pytest.approx(164.1, abs=0.2)
    assert wide.train_flops(16, 256, 64) == 3 * wide.forward_flops(16, 256, 64)
