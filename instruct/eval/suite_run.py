"""Evaluation of one suite at one checkpoint, into one results file."""

import contextlib
import dataclasses
import functools
import hashlib
import pathlib
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from instruct import results
from instruct.data import registry
from instruct.data.config import DataConfig
from instruct.data.feed.examples import (
    EvalExample,
    eval_examples,
    majority_answer,
    majority_position,
    num_asked,
)
from instruct.data.spec import Leaf, Resolved
from instruct.data.stores.prepare import prepare_once
from instruct.data.stores.store import leaf_manifest
from instruct.data.vocab import load_vocabulary
from instruct.distributed import first_problem
from instruct.errors import UserError, memory_failure
from instruct.eval import task_rows
from instruct.eval.eval_config import EvalConfig
from instruct.eval.model_outputs import ModelRunner
from instruct.eval.results_table import print_table
from instruct.files import locked, remove_leftovers
from instruct.workspace import Workspace


def split_of(leaf: Leaf, splits: Sequence[str]) -> str:
    """The first of `splits` that a leaf has. Raises UserError if it has none."""
    for split in splits:
        if split in leaf.splits:
            return split
    raise UserError(
        f"task {leaf.name!r} has none of the splits {', '.join(splits)}; it has "
        f"{', '.join(leaf.splits) or 'none'}"
    )


def prepare_suites(
    workspace: Workspace,
    mixtures: Iterable[Resolved],
    config: EvalConfig,
    data: DataConfig,
    console: Console,
) -> dict[tuple[str, str], str]:
    """Builds missing record stores; returns (task, split) -> why that failed."""
    by_split: dict[str, list[Leaf]] = {}
    for mixture in mixtures:
        for leaf in mixture.leaves:
            with contextlib.suppress(UserError):  # reported when the task is evaluated
                by_split.setdefault(split_of(leaf, config.splits), []).append(leaf)
    problems = {}
    for split, leaves in by_split.items():
        part = Resolved(f"split {split}", split, tuple(leaves))
        done = prepare_once(workspace, part, data, (split,), console=console)
        problems |= {(store.task, store.split): store.message for store in done.failed}
    return problems


class LeafExamples(NamedTuple):
    """What a leaf is evaluated on, whatever the parameters."""

    examples: list[EvalExample]
    left_out: int  # examples that do not fit
    replies: task_rows.FixedReplies


def leaf_examples(
    workspace: Workspace,
    config: EvalConfig,
    data: DataConfig,
    console: Console,
    leaf: Leaf,
    split: str,
) -> LeafExamples:
    """Reads and renders the examples of a leaf; warns of truncated prompts.

    Raises UserError if none fits.
    """
    lengths, limit = data.feature_lengths, config.num_examples
    examples = eval_examples(workspace, leaf, split, data, limit, config.seed)
    if not examples:
        raise UserError(f"no example of split {split!r} fits {dict(lengths)}")
    total = num_asked(workspace, leaf, split, data, limit)
    left_out = total - len(examples)
    losses = prompt_losses(examples, lengths["inputs"])
    if left_out > 0:
        losses.insert(
            0,
            f"{left_out:,} of {total:,} examples do not fit inputs of "
            f"{lengths['inputs']:,} tokens and are left out",
        )
    for loss in losses:
        console.print(f"{leaf.name}: {loss}", style="yellow", markup=False, soft_wrap=True)
    replies = fixed_replies(workspace, leaf, split, data, examples)
    return LeafExamples(examples, left_out, replies)


