"""promptsource's templates applied to raw rows: P3's prompts from the data sets themselves.

`templates.yaml` holds Jinja templates, "prompt ||| target", and an expression for the answer
choices (Bach et al. 2022). They are rendered in Jinja's sandbox, once compiled. Unlike there,
nothing is cut at 2,048 characters, "choice" draws by the row's own hash, and a template that fails
on a row, or uses what the row does not have, drops the row with a reason.
"""

import dataclasses
import functools
import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from instruct.data.sources.p3 import with_choices
from instruct.errors import UserError, unknown_name
from instruct.prompts.record import Record
from instruct.prompts.render import Dropped
from instruct.workspace import Workspace

TEMPLATES_FILE = "templates.yaml"
MAX_RENDERED_CHARS = (
    1_000_000  # of one prompt with its target; a template that writes more is broken
)
_SEPARATOR = "|||"
_PROTECTED = "\ue000|\ue001|\ue000"  # private characters: no data set uses them
_DRAWS = "draws of this row"  # no template can name a variable with blanks


class RowSource(Protocol):
    """Where raw rows come from; `HuggingFaceSource` is one."""

    @property
    def splits(self) -> Sequence[str]: ...

    def fingerprint(self, workspace: Workspace) -> str: ...

    def available(self, workspace: Workspace) -> str | None: ...

    def rows(self, workspace: Workspace, split: str) -> Iterator[dict[str, Any] | Dropped]: ...


