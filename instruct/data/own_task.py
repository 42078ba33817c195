"""`make_task`: a task from a `TaskFile`, with what it leaves open chosen by reading the data."""

import dataclasses
import hashlib
import itertools
import json
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from instruct.data import registry
from instruct.data.sources.column_scan import Scan, scan_split
from instruct.data.sources.column_source import ColumnMap, ColumnSource
from instruct.data.sources.data_file import DataFile, find_files, open_data
from instruct.data.sources.table_files import unread_files
from instruct.data.spec import TaskSpec
from instruct.data.task_file import TaskFile, own_name
from instruct.errors import UserError, unknown_name
from instruct.files import local_path
from instruct.prompts import messages
from instruct.prompts.exemplars import INVERTED_FORMATS
from instruct.prompts.template import SPECIAL, Template, TemplateSet, parse

# Names of metrics that targets may suggest.
ACCURACY, EXACT_MATCH, ROUGE, ROUGE_UNICODE = "accuracy", "exact_match", "rouge", "rouge_unicode"

# Held out of the train rows by default: a share, between a tenth of them (at most LEAST) and MOST.
HELD_OUT_SHARE = 0.05
LEAST_HELD_OUT, MOST_HELD_OUT = 50, 1000

_MOST_SHORT_WORDS = 5  # of a median target that exact match suits
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")

MetricFn = Callable[..., Mapping[str, Any]]
# (name of a metric, labels of the targets, () if they are no choices) -> metric functions.
FindMetrics = Callable[[str, Sequence[str]], Sequence[MetricFn]]


@dataclasses.dataclass(frozen=True)
class OwnTask:
    """A task over a user's file, ready to be registered.

    Attributes:
        task_file: complete: with everything that was chosen by reading the data.
        spec: the task.
        notes: what was read, rejected and chosen, a sentence each, for the user.
    """

    task_file: TaskFile
    spec: TaskSpec
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """Name and version, the first line of its task file."""
        return f"task {self.spec.name}, version {self.spec.version}"

    def to_toml(self, folder: Path | None = None) -> str:
        """The text of its task file in `folder`, with the version and notes as comments."""
        lines = [self.title, *self.notes]
        # TOML forbids control characters in comments.
        printable = ("".join(sign if sign.isprintable() else "?" for sign in s) for s in lines)
        return "".join(f"# {line}\n" for line in printable) + self.task_file.to_toml(folder)

    def register(self) -> None:
        """Adds the task to the registry, unless it is there already.

        Raises:
            UserError: another task has the name.
        """
        registry.import_modules_of(self.spec.name)
        same = registry.registered_specs().get(self.spec.name)
        if same is not None and _facts(same) == _facts(self.spec):
            return
        try:
            registry.add_task(self.spec)
        except UserError as error:
            raise UserError(
                f"{error}. Give the task of {self.task_file.data} another name "
                "(--task_name=NAME, or name in its task file)."
            ) from error


def _facts(spec: TaskSpec) -> tuple[Any, ...]:
    return spec.version, spec.templates, [repr(function) for function in spec.metric_fns]


