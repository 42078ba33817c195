"""Records of every configuration class, and which fields make two models one computation."""

import dataclasses
import json

import pytest

from instruct.checkpoints.model_fields import differences, record_of, recorded_model
from instruct.errors import UserError
from instruct.models.decoder_config import DecoderConfig
from instruct.models.stack_config import RopeScaling

DECODER = DecoderConfig(
    vocab_size=24,
    d_model=8,
    num_layers=4,
    num_heads=2,
    num_kv_heads=1,
    head_dim=4,
    d_ff=10,
    window=3,
    layer_pattern=("local", "global"),
    rope_scaling=RopeScaling("llama3", factor=2.0),
)


@pytest.mark.parametrize("kind", ["encoder-decoder", "decoder"])
def test_a_record_gives_the_configuration_back(tiny, tmp_path, kind):
    model = tiny if kind == "encoder-decoder" else DECODER
    record = json.loads(json.dumps(record_of(model)))
    assert recorded_model(record, tmp_path) == model
    assert recorded_model(record | {"of_another_version": 1}, tmp_path) == model


def test_a_record_without_a_class_is_of_an_encoder_decoder(tiny, tmp_path):
    assert recorded_model(dataclasses.asdict(tiny), tmp_path) == tiny
    with pytest.raises(UserError, match="unknown class of the model in .*'Mixer'.*DecoderConfig"):
        recorded_model({"class": "Mixer"}, tmp_path)
    with pytest.raises(UserError, match="impossible model: DecoderConfig.window is None"):
        recorded_model(record_of(DECODER) | {"window": None}, tmp_path)


def test_equal_computations_have_no_differences():
    pattern = ("local", "global", "local", "global")
    other = dataclasses.replace(
        DECODER, layer_pattern=pattern, query_scale=0.5, dtype="bfloat16", prefix_lm=True
    )
    assert differences(DECODER, other, "gin") == []
    plain = dataclasses.replace(DECODER, window=None, layer_pattern=("global",))
    assert differences(plain, dataclasses.replace(plain, local_rope_theta=9.0), "gin") == []


def test_differences_are_named(tiny):
    scaled = dataclasses.replace(DECODER, rope_scaling=RopeScaling("llama3", factor=4.0), d_ff=11)
    found = differences(DECODER, scaled, "gin")
    assert found == ["d_ff is 10 there, 11 in gin", "rope_scaling.factor is 2.0 there, 4.0 in gin"]
    assert differences(DECODER, scaled, "gin", shapes=False) == found[1:]
    plain = dataclasses.replace(DECODER, rope_scaling=None)
    assert any("rope_scaling" in line for line in differences(DECODER, plain, "gin"))
    assert differences(DECODER, tiny, "gin") == ["DecoderConfig there, ModelConfig in gin"]