@dataclasses.dataclass(frozen=True)
class SuiteRun:
    """Evaluation of one suite with some parameters, which writes one results file.

    Attributes:
        suite: name of the results' folder.
        folder: MODEL_DIR.
        step, checkpoint: of the parameters.
        parameters: settings that tell them from others of the same place.
        description: what the suite asks, for a reader.
        decode: description of the decoding strategy.
        trained_tasks: tasks that the model was trained on; None if unknown.
        problems: (task, split) -> why its records could not be prepared.
        workspace: where the records are.
        examples_fn: (leaf, split) -> `leaf_examples`.
    """

    suite: str
    folder: pathlib.Path
    step: int
    checkpoint: pathlib.Path
    parameters: Mapping[str, Any]
    description: str
    config: EvalConfig
    data: DataConfig
    decode: str
    trained_tasks: set[str] | None
    problems: Mapping[tuple[str, str], str]
    workspace: Workspace
    examples_fn: Callable[[Leaf, str], LeafExamples]

    @property
    def path(self) -> pathlib.Path:
        """The results file."""
        return self.folder / "eval" / self.suite / f"step_{self.step}" / results.FILE_NAME

    def evaluate(
        self,
        mixture: Resolved,
        models: ModelRunner,
        params: Any,
        console: Console,
        show_bar: bool = True,
    ) -> bool:
        """Evaluates unfinished tasks. Returns whether a task failed."""
        path, failed = self.path, False
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        shows = show_bar and sys.stderr.isatty()
        with contextlib.ExitStack() as stack:
            header = {"suite": self.suite, "step": self.step, "checkpoint": str(self.checkpoint)}
            header |= {"description": self.description, "settings": self._settings()}
            writer = None
            if jax.process_index() == 0:
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(path.parent, f"{path.parent}"))
                remove_leftovers(path.parent, path.name)
                writer = results.ResultsWriter(path, header, self.config.overwrite)
                stack.enter_context(writer)
            bar = stack.enter_context(
                Progress(*columns, TimeElapsedColumn(), console=console, disable=not shows)
            )
            shown = bar.add_task(self.suite, total=len(mixture.leaves))
            for leaf, is_finished in zip(mixture.leaves, self._finished(mixture.leaves, writer)):
                bar.update(shown, description=f"{self.suite} {leaf.name}")
                if not is_finished:
                    rows = self._rows(leaf, models, params)
                    failed |= rows[-1]["kind"] == "failure"
                    if writer is not None:
                        writer.write(rows)
                bar.advance(shown)
        return failed

    def print_table(self, stderr: bool = False) -> None:
        """Prints the table of the results file; the first process does."""
        if jax.process_index() == 0:
            title = f"{self.suite}, step {self.step:,}"
            width = max(Console(stderr=stderr).width, 120)
            table = Console(stderr=stderr, highlight=False, width=width)
            print_table(table, title, results.read_rows(self.path, ("metric", "failure")))
            table.print(f"results: {self.path}", soft_wrap=True, markup=False)

    def _settings(self) -> dict[str, Any]:
        """Settings that affect results, apart from the suite and the step."""
        inside = self.checkpoint.is_relative_to(self.folder)
        checkpoint = self.checkpoint.relative_to(self.folder) if inside else self.checkpoint
        chat = self.data.frame.chat
        return {
            "checkpoint": str(checkpoint),
            **self.parameters,
            "decode": self.decode,
            "feature_lengths": dict(self.data.feature_lengths),
            "vocabulary": load_vocabulary(self.data.vocabulary).fingerprint,
            "splits": list(self.config.splits),
            "num_examples": self.config.num_examples,
            "seed": self.config.seed,
            "rank_options": self.config.rank_options,
            "bootstrap_samples": self.config.bootstrap_samples,
            # Not in the vocabulary's fingerprint; earlier versions recorded True.
            **({"chat_template": chat.fingerprint[:16]} if chat else {}),
        }

    def _rows(self, leaf: Leaf, models: ModelRunner, params: Any) -> list[dict[str, Any]]:
        """The lines of one task; a single failure line if anything fails."""
        config = self.config
        shared = {
            "suite": self.suite,
            "task": leaf.task,
            "task_version": str(leaf.version),
            "family": leaf.family,
            "category": leaf.category,
            "mode": leaf.mode,
            "split": "",
            "group": self._group(leaf),
            "step": self.step,
        }
        checkpoint = {"checkpoint": str(self.checkpoint)}
        computed = False
        try:
            shared["split"] = split = split_of(leaf, config.splits)
            task, (examples, left_out, replies) = self._task_and_examples(leaf, split)
            ranked = leaf.spec is not None and leaf.spec.ranked
            outputs = models.outputs(params, task, examples, config.rank_options or ranked)
            computed = True
            measured = task_rows.measure_task(
                task, examples, outputs, config.bootstrap_samples, config.seed, rank_first=ranked
            )
            both = task_rows.baselines(task, examples, replies, measured, outputs.ranked)
            fields = checkpoint | {
                "template_set": _template_set(leaf),
                "metric_fns": _metric_fns(leaf),
                "records": self._records(leaf),
                "decode": self.decode,
                "left_out": left_out,
            }
            return task_rows.rows_of_task(shared, fields, examples, outputs, measured, *both)
        except Exception as error:  # whatever fails in a task, the others are still evaluated
            # But not by several processes of which only this one may have failed: the others wait.
            if not (computed or isinstance(error, UserError)) and jax.process_count() > 1:
                raise
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
            if failure := memory_failure(error):
                text = f"{failure} A smaller EVAL_BATCH_SIZE (BatchConfig.batch_size) needs less"
            if isinstance(error, UserError):
                splits = (shared["split"], _exemplar_split(leaf))
                unprepared = (self.problems.get((leaf.task, name)) for name in splits)
                text = next(filter(None, unprepared), str(error))
            return [{"kind": "failure", **shared, **checkpoint, "error": text}]

    def _task_and_examples(self, leaf: Leaf, split: str) -> tuple[task_rows.Task, LeafExamples]:
        """What a leaf is evaluated with and on; fails in all processes if it fails in one."""
        problem, found = "", None
        try:
            examples = self.examples_fn(leaf, split)
            found = registry.scored_task(self.workspace, leaf.name), examples
        except UserError as error:
            problem = str(error) or "no message"
        problem = first_problem(problem)
        if problem or found is None:
            raise UserError(problem)
        return found

    def _finished(self, leaves: Sequence[Leaf], writer: results.ResultsWriter | None) -> list[bool]:
        """Which leaves an earlier run finished, as read by process 0."""
        done = np.zeros(len(leaves), bool)
        if writer is not None:
            # Records of tasks that are not in the file are hashed when these are evaluated.
            for number, leaf in enumerate(leaves):
                done[number] = (leaf.task, leaf.mode) in writer.finished and writer.is_finished(
                    *(leaf.task, leaf.mode, str(leaf.version)),
                    *(_template_set(leaf), _metric_fns(leaf), self._records(leaf)),
                )
        if jax.process_count() > 1:
            done = np.asarray(multihost_utils.broadcast_one_to_all(done))
        return done.tolist()

    def _records(self, leaf: Leaf) -> str:
        """Hash of the records of a leaf's examples and exemplars; "" if they are not prepared.

        Data files may be replaced between two runs of an evaluation, which prepares them anew.
        """
        digest = hashlib.sha256()
        try:
            splits = split_of(leaf, self.config.splits), _exemplar_split(leaf)
            for split in filter(None, splits):
                manifest, _ = leaf_manifest(self.workspace, leaf, split, self.data)
                if manifest is None:
                    return ""
                digest.update(manifest.sha256.encode())
        except UserError:  # reported when the task is evaluated
            return ""
        return digest.hexdigest()[:16]

    def _group(self, leaf: Leaf) -> str:
        """Held-in if the model was trained on the task or on another task of the same examples."""
        if self.trained_tasks is None:
            return "unknown"
        seen = leaf.spec is not None and leaf.spec.group in self._trained_groups
        return "held_in" if seen or leaf.task in self.trained_tasks else "held_out"

    @functools.cached_property
    def _trained_groups(self) -> set[str]:
        """Contamination groups of the trained tasks."""
        names = self.trained_tasks or ()
        return {spec.group for spec in registry.known_specs(self.workspace, names).values()}


