"""What surrounds a prompt and its answer in token sequences."""

import dataclasses
from array import array

import pytest

from instruct.data.vocab import load_vocabulary
from instruct.prompts.chat_template import ChatTemplate
from instruct.prompts.frame import Frame

BYTES = load_vocabulary("bytes")


@pytest.mark.parametrize(
    ("frame", "prompt", "empty"),
    [
        (Frame(BYTES), [100, 1], [1]),
        (Frame(BYTES, (2,)), [2, 100, 1], [2, 1]),
        (Frame(BYTES, (), "\n", None, True), [100, 13], [13]),
        (Frame(BYTES, (2,), "", None, True), [2, 100], [2]),
        (Frame(BYTES, (), "", None, True), [100], [1]),
        (Frame(BYTES, (), ""), [100], []),
    ],
)
def test_a_prompt_has_a_start_and_a_separator(frame, prompt, empty):
    assert frame.prompt("a") == prompt
    assert frame.prompt("") == empty
    assert frame.answer("b") == [101, 1] and frame.answer("") == []
    arrays = dataclasses.replace(frame, arrays=True)
    assert [*arrays.prompt("a")] == prompt and isinstance(arrays.prompt("a"), array)
    assert [*arrays.prompt("")] == empty
    assert [*arrays.answer("b")] == [101, 1] and not arrays.answer("")


def test_a_prompt_that_is_cut_keeps_what_follows_it():
    text = "naïve words"
    for frame, end in ((Frame(BYTES, (2,)), [1]), (Frame(BYTES, (), "\n"), [13])):
        ids = frame.cut_prompt(text, 6)
        assert len(ids) == 6 and ids[-1:] == end and ids[:5] == frame.prompt(text)[:5]
        assert frame.cut_prompt(text, 100) == [*frame.prompt(text), *end]
    chat = ChatTemplate("{% for message in messages %}[u]{{ message.content }}[a]{% endfor %}")
    frame = Frame(BYTES, (2,), chat=chat)
    for length in (8, 9, 12, 18):
        ids = frame.cut_prompt(text, length)
        shown = BYTES.decode(ids[1:])
        assert length - 1 <= len(ids) <= length and shown.startswith("[u]na"[: len(shown) - 3])
        assert shown.endswith("[a]") and text.startswith(shown[3:-3])


def test_blanks_after_the_end_of_a_turn_are_no_answer():
    chat = ChatTemplate(
        "{% for m in messages %}{% if m.role == 'user' %}[{{ m.content }}]{% else %}"
        "{% generation %}{{ m.content }};\n{% endgeneration %}{% endif %}{% endfor %}"
    )
    frame = Frame(BYTES, chat=chat)
    talk = [{"role": role, "content": role[0]} for role in ("user", "assistant") * 2]
    expected = [("[u]", "a;"), ("\n[u]", "a;")]
    ids = [(BYTES.encode(before), [*BYTES.encode(answer), 1]) for before, answer in expected]
    assert frame.turns(talk) == ids and frame.answer("a") == ids[0][1]
