"""The Python API: what `run.py` does, as functions. `import instruct` has its names, loaded lazily.

    import instruct

    recipe = "gin/recipes/flan_t5_small_finetune.gin"
    instruct.train_model(recipe, "runs/a", data="task.toml", TRAIN_STEPS=1000, ...)
    for result in instruct.evaluate_model("runs/a", before=True):
        print(result)
    model = instruct.load_model("runs/a")
    model.generate(["Summarize: ..."])[0].text
    model.score(["Is it wet or dry?"], [["wet", "dry"]])

Settings are the macros and parameters of gin, as Python values. Errors are `UserError` (a mistake
in a setting or file) and `RunFailed`. One process computes; several are the command line's.
"""

import argparse
import ast
import dataclasses
import functools
import os
import pathlib
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from instruct import results
from instruct.allocator import keep_freed_memory
from instruct.checkpoints.convert import convert as convert_checkpoint
from instruct.data.quiet_tensorflow import keep_quiet
from instruct.data.task_file import TaskFile
from instruct.errors import RunFailed, UserError, explaining_storage_failures
from instruct.eval.decoding.batching import BatchConfig, Decoder
from instruct.eval.decoding.decode import DecodeConfig
from instruct.eval.infer import Answerer
from instruct.eval.loaded_model import LoadedModel, find_model
from instruct.eval.scoring.options import OptionScorer, Ranking
from instruct.files import any_path, is_address
from instruct.mesh import MeshConfig
from instruct.models.model import AnyConfig

if TYPE_CHECKING:
    from instruct.data.spec import TaskSpec

__all__ = [
    "Answer",
    "DecodeConfig",
    "Ranking",
    "RunFailed",
    "Score",
    "SuiteResult",
    "TaskFile",
    "TextModel",
    "UserError",
    "add_task",
    "convert_checkpoint",
    "evaluate_model",
    "load_model",
    "read_results",
    "train_model",
]

PathLike = str | os.PathLike[str]

keep_freed_memory()


@dataclasses.dataclass(frozen=True)
class Answer:
    """A generated answer.

    Attributes:
        text: the likeliest beam, or the first sample.
        score: its log-likelihood in nats, or a beam's score with its length penalty.
        texts, scores: of all beams or samples.
        truncated: the prompt was longer than the model reads, and lost its end.
        unfinished: the answer reached the longest length without a token that ends it.
    """

    text: str
    score: float
    texts: tuple[str, ...]
    scores: tuple[float, ...]
    truncated: bool
    unfinished: bool


@dataclasses.dataclass(frozen=True, eq=False)
class TextModel:
    """A model that takes and gives texts; see `load_model`.

    Attributes:
        loaded: folder of the checkpoint, network, parameters on the devices (LoRA adapters merged),
            mesh, vocabulary, and frame of prompts (`loaded.encoder.frame`).
        batching: rows and shapes; affects speed only.
    """

    loaded: LoadedModel
    batching: BatchConfig

    def __repr__(self) -> str:
        size = self.loaded.network.config.num_params()
        return f"TextModel({str(self.loaded.folder)!r}, {size:,} parameters)"

    def generate(
        self,
        prompts: Sequence[str],
        decode: DecodeConfig | None = None,
        max_decode_steps: int | None = None,
    ) -> list[Answer]:
        """Answers prompts, in their order.

        Args:
            prompts: as texts; the frame of the training (EOS, a chat template) is added.
            decode: the strategy; None: that of the checkpoint's generation_config.json, else
                greedy. The same prompts, seed and strategy give the same samples.
            max_decode_steps: longest answer in tokens; None: that of the strategy.

        Raises:
            UserError: a prompt is no text, or a setting that cannot be used.
        """
        prompts = _texts("prompts", prompts)
        strategy = self.loaded.decode
        if decode is not None:
            _check_type("decode", decode, DecodeConfig)
            strategy = decode.ending_with(self.loaded.vocabulary.stop_ids)
        if max_decode_steps is not None:
            strategy = dataclasses.replace(strategy, max_decode_steps=max_decode_steps)
        answerer = Answerer(self._decoder(strategy), self.loaded.params, self.loaded.encoder)
        return [
            Answer(
                text=fields["prediction"],
                score=fields["score"],
                texts=tuple(fields.get("predictions", [fields["prediction"]])),
                scores=tuple(fields.get("scores", [fields["score"]])),
                truncated=fields.get("truncated", False),
                unfinished=fields.get("unfinished", False),
            )
            for fields in answerer.answer(prompts, first_index=0)
        ]

    def score(self, prompts: Sequence[str], options: Sequence[Sequence[str]]) -> list[Ranking]:
        """Log-likelihoods of the options of every prompt, the token that ends an answer included.

        Args:
            prompts: as texts; one that is too long loses its end, with a warning.
            options: of each prompt, at least one.

        Returns:
            Of each prompt `log_likelihoods` [options] float32 in nats, and `lengths` [options] in
            tokens: `log_likelihoods.argmax()` is the answer.

        Raises:
            UserError: a text is missing, or the numbers of prompts and of lists differ.
        """
        prompts = _texts("prompts", prompts)
        choices = [_texts("options", texts) for texts in _items("options", options, "lists")]
        if len(prompts) != len(choices) or not all(choices):
            raise UserError(
                f"options are {len(choices)} lists for {len(prompts)} prompts; give each prompt a "
                "list of at least one text."
            )
        encoder = self.loaded.encoder
        encoded = [encoder.encode(prompt) for prompt in prompts]
        if any(length > encoder.inputs_length for _, length in encoded):
            _say(
                f"warning: a prompt is longer than the {encoder.counted_length:,} tokens that the "
                "model reads, and loses its end; load_model(inputs_length=...) sets the length."
            )
        inputs = [ids for ids, _ in encoded]
        frame = encoder.frame
        ids = [
            [frame.answer(text) or [frame.tokenizer.eos_id] for text in texts] for texts in choices
        ]
        return self._scorer.rank(self.loaded.params, inputs, ids)

    @functools.cached_property
    def _scorer(self) -> OptionScorer:
        return OptionScorer(self.loaded.network, self.batching, self.loaded.mesh)

    @functools.cached_property
    def _decoder(self) -> Callable[[DecodeConfig], Decoder]:
        """The compiled programs of each strategy are kept."""
        loaded = self.loaded
        return functools.cache(
            lambda strategy: Decoder(loaded.network, strategy, self.batching, loaded.mesh)
        )


