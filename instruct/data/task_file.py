"""Tasks that a TOML file or flags define over a user's data file, without Python.

    [task]
    data = "train.jsonl"                         # relative to the TOML file's folder
    inputs = ["dialogue"]
    targets = "summary"
    templates = ["Summarize: {dialogue}"]
    metric = "rouge"

`read_task_file` reads one, `make_task` completes what it leaves open by reading the data.
"""

import collections
import dataclasses
import hashlib
import itertools
import json
import re
import statistics
import tomllib
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from instruct.data import registry
from instruct.data.sources.column_source import ColumnMap, ColumnSource, value_of
from instruct.data.sources.data_file import SPLIT_NAMES, DataFile, find_files, open_data
from instruct.data.sources.files import NOT_UTF8, hash_unit, identity
from instruct.data.spec import TaskSpec
from instruct.errors import UserError, unknown_name
from instruct.fields import bounded, check_fields
from instruct.files import local_path
from instruct.prompts import messages
from instruct.prompts.exemplars import INVERTED_FORMATS
from instruct.prompts.record import Record
from instruct.prompts.template import SPECIAL, Template, TemplateSet, parse

TABLE = "task"
FAMILY = "own"  # of tasks that are named after their file
# Names of metrics that targets may suggest.
ACCURACY, EXACT_MATCH, ROUGE, ROUGE_UNICODE = "accuracy", "exact_match", "rouge", "rouge_unicode"

# Held out of the train rows by default: a share, between a tenth of them (at most LEAST) and MOST.
HELD_OUT_SHARE = 0.05
LEAST_HELD_OUT, MOST_HELD_OUT = 50, 1000

# Choices are at most so many different targets of so many words, each so often on average.
_MOST_LABELS, _MOST_LABEL_WORDS, _LEAST_ROWS_OF_LABEL = 20, 5, 5
_MOST_SHORT_WORDS = 5  # of a median target that exact match suits
_NAMED_PLACES = 3  # rejected rows to name for each reason
_MOST_NOT_UTF8 = 0.01  # share of rows above which the file has another encoding
_SAMPLED_TARGETS = 10_000
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")
# Files whose folder says more than their names.
_PLAIN_NAMES = {*itertools.chain.from_iterable(SPLIT_NAMES.values()), "data", "dataset", "rows"}

MetricFn = Callable[..., Mapping[str, Any]]
# (name of a metric, labels of the targets, () if they are no choices) -> metric functions.
FindMetrics = Callable[[str, Sequence[str]], Sequence[MetricFn]]


@dataclasses.dataclass(frozen=True)
class TaskFile:
    """A task over a user's file. Its fields are the keys of the TOML table and the flags.

    Attributes:
        data: a file or folder (instruct/data/sources/data_file.py).
        name: of the task; "" for `own.<file's name>`.
        inputs: columns that prompts show, "a.b" for nested ones; () for those of the templates.
        targets: the column of the answers.
        messages: the column of conversations, in place of inputs and targets.
        templates: wordings with `{column}`; () for the inputs as they are.
        validation, test: files of these splits; "" for those of `data`'s folder.
        held_out_share: of the train rows as validation split, if there is no file of it; None for
            5 %, at least 50 rows or a tenth of them, at most 1,000; 0 for none.
        metric: a name; "" to choose by the targets.
        license, description: for lists and reports.
    """

    data: str
    name: str = ""
    inputs: tuple[str, ...] = ()
    targets: str = ""
    messages: str = ""
    templates: tuple[str, ...] = ()
    validation: str = ""
    test: str = ""
    held_out_share: float | None = bounded(None, least=0, below=1)
    metric: str = ""
    license: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        for key in ("inputs", "templates"):
            value = getattr(self, key)
            texts = [value] if isinstance(value, str) else value
            if not isinstance(texts, list | tuple) or not all(
                isinstance(text, str) and text.strip() for text in texts
            ):
                raise UserError(f"{key} is {value!r}; give a list of texts that are not empty.")
            object.__setattr__(self, key, tuple(texts))
        if not self.data:
            raise UserError("data is missing; name a file or folder of rows.")
        if self.messages and (self.inputs or self.targets or self.templates):
            raise UserError(
                f"messages is {self.messages!r}, a column of whole conversations; leave out "
                "inputs, targets and templates, or leave out messages."
            )

    def to_toml(self, folder: Path | None = None) -> str:
        """The text of a task file; paths below its `folder` are written relative to it."""
        lines = [f"[{TABLE}]"]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value in ("", (), None):
                continue
            if field.name in ("data", "validation", "test"):
                path = Path(value).absolute()
                is_below = folder is not None and path.is_relative_to(folder.absolute())
                value = str(path.relative_to(folder.absolute()) if is_below and folder else path)
            # A JSON text is a TOML text, but for one control character.
            text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
            lines.append(f"{field.name} = {text}")
        return "\n".join(lines) + "\n"