def make_task(task_file: TaskFile, find_metrics: FindMetrics, **fields: Any) -> OwnTask:
    """Reads the data of a task file and chooses what it leaves open.

    Args:
        find_metrics: a metric's functions by its name; refuses unknown names.
        fields: further fields of the `TaskSpec`, such as `postprocess_fn`.

    Raises:
        UserError: the data or a value cannot be used; the message names file and line.
        OSError: the storage failed.
    """
    if task_file.metric:
        find_metrics(task_file.metric, ())
    data = local_path("data", task_file.data, "train.jsonl")
    name = task_file.name or own_name(data)
    paths = find_files("data", data)
    others = {
        split: local_path(split, path).absolute()
        for split in ("validation", "test")
        if (path := getattr(task_file, split))
    }
    paths |= {split: find_files(split, path)["train"] for split, path in others.items()}
    named = (*task_file.inputs, task_file.targets, task_file.messages, *_placeholders(task_file))
    named = tuple(dict.fromkeys(filter(None, named)))
    files = {split: open_data(own, named) for split, own in paths.items()}
    column_map, templates = _choose_columns(task_file, files["train"])
    if set(column_map.columns) - set(named):  # delimiters and lists depend on the columns
        files = {split: open_data(own, column_map.columns) for split, own in paths.items()}
    source = ColumnSource(name, files, column_map)
    for own in files.values():
        _check_columns(own, column_map.columns)
    scans = {split: scan_split(source, split) for split in files}
    train = scans["train"]
    threshold, held_out = _held_out(task_file, train, paths.get("validation", ()))
    source = dataclasses.replace(source, held_out=threshold)
    lists = sum(scan.lists for scan in scans.values())
    labels = () if lists else train.labels()
    metric, why = task_file.metric, "as asked"
    if not metric:
        metric, why = _suggest_metric(train, labels)
    if metric == ACCURACY and lists:
        raise UserError(
            f"metric {ACCURACY} compares one label, but {lists:,} targets of {data} are "
            f"lists; use {EXACT_MATCH}, which accepts every text of a list."
        )
    template_set = _template_set(name, templates, column_map, train)
    numbers = {split: scan.records for split, scan in scans.items()}
    if held_out:
        numbers |= {"train": train.records - held_out, "validation": held_out}
    few_shot = () if column_map.messages else ("fs_noopt",)
    family, _, dataset = name.rpartition(".")
    spec = TaskSpec(
        name=name,
        family=family or name,
        dataset=dataset,
        category="own data",
        source=source,
        templates=template_set,
        extra_modes=few_shot,
        version=source.digest()[:12],
        metric_fns=tuple(find_metrics(metric, labels if metric == ACCURACY else ())),
        num_examples=numbers,
        license=task_file.license,
        description=task_file.description,
        **fields,
    )
    complete = dataclasses.replace(
        task_file,
        name=name,
        data=str(data.absolute()),
        inputs=tuple(column_map.fields.values()),
        targets=column_map.targets,
        messages=column_map.messages,
        metric=metric,
        **{split: str(path) for split, path in others.items()},
    )
    notes = [
        *_notes_on_rows(source, scans),
        *_note_on_unread(data, [path for own in paths.values() for path in own]),
        *_notes_on_columns(task_file, column_map, templates),
        _note_on_splits(task_file, numbers, held_out),
        *_notes_on_overlap(scans),
        f"metric: {metric} ({why}); another one with metric (--metric=NAME)",
    ]
    return OwnTask(complete, spec, tuple(notes))


def _placeholders(task_file: TaskFile) -> list[str]:
    """Columns that the templates show, in order of first mention."""
    found = (match[1] for text in task_file.templates for match in _PLACEHOLDER.finditer(text))
    return list(dict.fromkeys(name for name in found if name))


def _choose_columns(task_file: TaskFile, data: DataFile) -> tuple[ColumnMap, tuple[str, ...]]:
    """The columns that make a record, and the templates with record fields as placeholders."""
    inputs, targets = task_file.inputs or tuple(_placeholders(task_file)), task_file.targets
    columns = data.columns()
    if not (inputs or targets or task_file.messages) and "messages" in columns:
        return ColumnMap({}, "", "messages"), ()
    if task_file.messages:
        return ColumnMap({}, "", task_file.messages), ()
    if not inputs and "inputs" in columns and targets != "inputs":
        inputs = ("inputs",)
    if not targets and "targets" in columns and "targets" not in inputs:
        targets = "targets"
    if not (inputs and targets):
        missing = [] if inputs else ["inputs"]
        missing += [] if targets else ["targets"]
        listed = f"its columns are {', '.join(columns)}" if columns else _why_no_columns(data)
        flags = " ".join(f"--{key}=COLUMN" for key in missing)
        raise UserError(
            f"{data.paths[0]}: which column holds the {' and which the '.join(missing)}? "
            f"{listed[0].upper()}{listed[1:]}. Give {flags}."
        )
    if targets in inputs:
        raise UserError(
            f"{data.paths[0]}: the prompt would show the answer: targets is {targets!r}, and so is "
            "one of inputs or of the template's placeholders."
        )
    fields: dict[str, str] = {}
    for column in inputs:
        fields[_field_name(column, fields)] = column
    names = {column: name for name, column in fields.items()}

    def replace(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]
        if match[1] not in names:
            raise unknown_name("placeholder of a template", match[1], names)
        return f"{{{names[match[1]]}}}"

    templates = []
    for text in task_file.templates:
        try:
            templates.append(_PLACEHOLDER.sub(replace, text))
            if len(parse(templates[-1])) == 1:
                raise ValueError(
                    f"it shows no column; write one in braces, such as {{{inputs[0]}}}"
                )
        except ValueError as error:
            raise UserError(f"template {text!r}: {error}") from error
    return ColumnMap(fields, targets), tuple(templates)


