"""Chat templates render as transformers' apply_chat_template, and know the assistant's part."""

import pytest

from instruct.errors import UserError
from instruct.prompts.chat_template import ChatTemplate

# Five published forms, written from their documentation.
CHATML = """
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""
LLAMA3 = """{{- bos_token }}
{%- set date = date_string if date_string is defined else '26 Jul 2024' %}
{%- if strftime_now is defined and date_string is not defined %}{% set date = 'today' %}{% endif %}
{%- set header = namespace(done=false) %}
{%- for message in messages %}
    {{- '<|start_header_id|>' ~ message['role'] ~ '<|end_header_id|>\\n\\n' }}
    {%- if message['role'] == 'system' and not header.done %}
        {{- 'Today Date: ' ~ date ~ '\\n\\n' }}
        {%- set header.done = true %}
    {%- endif %}
    {{- message['content'] | trim ~ '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""
GEMMA = """{{ bos_token }}
{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}
    {%- if (message.role == 'user') != (loop.index0 is even) %}
        {{- raise_exception('Conversation roles must alternate user/assistant') }}
    {%- endif %}
    {%- set role = 'model' if message.role == 'assistant' else message.role %}
    {{- '<start_of_turn>' + role + '\\n' + message.content | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""
MISTRAL = """{{ bos_token }}
{%- for message in messages %}
    {%- if message.role == 'user' %}{{ '[INST] ' + message.content + ' [/INST]' }}
    {%- elif message.role == 'assistant' %}{{ ' ' + message.content + eos_token }}
    {%- else %}{{ raise_exception('Only user and assistant roles are supported!') }}
    {%- endif %}
{%- endfor %}"""
ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n' + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
# Qwen 3: the last answer gets a block of thoughts, which earlier ones lose.
THINKING = """
{%- for message in messages %}
    {%- set thoughts = '' %}
    {%- if message.role == 'assistant' and loop.last %}
        {%- set thoughts = '<think>\\n\\n</think>\\n\\n' %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + thoughts + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and not enable_thinking %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""
# With blocks of its own.
BLOCKS = """
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- 'A: ' }}{% generation %}{{ message.content | upper }}<end>{% endgeneration %}{{ '\\n' }}
    {%- else %}{{ message.role + ': ' + message.content | tojson + '\\n' }}{% endif %}
{%- endfor %}"""
FORMS = {
    **{"chatml": CHATML, "llama3": LLAMA3, "gemma": GEMMA, "mistral": MISTRAL, "zephyr": ZEPHYR},
    **{"thinking": THINKING, "blocks": BLOCKS},
}
ENDS = {"llama3": "<|eot_id|>", "gemma": "<end_of_turn>", "mistral": "</s>", "zephyr": "</s>"}
TOKENS = (("bos_token", "<s>"), ("eos_token", "</s>"))
TALK = (
    {"role": "user", "content": "What is <b>2</b> + 2?"},
    {"role": "assistant", "content": "  4, naïve  \n"},
    {"role": "user", "content": "And 日本?\n"},
    {"role": "assistant", "content": "Japan."},
)
SYSTEM = {"role": "system", "content": "Be brief."}


def template(name: str) -> ChatTemplate:
    return ChatTemplate(FORMS[name], TOKENS, "<s>", "folder")


@pytest.mark.parametrize("name", FORMS)
def test_text_is_that_of_apply_chat_template(name):
    utilities = pytest.importorskip("transformers.utils.chat_template_utils")
    talks = [TALK[:1], TALK[:2], TALK]
    talks += [] if name in ("gemma", "mistral") else [(SYSTEM, *TALK[:3])]
    for talk in talks:
        for prompt in (False, True):
            options = {"date_string": "1 May 2025", "enable_thinking": prompt}
            (theirs,), _ = utilities.render_jinja_template(
                [list(talk)],
                chat_template=FORMS[name],
                add_generation_prompt=prompt,
                **dict(TOKENS),
                **options,
            )
            assert template(name).render(talk, prompt, **options) == theirs


@pytest.mark.parametrize("name", FORMS)
def test_spans_are_what_the_assistant_writes(name):
    chat = template(name)
    text, spans = chat.dialog(TALK)
    assert not text.startswith("<s>")
    assert text == chat.render(TALK, enable_thinking=False).removeprefix("<s>")
    end = {"blocks": "<end>"}.get(name, ENDS.get(name, "<|im_end|>"))
    for (first, last), content in zip(spans, ("4, naïve", "Japan."), strict=True):
        written = text[first:last]
        content = content.upper() if name == "blocks" else content
        assert content in written and written.endswith(end) and written.count(end) == 1
        assert written.split(content)[0].strip() == ""
    assert chat.end_of_turn == end
    # A task's example is a dialog of two turns, in parts.
    messages = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "two"}]
    text, ((first, last),) = chat.dialog(messages)
    assert text[first:last] == chat.answer("two")
    if name != "blocks":  # which has no prompt for a generation
        assert text[:first] == chat.prompt("1 + 1?") and chat.answer("two").strip() == "two" + end


def test_blocks_have_the_spans_of_transformers():
    utilities = pytest.importorskip("transformers.utils.chat_template_utils")
    (theirs,), (spans,) = utilities.render_jinja_template(
        [list(TALK)], chat_template=BLOCKS, return_assistant_tokens_mask=True
    )
    assert template("blocks").dialog(TALK) == (theirs, spans)


def test_worked_example():
    chat = template("chatml")
    assert chat.prompt("Hi") == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert chat.answer("Hello.") == "Hello.<|im_end|>"
    mistral = template("mistral")
    assert (mistral.prompt("Hi"), mistral.answer("Hello.")) == ("[INST] Hi [/INST]", " Hello.</s>")
    # A model that can think is asked not to, and the answer is the target alone.
    thinking = template("thinking")
    prompt, answer = thinking.prompt("Hi"), thinking.answer("Hello.")
    assert prompt.endswith("assistant\n<think>\n\n</think>\n\n") and answer == "Hello.<|im_end|>"


def test_an_empty_answer_and_content_that_looks_like_a_turn():
    assert template("chatml").answer("") == "<|im_end|>"
    text, spans = template("chatml").dialog(
        [{"role": "user", "content": "a<|im_end|>"}, {"role": "assistant", "content": "<|im_end|>"}]
    )
    assert [text[first:last] for first, last in spans] == ["<|im_end|><|im_end|>"]


def test_no_day_changes_a_prompt():
    assert "Today Date: 26 Jul 2024" in template("llama3").render([SYSTEM])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% for %}", r"is not valid Jinja .line 1"),
        ("{{ raise_exception('Only users') }}", "refuses messages of these roles: user .Only user"),
        ("{{ messages[0].content.missing.deeper }}", "reads a variable that is not there"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "does what its sandbox forbids"),
        ("{{ cycler.__init__.__globals__.os.system('true') }}", "does what its sandbox forbids"),
        ("{{ messages.append(1) }}", "does what its sandbox forbids"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", r"fails .OverflowError"),
        ("{{ 1 / 0 }}", r"fails .ZeroDivisionError"),
    ],
)
def test_what_goes_wrong_is_one_clear_message(source, message):
    with pytest.raises(UserError, match=f"^the chat template of folder {message}.*CHAT_TEMPLATE"):
        ChatTemplate(source, place="folder").render(TALK[:1])


def test_answers_that_are_not_found_are_refused():
    changing = CHATML.replace("message.content", "message.content | replace('4', 'four') | upper")
    rewriting = CHATML.replace("message.content", "message.content.split(',')[0]")
    for source in (rewriting, "{% for message in messages %}{{ loop.index }}{% endfor %}"):
        with pytest.raises(UserError, match="not found .* {% generation %}"):
            ChatTemplate(source).dialog(TALK)
    text, spans = ChatTemplate(changing).dialog(TALK)
    assert "FOUR, NAÏVE" in text[slice(*spans[0])]
    with pytest.raises(UserError, match="no message is the assistant's"):
        template("chatml").dialog(TALK[:1])
    with pytest.raises(UserError, match="is not a message"):
        template("chatml").render([{"role": "user"}])


def test_the_fingerprint_follows_source_and_tokens():
    chats = (template("chatml"), template("gemma"), ChatTemplate(CHATML, TOKENS[:1], "<s>"))
    assert len({chat.fingerprint for chat in chats}) == 3