def read_task_file(path: Path) -> TaskFile:
    """Reads a task file; its paths become absolute.

    Raises:
        UserError: it cannot be read, or a key or value is wrong.
    """
    try:
        document = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot read the task file {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"the task file {path} is not TOML: {error}") from error
    table = document.get(TABLE)
    if not isinstance(table, dict) or len(document) > 1:
        raise UserError(
            f"{path} is no task file: it must hold one table [{TABLE}] with data, inputs and "
            f"targets; it has {', '.join(document) or 'nothing'}."
        )
    keys = [field.name for field in dataclasses.fields(TaskFile)]
    for key in table:
        if key not in keys:
            raise UserError(f"{path}: {unknown_name('key', key, keys)}")
    try:
        task_file = TaskFile(**{"data": "", **table})
        paths = {
            key: str(path.absolute().parent / local_path(key, value, "train.jsonl"))
            for key in ("data", "validation", "test")
            if (value := getattr(task_file, key))
        }
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return dataclasses.replace(task_file, name=task_file.name or _own_name(path), **paths)


def _own_name(path: Path) -> str:
    """`own.<stem>`; a file named after its split is called like its folder."""
    names = [path.name.partition(".")[0] or path.name, path.absolute().parent.name]
    stem = names[names[0].lower() in _PLAIN_NAMES and bool(names[1])]
    return f"{FAMILY}.{re.sub(r'[^0-9A-Za-z_]+', '_', stem).strip('_') or 'data'}"


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

    def register(self) -> None:
        """Adds the task to the registry, unless it is there already.

        Raises:
            UserError: another task has the name.
        """
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


@dataclasses.dataclass
class _Scan:
    """Counts over the rows of one split's files.

    Attributes:
        rejected: reason -> (rows, places of the first ones).
        hashes: of the inputs of each record, in [0, 1).
        repeated: records whose inputs and targets an earlier one has.
        numbers, lists: rows whose target is a number or truth value, or a list.
        answers: targets -> records, as long as there are few.
        words: of the first targets.
        sizes: record field -> characters.
        ascii_targets: of the first targets, those with mostly letters from a to z.
    """

    rows: int = 0
    rejected: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    hashes: list[float] = dataclasses.field(default_factory=list)
    repeated: int = 0
    numbers: int = 0
    lists: int = 0
    answers: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    words: list[int] = dataclasses.field(default_factory=list)
    sizes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    ascii_targets: int = 0

    @property
    def records(self) -> int:
        return len(self.hashes)

    def describe_rejected(self) -> str:
        """'line is not JSON (3: line 2, line 9, line 11)'."""
        parts = []
        for reason, places in self.rejected.items():
            more = ", ..." if len(places) > _NAMED_PLACES else ""
            parts.append(f"{reason} ({len(places):,}: {', '.join(places[:_NAMED_PLACES])}{more})")
        return "; ".join(parts)


