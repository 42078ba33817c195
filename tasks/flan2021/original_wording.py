"""The Flan Collection's own wordings, from a user's checkout of google-research/FLAN.

In a workspace with a `flan_checkout` the families `flan2021`, `cot`, `dialog`, `program_synthesis`
and `niv2` take their templates from it (`instruct/prompts/flan_tables.py` reads them). The table
below maps each task to its patterns, and Flan's names of fields to ours.

Such a set is named `flan_v2:<key>`, and results carry that name. Records (so the labels too),
option styles, dialog styles and the drawing of few-shot exemplars stay this project's.

    squad, stsb, ...     patterns and inversions under one key; a task has inverted modes only if
                         Flan has inverted patterns for it
    cot, dialog, ...     inversions under a key of their own; modes without a wording in Flan (a
                         chain-of-thought task's plain answer) keep this project's

Keys and names of fields are those of flan/v2/templates.py as public in 2023: all keys and the
fields of the zero-shot patterns were compared with it. Reading the file drops a template with any
other placeholder (in a few-shot pattern, or in another version of the file).
"""

import collections
import dataclasses
import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from instruct.data.spec import TaskSpec
from instruct.errors import UserError
from instruct.prompts import flan_tables
from instruct.prompts.flan_tables import replace_fields
from instruct.prompts.template import LISTS, SPECIAL, Template, TemplateSet, placeholders
from instruct.workspace import FLAN_VARIABLE, Workspace
from tasks.flan2021.table import TASKS

PREFIX = "flan_v2:"

_log = logging.getLogger(__name__)


class Counterpart(NamedTuple):
    """The patterns of a task in Flan's tables.

    Attributes:
        key: of PATTERNS and FEWSHOT_PATTERNS.
        fields: Flan's field -> ours, where they differ; "answer" is the field of most targets.
        inverted: key of the task's inversions; "" where they are under `key`.
        shown_as: our field -> its text in inputs, where Flan's field held more.
        options_after: our field whose counterpart in Flan ends with the options, so that no
            pattern names them.
        ends_questions: our field that ends in a question mark, which patterns add themselves.
    """

    key: str
    fields: Mapping[str, str] = {}
    inverted: str = ""
    shown_as: Mapping[str, str] = {}
    options_after: str = ""
    ends_questions: str = ""


# ---------------------------------------------------------------- the table

# Beginnings of the ids of tasks that share patterns, and their keys; others have their own id.
_SHARED_KEYS = ("anli", "arc", "mnli", "para_crawl", "trivia_qa", "wmt16_translate")
_SUMMARY = {"summary": "answer"}
_TARGET = {"target": "answer"}
_TRANSLATION = {
    **{"lang1": "source_language", "lang2": "target_language"},
    **{"sent1": "source", "sent2": "answer"},
}
# Fields by key; those of the same name are not listed.
_FIELDS: Mapping[str, Mapping[str, str]] = {
    "aeslc": {"subject": "answer"},
    "anli": {"context": "premise"},
    "cnn_dailymail": {"highlights": "answer"},
    # Some inverted prompts ask for a list with one item a line; ours is on one line.
    "common_gen": _TARGET | {"concepts_newline": "concepts"},
    "copa": {"glm_premise": "premise_open"},
    "coqa": {"numbered_answers": "answer"},
    "dart": _TARGET | {"tripleset": "triples", "tripleset_newline": "triples"},
    "e2e_nlg": _TARGET | {"meaning_representation": "meaning"},
    "gigaword": _SUMMARY,
    "hellaswag": {"activity_label": "activity"},
    "multi_news": _SUMMARY,
    "newsroom": _SUMMARY,
    "opinion_abstracts_idebate": {"argument_sentences": "arguments", "claim": "answer"},
    "opinion_abstracts_rotten_tomatoes": {"critic_consensus": "answer"},
    "para_crawl": _TRANSLATION,
    "samsum": _SUMMARY,
    "sst2": {"sentence": "text"},
    "web_nlg_en": _TARGET | {"input_string": "facts"},
    "wiki_lingua_english_en": _TARGET,
    "wmt14_enfr": _TRANSLATION,
    "wmt16_translate": _TRANSLATION,
    "wnli": {"sentence1": "premise", "sentence2": "hypothesis"},
    "xsum": _SUMMARY,
}


def _flan2021(task: str) -> Counterpart:
    key = next((key for key in _SHARED_KEYS if task.startswith(f"{key}_")), task)
    # In Flan's BoolQ, questions lack the question mark.
    marked = "question" if key == "bool_q" else ""
    return Counterpart(key, _FIELDS.get(key, {}), ends_questions=marked)


def _cot(task: str) -> Counterpart:
    # "stream" is Flan's word for rationales of lower quality.
    kind = "stream" if task in ("aqua", "qed") else "cot"
    inverted = f"{kind}_input_inversion_{task}"
    return Counterpart(f"{kind}_{task}", inverted=inverted, options_after="question")


def _paired(key: str, question: str = "question", shown_as: str = "") -> Counterpart:
    """Patterns with inversions beside them; `question` is our name of Flan's field."""
    fields = {} if question == "question" else {"question": question}
    shown = {question: shown_as} if shown_as else {}
    return Counterpart(key, fields, f"{key}_input_inversion", shown)


_COT = ("gsm8k", "strategyqa", "creak", "qasc", "esnli", "ecqa", "sensemaking", "aqua", "qed")
_CODE = "program_synthesis_dr_repair_"

