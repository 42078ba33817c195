"""Family `gsm8k`, task files on disk that no table lists, and the mixture of all of them.

Importing this module looks at the names of the files under the data folder (DATA_DIR, else
INSTRUCT_DATA_DIR, else ~/instruct_data), opens none of them, and registers

    gsm8k.main          always, so that a missing folder is reported by name
    cot_files.<file>    one task for each cot/*.tsv that is none of tasks/cot.py
    niv2_files.<file>   one task for each natural_instructions/tasks/*.json that is none of
                        tasks/niv2/family.py; never for what that leaves out, nor for copies of MMLU
    public.sample       the mixture of gsm8k, cot and niv2, as far as their files are there, each
                        with an equal share

The additions are families of their own, so that the Flan Collection's mixtures are the same on
every machine.

The data folder must therefore be set before the import; `register()` may be called again after
it has changed and adds what is new to the tasks, but a mixture once registered stays as it is.
"""

import re
from pathlib import Path

from instruct.data.registry import add_mixture, add_task, all_names, task_specs
from instruct.data.sources.files import data_dir
from instruct.data.sources.natural_instructions import (
    EXEMPLARS,
    FOLDER,
    natural_instructions_source,
)
from instruct.data.sources.public_releases import Gsm8kSource, cot_tsv_source
from instruct.data.spec import SPLITS, TaskSpec
from instruct.eval import metrics
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


def _files(folder: str, pattern: str) -> list[str]:
    """Files of that kind that are there, sorted, relative to the data folder."""
    return sorted(f"{folder}/{path.name}" for path in (data_dir() / folder).glob(pattern))


def _additions() -> list[TaskSpec]:
    """Tasks for the files that no table knows."""
    tabled = {cot.cot_source(row).parts["train"].path for row in cot.SETS}
    specs = [cot_task(file) for file in _files(cot.FOLDER, "*.tsv") if file not in tabled]
    for file in _files(FOLDER, "*.json"):
        stem = Path(file).stem
        if find_row(stem) is None and not is_mmlu(stem):
            specs.append(natural_instructions_task(file))
    return specs


def register() -> None:
    """Registers what is there and is not registered yet."""
    for spec in (gsm8k_task(), *_additions()):
        if spec.name not in task_specs():
            add_task(spec)
    if SAMPLE in all_names():
        return
    rates = {}
    for name, families in _MIXED.items():
        there = [
            spec.name
            for spec in task_specs().values()
            if spec.family in families and spec.source.available() is None
        ]
        if there:
            add_mixture(f"public.{name}", dict.fromkeys(there))
            rates[f"public.{name}"] = 1.0
    # With no file at all the mixture still exists, so that the message names the folder.
    add_mixture(SAMPLE, rates or {"gsm8k.main": 1.0})


register()