@dataclasses.dataclass(frozen=True)
class Score:
    """One metric of one task.

    Attributes:
        task, mode: such as "dialogsum.main" and its prompt mode "zs_noopt".
        metric: its name; the first one of a task is its primary metric.
        value: 0-100 for accuracies and overlaps; None if it is not finite.
        stderr: standard error of the value over the choice of examples; None if unknown.
        n: examples.
        baseline: the better of always giving the most frequent answer and of a random option; None
            if neither is known.
        group: "held_in", "held_out" or "unknown": whether the model was trained on its data set.
        line: all fields of the metric's line (instruct/results.py): version, wordings, exemplars.
    """

    task: str
    mode: str
    metric: str
    value: float | None
    stderr: float | None
    n: int
    baseline: float | None
    group: str
    line: Mapping[str, Any] = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class SuiteResult:
    """Results of one checkpoint on one suite.

    Attributes:
        suite, step, checkpoint: what was evaluated.
        scores: every metric of every task, the primary one of a task first.
        failures: a sentence on each task that could not be evaluated.
        path: of results.jsonl.
    """

    suite: str
    step: int
    checkpoint: str
    scores: tuple[Score, ...]
    failures: tuple[str, ...]
    path: pathlib.Path

    def examples(self) -> Iterator[dict[str, Any]]:
        """Every evaluated example: prompt, target, prediction, scores (instruct/results.py)."""
        return results.read_rows(self.path, ("example",))

    def __str__(self) -> str:
        lines = [f"{self.suite}, step {self.step:,}"]
        for score in self.scores:
            value = "no value" if score.value is None else f"{score.value:.1f}"
            error = "" if score.stderr is None else f" ± {score.stderr:.1f}"
            lines.append(f"  {score.task} {score.mode} {score.metric} {value}{error} (n {score.n})")
        return "\n".join([*lines, *(f"  failed: {failure}" for failure in self.failures)])


