"""`train`: one run, from its configuration to its last checkpoint."""

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from instruct import peak
from instruct.batch import batch_shapes
from instruct.checkpoints.checkpoint import CheckpointConfig, CheckpointStore
from instruct.checkpoints.checkpoint_files import FOLDER
from instruct.checkpoints.loading import load_initial
from instruct.checkpoints.train_state import TrainState
from instruct.data.config import DataConfig
from instruct.data.feed.preview import target_faults
from instruct.data.vocab import load_vocabulary
from instruct.errors import UserError
from instruct.fields import LARGEST, Range, check_arguments
from instruct.files import replace_file
from instruct.mesh import (
    MeshConfig,
    batch_sharding,
    check_batch_size,
    make_mesh,
    replicated_sharding,
    with_shardings,
)
from instruct.models.config import ModelConfig
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.summaries import Summaries
from instruct.train import session
from instruct.train.inputs import Inputs, gather_states, open_inputs, task_groups
from instruct.train.loss import LossConfig, LossTotals, make_loss_fn
from instruct.train.metrics import IntervalMetrics, Stopwatch, eval_names, eval_scalars
from instruct.train.optimizer import OptimizerConfig, make_optimizer
from instruct.train.preemption import StopRequest
from instruct.train.progress import ProgressReport
from instruct.train.state import abstract_state, init_state, state_shardings
from instruct.train.step import make_eval_step, make_train_step


