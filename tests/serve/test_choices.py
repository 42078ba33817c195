"""An answer and the objects that tell of it."""

import numpy as np

from instruct.data.vocab import ByteVocabulary
from instruct.eval.answer_text import AnswerText
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.decoding.online import Partial
from instruct.serve.choices import Choice, Reply, usage_of
from instruct.serve.request_body import Asked


def choice_of(max_tokens: int, config: DecodeConfig, stops=()) -> tuple[Choice, Asked]:
    asked = Asked(([5, 1],), max_tokens, 1, stops, None, stream=True, usage_at_end=False)
    return Choice(0, 0, asked, config, AnswerText(ByteVocabulary(), stops)), asked


def partial(text: str, ended: bool = False) -> Partial:
    ids = [*ByteVocabulary().encode(text), *([1] if ended else [])]
    return Partial(0, np.array([ids]), np.zeros(1), ended)


def test_an_answer_grows_until_its_last_token():
    config = DecodeConfig(max_decode_steps=9)
    choice, asked = choice_of(9, config)
    assert choice.extend(partial("abcde")) == "a" and choice.finish_reason is None
    assert choice.extend(partial("abcdefg", ended=True)) == "bcdefg"
    assert (choice.text, choice.finish_reason, choice.num_tokens) == ("abcdefg", "stop", 7)
    assert usage_of(asked, [choice]) == {
        "prompt_tokens": 2,
        "completion_tokens": 7,
        "total_tokens": 9,
    }


def test_an_answer_of_the_most_tokens_is_cut():
    choice, _ = choice_of(3, DecodeConfig(max_decode_steps=9))
    assert choice.extend(partial("abcd")) == "abc" and choice.finish_reason == "length"
    assert choice.extend(partial("abcdefgh")) == "", "nothing follows the end"


def test_objects_of_both_routes():
    choice, asked = choice_of(9, DecodeConfig(max_decode_steps=9))
    choice.extend(partial("abc", ended=True))
    plain, chat = Reply("m", chat=False), Reply("m", chat=True)
    assert plain.whole([choice], {})["choices"][0]["text"] == "abc"
    assert chat.whole([choice], {})["choices"][0]["message"]["content"] == "abc"
    assert "role" in chat.piece(choice, "a", True)["choices"][0]["delta"]
    assert chat.piece(choice, "b", False)["choices"][0]["delta"] == {"content": "b"}
    assert plain.usage(usage_of(asked, [choice]))["usage"]["prompt_tokens"] == 2
