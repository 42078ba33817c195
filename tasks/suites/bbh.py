"""BIG-Bench Hard (Suzgun et al. 2022): 27 tasks `bbh.<sub-task>`.

    cot      the three reasoned exemplars of the published prompt file
    direct   the same three with their answers alone
    zs_direct, zs_cot   the same without exemplars

Answers must equal the target exactly, "(A)" or "yes", as published. The answer is the rest of the
line after the last "answer is", without the full stop, if the prompt asks for reasoning; else the
first line.

Files: bbh/bbh/<sub-task>.json and bbh/cot-prompts/<sub-task>.txt. Both are needed, since the prompt
file also holds the description that heads every prompt. Examples may be lukaemon/bbh or
maveriq/bigbenchhard as the Hugging Face hub has them.
"""

import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from instruct.data.registry import add_task
from instruct.data.sources.table_files import read_rows
from instruct.data.spec import TaskSpec
from instruct.errors import UserError
from instruct.eval import metrics
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from tasks.suites.files import HubSplit, SplitFiles, SuiteSource, hub_url, read_json, read_text
from tasks.suites.reading import read_asked, read_exact
from tasks.suites.scoring import harness_bbh, strict_bbh
from tasks.suites.task import suite_task

FAMILY = "bbh"
SHOTS = 3
# Name on the hub -> its only split.
HUBS = {"lukaemon/bbh": "test", "maveriq/bigbenchhard": "train"}
URL = "https://github.com/suzgunmirac/BIG-Bench-Hard"

_YES_NO, _TRUE_FALSE = ("Yes", "No"), ("True", "False")


class SubTask(NamedTuple):
    """A row of the table.

    Attributes:
        name: of the files.
        kind: "nlp" or "algorithmic", the publisher's two groups.
        records: number of examples in the file.
        labels: all possible answers, if they are a closed set that no prompt lists; else ().
    """

    name: str
    kind: str
    records: int = 250
    labels: tuple[str, ...] = ()


SUB_TASKS = (
    SubTask("boolean_expressions", "algorithmic", labels=_TRUE_FALSE),
    SubTask("causal_judgement", "nlp", 187),
    SubTask("date_understanding", "nlp"),
    SubTask("disambiguation_qa", "nlp"),
    SubTask("dyck_languages", "algorithmic"),
    SubTask("formal_fallacies", "nlp"),
    SubTask("geometric_shapes", "algorithmic"),
    SubTask("hyperbaton", "nlp"),
    SubTask("logical_deduction_five_objects", "algorithmic"),
    SubTask("logical_deduction_seven_objects", "algorithmic"),
    SubTask("logical_deduction_three_objects", "algorithmic"),
    SubTask("movie_recommendation", "nlp"),
    SubTask("multistep_arithmetic_two", "algorithmic"),
    SubTask("navigate", "algorithmic"),
    SubTask("object_counting", "algorithmic"),
    SubTask("penguins_in_a_table", "nlp", 146),
    SubTask("reasoning_about_colored_objects", "nlp"),
    SubTask("ruin_names", "nlp"),
    SubTask("salient_translation_error_detection", "nlp"),
    SubTask("snarks", "nlp", 178),
    SubTask("sports_understanding", "nlp", labels=("yes", "no")),
    SubTask("temporal_sequences", "algorithmic"),
    SubTask("tracking_shuffled_objects_five_objects", "algorithmic"),
    SubTask("tracking_shuffled_objects_seven_objects", "algorithmic"),
    SubTask("tracking_shuffled_objects_three_objects", "algorithmic"),
    SubTask("web_of_lies", "algorithmic", labels=_YES_NO),
    SubTask("word_sorting", "algorithmic"),
)

_LETTERED = re.compile(r"^(\([A-Z]\)) ", re.MULTILINE)
_LISTED = re.compile(r"^- (.+?)\s*$", re.MULTILINE)
_CUE = "Let's think step by step."
_ANSWER = re.compile(r"[Tt]he answer is (.*?)\.?\s*\Z", re.DOTALL)


