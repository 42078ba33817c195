"""The Natural-Instructions tasks of the Flan Collection as rows: `tables/niv2.tsv`, read once.

The collection's list names 1,556 tasks; its papers count 1,554 and do not say which two they omit.
The two that this project omits are in the table with the reason (`omitted`).
"""

import dataclasses
import functools
import re
from collections.abc import Mapping

from instruct.data.sources.natural_instructions import cut_stem, normalized_stem
from tasks.table_files import read_table

# Published name of a data set -> our name. First data sets with two names in the list, then
# misspelt or overlong names.
UNITED = {
    "adverserial_qa": "adversarial_qa",
    "clue_cmrc2018": "cmrc2018",
    "math_qa": "mathqa",
    "pasinlu": "parsinlu",
    "rocstories": "roc_stories",
    "scitailv1.1": "scitail",
    "wiki_auto_all_data": "wiki_auto",
    "wsc; enhanced_wsc": "enhanced_wsc",
    "xcsr": "x_csr",
    "conll2022": "conll2002",
    "creak_2018": "creak",
    "curated_from_stack_overflow___english.": "stack_overflow_english",
    "help!_need_advice_on_identifying_advice": "need_advice",
    "librispeech_asr,": "librispeech_asr",
    "lj_speec": "lj_speech",
    "mathmatics_dataset": "mathematics_dataset",
    "prepositional_paraprasing": "prepositional_paraphrasing",
    "question_&_answer_zre": "qa_zre",
    "rotten_tomatoe": "rotten_tomatoes",
    "semeval_2019_task_10": "semeval_2019_task10",
    "semeval_2020_task_7": "semeval_2020_task7",
    "sms_spam_collection_v.1": "sms_spam_collection",
    "squad2.0": "squad_2.0",
    "universal_dependencies___english_dependency_treebank": "universal_dependencies_english",
    "wsc_fiexed": "wsc_fixed",
}

# Numbers of the copies of MMLU, a held-out benchmark; 672 and others between them are not.
_MMLU_NUMBERS = frozenset((*range(664, 668), *range(685, 738)))
_NUMBER = re.compile(r"task(\d+)_")


@dataclasses.dataclass(frozen=True)
class Niv2Row:
    """One task.

    Attributes:
        stem: name of the published file without ".json"; it may have hyphens and full stops.
        dataset: the source's name, spellings united.
        category: kind of task.
        languages: of inputs and outputs together.
        split, xlingual: its place in the official English and cross-lingual tracks: "train",
            "test" or "excluded".
        omitted: why this project omits the task; "" if it does not.
    """

    stem: str
    dataset: str
    category: str
    languages: tuple[str, ...]
    split: str
    xlingual: str
    omitted: str = ""

    @property
    def is_test(self) -> bool:
        """Whether it is a test task of one of the two tracks."""
        return "test" in (self.split, self.xlingual)

    @property
    def name(self) -> str:
        """The name of the task here."""
        return registry_name(self.stem)


def registry_name(stem: str) -> str:
    """Name of the task of that file, in characters that SeqIO allows.

    >>> registry_name("task1529_scitail1.1_classification")
    'niv2.task1529_scitail1_1_classification'
    """
    return "niv2." + re.sub(r"[^A-Za-z0-9_]+", "_", stem)


@functools.cache
def all_rows() -> tuple[Niv2Row, ...]:
    """The 1,556 tasks of the collection's list, in the order of their numbers."""
    return tuple(
        Niv2Row(
            row["task"],
            UNITED.get(row["dataset"], row["dataset"]),
            row["category"],
            tuple(row["languages"].split(", ")),
            row["split"],
            row["xlingual"],
            row["omitted"],
        )
        for row in read_table("niv2")
    )


@functools.cache
def niv2_rows() -> Mapping[str, Niv2Row]:
    """The 1,554 tasks that are not omitted, by stem."""
    return {row.stem: row for row in all_rows() if not row.omitted}


@functools.cache
def _listed() -> Mapping[str, Niv2Row]:
    """Rows by every spelling of their stems."""
    spell = (cut_stem, normalized_stem)
    return {spelled(row.stem): row for row in all_rows() for spelled in spell}


def find_row(stem: str) -> Niv2Row | None:
    """The row, omitted or not, of a task file on disk under any spelling of its name."""
    return _listed().get(normalized_stem(stem))


def is_mmlu(stem: str) -> bool:
    """Whether a task file is one of the 57 copies of MMLU by its number, or by its name."""
    stem = normalized_stem(stem)
    match = _NUMBER.match(stem)
    return "mmlu" in stem or (match is not None and int(match.group(1)) in _MMLU_NUMBERS)
