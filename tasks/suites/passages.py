"""Questions about a passage: TyDiQA's gold passage task (Clark et al. 2020) and XQuAD (Artetxe et
al. 2020): one exemplar in the language itself, answers scored as SQuAD's.

TyDiQA's exemplar is the first question of the language in the training file. XQuAD has a single
file for each language: its exemplar is the first question of the last passage that has any, so that
few questions are about the passage that the exemplar shows. That question itself has no exemplar.

Files: tydiqa/tydiqa-goldp-v1.1-{train,dev}.json, or tydiqa/tydiqa-goldp-v1.1-dev/
tydiqa-goldp-dev-<language>.json for the questions; xquad/xquad.<language>.json. Else
google-research-datasets/tydiqa (secondary_task) and google/xquad as the Hugging Face hub has them.
Answers are a list of {"text"} or, as on the hub, {"text": [...]}; articles with paragraphs may also
be rows of context and question.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from instruct.data.registry import add_task
from instruct.data.sources.table_files import read_rows
from instruct.data.spec import TaskSpec
from instruct.errors import UserError
from instruct.eval import metrics
from instruct.json_text import parse_json
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from tasks.contamination import group_of
from tasks.suites.files import HubSplit, SplitFiles, SuiteSource, hub_url, read_text
from tasks.suites.reading import read_span
from tasks.suites.task import suite_task

TYDIQA, XQUAD = "tydiqa", "xquad"
TYDIQA_URL = "https://github.com/google-research-datasets/tydiqa (gold passage task)"
TYDIQA_HUB, XQUAD_HUB = "google-research-datasets/tydiqa", "google/xquad"
XQUAD_URL = "https://github.com/google-deepmind/xquad"

# Language -> number of its questions in the dev file. No paper's mean includes English.
TYDIQA_LANGUAGES: Mapping[str, int] = {
    "arabic": 921, "bengali": 113, "english": 440, "finnish": 782, "indonesian": 565,
    "korean": 276, "russian": 812, "swahili": 499, "telugu": 669,
}  # fmt: skip
XQUAD_LANGUAGES: Mapping[str, str] = {
    "ar": "Arabic", "de": "German", "el": "Greek", "en": "English", "es": "Spanish",
    "hi": "Hindi", "ro": "Romanian", "ru": "Russian", "th": "Thai", "tr": "Turkish",
    "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip


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
        articles = parse_json(read_text(files))["data"]
        if all(isinstance(article, dict) and "paragraphs" in article for article in articles):
            paragraphs = [p for article in articles for p in article["paragraphs"]]
            if all(map(_is_paragraph, paragraphs)):
                return paragraphs
            raise UserError(f"{files} is not a file in SQuAD's layout (not a list of objects)")
        rows, reason = articles, "neither paragraphs nor rows of context and question"
    except (KeyError, TypeError, ValueError) as error:
        rows, reason = list(read_rows([files])), repr(error)
    if not any(isinstance(row, dict) and "context" in row for row in rows):
        raise UserError(f"{files} is not a file in SQuAD's layout ({reason})")
    return _passages(rows)


def _is_paragraph(value: Any) -> bool:
    """Whether a value is an object whose questions, if any, are objects."""
    if not isinstance(value, dict):
        return False
    questions = value.get("qas") or []
    return isinstance(questions, list) and all(isinstance(one, dict) for one in questions)


def _passages(rows: Iterable[Any]) -> list[Mapping[str, Any]]:
    """Rows of context and question as SQuAD's paragraphs; rejected rows have no context."""
    tables = ({} if isinstance(row, Dropped) else row for row in rows)
    groups = itertools.groupby(tables, lambda row: row.get("context"))
    return [{"context": context, "qas": list(group)} for context, group in groups]


