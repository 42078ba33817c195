"""Family `program_synthesis`: repairing and writing programs.

    program_synthesis.dr_repair_<variant>    DrRepair, four ways of showing what is wrong
    program_synthesis.code_contests          DeepMind's CodeContests in Python

The Flan Collection counts these five and its public release leaves them out. The inverted modes,
which ask for a faulty program or for the statement of a problem, have 0.3 of the rate of the
others. Importing this module registers the tasks and reads no data. No program is ever run.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from instruct.data.registry import add_task
from instruct.data.sources.files import expected_records, hashed_parts
from instruct.data.sources.huggingface import HuggingFaceSource
from instruct.data.spec import Source, TaskSpec
from instruct.eval import metrics
from instruct.prompts.template import TemplateSet
from tasks.answers import read_references, rouge_l
from tasks.flan2021.original_wording import in_original_words
from tasks.program_synthesis.sources import (
    CODE_CONTESTS_COLUMNS,
    DrRepairSource,
    code_contests_record,
)
from tasks.source_mixtures import INVERSION
from tasks.wordings import wordings

FAMILY = "program_synthesis"
CAP = 200_000  # as the dialog family, with which the collection shares a rate
MODES = {"zs_noopt": 1.0, "fs_noopt": 1.0, "zs_inv": INVERSION, "fs_inv": INVERSION}
DR_REPAIR_PROGRAMS = 37_000  # programs of DeepFix that compile, about


class ProgramSet(NamedTuple):
    """A row of the table.

    Attributes:
        id: name of the task after "program_synthesis.".
        dataset: what it is counted as.
        source: its records.
        templates: name of its wordings in templates/synthesis.toml.
        num_examples: split -> about how many records, while no store says it exactly.
        category: kind of task in the collection's own list.
        license: of the data set.
        url: of the data set.
        description: what is asked.
        group: contamination group.
    """

    id: str
    dataset: str
    source: Source
    templates: str
    num_examples: Mapping[str, int]
    category: str
    license: str
    url: str
    description: str
    group: str


def _repair(variant: str, templates: str, description: str) -> ProgramSet:
    return ProgramSet(
        f"dr_repair_{variant}",
        f"dr_repair_{variant}",
        DrRepairSource(variant=variant),
        templates,
        expected_records(hashed_parts("dr_repair"), DR_REPAIR_PROGRAMS),
        "Code Repair",
        "MIT",
        "https://github.com/michiyasunaga/DrRepair",
        description,
        "dr_repair",
    )


SETS = (
    _repair("plain_code", "code_repair", "A program that does not compile"),
    _repair("line_numbers", "code_repair_error", "The same, numbered, with the first error"),
    # Its code says the error itself, so no prompt may show that apart or ask for it.
    _repair("error_comments", "code_repair", "The same with the error as a comment"),
    _repair("no_errors", "code_repair", "The same, numbered, without the error"),
    ProgramSet(
        "code_contests",
        "code_contests",
        HuggingFaceSource(
            "deepmind/code_contests",
            parts={"train": "train", "validation": "valid", "test": "test"},
            to_record=code_contests_record,
            columns=CODE_CONTESTS_COLUMNS,
            name="code_contests",
        ),
        "program",
        {"train": 8_000, "validation": 100, "test": 130},
        "Code Generation",
        "CC-BY-4.0",
        "https://github.com/google-deepmind/code_contests",
        "Problems of programming contests and right solutions in Python 3",
        "code_contests",
    ),
)


def template_sets() -> Mapping[str, TemplateSet]:
    """All template sets of the family by name."""
    return wordings("synthesis")


def code_match(targets: Sequence[metrics.Target], predictions: Sequence[str]) -> dict[str, float]:
    """Share of predictions (0-100) that are a reference but for blanks and line breaks."""
    references = [[_tokens(r) for r in metrics.references_of(target)] for target in targets]
    scores = metrics.exact_match(references, [_tokens(prediction) for prediction in predictions])
    return {"code_match": scores["exact_match"]}


def _tokens(code: str) -> str:
    return " ".join(code.split())


def program_task(row: ProgramSet) -> TaskSpec:
    """The task of a row."""
    name = f"{FAMILY}.{row.id}"
    return TaskSpec(
        name=name,
        family=FAMILY,
        dataset=row.dataset,
        category=row.category,
        source=row.source,
        templates=template_sets()[row.templates],
        modes=MODES,
        cap=CAP,
        metric_fns=[code_match, rouge_l],
        postprocess_fn=read_references,
        num_examples=row.num_examples,
        contamination_group=row.group,
        license=row.license,
        url=row.url,
        description=row.description,
        within_fn=in_original_words,
    )


for _row in SETS:
    add_task(program_task(_row))
