"""Dialogue summaries: `dialogsum.main` (Chen et al. 2021) and `samsum.main` (Gliwa et al. 2019).

Both are asked in the first wording that the family `flan2021` has for SAMSum. ROUGE is that of the
`rouge_score` package with stemming; a test dialogue of DialogSum has three references, and papers
differ in what they do with them: `rougeL` takes the best, `rougeL_mean` the mean over them,
`rougeL_first` the first alone. py-rouge, which dialogue papers use too, gives a ROUGE-L several
points higher: not comparable.

DialogSum may be trained on (its training file is no part of the Flan Collection). SAMSum's
training split is trained on there.

Files: dialogsum/dialogsum.{train,dev,test}.jsonl; samsum/{train,val,test}.json as corpus.7z has
them (or .jsonl). Else knkarthick/dialogsum and knkarthick/samsum as the Hugging Face hub has them
(CSV of id, dialogue, summary, topic; a test dialogue of DialogSum is three rows there), else SAMSum
from TensorFlow Datasets.
"""

import dataclasses
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from instruct.data.registry import add_task
from instruct.data.sources.files import read_lines
from instruct.data.sources.table_files import read_rows
from instruct.data.spec import TaskSpec
from instruct.errors import UserError
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from tasks.flan2021.family import flan2021_task, template_sets
from tasks.flan2021.table import TASKS
from tasks.suites.files import HubSplit, SplitFiles, SuiteSource, read_json
from tasks.suites.held_in import first_wording
from tasks.suites.reading import read_summary
from tasks.suites.scoring import rouge_references

URL = "https://github.com/cylnlp/dialogsum"
SAMSUM_URL = "https://arxiv.org/src/1911.12237v2/anc/corpus.7z"
DIALOGSUM_HUB, SAMSUM_HUB = "knkarthick/dialogsum", "knkarthick/samsum"
SIZES = {"train": 12_460, "validation": 500, "test": 500}
_FILES = {"test": "test", "validation": "dev", "train": "train"}


def read_dialogsum_rows(files: tuple[Path, ...]) -> Iterator[Record | Dropped]:
    """The hub's rows: id, dialogue, summary, topic; rows of one dialogue become one record.

    An id is "train_0", or "test_0_1" to "test_0_3" where a dialogue has three summaries.
    """
    groups = itertools.groupby(read_rows(files), _dialogue_of)
    for number, (_, group) in enumerate(groups):
        rows: list[Any] = list(group)
        lacking = _lacking(rows[0], ("dialogue", "summary"))
        if lacking is not None:
            yield lacking
            continue
        summaries = [" ".join(str(row.get("summary") or "").split()) for row in rows]
        topics = [row["topic"] for row in rows if row.get("topic")]
        identity = re.sub(r"(_\d+)_\d+$", r"\1", str(rows[0].get("id") or number))
        yield _summary_record(f"dialogsum-{identity}", rows[0]["dialogue"], summaries, topics)


def _dialogue_of(row: Any) -> Any:
    """Key that the rows of one dialogue share; a rejected row has a key of its own."""
    dialogue = None if isinstance(row, Dropped) else row.get("dialogue")
    if not isinstance(dialogue, str) or not dialogue.strip():
        return id(row)
    return re.sub(r"(_\d+)_\d+$", r"\1", str(row.get("id"))), dialogue


def _lacking(row: Any, names: Sequence[str]) -> Dropped | None:
    """The rejection of a row that lacks some of these texts; None if it has all."""
    if isinstance(row, Dropped):
        return row
    empty = [n for n in names if not isinstance(row.get(n), str) or not row[n].strip()]
    dropped = Dropped("empty dialogue or summary", lacking=tuple(empty))
    return dropped.of_row(row) if empty else None


def _summary_record(
    identity: str, dialogue: str, summaries: Sequence[str], topics: Sequence[str]
) -> Record:
    summaries = [summary for summary in summaries if summary]
    return Record(
        identity,
        {"dialogue": "\n".join(turn.strip() for turn in dialogue.strip().split("\n"))},
        summaries[0],
        references=tuple(summaries),
        metadata={"topics": topics},
    )


