"""Conversations: lists of {"role": "system" | "user" | "assistant", "content": text}.

A conversation is a record whose answer is its last assistant turn: its field `conversation` has
everything before as plain text, its metadata the messages. `TEMPLATES` shows the field as it is.

    User: Name a stone.
    Assistant: Opal.
    User: Another?
    Assistant:

A decoder-only model is trained on every assistant turn of a conversation in one sequence, each with
its end of turn; it is evaluated on the last one.
"""

import itertools
from collections.abc import Mapping
from typing import Any

from instruct.prompts.frame import Frame, plain_turns
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped, Rendered
from instruct.prompts.template import Template, TemplateSet

MESSAGES = "messages"  # key of a record's metadata
FIELD = "conversation"
ROLES = ("system", "user", "assistant")
TEMPLATES = TemplateSet(
    MESSAGES, (FIELD,), zs_noopt=(Template(MESSAGES, f"{{{FIELD}}}"),), finished=True
)


def conversation(messages: Any, record_id: str) -> Record | Dropped:
    """The record of a conversation; messages after the last assistant turn are left out."""
    if not isinstance(messages, list | tuple) or not all(isinstance(m, Mapping) for m in messages):
        return Dropped("messages are not a list of objects")
    if not all(isinstance(message.get("content"), str) for message in messages):
        return Dropped("a message's content is not text")
    if any(message.get("role") not in ROLES for message in messages):
        return Dropped(f"a message's role is none of {', '.join(ROLES)}")
    kept = [{"role": m["role"], "content": m["content"]} for m in messages]
    while kept and kept[-1]["role"] != "assistant":
        kept.pop()
    if not kept:
        return Dropped("no assistant turn")
    if not all(m["content"].strip() for m in kept if m["role"] == "assistant"):
        return Dropped("empty answer")
    if not any(m["content"].strip() for m in kept if m["role"] == "user"):
        return Dropped("empty question")
    *before, (prompt, answer) = plain_turns(kept)
    text = "".join(f"{start} {content}" for start, content in before) + prompt
    return Record(record_id, {FIELD: text}, answer, metadata={MESSAGES: kept})


def render_turns(
    record: Record, frame: Frame, lengths: tuple[int, int], every: bool
) -> Rendered | Dropped:
    """Renders a conversation in a frame.

    Args:
        lengths: most tokens of a prompt and an answer with their frame.
        every: the targets are all that follows the first prompt, with weight 1 on the assistant's
            turns; a conversation that is longer than both lengths together loses its last turns.
            Otherwise the targets are the last assistant turn.
    """
    turns, truncated = frame.turns(record.metadata[MESSAGES]), False
    if every:
        while turns and sum(len(side) for turn in turns for side in turn) > sum(lengths):
            turns, truncated = turns[:-1], True
        if not turns:
            return Dropped("conversation too long")
    first = 0 if every else len(turns) - 1
    input_ids = [*itertools.chain.from_iterable(itertools.chain(*turns[:first])), *turns[first][0]]
    target_ids, weights = list(turns[first][1]), [1] * len(turns[first][1])
    for before, answer in turns[first + 1 :]:
        target_ids += [*before, *answer]
        weights += [0] * len(before) + [1] * len(answer)
    if not every and len(input_ids) > lengths[0]:
        return Dropped("inputs too long")
    if not every and len(target_ids) > lengths[1]:
        return Dropped("targets too long")
    return Rendered(
        record.fields[FIELD],
        record.answer,
        input_ids,
        target_ids,
        MESSAGES,
        truncated=truncated,
        target_weights=weights,
    )
