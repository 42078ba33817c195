"""The niv2 family: the Natural-Instructions tasks of the Flan Collection, `niv2.<file name>`.

Importing this module registers all 1,554 from `tables/niv2.tsv` and looks for no file. Records
come from the task files under the data folder (`instruct/data/sources/natural_instructions.py`).
TFDS has them too (`natural_instructions:1.0.1`), but as one data set of five million rows, which
every task would have to scan.

    test_tasks(), train_tasks()                          the official English track
    xlingual_test_tasks(), xlingual_train_tasks()        the official cross-lingual track

The split "test" of an official test task is what its publisher evaluates: the first 100 instances.
Other tasks are split by a hash of the instance. ROUGE-L is the publisher's: the tokenizer of
`rouge_score` with stemming for English tasks, GPT-2's tokens for all others (cross-lingual track).
"""

from instruct.data.registry import add_task
from instruct.data.sources.natural_instructions import EXEMPLARS, natural_instructions_task_source
from instruct.data.spec import SPLITS, TaskSpec
from instruct.prompts.template import TemplateSet
from tasks.answers import loose_exact_match, read_references, rouge_l, rouge_l_of_gpt2_tokens
from tasks.contamination import group_of
from tasks.flan2021.original_wording import in_original_words
from tasks.niv2.table import Niv2Row, niv2_rows
from tasks.wordings import wording

FAMILY = "niv2"
LICENSE = "Apache-2.0 (the collection; each task file has a licence of its own for its data)"
URL = "https://github.com/allenai/natural-instructions"
NUM_TEST = 100  # instances that the official evaluation takes of each test task
CAP = 5_000  # Flan's cap of this family, here for each task

_MODES = {"zs_noopt": 1.0, "fs_noopt": 1.0}
# Tk-Instruct's own encoding: there to be mixed or evaluated by name, without a share by default.
_EXTRA_MODES = ("tk_instruct", "tk_instruct_mixed")
_SPLITS = {split: split for split in (*SPLITS, EXEMPLARS)}


def template_set() -> TemplateSet:
    """The wordings of the whole family: every task brings its own definition."""
    return wording("natural_instructions", "natural_instructions")


def niv2_task(row: Niv2Row) -> TaskSpec:
    """The task of one row."""
    return TaskSpec(
        name=row.name,
        family=FAMILY,
        dataset=row.dataset,
        category=row.category,
        source=natural_instructions_task_source(row.stem, NUM_TEST if row.is_test else 0),
        templates=template_set(),
        modes=_MODES,
        extra_modes=_EXTRA_MODES,
        cap=CAP,
        metric_fns=(
            rouge_l if row.languages == ("English",) else rouge_l_of_gpt2_tokens,
            loose_exact_match,
        ),
        postprocess_fn=read_references,
        splits=_SPLITS,
        exemplar_split=EXEMPLARS,
        contamination_group=group_of(row.dataset),
        languages=row.languages,
        license=LICENSE,
        url=f"{URL}/blob/master/tasks/{row.stem}.json",
        description=f"A task with its definition ({row.category}, from {row.dataset})",
        within_fn=in_original_words,
    )


def test_tasks() -> tuple[str, ...]:
    """Names of the 119 test tasks of the English track."""
    return tuple(row.name for row in niv2_rows().values() if row.split == "test")


def train_tasks(disjoint: bool = False) -> tuple[str, ...]:
    """Names of the 697 training tasks of the English track.

    They are the published list without the 57 copies of MMLU and the two omitted tasks.

    Args:
        disjoint: also leave out the 9 tasks whose data set a test task has under another name
            (`niv2.table.UNITED`), which the publisher's rule against that missed.
    """
    rows = niv2_rows().values()
    tested = {row.dataset for row in rows if row.split == "test"} if disjoint else set()
    return tuple(row.name for row in rows if row.split == "train" and row.dataset not in tested)


def xlingual_test_tasks() -> tuple[str, ...]:
    """Names of the 35 test tasks of the cross-lingual track, none of them English only."""
    return tuple(row.name for row in niv2_rows().values() if row.xlingual == "test")


def xlingual_train_tasks(disjoint: bool = False) -> tuple[str, ...]:
    """Names of the 1,211 training tasks of the cross-lingual track, chosen as `train_tasks` are.

    Args:
        disjoint: also leave out the 23 tasks whose data set a test task of either track has.
    """
    rows = niv2_rows().values()
    tested = {row.dataset for row in rows if row.is_test} if disjoint else set()
    return tuple(r.name for r in rows if r.xlingual == "train" and r.dataset not in tested)


for _row in niv2_rows().values():
    add_task(niv2_task(_row))
