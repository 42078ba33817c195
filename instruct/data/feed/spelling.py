"""Characters that a vocabulary cannot spell: they become unknown tokens, blanks or nothing.

T5's vocabulary has no line break, "{", "<" or Chinese character; no model can write them with it.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from instruct.data.config import DataConfig
from instruct.data.feed.leaves import make_builder
from instruct.data.spec import Resolved
from instruct.data.vocab import Vocabulary, load_vocabulary
from instruct.prompts.render import Rendered
from instruct.workspace import Workspace

_SAMPLE = 512  # examples of a mixture
_MOST_SHOWN = 5
ALL = f"of the first {_SAMPLE} examples"


@dataclasses.dataclass(frozen=True)
class Spelling:
    """What a vocabulary cannot spell of some examples.

    Attributes:
        characters: share of the characters of prompts and targets.
        targets: share of the targets that hold such a character.
        lost: the characters, the most frequent ones first.
    """

    characters: float = 0.0
    targets: float = 0.0
    lost: str = ""

    def __str__(self) -> str:
        if not self.lost and not self.targets:
            return "the vocabulary spells all characters"
        shown = " ".join(map(repr, self.lost[:_MOST_SHOWN]))
        more = f" and {len(self.lost) - _MOST_SHOWN:,} more" * (len(self.lost) > _MOST_SHOWN)
        return (
            f"{self.characters:.2%} of the characters, in {self.targets:.1%} of the targets, are "
            f"not in the vocabulary" + f": {shown}{more}" * bool(self.lost)
        )


def can_spell(vocabulary: Vocabulary, character: str) -> bool:
    """Whether a text with the character differs, once encoded, from one without it.

    A character that is normalized to others ("２" to "2") is spelled; one that becomes a blank,
    as T5's line break, is not.
    """
    ids = vocabulary.encode(f"a{character}a")
    if vocabulary.unk_id is not None and vocabulary.unk_id in ids:
        return False
    return vocabulary.decode(ids) not in ("aa", "a a") or character == " "


def spelling(vocabulary: Vocabulary, examples: Sequence[Rendered]) -> Spelling:
    """Counts the characters of examples that the vocabulary cannot spell."""
    counts = collections.Counter[str]()
    for example in examples:
        counts.update(example.inputs)
        counts.update(example.targets)
    lost = {character for character in counts if not can_spell(vocabulary, character)}
    unspelled = sum(
        # The texts of a plain seqio task may be decoded, so that they show no unknown character.
        vocabulary.unk_id in example.target_ids or not lost.isdisjoint(example.targets)
        for example in examples
    )
    return Spelling(
        round(sum(counts[character] for character in lost) / max(1, counts.total()), 5),
        round(unspelled / max(1, len(examples)), 4),
        "".join(sorted(lost, key=lambda character: (-counts[character], character))),
    )


def mixture_spelling(
    workspace: Workspace, config: DataConfig, resolved: Resolved, num_examples: int = _SAMPLE
) -> dict[str, Spelling]:
    """Task, and ALL -> `Spelling` of the first examples of a mixture, by the run's vocabulary.

    Raises:
        UserError: the mixture is not prepared (see `make_builder`).
    """
    sample = dataclasses.replace(config, window_examples=num_examples)
    builder, leaves = make_builder(workspace, sample, resolved)
    numbers, examples, _, _ = builder.examples(0)
    vocabulary = load_vocabulary(config.vocabulary)
    by_task = collections.defaultdict(list)
    for number, example in zip(numbers, examples):
        by_task[leaves[number].task].append(example)
    return {task: spelling(vocabulary, own) for task, own in [(ALL, examples), *by_task.items()]}


def spelling_lines(spelled: Mapping[str, Spelling]) -> list[str]:
    """A line for the sample and one for each task with lost characters, worst targets first."""
    order = sorted(spelled, key=lambda task: (-spelled[task].targets, -spelled[task].characters))
    tasks = [task for task in order if spelled[task].lost or spelled[task].targets]
    return [f"{task}: {spelled[task]}" for task in dict.fromkeys([ALL, *tasks])]
