"""A feed that needs no stores: batches drawn from (seed, number), with `TrainFeed`'s protocol.

Run as a program it trains a tiny model, for tests that kill a process:

    python -m tests.train.stand_in MODEL_DIR TRAIN_STEPS [--save-every N] [--hang-in-save N] ...
"""

import argparse
import json
import os
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from instruct.data.config import DataConfig
from instruct.mesh import MeshConfig
from instruct.train import checkpoint, loop
from instruct.train.inputs import Inputs
from instruct.train.optimizer import OptimizerConfig
from tests.train.batches import packed_batch, tiny_config

LEAVES = ("toy.copy.zs_noopt", "toy.sort.zs_noopt", "bench.add.zs_noopt")
DATA = DataConfig("toy", {"inputs": 12, "targets": 10}, batch_size=8, vocabulary="bytes")


class ToyLeaf(NamedTuple):
    name: str
    family: str
    category: str


class ToyInfo(NamedTuple):
    task_counts: dict[str, int]
    num_examples: int


class ToyFeed:
    """Batch n is `packed_batch(n)`; `bad_batch` has a loss weight that makes the loss infinite."""

    def __init__(self, bad_batch: int | None = None) -> None:
        self.position = 0
        self.bad_batch = bad_batch

    def __next__(self):
        batch = packed_batch(self.position)
        if self.position == self.bad_batch:
            batch["decoder_loss_weights"][:] = np.iinfo(np.int32).max
        self.position += 1
        return batch, ToyInfo({name: 16 // 3 + i for i, name in enumerate(LEAVES)}, 16)

    def state(self) -> dict[str, Any]:
        return {"position": self.position}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.position = state["position"]

    def statistics(self) -> dict[str, Any]:
        return {"leaves": [{"name": name, "asked": 1 / 3} for name in LEAVES], "kept": 16}

    def close(self) -> None:
        pass


def leaves() -> list[ToyLeaf]:
    return [ToyLeaf(name, name.split(".")[0], name.split(".")[1]) for name in LEAVES]


def open_toy(data, vocab_size, num_eval_examples, console, feed=None) -> Inputs:
    """`open_inputs` of the tests: two evaluation batches, whatever is asked for."""
    held = [packed_batch(1000), packed_batch(1001)] if num_eval_examples else []
    return Inputs(feed or ToyFeed(), held, leaves())


def arguments(model_dir, train_steps: int, **changes: Any) -> dict[str, Any]:
    """Arguments of `train` for a run of seconds, dropout on."""
    return {
        "model": tiny_config(dropout_rate=0.1),
        "data": DATA,
        "mesh": MeshConfig(),
        "optimizer": OptimizerConfig(learning_rate=0.01, min_factored_size=16),
        "checkpoint": checkpoint.CheckpointConfig(save_every_steps=4),
        "model_dir": str(model_dir),
        "train_steps": train_steps,
        "log_every_steps": 1,
        "eval_every_steps": 4,
        "tensorboard": False,
        "open_inputs": open_toy,
    } | changes


def _hang_in_save(step: int) -> None:
    """From the save of `step` on, writing stops with some files on disk, and the file HUNG."""
    from orbax.checkpoint import JsonCheckpointHandler

    original = checkpoint.CheckpointStore.save

    def save(self, at, *rest):
        if at == step:

            async def hang(*args, **kwargs):
                (self.folder.parent / "HUNG").touch()
                time.sleep(600)

            JsonCheckpointHandler.async_save = hang
        return original(self, at, *rest)

    checkpoint.CheckpointStore.save = save


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model_dir")
    parser.add_argument("train_steps", type=int)
    parser.add_argument("--changes", type=json.loads, default={})
    parser.add_argument("--hang-in-save", type=int)
    parser.add_argument("--slow", type=float, default=0.0)
    flags = parser.parse_args()
    cache = os.environ.get("TOY_CACHE")
    if cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    loop.peak.matmul_peak = lambda *args: 1e11
    if flags.hang_in_save:
        _hang_in_save(flags.hang_in_save)
    original = ToyFeed.__next__

    def slow_next(self):
        time.sleep(flags.slow)
        return original(self)

    ToyFeed.__next__ = slow_next
    loop.train(**arguments(flags.model_dir, flags.train_steps, **flags.changes))


if __name__ == "__main__":
    main()
