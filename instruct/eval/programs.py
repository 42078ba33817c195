"""Decoding and scoring as programs: lowered for a mesh of devices, which need not be present."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from instruct.eval.decoding.decode import DecodeConfig, drafts_fn, empty_cache, search_of
from instruct.eval.decoding.search import AdjustFn, advance
from instruct.eval.decoding.weights import check_weights
from instruct.eval.scoring.score import summed_logprobs
from instruct.mesh import batch_sharding, replicated_sharding
from instruct.model_interface import Model


def decode_batch(
    network: Model,
    params: Any,
    config: DecodeConfig,
    prompts: jax.Array,
    example_ids: jax.Array,
    adjust_fn: AdjustFn | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One batch from prompt to last token, of parameters that are int8 already if it asks for that.

    Args:
        network: prompts, cache and decoding step.
        params: its parameters.
        config: the strategy.
        prompts: [rows, S] int32, padded below 0.
        example_ids: [rows] int32.
        adjust_fn: see `search.advance`.

    Returns:
        Tokens [rows, N, T] int32, scores [rows, N] float32, and the number of steps, int32.
    """
    search = search_of(config)
    state, _, steps = advance(
        functools.partial(network.decode_step, params),
        network.reorder_cache,
        search,
        search.start(example_ids),
        empty_cache(network, network.start_prompts(params, prompts), config),
        jnp.int32(prompts.shape[0]),
        adjust_fn,
        drafts_fn=drafts_fn(config, prompts),
    )
    return *search.sequences(state), steps


def lower_decode(
    network: Model,
    params: Any,
    config: DecodeConfig,
    mesh: jax.sharding.Mesh,
    rows: int,
    source_length: int,
) -> jax.stages.Lowered:
    """Lowers (params, prompts [rows, S], example numbers [rows]) -> (tokens, scores).

    `decode_batch`; `run.py eval` runs the same steps in slots that it refills. `params` are
    abstract, with shardings. The program makes the int8 copy itself if the strategy asks for one.

    Raises:
        UserError: see `weights.check_weights`.
    """
    check_weights(config, mesh)

    def decode(params, prompts, example_ids):
        if config.weights == "int8":
            params = network.int8_params(params)
        return decode_batch(network, params, config, prompts, example_ids)[:2]

    by_rows = batch_sharding(mesh)
    prompts = jax.ShapeDtypeStruct((rows, source_length), jnp.int32, sharding=by_rows)
    example_ids = jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=by_rows)
    with jax.set_mesh(mesh):
        jitted = jax.jit(decode, out_shardings=replicated_sharding(mesh))
        return jitted.lower(params, prompts, example_ids)


def cache_bytes(
    network: Model, params: Any, config: DecodeConfig, rows: int, source_length: int
) -> dict[str, int]:
    """Bytes of the cache of `rows` slots: keys and values of prompts, and of answers."""

    def start(params: Any) -> Any:
        prompts = network.start_prompts(params, jnp.zeros((rows, source_length), jnp.int32))
        return empty_cache(network, prompts, config)

    cache = jax.eval_shape(start, params)
    sizes = {"prompts": cache.prompts, "answers": cache._replace(prompts=())}
    return {
        name: sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
        for name, tree in sizes.items()
    }


def lower_scoring(
    network: Model,
    params: Any,
    mesh: jax.sharding.Mesh,
    rows: int,
    lengths: tuple[int, int],
) -> jax.stages.Lowered:
    """Lowers (params, inputs [rows, S], targets [rows, T]) -> summed log-likelihoods [rows]."""

    def score(params, inputs, targets):
        return summed_logprobs(network.target_logits(params, inputs, targets), targets)

    by_rows = batch_sharding(mesh)
    inputs, targets = (
        jax.ShapeDtypeStruct((rows, length), jnp.int32, sharding=by_rows) for length in lengths
    )
    with jax.set_mesh(mesh):
        jitted = jax.jit(score, out_shardings=replicated_sharding(mesh))
        return jitted.lower(params, inputs, targets)
