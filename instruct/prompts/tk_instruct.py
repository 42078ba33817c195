"""Tk-Instruct's encoding of a Natural-Instructions example (Wang et al. 2022, section 4).

Definition, examples, then the instance, in the fixed layout of its models: every part ends with
punctuation, examples have numbered headings, the prompt ends with an empty output. Unlike
Tk-Instruct, which cuts long prompts at the right end, ours lose the last examples first, then the
end of the instance's input, never the closing cue.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from instruct.prompts.record import Record


@dataclasses.dataclass(frozen=True)
class TkEncoding:
    """What precedes the instance.

    Attributes:
        id: the template's id in the results.
        definition: whether to show the definition.
        positive, negative: most examples to show.
        explanations: whether to show the explanations of the examples.
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
            shots: positive examples in the task's order; `metadata["negative"]` of the k-th is
                the k-th negative example, `{"input", "output", "explanation"}`.
        """
        parts = [f"Definition: {_closed(fields['definition'])}\n\n"] if self.definition else []
        used = list(shots[: self.positive])
        negative = [shown for shot in shots if (shown := shot.metadata.get("negative"))]
        examples = {
            "Positive": [(shot.fields["input"], shot.answer, shot.rationale) for shot in used],
            "Negative": [
                (shown["input"], shown["output"], shown.get("explanation", ""))
                for shown in negative[: self.negative]
            ],
        }
        for kind, rows in examples.items():
            for number, (source, target, why) in enumerate(rows, start=1):
                parts.append(f"{kind} Example {number} -\n")
                parts.append(f"Input: {_closed(source)}\nOutput: {_closed(target)}\n")
                if self.explanations and why:
                    parts.append(f"Explanation: {_closed(why)}\n")
                parts.append("\n")
        query = f"Input: {_closed(fields['input'])}\nOutput:"
        parts.append(f"Now complete the following example -\n{query}")
        return "".join(parts), used


def _closed(text: str) -> str:
    """Adds a full stop to a text that does not end with punctuation."""
    text = text.strip()
    return text if text[-1:] in ".?!,;:" else text + "."


DEFAULT_ENCODING = TkEncoding("tk_definition_2_positive")
# Its mixed training draws uniformly from these.
ENCODINGS = (
    TkEncoding("tk_definition", positive=0),
    TkEncoding("tk_2_positive", definition=False),
    DEFAULT_ENCODING,
    TkEncoding("tk_definition_2_positive_2_negative", negative=2),
    TkEncoding("tk_definition_2_positive_explained", explanations=True),
)
