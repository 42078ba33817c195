"""Conversations: rejected rows, plain text, and the tokens that are trained on."""

import pytest

from instruct.data.vocab import load_vocabulary
from instruct.prompts.chat_template import ChatTemplate
from instruct.prompts.frame import Frame
from instruct.prompts.messages import TEMPLATES, conversation, render_turns
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped, Rendered, render

BYTES = load_vocabulary("bytes")
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Name a stone."},
    {"role": "assistant", "content": "Opal."},
    {"role": "user", "content": "Another?"},
    {"role": "assistant", "content": "Jet."},
]
PARTS = ("System: Be brief.\nUser: Name a stone.\nAssistant:", "\nUser: Another?\nAssistant:")


TURNS = ChatTemplate(
    "{% for m in messages %}[{{ m.role[0] }}]{{ m.content }};{% endfor %}"
    "{% if add_generation_prompt %}[a]{% endif %}"
)
PLAIN = Frame(BYTES, (0,), one_sequence=True)
CHAT = Frame(BYTES, (2,), chat=TURNS, one_sequence=True)


def ids(text, *more):
    return [*BYTES.encode(text), *more]


def record(messages=MESSAGES):
    made = conversation(messages, "r")
    assert isinstance(made, Record)
    return made


def rendered(frame, every, lengths=(200, 60), messages=MESSAGES):
    shown = render_turns(record(messages), frame, lengths, every)
    assert isinstance(shown, Rendered)
    return shown


def test_a_conversation_is_a_record_of_its_last_answer():
    made = record([*MESSAGES, {"role": "user", "content": "Thanks."}])
    assert made.answer == "Jet." and made.metadata["messages"] == MESSAGES
    assert made.fields["conversation"] == f"{PARTS[0]} Opal.{PARTS[1]}"
    assert Record.from_json(made.to_json()) == made
    limits = {"max_inputs_tokens": 200, "max_targets_tokens": 9}
    shown = render(made, TEMPLATES, "zs_noopt", 1, frame=Frame(BYTES), **limits)
    assert isinstance(shown, Rendered)
    assert (shown.inputs, shown.targets) == (made.fields["conversation"], "Jet.")


def test_every_assistant_turn_is_trained_on_and_nothing_else():
    shown = rendered(PLAIN, every=True)
    assert shown.input_ids == [0, *ids(PARTS[0], 1)]
    pieces = [(ids("Opal.", 1), 1), (ids(PARTS[1], 1), 0), (ids("Jet.", 1), 1)]
    assert shown.target_ids == [token for piece, _ in pieces for token in piece]
    assert shown.target_weights == [weight for piece, weight in pieces for _ in piece]


def test_evaluation_asks_for_the_last_turn_in_the_tokens_of_training():
    every, last = rendered(PLAIN, every=True), rendered(PLAIN, every=False)
    assert last.target_ids == ids("Jet.", 1) and last.target_weights == [1] * 5
    both = [*every.input_ids, *every.target_ids]
    assert [*last.input_ids, *last.target_ids] == both


def test_a_chat_template_writes_the_turns():
    shown = rendered(CHAT, every=True)
    assert shown.input_ids == [2, *ids("[s]Be brief.;[u]Name a stone.;[a]")]
    # ";" is no token that ends an answer, so EOS follows it.
    assert shown.target_ids == [*ids("Opal.;", 1), *ids("[u]Another?;[a]"), *ids("Jet.;", 1)]
    trained = [t for t, weight in zip(shown.target_ids, shown.target_weights or ()) if weight]
    assert trained == [*ids("Opal.;", 1), *ids("Jet.;", 1)]
    single = conversation(MESSAGES[1:3], "r")
    assert isinstance(single, Record)
    turn = render_turns(single, CHAT, (200, 60), False)
    assert isinstance(turn, Rendered)
    assert turn.input_ids[:-3] + ids("[a]") == [2, *ids("[u]Name a stone.;"), *ids("[a]")]
    assert turn.target_ids == CHAT.answer("Opal.")
    assert CHAT.prompt("Hi") == [2, *ids("[u]Hi;[a]")] and CHAT.answer("") == []


@pytest.mark.parametrize("frame", [PLAIN, CHAT])
def test_a_long_conversation_loses_its_last_turns(frame):
    whole = rendered(frame, every=True)
    size = len(whole.input_ids) + len(whole.target_ids)
    assert rendered(frame, True, (size - 9, 9)) == whole and not whole.truncated
    shorter = rendered(frame, True, (size - 10, 9))
    assert shorter.truncated and set(shorter.target_weights or ()) == {1}
    assert (shorter.input_ids, shorter.target_ids) == (whole.input_ids, frame.answer("Opal."))
    assert render_turns(record(), frame, (20, 9), True) == Dropped("conversation too long")
    assert render_turns(record(), frame, (40, 9), False) == Dropped("inputs too long")
    assert render_turns(record(), frame, (200, 4), False) == Dropped("targets too long")


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ("Hi", "messages are not a list of objects"),
        (["Hi"], "messages are not a list of objects"),
        ([{"role": "user", "content": [{"text": "Hi"}]}], "a message's content is not text"),
        ([{"role": "tool", "content": "5"}], "a message's role is none of system, user, assistant"),
        ([], "no assistant turn"),
        (MESSAGES[:2], "no assistant turn"),
        ([*MESSAGES[:2], {"role": "assistant", "content": " "}], "empty answer"),
        ([{"role": "user", "content": ""}, MESSAGES[2]], "empty question"),
    ],
)
def test_rejected_rows(messages, reason):
    assert conversation(messages, "r") == Dropped(reason)