def load_model(
    path: PathLike,
    *,
    step: int | None = None,
    model: AnyConfig | None = None,
    vocabulary: PathLike | None = None,
    chat_template: bool | None = None,
    inputs_length: int | None = None,
    batch_size: int = 32,
    mesh: MeshConfig | None = None,
    strict: bool = False,
) -> TextModel:
    """Loads a checkpoint for answering; needs neither gin nor TensorFlow.

    Args:
        path: folder of a training run, or of a checkpoint: this program's, T5X's, Hugging Face's,
            or adapters of PEFT.
        step: of a folder with several checkpoints; None for the newest.
        model: architecture; None: as recorded (T5X's checkpoints record none).
        vocabulary: see `instruct.data.vocab`; None: as recorded.
        chat_template: prompts as turns of the vocabulary's chat template; None: as trained.
        inputs_length: most tokens of a prompt; None: as in training, else 512.
        batch_size: prompts that are answered together; affects speed only.
        mesh: over all devices; None: each holds all parameters.
        strict: a damaged newest checkpoint is an error; otherwise the newest whole one is read,
            which a line on standard error says.

    Raises:
        UserError: there is no checkpoint, or the model or vocabulary is not recorded or does not
            fit.
    """
    if model is not None:
        _check_type("model", model, AnyConfig)
    if mesh is not None:
        _check_type("mesh", mesh, MeshConfig)
    if vocabulary is not None:
        _check_type("vocabulary", vocabulary, str | os.PathLike)
    with explaining_storage_failures():
        found = find_model(
            os.fspath(any_path("path", path)),
            "",
            model=model,
            vocabulary=None if vocabulary is None else os.fspath(vocabulary),
            chat_template=chat_template,
            step=step,
            inputs_length=inputs_length,
        )
        loaded = found.load(None, None, mesh, strict, _say)
    return TextModel(loaded, BatchConfig(batch_size))


def train_model(
    gin_files: PathLike | Sequence[PathLike],
    model_dir: PathLike,
    *,
    data: TaskFile | PathLike | None = None,
    strict: bool = False,
    **settings: Any,
) -> pathlib.Path:
    """Trains, or resumes the run in `model_dir`, as `run.py train`; returns that folder.

    Args:
        gin_files: such as "gin/recipes/flan_t5_small_finetune.gin"; later ones win.
        model_dir: folder of the run.
        data: a task of the user's own file, or a task file (.toml), to train on.
        strict: see `instruct.train.loop.train`.
        settings: macros such as TRAIN_STEPS=1000, and parameters: `**{"loop.train.strict": True}`.

    Raises:
        UserError: a setting is wrong, or the folder holds another run.
        RunFailed: the storage failed; finished checkpoints are kept.
    """
    keep_quiet()
    from instruct.cli import train  # with the registry of tasks: imports TensorFlow

    folder = any_path("model_dir", model_dir)
    flags = _flags("train", gin_files, data, {**settings, "MODEL_DIR": folder}, strict=strict)
    with explaining_storage_failures():
        train.run(flags)
    return folder


def evaluate_model(
    model_dir: PathLike,
    suites: str | Sequence[str] | None = None,
    *,
    gin_files: PathLike | Sequence[PathLike] = "gin/runs/eval.gin",
    data: TaskFile | PathLike | None = None,
    limit: int | None = None,
    before: bool = False,
    strict: bool = False,
    **settings: Any,
) -> list[SuiteResult]:
    """Evaluates a run, as `run.py eval`: writes results below `model_dir` and prints tables.

    Finished results of the same settings are not computed again.

    Args:
        model_dir: the run; with CHECKPOINT_PATH="..." the folder of the results of a checkpoint.
        suites: names of mixtures and tasks; None: the task of `data`, else of the run's own file,
            else those of `gin_files`.
        gin_files: later ones win.
        data: a task of the user's own file, or a task file (.toml).
        limit: examples of each task; None: NUM_EVAL_EXAMPLES, by default 200.
        before: evaluate the checkpoint that training started from as well (the first result), and
            write the page `model_dir`/before_after.html.
        strict: stop at a damaged checkpoint.
        settings: see `train_model`.

    Returns:
        A result of each checkpoint and suite. Tasks that failed are in `SuiteResult.failures`.

    Raises:
        UserError: a setting is wrong, or there are results of other settings.
        RunFailed: the storage failed; finished tasks are kept.
    """
    keep_quiet()
    from instruct.cli import eval as evaluation

    settings["MODEL_DIR"] = any_path("model_dir", model_dir)
    if suites is not None:
        settings["EVAL_MIXTURES"] = suites
    flags = _flags("eval", gin_files, data, settings, limit=limit, before=before, strict=strict)
    files: list[pathlib.Path] = []
    with explaining_storage_failures():
        evaluation.run(flags, on_results=files.append)
    return [_result(path) for path in files]


def read_results(model_dir: PathLike) -> list[SuiteResult]:
    """The results that evaluations left in a run's folder, by suite and step.

    Raises:
        UserError: a file is damaged, or there is no such folder.
    """
    folder = any_path("model_dir", model_dir)
    if not is_address(folder) and not folder.is_dir():
        raise UserError(f"model_dir is {os.fspath(folder)!r}: there is no such folder.")
    return [_result(path) for path in sorted(folder.glob(f"eval/*/step_*/{results.FILE_NAME}"))]


