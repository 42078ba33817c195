"""The Flan Collection's own wordings for the tasks here, from a user's checkout.

In a workspace with a `flan_checkout` the families `flan2021`, `cot`, `dialog`, `program_synthesis`
and `niv2` take their templates from google-research/FLAN (`instruct/prompts/flan_tables.py` reads
them). The table below says which of its patterns belong to which task, and what its fields are
called here.

Such a set is named `flan_v2:<key>`, and results carry that name. Records (so the labels too),
option styles, dialog styles and the drawing of few-shot exemplars stay this project's.

    squad, stsb, ...     patterns and inversions under one key; a task has inverted modes only if
                         Flan has inverted patterns for it
    cot, dialog, ...     inversions under a key of their own; what Flan has no wording for (a
                         chain-of-thought task's plain answer) keeps this project's

Keys and names of fields are those of flan/v2/templates.py as public in 2023: all keys and the
fields of the zero-shot patterns were compared with it. A template with any other placeholder, in a
few-shot pattern or in another version of the file, is left out when the file is read.
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
        fields: Flan's field -> ours, where they differ; "answer" is what most targets consist of.
        inverted: key of the task's inversions; "" where they are under `key`.
        shown_as: our field -> its text in inputs, where Flan's field held more.
        options_after: our field after which Flan's field had the options, so that no pattern
            names them.
        ends_questions: our field that ends in a question mark, which patterns set themselves.
    """

    key: str
    fields: Mapping[str, str] = {}
    inverted: str = ""
    shown_as: Mapping[str, str] = {}
    options_after: str = ""
    ends_questions: str = ""


# ---------------------------------------------------------------- the table

