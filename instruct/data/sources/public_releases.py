"""Sources of public releases, whose files are under the data folder as published:

gsm8k/train.jsonl, gsm8k/test.jsonl     GSM8K (Cobbe et al. 2021), else the hub's openai/gsm8k
cot/*.tsv                               Flan's chains of thought (Longpre et al. 2023)
"""

import dataclasses
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from instruct.data.sources.files import JsonLinesSource, Part, TsvSource, clean, hashed_parts
from instruct.data.sources.huggingface import HuggingFaceSource
from instruct.data.sources.table_files import read_rows
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from instruct.workspace import Workspace

# Functions are named by this module in the fingerprints of stores.
FINGERPRINT_MODULE = "instruct.data.public_sources"

_CALCULATION = re.compile(r"<<[^<>]*>>")


@dataclasses.dataclass(frozen=True)
class Gsm8kSource(JsonLinesSource):
    """GSM8K: `{"question", "answer"}`, the answer a solution that ends in "#### 72".

    Calculator annotations ("<<48/2=24>>") are removed. 5 % of the train file is the validation
    split.
    """

    name: str = "gsm8k"
    parts: Mapping[str, Part] = dataclasses.field(
        default_factory=lambda: {
            "train": Part("gsm8k/train.jsonl", 0.05, 1.0),
            "validation": Part("gsm8k/train.jsonl", 0.0, 0.05),
            "test": Part("gsm8k/test.jsonl"),
        }
    )
    origin: str = "https://github.com/openai/grade-school-math (grade_school_math/data)"

    def locate(self, workspace: Workspace, name: str) -> Path:
        path = super().locate(workspace, name)
        hub = HuggingFaceSource("openai/gsm8k", "main")
        return path if path.is_file() else next(iter(hub.local_files(workspace, path.stem)), path)

    def parsed_rows(self, path: Path) -> Iterator[tuple[str, bytes, Any]]:
        if path.suffix == ".jsonl":
            yield from super().parsed_rows(path)
            return
        split = "test" if path.name.startswith("test") else "train"
        for number, row in enumerate(read_rows([path])):
            yield f"{self.name}-{split}-{number}", repr(row).encode("utf-8", "replace"), row

    def record(self, row: Mapping[str, Any], default_id: str) -> Record | Dropped:
        question, solution = row.get("question"), row.get("answer")
        if not isinstance(question, str) or not isinstance(solution, str):
            return Dropped("question or answer is missing").of_row(row)
        rationale, mark, answer = solution.rpartition("####")
        if not mark:
            return Dropped("answer has no '####'")
        if not question.strip() or not answer.strip():
            return Dropped("empty question or answer")
        rationale = _CALCULATION.sub("", rationale).strip()
        fields = {"question": question.strip()}
        return Record(default_id, fields, answer.strip(), rationale=rationale)


_OPTION_BLOCK = re.compile(r"^(.*?\S)\s*\n\s*options:[ \t]*\n(.*)$", re.IGNORECASE | re.DOTALL)
_LABELLED = re.compile(r"^(?:-\s*)?\(?([A-Z])[).]\s+(.*\S)$")
_BULLETED = re.compile(r"^[-*]\s+(.*\S)$")
_LABEL = re.compile(r"^\(?([A-Z])[).]?$")
# A rationale that names an option by its letter holds only while that letter does.
# "A" and "I" are words as well: "A" counts before a verb only, "I" not at all.
_NAMES_A_LETTER = re.compile(
    r"(?i:\b(?:options?|choices?|answers?|ans|alternatives?)\b)[\s.:='\"(-]*(?i:is\b|are\b)?"
    r"[\s.:='\"(-]*(?:[B-HJ]\b|A\b(?!\s+(?!is\b|are\b|was\b|can|must\b|has\b)[a-z]))"
    r"|(?<!\w)\([A-J]\)|\b[A-J]\s+is\s+(?:the\s+)?(?:correct|right|answer)"
)


def split_options(question: str, answer: str) -> tuple[str, tuple[str, ...], int] | None:
    """Separates a question from the options that its text lists.

    Two styles, after a line "Options:": "(A) text" lines (with or without a dash) with a letter as
    the answer, and "- text" lines with a text as the answer. Equal options become one.

    >>> split_options("2 + 2?\\nOptions:\\n(A) 3\\n(B) 4", "(B)")
    ('2 + 2?', ('3', '4'), 1)

    Returns:
        (question, options, index of the answer); None if the text has neither style.
    """
    block = _OPTION_BLOCK.match(question)
    if block is None:
        return None
    lines = [line.strip() for line in block[2].split("\n") if line.strip()]
    labelled = [match for line in lines if (match := _LABELLED.match(line))]
    bulleted = [match for line in lines if (match := _BULLETED.match(line))]
    index = -1
    if len(labelled) == len(lines):
        texts = [match[2] for match in labelled]
        if not string.ascii_uppercase.startswith("".join(match[1] for match in labelled)):
            return None
        if letter := _LABEL.match(answer):
            index = string.ascii_uppercase.index(letter[1])
    elif len(bulleted) == len(lines):
        texts = [match[1] for match in bulleted]
    else:
        return None
    if index < 0 and answer in texts:
        index = texts.index(answer)
    if not 0 <= index < len(texts):
        return None
    options = tuple(dict.fromkeys(texts))
    return block[1], options, options.index(texts[index])


@dataclasses.dataclass(frozen=True)
class CotTsvSource(TsvSource):
    """Flan's chain-of-thought TSVs: question, answer, rationale; a literal "\\n" is a newline.

    Options in the question's text become the record's options, so that they can be rendered in
    any style, unless the rationale names one by its letter or `split_options` does not know their
    format. Splits are `hashed_parts`: the files are train only.
    """

    num_columns: int | None = 3
    origin: str = "https://github.com/google-research/FLAN (flan/v2/cot_data)"

    def record(self, row: Sequence[str], default_id: str) -> Record | Dropped:
        question, answer, rationale = (clean(text.replace("\\n", "\n")) for text in row)
        if not question or not answer:
            return Dropped("empty question or answer")
        parsed = split_options(question, answer)
        if parsed is None or (_LABEL.match(answer) and _NAMES_A_LETTER.search(rationale)):
            return Record(default_id, {"question": question}, answer, rationale=rationale)
        question, options, index = parsed
        if len(options) < 2:
            return Dropped("options are all alike")
        fields = {"question": question}
        return Record(default_id, fields, options[index], options, index, rationale=rationale)


def cot_tsv_source(path: str) -> CotTsvSource:
    """The source of one file; `path` is relative to the data folder (`cot/aqua_train.tsv`)."""
    return CotTsvSource(Path(path).stem.removesuffix("_train"), hashed_parts(path))
