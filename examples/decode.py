"""Decoding in Python: greedy, beams, samples, and the log-likelihoods of given answers.

    python examples/decode.py [CHECKPOINT]               # runs/example of own_task.py by default

CHECKPOINT may be a run, a Hugging Face folder such as ~/flan-t5-small, T5X's, or PEFT's adapters.
"""

import pathlib
import sys

import instruct

PROMPTS = ["Oslo: drizzle at night.\n\nIs the day wet or dry?", "Lima: fog at dawn.\n\nWet or dry?"]


def main(checkpoint: str | pathlib.Path = "runs/example") -> None:
    """Prints answers of each strategy."""
    model = instruct.load_model(checkpoint)
    strategies = {
        "greedy": instruct.DecodeConfig(max_decode_steps=8),
        "beams": instruct.DecodeConfig(strategy="beam", num_beams=3, max_decode_steps=8),
        "samples": instruct.DecodeConfig(
            strategy="sample", temperature=0.7, num_samples=3, seed=1, max_decode_steps=8
        ),
    }
    for name, decode in strategies.items():
        for prompt, answer in zip(PROMPTS, model.generate(PROMPTS, decode)):
            print(f"{name}: {prompt!r} -> {answer.texts} ({answer.score:.2f})")
    for prompt, ranking in zip(PROMPTS, model.score(PROMPTS, [["wet", "dry"]] * len(PROMPTS))):
        wet, dry = ranking.log_likelihoods
        print(f"{prompt!r}: log-likelihood of wet {wet:.2f}, of dry {dry:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