def prompt_losses(examples: Sequence[EvalExample], length: int) -> list[str]:
    """Sentences on exemplars and source text that were dropped to fit `length` tokens."""
    counts = task_rows.prompt_counts(examples)
    shown = results.exemplars_of([counts])
    losses = []
    if shown is not None and not shown.complete:
        fewer = sum((e.num_exemplars or 0) < (e.exemplars_asked or 0) for e in examples)
        losses.append(
            f"{fewer:,} of {len(examples):,} prompts show fewer exemplars than asked for: {shown}, "
            f"inputs of {length:,} tokens"
        )
    if counts["truncated"]:
        losses.append(
            f"{counts['truncated']:,} of {len(examples):,} prompts lost the end of their source, "
            f"inputs of {length:,} tokens"
        )
    return losses


def fixed_replies(
    workspace: Workspace,
    leaf: Leaf,
    split: str,
    data: DataConfig,
    examples: Sequence[EvalExample],
) -> task_rows.FixedReplies:
    """The most frequent answer and every option, as replies to `examples`.

    The answer is that of the whole evaluated split, so that it does not depend on which other
    splits are prepared. If options keep their order, it may be an option's position (the letter B)
    instead of a text.
    """
    answer, share = majority_answer(workspace, leaf, data, split)
    position, share_of_position = majority_position(workspace, leaf, data, split)
    if share_of_position <= share or not any(example.options for example in examples):
        position = -1
    majority, chosen, options = [], [], []
    for example in examples:
        markers = [marker.decode() for marker in example.seqio_example.get("markers", ())]
        shown = markers or list(example.options)  # targets are markers if the prompt has them
        index, text = position, ""
        if position < 0:
            index = example.options.index(answer) if answer in example.options else -1
            text = answer
        chosen.append(index)
        majority.append(_reply(leaf, shown[index] if 0 <= index < len(shown) else text))
        options.append([_reply(leaf, option) for option in shown])
    known = bool(answer) or position >= 0
    return task_rows.FixedReplies(majority if known else (), chosen, options)


def _reply(leaf: Leaf, answer: str) -> str:
    return answer if leaf.spec is None else leaf.spec.reply(leaf.mode, answer)


def _template_set(leaf: Leaf) -> str:
    return leaf.spec.templates.name if leaf.spec else ""


def _metric_fns(leaf: Leaf) -> str:
    """Names of a task's metric functions; "" for a plain SeqIO task."""
    functions = leaf.spec.metric_fns_of(leaf.mode) if leaf.spec else ()
    return ", ".join(map(_function_name, functions))


def _exemplar_split(leaf: Leaf) -> str:
    """The split that a leaf's exemplars come from; "" if its prompts show none."""
    return leaf.spec.exemplar_split_of(leaf.mode) if leaf.spec else ""


def _function_name(function: Any) -> str:
    """`rouge`, or with the arguments of a partial function `class_f1(labels=('dry', 'wet'))`."""
    if not isinstance(function, functools.partial):
        return getattr(function, "__name__", type(function).__name__)
    plain = (str, int, float, tuple)
    shown = {
        n: repr(v) if isinstance(v, plain) else type(v).__name__
        for n, v in function.keywords.items()
    }
    arguments = ", ".join(f"{name}={value}" for name, value in shown.items())
    return f"{_function_name(function.func)}({arguments})"
