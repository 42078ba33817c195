"""`train`: the training loop, from the configuration to the last checkpoint of a run."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import optax
from rich.console import Console

from instruct import distributed, peak
from instruct import mesh as meshes
from instruct.checkpoints import native, t5x
from instruct.checkpoints.checkpoint import CheckpointConfig, CheckpointStore
from instruct.checkpoints.checkpoint_files import FOLDER, PINNED
from instruct.checkpoints.detect import KINDS, detect
from instruct.checkpoints.loading import load_initial
from instruct.checkpoints.train_state import TrainState
from instruct.data.config import DataConfig
from instruct.data.feed.preview import check_ids, lost_examples, target_faults
from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError, unknown_name
from instruct.fields import LARGEST, Range, check_arguments
from instruct.files import replace_file
from instruct.json_text import sealed
from instruct.lineage import FAILED, FINISHED, STOPPED_EARLY
from instruct.mesh import MeshConfig
from instruct.models.adapters import merge_adapters, without_adapters
from instruct.models.model import AnyConfig, make_model
from instruct.train import session
from instruct.train.early_stopping import EarlyStopping, choice_lines
from instruct.train.evaluators import (
    Evaluator,
    ValidationLoss,
    check_evaluators,
    evaluate,
    open_evaluators,
)
from instruct.train.goodput import Goodput
from instruct.train.inputs import Inputs, gather_states, open_inputs, restore_inputs, task_groups
from instruct.train.lora import LoraConfig
from instruct.train.loss import LossConfig, make_loss_fn
from instruct.train.metrics import IntervalMetrics, eval_names
from instruct.train.optimizer import OptimizerConfig, make_optimizer
from instruct.train.preemption import StopRequest
from instruct.train.profiling import PROFILE_FOLDER, StepProfiler, check_profile_steps
from instruct.train.program import (
    abstract_batch,
    check_layout,
    lower_train_step,
    placed_state,
)
from instruct.train.progress import ProgressReport
from instruct.train.step import (
    init_state,
    make_eval_step,
    make_train_step,
)
from instruct.train.trackers import JsonLines, TensorBoard, Tracker, check_trackers, open_trackers
from instruct.train.trained import sizes_of, trained_line


def train(
    model: AnyConfig,
    data: DataConfig,
    *,
    model_dir: str,
    train_steps: Annotated[int, Range(least=1)],
    mesh: MeshConfig = MeshConfig(),  # noqa: B008 (frozen)
    loss: LossConfig = LossConfig(),  # noqa: B008 (frozen)
    optimizer: OptimizerConfig | optax.GradientTransformation = OptimizerConfig(),  # noqa: B008
    checkpoint: CheckpointConfig = CheckpointConfig(),  # noqa: B008 (frozen)
    trackers: Sequence[Tracker] | None = None,
    evaluators: Sequence[Evaluator] = (),
    early_stopping: EarlyStopping = EarlyStopping(),  # noqa: B008 (frozen)
    seed: Annotated[int, Range(least=0, most=LARGEST, note=" (SEED)")] = 0,
    num_microbatches: Annotated[int, Range(least=1)] = 1,
    log_every_steps: Annotated[int, Range(least=1)] = 10,
    eval_every_steps: Annotated[int | None, Range(least=1)] = 1000,
    num_eval_examples: Annotated[int, Range(least=0)] = 512,
    profile_steps: tuple[int, int] | None = None,
    initial_checkpoint_path: str | None = None,
    initial_mapping: Sequence[tuple[str, str | None]] = (),
    lora: LoraConfig = LoraConfig(),  # noqa: B008 (frozen)
    freeze: str | None = None,
    strict: bool = False,
    texts: Mapping[str, str] | None = None,
    optimizer_text: str | None = None,
    open_inputs: Callable[..., Inputs] = open_inputs,
) -> None:
    """Trains, or resumes the run in `model_dir`. Bound by gin.

    A resumed run computes bit for bit what an uninterrupted one would have. Only one process at a
    time trains in a folder.

    Args:
        model, data, mesh, loss, checkpoint, lora: see there.
        model_dir: folder of the run.
        train_steps: number of updates, those before a resume included.
        optimizer: a config, or any optax optimiser.
        trackers: get the scalars, as `metrics.jsonl` does; None: TensorBoard.
        evaluators: evaluations in addition to the teacher-forced loss.
        early_stopping: ends the run before `train_steps` if an evaluation no longer improves.
        seed: of initialisation and dropout (data have their own).
        num_microbatches: gradient accumulation steps per update; memory and speed only.
        log_every_steps: steps between lines of metrics.jsonl; the last step is always logged.
        eval_every_steps: steps between teacher-forced losses on the validation split, which the
            last step always has; None: never.
        num_eval_examples: examples of that loss.
        profile_steps: (first step, number of steps) of a profiler's trace in `model_dir`/profile.
        initial_checkpoint_path, initial_mapping: parameters to start from, see `load_initial`; not
            read on a resume, but must be the same as at the first start.
        freeze: regular expression of the whole names of parameters that are not trained.
        strict: a damaged newest checkpoint is an error; otherwise it is renamed and the run
            resumes from the newest intact one.
        texts: further files of the run (name -> content).
        optimizer_text: description of an optax optimiser for run.json; a resume refuses another.
        open_inputs: (data, vocabulary size, evaluation examples, console, rows=...) -> `Inputs`;
            `rows` of a batch that each process feeds, see `mesh.process_rows`.

    Raises:
        UserError: a setting is wrong, `model_dir` holds another run, or another process trains
            in it.
        TrainingDiverged: a loss is not finite; the last checkpoint is from before.
        OSError: the storage failed; older checkpoints are intact.
    """
    check_arguments(train, locals())
    check_layout(model, data)
    evaluators = list(evaluators)
    trackers = [TensorBoard()] if trackers is None else trackers
    check_evaluators(evaluators)
    check_trackers(trackers)
    check_profile_steps(profile_steps)
    texts = texts or {}
    is_first_process = jax.process_index() == 0
    console = Console(stderr=True, quiet=not is_first_process, highlight=False)

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    with contextlib.ExitStack() as stack:  # closes what was opened, whatever is raised
        goodput = stack.enter_context(Goodput())
        folder = stack.enter_context(session.open_model_dir(model_dir))

        # Devices.
        device_mesh = meshes.make_mesh(mesh)
        batch_shapes = abstract_batch(
            model, device_mesh, data.batch_size, data.lengths, num_microbatches
        )
        matmul_peak = peak.matmul_peak(model.dtype, list(device_mesh.devices.flat))

        # The run in this folder, if there is one.
        initial = _initial_settings(initial_checkpoint_path, initial_mapping)
        recorded = optimizer if isinstance(optimizer, OptimizerConfig) else optimizer_text
        config = session.results_config(
            model=model, data=data, loss=loss, optimizer=recorded, seed=seed, **initial
        )
        config |= session.results_config(
            **lora.recorded(), **({"freeze": freeze} if freeze else {})
        )
        checkpoints = CheckpointStore(folder / FOLDER, checkpoint)
        stack.callback(checkpoints.close)
        has_checkpoints = checkpoints.latest_step() is not None
        if not has_checkpoints:
            _check_unused(folder, initial_checkpoint_path)
        else:
            session.restore_run_file(folder, checkpoints.recorded_run(), say)
            session.check_same_run(folder, config)

        # State to resume from; detects damaged checkpoints.
        network, update_rule = make_model(model), make_optimizer(optimizer)
        params = lora.add(network.abstract_params(), seed)
        abstract, trained = placed_state(params, freeze, update_rule, device_mesh)
        resumed = checkpoints.resume_newest(abstract, strict, say) if has_checkpoints else None
        start = resumed.step if resumed else 0
        goodput.restore(resumed.records.get("goodput", {}) if resumed else {})
        if isinstance(optimizer, OptimizerConfig):
            optimizer.check_start(start)
        stops_early = early_stopping.resolved(checkpoint)
        enough = stops_early.reason(resumed.records.get("rows") or ()) if resumed else None
        if start >= train_steps or enough:
            # Another metric, perhaps a misspelt one, would remove the best checkpoint.
            if _earlier_choice(checkpoint, folder) is None:
                checkpoints.remove_old()
            if is_first_process and start <= train_steps:
                session.end_killed_run(folder, start, _outcome(enough))
            say(f"{folder} is already at step {start:,}; {_to_continue(enough)}")
            return
        checkpoints.check_folder()

        # Data.
        num_held = num_eval_examples if eval_every_steps else 0
        process_rows = meshes.process_rows(device_mesh, data.batch_size)
        inputs = open_inputs(data, model.vocab_size, num_held, console, rows=process_rows)
        stack.callback(inputs.feed.close)
        group_names, leaf_groups = task_groups(inputs.leaves)
        meter = IntervalMetrics(group_names)
        names = open_evaluators(evaluators, folder, start)
        if names is not None:  # else what evaluators return is unknown before they run
            known = [*eval_names(group_names), *sorted(names)]
            if checkpoint.keep_best and checkpoint.best_metric not in known:
                raise unknown_name(
                    "CheckpointConfig.best_metric (BEST_METRIC)", checkpoint.best_metric, known
                )
            known = known if inputs.eval_batches else sorted(names)
            if early_stopping.patience and stops_early.metric not in known:
                raise unknown_name("EarlyStopping.metric", stops_early.metric, known)

        # State: resumed, else from a checkpoint's parameters, else fresh.
        if resumed:  # by now the name of the best metric is known to be right
            if earlier := _earlier_choice(checkpoint, folder):
                for best in checkpoints.pin_best(earlier):
                    say(_pinned_line(earlier, checkpoint, folder / FOLDER / str(best)))
            checkpoints.remove_old()
            state = resumed.state
            restore_inputs(inputs.feed, meter, resumed.input, process_rows)
        else:

            def first(params: Any) -> TrainState:
                return init_state(lora.add(params, seed), update_rule, trained)

            state = _first_state(network, first, abstract, seed, initial, data, say)

        # Programs, compiled before the first batch, so that no step waits for it.
        loss_fn = make_loss_fn(network, loss, leaf_groups)
        factor = loss.loss_normalizing_factor
        train_loss = lora.loss(loss_fn)
        step_fn = make_train_step(train_loss, update_rule, num_microbatches, seed, factor, trained)
        started = time.perf_counter()
        train_program = lower_train_step(step_fn, abstract, device_mesh, batch_shapes).compile()
        compile_secs = time.perf_counter() - started
        if inputs.eval_batches and eval_every_steps:
            replicated = meshes.replicated_sharding(device_mesh)
            eval_program = jax.jit(make_eval_step(loss_fn), out_shardings=replicated)
            held = (eval_program, device_mesh, inputs.eval_batches, group_names)
            evaluators.insert(0, ValidationLoss(eval_every_steps, *held))

        state_sizes = sizes_of(abstract, trained)

        # Records of the run; only the first process writes them.
        step, outcome, pending = start, FAILED, None
        json_lines = JsonLines(resumed.records.get("rows") if resumed else None, say)
        if is_first_process:
            info = session.run_info(model, device_mesh, matmul_peak)
            info |= {"config": config, "compile_secs": compile_secs, **state_sizes}
            info["best_metric"] = checkpoint.best_metric
            info["best_is_lowest"] = checkpoint.lowest
            if early_stopping.patience:
                info["early_stopping"] = dataclasses.asdict(stops_early)
            for name, text in texts.items():
                replace_file(folder / name, text)
            session.start_run(folder, info, start)
            stack.callback(lambda: session.end_run(folder, step, outcome))
        trackers = stack.enter_context(open_trackers([json_lines, *trackers], folder, start))
        for tracker in trackers:
            for name, text in texts.items():
                tracker.text(name, text)

        mixture_file = session.JsonFile(folder / session.MIXTURE_FILE)
        stack.callback(mixture_file.close)

        def write_mixture(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            statistics: dict[str, Any] = {"mixture": data.mixture}
            statistics |= inputs.feed.statistics([state["feed"] for state in states])
            if is_first_process:
                mixture_file.write(sealed(statistics))
            for tracker in trackers:
                tracker.table("mixture", statistics["leaves"])
            return statistics

        step_flops = model.train_flops(data.batch_size, *data.lengths)
        save_every_steps = checkpoint.save_every_steps or train_steps
        traced = profile_steps if is_first_process else None
        profiler = StepProfiler(folder / PROFILE_FOLDER, traced, start, train_steps, say)
        with ProgressReport(start, train_steps, console) as report, StopRequest() as stop, profiler:
            begin = f"resumes from step {start:,}" if start else "starts"
            shape = " x ".join(f"{name} {size}" for name, size in device_mesh.shape.items())
            report.note(
                f"{folder} {begin}, {train_steps:,} steps: {model.num_params():,} parameters on "
                f"{device_mesh.size} {device_mesh.devices.flat[0].platform} device(s) ({shape}); "
                f"compiled in {compile_secs:.1f} s"
            )
            report.note(trained_line(state_sizes))
            for line in lora.warnings(optimizer, initial_checkpoint_path is not None):
                report.note(f"warning: {line}")
            for line in choice_lines(
                checkpoint, stops_early, [one.every_steps for one in evaluators]
            ):
                report.note(line)
            warned_of_lost = False
            while step < train_steps:
                goodput.switch("steps")
                with goodput.waiting_for_input(pending):
                    batch, batch_info = next(inputs.feed)
                if step == start:
                    check_ids(batch, model.vocab_size, batch_info.task_counts)
                    for fault in target_faults(batch, load_vocabulary(data.vocabulary)):
                        report.note(f"warning: {fault}")
                profiler.begin(step + 1)
                state, metrics = train_program(state, meshes.shard_batch(device_mesh, batch))
                profiler.end(step + 1, metrics)
                step += 1
                distributed.report_progress(step)
                # One step late: the devices compute while the host reads the last step's metrics.
                if pending is not None:
                    meter.add(*pending)
                pending = (step, metrics, batch_info.task_counts, batch_info.num_examples)
                stopping, last = stop.at(step), step == train_steps
                log = step % log_every_steps == 0 or last
                due = [one for one in evaluators if step % one.every_steps == 0 or last]
                saving = step % save_every_steps == 0 or last or stopping
                report.advance(step)
                if not (log or due or saving):
                    continue
                meter.add(*pending)
                pending = None
                goodput.switch("other")
                scalars = {}
                if log:
                    secs = goodput.lap()
                    step_secs = secs / meter.timed_steps
                    scalars = {
                        "real_tokens_per_sec": meter.timed_tokens / secs,
                        "step_secs": step_secs,
                        "peak_share": step_flops / step_secs / matmul_peak,
                        **meter.scalars(),
                        **goodput.scalars(),
                    }
                    meter.clear()
                position = {"feed": inputs.feed.state(), "metrics": meter.state()}
                processes = gather_states(position, process_rows)
                statistics = write_mixture(processes)
                if not warned_of_lost and (lost := lost_examples(statistics, data.feature_lengths)):
                    report.note(f"warning: {lost}")
                    warned_of_lost = True
                if log:
                    scalars["examples"] = sum(one["metrics"]["examples"] for one in processes)
                with goodput.spent("evaluation"):
                    params = merge_adapters(state.params) if due else state.params
                    evaluation, tables = evaluate(due, params, step, device_mesh, logged=scalars)
                    del params
                scalars |= evaluation
                if scalars:
                    for tracker in trackers:
                        tracker.scalars(step, scalars)
                    report.show(step, scalars, checkpoint.best_metric)
                for tracker in trackers:
                    for name, rows in tables.items():
                        tracker.table(name, rows)
                if scalars and stops_early.patience:
                    enough = stops_early.reason(json_lines.rows)  # process 0 has them
                    enough = distributed.gather_json({"reason": enough})[0]["reason"]
                if saving or enough:
                    records = {"run": session.read_run_info(folder), "rows": json_lines.rows}
                    records["goodput"] = goodput.state(finished=last or bool(enough))
                    with goodput.spent("checkpoints"):
                        checkpoints.save(step, state, {"processes": processes}, evaluation, records)
                if stopping or enough:
                    break
            checkpoints.wait()
            checkpoints.check_saved(step, abstract)
            if step >= train_steps or enough:
                outcome = _outcome(enough)
                how, colon, why = outcome.partition(":")
                last_checkpoint = folder / FOLDER / str(step)
                report.note(
                    f"{how} at step {step:,}{colon}{why}; last checkpoint {last_checkpoint}"
                )
                metric = checkpoint.best_metric
                for best, value in list(checkpoints.evaluated().items())[:1]:
                    report.note(f"best by {metric} ({value:.5g}): {folder / FOLDER}/{best}")
                is_asked_for = checkpoint.keep_best and metric != CheckpointConfig.best_metric
                if is_asked_for and not any(metric in row for row in json_lines.rows):
                    report.note(
                        f"warning: no evaluation gave {metric}, so that it chose no checkpoint; "
                        "tasks that failed have their reasons above"
                    )
            else:
                outcome = f"stopped by {stop.signal_name}"
                report.note(
                    f"{outcome} at step {step:,}; saved. Give the same command again to resume."
                )


def _outcome(enough: str | None) -> str:
    """That of a complete run; `enough`: why it stopped early."""
    return f"{STOPPED_EARLY}: {enough}" if enough else FINISHED


def _to_continue(enough: str | None) -> str:
    if enough:
        return f"{_outcome(enough)}. Raise EARLY_STOPPING_PATIENCE, or set it to None, to continue."
    return "raise TRAIN_STEPS to continue."


def _check_unused(folder: Path, initial_path: str | None) -> None:
    """Raises UserError if the folder of a new run holds parameters that are no checkpoint of it.

    The run would not start from them unless `initial_path` says so; converted parameters would also
    hide the run's own checkpoints from `eval`, `infer` and `convert`.
    """
    try:
        found = detect(folder)
    except UserError:
        return
    has_weights = found.kind in (native.KIND, t5x.KIND) or any(folder.glob("*.safetensors"))
    if has_weights and (found.kind == native.KIND or initial_path is None):
        raise UserError(
            f"MODEL_DIR {str(folder)!r} holds {KINDS[found.kind]} that is none of a run there. "
            f"Give another MODEL_DIR, and --gin.INITIAL_CHECKPOINT_PATH={found.place} to start "
            "from it."
        )


def _earlier_choice(now: CheckpointConfig, folder: Path) -> CheckpointConfig | None:
    """By what the run chose its best checkpoint so far, if that differs from now."""
    run = session.read_run_info(folder)
    earlier = dataclasses.replace(
        now,
        best_metric=run.get("best_metric", now.best_metric),
        best_is_lowest=run.get("best_is_lowest", now.best_is_lowest),
    )
    is_same = (earlier.best_metric, earlier.lowest) == (now.best_metric, now.lowest)
    return None if is_same else earlier


def _pinned_line(earlier: CheckpointConfig, now: CheckpointConfig, checkpoint: Path) -> str:
    then, since = (
        f"the {'lowest' if one.lowest else 'highest'} {one.best_metric}" for one in (earlier, now)
    )
    return (
        f"the best checkpoint was that of {then} and is now that of {since}; the earlier one is "
        f"kept until you delete {checkpoint / PINNED}"
    )


def _initial_settings(path: str | None, mapping: Sequence[tuple[str, str | None]]) -> dict:
    """Settings that affect results; without a mapping just the path, as earlier runs recorded."""
    if mapping and not path:
        raise UserError("train.initial_mapping needs INITIAL_CHECKPOINT_PATH; give both or none.")
    settings: dict[str, Any] = {"initial_checkpoint_path": path}
    return settings | ({"initial_mapping": [list(pair) for pair in mapping]} if mapping else {})


def _first_state(network, first, abstract, seed: int, initial, data, say) -> TrainState:
    """State 0 on the mesh, from a checkpoint's parameters or drawn from `seed`.

    `first` makes it of the parameters of the base model.
    """
    path = initial["initial_checkpoint_path"]
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    if path:
        start = jax.jit(first, out_shardings=shardings, donate_argnums=0)
        params = load_initial(
            path,
            without_adapters(abstract.params),
            network.config,
            mapping=initial.get("initial_mapping", ()),
            init_fn=lambda: network.init(jax.random.key(seed)),
            vocabulary=data.vocabulary,
            say=say,
        )
        return start(params)
    draw = jax.jit(lambda key: first(network.init(key)), out_shardings=shardings)
    return draw(jax.random.key(seed))
