"""A packed row reads as what the model gets."""

import numpy as np

from instruct import batch
from instruct.data.feed.packing import pack
from instruct.data.feed.preview import lost_examples, packed_row, target_faults
from instruct.data.spec import Leaf, Resolved
from instruct.data.vocab import ByteVocabulary, load_vocabulary

VOCABULARY = load_vocabulary("bytes")
LEAVES = tuple(Leaf(n, 0.5, n, "", "t", n, "c", "1", 1, (), None) for n in ("one", "two"))


def ids(text):
    return [*VOCABULARY.encode(text), 1]


def rows():
    return pack(
        [ids("2 + 2?"), ids("Say\nhi.")], [ids("4"), VOCABULARY.encode("hi")], [2, 1], 20, 8
    ).rows


def test_row_as_text():
    text = packed_row(rows(), 0, VOCABULARY, Resolved("mix", "train", LEAVES))
    assert text.splitlines() == [
        "row of 2 examples: encoder 15 of 20 tokens, decoder 4 of 8",
        "--- segment 1: two (7 -> 2 tokens, loss weight 2)",
        "inputs:",
        "    2 + 2?",
        "targets:",
        "    4",
        "--- segment 2: one (8 -> 2 tokens, loss weight 2, NO EOS)",
        "inputs:",
        "    Say",
        "    hi.",
        "targets:",
        "    hi",
    ]


def test_a_feed_that_does_not_tell_tasks():
    unknown = rows()
    unknown["decoder_task_ids"] = np.zeros_like(unknown["decoder_task_ids"])
    text = packed_row(unknown, 0, VOCABULARY, Resolved("mix", "train", LEAVES))
    assert "segment 1: task not known" in text


def test_targets_that_cannot_be_learned_are_counted():
    (endless,) = target_faults(rows(), VOCABULARY)
    assert endless.startswith("1 of 2 targets of the first batch have no end-of-sequence token")
    vocabulary = _Letters()
    targets = [[*vocabulary.encode(text), 1] for text in ("a{b", "ab", "{}")]
    (unknown,) = target_faults(pack([[5, 1]] * 3, targets, [1, 1, 1], 20, 20).rows, vocabulary)
    assert unknown.startswith("2 of 3 targets of the first batch hold characters")
    assert "(30.0% of their tokens are unknown), such as" in unknown
    assert not target_faults(pack([[5, 1]], [targets[1]], [1], 20, 20).rows, vocabulary)


class _Letters(ByteVocabulary):
    """Bytes, of which braces are unknown as in T5's vocabulary."""

    def encode(self, text):
        return [self.unk_id if sign in "{}" else ord(sign) + 3 for sign in text]


def test_a_run_says_that_many_examples_are_not_trained_on():
    lengths = {"inputs": 256, "targets": 48}
    counts = {"kept": 8520, "dropped": 7864, "dropped_reasons": {"targets too long": 7864}}
    text = lost_examples(counts, lengths)
    assert "7,864 of 16,384 examples" in text and "(targets too long: 7,864)" in text
    assert "'targets': 48" in text
    assert lost_examples({"kept": 8, "dropped": 2}, lengths) == lost_examples({}, lengths) == ""


def test_one_sequence_as_text():
    prompts = [[0, *ids("2 + 2?")], [0, *VOCABULARY.encode("Say\n")]]
    answers = [[*ids("4"), *VOCABULARY.encode("More?"), *ids("5")], ids("hi")]
    weights = [[1, 1, 0, 0, 0, 0, 0, 1, 1], None]
    packed = pack(
        prompts, answers, [2, 1], 20, 16, layout=batch.DECODER_ONLY, target_weights=weights
    )
    text = packed_row(packed.rows, 0, VOCABULARY, Resolved("mix", "train", LEAVES))
    assert text.splitlines() == [
        "row of 2 examples: decoder 23 of 36",
        "--- segment 1: two (8 -> 9 tokens, loss weight 4)",
        "inputs:",
        "    2 + 2?",
        "targets:",
        "    4",
        "    More?5",
        "--- segment 2: one (5 -> 3 tokens, loss weight 3)",
        "inputs:",
        "    Say",
        "    ",
        "targets:",
        "    hi",
    ]
    assert not target_faults(packed.rows, VOCABULARY)
