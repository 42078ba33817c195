"""Family `cot`: the nine chain-of-thought sets of the Flan Collection as tasks `cot.<id>`.

The files are those of google-research/FLAN (flan/v2/cot_data), under `cot/` of the data folder:
question, answer, rationale. Importing this module registers the tasks and looks at no file.

Modes: the answer after its rationale (`cot`, `fs_cot`); the inversions that the collection counts
as "CoT-II" (`zs_inv`, `fs_inv`, at its 0.3 of the rate of the others); the answer alone (`direct`),
which no mixture contains.
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
from tasks.table_files import read_table
from tasks.wordings import wording

FAMILY = "cot"
FOLDER = "cot"
CAP = 100_000  # of the collection, for this family
MODES = {"cot": 1.0, "fs_cot": 1.0, "zs_inv": INVERSION, "fs_inv": INVERSION}
EXTRA_MODES = ("direct",)


class CotSet(NamedTuple):
    """A row of `tables/cot.tsv`.

    Attributes:
        id: name of the task after "cot."; its file is `cot/<id>_train.tsv`.
        rows: lines of the file.
        category: kind of task in the collection's own list.
        license: of the data set that the questions come from; "unknown" where it states none.
        url: of that data set.
        description: the kind of question.
    """

    id: str
    rows: int
    category: str
    license: str
    url: str
    description: str


SETS = tuple(CotSet(rows=int(row.pop("rows")), **row) for row in read_table("cot"))


def templates() -> TemplateSet:
    """The wordings of every set."""
    return wording("cot", "cot")


def cot_source(row: CotSet) -> CotTsvSource:
    """The reader of a set's file."""
    return cot_tsv_source(f"{FOLDER}/{row.id}_train.tsv")


def within(spec: TaskSpec, workspace: Workspace) -> TaskSpec:
    """The task in Flan's own words, with answers read by the closing phrases of these."""
    worded = in_original_words(spec, workspace)
    if worded is spec:
        return spec
    return dataclasses.replace(worded, postprocess_fn=answer_reader(worded.templates))


def cot_task(row: CotSet) -> TaskSpec:
    """The task of a row."""
    source, wording = cot_source(row), templates()
    return TaskSpec(
        name=f"{FAMILY}.{row.id}",
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
