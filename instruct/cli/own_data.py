"""The flags that make a task of a user's data file, and the registration of task files.

`--data=FILE --inputs=COLUMN --targets=COLUMN` and a TOML file with the same keys give the same
`TaskFile`; MIXTURE_OR_TASK_MODULE takes such TOML files beside modules and tables of rates.
"""

import argparse
import dataclasses
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from instruct.data.own_task import MetricFn, OwnTask, make_task
from instruct.data.task_file import ENDING, TaskFile, read_task_file
from instruct.errors import UserError
from instruct.eval.named_metrics import find_metrics, read_texts
from instruct.files import is_address, local_path, replace_file

TASK_FILE = "task.toml"  # of MODEL_DIR: the task of --data that the run trained on
# Flag -> field of `TaskFile`.
_FIELDS = {
    **{name: name for name in ("inputs", "targets", "messages", "validation", "test", "metric")},
    **{"template": "templates", "held_out_share": "held_out_share", "task_name": "name"},
}


def task_of_flags(flags: argparse.Namespace) -> OwnTask | None:
    """The task of --data and its flags, registered; None without --data. Says what was chosen.

    From Python, `flags.data` may be a `TaskFile`.

    Raises:
        UserError: flags without --data, or a file or value that cannot be used.
    """
    given = {flag: value for flag in _FIELDS if (value := getattr(flags, flag, None))}
    data = getattr(flags, "data", None)
    if data is None:
        needless = [*given, *(["save_task"] if getattr(flags, "save_task", None) else [])]
        if needless:
            raise UserError(f"--{needless[0]} is for --data: add --data=FILE, or leave it out.")
        return None
    if isinstance(data, TaskFile):
        return register_task(data)
    values = {_FIELDS[flag]: value for flag, value in given.items()}
    if "inputs" in values:
        names = [name.strip() for text in values["inputs"] for name in text.split(",")]
        values["inputs"] = list(filter(None, names))
    if "templates" in values:  # a shell has no easy way to write a line break
        values["templates"] = [text.replace("\\n", "\n") for text in values["templates"]]
    if "held_out_share" in values:
        values["held_out_share"] = _share(values["held_out_share"])
    path = local_path("--data", data, "train.jsonl")
    if path.suffix == ENDING:
        task_file = dataclasses.replace(read_task_file(path), **values)
    else:
        task_file = TaskFile(str(path), **values)
    task = register_task(task_file)
    if getattr(flags, "save_task", None):
        _save(task, local_path("--save_task", flags.save_task, "my_task.toml"))
    return task


def register(path: Path) -> None:
    """Registers the task of a TOML file, and says what was read and chosen."""
    register_task(read_task_file(path))


def task_file_of_run(model_dir: Path) -> Path | None:
    """The task file of a run that trained on --data, else None. Says that it is taken."""
    path = model_dir / TASK_FILE
    if is_address(model_dir) or not path.is_file():
        return None
    if _is_first_process():
        print(f"--data={path} (the run trained on it)", file=sys.stderr)
    return path


def warn_of_other_version(task: OwnTask, model_dir: Path) -> None:
    """Warns if the run trained on another version of the task, by the first line of its file."""
    try:
        title = (model_dir / TASK_FILE).read_text("utf-8").partition("\n")[0].removeprefix("# ")
    except (OSError, ValueError):
        return
    if title.startswith(f"task {task.spec.name}, version ") and title != task.title:
        print(
            f"warning: {model_dir} trained on {title}, another file or division into splits: it "
            "may have trained on rows that are evaluated here",
            file=sys.stderr,
        )


def register_task(task_file: TaskFile, metric_fns: tuple[MetricFn, ...] = ()) -> OwnTask:
    """Registers a task, and says what was read and chosen.

    Args:
        metric_fns: metrics in addition to those of `task_file.metric`.
    """
    paths = filter(None, (task_file.data, task_file.validation, task_file.test))
    return _registered(task_file, metric_fns, tuple(map(_stamps, paths)))


def _stamps(name: str) -> tuple[tuple[int, int], ...]:
    """Sizes and modification times of a file, or of all files of a folder."""
    path = Path(name).expanduser()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    states = [file.stat() for file in files if file.exists()]
    return tuple((state.st_size, state.st_mtime_ns) for state in states)


@functools.lru_cache(maxsize=64)  # each run of a study loads its modules
def _registered(
    task_file: TaskFile,
    metric_fns: tuple[MetricFn, ...],
    stamps: tuple[tuple[tuple[int, int], ...], ...],
) -> OwnTask:
    del stamps

    def metrics_of(name: str, labels: Sequence[str]) -> tuple[MetricFn, ...]:
        return (*find_metrics(name, labels), *metric_fns)

    task = make_task(task_file, metrics_of, postprocess_fn=read_texts)
    task.register()
    if _is_first_process():
        print(task.title, file=sys.stderr)
        for note in task.notes:
            print(f"  {note}", file=sys.stderr)
    return task


def _is_first_process() -> bool:
    distributed = sys.modules.get("instruct.distributed")
    return distributed is None or distributed.is_first_process()


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"--held_out_share={text}: use a number in [0, 1), such as 0.05.") from None


def _save(task: OwnTask, path: Path) -> None:
    if path.suffix != ENDING:
        raise UserError(
            f"--save_task={path}: name a file that ends in {ENDING}, as my_task{ENDING}."
        )
    try:
        replace_file(path, task.to_toml(path.absolute().parent))
    except OSError as error:
        raise UserError(f"--save_task={path} cannot be written: {error.strerror}.") from error
    print(f"saved as {path}; use it with --data={path}", file=sys.stderr)
