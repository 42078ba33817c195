"""Prompt templates: plain text with `{placeholders}`, kept as TOML beside the tasks.

A placeholder is a field of the record, or one of `{answer}`, `{options}`, `{rationale}`.
`{{` and `}}` stand for braces. Braces in a record's text have no meaning.
"""

import dataclasses
import functools
import itertools
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instruct.errors import UserError, unknown_name
from instruct.fields import bounded, check_fields
from instruct.prompts.draws import Draws
from instruct.prompts.exemplars import STANDARD_FORMATS, FewShotFormat
from instruct.prompts.options import OptionStyle

SPECIAL = ("answer", "options", "rationale")
LISTS = (
    *("zs_opt", "zs_noopt", "cot_opt", "cot_noopt"),
    *("fs_opt", "fs_noopt", "fs_cot_opt", "fs_cot_noopt", "inv"),
)

_TOKEN = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}|[{}]")


@functools.cache
def parse(text: str) -> tuple[str, ...]:
    """Splits a template at its placeholders: (literal, name, literal, name, ..., literal).

    >>> parse("Q: {question}\\nA {{x}}:")
    ('Q: ', 'question', '\\nA {x}:')

    Raises:
        ValueError: a brace that is neither doubled nor part of a placeholder.
    """
    parts, literal, end = [], [], 0
    for match in _TOKEN.finditer(text):
        literal.append(text[end : match.start()])
        end = match.end()
        if match.group() in ("{{", "}}"):
            literal.append(match.group()[0])
        elif match.group(1) is None:
            raise ValueError(f"stray {match.group()!r} at character {match.start()}; double it")
        else:
            parts += ["".join(literal), match.group(1)]
            literal = []
    literal.append(text[end:])
    return (*parts, "".join(literal))


def fill(parts: tuple[str, ...], values: Mapping[str, str]) -> str:
    """Puts values between the literals of `parse`. Raises KeyError for a missing placeholder.

    Drops a template's full stop after a value that already ends a sentence.
    """
    out = [parts[0]]
    for i in range(1, len(parts), 2):
        value, literal = values[parts[i]], parts[i + 1]
        out.append(value)
        ended = literal[:1] == "." and value.endswith((".", "?", "!"))
        out.append(literal[1:] if ended else literal)
    return "".join(out)


def placeholders(text: str) -> tuple[str, ...]:
    """Names of a template's placeholders, in order."""
    return parse(text)[1::2]


@dataclasses.dataclass(frozen=True)
class Template:
    """One wording.

    Attributes:
        id: unique in its template set.
        inputs: the prompt.
        targets: the text that the model must write.
        weight: relative chance of being drawn.
    """

    id: str
    inputs: str
    targets: str = "{answer}"
    weight: float = bounded(1.0, above=0)