def read_dialogsum(path: Path) -> Iterator[Record | Dropped]:
    """JSON lines with a dialogue and one summary ("summary"), or three ("summary1", ...).

    Topics go into the metadata.
    """
    for _, _, line in read_lines(path):
        try:
            row = json.loads(line or "")
            names = [name for name in ("", "1", "2", "3") if f"summary{name}" in row]
            summaries = [" ".join(row[f"summary{name}"].split()) for name in names]
            topics = [row[f"topic{name}"] for name in names if f"topic{name}" in row]
            dialogue, identity = row["dialogue"].strip(), f"dialogsum-{row['fname']}"
        except (KeyError, TypeError, ValueError, AttributeError):
            yield Dropped("line is not a dialogue with a summary")
            continue
        if not dialogue or not any(summaries):
            yield Dropped("empty dialogue or summary").of_row(row)
            continue
        yield _summary_record(identity, dialogue, summaries, topics)


def dialogsum_task() -> TaskSpec:
    """DialogSum."""
    parts = {
        split: SplitFiles(read_dialogsum, (f"dialogsum/dialogsum.{name}.jsonl",))
        for split, name in _FILES.items()
    }
    hub = {
        split: SplitFiles(read_dialogsum_rows, (HubSplit(DIALOGSUM_HUB, None, split),))
        for split in _FILES
    }
    hub_source = SuiteSource("DialogSum", hub, f"https://huggingface.co/datasets/{DIALOGSUM_HUB}")
    return TaskSpec(
        name="dialogsum.main",
        family="dialogsum",
        dataset="dialogsum",
        category="Summarization",
        source=SuiteSource("DialogSum", parts, f"{URL} (DialogSum_Data)", fallback=hub_source),
        templates=first_wording(template_sets()["dialogue_summary"]),
        modes={"zs_noopt": 1.0},
        extra_modes=("fs_noopt",),
        metric_fns=[rouge_references],
        postprocess_fn=read_summary,
        num_examples=SIZES,
        contamination_group="dialogsum",
        license="CC-BY-NC-SA-4.0",
        url=URL,
        description="Summaries of everyday dialogues, three references a test dialogue",
    )


def read_samsum(path: Path) -> Iterator[Record | Dropped]:
    """A JSON list, or JSON lines, of id, dialogue and summary.

    Raises:
        UserError: a `.json` file that is no list.
    """
    rows: list[Any] = []
    if path.suffix == ".json":
        rows = read_json(path)
        if not isinstance(rows, list):
            raise UserError(f"{path} is not SAMSum's list of dialogues; get it from {SAMSUM_URL}")
    else:
        for _, _, line in read_lines(path):
            try:
                rows.append(json.loads(line or ""))
            except ValueError:
                rows.append(None)
    yield from _samsum_records(rows)


def read_samsum_rows(files: tuple[Path, ...]) -> Iterator[Record | Dropped]:
    """The hub's rows: id, dialogue, summary."""
    yield from _samsum_records(read_rows(files))


def _samsum_records(rows: Iterable[Any]) -> Iterator[Record | Dropped]:
    for number, row in enumerate(rows):
        if isinstance(row, Dropped):
            yield row
            continue
        try:
            dialogue, summary = row["dialogue"].strip(), " ".join(row["summary"].split())
            identity = row.get("id") or number
        except (KeyError, TypeError, AttributeError):
            yield Dropped("row is not a dialogue with a summary").of_row(row)
            continue
        if not dialogue or not summary:
            yield Dropped("empty dialogue or summary").of_row(row)
            continue
        fields = {"dialogue": "\n".join(turn.strip() for turn in dialogue.split("\n"))}
        yield Record(f"samsum-{identity}", fields, summary, references=(summary,))


def samsum_task() -> TaskSpec:
    """SAMSum, as `flan2021.samsum` has it, in one wording and with all of ROUGE."""
    row = TASKS["samsum"]
    spec = flan2021_task(row)
    names = {"train": "train", "validation": "val", "test": "test"}
    parts = {
        split: SplitFiles(read_samsum, (tuple(f"samsum/{name}{e}" for e in (".json", ".jsonl")),))
        for split, name in names.items()
    }
    hub_parts = {
        split: SplitFiles(
            read_samsum_rows,
            (tuple(HubSplit(path, None, split) for path in (SAMSUM_HUB, "Samsung/samsum")),),
        )
        for split in names
    }
    hub = SuiteSource("SAMSum", hub_parts, f"https://huggingface.co/datasets/{SAMSUM_HUB}")
    return dataclasses.replace(
        spec,
        name="samsum.main",
        family="samsum",
        source=SuiteSource("SAMSum", parts, SAMSUM_URL, fallback=(spec.source, hub)),
        templates=first_wording(spec.templates),
        modes={"zs_noopt": 1.0},
        extra_modes=("fs_noopt",),
        metric_fns=[rouge_references],
        postprocess_fn=read_summary,
    )


for _task in (dialogsum_task(), samsum_task()):
    add_task(_task)
