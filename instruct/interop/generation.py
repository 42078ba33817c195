"""Generation settings of a Hugging Face folder as a `DecodeConfig`: it generates as meant.

They are in `generation_config.json`; without that file, as before transformers 4.26, in
`config.json`. What `task_specific_params` holds is not used, as transformers' `generate` does not.
"""

from collections.abc import Mapping
from typing import Any

from instruct.errors import UserError
from instruct.eval.decode import DecodeConfig

# Settings that change what is generated and are not computed here, with the values that are off.
_NOT_COMPUTED: dict[str, tuple[Any, ...]] = {
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
_LENGTHS = ("max_length", "max_new_tokens", "min_length", "min_new_tokens")
_STRATEGY = (
    *("do_sample", "early_stopping", "length_penalty", "num_beams", "num_return_sequences"),
    *("renormalize_logits", "temperature", "top_k", "top_p"),
)
# Of the same name in `DecodeConfig`.
_RULES = (
    *("bad_words_ids", "begin_suppress_tokens", "exponential_decay_length_penalty"),
    *("forced_bos_token_id", "forced_eos_token_id", "no_repeat_ngram_size"),
    *("repetition_penalty", "suppress_tokens"),
)
_NAMES = (*_NOT_COMPUTED, *_LENGTHS, *_STRATEGY, *_RULES)
_PLACE = "generation_config.json (else config.json)"
_EARLY = {False: "transformers", "never": "transformers-never", True: "transformers-early"}
# transformers' own default of `top_k` when it samples.
_TOP_K = 50


def settings_of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The generation settings that a model's `config.json` holds, as transformers reads them."""
    settings = {name: config[name] for name in _NAMES if config.get(name) is not None}
    if config.get("force_bos_token_to_be_generated") and config.get("bos_token_id") is not None:
        settings["forced_bos_token_id"] = config["bos_token_id"]
    return settings


def decode_config(settings: Mapping[str, Any], max_decode_steps: int = 128) -> DecodeConfig:
    """The strategy that generation settings ask for; {} is greedy.

    Args:
        settings: what generation_config.json or config.json says (`convert.generation_settings`).
        max_decode_steps: where they do not say how long; transformers itself would stop after 20
            tokens then.

    Raises:
        UserError: they ask for what is not computed here, or a value makes no sense.
    """
    asked = [name for name, off in _NOT_COMPUTED.items() if settings.get(name) not in off]
    if asked:
        raise UserError(
            f"{_PLACE} asks for {asked[0]} = {settings[asked[0]]!r}, which is not computed here. "
            "Remove it from the file, or set the strategy with DecodeConfig."
        )
    fields = _lengths(settings, max_decode_steps) | _rules(settings)
    eos_id = _one_id(settings.get("eos_token_id"))
    if eos_id is not None:
        fields["eos_id"] = eos_id
    beams, sample = settings.get("num_beams") or 1, bool(settings.get("do_sample"))
    if sample and beams != 1:
        raise UserError(
            f"{_PLACE} asks for sampling within {beams} beams (do_sample, num_beams), which is "
            "not computed here. Choose one of them."
        )
    if sample:
        fields |= {"strategy": "sample"}
        for name, default in (("temperature", 1.0), ("top_k", _TOP_K), ("top_p", 1.0)):
            value = settings.get(name)
            fields[name] = default if value is None else value
        fields["num_samples"] = settings.get("num_return_sequences") or 1
    elif beams != 1:
        early = settings.get("early_stopping") or False
        if early not in (True, False, "never"):
            raise UserError(f"{_PLACE}: early_stopping {early!r} is unknown.")
        penalty = settings.get("length_penalty")
        fields |= {"strategy": "beam", "num_beams": beams, "beam_rules": _EARLY[early]}
        fields["length_penalty"] = 1.0 if penalty is None else penalty
    try:
        config = DecodeConfig(**fields)
    except UserError as error:
        raise UserError(f"{_PLACE}: {error}") from error
    if beams != 1 and settings.get("renormalize_logits") and config.rules_set():
        raise UserError(
            f"{_PLACE} asks for renormalize_logits with beams and {', '.join(config.rules_set())}, "
            "which is not computed here. Remove it from the file."
        )
    return config


def _lengths(settings: Mapping[str, Any], max_decode_steps: int) -> dict[str, Any]:
    """Most and fewest tokens; `max_length` and `min_length` count the start token."""
    found: dict[str, Any] = {"max_decode_steps": max_decode_steps}
    for name, new, length, invalid in (
        ("max_decode_steps", "max_new_tokens", "max_length", 0),
        ("min_decode_steps", "min_new_tokens", "min_length", -1),
    ):
        value, total = settings.get(new), settings.get(length)
        if value is None and total is not None:
            value = max(total - 1, 0) if type(total) is int else invalid
        if value is not None:
            found[name] = value
    return found


def _rules(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The rules on tokens that are on."""
    found = {name: settings[name] for name in _RULES if settings.get(name) not in (None, [])}
    for name in ("forced_bos_token_id", "forced_eos_token_id"):
        if name in found:
            found[name] = _one_id(found[name])
    return found


def _one_id(value: Any) -> Any:
    """A token id that is given as itself or as a list of one."""
    if isinstance(value, list):
        return value[0] if len(value) == 1 else repr(value)
    return value