def _scan(source: ColumnSource, split: str) -> _Scan:
    """Reads all rows of a split's files.

    Raises:
        UserError: none of them can be used, or the encoding is another one.
    """
    scan, seen = _Scan(), set()
    column_map = source.column_map
    for place, item, row in source.rows(split):
        scan.rows += 1
        if not isinstance(item, Record):
            scan.rejected.setdefault(item.reason, []).append(place)
            continue
        text = identity(item)
        scan.hashes.append(hash_unit(text))
        pair = hash((text, item.answer))
        scan.repeated += pair in seen
        seen.add(pair)
        if not column_map.messages:
            target = value_of(row, column_map.targets)
            scan.lists += isinstance(target, list)
            scan.numbers += isinstance(target, int | float)
        if len(scan.answers) <= _MOST_LABELS:
            scan.answers[item.answer] += 1
        if len(scan.words) < _SAMPLED_TARGETS:
            scan.words.append(_num_words(item.answer))
            scan.ascii_targets += _is_ascii(item.answer)
        scan.sizes.update({name: len(value) for name, value in item.fields.items()})
    files = ", ".join(str(path) for path in source.files[split].paths[:3])
    not_utf8 = scan.rejected.get(NOT_UTF8, [])
    if len(not_utf8) > _MOST_NOT_UTF8 * scan.rows:
        raise UserError(
            f"{files}: {len(not_utf8):,} of {scan.rows:,} rows are not UTF-8 text, the first at "
            f"{not_utf8[0]}. Save the file as UTF-8, for example by iconv -f ISO-8859-1 -t UTF-8."
        )
    if not scan.records:
        why = f": {scan.describe_rejected()}" if scan.rejected else ", for there are none"
        raise UserError(f"{files}: none of its {scan.rows:,} rows can be used{why}.")
    return scan


def _num_words(text: str) -> int:
    """Words; in scripts without blanks, every wide character is one."""
    wide = sum(unicodedata.east_asian_width(sign) in "WF" for sign in text)
    return max(len(text.split()), wide)


