"""Speed of one training step beside the matrix-multiply peak of the same process.

    PYTHONPATH=. python benchmarks/train_step.py --vocab=32128 --dropout=0.1 --dtype=float32
    PYTHONPATH=. python benchmarks/train_step.py --shape=demo --packed

Shapes: T5 1.1 of 4 + 4 layers, d_model 256, on 16 rows of 256 source and 64 target tokens (`small`)
or 8 rows of 512 and 128 (`long`), and the model and rows of `make demo` (`demo`). Rows are not
padded unless --packed, which puts several examples of unequal length into each row and leaves some
padding. GFLOP/s count the model's matrix products, forward and backward; machines here are shared
and noisy, so compare shares of the peak, measured after every step (medians).
"""

import argparse
import itertools
import json
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from instruct import peak
from instruct.allocator import keep_freed_memory
from instruct.batch import ENCODER_DECODER
from instruct.checkpoints.train_state import TrainState
from instruct.models.config import ModelConfig
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.train.loss import LossConfig, make_loss_fn
from instruct.train.optimizer import OptimizerConfig, make_optimizer
from instruct.train.step import init_state, make_train_step

_SMALL = {"d_model": 256, "num_heads": 4, "head_dim": 64, "d_ff": 512}
# Sizes of T5 1.1, layers of each stack, vocabulary, (rows, source tokens, target tokens).
SHAPES: dict[str, tuple[dict[str, Any], int, int, tuple[int, int, int]]] = {
    "small": (_SMALL, 4, 512, (16, 256, 64)),
    "long": (_SMALL, 4, 32_128, (8, 512, 128)),
    # gin/recipes/replica_counting.gin
    "demo": (
        {"d_model": 64, "num_heads": 4, "head_dim": 16, "d_ff": 192},
        2,
        6_144,
        (8, 256, 32),
    ),
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_shape_flags(parser)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--scan", action="store_true", help="one compiled layer, looped")
    parser.add_argument("--microbatches", type=int, default=1)
    parser.add_argument("--chunk_logits", type=int, default=LossConfig.chunk_logits)
    parser.add_argument("--repeats", type=int, default=10)
    return parser.parse_args()


def add_shape_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--vocab", type=int, help="default: the shape's")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--packed", action="store_true")


def shaped_model(
    flags: argparse.Namespace, **options: Any
) -> tuple[ModelConfig, tuple[int, int, int]]:
    """The model of `add_shape_flags`, and its batch: (rows, source tokens, target tokens)."""
    sizes, depth, vocab, shape = SHAPES[flags.shape]
    config = ModelConfig(
        vocab_size=flags.vocab or vocab,
        **sizes,
        num_encoder_layers=depth,
        num_decoder_layers=depth,
        dropout_rate=flags.dropout,
        **options,
    )
    return config, shape


def make_batch(
    vocab: int, packed: bool, rows: int, inputs: int, targets: int
) -> dict[str, np.ndarray]:
    """Random tokens; one full segment a row, or several with padding behind."""
    draw = np.random.default_rng(0)
    batch = {
        k: np.zeros(s, np.int32) for k, s in ENCODER_DECODER.shapes(rows, inputs, targets).items()
    }
    for row in range(rows):
        for side, length in (("encoder", inputs), ("decoder", targets)):
            cuts = [0, length]
            if packed:
                cuts = [0, *sorted(draw.integers(length // 8, length - 8, 3)), length - 4]
            for segment, (start, end) in enumerate(itertools.pairwise(cuts), start=1):
                batch[f"{side}_segment_ids"][row, start:end] = segment
                batch[f"{side}_positions"][row, start:end] = np.arange(end - start)
    for key, side in (
        ("encoder_input_tokens", "encoder"),
        ("decoder_input_tokens", "decoder"),
        ("decoder_target_tokens", "decoder"),
    ):
        real = batch[f"{side}_segment_ids"] > 0
        batch[key] = np.where(real, draw.integers(2, vocab, real.shape), 0).astype(np.int32)
    batch["decoder_loss_weights"] = (batch["decoder_segment_ids"] > 0).astype(np.int32)
    return batch


def first_state(config: ModelConfig) -> TrainState:
    """A fresh state with the default optimiser."""
    model, optimizer = EncoderDecoder(config), make_optimizer(OptimizerConfig())
    return jax.jit(lambda key: init_state(model.init(key), optimizer))(jax.random.key(0))


def compile_step(
    config: ModelConfig,
    state: TrainState,
    batch: dict[str, jax.Array],
    loss: LossConfig,
    parts: int,
) -> tuple[jax.stages.Compiled, float]:
    """The training step, which donates its state, in `parts` microbatches; and compile seconds."""
    model, optimizer = EncoderDecoder(config), make_optimizer(OptimizerConfig())
    loss_fn = make_loss_fn(model, loss)
    step = jax.jit(make_train_step(loss_fn, optimizer, parts, seed=0), donate_argnums=0)
    started = time.perf_counter()
    return step.lower(state, batch).compile(), time.perf_counter() - started


def main() -> None:
    flags = parse()
    keep_freed_memory()
    config, shape = shaped_model(flags, dtype=flags.dtype, scan_layers=flags.scan)
    loss = LossConfig(chunk_logits=flags.chunk_logits)
    batch = jax.device_put(make_batch(config.vocab_size, flags.packed, *shape))
    state = first_state(config)
    compiled, compile_secs = compile_step(config, state, batch, loss, flags.microbatches)
    flops = config.train_flops(*shape)
    rounds = []
    for _ in range(flags.repeats + 1):
        started, cpu = time.perf_counter(), time.process_time()
        state, metrics = compiled(state, batch)
        jax.block_until_ready(state.params)
        secs, cpu_secs = time.perf_counter() - started, time.process_time() - cpu
        # In the same second, as other programs come and go.
        peak.forget()
        peak_flops = peak.matmul_peak(flags.dtype)
        rounds.append((secs, cpu_secs, peak_flops, flops / secs / peak_flops))
    secs, cpu_secs, peak_flops, share = (statistics.median(x) for x in zip(*rounds[1:]))
    real = int(metrics.filled.total)
    assert jnp.isfinite(metrics.losses.loss.value)
    result = {
        "shape": flags.shape,
        "vocab": config.vocab_size,
        "dropout": flags.dropout,
        "dtype": flags.dtype,
        "packed": flags.packed,
        "device": jax.devices()[0].device_kind,
        "step_secs": round(secs, 4),
        "cpu_secs": round(cpu_secs, 3),
        "gflops": round(flops / secs / 1e9, 1),
        "matmul_peak_gflops": round(peak_flops / 1e9, 1),
        "peak_share": round(share, 3),
        "peak_share_range": [round(f(r[3] for r in rounds[1:]), 3) for f in (min, max)],
        "real_tokens_per_sec": round(real / secs),
        "compile_secs": round(compile_secs, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
