"""Generation settings of a Hugging Face folder as a `DecodeConfig`: it generates as meant.

They are in `generation_config.json`; without that file, as before transformers 4.26, in
`config.json`. What `task_specific_params` holds is not used, as transformers' `generate` does not.
"""

from collections.abc import Mapping
from typing import Any

from instruct.checkpoints.generation_settings import NOT_COMPUTED, RULES
from instruct.errors import UserError
from instruct.eval.decoding.decode import DecodeConfig

_PLACE = "generation_config.json (else config.json)"
_EARLY = {False: "transformers", "never": "transformers-never", True: "transformers-early"}
# transformers' own default of `top_k` when it samples.
_TOP_K = 50


def decode_config(settings: Mapping[str, Any], max_decode_steps: int = 128) -> DecodeConfig:
    """The strategy that generation settings ask for; {} is greedy.

    Args:
        settings: what generation_config.json or config.json says (`convert.generation_settings`).
        max_decode_steps: where they do not say how long; transformers itself would stop after 20
            tokens then.

    Raises:
        UserError: they ask for what is not computed here, or a value makes no sense.
    """
    asked = [name for name, off in NOT_COMPUTED.items() if settings.get(name) not in off]
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
    found = {name: settings[name] for name in RULES if settings.get(name) not in (None, [])}
    for name in ("forced_bos_token_id", "forced_eos_token_id"):
        if name in found:
            found[name] = _one_id(found[name])
    return found


def _one_id(value: Any) -> Any:
    """A token id that is given as itself or as a list of one."""
    if isinstance(value, list):
        return value[0] if len(value) == 1 else repr(value)
    return value
