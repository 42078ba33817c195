"""Loss that LoRA reaches beside full finetuning, on a task of made-up tokens.

    PYTHONPATH=. python benchmarks/lora_loss.py

A small T5 first learns to copy and to reverse a sequence, told by its first token. Then it is
finetuned, fully and with adapters of its attention kernels, to reverse and end with the second
token again instead of the first, told by another token. The loss is of held-out sequences, without
z-loss.
"""

import argparse
import json
import time
from typing import Any

import jax
import numpy as np

from instruct.batch import ENCODER_DECODER
from instruct.models.config import ModelConfig
from instruct.models.model import make_model
from instruct.train.lora import LoraConfig
from instruct.train.loss import LossConfig, make_loss_fn
from instruct.train.optimizer import OptimizerConfig, make_optimizer
from instruct.train.step import init_state, make_eval_step, make_train_step
from instruct.train.trained import sizes_of, trained_paths

VOCAB, LENGTH = 32, 8
COPY, REVERSE, TUNED = 2, 3, 4
CONFIG = ModelConfig(
    vocab_size=VOCAB,
    d_model=64,
    num_heads=4,
    head_dim=16,
    d_ff=128,
    num_encoder_layers=2,
    num_decoder_layers=2,
    dropout_rate=0.0,
)


def make_batch(draw: np.random.Generator, tasks: tuple[int, ...], rows: int) -> dict[str, Any]:
    """Sequences with one of the tasks each; no padding."""
    shapes = ENCODER_DECODER.shapes(rows, LENGTH + 1, LENGTH)
    batch = {name: np.zeros(shape, np.int32) for name, shape in shapes.items()}
    tokens, task = draw.integers(8, VOCAB, (rows, LENGTH)), draw.choice(tasks, rows)
    turned = tokens[:, ::-1].copy()
    turned[task == TUNED, -1] = tokens[task == TUNED, 1]
    targets = np.where((task == COPY)[:, None], tokens, turned)
    batch["encoder_input_tokens"] = np.hstack([task[:, None], tokens]).astype(np.int32)
    batch["decoder_target_tokens"] = targets.astype(np.int32)
    batch["decoder_input_tokens"] = np.pad(targets, ((0, 0), (1, 0)))[:, :-1].astype(np.int32)
    batch["decoder_loss_weights"] = np.ones((rows, LENGTH), np.int32)
    for side, length in (("encoder", LENGTH + 1), ("decoder", LENGTH)):
        batch[f"{side}_segment_ids"] = np.ones((rows, length), np.int32)
        batch[f"{side}_positions"] = np.tile(np.arange(length, dtype=np.int32), (rows, 1))
    return batch


def trained_state(params: Any, rank: int, rate: float, tasks: tuple[int, ...], steps: int) -> Any:
    """(state after `steps` updates of 64 sequences, held-out loss, facts)."""
    model, lora = make_model(CONFIG), LoraConfig(rank=rank)
    optimizer = make_optimizer(
        OptimizerConfig(name="adamw", learning_rate=rate, schedule="linear_warmup", warmup_steps=50)
    )
    params = jax.jit(lambda params: lora.add(params, 0))(params)
    trained = trained_paths(params, None)
    loss_fn = make_loss_fn(model, LossConfig(z_loss=0.0))
    step_fn = jax.jit(make_train_step(loss_fn, optimizer, 1, 0, trained=trained))
    state, draw = init_state(params, optimizer, trained), np.random.default_rng(1)
    started = time.perf_counter()
    for _ in range(steps):
        state, _ = step_fn(state, make_batch(draw, tasks, 64))
    held = make_batch(np.random.default_rng(2), tasks[-1:], 512)
    totals = jax.jit(make_eval_step(loss_fn))(state.params, held)
    facts = {
        "held_out_loss": round(float(totals.loss.value), 4),
        "accuracy": round(float(totals.accuracy.value), 4),
        "trained": sizes_of(state, trained)["num_params_trained"],
        "secs": round(time.perf_counter() - started, 1),
    }
    return state, facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--first_steps", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=1000)
    flags = parser.parse_args()
    print(json.dumps(vars(flags)))
    fresh = jax.jit(make_model(CONFIG).init)(jax.random.key(0))
    base, facts = trained_state(fresh, 0, 2e-3, (COPY, REVERSE), flags.first_steps)
    print("base, reverse     ", json.dumps(facts))
    for name, rank, rate in (("full", 0, 1e-3), ("lora", flags.rank, 3e-3)):
        _, facts = trained_state(base.params, rank, rate, (TUNED,), flags.steps)
        print(f"{name} finetuning   ", json.dumps(facts | {"rate": rate}))


if __name__ == "__main__":
    main()
