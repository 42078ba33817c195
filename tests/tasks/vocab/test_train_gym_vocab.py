"""What the committed vocabulary is trained on."""

import itertools

from tasks.gym.table import GENERATORS
from tasks.vocab.train_gym_vocab import (
    MIN_TEXTS_OF_SIGN,
    english_texts,
    frequent_signs,
    rendered_texts,
)


def test_texts_are_prompts_and_answers_in_turn():
    texts = list(itertools.islice(rendered_texts(GENERATORS["easy_sums"]), 6))
    assert len(texts) == 6 and all("+" in t or "-" in t for t in texts[::2])
    assert all(text.lstrip("-").isdigit() for text in texts[1::2])


def test_english_comes_from_our_own_wordings_first():
    assert any("{question}" in text for text in itertools.islice(english_texts(), 50))


def test_only_frequent_signs_outside_ascii_are_required():
    texts = ["→ a"] * MIN_TEXTS_OF_SIGN + ["漢"]
    assert frequent_signs(texts) == "→"
