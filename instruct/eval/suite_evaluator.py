"""`SuiteEvaluator`: suites by generation while training, on a few examples of each task.

What it writes are ordinary results, as `run.py eval` computes them on a checkpoint of that step
with the same examples, under a name of their own:

    MODEL_DIR/eval/training-<suite>/step_<n>/results.jsonl      (instruct/results.py)
"""

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from rich.console import Console

from instruct import results
from instruct.checkpoints.checkpoint_files import FOLDER
from instruct.data import registry
from instruct.data.config import DataConfig
from instruct.data.spec import Leaf, Resolved
from instruct.distributed import gather_json
from instruct.errors import UserError
from instruct.eval import task_rows
from instruct.eval.eval_config import SuitesConfig, decode_strategy, prompt_data
from instruct.eval.model_outputs import ModelRunner
from instruct.eval.results_table import MOST_TASKS
from instruct.eval.suite_run import SuiteRun, leaf_examples, prepare_suites, split_of
from instruct.lineage import read_lineage
from instruct.mesh import MeshConfig, make_mesh
from instruct.models.model import AnyConfig, make_model
from instruct.workspace import Workspace

# The tables of `Tracker.table` and their columns.
METRICS_TABLE, SAMPLES_TABLE = "eval/metrics", "eval/samples"
_METRIC_COLUMNS = (
    *("step", "suite", "task", "mode", "split", "metric", "value", "stderr", "n", "baseline"),
)
_SAMPLE_COLUMNS = ("step", "suite", "task", "mode", "prompt", "target", "prediction")
_TABLE_CHARACTERS, _LOG_CHARACTERS = 2000, 200
_LOG_SAMPLES = 2  # a suite; tables and results files have more

Row = Mapping[str, Any]  # a line of a results file


