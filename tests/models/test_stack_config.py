import dataclasses

import pytest

from instruct.errors import UserError
from instruct.models.stack_config import RopeScaling, StackConfig

TINY = StackConfig(
    d_model=8, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=6, d_ff=16, window=4,
    layer_pattern=("local", "global"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_kv_heads": 3}, ["num_kv_heads is 3", "num_heads = 4: 1, 2, 4"]),
        ({"num_kv_heads": 0}, ["num_kv_heads is 0", "gin/models/tiny_decoder.gin"]),
        ({"head_dim": 5}, ["head_dim is 5", "even", "6"]),
        ({"layer_pattern": ("near",)}, ["layer_pattern", "'near'", "('local', 'global')"]),
        ({"layer_pattern": ()}, ["layer_pattern", "('local', 'global')"]),
        ({"layer_pattern": ("global",)}, ["window is 4", "add 'local'"]),
        ({"window": None}, ["window is None", "set window"]),
        ({"parallel": True, "post_norms": True}, ["parallel", "post_norms"]),
        ({"norm_bias": True}, ["norm_bias", "'layer'"]),
        ({"norm": "rmsnorm"}, ["norm", "rms_plus_one"]),
        ({"activations": "swiglu"}, ["activations", "gated-silu"]),
        ({"rope_scaling": "linear"}, ["rope_scaling", "@RopeScaling()"]),
    ],
)
def test_bad_values_are_refused_with_value_allowed_and_fix(change, says):
    with pytest.raises(UserError) as error:
        dataclasses.replace(TINY, **change)
    for part in says:
        assert part in str(error.value)


def test_scaling_needs_high_above_low():
    with pytest.raises(UserError, match=r"high_frequency_factor is 1.0.*above .* = 2.0.*8.0"):
        RopeScaling("llama3", 8.0, 2.0, 1.0)


def test_lists_of_gin_are_tuples_and_a_pattern_ends_with_the_stack():
    config = dataclasses.replace(TINY, layer_pattern=["local"] * 5 + ["global"])
    assert config.layer_pattern == ("local",) * 5 + ("global",)
    assert config.pattern == ("local",) * 3 and hash(config)


def test_counts_of_a_layer_written_out():
    """Query and output 2 * 8 * 24, key and value 2 * 8 * 12, three MLP kernels, two norms."""
    layer = 2 * 8 * 24 + 2 * 8 * 12 + 3 * 8 * 16 + 2 * 8
    assert TINY.stack_params() == 3 * layer + 8
    biased = dataclasses.replace(TINY, attention_bias="all", mlp_bias=True, activations="relu")
    layer += 24 + 2 * 12 + 8 - 8 * 16 + 16 + 8
    assert biased.stack_params() == 3 * layer + 8
    pairs = 4 * 5 * 24
    assert TINY.stack_flops(5) == 3 * 5 * (2 * (layer_kernels(TINY)) + pairs)


def layer_kernels(config):
    return (config.stack_params() - config.d_model) // config.num_layers - 2 * config.d_model