# Task, or a family all of whose tasks share one set -> its wordings in Flan.
COUNTERPARTS: Mapping[str, Counterpart] = {
    **{f"flan2021.{task}": _flan2021(task) for task in TASKS},
    **{f"cot.{task}": _cot(task) for task in _COT},
    **{f"dialog.{task}": _paired(task) for task in ("wiki_dialog", "qrecc", "task_master")},
    **{
        f"program_synthesis.dr_repair_{variant}": _paired(f"{_CODE}{variant}", "code")
        for variant in ("plain_code", "error_comments", "no_errors")
    },
    "program_synthesis.dr_repair_line_numbers": _paired(
        f"{_CODE}line_numbers", "code", "{code}\n{error}"
    ),
    "program_synthesis.code_contests": _paired("program_synthesis_dmcc_python", "description"),
    "niv2": Counterpart("natinst_v2"),
}


# ---------------------------------------------------------------- from the checkout


@functools.cache
def _tables(root: Path) -> dict[str, TemplateSet]:
    """The template sets of a checkout with our names, read once a process."""
    if not (root / flan_tables.TABLES_FILE).is_file():
        raise UserError(
            f"FLAN_CHECKOUT is {root}, where there is no {flan_tables.TABLES_FILE}. Give the "
            "folder of a checkout (git clone https://github.com/google-research/FLAN), or leave "
            f"out FLAN_CHECKOUT and ${FLAN_VARIABLE} for this project's own wordings"
        )
    parts = COUNTERPARTS.values()
    renaming = {key: part.fields for part in parts for key in (part.key, part.inverted) if key}
    return flan_tables.load_flan_tables(root, renaming)


def in_original_words(spec: TaskSpec, workspace: Workspace) -> TaskSpec:
    """A `TaskSpec.within_fn`: the task in Flan's words where the workspace has a checkout."""
    if workspace.flan_checkout is None:
        return spec
    name = spec.name if spec.name in COUNTERPARTS else spec.family
    templates = original_set(workspace.flan_checkout, name, spec.templates)
    return spec if templates is None else dataclasses.replace(spec, templates=templates)


@functools.lru_cache(maxsize=256)  # called whenever a mixture is resolved
def original_set(root: Path, task: str, ours: TemplateSet) -> TemplateSet | None:
    """Flan's wordings of a task, for our records.

    Args:
        root: the checkout.
        task: a name of COUNTERPARTS.
        ours: the task's own set: its fields are those of the records.

    Returns:
        A set that only shows those fields; None where Flan has no patterns under the key. A
        warning counts the patterns that are left out.

    Raises:
        UserError: the folder is no checkout.
    """
    counterpart = COUNTERPARTS.get(task)
    if counterpart is None:
        return None
    tables = _tables(root)
    flans = tables.get(counterpart.key)
    if flans is None:
        _log.warning(
            "%s has no patterns %r: %s keeps its own wordings", root, counterpart.key, task
        )
        return None
    lists = {name: [_fitted(t, counterpart) for t in getattr(flans, name)] for name in LISTS}
    if counterpart.inverted in tables:
        for template in tables[counterpart.inverted].inv:
            template = dataclasses.replace(template, id=f"ii_{template.id}")
            lists["inv"].append(_fitted(template, counterpart))
    if counterpart.options_after:
        for name in ("cot", "fs"):
            plain = lists[f"{name}_noopt"]
            lists[f"{name}_opt"] += [_with_options(t, counterpart.options_after) for t in plain]
    known = {*ours.input_fields, *ours.context_fields, *SPECIAL}
    left_out: collections.Counter[str] = collections.Counter()

    def is_known(*texts: str) -> bool:
        """Whether the records have all fields in these texts; counts the texts if not."""
        names = {name for text in texts for name in placeholders(text)} - known
        if names:
            left_out[f"no field {' or '.join(sorted(names))}"] += 1
        return not names

    kept = {name: tuple(t for t in lists[name] if is_known(t.inputs, t.targets)) for name in LISTS}
    instructions = tuple(text for text in flans.instructions if is_known(text))
    few_shot = flans if kept["fs_opt"] or kept["fs_noopt"] else ours
    for name in LISTS:
        if not kept[name] and (name != "inv" or counterpart.inverted):
            kept[name] = getattr(ours, name)
    template_set = dataclasses.replace(
        ours,
        name=PREFIX + counterpart.key,
        instructions=instructions if few_shot is flans else ours.instructions,
        cot_instructions=(),
        exemplar_notes=(),
        formats=few_shot.formats,
        **kept,
    )
    if left_out:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(left_out.items()))
        name, total = template_set.name, left_out.total()
        _log.warning("%s, wordings of %s: %d left out (%s)", name, task, total, reasons)
    return template_set


def _fitted(template: Template, counterpart: Counterpart) -> Template:
    """A template for records whose fields differ from Flan's by options or a question mark."""
    texts = {"inputs": template.inputs, "targets": template.targets}
    if field := counterpart.ends_questions:
        texts = {name: t.replace(f"{{{field}}}?", f"{{{field}}}") for name, t in texts.items()}
    texts["inputs"] = replace_fields(texts["inputs"], counterpart.shown_as)
    return dataclasses.replace(template, **texts)


def _with_options(template: Template, field: str) -> Template:
    """A template that shows the options after the field that they belong to."""
    inputs = replace_fields(template.inputs, {field: f"{{{field}}}\n{{options}}"})
    return dataclasses.replace(template, id=f"{template.id}_options", inputs=inputs)
