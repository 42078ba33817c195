"""Questions about a passage: TyDiQA's gold passage task (Clark et al. 2020) and XQuAD (Artetxe et
al. 2020), by the same code: one exemplar in the language itself, answers by SQuAD's measure.

TyDiQA's exemplar is the first question of the language in the training file. XQuAD has one file a
language and no other: its exemplar is the first question of its last passage that has any, so that
hardly a question is asked about the passage that its exemplar shows. That question has none.

Files: tydiqa/tydiqa-goldp-v1.1-{train,dev}.json, or tydiqa/tydiqa-goldp-v1.1-dev/
tydiqa-goldp-dev-<language>.json for the questions; xquad/xquad.<language>.json. Else
google-research-datasets/tydiqa (secondary_task) and google/xquad as the Hugging Face hub has them.
Answers are a list of {"text"} or, as on the hub, {"text": [...]}; rows of context and question take
the place of articles with paragraphs.
"""

import functools
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from instruct.data.registry import add_task
from instruct.data.sources.table_files import read_rows
from instruct.data.spec import TaskSpec
from instruct.errors import UserError
from instruct.eval import metrics
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from tasks.contamination import group_of
from tasks.suites.files import HubSplit, SplitFiles, SuiteSource, read_text
from tasks.suites.layouts import layout
from tasks.suites.reading import read_span

TYDIQA, XQUAD = "tydiqa", "xquad"
TYDIQA_URL = "https://github.com/google-research-datasets/tydiqa (gold passage task)"
TYDIQA_HUB, XQUAD_HUB = "google-research-datasets/tydiqa", "google/xquad"
XQUAD_URL = "https://github.com/google-deepmind/xquad"

# Language -> its questions in the dev file. English is in the files and in no paper's mean.
TYDIQA_LANGUAGES: Mapping[str, int] = {
    "arabic": 921,
    "bengali": 113,
    "english": 440,
    "finnish": 782,
    "indonesian": 565,
    "korean": 276,
    "russian": 812,
    "swahili": 499,
    "telugu": 669,
}
XQUAD_LANGUAGES: Mapping[str, str] = {
    "ar": "Arabic",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "hi": "Hindi",
    "ro": "Romanian",
    "ru": "Russian",
    "th": "Thai",
    "tr": "Turkish",
    "vi": "Vietnamese",
    "zh": "Chinese",
}
XQUAD_RECORDS = 1_190


def read_squad(
    path: Path | tuple[Path, ...], name: str, prefix: str = ""
) -> Iterator[Record | Dropped]:
    """Questions of a file in SQuAD's layout, or of files of rows.

    Args:
        prefix: of the ids of the questions to keep ("arabic-" in TyDiQA's files).

    Raises:
        UserError: the file has another layout.
    """
    for paragraph in _paragraphs(path):
        for question in paragraph.get("qas") or ():
            if str(question.get("id", "")).startswith(prefix):
                yield _record(name, paragraph, question)


def read_exemplars(path: Path | tuple[Path, ...], name: str) -> Iterator[Record | Dropped]:
    """The first question of the last passage that has one."""
    for paragraph in reversed(_paragraphs(path)):
        for question in paragraph.get("qas") or ():
            record = _record(name, paragraph, question)
            if isinstance(record, Record):
                yield record
                return


def _paragraphs(files: Path | tuple[Path, ...]) -> list[Mapping[str, Any]]:
    """Passages with their questions: of a file in SQuAD's layout, or of files of rows."""
    if isinstance(files, tuple):
        return _passages(read_rows(files))
    try:
        articles = json.loads(read_text(files))["data"]
        if all(isinstance(article, dict) and "paragraphs" in article for article in articles):
            return [paragraph for article in articles for paragraph in article["paragraphs"]]
        rows, reason = articles, "neither paragraphs nor rows of context and question"
    except (KeyError, TypeError, ValueError) as error:
        rows, reason = list(read_rows([files])), repr(error)
    if not any(isinstance(row, dict) and "context" in row for row in rows):
        raise UserError(f"{files} is not a file in SQuAD's layout ({reason})")
    return _passages(rows)


def _passages(rows: Iterable[Any]) -> list[Mapping[str, Any]]:
    """Rows of context and question as SQuAD's paragraphs; what is no row has no context."""
    tables = ({} if isinstance(row, Dropped) else row for row in rows)
    groups = itertools.groupby(tables, lambda row: row.get("context"))
    return [{"context": context, "qas": list(group)} for context, group in groups]