def train(
    model: ModelConfig,
    data: DataConfig,
    *,
    model_dir: str,
    train_steps: Annotated[int, Range(least=1)],
    mesh: MeshConfig = MeshConfig(),  # noqa: B008 (frozen)
    loss: LossConfig = LossConfig(),  # noqa: B008 (frozen)
    optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008 (frozen)
    checkpoint: CheckpointConfig = CheckpointConfig(),  # noqa: B008 (frozen)
    seed: Annotated[int, Range(least=0, most=LARGEST, note=" (SEED)")] = 0,
    num_microbatches: Annotated[int, Range(least=1)] = 1,
    log_every_steps: Annotated[int, Range(least=1)] = 10,
    eval_every_steps: Annotated[int | None, Range(least=1)] = 1000,
    num_eval_examples: int = 512,
    initial_checkpoint_path: str | None = None,
    initial_mapping: Sequence[tuple[str, str | None]] = (),
    tensorboard: bool = True,
    strict: bool = False,
    texts: Mapping[str, str] | None = None,
    open_inputs: Callable[..., Inputs] = open_inputs,
) -> None:
    """Trains, or goes on where the run in `model_dir` stopped. Bound by gin.

    A resumed run computes bit for bit what an uninterrupted one would have.

    Args:
        model, data, mesh, loss, optimizer, checkpoint: see there.
        model_dir: folder of the run.
        train_steps: updates in all, those before a resume included.
        seed: of initialisation and dropout (data have their own).
        num_microbatches: parts a batch is worked off in; memory and speed only.
        log_every_steps: a line of metrics.jsonl each; also the last step.
        eval_every_steps: teacher-forced loss on the validation split each, and at the last step;
            None: never.
        num_eval_examples: examples of that loss.
        initial_checkpoint_path, initial_mapping: parameters to start from, see `load_initial`; not
            read when the run goes on, but must be given as at the first start.
        tensorboard, texts: write TensorBoard's files; further ones (name -> content).
        strict: a damaged newest checkpoint is an error; else it is moved aside and the run resumes
            from the newest whole one.
        open_inputs: (data, vocabulary size, evaluation examples, console) -> `Inputs`.

    Raises:
        UserError: something is set wrongly, or `model_dir` holds another run.
        TrainingDiverged: a loss is not finite; the last checkpoint is from before.
        OSError: the storage failed; older checkpoints are whole.
    """
    check_arguments(train, locals())
    if data.batch_size % num_microbatches:
        raise UserError(
            f"a batch of {data.batch_size} rows does not divide into {num_microbatches} "
            "microbatches; change BATCH_SIZE or train.num_microbatches."
        )
    folder = session.make_model_dir(model_dir)
    console = Console(stderr=True, quiet=jax.process_index() != 0, highlight=False)

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    # Devices.
    device_mesh = make_mesh(mesh)
    check_batch_size(device_mesh, data.batch_size, num_microbatches)
    matmul_peak = peak.matmul_peak(model.dtype, list(device_mesh.devices.flat))

    # What was here before.
    initial = _initial_settings(initial_checkpoint_path, initial_mapping)
    config = session.results_config(
        model=model, data=data, loss=loss, optimizer=optimizer, seed=seed, **initial
    )
    checkpoints = CheckpointStore(folder / FOLDER, checkpoint)
    has_checkpoints = bool(checkpoints.latest_step())
    if has_checkpoints:
        session.restore_run_file(folder, checkpoints.recorded_run(), say)
        session.check_same_run(folder, config)

    # State to resume from; a damaged checkpoint is noticed here.
    network = EncoderDecoder(model)
    update_rule, shapes = make_optimizer(optimizer), network.abstract_params()
    shardings = state_shardings(device_mesh, optimizer, shapes)
    abstract = with_shardings(abstract_state(shapes, update_rule), shardings)
    resumed = checkpoints.resume_newest(abstract, strict, say) if has_checkpoints else None
    start = resumed.step if resumed else 0
    optimizer.check_start(start)
    if start >= train_steps:
        text = f"{folder} is already at step {start:,}; raise TRAIN_STEPS to go on."
        console.print(text, markup=False, soft_wrap=True)
        return
    checkpoints.check_folder()

    # Data.
    num_held = num_eval_examples if eval_every_steps else 0
    inputs = open_inputs(data, model.vocab_size, num_held, console)
    group_names, leaf_groups = task_groups(inputs.leaves)
    meter = IntervalMetrics(group_names)
    checkpoint.check_best_metric(eval_names(group_names))

    # State: resumed, else from a checkpoint's parameters, else fresh.
    if resumed:
        state = resumed.state
        _restore_inputs(inputs, meter, resumed.input)
    else:
        state = _first_state(network, update_rule, abstract, seed, initial, say)

    # Programs.
    loss_fn = make_loss_fn(network.decoder_hidden, network.head_kernel, loss, leaf_groups)
    factor = loss.loss_normalizing_factor
    step_fn = make_train_step(loss_fn, update_rule, num_microbatches, seed, factor)
    programs = _compile(step_fn, make_eval_step(loss_fn), device_mesh, abstract, data)

    # Records of the run.
    info = session.run_info(model, device_mesh, matmul_peak)
    info |= {"config": config, "compile_secs": programs.compile_secs}
    rows = resumed.records.get("rows") if resumed else None
    summaries = _open_records(folder, texts or {}, info, start, tensorboard, rows, say)
    step_flops = model.train_flops(data.batch_size, *data.lengths)
    step, outcome, watch, pending = start, "failed", Stopwatch(), None

    def save(step: int, metrics: Mapping[str, float] | None) -> None:
        own = {"feed": inputs.feed.state(), "metrics": meter.state()}
        records = {"run": session.read_run_info(folder), "rows": summaries.rows}
        checkpoints.save(step, state, {"processes": gather_states(own)}, metrics, records)
        _write_mixture(folder, data, inputs)

    try:
        with ProgressReport(start, train_steps, console) as report, StopRequest() as stop:
            report.note(_greeting(model, device_mesh, start, train_steps, programs, folder))
            while step < train_steps:
                watch.go()
                batch, info = next(inputs.feed)
                if step == start:
                    for fault in target_faults(batch, load_vocabulary(data.vocabulary)):
                        report.note(f"warning: {fault}")
                state, metrics = programs.train(state, _to_devices(device_mesh, batch))
                step += 1
                # One step late: the devices work while the last step's numbers are looked at.
                if pending is not None:
                    meter.add(*pending)
                pending = (step, metrics, info.task_counts, info.num_examples)
                stopping, last = stop.at(step), step == train_steps
                log = step % log_every_steps == 0 or last
                evaluate = bool(inputs.eval_batches) and (_due(step, eval_every_steps) or last)
                saving = _due(step, checkpoint.save_every_steps) or last or stopping
                report.advance(step)
                if not (log or evaluate or saving):
                    continue
                meter.add(*pending)
                pending = None
                watch.pause()
                scalars, evaluation = {}, None
                if log:
                    scalars = _speeds(meter, watch.lap(), step_flops, matmul_peak) | meter.scalars()
                    meter.clear()
                if evaluate:
                    evaluation = _evaluate(programs.eval, state, device_mesh, inputs, group_names)
                    scalars |= evaluation
                if scalars:
                    summaries.write(step, scalars)
                    report.show(step, scalars)
                    _write_mixture(folder, data, inputs)
                if saving:
                    save(step, evaluation)
                if stopping:
                    break
            checkpoints.wait()
            checkpoints.check_saved(step, abstract)
            outcome = "finished" if step >= train_steps else f"stopped by {stop.signal_name}"
            report.note(_farewell(outcome, step, folder))
    finally:
        with contextlib.ExitStack() as stack:  # each is done whatever the others raise
            stack.callback(checkpoints.close)
            if jax.process_index() == 0:
                stack.callback(session.end_run, folder, step, outcome)
            stack.callback(summaries.close)
            stack.callback(inputs.feed.close)


class Programs(NamedTuple):
    """Compiled once: (state, batch) -> (state, metrics), and (params, batch) -> totals."""

    train: Callable[..., tuple[TrainState, Any]]
    eval: Callable[..., Any]
    compile_secs: float


def _initial_settings(path: str | None, mapping: Sequence[tuple[str, str | None]]) -> dict:
    """What results hang on; without a mapping just the path, as runs recorded it before."""
    found: dict[str, Any] = {"initial_checkpoint_path": path}
    if mapping and not path:
        raise UserError("train.initial_mapping needs INITIAL_CHECKPOINT_PATH; give both or none.")
    return found | ({"initial_mapping": [list(pair) for pair in mapping]} if mapping else {})


