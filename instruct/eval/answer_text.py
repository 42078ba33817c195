"""`AnswerText`: the text of an answer while its tokens come, in pieces that never change."""

from collections.abc import Sequence

from instruct.prompts.frame import Tokenizer

# Characters at the end that the next tokens may still change: parts of a character that are no text
# yet (at most three), and the space of " n't", which some tokenizers remove.
_HELD = 4


class AnswerText:
    """Splits one growing answer into pieces; together they are the text of the whole answer.

    Args:
        tokenizer: decodes token ids.
        stops: texts that end the answer, which is cut before the first one.

    Attributes:
        stopped: whether a text of `stops` has ended the answer.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()):
        self._tokenizer, self._stops = tokenizer, stops
        # A text that may be the beginning of a stop is held as well, which stands before them: a
        # character of which parts are there may be longer than it will be.
        self._held = _HELD + max((len(stop) - 1 for stop in stops), default=0)
        self._sent = 0
        self.stopped = False

    def extend(self, ids: Sequence[int], finished: bool) -> str:
        """The piece that follows from all token ids so far, without the one that ends an answer."""
        if not finished:
            ids = ids[: self._tokenizer.settled(ids)]
        text = self._tokenizer.decode(ids)
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        self.stopped = bool(found)
        if found:
            text = text[: min(found)]
        elif not finished:
            text = text[: -self._held]
        piece = text[self._sent :]
        self._sent += len(piece)
        return piece
