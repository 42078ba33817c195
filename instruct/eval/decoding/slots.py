"""Continuous batching: a fixed number of decoding slots, refilled as answers end.

The device side of `batching.Decoder`: compiled functions over arrays of fixed shapes, except that
the source length may shrink. The host assigns prompts to slots between two runs of the loop, based
only on which answers have ended, so a list of prompts is always computed in the same way.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, Sharding

from instruct.eval.decoding.decode import DecodeConfig, drafts_fn, empty_cache, search_of
from instruct.eval.decoding.search import (
    NO_LIMIT,
    PADDING,
    PADDING_EXAMPLE,
    AdjustFn,
    advance,
    replace_rows,
)
from instruct.mesh import batch_sharding, logical_constraint, replicated_sharding
from instruct.model_interface import Model


class Report(NamedTuple):
    """State of all slots after a run: B slots, N sequences, T tokens at most."""

    ended: jax.Array  # [B] bool
    tokens: jax.Array  # [B, N, T] int32
    scores: jax.Array  # [B, N] float32
    positions: jax.Array  # [B] int32, tokens so far of the longest sequence


class SlotPrograms:
    """The compiled functions of a model and a strategy, for any parameters and prompts.

    Args:
        model: prompts, cache and decoding step.
        config: the strategy.
        adjust_fn: see `search.advance`.
        mesh: slots are split over its data axes; None: one device.
    """

    def __init__(
        self,
        model: Model,
        config: DecodeConfig,
        adjust_fn: AdjustFn | None,
        mesh: Mesh | None,
    ):
        self.model, self.search, self.mesh = model, search_of(config), mesh
        self._adjust_fn, self.config = adjust_fn, config
        whole = None if mesh is None else replicated_sharding(mesh)
        encode, narrow = _prompt_programs(model)
        self.encode = self._under_mesh(encode)
        self.empty = self._under_mesh(jax.jit(self._empty, static_argnums=(1, 2)))
        self.fill = self._under_mesh(jax.jit(self._fill, donate_argnums=(0, 1)))
        self.narrow = self._under_mesh(narrow)
        run = jax.jit(self._run, donate_argnums=(1, 2), out_shardings=(None, None, whole))
        self.run = self._under_mesh(run)

    def _under_mesh(self, function: Callable) -> Callable:
        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            with mesh_context(self.mesh):
                return function(*arguments)

        return call

    def _empty(self, params, num_slots: int, source_length: int):
        tokens = jax.ShapeDtypeStruct((num_slots, source_length), jnp.int32)
        shapes = jax.eval_shape(self.model.start_prompts, params, tokens)
        prompts = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        cache = empty_cache(self.model, prompts, self.config)
        padding = jnp.full((num_slots,), PADDING_EXAMPLE, jnp.int32)
        return _by_rows(self.search.start(padding)), cache

    def _fill(self, state, cache, prompts, example_ids, slots, rows, count):
        """`example_ids` [B]: PADDING_EXAMPLE for slots that get no prompt."""
        cache = self.model.fill_slots(cache, prompts, slots, rows, count)
        fresh = self.search.start(example_ids)
        state = replace_rows(example_ids != PADDING_EXAMPLE, fresh, state)
        return _by_rows(state), cache

    def _run(self, params, state, cache, enough, most_steps, prompts):
        """`prompts`: tokens [B, S] of each slot's, padded below 0, if the strategy drafts."""
        state, cache, _ = advance(
            functools.partial(self.model.decode_step, params),
            self.model.reorder_cache,
            self.search,
            state,
            cache,
            enough,
            self._adjust_fn,
            most_steps,
            drafts_fn(self.config, prompts),
        )
        ended = self.search.ended(state)
        report = Report(ended, *self.search.sequences(state), state.positions)
        return _by_rows(state), cache, report

    def rows(self, array: np.ndarray) -> jax.Array:
        """Puts an array with a leading row axis on the devices."""
        return put_array(array, self.mesh, batch_sharding)

    def whole(self, array: np.ndarray) -> jax.Array:
        """Puts an array on every device."""
        return put_array(array, self.mesh, replicated_sharding)


