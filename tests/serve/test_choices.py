"""An answer and the objects that tell of it."""

import numpy as np

from instruct.data.vocab import ByteVocabulary
from instruct.eval.answer_text import AnswerText
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.decoding.online import Partial
from instruct.serve.choices import Choice, Reply, usage_of
from instruct.serve.request_body import Asked

ASKED = Asked(([5, 1],), 9, 1, (), None, stream=True, usage_at_end=False)


def new_choice() -> Choice:
    return Choice(0, 0, DecodeConfig(max_decode_steps=9), AnswerText(ByteVocabulary()))


def partial(text: str, ended: bool = False, end: bool = True) -> Partial:
    ids = [*ByteVocabulary().encode(text), *([1] if ended and end else [])]
    return Partial(0, np.array([ids]), ended)


def test_an_answer_grows_until_its_last_token():
    choice = new_choice()
    assert choice.extend(partial("abcde")) == "a" and choice.finish_reason is None
    assert choice.extend(partial("abcdefg", ended=True)) == "bcdefg"
    assert (choice.text, choice.finish_reason, choice.num_tokens) == ("abcdefg", "stop", 7)
    counts = {"prompt_tokens": 2, "completion_tokens": 7, "total_tokens": 9}
    assert usage_of(ASKED, [choice]) == counts


def test_an_answer_without_an_end_is_cut():
    choice = new_choice()
    assert choice.extend(partial("abc", ended=True, end=False)) == "abc"
    assert choice.finish_reason == "length"
    assert choice.extend(partial("abcdefgh")) == "", "nothing follows the end"


def test_objects_of_both_routes():
    choice = new_choice()
    choice.extend(partial("abc", ended=True))
    plain, chat = Reply("m", chat=False), Reply("m", chat=True)
    assert plain.whole([choice], {})["choices"][0]["text"] == "abc"
    assert chat.whole([choice], {})["choices"][0]["message"]["content"] == "abc"
    assert "role" in chat.piece(choice, "a", True)["choices"][0]["delta"]
    assert chat.piece(choice, "b", False)["choices"][0]["delta"] == {"content": "b"}
    assert plain.usage(usage_of(ASKED, [choice]))["usage"]["prompt_tokens"] == 2