def _record(
    name: str, paragraph: Mapping[str, Any], question: Mapping[str, Any]
) -> Record | Dropped:
    context = _text(paragraph, "context").removeprefix("\ufeff").strip()
    asked = _text(question, "question")
    answers = list(dict.fromkeys(filter(None, _answer_texts(question.get("answers")))))
    lacking = [
        name
        for name, value in (("context", context), ("question", asked), ("answers", answers))
        if not value
    ]
    if lacking:
        return Dropped("empty passage, question or answer", lacking=tuple(lacking)).of_row(
            {name: None for name in (*paragraph, *question) if name != "qas"}
        )
    fields = {"context": context, "question": asked}
    identity = f"{name}-{question.get('id')}"
    return Record(identity, fields, answers[0], references=tuple(answers))


def _answer_texts(answers: Any) -> list[str]:
    """Of a list of {"text"}, or of {"text": [...]} (one text too)."""
    if isinstance(answers, Mapping):
        texts = answers.get("text")
        listed = texts if isinstance(texts, list) else [texts]
        answers = [{"text": text} for text in listed]
    return [_text(answer, "text") for answer in answers] if isinstance(answers, list) else []


def _text(holder: Any, key: str) -> str:
    """A text without blanks around it; "" where there is none."""
    value = holder.get(key) if isinstance(holder, Mapping) else None
    return value.strip() if isinstance(value, str) else ""


def tydiqa_source(language: str) -> SuiteSource:
    """One language of TyDiQA's files, which hold all of them."""
    read = functools.partial(read_squad, name="tydiqa", prefix=f"{language}-")
    files = "tydiqa/tydiqa-goldp-v1.1"
    own = f"{files}-dev/tydiqa-goldp-dev-{language}.json"
    return SuiteSource(
        name=f"TyDiQA {language}",
        parts={
            "validation": SplitFiles(read, ((f"{files}-dev.json", own),)),
            "train": SplitFiles(read, (f"{files}-train.json",)),
        },
        origin=TYDIQA_URL,
        fallback=SuiteSource(
            name=f"TyDiQA {language}",
            parts={
                split: SplitFiles(read, (HubSplit(TYDIQA_HUB, "secondary_task", split),))
                for split in ("validation", "train")
            },
            origin=f"https://huggingface.co/datasets/{TYDIQA_HUB}",
        ),
    )


def xquad_source(code: str) -> SuiteSource:
    """The file of a language."""
    name = f"xquad-{code}"

    def source(file: str | HubSplit, **more: Any) -> SuiteSource:
        parts = {
            "test": SplitFiles(functools.partial(read_squad, name=name), (file,)),
            "exemplars": SplitFiles(functools.partial(read_exemplars, name=name), (file,)),
        }
        return SuiteSource(name=f"XQuAD {code}", parts=parts, **more)

    hub = source(
        HubSplit(XQUAD_HUB, f"xquad.{code}", "validation"),
        origin=f"https://huggingface.co/datasets/{XQUAD_HUB}",
    )
    return source(f"xquad/xquad.{code}.json", origin=XQUAD_URL, fallback=hub)


def _task(
    family: str,
    language: str,
    source: SuiteSource,
    sizes: Mapping[str, int],
    exemplar_split: str,
    **more: Any,
) -> TaskSpec:
    return TaskSpec(
        family=family,
        dataset=family,
        category=language,
        source=source,
        templates=layout("passage_question"),
        modes={"direct": 1.0},
        extra_modes=("zs_direct",),
        metric_fns=[metrics.squad],
        postprocess_fn=read_span,
        splits={split: split for split in source.splits},
        num_examples=sizes,
        exemplar_split=exemplar_split,
        shots=1,
        contamination_group=group_of(family),
        languages=(language,),
        description=f"Questions in {language} about a passage that answers them",
        **more,
    )


def tydiqa_task(language: str) -> TaskSpec:
    """The task of a language."""
    return _task(
        TYDIQA,
        language.capitalize(),
        tydiqa_source(language),
        {"validation": TYDIQA_LANGUAGES[language]},
        "train",
        name=f"{TYDIQA}.{language}",
        held_out="tydiqa",
        license="Apache-2.0",
        url="https://github.com/google-research-datasets/tydiqa",
    )


def xquad_task(code: str) -> TaskSpec:
    """The task of a language."""
    return _task(
        XQUAD,
        XQUAD_LANGUAGES[code],
        xquad_source(code),
        {"test": XQUAD_RECORDS},
        "exemplars",
        name=f"{XQUAD}.{code}",
        license="CC-BY-SA-4.0",
        url=XQUAD_URL,
    )


for _language in TYDIQA_LANGUAGES:
    add_task(tydiqa_task(_language))
for _code in XQUAD_LANGUAGES:
    add_task(xquad_task(_code))
