"""MMLU (Hendrycks et al. 2021): 57 tasks `mmlu.<subject>`, four choices each.

    direct   five exemplars from the dev file; the prompts equal those of lm-evaluation-harness's
             `mmlu`, from which the publisher's code differs by a second blank before the subject's
             name and by blanks around the question
    cot      the five reasoned exemplars that Chung et al. 2022 published (mmlu-cot.json of
             jasonwei20/flan-2: subject -> prompt)
    zs_direct, zs_cot   the same without exemplars

Files: mmlu/{dev,val,test}/<subject>_{dev,val,test}.csv and mmlu/mmlu-cot.json. Else cais/mmlu as
the Hugging Face hub has it, by subject or all subjects in one file (`all`).
"""

import csv
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from instruct.data.registry import add_task
from instruct.data.sources.files import NOT_UTF8, csv_cells, has_bad_bytes
from instruct.data.sources.huggingface import HuggingFaceSource
from instruct.data.sources.table_files import read_rows
from instruct.data.spec import TaskSpec
from instruct.errors import UserError
from instruct.eval import metrics
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from tasks.suites.files import HubSplit, SplitFiles, SuiteSource, broken_csv, hub_url, read_json
from tasks.suites.reading import read_asked, read_choice
from tasks.suites.scoring import HARNESS_MMLU, strict_mmlu
from tasks.suites.task import suite_task

FAMILY = "mmlu"
SHOTS = 5
HUB = "cais/mmlu"
LETTERS = ("A", "B", "C", "D")
ORIGIN = (
    "https://people.eecs.berkeley.edu/~hendrycks/data.tar (dev, val, test) and "
    "https://github.com/jasonwei20/flan-2 (mmlu-cot.json)"
)

# Subjects by the publisher's four groups.
SUBJECTS: dict[str, tuple[str, ...]] = {
    "STEM": (
        "abstract_algebra", "anatomy", "astronomy", "college_biology", "college_chemistry",
        "college_computer_science", "college_mathematics", "college_physics",
        "computer_security", "conceptual_physics", "electrical_engineering",
        "elementary_mathematics", "high_school_biology", "high_school_chemistry",
        "high_school_computer_science", "high_school_mathematics", "high_school_physics",
        "high_school_statistics", "machine_learning",
    ),
    "humanities": (
        "formal_logic", "high_school_european_history", "high_school_us_history",
        "high_school_world_history", "international_law", "jurisprudence", "logical_fallacies",
        "moral_disputes", "moral_scenarios", "philosophy", "prehistory", "professional_law",
        "world_religions",
    ),
    "social sciences": (
        "econometrics", "high_school_geography", "high_school_government_and_politics",
        "high_school_macroeconomics", "high_school_microeconomics", "high_school_psychology",
        "human_sexuality", "professional_psychology", "public_relations", "security_studies",
        "sociology", "us_foreign_policy",
    ),
    "other": (
        "business_ethics", "clinical_knowledge", "college_medicine", "global_facts",
        "human_aging", "management", "marketing", "medical_genetics", "miscellaneous",
        "nutrition", "professional_accounting", "professional_medicine", "virology",
    ),
}  # fmt: skip


def subject_names() -> tuple[str, ...]:
    """The 57 subjects in alphabetical order."""
    return tuple(sorted(name for names in SUBJECTS.values() for name in names))


def _record(
    record_id: str,
    subject: str,
    question: str,
    choices: Sequence[str],
    index: int,
    rationale: str = "",
    listed: str = "",
) -> Record | Dropped:
    """A record; reasoned prompts show the choices as `listed`, by default on one line.

    As in lm-evaluation-harness, prompts keep the blanks around choices and drop those around the
    question.
    """
    question, options = question.strip(), tuple(choice.strip() for choice in choices)
    if not question or not options[index]:
        return Dropped("empty question or answer")
    line = " ".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices))
    fields = dict(zip("abcd", choices)) | {
        "question": question,
        "subject": subject.replace("_", " "),
        "listed": listed or line,
    }
    return Record(record_id, fields, options[index], options, index, rationale=rationale)


def _rows(path: Path) -> Iterator[list[str]]:
    """Rows that are not blank; bytes that are not UTF-8 become lone surrogates.

    Raises:
        UserError: a quote is not closed, which would make one question of it and those after it.
    """
    for line, _, cells in csv_cells(path, strict=True):
        # Line ends inside quoted cells are those of the file.
        row = [cell.replace("\r\n", "\n") for cell in cells or ()]
        if cells is None or any(map(_holds_row, row)):
            raise broken_csv(path, line)
        yield row


def _holds_row(cell: str) -> bool:
    """Whether a line of a cell is a question with its choices and answer.

    A stray quote at the end of a later cell closes one that was left open, which is then no error.
    """
    lines = (next(csv.reader([line]), []) for line in cell.split("\n")[:-1])
    return any(
        len(cells) == 6 and _index_of(cells[5]) >= 0 and any(map(str.isalpha, cells[0]))
        for cells in lines
    )


def _index_of(answer: str) -> int:
    """The number of "A" to "D" or "0" to "3"; -1 for anything else."""
    if answer.isdecimal() and int(answer) < len(LETTERS):
        return int(answer)
    return LETTERS.index(answer) if answer in LETTERS else -1


