"""A run as a Hugging Face folder, which transformers loads; both give the same tokens.

    python examples/load_in_transformers.py [MODEL_DIR [FOLDER]]   # runs/example by default

Needs `pip install transformers torch`.
"""

import pathlib
import sys

import instruct

PROMPT = "Oslo: drizzle at night.\n\nIs the day wet or dry?"


def main(
    model_dir: str | pathlib.Path = "runs/example",
    folder: str | pathlib.Path = "runs/example_huggingface",
) -> None:
    """Converts the newest checkpoint, and generates with both libraries."""
    import torch
    import transformers

    instruct.convert_checkpoint(model_dir, folder, "huggingface")
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    ours = instruct.load_model(model_dir)
    vocabulary = ours.loaded.vocabulary
    prompt = ours.loaded.encoder.frame.prompt(PROMPT)  # token ids with EOS
    ids = theirs.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)[0]
    texts = (vocabulary.decode(ids[1:].tolist()), ours.generate([PROMPT], None, 8)[0].text)
    print("transformers: {!r}\ninstruct:     {!r}".format(*texts))
    assert texts[0] == texts[1]


if __name__ == "__main__":
    main(*sys.argv[1:])
