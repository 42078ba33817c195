"""The chain-of-thought suite of the Flan Collection (Longpre et al. 2023):

    cot_eval.strategyqa, .ecqa     the parts of Flan's files on which `cot.*` does not train
    cot_eval.commonsense_qa        the publisher's dev file, exemplars from Flan's ECQA file, which
                                   has CommonsenseQA's training questions
    cot_eval.svamp, .asdiv         all problems of the publishers, exemplars as for GSM8K

Modes: `cot`, and `zs_cot` without exemplars.

Files: cot/strategyqa_train.tsv, cot/ecqa_train.tsv, commonsense_qa/dev_rand_split.jsonl,
svamp/SVAMP.json, asdiv/ASDiv.xml, mgsm/exemplars.py.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from instruct.data.registry import add_task
from instruct.data.sources.files import hash_unit
from instruct.data.sources.public_releases import cot_tsv_source
from instruct.data.spec import TaskSpec
from instruct.errors import UserError
from instruct.eval import metrics
from instruct.json_text import parse_json
from instruct.prompts.numbers import canonical
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from tasks.contamination import group_of
from tasks.suites.files import SplitFiles, SuiteSource, read_json_lines, read_text
from tasks.suites.grade_school import EXEMPLARS, read_gsm8k_exemplars, word_problems
from tasks.suites.reading import read_label
from tasks.suites.task import suite_task

FAMILY = "cot_eval"
# Names of the sets in other families, where they differ.
_ELSEWHERE = {"commonsense_qa": "commonsenseqa", "asdiv": "nlu_asdiv_dataset"}
SHOTS = 6  # but 8 for word problems
_HELD_BACK = 0.1  # the share of Flan's files that `cot.*` keeps for validation and test
_FLAN = "https://github.com/google-research/FLAN (flan/v2/cot_data)"
_UNIT = re.compile(r"\([^()]*\)")  # "9 (apples)"
_STRATEGYQA, _ECQA = "cot/strategyqa_train.tsv", "cot/ecqa_train.tsv"


# ---------------------------------------------------------------- questions with reasoning


def read_flan(path: Path, low: float, high: float) -> Iterator[Record | Dropped]:
    """Rows of one of Flan's files whose hash is in [low, high)."""
    for item, text in cot_tsv_source(f"cot/{path.name}").rows(path):
        if low <= hash_unit(text) < high:
            yield item


def read_held_back(path: Path) -> Iterator[Record | Dropped]:
    """The part on which `cot.*` does not train, without its reasoning."""
    for item in read_flan(path, 0.0, _HELD_BACK):
        yield dataclasses.replace(item, rationale="") if isinstance(item, Record) else item


def read_flan_exemplars(path: Path) -> Iterator[Record | Dropped]:
    """The first rows of the training part that have reasoning."""
    rows = read_flan(path, _HELD_BACK, 1.0)
    usable = (row for row in rows if isinstance(row, Record) and row.rationale)
    for record in itertools.islice(usable, SHOTS):
        # The last line of a rationale in the file may lack its full stop.
        rationale = " ".join(record.rationale.split())
        ended = rationale if rationale.endswith((".", "!", "?")) else f"{rationale}."
        yield dataclasses.replace(record, rationale=ended)


def read_commonsense_qa(path: Path) -> Iterator[Record | Dropped]:
    """JSON lines with a stem, labelled choices and the label of the right one."""
    for number, row in read_json_lines(path):
        try:
            choices = {c["label"]: c["text"].strip() for c in row["question"]["choices"]}
            options, index = tuple(choices.values()), list(choices).index(row["answerKey"])
            fields = {"question": row["question"]["stem"].strip()}
            yield Record(f"commonsense_qa-{number}", fields, options[index], options, index)
        except (KeyError, TypeError, ValueError, AttributeError):
            yield Dropped("line is not a question with choices and an answer")


# ---------------------------------------------------------------- word problems


def _problem(record_id: str, parts: Sequence[Any], answer: Any) -> Record | Dropped:
    """A word problem from its sentences; its answer must be one number."""
    texts = [" ".join(str(part).split()) for part in parts if part and str(part).strip()]
    numbers = metrics.numbers_in(str(answer))
    if not texts:
        return Dropped("empty question")
    if len(numbers) != 1:
        return Dropped("answer is not one number")
    question = texts[0]
    for text in texts[1:]:
        if question.endswith((".", "?", "!", ",")):
            question += f" {text}"
        else:  # SVAMP's bodies lack a full stop where the question continues the sentence
            question += f", {text[0].lower()}{text[1:]}"
    return Record(record_id, {"question": question}, canonical(numbers[0]))


