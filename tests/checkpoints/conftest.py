"""Small models of transformers, and the same ones as ours."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from instruct.checkpoints.arrays import LazyArray, held
from instruct.checkpoints.detect import open_checkpoint
from instruct.checkpoints.weights import model_shapes
from instruct.models.config import ModelConfig
from instruct.models.model import make_model
from tests.transformers_decoding import tokens_of_both

# heads * head_dim != d_model, odd d_ff, unequal depths, odd vocabulary sizes.
SHAPES: dict[str, dict[str, Any]] = {
    "t5_1_1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "t5_1_0": {"feed_forward_proj": "relu", "tie_word_embeddings": True, "d_kv": 4, "num_heads": 4},
    "odd": {
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "vocab_size": 37,
        "d_kv": 7,
        "num_heads": 5,
        "d_ff": 13,
        "num_layers": 1,
        "num_decoder_layers": 2,
    },
    "odd_tied": {
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": True,
        "vocab_size": 53,
        "d_kv": 3,
        "num_heads": 1,
        "d_ff": 29,
        "num_decoder_layers": 1,
    },
    "ul2": {
        "feed_forward_proj": "gated-silu",
        "tie_word_embeddings": False,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 20,
    },
    "relu_untied": {"feed_forward_proj": "relu", "tie_word_embeddings": False, "vocab_size": 64},
}
SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "d_model": 16,
    "d_kv": 5,
    "num_heads": 3,
    "d_ff": 24,
    "num_layers": 2,
    "num_decoder_layers": 3,
}


def random_model(name: str, seed: int = 0) -> Any:
    """transformers' model of one of `SHAPES`, every weight drawn anew."""
    torch = pytest.importorskip("torch", reason="logits are compared with torch's")
    transformers = pytest.importorskip("transformers")
    config = transformers.T5Config(**(SIZES | SHAPES[name]), decoder_start_token_id=0)
    model = transformers.T5ForConditionalGeneration(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        if not config.scale_decoder_outputs:
            model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
        for key, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            is_norm = "layer_norm" in key
            weight.copy_(1 + 0.1 * noise if is_norm else noise * weight.shape[-1] ** -0.5)
        if config.scale_decoder_outputs:
            model.shared.weight.mul_(4)
    return model


@pytest.fixture(scope="session", params=list(SHAPES))
def saved(request, tmp_path_factory) -> tuple[Any, pathlib.Path]:
    """(transformers' model, the folder that it saved itself to)."""
    model = random_model(request.param)
    folder = tmp_path_factory.mktemp("huggingface") / request.param
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture(scope="session")
def tiny() -> ModelConfig:
    """A model for files that no other program made."""
    return ModelConfig(
        vocab_size=24,
        d_model=8,
        num_heads=2,
        head_dim=3,
        d_ff=10,
        num_encoder_layers=2,
        num_decoder_layers=3,
        activations="gated-gelu",
    )


def random_arrays(model: ModelConfig, seed: int = 0) -> dict[str, LazyArray]:
    """Random float32 parameters under our names."""
    draw = np.random.default_rng(seed)
    return {
        path: held(draw.standard_normal(shape).astype(np.float32), path)
        for path, shape in model_shapes(model).items()
    }


def tree_of(arrays: dict[str, LazyArray]) -> dict[str, Any]:
    """Nested dict of the values."""
    return unflatten_dict({path: array.read() for path, array in arrays.items()}, sep="/")


def unscanned(model: ModelConfig) -> ModelConfig:
    return dataclasses.replace(model, scan_layers=False)


def padded_batches(vocab_size: int, count: int):
    """Random prompts and targets of random lengths, 0 at their ends."""
    draw = np.random.default_rng(1)
    for _ in range(count):
        source = draw.integers(2, vocab_size, (3, 9)).astype(np.int32)
        target = draw.integers(2, vocab_size, (3, 6)).astype(np.int32)
        source[np.arange(9) >= draw.integers(1, 10, (3, 1))] = 0
        target[np.arange(6) >= draw.integers(1, 7, (3, 1))] = 0
        yield source, np.pad(target, ((0, 0), (1, 0)))[:, :-1]


def assert_decodes_as_transformers(
    theirs: Any, folder: pathlib.Path, beams: int, use_cache: bool = True
) -> None:
    """Token for token, in slots that are refilled; `theirs` is what `folder` holds, of 37 words."""
    opened, random = open_checkpoint(folder), np.random.default_rng(1)
    prompts = [random.integers(3, 37, n).tolist() for n in (2, 11, 1, 7, 9)]
    model, params = make_model(opened.model), tree_of(opened.arrays)
    found, expected = tokens_of_both(
        model, params, theirs, prompts, beams, max_shapes=2, use_cache=use_cache
    )
    np.testing.assert_array_equal(found, expected)
    assert len({tuple(row) for row in found}) > 2
