"""Compiles training steps for eight fake CPU devices; prints what each device does, as JSON.

    python -m tests.train.sharded_programs fsdp=8 slice=2,fsdp=2,sequence=2

A process of its own, since XLA's warnings go to stderr only at a log level set before its start.
"""

import collections
import json
import math
import re
import sys
from typing import Any

import jax
import jax.numpy as jnp

from instruct import mesh as meshes
from instruct.batch import ENCODER_DECODER
from instruct.models.encoder_decoder import EncoderDecoder
from instruct.train.loss import LossConfig, make_loss_fn
from instruct.train.optimizer import OptimizerConfig, make_optimizer
from instruct.train.step import abstract_state, make_train_step, state_shardings
from tests.train.batches import tiny_config

# Sizes that no two arrays share, so that a shape names its array.
SIZES = {"vocab_size": 512, "d_model": 64, "head_dim": 24, "d_ff": 128}
LAYERS = {"num_encoder_layers": 1, "num_decoder_layers": 1}
MODEL = EncoderDecoder(tiny_config(**SIZES, **LAYERS, remat="full"))
ROWS, INPUTS, TARGETS = 8, 32, 16

_COLLECTIVE = re.compile(
    r"= (?P<shapes>.*?) (?P<kind>all-gather|all-reduce|reduce-scatter|all-to-all)(-start)?\("
)


def compile_step(mesh: Any) -> Any:
    """One update of `MODEL` on the mesh, compiled and not run."""
    optimizer = make_optimizer(OptimizerConfig())
    state = abstract_state(MODEL.abstract_params(), optimizer)
    shardings = state_shardings(mesh, state)
    state = meshes.with_shardings(state, shardings)
    rows = meshes.batch_sharding(mesh)
    batch = {
        name: jax.ShapeDtypeStruct(shape, jnp.int32, sharding=rows)
        for name, shape in ENCODER_DECODER.shapes(ROWS, INPUTS, TARGETS).items()
    }
    # More than one chunk, so that a kernel gathered in each would be seen.
    loss = LossConfig(chunk_logits=SIZES["vocab_size"] * ROWS * TARGETS // 16)
    loss_fn = make_loss_fn(MODEL, loss)
    step = make_train_step(loss_fn, optimizer, 1, 0)
    with jax.set_mesh(mesh):
        jitted = jax.jit(step, out_shardings=(shardings, meshes.replicated_sharding(mesh)))
        return jitted.lower(state, batch).compile()


def collectives(text: str) -> dict[str, dict[str, int]]:
    """{kind: {shape of the result: number}}; a shape sorted, since gradients may be transposed."""
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for line in text.splitlines():
        if match := _COLLECTIVE.search(line):
            for sizes in re.findall(r"f32\[([\d,]+)\]", match["shapes"]):
                shape = sorted(int(size) for size in sizes.split(","))
                counts[match["kind"]][str([size for size in shape if size > 1])] += 1
    return {kind: dict(shapes) for kind, shapes in counts.items()}


def main() -> None:
    programs = {}
    for text in sys.argv[1:]:
        config = meshes.parse_mesh(text)
        mesh = meshes.make_mesh(config, jax.devices()[: math.prod(config.sizes())])
        compiled = compile_step(mesh)
        programs[text] = {
            "flops": compiled.cost_analysis()["flops"],
            "collectives": collectives(compiled.as_text()),
        }
    print(json.dumps(programs))


if __name__ == "__main__":
    main()
