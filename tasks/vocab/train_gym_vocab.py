"""Trains `gym.model`, the SentencePiece vocabulary of the embedded collection.

    python -m tasks.vocab.train_gym_vocab [--output PATH]

Text: rendered prompts and answers of every task (train split only), and general English from our
own wordings and documentation and from the licence and metadata files of installed packages
(`importlib.metadata`: descriptions of packages under permissive licences). Unigram, byte fallback,
digits split, no normalisation: any text comes back exactly. Ids are T5's: 0 padding, 1 end,
2 unknown; the 100 sentinels are appended when the file is read.
"""

import argparse
import collections
import itertools
import unicodedata
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import sentencepiece

from instruct.data.vocab import load_vocabulary
from instruct.prompts.frame import Frame
from instruct.prompts.record import Record
from instruct.prompts.render import Rendered, render
from instruct.workspace import Workspace
from tasks.gym.family import template_set_of
from tasks.gym.source import GymSource
from tasks.gym.table import GENERATORS, Generator

VOCAB_SIZE = 6000
RECORDS_PER_TASK = 120
MIN_TEXTS_OF_SIGN = 30  # signs in fewer prompts (most emoji) are left to bytes
MAX_CHARS = 4000  # of one piece of text
_ROOT = Path(__file__).resolve().parents[2]
_PERMISSIVE = ("apache", "mit", "bsd", "psf", "python software foundation", "isc")
# Runs of blanks that grids and code are full of.
_BLANKS = tuple("\u2581" * length for length in (2, 3, 4, 8))


def rendered_texts(row: Generator) -> Iterator[str]:
    """Prompts and answers of one task in varying wordings."""
    wording = template_set_of(row)
    modes = ["zs_noopt", "zs_opt"] if wording.zs_opt else ["zs_noopt"]
    records = (
        r for r in GymSource(row.name).records(Workspace(), "train") if isinstance(r, Record)
    )
    for key, record in enumerate(itertools.islice(records, RECORDS_PER_TASK)):
        shown = render(
            record,
            wording,
            modes[key % len(modes)],
            key,
            frame=Frame(load_vocabulary("bytes")),
            max_inputs_tokens=1 << 20,
            max_targets_tokens=1 << 20,
        )
        if isinstance(shown, Rendered):
            yield shown.inputs
            yield shown.targets


def english_texts() -> Iterator[str]:
    """General English: our wordings and documents, and descriptions of installed packages."""
    for pattern in ("tasks/templates/*.toml", "docs/*.md", "*.md"):
        for file in sorted(_ROOT.glob(pattern)):
            yield from file.read_text(encoding="utf-8").split("\n\n")
    for package in sorted(metadata.distributions(), key=lambda found: found.name or ""):
        fields = package.metadata
        license_text = " ".join(
            [*fields.get_all("License", []), *fields.get_all("License-Expression", [])]
            + [line for line in fields.get_all("Classifier", []) if line.startswith("License")]
        )
        description = fields.json.get("description")  # the README of the package
        if any(word in license_text.lower() for word in _PERMISSIVE) and description:
            paragraphs = str(description)[:20_000].split("\n\n")
            yield from (text for text in paragraphs if text.isascii() and "http" not in text)


def frequent_signs(texts: Iterable[str]) -> str:
    """The signs outside ASCII that puzzles are drawn with (arrows, frames, crosses)."""
    counts = collections.Counter(sign for text in texts for sign in set(text))
    kept = (s for s, count in counts.items() if count >= MIN_TEXTS_OF_SIGN and not s.isascii())
    # Variation selectors carry the hidden text of emoji_mystery, one of 240 for each byte.
    return "".join(sorted(s for s in kept if unicodedata.category(s) != "Mn"))


def train(output: Path) -> None:
    """Trains on all texts and writes the model file."""
    texts = [text for row in GENERATORS.values() for text in rendered_texts(row)]
    signs = frequent_signs(texts)
    texts += english_texts()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(text[:MAX_CHARS] for text in texts if text.strip()),
        model_prefix=str(output.with_suffix("")),
        model_type="unigram",
        vocab_size=VOCAB_SIZE,
        character_coverage=0.9995,
        required_chars=signs,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=True,
        user_defined_symbols=["\n", *_BLANKS],
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        max_sentence_length=4 * MAX_CHARS,
        num_threads=1,
        hard_vocab_limit=True,
        train_extremely_large_corpus=False,
    )
    output.with_suffix(".vocab").unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the vocabulary of the embedded collection.")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("gym.model"))
    train(parser.parse_args().output)


if __name__ == "__main__":
    main()
