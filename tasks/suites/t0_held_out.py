"""T0's held-out tasks (Sanh et al. 2022): 116 prompts `t0_held_out.<set>_<prompt>` on 11 sets.

Published protocol: every prompt of P3 that poses the set's original task, zero-shot, on the
validation split; the answer is the choice with the highest summed log-likelihood (metric
`rank_accuracy`); reports give the median and the quartiles over the prompts of a set, which is the
category of these tasks. `exact_match` scores the generated text instead.

Rows come from P3 as published, or else from promptsource's templates applied to the raw set
(always for StoryCloze, which P3 may not publish). Flan's training mixtures contain these sets: only
models trained as T0 was have not seen them.
"""

import re
from typing import NamedTuple

from instruct.data.registry import add_task
from instruct.data.sources.alternates import Alternates
from instruct.data.sources.huggingface import HuggingFaceSource
from instruct.data.sources.p3 import p3_source
from instruct.data.sources.promptsource import PromptSourceSource, p3_name
from instruct.data.spec import Source, TaskSpec
from instruct.eval import metrics
from tasks.contamination import group_of
from tasks.suites.reading import read_label
from tasks.suites.task import suite_task

FAMILY = "t0_held_out"
URL = "https://huggingface.co/datasets/bigscience/P3"

_NLI = (
    *("MNLI crowdsource", "should assume", "does it follow that", "GPT-3 style"),
    *("based on the previous passage", "justified in saying", "must be true", "can we infer"),
    *("does this imply", "guaranteed true"),
)
_THREE_WAY = (
    *_NLI,
    *("take the following as truth", "guaranteed/possible/impossible", "always/sometimes/never"),
    *("consider always/sometimes/never", "claim true/false/inconclusive"),
)


class T0Set(NamedTuple):
    """A set and its prompts.

    Attributes:
        id: name in tasks.
        task: T0's family of tasks.
        dataset, subset: in promptsource; the raw set's configuration on the hub is the subset.
        hub: the raw set on the hub.
        group: the data set as other families name it.
        prompts: promptsource's names.
        split: the raw set's split that P3 calls "validation".
        suffix: of the prompts' names in P3.
    """

    id: str
    task: str
    dataset: str
    subset: str | None
    hub: str
    group: str
    prompts: tuple[str, ...]
    split: str = "validation"
    suffix: str = ""


def _super_glue(name: str, task: str, group: str, prompts: tuple[str, ...]) -> T0Set:
    short = name.partition(".")[0]
    return T0Set(short, task, "super_glue", name, "aps/super_glue", group, prompts)


SETS = (
    _super_glue("rte", "natural language inference", "rte", _NLI),
    _super_glue("cb", "natural language inference", "cb", _THREE_WAY),
    *(
        T0Set(
            f"anli_r{n}", "natural language inference", "anli", None, "facebook/anli", "anli",
            _THREE_WAY, f"dev_r{n}", f"_r{n}",
        )
        for n in (1, 2, 3)
    ),
    _super_glue("wsc.fixed", "coreference resolution", "wsc_fixed", (
        "does the pronoun refer to", "by p they mean", "in other words", "I think they mean",
        "replaced with", "p is/are r", "the pronoun refers to", "Who or what is/are",
        "does p stand for", "GPT-3 Style",
    )),
    T0Set(
        "winogrande", "coreference resolution", "winogrande", "winogrande_xl",
        "allenai/winogrande", "winogrande",
        ("does underscore refer to", "stand for", "underscore refer to", "fill in the blank",
         "Replace"),
    ),
    _super_glue("copa", "sentence completion", "copa", (
        "exercise", "…What could happen next, C1 or C2?", "i_am_hesitating",
        "plausible_alternatives", "C1 or C2? premise, so/because…", "…As a result, C1 or C2?",
        "best_option", "…which may be caused by", "more likely", "cause_effect",
        "…why? C1 or C2", "choose",
    )),
    T0Set(
        "story_cloze", "sentence completion", "story_cloze", "2016", "story_cloze", "story_cloze",
        ("Answer Given options", "Choose Story Ending", "Story Continuation and Options",
         "Novel Correct Ending", "Movie What Happens Next"),
    ),
    T0Set(
        "hellaswag", "sentence completion", "hellaswag", None, "Rowan/hellaswag", "hellaswag",
        ("complete_first_then", "Randomized prompts template", "Predict ending with hint",
         "if_begins_how_continues"),
    ),
    _super_glue("wic", "word sense disambiguation", "wic", (
        "affirmation_true_or_false", "grammar_homework", "GPT-3-prompt",
        "GPT-3-prompt-with-label", "polysemous", "question-context", "question-context-meaning",
        "question-context-meaning-with-label", "same_sense", "similar-sense",
    )),
)  # fmt: skip


def published_name(row: T0Set, prompt: str) -> str:
    """The prompt's configuration in P3."""
    return p3_name(row.dataset, row.subset, prompt) + row.suffix


def t0_source(row: T0Set, prompt: str) -> Source:
    """P3's own rows, else the raw rows in promptsource's template; options in both."""
    raw = HuggingFaceSource(row.hub, row.subset, {"validation": row.split})
    rendered = PromptSourceSource(row.dataset, row.subset, prompt, raw, with_options=True)
    if row.id == "story_cloze":
        return rendered
    parts = {"validation": "validation"}
    return Alternates((p3_source(published_name(row, prompt), "S", parts), rendered))


def t0_task(row: T0Set, prompt: str) -> TaskSpec:
    """One prompt of a set."""
    name = re.sub(r"\W+", "_", prompt).strip("_")
    return suite_task(
        f"{FAMILY}.{row.id}_{name}",
        t0_source(row, prompt),
        "finished_choice",
        dataset=row.group,
        category=row.id,
        modes={"zs_direct": 1.0},
        metric_fns=[metrics.exact_match],
        postprocess_fn=read_label,
        exemplar_split="validation",
        ranked=True,
        contamination_group=group_of(row.group),
        url=URL,
        description=f"P3's prompt {prompt!r} on {row.id} ({row.task})",
    )


for _row in SETS:
    for _prompt in _row.prompts:
        add_task(t0_task(_row, _prompt))
