"""Tk-Instruct's encoding of a Natural-Instructions example (Wang et al. 2022, section 4).

Definition, examples, then the instance, in one fixed layout that its models know: every part ends
with punctuation, examples have numbered headings, the prompt ends with an empty output. Ours
differs in what gives way when a prompt is too long: examples from the last on, then the end of the
instance's input, never the closing cue (Tk-Instruct cuts the prompt at its right end).
"""

import dataclasses
from collections.abc import Mapping, Sequence

from instruct.prompts.record import Record


@dataclasses.dataclass(frozen=True)
class TkEncoding:
    """What stands before the instance.

    Attributes:
        id: the template's id in the results.
        definition: whether the definition is shown.
        positive, negative: how many examples at most.
        explanations: whether examples have theirs.
    """

    id: str
    definition: bool = True
    positive: int = 2
    negative: int = 0
    explanations: bool = False

    def prompt(
        self, fields: Mapping[str, str], shots: Sequence[Record]
    ) -> tuple[str, list[Record]]:
        """The inputs, and the positive examples that they show.

        Args:
            fields: `definition` and `input`.
            shots: positive examples in the task's order; `metadata["negative"]` of the k-th holds
                the k-th negative example, `{"input", "output", "explanation"}`.
        """
        parts = []
        if self.definition:
            parts.append(f"Definition: {_closed(fields['definition'])}\n\n")
        used = list(shots[: self.positive])
        for number, shot in enumerate(used, start=1):
            parts.append(
                self._example("Positive", number, shot.fields["input"], shot.answer, shot.rationale)
            )
        negatives = [n for shot in shots if (n := shot.metadata.get("negative"))]
        for number, shown in enumerate(negatives[: self.negative], start=1):
            values = (shown["input"], shown["output"], shown.get("explanation", ""))
            parts.append(self._example("Negative", number, *values))
        query = f"Input: {_closed(fields['input'])}\nOutput:"
        parts.append(f"Now complete the following example -\n{query}")
        return "".join(parts), used

    def _example(self, kind: str, number: int, source: str, target: str, why: str) -> str:
        lines = [
            f"{kind} Example {number} -",
            f"Input: {_closed(source)}",
            f"Output: {_closed(target)}",
        ]
        if self.explanations and why:
            lines.append(f"Explanation: {_closed(why)}")
        return "\n".join(lines) + "\n\n"


def _closed(text: str) -> str:
    """Text that ends with punctuation."""
    text = text.strip()
    return text if text[-1:] in ".?!,;:" else text + "."


DEFAULT_ENCODING = TkEncoding("tk_definition_2_positive")
# The five that its mixed training draws from, uniformly.
ENCODINGS = (
    TkEncoding("tk_definition", positive=0),
    TkEncoding("tk_2_positive", definition=False),
    DEFAULT_ENCODING,
    TkEncoding("tk_definition_2_positive_2_negative", negative=2),
    TkEncoding("tk_definition_2_positive_explained", explanations=True),
)
