"""promptsource's templates applied to raw rows: P3's prompts from the original data sets.

`templates.yaml` holds Jinja templates, "prompt ||| target", and an expression for the answer
choices (Bach et al. 2022). They are compiled once and rendered in Jinja's sandbox. Unlike in
promptsource, nothing is cut at 2,048 characters, "choice" draws by the row's own hash, and a
template that fails on a row, or uses a column that the row lacks, rejects the row with a reason.
"""

import dataclasses
import functools
import hashlib
import json
import random
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from instruct.data.sources.files import cached_by_file
from instruct.data.sources.huggingface import HuggingFaceSource
from instruct.data.sources.p3 import with_choices
from instruct.errors import UserError, unknown_name
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from instruct.workspace import Workspace

TEMPLATES_FILE = "templates.yaml"
MAX_RENDERED_CHARS = 1_000_000  # of a prompt with its target; more means a broken template
_SEPARATOR = "|||"
_PROTECTED = "\ue000|\ue001|\ue000"  # private characters: no data set uses them
_DRAWS = "draws of this row"  # no template can name a variable with blanks


@dataclasses.dataclass(frozen=True)
class JinjaTemplate:
    """One template of a template file.

    Attributes:
        name: unique in its data set.
        jinja: prompt and target, separated by "|||".
        answer_choices: Jinja for the choices, separated by "|||"; "" for none.
        choices_in_prompt: whether the prompt itself shows the choices.
        original_task: whether it asks for the data set's original task.
        metrics: promptsource's names ("Accuracy").
    """

    name: str
    jinja: str
    answer_choices: str = ""
    choices_in_prompt: bool = False
    original_task: bool = False
    metrics: tuple[str, ...] = ()


def p3_name(dataset: str, subset: str | None, template: str) -> str:
    """The name of a prompt in P3.

    >>> p3_name("super_glue", "rte", "does this imply?")
    'super_glue_rte_does_this_imply_'
    """
    return re.sub(r"[^\w.]+", "_", "_".join(filter(None, (dataset, subset, template))))


@cached_by_file(maxsize=64)
def load_templates(path: Path) -> dict[str, JinjaTemplate]:
    """The templates of one `templates.yaml`, by name.

    Raises:
        OSError: the file cannot be read.
        UserError: it is not a template file, or a template lacks its name or text.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads the two tags of these files as plain dictionaries."""

    for tag in ("!Template", "!TemplateMetadata"):
        Loader.add_constructor(tag, yaml.SafeLoader.construct_yaml_map)
    try:
        table = yaml.load(path.read_bytes().decode("utf-8-sig"), Loader=Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"templates {path} cannot be read: {error}") from error
    entries = table.get("templates") if isinstance(table, dict) else None
    if not isinstance(entries, dict):
        raise UserError(f"{path} has no table 'templates'; it is not a file of promptsource")
    templates = {}
    for identity, entry in entries.items():
        if not isinstance(entry, dict) or not all(
            isinstance(entry.get(key), str) for key in ("name", "jinja")
        ):
            raise UserError(f"{path}: template {identity!r} has no name or no jinja text")
        metadata = entry.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        templates[entry["name"]] = JinjaTemplate(
            entry["name"],
            entry["jinja"],
            str(entry.get("answer_choices") or ""),
            bool(metadata.get("choices_in_prompt")),
            bool(metadata.get("original_task")),
            tuple(map(str, metadata.get("metrics") or ())),
        )
    return templates


@functools.cache
def _environment() -> Any:
    """Jinja's sandbox with promptsource's additions.

    No template reaches names with underscores, files or this program. A malicious one can still
    waste time or memory; it then kills only the process that builds its store.
    """
    import jinja2
    from jinja2 import sandbox

    class Environment(sandbox.SandboxedEnvironment):
        intercepted_binops = frozenset(("*", "**"))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "**" and not (abs(left) < 1e6 and abs(right) < 20):
                raise sandbox.SecurityError("a power is too large")
            for many, times in ((left, right), (right, left)):
                if isinstance(many, str | list | tuple) and len(many) * times > MAX_RENDERED_CHARS:
                    raise sandbox.SecurityError("a repetition is too long")
            return super().call_binop(context, operator, left, right)

    @jinja2.pass_context
    def choice(context: Any, items: Sequence[Any]) -> Any:
        return context.get(_DRAWS).choice(list(items))

    environment = Environment(undefined=jinja2.StrictUndefined)
    environment.globals["zip"] = zip
    environment.filters["choice"] = choice
    environment.filters["most_frequent"] = statistics.multimode
    environment.filters["highlight"] = str
    return environment


@functools.lru_cache(maxsize=512)
def _compiled(source: str) -> Any:
    return _environment().from_string(source)


def _render_parts(source: str, values: Mapping[str, Any]) -> list[str]:
    """Renders one template; the parts between its separators. OverflowError if it is too long."""
    pieces, length = [], 0
    for piece in _compiled(source).generate(**values):
        length += len(piece)
        if length > MAX_RENDERED_CHARS:
            raise OverflowError(f"more than {MAX_RENDERED_CHARS} characters")
        pieces.append(piece)
    return [part.strip() for part in "".join(pieces).split(_SEPARATOR)]


