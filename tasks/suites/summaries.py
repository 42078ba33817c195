"""Dialogue summaries: `dialogsum.main` (Chen et al. 2021) and `samsum.main` (Gliwa et al. 2019).

Both use the first wording that the family `flan2021` has for SAMSum. ROUGE is that of the
`rouge_score` package with stemming. A test dialogue of DialogSum has three references, and papers
differ in how they combine them: `rougeL` takes the best, `rougeL_mean` the mean over them,
`rougeL_first` the first alone. py-rouge, which dialogue papers use too, gives a ROUGE-L several
points higher: not comparable.

`dialogsum.main.direct` is a one-shot prompt, with the first dialogue of the training file.

You may train on DialogSum: its training file is no part of the Flan Collection. The collection
contains SAMSum's training split.

Files: dialogsum/dialogsum.{train,dev,test}.jsonl; samsum/{train,val,test}.json as corpus.7z has
them (or .jsonl). Else knkarthick/dialogsum and knkarthick/samsum as the Hugging Face hub has them
(CSV of id, dialogue, summary, topic; a test dialogue of DialogSum is three rows there), else SAMSum
from TensorFlow Datasets.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from instruct.data.registry import add_task
from instruct.data.sources.table_files import read_rows
from instruct.data.spec import TaskSpec
from instruct.errors import UserError
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from tasks.flan2021.family import flan2021_task, template_sets
from tasks.flan2021.table import TASKS
from tasks.suites.files import (
    HubSplit,
    SplitFiles,
    SuiteSource,
    hub_url,
    read_json,
    read_json_lines,
)
from tasks.suites.held_in import first_wording
from tasks.suites.reading import read_summary
from tasks.suites.scoring import rouge_references

URL = "https://github.com/cylnlp/dialogsum"
SAMSUM_URL = "https://arxiv.org/src/1911.12237v2/anc/corpus.7z"
DIALOGSUM_HUB, SAMSUM_HUB = "knkarthick/dialogsum", "knkarthick/samsum"


def read_dialogsum_rows(files: tuple[Path, ...]) -> Iterator[Record | Dropped]:
    """The hub's rows: id, dialogue, summary, topic; rows of one dialogue become one record.

    An id is "train_0", or "test_0_1" to "test_0_3" where a dialogue has three summaries.
    """
    for number, (_, group) in enumerate(itertools.groupby(read_rows(files), _dialogue_of)):
        rows: list[Any] = list(group)
        first = rows[0]
        if isinstance(first, Dropped):
            yield first
            continue
        summaries = [" ".join(str(row.get("summary") or "").split()) for row in rows]
        dialogue = first.get("dialogue")
        has_dialogue = isinstance(dialogue, str) and bool(dialogue.strip())
        parts = {"dialogue": has_dialogue, "summary": any(summaries)}
        lacking = tuple(name for name, is_there in parts.items() if not is_there)
        if lacking:
            yield Dropped("empty dialogue or summary", lacking=lacking).of_row(first)
            continue
        topics = [row["topic"] for row in rows if row.get("topic")]
        identity = re.sub(r"(_\d+)_\d+$", r"\1", str(first.get("id") or number))
        metadata = {"topics": topics}
        yield _summary_record(f"dialogsum-{identity}", first["dialogue"], summaries, metadata)


def _dialogue_of(row: Any) -> Any:
    """Key that the rows of one dialogue share; a rejected row has a key of its own."""
    if isinstance(row, Dropped):
        return id(row)
    dialogue = row.get("dialogue")
    if not isinstance(dialogue, str) or not dialogue.strip():
        return id(row)
    return re.sub(r"(_\d+)_\d+$", r"\1", str(row.get("id"))), dialogue


def _summary_record(
    identity: str, dialogue: str, summaries: Sequence[str], metadata: Mapping[str, Any]
) -> Record:
    fields = {"dialogue": "\n".join(turn.strip() for turn in dialogue.strip().split("\n"))}
    references = tuple(filter(None, summaries))
    return Record(identity, fields, references[0], references=references, metadata=metadata)


def read_dialogsum(path: Path) -> Iterator[Record | Dropped]:
    """JSON lines with a dialogue and one summary ("summary"), or three ("summary1", ...).

    Topics go into the metadata.
    """
    for _, row in read_json_lines(path):
        try:
            names = [name for name in ("", "1", "2", "3") if f"summary{name}" in row]
            summaries = [" ".join(row[f"summary{name}"].split()) for name in names]
            topics = [row[f"topic{name}"] for name in names if f"topic{name}" in row]
            dialogue, identity = row["dialogue"].strip(), f"dialogsum-{row['fname']}"
        except (KeyError, TypeError, ValueError, AttributeError):
            yield Dropped("line is not a dialogue with a summary")
            continue
        if dialogue and any(summaries):
            yield _summary_record(identity, dialogue, summaries, {"topics": topics})
        else:
            yield Dropped("empty dialogue or summary").of_row(row)


def dialogsum_task() -> TaskSpec:
    """DialogSum."""
    own = {
        split: SplitFiles(read_dialogsum, (f"dialogsum/dialogsum.{name}.jsonl",))
        for split, name in {"test": "test", "validation": "dev", "train": "train"}.items()
    }
    hub = {
        split: SplitFiles(read_dialogsum_rows, (HubSplit(DIALOGSUM_HUB, None, split),))
        for split in own
    }
    fallback = SuiteSource("DialogSum", hub, hub_url(DIALOGSUM_HUB))
    return TaskSpec(
        name="dialogsum.main",
        family="dialogsum",
        dataset="dialogsum",
        category="Summarization",
        source=SuiteSource("DialogSum", own, f"{URL} (DialogSum_Data)", fallback),
        templates=first_wording(template_sets()["dialogue_summary"]),
        modes={"zs_noopt": 1.0},
        extra_modes=("fs_noopt", "direct"),
        shots=1,
        metric_fns=[rouge_references],
        postprocess_fn=read_summary,
        num_examples={"train": 12_460, "validation": 500, "test": 500},
        contamination_group="dialogsum",
        license="CC-BY-NC-SA-4.0",
        url=URL,
        description="Summaries of everyday dialogues, three references a test dialogue",
    )


def read_samsum(path: Path) -> Iterator[Record | Dropped]:
    """A JSON list, or JSON lines, of id, dialogue and summary.

    Raises:
        UserError: a `.json` file that is not a list.
    """
    if path.suffix == ".json":
        rows = read_json(path)
        if not isinstance(rows, list):
            raise UserError(f"{path} is not SAMSum's list of dialogues; get it from {SAMSUM_URL}")
    else:
        rows = [row for _, row in read_json_lines(path)]
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
        if dialogue and summary:
            yield _summary_record(f"samsum-{identity}", dialogue, [summary], {})
        else:
            yield Dropped("empty dialogue or summary").of_row(row)


def samsum_task() -> TaskSpec:
    """SAMSum, as `flan2021.samsum` has it, in one wording and with all of ROUGE."""
    spec = flan2021_task(TASKS["samsum"])
    own = {
        split: SplitFiles(read_samsum, ((f"samsum/{name}.json", f"samsum/{name}.jsonl"),))
        for split, name in {"train": "train", "validation": "val", "test": "test"}.items()
    }
    hub = {
        split: SplitFiles(
            read_samsum_rows,
            (tuple(HubSplit(path, None, split) for path in (SAMSUM_HUB, "Samsung/samsum")),),
        )
        for split in own
    }
    fallbacks = (spec.source, SuiteSource("SAMSum", hub, hub_url(SAMSUM_HUB)))
    return dataclasses.replace(
        spec,
        name="samsum.main",
        family="samsum",
        source=SuiteSource("SAMSum", own, SAMSUM_URL, fallbacks),
        templates=first_wording(spec.templates),
        modes={"zs_noopt": 1.0},
        extra_modes=("fs_noopt",),
        metric_fns=[rouge_references],
        postprocess_fn=read_summary,
    )


for _task in (dialogsum_task(), samsum_task()):
    add_task(_task)
