"""What T5X computed: five updates of a tiny T5 1.1, on a CPU in float32."""

import json
import pathlib
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from instruct.models.config import ModelConfig

T5X_FOLDER = pathlib.Path(__file__).resolve().parents[1] / "data" / "t5x_t5_1_1"


def t5x_run() -> dict[str, Any]:
    """T5X's own run: `config`, `metrics`, `initial` and `final` parameters, `batches`, `logits`."""
    expected = json.loads((T5X_FOLDER / "expected.json").read_text())
    sizes = expected["config"]
    config = ModelConfig(
        vocab_size=sizes["vocab_size"],
        d_model=sizes["emb_dim"],
        num_heads=sizes["num_heads"],
        head_dim=sizes["head_dim"],
        d_ff=sizes["mlp_dim"],
        num_encoder_layers=sizes["num_encoder_layers"],
        num_decoder_layers=sizes["num_decoder_layers"],
    )
    arrays = np.load(T5X_FOLDER / "expected.npz")
    return {
        "config": config,
        "metrics": expected["metrics"],
        "initial": unflatten_dict(dict(np.load(T5X_FOLDER / "initial_parameters.npz")), sep="/"),
        "final": unflatten_dict(dict(np.load(T5X_FOLDER / "final_parameters.npz")), sep="/"),
        "batches": [
            {name.split("/")[1]: arrays[name] for name in arrays if name.startswith(f"batch{i}/")}
            for i in range(5)
        ],
        "logits": arrays["logits"],
    }
