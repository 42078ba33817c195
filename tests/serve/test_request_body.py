"""What a body asks for; refusals are tested over the socket (test_app.py)."""

import pytest

from instruct.data.vocab import ByteVocabulary
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.loaded_model import PromptEncoder
from instruct.prompts.chat_template import ChatTemplate
from instruct.prompts.frame import Frame
from instruct.serve.request_body import Asked, Refusal, read_chat, read_completion

ENCODER = PromptEncoder(Frame(ByteVocabulary()), 64)


def asked(config: DecodeConfig = DecodeConfig(max_decode_steps=20), **fields) -> Asked:  # noqa: B008
    return read_completion(fields, "m", config, ENCODER, 4)


def test_what_is_left_out_is_the_servers():
    expected = Asked(([100, 1],), 20, 1, (), None, stream=False, usage_at_end=False)
    assert asked(prompt="a") == expected
    same = {"max_tokens": None, "temperature": 0.0, "top_p": 1.0, "n": 1, "stop": [], "user": "me"}
    assert asked(prompt=["a"], model="m", **same) == expected


def test_what_may_be_asked_for():
    sample = DecodeConfig("sample", 20, temperature=0.5, num_samples=3)
    fields = {"n": 3, "seed": 5, "stop": "x", "stream": True, "max_tokens": 7, "temperature": 0.5}
    found = asked(sample, prompt="a", stream_options={"include_usage": True}, **fields)
    assert found == Asked(([100, 1],), 7, 3, ("x",), 5, stream=True, usage_at_end=True)


def test_a_refused_temperature_names_one_that_is_taken():
    config = DecodeConfig("sample", 20, temperature=0.12345678, top_p=0.98765432)
    for name, value in (("temperature", 0.12345678), ("top_p", 0.98765432)):
        with pytest.raises(Refusal, match=f"give {value} or leave it out"):
            asked(config, prompt="Why?", **{name: 0.5})
        asked(config, prompt="Why?", **{name: value})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('no tools') }}", "chat template refuses messages (no tools)."),
        ("{{ 1 / 0 }}", "the chat template fails on `{}`; the server's log says why."),
    ],
)
def test_a_prompt_that_the_chat_template_refuses_is_a_bad_request(source, message, caplog):
    """Clients are not told where the server's files are, nor how to train."""
    chat = ChatTemplate(source, place="/home/me/model")
    encoder = PromptEncoder(Frame(ByteVocabulary(), chat=chat), 64)
    with pytest.raises(Refusal) as refused:
        read_completion({"prompt": "a"}, "m", DecodeConfig(), encoder, 4)
    assert refused.value.status == 400 and refused.value.param == "prompt"
    assert str(refused.value) == message.format("prompt")
    with pytest.raises(Refusal) as refused:
        read_chat({"messages": [{"role": "user", "content": "a"}]}, "m", DecodeConfig(), encoder)
    assert refused.value.status == 400 and refused.value.param == "messages"
    assert str(refused.value) == message.format("messages")
    assert ("/home/me/model" in caplog.text) == ("log" in message)


CHAT = ChatTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}")


def asked_with(content) -> Asked:
    encoder = PromptEncoder(Frame(ByteVocabulary(), chat=CHAT), 64)
    return read_chat(
        {"messages": [{"role": "user", "content": content}]}, "m", DecodeConfig(), encoder
    )


def test_parts_of_text_are_the_lines_of_a_message():
    parts = [{"type": "text", "text": "Hello"}, {"type": "text", "text": "you", "annotations": []}]
    assert asked_with(parts) == asked_with("Hello\nyou") != asked_with("Helloyou")
    assert asked_with(parts[:1]) == asked_with("Hello")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "must be text, or a list of parts of type 'text'"),
        ({"type": "text", "text": "a"}, "must be text, or a list of parts"),
        (None, "must be text, or a list of parts"),
        (["a"], "must be an object with a `type`"),
        ([{"text": "a"}], "must be an object with a `type`"),
        (
            [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}],
            "has type 'image_url'; the model reads 'text' only",
        ),
        ([{"type": "text"}], "needs a `text`"),
        ([{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}], "cache_control"),
        ([{"type": "text", "text": "\ud800"}], "half of a surrogate pair"),
    ],
)
def test_other_parts_are_refused_by_name(content, message):
    with pytest.raises(Refusal) as refused:
        asked_with(content)
    assert refused.value.status == 400 and refused.value.param == "messages"
    assert message in str(refused.value)
