"""The committed vocabulary: layout, exact round trip, the same ids as SeqIO's class."""

import itertools

import pytest
import sentencepiece
import seqio

from instruct.data.vocab import GYM_MODEL, load_vocabulary
from instruct.prompts.record import Record
from tasks.gym.source import GymSource
from tasks.gym.table import MAIN

TEXTS = [
    "What is 3 + 4?",
    "1 2 3\n4 5 6\n\n7 8 9\n",
    "two  blanks, three   blanks,     five",
    "  leading and trailing  ",
    "\tif x:\r\n\t\treturn {}\n",
    "Zoë → ✅❌ ∫ 2**x °",
    "💔\U000e0136\U000e0155 漢字",
    "'quotes' \"and\" `ticks`",
    "\n",
    "0" * 40,
]


@pytest.fixture(scope="module")
def vocabulary():
    return load_vocabulary("gym")


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back_exactly(vocabulary, text):
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text
    assert vocabulary.unk_id not in ids


def test_layout_is_that_of_t5(vocabulary):
    processor = sentencepiece.SentencePieceProcessor(model_file=str(GYM_MODEL))
    assert (processor.pad_id(), processor.eos_id(), processor.unk_id()) == (0, 1, 2)
    assert processor.bos_id() == -1
    assert vocabulary.vocab_size == processor.GetPieceSize() + 100
    assert 4000 <= processor.GetPieceSize() <= 8000
    assert GYM_MODEL.stat().st_size < 400_000


def test_digits_and_newlines_stand_alone():
    processor = sentencepiece.SentencePieceProcessor(model_file=str(GYM_MODEL))
    pieces = [processor.IdToPiece(i) for i in range(processor.GetPieceSize())]
    assert [piece for piece in pieces if "\n" in piece] == ["\n"]
    assert {p for p in pieces if any(c.isdigit() for c in p) and not p.startswith("<0x")} == set(
        "0123456789"
    )
    assert processor.EncodeAsPieces("a\n\n12") == ["▁a", "\n", "\n", "1", "2"]


def test_seqio_gives_the_same_ids(vocabulary):
    other = seqio.SentencePieceVocabulary(str(GYM_MODEL), extra_ids=100)
    assert other.vocab_size == vocabulary.vocab_size
    for text in TEXTS:
        assert list(other.encode(text)) == list(vocabulary.encode(text))


def test_prompts_and_answers_come_back_exactly(vocabulary):
    names = sorted(MAIN)[::4]
    for name in names:
        records = (r for r in GymSource(name).candidates("train") if isinstance(r, Record))
        for record in itertools.islice(records, 1):
            for text in (record.fields["question"], record.answer):
                assert vocabulary.decode(vocabulary.encode(text)) == text