# Tasks that share patterns; any other task's key is its own id.
_SHARED_KEYS = {
    **dict.fromkeys(("anli_r1", "anli_r2", "anli_r3"), "anli"),
    **dict.fromkeys(("arc_challenge", "arc_easy"), "arc"),
    **dict.fromkeys(("mnli_matched", "mnli_mismatched"), "mnli"),
    "para_crawl_enes": "para_crawl",
    "trivia_qa_wiki_missing": "trivia_qa",
    **{
        f"wmt16_translate_{pair}": "wmt16_translate"
        for pair in ("deen", "tren", "csen", "fien", "roen", "ruen")
    },
}
_SUMMARY = {"summary": "answer"}
_TARGET = {"target": "answer"}
_TRANSLATION = {
    "lang1": "source_language",
    "lang2": "target_language",
    "sent1": "source",
    "sent2": "answer",
}
# Fields by key; those of the same name are not listed.
_FIELDS: Mapping[str, Mapping[str, str]] = {
    "aeslc": {"subject": "answer"},
    "anli": {"context": "premise"},
    "cnn_dailymail": {"highlights": "answer"},
    # There are inverted prompts that ask for a list with one item a line; here it is one line.
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
    key = _SHARED_KEYS.get(task, task)
    # Flan's BoolQ has its questions without a question mark.
    marked = "question" if key == "bool_q" else ""
    return Counterpart(key, _FIELDS.get(key, {}), ends_questions=marked)


def _cot(task: str) -> Counterpart:
    # "stream" is Flan's word for rationales of lower quality.
    kind = "stream" if task in ("aqua", "qed") else "cot"
    inverted = f"{kind}_input_inversion_{task}"
    return Counterpart(f"{kind}_{task}", inverted=inverted, options_after="question")


def _paired(
    key: str, fields: Mapping[str, str], shown_as: Mapping[str, str] | None = None
) -> Counterpart:
    return Counterpart(key, fields, f"{key}_input_inversion", shown_as or {})


_CODE = {"question": "code"}

# Task, or a family all of whose tasks share one set -> its wordings in Flan.
COUNTERPARTS: Mapping[str, Counterpart] = {
    **{f"flan2021.{task}": _flan2021(task) for task in TASKS},
    **{
        f"cot.{task}": _cot(task)
        for task in (
            *("gsm8k", "strategyqa", "creak", "qasc", "esnli", "ecqa", "sensemaking"),
            *("aqua", "qed"),
        )
    },
    **{f"dialog.{task}": _paired(task, {}) for task in ("wiki_dialog", "qrecc", "task_master")},
    **{
        f"program_synthesis.{task}": _paired(f"program_synthesis_{task}", _CODE)
        for task in ("dr_repair_plain_code", "dr_repair_error_comments", "dr_repair_no_errors")
    },
    "program_synthesis.dr_repair_line_numbers": _paired(
        "program_synthesis_dr_repair_line_numbers", _CODE, {"code": "{code}\n{error}"}
    ),
    "program_synthesis.code_contests": _paired(
        "program_synthesis_dmcc_python", {"question": "description"}
    ),
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
    renaming = {}
    for counterpart in COUNTERPARTS.values():
        renaming[counterpart.key] = counterpart.fields
        if counterpart.inverted:
            renaming[counterpart.inverted] = counterpart.fields
    return flan_tables.load_flan_tables(root, renaming)


def in_original_words(spec: TaskSpec, workspace: Workspace) -> TaskSpec:
    """A `TaskSpec.within_fn`: the task in Flan's words where the workspace has a checkout."""
    if workspace.flan_checkout is None:
        return spec
    name = spec.name if spec.name in COUNTERPARTS else spec.family
    templates = original_set(workspace.flan_checkout, name, spec.templates)
    return spec if templates is None else dataclasses.replace(spec, templates=templates)


@functools.lru_cache(maxsize=256)  # asked for whenever a mixture is resolved
def original_set(root: Path, task: str, ours: TemplateSet) -> TemplateSet | None:
    """Flan's wordings of a task, for our records.

    Args:
        root: the checkout.
        task: a name of COUNTERPARTS.
        ours: the task's own set: its fields are those that the records have.

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
    if counterpart.key not in tables:
        _log.warning(
            "%s has no patterns %r: %s keeps its own wordings", root, counterpart.key, task
        )
        return None
    template_set, left_out = adapted(counterpart, tables, ours)
    if left_out:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(left_out.items()))
        name, total = template_set.name, left_out.total()
        _log.warning("%s, wordings of %s: %d left out (%s)", name, task, total, reasons)
    return template_set


def adapted(
    counterpart: Counterpart, tables: Mapping[str, TemplateSet], ours: TemplateSet
) -> tuple[TemplateSet, collections.Counter[str]]:
    """Flan's patterns for records that have the fields of `ours`, and why others are left out."""
    flans = tables[counterpart.key]
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
        """Whether the records have all fields that texts show; counted if not."""
        names = {name for text in texts for name in placeholders(text)} - known
        if names:
            left_out[f"no field {' or '.join(sorted(names))}"] += 1
        return not names

    kept = {name: tuple(t for t in lists[name] if is_known(t.inputs, t.targets)) for name in LISTS}
    instructions = tuple(text for text in flans.instructions if is_known(text))
    formats = flans.formats
    if not (kept["fs_opt"] or kept["fs_noopt"]):
        instructions, formats = ours.instructions, ours.formats
    for name in LISTS:
        if not kept[name] and (name != "inv" or counterpart.inverted):
            kept[name] = getattr(ours, name)
    template_set = dataclasses.replace(
        ours,
        name=PREFIX + counterpart.key,
        instructions=instructions,
        cot_instructions=(),
        exemplar_notes=(),
        formats=formats,
        **kept,
    )
    return template_set, left_out


def _fitted(template: Template, counterpart: Counterpart) -> Template:
    """A template for records whose fields hold a little more or less than Flan's."""
    texts = {"inputs": template.inputs, "targets": template.targets}
    if field := counterpart.ends_questions:
        texts = {name: t.replace(f"{{{field}}}?", f"{{{field}}}") for name, t in texts.items()}
    texts["inputs"] = replace_fields(texts["inputs"], counterpart.shown_as)
    return dataclasses.replace(template, **texts)


def _with_options(template: Template, field: str) -> Template:
    """A template that shows the options after the field that they belong to."""
    inputs = replace_fields(template.inputs, {field: f"{{{field}}}\n{{options}}"})
    return dataclasses.replace(template, id=f"{template.id}_options", inputs=inputs)
