"""P3: data sets worded by promptsource's templates, one configuration a prompt (Sanh et al. 2022).

A row is a finished prompt and its target. Flan turns a prompt's newlines into blanks and fails on
a target that is not among the choices; this module keeps newlines and rejects such rows.

Reads bigscience/P3 as published, `P3/data/<prompt name>/train.tfrecord-00000-of-00001`, or any
other format in `P3/<prompt name>/`, under the data folder or in the hub's cache.
"""

import functools
from collections.abc import Mapping
from typing import Any

from instruct.data.sources.huggingface import HuggingFaceSource, SplitPart
from instruct.errors import unknown_name
from instruct.prompts.options import plain
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped

FINGERPRINT_MODULE = "instruct.data.p3"  # fingerprints of stores name functions by it

# Kinds of prompts: generative, without options (G); options in the prompt's text (M); options that
# the prompt does not show (S). Only S gets options that can be rendered in any style.
KINDS = ("G", "M", "S")
_COLUMNS = ("inputs_pretokenized", "targets_pretokenized", "answer_choices", "is_correct")


def p3_source(
    prompt: str, kind: str, parts: Mapping[str, SplitPart] | None = None
) -> HuggingFaceSource:
    """The rows of one prompt.

    Args:
        prompt: its configuration in bigscience/P3 ("sciq_Direct_Question").
        kind: one of `KINDS`.
        parts: our split -> P3's, or a part of it; default all of "train".

    Raises:
        UserError: no such kind.
    """
    if kind not in KINDS:
        raise unknown_name(f"kind of P3 prompt {prompt!r}", kind, KINDS)
    return HuggingFaceSource(
        "bigscience/P3",
        prompt,
        parts or {"train": "train"},
        functools.partial(p3_record, with_options=kind == "S"),
        columns=_COLUMNS,
        repository_files="data/{config}/*",
        name=prompt,
    )


def p3_record(
    row: Mapping[str, Any], default_id: str, with_options: bool = False
) -> Record | Dropped:
    """A record with the field `prompt` from one row.

    Args:
        row: P3's columns; each a value, or a list of one as in TFRecord files.
        with_options: make `answer_choices` the record's options.
    """
    prompt = _single(row.get("inputs_pretokenized"))
    answer = _single(row.get("targets_pretokenized"))
    if not isinstance(prompt, str) or not isinstance(answer, str):
        return Dropped("inputs or targets are missing, or not UTF-8")
    if _single(row.get("is_correct", 1)) in (0, False):
        return Dropped("a wrong answer, for scoring only")
    prompt, answer = prompt.strip("\n").rstrip(), answer.strip()
    if not prompt.strip() or not answer:
        return Dropped("empty prompt or answer")
    if not with_options:
        return Record(default_id, {"prompt": prompt}, answer)
    return with_choices(default_id, prompt, answer, row.get("answer_choices"))


def with_choices(record_id: str, prompt: str, answer: str, choices: Any) -> Record | Dropped:
    """A record with the distinct `choices` as options; the answer is spelled like its choice.

    >>> with_choices("1", "Sure?", "yes", ["No", "Yes"]).answer
    'Yes'
    """
    if not isinstance(choices, list | tuple):
        return Dropped("no answer choices")
    options: dict[str, str] = {}  # spelling without case and runs of blanks -> option
    for choice in choices:
        if isinstance(choice, str) and choice.strip():
            options.setdefault(" ".join(choice.casefold().split()), choice.strip())
    wanted, keys = " ".join(answer.casefold().split()), list(options)
    matches = [i for i, key in enumerate(keys) if key == wanted]
    matches = matches or [i for i, key in enumerate(keys) if plain(key) == plain(wanted)]
    if len(matches) != 1:
        return Dropped("target is not among the answer choices")
    if len(options) < 2:
        return Dropped("answer choices are all alike")
    texts = tuple(options.values())
    return Record(record_id, {"prompt": prompt}, texts[matches[0]], texts, matches[0])


def _single(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value
