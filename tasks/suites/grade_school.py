"""Word problems by chain of thought: MGSM (Shi et al. 2023) and GSM8K (Cobbe et al. 2021).

    mgsm.<language>.cot      eight exemplars with reasoning in the language itself
    gsm8k_test.gsm8k.cot     the eight English ones, as "Q: ..." and "A: ..."
    *.zs_cot                 without exemplars; GSM8K with "Let's think step by step"

Both take their exemplars from MGSM's file: seven of the eight problems are those of Wei et al. 2022
in MGSM's words, the eighth is another. Files: mgsm/mgsm_<language>.tsv, mgsm/exemplars.py (as
published; it is parsed, not run) or mgsm/exemplars.json (the same as JSON), gsm8k/test.jsonl.
"""

import ast
import dataclasses
import functools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from instruct.data.public_sources import Gsm8kSource
from instruct.data.registry import add_task
from instruct.data.sources import read_lines
from instruct.data.spec import TaskSpec
from instruct.errors import UserError
from instruct.eval import metrics
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from tasks.suites.files import SplitFiles, SuiteSource, read_text
from tasks.suites.layouts import layout
from tasks.suites.reading import read_number
from tasks.suites.scoring import number_filters

MGSM, GSM8K = "mgsm", "gsm8k_test"
SHOTS = 8
MGSM_RECORDS, GSM8K_RECORDS = 250, 1_319
MGSM_URL = "https://github.com/google-research/url-nlp/tree/main/mgsm"
GSM8K_URL = "https://github.com/openai/grade-school-math"
EXEMPLARS = ("mgsm/exemplars.py", "mgsm/exemplars.json")


class Language(NamedTuple):
    """A language of MGSM.

    Attributes:
        code: of the file's name.
        name: in English.
        question: the word that heads a question; a reply that goes on with it is over.
        phrases: what stands before the answer in the exemplars, their first one in most.
        closing: what follows the answer in the harness's filter for the language.
    """

    code: str
    name: str
    question: str
    phrases: tuple[str, ...]
    closing: str = ""

    @property
    def filter_phrase(self) -> str:
        """What stands before the answer in the harness's filter; in Bengali it has English."""
        return self.phrases[0] + ("" if self.code == "ja" else " ")


LANGUAGES = (
    Language("bn", "Bengali", "প্রশ্ন", ("উত্তর হল",)),
    Language("de", "German", "Frage", ("Die Antwort lautet", "Die Antwort ist")),
    Language("en", "English", "Question", ("The answer is",)),
    Language("es", "Spanish", "Pregunta", ("La respuesta es",)),
    Language("fr", "French", "Question", ("La réponse est",)),
    Language("ja", "Japanese", "問題", ("答えは",), "です。"),
    Language("ru", "Russian", "Задача", ("Ответ —", "Ответ -", "Ответ:", "Ответ")),
    Language("sw", "Swahili", "Swali", ("Jibu ni",)),
    Language("te", "Telugu", "ప్రశ్న", ("సమాధానం",)),
    Language("th", "Thai", "โจทย์", ("คำตอบคือ",)),
    Language("zh", "Chinese", "问题", ("答案是", "答案为"), "。"),
)
HELD_OUT_LANGUAGES = tuple(row for row in LANGUAGES if row.code != "en")


class Exemplar(NamedTuple):
    """A worked problem as published: "Question: ..." and "Step-by-Step Answer: ...", its number."""

    question: str
    solution: str
    answer: str


def load_exemplars(path: Path, code: str) -> list[Exemplar]:
    """The exemplars of a language, in their order.

    Raises:
        UserError: the file has another form, or not that language.
    """
    text = read_text(path)
    try:
        values = _literals(text) if path.suffix == ".py" else json.loads(text)
        numbers = values["number_answers"]
        listed = values["exemplars"][code]
        found = [listed[str(n)] for n in range(1, len(numbers) + 1)]
        return [Exemplar(e["q"], e["a"], str(n)) for e, n in zip(found, numbers)]
    except (KeyError, TypeError, ValueError, SyntaxError) as error:
        raise UserError(
            f"{path} has no exemplars of language {code!r} in the published form ({error!r}); get "
            f"it from {MGSM_URL}"
        ) from error


def _literals(text: str) -> dict[str, Any]:
    """The constants of the published module; nothing of it is run."""
    names = {"EXEMPLAR_NUMBER_ANSWERS": "number_answers", "MGSM_EXEMPLARS": "exemplars"}
    found = {}
    for statement in ast.parse(text).body:
        targets: list[ast.expr] = []
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        for target in targets:
            if isinstance(target, ast.Name) and target.id in names:
                found[names[target.id]] = ast.literal_eval(statement.value)  # type: ignore[attr-defined]
    return found


# "Question: ", "问题：": the language's own word, its colon and the blank behind it, if any.
_PREFIX = re.compile(r"^[^:：]{1,40}[:：]\s*")


def split_prefix(text: str) -> tuple[str, str]:
    """(prefix, rest) of an exemplar's question or solution.

    >>> split_prefix("Frage: Wie viele?")
    ('Frage: ', 'Wie viele?')
    """
    found = _PREFIX.match(text)
    return (found.group(), text[found.end() :]) if found else ("", text)


# ---------------------------------------------------------------- MGSM