def _first_state(network, update_rule, abstract, seed: int, initial, say) -> TrainState:
    """State 0 laid out over the mesh, from a checkpoint's parameters or drawn from `seed`."""
    path = initial["initial_checkpoint_path"]
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    if path:
        start = jax.jit(
            lambda params: init_state(params, update_rule),
            out_shardings=shardings,
            donate_argnums=0,
        )
        params = load_initial(
            path,
            abstract.params,
            network.config,
            mapping=initial.get("initial_mapping", ()),
            init_fn=lambda: network.init(jax.random.key(seed)),
            say=say,
        )
        return start(params)
    draw = jax.jit(lambda key: init_state(network.init(key), update_rule), out_shardings=shardings)
    return draw(jax.random.key(seed))


def _open_records(
    folder: pathlib.Path, texts, info, start: int, tensorboard: bool, rows, say
) -> Summaries:
    """The run's files besides checkpoints; only the first process writes."""
    if jax.process_index() != 0:
        return Summaries(None)
    for name, text in texts.items():
        replace_file(folder / name, text)
    session.start_run(folder, info, start)
    return Summaries(folder, start, tensorboard, rows, say)


def _compile(train_step, eval_step, mesh, abstract: TrainState, data: DataConfig) -> Programs:
    """Ahead of the first batch, so that no step is slow and none is ever traced again."""
    shapes = batch_shapes(data.batch_size, *data.lengths)
    rows = batch_sharding(mesh)
    batch = {k: jax.ShapeDtypeStruct(s, jnp.int32, sharding=rows) for k, s in shapes.items()}
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    whole = replicated_sharding(mesh)
    started = time.perf_counter()
    with jax.set_mesh(mesh):
        train = jax.jit(train_step, donate_argnums=0, out_shardings=(shardings, whole))
        evaluate = jax.jit(eval_step, out_shardings=whole)
        compiled = train.lower(abstract, batch).compile()
    return Programs(compiled, evaluate, time.perf_counter() - started)


def _to_devices(mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """This process's rows as its share of global arrays."""
    rows = batch_sharding(mesh)
    return {k: jax.make_array_from_process_local_data(rows, v) for k, v in batch.items()}


def _restore_inputs(inputs: Inputs, meter: IntervalMetrics, saved: Mapping[str, Any]) -> None:
    processes: Sequence[Mapping[str, Any]] = saved["processes"]
    if not processes:  # converted from a T5X checkpoint with its slots: the data begin here
        return
    if len(processes) != jax.process_count():
        raise UserError(
            f"the checkpoint was written by {len(processes)} processes, now there are "
            f"{jax.process_count()}; the number must stay, or the data would differ. To go on "
            "anyway, start a new MODEL_DIR with INITIAL_CHECKPOINT_PATH."
        )
    own = processes[jax.process_index()]
    inputs.feed.restore(own["feed"])
    meter.restore(own["metrics"])


def _evaluate(eval_step, state, mesh, inputs: Inputs, group_names) -> dict[str, float]:
    found: list[LossTotals] = []
    with jax.set_mesh(mesh):
        for batch in inputs.eval_batches:
            totals = eval_step(state.params, _to_devices(mesh, batch))
            # One batch late, and added on the host: of the CPU's fake devices one may otherwise
            # have its limit of 32 programs in flight, and the others wait for it for ever.
            found[-1:] = jax.device_get(found[-1:])
            found.append(totals)
    return eval_scalars(functools.reduce(LossTotals.add, jax.device_get(found)), group_names)


def _speeds(meter: IntervalMetrics, secs: float, step_flops: float, peak_flops: float) -> dict:
    step_secs = secs / meter.timed_steps
    return {
        "real_tokens_per_sec": meter.timed_tokens / secs,
        "step_secs": step_secs,
        "peak_share": step_flops / step_secs / peak_flops,
    }


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def _write_mixture(folder: pathlib.Path, data: DataConfig, inputs: Inputs) -> None:
    if jax.process_index() == 0:
        statistics = {"mixture": data.mixture} | inputs.feed.statistics()
        session.write_json(folder / session.MIXTURE_FILE, statistics)


def _greeting(model, mesh, start, train_steps, programs: Programs, folder) -> str:
    begin = f"goes on from step {start:,}" if start else "starts"
    shape = " x ".join(f"{name} {size}" for name, size in mesh.shape.items())
    return (
        f"{folder} {begin}, {train_steps:,} steps: {model.num_params():,} parameters on "
        f"{mesh.size} {mesh.devices.flat[0].platform} device(s) ({shape}); compiled in "
        f"{programs.compile_secs:.1f} s"
    )


def _farewell(outcome: str, step: int, folder: pathlib.Path) -> str:
    if outcome != "finished":
        return f"{outcome} at step {step:,}; saved. Give the same command again to go on."
    return f"finished at step {step:,}; last checkpoint {folder / FOLDER / str(step)}"
