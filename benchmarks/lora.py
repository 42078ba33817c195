"""Bytes of state and seconds of a step: LoRA, full finetuning, and both with transformers and PEFT.

    PYTHONPATH=. python benchmarks/lora.py --rank=8
    PYTHONPATH=. python benchmarks/lora.py --size=tiny --repeats=2     # tries the script

One process, float32, AdamW, no dropout, the same weights and tokens for all four, attention kernels
adapted. Steps take turns, since machines are shared and noisy: compare ratios of the medians. Bytes
are what stays between steps, (parameters, gradients of what is trained, optimiser state): torch
keeps gradients until the next step, XLA inside a step only. peft is in the extra `test`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import peft
import torch

from benchmarks import peer
from benchmarks.train_step import make_batch
from instruct.capacity.memory import memory_bytes
from instruct.models.adapters import without_adapters
from instruct.models.config import ModelConfig
from instruct.models.model import make_model
from instruct.train.lora import LoraConfig
from instruct.train.loss import LossConfig, make_loss_fn
from instruct.train.optimizer import OptimizerConfig, make_optimizer
from instruct.train.step import init_state, make_train_step
from instruct.train.trained import sizes_of, split_params, trained_paths

SIZES = {
    "tiny": ({"d_model": 32, "num_heads": 2, "head_dim": 16, "d_ff": 64}, 2, (2, 16, 8)),
    "small": ({"d_model": 256, "num_heads": 4, "head_dim": 64, "d_ff": 512}, 4, (8, 256, 64)),
    "base": ({"d_model": 768, "num_heads": 12, "head_dim": 64, "d_ff": 2048}, 12, (4, 256, 64)),
}
RATE = 1e-4

Step = Callable[[], float]  # one update; returns the loss


def ours(config: ModelConfig, batch: Any, rank: int) -> tuple[Step, dict[str, int], Any]:
    """(an update, its bytes, base parameters) of this program; rank 0 trains everything."""
    model, lora = make_model(config), LoraConfig(rank=rank)
    optimizer = make_optimizer(OptimizerConfig(name="adamw", learning_rate=RATE))
    trained = trained_paths(lora.add(model.abstract_params(), 0), None)
    start = jax.jit(lambda key: init_state(lora.add(model.init(key), 0), optimizer, trained))
    loss_fn = lora.loss(make_loss_fn(model, LossConfig(z_loss=0.0)))
    step_fn = make_train_step(loss_fn, optimizer, 1, 0, None, trained)
    state = start(jax.random.key(0))
    base = jax.device_get(without_adapters(state.params))
    compiled = jax.jit(step_fn, donate_argnums=0).lower(state, batch).compile()
    sizes = {
        "parameters": total_bytes(state.params),
        "gradients": total_bytes(split_params(state.params, trained)[0]),
        "optimiser": total_bytes(state.opt_state),
        "temporaries": memory_bytes(compiled)["temporaries"],
        "trained": sizes_of(state, trained)["num_params_trained"],
    }

    def update() -> float:
        nonlocal state
        state, metrics = compiled(state, batch)
        return float(metrics.losses.loss.value)

    return update, sizes, base


def total_bytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def theirs(config: ModelConfig, base: Any, batch: Any, rank: int) -> tuple[Step, dict[str, int]]:
    """The same from our base parameters with transformers and, with a rank, PEFT."""
    model = peer.load(config, base, dropout_rate=0.0)
    if rank:
        chosen = {"r": rank, "lora_alpha": 16, "target_modules": ["q", "k", "v", "o"]}
        model = peft.get_peft_model(model, peft.LoraConfig(**chosen))
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    inputs, fed, labels = (
        torch.tensor(np.asarray(batch[name]), dtype=torch.long)
        for name in ("encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens")
    )

    def update() -> float:
        loss = model(input_ids=inputs, decoder_input_ids=fed, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    update()  # makes the optimiser's state
    moments = [value for state in optimizer.state.values() for value in state.values()]
    return update, {
        "parameters": sum(p.nbytes for p in model.parameters()),
        "gradients": sum(p.grad.nbytes for p in parameters if p.grad is not None),
        "optimiser": sum(value.nbytes for value in moments),
        "trained": sum(p.numel() for p in parameters),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=10)
    flags = parser.parse_args()
    sizes, depth, shape = SIZES[flags.size]
    layers = {"num_encoder_layers": depth, "num_decoder_layers": depth}
    config = ModelConfig(vocab_size=flags.vocab, dropout_rate=0.0, **sizes, **layers)
    batch = make_batch(flags.vocab, False, *shape)
    steps: dict[str, Step] = {}
    facts: dict[str, dict[str, Any]] = {}
    steps["full"], facts["full"], base = ours(config, batch, 0)
    steps["lora"], facts["lora"], _ = ours(config, batch, flags.rank)
    for name, rank in (("transformers full", 0), ("peft", flags.rank)):
        steps[name], facts[name] = theirs(config, base, batch, rank)
    losses = {name: [step()] for name, step in steps.items()}  # the first round warms up
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(flags.repeats):
        for name, step in steps.items():
            started = time.perf_counter()
            losses[name].append(step())
            times[name].append(time.perf_counter() - started)
    for name, fact in facts.items():
        fact["state_mb"] = round((fact["parameters"] + fact["optimiser"]) / 1e6, 2)
        fact["step_secs"] = round(statistics.median(times[name]), 4)
        fact["losses"] = [round(losses[name][0], 4), round(losses[name][-1], 4)]
    shape = dict(zip(("rows", "inputs", "targets"), shape))
    conditions = vars(flags) | shape | {"device": jax.devices()[0].device_kind}
    print(json.dumps(conditions))
    for name, fact in facts.items():
        print(f"{name:18} {json.dumps(fact)}")
    secs = {name: fact["step_secs"] for name, fact in facts.items()}
    print(
        f"step: lora / full {secs['lora'] / secs['full']:.2f}, lora / peft "
        f"{secs['lora'] / secs['peft']:.2f}, full / transformers full "
        f"{secs['full'] / secs['transformers full']:.2f}; state: lora / full "
        f"{facts['lora']['state_mb'] / facts['full']['state_mb']:.2f}, peft / lora "
        f"{facts['peft']['state_mb'] / facts['lora']['state_mb']:.2f}"
    )


if __name__ == "__main__":
    main()
