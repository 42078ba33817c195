"""What every model does alike; the models' own tests compute with it."""

import dataclasses

import jax.numpy as jnp

from instruct.models.decoder_only import DecoderOnly
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.models.shared_methods import SharedMethods
from tests.models.test_config import TINY
from tests.models.test_decoder_config import GEMMA2_2B


def test_an_encoder_decoder_reads_targets_shifted():
    class Echo(SharedMethods):
        def apply(self, params, batch, dropout_key=None):
            return batch

    batch = Echo().target_logits({}, jnp.array([[7, 8, -1]]), jnp.array([[3, 1, -1]]))
    assert batch["encoder_input_tokens"].tolist() == [[7, 8, 0]]
    assert batch["decoder_input_tokens"].tolist() == [[0, 3, 1]]


def test_models_say_their_caps_and_windows():
    local = {"window": 4096, "layer_pattern": ("local", "global")}
    gemma = DecoderOnly(dataclasses.replace(GEMMA2_2B, final_cap=30.0, **local))
    t5 = EncoderDecoder(TINY)
    assert isinstance(t5, SharedMethods) and t5.final_cap is None and TINY.windows == (None,)
    assert gemma.final_cap == 30.0 and gemma.config.windows == (4096, None)
