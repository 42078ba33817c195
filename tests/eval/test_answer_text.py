"""Pieces of a growing answer: never half a character, and together the whole text."""

import itertools
import random

import pytest

from instruct.data.vocab import ByteVocabulary, load_vocabulary
from instruct.eval.answer_text import AnswerText
from tests.data.tokenizer_folders import write_folder

TEXTS = ("", "a", "naïve café", "日本語のテキスト 😀😀 ok", "one  two\nthree ", "don 't stop .")


def pieces(vocabulary, text: str, stops=(), step: int = 1) -> list[str]:
    ids, answer = vocabulary.encode(text), AnswerText(vocabulary, stops)
    told = []
    for count in range(step, len(ids), step):
        told.append(answer.extend(ids[:count], finished=False))
        if answer.stopped:
            return told
    return [*told, answer.extend(ids, finished=True)]


@pytest.mark.parametrize("name", ["bytes", "gym"])
@pytest.mark.parametrize("step", [1, 3])
def test_pieces_are_the_text(name, step):
    vocabulary = load_vocabulary(name)
    for text in TEXTS:
        told = pieces(vocabulary, text, step=step)
        assert "".join(told) == vocabulary.decode(vocabulary.encode(text))
        assert len(text) < 9 or len([piece for piece in told if piece]) > 1


class Cleaning(ByteVocabulary):
    """Removes the space before a point, as the tokenizers of some checkpoints do."""

    def decode(self, ids):
        return super().decode(ids).replace(" n't", "n't").replace(" .", ".")


def test_spaces_that_a_tokenizer_removes_later_are_not_told():
    assert "".join(pieces(Cleaning(), "I do n't know .")) == "I don't know."


@pytest.mark.parametrize("step", [1, 4, 100])
@pytest.mark.parametrize(
    ("stops", "expected"),
    [(("\n\n",), "Question: 3"), (("Answer", "\n"), "Question: 3"), (("7",), None), (("Q",), "")],
)
def test_the_answer_is_cut_before_the_first_stop(stops, expected, step):
    text = "Question: 3\n\nAnswer: 5"
    told = pieces(ByteVocabulary(), text, stops, step)
    assert "".join(told) == (text if expected is None else expected)


def test_a_stop_ends_the_answer_at_once():
    answer = AnswerText(ByteVocabulary(), ["END"])
    ids = ByteVocabulary().encode("some words END and more")
    assert answer.extend(ids[:13], finished=False) == "some wo"
    assert answer.extend(ids[:14], finished=False) == "rds " and answer.stopped


@pytest.mark.parametrize("name", ["bytes", "gym"])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_stop_with_characters_of_several_tokens_is_cut_whole(name, step):
    """Parts of a character are up to three signs, so the text of a prefix may be the longer one."""
    vocabulary = load_vocabulary(name)
    text = "😀😀 x 😀😀 y"
    for first, last in itertools.combinations(range(1, len(text) + 1), 2):
        stop = text[first:last]
        expected = text.partition(stop)[0]
        assert "".join(pieces(vocabulary, text, (stop,), step)) == expected


@pytest.fixture(scope="module", params=["llama2", "gemma", "llama3", "unigram"])
def folder_vocabulary(request, tmp_path_factory):
    """Kinds of tokenizers of Hugging Face folders; the first two write bytes of rare characters."""
    return load_vocabulary(str(write_folder(request.param, tmp_path_factory.mktemp("words"))))


@pytest.mark.parametrize("step", [1, 2, 3, 8])
def test_whole_characters_before_half_a_one_are_told_as_they_are(folder_vocabulary, step):
    """A run of byte tokens is decoded as a whole: half a character spoils all before it."""
    for text in ("😀😀 x 😀😀😀 y", "ok 😀😀😀", "a\n\n😀b 𝄞𝄞", "😀"):
        whole = folder_vocabulary.decode(folder_vocabulary.encode(text))
        assert "".join(pieces(folder_vocabulary, text, step=step)) == whole
        assert "".join(pieces(folder_vocabulary, text, (" y",), step)) == whole.partition(" y")[0]


def test_every_vocabulary_says_how_many_tokens_are_settled(folder_vocabulary):
    for vocabulary in (load_vocabulary("bytes"), load_vocabulary("gym"), folder_vocabulary):
        whole, half = vocabulary.encode("some words"), vocabulary.encode("some words 😀")
        assert vocabulary.settled(whole) == len(whole)
        assert len(whole) <= vocabulary.settled(half) <= len(half)


def test_bytes_that_are_no_text_are_told_as_they_are_decoded(folder_vocabulary):
    vocabulary, draws = folder_vocabulary, random.Random(0)
    for _ in range(300):
        ids = [draws.randrange(3, 300) for _ in range(12)]
        answer = AnswerText(vocabulary)
        told = [answer.extend(ids[:count], count == 12) for count in (1, 3, 4, 8, 10, 12)]
        assert "".join(told) == vocabulary.decode(ids)
