"""Prompt templates: plain text with `{placeholders}`, kept as TOML beside the tasks.

A placeholder is a field of the record, or one of `{answer}`, `{options}`, `{rationale}`.
`{{` and `}}` stand for braces. Templates are taken apart once; a record's text is only ever
copied, so braces in it mean nothing.
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
from instruct.prompts.exemplars import PLACEMENTS, STANDARD_FORMATS, FewShotFormat
from instruct.prompts.options import OptionStyle

SPECIAL = ("answer", "options", "rationale")
LISTS = (
    *("zs_opt", "zs_noopt", "cot_opt", "cot_noopt"),
    *("fs_opt", "fs_noopt", "fs_cot_opt", "fs_cot_noopt", "inv"),
)

_TOKEN = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}|[{}]")


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
    """Puts values between the literals of `parse`. KeyError names a missing placeholder.

    A full stop of the template is left out after a value that already ends a sentence.
    """
    out = [parts[0]]
    for i in range(1, len(parts), 2):
        value, literal = values[parts[i]], parts[i + 1]
        out.append(value)
        ended = literal[:1] == "." and value.endswith((".", "?", "!"))
        out.append(literal[1:] if ended else literal)
    return "".join(out)


@dataclasses.dataclass(frozen=True)
class Template:
    """One wording.

    Attributes:
        id: unique in its template set.
        inputs: what the model reads.
        targets: what it must write.
        weight: relative chance of being drawn.
    """

    id: str
    inputs: str
    targets: str = "{answer}"
    weight: float = 1.0

    @functools.cached_property
    def input_parts(self) -> tuple[str, ...]:
        return parse(self.inputs)

    @functools.cached_property
    def target_parts(self) -> tuple[str, ...]:
        return parse(self.targets)

    @property
    def input_names(self) -> frozenset[str]:
        """Placeholders of the input side."""
        return frozenset(self.input_parts[1::2])

    @property
    def target_names(self) -> frozenset[str]:
        """Placeholders of the target side."""
        return frozenset(self.target_parts[1::2])


def _cumulative(items: tuple[Any, ...]) -> tuple[float, ...]:
    return tuple(itertools.accumulate(item.weight for item in items))


@dataclasses.dataclass(frozen=True)
class TemplateSet:
    """All wordings of one kind of task.

    Attributes:
        name: name of the set; results carry it.
        input_fields: record fields that hold the example itself.
        context_fields: further fields that templates may show (a task definition, for example).
        truncate_field: the field that may be cut when a prompt is too long; "" if none may be,
            because the example would lose its point.
        zs_opt, zs_noopt: zero-shot templates that show answer options, and that do not.
        cot_opt, cot_noopt: the same, with a rationale before the answer.
        fs_opt, fs_noopt: what one example of a few-shot prompt consists of.
        fs_cot_opt, fs_cot_noopt: the same where the answer comes with a rationale, inputs and
            targets; `fs_*` with the targets of `cot_*` unless given.
        inv: inverted prompts: they show the answer or the rationale and ask for something else (a
            question for its answer, for example). Drawn in modes of their own, which a mixture
            gives a rate of their own; each is a prompt in itself.
        instructions: what few-shot prompts may say about the task; they may show context fields.
        cot_instructions: the same where the answer comes with a rationale.
        instruction_required: whether a few-shot prompt makes no sense without an instruction.
        formats: few-shot layouts; the standard ones unless the file has its own.
        shuffle_options: whether the order of options carries no meaning.
        exemplar_notes: what may follow the answer of an exemplar, never of the query ("" for
            nothing; they may show the exemplar's `{rationale}`); one is drawn a prompt.
        dialog_field: the field that holds turns, one a line, shown in a style drawn for each
            prompt (instruct/prompts/dialog.py); "" for none.
        finished: whether the field is a finished prompt, so that one wording is enough.
        published: whether this is the one layout of a benchmark: templates hold an example's whole
            text, blanks and all; `instructions` head prompts with reasoning too; too long a prompt
            loses its last exemplars first; an exemplar that the publisher's file repeats is shown
            twice; and what is asked needs no rationale of its own.
        option_style: how options are written; None to draw it.
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
    def _tables(self) -> dict[str, tuple[tuple[Template, ...], tuple[float, ...]]]:
        return {name: (getattr(self, name), _cumulative(getattr(self, name))) for name in LISTS}

    def drawable(self, name: str) -> tuple[tuple[Template, ...], tuple[float, ...]]:
        """Templates of a list and their cumulative weights."""
        return self._tables[name]

    @functools.cached_property
    def format_weights(self) -> tuple[float, ...]:
        """Cumulative weights of `formats`."""
        return _cumulative(self.formats)

    @functools.cached_property
    def instruction_parts(self) -> tuple[tuple[str, ...], ...]:
        return tuple(parse(text) for text in self.instructions)

    @functools.cached_property
    def cot_instruction_parts(self) -> tuple[tuple[str, ...], ...]:
        return tuple(parse(text) for text in self.cot_instructions)

    @functools.cached_property
    def note_parts(self) -> tuple[tuple[str, ...], ...]:
        return tuple(parse(text) for text in self.exemplar_notes)

    @functools.cached_property
    def closing_phrases(self) -> tuple[tuple[str, str], ...]:
        """(text before, text after) of the answer in every target that has a rationale.

        Evaluation looks for these to find the answer in a chain of thought.
        """
        phrases = {}
        for template in self.cot_opt + self.cot_noopt + self.fs_cot_opt + self.fs_cot_noopt:
            parts = template.target_parts
            names = parts[1::2]
            if "rationale" in names and "answer" in names:
                at = 1 + 2 * names.index("answer")
                phrases[parts[at - 1].strip(), parts[at + 1].strip()] = None
        return tuple(phrases)


def load_template_sets(path: str | Path) -> dict[str, TemplateSet]:
    """Reads a TOML file whose top-level tables are template sets.

    Raises:
        UserError: unreadable file, unknown key, wrong type, bad placeholder; the message names
            the file, the set and the template.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read template file {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"template file {path} is not valid TOML: {error}") from error
    sets = {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise UserError(f"{path}: {name!r} must be a table ([{name}]), one per template set")
        sets[name] = _read_set(name, table, f"{path}: set {name!r}")
    return sets


def _read_set(name: str, table: dict[str, Any], where: str) -> TemplateSet:
    known = {field.name for field in dataclasses.fields(TemplateSet)} - {"name"}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise UserError(f"{where}: {unknown_name('key', key, known)}")
        if key in LISTS:
            values[key] = tuple(_read_item(Template, item, f"{where}, {key}") for item in value)
        elif key == "formats":
            values[key] = tuple(_read_item(FewShotFormat, i, f"{where}, {key}") for i in value)
        elif key == "option_style":
            values[key] = _read_style(value, f"{where}, {key}")
        elif isinstance(value, list):
            values[key] = tuple(value)
        else:
            values[key] = value
    if not values.get("input_fields"):
        raise UserError(f"{where}: input_fields is missing; list the record fields that it shows")
    template_set = TemplateSet(name, **values)
    _check_placeholders(template_set, where)
    return template_set


def _read_style(table: Any, where: str) -> OptionStyle:
    names = {field.name for field in dataclasses.fields(OptionStyle)}
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise UserError(f"{where} must be a table of texts, not {table!r}")
    for key in table:
        if key not in names:
            raise UserError(f"{where}: {unknown_name('key', key, names)}")
    return OptionStyle(**table)


def _read_item(kind: type, item: Any, where: str) -> Any:
    """One Template or FewShotFormat from a TOML table, types checked against its defaults."""
    if not isinstance(item, dict) or not isinstance(item.get("id"), str):
        raise UserError(f"{where}: every entry needs an id (text); found {item!r}")
    where = f"{where}, {item['id']!r}"
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values = dict(item)
    if isinstance(values.get("weight"), int):
        values["weight"] = float(values["weight"])
    for key, value in values.items():
        if key not in fields:
            raise UserError(f"{where}: {unknown_name('key', key, fields)}")
        wanted: Any = fields[key].type
        if type(value) is not wanted:
            raise UserError(f"{where}: {key} must be {wanted.__name__}, not {value!r}")
    if kind is Template and not item.get("inputs"):
        raise UserError(f"{where}: inputs is missing")
    if values.get("instruction", "none") not in PLACEMENTS:
        raise UserError(f"{where}: {unknown_name('placement', values['instruction'], PLACEMENTS)}")
    if not values.get("weight", 1.0) > 0:
        raise UserError(f"{where}: weight must be above 0, not {values['weight']}")
    return kind(**values)


def _check_placeholders(template_set: TemplateSet, where: str) -> None:
    allowed = {*template_set.input_fields, *template_set.context_fields, *SPECIAL}
    texts = [
        (f"template {t.id!r}", side)
        for t in template_set.templates
        for side in (t.inputs, t.targets)
    ]
    texts += [("instructions", t) for t in template_set.instructions]
    texts += [("cot_instructions", t) for t in template_set.cot_instructions]
    texts += [("exemplar_notes", t) for t in template_set.exemplar_notes]
    for what, text in texts:
        try:
            names = parse(text)[1::2]
        except ValueError as error:
            raise UserError(f"{where}, {what}: {error}") from error
        for name in names:
            if name not in allowed:
                raise UserError(f"{where}, {what}: {unknown_name('placeholder', name, allowed)}")