@dataclasses.dataclass(frozen=True)
class JinjaTemplate:
    """One template as its file has it.

    Attributes:
        name: unique in its data set.
        jinja: prompt and target, apart by "|||".
        answer_choices: Jinja for the choices, apart by "|||"; "" for none.
        choices_in_prompt: whether the prompt shows the choices itself.
        original_task: whether it asks for what the data set was made for.
        metrics: names as promptsource has them ("Accuracy").
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


# ---------------------------------------------------------------- template files


def load_templates(path: Path) -> dict[str, JinjaTemplate]:
    """The templates of one `templates.yaml`, by name.

    Raises:
        UserError: unreadable file, not YAML of that kind, or a template without name or text.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"cannot read templates {path}: {error.strerror}") from error
    return _load_templates(str(path), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _load_templates(path: str, size: int, mtime_ns: int) -> dict[str, JinjaTemplate]:
    del size, mtime_ns
    import yaml

    try:
        table = yaml.load(Path(path).read_bytes().decode("utf-8-sig"), Loader=_loader())
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        raise UserError(f"templates {path} cannot be read: {error}") from error
    entries = table.get("templates") if isinstance(table, dict) else None
    if not isinstance(entries, dict):
        raise UserError(f"{path} has no table 'templates'; it is not one of promptsource's files")
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
def _loader() -> Any:
    """YAML's safe loader, with the two tags of these files read as plain dictionaries."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    def plain(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        return loader.construct_mapping(node, deep=True)

    for tag in ("!Template", "!TemplateMetadata"):
        Loader.add_constructor(tag, plain)
    return Loader


# ---------------------------------------------------------------- rendering


@functools.cache
def _environment() -> Any:
    """Jinja's sandbox with promptsource's additions.

    No template reaches names with underscores, files or this program. One that is out to waste
    time or memory still can; it ends the process that builds its store and fails alone there.
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
    environment.filters["most_frequent"] = _most_frequent
    environment.filters["highlight"] = str
    return environment


def _most_frequent(items: Sequence[Any]) -> list[Any]:
    """The items that occur most often, in the order of their first occurrence."""
    counts = Counter(items)
    return [item for item, count in counts.items() if count == max(counts.values())]


@functools.lru_cache(maxsize=512)
def _compiled(source: str) -> Any:
    return _environment().from_string(source)


def _write(source: str, values: Mapping[str, Any]) -> str:
    """Renders one template; OverflowError once it gets too long."""
    pieces, length = [], 0
    for piece in _compiled(source).generate(**values):
        length += len(piece)
        if length > MAX_RENDERED_CHARS:
            raise OverflowError(f"more than {MAX_RENDERED_CHARS} characters")
        pieces.append(piece)
    return "".join(pieces)


def _protect(value: Any) -> Any:
    """`value` with the separator inside of its texts, at any depth, replaced."""
    if isinstance(value, str):
        return value.replace(_SEPARATOR, _PROTECTED)
    if isinstance(value, Mapping):
        return {key: _protect(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_protect(item) for item in value]
    return value


def _parts(rendered: str) -> list[str]:
    return [part.strip() for part in rendered.split(_SEPARATOR)]


def _restore(text: str) -> str:
    return text.replace(_PROTECTED, _SEPARATOR)


def apply_template(
    template: JinjaTemplate,
    row: Mapping[str, Any],
    record_id: str,
    with_options: bool | None = None,
) -> Record | Dropped:
    """A record with the field `prompt`: the template filled with one row.

    Args:
        row: the raw row; "-" in column names becomes "_", as in promptsource.
        with_options: whether the answer choices become options; None: if the template has some
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
            choices = _parts(_write(template.answer_choices, values | draws))
        more_values = {"answer_choices": choices or None, _DRAWS: random.Random(seed)}
        parts = _parts(_write(template.jinja, values | more_values))
    except OverflowError:
        return Dropped("template writes too much")
    except Exception as error:  # a template is a program and may raise anything
        return Dropped(f"template fails with {type(error).__name__}")
    if len(parts) != 2:
        return Dropped(f"template gives {len(parts)} parts, not prompt and target")
    prompt, answer = map(_restore, parts)
    if not prompt or not answer:
        return Dropped("empty prompt or target")
    if with_options is None:
        with_options = bool(template.answer_choices) and not template.choices_in_prompt
    if not with_options:
        return Record(record_id, {"prompt": prompt}, answer)
    return with_choices(record_id, prompt, answer, [_restore(choice) for choice in choices])


# ---------------------------------------------------------------- the source


@dataclasses.dataclass(frozen=True)
class PromptSourceSource:
    """One template of one data set, applied to all its rows.

    Attributes:
        dataset, subset: as in promptsource; they name the folder of the template file.
        template: its name there.
        rows: the raw rows; their columns must be those of the hub's data set.
        templates_path: promptsource's folder of templates, under the data folder.
        with_options: as in `apply_template`.
    """

    dataset: str
    subset: str | None
    template: str
    rows: RowSource
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
        """Of the rows and of this template's text; "absent" while one is missing."""
        rows = self.rows.fingerprint(workspace)
        if rows == "absent" or not self.path(workspace).is_file():
            return "absent"
        described = f"{self.loaded(workspace)!r} {self.with_options} {self.name} {rows}"
        return hashlib.sha256(described.encode("utf-8", "surrogatepass")).hexdigest()

    def loaded(self, workspace: Workspace) -> JinjaTemplate:
        """The template. UserError if the file or the template is not there."""
        templates = load_templates(self.path(workspace))
        if self.template not in templates:
            raise unknown_name(f"template of {self.path(workspace)}", self.template, templates)
        return templates[self.template]

    def available(self, workspace: Workspace) -> str | None:
        """None, or what is missing: the template or the rows."""
        if not self.path(workspace).is_file():
            return (
                f"{self.path(workspace)} is not there. Get it from "
                "https://github.com/bigscience-workshop/promptsource (promptsource/templates)"
            )
        try:
            self.loaded(workspace)
        except UserError as error:
            return str(error)
        return self.rows.available(workspace)

    def records(self, workspace: Workspace, split: str) -> Iterator[Record | Dropped]:
        """The rows of a split, rendered; missing ones are fetched at the call.

        Raises:
            UserError: no such file or template, or one that is not valid Jinja.
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
