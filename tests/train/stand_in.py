"""Runs of seconds: a tiny model, and either made-up batches or real stores of toy tasks.

As a program it trains on real stores, for tests that kill a process:

    python -m tests.train.stand_in MODEL_DIR TRAIN_STEPS [--hang-in-save STEP] [--hold STEP]
        [--mesh data=2,fsdp=2] [--lanes N] [--layout decoder_only] [--rank OF_ADAPTERS]
        [--process COORDINATOR NUM_PROCESSES PROCESS_ID]
"""

import argparse
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax._src import cache_key
from jax._src.distributed import global_state as jax_state
from orbax.checkpoint import JsonCheckpointHandler

from instruct import distributed
from instruct.checkpoints import checkpoint
from instruct.data.config import DataConfig
from instruct.data.feed.pipeline import TrainFeed, eval_batches, own_lanes
from instruct.data.spec import Resolved
from instruct.data.stores.prepare import prepare_once
from instruct.mesh import parse_mesh
from instruct.train import loop
from instruct.train.inputs import Inputs
from instruct.train.lora import LoraConfig
from instruct.train.optimizer import OptimizerConfig
from instruct.train.preemption import StopRequest
from tests.data.toy import ToySource, toy_config, toy_leaf, toy_spec
from tests.train.batches import packed_batch, tiny_config, tiny_decoder
from tests.waiting import wait_until
from tests.workspaces import workspace

LEAVES = ("toy.copy.zs_noopt", "toy.sort.zs_noopt", "bench.add.zs_noopt")
DATA = DataConfig("toy", {"inputs": 12, "targets": 10}, batch_size=8, vocabulary="bytes")
ONE_LAYER = {"num_encoder_layers": 1, "num_decoder_layers": 1}
# The models of the program, by the layout of their batches.
MODELS = {
    "encoder_decoder": tiny_config(dropout_rate=0.1, vocab_size=384, **ONE_LAYER),
    "decoder_only": tiny_decoder(dropout_rate=0.1, vocab_size=384),
}


class ToyLeaf(NamedTuple):
    """What the loop asks of a leaf."""

    name: str
    family: str
    category: str


class ToyInfo(NamedTuple):
    """What the loop asks of a `BatchInfo`."""

    task_counts: dict[str, int]
    num_examples: int


