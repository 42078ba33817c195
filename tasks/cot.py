"""Family `cot`: the nine chain-of-thought sets of the Flan Collection as tasks `cot.<id>`.

The files are those of google-research/FLAN (flan/v2/cot_data), under `cot/` of the data folder:
question, answer, rationale. Importing this module registers the tasks and looks at no file.

A task has its answers with the rationale before them (`cot`, `fs_cot`), the inversions that the
collection counts as "CoT-II" (`zs_inv`, `fs_inv`; 0.3 of the rate of the others, as there), and,
outside the mixtures, the answer alone (`direct`).
"""

import dataclasses
from typing import NamedTuple

from instruct.data.registry import add_task
from instruct.data.sources.files import expected_records
from instruct.data.sources.public_releases import CotTsvSource, cot_tsv_source
from instruct.data.spec import TaskSpec
from instruct.eval import metrics
from instruct.prompts.template import TemplateSet
from instruct.workspace import Workspace
from tasks.answers import answer_reader
from tasks.contamination import group_of
from tasks.flan2021.original_wording import in_original_words
from tasks.source_mixtures import INVERSION
from tasks.wordings import wordings

FAMILY = "cot"
FOLDER = "cot"
CAP = 100_000  # of the collection, for this family
MODES = {"cot": 1.0, "fs_cot": 1.0, "zs_inv": INVERSION, "fs_inv": INVERSION}
EXTRA_MODES = ("direct",)


class CotSet(NamedTuple):
    """A row of the table.

    Attributes:
        id: name of the task after "cot."; its file is `cot/<id>_train.tsv`.
        rows: lines of the file.
        category: kind of task in the collection's own list.
        license: of the data set that the questions come from; "unknown" where it states none.
        url: of that data set.
        description: what is asked.
    """

    id: str
    rows: int
    category: str
    license: str
    url: str
    description: str


SETS = (
    CotSet(
        "gsm8k",
        7_473,
        "Grade School Math Word Problems",
        "MIT",
        "https://github.com/openai/grade-school-math",
        "School arithmetic in words",
    ),
    CotSet(
        "strategyqa",
        2_061,
        "Question Answering",
        "MIT",
        "https://github.com/eladsegal/strategyqa",
        "Yes-no questions that take several facts",
    ),
    CotSet(
        "creak",
        6_915,
        "Common Sense Reasoning over Entity Knowledge",
        "unknown",
        "https://github.com/yasumasaonoe/creak",
        "Claims about entities, true or false",
    ),
    CotSet(
        "qasc",
        1_084,
        "Question Answering",
        "CC-BY-4.0",
        "https://allenai.org/data/qasc",
        "School science questions that take two facts, eight options",
    ),
    CotSet(
        "esnli",
        36_174,
        "Natural Language Inference",
        "MIT",
        "https://github.com/OanaMariaCamburu/e-SNLI",
        "SNLI's inferences with people's explanations",
    ),
    CotSet(
        "ecqa",
        7_112,
        "Common Sense Reasoning Question Answering",
        "CC-BY-SA-4.0",
        "https://github.com/dair-iitd/ECQA-Dataset",
        "CommonsenseQA's questions with people's explanations, five options",
    ),
    CotSet(
        "sensemaking",
        6_070,
        "Sense Making and Explanation",
        "CC-BY-SA-4.0",
        "https://github.com/wangcunxiang/SemEval2020-Task4-Commonsense-Validation-and-Explanation",
        "Which of two sentences makes sense",
    ),
    CotSet(
        "aqua",
        2_728,
        "Algebraic Question Answering",
        "Apache-2.0",
        "https://github.com/google-deepmind/AQuA",
        "Algebra in words, five options",
    ),
    CotSet(
        "qed",
        5_154,
        "Passage-Based Question Answering / NLI",
        "CC-BY-SA-3.0",
        "https://github.com/google-research-datasets/QED",
        "Natural Questions with the passage and the sentence that answers them",
    ),
)


def templates() -> TemplateSet:
    """The wordings of every set."""
    return wordings("cot")["cot"]


def cot_source(row: CotSet) -> CotTsvSource:
    """The reader of a set's file."""
    return cot_tsv_source(f"{FOLDER}/{row.id}_train.tsv")


def within(spec: TaskSpec, workspace: Workspace) -> TaskSpec:
    """The task in Flan's own words, by whose closing phrases answers are read then."""
    worded = in_original_words(spec, workspace)
    if worded is spec:
        return spec
    return dataclasses.replace(worded, postprocess_fn=answer_reader(worded.templates))


def cot_task(row: CotSet) -> TaskSpec:
    """The task of a row."""
    source = cot_source(row)
    name = f"{FAMILY}.{row.id}"
    wording = templates()
    return TaskSpec(
        name=name,
        family=FAMILY,
        dataset=row.id,
        category=row.category,
        source=source,
        templates=wording,
        modes=MODES,
        extra_modes=EXTRA_MODES,
        cap=CAP,
        metric_fns=[metrics.exact_match],
        postprocess_fn=answer_reader(wording),
        num_examples=expected_records(source.parts, row.rows),
        contamination_group=group_of(row.id),
        license=row.license,
        url=row.url,
        description=row.description,
        within_fn=within,
    )


for _row in SETS:
    add_task(cot_task(_row))
