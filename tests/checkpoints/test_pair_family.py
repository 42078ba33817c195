"""T5Gemma and T5Gemma 2: transformers' logits and tokens, and its files back to the bit."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from instruct.checkpoints import huggingface, native
from instruct.checkpoints.convert import convert, generation_settings
from instruct.checkpoints.detect import open_checkpoint
from instruct.checkpoints.huggingface_config import config_of_model, open_config
from instruct.checkpoints.weights import fit, model_shapes
from instruct.errors import UserError
from instruct.models.model import make_model
from tests.checkpoints.conftest import assert_decodes_as_transformers, random_arrays, tree_of

pytestmark = pytest.mark.slow

_START = "decoder_start_token_id"
_SIZES = {
    **{"vocab_size": 37, "hidden_size": 24, "intermediate_size": 29, "num_hidden_layers": 3},
    **{"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10},
    **{"sliding_window": 3, "query_pre_attn_scalar": 7},
}
_CAPS = {"attn_logit_softcapping": 3.0, "final_logit_softcapping": 2.0}
_LAYERS = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
_VISION = {
    **{"hidden_size": 8, "intermediate_size": 9, "num_hidden_layers": 1},
    **{"num_attention_heads": 2, "image_size": 28, "patch_size": 14},
}
# Widths of T5Gemma's stacks may differ, as in 9B-2B.
SETTINGS = {
    "T5Gemma": {
        "encoder": _SIZES | _CAPS | {"num_hidden_layers": 2},
        "decoder": _SIZES | _CAPS | {"hidden_size": 12},
        "vocab_size": 37,
    },
    "T5Gemma2": {
        "encoder": {
            "text_config": _SIZES | _LAYERS,
            **{"vision_config": _VISION, "mm_tokens_per_image": 4},
        },
        "decoder": _SIZES | _LAYERS,
    },
}


@pytest.fixture(scope="module", params=list(SETTINGS))
def saved(request, tmp_path_factory):
    """(transformers' model of random weights, the folder that it saved itself to)."""
    torch = pytest.importorskip("torch", reason="logits are compared with torch's")
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{request.param}Config")(**SETTINGS[request.param])
    model = getattr(transformers, f"{request.param}ForConditionalGeneration")(config).eval()
    model.set_attn_implementation("eager")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            # Small embeddings, so that tokens depend on more than the one before them.
            scale = 0.1 if "embed_tokens" in name else 1.5 / 24**0.5
            weight.copy_(weight + 0.2 * noise if weight.ndim == 1 else scale * noise)
    folder = tmp_path_factory.mktemp("pairs") / request.param
    model.save_pretrained(folder)
    return model, folder


def test_logits_are_those_of_transformers(saved):
    """Sources and targets several times as long as a window."""
    torch = pytest.importorskip("torch")
    theirs, folder = saved
    opened = open_checkpoint(folder)
    random = np.random.default_rng(0)
    source, target = (random.integers(3, 37, (3, n)).astype(np.int32) for n in (12, 11))
    source[1, 9:] = 0
    target[:, 0] = 2
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.tensor(source).long(),
            attention_mask=torch.tensor(source != 0).long(),
            decoder_input_ids=torch.tensor(target).long(),
            decoder_attention_mask=torch.ones(3, 11).long(),
        ).logits.numpy()
    target[:, 0] = 0  # as batches have it
    batch = {"encoder_input_tokens": source, "decoder_input_tokens": target}
    found = jax.jit(make_model(opened.model).apply)(tree_of(opened.arrays), batch)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
    assert expected.std() > 0.3
    assert opened.model.num_params() == sum(array.size for array in opened.arrays.values())


@pytest.mark.parametrize("beams", [1, 4])
def test_decoding_is_that_of_transformers(saved, beams):
    """Prompts are shorter and longer than the window."""
    assert_decodes_as_transformers(*saved, beams)


def test_transformers_to_ours_and_back(saved, tmp_path):
    theirs, folder = saved
    report = convert(folder, tmp_path / "ours", "instruct")
    assert not report.of("missing", "left over", "shape differs")
    assert open_checkpoint(tmp_path / "ours").model == open_checkpoint(folder).model
    back = convert(tmp_path / "ours", tmp_path / "back", "huggingface")
    loaded, info = type(theirs).from_pretrained(tmp_path / "back", output_loading_info=True)
    of_images = ("vision_tower", "multi_modal_projector", "eoi_embedding")
    lost = [name for name in info["missing_keys"] if not any(part in name for part in of_images)]
    assert not lost and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert bool(info["missing_keys"]) == any("vision tower" in note for note in back.notes)
    expected = theirs.state_dict()
    for name, tensor in loaded.state_dict().items():
        assert any(part in name for part in of_images) or tensor.equal(expected[name]), name
    for name in ("encoder", "decoder"):
        ours, other = (getattr(model.config, name).to_dict() for model in (loaded, theirs))
        assert {key for key in other if ours[key] != other[key]} <= {"dtype", "_name_or_path"}


def test_the_start_token_is_the_models_own(saved, tmp_path):
    """The setting for it is no other way to decode; another token would be."""
    _, folder = saved
    convert(folder, tmp_path / "ours", "instruct")
    path = tmp_path / "ours" / native.CARRIED / huggingface.GENERATION
    for start, expected in ((2, {"max_length": 9}), (5, {"max_length": 9} | {_START: 5})):
        path.write_text(json.dumps({"max_length": 9, _START: start}))
        assert generation_settings(tmp_path / "ours") == expected


def test_what_is_not_computed_is_refused(saved):
    _, folder = saved
    config = huggingface.read_json(folder / "config.json")
    family, settings = open_config(config, "here")
    decoder = settings["decoder"]
    for changes, message in (
        ({"pad_token_id": 3}, "pad_token_id is 3, which is not computed"),
        ({"decoder": decoder | {"vocab_size": 40}}, "vocab_size is 40.*only 37"),
        ({"decoder": decoder | {"hidden_activation": "mish"}}, "decoder: hidden_activation 'mish'"),
        ({"encoder": None}, "here lacks encoder"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'"),
    ):
        with pytest.raises(UserError, match=message):
            family.read(settings | changes, "here")


def test_both_layouts_untied_and_what_no_class_computes(saved, tmp_path):
    _, folder = saved
    model = dataclasses.replace(open_checkpoint(folder).model, tied_output=False)
    arrays = random_arrays(model)
    native.write_checkpoint(tmp_path / "ours", arrays, model, info={})
    convert(tmp_path / "ours", tmp_path / "hf", "huggingface")
    opened = open_checkpoint(tmp_path / "hf")
    fit(opened, model_shapes(opened.model), "itself")[1].check()
    assert opened.model == model
    for path, array in opened.arrays.items():
        np.testing.assert_array_equal(array.read(), arrays[path].read())
    other = dataclasses.replace(
        model, cross="merged", shared_embedding=False, encoder=model.decoder
    )
    with pytest.raises(UserError, match="nearest is T5Gemma.*but .* there, .* in this model"):
        config_of_model(other, np.dtype(np.float32))