def read_svamp(path: Path) -> Iterator[Record | Dropped]:
    """A JSON list of problems: ID, Body, Question, Answer."""
    try:
        rows = parse_json(read_text(path))
        for row in rows:
            parts = (row["Body"], row["Question"])
            yield _problem(f"svamp-{row['ID']}", parts, row["Answer"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not SVAMP's file of problems ({error!r})") from error


def read_asdiv(path: Path) -> Iterator[Record | Dropped]:
    """XML: `Problem` elements with Body, Question and an Answer such as "9 (apples)"."""
    try:
        problems = ElementTree.fromstring(read_text(path)).iter("Problem")
    except ElementTree.ParseError as error:
        raise UserError(f"{path} is not XML ({error}); get the file again") from error
    for number, problem in enumerate(problems):
        parts = (problem.findtext("Body"), problem.findtext("Question"))
        answer = _UNIT.sub("", problem.findtext("Answer") or "")
        yield _problem(f"asdiv-{problem.get('ID', number)}", parts, answer)


# ---------------------------------------------------------------- tasks


def _question_task(
    name: str, split: str, read: Any, file: str, exemplars: str, layout: str, url: str, **more: Any
) -> TaskSpec:
    """Questions with a label or an option as the answer."""
    parts = {
        split: SplitFiles(read, (file,)),
        "exemplars": SplitFiles(read_flan_exemplars, (exemplars,)),
    }
    return suite_task(
        f"{FAMILY}.{name}",
        SuiteSource(name, parts, f"{url} and {_FLAN}"),
        layout,
        dataset=name,
        category="reasoning",
        modes={"cot": 1.0},
        extra_modes=("zs_cot",),
        metric_fns=[metrics.exact_match],
        postprocess_fn=read_label,
        exemplar_split="exemplars",
        shots=SHOTS,
        contamination_group=group_of(_ELSEWHERE.get(name, name)),
        url=url,
        **more,
    )


def _problem_task(name: str, read: Any, file: str, url: str, **more: Any) -> TaskSpec:
    """Word problems with a number as the answer."""
    parts = {
        "test": SplitFiles(read, (file,)),
        "exemplars": SplitFiles(read_gsm8k_exemplars, (EXEMPLARS,)),
    }
    return word_problems(
        f"{FAMILY}.{name}",
        SuiteSource(name, parts, url),
        dataset=name,
        extra_modes=("zs_cot",),
        contamination_group=group_of(_ELSEWHERE.get(name, name)),
        url=url,
        **more,
    )


TASKS = (
    _question_task(
        "strategyqa", "test", read_held_back, _STRATEGYQA, _STRATEGYQA, "yes_no_reasoned",
        "https://github.com/eladsegal/strategyqa", license="MIT",
        description="Yes-no questions that take several facts",
    ),
    _question_task(
        "ecqa", "test", read_held_back, _ECQA, _ECQA, "options_reasoned",
        "https://github.com/dair-iitd/ECQA-Dataset", license="CC-BY-SA-4.0",
        description="CommonsenseQA's questions with people's explanations",
    ),
    _question_task(
        "commonsense_qa", "validation", read_commonsense_qa,
        "commonsense_qa/dev_rand_split.jsonl", _ECQA, "options_reasoned",
        "https://www.tau-nlp.org/commonsenseqa", license="MIT",
        num_examples={"validation": 1_221}, description="Everyday questions with five options",
    ),
    _problem_task(
        "svamp", read_svamp, "svamp/SVAMP.json", "https://github.com/arkilpatel/SVAMP",
        license="MIT", num_examples={"test": 1_000},
        description="Word problems whose wording varies",
    ),
    _problem_task(
        "asdiv", read_asdiv, "asdiv/ASDiv.xml", "https://github.com/chaochun/nlu-asdiv-dataset",
        license="CC-BY-NC-4.0", description="Word problems of many kinds",
    ),
)  # fmt: skip

for _task in TASKS:
    add_task(_task)