def read_mgsm_exemplars(path: Path, code: str) -> Iterator[Record | Dropped]:
    """Exemplars as records: the cue ends the question, the rationale begins with its blank."""
    for number, one in enumerate(load_exemplars(path, code)):
        cue, rest = split_prefix(one.solution)
        fields = {"question": one.question, "cue": cue.rstrip()}
        rationale = cue[len(cue.rstrip()) :] + rest
        yield Record(f"mgsm-{code}-exemplar-{number}", fields, one.answer, rationale=rationale)


def read_mgsm(path: Path, exemplars: Path, code: str) -> Iterator[Record | Dropped]:
    """Lines of question, tab, number; worded as the language's exemplars are."""
    first = load_exemplars(exemplars, code)[0]
    prefix, cue = split_prefix(first.question)[0], split_prefix(first.solution)[0].rstrip()
    for number, _, line in read_lines(path):
        question, _, answer = (line or "").rpartition("\t")
        numbers = metrics.numbers_in(answer)
        if line is None:
            yield Dropped("text is not UTF-8")
        elif not question.strip() or len(numbers) != 1:
            yield Dropped("line is not a question, a tab and a number")
        else:
            fields = {"question": prefix + question.strip(), "cue": cue}
            yield Record(f"mgsm-{code}-{number}", fields, format(numbers[0], "f"))


def mgsm_source(code: str) -> SuiteSource:
    """The files of a language."""
    examples = functools.partial(read_mgsm, code=code)
    return SuiteSource(
        name=f"MGSM {code}",
        parts={
            "test": SplitFiles(examples, (f"mgsm/mgsm_{code}.tsv", EXEMPLARS)),
            "exemplars": SplitFiles(
                functools.partial(read_mgsm_exemplars, code=code), (EXEMPLARS,)
            ),
        },
        origin=MGSM_URL,
    )


def mgsm_task(row: Language) -> TaskSpec:
    """The task of a language."""
    source = mgsm_source(row.code)
    return TaskSpec(
        name=f"{MGSM}.{row.code}",
        family=MGSM,
        dataset="mgsm",
        category=row.name,
        source=source,
        templates=layout("mgsm"),
        modes={"cot": 1.0},
        extra_modes=("zs_cot",),
        metric_fns=[metrics.exact_match, number_filters(row.filter_phrase, row.closing)],
        postprocess_fn=functools.partial(
            read_number, phrases=row.phrases, next_questions=(row.question,)
        ),
        splits={split: split for split in source.splits},
        num_examples={"test": MGSM_RECORDS, "exemplars": SHOTS},
        exemplar_split="exemplars",
        shots=SHOTS,
        reasoned_reply=f"{row.filter_phrase}{{answer}}{row.closing or '.'}",
        contamination_group="mgsm",
        languages=(row.name,),
        held_out="mgsm",
        license="CC-BY-4.0",
        url=MGSM_URL,
        description=f"School arithmetic in {row.name} words, translated from GSM8K",
    )


# ---------------------------------------------------------------- GSM8K


def read_gsm8k_exemplars(path: Path) -> Iterator[Record | Dropped]:
    """MGSM's English exemplars without their prefixes."""
    for number, one in enumerate(load_exemplars(path, "en")):
        fields = {"question": split_prefix(one.question)[1]}
        rationale = " " + split_prefix(one.solution)[1]
        yield Record(f"gsm8k-exemplar-{number}", fields, one.answer, rationale=rationale)


def read_gsm8k(path: Path) -> Iterator[Record | Dropped]:
    """The published test file; its worked solutions are left out of the records."""
    for item, _ in Gsm8kSource().rows(path):
        if isinstance(item, Record):
            numbers = metrics.numbers_in(item.answer)
            if len(numbers) != 1:
                yield Dropped("answer is not one number")
                continue
            item = dataclasses.replace(item, answer=format(numbers[0], "f"), rationale="")
        yield item


def gsm8k_task() -> TaskSpec:
    """GSM8K's test problems as published evaluations ask them."""
    parts: Mapping[str, SplitFiles] = {
        "test": SplitFiles(read_gsm8k, ("gsm8k/test.jsonl",)),
        "exemplars": SplitFiles(read_gsm8k_exemplars, (EXEMPLARS,)),
    }
    return TaskSpec(
        name=f"{GSM8K}.gsm8k",
        family=GSM8K,
        dataset="gsm8k",
        category="arithmetic word problems",
        source=SuiteSource("GSM8K", parts, f"{GSM8K_URL} and {MGSM_URL}"),
        templates=layout("gsm8k_test"),
        modes={"cot": 1.0},
        extra_modes=("zs_cot", "zs_direct"),
        metric_fns=[
            metrics.exact_match,
            number_filters("The answer is ", ending="."),
        ],
        postprocess_fn=read_number,
        splits={split: split for split in parts},
        num_examples={"test": GSM8K_RECORDS, "exemplars": SHOTS},
        exemplar_split="exemplars",
        shots=SHOTS,
        reasoned_reply="The answer is {answer}.",
        contamination_group="gsm8k",
        license="MIT",
        url=GSM8K_URL,
        description="School arithmetic in words, asked as published after MGSM's English exemplars",
    )


for _row in LANGUAGES:
    add_task(mgsm_task(_row))
add_task(gsm8k_task())
