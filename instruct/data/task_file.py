"""Tasks that a TOML file or flags define over a user's data file, without Python.

    [task]
    data = "train.jsonl"                         # relative to the TOML file's folder
    inputs = ["dialogue"]
    targets = "summary"
    templates = ["Summarize: {dialogue}"]
    metric = "rouge"

`read_task_file` reads one; `own_task.make_task` completes what it leaves open by reading the data.
"""

import dataclasses
import itertools
import json
import re
import tomllib
from pathlib import Path

from instruct.data.sources.table_files import SPLIT_NAMES
from instruct.errors import UserError, unknown_name
from instruct.fields import bounded, check_fields
from instruct.files import local_path

TABLE, ENDING = "task", ".toml"
FAMILY = "own"  # of tasks that are named after their file
# Files whose folder says more than their names.
_PLAIN_NAMES = {*itertools.chain.from_iterable(SPLIT_NAMES.values()), "data", "dataset", "rows"}


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
    return dataclasses.replace(task_file, name=task_file.name or own_name(path), **paths)


def own_name(path: Path) -> str:
    """The default name of a task: `own.<stem>`, by the folder of a file named after its split."""
    names = [path.name.partition(".")[0] or path.name, path.absolute().parent.name]
    stem = names[names[0].lower() in _PLAIN_NAMES and bool(names[1])]
    return f"{FAMILY}.{re.sub(r'[^0-9A-Za-z_]+', '_', stem).strip('_') or 'data'}"
