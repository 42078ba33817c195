"""Pieces of a growing answer: never half a character, and together the whole text."""

import pytest

from instruct.data.vocab import ByteVocabulary, load_vocabulary
from instruct.eval.answer_text import AnswerText

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
    assert answer.extend(ids[:13], finished=False) == "some word"
    assert answer.extend(ids[:14], finished=False) == "s " and answer.stopped