@functools.lru_cache(maxsize=16)
def _prompt_programs(model: Model) -> tuple[Callable, Callable]:
    """A model's `start_prompts` and `narrow`, compiled once for all strategies."""
    return jax.jit(model.start_prompts), jax.jit(model.narrow, static_argnums=1)


# Equal models and strategies compile once in a process, however many decoders they have.
_shared_programs = functools.lru_cache(maxsize=16)(SlotPrograms)


def slot_programs(
    model: Model, config: DecodeConfig, adjust_fn: AdjustFn | None, mesh: Mesh | None
) -> SlotPrograms:
    """`SlotPrograms`, shared where no `adjust_fn`, which may hold large tables, would be kept."""
    make = _shared_programs if adjust_fn is None else SlotPrograms
    return make(model, config, adjust_fn, mesh)


def mesh_context(mesh: Mesh | None) -> contextlib.AbstractContextManager[Any]:
    """Sets the mesh, if there is one."""
    return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


def put_array(
    array: np.ndarray, mesh: Mesh | None, sharding_fn: Callable[[Mesh], Sharding]
) -> jax.Array:
    """Puts an array, which all processes have, on the devices of a mesh or on the only device."""
    if mesh is None:
        return jnp.asarray(array)
    return jax.make_array_from_callback(array.shape, sharding_fn(mesh), lambda index: array[index])


def _by_rows(state: Any) -> Any:
    return jax.tree.map(lambda a: logical_constraint(a, ("batch", *[None] * (a.ndim - 1))), state)


class SlotArray:
    """The slots that decode one list of prompts of at most `source_length` padded tokens."""

    def __init__(self, programs: SlotPrograms, params: Any, num_slots: int, source_length: int):
        self._programs, self._params = programs, params
        self._length = source_length
        # Per slot: its example number, -1 if free; padded length of its prompt.
        self.owners = np.full(num_slots, -1)
        self._lengths = np.zeros(num_slots, np.int64)
        self._state, self._cache = programs.empty(params, num_slots, source_length)
        self._prompts = None
        if programs.config.draft_tokens:
            self._prompts = np.full((num_slots, source_length), PADDING, np.int32)

    def fill(
        self,
        prompts: Any,
        tokens: np.ndarray,
        rows: Sequence[int],
        owners: Sequence[int],
        ids: np.ndarray,
    ) -> None:
        """Puts prompts into free slots.

        Args:
            prompts, tokens: encoded by `SlotPrograms.encode`, and what it encoded, [M, S] int32.
            rows, owners: which prompts, at most as many as free slots, and their example numbers.
            ids: example ids by example number.
        """
        programs, num_slots, length = self._programs, len(self.owners), tokens.shape[1]
        longest = max(length, int(np.max(self._lengths * (self.owners >= 0))))
        if longest < self._length:
            self._length = longest
            self._cache = programs.narrow(self._cache, longest)
        free = np.flatnonzero(self.owners < 0)[: len(rows)]
        self.owners[free], self._lengths[free] = owners, length
        if self._prompts is not None:
            self._prompts[free, :length] = tokens[list(rows)]
            self._prompts[free, length:] = PADDING
        example_ids = np.full(num_slots, PADDING_EXAMPLE, np.int32)
        example_ids[free] = ids[list(owners)]
        slots_of, rows_of = np.zeros((2, num_slots), np.int32)
        slots_of[: len(free)], rows_of[: len(free)] = free, rows
        self._state, self._cache = programs.fill(
            self._state,
            self._cache,
            prompts,
            programs.rows(example_ids),
            programs.whole(slots_of),
            programs.whole(rows_of),
            programs.whole(np.array(len(free), np.int32)),
        )

    def run(self, enough: int, most_steps: int = NO_LIMIT) -> Report:
        """Starts the loop until `enough` slots are free or have ended; does not wait.

        At most `most_steps` steps: the report may hold answers that go on.
        """
        limits = (self._programs.whole(np.array(n, np.int32)) for n in (enough, most_steps))
        prompts = None if self._prompts is None else self._programs.rows(self._prompts)
        self._state, self._cache, report = self._programs.run(
            self._params, self._state, self._cache, *limits, prompts
        )
        return report
