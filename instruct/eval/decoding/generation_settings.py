"""Converts the generation settings of a Hugging Face folder to a `DecodeConfig`.

They are in `generation_config.json`, or before transformers 4.26 in `config.json`. Like
transformers' `generate`, this ignores `task_specific_params`.
"""

from collections.abc import Mapping
from typing import Any

from instruct.checkpoints.generation_settings import NOT_COMPUTED, RULES
from instruct.errors import UserError
from instruct.eval.decoding.decode import DecodeConfig

_PLACE = "generation_config.json (else config.json)"
_EARLY = {False: "transformers", "never": "transformers-never", True: "transformers-early"}
_TOP_K = 50  # transformers' default for sampling


def decode_config(settings: Mapping[str, Any], total_lengths: bool = False) -> DecodeConfig:
    """The strategy of generation settings, as `convert.generation_settings` reads them.

    {} is greedy. Without a length it is that of `DecodeConfig`, 128 tokens (transformers': 20).
    With `total_lengths`, `max_length` and `min_length` count the prompt, as transformers does for
    decoder-only models, and are left out.

    Raises:
        UserError: an unsupported setting, or a value out of range.
    """
    if total_lengths:
        left_out = ("max_length", "min_length")
        settings = {name: value for name, value in settings.items() if name not in left_out}
    asked = [name for name, off in NOT_COMPUTED.items() if settings.get(name) not in off]
    if asked:
        raise UserError(
            f"{_PLACE} asks for {asked[0]} = {settings[asked[0]]!r}, which is not supported. "
            "Remove it from the file, or set the strategy with DecodeConfig."
        )
    fields = _lengths(settings) | _rules(settings)
    ends = settings.get("eos_token_id")
    if ends is not None:
        fields["eos_id"], *fields["stop_ids"] = ends if isinstance(ends, list) and ends else [ends]
    beams, sample = settings.get("num_beams") or 1, bool(settings.get("do_sample"))
    if sample and beams != 1:
        raise UserError(
            f"{_PLACE} asks for sampling within {beams} beams (do_sample, num_beams), which is "
            "not supported. Choose one of them."
        )
    if sample:
        fields |= {"strategy": "sample", "top_k": _TOP_K}
        names = ("temperature", "top_k", "top_p")
        fields |= {name: settings[name] for name in names if settings.get(name) is not None}
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
            "which is not supported. Remove it from the file."
        )
    return config


def _lengths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Most and fewest tokens; `max_length` and `min_length` count the start token."""
    fields: dict[str, Any] = {}
    for name, new, length, invalid in (
        ("max_decode_steps", "max_new_tokens", "max_length", 0),
        ("min_decode_steps", "min_new_tokens", "min_length", -1),
    ):
        value, total = settings.get(new), settings.get(length)
        if value is None and total is not None:
            value = max(total - 1, 0) if type(total) is int else invalid
        if value is not None:
            fields[name] = value
    return fields


def _rules(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The token rules that are on."""
    rules = {name: settings[name] for name in RULES if settings.get(name) not in (None, [])}
    for name in ("forced_bos_token_id", "forced_eos_token_id"):
        if name in rules:
            rules[name] = _one_id(rules[name])
    return rules


def _one_id(value: Any) -> Any:
    """A token id from a number or a list of one number."""
    if isinstance(value, list):
        return value[0] if len(value) == 1 else repr(value)
    return value