def _protect(value: Any) -> Any:
    """Replaces the separator in the texts of `value`, at any depth."""
    if isinstance(value, str):
        return value.replace(_SEPARATOR, _PROTECTED)
    if isinstance(value, Mapping):
        return {key: _protect(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_protect(item) for item in value]
    return value


def apply_template(
    template: JinjaTemplate,
    row: Mapping[str, Any],
    record_id: str,
    with_options: bool | None = None,
) -> Record | Dropped:
    """A record with the field `prompt`: the template rendered with one row.

    Args:
        row: the raw row; "-" in column names becomes "_", as in promptsource.
        with_options: make the answer choices the record's options; None: if the template has some
            and does not show them itself.
    """
    if "answer_choices" in row:
        return Dropped("row has a column named answer_choices")
    values = {str(name).replace("-", "_"): _protect(value) for name, value in row.items()}
    text = json.dumps(row, sort_keys=True, ensure_ascii=False, default=str)
    # The same draws for choices and prompt: what both draw first is the same item.
    seed = hashlib.blake2b(
        f"{template.name}\n{text}".encode("utf-8", "surrogatepass"), digest_size=8
    ).digest()
    choices: list[str] = []
    try:
        if template.answer_choices:
            draws = {_DRAWS: random.Random(seed)}
            choices = _render_parts(template.answer_choices, values | draws)
        more_values = {"answer_choices": choices or None, _DRAWS: random.Random(seed)}
        parts = _render_parts(template.jinja, values | more_values)
    except OverflowError:
        return Dropped("template writes too much")
    except Exception as error:  # a template is a program and may raise anything
        return Dropped(f"template fails with {type(error).__name__}")
    if len(parts) != 2:
        return Dropped(f"template gives {len(parts)} parts, not prompt and target")
    prompt, answer, *choices = (t.replace(_PROTECTED, _SEPARATOR) for t in (*parts, *choices))
    if not prompt or not answer:
        return Dropped("empty prompt or target")
    if with_options is None:
        with_options = bool(template.answer_choices) and not template.choices_in_prompt
    if not with_options:
        return Record(record_id, {"prompt": prompt}, answer)
    return with_choices(record_id, prompt, answer, choices)


@dataclasses.dataclass(frozen=True)
class PromptSourceSource:
    """One template of one data set, applied to all its rows.

    Attributes:
        dataset, subset: promptsource's names of them, and of the template file's folder.
        template: its name in the file.
        rows: the raw rows, with the columns of the hub's data set.
        templates_path: promptsource's folder of templates, under the data folder.
        with_options: see `apply_template`.
    """

    dataset: str
    subset: str | None
    template: str
    rows: HuggingFaceSource
    templates_path: str = "promptsource/templates"
    with_options: bool | None = None

    @property
    def name(self) -> str:
        """The prompt's name in P3; ids of records begin with it."""
        return p3_name(self.dataset, self.subset, self.template)

    def path(self, workspace: Workspace) -> Path:
        """The template file."""
        folder = workspace.data_dir / self.templates_path / self.dataset
        return (folder / self.subset if self.subset else folder) / TEMPLATES_FILE

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.rows.splits)

    def fingerprint(self, workspace: Workspace) -> str:
        """Hash of the rows and of this template's text; "absent" if one is missing."""
        rows = self.rows.fingerprint(workspace)
        if rows == "absent" or not self.path(workspace).is_file():
            return "absent"
        described = f"{self.loaded(workspace)!r} {self.with_options} {self.name} {rows}"
        return hashlib.sha256(described.encode("utf-8", "surrogatepass")).hexdigest()

    def loaded(self, workspace: Workspace) -> JinjaTemplate:
        """The template. UserError if the file or the template does not exist."""
        path = self.path(workspace)
        try:
            templates = load_templates(path)
        except OSError as error:
            raise UserError(
                f"cannot read templates {path}: {error.strerror}. Get them from "
                "https://github.com/bigscience-workshop/promptsource (promptsource/templates)"
            ) from error
        if self.template not in templates:
            raise unknown_name(f"template of {path}", self.template, templates)
        return templates[self.template]

    def available(self, workspace: Workspace) -> str | None:
        """None, or what is missing: the template or the rows."""
        try:
            self.loaded(workspace)
        except UserError as error:
            return str(error)
        return self.rows.available(workspace)

    def records(self, workspace: Workspace, split: str) -> Iterator[Record | Dropped]:
        """Streams the rendered rows of a split; downloads missing files at the call.

        Raises:
            UserError: no such file or template, or it is not valid Jinja.
        """
        import jinja2

        template = self.loaded(workspace)
        for source in (template.jinja, template.answer_choices):
            try:
                _compiled(source)
            except jinja2.TemplateSyntaxError as error:
                raise UserError(
                    f"{self.path(workspace)}: template {self.template!r}, line {error.lineno}: "
                    f"{error.message}"
                ) from error
        return (
            row
            if isinstance(row, Dropped)
            else apply_template(template, row, f"{self.name}-{split}-{number}", self.with_options)
            for number, row in enumerate(self.rows.rows(workspace, split))
        )
