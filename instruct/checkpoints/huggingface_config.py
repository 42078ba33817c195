"""Hugging Face's `config.json` as a family and a configuration, and back.

What is not computed here is refused in both directions: `Family.read` refuses settings, and a
configuration is written only if the `config.json` reads back as the same computation.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from instruct.checkpoints.decoder_family import DECODERS
from instruct.checkpoints.family import Family
from instruct.checkpoints.model_fields import differences
from instruct.checkpoints.pair_family import PAIRS
from instruct.checkpoints.t5_family import MT5, T5, UMT5
from instruct.errors import UserError

USE_ORIGINAL = (
    "Use the original weights in bfloat16, float16 or float32, or load it with transformers, call "
    "model.dequantize() and model.save_pretrained(FOLDER)."
)
# The first that computes a configuration is written.
FAMILIES: Mapping[str, Family] = {"t5": T5, "mt5": MT5, "umt5": UMT5, **DECODERS, **PAIRS}
# Entries of transformers 5 that decide before the ones of version 4, which both versions read.
_VERSION_5 = ("dtype", "rope_parameters", "scale_decoder_outputs")
# Entries that are configurations themselves.
_PARTS = ("encoder", "decoder", "text_config")
# Entries of a multimodal class that hold for its text model too.
_SHARED = ("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings")


def open_config(config: Mapping[str, Any], place: str) -> tuple[Family, dict[str, Any]]:
    """(family, settings of the text model) of a `config.json` at `place`.

    Raises UserError for other kinds of models, and for quantised ones.
    """
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        raise UserError(
            f"{place}: model_type {config.get('model_type')!r} is not read; use a model of one of "
            f"{', '.join(FAMILIES)} (Flan-T5, ByT5 and UL2 are of t5)."
        )
    if config.get("quantization_config"):
        settings = config["quantization_config"]
        method = settings.get("quant_method") if isinstance(settings, Mapping) else settings
        by = f" by {method!r:.60}" if method else ""
        raise UserError(
            f"{place} belongs to weights that are quantised{by} (quantization_config), which are "
            f"not read. {USE_ORIGINAL}"
        )
    if not family.text_config:
        return family, dict(config)
    text = config.get(family.text_config)
    if not isinstance(text, Mapping):
        raise UserError(f"{place} lacks {family.text_config}. Download or copy it again.")
    return family, {name: config[name] for name in _SHARED if name in config} | dict(text)


def config_of_model(
    model: Any, dtype: np.dtype, earlier: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The `config.json` of a model; keeps further settings of an `earlier` one.

    Raises UserError if no class of transformers computes the model.
    """
    settings: dict[str, Any] = {}
    first = FAMILIES.get(str((earlier or {}).get("model_type")))
    # A tokenizer may come with the settings of another kind of model.
    if earlier and first:
        settings = open_config(earlier, "the earlier config.json")[1]
    problems = {}
    for family in dict.fromkeys([first, *FAMILIES.values()]):
        if family is None or family.config_class is not type(model):
            continue
        config = dict(family.fixed) | (settings if family is first else {})
        config = _merged(config, family.write(model))
        config |= {"architectures": [family.architecture], "model_type": family.model_type}
        config["torch_dtype"] = dtype.name
        try:
            changed = differences(family.read(config, family.model_type), model, "this model")
        except UserError as error:
            changed = [str(error)]
        if not changed:
            return config
        problems[family.architecture] = changed
    nearest = min(problems, key=lambda name: len(problems[name]), default=None)
    if nearest is None:
        raise UserError(f"no class of transformers is written for {type(model).__name__}.")
    raise UserError(
        f"no class of transformers computes this model; the nearest is {nearest}, but "
        f"{'; '.join(problems[nearest])}. Write a checkpoint of this program (--format=instruct)."
    )


def _merged(config: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with entries replaced by the ones written, those of its stacks one by one."""
    kept = {name: value for name, value in config.items() if name not in _VERSION_5}
    parts = {
        name: _merged(kept.get(name) or {}, written[name]) for name in _PARTS if name in written
    }
    return kept | dict(written) | parts