def _record(
    name: str, paragraph: Mapping[str, Any], question: Mapping[str, Any]
) -> Record | Dropped:
    context = _text(paragraph, "context").removeprefix("\ufeff").strip()
    asked = _text(question, "question")
    answers = tuple(dict.fromkeys(filter(None, _answer_texts(question.get("answers")))))
    parts = {"context": context, "question": asked, "answers": answers}
    lacking = tuple(part for part, value in parts.items() if not value)
    if lacking:
        keys = (key for key in (*paragraph, *question) if key != "qas")
        dropped = Dropped("empty passage, question or answer", lacking=lacking)
        return dropped.of_row(dict.fromkeys(keys))
    fields = {"context": context, "question": asked}
    return Record(f"{name}-{question.get('id')}", fields, answers[0], references=answers)


def _answer_texts(answers: Any) -> list[str]:
    """Texts of a list of {"text"}, or of {"text": [...]} or {"text": one text}."""
    if isinstance(answers, Mapping):
        texts = answers.get("text")
        answers = [{"text": text} for text in (texts if isinstance(texts, list) else [texts])]
    return [_text(answer, "text") for answer in answers] if isinstance(answers, list) else []


def _text(holder: Any, key: str) -> str:
    """The trimmed text under a key; "" without one."""
    value = holder.get(key) if isinstance(holder, Mapping) else None
    return value.strip() if isinstance(value, str) else ""


def tydiqa_source(language: str) -> SuiteSource:
    """One language of TyDiQA's files, which hold all of them."""
    name = f"TyDiQA {language}"
    read = functools.partial(read_squad, name="tydiqa", prefix=f"{language}-")
    files = "tydiqa/tydiqa-goldp-v1.1"
    dev_names = (f"{files}-dev.json", f"{files}-dev/tydiqa-goldp-dev-{language}.json")
    own = {
        "validation": SplitFiles(read, (dev_names,)),
        "train": SplitFiles(read, (f"{files}-train.json",)),
    }
    hub = {
        split: SplitFiles(read, (HubSplit(TYDIQA_HUB, "secondary_task", split),)) for split in own
    }
    return SuiteSource(name, own, TYDIQA_URL, SuiteSource(name, hub, hub_url(TYDIQA_HUB)))


def xquad_source(code: str) -> SuiteSource:
    """The file of a language."""
    name = f"XQuAD {code}"
    read, read_exemplar = (
        functools.partial(reader, name=f"xquad-{code}") for reader in (read_squad, read_exemplars)
    )
    own, hub = (
        {"test": SplitFiles(read, (file,)), "exemplars": SplitFiles(read_exemplar, (file,))}
        for file in (f"xquad/xquad.{code}.json", HubSplit(XQUAD_HUB, f"xquad.{code}", "validation"))
    )
    return SuiteSource(name, own, XQUAD_URL, SuiteSource(name, hub, hub_url(XQUAD_HUB)))


def _task(name: str, language: str, source: SuiteSource, **values: Any) -> TaskSpec:
    return suite_task(
        name,
        source,
        "passage_question",
        category=language,
        modes={"direct": 1.0},
        extra_modes=("zs_direct",),
        metric_fns=[metrics.squad],
        postprocess_fn=read_span,
        shots=1,
        contamination_group=group_of(name.partition(".")[0]),
        languages=(language,),
        description=f"Questions in {language} about a passage that answers them",
        **values,
    )


for _language, _size in TYDIQA_LANGUAGES.items():
    add_task(
        _task(
            f"{TYDIQA}.{_language}",
            _language.capitalize(),
            tydiqa_source(_language),
            num_examples={"validation": _size},
            held_out="tydiqa",
            license="Apache-2.0",
            url="https://github.com/google-research-datasets/tydiqa",
        )
    )
for _code, _language in XQUAD_LANGUAGES.items():
    add_task(
        _task(
            f"{XQUAD}.{_code}",
            _language,
            xquad_source(_code),
            num_examples={"test": 1_190},
            exemplar_split="exemplars",
            license="CC-BY-SA-4.0",
            url=XQUAD_URL,
        )
    )
