"""The chain-of-thought suite of the Flan Collection (Longpre et al. 2023):

    cot_eval.strategyqa, .ecqa     the parts of Flan's files that `cot.*` does not train on
    cot_eval.commonsense_qa        the publisher's dev file, exemplars from Flan's ECQA file, which
                                   has CommonsenseQA's training questions
    cot_eval.svamp, .asdiv         all problems of the publishers, exemplars as for GSM8K

Modes: `cot`, and `zs_cot` without exemplars.

Files: cot/strategyqa_train.tsv, cot/ecqa_train.tsv, commonsense_qa/dev_rand_split.jsonl,
svamp/SVAMP.json, asdiv/ASDiv.xml, mgsm/exemplars.py.
"""

import dataclasses
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from instruct.data.registry import add_task
from instruct.data.sources.files import hash_unit, read_lines
from instruct.data.sources.public_releases import cot_tsv_source
from instruct.data.spec import TaskSpec
from instruct.errors import UserError
from instruct.eval import metrics
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from tasks.contamination import group_of
from tasks.suites.files import SplitFiles, SuiteSource, read_text
from tasks.suites.grade_school import EXEMPLARS, read_gsm8k_exemplars
from tasks.suites.layouts import layout
from tasks.suites.reading import read_label, read_number
from tasks.suites.scoring import QUESTION_STOPS, number_filters

FAMILY = "cot_eval"
# Names of the sets in other families, where they differ.
_ELSEWHERE = {"commonsense_qa": "commonsenseqa", "asdiv": "nlu_asdiv_dataset"}
SHOTS = 6  # of the word problems eight
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
    """The part that is not trained on, without its reasoning: the answer is what is asked for."""
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
    for number, _, line in read_lines(path):
        try:
            row = json.loads(line or "")
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
    return Record(record_id, {"question": question}, format(numbers[0].normalize() + 0, "f"))


def read_svamp(path: Path) -> Iterator[Record | Dropped]:
    """A JSON list of problems: ID, Body, Question, Answer."""
    try:
        rows = json.loads(read_text(path))
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


def _spec(name: str, source: SuiteSource, shots: int, size: int | None, **more: Any) -> TaskSpec:
    split = next(iter(source.splits))
    return TaskSpec(
        name=f"{FAMILY}.{name}",
        family=FAMILY,
        dataset=name,
        source=source,
        modes={"cot": 1.0},
        extra_modes=("zs_cot",),
        splits={part: part for part in source.splits},
        num_examples={} if size is None else {split: size},
        exemplar_split="exemplars",
        shots=shots,
        contamination_group=group_of(_ELSEWHERE.get(name, name)),
        **more,
    )


def _question_task(
    name: str, file: str, exemplars: str, wording: str, read: Any, split: str, **more: Any
) -> TaskSpec:
    """Questions with a label or an option as the answer."""
    parts = {
        split: SplitFiles(read, (file,)),
        "exemplars": SplitFiles(read_flan_exemplars, (exemplars,)),
    }
    return _spec(
        name,
        SuiteSource(name, parts, f"{more['url']} and {_FLAN}"),
        SHOTS,
        templates=layout(wording),
        metric_fns=[metrics.exact_match],
        postprocess_fn=read_label,
        category="reasoning",
        **more,
    )


def _problem_task(
    name: str, file: str, read: Callable[[Path], Iterator[Record | Dropped]], url: str, **more: Any
) -> TaskSpec:
    """Word problems with a number as the answer."""
    parts = {
        "test": SplitFiles(read, (file,)),
        "exemplars": SplitFiles(read_gsm8k_exemplars, (EXEMPLARS,)),
    }
    return _spec(
        name,
        SuiteSource(name, parts, url),
        8,
        templates=layout("gsm8k_test"),
        metric_fns=[
            metrics.exact_match,
            number_filters("The answer is ", ending=".", until=QUESTION_STOPS),
        ],
        postprocess_fn=read_number,
        reasoned_reply="The answer is {answer}.",
        category="arithmetic word problems",
        url=url,
        **more,
    )


TASKS = (
    _question_task(
        "strategyqa", _STRATEGYQA, _STRATEGYQA, "yes_no_reasoned", read_held_back, "test",
        size=None, license="MIT", url="https://github.com/eladsegal/strategyqa",
        description="Yes-no questions that take several facts",
    ),
    _question_task(
        "ecqa", _ECQA, _ECQA, "options_reasoned", read_held_back, "test",
        size=None, license="CC-BY-SA-4.0", url="https://github.com/dair-iitd/ECQA-Dataset",
        description="CommonsenseQA's questions with people's explanations",
    ),
    _question_task(
        "commonsense_qa", "commonsense_qa/dev_rand_split.jsonl", _ECQA, "options_reasoned",
        read_commonsense_qa, "validation",
        size=1_221, license="MIT", url="https://www.tau-nlp.org/commonsenseqa",
        description="Everyday questions with five options",
    ),
    _problem_task(
        "svamp", "svamp/SVAMP.json", read_svamp, "https://github.com/arkilpatel/SVAMP",
        size=1_000, license="MIT", description="Word problems whose wording varies",
    ),
    _problem_task(
        "asdiv", "asdiv/ASDiv.xml", read_asdiv, "https://github.com/chaochun/nlu-asdiv-dataset",
        size=None, license="CC-BY-NC-4.0", description="Word problems of many kinds",
    ),
)  # fmt: skip

for _task in TASKS:
    add_task(_task)