class SuiteEvaluator:
    """An `Evaluator` of training (instruct/train/evaluators.py): suites by generation.

    Examples are read once and programs compiled once; no parameter is copied. Scalars are
    `eval/<task>.<mode>/<metric>` of every metric, and `eval/<suite>/mean`, the mean of the primary
    metrics, of a suite of several tasks. A task that fails gets a failure line and no scalar.

    Args:
        config: suites and examples; its `every_steps` is a number.
        model, data, mesh: those of the training.
        workspace: where data and stores are.
    """

    def __init__(
        self,
        config: SuitesConfig,
        model: AnyConfig,
        data: DataConfig,
        mesh: MeshConfig,
        workspace: Workspace,
    ) -> None:
        assert config.every_steps is not None
        self.every_steps = config.every_steps
        self._model, self._mesh, self._workspace = model, mesh, workspace
        self._num_samples = config.num_samples
        self._config = evaluation = config.evaluation()
        for suite in evaluation.suites:  # before training prepares its own records
            registry.check_name(workspace, suite)
        self._data = prompt_data(
            *(evaluation.suites[0], data.feature_lengths, data.vocabulary),
            *(data.layout, data.separator, data.chat_template),
        )
        self._decode, self._batching = decode_strategy(config.decode, self._data), config.batching

    def open(self, folder: pathlib.Path, step: int) -> set[str] | None:
        """Prepares and reads all examples; removes results of later steps.

        Returns the names of all scalars; None if a metric tells its names on predictions only.

        Raises:
            UserError: an unknown suite, or tasks that cannot be evaluated, with the reasons.
        """
        console = self._console()
        self._folder = folder
        self._suites = {
            suite: registry.resolve(self._workspace, suite).straight()
            for suite in self._config.suites
        }
        mixtures = self._suites.values()
        self._problems = prepare_suites(
            self._workspace, mixtures, self._config, self._data, console
        )
        self._examples_fn = functools.cache(
            functools.partial(leaf_examples, self._workspace, self._config, self._data, console)
        )
        self._check_tasks(console)
        mesh = make_mesh(self._mesh)
        network = make_model(self._model)
        self._models = ModelRunner.of_model(network, self._decode, self._batching, mesh, self._data)
        if jax.process_index() == 0:
            _remove_later_results(folder, step)
        return self._scalar_names()

    def __call__(self, params: Any, step: int) -> dict[str, Any]:
        """Evaluates, prints tables and samples; returns scalars and, in process 0, two tables."""
        lineage = read_lineage(self._folder)
        scalars: dict[str, float] = {}
        tables: dict[str, list[dict[str, Any]]] = {METRICS_TABLE: [], SAMPLES_TABLE: []}
        for suite, mixture in self._suites.items():
            run = SuiteRun(
                suite=results.training_suite(suite),
                folder=self._folder,
                step=step,
                checkpoint=self._folder / FOLDER / str(step),
                parameters={},  # those of this step, saved or not
                description=self._description(suite),
                config=self._config,
                data=self._data,
                decode=self._models.decode,
                trained_tasks=None if lineage.tasks is None else set(lineage.tasks),
                problems=self._problems,
                workspace=self._workspace,
                examples_fn=self._examples_fn,
            )
            run.evaluate(mixture, self._models, params, self._console(), show_bar=False)
            if jax.process_index() == 0:
                rows = list(results.read_rows(run.path))
                scalars |= scalars_of(rows, suite)
                samples = chosen_samples(rows, self._num_samples)
                tables[METRICS_TABLE] += _columns(rows, "metric", _METRIC_COLUMNS)
                tables[SAMPLES_TABLE] += [
                    {name: _cut(row[name], _TABLE_CHARACTERS) for name in _SAMPLE_COLUMNS}
                    for row in samples
                ]
                run.print_table(stderr=True)
                _print_further_metrics(self._console(), rows)
                _print_samples(self._console(), samples[:_LOG_SAMPLES])
        # Process 0 measures for all.
        scalars = gather_json(scalars)[0]
        return scalars | (tables if jax.process_index() == 0 else {})

    def _console(self) -> Console:
        """Standard error as it is now: the progress bar of training redirects it."""
        return Console(stderr=True, quiet=jax.process_index() != 0, highlight=False)

    def _check_tasks(self, console: Console) -> None:
        problems, on_test = {}, []
        for leaf in self._leaves():
            try:
                split = split_of(leaf, self._config.splits)
                if split == "test":
                    on_test.append(leaf.name)
                self._examples_fn(leaf, split)
            except UserError as error:
                unprepared = (
                    text for (task, _), text in self._problems.items() if task == leaf.task
                )
                problems[leaf.name] = next(unprepared, str(error))
        if problems:
            lines = [f"\n  {name}: {problem}" for name, problem in problems.items()]
            more = f"\n  and {len(lines) - 10} more" if len(lines) > 10 else ""
            raise UserError(
                f"{len(lines)} tasks of EVAL_SUITES cannot be evaluated:{''.join(lines[:10])}{more}"
                "\nName suites without them, or set EVAL_SUITES_EVERY_STEPS = None."
            )
        if on_test:
            more = f" and {len(on_test) - 3} more" if len(on_test) > 3 else ""
            console.print(
                f"note: {', '.join(on_test[:3])}{more} are evaluated on their test split while "
                "training: a checkpoint or a stop that these numbers choose has seen it "
                "(EVAL_SUITES_SPLITS).",
                markup=False,
                soft_wrap=True,
            )

    def _leaves(self) -> list[Leaf]:
        """The leaves of all suites, each once."""
        leaves = (leaf for mixture in self._suites.values() for leaf in mixture.leaves)
        return list({leaf.name: leaf for leaf in leaves}.values())

    def _scalar_names(self) -> set[str] | None:
        names = {_mean_name(suite) for suite, mixture in self._suites.items() if _several(mixture)}
        for leaf in self._leaves():
            task = registry.scored_task(self._workspace, leaf.name)
            examples = self._examples_fn(leaf, split_of(leaf, self._config.splits)).examples
            ranked = leaf.spec is not None and leaf.spec.ranked
            try:
                metrics = task_rows.metric_names(
                    task, examples, self._config.rank_options or ranked
                )
            except Exception:  # a user's metric; if it fails on predictions too, that is recorded
                return None
            names.update(f"eval/{leaf.name}/{metric}" for metric in metrics)
        return names

    def _description(self, suite: str) -> str:
        """What the suite asks, and that these are a few examples of it."""
        most = self._config.num_examples
        limit = "all examples" if most is None else f"at most {most:,} examples"
        asks = registry.description_of(suite) or suite
        return f"{asks}; while training, {limit} of each task"