def options_of(question: str, answer: str, labels: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The answers that a question allows: letters or labels it lists, else `labels`.

    () if the right answer is not among them, as in the few rows that lack its letter.

    >>> options_of("Which?\\nOptions:\\n(A) this\\n(B) that", "(B)")
    ('(A)', '(B)')
    """
    _, mark, block = question.rpartition("\nOptions:\n")
    options = tuple(_LETTERED.findall(block) or _LISTED.findall(block)) if mark else labels
    return options if answer in options else ()


def _record(
    record_id: str, row: SubTask, description: str, question: str, answer: str, rationale: str = ""
) -> Record | Dropped:
    question, answer = question.replace("\r\n", "\n").strip(), answer.strip()
    if not question or not answer:
        return Dropped("empty question or answer")
    options = options_of(question, answer, row.labels)
    index = options.index(answer) if options else -1
    fields = {"question": question, "description": description}
    return Record(record_id, fields, answer, options, index, rationale=rationale)


def prompt_parts(path: Path) -> tuple[str, list[str]]:
    """(the description that heads every prompt, its exemplars, "Q: ..." each) of a prompt file.

    Raises:
        UserError: the file has another form.
    """
    text = read_text(path)
    head, *blocks = re.split(r"\n\n(?=Q: )", text.rpartition("-----\n")[2].strip())
    if not blocks or f"\nA: {_CUE}" not in blocks[0]:
        raise UserError(f"{path} is not a prompt file of BIG-Bench Hard; get it from {URL}")
    return head.strip(), blocks


def read_exemplars(prompts: Path, row: SubTask) -> Iterator[Record | Dropped]:
    """The exemplars of a prompt file; the rationale is all text after the cue, unchanged."""
    description, blocks = prompt_parts(prompts)
    for number, block in enumerate(blocks):
        question, cue, rationale = block.removeprefix("Q: ").partition(f"\nA: {_CUE}")
        answer = _ANSWER.search(rationale)
        if not cue or answer is None:
            yield Dropped("exemplar is not of the published form")
            continue
        identity = f"bbh-{row.name}-exemplar-{number}"
        yield _record(identity, row, description, question, answer[1], rationale.rstrip())


def read_examples(path: Path, prompts: Path, row: SubTask) -> Iterator[Record | Dropped]:
    """The examples of a sub-task.

    Raises:
        UserError: the file has another form.
    """
    description, _ = prompt_parts(prompts)
    content = read_json(path)
    examples = content.get("examples") if isinstance(content, dict) else None
    if not isinstance(examples, list):
        raise UserError(f"{path} has no list of examples; get it from {URL}")
    yield from _examples(examples, description, row)


def read_example_rows(
    files: tuple[Path, ...], prompts: Path, row: SubTask
) -> Iterator[Record | Dropped]:
    """The hub's rows of input and target; equal records."""
    yield from _examples(read_rows(files), prompt_parts(prompts)[0], row)


def _examples(
    examples: Iterable[Any], description: str, row: SubTask
) -> Iterator[Record | Dropped]:
    for number, example in enumerate(examples):
        pair = [example.get(k) for k in ("input", "target")] if isinstance(example, dict) else []
        # NaN is what pandas writes for a missing value.
        texts = [str(v) for v in pair if isinstance(v, str | int | float) and v == v]
        if len(texts) == 2:
            yield _record(f"bbh-{row.name}-{number}", row, description, *texts)
        else:
            yield Dropped("example is not an input and a target").of_row(example)


def bbh_source(row: SubTask) -> SuiteSource:
    """The files of a sub-task."""
    name = f"BIG-Bench Hard {row.name}"
    examples, prompts = (
        tuple(f"{root}/{file}" for root in ("bbh", "BIG-Bench-Hard"))
        for file in (f"bbh/{row.name}.json", f"cot-prompts/{row.name}.txt")
    )
    hub = tuple(HubSplit(path, row.name, split) for path, split in HUBS.items())
    read, read_hub = (
        functools.partial(reader, row=row) for reader in (read_examples, read_example_rows)
    )
    return SuiteSource(
        name,
        {
            "test": SplitFiles(read, (examples, prompts)),
            "exemplars": SplitFiles(functools.partial(read_exemplars, row=row), (prompts,)),
        },
        URL,
        SuiteSource(
            name,
            {"test": SplitFiles(read_hub, (hub, prompts))},
            f"{hub_url(next(iter(HUBS)))} and {URL}",
        ),
    )


def bbh_task(row: SubTask) -> TaskSpec:
    """The task of a sub-task."""
    return suite_task(
        f"{FAMILY}.{row.name}",
        bbh_source(row),
        "bbh",
        category=row.kind,
        modes={"direct": 1.0, "cot": 1.0},
        extra_modes=("zs_direct", "zs_cot"),
        version="1.1.0",
        metric_fns=[metrics.exact_match, strict_bbh],
        mode_metric_fns={
            mode: [metrics.exact_match, theirs] for mode, theirs in harness_bbh(row.name).items()
        },
        postprocess_fn=functools.partial(read_asked, read=read_exact),
        num_examples={"test": row.records, "exemplars": SHOTS},
        exemplar_split="exemplars",
        shots=SHOTS,
        reasoned_reply="So the answer is {answer}.",
        contamination_group="big_bench",
        held_out="bbh",
        license="MIT",
        url=URL,
        description=f"A hard sub-task of BIG-bench ({row.kind})",
    )


for _row in SUB_TASKS:
    add_task(bbh_task(_row))
