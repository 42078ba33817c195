"""One int8 copy for all strategies, and no longer than the parameters."""

import gc
import weakref

import jax
import numpy as np
import pytest

from instruct.errors import UserError
from instruct.eval.decoding.batching import Decoder
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.decoding.weights import decoding_params
from instruct.mesh import make_mesh, parse_mesh
from instruct.models.config import ModelConfig
from instruct.models.model import make_model

TIED_T5 = ModelConfig(
    vocab_size=512,
    d_model=64,
    num_heads=2,
    head_dim=32,
    d_ff=96,
    num_encoder_layers=1,
    num_decoder_layers=1,
    tied_output=True,
)


def test_a_mesh_that_splits_kernels_is_refused_before_parameters_are_loaded():
    mesh = make_mesh(parse_mesh("data=4,fsdp=2"))
    config = DecodeConfig(weights="int8")
    with pytest.raises(UserError, match=r"weights = 'int8'.*'fsdp': 2.*fsdp = 1"):
        Decoder(make_model(TIED_T5), config, mesh=mesh)


@pytest.mark.slow
def test_strategies_share_a_copy_that_goes_with_the_parameters():
    model = make_model(TIED_T5)
    params = jax.jit(model.init)(jax.random.key(0))
    int8 = DecodeConfig(weights="int8")
    beam = DecodeConfig("beam", num_beams=2, weights="int8")
    assert decoding_params(model, params, DecodeConfig(), None) is params
    copy = decoding_params(model, params, int8, None)
    assert copy is decoding_params(model, params, beam, None)
    # No second array of the embeddings, the largest that stays as it is.
    assert copy["token_embedder"]["embedding"] is params["token_embedder"]["embedding"]
    # Other parameters in arrays of which some are the same.
    embedder = {**params["token_embedder"], "embedding": params["token_embedder"]["embedding"] * 2}
    other = decoding_params(model, {**params, "token_embedder": embedder}, int8, None)
    heads = (tree["token_embedder"]["int8_head"].scale for tree in (other, copy))
    np.testing.assert_array_equal(next(heads), 2 * next(heads))
    copy = decoding_params(model, params, int8, None)
    copied = weakref.ref(copy["decoder"]["layers_0"]["mlp"]["wo"]["kernel"])
    params.clear()
    embedder.clear()
    copy = other = None
    gc.collect()
    assert copied() is None