def read_csv(path: Path, subject: str, split: str) -> Iterator[Record | Dropped]:
    """Rows of question, four choices and the answer, "A" to "D" or its number from 0.

    Skips a first line of column names, which some copies have. Raises UserError for quotes that do
    not enclose whole cells.
    """
    number = -1
    for row in _rows(path):
        answer = row[-1].strip()
        index = _index_of(answer)
        if number < 0 and index < 0 and answer.lower() == "answer":
            continue
        number += 1
        if has_bad_bytes(row):
            yield Dropped(NOT_UTF8)
        elif len(row) != 6:
            yield Dropped("line does not have 6 columns")
        elif index < 0:
            yield Dropped("the answer is none of A, B, C, D")
        else:
            yield _record(f"mmlu-{subject}-{split}-{number}", subject, row[0], row[1:5], index)


# An exemplar has four choices or five, on one line or a line each.
_BLOCK = re.compile(
    r"Q: (?P<question>.*)\n(?P<choices>\(A\) .*)\nA: Let's think step by step\."
    r"(?P<rationale>.*answer is \(?(?P<letter>[A-E])\)?.{0,2})",
    re.DOTALL,
)
_CHOICE = re.compile(r"(?:^|\s)\(([A-E])\) ")


def read_reasoned(path: Path, subject: str) -> Iterator[Record | Dropped]:
    """The exemplars of one subject from the file of prompts, their text unchanged."""
    prompts = read_json(path)
    if not isinstance(prompts, dict) or not isinstance(prompts.get(subject), str):
        raise UserError(f"{path} has no prompt of subject {subject!r}; get it from {ORIGIN}")
    for number, block in enumerate(re.split(r"\n\n(?=Q: )", prompts[subject])[1:]):
        match = _BLOCK.fullmatch(block.rstrip())
        _, *parts = _CHOICE.split(match["choices"]) if match else [""]
        letters, choices = parts[::2], parts[1::2]
        if match is None or "".join(letters) not in ("ABCD", "ABCDE"):
            yield Dropped("exemplar is not of the published form")
        elif match["letter"] not in letters:
            yield Dropped("the answer is none of the choices")
        else:
            question, listed, rationale, letter = match.groups()
            identity, index = f"mmlu-{subject}-cot-{number}", letters.index(letter)
            yield _record(identity, subject, question, choices, index, rationale, listed)


def _from_hub(row: Mapping[str, Any], record_id: str, subject: str) -> Record | Dropped:
    """A record from a row of cais/mmlu."""
    choices, answer = row.get("choices"), row.get("answer")
    choices = choices if isinstance(choices, list) else []
    if [type(c) for c in choices] != [str] * 4 or not isinstance(answer, int):
        return Dropped("row has no four choices and an answer")
    if not 0 <= answer < 4:
        return Dropped("the answer is none of A, B, C, D")
    question = row.get("question")
    question = question if isinstance(question, str) else ""  # null is no text "None"
    return _record(record_id, subject, question, choices, answer)


def read_hub_rows(files: tuple[Path, ...], subject: str, split: str) -> Iterator[Record | Dropped]:
    """Rows of cais/mmlu: question, choices, answer; of files with all subjects the subject's."""
    number = 0
    for row in read_rows(files):
        if isinstance(row, Dropped):
            yield row
        elif row.get("subject", subject) == subject:
            item = _from_hub(row, f"mmlu-{subject}-{split}-{number}", subject)
            yield item.of_row(row) if isinstance(item, Dropped) else item
            number += 1


def mmlu_source(subject: str) -> SuiteSource:
    """The files of a subject; where they are missing, cais/mmlu in the hub's layout."""

    def part(split: str, folder: str) -> SplitFiles:
        names = tuple(f"mmlu/{more}{folder}/{subject}_{folder}.csv" for more in ("", "data/"))
        return SplitFiles(functools.partial(read_csv, subject=subject, split=split), (names,))

    def hub_part(split: str) -> SplitFiles:
        read = functools.partial(read_hub_rows, subject=subject, split=split)
        return SplitFiles(read, (tuple(HubSplit(HUB, name, split) for name in (subject, "all")),))

    reasoned = functools.partial(read_reasoned, subject=subject)
    hub_splits = ("validation", "test", "dev")
    to_record = functools.partial(_from_hub, subject=subject)
    columns = ("question", "choices", "answer")
    name = f"MMLU {subject}"
    return SuiteSource(
        name,
        {
            "test": part("test", "test"),
            "validation": part("validation", "val"),
            "dev": part("dev", "dev"),
            "dev_cot": SplitFiles(reasoned, ("mmlu/mmlu-cot.json",)),
        },
        ORIGIN,
        (
            HuggingFaceSource(
                HUB, subject, {split: split for split in hub_splits}, to_record, columns=columns
            ),
            SuiteSource(name, {split: hub_part(split) for split in hub_splits}, hub_url(HUB)),
        ),
    )


def mmlu_task(subject: str, group: str) -> TaskSpec:
    """The task of a subject."""
    return suite_task(
        f"{FAMILY}.{subject}",
        mmlu_source(subject),
        "mmlu",
        category=group,
        modes={"direct": 1.0, "cot": 1.0},
        extra_modes=("zs_direct", "zs_cot"),
        version="1.1.0",
        metric_fns=[metrics.exact_match, strict_mmlu],
        mode_metric_fns={
            mode: [metrics.exact_match, theirs] for mode, theirs in HARNESS_MMLU.items()
        },
        postprocess_fn=functools.partial(read_asked, read=read_choice),
        exemplar_split="dev",
        cot_exemplar_split="dev_cot",
        shots=SHOTS,
        reasoned_reply="The answer is ({answer}).",
        contamination_group="mmlu",
        held_out="mmlu",
        license="MIT",
        url="https://github.com/hendrycks/test",
        description=f"Four-choice exam questions: {subject.replace('_', ' ')}",
    )


for _subject in subject_names():
    add_task(mmlu_task(_subject, next(g for g, names in SUBJECTS.items() if _subject in names)))
