"""Names of the settings in a Hugging Face folder that affect the output of `generate`.

They are in `generation_config.json`; before transformers 4.26, in `config.json`.
`instruct/eval/decoding/generation_settings.py` makes a `DecodeConfig` of them.
"""

from collections.abc import Mapping
from typing import Any

# Settings that affect the output and are not computed here, with the values that turn them off.
NOT_COMPUTED: dict[str, tuple[Any, ...]] = {
    "assistant_early_exit": (None,),
    "constraints": (None, []),
    "decoder_start_token_id": (None, 0),
    "diversity_penalty": (None, 0, 0.0),
    "dola_layers": (None,),
    "encoder_no_repeat_ngram_size": (None, 0),
    "encoder_repetition_penalty": (None, 1, 1.0),
    "epsilon_cutoff": (None, 0, 0.0),
    "eta_cutoff": (None, 0, 0.0),
    "force_words_ids": (None, []),
    "guidance_scale": (None, 1, 1.0),
    "max_time": (None,),
    "min_p": (None, 0, 0.0),
    "num_beam_groups": (None, 1),
    "penalty_alpha": (None, 0, 0.0),
    "sequence_bias": (None, []),
    "stop_strings": (None, []),
    "token_healing": (None, False),
    "top_h": (None,),
    "typical_p": (None, 1, 1.0),
    "watermarking_config": (None,),
}
LENGTHS = ("max_length", "max_new_tokens", "min_length", "min_new_tokens")
STRATEGY = (
    *("do_sample", "early_stopping", "length_penalty", "num_beams", "num_return_sequences"),
    *("renormalize_logits", "temperature", "top_k", "top_p"),
)
# Of the same name in `DecodeConfig`.
RULES = (
    *("bad_words_ids", "begin_suppress_tokens", "exponential_decay_length_penalty"),
    *("forced_bos_token_id", "forced_eos_token_id", "no_repeat_ngram_size"),
    *("repetition_penalty", "suppress_tokens"),
)
NAMES = (*NOT_COMPUTED, *LENGTHS, *STRATEGY, *RULES)


def settings_of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The generation settings in a model's `config.json`, as transformers reads them."""
    settings = {name: config[name] for name in NAMES if config.get(name) is not None}
    if config.get("force_bos_token_to_be_generated") and config.get("bos_token_id") is not None:
        settings["forced_bos_token_id"] = config["bos_token_id"]
    return settings
