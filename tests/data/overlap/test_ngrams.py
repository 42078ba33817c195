"""n-grams: the normal form of text, and hashes that equal a plain reading of the definition."""

import hashlib

import numpy as np
import pytest

from instruct.data.overlap.ngrams import (
    hash_texts,
    ngram_hashes,
    record_words,
    whole_hashes,
    words,
)
from instruct.prompts.record import Record


def record(*texts, answer="yes"):
    return Record("r", {f"field{n}": text for n, text in enumerate(texts)}, answer)


def hashes(records, n):
    """(row, n-gram, whole text) hashes of records."""
    texts = hash_texts([record_words(item) for item in records])
    return *ngram_hashes(texts, n), whole_hashes(texts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's 1,000 metres – Élan!", "it s 1 000 metres élan"),
        ("snake_case  (TWO)\tlines\nhere", "snake case two lines here"),
        ("E\u0301lan ﬁne", "élan fine"),  # a combining accent and a ligature
        ("हिन्दी में लिखा", "हिन्दी में लिखा"),  # vowel signs keep words whole
        ("日本 is ひ", "日 本 is ひ"),
        ("... !", ""),
    ],
)
def test_words(text, expected):
    assert words(text) == expected.split()


def test_neither_field_names_nor_their_order_matter():
    one = Record("1", {"premise": "a longer text here", "hypothesis": "short one"}, "No")
    two = Record("2", {"a": "Short one.", "b": "A longer text, here!"}, "no")
    assert record_words(one) == record_words(two)
    assert " ".join(record_words(one)) == "a longer text here short one no"


def test_hashes_are_those_of_the_n_grams():
    """Equal hashes exactly where a plain listing of n-grams has equal tuples."""
    draw = np.random.default_rng(0)
    records = [
        record(" ".join(draw.choice(list("abcd"), size=size)), answer="e")
        for size in (0, 1, 2, 3, 5, 9, 30, 0, 4)
    ]
    n = 4
    rows, grams, texts = hashes(records, n)
    meaning = {}
    for row, item in enumerate(records):
        listed = record_words(item)
        expected = {tuple(listed[i : i + n]) for i in range(len(listed) - n + 1)}
        expected = expected or {("whole", *listed)}
        found = grams[rows == row]
        assert len(set(found.tolist())) == found.size == len(expected)
        for tuple_ in expected:
            meaning.setdefault(tuple_, []).append(set(found.tolist()))
    for tuple_, sets in meaning.items():
        assert set.intersection(*sets), tuple_
    assert len(set(grams.tolist())) == len(meaning)
    assert len(set(texts.tolist())) == len({tuple(record_words(item)) for item in records})


def test_the_same_in_another_batch_and_another_process():
    records = [record("one two three four five"), record("six")]
    together = hashes(records, 3)[1]
    apart = [hashes([item], 3)[1] for item in records]
    np.testing.assert_array_equal(together, np.concatenate(apart))

    # By the definition, in integers, which no process can change.
    def word(name):
        return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")

    value = (word("six") + word("yes") * 0xD1342543DE82EF95 + 2) % 2**64
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) % 2**64
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) % 2**64
    assert hashes([records[1]], 3)[2].tolist() == [value ^ value >> 31]


def test_a_record_without_words_has_no_n_gram():
    rows, grams, texts = hashes([record("?!", answer="!"), record("a b")], 2)
    assert set(rows.tolist()) == {1} and grams.size == 2 and texts.size == 2
