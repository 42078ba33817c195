"""The t0 family: the 193 P3 prompts of the Flan Collection's T0 part, `t0.<name in P3>`.

Importing this module registers all of them from `tables/t0.tsv` and looks for no file. Rows come
from P3 as published if its files exist, else from promptsource's template applied to the raw data
set. A full stop of a P3 name becomes "_" (`t0.cos_e_v1_11_rationale`).

Flan trains on P3's train split only, and not every data set has others; here a hash of the prompt
cuts it into train, validation and test. Two prompts of one data set cut it differently, so
validation measures unseen prompts, not unseen source rows.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from instruct.data.registry import add_task
from instruct.data.sources.alternates import Alternates
from instruct.data.sources.huggingface import HuggingFaceSource, SplitPart
from instruct.data.sources.p3 import p3_source
from instruct.data.sources.promptsource import PromptSourceSource
from instruct.data.spec import TaskSpec
from instruct.eval import metrics
from tasks.answers import Example, read_answer, rouge_l
from tasks.contamination import group_of
from tasks.table_files import read_table
from tasks.wordings import wording

FAMILY = "t0"
URL = "https://huggingface.co/datasets/bigscience/P3"
CAP = 20_000  # Flan's cap of this family

# P3's train split in three, by a hash of the prompt.
_PARTS: Mapping[str, SplitPart] = {
    "train": ("train", (0.1, 1.0)),
    "validation": ("train", (0.0, 0.05)),
    "test": ("train", (0.05, 0.1)),
}
_MODES = {"zs_noopt": 1.0, "fs_noopt": 1.0}
_MODES_WITH_OPTIONS = {"zs_opt": 1.0, "zs_noopt": 1.0, "fs_opt": 1.0, "fs_noopt": 1.0}
_METRICS: Mapping[str, Sequence[Callable[..., Mapping[str, Any]]]] = {
    "accuracy": (metrics.exact_match,),
    "squad": (metrics.squad,),
    "rouge": (rouge_l,),
}


@dataclasses.dataclass(frozen=True)
class T0Row:
    """One prompt.

    Attributes:
        prompt: its configuration in P3.
        dataset: its data set, under one name for all configurations.
        hub, subset: the raw data set on the hub and its configuration; None for the only one.
        template: promptsource's name for the prompt.
        kind: "G" without options, "M" with options in its own text, "S" with options apart.
        category: kind of task, as the collection lists it.
        train: rows of P3's train split.
        metric: "accuracy", "squad" or "rouge", promptsource's choice.
        reads: the scored part of a reply: "options", "whole", "line" or "word".
        license: of the data set, "" where it is not known.
    """

    prompt: str
    dataset: str
    hub: str
    subset: str | None
    template: str
    kind: str
    category: str
    train: int
    metric: str
    reads: str
    license: str

    @property
    def name(self) -> str:
        """The name of the task here."""
        return f"{FAMILY}.{re.sub(r'[^A-Za-z0-9_]+', '_', self.prompt)}"

    @property
    def promptsource_name(self) -> str:
        """The data set's name in promptsource: the hub's, without the owner."""
        return self.hub.rpartition("/")[2]


@functools.cache
def t0_rows() -> Mapping[str, T0Row]:
    """The 193 prompts by their names in P3."""
    rows = (
        T0Row(subset=row.pop("subset") or None, train=int(row.pop("train")), **row)
        for row in read_table("t0")
    )
    return {row.prompt: row for row in rows}


# ---------------------------------------------------------------- evaluation


def read_reply(
    decoded: str, example: Example = None, is_target: bool = False, *, reads: str, metric: str
) -> str:
    """A `postprocess_fn`: the scored part of a reply, in the form that its metric compares.

    >>> read_reply("Yes.\\nBecause ...", reads="line", metric="accuracy")
    'yes'
    """
    text = decoded.strip()
    if reads == "line":
        text = text.partition("\n")[0].rstrip()
    elif reads == "word":
        text = " ".join(text.split()[:1])
    return read_answer(text, example, is_target) if metric == "accuracy" else text


# ---------------------------------------------------------------- tasks


def t0_source(row: T0Row) -> Alternates:
    """P3's own rows, else the raw data set with promptsource's template."""
    raw = HuggingFaceSource(row.hub, row.subset, _PARTS)
    rendered = PromptSourceSource(
        row.promptsource_name, row.subset, row.template, raw, with_options=row.kind == "S"
    )
    return Alternates((p3_source(row.prompt, row.kind, _PARTS), rendered))


def t0_task(row: T0Row) -> TaskSpec:
    """The task of one row."""
    return TaskSpec(
        name=row.name,
        family=FAMILY,
        dataset=row.dataset,
        category=row.category,
        source=t0_source(row),
        templates=wording("finished", "finished"),  # P3's own wording
        modes=_MODES_WITH_OPTIONS if row.kind == "S" else _MODES,
        cap=CAP,
        metric_fns=_METRICS[row.metric],
        postprocess_fn=functools.partial(read_reply, reads=row.reads, metric=row.metric),
        # An estimate by the sizes of the parts; a store counts its records.
        num_examples={"train": round(0.9 * row.train)},
        contamination_group=group_of(row.dataset),
        license=row.license,
        url=f"{URL}/tree/main/data/{row.prompt}",
        description=f"P3's prompt {row.template.strip()!r} on {row.promptsource_name}",
    )


for _row in t0_rows().values():
    add_task(t0_task(_row))