def _is_ascii(text: str) -> bool:
    """Whether at least half of the letters are from a to z."""
    letters = [sign for sign in text if sign.isalpha()]
    return 2 * sum(map(str.isascii, letters)) >= len(letters)


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
    name = task_file.name or _own_name(data)
    paths = find_files("data", data)
    for split in ("validation", "test"):
        if path := getattr(task_file, split):
            paths[split] = find_files(split, local_path(split, path))["train"]
    named = (*task_file.inputs, task_file.targets, task_file.messages, *_placeholders(task_file))
    named = tuple(dict.fromkeys(filter(None, named)))
    first = open_data(paths["train"], named)
    files = {split: open_data(own, named) for split, own in paths.items()}
    column_map, templates = _choose_columns(task_file, first)
    source = ColumnSource(name, files, column_map)
    for own in files.values():
        _check_columns(own, column_map.columns)
    scans = {split: _scan(source, split) for split in files}
    train = scans["train"]
    threshold, held_out = _held_out(task_file, train, "validation" in files)
    source = dataclasses.replace(source, held_out=threshold)
    labels = _labels(train)
    metric, why = task_file.metric, "as asked"
    if not metric:
        metric, why = _suggest_metric(train, labels)
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
    )
    notes = [
        *_notes_on_rows(source, scans),
        *_notes_on_columns(column_map, templates),
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
    inputs = task_file.inputs or tuple(_placeholders(task_file))
    columns = data.columns()
    if not (inputs or task_file.targets or task_file.messages) and "messages" in columns:
        return ColumnMap({}, "", "messages"), ()
    if task_file.messages:
        return ColumnMap({}, "", task_file.messages), ()
    if not (inputs and task_file.targets):
        missing = [] if inputs else ["inputs"]
        missing += [] if task_file.targets else ["targets"]
        listed = f"its columns are {', '.join(columns)}" if columns else _why_no_columns(data)
        flags = " ".join(f"--{key}=COLUMN" for key in missing)
        raise UserError(
            f"{data.paths[0]}: which column holds the {' and which the '.join(missing)}? "
            f"{listed[0].upper()}{listed[1:]}. Give {flags}."
        )
    if task_file.targets in inputs:
        raise UserError(
            f"{data.paths[0]}: the prompt would show the answer: targets is "
            f"{task_file.targets!r}, and so is one of inputs or of the template's placeholders."
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
    return ColumnMap(fields, task_file.targets), tuple(templates)


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


def _held_out(task_file: TaskFile, scan: _Scan, has_validation: bool) -> tuple[float, int]:
    """(threshold of the hashes of held-out records, their number); zeros for none."""
    share, records = task_file.held_out_share, scan.records
    if has_validation or share == 0:
        return 0.0, 0
    if share is None:
        least = min(LEAST_HELD_OUT, records // 10)
        wanted = min(max(round(HELD_OUT_SHARE * records), least), MOST_HELD_OUT)
    else:
        wanted = round(share * records)
    hashes = sorted(scan.hashes)
    wanted = min(max(wanted, 1), records - 1)
    if wanted < 1 or hashes[0] == hashes[-1]:
        return 0.0, 0
    # Records with equal inputs are on one side.
    threshold = next(
        (value for value in hashes[wanted:] if value > hashes[0]),
        hashes[-1],
    )
    return threshold, sum(value < threshold for value in hashes)


def _labels(scan: _Scan) -> tuple[str, ...]:
    """The different targets if they are choices, sorted; else ()."""
    answers = scan.answers
    is_choice = (
        2 <= len(answers) <= _MOST_LABELS
        and len(answers) * _LEAST_ROWS_OF_LABEL <= scan.records
        and max(map(_num_words, answers)) <= _MOST_LABEL_WORDS
        and not scan.lists
    )
    return tuple(sorted(answers)) if is_choice else ()


def _suggest_metric(scan: _Scan, labels: Sequence[str]) -> tuple[str, str]:
    """(name of a metric that suits the targets, why)."""
    if labels:
        return ACCURACY, f"{len(labels)} different short targets: a choice"
    median = statistics.median(scan.words)
    why = f"targets of {median:g} words in the median"
    if median <= _MOST_SHORT_WORDS:
        return EXACT_MATCH, why
    if 2 * scan.ascii_targets >= len(scan.words):
        return ROUGE, why
    return ROUGE_UNICODE, f"{why}, most of them in other letters than a to z"


def _template_set(
    name: str, templates: Sequence[str], column_map: ColumnMap, scan: _Scan
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


def _notes_on_rows(source: ColumnSource, scans: Mapping[str, _Scan]) -> Iterable[str]:
    for split, scan in scans.items():
        data = source.files[split]
        more = f" and {len(data.paths) - 1} more files" if len(data.paths) > 1 else ""
        lost = scan.rows - scan.records
        text = f"{data.paths[0]}{more}: {scan.rows:,} rows, {lost:,} rejected"
        if lost:
            text += f": {scan.describe_rejected()}"
        if data.kind == "csv":
            name = "tab" if data.delimiter == "\t" else repr(data.delimiter)
            text += f"; cells are separated by {name}"
            text += "" if data.header else ", there is no header"
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


def _notes_on_columns(column_map: ColumnMap, templates: Sequence[str]) -> Iterable[str]:
    if column_map.messages:
        yield f"conversations of the column {column_map.messages!r}"
        return
    inputs = ", ".join(column_map.fields.values())
    yield f"inputs: {inputs}; targets: {column_map.targets}"
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


def _notes_on_overlap(scans: Mapping[str, _Scan]) -> Iterable[str]:
    train = set(scans["train"].hashes)
    for split, scan in scans.items():
        same = sum(value in train for value in scan.hashes) if split != "train" else 0
        if same:
            yield f"warning: {same:,} of {scan.records:,} {split} rows have inputs of a train row"
