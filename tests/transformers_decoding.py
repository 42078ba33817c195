"""Decoding by a model and by the same model of transformers, in the same form."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from instruct.eval.decoding.batching import BatchConfig, Decoder
from instruct.eval.decoding.decode import DecodeConfig
from instruct.model_interface import Model

NEW_TOKENS = 9


def tokens_of_both(
    model: Model,
    params: Any,
    reference: Any,
    prompts: Sequence[Sequence[int]],
    beams: int,
    max_shapes: int,
    **settings: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """New tokens [prompts, NEW_TOKENS] of ours, in two slots that are refilled, and of theirs.

    Args:
        reference: transformers' model with the same weights.
        beams: 1 for greedy.
        settings: more of `reference.generate`.
    """
    import torch

    beam = {"strategy": "beam", "num_beams": beams, "length_penalty": 1.0}
    beam |= {"beam_rules": "transformers"}
    strategy = DecodeConfig(max_decode_steps=NEW_TOKENS, eos_id=1, **(beam if beams > 1 else {}))
    decoder = Decoder(model, strategy, BatchConfig(2, max_shapes))
    found = decoder.generate(params, prompts).tokens[:, 0]
    expected = np.zeros_like(found)
    for row, prompt in zip(expected, prompts):
        answer = reference.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            num_beams=beams,
            **settings,
        )[0]
        # An encoder-decoder's begins with its start token, a decoder's with the prompt.
        before = 1 if reference.config.is_encoder_decoder else len(prompt)
        row[: len(answer) - before] = answer[before:].numpy()
    return found, expected
