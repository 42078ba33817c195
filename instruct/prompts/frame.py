"""`Frame`: what surrounds a prompt and its answer in the token sequences that a model reads.

plain   start + tokens of the prompt + separator           tokens of the answer + EOS
chat    tokens of the template around one user message     tokens of the answer + end of turn
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

EOS = "eos"  # value of `Frame.separator`


class Tokenizer(Protocol):
    """The methods of a vocabulary (instruct/data/vocab.py) that rendering uses."""

    @property
    def eos_id(self) -> int: ...

    def encode(self, text: str, /) -> list[int]: ...

    def decode(self, ids: Sequence[int], /) -> str: ...


@dataclasses.dataclass(frozen=True)
class Frame:
    """A plain frame.

    Attributes:
        start_ids: before every prompt.
        empty_ids: the prompt where it would have no token; () for encoders.
        separator: after every prompt: "eos" for the end-of-sequence token, as T5 and Flan-PaLM
            (arXiv 2210.11416, section 2.2), else a text such as "\\n\\n" or "".
    """

    tokenizer: Tokenizer
    start_ids: tuple[int, ...] = ()
    empty_ids: tuple[int, ...] = ()
    separator: str = EOS

    def prompt(self, text: str) -> list[int]:
        """Tokens of a whole prompt."""
        if self.separator == EOS:
            return self.started([*self.tokenizer.encode(text), self.tokenizer.eos_id])
        return self.started(self.tokenizer.encode(text + self.separator))

    def started(self, ids: Sequence[int]) -> list[int]:
        """The tokens after `start_ids`; `empty_ids` if there are none."""
        return [*self.start_ids, *ids] or list(self.empty_ids)

    def continued(self, ids: Sequence[int]) -> list[int]:
        """Tokens before the rest of a text: EOS ends an encoder's, nothing a decoder's."""
        return self.started(ids if self.empty_ids else [*ids, self.tokenizer.eos_id])

    @property
    def separator_ids(self) -> list[int]:
        """What follows a prompt that was cut."""
        if self.separator == EOS:
            return [self.tokenizer.eos_id]
        return list(self.tokenizer.encode(self.separator))

    def answer(self, text: str) -> list[int]:
        """Tokens of a whole answer; [] if the text has none."""
        ids = list(self.tokenizer.encode(text))
        return [*ids, self.tokenizer.eos_id] if ids else ids