def add_task(
    task: "TaskFile | TaskSpec", metric_fns: Sequence[Callable[..., Mapping[str, Any]]] = ()
) -> str:
    """Registers a task, and returns its name, for MIXTURE_OR_TASK_NAME and `evaluate_model`.

    Args:
        task: of a file of inputs and targets, or a `instruct.data.spec.TaskSpec`.
        metric_fns: further metrics, `(targets, predictions) -> {name: value}`.

    Raises:
        UserError: the file cannot be used, or another task has the name.
    """
    keep_quiet()
    from instruct.cli import own_data, settings
    from instruct.data import registry
    from instruct.data.spec import TaskSpec

    further = tuple(_items("metric_fns", metric_fns, "functions"))
    for function in further:
        _check_type("metric_fns", function, Callable)
    settings.declare_project_tasks()
    if isinstance(task, TaskFile):
        return own_data.register_task(task, further).spec.name
    if not isinstance(task, TaskSpec):
        raise UserError(f"task is {task!r:.200}; give a TaskFile or a TaskSpec.")
    spec = dataclasses.replace(task, metric_fns=(*task.metric_fns, *further))
    registry.import_modules_of(spec.name)  # else its name would clash when they are imported
    registry.add_task(spec)
    return spec.name


def _result(path: pathlib.Path) -> SuiteResult:
    rows = list(results.read_rows(path, ("header", "metric", "failure")))
    header = next(row for row in rows if row["kind"] == "header")
    names = ("task", "mode", "metric", "value", "stderr", "n", "group")
    scores = (
        Score(**{name: row[name] for name in names}, baseline=results.chance_level(row), line=row)
        for row in rows
        if row["kind"] == "metric"
    )
    failures = (
        f"{row['task']} ({row['mode']}): {row['error']}" for row in rows if row["kind"] == "failure"
    )
    return SuiteResult(
        suite=header["suite"],
        step=header["step"],
        checkpoint=header["checkpoint"],
        scores=tuple(scores),
        failures=tuple(failures),
        path=path,
    )


def _flags(
    mode: str,
    gin_files: PathLike | Sequence[PathLike],
    data: TaskFile | PathLike | None,
    settings: Mapping[str, Any],
    **values: Any,
) -> argparse.Namespace:
    """The flags of a mode of `run.py`, as if they were typed."""
    from instruct.cli import arguments

    flags = arguments.parse([mode])
    files = [gin_files] if isinstance(gin_files, str | os.PathLike) else gin_files
    flags.gin_file = [
        os.fspath(any_path("gin_files", path, "gin/runs/train.gin"))
        for path in _items("gin_files", files, "paths")
    ]
    flags.gin_bindings = [f"{name} = {_literal(name, value)}" for name, value in settings.items()]
    if data is not None and not isinstance(data, TaskFile):
        if not isinstance(data, str | os.PathLike):
            raise UserError(f"data is {data!r:.200}; give a TaskFile or the path of a task file.")
        data = os.fspath(data)
    flags.data = data
    vars(flags).update(values)
    return flags


def _literal(name: str, value: Any) -> str:
    """A value as gin source. Raises UserError unless it is made of numbers, texts and lists."""
    text = repr(os.fspath(value) if isinstance(value, os.PathLike) else value)
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise UserError(
            f"{name} is {value!r}; give a number, a text, or a list or dict of these. Objects are "
            "bound by a gin file (docs/extending.md)."
        ) from error
    return text


def _items(name: str, value: Any, kind: str) -> list[Any]:
    """A list, or anything like one, of `kind` as a list. Raises UserError for other values."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise UserError(f"{name} is {value!r:.200}; give a list of {kind}.")
    return list(value)


def _texts(name: str, value: Any) -> list[str]:
    texts = _items(name, value, "texts")
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"{name} is {texts!r:.200}; give a list of texts.")
    return texts


def _check_type(name: str, value: Any, expected: Any) -> None:
    if not isinstance(value, expected):
        kinds = " or ".join(kind.__name__ for kind in typing.get_args(expected) or (expected,))
        raise UserError(f"{name} is {value!r:.200}; give a {kinds}.")


def _say(*lines: str) -> None:
    """Prints lines for the user."""
    for line in lines:
        print(line, file=sys.stderr)