def _field_name(column: str, taken: Iterable[str]) -> str:
    """A record field for a column: letters, digits and "_", not special to templates."""
    name = re.sub(r"[^0-9A-Za-z_]", "_", column)
    if name in SPECIAL or not name[:1].isalpha():
        name = f"column_{name}"
    while name in taken:
        name += "_"
    return name


def _why_no_columns(data: DataFile) -> str:
    rejected = {
        row.values.reason: row.place
        for row in reversed(list(itertools.islice(data.rows(), 100)))
        if not isinstance(row.values, dict)
    }
    reasons = "; ".join(f"{place}: {reason}" for reason, place in rejected.items())
    return f"it has no row with columns ({reasons or 'it holds no row'})"


def _check_columns(data: DataFile, wanted: Sequence[str]) -> None:
    """Raises UserError unless the first rows have all columns."""
    columns, path = data.columns(), data.paths[0]
    if not columns:
        raise UserError(f"{path}: {_why_no_columns(data)}.")
    for name in wanted:
        if name in columns or ("." in name and name.partition(".")[0] in columns):
            continue
        error = str(unknown_name("column", name, columns)).replace("Allowed:", "Columns:")
        if data.kind == "csv" and data.header:
            error += (
                " If its first line is a row and no header, name columns by number, such as "
                "--inputs=1 --targets=2."
            )
        raise UserError(f"{path}: {error}")


def _held_out(task_file: TaskFile, scan: Scan, validation: Sequence[Path]) -> tuple[float, int]:
    """(threshold of the hashes of held-out records, their number); zeros for none.

    Raises:
        UserError: a share is asked for beside files of a validation split.
    """
    share, records = task_file.held_out_share, scan.records
    if validation and share:
        raise UserError(
            f"held_out_share is {share:g}, but {validation[0]} is the validation split, so nothing "
            "is held out; leave one of them out."
        )
    if validation or share == 0:
        return 0.0, 0
    if share is not None:
        return scan.threshold(round(share * records))
    least = min(LEAST_HELD_OUT, records // 10)
    return scan.threshold(min(max(round(HELD_OUT_SHARE * records), least), MOST_HELD_OUT))


def _suggest_metric(scan: Scan, labels: Sequence[str]) -> tuple[str, str]:
    """(name of a metric that suits the targets, why)."""
    if labels:
        return ACCURACY, f"{len(labels)} different short targets: a choice"
    median = statistics.median(scan.words)
    why = f"targets of {median:g} word{'' if median == 1 else 's'} in the median"
    if median <= _MOST_SHORT_WORDS:
        return EXACT_MATCH, why
    if 2 * scan.ascii_targets >= len(scan.words):
        return ROUGE, why
    return ROUGE_UNICODE, f"{why}, most of them in other letters than a to z"


def _template_set(
    name: str, templates: Sequence[str], column_map: ColumnMap, scan: Scan
) -> TemplateSet:
    if column_map.messages:
        return messages.TEMPLATES
    fields = tuple(column_map.fields)
    texts = templates or ["\n\n".join(f"{{{field}}}" for field in fields)]
    wordings = tuple(Template(f"template_{n}", text) for n, text in enumerate(texts, 1))
    # The longest field may be cut where a prompt is too long.
    longest = max(fields, key=lambda field: (scan.sizes[field], field))
    # Results name the set, so that other wordings are another set.
    wording = hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:8]
    return TemplateSet(
        f"{name}:{wording}",
        input_fields=fields,
        truncate_field=longest,
        zs_noopt=wordings,
        fs_noopt=wordings,
        finished=not templates,
        formats=INVERTED_FORMATS,  # without words such as "Question: " before the wording
    )