def scalars_of(rows: Sequence[Row], suite: str) -> dict[str, float]:
    """Scalars of the metric lines of a suite's results file; no mean if a task has no value."""
    scalars = {}
    for row in rows:
        if row["kind"] == "metric" and row["value"] is not None:
            leaf = f"{row['task']}.{row['mode']}" if row["mode"] else row["task"]
            scalars[f"eval/{leaf}/{row['metric']}"] = float(row["value"])
    primary = results.primary_metrics(rows)
    mean = results.aggregate(primary).value
    failed = any(row["kind"] == "failure" for row in rows)
    complete = not failed and all(row["value"] is not None for row in primary)
    if len(primary) > 1 and mean is not None and complete:
        scalars[_mean_name(suite)] = mean
    return scalars


def chosen_samples(rows: Sequence[Row], most: int) -> list[Row]:
    """The same example lines at every step: tasks take turns."""
    by_task: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["kind"] == "example":
            by_task.setdefault((row["task"], row["mode"]), []).append(row)
    longest = max(map(len, by_task.values()), default=0)
    lines = [of[n] for n in range(longest) for of in by_task.values() if n < len(of)]
    return lines[:most]


def _mean_name(suite: str) -> str:
    return f"eval/{suite}/mean"


def _several(mixture: Resolved) -> bool:
    return len(mixture.leaves) > 1


def _columns(rows: Sequence[Row], kind: str, names: Sequence[str]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in names} for row in rows if row["kind"] == kind]


def _cut(value: Any, most: int) -> Any:
    """A text without its middle if it is longer; a prompt asks at its start or its end."""
    if not isinstance(value, str) or len(value) <= most:
        return value
    return f"{value[: most // 2]} … {value[-(most // 2) :]}"


def _print_further_metrics(console: Console, rows: Sequence[Row]) -> None:
    """A line a task with the metrics that the table leaves out; none of more than `MOST_TASKS`."""
    primary = results.primary_metrics(rows)
    if len(primary) > MOST_TASKS:
        return
    by_task: dict[str, list[str]] = {}
    for row in rows:
        if row["kind"] == "metric" and row not in primary and row["value"] is not None:
            error = "" if row["stderr"] is None else f" ± {row['stderr']:.1f}"
            text = f"{row['metric']} {row['value']:.1f}{error}"
            by_task.setdefault(f"{row['task']} {row['mode']}".rstrip(), []).append(text)
    for task, texts in by_task.items():
        console.print(f"  {task}: {', '.join(texts)}", markup=False, soft_wrap=True)


def _print_samples(console: Console, samples: Sequence[Row]) -> None:
    for row in samples:
        console.print(f"  {row['task']} {row['mode']}".rstrip(), style="bold", markup=False)
        for name in ("prompt", "target", "prediction"):
            text = " ".join(_cut(row[name], _LOG_CHARACTERS).split())
            console.print(f"    {name:<10}  {text}", markup=False, soft_wrap=True)


def _remove_later_results(folder: pathlib.Path, step: int) -> None:
    """Removes results of training after `step`, as metrics.jsonl loses its later lines."""
    for path in folder.glob(f"eval/{results.training_suite('*')}/step_*/{results.FILE_NAME}"):
        number = path.parent.name.removeprefix("step_")
        if number.isdigit() and int(number) > step:
            path.unlink()
