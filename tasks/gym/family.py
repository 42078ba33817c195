"""The gym family: `reasoning_gym`'s generators as tasks `gym.<generator>`. Needs no download.

Importing this module registers the tasks and generates nothing; `tasks/gym/mixtures.py` mixes them.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from instruct.data.registry import add_task
from instruct.data.spec import TaskSpec
from instruct.prompts.template import TemplateSet
from tasks.answers import Example, chosen_option, metadata_of, text_of, texts_of
from tasks.gym.source import GymSource
from tasks.gym.table import GENERATORS, Generator
from tasks.gym.verify import is_right
from tasks.splits import held_out_group
from tasks.wordings import wordings

FAMILY = "gym"

# Few-shot prompts are several times as long, so they get the smaller share.
_MODES = {"zs_noopt": 0.7, "fs_noopt": 0.3}
_MODES_WITH_OPTIONS = {"zs_opt": 0.35, "zs_noopt": 0.35, "fs_opt": 0.15, "fs_noopt": 0.15}


class GymTarget(NamedTuple):
    """A target as the metric takes it.

    Attributes:
        answer: the record's answer.
        references: every right text, the answer included.
        metadata: further input of the judge (tasks/gym/verify.py).
    """

    answer: str
    references: tuple[str, ...]
    metadata: Mapping[str, Any]


def template_sets() -> Mapping[str, TemplateSet]:
    """All template sets of the family by name."""
    return wordings("gym", "gym_tasks")


def template_set_of(row: Generator) -> TemplateSet:
    """The wordings of a generator: its own, else those of its category."""
    return template_sets()[row.templates or f"gym_{row.category}"]


# ---------------------------------------------------------------- evaluation


def read_answer(decoded: str, example: Example = None, is_target: bool = False) -> str | GymTarget:
    """A `postprocess_fn`: a target becomes a `GymTarget`, a prediction its trimmed text.

    Where the prompt showed options, a prediction that names one by its marker or its text becomes
    that option's text.
    """
    if not is_target:
        return chosen_option(decoded.strip(), example)
    if not example or "answer" not in example:
        return GymTarget(decoded, (decoded,), {})
    answer = text_of(example["answer"])
    references = [answer, *texts_of(example, "references")]
    if options := texts_of(example, "options"):
        references.append(options[int(example["answer_index"])])
    return GymTarget(answer, tuple(dict.fromkeys(references)), metadata_of(example))


def gym_score(
    targets: Sequence[GymTarget], predictions: Sequence[str], *, name: str
) -> dict[str, float]:
    """A metric: share of right predictions by the generator's judge, and by exact match (0-100).

    Args:
        targets, predictions: as `read_answer` gives them.
        name: the generator.
    """
    pairs = list(zip(targets, predictions))
    if not pairs:
        return {"accuracy": 0.0, "exact_match": 0.0}
    right = sum(is_right(name, p, t.answer, t.references, t.metadata) for t, p in pairs)
    exact = sum(p.strip() in t.references for t, p in pairs)
    return {"accuracy": 100.0 * right / len(pairs), "exact_match": 100.0 * exact / len(pairs)}


# ---------------------------------------------------------------- tasks


def gym_task(row: Generator) -> TaskSpec:
    """The task of one generator."""
    source = GymSource(row.name)
    wording = template_set_of(row)
    return TaskSpec(
        name=f"{FAMILY}.{row.name}",
        family=FAMILY,
        dataset=row.generator,
        category=row.category,
        source=source,
        templates=wording,
        modes=_MODES_WITH_OPTIONS if wording.zs_opt else _MODES,
        version=row.version,
        metric_fns=[functools.partial(gym_score, name=row.name)],
        postprocess_fn=read_answer,
        num_examples={split: source.expected(split) for split in source.splits},
        held_out=held_out_group(row),
        license="Apache-2.0",
        url="https://github.com/open-thought/reasoning-gym",
        description=f"reasoning_gym's {row.generator} ({row.category})",
    )


for _row in GENERATORS.values():
    add_task(gym_task(_row))