@dataclasses.dataclass(frozen=True)
class TemplateSet:
    """All wordings of one kind of task.

    Attributes:
        name: name of the set, which results record.
        input_fields: record fields with the example itself.
        context_fields: other fields that templates may show, such as a task definition.
        truncate_field: the field that may be cut if a prompt is too long; "" for none.
        zs_opt, zs_noopt: zero-shot templates with answer options, and without.
        cot_opt, cot_noopt: the same, with a rationale before the answer.
        fs_opt, fs_noopt: one example of a few-shot prompt.
        fs_cot_opt, fs_cot_noopt: the same with a rationale before the answer; by default `fs_*`
            with the targets of `cot_*`.
        inv: inverted prompts, which show the answer or the rationale and ask for another field,
            such as the question. Drawn in modes of their own.
        instructions: descriptions of the task for few-shot prompts; may show context fields.
        cot_instructions: the same for prompts with a rationale.
        instruction_required: whether few-shot prompts must have an instruction.
        formats: few-shot layouts.
        shuffle_options: whether the order of options has no meaning.
        options_in_question: whether the question names the options itself, such as the items of a
            list, so that examples have options in modes that show none of their own: evaluation
            ranks them and knows the chance of a random one.
        exemplar_notes: texts after the answer of an exemplar, never of the query; may be "" or show
            the exemplar's `{rationale}`. One is drawn for each prompt.
        dialog_field: the field with turns, one a line, shown in a style drawn for each prompt
            (instruct/prompts/dialog.py); "" for none.
        finished: whether the field is a finished prompt, so that one wording is enough.
        published: whether this is the fixed layout of a benchmark. Its templates include all
            whitespace; `instructions` also apply to prompts with a rationale; prompts that are too
            long lose the last exemplars first; repeated exemplars stay; the query needs no
            rationale.
        option_style: how options are written; None to draw a style.
    """

    name: str
    input_fields: tuple[str, ...]
    context_fields: tuple[str, ...] = ()
    truncate_field: str = ""
    zs_opt: tuple[Template, ...] = ()
    zs_noopt: tuple[Template, ...] = ()
    cot_opt: tuple[Template, ...] = ()
    cot_noopt: tuple[Template, ...] = ()
    fs_opt: tuple[Template, ...] = ()
    fs_noopt: tuple[Template, ...] = ()
    fs_cot_opt: tuple[Template, ...] = ()
    fs_cot_noopt: tuple[Template, ...] = ()
    inv: tuple[Template, ...] = ()
    instructions: tuple[str, ...] = ()
    cot_instructions: tuple[str, ...] = ()
    instruction_required: bool = False
    formats: tuple[FewShotFormat, ...] = STANDARD_FORMATS
    shuffle_options: bool = True
    options_in_question: bool = False
    exemplar_notes: tuple[str, ...] = ()
    dialog_field: str = ""
    finished: bool = False
    published: bool = False
    option_style: OptionStyle | None = None

    @property
    def templates(self) -> tuple[Template, ...]:
        """Every template of every list."""
        return tuple(itertools.chain.from_iterable(getattr(self, name) for name in LISTS))

    @functools.cached_property
    def _cumulative_weights(self) -> dict[str, tuple[float, ...]]:
        return {
            name: tuple(itertools.accumulate(item.weight for item in getattr(self, name)))
            for name in (*LISTS, "formats")
        }

    def draw(self, name: str, draws: Draws) -> Any:
        """A weighted draw from a list of templates that is not empty, or from `formats`."""
        return getattr(self, name)[draws.weighted(self._cumulative_weights[name])]

    @functools.cached_property
    def closing_phrases(self) -> tuple[tuple[str, str], ...]:
        """(text before, text after) of the answer in every target with a rationale.

        Evaluation searches a chain of thought for them to find the answer.
        """
        phrases = {}
        for template in self.cot_opt + self.cot_noopt + self.fs_cot_opt + self.fs_cot_noopt:
            parts, names = parse(template.targets), placeholders(template.targets)
            if "rationale" in names and "answer" in names:
                at = 1 + 2 * names.index("answer")
                phrases[parts[at - 1].strip(), parts[at + 1].strip()] = None
        return tuple(phrases)


def load_template_sets(path: str | Path) -> dict[str, TemplateSet]:
    """Reads a TOML file whose top-level tables are template sets.

    Raises:
        UserError: unreadable file, unknown key, wrong type or bad placeholder, with the names of
            the file, the set and the template.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read template file {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"template file {path} is not valid TOML: {error}") from error
    return {name: _read_set(name, table, f"{path}: set {name!r}") for name, table in tables.items()}


def _read_set(name: str, table: Any, where: str) -> TemplateSet:
    values: dict[str, Any] = {}
    for key, value in table.items() if isinstance(table, dict) else ():
        if key in LISTS or key == "formats":
            kind = Template if key in LISTS else FewShotFormat
            values[key] = tuple(_read_table(kind, item, f"{where}, {key}") for item in value)
        elif key == "option_style":
            values[key] = _read_table(OptionStyle, value, f"{where}, {key}")
        else:
            values[key] = tuple(value) if isinstance(value, list) else value
    template_set = _read_table(TemplateSet, values | {"name": name}, where)
    allowed = {*template_set.input_fields, *template_set.context_fields, *SPECIAL}
    texts = [
        (f"template {template.id!r}", text)
        for template in template_set.templates
        for text in (template.inputs, template.targets)
    ]
    for key in ("instructions", "cot_instructions", "exemplar_notes"):
        texts += [(key, text) for text in getattr(template_set, key)]
    for place, text in texts:
        try:
            unknown = [name for name in placeholders(text) if name not in allowed]
        except ValueError as error:
            raise UserError(f"{where}, {place}: {error}") from error
        if unknown:
            raise UserError(f"{where}, {place}: {unknown_name('placeholder', unknown[0], allowed)}")
    return template_set


def _read_table(kind: type, table: Any, where: str) -> Any:
    """A dataclass from a TOML table, its values checked against the declared fields."""
    if not isinstance(table, dict):
        raise UserError(f"{where} must be a table with the keys of {kind.__name__}, not {table!r}")
    if "id" in table:
        where = f"{where}, {table['id']!r}"
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in table:
        if key not in fields:
            raise UserError(f"{where}: {unknown_name('key', key, fields)}")
    for key, field in fields.items():
        if field.default is dataclasses.MISSING and not table.get(key):
            raise UserError(f"{where}: {key} is missing")
    try:
        item = kind(**table)
        check_fields(item)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    return item
