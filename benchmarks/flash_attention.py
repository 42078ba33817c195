"""Memory and time of a layer's attention on TPUs, 'flash' beside 'einsum', without a TPU.

    PYTHONPATH=. TPU_LIBRARY_PATH=.../libtpu.so python benchmarks/flash_attention.py

Compiles forward, recomputed forward and backward of each attention of T5 1.1 XL and XXL (head dim
64, bfloat16) for one row with the compiler of the wheel libtpu, and adds the layers up. Nothing
runs. Columns:

- temp: the compiler's temporary bytes of the largest attention, for one row of all heads;
- attention: its time a row and step, of all layers. 'einsum': the larger of its FLOPs at the chip's
  peak and its bytes accessed (the compiler's count) at its memory bandwidth. 'flash': instructions
  that the compiler scheduled for a kernel's block, all executed, for every block, none skipped;
- rest: the FLOPs of everything else, with full recomputation, at the chip's peak.

Heads are compiled 8 at a time and multiplied. A packed row skips blocks between its examples, which
the table does not count.
"""

import argparse
import os
import pathlib
import re
import sys
import tempfile
from typing import Any, NamedTuple

DUMP = pathlib.Path(tempfile.mkdtemp(prefix="flash_"))
os.environ.update(
    JAX_PLATFORMS="cpu",
    TPU_SKIP_MDS_QUERY="1",
    ALLOW_MULTIPLE_LIBTPU_LOAD="1",
    LIBTPU_INIT_ARGS=f"--xla_jf_dump_to={DUMP} --xla_jf_dump_llo_text=true "
    "--xla_jf_dump_llo_pass_label_regex=.*final_bundles.*",
)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from jax.experimental import topologies  # noqa: E402

from instruct.models import flash, masks  # noqa: E402
from instruct.models.attention import KeyValue, attend  # noqa: E402
from instruct.models.config import ModelConfig  # noqa: E402


class Chip(NamedTuple):
    """Peak numbers of a chip, cloud.google.com/tpu/docs; the clock is the peak's, by MXU size."""

    topology: str
    cores: int
    clock_hz: float
    flops: float  # bfloat16, a second
    bandwidth: float  # bytes of HBM a second


CHIPS = {
    "v5e": Chip("v5e:2x2", 1, 1.5e9, 197e12, 819e9),
    "v5p": Chip("v5p:2x2x1", 2, 1.75e9, 459e12, 2765e9),
    "v6e": Chip("v6e:2x2", 1, 1.75e9, 918e12, 1640e9),
}
SIZES = {"xl": (2048, 32, 5120, 24), "xxl": (4096, 64, 10240, 24)}
LENGTHS = ((512, 128), (2048, 512))
HEADS, HEAD_DIM = 8, 64


class Cost(NamedTuple):
    """Of one row and one head."""

    temp_bytes: float
    seconds: float


def attention_cost(chip: Chip, implementation: str, queries: int, keys: int, causal: bool) -> Cost:
    """Compiles forward, forward again and backward of one row with `HEADS` heads."""
    biased = queries == keys
    device = topologies.get_topology_desc(platform="tpu", topology_name=chip.topology).devices[0]
    place = jax.sharding.SingleDeviceSharding(device)

    def array(*shape: int, dtype: Any = jnp.bfloat16) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    def attended(query, key, value, bias, query_segments, key_segments):
        mask = masks.SegmentMask(query_segments, key_segments, causal)
        if implementation == "flash":
            return attend(query, KeyValue(key, value), bias, mask, implementation="flash")
        return attend(query, KeyValue(key, value), bias, mask.dense())

    def step(query, key, value, bias, query_segments, key_segments, gradient):
        def of_arrays(query, key, value, bias):
            return attended(query, key, value, bias, query_segments, key_segments)

        result, backward = jax.vjp(jax.checkpoint(of_arrays), query, key, value, bias)
        return result, backward(gradient)

    bias = None
    if biased and implementation == "flash":
        bias = array(HEADS, 2 * flash.padded_length(keys))
    elif biased:
        bias = array(1, HEADS, queries, keys)
    query, key = array(1, HEADS, queries, HEAD_DIM), array(1, HEADS, keys, HEAD_DIM)
    segments = (array(1, queries, dtype=jnp.int32), array(1, keys, dtype=jnp.int32))
    for old in DUMP.iterdir():
        old.unlink()
    compiled = jax.jit(step).lower(query, key, key, bias, *segments, query).compile()
    temp_bytes = compiled.memory_analysis().temp_size_in_bytes
    if implementation == "flash":
        query_block, key_block = (flash.block_size(n, biased) for n in (queries, keys))
        blocks = -(-queries // query_block) * -(-keys // key_block) * HEADS
        bundles = 2 * scheduled_bundles("flash_forward") + scheduled_bundles("flash_backward")
        seconds = blocks * bundles / chip.clock_hz / chip.cores
    else:
        counted = compiled.cost_analysis()
        seconds = max(counted["flops"] / chip.flops, counted["bytes accessed"] / chip.bandwidth)
    return Cost(temp_bytes / HEADS, seconds / HEADS)


def scheduled_bundles(kernel: str) -> int:
    """Instruction bundles of a kernel's program, of the last compilation."""
    texts = [path.read_text() for path in DUMP.glob(f"*{kernel}*schedule-analysis_final_bundles*")]
    return max(int(re.findall(r"total scheduled bundles:\s+(\d+)", text)[0]) for text in texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chips", default="v5p,v6e")
    chips = parser.parse_args().chips.split(",")
    print(f"jax {jax.__version__}, bfloat16, one row, full recomputation, no block skipped")
    print("| chip | lengths | attention | model | temp MiB a row | attention ms | rest ms |")
    print("|---|---|---|---|---:|---:|---:|")
    for chip_name in chips:
        chip = CHIPS[chip_name]
        for inputs, targets in LENGTHS:
            for implementation in ("einsum", "flash"):
                costs = [
                    attention_cost(chip, implementation, inputs, inputs, causal=False),
                    attention_cost(chip, implementation, targets, targets, causal=True),
                    attention_cost(chip, implementation, targets, inputs, causal=False),
                ]
                for name, (d_model, heads, d_ff, layers) in SIZES.items():
                    config = ModelConfig(
                        vocab_size=32128,
                        d_model=d_model,
                        num_heads=heads,
                        head_dim=HEAD_DIM,
                        d_ff=d_ff,
                        num_encoder_layers=layers,
                        num_decoder_layers=layers,
                    )
                    pairs = inputs * inputs + targets * targets + targets * inputs
                    products = 4 * pairs * heads * HEAD_DIM * layers
                    rest = 4 * (config.forward_flops(1, inputs, targets) - products)
                    temp = max(cost.temp_bytes for cost in costs) * heads
                    seconds = sum(cost.seconds for cost in costs) * heads * layers
                    print(
                        f"| {chip_name} | {inputs} + {targets} | {implementation} | {name} "
                        f"| {temp / 2**20:.0f} | {1e3 * seconds:.1f} "
                        f"| {1e3 * rest / chip.flops:.1f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    sys.exit(main())
