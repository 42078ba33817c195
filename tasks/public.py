"""Family `gsm8k`, tasks for a user's files that no table lists, and the mixture of all of them.

Importing this module looks at no file. It registers

    gsm8k.main          always, so that an error can name a missing folder

and, when tasks are looked up in a workspace, by the names of the files under its data folder,

    cot_files.<file>    a task for each cot/*.tsv that tasks/cot.py does not list
    niv2_files.<file>   a task for each natural_instructions/tasks/*.json that tasks/niv2/family.py
                        neither lists nor omits; never for copies of MMLU
    public.sample       the mixture of those of public.gsm8k, public.cot and public.niv2 whose files
                        exist, with equal shares

The additions are families of their own, so that the Flan Collection's mixtures are the same on
every machine.
"""

import functools
import logging
import re
from collections.abc import Callable, Iterable, Mapping
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
_log = logging.getLogger(__name__)
# Part of the mixture -> a family and the additions to it.
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
    return re.sub(r"\W+", "_", name)


_KINDS = re.compile(
    r"(classification|question_answering|(?:question|answer|text|sentence|dialogue)_generation"
    r"|generation|translation|summarization|(?:text_)?(?:modification|completion|matching))"
)


def _category(name: str) -> str:
    """The kind of task, guessed from a file's name; only the file itself has its category."""
    kinds = _KINDS.findall(name.lower().replace("-", "_"))
    return kinds[0].replace("_", " ") if kinds else "natural instructions"


def _files(workspace: Workspace, folder: str, pattern: str) -> list[str]:
    """Existing files that match the pattern, sorted, relative to the data folder.

    Without hidden ones, such as what macOS keeps beside each file of an archive.
    """
    paths = (workspace.data_dir / folder).glob(pattern)
    return sorted(f"{folder}/{path.name}" for path in paths if not path.name.startswith("."))


def find_specs(workspace: Workspace) -> list[TaskSpec]:
    """Tasks for the files that no table lists."""
    listed = {cot.cot_source(row).parts["train"].path for row in cot.SETS}
    cot_files = [file for file in _files(workspace, cot.FOLDER, "*.tsv") if file not in listed]
    niv2_files = [
        file
        for file in _files(workspace, FOLDER, "*.json")
        if find_row(Path(file).stem) is None and not is_mmlu(Path(file).stem)
    ]
    return [*_named(cot_task, cot_files), *_named(natural_instructions_task, niv2_files)]


def _named(make_task: Callable[[str], TaskSpec], files: Iterable[str]) -> Iterable[TaskSpec]:
    """The tasks of files; of files that give the same name only the first one's."""
    first: dict[str, str] = {}
    for file in files:
        spec = make_task(file)
        if first.setdefault(spec.name, file) == file:
            yield spec
        else:
            _warn_once(spec.name, first[spec.name], file)


@functools.cache
def _warn_once(name: str, first: str, file: str) -> None:
    """Tasks are looked up again and again."""
    _log.warning("%s is no task: %s is called %s already; rename one of them", file, first, name)


def _available(workspace: Workspace, name: str) -> Mapping[str, None]:
    """The tasks of one part of the sample whose files exist, by their numbers of records."""
    specs = task_specs(workspace, families=_MIXED[name]).values()
    return {spec.name: None for spec in specs if spec.source.available(workspace) is None}


def _sample(workspace: Workspace) -> Mapping[str, float]:
    """The parts with a file; without any GSM8K, whose error names the folder."""
    parts = [f"public.{name}" for name in _MIXED if _available(workspace, name)]
    return dict.fromkeys(parts or ["gsm8k.main"], 1.0)


add_task(gsm8k_task())
add_discovery(find_specs)
for _name in _MIXED:
    add_mixture(f"public.{_name}", functools.partial(_available, name=_name))
add_mixture(SAMPLE, _sample)