def _notes_on_rows(source: ColumnSource, scans: Mapping[str, Scan]) -> Iterable[str]:
    for split, scan in scans.items():
        data = source.files[split]
        first, *others = data.paths
        more = f" and {len(others)} more files" if others else ""
        lost = scan.rows - scan.records
        text = f"{first}{more}: {scan.rows:,} rows, {lost:,} rejected"
        if lost:
            text += f": {scan.describe_rejected()}"
        if data.kind == "csv":
            name = "tab" if data.delimiter == "\t" else repr(data.delimiter)
            text += f"; cells are separated by {name}"
            text += "" if data.header else ", there is no header: the first line is a row"
            text += "" if data.quoted else ", quotes are characters"
        if data.list_key:
            text += f"; its rows are the list {data.list_key!r}"
        yield text
        if scan.repeated:
            yield f"{scan.repeated:,} rows have the inputs and targets of an earlier row; they stay"
        if scan.numbers:
            yield f"{scan.numbers:,} targets are numbers or truth values, written as text"
        if scan.lists:
            yield (
                f"{scan.lists:,} targets are lists: the first text is trained on, and evaluation "
                "accepts every one"
            )


def _note_on_unread(data: Path, files: Sequence[Path]) -> Iterable[str]:
    if data.is_dir() and (names := unread_files(files)):
        yield f"not read, as no split's name or of another format: {', '.join(names)}"


def _notes_on_columns(
    task_file: TaskFile, column_map: ColumnMap, templates: Sequence[str]
) -> Iterable[str]:
    if column_map.messages:
        yield f"conversations of the column {column_map.messages!r}"
        return
    inputs = ", ".join(column_map.fields.values())
    chosen = {"inputs": inputs, "targets": column_map.targets}
    by_name = [name for name in chosen if chosen[name] == name and not getattr(task_file, name)]
    flags = " and ".join(f"--{name}=COLUMN" for name in by_name)
    yield f"inputs: {inputs}; targets: {column_map.targets}" + (
        f" (by name; another one with {flags})" if by_name else ""
    )
    if not templates:
        yield (
            "no template: a prompt is the inputs as they are; a wording with template "
            f"(--template='...{{{next(iter(column_map.fields.values()))}}}')"
        )
    shown = {name for text in templates for name in parse(text)[1::2]}
    unused = [column for name, column in column_map.fields.items() if name not in shown]
    if templates and unused:
        yield f"no template shows {', '.join(unused)}"


def _note_on_splits(task_file: TaskFile, numbers: Mapping[str, int], held_out: int) -> str:
    text = ", ".join(f"{split} {number:,}" for split, number in numbers.items())
    if held_out:
        text += " (held out of the train rows by a hash of the inputs)"
    elif "validation" not in numbers:
        why = "as asked" if task_file.held_out_share == 0 else "there are too few different rows"
        text += f"; no validation split: {why}"
    return f"splits: {text}"


def _notes_on_overlap(scans: Mapping[str, Scan]) -> Iterable[str]:
    train = set(scans["train"].hashes)
    for split, scan in scans.items():
        same = sum(value in train for value in scan.hashes) if split != "train" else 0
        if same:
            yield f"warning: {same:,} of {scan.records:,} {split} rows have inputs of a train row"
