"""How fast decoding is: new tokens per second, and how that relates to the machine.

    PYTHONPATH=. python benchmarks/decode.py [--vocab_size 512 32128] [--repeats 7]

T5 1.1 with 4 + 4 layers, d_model 256, 4 heads x 64, d_ff 512, float32, untied output; 16 prompts of
256 tokens, 32 new tokens each, none ends early. A call is what a user waits for: encoder, cross
keys and values, 32 steps; compilation is reported apart. Medians of repeats. `peak share` is the
matrix products' FLOP/s over the rate of a large matrix product measured between the repeats.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from instruct.eval.batching import BatchConfig, Decoder
from instruct.eval.decode import DecodeConfig
from instruct.models.config import ModelConfig
from instruct.models.encoder_decoder import EncoderDecoder, reorder_cache

PROMPTS, SOURCE, NEW_TOKENS, BEAMS = 16, 256, 32, 4
PEAK_SIZE = 2048


def model_config(vocab_size: int) -> ModelConfig:
    """The configuration that the peers were measured with."""
    return ModelConfig(
        vocab_size=vocab_size,
        d_model=256,
        num_heads=4,
        head_dim=64,
        d_ff=512,
        num_encoder_layers=4,
        num_decoder_layers=4,
    )


def decode_flops(config: ModelConfig, beams: int) -> float:
    """Multiply-adds counted twice: projections, MLPs, attention and head of one call."""
    joined, d_model = config.num_heads * config.head_dim, config.d_model
    projections, mlp = 4 * d_model * joined, 3 * d_model * config.d_ff
    encoder = PROMPTS * SOURCE * config.num_encoder_layers
    encoder *= projections + mlp + 2 * SOURCE * joined
    cross = PROMPTS * SOURCE * config.num_decoder_layers * 2 * d_model * joined
    token = config.num_decoder_layers * (
        projections + 2 * d_model * joined + mlp + 2 * (SOURCE + NEW_TOKENS) * joined
    )
    token += d_model * config.vocab_size
    return 2.0 * (encoder + cross + PROMPTS * beams * NEW_TOKENS * token)


def matmul_flops_per_sec() -> float:
    """Rate of one large float32 product in this process, best of three."""
    multiply = jax.jit(lambda a, b: a @ b)
    a = jnp.ones((PEAK_SIZE, PEAK_SIZE), jnp.float32)
    multiply(a, a).block_until_ready()
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        multiply(a, a).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2.0 * PEAK_SIZE**3 / best


def measure(vocab_size: int, strategy: str, repeats: int) -> str:
    """One row of the table."""
    config = model_config(vocab_size)
    model = EncoderDecoder(config)
    params = jax.jit(model.init)(jax.random.key(0))
    # An EOS that is no token of the vocabulary: every sequence runs to its end.
    decoding = DecodeConfig(strategy, NEW_TOKENS, eos_id=vocab_size)
    decoder = Decoder(model, reorder_cache, decoding, BatchConfig(PROMPTS))
    random = np.random.default_rng(0)
    prompts = random.integers(2, vocab_size, (PROMPTS, SOURCE)).tolist()
    start = time.perf_counter()
    decoder.generate(params, prompts)
    first = time.perf_counter() - start
    seconds, peaks = [], []
    for _ in range(repeats):
        peaks.append(matmul_flops_per_sec())
        start = time.perf_counter()
        decoder.generate(params, prompts)
        seconds.append(time.perf_counter() - start)
    call, peak = statistics.median(seconds), statistics.median(peaks)
    beams = decoding.num_sequences
    share = decode_flops(config, beams) / call / peak
    name = strategy if strategy == "greedy" else f"beam-{beams}"
    return (
        f"| {name} | {vocab_size:,} | {PROMPTS * NEW_TOKENS / call:,.0f} "
        f"| {1000 * call / NEW_TOKENS:.1f} | {100 * share:.0f} % | {peak / 1e9:.0f} "
        f"| {first - call:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocab_size", type=int, nargs="+", default=[512, 32_128])
    parser.add_argument("--strategy", nargs="+", default=["greedy", "beam"])
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    print(f"{jax.devices()[0].platform}, jax {jax.__version__}")
    print(
        "| strategy | vocabulary | new tokens/s | ms per token step | peak share "
        "| peak GFLOP/s | compile s |\n|---|---|---|---|---|---|---|"
    )
    for vocab_size in arguments.vocab_size:
        for strategy in arguments.strategy:
            print(measure(vocab_size, strategy, arguments.repeats), flush=True)


if __name__ == "__main__":
    main()
