"""Family `gsm8k`, task files on disk that no table lists, and the mixture of all of them.

Importing this module looks at no file. It registers

    gsm8k.main          always, so that a missing folder is reported by name

and, when tasks are looked up in a workspace, by the names of the files under its data folder,

    cot_files.<file>    one task for each cot/*.tsv that is none of tasks/cot.py
    niv2_files.<file>   one task for each natural_instructions/tasks/*.json that is none of
                        tasks/niv2/family.py; never for what that leaves out, nor for copies of MMLU
    public.sample       the mixture of public.gsm8k, public.cot and public.niv2, as far as their
                        files are there, each with an equal share

The additions are families of their own, so that the Flan Collection's mixtures are the same on
every machine.
"""

import functools
import re
from collections.abc import Mapping
from pathlib import Path

from instruct.data.registry import add_discovery, add_mixture, add_task, task_specs
from instruct.data.sources.natural_instructions import (
    EXEMPLARS,
    FOLDER,
    natural_instructions_source,
)
from instruct.data.sources.public_releases import Gsm8kSource, cot_tsv_source
from instruct.data.spec import SPLITS, TaskSpec
from instruct.eval import metrics
from instruct.workspace import Workspace
from tasks import cot
from tasks.answers import answer_reader, loose_exact_match, read_references, rouge_l_by_script
from tasks.niv2 import family as niv2
from tasks.niv2.table import find_row, is_mmlu
from tasks.wordings import wordings

SAMPLE = "public.sample"
COT_FILES, NIV2_FILES = "cot_files", "niv2_files"
# What is mixed: a family together with the additions to it.
_MIXED = {"gsm8k": ("gsm8k",), "cot": ("cot", COT_FILES), "niv2": ("niv2", NIV2_FILES)}


def gsm8k_task() -> TaskSpec:
    """GSM8K: word problems with worked solutions."""
    wording = wordings("gsm8k")["gsm8k"]
    return TaskSpec(
        name="gsm8k.main",
        family="gsm8k",
        dataset="main",
        category="arithmetic word problems",
        source=Gsm8kSource(),
        templates=wording,
        modes={"cot": 0.5, "direct": 0.25, "fs_noopt": 0.25},
        extra_modes=("fs_cot", "zs_inv", "fs_inv"),
        metric_fns=[metrics.number_match],
        postprocess_fn=answer_reader(wording),
        contamination_group="gsm8k",
        license="MIT",
        url="https://github.com/openai/grade-school-math",
        description="School arithmetic in words, answers with and without the working",
    )


def cot_task(path: str) -> TaskSpec:
    """A user's chain-of-thought file, `path` relative to the data folder."""
    source = cot_tsv_source(path)
    wording = cot.templates()
    return TaskSpec(
        name=f"{COT_FILES}.{_registry_name(source.name)}",
        family=COT_FILES,
        dataset=source.name,
        category="reasoning",
        source=source,
        templates=wording,
        modes=cot.MODES,
        extra_modes=cot.EXTRA_MODES,
        cap=cot.CAP,
        metric_fns=[metrics.exact_match],
        postprocess_fn=answer_reader(wording),
        description="Questions with an answer and the reasoning that leads to it",
    )


def natural_instructions_task(path: str) -> TaskSpec:
    """A Natural-Instructions task file, `path` relative to the data folder."""
    source = natural_instructions_source(path)
    return TaskSpec(
        name=f"{NIV2_FILES}.{_registry_name(source.name)}",
        family=NIV2_FILES,
        dataset=source.name,
        category=_category(source.name),
        source=source,
        templates=niv2.template_set(),
        modes={"zs_noopt": 0.5, "fs_noopt": 0.5},
        cap=niv2.CAP,
        metric_fns=[rouge_l_by_script, loose_exact_match],
        postprocess_fn=read_references,
        splits={split: split for split in (*SPLITS, EXEMPLARS)},
        exemplar_split=EXEMPLARS,
        license="Apache-2.0",
        url="https://github.com/allenai/natural-instructions",
        description="A task with its definition",
    )


def _registry_name(name: str) -> str:
    """A data set's name with the characters that SeqIO allows in names."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", name)


_KINDS = re.compile(
    r"(classification|question_answering|(?:question|answer|text|sentence|dialogue)_generation"
    r"|generation|translation|summarization|(?:text_)?(?:modification|completion|matching))"
)


def _category(name: str) -> str:
    """The kind of task, guessed from a file's name; only the file itself has its category."""
    kinds = _KINDS.findall(name.lower().replace("-", "_"))
    return kinds[0].replace("_", " ") if kinds else "natural instructions"


def _files(workspace: Workspace, folder: str, pattern: str) -> list[str]:
    """Files of that kind that are there, sorted, relative to the data folder."""
    paths = (workspace.data_dir / folder).glob(pattern)
    return sorted(f"{folder}/{path.name}" for path in paths)


def find_specs(workspace: Workspace) -> list[TaskSpec]:
    """Tasks for the files that no table knows."""
    tabled = {cot.cot_source(row).parts["train"].path for row in cot.SETS}
    specs = [
        cot_task(file) for file in _files(workspace, cot.FOLDER, "*.tsv") if file not in tabled
    ]
    for file in _files(workspace, FOLDER, "*.json"):
        stem = Path(file).stem
        if find_row(stem) is None and not is_mmlu(stem):
            specs.append(natural_instructions_task(file))
    return specs


def _there(workspace: Workspace, name: str) -> Mapping[str, None]:
    """The tasks of one part of the sample whose files are there, by their numbers of records."""
    specs = task_specs(workspace).values()
    members = (spec for spec in specs if spec.family in _MIXED[name])
    there = [spec for spec in members if spec.source.available(workspace) is None]
    return dict.fromkeys(spec.name for spec in there)


def _sample(workspace: Workspace) -> Mapping[str, float]:
    """The parts that are there; with no file at all GSM8K, whose message names the folder."""
    parts = [f"public.{name}" for name in _MIXED if _there(workspace, name)]
    return dict.fromkeys(parts or ["gsm8k.main"], 1.0)


add_task(gsm8k_task())
add_discovery(find_specs)
for _name in _MIXED:
    add_mixture(f"public.{_name}", functools.partial(_there, name=_name))
add_mixture(SAMPLE, _sample)
