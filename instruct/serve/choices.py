"""`Choice`: one answer of a request while it grows; and the objects that tell of it."""

import dataclasses
import time
import uuid
from collections.abc import Sequence
from typing import Any

from instruct.eval.answer_text import AnswerText
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.decoding.online import Partial
from instruct.serve.request_body import Asked


class Choice:
    """One answer.

    Attributes:
        index: among the answers of the request.
        text: all pieces so far.
        num_tokens: of the answer, without the one that ended it.
        finish_reason: "stop" (a token that ends answers, or a text of `stop`), "length", or None.
    """

    def __init__(self, index: int, sequence: int, config: DecodeConfig, text: AnswerText):
        self.index, self._sequence = index, sequence
        self._config, self._text = config, text
        self.text, self.num_tokens = "", 0
        self.finish_reason: str | None = None

    def extend(self, partial: Partial) -> str:
        """Takes what is decoded so far; returns the piece of text that follows from it."""
        if self.finish_reason or (self._config.strategy == "beam" and not partial.ended):
            return ""  # the best beam changes
        tokens = partial.tokens[self._sequence]
        ids = self._config.answer_ids(tokens)
        if len(ids) < len(tokens):
            self.finish_reason = "stop"
        elif partial.ended:
            self.finish_reason = "length"
        piece = self._text.extend(ids, self.finish_reason is not None)
        if self._text.stopped:
            self.finish_reason = "stop"
        self.num_tokens = len(ids)
        self.text += piece
        return piece


@dataclasses.dataclass(frozen=True)
class Reply:
    """The objects of one response, of `/v1/completions` or, with `chat`, of its sibling."""

    model: str
    chat: bool
    number: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)
    created: int = dataclasses.field(default_factory=lambda: int(time.time()))

    def whole(self, choices: Sequence[Choice], usage: dict[str, int]) -> dict[str, Any]:
        """The response to a request without `stream`."""
        listed = []
        for choice in choices:
            message = {"role": "assistant", "content": choice.text}
            said = {"message": message} if self.chat else {"text": choice.text}
            listed.append(self._choice(choice) | said)
        kind = "chat.completion" if self.chat else "text_completion"
        return self._object(kind, listed) | {"usage": usage}

    def piece(self, choice: Choice, text: str, is_first: bool) -> dict[str, Any]:
        """One event of a stream."""
        if self.chat:
            role = {"role": "assistant"} if is_first else {}
            return self._event([self._choice(choice) | {"delta": {**role, "content": text}}])
        return self._event([self._choice(choice) | {"text": text}])

    def usage(self, usage: dict[str, int]) -> dict[str, Any]:
        """The event that counts tokens."""
        return self._event([]) | {"usage": usage}

    def _event(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return self._object("chat.completion.chunk" if self.chat else "text_completion", choices)

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": f"{'chatcmpl' if self.chat else 'cmpl'}-{self.number}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }

    def _choice(self, choice: Choice) -> dict[str, Any]:
        return {"index": choice.index, "logprobs": None, "finish_reason": choice.finish_reason}


def usage_of(asked: Asked, choices: Sequence[Choice]) -> dict[str, int]:
    """Tokens of prompts and answers."""
    prompt, answers = sum(map(len, asked.prompts)), sum(choice.num_tokens for choice in choices)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answers,
        "total_tokens": prompt + answers,
    }