class ToyFeed:
    """Batch n is `packed_batch(n)`; `spoil(n, batch)` may change it. Has `TrainFeed`'s protocol."""

    def __init__(self, spoil=lambda number, batch: None) -> None:
        self.position = 0
        self.closed = False
        self._spoil = spoil

    def __next__(self) -> tuple[dict[str, np.ndarray], ToyInfo]:
        batch = packed_batch(self.position)
        self._spoil(self.position, batch)
        self.position += 1
        return batch, ToyInfo({name: 3 + i for i, name in enumerate(LEAVES)}, 12)

    def state(self) -> dict[str, Any]:
        return {"position": self.position}

    def restore(self, states: Sequence[Mapping[str, Any]]) -> None:
        self.position = states[0]["position"]

    def statistics(self, states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {"leaves": [{"name": name, "asked": 1 / 3} for name in LEAVES]}

    def close(self) -> None:
        self.closed = True


def toy_leaves() -> list[ToyLeaf]:
    """Two families, so that losses are shown by family."""
    return [ToyLeaf(name, *name.split(".")[:2]) for name in LEAVES]


def open_toy(feed: ToyFeed | None = None):
    """An `open_inputs` over `feed`, with two evaluation batches."""

    def open_inputs(data, vocab_size, num_eval_examples, console, rows) -> Inputs:
        held = [packed_batch(1000), packed_batch(1001)] if num_eval_examples else []
        return Inputs(feed or ToyFeed(), held, toy_leaves())

    return open_inputs


def arguments(model_dir, train_steps: int, **changes: Any) -> dict[str, Any]:
    """Arguments of `train` for a run of seconds, dropout on."""
    return {
        "model": tiny_config(dropout_rate=0.1, **ONE_LAYER),
        "data": DATA,
        "optimizer": OptimizerConfig(learning_rate=0.01, min_factored_size=16),
        "checkpoint": checkpoint.CheckpointConfig(save_every_steps=4),
        "model_dir": str(model_dir),
        "train_steps": train_steps,
        "log_every_steps": 1,
        "eval_every_steps": 4,
        "trackers": (),
        "open_inputs": open_toy(),
    } | changes


def open_stores(data, vocab_size, num_eval_examples, console, rows) -> Inputs:
    """Real stores of two toy tasks, a real feed and real evaluation batches; no TensorFlow."""
    specs = [toy_spec(ToySource(tag), category=tag) for tag in ("some", "more")]
    splits = ("train", "validation")
    leaves = [toy_leaf(spec, rate, *splits) for spec, rate in zip(specs, (0.75, 0.25))]
    resolved = Resolved("toy", "train", tuple(leaves))
    prepare_once(workspace(), resolved, data, splits).check()
    own = rows[jax.process_index()]
    held = eval_batches(workspace(), data, resolved, "validation", num_eval_examples, own)
    lanes = own_lanes(data, rows, jax.process_index())
    return Inputs(TrainFeed(workspace(), data, resolved, lanes), held, leaves)


def _hang_in_save(step: int) -> None:
    """The save of `step` writes some of its files and then no more; the file HUNG says so."""
    save, async_save = checkpoint.CheckpointStore.save, JsonCheckpointHandler.async_save

    def watched(self, at, *rest):
        async def hang(handler, *args, **kwargs):
            await async_save(handler, *args, **kwargs)
            (self.folder.parent / "HUNG").touch()
            time.sleep(600)

        if at == step:
            JsonCheckpointHandler.async_save = hang
        return save(self, at, *rest)

    checkpoint.CheckpointStore.save = watched


def held_file(model_dir: str | os.PathLike, process: int) -> pathlib.Path:
    """Exists once that process of a run with `--hold` waits."""
    return pathlib.Path(f"{model_dir}-held{process}")


def _hold_until_stopped(model_dir: str, step: int) -> None:
    """The run waits after `step` until a signal asks it to stop, however late that comes."""
    at = StopRequest.at

    def is_asked(stop):
        if jax.process_count() == 1:
            return bool(stop.signal_name)
        try:  # the key of TSL's preemption service, which a step that it agreed on does not show
            return jax_state.client.key_value_try_get("RECEIVED_PREEMPTION_NOTICE")
        except jax.errors.JaxRuntimeError:  # not there yet
            return False

    def held(stop, at_step):
        if at_step == step:
            held_file(model_dir, jax.process_index()).touch()
            wait_until(lambda: is_asked(stop))
        return at(stop, at_step)

    StopRequest.at = held


def _compile_once_for_all_processes() -> None:
    """As on GPUs: else every process of CPUs compiles each program itself, in every run again.

    JAX writes the cache in process 0 only, under a key that holds the process's number on CPUs.
    """
    cache_key._hash_accelerator_config = cache_key._hash_devices
    jax.config.update("jax_share_binary_between_hosts", True)


def main() -> None:
    """Trains as the flags say; the compilation cache makes the second start fast."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model_dir")
    parser.add_argument("train_steps", type=int)
    parser.add_argument("--hang-in-save", type=int)
    parser.add_argument("--hold", type=int)
    parser.add_argument("--mesh", default="data=-1")
    parser.add_argument("--lanes", type=int, default=1)
    parser.add_argument("--layout", default="encoder_decoder")
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--process", nargs=3)
    flags = parser.parse_args()
    if flags.process:
        address, count, number = flags.process
        distributed.start(distributed.ClusterConfig(address, int(count), int(number)))
        _compile_once_for_all_processes()
    jax.config.update("jax_compilation_cache_dir", os.environ["TOY_CACHE"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    loop.peak.matmul_peak = lambda *_: 1e11
    if flags.hang_in_save:
        _hang_in_save(flags.hang_in_save)
    if flags.hold:
        _hold_until_stopped(flags.model_dir, flags.hold)
    loop.train(
        **arguments(
            flags.model_dir,
            flags.train_steps,
            model=MODELS[flags.layout],
            lora=LoraConfig(rank=flags.rank, dropout=0.1),
            data=toy_config("toy", lanes=flags.lanes, layout=flags.layout),
            mesh=parse_mesh(flags.mesh),
            checkpoint=checkpoint.CheckpointConfig(save_every_steps=3),
            log_every_steps=2,
            eval_every_steps=6,
            num_eval_examples=16,
            open_inputs=open_stores,
        )
    )
    distributed.barrier("end")
    distributed.leave(0)


if __name__ == "__main__":
    main()
