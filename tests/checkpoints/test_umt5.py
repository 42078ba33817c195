"""umT5, whose layers have relative positions of their own: transformers' logits, and back."""

import dataclasses

import jax
import numpy as np
import pytest

from instruct.checkpoints.convert import convert
from instruct.checkpoints.detect import open_checkpoint
from instruct.checkpoints.loading import load_params
from instruct.errors import UserError
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.models.layout import stack_layers
from tests.checkpoints.conftest import assert_decodes_as_transformers, padded_batches, tree_of
from tests.float32 import assert_same_float32

pytestmark = pytest.mark.slow

SIZES = {
    **{"vocab_size": 37, "d_model": 16, "d_kv": 5, "num_heads": 3, "d_ff": 24},
    **{"num_layers": 2, "num_decoder_layers": 3, "relative_attention_num_buckets": 8},
    **{"relative_attention_max_distance": 9, "decoder_start_token_id": 0},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(transformers' model of random weights, the folder that it saved itself to)."""
    torch = pytest.importorskip("torch", reason="logits are compared with torch's")
    transformers = pytest.importorskip("transformers")
    model = transformers.UMT5ForConditionalGeneration(transformers.UMT5Config(**SIZES)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(weight + 0.1 * noise if weight.ndim == 1 else noise * 16**-0.5)
        model.shared.weight.mul_(4)
    folder = tmp_path_factory.mktemp("umt5") / "saved"
    model.save_pretrained(folder)
    return model, folder


def test_logits_are_those_of_transformers(saved):
    torch = pytest.importorskip("torch")
    theirs, folder = saved
    opened = open_checkpoint(folder)
    assert opened.model.relpos_per_layer and opened.model.tied_output
    assert opened.model.num_params() == sum(array.size for array in opened.arrays.values())
    apply = jax.jit(EncoderDecoder(opened.model).apply)
    for source, target in padded_batches(37, 10):
        with torch.no_grad():
            expected = theirs(
                input_ids=torch.tensor(source).long(),
                attention_mask=torch.tensor(source != 0).long(),
                decoder_input_ids=torch.tensor(target).long(),
            ).logits.numpy()
        batch = {"encoder_input_tokens": source, "decoder_input_tokens": target}
        assert_same_float32(apply(tree_of(opened.arrays), batch), expected)


@pytest.mark.parametrize("beams", [1, 4])
def test_decoding_is_that_of_transformers(saved, beams):
    # Its cache has as many layers as the encoder.
    assert_decodes_as_transformers(*saved, beams, use_cache=False)


def test_to_ours_and_back(saved, tmp_path):
    theirs, folder = saved
    convert(folder, tmp_path / "ours", "instruct")
    convert(tmp_path / "ours", tmp_path / "back", "huggingface")
    loaded, info = type(theirs).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(info.values()), info
    expected = theirs.state_dict()
    assert all(tensor.equal(expected[name]) for name, tensor in loaded.state_dict().items())
    with pytest.raises(UserError, match="umT5 is written as"):
        convert(tmp_path / "ours", tmp_path / "checkpoint_1", "t5x")


def test_layouts_caches_and_trees_agree(saved):
    """Decoding with a cache, and the nodes of a tree, in stacked layers too."""
    _, folder = saved
    opened = open_checkpoint(folder)
    params, random = tree_of(opened.arrays), np.random.default_rng(0)
    inputs, targets = (random.integers(2, 37, (2, n)).astype(np.int32) for n in (7, 6))
    expected = jax.jit(EncoderDecoder(opened.model).target_logits)(params, inputs, targets)
    model = EncoderDecoder(dataclasses.replace(opened.model, scan_layers=True))
    params = load_params(folder, model.abstract_params())
    jax.tree.map(np.testing.assert_array_equal, params, stack_layers(tree_of(opened.arrays)))
    start = jax.jit(lambda *given: model.init_cache(model.start_prompts(*given), 1, 6))
    cache = start(params, inputs)
    step = jax.jit(model.decode_step)
    fed = np.pad(targets[:, :-1], [(0, 0), (1, 0)])
    for position in range(6):
        logits, cache = step(params, cache, fed[:, position], np.full(2, position))
        assert_same_float32(logits, expected[:, position])
    depths, seen = np.tile(np.arange(6), (2, 1)), np.tile(np.tri(6, dtype=bool), (2, 1, 1))
    tree = jax.jit(model.tree_logits)(params, inputs, fed, depths, seen)
    assert_same_float32(tree, expected)
