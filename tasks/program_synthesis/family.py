"""Family `program_synthesis`: repairing and writing programs.

    program_synthesis.dr_repair_<variant>    DrRepair, four ways of showing the errors
    program_synthesis.code_contests          DeepMind's CodeContests in Python

The Flan Collection counts these five, but its public release lacks them. The inverted modes,
which ask for a faulty program or for the statement of a problem, have 0.3 of the rate of the
others. Importing this module registers the tasks and reads no data. No program is ever run.
"""

from collections.abc import Mapping, Sequence
from typing import Any

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


def template_sets() -> Mapping[str, TemplateSet]:
    """All template sets of the family by name."""
    return wordings("synthesis")


def code_match(targets: Sequence[metrics.Target], predictions: Sequence[str]) -> dict[str, float]:
    """Share of predictions (0-100) that equal a reference, blanks and line breaks aside."""
    references = [[_tokens(r) for r in metrics.references_of(target)] for target in targets]
    scores = metrics.exact_match(references, [_tokens(prediction) for prediction in predictions])
    return {"code_match": scores["exact_match"]}


def _tokens(code: str) -> str:
    return " ".join(code.split())


def _task(dataset: str, source: Source, templates: str, **values: Any) -> TaskSpec:
    return TaskSpec(
        name=f"{FAMILY}.{dataset}",
        family=FAMILY,
        dataset=dataset,
        source=source,
        templates=template_sets()[templates],
        modes=MODES,
        cap=CAP,
        metric_fns=[code_match, rouge_l],
        postprocess_fn=read_references,
        within_fn=in_original_words,
        **values,
    )


def _repair(variant: str, templates: str, description: str) -> TaskSpec:
    return _task(
        f"dr_repair_{variant}",
        DrRepairSource(variant=variant),
        templates,
        num_examples=expected_records(hashed_parts("dr_repair"), DR_REPAIR_PROGRAMS),
        category="Code Repair",
        license="MIT",
        url="https://github.com/michiyasunaga/DrRepair",
        description=description,
        contamination_group="dr_repair",
    )


SPECS = (
    _repair("plain_code", "code_repair", "A program that does not compile"),
    _repair("line_numbers", "code_repair_error", "The same, numbered, with the first error"),
    # The error is already in its code, so no prompt may show it separately or ask for it.
    _repair("error_comments", "code_repair", "The same with the error as a comment"),
    _repair("no_errors", "code_repair", "The same, numbered, without the error"),
    _task(
        "code_contests",
        HuggingFaceSource(
            "deepmind/code_contests",
            parts={"train": "train", "validation": "valid", "test": "test"},
            to_record=code_contests_record,
            columns=CODE_CONTESTS_COLUMNS,
            name="code_contests",
        ),
        "program",
        num_examples={"train": 8_000, "validation": 100, "test": 130},
        category="Code Generation",
        license="CC-BY-4.0",
        url="https://github.com/google-deepmind/code_contests",
        description="Problems of programming contests and right solutions in Python 3",
        contamination_group="code_contests",
    ),
)

for _spec in SPECS:
    add_task(_spec)
