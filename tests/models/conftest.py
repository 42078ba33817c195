"""The model that T5X wrote, and how its arrays are read."""

import json
import pathlib
from typing import Any, NamedTuple

import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from instruct.models.config import ModelConfig
from instruct.models.encoder_decoder import EncoderDecoder

FOLDER = pathlib.Path(__file__).parents[1] / "data" / "t5x_t5_1_1"


class Reference(NamedTuple):
    """A model with T5X's final parameters, batch 0 without prefix, and T5X's outputs."""

    model: EncoderDecoder
    params: dict[str, Any]
    batch: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


@pytest.fixture(scope="session")
def reference() -> Reference:
    shape = json.loads((FOLDER / "expected.json").read_text())["config"]
    config = ModelConfig(
        vocab_size=shape["vocab_size"],
        d_model=shape["emb_dim"],
        num_heads=shape["num_heads"],
        head_dim=shape["head_dim"],
        d_ff=shape["mlp_dim"],
        num_encoder_layers=shape["num_encoder_layers"],
        num_decoder_layers=shape["num_decoder_layers"],
    )
    outputs = dict(np.load(FOLDER / "expected.npz"))
    batch = {k.removeprefix("batch0/"): v for k, v in outputs.items() if k.startswith("batch0/")}
    params = unflatten_dict(dict(np.load(FOLDER / "final_parameters.npz")), sep="/")
    return Reference(EncoderDecoder(config), params, batch, outputs)


@pytest.fixture(scope="session")
def initial_parameters() -> dict[str, Any]:
    """The parameters T5X drew, for the scale of each."""
    return unflatten_dict(dict(np.load(FOLDER / "initial_parameters.npz")), sep="/")
