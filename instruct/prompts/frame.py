"""`Frame`: what surrounds a prompt and its answer in the token sequences that a model reads.

plain            start + prompt + separator              answer + EOS
chat template    start + a user's turn, up to the        answer + end of turn, + EOS where that is
                 beginning of the assistant's            not a token that ends an answer
"""

import dataclasses
from array import array
from collections.abc import Sequence
from typing import Protocol, cast

from instruct.prompts.chat_template import ChatTemplate, Message

EOS = "eos"  # value of `Frame.separator`


class Tokenizer(Protocol):
    """What rendering and answers use of a vocabulary (instruct/data/vocab.py)."""

    @property
    def eos_id(self) -> int: ...

    @property
    def stop_ids(self) -> tuple[int, ...]: ...

    def encode(self, text: str, /) -> list[int]: ...

    def encode_array(self, text: str, /) -> "array[int]": ...

    def decode(self, ids: Sequence[int], /) -> str: ...

    def settled(self, ids: Sequence[int], /) -> int: ...


@dataclasses.dataclass(frozen=True)
class Frame:
    """The frame of a run's sequences.

    Attributes:
        start_ids: before every prompt.
        separator: after every prompt: "eos" for the end-of-sequence token, as T5 and Flan-PaLM
            (arXiv 2210.11416, section 2.2), else a text such as "\\n\\n" or "".
        chat: writes prompts and answers instead of separator and EOS.
        one_sequence: whether a prompt and its answer are one sequence (`decoder_only`), in which a
            prompt without a token is EOS.
        arrays: whether tokens are array("i") where that is quicker: no Python object for each id.
            An array has the methods of a list that rendering uses, so it is typed as one.
    """

    tokenizer: Tokenizer
    start_ids: tuple[int, ...] = ()
    separator: str = EOS
    chat: ChatTemplate | None = None
    one_sequence: bool = False
    arrays: bool = False

    def prompt(self, text: str) -> list[int]:
        """Tokens of a whole prompt."""
        if self.chat is not None:
            return self.started(self._encode(self.chat.prompt(text)))
        return self.started(self._separated(text))

    def next_turn(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of a conversation, up to the assistant's next answer; needs a chat template."""
        assert self.chat is not None
        return self.started(self.tokenizer.encode(self.chat.next_turn(messages)))

    def answer(self, text: str) -> list[int]:
        """Tokens of a whole answer; empty if the text has none."""
        ids = self._encode(text)
        if ids and self.chat is not None:
            return self._ended(self.tokenizer.encode(self.chat.answer(text)))
        if ids:
            ids.append(self.tokenizer.eos_id)
        return ids

    def turns(self, messages: Sequence[Message]) -> list[tuple[list[int], list[int]]]:
        """Tokens (before, of) every assistant turn of a conversation."""
        if self.chat is None:
            turns = [(self._separated(a), self.answer(b)) for a, b in plain_turns(messages)]
        else:
            encode = self.tokenizer.encode
            text, spans = self.chat.dialog(messages)
            # A {% generation %} block may hold the blanks after the end of turn.
            spans = [(first, first + len(text[first:last].rstrip())) for first, last in spans]
            starts = [0, *(last for _, last in spans)]
            turns = [
                (list(encode(text[start:first])), self._ended(encode(text[first:last])))
                for start, (first, last) in zip(starts, spans)
            ]
        return [(self.started(turns[0][0]), turns[0][1]), *turns[1:]]

    def started(self, ids: Sequence[int]) -> list[int]:
        """The tokens after `start_ids`."""
        lone = [self.tokenizer.eos_id] if self.one_sequence else []
        if isinstance(ids, array):
            return cast("list[int]", array("i", self.start_ids) + ids) or lone
        return [*self.start_ids, *ids] or lone

    def continued(self, ids: Sequence[int]) -> list[int]:
        """Tokens before the rest of a text: EOS ends an encoder's, nothing a decoder's."""
        return self.started(ids if self.one_sequence else [*ids, self.tokenizer.eos_id])

    def cut_prompt(self, text: str, length: int) -> list[int]:
        """Tokens of a prompt without its end, at most `length`; what follows a prompt stays."""
        ids = self.prompt(text)
        if self.chat is None:
            end = self._separated("")
            return [*ids[: length - len(end)], *end]
        while len(ids) > length and text:
            text = text[: length - len(ids)]
            ids = self.prompt(text)
        return ids[:length]

    def _ended(self, ids: Sequence[int]) -> list[int]:
        """An answer of a chat template, with EOS unless its end of turn is a token that ends it."""
        return (
            [*ids] if ids and ids[-1] in self.tokenizer.stop_ids else [*ids, self.tokenizer.eos_id]
        )

    def _encode(self, text: str) -> list[int]:
        """Tokens of a text, in a list or array of its own."""
        if self.arrays:
            return cast("list[int]", self.tokenizer.encode_array(text))
        return self.tokenizer.encode(text)

    def _separated(self, text: str) -> list[int]:
        if self.separator != EOS:
            return self._encode(text + self.separator)
        ids = self._encode(text)
        ids.append(self.tokenizer.eos_id)
        return ids


def plain_turns(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """(text before, content) of every assistant turn, without a chat template.

    >>> plain_turns([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}])
    [('User: Hi\\nAssistant:', 'Yes?')]
    """
    turns, before = [], ""
    for message in messages:
        content = message["content"].strip()
        if message["role"] == "assistant":
            turns.append((f"{before}Assistant:", content))
            before = "\n"
        else:
            before += f"{message['role'].capitalize()}: {content}\n"
    return turns
